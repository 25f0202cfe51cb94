//! What became of a sweep's cells: a table for the terminal, and the folder's README.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};

use crate::histogram::Latency;
use crate::number::whole;
use crate::report::document::{Document, command};
use crate::sweep::Sweep;
use crate::sweep::progress::{show_seconds, thresholds};
use crate::sweep::state::{Progress, State};
use crate::units::{show_nanos, show_rate};

const HEAD: [&str; 8] = [
    "cell",
    "records/s",
    "MiB/s",
    "CPU µs/record",
    "p50",
    "p99",
    "p99.9",
    "",
];

/// The plan alone: the cells, and the order in which they run.
pub fn plan(state: &State) -> String {
    let mut out = format!("{} cells", state.cells.len());
    for axis in &state.varies {
        out.push_str(&format!("\n  {} = {}", axis.key, axis.values.join(" | ")));
    }
    let takes = match state.planned_s {
        Some(seconds) => format!("about {}", show_seconds(seconds)),
        None => "as long as its records take".into(),
    };
    out.push_str(&format!(
        "\n{} runs, {takes}, in this order:\n",
        state.runs.len()
    ));
    for run in &state.runs {
        let round = match state.rounds {
            1 => String::new(),
            _ => format!(", round {}", run.round),
        };
        out.push_str(&format!("  {}{round}\n", run.cell));
    }
    out
}

/// A line for each cell.
pub fn text(sweep: &Sweep) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(HEAD);
    for row in rows(sweep) {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1).take(HEAD.len() - 2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

/// The folder in words.
pub fn readme(sweep: &Sweep) -> String {
    let state = sweep.state();
    let varies: Vec<_> = state
        .varies
        .iter()
        .map(|axis| format!("- `{}`: {}\n", axis.key, axis.values.join(", ")))
        .collect();
    let line = |row: [String; HEAD.len()]| format!("| {} |\n", row.join(" | "));
    let rows: Vec<_> = rows(sweep).into_iter().map(line).collect();
    let rounds = match state.rounds {
        1 => "Each folder here is a cell's results folder".to_owned(),
        rounds => format!(
            "Each cell ran {rounds} times, in turns with the others (A B, B A, …); its folder is the \
             merge of its `rounds/`"
        ),
    };
    let (first, last) = match &state.cells[..] {
        [first, .., last] => (&first.name, &last.name),
        [only] => (&only.name, &only.name),
        [] => return String::new(), // a matrix has a cell
    };
    format!(
        "# A sweep of {}\n\n{}{}- command: `{}`\n\n| {} |\n|---|{}---|\n{}\n{rounds}. `sweep.json` says \
         what became of each run; the command above runs what is missing.\n\n```\n\
         ringpost-bench report . -o report.html\n\
         ringpost-bench compare {first} {last} --force\n```\n",
        state.scenario,
        varies.concat(),
        surroundings(sweep),
        command().join(" "),
        HEAD.join(" | "),
        "---:|".repeat(HEAD.len() - 2),
        rows.concat(),
    )
}

/// Where and when the first of the runs ran; each cell's own README says it of that cell.
fn surroundings(sweep: &Sweep) -> String {
    let cells = 0..sweep.state().cells.len();
    let Some(first) = cells.filter_map(|cell| sweep.result(cell)).next() else {
        return String::new();
    };
    let environment = &first.environment;
    let told = |value: &Option<String>| value.clone().unwrap_or_else(|| "not known".into());
    format!(
        "- started: {}\n- host: {}, kernel {}, {} × {}\n- commit: {}, {} build\n",
        first.started,
        told(&environment.host),
        told(&environment.kernel),
        environment.cpus,
        told(&environment.cpu_model),
        told(&environment.commit),
        environment.build,
    )
}

fn rows(sweep: &Sweep) -> Vec<[String; HEAD.len()]> {
    let cells = sweep.state().cells.iter().enumerate();
    cells
        .map(|(at, cell)| {
            let result = sweep.result(at);
            let told = |of: &dyn Fn(&Document) -> Option<String>| {
                result.and_then(of).unwrap_or_else(|| "–".into())
            };
            let time = |of: fn(Latency) -> f64| {
                told(&|result| {
                    let times = result.latency_us.response.or(result.latency_us.service)?;
                    Some(show_nanos(whole(of(times) * 1_000.0)))
                })
            };
            [
                cell.name.clone(),
                told(&|result| Some(show_rate(result.records_per_s))),
                told(&|result| Some(format!("{:.1}", result.mib_per_s))),
                told(&|result| Some(format!("{:.3}", result.cpu_us_per_record?))),
                time(|times| times.p50),
                time(|times| times.p99),
                time(|times| times.p99_9),
                remarks(sweep.state(), &cell.name, result),
            ]
        })
        .collect()
}

/// What else there is to say of a cell.
fn remarks(state: &State, cell: &str, result: Option<&Document>) -> String {
    let runs: Vec<_> = state.runs.iter().filter(|run| run.cell == cell).collect();
    let of = |progress: Progress| runs.iter().filter(|run| run.progress == progress).count();
    let mut told: Vec<_> = result.and_then(thresholds).into_iter().collect();
    for (progress, word) in [
        (Progress::Unsettled, "NOT GOOD"),
        (Progress::Failed, "failed"),
        (Progress::Interrupted, "interrupted"),
        (Progress::Planned, "not run"),
        (Progress::Running, "running"),
    ] {
        let number = of(progress);
        if number == runs.len() {
            told.push(word.into());
        } else if number > 0 {
            told.push(format!("{word} in {number} of {} rounds", runs.len()));
        }
    }
    told.join(", ")
}
