//! Produce: the one request that has to be fast.
//!
//! Three steps: examine every batch (no state, no lock), append them all (one short lock), write
//! the answer. The batch bytes are copied once, and only when they are to be kept. Between the
//! second and the third, acks=all may have to wait for followers: the session then keeps the
//! request and what is known of its answer, and comes back.

use bytes::Bytes;
use ringpost_codec::kafka::header::put_response;
use ringpost_codec::kafka::produce::{
    self, CurrentLeader, NodeEndpoint, PartitionResult, RecordError, RequestView, Response,
    TopicResult,
};
use ringpost_codec::kafka::{self, ErrorCode};

use crate::append::{Offer, PartitionAnswer};
use crate::broker::Shared;
use crate::config::{BrokerConfig, Keep, Node};
use crate::examine::examine;
use crate::session::Closed;

/// A Produce request on its way.
pub(crate) struct Produce {
    pub(crate) node_id: i32,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) now_ms: i64,
    pub(crate) throttle_ms: i32,
    /// Every partition shall answer this, and nothing be appended.
    pub(crate) forced: Option<ErrorCode>,
}

/// What became of a Produce request.
pub(crate) enum Produced {
    /// It is answered; whether anything may have been appended.
    Answered(bool),
    /// Followers have to come up first.
    Waiting {
        /// The request's own timeout.
        until_ms: i64,
        answers: Vec<PartitionAnswer>,
    },
}

impl Produce {
    /// Works on the request whose body this is.
    pub(crate) fn work(
        &self,
        config: &BrokerConfig,
        body: &[u8],
        shared: &mut impl Shared,
        out: &mut Vec<u8>,
    ) -> Result<Produced, Closed> {
        let request = produce::decode_request(self.version, body)?;
        let refused = self.forced.or_else(|| refuse_whole(&request));
        let offers = match refused {
            Some(_) => Vec::new(),
            None => self.examine(config, &request),
        };
        let appended = !offers.is_empty();
        let (mut answers, nodes) = shared.with(|broker| {
            let answers = broker.produce(self.node_id, request.acks, offers)?;
            let nodes = leaders_named(&answers, &broker.nodes);
            Ok::<_, Closed>((answers, nodes))
        })?;
        if let Some(code) = refused {
            let partitions = request.topics().flat_map(|topic| topic.partitions);
            answers = partitions.map(|_| PartitionAnswer::refused(code)).collect();
        }
        if request.acks == 0 {
            let failed = answers.iter().map(|a| a.error).find(|e| !e.is_ok());
            return match failed {
                Some(code) => Err(Closed::Unacknowledged(code)),
                None => Ok(Produced::Answered(appended)),
            };
        }
        if answers.iter().any(|a| a.awaited.is_some()) {
            let timeout_ms = i64::from(request.timeout_ms.max(0));
            return Ok(Produced::Waiting {
                until_ms: self.now_ms.saturating_add(timeout_ms),
                answers,
            });
        }
        self.answer(&request, answers, &nodes, out)?;
        Ok(Produced::Answered(appended))
    }

    /// Looks again at a request that was [`Produced::Waiting`]. Says whether it is answered now.
    pub(crate) fn look_again(
        &self,
        body: &[u8],
        until_ms: i64,
        answers: &mut Vec<PartitionAnswer>,
        shared: &mut impl Shared,
        out: &mut Vec<u8>,
    ) -> Result<bool, Closed> {
        let time_over = self.now_ms >= until_ms;
        let nodes = shared.with(|broker| {
            let decided = broker.settle(self.node_id, answers, time_over);
            decided.then(|| leaders_named(answers, &broker.nodes))
        });
        let Some(nodes) = nodes else {
            return Ok(false);
        };
        let request = produce::decode_request(self.version, body)?;
        self.answer(&request, std::mem::take(answers), &nodes, out)?;
        Ok(true)
    }

    fn answer(
        &self,
        request: &RequestView<'_>,
        answers: Vec<PartitionAnswer>,
        nodes: &[Node],
        out: &mut Vec<u8>,
    ) -> Result<(), Closed> {
        let mut answers = answers.into_iter();
        let topics = request.topics().map(|topic| TopicResult {
            topic: topic.topic,
            partitions: topic
                .partitions
                .filter_map(|p| {
                    let answer = answers.next().filter(|a| !a.omitted)?;
                    Some(result(p.partition, &answer))
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
            throttle_time_ms: self.throttle_ms,
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
        written.map_err(|e| Closed::Unanswerable(e.to_string()))
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
        log_append_time_ms: answer.log_append_time_ms,
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
