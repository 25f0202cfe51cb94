//! What the cluster will do by itself, and when: followers fetch, replicas that lag are put out of
//! the in-sync set, silent nodes are fenced, nodes learn of changes.
//!
//! Owned by the broker. Nothing happens behind its back: the owner of the clock calls
//! [`crate::Broker::tick`], and what is due by then happens in the order in which it was due.
//!
//! Bound: one fetch and one look at the lag per copy of a partition, one silence and one view per
//! node, one round of expiry.

use std::collections::BTreeMap;

use crate::topic::TopicId;

/// One copy of one partition that is led elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Follower {
    pub(crate) topic: TopicId,
    pub(crate) index: usize,
    pub(crate) node: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A follower's fetch has brought it what its leader has.
    Fetch(Follower),
    /// A leader looks whether a follower has lagged for too long.
    Lag(Follower),
    /// The controller looks whether a node has been silent for too long.
    Silence(i32),
    /// A node learns of the changes it has not heard of.
    View(i32),
    /// Partitions forget producers that wrote nothing for long.
    Expiry,
}

#[derive(Debug, Default)]
pub(crate) struct Agenda {
    entries: BTreeMap<(i64, u64), Due>,
    made: u64,
}

impl Agenda {
    pub(crate) fn add(&mut self, at_ms: i64, due: Due) {
        self.made += 1;
        self.entries.insert((at_ms, self.made), due);
    }

    /// When the next thing happens.
    pub(crate) fn next_ms(&self) -> Option<i64> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next thing due by `now_ms`, and when it was due.
    pub(crate) fn take_due(&mut self, now_ms: i64) -> Option<(i64, Due)> {
        let entry = self.entries.first_entry()?;
        (entry.key().0 <= now_ms).then(|| {
            let ((at, _), due) = entry.remove_entry();
            (at, due)
        })
    }
}
