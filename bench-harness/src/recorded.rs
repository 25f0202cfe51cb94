//! A results folder, read again: what `compare`, `report`, `gate` and `merge` start from. Written by
//! [`report::folder`](crate::report::folder), which says what is in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use crate::exit::Failure;
use crate::histogram::{Sparse, latencies, rates};
use crate::report::document::{Document, IntervalFigures, RunJson, SCHEMA};

/// A run that was kept.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Where it lies.
    pub folder: PathBuf,
    /// What to call it in tables and legends: the folder's name.
    pub name: String,
    /// The figures.
    pub document: Document,
    /// The series.
    pub series: Vec<IntervalFigures>,
    /// Intended send → ack, ns; empty where the client cannot tell.
    pub response: Log,
    /// Actual send → ack, ns.
    pub service: Log,
    /// Records/s over 10 ms.
    pub throughput: Log,
}

/// An interval log: a histogram an interval.
#[derive(Clone, Debug)]
pub struct Log {
    /// When the window opened, since 1970, to the millisecond; `None` in a log that does not say.
    pub started: Option<Duration>,
    /// The log's intervals, in the order of the file; those without a value are not in it.
    pub intervals: Vec<LogInterval>,
    /// All of them added.
    pub total: Histogram<u64>,
}

/// One line of an interval log.
#[derive(Clone, Debug)]
pub struct LogInterval {
    /// From the window's start.
    pub start: Duration,
    /// How long.
    pub length: Duration,
    /// What was recorded in it. Sparse: dense, those of a ten-minute run would fill 300 MB.
    pub histogram: Sparse,
}

impl Recorded {
    /// Reads `folder`; the error names the file and what is wrong with it.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("run.json");
        let text = fs::read(&path).map_err(|error| {
            Failure::config(format!(
                "{}: {error}; expected a results folder, as `run --out DIR` writes it",
                path.display()
            ))
        })?;
        let document =
            parse(&text).map_err(|what| Failure::config(format!("{}: {what}", path.display())))?;
        Ok(Self {
            folder: folder.to_owned(),
            name: name(folder),
            document: document.document,
            series: document.intervals,
            response: Log::open(&folder.join("response.hlog"), latencies())?,
            service: Log::open(&folder.join("service.hlog"), latencies())?,
            throughput: Log::open(&folder.join("throughput.hlog"), rates())?,
        })
    }
}

/// What to call the results in `folder`.
pub(crate) fn name(folder: &Path) -> String {
    let whole = folder.canonicalize().ok();
    let last = whole.as_deref().and_then(Path::file_name);
    last.map_or_else(
        || folder.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// The document of a run, with its series; refused when it is of another schema.
pub fn parse(text: &[u8]) -> Result<RunJson, String> {
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
    match value.get("schema").and_then(serde_json::Value::as_str) {
        Some(SCHEMA) => {}
        Some(other) => {
            return Err(format!(
                "its schema is `{other}`; this program reads `{SCHEMA}`"
            ));
        }
        None => return Err(format!("it has no `schema`; expected `{SCHEMA}`")),
    }
    serde_json::from_value(value).map_err(|error| format!("not a run of this program: {error}"))
}

impl Log {
    /// Reads an interval log into histograms with the bounds of `empty`.
    pub fn open(path: &Path, empty: Histogram<u64>) -> Result<Self, Failure> {
        let refused = |what: String| Failure::config(format!("{}: {what}", path.display()));
        let text = fs::read(path).map_err(|error| refused(error.to_string()))?;
        Self::parse(&text, empty).map_err(refused)
    }

    /// The log in `text`.
    pub fn parse(text: &[u8], empty: Histogram<u64>) -> Result<Self, String> {
        let mut started = None;
        let mut intervals = Vec::new();
        let mut total = empty;
        let mut reader = Deserializer::new();
        for entry in IntervalLogIterator::new(text) {
            let entry = entry.map_err(|error| format!("not an interval log: {error:?}"))?;
            let line = match entry {
                LogEntry::Interval(line) => line,
                LogEntry::StartTime(time) => {
                    started = Some(time);
                    continue;
                }
                LogEntry::BaseTime(_) => continue,
            };
            let start = line.start_timestamp();
            let broken = |what: String| {
                format!(
                    "the interval at {:.3} s is broken: {what}",
                    start.as_secs_f64()
                )
            };
            let bytes = base64::Engine::decode(
                &base64::engine::general_purpose::STANDARD,
                line.encoded_histogram(),
            )
            .map_err(|error| broken(error.to_string()))?;
            let histogram: Histogram<u64> = reader
                .deserialize(&mut bytes.as_slice())
                .map_err(|error| broken(error.to_string()))?;
            total
                .add(&histogram)
                .map_err(|error| broken(error.to_string()))?;
            intervals.push(LogInterval {
                start,
                length: line.duration(),
                histogram: Sparse::of(&histogram),
            });
        }
        Ok(Self {
            started,
            intervals,
            total,
        })
    }
}
