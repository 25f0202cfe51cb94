//! The driver on io_uring: what a turn asks of the kernel goes through shared memory, and one
//! system call submits it all, sleeps, and brings the completions.
//!
//! Per connection at most four operations are with the kernel: the connect; one `SENDMSG` (two
//! could interleave their bytes); one receive into a buffer the kernel chooses; and, at its end, the
//! cancellation of the others.
//!
//! *Why not a multishot receive.* It would save an entry per answer, which rides along with the next
//! visit anyway. On Linux 6.18 it was seen to fall asleep over bytes that had arrived: with small
//! socket buffers and both directions busy, 7 of 40 runs of the conformance case
//! `both_directions_at_once` hung with the receive armed and bytes in the socket; with one receive
//! after the other, none of 100 did.
//!
//! | file | what it is |
//! |---|---|
//! | `queue` | the io_uring itself: push, enter, next |
//! | `tag` | the names of operations |
//! | `connection` | a connection and what the kernel holds of it |
//! | `buffers` | what is received lands here |
//! | `probe` | whether the kernel grants all this |
//!
//! Needs Linux 6.1. Not `Send`: the kernel insists on one thread from setup to the end.

mod buffers;
mod connection;
mod probe;
mod queue;
mod tag;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ptr;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode, squeue};
use ringpost_core::connection::ConnId;

pub use probe::RingRefused;
pub(crate) use probe::probe_ring;

use super::outgoing::{Outgoing, Progress};
use super::socket::{self, Blocking, RawAddress};
use super::{Driver, DriverCounters, Events, Frame, SocketOptions, Wait, Waker};
use buffers::ReceiveBuffers;
use connection::{Life, Table};
use queue::{Queue, QueueLengths, Sleep};
use tag::{Kind, Tag};

/// Receive buffers of 4 KiB: enough for what all brokers of a cluster answer between two turns.
const RECEIVE_BUFFERS: u16 = 128;

/// The io_uring driver. See the module's doc.
pub(crate) struct RingDriver {
    // Dropped in this order: the ring before what it may point to.
    queue: Queue,
    buffers: ReceiveBuffers,
    connections: Table,
    waker: Waker,
    waker_armed: bool,
    /// What is to be reported by the next turn and has no completion of its own.
    pending: VecDeque<Pending>,
    frames: usize,
    counters: DriverCounters,
}

/// An event that came up outside of [`Driver::turn`].
enum Pending {
    ConnectFailed(ConnId, io::Error),
    Released(ConnId, Frame),
}

impl RingDriver {
    /// Sets up a ring for the calling thread.
    pub(crate) fn new() -> Result<Self, RingRefused> {
        Self::with_sizes(QueueLengths::USUAL, RECEIVE_BUFFERS)
    }

    /// A driver whose queues overflow and whose buffers run out all the time.
    #[cfg(test)]
    pub(super) fn tiny() -> Result<Self, RingRefused> {
        let lengths = QueueLengths {
            submissions: 2,
            completions: 4,
        };
        Self::with_sizes(lengths, 2)
    }

    fn with_sizes(lengths: QueueLengths, receive_buffers: u16) -> Result<Self, RingRefused> {
        let queue = Queue::new(lengths).map_err(|error| RingRefused::at("setup", &error))?;
        let buffers = ReceiveBuffers::new(&queue, receive_buffers)
            .map_err(|error| RingRefused::at("receive buffers", &error))?;
        let waker = Waker::new().map_err(|error| RingRefused::at("eventfd", &error))?;
        Ok(Self {
            queue,
            buffers,
            connections: Table::default(),
            waker,
            waker_armed: false,
            pending: VecDeque::new(),
            frames: 0,
            counters: DriverCounters::default(),
        })
    }

    // What is asked of the kernel.

    fn arm_waker(&mut self) {
        if self.waker_armed {
            return;
        }
        let poll = opcode::PollAdd::new(Fd(self.waker.fd()), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(Tag::WAKE.encode());
        // SAFETY: a poll points to nothing, and `self.waker` keeps the descriptor open as long as
        // the ring.
        unsafe { self.queue.push(poll) };
        self.waker_armed = true;
    }

    fn queue_connect(&mut self, place: u32) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        let (address, len) = connection.address();
        let connect = opcode::Connect::new(Fd(connection.fd()), address, len)
            .build()
            .user_data(connection.tag(Kind::Connect));
        connection.in_kernel.connect = true;
        // SAFETY: the address lies in the connection, boxed in the table, which keeps it and the
        // open descriptor until `in_kernel` is empty (`Table::remove` insists).
        unsafe { self.queue.push(connect) };
    }

    fn queue_send(&mut self, place: u32) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        let message = connection.describe_send();
        // MSG_NOSIGNAL: a closed peer is an error here, not a signal to a process that is not ours.
        let send = opcode::SendMsg::new(Fd(connection.fd()), message)
            .flags(libc::MSG_NOSIGNAL as u32)
            .build()
            .user_data(connection.tag(Kind::Send));
        connection.in_kernel.send = true;
        self.counters.sends += 1;
        // SAFETY: the message and its iovecs lie in the connection, boxed in the table, and are
        // written by `describe_send` only, which insists that no send is in the kernel. The bytes
        // belong to the connection's frame, which `outgoing` holds until this send's completion
        // (`on_sent`). The table keeps all of it until `in_kernel` is empty.
        unsafe { self.queue.push(send) };
    }

    fn queue_receive(&mut self, place: u32) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        let receive =
            opcode::Recv::new(Fd(connection.fd()), ptr::null_mut(), buffers::BUFFER_BYTES)
                .buf_group(buffers::GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
                .user_data(connection.tag(Kind::Receive));
        connection.in_kernel.receive = true;
        // SAFETY: it points to nothing of the connection; the buffers it will pick live as long as
        // the ring.
        unsafe { self.queue.push(receive) };
    }

    fn queue_cancel(&mut self, place: u32) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(connection.fd())).all())
            .build()
            .user_data(connection.tag(Kind::Cancel));
        connection.in_kernel.cancel = true;
        // SAFETY: a cancellation points to nothing; the descriptor stays open, so its number stays
        // this connection's, until `in_kernel` is empty.
        unsafe { self.queue.push(cancel) };
    }

    // The end of a connection.

    /// The shard knows the connection no longer. It lives on until the kernel is done with it.
    fn abandon(&mut self, place: u32) {
        self.connections.abandon(place);
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        if !connection.in_kernel.is_empty() {
            // Closing a descriptor cancels nothing. The shutdown tells the peer and ends what waits
            // for the network, the cancellation what waits for anything else.
            socket::shut_down(connection.socket());
            self.queue_cancel(place);
        }
        self.bury(place);
    }

    /// Lets an abandoned connection go, if the kernel has.
    fn bury(&mut self, place: u32) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        if connection.life != Life::Abandoned || !connection.in_kernel.is_empty() {
            return;
        }
        let id = connection.id;
        if let Some(outgoing) = connection.outgoing.take() {
            self.frames -= 1;
            self.pending
                .push_back(Pending::Released(id, outgoing.into_frame()));
        }
        // Closes the socket.
        self.connections.remove(place);
    }

    /// The peer or the network ended it.
    fn end<E: Events>(&mut self, place: u32, error: Option<io::Error>, events: &mut E) -> usize {
        let Some(connection) = self.connections.get(place) else {
            return 0;
        };
        let id = connection.id;
        let error = connection.send_error.take().or(error);
        self.abandon(place);
        events.closed(id, error);
        1
    }

    // What the kernel says.

    fn report_pending<E: Events>(&mut self, events: &mut E) -> usize {
        let mut reported = 0;
        while let Some(pending) = self.pending.pop_front() {
            match pending {
                Pending::ConnectFailed(id, error) => events.connect_failed(id, error),
                Pending::Released(id, frame) => events.released(id, frame),
            }
            reported += 1;
        }
        reported
    }

    fn take_completions<E: Events>(&mut self, events: &mut E) -> usize {
        let mut reported = 0;
        // One at a time, straight from the queue: should a callback panic, the completions after it
        // are still there for `drop` to wait for.
        while let Some(completion) = self.queue.next() {
            reported += self.on_completion(&completion, events);
        }
        reported
    }

    fn on_completion<E: Events>(&mut self, completion: &cqueue::Entry, events: &mut E) -> usize {
        let Some(tag) = Tag::decode(completion.user_data()) else {
            debug_assert!(false, "a completion of nobody: {completion:?}");
            return 0;
        };
        if tag.kind == Kind::Wake {
            // Never read: edge-triggered, see `Waker`. Ended by the kernel, it is armed anew.
            self.waker_armed &= cqueue::more(completion.flags());
            return 0;
        }
        // The table keeps a connection until its last completion, so the generation always matches.
        // Should that ever be wrong, a stranger's completion must not touch this connection.
        match self.connections.get(tag.place) {
            Some(connection) if connection.id.generation == tag.generation => {}
            _ => {
                debug_assert!(false, "a completion of a connection that is gone: {tag:?}");
                return 0;
            }
        }
        let result = completion.result();
        match tag.kind {
            Kind::Wake => 0,
            Kind::Connect => self.on_connected(tag.place, result, events),
            Kind::Send => self.on_sent(tag.place, result, events),
            Kind::Receive => self.on_received(tag.place, result, completion.flags(), events),
            Kind::Cancel => {
                if let Some(connection) = self.connections.get(tag.place) {
                    connection.in_kernel.cancel = false;
                }
                self.bury(tag.place);
                0
            }
        }
    }

    fn on_connected<E: Events>(&mut self, place: u32, result: i32, events: &mut E) -> usize {
        let Some(connection) = self.connections.get(place) else {
            return 0;
        };
        connection.in_kernel.connect = false;
        if connection.life == Life::Abandoned {
            self.bury(place);
            return 0;
        }
        let id = connection.id;
        match outcome(result) {
            Ok(_) => {
                connection.life = Life::Open;
                self.queue_receive(place);
                events.connected(id);
            }
            Err(error) => {
                self.abandon(place);
                events.connect_failed(id, error);
            }
        }
        1
    }

    fn on_sent<E: Events>(&mut self, place: u32, result: i32, events: &mut E) -> usize {
        let Some(connection) = self.connections.get(place) else {
            return 0;
        };
        connection.in_kernel.send = false;
        if connection.life == Life::Abandoned {
            self.bury(place);
            return 0;
        }
        let id = connection.id;
        let mut reported = 0;
        match outcome(result) {
            Ok(bytes) if bytes > 0 => {
                let progress = match &mut connection.outgoing {
                    Some(outgoing) => outgoing.advance(bytes),
                    None => Progress::Done,
                };
                self.counters.bytes_sent += bytes as u64;
                if progress == Progress::Left {
                    self.queue_send(place);
                    events.sent(id, bytes);
                    return 1;
                }
                events.sent(id, bytes);
                reported += 1;
            }
            // The kernel polls a few times only before it gives up with EAGAIN.
            Err(error) if is_passing(&error) => {
                self.queue_send(place);
                return 0;
            }
            failed => {
                // What the peer said before it left is still to be received; the shutdown makes the
                // receive come to its end, and that ends the connection.
                let error = failed.err();
                connection.send_error = connection
                    .send_error
                    .take()
                    .or(error)
                    .or_else(|| Some(io::ErrorKind::WriteZero.into()));
                socket::shut_down(connection.socket());
            }
        }
        if let Some(outgoing) = self
            .connections
            .get(place)
            .and_then(|connection| connection.outgoing.take())
        {
            self.frames -= 1;
            events.released(id, outgoing.into_frame());
            reported += 1;
        }
        reported
    }

    fn on_received<E: Events>(
        &mut self,
        place: u32,
        result: i32,
        flags: u32,
        events: &mut E,
    ) -> usize {
        let Some(connection) = self.connections.get(place) else {
            return 0;
        };
        let ended = !cqueue::more(flags);
        if ended {
            connection.in_kernel.receive = false;
        }
        let id = connection.id;
        let life = connection.life;
        let outcome = outcome(result);

        let mut reported = 0;
        if let Some(buffer) = cqueue::buffer_select(flags) {
            if let (Life::Open, Ok(len @ 1..)) = (life, &outcome) {
                self.counters.bytes_received += *len as u64;
                events.received(id, self.buffers.bytes(buffer, *len));
                reported += 1;
            }
            self.buffers.recycle(buffer);
        }
        if life == Life::Abandoned {
            self.bury(place);
            return reported;
        }
        reported
            + match outcome {
                Ok(0) => self.end(place, None, events),
                Ok(_) => {
                    if ended {
                        self.queue_receive(place);
                    }
                    0
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.counters.receive_buffers_exhausted += 1;
                    self.queue_receive(place);
                    0
                }
                Err(error) if is_passing(&error) => {
                    self.queue_receive(place);
                    0
                }
                Err(error) => self.end(place, Some(error), events),
            }
    }
}

impl Driver for RingDriver {
    fn connect(&mut self, conn: ConnId, addr: SocketAddr, options: &SocketOptions) {
        match socket::open(&addr, options, Blocking::Yes) {
            Ok(socket) => {
                let place = self
                    .connections
                    .insert(conn, socket, RawAddress::new(&addr));
                self.queue_connect(place);
            }
            Err(error) => self.pending.push_back(Pending::ConnectFailed(conn, error)),
        }
    }

    fn send(&mut self, conn: ConnId, frame: Frame) {
        let Some(place) = self.connections.by_id(conn) else {
            self.pending.push_back(Pending::Released(conn, frame));
            return;
        };
        if let Some(connection) = self.connections.get(place) {
            assert!(
                connection.life == Life::Open && connection.outgoing.is_none(),
                "{conn:?} cannot take a frame"
            );
            connection.outgoing = Some(Outgoing::new(frame));
            self.frames += 1;
        }
        self.queue_send(place);
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(place) = self.connections.by_id(conn) {
            self.abandon(place);
        } else {
            self.pending
                .retain(|pending| !matches!(pending, Pending::ConnectFailed(id, _) if *id == conn));
        }
    }

    fn turn<E: Events>(&mut self, wait: Wait, events: &mut E) -> io::Result<usize> {
        self.arm_waker();
        let mut reported = self.report_pending(events);

        // A send that completes while it is submitted ends a wait for one completion at once, so
        // that a lone request and its answer take two visits. Waiting for two completions instead
        // was measured, and is not faster: the second visit happens while the peer works. (Bounded
        // by the kernel's minimum wait it is far slower, for the timer.)
        let sleep = match wait {
            _ if reported > 0 || self.queue.has_completions() => Sleep::No,
            Wait::No | Wait::For(Duration::ZERO) => Sleep::No,
            Wait::For(duration) => Sleep::AtMost(duration),
            Wait::Forever => Sleep::Forever,
        };
        if sleep != Sleep::No || !self.queue.nothing_to_enter_for() {
            self.queue.enter(sleep)?;
        }

        reported += self.take_completions(events);
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
        DriverCounters {
            kernel_entries: self.queue.kernel_entries(),
            ..self.counters
        }
    }
}

impl Drop for RingDriver {
    /// Ends every connection and waits until the kernel holds nothing of ours.
    fn drop(&mut self) {
        for place in 0..self.connections.places() {
            match self.connections.get(place) {
                Some(connection) if connection.life != Life::Abandoned => self.abandon(place),
                _ => {}
            }
        }
        self.take_completions(&mut Unheard);
        while !self.connections.is_empty() {
            if self.queue.enter(Sleep::Forever).is_err() {
                // The kernel cannot be asked any more. Memory it may read or write must not be reused.
                self.connections.leak();
                self.buffers.leak();
                return;
            }
            self.take_completions(&mut Unheard);
        }
    }
}

/// Takes the last events of a driver nobody listens to any more.
struct Unheard;

impl Events for Unheard {
    fn connected(&mut self, _: ConnId) {}
    fn connect_failed(&mut self, _: ConnId, _: io::Error) {}
    fn sent(&mut self, _: ConnId, _: usize) {}
    fn released(&mut self, _: ConnId, _: Frame) {}
    fn received(&mut self, _: ConnId, _: &[u8]) {}
    fn closed(&mut self, _: ConnId, _: Option<io::Error>) {}
}

/// A completion's result: a count, or an error number below zero.
fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()))
}

/// Whether the same operation may simply be asked for again.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR))
}
