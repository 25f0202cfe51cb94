//! The search for the highest rate that holds, as a state machine: rates come out, verdicts go in. It
//! starts no process and reads no clock.
//!
//! ```text
//!          holds: × step, then × step²   both ends known            within the precision
//!  start ──────────────────► bracketing ─────────────────► bisecting ────────────────────► confirming
//!          misses: ÷ step, then ÷ step²  the middle of the logs                    holds: found │
//!                                                                                               │ misses
//!                         found ◄──────────────────── the same once more, with long probes ◄────┘
//!                                within the precision
//! ```
//! - Rates are compared by their ratio, so the middle of two is the square root of their product.
//! - A probe that misses is repeated once, and counts as a miss only if it misses twice: a hiccup of
//!   the host is not the rate's fault. One that misses by far is not repeated.
//! - The rate that is told was held by a *longer* probe: many short probes, each with its chance of
//!   luck, favour rates that are too high. A rate that misses there is given up without a repeat;
//!   from then on every probe is a long one: lower by one, two, four … times the precision until one
//!   holds, then the middle again.
//! - It ends after `probes_max` probes, whatever they say.

use crate::number::{float, whole};

/// How far the search goes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The first rate to try.
    pub start: u64,
    /// Factor between rates until one holds and one misses.
    pub step: f64,
    /// No lower rate is tried.
    pub lowest: u64,
    /// No higher rate is tried.
    pub highest: u64,
    /// Bisecting ends when the rate that misses is this much above the one that holds: 0.05 for 5 %.
    pub precision: f64,
    /// Probes in all.
    pub probes_max: u32,
}

/// What a probe showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Showed {
    /// The rate holds.
    Holds,
    /// It does not.
    Misses,
    /// It does not, and no repeat could change that.
    MissesByFar,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try this rate; a confirming probe is a longer one.
    Probe {
        /// Records a second.
        rate: u64,
        /// Whether what it shows is the search's answer.
        confirming: bool,
    },
    /// The search is over.
    Over(Answer),
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The highest rate that holds, confirmed.
    Found {
        /// Records a second.
        rate: u64,
        /// Nothing above it was tried: it is the highest that may be.
        at_least: bool,
    },
    /// Not even the lowest rate holds.
    None {
        /// It was tried.
        lowest: u64,
    },
    /// The probes were used up.
    Unconfirmed {
        /// The highest rate that a probe held, if any did.
        rate: Option<u64>,
    },
}

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    limits: Limits,
    /// The highest rate that a probe held.
    low: Option<u64>,
    /// The lowest rate that missed.
    high: Option<u64>,
    /// Each step is larger than the one before.
    up: f64,
    down: f64,
    /// Whether it was a long one.
    confirmed: bool,
    /// Long probes that missed before one held.
    given_up: u32,
    /// A rate that missed once.
    doubted: bool,
    probes: u32,
    next: Next,
}

/// Largest steps. Upwards they are small: a rate far above what is held leaves a queue behind.
const UP_MAX: f64 = 2.0;
const DOWN_MAX: f64 = 16.0;

impl Search {
    /// A search within `limits`, whose start is taken to lie within lowest and highest.
    pub fn new(limits: Limits) -> Self {
        let start = limits.start.clamp(limits.lowest, limits.highest);
        Self {
            limits,
            low: None,
            high: None,
            up: limits.step,
            down: limits.step,
            confirmed: false,
            given_up: 0,
            doubted: false,
            probes: 0,
            next: Next::Probe {
                rate: start,
                confirming: false,
            },
        }
    }

    /// What to do next.
    pub fn next(&self) -> Next {
        self.next
    }

    /// The highest rate known to hold and the lowest known to miss, so far.
    pub fn bracket(&self) -> (Option<u64>, Option<u64>) {
        (self.low, self.high)
    }

    /// Takes what the probe that [`next`](Self::next) asked for showed.
    pub fn answer(&mut self, showed: Showed) {
        let Next::Probe { rate, confirming } = self.next else {
            return;
        };
        self.probes += 1;
        self.next = if showed == Showed::Misses && !confirming && !self.doubted {
            self.doubted = true;
            self.next
        } else {
            self.doubted = false;
            let holds = showed == Showed::Holds;
            match (confirming, holds) {
                (false, holds) => self.bracketing(rate, holds),
                (true, true) => self.confirmed(rate),
                (true, false) => self.given_up(rate),
            }
        };
        if self.probes >= self.limits.probes_max && matches!(self.next, Next::Probe { .. }) {
            self.next = Next::Over(Answer::Unconfirmed { rate: self.low });
        }
    }

    /// Probes that are likely still to come, confirming ones among them.
    pub fn probes_left(&self) -> u32 {
        if matches!(self.next, Next::Over(_)) {
            return 0;
        }
        let confirming = matches!(
            self.next,
            Next::Probe {
                confirming: true,
                ..
            }
        );
        if confirming && self.given_up == 0 {
            return 1;
        }
        let widest = match (self.low, self.high) {
            (Some(low), Some(high)) => float(high) / float(low),
            _ => self.limits.step,
        };
        let halvings = (widest.ln() / self.limits.precision.ln_1p()).log2().ceil();
        // Every second probe misses, and is made again.
        let bisecting = u32::try_from(whole(halvings.max(0.0) * 1.5)).unwrap_or(0);
        let bracketing = u32::from(self.low.is_none()) + u32::from(self.high.is_none());
        (bisecting + bracketing + 1).min(self.limits.probes_max - self.probes)
    }

    fn bracketing(&mut self, rate: u64, holds: bool) -> Next {
        let limits = self.limits;
        if holds {
            self.low = Some(rate);
        } else {
            self.high = Some(rate);
        }
        let probe = |rate: u64, confirming| Next::Probe { rate, confirming };
        match (self.low, self.high) {
            (Some(low), None) if low >= limits.highest => probe(low, true),
            (Some(low), None) => {
                let up = whole(float(low) * self.up).max(low + 1);
                self.up = (self.up * self.up).min(UP_MAX);
                probe(up.min(limits.highest), false)
            }
            (None, Some(high)) if high <= limits.lowest => {
                Next::Over(Answer::None { lowest: high })
            }
            (None, Some(high)) => {
                let down = whole(float(high) / self.down).min(high - 1);
                self.down = (self.down * self.down).min(DOWN_MAX);
                probe(down.max(limits.lowest), false)
            }
            (Some(low), Some(high)) => match self.middle(low, high) {
                Some(middle) => probe(middle, false),
                None => probe(low, true),
            },
            (None, None) => self.next,
        }
    }

    /// After a long probe at `rate` that held.
    fn confirmed(&mut self, rate: u64) -> Next {
        self.low = Some(rate);
        self.confirmed = true;
        match self.high {
            Some(high) => self.between(rate, high),
            None => Next::Over(Answer::Found {
                rate,
                at_least: true,
            }),
        }
    }

    /// After a long probe at `rate` that missed.
    fn given_up(&mut self, rate: u64) -> Next {
        self.high = Some(rate);
        if let (Some(low), true) = (self.low, self.confirmed) {
            return self.between(low, rate);
        }
        self.low = None;
        if rate <= self.limits.lowest {
            return Next::Over(Answer::None { lowest: rate });
        }
        let times = f64::from(1u32 << self.given_up.min(16));
        self.given_up += 1;
        let lower = float(rate) / (1.0 + self.limits.precision * times);
        Next::Probe {
            rate: whole(lower).min(rate - 1).max(self.limits.lowest),
            confirming: true,
        }
    }

    /// Between a confirmed rate and one that missed.
    fn between(&self, low: u64, high: u64) -> Next {
        match self.middle(low, high) {
            Some(rate) => Next::Probe {
                rate,
                confirming: true,
            },
            None => Next::Over(Answer::Found {
                rate: low,
                at_least: false,
            }),
        }
    }

    /// The rate between both, unless they are close enough.
    fn middle(&self, low: u64, high: u64) -> Option<u64> {
        let close = float(high) <= float(low) * (1.0 + self.limits.precision);
        let middle = whole((float(low) * float(high)).sqrt());
        (!close && middle > low && middle < high).then_some(middle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const LIMITS: Limits = Limits {
        start: 500_000,
        step: 2.0,
        lowest: 100,
        highest: 100_000_000,
        precision: 0.05,
        probes_max: 40,
    };

    /// Plays a search against `host`; the answer and the probes it took.
    fn play(
        limits: Limits,
        mut host: impl FnMut(u64, bool) -> Showed,
    ) -> (Answer, Vec<(u64, bool)>) {
        let mut search = Search::new(limits);
        let mut probes = Vec::new();
        loop {
            match search.next() {
                Next::Over(answer) => {
                    assert_eq!(search.probes_left(), 0);
                    return (answer, probes);
                }
                Next::Probe { rate, confirming } => {
                    assert!((limits.lowest..=limits.highest).contains(&rate), "{rate}");
                    assert!(search.probes_left() >= 1);
                    probes.push((rate, confirming));
                    search.answer(host(rate, confirming));
                }
            }
        }
    }

    /// Holds up to a knee, misses above it, by far above twice of it.
    fn knee(at: u64) -> impl FnMut(u64, bool) -> Showed {
        move |rate, _| match rate {
            rate if rate <= at => Showed::Holds,
            rate if rate <= 2 * at => Showed::Misses,
            _ => Showed::MissesByFar,
        }
    }

    #[test]
    fn a_knee_anywhere_is_found_within_the_precision() {
        for at in [
            100, 101, 150, 999, 10_000, 123_456, 499_999, 500_000, 500_001, 1_000_000, 7_654_321,
            99_999_999,
        ] {
            let (answer, probes) = play(LIMITS, knee(at));
            let Answer::Found { rate, at_least } = answer else {
                panic!("{at}: {answer:?} after {probes:?}");
            };
            assert!(!at_least);
            let short = float(at) / float(rate);
            // Below 20 records/s a step of one is more than the precision.
            assert!(
                (1.0..=1.051).contains(&short),
                "{at}: {rate} after {probes:?}"
            );
            assert!(probes.len() <= 30, "{at}: {} probes", probes.len());
            assert_eq!(probes.last(), Some(&(rate, true)), "confirmed");
        }
    }

    #[test]
    fn the_ends_are_told_as_such() {
        let (answer, probes) = play(LIMITS, knee(50));
        assert_eq!(answer, Answer::None { lowest: 100 });
        assert!(probes.len() <= 8, "{probes:?}");
        let (answer, _) = play(LIMITS, |_, _| Showed::Holds);
        let rate = LIMITS.highest;
        let at_least = true;
        assert_eq!(answer, Answer::Found { rate, at_least });
    }

    #[test]
    fn one_hiccup_a_rate_does_not_move_the_answer() {
        let mut seen = Vec::new();
        let (answer, _) = play(LIMITS, |rate, confirming| {
            let first = !seen.contains(&rate);
            seen.push(rate);
            if first && !confirming {
                return Showed::Misses;
            }
            knee(900_000)(rate, confirming)
        });
        let Answer::Found { rate, .. } = answer else {
            panic!("{answer:?}");
        };
        assert!((857_000..=900_000).contains(&rate), "{rate}");
    }

    #[test]
    fn what_luck_held_is_given_up_when_a_longer_probe_misses() {
        // Short probes flatter: they hold up to 1 M, long ones up to 800 k.
        let (answer, probes) = play(LIMITS, |rate, confirming| {
            knee(if confirming { 800_000 } else { 1_000_000 })(rate, confirming)
        });
        let Answer::Found { rate, .. } = answer else {
            panic!("{answer:?}");
        };
        assert!((761_000..=800_000).contains(&rate), "{rate}");
        assert!(probes.iter().filter(|(_, confirming)| *confirming).count() >= 2);
    }

    #[test]
    fn a_noisy_knee_is_found_most_of_the_time_and_always_ends() {
        let mut near = 0;
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let (answer, probes) = play(LIMITS, |rate, _| {
                // One probe in ten misses without a reason; the knee itself is 5 % wide.
                let width = 0.975 + 0.05 * random.unit();
                let at = whole(700_000.0 * width);
                if random.below(10) == 0 {
                    Showed::Misses
                } else {
                    knee(at)(rate, false)
                }
            });
            assert!(probes.len() <= 40);
            if let Answer::Found { rate, .. } = answer
                && (595_000..=720_000).contains(&rate)
            {
                near += 1;
            }
        }
        assert!(near >= 160, "{near} of 200");
    }

    #[test]
    fn probes_are_bounded_whatever_they_show() {
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let limits = Limits {
                probes_max: 12,
                ..LIMITS
            };
            let (_, probes) = play(limits, |_, _| match random.below(3) {
                0 => Showed::Holds,
                1 => Showed::Misses,
                _ => Showed::MissesByFar,
            });
            assert!(probes.len() <= 12);
        }
        let few = Limits {
            probes_max: 2,
            ..LIMITS
        };
        let (answer, _) = play(few, |_, _| Showed::Holds);
        assert_eq!(
            answer,
            Answer::Unconfirmed {
                rate: Some(1_000_000)
            }
        );
    }
}
