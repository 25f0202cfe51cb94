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
    /// and of its slices is gone; then the bytes are dropped too, wherever that is, and a panic of their
    /// owner's destructor is caught and [counted](crate::Pool::caught_panics). Allocates once.
    #[must_use]
    pub fn shared(bytes: Bytes, charge: Charge) -> Self {
        Self(Held::Shared(Bytes::from_owner(Charged { bytes, charge })))
    }

    /// Bytes that no budget counts: for what is small and bounded elsewhere, like the few requests
    /// that open a connection, and for tests.
    #[must_use]
    pub fn uncharged(bytes: Bytes) -> Self {
        Self(Held::Shared(bytes))
    }

    /// The bytes.
    #[must_use]
    #[inline]
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
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Held::Segment { start, end, .. } => (end - start) as usize,
            Held::Shared(bytes) => bytes.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of it, counted from its start, holding the same memory.
    ///
    /// # Panics
    /// When the range does not lie inside.
    #[must_use]
    #[inline]
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
    charge: Charge,
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.charge.drop_bytes(std::mem::take(&mut self.bytes));
    }
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::pool::Pool;

    fn hello(pool: &Pool) -> Piece {
        let mut segment = pool.try_take(11).expect("free");
        segment.spare_mut()[..11].copy_from_slice(b"hello world");
        segment.commit(11);
        Piece::from(segment.freeze())
    }

    #[test]
    fn slices_of_slices_hold_the_segment() {
        let pool = Pool::new(4096, 4096).expect("a pool");
        let piece = hello(&pool);
        let world = piece.slice(6..11);
        let or = world.slice(1..3);
        assert_eq!(
            (world.bytes(), or.bytes(), or.len()),
            (&b"world"[..], &b"or"[..], 2)
        );
        assert!(or.slice(2..2).is_empty());
        drop((piece, world));
        assert_eq!(pool.in_use(), 4096);
        drop(or);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn shared_bytes_are_charged_until_the_last_slice_goes() {
        let pool = Pool::new(65536, 4096).expect("a pool");
        let charge = pool.try_charge(50_000).expect("free");
        let piece = Piece::shared(Bytes::from(vec![9; 50_000]), charge);
        assert!(pool.try_charge(20_000).is_none(), "over budget");
        let tail = piece.slice(49_990..50_000);
        drop(piece);
        assert_eq!(pool.in_use(), 50_000);
        assert_eq!(tail.bytes(), [9; 10]);
        let tail = tail.try_into_mut().expect_err("not ours to write");
        drop(tail);
        assert_eq!(pool.in_use(), 0);
        assert_eq!(Piece::uncharged(Bytes::from_static(b"x")).bytes(), b"x");
        pool.invariants();
    }

    /// Bytes whose owner panics when it is dropped, with something that panics as well: the charge is
    /// given back, and the thread goes on.
    #[test]
    fn an_owner_that_panics_takes_nothing_along() {
        struct Bomb;
        impl AsRef<[u8]> for Bomb {
            fn as_ref(&self) -> &[u8] {
                b"bytes"
            }
        }
        impl Drop for Bomb {
            fn drop(&mut self) {
                std::panic::panic_any(Fuse);
            }
        }
        struct Fuse;
        impl Drop for Fuse {
            fn drop(&mut self) {
                panic!("the payload too");
            }
        }
        let pool = Pool::new(65536, 4096).expect("a pool");
        let piece = |charge| Piece::shared(Bytes::from_owner(Bomb), charge);
        let pieces: Vec<_> = (0..2)
            .map(|_| piece(pool.try_charge(5).expect("free")))
            .collect();
        drop(pieces);
        assert_eq!((pool.in_use(), pool.caught_panics()), (0, 2));
    }

    #[test]
    fn the_front_of_a_segment_can_be_written_again() {
        let pool = Pool::new(4096, 4096).expect("a pool");
        let piece = hello(&pool);
        let front = piece.slice(0..5);
        let front = front.try_into_mut().expect_err("`piece` holds it too");
        drop(piece);
        let mut owned = front.try_into_mut().expect("the only holder");
        assert_eq!(owned.filled(), b"hello");
        assert_eq!(owned.spare_mut().len(), 4091);
        let middle = Piece::from(owned.freeze()).slice(1..3);
        let middle = middle
            .try_into_mut()
            .expect_err("does not start at the front");
        assert_eq!(middle.bytes(), b"el");
    }

    #[test]
    #[should_panic(expected = "slice 3..12 of a piece of 11 bytes")]
    fn slicing_beyond_the_end_is_refused() {
        let pool = Pool::new(4096, 4096).expect("a pool");
        let _ = hello(&pool).slice(3..12);
    }
}
