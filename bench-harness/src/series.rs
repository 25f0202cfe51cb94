//! The window's series: what was measured, an interval at a time, in a bounded number of intervals.
//!
//! ```text
//! every 10 ms:     acked records → a rate                     ┐
//! every interval:  histograms swapped, packed, kept           │ 1 s 1 s 1 s 1 s … 1 s   full
//! when it is full: neighbours are merged, and from then on    │ 2 s     2 s     … 1 s
//!                  an interval is twice as long               ┘ 2 s     2 s     2 s     …
//! ```
//! A planned length chooses intervals that never fill it; a number of records has no known length,
//! and is why coarsening happens while the run goes on. Merging adds histograms: nothing is averaged,
//! and the whole window's histograms are the sum of all intervals at any time.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::client::{Client, Stages};
use crate::histogram::{Sparse, rates};
use crate::number::{count, float, index, whole};
use crate::plan::Plan;
use crate::run::Run;
use crate::tally::{Latencies, Settled};
use crate::usage::{self, Process};

/// How often the rate is sampled.
pub const TICK_NS: u64 = 10_000_000;
/// The shortest interval.
const INTERVAL_NS_MIN: u64 = 1_000_000_000;
/// Intervals kept at most.
const INTERVALS_MAX: usize = 150;
/// What one takes, about, when latencies are spread widely (two histograms of 5,000 buckets, more than
/// a byte each): 3 MiB for all.
const INTERVAL_BYTES: usize = 20 << 10;

/// One interval of the series.
#[derive(Clone, Debug)]
pub struct Interval {
    /// From the window's start.
    pub start: Duration,
    /// How long it was.
    pub length: Duration,
    /// Records acked in it.
    pub acked: u64,
    /// Client CPU in it, s.
    pub cpu_s: f64,
    /// Memory the client held, the most at the ends of what was merged into this one.
    pub rss_bytes: Option<u64>,
    /// Its 10 ms rates.
    pub rates: Sparse,
    /// Its response times.
    pub response: Sparse,
    /// Its service times.
    pub service: Sparse,
}

impl Interval {
    /// This one and the one right behind it as one.
    fn and(self, next: Self) -> Self {
        Self {
            start: self.start,
            length: self.length + next.length,
            acked: self.acked + next.acked,
            cpu_s: self.cpu_s + next.cpu_s,
            rss_bytes: self.rss_bytes.max(next.rss_bytes),
            rates: self.rates.merged(&next.rates),
            response: self.response.merged(&next.response),
            service: self.service.merged(&next.service),
        }
    }
}

/// A bounded list of intervals. Its memory is taken when it is made, so that what a run holds does not
/// grow with its length: a block is given back to the allocator for each interval that comes.
#[derive(Debug)]
struct Kept {
    intervals: Vec<Interval>,
    max: usize,
    blocks: Vec<Box<[u8]>>,
}

impl Kept {
    /// For `planned` intervals, and never more than `max`.
    fn new(max: usize, planned: usize) -> Self {
        Self {
            intervals: Vec::with_capacity(max),
            max,
            // Not zeros: pages of those would only be promised.
            blocks: (0..planned.min(max))
                .map(|_| vec![1; INTERVAL_BYTES].into_boxed_slice())
                .collect(),
        }
    }

    /// Adds an interval, or one without length to the one before it; whether neighbours were merged to
    /// make room for the next ones.
    fn push(&mut self, interval: Interval) -> bool {
        if interval.length.is_zero()
            && let Some(before) = self.intervals.pop()
        {
            self.intervals.push(before.and(interval));
            return false;
        }
        self.blocks.pop();
        self.intervals.push(interval);
        if self.intervals.len() < self.max {
            return false;
        }
        let mut all =
            std::mem::replace(&mut self.intervals, Vec::with_capacity(self.max)).into_iter();
        while let Some(interval) = all.next() {
            self.intervals.push(match all.next() {
                Some(next) => interval.and(next),
                None => interval,
            });
        }
        true
    }
}

/// The window's histograms and series.
#[derive(Debug)]
pub struct Series {
    start_ns: u64,
    /// What had settled before the window.
    pub start_settled: Settled,
    /// The last tick.
    tick_ns: u64,
    tick_good: u64,
    /// The interval under way.
    interval_ns: u64,
    interval_length_ns: u64,
    interval_good: u64,
    interval_cpu_s: f64,
    interval_rates: Histogram<u64>,
    interval_stages: Option<Stages>,
    kept: Kept,
    /// Of the whole window.
    rates: Histogram<u64>,
    latencies: Latencies,
}

/// What a window gave, once it is closed.
#[derive(Debug)]
pub struct Recording {
    /// Rates of 10 ms over all of it.
    pub rates: Histogram<u64>,
    /// Latencies of all of it.
    pub latencies: Latencies,
    /// The series.
    pub intervals: Vec<Interval>,
}

impl Series {
    /// A window that opens at `start_ns`.
    pub fn new(
        plan: &Plan,
        start_ns: u64,
        settled: Settled,
        cpu_s: f64,
        stages: Option<Stages>,
    ) -> Self {
        Self {
            start_ns,
            start_settled: settled,
            tick_ns: start_ns,
            tick_good: settled.good(),
            interval_ns: start_ns,
            interval_length_ns: first_length_ns(plan),
            interval_good: settled.good(),
            interval_cpu_s: cpu_s,
            interval_rates: rates(),
            interval_stages: stages,
            kept: Kept::new(INTERVALS_MAX, planned(plan)),
            rates: rates(),
            latencies: Latencies::default(),
        }
    }

    /// Notes how many records are good by now.
    pub fn tick(&mut self, run: &Run, client: &dyn Client, now_ns: u64, good: u64, last: bool) {
        let length = now_ns.saturating_sub(self.tick_ns);
        if length >= TICK_NS / 2 {
            let rate = float(good.saturating_sub(self.tick_good)) * 1e9 / float(length);
            // A sample that came late stands for all the ticks it covers.
            let ticks = ((length + TICK_NS / 2) / TICK_NS).max(1);
            self.interval_rates.saturating_record_n(whole(rate), ticks);
            (self.tick_ns, self.tick_good) = (now_ns, good);
        }
        let length = now_ns.saturating_sub(self.interval_ns);
        // Counted records end with the last one's stamp. An interval that ended behind that, before the
        // record was counted, leaves some for an end without any length.
        let left = length > 0 || good > self.interval_good;
        if length >= self.interval_length_ns || (last && left) {
            self.end_interval(run, client, now_ns, good);
        }
    }

    /// All of it.
    pub fn end(self) -> Recording {
        Recording {
            rates: self.rates,
            latencies: self.latencies,
            intervals: self.kept.intervals,
        }
    }

    fn end_interval(&mut self, run: &Run, client: &dyn Client, now_ns: u64, good: u64) {
        let mut latencies = Latencies::default();
        for tally in &run.settled {
            tally.take_latencies(&mut latencies);
        }
        if client.settled().is_some()
            && let Some(stages) = client.stages()
        {
            if let Some(earlier) = &self.interval_stages {
                let interval = stages.clone().since(earlier);
                for bucket in interval.append_to_ack.iter_recorded() {
                    let nanos = bucket.value_iterated_to().saturating_mul(1_000);
                    latencies
                        .service
                        .saturating_record_n(nanos, bucket.count_at_value());
                }
            }
            self.interval_stages = Some(stages);
        }
        let cpu_s = Process::now().cpu_s();
        let coarser = self.kept.push(Interval {
            start: Duration::from_nanos(self.interval_ns - self.start_ns),
            length: Duration::from_nanos(now_ns.saturating_sub(self.interval_ns)),
            acked: good - self.interval_good,
            cpu_s: cpu_s - self.interval_cpu_s,
            rss_bytes: usage::rss_bytes(),
            rates: Sparse::of(&self.interval_rates),
            response: Sparse::of(&latencies.response),
            service: Sparse::of(&latencies.service),
        });
        if coarser {
            self.interval_length_ns *= 2;
        }
        // Same bounds: adding cannot fail.
        let _ = self.rates.add(&self.interval_rates);
        let _ = self.latencies.response.add(&latencies.response);
        let _ = self.latencies.service.add(&latencies.service);
        self.interval_rates.reset();
        (self.interval_ns, self.interval_good, self.interval_cpu_s) = (now_ns, good, cpu_s);
    }
}

/// Intervals that the planned length never fills; the shortest where no length is planned.
fn first_length_ns(plan: &Plan) -> u64 {
    if plan.records.is_some() {
        return INTERVAL_NS_MIN;
    }
    let planned = u64::try_from(plan.duration.as_nanos()).unwrap_or(u64::MAX);
    // Not quite full: the last interval may be a short one.
    let fitting = count(INTERVALS_MAX) - 2;
    INTERVAL_NS_MIN.max(planned.div_ceil(fitting))
}

/// How many intervals there will be, as far as anybody knows.
fn planned(plan: &Plan) -> usize {
    let duration = u64::try_from(plan.duration.as_nanos()).unwrap_or(u64::MAX);
    index(duration.div_ceil(first_length_ns(plan)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::latencies;
    use crate::random::Random;

    /// Interval `number`, a second long.
    fn interval(number: u64, response: Sparse) -> Interval {
        Interval {
            start: Duration::from_secs(number),
            length: Duration::from_secs(1),
            acked: number,
            cpu_s: 0.5,
            rss_bytes: Some(number),
            rates: Sparse::default(),
            response,
            service: Sparse::default(),
        }
    }

    #[test]
    fn coarsening_is_bounded_and_loses_nothing() {
        let (mut random, mut times, mut all) = (Random::new(7), latencies(), latencies());
        let mut kept = Kept::new(16, 16);
        for number in 0..200 {
            times.reset();
            for _ in 0..20 {
                times.saturating_record_n(random.below(50_000_000), 1 + random.below(1_000));
            }
            all.add(&times).expect("the same bounds");
            let coarser = kept.push(interval(number, Sparse::of(&times)));
            assert_eq!(coarser, number >= 15 && (number - 15) % 8 == 0, "{number}");
            assert!(kept.intervals.len() < 16);
        }
        let mut sum = latencies();
        let mut next = Duration::ZERO;
        for interval in &kept.intervals {
            assert_eq!(interval.start, next, "no gap, no overlap");
            next += interval.length;
            interval.response.add_to(&mut sum);
        }
        assert_eq!(next, Duration::from_secs(200));
        assert_eq!(sum, all, "histograms add up");
        let acked: u64 = kept.intervals.iter().map(|interval| interval.acked).sum();
        assert_eq!(acked, 199 * 100);
        let cpu: f64 = kept.intervals.iter().map(|interval| interval.cpu_s).sum();
        assert!((cpu - 100.0).abs() < 1e-6);
        let peak = kept.intervals.iter().filter_map(|one| one.rss_bytes).max();
        assert_eq!(peak, Some(199), "the most memory is still seen");
    }

    #[test]
    fn what_settled_at_the_end_of_an_interval_is_its_own() {
        let mut times = latencies();
        times.saturating_record_n(1_000_000, 3);
        let mut kept = Kept::new(16, 16);
        kept.push(interval(7, Sparse::of(&times)));
        let rest = Interval {
            start: Duration::from_secs(8),
            length: Duration::ZERO,
            ..interval(5, Sparse::of(&times))
        };
        kept.push(rest);
        assert_eq!(kept.intervals.len(), 1);
        let whole = &kept.intervals[0];
        assert_eq!((whole.start.as_secs(), whole.length.as_secs()), (7, 1));
        assert_eq!(whole.acked, 12);
        let mut sum = latencies();
        whole.response.add_to(&mut sum);
        assert_eq!(sum.len(), 6);
    }

    #[test]
    fn an_interval_that_doubles_with_each_merge_covers_half_a_day() {
        let mut kept = Kept::new(INTERVALS_MAX, INTERVALS_MAX);
        let (mut length, mut passed, mut pushed) = (1, 0, 0);
        while passed < 12 * 3600 {
            let mut one = interval(passed, Sparse::default());
            one.length = Duration::from_secs(length);
            passed += length;
            pushed += 1;
            if kept.push(one) {
                length *= 2;
            }
        }
        // 150 of 1 s, then 75 of each of 2, 4, 8 … s.
        assert!((600..900).contains(&pushed), "{pushed}");
        assert!((75..150).contains(&kept.intervals.len()));
        let longest = kept.intervals.iter().map(|one| one.length.as_secs()).max();
        assert!(longest.is_some_and(|seconds| seconds <= 12 * 3600 / 75));
    }

    #[test]
    fn a_planned_length_needs_no_coarsening() {
        for seconds in [1, 10, 147, 148, 149, 150, 600, 12 * 3600] {
            let duration = Duration::from_secs(seconds);
            let plan = Plan {
                duration,
                ..Plan::default()
            };
            let length = first_length_ns(&plan);
            let planned = u64::try_from(duration.as_nanos()).expect("hours");
            let intervals = planned.div_ceil(length) + 1;
            assert!(intervals < count(INTERVALS_MAX), "{seconds} s");
        }
        let counted = Plan {
            records: Some(5),
            duration: crate::setting::DURATION_MAX,
            ..Plan::default()
        };
        assert_eq!(first_length_ns(&counted), INTERVAL_NS_MIN);
    }

    #[test]
    fn memory_for_the_intervals_is_there_before_they_are() {
        let seconds = |seconds| Plan {
            duration: Duration::from_secs(seconds),
            ..Plan::default()
        };
        assert_eq!(planned(&seconds(10)), 10);
        assert!(planned(&seconds(12 * 3600)) < INTERVALS_MAX);
        let mut kept = Kept::new(INTERVALS_MAX, 2);
        assert_eq!(kept.blocks.len(), 2);
        for left in [1, 0, 0] {
            kept.push(interval(0, Sparse::default()));
            assert_eq!(kept.blocks.len(), left);
        }
    }
}
