//! How much of the memory may wait behind brokers that are avoided or dead, and who waits for that to
//! become less.
//!
//! Without a bound, one dead broker's records fill the memory, and then nobody's records are taken,
//! though all other brokers are well. So a lane whose broker is avoided, dead, or unknown gets memory
//! for further records only while all such lanes together hold less than their share.
//!
//! Counted per segment and per batch, never per record. Each lane knows what it holds, and how much
//! of that is counted here. It is counted here first and taken off here last, so what is counted here
//! is never less than what the lanes have counted. Appenders and a shard that change a lane's standing
//! may pass each other: then a segment is counted twice until the lane is empty or well again. And
//! whoever does not wait looks first and counts when the segment is there: as many segments more than
//! the bound may be held as threads do that at the same moment.
//!
//! *Waiting.* Whoever waits stands in line, in the order they came, and while somebody does nobody
//! else gets room. Room that comes free is given to the first in line: it is counted for them from
//! then on, so nobody can take it before they are awake, and only they are woken. Dropped, a wait
//! gives its room, or its place, to the next. Who waits for a lane that is well again, or gone, needs
//! no room any more and is woken whatever their place; so is everybody when the producer closes. What
//! never fits waits only for that, and holds nobody up.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use ringpost_core::id::LaneId;
use ringpost_core::time::Time;

use crate::delivery::wake_all;
use crate::driver::clock;
use crate::panics::Panics;
use crate::sync::{AtomicUsize, Mutex, MutexGuard};

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
    /// What lanes count, and what was given to those who waited and was not used yet.
    held: AtomicUsize,
    /// How many stand in line. Written under the lock.
    in_line: AtomicUsize,
    waits: Mutex<Waits>,
    panics: Arc<Panics>,
}

#[derive(Debug, Default)]
struct Waits {
    next: u64,
    /// Who waits, in the order they came.
    waiting: BTreeMap<u64, Waiting>,
    /// Whose wait is over and who have not looked yet.
    answered: BTreeMap<u64, Answer>,
    closed: bool,
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    /// So much room.
    pub(crate) bytes: usize,
    /// Or that this lane is well again; `None`: any.
    pub(crate) lane: Option<LaneKey>,
}

/// A lane, by its shard's number and its own.
pub(crate) type LaneKey = (usize, LaneId);

#[derive(Debug)]
struct Waiting {
    want: Want,
    deadline: Time,
    waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// So much room, which is theirs.
    Room(usize),
    /// The lane is well or gone, or the producer is closed.
    LookAgain,
    /// The time is over.
    Over,
}

impl Bulkhead {
    pub(crate) fn new(bytes_max: usize, policy: OnLaneUnavailable, panics: Arc<Panics>) -> Self {
        Self {
            bytes_max,
            policy,
            held: AtomicUsize::new(0),
            in_line: AtomicUsize::new(0),
            waits: Mutex::default(),
            panics,
        }
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits behind such brokers.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether so much more is too much, for one who does not wait.
    pub(crate) fn is_full_for(&self, bytes: usize) -> bool {
        self.in_line.load(Ordering::Relaxed) > 0 || !self.has_room_for(bytes)
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.held().saturating_add(bytes) <= self.bytes_max
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Less waits.
    pub(crate) fn take_off(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.serve(self.waits(), Vec::new());
    }

    /// This lane's records need no room any more, or will never go anywhere.
    pub(crate) fn lane_is_released(&self, lane: LaneKey) {
        let its = |want: &Want| want.lane.is_none_or(|wanted| wanted == lane);
        self.answer_all(Answer::LookAgain, |waiting| its(&waiting.want));
    }

    /// Nobody needs to wait any more.
    pub(crate) fn close(&self) {
        self.waits().closed = true;
        self.answer_all(Answer::LookAgain, |_| true);
    }

    /// When [`Bulkhead::expire`] must be called.
    pub(crate) fn next_deadline(&self) -> Time {
        let waits = self.waits();
        let deadlines = waits.waiting.values().map(|waiting| waiting.deadline);
        deadlines.min().unwrap_or(Time::NEVER)
    }

    /// Ends the waits whose time is over.
    pub(crate) fn expire(&self, now: Time) {
        self.answer_all(Answer::Over, |waiting| waiting.deadline <= now);
    }

    /// Ends the waits of some. Those behind them may have their turn then.
    fn answer_all(&self, answer: Answer, is_one: impl Fn(&Waiting) -> bool) {
        let mut waits = self.waits();
        let those = waits.waiting.iter().filter(|(_, waiting)| is_one(waiting));
        let those: Vec<u64> = those.map(|(number, _)| *number).collect();
        if those.is_empty() {
            return;
        }
        let answered = those.into_iter();
        let wakers = answered.filter_map(|number| self.answer(&mut waits, number, answer));
        let wakers = wakers.collect();
        self.serve(waits, wakers);
    }

    /// Gives room to those who stand in line, as long as there is some, and wakes them and these
    /// others, without the lock.
    fn serve(&self, mut waits: MutexGuard<'_, Waits>, mut wakers: Vec<Waker>) {
        while self.in_line.load(Ordering::Relaxed) > 0 {
            let mut line = waits.waiting.iter();
            let first = line.find(|(_, waiting)| self.fits_ever(&waiting.want));
            let Some((number, bytes)) = first.map(|(n, waiting)| (*n, waiting.want.bytes)) else {
                break;
            };
            let more = |held: usize| Some(held + bytes).filter(|held| *held <= self.bytes_max);
            let (order, on_failure) = (Ordering::Relaxed, Ordering::Relaxed);
            if self.held.fetch_update(order, on_failure, more).is_err() {
                break;
            }
            wakers.extend(self.answer(&mut waits, number, Answer::Room(bytes)));
        }
        drop(waits);
        self.panics.count(wake_all(wakers));
    }

    /// Ends a wait. Returns its waker, to be called or dropped without the lock.
    fn answer(&self, waits: &mut Waits, number: u64, answer: Answer) -> Option<Waker> {
        let waker = self.leave(waits, number);
        waits.answered.insert(number, answer);
        waker
    }

    fn leave(&self, waits: &mut Waits, number: u64) -> Option<Waker> {
        let waiting = waits.waiting.remove(&number)?;
        if self.fits_ever(&waiting.want) {
            self.in_line.fetch_sub(1, Ordering::Relaxed);
        }
        waiting.waker
    }

    fn fits_ever(&self, want: &Want) -> bool {
        want.bytes <= self.bytes_max
    }

    /// Joins the end of the line, until there is room, or until `deadline`. To be called before the
    /// last look at the lane.
    pub(crate) fn room(self: &Arc<Self>, want: Want, deadline: Time) -> Room {
        let mut waits = self.waits();
        waits.next += 1;
        let number = waits.next;
        drop(waits);
        let mut room = Room {
            bulkhead: Arc::clone(self),
            number,
            deadline,
            given: 0,
            stands: false,
        };
        room.stand_in_line(want);
        room
    }
}

/// A place in the line, and the room that was given to it. `false`: the time is over.
#[derive(Debug)]
pub(crate) struct Room {
    bulkhead: Arc<Bulkhead>,
    number: u64,
    deadline: Time,
    given: usize,
    stands: bool,
}

impl Room {
    /// What was given; kept until this is dropped or stands in line again.
    pub(crate) fn given(&self) -> usize {
        self.given
    }

    /// Whether it was not answered yet.
    pub(crate) fn stands(&self) -> bool {
        self.stands
    }

    /// What was given is not enough, or was taken back with the lane's standing: waits for this
    /// instead, where it stood before.
    pub(crate) fn stand_in_line(&mut self, want: Want) {
        let bulkhead = &*self.bulkhead;
        bulkhead.held.fetch_sub(self.given, Ordering::Relaxed);
        self.given = 0;
        self.stands = true;
        let mut waits = bulkhead.waits();
        if waits.closed {
            waits.answered.insert(self.number, Answer::LookAgain);
        } else {
            let waiting = Waiting {
                want,
                deadline: self.deadline,
                waker: None,
            };
            waits.waiting.insert(self.number, waiting);
            if bulkhead.fits_ever(&want) {
                bulkhead.in_line.fetch_add(1, Ordering::Relaxed);
            }
        }
        bulkhead.serve(waits, Vec::new());
    }
}

impl Future for Room {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        // Cloned and dropped without the lock: it is somebody else's code.
        let mut waker = Some(cx.waker().clone());
        let over = clock::now() >= self.deadline;
        let mut waits = self.bulkhead.waits();
        let answer = waits.answered.remove(&self.number);
        if let (None, false, Some(waiting)) = (answer, over, waits.waiting.get_mut(&self.number)) {
            std::mem::swap(&mut waiting.waker, &mut waker);
            drop(waits);
            drop(waker);
            return Poll::Pending;
        }
        drop(waits);
        self.stands = false;
        Poll::Ready(match answer {
            Some(Answer::Room(bytes)) => {
                self.given = bytes;
                true
            }
            Some(Answer::LookAgain) => true,
            Some(Answer::Over) | None => false,
        })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut waits = self.bulkhead.waits();
        let waker = self.bulkhead.leave(&mut waits, self.number);
        if let Some(Answer::Room(bytes)) = waits.answered.remove(&self.number) {
            self.given += bytes;
        }
        self.bulkhead.held.fetch_sub(self.given, Ordering::Relaxed);
        self.bulkhead.serve(waits, Vec::new());
        drop(waker);
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::task::Wake;
    use std::time::Duration;

    use super::*;

    fn bulkhead(bytes_max: usize) -> Arc<Bulkhead> {
        let panics = Arc::default();
        Arc::new(Bulkhead::new(bytes_max, OnLaneUnavailable::Wait, panics))
    }

    const LANE: LaneKey = (0, LaneId(0));
    const OTHER: LaneKey = (1, LaneId(0));

    fn want(bytes: usize, lane: LaneKey) -> Want {
        let lane = Some(lane);
        Want { bytes, lane }
    }

    fn later() -> Time {
        clock::now() + Duration::from_secs(3600)
    }

    fn poll(room: &mut Room) -> Poll<bool> {
        Pin::new(room).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// A wait for room ends when some comes free, when its time is over and when the producer is
    /// closed; one that is dropped leaves nothing to wait for.
    #[test]
    fn g2_waits_for_room_end_with_room_with_time_and_when_dropped() {
        let bulkhead = bulkhead(100);
        bulkhead.add(100);
        assert!(bulkhead.is_full_for(1) && !bulkhead.is_full_for(0));
        let later = later();
        let mut room = bulkhead.room(want(10, LANE), later);
        assert!(poll(&mut room).is_pending());
        assert_eq!(bulkhead.next_deadline(), later);
        bulkhead.expire(clock::now());
        assert!(poll(&mut room).is_pending());
        bulkhead.take_off(10);
        assert_eq!(poll(&mut room), Poll::Ready(true));
        assert_eq!((room.given(), bulkhead.held()), (10, 100));
        let mut late = bulkhead.room(want(10, LANE), Time(1));
        assert_eq!(poll(&mut late), Poll::Ready(false));
        // It leaves with its owner.
        drop(late);
        let mut expired = bulkhead.room(want(10, LANE), later);
        assert!(poll(&mut expired).is_pending());
        bulkhead.expire(later);
        assert_eq!(poll(&mut expired), Poll::Ready(false));
        let mut dropped = bulkhead.room(want(10, LANE), later);
        assert!(poll(&mut dropped).is_pending());
        drop(dropped);
        assert_eq!(bulkhead.next_deadline(), Time::NEVER);
        let mut closed = bulkhead.room(want(10, LANE), later);
        assert!(poll(&mut closed).is_pending());
        bulkhead.close();
        assert_eq!(poll(&mut closed), Poll::Ready(true));
        let again = &mut bulkhead.room(want(10, LANE), later);
        assert_eq!(poll(again), Poll::Ready(true));
        drop(room);
        assert_eq!(bulkhead.held(), 90);
    }

    /// Whoever waits for a lane that is well again is woken, also when no room came free by that, and
    /// whoever waits for another stays; one who may go anywhere is woken by any lane.
    #[test]
    fn g2_a_lane_that_is_well_again_ends_the_waits_for_it() {
        let bulkhead = bulkhead(0);
        let mut its = bulkhead.room(want(4096, LANE), later());
        let mut others = bulkhead.room(want(4096, OTHER), later());
        let bytes = 4096;
        let mut anywhere = bulkhead.room(Want { bytes, lane: None }, later());
        for room in [&mut its, &mut others, &mut anywhere] {
            assert!(poll(room).is_pending());
        }
        bulkhead.lane_is_released(LANE);
        assert_eq!(poll(&mut its), Poll::Ready(true));
        assert!(poll(&mut others).is_pending());
        assert_eq!(poll(&mut anywhere), Poll::Ready(true));
        assert_eq!(bulkhead.held(), 0);
    }

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Of a thousand who wait, each release wakes the one it is enough for, in the order they came;
    /// nobody who does not wait gets in between, whoever leaves passes the turn on, and one who asks
    /// for more than ever fits holds nobody up.
    #[test]
    fn g2_room_is_given_in_the_order_of_the_waits_and_wakes_one() {
        let bulkhead = bulkhead(100);
        bulkhead.add(100);
        let woken = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut huge = bulkhead.room(want(101, LANE), later());
        assert!(poll(&mut huge).is_pending());
        assert!(!bulkhead.is_full_for(0), "it does not stand in line");
        let mut rooms: Vec<_> = (0..1000)
            .map(|_| bulkhead.room(want(10, LANE), later()))
            .collect();
        for room in &mut rooms {
            assert!(Pin::new(room).poll(&mut cx).is_pending());
        }
        let mut wakes = 0;
        let mut waits = rooms.into_iter();
        while let Some(mut first) = waits.next() {
            bulkhead.take_off(10);
            wakes += 1;
            assert_eq!(woken.0.load(Ordering::Relaxed), wakes);
            if waits.len() > 0 {
                assert!(bulkhead.is_full_for(0), "others wait");
            }
            if wakes % 3 == 0 {
                // It leaves without a look, and the next has its room.
                drop(first);
                wakes += u64::from(waits.len() > 0);
                let Some(next) = waits.next() else { break };
                first = next;
            }
            assert_eq!(poll(&mut first), Poll::Ready(true));
            // What it uses is counted before it lets go of what it was given.
            bulkhead.add(10);
            assert!(woken.0.load(Ordering::Relaxed) == wakes && first.given() == 10);
            drop(first);
            assert_eq!(woken.0.load(Ordering::Relaxed), wakes);
        }
        assert!(poll(&mut huge).is_pending());
        drop(huge);
        assert!(!bulkhead.is_full_for(0));
    }

    /// Whoever was given too little stands where it stood before.
    #[test]
    fn g2_a_place_is_kept_by_one_who_asks_again() {
        let bulkhead = bulkhead(100);
        bulkhead.add(100);
        let mut first = bulkhead.room(want(10, LANE), later());
        let mut second = bulkhead.room(want(10, LANE), later());
        bulkhead.take_off(10);
        assert_eq!(poll(&mut first), Poll::Ready(true));
        first.stand_in_line(want(20, LANE));
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        bulkhead.take_off(10);
        assert_eq!(poll(&mut first), Poll::Ready(true));
        assert!(poll(&mut second).is_pending());
        drop(first);
        assert_eq!(poll(&mut second), Poll::Ready(true));
    }
}
