//! Pieces: what requests are made of.
//!
//! A [`Piece`] is a range of a [`Segment`], or bytes of the application's own that are sent without
//! copying them, paid for with a [`Charge`]. Either way it holds its memory: as long as a piece
//! exists, be it in the hands of the kernel, nothing it points to changes or is reused.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::pool::Charge;
use crate::segment::{Segment, SegmentMut};

/// Bytes that never change, with any number of holders. Cloning and slicing never copy bytes.
#[derive(Clone)]
pub struct Piece(Held);

#[derive(Clone)]
enum Held {
    /// `start <= end <=` the segment's length.
    Segment {
        segment: Segment,
        start: u32,
        end: u32,
    },
    Shared(Bytes),
}

impl Piece {
    /// Bytes of the application's own. The charge is given back when the last holder of the piece
    /// and of its slices is gone; then the bytes are dropped too. Allocates once.
    #[must_use]
    pub fn shared(bytes: Bytes, charge: Charge) -> Self {
        Self(Held::Shared(Bytes::from_owner(Charged {
            bytes,
            _charge: charge,
        })))
    }

    /// Bytes that no budget counts: for what is small and bounded elsewhere, like the few requests
    /// that open a connection, and for tests.
    #[must_use]
    pub fn uncharged(bytes: Bytes) -> Self {
        Self(Held::Shared(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Held::Segment {
                segment,
                start,
                end,
            } => &segment[*start as usize..*end as usize],
            Held::Shared(bytes) => bytes,
        }
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Held::Segment { start, end, .. } => (end - start) as usize,
            Held::Shared(bytes) => bytes.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of it, counted from its start, holding the same memory.
    ///
    /// # Panics
    /// When the range does not lie inside.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "slice {range:?} of a piece of {} bytes",
            self.len()
        );
        Self(match &self.0 {
            #[expect(clippy::cast_possible_truncation, reason = "inside the piece: u32")]
            Held::Segment { segment, start, .. } => Held::Segment {
                segment: segment.clone(),
                start: start + range.start as u32,
                end: start + range.end as u32,
            },
            Held::Shared(bytes) => Held::Shared(bytes.slice(range)),
        })
    }

    /// The memory to write again, with the piece's bytes as its filled part: when the piece starts
    /// where its segment starts and nobody else holds that segment.
    ///
    /// # Errors
    /// The piece itself, in all other cases.
    pub fn try_into_mut(self) -> Result<SegmentMut, Piece> {
        let Held::Segment {
            segment,
            start: 0,
            end,
        } = self.0
        else {
            return Err(self);
        };
        match segment.try_into_mut() {
            Ok(mut owned) => {
                owned.truncate(end as usize);
                Ok(owned)
            }
            Err(segment) => Err(Self(Held::Segment {
                segment,
                start: 0,
                end,
            })),
        }
    }
}

impl From<Segment> for Piece {
    fn from(segment: Segment) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a segment is at most 1 GiB"
        )]
        let end = segment.len() as u32;
        Self(Held::Segment {
            segment,
            start: 0,
            end,
        })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Held::Segment {
                segment,
                start,
                end,
            } => f
                .debug_struct("Piece")
                .field("segment", segment)
                .field("range", &(start..end))
                .finish(),
            Held::Shared(bytes) => f.debug_struct("Piece").field("len", &bytes.len()).finish(),
        }
    }
}

/// The owner behind the bytes of [`Piece::shared`]. The bytes go first, then the charge.
struct Charged {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
