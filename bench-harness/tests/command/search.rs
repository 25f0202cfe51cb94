//! `peak` and `slo`.

use std::process::Output;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::support::{Running, code, document, is_gone, nobody, number, run, text};

/// Probes as short as they can be and still tell something, also on a busy machine: without an ack in
/// its window, the run that finds the peak has failed.
const QUICK: [&str; 6] = ["--duration", "1s", "--warmup", "100ms", "--format", "json"];

#[test]
fn peak_finds_a_rate_or_says_that_it_did_not() {
    let output = run(&[&["peak", "--probes", "3", "--precision", "50"], &QUICK[..]].concat());
    let document = document(&output);
    assert_eq!(document["schema"], "ringpost-bench/search/1");
    assert_eq!(document["what"], "peak");
    let probes = document["probes"].as_array().expect("a list");
    assert!((2..=3).contains(&probes.len()), "{document:#}");
    assert!(number(&document, "/closed_loop_records_per_s") > 0.0);
    for probe in probes {
        assert!(number(probe, "/rate") > 0.0);
        // On a machine that stood still nothing may have been acked in the window.
        let timed = || number(probe, "/response_us/p99") > 0.0;
        assert!(number(probe, "/acked_records") == 0.0 || timed());
    }
    consistent(&output);
    let told = text(&output.stderr);
    for said in ["Probe 1", "left", "probes at most"] {
        assert!(told.contains(said), "{said} is not in\n{told}");
    }
}

#[test]
fn slo_confirms_what_it_finds() {
    let mut arguments = vec!["slo", "p99 < 60s", "--lowest", "20", "--probes", "12"];
    // Awaited one by one: a rate that is soon too high.
    arguments.extend(["--delivery", "wait", "--precision", "50"]);
    arguments.extend(QUICK);
    let output = run(&arguments);
    assert_eq!(consistent(&output)["objective"], "p99 < 60s");
}

/// The document, whose verdict, answer and probes must belong together, and to the exit code. Which
/// it is depends on how busy this machine is.
fn consistent(output: &Output) -> Value {
    let document = document(output);
    let probes = document["probes"].as_array().expect("a list");
    match document["verdict"].as_str() {
        Some("found") => {
            assert_eq!(code(output), Some(0));
            let found = &document["found_records_per_s"];
            let confirmed = |probe: &Value| {
                probe["rate"] == *found
                    && probe["confirming"] == Value::Bool(true)
                    && probe["holds"] == Value::Bool(true)
            };
            assert!(probes.iter().any(confirmed), "{document:#}");
        }
        Some("unconfirmed" | "none") => {
            assert_eq!(code(output), Some(3));
            assert!(document["found_records_per_s"].is_null());
        }
        other => panic!("{other:?}: {}", text(&output.stderr)),
    }
    document
}

#[test]
fn an_objective_that_the_lowest_rate_misses_is_told() {
    let mut arguments = vec!["slo", "p50 < 1us", "--lowest", "100"];
    arguments.extend(&QUICK[..4]);
    let output = run(&arguments);
    assert_eq!(code(&output), Some(3), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert!(told.contains("None: not even 100 records/s"), "{told}");
}

#[test]
fn an_interrupt_ends_the_search_and_its_probe() {
    let mut running = Running::start(&[
        "peak",
        "--duration",
        "5m",
        "--warmup",
        "0s",
        "--format",
        "json",
    ]);
    running.until("Probe 1");
    let probes = running.children();
    kill(running.pid(), Signal::SIGINT).expect("signalled");
    let output = running.wait();
    assert_eq!(code(&output), Some(3), "{}", text(&output.stderr));
    let document = document(&output);
    assert_eq!(document["verdict"], "interrupted");
    assert!(number(&document, "/closed_loop_records_per_s") > 0.0);
    assert!(
        probes.into_iter().all(is_gone),
        "a probe outlived its search"
    );
}

#[test]
fn an_interrupt_before_the_first_probe_ends_the_search_too() {
    let endless = ["--duration", "5m", "--warmup", "5m", "--format", "json"];
    for command in [&["peak"][..], &["slo", "p99 < 5ms"]] {
        let mut running = Running::start(&[command, &endless].concat());
        running.until("Looking for the peak");
        kill(running.pid(), Signal::SIGINT).expect("signalled");
        let output = running.wait();
        assert_eq!(code(&output), Some(3), "{}", text(&output.stderr));
        let document = document(&output);
        assert_eq!(document["verdict"], "interrupted");
        assert_eq!(document["probes"], serde_json::json!([]));
        assert!(document["closed_loop_records_per_s"].is_null());
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (arguments, said) in [
        (vec!["slo", "p99 5ms"], "expected"),
        (vec!["slo", "vs_baseline p99 < 5%"], "no baseline"),
        (vec!["peak", "--rate", "5k"], "searched for"),
        (vec!["peak", "--records", "5k"], "another length"),
        (vec!["peak", "--precision", "0"], "0.5 to 50"),
        (vec!["peak", "--probes", "1"], "from 2 to 200"),
        (vec!["peak", "--partition", "1"], "--partitions"),
    ] {
        let output = run(&arguments);
        assert_eq!(code(&output), Some(2), "{arguments:?}");
        let told = text(&output.stderr);
        assert!(
            told.contains(said),
            "{arguments:?}: {said} is not in\n{told}"
        );
    }
    assert_eq!(code(&run(&["slo"])), Some(2));
    for command in ["peak", "slo"] {
        let help = text(&run(&[command, "--help"]).stdout);
        assert!(
            help.contains("Examples:") && help.contains("  3  not even"),
            "{help}"
        );
    }
}

#[test]
fn a_broker_that_is_not_there_ends_the_search() {
    let (_taken, address) = nobody();
    let output = run(&[&["peak", "--brokers", &address], &QUICK[..]].concat());
    assert_eq!(code(&output), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&address));
}
