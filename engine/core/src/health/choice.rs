//! Which lane the next batch of records goes to that may go anywhere.
//!
//! *Tiers.* Lanes in good standing, as long as they are enough; else all whose brokers answer at
//! all, however badly (*panic*: what is left would drown); else those behind dead brokers; else any.
//! What goes to the last two waits there unsent and is moved when a better lane is found.
//!
//! *Two choices.* One lane is drawn by weight; a second, at another broker, takes its place if it is
//! cheaper by more than [`TOLERANCE`]. So equal lanes get equal shares, and a lane that is only
//! measured a little dearer is not starved
//! ([Mitzenmacher, The Power of Two Choices](https://www.eecs.harvard.edu/~michaelm/postscripts/mythesis.pdf)).

use crate::health::{Standing, View};
use crate::random::Random;

/// A cost must be this many times another to count as higher: measurements of equal brokers differ
/// by less, and the published ones are up to a tick old.
pub const TOLERANCE: u32 = 2;

/// What is known of the lanes that can be chosen among, by partition.
pub trait Routes {
    /// How many there are.
    fn count(&self) -> u32;
    /// What is published of one.
    fn view(&self, partition: u32) -> View;
    /// Whether all lanes are known to be in full health: then two looks are enough.
    fn is_calm(&self) -> bool;
    /// With fewer lanes in good standing than this, in percent, those that are avoided are used too.
    fn panic_percent(&self) -> u8;
}

/// Chooses a lane, and not `left` if there is another as good. With no lanes at all: 0.
#[must_use]
pub fn choose(random: &mut Random, routes: &impl Routes, left: Option<u32>) -> u32 {
    let count = routes.count();
    if count < 2 {
        return 0;
    }
    if routes.is_calm() {
        let first = draw_other(random, count, |drawn| left != Some(drawn));
        let broker = routes.view(first).broker();
        let second = draw_other(random, count, |drawn| {
            left != Some(drawn) && routes.view(drawn).broker() != broker
        });
        return cheaper(routes, first, second);
    }
    let eligible = Eligible::of(routes);
    let first = eligible.draw(random, routes, |drawn, _| left != Some(drawn));
    // There may be no other place than the one that is left.
    let Some(first) = first.or_else(|| eligible.draw(random, routes, |_, _| true)) else {
        return 0;
    };
    let broker = routes.view(first).broker();
    let elsewhere = |drawn, view: View| left != Some(drawn) && view.broker() != broker;
    match eligible.draw(random, routes, elsewhere) {
        Some(second) => cheaper(routes, first, second),
        None => first,
    }
}

/// Whether a lane at another broker, one that is as likely as any to be chosen, costs so many times less.
#[must_use]
pub fn cheaper_elsewhere(
    random: &mut Random,
    routes: &impl Routes,
    partition: u32,
    times: u32,
) -> bool {
    let own = routes.view(partition);
    if routes.count() < 2 {
        return false;
    }
    let elsewhere = |drawn, view: View| drawn != partition && view.broker() != own.broker();
    let other = if routes.is_calm() {
        let count = routes.count();
        let drawn = draw_other(random, count, |drawn| elsewhere(drawn, routes.view(drawn)));
        Some(drawn).filter(|drawn| *drawn != partition)
    } else {
        Eligible::of(routes).draw(random, routes, elsewhere)
    };
    // Nothing was told of one that costs nothing.
    let cost = other.map_or(0, |other| routes.view(other).cost());
    cost > 0 && cost.saturating_mul(times) < own.cost()
}

fn cheaper(routes: &impl Routes, first: u32, second: u32) -> u32 {
    let (one, other) = (routes.view(first).cost(), routes.view(second).cost());
    if other.saturating_mul(TOLERANCE) < one {
        second
    } else {
        first
    }
}

/// A number that is `wanted`, if a few draws find one; else the last that was drawn.
fn draw_other(random: &mut Random, count: u32, wanted: impl Fn(u32) -> bool) -> u32 {
    const DRAWS: u32 = 8;
    let mut drawn = 0;
    for _ in 0..DRAWS {
        drawn = u32::try_from(random.below(count as usize)).unwrap_or(0);
        if wanted(drawn) {
            break;
        }
    }
    drawn
}

/// The standings that are good enough.
#[derive(Debug, Clone, Copy)]
struct Eligible {
    from: Standing,
    to: Standing,
}

impl Eligible {
    fn of(routes: &impl Routes) -> Self {
        let count = routes.count();
        let (mut good, mut worst_answering, mut dead) = (0_u32, 0_u32, 0_u32);
        for partition in 0..count {
            match routes.view(partition).standing() {
                Standing::Good => good += 1,
                Standing::Suspect | Standing::Avoided => worst_answering += 1,
                Standing::Dead => dead += 1,
                Standing::NoLeader => {}
            }
        }
        let enough = u64::from(good) * 100 >= u64::from(routes.panic_percent()) * u64::from(count);
        let (from, to) = match (good, worst_answering, dead) {
            (1.., _, _) if enough => (Standing::Good, Standing::Good),
            (1.., _, _) | (_, 1.., _) => (Standing::Good, Standing::Avoided),
            (0, 0, 1..) => (Standing::Dead, Standing::Dead),
            (0, 0, 0) => (Standing::NoLeader, Standing::NoLeader),
        };
        Self { from, to }
    }

    fn weight(self, view: View) -> usize {
        if (self.from..=self.to).contains(&view.standing()) {
            usize::from(view.weight().max(1))
        } else {
            0
        }
    }

    /// One of the eligible that are `wanted`, each as likely as it has weight.
    fn draw(
        self,
        random: &mut Random,
        routes: &impl Routes,
        wanted: impl Fn(u32, View) -> bool,
    ) -> Option<u32> {
        let weight = |partition: u32| {
            let view = routes.view(partition);
            if wanted(partition, view) {
                self.weight(view)
            } else {
                0
            }
        };
        let total: usize = (0..routes.count()).map(weight).sum();
        let mut at = random.below(total);
        for partition in 0..routes.count() {
            let weight = weight(partition);
            if at < weight {
                return Some(partition);
            }
            at -= weight;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    struct Table(Vec<View>);

    impl Routes for Table {
        fn count(&self) -> u32 {
            u32::try_from(self.0.len()).expect("few")
        }
        fn view(&self, partition: u32) -> View {
            self.0[partition as usize]
        }
        fn is_calm(&self) -> bool {
            let calm = |view: &View| view.standing() == Standing::Good && view.weight() == 100;
            self.0.iter().all(calm)
        }
        fn panic_percent(&self) -> u8 {
            34
        }
    }

    /// How often each lane is chosen in 12,000 choices, in percent.
    fn shares(views: Vec<View>) -> Vec<u32> {
        let table = Table(views);
        let mut random = Random::new(11);
        let mut counts = alloc::vec![0; table.0.len()];
        let mut left = None;
        for _ in 0..12_000 {
            let chosen = choose(&mut random, &table, left);
            counts[chosen as usize] += 1;
            left = Some(chosen);
        }
        counts.iter().map(|count| count / 120).collect()
    }

    fn good(broker: u16, cost: u32) -> View {
        View::new(Standing::Good, 100, broker, cost)
    }

    /// Each of 7 lanes at 3 brokers, unevenly led, is chosen within 15 % of a seventh.
    #[test]
    fn v3_equal_lanes_get_equal_shares() {
        let views =
            [0, 0, 0, 1, 1, 2, 2].map(|broker| good(broker, 1_000 + 300 * u32::from(broker)));
        for share in shares(views.to_vec()) {
            assert!((12..=16).contains(&share), "{share} %");
        }
    }

    /// Four of twelve lanes lie at a broker ten times as slow: less than 5 % of the choices.
    #[test]
    fn v3_a_broker_ten_times_as_slow_is_hardly_chosen() {
        let views = (0..12).map(|lane| good(lane % 3, if lane % 3 == 1 { 20_000 } else { 2_000 }));
        let shares = shares(views.collect());
        let slow: u32 = (0..4).map(|n| shares[3 * n + 1]).sum();
        assert!(slow < 5, "{shares:?}");
    }

    /// Half of the lanes are suspect or avoided: none of them is chosen.
    #[test]
    fn v1_only_good_lanes_are_chosen_while_there_are_enough() {
        let mut views: Vec<_> = (0..6).map(|lane| good(lane % 3, 1_000)).collect();
        views[0] = View::new(Standing::Suspect, 100, 0, 1);
        views[3] = View::new(Standing::Dead, 100, 0, 1);
        views[1] = View::new(Standing::Avoided, 100, 1, 1);
        let shares = shares(views);
        assert_eq!((shares[0], shares[1], shares[3]), (0, 0, 0), "{shares:?}");
    }

    /// One of six lanes is good: those that answer are used too, dead and leaderless ones are not.
    #[test]
    fn v4_in_panic_avoided_lanes_are_used_again_but_no_dead_ones() {
        let bad = |standing| View::new(standing, 100, 1, 1_000);
        let shares = shares(alloc::vec![
            good(0, 1_000),
            bad(Standing::Avoided),
            bad(Standing::Suspect),
            bad(Standing::Dead),
            bad(Standing::Dead),
            bad(Standing::NoLeader),
        ]);
        assert!(shares[..3].iter().all(|share| *share > 15), "{shares:?}");
        assert!(shares[3..].iter().all(|share| *share == 0), "{shares:?}");
    }

    /// When all are dead all are used: what goes there waits.
    #[test]
    fn v4_when_nobody_answers_any_lane_will_do_but_one_without_a_leader() {
        let dead = View::new(Standing::Dead, 100, 1, 1_000);
        let nobody = View::new(Standing::NoLeader, 100, u16::MAX, 0);
        let shares = shares(alloc::vec![dead, nobody, dead]);
        assert!(
            shares[0] > 40 && shares[2] > 40 && shares[1] == 0,
            "{shares:?}"
        );
        assert!(shares_of_all(nobody).iter().all(|share| *share > 20));
    }

    fn shares_of_all(view: View) -> Vec<u32> {
        shares(alloc::vec![view; 3])
    }

    /// At a tenth of the weight a lane of four gets about a thirtieth.
    #[test]
    fn v5_a_lane_that_comes_back_gets_its_weight() {
        let mut views = alloc::vec![
            good(0, 1_000),
            good(1, 1_000),
            good(2, 1_000),
            good(3, 1_000)
        ];
        views[2] = View::new(Standing::Good, 10, 2, 1_000);
        let shares = shares(views);
        assert!((1..=6).contains(&shares[2]), "{shares:?}");
    }
}
