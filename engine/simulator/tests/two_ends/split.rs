//! Batches that a broker finds too large.

use std::time::Duration;

use ringpost_broker::{ApiKey, ErrorCode, PartitionFault, RequestFault};
use ringpost_core::dispatch::Purge;
use ringpost_core::outcome::{Cause, Failure, Verdict, Why};
use ringpost_core::retry::Budget;
use ringpost_core::settings::{Acks, Linger};

use ringpost_simulator::found::batches_of;
use ringpost_simulator::setup::{Setup, ms, us};
use ringpost_simulator::world::World;

/// A broker that takes batches of at most so many bytes.
fn narrow(message_bytes_max: usize) -> Setup {
    Setup::new(1)
        .settings(|s| {
            s.linger = Linger::Auto {
                gap: Duration::ZERO,
            };
        })
        .broker(|b| b.message_bytes_max = message_bytes_max)
}

/// So many records of so many bytes in one batch.
fn append_together(world: &mut World, count: usize, len: usize) {
    for _ in 0..count {
        world.append(0, len);
    }
    world.run_for(us(10));
}

fn not_written(world: &World, number: u64) -> Failure {
    match &world.outcome(0, number).verdict {
        Verdict::NotWritten(failure) => failure.clone(),
        other => panic!("{other:?}"),
    }
}

fn is_too_large(cause: Option<&Cause>) -> bool {
    matches!(
        cause,
        Some(Cause::Broker {
            code: ErrorCode::MESSAGE_TOO_LARGE,
            ..
        })
    )
}

/// Halves, and halves of halves, until they fit: every record acked once at its own offset, in order,
/// and what was in flight behind the batch goes on under the numbers it had.
#[test]
fn b3_a_batch_that_is_too_large_is_divided_until_it_fits_and_keeps_its_numbers() {
    let mut world = World::warm(narrow(1_700), 1);
    append_together(&mut world, 50, 200);
    for _ in 0..4 {
        append_together(&mut world, 3, 100);
    }
    let firsts = world.requests.iter().flat_map(batches_of);
    let stamps: Vec<_> = firsts.map(|b| b.header.base_sequence).collect();
    assert_eq!(stamps, [1, 51, 54, 57, 60], "all in flight");
    world.settle(ms(20_000));
    assert!(world.all_acked());
    assert_eq!(world.dispatcher.counters().epoch_bumps, 0);
    assert_eq!(world.dispatcher.counters().splits, 7, "1, 2, 4");
    let log = world.log("t", 0);
    assert!(log.iter().all(|batch| batch.bytes.len() <= 1_700));
    let sequences = log.iter().map(|batch| batch.header.base_sequence);
    assert!(sequences.is_sorted());
    assert_eq!(log.last().expect("it is long").header.base_sequence, 60);
    world.check(true);
}

/// A topic takes batches of a tenth of what they are filled to: once the first ones were divided, none of
/// the next thousand batches is refused, in whichever partition; and those that follow are still worth their
/// heads, half as large as the topic takes at least.
#[test]
fn b3_a_topics_limit_is_remembered_so_that_no_further_batch_is_refused() {
    let mut setup = narrow(1_700);
    setup.batch_bytes = 16_000;
    let mut world = World::warm(setup, 3);
    append_together(&mut world, 100, 200);
    world.settle(ms(20_000));
    let learned = world.dispatcher.counters();
    assert!(learned.splits > 0, "{learned:?}");
    for _ in 0..150 {
        for lane in 0..3 {
            for _ in 0..15 {
                world.append(lane, 200);
            }
        }
        world.run_for(ms(10));
    }
    world.settle(ms(20_000));
    let counters = world.dispatcher.counters();
    let batches = counters.batches - learned.batches;
    assert!((1_000..3_000).contains(&batches), "{batches}");
    assert_eq!(counters.splits, learned.splits);
    assert_eq!(counters.retries, learned.retries, "nothing went twice");
    let log = world.log("t", 1);
    let full = log.iter().filter(|batch| batch.bytes.len() > 850).count();
    assert!(full * 2 > log.len(), "{full} of {}", log.len());
    world.check(true);
}

/// The topic is configured to take more: what is tried doubles every ten minutes, with not a record lost,
/// and batches are as large as before.
#[test]
fn b3_a_limit_that_is_gone_is_found_out_about() {
    let mut setup = narrow(1_700);
    setup.batch_bytes = 16_000;
    let mut world = World::warm(setup, 1);
    append_together(&mut world, 70, 200);
    world.settle(ms(20_000));
    world.broker.set_message_bytes_max(1 << 20);
    world.hang_up(1);
    let mut sizes = Vec::new();
    for _ in 0..5 {
        // The batch that notices is already cut.
        append_together(&mut world, 1, 200);
        world.settle(ms(20_000));
        append_together(&mut world, 70, 200);
        world.settle(ms(20_000));
        sizes.push(
            world
                .log("t", 0)
                .iter()
                .rev()
                .take(20)
                .map(|batch| batch.bytes.len())
                .max(),
        );
        world.run_for(ms(601_000));
    }
    assert!(sizes.is_sorted() && sizes[0] < Some(1_700), "{sizes:?}");
    assert!(sizes[4] > Some(12_000), "{sizes:?}");
    world.check(true);
}

/// The same with bodies that are compressed: each half is compressed anew.
#[test]
fn b3_a_compressed_batch_is_divided_too() {
    for compression in ["gzip", "snappy", "lz4", "zstd"] {
        let mut world = World::warm(narrow(400), 1);
        world.lanes.squeezer.compression = compression.parse().expect("a codec");
        append_together(&mut world, 250, 40);
        append_together(&mut world, 2, 40);
        let sent = batches_of(&world.requests[0]);
        assert!(sent[0].bytes.len() > 400, "{}", sent[0].bytes.len());
        world.settle(ms(20_000));
        assert!(world.all_acked());
        assert!(world.dispatcher.counters().splits > 0);
        let log = world.log("t", 0);
        let compressed = |batch: &&ringpost_simulator::found::FoundBatch| {
            batch.header.attributes == sent[0].header.attributes
        };
        assert!(log.iter().filter(compressed).count() > 1, "{compression}");
        world.check(true);
    }
}

/// A record that is too large alone ends after one attempt of its own; those around it are stored.
#[test]
fn b3_a_single_record_that_is_too_large_is_refused_for_good() {
    let mut world = World::warm(narrow(1_500), 1);
    append_together(&mut world, 1, 2_000);
    world.settle(ms(1_000));
    let failure = not_written(&world, 1);
    assert_eq!((failure.why, failure.attempts), (Why::Rejected, 1));
    assert!(is_too_large(failure.last.as_ref()));

    for place in 0..5 {
        let mut world = World::warm(narrow(1_500), 1);
        for n in 0..5 {
            world.append(0, if n == place { 2_000 } else { 200 });
        }
        world.settle(ms(1_000));
        for n in 0..5 {
            assert_eq!(world.is_acked(0, n + 1), n != place, "{place}");
        }
        world.append(0, 100);
        world.settle(ms(1_000));
        assert!(world.is_acked(0, 6));
        world.check(true);
    }
}

/// Also without sequences, and with a policy that allows a single attempt: what is refused is not
/// tried again as it was.
#[test]
fn b3_dividing_is_no_retry_and_needs_no_idempotence() {
    for (acks, idempotent) in [(Acks::Leader, false), (Acks::All, false), (Acks::All, true)] {
        let setup = narrow(1_500).settings(|s| {
            s.acks = acks;
            s.idempotent = idempotent;
            s.retry.attempts_max = Some(1);
        });
        let mut world = World::warm(setup, 1);
        append_together(&mut world, 30, 200);
        append_together(&mut world, 3, 200);
        world.settle(ms(5_000));
        assert!(world.all_acked(), "{acks:?}");
        world.check(true);
    }
}

/// A batch whose deadline passes before it could be sent again ends whole.
#[test]
fn b3_an_expired_batch_is_not_divided() {
    let setup = narrow(1_500).settings(|s| s.delivery_timeout = ms(300));
    let mut world = World::warm(setup, 1);
    let faults = world.broker.faults();
    faults.next_request(ApiKey::Produce, None);
    faults.next_request(ApiKey::Produce, Some(RequestFault::Delay(1_000)));
    append_together(&mut world, 20, 200);
    append_together(&mut world, 1, 200);
    world.settle(ms(5_000));
    let failure = not_written(&world, 1);
    assert_eq!((failure.why, failure.attempts), (Why::Expired, 1));
    assert!(is_too_large(failure.last.as_ref()));
    assert_eq!(world.dispatcher.counters().splits, 0);
    world.check(true);
}

/// When an earlier attempt may have been stored, the halves keep the numbers of the whole: acked when it
/// was not there, unknown and not there twice when it was. Without sequences it is not divided.
#[test]
fn b3_a_batch_that_may_be_stored_is_never_there_beside_its_halves() {
    let code = ErrorCode::MESSAGE_TOO_LARGE;
    let run = |first, idempotent| {
        let setup = narrow(1 << 20).settings(|s| s.idempotent = idempotent);
        let mut world = World::warm(setup, 1);
        let faults = world.broker.faults();
        faults.next_batch("t", 0, first);
        faults.next_batch("t", 0, PartitionFault::ErrorBefore(code));
        append_together(&mut world, 20, 200);
        world.run_for(ms(500));
        append_together(&mut world, 2, 200);
        world.settle(ms(5_000));
        assert!(world.is_acked(0, 21) && world.is_acked(0, 22));
        world.check(true);
        world
    };
    let absent = run(PartitionFault::OmitBefore, true);
    assert!(absent.all_acked());
    assert_eq!(absent.dispatcher.counters().splits, 1);
    assert_eq!(absent.dispatcher.counters().epoch_bumps, 0);

    let there = run(PartitionFault::OmitAfter, true);
    let plain = run(PartitionFault::OmitBefore, false);
    assert_eq!(plain.dispatcher.counters().splits, 0);
    for (world, why) in [(there, Why::SequenceBroken), (plain, Why::Rejected)] {
        for number in 1..=20 {
            match &world.outcome(0, number).verdict {
                Verdict::Unknown(failure) => assert_eq!(failure.why, why),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Without memory for the halves the batch waits and is divided later.
#[test]
fn b3_dividing_waits_for_memory() {
    let mut world = World::warm(narrow(1_500), 1);
    append_together(&mut world, 10, 200);
    world.lanes.no_slab = 3;
    world.settle(ms(5_000));
    assert!(world.all_acked() && world.lanes.no_slab == 0);
    world.check(true);
}

/// Errors on halves: each keeps its place and its numbers, as a whole batch would.
#[test]
fn b3_halves_that_fail_are_tried_again_in_order() {
    for fault in [
        PartitionFault::ErrorBefore(ErrorCode::NOT_ENOUGH_REPLICAS),
        PartitionFault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT),
        PartitionFault::OmitAfter,
    ] {
        for place in 1..5 {
            let mut world = World::warm(narrow(3_000), 1);
            for _ in 0..place {
                world.broker.faults().next_batch("t", 0, None);
            }
            world.broker.faults().next_batch("t", 0, fault);
            append_together(&mut world, 20, 200);
            append_together(&mut world, 2, 200);
            world.settle(ms(20_000));
            assert!(world.all_acked(), "{fault:?} at {place}");
            assert_eq!(world.dispatcher.counters().epoch_bumps, 0);
            world.check(true);
        }
    }
}

/// A purge ends each part as what is known of that part.
#[test]
fn b3_c4_a_purge_ends_each_half_for_itself() {
    let setup = narrow(3_000).settings(|s| s.in_flight_max = 1);
    let mut world = World::warm(setup, 1);
    append_together(&mut world, 20, 200);
    // Refused, divided, and the first half is on its way.
    world.run_for(us(1_100));
    assert_eq!(world.requests.len(), 2);
    let which = Purge::QueuedAndInFlight;
    let busy = world.dispatcher.purge(world.now, which, &mut world.lanes);
    assert_eq!(busy, 0);
    world.settle(ms(1));
    for number in 1..=20 {
        let verdict = &world.outcome(0, number).verdict;
        let in_flight = matches!(verdict, Verdict::Unknown(f) if f.why == Why::Purged);
        let waiting = matches!(verdict, Verdict::NotWritten(f) if f.why == Why::Purged);
        assert!(in_flight == (number <= 10) && waiting == (number > 10));
    }
    append_together(&mut world, 2, 200);
    world.settle(ms(5_000));
    assert!(world.is_acked(0, 21) && world.is_acked(0, 22));
    world.check(true);
}

/// Halves take nothing from the retry budget: hundreds of them do not wait.
#[test]
fn b3_dividing_does_not_use_up_the_retry_budget() {
    let setup = narrow(300).settings(|s| {
        s.retry.budget = Some(Budget {
            percent_of_successes: 0,
            per_second: 1,
            burst: 1,
        });
    });
    let mut world = World::warm(setup, 1);
    append_together(&mut world, 70, 100);
    world.settle(ms(1_000));
    assert!(world.all_acked());
    assert!(world.dispatcher.counters().splits >= 35);
    assert_eq!(world.dispatcher.counters().budget_waits, 0);
    world.check(true);
}
