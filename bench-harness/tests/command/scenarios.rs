//! The scenarios that come with the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ringpost_bench::plan::Plan;
use ringpost_bench::scenario::Draft;
use ringpost_bench::sweep::matrix::Matrix;

use crate::support::{Folder, code, document, run, text};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// Every scenario by its name.
fn scenarios() -> Vec<(String, PathBuf)> {
    let files = fs::read_dir(folder()).expect("scenarios");
    let files = files.map(|file| file.expect("a file").path());
    let mut found: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .map(|path| {
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, path)
        })
        .collect();
    found.sort();
    found
}

fn read(path: &Path) -> Draft {
    let mut draft = Draft::default();
    draft.read_file(path);
    draft
}

fn is_sweep(path: &Path) -> bool {
    !read(path).take_axes().is_empty()
}

/// The plan of its first run.
fn plan(path: &Path) -> Plan {
    if is_sweep(path) {
        let matrix = Matrix::of(read(path), "it").unwrap_or_else(|faults| panic!("{faults}"));
        return matrix.cells[0].plan.clone();
    }
    read(path)
        .finish()
        .unwrap_or_else(|faults| panic!("{faults}"))
}

#[test]
fn each_is_explained_sets_limits_and_is_listed() {
    let readme = fs::read_to_string(folder().join("README.md")).expect("read");
    let found = scenarios();
    assert!(found.len() >= 12, "{found:?}");
    for (name, path) in &found {
        let text = fs::read_to_string(path).expect("read");
        assert!(text.starts_with("# "), "{name} begins with what it shows");
        let plan = plan(path);
        assert!(!plan.gate.is_empty(), "{name}");
        assert_eq!(plan.topic, *name);
        assert!(readme.contains(&format!("| `{name}` | ")), "{name}");
    }
}

#[test]
fn each_runs() {
    let results = Folder::new("scenarios");
    let left = Mutex::new(scenarios());
    let next = || left.lock().expect("no panic").pop();
    let work = || {
        while let Some((name, path)) = next() {
            let (file, out) = (path.display().to_string(), results.path(&name));
            let command = if is_sweep(&path) { "sweep" } else { "run" };
            // By records where a limit needs some: a busy machine may ack none in a short time.
            let length = match name.as_str() {
                "idle" => ["--duration", "200ms"].as_slice(),
                // The run that finds the peak goes by time.
                "overload" => &["--duration", "1s", "--records", "5k"],
                _ if command == "sweep" => &["--duration", "200ms"],
                _ => &["--records", "5k"],
            };
            let short = [&["--warmup", "20ms", "--format", "json"], length].concat();
            let output = run(&[&[command, &file, "--out", &out], &short[..]].concat());
            let told = text(&output.stderr);
            assert_eq!(code(&output), Some(0), "{name}: {told}");
            if name == "slow-broker" {
                assert!(
                    told.contains("holds  p50 >= 20ms"),
                    "it was not slow: {told}"
                );
            }
            if command == "run" {
                assert!(!document(&output)["gate"].is_null(), "{name}");
                // Each figure a limit is set on is there, but for latencies of no record at all.
                let unknown: Vec<_> = told.lines().filter(|line| line.starts_with('?')).collect();
                assert!(unknown.is_empty() || name == "idle", "{name}: {unknown:?}");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(work);
        }
    });
}
