//! A frame on its way into a socket: the pieces, and how far the kernel has taken them.
//!
//! ```text
//!   pieces   [ aaaa ][ bbbbbbb ][ cc ]
//!   taken     ^^^^     ^^^             piece = 1, offset = 3
//!   next op             ^^^^    ^^     [`Outgoing::describe`]
//! ```

use super::Frame;

/// The most pieces one `sendmsg` takes (`UIO_MAXIOV`); more is `EMSGSIZE`.
pub(super) const IOVECS_MAX: usize = 1_024;

/// A frame of which the kernel has taken a part. Owns the frame until it is taken back.
#[derive(Debug)]
pub(super) struct Outgoing {
    frame: Frame,
    /// The first piece not wholly taken.
    piece: usize,
    /// How much of that piece was taken; always less than its length.
    offset: usize,
}

/// What is left of a frame after some of it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More to send.
    Left,
    /// Every byte is with the kernel.
    Done,
}

impl Outgoing {
    pub(super) fn new(frame: Frame) -> Self {
        debug_assert!(!frame.is_empty(), "an empty frame");
        debug_assert!(
            frame.iter().all(|piece| !piece.bytes().is_empty()),
            "an empty piece"
        );
        Self {
            frame,
            piece: 0,
            offset: 0,
        }
    }

    /// Writes what the next `sendmsg` should take into `iovecs`, at most [`IOVECS_MAX`] of them,
    /// and returns how many bytes they name.
    ///
    /// The pointers stay good as long as `self` holds the frame, wherever `self` itself moves: a
    /// piece keeps its bytes on the heap and they never change.
    pub(super) fn describe(&self, iovecs: &mut Vec<libc::iovec>) -> usize {
        iovecs.clear();
        let mut skip = self.offset;
        let mut total = 0;
        for piece in self.frame[self.piece..].iter().take(IOVECS_MAX) {
            let bytes = &piece.bytes()[skip..];
            skip = 0;
            total += bytes.len();
            iovecs.push(libc::iovec {
                // The kernel only reads through it.
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            });
        }
        total
    }

    /// Notes that the kernel took `bytes` more.
    pub(super) fn advance(&mut self, bytes: usize) -> Progress {
        let mut taken = self.offset + bytes;
        while let Some(piece) = self.frame.get(self.piece) {
            let len = piece.bytes().len();
            if taken < len {
                self.offset = taken;
                return Progress::Left;
            }
            taken -= len;
            self.piece += 1;
        }
        debug_assert_eq!(taken, 0, "the kernel took more than there was");
        self.offset = 0;
        Progress::Done
    }

    pub(super) fn into_frame(self) -> Frame {
        self.frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringpost_memory::{Piece, Pool};

    /// A frame of pieces of these lengths, and its bytes.
    fn frame(lengths: &[usize]) -> (Frame, Vec<u8>) {
        let pool = Pool::new(16 << 20, 1 << 16).expect("address space");
        let mut frame = Frame::new();
        let mut bytes = Vec::new();
        for len in lengths {
            let mut segment = pool.try_take(*len).expect("memory");
            for byte in &mut segment.spare_mut()[..*len] {
                *byte = u8::try_from(bytes.len() % 251).expect("small");
                bytes.push(*byte);
            }
            segment.commit(*len);
            frame.push(Piece::from(segment.freeze()));
        }
        (frame, bytes)
    }

    /// What the kernel would read.
    fn described(outgoing: &Outgoing) -> Vec<u8> {
        let mut iovecs = Vec::new();
        let total = outgoing.describe(&mut iovecs);
        let mut bytes = Vec::new();
        for iovec in &iovecs {
            assert!(iovec.iov_len > 0, "the kernel would skip it");
            // SAFETY: `describe` names bytes of pieces that `outgoing` holds.
            bytes.extend_from_slice(unsafe {
                std::slice::from_raw_parts(iovec.iov_base.cast::<u8>(), iovec.iov_len)
            });
        }
        assert_eq!(bytes.len(), total);
        bytes
    }

    /// Whatever two short sends take, at every pair of byte boundaries: the next call names exactly
    /// the bytes that are left, in order, and the frame is done with its last byte and not before.
    #[test]
    fn z1_short_sends_at_every_boundary() {
        let (frame, bytes) = frame(&[1, 5, 1, 1, 7, 2]);
        for first in 0..=bytes.len() {
            for second in 0..=bytes.len() - first {
                let mut outgoing = Outgoing::new(frame.clone());
                for taken in [first, second] {
                    let before = described(&outgoing);
                    let progress = outgoing.advance(taken);
                    assert_eq!(described(&outgoing), before[taken..]);
                    let is_done = taken == before.len();
                    assert_eq!(progress == Progress::Done, is_done, "{first}, {second}");
                    if is_done {
                        break;
                    }
                }
                assert_eq!(outgoing.into_frame().len(), frame.len());
            }
        }
    }

    /// A frame of more pieces than one call takes is named in parts of so many, none twice.
    #[test]
    fn z1_more_pieces_than_one_call_takes_are_named_in_turn() {
        let (frame, bytes) = frame(&[1; 2 * IOVECS_MAX + 3]);
        let mut outgoing = Outgoing::new(frame);
        let mut sent = Vec::new();
        loop {
            let part = described(&outgoing);
            assert!(part.len() <= IOVECS_MAX);
            sent.extend_from_slice(&part);
            if outgoing.advance(part.len()) == Progress::Done {
                break;
            }
        }
        assert_eq!(sent, bytes);
    }
}
