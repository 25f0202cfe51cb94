//! Waiting for what was accepted before to be settled.
//!
//! A flush notes, for each lane with unsettled batches, how many batches it has begun, and is over
//! when each has settled as many. Records sent later do not prolong it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::lane::Lane;
use crate::sync::{AtomicUsize, Mutex};

/// Who waits for batches to be settled.
#[derive(Debug, Default)]
pub(crate) struct Flushes {
    waiting: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
}

impl Flushes {
    /// A shard settled something.
    pub(crate) fn notify(&self) {
        // Pairs with the fence in `register`: either we see the waiter, or it sees what we settled.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let wakers = {
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            self.waiting.store(0, Ordering::Relaxed);
            std::mem::take(&mut *wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn register(&self, waker: &Waker) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        self.waiting.store(wakers.len(), Ordering::Relaxed);
        drop(wakers);
        fence(Ordering::SeqCst);
    }
}

/// A flush under way.
#[derive(Debug)]
#[must_use = "a future does nothing unless polled"]
pub struct Flush {
    flushes: Arc<Flushes>,
    pending: Vec<(Arc<Lane>, u64)>,
}

impl Flush {
    pub(crate) fn new(flushes: Arc<Flushes>, lanes: impl Iterator<Item = Arc<Lane>>) -> Self {
        let pending = lanes.filter_map(|lane| Some((lane.hurry()?, lane)));
        let pending = pending.map(|(target, lane)| (lane, target)).collect();
        Self { flushes, pending }
    }

    /// Lanes that are not done.
    pub(crate) fn pending(&mut self) -> usize {
        self.pending
            .retain(|(lane, target)| lane.settled() < *target);
        self.pending.len()
    }
}

impl Future for Flush {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.pending() == 0 {
            return Poll::Ready(());
        }
        self.flushes.register(cx.waker());
        if self.pending() == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}
