//! When requests leave, and what is in them.

use std::time::Duration;

use ringpost_broker::{ErrorCode, PartitionFault};
use ringpost_core::id::{LaneId, PartitionId};
use ringpost_core::settings::Linger;
use ringpost_core::time::Time;

use ringpost_simulator::found::batches_of;
use ringpost_simulator::setup::{Setup, ms, us};
use ringpost_simulator::world::World;

fn sent_at(world: &World) -> Vec<Time> {
    world.requests.iter().map(|r| r.at).collect()
}

fn linger(linger: Linger) -> Setup {
    Setup::new(1).settings(|s| s.linger = linger)
}

/// The first request leaves at once, the next exactly one gap later with all that came meanwhile.
#[test]
fn b1_auto_sends_at_once_when_quiet_and_spaced_by_the_gap_when_busy() {
    let mut world = World::warm(linger(Linger::Auto { gap: us(700) }), 2);
    let start = world.now;
    world.append(0, 100);
    world.run_for(us(100));
    world.append(0, 100);
    world.run_for(us(100));
    world.append(1, 100);
    world.settle(ms(50));
    assert_eq!(sent_at(&world), [start, start + us(700)]);
    assert_eq!(batches_of(&world.requests[1]).len(), 2);
    world.check(true);
}

/// From the third record on each request leaves at the instant of its append; company brings the
/// gap back.
#[test]
fn b1_a_caller_that_awaits_each_record_does_not_wait_for_the_gap() {
    let mut world = World::warm(linger(Linger::Auto { gap: ms(50) }), 1);
    // Each record comes when the one before is settled, well within the gap.
    let mut appended = Vec::new();
    for _ in 0..6 {
        appended.push(world.now);
        let sent = world.requests.len();
        world.append(0, 100);
        while world.requests.len() == sent {
            world.run_for(us(100));
        }
        world.run_for(ms(3));
    }
    let sent = sent_at(&world);
    assert_eq!(
        sent[2..],
        appended[2..],
        "two in a row tell that gathering brings nothing"
    );
    // Company brings the gap back.
    let together = world.now;
    world.append(0, 100);
    world.run_for(us(100));
    world.append(0, 100);
    world.append(0, 100);
    world.run_for(ms(3));
    world.append(0, 100);
    world.settle(ms(200));
    assert_eq!(sent_at(&world)[6..], [together, together + ms(50)]);
    world.check(true);
}

/// From the fourth record on each is acked within 2 ms under a gap of 50 ms.
#[test]
fn b1_a_caller_that_awaits_each_record_is_not_slowed_by_the_gap() {
    let mut world = World::warm(linger(Linger::Auto { gap: ms(50) }), 1);
    let mut waited = Vec::new();
    for _ in 0..8 {
        let start = world.now;
        world.append(0, 100);
        world.settle(ms(200));
        waited.push(world.now.since(start));
    }
    assert!(waited[3..].iter().all(|wait| *wait <= ms(2)), "{waited:?}");
    // Two at a time are worth gathering again.
    world.append(0, 100);
    world.append(0, 100);
    world.settle(ms(200));
    let start = world.now;
    world.append(0, 100);
    world.run_for(ms(20));
    assert!(world.unsettled() > 0);
    world.settle(ms(200));
    assert!(world.now.since(start) >= ms(40));
    world.check(true);
}

/// One request, exactly the linger after the first record, with all there was.
#[test]
fn b1_fixed_linger_is_kept_to_the_nanosecond() {
    let mut world = World::warm(linger(Linger::Fixed(ms(5))), 2);
    let start = world.now;
    world.append(0, 100);
    world.run_for(ms(2));
    world.append(1, 100);
    world.append(0, 100);
    world.settle(ms(50));
    assert_eq!(
        sent_at(&world),
        [start + ms(5)],
        "all that is there goes along"
    );
    assert_eq!(batches_of(&world.requests[0]).len(), 2);
    world.check(true);
}

/// The request leaves at the instant the batch is full.
#[test]
fn b1_a_full_batch_ends_the_linger() {
    for kind in [Linger::Fixed(ms(50)), Linger::Auto { gap: ms(50) }] {
        let mut setup = linger(kind);
        setup.batch_bytes = 1_000;
        let mut world = World::warm(setup, 1);
        let first = world.now;
        world.append(0, 100);
        world.run_for(us(100));
        let start = world.now;
        for _ in 0..10 {
            world.append(0, 100);
        }
        world.run_for(us(10));
        assert_eq!(
            sent_at(&world).last(),
            Some(&start),
            "{kind:?} from {first:?}"
        );
        world.settle(ms(200));
        world.check(true);
    }
}

/// The request leaves at the instant of the flush.
#[test]
fn b1_a_flush_ends_the_linger() {
    for kind in [Linger::Fixed(ms(50)), Linger::Auto { gap: ms(50) }] {
        let mut world = World::warm(linger(kind), 2);
        world.append(0, 100);
        world.settle(ms(60));
        world.requests.clear();
        world.append(0, 100);
        world.append(1, 100);
        world.run_for(ms(1));
        assert!(world.requests.is_empty(), "it gathers");
        let start = world.now;
        world.lanes.flush(LaneId(1));
        world.run_for(us(1));
        assert_eq!(sent_at(&world), [start]);
        world.settle(ms(60));
        world.check(true);
    }
}

/// 200 pieces of news of little send nothing; 64 KiB send at that instant.
#[test]
fn b1_enough_for_a_request_ends_the_gap_and_repeated_news_of_little_does_not() {
    let mut setup = linger(Linger::Auto { gap: ms(50) });
    setup.batch_bytes = 1 << 20;
    let mut world = World::warm(setup, 1);
    let first = world.now;
    world.append(0, 100);
    world.append(0, 100);
    world.run_for(us(100));
    // 20 KB in all, told of 200 times: far from 64 KiB.
    for _ in 0..200 {
        world.append(0, 80);
        world.run_for(us(10));
    }
    assert_eq!(sent_at(&world), [first]);
    let now = world.now;
    world.append(0, 64 << 10);
    world.run_for(us(1));
    assert_eq!(sent_at(&world), [first, now]);
    world.settle(ms(60));
    world.check(true);
}

/// Every record is sent, though it came while nothing more was allowed in flight.
#[test]
fn b1_a_record_that_came_while_the_window_was_full_lingers_no_longer_than_told() {
    // The lane is not listed while its window is full; what came meanwhile must not be forgotten.
    for kind in [
        Linger::Fixed(ms(5)),
        Linger::Auto {
            gap: Duration::ZERO,
        },
    ] {
        let mut setup = linger(kind).network(|n| n.latency = ms(20));
        setup.batch_bytes = 200;
        let mut world = World::warm(setup, 1);
        for _ in 0..8 {
            world.append(0, 150);
            world.run_for(ms(1));
        }
        world.settle(ms(200));
        assert_eq!(world.requests.len(), 8);
        world.check(true);
    }
}

/// Both lanes' records leave within 2 ms of their linger, however often the lock was taken.
#[test]
fn b1_a_taken_lock_delays_nothing_but_its_lane_and_forgets_nothing() {
    for busy in 1..20 {
        let mut world = World::warm(linger(Linger::Fixed(ms(5))), 2);
        let start = world.now;
        world.append(0, 100);
        world.lanes.busy = busy;
        world.run_for(us(20));
        world.append(1, 100);
        world.settle(ms(50));
        let last = *sent_at(&world).last().expect("sent");
        assert!(last <= start + ms(7), "{busy}");
        world.check(true);
    }
}

/// A record whose news came before its lane is acked.
#[test]
fn b1_a_record_appended_before_the_dispatcher_knew_its_lane_is_not_forgotten() {
    let mut world = World::warm(Setup::new(1), 1);
    let id = world.lanes.add(1, &"t".into(), 0);
    world.append(id.0, 100);
    world.run_for(ms(1));
    assert!(world.lanes.ready.is_empty(), "the news is gone");
    let (now, cluster) = (world.now, world.cluster.clone());
    world.dispatcher.add_lane(id, &"t".into(), PartitionId(0));
    world.dispatcher.metadata(now, &cluster);
    world.settle(ms(100));
    assert!(world.all_acked());
}

/// All three batches leave in one request once there is memory for its head.
#[test]
fn b1_without_a_slab_everything_goes_back_and_is_sent_as_soon_as_there_is_one() {
    for missing in 1..5 {
        let mut world = World::warm(linger(Linger::Auto { gap: ms(20) }), 3);
        let start = world.now;
        world.lanes.no_slab = missing;
        for lane in 0..3 {
            world.append(lane, 2_000);
        }
        world.settle(ms(50));
        assert_eq!(world.requests.len(), 1);
        let at = sent_at(&world)[0];
        assert!(at > start && at <= start + us(50) * missing);
        assert_eq!(batches_of(&world.requests[0]).len(), 3);
        world.check(true);
    }
}

/// Three batches of one record each in the log, the middle one larger than a batch.
#[test]
fn b2_a_record_larger_than_a_batch_gets_one_of_its_own() {
    let mut setup = Setup::new(1);
    setup.batch_bytes = 1_000;
    let mut world = World::warm(setup, 1);
    world.append(0, 100);
    world.append(0, 9_000);
    world.append(0, 100);
    world.settle(ms(50));
    let batches: Vec<_> = world.log("t", 0).split_off(1);
    let sizes: Vec<_> = batches.iter().map(|batch| batch.records.len()).collect();
    assert_eq!(sizes, [1, 1, 1]);
    assert!(batches[1].bytes.len() > 9_000);
    world.check(true);
}

/// All attempts of a sequence number have the same bytes.
#[test]
fn b5_a_batch_tried_again_is_the_same_to_the_byte() {
    let setup = Setup::new(1).settings(|s| {
        s.linger = Linger::Auto {
            gap: Duration::ZERO,
        }
    });
    let mut world = World::warm(setup, 1);
    for code in [ErrorCode::NOT_ENOUGH_REPLICAS, ErrorCode::CORRUPT_MESSAGE] {
        let faults = world.broker.faults();
        faults.next_batch("t", 0, PartitionFault::ErrorBefore(code));
    }
    for len in [100, 3_000, 200, 50_000, 10] {
        world.append(0, len);
        world.run_for(us(10));
    }
    world.settle(ms(5_000));
    let mut attempts = std::collections::BTreeMap::<i32, Vec<Vec<u8>>>::new();
    for request in &world.requests {
        for batch in batches_of(request) {
            let sequence = batch.header.base_sequence;
            attempts.entry(sequence).or_default().push(batch.bytes);
        }
    }
    assert_eq!(attempts.len(), 5);
    for same in attempts.values() {
        assert!(same.len() >= 2 && same.windows(2).all(|pair| pair[0] == pair[1]));
    }
    world.check(true);
}

/// 999 cold partitions are acked within 30 ms beside a hot one.
#[test]
fn b6_cold_partitions_go_along_beside_a_hot_one() {
    let mut setup = linger(Linger::Fixed(ms(5)));
    setup.batch_bytes = 1_000;
    let mut world = World::warm(setup, 1_000);
    let start = world.now;
    for lane in 1..1_000 {
        world.append(lane, 30);
    }
    let mut cold = 1.0;
    while cold > 0.0 {
        for _ in 0..20 {
            world.append(0, 100);
        }
        world.run_for(us(500));
        assert!(world.now < start + ms(30), "{cold} are cold still");
        let settled = (1..1_000).filter(|lane| world.outcomes.contains_key(&(*lane, 1)));
        cold = 999.0 - settled.count() as f64;
    }
    world.settle(ms(1_000));
    world.check(true);
}

/// No request of any run is larger than its bound, and all records are acked.
#[test]
fn w6_a_request_of_several_batches_never_exceeds_its_bound() {
    for bound in [1_000, 1_500, 5_000, 20_000] {
        let mut setup = Setup::new(1).settings(|s| s.request_bytes_max = bound);
        setup.batch_bytes = 700;
        let mut world = World::warm(setup, 7);
        for round in 0..20 {
            for lane in 0..7 {
                world.append(lane, 20 + (round * 37 + lane as usize * 101) % 500);
            }
            world.run_for(us(300));
        }
        world.settle(ms(2_000));
        let largest = world.requests.iter().map(|r| r.bytes.len()).max();
        assert!(largest <= Some(bound), "{largest:?} of {bound}");
        world.check(true);
    }
}
