//! Thresholds: what a result must keep, as a scenario's `[gate]` says it and `gate` judges it.
//!
//! ```text
//! p99.9 < 2ms                          intended send → ack, the 99.9th percentile
//! service p99 <= 500us                 actual send → ack
//! append_to_seal p50 < 1ms             a stage of it
//! throughput p1 > 500k                 records/s, the slowest hundredth of the 10 ms intervals
//! cpu_us_per_record < 0.1              any other figure by its name in the run's document
//! duplicated = 0
//! vs_baseline records_per_s > -3%      against another run: its change, in percent of that one
//! ```
//!
//! Brokers elsewhere cannot be asked what lies in their log, only how much it grew: there `lost` is what
//! is missing in the log and `duplicated` what it has too much (another writer's records too: give each
//! client a topic of its own). Limits on what nobody can tell there, like `reordered = 0`, do not apply.
//!
//! The table of figures is here, with the unit each limit must have, so that a mistyped figure or a
//! limit without its unit is told when the scenario is read and not after an hour's run.

use std::fmt;

use serde_json::Value;

use crate::histogram::Latency;
use crate::log_end::LogGrowth;
use crate::nearest::hint;
use crate::number::{float, micro, whole};
use crate::plan::Brokers;
use crate::report::document::{Document, Throughput, Verified};
use crate::units::{self, DURATION_EXPECTED, SIZE_EXPECTED};

/// What every threshold looks like; the end of "expected …".
pub const EXPECTED: &str = "a figure, `<`, `<=`, `>`, `>=` or `=`, and a limit, like \
                            `p99.9 < 2ms` or `vs_baseline records_per_s > -3%`";

/// One figure of a run's document.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// What thresholds call it: a field's name, or a percentile with its distribution in front
    /// (none: response times).
    pub name: &'static str,
    /// What its limits are written in.
    pub unit: Unit,
    /// Its value, in the document's unit; `None` when the run does not know.
    pub of: fn(&Document) -> Option<f64>,
}

/// What a limit is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A duration (`2ms`); the document has µs.
    Time,
    /// A size (`64MiB`); the document has bytes.
    Size,
    /// A number (`0.1`, `500k`); the unit, if any, is in the figure's name.
    Number,
}

/// How a value must lie to the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `<`
    Under,
    /// `<=`
    AtMost,
    /// `>`
    Over,
    /// `>=`
    AtLeast,
    /// `=`
    Exactly,
}

/// A figure and its limit.
#[derive(Clone, Copy, Debug)]
pub struct Threshold {
    /// Which figure.
    pub figure: &'static Figure,
    /// On which side of the limit it must be.
    pub relation: Relation,
    /// In the document's unit; with `vs_baseline` in percent of the baseline's value.
    pub limit: f64,
    /// Whether the change against another run is meant.
    pub vs_baseline: bool,
}

/// What became of a threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judged {
    /// It holds; the value, in the unit of the limit.
    Holds(f64),
    /// It does not.
    Fails(f64),
    /// The result does not have the figure, or there is no baseline: nobody may call it held.
    Unknown(&'static str),
    /// It is about what a broker elsewhere does not tell of any run.
    NotApplicable(&'static str),
}

macro_rules! latencies {
    ($prefix:literal, $of:expr) => {{
        const OF: fn(&Document) -> Option<Latency> = $of;
        [
            time(concat!($prefix, "p50"), |d| OF(d).map(|times| times.p50)),
            time(concat!($prefix, "p90"), |d| OF(d).map(|times| times.p90)),
            time(concat!($prefix, "p99"), |d| OF(d).map(|times| times.p99)),
            time(concat!($prefix, "p99.9"), |d| {
                OF(d).map(|times| times.p99_9)
            }),
            time(concat!($prefix, "p99.99"), |d| {
                OF(d).map(|times| times.p99_99)
            }),
            time(concat!($prefix, "max"), |d| OF(d).map(|times| times.max)),
            time(concat!($prefix, "mean"), |d| OF(d).map(|times| times.mean)),
        ]
    }};
}

static RESPONSE: [Figure; 7] = latencies!("", |d| d.latency_us.response);
static SERVICE: [Figure; 7] = latencies!("service ", |d| d.latency_us.service);
static TO_SEAL: [Figure; 7] =
    latencies!("append_to_seal ", |d| d.latency_us.stages?.append_to_seal);
static TO_WIRE: [Figure; 7] = latencies!("seal_to_wire ", |d| d.latency_us.stages?.seal_to_wire);
static TO_ACK: [Figure; 7] = latencies!("wire_to_ack ", |d| d.latency_us.stages?.wire_to_ack);

static THROUGHPUT: [Figure; 5] = [
    number("throughput p1", |d| rate(d, |t| t.p1)),
    number("throughput p10", |d| rate(d, |t| t.p10)),
    number("throughput p50", |d| rate(d, |t| t.p50)),
    number("throughput p90", |d| rate(d, |t| t.p90)),
    number("throughput p99", |d| rate(d, |t| t.p99)),
];

static COUNTS: &[Figure] = &[
    number("records_per_s", |d| Some(d.records_per_s)),
    number("mib_per_s", |d| Some(d.mib_per_s)),
    number("offered_records", |d| Some(float(d.offered_records))),
    number("unsent_records", |d| Some(float(d.unsent_records))),
    number("acked_records", |d| Some(float(d.acked_records))),
    number("sent_records", |d| Some(float(d.sent_records))),
    number("not_written_records", |d| {
        Some(float(d.not_written_records))
    }),
    number("unknown_records", |d| Some(float(d.unknown_records))),
    number("unsettled_records", |d| {
        Some(float(d.run.unsettled_records))
    }),
    size("acked_bytes", |d| Some(float(d.acked_bytes))),
    number("elapsed_s", |d| Some(d.elapsed_s)),
    number("full_waits", |d| Some(float(d.full_waits))),
    number("blocked_s", |d| Some(d.blocked_s)),
    number("cpu_us_per_record", |d| d.cpu_us_per_record),
    number("cpu_user_s", |d| Some(d.cpu_user_s)),
    number("cpu_system_s", |d| Some(d.cpu_system_s)),
    number("broker_cpu_s", |d| d.broker_cpu_s),
    number("machine_busy_cpus", |d| d.machine_busy_cpus),
    number("steal_percent", |d| d.environment.steal_percent),
    number("allocations", |d| d.allocations.map(float)),
    number("allocations_per_record", |d| d.allocations_per_record),
    number("kernel_entries_per_request", |d| {
        d.kernel_entries_per_request
    }),
    number("records_per_batch", |d| d.records_per_batch),
    number("batches_per_request", |d| d.batches_per_request),
    number("batches", |d| d.batches.map(float)),
    number("requests", |d| d.requests.map(float)),
    number("retries", |d| d.retries.map(float)),
    number("wakes", |d| d.wakes.map(float)),
    number("voluntary_switches", |d| Some(float(d.voluntary_switches))),
    number("involuntary_switches", |d| {
        Some(float(d.involuntary_switches))
    }),
    size("peak_rss_bytes", |d| Some(float(d.peak_rss_bytes))),
    number("verified_records", |d| verified(d, |v| v.records)),
    number("lost", |d| {
        verified(d, |v| v.lost).or_else(|| grown(d, |growth| growth.missing))
    }),
    number("duplicated", |d| {
        verified(d, |v| v.duplicated).or_else(|| grown(d, |growth| growth.surplus))
    }),
    number("reordered", |d| verified(d, |v| v.reordered)),
    number("corrupt", |d| verified(d, |v| v.corrupt)),
];

const fn time(name: &'static str, of: fn(&Document) -> Option<f64>) -> Figure {
    let unit = Unit::Time;
    Figure { name, unit, of }
}

const fn size(name: &'static str, of: fn(&Document) -> Option<f64>) -> Figure {
    let unit = Unit::Size;
    Figure { name, unit, of }
}

const fn number(name: &'static str, of: fn(&Document) -> Option<f64>) -> Figure {
    let unit = Unit::Number;
    Figure { name, unit, of }
}

fn rate(document: &Document, of: fn(Throughput) -> u64) -> Option<f64> {
    document.throughput.map(of).map(float)
}

fn verified(document: &Document, of: fn(Verified) -> u64) -> Option<f64> {
    document.verified.map(of).map(float)
}

fn grown(document: &Document, of: fn(LogGrowth) -> u64) -> Option<f64> {
    document.log_growth.map(of).map(float)
}

/// Figures that come from looking into the log.
const OF_THE_LOG: [&str; 5] = [
    "verified_records",
    "lost",
    "duplicated",
    "reordered",
    "corrupt",
];

/// Whether `figure` is one that nobody can tell of this result, whatever the client does.
fn is_beyond_reach(figure: &Figure, document: &Document) -> bool {
    let brokers = document.config.get("brokers").and_then(Value::as_str);
    let elsewhere = brokers.is_some_and(|brokers| brokers != Brokers::Embedded.to_string());
    elsewhere && OF_THE_LOG.contains(&figure.name)
}

/// Every figure a threshold may be set on.
pub fn figures() -> impl Iterator<Item = &'static Figure> {
    COUNTS
        .iter()
        .chain(&RESPONSE)
        .chain(&SERVICE)
        .chain(&TO_SEAL)
        .chain(&TO_WIRE)
        .chain(&TO_ACK)
        .chain(&THROUGHPUT)
}

impl Figure {
    /// The figure of that name; `response p99_9` is `p99.9` too. The error names the nearest.
    pub fn find(name: &str) -> Result<&'static Figure, String> {
        let words = name.split_whitespace().collect::<Vec<_>>().join(" ");
        let plain = words.strip_prefix("response ").unwrap_or(&words);
        // As the document spells percentiles.
        let plain = plain.replace("p99_9", "p99.9");
        figures()
            .find(|figure| figure.name == plain)
            .ok_or_else(|| {
                let hint = hint(&plain, figures().map(|figure| figure.name));
                format!("there is no figure `{words}`{hint}")
            })
    }

    /// A value of it for reading.
    pub fn show(&self, value: f64) -> String {
        match self.unit {
            Unit::Time if value >= 0.0 => units::show_nanos(whole(value * 1_000.0)),
            Unit::Size if value >= 0.0 => format!("{:.1} MiB", value / 1_048_576.0),
            Unit::Time | Unit::Size | Unit::Number => format!("{}", micro(value)),
        }
    }

    /// A limit of it as it is written: what `read` takes.
    fn written(&self, limit: f64) -> String {
        match self.unit {
            Unit::Time => {
                let (value, unit) = match limit {
                    limit if limit >= 1e6 => (limit / 1e6, "s"),
                    limit if limit >= 1e3 => (limit / 1e3, "ms"),
                    limit => (limit, "us"),
                };
                format!("{}{unit}", micro(value))
            }
            Unit::Size => units::show_bytes(whole(limit)),
            Unit::Number => format!("{limit}"),
        }
    }

    /// A limit in the document's unit.
    fn read(&self, text: &str) -> Result<f64, String> {
        let (read, expected) = match self.unit {
            Unit::Time => (
                units::duration(text).map(|limit| limit.as_secs_f64() * 1e6),
                DURATION_EXPECTED,
            ),
            Unit::Size => (units::bytes(text).map(float), SIZE_EXPECTED),
            Unit::Number => (
                decimal(text).or_else(|| units::count(text).map(float)),
                "a number without a unit, k and M allowed, like 0.1 or 500k",
            ),
        };
        read.ok_or_else(|| format!("`{text}` is no limit of {}; expected {expected}", self.name))
    }
}

/// A number in plain digits: `nan`, `inf` and `1e3` are slips here.
fn decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let plain = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

impl Relation {
    /// With the two-letter ones first: `<=` begins with `<`.
    const ALL: [(&'static str, Relation); 5] = [
        ("<=", Relation::AtMost),
        (">=", Relation::AtLeast),
        ("<", Relation::Under),
        (">", Relation::Over),
        ("=", Relation::Exactly),
    ];

    /// Whether `value` lies so to `limit`.
    pub fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Relation::Under => value < limit,
            Relation::AtMost => value <= limit,
            Relation::Over => value > limit,
            Relation::AtLeast => value >= limit,
            // Both have passed through the same decimal text; nothing was computed in between.
            Relation::Exactly => (value - limit).abs() < f64::EPSILON,
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Relation::ALL.iter().find(|(_, relation)| relation == self);
        f.write_str(found.map_or("", |(text, _)| text))
    }
}

impl Threshold {
    /// Reads one; the error is a whole sentence that says what was expected.
    ///
    /// ```
    /// use ringpost_bench::threshold::{Relation, Threshold};
    /// let threshold = Threshold::parse("p99.9 < 2ms")?;
    /// assert_eq!((threshold.figure.name, threshold.limit), ("p99.9", 2_000.0));
    /// assert_eq!(threshold.relation, Relation::Under);
    /// assert!(Threshold::parse("p99.9 < 2").is_err());
    /// # Ok::<(), String>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, String> {
        let at = text.find(['<', '>', '=']);
        let (figure, rest) = at
            .map(|at| text.split_at(at))
            .ok_or_else(|| format!("`{text}` has no limit; expected {EXPECTED}"))?;
        let (relation, limit) = Relation::ALL
            .iter()
            .find_map(|(sign, relation)| Some((*relation, rest.strip_prefix(sign)?.trim())))
            .ok_or_else(|| format!("`{text}` is no threshold; expected {EXPECTED}"))?;
        let figure = figure.trim();
        let (vs_baseline, figure) = match figure.strip_prefix("vs_baseline") {
            Some(figure) if figure.starts_with(char::is_whitespace) => (true, figure.trim()),
            _ => (false, figure),
        };
        if figure.is_empty() {
            return Err(format!("`{text}` names no figure; expected {EXPECTED}"));
        }
        let figure = Figure::find(figure)?;
        let limit = match (vs_baseline, limit.strip_suffix('%')) {
            (true, Some(percent)) => decimal(percent.trim())
                .ok_or_else(|| format!("`{limit}` is no change; expected percent, like -3%"))?,
            (true, None) => {
                return Err(format!(
                    "`{limit}` is no change against a baseline; expected percent, like -3%"
                ));
            }
            (false, Some(_)) => {
                return Err(format!(
                    "`{limit}` is a share of something: percent go with `vs_baseline`"
                ));
            }
            (false, None) => figure.read(limit)?,
        };
        Ok(Self {
            figure,
            relation,
            limit,
            vs_baseline,
        })
    }

    /// Whether an earlier threshold has no more to say once there is this one: both bound the same
    /// figure from the same side.
    pub fn replaces(&self, earlier: &Threshold) -> bool {
        let side = |threshold: &Threshold| match threshold.relation {
            Relation::Under | Relation::AtMost => 0,
            Relation::Over | Relation::AtLeast => 1,
            Relation::Exactly => 2,
        };
        self.figure.name == earlier.figure.name
            && self.vs_baseline == earlier.vs_baseline
            && side(self) == side(earlier)
    }

    /// Judges a result, with another one as its baseline if there is one.
    pub fn judge(&self, result: &Document, baseline: Option<&Document>) -> Judged {
        let Some(value) = (self.figure.of)(result) else {
            return match is_beyond_reach(self.figure, result) {
                true => Judged::NotApplicable("not applicable: brokers elsewhere do not tell"),
                false => Judged::Unknown("the result does not have this figure"),
            };
        };
        let value = if self.vs_baseline {
            let Some(baseline) = baseline else {
                return Judged::Unknown("there is no baseline to compare with");
            };
            let Some(before) = (self.figure.of)(baseline) else {
                return Judged::Unknown("the baseline does not have this figure");
            };
            change_percent(before, value)
        } else {
            value
        };
        if self.relation.holds(value, self.limit) {
            Judged::Holds(value)
        } else {
            Judged::Fails(value)
        }
    }

    /// A judged value for reading.
    pub fn show(&self, value: f64) -> String {
        if self.vs_baseline {
            format!("{value:+.2}%")
        } else {
            self.figure.show(value)
        }
    }
}

/// A line for each threshold: what was demanded, what was measured, whether it holds.
pub fn told(thresholds: &[Threshold], result: &Document, baseline: Option<&Document>) -> String {
    thresholds
        .iter()
        .map(|threshold| match threshold.judge(result, baseline) {
            Judged::Holds(value) => format!("holds  {threshold}: {}\n", threshold.show(value)),
            Judged::Fails(value) => format!("FAILS  {threshold}: {}\n", threshold.show(value)),
            Judged::Unknown(why) => format!("?      {threshold}: {why}\n"),
            Judged::NotApplicable(why) => format!("-      {threshold}: {why}\n"),
        })
        .collect()
}

/// From 0 to 0 nothing has changed; from 0 to anything else it has without bound.
fn change_percent(before: f64, value: f64) -> f64 {
    if (value - before).abs() < f64::EPSILON {
        0.0
    } else {
        (value - before) / before * 100.0
    }
}

/// As it is written in a scenario; [`Threshold::parse`] reads it again.
impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.vs_baseline {
            let (figure, limit) = (self.figure.name, self.limit);
            write!(f, "vs_baseline {figure} {} {limit}%", self.relation)
        } else {
            let limit = self.figure.written(self.limit);
            write!(f, "{} {} {limit}", self.figure.name, self.relation)
        }
    }
}

/// Two thresholds are the same when they are written the same.
impl PartialEq for Threshold {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (text, written) in [
            ("p99.9 < 2ms", "p99.9 < 2ms"),
            ("response p99_9<2000us", "p99.9 < 2ms"),
            ("service  p99.99 <= 0.5ms", "service p99.99 <= 500us"),
            ("max < 90s", "max < 90s"),
            ("p50 < 1.234567ms", "p50 < 1.234567ms"),
            (
                "append_to_seal mean >= 500us",
                "append_to_seal mean >= 500us",
            ),
            ("throughput p1 > 500k", "throughput p1 > 500000"),
            ("cpu_us_per_record < 0.1", "cpu_us_per_record < 0.1"),
            ("peak_rss_bytes < 64MiB", "peak_rss_bytes < 64MiB"),
            ("duplicated = 0", "duplicated = 0"),
            (
                "vs_baseline records_per_s > -3%",
                "vs_baseline records_per_s > -3%",
            ),
            ("vs_baseline p99 < +12.5 %", "vs_baseline p99 < 12.5%"),
        ] {
            let threshold = Threshold::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(threshold.to_string(), written);
            assert_eq!(Threshold::parse(written).as_ref(), Ok(&threshold));
        }
    }

    #[test]
    fn refusals_say_what_was_expected() {
        for (text, said) in [
            ("", "has no limit; expected a figure"),
            ("p99.9", "has no limit"),
            ("< 2ms", "names no figure"),
            ("vs_baseline < 2%", "there is no figure `vs_baseline`"),
            ("p99.9 < 2", "expected a duration with its unit"),
            ("p99.9 <", "expected a duration with its unit"),
            ("p98 < 2ms", "did you mean `p90`"),
            ("servise p99 < 2ms", "did you mean `service p99`"),
            ("cpu_per_record < 1", "did you mean `cpu_us_per_record`"),
            ("cpu_us_per_record < 1us", "a number without a unit"),
            ("records_per_s > inf", "a number without a unit"),
            ("peak_rss_bytes < 1000", "expected a size with its unit"),
            ("vs_baseline p99 < 2ms", "expected percent"),
            ("vs_baseline p99 < %", "expected percent"),
            ("p99 < 3%", "go with `vs_baseline`"),
        ] {
            let error = Threshold::parse(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_threshold_replaces_one_of_the_same_side() {
        let replaces = |new, old| {
            let [new, old] = [new, old].map(|text| Threshold::parse(text).expect(text));
            new.replaces(&old)
        };
        assert!(replaces("p99 < 5ms", "p99 <= 2ms"));
        assert!(!replaces("p99 > 5ms", "p99 < 2ms"));
        assert!(!replaces("p99 < 5ms", "service p99 < 2ms"));
        assert!(!replaces("vs_baseline p99 < 5%", "p99 < 2ms"));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = figures().map(|figure| figure.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn changes_are_of_the_baseline() {
        assert!((change_percent(200.0, 190.0) + 5.0).abs() < 1e-9);
        assert!((change_percent(0.0, 0.0)).abs() < 1e-9);
        assert_eq!(change_percent(0.0, 1.0), f64::INFINITY);
        assert!(Relation::Over.holds(-2.9, -3.0));
        assert!(!Relation::Over.holds(-3.0, -3.0) && Relation::AtLeast.holds(-3.0, -3.0));
    }
}
