//! What happens to nodes, and what the controller makes of it: crashes, pauses, cuts, elections.
//!
//! The controller is not a node here: it always works, and what it decides holds at once. A node
//! that hears of it later ([`crate::Replication::metadata_delay_ms`], [`Broker::hold_metadata`], a
//! pause) goes on by what it knew: it takes batches for partitions it no longer leads, which are cut
//! off its log when it fetches from the new leader.
//!
//! Everything here happens at the time of the last [`Broker::tick`].
//!
//! ```
//! use ringpost_broker::{Broker, BrokerConfig, Node, Replication};
//! let node = |id| Node { id, host: "10.0.0.1".into(), port: 9092 };
//! let mut broker = Broker::new(BrokerConfig {
//!     nodes: vec![node(1), node(2), node(3)],
//!     replication: Replication { factor: 3, min_insync: 2, ..Replication::default() },
//!     ..BrokerConfig::default()
//! });
//! broker.create_topic("orders", 1)?;
//! broker.crash_node(1); // the leader; the controller notices after session_ms
//! broker.tick(8_999);
//! assert_eq!(broker.leader("orders", 0), Some(1));
//! assert_eq!(broker.next_due_ms(), Some(9_000));
//! broker.tick(9_000);
//! let state = broker.partition_state("orders", 0).expect("it was made above");
//! assert_eq!((state.leader, state.leader_epoch, state.isr), (2, 1, vec![2, 3]));
//! # Ok::<(), ringpost_broker::TopicError>(())
//! ```

use std::sync::Arc;

use crate::agenda::Due;
use crate::broker::Broker;
use crate::replicas::{Around, Place};
use crate::topic::Partition;
use crate::view::{Seen, View};

/// Whether a connection's node works on requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// The node is paused: bytes pile up.
    Shut,
    /// The node has ended since the connection was made.
    Gone,
}

impl Broker {
    /// Lets time pass: everything that was due by `now_ms` happens, in order. Sessions do this
    /// themselves before they work on anything; a clock that goes back is ignored.
    pub fn tick(&mut self, now_ms: i64) {
        if !self.clock_started {
            self.clock_started = true;
            let check = self.config.producer_expiry_check_ms.max(1);
            self.agenda.add(now_ms.saturating_add(check), Due::Expiry);
        }
        while let Some((at_ms, due)) = self.agenda.take_due(now_ms) {
            self.now_ms = self.now_ms.max(at_ms);
            match due {
                Due::Fetch(f) => self.at((f.topic, f.index), |p, _, a| p.fetch(f.node, a)),
                Due::Lag(f) => {
                    self.at((f.topic, f.index), |p, place, a| {
                        p.look_at_lag(place, f.node, a)
                    });
                }
                Due::Silence(node) => self.look_at_silence(node),
                Due::View(node) => self.hear(node),
                Due::Expiry => self.expire_producers(),
            }
        }
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// When something happens by itself next: call [`Broker::tick`] then, or advance a session.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<i64> {
        self.agenda.next_ms()
    }

    /// Counts what sessions that hold an answer back may wait for: appends, commits, elections,
    /// nodes that go and come. When it has changed, advance them.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// A node's process ends without a word. Its log stays; its connections are over
    /// ([`crate::Closed::NodeEnded`]). The controller notices after `session_ms`.
    pub fn crash_node(&mut self, node_id: i32) {
        self.end_process(node_id);
        self.fall_silent(node_id);
    }

    /// A node's machine loses power: as [`Broker::crash_node`], and what was not committed is lost
    /// from its log.
    pub fn cut_power(&mut self, node_id: i32) {
        self.end_process(node_id);
        self.each(|partition, _, around| partition.lose_uncommitted(node_id, around));
        self.fall_silent(node_id);
    }

    /// As [`Broker::cut_power`], and where the node is the last one in sync, it loses its last `batches`
    /// though they were committed: nobody had written them to disk. Kafka acknowledges without waiting
    /// for that, and relies on other nodes, of which there were none.
    pub fn cut_power_unwritten(&mut self, node_id: i32, batches: usize) {
        self.end_process(node_id);
        self.each(|partition, _, around| {
            partition.lose_uncommitted(node_id, around);
            partition.lose_unwritten(node_id, batches, around);
        });
        self.fall_silent(node_id);
    }

    /// A node ends in good order (SIGTERM): others lead first.
    pub fn shutdown_node(&mut self, node_id: i32) {
        self.fence(node_id);
        self.end_process(node_id);
    }

    /// Starts a node again. It takes part as soon as the controller has noticed that it was gone.
    pub fn start_node(&mut self, node_id: i32) {
        let condition = self.members.condition(node_id);
        condition.stopped = false;
        condition.paused = false;
        condition.dir_failed = false;
        condition.producer_ids_at_ms = None;
        self.changes += 1;
        if self.members.condition(node_id).fenced {
            self.unfence(node_id);
        }
    }

    /// Starts a node whose process ended; one that runs is left as it is.
    pub(crate) fn restart_ended(&mut self, node_id: i32) {
        if self.members.condition(node_id).stopped {
            self.start_node(node_id);
        }
    }

    /// A node does nothing for a while (SIGSTOP), or goes on (SIGCONT). Its connections stay, and
    /// take in [`crate::BrokerConfig::socket_buffer_bytes`]. The controller notices after
    /// `session_ms`.
    pub fn pause_node(&mut self, node_id: i32, paused: bool) {
        if self.members.condition(node_id).paused == paused {
            return;
        }
        self.note_caught_up();
        self.members.condition(node_id).paused = paused;
        self.changes += 1;
        if paused {
            self.freeze(node_id, None);
            self.fall_silent(node_id);
            return;
        }
        self.hear_later(node_id);
        self.is_heard_again(node_id);
    }

    /// Whether two nodes can talk: followers fetch from leaders, or do not.
    pub fn set_link(&mut self, one: i32, other: i32, works: bool) {
        self.note_caught_up();
        let pair = (one.min(other), one.max(other));
        if works {
            self.members.cuts.remove(&pair);
        } else {
            self.members.cuts.insert(pair);
        }
        self.arm_all();
    }

    /// Whether the controller and a node hear one another. A node that is cut off goes on by what
    /// it knows, shrinks no in-sync set, and is fenced after `session_ms`.
    pub fn set_controller_link(&mut self, node_id: i32, works: bool) {
        if self.members.condition(node_id).cut_off != works {
            return;
        }
        self.members.condition(node_id).cut_off = !works;
        self.changes += 1;
        if works {
            self.hear_later(node_id);
            self.is_heard_again(node_id);
        } else {
            self.freeze(node_id, None);
            self.fall_silent(node_id);
        }
    }

    /// How long a batch takes to this node from the partition's leader; `None` is as configured.
    pub fn set_fetch_delay(&mut self, node_id: i32, delay_ms: Option<i64>) {
        self.note_caught_up();
        self.members.condition(node_id).fetch_delay_ms = delay_ms;
        self.arm_all();
    }

    /// A node's log directory fails (full, or broken): its partitions answer
    /// `KAFKA_STORAGE_ERROR` there until it knows of the leaders elected instead. Whole again, it
    /// has what it had.
    pub fn set_log_dir(&mut self, node_id: i32, works: bool) {
        self.note_caught_up();
        self.spread();
        self.members.condition(node_id).dir_failed = !works;
        self.changes += 1;
        if works {
            self.arm_all();
            self.each(|partition, place, around| partition.elect(place, around));
            return;
        }
        self.each(|partition, place, around| {
            if partition.leader == node_id {
                partition.elect(place, around);
            } else {
                partition.put_out(node_id, around);
            }
        });
    }

    /// For so long a node does not hear of changes: it answers by what it knows now.
    pub fn hold_metadata(&mut self, node_id: i32, for_ms: i64) {
        self.members.condition(node_id);
        self.views.remove(&node_id);
        self.freeze(node_id, Some(self.now_ms.saturating_add(for_ms)));
    }

    /// For so long a node knows of no topics, as one that has just started.
    pub fn forget_metadata(&mut self, node_id: i32, for_ms: i64) {
        self.hold_metadata(node_id, for_ms);
        if let Some(view) = self.views.get_mut(&node_id) {
            view.topics.clear();
            view.names.clear();
        }
    }

    /// Makes another node the leader of a partition, in a new leader epoch. Says whether it was
    /// done: with several copies, the node must have one that is in sync. (With one copy, any node
    /// takes it over.)
    pub fn move_leader(&mut self, topic: &str, partition: i32, node_id: i32) -> bool {
        self.change_leader(topic, partition, node_id, true)
    }

    /// As [`Broker::move_leader`], to a copy that need not be in sync: what it has not got is lost.
    pub fn move_leader_uncleanly(&mut self, topic: &str, partition: i32, node_id: i32) -> bool {
        self.change_leader(topic, partition, node_id, false)
    }

    /// Gives every partition back to the first of its nodes that is in sync and well, as the tool
    /// `kafka-leader-election --election-type preferred`.
    pub fn elect_preferred_leaders(&mut self) {
        self.spread();
        self.each(|partition, place, around| {
            let Some(replicas) = &partition.replicas else {
                return;
            };
            let preferred = replicas.assigned.first().copied();
            let fit = |n: &i32| replicas.isr.contains(n) && around.nodes.eligible(*n);
            if let Some(node) = preferred.filter(fit).filter(|n| *n != partition.leader) {
                partition.lead(place, node, around);
            }
        });
    }

    /// Batches of at most so many bytes are taken, from new connections on.
    pub fn set_message_bytes_max(&mut self, bytes: usize) {
        Arc::make_mut(&mut self.config).message_bytes_max = bytes;
    }

    /// Whether Metadata mentions a node and lets it lead: the controller's verdict, without its
    /// patience. The node's sessions go on: ending them is the caller's.
    pub fn set_node_up(&mut self, node_id: i32, up: bool) {
        if up {
            self.unfence(node_id);
        } else {
            self.fence(node_id);
        }
    }

    /// Ends every fault: nodes run, links work, everyone knows everything, the script is empty.
    pub fn heal(&mut self) {
        self.faults.heal();
        self.members.cuts.clear();
        let ids: Vec<i32> = self.nodes.iter().map(|n| n.id).collect();
        for id in ids {
            self.members.condition(id).fetch_delay_ms = None;
            self.set_controller_link(id, true);
            self.pause_node(id, false);
            self.set_log_dir(id, true);
            let condition = self.members.condition(id);
            condition.silent_since_ms = None;
            if condition.stopped {
                self.start_node(id);
            }
            self.unfence(id);
        }
        self.views.clear();
        self.arm_all();
    }

    /// How a connection's node is.
    pub(crate) fn gate(&self, node_id: i32, life: u64) -> Gate {
        match self.members.conditions.get(&node_id) {
            Some(c) if c.stopped || c.life != life => Gate::Gone,
            Some(c) if c.paused => Gate::Shut,
            _ => Gate::Open,
        }
    }

    fn change_leader(&mut self, topic: &str, partition: i32, node_id: i32, clean: bool) -> bool {
        let Some(place) = self.place(topic, partition) else {
            return false;
        };
        self.spread();
        let mut done = false;
        self.at(place, |partition, place, around| {
            let Some(replicas) = &partition.replicas else {
                partition.leader = node_id;
                partition.leader_epoch += 1;
                done = true;
                return;
            };
            let has_copy = replicas.assigned.contains(&node_id);
            let fit = replicas.isr.contains(&node_id) || !clean;
            done = has_copy && fit && around.nodes.eligible(node_id);
            if done {
                partition.lead(place, node_id, around);
            }
        });
        self.changes += 1;
        done
    }

    fn end_process(&mut self, node_id: i32) {
        self.note_caught_up();
        let condition = self.members.condition(node_id);
        condition.stopped = true;
        condition.life += 1;
        self.views.remove(&node_id);
        self.changes += 1;
    }

    fn fall_silent(&mut self, node_id: i32) {
        let now_ms = self.now_ms;
        let condition = self.members.condition(node_id);
        if condition.silent_since_ms.is_none() {
            condition.silent_since_ms = Some(now_ms);
            let at = now_ms.saturating_add(self.config.replication.session_ms);
            self.agenda.add(at, Due::Silence(node_id));
        }
    }

    fn is_heard_again(&mut self, node_id: i32) {
        let condition = self.members.condition(node_id);
        if !condition.heard() {
            return;
        }
        condition.silent_since_ms = None;
        if condition.fenced {
            self.unfence(node_id);
        }
        self.arm_all();
    }

    fn look_at_silence(&mut self, node_id: i32) {
        let patience = self.config.replication.session_ms;
        let now_ms = self.now_ms;
        let condition = self.members.condition(node_id);
        let Some(since) = condition.silent_since_ms else {
            return;
        };
        let until = since.saturating_add(patience);
        if until > now_ms {
            self.agenda.add(until, Due::Silence(node_id));
            return;
        }
        let back = condition.heard();
        condition.silent_since_ms = None;
        self.fence(node_id);
        if back {
            // It was started again meanwhile: the controller takes it in now.
            self.unfence(node_id);
        }
    }

    fn fence(&mut self, node_id: i32) {
        self.spread();
        self.note_caught_up();
        self.members.condition(node_id).fenced = true;
        self.changes += 1;
        self.each(|partition, place, around| {
            if partition.leader == node_id {
                partition.elect(place, around);
            } else {
                partition.put_out(node_id, around);
            }
        });
    }

    fn unfence(&mut self, node_id: i32) {
        self.spread();
        self.members.condition(node_id).fenced = false;
        self.changes += 1;
        self.each(|partition, place, around| partition.elect(place, around));
        self.arm_all();
    }

    /// A node stops hearing of changes.
    fn freeze(&mut self, node_id: i32, until_ms: Option<i64>) {
        if let Some(view) = self.views.get_mut(&node_id) {
            view.until_ms = until_ms;
        } else {
            let mut view = self.view();
            view.until_ms = until_ms;
            self.views.insert(node_id, view);
        }
        if let Some(at) = until_ms {
            self.agenda.add(at, Due::View(node_id));
        }
    }

    /// A node that did not hear of changes does again, after the usual delay.
    fn hear_later(&mut self, node_id: i32) {
        let at = self.now_ms + self.config.replication.metadata_delay_ms;
        if let Some(view) = self.views.get_mut(&node_id) {
            view.until_ms = Some(at);
            self.agenda.add(at, Due::View(node_id));
        }
        if at <= self.now_ms {
            self.hear(node_id);
        }
    }

    fn hear(&mut self, node_id: i32) {
        let over = |view: &View| view.until_ms.is_some_and(|at| at <= self.now_ms);
        if self.views.get(&node_id).is_some_and(over) {
            self.views.remove(&node_id);
            self.changes += 1;
        }
    }

    /// Something is about to change: nodes that hear of changes late keep what they know.
    pub(crate) fn spread(&mut self) {
        let delay = self.config.replication.metadata_delay_ms;
        if delay <= 0 {
            return;
        }
        let ids: Vec<i32> = self.nodes.iter().map(|n| n.id).collect();
        for id in ids {
            if !self.views.contains_key(&id) {
                self.freeze(id, Some(self.now_ms.saturating_add(delay)));
            }
        }
    }

    /// The topology as it is.
    fn view(&self) -> View {
        let seen = |partitions: &[Partition]| partitions.iter().map(Seen::of).collect();
        let topics = self.topics.iter();
        let up = self.nodes.iter().map(|n| n.id);
        View {
            until_ms: None,
            topics: topics
                .map(|(id, t)| (*id, (t.name.clone(), seen(&t.partitions))))
                .collect(),
            names: self.names.clone(),
            up: up.filter(|n| self.members.is_up(*n)).collect(),
        }
    }

    fn note_caught_up(&mut self) {
        self.each(|partition, _, around| partition.note_caught_up(around));
    }

    fn arm_all(&mut self) {
        self.each(|partition, place, around| partition.arm(place, around));
    }

    fn expire_producers(&mut self) {
        let (now_ms, expiry_ms) = (self.now_ms, self.config.producer_expiry_ms);
        let check = self.config.producer_expiry_check_ms.max(1);
        self.agenda.add(now_ms.saturating_add(check), Due::Expiry);
        for topic in self.topics.values_mut() {
            for partition in &mut topic.partitions {
                partition.own.expire(now_ms, expiry_ms);
                if let Some(replicas) = &mut partition.replicas {
                    for follower in replicas.followers.values_mut() {
                        follower.replica.expire(now_ms, expiry_ms);
                    }
                }
            }
        }
    }

    /// Lets `act` at one partition.
    pub(crate) fn at(
        &mut self,
        place: Place,
        act: impl FnOnce(&mut Partition, Place, &mut Around<'_>),
    ) {
        let topic = self.topics.get_mut(&place.0);
        let Some(partition) = topic.and_then(|t| t.partitions.get_mut(place.1)) else {
            return;
        };
        let mut around = Around {
            config: &self.config,
            nodes: &self.members,
            agenda: &mut self.agenda,
            tallies: &mut self.tallies,
            changes: &mut self.changes,
            now_ms: self.now_ms,
        };
        act(partition, place, &mut around);
    }

    /// Lets `act` at every partition that has several copies.
    fn each(&mut self, mut act: impl FnMut(&mut Partition, Place, &mut Around<'_>)) {
        let mut around = Around {
            config: &self.config,
            nodes: &self.members,
            agenda: &mut self.agenda,
            tallies: &mut self.tallies,
            changes: &mut self.changes,
            now_ms: self.now_ms,
        };
        for (id, topic) in &mut self.topics {
            for (index, partition) in topic.partitions.iter_mut().enumerate() {
                if partition.replicas.is_some() {
                    act(partition, (*id, index), &mut around);
                }
            }
        }
    }
}
