//! How many new records go to one broker's partitions while it is ill, read from a history.
//!
//! A record belongs to the second in which it was handed over, and to the partition its
//! acknowledgement names. One without an acknowledgement counts for the ill broker: nobody can say
//! that it was kept away from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::history::{Event, Kind};

/// When what happened, in nanoseconds of the history's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// From here on all is well and warm.
    pub begin: u64,
    /// The broker falls ill.
    pub ill: u64,
    /// It is well again.
    pub well: u64,
    /// The load ends.
    pub end: u64,
}

/// What is asked of a producer that avoids brokers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The ill broker's share of new records, from one second after it fell ill, in percent.
    pub share_percent_max: f64,
    /// What the other brokers carry, in percent of their part of the fault-free rate.
    pub others_percent_min: f64,
    /// How long until it has four fifths of its fault-free share again.
    pub return_ms_max: u64,
    /// For so long at least nothing is acknowledged while the broker is ill: whoever leads waits for it.
    pub silence_ms_min: u64,
    /// Records of its partitions wait for it: some were handed over while it was ill and acknowledged
    /// when it was well, and none was acknowledged meanwhile. No other record fails.
    pub waits: bool,
    /// What is acknowledged a second in the end, in percent of what it was before.
    pub after_percent_min: f64,
}

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// Acknowledged records a second, before.
    pub rate_before: f64,
    /// The broker's share of records before it fell ill, in percent.
    pub share_before_percent: f64,
    /// Its share in the first second.
    pub share_first_second_percent: f64,
    /// Its share from then on.
    pub share_percent: f64,
    /// Records that were handed over while it was ill and never acknowledged.
    pub without_ack: u64,
    /// What the others carried, in percent of their part of the rate before.
    pub others_percent: f64,
    /// When it had four fifths of its share again, after it was well.
    pub returned_ms: Option<u64>,
    /// The longest time without any acknowledgement while it was ill.
    pub silence_ms: u64,
    /// Records of its partitions, handed over from a second after it fell ill, that were acknowledged
    /// when it was well.
    pub waited: u64,
    /// Of these, acknowledged while it was ill.
    pub passed: u64,
    /// Records of other partitions, or of none, that failed.
    pub others_failed: u64,
    /// Acknowledged records a second in the second half of the time after it was well, in percent of
    /// the rate before.
    pub after_percent: f64,
}

const SECOND: u64 = 1_000_000_000;

/// Reads a history's events. `ill` are the partitions that the ill broker leads.
#[must_use]
pub fn shares(events: impl Iterator<Item = Event>, ill: &BTreeSet<i32>, times: &Times) -> Shares {
    let mut invoked: BTreeMap<(u32, u32), Vec<u64>> = BTreeMap::new();
    // Records by the window they were handed over in: of the ill broker, of the others.
    let mut before = Count::default();
    let mut first_second = Count::default();
    let mut while_ill = Count::default();
    let mut after: BTreeMap<u64, Count> = BTreeMap::new();
    let mut invoked_first_second = 0;
    let mut invoked_while_ill = 0;
    let mut acked_before = 0;
    let mut others_acked = 0;
    let (mut silence, mut acked_last) = (0, times.ill);
    let (mut waited, mut passed, mut others_failed) = (0, 0, 0);
    let settled = times.well + (times.end - times.well) / 2;
    let mut acked_after = 0;
    let steady = times.ill + SECOND;
    for event in events {
        match event.kind {
            Kind::Invoked => {
                let stamps = invoked.entry((event.producer, event.stream)).or_default();
                stamps.push(event.stamp_ns);
                if (times.ill..steady).contains(&event.stamp_ns) {
                    invoked_first_second += 1;
                } else if (steady..times.well).contains(&event.stamp_ns) {
                    invoked_while_ill += 1;
                }
            }
            Kind::Ok => {
                let is_ill = ill.contains(&event.partition);
                let at = event.stamp_ns.min(times.well);
                silence = silence.max(at.saturating_sub(acked_last));
                acked_last = acked_last.max(at);
                acked_before += u64::from((times.begin..times.ill).contains(&event.stamp_ns));
                acked_after += u64::from((settled..times.end).contains(&event.stamp_ns));
                others_acked +=
                    u64::from(!is_ill && (steady..times.well).contains(&event.stamp_ns));
                let stamp = usize::try_from(event.counter)
                    .ok()
                    .and_then(|at| invoked.get(&(event.producer, event.stream))?.get(at));
                if is_ill && stamp.is_some_and(|at| (steady..times.well).contains(at)) {
                    if event.stamp_ns < times.well {
                        passed += 1;
                    } else {
                        waited += 1;
                    }
                }
                match stamp {
                    Some(&at) if at < times.begin => {}
                    Some(&at) if at < times.ill => before.add(is_ill),
                    Some(&at) if at < steady => first_second.add(is_ill),
                    Some(&at) if at < times.well => while_ill.add(is_ill),
                    Some(&at) if at < times.end => {
                        // Windows of a second, one beginning every fifth of a second.
                        let newest = (at - times.well) / (SECOND / 5);
                        for window in newest.saturating_sub(4)..=newest {
                            after.entry(window).or_default().add(is_ill);
                        }
                    }
                    _ => {}
                }
            }
            Kind::Fail => others_failed += u64::from(!ill.contains(&event.partition)),
            Kind::Started | Kind::Maybe | Kind::Ended => {}
        }
    }
    let without_ack = invoked_while_ill - while_ill.all();
    let share_before_percent = before.ill_percent(before.all());
    let returned_ms = after
        .iter()
        .find(|(_, count)| {
            count.all() > 0 && count.ill_percent(count.all()) >= share_before_percent * 0.8
        })
        .map(|(window, _)| window * 200);
    let rate_before = rate(acked_before, times.ill - times.begin);
    let others_before = rate_before * (100.0 - share_before_percent) / 100.0;
    while_ill.ill += without_ack;
    first_second.ill += invoked_first_second - first_second.all();
    Shares {
        rate_before,
        share_before_percent,
        share_first_second_percent: first_second.ill_percent(first_second.all()),
        share_percent: while_ill.ill_percent(while_ill.all()),
        without_ack,
        others_percent: 100.0 * rate(others_acked, times.well - steady) / others_before.max(1e-9),
        returned_ms,
        silence_ms: silence.max(times.well - acked_last) / 1_000_000,
        waited,
        passed,
        others_failed,
        after_percent: 100.0 * rate(acked_after, times.end - settled) / rate_before.max(1e-9),
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    ill: u64,
    others: u64,
}

impl Count {
    fn add(&mut self, ill: bool) {
        if ill {
            self.ill += 1;
        } else {
            self.others += 1;
        }
    }

    fn all(&self) -> u64 {
        self.ill + self.others
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of records lie far below 2^52"
    )]
    fn ill_percent(&self, of: u64) -> f64 {
        100.0 * self.ill as f64 / (of.max(1)) as f64
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and times lie far below 2^52"
)]
fn rate(records: u64, ns: u64) -> f64 {
    records as f64 * 1e9 / ns.max(1) as f64
}

impl Shares {
    /// What does not hold.
    #[must_use]
    pub fn violations(&self, bounds: &Bounds) -> Vec<String> {
        let mut violations = Vec::new();
        if self.share_percent >= bounds.share_percent_max {
            violations.push(format!(
                "{:.1} % of new records went to the ill broker, {} % are allowed",
                self.share_percent, bounds.share_percent_max
            ));
        }
        if self.others_percent < bounds.others_percent_min {
            violations.push(format!(
                "the others carried {:.0} % of their part of the fault-free rate, not {} %",
                self.others_percent, bounds.others_percent_min
            ));
        }
        match self.returned_ms {
            Some(ms) if ms <= bounds.return_ms_max => {}
            returned => violations.push(format!(
                "the broker had its share again after {returned:?} ms, {} are allowed",
                bounds.return_ms_max
            )),
        }
        if self.silence_ms < bounds.silence_ms_min {
            violations.push(format!(
                "the longest silence was {} ms, not {}: nobody waited for the ill broker",
                self.silence_ms, bounds.silence_ms_min
            ));
        }
        if bounds.waits && (self.waited == 0 || self.passed > 0) {
            violations.push(format!(
                "{} records of the ill broker waited for it and {} were acknowledged without it",
                self.waited, self.passed
            ));
        }
        if bounds.waits && self.others_failed > 0 {
            violations.push(format!(
                "{} records failed that were not for the ill broker",
                self.others_failed
            ));
        }
        if self.after_percent < bounds.after_percent_min {
            violations.push(format!(
                "in the end {:.0} % of the rate before were acknowledged, not {} %",
                self.after_percent, bounds.after_percent_min
            ));
        }
        violations
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "before: {:.0} records/s, share {:.1} %; ill: share {:.1} % in the first second, {:.2} % \
             after it ({} records without ack), others {:.0} % of their fault-free rate; longest \
             silence {} ms; {} records waited for it, {} passed it; its share again after {}; in the end {:.0} % of \
             the rate before",
            self.rate_before,
            self.share_before_percent,
            self.share_first_second_percent,
            self.share_percent,
            self.without_ack,
            self.others_percent,
            self.silence_ms,
            self.waited,
            self.passed,
            self.returned_ms
                .map_or_else(|| "never".into(), |ms| format!("{ms} ms")),
            self.after_percent
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        begin: 0,
        ill: 10 * SECOND,
        well: 20 * SECOND,
        end: 40 * SECOND,
    };
    const BOUNDS: Bounds = Bounds {
        share_percent_max: 5.0,
        others_percent_min: 90.0,
        return_ms_max: 6_000,
        silence_ms_min: 0,
        waits: false,
        after_percent_min: 0.0,
    };

    /// A record a millisecond, in turn to partitions 0 to 2; `place` changes that, `None` is never
    /// acknowledged.
    fn run(place: impl Fn(u64, i32) -> Option<i32>) -> Shares {
        shares(
            events(|at, turn| (place(at, turn), at)).into_iter(),
            &BTreeSet::from([2]),
            &TIMES,
        )
    }

    /// The same, with the moment of each acknowledgement.
    fn events(place: impl Fn(u64, i32) -> (Option<i32>, u64)) -> Vec<Event> {
        let mut events = Vec::new();
        for (counter, turn) in (0..40_000_u64).zip([0, 1, 2].into_iter().cycle()) {
            let stamp_ns = counter * SECOND / 1000;
            let event = Event {
                kind: Kind::Invoked,
                producer: 1,
                stream: 0,
                partition: -1,
                counter,
                value: 0,
                stamp_ns,
            };
            events.push(event);
            if let (Some(partition), stamp_ns) = place(stamp_ns, turn) {
                events.push(Event {
                    kind: Kind::Ok,
                    partition,
                    value: 1,
                    stamp_ns,
                    ..event
                });
            }
        }
        events
    }

    #[test]
    fn a_producer_that_avoids_passes() {
        let ill = 10 * SECOND + SECOND / 2..25 * SECOND;
        let seen = run(|at, turn| {
            Some(if turn == 2 && ill.contains(&at) {
                0
            } else {
                turn
            })
        });
        assert_eq!(seen.violations(&BOUNDS), [""; 0], "{seen}");
        assert!(
            (seen.share_first_second_percent - 16.7).abs() < 0.2,
            "{seen}"
        );
        // The first window of which four fifths lie behind the moment.
        assert_eq!(seen.returned_ms, Some(4_800));
    }

    #[test]
    fn one_that_goes_on_does_not() {
        let seen = run(|_, turn| Some(turn));
        assert_eq!(seen.violations(&BOUNDS).len(), 1, "{seen}");
        assert!((seen.share_percent - 33.3).abs() < 0.1, "{seen}");
    }

    #[test]
    fn records_without_ack_count_for_the_ill_broker() {
        let ill = 10 * SECOND..20 * SECOND;
        let seen = run(|at, turn| (turn != 2 || !ill.contains(&at)).then_some(turn));
        assert_eq!(seen.without_ack, 3_000, "{seen}");
        assert_eq!(seen.violations(&BOUNDS).len(), 1, "{seen}");
    }

    #[test]
    fn one_that_stalls_or_never_returns_does_not() {
        let seen = run(|at, turn| {
            let stalled = (10 * SECOND..20 * SECOND).contains(&at) && at % SECOND > SECOND / 2;
            let gone = at >= 11 * SECOND && turn == 2;
            (!stalled).then_some(if gone { 0 } else { turn })
        });
        assert_eq!(seen.violations(&BOUNDS).len(), 3, "{seen}");
        assert_eq!(seen.returned_ms, None);
    }

    /// Nothing is acknowledged from the third to the sixth second of the illness.
    #[test]
    fn a_silence_of_all_is_measured() {
        let silent = 13 * SECOND..16 * SECOND;
        let seen = run(|at, turn| (!silent.contains(&at)).then_some(turn));
        assert_eq!(seen.silence_ms, 3_001, "{seen}");
        let asks = |silence_ms_min| Bounds {
            share_percent_max: 100.0,
            others_percent_min: 0.0,
            silence_ms_min,
            ..BOUNDS
        };
        assert_eq!(seen.violations(&asks(3_000)), [""; 0]);
        assert_eq!(seen.violations(&asks(4_000)).len(), 1);
    }

    /// Records of the ill broker are acknowledged when it is well, or refused at once; others go on.
    #[test]
    fn v7_records_that_wait_for_their_broker_are_told_from_those_that_pass_it() {
        let ill = 10 * SECOND..20 * SECOND;
        let waiting = events(|at, turn| {
            let waits = turn == 2 && ill.contains(&at);
            (Some(turn), if waits { 20 * SECOND } else { at })
        });
        let seen = |events: &[Event]| {
            let mut events = events.to_vec();
            events.sort_by_key(|event| event.stamp_ns);
            shares(events.into_iter(), &BTreeSet::from([2]), &TIMES)
        };
        let asks = Bounds {
            share_percent_max: 100.0,
            waits: true,
            ..BOUNDS
        };
        assert_eq!(seen(&waiting).violations(&asks), [""; 0]);
        assert_eq!(seen(&waiting).waited, 3_000);
        let passing = run(|_, turn| Some(turn));
        assert_eq!(passing.violations(&asks).len(), 1, "{passing}");
        let fails = |partition| {
            let refused = Event {
                kind: Kind::Fail,
                partition,
                stream: 9,
                ..waiting[0]
            };
            let mut events = waiting.clone();
            events.push(refused);
            seen(&events).violations(&asks).len()
        };
        assert_eq!((fails(2), fails(1), fails(-1)), (0, 1, 1));
    }

    #[test]
    fn a_rate_that_does_not_come_back_is_told() {
        let seen = run(|at, turn| (at < 20 * SECOND || turn != 1).then_some(turn));
        assert!((seen.after_percent - 66.7).abs() < 0.1, "{seen}");
        let asks = |after_percent_min| Bounds {
            share_percent_max: 100.0,
            after_percent_min,
            ..BOUNDS
        };
        assert_eq!(seen.violations(&asks(60.0)), [""; 0]);
        assert_eq!(seen.violations(&asks(75.0)).len(), 1);
    }
}
