//! What is paired with what: rounds of the same number where both results have them, else their
//! intervals one by one.

use crate::compare::bootstrap::Pairs;
use crate::compare::{Side, Unit};
use crate::histogram::Sparse;
use crate::number::float;
use crate::recorded::{Log, Recorded};

/// One half of a pair.
pub(crate) struct Half<'a> {
    pub(crate) records: f64,
    pub(crate) seconds: f64,
    pub(crate) cpu_s: f64,
    pub(crate) response: Vec<&'a Sparse>,
    pub(crate) service: Vec<&'a Sparse>,
}

impl<'a> Half<'a> {
    fn of_round(round: &'a Recorded) -> Self {
        fn all(log: &Log) -> Vec<&Sparse> {
            log.intervals
                .iter()
                .map(|interval| &interval.histogram)
                .collect()
        }
        let document = &round.document;
        Self {
            records: float(document.acked_records + document.sent_records),
            seconds: document.elapsed_s,
            cpu_s: document.cpu_user_s + document.cpu_system_s,
            response: all(&round.response),
            service: all(&round.service),
        }
    }

    /// The intervals of a run; a rest that is less than half as long as the others is left out.
    fn of_intervals(run: &'a Recorded) -> Vec<Self> {
        let longest = run
            .series
            .iter()
            .map(|interval| interval.length_s)
            .fold(0.0, f64::max);
        let whole = run
            .series
            .iter()
            .filter(|interval| interval.length_s >= longest / 2.0);
        let halves = whole.map(|interval| {
            let (start, end) = (interval.start_s, interval.start_s + interval.length_s);
            let within = |log: &'a Log| -> Vec<&'a Sparse> {
                let inside = log.intervals.iter().filter(|one| {
                    let middle = (one.start + one.length / 2).as_secs_f64();
                    start <= middle && middle < end
                });
                inside.map(|one| &one.histogram).collect()
            };
            let records = float(interval.acked_records);
            Self {
                records,
                seconds: interval.length_s,
                cpu_s: interval.cpu_us_per_record.unwrap_or(0.0) * records / 1e6,
                response: within(&run.response),
                service: within(&run.service),
            }
        });
        halves.collect()
    }
}

/// All pairs of two sides.
pub(crate) struct Paired<'a> {
    pub(crate) unit: Unit,
    pub(crate) pairs: Pairs,
    pub(crate) baseline: Vec<Half<'a>>,
    pub(crate) result: Vec<Half<'a>>,
    /// What to keep in mind.
    pub(crate) notes: Vec<String>,
}

impl<'a> Paired<'a> {
    pub(crate) fn of(baseline: &'a Side, result: &'a Side) -> Self {
        let mut notes = Vec::new();
        let both: Vec<(&Recorded, &Recorded)> = baseline
            .rounds
            .iter()
            .filter_map(|(number, round)| {
                let other = result.rounds.iter().find(|(other, _)| other == number)?;
                Some((round, &other.1))
            })
            .collect();
        if both.len() >= 2 {
            let alone = baseline.rounds.len() + result.rounds.len() - 2 * both.len();
            if alone > 0 {
                notes.push(format!("{alone} rounds without a partner are left out"));
            }
            return Self {
                unit: Unit::Rounds,
                pairs: Pairs::rounds(both.len()),
                baseline: both
                    .iter()
                    .map(|(round, _)| Half::of_round(round))
                    .collect(),
                result: both
                    .iter()
                    .map(|(_, round)| Half::of_round(round))
                    .collect(),
                notes,
            };
        }
        let (mut ours, mut theirs) = (
            Half::of_intervals(&baseline.whole),
            Half::of_intervals(&result.whole),
        );
        let pairs = ours.len().min(theirs.len());
        ours.truncate(pairs);
        theirs.truncate(pairs);
        notes.push(
            "the pairs are intervals of one run each: what differs from run to run is not in the \
             intervals below. Rounds of a sweep have it"
                .into(),
        );
        Self {
            unit: Unit::Intervals,
            pairs: Pairs::intervals(pairs),
            baseline: ours,
            result: theirs,
            notes,
        }
    }
}
