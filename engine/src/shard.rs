//! The loop of a shard: take commands, take what is ready, decide, do, wait.
//!
//! A shard owns its lanes' batches once they are cut, its connections, its producer id and its
//! driver. The dispatcher of the core decides; the shard carries out. User code never runs here:
//! futures are woken, tags are queued, reports go to the controller.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ringpost_codec::compress::Compression;
use ringpost_codec::kafka::ErrorCode;
use ringpost_core::batch::Part;
use ringpost_core::connection::ConnId;
use ringpost_core::directory::Directory;
use ringpost_core::dispatch::{Action, Backlog, Dispatcher, Settled, Supply, Take};
use ringpost_core::id::{LaneId, PartitionId, ProducerIdentity};
use ringpost_core::limits;
use ringpost_core::outcome::Verdict;
use ringpost_core::seal::Squeeze;
use ringpost_core::settings::Settings;
use ringpost_core::time::Time;
use ringpost_memory::{Piece, Pool, SegmentMut};

use crate::config::WaitPolicy;
use crate::controller::{Inbox, Request};
use crate::driver::{Driver, Events, Frame, SocketOptions, Wait, Waker, clock};
use crate::lane::{Lane, SpareParts, Ticket};
use crate::ready::{LANES_MAX, ReadySet};
use crate::shared::Shared;
use crate::squeeze::Squeezer;
use crate::stats::ShardCounters;
use crate::undelivered::Undelivered;
use crate::wake::{NEVER_NS, SleepGate};
use crate::warm_up::Duty;

/// What everybody may touch of a shard.
#[derive(Debug)]
pub(crate) struct ShardShared {
    pub(crate) index: usize,
    ready: ReadySet,
    gate: SleepGate,
    waker: Waker,
    /// Until when each connection gathers, by its number; further ones have no hint.
    gathers_until: [AtomicU64; GATHER_HINTS],
    commands: Mutex<Commands>,
    commanded: AtomicBool,
    pub(crate) counters: ShardCounters,
    pub(crate) spare_parts: SpareParts,
}

#[derive(Debug, Default)]
struct Commands {
    waiting: Vec<Command>,
    /// Nobody takes any more.
    ended: bool,
}

const GATHER_HINTS: usize = 64;

/// How long the loop may sleep while a lane's lock was taken.
const CONTENDED_SLEEP: Duration = Duration::from_micros(50);

/// What a shard can be told.
#[derive(Debug)]
pub(crate) enum Command {
    /// These lanes are yours, for life.
    Lanes(Vec<Arc<Lane>>),
    /// There is news of the cluster.
    Metadata,
    /// The producer id that was asked for, or why there is none.
    Identity(Result<ProducerIdentity, ErrorCode>),
    /// Connect to all leaders, and say when that is done.
    WarmUp(Duty),
    /// Settle everything at once and end.
    Stop,
}

impl ShardShared {
    pub(crate) fn new(index: usize, waker: Waker) -> Self {
        Self {
            index,
            ready: ReadySet::new(LANES_MAX),
            gate: SleepGate::new(),
            waker,
            gathers_until: [const { AtomicU64::new(0) }; GATHER_HINTS],
            commands: Mutex::default(),
            commanded: AtomicBool::new(false),
            counters: ShardCounters::new(),
            spare_parts: SpareParts::default(),
        }
    }

    /// An appender made a lane ready (`full`: with a whole batch). The shard is woken unless it will
    /// be up in time: a connection that gathers sends nothing before.
    #[inline]
    pub(crate) fn lane_has_news(&self, lane: LaneId, connection: Option<usize>, full: bool) {
        let first = self.ready.mark(lane.0);
        if !first && !full {
            return;
        }
        let required_by = match connection.and_then(|c| self.gathers_until.get(c)) {
            Some(until) if !full => until.load(Ordering::Relaxed),
            _ => 0,
        };
        self.ring(required_by);
    }

    #[inline]
    fn ring(&self, required_by_ns: u64) {
        self.gate.wake_if_later_than(required_by_ns, || {
            self.counters.woken();
            self.waker.wake();
        });
    }

    pub(crate) fn command(&self, command: Command) {
        let mut commands = self.commands();
        if commands.ended {
            // Dropped with the lock open: a warm-up's waker is somebody else's code.
            drop(commands);
            drop(command);
            return;
        }
        commands.waiting.push(command);
        drop(commands);
        self.commanded.store(true, Ordering::Release);
        self.ring(0);
    }

    fn commands(&self) -> MutexGuard<'_, Commands> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard takes no more commands. Those that wait are dropped, and say so to who waits.
    pub(crate) fn end_commands(&self) {
        let mut commands = self.commands();
        commands.ended = true;
        let waiting = mem::take(&mut commands.waiting);
        drop(commands);
        drop(waiting);
    }

    fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.commanded.load(Ordering::Acquire)
    }
}

/// Where the dispatcher draws from.
#[derive(Debug)]
struct LaneSupply {
    lanes: Vec<Option<Arc<Lane>>>,
    slabs: Pool,
    squeezer: Squeezer,
    shared: Arc<ShardShared>,
    /// Wait for a lane's lock: for the end, when there is no later turn to try again.
    patient: bool,
}

impl LaneSupply {
    /// Slabs hold the heads of requests: one per connection at the driver, 4 KiB as a rule. The
    /// reservation is address space; memory is touched as it is used.
    const SLAB_POOL_BYTES: usize = 16 << 20;

    fn lane(&self, id: LaneId) -> Option<&Arc<Lane>> {
        self.lanes.get(id.index())?.as_ref()
    }
}

impl Supply for LaneSupply {
    type Memory = Pool;
    type Ticket = Ticket;

    fn backlog(&mut self, lane: LaneId) -> Backlog {
        self.lane(lane)
            .map_or(Backlog::Empty, |lane| lane.backlog())
    }

    fn take(&mut self, lane: LaneId) -> Take<SegmentMut, Ticket> {
        let Some(lane) = self.lanes.get(lane.index()).and_then(Option::as_ref) else {
            return Take::Empty;
        };
        lane.take(self.patient)
    }

    fn slab(&mut self, at_least: usize) -> Option<SegmentMut> {
        self.slabs.try_take(at_least)
    }

    fn recycle(&mut self, parts: Vec<Part<SegmentMut>>) {
        self.shared.spare_parts.keep(parts);
    }

    fn squeeze(&mut self) -> &mut impl Squeeze {
        &mut self.squeezer
    }
}

/// What a shard is made with.
#[derive(Debug)]
pub(crate) struct ShardSettings {
    pub(crate) core: Settings,
    pub(crate) socket: SocketOptions,
    pub(crate) compression: Compression,
    pub(crate) wait: WaitPolicy,
    pub(crate) seed: u64,
}

/// A shard. Lives in its thread, or with the application's.
pub(crate) struct Shard<D: Driver> {
    driver: D,
    dispatcher: Dispatcher<Pool, Ticket>,
    supply: LaneSupply,
    shared: Arc<ShardShared>,
    producer: Arc<Shared>,
    socket: SocketOptions,
    wait: WaitPolicy,
    warm_ups: Vec<Duty>,
    last_busy: Time,
    stopped: bool,
}

/// Whether there will be another turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There will.
    Again,
    /// Everything is settled and closed.
    Ended,
}

impl<D: Driver> Shard<D> {
    pub(crate) fn new(
        driver: D,
        shared: Arc<ShardShared>,
        producer: Arc<Shared>,
        settings: ShardSettings,
    ) -> io::Result<Self> {
        let slab_bytes_max = (limits::SLAB_BYTES_MAX + limits::SLAB_BYTES_PER_PARTITION_MAX)
            + settings.core.client_id.len();
        Ok(Self {
            driver,
            dispatcher: Dispatcher::new(settings.core, settings.seed),
            supply: LaneSupply {
                lanes: Vec::new(),
                slabs: Pool::new(
                    LaneSupply::SLAB_POOL_BYTES,
                    slab_bytes_max.next_power_of_two(),
                )?,
                squeezer: Squeezer::new(settings.compression),
                shared: Arc::clone(&shared),
                patient: false,
            },
            shared,
            producer,
            socket: settings.socket,
            wait: settings.wait,
            warm_ups: Vec::new(),
            last_busy: clock::now(),
            stopped: false,
        })
    }

    /// The loop of a shard that has a thread of its own.
    pub(crate) fn run(mut self) -> io::Result<()> {
        while self.turn(None, Wait::Forever)? == Turn::Again {}
        Ok(())
    }

    /// One turn. With a directory it shares the driver with it (embedded mode). Waits at most as
    /// long as `at_most`.
    pub(crate) fn turn(
        &mut self,
        mut directory: Option<&mut Directory>,
        at_most: Wait,
    ) -> io::Result<Turn> {
        let now = clock::now();
        self.take_commands(now);
        self.take_ready(now);
        self.dispatcher.step(now, &mut self.supply);
        self.act();
        // Before anybody is told of what they count.
        self.shared
            .counters
            .turned(self.dispatcher.counters(), self.driver.counters());
        self.settle(now);
        self.publish(now);
        if self.stopped && !self.dispatcher.has_settled() {
            return Ok(Turn::Ended);
        }

        let wait = self.sleep(now, at_most, directory.as_deref());
        let mut events = ShardEvents {
            dispatcher: &mut self.dispatcher,
            directory: directory.take(),
            now: None,
        };
        let reported = self.driver.turn(wait, &mut events);
        self.shared.gate.end_sleep();
        if reported? > 0 {
            self.last_busy = clock::now();
        }
        Ok(Turn::Again)
    }

    fn take_commands(&mut self, now: Time) {
        if !self.shared.commanded.swap(false, Ordering::AcqRel) {
            return;
        }
        let commands = mem::take(&mut self.shared.commands().waiting);
        for command in commands {
            match command {
                Command::Lanes(lanes) => {
                    for lane in lanes {
                        self.dispatcher
                            .add_lane(lane.id, &lane.topic, PartitionId(lane.partition));
                        let place = lane.id.index();
                        if self.supply.lanes.len() <= place {
                            self.supply.lanes.resize(place + 1, None);
                        }
                        self.supply.lanes[place] = Some(lane);
                    }
                    self.take_metadata(now);
                }
                Command::Metadata => self.take_metadata(now),
                Command::Identity(Ok(identity)) => self.dispatcher.identity(identity),
                Command::Identity(Err(code)) => self.dispatcher.identity_refused(code),
                Command::WarmUp(warm_up) => {
                    self.dispatcher.warm_up(now);
                    self.warm_ups.push(warm_up);
                }
                Command::Stop => {
                    self.supply.patient = true;
                    self.dispatcher.abandon(now, &mut self.supply);
                    self.stopped = true;
                }
            }
        }
    }

    fn take_metadata(&mut self, now: Time) {
        let cluster = self.producer.cluster.load();
        self.dispatcher.metadata(now, &cluster);
        self.publish_routes();
    }

    /// Tells the lanes where their records go.
    fn publish_routes(&self) {
        for lane in self.supply.lanes.iter().flatten() {
            lane.set_connection(self.dispatcher.connection_of(lane.id));
        }
    }

    fn take_ready(&mut self, now: Time) {
        let Self {
            dispatcher,
            supply,
            shared,
            ..
        } = self;
        shared.ready.drain(LANES_MAX as usize, |lane| {
            dispatcher.lane_ready(now, LaneId(lane), supply);
        });
    }

    fn act(&mut self) {
        while let Some(action) = self.dispatcher.poll_action() {
            match action {
                Action::Connect { conn, address } => {
                    self.driver.connect(conn, address, &self.socket);
                }
                Action::Send { conn, frame } => self.driver.send(conn, frame),
                Action::SendBytes { conn, frame } => {
                    self.driver
                        .send(conn, vec![Piece::uncharged(Bytes::from(frame))]);
                }
                Action::Close { conn } => self.driver.close(conn),
                Action::Refresh => self.ask(Request::Refresh),
                Action::Identify => self.ask(Request::Identify(self.shared.index)),
            }
        }
    }

    fn ask(&self, request: Request) {
        self.inbox().put(request);
    }

    fn inbox(&self) -> &Inbox {
        &self.producer.inbox
    }

    /// Gives verdicts to those who wait, at most so many batches a turn.
    fn settle(&mut self, now: Time) {
        let mut any = false;
        for _ in 0..limits::SETTLED_PER_TURN {
            let Some(settled) = self.dispatcher.poll_settled() else {
                break;
            };
            any = true;
            self.settle_one(now, settled);
        }
        if any {
            self.producer.flushes.notify();
        }
    }

    fn settle_one(&mut self, now: Time, settled: Settled<Piece, Ticket>) {
        let Settled {
            ticket,
            verdict,
            records,
            moments,
            record_bytes,
            ..
        } = settled;
        self.shared
            .counters
            .settled(&verdict, records, record_bytes, moments, now);
        let Some(lane) = self.supply.lane(settled.lane) else {
            return;
        };
        let failed = matches!(verdict, Verdict::NotWritten(_) | Verdict::Unknown(_));
        if failed
            && self.producer.reports_undelivered
            && ticket.is_unwatched()
            && let Some(batch) = settled.undelivered
        {
            self.ask(Request::Undelivered(Undelivered {
                topic: Arc::clone(&lane.topic),
                partition: lane.partition,
                verdict: verdict.clone(),
                batch,
            }));
        }
        ticket.settle(verdict);
        lane.count_settled();
    }

    /// Publishes what appenders look at.
    fn publish(&mut self, now: Time) {
        for connection in 0..self.dispatcher.connection_count().min(GATHER_HINTS) {
            let until = self.dispatcher.gathers_until(connection);
            self.shared.gathers_until[connection].store(until.0, Ordering::Relaxed);
        }
        if self.dispatcher.routes_changed() {
            self.publish_routes();
        }
        if !self.warm_ups.is_empty() {
            let warm = self.dispatcher.is_warm();
            self.warm_ups.retain(|warm_up| !warm_up.step(warm, now));
        }
    }

    /// How long to wait: until the next deadline, unless there is work; and the gate is told.
    fn sleep(&mut self, now: Time, at_most: Wait, directory: Option<&Directory>) -> Wait {
        let mut until = self.dispatcher.next_deadline();
        if self.dispatcher.is_contended() {
            until = until.min(now + CONTENDED_SLEEP);
        }
        if let Some(directory) = directory {
            until = until.min(directory.next_deadline());
        }
        for warm_up in &self.warm_ups {
            until = until.min(warm_up.deadline());
        }
        let spinning = match self.wait {
            WaitPolicy::Park => false,
            WaitPolicy::SpinThenPark(budget) => now < self.last_busy + budget,
            WaitPolicy::Spin => true,
        };
        let wait = shorter(at_most, now, until);
        if spinning || self.dispatcher.has_settled() || wait == Wait::No {
            return Wait::No;
        }
        let until_ns = match wait {
            Wait::For(duration) => (now + duration).0,
            _ => NEVER_NS,
        };
        self.shared.gate.begin_sleep(until_ns);
        if self.shared.has_work() {
            Wait::No
        } else {
            wait
        }
    }
}

fn shorter(at_most: Wait, now: Time, until: Time) -> Wait {
    let own = match until {
        Time::NEVER => Wait::Forever,
        until if until <= now => Wait::No,
        until => Wait::For(until.since(now)),
    };
    match (at_most, own) {
        (Wait::No, _) | (_, Wait::No) => Wait::No,
        (Wait::Forever, other) | (other, Wait::Forever) => other,
        (Wait::For(a), Wait::For(b)) => Wait::For(a.min(b)),
    }
}

/// Passes the driver's reports on to those who decide.
struct ShardEvents<'a> {
    dispatcher: &'a mut Dispatcher<Pool, Ticket>,
    directory: Option<&'a mut Directory>,
    /// Read at the first report of a turn.
    now: Option<Time>,
}

impl ShardEvents<'_> {
    fn now(&mut self) -> Time {
        *self.now.get_or_insert_with(clock::now)
    }

    fn directory(&mut self, conn: ConnId) -> Option<&mut Directory> {
        if conn.slot == Directory::SLOT {
            self.directory.as_deref_mut()
        } else {
            None
        }
    }
}

impl Events for ShardEvents<'_> {
    fn connected(&mut self, conn: ConnId) {
        let now = self.now();
        match self.directory(conn) {
            Some(directory) => directory.connected(conn),
            None => self.dispatcher.connected(now, conn),
        }
    }

    fn connect_failed(&mut self, conn: ConnId, error: io::Error) {
        let (now, reason) = (self.now(), error.to_string());
        match self.directory(conn) {
            Some(directory) => directory.connect_failed(now, conn, &reason),
            None => self.dispatcher.connect_failed(now, conn, &reason),
        }
    }

    fn sent(&mut self, conn: ConnId, bytes: usize) {
        let now = self.now();
        if self.directory(conn).is_none() {
            self.dispatcher.sent(now, conn, bytes);
        }
    }

    fn released(&mut self, conn: ConnId, frame: Frame) {
        if self.directory(conn).is_none() {
            self.dispatcher.released(conn, frame);
        }
    }

    fn received(&mut self, conn: ConnId, bytes: &[u8]) {
        let now = self.now();
        match self.directory(conn) {
            Some(directory) => directory.received(now, conn, bytes),
            None => self.dispatcher.received(now, conn, bytes),
        }
    }

    fn closed(&mut self, conn: ConnId, error: Option<io::Error>) {
        let (now, reason) = (self.now(), error.map(|error| error.to_string()));
        match self.directory(conn) {
            Some(directory) => directory.closed(now, conn, reason.as_deref()),
            None => self.dispatcher.closed(now, conn, reason.as_deref()),
        }
    }
}

/// What embedded mode needs beside [`Shard::turn`].
impl<D: Driver> Shard<D> {
    pub(crate) fn driver_and_socket(&mut self) -> (&mut D, &SocketOptions) {
        (&mut self.driver, &self.socket)
    }
}
