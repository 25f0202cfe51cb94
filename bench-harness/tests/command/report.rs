//! `report`: which folders it takes, and how it ends. What a browser makes of the page is in
//! `tests/browser/`.

use std::fs;
use std::path::Path;

use crate::support::{Folder, SHORT, code, run, text};

fn copy(from: &str, to: &str) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a results folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, Path::new(to).join(path.file_name().expect("a name"))).expect("copied");
    }
}

#[test]
fn a_page_of_runs_and_of_folders_of_runs() {
    let folder = Folder::new("report");
    let (first, page) = (folder.path("first"), folder.path("page.html"));
    let measured = run(&[&["run", "--out", &first], &SHORT[..]].concat());
    assert_eq!(code(&measured), Some(0), "{}", text(&measured.stderr));
    // As a sweep leaves it when it was stopped: two cells, and one that it has not got to.
    let odd = "\"b\" <i>&ü";
    copy(&first, &folder.path("sweep/a"));
    copy(&first, &folder.path(&format!("sweep/{odd}")));
    fs::create_dir_all(folder.path("sweep/c/rounds")).expect("a folder");

    let output = run(&["report", &first, &folder.path("sweep"), &first, "-o", &page]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.starts_with(&format!("{page}: 3 runs, ")), "{said}");
    let left_out = text(&output.stderr);
    assert!(left_out.contains("sweep/c: no run.json yet"), "{left_out}");
    let written = fs::read_to_string(&page).expect("the page");
    let (_, rest) = written.split_once("id=\"data\">").expect("its data");
    let (json, _) = rest.split_once("</script>").expect("its end");
    let data: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let runs = data["runs"].as_array().expect("runs");
    let names: Vec<_> = runs.iter().filter_map(|run| run["name"].as_str()).collect();
    assert_eq!(names, ["first", odd, "a"]);
    assert!(
        runs[0]["response"]["ns"]
            .as_array()
            .is_some_and(|ns| ns.len() > 40)
    );
    let settings = data["settings"].as_array().expect("settings");
    let keys: Vec<_> = settings
        .iter()
        .filter_map(|row| row["key"].as_str())
        .collect();
    assert!(
        keys.contains(&"record_size") && !keys.contains(&"out"),
        "{keys:?}"
    );

    let nowhere = folder.path("not/there.html");
    let output = run(&["report", &first, "-o", &nowhere]);
    assert_eq!(code(&output), Some(5), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&nowhere));

    fs::write(folder.path("first/response.hlog"), "1,2,3\n").expect("written");
    let output = run(&["report", &first, "-o", &page]);
    assert_eq!(code(&output), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("response.hlog"));
}

#[test]
fn twenty_real_runs_are_a_page_below_a_megabyte() {
    let folder = Folder::new("report-twenty");
    let (first, page) = (folder.path("first"), folder.path("page.html"));
    // The engine itself tells most, and an open loop spreads latencies widest.
    let settings = ["--rate", "20k", "--arrival", "poisson", "--warmup", "200ms"];
    let arguments = [&["run", "--out", &first, "--duration", "2s"], &settings[..]].concat();
    let measured = run(&arguments);
    assert_eq!(code(&measured), Some(0), "{}", text(&measured.stderr));
    for number in 1..=20 {
        copy(
            &first,
            &folder.path(&format!("runs/linger=5ms,rate={number}k")),
        );
    }
    let output = run(&["report", &folder.path("runs"), "-o", &page]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.starts_with(&format!("{page}: 20 runs, ")), "{said}");
    let bytes = fs::metadata(&page).expect("the page").len();
    assert!(bytes < 1_000_000, "{bytes} bytes");
}

#[test]
fn what_holds_no_results_is_refused_and_nothing_written() {
    let folder = Folder::new("report-none");
    let page = folder.path("page.html");
    for (given, expected) in [("nowhere", "No such file"), ("", "no run.json in it")] {
        let given = folder.path(given);
        let output = run(&["report", &given, "-o", &page]);
        assert_eq!(code(&output), Some(2), "{given}");
        let said = text(&output.stderr);
        assert!(said.contains(&given) && said.contains(expected), "{said}");
    }
    assert!(!Path::new(&page).exists());
    assert_eq!(code(&run(&["report"])), Some(2), "no folder at all");
}

#[test]
fn help_shows_an_example_and_the_exit_codes() {
    let output = run(&["report", "--help"]);
    assert_eq!(code(&output), Some(0));
    let help = text(&output.stdout);
    for said in [
        "Examples:",
        "ringpost-bench report results/",
        "Exit codes:",
        "-o, --output",
    ] {
        assert!(help.contains(said), "{said} is not in {help}");
    }
}
