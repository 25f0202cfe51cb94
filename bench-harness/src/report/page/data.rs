//! What a page knows of its runs: as little as the pictures need, so that twenty runs stay far below
//! a megabyte however long they were.
//!
//! | | of a run | bound |
//! |---|---|---|
//! | percentiles | latency at each place of [`Data::x`] below the number of records | 20 a decade |
//! | throughput | a histogram with bins of 1 % | 2,300 from 1 to 10 billion records/s |
//! | series | neighbours merged, histogram with histogram | `SERIES_MAX` points |

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;

use crate::histogram::latencies;
use crate::number::{float, milli, ratio, whole};
use crate::recorded::{Log, Recorded};

/// How much wider each bin of a run's throughput reaches than the one before. The page draws broader
/// ones, on axes that fit the runs shown.
const RATE_STEP: f64 = 1.01;
/// Points in time of a run.
const SERIES_MAX: usize = 120;
/// Where percentiles are looked up within a decade of 1/(1−p): even steps on a logarithmic axis, but
/// for 2, 4 and 5, so that p50, p75, p80, p95 and p99.5 are among them.
const STEPS: [f64; 20] = [
    1.0, 1.122, 1.259, 1.413, 1.585, 1.778, 2.0, 2.239, 2.512, 2.818, 3.162, 3.548, 4.0, 4.467,
    5.0, 5.623, 6.31, 7.079, 7.943, 8.913,
];
/// Up to p99.99999999: more records than a run has.
const DECADES: i32 = 10;

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Data {
    /// The program that wrote it.
    pub version: &'static str,
    /// 1/(1−p) of every point of a percentile curve.
    pub x: Vec<f64>,
    /// In the order of the legend.
    pub runs: Vec<Run>,
    /// Settings: a row a key, a value a run.
    pub settings: Vec<Row>,
    /// What a result depends on besides them.
    pub environment: Vec<Row>,
    /// Every number of the documents.
    pub figures: Vec<Row>,
}

/// A line of a table with a column a run.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name in the document.
    pub key: String,
    /// A value for each run; `null` where the run does not know.
    pub values: Vec<Value>,
}

/// A run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    /// In the legend.
    pub name: String,
    /// When the window opened, UTC.
    pub started: String,
    /// The command line.
    pub command: String,
    /// Whether every record ended as it should.
    pub good: bool,
    /// What else is to be said of its standing: interrupted, failed, records lost.
    pub remarks: Vec<String>,
    /// Intended send → ack.
    pub response: Option<Curve>,
    /// Actual send → ack.
    pub service: Option<Curve>,
    /// Records/s over 10 ms.
    pub rates: Option<Rates>,
    /// Over time.
    pub series: Series,
    #[serde(skip)]
    pub(super) settings: BTreeMap<String, Value>,
    #[serde(skip)]
    pub(super) environment: BTreeMap<String, Value>,
    #[serde(skip)]
    pub(super) figures: BTreeMap<String, Value>,
}

/// A distribution of latencies.
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    /// Records in it.
    pub records: u64,
    /// Nanoseconds at each place of [`Data::x`] that is at most the number of records.
    pub ns: Vec<u64>,
    /// The slowest.
    pub max_ns: u64,
}

/// A distribution of rates: bins of 1 %, but the first, which is for less than one record a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Which bins are not empty: 0, or n for the rates from 1.01ⁿ⁻¹ to 1.01ⁿ.
    pub bins: Vec<u64>,
    /// Intervals in each of them.
    pub counts: Vec<u64>,
}

/// Columns; an entry a point in time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Series {
    /// From the window's start.
    pub start_s: Vec<f64>,
    /// How long.
    pub length_s: Vec<f64>,
    /// Records/s.
    pub rate: Vec<f64>,
    /// Intended send → ack.
    pub response: Bands,
    /// Actual send → ack.
    pub service: Bands,
}

/// Latencies over time, ns; `null` where nothing was acked.
#[derive(Clone, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the names are the percentiles")]
pub struct Bands {
    pub p50: Vec<Option<u64>>,
    pub p99: Vec<Option<u64>>,
    pub p99_9: Vec<Option<u64>>,
}

impl Data {
    /// Of these runs.
    pub fn of(runs: Vec<Run>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            x: places(),
            settings: rows(&runs, |run| &run.settings),
            environment: rows(&runs, |run| &run.environment),
            figures: rows(&runs, |run| &run.figures),
            runs,
        }
    }
}

fn places() -> Vec<f64> {
    let decades = (0..DECADES).map(|decade| 10f64.powi(decade));
    decades
        .flat_map(|decade| STEPS.map(|step| milli(step * decade)))
        .collect()
}

/// A row for every key that a run has.
fn rows(runs: &[Run], of: impl Fn(&Run) -> &BTreeMap<String, Value>) -> Vec<Row> {
    let mut keys: Vec<&String> = runs.iter().flat_map(|run| of(run).keys()).collect();
    keys.sort();
    keys.dedup();
    let row = |key: &String| Row {
        key: key.clone(),
        values: runs
            .iter()
            .map(|run| of(run).get(key).cloned().unwrap_or(Value::Null))
            .collect(),
    };
    keys.into_iter().map(row).collect()
}

impl Run {
    /// Of a results folder, shown as `name`.
    pub fn of(name: &str, recorded: &Recorded) -> Self {
        let document = &recorded.document;
        let mut remarks = Vec::new();
        if document.interrupted {
            remarks.push("interrupted".to_owned());
        }
        remarks.extend(document.failure.clone());
        for failures in &document.failures {
            remarks.push(format!("{} records: {}", failures.records, failures.why));
        }
        if let Some(verified) = document.verified {
            for (records, what) in [
                (verified.lost, "lost"),
                (verified.duplicated, "duplicated"),
                (verified.reordered, "reordered"),
                (verified.corrupt, "corrupt"),
            ] {
                if records > 0 {
                    remarks.push(format!("{records} records {what}"));
                }
            }
        }
        let (settings, environment, figures) = tables(recorded);
        Self {
            name: name.to_owned(),
            started: document.started.clone(),
            command: document.command.join(" "),
            good: document.good,
            remarks,
            response: Curve::of(&recorded.response.total),
            service: Curve::of(&recorded.service.total),
            rates: Rates::of(&recorded.throughput.total),
            series: Series::of(recorded),
            settings,
            environment,
            figures,
        }
    }
}

type Table = BTreeMap<String, Value>;

/// Settings, environment and figures of a run, each flat.
fn tables(recorded: &Recorded) -> (Table, Table, Table) {
    let (mut settings, mut environment, mut figures) = <(Table, Table, Table)>::default();
    let document = match serde_json::to_value(&recorded.document) {
        Ok(Value::Object(document)) => document,
        _ => serde_json::Map::new(),
    };
    for (key, value) in document {
        match key.as_str() {
            // Where the results went says nothing about the run.
            "config" => flatten("", value, &mut settings, &["format", "out"]),
            // Measured on the spot, so never twice the same: figures.
            "environment" if value.get("unit_costs").is_some() => {
                let costs = value.get("unit_costs").cloned().unwrap_or_default();
                flatten("unit_costs", costs, &mut figures, &[]);
                flatten("", value, &mut environment, &["unit_costs"]);
            }
            "environment" => flatten("", value, &mut environment, &[]),
            "version" | "driver" | "driver_reason" | "placement" | "shards" | "differs" => {
                flatten(&key, value, &mut environment, &[]);
            }
            "schema" | "command" | "started" | "engine" | "good" | "interrupted" | "failure"
            | "failures" => {}
            _ => flatten(&key, value, &mut figures, &[]),
        }
    }
    // A figure is a number, or not known.
    figures.retain(|_, value| value.is_number() || value.is_null());
    (settings, environment, figures)
}

/// Puts the leaves of `value` into `table`, under their paths with dots.
fn flatten(path: &str, value: Value, table: &mut Table, except: &[&str]) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if except.contains(&key.as_str()) {
                    continue;
                }
                let path = match path {
                    "" => key,
                    path => format!("{path}.{key}"),
                };
                flatten(&path, value, table, &[]);
            }
        }
        // Findings of `doctor`: a line each, under its name.
        Value::Array(items) if !items.is_empty() && items.iter().all(is_finding) => {
            for item in items {
                let text = |key| item.get(key).and_then(Value::as_str).unwrap_or_default();
                let verdict = match text("verdict") {
                    "good" | "" => String::new(),
                    verdict => format!(" ({verdict})"),
                };
                let value = Value::String(format!("{}{verdict}", text("value")));
                table.insert(format!("{path}.{}", text("name")), value);
            }
        }
        Value::Array(items) => {
            let texts: Vec<String> = items
                .into_iter()
                .map(|item| match item {
                    Value::String(text) => text,
                    other => other.to_string(),
                })
                .collect();
            table.insert(path.to_owned(), Value::String(texts.join("; ")));
        }
        leaf => {
            table.insert(path.to_owned(), leaf);
        }
    }
}

fn is_finding(item: &Value) -> bool {
    ["name", "value"]
        .iter()
        .all(|key| item.get(key).is_some_and(Value::is_string))
}

impl Curve {
    pub(super) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let records = histogram.len();
        let places = places();
        let ns = places
            .iter()
            .take_while(|x| **x <= float(records))
            .map(|x| histogram.value_at_quantile(1.0 - 1.0 / x));
        (records > 0).then(|| Self {
            records,
            ns: ns.collect(),
            max_ns: histogram.max(),
        })
    }
}

impl Rates {
    pub(super) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let mut bins = BTreeMap::<u64, u64>::new();
        for bucket in histogram.iter_recorded() {
            let bin = match bucket.value_iterated_to() {
                0 => 0,
                rate => whole((float(rate).ln() / RATE_STEP.ln()).floor()) + 1,
            };
            *bins.entry(bin).or_default() += bucket.count_at_value();
        }
        let (bins, counts) = bins.into_iter().unzip();
        (!histogram.is_empty()).then_some(Self { bins, counts })
    }
}

impl Series {
    fn of(recorded: &Recorded) -> Self {
        let mut series = Self::default();
        let group = recorded.series.len().div_ceil(SERIES_MAX).max(1);
        let mut spans = Vec::new();
        for points in recorded.series.chunks(group) {
            let start = points.first().map_or(0.0, |point| point.start_s);
            let end = points
                .last()
                .map_or(0.0, |point| point.start_s + point.length_s);
            let acked: u64 = points.iter().map(|point| point.acked_records).sum();
            let length: f64 = points.iter().map(|point| point.length_s).sum();
            spans.push((start, end));
            series.start_s.push(milli(start));
            series.length_s.push(milli(length));
            let rate = whole(ratio(float(acked), length));
            series.rate.push(float(rate));
        }
        series.response = Bands::of(&recorded.response, &spans);
        series.service = Bands::of(&recorded.service, &spans);
        series
    }
}

impl Bands {
    /// The percentiles of all that the log has between start and end of each span.
    fn of(log: &Log, spans: &[(f64, f64)]) -> Self {
        let mut bands = Self::default();
        let mut merged = latencies();
        for (start, end) in spans {
            merged.reset();
            for interval in &log.intervals {
                let middle = (interval.start + interval.length / 2).as_secs_f64();
                if (*start..*end).contains(&middle) {
                    interval.histogram.add_to(&mut merged);
                }
            }
            let at = |quantile| (!merged.is_empty()).then(|| merged.value_at_quantile(quantile));
            bands.p50.push(at(0.5));
            bands.p99.push(at(0.99));
            bands.p99_9.push(at(0.999));
        }
        bands
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::rates;

    #[test]
    fn a_curve_has_the_percentiles_people_ask_for_and_ends_at_the_last_record() {
        let mut histogram = latencies();
        for value in 1..=1_000u64 {
            histogram.record(value * 1_000).expect("in bounds");
        }
        let curve = Curve::of(&histogram).expect("recorded");
        let places = places();
        for (x, quantile) in [(2.0, 0.5), (10.0, 0.9), (100.0, 0.99), (1_000.0, 0.999)] {
            let place = places
                .iter()
                .position(|place| *place == x)
                .expect("on the axis");
            assert_eq!(
                curve.ns[place],
                histogram.value_at_quantile(quantile),
                "{x}"
            );
        }
        assert_eq!(curve.ns.len(), 61, "three decades and the last record");
        assert!(Curve::of(&latencies()).is_none());
    }

    #[test]
    fn every_interval_is_in_the_bin_of_its_rate() {
        let mut histogram = rates();
        for rate in [0, 1, 1_000_000, 1_000_500, 9_000_000] {
            histogram.record_n(rate, 3).expect("in bounds");
        }
        let rates = Rates::of(&histogram).expect("recorded");
        assert_eq!(rates.counts, [3, 3, 6, 3]);
        for (bin, rate) in rates.bins.iter().zip([0.0, 1.0, 1e6, 9e6]).skip(1) {
            let low = RATE_STEP.powf(float(*bin) - 1.0);
            assert!(
                (low * 0.999..low * RATE_STEP * 1.001).contains(&rate),
                "{bin} {rate}"
            );
        }
        assert!(Rates::of(&crate::histogram::rates()).is_none());
    }

    #[test]
    fn leaves_are_found_by_their_path() {
        let mut table = Table::new();
        let value = serde_json::json!({"a": {"b": 1, "c": null}, "d": ["x", 2], "out": "y"});
        flatten("", value, &mut table, &["out"]);
        let flat: Vec<_> = table.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(flat, ["a.b=1", "a.c=null", "d=\"x; 2\""]);
        let mut table = Table::new();
        let findings = serde_json::json!([
            {"name": "steal", "value": "7 %", "verdict": "bad", "effect": "all"},
            {"name": "thp", "value": "madvise", "verdict": "good", "effect": "none"},
        ]);
        flatten("findings", findings, &mut table, &[]);
        assert_eq!(table["findings.steal"], "7 % (bad)");
        assert_eq!(table["findings.thp"], "madvise");
    }
}
