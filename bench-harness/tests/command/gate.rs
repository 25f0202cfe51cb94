//! `gate`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Folder, code, document, keep, run, text};

#[test]
fn a_good_result_passes_and_a_planted_slow_one_fails() {
    let folder = Folder::new("gate");
    let scenario = folder.path("scenario.toml");
    fs::write(
        &scenario,
        "[gate]\nthresholds = ['p99.9 < 30s', 'lost = 0', 'records_per_s > 1']\n",
    )
    .expect("written");
    let result = folder.path("result");
    keep(&result, &[&scenario]);
    let passed = run(&["gate", &result]);
    assert_eq!(
        code(&passed),
        Some(0),
        "{}{}",
        text(&passed.stdout),
        text(&passed.stderr)
    );
    assert!(
        text(&passed.stdout).contains("4 of 4 thresholds kept"),
        "{}",
        text(&passed.stdout)
    );

    // The same, ten times slower, and its slowest records a minute.
    let slow = folder.path("slow");
    fs::create_dir(&slow).expect("made");
    for file in fs::read_dir(&result).expect("listed") {
        let file = file.expect("an entry");
        fs::copy(file.path(), Path::new(&slow).join(file.file_name())).expect("copied");
    }
    let path = Path::new(&slow).join("run.json");
    let mut planted: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    planted["records_per_s"] = json!(planted["records_per_s"].as_f64().expect("a rate") / 10.0);
    planted["latency_us"]["response"]["p99_9"] = json!(60e6);
    fs::write(&path, planted.to_string()).expect("written");
    let failed = run(&["gate", &slow, "--format", "json"]);
    assert_eq!(code(&failed), Some(3), "{}", text(&failed.stdout));
    let verdict = document(&failed);
    assert_eq!(verdict["passed"], Value::Bool(false));
    let lines = verdict["thresholds"].as_array().expect("lines");
    let of = |name: &str| {
        lines
            .iter()
            .find(|line| line["threshold"] == name)
            .expect(name)
    };
    assert_eq!(of("p99.9 < 30s")["verdict"], "fail");
    assert_eq!(of("p99.9 < 30s")["value"], json!(60e6));
    assert_eq!(of("lost = 0")["verdict"], "pass");

    let change = ["--threshold", "vs_baseline records_per_s > -3%"];
    let judged = run(&[&["gate", &slow, "--baseline", &result][..], &change].concat());
    assert_eq!(code(&judged), Some(3));
    assert!(
        text(&judged.stdout).contains("-90.00%"),
        "{}",
        text(&judged.stdout)
    );
    let equal = run(&[&["gate", &result, "--baseline", &result][..], &change].concat());
    assert_eq!(code(&equal), Some(0), "{}", text(&equal.stdout));
    let without = run(&[&["gate", &result][..], &change].concat());
    assert_eq!(code(&without), Some(2), "no baseline");
    assert!(
        text(&without.stdout).contains("there is no baseline"),
        "{}",
        text(&without.stdout)
    );
}

/// The results in `folder`, changed by `change`.
fn plant(folder: &str, change: impl FnOnce(&mut Value)) {
    let path = Path::new(folder).join("run.json");
    let mut planted: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    change(&mut planted);
    fs::write(&path, planted.to_string()).expect("written");
}

#[test]
fn a_shipped_scenario_is_judged_against_brokers_elsewhere_too() {
    let folder = Folder::new("gate-elsewhere");
    let result = folder.path("result");
    keep(&result, &[]);
    let grown = |surplus: u64| json!({"records": 10_000, "missing": 0, "surplus": surplus});
    plant(&result, |run| {
        run["gate"] = json!(["lost = 0", "duplicated = 0", "reordered = 0", "corrupt = 0"]);
        run["config"]["brokers"] = json!("10.0.0.5:9092");
        run["verified"] = Value::Null;
        run["log_growth"] = grown(0);
    });
    let judged = run(&["gate", &result]);
    let told = text(&judged.stdout);
    assert_eq!(code(&judged), Some(0), "{told}{}", text(&judged.stderr));
    for said in [
        "pass  lost = 0",
        "pass  duplicated = 0",
        "-     reordered = 0",
        "-     corrupt = 0",
        "not applicable: brokers elsewhere do not tell",
        "3 of 3 thresholds kept",
    ] {
        assert!(told.contains(said), "{said} is not in\n{told}");
    }
    plant(&result, |run| run["log_growth"] = grown(2));
    let judged = run(&["gate", &result, "--format", "json"]);
    assert_eq!(code(&judged), Some(3), "{}", text(&judged.stdout));
    let verdicts = document(&judged)["thresholds"].clone();
    let verdicts: Vec<_> = (verdicts.as_array().expect("lines").iter())
        .map(|line| line["verdict"].as_str().expect("a word").to_owned())
        .collect();
    let expected = ["pass", "pass", "fail", "not applicable", "not applicable"];
    assert_eq!(verdicts, expected);
}

#[test]
fn an_interrupted_result_is_not_judged() {
    let folder = Folder::new("gate-interrupted");
    let result = folder.path("result");
    keep(&result, &[]);
    plant(&result, |run| run["interrupted"] = json!(true));
    for more in [&[][..], &["--force"]] {
        let arguments = ["gate", &result, "--threshold", "records_per_s > 1"];
        let refused = run(&[&arguments[..], more].concat());
        assert_eq!(code(&refused), Some(2), "{}", text(&refused.stdout));
        let told = text(&refused.stderr);
        assert!(
            told.contains("was interrupted") && told.contains(&result),
            "{told}"
        );
    }
}

#[test]
fn what_cannot_be_judged_ends_with_2() {
    let folder = Folder::new("gate-refused");
    let (result, other) = (folder.path("result"), folder.path("other"));
    keep(&result, &[]);
    keep(&other, &["--acks", "1"]);
    let told = |arguments: &[&str], said: &str| {
        let output = run(&[&["gate"], arguments].concat());
        let all = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(code(&output), Some(2), "{all}");
        assert!(all.contains(said), "{said} is not in\n{all}");
    };
    told(&[&result], "no [gate]");
    told(
        &[&result, "--threshold", "p99.9 < 2"],
        "expected a duration with its unit",
    );
    told(
        &[&result, "--threshold", "wire_to_ack p99 < 2ms"],
        "does not have this figure",
    );
    told(&[&folder.path("nothing")], "run.json");
    let baseline = [
        "--baseline",
        &other,
        "--threshold",
        "vs_baseline p99 < 900%",
    ];
    told(
        &[&[result.as_str()][..], &baseline].concat(),
        "acks: 1 | all",
    );
}
