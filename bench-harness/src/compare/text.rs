//! A comparison for people.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use crate::compare::{Against, Compared, Comparison, Shown, Unit, Verdict};
use crate::likeness::Role;
use crate::number::{float, index, whole};
use crate::units::{show_count, show_nanos, show_rate};

/// Characters of a percentile curve.
const WIDTH: u64 = 48;

/// The whole report.
pub fn text(comparison: &Comparison) -> String {
    let mut out = String::new();
    for warning in &comparison.warnings {
        out.push_str(&format!("Warning: {warning}\n"));
    }
    for difference in comparison
        .differences
        .iter()
        .filter(|d| d.role == Role::Configuration)
    {
        out.push_str(&format!("Compared: {difference}\n"));
    }
    for against in &comparison.comparisons {
        out.push_str(&format!(
            "\n{}\n\n{}\n",
            headline(against),
            figures(against)
        ));
        out.push_str("* the verdict over all rests on these\n");
        for note in &against.notes {
            out.push_str(&format!("Note: {note}.\n"));
        }
    }
    out.push_str(&format!("\nCounters\n{}\n", counters(&comparison.results)));
    out.push_str(&format!(
        "\nLatency by percentile\n{}",
        curves(&comparison.results)
    ));
    out
}

/// One line with the verdict.
pub fn headline(against: &Against) -> String {
    let (result, baseline) = (&against.result, &against.baseline);
    let verdict = match against.verdict {
        Verdict::Noise => format!("{result} and {baseline} are within noise of each other"),
        Verdict::Mixed => {
            format!("{result} is better than {baseline} in some figures, worse in others")
        }
        Verdict::Unknown => format!("whether {result} is faster than {baseline} is not known"),
        Verdict::Faster | Verdict::Slower => {
            format!("{result} is {} than {baseline}", against.verdict.word())
        }
    };
    let doubt = if against.reliable {
        ""
    } else {
        "; not reliable"
    };
    format!("{verdict} ({}{doubt})", pairs(against))
}

/// `10 pairs of rounds`.
pub fn pairs(against: &Against) -> String {
    let unit = match against.unit {
        Unit::Rounds => "rounds",
        Unit::Intervals => "intervals",
    };
    match against.pairs {
        1 => format!("1 pair of {unit}"),
        pairs => format!("{pairs} pairs of {unit}"),
    }
}

fn figures(against: &Against) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header([
        "figure",
        &against.baseline,
        &against.result,
        "change",
        "95 % interval",
        "verdict",
    ]);
    for figure in &against.figures {
        table.add_row(row(figure));
    }
    for column in table.column_iter_mut().skip(1).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A figure's cells. One that the verdict over all rests on has a star.
pub fn row(figure: &Compared) -> [String; 6] {
    let star = if figure.decides { " *" } else { "" };
    [
        format!("{}{star}", figure.name),
        value(&figure.name, figure.baseline),
        value(&figure.name, figure.result),
        change(figure.ratio),
        match figure.interval {
            Some([low, high]) => format!("{} … {}", change(low), change(high)),
            None => "–".into(),
        },
        figure.verdict.word().into(),
    ]
}

fn value(name: &str, value: f64) -> String {
    match name {
        "records_per_s" => show_rate(value),
        "cpu_us_per_record" => format!("{value:.4}"),
        _ => show_nanos(whole(value * 1e3)),
    }
}

/// A ratio as a change in percent; as a factor when it is not a small one.
fn change(ratio: f64) -> String {
    if (0.5..2.0).contains(&ratio) {
        format!("{:+.1} %", (ratio - 1.0) * 100.0)
    } else {
        format!("×{ratio:.2}")
    }
}

fn counters(results: &[Shown]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let names = results.iter().map(|result| result.name.clone());
    table.set_header(std::iter::once(String::new()).chain(names));
    for cells in counter_rows(results) {
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A row a counter: its name, and each result's value.
pub fn counter_rows(results: &[Shown]) -> Vec<Vec<String>> {
    let names = results
        .first()
        .map(|first| first.counters.iter())
        .into_iter()
        .flatten();
    let rows = names.enumerate().map(|(place, counter)| {
        let values = results
            .iter()
            .map(|result| match result.counters[place].value {
                None => "–".into(),
                Some(value) if value.fract() == 0.0 => show_count(whole(value)),
                Some(value) if value >= 1_000.0 => show_count(whole(value)),
                Some(value) => format!("{value:.4}"),
            });
        std::iter::once(counter.name.to_owned())
            .chain(values)
            .collect()
    });
    rows.collect()
}

/// The letter a result has in the curves.
fn letter(place: usize) -> char {
    char::from(b'A' + u8::try_from(place % 26).unwrap_or(0))
}

/// Every percentile of every result, and where it lies on a logarithmic axis.
pub fn curves(results: &[Shown]) -> String {
    let all = || {
        results
            .iter()
            .flat_map(|result| &result.curve)
            .map(|point| point.us)
    };
    let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    if high <= 0.0 {
        return "  nobody recorded any\n".into();
    }
    let (low, high) = (low.max(0.001), high.max(low * 1.001));
    let place = |us: f64| {
        let share = (us.max(low) / low).ln() / (high / low).ln();
        index(whole(share * float(WIDTH - 1)))
    };
    let nanos = |us: f64| show_nanos(whole(us * 1e3));
    let mut out = String::new();
    for (number, result) in results.iter().enumerate() {
        out.push_str(&format!("  {} {}\n", letter(number), result.name));
    }
    let mut percentiles: Vec<f64> = (results.iter())
        .flat_map(|result| &result.curve)
        .map(|point| point.percentile)
        .collect();
    percentiles.sort_by(f64::total_cmp);
    percentiles.dedup();
    for percentile in percentiles {
        let at = |result: &Shown| {
            let found = result
                .curve
                .iter()
                .find(|point| point.percentile == percentile);
            found.map(|point| point.us)
        };
        let mut line = vec!['·'; index(WIDTH)];
        let mut cells = String::new();
        for (number, result) in results.iter().enumerate() {
            if let Some(us) = at(result) {
                let cell = &mut line[place(us)];
                *cell = if *cell == '·' { letter(number) } else { '*' };
            }
            let shown = at(result).map_or("–".into(), nanos);
            cells.push_str(&format!(" {shown:>9}"));
        }
        let name = if percentile < 100.0 {
            format!("p{percentile}")
        } else {
            "max".into()
        };
        let line: String = line.into_iter().collect();
        out.push_str(&format!("  {name:<8}{cells}  {line}\n"));
    }
    let width = 10 + 10 * results.len();
    let end = nanos(high);
    let room = index(WIDTH).saturating_sub(end.chars().count());
    out.push_str(&format!("{:width$}  {:<room$}{end}\n", "", nanos(low)));
    out
}
