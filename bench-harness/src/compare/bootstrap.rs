//! How sure a ratio is: pairs are drawn again and again from the pairs there are, and the ratio of
//! each draw is noted (Efron's bootstrap). Intervals that follow each other in one run resemble each
//! other, so they are drawn in blocks of neighbours (Künsch's moving blocks, on a circle).
//!
//! Plain percentiles of the draws are too narrow for few pairs: ten pairs would call one comparison
//! in ten of equal things a difference. The percentiles are taken further out, by as much as a mean of
//! so many pairs needs ("expanded percentiles", T. Hesterberg 2015, "What Teachers Should Know about
//! the Bootstrap"), and Student's interval of the pairs' own ratios is taken in where it reaches
//! further: draws from ten pairs are still a little too sure of themselves, and Student's trusts in a
//! bell. Below [`PAIRS_MIN`] there is too little to draw from: then the interval is Student's alone,
//! wide as it should be, and marked as unreliable.
//!
//! The seed is fixed: the same results give the same verdict.

use crate::compare::student;
use crate::number::{count, float, index, whole};
use crate::random::Random;

/// Draws of one comparison.
pub const DRAWS: usize = 2_000;
/// Fewer independent pairs than this say little.
pub const PAIRS_MIN: usize = 5;
/// Where the drawing starts.
const SEED: u64 = 0x7269_6e67_706f_7374;

/// The pairs of a comparison, as far as drawing needs to know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// How many.
    pub count: usize,
    /// How many neighbours are drawn together; 1 when the pairs have nothing to do with each other.
    pub block: usize,
}

/// An interval of log-ratios.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Pairs {
    /// Rounds: independent of each other.
    pub fn rounds(count: usize) -> Self {
        Self { count, block: 1 }
    }

    /// Intervals of one run: in blocks as long as their cube root, which is what the error of a mean
    /// asks for (Hall, Horowitz and Jing 1995).
    pub fn intervals(pairs: usize) -> Self {
        Self {
            count: pairs,
            block: index(whole(float(count(pairs)).cbrt())).max(1),
        }
    }

    /// How many pairs this is worth.
    pub fn independent(self) -> usize {
        self.count / self.block.max(1)
    }

    /// Whether there are enough to rely on.
    pub fn are_many(self) -> bool {
        self.independent() >= PAIRS_MIN
    }

    /// All draws: how often each pair is in each of them. The same every time.
    pub fn draws(self) -> impl Iterator<Item = Vec<u32>> {
        let mut random = Random::new(SEED);
        (0..DRAWS).map(move |_| {
            let mut weights = vec![0u32; self.count];
            let mut drawn = 0;
            while drawn < self.count {
                let first = index(random.below(count(self.count)));
                let length = self.block.min(self.count - drawn);
                for place in first..first + length {
                    weights[place % self.count] += 1;
                }
                drawn += length;
            }
            weights
        })
    }

    /// The interval that holds the truth with `level`, from the statistic of every draw; `each` is
    /// that of each pair alone and `all` that of all of them, for when there are too few to draw
    /// from. `None` for a single pair, and when most draws have no value.
    pub fn bounds(self, level: f64, drawn: &Drawn, each: &[f64], all: f64) -> Option<Bounds> {
        let students = self.students(level, each, all);
        if !self.are_many() {
            return students;
        }
        let (drawn, students) = (drawn.bounds(self, level)?, students?);
        Some(Bounds {
            low: drawn.low.min(students.low),
            high: drawn.high.max(students.high),
        })
    }

    /// Student's interval, of what `each` pair says, around `all`. `None` for a single pair.
    fn students(self, level: f64, each: &[f64], all: f64) -> Option<Bounds> {
        let pairs = u32::try_from(each.len()).ok().filter(|pairs| *pairs >= 2)?;
        let n = f64::from(pairs);
        let mean = each.iter().sum::<f64>() / n;
        let squares: f64 = each.iter().map(|value| (value - mean).powi(2)).sum();
        let error = (squares / (n - 1.0) / n).sqrt();
        // Neighbours of one run are worth fewer pairs than they are.
        let worth = u32::try_from(self.independent()).ok()?.clamp(2, pairs);
        let error = error * (n / f64::from(worth)).sqrt();
        let reach = student::two_sided(level, worth - 1) * error;
        Some(Bounds {
            low: all - reach,
            high: all + reach,
        })
    }
}

/// The statistic of every draw, in order of size.
#[derive(Clone, Debug, Default)]
pub struct Drawn(Vec<f64>);

impl Drawn {
    /// Those that have a value.
    pub fn new(values: impl Iterator<Item = Option<f64>>) -> Self {
        let mut values: Vec<f64> = values.flatten().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    fn bounds(&self, pairs: Pairs, level: f64) -> Option<Bounds> {
        if self.0.len() < DRAWS / 2 {
            return None;
        }
        let n = u32::try_from(pairs.independent())
            .ok()
            .filter(|n| *n >= 2)?;
        let wider = (f64::from(n) / f64::from(n - 1)).sqrt();
        let outside = student::below(-wider * student::two_sided(level, n - 1));
        let last = float(count(self.0.len() - 1));
        let at = |share: f64| self.0[index(whole(share * last)).min(self.0.len() - 1)];
        Some(Bounds {
            low: at(outside),
            high: at(1.0 - outside),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_has_as_many_pairs_as_there_are_and_neighbours_stay_together() {
        for pairs in [Pairs::rounds(7), Pairs::intervals(60)] {
            let mut seen = vec![0u32; pairs.count];
            for weights in pairs.draws() {
                assert_eq!(
                    weights.iter().sum::<u32>(),
                    u32::try_from(pairs.count).expect("few")
                );
                seen.iter_mut()
                    .zip(&weights)
                    .for_each(|(seen, weight)| *seen += weight);
            }
            // Each about as often as the others.
            let (least, most) = (seen.iter().min(), seen.iter().max());
            assert!(
                least
                    .zip(most)
                    .is_some_and(|(least, most)| most - least < most / 10)
            );
        }
        assert_eq!(Pairs::intervals(60).block, 4);
        assert_eq!(Pairs::intervals(10).independent(), 5);
        let first: Vec<_> = Pairs::rounds(5).draws().take(3).collect();
        assert_eq!(
            first,
            Pairs::rounds(5).draws().take(3).collect::<Vec<_>>(),
            "a fixed seed"
        );
    }

    #[test]
    fn few_pairs_have_students_interval_and_one_has_none() {
        let each = [0.01, 0.03];
        let bounds = Pairs::rounds(2)
            .bounds(0.95, &Drawn::default(), &each, 0.02)
            .expect("two pairs");
        // 12.706 standard errors of 0.01.
        assert!((bounds.low - (0.02 - 0.127_06)).abs() < 1e-4, "{bounds:?}");
        assert!((bounds.high - (0.02 + 0.127_06)).abs() < 1e-4, "{bounds:?}");
        assert_eq!(
            Pairs::rounds(1).bounds(0.95, &Drawn::default(), &[0.5], 0.5),
            None
        );
    }
}
