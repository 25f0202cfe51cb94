//! `slo`: the highest rate that keeps an objective.

use clap::{Arg, ArgMatches, Command};

use crate::command::peak::{EXIT_HELP, seek, with_limits};
use crate::exit::{Exit, Failure};
use crate::threshold::{EXPECTED, Threshold};

const EXAMPLES: &str = "\
Examples:
  ringpost-bench slo 'p99 < 5ms'
      The highest rate of 100 B records at which 99 of 100 are acked within 5 ms of their time.
  ringpost-bench slo 'p99.9 < 20ms' scenario.toml --lowest 10k --duration 10s
      With a scenario's settings; rates below 10,000/s are not worth knowing.
  ringpost-bench slo 'cpu_us_per_record < 0.5' --format json

An objective is what a scenario's [gate] takes, but for `vs_baseline`.";

/// Its flags.
pub fn command() -> Command {
    let command = Command::new("slo")
        .about("The highest rate that keeps an objective, like 'p99 < 5ms'")
        .after_help(format!("{EXAMPLES}\n\n{EXIT_HELP}"))
        .arg(
            Arg::new("objective")
                .value_name("OBJECTIVE")
                .required(true)
                .help(format!("What the rate must keep: {EXPECTED}")),
        );
    with_limits(command)
}

/// Searches and tells.
pub fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let text = matches
        .get_one::<String>("objective")
        .map_or("", String::as_str);
    let objective =
        Threshold::parse(text).map_err(|what| Failure::config(format!("the objective: {what}")))?;
    if objective.vs_baseline {
        return Err(Failure::config(
            "the objective: there is no baseline in a search; expected a limit of its own",
        ));
    }
    seek(matches, Some(objective))
}
