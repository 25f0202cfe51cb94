//! A comparison as Markdown, for a pull request.

use crate::compare::text::{counter_rows, curves, headline, row};
use crate::compare::{Comparison, Shown};
use crate::likeness::Role;

/// The whole report.
pub fn markdown(comparison: &Comparison) -> String {
    let mut out = String::new();
    for against in &comparison.comparisons {
        out.push_str(&format!("**{}**\n\n", escaped(&headline(against))));
        let head = [
            "figure",
            &against.baseline,
            &against.result,
            "change",
            "95 % interval",
            "verdict",
        ];
        out.push_str(&table(
            &head.map(str::to_owned),
            against.figures.iter().map(row),
        ));
        out.push_str("\n\\* the verdict over all rests on these\n\n");
        for note in &against.notes {
            out.push_str(&format!("- {}\n", escaped(note)));
        }
    }
    let compared = comparison
        .differences
        .iter()
        .filter(|d| d.role == Role::Configuration);
    for difference in compared {
        out.push_str(&format!(
            "- compared: {}\n",
            escaped(&difference.to_string())
        ));
    }
    for warning in &comparison.warnings {
        out.push_str(&format!("- **warning**: {}\n", escaped(warning)));
    }
    let names = comparison
        .results
        .iter()
        .map(|result: &Shown| result.name.clone());
    let head: Vec<String> = std::iter::once("counter".to_owned()).chain(names).collect();
    out.push_str(&format!(
        "\n{}",
        table(&head, counter_rows(&comparison.results))
    ));
    out.push_str(&format!("\n```text\n{}```\n", curves(&comparison.results)));
    out
}

fn table<R: AsRef<[String]>>(head: &[String], rows: impl IntoIterator<Item = R>) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| escaped(cell)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut out = line(head);
    out.push_str(&format!(
        "|---|{}\n",
        "--:|".repeat(head.len().saturating_sub(1))
    ));
    rows.into_iter()
        .for_each(|row| out.push_str(&line(row.as_ref())));
    out
}

/// Bars and stars that Markdown would take for its own.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('*', "\\*")
}
