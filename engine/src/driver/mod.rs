//! The kernel: what the shard's loop wants of it, and who provides it.
//!
//! A driver moves bytes and knows nothing of Kafka. It belongs to one thread from its creation to
//! its drop. All drivers obey the contract below word for word; one conformance suite runs
//! against each of them.
//!
//! ```text
//!            connect            send(frame)              close
//!               │                   │                      │
//!   ┌───────────▼──┐ connected ┌────▼─────────┐  sent(n)   │   released(frame)
//!   │  connecting  ├──────────►│   open       ├────────────┼──────────────────►
//!   └───────┬──────┘           │ ≤ 1 frame in │  received  │
//!           │ connect_failed   │  the kernel  │            ▼
//!           ▼                  └────┬─────────┘ closed ┌─────────┐ all completions in
//!         gone                      └─────────────────►│ closing ├───────────────► gone
//! ```
//!
//! - `connect` is answered by exactly one of `connected` and `connect_failed`, unless `close`
//!   comes first: after `close(conn)` no event but `released` is reported for that connection.
//! - At most one frame per connection is with the driver. `sent` reports bytes the kernel took, in
//!   order; a short send is continued where it stopped. `released` hands the frame back when the
//!   kernel is done with every byte of it: the only moment its memory may be reused. It comes for
//!   each frame once, also after a failure or `close`.
//! - `received` lends bytes for the call.
//! - `closed` is reported at most once, when the peer or the network ended the connection; the
//!   driver has then shut it down by itself and the slot may be connected again under a new
//!   generation (late completions of the old one are recognised and dropped).
//! - Dropping a driver closes everything and waits for the kernel to let go of every frame.
//! - A wait may end early with nothing reported (a signal, a completion only the driver cares
//!   about): the caller looks at its clock and turns again.
//!
//! | file | what it is |
//! |---|---|
//! | `choice` | which driver to take, and why |
//! | `ring/` | io_uring, Linux 6.1 and newer: one kernel entry per turn |
//! | `epoll` | the fallback where io_uring is refused |
//! | `socket`, `outgoing`, `waker` | what both share: a socket, a frame on its way, the eventfd |
//! | `conformance` | the contract as tests, run against every driver |
//! | `forked` | tests of a process that forks |

mod choice;
pub(crate) mod clock;
#[cfg(test)]
mod conformance;
mod epoll;
#[cfg(test)]
mod forked;
mod outgoing;
mod ring;
mod socket;
mod waker;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ringpost_core::connection::ConnId;
use ringpost_memory::Piece;

pub use choice::DriverChoice;
pub(crate) use choice::{ChosenDriver, DriverKind};
pub(crate) use epoll::EpollDriver;
pub(crate) use ring::RingDriver;
pub use ring::RingRefused;
pub(crate) use waker::Waker;

/// What a driver sends: pieces that go on the wire one after the other. The vector is handed back
/// through [`Events::released`], to be filled again.
pub(crate) type Frame = Vec<Piece>;

/// Socket settings of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SocketOptions {
    /// `TCP_USER_TIMEOUT`: unacknowledged bytes older than this end the connection. Zero leaves the
    /// system's own.
    pub user_timeout: Duration,
    /// `TCP_KEEPIDLE` and `TCP_KEEPINTVL`; zero switches keepalive off.
    pub keepalive: Duration,
    /// `SO_SNDBUF` in bytes; zero leaves the system's own.
    pub send_buffer_bytes: usize,
    /// `SO_RCVBUF` in bytes; zero leaves the system's own.
    pub receive_buffer_bytes: usize,
}

/// How long [`Driver::turn`] may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all: submit, report what is there, return.
    No,
    /// Until something is reported, the waker is used, or so much time has passed.
    For(Duration),
    /// Until something is reported or the waker is used.
    Forever,
}

/// What a driver reports, during [`Driver::turn`] only.
pub(crate) trait Events {
    /// The connection is open.
    fn connected(&mut self, conn: ConnId);
    /// The connection could not be made; `conn` is gone.
    fn connect_failed(&mut self, conn: ConnId, error: io::Error);
    /// The kernel took `bytes` more bytes of the frame.
    fn sent(&mut self, conn: ConnId, bytes: usize);
    /// The kernel is done with the frame; the driver holds it no longer.
    fn released(&mut self, conn: ConnId, frame: Frame);
    /// These bytes arrived.
    fn received(&mut self, conn: ConnId, bytes: &[u8]);
    /// The connection ended: `None` for an orderly end by the peer.
    fn closed(&mut self, conn: ConnId, error: Option<io::Error>);
}

/// The kernel as a shard sees it. See the module's doc for the contract.
pub(crate) trait Driver {
    /// Starts a connection. `conn` must not be in use.
    fn connect(&mut self, conn: ConnId, addr: SocketAddr, options: &SocketOptions);
    /// Sends a frame (not empty, no empty pieces). The connection must be open and without a frame.
    /// If it ended in a way its owner was already told of, the frame comes straight back through
    /// [`Events::released`].
    fn send(&mut self, conn: ConnId, frame: Frame);
    /// Ends a connection at once, whatever its state. Unknown connections are ignored: the peer may
    /// have been faster.
    fn close(&mut self, conn: ConnId);
    /// Submits what was asked for, waits as told, reports what happened. One kernel entry where
    /// that is possible. Returns how many events were reported.
    fn turn<E: Events>(&mut self, wait: Wait, events: &mut E) -> io::Result<usize>;
    /// A handle with which any thread ends a wait. The wake is latched: one that comes before the
    /// wait ends the next.
    fn waker(&self) -> Waker;
    /// Frames the kernel may still read.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "asked by the conformance suite only")
    )]
    fn frames_in_kernel(&self) -> usize;
    /// How often the kernel was entered, and other counters.
    fn counters(&self) -> DriverCounters;
}

/// Counts of a driver, since its creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DriverCounters {
    /// Kernel entries made by the loop: `io_uring_enter`, or `epoll_wait` + `sendmsg` + `recv`.
    pub kernel_entries: u64,
    /// Send operations given to the kernel.
    pub sends: u64,
    /// Bytes the kernel took.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Times the shared receive buffers ran out and receiving had to be armed again.
    pub receive_buffers_exhausted: u64,
}
