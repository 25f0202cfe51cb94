//! A results folder: everything needed to look at a run again, draw it, or run it once more.
//!
//! ```text
//! run.json         the document, and the series per interval
//! response.hlog    intended send → ack, in ns   ┐ HdrHistogram interval logs (V2, deflate), a line
//! service.hlog     actual send → ack, in ns     │ an interval: HistogramLogAnalyzer and hdr-plot
//! throughput.hlog  records/s over 10 ms         ┘ read them, `merge` adds them without loss
//! scenario.toml    the settings as resolved: `ringpost-bench run scenario.toml` repeats the run, from
//!                  anywhere on this host
//! summary.md       the figures in a table
//! README.md        host, kernel, commit, command
//! ```

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

use crate::histogram::{Latency, Sparse, latencies, rates};
use crate::measure::Measured;
use crate::placement;
use crate::recorded::{Log, Recorded};
use crate::report::document::{Document, IntervalFigures, RunJson, document, intervals};
use crate::report::text::text;
use crate::scenario::to_toml;
use crate::series::Interval;

/// Makes sure, before anything is measured, that the folder can be written.
pub fn prepare(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let probe = folder.join(".ringpost-bench");
    fs::write(&probe, "")?;
    fs::remove_file(probe)
}

/// Writes the folder; files of an earlier run in it are replaced.
pub fn write(folder: &Path, measured: &Measured) -> io::Result<()> {
    fn lines(measured: &Measured, of: fn(&Interval) -> &Sparse) -> impl Iterator<Item = Line<'_>> {
        let intervals = measured.intervals.iter();
        intervals.map(move |interval| (interval.start, interval.length, of(interval)))
    }
    fs::create_dir_all(folder)?;
    let started = measured.started;
    write_logs(
        folder,
        started,
        lines(measured, |interval| &interval.response),
        lines(measured, |interval| &interval.service),
        lines(measured, |interval| &interval.rates),
    )?;
    let document = document(measured);
    let scenario = to_toml(&measured.plan);
    let readme = readme(&document, &text(measured));
    write_texts(folder, document, intervals(measured), &scenario, &readme)
}

/// Writes what was read, or merged, as a folder.
pub fn write_recorded(
    folder: &Path,
    recorded: &Recorded,
    scenario: &str,
    readme: &str,
) -> io::Result<()> {
    fn lines(log: &Log) -> impl Iterator<Item = Line<'_>> {
        let intervals = log.intervals.iter();
        intervals.map(|interval| (interval.start, interval.length, &interval.histogram))
    }
    fs::create_dir_all(folder)?;
    write_logs(
        folder,
        recorded.throughput.started.unwrap_or_default(),
        lines(&recorded.response),
        lines(&recorded.service),
        lines(&recorded.throughput),
    )?;
    let (document, series) = (recorded.document.clone(), recorded.series.clone());
    write_texts(folder, document, series, scenario, readme)
}

/// Everything that is not a histogram.
fn write_texts(
    folder: &Path,
    document: Document,
    intervals: Vec<IntervalFigures>,
    scenario: &str,
    readme: &str,
) -> io::Result<()> {
    fs::write(folder.join("scenario.toml"), scenario)?;
    fs::write(folder.join("summary.md"), summary(&document))?;
    fs::write(folder.join("README.md"), readme)?;
    let run = RunJson {
        document,
        intervals,
    };
    let mut json = serde_json::to_vec_pretty(&run)?;
    json.push(b'\n');
    // Last and at once: a folder with a run.json is whole.
    fs::write(folder.join(".run.json"), json)?;
    fs::rename(folder.join(".run.json"), folder.join("run.json"))
}

/// An interval: from the window's start, how long, what was recorded.
type Line<'a> = (Duration, Duration, &'a Sparse);

fn write_logs<'a>(
    folder: &Path,
    started: Duration,
    response: impl Iterator<Item = Line<'a>>,
    service: impl Iterator<Item = Line<'a>>,
    throughput: impl Iterator<Item = Line<'a>>,
) -> io::Result<()> {
    let file = |name: &str, content: Vec<u8>| fs::write(folder.join(name), content);
    file(
        "response.hlog",
        log(started, "response time, ns", 1e6, latencies(), response)?,
    )?;
    file(
        "service.hlog",
        log(started, "service time, ns", 1e6, latencies(), service)?,
    )?;
    file(
        "throughput.hlog",
        log(started, "records/s in 10 ms", 1.0, rates(), throughput)?,
    )
}

/// One interval log. `divisor` scales the maximum that people read in it: ns to ms.
fn log<'a>(
    started: Duration,
    what: &str,
    divisor: f64,
    mut histogram: Histogram<u64>,
    lines: impl Iterator<Item = Line<'a>>,
) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let started = std::time::SystemTime::UNIX_EPOCH + started;
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&format!("[ringpost-bench: {what}]"))
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(divisor)
        .begin_log_with(&mut out, &mut serializer)?;
    for (start, length, sparse) in lines.filter(|(_, _, sparse)| !sparse.is_empty()) {
        histogram.reset();
        sparse.add_to(&mut histogram);
        log.write_histogram(&histogram, start, length, None)
            .map_err(|error| io::Error::other(error.to_string()))?;
    }
    drop(log);
    Ok(out)
}

/// The figures in a table.
pub(crate) fn summary(document: &Document) -> String {
    let mut out = String::from("| figure | value |\n|---|---|\n");
    let mut row = |name: &str, value: String| out.push_str(&format!("| {name} | {value} |\n"));
    let told = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value}"));
    row(
        "engine, driver",
        format!("{}, {}", document.engine, document.driver),
    );
    row("records/s", format!("{:.0}", document.records_per_s));
    row("MiB/s", format!("{:.1}", document.mib_per_s));
    row("CPU µs/record", told(document.cpu_us_per_record));
    row("elapsed s", format!("{:.3}", document.elapsed_s));
    let times = |latency: Option<Latency>| {
        latency.map_or("–".into(), |latency| {
            format!(
                "{} / {} / {} / {}",
                latency.p50, latency.p99, latency.p99_9, latency.max
            )
        })
    };
    row(
        "response µs, p50 / p99 / p99.9 / max",
        times(document.latency_us.response),
    );
    row(
        "service µs, p50 / p99 / p99.9 / max",
        times(document.latency_us.service),
    );
    if let Some(t) = document.throughput {
        row(
            "records/s in 10 ms, p1 / p50 / p99",
            format!("{} / {} / {}", t.p1, t.p50, t.p99),
        );
    }
    row("records per batch", told(document.records_per_batch));
    row("batches per request", told(document.batches_per_request));
    row(
        "kernel entries per request",
        told(document.kernel_entries_per_request),
    );
    row(
        "allocations per record",
        told(document.allocations_per_record),
    );
    row(
        "verified",
        document.verified.map_or("–".into(), |v| {
            let (lost, twice, order, bad) = (v.lost, v.duplicated, v.reordered, v.corrupt);
            format!(
                "{} records: {lost} lost, {twice} duplicated, {order} reordered, {bad} corrupt",
                v.records
            )
        }),
    );
    row("all good", format!("{}", document.good));
    out
}

fn readme(document: &Document, report: &str) -> String {
    let environment = &document.environment;
    let told = |value: &Option<String>| value.clone().unwrap_or_else(|| "not known".into());
    format!(
        "# A run of ringpost-bench\n\n\
         - started: {}{}\n- host: {}, kernel {}, {} × {}\n- CPUs: client {}, broker {} ({})\n\
         - commit: {}, {} build, {}\n- command: `{}`\n- again: `ringpost-bench run scenario.toml`\n\n\
         `run.json` has every figure; `*.hlog` are HdrHistogram interval logs.\n\n```text{report}```\n",
        document.started,
        if document.interrupted {
            " (interrupted)"
        } else {
            ""
        },
        told(&environment.host),
        told(&environment.kernel),
        environment.cpus,
        told(&environment.cpu_model),
        placement::show(&document.placement.client_cpus),
        placement::show(&document.placement.broker_cpus),
        document.placement.reason,
        told(&environment.commit),
        environment.build,
        environment.rustc.as_deref().unwrap_or("rustc not known"),
        document.command.join(" "),
    )
}
