//! When a batch that was not acknowledged is tried again: a value that says how often, how soon, for
//! which failures, and how much of a broker's time retries may take.
//!
//! The delivery deadline always wins over the number of attempts. And a batch that may be stored is
//! tried past that number while the broker can recognise it (idempotence): giving it up would leave
//! its place in the sequence open, and the application with an outcome that trying on would settle.
//!
//! ```
//! use core::time::Duration;
//! use ringpost_core::retry::{Backoff, Class, Jitter, RetryPolicy, Rule};
//! let policy = RetryPolicy::default()
//!     .attempts(4)
//!     .backoff(Backoff { jitter: Jitter::None, ..Backoff::default() })
//!     .rule(Class::Corrupt, Rule::GiveUp);
//! let delays: Vec<_> = policy.schedule(7).collect();
//! assert_eq!(delays, [100, 200, 400].map(Duration::from_millis));
//! ```

use core::fmt;
use core::time::Duration;

use ringpost_codec::kafka::ErrorCode;

use crate::outcome::Cause;
use crate::random::Random;
use crate::time::Time;

/// How waits are spread, so that those who failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Jitter {
    /// Between 80 % and 120 % of the wait, as Kafka's Java client does ([KIP-580](https://cwiki.apache.org/confluence/display/KAFKA/KIP-580%3A+Exponential+Backoff+for+Kafka+Clients)).
    #[default]
    Kafka,
    /// Anything from nothing to the whole wait.
    Full,
    /// Half of the wait, and anything up to the other half.
    Equal,
    /// The wait as it is.
    None,
}

/// Growing waits: the first is `initial`, each further one `growth_percent` of the one before, at most
/// `max`; then jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub initial: Duration,
    /// The longest wait, before jitter.
    pub max: Duration,
    /// So many percent of a wait is the next: 200 doubles, 100 leaves it as it is.
    pub growth_percent: u32,
    /// How waits are spread.
    pub jitter: Jitter,
}

impl Default for Backoff {
    /// 100 ms, doubled up to 1 s, as Kafka's Java client.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_millis(1000))
    }
}

impl Backoff {
    /// Waits that double, with Kafka's jitter.
    #[must_use]
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            growth_percent: 200,
            jitter: Jitter::Kafka,
        }
    }

    /// The wait after `failures` failures in a row (1 = the first).
    pub fn delay(&self, failures: u32, random: &mut Random) -> Duration {
        let base = self.base(failures);
        let mut up_to = |most: u64| {
            let most = usize::try_from(most).unwrap_or(usize::MAX - 1);
            u64::try_from(random.below(most.saturating_add(1))).unwrap_or(0)
        };
        let nanos = match self.jitter {
            Jitter::Kafka => (base - base / 5).saturating_add(up_to(2 * (base / 5))),
            Jitter::Full => up_to(base),
            Jitter::Equal => base / 2 + up_to(base - base / 2),
            Jitter::None => base,
        };
        Duration::from_nanos(nanos)
    }

    /// Before jitter, in nanoseconds.
    fn base(&self, failures: u32) -> u64 {
        // Slower growth than a percent a step has reached any cap by then.
        const STEPS_MAX: u32 = 10_000;
        let max = Time::nanos(self.max);
        let mut base = Time::nanos(self.initial);
        if self.growth_percent > 100 {
            for _ in 1..failures.min(STEPS_MAX) {
                if base >= max || base == 0 {
                    break;
                }
                base = base.saturating_mul(u64::from(self.growth_percent)) / 100;
            }
        }
        base.min(max)
    }
}

/// What kind of failure an attempt met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The connection ended, or could not be made.
    Connection,
    /// No answer in time, or the broker's own wait for its followers was over.
    Timeout,
    /// Another broker leads the partition, or none, or this one does not know it (yet).
    Leadership,
    /// Fewer replicas are in sync than the topic demands.
    NotEnoughReplicas,
    /// The broker is busy or asks for patience.
    Overload,
    /// What arrived was damaged.
    Corrupt,
    /// The broker expects another sequence or epoch.
    Sequence,
    /// Anything else that may pass.
    Other,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::Connection,
        Self::Timeout,
        Self::Leadership,
        Self::NotEnoughReplicas,
        Self::Overload,
        Self::Corrupt,
        Self::Sequence,
        Self::Other,
    ];

    /// Its name in settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Leadership => "leadership",
            Self::NotEnoughReplicas => "not-enough-replicas",
            Self::Overload => "overload",
            Self::Corrupt => "corrupt",
            Self::Sequence => "sequence",
            Self::Other => "other",
        }
    }

    /// The class of what an attempt met.
    #[must_use]
    pub fn of(cause: &Cause) -> Self {
        match cause {
            Cause::Broker { code, .. } => Self::of_code(*code),
            Cause::RequestTimeout { .. } => Self::Timeout,
            Cause::Disconnected { .. } | Cause::ConnectFailed { .. } | Cause::Protocol { .. } => {
                Self::Connection
            }
            Cause::NoLeader => Self::Leadership,
            Cause::Unsupported { .. } => Self::Other,
        }
    }

    fn of_code(code: ErrorCode) -> Self {
        match code {
            ErrorCode::REQUEST_TIMED_OUT => Self::Timeout,
            ErrorCode::NETWORK_EXCEPTION => Self::Connection,
            ErrorCode::NOT_LEADER_OR_FOLLOWER
            | ErrorCode::LEADER_NOT_AVAILABLE
            | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            | ErrorCode::UNKNOWN_TOPIC_ID
            | ErrorCode::INCONSISTENT_TOPIC_ID
            | ErrorCode::FENCED_LEADER_EPOCH
            | ErrorCode::UNKNOWN_LEADER_EPOCH
            | ErrorCode::REPLICA_NOT_AVAILABLE
            | ErrorCode::BROKER_NOT_AVAILABLE
            | ErrorCode::KAFKA_STORAGE_ERROR => Self::Leadership,
            ErrorCode::NOT_ENOUGH_REPLICAS | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND => {
                Self::NotEnoughReplicas
            }
            ErrorCode::THROTTLING_QUOTA_EXCEEDED
            | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
            | ErrorCode::CONCURRENT_TRANSACTIONS => Self::Overload,
            ErrorCode::CORRUPT_MESSAGE => Self::Corrupt,
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
            | ErrorCode::UNKNOWN_PRODUCER_ID
            | ErrorCode::INVALID_PRODUCER_EPOCH
            | ErrorCode::INVALID_PRODUCER_ID_MAPPING => Self::Sequence,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a class of failures is met with, where it differs from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The batch ends at once.
    GiveUp,
    /// It is tried again.
    Retry {
        /// When a failure of this class ends a batch: attempts of any kind, including the first.
        /// `None`: as the policy says.
        attempts_max: Option<u32>,
        /// Waits after failures of this class. `None`: as the policy says.
        backoff: Option<Backoff>,
    },
}

/// How much of a broker's time retries may take. A request that carries something for a second time
/// takes a token, an acknowledged one brings a part of one; without a token retries wait, and fresh
/// batches of other partitions go on. So a broker that answers nothing but errors is not answered with
/// ever more requests, and a few errors among many successes are retried without any wait of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// So many hundredths of a token come with each acknowledged request.
    pub percent_of_successes: u32,
    /// So many tokens come in a second whatever happens, at least 1.
    pub per_second: u32,
    /// No more than so many are kept.
    pub burst: u32,
}

impl Default for Budget {
    /// A fifth of the successes, ten a second at least, ten seconds' worth kept.
    fn default() -> Self {
        Self {
            percent_of_successes: 20,
            per_second: 10,
            burst: 100,
        }
    }
}

/// How often and how soon a batch is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts including the first; `None` leaves the end to the delivery deadline.
    pub attempts_max: Option<u32>,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Exceptions, by [`Class`], in the order of [`Class::ALL`].
    pub rules: [Option<Rule>; Class::ALL.len()],
    /// What retries may take of each broker's time; `None` sets no bound.
    pub budget: Option<Budget>,
}

impl Default for RetryPolicy {
    /// No limit but the deadline; 100 ms to 1 s, as Kafka's Java client.
    fn default() -> Self {
        Self {
            attempts_max: None,
            backoff: Backoff::default(),
            rules: [None; Class::ALL.len()],
            budget: Some(Budget::default()),
        }
    }
}

impl RetryPolicy {
    /// At most so many attempts, including the first.
    #[must_use]
    pub fn attempts(mut self, attempts_max: u32) -> Self {
        self.attempts_max = Some(attempts_max);
        self
    }

    /// Waits between attempts.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// An exception for a class of failures.
    #[must_use]
    pub fn rule(mut self, class: Class, rule: Rule) -> Self {
        self.rules[class as usize] = Some(rule);
        self
    }

    /// What retries may take of each broker's time.
    #[must_use]
    pub fn budget(mut self, budget: Option<Budget>) -> Self {
        self.budget = budget;
        self
    }

    /// What a failure of this class means: attempts including the first, and the waits.
    #[must_use]
    pub fn for_class(&self, class: Class) -> (u32, Backoff) {
        let unlimited = u32::MAX;
        let usual = self.attempts_max.unwrap_or(unlimited);
        match self.rules[class as usize] {
            None => (usual, self.backoff),
            Some(Rule::GiveUp) => (1, self.backoff),
            Some(Rule::Retry {
                attempts_max,
                backoff,
            }) => (
                attempts_max.unwrap_or(usual),
                backoff.unwrap_or(self.backoff),
            ),
        }
    }

    /// The waits of a batch that fails every time, in the order in which they come; without end when
    /// only the deadline sets one. Equal seeds give equal waits.
    #[must_use]
    pub fn schedule(&self, seed: u64) -> Schedule {
        self.schedule_for(Class::Other, seed)
    }

    /// As [`RetryPolicy::schedule`], for failures of one class.
    #[must_use]
    pub fn schedule_for(&self, class: Class, seed: u64) -> Schedule {
        let (attempts_max, backoff) = self.for_class(class);
        Schedule {
            backoff,
            attempts_max: Some(attempts_max).filter(|attempts_max| *attempts_max < u32::MAX),
            failures: 0,
            random: Random::new(seed),
        }
    }
}

/// The waits of a batch that fails every time: see [`RetryPolicy::schedule`].
#[derive(Debug, Clone)]
pub struct Schedule {
    backoff: Backoff,
    attempts_max: Option<u32>,
    failures: u32,
    random: Random,
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        if self.attempts_max.is_some_and(|max| self.failures >= max) {
            return None;
        }
        Some(self.backoff.delay(self.failures, &mut self.random))
    }
}

/// The tokens of one broker. Counted in billionths, of which time brings `per_second` a nanosecond.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tokens {
    billionths: u64,
    counted: Time,
}

impl Tokens {
    const ONE: u64 = 1_000_000_000;

    /// As many as are kept.
    pub(crate) const FULL: Self = Self {
        billionths: u64::MAX,
        counted: Time(0),
    };

    /// A request was acknowledged.
    pub(crate) fn earn(&mut self, budget: &Budget) {
        let part = u64::from(budget.percent_of_successes) * (Self::ONE / 100);
        self.billionths = self.billionths.saturating_add(part);
    }

    /// What was paid for was not sent.
    pub(crate) fn give_back(&mut self) {
        self.billionths = self.billionths.saturating_add(Self::ONE);
    }

    /// Takes a token, or says when there will be one.
    pub(crate) fn take(&mut self, now: Time, budget: &Budget) -> Result<(), Time> {
        let rate = u64::from(budget.per_second.max(1));
        let came = Time::nanos(now.since(self.counted)).saturating_mul(rate);
        let kept = u64::from(budget.burst.max(1)) * Self::ONE;
        self.billionths = self.billionths.saturating_add(came).min(kept);
        self.counted = now;
        match self.billionths.checked_sub(Self::ONE) {
            Some(rest) => {
                self.billionths = rest;
                Ok(())
            }
            None => {
                let missing = Self::ONE - self.billionths;
                Err(now + Duration::from_nanos(missing.div_ceil(rate)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [(u32, u64); 6] = [
        (1, 100),
        (2, 200),
        (3, 400),
        (4, 800),
        (5, 1000),
        (60, 1000),
    ];

    /// Each wait lies between so many percent of its base.
    fn lies_between(jitter: Jitter, low: u32, high: u32) {
        let backoff = Backoff {
            jitter,
            ..Backoff::default()
        };
        let mut random = Random::new(9);
        for (failures, base) in STEPS {
            let (mut least, mut most) = (Duration::MAX, Duration::ZERO);
            for _ in 0..1000 {
                let delay = backoff.delay(failures, &mut random);
                (least, most) = (least.min(delay), most.max(delay));
            }
            let bound = |percent| Duration::from_millis(base) * percent / 100;
            assert!(least >= bound(low) && most <= bound(high), "{failures}");
            // And it is spread over all of that.
            let tenth = (high - low) / 10;
            assert!(
                least <= bound(low + tenth) && most >= bound(high - tenth),
                "{failures}: {least:?} to {most:?}"
            );
        }
    }

    /// Waits double to a cap; each lies where its jitter says, and uses all of that room.
    #[test]
    fn r1_waits_double_to_a_cap_and_are_spread_as_the_jitter_says() {
        lies_between(Jitter::Kafka, 80, 120);
        lies_between(Jitter::Full, 0, 100);
        lies_between(Jitter::Equal, 50, 100);
        lies_between(Jitter::None, 100, 100);
    }

    /// Other growths, and none; nothing overflows or goes on for ever.
    #[test]
    fn r1_growth_is_in_percent() {
        let grown = |initial_ns, growth_percent, failures| {
            let backoff = Backoff {
                initial: Duration::from_nanos(initial_ns),
                max: Duration::from_secs(3600),
                growth_percent,
                jitter: Jitter::None,
            };
            backoff.delay(failures, &mut Random::new(1)).as_nanos()
        };
        assert_eq!(grown(1000, 150, 3), 2250);
        assert_eq!(grown(1000, 100, 1_000_000), 1000);
        assert_eq!(grown(1000, 0, u32::MAX), 1000);
        assert_eq!(grown(0, 300, u32::MAX), 0);
        assert_eq!(grown(1, 101, u32::MAX), 1, "a wait too short to grow");
        assert_eq!(grown(1000, u32::MAX, u32::MAX), 3_600_000_000_000);
    }

    /// The same seed gives the same waits; their number is the attempts but the first.
    #[test]
    fn r1_a_schedule_is_its_seed() {
        let policy = RetryPolicy::default().attempts(6);
        let delays: alloc::vec::Vec<_> = policy.schedule(4).collect();
        assert_eq!(delays.len(), 5);
        assert!(policy.schedule(4).eq(delays.iter().copied()));
        assert!(!policy.schedule(5).eq(delays));
        assert_eq!(RetryPolicy::default().attempts(1).schedule(4).count(), 0);
        assert_eq!(RetryPolicy::default().schedule(4).take(500).count(), 500);
    }

    /// Each class's attempts and back-off are its rule's, or the policy's where it has none.
    #[test]
    fn r1_a_class_with_a_rule_of_its_own() {
        let own = Backoff::new(Duration::from_millis(1), Duration::from_millis(2));
        let retry = |attempts_max, backoff| Rule::Retry {
            attempts_max,
            backoff,
        };
        let policy = RetryPolicy::default()
            .attempts(5)
            .rule(Class::Corrupt, Rule::GiveUp)
            .rule(Class::Timeout, retry(Some(9), None))
            .rule(Class::Connection, retry(None, Some(own)));
        assert_eq!(policy.for_class(Class::Corrupt).0, 1);
        assert_eq!(policy.for_class(Class::Timeout), (9, policy.backoff));
        assert_eq!(policy.for_class(Class::Connection), (5, own));
        assert_eq!(policy.for_class(Class::Other), (5, policy.backoff));
        for (place, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, place);
        }
    }

    /// Time brings tokens, successes bring more, no more than the burst are kept, and who finds none
    /// is told when to come back.
    #[test]
    fn r1_a_budget_makes_retries_wait() {
        let budget = Budget {
            percent_of_successes: 20,
            per_second: 10,
            burst: 3,
        };
        let mut tokens = Tokens::FULL;
        let now = Time(5_000_000_000);
        for _ in 0..3 {
            assert_eq!(tokens.take(now, &budget), Ok(()));
        }
        let next = now + Duration::from_millis(100);
        assert_eq!(tokens.take(now, &budget), Err(next));
        assert_eq!(tokens.take(next, &budget), Ok(()));
        for _ in 0..5 {
            assert!(tokens.take(next, &budget).is_err());
            tokens.earn(&budget);
        }
        assert_eq!(tokens.take(next, &budget), Ok(()), "five successes");
        assert!(tokens.take(next, &budget).is_err());
        let later = next + Duration::from_secs(60);
        let taken = (0..10).filter(|_| tokens.take(later, &budget).is_ok());
        assert_eq!(taken.count(), 3, "no more than the burst");
    }
}
