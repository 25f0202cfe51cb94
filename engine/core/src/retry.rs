//! When a batch that was not acknowledged is tried again.
//!
//! The delivery deadline always wins over the number of attempts.

use core::time::Duration;

use crate::random::Random;
use crate::time::Time;

/// Growing waits with jitter: `initial · 2ⁿ`, at most `max`, each drawn between 80 % and 120 % of
/// that, as Kafka's Java client does ([KIP-580](https://cwiki.apache.org/confluence/display/KAFKA/KIP-580%3A+Exponential+Backoff+for+Kafka+Clients)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub initial: Duration,
    /// The longest wait, before jitter.
    pub max: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row (1 = the first).
    pub fn delay(&self, failures: u32, random: &mut Random) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let base = Time::nanos(self.initial).saturating_mul(1 << doublings);
        let base = base.min(Time::nanos(self.max));
        let fifth = usize::try_from(base / 5).unwrap_or(usize::MAX / 2);
        let jitter = u64::try_from(random.below(2 * fifth + 1)).unwrap_or(0);
        Duration::from_nanos((base - base / 5).saturating_add(jitter))
    }
}

/// How often and how soon a batch is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts including the first; `None` leaves the end to the delivery deadline.
    pub attempts_max: Option<u32>,
    /// Waits between attempts.
    pub backoff: Backoff,
}

impl Default for RetryPolicy {
    /// No limit but the deadline; 100 ms to 1 s, as Kafka's Java client.
    fn default() -> Self {
        Self {
            attempts_max: None,
            backoff: Backoff {
                initial: Duration::from_millis(100),
                max: Duration::from_millis(1000),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1_waits_double_to_a_cap_within_a_fifth() {
        let backoff = Backoff {
            initial: Duration::from_millis(100),
            max: Duration::from_millis(1000),
        };
        let mut random = Random::new(9);
        for (failures, base) in [
            (1, 100),
            (2, 200),
            (3, 400),
            (4, 800),
            (5, 1000),
            (60, 1000),
        ] {
            for _ in 0..100 {
                let delay = backoff.delay(failures, &mut random);
                assert!(
                    delay >= Duration::from_millis(base * 4 / 5),
                    "{failures}: {delay:?}"
                );
                assert!(
                    delay <= Duration::from_millis(base * 6 / 5),
                    "{failures}: {delay:?}"
                );
            }
        }
    }
}
