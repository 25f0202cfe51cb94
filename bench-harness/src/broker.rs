//! The command `broker`: the embedded broker alone, for people in the foreground, or as the child of
//! a run, told what to do over its stdin.
//!
//! As a child (`--control`) it speaks lines: it prints `listening=HOST:PORT` when it is ready; a line
//! `report` on stdin is answered with one line of JSON, a [`BrokerReport`]; when stdin ends, it ends.
//! So it ends with its parent however that ends; on Linux the kernel makes sure (`PR_SET_PDEATHSIG`).

use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use ringpost_broker::{BrokerConfig, Keep, Mode, Server, ServerConfig};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::placement;
use crate::plan::Format;
use crate::units::show_count;
use crate::usage::Process;

/// The verdict's kind and version.
pub const SCHEMA: &str = "ringpost-bench/broker/1";

/// What the broker saw, and what it cost.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct BrokerReport {
    /// Records in its log.
    pub records: u64,
    /// Batches in its log.
    pub batches: u64,
    /// Produce requests it worked on.
    pub requests: u64,
    /// Bytes of the batches.
    pub bytes: u64,
    /// Records missing by their sequence.
    pub lost: u64,
    /// Records appended twice.
    pub duplicated: u64,
    /// Records appended out of order.
    pub reordered: u64,
    /// Damaged batches.
    pub corrupt: u64,
    /// The broker process.
    pub process: Process,
}

/// What `broker` is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the first node listens.
    pub listen: String,
    /// The host that clients are told to connect to, if it is not the one listened on.
    pub advertise: Option<String>,
    /// How closely it looks.
    pub verify: bool,
    /// Whether it keeps all batches.
    pub store: bool,
    /// Partitions of topics it makes.
    pub partitions: u32,
    /// Whether naming a topic makes it.
    pub auto_create: bool,
    /// Nodes of the cluster.
    pub nodes: u16,
    /// Largest batch taken.
    pub batch_bytes_max: u64,
    /// What every request takes besides its work, one after the other per connection; whole ms.
    pub delay: Duration,
    /// CPUs it is bound to.
    pub cpus: Vec<usize>,
    /// What it prints in the foreground.
    pub format: Format,
    /// Whether it is told what to do over stdin.
    pub control: bool,
}

impl Options {
    /// What `--mode` calls it.
    fn mode(&self) -> &'static str {
        if self.verify { "verify" } else { "ack" }
    }
}

/// Runs the broker until it is told to end.
pub fn run(options: &Options) -> Result<Exit, Failure> {
    if options.control {
        // Two ways to follow the parent: the kernel's, should it be killed, and the end of stdin.
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    }
    placement::bind(&options.cpus).map_err(Failure::config)?;
    let interrupt = Interrupt::install();
    let server = start(options)?;
    let out = io::stdout();
    if options.control {
        let _ = writeln!(out.lock(), "listening={}", server.addr());
        for line in io::stdin().lock().lines() {
            if line.is_ok_and(|line| line.trim() == "report") {
                let report = serde_json::to_string(&report(&server)).unwrap_or_default();
                let _ = writeln!(out.lock(), "{report}");
                let _ = out.lock().flush();
            }
        }
    } else {
        let listening = format!("listening={} mode={}", server.bootstrap(), options.mode());
        match options.format {
            Format::Text => _ = writeln!(out.lock(), "{listening}"),
            Format::Json => eprintln!("{listening}"),
        }
        eprintln!("Ctrl-C ends it and prints what it saw.");
        interrupt.wait();
        let verdict = Verdict::of(options, report(&server));
        match options.format {
            Format::Text => print_report(&verdict.report),
            Format::Json => {
                let json = serde_json::to_string_pretty(&verdict)
                    .map_err(|error| Failure::output(format!("the verdict: {error}")))?;
                println!("{json}");
            }
        }
        server.shutdown();
        return Ok(verdict.exit());
    }
    server.shutdown();
    Ok(Exit::Good)
}

/// What a broker in the foreground says in the end; `--format json` prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Verdict {
    /// Kind and version.
    schema: String,
    version: String,
    /// `verify` or `ack`.
    mode: String,
    /// Whether nothing was lost, duplicated, reordered or corrupt; `null` when nobody looked.
    good: Option<bool>,
    #[serde(flatten)]
    report: BrokerReport,
}

impl Verdict {
    fn of(options: &Options, report: BrokerReport) -> Self {
        let BrokerReport {
            lost,
            duplicated,
            reordered,
            corrupt,
            ..
        } = report;
        Self {
            schema: SCHEMA.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            mode: options.mode().into(),
            good: options
                .verify
                .then_some(lost + duplicated + reordered + corrupt == 0),
            report,
        }
    }

    /// How the program ends.
    fn exit(&self) -> Exit {
        match self.good {
            Some(false) => Exit::Unsettled,
            Some(true) | None => Exit::Good,
        }
    }
}

fn start(options: &Options) -> Result<Server, Failure> {
    let listen = address(&options.listen)?;
    let batch_bytes_max = usize::try_from(options.batch_bytes_max).unwrap_or(usize::MAX);
    let defaults = BrokerConfig::default();
    let broker = BrokerConfig {
        mode: if options.verify {
            Mode::Verify
        } else {
            Mode::Ack
        },
        keep: match (options.store, options.verify) {
            (true, _) => Keep::Everything,
            (false, true) => Keep::default(),
            (false, false) => Keep::Nothing,
        },
        default_partitions: i32::try_from(options.partitions).unwrap_or(i32::MAX),
        auto_create: options.auto_create,
        message_bytes_max: batch_bytes_max.max(defaults.message_bytes_max),
        decompressed_bytes_max: batch_bytes_max.max(defaults.decompressed_bytes_max),
        request_bytes_max: batch_bytes_max
            .saturating_mul(2)
            .max(defaults.request_bytes_max),
        ..defaults
    };
    let pin_cpu = match options.cpus[..] {
        [cpu] => Some(cpu),
        _ => None,
    };
    if listen.ip().is_unspecified() && options.advertise.is_none() {
        eprintln!(
            "Clients will be told to connect to 127.0.0.1: other hosts need --advertise HOST, or \
             --listen with an address they can reach."
        );
    }
    let config = ServerConfig {
        listen,
        advertise: options.advertise.clone(),
        nodes: options.nodes,
        pin_cpu,
        broker,
        ..ServerConfig::default()
    };
    let server = Server::start(config)
        .map_err(|error| Failure::connection(format!("cannot listen on {listen}: {error}")))?;
    let delay_ms = i64::try_from(options.delay.as_millis()).unwrap_or(i64::MAX);
    for node in 1..=options.nodes {
        server.slow_node(node.into(), delay_ms); // 0 is as fast as it goes
    }
    Ok(server)
}

fn address(text: &str) -> Result<SocketAddr, Failure> {
    let mut found = text
        .to_socket_addrs()
        .map_err(|error| Failure::config(format!("--listen: `{text}`: {error}")))?;
    found
        .next()
        .ok_or_else(|| Failure::config(format!("--listen: `{text}` has no address")))
}

fn report(server: &Server) -> BrokerReport {
    let report = server.report();
    BrokerReport {
        records: report.records,
        batches: report.batches,
        requests: report.requests,
        bytes: report.bytes,
        lost: report.lost,
        duplicated: report.duplicated,
        reordered: report.reordered,
        corrupt: report.corrupt,
        process: Process::now(),
    }
}

fn print_report(report: &BrokerReport) {
    println!(
        "{} records in {} batches and {} requests, {} bytes; lost {}, duplicated {}, reordered {}, \
         corrupt {}; {:.2} s of CPU",
        show_count(report.records),
        show_count(report.batches),
        show_count(report.requests),
        show_count(report.bytes),
        report.lost,
        report.duplicated,
        report.reordered,
        report.corrupt,
        report.process.cpu_s(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_good_only_when_somebody_looked_and_found_nothing() {
        let mut options = Options {
            listen: "127.0.0.1:0".into(),
            advertise: None,
            verify: true,
            store: false,
            partitions: 1,
            auto_create: true,
            nodes: 1,
            batch_bytes_max: 1 << 20,
            delay: Duration::ZERO,
            cpus: Vec::new(),
            format: Format::Json,
            control: false,
        };
        let faults: [fn(&mut BrokerReport); 4] = [
            |report| report.lost = 1,
            |report| report.duplicated = 1,
            |report| report.reordered = 1,
            |report| report.corrupt = 1,
        ];
        for fault in faults {
            let mut report = BrokerReport::default();
            let clean = Verdict::of(&options, report);
            assert_eq!((clean.good, clean.exit()), (Some(true), Exit::Good));
            fault(&mut report);
            let found = Verdict::of(&options, report);
            assert_eq!((found.good, found.exit()), (Some(false), Exit::Unsettled));
        }
        options.verify = false;
        let unknown = Verdict::of(&options, BrokerReport::default());
        assert_eq!((unknown.good, unknown.exit()), (None, Exit::Good));
    }
}
