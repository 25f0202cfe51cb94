//! What the application gives up, waiting and in flight, and the records behind it.

use std::time::Duration;

use ringpost_broker::{ApiKey, ErrorCode, PartitionFault, RequestFault};
use ringpost_core::dispatch::Purge;
use ringpost_core::outcome::{Verdict, Why};
use ringpost_core::settings::{Acks, Linger};

use ringpost_simulator::setup::{Setup, ms, us};
use ringpost_simulator::world::World;

fn impatient() -> Setup {
    Setup::new(1).settings(|s| {
        s.linger = Linger::Auto {
            gap: Duration::ZERO,
        };
    })
}

fn append_each_alone(world: &mut World, count: usize) {
    for _ in 0..count {
        world.append(0, 100);
        world.run_for(us(10));
    }
}

fn purge(world: &mut World, which: Purge) {
    let busy = world.dispatcher.purge(world.now, which, &mut world.lanes);
    assert_eq!(busy, 0);
    world.dispatcher.invariants(world.now);
    world.run_for(Duration::ZERO);
}

/// "unknown" or "not written", when that is so because of the purge.
fn purged(world: &World, number: u64) -> &'static str {
    match &world.outcome(0, number).verdict {
        Verdict::Unknown(failure) if failure.why == Why::Purged => "unknown",
        Verdict::NotWritten(failure) if failure.why == Why::Purged => "not written",
        other => panic!("{other:?}"),
    }
}

/// Waiting batches end as not written at once; those in flight are acknowledged as if nothing were.
#[test]
fn c4_purging_what_waits_leaves_alone_what_is_in_flight() {
    let mut world = World::warm(impatient(), 1);
    append_each_alone(&mut world, 8);
    assert_eq!(world.requests.len(), 5, "five fly and three wait");
    let at = world.now;
    purge(&mut world, Purge::Queued);
    for number in 6..9 {
        assert_eq!(purged(&world, number), "not written");
        assert_eq!(world.outcome(0, number).at, at);
    }
    append_each_alone(&mut world, 3);
    world.settle(ms(1_000));
    assert!((1..6).chain(9..12).all(|n| world.is_acked(0, n)));
    assert_eq!(world.dispatcher.counters().epoch_bumps, 0);
    world.check(true);
}

/// What flies ends as unknown at once. Nothing leaves before it is answered, and then the sequence
/// goes on where it was.
#[test]
fn c4_i14_what_is_purged_in_flight_and_stored_leaves_the_sequence_whole() {
    let mut world = World::warm(impatient(), 1);
    append_each_alone(&mut world, 7);
    purge(&mut world, Purge::QueuedAndInFlight);
    assert!((1..6).all(|n| purged(&world, n) == "unknown"));
    assert!((6..8).all(|n| purged(&world, n) == "not written"));
    append_each_alone(&mut world, 3);
    assert_eq!(world.requests.len(), 5, "nothing leaves before the answers");
    world.settle(ms(1_000));
    assert!((8..11).all(|n| world.is_acked(0, n)));
    assert_eq!(world.dispatcher.counters().epoch_bumps, 0);
    let numbers = world.log("t", 0).into_iter().flat_map(|b| b.records);
    assert!(numbers.map(|(_, n)| n).eq((0..6).chain(8..11)));
    world.check(true);
}

/// Whatever becomes of what was purged in flight, later records are there once and in order.
#[test]
fn i14_what_follows_a_purge_in_flight_is_neither_swallowed_nor_doubled() {
    let refused = ErrorCode::NOT_ENOUGH_REPLICAS;
    let faults = [
        PartitionFault::ErrorBefore(refused),
        PartitionFault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT),
        PartitionFault::ErrorBefore(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        PartitionFault::ErrorBefore(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER),
        PartitionFault::OmitBefore,
        PartitionFault::OmitAfter,
    ];
    for fault in faults {
        for place in 0..5 {
            let mut world = World::warm(impatient(), 1);
            for _ in 0..place {
                world.broker.faults().next_batch("t", 0, None);
            }
            world.broker.faults().next_batch("t", 0, fault);
            append_each_alone(&mut world, 5);
            purge(&mut world, Purge::QueuedAndInFlight);
            append_each_alone(&mut world, 4);
            world.settle(ms(5_000));
            assert!((6..10).all(|n| world.is_acked(0, n)), "{fault:?}");
            world.check(true);
        }
    }
}

/// A connection that ends, or never answers, settles the numbers as well: under a new epoch.
#[test]
fn i14_a_purge_in_flight_is_over_when_the_connection_is() {
    for fault in [RequestFault::Ignore, RequestFault::Silence] {
        for reset in [true, false] {
            let setup = impatient().settings(|s| s.request_timeout = ms(400));
            let mut world = World::warm(setup, 1);
            let faults = world.broker.faults();
            faults.next_request(ApiKey::Produce, None);
            faults.next_request(ApiKey::Produce, Some(fault));
            append_each_alone(&mut world, 3);
            let conn = world.requests[0].conn;
            purge(&mut world, Purge::QueuedAndInFlight);
            append_each_alone(&mut world, 2);
            world.run_for(ms(5));
            assert_eq!(world.requests.len(), 3, "the second is not answered");
            if reset {
                world.reset(conn);
            }
            world.settle(ms(5_000));
            assert!((4..6).all(|n| world.is_acked(0, n)));
            assert_eq!(world.dispatcher.counters().epoch_bumps, 1);
            world.check(true);
        }
    }
}

/// A batch that rests and may be stored is unknown, one that was refused is not written, and what
/// follows either gets numbers of its own.
#[test]
fn c4_a_batch_that_waits_to_be_tried_again_ends_as_what_is_known_of_it() {
    for (fault, expected) in [
        (
            PartitionFault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT),
            "unknown",
        ),
        (
            PartitionFault::ErrorBefore(ErrorCode::NOT_ENOUGH_REPLICAS),
            "not written",
        ),
    ] {
        let mut world = World::warm(impatient(), 1);
        world.broker.faults().next_batch("t", 0, fault);
        world.append(0, 100);
        world.run_for(ms(10));
        purge(&mut world, Purge::Queued);
        assert_eq!(purged(&world, 1), expected);
        append_each_alone(&mut world, 3);
        world.settle(ms(5_000));
        assert!((2..5).all(|n| world.is_acked(0, n)));
        assert_eq!(world.dispatcher.counters().epoch_bumps, 1);
        world.check(true);
    }
}

/// Without sequences too: one verdict each, and nothing overtakes what is still in flight.
#[test]
fn c4_purging_without_idempotence_keeps_the_order_of_what_follows() {
    for acks in [Acks::None, Acks::Leader, Acks::All] {
        let setup = impatient().settings(|s| {
            s.acks = acks;
            s.idempotent = false;
        });
        let mut world = World::warm(setup, 1);
        append_each_alone(&mut world, 3);
        purge(&mut world, Purge::QueuedAndInFlight);
        append_each_alone(&mut world, 3);
        world.settle(ms(1_000));
        world.run_for(ms(100));
        world.check(false);
        world.check_logs();
    }
}

/// A lane whose lock is taken is counted, and what it holds is still delivered.
#[test]
fn c4_a_lane_whose_lock_is_taken_is_not_purged_and_said_so() {
    let mut world = World::with_topic(impatient(), "t", 1);
    world.append(0, 100);
    world.lanes.busy = 1;
    let busy = world
        .dispatcher
        .purge(world.now, Purge::Queued, &mut world.lanes);
    assert_eq!(busy, 1);
    world.settle(ms(1_000));
    assert!(world.is_acked(0, 0));
    world.check(true);
}

/// Records that were purged while nobody led their partition, and before there was a producer id.
#[test]
fn c4_purging_what_waits_for_a_leader_or_a_producer_id() {
    let mut world = World::with_topic(impatient(), "t", 1);
    let fault = Some(RequestFault::Error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    let faults = world.broker.faults();
    faults.every_request(ApiKey::InitProducerId, fault);
    world.append(0, 100);
    world.run_for(ms(500));
    purge(&mut world, Purge::QueuedAndInFlight);
    assert_eq!(purged(&world, 0), "not written");
    world.broker.faults().heal();
    world.append(0, 100);
    world.settle(ms(5_000));
    assert!(world.is_acked(0, 1));
    world.broker.set_node_up(1, false);
    world.directory.refresh();
    world.run_for(ms(200));
    world.append(0, 100);
    purge(&mut world, Purge::Queued);
    assert_eq!(purged(&world, 2), "not written");
    world.check(true);
}
