//! The driver on epoll: for kernels and containers that refuse io_uring.
//!
//! Sockets do not block and are watched edge-triggered, for both directions, from connect to close:
//! one `epoll_ctl` a connection, and no changes of interest when a send buffer fills up or empties.
//! The price is to remember for each connection whether it may be read or written, and to go on
//! until the kernel says "again".
//!
//! A frame is offered to the kernel inside [`Driver::send`]; what it does not take goes when the
//! socket can be written. The kernel copies, so a frame is done with its last byte. What happened
//! is reported by the next turn all the same: the contract allows events there only.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use ringpost_core::connection::ConnId;

use super::outgoing::{Outgoing, Progress};
use super::socket::{self, Blocking, RawAddress};
use super::{Driver, DriverCounters, Events, Frame, SocketOptions, Wait, Waker};

/// Where all connections receive.
const RECEIVE_BYTES: usize = 64 * 1024;
/// How often one connection is read in a turn before the others have theirs.
const RECEIVES_PER_TURN: usize = 4;
/// How many sockets a turn hears about; the kernel deals the others out in the next.
const EVENTS_PER_TURN: usize = 256;

/// What the kernel hands back for the waker. No connection has it: a slot is 16 bits.
const WAKE: u64 = u64::MAX;

/// The epoll driver. See the module's doc.
pub(crate) struct EpollDriver {
    epoll: OwnedFd,
    waker: Waker,
    /// By slot.
    connections: Vec<Option<Connection>>,
    /// Connections that did something outside of a turn, to be reported by the next; stale ones are
    /// skipped.
    touched: VecDeque<ConnId>,
    /// Connections with more to read than one turn's share; stale ones are skipped.
    readable: VecDeque<ConnId>,
    /// Events without a connection any more.
    pending: VecDeque<Pending>,
    received: Box<[u8]>,
    iovecs: Vec<libc::iovec>,
    ready: Vec<libc::epoll_event>,
    /// `epoll_pwait2` takes nanoseconds and came with Linux 5.11.
    precise_wait: bool,
    frames: usize,
    counters: DriverCounters,
}

struct Connection {
    id: ConnId,
    socket: OwnedFd,
    phase: Phase,
    outgoing: Option<Outgoing>,
    /// Bytes the kernel took since the last report.
    sent: usize,
    /// The frame the kernel is done with since the last report.
    finished: Option<Frame>,
    send_error: Option<io::Error>,
    /// In `touched`.
    touched: bool,
    /// In `readable`.
    readable: bool,
    /// The peer's end is near: read until the socket says so.
    hung_up: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
}

enum Pending {
    Connected(ConnId),
    ConnectFailed(ConnId, io::Error),
    Released(ConnId, Frame),
}

impl Pending {
    fn is_of(&self, conn: ConnId) -> bool {
        match self {
            Self::Connected(id) | Self::ConnectFailed(id, _) | Self::Released(id, _) => *id == conn,
        }
    }
}

impl EpollDriver {
    /// Makes the epoll instance and its waker.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1(2) takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let waker = Waker::new()?;
        watch(&epoll, waker.fd(), libc::EPOLLIN, WAKE)?;
        Ok(Self {
            epoll,
            waker,
            connections: Vec::new(),
            touched: VecDeque::new(),
            readable: VecDeque::new(),
            pending: VecDeque::new(),
            received: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            iovecs: Vec::new(),
            ready: Vec::with_capacity(EVENTS_PER_TURN),
            precise_wait: true,
            frames: 0,
            counters: DriverCounters::default(),
        })
    }

    fn try_connect(
        &mut self,
        conn: ConnId,
        addr: SocketAddr,
        options: &SocketOptions,
    ) -> io::Result<()> {
        let slot = usize::from(conn.slot);
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        assert!(self.connections[slot].is_none(), "slot {slot} is in use");

        let socket = socket::open(&addr, options, Blocking::No)?;
        let address = RawAddress::new(&addr);
        let (raw, len) = address.as_raw();
        // SAFETY: `address` is a live local and `len` its size.
        let result = unsafe { libc::connect(socket.as_raw_fd(), raw, len) };
        let mut phase = Phase::Open;
        if result < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // A signal does not end a connect: it goes on like one in progress.
                Some(libc::EINPROGRESS | libc::EINTR) => phase = Phase::Connecting,
                _ => return Err(error),
            }
        }
        let interest = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP;
        watch(&self.epoll, socket.as_raw_fd(), interest, name(conn))?;
        if phase == Phase::Open {
            self.pending.push_back(Pending::Connected(conn));
        }
        self.connections[slot] = Some(Connection {
            id: conn,
            socket,
            phase,
            outgoing: None,
            sent: 0,
            finished: None,
            send_error: None,
            touched: false,
            readable: false,
            hung_up: false,
        });
        Ok(())
    }

    /// Gives the kernel what it takes of the connection's frame.
    fn push(&mut self, conn: ConnId) {
        let Some(connection) = find(&mut self.connections, conn) else {
            return;
        };
        while let Some(outgoing) = &mut connection.outgoing {
            outgoing.describe(&mut self.iovecs);
            self.counters.kernel_entries += 1;
            self.counters.sends += 1;
            match send_pieces(connection.socket.as_raw_fd(), &mut self.iovecs) {
                Ok(bytes) if bytes > 0 => {
                    self.counters.bytes_sent += bytes as u64;
                    connection.sent += bytes;
                    if outgoing.advance(bytes) == Progress::Left {
                        continue;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The rest goes when the socket can be written: its edge has not been seen yet.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                failed => {
                    // What the peer said before it left is still to be received. The shutdown makes
                    // that come to an end, which ends the connection.
                    let error = failed.err();
                    connection.send_error = connection
                        .send_error
                        .take()
                        .or(error)
                        .or_else(|| Some(io::ErrorKind::WriteZero.into()));
                    socket::shut_down(connection.socket.as_fd());
                }
            }
            connection.finished = connection.outgoing.take().map(Outgoing::into_frame);
            self.frames -= 1;
        }
        if (connection.sent > 0 || connection.finished.is_some()) && !connection.touched {
            connection.touched = true;
            self.touched.push_back(conn);
        }
    }

    /// Takes a connection out; its frame is released by a turn.
    fn remove(&mut self, conn: ConnId) -> Option<Connection> {
        find(&mut self.connections, conn)?;
        let mut connection = self.connections[usize::from(conn.slot)].take()?;
        if let Some(outgoing) = connection.outgoing.take() {
            self.frames -= 1;
            connection.finished = Some(outgoing.into_frame());
        }
        if let Some(frame) = connection.finished.take() {
            self.pending.push_back(Pending::Released(conn, frame));
        }
        Some(connection)
    }

    fn report_pending<E: Events>(&mut self, events: &mut E) -> usize {
        let mut reported = 0;
        while let Some(pending) = self.pending.pop_front() {
            match pending {
                Pending::Connected(id) => events.connected(id),
                Pending::ConnectFailed(id, error) => events.connect_failed(id, error),
                Pending::Released(id, frame) => events.released(id, frame),
            }
            reported += 1;
        }
        while let Some(conn) = self.touched.pop_front() {
            let Some(connection) = find(&mut self.connections, conn) else {
                continue;
            };
            connection.touched = false;
            let sent = std::mem::take(&mut connection.sent);
            let finished = connection.finished.take();
            if sent > 0 {
                events.sent(conn, sent);
                reported += 1;
            }
            if let Some(frame) = finished {
                events.released(conn, frame);
                reported += 1;
            }
        }
        reported
    }

    fn on_ready<E: Events>(&mut self, conn: ConnId, what: u32, events: &mut E) -> usize {
        let Some(connection) = find(&mut self.connections, conn) else {
            return 0;
        };
        let mut reported = 0;
        if connection.phase == Phase::Connecting {
            if what & bits(libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP) == 0 {
                return 0;
            }
            if let Some(error) = socket::take_error(connection.socket.as_fd()) {
                self.remove(conn);
                events.connect_failed(conn, error);
                return 1;
            }
            connection.phase = Phase::Open;
            events.connected(conn);
            reported += 1;
        }
        if what & bits(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0 {
            connection.hung_up = true;
        }
        let read =
            what & bits(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0;
        if read && !connection.readable {
            connection.readable = true;
            self.readable.push_back(conn);
        }
        if what & bits(libc::EPOLLOUT) != 0 {
            self.push(conn);
        }
        reported
    }

    /// Reads a connection's share.
    fn pull<E: Events>(&mut self, conn: ConnId, events: &mut E) -> usize {
        let mut reported = 0;
        for _ in 0..RECEIVES_PER_TURN {
            let Some(connection) = find(&mut self.connections, conn) else {
                return reported;
            };
            self.counters.kernel_entries += 1;
            match receive(connection.socket.as_raw_fd(), &mut self.received) {
                Ok(0) => return reported + self.end(conn, None, events),
                Ok(len) => {
                    // A short read has emptied the socket: what comes later is a new edge. Not so
                    // the peer's end, if its edge has been seen already.
                    let emptied = len < self.received.len() && !connection.hung_up;
                    self.counters.bytes_received += len as u64;
                    if emptied {
                        connection.readable = false;
                    }
                    events.received(conn, &self.received[..len]);
                    reported += 1;
                    if emptied {
                        return reported;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.readable = false;
                    return reported;
                }
                Err(error) => return reported + self.end(conn, Some(error), events),
            }
        }
        self.readable.push_back(conn);
        reported
    }

    /// The peer or the network ended it.
    fn end<E: Events>(&mut self, conn: ConnId, error: Option<io::Error>, events: &mut E) -> usize {
        // Sent before the end, so reported before it.
        let mut reported = self.report_pending(events);
        if let Some(connection) = self.remove(conn) {
            events.closed(conn, connection.send_error.or(error));
            reported += 1;
        }
        reported
    }

    fn wait(&mut self, wait: Wait) -> io::Result<()> {
        self.counters.kernel_entries += 1;
        let count = match wait {
            _ if !self.precise_wait => self.wait_millis(wait),
            _ => match self.wait_precisely(wait) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    self.precise_wait = false;
                    self.wait_millis(wait)
                }
                result => result,
            },
        };
        match count {
            // SAFETY: the kernel has written that many events into the vector's memory, which has
            // room for as many as it was told.
            Ok(count) => unsafe { self.ready.set_len(count) },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn wait_precisely(&mut self, wait: Wait) -> io::Result<usize> {
        let timeout = match wait {
            Wait::No => Some(Duration::ZERO),
            Wait::For(duration) => Some(duration),
            Wait::Forever => None,
        };
        let timespec = timeout.map(|timeout| KernelTimespec {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanos: timeout.subsec_nanos().into(),
        });
        let timespec = timespec.as_ref().map_or(ptr::null(), ptr::from_ref);
        self.ready.clear();
        // SAFETY: `ready` has room for EVENTS_PER_TURN events (its capacity since `new`), the
        // timespec is null or a live local, and no signal mask is given.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.ready.as_mut_ptr(),
                EVENTS_PER_TURN,
                timespec,
                ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn wait_millis(&mut self, wait: Wait) -> io::Result<usize> {
        let millis = match wait {
            Wait::No => 0,
            // Rounded up: too early a return would be a busy loop for the rest of the millisecond.
            Wait::For(duration) => libc::c_int::try_from(duration.as_nanos().div_ceil(1_000_000))
                .unwrap_or(libc::c_int::MAX),
            Wait::Forever => -1,
        };
        let room = libc::c_int::try_from(EVENTS_PER_TURN).unwrap_or(libc::c_int::MAX);
        self.ready.clear();
        // SAFETY: `ready` has room for EVENTS_PER_TURN events (its capacity since `new`).
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.ready.as_mut_ptr(),
                room,
                millis,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

impl Driver for EpollDriver {
    fn connect(&mut self, conn: ConnId, addr: SocketAddr, options: &SocketOptions) {
        if let Err(error) = self.try_connect(conn, addr, options) {
            self.pending.push_back(Pending::ConnectFailed(conn, error));
        }
    }

    fn send(&mut self, conn: ConnId, frame: Frame) {
        let Some(connection) = find(&mut self.connections, conn) else {
            self.pending.push_back(Pending::Released(conn, frame));
            return;
        };
        assert!(
            connection.phase == Phase::Open
                && connection.outgoing.is_none()
                && connection.finished.is_none(),
            "{conn:?} cannot take a frame"
        );
        connection.outgoing = Some(Outgoing::new(frame));
        self.frames += 1;
        self.push(conn);
    }

    fn close(&mut self, conn: ConnId) {
        self.pending
            .retain(|pending| !pending.is_of(conn) || matches!(pending, Pending::Released(..)));
        if let Some(connection) = self.remove(conn) {
            // As the ring driver does. Closing alone would reset a connection with unread bytes.
            socket::shut_down(connection.socket.as_fd());
        }
    }

    fn turn<E: Events>(&mut self, wait: Wait, events: &mut E) -> io::Result<usize> {
        let mut reported = self.report_pending(events);
        let more_to_do = reported > 0 || !self.readable.is_empty();
        self.wait(if more_to_do { Wait::No } else { wait })?;

        for at in 0..self.ready.len() {
            let event = self.ready[at];
            if event.u64 != WAKE {
                reported += self.on_ready(conn_of(event.u64), event.events, events);
            }
        }
        // Those that are not done after their share queue up again behind the others, for later.
        for _ in 0..self.readable.len() {
            if let Some(conn) = self.readable.pop_front() {
                reported += self.pull(conn, events);
            }
        }
        reported += self.report_pending(events);
        Ok(reported)
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn frames_in_kernel(&self) -> usize {
        self.frames
    }

    fn counters(&self) -> DriverCounters {
        self.counters
    }
}

/// `struct __kernel_timespec`: 64 bits each, also where C's own is narrower.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanos: i64,
}

fn find(connections: &mut [Option<Connection>], conn: ConnId) -> Option<&mut Connection> {
    connections
        .get_mut(usize::from(conn.slot))?
        .as_mut()
        .filter(|connection| connection.id == conn)
}

/// What the kernel hands back with a connection's events.
fn name(conn: ConnId) -> u64 {
    u64::from(conn.slot) << 32 | u64::from(conn.generation)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the two fields are cut out of the word that `name` made"
)]
fn conn_of(name: u64) -> ConnId {
    ConnId {
        slot: (name >> 32) as u16,
        generation: name as u32,
    }
}

/// The flags of epoll as they lie in an event.
#[expect(clippy::cast_sign_loss, reason = "a set of bits")]
const fn bits(flags: libc::c_int) -> u32 {
    flags as u32
}

fn watch(epoll: &OwnedFd, fd: RawFd, interest: libc::c_int, name: u64) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: bits(interest | libc::EPOLLET),
        u64: name,
    };
    // SAFETY: `event` is a live local, which the kernel only reads.
    let result =
        unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn send_pieces(fd: RawFd, iovecs: &mut [libc::iovec]) -> io::Result<usize> {
    // SAFETY: all-zero is a valid msghdr: no name, no pieces, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = iovecs.as_mut_ptr();
    message.msg_iovlen = iovecs.len() as _;
    // SAFETY: the message is a live local; its iovecs name bytes of the frame the caller holds
    // (`Outgoing::describe`), and the kernel is done with them when the call returns.
    let sent = unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn receive(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of a live exclusive slice.
    let received = unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), 0) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}
