//! The pages that are looked at, made once, by the program, of real runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

/// Two runs with latencies, one without; names that would do harm if they were markup.
pub(crate) const MANY: [&str; 4] = [
    "plain",
    "faster",
    "<img src=x onerror=alert(1)> & \"quoted\" ünïcode 漢字",
    "no latencies",
];
/// Those of [`MANY`] that have latencies.
pub(crate) const TIMED: [usize; 3] = [0, 1, 2];

/// The pages.
pub(crate) struct Pages {
    /// Of [`MANY`].
    pub(crate) many: PathBuf,
    /// Of one run.
    pub(crate) one: PathBuf,
    /// Of a run without latencies.
    pub(crate) untimed: PathBuf,
    /// Of a grid of two settings.
    pub(crate) sweep: PathBuf,
    /// Of twenty runs with long names.
    pub(crate) twenty: PathBuf,
}

/// Made when first asked for.
pub(crate) static PAGES: LazyLock<Pages> = LazyLock::new(make);

fn make() -> Pages {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report-pages");
    let _ = std::fs::remove_dir_all(&folder);
    let many: Vec<PathBuf> = MANY
        .iter()
        .map(|name| folder.join("many").join(name))
        .collect();
    // By number, so that a slow machine measures as many: the second has most records, the third
    // most bytes.
    let lz4 = ["--compression", "lz4"];
    measure(&many[0], "20k", "10k", &[]);
    measure(&many[1], "60k", "100k", &lz4);
    measure(&many[2], "40k", "20k", &["--record-size", "1KiB"]);
    measure(&many[3], "20k", "5k", &["--delivery", "forget"]);
    let cells = folder.join("sweep");
    for compression in ["none", "lz4"] {
        for size in ["1KiB", "100B"] {
            let cell = cells.join(format!("{compression}-{size}"));
            let settings = ["--compression", compression, "--record-size", size];
            measure(&cell, "5k", "1k", &settings);
        }
    }
    let many_more = folder.join("twenty");
    for number in 1..=20 {
        copy(&many[0], &many_more, number);
    }
    let page = |name: &str, shown: &[&Path]| {
        let path = folder.join(format!("{name} ü.html"));
        let mut command = bench(&["report", "-o"]);
        command.arg(&path).args(shown);
        end(command);
        path
    };
    let shown: Vec<&Path> = many.iter().map(PathBuf::as_path).collect();
    Pages {
        many: page("many", &shown),
        one: page("one", &shown[..1]),
        untimed: page("untimed", &shown[3..]),
        sweep: page("sweep", &[&cells]),
        twenty: page("twenty", &[&many_more]),
    }
}

/// What a page has embedded.
pub(crate) fn data(page: &Path) -> Value {
    let text = std::fs::read_to_string(page).expect("the page");
    let (_, rest) = text.split_once("id=\"data\">").expect("its data");
    let (json, _) = rest.split_once("</script>").expect("its end");
    serde_json::from_str(json).expect("JSON")
}

fn measure(out: &Path, rate: &str, records: &str, settings: &[&str]) {
    let mut command = bench(&["run", "--duration", "1m", "--warmup", "100ms"]);
    command
        .args(["--rate", rate, "--records", records])
        .args(settings);
    command.arg("--out").arg(out);
    end(command);
}

/// The results in `from` once more in a folder of `into`, as if with another linger.
fn copy(from: &Path, into: &Path, number: u32) {
    let name = format!("compression=none,record_size=100B,partitions=1000,linger={number:02}ms");
    let to = into.join(name);
    std::fs::create_dir_all(&to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("results") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
    }
    let path = to.join("run.json");
    let text = std::fs::read_to_string(&path).expect("the run");
    let mut run: Value = serde_json::from_str(&text).expect("JSON");
    run["config"]["linger"] = format!("{number}ms").into();
    std::fs::write(path, run.to_string()).expect("written");
}

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringpost-bench"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn end(mut command: Command) {
    let output = command.output().expect("the program runs");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
