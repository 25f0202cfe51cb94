//! The run before a run whose rate is a share of the peak, like `50%peak`: the same plan in a closed
//! loop, in a process of its own, for a few seconds. What it manages is the peak.

use std::time::Duration;

use crate::exit::Failure;
use crate::interrupt::Interrupt;
use crate::plan::{Arrival, Plan, Rate};
use crate::trial;
use crate::units::show_rate;

/// Its window and its warm-up at most; never longer than those of the run it is for.
const WINDOW_MAX: Duration = Duration::from_secs(2);
const WARMUP_MAX: Duration = Duration::from_secs(1);

/// How long it runs before `plan` does.
pub fn length(plan: &Plan) -> Duration {
    plan.duration.min(WINDOW_MAX) + plan.warmup.min(WARMUP_MAX)
}

/// Records a second that `plan` manages in a closed loop; nothing when it was interrupted, for what a
/// part of it managed is no peak.
pub fn records_per_s(plan: &Plan, interrupt: &Interrupt) -> Result<Option<f64>, Failure> {
    let closed = Plan {
        rate: Rate::Max,
        arrival: Arrival::Fixed,
        records: None,
        duration: plan.duration.min(WINDOW_MAX),
        warmup: plan.warmup.min(WARMUP_MAX),
        ..plan.clone()
    };
    eprintln!("Looking for the peak: {closed}");
    let trial = trial::run(&closed, None, interrupt)?;
    let found = trial.run.map(|run| run.document);
    if interrupt.asked() || found.as_ref().is_some_and(|found| found.interrupted) {
        return Ok(None);
    }
    let found = found.filter(|found| found.failure.is_none() && found.records_per_s > 0.0);
    let Some(found) = found else {
        let said = trial.said.trim_end();
        let why = said.lines().last().unwrap_or("it said nothing");
        return Err(Failure::connection(format!(
            "the run that was to find the peak failed: {why}"
        )));
    };
    eprintln!("The peak is {} records/s.", show_rate(found.records_per_s));
    Ok(Some(found.records_per_s))
}
