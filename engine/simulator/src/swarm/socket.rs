//! One connection: what the core's end has handed to the kernel, what is under way in either
//! direction, and the broker's end.
//!
//! Bytes are delivered in order, or not at all. Each event of the network takes the next piece of its
//! direction, so a piece that is held up holds up what is behind it.

use std::collections::VecDeque;
use std::ops::Range;

use ringpost_broker::Session;
use ringpost_core::connection::ConnId;
use ringpost_core::time::Time;

use super::token::{self, TokenPiece};
use super::watch::Asked;

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A shard's.
    Shard(usize),
    /// The directory's.
    Directory,
}

/// A frame in the driver's hands.
#[derive(Debug)]
pub struct Frame {
    /// What it is made of, if of tokens.
    pub pieces: Vec<TokenPiece>,
    /// Its bytes, if it is not.
    pub bytes: Vec<u8>,
    /// Their length.
    pub len: usize,
    /// The kernel has taken so many.
    pub taken: usize,
    /// It is on its way back to the core.
    pub returning: bool,
}

impl Frame {
    /// The kernel reads a part.
    pub fn read(&self, range: Range<usize>, out: &mut Vec<u8>) {
        if self.pieces.is_empty() {
            out.extend_from_slice(&self.bytes[range]);
        } else {
            token::read(&self.pieces, range, out);
        }
    }
}

/// Bytes on their way to the broker.
#[derive(Debug)]
pub enum Piece {
    /// The kernel has a copy.
    Copied(Vec<u8>),
    /// This part of the frame is read when it leaves.
    Lent(Range<usize>),
}

/// Pieces that are held up, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Stuck {
    /// To the broker.
    pub up: usize,
    /// To the core.
    pub down: usize,
    /// When somebody looks again.
    pub until: Time,
}

impl Default for Stuck {
    fn default() -> Self {
        Self {
            up: 0,
            down: 0,
            until: Time::NEVER,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Socket {
    /// Whose it is.
    pub owner: Owner,
    /// The core's name for it.
    pub conn: ConnId,
    /// The node at the other end; −1 when nobody listens.
    pub node: i32,
    /// The broker's end, while there is one.
    pub session: Option<Session>,
    /// The core has not closed it, nor heard that it is closed.
    pub open: bool,
    /// The other end is gone without a word: bytes go nowhere.
    pub vanished: bool,
    /// The frame the driver has.
    pub frame: Option<Frame>,
    /// A taking is scheduled.
    pub taking: bool,
    /// On their way to the broker.
    pub up: VecDeque<Piece>,
    /// On their way to the core.
    pub down: VecDeque<Vec<u8>>,
    /// Bytes of `up`.
    pub under_way: usize,
    /// When the last piece arrives that is under way to the broker.
    pub last_up: Time,
    /// The same, to the core.
    pub last_down: Time,
    /// Nothing reaches the broker before.
    pub held_until: Time,
    /// What has come as far as to where nothing gets through.
    pub stuck: Stuck,
    /// Reset behind so many more bytes.
    pub cut: Option<usize>,
    /// Bytes delivered so far.
    pub delivered: usize,
    /// Bytes taken so far.
    pub taken: usize,
    /// The bit to be flipped: of which byte of the stream.
    pub flip: Option<(usize, u8)>,
    /// When the broker's end is looked at next.
    pub work_at: Time,
    /// What the onlooker knows.
    pub asked: Asked,
}

impl Socket {
    /// A new one.
    #[must_use]
    pub fn new(now: Time, owner: Owner, conn: ConnId, node: i32, session: Option<Session>) -> Self {
        Self {
            owner,
            conn,
            node,
            session,
            open: true,
            vanished: false,
            frame: None,
            taking: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
            under_way: 0,
            last_up: now,
            last_down: now,
            held_until: Time(0),
            stuck: Stuck::default(),
            cut: None,
            delivered: 0,
            taken: 0,
            flip: None,
            work_at: Time::NEVER,
            asked: Asked::default(),
        }
    }

    /// Whether parts of the frame are yet to be read.
    #[must_use]
    pub fn has_lent(&self) -> bool {
        self.up.iter().any(|piece| matches!(piece, Piece::Lent(_)))
    }

    /// What is under way is lost.
    pub fn lose_all(&mut self) {
        self.up.clear();
        self.down.clear();
        self.under_way = 0;
        self.session = None;
    }

    /// The next bytes for the broker, as they are now, with what the network does to them.
    pub fn arrive(&mut self) -> Option<Vec<u8>> {
        let piece = self.up.pop_front()?;
        let mut bytes = match piece {
            Piece::Copied(bytes) => bytes,
            Piece::Lent(range) => {
                let mut bytes = Vec::with_capacity(range.len());
                if let Some(frame) = &self.frame {
                    frame.read(range, &mut bytes);
                }
                bytes
            }
        };
        self.under_way -= bytes.len();
        if let Some((at, bit)) = self.flip
            && let Some(byte) = at
                .checked_sub(self.delivered)
                .and_then(|at| bytes.get_mut(at))
        {
            *byte ^= 1 << bit;
            self.flip = None;
        }
        self.delivered += bytes.len();
        Some(bytes)
    }
}
