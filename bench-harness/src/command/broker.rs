//! `broker`: the embedded broker alone.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::broker::{self, Options};
use crate::exit::{Exit, Failure};
use crate::plan::Format;
use crate::{placement, units};

const HELP: &str = "\
Examples:
  ringpost-bench broker
      Listens on 127.0.0.1:9092 and checks everything it gets; Ctrl-C prints what it saw.
  ringpost-bench broker --listen 127.0.0.1:0 --store --partitions 12
      A free port (printed), and everything is kept for consumers to read.
  ringpost-bench broker --listen 10.0.0.5:9092
      For clients on other hosts: `ringpost-bench run --brokers 10.0.0.5:9092 --topic mine` there.
      What all of them sent is checked together, and printed in the end.
  ringpost-bench broker --format json >verdict.json
      For scripts: the address goes to stderr, and stdout gets one document when it ends.

Exit codes:
  0  ended by Ctrl-C or SIGTERM, and nothing wrong with what lies in its log (`--mode ack` does not look)
  1  ended like that, and a record was lost, duplicated, reordered or corrupt
  2  a flag is wrong
  4  the address is in use, or not one of this host's
  5  the document could not be printed
  130  Ctrl-C a second time: ended at once, nothing is printed";

/// Its flags.
pub fn command() -> Command {
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
        .after_help(HELP)
        .arg(arg(
            "listen",
            "HOST:PORT",
            "127.0.0.1:9092",
            "Where to listen; port 0 takes a free one",
        ))
        .arg(
            Arg::new("advertise")
                .long("advertise")
                .value_name("HOST")
                .help("The host clients are told to connect to [default: the one listened on]"),
        )
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
        .arg(arg(
            "delay",
            "TIME",
            "0ms",
            "What every request takes besides its work, one of a connection after the other",
        ))
        .arg(
            Arg::new("cpus")
                .long("cpus")
                .value_name("LIST")
                .help("CPUs to run on, like 0 or 0,2-3 [default: any]"),
        )
        .arg(
            arg(
                "format",
                "FORMAT",
                "text",
                "What stdout gets: the address and, in the end, a sentence, or one JSON document",
            )
            .value_parser(PossibleValuesParser::new(["text", "json"])),
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

/// Listens until it is told to end.
pub fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    broker::run(&options(matches)?)
}

fn options(matches: &ArgMatches) -> Result<Options, Failure> {
    let text = |name| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let batch_max = text("batch-max");
    let cpus = text("cpus");
    let delay = text("delay");
    Ok(Options {
        listen: text("listen"),
        advertise: matches.get_one::<String>("advertise").cloned(),
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
        delay: units::duration(&delay)
            .filter(|delay| delay.subsec_nanos().is_multiple_of(1_000_000))
            .ok_or_else(|| {
                Failure::config(format!(
                    "--delay: `{delay}`; expected a duration in whole ms, like 20ms"
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
        format: match text("format").as_str() {
            "json" => Format::Json,
            _ => Format::Text,
        },
        control: matches.get_flag("control"),
    })
}
