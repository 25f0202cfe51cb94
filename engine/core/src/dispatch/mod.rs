//! The decisions of one shard: which batch goes to which broker when, and what became of it.
//!
//! The dispatcher owns the state of the shard's lanes and connections and does nothing by itself.
//! Whoever drives it (the engine's loop, the simulator) tells it what happened and what time it is
//! through the `handle`-like calls, lets it decide with [`Dispatcher::step`], and carries out what
//! [`Dispatcher::poll_action`] and [`Dispatcher::poll_settled`] give:
//!
//! ```text
//!   lane_ready, connected, connect_failed, sent,            ┌────────────┐ poll_action ─► Connect,
//!   released, received, closed, metadata, identity ────────►│ Dispatcher │                Send, Close,
//!                                   step(now, supply) ─────►│            │                Refresh, …
//!                                                           └────────────┘ poll_settled ► verdicts
//! ```
//!
//! Order of calls in a turn: events, then `step`, then all actions, then settled batches, then wait
//! until [`Dispatcher::next_deadline`].
//!
//! Records stay with the lanes until a request is put together; the dispatcher then draws batches
//! through [`Supply`]. Files: `supply` and `action` what goes in and out; `routes` which lane goes
//! to which connection; `lane` order and sequences of a lane; `connect` a connection's states; `send`
//! putting requests together; `answer` reading responses; `avoid` acting on brokers'
//! health; `settle` how batches end; `purge` giving up
//! at the application's wish; `split` sending in halves what is too large; `narrow` making no more of those;
//! `invariants` what always holds.

mod action;
mod answer;
mod avoid;
mod connect;
mod invariants;
mod lane;
mod narrow;
mod purge;
mod routes;
mod send;
mod settle;
mod split;
mod supply;

use alloc::collections::VecDeque;
use alloc::collections::binary_heap::BinaryHeap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::mem;
use core::net::SocketAddr;

use ringpost_codec::kafka::ErrorCode;

use crate::buffer::Memory;
use crate::connection::{Connection, Entry, State};
use crate::health::Table;
use crate::id::{BrokerId, LaneId, ProducerIdentity, TopicId};
use crate::random::Random;
use crate::retry::Tokens;
use crate::settings::Settings;
use crate::time::Time;
use crate::timer::{ConnectionTimer, Timer, TimerTable};

pub use action::{Action, Settled};
pub use purge::Purge;
pub use supply::{Backlog, Supply, Take};

use answer::Row;
use lane::Lane;

/// A topic as the lanes of a shard know it.
#[derive(Debug)]
pub(crate) struct TopicEntry {
    name: Arc<str>,
    id: TopicId,
    /// It refused batches as too large.
    narrow: Option<narrow::Narrow>,
}

/// A broker as a shard knows it.
#[derive(Debug)]
struct BrokerEntry {
    /// `None`: it left the cluster, and its place is free.
    id: Option<BrokerId>,
    addresses: Vec<SocketAddr>,
    /// What retries may still take of its time.
    tokens: Tokens,
    /// It leads a lane; as of the last look.
    hosts: bool,
    /// Its lanes have something; as of the last look.
    wanted: bool,
    /// The lane that looks good so that something comes to probe it with.
    invites: Option<LaneId>,
}

/// The decisions of one shard.
#[derive(Debug)]
pub struct Dispatcher<M: Memory, T> {
    settings: Settings,
    identity: Option<ProducerIdentity>,
    identity_asked: bool,
    topics: Vec<TopicEntry>,
    lanes: Vec<Option<Lane<M::Piece, T>>>,
    /// The id of the cluster that all this is of.
    cluster_id: Option<Arc<str>>,
    brokers: Vec<BrokerEntry>,
    /// `connections_per_broker` for each broker, in the brokers' order.
    connections: Vec<Connection<M::Piece, T>>,
    timers: TimerTable,
    resting: BinaryHeap<Reverse<(Time, LaneId)>>,
    actions: VecDeque<Action<M::Piece>>,
    settled: VecDeque<Settled<M::Piece, T>>,
    random: Random,
    /// The cluster refused us a producer id.
    identity_refused: Option<ErrorCode>,
    routes_changed: bool,
    views_changed: bool,
    /// Lanes whose lock was taken when we wanted it, each once: they are asked again.
    busy: Vec<LaneId>,
    /// There was no slab for a request.
    short_of_slabs: bool,
    /// Metadata is to be asked for.
    refresh: bool,
    counters: Counters,
    /// Bytes of slabs that hold the bodies of divided batches.
    split_bytes: usize,
    health: Table,
    /// A lane looks good for the sake of a probe.
    inviting: bool,
    /// Something may have to leave its lane.
    rescue: bool,
    /// To choose among, when something leaves its lane.
    spare_lanes: Vec<LaneId>,
    spare: Spare<M::Piece, T>,
}

/// Emptied vectors to be used again, so that the steady state takes nothing from the heap.
#[derive(Debug)]
struct Spare<P, T> {
    frames: Vec<Vec<P>>,
    pieces: Vec<Vec<P>>,
    entries: Vec<Vec<Entry<P, T>>>,
    rows: Vec<Row>,
    head: Vec<u8>,
    cuts: Vec<send::Cut>,
}

impl<P, T> Spare<P, T> {
    /// Enough for every batch in flight on a few busy connections; more are simply dropped.
    const KEPT: usize = 256;

    fn keep<X>(kept: &mut Vec<Vec<X>>, mut vec: Vec<X>) {
        vec.clear();
        if kept.len() < Self::KEPT && vec.capacity() > 0 {
            kept.push(vec);
        }
    }
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Produce requests handed to the driver.
    pub requests: u64,
    /// Batches in them.
    pub batches: u64,
    /// Batches that were sent again.
    pub retries: u64,
    /// Bytes of the requests.
    pub request_bytes: u64,
    /// Connections that became ready.
    pub connections: u64,
    /// Connections that failed or were lost with requests in flight.
    pub connection_failures: u64,
    /// Epochs started anew after a broken sequence.
    pub epoch_bumps: u64,
    /// Times a lane's retry waited for the retry budget.
    pub budget_waits: u64,
    /// Batches that were divided because a broker found them too large.
    pub splits: u64,
    /// Batches that were moved to another partition before they were ever sent.
    pub moved: u64,
}

impl<M: Memory, T> Dispatcher<M, T> {
    /// A dispatcher that knows nothing yet. `seed` feeds the jitter of its waits.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            health: Table::new(settings.health.clone(), settings.request_timeout),
            inviting: false,
            rescue: false,
            spare_lanes: Vec::new(),
            settings,
            identity: None,
            identity_asked: false,
            topics: Vec::new(),
            lanes: Vec::new(),
            cluster_id: None,
            brokers: Vec::new(),
            connections: Vec::new(),
            timers: TimerTable::default(),
            resting: BinaryHeap::new(),
            actions: VecDeque::new(),
            settled: VecDeque::new(),
            random: Random::new(seed),
            identity_refused: None,
            routes_changed: false,
            views_changed: false,
            busy: Vec::new(),
            short_of_slabs: false,
            refresh: false,
            counters: Counters::default(),
            split_bytes: 0,
            spare: Spare {
                frames: Vec::new(),
                pieces: Vec::new(),
                entries: Vec::new(),
                rows: Vec::new(),
                head: Vec::new(),
                cuts: Vec::new(),
            },
        }
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Until when a connection gathers: a record appended earlier need not wake the shard.
    #[must_use]
    pub fn gathers_until(&self, connection: usize) -> Time {
        let Some(connection) = self.connections.get(connection) else {
            return Time(0);
        };
        match self.settings.linger {
            crate::settings::Linger::Auto { gap } => connection.gathers_until(gap),
            crate::settings::Linger::Fixed(_) => Time(0),
        }
    }

    /// How many connections there are (used or not).
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Whether every partition that has a leader reaches it through a ready connection.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        let identified = !self.settings.idempotent || self.identity.is_some();
        identified
            && self.lanes.iter().flatten().all(|lane| {
                lane.connection.is_none_or(|connection| {
                    matches!(self.connections[connection].state, State::Ready { .. })
                })
            })
    }

    /// Connects to every broker that leads a lane, without waiting for a record.
    pub fn warm_up(&mut self, now: Time) {
        if self.settings.idempotent && self.identity.is_none() {
            self.ask_identity();
        }
        for index in 0..self.connections.len() {
            if self
                .lanes
                .iter()
                .flatten()
                .any(|lane| lane.connection == Some(index))
            {
                self.want_connection(now, index);
            }
        }
    }

    /// The producer id of this shard.
    pub fn identity(&mut self, identity: ProducerIdentity) {
        self.identity = Some(identity);
        self.identity_asked = false;
    }

    /// The cluster gives no producer id, for good: everything that waits for one ends.
    pub fn identity_refused(&mut self, code: ErrorCode) {
        self.identity_refused = Some(code);
    }

    /// Whether lanes go to other connections than when this was last asked.
    pub fn routes_changed(&mut self) -> bool {
        mem::take(&mut self.routes_changed)
    }

    fn ask_identity(&mut self) {
        if !self.identity_asked {
            self.identity_asked = true;
            self.actions.push_back(Action::Identify);
        }
    }

    /// A lane's appenders have something. Spurious calls do no harm.
    pub fn lane_ready<S>(&mut self, now: Time, id: LaneId, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        if self.lanes.get(id.index()).is_some_and(Option::is_some) {
            let backlog = supply.backlog(id);
            self.note_source(id, backlog);
            self.list(now, id);
            if self.health.has_half_open() {
                self.divert(now, id, supply);
            }
            self.rescue |= self.is_stranded(now, id);
        }
    }

    /// Remembers what a lane's appenders hold, as it was last seen. What the lane's connection counts
    /// as ready follows, and so does the time when the oldest expires.
    fn note_source(&mut self, id: LaneId, backlog: Backlog) {
        let Some(lane) = self.lanes[id.index()].as_mut() else {
            return;
        };
        let before = mem::replace(&mut lane.source, backlog);
        let listed = lane.listed;
        match backlog {
            Backlog::Busy if !self.busy.contains(&id) => self.busy.push(id),
            Backlog::Waiting { oldest, .. } => {
                let deadline = oldest + self.settings.delivery_timeout;
                self.timers.set_no_later(Timer::Expiry, deadline);
            }
            Backlog::Busy | Backlog::Empty => {}
        }
        if let Some(listed) = listed {
            self.connections[listed].gathered.take_off(before);
            self.connections[listed].gathered.add(backlog);
        }
    }

    /// Asks the lanes again whose locks were taken.
    fn ask_busy<S>(&mut self, now: Time, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        let mut asked = mem::take(&mut self.busy);
        asked.retain(|id| {
            let backlog = supply.backlog(*id);
            if backlog != Backlog::Busy {
                self.note_source(*id, backlog);
                self.list(now, *id);
                self.rescue |= self.is_stranded(now, *id);
            }
            backlog == Backlog::Busy
        });
        self.busy = asked;
    }

    /// Puts a lane on its connection's list, if it has something to send and may. What the appenders
    /// of a lane hold is only known once its lock was free; until then it is on the list of those
    /// that are asked again.
    fn list(&mut self, now: Time, id: LaneId) {
        let Some(lane) = self.lanes[id.index()].as_mut() else {
            return;
        };
        if lane.listed.is_some() {
            if !lane.has_work() {
                // What it had is given up: nobody has to connect for its sake.
                self.strike(id);
            } else if let Some(listed) = lane.listed
                && !lane.queue.is_empty()
                && lane.eligible(now, &self.settings)
            {
                // What came back does not wait for more records, as what is new may.
                self.connections[listed].gathered.now = true;
            }
            return;
        }
        if !lane.eligible(now, &self.settings) {
            return;
        }
        if lane.queue.is_empty() && lane.source == Backlog::Busy {
            return;
        }
        let Some(connection) = lane.connection else {
            return;
        };
        lane.listed = Some(connection);
        let (again, source) = (!lane.queue.is_empty(), lane.source);
        let listing = &mut self.connections[connection];
        listing.ready.push_back(id);
        listing.gathered.add(source);
        listing.gathered.now |= again;
        if self.settings.idempotent && self.identity.is_none() {
            self.ask_identity();
        }
        self.want_connection(now, connection);
    }

    /// Takes a lane off the list it is on, if any.
    fn strike(&mut self, id: LaneId) {
        if let Some(listed) = self.unlist(id) {
            self.connections[listed].ready.retain(|other| *other != id);
        }
    }

    /// Takes a lane off the list it is on, if any, but for the entry in `ready`.
    fn unlist(&mut self, id: LaneId) -> Option<usize> {
        let lane = self.lanes[id.index()].as_mut()?;
        let listed = lane.listed.take()?;
        self.connections[listed].gathered.take_off(lane.source);
        Some(listed)
    }

    /// Decides. Call it once per turn, after the events.
    pub fn step<S>(&mut self, now: Time, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        self.short_of_slabs = false;
        self.ask_busy(now, supply);
        while let Some(timer) = self.timers.due(now) {
            match timer {
                Timer::Health => self.look_at_brokers(now),
                Timer::Expiry => self.expire(now, supply),
                Timer::Resting => self.wake_resting(now),
                Timer::Connection(index, ConnectionTimer::Gather) => {
                    // Sending below; nothing to do but be awake.
                    let _ = index;
                }
                Timer::Connection(index, ConnectionTimer::Setup) => {
                    self.setup_timed_out(now, index)
                }
                Timer::Connection(index, ConnectionTimer::Reconnect) => self.rested(now, index),
                Timer::Connection(index, ConnectionTimer::Request) => {
                    self.request_timed_out(now, index);
                }
                Timer::Connection(index, ConnectionTimer::Idle) => self.idled(now, index),
            }
        }
        self.turn_breakers(now);
        self.rescue(now, supply);
        if let Some(code) = self.identity_refused.take() {
            self.refuse_all(now, code, supply);
        }
        for index in 0..self.connections.len() {
            self.refuse_unsupported(now, index, supply);
            self.send_if_due(now, index, supply);
        }
        self.invite(now);
        self.arm_tick(now);
    }

    fn wake_resting(&mut self, now: Time) {
        while let Some(Reverse((at, id))) = self.resting.peek().copied() {
            if at > now {
                self.timers.set(Timer::Resting, at);
                return;
            }
            self.resting.pop();
            self.list(now, id);
        }
    }

    /// Whether nothing waits and nothing is in flight, as far as the dispatcher knows.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lanes
            .iter()
            .flatten()
            .all(|lane| !lane.has_work() && lane.in_flight == 0)
    }

    /// When [`Dispatcher::step`] must be called again, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        self.timers.next()
    }

    /// Whether the last step wanted a lane's lock that was taken, or a slab that was not there: try
    /// again within 50 µs.
    #[must_use]
    pub fn is_contended(&self) -> bool {
        self.short_of_slabs || !self.busy.is_empty()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action<M::Piece>> {
        self.actions
            .pop_front()
            .or_else(|| mem::take(&mut self.refresh).then_some(Action::Refresh))
    }

    /// The next batch that has its verdict.
    pub fn poll_settled(&mut self) -> Option<Settled<M::Piece, T>> {
        self.settled.pop_front()
    }

    /// Whether batches that have their verdict wait for [`Dispatcher::poll_settled`].
    #[must_use]
    pub fn has_settled(&self) -> bool {
        !self.settled.is_empty()
    }
}
