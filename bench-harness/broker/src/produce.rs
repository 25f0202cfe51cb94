//! Produce: the one request that has to be fast.
//!
//! Three steps: examine every batch (no state, no lock), append them all (one short lock), write
//! the answer. The batch bytes are copied once, and only when they are to be kept.

use bytes::Bytes;
use ringpost_codec::kafka::header::put_response;
use ringpost_codec::kafka::produce::{
    self, CurrentLeader, NodeEndpoint, PartitionResult, RecordError, RequestView, Response,
    TopicResult,
};
use ringpost_codec::kafka::{self, ErrorCode};

use crate::broker::{Offer, PartitionAnswer, Shared};
use crate::config::{BrokerConfig, Keep, Node};
use crate::examine::examine;
use crate::session::Closed;

/// A Produce request on its way.
pub(crate) struct Produce {
    pub(crate) node_id: i32,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) now_ms: i64,
    /// Every partition shall answer this, and nothing be appended.
    pub(crate) forced: Option<ErrorCode>,
}

impl Produce {
    /// Works on the request whose body this is. Says whether anything may have been appended.
    pub(crate) fn work(
        &self,
        config: &BrokerConfig,
        body: &[u8],
        shared: &mut impl Shared,
        out: &mut Vec<u8>,
    ) -> Result<bool, Closed> {
        let request = produce::decode_request(self.version, body)?;
        let refused = self.forced.or_else(|| refuse_whole(&request));
        let offers = match refused {
            Some(_) => Vec::new(),
            None => self.examine(config, &request),
        };
        let appended = !offers.is_empty();
        let (answers, throttle_ms, nodes) = shared.with(|broker| {
            let answers = broker.produce(self.node_id, offers)?;
            let nodes = leaders_named(&answers, &broker.nodes);
            Ok::<_, Closed>((answers, broker.faults.throttle_ms, nodes))
        })?;
        if request.acks == 0 {
            let failed = answers
                .iter()
                .map(|a| a.error)
                .find(|e| !e.is_ok())
                .or(refused);
            return match failed {
                Some(code) => Err(Closed::Unacknowledged(code)),
                None => Ok(appended),
            };
        }
        let mut answers = answers.into_iter();
        let topics = request.topics().map(|topic| TopicResult {
            topic: topic.topic,
            partitions: topic
                .partitions
                .filter_map(|p| {
                    let answer = answers.next();
                    if let Some(code) = refused {
                        return Some(PartitionResult::refused(p.partition, code));
                    }
                    answer
                        .filter(|a| !a.omitted)
                        .map(|a| result(p.partition, &a))
                })
                .collect(),
        });
        let endpoints = nodes.iter().map(|n| NodeEndpoint {
            node_id: n.id,
            host: &n.host,
            port: i32::from(n.port),
            rack: None,
        });
        let response = Response {
            topics: topics.collect(),
            throttle_time_ms: throttle_ms,
            node_endpoints: endpoints.collect(),
        };
        let mut written = Ok(());
        put_response(
            out,
            kafka::ApiKey::PRODUCE,
            self.version,
            self.correlation_id,
            |writer| {
                written = response.write(self.version, writer);
            },
        );
        written.map_err(|e| Closed::Unanswerable(e.to_string()))?;
        Ok(appended)
    }

    fn examine<'a>(&self, config: &BrokerConfig, request: &RequestView<'a>) -> Vec<Offer<'a>> {
        let mut offers = Vec::new();
        for topic in request.topics() {
            for p in topic.partitions {
                let batch = examine(config, self.version, self.now_ms, p.records);
                let worth_keeping = batch.is_ok() && config.keep != Keep::Nothing;
                let bytes = p
                    .records
                    .filter(|_| worth_keeping)
                    .map(Bytes::copy_from_slice);
                offers.push(Offer {
                    topic: topic.topic,
                    partition: p.partition,
                    batch,
                    bytes,
                });
            }
        }
        offers
    }
}

/// What is wrong with the request as a whole.
fn refuse_whole(request: &RequestView<'_>) -> Option<ErrorCode> {
    if !matches!(request.acks, -1..=1) {
        return Some(ErrorCode::INVALID_REQUIRED_ACKS);
    }
    request
        .transactional_id
        .map(|_| ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
}

fn result(partition: i32, answer: &PartitionAnswer) -> PartitionResult<'static> {
    let leader = |(leader_id, leader_epoch)| CurrentLeader {
        leader_id,
        leader_epoch,
    };
    PartitionResult {
        base_offset: answer.base_offset,
        log_start_offset: answer.log_start_offset,
        record_errors: answer
            .records
            .iter()
            .map(|&batch_index| RecordError {
                batch_index,
                message: answer.message,
            })
            .collect(),
        error_message: answer.message,
        current_leader: answer.leader.map(leader),
        ..PartitionResult::refused(partition, answer.error)
    }
}

/// The addresses of the leaders that clients are sent to.
fn leaders_named(answers: &[PartitionAnswer], nodes: &[Node]) -> Vec<Node> {
    if answers.iter().all(|a| a.leader.is_none()) {
        return Vec::new();
    }
    let named = |n: &&Node| {
        answers
            .iter()
            .any(|a| a.leader.is_some_and(|(id, _)| id == n.id))
    };
    nodes.iter().filter(named).cloned().collect()
}
