//! Panics of the application's code: caught where it runs among ours, and counted here.

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
