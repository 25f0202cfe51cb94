//! Sequences, epochs, and batches that may be stored.

use std::time::Duration;

use ringpost_broker::{ApiKey, ErrorCode, PartitionFault, RequestFault};
use ringpost_core::id::{LaneId, ProducerIdentity, Sequence};
use ringpost_core::outcome::{Verdict, Why};
use ringpost_core::retry::Jitter;
use ringpost_core::settings::Linger;

use ringpost_simulator::found::batches_of;
use ringpost_simulator::setup::{Setup, ms, us};
use ringpost_simulator::world::World;

fn impatient(nodes: i32) -> Setup {
    Setup::new(nodes).settings(|s| {
        s.linger = Linger::Auto {
            gap: Duration::ZERO,
        };
    })
}

fn append_each_alone(world: &mut World, lane: u32, count: usize) {
    for _ in 0..count {
        world.append(lane, 100);
        world.run_for(us(10));
    }
}

fn why(world: &World, lane: u32, number: u64) -> (&'static str, Why) {
    match &world.outcome(lane, number).verdict {
        Verdict::Unknown(failure) => ("unknown", failure.why),
        Verdict::NotWritten(failure) => ("not written", failure.why),
        other => panic!("{other:?}"),
    }
}

/// With 1 to 5 answers lost: five requests in flight and never six, all acked, each in the log
/// once, no new epoch.
#[test]
fn i1_lost_answers_after_the_append_leave_each_batch_there_once_and_no_sixth_in_flight() {
    for lost in 1..=5 {
        let mut world = World::warm(impatient(1), 1);
        for _ in 0..lost {
            let faults = world.broker.faults();
            faults.next_request(ApiKey::Produce, Some(RequestFault::Silence));
        }
        append_each_alone(&mut world, 0, 9);
        assert_eq!(world.requests.len(), 5, "never a sixth in flight");
        let conn = world.requests[0].conn;
        world.run_for(ms(5));
        world.reset(conn);
        world.settle(ms(20_000));
        assert!(world.all_acked());
        assert_eq!(world.dispatcher.counters().epoch_bumps, 0);
        world.check(true);
    }
}

/// One new epoch, whose first batch has sequence 0, and all records acked.
#[test]
fn i2_out_of_order_at_the_head_of_the_line_starts_a_new_epoch_and_loses_nothing() {
    let mut world = World::warm(impatient(1), 1);
    let code = ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
    let faults = world.broker.faults();
    faults.next_batch("t", 0, PartitionFault::ErrorBefore(code));
    append_each_alone(&mut world, 0, 5);
    world.settle(ms(20_000));
    assert!(world.all_acked());
    assert_eq!(world.dispatcher.counters().epoch_bumps, 1);
    let log = world.log("t", 0);
    let stamp = |n: usize| (log[n].header.producer_epoch, log[n].header.base_sequence);
    assert_eq!((stamp(0), stamp(1)), ((0, 0), (1, 0)));
    world.check(true);
}

/// The four behind the failed one are refused, sent again in order and acked; no new epoch.
#[test]
fn i3_out_of_order_behind_a_failed_predecessor_is_tried_again_in_order_without_a_new_epoch() {
    let mut world = World::warm(impatient(1), 1);
    let code = ErrorCode::NOT_ENOUGH_REPLICAS;
    let faults = world.broker.faults();
    faults.next_batch("t", 0, PartitionFault::ErrorBefore(code));
    append_each_alone(&mut world, 0, 5);
    world.settle(ms(20_000));
    assert!(world.all_acked());
    assert_eq!(world.broker.report().out_of_sequence, 4);
    assert_eq!(world.dispatcher.counters().epoch_bumps, 0);
    world.check(true);
}

/// With 0 to 5 of five stored before the reset: all acked, in order, once, no new epoch.
#[test]
fn i4_a_reset_with_some_of_five_stored_goes_on_without_a_new_epoch() {
    for stored in 0..=5 {
        let mut world = World::warm(impatient(1), 1);
        for n in 0..5 {
            let fault = if n < stored {
                RequestFault::Silence
            } else {
                RequestFault::Ignore
            };
            world
                .broker
                .faults()
                .next_request(ApiKey::Produce, Some(fault));
        }
        append_each_alone(&mut world, 0, 5);
        world.run_for(ms(5));
        world.reset(world.requests[0].conn);
        append_each_alone(&mut world, 0, 5);
        world.settle(ms(20_000));
        assert!(world.all_acked());
        assert_eq!(world.dispatcher.counters().epoch_bumps, 0);
        world.check(true);
    }
}

/// Seven attempts though two are allowed, then acked, in the log once.
#[test]
fn i5_stored_perhaps_is_tried_past_the_limit_and_later_success_acks_it() {
    for code in [
        ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ErrorCode::REQUEST_TIMED_OUT,
    ] {
        let setup = impatient(1).settings(|s| s.retry.attempts_max = Some(2));
        let mut world = World::warm(setup, 1);
        for _ in 0..6 {
            let faults = world.broker.faults();
            faults.next_batch("t", 0, PartitionFault::ErrorAfter(code));
        }
        world.append(0, 100);
        world.settle(ms(20_000));
        assert!(world.all_acked());
        assert_eq!(world.requests.len(), 7);
        world.check(true);
    }
}

/// The refused record is reported, all others are acked; one new epoch, and the other partition
/// keeps its own.
#[test]
fn i6_a_gap_in_the_sequence_is_only_where_a_failure_was_reported() {
    // The first of five is refused for good: the others come back, are given new numbers, and follow.
    let mut world = World::warm(impatient(1), 2);
    let fault = PartitionFault::ErrorBefore(ErrorCode::MESSAGE_TOO_LARGE);
    world.broker.faults().next_batch("t", 0, fault);
    append_each_alone(&mut world, 0, 8);
    append_each_alone(&mut world, 1, 3);
    world.settle(ms(20_000));
    assert_eq!(why(&world, 0, 1), ("not written", Why::Rejected));
    assert!((2..9).all(|n| world.is_acked(0, n)));
    assert_eq!(world.dispatcher.counters().epoch_bumps, 1);
    let epochs = world
        .log("t", 1)
        .into_iter()
        .map(|b| b.header.producer_epoch);
    assert!(
        epochs.eq(world.log("t", 1).iter().map(|_| 0)),
        "the other is not touched"
    );
    world.check(true);
}

/// The expired record is "not written", all behind it are acked in order.
#[test]
fn i6_a_waiting_batch_that_expires_leaves_its_followers_whole() {
    let setup = impatient(1).settings(|s| {
        s.delivery_timeout = ms(300);
        s.retry.backoff.initial = ms(400);
    });
    let mut world = World::warm(setup, 1);
    let code = ErrorCode::NOT_ENOUGH_REPLICAS;
    let faults = world.broker.faults();
    faults.next_batch("t", 0, PartitionFault::ErrorBefore(code));
    world.append(0, 100);
    world.run_for(ms(250));
    // Later records have more time.
    append_each_alone(&mut world, 0, 3);
    world.run_for(ms(100));
    append_each_alone(&mut world, 0, 3);
    world.settle(ms(20_000));
    assert_eq!(why(&world, 0, 1), ("not written", Why::Expired));
    assert!((2..8).all(|n| world.is_acked(0, n)), "{:?}", world.outcomes);
    world.check(true);
}

/// Unknown exactly at its deadline, its connection gone, the next two acked.
#[test]
fn i7_a_batch_that_expires_in_flight_is_unknown_and_its_connection_is_closed() {
    let setup = impatient(1).settings(|s| s.delivery_timeout = ms(300));
    let mut world = World::warm(setup, 1);
    let faults = world.broker.faults();
    faults.next_request(ApiKey::Produce, Some(RequestFault::Delay(2_000)));
    let start = world.now;
    world.append(0, 100);
    world.run_for(ms(250));
    let conn = world.requests[0].conn;
    append_each_alone(&mut world, 0, 2);
    world.settle(ms(20_000));
    assert_eq!(why(&world, 0, 1), ("unknown", Why::Expired));
    assert_eq!(world.outcome(0, 1).at, start + ms(300));
    assert!(!world.open_connections().contains(&conn));
    assert!(
        world.is_acked(0, 2) && world.is_acked(0, 3),
        "settled before its numbers are used"
    );
    world.check(true);
}

/// Every attempt of the healthy partition's batches bears the old epoch; the broken one goes on
/// under the new.
#[test]
fn i8_a_new_epoch_because_of_one_partition_leaves_another_its_old_one_until_it_drained() {
    let mut world = World::warm(impatient(1), 2);
    // Partition 1 may be stored; partition 0 breaks meanwhile.
    let faults = world.broker.faults();
    for _ in 0..3 {
        faults.next_batch(
            "t",
            1,
            PartitionFault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT),
        );
    }
    faults.next_batch(
        "t",
        0,
        PartitionFault::ErrorBefore(ErrorCode::INVALID_RECORD),
    );
    world.append(1, 100);
    world.run_for(us(10));
    append_each_alone(&mut world, 0, 3);
    world.settle(ms(20_000));
    assert_eq!(world.dispatcher.counters().epoch_bumps, 1);
    let epochs = |partition| {
        let log = world.log("t", partition).into_iter();
        log.map(|b| b.header.producer_epoch).collect::<Vec<_>>()
    };
    assert_eq!(epochs(1), [0, 0]);
    assert_eq!(epochs(0), [0, 1, 1]);
    let of_one = world
        .requests
        .iter()
        .flat_map(batches_of)
        .filter(|b| b.partition == 1);
    assert!(of_one.map(|b| b.header.producer_epoch).eq([0; 4]));
    world.check(true);
}

/// The batch that may be stored is settled before the partition goes on, and well before its
/// deadline.
#[test]
fn i8_a_partition_that_breaks_with_a_batch_perhaps_stored_settles_that_first() {
    // Batch 1 is refused for good, the answer for batch 2 is lost, so is the connection.
    for two in [PartitionFault::OmitBefore, PartitionFault::OmitAfter] {
        let mut world = World::warm(impatient(1), 1);
        let faults = world.broker.faults();
        faults.next_batch(
            "t",
            0,
            PartitionFault::ErrorBefore(ErrorCode::INVALID_RECORD),
        );
        faults.next_batch("t", 0, two);
        let start = world.now;
        append_each_alone(&mut world, 0, 4);
        world.settle(ms(20_000));
        assert!(world.now < start + ms(5_000), "not only at the deadline");
        assert_eq!(why(&world, 0, 1), ("not written", Why::Rejected));
        assert!(world.is_acked(0, 3) && world.is_acked(0, 4));
        world.check(true);
    }
}

/// All acked under one new epoch.
#[test]
fn i9_a_broker_that_forgot_the_producer_is_met_with_a_new_epoch() {
    for code in [
        ErrorCode::UNKNOWN_PRODUCER_ID,
        ErrorCode::INVALID_PRODUCER_EPOCH,
    ] {
        let mut world = World::warm(impatient(1), 1);
        let faults = world.broker.faults();
        faults.next_batch("t", 0, PartitionFault::ErrorBefore(code));
        append_each_alone(&mut world, 0, 3);
        world.settle(ms(20_000));
        assert!(world.all_acked());
        assert_eq!(world.dispatcher.counters().epoch_bumps, 1);
        world.check(true);
    }
}

/// The batch that may be stored is Unknown, the next one is acked.
#[test]
fn i9_what_may_be_stored_under_forgotten_numbers_is_unknown() {
    let mut world = World::warm(impatient(1), 1);
    let faults = world.broker.faults();
    faults.next_batch(
        "t",
        0,
        PartitionFault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT),
    );
    faults.next_batch(
        "t",
        0,
        PartitionFault::ErrorBefore(ErrorCode::UNKNOWN_PRODUCER_ID),
    );
    world.append(0, 100);
    world.run_for(ms(500));
    world.append(0, 100);
    world.settle(ms(20_000));
    assert_eq!(why(&world, 0, 1), ("unknown", Why::SequenceBroken));
    assert!(world.is_acked(0, 2));
    world.check(true);
}

/// Loading, timed out, not available, three times each: asked again, and the record is acked.
#[test]
fn i11_a_producer_id_that_is_not_given_yet_is_asked_for_again() {
    for code in [
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode::REQUEST_TIMED_OUT,
        ErrorCode::COORDINATOR_NOT_AVAILABLE,
    ] {
        let mut world = World::with_topic(impatient(1), "t", 1);
        for _ in 0..3 {
            let fault = Some(RequestFault::Error(code));
            world
                .broker
                .faults()
                .next_request(ApiKey::InitProducerId, fault);
        }
        world.append(0, 100);
        world.settle(ms(5_000));
        assert!(world.all_acked());
        world.check(true);
    }
}

/// What waits is "not written" within 50 ms; a later record asks again and is acked.
#[test]
fn i11_a_producer_id_refused_for_good_ends_what_waits_and_later_records_ask_again() {
    let mut world = World::with_topic(impatient(1), "t", 2);
    let code = ErrorCode::CLUSTER_AUTHORIZATION_FAILED;
    let fault = Some(RequestFault::Error(code));
    world
        .broker
        .faults()
        .next_request(ApiKey::InitProducerId, fault);
    let start = world.now;
    world.append(0, 100);
    world.append(1, 100);
    world.settle(ms(5_000));
    assert!(world.now < start + ms(50), "no timeout");
    assert_eq!(why(&world, 0, 0), ("not written", Why::Rejected));
    assert_eq!(why(&world, 1, 0), ("not written", Why::Rejected));
    world.append(0, 100);
    world.settle(ms(5_000));
    assert!(world.is_acked(0, 1));
    world.check(true);
}

/// In no step is anything of a lane in flight at two brokers; all acked in order.
#[test]
fn i12_a_leader_that_moves_there_and_back_gets_nothing_before_the_other_answered() {
    // That nothing of a lane flies on two connections is an invariant, looked at in every step.
    for answers in [
        RequestFault::Silence,
        RequestFault::Ignore,
        RequestFault::Delay(50),
    ] {
        let setup = impatient(2).settings(|s| s.request_timeout = ms(400));
        let mut world = World::warm(setup, 1);
        for node in [2, 1, 2] {
            let faults = world.broker.faults();
            faults.next_request(ApiKey::Produce, Some(answers));
            append_each_alone(&mut world, 0, 3);
            world.broker.move_leader("t", 0, node);
            append_each_alone(&mut world, 0, 3);
            world.directory.refresh();
            world.run_for(ms(150));
        }
        world.settle(ms(20_000));
        assert!(world.all_acked());
        let nodes = |node| world.requests.iter().filter(|r| r.node == node).count();
        assert!(nodes(1) > 0 && nodes(2) > 0);
        world.check(true);
    }
}

/// All acked, under a fresh producer id once the epochs of the last are used up.
#[test]
fn i2_epochs_used_up_lead_to_another_producer_id() {
    // Kafka's epochs are 16 bits; each failure here takes one.
    let mut world = World::warm(impatient(1), 1);
    let now = world.now;
    world
        .dispatcher
        .identity(ringpost_core::id::ProducerIdentity {
            id: 77,
            epoch: i16::MAX - 1,
        });
    world.run_for((now + ms(1)).since(now));
    let code = ErrorCode::UNKNOWN_PRODUCER_ID;
    for _ in 0..3 {
        let faults = world.broker.faults();
        faults.next_batch("t", 0, PartitionFault::ErrorBefore(code));
        world.append(0, 100);
        world.settle(ms(5_000));
    }
    assert!(world.all_acked());
    let log = world.log("t", 0);
    let ids: std::collections::BTreeSet<_> = log.iter().map(|b| b.header.producer_id).collect();
    assert!(ids.len() >= 3, "{ids:?}");
    world.check(true);
}

/// A batch that waits to be tried again expires while two behind it are in flight: it alone is reported,
/// on time; the two come back, and follow under a new epoch.
#[test]
fn i6_a_batch_that_expires_while_others_fly_behind_it_is_the_only_gap() {
    let setup = impatient(1).settings(|s| {
        s.delivery_timeout = ms(300);
        s.retry.backoff.initial = ms(240);
        s.retry.backoff.jitter = Jitter::None;
    });
    let mut world = World::warm(setup, 1);
    let faults = world.broker.faults();
    for _ in 0..2 {
        let code = ErrorCode::NOT_ENOUGH_REPLICAS;
        faults.next_batch("t", 0, PartitionFault::ErrorBefore(code));
        faults.next_request(ApiKey::Produce, None);
    }
    faults.next_request(ApiKey::Produce, Some(RequestFault::Delay(100)));
    let start = world.now;
    world.append(0, 100);
    world.run_for(us(241_100));
    append_each_alone(&mut world, 0, 2);
    assert_eq!(world.requests.len(), 4, "two fly behind the second attempt");
    world.settle(ms(20_000));
    assert_eq!(why(&world, 0, 1), ("not written", Why::Expired));
    assert_eq!(world.outcome(0, 1).at, start + ms(300));
    assert!(world.is_acked(0, 2) && world.is_acked(0, 3));
    assert_eq!(world.dispatcher.counters().epoch_bumps, 1);
    world.check(true);
}

/// After idling for longer than the broker remembers producers the next batch goes alone; so one that is
/// refused is not overtaken by the next, which the broker would have taken for a beginning.
#[test]
fn i9_after_idling_past_the_producer_id_expiry_the_order_is_kept() {
    let setup = impatient(1).broker(|b| {
        b.producer_expiry_ms = 60_000;
        b.producer_expiry_check_ms = 10_000;
    });
    let mut world = World::warm(setup, 1);
    world.run_for(ms(120_000));
    let code = ErrorCode::NOT_ENOUGH_REPLICAS;
    let faults = world.broker.faults();
    faults.next_batch("t", 0, PartitionFault::ErrorBefore(code));
    append_each_alone(&mut world, 0, 5);
    world.settle(ms(20_000));
    assert!(world.all_acked());
    world.check(true);
}

/// Told that the producer is unknown, with our records deleted from the log or not: what was certainly
/// not stored is stored under a new epoch, what may have been is unknown; nothing is there twice.
#[test]
fn i9_an_unknown_producer_with_and_without_the_log_start_moved() {
    for moved in [false, true] {
        for maybe in [false, true] {
            let mut world = World::warm(impatient(1), 1);
            append_each_alone(&mut world, 0, 3);
            world.settle(ms(1_000));
            if moved {
                world.broker.delete_records("t", 0, 4);
            }
            let faults = world.broker.faults();
            if maybe {
                let code = ErrorCode::REQUEST_TIMED_OUT;
                faults.next_batch("t", 0, PartitionFault::ErrorAfter(code));
            }
            let code = ErrorCode::UNKNOWN_PRODUCER_ID;
            faults.next_batch("t", 0, PartitionFault::ErrorBefore(code));
            world.append(0, 100);
            world.run_for(ms(500));
            append_each_alone(&mut world, 0, 3);
            world.settle(ms(20_000));
            if maybe {
                assert_eq!(why(&world, 0, 4), ("unknown", Why::SequenceBroken));
            } else {
                assert!(world.is_acked(0, 4));
            }
            assert!((5..8).all(|n| world.is_acked(0, n)));
            assert_eq!(world.dispatcher.counters().epoch_bumps, 1);
            if !moved {
                world.check(true);
            }
            world.check_logs();
        }
    }
}

/// Epochs used up by one partition: another that may have stored a batch settles it under the old
/// producer id, and goes on under that.
#[test]
fn i8_a_new_producer_id_because_of_one_partition_leaves_another_its_old_one() {
    let mut world = World::with_topic(impatient(1), "t", 2);
    world.dispatcher.identity(ProducerIdentity {
        id: 77,
        epoch: i16::MAX - 1,
    });
    for lane in 0..2 {
        world.append(lane, 100);
    }
    world.settle(ms(1_000));
    let faults = world.broker.faults();
    for _ in 0..3 {
        let code = ErrorCode::REQUEST_TIMED_OUT;
        faults.next_batch("t", 1, PartitionFault::ErrorAfter(code));
    }
    let code = ErrorCode::INVALID_RECORD;
    faults.next_batch("t", 0, PartitionFault::ErrorBefore(code));
    world.append(1, 100);
    world.run_for(us(10));
    append_each_alone(&mut world, 0, 3);
    world.settle(ms(20_000));
    append_each_alone(&mut world, 1, 2);
    world.settle(ms(20_000));
    let ids = |partition| {
        let log = world.log("t", partition).into_iter();
        log.map(|b| b.header.producer_id).collect::<Vec<_>>()
    };
    assert_eq!(ids(1), [77; 4]);
    let of_broken = ids(0);
    assert_eq!(of_broken[0], 77);
    assert!(of_broken[1..].iter().all(|id| *id != 77), "{of_broken:?}");
    world.check(true);
}

/// A batch that may be stored is tried past the limit whatever the later answers are, and acked in the
/// end; one whose only fault is the batch before it is not counted.
#[test]
fn i5_a5_the_limit_of_attempts_does_not_end_what_may_be_stored_or_only_waits_for_others() {
    let setup = impatient(1).settings(|s| s.retry.attempts_max = Some(1));
    let mut world = World::warm(setup, 1);
    let faults = world.broker.faults();
    faults.next_batch("t", 0, PartitionFault::OmitBefore);
    for _ in 0..3 {
        let code = ErrorCode::NOT_ENOUGH_REPLICAS;
        faults.next_batch("t", 0, PartitionFault::ErrorBefore(code));
    }
    world.append(0, 100);
    world.settle(ms(20_000));
    assert!(world.is_acked(0, 1));
    assert_eq!(world.requests.len(), 5);

    let code = ErrorCode::NOT_ENOUGH_REPLICAS;
    let faults = world.broker.faults();
    faults.next_batch("t", 0, PartitionFault::ErrorBefore(code));
    append_each_alone(&mut world, 0, 5);
    world.settle(ms(20_000));
    assert_eq!(why(&world, 0, 2), ("not written", Why::RetriesExhausted));
    assert!((3..7).all(|n| world.is_acked(0, n)));
    world.check(true);
}

/// Records whose numbers pass 2^31-1 within a batch, at its end, and before it: all are accepted, the
/// batches behind follow from 0 on with five in flight, the broker refuses none as out of order, and
/// recognises the one with the passage when its answer is lost.
#[test]
fn w11_the_broker_accepts_sequences_that_pass_the_highest() {
    const HIGHEST: i32 = i32::MAX;
    for (first, lost) in [
        (HIGHEST - 2, false),
        (HIGHEST - 2, true),
        (HIGHEST - 4, false),
        (HIGHEST - 4, true),
        (HIGHEST, false),
        (HIGHEST, true),
    ] {
        let mut world = World::with_topic(impatient(1), "t", 1);
        world.dispatcher.begin_at(LaneId(0), Sequence(first - 1));
        // The first batch goes alone, and proves the identity.
        world.append(0, 100);
        world.settle(ms(1_000));
        if lost {
            let faults = world.broker.faults();
            faults.next_request(ApiKey::Produce, Some(RequestFault::CloseAfter));
        }
        for _ in 0..5 {
            world.append(0, 100);
        }
        world.run_for(us(10));
        append_each_alone(&mut world, 0, 4);
        world.settle(ms(5_000));
        assert!(world.all_acked());
        let log = world.log("t", 0);
        let sequences = log.iter().map(|batch| batch.header.base_sequence);
        let behind = |n: i32| i32::try_from((i64::from(first) + i64::from(n)) % (1 << 31));
        let mut expected = vec![first - 1, first];
        expected.extend((5..9).map(|n| behind(n).expect("below 2^31")));
        assert_eq!(sequences.collect::<Vec<_>>(), expected);
        assert_eq!(log[1].records.len(), 5);
        let report = world.broker.report();
        assert_eq!(report.out_of_sequence, 0);
        assert_eq!(report.retries_recognised > 0, lost);
        assert_eq!(world.dispatcher.counters().epoch_bumps, 0);
        world.check(true);
    }
}
