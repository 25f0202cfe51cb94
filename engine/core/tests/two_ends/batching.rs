//! When requests leave, and what is in them.

use std::time::Duration;

use ringpost_core::settings::Linger;
use ringpost_core::time::Time;

use crate::world::{Setup, World, batches_of, ms, us};

fn sent_at(world: &World, from: usize) -> Vec<Time> {
    world.requests[from..].iter().map(|r| r.at).collect()
}

/// A world whose connection is ready and whose producer id is known.
fn warm(setup: Setup, partitions: i32) -> World {
    let mut world = World::with_topic(setup, "t", partitions);
    world.append(0, 20);
    world.settle(ms(5_000));
    world.run_for(ms(100));
    world
}

#[test]
fn b1_auto_sends_at_once_when_quiet_and_spaced_by_the_gap_when_busy() {
    let setup = Setup::new(1).settings(|s| s.linger = Linger::Auto { gap: us(700) });
    let mut world = warm(setup, 2);
    let (from, start) = (world.requests.len(), world.now);
    world.append(0, 100);
    world.run_for(us(100));
    world.append(0, 100);
    world.run_for(us(100));
    world.append(1, 100);
    world.settle(ms(50));
    assert_eq!(sent_at(&world, from), [start, start + us(700)]);
    assert_eq!(batches_of(&world.requests[from + 1]).len(), 2);
    world.check(true);
}
