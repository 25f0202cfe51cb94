//! The file as a whole. What a browser makes of it is in `tests/browser/`.

use super::*;
use data::{Bands, Curve, Rates, Row, Series};

/// A run of 600 intervals with as much to tell as a run can have.
fn long_run(place: u64) -> Run {
    let (mut response, mut rates) = (crate::histogram::latencies(), crate::histogram::rates());
    for n in 1..=60_000u64 {
        response.saturating_record_n(n * n * (place + 9), 100_000);
        rates.saturating_record(1 + n * (place + 150));
    }
    let long = |value: u64| (0..120u64).map(move |n| value * 1_234_567 + n * 12_345);
    let bands = || Bands {
        p50: long(1).map(Some).collect(),
        p99: long(30).map(Some).collect(),
        p99_9: long(400).map(Some).collect(),
    };
    Run {
        name: format!("compression=zstd:{place},record_size=100B,partitions=1000"),
        response: Curve::of(&response),
        service: Curve::of(&response),
        rates: Rates::of(&rates),
        series: Series {
            start_s: long(1).map(|n| crate::number::float(n) / 1e3).collect(),
            length_s: vec![5.012; 120],
            rate: long(9).map(crate::number::float).collect(),
            response: bands(),
            service: bands(),
        },
        ..Run::default()
    }
}

fn data_of(runs: Vec<Run>) -> Data {
    let mut data = Data::of(runs);
    let row = |n: usize| Row {
        key: format!("latency_us.stages.wire_to_ack.{n}"),
        values: vec![serde_json::json!(1_234_567.891_234); data.runs.len()],
    };
    (data.settings, data.environment, data.figures) = (
        (0..40).map(row).collect(),
        (0..60).map(row).collect(),
        (0..120).map(row).collect(),
    );
    data
}

#[test]
fn twenty_long_runs_stay_below_a_megabyte() {
    let page = render(&data_of((0..20).map(long_run).collect())).expect("rendered");
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    assert!(
        page.len() > 300_000,
        "{} bytes: not what was meant",
        page.len()
    );
}

#[test]
fn nothing_in_a_result_ends_the_data_or_fills_the_template() {
    let name = "</script><script>alert(1)</script><!-- {{script}} \u{2028} \" ' & \\";
    let run = Run {
        name: name.into(),
        command: name.into(),
        ..Run::default()
    };
    let page = render(&Data::of(vec![run])).expect("rendered");
    let (_, rest) = page.split_once("id=\"data\">").expect("the data");
    let (json, rest) = rest.split_once('<').expect("its end");
    assert!(
        rest.starts_with("/script>\n<script nonce="),
        "ended by something else"
    );
    let read: serde_json::Value = serde_json::from_str(json).expect("still JSON");
    assert_eq!(read["runs"][0]["name"], name);
    assert!(!page.contains("{{style}}") && !page.contains("{{data}}"));
}

#[test]
fn the_policy_allows_the_own_script_and_no_network() {
    let page = render(&Data::of(vec![Run::default()])).expect("rendered");
    let (_, rest) = page.split_once("script-src 'nonce-").expect("a policy");
    let nonce = &rest[..16];
    assert!(page.contains(&format!("<script nonce=\"{nonce}\">")));
    assert!(page.contains(&format!("<style nonce=\"{nonce}\">")));
    assert!(page.contains("default-src 'none'"));
}
