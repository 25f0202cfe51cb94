//! Waiting for memory.
//!
//! [`Take`] stands in the pool's queue from the call that made it until it is served, fails or is
//! dropped. What it waits for is put into its slot by whoever releases memory, so there is no gap
//! between being woken and having it: a wake-up that comes late, or never, loses nothing.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::pool::{Charge, Grant, Shared, Want};
use crate::segment::SegmentMut;

/// Why no memory was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeError {
    /// No segment, or not the whole budget, is so large: waiting would not help. Send less at
    /// once, or configure more memory.
    TooLarge {
        /// What was asked for, in bytes.
        wanted: usize,
    },
    /// The deadline came first. Send slower, wait longer, or configure more memory.
    TimedOut,
    /// The pool is closed; nothing is given out any more.
    Closed,
}

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TakeError::TooLarge { wanted } => {
                write!(
                    f,
                    "{wanted} bytes are more than the memory can ever hold at once"
                )
            }
            TakeError::TimedOut => f.write_str("no memory came free before the deadline"),
            TakeError::Closed => f.write_str("the memory pool is closed"),
        }
    }
}

impl std::error::Error for TakeError {}

/// The future of [`Pool::take`](crate::Pool::take).
#[must_use = "a future does nothing unless polled; dropping it leaves the queue"]
#[derive(Debug)]
pub struct Take(Waiting);

impl Take {
    pub(crate) fn new(
        shared: Arc<Shared>,
        want: Result<Want, TakeError>,
        deadline_ns: u64,
    ) -> Self {
        Self(Waiting::new(shared, want, deadline_ns))
    }
}

impl Future for Take {
    type Output = Result<SegmentMut, TakeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let grant = ready!(self.0.poll(cx));
        Poll::Ready(grant.map(|grant| match grant {
            Grant::Block(block) => SegmentMut::new(self.0.shared.clone(), block),
            Grant::Charge(_) => unreachable!("a block was wanted"),
        }))
    }
}

/// The future of [`Pool::take_charge`](crate::Pool::take_charge).
#[must_use = "a future does nothing unless polled; dropping it leaves the queue"]
#[derive(Debug)]
pub struct TakeCharge(Waiting);

impl TakeCharge {
    pub(crate) fn new(
        shared: Arc<Shared>,
        want: Result<Want, TakeError>,
        deadline_ns: u64,
    ) -> Self {
        Self(Waiting::new(shared, want, deadline_ns))
    }
}

impl Future for TakeCharge {
    type Output = Result<Charge, TakeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let grant = ready!(self.0.poll(cx));
        Poll::Ready(grant.map(|grant| match grant {
            Grant::Charge(bytes) => Charge::new(self.0.shared.clone(), bytes),
            Grant::Block(_) => unreachable!("a charge was wanted"),
        }))
    }
}

/// What both futures have in common.
#[derive(Debug)]
struct Waiting {
    shared: Arc<Shared>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Answered by the call already.
    Answered(Result<Grant, TakeError>),
    /// The slot in the queue. It is ours until we give it up.
    Slot(usize),
    /// The answer was handed over.
    Over,
}

impl Waiting {
    fn new(shared: Arc<Shared>, want: Result<Want, TakeError>, deadline_ns: u64) -> Self {
        let place = match want.and_then(|want| shared.grant_or_queue(want, deadline_ns)) {
            Ok(Ok(grant)) => Place::Answered(Ok(grant)),
            Ok(Err(slot)) => Place::Slot(slot),
            Err(error) => Place::Answered(Err(error)),
        };
        Self { shared, place }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Grant, TakeError>> {
        let answer = match std::mem::replace(&mut self.place, Place::Over) {
            Place::Answered(answer) => answer,
            Place::Slot(slot) => match self.shared.poll_slot(slot, cx.waker()) {
                Some(answer) => answer,
                None => {
                    self.place = Place::Slot(slot);
                    return Poll::Pending;
                }
            },
            Place::Over => panic!("polled again after it was ready"),
        };
        Poll::Ready(answer)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.place, Place::Over) {
            Place::Slot(slot) => self.shared.leave_slot(slot),
            Place::Answered(Ok(grant)) => self.shared.give_back(&grant),
            Place::Answered(Err(_)) | Place::Over => {}
        }
    }
}

/// Blocks the calling thread until `future` is ready or `max_wait` is over.
#[cfg(not(loom))]
pub(crate) fn block_on<F: Future>(future: F, max_wait: std::time::Duration) -> Option<F::Output> {
    use std::sync::{Condvar, Mutex, PoisonError};
    use std::task::{Wake, Waker};

    /// Rung once and for all wakes since the last look.
    #[derive(Default)]
    struct Bell {
        rung: Mutex<bool>,
        heard: Condvar,
    }
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.heard.notify_one();
        }
    }

    let mut future = std::pin::pin!(future);
    // Mostly it is ready at once; then no bell is needed.
    if let Poll::Ready(answer) = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        return Some(answer);
    }
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let mut cx = Context::from_waker(&waker);
    // The pool wakes a waiter once, when it is settled: one wait is enough, and its time needs not
    // be divided.
    if let Poll::Ready(answer) = future.as_mut().poll(&mut cx) {
        return Some(answer);
    }
    let rung = bell.rung.lock().unwrap_or_else(PoisonError::into_inner);
    drop(
        bell.heard
            .wait_timeout_while(rung, max_wait, |rung| !*rung)
            .unwrap_or_else(PoisonError::into_inner),
    );
    match future.as_mut().poll(&mut cx) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use std::time::Duration;

    use super::*;
    use crate::pool::Pool;

    const NEVER: u64 = u64::MAX;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn poll<F: Future + Unpin>(future: &mut F, wakes: &Arc<Count>) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(&Waker::from(wakes.clone())))
    }

    fn ready<T>(poll: Poll<T>) -> T {
        match poll {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("still pending"),
        }
    }

    #[test]
    fn is_served_at_once_when_there_is_memory() {
        let pool = Pool::new(8192, 8192).expect("a pool");
        let wakes = Arc::new(Count::default());
        let segment = ready(poll(&mut pool.take(8192, NEVER), &wakes)).expect("free");
        assert_eq!(segment.capacity(), 8192);
        drop(segment);
        drop(pool.take(8192, NEVER));
        assert_eq!(
            pool.in_use(),
            0,
            "a future that was never polled gives back too"
        );
    }

    /// Served in the order they came; a newcomer that would fit waits behind them.
    #[test]
    fn g2_waiters_are_served_in_order_and_nobody_overtakes() {
        let pool = Pool::new(8192, 8192).expect("a pool");
        let wakes = Arc::new(Count::default());
        let small = pool.try_take(1).expect("free");
        let mut first = pool.take(8192, NEVER);
        let mut second = pool.take(4096, NEVER);
        assert!(poll(&mut first, &wakes).is_pending());
        assert!(
            poll(&mut second, &wakes).is_pending(),
            "4 KiB are free, but the first is first"
        );
        assert!(pool.try_take(1).is_none());
        assert!(pool.try_charge(0).is_none());
        assert_eq!((pool.waiting(), wakes.get()), (2, 0));
        drop(small);
        assert_eq!((pool.waiting(), wakes.get()), (1, 1));
        assert_eq!(pool.in_use(), 8192, "granted before it is collected");
        let large = ready(poll(&mut first, &wakes)).expect("granted");
        assert!(poll(&mut second, &wakes).is_pending());
        drop(large);
        assert_eq!(wakes.get(), 2);
        drop(ready(poll(&mut second, &wakes)).expect("granted"));
        assert_eq!((pool.in_use(), pool.invariants().1), (0, 0));
    }

    #[test]
    fn one_release_serves_all_it_can() {
        let pool = Pool::new(8192, 8192).expect("a pool");
        let wakes = Arc::new(Count::default());
        let large = pool.try_take(8192).expect("free");
        let mut charge = pool.take_charge(4000, NEVER);
        let mut segment = pool.take(1, NEVER);
        let mut last = pool.take(1, NEVER);
        assert!(poll(&mut charge, &wakes).is_pending());
        assert!(poll(&mut segment, &wakes).is_pending());
        assert!(poll(&mut last, &wakes).is_pending());
        drop(large);
        assert_eq!((wakes.get(), pool.in_use(), pool.waiting()), (2, 8096, 1));
        let charge = ready(poll(&mut charge, &wakes)).expect("granted");
        assert_eq!(charge.bytes(), 4000);
        drop(charge);
        assert_eq!(wakes.get(), 3);
        pool.invariants();
    }

    /// The next in line is woken and served with what the dropped one would have had.
    #[test]
    fn g2_dropping_a_waiter_passes_its_turn_and_its_memory_on() {
        let pool = Pool::new(8192, 8192).expect("a pool");
        let wakes = Arc::new(Count::default());
        let small = pool.try_take(1).expect("free");
        let mut first = pool.take(8192, NEVER);
        let mut second = pool.take(1, NEVER);
        assert!(poll(&mut first, &wakes).is_pending());
        assert!(poll(&mut second, &wakes).is_pending());
        drop(first); // its turn
        assert_eq!(wakes.get(), 1);
        let mut third = pool.take(1, NEVER);
        assert!(poll(&mut third, &wakes).is_pending());
        drop(second); // its memory
        assert_eq!(wakes.get(), 2);
        assert!(ready(poll(&mut third, &wakes)).is_ok());
        drop(small);
        assert_eq!(pool.invariants().1, 0, "no slot is left behind");
    }

    #[test]
    fn slots_are_reused() {
        let pool = Pool::new(4096, 4096).expect("a pool");
        let held = pool.try_take(1).expect("free");
        for _ in 0..100 {
            let takes: Vec<_> = (0..3).map(|_| pool.take(1, NEVER)).collect();
            assert_eq!(pool.waiting(), 3);
            drop(takes);
        }
        assert_eq!(pool.invariants(), (3, 0));
        drop(held);
    }

    /// TooLarge at once, not behind the line.
    #[test]
    fn g4_too_large_fails_at_once_even_while_others_wait() {
        let pool = Pool::new(8192, 4096).expect("a pool");
        let wakes = Arc::new(Count::default());
        let large = ready(poll(&mut pool.take(4097, NEVER), &wakes));
        assert_eq!(
            large.expect_err("refused"),
            TakeError::TooLarge { wanted: 4097 }
        );
        let charge = ready(poll(&mut pool.take_charge(8193, NEVER), &wakes));
        assert_eq!(
            charge.expect_err("refused"),
            TakeError::TooLarge { wanted: 8193 }
        );
        assert!(pool.take_blocking(usize::MAX, Duration::MAX).is_err());
    }

    /// Those whose time is over fail, the rest are served in order.
    #[test]
    fn g2_expire_fails_those_who_are_due_and_serves_the_rest() {
        let pool = Pool::new(8192, 8192).expect("a pool");
        let wakes = Arc::new(Count::default());
        let small = pool.try_take(1).expect("free");
        let mut first = pool.take(8192, 100);
        let mut second = pool.take(1, 200);
        let mut third = pool.take(1, 150);
        assert!(poll(&mut first, &wakes).is_pending());
        assert!(poll(&mut second, &wakes).is_pending());
        assert!(poll(&mut third, &wakes).is_pending());
        assert_eq!(pool.next_deadline_ns(), Some(100));
        assert_eq!(pool.expire(99), 0);
        assert_eq!(pool.expire(100), 1);
        assert_eq!(wakes.get(), 2, "the first failed, the second served");
        assert_eq!(
            ready(poll(&mut first, &wakes)).expect_err("due"),
            TakeError::TimedOut
        );
        assert!(ready(poll(&mut second, &wakes)).is_ok());
        pool.invariants();
        drop(small);
        // What was granted before its time stays granted.
        assert_eq!(pool.expire(1000), 0);
        assert!(ready(poll(&mut third, &wakes)).is_ok());
        assert_eq!(pool.next_deadline_ns(), None);
    }

    /// Waiters and newcomers get Closed; segments that are out stay good.
    #[test]
    fn g2_c1_close_fails_waiters_and_newcomers_and_leaves_segments() {
        let pool = Pool::new(4096, 4096).expect("a pool");
        let wakes = Arc::new(Count::default());
        let mut held = pool.try_take(1).expect("free");
        let mut waiter = pool.take(1, NEVER);
        assert!(poll(&mut waiter, &wakes).is_pending());
        pool.close();
        assert_eq!(wakes.get(), 1);
        assert_eq!(
            ready(poll(&mut waiter, &wakes)).expect_err("closed"),
            TakeError::Closed
        );
        held.spare_mut().fill(1);
        drop(held);
        assert!(pool.try_take(1).is_none());
        let late = ready(poll(&mut pool.take(1, NEVER), &wakes));
        assert_eq!(late.expect_err("closed"), TakeError::Closed);
        assert_eq!((pool.in_use(), pool.invariants().1), (0, 0));
    }

    struct Bad;
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("on purpose");
        }
    }

    /// The others in line are woken and served.
    #[test]
    fn g2_a_waker_that_panics_costs_nobody_his_turn() {
        let pool = Pool::new(8192, 8192).expect("a pool");
        let held = pool.try_take(8192).expect("free");
        let bad = Waker::from(Arc::new(Bad));
        let mut first = pool.take(1, NEVER);
        assert!(
            std::pin::Pin::new(&mut first)
                .poll(&mut Context::from_waker(&bad))
                .is_pending()
        );
        let wakes = Arc::new(Count::default());
        let mut second = pool.take(1, NEVER);
        assert!(poll(&mut second, &wakes).is_pending());
        drop(held);
        assert_eq!(wakes.get(), 1);
        assert!(ready(poll(&mut first, &wakes)).is_ok());
        assert!(ready(poll(&mut second, &wakes)).is_ok());
    }

    #[test]
    fn blocking_takes_are_served_by_other_threads() {
        let pool = Pool::new(4096, 4096).expect("a pool");
        let held = pool.try_take(1).expect("free");
        assert_eq!(
            pool.take_blocking(1, Duration::ZERO)
                .expect_err("nothing free"),
            TakeError::TimedOut
        );
        assert_eq!(pool.waiting(), 0);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| pool.take_blocking(1, Duration::MAX).map(drop));
            while pool.waiting() == 0 {
                std::thread::yield_now();
            }
            drop(held);
            assert_eq!(waiter.join().expect("no panic"), Ok(()));
        });
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn errors_say_what_to_do() {
        let text = TakeError::TooLarge { wanted: 7 }.to_string();
        assert_eq!(
            text,
            "7 bytes are more than the memory can ever hold at once"
        );
    }
}
