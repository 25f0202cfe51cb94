//! Models for loom: every order in which threads can meet in counts, last drops and grants.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p ringpost-memory --release --lib`. A thread that
//! waits for ever is a deadlock to loom, and the cell beside each page reports a read that races
//! with the next owner's write; so the models mostly just do things.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Notify;
use loom::thread;

use crate::pool::Pool;
use crate::segment::Segment;
use crate::take::TakeError;

const PAGE: usize = 4096;
const NEVER: u64 = u64::MAX;

/// Waits on the calling thread, as an executor would.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Bell(Notify);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.notify();
        }
    }
    let bell = Arc::new(Bell(Notify::new()));
    let waker = Waker::from(bell.clone());
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => bell.0.wait(),
        }
    }
}

fn pool(pages: usize) -> Pool {
    Pool::new(pages * PAGE, PAGE).expect("a pool")
}

fn written(pool: &Pool) -> Segment {
    let mut segment = pool.try_take(1).expect("free");
    segment.spare_mut()[0] = 1;
    segment.commit(1);
    segment.freeze()
}

#[test]
fn the_last_reader_is_before_the_next_writer() {
    loom::model(|| {
        let pool = pool(1);
        let segment = written(&pool);
        let readers = [segment.clone(), segment].map(|segment| {
            thread::spawn(move || {
                assert_eq!(segment[0], 1);
            })
        });
        let mut next = block_on(pool.take(1, NEVER)).expect("granted when both are gone");
        next.spare_mut()[0] = 2;
        for reader in readers {
            reader.join().expect("no panic");
        }
        drop(next);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn clones_made_and_dropped_by_two_threads_are_all_counted() {
    loom::model(|| {
        let pool = pool(1);
        let segment = written(&pool);
        let here = segment.clone();
        let other = thread::spawn(move || {
            let clone = segment.clone();
            drop(segment);
            assert_eq!(clone[0], 1);
        });
        let clone = here.clone();
        drop(here);
        assert_eq!(clone[0], 1);
        drop(clone);
        other.join().expect("no panic");
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn at_most_one_of_two_holders_writes_again() {
    loom::model(|| {
        let pool = pool(1);
        let segment = written(&pool);
        let clone = segment.clone();
        let again = |segment: Segment| match segment.try_into_mut() {
            Ok(mut owned) => {
                owned.filled_mut()[0] += 1;
                true
            }
            Err(shared) => {
                assert_eq!(shared[0], 1);
                false
            }
        };
        let other = thread::spawn(move || again(clone));
        let here = again(segment);
        let there = other.join().expect("no panic");
        assert!(!(here && there));
        assert_eq!(pool.in_use(), 0);
    });
}

/// In every interleaving the waiter gets the memory that was released.
#[test]
fn g2_a_release_is_never_lost_on_a_waiter_that_comes_or_goes() {
    loom::model(|| {
        let pool = pool(1);
        let held = pool.try_take(1).expect("free");
        let leaver = pool.take(1, NEVER);
        let releases = thread::spawn(move || drop(held));
        let leaves = thread::spawn(move || drop(leaver));
        drop(block_on(pool.take(1, NEVER)).expect("granted"));
        releases.join().expect("no panic");
        leaves.join().expect("no panic");
        assert_eq!((pool.in_use(), pool.waiting()), (0, 0));
    });
}

#[test]
fn two_waiters_share_one_page_in_turn() {
    loom::model(|| {
        let pool = pool(1);
        let held = pool.try_take(1).expect("free");
        let second = pool.clone();
        let other = thread::spawn(move || {
            let mut segment = block_on(second.take(1, NEVER)).expect("granted");
            segment.spare_mut()[0] = 2;
        });
        drop(held);
        let mut segment = block_on(pool.take(1, NEVER)).expect("granted");
        segment.spare_mut()[0] = 3;
        drop(segment);
        other.join().expect("no panic");
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn a_deadline_and_a_release_give_one_answer() {
    loom::model(|| {
        let pool = pool(1);
        let held = pool.try_take(1).expect("free");
        let take = pool.take(1, 10);
        let clock = pool.clone();
        let expires = thread::spawn(move || clock.expire(10));
        let releases = thread::spawn(move || drop(held));
        match block_on(take) {
            Ok(segment) => drop(segment),
            Err(error) => assert_eq!(error, TakeError::TimedOut),
        }
        releases.join().expect("no panic");
        assert!(expires.join().expect("no panic") <= 1);
        assert_eq!((pool.in_use(), pool.waiting()), (0, 0));
    });
}

#[test]
fn nobody_waits_in_a_closed_pool() {
    loom::model(|| {
        let pool = pool(1);
        let held = pool.try_take(1).expect("free");
        let closer = pool.clone();
        let closes = thread::spawn(move || closer.close());
        assert_eq!(
            block_on(pool.take(1, NEVER)).expect_err("closed"),
            TakeError::Closed
        );
        closes.join().expect("no panic");
        drop(held);
        assert_eq!((pool.in_use(), pool.waiting()), (0, 0));
    });
}
