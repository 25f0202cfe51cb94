//! Giving up what was accepted, at the application's wish.
//!
//! The caller tells each shard and waits for none. A shard carries a purge out at its next turn,
//! between two looks at the network, and is done with it when the verdicts are out. What is appended
//! while it does is not given up, so that a purge ends however fast records come.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

pub use ringpost_core::dispatch::Purge;

use crate::delivery::{block_on, wake_all};

/// One purge under way, with all shards.
#[derive(Debug)]
struct Progress {
    /// Shards that have not carried it out.
    left: usize,
    waker: Option<Waker>,
}

/// A purge under way: ready when every record that was given up has its outcome. Dropping it changes
/// nothing.
///
/// ```no_run
/// # use ringpost::{Producer, Purge};
/// # let producer = Producer::builder().bootstrap("127.0.0.1:9092").build()?;
/// producer.purge(Purge::Queued).wait();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Purging(Arc<Mutex<Progress>>);

/// A shard's duty to carry a purge out. Dropped when that is done, or because the shard is gone and
/// has nothing left to give up.
#[derive(Debug)]
pub(crate) struct PurgeDuty(Arc<Mutex<Progress>>);

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Purging {
    /// The purge, and a duty for each shard.
    pub(crate) fn begin(shards: usize) -> (Self, impl Iterator<Item = PurgeDuty>) {
        let progress = Arc::new(Mutex::new(Progress {
            left: shards,
            waker: None,
        }));
        let duties = vec![Arc::clone(&progress); shards];
        (Self(progress), duties.into_iter().map(PurgeDuty))
    }

    /// Blocks until it is done: a turn of each shard. Not for callbacks, nor for the thread that
    /// drives an [`Embedded`](crate::Embedded) engine.
    pub fn wait(self) {
        block_on(self);
    }
}

impl Future for Purging {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Cloned and dropped without the lock: it is somebody else's code.
        let waker = cx.waker().clone();
        let mut progress = lock(&self.0);
        if progress.left == 0 {
            return Poll::Ready(());
        }
        let replaced = progress.waker.replace(waker);
        drop(progress);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for PurgeDuty {
    fn drop(&mut self) {
        let mut progress = lock(&self.0);
        progress.left -= 1;
        let done = progress.left == 0;
        let waker = progress.waker.take_if(|_| done);
        drop(progress);
        wake_all(waker);
    }
}
