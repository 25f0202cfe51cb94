//! The proof that the simulator finds what it is there to find: known bugs, planted one at a time in
//! core and memory, each of which some seed must fail with; and the same seeds pass without it.

use std::collections::BTreeSet;

use ringpost_core::canary::{Canary, plant};

use super::session;

/// Every bug must be found within so many seeds.
pub const SEEDS: u64 = 200;

/// All that can be planted.
pub const ALL: [Canary; 12] = [
    Canary::ReleasedAtExpiry,
    Canary::EpochBumpWithoutDrain,
    Canary::SequenceStateDropped,
    Canary::AckOnOmitted,
    Canary::RetryOvertakes,
    Canary::SixInFlight,
    Canary::WindowLeak,
    Canary::RestampMaybeWritten,
    Canary::WakeLost,
    Canary::BudgetLeak,
    Canary::DuplicateAtZero,
    Canary::KeyedRebound,
];

/// How a bug was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hunt {
    /// So many seeds were run, the last of which found it.
    pub tried: u64,
    /// That one.
    pub seed: u64,
    /// What did not hold.
    pub words: String,
}

/// Plants each bug, and looks for it; then runs all seeds that were tried without any. `tell` hears of
/// each.
///
/// Not for two threads at once: what is planted is planted for the whole process.
pub fn hunt_all(mut tell: impl FnMut(&str, &Result<Hunt, String>)) {
    let mut tried = BTreeSet::new();
    for canary in ALL {
        plant(Some(canary));
        let hunt = hunt(&mut tried);
        plant(None);
        tell(&format!("{canary:?}"), &hunt);
    }
    let healthy = tried.iter().find_map(|seed| {
        let words = session::once(*seed, &[], false).err()?;
        Some(format!("seed {seed} fails without it too: {words}"))
    });
    let count = tried.len() as u64;
    let clean = healthy.map_or_else(
        || {
            Ok(Hunt {
                tried: count,
                seed: tried.last().copied().unwrap_or(0),
                words: "all of them pass".to_owned(),
            })
        },
        Err,
    );
    tell("nothing planted", &clean);
}

fn hunt(tried: &mut BTreeSet<u64>) -> Result<Hunt, String> {
    for seed in 0..SEEDS {
        tried.insert(seed);
        if let Err(words) = session::once(seed, &[], false) {
            return Ok(Hunt {
                tried: seed + 1,
                seed,
                words,
            });
        }
    }
    Err(format!("{SEEDS} seeds pass with it"))
}
