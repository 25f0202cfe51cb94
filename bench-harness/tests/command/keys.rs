//! The names in a run's document: programs read them, so that a new one is added here and one that
//! goes away, or is called otherwise, is a breaking change (CONTRIBUTING.md).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Folder, code, document, run, text};

const LATENCY: &str = "p50 p90 p99 p99_9 p99_99 max mean";
const THROUGHPUT: &str = "p1 p10 p50 p90 p99";

/// All keys of each object, by its path.
const KEYS: &[(&str, &str)] = &[
    (
        "",
        "schema version started command engine driver driver_reason config peak_records_per_s gate \
         environment placement shards differs interrupted good failure failures hints \
         offered_records unsent_records acked_records sent_records not_written_records \
         unknown_records acked_bytes elapsed_s records_per_s mib_per_s full_waits blocked_s \
         cpu_us_per_record cpu_user_s cpu_system_s broker_cpu_s machine_busy_cpus throughput \
         latency_us allocations allocations_per_record kernel_entries_per_request \
         records_per_batch batches_per_request batches requests retries wakes voluntary_switches \
         involuntary_switches peak_rss_bytes verified log_growth run",
    ),
    ("/placement", "client_cpus broker_cpus reason"),
    ("/throughput", THROUGHPUT),
    ("/latency_us", "response service stages floor"),
    ("/latency_us/response", LATENCY),
    ("/latency_us/service", LATENCY),
    (
        "/latency_us/stages",
        "append_to_seal seal_to_wire wire_to_ack",
    ),
    ("/latency_us/stages/append_to_seal", LATENCY),
    ("/latency_us/stages/seal_to_wire", LATENCY),
    ("/latency_us/stages/wire_to_ack", LATENCY),
    ("/latency_us/floor", LATENCY),
    ("/verified", "records lost duplicated reordered corrupt"),
    (
        "/run",
        "taken_records acked_records sent_records not_written_records unknown_records \
         unsettled_records",
    ),
];

/// Objects that grow with settings and with what a host tells: these keys are among theirs.
const AMONG: &[(&str, &str)] = &[
    (
        "/config",
        "brokers topic partitions shards driver wait engine record_size keys compression \
         acks idempotent linger batch memory rate arrival producers delivery duration warmup \
         records set",
    ),
    (
        "/environment",
        "host kernel arch cpu_model cpus affinity build rustc commit io_uring steal_percent \
         governor congestion_control transparent_hugepages memlock_bytes findings unit_costs",
    ),
];

/// What `run.json` has besides, and each of its intervals.
const FILE: &str = "intervals";
const INTERVAL: &[(&str, &str)] = &[
    (
        "",
        "start_s length_s acked_records records_per_s cpu_us_per_record throughput response_us \
         service_us rss_bytes",
    ),
    ("/throughput", THROUGHPUT),
    ("/response_us", LATENCY),
    ("/service_us", LATENCY),
];

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn keys(document: &Value, path: &str) -> BTreeSet<String> {
    let object = document.pointer(path).and_then(Value::as_object);
    let object = object.unwrap_or_else(|| panic!("no object at {path}: {document:#}"));
    object.keys().cloned().collect()
}

/// Every object in `document`, but those that [`AMONG`] has, is listed with all its keys.
fn as_listed(document: &Value, listed: &[(&str, &str)]) {
    for (path, expected) in listed {
        let (keys, expected) = (keys(document, path), words(expected));
        let gone: Vec<_> = expected.difference(&keys).collect();
        let new: Vec<_> = keys.difference(&expected).collect();
        assert!(
            gone.is_empty(),
            "programs read {gone:?} of `{path}`: not there any more"
        );
        assert!(
            new.is_empty(),
            "{new:?} of `{path}` is new: to be listed here"
        );
        for key in keys {
            let inner = format!("{path}/{key}");
            let known = listed.iter().chain(AMONG).any(|(path, _)| *path == inner);
            let object = document.pointer(&inner).is_some_and(Value::is_object);
            assert!(
                known || !object,
                "{inner} is a new object: to be listed here"
            );
        }
    }
}

#[test]
fn a_runs_document_has_the_names_that_programs_read() {
    let folder = Folder::new("keys");
    let out = folder.path("run");
    let flags = ["--rate", "20k", "--records", "6k", "--warmup", "50ms"];
    let output = run(&[&["run", "--format", "json", "--out", &out], &flags[..]].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let printed = document(&output);
    as_listed(&printed, KEYS);
    for (path, expected) in AMONG {
        let keys = keys(&printed, path);
        let gone: Vec<_> = words(expected)
            .into_iter()
            .filter(|key| !keys.contains(key))
            .collect();
        assert!(
            gone.is_empty(),
            "programs read {gone:?} of `{path}`: not there any more"
        );
    }

    let kept = fs::read(Path::new(&out).join("run.json")).expect("the file");
    let kept: Value = serde_json::from_slice(&kept).expect("JSON");
    let more: Vec<_> = keys(&kept, "")
        .difference(&keys(&printed, ""))
        .cloned()
        .collect();
    assert_eq!(more, [FILE]);
    // One in which something was acked: on a machine that stood still there are others.
    let intervals = kept[FILE].as_array().expect("a series");
    let whole = |interval: &&Value| {
        let mut inner = INTERVAL.iter().map(|(path, _)| interval.pointer(path));
        inner.all(|object| object.is_some_and(Value::is_object))
    };
    let interval = intervals.iter().find(whole);
    as_listed(interval.expect("an interval with figures"), INTERVAL);
}
