//! `merge`.

use std::fs;
use std::path::Path;

use ringpost_bench::recorded::Recorded;

use crate::support::{Folder, code, document, keep, number, run, text};

#[test]
fn merged_runs_are_one_result_that_other_commands_read() {
    let folder = Folder::new("merge");
    let (first, second) = (folder.path("first"), folder.path("second"));
    let out = folder.path("merged");
    let parts = [keep(&first, &[]), keep(&second, &[])];
    let output = run(&["merge", &first, &second, "-o", &out, "--format", "json"]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let merged = document(&output);
    let sum = |path: &str| parts.iter().map(|part| number(part, path)).sum::<f64>();
    for path in [
        "/acked_records",
        "/requests",
        "/verified/records",
        "/acked_bytes",
    ] {
        assert_eq!(number(&merged, path), sum(path), "{path}");
    }
    assert_eq!(merged["merged"]["how"], "rounds");
    assert_eq!(merged["merged"]["parts"][1]["name"], "second");

    let open = |folder: &str| Recorded::open(Path::new(folder)).expect("a results folder");
    let (merged, mut all) = (open(&out), open(&first).response.total);
    all.add(&open(&second).response.total)
        .expect("the same bounds");
    assert_eq!(merged.response.total, all);
    let series: u64 = merged
        .series
        .iter()
        .map(|interval| interval.acked_records)
        .sum();
    assert_eq!(series, all.len());
    for file in [
        "README.md",
        "summary.md",
        "scenario.toml",
        "service.hlog",
        "throughput.hlog",
    ] {
        assert!(Path::new(&out).join(file).is_file(), "{file}");
    }

    let judged = run(&["gate", &out, "--threshold", "acked_records >= 20k"]);
    assert_eq!(code(&judged), Some(0), "{}", text(&judged.stdout));
    let third = folder.path("third");
    keep(&third, &[]);
    let again = run(&["merge", &out, &third, "-o", &folder.path("again")]);
    assert_eq!(code(&again), Some(0), "{}", text(&again.stderr));
    assert!(
        text(&again.stdout).contains("3 results"),
        "{}",
        text(&again.stdout)
    );
}

#[test]
fn a_run_that_would_be_counted_twice_is_refused() {
    let folder = Folder::new("merge-twice");
    let [cell, first, second] = ["cell", "cell/rounds/1", "cell/rounds/2"].map(|n| folder.path(n));
    keep(&first, &[]);
    keep(&second, &[]);
    assert_eq!(
        code(&run(&["merge", &first, &second, "-o", &cell])),
        Some(0)
    );
    let out = folder.path("out");
    let spelled = format!("{cell}/rounds/../rounds/1");
    for parts in [[&first, &first], [&first, &spelled], [&cell, &second]] {
        let refused = run(&["merge", parts[0], parts[1], "-o", &out, "--force"]);
        let told = text(&refused.stderr);
        assert_eq!(code(&refused), Some(2), "{told}");
        assert!(
            told.contains("counted twice") && told.contains(parts[1]),
            "{told}"
        );
    }
    assert!(!Path::new(&out).exists());
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let folder = Folder::new("merge-refused");
    let (small, large) = (folder.path("small"), folder.path("large"));
    let out = folder.path("out");
    keep(&small, &[]);
    keep(&large, &["--record-size", "200B"]);
    let refused = run(&["merge", &small, &large, "-o", &out]);
    assert_eq!(code(&refused), Some(2));
    let told = text(&refused.stderr);
    assert!(told.contains("record_size: 100B | 200B"), "{told}");
    let forced = run(&["merge", &small, &large, "-o", &out, "--force"]);
    assert_eq!(code(&forced), Some(0), "{}", text(&forced.stderr));
    assert!(text(&forced.stdout).contains("They differ in record_size"));

    assert_eq!(
        code(&run(&["merge", &small, &out, "-o", &small])),
        Some(2),
        "out is a part"
    );
    let nothing = run(&["merge", &folder.path("nothing"), "-o", &out]);
    assert_eq!(code(&nothing), Some(2));
    assert!(
        text(&nothing.stderr).contains("run.json"),
        "{}",
        text(&nothing.stderr)
    );
    fs::write(folder.path("file"), "").expect("written");
    assert_eq!(
        code(&run(&["merge", &small, "-o", &folder.path("file")])),
        Some(5)
    );
    assert_eq!(code(&run(&["merge", &small])), Some(2), "no --out");
}
