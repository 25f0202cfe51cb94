//! Number conversions that cannot be written with `try_from`, each in one place with its rounding.

/// A ratio's numerator or denominator as a float. Counts here stay far below 2^53, so nothing is
/// lost.
pub fn float(count: u64) -> f64 {
    // Split so that both halves convert exactly: there is no `f64::try_from(u64)`.
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & 0xffff_ffff).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

/// The nearest whole number, 0 for what is negative or not a number, saturating at the top.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and clamped to at least 0 first; `as` saturates above u64::MAX"
)]
pub fn whole(value: f64) -> u64 {
    value.round().max(0.0) as u64
}

/// `part / total`, or 0 when there is no total.
pub fn ratio(part: f64, total: f64) -> f64 {
    if total > 0.0 { part / total } else { 0.0 }
}

/// An index or length from the data as a `usize`; saturates (no 32-bit host holds more anyway).
pub fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A length as a `u64`.
pub fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Cut to three decimals, so that a document for people and diffs has no float noise.
pub fn milli(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// Cut to six decimals.
pub fn micro(value: f64) -> f64 {
    (value * 1_000_000.0).round() / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_round_and_saturate() {
        assert_eq!(float(u64::from(u32::MAX) + 1), 4_294_967_296.0);
        assert_eq!(whole(2.5), 3);
        assert_eq!(whole(-1.0), 0);
        assert_eq!(whole(f64::NAN), 0);
        assert_eq!(whole(1e30), u64::MAX);
        assert_eq!(ratio(1.0, 0.0), 0.0);
        assert_eq!(milli(1.23456), 1.235);
    }
}
