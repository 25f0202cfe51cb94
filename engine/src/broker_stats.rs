//! What a shard thinks of each broker, for people: which one is avoided, why, and what it costs.

use std::time::Duration;

use ringpost_core::health::{Reason, Record, Standing};
use ringpost_core::id::BrokerId;
use ringpost_core::outcome::Cause;
use ringpost_core::time::Time;

/// What one shard thinks of one broker: shards judge by their own connections. As the shard saw it
/// when it last looked: every `health.tick` while something is unanswered or waits for a broker that
/// is in trouble, and at once when a broker is ejected, probed or back. A shard that has nothing to
/// do does not look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerStats {
    /// Its number in the cluster.
    pub broker: i32,
    /// How it stands for records that may go anywhere.
    pub standing: Standing,
    /// What is held against it. `None`: nothing.
    pub why: Option<Reason>,
    /// What it did last that counted against it. Kept when it is well again.
    pub last: Option<Cause>,
    /// How long ago it was ejected, or began to come back. `None` in full health.
    pub since: Option<Duration>,
    /// In how long it is probed. `None` unless it is ejected.
    pub until: Option<Duration>,
    /// What it gets of the records that may go anywhere, in percent of a healthy broker's share: less
    /// than 100 while it comes back.
    pub weight: u8,
    /// Half of its answers came within this time after the request's last byte, of late (old ones
    /// count half after 10 s); exact to half an octave. `None`: there were none.
    pub service_p50: Option<Duration>,
    /// 99 in 100 of its answers.
    pub service_p99: Option<Duration>,
    /// For how long its oldest request was unanswered.
    pub oldest: Duration,
    /// Failures of its own in a row.
    pub failures: u32,
    /// Ejections that still count: half a minute in good health takes one off.
    pub ejections: u32,
    /// Batches that were moved away from it to other brokers before they were ever sent.
    pub moved: u64,
}

impl BrokerStats {
    pub(crate) fn new(BrokerId(broker): BrokerId, record: &Record, now: Time) -> Self {
        Self {
            broker,
            standing: record.standing,
            why: record.why,
            last: record.last.clone(),
            since: record.since.map(|since| now.since(since)),
            until: record.until.map(|until| until.since(now)),
            weight: record.weight,
            service_p50: record.service_p50,
            service_p99: record.service_p99,
            oldest: record.oldest,
            failures: record.failures,
            ejections: record.ejections,
            moved: record.moved,
        }
    }

    /// What several shards think: of each broker what the one thinks that thinks the worst, and the
    /// sums of what they did.
    pub(crate) fn add(all: &mut Vec<Self>, other: &[Self]) {
        for theirs in other {
            let Some(known) = all.iter_mut().find(|known| known.broker == theirs.broker) else {
                all.push(theirs.clone());
                continue;
            };
            let moved = known.moved + theirs.moved;
            if (theirs.standing, theirs.ejections) > (known.standing, known.ejections) {
                *known = theirs.clone();
            }
            known.moved = moved;
        }
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::*;

    fn good(broker: i32) -> BrokerStats {
        BrokerStats {
            broker,
            standing: Standing::Good,
            why: None,
            last: None,
            since: None,
            until: None,
            weight: 100,
            service_p50: None,
            service_p99: None,
            oldest: Duration::ZERO,
            failures: 0,
            ejections: 0,
            moved: 2,
        }
    }

    /// Of two shards' opinions the worse one is shown, whichever comes first, with what both moved.
    #[test]
    fn v1_the_worst_of_several_shards_opinions_is_shown() {
        let dead = BrokerStats {
            standing: Standing::Dead,
            why: Some(Reason::Stalled),
            ejections: 1,
            moved: 3,
            ..good(1)
        };
        let shown = BrokerStats {
            moved: 5,
            ..dead.clone()
        };
        for (first, second) in [(good(1), dead.clone()), (dead.clone(), good(1))] {
            let mut all = vec![first];
            BrokerStats::add(&mut all, &[second, good(2)]);
            assert_eq!(all, [shown.clone(), good(2)]);
        }
    }
}
