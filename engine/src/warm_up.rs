//! Waiting for connections to be ready before the first record.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use ringpost_core::time::Time;

/// One call's wait for one shard.
#[derive(Debug)]
pub(crate) struct WarmUp {
    deadline: Time,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    done: Option<bool>,
    waker: Option<Waker>,
}

impl WarmUp {
    pub(crate) fn new(deadline: Time) -> Arc<Self> {
        Arc::new(Self {
            deadline,
            state: Mutex::default(),
        })
    }

    pub(crate) fn deadline(&self) -> Time {
        self.deadline
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard tells how it stands. `true` when the wait is over.
    pub(crate) fn step(&self, warm: bool, now: Time) -> bool {
        let over = warm || now >= self.deadline;
        if over {
            let mut state = self.state();
            state.done = Some(warm);
            let waker = state.waker.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        over
    }
}

/// Whether the shard became warm in time.
pub(crate) struct Warm(pub(crate) Arc<WarmUp>);

impl Future for Warm {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.0.state();
        if let Some(done) = state.done {
            return Poll::Ready(done);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
