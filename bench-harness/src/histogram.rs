//! Histograms: latencies in nanoseconds, rates in records per second.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::number::{float, milli};

/// Times below this many ns share a bucket: less than the stamps resolve.
const LATENCY_MIN_NS: u64 = 256;
/// Longer times than an hour count as an hour.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;
/// Rates up to 10 billion records a second.
const RATE_MAX: u64 = 10_000_000_000;
/// Significant decimal figures of all of them: 0.1 %.
const FIGURES: u8 = 3;

/// An empty histogram of latencies in ns: 256 ns to 1 hour, within 0.1 %.
pub fn latencies() -> Histogram<u64> {
    bounded(LATENCY_MIN_NS, LATENCY_MAX_NS)
}

/// An empty histogram of rates in records per second.
pub fn rates() -> Histogram<u64> {
    bounded(1, RATE_MAX)
}

fn bounded(low: u64, high: u64) -> Histogram<u64> {
    Histogram::new_with_bounds(low, high, FIGURES)
        .expect("constant bounds that the histogram allows")
}

/// What is kept of a histogram for one interval: its occupied buckets, each as its count and, where it
/// changes, the distance from the one before; in seven bits a byte. About a byte a bucket.
#[derive(Clone, Debug, Default)]
pub struct Sparse(Box<[u8]>);

impl Sparse {
    /// The occupied buckets of `histogram`.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let buckets = histogram.iter_recorded();
        Self::pack(buckets.map(|b| (b.value_iterated_to(), b.count_at_value())))
    }

    /// Both as one.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let (mut ours, mut theirs) = (self.buckets().peekable(), other.buckets().peekable());
        Self::pack(std::iter::from_fn(move || {
            match (ours.peek().copied(), theirs.peek().copied()) {
                (Some((value, count)), Some((same, more))) if value == same => {
                    ours.next();
                    theirs.next();
                    Some((value, count + more))
                }
                (Some((value, _)), Some((other, _))) if other < value => theirs.next(),
                (Some(_), _) => ours.next(),
                (None, _) => theirs.next(),
            }
        }))
    }

    /// These buckets, without a histogram: tests make thousands.
    #[cfg(test)]
    pub(crate) fn made_of(buckets: impl Iterator<Item = (u64, u64)>) -> Self {
        Self::pack(buckets)
    }

    /// Adds what is kept to a histogram with the same bounds.
    pub fn add_to(&self, histogram: &mut Histogram<u64>) {
        for (value, count) in self.buckets() {
            histogram.saturating_record_n(value, count);
        }
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Values must ascend.
    fn pack(buckets: impl Iterator<Item = (u64, u64)>) -> Self {
        let (mut bytes, mut last, mut gap) = (Vec::new(), 0, 0);
        for (value, count) in buckets {
            // Neighbours are as far apart as those before them: then the count says it all.
            let same = value - last == gap;
            gap = value - last;
            last = value;
            put(&mut bytes, u128::from(count) << 1 | u128::from(same));
            if !same {
                put(&mut bytes, u128::from(gap));
            }
        }
        Self(bytes.into_boxed_slice())
    }

    /// The occupied buckets: the highest value of each, and how many were recorded in it.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let (mut bytes, mut value, mut gap) = (self.0.iter().copied(), 0, 0);
        std::iter::from_fn(move || {
            let number = take(&mut bytes)?;
            if number & 1 == 0 {
                gap = u64::try_from(take(&mut bytes)?).ok()?;
            }
            value += gap;
            Some((value, u64::try_from(number >> 1).ok()?))
        })
    }
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn put(bytes: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn take(bytes: &mut impl Iterator<Item = u8>) -> Option<u128> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes.next()?;
        number |= u128::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return Some(number);
        }
    }
}

/// A latency distribution in µs, as results give it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the percentiles")]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub p99_99: f64,
    pub max: f64,
    pub mean: f64,
}

impl Latency {
    /// Of a histogram whose values are `unit_ns` long; `None` when nothing was recorded.
    pub fn of(histogram: &Histogram<u64>, unit_ns: f64) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let micros = |value: f64| milli(value * unit_ns / 1_000.0);
        let at = |quantile| micros(float(histogram.value_at_quantile(quantile)));
        Some(Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: micros(float(histogram.max())),
            mean: micros(histogram.mean()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_survives_being_kept_sparse() {
        let mut first = latencies();
        for value in [0, 100, 18_000, 18_001, 5_000_000, LATENCY_MAX_NS * 2] {
            first.saturating_record_n(value, 7);
        }
        let mut again = latencies();
        Sparse::of(&first).add_to(&mut again);
        assert_eq!(first, again);
    }

    #[test]
    fn a_full_interval_takes_about_a_byte_a_bucket() {
        let mut times = latencies();
        for value in 0..160_000u64 {
            times.saturating_record(100_000 + value * 50);
        }
        let sparse = Sparse::of(&times);
        let buckets = sparse.buckets().count();
        assert!(buckets > 4_000, "{buckets}");
        assert!(sparse.0.len() < buckets * 5 / 4, "{} bytes", sparse.0.len());
    }

    #[test]
    fn merging_what_is_kept_is_merging_the_histograms() {
        let (mut first, mut second) = (latencies(), latencies());
        for value in [0, 18_000, 18_001, 5_000_000] {
            first.saturating_record_n(value, 300);
        }
        for value in [300, 18_000, 4_999_999, LATENCY_MAX_NS, u64::MAX] {
            second.saturating_record_n(value, 7);
        }
        let mut again = latencies();
        let (kept, more) = (Sparse::of(&first), Sparse::of(&second));
        for (one, other) in [(&kept, &more), (&more, &kept)] {
            again.reset();
            one.merged(other).add_to(&mut again);
            let mut both = first.clone();
            both.add(&second).expect("the same bounds");
            assert_eq!(both, again);
        }
        assert!(Sparse::default().merged(&Sparse::default()).is_empty());
    }

    #[test]
    fn numbers_survive_packing() {
        let numbers = [0, 1, 127, 128, 300, 1 << 21, u128::from(u64::MAX) << 1 | 1];
        let mut bytes = Vec::new();
        for number in numbers {
            put(&mut bytes, number);
        }
        let mut bytes = bytes.into_iter();
        assert!(
            numbers
                .iter()
                .all(|number| take(&mut bytes) == Some(*number))
        );
        assert_eq!(take(&mut bytes), None);
    }

    #[test]
    fn figures_are_in_microseconds() {
        let mut histogram = latencies();
        histogram.record_n(1_000_000, 99).expect("in bounds");
        histogram.record(50_000_000).expect("in bounds");
        let latency = Latency::of(&histogram, 1.0).expect("recorded");
        assert!((latency.p50 / 1_000.0 - 1.0).abs() < 0.001, "{latency:?}");
        assert!((latency.max / 50_000.0 - 1.0).abs() < 0.001, "{latency:?}");
        assert!(Latency::of(&latencies(), 1.0).is_none());
    }
}
