//! Waiting for the outcome of one record.
//!
//! A batch has one outcome for all its records, stored once; a [`Delivery`] is a share in it and a
//! number. So a thousand records that are waited for cost one allocation, and none costs one when
//! nobody waits. Only a batch that a broker found too large, and that was divided, has an outcome for
//! each part.

use std::future::Future;
use std::mem;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use ringpost_core::outcome::Verdict;
use ringpost_core::time::Time;

use crate::driver::clock;
use crate::outcome::{Failure, Outcome, Why};
use crate::panics::goes_well;

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
    /// Where it goes. Batches can be moved before they are sent; then this is set before a verdict.
    partition: AtomicI32,
    /// Of all its records.
    verdict: OnceLock<Verdict>,
    /// The batch was divided: its parts have verdicts of their own, in `waiting`.
    divided: AtomicBool,
    /// Promises that hold it.
    promises: AtomicUsize,
    waiting: Mutex<Waiting>,
}

/// Who waits. Most batches are waited for at one record at a time, so the first waiter has a place
/// that needs no memory. The others are in the records' order, so that finding one among thousands
/// is no search through all.
#[derive(Debug, Default)]
struct Waiting {
    first: Option<(u32, Waker)>,
    others: Vec<(u32, Waker)>,
    /// The records of each part that has its verdict.
    parts: Vec<(Range<u32>, Verdict)>,
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

    /// Takes out all who wait for records of a part.
    fn take(&mut self, part: &Range<u32>) -> Vec<Waker> {
        let first = self.first.take_if(|(of, _)| part.contains(of));
        let at = |record| self.others.partition_point(|(of, _)| *of < record);
        let (from, to) = (at(part.start), at(part.end));
        let others = self.others.drain(from..to);
        first
            .into_iter()
            .chain(others)
            .map(|(_, waker)| waker)
            .collect()
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
        panics += u64::from(!goes_well(|| waker.wake()));
    }
    panics
}

impl BatchCompletion {
    pub(crate) fn new(partition: i32) -> Arc<Self> {
        Arc::new(Self {
            partition: AtomicI32::new(partition),
            verdict: OnceLock::new(),
            divided: AtomicBool::new(false),
            promises: AtomicUsize::new(0),
            waiting: Mutex::default(),
        })
    }

    fn partition(&self) -> i32 {
        // Set before the verdict that was just seen.
        self.partition.load(Ordering::Relaxed)
    }

    /// The outcome of a record, if it is there.
    fn outcome(&self, index: u32, timestamp_ms: i64) -> Option<Outcome> {
        if let Some(verdict) = self.verdict.get() {
            return Some(Outcome::of(verdict, self.partition(), index, timestamp_ms));
        }
        if !self.divided.load(Ordering::Acquire) {
            return None;
        }
        let waiting = self.waiting();
        let is_its = |(part, _): &&(Range<u32>, Verdict)| part.contains(&index);
        let (part, verdict) = waiting.parts.iter().find(is_its)?;
        let index = index - part.start;
        Some(Outcome::of(verdict, self.partition(), index, timestamp_ms))
    }

    /// Gives the verdict on some of its records and wakes all who wait for those. Returns how many
    /// wakers panicked.
    fn complete_part(&self, part: Range<u32>, verdict: Verdict) -> u64 {
        let mut waiting = self.waiting();
        let wakers = waiting.take(&part);
        waiting.parts.push((part, verdict));
        drop(waiting);
        wake_all(wakers)
    }

    /// Gives the verdict and wakes all who wait. Returns how many wakers panicked.
    pub(crate) fn complete(&self, verdict: Verdict) -> u64 {
        let first_time = self.verdict.set(verdict).is_ok();
        debug_assert!(first_time, "a batch has one verdict");
        let Waiting { first, others, .. } = mem::take(&mut *self.waiting());
        let wakers = first.into_iter().chain(others).map(|(_, waker)| waker);
        wake_all(wakers)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here can panic half way; a poisoned lock only tells of a panic elsewhere.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to complete a batch, or a part of one that was divided. Dropped undone, because its
/// shard ended by a bug, it says so to those who wait instead of leaving them waiting.
#[derive(Debug)]
pub(crate) struct Promise {
    batch: Arc<BatchCompletion>,
    /// Shares given out.
    shares: usize,
    /// The records it is for; `None`: all.
    part: Option<Range<u32>>,
    kept: bool,
}

impl Promise {
    pub(crate) fn new(partition: i32) -> Self {
        Self::of(BatchCompletion::new(partition), 0, None)
    }

    fn of(batch: Arc<BatchCompletion>, shares: usize, part: Option<Range<u32>>) -> Self {
        batch.promises.fetch_add(1, Ordering::Relaxed);
        Self {
            batch,
            shares,
            part,
            kept: false,
        }
    }

    /// A share for one who waits.
    #[inline]
    pub(crate) fn share(&mut self) -> Arc<BatchCompletion> {
        self.shares += 1;
        Arc::clone(&self.batch)
    }

    /// The batch is divided: the first `at` of the records it is for stay, the rest is given back.
    pub(crate) fn divide(&mut self, at: u32) -> Self {
        self.batch.divided.store(true, Ordering::Release);
        let all = self.part.take().unwrap_or(0..u32::MAX);
        let seam = all.start + at;
        self.part = Some(all.start..seam);
        Self::of(Arc::clone(&self.batch), self.shares, Some(seam..all.end))
    }

    /// Whether shares were dropped: records nobody waits for any more.
    pub(crate) fn has_dropped_shares(&self) -> bool {
        let promises = self.batch.promises.load(Ordering::Relaxed);
        Arc::strong_count(&self.batch) - promises < self.shares
    }

    /// The batch, or this part of it, has its verdict, and went to this partition: all parts go to the
    /// same. Returns how many wakers panicked.
    pub(crate) fn keep(mut self, partition: i32, verdict: Verdict) -> u64 {
        self.batch.partition.store(partition, Ordering::Relaxed);
        self.complete(verdict)
    }

    fn complete(&mut self, verdict: Verdict) -> u64 {
        self.kept = true;
        match self.part.take() {
            None => self.batch.complete(verdict),
            Some(part) => self.batch.complete_part(part, verdict),
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.kept {
            self.complete(Verdict::Unknown(Failure::new(Why::ShardLost)));
        }
        self.batch.promises.fetch_sub(1, Ordering::Relaxed);
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
        self.batch.outcome(self.index, self.timestamp_ms)
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

    /// Each record of a divided batch has its own part's outcome and offset, and who waits for it is
    /// woken by that part and no other; a part that is lost says so.
    #[test]
    fn b3_records_of_a_divided_batch_have_their_own_parts_outcomes() {
        let mut first = Promise::new(3);
        let mut deliveries: Vec<_> = (0..6)
            .map(|i| Delivery::new(first.share(), i, 1000 + i64::from(i)))
            .collect();
        let woken: Vec<_> = deliveries
            .iter_mut()
            .map(|delivery| {
                let woken = Arc::new(Woken(AtomicBool::new(false)));
                let waker = Waker::from(Arc::clone(&woken));
                assert!(
                    Pin::new(delivery)
                        .poll(&mut Context::from_waker(&waker))
                        .is_pending()
                );
                woken
            })
            .collect();
        let mut second = first.divide(2);
        let third = second.divide(3);
        assert!(!first.has_dropped_shares());
        let acked = |base_offset| Verdict::Acked {
            base_offset: Some(base_offset),
            log_append_time_ms: None,
        };
        let seen = || woken.iter().map(|woken| woken.0.load(Ordering::Relaxed));
        second.keep(0, acked(70));
        assert!(seen().eq([false, false, true, true, true, false]));
        assert_eq!(deliveries[0].outcome(), None);
        first.keep(0, acked(40));
        drop(third);
        assert!(seen().eq([true; 6]));
        let offsets = deliveries.iter().map(|delivery| match delivery.outcome() {
            Some(Outcome::Acked(ack)) => ack.offset,
            Some(Outcome::Unknown(failure)) => {
                assert_eq!(failure.why, Why::ShardLost);
                None
            }
            other => panic!("{other:?}"),
        });
        assert!(offsets.eq([Some(40), Some(41), Some(70), Some(71), Some(72), None]));
    }

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
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
