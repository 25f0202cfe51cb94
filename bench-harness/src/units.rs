//! Sizes, durations and counts as people write them: `100B`, `64MiB`, `5ms`, `2m`, `100k`, `2.5M`.
//!
//! Parsing is strict: a size or a duration without its unit is refused, because `5` has been read
//! as seconds and as milliseconds by too many tools. Every refusal says what was expected.

use std::time::Duration;

use crate::number::{float, whole};

/// What a size must look like; part of every refusal.
pub const SIZE_EXPECTED: &str = "a size with its unit: B, KiB, MiB or GiB, like 100B or 64MiB";
/// What a duration must look like.
pub const DURATION_EXPECTED: &str = "a duration with its unit: us, ms, s or m, like 500us or 10s";
/// What a count must look like.
pub const COUNT_EXPECTED: &str = "a whole number, k and M allowed, like 5000, 100k or 2.5M";

/// `100B`, `1KiB`, `1.5MiB` in bytes.
///
/// ```
/// assert_eq!(ringpost_bench::units::bytes("1.5KiB"), Some(1536));
/// assert_eq!(ringpost_bench::units::bytes("100"), None);
/// ```
pub fn bytes(text: &str) -> Option<u64> {
    scaled(
        text,
        &[
            ("KiB", 1024.0),
            ("MiB", 1_048_576.0),
            ("GiB", 1_073_741_824.0),
            ("B", 1.0),
        ],
    )
}

/// `500us`, `5ms`, `10s`, `2m`.
pub fn duration(text: &str) -> Option<Duration> {
    scaled(text, &[("us", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9)]).map(Duration::from_nanos)
}

/// `5000`, `100k`, `2.5M`.
pub fn count(text: &str) -> Option<u64> {
    scaled(text, &[("k", 1e3), ("M", 1e6)]).or_else(|| text.trim().parse().ok())
}

/// A number in front of one of `units`; the longest matching unit wins by being listed first.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let text = text.trim();
    let (digits, factor) = units
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|digits| (digits, *factor)))?;
    let digits = digits.trim_end();
    if digits.is_empty()
        || !digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return None;
    }
    let value = digits.parse::<f64>().ok()? * factor;
    // A part of a byte or a nanosecond, or more than any machine holds, is a slip of the pen.
    (value.fract() == 0.0 && value < 1e18).then(|| whole(value))
}

/// Bytes in the largest unit that divides them: `64MiB`, `100B`.
pub fn show_bytes(bytes: u64) -> String {
    for (unit, size) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

/// A duration in the largest unit that divides it: `10s`, `500us`.
pub fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, size) in [
        ("m", 60_000_000_000u128),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
    ] {
        if nanos > 0 && nanos.is_multiple_of(size) {
            return format!("{}{unit}", nanos / size);
        }
    }
    if nanos == 0 {
        "0s".into()
    } else {
        format!("{}us", nanos / 1000)
    }
}

/// A count with its thousands set apart: `1 234 567`.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A rate for reading, three figures: `4.02 M`, `98.5 k`, `12.0`.
pub fn show_rate(per_second: f64) -> String {
    let (value, unit) = match per_second {
        rate if rate >= 1e6 => (rate / 1e6, " M"),
        rate if rate >= 1e3 => (rate / 1e3, " k"),
        rate => (rate, ""),
    };
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}{unit}")
}

/// Nanoseconds for reading, three figures: `1.24 ms`, `18.0 µs`.
pub fn show_nanos(nanos: u64) -> String {
    let value = float(nanos);
    let (value, unit) = match nanos {
        0..1_000 => return format!("{nanos} ns"),
        1_000..1_000_000 => (value / 1e3, "µs"),
        1_000_000..1_000_000_000 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("0B"), Some(0));
        assert_eq!(bytes("100B"), Some(100));
        assert_eq!(bytes("128 KiB"), Some(131_072));
        assert_eq!(bytes("1.5MiB"), Some(1_572_864));
        for bad in [
            "", "B", "1", "1kb", "1KB", "-1B", "1e3B", "0.5B", "infB", "nanB", "1..5KiB",
        ] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
        assert_eq!(bytes("99999999999999GiB"), None);
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500us"), Some(Duration::from_micros(500)));
        assert_eq!(duration("5ms"), Some(Duration::from_millis(5)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        for bad in ["5", "s", "5sec", "-1s", "1h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn counts() {
        assert_eq!(count("5000"), Some(5000));
        assert_eq!(count("100k"), Some(100_000));
        assert_eq!(count("2.5M"), Some(2_500_000));
        for bad in ["", "k", "2.5", "-3", "1G"] {
            assert_eq!(count(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_shown_parses_again() {
        for size in [0, 1, 100, 1024, 131_072, 67_108_864, 1_000_000] {
            assert_eq!(bytes(&show_bytes(size)), Some(size));
        }
        for micros in [0, 1, 500, 5_000, 1_500_000, 10_000_000, 120_000_000] {
            let time = Duration::from_micros(micros);
            assert_eq!(duration(&show_duration(time)), Some(time));
        }
        assert_eq!(show_count(1_234_567), "1 234 567");
        assert_eq!(show_count(12), "12");
        assert_eq!(show_rate(4_021_000.0), "4.02 M");
        assert_eq!(show_rate(98_540.0), "98.5 k");
        assert_eq!(show_nanos(1_240_000), "1.24 ms");
    }
}
