//! Panics of the application's code: caught where it runs among ours, and counted here.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// How many there were.
#[derive(Debug, Default)]
pub(crate) struct Panics(AtomicU64);

impl Panics {
    /// So many more were caught.
    pub(crate) fn count(&self, panics: u64) {
        if panics > 0 {
            tracing::error!(
                panics,
                "a callback or waker of the application panicked; the producer goes on"
            );
            self.0.fetch_add(panics, Ordering::Relaxed);
        }
    }

    pub(crate) fn counted(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs the application's code. `false`: it panicked, which is its own affair.
pub(crate) fn goes_well(call: impl FnOnce()) -> bool {
    let Err(payload) = catch_unwind(AssertUnwindSafe(call)) else {
        return true;
    };
    // What it panicked with is its own as well, and may panic when it is dropped.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    dropped.unwrap_or_else(mem::forget);
    false
}
