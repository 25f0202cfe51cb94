//! Ringpost's buffers: a bounded pool of memory, and segments of it with one owner at a time.
//!
//! **What it is.** A [`Pool`] reserves address space for its whole budget at start and touches none
//! of it. [`Pool::try_take`] hands out a [`SegmentMut`]: memory with one owner, filled from the
//! front. [`SegmentMut::freeze`] turns it into a [`Segment`], which nobody writes any more and
//! which may have many holders: retries, requests, the kernel. A [`Piece`] is a range of a segment
//! (or shared [`bytes::Bytes`] that are paid for with a [`Charge`]); requests are made of pieces.
//! Memory goes back to the pool when its last holder drops it, on whatever thread that happens.
//!
//! ```text
//!   try_take / take ──► SegmentMut ──freeze──► Segment ──clone/slice──► Piece, Piece, Piece
//!        ▲                  │  ▲                  │                          │
//!        │                  │  └──try_into_mut────┤ (the only holder)        │
//!        └───── drop ───────┴────────────────────-┴──── last drop ───────────┘
//! ```
//!
//! **Invariants.** The sum of what is handed out (in class sizes: 4 KiB, 8 KiB, …) and charged is
//! never above the budget, at no step. Two live segments never overlap. Memory is reused only after
//! its last holder is gone, and its last holder's reads happen before the next owner's writes.
//! Waiters are served in the order they came; while one waits, nobody overtakes it. Wakers are
//! never called under the pool's lock.
//!
//! **Unsafe.** Lives in `arena` (the mapping and the slices into it) and in `segment` (a shared
//! count instead of one more allocation per segment); everything else is safe code over indices.
//!
//! ```
//! use ringpost_memory::{Piece, Pool};
//!
//! let pool = Pool::new(64 << 20, 1 << 20)?;
//! let mut segment = pool.try_take(100).expect("nothing else is in use");
//! segment.spare_mut()[..5].copy_from_slice(b"hello");
//! segment.commit(5);
//! let piece = Piece::from(segment.freeze());
//! let other = piece.slice(1..5);
//! drop(piece);
//! assert_eq!(other.bytes(), b"ello");
//! assert_eq!(pool.in_use(), 4096);
//! drop(other);
//! assert_eq!(pool.in_use(), 0);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! **Checking it.** `cargo test -p ringpost-memory` runs unit tests, real threads, and random
//! operations against a model. The interleavings of counts, last drops and grants are explored by
//! loom:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p ringpost-memory --release --lib
//! ```
//!
//! The cargo feature `poison` overwrites memory with `0xDD` on its way back to the pool, so that a
//! reader that should be gone shows itself (always on in this crate's own tests).

#[cfg(not(target_os = "linux"))]
compile_error!(
    "Ringpost runs on Linux only (io_uring and epoll are its two ways to the network). \
     Build it in a Linux container or virtual machine."
);

mod arena;
mod buddy;
mod buffer;
#[cfg(all(test, loom))]
mod interleavings;
#[cfg(all(any(test, feature = "model"), not(loom)))]
pub mod model;
mod piece;
mod pool;
mod segment;
mod sync;
mod take;
mod waiters;

pub use piece::Piece;
pub use pool::{Charge, Pool, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use segment::{Segment, SegmentMut};
pub use take::{Take, TakeCharge, TakeError};
