//! A made-up result, for tests of what reads results.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::histogram::{Sparse, latencies, rates};
use crate::number::{count, float};
use crate::recorded::{Log, LogInterval, Recorded};
use crate::report::document::{Document, IntervalFigures, SCHEMA};

/// What an interval of a second had: how long records took, in ns, and the client's CPU in s.
#[derive(Clone, Debug)]
pub(crate) struct Second {
    pub(crate) times: Vec<u64>,
    pub(crate) cpu_s: f64,
}

/// A result whose window opened at `started` and had these seconds. Every record has one time, for
/// response and service; the 10 ms rates are all the second's rate.
pub(crate) fn recorded(name: &str, started: Duration, seconds: &[Second]) -> Recorded {
    let all: u64 = seconds.iter().map(|second| count(second.times.len())).sum();
    let cpu_s: f64 = seconds.iter().map(|second| second.cpu_s).sum();
    let (mut times, mut rated) = (log(started), log(started));
    rated.total = rates();
    let mut series = Vec::new();
    for (number, second) in (0u32..).zip(seconds) {
        let start = Duration::from_secs(number.into());
        let acked = count(second.times.len());
        let (mut of_times, mut of_rates) = (latencies(), rates());
        for time in &second.times {
            of_times.saturating_record(*time);
        }
        of_rates.saturating_record_n(acked, 100);
        for (log, histogram) in [(&mut times, of_times), (&mut rated, of_rates)] {
            log.total.add(&histogram).expect("the same bounds");
            log.intervals.push(LogInterval {
                start,
                length: Duration::from_secs(1),
                histogram: Sparse::of(&histogram),
            });
        }
        series.push(IntervalFigures {
            start_s: f64::from(number),
            length_s: 1.0,
            acked_records: acked,
            records_per_s: float(acked),
            cpu_us_per_record: (acked > 0).then(|| second.cpu_s * 1e6 / float(acked)),
            throughput: None,
            response_us: None,
            service_us: None,
            rss_bytes: None,
        });
    }
    Recorded {
        folder: PathBuf::from(name),
        name: name.into(),
        document: document(all, float(count(seconds.len())), cpu_s),
        series,
        response: times.clone(),
        service: times,
        throughput: rated,
    }
}

fn log(started: Duration) -> Log {
    Log {
        started: Some(started),
        intervals: Vec::new(),
        total: latencies(),
    }
}

/// The document of a run of this length, as a program writes it.
fn document(records: u64, elapsed_s: f64, cpu_s: f64) -> Document {
    let rate = if elapsed_s > 0.0 {
        float(records) / elapsed_s
    } else {
        0.0
    };
    let config = json!({
        "record_size": "100B", "acks": "all", "rate": "max", "compression": "none",
        "linger": "auto", "partitions": 6, "topic": "t", "set": {},
    });
    let environment = json!({
        "host": "here", "kernel": "6.12", "arch": "x86_64", "cpu_model": "a CPU", "cpus": 2,
        "affinity": [0, 1], "build": "release", "io_uring": "allowed", "steal_percent": 0.5,
        "commit": "0123456789ab",
    });
    let placement = json!({"client_cpus": [1], "broker_cpus": [0], "reason": "kept apart"});
    let verified = json!({
        "records": records, "lost": 0, "duplicated": 0, "reordered": 0, "corrupt": 0,
    });
    let totals = json!({
        "taken_records": records, "acked_records": records, "sent_records": 0,
        "not_written_records": 0, "unknown_records": 0, "unsettled_records": 0,
    });
    let mut document = json!({
        "schema": SCHEMA, "version": "0.1.0", "started": "2026-11-23T00:00:00Z",
        "command": ["ringpost-bench", "run"],
        "engine": "ringpost", "driver": "ring", "driver_reason": "asked for",
        "config": config, "environment": environment, "placement": placement,
        "shards": ["shard 0"], "differs": [], "interrupted": false, "good": true, "failures": [],
        "latency_us": {}, "verified": verified, "run": totals,
    });
    let counts = json!({
        "offered_records": records, "unsent_records": 0, "acked_records": records,
        "sent_records": 0, "not_written_records": 0, "unknown_records": 0,
        "acked_bytes": records * 100, "full_waits": 0, "allocations": 10, "batches": 10,
        "requests": 4, "retries": 0, "wakes": 7, "voluntary_switches": 3,
        "involuntary_switches": 2, "peak_rss_bytes": 1_000_000,
    });
    let figures = json!({
        "elapsed_s": elapsed_s, "records_per_s": rate, "mib_per_s": rate * 100.0 / 1_048_576.0,
        "blocked_s": 0.0, "cpu_us_per_record": (records > 0).then(|| cpu_s * 1e6 / float(records)),
        "cpu_user_s": cpu_s, "cpu_system_s": 0.0, "broker_cpu_s": 1.0, "machine_busy_cpus": 1.5,
        "allocations_per_record": 0.0, "kernel_entries_per_request": 1.5,
    });
    for part in [counts, figures] {
        let part = part.as_object().cloned().unwrap_or_default();
        document.as_object_mut().expect("an object").extend(part);
    }
    serde_json::from_value(document).expect("the fields of a document")
}
