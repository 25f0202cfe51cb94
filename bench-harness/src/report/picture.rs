//! Small pictures of histograms in text: a line a bucket, a bar as long as its share.

use hdrhistogram::Histogram;

use crate::number::{float, index, ratio, whole};
use crate::units::{show_nanos, show_rate};

/// Characters of the longest bar.
const BAR: f64 = 40.0;
/// Lines of a throughput picture.
const RATE_LINES: u64 = 10;
/// Eighths of a block, so that short bars differ.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// Latencies (ns) in buckets that end at 1, 2 and 5 times a power of ten.
pub fn latency(histogram: &Histogram<u64>) -> String {
    let mut edges = vec![0];
    let mut decade = 1_000; // 1 µs
    'edges: loop {
        for factor in [1, 2, 5] {
            edges.push(decade * factor);
            if decade * factor > histogram.max() {
                break 'edges;
            }
        }
        decade *= 10;
    }
    let first = edges
        .iter()
        .rposition(|edge| *edge <= histogram.min())
        .unwrap_or(0);
    draw(histogram, &edges[first..], show_nanos)
}

/// Rates (records/s) in ten even buckets from the lowest to the highest.
pub fn throughput(histogram: &Histogram<u64>) -> String {
    let (low, high) = (histogram.min(), histogram.max());
    let step = nice((high - low).div_ceil(RATE_LINES).max(1));
    let start = low / step * step;
    let lines = (high - start) / step + 1;
    let edges: Vec<u64> = (0..=lines).map(|line| start + line * step).collect();
    draw(histogram, &edges, |rate| {
        format!("{}/s", show_rate(float(rate)))
    })
}

/// The next larger of 1, 2, 5 times a power of ten.
fn nice(step: u64) -> u64 {
    let mut decade = 1;
    loop {
        for factor in [1, 2, 5] {
            if decade * factor >= step {
                return decade * factor;
            }
        }
        decade *= 10;
    }
}

fn draw(histogram: &Histogram<u64>, edges: &[u64], show: impl Fn(u64) -> String) -> String {
    if histogram.is_empty() {
        return "  nothing was recorded\n".into();
    }
    let mut counts = vec![0u64; edges.len() - 1];
    for bucket in histogram.iter_recorded() {
        let above = edges.partition_point(|edge| *edge <= bucket.value_iterated_to());
        counts[above.saturating_sub(1).min(edges.len() - 2)] += bucket.count_at_value();
    }
    let most = float(counts.iter().copied().max().unwrap_or(1));
    let all = float(histogram.len());
    let mut out = String::new();
    for (pair, count) in edges.windows(2).zip(&counts) {
        let percent = ratio(float(*count), all) * 100.0;
        let share = match percent {
            0.0 => String::new(),
            percent if percent < 0.01 => "<0.01 %".into(),
            percent => format!("{percent:.2} %"),
        };
        out.push_str(&format!(
            "  {:>9} – {:<9} {:>8} {}\n",
            show(pair[0]),
            show(pair[1]),
            share,
            bar(ratio(float(*count), most))
        ));
    }
    out
}

fn bar(share: f64) -> String {
    let eighths = whole(share * BAR * 8.0).max(u64::from(share > 0.0));
    let (full, rest) = (eighths / 8, eighths % 8);
    "█".repeat(index(full)) + EIGHTHS[index(rest)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::{latencies, rates};

    #[test]
    fn a_latency_picture_has_a_line_for_each_bucket_between_the_extremes() {
        let mut histogram = latencies();
        histogram.record_n(30_000, 900).expect("in bounds");
        histogram.record_n(70_000, 99).expect("in bounds");
        histogram.record_n(9_000_000, 1).expect("in bounds");
        let picture = latency(&histogram);
        let lines: Vec<_> = picture.lines().collect();
        assert_eq!(lines.len(), 8, "{picture}");
        assert!(
            lines[0].contains("20.0 µs – 50.0 µs") && lines[0].contains("90.00 %"),
            "{picture}"
        );
        assert!(lines[0].ends_with(&"█".repeat(40)), "{picture}");
        assert!(
            lines[7].contains("5.00 ms – 10.0 ms") && lines[7].ends_with('▏'),
            "{picture}"
        );
    }

    #[test]
    fn a_rate_picture_has_about_ten_lines() {
        let mut histogram = rates();
        for rate in 1..=1000 {
            histogram
                .record(3_000_000 + rate * 1_500)
                .expect("in bounds");
        }
        let picture = throughput(&histogram);
        assert!((5..=11).contains(&picture.lines().count()), "{picture}");
        let shares: f64 = picture
            .lines()
            .filter_map(|line| {
                line.split(" %")
                    .next()?
                    .rsplit(' ')
                    .next()?
                    .parse::<f64>()
                    .ok()
            })
            .sum();
        assert!((shares - 100.0).abs() < 0.1, "{picture}");
    }

    #[test]
    fn nothing_and_a_single_value_are_drawn_too() {
        assert!(latency(&latencies()).contains("nothing"));
        assert!(throughput(&rates()).contains("nothing"));
        let mut one = rates();
        one.record(5).expect("in bounds");
        assert!(throughput(&one).contains("100.00 %"));
        let mut instant = latencies();
        instant.record(0).expect("in bounds");
        assert!(latency(&instant).contains("100.00 %"));
    }
}
