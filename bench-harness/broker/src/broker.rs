//! The cluster's state: topics, logs, producers, leaders, the script of faults, counters.
//!
//! Owned by a simulation directly, or by a [`crate::Server`] behind one lock that is held for the
//! bookkeeping of a request only: batches are examined and copied outside it. No clock, no
//! randomness, no order taken from hashes: the same calls give the same answers.
//!
//! Invariants: `kept_bytes` is the sum over `kept`; `kept` has one entry per batch held by any log,
//! oldest first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ringpost_codec::kafka::ErrorCode;
use ringpost_codec::kafka::produce::TopicRef;

use crate::config::{BrokerConfig, Keep, Node};
use crate::examine::{BatchFacts, Refusal};
use crate::faults::{Faults, PartitionFault};
use crate::numbering::{Numbering, Tally};
use crate::producers::Verdict;
use crate::report::{PartitionReport, Report};
use crate::session::{Closed, Session};
use crate::topic::{Partition, Topic, TopicId, is_valid_name, nth_id};

/// Why a topic could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Kafka allows 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`.
    #[error("not a legal topic name: give 1 to 249 letters, digits, dots, underscores or hyphens")]
    Name,
    /// There is one already.
    #[error("the topic exists already")]
    Exists,
    /// Fewer than one, or more than `partitions_max`.
    #[error("a topic has at least one partition and at most `partitions_max`")]
    Partitions,
    /// `topics_max` is reached.
    #[error("there are `topics_max` topics already")]
    TooMany,
}

impl TopicError {
    /// What Kafka answers for it.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Name => ErrorCode::INVALID_TOPIC_EXCEPTION,
            Self::Exists => ErrorCode::TOPIC_ALREADY_EXISTS,
            Self::Partitions => ErrorCode::INVALID_PARTITIONS,
            Self::TooMany => ErrorCode::POLICY_VIOLATION,
        }
    }
}

/// A cluster of one or more nodes that answers as Kafka would.
///
/// Clients are heard through [`Session`]s, one per connection: see there for an example.
#[derive(Debug)]
pub struct Broker {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) nodes: Vec<Node>,
    /// Nodes Metadata does not mention for the time being.
    down: BTreeSet<i32>,
    pub(crate) topics: BTreeMap<TopicId, Topic>,
    pub(crate) names: BTreeMap<String, TopicId>,
    topics_made: u64,
    next_producer_id: i64,
    pub(crate) faults: Faults,
    numbering: Numbering,
    numbers: Tally,
    /// Which partition holds the batches kept, oldest first, with their lengths.
    kept: VecDeque<(TopicId, usize, usize)>,
    kept_bytes: usize,
    counters: Report,
}

/// How a [`Session`] reaches the [`Broker`]: directly, or through a lock it holds only as long as it
/// must.
pub trait Shared {
    /// Lets `act` at the broker.
    fn with<R>(&mut self, act: impl FnOnce(&mut Broker) -> R) -> R;
}

impl Shared for Broker {
    fn with<R>(&mut self, act: impl FnOnce(&mut Broker) -> R) -> R {
        act(self)
    }
}

impl Shared for &Mutex<Broker> {
    fn with<R>(&mut self, act: impl FnOnce(&mut Broker) -> R) -> R {
        // A thread that panicked with the lock has ended its own connection; the others go on.
        act(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One partition of a Produce request, examined.
pub(crate) struct Offer<'a> {
    pub(crate) topic: TopicRef<'a>,
    pub(crate) partition: i32,
    pub(crate) batch: Result<BatchFacts, Refusal>,
    /// A copy to keep.
    pub(crate) bytes: Option<Bytes>,
}

/// What a partition answers.
#[derive(Debug, Clone)]
pub(crate) struct PartitionAnswer {
    pub(crate) error: ErrorCode,
    pub(crate) base_offset: i64,
    pub(crate) log_start_offset: i64,
    /// The records at fault, by their places in the batch.
    pub(crate) records: Vec<i32>,
    pub(crate) message: Option<&'static str>,
    /// The leader to go to instead, and its epoch.
    pub(crate) leader: Option<(i32, i32)>,
    /// Left out of the answer.
    pub(crate) omitted: bool,
}

impl PartitionAnswer {
    fn error(error: ErrorCode) -> Self {
        Self {
            error,
            base_offset: -1,
            log_start_offset: -1,
            records: Vec::new(),
            message: None,
            leader: None,
            omitted: false,
        }
    }

    fn written(base_offset: i64, log_start_offset: i64) -> Self {
        Self {
            base_offset,
            log_start_offset,
            ..Self::error(ErrorCode::NONE)
        }
    }
}

impl Broker {
    /// A cluster without topics.
    #[must_use]
    pub fn new(config: BrokerConfig) -> Self {
        let nodes = config.nodes.clone();
        let next_producer_id = i64::try_from(config.seed % 1_000_000).unwrap_or(0) * 1_000;
        Self {
            config: Arc::new(config),
            nodes,
            down: BTreeSet::new(),
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            topics_made: 0,
            next_producer_id,
            faults: Faults::default(),
            numbering: Numbering::default(),
            numbers: Tally::default(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            counters: Report::default(),
        }
    }

    /// A new connection to one of the nodes.
    #[must_use]
    pub fn session(&self, node_id: i32) -> Session {
        Session::new(node_id, Arc::clone(&self.config))
    }

    /// The script of what shall go wrong.
    pub fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// Makes a topic with so many partitions, led by the nodes in turn.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub fn create_topic(&mut self, name: &str, partitions: i32) -> Result<TopicId, TopicError> {
        if !is_valid_name(name) {
            return Err(TopicError::Name);
        }
        if self.names.contains_key(name) {
            return Err(TopicError::Exists);
        }
        if !(1..=self.config.partitions_max).contains(&partitions) {
            return Err(TopicError::Partitions);
        }
        if self.topics.len() >= self.config.topics_max {
            return Err(TopicError::TooMany);
        }
        self.topics_made += 1;
        let id = nth_id(self.config.seed, self.topics_made);
        let nodes: Vec<i32> = self.nodes.iter().map(|n| n.id).collect();
        self.topics.insert(id, Topic::new(name, partitions, &nodes));
        self.names.insert(name.to_owned(), id);
        Ok(id)
    }

    /// Forgets a topic and its records; one made again under the name gets another id. Says whether
    /// there was one.
    pub fn delete_topic(&mut self, name: &str) -> bool {
        let Some(id) = self.names.remove(name) else {
            return false;
        };
        self.topics.remove(&id);
        self.kept.retain(|entry| entry.0 != id);
        self.kept_bytes = self.kept.iter().map(|entry| entry.2).sum();
        true
    }

    /// Adds partitions to a topic, up to `partitions` in all.
    ///
    /// # Errors
    /// [`TopicError::Name`] when there is no such topic, [`TopicError::Partitions`] when it would
    /// not grow or grow too much.
    pub fn grow_topic(&mut self, name: &str, partitions: i32) -> Result<(), TopicError> {
        let nodes: Vec<i32> = self.nodes.iter().map(|n| n.id).collect();
        let max = self.config.partitions_max;
        let id = self.names.get(name).ok_or(TopicError::Name)?;
        let topic = self.topics.get_mut(id).ok_or(TopicError::Name)?;
        let grown = Topic::new(name, partitions.min(max), &nodes);
        if partitions > max || grown.partitions.len() <= topic.partitions.len() {
            return Err(TopicError::Partitions);
        }
        let had = topic.partitions.len();
        topic
            .partitions
            .extend(grown.partitions.into_iter().skip(had));
        Ok(())
    }

    /// The id of a topic.
    #[must_use]
    pub fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.names.get(name).copied()
    }

    /// Makes another node the leader of a partition, in a new leader epoch. Says whether there is
    /// such a partition.
    pub fn move_leader(&mut self, topic: &str, partition: i32, node_id: i32) -> bool {
        let Some(partition) = self.partition_mut(topic, partition) else {
            return false;
        };
        partition.leader = node_id;
        partition.leader_epoch += 1;
        true
    }

    /// The node that leads a partition.
    #[must_use]
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        let topic = self.topics.get(self.names.get(topic)?)?;
        topic
            .partitions
            .get(usize::try_from(partition).ok()?)
            .map(|p| p.leader)
    }

    /// Whether Metadata mentions a node and lets it lead. Its sessions go on: ending them is the
    /// caller's.
    pub fn set_node_up(&mut self, node_id: i32, up: bool) {
        if up {
            self.down.remove(&node_id);
        } else {
            self.down.insert(node_id);
        }
    }

    /// Changes the address clients are told for a node.
    pub fn set_node_address(&mut self, node_id: i32, host: &str, port: u16) {
        if let Some(node) = self.nodes.iter_mut().find(|n| n.id == node_id) {
            node.host = host.to_owned();
            node.port = port;
        }
    }

    /// The batches a partition still keeps, one behind the other with their offsets, as Fetch
    /// would give them.
    #[must_use]
    pub fn log(&self, topic: &str, partition: i32) -> Vec<u8> {
        let mut out = Vec::new();
        let topic = self.names.get(topic).and_then(|id| self.topics.get(id));
        let index = usize::try_from(partition).unwrap_or(usize::MAX);
        if let Some(partition) = topic.and_then(|t| t.partitions.get(index)) {
            partition.log.read(0, usize::MAX, true, &mut out);
        }
        out
    }

    /// What came in so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = self.counters.clone();
        let mut missing = 0;
        for (name, id) in &self.names {
            let partitions = self.topics.get(id).map_or(&[][..], |t| &t.partitions);
            for (number, partition) in (0..).zip(partitions) {
                missing += partition.producers.missing();
                report.partitions.push(PartitionReport {
                    topic: name.clone(),
                    partition: number,
                    start_offset: partition.log.start(),
                    next_offset: partition.log.next(),
                    records: partition.records,
                    bytes: partition.bytes,
                });
            }
        }
        report.lost = missing.max(self.numbering.lost());
        report.duplicated = self.numbers.duplicated;
        report.reordered = self.numbers.reordered;
        report.corrupt += self.numbers.corrupt;
        report
    }

    pub(crate) fn is_up(&self, node_id: i32) -> bool {
        !self.down.contains(&node_id)
    }

    /// A producer id nobody had.
    pub(crate) fn new_producer_id(&mut self) -> i64 {
        let id = self.next_producer_id;
        self.next_producer_id += 1;
        id
    }

    /// Works on the partitions of one Produce request, in order.
    pub(crate) fn produce(
        &mut self,
        node_id: i32,
        offers: Vec<Offer<'_>>,
    ) -> Result<Vec<PartitionAnswer>, Closed> {
        self.counters.requests += 1;
        let mut answers = Vec::with_capacity(offers.len());
        for offer in offers {
            let answer = self.append(node_id, offer)?;
            self.counters.refused += u64::from(!answer.error.is_ok());
            answers.push(answer);
        }
        self.let_go();
        Ok(answers)
    }

    fn append(&mut self, node_id: i32, offer: Offer<'_>) -> Result<PartitionAnswer, Closed> {
        let request = self.counters.requests;
        let id = match offer.topic {
            TopicRef::Name(name) => self.names.get(name).copied(),
            TopicRef::Id(id) => Some(id),
        };
        let Some((id, topic)) = id.and_then(|id| Some((id, self.topics.get_mut(&id)?))) else {
            return Ok(PartitionAnswer::error(match offer.topic {
                TopicRef::Name(name) if !is_valid_name(name) => ErrorCode::INVALID_TOPIC_EXCEPTION,
                TopicRef::Name(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                TopicRef::Id(_) => ErrorCode::UNKNOWN_TOPIC_ID,
            }));
        };
        let fault = self.faults.take_batch(&topic.name, offer.partition);
        let partition = match topic.partition(offer.partition) {
            Ok(partition) => partition,
            Err(code) => return Ok(PartitionAnswer::error(code)),
        };
        if partition.named_by == request {
            return Err(Closed::PartitionTwice(offer.partition));
        }
        partition.named_by = request;
        match fault {
            Some(PartitionFault::ErrorBefore(code)) => return Ok(PartitionAnswer::error(code)),
            Some(PartitionFault::OmitBefore) => {
                return Ok(PartitionAnswer {
                    omitted: true,
                    ..PartitionAnswer::error(ErrorCode::NONE)
                });
            }
            Some(PartitionFault::Moved {
                leader_id,
                leader_epoch,
            }) => {
                return Ok(PartitionAnswer {
                    leader: Some((leader_id, leader_epoch)),
                    ..PartitionAnswer::error(ErrorCode::NOT_LEADER_OR_FOLLOWER)
                });
            }
            Some(PartitionFault::ErrorAfter(_) | PartitionFault::OmitAfter) | None => {}
        }
        if partition.leader != node_id {
            return Ok(PartitionAnswer {
                leader: Some((partition.leader, partition.leader_epoch)),
                ..PartitionAnswer::error(ErrorCode::NOT_LEADER_OR_FOLLOWER)
            });
        }
        let batch = match offer.batch {
            Ok(batch) => batch,
            Err(refusal) => {
                self.counters.corrupt += u64::from(refusal.corrupt);
                return Ok(PartitionAnswer {
                    records: refusal.records,
                    message: Some(refusal.message),
                    ..PartitionAnswer::error(refusal.code)
                });
            }
        };
        let verdict = partition.producers.judge(&batch, self.config.old_duplicate);
        let base_offset = match verdict {
            Verdict::Refuse(code) => {
                self.counters.out_of_sequence += 1;
                return Ok(PartitionAnswer::error(code));
            }
            Verdict::Duplicate(base_offset) => {
                self.counters.retries_recognised += 1;
                base_offset
            }
            Verdict::Append => {
                let keeps = offer.bytes.is_some();
                let base_offset =
                    Self::write(partition, &batch, offer.bytes, self.config.producers_max);
                if keeps {
                    let index = usize::try_from(offer.partition).unwrap_or(0);
                    self.kept.push_back((id, index, batch.len));
                    self.kept_bytes += batch.len;
                }
                if !batch.numbers.is_empty() {
                    let tally = self.numbering.take(&mut partition.numbers, &batch.numbers);
                    self.numbers.duplicated += tally.duplicated;
                    self.numbers.reordered += tally.reordered;
                    self.numbers.corrupt += tally.corrupt;
                }
                self.counters.batches += 1;
                self.counters.records += u64::from(batch.records.unsigned_abs());
                self.counters.bytes += len_u64(batch.len);
                base_offset
            }
        };
        let mut answer = PartitionAnswer::written(base_offset, partition.log.start());
        match fault {
            Some(PartitionFault::ErrorAfter(code)) => answer = PartitionAnswer::error(code),
            Some(PartitionFault::OmitAfter) => answer.omitted = true,
            _ => {}
        }
        Ok(answer)
    }

    fn write(
        partition: &mut Partition,
        batch: &BatchFacts,
        bytes: Option<Bytes>,
        producers_max: usize,
    ) -> i64 {
        let base_offset = partition.log.append(
            batch.records,
            batch.max_timestamp,
            partition.leader_epoch,
            bytes,
        );
        partition
            .producers
            .remember(batch, base_offset, producers_max);
        partition.records += u64::from(batch.records.unsigned_abs());
        partition.bytes += len_u64(batch.len);
        base_offset
    }

    /// Lets the oldest batches go until what is kept is within its bound.
    fn let_go(&mut self) {
        let Keep::Recent(max) = self.config.keep else {
            return;
        };
        while self.kept_bytes > max {
            let Some((id, index, len)) = self.kept.pop_front() else {
                return;
            };
            self.kept_bytes -= len;
            let partition = self
                .topics
                .get_mut(&id)
                .and_then(|t| t.partitions.get_mut(index));
            if let Some(partition) = partition {
                partition.log.drop_oldest();
            }
        }
    }

    fn partition_mut(&mut self, topic: &str, partition: i32) -> Option<&mut Partition> {
        self.topics
            .get_mut(self.names.get(topic)?)?
            .partition(partition)
            .ok()
    }
}

fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
