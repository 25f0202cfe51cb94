//! What the steady state takes.

use std::time::Duration;

use ringpost_core::settings::Linger;
use ringpost_core::time::Time;

use ringpost_simulator::setup::{Setup, ms, us};
use ringpost_simulator::world::World;

/// No allocation in 300 rounds over 40 lanes (counting allocator).
#[test]
fn x5_the_steady_state_takes_nothing_from_the_heap() {
    let setup = Setup::new(1).settings(|s| {
        s.linger = Linger::Auto {
            gap: Duration::ZERO,
        };
    });
    let mut world = World::warm(setup, 40);
    let produce = |world: &mut World, rounds: usize| {
        for round in 0..rounds {
            for lane in 0..40 {
                // Some bodies are copied, some go by reference.
                world.append(lane, 100 + (round + lane as usize) % 3 * 700);
            }
            world.run_for(us(400));
        }
        world.settle(ms(100));
    };
    produce(&mut world, 100);
    world.allocations = Some(0);
    produce(&mut world, 300);
    assert_eq!(world.allocations, Some(0));
    world.check(true);
}

#[test]
fn an_idle_dispatcher_wants_nothing() {
    let setup = Setup::new(2).settings(|s| s.idle_probe = Duration::ZERO);
    let mut world = World::warm(setup, 4);
    world.run_for(ms(130_000));
    assert!(world.dispatcher.is_idle());
    assert_eq!(world.dispatcher.next_deadline(), Time::NEVER);

    // One whose records were given up tries the dead broker once an ejection, to tell those who choose
    // when it is back, and wants nothing more when it is.
    let setup = Setup::new(2).settings(|s| {
        s.delivery_timeout = ms(5_000);
        s.idle_probe = Duration::ZERO;
    });
    let mut world = World::warm(setup, 4);
    world.stop_node(1);
    for lane in 0..4 {
        world.append(lane, 100);
    }
    world.settle(ms(10_000));
    world.run_for(ms(2_000));
    world.run_for(ms(60_000));
    world.connects.clear();
    world.run_for(ms(300_000));
    let tries = world.connects.iter().filter(|(_, conn, _)| conn.slot != 0);
    let tries = tries.count();
    // An ejection lasts between half of thirty seconds and all of it by then.
    assert!((9..=20).contains(&tries), "{:?}", world.connects);

    world.start_node(1);
    world.run_for(ms(60_000));
    world.connects.clear();
    world.run_for(ms(130_000));
    assert!(world.connects.is_empty(), "{:?}", world.connects);
    assert_eq!(world.dispatcher.next_deadline(), Time::NEVER);
    world.check(true);
}
