//! Waiting for the outcome of one record.
//!
//! A batch has one outcome for all its records, stored once; a [`Delivery`] is a share in it and a
//! number. So a thousand records that are waited for cost one allocation, and none costs one when
//! nobody waits.

use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use ringpost_core::outcome::Verdict;
use ringpost_core::time::Time;

use crate::driver::clock;
use crate::outcome::{Failure, Outcome, Why};

/// The outcome of a record, when it comes. A future on any executor; or [`Delivery::wait`] blocks
/// the thread. Dropping it means not to care.
#[derive(Debug)]
#[must_use = "dropping a delivery means not to care what becomes of the record; `post` says so"]
pub struct Delivery {
    batch: Arc<BatchCompletion>,
    index: u32,
    timestamp_ms: i64,
}

/// The outcome of a batch, and who waits for it.
#[derive(Debug)]
pub(crate) struct BatchCompletion {
    partition: i32,
    verdict: OnceLock<Verdict>,
    waiting: Mutex<Waiting>,
}

/// Who waits. Most batches are waited for at one record at a time, so the first waiter has a place
/// that needs no memory. The others are in the records' order, so that finding one among thousands
/// is no search through all.
#[derive(Debug, Default)]
struct Waiting {
    first: Option<(u32, Waker)>,
    others: Vec<(u32, Waker)>,
}

impl Waiting {
    /// Remembers who waits for a record. Gives back the waker it had, to be dropped without the
    /// lock: it is somebody else's code.
    fn set(&mut self, index: u32, waker: Waker) -> Option<Waker> {
        let place = self.place(index);
        match (&mut self.first, place) {
            (Some((of, known)), _) if *of == index => return Some(mem::replace(known, waker)),
            (_, Ok(at)) => return Some(mem::replace(&mut self.others[at].1, waker)),
            (first @ None, Err(_)) => *first = Some((index, waker)),
            (Some(_), Err(at)) => self.others.insert(at, (index, waker)),
        }
        None
    }

    fn place(&self, index: u32) -> Result<usize, usize> {
        self.others.binary_search_by_key(&index, |(of, _)| *of)
    }

    /// Takes out who waits for a record.
    fn clear(&mut self, index: u32) -> Option<Waker> {
        let (_, waker) = match self.first.take_if(|(of, _)| *of == index) {
            Some(first) => first,
            None => self.others.remove(self.place(index).ok()?),
        };
        Some(waker)
    }
}

/// Wakes those who wait. Their wakers are the application's code: one that panics must not take a
/// shard along. Returns how many did.
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) -> u64 {
    let mut panics = 0;
    for waker in wakers {
        panics += u64::from(catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err());
    }
    panics
}

impl BatchCompletion {
    pub(crate) fn new(partition: i32) -> Arc<Self> {
        Arc::new(Self {
            partition,
            verdict: OnceLock::new(),
            waiting: Mutex::default(),
        })
    }

    /// Gives the verdict and wakes all who wait. Returns how many wakers panicked.
    pub(crate) fn complete(&self, verdict: Verdict) -> u64 {
        let first_time = self.verdict.set(verdict).is_ok();
        debug_assert!(first_time, "a batch has one verdict");
        let Waiting { first, others } = mem::take(&mut *self.waiting());
        let wakers = first.into_iter().chain(others).map(|(_, waker)| waker);
        wake_all(wakers)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here can panic half way; a poisoned lock only tells of a panic elsewhere.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to complete a batch. Dropped undone, because its shard ended by a bug, it says so to
/// those who wait instead of leaving them waiting.
#[derive(Debug)]
pub(crate) struct Promise {
    batch: Arc<BatchCompletion>,
    /// Shares given out.
    shares: usize,
}

impl Promise {
    pub(crate) fn new(partition: i32) -> Self {
        Self {
            batch: BatchCompletion::new(partition),
            shares: 0,
        }
    }

    /// A share for one who waits.
    #[inline]
    pub(crate) fn share(&mut self) -> Arc<BatchCompletion> {
        self.shares += 1;
        Arc::clone(&self.batch)
    }

    /// Whether shares were dropped: records nobody waits for any more.
    pub(crate) fn has_dropped_shares(&self) -> bool {
        Arc::strong_count(&self.batch) - 1 < self.shares
    }

    /// Returns how many wakers panicked.
    pub(crate) fn keep(self, verdict: Verdict) -> u64 {
        self.batch.complete(verdict)
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.batch.verdict.get().is_none() {
            let failure = Failure::new(Why::ShardLost);
            self.batch.complete(Verdict::Unknown(failure));
        }
    }
}

impl Delivery {
    pub(crate) fn new(batch: Arc<BatchCompletion>, index: u32, timestamp_ms: i64) -> Self {
        Self {
            batch,
            index,
            timestamp_ms,
        }
    }

    /// The outcome, if it is there.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        let verdict = self.batch.verdict.get()?;
        Some(Outcome::of(
            verdict,
            self.batch.partition,
            self.index,
            self.timestamp_ms,
        ))
    }

    /// Blocks until the outcome is there. Bounded by the delivery timeout.
    #[must_use]
    pub fn wait(self) -> Outcome {
        block_on(self)
    }
}

impl Future for Delivery {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        let waker = cx.waker().clone();
        let replaced = self.batch.waiting().set(self.index, waker);
        drop(replaced);
        // It may have come between the look and the registration.
        self.outcome().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.batch.verdict.get().is_none() {
            // The waker is somebody else's code: not under the lock.
            let waker = self.batch.waiting().clear(self.index);
            drop(waker);
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    loop {
        // Without a limit it only returns with the output.
        if let Some(output) = block_until(future.as_mut(), Time::NEVER) {
            return output;
        }
    }
}

/// Runs a future on this thread, at most for `limit`.
pub(crate) fn block_on_for<F: Future + Unpin>(future: F, limit: Duration) -> Option<F::Output> {
    block_until(std::pin::pin!(future), clock::now() + limit)
}

fn block_until<F: Future>(mut future: Pin<&mut F>, deadline: Time) -> Option<F::Output> {
    thread_local! {
        static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
    }
    // A thread that ends, and waits in a destructor, makes one for the occasion.
    let waker = WAKER
        .try_with(Waker::clone)
        .unwrap_or_else(|_| Waker::from(Arc::new(Unpark(thread::current()))));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
        if deadline == Time::NEVER {
            thread::park();
            continue;
        }
        let now = clock::now();
        if now >= deadline {
            return None;
        }
        thread::park_timeout(deadline.since(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acked() -> Verdict {
        Verdict::Acked {
            base_offset: Some(40),
            log_append_time_ms: None,
        }
    }

    #[test]
    fn records_of_a_batch_share_a_verdict_and_differ_in_offset() {
        let batch = BatchCompletion::new(3);
        let deliveries: Vec<_> = (0..3)
            .map(|i| Delivery::new(Arc::clone(&batch), i, 1000 + i64::from(i)))
            .collect();
        assert_eq!(deliveries[0].outcome(), None);
        batch.complete(acked());
        for (i, delivery) in (0_i64..).zip(deliveries) {
            let Outcome::Acked(ack) = delivery.wait() else {
                panic!("acked")
            };
            assert_eq!(
                (ack.partition, ack.offset, ack.timestamp_ms),
                (3, Some(40 + i), 1000 + i)
            );
        }
    }

    #[test]
    fn waiters_in_threads_are_woken_and_dropped_ones_leave_nothing() {
        let batch = BatchCompletion::new(0);
        let waiters: Vec<_> = (0..8)
            .map(|i| {
                let delivery = Delivery::new(Arc::clone(&batch), i, 0);
                thread::spawn(move || delivery.wait())
            })
            .collect();
        let mut dropped = Box::pin(Delivery::new(Arc::clone(&batch), 9, 0));
        let waker = Waker::noop();
        assert!(
            dropped
                .as_mut()
                .poll(&mut Context::from_waker(waker))
                .is_pending()
        );
        drop(dropped);
        assert!(batch.waiting().clear(9).is_none());
        batch.complete(acked());
        for waiter in waiters {
            assert!(matches!(waiter.join(), Ok(Outcome::Acked(_))));
        }
    }
}
