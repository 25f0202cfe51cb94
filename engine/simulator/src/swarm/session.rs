//! Many runs: seeds one after the other, each twice; what a failure prints; shrinking.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::history::Counts;
use super::knobs::{Kind, Knobs};
use super::run::{Report, Run};

/// One run of a seed, without faults of some kinds. A panic is a failure like any other.
///
/// # Errors
/// What did not hold.
pub fn once(seed: u64, without: &[Kind], trace: bool) -> Result<Report, String> {
    let knobs = Knobs::draw(seed, without);
    let run = AssertUnwindSafe(|| Run::new(knobs, trace).run());
    catch_unwind(run).unwrap_or_else(|panic| {
        let words = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!(
            "panic: {}",
            words.unwrap_or_else(|| "without words".to_owned())
        ))
    })
}

/// Two runs of a seed, which must do the same.
///
/// # Errors
/// What did not hold.
pub fn twice(seed: u64) -> Result<Report, String> {
    let first = once(seed, &[], false)?;
    let second = once(seed, &[], false)?;
    if first != second {
        return Err(format!(
            "two runs of the seed differ: {first:?} and {second:?}"
        ));
    }
    Ok(first)
}

/// The kinds of faults of a seed without which it fails no more, and those with which it still fails:
/// drops one kind after the other.
#[must_use]
pub fn shrink(seed: u64) -> (Vec<Kind>, String) {
    let mut without = Vec::new();
    let mut words = match once(seed, &without, false) {
        Err(words) => words,
        Ok(_) => return (without, "it fails no more".to_owned()),
    };
    for (kind, _) in Knobs::draw(seed, &[]).faults {
        without.push(kind);
        match once(seed, &without, false) {
            Err(now) => words = now,
            Ok(_) => {
                without.pop();
            }
        }
    }
    (without, words)
}

/// What many runs did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum {
    /// Seeds.
    pub seeds: u64,
    /// Network events, timers and calls, of both runs of each seed.
    pub events: u64,
    /// Faults that struck, in one run of each seed.
    pub strikes: u64,
    /// Batches that went to another lane, in one run of each seed.
    pub moved: u64,
    /// Acknowledged records that clusters lost afterwards, in one run of each seed.
    pub lost: u64,
    /// Flushes that ended, in one run of each seed.
    pub flushed: u64,
    /// Seeds with two thirds of their records acknowledged, or sent with `acks=0`.
    pub good: u64,
    /// Pretend time, of one run of each seed.
    pub time: Duration,
    /// How records ended, in one run of each seed.
    pub counts: Counts,
}

impl Sum {
    /// A seed more.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.events += 2 * report.events;
        self.strikes += report.strikes;
        self.moved += report.moved;
        self.lost += report.lost;
        self.flushed += report.flushed;
        self.time += report.time;
        let (sum, one) = (&mut self.counts, &report.counts);
        self.good += u64::from(3 * (one.acked + one.sent) >= 2 * one.records);
        sum.records += one.records;
        sum.acked += one.acked;
        sum.sent += one.sent;
        sum.not_written += one.not_written;
        sum.unknown += one.unknown;
    }
}
