//! `compare`: is one result faster than another, and how sure is that? A ratio of two runs alone says
//! nothing: this host's neighbours make twins differ by a few percent. So figures are compared pair by
//! pair, and what the pairs disagree about is the noise.
//!
//! ```text
//! D/none/rounds/1 … n ┐ pairs: round i of both, taken in turns by `sweep`   (independent: the best)
//! D/lz4/rounds/1 … n  ┘
//! a/ and b/ alone       pairs: their intervals, about a second each         (noise within a run only)
//! ```
//!
//! | figure | what is estimated |
//! |---|---|
//! | `records_per_s`, `cpu_us_per_record` | the mean of the pairs' log-ratios |
//! | `p50` … `p99.9` of response and service, rounds | the mean of the pairs' log-ratios of that quantile |
//! | the same, intervals | the log-ratio of the quantiles of all intervals' histograms, added |
//!
//! Each with the interval that [`bootstrap`] finds for it: *faster* or *slower* when the 95 % interval
//! leaves out "no difference", else *within noise*. The verdict over all rests on rate, CPU, p50 and p99
//! with intervals as much wider as four chances to be wrong ask for (Bonferroni).
//!
//! A cell whose sweep is not finished has no results of its own yet: they are made here of the rounds
//! that are there.
//!
//! Results of different work are refused; different surroundings are warned about
//! ([`likeness`](crate::likeness)).

pub mod bootstrap;
mod judge;
pub mod markdown;
mod pair;
pub mod quantiles;
pub mod student;
pub mod text;

use std::path::Path;

use serde::Serialize;

use crate::exit::Failure;
use crate::likeness::{Difference, Role, differences, lines};
use crate::merge::merge;
use crate::number::{float, milli};
use crate::recorded::{self, Recorded};
use crate::report::document::Document;
use crate::sweep::layout;
use crate::sweep::state::State;
use bootstrap::PAIRS_MIN;
use pair::Paired;

/// The document's kind and version.
pub const SCHEMA: &str = "ringpost-bench/compare/1";
/// One of the compared results, with its rounds if it has any.
#[derive(Clone, Debug)]
pub struct Side {
    /// All of it.
    pub whole: Recorded,
    /// Its rounds, by their number.
    pub rounds: Vec<(usize, Recorded)>,
    /// For a cell whose sweep has not run all rounds yet: what is there.
    pub unfinished: Option<String>,
}

/// What a comparison found; `--format json` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Kind and version.
    pub schema: &'static str,
    /// The results; the others are compared with the first.
    pub results: Vec<Shown>,
    /// In what they differ.
    pub differences: Vec<Difference>,
    /// What casts doubt on all of it.
    pub warnings: Vec<String>,
    /// Each of the others against the first.
    pub comparisons: Vec<Against>,
}

/// One result as it is shown beside the others.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// What it is called.
    pub name: String,
    /// Where it lies.
    pub folder: String,
    /// Counters, to explain the figures with.
    pub counters: Vec<Counter>,
    /// Response times by percentile; service times where no result knows response times.
    pub curve: Vec<Point>,
}

/// A counter of one result.
#[derive(Clone, Debug, Serialize)]
pub struct Counter {
    /// Its field in the run's document.
    pub name: &'static str,
    /// `None` when nobody knows.
    pub value: Option<f64>,
}

/// A point of a percentile curve.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// In percent.
    pub percentile: f64,
    /// In µs.
    pub us: f64,
}

/// One result against the first.
#[derive(Clone, Debug, Serialize)]
pub struct Against {
    /// The first.
    pub baseline: String,
    /// The other.
    pub result: String,
    /// What was paired.
    pub unit: Unit,
    /// How many pairs.
    pub pairs: usize,
    /// How many independent pairs these are worth.
    pub independent_pairs: usize,
    /// Whether that is enough to rely on.
    pub reliable: bool,
    /// What to keep in mind.
    pub notes: Vec<String>,
    /// Figure by figure.
    pub figures: Vec<Compared>,
    /// All in all.
    pub verdict: Verdict,
}

/// What a pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A round of each.
    Rounds,
    /// An interval of each.
    Intervals,
}

/// One figure of both.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// `records_per_s`, `response p99`, …
    pub name: String,
    /// Of the baseline.
    pub baseline: f64,
    /// Of the other.
    pub result: f64,
    /// The other's over the baseline's.
    pub ratio: f64,
    /// The interval that holds the true ratio in 95 of 100 cases; `None` when there is only one pair.
    pub interval: Option<[f64; 2]>,
    /// What that means.
    pub verdict: Verdict,
    /// Whether the verdict over all rests on it, among others.
    pub decides: bool,
    /// The verdict with an interval that allows for several figures to be lucky.
    #[serde(skip)]
    strict: Verdict,
}

/// Faster or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Faster than the baseline, or cheaper.
    Faster,
    /// Slower, or dearer.
    Slower,
    /// Not told apart.
    #[serde(rename = "within noise")]
    Noise,
    /// Faster in some figures, slower in others.
    Mixed,
    /// A single pair: nobody knows what the noise is.
    Unknown,
}

impl Verdict {
    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Faster => "faster",
            Verdict::Slower => "slower",
            Verdict::Noise => "within noise",
            Verdict::Mixed => "mixed",
            Verdict::Unknown => "not known",
        }
    }
}

impl Side {
    /// Reads a results folder, and its rounds.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let listed = layout::rounds(folder)
            .map_err(|error| Failure::config(format!("{}: {error}", folder.display())))?;
        let mut rounds = Vec::new();
        for (number, round) in listed {
            // One that a sweep has not got to, or that failed, has none.
            if round.join("run.json").is_file() {
                rounds.push((number, Recorded::open(&round)?));
            }
        }
        // The cell's own results are made once all rounds are there; until then those that are done
        // are put together here.
        let finished = folder.join("run.json").is_file();
        if !finished {
            // One that broke off is run again when the sweep goes on.
            rounds.retain(|(_, round): &(usize, Recorded)| {
                !round.document.interrupted && round.document.failure.is_none()
            });
        }
        if finished || rounds.is_empty() {
            return Ok(Self {
                whole: Recorded::open(folder)?,
                rounds,
                unfinished: None,
            });
        }
        let done: Vec<Recorded> = rounds.iter().map(|(_, round)| round.clone()).collect();
        let planned = rounds_planned(folder);
        let of = planned.map_or(String::new(), |planned| format!(" of {planned}"));
        let unfinished = format!(
            "{}{of} rounds are there, its sweep is not finished",
            done.len()
        );
        let merged = merge(&done, false)?;
        Ok(Self {
            whole: Recorded {
                folder: folder.to_owned(),
                name: recorded::name(folder),
                ..merged
            },
            rounds,
            unfinished: Some(unfinished),
        })
    }
}

/// How many rounds the sweep that a cell belongs to has, as far as it says.
fn rounds_planned(cell: &Path) -> Option<usize> {
    let whole = cell.canonicalize().ok()?;
    let sweep = State::read(whole.parent()?).ok()??;
    Some(sweep.rounds)
}

/// Compares the others with the first. Different work is refused unless `force`.
pub fn compare(sides: &[Side], force: bool) -> Result<Comparison, Failure> {
    let [first, others @ ..] = sides else {
        return Err(Failure::config("there is nothing to compare"));
    };
    let documents: Vec<&Document> = sides.iter().map(|side| &side.whole.document).collect();
    let differences = differences(&documents);
    let other_work = lines(&differences, Role::Workload);
    if !other_work.is_empty() && !force {
        return Err(Failure::config(format!(
            "these results are of different work; --force compares them all the same\n{other_work}"
        )));
    }
    let names = names(sides);
    let comparisons = others
        .iter()
        .zip(&names[1..])
        .map(|(other, name)| against(first, other, &names[0], name))
        .collect();
    let by_response = sides
        .iter()
        .all(|side| !side.whole.response.total.is_empty());
    Ok(Comparison {
        schema: SCHEMA,
        results: sides
            .iter()
            .zip(&names)
            .map(|(side, name)| shown(side, name, by_response))
            .collect(),
        warnings: warnings(sides, &names, &differences),
        differences,
        comparisons,
    })
}

/// What the results are called: their folders' names, or whole paths when those are not unique.
fn names(sides: &[Side]) -> Vec<String> {
    let name = |side: &Side| side.whole.name.clone();
    let short: Vec<String> = sides.iter().map(name).collect();
    let unique = (1..short.len()).all(|i| !short[..i].contains(&short[i]));
    if unique {
        return short;
    }
    sides
        .iter()
        .map(|side| side.whole.folder.display().to_string())
        .collect()
}

fn warnings(sides: &[Side], names: &[String], differences: &[Difference]) -> Vec<String> {
    let mut all = Vec::new();
    for (role, what) in [
        (Role::Workload, "different work"),
        (Role::Surroundings, "different surroundings"),
    ] {
        let of_role = differences
            .iter()
            .filter(|difference| difference.role == role);
        all.extend(of_role.map(|difference| format!("{what}: {difference}")));
    }
    for (side, name) in sides.iter().zip(names) {
        let document = &side.whole.document;
        if let Some(unfinished) = &side.unfinished {
            all.push(format!("{name}: {unfinished}"));
        }
        if !document.good {
            all.push(format!("{name}: not every record ended as it should"));
        }
        if document.interrupted {
            all.push(format!("{name}: interrupted"));
        }
        if document.environment.build.contains("debug") {
            all.push(format!("{name}: a debug build, its figures mean nothing"));
        }
    }
    all
}

fn against(baseline: &Side, result: &Side, baseline_name: &str, name: &str) -> Against {
    let mut paired = Paired::of(baseline, result);
    let draws: Vec<Vec<u32>> = paired.pairs.draws().collect();
    let ours = &baseline.whole.document;
    let closed = ours
        .config
        .get("rate")
        .is_none_or(|rate| rate.as_str() == Some("max"));
    let figures = judge::figures(&paired, &draws, closed);
    let reliable = paired.pairs.are_many();
    if !reliable {
        let (pairs, independent) = (paired.pairs.count, paired.pairs.independent());
        let worth = match independent < pairs {
            true => format!(" (worth {independent}: neighbours resemble each other)"),
            false => String::new(),
        };
        let note = format!(
            "pairs: {pairs}{worth}. The intervals are wide and not to be relied on: \
             {PAIRS_MIN} are the least, 10 are good"
        );
        paired.notes.insert(0, note);
    }
    Against {
        baseline: baseline_name.into(),
        result: name.into(),
        unit: paired.unit,
        pairs: paired.pairs.count,
        independent_pairs: paired.pairs.independent(),
        reliable,
        notes: paired.notes,
        verdict: judge::overall(&figures),
        figures,
    }
}

// ---- what is shown beside them ----------------------------------------------------------------

/// Percentiles of a curve.
const CURVE: [f64; 12] = [
    1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99, 99.999,
];

fn shown(side: &Side, name: &str, by_response: bool) -> Shown {
    let times = match by_response {
        true => &side.whole.response.total,
        false => &side.whole.service.total,
    };
    let known = |percentile: &f64| float(times.len()) * (100.0 - percentile) >= 100.0;
    let curve = CURVE
        .iter()
        .filter(|percentile| known(percentile))
        .map(|percentile| Point {
            percentile: *percentile,
            us: milli(float(times.value_at_quantile(percentile / 100.0)) / 1e3),
        });
    let last = (!times.is_empty()).then(|| Point {
        percentile: 100.0,
        us: milli(float(times.max()) / 1e3),
    });
    Shown {
        name: name.into(),
        folder: side.whole.folder.display().to_string(),
        counters: COUNTERS
            .iter()
            .map(|(name, of)| Counter {
                name,
                value: of(&side.whole.document),
            })
            .collect(),
        curve: curve.chain(last).collect(),
    }
}

type Field = (&'static str, fn(&Document) -> Option<f64>);

static COUNTERS: &[Field] = &[
    ("records_per_s", |d| Some(d.records_per_s)),
    ("mib_per_s", |d| Some(d.mib_per_s)),
    ("cpu_us_per_record", |d| d.cpu_us_per_record),
    ("broker_cpu_s", |d| d.broker_cpu_s),
    ("machine_busy_cpus", |d| d.machine_busy_cpus),
    ("records_per_batch", |d| d.records_per_batch),
    ("batches_per_request", |d| d.batches_per_request),
    ("requests", |d| d.requests.map(float)),
    ("retries", |d| d.retries.map(float)),
    ("kernel_entries_per_request", |d| {
        d.kernel_entries_per_request
    }),
    ("allocations_per_record", |d| d.allocations_per_record),
    ("full_waits", |d| Some(float(d.full_waits))),
    ("voluntary_switches", |d| Some(float(d.voluntary_switches))),
    ("peak_rss_bytes", |d| Some(float(d.peak_rss_bytes))),
    ("steal_percent", |d| d.environment.steal_percent),
];
