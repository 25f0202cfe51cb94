//! The copies of one partition: who leads, who is in sync, what is committed.
//!
//! Kafka's truth, seen from above: the controller's decisions take effect at once here, and what a
//! node has not heard of yet is its [`crate::view::View`]. A partition with one copy has none of
//! this ([`Partition::replicas`] is `None`) and costs nothing more than before.
//!
//! Invariants: the leader is in `isr`; `isr` is never empty and a part of `assigned`, in its order;
//! `high_watermark` is at most the leader's log end; every assigned node but `home` is in
//! `followers`; batches below the high watermark are the same in all logs of the in-sync set
//! that have fetched from this leader.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::agenda::{Agenda, Due, Follower};
use crate::config::{BrokerConfig, Keep};
use crate::examine::BatchFacts;
use crate::log::{Log, Stored};
use crate::nodes::Nodes;
use crate::numbering::{Numbering, PartitionHigh, Tally};
use crate::producers::Producers;
use crate::topic::{Partition, TopicId};

/// One copy of a partition.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    pub(crate) log: Log,
    pub(crate) producers: Producers,
    /// What was known of producers before the first batch kept: where a rebuild begins.
    before: Producers,
}

impl Replica {
    /// Appends a batch that was judged good. Without bytes, and without others to copy it, it is
    /// only counted.
    pub(crate) fn append(
        &mut self,
        batch: BatchFacts,
        leader_epoch: i32,
        serial: u64,
        bytes: Option<Bytes>,
        producers_max: usize,
    ) -> i64 {
        self.producers
            .remember(&batch, self.log.next(), producers_max);
        match bytes {
            Some(bytes) => self.log.append(batch, leader_epoch, serial, bytes),
            None => self.log.count(batch.records),
        }
    }

    /// Takes a batch over from the leader's log.
    fn take(&mut self, batch: &Stored, producers_max: usize) {
        self.log.copy(batch);
        self.producers
            .remember(&batch.facts, batch.base_offset, producers_max);
    }

    /// Cuts the log at `offset`, and rebuilds from what is left what is known of producers.
    fn truncate(&mut self, offset: i64, producers_max: usize) -> u64 {
        let cut = self.log.truncate(offset);
        self.producers = self.before.clone();
        for batch in self.log.batches() {
            self.producers
                .remember(&batch.facts, batch.base_offset, producers_max);
        }
        u64::try_from(cut).unwrap_or(0)
    }

    fn restart(&mut self, offset: i64) {
        self.log.restart(offset);
        self.producers = Producers::default();
        self.before = Producers::default();
    }

    /// Lets the oldest batch go; what it said of its producer stays known.
    fn drop_oldest(&mut self, producers_max: usize) {
        if let Some(gone) = self.log.drop_oldest() {
            self.before
                .remember(&gone.facts, gone.base_offset, producers_max);
        }
    }

    /// DeleteRecords: producers stay known (KIP-360).
    pub(crate) fn delete_before(&mut self, offset: i64, producers_max: usize) {
        for gone in self.log.delete_before(offset) {
            self.before
                .remember(&gone.facts, gone.base_offset, producers_max);
        }
    }

    pub(crate) fn expire(&mut self, now_ms: i64, expiry_ms: i64) {
        self.producers.expire(now_ms, expiry_ms);
        self.before.expire(now_ms, expiry_ms);
    }
}

/// A copy on a node that does not lead.
#[derive(Debug, Default)]
pub(crate) struct Following {
    pub(crate) replica: Replica,
    /// When it last had all that the leader had.
    caught_up_ms: i64,
    /// The reign it last fetched in: before that its log's end says nothing.
    reign: u64,
    fetch_pending: bool,
    lag_pending: bool,
}

/// What a partition with several copies has besides its leader's.
#[derive(Debug)]
pub(crate) struct Replicas {
    /// The preferred leader first.
    pub(crate) assigned: Vec<i32>,
    pub(crate) isr: Vec<i32>,
    pub(crate) min_insync: i32,
    pub(crate) unclean: bool,
    pub(crate) high_watermark: i64,
    /// Whose copy [`Partition::own`] is: the leader's or, while nobody leads, the last leader's.
    pub(crate) home: i32,
    /// Counts leaders, also when the same node comes again.
    pub(crate) reign: u64,
    pub(crate) followers: BTreeMap<i32, Following>,
    /// Numbers of records are counted up to here.
    tallied: i64,
    /// Batches that had been committed and were lost all the same, if everything is kept.
    pub(crate) lost: Vec<Stored>,
}

impl Replicas {
    pub(crate) fn new(assigned: Vec<i32>, min_insync: i32, unclean: bool) -> Self {
        let home = assigned.first().copied().unwrap_or(-1);
        let followers = assigned.iter().filter(|n| **n != home);
        Self {
            followers: followers.map(|n| (*n, Following::default())).collect(),
            isr: assigned.clone(),
            assigned,
            min_insync,
            unclean,
            high_watermark: 0,
            home,
            reign: 0,
            tallied: 0,
            lost: Vec::new(),
        }
    }

    /// Whether as many as `min.insync.replicas` asks for are in sync.
    pub(crate) fn enough(&self, isr: usize) -> bool {
        let wanted = usize::try_from(self.min_insync).unwrap_or(0);
        isr >= wanted.min(self.assigned.len())
    }

    /// What was committed is lost from `offset` on.
    fn lose(&mut self, log: &Log, offset: i64, around: &mut Around<'_>) {
        let committed = self.high_watermark;
        let count = u64::try_from(committed - offset).unwrap_or(0);
        if count == 0 {
            return;
        }
        around.tallies.truncated_committed += count;
        if around.config.keep == Keep::Everything {
            let lost = log.from(offset);
            let lost = lost.take_while(|batch| batch.last_offset() < committed);
            self.lost.extend(lost.cloned());
        }
        self.high_watermark = offset;
        self.tallied = self.tallied.min(offset);
    }

    fn set_isr(&mut self, isr: impl Fn(i32) -> bool) {
        self.isr = self.assigned.iter().copied().filter(|n| isr(*n)).collect();
    }
}

/// What the records' own numbers showed, over all partitions, and what was cut off logs.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    numbering: Numbering,
    pub(crate) numbers: Tally,
    /// Records that a leader had and its successor had not.
    pub(crate) truncated: u64,
    /// Those of them that had been committed: lost by an unclean election, or with the last copy in
    /// sync.
    pub(crate) truncated_committed: u64,
    /// Another node's log has become a partition's own: what is kept has to be counted anew.
    pub(crate) other_logs: bool,
}

impl Tallies {
    pub(crate) fn take(&mut self, high: &mut PartitionHigh, numbers: &[(u64, u64)]) {
        let tally = self.numbering.take(high, numbers);
        self.numbers.duplicated += tally.duplicated;
        self.numbers.reordered += tally.reordered;
        self.numbers.corrupt += tally.corrupt;
    }

    pub(crate) fn lost(&self) -> u64 {
        self.numbering.lost()
    }
}

/// Where a partition is.
pub(crate) type Place = (TopicId, usize);

/// What a partition has to know of what is around it.
pub(crate) struct Around<'a> {
    pub(crate) config: &'a BrokerConfig,
    pub(crate) nodes: &'a Nodes,
    pub(crate) agenda: &'a mut Agenda,
    pub(crate) tallies: &'a mut Tallies,
    pub(crate) changes: &'a mut u64,
    pub(crate) now_ms: i64,
}

impl Partition {
    /// Up to where records are committed.
    pub(crate) fn high_watermark(&self) -> i64 {
        match &self.replicas {
            Some(replicas) => replicas.high_watermark,
            None => self.own.log.next(),
        }
    }

    /// A new partition on nodes some of which may be down.
    pub(crate) fn settle_in(&mut self, nodes: &Nodes) {
        let Some(replicas) = &mut self.replicas else {
            return;
        };
        if replicas.assigned.iter().any(|n| nodes.eligible(*n)) {
            replicas.set_isr(|n| nodes.eligible(n));
        }
        let first = replicas.isr.first().copied().unwrap_or(-1);
        if first != replicas.home {
            replicas
                .followers
                .insert(replicas.home, Following::default());
            replicas.followers.remove(&first);
            replicas.home = first;
        }
        self.leader = if nodes.eligible(first) { first } else { -1 };
    }

    /// Lets the oldest batch go, wherever it is.
    pub(crate) fn drop_oldest(&mut self, producers_max: usize) {
        let Some(replicas) = &mut self.replicas else {
            // Nothing is ever rebuilt from a log that has no other.
            self.own.log.drop_oldest();
            return;
        };
        self.own.drop_oldest(producers_max);
        let start = self.own.log.start();
        for follower in replicas.followers.values_mut() {
            follower.replica.delete_before(start, producers_max);
        }
    }

    /// The leader is about to append: followers that have everything have it as of now.
    pub(crate) fn note_caught_up(&mut self, around: &Around<'_>) {
        let Some(replicas) = &mut self.replicas else {
            return;
        };
        for (node, follower) in &mut replicas.followers {
            let all = follower.reign == replicas.reign
                && follower.replica.log.next() == self.own.log.next();
            if all && around.nodes.can_fetch(self.leader, *node) {
                follower.caught_up_ms = around.now_ms;
            }
        }
    }

    /// There is something to fetch, or someone may fetch again: followers are on their way.
    pub(crate) fn arm(&mut self, place: Place, around: &mut Around<'_>) {
        let Some(replicas) = &mut self.replicas else {
            return;
        };
        if self.leader < 0 {
            return;
        }
        let mut now = Vec::new();
        for (&node, follower) in &mut replicas.followers {
            let entry = Follower {
                topic: place.0,
                index: place.1,
                node,
            };
            let usual = around.config.replication.fetch_delay_ms;
            let delay = around.nodes.fetch_delay_ms(node, usual);
            let fetches = around.nodes.can_fetch(self.leader, node);
            if fetches && delay == 0 {
                now.push(node);
                continue;
            }
            if fetches && !follower.fetch_pending {
                follower.fetch_pending = true;
                around
                    .agenda
                    .add(around.now_ms.saturating_add(delay), Due::Fetch(entry));
            }
            if !follower.lag_pending && replicas.isr.contains(&node) {
                follower.lag_pending = true;
                let at = follower.caught_up_ms + around.config.replication.lag_ms_max;
                around.agenda.add(at.max(around.now_ms), Due::Lag(entry));
            }
        }
        for node in now {
            self.fetch(node, around);
        }
        self.advance(around);
    }

    /// A follower's fetch comes through, if it still can.
    pub(crate) fn fetch(&mut self, node: i32, around: &mut Around<'_>) {
        let Some(replicas) = &mut self.replicas else {
            return;
        };
        let Some(follower) = replicas.followers.get_mut(&node) else {
            return;
        };
        follower.fetch_pending = false;
        if self.leader < 0 || !around.nodes.can_fetch(self.leader, node) {
            return;
        }
        let most = around.config.producers_max;
        let copy = &mut follower.replica;
        let alike = copy.log.alike_until(&self.own.log);
        if copy.log.next() > alike {
            around.tallies.truncated += copy.truncate(alike, most);
        }
        if copy.log.next() < self.own.log.start() {
            copy.restart(self.own.log.start());
        }
        copy.delete_before(self.own.log.start(), most);
        for batch in self.own.log.from(copy.log.next()) {
            copy.take(batch, most);
        }
        follower.caught_up_ms = around.now_ms;
        follower.reign = replicas.reign;
        let returns = !replicas.isr.contains(&node);
        if returns && around.nodes.eligible(node) && around.nodes.heard(self.leader) {
            let isr = replicas.isr.clone();
            replicas.set_isr(|n| n == node || isr.contains(&n));
            *around.changes += 1;
        }
        self.advance(around);
    }

    /// The leader looks at one follower's lag.
    pub(crate) fn look_at_lag(&mut self, place: Place, node: i32, around: &mut Around<'_>) {
        let Some(replicas) = &mut self.replicas else {
            return;
        };
        let Some(follower) = replicas.followers.get_mut(&node) else {
            return;
        };
        follower.lag_pending = false;
        let behind =
            follower.reign != replicas.reign || follower.replica.log.next() != self.own.log.next();
        // A leader that is not well looks again when it is: see `arm`.
        let able = self.leader >= 0
            && around.nodes.heard(self.leader)
            && around.nodes.eligible(self.leader);
        if !behind || !able || !replicas.isr.contains(&node) {
            return;
        }
        let until = follower.caught_up_ms + around.config.replication.lag_ms_max;
        if until > around.now_ms {
            follower.lag_pending = true;
            let entry = Follower {
                topic: place.0,
                index: place.1,
                node,
            };
            around.agenda.add(until, Due::Lag(entry));
            return;
        }
        self.put_out(node, around);
    }

    /// Takes a node out of the in-sync set, if it is not the last one in it.
    pub(crate) fn put_out(&mut self, node: i32, around: &mut Around<'_>) {
        let Some(replicas) = &mut self.replicas else {
            return;
        };
        if replicas.isr.len() > 1 && replicas.isr.contains(&node) {
            let isr = replicas.isr.clone();
            replicas.set_isr(|n| n != node && isr.contains(&n));
            *around.changes += 1;
            self.advance(around);
        }
    }

    /// Raises the high watermark to what all in the in-sync set have.
    fn advance(&mut self, around: &mut Around<'_>) {
        let Some(replicas) = &mut self.replicas else {
            return;
        };
        let config = &around.config.replication;
        let enough = config.commits_below_min_insync || replicas.enough(replicas.isr.len());
        if self.leader < 0 || !enough {
            return;
        }
        let mut committed = self.own.log.next();
        for node in replicas.isr.iter().filter(|n| **n != self.leader) {
            committed = match replicas.followers.get(node) {
                Some(f) if f.reign == replicas.reign => committed.min(f.replica.log.next()),
                _ => return,
            };
        }
        if committed <= replicas.high_watermark {
            return;
        }
        replicas.high_watermark = committed;
        *around.changes += 1;
        for batch in self.own.log.from(replicas.tallied) {
            if batch.last_offset() >= committed {
                break;
            }
            if !batch.facts.numbers.is_empty() {
                around.tallies.take(&mut self.numbers, &batch.facts.numbers);
            }
        }
        replicas.tallied = replicas.tallied.max(committed);
        if around.config.keep == Keep::Nothing {
            self.let_go_of_committed(around.config.producers_max);
        }
    }

    /// Drops what every copy has and nobody wants to read.
    fn let_go_of_committed(&mut self, producers_max: usize) {
        let Some(replicas) = &mut self.replicas else {
            return;
        };
        let ends = replicas.followers.values().map(|f| f.replica.log.next());
        let until = ends.fold(replicas.high_watermark, i64::min);
        self.own.delete_before(until, producers_max);
        for follower in replicas.followers.values_mut() {
            follower.replica.delete_before(until, producers_max);
        }
    }

    /// Makes a node that has a copy the leader, in a new epoch.
    pub(crate) fn lead(&mut self, place: Place, node: i32, around: &mut Around<'_>) {
        let Some(replicas) = &mut self.replicas else {
            return;
        };
        if node != replicas.home {
            let Some(mut successor) = replicas.followers.remove(&node) else {
                return;
            };
            if !replicas.isr.contains(&node) {
                let alike = successor.replica.log.alike_until(&self.own.log);
                replicas.lose(&self.own.log, alike, around);
            }
            std::mem::swap(&mut self.own, &mut successor.replica);
            let former = Following {
                replica: successor.replica,
                ..Following::default()
            };
            replicas.followers.insert(replicas.home, former);
            replicas.home = node;
            around.tallies.other_logs = true;
        }
        self.leader = node;
        self.leader_epoch += 1;
        replicas.reign += 1;
        if !replicas.isr.contains(&node) {
            // Unclean: what this node has is the truth from now on.
            replicas.isr = vec![node];
        }
        for follower in replicas.followers.values_mut() {
            follower.caught_up_ms = around.now_ms;
        }
        *around.changes += 1;
        self.arm(place, around);
    }

    /// Nobody leads.
    fn lead_by_none(&mut self, around: &mut Around<'_>) {
        if self.leader >= 0 {
            self.leader = -1;
            self.leader_epoch += 1;
            if let Some(replicas) = &mut self.replicas {
                replicas.reign += 1;
            }
            *around.changes += 1;
        }
    }

    /// The controller looks whether the partition has a leader that can lead, and finds one.
    pub(crate) fn elect(&mut self, place: Place, around: &mut Around<'_>) {
        let Some(replicas) = &self.replicas else {
            return;
        };
        if self.leader >= 0 && around.nodes.eligible(self.leader) {
            return;
        }
        let able = |n: &&i32| around.nodes.eligible(**n);
        let in_sync = |n: &&i32| replicas.isr.contains(n);
        let clean = replicas.assigned.iter().filter(in_sync).find(able);
        let any = replicas.assigned.iter().find(able);
        match clean.or(any.filter(|_| replicas.unclean)).copied() {
            Some(node) => {
                // Who led and cannot is not in sync with the one that can.
                let isr = replicas.isr.clone();
                let eligible = |n| around.nodes.eligible(n);
                if let Some(replicas) = &mut self.replicas {
                    replicas.set_isr(|n| isr.contains(&n) && eligible(n));
                }
                self.lead(place, node, around);
            }
            None => self.lead_by_none(around),
        }
    }

    /// The machine of the last node in sync lost what it had not written to disk: its last batches,
    /// though they are committed. Nobody else has them for certain, so they are lost.
    pub(crate) fn lose_unwritten(&mut self, node: i32, batches: usize, around: &mut Around<'_>) {
        let most = around.config.producers_max;
        let Some(replicas) = &mut self.replicas else {
            return;
        };
        if replicas.isr != [node] || replicas.home != node {
            return;
        }
        let last = batches.checked_sub(1);
        let Some(first) = last.and_then(|last| self.own.log.batches().rev().nth(last)) else {
            return;
        };
        let offset = first.base_offset;
        replicas.lose(&self.own.log, offset, around);
        around.tallies.truncated += self.own.truncate(offset, most);
    }

    /// A node's machine lost what it had not written to disk: nothing that is committed.
    pub(crate) fn lose_uncommitted(&mut self, node: i32, around: &mut Around<'_>) {
        let most = around.config.producers_max;
        let Some(replicas) = &mut self.replicas else {
            return;
        };
        let committed = replicas.high_watermark;
        let replica = if node == replicas.home {
            &mut self.own
        } else if let Some(follower) = replicas.followers.get_mut(&node) {
            follower.reign = 0;
            &mut follower.replica
        } else {
            return;
        };
        if replica.log.next() > committed {
            around.tallies.truncated += replica.truncate(committed, most);
        }
    }
}
