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
