//! The buffers all of a shard's connections receive into.
//!
//! The kernel takes the next free buffer when bytes arrive (a "provided buffer ring"), so an idle
//! connection holds none. A buffer goes round like this:
//!
//! ```text
//!   ours ──recycle──► in the ring ──bytes arrive──► named by a completion ──read, recycle──► …
//! ```
//!
//! When the ring runs dry a receive ends with `ENOBUFS` and is armed again; bytes wait in the socket
//! meanwhile, none are lost.

use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::queue::Queue;

/// The group the buffers are known by. There is one per ring.
pub(super) const GROUP: u16 = 0;
/// Bytes a buffer holds. A produce response is some hundred bytes, metadata some KiB.
pub(super) const BUFFER_BYTES: u32 = 4_096;
const BUFFER_SIZE: usize = BUFFER_BYTES as usize;
/// The entries start the mapping and have these bytes for themselves: room for 256 of 16 bytes.
const ENTRIES_BYTES: usize = 4_096;

/// The buffers and the ring that offers them. Must outlive every receive in the kernel.
pub(super) struct ReceiveBuffers {
    /// `ENTRIES_BYTES` of entries, then the buffers.
    memory: NonNull<u8>,
    mapped_bytes: usize,
    count: u16,
    /// Counts the buffers ever put into the ring; its low bits are the next entry.
    tail: u16,
}

impl ReceiveBuffers {
    /// Maps `count` (a power of two, at most 256) buffers and registers them with the ring.
    pub(super) fn new(queue: &Queue, count: u16) -> io::Result<Self> {
        assert!(
            count.is_power_of_two() && count <= 256,
            "{count} receive buffers"
        );
        let mapped_bytes = ENTRIES_BYTES + usize::from(count) * BUFFER_SIZE;
        // SAFETY: a new anonymous mapping at a place of the kernel's choice touches nothing of ours.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or_else(io::Error::last_os_error)?;
        let mut buffers = Self {
            memory,
            mapped_bytes,
            count,
            tail: 0,
        };
        // SAFETY: the mapping is page-aligned, has room for `count` entries at its start, and is
        // unmapped by `drop` only, which the driver runs after the last receive has completed, or
        // prevents by `leak`. (The kernel pins the pages of the entries, not those of the buffers.)
        unsafe {
            queue.ring().submitter().register_buf_ring_with_flags(
                u64::try_from(memory.addr().get()).unwrap_or(u64::MAX),
                count,
                GROUP,
                0,
            )
        }?;
        for id in 0..count {
            buffers.recycle(id);
        }
        Ok(buffers)
    }

    /// The first `len` bytes of a buffer that a completion named and that was not recycled since.
    pub(super) fn bytes(&self, id: u16, len: usize) -> &[u8] {
        assert!(
            id < self.count && len <= BUFFER_SIZE,
            "the kernel named buffer {id}, {len} bytes"
        );
        // SAFETY: inside the mapping by the assertion; the kernel filled these bytes and does not
        // touch the buffer again before it is recycled, which needs `&mut self`.
        unsafe { slice::from_raw_parts(self.buffer(id).as_ptr(), len) }
    }

    /// Gives a buffer to the kernel.
    pub(super) fn recycle(&mut self, id: u16) {
        assert!(id < self.count, "the kernel named buffer {id}");
        let address = u64::try_from(self.buffer(id).addr().get()).unwrap_or(u64::MAX);
        let entries = self.memory.cast::<BufRingEntry>();
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at` is below `count`, so the entry lies in the mapping. The kernel reads only
        // entries between its head and the tail it was told, and this one is beyond: there are as
        // many entries as buffers, and this buffer was not in the ring.
        let entry = unsafe { entries.add(at).as_mut() };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the unused field of the first entry, inside the mapping and
        // aligned; both sides access it as an atomic only (the entry's setters leave it alone).
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries.as_ptr()).cast_mut()) };
        // Release: the entry is written before the kernel can see it.
        tail.store(self.tail, Ordering::Release);
    }

    /// Gives the buffers up without unmapping them: for a kernel that will not say whether it still
    /// writes there.
    pub(super) fn leak(&mut self) {
        self.mapped_bytes = 0;
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        // SAFETY: the callers have checked `id`; the buffer starts inside the mapping.
        unsafe {
            self.memory
                .add(ENTRIES_BYTES + usize::from(id) * BUFFER_SIZE)
        }
    }
}

impl Drop for ReceiveBuffers {
    fn drop(&mut self) {
        if self.mapped_bytes == 0 {
            return;
        }
        // SAFETY: `new` mapped exactly this; nobody holds a slice of it, as `bytes` borrows `self`.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.mapped_bytes) };
    }
}
