//! What is moved from a bad lane to a better one, and what it does to those that are there.

use std::time::Duration;

use ringpost_core::health::Standing;
use ringpost_core::id::{BrokerId, LaneId};
use ringpost_core::outcome::{Verdict, Why};
use ringpost_core::settings::Linger;
use ringpost_core::time::Time;
use ringpost_simulator::keyless::Keyless;
use ringpost_simulator::setup::{Setup, ms};
use ringpost_simulator::world::World;

/// The lane that a broker leads, of as many as there are brokers.
fn lane_of(world: &World, broker: i32) -> u32 {
    let leads = |partition: &i32| world.broker.leader("t", *partition) == Some(broker);
    let partition = (0..).find(leads).expect("each leads one");
    world.lanes_of("t")[usize::try_from(partition).expect("few")].0
}

/// A younger batch that was moved in stands before an older one, both in vain: the older one still ends
/// at its own deadline, not at that of the younger.
#[test]
fn a4_v1_a_batch_that_moved_in_keeps_no_older_one_past_its_deadline() {
    let timeout = ms(10_000);
    let setup = Setup::new(2).settings(|s| {
        s.linger = Linger::Fixed(ms(4_000));
        s.delivery_timeout = timeout;
    });
    let mut world = World::warm(setup, 2);
    let (left, taken) = (lane_of(&world, 1), lane_of(&world, 2));
    let begun = world.now;
    let older = world.append(taken, 100);
    world.run_for(ms(3_000));
    world.append_free(LaneId(left), 100);
    world.run_for(ms(100));
    world.slow.insert(2, ms(2_000));
    world.stop_node(1);
    world.run_for(ms(1_000));
    assert_eq!(world.dispatcher.counters().moved, 1);
    world.stop_node(2);
    world.run_for(timeout);
    let outcome = world.outcome(taken, older);
    let (Verdict::Unknown(failure) | Verdict::NotWritten(failure)) = &outcome.verdict else {
        panic!("{:?}", outcome.verdict);
    };
    assert_eq!(failure.why, Why::Expired);
    let late = outcome.at.since(begun + timeout);
    assert!(late <= ms(1), "{late:?} late");
    assert_eq!(world.unsettled(), 0);
}

/// A lane loses its leader while an appender holds its lock: what may go elsewhere goes there as soon as
/// the lock is free, though nothing else happens.
#[test]
fn v1_a_lane_whose_lock_was_taken_is_left_all_the_same() {
    let mut world = World::warm(Setup::new(2), 2);
    let left = lane_of(&world, 1);
    let mut cluster = (*world.cluster).clone();
    let topic = cluster.topics.get_mut("t").expect("it is known");
    let partition = &mut std::sync::Arc::make_mut(topic).partitions[left as usize];
    partition.leader = None;
    partition.leader_epoch += 1;
    world.dispatcher.metadata(world.now, &cluster);
    world.run_for(ms(10));
    let number = world.append_free(LaneId(left), 100).number;
    // When the mark is seen, in the step, and when it is to be moved.
    world.lanes.busy = 3;
    world.run_for(ms(20));
    assert_eq!(world.lanes.busy, 0);
    assert!(world.is_acked(left, number));
    assert_eq!(world.dispatcher.counters().moved, 1);
}

/// A broker comes back while nothing may be sent to it but what it leads, and ends its idle connection
/// before it was probed: keyless records probe it on a new one, and it gets its share again.
#[test]
fn v5_a_broker_whose_connection_ended_before_its_probe_is_probed_all_the_same() {
    let setup = Setup::new(3).settings(|s| s.delivery_timeout = ms(3_000));
    let mut world = World::warm(setup, 12);
    let mut sender = Keyless::new("t", 1);
    let mut run = |world: &mut World, time: Duration| -> Vec<LaneId> {
        let (end, mut chosen) = (world.now + time, Vec::new());
        while world.now < end {
            chosen.push(sender.send(world, 1_000));
            world.run_for(ms(1));
        }
        chosen
    };
    let standing = |world: &World| {
        let mut brokers = world.dispatcher.health(world.now);
        let found = brokers.find(|(id, _)| *id == BrokerId(2));
        found.expect("it is known").1
    };
    run(&mut world, ms(2_000));
    world.stop_node(2);
    // Something that must go there finds out that it is dead, and expires.
    let pinned = lane_of(&world, 2);
    world.append(pinned, 100);
    world.run_for(ms(4_000));
    assert_eq!(world.unsettled(), 0);
    assert_eq!(standing(&world).standing, Standing::Dead);
    world.start_node(2);
    let other = lane_of(&world, 1);
    for _ in 0..100 {
        world.append(other, 100);
        world.run_for(ms(50));
    }
    assert_eq!(standing(&world).standing, Standing::Suspect);
    assert_eq!(standing(&world).until, None, "it is to be probed");
    world.hang_up(2);
    world.run_for(ms(1));
    run(&mut world, ms(10_000));
    let chosen = run(&mut world, ms(5_000));
    let own = |lane: &&LaneId| {
        let partition = world.lanes.lanes[lane.index()].partition;
        world.broker.leader("t", partition) == Some(2)
    };
    let share = chosen.iter().filter(own).count() * 100 / chosen.len();
    assert!((25..42).contains(&share), "{share} %");
    world.settle(ms(10_000));
    let lost = world.count(|verdict| !matches!(verdict, Verdict::Acked { .. }));
    assert_eq!(lost, 1, "the one that expired");
}

/// An idle connection is lost, and nothing is sent: the lane is suspect for half a second and not until
/// its next record, which would never come as long as others are better. Then the shard sleeps.
#[test]
fn v5_a_suspicion_ends_without_traffic() {
    let setup = Setup::new(2).settings(|s| s.idle_probe = Duration::ZERO);
    let mut world = World::warm(setup, 2);
    let lane = lane_of(&world, 2) as usize;
    world.stop_node(2);
    world.run_for(ms(200));
    assert!(world.views[lane].standing() >= Standing::Suspect);
    world.start_node(2);
    world.run_for(ms(2_000));
    assert_eq!(world.views[lane].standing(), Standing::Good);
    world.run_for(ms(130_000));
    assert_eq!(world.dispatcher.next_deadline(), Time::NEVER);
}
