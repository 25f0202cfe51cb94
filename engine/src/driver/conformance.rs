//! The contract as tests: one suite, run against every driver.
//!
//! `ring` is the io_uring driver as it ships, `tiny_ring` the same code with queues of two and four
//! entries and two receive buffers, so that every overflow happens all the time. Where io_uring is
//! refused both fail: a run that did not test them must not look green.
//!
//! Peers are plain blocking sockets. Whatever a test does, [`Watch`] checks that each event is one
//! the contract allows at that moment. The pool's memory is poisoned on release, so a frame that
//! is let go while the kernel still reads it arrives at the peer as garbage.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ringpost_core::connection::ConnId;
use ringpost_memory::{Piece, Pool};

use super::{Driver, EpollDriver, Events, Frame, RingDriver, SocketOptions, Wait};

/// Makes the driver under test.
trait Make {
    type Driver: Driver;
    /// The test's module in this one.
    const NAME: &'static str;
    fn make() -> Self::Driver;
}

struct Ring;
struct TinyRing;
struct Epoll;

impl Make for Ring {
    type Driver = RingDriver;
    const NAME: &'static str = "ring";
    fn make() -> RingDriver {
        RingDriver::new().expect("the ring driver cannot be tested where io_uring is refused")
    }
}

impl Make for TinyRing {
    type Driver = RingDriver;
    const NAME: &'static str = "tiny_ring";
    fn make() -> RingDriver {
        RingDriver::tiny().expect("the ring driver cannot be tested where io_uring is refused")
    }
}

impl Make for Epoll {
    type Driver = EpollDriver;
    const NAME: &'static str = "epoll";
    fn make() -> EpollDriver {
        EpollDriver::new().expect("epoll")
    }
}

macro_rules! against_every_driver {
    ($($case:ident)*) => {
        mod ring {
            $(#[test] fn $case() { super::$case::<super::Ring>(); })*
        }
        mod tiny_ring {
            $(#[test] fn $case() { super::$case::<super::TinyRing>(); })*
        }
        mod epoll {
            $(#[test] fn $case() { super::$case::<super::Epoll>(); })*
        }
    };
}

against_every_driver! {
    connects_and_sees_the_peer_leave
    connects_over_ipv6
    a_refused_connect_fails_once
    n11_no_way_to_an_address_fails_the_connect
    z2_close_right_after_connect_is_silent
    z2_n11_close_while_the_peer_does_not_answer
    x4_no_descriptor_left_fails_the_connect
    z1_more_connections_than_queue_entries
    z1_n4_a_slow_reader_gets_every_byte
    z1_more_pieces_than_one_call_takes
    z1_n4_pieces_of_one_byte
    many_frames_one_after_the_other
    z4_receives_more_than_the_buffers_hold
    z4_receives_on_many_connections_at_once
    both_directions_at_once
    last_words_come_before_the_end
    n1_reset_in_the_middle_of_a_frame
    n2_orderly_end_in_the_middle_of_a_frame
    a_frame_for_a_connection_that_ended_comes_back
    z2_g6_close_with_a_frame_in_the_kernel
    z5_a_slot_serves_again_at_once
    z5_an_old_name_does_not_reach_the_new_connection
    z2_z5_connections_come_and_go
    z5_drop_brings_all_memory_back
    z5_a_panicking_callback_does_not_hang_the_drop
    a_wake_before_the_wait_ends_it
    wakes_are_never_lost
    z1_wakes_come_through_a_flood
    a_wait_ends_when_its_time_is_over
    no_wait_does_not_wait
    spinning_sees_everything
}

// The rig.

/// What was seen of a connection.
#[derive(Default)]
struct Seen {
    connected: bool,
    /// `close` was called.
    given_up: bool,
    failed: Option<io::Error>,
    closed: Option<Option<io::Error>>,
    /// Length of the frame with the driver.
    frame: Option<usize>,
    /// Bytes of that frame reported as sent.
    sent_of_frame: usize,
    sent: usize,
    released: usize,
    received: Vec<u8>,
}

impl Seen {
    fn is_open(&self) -> bool {
        self.connected && !self.is_over()
    }

    fn is_over(&self) -> bool {
        self.given_up || self.failed.is_some() || self.closed.is_some()
    }
}

/// Listens to a driver and checks that it keeps to the contract.
#[derive(Default)]
struct Watch {
    seen: HashMap<ConnId, Seen>,
    /// Panic at the next event of use to a test.
    panic_next: bool,
}

impl Watch {
    fn of(&mut self, conn: ConnId) -> &mut Seen {
        if self.panic_next {
            panic!("a callback's panic, as the test wants it");
        }
        self.seen
            .get_mut(&conn)
            .unwrap_or_else(|| panic!("an event of {conn:?}, which was never connected"))
    }
}

impl Events for Watch {
    fn connected(&mut self, conn: ConnId) {
        let seen = self.of(conn);
        assert!(!seen.connected && !seen.is_over(), "{conn:?} connected");
        seen.connected = true;
    }

    fn connect_failed(&mut self, conn: ConnId, error: io::Error) {
        let seen = self.of(conn);
        assert!(!seen.connected && !seen.is_over(), "{conn:?} failed");
        seen.failed = Some(error);
    }

    fn sent(&mut self, conn: ConnId, bytes: usize) {
        let seen = self.of(conn);
        assert!(seen.is_open() && bytes > 0, "{conn:?} sent {bytes}");
        seen.sent += bytes;
        seen.sent_of_frame += bytes;
        let len = seen.frame.expect("bytes of no frame were sent");
        assert!(seen.sent_of_frame <= len, "{conn:?} sent {bytes} too many");
    }

    fn released(&mut self, conn: ConnId, frame: Frame) {
        let seen = self.of(conn);
        let len: usize = frame.iter().map(Piece::len).sum();
        assert_eq!(seen.frame.take(), Some(len), "{conn:?} released");
        assert!(seen.sent_of_frame <= len);
        seen.sent_of_frame = 0;
        seen.released += 1;
    }

    fn received(&mut self, conn: ConnId, bytes: &[u8]) {
        let seen = self.of(conn);
        assert!(seen.is_open() && !bytes.is_empty(), "{conn:?} received");
        seen.received.extend_from_slice(bytes);
    }

    fn closed(&mut self, conn: ConnId, error: Option<io::Error>) {
        let seen = self.of(conn);
        assert!(seen.is_open(), "{conn:?} closed");
        seen.closed = Some(error);
    }
}

/// A driver, its watch, and memory to send from.
struct Rig<M: Make> {
    driver: M::Driver,
    watch: Watch,
    pool: Pool,
}

impl<M: Make> Rig<M> {
    fn new() -> Self {
        Self {
            driver: M::make(),
            watch: Watch::default(),
            pool: Pool::new(256 << 20, 1 << 20).expect("address space"),
        }
    }

    fn connect(&mut self, conn: ConnId, addr: SocketAddr, options: &SocketOptions) {
        let before = self.watch.seen.insert(conn, Seen::default());
        assert!(before.is_none(), "the test used {conn:?} twice");
        self.driver.connect(conn, addr, options);
    }

    /// Connects and returns the peer's end.
    fn open(&mut self, conn: ConnId, options: &SocketOptions) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        self.open_at(conn, &listener, options)
    }

    fn open_at(
        &mut self,
        conn: ConnId,
        listener: &TcpListener,
        options: &SocketOptions,
    ) -> TcpStream {
        self.connect(conn, address(listener), options);
        self.until(conn, |seen| seen.connected);
        listener.accept().expect("accept").0
    }

    /// Sends bytes of the pattern from position `at` on, cut into pieces of these lengths.
    fn send(&mut self, conn: ConnId, at: usize, pieces: &[usize]) {
        let frame = self.frame(at, pieces);
        let seen = self.watch.of(conn);
        assert!(seen.frame.is_none());
        seen.frame = Some(pieces.iter().sum());
        self.driver.send(conn, frame);
    }

    fn frame(&self, mut at: usize, pieces: &[usize]) -> Frame {
        let mut frame = Frame::new();
        let mut left = pieces;
        while !left.is_empty() {
            // As many pieces as fit a segment; what follows goes into another.
            let want = left[0].max(16 << 10);
            let mut segment = self.pool.try_take(want).expect("memory for the test");
            let mut ends = Vec::new();
            while let [len, rest @ ..] = left {
                if segment.spare_mut().len() < *len {
                    break;
                }
                for byte in &mut segment.spare_mut()[..*len] {
                    *byte = pattern(at);
                    at += 1;
                }
                segment.commit(*len);
                ends.push(segment.filled().len());
                left = rest;
            }
            let whole = Piece::from(segment.freeze());
            let mut start = 0;
            for end in ends {
                frame.push(whole.slice(start..end));
                start = end;
            }
        }
        frame
    }

    fn close(&mut self, conn: ConnId) {
        self.watch.of(conn).given_up = true;
        self.driver.close(conn);
    }

    fn turn(&mut self, wait: Wait) -> usize {
        self.driver.turn(wait, &mut self.watch).expect("turn")
    }

    /// Turns until the connection is as wanted.
    fn until(&mut self, conn: ConnId, mut done: impl FnMut(&Seen) -> bool) {
        while !done(self.watch.of(conn)) {
            self.turn(Wait::Forever);
        }
    }

    /// Ends the driver and checks that nothing is left with it.
    fn finish(self) -> Watch {
        let Self {
            driver,
            watch,
            pool,
        } = self;
        drop(driver);
        assert_eq!(pool.in_use(), 0, "the driver kept memory");
        watch
    }
}

fn conn(slot: u16, generation: u32) -> ConnId {
    ConnId { slot, generation }
}

const A: ConnId = ConnId {
    slot: 0,
    generation: 1,
};

fn usual() -> SocketOptions {
    SocketOptions {
        user_timeout: Duration::from_secs(30),
        keepalive: Duration::from_secs(60),
        send_buffer_bytes: 0,
        receive_buffer_bytes: 0,
    }
}

/// The least the kernel allows, so that frames go out in many parts.
fn small_buffers() -> SocketOptions {
    SocketOptions {
        send_buffer_bytes: 1,
        receive_buffer_bytes: 1,
        ..usual()
    }
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("address")
}

/// The byte at a position of an endless stream without short repetitions.
fn pattern(at: usize) -> u8 {
    let mixed = at ^ (at >> 8).wrapping_mul(31) ^ (at >> 16).wrapping_mul(7);
    u8::try_from(mixed % 251).expect("below 251")
}

fn patterned(len: usize) -> Vec<u8> {
    (0..len).map(pattern).collect()
}

/// Compares without printing megabytes.
fn assert_pattern(bytes: &[u8], from: usize) {
    let wrong = bytes
        .iter()
        .enumerate()
        .find(|(at, byte)| **byte != pattern(from + at));
    if let Some((at, byte)) = wrong {
        panic!(
            "byte {} is {byte}, {} was sent",
            from + at,
            pattern(from + at)
        );
    }
}

/// Reads `len` bytes of the pattern in chunks of changing size.
fn read_pattern(stream: &mut TcpStream, len: usize) {
    let mut buffer = vec![0; 5_000];
    let mut at = 0;
    let mut random = Random(7);
    while at < len {
        let chunk = (1 + random.below(buffer.len())).min(len - at);
        let read = stream.read(&mut buffer[..chunk]).expect("read");
        assert!(read > 0, "the stream ended at {at} of {len}");
        assert_pattern(&buffer[..read], at);
        at += read;
    }
}

/// Small numbers without rhyme or reason, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let bound = u64::try_from(bound).expect("64 bits");
        usize::try_from((self.0 >> 33) % bound).expect("below a usize")
    }
}

/// Lets the socket's end be a reset.
fn reset(stream: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let len = libc::socklen_t::try_from(size_of::<libc::linger>()).expect("small");
    // SAFETY: the pointer is to a live local of the size told.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            std::ptr::from_ref(&linger).cast(),
            len,
        )
    };
    assert_eq!(result, 0, "SO_LINGER");
    drop(stream);
}

// Connecting.

fn connects_and_sees_the_peer_leave<M: Make>() {
    let mut rig = Rig::<M>::new();
    let peer = rig.open(A, &usual());
    drop(peer);
    rig.until(A, |seen| seen.closed.is_some());
    assert!(matches!(rig.watch.of(A).closed, Some(None)));
    rig.close(A); // known no more, and no harm
    rig.finish();
}

fn connects_over_ipv6<M: Make>() {
    let mut rig = Rig::<M>::new();
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        // A host without IPv6: that must come out as a failed connect.
        let nowhere = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 9));
        rig.connect(A, nowhere, &usual());
        rig.until(A, |seen| seen.failed.is_some());
        rig.finish();
        return;
    };
    let mut peer = rig.open_at(A, &listener, &usual());
    rig.send(A, 0, &[100]);
    rig.until(A, |seen| seen.released == 1);
    read_pattern(&mut peer, 100);
    rig.finish();
}

fn a_refused_connect_fails_once<M: Make>() {
    let mut rig = Rig::<M>::new();
    // No port that is ever given out by itself.
    let nobody = "127.0.0.1:1".parse().expect("an address");
    rig.connect(A, nobody, &usual());
    rig.until(A, |seen| seen.failed.is_some());
    let error = rig.watch.of(A).failed.take().expect("just seen");
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    rig.watch.of(A).failed = Some(error);
    // The slot is free.
    let peer = rig.open(conn(0, 2), &usual());
    drop(peer);
    rig.until(conn(0, 2), |seen| seen.closed.is_some());
    rig.finish();
}

/// The kernel's own error, once, and the slot serves again: for addresses TCP has no way to, of both
/// families, with nothing sent.
fn n11_no_way_to_an_address_fails_the_connect<M: Make>() {
    let mut rig = Rig::<M>::new();
    for (generation, address) in (1..).zip(["224.0.0.1:9", "255.255.255.255:9", "[ff02::1]:9"]) {
        let conn = conn(0, generation);
        rig.connect(conn, address.parse().expect("an address"), &usual());
        rig.until(conn, |seen| seen.failed.is_some());
        let error = rig
            .watch
            .of(conn)
            .failed
            .as_ref()
            .and_then(io::Error::raw_os_error);
        assert!(
            // The last is of hosts without IPv6.
            matches!(
                error,
                Some(libc::ENETUNREACH | libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)
            ),
            "{address}: {error:?}"
        );
        rig.close(conn);
    }
    let peer = rig.open(conn(0, 9), &usual());
    drop(peer);
    rig.until(conn(0, 9), |seen| seen.closed.is_some());
    rig.finish();
}

/// Closes that race their connects: no event of any of them, and nothing left with the driver.
fn z2_close_right_after_connect_is_silent<M: Make>() {
    let mut rig = Rig::<M>::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    for generation in 1..50 {
        rig.connect(conn(0, generation), address(&listener), &usual());
        if generation % 3 == 0 {
            rig.turn(Wait::No);
        }
        rig.close(conn(0, generation));
    }
    // Something to wait for, so that whatever is left of the others comes by.
    let peer = rig.open(conn(1, 1), &usual());
    drop(peer);
    rig.until(conn(1, 1), |seen| seen.closed.is_some());
    rig.finish();
}

/// With the peer's accept queue full: closed connects are silent, and their slots serve again at
/// once.
fn z2_n11_close_while_the_peer_does_not_answer<M: Make>() {
    let mut rig = Rig::<M>::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    // SAFETY: listen(2) takes no pointers. A second call changes the length of the queue.
    let result = unsafe { libc::listen(listener.as_raw_fd(), 0) };
    assert_eq!(result, 0, "listen");
    // One connection fills the queue, the kernel drops what the others say.
    for slot in 0..4 {
        rig.connect(conn(slot, 1), address(&listener), &usual());
    }
    for _ in 0..10 {
        rig.turn(Wait::No);
    }
    let waiting = (0..4)
        .filter(|slot| !rig.watch.of(conn(*slot, 1)).connected)
        .count();
    assert!(waiting > 0, "the listener took everybody");
    for slot in 1..4 {
        rig.close(conn(slot, 1));
    }
    // The slots are free at once, also those the kernel still connects.
    for slot in 1..4 {
        let peer = rig.open(conn(slot, 2), &usual());
        drop(peer);
        rig.until(conn(slot, 2), |seen| seen.closed.is_some());
    }
    rig.finish();
}

/// Runs in a child process: the limit is the whole process's.
fn x4_no_descriptor_left_fails_the_connect<M: Make>() {
    const CHILD: &str = "RINGPOST_TEST_NO_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let (_, module) = module_path!().split_once("::").expect("a module");
        let test = format!(
            "{module}::{}::x4_no_descriptor_left_fails_the_connect",
            M::NAME
        );
        let output = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", &test])
            .env(CHILD, "1")
            .output()
            .expect("run this test again");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let mut rig = Rig::<M>::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    rig.turn(Wait::No);
    let usual_limit = descriptor_limit(None);
    descriptor_limit(Some(0));
    rig.connect(A, address(&listener), &usual());
    rig.connect(conn(1, 1), address(&listener), &usual());
    rig.close(conn(1, 1)); // before its failure was reported
    let reported = rig.turn(Wait::Forever);
    assert_eq!(reported, 1);
    let error = rig.watch.of(A).failed.as_ref().expect("a failure");
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    descriptor_limit(Some(usual_limit));
    drop(rig.open_at(conn(0, 2), &listener, &usual()));
    rig.until(conn(0, 2), |seen| seen.closed.is_some());
    rig.finish();
}

/// The process's limit of open files, after setting it if told.
fn descriptor_limit(new: Option<libc::rlim_t>) -> libc::rlim_t {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live local.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(result, 0, "getrlimit");
    if let Some(new) = new {
        limit.rlim_cur = new;
        // SAFETY: the pointer is to a live local.
        let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        assert_eq!(result, 0, "setrlimit");
    }
    limit.rlim_cur
}

/// 300 connections through queues of two and four entries: every connect, send and receive is
/// reported, every byte arrives.
fn z1_more_connections_than_queue_entries<M: Make>() {
    const COUNT: u16 = 300;
    let mut rig = Rig::<M>::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let (done, finished) = mpsc::channel::<()>();
    let accepting = thread::spawn({
        let listener = listener.try_clone().expect("clone");
        move || {
            let peers: Vec<_> = (0..COUNT)
                .map(|_| listener.accept().expect("accept").0)
                .collect();
            for mut peer in &peers {
                peer.write_all(&patterned(10)).expect("write");
            }
            for mut peer in peers.iter().map(|peer| peer.try_clone().expect("clone")) {
                read_pattern(&mut peer, 20);
            }
            let _ = finished.recv();
        }
    });
    for slot in 0..COUNT {
        rig.connect(conn(slot, 7), address(&listener), &usual());
    }
    for slot in 0..COUNT {
        rig.until(conn(slot, 7), |seen| seen.connected);
    }
    for slot in 0..COUNT {
        rig.send(conn(slot, 7), 0, &[15, 5]);
    }
    assert!(rig.driver.frames_in_kernel() <= usize::from(COUNT));
    for slot in 0..COUNT {
        rig.until(conn(slot, 7), |seen| {
            seen.released == 1 && seen.received.len() == 10
        });
        assert_pattern(&rig.watch.of(conn(slot, 7)).received, 0);
    }
    assert_eq!(rig.driver.frames_in_kernel(), 0);
    drop(done);
    for slot in 0..COUNT {
        rig.until(conn(slot, 7), |seen| matches!(seen.closed, Some(None)));
    }
    accepting.join().expect("the peers");
    rig.finish();
}

// Sending.

/// Many short sends: the peer gets every byte in order, and the count of bytes sent is exact.
fn z1_n4_a_slow_reader_gets_every_byte<M: Make>() {
    let mut rig = Rig::<M>::new();
    let mut peer = rig.open(A, &small_buffers());
    let shapes: [&[usize]; 6] = [
        &[1],
        &[30_000],
        &[1, 65_536, 1, 65_536, 1],
        &[4_095, 1, 4_096, 1, 4_097],
        &[1_000; 200],
        &[333_333, 3, 33_333],
    ];
    let total: usize = shapes.iter().flat_map(|pieces| pieces.iter()).sum();
    let reading = thread::spawn(move || {
        read_pattern(&mut peer, total);
        peer
    });
    let mut at = 0;
    for (count, pieces) in shapes.iter().enumerate() {
        rig.send(A, at, pieces);
        at += pieces.iter().sum::<usize>();
        rig.until(A, |seen| seen.released == count + 1);
        assert_eq!(rig.watch.of(A).sent, at);
    }
    let counters = rig.driver.counters();
    assert!(
        counters.sends > 2 * shapes.len() as u64,
        "sends were not partial: {counters:?}"
    );
    assert_eq!(counters.bytes_sent, at as u64);
    drop(reading.join().expect("the reader"));
    rig.finish();
}

/// Frames of 1023 to 5000 pieces arrive whole: more than one call's vectors.
fn z1_more_pieces_than_one_call_takes<M: Make>() {
    for count in [1_023, 1_024, 1_025, 2_048, 5_000] {
        let mut rig = Rig::<M>::new();
        let mut peer = rig.open(A, &usual());
        let reading = thread::spawn(move || read_pattern(&mut peer, 10 * count));
        rig.send(A, 0, &vec![10; count]);
        rig.until(A, |seen| seen.released == 1);
        assert_eq!(rig.watch.of(A).sent, 10 * count);
        reading.join().expect("the reader");
        rig.finish();
    }
}

/// 20,000 pieces of a byte arrive in order through a tiny send buffer.
fn z1_n4_pieces_of_one_byte<M: Make>() {
    let mut rig = Rig::<M>::new();
    let mut peer = rig.open(A, &small_buffers());
    let reading = thread::spawn(move || read_pattern(&mut peer, 20_000));
    rig.send(A, 0, &[1; 20_000]);
    rig.until(A, |seen| seen.released == 1);
    reading.join().expect("the reader");
    rig.finish();
}

fn many_frames_one_after_the_other<M: Make>() {
    const FRAMES: usize = 2_000;
    let mut random = Random(3);
    let lengths: Vec<usize> = (0..FRAMES).map(|_| 1 + random.below(3_000)).collect();
    let total = lengths.iter().sum();
    let mut rig = Rig::<M>::new();
    let mut peer = rig.open(A, &usual());
    let reading = thread::spawn(move || read_pattern(&mut peer, total));
    let mut at = 0;
    for (count, len) in lengths.iter().enumerate() {
        let first = 1 + random.below(*len);
        if first == *len {
            rig.send(A, at, &[*len]);
        } else {
            rig.send(A, at, &[first, len - first]);
        }
        at += len;
        rig.until(A, |seen| seen.released == count + 1);
    }
    assert_eq!(rig.watch.of(A).sent, total);
    reading.join().expect("the reader");
    rig.finish();
}

// Receiving.

/// 8 MiB through a few receive buffers: no byte lost or repeated, and then the end.
fn z4_receives_more_than_the_buffers_hold<M: Make>() {
    const LEN: usize = 8 << 20;
    let mut rig = Rig::<M>::new();
    let mut peer = rig.open(A, &usual());
    let writing = thread::spawn(move || peer.write_all(&patterned(LEN)).expect("write"));
    rig.until(A, |seen| matches!(seen.closed, Some(None)));
    let received = &rig.watch.of(A).received;
    assert_eq!(received.len(), LEN);
    assert_pattern(received, 0);
    writing.join().expect("the writer");
    let counters = rig.driver.counters();
    assert_eq!(counters.bytes_received, LEN as u64);
    rig.finish();
}

/// Twenty connections and two receive buffers: ENOBUFS is seen, every byte arrives in order.
fn z4_receives_on_many_connections_at_once<M: Make>() {
    const LEN: usize = 300_000;
    const COUNT: u16 = 20;
    let mut rig = Rig::<M>::new();
    let mut peers: Vec<TcpStream> = (0..COUNT)
        .map(|slot| rig.open(conn(slot, 1), &usual()))
        .collect();
    // Fill what the sockets take before the driver looks: all have bytes at the same time.
    let bytes = patterned(LEN);
    let written: Vec<usize> = peers
        .iter_mut()
        .map(|peer| {
            peer.set_nonblocking(true).expect("non-blocking");
            let written = peer.write(&bytes).expect("write");
            peer.set_nonblocking(false).expect("blocking");
            written
        })
        .collect();
    let writing = thread::spawn(move || {
        for (peer, written) in peers.iter_mut().zip(written) {
            peer.write_all(&bytes[written..]).expect("write");
        }
    });
    for slot in 0..COUNT {
        rig.until(conn(slot, 1), |seen| matches!(seen.closed, Some(None)));
        let received = &rig.watch.of(conn(slot, 1)).received;
        assert_eq!(received.len(), LEN);
        assert_pattern(received, 0);
    }
    let counters = rig.driver.counters();
    if M::NAME == TinyRing::NAME {
        // Two buffers for twenty connections.
        assert!(counters.receive_buffers_exhausted > 0, "{counters:?}");
    }
    writing.join().expect("the writer");
    rig.finish();
}

fn both_directions_at_once<M: Make>() {
    const LEN: usize = 1 << 20;
    let mut rig = Rig::<M>::new();
    let mut peer = rig.open(A, &small_buffers());
    let mut writer = peer.try_clone().expect("clone");
    let writing = thread::spawn(move || writer.write_all(&patterned(LEN)).expect("write"));
    let reading = thread::spawn(move || {
        read_pattern(&mut peer, LEN);
        peer
    });
    rig.send(A, 0, &[LEN / 16; 16]);
    rig.until(A, |seen| seen.released == 1 && seen.received.len() == LEN);
    assert_pattern(&rig.watch.of(A).received, 0);
    writing.join().expect("the writer");
    drop(reading.join().expect("the reader"));
    rig.finish();
}

// The end of a connection.

fn last_words_come_before_the_end<M: Make>() {
    let mut rig = Rig::<M>::new();
    let mut peer = rig.open(A, &usual());
    peer.write_all(&patterned(10_000)).expect("write");
    peer.shutdown(Shutdown::Write).expect("shutdown");
    rig.until(A, |seen| seen.closed.is_some());
    assert!(matches!(rig.watch.of(A).closed, Some(None)));
    assert_eq!(rig.watch.of(A).received, patterned(10_000));
    // The driver has ended its half by itself.
    assert_eq!(peer.read(&mut [0; 1]).expect("read"), 0);
    rig.finish();
}

/// A reset after 0 to 100,000 bytes: closed with its error, the frame comes back once, none is left
/// in the kernel.
fn n1_reset_in_the_middle_of_a_frame<M: Make>() {
    for read in [0, 1, 1_000, 100_000] {
        let mut rig = Rig::<M>::new();
        let mut peer = rig.open(A, &small_buffers());
        rig.send(A, 0, &[100_000; 20]);
        let reading = thread::spawn(move || {
            read_pattern(&mut peer, read);
            reset(peer);
        });
        rig.until(A, |seen| seen.closed.is_some());
        reading.join().expect("the reader");
        let error = match &rig.watch.of(A).closed {
            Some(Some(error)) => error.raw_os_error(),
            other => panic!("{other:?}"),
        };
        assert!(
            matches!(error, Some(libc::ECONNRESET | libc::EPIPE)),
            "{error:?}"
        );
        rig.until(A, |seen| seen.released == 1);
        assert_eq!(rig.driver.frames_in_kernel(), 0);
        rig.finish();
    }
}

/// The peer's half ends while we send: closed without an error, the frame comes back once.
fn n2_orderly_end_in_the_middle_of_a_frame<M: Make>() {
    let mut rig = Rig::<M>::new();
    let mut peer = rig.open(A, &small_buffers());
    rig.send(A, 0, &[100_000; 20]);
    read_some(&mut rig, &mut peer);
    peer.shutdown(Shutdown::Write).expect("shutdown");
    rig.until(A, |seen| seen.closed.is_some() && seen.released == 1);
    assert!(matches!(rig.watch.of(A).closed, Some(None)));
    assert_eq!(rig.driver.frames_in_kernel(), 0);
    rig.finish();
}

/// Makes sure that the frame is on its way: some of it has arrived.
fn read_some<M: Make>(rig: &mut Rig<M>, peer: &mut TcpStream) {
    rig.turn(Wait::No);
    let mut buffer = [0; 1];
    peer.read_exact(&mut buffer).expect("read");
    assert_pattern(&buffer, 0);
    rig.turn(Wait::No);
    assert_eq!(rig.driver.frames_in_kernel(), 1);
}

fn a_frame_for_a_connection_that_ended_comes_back<M: Make>() {
    let mut rig = Rig::<M>::new();
    let peer = rig.open(A, &usual());
    drop(peer);
    rig.until(A, |seen| seen.closed.is_some());
    rig.send(A, 0, &[10]);
    rig.until(A, |seen| seen.released == 1);
    rig.finish();
}

/// The frame's memory stays until the kernel's completion; the peer reads the pattern and no
/// poison.
fn z2_g6_close_with_a_frame_in_the_kernel<M: Make>() {
    let mut rig = Rig::<M>::new();
    let mut peer = rig.open(A, &small_buffers());
    rig.send(A, 0, &[100_000; 20]);
    read_some(&mut rig, &mut peer);
    rig.close(A);
    rig.close(A); // and again
    // The ring's kernel has its hands on the frame until it says otherwise.
    let kept = usize::from(M::NAME != Epoll::NAME);
    assert_eq!(rig.driver.frames_in_kernel(), kept);
    rig.until(A, |seen| seen.released == 1);
    assert_eq!(rig.driver.frames_in_kernel(), 0);
    assert_eq!(rig.pool.in_use(), 0);
    // The peer gets a part of the pattern and nothing else.
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).expect("read");
    assert_pattern(&rest, 1);
    rig.finish();
}

/// The next connection in a slot gets its bytes and none of the last one's, whose frame is still
/// with the kernel.
fn z5_a_slot_serves_again_at_once<M: Make>() {
    let mut rig = Rig::<M>::new();
    let mut old = rig.open(A, &small_buffers());
    rig.send(A, 0, &[100_000; 20]);
    read_some(&mut rig, &mut old);
    old.write_all(b"too late").expect("write");
    rig.close(A);
    let next = conn(A.slot, A.generation + 1);
    let mut peer = rig.open(next, &usual());
    rig.send(next, 0, &[500, 500]);
    rig.until(next, |seen| seen.released == 1);
    read_pattern(&mut peer, 1_000);
    peer.write_all(&patterned(1_000)).expect("write");
    rig.until(next, |seen| seen.received.len() == 1_000);
    assert_pattern(&rig.watch.of(next).received, 0);
    rig.until(A, |seen| seen.released == 1);
    drop(old);
    rig.finish();
}

/// Frames and closes for the old generation come back and do nothing to the new one.
fn z5_an_old_name_does_not_reach_the_new_connection<M: Make>() {
    let mut rig = Rig::<M>::new();
    let gone = rig.open(A, &usual());
    drop(gone);
    rig.until(A, |seen| seen.closed.is_some());
    let next = conn(A.slot, A.generation + 1);
    let mut peer = rig.open(next, &usual());
    rig.send(A, 0, &[10]);
    rig.until(A, |seen| seen.released == 1);
    rig.close(A);
    rig.send(next, 0, &[20]);
    rig.until(next, |seen| seen.released == 1);
    read_pattern(&mut peer, 20);
    peer.shutdown(Shutdown::Write).expect("shutdown");
    rig.until(next, |seen| matches!(seen.closed, Some(None)));
    // What the old name was given went nowhere.
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).expect("read");
    assert!(rest.is_empty());
    rig.finish();
}

/// Connections of a few slots, closed at every stage of their life, so that descriptor numbers and
/// places are used again while the kernel still holds operations of their earlier users.
fn z2_z5_connections_come_and_go<M: Make>() {
    const SLOTS: usize = 4;
    let mut random = Random(11);
    let mut rig = Rig::<M>::new();
    let mut generations = [0_u32; SLOTS];
    for _ in 0..400 {
        let slot = random.below(SLOTS);
        generations[slot] += 1;
        let conn = conn(u16::try_from(slot).expect("small"), generations[slot]);
        let stage = random.below(6);
        if stage < 2 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
            rig.connect(conn, address(&listener), &small_buffers());
            if stage == 1 {
                rig.turn(Wait::No);
            }
            rig.close(conn);
            continue;
        }
        let mut peer = rig.open(conn, &small_buffers());
        peer.write_all(&patterned(100)).expect("write");
        if stage > 2 {
            rig.send(conn, 0, &[50_000; 4]);
        }
        if stage > 3 {
            rig.turn(Wait::No);
        }
        match random.below(3) {
            0 => reset(peer),
            1 => drop(peer),
            _ => rig.until(conn, |seen| seen.received.len() == 100),
        }
        if random.below(4) > 0 {
            rig.turn(Wait::No);
        }
        rig.close(conn);
    }
    rig.finish();
}

/// Dropped with connects, sends and closes in flight: no segment is out afterwards.
fn z5_drop_brings_all_memory_back<M: Make>() {
    let mut rig = Rig::<M>::new();
    let idle = rig.open(conn(0, 1), &usual());
    let mut stuck = rig.open(conn(1, 1), &small_buffers());
    rig.send(conn(1, 1), 0, &[100_000; 20]);
    read_some(&mut rig, &mut stuck);
    let fresh = rig.open(conn(2, 1), &small_buffers());
    // Never submitted.
    rig.send(conn(2, 1), 0, &[100_000; 20]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    rig.connect(conn(3, 1), address(&listener), &usual());
    let closing = rig.open(conn(4, 1), &small_buffers());
    rig.send(conn(4, 1), 0, &[100_000; 20]);
    rig.turn(Wait::No);
    rig.close(conn(4, 1));
    assert!(rig.pool.in_use() > 0);
    rig.finish();
    drop((idle, stuck, fresh, closing));
}

/// The drop after a panic ends, and no segment is out.
fn z5_a_panicking_callback_does_not_hang_the_drop<M: Make>() {
    let mut rig = Rig::<M>::new();
    let mut peers: Vec<TcpStream> = (0..8)
        .map(|slot| rig.open(conn(slot, 1), &small_buffers()))
        .collect();
    for (slot, peer) in (0..8).zip(&mut peers) {
        peer.write_all(&patterned(10_000)).expect("write");
        rig.send(conn(slot, 1), 0, &[100_000; 4]);
    }
    rig.watch.panic_next = true;
    let Rig {
        mut driver,
        mut watch,
        pool,
    } = rig;
    let result = panic::catch_unwind(AssertUnwindSafe(move || {
        loop {
            driver.turn(Wait::Forever, &mut watch).expect("turn");
        }
    }));
    assert!(result.is_err());
    assert_eq!(pool.in_use(), 0, "the driver kept memory");
}

// Waiting.

fn a_wake_before_the_wait_ends_it<M: Make>() {
    let mut rig = Rig::<M>::new();
    let waker = rig.driver.waker();
    waker.wake();
    assert_eq!(rig.turn(Wait::Forever), 0);
    // Also after it has waited before, and from a clone.
    waker.clone().wake();
    waker.wake();
    assert_eq!(rig.turn(Wait::Forever), 0);
    rig.finish();
}

fn wakes_are_never_lost<M: Make>() {
    let mut rig = Rig::<M>::new();
    // Connections that have nothing to say must not be in the way.
    let _peer = rig.open(A, &usual());
    while rig.turn(Wait::No) > 0 {}
    let waker = rig.driver.waker();
    let (go, started) = mpsc::channel();
    let waking = thread::spawn(move || {
        // Each wake meets the driver on its way into the wait, in it, or already out of it.
        while started.recv().is_ok() {
            waker.wake();
        }
    });
    for _ in 0..5_000 {
        go.send(()).expect("the waking thread");
        rig.turn(Wait::Forever);
    }
    drop(go);
    waking.join().expect("the waking thread");
    rig.finish();
}

/// With more completions than the queue holds the kernel ends the poll on the waker: every byte and
/// every wake comes through all the same.
fn z1_wakes_come_through_a_flood<M: Make>() {
    const COUNT: u16 = 12;
    let mut rig = Rig::<M>::new();
    let mut peers: Vec<TcpStream> = (0..COUNT)
        .map(|slot| rig.open(conn(slot, 1), &usual()))
        .collect();
    let waker = rig.driver.waker();
    for round in 1..=100 {
        for peer in &mut peers {
            peer.write_all(b"x").expect("write");
        }
        waker.wake();
        for slot in 0..COUNT {
            rig.until(conn(slot, 1), |seen| seen.received.len() == round);
        }
        while rig.turn(Wait::No) > 0 {}
        waker.wake();
        rig.turn(Wait::Forever);
    }
    rig.finish();
}

fn a_wait_ends_when_its_time_is_over<M: Make>() {
    let mut rig = Rig::<M>::new();
    let _peer = rig.open(A, &usual());
    for micros in [0, 1, 50, 1_500] {
        // Before the first time is over something may be left of the connect.
        rig.turn(Wait::For(Duration::from_micros(micros)));
    }
    assert_eq!(rig.turn(Wait::For(Duration::from_micros(100))), 0);
    rig.finish();
}

fn no_wait_does_not_wait<M: Make>() {
    let mut rig = Rig::<M>::new();
    let mut peer = rig.open(A, &usual());
    while rig.turn(Wait::No) > 0 {}
    let before = rig.driver.counters().kernel_entries;
    for _ in 0..1_000 {
        assert_eq!(rig.turn(Wait::No), 0);
    }
    let entries = rig.driver.counters().kernel_entries - before;
    // The ring shows in memory that there is nothing to enter for: spinning costs no calls.
    assert!(M::NAME == Epoll::NAME || entries == 0, "{entries} entries");
    // And it sees what comes all the same.
    peer.write_all(b"x").expect("write");
    while rig.watch.of(A).received.is_empty() {
        rig.turn(Wait::No);
    }
    rig.finish();
}

fn spinning_sees_everything<M: Make>() {
    const COUNT: u16 = 12;
    let mut rig = Rig::<M>::new();
    let mut peers: Vec<TcpStream> = (0..COUNT)
        .map(|slot| rig.open(conn(slot, 1), &usual()))
        .collect();
    for round in 1..=100 {
        for (slot, peer) in (0..COUNT).zip(&mut peers) {
            rig.send(conn(slot, 1), 0, &[10]);
            peer.write_all(b"x").expect("write");
        }
        for slot in 0..COUNT {
            let conn = conn(slot, 1);
            while rig.watch.of(conn).released < round || rig.watch.of(conn).received.len() < round {
                rig.turn(Wait::No);
            }
        }
    }
    rig.finish();
}
