//! The two distributions that intervals are made from. Whole degrees of freedom have closed forms,
//! so nothing is approximated where it matters, which is at few pairs.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// How many standard errors on each side hold `level` (like 0.95) of Student's t with `freedom`
/// degrees of freedom (at least 1).
pub fn two_sided(level: f64, freedom: u32) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while within(high, freedom) < level && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if within(middle, freedom) < level {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// The share of Student's t that lies within `t` of 0 (Abramowitz and Stegun 26.7.3 and 26.7.4).
fn within(t: f64, freedom: u32) -> f64 {
    let angle = (t / f64::from(freedom).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    // The sum's terms, each from the one before.
    let mut term = if odd { cosine } else { 1.0 };
    let mut sum = if freedom > 1 { term } else { 0.0 };
    let mut power = if odd { 3 } else { 2 };
    while power < freedom {
        term *= f64::from(power - 1) / f64::from(power) * cosine * cosine;
        sum += term;
        power += 2;
    }
    if odd {
        2.0 / PI * (angle + sine * sum)
    } else {
        sine * sum
    }
}

/// The share of the normal distribution below `z`, for the tails: within 1 % of it down to -6.
pub fn below(z: f64) -> f64 {
    if z > 0.0 {
        return 1.0 - below(-z);
    }
    // Numerical Recipes' `erfcc`: a fractional error below 1.2e-7 everywhere.
    let x = -z * FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let coefficients = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let series = coefficients
        .iter()
        .rev()
        .fold(0.0, |sum, next| next + t * sum);
    0.5 * t * (series - x * x).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_in_the_tables() {
        for (level, freedom, table) in [
            (0.95, 1, 12.706),
            (0.95, 2, 4.303),
            (0.95, 3, 3.182),
            (0.95, 4, 2.776),
            (0.95, 9, 2.262),
            (0.95, 30, 2.042),
            (0.95, 599, 1.964),
            (0.99, 9, 3.250),
            (0.9875, 9, 3.111),
        ] {
            let t = two_sided(level, freedom);
            assert!(
                (t - table).abs() < 0.001,
                "{level} of t({freedom}): {t}, not {table}"
            );
        }
        for (z, table) in [
            (0.0, 0.5),
            (-1.96, 0.024_998),
            (-3.09, 0.001_000_8),
            (1.0, 0.841_345),
        ] {
            assert!((below(z) / table - 1.0).abs() < 1e-4, "{z}: {}", below(z));
        }
    }
}
