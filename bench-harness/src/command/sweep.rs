//! `sweep`: the matrix of a scenario, a run a cell.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::command::run::{read_draft, with_settings};
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::plan::Format;
use crate::scenario::Draft;
use crate::sweep::matrix::Matrix;
use crate::sweep::state::State;
use crate::sweep::{self, Sweep, table};

const HELP: &str = "\
Examples:
  ringpost-bench sweep bench-harness/scenarios/compression.toml --out results/codecs
      A run for each codec. Killed and started again, it goes on where it was.
  ringpost-bench sweep scenario.toml --dry-run --rounds 10
      What would run, in which order (A B, B A, …), and for how long.
  ringpost-bench sweep scenario.toml --out D --duration 30s --compression lz4
      A flag is for all cells; one that names what varies leaves that value alone.
Then:
  ringpost-bench report D -o D/report.html
  ringpost-bench compare D/none D/lz4 --force

In the scenario, [sweep] names what varies:
  [sweep]
  compression = [\"none\", \"lz4\"]
  set.gap = [\"0\", \"1ms\"]      # settings of the engine too

DIR gets a results folder for each cell, named by what varies (lz4-1ms), sweep.json and README.md.

Exit codes:
  0  every run is there, and good
  1  a run failed, was interrupted, or lost, duplicated, reordered or damaged a record
  2  a flag or the scenario is wrong, or DIR is another sweep's: nothing was run; or the rounds of a cell
     cannot be merged
  5  the results could not be written
  130  Ctrl-C a second time: ended at once; the same command goes on from there";

/// Its flags.
pub fn command() -> Command {
    let command = Command::new("sweep")
        .about("Every combination of the values that a scenario's [sweep] lists, each a run")
        .args_override_self(true) // the last one counts, as scripts expect
        .after_help(HELP)
        .arg(
            Arg::new("rounds")
                .long("rounds")
                .value_name("N")
                .default_value("1")
                .value_parser(value_parser!(u64).range(1..=1_000))
                .help("How often each cell runs; cells take turns, so that what drifts meets all"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Only tell what would run, in which order, and for how long"),
        );
    with_settings(command).mut_arg("scenario", |scenario| scenario.required(true))
}

/// Runs what is not there yet.
pub fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let scenario = matches.get_one::<PathBuf>("scenario").cloned();
    let scenario = scenario.unwrap_or_default(); // clap asks for one
    let rounds = matches.get_one("rounds").copied().unwrap_or(1_u64);
    let rounds = usize::try_from(rounds).unwrap_or(usize::MAX);
    let matrix = Matrix::of(
        read_draft(Draft::default(), matches),
        &scenario.display().to_string(),
    )
    .map_err(|faults| Failure::config(faults.to_string()))?;
    let plan = matrix.cells[0].plan.clone();
    let state = sweep::planned(&scenario, &matrix, rounds);
    if matches.get_flag("dry-run") {
        match plan.format {
            Format::Text => print!("{}", table::plan(&state)),
            Format::Json => print_json(&state)?,
        }
        return Ok(Exit::Good);
    }
    let out = plan.out.ok_or_else(|| {
        Failure::config("--out: a sweep keeps its results; name a folder for them")
    })?;
    let mut sweep = Sweep::open(&out, matrix, state)?;
    let exit = sweep.run(&Interrupt::install())?;
    match plan.format {
        Format::Text => print!("{}", table::text(&sweep)),
        Format::Json => print_json(sweep.state())?,
    }
    eprintln!("Results are in {}", out.display());
    if !sweep.is_complete() {
        eprintln!("Some runs have no result: the same command again runs those.");
    }
    Ok(exit)
}

fn print_json(state: &State) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(state)
        .map_err(|error| Failure::output(format!("the sweep: {error}")))?;
    println!("{json}");
    Ok(())
}
