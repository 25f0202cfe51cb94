//! When records are *meant* to be sent: t₀ + i/λ, exponential gaps, or bursts.
//!
//! Times depend on nothing but the record's number, so what was due in a window can be counted
//! afterwards whether or not the sender kept up.

use crate::number::{count, float, index, whole};
use crate::plan::Arrival;
use crate::random::Random;

/// Gaps drawn before the run; they repeat after that many records.
const GAPS: usize = 1 << 16;
const SEED: u64 = 0x0061_7272_6976_6521;

/// The intended times of one sender's records.
#[derive(Clone, Debug)]
pub struct Schedule {
    start_ns: u64,
    shape: Shape,
}

#[derive(Clone, Debug)]
enum Shape {
    /// `group` records at a time, every `gap_ns`.
    Even { gap_ns: f64, group: u64 },
    /// Offsets of `GAPS` records within a cycle, and the cycle's length.
    Drawn { offsets: Vec<u64>, cycle_ns: u64 },
}

impl Schedule {
    /// Sender `sender` of `senders`, which share `per_second` records a second from `start_ns` on.
    /// Senders take turns evenly: they do not send at the same instants.
    pub fn new(
        arrival: Arrival,
        per_second: u64,
        sender: usize,
        senders: usize,
        start_ns: u64,
    ) -> Self {
        let gap_ns = 1e9 * float(count(senders)) / float(per_second);
        let phase = float(count(sender)) / float(count(senders));
        match arrival {
            Arrival::Fixed | Arrival::Burst(_) => {
                let group = if let Arrival::Burst(group) = arrival {
                    group
                } else {
                    1
                };
                let gap_ns = gap_ns * float(group);
                let start_ns = start_ns + whole(gap_ns * phase);
                Self {
                    start_ns,
                    shape: Shape::Even { gap_ns, group },
                }
            }
            Arrival::Poisson => {
                let mut random = Random::new(SEED + count(sender));
                let drawn: Vec<f64> = (0..GAPS).map(|_| -(1.0 - random.unit()).ln()).collect();
                // Scaled so that the mean gap is exactly the one asked for.
                let scale = gap_ns * float(count(GAPS)) / drawn.iter().sum::<f64>();
                let mut sum = 0.0;
                let offsets = drawn
                    .iter()
                    .map(|gap| {
                        sum += gap * scale;
                        whole(sum)
                    })
                    .collect();
                Self {
                    start_ns,
                    shape: Shape::Drawn {
                        offsets,
                        cycle_ns: whole(sum),
                    },
                }
            }
        }
    }

    /// When the sender's record `number` (from 0) is meant to be sent.
    #[inline]
    pub fn intended_ns(&self, number: u64) -> u64 {
        self.start_ns
            + match &self.shape {
                Shape::Even { gap_ns, group: 1 } => whole(float(number) * gap_ns),
                Shape::Even { gap_ns, group } => whole(float(number / group) * gap_ns),
                Shape::Drawn { offsets, cycle_ns } => {
                    let number = index(number);
                    // `GAPS` is a power of two: shift and mask.
                    count(number / GAPS) * cycle_ns + offsets[number % GAPS]
                }
            }
    }

    /// How many records are meant to be sent before `time_ns`.
    pub fn due_before(&self, time_ns: u64) -> u64 {
        // Intended times never fall with the number: bisect.
        let (mut low, mut high) = (0u64, 1u64);
        while self.intended_ns(high) < time_ns {
            high *= 2;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.intended_ns(middle) < time_ns {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_gaps_do_not_drift() {
        let schedule = Schedule::new(Arrival::Fixed, 3, 0, 1, 100);
        assert_eq!(schedule.intended_ns(0), 100);
        assert_eq!(schedule.intended_ns(1), 333_333_433);
        assert_eq!(schedule.intended_ns(3_000_000), 1_000_000_000_000_000 + 100);
    }

    #[test]
    fn senders_take_turns() {
        let at = |sender| Schedule::new(Arrival::Fixed, 1000, sender, 4, 0).intended_ns(0);
        assert_eq!(
            [at(0), at(1), at(2), at(3)],
            [0, 1_000_000, 2_000_000, 3_000_000]
        );
    }

    #[test]
    fn bursts_come_together() {
        let schedule = Schedule::new(Arrival::Burst(10), 1000, 0, 1, 0);
        assert_eq!(schedule.intended_ns(9), 0);
        assert_eq!(schedule.intended_ns(10), 10_000_000);
        assert_eq!(schedule.due_before(1), 10);
        assert_eq!(schedule.due_before(1_000_000_000), 1000);
    }

    #[test]
    fn poisson_keeps_the_mean_and_varies() {
        let schedule = Schedule::new(Arrival::Poisson, 100_000, 0, 1, 0);
        let cycle = schedule.intended_ns(2 * 65_536 - 1) / 2;
        assert!(cycle.abs_diff(655_360_000) <= 1, "{cycle}");
        let gaps: Vec<f64> = (1..10_000)
            .map(|at| float(schedule.intended_ns(at) - schedule.intended_ns(at - 1)) / 10_000.0)
            .collect();
        let mean = gaps.iter().sum::<f64>() / 9_999.0;
        let spread = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / 9_999.0;
        assert!(
            (mean - 1.0).abs() < 0.05 && (spread - 1.0).abs() < 0.1,
            "{mean} {spread}"
        );
    }

    #[test]
    fn counting_agrees_with_the_times() {
        for arrival in [Arrival::Fixed, Arrival::Poisson, Arrival::Burst(7)] {
            let schedule = Schedule::new(arrival, 12_345, 1, 3, 5_000);
            for time in [0, 5_000, 5_001, 1_000_000, 77_777_777, 3_000_000_000] {
                let due = schedule.due_before(time);
                assert!(
                    due == 0 || schedule.intended_ns(due - 1) < time,
                    "{arrival} {time}"
                );
                assert!(schedule.intended_ns(due) >= time, "{arrival} {time}");
            }
        }
    }
}
