//! Every version of Produce, and what differs between them.

use std::collections::BTreeSet;

use ringpost_broker::{ApiKey, ErrorCode, PartitionFault};
use ringpost_core::outcome::{Verdict, Why};
use ringpost_core::settings::{Acks, Linger};

use ringpost_simulator::found::{batches_of, version_of};
use ringpost_simulator::setup::{Setup, ms, us};
use ringpost_simulator::world::World;

fn speaking(newest: i16) -> Setup {
    Setup::new(2).broker(|b| {
        b.versions = b.versions.clone().with(ApiKey::Produce, 0, newest);
    })
}

#[test]
fn w_every_produce_version_delivers_with_every_acks() {
    for newest in 3..=13 {
        for acks in [Acks::None, Acks::Leader, Acks::All] {
            let setup = speaking(newest).settings(|s| {
                s.acks = acks;
                s.idempotent = acks == Acks::All;
            });
            let mut world = World::warm(setup, 4);
            if acks != Acks::None {
                let fault = PartitionFault::ErrorBefore(ErrorCode::NOT_ENOUGH_REPLICAS);
                world.broker.faults().next_batch("t", 2, fault);
            }
            for _ in 0..10 {
                for lane in 0..4 {
                    world.append(lane, 100 + 1_500 * lane as usize);
                }
                world.run_for(us(700));
            }
            world.settle(ms(5_000));
            world.run_for(ms(5));
            let versions: BTreeSet<_> = world.requests.iter().map(version_of).collect();
            assert!(versions.into_iter().eq([newest]));
            assert_eq!(world.broker.report().records, 44);
            assert!(world.broker.report().is_clean());
            world.check(acks == Acks::All);
        }
    }
}

#[test]
fn w_each_partition_is_in_a_request_once_and_topics_stand_together() {
    for newest in [9, 13] {
        let mut world = World::new(speaking(newest));
        for topic in ["a", "b", "c"] {
            world.broker.create_topic(topic, 3).expect("fresh");
            world.want(topic);
        }
        world.run_until_idle(ms(1_000));
        for _ in 0..5 {
            for lane in [8, 0, 4, 3, 1, 7, 2, 6, 5] {
                world.append(lane, 100);
            }
            world.run_for(ms(1));
        }
        world.settle(ms(1_000));
        for request in &world.requests {
            let batches = batches_of(request);
            let names: BTreeSet<_> = batches.iter().map(|b| (&b.topic, b.partition)).collect();
            assert_eq!(names.len(), batches.len());
        }
        world.check(true);
    }
}

/// Partitions that are there again have their record acked, and it alone, in the new log at the offset told;
/// those that are not end at their deadline, and are nowhere.
#[test]
fn m5_a_topic_made_anew_with_another_id_is_written_to_again() {
    for (newest, before, after) in [(13, 2, 2), (12, 2, 2), (13, 1, 3), (13, 3, 1)] {
        let setup = speaking(newest).settings(|s| s.delivery_timeout = ms(3_000));
        let mut world = World::warm(setup, before);
        // The old one had many leaders.
        for _ in 0..5 {
            world.broker.move_leader("t", 0, 2);
        }
        world.directory.refresh();
        world.run_for(ms(500));
        world.broker.delete_topic("t");
        let count = i32::try_from(after).expect("few");
        world.broker.create_topic("t", count).expect("deleted");
        let start = world.now;
        for lane in 0..before {
            world.append(lane, 100);
        }
        world.settle(ms(10_000));
        for lane in 0..before {
            let kept = lane < after;
            let what = format!("{newest}: {lane} of {before}, {after}");
            assert_eq!(world.is_acked(lane, 1), kept, "{what}");
            let log = world.log("t", lane.cast_signed());
            let there: Vec<_> = log.iter().flat_map(|batch| &batch.records).collect();
            let outcome = world.outcome(lane, 1);
            match &outcome.verdict {
                Verdict::Acked { base_offset, .. } => {
                    assert_eq!(*base_offset, Some(log[0].header.base_offset), "{what}");
                    assert_eq!(there, [&(u64::from(lane), 1)], "{what}");
                }
                Verdict::NotWritten(failure) | Verdict::Unknown(failure) => {
                    assert_eq!(failure.why, Why::Expired, "{what}: {failure:#}");
                    assert_eq!(outcome.at, start + ms(3_000), "{what}");
                    assert!(there.is_empty(), "{what}");
                }
                Verdict::Sent => panic!("{what}"),
            }
        }
        world.check_logs();
        let lanes = world.lanes_of("t").len();
        assert_eq!(lanes, before.max(after) as usize);
    }
}

/// An answer of the topic that was comes after the new one is known: its hint has a leader epoch that the
/// new one will not reach for long, and is not followed.
#[test]
fn m5_a_late_hint_of_the_former_topic_is_not_followed() {
    let mut world = World::warm(Setup::new(2), 1);
    world.append(0, 100);
    world.settle(ms(1_000));
    let leader = world.broker.leader("t", 0).expect("one");
    let other = 3 - leader;
    let moved = PartitionFault::Moved {
        leader_id: other,
        leader_epoch: 51,
    };
    world.broker.faults().next_batch("t", 0, moved);
    world.slow.insert(leader, ms(3_000));
    world.append(0, 100);
    world.run_for(ms(100));
    world.slow.clear();
    world.broker.delete_topic("t");
    world.broker.create_topic("t", 1).expect("deleted");
    while world.broker.leader("t", 0) != Some(leader) {
        world.broker.move_leader("t", 0, leader);
    }
    world.directory.refresh();
    world.run_for(ms(1_000));
    assert_eq!(world.unsettled(), 1, "the answer is still to come");
    world.run_for(ms(3_000));
    world.append(0, 100);
    world.settle(ms(5_000));
    assert!(world.is_acked(0, 3));
}

/// That the former topic stored a batch says nothing of the new one: there the next goes alone again.
#[test]
fn m5_a_late_ack_of_the_former_topic_proves_nothing_of_the_new_one() {
    let setup = Setup::new(1).settings(|s| s.linger = Linger::Auto { gap: us(0) });
    let mut world = World::warm(setup, 1);
    world.append(0, 100);
    world.settle(ms(1_000));
    world.slow.insert(1, ms(3_000));
    world.append(0, 100);
    world.run_for(ms(100));
    world.slow.clear();
    world.broker.delete_topic("t");
    world.broker.create_topic("t", 1).expect("deleted");
    world.directory.refresh();
    world.run_for(ms(1_000));
    assert_eq!(world.unsettled(), 1, "the answer is still to come");
    world.run_for(ms(3_000));
    assert_eq!(world.unsettled(), 0);
    world.requests.clear();
    for _ in 0..5 {
        world.append(0, 100);
        world.run_for(us(10));
    }
    assert_eq!(world.requests.len(), 1, "alone");
    world.settle(ms(1_000));
    assert!(world.all_acked());
}
