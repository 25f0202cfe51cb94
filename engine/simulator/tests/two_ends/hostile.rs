//! Answers that no good broker gives.

use ringpost_core::id::BrokerId;
use ringpost_core::outcome::{Cause, Verdict};
use ringpost_core::settings::Linger;

use ringpost_simulator::found::batches_of;
use ringpost_simulator::setup::{Setup, ms, us};
use ringpost_simulator::world::{Tamper, World};

/// Where an answer to Produce has its correlation id.
const CORRELATION_AT: usize = 4;

/// One connection failure; the batch is recognised when it comes again, and in the log once.
#[test]
fn h6_a_wrong_correlation_id_ends_the_connection_and_acks_nothing() {
    for change in [1u8, 2, 0x80, 0xff] {
        let mut world = World::warm(Setup::new(1), 1);
        let mut once = true;
        world.tamper = Tamper::with(move |answer| {
            if std::mem::take(&mut once) {
                answer[CORRELATION_AT + 3] ^= change;
            }
        });
        world.append(0, 100);
        world.settle(ms(5_000));
        assert!(world.all_acked());
        assert_eq!(world.dispatcher.counters().connection_failures, 1);
        assert_eq!(world.broker.report().retries_recognised, 1);
        world.check(true);
    }
}

/// Each ends its connection once, and all records are acked once.
#[test]
fn h6_swapped_repeated_and_unasked_answers_end_the_connection() {
    // Repeated: the second finds nothing in flight.
    let mut world = World::warm(Setup::new(1), 1);
    let mut once = true;
    world.tamper = Tamper::with(move |answer| {
        if std::mem::take(&mut once) {
            answer.extend_from_within(..);
        }
    });
    world.append(0, 100);
    world.settle(ms(5_000));
    world.run_for(ms(5));
    assert_eq!(world.dispatcher.counters().connection_failures, 1);
    world.append(0, 100);
    world.settle(ms(5_000));
    assert!(world.all_acked());
    world.check(true);

    // Nobody asked.
    let mut world = World::warm(Setup::new(1), 1);
    for conn in world.open_connections() {
        world.inject(conn, &[0, 0, 0, 4, 0, 0, 0, 0]);
    }
    world.run_for(ms(5));
    assert_eq!(world.dispatcher.counters().connection_failures, 1);

    // Before negotiation was asked for.
    let mut world = World::with_topic(Setup::new(1), "t", 1);
    world.append(0, 100);
    world.run_for(us(500));
    let conn = world.connects.last().expect("tried").1;
    world.inject(conn, &[0, 0, 0, 4, 0, 0, 0, 0]);
    world.settle(ms(5_000));
    assert!(world.all_acked());
    world.check(true);
}

/// With five requests to as many partitions in flight: two answers in each other's place, two with each
/// other's ids, one with the id of a later request in flight, and one with that of a request to come. The
/// connection ends at the first wrong id, and no batch is settled by what came over it from then on: with
/// one attempt all are Unknown, for the protocol's sake; with idempotence all are recognised when they come
/// again, and acked where they lie.
#[test]
fn h6_swapped_and_future_correlation_ids_match_nothing() {
    const ID: std::ops::Range<usize> = CORRELATION_AT..CORRELATION_AT + 4;
    /// Makes of the answers that came so far what the client gets now.
    type Change = fn(&mut Vec<Vec<u8>>) -> Vec<u8>;
    fn moved(answer: &[u8], by: i32) -> Vec<u8> {
        let mut answer = answer.to_vec();
        let id = i32::from_be_bytes(answer[ID].try_into().expect("four bytes"));
        answer[ID].copy_from_slice(&(id + by).to_be_bytes());
        answer
    }
    let changes: [Change; 4] = [
        |answers| match &answers[..] {
            [_] => Vec::new(),
            [first, second] => [&second[..], first].concat(),
            [.., last] => last.clone(),
            [] => unreachable!("one just came"),
        },
        |answers| match &answers[..] {
            [first] => moved(first, 1),
            [_, second] => moved(second, -1),
            [.., last] => last.clone(),
            [] => unreachable!("one just came"),
        },
        |answers| moved(answers.last().expect("one just came"), 1),
        |answers| moved(answers.last().expect("one just came"), 100),
    ];
    for change in changes {
        for idempotent in [false, true] {
            let setup = Setup::new(1).settings(|s| {
                s.linger = Linger::Auto { gap: ms(0) };
                s.idempotent = idempotent;
                if !idempotent {
                    s.retry.attempts_max = Some(1);
                }
            });
            let mut world = World::warm(setup, 5);
            let mut answers = Vec::new();
            world.tamper = Tamper::with(move |answer| {
                if answers.len() < 5 {
                    answers.push(std::mem::take(answer));
                    *answer = change(&mut answers);
                }
            });
            for lane in 0..5 {
                world.append(lane, 100);
                world.run_for(us(10));
            }
            assert_eq!(world.requests.len(), 5, "five in flight");
            world.settle(ms(5_000));
            assert_eq!(world.dispatcher.counters().connection_failures, 1);
            for lane in 0..5 {
                match &world.outcome(lane, 1).verdict {
                    Verdict::Acked { .. } => assert!(idempotent),
                    Verdict::Unknown(failure) => {
                        assert!(!idempotent);
                        let last = failure.last.as_ref().expect("a cause").to_string();
                        assert!(
                            last.contains("correlation id") || last.contains("ended"),
                            "{last}"
                        );
                    }
                    other => panic!("{other:?}"),
                }
            }
            let again = if idempotent { 5 } else { 0 };
            assert_eq!(world.broker.report().retries_recognised, again);
            world.check(idempotent);
        }
    }
}

/// One connection failure for each length, and the record is in the log once.
#[test]
fn h1_absurd_frame_lengths_end_the_connection() {
    for length in [-1i32, i32::MIN, i32::MAX, 5 << 20] {
        let mut world = World::warm(Setup::new(1), 1);
        let mut once = true;
        world.tamper = Tamper::with(move |answer| {
            if std::mem::take(&mut once) {
                answer[..4].copy_from_slice(&length.to_be_bytes());
            }
        });
        world.append(0, 100);
        world.settle(ms(5_000));
        assert!(world.all_acked());
        assert_eq!(world.dispatcher.counters().connection_failures, 1);
        world.check(true);
    }
}

/// For every bit of an answer: logs in order and without doubles, no acked record is absent.
#[test]
fn h12_every_flipped_bit_of_an_answer_leaves_the_log_right() {
    let mut world = World::warm(Setup::new(1), 2);
    let len = std::rc::Rc::new(std::cell::Cell::new(0));
    let seen = std::rc::Rc::clone(&len);
    world.tamper = Tamper::with(move |answer| seen.set(answer.len()));
    world.append(0, 100);
    world.append(1, 100);
    world.settle(ms(100));
    let len = len.get();
    assert!(len > 40);
    for bit in 0..len * 8 {
        let setup = Setup::new(1).settings(|s| s.request_timeout = ms(500));
        let mut world = World::warm(setup, 2);
        let mut once = true;
        world.tamper = Tamper::with(move |answer| {
            if std::mem::take(&mut once) {
                answer[bit / 8] ^= 1 << (bit % 8);
            }
        });
        world.append(0, 100);
        world.append(1, 100);
        world.settle(ms(130_000));
        world.run_for(ms(61_000));
        world.check_logs();
        // A flipped code can claim anything; a flipped offset cannot be told. Nothing else may.
        let lost = world.count(|verdict| matches!(verdict, Verdict::Sent));
        assert_eq!(lost, 0);
        for (key, outcome) in &world.outcomes {
            let there = world
                .log("t", i32::try_from(key.0).expect("few"))
                .iter()
                .any(|batch| batch.records.contains(&(u64::from(key.0), key.1)));
            let acked = matches!(outcome.verdict, Verdict::Acked { .. });
            assert!(there || !acked, "bit {bit}: acked and not there");
        }
    }
}

/// No terminal escape and no NUL in any error's text.
#[test]
fn h5_a_strangers_words_are_escaped() {
    let mut world = World::warm(Setup::new(1), 1);
    let conn = *world.open_connections().last().expect("warm");
    world.append(0, 100);
    world.run_for(ms(0));
    world.inject(conn, b"\0\0\0\x20HTTP/1.1 400 Bad Request\x1b[2J\r\n\r\n");
    world.settle(ms(5_000));
    for outcome in world.outcomes.values() {
        if let Verdict::NotWritten(f) | Verdict::Unknown(f) = &outcome.verdict {
            assert!(!f.to_string().contains('\x1b'));
        }
    }
    let cause = Cause::Broker {
        broker: BrokerId(1),
        code: ringpost_broker::ErrorCode::POLICY_VIOLATION,
        message: Some("\x1b[2J\0".into()),
    };
    assert!(!cause.to_string().contains(['\x1b', '\0']));
    assert!(world.all_acked());
}

/// A broker's words about a refusal with terminal escapes, NUL and line ends: the failure's text, alone and
/// with all its causes, has them escaped and still tells them. With bytes that are no UTF-8 the answer counts
/// for nothing: the connection ends, and the record, sent again, is refused in clean words.
#[test]
fn h5_a_refusals_words_are_escaped_and_must_be_utf8() {
    const WORDS: &[u8] = b"the batch is larger";
    for (evil, is_text) in [
        (b"\x1b[2J\0\r\nok: acked ", true),
        (b"\xff\xfe\xc0\x80 is no text..", false),
    ] {
        let setup = Setup::new(1).broker(|b| b.message_bytes_max = 1_000);
        let mut world = World::warm(setup, 1);
        let mut once = true;
        world.tamper = Tamper::with(move |answer| {
            let place = answer.windows(WORDS.len()).position(|part| part == WORDS);
            if let Some(at) = place.filter(|_| std::mem::take(&mut once)) {
                answer[at..at + evil.len()].copy_from_slice(evil);
            }
        });
        world.append(0, 2_000);
        world.settle(ms(5_000));
        // An answer that cannot be read leaves open what it said.
        let failure = match &world.outcome(0, 1).verdict {
            Verdict::NotWritten(failure) if is_text => failure,
            Verdict::Unknown(failure) if !is_text => failure,
            other => panic!("{other:?}"),
        };
        let last = failure.last.as_ref().expect("a cause");
        for text in [format!("{failure:#}"), last.to_string()] {
            assert!(!text.contains(char::is_control), "{text:?}");
            let told = r"\u{1b}[2J\0\r\nok: acked";
            assert_eq!(text.contains(told), is_text, "{text}");
        }
        let ended = u64::from(!is_text);
        assert_eq!(world.dispatcher.counters().connection_failures, ended);
        if !is_text {
            let first = failure.first.as_ref().expect("a cause").to_string();
            assert!(first.contains("not UTF-8"), "{first}");
        }
        world.check(true);
    }
}

/// Metadata names a host with terminal escapes, NUL and a line end: the error that lists what was tried has
/// it escaped, and still names it.
#[test]
fn h5_a_hosts_name_is_escaped_in_the_error_that_lists_it() {
    let mut world = World::warm(Setup::new(1), 1);
    let host = "ev\u{1b}[2J\0\nil\u{202e}.example";
    world.broker.set_node_address(1, host, 9092);
    world.directory.refresh();
    world.run_for(ms(100));
    assert_eq!(&*world.cluster.brokers[&BrokerId(1)].host, host);
    world.stop_node(1);
    world.want("another");
    world.run_for(ms(60_000));
    let [(_, _, error)] = &world.failed_topics[..] else {
        panic!("{:?}", world.failed_topics)
    };
    let text = error.to_string();
    assert!(
        !text.contains(char::is_control) && !text.contains('\u{202e}'),
        "{text:?}"
    );
    assert!(
        text.contains(r"ev\u{1b}[2J\0\nil\u{202e}.example:9092: "),
        "{text}"
    );
}

/// The connection fails exactly at the request timeout, and the record is acked once later.
#[test]
fn h14_an_answer_that_trickles_in_is_still_late() {
    let setup = Setup::new(1)
        .settings(|s| s.request_timeout = ms(2_000))
        .network(|n| n.fragment = 1);
    let mut world = World::warm(setup, 1);
    world.network.pace = ms(1_000);
    let start = world.now;
    world.append(0, 20);
    while world.dispatcher.counters().connection_failures == 0 {
        assert!(world.step(start + ms(10_000)));
    }
    assert_eq!(world.now, start + ms(2_000));
    world.network.pace = ms(0);
    world.settle(ms(20_000));
    assert!(world.all_acked());
    world.check(true);
}

/// For every bit that the checksum covers, and its own: the broker refuses the batch, gets it again
/// as it was, and both records are acked, in the log once and in order, without a new epoch. For
/// the bits before: each record has one outcome, and is in the log if it was acked.
#[test]
fn h13_every_flipped_bit_of_a_batch_is_found_and_the_batch_sent_again() {
    let mut world = World::warm(Setup::new(1), 1);
    world.append(0, 60);
    world.settle(ms(100));
    let request = world.requests[0].bytes.clone();
    let batch = batches_of(&world.requests[0]).remove(0).bytes;
    let start = request
        .windows(batch.len())
        .position(|part| part == batch)
        .expect("it was sent");
    for bit in 0..batch.len() * 8 {
        let setup = Setup::new(1).settings(|s| s.request_timeout = ms(500));
        let mut world = World::warm(setup, 1);
        let mut once = true;
        world.tamper_request = Tamper::with(move |request| {
            if std::mem::take(&mut once) {
                request[start + bit / 8] ^= 1 << (bit % 8);
            }
        });
        world.append(0, 60);
        world.settle(ms(5_000));
        world.append(0, 60);
        world.settle(ms(5_000));
        world.check_logs();
        // Before it: base offset, length, leader epoch, format.
        if bit >= 17 * 8 {
            assert!(world.all_acked(), "bit {bit}");
            let report = world.broker.report();
            assert_eq!((report.corrupt, report.duplicated, report.lost), (1, 0, 0));
            assert_eq!(world.requests.len(), 3, "bit {bit}");
            assert_eq!(world.dispatcher.counters().epoch_bumps, 0, "bit {bit}");
        }
        assert_eq!(world.outcomes.len(), 3, "bit {bit}");
        let log = world.log("t", 0);
        for (key, outcome) in &world.outcomes {
            let there = log
                .iter()
                .any(|batch| batch.records.contains(&(u64::from(key.0), key.1)));
            let is_acked = matches!(outcome.verdict, Verdict::Acked { .. });
            assert!(there || !is_acked, "bit {bit}: acked and not there");
        }
    }
}
