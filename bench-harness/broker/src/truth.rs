//! The truth for checkers: what lies in the logs, and how a partition is.
//!
//! A checker compares what an application was told with [`crate::Broker::committed`], and asks
//! [`crate::Broker::replica_log`] what each node holds.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::broker::Broker;
use crate::config::Keep;
use crate::log::{Log, Stored};
use crate::topic::Partition;

/// A batch in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBatch {
    /// The first record's offset.
    pub base_offset: i64,
    /// How many records.
    pub records: i32,
    /// −1 without idempotence.
    pub producer_id: i64,
    /// −1 without idempotence.
    pub producer_epoch: i16,
    /// −1 without idempotence.
    pub base_sequence: i32,
    /// The epoch of the leader that appended it.
    pub leader_epoch: i32,
    /// The latest timestamp in it.
    pub max_timestamp: i64,
    /// As Fetch gives it, offset and leader epoch filled in; empty with [`crate::Keep::Nothing`].
    pub bytes: Bytes,
}

impl StoredBatch {
    fn of(stored: &Stored) -> Self {
        let mut bytes = Vec::with_capacity(stored.bytes.len());
        stored.write(&mut bytes);
        Self {
            base_offset: stored.base_offset,
            records: stored.facts.records,
            producer_id: stored.facts.producer_id,
            producer_epoch: stored.facts.producer_epoch,
            base_sequence: stored.facts.base_sequence,
            leader_epoch: stored.leader_epoch,
            max_timestamp: stored.facts.max_timestamp,
            bytes: bytes.into(),
        }
    }
}

/// How a partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionState {
    /// The leader, −1 while there is none.
    pub leader: i32,
    /// Rises with every election.
    pub leader_epoch: i32,
    /// The nodes with copies, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those in sync, in the same order.
    pub isr: Vec<i32>,
    /// Records below are committed.
    pub high_watermark: i64,
    /// The first offset there is.
    pub log_start: i64,
    /// Behind the last record in each node's log.
    pub log_ends: BTreeMap<i32, i64>,
}

impl Broker {
    /// How a partition is.
    #[must_use]
    pub fn partition_state(&self, topic: &str, partition: i32) -> Option<PartitionState> {
        let partition = self.partition(self.place(topic, partition)?)?;
        let own_end = partition.own.log.next();
        let mut state = PartitionState {
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            replicas: vec![partition.leader],
            isr: vec![partition.leader],
            high_watermark: partition.high_watermark(),
            log_start: partition.own.log.start(),
            log_ends: BTreeMap::from([(partition.leader, own_end)]),
        };
        if let Some(replicas) = &partition.replicas {
            state.replicas.clone_from(&replicas.assigned);
            state.isr.clone_from(&replicas.isr);
            let followers = replicas.followers.iter();
            state.log_ends = followers
                .map(|(node, f)| (*node, f.replica.log.next()))
                .collect();
            state.log_ends.insert(replicas.home, own_end);
        }
        Some(state)
    }

    /// The committed batches a partition keeps, in order: everything there is, with
    /// [`crate::Keep::Everything`].
    #[must_use]
    pub fn committed(&self, topic: &str, partition: i32) -> Vec<StoredBatch> {
        let place = self.place(topic, partition);
        let Some(partition) = place.and_then(|place| self.partition(place)) else {
            return Vec::new();
        };
        let until = partition.high_watermark();
        let batches = partition.own.log.batches();
        batches
            .take_while(|b| b.last_offset() < until)
            .map(StoredBatch::of)
            .collect()
    }

    /// What one node's log holds, committed or not; `None` when it has no copy.
    #[must_use]
    pub fn replica_log(
        &self,
        node_id: i32,
        topic: &str,
        partition: i32,
    ) -> Option<Vec<StoredBatch>> {
        let partition = self.partition(self.place(topic, partition)?)?;
        let log = log_of(partition, node_id)?;
        Some(log.batches().map(StoredBatch::of).collect())
    }

    /// The committed batches a partition keeps, one behind the other with their offsets, as Fetch
    /// would give them.
    #[must_use]
    pub fn log(&self, topic: &str, partition: i32) -> Vec<u8> {
        let mut out = Vec::new();
        let place = self.place(topic, partition);
        if let Some(partition) = place.and_then(|place| self.partition(place)) {
            let until = partition.high_watermark();
            partition.own.log.read(0, until, usize::MAX, true, &mut out);
        }
        out
    }

    /// The batches that were committed and are in no log any more, as [`Broker::log`] would have given
    /// them: those of topics of this name that were deleted, and what was lost by unclean elections
    /// and with last copies in sync. Only with [`crate::Keep::Everything`].
    #[must_use]
    pub fn lost(&self, topic: &str, partition: i32) -> Vec<u8> {
        let deleted = self.deleted.get(&(topic.to_owned(), partition));
        let mut out = deleted.cloned().unwrap_or_default();
        let place = self.place(topic, partition);
        if let Some(partition) = place.and_then(|place| self.partition(place)) {
            write_lost(partition, &mut out);
        }
        out
    }

    /// Keeps for [`Broker::lost`] what goes with a topic.
    pub(crate) fn bury(&mut self, name: &str) {
        if self.config.keep != Keep::Everything {
            return;
        }
        let topic = self.names.get(name).and_then(|id| self.topics.get(id));
        for (number, partition) in (0..).zip(topic.map_or(&[][..], |topic| &topic.partitions)) {
            let out = self.deleted.entry((name.to_owned(), number)).or_default();
            write_lost(partition, out);
            let until = partition.high_watermark();
            partition.own.log.read(0, until, usize::MAX, true, out);
        }
    }
}

fn write_lost(partition: &Partition, out: &mut Vec<u8>) {
    for batch in partition.replicas.iter().flat_map(|r| &r.lost) {
        batch.write(out);
    }
}

fn log_of(partition: &Partition, node_id: i32) -> Option<&Log> {
    match &partition.replicas {
        None => (partition.leader == node_id).then_some(&partition.own.log),
        Some(replicas) if replicas.home == node_id => Some(&partition.own.log),
        Some(replicas) => replicas.followers.get(&node_id).map(|f| &f.replica.log),
    }
}
