//! What the threads of a run count, and how cheaply: each thread has counters of its own on cache
//! lines of its own, and one histogram pair behind a lock that only the sampler ever contends, once
//! an interval.
//!
//! ```text
//! sender thread ──► SenderTally      taken, refused, waits for room
//! collector thread ──► SettledTally  acked, sent, not written, unknown, histograms
//! main thread (sampler) reads all of them every 10 ms and swaps the histograms every interval
//! ```
//! Counters have one writer each: it loads and stores, no atomic addition is needed.

use std::fmt::Display;
use std::iter::Sum;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use crate::histogram::latencies;
use crate::stamp::Stamp;

/// Different reasons of failures that are told apart; the rest is counted as "others".
const REASONS_MAX: usize = 8;

/// Adds to a counter that this thread alone writes.
#[inline]
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

/// Counters of one application thread.
#[derive(Debug, Default)]
#[repr(align(128))] // two lines: the neighbour's prefetch stays away too
pub struct SenderTally {
    taken: AtomicU64,
    taken_bytes: AtomicU64,
    full_waits: AtomicU64,
    blocked_ns: AtomicU64,
}

impl SenderTally {
    /// Records the client took, with the bytes of their keys and values.
    #[inline]
    pub fn took(&self, records: u64, bytes: u64) {
        add(&self.taken, records);
        add(&self.taken_bytes, bytes);
    }

    /// A record found no room and waited for `ns`.
    pub fn blocked(&self, ns: u64) {
        add(&self.full_waits, 1);
        add(&self.blocked_ns, ns);
    }
}

/// A sum over senders at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// Records the client took.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// How often a record found no room.
    pub full_waits: u64,
    /// How long senders waited for room, ns over all threads.
    pub blocked_ns: u64,
}

impl Taken {
    /// Of all senders.
    pub fn of(senders: &[SenderTally]) -> Self {
        let mut sum = Self::default();
        for sender in senders {
            sum.records += sender.taken.load(Ordering::Relaxed);
            sum.bytes += sender.taken_bytes.load(Ordering::Relaxed);
            sum.full_waits += sender.full_waits.load(Ordering::Relaxed);
            sum.blocked_ns += sender.blocked_ns.load(Ordering::Relaxed);
        }
        sum
    }
}

/// How records ended, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Acknowledged.
    pub acked: u64,
    /// Handed to the kernel, and nobody will say more (`acks=0`).
    pub sent: u64,
    /// Certainly not written.
    pub not_written: u64,
    /// Perhaps written.
    pub unknown: u64,
}

impl Settled {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.acked + self.sent + self.not_written + self.unknown
    }

    /// What succeeded, in the terms of the run's `acks`.
    pub fn good(&self) -> u64 {
        self.acked + self.sent
    }

    /// What happened since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            acked: self.acked.saturating_sub(earlier.acked),
            sent: self.sent.saturating_sub(earlier.sent),
            not_written: self.not_written.saturating_sub(earlier.not_written),
            unknown: self.unknown.saturating_sub(earlier.unknown),
        }
    }

    /// Of all collectors.
    pub fn of(tallies: &[SettledTally]) -> Self {
        tallies.iter().map(SettledTally::settled).sum()
    }
}

impl Sum for Settled {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            acked: sum.acked + one.acked,
            sent: sum.sent + one.sent,
            not_written: sum.not_written + one.not_written,
            unknown: sum.unknown + one.unknown,
        })
    }
}

/// Latencies of one interval, in ns.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// Intended time → ack.
    pub response: Histogram<u64>,
    /// Actual send → ack.
    pub service: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            response: latencies(),
            service: latencies(),
        }
    }
}

/// Counters and histograms of one thread that sees acks.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct SettledTally {
    acked: AtomicU64,
    sent: AtomicU64,
    not_written: AtomicU64,
    unknown: AtomicU64,
    last_ns: AtomicU64,
    timed: Mutex<Timed>,
    reasons: Mutex<Vec<(String, u64)>>,
}

/// The histograms, and whether what is seen now belongs into them. The counters change under the same
/// lock, so that histograms and counts of a window never differ.
#[derive(Debug, Default)]
struct Timed {
    in_window: bool,
    latencies: Latencies,
}

impl SettledTally {
    /// Starts recording what was seen at `now_ns`, a batch of completions at a time. Ends when the
    /// recording is dropped.
    #[inline]
    pub fn at(&self, now_ns: u64) -> Recording<'_> {
        Recording {
            tally: self,
            timed: locked(&self.timed),
            now_ns,
            run: None,
            settled: Settled::default(),
        }
    }

    /// The measured window begins or ends. Returns what has settled until then.
    pub fn turn(&self, in_window: bool) -> Settled {
        let mut timed = locked(&self.timed);
        timed.in_window = in_window;
        self.settled()
    }

    fn settled(&self) -> Settled {
        Settled {
            acked: self.acked.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            not_written: self.not_written.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
        }
    }

    /// When the last record settled.
    pub fn last_ns(&self) -> u64 {
        self.last_ns.load(Ordering::Relaxed)
    }

    /// Moves the interval's latencies into `total` and hands its histograms to `seen`.
    pub fn take_latencies(&self, into: &mut Latencies) {
        let latencies = &mut locked(&self.timed).latencies;
        // Same bounds: adding cannot fail, and if it did nothing would be added.
        let _ = into.response.add(&latencies.response);
        let _ = into.service.add(&latencies.service);
        latencies.response.reset();
        latencies.service.reset();
    }

    /// Why records were not written or are unknown, and how many of each.
    pub fn reasons(&self) -> Vec<(String, u64)> {
        locked(&self.reasons).clone()
    }

    fn reason(&self, why: &dyn Display) {
        let mut reasons = locked(&self.reasons);
        let why = why.to_string();
        if let Some((_, count)) = reasons.iter_mut().find(|(known, _)| *known == why) {
            *count += 1;
        } else if reasons.len() < REASONS_MAX {
            reasons.push((why, 1));
        } else {
            reasons[REASONS_MAX - 1].0 = "others".into();
            reasons[REASONS_MAX - 1].1 += 1;
        }
    }
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panicking recorder leaves counts, not broken structures.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Completions seen at one moment. Equal stamps in a row are recorded together, so a batch whose
/// records carry the same stamp costs as much as one record.
#[derive(Debug)]
pub struct Recording<'a> {
    tally: &'a SettledTally,
    timed: MutexGuard<'a, Timed>,
    now_ns: u64,
    run: Option<(Stamp, u64)>,
    settled: Settled,
}

impl Recording<'_> {
    /// `records` with this stamp were acknowledged.
    #[inline]
    pub fn acked(&mut self, stamp: Stamp, records: u64) {
        self.settled.acked += records;
        self.latency(stamp, records);
    }

    /// `records` with this stamp went out, unanswered.
    #[inline]
    pub fn sent(&mut self, stamp: Stamp, records: u64) {
        self.settled.sent += records;
        self.latency(stamp, records);
    }

    /// A record was not written.
    #[cold]
    pub fn not_written(&mut self, why: &dyn Display) {
        self.settled.not_written += 1;
        self.tally.reason(why);
    }

    /// A record may have been written.
    #[cold]
    pub fn unknown(&mut self, why: &dyn Display) {
        self.settled.unknown += 1;
        self.tally.reason(why);
    }

    #[inline]
    fn latency(&mut self, stamp: Stamp, records: u64) {
        match &mut self.run {
            Some((same, run)) if *same == stamp => *run += records,
            _ => {
                self.end_run();
                self.run = Some((stamp, records));
            }
        }
    }

    fn end_run(&mut self) {
        let Some((stamp, records)) = self.run.take() else {
            return;
        };
        if self.timed.in_window {
            let (response, service) = stamp.latencies(self.now_ns);
            let latencies = &mut self.timed.latencies;
            latencies.response.saturating_record_n(response, records);
            latencies.service.saturating_record_n(service, records);
        }
    }
}

impl Drop for Recording<'_> {
    // The lock is let go of after this.
    fn drop(&mut self) {
        self.end_run();
        add(&self.tally.acked, self.settled.acked);
        add(&self.tally.sent, self.settled.sent);
        add(&self.tally.not_written, self.settled.not_written);
        add(&self.tally.unknown, self.settled.unknown);
        if self.settled.total() > 0 {
            self.tally.last_ns.store(self.now_ns, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_seen_inside_the_window_is_timed() {
        let tally = SettledTally::default();
        let stamp = Stamp::new(1_024, 1_024);
        tally.at(10_000).acked(stamp, 1);
        assert_eq!(tally.turn(true).acked, 1);
        tally.at(20_000).acked(stamp, 2);
        assert_eq!(tally.turn(false).acked, 3);
        tally.at(30_000).acked(stamp, 4);
        let mut latencies = Latencies::default();
        tally.take_latencies(&mut latencies);
        assert_eq!((latencies.response.len(), latencies.service.len()), (2, 2));
        assert_eq!(Settled::of(&[tally]).acked, 7);
    }

    /// However a window's edges fall between two threads, what it counts is what it timed.
    #[test]
    fn counts_and_histograms_of_a_window_agree_whoever_is_first() {
        let tally = SettledTally::default();
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) == 0 {
                    tally.at(2_000).acked(Stamp::new(1_024, 1_024), 3);
                }
            });
            for _ in 0..1_000 {
                let before = tally.turn(true);
                std::thread::yield_now();
                let counted = tally.turn(false).since(&before).acked;
                let mut latencies = Latencies::default();
                tally.take_latencies(&mut latencies);
                assert_eq!(latencies.response.len(), counted);
            }
            done.store(1, Ordering::Relaxed);
        });
    }

    #[test]
    fn taking_latencies_leaves_none() {
        let tally = SettledTally::default();
        tally.turn(true);
        {
            let mut recording = tally.at(5_000_000);
            recording.acked(Stamp::new(0, 1_000_000), 3);
            recording.sent(Stamp::new(0, 2_000_000), 1);
        }
        let mut all = Latencies::default();
        tally.take_latencies(&mut all);
        tally.take_latencies(&mut all);
        assert_eq!(all.response.len(), 4);
        assert_eq!(all.service.count_between(3_900_000, 4_100_000), 3);
        assert_eq!(tally.last_ns(), 5_000_000);
    }

    #[test]
    fn reasons_are_bounded() {
        let tally = SettledTally::default();
        for number in 0..20 {
            tally.at(0).not_written(&number);
            tally.at(0).unknown(&"same");
        }
        let reasons = tally.reasons();
        assert_eq!(reasons.len(), REASONS_MAX);
        assert_eq!(reasons.iter().map(|(_, count)| count).sum::<u64>(), 40);
        let settled = Settled::of(&[tally]);
        assert_eq!(
            (settled.not_written, settled.unknown, settled.good()),
            (20, 20, 0)
        );
    }
}
