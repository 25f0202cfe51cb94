//! `doctor`, and what runs keep of it.

use serde_json::Value;

use crate::support::{SHORT, code, document, number, run, text};

/// The finding of that name.
fn finding<'a>(findings: &'a Value, name: &str) -> &'a Value {
    findings
        .as_array()
        .and_then(|all| all.iter().find(|finding| finding["name"] == name))
        .unwrap_or_else(|| panic!("no {name} in {findings:#}"))
}

#[test]
fn the_document_has_every_finding_and_every_cost() {
    let output = run(&["doctor", "--format", "json"]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let document = document(&output);
    assert_eq!(document["schema"], "ringpost-bench/doctor/1");
    for name in [
        "cpu",
        "build",
        "core_sharing",
        "cpu_quota",
        "virtual_machine",
        "governor",
        "turbo",
        "clocksource",
        "io_uring",
        "memlock",
        "congestion_control",
        "transparent_hugepages",
        "steal",
        "load",
        "syscall",
        "clock_read",
        "memcpy",
        "crc",
        "thread_wake",
        "tcp_ping_pong",
    ] {
        let finding = finding(&document["findings"], name);
        for key in ["value", "effect"] {
            let said = finding[key].as_str().is_some_and(|text| !text.is_empty());
            assert!(said, "{name}.{key}");
        }
        let verdict = finding["verdict"].as_str().expect("a word");
        assert!(["good", "caution", "bad"].contains(&verdict), "{verdict}");
    }
    for cost in [
        "syscall_ns",
        "clock_ns",
        "memcpy_ns_per_byte",
        "crc_ns_per_byte",
        "wake_us/p50",
        "ping_pong/us/p99",
    ] {
        assert!(
            number(&document, &format!("/unit_costs/{cost}")) > 0.0,
            "{cost}"
        );
    }
    if cfg!(debug_assertions) {
        assert_eq!(finding(&document["findings"], "build")["verdict"], "bad");
        assert_eq!(document["verdict"], "bad");
    }
}

#[test]
fn the_table_says_what_to_do() {
    let output = run(&["doctor"]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for said in [
        "io uring",
        "congestion control",
        "thread wake",
        "verdict",
        "bad",
    ] {
        assert!(table.contains(said), "{said} is not in\n{table}");
    }
    assert_eq!(code(&run(&["doctor", "--format", "yaml"])), Some(2));
    let help = text(&run(&["doctor", "--help"]).stdout);
    assert!(
        help.contains("Examples:") && help.contains("Exit codes:"),
        "{help}"
    );
}

#[test]
fn a_run_keeps_what_doctor_says() {
    let output = run(&[&["run", "--format", "json"], &SHORT[..]].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let document = document(&output);
    let findings = &document["environment"]["findings"];
    for name in ["cpu", "io_uring", "steal", "load", "tcp_ping_pong"] {
        finding(findings, name);
    }
    let costs = "/environment/unit_costs";
    assert!(number(&document, &format!("{costs}/syscall_ns")) > 0.0);
    assert_eq!(
        number(&document, &format!("{costs}/ping_pong/us/p50")),
        number(&document, "/latency_us/floor/p50"),
        "the floor beside the latencies"
    );
    let hints = document["hints"].as_array().expect("a list");
    let cold = hints
        .iter()
        .any(|hint| hint.as_str().is_some_and(|hint| hint.contains("warm-up")));
    assert!(cold, "{hints:?}");
}

/// On a machine where the client has one CPU.
#[test]
fn spinning_on_the_applications_only_cpu_is_refused() {
    let mut command = std::process::Command::new("taskset");
    command.args(["-c", "0-1", env!("CARGO_BIN_EXE_ringpost-bench")]);
    command.args(["run", "--wait", "spin", "--duration", "1ms"]);
    let output = command.output().expect("taskset is part of util-linux");
    assert_eq!(code(&output), Some(2), "{}", text(&output.stderr));
    let told = text(&output.stderr);
    assert!(
        told.contains("wait=spin") && told.contains("one CPU") && told.contains("--embedded"),
        "{told}"
    );

    // There a thread that drives the shard itself spins on its own time.
    let mut command = std::process::Command::new("taskset");
    command.args(["-c", "0-1", env!("CARGO_BIN_EXE_ringpost-bench")]);
    command.args(["run", "--embedded", "--wait", "spin", "--delivery", "wait"]);
    command.args(["--duration", "100ms", "--warmup", "50ms", "--format=json"]);
    let output = command.output().expect("taskset is part of util-linux");
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let document = document(&output);
    let floor = &document["environment"]["unit_costs"]["ping_pong"]["wait"];
    assert_eq!(floor, "spin", "the floor waits the same way");
}
