//! `gate`: does a result keep its thresholds?

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::exit::{Exit, Failure};
use crate::gate::gate;
use crate::recorded::Recorded;
use crate::threshold::{EXPECTED, Threshold};

const HELP: &str = "\
Examples:
  ringpost-bench run scenario.toml --out now && ringpost-bench gate now
      The thresholds of the scenario's [gate]; ends with 3 when one is not kept.
  ringpost-bench gate now --threshold 'p99.9 < 2ms' --threshold 'cpu_us_per_record < 0.1'
      These as well.
  ringpost-bench gate now --baseline before --threshold 'vs_baseline records_per_s > -3%'
      Not more than 3 % slower than before. (`compare` says what of that is noise.)

Brokers elsewhere do not tell what lies in their log, only by how much it grew: `lost` is judged by what
is missing there and `duplicated` by what is too much; limits on what they do not tell do not apply.

Exit codes:
  0  every threshold that applies is kept, and every record ended as it should
  2  a flag is wrong, a folder holds no results, there is no threshold, one cannot be judged (the result
     does not have the figure, there is no baseline, or it did different work), or the run was
     interrupted, which is not judged
  3  a threshold is not kept, or a record did not end as it should
  5  the verdict could not be printed";

/// Its flags.
pub fn command() -> Command {
    Command::new("gate")
        .about("Does a result keep its thresholds? Ends with 3 when it does not")
        .after_help(HELP)
        .arg(
            Arg::new("result")
                .value_name("RESULT")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("A results folder"),
        )
        .arg(
            Arg::new("baseline")
                .long("baseline")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("The results folder that `vs_baseline` means"),
        )
        .arg(
            Arg::new("threshold")
                .long("threshold")
                .value_name("THRESHOLD")
                .action(ArgAction::Append)
                .help(format!("One more threshold: {EXPECTED}")),
        )
        .arg(
            Arg::new("force")
                .long("force")
                .action(ArgAction::SetTrue)
                .help("Take a baseline of different work all the same"),
        )
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .default_value("text")
                .value_parser(PossibleValuesParser::new(["text", "json"]))
                .help("What stdout gets: a line a threshold, or one JSON document"),
        )
}

/// Reads, judges and tells.
pub fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let mut thresholds = Vec::new();
    let mut faults = Vec::new();
    for text in matches
        .get_many::<String>("threshold")
        .into_iter()
        .flatten()
    {
        match Threshold::parse(text) {
            Ok(threshold) => thresholds.push(threshold),
            Err(what) => faults.push(format!("--threshold: {what}")),
        }
    }
    if !faults.is_empty() {
        return Err(Failure::config(faults.join("\n")));
    }
    let no_result = || Failure::config("which result?"); // clap asks for one
    let result = Recorded::open(matches.get_one::<PathBuf>("result").ok_or_else(no_result)?)?;
    let baseline = matches
        .get_one::<PathBuf>("baseline")
        .map(|folder| Recorded::open(folder))
        .transpose()?;
    let gate = gate(
        &result,
        baseline.as_ref(),
        &thresholds,
        matches.get_flag("force"),
    )?;
    if matches
        .get_one::<String>("format")
        .is_some_and(|format| format == "json")
    {
        let json = serde_json::to_string_pretty(&gate)
            .map_err(|error| Failure::output(format!("the verdict: {error}")))?;
        println!("{json}");
    } else {
        print!("{}", gate.text());
    }
    Ok(gate.exit())
}
