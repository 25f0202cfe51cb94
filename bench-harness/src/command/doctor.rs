//! `doctor`: is this host fit to measure on?

use std::thread;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, rfc3339, wall};
use crate::doctor::host::{Host, Watch};
use crate::doctor::unit_costs::{self, UnitCosts};
use crate::doctor::{Finding, Verdict, judge, worst};
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::number::{count, float};
use crate::placement::{self, Placement};

const EXAMPLES: &str = "\
Examples:
  ringpost-bench doctor
      A table: what was found, what it does to figures, what to do about it.
  ringpost-bench doctor --format json
      The same as one JSON document on stdout.

Exit codes:
  0  the host was looked at, whatever was found: findings are no errors
  2  a flag is wrong
  5  the document could not be printed";

/// The document's kind and version.
pub const SCHEMA: &str = "ringpost-bench/doctor/1";

/// How long this process does nothing, to see what others do.
const QUIET: Duration = Duration::from_millis(500);
/// The record that the ping-pong stands for.
const RECORD_BYTES: u64 = 100;
/// Columns of a table that goes to a file.
const WIDTH: u16 = 130;

/// The document.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    schema: String,
    version: String,
    /// UTC.
    started: String,
    /// The worst of the findings.
    verdict: Verdict,
    findings: Vec<Finding>,
    unit_costs: UnitCosts,
    environment: Environment,
}

/// Its flags.
pub fn command() -> Command {
    Command::new("doctor")
        .about(
            "Is this host fit to measure on? What was found, what it does to figures, what to do",
        )
        .after_help(EXAMPLES)
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .default_value("text")
                .value_parser(PossibleValuesParser::new(["text", "json"]))
                .help("What the findings are printed as"),
        )
}

/// Looks and tells.
pub fn run(matches: &ArgMatches) -> Result<Exit, Failure> {
    let document = look();
    if matches.get_one::<String>("format").map(String::as_str) == Some("json") {
        let json = serde_json::to_string_pretty(&document)
            .map_err(|error| Failure::output(format!("the document: {error}")))?;
        println!("{json}");
    } else {
        println!("{}", text(&document));
    }
    Ok(Exit::Good)
}

fn look() -> Document {
    let started = rfc3339(wall());
    let allowed = placement::allowed();
    let placement = Placement::choose(&allowed, true);
    let host = Host::look(&allowed, &placement, true);
    let (clock, watch) = (Clock::new(), Watch::start());
    let quiet_ns = u64::try_from(QUIET.as_nanos()).unwrap_or(u64::MAX);
    while clock.now() < quiet_ns {
        thread::park_timeout(Duration::from_nanos(quiet_ns - clock.now().min(quiet_ns)));
    }
    let stretch = watch.end(float(clock.now()) / 1e9);
    let unit_costs = unit_costs::measure(&placement, RECORD_BYTES, false);
    let mut findings = judge::of_host(&host);
    findings.extend(judge::of_stretch(stretch));
    findings.extend(judge::of_costs(&unit_costs));
    Document {
        schema: SCHEMA.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        started,
        verdict: worst(&findings),
        environment: Environment {
            steal_percent: stretch.map(|stretch| stretch.steal_percent),
            findings: findings.clone(),
            unit_costs: Some(unit_costs.clone()),
            ..Environment::now(&host)
        },
        findings,
        unit_costs,
    }
}

fn text(document: &Document) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(WIDTH); // no terminal
    }
    table.set_header([
        "",
        "found",
        "verdict",
        "what it does to figures, and what to do",
    ]);
    for finding in &document.findings {
        let mut told = finding.effect.clone();
        if let Some(advice) = &finding.advice {
            told.push_str(&format!("\n→ {advice}"));
        }
        table.add_row([
            finding.name.replace('_', " "),
            finding.value.clone(),
            match finding.verdict {
                Verdict::Good => "good".into(),
                worse => worse.to_string().to_uppercase(),
            },
            told,
        ]);
    }
    let of = |verdict| {
        let findings = document.findings.iter();
        count(
            findings
                .filter(|finding| finding.verdict == verdict)
                .count(),
        )
    };
    format!(
        "{table}\n{} good, {} with caution, {} bad. {}",
        of(Verdict::Good),
        of(Verdict::Caution),
        of(Verdict::Bad),
        match document.verdict {
            Verdict::Good => "Fit to measure on.",
            Verdict::Caution =>
                "Fit for comparisons of pairs; absolute figures with the above beside them.",
            Verdict::Bad => "Compare pairs of runs in turns here; do not tell absolute figures.",
        }
    )
}
