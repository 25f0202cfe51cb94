//! Acks, offsets, and the order of things.

use std::time::Duration;

use ringpost_broker::{ApiKey, ErrorCode, PartitionFault, RequestFault};
use ringpost_core::dispatch::Purge;
use ringpost_core::outcome::{Verdict, Why};
use ringpost_core::settings::{Acks, Linger};

use ringpost_simulator::found::batches_of;
use ringpost_simulator::setup::{Setup, ms, us};
use ringpost_simulator::world::{Tamper, World};

fn impatient() -> Setup {
    Setup::new(1).settings(|s| {
        s.linger = Linger::Auto {
            gap: Duration::ZERO,
        };
    })
}

/// Five requests with one batch each leave at once.
fn five_in_flight(world: &mut World) {
    for _ in 0..5 {
        world.append(0, 100);
        world.run_for(us(10));
    }
    assert_eq!(world.requests.len(), 5);
}

/// acks=0 ends as Sent without an offset, 1 and all as Acked; the broker has every record.
#[test]
fn a1_what_each_acks_setting_promises() {
    for acks in [Acks::None, Acks::Leader, Acks::All] {
        let setup = Setup::new(1).settings(|s| {
            s.acks = acks;
            s.idempotent = acks == Acks::All;
        });
        let mut world = World::warm(setup, 2);
        for _ in 0..50 {
            world.append(0, 100);
            world.append(1, 5_000);
            world.run_for(us(200));
        }
        world.settle(ms(100));
        world.run_for(ms(100));
        let sent = world.count(|verdict| *verdict == Verdict::Sent);
        if acks == Acks::None {
            assert_eq!(sent, world.outcomes.len(), "no offset, never 0");
        } else {
            assert!(world.all_acked());
        }
        assert_eq!(world.broker.report().records, 102);
        assert!(world.broker.report().is_clean());
        world.check(acks == Acks::All);
    }
}

/// Completions in order, offsets from 0 on without a gap.
#[test]
fn a2_fifty_thousand_records_to_one_partition_are_completed_in_order() {
    let mut world = World::warm(Setup::new(1), 1);
    for round in 0..500 {
        for _ in 0..100 {
            world.append(0, 16 + round % 7);
        }
        world.run_for(us(100));
    }
    world.settle(ms(1_000));
    let mut last = (0, 0);
    for (number, outcome) in (0i64..).zip(world.outcomes.values()) {
        let Verdict::Acked {
            base_offset: Some(base),
            ..
        } = outcome.verdict
        else {
            panic!("{outcome:?}")
        };
        assert_eq!(base + i64::try_from(outcome.index).expect("few"), number);
        assert!((outcome.order, outcome.index) >= last);
        last = (outcome.order, outcome.index);
    }
    assert_eq!(world.outcomes.len(), 50_001);
    world.check(true);
}

/// All 1024 patterns: the log has 0 to 5 in order, once, without a new epoch.
#[test]
fn a3_five_in_flight_with_every_pattern_of_answers_keep_their_order() {
    for pattern in 0..4usize.pow(5) {
        let mut world = World::warm(impatient(), 1);
        for place in 0..5 {
            let kind = pattern / 4usize.pow(place) % 4;
            let faults = world.broker.faults();
            let batch = match kind {
                1 => Some(PartitionFault::ErrorBefore(ErrorCode::NOT_ENOUGH_REPLICAS)),
                2 => Some(PartitionFault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT)),
                _ => None,
            };
            faults.next_batch("t", 0, batch);
            let lost = (kind == 3).then_some(RequestFault::CloseAfter);
            faults.next_request(ApiKey::Produce, lost);
        }
        five_in_flight(&mut world);
        world.settle(ms(20_000));
        assert!(world.all_acked(), "pattern {pattern}");
        let log = world
            .log("t", 0)
            .into_iter()
            .flat_map(|batch| batch.records);
        assert!(log.map(|(_, number)| number).eq(0..6), "pattern {pattern}");
        assert_eq!(world.dispatcher.counters().epoch_bumps, 0);
        world.check(true);
    }
}

/// For every pattern of refused first batches: all acked, in order.
#[test]
fn a3_the_very_first_batches_of_a_partition_keep_their_order() {
    // A broker that knows nothing of a producer takes any batch for its first.
    for answers in 0..8 {
        let mut world = World::with_topic(impatient(), "t", 1);
        for place in 0..3 {
            let code = ErrorCode::NOT_ENOUGH_REPLICAS;
            let refused = (answers >> place & 1 == 1).then_some(PartitionFault::ErrorBefore(code));
            world.broker.faults().next_batch("t", 0, refused);
        }
        for _ in 0..5 {
            world.append(0, 100);
            world.run_for(us(10));
        }
        world.settle(ms(20_000));
        assert!(world.all_acked());
        world.check(true);
    }
}

/// No double and no swap in the log.
#[test]
fn a4_without_sequences_one_in_flight_keeps_the_order_under_retries() {
    let setup = impatient().settings(|s| {
        s.idempotent = false;
        s.acks = Acks::All;
    });
    let mut world = World::warm(setup, 1);
    for n in 0..30 {
        let code = ErrorCode::NOT_ENOUGH_REPLICAS;
        let fault = (n % 3 == 0).then_some(PartitionFault::ErrorBefore(code));
        world.broker.faults().next_batch("t", 0, fault);
    }
    for _ in 0..100 {
        world.append(0, 100);
        world.run_for(us(100));
    }
    world.settle(ms(20_000));
    assert!(world.all_acked());
    let report = world.broker.report();
    assert_eq!((report.duplicated, report.reordered), (0, 0));
    world.check_logs();
    world.check(false);
}

/// The recognised batch bears its first offset; DUPLICATE gives none, not 0.
#[test]
fn a5_the_offset_of_a_batch_that_came_twice_is_the_first_one_or_unknown() {
    // Among the five the broker remembers it still knows the offset.
    let mut world = World::warm(impatient(), 1);
    let faults = world.broker.faults();
    faults.next_request(ApiKey::Produce, Some(RequestFault::CloseAfter));
    five_in_flight(&mut world);
    world.settle(ms(20_000));
    assert_eq!(world.broker.report().retries_recognised, 1);
    world.check(true);

    // A broker that answers "duplicate" tells no offset.
    let mut world = World::warm(impatient(), 1);
    let code = ErrorCode::DUPLICATE_SEQUENCE_NUMBER;
    let fault = PartitionFault::ErrorAfter(code);
    world.broker.faults().next_batch("t", 0, fault);
    world.append(0, 100);
    world.settle(ms(100));
    let expected = Verdict::Acked {
        base_offset: None,
        log_append_time_ms: None,
    };
    assert_eq!(world.outcome(0, 1).verdict, expected);
    world.check(true);
}

/// For every order and instant of five events around the deadline: every record settled, exactly once,
/// those in flight and those that wait behind them.
#[test]
fn a7_expiry_answer_reset_purge_and_close_in_any_order_settle_each_record_once() {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Event {
        Reset,
        Abandon,
        Purge,
        PurgeAll,
    }
    // The harness refuses a second verdict for a record.
    let mut orders = std::collections::BTreeSet::new();
    for reset in [900, 1_000, 1_100] {
        for answer in [899_i64, 999, 1_001] {
            for abandon in [950, 1_000, 1_050] {
                for purge in [890, 940, 998, 1_000, 1_060] {
                    for which in [Event::Purge, Event::PurgeAll] {
                        let mut events = [
                            (reset, Event::Reset),
                            (abandon, Event::Abandon),
                            (purge, which),
                        ];
                        events.sort_unstable();
                        orders.insert((
                            events.map(|(_, event)| event),
                            answer.unsigned_abs() < purge,
                        ));
                        let setup = impatient().settings(|s| s.delivery_timeout = ms(1_000));
                        let mut world = World::warm(setup, 1);
                        let start = world.now;
                        let delayed = Some(RequestFault::Delay(answer));
                        world.broker.faults().next_request(ApiKey::Produce, delayed);
                        five_in_flight(&mut world);
                        for _ in 0..3 {
                            world.append(0, 100);
                        }
                        for (at, event) in events {
                            world.run_for((start + ms(at)).since(world.now));
                            let (
                                now,
                                World {
                                    dispatcher, lanes, ..
                                },
                            ) = (world.now, &mut world);
                            match event {
                                Event::Abandon => dispatcher.abandon(now, lanes),
                                Event::Purge => _ = dispatcher.purge(now, Purge::Queued, lanes),
                                Event::PurgeAll => {
                                    dispatcher.purge(now, Purge::QueuedAndInFlight, lanes);
                                }
                                Event::Reset => {
                                    for conn in world.open_connections() {
                                        world.reset(conn);
                                    }
                                }
                            }
                            world.dispatcher.invariants(world.now);
                        }
                        world.run_for(ms(2_000));
                        assert_eq!(world.unsettled(), 0);
                        assert!(world.dispatcher.is_idle());
                        world.check(true);
                    }
                }
            }
        }
    }
    // Each of the three comes first, in between and last, with the answer before the purge and after.
    for event in [Event::Reset, Event::Abandon, Event::Purge, Event::PurgeAll] {
        for place in 0..3 {
            for answered in [false, true] {
                let happened =
                    |order: &([Event; 3], bool)| order.0[place] == event && order.1 == answered;
                assert!(orders.iter().any(happened), "{event:?} {place} {answered}");
            }
        }
    }
}

/// What flies is Unknown, what waits is "not written" and never reaches a broker.
#[test]
fn c1_abandoning_settles_what_waits_as_not_written_and_what_flies_as_unknown() {
    let mut world = World::warm(impatient(), 2);
    world.mute.insert(1);
    world.append(0, 100);
    world.run_for(ms(5));
    world.broker.set_node_up(1, false);
    world.append(1, 100);
    world.lanes.flush(ringpost_core::id::LaneId(1));
    let now = world.now;
    world.dispatcher.abandon(now, &mut world.lanes);
    world.run_for(ms(1));
    let of = |lane| match &world.outcome(lane, 1).verdict {
        Verdict::Unknown(failure) => ("unknown", failure.why),
        Verdict::NotWritten(failure) => ("not written", failure.why),
        other => panic!("{other:?}"),
    };
    assert_eq!(of(0), ("unknown", Why::Closed));
    assert_eq!(of(1), ("not written", Why::Closed));
    assert!(world.dispatcher.is_idle());
    assert!(
        world
            .requests
            .iter()
            .flat_map(batches_of)
            .all(|b| b.partition == 0)
    );
}

/// The time a broker gives a batch of a topic with LogAppendTime is the one the verdict bears.
#[test]
fn w12_the_brokers_time_comes_with_the_ack() {
    const TIME_MS: i64 = 1_700_000_000_123;
    let mut world = World::warm(impatient(), 1);
    world.tamper = Tamper::with(|answer| {
        // The first -1 of eight bytes is the time of a batch that bears its own.
        let at = answer.windows(8).position(|part| part == [0xff; 8]);
        let at = at.expect("an answer to Produce");
        answer[at..at + 8].copy_from_slice(&TIME_MS.to_be_bytes());
    });
    world.append(0, 100);
    world.settle(ms(100));
    let expected = Verdict::Acked {
        base_offset: Some(1),
        log_append_time_ms: Some(TIME_MS),
    };
    assert_eq!(world.outcome(0, 1).verdict, expected);
    world.check(true);
}
