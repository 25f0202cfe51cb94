//! `init`: writes a scenario file.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::exit::{Exit, Failure};
use crate::init;

const HELP: &str = "\
Examples:
  ringpost-bench init && ringpost-bench run scenario.toml

Exit codes:
  0  the file is written
  2  a flag is wrong
  5  the file could not be written, or is there already";

/// Its flags.
pub fn command() -> Command {
    Command::new("init")
        .about("Writes a commented scenario file that `run` takes")
        .after_help(HELP)
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Where to [default: scenario.toml]; a file that is there is left alone"),
        )
}

/// Writes it.
pub fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let default = PathBuf::from("scenario.toml");
    init::write(matches.get_one::<PathBuf>("file").unwrap_or(&default))
}
