//! Segments: memory with one writer, then memory with many readers.
//!
//! A [`SegmentMut`] owns its block of the arena alone. [`SegmentMut::freeze`] makes it a
//! [`Segment`], which can be cloned and only be read; the last of the clones to go gives the block
//! back. The number of clones is kept in a table of the pool, at the index of the block's first
//! page, so that neither taking, freezing nor cloning allocates. All clones of a segment together
//! own *one* count of the pool's `Arc`, so that cloning touches the segment's own count only and
//! not one that all threads share.
//!
//! Who may touch a block's bytes:
//! ```text
//!   free       nobody
//!   SegmentMut its owner, to read and write         (holders = 0)
//!   Segment    every clone, to read                 (holders = number of clones)
//! ```
//! The last clone's decrement and the fence after it order all clones' reads before whatever the
//! next owner writes.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Arc;

use crate::buddy::Block;
use crate::pool::{Grant, Shared};
use crate::sync::{AtomicU32, Ordering, fence};

/// More clones of one segment than this, and the process is ended before the count wraps round:
/// only clones that are leaked on purpose get there.
const HOLDERS_MAX: u32 = u32::MAX / 2;

/// Memory with one owner, filled from the front. Dropping it gives it back to the pool.
pub struct SegmentMut {
    shared: Arc<Shared>,
    block: Block,
    /// Bytes written, at most the block's length.
    len: u32,
}

impl SegmentMut {
    /// `block` was just handed out and is not known to anybody else.
    pub(crate) fn new(shared: Arc<Shared>, block: Block) -> Self {
        Self {
            shared,
            block,
            len: 0,
        }
    }

    /// How many bytes it can hold.
    #[must_use]
    #[inline]
    pub fn capacity(&self) -> usize {
        self.block.len()
    }

    /// The bytes written so far.
    #[must_use]
    #[inline]
    pub fn filled(&self) -> &[u8] {
        // SAFETY: we own the block alone, and writing needs `&mut self`.
        let bytes = unsafe { self.shared.arena.bytes(self.block) };
        &bytes[..self.len as usize]
    }

    /// The bytes written so far, to be changed in place.
    #[inline]
    pub fn filled_mut(&mut self) -> &mut [u8] {
        let len = self.len as usize;
        &mut self.bytes_mut()[..len]
    }

    /// The room after the bytes written so far: `capacity() - filled().len()` bytes. What it holds
    /// before it is written is unspecified: zeros, or what an earlier owner left.
    #[inline]
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let len = self.len as usize;
        &mut self.bytes_mut()[len..]
    }

    /// Counts the first `n` bytes of the room as written.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline]
    pub fn commit(&mut self, n: usize) {
        let room = self.capacity() - self.len as usize;
        assert!(n <= room, "{n} bytes committed where {room} fit");
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a segment is at most 1 GiB"
        )]
        let n = n as u32;
        self.len += n;
    }

    /// Cuts back to the first `len` written bytes.
    ///
    /// # Panics
    /// When fewer are written.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        assert!(
            len <= self.len as usize,
            "cut to {len} bytes where {} are written",
            self.len
        );
        #[expect(clippy::cast_possible_truncation, reason = "not above self.len, a u32")]
        let len = len as u32;
        self.len = len;
    }

    /// Ends writing.
    #[must_use]
    #[inline]
    pub fn freeze(self) -> Segment {
        // Nobody else can reach this count; whoever gets a clone later gets it from us.
        holders(&self.shared, self.block).store(1, Ordering::Relaxed);
        let this = ManuallyDrop::new(self);
        Segment {
            // SAFETY: `this` is never used or dropped again, so its `Arc` moves out exactly once.
            shared: ManuallyDrop::new(unsafe { std::ptr::read(&raw const this.shared) }),
            block: this.block,
            len: this.len,
        }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: we own the block alone, and the slice borrows `self` mutably.
        unsafe { self.shared.arena.bytes_mut(self.block) }
    }
}

impl Drop for SegmentMut {
    fn drop(&mut self) {
        #[cfg(any(test, feature = "poison"))]
        self.bytes_mut().fill(0xDD);
        self.shared.give_back(&Grant::Block(self.block));
    }
}

impl fmt::Debug for SegmentMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentMut")
            .field("offset", &self.block.offset())
            .field("capacity", &self.capacity())
            .field("len", &self.len)
            .finish()
    }
}

/// Bytes that never change, with any number of holders. The last one to drop it gives the memory
/// back to the pool. Cloning is one atomic increment.
pub struct Segment {
    /// The clones of a segment share one count of this `Arc`; the last one drops it.
    shared: ManuallyDrop<Arc<Shared>>,
    block: Block,
    len: u32,
}

impl Segment {
    /// The memory to write again, when this is its only holder; otherwise the segment back.
    ///
    /// # Errors
    /// The segment itself, when others hold it too.
    #[inline]
    pub fn try_into_mut(self) -> Result<SegmentMut, Segment> {
        // Acquire pairs with the other holders' releasing decrements: their reads are over. With a
        // count of one nobody else can make it grow: cloning needs a holder, and we are it.
        if holders(&self.shared, self.block).load(Ordering::Acquire) != 1 {
            return Err(self);
        }
        Ok(self.into_mut())
    }

    /// Becomes the only owner. All other holders are gone and their reads ordered before.
    fn into_mut(self) -> SegmentMut {
        let mut this = ManuallyDrop::new(self);
        holders(&this.shared, this.block).store(0, Ordering::Relaxed);
        // SAFETY: `this` is never used or dropped again, and as the only holder it owns the count
        // of the `Arc` that all holders shared.
        let shared = unsafe { ManuallyDrop::take(&mut this.shared) };
        SegmentMut {
            shared,
            block: this.block,
            len: this.len,
        }
    }
}

impl Deref for Segment {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: while `self` is a holder the block is not given back, and a frozen block has no
        // writer: `try_into_mut` gives one only to the last holder, which it consumes.
        let bytes = unsafe { self.shared.arena.bytes(self.block) };
        &bytes[..self.len as usize]
    }
}

impl AsRef<[u8]> for Segment {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Clone for Segment {
    #[inline]
    fn clone(&self) -> Self {
        // Relaxed as in `Arc`: the new holder comes from an existing one.
        let before = holders(&self.shared, self.block).fetch_add(1, Ordering::Relaxed);
        if before > HOLDERS_MAX {
            std::process::abort();
        }
        Self {
            // SAFETY: a copy that is dropped only by the last holder (see `into_mut`); all holders
            // together own one count, so it outlives every one of them.
            shared: unsafe { std::ptr::read(&raw const self.shared) },
            block: self.block,
            len: self.len,
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if holders(&self.shared, self.block).fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // Every other holder's reads happened before its decrement, and those before this fence.
        fence(Ordering::Acquire);
        // SAFETY: the last holder drops the one count of the `Arc`, here and only here (the other
        // way out of a segment, `into_mut`, forgets it).
        let shared = unsafe { ManuallyDrop::take(&mut self.shared) };
        drop(SegmentMut {
            shared,
            block: self.block,
            len: self.len,
        });
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("offset", &self.block.offset())
            .field("len", &self.len)
            .finish()
    }
}

/// The count of a block's holders.
fn holders(shared: &Shared, block: Block) -> &AtomicU32 {
    &shared.holders[block.page() as usize]
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::pool::Pool;

    #[test]
    fn fills_cuts_and_freezes() {
        let pool = Pool::new(16384, 8192).expect("a pool");
        let mut segment = pool.try_take(5000).expect("free");
        assert_eq!((segment.capacity(), segment.filled().len()), (8192, 0));
        segment.spare_mut()[..6].copy_from_slice(b"record");
        segment.commit(6);
        assert_eq!(segment.spare_mut().len(), 8186);
        segment.filled_mut()[0] = b'R';
        segment.truncate(4);
        assert_eq!(segment.filled(), b"Reco");
        let segment = segment.freeze();
        assert_eq!(&segment[..], b"Reco");
        pool.invariants();
    }

    #[test]
    fn only_the_last_holder_gives_memory_back() {
        let pool = Pool::new(4096, 4096).expect("a pool");
        let first = pool.try_take(1).expect("free").freeze();
        let second = first.clone();
        drop(first);
        assert!(pool.try_take(1).is_none());
        assert_eq!(pool.in_use(), 4096);
        drop(second);
        assert_eq!((pool.in_use(), pool.high_water()), (0, 4096));
        assert!(pool.try_take(1).is_some());
        pool.invariants();
    }

    #[test]
    fn only_the_only_holder_writes_again() {
        let pool = Pool::new(4096, 4096).expect("a pool");
        let mut owned = pool.try_take(1).expect("free");
        owned.commit(3);
        let first = owned.freeze();
        let second = first.clone();
        let first = first.try_into_mut().expect_err("held twice");
        drop(second);
        let mut owned = first.try_into_mut().expect("held once");
        assert_eq!(owned.filled().len(), 3);
        owned.commit(4093);
        let third = owned.freeze();
        let fourth = third.clone();
        drop((third, fourth));
        assert_eq!(pool.in_use(), 0);
        pool.invariants();
    }

    /// Bytes of a released segment read as poison.
    #[test]
    fn g6_released_memory_is_poisoned_in_tests() {
        let pool = Pool::new(4096, 4096).expect("a pool");
        let mut segment = pool.try_take(1).expect("free");
        assert!(
            segment.spare_mut().iter().all(|&byte| byte == 0),
            "fresh memory is zero"
        );
        segment.spare_mut().fill(7);
        drop(segment.freeze());
        let mut segment = pool.try_take(1).expect("free");
        assert!(segment.spare_mut().iter().all(|&byte| byte == 0xDD));
    }

    #[test]
    fn segments_outlive_the_pool() {
        let pool = Pool::new(8192, 4096).expect("a pool");
        let mut owned = pool.try_take(1).expect("free");
        let frozen = pool.try_take(1).expect("free").freeze();
        let clone = frozen.clone();
        drop(pool);
        owned.spare_mut().fill(1);
        drop(frozen);
        drop(owned);
        assert!(clone.is_empty());
    }

    #[test]
    #[should_panic(expected = "5000 bytes committed where 4096 fit")]
    fn committing_more_than_fits_is_refused() {
        Pool::new(4096, 4096)
            .expect("a pool")
            .try_take(1)
            .expect("free")
            .commit(5000);
    }

    #[test]
    fn they_are_small_and_may_cross_threads() {
        fn crosses<T: Send + Sync>() {}
        crosses::<super::SegmentMut>();
        crosses::<super::Segment>();
        crosses::<crate::Piece>();
        crosses::<crate::Charge>();
        crosses::<crate::Take>();
        assert_eq!(size_of::<super::Segment>(), 16);
        assert_eq!(size_of::<Option<super::SegmentMut>>(), 16);
        assert_eq!(size_of::<Option<crate::Piece>>(), 40);
    }
}
