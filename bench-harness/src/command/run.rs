//! `run`: one measured run. Its flags come from the table of settings, so they are its names.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::measure::measure;
use crate::plan::{Format, Plan};
use crate::report::hint::of_the_log;
use crate::report::{document, folder, lock, text};
use crate::scenario::Draft;
use crate::setting::{SETTINGS, SWITCHES, TABLES};
use crate::threshold;

const HELP: &str = "\
Examples:
  ringpost-bench run
      The defaults: 100 B records to an embedded broker, as fast as it goes, 12 s in all.
  ringpost-bench run --brokers 127.0.0.1:9092 --topic t --rate 100k --linger 5ms
      An open loop of 100,000 records/s against a real broker.
  ringpost-bench run --engine null
      The limit that broker and harness set; a client near it was not measured.
  ringpost-bench run scenario.toml --duration 60s --out results/mine --format json
      A scenario, with another duration; a results folder, and JSON on stdout.

Ctrl-C ends the window early; what was measured by then is printed, marked as interrupted, and the exit
code says how its records ended.

Exit codes:
  0  every record settled as it should, and the log agrees: the embedded broker found none lost,
     duplicated, reordered or corrupt. Of brokers elsewhere only the topic's length is asked: no acked
     record is missing by that count; one too many (another writer's, or a duplicate) is a warning, and
     order and content are not looked at
  1  measured, but a record was lost, duplicated, reordered, corrupt, refused, missing in the log, or
     nobody knows what became of it
  2  a flag or a scenario is wrong, or no record of it can be sent
  4  no broker, no connection, or a broker that refuses to do its part
  5  the results could not be written
  130  Ctrl-C a second time: ended at once, nothing is printed
Thresholds are told here and judged by `gate`.";

/// Its flags.
pub fn command() -> Command {
    let command = Command::new("run")
        .about("One measured run: warm-up, measured window, drain, verdict")
        .args_override_self(true) // the last one counts, as scripts expect
        .after_help(HELP)
        .arg(
            Arg::new("attended")
                .long("attended")
                .action(ArgAction::SetTrue)
                .hide(true) // how other commands start a run
                .help("End early when stdin ends"),
        );
    with_settings(command)
}

/// `command` with a scenario and a flag for each setting: what [`read_plan`] reads.
pub fn with_settings(command: Command) -> Command {
    let defaults = Plan::default();
    let mut command = command.arg(
        Arg::new("scenario")
            .value_name("SCENARIO")
            .value_parser(value_parser!(PathBuf))
            .help("A scenario file (`init` writes one); flags override what it says"),
    );
    for setting in SETTINGS {
        let default = (setting.show)(&defaults).map(|value| format!(" [default: {value}]"));
        let mut arg = Arg::new(setting.name)
            .long(setting.flag())
            .value_name(setting.value_name)
            .allow_hyphen_values(true)
            .help(format!(
                "{}; takes {}{}",
                setting.help,
                setting.expected,
                default.unwrap_or_default()
            ));
        if setting.name.contains('_') {
            arg = arg.alias(setting.name);
        }
        if TABLES.contains(&setting.name) {
            arg = arg.action(ArgAction::Append);
        }
        if SWITCHES.contains(&setting.name) {
            // With `=` only: what follows may be a scenario.
            arg = arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true");
        }
        command = command.arg(arg);
    }
    command
}

/// `draft` with what scenario and flags say.
pub fn read_draft(mut draft: Draft, matches: &ArgMatches) -> Draft {
    if let Some(path) = matches.get_one::<PathBuf>("scenario") {
        draft.read_file(path);
    }
    for setting in SETTINGS {
        for value in matches
            .get_many::<String>(setting.name)
            .into_iter()
            .flatten()
        {
            draft.flag(&setting.flag(), value);
        }
    }
    draft
}

/// The plan that scenario and flags make on top of `draft`.
pub fn read_plan(draft: Draft, matches: &ArgMatches) -> Result<Plan, Failure> {
    read_draft(draft, matches)
        .finish()
        .map_err(|faults| Failure::config(faults.to_string()))
}

/// Measures and tells.
pub fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let plan = read_plan(Draft::default(), matches)?;
    let attended = matches.get_flag("attended");
    // Held until the end.
    let _lock = match &plan.out {
        // Whoever started this has lent it the folder.
        Some(_) if attended => None,
        Some(folder) => {
            let refused = |error| Failure::output(format!("--out: {}: {error}", folder.display()));
            folder::prepare(folder).map_err(refused)?;
            Some(lock::lock(folder).map_err(refused)?)
        }
        None => None,
    };
    let interrupt = Interrupt::install();
    if attended {
        interrupt.when_stdin_ends();
    }
    let measured = measure(plan, &interrupt)?;
    match measured.plan.format {
        Format::Text => println!("{}", text::text(&measured)),
        Format::Json => {
            let result = document::document(&measured);
            let json = serde_json::to_string_pretty(&result)
                .map_err(|error| Failure::output(format!("the document: {error}")))?;
            println!("{json}");
            eprint!("{}", threshold::told(&measured.plan.gate, &result, None));
            let growth = result.log_growth.as_ref();
            let against = |growth| of_the_log(growth, measured.plan.idempotent());
            if let Some(warning) = growth.and_then(against) {
                eprintln!("Warning: {warning}");
            }
        }
    }
    if let Some(folder) = &measured.plan.out {
        let refused = |error| Failure::output(format!("--out: {}: {error}", folder.display()));
        folder::write(folder, &measured).map_err(refused)?;
        eprintln!("Results are in {}", folder.display());
    }
    if let Some(failure) = &measured.failure {
        eprintln!("{failure}");
        return Ok(failure.exit);
    }
    Ok(if measured.is_good() {
        Exit::Good
    } else {
        Exit::Unsettled
    })
}
