//! A few seeds of the swarm with every `cargo test`; `scripts/sim` runs many.

use ringpost_simulator::swarm::{Knobs, session};

/// Checks 1 to 10, the ledger and the dispatcher's own invariants hold in every one of the seeds, and
/// two runs of a seed do the same.
#[test]
fn seeds_hold_what_is_promised_and_are_the_same_twice() {
    for seed in 0..25 {
        if let Err(words) = session::twice(seed) {
            panic!("seed {seed}: {words}; again with: scripts/sim --seed {seed} --trace");
        }
    }
}

/// Leaving out every kind of fault leaves a calm run.
#[test]
fn a_seed_without_any_kind_of_fault_is_calm() {
    let all = ringpost_simulator::swarm::Kind::ALL;
    assert!(Knobs::draw(7, &all).is_calm());
    let report = session::once(7, &all, false).expect("nothing goes wrong");
    assert_eq!(report.strikes, 0);
    assert_eq!(report.counts.unknown, 0);
}
