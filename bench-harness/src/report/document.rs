//! The JSON document of a run. Its field names are a promise: programs read them. A change that
//! takes one away or gives one another meaning changes [`SCHEMA`].
//!
//! Counts and times are those of the measured window; `run` has those of warm-up, window and drain
//! together. `null` means "nobody knows", never 0.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::rfc3339;
use crate::environment::Environment;
use crate::histogram::{Latency, latencies, rates};
use crate::log_end::LogGrowth;
use crate::measure::Measured;
use crate::merge::Merged;
use crate::number::{float, micro, milli, ratio};
use crate::placement::Placement;
use crate::plan::Plan;
use crate::report::hint::hints;
use crate::series::Interval;
use crate::setting::{SETTINGS, TABLES};

/// The document's kind and version.
pub const SCHEMA: &str = "ringpost-bench/run/1";

/// The document.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "bench.md's names; what needs words has them")]
pub struct Document {
    pub schema: String,
    pub version: String,
    /// When the window opened, UTC.
    pub started: String,
    pub command: Vec<String>,
    pub engine: String,
    pub driver: String,
    pub driver_reason: String,
    /// Every setting as it was in the run.
    pub config: BTreeMap<String, Value>,
    /// Records a second of the closed loop before the run, with a rate like `50%peak`.
    #[serde(default)]
    pub peak_records_per_s: Option<f64>,
    /// The thresholds that the scenario sets.
    #[serde(default)]
    pub gate: Vec<String>,
    pub environment: Environment,
    pub placement: Placement,
    /// A line for each I/O thread of the client.
    pub shards: Vec<String>,
    /// Settings that the client read differently.
    pub differs: Vec<String>,
    pub interrupted: bool,
    /// Whether every record ended as it should.
    pub good: bool,
    /// Why the run ended early by itself.
    pub failure: Option<String>,
    /// Why records failed.
    pub failures: Vec<Failures>,
    /// What to keep in mind about these figures.
    #[serde(default)]
    pub hints: Vec<String>,

    /// Records meant for the window.
    pub offered_records: u64,
    /// Of those, how many the senders had not got to when it closed.
    pub unsent_records: u64,
    pub acked_records: u64,
    /// With `acks=0`: handed to the kernel.
    pub sent_records: u64,
    pub not_written_records: u64,
    pub unknown_records: u64,
    /// Keys and values of what was acked (sent, with `acks=0`).
    pub acked_bytes: u64,
    pub elapsed_s: f64,
    pub records_per_s: f64,
    pub mib_per_s: f64,
    /// How often a record found no room and had to be tried again.
    pub full_waits: u64,
    /// How long senders waited for room, all threads together.
    pub blocked_s: f64,

    pub cpu_us_per_record: Option<f64>,
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    pub broker_cpu_s: Option<f64>,
    /// Busy CPUs of the whole machine: loopback bills some of the receiver's work to the sender.
    pub machine_busy_cpus: Option<f64>,

    pub throughput: Option<Throughput>,
    pub latency_us: LatencyUs,

    pub allocations: Option<u64>,
    pub allocations_per_record: Option<f64>,
    pub kernel_entries_per_request: Option<f64>,
    pub records_per_batch: Option<f64>,
    pub batches_per_request: Option<f64>,
    pub batches: Option<u64>,
    pub requests: Option<u64>,
    pub retries: Option<u64>,
    pub wakes: Option<u64>,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
    pub peak_rss_bytes: u64,

    pub verified: Option<Verified>,
    /// With brokers that are not the run's own, what their log grew by: a check of the count, not of
    /// order and content.
    #[serde(default)]
    pub log_growth: Option<LogGrowth>,
    pub run: Totals,
    /// What a merged result was made of; only `merge` writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<Merged>,
}

/// Records per second over 10 ms intervals.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the percentiles")]
pub struct Throughput {
    pub p1: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
}

/// Latencies in µs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LatencyUs {
    /// Intended send time → ack; `null` when acks are not seen one by one (`delivery=forget`).
    pub response: Option<Latency>,
    /// Actual send → ack.
    pub service: Option<Latency>,
    /// Where the time went.
    pub stages: Option<StagesUs>,
    /// A record's bytes there and back over plain TCP with the same way of waiting, before the
    /// warm-up; `null` when a broker is elsewhere.
    #[serde(default)]
    pub floor: Option<Latency>,
}

/// A record's journey, in µs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "from, to")]
pub struct StagesUs {
    pub append_to_seal: Option<Latency>,
    pub seal_to_wire: Option<Latency>,
    pub wire_to_ack: Option<Latency>,
}

/// What the broker's log says; over the whole run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "bench.md's names")]
pub struct Verified {
    pub records: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub corrupt: u64,
}

/// The whole run: warm-up, window and drain.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as above, without the window")]
pub struct Totals {
    /// Records the client took.
    pub taken_records: u64,
    pub acked_records: u64,
    pub sent_records: u64,
    pub not_written_records: u64,
    pub unknown_records: u64,
    /// Taken, and nothing was heard of them.
    pub unsettled_records: u64,
}

/// A reason, and how many records had it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Failures {
    pub why: String,
    pub records: u64,
}

/// `run.json`: the document, and the series per interval.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunJson {
    /// The figures.
    #[serde(flatten)]
    pub document: Document,
    /// The series; only the file has it.
    #[serde(default)]
    pub intervals: Vec<IntervalFigures>,
}

/// One interval, as `run.json` has it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as above, for an interval")]
pub struct IntervalFigures {
    /// From the window's start.
    pub start_s: f64,
    pub length_s: f64,
    pub acked_records: u64,
    pub records_per_s: f64,
    pub cpu_us_per_record: Option<f64>,
    pub throughput: Option<Throughput>,
    pub response_us: Option<Latency>,
    pub service_us: Option<Latency>,
    /// Memory the client held at its end.
    #[serde(default)]
    pub rss_bytes: Option<u64>,
}

/// The document of a run.
pub fn document(measured: &Measured) -> Document {
    let window = &measured.window;
    let good = measured.good();
    let per_record = |amount: f64| (good > 0).then(|| micro(amount / float(good)));
    let share = |part: Option<u64>, whole: Option<u64>| {
        let (part, whole) = (float(part?), float(whole?));
        (whole > 0.0).then(|| micro(part / whole))
    };
    let counters = &window.counters;
    Document {
        schema: SCHEMA.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        started: rfc3339(measured.started),
        command: command(),
        engine: measured.plan.engine.to_string(),
        driver: measured.facts.driver.clone(),
        driver_reason: measured.facts.driver_reason.clone(),
        config: config(&measured.plan),
        peak_records_per_s: measured.plan.peak,
        gate: measured.plan.gate.iter().map(ToString::to_string).collect(),
        environment: measured.environment.clone(),
        placement: measured.placement.clone(),
        shards: measured.facts.shards.clone(),
        differs: measured.facts.differs.clone(),
        interrupted: measured.interrupted,
        good: measured.is_good(),
        failure: measured.failure.as_ref().map(ToString::to_string),
        failures: measured
            .reasons
            .iter()
            .map(|(why, records)| Failures {
                why: why.clone(),
                records: *records,
            })
            .collect(),
        hints: hints(measured),
        offered_records: measured.offered,
        unsent_records: measured.unsent,
        acked_records: window.settled.acked,
        sent_records: window.settled.sent,
        not_written_records: window.settled.not_written,
        unknown_records: window.settled.unknown,
        acked_bytes: measured.acked_bytes,
        elapsed_s: micro(measured.elapsed_s),
        records_per_s: milli(ratio(float(good), measured.elapsed_s)),
        mib_per_s: milli(ratio(
            float(measured.acked_bytes) / 1_048_576.0,
            measured.elapsed_s,
        )),
        full_waits: window.taken.full_waits,
        blocked_s: micro(float(window.taken.blocked_ns) / 1e9),
        cpu_us_per_record: per_record((window.cpu_user_s + window.cpu_system_s) * 1e6),
        cpu_user_s: micro(window.cpu_user_s),
        cpu_system_s: micro(window.cpu_system_s),
        broker_cpu_s: window.broker_cpu_s.map(micro),
        machine_busy_cpus: window.machine_busy_cpus.map(milli),
        throughput: throughput(&measured.rates),
        latency_us: LatencyUs {
            response: Latency::of(&measured.latencies.response, 1.0),
            service: Latency::of(&measured.latencies.service, 1.0),
            stages: measured.stages.as_ref().map(|stages| StagesUs {
                append_to_seal: Latency::of(&stages.append_to_seal, 1_000.0),
                seal_to_wire: Latency::of(&stages.seal_to_wire, 1_000.0),
                wire_to_ack: Latency::of(&stages.wire_to_ack, 1_000.0),
            }),
            floor: floor(measured),
        },
        allocations: window.allocations,
        allocations_per_record: window.allocations.and_then(|all| per_record(float(all))),
        kernel_entries_per_request: share(counters.kernel_entries, counters.requests),
        records_per_batch: share(Some(good), counters.batches),
        batches_per_request: share(counters.batches, counters.requests),
        batches: counters.batches,
        requests: counters.requests,
        retries: counters.retries,
        wakes: counters.wakes,
        voluntary_switches: window.voluntary_switches,
        involuntary_switches: window.involuntary_switches,
        peak_rss_bytes: window.peak_rss_bytes,
        verified: measured.verified.map(|verified| Verified {
            records: verified.records,
            lost: verified.lost,
            duplicated: verified.duplicated,
            reordered: verified.reordered,
            corrupt: verified.corrupt,
        }),
        log_growth: measured.log_growth.clone().and_then(Result::ok),
        run: Totals {
            taken_records: measured.taken.records,
            acked_records: measured.settled.acked,
            sent_records: measured.settled.sent,
            not_written_records: measured.settled.not_written,
            unknown_records: measured.settled.unknown,
            unsettled_records: measured.unsettled(),
        },
        merged: None,
    }
}

/// The floor under the latencies of a broker on this host.
fn floor(measured: &Measured) -> Option<Latency> {
    if !measured.plan.brokers.on_this_host() {
        return None;
    }
    let costs = measured.environment.unit_costs.as_ref()?;
    costs.ping_pong.as_ref()?.us
}

/// Every setting by its key.
pub(crate) fn config(plan: &Plan) -> BTreeMap<String, Value> {
    let mut config: BTreeMap<String, Value> = SETTINGS
        .iter()
        .filter(|setting| !TABLES.contains(&setting.name))
        .map(|setting| {
            let shown = (setting.show)(plan);
            let value = match (shown, setting.bare) {
                (None, _) => Value::Null,
                (Some(text), true) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
                (Some(text), false) => Value::String(text),
            };
            (setting.name.to_owned(), value)
        })
        .collect();
    let set = plan
        .set
        .iter()
        .map(|(key, value)| (key.clone(), Value::String(value.clone())));
    config.insert("set".into(), Value::Object(set.collect()));
    config
}

/// The percentiles of 10 ms rates.
pub(crate) fn throughput(rates: &Histogram<u64>) -> Option<Throughput> {
    let at = |quantile| rates.value_at_quantile(quantile);
    (!rates.is_empty()).then(|| Throughput {
        p1: at(0.01),
        p10: at(0.1),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
    })
}

/// The series.
pub fn intervals(measured: &Measured) -> Vec<IntervalFigures> {
    let (mut some_rates, mut some_times) = (rates(), latencies());
    measured
        .intervals
        .iter()
        .map(|interval| figures(interval, &mut some_rates, &mut some_times))
        .collect()
}

fn figures(
    interval: &Interval,
    rates: &mut Histogram<u64>,
    times: &mut Histogram<u64>,
) -> IntervalFigures {
    rates.reset();
    interval.rates.add_to(rates);
    let mut latency = |sparse: &crate::histogram::Sparse| {
        times.reset();
        sparse.add_to(times);
        Latency::of(times, 1.0)
    };
    let length_s = interval.length.as_secs_f64();
    let acked = interval.acked;
    IntervalFigures {
        start_s: micro(interval.start.as_secs_f64()),
        length_s: micro(length_s),
        acked_records: acked,
        records_per_s: milli(ratio(float(acked), length_s)),
        cpu_us_per_record: (acked > 0).then(|| micro(interval.cpu_s * 1e6 / float(acked))),
        throughput: throughput(rates),
        response_us: latency(&interval.response),
        service_us: latency(&interval.service),
        rss_bytes: interval.rss_bytes,
    }
}

/// The command line, without the path at which the program happens to lie.
pub(crate) fn command() -> Vec<String> {
    std::iter::once("ringpost-bench".to_owned())
        .chain(std::env::args().skip(1))
        .collect()
}
