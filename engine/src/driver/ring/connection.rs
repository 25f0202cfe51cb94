//! A connection as the ring driver keeps it, and the table of them.
//!
//! The kernel is an owner: as long as one operation on a connection has not completed, its socket,
//! its frame and the structures that describe the frame stay as they are, no matter what became of
//! the connection in the eyes of the shard.
//!
//! ```text
//!   connect            connected           closed, or close()        in_kernel empty
//!  ────────► Connecting ────────► Open ───────────────────► Abandoned ─────────────► gone
//!                │                                              ▲
//!                └──────────── close() ─────────────────────────┘
//! ```
//!
//! A slot of the shard may have a new connection while its old one is still `Abandoned`; so the
//! table has places of its own, and a place is free again only when the kernel has let go.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use ringpost_core::connection::ConnId;

use super::tag::{Kind, Tag};
use crate::driver::outgoing::Outgoing;
use crate::driver::socket::RawAddress;

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// The connect is with the kernel.
    Connecting,
    /// The shard may send, and bytes are received.
    Open,
    /// The shard has been told, or has closed it; the kernel is not done with it. Nothing is
    /// reported any more but the frame's release.
    Abandoned,
}

/// The operations of a connection that the kernel holds, or that wait in the queue to it. At most
/// one of each kind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct InKernel {
    pub(super) connect: bool,
    pub(super) send: bool,
    pub(super) receive: bool,
    /// Holds the descriptor's number, so that the cancellation cannot meet a stranger.
    pub(super) cancel: bool,
}

impl InKernel {
    pub(super) fn is_empty(self) -> bool {
        !(self.connect || self.send || self.receive || self.cancel)
    }
}

pub(super) struct Connection {
    pub(super) id: ConnId,
    pub(super) life: Life,
    pub(super) in_kernel: InKernel,
    /// The frame with the driver. It stays at least as long as `in_kernel.send`.
    pub(super) outgoing: Option<Outgoing>,
    /// Why sending failed. The connection ends when what had arrived before has been received.
    pub(super) send_error: Option<io::Error>,
    place: u32,
    socket: OwnedFd,
    address: RawAddress,
    /// What the present send operation points to; unchanged while `in_kernel.send`.
    message: libc::msghdr,
    iovecs: Vec<libc::iovec>,
}

impl Connection {
    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn tag(&self, kind: Kind) -> u64 {
        Tag {
            kind,
            place: self.place,
            generation: self.id.generation,
        }
        .encode()
    }

    /// The peer's address for `connect`. The pointer is good as long as the connection is in the
    /// table, which boxes it.
    pub(super) fn address(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        self.address.as_raw()
    }

    /// Describes what is left of the frame in `message` and `iovecs` and returns the pointer for
    /// `sendmsg`, good while the connection is in the table and until the next call.
    ///
    /// Must not be called while a send is in the kernel.
    pub(super) fn describe_send(&mut self) -> *const libc::msghdr {
        assert!(!self.in_kernel.send, "two sends would interleave");
        if let Some(outgoing) = &self.outgoing {
            outgoing.describe(&mut self.iovecs);
        }
        self.message.msg_iov = self.iovecs.as_mut_ptr();
        self.message.msg_iovlen = self.iovecs.len() as _;
        ptr::from_ref(&self.message)
    }
}

/// The connections, by place and by the shard's slot.
#[derive(Default)]
pub(super) struct Table {
    /// Boxed, so that a connection keeps its address when the table grows.
    places: Vec<Option<Box<Connection>>>,
    free: Vec<u32>,
    /// The place of each slot's present connection; abandoned ones are not found here.
    by_slot: Vec<Option<u32>>,
}

impl Table {
    /// Puts a new connection in. Its slot must not have one.
    pub(super) fn insert(&mut self, id: ConnId, socket: OwnedFd, address: RawAddress) -> u32 {
        assert!(self.by_id(id).is_none(), "{id:?} is in use");
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.places.push(None);
                u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.places[place as usize] = Some(Box::new(Connection {
            id,
            life: Life::Connecting,
            in_kernel: InKernel::default(),
            outgoing: None,
            send_error: None,
            place,
            socket,
            address,
            message: empty_message(),
            iovecs: Vec::new(),
        }));
        let slot = usize::from(id.slot);
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, None);
        }
        assert!(self.by_slot[slot].is_none(), "slot {slot} is in use");
        self.by_slot[slot] = Some(place);
        place
    }

    /// The place of a connection that is not abandoned.
    pub(super) fn by_id(&self, id: ConnId) -> Option<u32> {
        let place = (*self.by_slot.get(usize::from(id.slot))?)?;
        (self.places.get(place as usize)?.as_ref()?.id == id).then_some(place)
    }

    /// The connection at a place.
    pub(super) fn get(&mut self, place: u32) -> Option<&mut Connection> {
        self.places.get_mut(place as usize)?.as_deref_mut()
    }

    /// Makes the connection unknown to its slot; it keeps its place.
    pub(super) fn abandon(&mut self, place: u32) {
        if let Some(connection) = self.get(place) {
            connection.life = Life::Abandoned;
            let slot = usize::from(connection.id.slot);
            self.by_slot[slot] = None;
        }
    }

    /// Takes an abandoned connection out, which frees its place.
    pub(super) fn remove(&mut self, place: u32) -> Option<Box<Connection>> {
        let connection = self.places.get_mut(place as usize)?.take()?;
        assert!(
            connection.life == Life::Abandoned && connection.in_kernel.is_empty(),
            "{:?} has an owner",
            connection.id
        );
        self.free.push(place);
        Some(connection)
    }

    /// All places ever used, also free ones.
    pub(super) fn places(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    /// Whether no connection is left, not even an abandoned one.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// Gives every connection up without freeing it: for a kernel that will not say whether it is
    /// done.
    pub(super) fn leak(&mut self) {
        for connection in self.places.drain(..).flatten() {
            Box::leak(connection);
        }
        self.free.clear();
        self.by_slot.clear();
    }
}

fn empty_message() -> libc::msghdr {
    // SAFETY: all-zero is a valid msghdr: no name, no pieces, no control data. (Its padding fields
    // on some C libraries have no public names, so it cannot be written out.)
    unsafe { std::mem::zeroed() }
}
