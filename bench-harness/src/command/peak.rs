//! `peak`: the highest rate that is held. Its flags are those of `run`, and those that bound the
//! search, which `slo` has too.

use clap::{Arg, ArgMatches, Command};

use crate::command::run;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::plan::{Format, Plan};
use crate::scenario::Draft;
use crate::search::{self, Quest, result};
use crate::threshold::Threshold;
use crate::units;

const EXAMPLES: &str = "\
Examples:
  ringpost-bench peak
      100 B records to an embedded broker: the highest rate of an open loop that is held.
  ringpost-bench peak scenario.toml --duration 10s --precision 2
      With a scenario's settings, longer probes, and closer to the mark.
  ringpost-bench peak --record-size 1KiB --format json >peak.json";

/// What the exit codes of both searches mean.
pub const EXIT_HELP: &str = "\
Exit codes:
  0  found, and confirmed by a longer probe
  1  a probe's records were lost, duplicated, reordered or corrupt
  2  a flag or a scenario is wrong
  3  not even the lowest rate holds, or nothing was confirmed before the probes were used up or the
     search was interrupted
  4  no broker, no connection, or a broker that refuses to do its part
  5  the result could not be printed
  130  Ctrl-C a second time: ended at once, nothing is printed";

/// Probes that make a search of about a minute, unless somebody says otherwise. The rate stands for
/// the one that is going to be searched: an arrival needs one.
const DEFAULTS: &str = "duration = \"3s\"\nwarmup = \"1s\"\nrate = 1000\n";

const PRECISION_EXPECTED: &str = "expected a number of percent from 0.5 to 50, like 5";

/// Its flags.
pub fn command() -> Command {
    with_limits(
        Command::new("peak")
            .about("The highest rate that is held: brackets it, bisects, confirms")
            .after_help(format!("{EXAMPLES}\n\n{EXIT_HELP}")),
    )
}

/// `command` with the flags of `run` and those that bound a search.
pub fn with_limits(command: Command) -> Command {
    let arg = |name: &'static str, value: &'static str, default: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .default_value(default)
    };
    run::with_settings(command)
        .args_override_self(true)
        .arg(arg("lowest", "RATE", "100").help("The lowest rate to try, records/s"))
        .arg(arg("precision", "PERCENT", "5").help(
            "How far the rate that misses may be above the one that holds when the search ends",
        ))
        .arg(arg("probes", "N", "24").help(
            "Probes at most. One takes `warmup` and `duration`, here 1s and 3s unless said otherwise; \
             confirming ones twice the duration",
        ))
}

/// Searches and tells.
pub fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    seek(matches, None)
}

/// Searches for the highest rate that keeps `objective`, if there is one.
pub fn seek(matches: &ArgMatches, objective: Option<Threshold>) -> Result<Exit, Failure> {
    let quest = quest(matches, objective)?;
    let interrupt = Interrupt::install();
    eprintln!(
        "Searching for the highest rate{}: {} probes at most, about {:.0} s",
        objective.map_or(String::new(), |objective| format!(
            " that keeps {objective}"
        )),
        quest.probes_max,
        quest.takes_at_most().as_secs_f64()
    );
    let sought = search::search(&quest, &interrupt)?;
    match quest.plan.format {
        Format::Text => println!("{}", result::text(&quest, &sought)),
        Format::Json => {
            let json = serde_json::to_string_pretty(&result::document(&quest, &sought))
                .map_err(|error| Failure::output(format!("the document: {error}")))?;
            println!("{json}");
        }
    }
    Ok(result::exit(&sought))
}

fn quest(matches: &ArgMatches, objective: Option<Threshold>) -> Result<Quest, Failure> {
    for (flag, why) in [
        ("rate", "is what is searched for"),
        ("records", "would give each probe another length"),
        ("out", "holds one run; --format json has all probes"),
    ] {
        if matches.get_one::<String>(flag).is_some() {
            return Err(Failure::config(format!("--{flag}: {flag} {why}")));
        }
    }
    let mut draft = Draft::default();
    draft.read_text("the search's defaults", DEFAULTS);
    let plan = run::read_plan(draft, matches)?;
    let text =
        |name: &str| -> String { matches.get_one::<String>(name).cloned().unwrap_or_default() };
    let number = |name: &str, low: u64, high: u64| {
        let value = units::count(&text(name)).filter(|value| (low..=high).contains(value));
        value.ok_or_else(|| {
            let given = text(name);
            Failure::config(format!(
                "--{name}: `{given}` is not allowed; expected a number from {low} to {high}"
            ))
        })
    };
    let precision = text("precision");
    let percent = precision.trim_end_matches('%').parse::<f64>().ok();
    let percent = percent
        .filter(|percent| (0.5..=50.0).contains(percent))
        .ok_or_else(|| {
            Failure::config(format!(
                "--precision: `{precision}` is not allowed; {PRECISION_EXPECTED}"
            ))
        })?;
    Ok(Quest {
        plan: Plan { out: None, ..plan },
        objective,
        lowest: number("lowest", 1, 10_000_000)?,
        precision: percent / 100.0,
        probes_max: u32::try_from(number("probes", 2, 200)?).unwrap_or(u32::MAX),
    })
}
