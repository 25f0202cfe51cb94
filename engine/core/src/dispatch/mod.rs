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
//! through [`Supply`]. Files: [`lane`](self) order and sequences of a lane; `connect` a connection's
//! states; `send` putting requests together; `answer` reading responses.

mod answer;
mod connect;
mod lane;
mod send;

use alloc::collections::VecDeque;
use alloc::collections::binary_heap::BinaryHeap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::mem;
use core::net::SocketAddr;

use ringpost_codec::kafka::ErrorCode;

use crate::batch::{CutBatch, Part};
use crate::batch_in_flight::{Batch, Moments};
use crate::buffer::{Buffer, Memory};
use crate::connection::{ConnId, Connection, Entry, State};
use crate::id::{BrokerId, LaneId, PartitionId, ProducerIdentity, TopicId};
use crate::limits;
use crate::metadata::{Cluster, is_news};
use crate::outcome::{Cause, Failure, Verdict, Why};
use crate::random::Random;
use crate::seal::{SealedBatch, Squeeze};
use crate::settings::Settings;
use crate::time::Time;
use crate::timer::{ConnectionTimer, Timer, TimerTable};

use answer::Row;
use lane::Lane;

/// Where the dispatcher draws from: the lanes' batches, memory for request heads, compressors.
pub trait Supply {
    /// The memory bodies and slabs are made of.
    type Memory: Memory;
    /// What comes with a batch and goes back with its verdict.
    type Ticket;

    /// What a lane holds. Never waits for the lane's lock.
    fn backlog(&mut self, lane: LaneId) -> Backlog;
    /// Takes the lane's oldest batch, cutting the open one if it is that. Never waits for the
    /// lane's lock.
    fn take(&mut self, lane: LaneId) -> Take<BufferOf<Self>, Self::Ticket>;
    /// A buffer for the head of a request, beside the memory for records, so that full memory can
    /// always be sent. `None`: try again when a frame was released.
    fn slab(&mut self, at_least: usize) -> Option<BufferOf<Self>>;
    /// Takes back an emptied vector for a next batch.
    fn recycle(&mut self, parts: Vec<Part<BufferOf<Self>>>);
    /// The compressor for bodies.
    fn squeeze(&mut self) -> &mut impl Squeeze;
}

type BufferOf<S> = <<S as Supply>::Memory as Memory>::Buffer;

/// What a lane holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// Its lock is taken; ask again soon.
    Busy,
    /// Nothing.
    Empty,
    /// Records.
    Waiting {
        /// Their bytes on the wire.
        bytes: usize,
        /// A batch is cut, or somebody waits for the lane to be empty: do not linger.
        now: bool,
        /// When the oldest was appended.
        oldest: Time,
    },
}

impl Backlog {
    /// How many bytes it is known to be.
    fn bytes(self) -> usize {
        match self {
            Self::Waiting { bytes, .. } => bytes,
            Self::Busy | Self::Empty => 0,
        }
    }
}

/// A batch from a lane.
#[derive(Debug)]
pub enum Take<B: Buffer, T> {
    /// Its lock is taken; ask again soon.
    Busy,
    /// There is none.
    Empty,
    /// A batch.
    Batch {
        /// The records.
        cut: CutBatch<B>,
        /// Goes back with the verdict.
        ticket: T,
        /// When its first record was appended.
        opened: Time,
        /// What the lane holds behind it.
        more: Backlog,
    },
}

/// What the dispatcher wants done.
#[derive(Debug)]
pub enum Action<P> {
    /// Open a connection.
    Connect {
        /// Its name from now on.
        conn: ConnId,
        /// Where to.
        address: SocketAddr,
    },
    /// Send a frame.
    Send {
        /// On this connection.
        conn: ConnId,
        /// The frame, piece by piece.
        frame: Vec<P>,
    },
    /// Send a small message of the negotiation, as a whole frame.
    SendBytes {
        /// On this connection.
        conn: ConnId,
        /// The frame.
        frame: Vec<u8>,
    },
    /// End a connection.
    Close {
        /// This one.
        conn: ConnId,
    },
    /// Ask for metadata: what is known proved wrong, or a broker cannot be reached.
    Refresh,
    /// Ask for a producer id. Answer with [`Dispatcher::identity`].
    Identify,
}

/// A batch that has its verdict.
#[derive(Debug)]
pub struct Settled<P, T> {
    /// Its lane.
    pub lane: LaneId,
    /// As it came with the batch.
    pub ticket: T,
    /// What became of it.
    pub verdict: Verdict,
    /// Records in it.
    pub records: u32,
    /// Bytes of the records, uncompressed.
    pub record_bytes: usize,
    /// Of its first record; records that were given no own time have this or a little later.
    pub base_timestamp_ms: i64,
    /// When what happened to it.
    pub moments: Moments,
    /// The batch itself, when it was not stored for certain.
    pub undelivered: Option<SealedBatch<P>>,
}

/// A topic as the lanes of a shard know it.
#[derive(Debug)]
pub(crate) struct TopicEntry {
    name: Arc<str>,
    id: TopicId,
}

/// A broker as a shard knows it.
#[derive(Debug)]
struct BrokerEntry {
    id: BrokerId,
    addresses: Vec<SocketAddr>,
}

/// The decisions of one shard.
#[derive(Debug)]
pub struct Dispatcher<M: Memory, T> {
    settings: Settings,
    identity: Option<ProducerIdentity>,
    identity_asked: bool,
    topics: Vec<TopicEntry>,
    lanes: Vec<Option<Lane<M::Piece, T>>>,
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
    /// Lanes whose lock was taken when we wanted it, each once: they are asked again.
    busy: Vec<LaneId>,
    /// There was no slab for a request.
    short_of_slabs: bool,
    /// Metadata is to be asked for.
    refresh: bool,
    counters: Counters,
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
}

impl<M: Memory, T> Dispatcher<M, T> {
    /// What always holds between two calls, looked at by tests after each.
    ///
    /// - A lane that may send is on its connection's list, exactly once, or its lock was taken.
    /// - What a lane counts as in flight is in its connection's flights, and not more than it may.
    /// - Waiting batches are in order, and the connection's count of what is ready is right.
    /// - Whatever waits has a timer that ends the wait.
    ///
    /// # Panics
    /// When something does not hold: a bug of the dispatcher.
    pub fn invariants(&self, now: Time) {
        for (index, lane) in self.lanes.iter().enumerate() {
            let Some(lane) = lane else { continue };
            let is_it = |other: &&LaneId| other.index() == index;
            for (number, connection) in self.connections.iter().enumerate() {
                let listed = connection.ready.iter().filter(is_it).count();
                let expected = usize::from(lane.listed == Some(number));
                assert_eq!(listed, expected, "lane {index} on the list of {number}");
                let flying = connection.flights.iter().flat_map(|f| &f.entries);
                let flying = flying.filter(|e| e.lane.index() == index && e.batch.is_some());
                let expected = match lane.connection {
                    Some(own) if own == number => lane.in_flight,
                    _ => 0,
                };
                assert_eq!(
                    flying.count(),
                    expected,
                    "lane {index} in flight at {number}"
                );
            }
            if lane.listed.is_some() {
                assert!(lane.listed == lane.connection && lane.has_work());
            }
            assert!(lane.in_flight <= limits::LANE_WINDOW);
            let busy = self.busy.iter().filter(is_it).count();
            assert!(busy <= 1, "lane {index} is asked again {busy} times");
            // A rest that just ended is seen by the next step.
            let rested = self.timers.get(Timer::Resting) > now;
            if rested && lane.eligible(now, &self.settings) {
                assert!(
                    lane.listed.is_some() || busy == 1,
                    "lane {index} is forgotten: {:?}, {} queued, {} in flight",
                    lane.source,
                    lane.queue.len(),
                    lane.in_flight
                );
            }
            assert!(
                !lane.muted || lane.in_flight > 0,
                "lane {index} is muted for ever"
            );
            if lane.has_work() && lane.resting_until > now {
                let at = self.timers.get(Timer::Resting);
                assert!(at <= lane.resting_until, "lane {index} rests for ever");
            }
            assert!(lane.queue.iter().is_sorted_by_key(|batch| batch.ordinal));
            let oldest = lane.queue.front().map_or(Time::NEVER, |b| b.deadline);
            let waiting = match lane.source {
                Backlog::Waiting { oldest, .. } => oldest + self.settings.delivery_timeout,
                Backlog::Busy | Backlog::Empty => Time::NEVER,
            };
            assert!(
                self.timers.get(Timer::Expiry) <= oldest.min(waiting),
                "lane {index} never expires"
            );
        }
        for (number, connection) in self.connections.iter().enumerate() {
            let bytes = connection.ready.iter().map(|lane| {
                let lane = self.lanes[lane.index()].as_ref();
                lane.map_or(0, |lane| lane.source.bytes())
            });
            assert_eq!(connection.gathered.bytes, bytes.sum::<usize>());
            let timer = |timer| self.timers.get(Timer::Connection(number, timer));
            match connection.state {
                State::Idle => assert!(
                    connection.ready.is_empty(),
                    "lanes wait for connection {number}, which nobody makes"
                ),
                State::Resting => assert_ne!(timer(ConnectionTimer::Reconnect), Time::NEVER),
                State::Connecting { .. } | State::Negotiating { .. } => {
                    assert_ne!(timer(ConnectionTimer::Setup), Time::NEVER);
                }
                State::Ready { .. } => {}
            }
            let ready = matches!(connection.state, State::Ready { .. });
            assert!(ready || connection.flights.is_empty());
            assert!(connection.flights.len() <= self.settings.in_flight_max);
            assert!(timer(ConnectionTimer::Request) <= connection.answer_due());
        }
    }

    /// A dispatcher that knows nothing yet. `seed` feeds the jitter of its waits.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            identity: None,
            identity_asked: false,
            topics: Vec::new(),
            lanes: Vec::new(),
            brokers: Vec::new(),
            connections: Vec::new(),
            timers: TimerTable::default(),
            resting: BinaryHeap::new(),
            actions: VecDeque::new(),
            settled: VecDeque::new(),
            random: Random::new(seed),
            identity_refused: None,
            routes_changed: false,
            busy: Vec::new(),
            short_of_slabs: false,
            refresh: false,
            counters: Counters::default(),
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

    /// Makes a lane known. Its leader comes with the next [`Dispatcher::metadata`]. Its appenders may
    /// have been faster, and [`Dispatcher::lane_ready`] come when the lane was not known yet: so the
    /// next step looks at what it holds.
    pub fn add_lane(&mut self, id: LaneId, topic: &Arc<str>, partition: PartitionId) {
        let topic = self.topic_index(topic);
        if self.lanes.len() <= id.index() {
            self.lanes.resize_with(id.index() + 1, || None);
        }
        self.lanes[id.index()] = Some(Lane::new(topic, partition));
        self.note_source(id, Backlog::Busy);
    }

    fn topic_index(&mut self, name: &Arc<str>) -> usize {
        self.topics
            .iter()
            .position(|topic| topic.name == *name)
            .unwrap_or_else(|| {
                self.topics.push(TopicEntry {
                    name: Arc::clone(name),
                    id: TopicId::default(),
                });
                self.topics.len() - 1
            })
    }

    /// Takes in a new snapshot of the cluster.
    pub fn metadata(&mut self, now: Time, cluster: &Cluster) {
        for (id, broker) in &cluster.brokers {
            self.update_broker(now, *id, &broker.addresses);
        }
        for (index, topic) in self.topics.iter_mut().enumerate() {
            let Some(known) = cluster.topics.get(&topic.name) else {
                continue;
            };
            let before = mem::replace(&mut topic.id, known.id);
            if before == known.id || !before.is_known() || !known.id.is_known() {
                continue;
            }
            // Made anew: its leader epochs count from the start, and it has nothing of us yet.
            for lane in self.lanes.iter_mut().flatten() {
                if lane.topic == index {
                    lane.leader_epoch = -1;
                    lane.proven = false;
                }
            }
        }
        for index in 0..self.lanes.len() {
            let Some(lane) = &self.lanes[index] else {
                continue;
            };
            let topic = &self.topics[lane.topic];
            let partition = cluster.topics.get(&topic.name).and_then(|topic| {
                topic
                    .partitions
                    .get(usize::try_from(lane.partition.0).ok()?)
            });
            // A topic that is missing for a while keeps its lanes, queues and sequences: a
            // restarting broker may deny what it is about to load.
            let Some(partition) = partition else { continue };
            if !is_news(partition.leader_epoch, lane.leader_epoch) {
                continue;
            }
            let (leader, epoch) = (partition.leader, partition.leader_epoch);
            let id = LaneId(u32::try_from(index).unwrap_or(u32::MAX));
            self.assign(now, id, leader, epoch);
        }
        if self.settings.eager {
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
    }

    fn update_broker(&mut self, now: Time, id: BrokerId, addresses: &[SocketAddr]) {
        let per_broker = self.settings.connections_per_broker;
        let Some(index) = self.brokers.iter().position(|broker| broker.id == id) else {
            if self.connections.len() + per_broker >= limits::CONNECTIONS_MAX {
                // A cluster of that size is a mistake or an attack; what is known stays usable.
                return;
            }
            self.brokers.push(BrokerEntry {
                id,
                addresses: addresses.to_vec(),
            });
            for _ in 0..per_broker {
                self.connections.push(Connection::new(id));
            }
            return;
        };
        if !addresses.is_empty() && self.brokers[index].addresses != addresses {
            let before = mem::replace(&mut self.brokers[index].addresses, addresses.to_vec());
            for connection in index * per_broker..(index + 1) * per_broker {
                if before.is_empty() && matches!(self.connections[connection].state, State::Resting)
                {
                    // It rests for want of an address, and now there is one.
                    let timer = Timer::Connection(connection, ConnectionTimer::Reconnect);
                    self.timers.set(timer, now);
                }
                self.leave_stale_address(now, connection);
            }
        }
    }

    /// Gives the lane a leader, or takes it away. While batches of the lane are in flight it stays
    /// with its connection: a second broker must not see later batches before the first has
    /// answered for the earlier.
    fn assign(&mut self, now: Time, id: LaneId, leader: Option<BrokerId>, epoch: i32) {
        let connection = leader.and_then(|leader| {
            let broker = self.brokers.iter().position(|broker| broker.id == leader)?;
            let per_broker = self.settings.connections_per_broker;
            Some(broker * per_broker + id.index() % per_broker)
        });
        let Some(lane) = self.lanes[id.index()].as_mut() else {
            return;
        };
        lane.leader_epoch = epoch;
        lane.target = connection;
        if lane.in_flight == 0 && lane.connection != connection {
            self.move_lane(id);
        }
        self.list(now, id);
    }

    fn move_lane(&mut self, id: LaneId) {
        let Some(lane) = self.lanes[id.index()].as_mut() else {
            return;
        };
        lane.connection = lane.target;
        self.strike(id);
        self.routes_changed = true;
    }

    /// Which connection a lane's records go to just now.
    #[must_use]
    pub fn connection_of(&self, lane: LaneId) -> Option<usize> {
        self.lanes.get(lane.index())?.as_ref()?.connection
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
            }
        }
        if let Some(code) = self.identity_refused.take() {
            self.refuse_all(now, code, supply);
        }
        for index in 0..self.connections.len() {
            self.refuse_unsupported(now, index, supply);
            self.send_if_due(now, index, supply);
        }
    }

    /// Ends what waits for a producer id that will not come. Later records ask again.
    fn refuse_all<S>(&mut self, now: Time, code: ErrorCode, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        self.identity_asked = false;
        for index in 0..self.lanes.len() {
            let id = LaneId(u32::try_from(index).unwrap_or(u32::MAX));
            let broker = self.lanes[index]
                .as_ref()
                .and_then(|lane| lane.connection)
                .map_or(BrokerId(-1), |connection| {
                    self.connections[connection].broker
                });
            let cause = Cause::Broker {
                broker,
                code,
                message: None,
            };
            while let Some(batch) = self.lanes[index].as_mut().and_then(|l| l.queue.pop_front()) {
                self.fail(id, batch, Why::Rejected, Some(cause.clone()));
            }
            while let Some(batch) = self.draw(now, id, supply) {
                self.fail(id, batch, Why::Rejected, Some(cause.clone()));
            }
            self.drained(now, id);
        }
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

    /// Ends what waited too long without being in flight. What is in flight too long ends with its
    /// connection: see the `Request` timer.
    fn expire<S>(&mut self, now: Time, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        let mut next = Time::NEVER;
        for index in 0..self.lanes.len() {
            let id = LaneId(u32::try_from(index).unwrap_or(u32::MAX));
            let Some(lane) = self.lanes[index].as_mut() else {
                continue;
            };
            if !lane.has_work() {
                continue;
            }
            let cause = lane.connection.map_or(Some(Cause::NoLeader), |connection| {
                self.connections[connection].trouble.clone()
            });
            while let Some(batch) = self.lanes[index].as_mut().and_then(|l| l.pop_expired(now)) {
                self.fail(id, batch, Why::Expired, None);
            }
            loop {
                // What is known of a lane's oldest record can only be too old.
                let lane = self.lanes[index].as_ref().expect("checked above");
                let Backlog::Waiting { oldest, .. } = lane.source else {
                    break;
                };
                let deadline = oldest + self.settings.delivery_timeout;
                if deadline > now {
                    next = next.min(deadline);
                    break;
                }
                let Some(batch) = self.draw(now, id, supply) else {
                    break;
                };
                self.fail(id, batch, Why::Expired, cause.clone());
            }
            if let Some(front) = self.lanes[index]
                .as_ref()
                .and_then(|lane| lane.queue.front())
            {
                next = next.min(front.deadline);
            }
            self.drained(now, id);
        }
        self.timers.set(Timer::Expiry, next);
    }

    /// Settles a batch that was not acknowledged: `NotWritten`, or `Unknown` when an attempt may
    /// have been stored.
    fn fail(&mut self, id: LaneId, mut batch: Batch<M::Piece, T>, why: Why, cause: Option<Cause>) {
        if let Some(cause) = cause {
            batch.note(cause);
        }
        let failure = batch.failure(why);
        self.settle_failed(id, batch, failure);
    }

    fn settle_failed(&mut self, id: LaneId, batch: Batch<M::Piece, T>, failure: Failure) {
        let verdict = if batch.maybe_written || failure.why == Why::SequenceBroken {
            Verdict::Unknown(failure)
        } else {
            Verdict::NotWritten(failure)
        };
        if batch.stamp.is_some()
            && let Some(lane) = self.lanes[id.index()].as_mut()
        {
            // Its numbers are missing now, or may be: what follows needs a sequence of its own.
            lane.broken = true;
        }
        self.settle(id, batch, verdict);
    }

    fn settle(&mut self, lane: LaneId, batch: Batch<M::Piece, T>, verdict: Verdict) {
        let Batch {
            sealed,
            ticket,
            moments,
            ..
        } = batch;
        let (records, record_bytes) = (sealed.records, sealed.record_bytes);
        let base_timestamp_ms = sealed.base_timestamp_ms;
        let undelivered = match verdict {
            Verdict::Acked { .. } | Verdict::Sent => {
                Spare::<M::Piece, T>::keep(&mut self.spare.pieces, sealed.pieces);
                None
            }
            Verdict::NotWritten(_) | Verdict::Unknown(_) => Some(sealed),
        };
        self.settled.push_back(Settled {
            lane,
            ticket,
            verdict,
            records,
            record_bytes,
            base_timestamp_ms,
            moments,
            undelivered,
        });
    }

    /// Settles everything, whatever its state, and ends all connections. For the end of a producer.
    pub fn abandon<S>(&mut self, now: Time, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        for index in 0..self.connections.len() {
            self.drop_connection(now, index);
            while let Some(mut flight) = self.connections[index].flights.pop_front() {
                for mut entry in flight.entries.drain(..) {
                    let Some(mut batch) = entry.batch.take() else {
                        continue;
                    };
                    batch.maybe_written = true;
                    if let Some(lane) = self.lanes[entry.lane.index()].as_mut() {
                        lane.in_flight -= 1;
                    }
                    self.fail(entry.lane, batch, Why::Closed, None);
                }
            }
        }
        for index in 0..self.lanes.len() {
            let id = LaneId(u32::try_from(index).unwrap_or(u32::MAX));
            while let Some(batch) = self.lanes[index].as_mut().and_then(|l| l.queue.pop_front()) {
                self.fail(id, batch, Why::Closed, None);
            }
            while let Some(batch) = self.draw(now, id, supply) {
                self.fail(id, batch, Why::Closed, None);
            }
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
