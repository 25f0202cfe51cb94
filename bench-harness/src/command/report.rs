//! `report`: one page of many results folders.

use std::fs;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::exit::{Exit, Failure};
use crate::report::page;
use crate::units::show_count;

const EXAMPLES: &str = "\
Examples:
  ringpost-bench report results/before results/after -o report.html
      Two runs on the same axes.
  ringpost-bench sweep scenario.toml --out sweep && ringpost-bench report sweep -o sweep/report.html
      All cells of a sweep, with a map of what varies.

The page needs no network and no other file: send it, or open it from disk.

Exit codes:
  0  the page is written
  2  a folder is not there or holds no results; nothing was written
  5  the page could not be written";

/// Its flags.
pub fn command() -> Command {
    Command::new("report")
        .about("One self-contained page of results: percentiles, throughput, CPU, differences")
        .after_help(EXAMPLES)
        .arg(
            Arg::new("folders")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .num_args(1..)
                .required(true)
                .help("Results folders of `run --out`, or folders of them, as `sweep` leaves them"),
        )
        .arg(
            Arg::new("output")
                .short('o')
                .long("output")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .default_value("report.html")
                .help("Where to write the page; a file that is there is replaced"),
        )
}

/// Reads, draws, writes.
pub fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let folders: Vec<PathBuf> = matches
        .get_many::<PathBuf>("folders")
        .map_or_else(Vec::new, |folders| folders.cloned().collect());
    let default = PathBuf::from("report.html");
    let output = matches.get_one::<PathBuf>("output").unwrap_or(&default);
    let shown = page::folders::find(&folders)?;
    for left_out in &shown.left_out {
        eprintln!("left out: {left_out}");
    }
    let page = page::page(&shown.runs)?;
    fs::write(output, &page)
        .map_err(|error| Failure::output(format!("{}: {error}", output.display())))?;
    let runs = shown.runs.len();
    println!(
        "{}: {runs} run{}, {} bytes",
        output.display(),
        if runs == 1 { "" } else { "s" },
        show_count(u64::try_from(page.len()).unwrap_or(u64::MAX)),
    );
    Ok(Exit::Good)
}
