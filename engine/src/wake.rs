//! Whether the shard sleeps, and who wakes it.
//!
//! A [`SleepGate`] belongs to each shard. Before the shard waits in the kernel it publishes until
//! when; a thread that gave it work looks whether that is too late, and of all that find so one
//! wakes it. Work that can wait until the shard is awake anyway costs a fence and a load.
//!
//! ```text
//!   appender                                    shard
//!   commit the record, mark its lane            begin_sleep: until = T
//!   ─────────── fence ───────────               ─────────── fence ───────────
//!   load until: 0 or early enough → done        look at the ready set, the completions, …
//!   swap it to 0, the winner rings              nothing → wait until T or the bell
//!                                               end_sleep: until = 0
//! ```
//!
//! Each side writes its own word, fences, and reads the other's: either the appender sees the
//! shard asleep, or the shard sees the mark. Acquire and release would not do, on x86 neither:
//! both reads could pass both writes in the store buffers. The bell is latched (an eventfd), so a
//! ring that comes between the shard's last look and its wait ends the wait at once.
//!
//! Invariants: the shard never sleeps past the time that marked work is wanted; for each sleep the
//! bell rings at most once; a bell for a sleep that ended by itself may end the next one early.
//!
//! Times are nanoseconds on one monotonic clock of the caller's choice.
//!
//! The models of this file and of `ready`:
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p ringpost --release --lib loom_models
//! ```

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(shuttle)] // which has no fences and needs none: it runs one thread at a time
use shuttle::sync::atomic::{AtomicU64, Ordering};
#[cfg(shuttle)]
use std::sync::atomic::fence;
#[cfg(not(any(loom, shuttle)))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Not asleep. Not a time anybody sleeps until.
const AWAKE: u64 = 0;

/// Sleep without an end of its own, and work that nobody waits for.
pub(crate) const NEVER_NS: u64 = u64::MAX;

/// The gate. See the module's doc.
#[derive(Debug)]
pub(crate) struct SleepGate {
    /// [`AWAKE`], or until when the shard sleeps.
    until_ns: AtomicU64,
}

impl SleepGate {
    /// Awake.
    pub(crate) fn new() -> Self {
        Self {
            until_ns: AtomicU64::new(AWAKE),
        }
    }

    /// The shard is about to sleep until `until_ns` ([`NEVER_NS`]: until it is woken). After this
    /// it must look once more at everything it would be woken for, and sleep only when there is
    /// nothing; then, in either case, [`SleepGate::end_sleep`].
    pub(crate) fn begin_sleep(&self, until_ns: u64) {
        self.until_ns
            .store(until_ns.max(AWAKE + 1), Ordering::Relaxed);
        // Pairs with the fence in `wake_if_later_than`.
        fence(Ordering::SeqCst);
    }

    /// The shard is awake. True when somebody took it upon them to ring the bell since
    /// [`SleepGate::begin_sleep`], whether it has rung yet or not.
    pub(crate) fn end_sleep(&self) -> bool {
        self.until_ns.swap(AWAKE, Ordering::AcqRel) == AWAKE
    }

    /// After work was committed and its lane marked: rings the bell when the shard sleeps beyond
    /// `required_by_ns` and nobody rang for this sleep before. 0 is at once; [`NEVER_NS`] wakes
    /// nobody. Returns whether it rang.
    ///
    /// `ring` is called at most once; it must end the shard's wait, or the next one when the shard
    /// does not wait yet.
    pub(crate) fn wake_if_later_than(&self, required_by_ns: u64, ring: impl FnOnce()) -> bool {
        // Pairs with the fence in `begin_sleep`.
        fence(Ordering::SeqCst);
        let until_ns = self.until_ns.load(Ordering::Relaxed);
        if until_ns == AWAKE || until_ns <= required_by_ns {
            return false;
        }
        // When this fails, either somebody else rings for this sleep, or the shard woke since: then
        // what it saw before its next sleep includes our mark, whose fence came before.
        let won = self
            .until_ns
            .compare_exchange(until_ns, AWAKE, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if won {
            ring();
        }
        won
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::ready::ReadySet;

    #[test]
    fn nobody_wakes_who_is_awake() {
        let gate = SleepGate::new();
        assert!(!gate.wake_if_later_than(0, || panic!("awake")));
        gate.begin_sleep(NEVER_NS);
        assert!(!gate.end_sleep());
        assert!(!gate.wake_if_later_than(0, || panic!("awake again")));
    }

    #[test]
    fn only_a_sleep_that_is_too_long_is_ended() {
        let gate = SleepGate::new();
        gate.begin_sleep(100);
        assert!(!gate.wake_if_later_than(NEVER_NS, || panic!("nobody waits for it")));
        assert!(!gate.wake_if_later_than(100, || panic!("awake in time")));
        let mut rings = 0;
        assert!(gate.wake_if_later_than(99, || rings += 1));
        assert!(!gate.wake_if_later_than(0, || panic!("rung already")));
        assert_eq!(rings, 1);
        assert!(gate.end_sleep(), "somebody rang");
    }

    #[test]
    fn a_sleep_until_zero_is_a_sleep() {
        let gate = SleepGate::new();
        gate.begin_sleep(0);
        assert!(gate.wake_if_later_than(0, || {}));
        gate.begin_sleep(NEVER_NS);
        assert!(gate.wake_if_later_than(NEVER_NS - 1, || {}));
    }

    /// As an eventfd: latched.
    #[derive(Default)]
    struct Bell {
        rung: Mutex<bool>,
        heard: Condvar,
    }

    impl Bell {
        fn ring(&self) {
            *self.rung.lock().expect("no panic") = true;
            self.heard.notify_one();
        }

        /// A minute is no measure of time here, only the end of a test that would hang.
        fn wait(&self) {
            let rung = self.rung.lock().expect("no panic");
            let (mut rung, late) = self
                .heard
                .wait_timeout_while(rung, Duration::from_secs(60), |rung| !*rung)
                .expect("no panic");
            assert!(
                !late.timed_out(),
                "a lost wake-up: the shard sleeps and nobody rings"
            );
            *rung = false;
        }
    }

    /// Gives the processor away, now and then.
    struct Gap(u32);

    impl Gap {
        fn maybe_yield(&mut self) {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if self.0 >> 29 == 0 {
                std::thread::yield_now();
            }
        }
    }

    /// Three appenders hand single pieces of work to a shard that sleeps for ever whenever it sees
    /// nothing, with the processor given away at random between any two steps. Each appender
    /// waits now and then until its work is done, so that the shard often has nothing to do.
    #[test]
    fn a_shard_that_sleeps_is_woken_for_every_mark() {
        const THREADS: u32 = 3;
        const ROUNDS: u32 = 20_000;
        let set = ReadySet::new(200);
        let gate = SleepGate::new();
        let bell = Bell::default();
        let work: Vec<_> = (0..200).map(|_| AtomicU32::new(0)).collect();
        let mut done = 0;
        let mut sleeps = 0;
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (set, gate, bell, work) = (&set, &gate, &bell, &work);
                scope.spawn(move || {
                    let mut gap = Gap(thread);
                    for round in 0..ROUNDS {
                        let lane = thread * 66 + round % 3;
                        work[lane as usize].fetch_add(1, Ordering::Relaxed);
                        gap.maybe_yield();
                        if set.mark(lane) {
                            gap.maybe_yield();
                            gate.wake_if_later_than(u64::from(round), || {
                                gap.maybe_yield();
                                bell.ring();
                            });
                        }
                        while round % 5 == 0 && work[lane as usize].load(Ordering::Relaxed) > 0 {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut gap = Gap(THREADS);
            while done < THREADS * ROUNDS {
                set.drain(16, |lane| {
                    gap.maybe_yield();
                    done += work[lane as usize].swap(0, Ordering::Relaxed);
                });
                gate.begin_sleep(NEVER_NS);
                gap.maybe_yield();
                if set.is_empty() && done < THREADS * ROUNDS {
                    gap.maybe_yield();
                    bell.wait();
                    sleeps += 1;
                }
                gate.end_sleep();
            }
        });
        assert_eq!(done, THREADS * ROUNDS);
        assert!(sleeps > 0, "never slept: nothing was tested");
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::atomic::AtomicU32;
    use loom::sync::{Arc, Notify};
    use loom::thread;

    use super::*;
    use crate::ready::ReadySet;

    struct Shard {
        gate: SleepGate,
        bell: Notify,
        set: ReadySet,
        work: [AtomicU32; 2],
    }

    impl Shard {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                gate: SleepGate::new(),
                bell: Notify::new(),
                set: ReadySet::new(64),
                work: [AtomicU32::new(0), AtomicU32::new(0)],
            })
        }

        fn sleep_unless(&self, until_ns: u64, has_work: impl Fn() -> bool) {
            self.gate.begin_sleep(until_ns);
            if !has_work() {
                self.bell.wait();
            }
            self.gate.end_sleep();
        }
    }

    /// The gate alone: appenders store a plain word each; a shard that sleeps while one is set is
    /// a deadlock, which loom reports.
    fn no_lost_wake(appenders: usize) {
        let shard = Shard::new();
        let threads: Vec<_> = (0..appenders)
            .map(|appender| {
                let shard = shard.clone();
                thread::spawn(move || {
                    shard.work[appender].store(1, Ordering::Relaxed);
                    shard.gate.wake_if_later_than(50, || shard.bell.notify());
                })
            })
            .collect();
        let has = |appender: usize| shard.work[appender].load(Ordering::Relaxed) == 1;
        let mut done = [false; 2];
        while (0..appenders).any(|appender| !done[appender]) {
            let news = |done: &[bool; 2]| (0..appenders).any(|a| !done[a] && has(a));
            shard.sleep_unless(100, || news(&done));
            for appender in 0..appenders {
                done[appender] |= has(appender);
            }
        }
        for thread in threads {
            thread.join().expect("no panic");
        }
    }

    #[test]
    fn one_appender_is_never_slept_through() {
        loom::model(|| no_lost_wake(1));
    }

    #[test]
    fn two_appenders_are_never_slept_through() {
        // Three preemptions reach every pairing of the fences in a few seconds; without a bound the
        // model does not end within a minute.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| no_lost_wake(2));
    }

    #[test]
    fn a_sleep_has_at_most_one_ring() {
        loom::model(|| {
            let shard = Shard::new();
            shard.gate.begin_sleep(100);
            let threads = [0, 1].map(|_| {
                let shard = shard.clone();
                thread::spawn(move || shard.gate.wake_if_later_than(50, || {}))
            });
            let rings = threads.map(|thread| thread.join().expect("no panic"));
            assert!(rings[0] != rings[1], "one of two rings");
            assert!(shard.gate.end_sleep());
        });
    }

    /// Set and gate together, as the shard uses them: mark, drain, sleep. Work is a plain word; the
    /// shard goes on until it has seen all of it in visits of the lanes.
    fn no_marked_lane_is_slept_through(lanes: &'static [u32]) {
        let shard = Shard::new();
        let threads: Vec<_> = lanes
            .iter()
            .enumerate()
            .map(|(appender, &lane)| {
                let shard = shard.clone();
                thread::spawn(move || {
                    shard.work[appender].store(1, Ordering::Relaxed);
                    if shard.set.mark(lane) {
                        shard.gate.wake_if_later_than(50, || shard.bell.notify());
                    }
                })
            })
            .collect();
        let mut seen = [false; 2];
        loop {
            shard.set.drain(8, |visited| {
                for (appender, &lane) in lanes.iter().enumerate() {
                    seen[appender] |=
                        visited == lane && shard.work[appender].load(Ordering::Relaxed) == 1;
                }
            });
            if seen[..lanes.len()].iter().all(|&seen| seen) {
                break;
            }
            shard.sleep_unless(100, || !shard.set.is_empty());
        }
        for thread in threads {
            thread.join().expect("no panic");
        }
    }

    #[test]
    fn a_marked_lane_is_never_slept_through() {
        loom::model(|| no_marked_lane_is_slept_through(&[0]));
    }

    #[test]
    fn two_marked_lanes_are_never_slept_through() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| no_marked_lane_is_slept_through(&[0, 1]));
    }

    #[test]
    fn a_lane_marked_by_two_is_never_slept_through() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| no_marked_lane_is_slept_through(&[0, 0]));
    }
}
