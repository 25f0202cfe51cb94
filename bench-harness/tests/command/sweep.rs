//! `sweep`: its folders, its exit codes, and what it does when it is not left alone.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use ringpost_bench::recorded::Recorded;
use ringpost_bench::report::lock;
use serde_json::Value;

use crate::support::{Folder, Running, bench, broker, code, document, nobody, run, text};

/// A scenario whose runs are as short as they can be, with `rest` after its settings.
fn scenario(folder: &Folder, rest: &str) -> String {
    let short = "engine = 'null'\nwarmup = '20ms'\nduration = '100ms'\n";
    whole_scenario(folder, &format!("{short}{rest}"))
}

fn whole_scenario(folder: &Folder, text: &str) -> String {
    let file = folder.path("scenario.toml");
    fs::write(&file, text).expect("written");
    file
}

fn state(out: &str) -> Value {
    let json = fs::read(Path::new(out).join("sweep.json")).expect("a state");
    serde_json::from_slice(&json).expect("JSON")
}

/// What became of each run, in order.
fn progress(out: &str) -> Vec<String> {
    let runs = state(out)["runs"].as_array().cloned().expect("runs");
    let told = |run: &Value| run["progress"].as_str().expect("text").to_owned();
    runs.iter().map(told).collect()
}

/// What cannot stay the same when a file is written again.
fn identity(path: &str) -> (Vec<u8>, std::time::SystemTime) {
    let modified = fs::metadata(path).and_then(|data| data.modified());
    (fs::read(path).expect("read"), modified.expect("a time"))
}

#[test]
fn a_sweep_writes_a_results_folder_for_each_cell_and_runs_none_of_them_twice() {
    let folder = Folder::new("sweep");
    let out = folder.path("out");
    let file = scenario(
        &folder,
        "[sweep]\nrecord_size = ['100B', '1KiB']\nkeys = ['zipf:10,1']\n\
         [gate]\nthresholds = ['acked_records >= 0', 'p50 < 1us']\n",
    );
    let arguments = ["sweep", &file, "--out", &out, "--format", "json"];
    let output = run(&arguments);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    assert_eq!(document(&output), state(&out));
    assert_eq!(progress(&out), ["finished", "finished"]);
    let mut before = Vec::new();
    for (cell, size) in [("100B-zipf_10_1", "100B"), ("1KiB-zipf_10_1", "1KiB")] {
        let cell = format!("{out}/{cell}");
        let recorded = Recorded::open(cell.as_ref()).expect("a results folder");
        assert_eq!(recorded.document.config["record_size"], size);
        assert_eq!(recorded.document.gate.len(), 2);
        let scenario = fs::read_to_string(format!("{cell}/scenario.toml")).expect("read");
        assert!(scenario.contains("acked_records >= 0"), "{scenario}");
        before.push((
            format!("{cell}/run.json"),
            identity(&format!("{cell}/run.json")),
        ));
    }
    let told = text(&output.stderr);
    for said in [
        "[1/2] 100B-zipf_10_1: started, about ",
        "[2/2] 1KiB-zipf_10_1: ",
        "1 of 2 thresholds hold",
    ] {
        assert!(told.contains(said), "{said}\nis not in\n{told}");
    }
    let readme = fs::read_to_string(format!("{out}/README.md")).expect("read");
    assert!(readme.contains("| 1KiB-zipf_10_1 | "), "{readme}");

    let output = run(&arguments[..4]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stderr);
    assert!(told.contains("2 of 2 runs are there already"), "{told}");
    assert!(text(&output.stdout).contains("100B-zipf_10_1"));
    for (path, identity_before) in before {
        assert_eq!(identity(&path), identity_before, "{path}");
    }
}

#[test]
fn a_killed_sweep_goes_on_where_it_was() {
    let folder = Folder::new("sweep-killed");
    let out = folder.path("out");
    let server = broker();
    let address = server.bootstrap();
    let brokers = format!("[sweep]\nbrokers = ['embedded', '{address}']\nacks = [1, 'all']\n");
    let file = scenario(&folder, &format!("topic = 't'\n{brokers}"));
    let arguments = ["sweep", &file, "--out", &out];
    let name = address.replace(':', "_");
    let [second, third] = ["1", "all"].map(|acks| format!("{name}-{acks}"));
    let cells = ["embedded-1", "embedded-all", &second, &third];
    // The third run does not get beyond its first request.
    server.pause_node(1, true);
    let mut sweep = Running::start(&arguments);
    sweep.until(&format!("[3/4] {}: started", cells[2]));
    while sweep.children().is_empty() {
        std::thread::yield_now();
    }
    kill(sweep.pid(), Signal::SIGKILL).expect("signalled");
    drop(sweep);
    assert_eq!(
        progress(&out),
        ["finished", "finished", "running", "planned"]
    );
    let cell = |name: &str| format!("{out}/{name}");
    // It outlives its sweep, and its folder is its own from the start: nobody else writes there.
    let taken = lock::lock(cell(cells[2]).as_ref()).expect_err("the run's");
    assert!(taken.to_string().contains("another process"), "{taken}");
    let first = format!("{}/run.json", cell(cells[0]));
    let before = identity(&first);

    server.pause_node(1, false);
    let output = run(&arguments);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stderr);
    assert!(told.contains("2 of 4 runs are there already"), "{told}");
    assert!(!told.contains("[1/4]") && !told.contains("[2/4]"), "{told}");
    assert_eq!(identity(&first), before);
    assert_eq!(progress(&out), ["finished"; 4]);
    for name in cells {
        let recorded = Recorded::open(cell(name).as_ref()).expect("a result");
        assert!(!recorded.document.interrupted, "{name}");
    }
    server.shutdown();
}

#[test]
fn a_scenario_with_a_corpus_is_the_same_from_every_folder() {
    let folder = Folder::new("sweep-corpus");
    fs::create_dir_all(folder.path("elsewhere")).expect("made");
    for name in ["few", "more"] {
        fs::write(
            folder.path(name),
            format!("an event of {name}\n").repeat(100),
        )
        .expect("written");
    }
    let out = folder.path("out");
    scenario(&folder, "[sweep]\nrecord_size = ['few', 'more']\n");
    let from = |place: &str, arguments: &[&str]| {
        let mut command = bench(arguments);
        command
            .current_dir(folder.path(place))
            .output()
            .expect("runs")
    };
    let output = from(".", &["sweep", "scenario.toml", "--out", &out]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let again = from("elsewhere", &["sweep", "../scenario.toml", "--out", &out]);
    assert_eq!(code(&again), Some(0), "{}", text(&again.stderr));
    let told = text(&again.stderr);
    assert!(told.contains("2 of 2 runs are there already"), "{told}");

    let short = ["--duration", "1ms", "--format", "json"];
    let kept = format!("{out}/more/scenario.toml");
    let output = from("elsewhere", &[&["run", &kept], &short[..]].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let corpus = document(&output)["config"]["record_size"].clone();
    assert!(
        corpus.as_str().is_some_and(|path| path.ends_with("/more")),
        "{corpus}"
    );
}

#[test]
fn an_interrupted_cell_counts_as_not_run() {
    let folder = Folder::new("sweep-interrupted");
    let out = folder.path("out");
    let file = whole_scenario(
        &folder,
        "engine = 'null'\nwarmup = '20ms'\n[sweep]\nduration = ['10m', '100ms']\n",
    );
    let mut sweep = Running::start(&["sweep", &file, "--out", &out]);
    sweep.until("[1/2] 10m: started");
    kill(sweep.pid(), Signal::SIGINT).expect("signalled");
    let output = sweep.wait();
    assert_eq!(code(&output), Some(1), "{}", text(&output.stderr));
    assert_eq!(progress(&out), ["interrupted", "planned"]);
    let told = text(&output.stderr);
    assert!(told.contains("the same command again runs those"), "{told}");
}

#[test]
fn a_cell_that_fails_does_not_keep_the_others_from_running() {
    let folder = Folder::new("sweep-fails");
    let out = folder.path("out");
    let (_taken, address) = nobody();
    let file = scenario(
        &folder,
        &format!("[sweep]\nbrokers = ['{address}', 'embedded']\n"),
    );
    for _ in 0..2 {
        let output = run(&["sweep", &file, "--out", &out]);
        assert_eq!(code(&output), Some(1), "{}", text(&output.stderr));
        assert_eq!(progress(&out), ["failed", "finished"]);
        let why = state(&out)["runs"][0]["why"].clone();
        assert!(
            why.as_str().is_some_and(|why| why.contains(&address)),
            "{why}"
        );
        let told = text(&output.stderr);
        let name = address.replace(':', "_");
        assert!(told.contains(&format!("[1/2] {name}: FAILED: ")), "{told}");
    }
}

#[test]
fn rounds_take_turns_and_are_merged() {
    let folder = Folder::new("sweep-rounds");
    let out = folder.path("out");
    let file = scenario(&folder, "[sweep]\nacks = [0, 1]\n");
    let arguments = ["sweep", &file, "--out", &out, "--rounds", "2"];
    let output = run(&arguments);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let runs = state(&out)["runs"].as_array().cloned().expect("runs");
    let folders: Vec<_> = runs.iter().map(|run| run["folder"].clone()).collect();
    assert_eq!(
        folders,
        ["0/rounds/1", "1/rounds/1", "1/rounds/2", "0/rounds/2"]
    );
    let open = |name: &str| Recorded::open(format!("{out}/{name}").as_ref()).expect(name);
    let rounds = [open("1/rounds/1"), open("1/rounds/2")].map(|round| round.service.total.len());
    assert_eq!(open("1").service.total.len(), rounds[0] + rounds[1]);
    assert!(open("1").document.merged.is_some());

    let merged = format!("{out}/1/run.json");
    let before = identity(&merged);
    assert_eq!(code(&run(&arguments)), Some(0));
    assert_eq!(identity(&merged), before, "the same rounds, the same merge");
}

#[test]
fn twins_are_compared_without_force() {
    let folder = Folder::new("sweep-twins");
    let out = folder.path("out");
    let twins = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/twins.toml");
    let short = [
        "--engine",
        "null",
        "--warmup",
        "20ms",
        "--duration",
        "100ms",
    ];
    let to = ["sweep", twins, "--rounds", "2", "--out", &out];
    let output = run(&[&to[..], &short].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let [first, second] = ["twins", "twins-again"].map(|cell| format!("{out}/{cell}"));
    let output = run(&["compare", &first, &second, "--format", "json"]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let comparison = document(&output);
    assert_eq!(
        comparison["differences"],
        serde_json::json!([]),
        "nothing but the name"
    );
    let against = &comparison["comparisons"][0];
    assert_eq!(
        (&against["unit"], &against["pairs"]),
        (&"rounds".into(), &2.into())
    );
}

#[test]
fn another_gate_is_no_other_sweep() {
    let folder = Folder::new("sweep-gate");
    let out = folder.path("out");
    let sweep = |limit: &str| {
        let gate = format!("[sweep]\nacks = [0, 1]\n[gate]\nthresholds = ['{limit}']\n");
        let output = run(&["sweep", &scenario(&folder, &gate), "--out", &out]);
        assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    assert!(!sweep("records_per_s > 1").contains("are there already"));
    let before = identity(&format!("{out}/1/run.json"));
    let told = sweep("records_per_s > 2");
    assert!(told.contains("2 of 2 runs are there already"), "{told}");
    assert!(
        told.contains("[gate] has changed since 2 of them ran"),
        "{told}"
    );
    assert_eq!(identity(&format!("{out}/1/run.json")), before);
    assert!(!sweep("records_per_s > 1").contains("[gate] has changed"));
}

#[test]
fn a_dry_run_tells_the_plan_and_touches_nothing() {
    let folder = Folder::new("sweep-dry");
    let out = folder.path("out");
    let file = whole_scenario(
        &folder,
        "warmup = '20ms'\nduration = '100ms'\n[sweep]\nacks = [0, 1]\nset.gap = ['1ms']\n",
    );
    let arguments = ["sweep", &file, "--dry-run", "--rounds", "2", "--out", &out];
    let output = run(&arguments);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    let lines: Vec<_> = told.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "2 cells",
            "acks = 0 | 1",
            "set.gap = 1ms",
            "4 runs, about 3 s, in this order:",
            "0-1ms, round 1",
            "1-1ms, round 1",
            "1-1ms, round 2",
            "0-1ms, round 2",
        ]
    );
    let output = run(&[&arguments[..], &["--format", "json"]].concat());
    let plan = document(&output);
    assert_eq!(plan["schema"], "ringpost-bench/sweep/1");
    assert_eq!(plan["cells"][1]["settings"]["acks"], "1");
    assert!(!Path::new(&out).exists());
}

#[test]
fn a_folder_of_something_else_is_refused() {
    let folder = Folder::new("sweep-refused");
    let out = folder.path("out");
    let sweep = |rest: &str, flags: &[&str]| {
        let file = scenario(&folder, rest);
        run(&[&["sweep", &file, "--out", &out], flags].concat())
    };
    let one = "[sweep]\nacks = [1]\n";
    assert_eq!(code(&sweep(one, &[])), Some(0));
    for (rest, flags, said) in [
        (
            "[sweep]\nacks = [0, 1]\n",
            &[][..],
            "another sweep lies there: it varies acks=1, this one acks=0|1",
        ),
        (one, &["--rounds", "2"], "it has --rounds 1, this one 2"),
        (
            one,
            &["--partitions", "2"],
            "its 1 has `--partitions=6`, this one `--partitions=2`",
        ),
    ] {
        let output = sweep(rest, flags);
        let told = text(&output.stderr);
        assert_eq!(code(&output), Some(2), "{told}");
        assert!(told.contains(said), "{said}\nis not in\n{told}");
    }
    // A cell's folder with somebody else's run in it.
    let cell = format!("{out}/1/scenario.toml");
    let other = fs::read_to_string(&cell)
        .expect("read")
        .replace("partitions = 6", "partitions = 7");
    fs::write(&cell, other).expect("written");
    let output = sweep(one, &[]);
    assert_eq!(code(&output), Some(2));
    assert!(text(&output.stderr).contains("a run of another scenario lies there"));
    // No sweep at all.
    fs::remove_file(format!("{out}/sweep.json")).expect("removed");
    let output = sweep(one, &[]);
    assert_eq!(code(&output), Some(2));
    assert!(text(&output.stderr).contains("it is not empty, and no sweep"));
    // Somebody is at work there.
    let _lock = lock::lock(out.as_ref()).expect("locked");
    let output = sweep(one, &[]);
    assert_eq!(code(&output), Some(5));
    assert!(text(&output.stderr).contains("another process is writing to it"));
}

#[test]
fn what_is_wrong_is_told_at_once_and_nothing_runs() {
    let folder = Folder::new("sweep-faults");
    let file = scenario(
        &folder,
        "extends = 'base.toml'\n[sweep]\ncompresion = ['lz4']\nlinger = ['5']\n\
         [gate]\nthresholds = ['p98 < 1ms']\n",
    );
    fs::write(folder.path("base.toml"), "partition = 3\n").expect("written");
    let output = run(&["sweep", &file, "--rate", "fast"]);
    assert_eq!(code(&output), Some(2));
    let told = text(&output.stderr);
    let base = folder.path("base.toml");
    for said in [
        format!("{base}:1: partition: there is no such key; did you mean `partitions`?"),
        format!("{file}:6: sweep.compresion: there is no such setting; did you mean"),
        format!("{file}:7: sweep.linger: `5` is not allowed"),
        format!("{file}:9: gate.thresholds: `p98 < 1ms` is not allowed"),
        "--rate: `fast` is not allowed".into(),
    ] {
        assert!(told.contains(&said), "{said}\nis not in\n{told}");
    }
    assert!(output.stdout.is_empty());

    let file = scenario(&folder, "[sweep]\nacks = [1]\n");
    let output = run(&["sweep", &file]);
    assert_eq!(code(&output), Some(2));
    assert!(text(&output.stderr).contains("--out: a sweep keeps its results"));
    let output = run(&["run", &file]);
    assert_eq!(code(&output), Some(2));
    assert!(text(&output.stderr).contains("`ringpost-bench sweep`"));
}

#[test]
fn its_help_shows_examples_and_exit_codes() {
    let output = run(&["sweep", "--help"]);
    assert_eq!(code(&output), Some(0));
    let told = text(&output.stdout);
    for said in [
        "ringpost-bench sweep bench-harness/scenarios/compression.toml",
        "Exit codes:",
        "--rounds",
    ] {
        assert!(told.contains(said), "{said}\nis not in\n{told}");
    }
}
