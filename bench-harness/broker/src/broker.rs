//! The cluster's state: topics, logs, producers, leaders, the script of faults, counters.
//!
//! Owned by a simulation directly, or by a [`crate::Server`] behind one lock that is held for the
//! bookkeeping of a request only: batches are examined and copied outside it. No clock, no
//! randomness, no order taken from hashes: the same calls give the same answers.
//!
//! Invariants: `kept_bytes` is the sum over `kept`; `kept` has one entry per batch held by any log,
//! oldest first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use ringpost_codec::kafka::ErrorCode;

use crate::agenda::Agenda;
use crate::config::{BrokerConfig, Keep, Node};
use crate::faults::Faults;
use crate::nodes::Nodes;
use crate::replicas::{Place, Tallies};
use crate::report::{PartitionReport, Report};
use crate::session::Session;
use crate::topic::{Partition, Topic, TopicId, TopicSpec, is_valid_name, nth_id};
use crate::view::View;

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
    /// How the nodes are.
    pub(crate) members: Nodes,
    /// What nodes know that do not know everything.
    pub(crate) views: BTreeMap<i32, View>,
    pub(crate) agenda: Agenda,
    /// The time of the last tick.
    pub(crate) now_ms: i64,
    pub(crate) clock_started: bool,
    pub(crate) changes: u64,
    pub(crate) topics: BTreeMap<TopicId, Topic>,
    pub(crate) names: BTreeMap<String, TopicId>,
    topics_made: u64,
    /// The committed batches of partitions that were deleted with their topics, if everything is kept.
    pub(crate) deleted: BTreeMap<(String, i32), Vec<u8>>,
    next_producer_id: i64,
    pub(crate) faults: Faults,
    pub(crate) tallies: Tallies,
    /// Counts appends: each has its number.
    pub(crate) appends: u64,
    /// Which partition holds the batches kept, oldest first, with their lengths.
    pub(crate) kept: VecDeque<(TopicId, usize, usize)>,
    pub(crate) kept_bytes: usize,
    pub(crate) counters: Report,
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

impl Broker {
    /// A cluster without topics.
    #[must_use]
    pub fn new(config: BrokerConfig) -> Self {
        let nodes = config.nodes.clone();
        let next_producer_id = i64::try_from(config.seed % 1_000_000).unwrap_or(0) * 1_000;
        Self {
            config: Arc::new(config),
            nodes,
            members: Nodes::default(),
            views: BTreeMap::new(),
            agenda: Agenda::default(),
            now_ms: 0,
            clock_started: false,
            changes: 0,
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            topics_made: 0,
            deleted: BTreeMap::new(),
            next_producer_id,
            faults: Faults::default(),
            tallies: Tallies::default(),
            appends: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            counters: Report::default(),
        }
    }

    /// A new connection to one of the nodes.
    #[must_use]
    pub fn session(&self, node_id: i32) -> Session {
        let life = self.members.conditions.get(&node_id).map_or(0, |c| c.life);
        Session::new(node_id, life, Arc::clone(&self.config))
    }

    /// The script of what shall go wrong.
    pub fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// Makes a topic with so many partitions, led by the nodes in turn, with as many copies as the
    /// cluster's default says.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub fn create_topic(&mut self, name: &str, partitions: i32) -> Result<TopicId, TopicError> {
        let spec = TopicSpec {
            partitions,
            ..TopicSpec::default()
        };
        self.create_topic_with(name, &spec)
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub fn create_topic_with(
        &mut self,
        name: &str,
        spec: &TopicSpec,
    ) -> Result<TopicId, TopicError> {
        if !is_valid_name(name) {
            return Err(TopicError::Name);
        }
        if self.names.contains_key(name) {
            return Err(TopicError::Exists);
        }
        if !(1..=self.config.partitions_max).contains(&spec.partitions) {
            return Err(TopicError::Partitions);
        }
        if self.topics.len() >= self.config.topics_max {
            return Err(TopicError::TooMany);
        }
        self.spread();
        self.topics_made += 1;
        let id = nth_id(self.config.seed, self.topics_made);
        let nodes: Vec<i32> = self.nodes.iter().map(|n| n.id).collect();
        let mut topic = Topic::new(name, spec, &self.config.replication, &nodes);
        for partition in &mut topic.partitions {
            partition.settle_in(&self.members);
        }
        self.topics.insert(id, topic);
        self.names.insert(name.to_owned(), id);
        self.changes += 1;
        Ok(id)
    }

    /// Forgets a topic and its records; one made again under the name gets another id. Says whether
    /// there was one.
    pub fn delete_topic(&mut self, name: &str) -> bool {
        if !self.names.contains_key(name) {
            return false;
        }
        self.spread();
        self.bury(name);
        let Some(id) = self.names.remove(name) else {
            return false;
        };
        self.changes += 1;
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
        self.spread();
        let nodes: Vec<i32> = self.nodes.iter().map(|n| n.id).collect();
        let max = self.config.partitions_max;
        let id = self.names.get(name).ok_or(TopicError::Name)?;
        let topic = self.topics.get_mut(id).ok_or(TopicError::Name)?;
        let had = topic.partitions.len();
        let spec = TopicSpec {
            partitions: partitions.min(max),
            ..topic.spec.clone()
        };
        let grown = Topic::new(name, &spec, &self.config.replication, &nodes);
        if partitions > max || grown.partitions.len() <= had {
            return Err(TopicError::Partitions);
        }
        for mut partition in grown.partitions.into_iter().skip(had) {
            partition.settle_in(&self.members);
            topic.partitions.push(partition);
        }
        self.changes += 1;
        Ok(())
    }

    /// Deletes the records of a partition below an offset (DeleteRecords). Says whether there is
    /// such a partition.
    pub fn delete_records(&mut self, topic: &str, partition: i32, before_offset: i64) -> bool {
        let Some(place) = self.place(topic, partition) else {
            return false;
        };
        self.at(place, |partition, _, around| {
            let until = before_offset.min(partition.high_watermark());
            let most = around.config.producers_max;
            partition.own.delete_before(until, most);
            if let Some(replicas) = &mut partition.replicas {
                for follower in replicas.followers.values_mut() {
                    follower.replica.delete_before(until, most);
                }
            }
        });
        self.recount();
        true
    }

    /// The id of a topic.
    #[must_use]
    pub fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.names.get(name).copied()
    }

    /// The node that leads a partition: −1 while none does.
    #[must_use]
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        let topic = self.topics.get(self.names.get(topic)?)?;
        topic
            .partitions
            .get(usize::try_from(partition).ok()?)
            .map(|p| p.leader)
    }

    /// Changes the address clients are told for a node.
    pub fn set_node_address(&mut self, node_id: i32, host: &str, port: u16) {
        if let Some(node) = self.nodes.iter_mut().find(|n| n.id == node_id) {
            node.host = host.to_owned();
            node.port = port;
        }
    }

    /// What came in so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = self.counters.clone();
        let mut missing = 0;
        for (name, id) in &self.names {
            let partitions = self.topics.get(id).map_or(&[][..], |t| &t.partitions);
            for (number, partition) in (0..).zip(partitions) {
                missing += partition.own.producers.missing();
                report.partitions.push(PartitionReport {
                    topic: name.clone(),
                    partition: number,
                    start_offset: partition.own.log.start(),
                    next_offset: partition.own.log.next(),
                    records: partition.records,
                    bytes: partition.bytes,
                });
            }
        }
        report.lost = missing.max(self.tallies.lost());
        report.duplicated = self.tallies.numbers.duplicated;
        report.reordered = self.tallies.numbers.reordered;
        report.corrupt += self.tallies.numbers.corrupt;
        report.truncated = self.tallies.truncated;
        report.truncated_committed = self.tallies.truncated_committed;
        report
    }

    /// A producer id nobody had.
    pub(crate) fn new_producer_id(&mut self) -> i64 {
        let id = self.next_producer_id;
        self.next_producer_id += 1;
        id
    }

    /// Lets the oldest batches go until what is kept is within its bound.
    pub(crate) fn let_go(&mut self) {
        let Keep::Recent(max) = self.config.keep else {
            return;
        };
        if std::mem::take(&mut self.tallies.other_logs) {
            self.recount();
        }
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
                partition.drop_oldest(self.config.producers_max);
            }
        }
    }

    /// Counts anew what is kept, after batches went that were not the oldest.
    pub(crate) fn recount(&mut self) {
        let mut all = Vec::new();
        for (id, topic) in &self.topics {
            for (index, partition) in topic.partitions.iter().enumerate() {
                let batches = partition.own.log.batches();
                all.extend(batches.map(|b| (b.serial, (*id, index, b.bytes.len()))));
            }
        }
        all.sort_unstable();
        self.kept = all.into_iter().map(|(_, entry)| entry).collect();
        self.kept_bytes = self.kept.iter().map(|entry| entry.2).sum();
    }

    /// Where a partition is, if there is one.
    pub(crate) fn place(&self, topic: &str, partition: i32) -> Option<Place> {
        let id = self.topic_id(topic)?;
        let index = usize::try_from(partition).ok()?;
        let topic = self.topics.get(&id)?;
        (index < topic.partitions.len()).then_some((id, index))
    }

    pub(crate) fn partition(&self, place: Place) -> Option<&Partition> {
        self.topics.get(&place.0)?.partitions.get(place.1)
    }
}

pub(crate) fn len_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
