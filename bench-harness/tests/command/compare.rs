//! `compare`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Folder, code, document, keep, number, run, text};

/// A copy of the results in `from`, its rate and CPU per record made `rate` and `cpu` times theirs.
fn plant(from: &str, to: &Path, rate: f64, cpu: f64) {
    fs::create_dir_all(to).expect("made");
    for file in fs::read_dir(from).expect("listed") {
        let file = file.expect("an entry");
        if file.path().is_file() {
            fs::copy(file.path(), to.join(file.file_name())).expect("copied");
        }
    }
    let path = to.join("run.json");
    let mut run: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    for (field, factor) in [
        ("elapsed_s", 1.0 / rate),
        ("records_per_s", rate),
        ("cpu_user_s", cpu),
        ("cpu_system_s", cpu),
        ("cpu_us_per_record", cpu),
    ] {
        run[field] = json!(number(&run, &format!("/{field}")) * factor);
    }
    fs::write(path, run.to_string()).expect("written");
}

/// A cell of a sweep with eight rounds that differ a little.
fn cell(from: &str, to: &str, rate: f64, cpu: f64) {
    plant(from, Path::new(to), rate, cpu);
    for round in 1..=8u32 {
        let noise = 1.0 + 0.01 * f64::from(round * 5 % 8) / 8.0;
        let folder = Path::new(to).join("rounds").join(round.to_string());
        plant(from, &folder, rate * noise, cpu / noise);
    }
}

#[test]
fn a_planted_difference_is_found_and_none_is_not() {
    let folder = Folder::new("compare");
    let run_once = folder.path("run");
    keep(&run_once, &[]);
    let [same, twin, faster] = ["same", "twin", "faster"].map(|name| folder.path(name));
    cell(&run_once, &same, 1.0, 1.0);
    cell(&run_once, &twin, 1.0, 1.0);
    cell(&run_once, &faster, 1.05, 0.95);

    let output = run(&["compare", &same, &faster, &twin, "--format", "json"]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let comparison = document(&output);
    assert_eq!(comparison["schema"], "ringpost-bench/compare/1");
    let [against_faster, against_twin] = [0, 1].map(|place| &comparison["comparisons"][place]);
    assert_eq!(against_faster["unit"], "rounds");
    assert_eq!(against_faster["pairs"], 8);
    assert_eq!(against_faster["verdict"], "faster", "{against_faster:#}");
    assert_eq!(against_twin["verdict"], "within noise", "{against_twin:#}");
    let figure = |name: &str| {
        let figures = against_faster["figures"].as_array().expect("figures");
        figures
            .iter()
            .find(|figure| figure["name"] == name)
            .cloned()
            .expect(name)
    };
    assert!((number(&figure("records_per_s"), "/ratio") - 1.05).abs() < 1e-3);
    assert!((number(&figure("cpu_us_per_record"), "/ratio") - 0.95).abs() < 1e-3);
    assert_eq!(
        figure("response p99")["verdict"],
        "within noise",
        "the same histograms"
    );

    let report = text(&run(&["compare", &same, &faster]).stdout);
    for said in [
        "faster is faster than same (8 pairs of rounds)",
        "+5.0 %",
        "records_per_batch",
        "kernel_entries_per_request",
        "allocations_per_record",
        "p99.9",
        "A same",
    ] {
        assert!(report.contains(said), "{said} is not in\n{report}");
    }
    let markdown = text(&run(&["compare", &faster, &same, "--markdown"]).stdout);
    assert!(
        markdown.contains("**same is slower than faster (8 pairs of rounds)**"),
        "{markdown}"
    );
    assert!(markdown.contains("| records_per_s \\* |"), "{markdown}");
}

#[test]
fn an_unfinished_sweep_is_compared_by_the_rounds_it_has() {
    let folder = Folder::new("compare-unfinished");
    let run_once = folder.path("run");
    keep(&run_once, &[]);
    let [same, faster] = ["sweep/same", "sweep/faster"].map(|name| folder.path(name));
    cell(&run_once, &same, 1.0, 1.0);
    cell(&run_once, &faster, 1.05, 0.95);
    // As a sweep of ten rounds leaves it that was ended in the eighth: a cell has no results of its
    // own, and the round that broke off is to be run again.
    for cell in [&same, &faster] {
        fs::remove_file(Path::new(cell).join("run.json")).expect("removed");
    }
    let broken = Path::new(&faster).join("rounds/8/run.json");
    let mut ended: Value = serde_json::from_slice(&fs::read(&broken).expect("read")).expect("JSON");
    ended["interrupted"] = json!(true);
    fs::write(&broken, ended.to_string()).expect("written");
    let state = json!({
        "schema": "ringpost-bench/sweep/1", "scenario": "s.toml", "varies": [], "rounds": 10,
        "planned_s": null, "cells": [], "runs": [],
    });
    fs::write(folder.path("sweep/sweep.json"), state.to_string()).expect("written");

    let output = run(&["compare", &same, &faster, "--format", "json"]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let comparison = document(&output);
    let warnings = comparison["warnings"].to_string();
    for said in [
        "same: 8 of 10 rounds are there, its sweep is not finished",
        "faster: 7 of 10 rounds are there, its sweep is not finished",
    ] {
        assert!(warnings.contains(said), "{said} is not in {warnings}");
    }
    let against = &comparison["comparisons"][0];
    assert_eq!(
        (&against["unit"], &against["pairs"]),
        (&json!("rounds"), &json!(7))
    );
    assert_eq!(against["verdict"], "faster", "{against:#}");
    let records = |cell: usize| {
        let path = format!("/results/{cell}/counters/7/value");
        number(&comparison, &path)
    };
    assert!(
        (records(0) / records(1) - 8.0 / 7.0).abs() < 1e-9,
        "requests of all rounds there"
    );

    fs::remove_dir_all(Path::new(&same).join("rounds")).expect("removed");
    let refused = run(&["compare", &same, &faster]);
    assert_eq!(code(&refused), Some(2), "nothing of it is there");
}

#[test]
fn other_surroundings_are_warned_about_in_every_format() {
    let folder = Folder::new("compare-hosts");
    let (here, there) = (folder.path("here"), folder.path("there"));
    keep(&here, &[]);
    plant(&here, Path::new(&there), 1.0, 1.0);
    let path = Path::new(&there).join("run.json");
    let mut run_json: Value =
        serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    let of_here = run_json["environment"].clone();
    run_json["environment"]["host"] = json!("somewhere-else");
    run_json["environment"]["kernel"] = json!("2.6.32-other");
    fs::write(&path, run_json.to_string()).expect("written");
    let value = |name: &str| of_here[name].as_str().expect("known").to_owned();
    let warnings = [
        format!(
            "different surroundings: host: {} | somewhere-else",
            value("host")
        ),
        format!(
            "different surroundings: kernel: {} | 2.6.32-other",
            value("kernel")
        ),
    ];

    let output = run(&["compare", &here, &there, "--format", "json"]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let told = document(&output)["warnings"].clone();
    let told = told.as_array().expect("a list");
    for warning in &warnings {
        assert!(
            told.contains(&json!(warning)),
            "{warning} is not in {told:?}"
        );
    }
    for format in ["text", "markdown"] {
        let output = run(&["compare", &here, &there, "--format", format]);
        assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
        let told = text(&output.stdout).replace('\\', "");
        for warning in &warnings {
            assert!(told.contains(warning), "{warning} is not in\n{told}");
        }
    }
    // The same host says nothing of the kind.
    let told = text(&run(&["compare", &here, &here]).stdout);
    assert!(!told.contains("different surroundings"), "{told}");
}

#[test]
fn different_work_is_refused_and_few_pairs_are_told() {
    let folder = Folder::new("compare-refused");
    let (none, lz4) = (folder.path("none"), folder.path("lz4"));
    keep(&none, &[]);
    keep(&lz4, &["--compression", "lz4"]);
    let refused = run(&["compare", &none, &lz4]);
    assert_eq!(code(&refused), Some(2));
    assert!(
        text(&refused.stderr).contains("compression: none | lz4"),
        "{}",
        text(&refused.stderr)
    );
    assert!(refused.stdout.is_empty());
    let forced = run(&["compare", &none, &lz4, "--force"]);
    assert_eq!(code(&forced), Some(0), "{}", text(&forced.stderr));
    let report = text(&forced.stdout);
    assert!(
        report.contains("Warning: different work: compression: none | lz4"),
        "{report}"
    );
    assert!(
        report.contains("of intervals; not reliable") && report.contains("not to be relied on")
    );

    let nothing = run(&["compare", &none, &folder.path("nothing")]);
    assert_eq!(code(&nothing), Some(2));
    assert!(
        text(&nothing.stderr).contains("run.json"),
        "{}",
        text(&nothing.stderr)
    );
    assert_eq!(code(&run(&["compare", &none])), Some(2), "one alone");
}
