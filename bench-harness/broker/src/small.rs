//! The small requests: everything that is not Produce. Read and written by the generated types of
//! `kafka-protocol`, which is not the engine's codec: a mistake in one shows against the other.

use bytes::Bytes;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::fetch_response::{
    FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, BrokerId, FetchRequest, FetchResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest, InitProducerIdResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, ProducerId,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use ringpost_codec::kafka::ErrorCode;
use uuid::Uuid;

use crate::broker::{Broker, TopicError};
use crate::config::Node;
use crate::session::Closed;
use crate::topic::{Topic, TopicId, is_valid_name};
use crate::view::Seen;

/// From this Fetch version on topics go by id.
const FETCH_BY_ID_SINCE: i16 = 13;
/// From this Metadata version on a topic can be asked for by id.
const METADATA_BY_ID_SINCE: i16 = 12;
/// In the first Metadata version an empty list of topics means all of them.
const METADATA_EMPTY_IS_ALL: i16 = 0;
/// ListOffsets' timestamps that are no timestamps.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
/// A reason that a client may log; also on Produce.
const NO_TRANSACTIONS: &str = "this broker has no transactions and no groups";

/// What becomes of a small request.
pub(crate) enum Small {
    /// The answer's body.
    Answer(Vec<u8>),
    /// A Fetch that found nothing and may wait for so many ms.
    Wait(i64),
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// Everything that goes on the wire was made here, so an encoder that refuses it is a bug of this
/// crate; the client sees the connection end.
fn encode(message: &impl Encodable, version: i16) -> Result<Small, Closed> {
    let mut body = Vec::new();
    message
        .encode(&mut body, version)
        .map_err(|e| Closed::Unanswerable(e.to_string()))?;
    Ok(Small::Answer(body))
}

fn decode<M: Decodable>(body: &[u8], version: i16) -> Result<M, Closed> {
    let mut bytes = Bytes::copy_from_slice(body);
    M::decode(&mut bytes, version).map_err(|e| Closed::Undecodable(e.to_string()))
}

/// One small request on its way through the broker.
pub(crate) struct Ask {
    pub(crate) node_id: i32,
    pub(crate) version: i16,
    /// Every error field of the answer shall carry this code, and nothing be done.
    pub(crate) forced: Option<ErrorCode>,
    /// A Fetch without data is answered at once.
    pub(crate) patience_over: bool,
    pub(crate) throttle_ms: i32,
    pub(crate) now_ms: i64,
}

impl Broker {
    /// Works on a request whose body passed [`crate::shape::check`].
    pub(crate) fn small(&mut self, api: ApiKey, ask: &Ask, body: &[u8]) -> Result<Small, Closed> {
        let version = ask.version;
        match api {
            ApiKey::ApiVersions => {
                let answer = self.api_versions(&decode(body, version)?, ask);
                encode(&answer, version)
            }
            ApiKey::Metadata => encode(&self.metadata(decode(body, version)?, ask), version),
            ApiKey::InitProducerId => {
                let answer = self.init_producer_id(&decode(body, version)?, ask);
                encode(&answer, version)
            }
            ApiKey::FindCoordinator => {
                let answer = self.find_coordinator(&decode(body, version)?, ask);
                encode(&answer, version)
            }
            ApiKey::ListOffsets => {
                let answer = self.list_offsets(decode(body, version)?, ask);
                encode(&answer, version)
            }
            ApiKey::Fetch => {
                let request: FetchRequest = decode(body, version)?;
                let answer = self.fetch(&request, ask);
                let found = answer
                    .responses
                    .iter()
                    .flat_map(|t| &t.partitions)
                    .any(|p| {
                        p.error_code != 0 || p.records.as_ref().is_some_and(|r| !r.is_empty())
                    });
                let patient = request.min_bytes > 0 && request.max_wait_ms > 0;
                if !found && patient && !ask.patience_over {
                    let most = self.config.fetch_wait_ms_max;
                    return Ok(Small::Wait(i64::from(request.max_wait_ms).min(most)));
                }
                encode(&answer, version)
            }
            _ => Err(Closed::Version {
                api: api as i16,
                version,
            }),
        }
    }

    /// The answer to an ApiVersions request of a version not spoken here: always in v0
    /// (KIP-511), so that the client can read it and ask again.
    pub(crate) fn api_versions_refusal(&self) -> Result<Small, Closed> {
        let answer = ApiVersionsResponse::default()
            .with_error_code(ErrorCode::UNSUPPORTED_VERSION.0)
            .with_api_keys(self.advertised());
        encode(&answer, 0)
    }

    fn advertised(&self) -> Vec<ApiVersion> {
        self.config
            .versions
            .advertised()
            .map(|(key, low, high)| {
                ApiVersion::default()
                    .with_api_key(key)
                    .with_min_version(low)
                    .with_max_version(high)
            })
            .collect()
    }

    fn api_versions(&self, request: &ApiVersionsRequest, ask: &Ask) -> ApiVersionsResponse {
        let legal = ask.version < 3
            || (is_software_name(&request.client_software_name)
                && is_software_name(&request.client_software_version));
        let error = match ask.forced {
            Some(code) => code,
            None if legal => ErrorCode::NONE,
            None => ErrorCode::INVALID_REQUEST,
        };
        ApiVersionsResponse::default()
            .with_error_code(error.0)
            .with_throttle_time_ms(if ask.version >= 1 { ask.throttle_ms } else { 0 })
            .with_api_keys(self.advertised())
    }

    fn metadata(&mut self, request: MetadataRequest, ask: &Ask) -> MetadataResponse {
        let version = ask.version;
        let all = match &request.topics {
            None => true,
            Some(topics) => topics.is_empty() && version == METADATA_EMPTY_IS_ALL,
        };
        let topics = if all {
            let names = match self.views.get(&ask.node_id) {
                Some(view) => &view.names,
                None => &self.names,
            };
            let ids: Vec<TopicId> = names.values().copied().collect();
            ids.into_iter().map(|id| self.describe(id, ask)).collect()
        } else {
            let asked = request.topics.unwrap_or_default().into_iter();
            asked
                .map(|t| match t.name {
                    Some(name) => self.topic_by_name(&name, request.allow_auto_topic_creation, ask),
                    None if version >= METADATA_BY_ID_SINCE => {
                        self.describe(t.topic_id.into_bytes(), ask)
                    }
                    None => topic_error(None, ErrorCode::INVALID_REQUEST, version),
                })
                .collect()
        };
        let view = self.views.get(&ask.node_id);
        let up = |n: &&Node| match view {
            Some(view) => view.up.contains(&n.id),
            None => self.members.is_up(n.id),
        };
        let brokers = self.nodes.iter().filter(up).map(|n| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(n.id))
                .with_host(text(&n.host))
                .with_port(i32::from(n.port))
        });
        let mut answer = MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_controller_id(BrokerId(self.nodes.first().map_or(-1, |n| n.id)))
            .with_topics(topics);
        if version >= 2 {
            answer.cluster_id = Some(text(&self.config.cluster_id));
        }
        if version >= 3 {
            answer.throttle_time_ms = ask.throttle_ms;
        }
        answer
    }

    fn topic_by_name(&mut self, wanted: &str, make: bool, ask: &Ask) -> MetadataResponseTopic {
        if let Some(code) = ask.forced {
            return topic_error(Some(wanted), code, ask.version);
        }
        let known = match self.views.get(&ask.node_id) {
            Some(view) => view.names.get(wanted).copied(),
            None => self.topic_id(wanted),
        };
        if let Some(id) = known {
            return self.describe(id, ask);
        }
        if !is_valid_name(wanted) {
            return topic_error(Some(wanted), TopicError::Name.code(), ask.version);
        }
        if !make || !self.config.auto_create {
            return topic_error(
                Some(wanted),
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                ask.version,
            );
        }
        match self.create_topic(wanted, self.config.default_partitions) {
            Ok(id) if !self.views.contains_key(&ask.node_id) => self.describe(id, ask),
            // It is being made: this node has not heard yet.
            Ok(_) | Err(TopicError::Exists) => topic_error(
                Some(wanted),
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                ask.version,
            ),
            Err(error) => topic_error(Some(wanted), error.code(), ask.version),
        }
    }

    fn describe(&self, id: TopicId, ask: &Ask) -> MetadataResponseTopic {
        let known = match self.views.get(&ask.node_id) {
            Some(view) => view.topics.get(&id).cloned(),
            None => self
                .topics
                .get(&id)
                .map(|t| (t.name.clone(), t.partitions.iter().map(Seen::of).collect())),
        };
        let Some((topic_name, seen)) = known else {
            let mut answer = topic_error(None, ErrorCode::UNKNOWN_TOPIC_ID, ask.version);
            answer.topic_id = Uuid::from_bytes(id);
            return answer;
        };
        if let Some(code) = ask.forced {
            return topic_error(Some(&topic_name), code, ask.version);
        }
        let partitions = (0..).zip(seen);
        let partitions =
            partitions.map(|(number, seen)| self.describe_partition(number, seen, ask));
        let mut answer = MetadataResponseTopic::default()
            .with_name(Some(name(&topic_name)))
            .with_partitions(partitions.collect());
        if ask.version >= 10 {
            answer.topic_id = Uuid::from_bytes(id);
        }
        answer
    }

    fn describe_partition(&self, number: i32, seen: Seen, ask: &Ask) -> MetadataResponsePartition {
        let view = self.views.get(&ask.node_id);
        let is_up = |n: i32| match view {
            Some(view) => view.up.contains(&n),
            None => self.members.is_up(n),
        };
        let ids = |nodes: Vec<i32>| nodes.into_iter().map(BrokerId).collect::<Vec<_>>();
        let led = seen.leader >= 0 && is_up(seen.leader);
        let away: Vec<i32> = seen
            .replicas
            .iter()
            .copied()
            .filter(|n| !is_up(*n))
            .collect();
        let mut answer = MetadataResponsePartition::default()
            .with_partition_index(number)
            .with_leader_id(BrokerId(if led { seen.leader } else { -1 }))
            .with_replica_nodes(ids(seen.replicas))
            .with_isr_nodes(ids(seen.isr));
        if ask.version >= 7 {
            answer.leader_epoch = seen.leader_epoch;
        }
        if !led {
            answer.error_code = ErrorCode::LEADER_NOT_AVAILABLE.0;
        }
        if ask.version >= 5 {
            answer.offline_replicas = ids(away);
        }
        answer
    }

    fn init_producer_id(
        &mut self,
        request: &InitProducerIdRequest,
        ask: &Ask,
    ) -> InitProducerIdResponse {
        let answer = InitProducerIdResponse::default()
            .with_throttle_time_ms(ask.throttle_ms)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let has_id = request.producer_id.0 >= 0;
        let has_epoch = request.producer_epoch >= 0;
        let error = match &request.transactional_id {
            _ if ask.forced.is_some() => ask.forced.unwrap_or(ErrorCode::NONE),
            Some(id) if id.is_empty() => ErrorCode::INVALID_REQUEST,
            _ if has_id != has_epoch => ErrorCode::INVALID_REQUEST,
            Some(_) => ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            None => ErrorCode::NONE,
        };
        if !error.is_ok() {
            return answer.with_error_code(error.0);
        }
        if !self.has_producer_ids(ask) {
            return answer.with_error_code(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS.0);
        }
        // Without a transactional id Kafka hands out a new id, whatever the client had.
        answer
            .with_producer_id(ProducerId(self.new_producer_id()))
            .with_producer_epoch(0)
    }

    /// The first time a node is asked for a producer id, it has to fetch a block of them.
    fn has_producer_ids(&mut self, ask: &Ask) -> bool {
        let load_ms = self.config.producer_id_load_ms;
        if load_ms <= 0 {
            return true;
        }
        let condition = self.members.condition(ask.node_id);
        let at = *condition
            .producer_ids_at_ms
            .get_or_insert(ask.now_ms.saturating_add(load_ms));
        ask.now_ms >= at
    }

    /// There are no groups and no transactions, hence no coordinators.
    fn find_coordinator(
        &self,
        request: &FindCoordinatorRequest,
        ask: &Ask,
    ) -> FindCoordinatorResponse {
        let code = ask.forced.unwrap_or(ErrorCode::COORDINATOR_NOT_AVAILABLE).0;
        let mut answer = FindCoordinatorResponse::default();
        if ask.version >= 1 {
            answer.throttle_time_ms = ask.throttle_ms;
        }
        if ask.version >= 4 {
            let keys = request.coordinator_keys.iter();
            return answer.with_coordinators(
                keys.map(|key| {
                    Coordinator::default()
                        .with_key(key.clone())
                        .with_node_id(BrokerId(-1))
                        .with_port(-1)
                        .with_error_code(code)
                        .with_error_message(Some(text(NO_TRANSACTIONS)))
                })
                .collect(),
            );
        }
        if ask.version >= 1 {
            answer.error_message = Some(text(NO_TRANSACTIONS));
        }
        answer
            .with_error_code(code)
            .with_node_id(BrokerId(-1))
            .with_port(-1)
    }

    fn list_offsets(&mut self, request: ListOffsetsRequest, ask: &Ask) -> ListOffsetsResponse {
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let mut answer = ListOffsetsPartitionResponse::default()
                    .with_partition_index(asked.partition_index)
                    .with_timestamp(-1)
                    .with_offset(-1);
                match self.find_offset(&topic.name, asked.partition_index, asked.timestamp, ask) {
                    Ok((offset, timestamp, leader_epoch)) => {
                        answer.offset = offset;
                        answer.timestamp = timestamp;
                        if ask.version >= 4 {
                            answer.leader_epoch = leader_epoch;
                        }
                    }
                    Err(code) => answer.error_code = code.0,
                }
                answer
            });
            let partitions = partitions.collect();
            ListOffsetsTopicResponse::default()
                .with_name(topic.name)
                .with_partitions(partitions)
        });
        let answer = ListOffsetsResponse::default().with_topics(topics.collect());
        if ask.version >= 2 {
            return answer.with_throttle_time_ms(ask.throttle_ms);
        }
        answer
    }

    fn find_offset(
        &self,
        topic: &str,
        partition: i32,
        timestamp: i64,
        ask: &Ask,
    ) -> Result<(i64, i64, i32), ErrorCode> {
        if let Some(code) = ask.forced {
            return Err(code);
        }
        let partition = self
            .topic_id(topic)
            .and_then(|id| self.topics.get(&id))
            .zip(usize::try_from(partition).ok())
            .and_then(|(topic, index)| topic.partitions.get(index))
            .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        if partition.leader != ask.node_id {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        let log = &partition.own.log;
        let (offset, timestamp) = match timestamp {
            LATEST => (partition.high_watermark(), -1),
            EARLIEST | EARLIEST_LOCAL => (log.start(), -1),
            MAX_TIMESTAMP => log.latest_stamp().unwrap_or((-1, -1)),
            timestamp => log.at_or_after(timestamp).unwrap_or((-1, -1)),
        };
        Ok((offset, timestamp, partition.leader_epoch))
    }

    fn fetch(&self, request: &FetchRequest, ask: &Ask) -> FetchResponse {
        let by_id = ask.version >= FETCH_BY_ID_SINCE;
        let mut left = usize::try_from(request.max_bytes).unwrap_or(0);
        let mut empty_so_far = true;
        let mut answer = FetchResponse::default().with_throttle_time_ms(ask.throttle_ms);
        for asked in &request.topics {
            let id = if by_id {
                Some(asked.topic_id.into_bytes())
            } else {
                self.topic_id(&asked.topic)
            };
            let topic = id.and_then(|id| self.topics.get(&id));
            let mut partitions = Vec::with_capacity(asked.partitions.len());
            for wanted in &asked.partitions {
                let most = usize::try_from(wanted.partition_max_bytes)
                    .unwrap_or(0)
                    .min(left);
                let mut records = Vec::new();
                let found = self.fetch_partition(
                    topic.ok_or(if by_id {
                        ErrorCode::UNKNOWN_TOPIC_ID
                    } else {
                        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
                    }),
                    (wanted.partition, wanted.fetch_offset),
                    (most, empty_so_far),
                    ask,
                    &mut records,
                );
                left = left.saturating_sub(records.len());
                empty_so_far &= records.is_empty();
                partitions.push(found.with_records(Some(records.into())));
            }
            let mut topic = FetchableTopicResponse::default().with_partitions(partitions);
            if by_id {
                topic.topic_id = asked.topic_id;
            } else {
                topic.topic = asked.topic.clone();
            }
            answer.responses.push(topic);
        }
        if ask.version >= 16 {
            answer.node_endpoints = self.endpoints_of(&answer);
        }
        answer
    }

    fn fetch_partition(
        &self,
        topic: Result<&Topic, ErrorCode>,
        (index, offset): (i32, i64),
        (bytes_max, at_least_one): (usize, bool),
        ask: &Ask,
        records: &mut Vec<u8>,
    ) -> PartitionData {
        let answer = PartitionData::default()
            .with_partition_index(index)
            .with_high_watermark(-1)
            .with_preferred_read_replica(BrokerId(-1))
            .with_aborted_transactions(None);
        let partition = topic.and_then(|topic| {
            usize::try_from(index)
                .ok()
                .and_then(|index| topic.partitions.get(index))
                .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
        });
        let partition = match (ask.forced, partition) {
            (Some(code), _) | (None, Err(code)) => return answer.with_error_code(code.0),
            (None, Ok(partition)) => partition,
        };
        if partition.leader != ask.node_id {
            let mut answer = answer.with_error_code(ErrorCode::NOT_LEADER_OR_FOLLOWER.0);
            if ask.version >= 12 {
                answer.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(BrokerId(partition.leader))
                    .with_leader_epoch(partition.leader_epoch);
            }
            return answer;
        }
        let log = &partition.own.log;
        let until = partition.high_watermark();
        let mut answer = answer
            .with_high_watermark(until)
            .with_last_stable_offset(until);
        if ask.version >= 5 {
            answer.log_start_offset = log.start();
        }
        if !(log.start()..=log.next()).contains(&offset) {
            return answer.with_error_code(ErrorCode::OFFSET_OUT_OF_RANGE.0);
        }
        log.read(offset, until, bytes_max, at_least_one, records);
        answer
    }

    fn endpoints_of(&self, answer: &FetchResponse) -> Vec<NodeEndpoint> {
        let named = |id: i32| {
            let partitions = answer.responses.iter().flat_map(|t| &t.partitions);
            partitions
                .into_iter()
                .any(|p| p.current_leader.leader_id.0 == id)
        };
        let nodes = self.nodes.iter().filter(|n| named(n.id));
        nodes
            .map(|n| {
                NodeEndpoint::default()
                    .with_node_id(BrokerId(n.id))
                    .with_host(text(&n.host))
                    .with_port(i32::from(n.port))
            })
            .collect()
    }
}

/// A topic that is an error. Before v12 it has to have a name.
fn topic_error(wanted: Option<&str>, code: ErrorCode, version: i16) -> MetadataResponseTopic {
    let wanted = match wanted {
        None if version < METADATA_BY_ID_SINCE => Some(""),
        other => other,
    };
    MetadataResponseTopic::default()
        .with_error_code(code.0)
        .with_name(wanted.map(name))
}

/// Kafka's `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?` (KIP-511).
fn is_software_name(name: &str) -> bool {
    let (Some(first), Some(last)) = (name.bytes().next(), name.bytes().last()) else {
        return false;
    };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'.')
}
