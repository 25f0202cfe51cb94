//! Memory with a ledger: every buffer is a token, and each step of its life is written down.
//!
//! The memory is the engine's own pool. A [`TokenBuffer`] wraps a segment of it, a [`TokenPiece`] a
//! frozen one. The ledger knows of each:
//!
//! ```text
//!   Free ──take──► Filling ──freeze──► Retained ◄──returned── Kernel(n)
//!    ▲                │                   │  └─────lent──────────▲
//!    └────dropped─────┴────last drop──────┘
//! ```
//!
//! What goes back is filled with 0xDD first, so that whoever still reads it shows itself. A piece
//! that is let go of although others hold it (only a planted bug can) reads as 0xDD from then on,
//! and the first reader is noted as a fault.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use ringpost_core::buffer::{Buffer, Memory, Piece};
use ringpost_memory::{Pool, SegmentMut};

/// What released memory holds.
pub const RELEASED: u8 = 0xDD;

/// What is known of a token that is not free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// One owner writes it.
    Filling,
    /// Nobody writes it; so many hold it.
    Retained {
        /// How many.
        holders: u32,
    },
    /// As `Retained`, and the kernel holds some of them.
    Kernel {
        /// All holders, the kernel's included.
        holders: u32,
        /// The kernel's.
        refs: u32,
    },
}

#[derive(Debug)]
struct Account {
    token: Token,
    bytes: usize,
    at: usize,
    /// Somebody gave the memory back although others hold it.
    let_go: bool,
}

#[derive(Debug, Default)]
struct Book {
    accounts: Vec<Option<Account>>,
    vacant: Vec<usize>,
    /// Where live blocks begin, and how long they are.
    blocks: BTreeMap<usize, usize>,
    live_bytes: usize,
    fault: Option<String>,
}

impl Book {
    fn note(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }
}

/// The ledger of all tokens of a run.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Rc<RefCell<Book>>);

impl Ledger {
    fn open(&self, at: usize, bytes: usize) -> usize {
        let mut book = self.0.borrow_mut();
        let before = book.blocks.range(..at + bytes).next_back();
        if let Some((start, len)) = before.map(|(start, len)| (*start, *len))
            && start + len > at
        {
            book.note(format!(
                "a block of {bytes} bytes was given out that overlaps one of {len} bytes in use"
            ));
        }
        book.blocks.insert(at, bytes);
        book.live_bytes += bytes;
        let account = Account {
            token: Token::Filling,
            bytes,
            at,
            let_go: false,
        };
        if let Some(index) = book.vacant.pop() {
            book.accounts[index] = Some(account);
            return index;
        }
        book.accounts.push(Some(account));
        book.accounts.len() - 1
    }

    fn close(&self, index: usize) {
        let mut book = self.0.borrow_mut();
        if let Some(account) = book.accounts[index].take() {
            if matches!(account.token, Token::Kernel { .. }) {
                book.note("a buffer was given back while the kernel read it".to_owned());
            }
            book.blocks.remove(&account.at);
            book.live_bytes -= account.bytes;
            book.vacant.push(index);
        }
    }

    fn change(&self, index: usize, change: impl FnOnce(Token) -> Token) {
        let mut book = self.0.borrow_mut();
        if let Some(account) = book.accounts[index].as_mut() {
            account.token = change(account.token);
        }
    }

    /// Bytes of all tokens that are not free.
    #[must_use]
    pub fn live_bytes(&self) -> usize {
        self.0.borrow().live_bytes
    }

    /// How many tokens are not free, and what the first of them is.
    #[must_use]
    pub fn live(&self) -> (usize, Option<Token>) {
        let book = self.0.borrow();
        let mut live = book.accounts.iter().flatten();
        let first = live.next().map(|account| account.token);
        (first.map_or(0, |_| 1 + live.count()), first)
    }

    /// The first thing that went against the rules.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.0.borrow().fault.clone()
    }
}

/// The kernel takes a frame.
pub fn lend(frame: &[TokenPiece]) {
    for piece in frame {
        piece.ledger.change(piece.token, |token| match token {
            Token::Filling => token,
            Token::Retained { holders } => Token::Kernel { holders, refs: 1 },
            Token::Kernel { holders, refs } => Token::Kernel {
                holders,
                refs: refs + 1,
            },
        });
    }
}

/// The kernel is done with a frame.
pub fn returned(frame: &[TokenPiece]) {
    for piece in frame {
        piece.ledger.change(piece.token, |token| match token {
            Token::Kernel { holders, refs: 1 } => Token::Retained { holders },
            Token::Kernel { holders, refs } => Token::Kernel {
                holders,
                refs: refs - 1,
            },
            other => other,
        });
    }
}

/// The kernel reads a part of a frame, as it is now, to the end of `out`.
pub fn read(frame: &[TokenPiece], range: Range<usize>, out: &mut Vec<u8>) {
    let mut start = 0;
    for piece in frame {
        let bytes = piece.bytes();
        let from = range.start.clamp(start, start + bytes.len()) - start;
        let to = range.end.clamp(start, start + bytes.len()) - start;
        start += bytes.len();
        if from == to {
            continue;
        }
        let mut book = piece.ledger.0.borrow_mut();
        let let_go = book.accounts[piece.token]
            .as_ref()
            .is_none_or(|account| account.let_go);
        if let_go {
            book.note("the kernel read bytes of a buffer that was released".to_owned());
            out.resize(out.len() + to - from, RELEASED);
        } else {
            out.extend_from_slice(&bytes[from..to]);
        }
    }
}

/// Gives out tokens within a pool's bound.
#[derive(Debug, Clone)]
pub struct Bank {
    pool: Pool,
    ledger: Ledger,
}

impl Bank {
    /// Over a pool, writing into a ledger.
    #[must_use]
    pub fn new(pool: Pool, ledger: Ledger) -> Self {
        Self { pool, ledger }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A token for a segment that was waited for.
    #[must_use]
    pub fn adopt(&self, mut segment: SegmentMut) -> TokenBuffer {
        let at = segment.spare_mut().as_ptr().addr();
        let token = self.ledger.open(at, segment.capacity());
        TokenBuffer {
            segment: Some(segment),
            token,
            ledger: self.ledger.clone(),
        }
    }
}

impl Memory for Bank {
    type Buffer = TokenBuffer;
    type Piece = TokenPiece;

    fn take(&mut self, at_least: usize) -> Option<TokenBuffer> {
        self.pool
            .try_take(at_least)
            .map(|segment| self.adopt(segment))
    }
}

/// A token that is being filled.
#[derive(Debug)]
pub struct TokenBuffer {
    /// `None` once it is frozen.
    segment: Option<SegmentMut>,
    token: usize,
    ledger: Ledger,
}

impl TokenBuffer {
    fn inner(&self) -> &SegmentMut {
        self.segment.as_ref().expect("it is not frozen yet")
    }

    fn inner_mut(&mut self) -> &mut SegmentMut {
        self.segment.as_mut().expect("it is not frozen yet")
    }
}

impl Buffer for TokenBuffer {
    type Piece = TokenPiece;

    fn capacity(&self) -> usize {
        self.inner().capacity()
    }
    fn filled(&self) -> &[u8] {
        self.inner().filled()
    }
    fn filled_mut(&mut self) -> &mut [u8] {
        self.inner_mut().filled_mut()
    }
    fn spare_mut(&mut self) -> &mut [u8] {
        self.inner_mut().spare_mut()
    }
    fn commit(&mut self, n: usize) {
        self.inner_mut().commit(n);
    }
    fn truncate(&mut self, len: usize) {
        self.inner_mut().truncate(len);
    }
    fn freeze(mut self) -> TokenPiece {
        let segment = self.segment.take().expect("it is frozen once");
        self.ledger
            .change(self.token, |_| Token::Retained { holders: 1 });
        TokenPiece {
            piece: Some(segment.freeze().into()),
            token: self.token,
            ledger: self.ledger.clone(),
        }
    }
}

impl Drop for TokenBuffer {
    fn drop(&mut self) {
        if let Some(mut segment) = self.segment.take() {
            segment.filled_mut().fill(RELEASED);
            self.ledger.close(self.token);
        }
    }
}

/// A token that nobody writes any more, or a part of it.
#[derive(Debug)]
pub struct TokenPiece {
    /// `None` only while it is dropped.
    piece: Option<ringpost_memory::Piece>,
    token: usize,
    ledger: Ledger,
}

impl TokenPiece {
    fn inner(&self) -> &ringpost_memory::Piece {
        self.piece.as_ref().expect("it is not dropped yet")
    }

    fn another(&self, piece: ringpost_memory::Piece) -> Self {
        self.ledger.change(self.token, |token| match token {
            Token::Filling => token,
            Token::Retained { holders } => Token::Retained {
                holders: holders + 1,
            },
            Token::Kernel { holders, refs } => Token::Kernel {
                holders: holders + 1,
                refs,
            },
        });
        Self {
            piece: Some(piece),
            token: self.token,
            ledger: self.ledger.clone(),
        }
    }
}

impl Clone for TokenPiece {
    fn clone(&self) -> Self {
        self.another(self.inner().clone())
    }
}

impl Piece for TokenPiece {
    fn bytes(&self) -> &[u8] {
        self.inner().bytes()
    }

    fn slice(&self, range: Range<usize>) -> Self {
        self.another(self.inner().slice(range))
    }

    #[cfg(feature = "canaries")]
    fn let_go(&self) {
        let mut book = self.ledger.0.borrow_mut();
        if let Some(account) = book.accounts[self.token].as_mut() {
            account.let_go = true;
        }
    }
}

impl Drop for TokenPiece {
    fn drop(&mut self) {
        let Some(piece) = self.piece.take() else {
            return;
        };
        let mut last = false;
        self.ledger.change(self.token, |token| match token {
            Token::Retained { holders: 1 } => {
                last = true;
                token
            }
            Token::Kernel { holders: 1, .. } => {
                last = true;
                token
            }
            Token::Retained { holders } => Token::Retained {
                holders: holders - 1,
            },
            Token::Kernel { holders, refs } => Token::Kernel {
                holders: holders - 1,
                refs,
            },
            Token::Filling => token,
        });
        if last {
            self.ledger.close(self.token);
            if let Ok(mut segment) = piece.try_into_mut() {
                segment.filled_mut().fill(RELEASED);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bank() -> (Bank, Ledger) {
        let ledger = Ledger::default();
        let pool = Pool::new(1 << 16, 1 << 16).expect("a pool");
        (Bank::new(pool, ledger.clone()), ledger)
    }

    fn filled(bank: &mut Bank, text: &[u8]) -> TokenPiece {
        let mut buffer = bank.take(text.len()).expect("free");
        buffer.spare_mut()[..text.len()].copy_from_slice(text);
        buffer.commit(text.len());
        buffer.freeze()
    }

    #[test]
    fn a_token_is_free_again_when_its_last_holder_is_gone() {
        let (mut bank, ledger) = bank();
        let piece = filled(&mut bank, b"hello");
        assert_eq!(
            ledger.live(),
            (1, Some(Token::Retained { holders: 1 })),
            "frozen"
        );
        let frame = vec![piece.slice(0..2), piece.clone()];
        lend(&frame);
        assert_eq!(
            ledger.live().1,
            Some(Token::Kernel {
                holders: 3,
                refs: 2
            })
        );
        drop(piece);
        let mut bytes = Vec::new();
        read(&frame, 1..5, &mut bytes);
        assert_eq!(bytes, b"ehel");
        returned(&frame);
        drop(frame);
        assert_eq!((ledger.live(), bank.pool().in_use()), ((0, None), 0));
        assert_eq!(ledger.fault(), None);
    }

    #[test]
    fn a_buffer_that_goes_back_while_the_kernel_reads_it_is_a_fault() {
        let (mut bank, ledger) = bank();
        let piece = filled(&mut bank, b"hello");
        lend(std::slice::from_ref(&piece));
        drop(piece);
        assert!(ledger.fault().expect("noted").contains("kernel"));
    }

    #[test]
    fn blocks_that_overlap_are_a_fault() {
        let ledger = Ledger::default();
        ledger.open(4096, 4096);
        ledger.open(8192, 4096);
        assert_eq!(ledger.fault(), None);
        ledger.open(4000, 200);
        assert!(ledger.fault().expect("noted").contains("overlaps"));
    }
}
