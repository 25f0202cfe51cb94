//! The arena: one anonymous mapping that all segments of a pool lie in.
//!
//! Owned by the pool's shared state, unmapped when that goes, which is after the last segment. The
//! kernel gives zero pages on first touch, so every byte is initialised at all times and slices
//! into it are ordinary `[u8]`. Nothing is touched before somebody writes or reads it.
//!
//! The arena knows nothing of who owns what: its two slice functions are unsafe, and their callers
//! (`segment`, which holds a block of the buddy allocator for as long as the slice lives) say why
//! the range is theirs. Under loom each page has a cell beside it, so a read that is not ordered
//! before the next owner's write is found.

use std::io;
use std::ptr::{self, NonNull};

use crate::buddy::{Block, PAGE_SHIFT};

/// One anonymous mapping.
#[derive(Debug)]
pub(crate) struct Arena {
    base: NonNull<u8>,
    len: usize,
    #[cfg(loom)]
    pages: Vec<loom::cell::UnsafeCell<()>>,
}

// SAFETY: the mapping belongs to this value alone, is not tied to a thread, and is reached only
// through the two unsafe slice functions, whose callers promise exclusive or shared access.
unsafe impl Send for Arena {}
// SAFETY: as above; `&Arena` alone allows no access to the bytes.
unsafe impl Sync for Arena {}

impl Arena {
    /// Reserves `len` bytes of address space (a positive multiple of the page size).
    pub(crate) fn reserve(len: usize) -> io::Result<Self> {
        // SAFETY: a new anonymous private mapping at an address of the kernel's choice; it aliases
        // nothing and no memory of ours is passed in.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>())
            .ok_or_else(|| io::Error::other("the kernel mapped memory at address zero"))?;
        // Where huge pages are made for everybody, one touched page would bring 2 MiB, and what is touched
        // would no longer be what is counted. A kernel that knows no huge pages refuses: as well.
        // SAFETY: the mapping is ours and new; the advice changes nothing of what it reads.
        unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_NOHUGEPAGE) };
        Ok(Self {
            base,
            len,
            #[cfg(loom)]
            pages: (0..len / crate::pool::SEGMENT_BYTES_MIN)
                .map(|_| loom::cell::UnsafeCell::new(()))
                .collect(),
        })
    }

    /// The bytes of `block`, to read.
    ///
    /// # Safety
    /// For as long as the slice lives, the caller holds `block` and nobody writes to it.
    #[inline]
    pub(crate) unsafe fn bytes(&self, block: Block) -> &[u8] {
        let (offset, len) = (block.offset(), block.len());
        assert!(offset + len <= self.len, "a block outside of the arena");
        #[cfg(loom)]
        for page in &self.pages[block.pages()] {
            page.with(|_| ());
        }
        // SAFETY: the range lies inside the mapping (asserted), which lives as long as `self` and
        // is initialised (zero pages); no writer, as the caller promises.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), len) }
    }

    /// Gives the memory behind the first `pages` of `block` back to the system; they read as zeros
    /// from then on.
    ///
    /// # Safety
    /// The caller is the only one with access to `block` until this returns.
    pub(crate) unsafe fn discard(&self, block: Block, pages: u32) {
        let len = (pages as usize) << PAGE_SHIFT;
        let offset = block.offset();
        assert!(
            len <= block.len() && offset + len <= self.len,
            "pages outside of a block"
        );
        #[cfg(loom)]
        for page in &self.pages[block.pages()] {
            page.with_mut(|_| ());
        }
        // SAFETY: the range lies inside our own mapping (asserted) and nobody has access to it, as the
        // caller promises. Where the system refuses, as for locked memory, nothing is lost but that.
        unsafe {
            let start = self.base.as_ptr().add(offset);
            libc::madvise(start.cast(), len, libc::MADV_DONTNEED);
        }
    }

    /// The bytes of `block`, to write.
    ///
    /// # Safety
    /// For as long as the slice lives, the caller is the only one with access to `block`.
    #[expect(
        clippy::mut_from_ref,
        reason = "an arena is shared by the owners of its blocks; the caller owns this one alone"
    )]
    #[inline]
    pub(crate) unsafe fn bytes_mut(&self, block: Block) -> &mut [u8] {
        let (offset, len) = (block.offset(), block.len());
        assert!(offset + len <= self.len, "a block outside of the arena");
        #[cfg(loom)]
        for page in &self.pages[block.pages()] {
            page.with_mut(|_| ());
        }
        // SAFETY: the range lies inside the mapping (asserted), which lives as long as `self` and
        // is initialised (zero pages); no other access, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset), len) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: base and len are those of our own mapping, and every slice into it borrowed from
        // `self`, so none is left. A failure would leave address space behind, nothing worse.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn reserves_zero_bytes_and_says_when_it_cannot() {
        let arena = Arena::reserve(1 << 20).expect("address space");
        // SAFETY: nobody else knows this arena.
        let bytes = unsafe { arena.bytes(Block::new(3, 2)) };
        assert_eq!(bytes, vec![0; 16384]);
        let block = Block::new(4, 1);
        // SAFETY: as above, and the slices end here.
        unsafe {
            arena.bytes_mut(block).fill(7);
            arena.discard(block, 1);
            assert_eq!(arena.bytes(block)[..4096], [0; 4096]);
            assert_eq!(arena.bytes(block)[4096..], [7; 4096]);
        }
        assert!(Arena::reserve(1 << 60).is_err());
    }
}
