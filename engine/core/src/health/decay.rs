//! How much of something is left after a while, in whole numbers: the core has no floating-point
//! functions, and the same seed must give the same run everywhere.

use core::time::Duration;

use crate::time::Time;

/// `2^(−elapsed / half_life)`, as a part of 2³²; off by less than a thousandth.
pub(super) fn remaining(elapsed: Duration, half_life: Duration) -> u64 {
    let half_life = u128::from(Time::nanos(half_life).max(1));
    let halvings = (u128::from(Time::nanos(elapsed)) << 32) / half_life;
    let Ok(whole @ 0..32) = u32::try_from(halvings >> 32) else {
        return 0;
    };
    // A cubic that is exact at 0 and 1: 1 − f (0.693 − f (0.2345 − f · 0.0415)).
    let f = u64::try_from(halvings & 0xffff_ffff).unwrap_or(0);
    let cubic = 1_007_169_831 - ((f * 178_241_143) >> 32);
    let quadratic = 2_976_412_336 - ((f * cubic) >> 32);
    let fraction = (1_u64 << 32) - ((f * quadratic) >> 32);
    fraction >> whole
}

/// So much of `amount` as is left.
pub(super) fn part(amount: u64, remaining: u64) -> u64 {
    u64::try_from((u128::from(amount) * u128::from(remaining)) >> 32).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_and_what_is_between() {
        let second = Duration::from_secs(1);
        let thousandths = |ms| part(1000, remaining(Duration::from_millis(ms), second));
        // 2^-0.1 = 0.933, 2^-0.5 = 0.707.
        assert_eq!([0, 100, 500].map(thousandths), [1000, 933, 706]);
        assert_eq!([1000, 2000, 3000].map(thousandths), [500, 250, 125]);
        assert_eq!(remaining(Duration::MAX, second), 0);
        assert_eq!(remaining(second, Duration::ZERO), 0);
    }
}
