//! The two queues shared with the kernel, and the one system call between them.
//!
//! Owns the io_uring. Everything the kernel is asked goes through [`Queue::push`], everything it
//! says comes out of [`Queue::next`]; neither is a system call. [`Queue::enter`] is: it submits,
//! runs the kernel's deferred work and, if told, sleeps.
//!
//! Invariants:
//! - Used by the thread that made it only (`SINGLE_ISSUER`, and the ring's registered descriptor is
//!   that thread's). The driver around it is not `Send`.
//! - Completions appear in `enter` and nowhere else (`DEFER_TASKRUN`), so [`Queue::next`] comes to
//!   an end.
//! - An entry that found the submission queue full waits in `backlog`; order is kept.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};

/// Submission entries: what one turn asks of the kernel, rarely more than a few per connection.
const SUBMISSIONS: u32 = 256;
/// Completion entries. A multishot receive may post 32 completions before it gives way to others,
/// so there are more of these; the kernel keeps what does not fit even so.
const COMPLETIONS: u32 = 8 * SUBMISSIONS;

/// `IORING_REGISTER_RING_FDS` and its counterpart (linux/io_uring.h). The crate's own method keeps
/// the index it got in a value that borrows the ring, which a struct that owns the ring cannot hold.
const REGISTER_RING_FDS: libc::c_uint = 20;
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// `struct io_uring_rsrc_update` (linux/io_uring.h).
#[repr(C)]
struct RingFdUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// How [`Queue::enter`] sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sleep {
    /// Until so many completions are there...
    pub(super) completions: u32,
    /// ...or, once so much time has passed, until there is one. Ignored by kernels before 6.12.
    pub(super) settle: Option<Duration>,
    /// ...or so much time has passed.
    pub(super) at_most: Option<Duration>,
}

pub(super) struct Queue {
    ring: IoUring,
    /// What `enter` names the ring by: its registered index, or its descriptor.
    handle: RawFd,
    registered: bool,
    enter_flags: EnterFlags,
    backlog: VecDeque<squeue::Entry>,
    kernel_entries: u64,
}

impl Queue {
    /// Sets the ring up, for the calling thread.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            // One thread submits; completions are worked off when it waits, not by interrupting it.
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            // Tells in shared memory that a visit would bring something: spinning needs no calls.
            .setup_taskrun_flag()
            // One refused entry does not hold up those behind it.
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            // A child must not share our queues.
            .dontfork()
            .build(SUBMISSIONS)?;

        let mut enter_flags = EnterFlags::EXT_ARG | EnterFlags::GETEVENTS;
        if ring.params().is_feature_no_iowait() {
            // A sleeping shard is idle, not waiting for a disk.
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        let fd = ring.as_raw_fd();
        let registered = register_ring_fd(fd);
        if registered.is_some() {
            enter_flags |= EnterFlags::REGISTERED_RING;
        }
        Ok(Self {
            ring,
            handle: registered.unwrap_or(fd),
            registered: registered.is_some(),
            enter_flags,
            backlog: VecDeque::new(),
            kernel_entries: 0,
        })
    }

    pub(super) fn ring(&self) -> &IoUring {
        &self.ring
    }

    /// Whether [`Sleep::settle`] has an effect.
    pub(super) fn can_settle(&self) -> bool {
        self.ring.params().is_feature_min_timeout()
    }

    /// Queues an entry for the next [`Self::enter`].
    ///
    /// # Safety
    ///
    /// Everything the entry points to must stay valid, unmoved and unchanged until the operation's
    /// last completion came out of [`Self::next`].
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            // SAFETY: the caller's promise is the one this call asks for.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // Full: let the kernel take what is there and go on. Should it not take anything now
            // (short of memory), the entry waits for the next visit.
            let submitted = self.enter(None);
            if submitted.is_ok() {
                // SAFETY: as above.
                if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                    return;
                }
            }
        }
        self.backlog.push_back(entry);
    }

    /// Whether a visit to the kernel would neither submit nor bring anything, as far as shared
    /// memory shows.
    pub(super) fn nothing_to_enter_for(&mut self) -> bool {
        let submission = self.ring.submission();
        submission.is_empty()
            && !submission.taskrun()
            && !submission.cq_overflow()
            && self.backlog.is_empty()
    }

    /// Whether completions lie ready to be taken.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// Submits, lets the kernel do its deferred work, sleeps if told. One system call.
    pub(super) fn enter(&mut self, sleep: Option<Sleep>) -> io::Result<()> {
        self.move_backlog();
        let to_submit = self.ring.submission().len();
        // More than the queue's 256 is impossible.
        let to_submit = u32::try_from(to_submit).unwrap_or(u32::MAX);

        let timespec = sleep
            .and_then(|sleep| sleep.at_most)
            .map(Timespec::from)
            .unwrap_or_default();
        let mut args = SubmitArgs::new();
        let mut completions = 0;
        if let Some(sleep) = sleep {
            completions = sleep.completions;
            if sleep.at_most.is_some() {
                args = args.timespec(&timespec);
            }
            if let Some(settle) = sleep.settle {
                args = args.min_wait_usec(u32::try_from(settle.as_micros()).unwrap_or(u32::MAX));
            }
        }

        self.kernel_entries += 1;
        // SAFETY: `args` and the timespec it points to are live locals; `SubmitArgs` is the
        // `io_uring_getevents_arg` that EXT_ARG announces (repr(transparent)). What the submitted
        // entries point to is good by the promise made to `push`.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.handle,
                to_submit,
                completions,
                self.enter_flags.bits(),
                ptr::from_ref(&args),
                mem::size_of::<SubmitArgs<'_, '_>>(),
            )
        };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // Time is up, or a signal: the caller looks at what there is.
            Some(libc::ETIME | libc::EINTR) => Ok(()),
            // The kernel has too many completions in hand, or no memory for a request just now.
            // Nothing is lost: taking completions and coming back is the cure for both.
            Some(libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        }
    }

    /// The next completion, in the order the kernel posted them.
    pub(super) fn next(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    pub(super) fn kernel_entries(&self) -> u64 {
        self.kernel_entries
    }

    fn move_backlog(&mut self) {
        if self.backlog.is_empty() {
            return;
        }
        let mut submission = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the entry came through `push`, whose caller promised what this call asks.
            if unsafe { submission.push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.registered {
            unregister_ring_fd(self.ring.as_raw_fd(), self.handle);
        }
    }
}

/// Enters the ring into the thread's table of rings, which saves the lookup of its descriptor at
/// each visit. The table has 16 places; without one the descriptor does as well.
fn register_ring_fd(fd: RawFd) -> Option<RawFd> {
    let mut update = RingFdUpdate {
        offset: u32::MAX, // any place
        reserved: 0,
        data: u64::try_from(fd).ok()?,
    };
    // SAFETY: `update` is a live local laid out as the kernel's struct, one of them as told; the
    // kernel writes the place it chose into it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            fd,
            REGISTER_RING_FDS,
            ptr::from_mut(&mut update),
            1,
        )
    };
    if done == 1 {
        RawFd::try_from(update.offset).ok()
    } else {
        None
    }
}

/// Gives the place in the thread's table back: it would keep the ring alive until the thread ends.
fn unregister_ring_fd(fd: RawFd, place: RawFd) {
    let update = RingFdUpdate {
        offset: u32::try_from(place).unwrap_or(u32::MAX),
        reserved: 0,
        data: 0,
    };
    // SAFETY: `update` is a live local laid out as the kernel's struct, one of them as told.
    unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            fd,
            UNREGISTER_RING_FDS,
            ptr::from_ref(&update),
            1,
        )
    };
}
