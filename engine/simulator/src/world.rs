//! Both ends in pretend time: dispatcher and directory on one side, the broker model on the other,
//! and between them a network made of an ordered list of events. Nothing here reads a clock or
//! draws a number that was not seeded, so a run is its seed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringpost_broker::{Broker, Closed, Progress, Session};
use ringpost_core::buffer::Piece;
use ringpost_core::connection::ConnId;
use ringpost_core::directory::{Directory, Task, TopicError};
use ringpost_core::dispatch::{Action, Dispatcher};
use ringpost_core::health::View;
use ringpost_core::id::{BrokerId, LaneId, PartitionId};
use ringpost_core::metadata::Cluster;
use ringpost_core::outcome::Verdict;
use ringpost_core::random::Random;
use ringpost_core::time::Time;

use crate::found::{FoundBatch, batches};
use crate::heap::{Heap, VecPiece};
use crate::lanes::{Appended, Lane, Lanes, Ticket};
use crate::setup::{Network, Setup, address, ms, us};

#[derive(Debug)]
enum Event {
    Connected(ConnId),
    ConnectFailed(ConnId, String),
    Took(ConnId, Vec<u8>),
    Released(ConnId, Vec<VecPiece>),
    ToBroker(ConnId, Vec<u8>),
    ToClient(ConnId, Vec<u8>),
    ClientClosed(ConnId, Option<String>),
    Reset(ConnId),
    Tick(ConnId),
}

#[derive(Debug)]
struct Socket {
    node: i32,
    session: Option<Session>,
    client_open: bool,
    frame_out: bool,
    /// When the way to the broker has carried what is on it.
    up_free: Time,
    last_up: Time,
    last_down: Time,
    /// The connection is reset behind so many more bytes from the client.
    cut: Option<usize>,
}

/// What Linux waits at least before it sends a lost packet again.
pub const RETRANSMITTED: Duration = ms(200);

/// A Produce request as it was handed to the driver.
#[derive(Debug, Clone)]
pub struct Request {
    /// When.
    pub at: Time,
    /// Over which connection.
    pub conn: ConnId,
    /// To which node.
    pub node: i32,
    /// The frame with its length.
    pub bytes: Vec<u8>,
}

/// What became of a record.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What its batch ended with.
    pub verdict: Verdict,
    /// The lane it went to, or waited in last.
    pub lane: LaneId,
    /// Its place in its batch.
    pub index: usize,
    /// When.
    pub at: Time,
    /// Counts verdicts in the order in which they came.
    pub order: u64,
}

/// Changes bytes on their way.
pub struct Tamper(Box<Change>);

type Change = dyn FnMut(&mut Vec<u8>);

impl Tamper {
    /// A change that is made to each piece of what travels.
    pub fn with(change: impl FnMut(&mut Vec<u8>) + 'static) -> Option<Self> {
        Some(Self(Box::new(change)))
    }

    /// Changes these.
    pub(crate) fn change(&mut self, bytes: &mut Vec<u8>) {
        (self.0)(bytes);
    }
}

impl std::fmt::Debug for Tamper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tamper")
    }
}

/// A cluster, a network, and one shard with its directory.
#[derive(Debug)]
pub struct World {
    /// It is so late.
    pub now: Time,
    /// The cluster.
    pub broker: Broker,
    /// The real one.
    pub dispatcher: Dispatcher<Heap, Ticket>,
    /// The real one.
    pub directory: Directory,
    /// Where records are appended.
    pub lanes: Lanes<Heap>,
    /// How the network behaves.
    pub network: Network,
    /// For what the network draws.
    pub random: Random,
    /// What became of each record, by lane and number.
    pub outcomes: BTreeMap<(u32, u64), Outcome>,
    /// All Produce requests that were handed to the driver.
    pub requests: Vec<Request>,
    /// When connections were tried, and where.
    pub connects: Vec<(Time, ConnId, SocketAddr)>,
    /// What the directory sent, and when.
    pub questions: Vec<(Time, Vec<u8>)>,
    /// Topics that were given up, and when.
    pub failed_topics: Vec<(Time, Arc<str>, TopicError)>,
    /// How often another cluster was met.
    pub cluster_changes: u32,
    /// Hosts of brokers that were refused.
    pub refused_hosts: Vec<Arc<str>>,
    /// What the directory last told.
    pub cluster: Arc<Cluster>,
    /// Why the broker ended connections.
    pub closings: Vec<Closed>,
    /// Who listens where.
    pub listening: BTreeMap<SocketAddr, i32>,
    /// Addresses that answer nothing, not even that they do not.
    pub dark: BTreeSet<SocketAddr>,
    /// What names resolve to.
    pub names: BTreeMap<String, Result<Vec<SocketAddr>, String>>,
    /// How often a name was asked for.
    pub resolved: u32,
    /// The next Produce request is followed by a reset behind so many of its bytes.
    pub cut_next_request: Option<usize>,
    /// Our own memory is damaged under the next Produce request, in its longest piece, before it leaves.
    pub damage_next_request: bool,
    /// Bytes to these nodes are lost.
    pub deaf: BTreeSet<i32>,
    /// Bytes from these nodes are lost.
    pub mute: BTreeSet<i32>,
    /// Nodes that stand still, as after SIGSTOP: their kernels accept connections and bytes. See
    /// [`World::pause_node`].
    paused: BTreeSet<i32>,
    /// What those have not worked on.
    held: Vec<Event>,
    /// Answers are handed to the client changed by this.
    pub tamper: Option<Tamper>,
    /// Bytes of Produce requests are handed to the broker changed by this.
    pub tamper_request: Option<Tamper>,
    /// What each connection began with.
    pub first_words: BTreeMap<ConnId, Vec<u8>>,
    /// Answers of these nodes take so much longer.
    pub slow: BTreeMap<i32, Duration>,
    /// Of a hundred pieces to and from these nodes so many are lost, and come [`RETRANSMITTED`] later,
    /// with all that is behind them.
    pub loss: BTreeMap<i32, usize>,
    /// How lanes stand, as last published.
    pub views: Vec<View>,
    /// Brokers that other shards would be told of, and when.
    pub hints: Vec<(Time, BrokerId)>,
    wanted: BTreeMap<String, Vec<LaneId>>,
    sockets: BTreeMap<ConnId, Socket>,
    events: BTreeMap<(Time, u64), Event>,
    counted: u64,
    settled: u64,
    /// How much the dispatcher allocated, since this was set to `Some`.
    pub allocations: Option<u64>,
}

impl World {
    /// A world without topics.
    pub fn new(setup: Setup) -> Self {
        Self {
            now: Time(1_000_000_000),
            dispatcher: Dispatcher::new(setup.settings, setup.seed),
            directory: Directory::new(setup.directory, setup.seed),
            lanes: Lanes::new(setup.batch_bytes, Heap, Heap),
            listening: setup
                .broker
                .nodes
                .iter()
                .map(|node| (address(node.id), node.id))
                .collect(),
            broker: Broker::new(setup.broker),
            network: setup.network,
            random: Random::new(setup.seed),
            outcomes: BTreeMap::new(),
            requests: Vec::new(),
            connects: Vec::new(),
            questions: Vec::new(),
            failed_topics: Vec::new(),
            cluster_changes: 0,
            refused_hosts: Vec::new(),
            cluster: Arc::default(),
            closings: Vec::new(),
            dark: BTreeSet::new(),
            names: BTreeMap::new(),
            resolved: 0,
            cut_next_request: None,
            damage_next_request: false,
            deaf: BTreeSet::new(),
            mute: BTreeSet::new(),
            paused: BTreeSet::new(),
            held: Vec::new(),
            tamper: None,
            tamper_request: None,
            first_words: BTreeMap::new(),
            slow: BTreeMap::new(),
            loss: BTreeMap::new(),
            views: Vec::new(),
            hints: Vec::new(),
            wanted: BTreeMap::new(),
            sockets: BTreeMap::new(),
            events: BTreeMap::new(),
            counted: 0,
            settled: 0,
            allocations: None,
        }
    }

    /// A world with one topic, whose lanes are known. Lane n is partition n.
    pub fn with_topic(setup: Setup, topic: &str, partitions: i32) -> Self {
        let mut world = Self::new(setup);
        world
            .broker
            .create_topic(topic, partitions)
            .expect("a fresh broker");
        world.want(topic);
        world.run_until_idle(ms(5_000));
        assert_eq!(world.wanted[topic].len(), partitions as usize);
        world
    }

    /// As [`World::with_topic`], and one record went to each partition: connections are ready, and
    /// the lanes are proven.
    pub fn warm(setup: Setup, partitions: u32) -> Self {
        let count = i32::try_from(partitions).expect("few");
        let mut world = Self::with_topic(setup, "t", count);
        for lane in 0..partitions {
            world.append(lane, 20);
        }
        world.settle(ms(5_000));
        world.run_for(ms(100));
        world.requests.clear();
        world.connects.clear();
        world.questions.clear();
        world
    }

    /// Bytes from a broker that nobody asked for.
    pub fn inject(&mut self, conn: ConnId, bytes: &[u8]) {
        self.schedule(self.now, Event::ToClient(conn, bytes.to_vec()));
    }

    /// Asks the directory for a topic.
    pub fn want(&mut self, topic: &str) {
        self.wanted.entry(topic.to_owned()).or_default();
        self.directory.want(self.now, &topic.into());
    }

    /// The lanes of a topic, by partition.
    pub fn lanes_of(&self, topic: &str) -> Vec<LaneId> {
        self.wanted.get(topic).cloned().unwrap_or_default()
    }

    /// Appends a record; returns its number.
    pub fn append(&mut self, lane: u32, len: usize) -> u64 {
        self.append_as(LaneId(lane), len, false).number
    }

    /// Appends a record that may go to any partition.
    pub fn append_free(&mut self, lane: LaneId, len: usize) -> Appended {
        self.append_as(lane, len, true)
    }

    fn append_as(&mut self, lane: LaneId, len: usize, free: bool) -> Appended {
        let appended = self.lanes.append_stamped(self.now, lane, len, free);
        appended.expect("the heap has no bound")
    }

    /// Runs until everything appended is settled. Panics when that takes longer than `most`.
    pub fn settle(&mut self, most: Duration) {
        let end = self.now + most;
        while self.unsettled() > 0 {
            assert!(
                self.step(end),
                "{} records are not settled after {most:?}: {:#?}",
                self.unsettled(),
                self.dispatcher
            );
        }
    }

    /// So many records have no outcome yet.
    pub fn unsettled(&self) -> usize {
        let appended: u64 = self.lanes.lanes.iter().map(Lane::appended).sum();
        usize::try_from(appended).expect("few") - self.outcomes.len()
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    /// Runs until the network is quiet and no topic is waited for, at most for `most`.
    pub fn run_until_idle(&mut self, most: Duration) {
        let end = self.now + most;
        self.turn();
        while !self.events.is_empty() && self.step(end) {}
    }

    /// Goes on to the next thing that happens before `end`. `false` when there is none; it is then
    /// `end`.
    pub fn step(&mut self, end: Time) -> bool {
        for loops in 0.. {
            self.turn();
            let mut next = self
                .dispatcher
                .next_deadline()
                .min(self.directory.next_deadline());
            if self.dispatcher.is_contended() {
                next = next.min(self.now + us(50));
            }
            if let Some(((at, _), _)) = self.events.first_key_value() {
                next = next.min(*at);
            }
            if !self.lanes.ready.is_empty() {
                next = self.now;
            }
            if next > end {
                self.now = end;
                return false;
            }
            if next > self.now {
                self.now = next;
                self.happen();
                self.turn();
                return true;
            }
            self.happen();
            assert!(loops < 1000, "time stands still: {self:#?}");
        }
        unreachable!("it loops until it returns")
    }

    /// One turn of a shard and of the controller.
    fn turn(&mut self) {
        let now = self.now;
        for _ in 0..100 {
            let ready = std::mem::take(&mut self.lanes.ready);
            self.core(|dispatcher, lanes| {
                for lane in &ready {
                    dispatcher.lane_ready(now, LaneId(*lane), lanes);
                }
                dispatcher.step(now, lanes);
            });
            self.dispatcher.invariants(now);
            let mut acted = false;
            while let Some(action) = self.dispatcher.poll_action() {
                acted = true;
                self.act(action);
            }
            self.take_settled();
            if self.dispatcher.views_changed() {
                let lanes = 0..u32::try_from(self.lanes.lanes.len()).expect("few lanes");
                let view = |lane| self.dispatcher.view_of(now, LaneId(lane));
                self.views = lanes.map(view).collect();
            }
            self.directory.step(now);
            while let Some(task) = self.directory.poll_task() {
                acted = true;
                self.perform(task);
            }
            if !acted {
                return;
            }
        }
        panic!("it never stops acting: {self:#?}");
    }

    /// Calls the dispatcher and counts what it allocates.
    fn core(&mut self, call: impl FnOnce(&mut Dispatcher<Heap, Ticket>, &mut Lanes<Heap>)) {
        match &mut self.allocations {
            None => call(&mut self.dispatcher, &mut self.lanes),
            Some(counted) => {
                let (dispatcher, lanes) = (&mut self.dispatcher, &mut self.lanes);
                let taken = allocation_counter::measure(|| call(dispatcher, lanes));
                *counted += taken.count_total;
            }
        }
    }

    fn take_settled(&mut self) {
        while let Some(settled) = self.dispatcher.poll_settled() {
            assert_eq!(u64::from(settled.records), settled.ticket.count);
            let failed = matches!(
                settled.verdict,
                Verdict::NotWritten(_) | Verdict::Unknown(_)
            );
            assert_eq!(failed, settled.undelivered.is_some());
            for (index, number) in settled.ticket.numbers().enumerate() {
                let outcome = Outcome {
                    verdict: settled.verdict.clone(),
                    lane: settled.lane,
                    index,
                    at: self.now,
                    order: self.settled,
                };
                let before = self.outcomes.insert((settled.home.0, number), outcome);
                assert!(before.is_none(), "record {number} is settled twice");
            }
            self.settled += 1;
        }
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.counted += 1;
        self.events.insert((at, self.counted), event);
    }

    fn act(&mut self, action: Action<VecPiece>) {
        match action {
            Action::Connect { conn, address } => self.connect(conn, address),
            Action::Send { conn, frame } => {
                if std::mem::take(&mut self.damage_next_request) {
                    let longest = frame.iter().max_by_key(|piece| piece.bytes().len());
                    longest.expect("no frame is empty").damage();
                }
                let bytes: Vec<u8> = frame
                    .iter()
                    .flat_map(|piece| {
                        let bytes = piece.bytes();
                        assert!(!bytes.is_empty(), "no empty pieces");
                        bytes.to_vec()
                    })
                    .collect();
                let socket = self.sockets.get_mut(&conn).expect("connected");
                socket.cut = self.cut_next_request.take().or(socket.cut);
                let node = socket.node;
                self.requests.push(Request {
                    at: self.now,
                    conn,
                    node,
                    bytes: bytes.clone(),
                });
                self.send(conn, &bytes, frame);
            }
            Action::SendBytes { conn, frame } => self.send(conn, &frame, Vec::new()),
            Action::Close { conn } => self.close(conn),
            Action::Refresh => self.directory.refresh(),
            Action::Identify => self.directory.identify(0),
            Action::Hint { broker } => self.hints.push((self.now, broker)),
        }
    }

    fn connect(&mut self, conn: ConnId, to: SocketAddr) {
        self.connects.push((self.now, conn, to));
        assert!(!self.sockets.contains_key(&conn), "{conn:?} was used");
        assert!(
            !self
                .sockets
                .iter()
                .any(|(other, socket)| other.slot == conn.slot && socket.client_open),
            "two connections in slot {}",
            conn.slot
        );
        let node = self.listening.get(&to).copied();
        self.sockets.insert(
            conn,
            Socket {
                node: node.unwrap_or(-1),
                session: node.map(|node| self.broker.session(node)),
                client_open: true,
                frame_out: false,
                up_free: self.now,
                last_up: self.now,
                last_down: self.now,
                cut: None,
            },
        );
        let at = self.now + self.network.latency * 2;
        if self.dark.contains(&to) {
            return;
        }
        match node {
            Some(_) => self.schedule(at, Event::Connected(conn)),
            None => self.schedule(at, Event::ConnectFailed(conn, "connection refused".into())),
        }
    }

    fn send(&mut self, conn: ConnId, bytes: &[u8], frame: Vec<VecPiece>) {
        let socket = self.sockets.get_mut(&conn).expect("connected");
        assert!(!socket.frame_out, "two frames with the driver");
        if !socket.client_open {
            self.schedule(self.now, Event::Released(conn, frame));
            return;
        }
        socket.frame_out = true;
        self.first_words
            .entry(conn)
            .or_insert_with(|| bytes.to_vec());
        let chunk = match self.network.send_chunk {
            0 => bytes.len(),
            chunk => chunk,
        };
        let mut at = self.now;
        for part in bytes.chunks(chunk) {
            self.schedule(at, Event::Took(conn, part.to_vec()));
            at = at + us(1);
        }
        self.schedule(at, Event::Released(conn, frame));
    }

    /// Bytes leave towards the broker.
    fn transmit(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(socket) = self.sockets.get(&conn) else {
            return;
        };
        let (cut, node) = (socket.cut, socket.node);
        let mut bytes = Cow::Borrowed(bytes);
        if let Some(tamper) = &mut self.tamper_request
            && conn.slot != Directory::SLOT
            && bytes.get(4..6) == Some(&[0, 0])
        {
            (tamper.0)(bytes.to_mut());
        }
        let through = cut.map_or(bytes.len(), |cut| cut.min(bytes.len()));
        if !self.deaf.contains(&node) {
            for (at, part) in self.fragments(conn, &bytes[..through], true) {
                self.schedule(at, Event::ToBroker(conn, part));
            }
        }
        if let Some(cut) = cut {
            let socket = self.sockets.get_mut(&conn).expect("just seen");
            socket.cut = Some(cut - through);
            // Behind the whole request: it is worked on, the answer is lost.
            if through < bytes.len() || cut == bytes.len() {
                let at = socket.last_up;
                self.schedule(at, Event::Reset(conn));
            }
        }
    }

    fn fragments(&mut self, conn: ConnId, bytes: &[u8], up: bool) -> Vec<(Time, Vec<u8>)> {
        let mut parts = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = match self.network.fragment {
                0 => rest.len(),
                most => 1 + self.random.below(most.min(rest.len())),
            };
            let jitter = usize::try_from(Time::nanos(self.network.jitter)).expect("short");
            let jitter = Duration::from_nanos(self.random.below(jitter + 1) as u64);
            let socket = self.sockets.get_mut(&conn).expect("it has bytes to move");
            let leaves = match self.network.up_bytes_per_second {
                rate if up && rate > 0 => {
                    let nanos = len as u64 * 1_000_000_000 / rate as u64;
                    socket.up_free = socket.up_free.max(self.now) + Duration::from_nanos(nanos);
                    socket.up_free
                }
                _ => self.now,
            };
            let last = if up {
                &mut socket.last_up
            } else {
                &mut socket.last_down
            };
            let pace = if up {
                Duration::ZERO
            } else {
                self.network.pace
            };
            let slow = match up {
                true => Duration::ZERO,
                false => self.slow.get(&socket.node).copied().unwrap_or_default(),
            };
            let percent = self.loss.get(&socket.node).copied().unwrap_or(0);
            let again = if percent > 0 && self.random.below(100) < percent {
                RETRANSMITTED
            } else {
                Duration::ZERO
            };
            *last = (*last + pace).max(leaves + self.network.latency + slow + jitter + again);
            parts.push((*last, rest[..len].to_vec()));
            rest = &rest[len..];
        }
        parts
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(socket) = self.sockets.get_mut(&conn) {
            // What is under way still reaches the broker.
            socket.client_open = false;
        }
    }

    /// Resets a connection: nothing under way arrives any more on either side.
    pub fn reset(&mut self, conn: ConnId) {
        self.events.retain(|_, event| {
            !matches!(event, Event::ToBroker(c, _) | Event::ToClient(c, _) | Event::Connected(c)
                if *c == conn)
        });
        self.schedule(self.now, Event::Reset(conn));
    }

    /// The connections that are open just now.
    pub fn open_connections(&self) -> Vec<ConnId> {
        self.sockets
            .iter()
            .filter(|(_, socket)| socket.client_open)
            .map(|(conn, _)| *conn)
            .collect()
    }

    /// A node stands still: its kernel accepts connections and bytes, nobody works on them.
    pub fn pause_node(&mut self, node: i32) {
        self.paused.insert(node);
    }

    /// A node goes on, with all that came meanwhile, also on connections that are closed by now.
    pub fn resume_node(&mut self, node: i32) {
        self.paused.remove(&node);
        for event in std::mem::take(&mut self.held) {
            self.schedule(self.now, event);
        }
    }

    fn is_paused(&self, conn: ConnId) -> bool {
        let socket = self.sockets.get(&conn);
        socket.is_some_and(|socket| self.paused.contains(&socket.node))
    }

    /// Ends all connections to a node; nobody listens at its address until [`World::start_node`].
    pub fn stop_node(&mut self, node: i32) {
        self.listening.retain(|_, listener| *listener != node);
        let conns: Vec<_> = self
            .sockets
            .iter()
            .filter(|(_, socket)| socket.node == node && socket.client_open)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in conns {
            self.reset(conn);
        }
    }

    /// Listens again, at the usual address.
    pub fn start_node(&mut self, node: i32) {
        self.listening.insert(address(node), node);
    }

    /// Our own process does not run for a while. The network and the brokers do, and what they send
    /// waits for us.
    pub fn pause(&mut self, time: Duration) {
        let end = self.now + time;
        let ours = |event: &Event| !matches!(event, Event::ToBroker(..) | Event::Tick(_));
        while let Some((&key, _)) = self.events.iter().find(|(_, event)| !ours(event))
            && key.0 <= end
        {
            self.now = self.now.max(key.0);
            if let Some(event) = self.events.remove(&key) {
                self.happens(event);
            }
        }
        self.now = end;
    }

    /// Ends all connections to a node in an orderly way.
    pub fn hang_up(&mut self, node: i32) {
        let now = self.now;
        for (conn, socket) in &mut self.sockets {
            if socket.node == node && socket.client_open {
                socket.session = None;
                self.counted += 1;
                self.events
                    .insert((now, self.counted), Event::ClientClosed(*conn, None));
            }
        }
    }

    /// Everything that is due happens.
    pub fn happen(&mut self) {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            let event = entry.remove();
            self.happens(event);
            self.dispatcher.invariants(self.now);
        }
    }

    fn happens(&mut self, event: Event) {
        let now = self.now;
        let is_open = |world: &Self, conn| {
            world
                .sockets
                .get(&conn)
                .is_some_and(|socket| socket.client_open)
        };
        match event {
            Event::Connected(conn) if is_open(self, conn) => {
                if conn.slot == Directory::SLOT {
                    self.directory.connected(conn);
                } else {
                    self.dispatcher.connected(now, conn);
                }
            }
            Event::ConnectFailed(conn, reason) if is_open(self, conn) => {
                self.close(conn);
                if conn.slot == Directory::SLOT {
                    self.directory.connect_failed(now, conn, &reason);
                } else {
                    self.dispatcher.connect_failed(now, conn, &reason);
                }
            }
            Event::Took(conn, bytes) if is_open(self, conn) => {
                self.transmit(conn, &bytes);
                if conn.slot != Directory::SLOT {
                    self.core(|dispatcher, _| dispatcher.sent(now, conn, bytes.len()));
                }
            }
            Event::Released(conn, frame) => {
                if let Some(socket) = self.sockets.get_mut(&conn) {
                    socket.frame_out = false;
                }
                if conn.slot != Directory::SLOT {
                    self.core(|dispatcher, _| dispatcher.released(conn, frame));
                }
            }
            Event::ToBroker(conn, _) | Event::Tick(conn) if self.is_paused(conn) => {
                self.held.push(event);
            }
            Event::ToBroker(conn, bytes) => {
                if let Some(session) = self.session(conn) {
                    session.receive(&bytes);
                }
                self.work(conn);
            }
            Event::Tick(conn) => self.work(conn),
            Event::ToClient(conn, bytes) if is_open(self, conn) => {
                if conn.slot == Directory::SLOT {
                    self.directory.received(now, conn, &bytes);
                } else {
                    self.core(|dispatcher, _| dispatcher.received(now, conn, &bytes));
                }
            }
            Event::ClientClosed(conn, reason) if is_open(self, conn) => {
                self.close(conn);
                if conn.slot == Directory::SLOT {
                    self.directory.closed(now, conn, reason.as_deref());
                } else {
                    self.dispatcher.closed(now, conn, reason.as_deref());
                }
            }
            Event::Reset(conn) => {
                if let Some(socket) = self.sockets.get_mut(&conn) {
                    socket.session = None;
                }
                let reason = Some("connection reset by peer".to_owned());
                self.happens(Event::ClientClosed(conn, reason));
            }
            _ => {}
        }
    }

    fn session(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.sockets.get_mut(&conn)?.session.as_mut()
    }

    /// The broker works on what came.
    fn work(&mut self, conn: ConnId) {
        let now_ms = i64::try_from(self.now.0 / 1_000_000).expect("early");
        let mut out = Vec::new();
        let broker = &mut self.broker;
        let Some(socket) = self.sockets.get_mut(&conn) else {
            return;
        };
        let Some(session) = socket.session.as_mut() else {
            return;
        };
        let progress = loop {
            match session.advance(broker, now_ms, &mut out) {
                Ok(Progress::SendFirst) => {}
                other => break other,
            }
        };
        let node = socket.node;
        if let Some(tamper) = &mut self.tamper
            && conn.slot != Directory::SLOT
            && !out.is_empty()
        {
            (tamper.0)(&mut out);
        }
        if !self.mute.contains(&node) {
            for (at, part) in self.fragments(conn, &out, false) {
                self.schedule(at, Event::ToClient(conn, part));
            }
        }
        match progress {
            Ok(Progress::Held { until_ms }) => {
                let at = Time(u64::try_from(until_ms).expect("late") * 1_000_000);
                self.schedule(at.max(self.now), Event::Tick(conn));
            }
            Ok(_) => {}
            Err(closed) => {
                self.closings.push(closed);
                let socket = self.sockets.get_mut(&conn).expect("just seen");
                socket.session = None;
                let at = socket.last_down.max(self.now + self.network.latency);
                self.schedule(at, Event::ClientClosed(conn, None));
            }
        }
    }

    fn perform(&mut self, task: Task) {
        let now = self.now;
        match task {
            Task::Resolve { host, port } => {
                self.resolved += 1;
                let unknown = Err("no such name".to_owned());
                let result = self.names.get(&*host).cloned().unwrap_or(unknown);
                let result = result.as_deref().map_err(String::as_str);
                self.directory.resolved(now, &host, port, result);
            }
            Task::Connect { conn, address } => self.connect(conn, address),
            Task::Send { conn, frame } => {
                self.questions.push((now, frame.clone()));
                self.send(conn, &frame, Vec::new());
            }
            Task::Close { conn } => self.close(conn),
            Task::Publish(cluster) => self.publish(cluster),
            Task::Failed { topic, error } => self.failed_topics.push((now, topic, error)),
            Task::Identity { asker, result } => {
                assert_eq!(asker, 0);
                match result {
                    Ok(identity) => self.dispatcher.identity(identity),
                    Err(code) => self.dispatcher.identity_refused(code),
                }
            }
            Task::ClusterChanged { .. } => self.cluster_changes += 1,
            Task::HostRefused { host } => self.refused_hosts.push(host),
        }
    }

    fn publish(&mut self, cluster: Arc<Cluster>) {
        for (name, lanes) in &mut self.wanted {
            let Some(topic) = cluster.topics.get(name.as_str()) else {
                continue;
            };
            for partition in lanes.len()..topic.partitions.len() {
                let partition = i32::try_from(partition).expect("few partitions");
                let number = u32::try_from(self.lanes.lanes.len()).expect("few lanes");
                let topic = name.as_str().into();
                let id = self.lanes.add(number, &topic, partition);
                self.dispatcher.add_lane(id, &topic, PartitionId(partition));
                lanes.push(id);
            }
        }
        self.dispatcher.metadata(self.now, &cluster);
        self.cluster = cluster;
    }

    /// The outcome of a record.
    pub fn outcome(&self, lane: u32, number: u64) -> &Outcome {
        &self.outcomes[&(lane, number)]
    }

    /// Whether a record is acknowledged.
    pub fn is_acked(&self, lane: u32, number: u64) -> bool {
        matches!(self.outcome(lane, number).verdict, Verdict::Acked { .. })
    }

    /// So many records ended like that.
    pub fn count(&self, which: impl Fn(&Verdict) -> bool) -> usize {
        self.outcomes
            .values()
            .filter(|outcome| which(&outcome.verdict))
            .count()
    }

    /// Whether every record that has an outcome is acknowledged.
    pub fn all_acked(&self) -> bool {
        self.count(|verdict| matches!(verdict, Verdict::Acked { .. })) == self.outcomes.len()
    }

    /// The batches of a partition's log.
    pub fn log(&self, topic: &str, partition: i32) -> Vec<FoundBatch> {
        batches(topic, partition, &self.broker.log(topic, partition))
    }

    /// The log holds every record at most once, in order, and nothing foreign.
    pub fn check_logs(&self) {
        for (id, lane) in (0u32..).zip(&self.lanes.lanes) {
            let log = self.log(&lane.topic, lane.partition);
            let records: Vec<_> = log.into_iter().flat_map(|batch| batch.records).collect();
            assert!(records.iter().all(|(stream, _)| *stream == u64::from(id)));
            assert!(records.is_sorted_by(|a, b| a.1 < b.1), "{records:?}");
        }
    }

    /// Compares what was reported with what the logs hold. `once`: with idempotence.
    ///
    /// 1 what is acked lies at its offset; 2 the log holds nothing that was not appended; 3 what is
    /// reported as not written is not there; 4 nothing is there twice; 5 the order is kept;
    /// 6 nothing is missing but what was reported.
    pub fn check(&self, once: bool) {
        assert_eq!(self.unsettled(), 0, "everything is settled");
        let mut logs = BTreeMap::new();
        for (id, lane) in (0u32..).zip(&self.lanes.lanes) {
            let mut last = None;
            for batch in self.log(&lane.topic, lane.partition) {
                for (n, (stream, number)) in (0i64..).zip(batch.records) {
                    let stream = u32::try_from(stream).expect("a lane");
                    let home = &self.lanes.lanes[stream as usize];
                    assert!(number < home.appended(), "a record nobody appended");
                    let free = home.is_free(number);
                    assert!(
                        stream == id || free && home.topic == lane.topic,
                        "record {number} of lane {stream} is with lane {id}"
                    );
                    let places: &mut Vec<(u32, i64)> = logs.entry((stream, number)).or_default();
                    places.push((id, batch.header.base_offset + n));
                    if once {
                        assert_eq!(
                            places.len(),
                            1,
                            "record {number} of lane {stream} is there twice"
                        );
                    }
                    if once && !free {
                        assert!(last < Some(number), "{number} follows {last:?}");
                        last = Some(number);
                    }
                }
            }
        }
        for (id, lane) in (0u32..).zip(&self.lanes.lanes) {
            for number in 0..lane.appended() {
                let outcome = self.outcome(id, number);
                let places = logs.get(&(id, number)).map_or(&[][..], Vec::as_slice);
                match &outcome.verdict {
                    Verdict::Acked {
                        base_offset: Some(base),
                        ..
                    } => {
                        let offset = base + i64::try_from(outcome.index).expect("few");
                        assert!(
                            places.contains(&(outcome.lane.0, offset)),
                            "record {number} of lane {id} is acked at {offset}, and lies at \
                             {places:?}"
                        );
                    }
                    Verdict::Acked { .. } => {
                        assert!(!places.is_empty(), "record {number} of lane {id} is lost");
                    }
                    Verdict::NotWritten(failure) => assert!(
                        places.is_empty(),
                        "record {number} of lane {id} was written: {failure:#}"
                    ),
                    Verdict::Sent | Verdict::Unknown(_) => {}
                }
            }
        }
        for closed in &self.closings {
            assert!(
                matches!(closed, Closed::Scripted | Closed::Unacknowledged(_)),
                "the broker complains: {closed}"
            );
        }
    }
}
