//! One run: the event list, the turn of shards and directory, the two phases.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringpost_broker::Broker;
use ringpost_codec::compress::Compression;
use ringpost_core::connection::ConnId;
use ringpost_core::directory::{Directory, Task};
use ringpost_core::dispatch::{Action, Dispatcher};
use ringpost_core::id::{LaneId, PartitionId, ProducerIdentity};
use ringpost_core::limits;
use ringpost_core::metadata::Cluster;
use ringpost_core::outcome::Verdict;
use ringpost_core::random::Random;
use ringpost_core::settings::Acks;
use ringpost_core::time::Time;
use ringpost_memory::Pool;

use crate::setup::{ms, us};

use super::application::{Flush, Waiting};
use super::faults::Undo;
use super::history::{Counts, Fate, History, LaneHistory, Order};
use super::knobs::{Draw, Kind, Knobs};
use super::socket::{Owner, Socket};
use super::token::{Bank, Ledger, TokenPiece};
use super::told::{cluster, directory, settings};
use super::watch::Watch;
use crate::lanes::{Lanes, Ticket};

/// Where time begins.
const START: Time = Time(1_000_000_000);
/// In this time after healing records are stored again.
const RECOVERY: Duration = ms(40_000);
/// So long a run is looked at when it is at rest.
const REST: Duration = ms(10_000);
/// A connection is asked and answers, and the probe's timers.
const EVENTS_PER_PROBE: u64 = 40;
/// The directory asks and is answered.
const EVENTS_PER_REFRESH: u64 = 100;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Connected(usize),
    Refused(usize),
    /// The kernel takes more of the frame.
    Takes(usize),
    /// The kernel is done with the frame.
    Released(usize),
    /// The next piece reaches the broker.
    Up(usize),
    /// The next piece reaches the core.
    Down(usize),
    /// What was held up may get through.
    Flows(usize),
    /// The core hears that the connection is closed, or reset.
    Ended {
        socket: usize,
        reset: bool,
    },
    /// The broker looks at a connection again.
    Work(usize),
    /// Somebody who was woken looks whether there is memory.
    Serve(u64),
    /// The application sends.
    Burst,
    /// A fault of this kind strikes, and again later.
    Strike(usize),
    /// A fault is over.
    Undo(Undo),
    /// Somebody who stood still goes on.
    Awake,
}

/// One shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) dispatcher: Dispatcher<Bank, Ticket>,
    pub(super) lanes: Lanes<Bank>,
    pub(super) touched: bool,
    /// It does nothing before then.
    pub(super) stalled_until: Time,
}

/// Where a lane of the run is.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaneAt {
    pub(super) shard: usize,
    pub(super) id: LaneId,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Of everything that was done, in order.
    pub hash: u64,
    /// Network events, timers and calls.
    pub events: u64,
    /// How much time passed in it.
    pub time: Duration,
    /// How its records ended.
    pub counts: Counts,
    /// Faults that struck.
    pub strikes: u64,
    /// Batches that went to another lane than they were appended to.
    pub moved: u64,
    /// Acknowledged records that the cluster lost afterwards, as Kafka does.
    pub lost: u64,
    /// Flushes that ended.
    pub flushed: u64,
}

/// A run.
#[derive(Debug)]
pub struct Run {
    pub(super) knobs: Knobs,
    pub(super) now: Time,
    pub(super) broker: Broker,
    pub(super) shards: Vec<Shard>,
    pub(super) directory: Directory,
    pub(super) history: History,
    pub(super) watch: Watch,
    pub(super) records: Ledger,
    pub(super) heads: Ledger,
    pub(super) pool: Pool,
    pub(super) slabs: Pool,
    pub(super) bank: Bank,
    pub(super) sockets: Vec<Socket>,
    pub(super) by_conn: BTreeMap<(Owner, ConnId), usize>,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    counted: u64,
    pub(super) net: Random,
    pub(super) app: Random,
    pub(super) chaos: Random,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) lanes: Vec<LaneAt>,
    pub(super) known: BTreeMap<(usize, i32), u32>,
    pub(super) waiting: BTreeMap<u64, Waiting>,
    pub(super) asked: u64,
    pub(super) rung: Arc<Mutex<Vec<u64>>>,
    /// Lanes get their first sequences.
    pub(super) priming: bool,
    /// So many have.
    pub(super) primed: usize,
    /// When faults began.
    begun: Time,
    /// Flushes that have not ended, oldest first.
    pub(super) flushes: VecDeque<Flush>,
    /// Those that have.
    pub(super) flushed: u64,
    /// No more faults, no more calls.
    pub(super) healed: bool,
    /// The producer takes nothing more.
    pub(super) closing: bool,
    /// The whole process does nothing before then.
    pub(super) stopped_until: Time,
    /// What happened to somebody who stands still, in order.
    missed: Vec<Event>,
    pub(super) closed: bool,
    pub(super) stopped: BTreeSet<i32>,
    /// Nothing gets through to these nodes before then, nor back.
    pub(super) deaf: BTreeMap<i32, Time>,
    pub(super) mute: BTreeMap<i32, Time>,
    pub(super) cut_next: Option<usize>,
    pub(super) flip_next: bool,
    pub(super) flip_answer: bool,
    pub(super) flips: u64,
    /// How far the application's wall clock is off.
    pub(super) wall_ms: i64,
    pub(super) held: BTreeSet<usize>,
    pub(super) changes: u64,
    pub(super) strikes: u64,
    pub(super) hash: u64,
    lost: u64,
    pub(super) happened: u64,
    pub(super) wrong: Option<String>,
    /// What is done is told.
    pub(super) trace: bool,
    pub(super) value: Vec<u8>,
    pub(super) scratch: Vec<u8>,
    pub(super) out: Vec<u8>,
}

macro_rules! tell {
    ($run:expr, $($words:tt)*) => {
        if $run.trace {
            println!("{:>12.6} {}", $run.now.0 as f64 / 1e9, format_args!($($words)*));
        }
    };
}
pub(super) use tell;

impl Run {
    /// Everything ready, nothing done.
    ///
    /// # Panics
    /// When the system has no memory for the pools.
    #[must_use]
    pub fn new(knobs: Knobs, trace: bool) -> Self {
        let seed = knobs.seed;
        let pool = Pool::new(knobs.memory_bytes, 64 << 10).expect("address space");
        let slabs = Pool::new(knobs.slab_bytes, 512 << 10).expect("address space");
        let (records, heads) = (Ledger::default(), Ledger::default());
        let bank = Bank::new(pool.clone(), records.clone());
        let settings = settings(&knobs);
        let compression = Compression::new(knobs.codec, None).expect("every codec is built in");
        let shards = (0..knobs.shards).map(|number| Shard {
            dispatcher: Dispatcher::new(settings.clone(), seed ^ number as u64),
            lanes: {
                let slabs = Bank::new(slabs.clone(), heads.clone());
                let mut lanes = Lanes::new(knobs.batch_bytes, bank.clone(), slabs);
                lanes.squeezer.compression = compression;
                lanes
            },
            touched: true,
            stalled_until: START,
        });
        let mut broker = Broker::new(cluster(&knobs));
        let topics: Vec<Arc<str>> = (0..knobs.topics.len())
            .map(|number| format!("topic-{number}").into())
            .collect();
        for (topic, partitions) in topics.iter().zip(&knobs.topics) {
            broker
                .create_topic(topic, *partitions)
                .expect("a fresh cluster");
        }
        Self {
            now: START,
            shards: shards.collect(),
            directory: Directory::new(directory(&knobs, &settings), seed),
            history: History::new(seed),
            watch: Watch::default(),
            records,
            heads,
            pool,
            slabs,
            bank,
            sockets: Vec::new(),
            by_conn: BTreeMap::new(),
            events: BinaryHeap::new(),
            counted: 0,
            net: Random::new(seed ^ 0x006e_6574),
            app: Random::new(seed ^ 0x0061_7070),
            chaos: Random::new(seed ^ 0x0063_6861_6f73),
            topics,
            lanes: Vec::new(),
            known: BTreeMap::new(),
            waiting: BTreeMap::new(),
            asked: 0,
            rung: Arc::default(),
            priming: knobs.first_sequence > 0,
            primed: 0,
            begun: START,
            flushes: VecDeque::new(),
            flushed: 0,
            healed: false,
            closing: false,
            stopped_until: START,
            missed: Vec::new(),
            closed: false,
            stopped: BTreeSet::new(),
            deaf: BTreeMap::new(),
            mute: BTreeMap::new(),
            cut_next: None,
            flip_next: false,
            flip_answer: false,
            flips: 0,
            wall_ms: 0,
            held: BTreeSet::new(),
            changes: broker.changes(),
            strikes: 0,
            hash: seed,
            lost: 0,
            happened: 0,
            wrong: None,
            trace,
            value: Vec::new(),
            scratch: Vec::new(),
            out: Vec::new(),
            broker,
            knobs,
        }
    }

    /// Both phases.
    ///
    /// # Errors
    /// What did not hold, in words.
    pub fn run(mut self) -> Result<Report, String> {
        for topic in self.topics.clone() {
            self.directory.want(self.now, &topic);
        }
        self.prime()?;
        self.begun = self.now;
        self.schedule(self.now, Event::Burst);
        for number in 0..self.knobs.faults.len() {
            let every = self.knobs.faults[number].1;
            let at = self.now + self.chaos.around(every);
            self.schedule(at, Event::Strike(number));
        }
        let until = self.begun + self.knobs.duration + self.knobs.silence;
        self.run_until(until, |_| false)?;
        if self.knobs.abandon {
            self.wait_to_close()?;
            self.close()?;
        } else {
            self.heal();
            self.converge()?;
        }
        self.compare()?;
        Ok(Report {
            hash: self.hash,
            events: self.happened,
            time: self.now.since(START),
            counts: self.history.counts(),
            strikes: self.strikes,
            moved: self.moved(),
            lost: self.lost,
            flushed: self.flushed,
        })
    }

    // ---- time -------------------------------------------------------------------------------

    pub(super) fn schedule(&mut self, at: Time, event: Event) {
        self.counted += 1;
        self.events.push(Reverse((at, self.counted, event)));
    }

    /// Whether it was `done` before `until`.
    pub(super) fn run_until(
        &mut self,
        until: Time,
        done: impl Fn(&Self) -> bool,
    ) -> Result<bool, String> {
        let mut still = 0;
        loop {
            self.turn();
            if let Some(wrong) = self.wrong.take() {
                return Err(wrong);
            }
            if done(self) {
                return Ok(true);
            }
            let next = self.next();
            if next > until {
                self.now = until;
                return Ok(false);
            }
            still = if next > self.now { 0 } else { still + 1 };
            if still > 20_000 {
                return Err("time stands still: something is done again and again".to_owned());
            }
            self.now = self.now.max(next);
            while let Some(Reverse((at, _, event))) = self.events.peek().copied()
                && at <= self.now
            {
                self.events.pop();
                self.happen(event);
            }
        }
    }

    /// When something happens next.
    fn next(&self) -> Time {
        let mut next = Time::NEVER;
        if let Some(Reverse((at, ..))) = self.events.peek() {
            next = *at;
        }
        if self.stopped_until > self.now {
            return next.min(self.stopped_until);
        }
        next = next.min(self.directory.next_deadline());
        for shard in self.shards.iter().filter(|_| !self.closed) {
            if shard.stalled_until > self.now {
                next = next.min(shard.stalled_until);
                continue;
            }
            next = next.min(shard.dispatcher.next_deadline());
            if shard.dispatcher.is_contended() {
                next = next.min(self.now + us(50));
            }
            if shard.touched || !shard.lanes.ready.is_empty() {
                next = next.min(self.now);
            }
        }
        if let Some(at) = self.pool.next_deadline_ns() {
            next = next.min(Time(at));
        }
        next
    }

    fn happen(&mut self, event: Event) {
        if self.is_silent(event) {
            let ends = self.begun + self.knobs.duration / 2 + self.knobs.silence;
            let at = ends + self.chaos.up_to(ms(500));
            return self.schedule(at, event);
        }
        let until = self.asleep_for(event);
        if until > self.now {
            self.missed.push(event);
            return self.schedule(until, Event::Awake);
        }
        // What flows then counts.
        self.happened += u64::from(!matches!(event, Event::Flows(_) | Event::Awake));
        match event {
            Event::Connected(socket) => self.connected(socket),
            Event::Refused(socket) => self.refused(socket),
            Event::Takes(socket) => self.takes(socket),
            Event::Released(socket) => self.released(socket),
            Event::Up(socket) => self.reaches_broker(socket),
            Event::Down(socket) => self.reaches_core(socket),
            Event::Flows(socket) => self.flows(socket),
            Event::Ended { socket, reset } => self.ended(socket, reset),
            Event::Work(socket) => {
                self.sockets[socket].work_at = Time::NEVER;
                self.work(socket);
            }
            Event::Serve(number) => self.serve(number),
            Event::Burst if !self.healed => self.burst(),
            Event::Strike(number) if !self.healed => self.strike(number),
            Event::Undo(undo) if !self.healed => self.undo(undo),
            Event::Awake => self.awake(),
            Event::Burst | Event::Strike(_) | Event::Undo(_) => {}
        }
    }

    /// In the silence the application does nothing, and nothing goes wrong.
    fn is_silent(&self, event: Event) -> bool {
        let begins = self.begun + self.knobs.duration / 2;
        let silence = begins..begins + self.knobs.silence;
        let waits = matches!(event, Event::Burst | Event::Strike(_));
        waits && !self.healed && !self.closing && silence.contains(&self.now)
    }

    /// Until when whoever it happens to stands still: their kernel takes and keeps what comes meanwhile.
    fn asleep_for(&self, event: Event) -> Time {
        match event {
            Event::Connected(socket)
            | Event::Refused(socket)
            | Event::Takes(socket)
            | Event::Released(socket)
            | Event::Down(socket)
            | Event::Ended { socket, .. } => match self.sockets[socket].owner {
                Owner::Shard(shard) => self.stopped_until.max(self.shards[shard].stalled_until),
                Owner::Directory => self.stopped_until,
            },
            Event::Serve(_) | Event::Burst => self.stopped_until,
            Event::Strike(number) if self.knobs.faults[number].0.is_call() => self.stopped_until,
            _ => self.now,
        }
    }

    /// What was missed happens now, to those who do not stand still any more.
    fn awake(&mut self) {
        for event in std::mem::take(&mut self.missed) {
            self.schedule(self.now, event);
        }
    }

    /// Until when something of the client stands still.
    pub(super) fn asleep_until(&self) -> Time {
        let stalled = self.shards.iter().map(|shard| shard.stalled_until);
        stalled.fold(self.stopped_until, Time::max)
    }

    pub(super) fn mix(&mut self, what: u64) {
        self.hash = (self.hash ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.hash ^= self.hash >> 29;
    }

    pub(super) fn is_wrong(&mut self, what: impl Into<String>) {
        let at = self.now.since(START);
        self.wrong
            .get_or_insert_with(|| format!("{} (at {at:?})", what.into()));
    }

    // ---- the turn of shards and directory ---------------------------------------------------

    fn turn(&mut self) {
        if self.stopped_until > self.now {
            return;
        }
        if self.pool.expire(self.now.0) > 0 {
            self.happened += 1;
        }
        for _ in 0..100 {
            self.serve_waiting();
            let mut acted = false;
            for number in 0..self.shards.len() {
                acted |= self.turn_shard(number);
            }
            self.directory.step(self.now);
            while let Some(task) = self.directory.poll_task() {
                acted = true;
                self.perform(task);
            }
            if !acted {
                self.look();
                return;
            }
        }
        self.is_wrong("shards and directory never stop acting");
    }

    fn turn_shard(&mut self, number: usize) -> bool {
        if self.closed {
            return self.carry_out(number);
        }
        let now = self.now;
        let shard = &mut self.shards[number];
        if shard.stalled_until > now {
            return false;
        }
        let due = shard.dispatcher.next_deadline() <= now;
        let wanted = shard.touched || due || !shard.lanes.ready.is_empty();
        if !wanted && !shard.dispatcher.is_contended() {
            return false;
        }
        self.happened += u64::from(due);
        shard.touched = false;
        for lane in std::mem::take(&mut shard.lanes.ready) {
            shard
                .dispatcher
                .lane_ready(now, LaneId(lane), &mut shard.lanes);
        }
        shard.dispatcher.step(now, &mut shard.lanes);
        shard.dispatcher.invariants(now);
        self.carry_out(number)
    }

    /// Does what a dispatcher wants done, and takes down its verdicts.
    fn carry_out(&mut self, number: usize) -> bool {
        let mut acted = false;
        while let Some(action) = self.shards[number].dispatcher.poll_action() {
            acted = true;
            self.act(number, action);
        }
        while let Some(settled) = self.shards[number].dispatcher.poll_settled() {
            let kind = match &settled.verdict {
                Verdict::Acked { base_offset, .. } => base_offset.unwrap_or(-1).unsigned_abs(),
                Verdict::Sent => 1 << 60,
                Verdict::NotWritten(_) => 2 << 60,
                Verdict::Unknown(_) => 3 << 60,
            };
            let Ticket { lane, first, count } = settled.ticket;
            if count == 0 {
                self.primed += 1;
                continue;
            }
            tell!(
                self,
                "lane {lane}: records {first}..{} are {:?}",
                first + count,
                settled.verdict
            );
            self.mix(u64::from(lane) << 32 ^ first);
            self.mix(kind);
            if count != u64::from(settled.records) {
                self.is_wrong("a batch came back with another number of records");
            }
            let lanes = &self.shards[number].lanes.lanes;
            let (home, end) = (&lanes[settled.home.index()], &lanes[settled.lane.index()]);
            let (home, end) = (home.number, end.number);
            if home != lane {
                self.is_wrong(format!(
                    "a batch of lane {lane} came back as one of lane {home}"
                ));
            }
            if let Err(wrong) = self.history.settled(settled.ticket, end, &settled.verdict) {
                self.is_wrong(wrong);
            }
        }
        acted
    }

    /// What must hold at every step and is not the dispatcher's alone.
    fn look(&mut self) {
        self.look_at_flushes();
        let (in_use, budget) = (self.pool.in_use(), self.pool.budget());
        if in_use > budget {
            self.is_wrong(format!("{in_use} bytes are in use, {budget} are allowed"));
        }
        let live = self.records.live_bytes();
        if self.waiting.is_empty() && in_use != live {
            self.is_wrong(format!(
                "the pool counts {in_use} bytes in use; buffers have {live}"
            ));
        }
        if let Some(fault) = self.records.fault().or_else(|| self.heads.fault()) {
            self.is_wrong(fault);
        }
    }

    fn act(&mut self, shard: usize, action: Action<TokenPiece>) {
        match action {
            Action::Connect { conn, address } => self.connect(Owner::Shard(shard), conn, address),
            Action::Send { conn, frame } if self.priming => self.pretend(shard, conn, frame),
            Action::Send { conn, frame } => self.send_request(shard, conn, frame),
            Action::SendBytes { conn, frame } => self.send(Owner::Shard(shard), conn, frame),
            Action::Close { conn } => self.close_connection(Owner::Shard(shard), conn),
            Action::Refresh => self.directory.refresh(),
            Action::Identify => self.directory.identify(shard),
            Action::Hint { broker } => {
                let now = self.now;
                let others = self.shards.iter_mut().enumerate();
                for (_, other) in others.filter(|(number, _)| *number != shard) {
                    other.dispatcher.hint(now, broker);
                    other.touched = true;
                }
            }
        }
    }

    fn perform(&mut self, task: Task) {
        let owner = Owner::Directory;
        match task {
            Task::Resolve { host, port } => {
                let found = host.parse().map(|ip| vec![SocketAddr::new(ip, port)]);
                let found = found.as_deref().map_err(|_| "no such name");
                self.directory.resolved(self.now, &host, port, found);
            }
            Task::Connect { conn, address } => self.connect(owner, conn, address),
            Task::Send { conn, frame } => self.send(owner, conn, frame),
            Task::Close { conn } => self.close_connection(owner, conn),
            Task::Publish(cluster) if !self.closed => self.publish(&cluster),
            Task::Publish(_) => {}
            Task::Failed { topic, error } => {
                tell!(self, "topic {topic} failed: {error}");
                // The application asks again.
                self.directory.want(self.now, &topic);
            }
            Task::Identity { asker, result } => {
                tell!(self, "shard {asker}: {result:?}");
                let shard = &mut self.shards[asker];
                shard.touched = true;
                match result {
                    // As far as any broker knows, it may have had them all.
                    Ok(identity) => shard.dispatcher.identity(ProducerIdentity {
                        epoch: identity.epoch.max(self.knobs.first_epoch),
                        ..identity
                    }),
                    Err(code) => shard.dispatcher.identity_refused(code),
                }
            }
            Task::ClusterChanged { .. } => self.is_wrong("another cluster was met"),
            Task::HostRefused { .. } => self.is_wrong("a host was refused"),
        }
    }

    fn publish(&mut self, cluster: &Arc<Cluster>) {
        tell!(self, "metadata: {:?}", cluster.topics);
        for (number, name) in self.topics.iter().enumerate() {
            let Some(topic) = cluster.topics.get(name) else {
                continue;
            };
            let count = i32::try_from(topic.partitions.len()).expect("few partitions");
            for partition in 0..count {
                let global = u32::try_from(self.lanes.len()).expect("few lanes");
                if self.known.contains_key(&(number, partition)) {
                    continue;
                }
                self.known.insert((number, partition), global);
                let index = (number + partition.unsigned_abs() as usize) % self.shards.len();
                let shard = &mut self.shards[index];
                let id = shard.lanes.add(global, name, partition);
                shard.dispatcher.add_lane(id, name, PartitionId(partition));
                if self.priming {
                    let records = self.knobs.first_sequence;
                    // Of many lanes in little memory the last begin at 0.
                    let is_primed = shard.lanes.prime(self.now, id, records);
                    self.primed += usize::from(!is_primed);
                }
                self.lanes.push(LaneAt { shard: index, id });
                self.history.lanes.push(LaneHistory {
                    topic: u32::try_from(number).expect("few topics"),
                    partition,
                    fates: Vec::new(),
                    bound: Vec::new(),
                    done: 0,
                });
            }
        }
        for shard in &mut self.shards {
            shard.dispatcher.metadata(self.now, cluster);
            shard.touched = true;
        }
    }

    // ---- the ends ---------------------------------------------------------------------------

    fn heal(&mut self) {
        tell!(self, "everything heals");
        self.healed = true;
        self.wake_up();
        self.deaf.clear();
        self.mute.clear();
        self.stopped.clear();
        self.cut_next = None;
        self.flip_next = false;
        self.flip_answer = false;
        for number in 0..self.sockets.len() {
            // What was held up arrives now, and not whenever it would have.
            self.flows(number);
            let socket = &mut self.sockets[number];
            socket.held_until = self.now;
            socket.cut = None;
            if socket.vanished && !socket.up.is_empty() {
                self.schedule(self.now, Event::Up(number));
            }
        }
        for shard in &mut self.shards {
            shard.lanes.busy = 0;
            shard.lanes.no_slab = 0;
            shard.lanes.flush_all();
        }
        self.wall_ms = 0;
        self.advance_clock();
        self.broker.heal();
        for topic in 0..self.knobs.topics.len() {
            // With a partition for each lane there is.
            let lanes = self.known.keys().filter(|(of, _)| *of == topic).count();
            let lanes = i32::try_from(lanes).expect("few lanes");
            self.create_topic(topic, lanes.max(self.knobs.topics[topic]));
        }
        self.wake_held();
    }

    /// The client goes on.
    fn wake_up(&mut self) {
        self.stopped_until = self.now;
        for shard in &mut self.shards {
            shard.stalled_until = self.now;
            shard.touched = true;
        }
        self.awake();
    }

    /// All settles, then records are stored again, then all is at rest.
    fn converge(&mut self) -> Result<(), String> {
        let most = self.knobs.max_block + self.knobs.delivery_timeout + ms(1_000);
        let settled = |run: &Self| run.history.pending() == 0 && run.waiting.is_empty();
        if !self.run_until(self.now + most, settled)? {
            return Err(format!(
                "{} records and {} who wait for memory are not settled {most:?} after healing",
                self.history.pending(),
                self.waiting.len()
            ));
        }
        self.progress()?;
        self.run_until(self.now + ms(5_000), |_| false)?;
        self.is_at_rest()?;
        let before = self.happened;
        self.run_until(self.now + REST, |_| false)?;
        let (restless, most) = (self.happened - before, self.rest_max());
        if restless > most {
            return Err(format!("{restless} things happened in {REST:?} of rest"));
        }
        if !self.knobs.producer_expiry.is_zero() {
            // To be known by nobody again.
            let forgotten = self.knobs.producer_expiry + ms(20_000);
            self.run_until(self.now + forgotten, |_| false)?;
            self.progress()?;
            self.run_until(self.now + ms(5_000), |_| false)?;
            self.is_at_rest()?;
        }
        Ok(())
    }

    /// Most things that happen in [`REST`]: what each refresh of metadata and each probe of a connection
    /// takes, in many small pieces at worst, and a few.
    fn rest_max(&self) -> u64 {
        let times = |every: Duration| match every.as_nanos() {
            0 => 0,
            every => u64::try_from(REST.as_nanos().div_ceil(every)).unwrap_or(0),
        };
        let open = self.sockets.iter().filter(|socket| socket.open).count() as u64;
        let probes = times(self.knobs.idle_probe) * open * EVENTS_PER_PROBE;
        60 + probes + times(self.knobs.metadata_max_age) * EVENTS_PER_REFRESH
    }

    /// Check 10: a record of every lane is stored within [`RECOVERY`], and what a broker asked for before
    /// it healed.
    fn progress(&mut self) -> Result<(), String> {
        let faults = &self.knobs.faults;
        let quiet = match faults.iter().any(|(kind, _)| *kind == Kind::Quiet) {
            true => limits::THROTTLE_MAX,
            false => Duration::ZERO,
        };
        let until = self.now + RECOVERY + quiet;
        let mut left: Vec<u32> = (0..u32::try_from(self.lanes.len()).expect("few")).collect();
        if left.is_empty() {
            self.run_until(until, |run| !run.lanes.is_empty())?;
            if self.lanes.is_empty() {
                return Err("check 10: no topic was found after healing".to_owned());
            }
            left = (0..u32::try_from(self.lanes.len()).expect("few")).collect();
        }
        while !left.is_empty() {
            for lane in &left {
                let until_ns = (self.now + self.knobs.max_block).0;
                self.append(*lane, true, 50, Some(until_ns), None);
            }
            let most = self.knobs.max_block + self.knobs.delivery_timeout + ms(1_000);
            let settled = |run: &Self| run.history.pending() == 0 && run.waiting.is_empty();
            if !self.run_until(self.now + most, settled)? {
                return Err("check 10: a record sent after healing has no outcome".to_owned());
            }
            let history = &self.history;
            left.retain(|lane| {
                let last = history.lanes[*lane as usize].fates.last();
                !matches!(last, Some(Fate::Acked(..) | Fate::Sent))
            });
            if !left.is_empty() && self.now > until {
                tell!(self, "{:#?}", self.shards);
                return Err(format!(
                    "check 10: lanes {left:?} store nothing {RECOVERY:?} after healing"
                ));
            }
            self.run_until(self.now + ms(100), |_| false)?;
        }
        Ok(())
    }

    fn is_at_rest(&mut self) -> Result<(), String> {
        let (tokens, first) = self.records.live();
        let (heads, head) = self.heads.live();
        if tokens + heads > 0 || self.pool.in_use() + self.slabs.in_use() > 0 {
            return Err(format!(
                "memory is not free: {tokens} buffers ({first:?}) and {heads} heads ({head:?}), \
                 {} and {} bytes in use",
                self.pool.in_use(),
                self.slabs.in_use()
            ));
        }
        let open = self.sockets.iter().filter(|socket| socket.open).count();
        let nodes = usize::try_from(self.knobs.nodes).unwrap_or(0);
        let most = nodes * self.knobs.connections_per_broker * self.knobs.shards + 1;
        if open > most {
            return Err(format!("{open} connections are open, {most} are needed"));
        }
        if let Some(shard) = self.shards.iter().position(|s| !s.dispatcher.is_idle()) {
            return Err(format!("shard {shard} is not idle"));
        }
        Ok(())
    }

    /// The producer takes nothing more, and waits for what it has, at most so long; things go wrong
    /// meanwhile.
    fn wait_to_close(&mut self) -> Result<(), String> {
        let within = self.knobs.close_within;
        tell!(self, "the producer is being closed, within {within:?}");
        let until = self.now + within;
        self.closing = true;
        self.pool.close();
        self.flush();
        let settled = |run: &Self| run.history.pending() == 0;
        let in_time = self.run_until(until, settled)?;
        // Whatever it had has its verdict by its deadline, unless nobody was there to give it.
        let left = self.history.pending();
        let last = self.knobs.delivery_timeout + ms(10);
        if !in_time && within > last && self.asleep_until() + ms(10) < self.now {
            return Err(format!(
                "{left} records are not settled by a close that had {within:?}"
            ));
        }
        Ok(())
    }

    /// The producer is closed with whatever is under way.
    fn close(&mut self) -> Result<(), String> {
        tell!(self, "the producer is closed");
        self.healed = true;
        self.closed = true;
        self.wake_up();
        for shard in &mut self.shards {
            shard.lanes.busy = 0;
            shard.dispatcher.abandon(self.now, &mut shard.lanes);
            shard.touched = true;
        }
        let settled = |run: &Self| run.history.pending() == 0 && run.waiting.is_empty();
        // Those who waited for memory hear of it when they run next.
        if !self.run_until(self.now + ms(2), settled)? {
            return Err(format!(
                "{} records and {} who wait for memory are not settled by close",
                self.history.pending(),
                self.waiting.len()
            ));
        }
        // Old bytes may still reach the brokers, and the kernel let go of its frames.
        self.advance_clock();
        self.broker.heal();
        self.deaf.clear();
        self.mute.clear();
        self.run_until(self.now + ms(20_000), |_| false)?;
        self.is_at_rest()
    }

    fn compare(&mut self) -> Result<(), String> {
        let topics = &self.topics;
        let broker = &self.broker;
        let order = Order {
            once: self.knobs.idempotent,
            moved: self.moved() > 0,
            renewed: self.knobs.first_epoch > 0,
        };
        self.lost = self.history.check(
            order,
            |topic, partition| broker.log(&topics[topic as usize], partition),
            |topic, partition| broker.lost(&topics[topic as usize], partition),
        )?;
        let report = self.broker.report();
        if report.corrupt > self.flips {
            return Err(format!(
                "check 7: {} batches came damaged, {} bits were flipped",
                report.corrupt, self.flips
            ));
        }
        let counts = self.history.counts();
        let purged = self
            .knobs
            .faults
            .iter()
            .any(|(kind, _)| *kind == Kind::PurgeAll);
        if self.knobs.is_calm() && !purged && !self.closed && counts.unknown > 0 {
            return Err(format!(
                "{} outcomes are unknown although nothing went wrong",
                counts.unknown
            ));
        }
        Ok(())
    }

    fn moved(&self) -> u64 {
        let shards = self.shards.iter();
        shards.map(|shard| shard.dispatcher.counters().moved).sum()
    }

    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.now.0 / 1_000_000).unwrap_or(i64::MAX)
    }

    /// What the cluster does by itself until now.
    pub(super) fn advance_clock(&mut self) {
        let now_ms = self.now_ms();
        self.broker.tick(now_ms);
    }
}

/// Whether an answer comes to a request with these acks.
pub(super) fn is_answered(acks: Acks) -> bool {
    acks != Acks::None
}
