//! How the nodes are: running, paused, fenced, cut off, and with whom each can talk.
//!
//! Owned by the broker. A node is *silent* when the controller hears nothing of it; after
//! `session_ms` of that it is *fenced*: it leads nothing and is in no in-sync set it can be taken
//! from.

use std::collections::{BTreeMap, BTreeSet};

/// One node's condition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    /// Its process has ended.
    pub(crate) stopped: bool,
    /// Its process does nothing (SIGSTOP).
    pub(crate) paused: bool,
    /// The controller does not count on it.
    pub(crate) fenced: bool,
    /// The controller and it do not hear one another.
    pub(crate) cut_off: bool,
    /// Its log directory is gone.
    pub(crate) dir_failed: bool,
    /// Since when the controller hears nothing, if it does not.
    pub(crate) silent_since_ms: Option<i64>,
    /// From its append at the leader until this node has a batch; `None` is as configured.
    pub(crate) fetch_delay_ms: Option<i64>,
    /// When it has producer ids to give; `None` before it is asked for the first.
    pub(crate) producer_ids_at_ms: Option<i64>,
    /// Counts its starts: connections do not outlive one.
    pub(crate) life: u64,
}

impl Condition {
    /// The controller hears of it.
    pub(crate) fn heard(&self) -> bool {
        !self.stopped && !self.paused && !self.cut_off
    }
}

/// All nodes, by id. A node that is not in the map is well.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    pub(crate) conditions: BTreeMap<i32, Condition>,
    /// Pairs (lower id, higher id) that cannot talk.
    pub(crate) cuts: BTreeSet<(i32, i32)>,
}

impl Nodes {
    pub(crate) fn condition(&mut self, node: i32) -> &mut Condition {
        self.conditions.entry(node).or_default()
    }

    fn is(&self, node: i32, what: impl Fn(&Condition) -> bool) -> bool {
        self.conditions.get(&node).is_some_and(what)
    }

    /// Metadata mentions it.
    pub(crate) fn is_up(&self, node: i32) -> bool {
        !self.is(node, |c| c.fenced)
    }

    /// It may lead and be in sync.
    pub(crate) fn eligible(&self, node: i32) -> bool {
        !self.is(node, |c| c.fenced || c.dir_failed)
    }

    pub(crate) fn heard(&self, node: i32) -> bool {
        self.conditions.get(&node).is_none_or(Condition::heard)
    }

    /// A follower's fetches come through.
    pub(crate) fn can_fetch(&self, leader: i32, follower: i32) -> bool {
        let works = |node| !self.is(node, |c| c.stopped || c.paused || c.dir_failed);
        let pair = (leader.min(follower), leader.max(follower));
        works(leader) && works(follower) && !self.cuts.contains(&pair)
    }

    pub(crate) fn fetch_delay_ms(&self, node: i32, usual: i64) -> i64 {
        let own = self.conditions.get(&node).and_then(|c| c.fetch_delay_ms);
        own.unwrap_or(usual).max(0)
    }
}
