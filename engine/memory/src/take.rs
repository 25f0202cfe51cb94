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
