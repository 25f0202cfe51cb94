//! Random operations against a model, and real threads.
//!
//! The model knows every holder, what it wrote, and the order of the queue. After each operation
//! the pool's invariants are checked, and that: live segments do not overlap and hold what their
//! owner wrote; the budget is exactly the sum of what is held; grants come in the order of the
//! queue; whoever is first and could be served does not wait. In the end all memory is back.
//!
//! A failure prints the operations, and proptest keeps its seed; `PROPTEST_CASES=10000 cargo test
//! -p ringpost-memory model` looks longer. The fuzz target `memory` drives the same model, through the
//! cargo feature `model`.
//!
//! ```
//! use ringpost_memory::model::{Model, Op};
//! let mut model = Model::new();
//! for op in [Op::TryTake(5_000), Op::Take(90_000, 7), Op::Drop(0), Op::Collect(0)] {
//!     model.apply(op);
//!     model.check();
//! }
//! model.end();
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use crate::piece::Piece;
use crate::pool::{Charge, Pool};
use crate::segment::{Segment, SegmentMut};
use crate::take::{Take, TakeCharge, TakeError};

const BUDGET: usize = 100_000; // not a multiple of a class
const LARGEST: usize = 32_768;

/// Something that happens to a pool. Waiters and holders are named by a number modulo how many exist.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    /// Takes a segment of so many bytes, or not.
    TryTake(usize),
    /// Charges so many bytes, or not.
    TryCharge(usize),
    /// Asks for a segment, until a time.
    Take(usize, u64),
    /// Asks for a charge, until a time.
    TakeCharge(usize, u64),
    /// Looks at a waiter's answer.
    Collect(usize),
    /// A waiter leaves.
    Cancel(usize),
    /// A segment becomes a shared one, a shared one a piece.
    Freeze(usize),
    /// A shared segment or a piece gets one more holder.
    Clone(usize),
    /// A piece gets one more holder, of a part of it.
    Slice(usize),
    /// A segment's only holder may write again.
    Thaw(usize),
    /// A holder goes.
    Drop(usize),
    /// It is so late.
    Expire(u64),
    /// The pool is closed.
    Close,
}

/// Something that holds memory, and the number written all over it.
#[derive(Debug)]
enum Holder {
    Owned(u64, SegmentMut),
    Frozen(u64, Segment),
    Piece(u64, Piece),
    Charge(Charge),
}

#[derive(Debug)]
enum Wish {
    Segment(Take),
    Charge(TakeCharge),
}

enum Got {
    Segment(SegmentMut),
    Charge(Charge),
}

impl Wish {
    fn poll(&mut self, waker: &Waker) -> Poll<Result<Got, TakeError>> {
        let cx = &mut Context::from_waker(waker);
        match self {
            Wish::Segment(take) => Pin::new(take).poll(cx).map_ok(Got::Segment),
            Wish::Charge(take) => Pin::new(take).poll(cx).map_ok(Got::Charge),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Queued,
    Granted,
    Failed(TakeError),
}

#[derive(Debug)]
struct Waiter {
    wish: Wish,
    bytes: usize,
    is_charge: bool,
    deadline: u64,
    expected: Expected,
}

/// Writes down who is woken, in order.
#[derive(Debug)]
struct Named(u64, Arc<Mutex<Vec<u64>>>);
impl Wake for Named {
    fn wake(self: Arc<Self>) {
        self.1.lock().expect("no panic").push(self.0);
    }
}

/// A pool, and what must be true of it.
#[derive(Debug)]
pub struct Model {
    pool: Pool,
    holders: Vec<Holder>,
    waiters: BTreeMap<u64, Waiter>, // by age
    woken: Arc<Mutex<Vec<u64>>>,
    numbers: u64,
    /// What the segments of these numbers cost, as long as they live.
    capacities: BTreeMap<u64, usize>,
    closed: bool,
}

fn write_pattern(number: u64, bytes: &mut [u8]) {
    for word in bytes.chunks_mut(8) {
        word.copy_from_slice(&number.to_le_bytes()[..word.len()]);
    }
}

fn has_pattern(number: u64, bytes: &[u8]) -> bool {
    bytes
        .chunks(8)
        .all(|word| *word == number.to_le_bytes()[..word.len()])
}

fn class_bytes(bytes: usize) -> usize {
    bytes.max(4096).next_power_of_two()
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// A fresh pool.
    ///
    /// # Panics
    /// When there is no address space.
    #[must_use]
    pub fn new() -> Self {
        Self {
            pool: Pool::new(BUDGET, LARGEST).expect("a pool"),
            holders: Vec::new(),
            waiters: BTreeMap::new(),
            woken: Arc::default(),
            numbers: 0,
            capacities: BTreeMap::new(),
            closed: false,
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn queued(&self) -> impl Iterator<Item = (u64, &Waiter)> {
        self.waiters
            .iter()
            .filter(|(_, waiter)| waiter.expected == Expected::Queued)
            .map(|(&number, waiter)| (number, waiter))
    }

    fn hold(&mut self, got: Got) {
        let holder = match got {
            Got::Charge(charge) => Holder::Charge(charge),
            Got::Segment(mut segment) => {
                let number = self.number();
                assert!(segment.filled().is_empty());
                self.capacities.insert(number, segment.capacity());
                let room = segment.spare_mut();
                let len = room.len();
                assert!(
                    room.iter().all(|&b| b == 0 || b == 0xDD),
                    "somebody else's bytes"
                );
                write_pattern(number, room);
                segment.commit(len);
                Holder::Owned(number, segment)
            }
        };
        self.holders.push(holder);
    }

    fn wish(&mut self, wish: Wish, is_charge: bool, asked: usize, deadline: u64) {
        let number = self.number();
        let bytes = if is_charge { asked } else { class_bytes(asked) };
        let too_large = bytes > BUDGET || (!is_charge && bytes > LARGEST);
        let mut waiter = Waiter {
            wish,
            bytes,
            is_charge,
            deadline,
            expected: Expected::Queued,
        };
        let waker = Waker::from(Arc::new(Named(number, self.woken.clone())));
        match waiter.wish.poll(&waker) {
            Poll::Ready(Ok(got)) => {
                assert!(!too_large && !self.closed);
                assert_eq!(self.queued().count(), 0, "overtook the queue");
                self.hold(got);
            }
            Poll::Ready(Err(error)) => assert_eq!(
                error,
                if too_large {
                    TakeError::TooLarge { wanted: asked }
                } else {
                    TakeError::Closed
                }
            ),
            Poll::Pending => {
                assert!(!too_large && !self.closed);
                self.waiters.insert(number, waiter);
            }
        }
    }

    /// Does it, to the pool and here.
    ///
    /// # Panics
    /// When the pool answers otherwise than it should.
    pub fn apply(&mut self, op: Op) {
        let pick = |which: usize, len: usize| which.checked_rem(len);
        let waiter = |which: usize| {
            let at = pick(which, self.waiters.len())?;
            self.waiters.keys().nth(at).copied()
        };
        match op {
            Op::TryTake(bytes) => {
                let waits = self.queued().count() > 0;
                if let Some(segment) = self.pool.try_take(bytes) {
                    assert!(!waits && !self.closed);
                    assert_eq!(segment.capacity(), class_bytes(bytes));
                    self.hold(Got::Segment(segment));
                }
            }
            Op::TryCharge(bytes) => {
                let free = BUDGET - self.pool.in_use();
                let could = self.queued().count() == 0 && !self.closed && bytes <= free;
                let charge = self.pool.try_charge(bytes);
                assert_eq!(charge.is_some(), could);
                self.holders.extend(charge.map(Holder::Charge));
            }
            Op::Take(bytes, deadline) => {
                let take = self.pool.take(bytes, deadline);
                self.wish(Wish::Segment(take), false, bytes, deadline);
            }
            Op::TakeCharge(bytes, deadline) => {
                let take = self.pool.take_charge(bytes, deadline);
                self.wish(Wish::Charge(take), true, bytes, deadline);
            }
            Op::Collect(which) => {
                let Some(number) = waiter(which) else { return };
                let waker = Waker::from(Arc::new(Named(number, self.woken.clone())));
                let mut waiter = self.waiters.remove(&number).expect("it is there");
                match (waiter.wish.poll(&waker), waiter.expected) {
                    (Poll::Pending, Expected::Queued) => {
                        self.waiters.insert(number, waiter);
                    }
                    (Poll::Ready(Ok(got)), Expected::Granted) => self.hold(got),
                    (Poll::Ready(Err(error)), Expected::Failed(why)) => assert_eq!(error, why),
                    (answer, expected) => {
                        panic!(
                            "{expected:?}, but {:?}",
                            answer.map(|a| a.map(|_| "granted"))
                        )
                    }
                }
            }
            Op::Cancel(which) => {
                let Some(number) = waiter(which) else { return };
                drop(self.waiters.remove(&number));
            }
            Op::Freeze(which) => {
                let Some(at) = pick(which, self.holders.len()) else {
                    return;
                };
                let holder = match self.holders.swap_remove(at) {
                    Holder::Owned(number, segment) => Holder::Frozen(number, segment.freeze()),
                    Holder::Frozen(number, segment) => Holder::Piece(number, segment.into()),
                    other => other,
                };
                self.holders.push(holder);
            }
            Op::Clone(which) => {
                let Some(at) = pick(which, self.holders.len()) else {
                    return;
                };
                match &self.holders[at] {
                    Holder::Frozen(number, segment) => {
                        self.holders.push(Holder::Frozen(*number, segment.clone()));
                    }
                    Holder::Piece(number, piece) => {
                        self.holders.push(Holder::Piece(*number, piece.clone()));
                    }
                    _ => {}
                }
            }
            Op::Slice(which) => {
                let Some(at) = pick(which, self.holders.len()) else {
                    return;
                };
                if let Holder::Piece(number, piece) = &self.holders[at] {
                    // Whole repetitions of the pattern, so that it can be checked later.
                    let (start, end) = (which % 2 * (piece.len() / 16 * 8), piece.len());
                    let slice = Holder::Piece(*number, piece.slice(start..end));
                    self.holders.push(slice);
                }
            }
            Op::Thaw(which) => {
                let Some(at) = pick(which, self.holders.len()) else {
                    return;
                };
                let holder = match self.holders.swap_remove(at) {
                    Holder::Frozen(number, segment) => match segment.try_into_mut() {
                        Ok(segment) => Holder::Owned(number, segment),
                        Err(segment) => Holder::Frozen(number, segment),
                    },
                    Holder::Piece(number, piece) => match piece.try_into_mut() {
                        Ok(segment) => Holder::Owned(number, segment),
                        Err(piece) => Holder::Piece(number, piece),
                    },
                    other => other,
                };
                self.holders.push(holder);
            }
            Op::Drop(which) => {
                let Some(at) = pick(which, self.holders.len()) else {
                    return;
                };
                match self.holders.swap_remove(at) {
                    Holder::Owned(number, bytes) => assert!(has_pattern(number, bytes.filled())),
                    Holder::Frozen(number, bytes) => assert!(has_pattern(number, &bytes)),
                    Holder::Piece(number, bytes) => assert!(has_pattern(number, bytes.bytes())),
                    Holder::Charge(_) => {}
                }
            }
            Op::Expire(now) => {
                let mut due = 0;
                for waiter in self.waiters.values_mut() {
                    if waiter.expected == Expected::Queued && waiter.deadline <= now {
                        waiter.expected = Expected::Failed(TakeError::TimedOut);
                        due += 1;
                    }
                }
                assert_eq!(self.pool.expire(now), due);
            }
            Op::Close => {
                self.closed = true;
                for waiter in self.waiters.values_mut() {
                    if waiter.expected == Expected::Queued {
                        waiter.expected = Expected::Failed(TakeError::Closed);
                    }
                }
                self.pool.close();
            }
        }
    }

    /// Compares everything.
    ///
    /// # Panics
    /// When something does not hold: see the module's doc.
    pub fn check(&mut self) {
        // Wakes: failures as expected, grants in the order of the queue.
        for number in std::mem::take(&mut *self.woken.lock().expect("no panic")) {
            let first = self.queued().next().map(|(first, _)| first);
            let Some(waiter) = self.waiters.get_mut(&number) else {
                continue;
            };
            if waiter.expected == Expected::Queued {
                assert_eq!(first, Some(number), "granted out of order");
                waiter.expected = Expected::Granted;
            }
        }
        assert_eq!(self.pool.waiting(), self.queued().count());
        assert_eq!(self.pool.invariants().1, self.waiters.len(), "slots in use");

        // Holders: their bytes, their places, their sum.
        let mut live: BTreeMap<u64, Range<usize>> = BTreeMap::new();
        let mut sum = 0;
        for holder in &self.holders {
            let (number, bytes) = match holder {
                Holder::Owned(number, segment) => (*number, segment.filled()),
                Holder::Frozen(number, segment) => (*number, &segment[..]),
                Holder::Piece(number, piece) => (*number, piece.bytes()),
                Holder::Charge(charge) => {
                    sum += charge.bytes();
                    continue;
                }
            };
            // One word of each page here; all of them when it is dropped.
            for page in bytes.chunks(4096) {
                assert!(
                    has_pattern(number, &page[..page.len().min(8)]),
                    "not what was written"
                );
            }
            let range = bytes.as_ptr_range();
            let range = range.start.addr()..range.end.addr();
            let seen = live.entry(number).or_insert(range.clone());
            *seen = seen.start.min(range.start)..seen.end.max(range.end);
        }
        sum += live
            .keys()
            .map(|number| self.capacities[number])
            .sum::<usize>();
        let mut places: Vec<_> = live.into_values().collect();
        places.sort_unstable_by_key(|place| place.start);
        assert!(
            places.windows(2).all(|pair| pair[0].end <= pair[1].start),
            "overlap"
        );
        let granted = self
            .waiters
            .values()
            .filter(|w| w.expected == Expected::Granted);
        sum += granted.map(|waiter| waiter.bytes).sum::<usize>();
        assert_eq!(self.pool.in_use(), sum);
        assert!(sum <= BUDGET && self.pool.high_water() <= BUDGET);

        // Nobody waits without a reason.
        if let Some((_, first)) = self.queued().next() {
            assert!(sum > 0, "waits for memory that is all free");
            assert!(
                !first.is_charge || first.bytes > BUDGET - sum,
                "waits for budget there is"
            );
        }
    }

    /// All holders and waiters go, and all memory is back.
    ///
    /// # Panics
    /// When it is not.
    pub fn end(mut self) {
        self.holders.clear();
        self.check();
        self.waiters.clear();
        self.check();
        assert_eq!(self.pool.in_use(), 0);
        assert_eq!(self.pool.invariants().1, 0);
        if !self.closed {
            let all: Vec<_> = std::iter::from_fn(|| self.pool.try_take(LARGEST)).collect();
            assert_eq!(all.len(), BUDGET / LARGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn op() -> impl Strategy<Value = Op> {
        let size =
            || prop_oneof![4 => 0..10_000_usize, 2 => 0..40_000_usize, 1 => 0..200_000_usize];
        let deadline = || prop_oneof![0..20_u64, Just(u64::MAX)];
        let which = || 0..1000_usize;
        prop_oneof![
            60 => size().prop_map(Op::TryTake),
            20 => size().prop_map(Op::TryCharge),
            50 => (size(), deadline()).prop_map(|(size, at)| Op::Take(size, at)),
            20 => (size(), deadline()).prop_map(|(size, at)| Op::TakeCharge(size, at)),
            50 => which().prop_map(Op::Collect),
            20 => which().prop_map(Op::Cancel),
            40 => which().prop_map(Op::Freeze),
            30 => which().prop_map(Op::Clone),
            20 => which().prop_map(Op::Slice),
            30 => which().prop_map(Op::Thaw),
            120 => which().prop_map(Op::Drop),
            10 => (0..20_u64).prop_map(Op::Expire),
            1 => Just(Op::Close),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

        /// After every operation memory in use is what the model says, and within the budget.
        #[test]
        fn g1_any_operations_agree_with_the_model(ops in prop::collection::vec(op(), 1..200)) {
            let mut model = Model::new();
            for op in ops {
                model.apply(op);
                model.check();
            }
            model.end();
        }
    }

    /// Four threads take, wait, fill and share; a fifth checks every byte and often drops last. It
    /// never takes memory, so the others always get on.
    #[test]
    fn threads_share_a_pool_that_is_too_small_for_them() {
        const THREADS: u64 = 4;
        const ROUNDS: u64 = 2_000;
        fn check(number: u64, piece: &Piece) {
            assert!(has_pattern(number, piece.bytes()), "not what was written");
        }
        let pool = Pool::new(65_536, 16_384).expect("a pool");
        let (sender, inbox) = mpsc::sync_channel::<(u64, Piece)>(3);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (pool, sender) = (pool.clone(), sender.clone());
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let number = thread << 32 | round;
                        let bytes = 1 + (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 50) as usize;
                        if round % 7 == 0 {
                            drop(pool.take(bytes, u64::MAX)); // comes and goes
                        }
                        let mut segment = pool
                            .try_take(bytes)
                            .or_else(|| pool.take_blocking(bytes, Duration::MAX).ok())
                            .expect("somebody drops some");
                        write_pattern(number, &mut segment.spare_mut()[..bytes]);
                        segment.commit(bytes);
                        let piece = Piece::from(segment.freeze());
                        sender
                            .send((number, piece.clone()))
                            .expect("the fifth runs");
                        check(number, &piece);
                    }
                });
            }
            drop(sender);
            let checked = inbox
                .iter()
                .map(|(number, piece)| check(number, &piece))
                .count();
            assert_eq!(checked as u64, THREADS * ROUNDS);
        });
        assert_eq!(pool.in_use(), 0);
        assert_eq!(pool.invariants().1, 0);
        assert!(pool.high_water() <= pool.budget());
    }
}
