//! `init`: writes a scenario file.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::exit::{Exit, Failure};
use crate::init;

const EXAMPLES: &str = "\
Examples:
  ringpost-bench init && ringpost-bench run scenario.toml";

/// Its flags.
pub fn command() -> Command {
    Command::new("init")
        .about("Writes a commented scenario file that `run` takes")
        .after_help(EXAMPLES)
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
