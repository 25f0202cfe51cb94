//! What the pairs say about each figure, and all in all.

use crate::compare::bootstrap::{Bounds, Drawn};
use crate::compare::pair::{Half, Paired};
use crate::compare::quantiles::{Quantile, Quantiles};
use crate::compare::{Compared, Unit, Verdict};
use crate::histogram::Sparse;
use crate::number::{count, float, micro, ratio};

/// How sure an interval is.
const LEVEL: f64 = 0.95;
/// The same when there are four chances to be wrong: rate, CPU, p50 and p99 decide.
const LEVEL_OF_FOUR: f64 = 1.0 - (1.0 - LEVEL) / 4.0;
/// Quantiles that are compared.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
/// Records above a quantile, below which it is one stroke of luck.
const ABOVE_MIN: f64 = 10.0;
/// Half a bucket to each side: what histograms cannot tell apart.
const RESOLUTION: f64 = 0.001;

/// Whether more is better.
#[derive(Clone, Copy, PartialEq)]
enum Better {
    More,
    Less,
}

/// Every figure of both, from the draws of their pairs; `closed` when the rate was not given.
pub(crate) fn figures(paired: &Paired<'_>, draws: &[Vec<u32>], closed: bool) -> Vec<Compared> {
    let mut judge = Judge {
        paired,
        draws,
        figures: Vec::new(),
    };
    // At a given rate the rate is what was asked for, and decides nothing.
    judge.rate("records_per_s", closed, Better::More, |half| {
        ratio(half.records, half.seconds)
    });
    judge.rate("cpu_us_per_record", true, Better::Less, |half| {
        ratio(half.cpu_s * 1e6, half.records)
    });
    let has_response = judge.quantiles("response", true, |half| &half.response);
    judge.quantiles("service", !has_response, |half| &half.service);
    judge.figures
}

/// The verdict over all deciding figures.
pub(crate) fn overall(figures: &[Compared]) -> Verdict {
    let deciding = || figures.iter().filter(|figure| figure.decides);
    let any = |verdict| deciding().any(|figure| figure.strict == verdict);
    match (any(Verdict::Faster), any(Verdict::Slower)) {
        (true, true) => Verdict::Mixed,
        (true, false) => Verdict::Faster,
        (false, true) => Verdict::Slower,
        (false, false) if any(Verdict::Noise) => Verdict::Noise,
        (false, false) => Verdict::Unknown,
    }
}

struct Judge<'a, 'b> {
    paired: &'a Paired<'b>,
    draws: &'a [Vec<u32>],
    figures: Vec<Compared>,
}

impl<'b> Judge<'_, 'b> {
    /// A figure that every half of a pair has: see [`Judge::means`].
    fn rate(&mut self, name: &str, decides: bool, better: Better, of: fn(&Half<'_>) -> f64) {
        let values = |halves: &[Half<'_>]| halves.iter().map(of).collect::<Vec<f64>>();
        let (ours, theirs) = (values(&self.paired.baseline), values(&self.paired.result));
        self.means(name.into(), &ours, &theirs, (decides, better, 0.0));
    }

    /// The mean of the pairs' log-ratios; shown beside it the geometric means of both sides.
    fn means(&mut self, name: String, ours: &[f64], theirs: &[f64], rules: Rules) {
        let each: Vec<f64> = (ours.iter().zip(theirs))
            .map(|(ours, theirs)| (theirs / ours).ln())
            .collect();
        // An interval in which nothing was acked has nothing to compare.
        let known: Vec<f64> = each.iter().copied().filter(|one| one.is_finite()).collect();
        if known.is_empty() {
            return;
        }
        let all = mean(&known);
        let drawn = Drawn::new(self.draws.iter().map(|weights| {
            let (mut sum, mut drawn) = (0.0, 0.0);
            for (value, weight) in each.iter().zip(weights) {
                if value.is_finite() {
                    sum += value * f64::from(*weight);
                    drawn += f64::from(*weight);
                }
            }
            (drawn > 0.0).then(|| sum / drawn)
        }));
        let typical = |values: &[f64]| {
            let logs = values.iter().map(|value| value.ln());
            mean(&logs.filter(|log| log.is_finite()).collect::<Vec<_>>()).exp()
        };
        let bounds = |level| self.paired.pairs.bounds(level, &drawn, &known, all);
        let figure = judged(name, (typical(ours), typical(theirs)), all, bounds, rules);
        self.figures.push(figure);
    }

    /// Quantiles; false when a side has no records. Those of rounds that have enough records are
    /// compared pair by pair; those of intervals are of all histograms of a draw, added.
    fn quantiles(
        &mut self,
        name: &str,
        decides: bool,
        of: for<'h> fn(&'h Half<'b>) -> &'h Vec<&'b Sparse>,
    ) -> bool {
        let read = |halves: &[Half<'b>]| -> Quantiles {
            let histograms: Vec<_> = halves.iter().map(|half| of(half).clone()).collect();
            Quantiles::of(&histograms)
        };
        let (ours, theirs) = (read(&self.paired.baseline), read(&self.paired.result));
        for (percentile, share) in QUANTILES {
            let enough = |records: u64| float(records) * (1.0 - share) >= ABOVE_MIN;
            if !enough(ours.records().min(theirs.records())) {
                continue;
            }
            let Some((our, their)) = ours.at(share).zip(theirs.at(share)) else {
                continue;
            };
            let name = format!("{name} {percentile}");
            let decides = decides && ["p50", "p99"].contains(&percentile);
            let rules = (decides, Better::Less, RESOLUTION);
            let alone = |quantile: &Quantile<'_>| -> Vec<f64> {
                let pairs = 0..self.paired.pairs.count;
                pairs
                    .map(|pair| quantile.alone(pair).map_or(f64::NAN, |ns| ns / 1e3))
                    .collect()
            };
            let (our_values, their_values) = (alone(&our), alone(&their));
            let each_has = enough(ours.fewest().min(theirs.fewest()));
            if self.paired.unit == Unit::Rounds && each_has {
                self.means(name, &our_values, &their_values, rules);
                continue;
            }
            let both = |weights: &[u32]| our.weighted(weights).zip(their.weighted(weights));
            let log_ratio = |(ours, theirs): (f64, f64)| (theirs / ours).ln();
            let Some(values) = both(&vec![1; self.paired.pairs.count]) else {
                continue;
            };
            let each: Vec<f64> = (our_values.into_iter().zip(their_values))
                .map(log_ratio)
                .filter(|one| one.is_finite())
                .collect();
            let drawn = Drawn::new(self.draws.iter().map(|draw| both(draw).map(log_ratio)));
            let all = log_ratio(values);
            let bounds = |level| self.paired.pairs.bounds(level, &drawn, &each, all);
            let values = (values.0 / 1e3, values.1 / 1e3);
            self.figures.push(judged(name, values, all, bounds, rules));
        }
        ours.records().min(theirs.records()) > 0
    }
}

/// Whether the verdict over all rests on a figure, what is better, and what cannot be told apart.
type Rules = (bool, Better, f64);

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / float(count(values.len()))
}

fn judged(
    name: String,
    (baseline, result): (f64, f64),
    all: f64,
    bounds: impl Fn(f64) -> Option<Bounds>,
    (decides, better, resolution): Rules,
) -> Compared {
    let bounds = |level| {
        let bounds = bounds(level)?;
        Some(Bounds {
            low: bounds.low - resolution,
            high: bounds.high + resolution,
        })
    };
    let interval = bounds(LEVEL);
    Compared {
        name,
        baseline: micro(baseline),
        result: micro(result),
        ratio: micro(all.exp()),
        interval: interval.map(|bounds| [micro(bounds.low.exp()), micro(bounds.high.exp())]),
        verdict: verdict(interval, better),
        decides,
        strict: verdict(bounds(LEVEL_OF_FOUR), better),
    }
}

fn verdict(bounds: Option<Bounds>, better: Better) -> Verdict {
    match bounds {
        None => Verdict::Unknown,
        Some(bounds) if bounds.low > 0.0 && better == Better::More => Verdict::Faster,
        Some(bounds) if bounds.low > 0.0 => Verdict::Slower,
        Some(bounds) if bounds.high < 0.0 && better == Better::More => Verdict::Slower,
        Some(bounds) if bounds.high < 0.0 => Verdict::Faster,
        Some(_) => Verdict::Noise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::bootstrap::Pairs;
    use crate::number::whole;
    use crate::random::Random;

    /// From the normal distribution (Box and Muller).
    fn normal(random: &mut Random) -> f64 {
        let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * random.unit()).cos()
    }

    /// What a run was like: how much faster than others, and the same of its latencies.
    #[derive(Clone, Copy)]
    struct Run {
        rate: f64,
        cpu: f64,
        latency: f64,
    }

    impl Run {
        /// Twins differ by `noise`, a standard deviation, in everything.
        fn like(random: &mut Random, noise: f64) -> Self {
            let mut draw = || (noise * normal(random)).exp();
            Self {
                rate: draw(),
                cpu: draw(),
                latency: draw(),
            }
        }

        fn times(self, other: Run) -> Self {
            Self {
                rate: self.rate * other.rate,
                cpu: self.cpu * other.cpu,
                latency: self.latency * other.latency,
            }
        }

        /// Latencies as skewed as real ones: most around 1 ms, the last at 20 ms.
        fn latencies(self) -> Sparse {
            let at = |bucket: u64| {
                let share = float(bucket) / 200.0;
                whole(1e6 * self.latency * (3.0 * share.powi(6)).exp() * (1.0 + share / 10.0))
            };
            Sparse::made_of((0..200).map(|bucket| (at(bucket), 20_000 / (bucket + 1))))
        }
    }

    fn half<'a>((run, times): (&Run, &'a Sparse)) -> Half<'a> {
        Half {
            records: 1e6 * run.rate,
            seconds: 1.0,
            cpu_s: 0.1 * run.cpu * run.rate,
            response: vec![times],
            service: Vec::new(),
        }
    }

    fn compared(
        ours: &[Run],
        theirs: &[Run],
        (unit, draws): (Unit, &[Vec<u32>]),
        timed: bool,
    ) -> Vec<Compared> {
        let times = |runs: &[Run]| -> Vec<Sparse> {
            let of = |run: &Run| {
                if timed {
                    run.latencies()
                } else {
                    Sparse::default()
                }
            };
            runs.iter().map(of).collect()
        };
        let (our_times, their_times) = (times(ours), times(theirs));
        let paired = Paired {
            unit,
            pairs: pairs_of(unit, ours.len()),
            baseline: ours.iter().zip(&our_times).map(half).collect(),
            result: theirs.iter().zip(&their_times).map(half).collect(),
            notes: Vec::new(),
        };
        figures(&paired, draws, true)
    }

    fn pairs_of(unit: Unit, pairs: usize) -> Pairs {
        match unit {
            Unit::Rounds => Pairs::rounds(pairs),
            Unit::Intervals => Pairs::intervals(pairs),
        }
    }

    /// Comparisons of `pairs` rounds where the others' figures are `better` times ours: how often each
    /// figure, and the verdict over all, came out as each verdict.
    fn outcomes(
        comparisons: u64,
        (unit, pairs): (Unit, usize),
        noise: f64,
        better: Run,
        timed: bool,
    ) -> Vec<(String, [f64; 3])> {
        let mut found: Vec<(String, [f64; 3])> = Vec::new();
        let share = 1.0 / float(comparisons);
        let draws: Vec<_> = pairs_of(unit, pairs).draws().collect();
        let mut note = |name: &str, verdict: Verdict| {
            let place = [Verdict::Faster, Verdict::Noise, Verdict::Slower]
                .iter()
                .position(|one| *one == verdict);
            let known = found.iter().position(|(known, _)| known == name);
            let known = known.unwrap_or_else(|| {
                found.push((name.to_owned(), [0.0; 3]));
                found.len() - 1
            });
            if let Some(place) = place {
                found[known].1[place] += share;
            }
        };
        for comparison in 0..comparisons {
            let mut random = Random::new(comparison.wrapping_mul(0x1234_5678_9abc_def1) + 7);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..pairs {
                // The host is now quicker, now slower, for both of a pair; and twins differ.
                let weather = Run::like(&mut random, 0.05);
                ours.push(weather.times(Run::like(&mut random, noise)));
                theirs.push(weather.times(Run::like(&mut random, noise)).times(better));
            }
            let figures = compared(&ours, &theirs, (unit, &draws), timed);
            for figure in &figures {
                note(&figure.name, figure.verdict);
            }
            note("all", overall(&figures));
        }
        found
    }

    const SAME: Run = Run {
        rate: 1.0,
        cpu: 1.0,
        latency: 1.0,
    };

    #[test]
    fn equal_things_are_within_noise_in_95_of_100_comparisons() {
        for (comparisons, rounds, noise, timed) in [(1_000, 10, 0.03, true), (150, 6, 0.02, true)] {
            let found = outcomes(comparisons, (Unit::Rounds, rounds), noise, SAME, timed);
            let within: Vec<f64> = found.iter().map(|(_, [_, within, _])| *within).collect();
            let (all, figures) = within.split_last().expect("the verdict over all");
            assert!(*all >= 0.95, "over all: {found:?}");
            assert!(mean(figures) >= 0.95, "figure by figure: {found:?}");
        }
    }

    #[test]
    fn five_percent_are_found_in_95_of_100_comparisons() {
        let better = Run {
            rate: 1.05,
            cpu: 0.95,
            latency: 0.95,
        };
        let worse = Run {
            rate: 0.95,
            cpu: 1.05,
            latency: 1.05,
        };
        for (change, place) in [(better, 0), (worse, 2)] {
            let found = outcomes(100, (Unit::Rounds, 10), 0.02, change, true);
            assert!(found.len() >= 7, "{found:?}");
            for (name, shares) in &found {
                assert!(shares[place] >= 0.95, "{name}: {found:?}");
            }
        }
    }

    /// Quantiles of intervals are those of their histograms, added: another way to the same.
    #[test]
    fn intervals_of_a_minute_tell_equal_from_better() {
        let better = Run {
            rate: 1.05,
            cpu: 0.95,
            latency: 0.95,
        };
        for (change, place) in [(SAME, 1), (better, 0)] {
            let found = outcomes(25, (Unit::Intervals, 60), 0.03, change, true);
            let (all, figures) = found.split_last().expect("the verdict over all");
            assert_eq!(figures.len(), 6, "{found:?}");
            assert!(all.1[place] >= 0.95, "over all: {found:?}");
            let shares: Vec<f64> = figures.iter().map(|(_, shares)| shares[place]).collect();
            assert!(mean(&shares) >= 0.9, "figure by figure: {found:?}");
        }
    }
}
