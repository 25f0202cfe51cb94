//! `merge`: several results become one, without loss. Histograms are added, counts are added, and
//! every figure is computed anew from the sums; no percentile is ever averaged.
//!
//! Two kinds of results are merged, told apart by their windows (see [`timeline`]): clients of
//! several hosts that ran *at the same time*, and *rounds* of one configuration one after the other.
//! What the figures of a merge mean:
//!
//! | figure | in a merge |
//! |---|---|
//! | `elapsed_s` | the time during which at least one part measured: the span of parallel clients, the sum of rounds |
//! | `records_per_s`, `mib_per_s` | all records over that time |
//! | `cpu_us_per_record` | all CPU over all records |
//! | latencies, `response.hlog`, `service.hlog` | of all records together |
//! | `throughput`, `throughput.hlog` | 10 ms rates *of each client*: the rate of several clients in the same 10 ms cannot be had from histograms. Their sum is in `records_per_s` and in the series |
//! | `intervals` | by wall clock for parallel clients, whose clocks should agree; rounds follow each other without the pauses |
//! | stages | not known: results keep only their percentiles |
//! | `machine_busy_cpus` | the mean of each host over time, added up over hosts |
//! | `peak_rss_bytes` | of the largest part |
//!
//! A merge is a results folder like any other, with the parts listed in `merged`. Different work or
//! different configurations are refused, unless forced; a run that would be counted twice is refused
//! always.

pub mod timeline;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::rfc3339;
use crate::environment::Environment;
use crate::exit::Failure;
use crate::histogram::{Latency, Sparse, latencies, rates};
use crate::likeness::{Role, differences, lines};
use crate::number::{float, micro, milli, ratio, whole};
use crate::placement::Placement;
use crate::recorded::{Log, LogInterval, Recorded};
use crate::report::document::{
    Document, Failures, IntervalFigures, LatencyUs, SCHEMA, Totals, Verified, command, throughput,
};
use crate::report::folder;
use timeline::Timeline;

/// What a merged result was made of; `merged` in its document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Merged {
    /// How the parts lie in time.
    pub how: How,
    /// In what they differ, for those that had to be forced, and where they ran.
    pub differences: Vec<String>,
    /// The parts, in the order given.
    pub parts: Vec<Part>,
}

/// How merged results lie in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// At the same time: clients of one experiment.
    Parallel,
    /// One after the other: one experiment, repeated.
    Rounds,
    /// Rounds of several clients each.
    Both,
}

/// One of the merged results.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in the part's own document")]
pub struct Part {
    pub name: String,
    pub started: String,
    pub command: Vec<String>,
    pub elapsed_s: f64,
    /// Acked; sent, with `acks=0`.
    pub records: u64,
    pub records_per_s: f64,
    pub cpu_us_per_record: Option<f64>,
    pub environment: Environment,
    pub placement: Placement,
}

/// Merges `parts`. Without `force`, refuses parts that did different work or were configured
/// differently.
///
/// The result lies nowhere yet: [`write()`] keeps it.
pub fn merge(parts: &[Recorded], force: bool) -> Result<Recorded, Failure> {
    let Some(first) = parts.first() else {
        return Err(Failure::config("there is nothing to merge"));
    };
    let documents: Vec<&Document> = parts.iter().map(|part| &part.document).collect();
    let differences = differences(&documents);
    let refused = lines(&differences, Role::Workload) + &lines(&differences, Role::Configuration);
    if !refused.is_empty() && !force {
        return Err(Failure::config(format!(
            "these results are not of one experiment; --force merges them all the same\n{refused}"
        )));
    }
    if let Some(twice) = counted_twice(parts) {
        return Err(Failure::config(twice));
    }
    let timeline = Timeline::of(parts)?;
    let response = merged_log(parts, &timeline, latencies(), |part| &part.response);
    let service = merged_log(parts, &timeline, latencies(), |part| &part.service);
    let throughput_log = merged_log(parts, &timeline, rates(), |part| &part.throughput);
    let series = series(&timeline, [&response, &service, &throughput_log]);
    let stages = match parts {
        [single] => single.document.latency_us.stages,
        _ => None,
    };
    let document = Document {
        latency_us: LatencyUs {
            response: Latency::of(&response.total, 1.0),
            service: Latency::of(&service.total, 1.0),
            stages,
            floor: match parts {
                [single] => single.document.latency_us.floor,
                _ => None, // each part has its own
            },
        },
        throughput: throughput(&throughput_log.total),
        merged: Some(Merged {
            how: timeline.how,
            differences: differences.iter().map(ToString::to_string).collect(),
            parts: parts.iter().flat_map(as_parts).collect(),
        }),
        ..summed(&documents, &timeline)
    };
    Ok(Recorded {
        folder: PathBuf::new(),
        name: first.name.clone(),
        document,
        series,
        response,
        service,
        throughput: throughput_log,
    })
}

/// Writes a merge of `parts` as a results folder.
pub fn write(folder: &Path, merged: &Recorded, parts: &[Recorded]) -> io::Result<()> {
    folder::write_recorded(folder, merged, &scenario(parts), &readme(merged))
}

/// A part of the merge; those of a merge itself are what it was made of.
fn as_parts(part: &Recorded) -> Vec<Part> {
    let document = &part.document;
    if let Some(merged) = &document.merged {
        let mut parts = merged.parts.clone();
        for inner in &mut parts {
            inner.name = format!("{}/{}", part.name, inner.name);
        }
        return parts;
    }
    vec![Part {
        name: part.name.clone(),
        started: document.started.clone(),
        command: document.command.clone(),
        elapsed_s: document.elapsed_s,
        records: good(document),
        records_per_s: document.records_per_s,
        cpu_us_per_record: document.cpu_us_per_record,
        environment: document.environment.clone(),
        placement: document.placement.clone(),
    }]
}

/// Says which run is in two of `parts`: as the same folder, a copy of it, or inside a merge. Told by
/// what a merge keeps of its parts, for their folders may be gone or elsewhere by now.
fn counted_twice(parts: &[Recorded]) -> Option<String> {
    let mut seen: Vec<(Part, &Recorded)> = Vec::new();
    for part in parts {
        let own = as_parts(part);
        for run in &own {
            if let Some((_, other)) = seen.iter().find(|(known, _)| known.is_same_run(run)) {
                return Some(format!(
                    "{} and {} both hold the run that started at {}: it would be counted twice; \
                     leave one of them out",
                    other.folder.display(),
                    part.folder.display(),
                    run.started
                ));
            }
        }
        seen.extend(own.into_iter().map(|run| (run, part)));
    }
    None
}

impl Part {
    /// Whether both are the same run. Two clients of one command that start in the same second, on
    /// hosts of one name, still differ in when their windows close and what they cost.
    fn is_same_run(&self, other: &Part) -> bool {
        // In whole µs and ps: a fraction may change in its last digit when it is written and read.
        let elapsed_us = |part: &Part| whole(part.elapsed_s * 1e6);
        let cpu_ps = |part: &Part| part.cpu_us_per_record.map(|cpu| whole(cpu * 1e6));
        self.started == other.started
            && self.environment.host == other.environment.host
            && self.command == other.command
            && self.records == other.records
            && elapsed_us(self) == elapsed_us(other)
            && cpu_ps(self) == cpu_ps(other)
    }
}

/// Records that count: acked, or sent with `acks=0`.
fn good(document: &Document) -> u64 {
    document.acked_records + document.sent_records
}

// ---- histograms and series --------------------------------------------------------------------

/// The logs of all parts as one: an interval for each cell of the timeline that has values.
fn merged_log(
    parts: &[Recorded],
    timeline: &Timeline,
    mut scratch: Histogram<u64>,
    of: fn(&Recorded) -> &Log,
) -> Log {
    let mut total = scratch.clone();
    let mut by_cell: Vec<Vec<&Sparse>> = vec![Vec::new(); timeline.cells.len()];
    for (number, part) in parts.iter().enumerate() {
        for interval in &of(part).intervals {
            let middle = interval.start + interval.length / 2;
            by_cell[timeline.cell_at(number, middle)].push(&interval.histogram);
        }
    }
    let mut intervals = Vec::new();
    for (cell, members) in timeline.cells.iter().zip(by_cell) {
        scratch.reset();
        for histogram in members {
            histogram.add_to(&mut scratch);
            histogram.add_to(&mut total);
        }
        if !scratch.is_empty() {
            intervals.push(LogInterval {
                start: cell.start,
                length: cell.length,
                histogram: Sparse::of(&scratch),
            });
        }
    }
    Log {
        started: Some(timeline.started),
        intervals,
        total,
    }
}

/// The series: what `run.json` says of each cell.
fn series(timeline: &Timeline, [response, service, rated]: [&Log; 3]) -> Vec<IntervalFigures> {
    let (mut some_times, mut some_rates) = (latencies(), rates());
    let mut latency = |log: &Log, start: Duration| {
        some_times.reset();
        at(log, start)?.add_to(&mut some_times);
        Latency::of(&some_times, 1.0)
    };
    let cells = timeline.cells.iter().map(|cell| {
        let length_s = cell.length.as_secs_f64();
        IntervalFigures {
            start_s: micro(cell.start.as_secs_f64()),
            length_s: micro(length_s),
            acked_records: cell.acked,
            records_per_s: milli(ratio(float(cell.acked), length_s)),
            cpu_us_per_record: (cell.acked > 0)
                .then(|| micro(cell.cpu_s * 1e6 / float(cell.acked))),
            throughput: at(rated, cell.start).and_then(|rates| {
                some_rates.reset();
                rates.add_to(&mut some_rates);
                throughput(&some_rates)
            }),
            response_us: latency(response, cell.start),
            service_us: latency(service, cell.start),
            rss_bytes: None, // of which process?
        }
    });
    cells.collect()
}

/// What `log` has of the cell that starts at `start`.
fn at(log: &Log, start: Duration) -> Option<&Sparse> {
    let found = log
        .intervals
        .binary_search_by_key(&start, |interval| interval.start);
    found.ok().map(|index| &log.intervals[index].histogram)
}

// ---- the document -----------------------------------------------------------------------------

/// All that is added up, or joined. What comes from histograms is the caller's.
fn summed(documents: &[&Document], timeline: &Timeline) -> Document {
    let sum = |of: fn(&Document) -> u64| documents.iter().map(|d| of(d)).sum::<u64>();
    let sum_s = |of: fn(&Document) -> f64| documents.iter().map(|d| of(d)).sum::<f64>();
    // What one part does not know, nobody knows of all.
    let known =
        |of: fn(&Document) -> Option<u64>| -> Option<u64> { documents.iter().map(|d| of(d)).sum() };
    let known_s =
        |of: fn(&Document) -> Option<f64>| -> Option<f64> { documents.iter().map(|d| of(d)).sum() };
    let joined = |of: fn(&Document) -> &str| join(documents.iter().map(|d| of(d)));
    let share = |part: Option<f64>, whole: Option<u64>| {
        let (part, whole) = (part?, float(whole?));
        (whole > 0.0).then(|| micro(part / whole))
    };
    let records = sum(good);
    let elapsed_s = timeline.elapsed.as_secs_f64();
    let (cpu_user_s, cpu_system_s) = (sum_s(|d| d.cpu_user_s), sum_s(|d| d.cpu_system_s));
    let per_record = |amount: f64| (records > 0).then(|| micro(amount / float(records)));
    let acked_bytes = sum(|d| d.acked_bytes);
    let (batches, requests) = (known(|d| d.batches), known(|d| d.requests));
    let allocations = known(|d| d.allocations);
    // The document has the ratio alone.
    let kernel_entries = known_s(|d| Some(d.kernel_entries_per_request? * float(d.requests?)));
    Document {
        schema: SCHEMA.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        started: rfc3339(timeline.started),
        command: command(),
        engine: joined(|d| &d.engine),
        driver: joined(|d| &d.driver),
        driver_reason: joined(|d| &d.driver_reason),
        config: config(documents),
        // A search of its own before each part: there is none of all of them.
        peak_records_per_s: match documents {
            [single] => single.peak_records_per_s,
            _ => None,
        },
        gate: distinct(documents.iter().flat_map(|d| &d.gate)),
        environment: environment(documents),
        placement: placement(documents),
        shards: distinct(documents.iter().flat_map(|d| &d.shards)),
        differs: distinct(documents.iter().flat_map(|d| &d.differs)),
        interrupted: documents.iter().any(|d| d.interrupted),
        good: documents.iter().all(|d| d.good),
        failure: documents.iter().find_map(|d| d.failure.clone()),
        failures: failures(documents),
        hints: distinct(documents.iter().flat_map(|d| &d.hints)),
        offered_records: sum(|d| d.offered_records),
        unsent_records: sum(|d| d.unsent_records),
        acked_records: sum(|d| d.acked_records),
        sent_records: sum(|d| d.sent_records),
        not_written_records: sum(|d| d.not_written_records),
        unknown_records: sum(|d| d.unknown_records),
        acked_bytes,
        elapsed_s: micro(elapsed_s),
        records_per_s: milli(ratio(float(records), elapsed_s)),
        mib_per_s: milli(ratio(float(acked_bytes) / 1_048_576.0, elapsed_s)),
        full_waits: sum(|d| d.full_waits),
        blocked_s: micro(sum_s(|d| d.blocked_s)),
        cpu_us_per_record: per_record((cpu_user_s + cpu_system_s) * 1e6),
        cpu_user_s: micro(cpu_user_s),
        cpu_system_s: micro(cpu_system_s),
        broker_cpu_s: known_s(|d| d.broker_cpu_s).map(micro),
        machine_busy_cpus: busy_cpus(documents),
        throughput: None,
        latency_us: LatencyUs {
            response: None,
            service: None,
            stages: None,
            floor: None,
        },
        allocations,
        allocations_per_record: allocations.and_then(|all| per_record(float(all))),
        kernel_entries_per_request: share(kernel_entries, requests),
        records_per_batch: share(Some(float(records)), batches),
        batches_per_request: share(batches.map(float), requests),
        batches,
        requests,
        retries: known(|d| d.retries),
        wakes: known(|d| d.wakes),
        voluntary_switches: sum(|d| d.voluntary_switches),
        involuntary_switches: sum(|d| d.involuntary_switches),
        peak_rss_bytes: documents
            .iter()
            .map(|d| d.peak_rss_bytes)
            .max()
            .unwrap_or(0),
        verified: verified(documents),
        log_growth: match documents {
            [single] => single.log_growth,
            _ => None, // two clients of one topic see each other's records
        },
        run: Totals {
            taken_records: sum(|d| d.run.taken_records),
            acked_records: sum(|d| d.run.acked_records),
            sent_records: sum(|d| d.run.sent_records),
            not_written_records: sum(|d| d.run.not_written_records),
            unknown_records: sum(|d| d.run.unknown_records),
            unsettled_records: sum(|d| d.run.unsettled_records),
        },
        merged: None,
    }
}

fn verified(documents: &[&Document]) -> Option<Verified> {
    let all: Option<Vec<Verified>> = documents.iter().map(|d| d.verified).collect();
    let all = all?;
    let sum = |of: fn(&Verified) -> u64| all.iter().map(of).sum();
    Some(Verified {
        records: sum(|v| v.records),
        lost: sum(|v| v.lost),
        duplicated: sum(|v| v.duplicated),
        reordered: sum(|v| v.reordered),
        corrupt: sum(|v| v.corrupt),
    })
}

fn failures(documents: &[&Document]) -> Vec<Failures> {
    let mut all: Vec<Failures> = Vec::new();
    for failure in documents.iter().flat_map(|document| &document.failures) {
        match all.iter_mut().find(|known| known.why == failure.why) {
            Some(known) => known.records += failure.records,
            None => all.push(failure.clone()),
        }
    }
    all
}

/// The settings; where they differ, all values in words.
fn config(documents: &[&Document]) -> BTreeMap<String, Value> {
    let mut all = documents[0].config.clone();
    for (name, value) in &mut all {
        let values = documents
            .iter()
            .map(|d| d.config.get(name).unwrap_or(&Value::Null));
        if values.clone().any(|other| other != value) {
            let shown = values.map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            *value = Value::String(distinct(shown).join(" + "));
        }
    }
    all
}

/// The first one's, with what several hosts differ in joined; each part has its own in full.
fn environment(documents: &[&Document]) -> Environment {
    let mut all = documents[0].environment.clone();
    let joined = |of: fn(&Environment) -> &Option<String>| {
        let values = documents
            .iter()
            .filter_map(|d| of(&d.environment).as_deref());
        Some(join(values)).filter(|text| !text.is_empty())
    };
    all.host = joined(|e| &e.host);
    all.kernel = joined(|e| &e.kernel);
    all.cpu_model = joined(|e| &e.cpu_model);
    all.rustc = joined(|e| &e.rustc);
    all.governor = joined(|e| &e.governor);
    all.commit = joined(|e| &e.commit);
    all.build = join(documents.iter().map(|d| d.environment.build.as_str()));
    let stolen: Option<f64> = documents
        .iter()
        .map(|d| Some(d.environment.steal_percent? * d.elapsed_s))
        .sum();
    let measured: f64 = documents.iter().map(|d| d.elapsed_s).sum();
    all.steal_percent = stolen.map(|stolen| milli(ratio(stolen, measured)));
    if documents.len() > 1 {
        // Each part keeps its own.
        all.findings.clear();
        all.unit_costs = None;
    }
    all
}

fn placement(documents: &[&Document]) -> Placement {
    let first = &documents[0].placement;
    let same = documents.iter().all(|d| {
        d.placement.client_cpus == first.client_cpus && d.placement.broker_cpus == first.broker_cpus
    });
    if same {
        return first.clone();
    }
    Placement {
        client_cpus: Vec::new(),
        broker_cpus: Vec::new(),
        reason: "each part had CPUs of its own".into(),
    }
}

/// Busy CPUs: the mean of each host over time, added up over hosts.
fn busy_cpus(documents: &[&Document]) -> Option<f64> {
    let mut hosts: BTreeMap<&Option<String>, (f64, f64)> = BTreeMap::new();
    for document in documents {
        let (busy, measured) = hosts.entry(&document.environment.host).or_default();
        *busy += document.machine_busy_cpus? * document.elapsed_s;
        *measured += document.elapsed_s;
    }
    let sum = hosts
        .values()
        .map(|(busy, measured)| ratio(*busy, *measured))
        .sum();
    Some(milli(sum))
}

// ---- the folder -------------------------------------------------------------------------------

/// The scenario of the first part.
fn scenario(parts: &[Recorded]) -> String {
    let texts: Vec<String> = parts
        .iter()
        .map(|part| std::fs::read_to_string(part.folder.join("scenario.toml")).unwrap_or_default())
        .collect();
    let first = texts.first().cloned().unwrap_or_default();
    if texts.iter().all(|text| *text == first) {
        return first;
    }
    format!(
        "# Of the first of {} merged results; the others' differ.\n{first}",
        texts.len()
    )
}

fn readme(recorded: &Recorded) -> String {
    let document = &recorded.document;
    let Some(merged) = &document.merged else {
        return String::new();
    };
    let mut out = format!(
        "# {}\n\n- started: {}\n- command: `{}`\n\n\
         Histograms and counts are those of all parts together; no percentile was averaged.\n\
         `throughput.hlog` and `throughput` hold the rates of each client by itself; `records_per_s` \
         and the series hold the rate of all.\n\n\
         | part | started | records | records/s | CPU µs/record | host, kernel | commit |\n\
         |---|---|---|---|---|---|---|\n",
        merged.title(),
        document.started,
        document.command.join(" "),
    );
    let told = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".into());
    for part in &merged.parts {
        out.push_str(&format!(
            "| {} | {} | {} | {:.0} | {} | {}, {} | {} |\n",
            part.name,
            part.started,
            part.records,
            part.records_per_s,
            part.cpu_us_per_record
                .map_or("–".into(), |cpu| cpu.to_string()),
            told(&part.environment.host),
            told(&part.environment.kernel),
            told(&part.environment.commit),
        ));
    }
    if !merged.differences.is_empty() {
        out.push_str("\nThe parts differ:\n\n");
        for difference in &merged.differences {
            out.push_str(&format!("- {difference}\n"));
        }
    }
    out.push_str("\nIts figures:\n\n");
    out.push_str(&folder::summary(document));
    out
}

impl Merged {
    /// What it is, in words.
    pub fn title(&self) -> String {
        let parts = self.parts.len();
        match self.how {
            How::Parallel => {
                format!("{parts} results of clients that ran at the same time, merged")
            }
            How::Rounds => format!("{parts} results, one after the other, merged"),
            How::Both => format!("{parts} results of several clients in several rounds, merged"),
        }
    }
}

/// Each once, in order.
fn distinct<T: Into<String>>(values: impl Iterator<Item = T>) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for value in values {
        let value = value.into();
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

fn join<'a>(values: impl Iterator<Item = &'a str>) -> String {
    distinct(values).join(" + ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::number::count;
    use crate::sample::{Second, recorded};

    const NOON: Duration = Duration::from_secs(1_790_000_000);

    fn seconds() -> impl Strategy<Value = Vec<Second>> {
        let times = prop::collection::vec(0u64..8_000_000_000, 0..20);
        let second = (times, 0.0..2.0).prop_map(|(times, cpu_s)| Second { times, cpu_s });
        prop::collection::vec(second, 0..5)
    }

    /// Parts anywhere within a minute: together, apart, or both.
    fn parts() -> impl Strategy<Value = Vec<(u64, Vec<Second>)>> {
        prop::collection::vec((0u64..60_000, seconds()), 1..5)
    }

    fn all_times(parts: &[(u64, Vec<Second>)]) -> Histogram<u64> {
        let mut all = latencies();
        for time in parts
            .iter()
            .flat_map(|(_, seconds)| seconds)
            .flat_map(|s| &s.times)
        {
            all.saturating_record(*time);
        }
        all
    }

    fn open(parts: &[(u64, Vec<Second>)]) -> Vec<Recorded> {
        let at = |after: u64| NOON + Duration::from_millis(after);
        let opened = |(number, (after, seconds)): (usize, &(u64, Vec<Second>))| {
            let mut part = recorded("part", at(*after), seconds);
            // Whatever else they have in common, each is a run of its own.
            part.document.command.push(format!("--topic=t{number}"));
            part
        };
        parts.iter().enumerate().map(opened).collect()
    }

    fn sum(log: &Log, mut empty: Histogram<u64>) -> Histogram<u64> {
        for interval in &log.intervals {
            interval.histogram.add_to(&mut empty);
        }
        empty
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// The histogram of the merge is the histogram of the concatenation, as a whole and as the
        /// sum of its intervals; counts, CPU and the series add up to the same.
        #[test]
        fn nothing_is_lost(parts in parts()) {
            let expected = all_times(&parts);
            let merged = merge(&open(&parts), false).expect("one experiment");
            prop_assert_eq!(&merged.response.total, &expected);
            prop_assert_eq!(&merged.service.total, &expected);
            prop_assert_eq!(sum(&merged.response, latencies()), expected.clone());
            prop_assert_eq!(sum(&merged.throughput, rates()), merged.throughput.total.clone());
            prop_assert_eq!(merged.document.acked_records, expected.len());
            let series: u64 = merged.series.iter().map(|interval| interval.acked_records).sum();
            prop_assert_eq!(series, expected.len());
            let length: f64 = merged.series.iter().map(|interval| interval.length_s).sum();
            prop_assert!((length - merged.document.elapsed_s).abs() < 1e-3);
            let cpu: f64 = parts.iter().flat_map(|(_, seconds)| seconds).map(|s| s.cpu_s).sum();
            prop_assert!((merged.document.cpu_user_s - cpu).abs() < 1e-3);
            prop_assert!(merged.series.len() <= 600);
        }

        /// In what order the parts are named, and whether some were merged before, is all the same.
        #[test]
        fn the_order_does_not_matter(parts in parts()) {
            let parts = open(&parts);
            let merged = merge(&parts, false).expect("one experiment");
            let backwards: Vec<_> = parts.iter().rev().cloned().collect();
            let other = merge(&backwards, false).expect("one experiment");
            prop_assert_eq!(&merged.response.total, &other.response.total);
            prop_assert_eq!(merged.document.records_per_s, other.document.records_per_s);
            let (first, rest) = parts.split_at(parts.len() / 2);
            if !first.is_empty() {
                let halves = [merge(first, false), merge(rest, false)].map(|half| half.expect("one"));
                let twice = merge(&halves, false).expect("one experiment");
                prop_assert_eq!(&twice.service.total, &merged.service.total);
                prop_assert_eq!(twice.document.acked_records, merged.document.acked_records);
                let of = |merged: &Recorded| merged.document.merged.clone().map(|m| m.parts.len());
                prop_assert_eq!(of(&twice), Some(parts.len()));
            }
        }
    }

    fn steady(rate: usize, length: usize, time: u64) -> Vec<Second> {
        vec![
            Second {
                times: vec![time; rate],
                cpu_s: 0.5
            };
            length
        ]
    }

    #[test]
    fn rates_of_parallel_clients_add_up_and_those_of_rounds_do_not() {
        let (here, there) = (steady(1_000, 10, 1_000_000), steady(500, 10, 9_000_000));
        let together = [(0, here.clone()), (400, there.clone())];
        let merged = merge(&open(&together), false).expect("one experiment");
        let document = &merged.document;
        assert_eq!(document.merged.as_ref().map(|m| m.how), Some(How::Parallel));
        assert!(
            (document.elapsed_s - 10.4).abs() < 1e-6,
            "{}",
            document.elapsed_s
        );
        assert!((document.records_per_s - 15_000.0 / 10.4).abs() < 0.01);
        assert!((document.cpu_us_per_record.expect("records") - 10e6 / 15_000.0).abs() < 1e-3);
        // In the middle both are there; each second of the log has what both had in it.
        let middle = &merged.series[4];
        assert!((middle.records_per_s - 1_500.0).abs() < 1.0, "{middle:?}");
        let p99 = document.latency_us.response.expect("recorded").p99;
        assert!(
            (p99 / 9_000.0 - 1.0).abs() < 0.01,
            "not a mean of both: {p99}"
        );
        // 100 samples a second of each client, neither of them the sum.
        assert_eq!(merged.throughput.total.len(), 2_000);
        assert_eq!(
            document.throughput.expect("rates").p99,
            merged.throughput.total.value_at_quantile(0.99)
        );

        let apart = [(0, here), (15_000, there)];
        let merged = merge(&open(&apart), false).expect("one experiment");
        assert_eq!(
            merged.document.merged.as_ref().map(|m| m.how),
            Some(How::Rounds)
        );
        assert!((merged.document.elapsed_s - 20.0).abs() < 1e-6);
        assert!((merged.document.records_per_s - 750.0).abs() < 1e-6);
        assert_eq!(merged.series.len(), 20);
        assert!(
            (merged.series[10].start_s - 10.0).abs() < 1e-6,
            "without the pause"
        );
    }

    #[test]
    fn figures_that_cannot_be_merged_are_not_known() {
        let mut parts = open(&[(0, steady(10, 2, 500)), (5_000, steady(10, 2, 500))]);
        parts[1].document.allocations = None;
        parts[1].document.verified = None;
        let merged = merge(&parts, false).expect("one experiment").document;
        assert!(merged.allocations.is_none() && merged.verified.is_none());
        assert!(merged.latency_us.stages.is_none());
        assert_eq!(merged.kernel_entries_per_request, Some(1.5));
        assert_eq!(merged.requests, Some(8));
    }

    #[test]
    fn other_work_is_refused_and_named() {
        let mut parts = open(&[(0, steady(10, 2, 500)), (5_000, steady(10, 2, 500))]);
        for (setting, value) in [("record_size", "1KiB"), ("linger", "5ms")] {
            parts[1]
                .document
                .config
                .insert(setting.into(), value.into());
        }
        parts[1].document.environment.host = Some("there".into());
        let refused = merge(&parts, false).expect_err("different").why;
        assert!(refused.contains("record_size: 100B | 1KiB"), "{refused}");
        assert!(
            refused.contains("linger: auto | 5ms") && !refused.contains("there"),
            "{refused}"
        );
        let forced = merge(&parts, true).expect("forced").document;
        assert_eq!(forced.config["record_size"], "100B + 1KiB");
        assert_eq!(forced.environment.host.as_deref(), Some("here + there"));
        assert!(merge(&[], true).is_err());
    }

    #[test]
    fn no_run_is_counted_twice() {
        let parts = open(&[(0, steady(10, 2, 500)), (5_000, steady(10, 2, 500))]);
        let merged = merge(&parts, false).expect("one experiment");
        let again = [parts[0].clone(), parts[0].clone()];
        let inside = [merged.clone(), parts[1].clone()];
        for (twice, force) in [(&again, false), (&again, true), (&inside, false)] {
            let refused = merge(twice, force).expect_err("twice").why;
            assert!(refused.contains("counted twice"), "{refused}");
        }
        let mut longer = parts[0].clone();
        longer.document.elapsed_s += 0.000_002;
        assert!(merge(&[merged, longer], false).is_ok(), "another run");
    }

    #[test]
    fn a_merge_is_read_back_as_it_was_written() {
        let parts = open(&[(0, steady(10, 3, 700_000)), (1_500, steady(20, 3, 90_000))]);
        let merged = merge(&parts, false).expect("one experiment");
        let folder = std::env::temp_dir().join(format!("ringpost-merge-{}", std::process::id()));
        write(&folder, &merged, &parts).expect("written");
        let read = Recorded::open(&folder).expect("a results folder");
        let readme = std::fs::read_to_string(folder.join("README.md")).expect("a README");
        std::fs::remove_dir_all(&folder).expect("removed");
        assert_eq!(read.response.total, merged.response.total);
        assert_eq!(read.throughput.total, merged.throughput.total);
        assert_eq!(read.series.len(), merged.series.len());
        assert_eq!(count(read.document.merged.expect("parts").parts.len()), 2);
        assert!(
            readme.contains("at the same time") && readme.contains("by itself"),
            "{readme}"
        );
    }
}
