//! `peak` and `slo`: the highest rate that a client holds, or that keeps an objective.
//!
//! Each probe is an open loop at one rate, in a process of its own ([`trial`]): what it
//! measures is what `run --rate` measures. [`bracket`] decides which rate is next; this module runs
//! it, and judges whether the rate *holds*:
//! - the client kept up: at least [`KEPT_UP`] of the records that were due in the window were acked
//!   in it (one more is forgiven: at low rates it is on its way), and at most [`BEHIND`] of them had
//!   not been sent when it ended;
//! - the objective, if there is one, is met;
//! - every record ended as it should.

use std::time::Duration;

use crate::clock::Clock;
use crate::closed_loop;
use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::number::{float, ratio, whole};
use crate::plan::{Plan, Rate};
use crate::report::document::Document;
use crate::search::bracket::{Limits, Next, Search, Showed};
use crate::search::result::{Probe, Sought};
use crate::threshold::{Judged, Relation, Threshold};
use crate::trial;
use crate::units::{show_duration, show_rate};

pub mod bracket;
pub mod result;

/// Share of the records due in the window that must be acked in it.
pub const KEPT_UP: f64 = 0.98;
/// Share of them that may be behind schedule when it ends.
pub const BEHIND: f64 = 0.01;
/// Below this share of the rate no repeat is needed; nor above this multiple of a limit.
const FAR_BELOW: f64 = 0.9;
const FAR_ABOVE: f64 = 2.0;
/// A confirming probe is this many times as long.
pub const CONFIRMING: u32 = 2;
/// What a probe takes besides warm-up and window, about: processes, costs, drain.
const AROUND_PROBE: Duration = Duration::from_millis(700);
/// Highest rate a plan can have.
const HIGHEST: u64 = 100_000_000;

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Quest {
    /// The run to probe with; its rate does not count.
    pub plan: Plan,
    /// What the rate must keep besides being held.
    pub objective: Option<Threshold>,
    /// No lower rate is tried.
    pub lowest: u64,
    /// 0.05 for 5 %.
    pub precision: f64,
    /// Probes in all.
    pub probes_max: u32,
}

impl Quest {
    /// Where the search starts and how it steps, once it is known what a closed loop manages.
    fn limits(&self, closed_loop: f64) -> Limits {
        // The highest rate of an open loop lies near the closed loop's; one that keeps an objective
        // may lie anywhere below it.
        let (share, step) = match self.objective {
            None => (0.9, 1.15),
            Some(_) => (0.5, 2.0),
        };
        Limits {
            start: whole(closed_loop * share),
            step,
            lowest: self.lowest,
            highest: HIGHEST,
            precision: self.precision,
            probes_max: self.probes_max,
        }
    }

    /// How long a probe takes, about.
    fn probe_takes(&self, confirming: bool) -> Duration {
        let window = self.plan.duration * if confirming { CONFIRMING } else { 1 };
        window + self.plan.warmup + AROUND_PROBE
    }

    /// The longest that the search may take, about.
    pub fn takes_at_most(&self) -> Duration {
        // The closed loop is one more. All may be long: on a host where short ones flatter.
        self.probe_takes(false) + self.probe_takes(true) * self.probes_max
    }
}

/// Looks for it. Ends early when it is asked to: what is known by then is in the result.
pub fn search(quest: &Quest, interrupt: &Interrupt) -> Result<Sought, Failure> {
    let clock = Clock::new();
    let Some(closed_loop) = closed_loop::records_per_s(&quest.plan, interrupt)? else {
        return Ok(Sought::nothing(float(clock.now()) / 1e9));
    };
    let mut search = Search::new(quest.limits(closed_loop));
    let mut probes = Vec::new();
    let mut damaged = None;
    let answer = loop {
        let (rate, confirming) = match search.next() {
            Next::Over(answer) => break Some(answer),
            Next::Probe { rate, confirming } => (rate, confirming),
        };
        if interrupt.asked() {
            break None;
        }
        eprintln!(
            "{}",
            announced(quest, &search, probes.len() + 1, rate, confirming)
        );
        let Some(document) = measured(&quest.plan, rate, confirming, interrupt)? else {
            break None;
        };
        let (showed, why) = judge(&document, rate, quest.objective.as_ref());
        eprintln!("  {why}");
        let clean = document.verified.as_ref().is_none_or(|verified| {
            verified.lost + verified.duplicated + verified.reordered + verified.corrupt == 0
        });
        probes.push(Probe::of(&document, rate, confirming, showed, why.clone()));
        if !clean {
            damaged = Some(why);
            break None;
        }
        search.answer(showed);
    };
    let (low, high) = search.bracket();
    Ok(Sought {
        closed_loop: Some(closed_loop),
        probes,
        answer,
        holds: low,
        misses: high,
        damaged,
        took_s: float(clock.now()) / 1e9,
    })
}

/// A probe's line, with how long the rest may take.
fn announced(quest: &Quest, search: &Search, number: usize, rate: u64, confirming: bool) -> String {
    let window = quest.plan.duration * if confirming { CONFIRMING } else { 1 };
    let left = search.probes_left();
    let time = if confirming {
        quest.probe_takes(true) * left
    } else {
        quest.probe_takes(false) * left.saturating_sub(1) + quest.probe_takes(true)
    };
    let show = |rate: Option<u64>| rate.map_or("?".into(), |rate| show_rate(float(rate)));
    let (low, high) = search.bracket();
    format!(
        "Probe {number}{}: {} records/s for {}; holds {}, misses {}; about {left} probes, {:.0} s left",
        if confirming { ", confirming" } else { "" },
        show_rate(float(rate)),
        show_duration(window),
        show(low),
        show(high),
        time.as_secs_f64(),
    )
}

/// One probe; nothing when it was interrupted.
fn measured(
    plan: &Plan,
    rate: u64,
    confirming: bool,
    interrupt: &Interrupt,
) -> Result<Option<Document>, Failure> {
    let probe = Plan {
        rate: Rate::PerSecond(rate),
        duration: plan.duration * if confirming { CONFIRMING } else { 1 },
        records: None,
        ..plan.clone()
    };
    let trial = trial::run(&probe, None, interrupt)?;
    if interrupt.asked() {
        return Ok(None);
    }
    let said = || {
        let said = trial.said.trim_end();
        said.lines().last().unwrap_or("it said nothing").to_owned()
    };
    let Some(run) = trial.run.as_ref() else {
        // What is wrong with a setting is wrong with every probe.
        return Err(match trial.ended {
            Ok(2) => Failure::config(trial.said.trim_end()),
            _ => Failure::connection(format!("a probe failed: {}", said())),
        });
    };
    match &run.document.failure {
        Some(why) => Err(Failure::connection(format!("a probe failed: {why}"))),
        None if run.document.interrupted => Ok(None), // somebody told the probe itself
        None => Ok(Some(run.document.clone())),
    }
}

/// Whether the rate holds, and why not or how well.
fn judge(document: &Document, rate: u64, objective: Option<&Threshold>) -> (Showed, String) {
    let good = float(document.acked_records + document.sent_records);
    let due = float(document.offered_records);
    // The one that is on its way when the window closes is not late.
    let share = ratio((good + 1.0).min(due), due);
    let behind = ratio(float(document.unsent_records), due);
    let met = objective.map(|objective| (objective, objective.judge(document, None)));
    let value = met.as_ref().map_or(String::new(), |(objective, judged)| {
        let name = objective.figure.name;
        match judged {
            Judged::Holds(value) | Judged::Fails(value) => {
                format!(", {name} {}", objective.show(*value))
            }
            Judged::Unknown(why) | Judged::NotApplicable(why) => format!(", {name}: {why}"),
        }
    });
    let achieved = format!(
        "{} of {} records/s{value}",
        show_rate(document.records_per_s),
        show_rate(float(rate))
    );
    if !document.good {
        let failed = document.not_written_records + document.unknown_records;
        let why = format!("misses by far: {achieved}; {failed} records failed");
        return (Showed::MissesByFar, why);
    }
    if share < FAR_BELOW {
        return (Showed::MissesByFar, format!("misses by far: {achieved}"));
    }
    if share < KEPT_UP || behind > BEHIND {
        return (
            Showed::Misses,
            format!("misses: {achieved}, behind schedule"),
        );
    }
    match met {
        None | Some((_, Judged::Holds(_))) => (Showed::Holds, format!("holds: {achieved}")),
        Some((objective, Judged::Fails(value))) if is_far(objective, value) => {
            (Showed::MissesByFar, format!("misses by far: {achieved}"))
        }
        Some(_) => (Showed::Misses, format!("misses: {achieved}")),
    }
}

/// Only for what must stay below something: how far above a floor is far depends on the figure.
fn is_far(objective: &Threshold, value: f64) -> bool {
    matches!(objective.relation, Relation::Under | Relation::AtMost)
        && value > objective.limit * FAR_ABOVE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn threshold(text: &str) -> Threshold {
        Threshold::parse(text).expect("a threshold")
    }

    /// A run that was offered 1,000 records and acked so many.
    fn document(acked: u64, unsent: u64, p99_us: f64) -> Document {
        let mut document = sample::recorded("probe", Duration::ZERO, &[]).document;
        document.offered_records = 1_000;
        document.acked_records = acked;
        document.sent_records = 0;
        document.unsent_records = unsent;
        document.good = true;
        document.latency_us.response = Some(crate::histogram::Latency {
            p50: 1.0,
            p90: 1.0,
            p99: p99_us,
            p99_9: p99_us,
            p99_99: p99_us,
            max: p99_us,
            mean: 1.0,
        });
        document
    }

    #[test]
    fn a_rate_holds_when_the_client_keeps_up() {
        let judged = |acked, unsent| judge(&document(acked, unsent, 1.0), 1_000, None).0;
        assert_eq!(judged(1_000, 0), Showed::Holds);
        assert_eq!(judged(985, 9), Showed::Holds);
        assert_eq!(judged(975, 0), Showed::Misses);
        assert_eq!(judged(990, 11), Showed::Misses);
        assert_eq!(judged(800, 200), Showed::MissesByFar);
        let lost = Document {
            good: false,
            ..document(1_000, 0, 1.0)
        };
        assert_eq!(judge(&lost, 1_000, None).0, Showed::MissesByFar);
    }

    #[test]
    fn and_when_the_objective_is_met() {
        let objective = threshold("p99 < 5ms");
        let judged = |p99| judge(&document(1_000, 0, p99), 1_000, Some(&objective));
        assert_eq!(judged(4_999.0).0, Showed::Holds);
        assert_eq!(judged(5_000.0).0, Showed::Misses);
        assert_eq!(judged(10_001.0).0, Showed::MissesByFar);
        assert!(
            judged(4_000.0).1.contains("p99 4.00 ms"),
            "{}",
            judged(4_000.0).1
        );
        let mut untimed = document(1_000, 0, 1.0);
        untimed.latency_us.response = None;
        assert_eq!(judge(&untimed, 1_000, Some(&objective)).0, Showed::Misses);
    }

    #[test]
    fn time_is_bounded_and_said_beforehand() {
        let quest = Quest {
            plan: Plan {
                duration: Duration::from_secs(3),
                warmup: Duration::from_secs(1),
                ..Plan::default()
            },
            objective: None,
            lowest: 100,
            precision: 0.05,
            probes_max: 20,
        };
        assert!(quest.takes_at_most() < Duration::from_secs(20 * 8));
    }
}
