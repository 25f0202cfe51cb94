//! What the dispatcher wants done, and what it is done with.

use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::batch_in_flight::Moments;
use crate::connection::ConnId;
use crate::id::{BrokerId, LaneId};
use crate::outcome::Verdict;
use crate::seal::SealedBatch;

/// What the dispatcher wants done.
#[derive(Debug)]
pub enum Action<P> {
    /// Open a connection.
    Connect {
        /// Its name from now on.
        conn: ConnId,
        /// Where to.
        address: SocketAddr,
    },
    /// Send a frame.
    Send {
        /// On this connection.
        conn: ConnId,
        /// The frame, piece by piece.
        frame: Vec<P>,
    },
    /// Send a small message of the negotiation, as a whole frame.
    SendBytes {
        /// On this connection.
        conn: ConnId,
        /// The frame.
        frame: Vec<u8>,
    },
    /// End a connection.
    Close {
        /// This one.
        conn: ConnId,
    },
    /// Ask for metadata: what is known proved wrong, or a broker cannot be reached.
    Refresh,
    /// Ask for a producer id. Answer with [`Dispatcher::identity`](super::Dispatcher::identity).
    Identify,
    /// This shard keeps away from a broker: tell the others, with [`Dispatcher::hint`](super::Dispatcher::hint).
    Hint {
        /// The broker.
        broker: BrokerId,
    },
}

/// A batch that has its verdict.
#[derive(Debug)]
pub struct Settled<P, T> {
    /// The lane it went to, or waited in last.
    pub lane: LaneId,
    /// The lane it was taken from: another one if the batch was moved.
    pub home: LaneId,
    /// As it came with the batch.
    pub ticket: T,
    /// What became of it.
    pub verdict: Verdict,
    /// Records in it.
    pub records: u32,
    /// Bytes of the records, uncompressed.
    pub record_bytes: usize,
    /// Of its first record; records that were given no own time have this or a little later.
    pub base_timestamp_ms: i64,
    /// When what happened to it.
    pub moments: Moments,
    /// The batch itself, when it was not stored for certain.
    pub undelivered: Option<SealedBatch<P>>,
}
