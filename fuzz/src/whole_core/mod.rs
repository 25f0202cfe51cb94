//! The whole core against a hostile broker and a hostile network.
//!
//! The input is a list of steps: records, flushes and purges of the application; time that passes;
//! what the kernel takes of a frame, and when it lets go of it; good answers, good answers with strange
//! content, with bits flipped, cut, lengthened, in pieces; and bytes of no sense at all. Dispatcher and
//! directory are the real ones, and the memory is a real pool.
//!
//! After each step: `Dispatcher::invariants`. All the time:
//! - a record has one outcome, at most; `Acked` and `Unknown` only after it was handed to the driver,
//!   and a failure says how often that was;
//! - a frame reads the same when the kernel lets go of it as when it was handed over, and its batches
//!   hold the records of their partition with a right checksum;
//! - memory handed out is never above the bound; the directory keeps no topic that nobody wants.
//!
//! In the end the network is dead or dumb. Then every record has its outcome when its time is over,
//! within a bounded number of steps, and all memory is free when the kernel has let go of its frames.

mod broker;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use ringpost_broker::numbering;
use ringpost_codec::kafka::header::RequestHeader;
use ringpost_codec::kafka::{ApiKey, produce};
use ringpost_codec::reader::Reader;
use ringpost_codec::record_batch::BatchView;
use ringpost_core::connection::ConnId;
use ringpost_core::directory::{Directory, DirectorySettings, Task};
use ringpost_core::dispatch::{Action, Dispatcher, Purge};
use ringpost_core::id::{LaneId, PartitionId};
use ringpost_core::metadata::Cluster;
use ringpost_core::outcome::Verdict;
use ringpost_core::retry::Backoff;
use ringpost_core::settings::{Acks, Linger, Settings};
use ringpost_core::time::Time;
use ringpost_memory::{Piece, Pool};
use ringpost_simulator::lanes::{Lanes, Ticket};

use broker::{Broker, TOPIC};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Steps of an input at most: what is left of it is not looked at.
const STEPS_MAX: usize = 400;

/// What the appenders' memory may be, in this run.
const MEMORY: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];

/// See the module's doc.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(mut rig) = Rig::draw(&mut input) else {
        return;
    };
    for _ in 0..STEPS_MAX {
        if input.is_empty() || rig.step(&mut input).is_err() {
            break;
        }
    }
    rig.end(input.arbitrary().unwrap_or(false));
}

/// A frame with the kernel.
#[derive(Debug)]
struct FrameOut {
    pieces: Vec<Piece>,
    bytes: Vec<u8>,
    taken: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    /// Only frames are still to be let go.
    Over,
}

#[derive(Debug)]
struct Socket {
    phase: Phase,
    frame: Option<FrameOut>,
    /// Requests that arrived whole and are not answered.
    asked: VecDeque<Vec<u8>>,
}

#[derive(Debug)]
struct Rig {
    now: Time,
    settings: Settings,
    dispatcher: Dispatcher<Pool, Ticket>,
    directory: Directory,
    lanes: Lanes<Pool>,
    broker: Broker,
    sockets: BTreeMap<ConnId, Socket>,
    /// Names that are being looked up.
    lookups: Vec<(Arc<str>, u16)>,
    cluster: Arc<Cluster>,
    /// By lane and number: how often it was handed to the driver, and what became of it.
    records: BTreeMap<(u32, u64), (u32, Option<Verdict>)>,
    last_append: Time,
    memory: usize,
}

impl Rig {
    fn draw(input: &mut Unstructured<'_>) -> Result<Self> {
        let broker = Broker::draw(input)?;
        let backoff = Backoff::new(ms(50), ms(1_000));
        let mut settings = Settings {
            client_id: "fuzz".into(),
            idempotent: input.ratio(3, 4)?,
            linger: match input.int_in_range(0..=2)? {
                0 => Linger::Auto {
                    gap: Duration::from_micros(500),
                },
                1 => Linger::Fixed(Duration::ZERO),
                _ => Linger::Fixed(ms(5)),
            },
            request_bytes_max: *input.choose(&[17 << 10, 1 << 20])?,
            in_flight_max: input.int_in_range(1..=5)?,
            request_timeout: ms(*input.choose(&[100, 1_000])?),
            delivery_timeout: ms(*input.choose(&[500, 3_000, 30_000])?),
            connect_timeout: ms(*input.choose(&[100, 2_000])?),
            reconnect: backoff,
            produce_version_max: input.int_in_range(3..=13)?,
            connections_per_broker: input.int_in_range(1..=2)?,
            eager: input.arbitrary()?,
            idle_probe: ms(*input.choose(&[0, 300])?),
            ..Settings::default()
        };
        settings.retry.backoff = backoff;
        settings.retry.attempts_max = *input.choose(&[None, None, Some(1), Some(3)])?;
        if !settings.idempotent {
            settings.acks = *input.choose(&[Acks::None, Acks::Leader, Acks::All])?;
        }
        let directory = DirectorySettings {
            client_id: "fuzz".into(),
            bootstrap: vec![("10.0.0.1".into(), 9092), ("name".into(), 9092)],
            connect_timeout: settings.connect_timeout,
            request_timeout: settings.request_timeout,
            reconnect: backoff,
            refresh: backoff,
            metadata_max_age: ms(5_000),
            topic_timeout: ms(2_000),
            auto_create: false,
            idempotent: settings.idempotent,
        };
        let memory = *input.choose(&MEMORY)?;
        let pool = |bytes, largest| Pool::new(bytes, largest).expect("address space");
        let batch_bytes = *input.choose(&[300, 2_000, 16 << 10])?;
        let mut rig = Self {
            now: Time(1_000_000_000),
            dispatcher: Dispatcher::new(settings.clone(), input.arbitrary()?),
            directory: Directory::new(directory, 1),
            settings,
            lanes: Lanes::new(
                batch_bytes,
                pool(memory, 64 << 10),
                pool(4 << 20, 512 << 10),
            ),
            broker,
            sockets: BTreeMap::new(),
            lookups: Vec::new(),
            cluster: Arc::default(),
            records: BTreeMap::new(),
            last_append: Time(1_000_000_000),
            memory,
        };
        rig.directory.want(rig.now, &TOPIC.into());
        rig.turn();
        Ok(rig)
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        self.sockets
            .retain(|_, socket| socket.phase != Phase::Over || socket.frame.is_some());
        match input.int_in_range(0..=19)? {
            0 | 1 => self.append(input)?,
            2 => {
                if !self.lanes.lanes.is_empty() {
                    self.lanes.flush(self.lane(input)?);
                }
            }
            3 => self.now = self.now + Duration::from_micros(input.int_in_range(1..=2_000)?),
            4 => self.pass_time(),
            5 => self.connect(input)?,
            6 => self.take(input)?,
            7 => self.let_go(input)?,
            8 | 9 => self.answer(false, input)?,
            10 | 11 => self.answer(true, input)?,
            12 => self.answer_changed(input)?,
            13 => self.nonsense(input)?,
            14 => self.hang_up(input)?,
            15 => self.lanes.busy = input.int_in_range(0..=5)?,
            16 => self.lanes.no_slab = input.int_in_range(0..=3)?,
            17 => self.purge(input)?,
            18 => self.look_up(input)?,
            _ => {
                for _ in 0..input.int_in_range(1..=8)? {
                    self.go_well(input)?;
                }
            }
        }
        self.turn();
        Ok(())
    }

    // ---- the application ------------------------------------------------------------------------

    fn lane(&self, input: &mut Unstructured<'_>) -> Result<LaneId> {
        let last = self.lanes.lanes.len().saturating_sub(1);
        Ok(LaneId(
            u32::try_from(input.int_in_range(0..=last)?).expect("few"),
        ))
    }

    fn append(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if self.lanes.lanes.is_empty() {
            return Ok(());
        }
        let lane = self.lane(input)?;
        let len = match input.int_in_range(0..=3)? {
            0 => input.int_in_range(0..=16_000)?,
            _ => input.int_in_range(0..=300)?,
        };
        if let Ok(appended) = self.lanes.append_stamped(self.now, lane, len, false) {
            self.records.insert((lane.0, appended.number), (0, None));
            self.last_append = self.now;
        }
        Ok(())
    }

    fn purge(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let which = *input.choose(&[Purge::Queued, Purge::QueuedAndInFlight])?;
        let now = self.now;
        self.dispatcher.purge(now, which, &mut self.lanes);
        self.dispatcher.invariants(now);
        Ok(())
    }

    // ---- the kernel and the network -------------------------------------------------------------

    /// One of the sockets for which something holds.
    fn pick(
        &self,
        input: &mut Unstructured<'_>,
        holds: impl Fn(&Socket) -> bool,
    ) -> Result<Option<ConnId>> {
        let fitting: Vec<ConnId> = self
            .sockets
            .iter()
            .filter(|(_, socket)| holds(socket))
            .map(|(conn, _)| *conn)
            .collect();
        Ok(match fitting.len() {
            0 => None,
            len => Some(fitting[input.int_in_range(0..=len - 1)?]),
        })
    }

    fn socket(&mut self, conn: ConnId) -> &mut Socket {
        self.sockets.get_mut(&conn).expect("picked")
    }

    fn pass_time(&mut self) {
        let next = self.dispatcher.next_deadline();
        let next = next.min(self.directory.next_deadline());
        if next != Time::NEVER {
            self.now = self.now.max(next);
        }
    }

    fn connect(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let Some(conn) = self.pick(input, |socket| socket.phase == Phase::Connecting)? else {
            return Ok(());
        };
        if input.ratio(1, 4)? {
            self.connect_failed(conn);
        } else {
            self.connected(conn);
        }
        Ok(())
    }

    fn connected(&mut self, conn: ConnId) {
        self.socket(conn).phase = Phase::Open;
        if conn.slot == Directory::SLOT {
            self.directory.connected(conn);
        } else {
            self.dispatcher.connected(self.now, conn);
        }
        self.dispatcher.invariants(self.now);
    }

    fn connect_failed(&mut self, conn: ConnId) {
        self.socket(conn).phase = Phase::Over;
        if conn.slot == Directory::SLOT {
            self.directory.connect_failed(self.now, conn, "refused");
        } else {
            self.dispatcher.connect_failed(self.now, conn, "refused");
        }
        self.dispatcher.invariants(self.now);
    }

    /// The kernel takes some of a frame, or all that is left.
    fn take(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let with_rest = |socket: &Socket| {
            let rest = |frame: &FrameOut| frame.taken < frame.bytes.len();
            socket.phase == Phase::Open && socket.frame.as_ref().is_some_and(rest)
        };
        let Some(conn) = self.pick(input, with_rest)? else {
            return Ok(());
        };
        let most = if input.ratio(1, 3)? {
            input.int_in_range(1..=2_000)?
        } else {
            usize::MAX
        };
        self.took(conn, most);
        Ok(())
    }

    fn took(&mut self, conn: ConnId, most: usize) {
        let socket = self.socket(conn);
        let frame = socket.frame.as_mut().expect("picked");
        let count = most.min(frame.bytes.len() - frame.taken);
        frame.taken += count;
        if frame.taken == frame.bytes.len() {
            let bytes = frame.bytes.clone();
            socket.asked.push_back(bytes);
        }
        if conn.slot != Directory::SLOT {
            self.dispatcher.sent(self.now, conn, count);
        }
        self.dispatcher.invariants(self.now);
    }

    /// The kernel lets go of a frame: all of it was taken, or the connection is over.
    fn let_go(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let done = |socket: &Socket| {
            let done =
                |frame: &FrameOut| socket.phase == Phase::Over || frame.taken == frame.bytes.len();
            socket.frame.as_ref().is_some_and(done)
        };
        if let Some(conn) = self.pick(input, done)? {
            self.released(conn);
        }
        Ok(())
    }

    fn released(&mut self, conn: ConnId) {
        let frame = self.socket(conn).frame.take().expect("picked");
        let bytes: Vec<u8> = frame
            .pieces
            .iter()
            .flat_map(|p| p.bytes().to_vec())
            .collect();
        assert!(
            bytes == frame.bytes,
            "a frame changed while the kernel had it"
        );
        if conn.slot != Directory::SLOT {
            self.dispatcher.released(conn, frame.pieces);
        }
        self.dispatcher.invariants(self.now);
    }

    fn with_question(socket: &Socket) -> bool {
        socket.phase == Phase::Open && !socket.asked.is_empty()
    }

    fn answer(&mut self, strange: bool, input: &mut Unstructured<'_>) -> Result<()> {
        let Some(conn) = self.pick(input, Self::with_question)? else {
            return Ok(());
        };
        let request = self.socket(conn).asked.pop_front().expect("picked");
        let answer = self.broker.answer(&request, strange, input)?;
        self.received(conn, &answer, input)
    }

    /// A good answer that was changed on its way.
    fn answer_changed(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let Some(conn) = self.pick(input, Self::with_question)? else {
            return Ok(());
        };
        let request = self.socket(conn).asked.pop_front().expect("picked");
        let strange = input.arbitrary()?;
        let mut answer = self.broker.answer(&request, strange, input)?;
        for _ in 0..input.int_in_range(1..=3)? {
            if answer.is_empty() {
                break;
            }
            let at = input.int_in_range(0..=answer.len() - 1)?;
            match input.int_in_range(0..=6)? {
                0 => answer[at] ^= 1 << input.int_in_range(0..=7)?,
                1 => answer[at] = input.arbitrary()?,
                2 => answer.truncate(at),
                3 => answer.extend_from_slice(input.arbitrary()?),
                4 => {
                    let bytes: [u8; 4] = input.arbitrary()?;
                    let end = (at + 4).min(answer.len());
                    answer[at..end].copy_from_slice(&bytes[..end - at]);
                }
                5 => answer.extend_from_within(..),
                _ => {
                    answer.remove(at);
                }
            }
        }
        self.received(conn, &answer, input)
    }

    fn nonsense(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let Some(conn) = self.pick(input, |socket| socket.phase == Phase::Open)? else {
            return Ok(());
        };
        let bytes: &[u8] = input.arbitrary()?;
        self.received(conn, bytes, input)
    }

    /// Bytes arrive, in pieces.
    fn received(&mut self, conn: ConnId, bytes: &[u8], input: &mut Unstructured<'_>) -> Result<()> {
        let piece = match input.int_in_range(0..=3)? {
            0 => input.int_in_range(1..=64)?,
            _ => usize::MAX,
        };
        for part in bytes.chunks(piece) {
            // The core may have ended it meanwhile.
            if self.sockets[&conn].phase != Phase::Open {
                break;
            }
            if conn.slot == Directory::SLOT {
                self.directory.received(self.now, conn, part);
            } else {
                self.dispatcher.received(self.now, conn, part);
            }
            self.dispatcher.invariants(self.now);
            self.act();
        }
        Ok(())
    }

    fn hang_up(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if let Some(conn) = self.pick(input, |socket| socket.phase == Phase::Open)? {
            let reason = if input.arbitrary()? {
                Some("reset")
            } else {
                None
            };
            self.closed(conn, reason);
        }
        Ok(())
    }

    fn closed(&mut self, conn: ConnId, reason: Option<&str>) {
        self.socket(conn).phase = Phase::Over;
        if conn.slot == Directory::SLOT {
            self.directory.closed(self.now, conn, reason);
        } else {
            self.dispatcher.closed(self.now, conn, reason);
        }
        self.dispatcher.invariants(self.now);
    }

    fn look_up(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let Some((host, port)) = self.lookups.pop() else {
            return Ok(());
        };
        let address = SocketAddr::from(([10, 0, 0, input.int_in_range(1..=3)?], 9092));
        let addresses = [address; 2];
        let result = match input.int_in_range(0..=3)? {
            0 => Err("no such name"),
            1 => Ok(&addresses[..0]),
            _ => Ok(&addresses[..1]),
        };
        self.directory.resolved(self.now, &host, port, result);
        Ok(())
    }

    /// All that is under way goes well, once.
    fn go_well(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let conns: Vec<ConnId> = self.sockets.keys().copied().collect();
        for conn in conns {
            if self.sockets[&conn].phase == Phase::Connecting {
                self.connected(conn);
                self.act();
            }
            let rest = |frame: &FrameOut| frame.taken < frame.bytes.len();
            if self.sockets[&conn].phase == Phase::Open
                && self.sockets[&conn].frame.as_ref().is_some_and(rest)
            {
                self.took(conn, usize::MAX);
            }
            if self.sockets[&conn].frame.is_some() {
                self.released(conn);
            }
            while Self::with_question(&self.sockets[&conn]) {
                let request = self.socket(conn).asked.pop_front().expect("just seen");
                let answer = self.broker.answer(&request, false, input)?;
                if conn.slot == Directory::SLOT {
                    self.directory.received(self.now, conn, &answer);
                } else {
                    self.dispatcher.received(self.now, conn, &answer);
                }
                self.dispatcher.invariants(self.now);
                self.act();
            }
        }
        self.turn();
        Ok(())
    }

    // ---- doing what the core says ---------------------------------------------------------------

    /// One turn of a shard and of the controller.
    fn turn(&mut self) {
        let now = self.now;
        for rounds in 0.. {
            assert!(rounds < 100, "it never stops acting");
            for lane in std::mem::take(&mut self.lanes.ready) {
                self.dispatcher
                    .lane_ready(now, LaneId(lane), &mut self.lanes);
            }
            self.dispatcher.step(now, &mut self.lanes);
            self.dispatcher.invariants(now);
            self.directory.step(now);
            if !self.act() {
                break;
            }
        }
        assert!(self.lanes.records.in_use() <= self.memory);
        assert!(self.cluster.topics.len() <= 1, "topics nobody wants");
    }

    /// Whether there was anything to do.
    fn act(&mut self) -> bool {
        let mut any = false;
        loop {
            let mut more = false;
            while let Some(action) = self.dispatcher.poll_action() {
                more = true;
                self.carry_out(action);
            }
            while let Some(task) = self.directory.poll_task() {
                more = true;
                self.perform(task);
            }
            self.take_settled();
            if !more {
                return any;
            }
            any = true;
        }
    }

    fn carry_out(&mut self, action: Action<Piece>) {
        match action {
            Action::Connect { conn, .. } => self.begin(conn),
            Action::Send { conn, frame } => {
                let bytes: Vec<u8> = frame.iter().flat_map(|p| p.bytes().to_vec()).collect();
                self.count_attempts(&bytes);
                self.hand_over(conn, frame, bytes);
            }
            Action::SendBytes { conn, frame } => self.hand_over(conn, Vec::new(), frame),
            Action::Close { conn } => self.end_socket(conn),
            Action::Refresh => self.directory.refresh(),
            Action::Identify => self.directory.identify(0),
            // There is one shard.
            Action::Hint { .. } => {}
        }
    }

    fn begin(&mut self, conn: ConnId) {
        let alive = |socket: &Socket| socket.phase != Phase::Over;
        let taken = self
            .sockets
            .iter()
            .any(|(c, s)| c.slot == conn.slot && alive(s));
        assert!(!taken, "two connections in slot {}", conn.slot);
        let socket = Socket {
            phase: Phase::Connecting,
            frame: None,
            asked: VecDeque::new(),
        };
        assert!(
            self.sockets.insert(conn, socket).is_none(),
            "{conn:?} was used"
        );
    }

    fn hand_over(&mut self, conn: ConnId, pieces: Vec<Piece>, bytes: Vec<u8>) {
        let claimed = i32::from_be_bytes(bytes[..4].try_into().expect("a length"));
        assert_eq!(usize::try_from(claimed), Ok(bytes.len() - 4));
        let pieces = if pieces.is_empty() {
            vec![Piece::uncharged(bytes.clone().into())]
        } else {
            pieces
        };
        let socket = self.socket(conn);
        assert!(socket.frame.is_none(), "two frames with the driver");
        assert_eq!(socket.phase, Phase::Open);
        socket.frame = Some(FrameOut {
            pieces,
            bytes,
            taken: 0,
        });
    }

    fn end_socket(&mut self, conn: ConnId) {
        if let Some(socket) = self.sockets.get_mut(&conn) {
            socket.phase = Phase::Over;
        }
    }

    /// Reads a Produce request and counts an attempt for each of its records.
    fn count_attempts(&mut self, frame: &[u8]) {
        let mut reader = Reader::new(&frame[4..]);
        let head = RequestHeader::read(&mut reader).expect("a header");
        assert_eq!(head.api_key, ApiKey::PRODUCE);
        assert!(head.version <= self.settings.produce_version_max);
        let view = produce::decode_request(head.version, reader.rest()).expect("a request");
        for partition in view.topics().flat_map(|topic| topic.partitions) {
            let batch = BatchView::parse(partition.records.expect("records")).expect("one batch");
            assert!(batch.crc_ok(), "a batch with a wrong checksum");
            for record in batch.records() {
                let value = record.expect("a record").value.expect("a value");
                let (lane, number) = numbering::read(value).expect("a stamp");
                let lane = u32::try_from(lane).expect("a lane");
                assert_eq!(
                    lane.cast_signed(),
                    partition.partition,
                    "a record of another lane"
                );
                let record = self.records.get_mut(&(lane, number)).expect("appended");
                assert!(record.1.is_none(), "sent after it had its outcome");
                record.0 += 1;
            }
        }
    }

    fn take_settled(&mut self) {
        while let Some(settled) = self.dispatcher.poll_settled() {
            assert_eq!(u64::from(settled.records), settled.ticket.count);
            for number in settled.ticket.numbers() {
                let record = self
                    .records
                    .get_mut(&(settled.lane.0, number))
                    .expect("appended");
                let attempts = record.0;
                match &settled.verdict {
                    Verdict::Acked { .. } => {
                        assert!(attempts > 0, "acked and never sent");
                        assert!(
                            self.settings.acks != Acks::None,
                            "acked without being asked"
                        );
                    }
                    Verdict::Sent => {
                        assert!(attempts > 0 && self.settings.acks == Acks::None);
                    }
                    Verdict::Unknown(failure) | Verdict::NotWritten(failure) => {
                        assert_eq!(failure.attempts, attempts);
                        assert!(!format!("{failure:#}").chars().any(char::is_control));
                    }
                }
                if matches!(settled.verdict, Verdict::Unknown(_)) {
                    assert!(attempts > 0, "never sent, so it is known");
                }
                let before = record.1.replace(settled.verdict.clone());
                assert!(
                    before.is_none(),
                    "two outcomes: {before:?}, {:?}",
                    settled.verdict
                );
            }
        }
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Resolve { host, port } => {
                self.lookups.push((host, port));
                if self.lookups.len() > 8 {
                    self.lookups.remove(0);
                }
            }
            Task::Connect { conn, .. } => self.begin(conn),
            Task::Send { conn, frame } => {
                // The controller's driver queues nothing either: a frame that is still there is let go.
                if self.socket(conn).frame.is_some() {
                    self.released(conn);
                }
                self.hand_over(conn, Vec::new(), frame);
            }
            Task::Close { conn } => self.end_socket(conn),
            Task::Publish(cluster) => self.publish(cluster),
            Task::Failed { topic, .. } => self.directory.want(self.now, &topic),
            Task::Identity { result, .. } => match result {
                Ok(identity) => self.dispatcher.identity(identity),
                Err(code) => self.dispatcher.identity_refused(code),
            },
            Task::ClusterChanged { .. } | Task::HostRefused { .. } => {}
        }
    }

    fn publish(&mut self, cluster: Arc<Cluster>) {
        if let Some(topic) = cluster.topics.get(TOPIC) {
            for number in self.lanes.lanes.len()..topic.partitions.len().min(8) {
                let number = u32::try_from(number).expect("few");
                let partition = number.cast_signed();
                let id = self.lanes.add(number, &TOPIC.into(), partition);
                self.dispatcher
                    .add_lane(id, &TOPIC.into(), PartitionId(partition));
            }
        }
        self.dispatcher.metadata(self.now, &cluster);
        self.cluster = cluster;
    }

    // ---- the end --------------------------------------------------------------------------------

    fn unsettled(&self) -> usize {
        self.records
            .values()
            .filter(|(_, verdict)| verdict.is_none())
            .count()
    }

    /// The network is dead, or takes everything and says nothing.
    fn end(mut self, dumb: bool) {
        self.lanes.busy = 0;
        self.lanes.no_slab = 0;
        self.turn();
        let end = self.last_append.max(self.now) + self.settings.delivery_timeout;
        for steps in 0.. {
            assert!(steps < 20_000, "it is busy for nothing");
            self.end_network(dumb);
            self.turn();
            if self.unsettled() == 0 {
                break;
            }
            let next = self
                .dispatcher
                .next_deadline()
                .min(self.directory.next_deadline());
            let next = if self.dispatcher.is_contended() {
                next.min(self.now + Duration::from_micros(50))
            } else {
                next
            };
            assert!(
                next <= end,
                "{} records have no outcome at {end:?}, the next thing happens at {next:?}: {:#?}",
                self.unsettled(),
                self.dispatcher
            );
            self.now = self.now.max(next);
        }
        self.dispatcher.abandon(self.now, &mut self.lanes);
        self.act();
        assert_eq!(self.unsettled(), 0);
        let holding: Vec<ConnId> = self
            .sockets
            .iter()
            .filter(|(_, socket)| socket.frame.is_some())
            .map(|(conn, _)| *conn)
            .collect();
        for conn in holding {
            self.released(conn);
        }
        assert_eq!(self.lanes.records.in_use(), 0, "memory of records is left");
        assert_eq!(self.lanes.slabs.in_use(), 0, "memory of requests is left");
    }

    fn end_network(&mut self, dumb: bool) {
        let conns: Vec<ConnId> = self.sockets.keys().copied().collect();
        for conn in conns {
            match (self.sockets[&conn].phase, dumb) {
                (Phase::Connecting, false) => self.connect_failed(conn),
                (Phase::Open, false) => self.closed(conn, Some("reset")),
                (Phase::Connecting, true) => {}
                (Phase::Open, true) => {
                    let rest = |frame: &FrameOut| frame.taken < frame.bytes.len();
                    if self.sockets[&conn].frame.as_ref().is_some_and(rest) {
                        self.took(conn, 1_000);
                    }
                }
                (Phase::Over, _) => {
                    if self.sockets[&conn].frame.is_some() {
                        self.released(conn);
                    }
                }
            }
        }
    }
}
