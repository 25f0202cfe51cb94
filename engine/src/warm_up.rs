//! Waiting for connections to be ready before the first record.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use ringpost_core::time::Time;

use crate::delivery::wake_all;

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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, warm: bool) {
        let mut state = self.state();
        if state.done.is_some() {
            return;
        }
        state.done = Some(warm);
        let waker = state.waker.take();
        drop(state);
        wake_all(waker);
    }
}

/// A shard's duty to end the wait. Dropped undone, because the shard ends or has ended, it says that
/// nothing is warm.
#[derive(Debug)]
pub(crate) struct Duty(pub(crate) Arc<WarmUp>);

impl Duty {
    /// When to give up.
    pub(crate) fn deadline(&self) -> Time {
        self.0.deadline
    }

    /// The shard tells how it stands. `true` when the wait is over.
    pub(crate) fn step(&self, warm: bool, now: Time) -> bool {
        let over = warm || now >= self.0.deadline;
        if over {
            self.0.finish(warm);
        }
        over
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        self.0.finish(false);
    }
}

/// Whether the shard became warm in time.
pub(crate) struct Warm(pub(crate) Arc<WarmUp>);

impl Future for Warm {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        // Cloned and dropped without the lock: it is somebody else's code.
        let waker = cx.waker().clone();
        let mut state = self.0.state();
        if let Some(done) = state.done {
            return Poll::Ready(done);
        }
        let replaced = state.waker.replace(waker);
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}
