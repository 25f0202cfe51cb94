//! How much of the memory may wait behind brokers that are avoided or dead, and who waits for that to
//! become less.
//!
//! Without a bound, one dead broker's records fill the memory, and then nobody's records are taken,
//! though all other brokers are well. So a lane whose broker is avoided, dead, or unknown gets memory
//! for further records only while all such lanes together hold less than their share.
//!
//! Counted per segment and per batch, never per record. Each lane knows what it holds, and how much
//! of that is counted here; both change together, so what is counted here is always the sum of what
//! the lanes have counted. Appenders and a shard that change a lane's standing may pass each other:
//! then a segment is counted twice until the lane is empty or well again.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use ringpost_core::time::Time;

use crate::delivery::wake_all;
use crate::driver::clock;

/// What happens to a record for a partition whose broker is avoided or dead, when as much memory as
/// [`Builder::bulkhead`](crate::Builder::bulkhead) allows waits behind such brokers already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLaneUnavailable {
    /// `send` waits, at most for `max_block`; calls that do not wait say
    /// [`Full`](crate::TrySendError::Full).
    #[default]
    Wait,
    /// It is refused at once, as [`Avoided`](crate::TrySendError::Avoided).
    FailFast,
    /// It is taken, ends at once as `NotWritten` with [`Why::Avoided`](crate::Why::Avoided), and
    /// becomes a dead letter. When there is no memory for that either, it is refused as with
    /// `FailFast`; so is what [`Topic::extend`](crate::Topic::extend) brings.
    DeadLetter,
}

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    bytes_max: usize,
    pub(crate) policy: OnLaneUnavailable,
    held: AtomicUsize,
    waits: Mutex<Waits>,
}

#[derive(Debug, Default)]
struct Waits {
    /// Changes when there may be room.
    round: u64,
    next: u64,
    /// In the order they came.
    waiting: BTreeMap<u64, (Time, Option<Waker>)>,
    closed: bool,
}

impl Bulkhead {
    pub(crate) fn new(bytes_max: usize, policy: OnLaneUnavailable) -> Self {
        Self {
            bytes_max,
            policy,
            held: AtomicUsize::new(0),
            waits: Mutex::default(),
        }
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits behind such brokers.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether so much more is too much.
    pub(crate) fn is_full_for(&self, bytes: usize) -> bool {
        self.held().saturating_add(bytes) > self.bytes_max
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Less waits. Returns how many wakers panicked.
    pub(crate) fn take_off(&self, bytes: usize) -> u64 {
        if bytes == 0 {
            return 0;
        }
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.wake()
    }

    /// Those who wait look again.
    fn wake(&self) -> u64 {
        let mut waits = self.waits();
        waits.round += 1;
        let waiting = std::mem::take(&mut waits.waiting);
        drop(waits);
        wake_all(waiting.into_values().filter_map(|(_, waker)| waker))
    }

    /// Nobody needs to wait any more.
    pub(crate) fn close(&self) -> u64 {
        self.waits().closed = true;
        self.wake()
    }

    /// Waits until there may be room, or until `deadline`. Begin the wait before looking for room.
    pub(crate) fn room(self: &Arc<Self>, deadline: Time) -> Room {
        let mut waits = self.waits();
        waits.next += 1;
        let (number, round) = (waits.next, waits.round);
        waits.waiting.insert(number, (deadline, None));
        Room {
            bulkhead: Arc::clone(self),
            number,
            round,
            deadline,
        }
    }

    /// When [`Bulkhead::expire`] must be called.
    pub(crate) fn next_deadline(&self) -> Time {
        let waits = self.waits();
        let deadlines = waits.waiting.values().map(|(deadline, _)| *deadline);
        deadlines.min().unwrap_or(Time::NEVER)
    }

    /// Ends the waits whose time is over.
    pub(crate) fn expire(&self, now: Time) -> u64 {
        let mut waits = self.waits();
        let due = |deadline: &Time| *deadline <= now;
        if !waits.waiting.values().any(|(deadline, _)| due(deadline)) {
            return 0;
        }
        let waiting = std::mem::take(&mut waits.waiting);
        let (over, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(_, w)| due(&w.0));
        waits.waiting.extend(rest);
        drop(waits);
        wake_all(over.into_iter().filter_map(|(_, (_, waker))| waker))
    }
}

/// A wait for room. `false`: the time is over.
#[derive(Debug)]
pub(crate) struct Room {
    bulkhead: Arc<Bulkhead>,
    number: u64,
    round: u64,
    deadline: Time,
}

impl Future for Room {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        // Cloned and dropped without the lock: it is somebody else's code.
        let waker = cx.waker().clone();
        let over = clock::now() >= self.deadline;
        let mut waits = self.bulkhead.waits();
        if waits.closed || waits.round != self.round {
            return Poll::Ready(true);
        }
        if over {
            return Poll::Ready(false);
        }
        let replaced = waits
            .waiting
            .insert(self.number, (self.deadline, Some(waker)));
        drop(waits);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let waker = self.bulkhead.waits().waiting.remove(&self.number);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wait for room ends when some comes free, when its time is over and when the producer is
    /// closed; one that is dropped leaves nothing to wait for.
    #[test]
    fn g2_waits_for_room_end_with_room_with_time_and_when_dropped() {
        let bulkhead = Arc::new(Bulkhead::new(100, OnLaneUnavailable::Wait));
        bulkhead.add(100);
        assert!(bulkhead.is_full_for(1) && !bulkhead.is_full_for(0));
        let mut cx = Context::from_waker(Waker::noop());
        let mut poll = |room: &mut Room| Pin::new(room).poll(&mut cx);
        let later = clock::now() + std::time::Duration::from_secs(3600);
        let mut room = bulkhead.room(later);
        assert!(poll(&mut room).is_pending());
        assert_eq!(bulkhead.next_deadline(), later);
        bulkhead.expire(clock::now());
        assert!(poll(&mut room).is_pending());
        bulkhead.take_off(10);
        assert_eq!(poll(&mut room), Poll::Ready(true));
        let mut late = bulkhead.room(Time(1));
        assert_eq!(poll(&mut late), Poll::Ready(false));
        // It leaves with its owner.
        drop(late);
        let mut dropped = bulkhead.room(later);
        assert!(poll(&mut dropped).is_pending());
        drop(dropped);
        assert_eq!(bulkhead.next_deadline(), Time::NEVER);
        bulkhead.close();
        assert_eq!(poll(&mut bulkhead.room(later)), Poll::Ready(true));
        assert_eq!(bulkhead.held(), 90);
    }
}
