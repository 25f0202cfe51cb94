//! Which lanes of a shard have work.
//!
//! One [`ReadySet`] belongs to each shard. Any thread that gives a lane work marks it; the shard
//! alone drains. A lane is in the set once, however often it is marked, so the set is bounded by
//! the number of lanes and a drain costs what is ready (and 64 loads).
//!
//! ```text
//!   summary   64 words × 64 bits      bit g of word i: something may be set in leaf 64·i + g
//!   leaves    4,096 words × 64 bits   bit b of leaf w: lane 64·w + b is ready
//! ```
//!
//! Marking goes from the leaf up, draining from the summary down. Invariants:
//! - *Nothing marked is lost.* Once [`ReadySet::mark`] has returned, whoever set the bit first, a
//!   drain that starts later visits the lane, or one that runs already does. A bit is cleared
//!   before its lane is visited, so a mark that comes meanwhile stands for another visit.
//! - *What was committed before the mark is seen by the visit*, also when the bit was set already
//!   and the mark only looked at it. Both sides write their own word, fence, and read the other's:
//!   ```text
//!     appender   write the lane's data   │ fence │ read the bit:  still set → nothing to do
//!     shard      clear the bit           │ fence │ read the lane's data
//!   ```
//!   At least one of the two reads sees the other's write. (Data under the lane's own lock would
//!   be ordered by that; the set does not ask for it.)
//! - *A leaf that is not empty has its summary bit set*, except in the middle of a mark or drain,
//!   whose thread is about to set it. A summary bit over an empty leaf costs one look, no more.
//!
//! ```text
//! if ready.mark(lane) {
//!     gate.wake_if_later_than(required_by_ns, || waker.wake());
//! }
//! // the shard, once a turn:
//! ready.drain(256, |lane| work_on(lane));
//! ```
//!
//! The models are run as `wake` says.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(shuttle)] // which has no fences and needs none: it runs one thread at a time
use shuttle::sync::atomic::{AtomicU64, Ordering};
#[cfg(shuttle)]
use std::sync::atomic::fence;
#[cfg(not(any(loom, shuttle)))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// How many lanes a shard can have: 64 summary words × 64 leaves each × 64 lanes each.
pub(crate) const LANES_MAX: u32 = 64 * 64 * 64;

/// Bits of a word.
const BITS: u32 = u64::BITS;

/// The set. See the module's doc.
#[derive(Debug)]
pub(crate) struct ReadySet {
    summary: Box<[AtomicU64]>,
    leaves: Box<[AtomicU64]>,
    /// Where the next drain starts, so that a bounded drain is fair. The shard's own.
    next_lane: AtomicU64,
}

impl ReadySet {
    /// An empty set for the lanes 0 to `lanes - 1`; a full-sized one takes 33 KiB.
    ///
    /// # Panics
    /// When `lanes` is above [`LANES_MAX`].
    pub(crate) fn new(lanes: u32) -> Self {
        assert!(
            lanes <= LANES_MAX,
            "{lanes} lanes, at most {LANES_MAX} are possible"
        );
        let words = |count: u32| (0..count).map(|_| AtomicU64::new(0)).collect();
        let leaves = lanes.div_ceil(BITS);
        Self {
            summary: words(leaves.div_ceil(BITS)),
            leaves: words(leaves),
            next_lane: AtomicU64::new(0),
        }
    }

    /// Puts a lane into the set, after its work was committed. True when it was not there: then the
    /// caller sees to it that the shard is awake in time. Whoever finds it there already needs to
    /// do that only when its own work is wanted earlier than what was there before.
    ///
    /// # Panics
    /// When there is no such lane.
    pub(crate) fn mark(&self, lane: u32) -> bool {
        let (leaf, lane_bit) = (&self.leaves[(lane / BITS) as usize], 1 << (lane % BITS));
        let (summary, leaf_bit) = self.summary_of(lane / BITS);
        // See the module's doc. The fence is this thread's own affair, while an `or` would take
        // the cache line away from everybody else who marks.
        fence(Ordering::SeqCst);
        let is_new = leaf.load(Ordering::Acquire) & lane_bit == 0
            && leaf.fetch_or(lane_bit, Ordering::AcqRel) & lane_bit == 0;
        // The bit may have been set by a thread that did not come to the summary yet, so look in
        // either case. The look is good enough: if a drain passed this leaf before the bit was
        // set, the bit's `or` comes after that drain's `and`, acquires what it released, and the
        // look finds the summary cleared. Otherwise that drain saw the bit.
        if summary.load(Ordering::Relaxed) & leaf_bit == 0 {
            summary.fetch_or(leaf_bit, Ordering::AcqRel);
        }
        is_new
    }

    /// Takes up to `lanes_max` lanes out of the set and calls `visit` for each, once, in turn:
    /// where a drain stops the next one goes on. Returns how many there were. For the shard alone.
    ///
    /// A lane that `visit` could not serve is marked again; the drain that runs does not come back
    /// to it unless it was ahead. A lane marked while an earlier lane of its leaf is visited
    /// may be visited again later with nothing to do.
    pub(crate) fn drain(&self, lanes_max: usize, mut visit: impl FnMut(u32)) -> usize {
        let start = u32::try_from(self.next_lane.load(Ordering::Relaxed)).unwrap_or(0);
        let mut left = lanes_max;
        // From where the last drain stopped to the end, then the part before it.
        let start_leaf = start / BITS;
        let at_and_after = u64::MAX << (start % BITS);
        let leaves = self.leaves.len().try_into().unwrap_or(u32::MAX);
        self.drain_leaf(start_leaf, at_and_after, &mut left, &mut visit);
        self.drain_leaves(start_leaf + 1, leaves, &mut left, &mut visit);
        self.drain_leaves(0, start_leaf, &mut left, &mut visit);
        self.drain_leaf(start_leaf, !at_and_after, &mut left, &mut visit);
        lanes_max - left
    }

    /// Whether no lane is in the set. After [`SleepGate::begin_sleep`](crate::wake::SleepGate) the
    /// answer includes every mark whose thread will not find the shard asleep.
    pub(crate) fn is_empty(&self) -> bool {
        self.summary
            .iter()
            .all(|word| word.load(Ordering::Acquire) == 0)
    }

    /// Drains the leaves `from..to` whose summary bit is set.
    fn drain_leaves(&self, from: u32, to: u32, left: &mut usize, visit: &mut impl FnMut(u32)) {
        let mut leaf = from;
        while leaf < to && *left > 0 {
            let word = self.summary[(leaf / BITS) as usize].load(Ordering::Relaxed);
            match word >> (leaf % BITS) {
                0 => leaf = (leaf / BITS + 1) * BITS,
                ahead => {
                    leaf += ahead.trailing_zeros();
                    if leaf < to {
                        self.drain_leaf(leaf, u64::MAX, left, visit);
                    }
                    leaf += 1;
                }
            }
        }
    }

    /// Drains those lanes of a leaf that `mask` names.
    fn drain_leaf(&self, leaf: u32, mask: u64, left: &mut usize, visit: &mut impl FnMut(u32)) {
        if *left == 0 || mask == 0 || leaf as usize >= self.leaves.len() {
            return;
        }
        let (summary, leaf_bit) = self.summary_of(leaf);
        if summary.load(Ordering::Relaxed) & leaf_bit == 0 {
            return;
        }
        // Summary first: a mark that finds it cleared sets it again.
        summary.fetch_and(!leaf_bit, Ordering::AcqRel);
        let word = &self.leaves[leaf as usize];
        let ready = word.load(Ordering::Acquire);
        let (taken, count) = lowest_bits(ready & mask, *left);
        // Also when nothing is taken: `mark` relies on it. It sees bits that the load did not.
        let before = word.fetch_and(!taken, Ordering::AcqRel);
        if before & !taken != 0 {
            summary.fetch_or(leaf_bit, Ordering::AcqRel);
        }
        // The other half of `mark`'s fence: bits cleared above, lanes read below.
        fence(Ordering::SeqCst);
        *left -= count;
        let mut rest = taken;
        while rest != 0 {
            let lane = leaf * BITS + rest.trailing_zeros();
            rest &= rest - 1;
            self.next_lane.store(u64::from(lane) + 1, Ordering::Relaxed);
            visit(lane);
        }
    }

    /// The summary word over a leaf, and the leaf's bit in it.
    fn summary_of(&self, leaf: u32) -> (&AtomicU64, u64) {
        (&self.summary[(leaf / BITS) as usize], 1 << (leaf % BITS))
    }
}

/// Up to `count` of the lowest bits of `word`, and how many those are.
fn lowest_bits(word: u64, count: usize) -> (u64, usize) {
    let ones = word.count_ones() as usize;
    if ones <= count {
        return (word, ones);
    }
    let mut rest = word;
    for _ in 0..count {
        rest &= rest - 1;
    }
    (word & !rest, count)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn drained(set: &ReadySet, lanes_max: usize) -> Vec<u32> {
        let mut lanes = Vec::new();
        let count = set.drain(lanes_max, |lane| lanes.push(lane));
        assert_eq!(count, lanes.len());
        lanes
    }

    #[test]
    fn a_lane_is_in_it_once() {
        let set = ReadySet::new(LANES_MAX);
        assert!(set.is_empty());
        assert!(set.mark(5));
        assert!(!set.mark(5));
        assert!(!set.is_empty());
        assert_eq!(drained(&set, 10), [5]);
        assert!(set.is_empty());
        assert_eq!(drained(&set, 10), []);
        assert!(set.mark(5));
    }

    #[test]
    fn every_lane_has_a_place_of_its_own() {
        let set = ReadySet::new(LANES_MAX);
        let lanes: BTreeSet<_> = (0..LANES_MAX)
            .step_by(61)
            .chain([63, 64, 4095, 4096, LANES_MAX - 1])
            .collect();
        for &lane in &lanes {
            assert!(set.mark(lane));
        }
        assert_eq!(
            drained(&set, usize::MAX),
            lanes.into_iter().collect::<Vec<_>>()
        );
        assert!(set.is_empty());
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn lanes_beyond_the_last_are_our_bug() {
        ReadySet::new(64).mark(64);
    }

    #[test]
    fn a_bounded_drain_goes_on_where_it_stopped() {
        let set = ReadySet::new(200);
        for lane in [0, 1, 2, 70, 130] {
            set.mark(lane);
        }
        assert_eq!(drained(&set, 2), [0, 1]);
        set.mark(0);
        assert_eq!(drained(&set, 2), [2, 70]);
        assert!(!set.is_empty());
        assert_eq!(drained(&set, 0), []);
        assert_eq!(drained(&set, 2), [130, 0]);
        assert!(set.is_empty());
    }

    #[test]
    fn lanes_that_are_always_ready_take_turns() {
        let set = ReadySet::new(100);
        let mut visits = [0; 100];
        (0..100).for_each(|lane| {
            set.mark(lane);
        });
        for _ in 0..70 {
            set.drain(10, |lane| {
                visits[lane as usize] += 1;
                set.mark(lane);
            });
        }
        assert_eq!(visits, [7; 100]);
    }

    #[test]
    fn a_mark_during_the_visit_stands_for_another() {
        let set = ReadySet::new(64);
        set.mark(3);
        let mut visits = 0;
        set.drain(10, |lane| {
            visits += 1;
            assert!(set.mark(lane), "its bit is clear while it is visited");
        });
        assert_eq!((visits, set.is_empty()), (1, false));
        assert_eq!(drained(&set, 10), [3]);
    }

    #[test]
    fn agrees_with_a_set_under_random_use() {
        use proptest::prelude::*;
        proptest!(|(ops in prop::collection::vec((0..300_u32, 0..8_usize), 1..300))| {
            let set = ReadySet::new(300);
            let mut model = BTreeSet::new();
            for (lane, lanes_max) in ops {
                prop_assert_eq!(set.mark(lane), model.insert(lane));
                if lane % 3 == 0 {
                    let lanes = drained(&set, lanes_max);
                    prop_assert_eq!(lanes.len(), lanes_max.min(model.len()));
                    for lane in lanes {
                        prop_assert!(model.remove(&lane));
                    }
                }
                prop_assert_eq!(set.is_empty(), model.is_empty());
            }
            prop_assert_eq!(drained(&set, usize::MAX).len(), model.len());
        });
    }

    /// Threads count up lanes, first the count and then the mark; a count not seen by the visit
    /// that its mark stands for would be missing in the end.
    #[test]
    fn threads_lose_nothing() {
        const ROUNDS: u32 = 20_000;
        let set = ReadySet::new(150);
        let work: Vec<_> = (0..150).map(|_| AtomicU32::new(0)).collect();
        let running = AtomicU32::new(3);
        let mut done = 0;
        std::thread::scope(|scope| {
            for thread in 0..3_u32 {
                let (set, work, running) = (&set, &work, &running);
                scope.spawn(move || {
                    let mut random = thread + 1;
                    for _ in 0..ROUNDS {
                        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let lane = (random >> 16) % 150;
                        work[lane as usize].fetch_add(1, Ordering::Relaxed);
                        if random % 64 < 8 {
                            std::thread::yield_now();
                        }
                        set.mark(lane);
                    }
                    running.fetch_sub(1, Ordering::Release);
                });
            }
            loop {
                let last = running.load(Ordering::Acquire) == 0;
                let visited = set.drain(7, |lane| {
                    done += work[lane as usize].swap(0, Ordering::Relaxed);
                });
                if last && visited == 0 {
                    break;
                }
            }
        });
        assert_eq!(done, 3 * ROUNDS);
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;
    use loom::thread;

    use super::*;

    /// The lanes' work, committed before the mark by a plain store, and what drains saw of it.
    struct Lanes {
        set: ReadySet,
        work: [AtomicU32; 2],
    }

    impl Lanes {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                set: ReadySet::new(64),
                work: [AtomicU32::new(0), AtomicU32::new(0)],
            })
        }

        fn append(&self, lane: u32) {
            self.work[lane as usize].store(1, Ordering::Relaxed);
            self.set.mark(lane);
        }

        fn drain(&self, seen: &mut [bool; 2]) -> usize {
            self.set.drain(8, |lane| {
                seen[lane as usize] |= self.work[lane as usize].load(Ordering::Relaxed) == 1;
            })
        }
    }

    /// Marks race with a drain: what that drain misses the next one finds.
    fn race(lanes_of_threads: [u32; 2]) {
        let lanes = Lanes::new();
        let appenders = lanes_of_threads.map(|lane| {
            let lanes = lanes.clone();
            thread::spawn(move || lanes.append(lane))
        });
        let mut seen = [false; 2];
        lanes.drain(&mut seen);
        for appender in appenders {
            appender.join().expect("no panic");
        }
        lanes.drain(&mut seen);
        for lane in lanes_of_threads {
            assert!(
                seen[lane as usize],
                "lane {lane} was marked and its work not seen"
            );
        }
        lanes.drain(&mut seen);
        assert!(lanes.set.is_empty());
    }

    #[test]
    fn two_lanes_of_one_leaf() {
        loom::model(|| race([0, 1]));
    }

    #[test]
    fn one_lane_marked_twice() {
        loom::model(|| race([0, 0]));
    }

    /// The second mark finds the bit set and must not be lost with it: each appender has a word of
    /// its own, both in lane 0.
    #[test]
    fn a_mark_that_only_looks_is_seen() {
        loom::model(|| {
            let lanes = Lanes::new();
            lanes.set.mark(0);
            let other = {
                let lanes = lanes.clone();
                thread::spawn(move || {
                    lanes.work[1].store(1, Ordering::Relaxed);
                    lanes.set.mark(0)
                })
            };
            let mut seen = 0;
            lanes
                .set
                .drain(8, |_| seen = lanes.work[1].load(Ordering::Relaxed));
            let was_new = other.join().expect("no panic");
            assert_eq!(
                !lanes.set.is_empty() && was_new,
                was_new,
                "a new mark stays"
            );
            assert!(
                was_new || seen == 1,
                "a mark that found the bit set was not seen"
            );
        });
    }

    /// When a mark has returned, the lane is in reach of the next drain, even if the thread that
    /// set its bit first has not come further than that.
    #[test]
    fn a_mark_does_not_depend_on_who_was_first() {
        loom::model(|| {
            let lanes = Lanes::new();
            let first = {
                let lanes = lanes.clone();
                thread::spawn(move || lanes.set.mark(0))
            };
            lanes.set.mark(0);
            assert!(!lanes.set.is_empty());
            let mut visits = 0;
            lanes.set.drain(8, |_| visits += 1);
            assert_eq!(visits, 1);
            first.join().expect("no panic");
        });
    }

    /// The same while a drain passes by, with the summary bit set for another lane of the leaf.
    #[test]
    fn a_mark_does_not_depend_on_who_was_first_during_a_drain() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let lanes = Lanes::new();
            lanes.set.mark(1);
            let [first, second] = [(); 2].map(|()| {
                let lanes = lanes.clone();
                thread::spawn(move || lanes.set.mark(0))
            });
            let mut visits = 0;
            lanes.set.drain(8, |lane| visits += u32::from(lane == 0));
            second.join().expect("no panic");
            lanes.set.drain(8, |lane| visits += u32::from(lane == 0));
            assert!(visits > 0, "marked, and no drain came");
            first.join().expect("no panic");
        });
    }

    /// A mark that looks at the summary while a drain finds nothing below it: the bit is left from
    /// a lane that was drained before its marker came up to the summary.
    #[test]
    fn a_summary_bit_over_an_empty_leaf_hides_nothing() {
        loom::model(|| {
            let lanes = Lanes::new();
            lanes.set.summary[0].fetch_or(1, Ordering::Relaxed);
            let other = {
                let lanes = lanes.clone();
                thread::spawn(move || lanes.append(0))
            };
            let mut seen = [false; 2];
            lanes.drain(&mut seen);
            other.join().expect("no panic");
            lanes.drain(&mut seen);
            assert!(seen[0], "marked, and no drain came");
        });
    }
}
