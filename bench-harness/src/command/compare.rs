//! `compare`: is one result faster than another?

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::compare::markdown::markdown;
use crate::compare::text::text;
use crate::compare::{Side, compare};
use crate::exit::{Exit, Failure};

const HELP: &str = "\
Examples:
  ringpost-bench compare before after
      Two results of the same work. A ratio says nothing without its interval: where that holds
      \"no change\", the verdict is `within noise`.
  ringpost-bench compare D/none D/lz4 --force
      Two cells of a sweep, round by round. What is sent differs, so it has to be forced.
  ringpost-bench compare main mine other --markdown > comparison.md
      Several, each against the first.

Pairs are rounds where both results have them (a sweep with rounds makes them in turns), else the
intervals of the two runs. `gate` is what fails a build.

Exit codes:
  0  compared, whoever is faster
  2  a flag is wrong, a folder holds no results, or they are of different work
  5  the comparison could not be printed";

/// Its flags.
pub fn command() -> Command {
    Command::new("compare")
        .about("Is one result faster than another? Pair by pair, with intervals and a verdict")
        .after_help(HELP)
        .arg(
            Arg::new("dirs")
                .value_name("DIR")
                .required(true)
                .num_args(2..)
                .value_parser(value_parser!(PathBuf))
                .help("Results folders; the others are compared with the first"),
        )
        .arg(
            Arg::new("force")
                .long("force")
                .action(ArgAction::SetTrue)
                .help("Compare results of different work all the same"),
        )
        .arg(
            Arg::new("markdown")
                .long("markdown")
                .action(ArgAction::SetTrue)
                .conflicts_with("format")
                .help("Print Markdown"),
        )
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .default_value("text")
                .value_parser(PossibleValuesParser::new(["text", "json", "markdown"]))
                .help("What stdout gets: a report for people, one JSON document, or Markdown"),
        )
}

/// Reads, compares and tells.
pub fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let folders = matches.get_many::<PathBuf>("dirs").into_iter().flatten();
    let sides: Vec<Side> = folders
        .map(|folder| Side::open(folder))
        .collect::<Result<_, _>>()?;
    let comparison = compare(&sides, matches.get_flag("force"))?;
    let format = matches
        .get_one::<String>("format")
        .map_or("text", String::as_str);
    match format {
        _ if matches.get_flag("markdown") => print!("{}", markdown(&comparison)),
        "markdown" => print!("{}", markdown(&comparison)),
        "json" => {
            let json = serde_json::to_string_pretty(&comparison)
                .map_err(|error| Failure::output(format!("the comparison: {error}")))?;
            println!("{json}");
        }
        _ => print!("{}", text(&comparison)),
    }
    Ok(Exit::Good)
}
