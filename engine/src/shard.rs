//! The loop of a shard: take commands, take what is ready, decide, do, wait.
//!
//! A shard owns its lanes' batches once they are cut, its connections, its producer id and its
//! driver. The dispatcher of the core decides; the shard carries out. No user code runs here but
//! wakers and the destructors of shared values, and their panics are caught: futures are woken, tags are
//! queued, reports go to the hook's thread.

use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ringpost_codec::compress::Compression;
use ringpost_codec::kafka::ErrorCode;
use ringpost_core::batch::Part;
use ringpost_core::connection::ConnId;
use ringpost_core::directory::Directory;
use ringpost_core::dispatch::{Action, Backlog, Dispatcher, Settled, Supply, Take};
use ringpost_core::id::{BrokerId, LaneId, PartitionId, ProducerIdentity};
use ringpost_core::limits;
use ringpost_core::outcome::Why;
use ringpost_core::seal::Squeeze;
use ringpost_core::settings::Settings;
use ringpost_core::time::Time;
use ringpost_memory::{Piece, Pool, SegmentMut};

use crate::avoidance::is_troubled;
use crate::config::WaitPolicy;
use crate::controller::{Inbox, Request};
use crate::driver::{Driver, Events, Frame, SocketOptions, Wait, Waker, clock};
use crate::lane::{Lane, SpareParts, Ticket};
use crate::purge::{Purge, PurgeDuty};
use crate::ready::{LANES_MAX, ReadySet};
use crate::shared::Shared;
use crate::squeeze::Squeezer;
use crate::stats::ShardCounters;
use crate::sync::{AtomicBool, Mutex, MutexGuard};
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
    /// Give up what your lanes have, or those of one topic.
    Purge {
        which: Purge,
        topic: Option<Arc<str>>,
        duty: PurgeDuty,
    },
    /// Another shard keeps away from this broker.
    Hint(BrokerId),
    /// Settle everything at once and end.
    Stop,
    /// Fail, as by a bug.
    #[cfg(test)]
    Panic,
}

impl ShardShared {
    pub(crate) fn new(index: usize, waker: Waker) -> Self {
        Self::for_lanes(index, waker, LANES_MAX)
    }

    fn for_lanes(index: usize, waker: Waker, lanes_max: u32) -> Self {
        Self {
            index,
            ready: ReadySet::new(lanes_max),
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

    /// Tells the shard. One that has ended is told nothing; a command that somebody waits for says
    /// so when it is dropped.
    pub(crate) fn command(&self, command: Command) {
        // Dropped with the lock open: a warm-up's waker is somebody else's code.
        drop(self.try_command(command));
    }

    /// Tells the shard, or gives the command back when it has ended.
    pub(crate) fn try_command(&self, command: Command) -> Result<(), Command> {
        let mut commands = self.commands();
        if commands.ended {
            return Err(command);
        }
        commands.waiting.push(command);
        drop(commands);
        self.commanded.store(true, Ordering::Release);
        self.ring(0);
        Ok(())
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
    /// Wait for a lane's lock: for a purge and for the end, when there is no later turn to try again.
    patient: bool,
    /// Batches begun after the one with this number stay with their lane.
    upto: u64,
    /// Records drawn so far.
    drawn: u64,
}

impl LaneSupply {
    /// Slabs hold the heads of requests: one per connection at the driver, 4 KiB as a rule. The
    /// reservation is address space; memory is touched as it is used.
    const SLAB_POOL_BYTES: usize = 16 << 20;

    fn lane(&self, id: LaneId) -> Option<&Arc<Lane>> {
        self.lanes.get(id.index())?.as_ref()
    }

    /// What is drawn from now on is given up: lanes are waited for, and nothing is compressed.
    fn begin_giving_up(&mut self) {
        self.patient = true;
        self.squeezer.rest(true);
    }

    fn end_giving_up(&mut self) {
        self.patient = false;
        self.squeezer.rest(false);
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
        let taken = lane.take(self.patient, self.upto);
        if let Take::Batch { cut, .. } = &taken {
            self.drawn += u64::from(cut.records);
        }
        taken
    }

    fn take_free(&mut self, lane: LaneId) -> Take<SegmentMut, Ticket> {
        let taken = self.lane(lane).map_or(Take::Empty, |lane| lane.take_free());
        if let Take::Batch { cut, .. } = &taken {
            self.drawn += u64::from(cut.records);
        }
        taken
    }

    fn slab(&mut self, at_least: usize) -> Option<SegmentMut> {
        self.slabs.try_take(at_least)
    }

    fn recycle(&mut self, parts: Vec<Part<SegmentMut>>) {
        self.shared.spare_parts.keep(parts);
    }

    fn divide(&mut self, ticket: &mut Ticket, at: u32) -> Ticket {
        ticket.divide(at)
    }

    fn narrow(&mut self, lane: LaneId, bytes: Option<usize>) {
        if let Some(lane) = self.lane(lane) {
            lane.narrow(bytes);
        }
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
    /// Memory for the heads of its requests. Taken before the shard begins: when there is none, the
    /// producer is not built.
    pub(crate) slabs: Pool,
}

impl ShardSettings {
    /// Memory for the heads of a shard's requests, of a client with an id of so many bytes.
    pub(crate) fn slabs(client_id_len: usize) -> io::Result<Pool> {
        let slab_bytes_max =
            limits::SLAB_BYTES_MAX + limits::SLAB_BYTES_PER_PARTITION_MAX + client_id_len;
        Pool::new(
            LaneSupply::SLAB_POOL_BYTES,
            slab_bytes_max.next_power_of_two(),
        )
    }
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
    /// Purges whose verdicts are not all out.
    purges: Vec<PurgeDuty>,
    last_busy: Time,
    /// Records that have their verdict.
    settled: u64,
    stopped: bool,
    /// Lanes that were not in full health when that was last published.
    troubled: u64,
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
    ) -> Self {
        Self {
            driver,
            dispatcher: Dispatcher::new(settings.core, settings.seed),
            supply: LaneSupply {
                lanes: Vec::new(),
                slabs: settings.slabs,
                squeezer: Squeezer::new(settings.compression),
                shared: Arc::clone(&shared),
                patient: false,
                upto: u64::MAX,
                drawn: 0,
            },
            shared,
            producer,
            socket: settings.socket,
            wait: settings.wait,
            warm_ups: Vec::new(),
            purges: Vec::new(),
            last_busy: clock::now(),
            settled: 0,
            stopped: false,
            troubled: 0,
        }
    }

    /// The loop of a shard that has a thread of its own.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while self.turn(None, Wait::Forever)? == Turn::Again {}
        Ok(())
    }

    /// There will be no more turns, by a bug of ours or because the kernel failed it: what was drawn
    /// ends as lost. What is still with the lanes is ended by who ends those.
    pub(crate) fn lose(&mut self) {
        // What is left may be inconsistent: as far as it goes.
        let settled = catch_unwind(AssertUnwindSafe(|| {
            self.supply.begin_giving_up();
            self.supply.upto = 0;
            let now = clock::now();
            self.dispatcher
                .abandon_because(now, Why::ShardLost, &mut self.supply);
            while self.dispatcher.has_settled() {
                self.settle(now);
            }
        }));
        // Dropped with the shard, which says so to those who wait for them.
        let lost = self.supply.drawn - self.settled;
        if lost > 0 || settled.is_err() {
            self.shared.counters.unknown(lost);
            tracing::error!(
                shard = self.shared.index,
                records = lost,
                "records were lost with their shard and could not be reported"
            );
        }
    }

    /// One turn. With a directory it shares the driver with it (embedded mode); then it waits only
    /// when it has told nobody anything, or who turns would hear of it later. Waits at most as long as
    /// `at_most`.
    pub(crate) fn turn(
        &mut self,
        mut directory: Option<&mut Directory>,
        at_most: Wait,
    ) -> io::Result<Turn> {
        let now = clock::now();
        let mut told = self.take_commands(now);
        self.take_ready(now);
        self.dispatcher.step(now, &mut self.supply);
        self.act();
        // Before anybody is told of what they count.
        self.shared
            .counters
            .turned(self.dispatcher.counters(), self.driver.counters());
        told |= self.settle(now);
        told |= self.publish(now);
        if self.stopped && !self.dispatcher.has_settled() {
            return Ok(Turn::Ended);
        }

        let at_most = match directory {
            Some(_) if told => Wait::No,
            _ => at_most,
        };
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

    /// Whether there were any.
    fn take_commands(&mut self, now: Time) -> bool {
        if !self.shared.commanded.swap(false, Ordering::AcqRel) {
            return false;
        }
        let commands = mem::take(&mut self.shared.commands().waiting);
        for command in commands {
            match command {
                Command::Lanes(lanes) => {
                    for lane in &lanes {
                        self.dispatcher
                            .add_lane(lane.id, &lane.topic, PartitionId(lane.partition));
                        let place = lane.id.index();
                        if self.supply.lanes.len() <= place {
                            self.supply.lanes.resize(place + 1, None);
                        }
                        self.supply.lanes[place] = Some(Arc::clone(lane));
                    }
                    self.take_metadata(now);
                    // Appenders have had them for a while: a mark may have come, and gone, before
                    // the lane was known here.
                    for lane in lanes {
                        self.dispatcher.lane_ready(now, lane.id, &mut self.supply);
                    }
                }
                Command::Metadata => self.take_metadata(now),
                Command::Identity(Ok(identity)) => self.dispatcher.identity(identity),
                Command::Identity(Err(code)) => self.dispatcher.identity_refused(code),
                Command::WarmUp(warm_up) => {
                    self.dispatcher.warm_up(now);
                    self.warm_ups.push(warm_up);
                }
                Command::Purge { which, topic, duty } => {
                    self.purge(now, which, topic.as_deref());
                    self.purges.push(duty);
                }
                #[cfg(test)]
                Command::Panic => panic!("a test asked for it"),
                Command::Hint(broker) => self.dispatcher.hint(now, broker),
                Command::Stop => {
                    self.supply.begin_giving_up();
                    self.dispatcher.abandon(now, &mut self.supply);
                    self.stopped = true;
                }
            }
        }
        true
    }

    /// Gives up what was appended before, in all lanes or those of one topic. What is appended
    /// meanwhile stays.
    fn purge(&mut self, now: Time, which: Purge, topic: Option<&str>) {
        self.supply.begin_giving_up();
        for place in 0..self.supply.lanes.len() {
            let Some(lane) = &self.supply.lanes[place] else {
                continue;
            };
            if topic.is_some_and(|topic| *topic != *lane.topic) {
                continue;
            }
            let id = lane.id;
            self.supply.upto = lane.begun();
            self.dispatcher.purge_lane(now, id, which, &mut self.supply);
            // It may have more than the dispatcher was shown.
            self.supply.upto = u64::MAX;
            self.dispatcher.lane_ready(now, id, &mut self.supply);
        }
        self.supply.end_giving_up();
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

    /// Tells the lanes how they stand, and who asks what is thought of brokers.
    fn publish_views(&mut self, now: Time) {
        let mut troubled = 0;
        for lane in self.supply.lanes.iter().flatten() {
            let view = self.dispatcher.view_of(now, lane.id);
            troubled += u64::from(is_troubled(view));
            lane.set_view(view);
        }
        let before = mem::replace(&mut self.troubled, troubled);
        let avoidance = &self.producer.routing.avoidance;
        avoidance.count_troubled(before, troubled);
        self.shared.counters.looked(self.dispatcher.health(now));
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
                Action::Hint { broker } => self.warn_others(broker),
            }
        }
    }

    /// Tells the other shards of a broker that this one keeps away from.
    fn warn_others(&self, broker: BrokerId) {
        for (index, shard) in self.producer.shards.iter().enumerate() {
            if index != self.shared.index {
                shard.command(Command::Hint(broker));
            }
        }
    }

    fn ask(&self, request: Request) {
        self.inbox().put(request);
    }

    fn inbox(&self) -> &Inbox {
        &self.producer.inbox
    }

    /// Gives verdicts to those who wait, at most so many batches a turn. Whether there were any.
    fn settle(&mut self, now: Time) -> bool {
        let mut any = false;
        for _ in 0..limits::SETTLED_PER_TURN {
            let Some(settled) = self.dispatcher.poll_settled() else {
                break;
            };
            any = true;
            self.settle_one(now, settled);
        }
        if !self.dispatcher.has_settled() {
            // Says so to those who wait for them.
            self.purges.clear();
        }
        if any {
            self.producer.notify_flushes();
        }
        any
    }

    fn settle_one(&mut self, now: Time, settled: Settled<Piece, Ticket>) {
        let Settled {
            mut ticket,
            verdict,
            records,
            moments,
            record_bytes,
            ..
        } = settled;
        self.settled += u64::from(records);
        self.shared
            .counters
            .settled(&verdict, records, record_bytes, moments, now);
        let Some(lane) = self.supply.lane(settled.lane) else {
            return;
        };
        let reports = &self.producer.reports;
        match (settled.undelivered, &ticket.letters) {
            (Some(batch), _) => reports.undelivered(lane, &verdict, &mut ticket, batch),
            (None, Some(letters)) => reports.letters_written(letters),
            (None, None) => {}
        }
        let (ordinal, is_last) = (ticket.ordinal, ticket.is_last_part());
        let memory = ticket.memory;
        let panics = ticket.settle(lane.partition, verdict);
        // A batch that was moved still counts where it was begun.
        if let Some(home) = self.supply.lane(settled.home) {
            home.holds_less(memory);
            if is_last {
                home.count_settled(ordinal);
            }
        }
        self.producer.count_panics(panics);
    }

    /// Publishes what appenders look at. Whether somebody may have waited for it.
    fn publish(&mut self, now: Time) -> bool {
        for connection in 0..self.dispatcher.connection_count().min(GATHER_HINTS) {
            let until = self.dispatcher.gathers_until(connection);
            self.shared.gathers_until[connection].store(until.0, Ordering::Relaxed);
        }
        if self.dispatcher.routes_changed() {
            self.publish_routes();
        }
        let mut told = self.dispatcher.views_changed();
        if told {
            self.publish_views(now);
        }
        if !self.warm_ups.is_empty() {
            let (warm, waiting) = (self.dispatcher.is_warm(), self.warm_ups.len());
            self.warm_ups.retain(|warm_up| !warm_up.step(warm, now));
            told |= self.warm_ups.len() < waiting;
        }
        told
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

/// The shorter wait of one that is bounded and one until a time.
pub(crate) fn shorter(at_most: Wait, now: Time, until: Time) -> Wait {
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

    /// There will be no more turns: settles what it still has, a bounded number of batches at a
    /// time. `false`: that was all.
    pub(crate) fn give_up(&mut self, why: Why) -> bool {
        let now = clock::now();
        if !self.stopped {
            self.supply.begin_giving_up();
            self.dispatcher.abandon_because(now, why, &mut self.supply);
            self.stopped = true;
        }
        self.settle(now);
        self.dispatcher.has_settled()
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use ringpost_core::health::View;

    use super::*;
    use crate::driver::EpollDriver;
    use crate::lane::{Bound, Watch};
    use crate::producer::Producer;
    use crate::record::Record;

    /// A lane is with the appenders before its shard is told of it.
    #[test]
    fn a_record_before_its_lane_is_not_forgotten() {
        let builder = Producer::builder().bootstrap("127.0.0.1:1");
        let driver = EpollDriver::new().expect("epoll");
        let shared = builder
            .shared(Inbox::new(driver.waker()), vec![driver.waker()])
            .expect("memory");
        let own = Arc::clone(&shared.shards[0]);
        let settings = builder.shard_settings(0).expect("memory");
        let mut shard = Shard::new(driver, Arc::clone(&own), Arc::clone(&shared), settings);
        let lane = shared.lane_for_tests();
        lane.append(
            &Record::value(b"v"),
            Bound::Pinned,
            Watch::Nobody,
            &mut None,
        )
        .expect("room");
        // The mark is taken while nobody knows whose it is.
        shard.turn(None, Wait::No).expect("the kernel works");
        assert!(own.ready.is_empty());
        own.command(Command::Lanes(vec![lane]));
        shard.turn(None, Wait::No).expect("the kernel works");
        assert!(!shard.dispatcher.is_idle(), "the record waits for a leader");
        assert_ne!(shard.dispatcher.next_deadline(), Time::NEVER);
    }

    /// Two shards, one of which panics with records in flight and in its lanes: all of them have their one outcome and are counted, those nobody waits for are
    /// reported, and the other shard goes on.
    #[test]
    fn a7_a_shard_that_panics_loses_no_outcome() {
        let mut config = ringpost_broker::ServerConfig::storing();
        config.broker.default_partitions = 8;
        let server = ringpost_broker::Server::start(config).expect("a free port");
        let (report, reported) = std::sync::mpsc::channel();
        let producer = Producer::builder()
            .bootstrap(server.bootstrap())
            .shards(crate::config::Shards::Count(2))
            .pin(crate::config::Pin::Off)
            .driver(crate::driver::DriverChoice::Epoll)
            .linger(Duration::from_secs(50))
            .on_undelivered(move |lost| {
                let told = (lost.partition(), lost.outcome(), lost.len());
                report.send(told).expect("the test waits");
            })
            .build()
            .expect("a producer");
        let topic = producer.topic_blocking("t").expect("it is made");
        producer.warm_up_blocking(&["t"]).expect("in time");
        let shared = producer.shared_for_tests();
        let known = shared.known_topic("t").expect("it is known");
        let lanes = known.lanes.load_full();
        let of_shard = |index| {
            let mut own = lanes.iter().filter(move |lane| lane.shard.index == index);
            move || own.next().expect("a partition of this shard").partition
        };
        let (mut doomed, mut sound) = (of_shard(0), of_shard(1));
        let (flying, waiting, healthy) = (doomed(), doomed(), sound());
        server.with(|broker| {
            let silence = ringpost_broker::RequestFault::Silence;
            let faults = broker.faults();
            faults.next_request(ringpost_broker::ApiKey::Produce, Some(silence));
        });
        let send = |partition, text| {
            let record = Record::value(text).partition(partition);
            topic.try_send(record).expect("room")
        };
        let in_flight = send(flying, b"in flight".as_slice());
        topic
            .post(Record::value(b"posted").partition(flying))
            .expect("room");
        // Together in one batch.
        drop(producer.flush());
        while server.report().records < 2 {
            std::thread::yield_now();
        }
        let in_lane = send(waiting, b"in the lane");
        shared.shards[0].command(Command::Panic);
        let outcome = in_flight.wait();
        assert!(
            matches!(&outcome, crate::Outcome::Unknown(f) if f.why == Why::ShardLost),
            "{outcome:?}"
        );
        assert!(matches!(
            in_lane.wait(),
            crate::Outcome::NotWritten(f) if f.why == Why::ShardLost
        ));
        let (partition, told, records) = reported.recv().expect("reported");
        assert_eq!((partition, records), (flying, 2));
        assert_eq!(told, outcome);
        let goes_on = send(healthy, b"goes on");
        producer
            .flush_blocking(Duration::from_secs(60))
            .expect("nothing waits for the shard that is gone");
        assert!(matches!(goes_on.outcome(), Some(crate::Outcome::Acked(_))));
        assert!(matches!(
            topic.try_send(Record::value(b"late").partition(flying)),
            Err(crate::TrySendError::Closed(_))
        ));
        // Records that may go anywhere go to the shard that is left, and nothing is held back behind the
        // one that is not.
        let is_known = |lane: &&Arc<Lane>| lane.view() == View::NOBODY;
        let lost = lanes.iter().filter(|lane| lane.shard.index == 0).count();
        while lanes.iter().filter(is_known).count() < lost {
            std::thread::yield_now();
        }
        for _ in 0..20 {
            let sent = topic.try_send(Record::value(b"anywhere")).expect("room");
            drop(producer.flush());
            assert!(matches!(sent.wait(), crate::Outcome::Acked(_)));
        }
        assert_eq!(producer.stats().memory_held_back, 0);
        let total = producer.stats().total();
        assert_eq!(
            (
                total.records_acked,
                total.records_not_written,
                total.records_unknown
            ),
            (21, 1, 2)
        );
        producer.close(Duration::from_secs(60));
        assert_eq!(producer.stats().memory_in_use, 0);
    }
}

#[cfg(all(test, shuttle))]
mod interleavings;
#[cfg(all(test, loom))]
mod loom_models;
