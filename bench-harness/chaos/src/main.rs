//! The command. `scripts/chaos` puts its parts together.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use ringpost_chaos::load::{LoadOptions, Stop, load};
use ringpost_chaos::plan::{Fault, plan, restarts};
use ringpost_chaos::proxy::{Proxy, Route};
use ringpost_chaos::shares::{Bounds, Times, shares};
use ringpost_chaos::{clock, history, keep};

/// Parts of scripts/chaos: a workload with a history, who keeps it, faults by seed, a fault proxy.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes records and a history of them, until SIGTERM or --seconds
    Load(Box<LoadOptions>),
    /// Keeps a history: reads PIPE until its writers are gone, into FILE
    Keep {
        /// A named pipe
        pipe: PathBuf,
        /// Where to
        file: PathBuf,
    },
    /// Prints the faults of a seed: kind, node, milliseconds, quiet milliseconds behind it, a number
    Plan {
        /// The seed
        #[arg(long)]
        seed: u64,
        /// For how long
        #[arg(long, required_unless_present = "restarts")]
        seconds: Option<u64>,
        /// Not drawn: a pause of a minute, five kills, five ends, a rolling restart; nodes by the seed
        #[arg(long, conflicts_with_all = ["seconds", "faults"])]
        restarts: bool,
        /// How many nodes
        #[arg(long, default_value_t = 3)]
        nodes: u32,
        /// Only these kinds
        #[arg(long, value_delimiter = ',', value_parser = fault)]
        faults: Vec<Fault>,
    },
    /// Stands between clients and brokers and takes lines of faults from standard input
    Proxy {
        /// Where to listen, and the broker behind; nodes count from 1 in this order
        #[arg(required = true, value_name = "LISTEN=BROKER")]
        routes: Vec<Route>,
    },
    /// Lists the kinds of faults
    Faults,
    /// How many new records went to a broker's partitions while it was ill
    Shares {
        /// A history, as kept
        history: PathBuf,
        /// Its timeline, with lines begin, fault, heal and end
        timeline: PathBuf,
        /// The partitions the ill broker leads, if any
        #[arg(long, value_delimiter = ',')]
        ill: Vec<i32>,
        /// Its share of new records after a second, in percent, has to be less
        #[arg(long, default_value_t = 5.0)]
        share_max: f64,
        /// What the others carry at least, in percent of their fault-free part
        #[arg(long, default_value_t = 90.0)]
        others_min: f64,
        /// How long until it has its share again
        #[arg(long, default_value_t = 25_000)]
        return_ms_max: u64,
        /// While it is ill, nothing at all is acknowledged for so long at least
        #[arg(long, default_value_t = 0)]
        silence_ms_min: u64,
        /// Records of its partitions have to wait until it is well
        #[arg(long)]
        waits: bool,
        /// What is acknowledged in the end, in percent of the rate before
        #[arg(long, default_value_t = 0.0)]
        after_min: f64,
    },
    /// Appends a line to a timeline: the monotonic clock's nanoseconds, a tab, the words
    Mark {
        /// The timeline
        file: PathBuf,
        /// What happens now
        words: Vec<String>,
    },
}

fn fault(name: &str) -> Result<Fault, String> {
    Fault::of(name).ok_or_else(|| {
        let known: Vec<_> = Fault::all().map(Fault::name).collect();
        format!("no such fault; known are {}", known.join(", "))
    })
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringpost-chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match command {
        Command::Load(options) => {
            let stop = Stop::default();
            let handler = stop.clone();
            ctrlc::set_handler(move || handler.stop())?;
            let report = load(&options, &stop)?;
            println!(
                "load producer={} invoked={} ok={} fail={} maybe={} pending={} full={} \
                 refused={} ejections={} peak_rss_bytes={} memory_high_water={} \
                 memory_after_flush={} memory_in_use={}",
                options.producer,
                report.invoked,
                report.ok,
                report.fail,
                report.maybe,
                report.pending,
                report.full,
                report.refused,
                report.ejections,
                report.peak_rss_bytes,
                report.memory_high_water,
                report.memory_after_flush,
                report.memory_in_use
            );
            if report.pending > 0 {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Keep { pipe, file } => {
            // Ctrl-C at the terminal reaches all; this one ends when its writers have.
            ctrlc::set_handler(|| ())?;
            let kept = keep::keep(&pipe, &file)?;
            println!(
                "kept invoked={} ok={} fail={} maybe={} ended={} cut_off_bytes={}",
                kept.invoked, kept.ok, kept.fail, kept.maybe, kept.ended, kept.cut_off
            );
        }
        Command::Plan {
            seed,
            seconds,
            restarts: restart,
            nodes,
            faults,
        } => {
            let kinds = if faults.is_empty() {
                Fault::all().collect()
            } else {
                faults
            };
            let steps = if restart {
                restarts(seed, nodes)
            } else {
                plan(seed, seconds.unwrap_or(0), nodes, &kinds)
            };
            for step in steps {
                println!("{step}");
            }
        }
        Command::Proxy { routes } => {
            let proxy = Proxy::start(&routes)?;
            for line in std::io::stdin().lines() {
                match proxy.command(&line?) {
                    Ok(None) => println!("done"),
                    Ok(Some(did)) => println!("cleared {did}"),
                    Err(error) => println!("refused: {error}"),
                }
            }
        }
        Command::Faults => {
            for fault in Fault::all() {
                println!("{:<13} {}", fault.name(), fault.what());
            }
        }
        Command::Shares {
            history,
            timeline,
            ill,
            share_max,
            others_min,
            return_ms_max,
            silence_ms_min,
            waits,
            after_min,
        } => {
            let words = std::fs::read_to_string(timeline)?;
            let mark = |name: &'static str| {
                words
                    .lines()
                    .filter_map(|line| line.split_once('\t'))
                    .find(|(_, what)| what.starts_with(name))
                    .and_then(|(stamp, _)| stamp.parse().ok())
                    .ok_or_else(|| format!("the timeline has no line {name:?}"))
            };
            let times = Times {
                begin: mark("begin")?,
                ill: mark("fault")?,
                well: mark("heal")?,
                end: mark("end")?,
            };
            let ill: BTreeSet<i32> = ill.into_iter().collect();
            let seen = shares(history::events(&history)?, &ill, &times);
            println!("{seen}");
            let violations = seen.violations(&Bounds {
                share_percent_max: share_max,
                others_percent_min: others_min,
                return_ms_max,
                silence_ms_min,
                waits,
                after_percent_min: after_min,
            });
            for violation in &violations {
                println!("violation: {violation}");
            }
            if !violations.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Mark { file, words } => {
            let mut timeline = OpenOptions::new().append(true).create(true).open(file)?;
            writeln!(timeline, "{}\t{}", clock::now_ns(), words.join(" "))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
