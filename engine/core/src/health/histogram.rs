//! The spread of a broker's service times: 64 buckets, two to an octave, from 1 µs to over an hour;
//! counts fade with a half-life of 10 s.

use core::time::Duration;

use crate::time::Time;

use super::decay::{part, remaining};

const HALF_LIFE: Duration = Duration::from_secs(10);
/// Fading is worked out this often, not with every sample.
const STEP: Duration = Duration::from_secs(1);
/// One sample, so that faded ones are still told apart.
const ONE: u64 = 1 << 16;
/// The first bucket ends at 2¹⁰ ns · 1.5.
const FIRST_OCTAVE: u32 = 10;

/// See the module's doc.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: [u64; 64],
    faded_at: Time,
}

impl Histogram {
    pub(super) fn new(now: Time) -> Self {
        Self {
            counts: [0; 64],
            faded_at: now,
        }
    }

    pub(super) fn record(&mut self, now: Time, took: Duration) {
        let elapsed = now.since(self.faded_at);
        if elapsed >= STEP {
            let left = remaining(elapsed, HALF_LIFE);
            for count in &mut self.counts {
                *count = part(*count, left);
            }
            self.faded_at = now;
        }
        self.counts[bucket(took)] += ONE;
    }

    /// What so many percent of the samples do not exceed. `None`: there are none worth a word.
    pub(super) fn percentile(&self, percent: u64) -> Option<Duration> {
        let total: u64 = self.counts.iter().sum();
        if total < ONE / 2 {
            return None;
        }
        let wanted = (u128::from(total) * u128::from(percent)).div_ceil(100);
        let mut seen = 0_u128;
        let place = self.counts.iter().position(|count| {
            seen += u128::from(*count);
            seen >= wanted
        });
        Some(end_of(place.unwrap_or(63)))
    }
}

fn bucket(took: Duration) -> usize {
    let nanos = Time::nanos(took).max(1 << FIRST_OCTAVE);
    let octave = nanos.ilog2();
    let upper_half = (nanos >> (octave - 1)) & 1;
    let place = u64::from(octave - FIRST_OCTAVE) * 2 + upper_half;
    usize::try_from(place).map_or(63, |place| place.min(63))
}

/// Where a bucket ends.
fn end_of(bucket: usize) -> Duration {
    let octave = FIRST_OCTAVE as usize + bucket / 2;
    let half = 1_u64 << (octave - 1);
    Duration::from_nanos(half * (3 + bucket as u64 % 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Percentiles are within half an octave of the exact ones; ten half-lives later one new sample
    /// outweighs a hundred old ones.
    #[test]
    fn v2_percentiles_are_right_to_half_an_octave_and_old_samples_fade() {
        let ms = Duration::from_millis;
        let mut histogram = Histogram::new(Time(0));
        assert_eq!(histogram.percentile(50), None);
        for _ in 0..98 {
            histogram.record(Time(0), ms(3));
        }
        for _ in 0..2 {
            histogram.record(Time(0), ms(700));
        }
        let within = |found: Option<Duration>, exact: Duration| {
            let found = found.expect("there are samples");
            assert!(
                found >= exact && found <= exact * 3 / 2,
                "{found:?} for {exact:?}"
            );
        };
        within(histogram.percentile(50), ms(3));
        within(histogram.percentile(99), ms(700));
        // Ten half-lives later one new sample outweighs them.
        histogram.record(Time(100_000_000_000), ms(40));
        within(histogram.percentile(50), ms(40));
        for took in [Duration::ZERO, Duration::MAX] {
            histogram.record(Time(0), took);
        }
    }
}
