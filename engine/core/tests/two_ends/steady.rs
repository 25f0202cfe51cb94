//! What the steady state takes.

use std::time::Duration;

use ringpost_core::settings::Linger;

use crate::world::{Setup, World, ms, us};

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
fn m_an_idle_dispatcher_sets_no_timers() {
    let mut world = World::warm(Setup::new(2), 4);
    world.run_for(ms(1_000));
    assert!(world.dispatcher.is_idle());
    let next = world.dispatcher.next_deadline();
    world.run_for(ms(130_000));
    assert!(
        world.dispatcher.next_deadline() > next || next > world.now,
        "a timer that is over is gone"
    );
    assert_eq!(
        world.dispatcher.next_deadline(),
        ringpost_core::time::Time::NEVER
    );
}
