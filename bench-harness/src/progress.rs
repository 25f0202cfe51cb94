//! The live line on stderr: what is going on, how fast, how long yet. On a terminal it is one line
//! that changes five times a second; elsewhere a plain line a second.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::number::{float, milli, ratio};
use crate::plan::Plan;
use crate::units::show_rate;

const DRAW_NS: u64 = 200_000_000;
const PLAIN_NS: u64 = 1_000_000_000;

/// The live line.
pub struct Progress {
    bar: Option<ProgressBar>,
    drawn_ns: u64,
    drawn_records: u64,
    goal: String,
}

impl Progress {
    /// Says what is going to be run.
    pub fn new(plan: &Plan) -> Self {
        eprintln!("{plan}");
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(1_000), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        let goal = plan
            .records
            .map(|_| format!(" of {}", plan.length()))
            .unwrap_or_default();
        Self {
            bar,
            drawn_ns: 0,
            drawn_records: 0,
            goal,
        }
    }

    /// `passed_ns` of `whole_ns` of a stretch are over; `records` settled by `now_ns`.
    pub fn tick(&mut self, what: &str, passed_ns: u64, whole_ns: u64, now_ns: u64, records: u64) {
        let every = if self.bar.is_some() {
            DRAW_NS
        } else {
            PLAIN_NS
        };
        let since = now_ns.saturating_sub(self.drawn_ns);
        if since < every {
            return;
        }
        let rate = ratio(
            float(records.saturating_sub(self.drawn_records)) * 1e9,
            float(since),
        );
        let (passed, whole) = (float(passed_ns) / 1e9, float(whole_ns) / 1e9);
        let time = if self.goal.is_empty() {
            format!("{passed:.1} of {:.1} s", milli(whole))
        } else {
            format!("{passed:.1} s{}", self.goal)
        };
        let line = format!("{what} {time}, {} records/s", show_rate(rate));
        match &self.bar {
            Some(bar) => {
                bar.set_position(passed_ns * 1_000 / whole_ns.max(1));
                bar.set_message(line);
            }
            None => eprintln!("{line}"),
        }
        (self.drawn_ns, self.drawn_records) = (now_ns, records);
    }

    /// Says what is going on now.
    pub fn note(&self, what: &'static str) {
        match &self.bar {
            Some(bar) => bar.set_message(what),
            None => eprintln!("{what}"),
        }
    }

    /// Takes the line away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
