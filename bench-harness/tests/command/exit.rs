//! Exit codes: every command's `--help` says exactly those it has, and the program keeps its word.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use nix::sys::signal::{Signal, kill};
use ringpost_bench::command::COMMANDS;
use serde_json::{Value, json};

use crate::support::{Folder, Running, SHORT, code, keep, run, text};

/// The codes of each command, as listed by `--help`.
const CODES: [(&str, &[u8]); 11] = [
    ("run", &[0, 1, 2, 4, 5, 130]),
    ("sweep", &[0, 1, 2, 5, 130]),
    ("doctor", &[0, 2, 5]),
    ("report", &[0, 2, 5]),
    ("broker", &[0, 1, 2, 4, 5, 130]),
    ("peak", &[0, 1, 2, 3, 4, 5, 130]),
    ("slo", &[0, 1, 2, 3, 4, 5, 130]),
    ("compare", &[0, 2, 5]),
    ("gate", &[0, 2, 3, 5]),
    ("merge", &[0, 1, 2, 5]),
    ("init", &[0, 2, 5]),
];

#[test]
fn every_help_has_examples_and_the_exit_codes_of_its_command() {
    let names: Vec<_> = COMMANDS
        .iter()
        .map(|entry| (entry.command)().get_name().to_owned())
        .collect();
    assert_eq!(names, CODES.map(|(name, _)| name));
    for (name, codes) in CODES {
        let output = run(&[name, "--help"]);
        assert_eq!(code(&output), Some(0), "{name}");
        let help = text(&output.stdout);
        let (_, examples) = help.split_once("Examples:").expect(name);
        assert!(
            examples.contains(&format!("ringpost-bench {name}")),
            "{name}"
        );
        let (_, listed) = help.split_once("Exit codes:").expect(name);
        // Two spaces, the code, two spaces; what does not fit goes on below, further in.
        let listed = listed.lines().filter_map(|line| {
            let line = line.strip_prefix("  ")?;
            line.split_once("  ")?.0.parse().ok()
        });
        assert_eq!(listed.collect::<Vec<u8>>(), codes, "{name}");
        assert_eq!(code(&run(&[name, "--no-such-flag"])), Some(2), "{name}");
    }
    let all = text(&run(&["--help"]).stdout);
    assert!(
        all.contains("Exit codes") && all.contains("  130  "),
        "{all}"
    );
}

#[test]
fn results_that_cannot_be_written_are_told_before_anything_runs() {
    let folder = Folder::new("exit-out");
    let file = folder.path("file");
    fs::write(&file, "").expect("written");
    let out = format!("{file}/results");
    let output = run(&[&["run", "--out", &out], &SHORT[..]].concat());
    assert_eq!(code(&output), Some(5));
    let told = text(&output.stderr);
    assert!(
        told.contains("--out") && !told.contains("measuring"),
        "{told}"
    );
    let output = run(&["init", &out]);
    assert_eq!(code(&output), Some(5), "{}", text(&output.stderr));
}

#[test]
fn a_result_that_is_not_good_ends_merge_with_1_and_gate_with_3() {
    let folder = Folder::new("exit-not-good");
    let (good, bad) = (folder.path("good"), folder.path("bad"));
    keep(&good, &[]);
    keep(&bad, &[]);
    let path = Path::new(&bad).join("run.json");
    let mut planted: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    planted["good"] = json!(false);
    planted["verified"]["lost"] = json!(1);
    fs::write(&path, planted.to_string()).expect("written");
    let out = folder.path("out");
    let output = run(&["merge", &good, &bad, "-o", &out]);
    assert_eq!(code(&output), Some(1), "{}", text(&output.stderr));
    for folder in [&bad, &out] {
        let output = run(&["gate", folder, "--threshold", "records_per_s > 1"]);
        assert_eq!(code(&output), Some(3), "{}", text(&output.stderr));
    }
}

#[test]
fn who_interrupts_twice_does_not_wait() {
    // What is in flight takes seconds to settle.
    let slow = [
        "--broker-delay",
        "3s",
        "--warmup",
        "0s",
        "--duration",
        "10m",
    ];
    let mut running = Running::start(&[&["run"], &slow[..]].concat());
    running.until("measuring");
    // Again and again: two that come before it has looked are one.
    while running.0.try_wait().expect("a child").is_none() {
        kill(running.pid(), Signal::SIGINT).expect("signalled");
        thread::yield_now();
    }
    let output = running.wait();
    assert_eq!(code(&output), Some(130), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
}

#[test]
fn an_address_in_use_ends_the_broker_with_4() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let output = run(&["broker", "--listen", &address]);
    assert_eq!(code(&output), Some(4));
    let told = text(&output.stderr);
    assert!(
        told.contains(&address) && output.stdout.is_empty(),
        "{told}"
    );
}
