//! What a search found, as people and as programs read it.

use std::collections::BTreeMap;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::environment::Environment;
use crate::exit::Exit;
use crate::histogram::Latency;
use crate::number::{float, milli};
use crate::report::document::{Document as Run, config};
use crate::search::bracket::{Answer, Showed};
use crate::search::{BEHIND, CONFIRMING, KEPT_UP, Quest};
use crate::units::{show_count, show_duration, show_rate};

/// The document's kind and version.
pub const SCHEMA: &str = "ringpost-bench/search/1";

/// What a search found.
#[derive(Clone, Debug)]
pub struct Sought {
    /// Records/s of a closed loop before it; `None` when it was interrupted there.
    pub closed_loop: Option<f64>,
    /// In their order.
    pub probes: Vec<Probe>,
    /// Its answer; `None` when it was interrupted or records were damaged.
    pub answer: Option<Answer>,
    /// The highest rate that held so far.
    pub holds: Option<u64>,
    /// The lowest rate that missed so far.
    pub misses: Option<u64>,
    /// What the broker found in the last probe.
    pub damaged: Option<String>,
    /// How long it took.
    pub took_s: f64,
}

impl Sought {
    /// Of a search that was interrupted before its first probe.
    pub fn nothing(took_s: f64) -> Self {
        Self {
            closed_loop: None,
            probes: Vec::new(),
            answer: None,
            holds: None,
            misses: None,
            damaged: None,
            took_s,
        }
    }
}

/// One probe.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in a run's document")]
pub struct Probe {
    /// Records a second that were asked for.
    pub rate: u64,
    /// Whether it was a longer one, whose verdict is final.
    pub confirming: bool,
    pub holds: bool,
    pub why: String,
    pub started: String,
    pub elapsed_s: f64,
    pub offered_records: u64,
    pub acked_records: u64,
    pub unsent_records: u64,
    pub records_per_s: f64,
    pub cpu_us_per_record: Option<f64>,
    pub response_us: Option<Latency>,
    pub steal_percent: Option<f64>,
    /// Of the last probe alone: it is the same for all but what changes by the second.
    #[serde(skip)]
    environment: Option<Environment>,
}

impl Probe {
    /// Of a run at `rate`.
    pub fn of(run: &Run, rate: u64, confirming: bool, showed: Showed, why: String) -> Self {
        Self {
            rate,
            confirming,
            holds: showed == Showed::Holds,
            why,
            started: run.started.clone(),
            elapsed_s: run.elapsed_s,
            offered_records: run.offered_records,
            acked_records: run.acked_records,
            unsent_records: run.unsent_records,
            records_per_s: run.records_per_s,
            cpu_us_per_record: run.cpu_us_per_record,
            response_us: run.latency_us.response,
            steal_percent: run.environment.steal_percent,
            environment: Some(run.environment.clone()),
        }
    }
}

/// The document of a search.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "what needs words has them")]
pub struct Document {
    pub schema: String,
    pub version: String,
    pub command: Vec<String>,
    /// `peak` or `slo`.
    pub what: String,
    pub objective: Option<String>,
    /// `found`, `none` (not even the lowest rate holds), `unconfirmed` (the probes were used up),
    /// `interrupted` or `damaged` (records were lost, duplicated, reordered or corrupt).
    pub verdict: String,
    /// The answer.
    pub found_records_per_s: Option<u64>,
    /// Nothing higher can be asked for.
    pub at_least: bool,
    /// The highest rate that held and the lowest that missed in the end.
    pub holds: Option<u64>,
    pub misses: Option<u64>,
    /// Records/s of a closed loop, where the search began; `null` when it was interrupted there.
    pub closed_loop_records_per_s: Option<f64>,
    pub algorithm: Algorithm,
    pub took_s: f64,
    pub probes: Vec<Probe>,
    /// Settings of the probes; their rate does not count.
    pub config: BTreeMap<String, Value>,
    pub environment: Option<Environment>,
}

/// How it was looked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "what needs words has them")]
pub struct Algorithm {
    pub says: String,
    pub precision_percent: f64,
    pub lowest: u64,
    pub probes_max: u32,
    pub probe: String,
    pub confirming_probe: String,
}

/// The document.
pub fn document(quest: &Quest, sought: &Sought) -> Document {
    let (verdict, found, at_least) = match sought.answer {
        Some(Answer::Found { rate, at_least }) => ("found", Some(rate), at_least),
        Some(Answer::None { .. }) => ("none", None, false),
        Some(Answer::Unconfirmed { .. }) => ("unconfirmed", None, false),
        None if sought.damaged.is_some() => ("damaged", None, false),
        None => ("interrupted", None, false),
    };
    Document {
        schema: SCHEMA.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        command: crate::report::document::command(),
        what: what(quest).into(),
        objective: quest.objective.map(|objective| objective.to_string()),
        verdict: verdict.into(),
        found_records_per_s: found,
        at_least,
        holds: sought.holds,
        misses: sought.misses,
        closed_loop_records_per_s: sought.closed_loop.map(milli),
        algorithm: Algorithm {
            says: algorithm(),
            precision_percent: milli(quest.precision * 100.0),
            lowest: quest.lowest,
            probes_max: quest.probes_max,
            probe: show_duration(quest.plan.duration),
            confirming_probe: show_duration(quest.plan.duration * CONFIRMING),
        },
        took_s: milli(sought.took_s),
        probes: sought.probes.clone(),
        config: config(&quest.plan),
        environment: sought
            .probes
            .last()
            .and_then(|probe| probe.environment.clone()),
    }
}

fn what(quest: &Quest) -> &'static str {
    match quest.objective {
        None => "peak",
        Some(_) => "slo",
    }
}

fn algorithm() -> String {
    format!(
        "a closed loop gives the scale; open loops bracket the rate, then bisect it on a log scale until \
         what misses is within the precision of what holds; a probe that misses is repeated once; the \
         rate told was held by a probe {CONFIRMING} times as long (one that misses there starts the \
         bisection anew, below it, with such probes alone). A rate holds when {:.0} % of the \
         records due were acked in the window, at most {:.0} % were behind schedule at its end, every \
         record ended as it should, and the objective was met",
        KEPT_UP * 100.0,
        BEHIND * 100.0
    )
}

/// How the program ends.
pub fn exit(sought: &Sought) -> Exit {
    match (&sought.answer, &sought.damaged) {
        (Some(Answer::Found { .. }), _) => Exit::Good,
        (_, Some(_)) => Exit::Unsettled,
        _ => Exit::Gate,
    }
}

/// For people.
pub fn text(quest: &Quest, sought: &Sought) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["records/s", "", "acked/s", "p50 µs", "p99 µs", "CPU µs", ""]);
    let mut probes: Vec<&Probe> = sought.probes.iter().collect();
    probes.sort_by_key(|probe| (probe.rate, probe.confirming));
    for probe in probes {
        let micros = |of: fn(Latency) -> f64| {
            let value = probe.response_us.map(of);
            value.map_or("–".into(), |value| format!("{value:.0}"))
        };
        table.add_row([
            show_count(probe.rate),
            if probe.confirming { "long" } else { "" }.into(),
            show_rate(probe.records_per_s),
            micros(|us| us.p50),
            micros(|us| us.p99),
            probe
                .cpu_us_per_record
                .map_or("–".into(), |cpu| format!("{cpu:.3}")),
            probe.why.split(':').next().unwrap_or_default().to_owned(),
        ]);
    }
    for column in [0, 2, 3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!(
        "\nProbes, by rate\n{table}\n\n{}\nIn a closed loop: {} records/s. {} probes in {:.0} s; how: {}.",
        sentence(quest, sought),
        sought.closed_loop.map_or("?".into(), show_rate),
        sought.probes.len(),
        sought.took_s,
        algorithm(),
    )
}

fn sentence(quest: &Quest, sought: &Sought) -> String {
    let keeps = quest
        .objective
        .map_or("is held".into(), |objective| format!("keeps {objective}"));
    let percent = quest.precision * 100.0;
    match sought.answer {
        Some(Answer::Found { rate, at_least }) => format!(
            "{} {} records/s: the highest rate that {keeps}, within {percent:.0} %, confirmed.",
            if at_least { "At least" } else { "Found:" },
            show_count(rate)
        ),
        Some(Answer::None { lowest }) => format!(
            "None: not even {} records/s, the lowest rate tried, {keeps}. {}",
            show_count(lowest),
            sought.probes.last().map_or("", |probe| probe.why.as_str())
        ),
        Some(Answer::Unconfirmed { rate }) => format!(
            "Not settled in {} probes. {}",
            quest.probes_max,
            match rate {
                Some(rate) => format!(
                    "The highest rate that a probe held: {} records/s.",
                    show_count(rate)
                ),
                None => "No rate held for long.".into(),
            }
        ),
        None => match &sought.damaged {
            Some(why) => format!("Ended: a probe's records were not what was sent. {why}"),
            None => format!(
                "Interrupted; so far holds: {}, misses: {}.",
                sought
                    .holds
                    .map_or("none".into(), |rate| show_rate(float(rate))),
                sought
                    .misses
                    .map_or("none".into(), |rate| show_rate(float(rate)))
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::threshold::Threshold;

    #[test]
    fn answer_verdict_words_and_exit_code_belong_together() {
        let quest = Quest {
            plan: Plan::default(),
            objective: Threshold::parse("p99 < 5ms").ok(),
            lowest: 100,
            precision: 0.05,
            probes_max: 9,
        };
        let mut sought = Sought {
            closed_loop: Some(1e6),
            probes: Vec::new(),
            answer: None,
            holds: Some(7_000),
            misses: Some(7_200),
            damaged: None,
            took_s: 1.0,
        };
        let found = |at_least| Answer::Found {
            rate: 7_000,
            at_least,
        };
        let cases = [
            (Some(found(false)), "found", Exit::Good, "Found: 7 000"),
            (Some(found(true)), "found", Exit::Good, "At least 7 000"),
            (
                Some(Answer::None { lowest: 100 }),
                "none",
                Exit::Gate,
                "not even 100",
            ),
            (
                Some(Answer::Unconfirmed { rate: None }),
                "unconfirmed",
                Exit::Gate,
                "in 9 probes",
            ),
            (None, "interrupted", Exit::Gate, "so far holds: 7.00 k"),
        ];
        for (answer, verdict, code, said) in cases {
            sought.answer = answer;
            let document = document(&quest, &sought);
            assert_eq!((document.verdict.as_str(), exit(&sought)), (verdict, code));
            assert_eq!(document.found_records_per_s.is_some(), verdict == "found");
            let text = text(&quest, &sought);
            assert!(text.contains(said), "{said} is not in {text}");
        }
        sought.damaged = Some("5 lost".into());
        assert_eq!(document(&quest, &sought).verdict, "damaged");
        assert_eq!(exit(&sought), Exit::Unsettled);
    }
}
