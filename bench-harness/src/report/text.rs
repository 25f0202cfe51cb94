//! The report for people: what was measured, figures, two pictures, and what they depend on.

use comfy_table::presets::{NOTHING, UTF8_HORIZONTAL_ONLY};
use comfy_table::{CellAlignment, Table};

use crate::client::null::UNUSED;
use crate::doctor::Verdict;
use crate::histogram::Latency;
use crate::measure::Measured;
use crate::number::{float, whole};
use crate::placement;
use crate::plan::{Engine, Rate};
use crate::report::document::{Document, document};
use crate::report::picture;
use crate::setting::SETTINGS;
use crate::threshold;
use crate::units::{show_count, show_rate};

/// The whole report.
pub fn text(measured: &Measured) -> String {
    let figures = document(measured);
    let mut out = String::new();
    out.push_str(&format!("\n{}\n", verdict(measured, &figures)));
    out.push_str(&format!("\n{}\n", main_table(measured, &figures)));
    out.push_str("\nLatency, by percentile\n");
    out.push_str(&format!("{}\n", latency_table(&figures)));
    let (name, times) = if measured.latencies.response.is_empty() {
        ("send → ack", &measured.latencies.service)
    } else {
        ("intended send → ack", &measured.latencies.response)
    };
    out.push_str(&format!("\nLatency, {name}\n{}", picture::latency(times)));
    out.push_str(&format!(
        "\nThroughput, over intervals of 10 ms\n{}",
        picture::throughput(&measured.rates)
    ));
    if !measured.plan.gate.is_empty() {
        let told = threshold::told(&measured.plan.gate, &figures, None);
        let lines: Vec<_> = told.lines().map(|line| format!("  {line}\n")).collect();
        out.push_str(&format!("\nThresholds\n{}", lines.concat()));
    }
    out.push_str(&format!("\nSettings of this run\n{}\n", settings(measured)));
    out.push_str(&format!("\n{}", surroundings(measured, &figures)));
    out.push_str(&cautions(&figures));
    out
}

/// One line, and what is wrong, if something is.
fn verdict(measured: &Measured, figures: &Document) -> String {
    let mut lines = Vec::new();
    if let Some(failure) = &figures.failure {
        lines.push(format!("Ended early: {failure}"));
    }
    if figures.interrupted {
        lines.push(match measured.plan.rate {
            Rate::OfPeak(_) if measured.plan.peak.is_none() => {
                "Interrupted while the peak was looked for: nothing was measured.".into()
            }
            _ => "Interrupted: the figures are those of a shorter window.".into(),
        });
    }
    for failure in &figures.failures {
        lines.push(format!(
            "{} records failed: {}",
            show_count(failure.records),
            failure.why
        ));
    }
    let run = &figures.run;
    if run.unsettled_records > 0 {
        lines.push(format!(
            "{} records never settled",
            show_count(run.unsettled_records)
        ));
    }
    if run.unknown_records > 0 {
        lines.push(format!(
            "{} records may be written or not",
            show_count(run.unknown_records)
        ));
    }
    if figures.environment.build == "debug" {
        lines.push("A debug build: its figures mean nothing. Build with --release.".into());
    }
    lines.push(match &figures.verified {
        Some(verified) => format!(
            "{}: {} records in the broker's log; lost {}, duplicated {}, reordered {}, corrupt {}",
            if measured.is_good() {
                "Verified"
            } else {
                "NOT GOOD"
            },
            show_count(verified.records),
            verified.lost,
            verified.duplicated,
            verified.reordered,
            verified.corrupt
        ),
        None if measured.is_good() => match &figures.log_growth {
            Some(growth) if growth.surplus == 0 => format!(
                "All records settled, and the topic's log grew by {}, which is their number; order and \
                 content were not looked at (the broker's own report does)",
                show_count(growth.records)
            ),
            _ => "All records settled; nobody verified the log".into(),
        },
        None => "NOT GOOD: not every record settled as it should".into(),
    });
    lines.join("\n")
}

fn main_table(measured: &Measured, figures: &Document) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    let optional =
        |value: Option<f64>| value.map_or("not known".into(), |value| format!("{value:.3}"));
    let good = if figures.sent_records > 0 {
        "sent"
    } else {
        "acked"
    };
    row(
        "rate",
        format!(
            "{} records/s {good}, {:.1} MiB/s",
            show_rate(figures.records_per_s),
            figures.mib_per_s
        ),
    );
    row(
        "CPU per record",
        match figures.cpu_us_per_record {
            Some(cpu) => format!(
                "{cpu:.4} µs (user {:.2} s, system {:.2} s in {:.2} s)",
                figures.cpu_user_s, figures.cpu_system_s, figures.elapsed_s
            ),
            None => "no record was acked".into(),
        },
    );
    row(
        "CPU of others",
        format!(
            "broker {}, whole machine {} CPUs busy",
            figures
                .broker_cpu_s
                .map_or("not known".into(), |cpu| format!("{cpu:.2} s")),
            figures
                .machine_busy_cpus
                .map_or("?".into(), |cpus| format!("{cpus:.2}")),
        ),
    );
    row(
        "records",
        format!(
            "{} offered, {} {good}, {} not written, {} unknown{}",
            show_count(figures.offered_records),
            show_count(measured.good()),
            show_count(figures.not_written_records),
            show_count(figures.unknown_records),
            match figures.unsent_records {
                0 => String::new(),
                unsent => format!(", {} behind schedule at the end", show_count(unsent)),
            }
        ),
    );
    row(
        "full buffer",
        format!(
            "{} times, {:.3} s waited",
            show_count(figures.full_waits),
            figures.blocked_s
        ),
    );
    if let Some(throughput) = figures.throughput {
        let rates = [
            throughput.p1,
            throughput.p10,
            throughput.p50,
            throughput.p90,
            throughput.p99,
        ]
        .map(|rate| show_rate(float(rate)));
        row(
            "records/s in 10 ms",
            format!(
                "p1 {}, p10 {}, p50 {}, p90 {}, p99 {}",
                rates[0], rates[1], rates[2], rates[3], rates[4]
            ),
        );
    }
    row(
        "per request",
        format!(
            "{} batches of {} records; {} kernel entries",
            optional(figures.batches_per_request),
            figures
                .records_per_batch
                .map_or("?".into(), |records| format!("{records:.0}")),
            optional(figures.kernel_entries_per_request),
        ),
    );
    row(
        "allocations",
        match figures.allocations_per_record {
            Some(allocations) => format!("{allocations:.6} a record"),
            None => "not counted".into(),
        },
    );
    row(
        "threads",
        format!(
            "{} voluntary switches, {} involuntary; peak memory {:.1} MiB",
            show_count(figures.voluntary_switches),
            show_count(figures.involuntary_switches),
            float(figures.peak_rss_bytes) / 1_048_576.0
        ),
    );
    row(
        "driver",
        format!("{}: {}", figures.driver, figures.driver_reason),
    );
    row("placement", place(measured));
    table
}

/// Where everything ran.
fn place(measured: &Measured) -> String {
    let placement = &measured.placement;
    let mut text = format!("client on CPU {}", placement::show(&placement.client_cpus));
    if !placement.broker_cpus.is_empty() {
        text.push_str(&format!(
            ", broker on CPU {}",
            placement::show(&placement.broker_cpus)
        ));
    }
    text.push_str(&format!(" ({})", placement.reason));
    for shard in &measured.facts.shards {
        text.push_str(&format!("\n{shard}"));
    }
    text
}

fn latency_table(figures: &Document) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["µs", "p50", "p90", "p99", "p99.9", "p99.99", "max", "mean"]);
    let latency = &figures.latency_us;
    let mut row = |name: &str, latency: Option<Latency>| {
        let Some(latency) = latency else { return };
        let cells = [
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p99_9,
            latency.p99_99,
            latency.max,
            latency.mean,
        ]
        .map(micros);
        table.add_row(std::iter::once(name.to_owned()).chain(cells));
    };
    row("response (intended → ack)", latency.response);
    row("service (sent → ack)", latency.service);
    if let Some(stages) = &latency.stages {
        row("  append → seal", stages.append_to_seal);
        row("  seal → wire", stages.seal_to_wire);
        row("  wire → ack", stages.wire_to_ack);
    }
    row("floor: plain TCP, a record", latency.floor);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn micros(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.1}")
    } else {
        show_count(whole(value))
    }
}

/// What a comparison has to hold equal, four settings a line.
fn settings(measured: &Measured) -> String {
    let plan = &measured.plan;
    let mut shown: Vec<String> = SETTINGS
        .iter()
        .filter(|setting| !["format", "out"].contains(&setting.name))
        .filter(|setting| plan.engine != Engine::Null || !UNUSED.contains(&setting.name))
        .filter_map(|setting| Some(format!("{}={}", setting.name, (setting.show)(plan)?)))
        .collect();
    shown.extend(
        plan.set
            .iter()
            .map(|(key, value)| format!("set.{key}={value}")),
    );
    let mut out = String::new();
    for line in shown.chunks(5) {
        out.push_str(&format!("  {}\n", line.join("  ")));
    }
    for differs in &measured.facts.differs {
        out.push_str(&format!("  {differs}\n"));
    }
    out.truncate(out.trim_end().len());
    out
}

/// What to keep in mind: hints on the run, and what is not good about the host.
fn cautions(figures: &Document) -> String {
    let mut out = String::new();
    for hint in &figures.hints {
        out.push_str(&format!("\n{hint}"));
    }
    let mut findings: Vec<_> = figures.environment.findings.iter().collect();
    findings.retain(|finding| finding.verdict != Verdict::Good);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
    if !findings.is_empty() {
        let said: Vec<_> = findings
            .iter()
            .map(|finding| format!("{} {}: {}", finding.name, finding.verdict, finding.value))
            .collect();
        out.push_str(&format!(
            "\nThis host (`ringpost-bench doctor` says more): {}\n",
            said.join(" · ")
        ));
    }
    out
}

fn surroundings(measured: &Measured, figures: &Document) -> String {
    let environment = &figures.environment;
    let told = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".into());
    format!(
        "{} · {} · {} × {} (allowed: {}) · governor {} · io_uring {} · steal {} · {} · {}\n",
        told(&environment.host),
        told(&environment.kernel),
        environment.cpus,
        told(&environment.cpu_model),
        environment.affinity_list(),
        told(&environment.governor),
        environment.io_uring,
        environment
            .steal_percent
            .map_or("?".into(), |steal| format!("{steal:.1} %")),
        environment.rustc.as_deref().unwrap_or("rustc ?"),
        measured
            .environment
            .commit
            .as_ref()
            .map_or("commit ?".into(), |commit| commit[..commit.len().min(12)]
                .to_owned()),
    )
}
