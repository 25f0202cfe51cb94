//! The live line on stderr: what is going on, how fast, how long yet. On a terminal it is one line
//! that changes five times a second; elsewhere a plain line a second.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::number::{float, milli, ratio, whole};
use crate::plan::Plan;
use crate::units::{show_count, show_rate};

const DRAW_NS: u64 = 200_000_000;
const PLAIN_NS: u64 = 1_000_000_000;
/// Steps of the bar.
const BAR: u64 = 1_000;

/// A part of a run: the warm-up, or the window.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its name in the line.
    pub what: &'static str,
    /// When it began.
    pub start_ns: u64,
    /// When it ends at the latest.
    pub until_ns: u64,
    /// With a number of records: how many had settled at its start, and how many will have at its end.
    pub records: Option<(u64, u64)>,
}

impl Part {
    /// How far it is, 0 to 1.
    fn share(&self, now_ns: u64, records: u64) -> f64 {
        let (done, all) = match self.records {
            Some((start, end)) => (records.saturating_sub(start), end.saturating_sub(start)),
            None => (
                now_ns.saturating_sub(self.start_ns),
                self.until_ns.saturating_sub(self.start_ns),
            ),
        };
        ratio(float(done), float(all)).clamp(0.0, 1.0)
    }

    /// What the line says of it: passed, planned, left. How long a number of records will yet take is
    /// told by how long those before them took.
    fn times(&self, now_ns: u64, records: u64) -> String {
        let passed = float(now_ns.saturating_sub(self.start_ns)) / 1e9;
        let Some((start, end)) = self.records else {
            let whole = float(self.until_ns.saturating_sub(self.start_ns)) / 1e9;
            let left = (whole - passed).max(0.0);
            return format!("{passed:.1} of {:.1} s, {left:.1} s left", milli(whole));
        };
        let goal = show_count(end.saturating_sub(start));
        let share = self.share(now_ns, records);
        let left = match share > 0.0 {
            true => format!(", about {:.1} s left", passed / share - passed),
            false => String::new(),
        };
        format!("{passed:.1} s of {goal} records{left}")
    }
}

/// The live line.
pub struct Progress {
    bar: Option<ProgressBar>,
    drawn_ns: u64,
    drawn_records: u64,
}

impl Progress {
    /// Says what is going to be run.
    pub fn new(plan: &Plan) -> Self {
        eprintln!("{plan}");
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(BAR), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            drawn_ns: 0,
            drawn_records: 0,
        }
    }

    /// It is `now_ns`, and `records` have settled.
    pub fn tick(&mut self, part: &Part, now_ns: u64, records: u64) {
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
        let (what, times) = (part.what, part.times(now_ns, records));
        let line = format!("{what} {times}, {} records/s", show_rate(rate));
        match &self.bar {
            Some(bar) => {
                bar.set_position(whole(part.share(now_ns, records) * float(BAR)));
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

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn the_time_left_is_told_by_the_plan_or_by_the_records_so_far() {
        let window = Part {
            what: "measuring",
            start_ns: 5 * S,
            until_ns: 15 * S,
            records: None,
        };
        assert_eq!(window.times(8 * S, 7), "3.0 of 10.0 s, 7.0 s left");
        assert_eq!(window.times(16 * S, 7), "11.0 of 10.0 s, 0.0 s left");
        let counted = Part {
            until_ns: 50_000 * S,
            records: Some((1_000, 51_000)),
            ..window
        };
        assert_eq!(counted.times(8 * S, 1_000), "3.0 s of 50 000 records");
        let (told, share) = (counted.times(8 * S, 11_000), counted.share(8 * S, 11_000));
        assert_eq!(told, "3.0 s of 50 000 records, about 12.0 s left");
        assert!((share - 0.2).abs() < 1e-9, "{share}");
    }
}
