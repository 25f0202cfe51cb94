//! The two queues shared with the kernel, and the one system call between them.
//!
//! Owns the io_uring. Everything the kernel is asked goes through [`Queue::push`], everything it
//! says comes out of [`Queue::next`]; neither is a system call. [`Queue::enter`] is: it submits,
//! runs the kernel's deferred work and, if told, sleeps.
//!
//! Invariants:
//! - Used by the thread that made it only (`SINGLE_ISSUER`). The driver around it is not `Send`.
//! - Completions appear in `enter` and nowhere else (`DEFER_TASKRUN`), so [`Queue::next`] comes to
//!   an end.
//! - An entry that found the submission queue full waits in `backlog`; order is kept. It is no
//!   longer than the operations of all connections, four each.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};

/// The queues' lengths, both powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueLengths {
    /// What one turn asks of the kernel, rarely more than a few entries per connection. More of
    /// them cost an additional visit to the kernel.
    pub(super) submissions: u32,
    /// Several turns' worth. The kernel keeps what does not fit, which costs a visit too.
    pub(super) completions: u32,
}

impl QueueLengths {
    pub(super) const USUAL: Self = Self {
        submissions: 256,
        completions: 2_048,
    };
}

/// How long [`Queue::enter`] sleeps for a completion, if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sleep {
    No,
    AtMost(Duration),
    Forever,
}

pub(super) struct Queue {
    ring: IoUring,
    enter_flags: EnterFlags,
    backlog: VecDeque<squeue::Entry>,
    kernel_entries: u64,
}

impl Queue {
    /// Sets the ring up, for the calling thread.
    pub(super) fn new(lengths: QueueLengths) -> io::Result<Self> {
        let ring = IoUring::builder()
            // One thread submits; completions are worked off when it waits, not by interrupting it.
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            // Tells in shared memory that a visit would bring something: spinning needs no calls.
            .setup_taskrun_flag()
            // One refused entry does not hold up those behind it.
            .setup_submit_all()
            .setup_cqsize(lengths.completions)
            // A child must not share our queues.
            .dontfork()
            .build(lengths.submissions)?;

        // The ring's descriptor is not registered with the thread (IORING_REGISTER_RING_FDS): what
        // that saves per visit was too little to measure.
        let mut enter_flags = EnterFlags::EXT_ARG | EnterFlags::GETEVENTS;
        if ring.params().is_feature_no_iowait() {
            // A sleeping shard is idle, not waiting for a disk.
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        Ok(Self {
            ring,
            enter_flags,
            backlog: VecDeque::new(),
            kernel_entries: 0,
        })
    }

    pub(super) fn ring(&self) -> &IoUring {
        &self.ring
    }

    /// Queues an entry for the next [`Self::enter`], or, when the queue is full, for one after it.
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
    pub(super) fn enter(&mut self, sleep: Sleep) -> io::Result<()> {
        self.move_backlog();
        let to_submit = self.ring.submission().len();
        // Never more than the queue's length, which is a u32.
        let to_submit = u32::try_from(to_submit).unwrap_or(u32::MAX);

        let mut args = SubmitArgs::new();
        let timespec;
        if let Sleep::AtMost(duration) = sleep {
            timespec = Timespec::from(duration);
            args = args.timespec(&timespec);
        }
        // Never asleep with work in hand: what did not fit goes in the next visit.
        let completions = u32::from(sleep != Sleep::No && self.backlog.is_empty());

        self.kernel_entries += 1;
        // SAFETY: `args` is the argument that EXT_ARG announces, and it and the timespec it points
        // to are live locals. What the submitted entries point to is good by the promise made to
        // `push`.
        let entered = unsafe {
            self.ring.submitter().enter(
                to_submit,
                completions,
                self.enter_flags.bits(),
                Some(&args),
            )
        };
        let Err(error) = entered else {
            return Ok(());
        };
        match error.raw_os_error() {
            // Time is up, or a signal: the caller looks at what there is.
            Some(libc::ETIME | libc::EINTR)
            // The kernel has too many completions in hand, or no memory for a request just now.
            // Nothing is lost: taking completions and coming back is the cure for both.
            | Some(libc::EBUSY | libc::EAGAIN) => Ok(()),
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
