//! What a sweep is doing and how long it will yet take, on stderr: a line that changes on a terminal,
//! plain lines elsewhere.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::clock::Clock;
use crate::closed_loop;
use crate::number::{count, float, ratio, whole};
use crate::plan::{Plan, Rate};
use crate::report::document::Document;
use crate::setting::DURATION_MAX;
use crate::sweep::matrix::{Matrix, order};
use crate::sweep::state::{Progress, State};
use crate::threshold::{Judged, Threshold};
use crate::units::{show_nanos, show_rate};

/// What a run takes besides warm-up and window, until one has been timed: start, drain, results.
const OVERHEAD_S: f64 = 0.7;
const DRAW: Duration = Duration::from_millis(200);

/// How long runs take.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// Each run's warm-up and window, in their order; `None` for one that measures a number of
    /// records, however long it takes.
    planned_s: Vec<Option<f64>>,
    /// What runs took so far: number and sum, of those with a plan (beyond it) and of those without.
    beyond: (u64, f64),
    open: (u64, f64),
}

impl Estimate {
    /// For all runs of a matrix.
    pub fn new(matrix: &Matrix, rounds: usize) -> Self {
        let cells: Vec<_> = matrix.cells.iter().map(|cell| run_s(&cell.plan)).collect();
        Self {
            planned_s: order(cells.len(), rounds)
                .map(|(cell, _)| cells[cell])
                .collect(),
            beyond: (0, 0.0),
            open: (0, 0.0),
        }
    }

    /// How long all of them take.
    pub fn whole_s(&self) -> Option<f64> {
        self.planned_s
            .iter()
            .map(|planned| planned.map(|seconds| seconds + OVERHEAD_S))
            .sum()
    }

    /// Run `at` took so long.
    fn took(&mut self, at: usize, seconds: f64) {
        let (sum, more) = match self.planned_s[at] {
            Some(planned) => (&mut self.beyond, seconds - planned),
            None => (&mut self.open, seconds),
        };
        *sum = (sum.0 + 1, sum.1 + more);
    }

    /// How long run `at` will take, as far as one can tell.
    fn run_s(&self, at: usize) -> Option<f64> {
        let mean = |(runs, seconds): (u64, f64)| (runs > 0).then(|| seconds / float(runs));
        match self.planned_s[at] {
            Some(planned) => Some(planned + mean(self.beyond).unwrap_or(OVERHEAD_S).max(0.0)),
            None => mean(self.open),
        }
    }

    /// How long what is left of the sweep will take; runs nothing is known of do not count.
    fn left_s(&self, state: &State) -> f64 {
        let left = state.runs.iter().enumerate();
        left.filter(|(_, run)| matches!(run.progress, Progress::Planned | Progress::Running))
            .filter_map(|(at, _)| self.run_s(at))
            .sum()
    }
}

/// Warm-up and window, also those of the run that finds the peak.
fn run_s(plan: &Plan) -> Option<f64> {
    if plan.records.is_some() && plan.duration == DURATION_MAX {
        return None;
    }
    let before = match plan.rate {
        Rate::OfPeak(_) => closed_loop::length(plan).as_secs_f64() + OVERHEAD_S,
        Rate::Max | Rate::PerSecond(_) => 0.0,
    };
    Some((plan.warmup + plan.duration).as_secs_f64() + before)
}

/// The live line of a sweep.
pub struct Live {
    clock: Clock,
    estimate: Estimate,
    bar: Option<ProgressBar>,
    run_began_ns: u64,
    /// When all of it is expected to be over.
    end_ns: Arc<AtomicU64>,
}

impl Live {
    /// For the runs of `state`.
    pub fn new(estimate: Estimate, state: &State) -> Self {
        let clock = Clock::new();
        let end_ns = Arc::new(AtomicU64::new(0));
        let bar = std::io::stderr().is_terminal().then(|| {
            let runs = count(state.runs.len());
            let bar = ProgressBar::with_draw_target(Some(runs), ProgressDrawTarget::stderr());
            let end_ns = Arc::clone(&end_ns);
            let left = move |_: &ProgressState, out: &mut dyn Write| {
                let left_ns = end_ns.load(Ordering::Relaxed).saturating_sub(clock.now());
                // A line that cannot be written is not drawn.
                let _ = out.write_str(&show_seconds(float(left_ns) / 1e9));
            };
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}, about {left} left") {
                bar.set_style(style.with_key("left", left));
            }
            bar.enable_steady_tick(DRAW);
            bar
        });
        Self {
            clock,
            estimate,
            bar,
            run_began_ns: 0,
            end_ns,
        }
    }

    /// Says something that stays.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Run `at` begins.
    pub fn start(&mut self, state: &State, at: usize) {
        self.run_began_ns = self.clock.now();
        let left_s = self.estimate.left_s(state);
        let end_ns = self.run_began_ns + whole(left_s * 1e9);
        self.end_ns.store(end_ns, Ordering::Relaxed);
        let name = numbered(state, at);
        match &self.bar {
            Some(bar) => {
                bar.set_position(count(at));
                bar.set_message(name);
            }
            None => eprintln!("{name}: started, about {} left", show_seconds(left_s)),
        }
    }

    /// Run `at` has ended as `state` says, with `result` if it has a whole one.
    pub fn ended(&mut self, state: &State, at: usize, result: Option<&Document>) {
        let seconds = float(self.clock.now().saturating_sub(self.run_began_ns)) / 1e9;
        let run = &state.runs[at];
        let told = match run.progress {
            Progress::Finished | Progress::Unsettled => {
                self.estimate.took(at, seconds);
                result.map_or_else(String::new, figures)
            }
            Progress::Interrupted => "interrupted; it counts as not run".into(),
            Progress::Failed => "FAILED".into(),
            Progress::Planned | Progress::Running => "not run".into(),
        };
        let bad = if run.progress == Progress::Unsettled {
            ", NOT GOOD"
        } else {
            ""
        };
        let why = run.why.as_ref().map(|why| format!(": {why}"));
        let why = why.unwrap_or_default();
        self.say(&format!("{}: {told}{bad}{why}", numbered(state, at)));
    }

    /// Takes the line away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `[3/10] lz4, round 2`
fn numbered(state: &State, at: usize) -> String {
    let run = &state.runs[at];
    let round = match state.rounds {
        1 => String::new(),
        _ => format!(", round {}", run.round),
    };
    format!("[{}/{}] {}{round}", at + 1, state.runs.len(), run.cell)
}

/// The figures of one run in a line.
fn figures(result: &Document) -> String {
    let mut told = vec![format!("{} records/s", show_rate(result.records_per_s))];
    told.extend(
        result
            .cpu_us_per_record
            .map(|cpu| format!("{cpu:.3} µs CPU/record")),
    );
    if let Some(times) = result.latency_us.response.or(result.latency_us.service) {
        let show = |micros: f64| show_nanos(whole(micros * 1_000.0));
        told.push(format!("p50 {}, p99 {}", show(times.p50), show(times.p99)));
    }
    told.extend(thresholds(result));
    told.join(", ")
}

/// How many thresholds hold of those that apply: `2 of 3 thresholds hold`; nothing when there are none.
pub fn thresholds(result: &Document) -> Option<String> {
    let judged = result.gate.iter().filter_map(|text| {
        let Ok(threshold) = Threshold::parse(text) else {
            return Some(false);
        };
        // What needs a baseline is for `gate` to judge.
        match threshold.judge(result, None) {
            Judged::Holds(_) => Some(true),
            Judged::Fails(_) | Judged::Unknown(_) => Some(false),
            Judged::NotApplicable(_) => None,
        }
    });
    let (all, held) = judged.fold((0, 0), |(all, held), holds| {
        (all + 1, held + u64::from(holds))
    });
    (all > 0).then(|| format!("{held} of {all} thresholds hold"))
}

/// `45 s`, `1 m 20 s`, `2 h 5 m`.
pub fn show_seconds(seconds: f64) -> String {
    let all = whole(ratio(seconds, 1.0));
    match (all / 3_600, all / 60 % 60, all % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} m {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Draft;
    use crate::sweep;

    fn of(text: &str, rounds: usize) -> (Estimate, State) {
        let mut draft = Draft::default();
        draft.read_text("s.toml", text);
        let matrix = Matrix::of(draft, "s.toml").unwrap_or_else(|faults| panic!("{faults}"));
        let state = sweep::planned("s.toml".as_ref(), &matrix, rounds);
        (Estimate::new(&matrix, rounds), state)
    }

    #[test]
    fn the_time_left_follows_what_runs_take() {
        let text = "warmup = '1s'\nduration = '9s'\n[sweep]\nacks = [0, 1]\n";
        let (mut estimate, mut state) = of(text, 2);
        let close = |left: f64, right: f64| assert!((left - right).abs() < 1e-9, "{left} {right}");
        close(estimate.whole_s().expect("known"), 4.0 * 10.7);
        close(estimate.left_s(&state), 4.0 * 10.7);
        estimate.took(0, 12.0);
        state.runs[0].progress = Progress::Finished;
        close(estimate.left_s(&state), 3.0 * 12.0);
        state.runs[1].progress = Progress::Failed;
        close(estimate.left_s(&state), 2.0 * 12.0);
    }

    #[test]
    fn a_number_of_records_takes_as_long_as_those_before() {
        let (mut estimate, state) = of("records = 10\n[sweep]\nacks = [0, 1]\n", 1);
        assert_eq!(estimate.whole_s(), None);
        estimate.took(0, 3.0);
        assert!((estimate.left_s(&state) - 6.0).abs() < 1e-9);
    }

    #[test]
    fn a_share_of_the_peak_takes_the_run_that_finds_it() {
        let text = "rate = '50%peak'\nwarmup = '2s'\nduration = '10s'\n[sweep]\nacks = [1]\n";
        let whole_s = of(text, 1).0.whole_s().expect("known");
        assert!(
            (whole_s - (12.0 + 0.7 + 3.0 + 0.7)).abs() < 1e-9,
            "{whole_s}"
        );
    }

    #[test]
    fn times_are_in_words() {
        for (seconds, text) in [
            (0.4, "0 s"),
            (59.6, "1 m 0 s"),
            (80.0, "1 m 20 s"),
            (7_500.0, "2 h 5 m"),
            (f64::NAN, "0 s"),
        ] {
            assert_eq!(show_seconds(seconds), text);
        }
    }
}
