//! Messages cut out of a stream of bytes.
//!
//! On a connection each message stands behind its length, an i32. A [`Deframer`] belongs to one
//! connection's receiving side, gets the bytes as they come and hands out whole messages:
//!
//! - A message that lies whole in the bytes just received is lent from there, not copied.
//! - Memory for a split message grows as its bytes come, never from the length alone: at most
//!   64 KiB, or a quarter, more than what was received. It is given back after a large message.
//! - A length that is negative, shorter than a correlation id, or above the cap is an error, as
//!   soon as its four bytes are there. After an error the stream has no more boundaries: the
//!   deframer repeats the error, and the connection must be closed.
//!
//! ```
//! use ringpost_codec::frame::Deframer;
//! let mut deframer = Deframer::new(1024);
//! let mut frames = Vec::new();
//! for bytes in [&[0, 0, 0, 4, 1, 2][..], &[3, 4, 0, 0][..], &[0, 5, 5, 6, 7, 8, 9][..]] {
//!     deframer.push(bytes, |frame| {
//!         frames.push(frame.to_vec());
//!         Ok::<_, core::convert::Infallible>(())
//!     })?;
//! }
//! assert_eq!(frames, [&[1, 2, 3, 4][..], &[5, 6, 7, 8, 9][..]]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use alloc::vec::Vec;

/// The length field.
const PREFIX: usize = 4;
/// The shortest message: a correlation id and nothing else.
const FRAME_MIN: usize = 4;
/// How much more than received may be reserved, at least; and what is kept between messages.
const SLACK: usize = 64 * 1024;

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is negative, or too short for any message.
    #[error("the peer sent the impossible message length {len}; close the connection")]
    Short {
        /// The length as it was sent.
        len: i32,
    },
    /// The length is above the cap.
    #[error("the peer announced a message of {len} bytes, more than the {cap} that are accepted")]
    TooLarge {
        /// The length as it was sent.
        len: usize,
        /// The cap.
        cap: usize,
    },
}

/// Why [`Deframer::push`] stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeframeError<E> {
    /// The stream is broken.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The consumer of the messages said so.
    #[error("a message was refused: {0}")]
    Refused(E),
}

/// Cuts one connection's received bytes into messages.
#[derive(Debug)]
pub struct Deframer {
    cap: usize,
    /// The beginning of a message that is not complete, its length field included.
    partial: Vec<u8>,
    broken: Option<FrameError>,
}

impl Deframer {
    /// A deframer that accepts messages of up to `cap` bytes.
    #[must_use]
    pub const fn new(cap: usize) -> Self {
        Self {
            cap,
            partial: Vec::new(),
            broken: None,
        }
    }

    /// Changes the cap for the lengths that are read from now on.
    pub const fn set_cap(&mut self, cap: usize) {
        self.cap = cap;
    }

    /// How many bytes of an incomplete message are held.
    #[must_use]
    pub const fn buffered(&self) -> usize {
        self.partial.len()
    }

    /// How many bytes are reserved.
    #[must_use]
    pub const fn memory(&self) -> usize {
        self.partial.capacity()
    }

    /// Takes received bytes and hands out each message that they complete, without its length.
    ///
    /// # Errors
    /// [`DeframeError::Frame`] for a bad length, now and on each later call. When `on_frame`
    /// refuses a message, its error is passed on and the bytes behind that message are dropped, so
    /// the connection must be closed in both cases.
    pub fn push<E>(
        &mut self,
        mut bytes: &[u8],
        mut on_frame: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), DeframeError<E>> {
        if let Some(error) = self.broken {
            return Err(error.into());
        }
        if !self.partial.is_empty() {
            let Some(frame_end) = self.complete(&mut bytes)? else {
                return Ok(());
            };
            let result = on_frame(&self.partial[PREFIX..frame_end]);
            self.partial.clear();
            if self.partial.capacity() > SLACK {
                self.partial = Vec::new();
            }
            result.map_err(DeframeError::Refused)?;
        }
        while let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() {
            let len = self.check(*prefix)?;
            let Some((frame, rest)) = rest.split_at_checked(len) else {
                break;
            };
            on_frame(frame).map_err(DeframeError::Refused)?;
            bytes = rest;
        }
        if !bytes.is_empty() {
            let needed = match bytes.first_chunk::<PREFIX>() {
                Some(prefix) => PREFIX + self.check(*prefix)?,
                None => PREFIX,
            };
            self.keep(bytes, needed);
        }
        Ok(())
    }

    /// Moves bytes over to the partial message; returns where it ends once it is whole.
    fn complete(&mut self, bytes: &mut &[u8]) -> Result<Option<usize>, FrameError> {
        if self.partial.len() < PREFIX {
            self.fill(bytes, PREFIX);
        }
        let Some(prefix) = self.partial.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let end = PREFIX + self.check(*prefix)?;
        self.fill(bytes, end);
        Ok((self.partial.len() == end).then_some(end))
    }

    /// Moves bytes over until the partial message has `len`.
    fn fill(&mut self, bytes: &mut &[u8], len: usize) {
        let missing = len.saturating_sub(self.partial.len());
        let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
        self.keep(taken, len);
        *bytes = rest;
    }

    /// Appends to the partial message, which will have `needed` bytes in the end.
    fn keep(&mut self, bytes: &[u8], needed: usize) {
        let len = self.partial.len() + bytes.len();
        if len > self.partial.capacity() {
            let ahead = (len / 4).max(SLACK);
            let capacity = needed.min(len + ahead).max(len);
            self.partial.reserve_exact(capacity - self.partial.len());
        }
        self.partial.extend_from_slice(bytes);
    }

    /// A length field's value, if it is acceptable.
    fn check(&mut self, prefix: [u8; PREFIX]) -> Result<usize, FrameError> {
        let claimed = i32::from_be_bytes(prefix);
        let error = match usize::try_from(claimed) {
            Ok(len) if len > self.cap => FrameError::TooLarge { len, cap: self.cap },
            Ok(len) if len >= FRAME_MIN => return Ok(len),
            _ => FrameError::Short { len: claimed },
        };
        self.broken = Some(error);
        self.partial = Vec::new();
        Err(error)
    }
}
