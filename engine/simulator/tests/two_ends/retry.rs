//! When what failed is tried again, and when it is given up.

use ringpost_broker::{ApiKey, ErrorCode, PartitionFault, RequestFault};
use ringpost_core::outcome::{Cause, Failure, Verdict, Why};
use ringpost_core::retry::{Backoff, Budget, Class, Jitter, RetryPolicy, Rule};
use ringpost_core::time::Time;

use ringpost_simulator::setup::{Setup, address, ms, us};
use ringpost_simulator::world::World;

fn failure(world: &World, lane: u32, number: u64) -> (bool, Failure) {
    match &world.outcome(lane, number).verdict {
        Verdict::Unknown(failure) => (true, failure.clone()),
        Verdict::NotWritten(failure) => (false, failure.clone()),
        other => panic!("{other:?}"),
    }
}

/// Seven waits, each within 20 % of 100 ms doubled up to 1 s.
#[test]
fn r1_waits_double_from_the_answer_to_the_next_attempt_and_are_capped() {
    let mut world = World::warm(Setup::new(1), 1);
    for _ in 0..7 {
        let fault = PartitionFault::ErrorBefore(ErrorCode::NOT_ENOUGH_REPLICAS);
        world.broker.faults().next_batch("t", 0, fault);
    }
    world.append(0, 100);
    world.settle(ms(20_000));
    let bases = [100, 200, 400, 800, 1000, 1000, 1000];
    assert_eq!(world.requests.len(), bases.len() + 1);
    for (pair, base) in world.requests.windows(2).zip(bases) {
        let answered = pair[0].at + ms(1);
        let rest = pair[1].at.since(answered);
        assert!(
            rest >= ms(base * 4 / 5) && rest <= ms(base * 6 / 5),
            "{rest:?} of {base}"
        );
    }
    world.check(true);
}

/// The next attempt comes after the first wait, not the fifth.
#[test]
fn r1_one_lost_connection_is_one_failure_however_much_was_in_flight() {
    let setup = Setup::new(1).settings(|s| {
        s.linger = ringpost_core::settings::Linger::Auto { gap: us(0) };
    });
    let mut world = World::warm(setup, 1);
    for _ in 0..5 {
        world.append(0, 100);
        world.run_for(us(10));
    }
    assert_eq!(world.requests.len(), 5);
    let lost = world.now;
    world.reset(world.requests[0].conn);
    world.settle(ms(20_000));
    let rest = world.requests[5].at.since(lost);
    assert!(rest <= ms(121), "{rest:?}");
    world.check(true);
}

/// "Not written" after three attempts, with the first and the last code; the lane goes on.
#[test]
fn r1_exhausted_retries_end_with_the_last_cause() {
    let setup = Setup::new(1).settings(|s| s.retry.attempts_max = Some(3));
    let mut world = World::warm(setup, 1);
    let first = PartitionFault::ErrorBefore(ErrorCode::CORRUPT_MESSAGE);
    world.broker.faults().next_batch("t", 0, first);
    let fault = PartitionFault::ErrorBefore(ErrorCode::NOT_ENOUGH_REPLICAS);
    world.broker.faults().every_batch("t", 0, fault);
    world.append(0, 100);
    world.settle(ms(20_000));
    let (unknown, failure) = failure(&world, 0, 1);
    assert!(!unknown);
    assert_eq!((failure.why, failure.attempts), (Why::RetriesExhausted, 3));
    let code = |cause| match cause {
        Some(Cause::Broker { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(failure.first), ErrorCode::CORRUPT_MESSAGE);
    assert_eq!(code(failure.last), ErrorCode::NOT_ENOUGH_REPLICAS);
    world.broker.faults().heal();
    world.append(0, 100);
    world.settle(ms(1_000));
    assert!(world.is_acked(0, 2));
    world.check(true);
}

/// Unknown at its deadline.
#[test]
fn i5_a_leader_that_lost_its_office_may_have_stored_the_batch() {
    let setup = Setup::new(1).settings(|s| s.delivery_timeout = ms(2_000));
    let mut world = World::warm(setup, 1);
    let fault = PartitionFault::ErrorAfter(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    world.broker.faults().every_batch("t", 0, fault);
    world.append(0, 100);
    world.settle(ms(20_000));
    let (unknown, failure) = failure(&world, 0, 1);
    assert!(unknown, "it is in the log: {failure}");
    world.check(true);
}

/// With acks=1 nobody waits for followers, so a leader that lost its office stored nothing; but a disk that
/// fails may do so behind the append.
#[test]
fn i5_without_waiting_for_followers_only_a_failing_disk_may_have_stored_the_batch() {
    for (code, may_be_stored) in [
        (ErrorCode::KAFKA_STORAGE_ERROR, true),
        (ErrorCode::NOT_LEADER_OR_FOLLOWER, false),
    ] {
        let setup = Setup::new(1).settings(|s| {
            s.acks = ringpost_core::settings::Acks::Leader;
            s.idempotent = false;
            s.retry.attempts_max = Some(1);
        });
        let mut world = World::warm(setup, 1);
        let fault = match may_be_stored {
            true => PartitionFault::ErrorAfter(code),
            false => PartitionFault::ErrorBefore(code),
        };
        world.broker.faults().next_batch("t", 0, fault);
        world.append(0, 100);
        world.settle(ms(1_000));
        let (unknown, failure) = failure(&world, 0, 1);
        assert_eq!(unknown, may_be_stored, "{failure}");
        world.check(false);
    }
}

/// It goes when its own wait is over, though the records behind it are to linger for a second.
#[test]
fn r1_a_retry_does_not_wait_for_the_linger_of_what_is_behind_it() {
    let setup = Setup::new(1).settings(|s| {
        s.linger = ringpost_core::settings::Linger::Fixed(ms(1_000));
        s.retry.backoff.jitter = Jitter::None;
    });
    let mut world = World::warm(setup, 1);
    // The lane is no beginner.
    world.append(0, 100);
    world.settle(ms(3_000));
    world.requests.clear();
    world.slow.insert(1, ms(100));
    let fault = PartitionFault::ErrorBefore(ErrorCode::NOT_ENOUGH_REPLICAS);
    world.broker.faults().next_batch("t", 0, fault);
    world.append(0, 100);
    world.run_for(ms(1_050));
    assert_eq!(world.requests.len(), 1);
    world.append(0, 100);
    world.settle(ms(5_000));
    let again = world.requests[1].at.since(world.requests[0].at);
    assert!(again <= ms(101 + 100 + 1), "{again:?}");
    world.check(true);
}

/// A retry that finds no slab for its request takes nothing of the budget, however often that is tried.
#[test]
fn r1_what_is_not_sent_costs_nothing_of_the_budget() {
    let setup = Setup::new(1).settings(|s| {
        let (per_second, burst) = (1, 2);
        s.retry.budget = Some(Budget {
            per_second,
            burst,
            ..Budget::default()
        });
    });
    let mut world = World::warm(setup, 1);
    let fault = PartitionFault::ErrorBefore(ErrorCode::NOT_ENOUGH_REPLICAS);
    world.broker.faults().next_batch("t", 0, fault);
    world.append(0, 100);
    world.run_for(ms(10));
    world.lanes.no_slab = 50;
    world.settle(ms(2_000));
    assert_eq!(world.lanes.no_slab, 0);
    assert_eq!(world.dispatcher.counters().budget_waits, 0);
    world.check(true);
}

/// Exactly at the deadline, with the cause: no connection, no leader, no answer, refusals.
#[test]
fn r2_the_deadline_ends_a_batch_wherever_it_waits_with_a_cause() {
    let timeout = ms(700);
    let setup = || Setup::new(2).settings(|s| s.delivery_timeout = timeout);
    let at_deadline = |world: &World, appended: Time| {
        let at = world.outcome(0, 1).at;
        assert_eq!(at, appended + timeout);
    };

    // With the appenders, because nobody is there to send it to.
    let mut world = World::warm(setup(), 1);
    world.stop_node(1);
    world.run_for(ms(10));
    let appended = world.now;
    world.append(0, 100);
    world.settle(ms(5_000));
    at_deadline(&world, appended);
    let (unknown, failure_of) = failure(&world, 0, 1);
    assert_eq!(
        (unknown, failure_of.why, failure_of.attempts),
        (false, Why::Expired, 0)
    );
    assert!(
        matches!(failure_of.last, Some(Cause::ConnectFailed { .. })),
        "{failure_of:?}"
    );
    world.check(true);

    // With the appenders, because the partition has no leader.
    let mut world = World::warm(setup(), 1);
    world.broker.set_node_up(1, false);
    world.directory.refresh();
    world.run_for(ms(200));
    let appended = world.now;
    world.append(0, 100);
    world.settle(ms(5_000));
    at_deadline(&world, appended);
    assert_eq!(failure(&world, 0, 1).1.last, Some(Cause::NoLeader));
    world.check(true);

    // In flight.
    let mut world = World::warm(setup(), 1);
    world.mute.insert(1);
    let appended = world.now;
    world.append(0, 100);
    world.settle(ms(5_000));
    at_deadline(&world, appended);
    let (unknown, failure_of) = failure(&world, 0, 1);
    assert!(unknown && matches!(failure_of.last, Some(Cause::RequestTimeout { .. })));
    world.check(true);

    // Resting, and in a queue.
    let mut world = World::warm(setup(), 1);
    let fault = PartitionFault::ErrorBefore(ErrorCode::NOT_ENOUGH_REPLICAS);
    world.broker.faults().every_batch("t", 0, fault);
    let appended = world.now;
    world.append(0, 100);
    world.settle(ms(5_000));
    at_deadline(&world, appended);
    let (unknown, failure_of) = failure(&world, 0, 1);
    assert!(!unknown && matches!(failure_of.last, Some(Cause::Broker { .. })));
    world.check(true);
}

/// Not a moment after its deadline.
#[test]
fn r2_a_later_request_with_older_records_is_watched_too() {
    // A batch tried again near its deadline flies behind a fresh request.
    let setup = Setup::new(1).settings(|s| {
        s.delivery_timeout = ms(700);
        s.retry.backoff.initial = ms(600);
    });
    let mut world = World::warm(setup, 2);
    let fault = PartitionFault::ErrorBefore(ErrorCode::NOT_ENOUGH_REPLICAS);
    world.broker.faults().next_batch("t", 0, fault);
    let appended = world.now;
    world.append(0, 100);
    world.run_for(ms(300));
    world.mute.insert(1);
    world.append(1, 100);
    world.settle(ms(5_000));
    let outcome = world.outcome(0, 1);
    assert!(outcome.at <= appended + ms(700), "{outcome:?}");
    world.check(true);
}

/// The connection is gone, the record acked on another; nothing more is sent on the first.
#[test]
fn r3_a_timeout_with_half_a_frame_sent_closes_the_connection() {
    let setup = Setup::new(1)
        .settings(|s| s.request_timeout = ms(20))
        .network(|n| n.send_chunk = 1);
    let mut world = World::with_topic(setup, "t", 1);
    world.append(0, 20);
    world.settle(ms(100));
    world.run_for(ms(100));
    world.requests.clear();
    // 50,000 bytes take 50 ms; the driver still has the frame when the time is over.
    world.append(0, 50_000);
    world.run_for(ms(25));
    let conn = world.requests[0].conn;
    assert!(!world.open_connections().contains(&conn));
    world.network.send_chunk = 0;
    world.settle(ms(5_000));
    assert!(world.is_acked(0, 1));
    assert!(world.requests[1..].iter().all(|r| r.conn != conn));
    world.check(true);
}

/// Both batches are recognised when they come again, and acked once.
#[test]
fn r4_an_answer_after_the_request_timeout_meets_nobody() {
    let setup = Setup::new(1).settings(|s| s.request_timeout = ms(300));
    let mut world = World::warm(setup, 2);
    let late = Some(RequestFault::Delay(310));
    world.broker.faults().next_request(ApiKey::Produce, late);
    world.append(0, 100);
    world.run_for(ms(200));
    world.append(1, 100);
    world.settle(ms(5_000));
    assert!(world.all_acked());
    assert_eq!(world.broker.report().retries_recognised, 2);
    world.check(true);
}

/// One request and "rejected" for final codes, two requests and acked for CORRUPT_MESSAGE.
#[test]
fn r5_codes_that_are_final_are_tried_once_and_a_damaged_request_again() {
    for code in [
        ErrorCode::INVALID_RECORD,
        ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        ErrorCode::INVALID_TIMESTAMP,
        ErrorCode::POLICY_VIOLATION,
    ] {
        let mut world = World::warm(Setup::new(1), 1);
        let fault = PartitionFault::ErrorBefore(code);
        world.broker.faults().next_batch("t", 0, fault);
        world.append(0, 100);
        world.settle(ms(1_000));
        assert_eq!(
            (world.requests.len(), failure(&world, 0, 1).1.why),
            (1, Why::Rejected)
        );
        world.check(true);
    }
    let mut world = World::warm(Setup::new(1), 1);
    let fault = PartitionFault::ErrorBefore(ErrorCode::CORRUPT_MESSAGE);
    world.broker.faults().next_batch("t", 0, fault);
    world.append(0, 100);
    world.settle(ms(1_000));
    assert_eq!((world.requests.len(), world.all_acked()), (2, true));
    world.check(true);
}

/// 8 to 25 tries in 10 s, the last waits 790 ms and more; acked once somebody answers.
#[test]
fn r6_refused_and_silent_connections_are_tried_with_growing_waits() {
    for dark in [false, true] {
        let setup = Setup::new(2).settings(|s| s.connect_timeout = ms(200));
        let mut world = World::warm(setup, 1);
        world.stop_node(1);
        world.run_for(ms(5));
        if dark {
            world.dark.insert(address(1));
        }
        world.connects.clear();
        world.append(0, 100);
        world.run_for(ms(10_000));
        let tries: Vec<_> = world
            .connects
            .iter()
            .filter(|(_, conn, _)| conn.slot != 0)
            .map(|(at, _, _)| *at)
            .collect();
        assert!((8..=25).contains(&tries.len()), "{dark}: {}", tries.len());
        let mut waits = tries.windows(2).map(|pair| pair[1].since(pair[0]));
        assert!(waits.next_back() > Some(ms(790)));
        world.dark.clear();
        world.start_node(1);
        world.settle(ms(3_000));
        assert!(world.all_acked());
        world.check(true);
    }
}

/// A broker that takes connections and never answers ApiVersions, at once and after most of the time was
/// spent on connecting: each try ends exactly at the setup timeout, which begins with the connect and not
/// with the question; the waits between a try's end and the next grow to their cap; nothing of the record
/// is sent. Acked once somebody answers.
#[test]
fn r6_the_setup_timeout_covers_a_version_question_that_nobody_answers() {
    for latency in [us(500), ms(80)] {
        let timeout = ms(200);
        let setup = Setup::new(2).settings(|s| s.connect_timeout = timeout);
        let mut world = World::warm(setup, 1);
        world.hang_up(1);
        world.run_for(ms(5));
        world.network.latency = latency;
        let ignore = Some(RequestFault::Ignore);
        let faults = world.broker.faults();
        faults.every_request(ApiKey::ApiVersions, ignore);
        world.connects.clear();
        world.append(0, 100);
        let (end, mut ends) = (world.now + ms(10_000), Vec::new());
        while world.step(end) {
            let failures = world.dispatcher.counters().connection_failures;
            ends.resize(usize::try_from(failures).expect("few"), world.now);
        }
        let tries = world.connects.iter().filter(|(_, conn, _)| conn.slot != 0);
        let tries: Vec<_> = tries.map(|(at, ..)| *at).collect();
        assert!((6..=14).contains(&tries.len()), "{}", tries.len());
        for (begun, ended) in tries.iter().zip(&ends) {
            assert_eq!(ended.since(*begun), timeout);
        }
        let waits = ends.iter().zip(&tries[1..]);
        let waits: Vec<_> = waits.map(|(ended, next)| next.since(*ended)).collect();
        // 50 ms, doubled up to a second, each within 20 %.
        for (n, wait) in (0..).zip(&waits) {
            let base = ms((50 << n).min(1_000));
            assert!(*wait >= base * 4 / 5 && *wait <= base * 6 / 5, "{waits:?}");
        }
        assert!(waits.len() >= 5, "{waits:?}");
        assert!(world.requests.is_empty());
        world.network.latency = us(500);
        world.broker.faults().heal();
        world.settle(ms(3_000));
        assert!(world.all_acked());
        world.check(true);
    }
}

/// The next request leaves exactly when the throttle ends; INT_MAX is capped at a minute, negative
/// ones are none.
#[test]
fn r7_a_throttled_connection_is_quiet_that_long_and_deadlines_still_run() {
    let mut world = World::warm(Setup::new(1), 1);
    world.broker.faults().throttle_ms = 250;
    world.append(0, 100);
    world.settle(ms(100));
    let answered = world.now;
    world.append(0, 100);
    world.settle(ms(1_000));
    assert_eq!(world.requests[1].at, answered + ms(250));

    for absurd in [i32::MAX, i32::MIN, -1] {
        let setup = Setup::new(1).settings(|s| s.delivery_timeout = ms(2_000));
        let mut world = World::warm(setup, 1);
        world.broker.faults().throttle_ms = absurd;
        world.append(0, 100);
        world.settle(ms(100));
        let appended = world.now;
        world.append(0, 100);
        world.settle(ms(70_000));
        if absurd > 0 {
            assert_eq!(failure(&world, 0, 2).1.why, Why::Expired);
            assert_eq!(world.now, appended + ms(2_000));
            world.broker.faults().throttle_ms = 0;
            world.run_for(ms(60_000));
            world.append(0, 100);
            world.settle(ms(100));
            assert!(world.is_acked(0, 3), "capped at a minute");
        } else {
            assert!(world.all_acked());
        }
        world.check(true);
    }
}

/// A class of failures with a rule of its own: given up at once, or tried with other waits and another
/// limit; other failures go by the policy.
#[test]
fn r1_classes_of_failures_have_their_own_rules() {
    let own = Backoff {
        jitter: Jitter::None,
        ..Backoff::new(ms(7), ms(7))
    };
    let policy = RetryPolicy::default()
        .rule(Class::Corrupt, Rule::GiveUp)
        .rule(
            Class::NotEnoughReplicas,
            Rule::Retry {
                attempts_max: Some(3),
                backoff: Some(own),
            },
        );
    let run = |code, faults| {
        let mut world = World::warm(Setup::new(1).settings(|s| s.retry = policy), 1);
        for _ in 0..faults {
            let fault = PartitionFault::ErrorBefore(code);
            world.broker.faults().next_batch("t", 0, fault);
        }
        world.append(0, 100);
        world.settle(ms(20_000));
        world.check(true);
        world
    };
    let corrupt = run(ErrorCode::CORRUPT_MESSAGE, 1);
    assert_eq!(corrupt.requests.len(), 1);
    assert_eq!(failure(&corrupt, 0, 1).1.why, Why::RetriesExhausted);

    let few = run(ErrorCode::NOT_ENOUGH_REPLICAS, 9);
    let attempts = few.requests.iter().map(|request| request.at);
    let attempts: Vec<_> = attempts.collect();
    assert_eq!(attempts.len(), 3);
    for pair in attempts.windows(2) {
        assert_eq!(
            pair[1].since(pair[0]),
            ms(1) + ms(7),
            "one way, back, and the rest"
        );
    }
    let busy = run(ErrorCode::THROTTLING_QUOTA_EXCEEDED, 4);
    assert!(busy.all_acked());
}

/// A broker that refuses everything is asked again no more often than the budget has tokens; a fresh
/// batch for another partition does not wait with the retries, and nothing is given up for it.
#[test]
fn r1_a_used_up_budget_makes_retries_wait_and_nothing_else() {
    let budget = Budget {
        percent_of_successes: 0,
        per_second: 10,
        burst: 5,
    };
    let setup = Setup::new(1).settings(|s| {
        s.retry.backoff = Backoff::new(ms(2), ms(2));
        s.retry.budget = Some(budget);
    });
    let mut world = World::warm(setup, 3);
    for partition in 0..2 {
        let fault = PartitionFault::ErrorBefore(ErrorCode::NOT_ENOUGH_REPLICAS);
        world.broker.faults().every_batch("t", partition, fault);
    }
    let start = world.now;
    world.append(0, 100);
    world.run_for(ms(1));
    world.append(1, 100);
    world.run_for(ms(1_000));
    let first_second = world.requests.len();
    assert!((10..=2 + 5 + 10).contains(&first_second), "{first_second}");
    world.append(2, 100);
    world.run_for(ms(5));
    assert!(world.is_acked(2, 1), "it does not wait with the others");
    world.run_for(ms(4_000));
    let all = world.requests.len() - first_second;
    assert!(all <= 1 + 41, "{all} in four seconds");
    assert!(world.dispatcher.counters().budget_waits > 0);
    world.broker.faults().heal();
    world.settle(ms(1_000));
    assert!(world.all_acked() && world.now < start + ms(6_000));
    world.check(true);
}

/// One lost connection with many partitions in flight is one retry, not one for each partition: none
/// waits for the budget.
#[test]
fn r1_a_request_with_many_retries_is_one_retry() {
    let setup = Setup::new(1).settings(|s| {
        let (per_second, burst) = (1, 2);
        s.retry.budget = Some(Budget {
            per_second,
            burst,
            ..Budget::default()
        });
        s.retry.backoff.jitter = Jitter::None;
    });
    let mut world = World::warm(setup, 60);
    for lane in 0..60 {
        world.append(lane, 100);
    }
    world.run_for(us(100));
    world.reset(world.requests[0].conn);
    world.settle(ms(1_000));
    assert!(world.all_acked());
    assert_eq!(world.dispatcher.counters().budget_waits, 0);
    world.check(true);
}

/// A failure tells its first and its last cause and when they came; the last is its source; `{:#}` has
/// all of it.
#[test]
fn r2_a_failure_tells_its_history() {
    let setup = Setup::new(1).settings(|s| {
        s.delivery_timeout = ms(700);
        s.retry.backoff.jitter = Jitter::None;
    });
    let mut world = World::warm(setup, 1);
    let first = PartitionFault::ErrorBefore(ErrorCode::CORRUPT_MESSAGE);
    world.broker.faults().next_batch("t", 0, first);
    let fault = PartitionFault::ErrorBefore(ErrorCode::NOT_ENOUGH_REPLICAS);
    world.broker.faults().every_batch("t", 0, fault);
    world.append(0, 100);
    world.settle(ms(20_000));
    let (_, failure) = failure(&world, 0, 1);
    // Attempts at 0, 101, 302 ms; the next would be at 703.
    assert_eq!((failure.why, failure.attempts), (Why::Expired, 3));
    let times = (
        failure.first_after_ms,
        failure.last_after_ms,
        failure.after_ms,
    );
    assert_eq!(times, (1, 303, 700));
    let source = std::error::Error::source(&failure).expect("a cause");
    let last = failure.last.as_ref().expect("a cause");
    assert_eq!(source.to_string(), last.to_string());
    assert_eq!(
        format!("{failure:#}"),
        "the delivery timeout passed (sent 3 times); \
         first, after 1 ms: broker 1 answered CORRUPT_MESSAGE (2); \
         last, after 303 ms: broker 1 answered NOT_ENOUGH_REPLICAS (19); given up after 700 ms"
    );
    assert_eq!(
        failure.to_string(),
        "the delivery timeout passed (sent 3 times)"
    );
}

/// A value that goes by reference is changed in our memory behind the seal: the broker refuses the batch,
/// and it is sent once, "not written" because of the damage; the records behind it are acked under a new
/// epoch. Changed only in a request's own head, where a small body is copied to, it is sent again and
/// acked, under the same epoch.
#[test]
fn r5_a_batch_that_our_own_memory_spoiled_is_given_up_and_one_spoiled_on_its_way_is_not() {
    for (len, damaged) in [(4_000, true), (100, false)] {
        let mut world = World::warm(Setup::new(1), 1);
        world.damage_next_request = true;
        world.append(0, len);
        world.run_for(us(100));
        world.append(0, len);
        world.append(0, len);
        world.settle(ms(5_000));
        assert_eq!(world.broker.report().corrupt, 1);
        assert!(world.is_acked(0, 2) && world.is_acked(0, 3));
        let bumps = world.dispatcher.counters().epoch_bumps;
        assert_eq!(bumps, u64::from(damaged));
        if damaged {
            let (unknown, failure) = failure(&world, 0, 1);
            assert!(!unknown, "{failure:#}");
            assert_eq!((failure.why, failure.attempts), (Why::Damaged, 1));
            assert!(failure.to_string().contains("our own memory was damaged"));
            let code = |cause| match cause {
                Some(Cause::Broker { code, .. }) => code,
                other => panic!("{other:?}"),
            };
            assert_eq!(code(failure.last), ErrorCode::CORRUPT_MESSAGE);
        } else {
            assert!(world.is_acked(0, 1));
        }
        world.check(true);
    }
}

/// An attempt whose answer was lost may be stored, whatever became of our memory since: Unknown, and what
/// follows is acked.
#[test]
fn r5_a_batch_that_was_spoiled_between_attempts_may_be_stored() {
    for (fault, stored) in [(RequestFault::Silence, true), (RequestFault::Ignore, false)] {
        let setup = Setup::new(1).settings(|s| s.request_timeout = ms(400));
        let mut world = World::warm(setup, 1);
        world
            .broker
            .faults()
            .next_request(ApiKey::Produce, Some(fault));
        world.append(0, 4_000);
        world.run_for(ms(100));
        assert_eq!(world.requests.len(), 1);
        world.damage_next_request = true;
        world.settle(ms(5_000));
        world.append(0, 4_000);
        world.settle(ms(5_000));
        let (unknown, failure) = failure(&world, 0, 1);
        assert!(unknown, "{failure:#}");
        assert_eq!((failure.why, failure.attempts), (Why::Damaged, 2));
        assert!(world.is_acked(0, 2));
        let there = world.log("t", 0).into_iter().flat_map(|b| b.records);
        assert_eq!(there.filter(|r| r.1 == 1).count(), usize::from(stored));
        world.check(true);
    }
}
