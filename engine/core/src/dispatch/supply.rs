//! Where the dispatcher draws from.

use alloc::vec::Vec;

use crate::batch::{CutBatch, Part};
use crate::buffer::{Buffer, Memory};
use crate::id::LaneId;
use crate::seal::Squeeze;
use crate::time::Time;

/// Where the dispatcher draws from: the lanes' batches, memory for request heads, compressors.
pub trait Supply {
    /// The memory bodies and slabs are made of.
    type Memory: Memory;
    /// What comes with a batch and goes back with its verdict.
    type Ticket;

    /// What a lane holds. Never waits for the lane's lock.
    fn backlog(&mut self, lane: LaneId) -> Backlog;
    /// Takes the lane's oldest batch, cutting the open one if it is that. Never waits for the
    /// lane's lock.
    fn take(&mut self, lane: LaneId) -> Take<BufferOf<Self>, Self::Ticket>;
    /// Takes the lane's oldest batch of those whose records may all go to any partition, cutting the
    /// open one if it is that. As [`Supply::take`] otherwise. By default nothing may.
    fn take_free(&mut self, lane: LaneId) -> Take<BufferOf<Self>, Self::Ticket> {
        let _ = lane;
        Take::Empty
    }
    /// A buffer for the head of a request, beside the memory for records, so that full memory can
    /// always be sent. `None`: try again when a frame was released.
    fn slab(&mut self, at_least: usize) -> Option<BufferOf<Self>>;
    /// Takes back an emptied vector for a next batch.
    fn recycle(&mut self, parts: Vec<Part<BufferOf<Self>>>);
    /// Divides a batch's ticket: what belongs to the first `at` records stays, what belongs to the
    /// others is given back, to be told of verdicts of their own. The first of those is then number 0.
    fn divide(&mut self, ticket: &mut Self::Ticket, at: u32) -> Self::Ticket;
    /// A lane's batches are to end at so many bytes before compression, or where they would anyway
    /// (`None`): larger ones are refused. They are still divided if this is ignored.
    fn narrow(&mut self, lane: LaneId, bytes: Option<usize>);
    /// The compressor for bodies.
    fn squeeze(&mut self) -> &mut impl Squeeze;
}

pub(super) type BufferOf<S> = <<S as Supply>::Memory as Memory>::Buffer;

/// What a lane holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// Its lock is taken; ask again soon.
    Busy,
    /// Nothing.
    Empty,
    /// Records.
    Waiting {
        /// Their bytes on the wire.
        bytes: usize,
        /// A batch is cut, or somebody waits for the lane to be empty: do not linger.
        now: bool,
        /// When the oldest was appended.
        oldest: Time,
    },
}

impl Backlog {
    /// How many bytes it is known to be.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Waiting { bytes, .. } => bytes,
            Self::Busy | Self::Empty => 0,
        }
    }
}

/// A batch from a lane.
#[derive(Debug)]
pub enum Take<B: Buffer, T> {
    /// Its lock is taken; ask again soon.
    Busy,
    /// There is none.
    Empty,
    /// A batch.
    Batch {
        /// The records.
        cut: CutBatch<B>,
        /// Goes back with the verdict.
        ticket: T,
        /// When its first record was appended.
        opened: Time,
        /// Every record in it may go to any partition of the topic.
        free: bool,
        /// What the lane holds behind it.
        more: Backlog,
    },
}
