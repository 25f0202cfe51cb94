//! What a node knows of the cluster while it has not heard of the latest changes.
//!
//! Owned by the broker; a node without a view knows everything. A view is the topology as it was
//! when the node stopped hearing: by it the node answers Metadata, takes batches for partitions it
//! believes to lead, and refuses others.

use std::collections::{BTreeMap, BTreeSet};

use crate::topic::{Partition, TopicId};

/// One partition, as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) leader: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) replicas: Vec<i32>,
    pub(crate) isr: Vec<i32>,
}

impl Seen {
    pub(crate) fn of(partition: &Partition) -> Self {
        let (replicas, isr) = match &partition.replicas {
            Some(r) => (r.assigned.clone(), r.isr.clone()),
            None => (vec![partition.leader], vec![partition.leader]),
        };
        Self {
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            replicas,
            isr,
        }
    }
}

/// What one node knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// When it hears of everything again; `None` when something has to change for that.
    pub(crate) until_ms: Option<i64>,
    pub(crate) topics: BTreeMap<TopicId, (String, Vec<Seen>)>,
    pub(crate) names: BTreeMap<String, TopicId>,
    pub(crate) up: BTreeSet<i32>,
}

impl View {
    pub(crate) fn partition(&self, id: TopicId, index: usize) -> Option<&Seen> {
        self.topics.get(&id)?.1.get(index)
    }
}
