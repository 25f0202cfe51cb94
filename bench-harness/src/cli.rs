//! The command line. Flags of `run` come from the table of settings, so they are its names.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::broker::{self, Options};
use crate::exit::{Exit, Failure, HELP};
use crate::init;
use crate::interrupt::Interrupt;
use crate::measure::measure;
use crate::placement;
use crate::plan::{Format, Plan};
use crate::report::{document, folder, text};
use crate::scenario::Draft;
use crate::setting::SETTINGS;
use crate::units;

const RUN_EXAMPLES: &str = "\
Examples:
  ringpost-bench run
      The defaults: 100 B records to an embedded broker, as fast as it goes, 12 s in all.
  ringpost-bench run --brokers 127.0.0.1:9092 --topic t --rate 100k --linger 5ms
      An open loop of 100,000 records/s against a real broker.
  ringpost-bench run --engine null
      The limit that broker and harness set; a client near it was not measured.
  ringpost-bench run scenario.toml --duration 60s --out results/mine --format json
      A scenario, with another duration; a results folder, and JSON on stdout.";

const BROKER_EXAMPLES: &str = "\
Examples:
  ringpost-bench broker
      Listens on 127.0.0.1:9092 and checks everything it gets; Ctrl-C prints what it saw.
  ringpost-bench broker --listen 127.0.0.1:0 --store --partitions 12
      A free port (printed), and everything is kept for consumers to read.";

const INIT_EXAMPLES: &str = "\
Examples:
  ringpost-bench init && ringpost-bench run scenario.toml";

/// The program.
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    let ended = match matches.subcommand() {
        Some(("run", matches)) => run(matches),
        Some(("broker", matches)) => {
            broker_options(matches).and_then(|options| broker::run(&options))
        }
        Some(("init", matches)) => {
            let default = PathBuf::from("scenario.toml");
            init::write(matches.get_one::<PathBuf>("file").unwrap_or(&default))
        }
        _ => Err(Failure::config("no such command")), // clap asks for one of the above
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}

/// All commands and flags.
pub fn command() -> Command {
    Command::new("ringpost-bench")
        .about("Measures the Ringpost engine: rate, CPU per record, latency; verified by a broker")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(HELP)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(run_command())
        .subcommand(broker_command())
        .subcommand(
            Command::new("init")
                .about("Writes a commented scenario file that `run` takes")
                .after_help(INIT_EXAMPLES)
                .arg(
                    Arg::new("file")
                        .value_name("FILE")
                        .value_parser(value_parser!(PathBuf))
                        .help(
                            "Where to [default: scenario.toml]; a file that is there is left alone",
                        ),
                ),
        )
}

fn run_command() -> Command {
    let defaults = Plan::default();
    let mut command = Command::new("run")
        .about("One measured run: warm-up, measured window, drain, verdict")
        .args_override_self(true) // the last one counts, as scripts expect
        .after_help(format!("{RUN_EXAMPLES}\n\n{HELP}"))
        .arg(
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
        if setting.name == "set" {
            arg = arg.action(ArgAction::Append);
        }
        command = command.arg(arg);
    }
    command
}

fn broker_command() -> Command {
    let arg =
        |name: &'static str, value: &'static str, default: &'static str, help: &'static str| {
            Arg::new(name)
                .long(name)
                .value_name(value)
                .default_value(default)
                .help(help)
        };
    Command::new("broker")
        .about("The embedded broker alone: a Kafka-protocol broker model, in memory")
        .after_help(BROKER_EXAMPLES)
        .arg(arg(
            "listen",
            "HOST:PORT",
            "127.0.0.1:9092",
            "Where to listen; port 0 takes a free one",
        ))
        .arg(
            arg(
                "mode",
                "MODE",
                "verify",
                "Check CRC, sequence, count and structure of every batch, or only acknowledge",
            )
            .value_parser(PossibleValuesParser::new(["verify", "ack"])),
        )
        .arg(
            Arg::new("store")
                .long("store")
                .action(ArgAction::SetTrue)
                .help(
                    "Keep everything, in memory, for consumers to read [default: the last 64 MiB]",
                ),
        )
        .arg(
            arg(
                "partitions",
                "N",
                "6",
                "Partitions of topics that clients name",
            )
            .value_parser(value_parser!(u32).range(1..=100_000)),
        )
        .arg(
            arg(
                "auto-create",
                "BOOL",
                "true",
                "Whether naming a topic makes it",
            )
            .value_parser(value_parser!(bool)),
        )
        .arg(
            arg(
                "nodes",
                "N",
                "1",
                "Nodes of the cluster, on ports of their own",
            )
            .value_parser(value_parser!(u16).range(1..=64)),
        )
        .arg(arg("batch-max", "SIZE", "1MiB", "Largest batch taken"))
        .arg(
            Arg::new("cpus")
                .long("cpus")
                .value_name("LIST")
                .help("CPUs to run on, like 0 or 0,2-3 [default: any]"),
        )
        .arg(
            Arg::new("control")
                .long("control")
                .action(ArgAction::SetTrue)
                .help(
                    "Be told what to do over stdin (`report`), and end with it: how `run` uses it",
                ),
        )
}

fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let mut draft = Draft::default();
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
    let plan = draft
        .finish()
        .map_err(|faults| Failure::config(faults.to_string()))?;
    if let Some(folder) = &plan.out {
        let refused = |error| Failure::output(format!("--out: {}: {error}", folder.display()));
        folder::prepare(folder).map_err(refused)?;
    }
    let interrupt = Interrupt::install();
    let measured = measure(plan, &interrupt)?;
    match measured.plan.format {
        Format::Text => println!("{}", text::text(&measured)),
        Format::Json => {
            let json = serde_json::to_string_pretty(&document::document(&measured))
                .map_err(|error| Failure::output(format!("the document: {error}")))?;
            println!("{json}");
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

fn broker_options(matches: &ArgMatches) -> Result<Options, Failure> {
    let text = |name| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let batch_max = text("batch-max");
    let cpus = text("cpus");
    Ok(Options {
        listen: text("listen"),
        verify: text("mode") == "verify",
        store: matches.get_flag("store"),
        partitions: matches.get_one("partitions").copied().unwrap_or(6),
        auto_create: matches.get_one("auto-create").copied().unwrap_or(true),
        nodes: matches.get_one("nodes").copied().unwrap_or(1),
        batch_bytes_max: units::bytes(&batch_max).ok_or_else(|| {
            Failure::config(format!(
                "--batch-max: `{batch_max}`; expected {}",
                units::SIZE_EXPECTED
            ))
        })?,
        cpus: match cpus.as_str() {
            "" => Vec::new(),
            cpus => placement::parse(cpus).ok_or_else(|| {
                Failure::config(format!(
                    "--cpus: `{cpus}`; expected CPU numbers like 0 or 0,2-3"
                ))
            })?,
        },
        control: matches.get_flag("control"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn flags_are_taken_in_both_spellings() {
        for flag in ["--record-size", "--record_size"] {
            let matches = command()
                .try_get_matches_from(["ringpost-bench", "run", flag, "1KiB"])
                .unwrap_or_else(|error| panic!("{error}"));
            let (_, run) = matches.subcommand().expect("run");
            assert_eq!(
                run.get_one::<String>("record_size").map(String::as_str),
                Some("1KiB")
            );
        }
    }

    #[test]
    fn the_last_flag_counts_but_engine_settings_add_up() {
        let line = "ringpost-bench run --rate 1k --set a=1 --rate 2k --set b=2";
        let matches = command()
            .try_get_matches_from(line.split(' '))
            .expect("taken");
        let (_, run) = matches.subcommand().expect("run");
        assert_eq!(
            run.get_one::<String>("rate").map(String::as_str),
            Some("2k")
        );
        assert_eq!(
            run.get_many::<String>("set")
                .map_or(0, |values| values.count()),
            2
        );
    }

    #[test]
    fn an_unknown_flag_names_the_nearest() {
        let error = command()
            .try_get_matches_from(["ringpost-bench", "run", "--partition", "3"])
            .expect_err("unknown");
        assert!(error.to_string().contains("--partitions"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
