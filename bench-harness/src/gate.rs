//! `gate`: does a result keep its thresholds? Those of its scenario's `[gate]`, and more from the
//! command line; each is judged by [`threshold`](crate::threshold). A result in which a record did not
//! end as it should is never good enough.
//!
//! A threshold whose figure the result does not have is neither kept nor broken: that is a mistake in
//! the gate, and told as one. One about what brokers elsewhere do not tell of any run does not apply,
//! and is told as that. A result that was interrupted, of whatever window it is, is not judged.

use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::likeness::{Role, differences, lines};
use crate::recorded::Recorded;
use crate::threshold::{Judged, Threshold};

/// The document's kind and version.
pub const SCHEMA: &str = "ringpost-bench/gate/1";

/// What was found; `--format json` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct Gate {
    /// Kind and version.
    pub schema: &'static str,
    /// The judged folder.
    pub result: String,
    /// The folder that changes are measured against.
    pub baseline: Option<String>,
    /// Whether everything that applies was kept.
    pub passed: bool,
    /// Threshold by threshold.
    pub thresholds: Vec<Line>,
    /// What casts doubt on it.
    pub warnings: Vec<String>,
}

/// One threshold.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// As it is written.
    pub threshold: String,
    /// How it went.
    pub verdict: Verdict,
    /// The result's value, in the unit of the limit; `None` when it is not known.
    pub value: Option<f64>,
    /// The limit, in the document's unit; percent with `vs_baseline`.
    pub limit: Option<f64>,
    /// The value for reading, or why there is none.
    pub shown: String,
}

/// How a threshold went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Kept.
    Pass,
    /// Broken.
    Fail,
    /// Nobody can say.
    Unknown,
    /// Nobody could say it of any run against brokers elsewhere.
    #[serde(rename = "not applicable")]
    NotApplicable,
}

/// Judges `result` by its own thresholds and by `more`. Refuses a baseline of different work unless
/// `force`, what was interrupted, and a gate without a threshold.
pub fn gate(
    result: &Recorded,
    baseline: Option<&Recorded>,
    more: &[Threshold],
    force: bool,
) -> Result<Gate, Failure> {
    let document = &result.document;
    for judged in [Some(result), baseline].into_iter().flatten() {
        if judged.document.interrupted {
            return Err(Failure::config(format!(
                "{}: the run was interrupted; its figures are of another window than the one asked \
                 for, and are not judged",
                judged.folder.display()
            )));
        }
    }
    let mut thresholds = Vec::new();
    for text in &document.gate {
        let name = result.folder.join("run.json");
        let read = Threshold::parse(text)
            .map_err(|what| Failure::config(format!("{}: gate: {what}", name.display())))?;
        thresholds.push(read);
    }
    // Of two that bound the same figure from the same side, the command line's.
    thresholds.retain(|own| !more.iter().any(|threshold| threshold.replaces(own)));
    thresholds.extend(more);
    if thresholds.is_empty() {
        return Err(Failure::config(format!(
            "{}: its scenario has no [gate]; name a threshold with --threshold",
            result.folder.display()
        )));
    }
    let mut warnings = Vec::new();
    if document.environment.build.contains("debug") {
        warnings.push("a debug build: its figures mean nothing".to_owned());
    }
    if let Some(baseline) = baseline {
        let differences = differences(&[&baseline.document, document]);
        let other_work = lines(&differences, Role::Workload);
        if !other_work.is_empty() && !force {
            return Err(Failure::config(format!(
                "the baseline did different work; --force compares with it all the same\n{other_work}"
            )));
        }
        let rest = differences.iter().filter(|difference| {
            difference.role == Role::Surroundings || difference.role == Role::Workload
        });
        warnings.extend(rest.map(|difference| format!("the baseline differs in {difference}")));
    }
    let mut lines = vec![settled(result)];
    let baseline_document = baseline.map(|baseline| &baseline.document);
    lines.extend(thresholds.iter().map(|threshold| {
        let (verdict, value, shown) = match threshold.judge(document, baseline_document) {
            Judged::Holds(value) => (Verdict::Pass, Some(value), threshold.show(value)),
            Judged::Fails(value) => (Verdict::Fail, Some(value), threshold.show(value)),
            Judged::Unknown(why) => (Verdict::Unknown, None, why.to_owned()),
            Judged::NotApplicable(why) => (Verdict::NotApplicable, None, why.to_owned()),
        };
        Line {
            threshold: threshold.to_string(),
            verdict,
            value,
            limit: Some(threshold.limit),
            shown,
        }
    }));
    Ok(Gate {
        schema: SCHEMA,
        result: result.folder.display().to_string(),
        baseline: baseline.map(|baseline| baseline.folder.display().to_string()),
        passed: (lines.iter())
            .all(|line| matches!(line.verdict, Verdict::Pass | Verdict::NotApplicable)),
        thresholds: lines,
        warnings,
    })
}

/// The threshold that every result has.
fn settled(result: &Recorded) -> Line {
    let good = result.document.good;
    Line {
        threshold: "every record ended as it should".into(),
        verdict: if good { Verdict::Pass } else { Verdict::Fail },
        value: None,
        limit: None,
        shown: if good { "yes" } else { "no" }.into(),
    }
}

impl Gate {
    /// 3 when a threshold is broken; 2 when none is, but one cannot be judged.
    pub fn exit(&self) -> Exit {
        let any = |verdict| self.thresholds.iter().any(|line| line.verdict == verdict);
        if any(Verdict::Fail) {
            Exit::Gate
        } else if any(Verdict::Unknown) {
            Exit::Config
        } else {
            Exit::Good
        }
    }

    /// For people: a line a threshold.
    pub fn text(&self) -> String {
        let width = |of: fn(&Line) -> &str| {
            let widths = self.thresholds.iter().map(|line| of(line).chars().count());
            widths.max().unwrap_or(0)
        };
        let name = width(|line| &line.threshold);
        let mut out = String::new();
        for warning in &self.warnings {
            out.push_str(&format!("Warning: {warning}\n"));
        }
        for line in &self.thresholds {
            let verdict = match line.verdict {
                Verdict::Pass => "pass",
                Verdict::Fail => "FAIL",
                Verdict::Unknown => "????",
                Verdict::NotApplicable => "-   ",
            };
            let (threshold, shown) = (&line.threshold, &line.shown);
            out.push_str(&format!("{verdict}  {threshold:<name$}  {shown}\n"));
        }
        let kept = self
            .thresholds
            .iter()
            .filter(|line| line.verdict == Verdict::Pass)
            .count();
        let applies = |line: &&Line| line.verdict != Verdict::NotApplicable;
        let all = self.thresholds.iter().filter(applies).count();
        out.push_str(&format!(
            "{}: {kept} of {all} thresholds kept\n",
            self.result
        ));
        out
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::log_end::LogGrowth;
    use crate::sample::{Second, recorded};

    fn result(rate: usize) -> Recorded {
        let second = Second {
            times: vec![1_500_000; rate],
            cpu_s: 0.1,
        };
        let mut result = recorded("result", Duration::from_secs(1), &[second]);
        result.document.gate = vec!["records_per_s > 900".into()];
        result
    }

    fn judged(result: &Recorded, baseline: Option<&Recorded>, more: &[&str]) -> Gate {
        let more: Vec<_> = more
            .iter()
            .map(|text| Threshold::parse(text).expect(text))
            .collect();
        gate(result, baseline, &more, false).expect("a gate")
    }

    #[test]
    fn each_threshold_is_judged() {
        let good = judged(&result(1_000), None, &["cpu_us_per_record < 120"]);
        assert!(good.passed && good.exit() == Exit::Good, "{good:?}");
        let slow = judged(&result(800), None, &["cpu_us_per_record < 120"]);
        assert_eq!(slow.exit(), Exit::Gate);
        let text = slow.text();
        assert!(text.contains("FAIL  records_per_s > 900"), "{text}");
        assert!(text.contains("1 of 3 thresholds kept"), "{text}");
        let lenient = judged(&result(800), None, &["records_per_s > 700"]);
        assert_eq!((lenient.exit(), lenient.thresholds.len()), (Exit::Good, 2));
    }

    #[test]
    fn a_change_against_the_baseline() {
        let slower = ["vs_baseline records_per_s > -3%"];
        let (now, before) = (result(1_000), result(1_020));
        assert_eq!(judged(&now, Some(&before), &slower).exit(), Exit::Good);
        let before = result(1_040);
        assert_eq!(judged(&now, Some(&before), &slower).exit(), Exit::Gate);
        let without = judged(&now, None, &slower);
        assert_eq!(without.exit(), Exit::Config);
        assert!(without.text().contains("????"), "{}", without.text());
        let mut other = result(1_020);
        other.document.config.insert("acks".into(), "1".into());
        let more = [Threshold::parse(slower[0]).expect("a threshold")];
        let refused = gate(&now, Some(&other), &more, false).expect_err("different work");
        assert!(refused.why.contains("acks: 1 | all"), "{refused}");
        assert_eq!(
            gate(&now, Some(&other), &more, true)
                .expect("forced")
                .exit(),
            Exit::Good
        );
    }

    #[test]
    fn what_is_not_known_is_not_kept_and_a_lost_record_is_never_good_enough() {
        let mut result = result(1_000);
        assert_eq!(judged(&result, None, &["p99 < 1s"]).exit(), Exit::Config);
        result.document.good = false;
        let lossy = judged(&result, None, &["p99 < 1s"]);
        assert_eq!(lossy.exit(), Exit::Gate);
        result.document.gate.clear();
        assert!(
            gate(&result, None, &[], false).is_err(),
            "nothing to judge by"
        );
    }

    #[test]
    fn what_brokers_elsewhere_do_not_tell_does_not_apply() {
        let mut result = result(1_000);
        let integrity = ["lost = 0", "duplicated = 0", "reordered = 0", "corrupt = 0"];
        result.document.verified = None;
        let unverified = judged(&result, None, &integrity);
        assert_eq!(
            unverified.exit(),
            Exit::Config,
            "a broker of our own can tell"
        );

        let config = &mut result.document.config;
        config.insert("brokers".into(), "there:9092".into());
        let untold = judged(&result, None, &integrity);
        assert_eq!(untold.exit(), Exit::Good);
        let verdict = |gate: &Gate, of: &str| {
            let mut lines = gate.thresholds.iter();
            lines
                .find(|line| line.threshold == of)
                .map(|line| line.verdict)
        };
        for threshold in integrity {
            assert_eq!(verdict(&untold, threshold), Some(Verdict::NotApplicable));
        }
        let text = untold.text();
        assert!(text.contains("-     reordered = 0"), "{text}");
        assert!(text.contains("2 of 2 thresholds kept"), "{text}");

        for (after, lost, duplicated, exit) in [
            (1_000, Verdict::Pass, Verdict::Pass, Exit::Good),
            (999, Verdict::Fail, Verdict::Pass, Exit::Gate),
            (1_001, Verdict::Pass, Verdict::Fail, Exit::Gate),
        ] {
            result.document.log_growth = Some(LogGrowth::of(0, after, 1_000, 0));
            let gate = judged(&result, None, &integrity);
            assert_eq!(gate.exit(), exit, "{}", gate.text());
            assert_eq!(verdict(&gate, "lost = 0"), Some(lost));
            assert_eq!(verdict(&gate, "duplicated = 0"), Some(duplicated));
            assert_eq!(verdict(&gate, "corrupt = 0"), Some(Verdict::NotApplicable));
        }
        let untold = judged(&result, None, &["wire_to_ack p99 < 1s"]);
        assert_eq!(untold.exit(), Exit::Config, "that is the client's to know");
    }

    #[test]
    fn an_interrupted_result_is_not_judged() {
        let (whole, mut cut) = (result(1_000), result(1_000));
        cut.document.interrupted = true;
        for (judged, baseline) in [(&cut, None), (&whole, Some(&cut))] {
            let refused = gate(judged, baseline, &[], true).expect_err("interrupted");
            assert_eq!(refused.exit, Exit::Config);
            assert!(refused.why.contains("was interrupted"), "{refused}");
        }
    }
}
