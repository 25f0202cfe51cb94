//! Waiting for what was accepted before to be settled.
//!
//! A flush notes, for each lane with unsettled batches, the last batch it has begun, and is over
//! when each has settled all up to that one, and the dead letters that were made of these are
//! settled too. Records sent later do not prolong it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::delivery::wake_all;
use crate::lane::Lane;
use crate::reports::Reports;
use crate::sync::{AtomicUsize, Mutex};

/// Who waits for batches to be settled.
#[derive(Debug, Default)]
pub(crate) struct Flushes {
    waiting: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
}

impl Flushes {
    /// A shard settled something. Returns how many wakers panicked.
    pub(crate) fn notify(&self) -> u64 {
        // Pairs with the fence in `register`: either we see the waiter, or it sees what we settled.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let wakers = {
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            self.waiting.store(0, Ordering::Relaxed);
            std::mem::take(&mut *wakers)
        };
        wake_all(wakers)
    }

    fn register(&self, waker: &Waker) {
        // Cloned and dropped without the lock: it is somebody else's code.
        let mut waker = Some(waker.clone());
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |new: &mut Waker| wakers.iter().any(|known| known.will_wake(new));
        if let Some(new) = waker.take_if(|new| !is_known(new)) {
            wakers.push(new);
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
    /// Where dead letters are counted.
    reports: Option<Arc<Reports>>,
    /// Up to here they count: known once the lanes are done, as only then all that may become dead
    /// letters is known.
    letters_upto: Option<u64>,
}

impl Flush {
    pub(crate) fn new(
        flushes: Arc<Flushes>,
        reports: Option<Arc<Reports>>,
        lanes: impl Iterator<Item = Arc<Lane>>,
    ) -> Self {
        let pending = lanes.filter_map(|lane| Some((lane.hurry()?, lane)));
        let pending = pending.map(|(target, lane)| (lane, target)).collect();
        Self {
            flushes,
            pending,
            reports,
            letters_upto: None,
        }
    }

    /// Lanes that are not done, or batches whose dead letters are not.
    pub(crate) fn pending(&mut self) -> usize {
        self.pending
            .retain(|(lane, target)| lane.settled() < *target);
        match &self.reports {
            Some(reports) if self.pending.is_empty() => {
                let upto = self
                    .letters_upto
                    .get_or_insert_with(|| reports.origins_begun());
                reports.origins_unsettled(*upto)
            }
            _ => self.pending.len(),
        }
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

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use ringpost_core::dispatch::Take;

    use super::*;
    use crate::controller::Inbox;
    use crate::driver::{Driver, EpollDriver};
    use crate::lane::{Bound, Ticket, Watch};
    use crate::producer::Producer;
    use crate::record::Record;

    /// A batch that is tried again is settled after one that came later.
    #[test]
    fn a_later_batch_does_not_end_a_flush() {
        let driver = EpollDriver::new().expect("epoll");
        let shared = Producer::builder()
            .shared(Inbox::new(driver.waker()), vec![driver.waker()])
            .expect("memory");
        let lane = shared.lane_for_tests();
        let flushes = Arc::<Flushes>::default();
        let flush = || Flush::new(Arc::clone(&flushes), None, [Arc::clone(&lane)].into_iter());
        let send = || -> Ticket {
            lane.append(
                &Record::value(b"v"),
                Bound::Pinned,
                Watch::Nobody,
                &mut None,
            )
            .expect("room");
            match lane.take(true, u64::MAX) {
                Take::Batch { ticket, .. } => ticket,
                _ => panic!("there is a batch"),
            }
        };
        assert_eq!(flush().pending(), 0);
        let first = send();
        let mut early = flush();
        let (second, third) = (send(), send());
        let mut late = flush();
        lane.count_settled(second.ordinal);
        assert_eq!((early.pending(), late.pending()), (1, 1));
        lane.count_settled(first.ordinal);
        assert_eq!((early.pending(), late.pending()), (0, 1));
        lane.count_settled(third.ordinal);
        assert_eq!(late.pending(), 0);
        assert_eq!(flush().pending(), 0);
    }
}
