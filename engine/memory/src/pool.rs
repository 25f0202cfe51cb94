//! The pool: one budget, the memory within it, and who waits for more.
//!
//! Shared by everything that holds a segment, a charge or a [`Pool`] handle. All decisions are made
//! under one lock, held for some list operations: no user code, no system call, no waker under it.
//! Filling and reading memory needs no lock.
//!
//! Invariants (checked by `Pool::invariants` in tests): `in_use` is the sum of the blocks handed
//! out (granted ones included) and of the charges, and never above the budget; while somebody
//! waits, `try_take` and `try_charge` answer `None`, and releases serve the queue from its front,
//! strictly: a small request behind a large one waits too.
//!
//! What the budget allows should not be refused because what is free lies in pieces: then a large
//! request would wait, and all behind it, though memory is free. So twice the budget's address space
//! is reserved, and whole blocks are kept whole as long as parts will do. What has memory behind it
//! stays within the budget: before more than that is touched, free pages are given back to the system,
//! without the lock, while they are nobody's.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::Waker;

use ringpost_core::canary::{Canary, planted};

use crate::arena::Arena;
use crate::buddy::{Block, Buddy, CLASSES, PAGE_SHIFT, PAGES_MAX, class_bytes, class_of};
use crate::segment::SegmentMut;
use crate::sync::{AtomicU32, Mutex, MutexGuard};
use crate::take::{Take, TakeCharge, TakeError};
use crate::waiters::Waiters;

/// The smallest segment: 4 KiB. Segments are powers of two from here.
pub const SEGMENT_BYTES_MIN: usize = 1 << PAGE_SHIFT;
/// The largest segment a pool can be built for: 1 GiB.
pub const SEGMENT_BYTES_MAX: usize = 1 << (PAGE_SHIFT as usize + CLASSES - 1);

/// What is asked of the pool.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Want {
    /// A block of this class.
    Block(u8),
    /// So many bytes of the budget, without memory.
    Charge(usize),
}

/// What was given.
#[derive(Debug)]
pub(crate) enum Grant {
    Block(Block),
    Charge(usize),
}

impl Grant {
    fn bytes(&self) -> usize {
        match self {
            Grant::Block(block) => block.len(),
            Grant::Charge(bytes) => *bytes,
        }
    }
}

/// What the lock guards.
#[derive(Debug)]
struct State {
    buddy: Buddy,
    /// Handed out and charged, in bytes; never above the budget.
    in_use: usize,
    waiters: Waiters,
    closed: bool,
}

/// What every segment of a pool points to.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) arena: Arena,
    /// Holders of a frozen segment, at the index of its first page. See `segment`.
    pub(crate) holders: Box<[AtomicU32]>,
    budget: usize,
    class_max: u8,
    state: Mutex<State>,
    // For display; written under the lock, read without.
    in_use: AtomicUsize,
    high_water: AtomicUsize,
    waiting: AtomicUsize,
    caught_panics: AtomicU64,
}

/// A bounded pool of memory. Cloning gives another handle to the same pool.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// Reserves address space for twice `budget_bytes`, in segments of up to `largest_segment_bytes`
    /// (rounded up to a power of two, from 4 KiB to 1 GiB). No memory is touched yet.
    ///
    /// The bookkeeping costs about 0.2 % of the budget at once and 0.3 % more as it comes into
    /// use.
    ///
    /// # Errors
    /// `InvalidInput` for a budget below 4 KiB or above 511 GiB or a segment size above 1 GiB;
    /// otherwise what the system says to the reservation.
    pub fn new(budget_bytes: usize, largest_segment_bytes: usize) -> io::Result<Self> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        let class_max = class_of(largest_segment_bytes).ok_or_else(|| {
            invalid(format!(
                "segments of {largest_segment_bytes} bytes: at most {SEGMENT_BYTES_MAX} are possible"
            ))
        })?;
        if budget_bytes < SEGMENT_BYTES_MIN {
            return Err(invalid(format!(
                "a memory budget of {budget_bytes} bytes: at least {SEGMENT_BYTES_MIN} are needed"
            )));
        }
        let blocks = u32::try_from(budget_bytes.div_ceil(class_bytes(class_max)))
            .ok()
            .filter(|blocks| {
                blocks
                    .checked_mul(1 << class_max)
                    .is_some_and(|p| p <= PAGES_MAX)
            })
            .ok_or_else(|| {
                invalid(format!(
                    "a memory budget of {budget_bytes} bytes: at most 511 GiB"
                ))
            })?;
        // See the module's doc. Where address space is scarce it has to do without.
        let reserve = |blocks: u32| {
            let arena = Arena::reserve(((blocks << class_max) as usize) << PAGE_SHIFT)?;
            Ok::<_, io::Error>((blocks, arena))
        };
        let spare = if class_max > 0 { blocks } else { 0 };
        let most = PAGES_MAX >> class_max;
        let (blocks, arena) = reserve((blocks + spare).min(most)).or_else(|_| reserve(blocks))?;
        let buddy = Buddy::new(blocks, class_max);
        let pages = blocks << class_max;
        Ok(Self {
            shared: Arc::new(Shared {
                arena,
                holders: (0..pages).map(|_| AtomicU32::new(0)).collect(),
                budget: budget_bytes,
                class_max,
                state: Mutex::new(State {
                    buddy,
                    in_use: 0,
                    waiters: Waiters::new(),
                    closed: false,
                }),
                in_use: AtomicUsize::new(0),
                high_water: AtomicUsize::new(0),
                waiting: AtomicUsize::new(0),
                caught_panics: AtomicU64::new(0),
            }),
        })
    }

    /// A segment of the smallest class of at least `at_least` bytes; `None` when the budget does
    /// not allow it now, when others wait, when the pool is closed, or when no segment is so large
    /// (see [`Pool::segment_bytes_max`]). Never waits.
    #[must_use]
    pub fn try_take(&self, at_least: usize) -> Option<SegmentMut> {
        let want = self.shared.want_block(at_least).ok()?;
        match self.shared.try_grant(want)? {
            Grant::Block(block) => Some(SegmentMut::new(self.shared.clone(), block)),
            Grant::Charge(_) => unreachable!("a block was wanted"),
        }
    }

    /// Counts `bytes` that lie elsewhere against the budget; `None` as for [`Pool::try_take`].
    #[must_use]
    pub fn try_charge(&self, bytes: usize) -> Option<Charge> {
        let want = self.shared.want_charge(bytes).ok()?;
        self.shared.try_grant(want)?;
        Some(Charge {
            shared: self.shared.clone(),
            bytes,
        })
    }

    /// A segment as from [`Pool::try_take`], waiting for it in the order of the calls (not of the
    /// first polls). Fails with [`TakeError::TimedOut`] once [`Pool::expire`] is called with a time
    /// not before `deadline_ns`; `u64::MAX` waits without limit. A request no segment is large
    /// enough for fails at once. Dropping the future leaves the queue.
    pub fn take(&self, at_least: usize, deadline_ns: u64) -> Take {
        Take::new(
            self.shared.clone(),
            self.shared.want_block(at_least),
            deadline_ns,
        )
    }

    /// A charge as from [`Pool::try_charge`], waiting for it like [`Pool::take`], in one queue with
    /// it.
    pub fn take_charge(&self, bytes: usize, deadline_ns: u64) -> TakeCharge {
        TakeCharge::new(
            self.shared.clone(),
            self.shared.want_charge(bytes),
            deadline_ns,
        )
    }

    /// A segment as from [`Pool::take`], blocking the calling thread for at most `max_wait`.
    ///
    /// # Errors
    /// As [`Pool::take`]; [`TakeError::TimedOut`] after `max_wait`.
    #[cfg(not(loom))]
    pub fn take_blocking(
        &self,
        at_least: usize,
        max_wait: std::time::Duration,
    ) -> Result<SegmentMut, TakeError> {
        crate::take::block_on(self.take(at_least, u64::MAX), max_wait)
            .unwrap_or(Err(TakeError::TimedOut))
    }

    /// Fails the waiters whose deadline is not after `now_ns` (on the caller's own clock) with
    /// [`TakeError::TimedOut`]; returns how many. Cheap when nobody is due.
    pub fn expire(&self, now_ns: u64) -> usize {
        let mut wakers = Vec::new();
        let mut state = self.shared.lock();
        let expired = state.waiters.expire(now_ns, &mut wakers);
        if expired == 0 {
            return 0;
        }
        self.shared.serve(state);
        let shared = &self.shared;
        wakers.into_iter().for_each(|waker| shared.wake(waker));
        expired
    }

    /// A time not later than the earliest deadline of those who wait, if anybody has one: when to
    /// call [`Pool::expire`] next.
    #[must_use]
    pub fn next_deadline_ns(&self) -> Option<u64> {
        if self.waiting() == 0 {
            return None;
        }
        Some(self.shared.lock().waiters.earliest_ns()).filter(|&at_ns| at_ns != u64::MAX)
    }

    /// Fails all waiters, and everybody who asks from now on, with [`TakeError::Closed`]. Segments
    /// and charges that are out stay valid.
    pub fn close(&self) {
        let mut wakers = Vec::new();
        let mut state = self.shared.lock();
        state.closed = true;
        while state.waiters.first_want().is_some() {
            wakers.extend(state.waiters.settle_first(Err(TakeError::Closed)));
        }
        self.shared.publish(&state);
        drop(state);
        let shared = &self.shared;
        wakers.into_iter().for_each(|waker| shared.wake(waker));
    }

    /// The bound, in bytes.
    #[must_use]
    pub fn budget(&self) -> usize {
        self.shared.budget
    }

    /// The largest segment that can be taken, in bytes.
    #[must_use]
    pub fn segment_bytes_max(&self) -> usize {
        let within_budget = 1 << self.shared.budget.ilog2();
        class_bytes(self.shared.class_max).min(within_budget)
    }

    /// Bytes handed out (in class sizes) and charged. A snapshot.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.shared.in_use.load(Relaxed)
    }

    /// The most bytes that were ever in use.
    #[must_use]
    pub fn high_water(&self) -> usize {
        self.shared.high_water.load(Relaxed)
    }

    /// How many wait for memory. A snapshot.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Relaxed)
    }

    /// Wakers of those who wait, and destructors of [shared bytes](crate::Piece::shared), that
    /// panicked. They are other people's code, and run wherever memory is released: their panics
    /// end there.
    #[must_use]
    pub fn caught_panics(&self) -> u64 {
        self.shared.caught_panics.load(Relaxed)
    }

    /// Checks the promises of the module's doc; slow. Returns slots of waiters: existing, in use.
    #[cfg(all(any(test, feature = "model"), not(loom)))]
    pub(crate) fn invariants(&self) -> (usize, usize) {
        self.shared.invariants()
    }
}

impl Shared {
    /// Wakes a waiter.
    fn wake(&self, waker: Waker) {
        self.catch(|| waker.wake());
    }

    /// Runs somebody else's code. It may run in destructors too: a panic in it is its owner's, and
    /// ends here.
    pub(crate) fn catch(&self, call: impl FnOnce()) {
        let Err(payload) = catch_unwind(AssertUnwindSafe(call)) else {
            return;
        };
        self.caught_panics.fetch_add(1, Relaxed);
        // What it panicked with is its own as well, and may panic when it is dropped.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        dropped.unwrap_or_else(std::mem::forget);
    }

    /// See [`Pool::invariants`].
    #[cfg(all(any(test, feature = "model"), not(loom)))]
    fn invariants(&self) -> (usize, usize) {
        let state = self.lock();
        state.buddy.invariants();
        assert!(state.in_use <= self.budget, "over budget");
        assert!(
            state.buddy.bytes_used() <= state.in_use,
            "blocks out that nobody pays for"
        );
        assert_eq!(state.in_use, self.in_use.load(Relaxed));
        assert!(state.in_use <= self.high_water.load(Relaxed));
        assert!(self.high_water.load(Relaxed) <= self.budget);
        assert_eq!(state.waiters.len(), self.waiting.load(Relaxed));
        assert!(!state.closed || state.waiters.len() == 0);
        state.waiters.invariants()
    }

    pub(crate) fn want_block(&self, at_least: usize) -> Result<Want, TakeError> {
        let too_large = TakeError::TooLarge { wanted: at_least };
        let class = class_of(at_least).ok_or(too_large)?;
        if class > self.class_max || class_bytes(class) > self.budget {
            return Err(too_large);
        }
        Ok(Want::Block(class))
    }

    pub(crate) fn want_charge(&self, bytes: usize) -> Result<Want, TakeError> {
        if bytes > self.budget {
            return Err(TakeError::TooLarge { wanted: bytes });
        }
        Ok(Want::Charge(bytes))
    }

    /// Grants at once or not at all.
    fn try_grant(&self, want: Want) -> Option<Grant> {
        let mut state = self.lock();
        if state.closed || state.waiters.len() > 0 {
            return None;
        }
        let grant = state.grant(want, self.budget)?;
        self.publish(&state);
        if state.buddy.touched() > self.pages_max() {
            self.serve(state);
        }
        Some(grant)
    }

    /// Grants at once, or queues and says the slot.
    pub(crate) fn grant_or_queue(
        &self,
        want: Want,
        deadline_ns: u64,
    ) -> Result<Result<Grant, usize>, TakeError> {
        let mut state = self.lock();
        if state.closed {
            return Err(TakeError::Closed);
        }
        let now = match state.waiters.len() {
            0 => state.grant(want, self.budget),
            _ => None,
        };
        let answer = now.ok_or_else(|| state.waiters.push(want, deadline_ns));
        self.publish(&state);
        if state.buddy.touched() > self.pages_max() {
            self.serve(state);
        }
        Ok(answer)
    }

    /// See [`Waiters::poll`].
    pub(crate) fn poll_slot(&self, slot: usize, waker: &Waker) -> Option<Result<Grant, TakeError>> {
        // Cloned before the lock and dropped after it: wakers are other people's code.
        let mut waker = Some(waker.clone());
        let mut state = self.lock();
        let answer = state.waiters.poll(slot, &mut waker);
        drop(state);
        drop(waker);
        answer
    }

    /// Gives up a slot, with what was granted to it, and passes the turn on.
    pub(crate) fn leave_slot(&self, slot: usize) {
        let mut state = self.lock();
        let (grant, waker) = state.waiters.leave(slot);
        if let Some(grant) = grant.filter(|_| !planted(Canary::BudgetLeak)) {
            state.give_back(&grant);
        }
        self.serve(state);
        drop(waker);
    }

    /// Takes back a block or a charge and serves who waits. The caller has no access to the block
    /// any more.
    pub(crate) fn give_back(&self, grant: &Grant) {
        let mut state = self.lock();
        state.give_back(grant);
        self.serve(state);
    }

    /// Serves the queue from its front until it is empty or its first must go on waiting, and sees to
    /// it that no more is touched than the budget. Each waker is called, and memory given back to
    /// the system, with the lock open; whoever queues meanwhile stands behind.
    fn serve<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        loop {
            let granted = state
                .waiters
                .first_want()
                .and_then(|want| state.grant(want, self.budget));
            let waker = match granted {
                Some(grant) => state.waiters.settle_first(Ok(grant)),
                None => {
                    self.publish(&state);
                    if state.buddy.touched() <= self.pages_max() {
                        return;
                    }
                    let Some((block, pages)) = state.buddy.take_warm() else {
                        return;
                    };
                    drop(state);
                    // SAFETY: it was free, and is nobody's until it is put back.
                    unsafe { self.arena.discard(block, pages) };
                    state = self.lock();
                    state.buddy.put_back_cold(block);
                    continue;
                }
            };
            self.publish(&state);
            if let Some(waker) = waker.filter(|_| !planted(Canary::WakeLost)) {
                drop(state);
                self.wake(waker);
                state = self.lock();
            }
        }
    }

    /// So many pages may have memory behind them.
    fn pages_max(&self) -> u32 {
        u32::try_from(self.budget.div_ceil(SEGMENT_BYTES_MIN)).unwrap_or(u32::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half way but our own bugs, which tests look for; dropping
        // a segment must not panic because of one.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Shows the counters to those who look without the lock.
    fn publish(&self, state: &State) {
        self.in_use.store(state.in_use, Relaxed);
        self.high_water.fetch_max(state.in_use, Relaxed);
        self.waiting.store(state.waiters.len(), Relaxed);
    }
}

impl State {
    fn grant(&mut self, want: Want, budget: usize) -> Option<Grant> {
        let bytes = match want {
            Want::Block(class) => class_bytes(class),
            Want::Charge(bytes) => bytes,
        };
        if bytes > budget - self.in_use {
            return None;
        }
        let grant = match want {
            Want::Block(class) => Grant::Block(self.buddy.take(class)?),
            Want::Charge(bytes) => Grant::Charge(bytes),
        };
        self.in_use += bytes;
        Some(grant)
    }

    fn give_back(&mut self, grant: &Grant) {
        if let Grant::Block(block) = grant {
            self.buddy.give_back(*block);
        }
        self.in_use -= grant.bytes();
    }
}

/// A part of the budget that pays for bytes outside of the pool. Dropping it gives it back.
#[derive(Debug)]
pub struct Charge {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Charge {
    pub(crate) fn new(shared: Arc<Shared>, bytes: usize) -> Self {
        Self { shared, bytes }
    }

    /// Drops the bytes it pays for, which may have an owner whose code that runs.
    pub(crate) fn drop_bytes(&self, bytes: bytes::Bytes) {
        self.shared.catch(|| drop(bytes));
    }

    /// How many bytes it pays for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shared.give_back(&Grant::Charge(self.bytes));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn refuses_sizes_it_cannot_serve() {
        for (budget, largest) in [(0, 4096), (4095, 4096), (1 << 20, (1 << 30) + 1)] {
            let error = Pool::new(budget, largest).expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        assert!(Pool::new(usize::MAX, 4096).is_err());
    }

    #[test]
    fn the_budget_counts_classes_and_charges() {
        let pool = Pool::new(20_000, 16384).expect("a pool");
        assert_eq!((pool.budget(), pool.segment_bytes_max()), (20_000, 16384));
        let large = pool.try_take(8193).expect("free");
        assert_eq!(pool.in_use(), 16384);
        assert!(
            pool.try_take(1).is_none(),
            "the arena has room, the budget has not"
        );
        let charge = pool.try_charge(3616).expect("free");
        assert_eq!((pool.in_use(), charge.bytes()), (20_000, 3616));
        assert!(pool.try_charge(1).is_none());
        assert!(pool.try_charge(0).is_some());
        drop(large);
        drop(charge);
        assert_eq!((pool.in_use(), pool.high_water()), (0, 20_000));
        pool.invariants();
    }

    #[test]
    fn a_budget_below_the_largest_segment_limits_it() {
        let pool = Pool::new(100_000, 1 << 20).expect("a pool");
        assert_eq!(pool.segment_bytes_max(), 65536);
        assert!(pool.try_take(65537).is_none());
        assert_eq!(pool.try_take(65536).expect("free").capacity(), 65536);
        pool.invariants();
    }

    #[test]
    fn any_mix_of_sizes_leaves_room_for_the_largest() {
        let pool = Pool::new(1 << 20, 1 << 18).expect("a pool");
        let mut held: Vec<_> = (0..64)
            .map(|i| pool.try_take(4096 << (i % 3)).expect("free"))
            .collect();
        pool.invariants();
        // Every second one first, so that neighbours merge late.
        let mut second = false;
        held.retain(|_| {
            second = !second;
            second
        });
        pool.invariants();
        held.clear();
        let all: Vec<_> = std::iter::from_fn(|| pool.try_take(1 << 18)).collect();
        assert_eq!(all.len(), 4);
        pool.invariants();
    }

    /// With a page in use of each of the largest blocks, what is free is still enough for large
    /// ones, and nobody waits behind them; and no more of it has memory behind it than the budget.
    #[test]
    fn g2_memory_in_pieces_stops_nobody() {
        let pool = Pool::new(65_536, 16_384).expect("a pool");
        let touched = || pool.shared.lock().buddy.touched();
        let mut pages: Vec<_> = (0..16).filter_map(|_| pool.try_take(4096)).collect();
        assert_eq!((pages.len(), touched()), (16, 16));
        let mut place = 0;
        pages.retain(|_| {
            place += 1;
            place % 4 == 0
        });
        let large: Vec<_> = (0..3).filter_map(|_| pool.try_take(16_384)).collect();
        assert_eq!((large.len(), pool.in_use()), (3, 65_536));
        assert!(touched() <= 16);
        pool.invariants();
        let mut waits = Box::pin(pool.take(4096, u64::MAX));
        drop(large);
        let mut cx = std::task::Context::from_waker(Waker::noop());
        let page = std::future::Future::poll(waits.as_mut(), &mut cx);
        assert!(page.is_ready());
        pool.invariants();
        drop((page, pages));
        pool.invariants();
        assert!(touched() <= 16);
    }

    #[test]
    fn memory_in_use_again_and_again_stays_on_few_pages() {
        let pool = Pool::new(64 << 20, 1 << 20).expect("a pool");
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            // A batch's chain: 4, 8, 16, 32, 64 KiB.
            let chain: Vec<_> = (0..5)
                .map(|class| pool.try_take(4096 << class).expect("free"))
                .collect();
            places.extend(chain.iter().map(|segment| segment.filled().as_ptr().addr()));
        }
        assert_eq!(places.len(), 5);
    }
}
