//! Connections that break, stutter, or say nothing.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ringpost_broker::{ApiKey, ErrorCode, Replication, RequestFault};
use ringpost_codec::kafka::header::{self, RequestHeader};
use ringpost_codec::kafka::{api_versions, produce};
use ringpost_codec::reader::Reader;
use ringpost_core::outcome::Verdict;
use ringpost_core::settings::Linger;

use ringpost_simulator::found::batches_of;
use ringpost_simulator::lanes::Lane;
use ringpost_simulator::setup::{Setup, ms, us};
use ringpost_simulator::world::{Tamper, World};

/// For cuts all over the request: all acked, in the log once, recognised as a retry exactly if it
/// had arrived whole.
#[test]
fn n1_a_reset_behind_any_byte_of_a_request_leaves_the_records_there_once() {
    let mut world = World::warm(Setup::new(1), 2);
    world.append(0, 100);
    world.append(1, 1_500);
    world.settle(ms(100));
    let len = world.requests[0].bytes.len();
    for cut in (0..=len).filter(|cut| *cut < 300 || cut % 50 == 0 || *cut + 3 > len) {
        let mut world = World::warm(Setup::new(1), 2);
        world.cut_next_request = Some(cut);
        world.append(0, 100);
        world.append(1, 1_500);
        world.settle(ms(5_000));
        assert!(world.all_acked());
        let stored = u64::from(cut == len) * 2;
        assert_eq!(
            world.broker.report().retries_recognised,
            stored,
            "cut {cut} of {len}"
        );
        world.check(true);
    }
}

/// For every cut: acked after another attempt, in the log once.
#[test]
fn n1_an_answer_cut_at_any_byte_counts_for_nothing() {
    for cut in 0..80 {
        let mut world = World::warm(Setup::new(1), 1);
        let fault = Some(RequestFault::CutAnswer(cut));
        world.broker.faults().next_request(ApiKey::Produce, fault);
        world.append(0, 100);
        world.settle(ms(5_000));
        assert!(world.all_acked());
        world.check(true);
    }
}

/// Without requests: no failure, no connect until a record needs it. With: one failure, all acked
/// once.
#[test]
fn n2_an_orderly_end_with_requests_in_flight_is_a_loss_and_without_is_not() {
    let mut world = World::warm(Setup::new(1), 1);
    world.hang_up(1);
    world.run_for(ms(10));
    assert_eq!(world.dispatcher.counters().connection_failures, 0);
    assert!(world.connects.is_empty(), "nobody needs a connection");
    let start = world.now;
    world.append(0, 100);
    world.settle(ms(100));
    assert!(world.now.since(start) <= ms(4), "connected again at once");

    world.append(0, 100);
    world.run_for(us(600));
    world.hang_up(1);
    world.settle(ms(5_000));
    assert_eq!(world.dispatcher.counters().connection_failures, 1);
    assert!(world.all_acked());
    world.check(true);
}

/// The request leaves exactly at the linger, on a new connection.
#[test]
fn n2_a_connection_that_ends_while_lanes_gather_is_made_anew_for_them() {
    let setup = Setup::new(1).settings(|s| {
        s.linger = ringpost_core::settings::Linger::Fixed(ms(50));
    });
    let mut world = World::warm(setup, 1);
    let start = world.now;
    world.append(0, 100);
    world.run_for(ms(20));
    world.hang_up(1);
    world.settle(ms(5_000));
    assert_eq!(world.requests[0].at, start + ms(50));
    world.check(true);
}

/// Fewer than 30 connects for 900 ended connections, and all acked.
#[test]
fn n2_a_broker_that_ends_fresh_connections_is_not_stormed() {
    // Records wait for a throttle to end, and the broker wants no connection meanwhile.
    let mut world = World::warm(Setup::new(1), 1);
    world.broker.faults().throttle_ms = 1_000;
    world.append(0, 100);
    world.settle(ms(100));
    world.broker.faults().throttle_ms = 0;
    world.append(0, 100);
    for _ in 0..900 {
        world.hang_up(1);
        world.run_for(ms(1));
    }
    let tries = world.connects.iter().filter(|(_, conn, _)| conn.slot != 0);
    assert!(tries.count() < 30);
    world.settle(ms(5_000));
    assert!(world.all_acked());
    world.check(true);
}

/// Deaf, mute or both: all acked after healing, in the log once.
#[test]
fn n3_a_broker_that_hears_or_says_nothing_costs_one_request_timeout() {
    for (deaf, mute) in [(true, true), (true, false), (false, true)] {
        let setup = Setup::new(2).settings(|s| s.request_timeout = ms(400));
        let mut world = World::warm(setup, 1);
        if deaf {
            world.deaf.insert(1);
        }
        if mute {
            world.mute.insert(1);
        }
        world.append(0, 100);
        world.run_for(ms(1_500));
        world.append(0, 100);
        world.run_for(ms(1_500));
        world.deaf.clear();
        world.mute.clear();
        // A negotiation that was not heard takes its timeout first.
        world.settle(ms(15_000));
        assert!(world.all_acked());
        world.check(true);
    }
}

/// All acked, without a connection failure.
#[test]
fn n4_bytes_one_by_one_both_ways() {
    let setup = Setup::new(1).network(|n| {
        n.fragment = 1;
        n.send_chunk = 1;
    });
    let mut world = World::warm(setup, 2);
    for _ in 0..10 {
        world.append(0, 100);
        world.append(1, 1_200);
        world.run_for(us(300));
    }
    world.settle(ms(1_000));
    assert!(world.all_acked());
    assert_eq!(world.dispatcher.counters().connection_failures, 0);
    world.check(true);
}

/// All acked without a failure or a retry.
#[test]
fn n5_a_slow_jittery_link_times_nothing_out() {
    let setup = Setup::new(3).network(|n| {
        n.latency = ms(100);
        n.jitter = ms(80);
        n.fragment = 500;
    });
    let mut world = World::warm(setup, 6);
    for _ in 0..100 {
        for lane in 0..6 {
            world.append(lane, 200);
        }
        world.run_for(ms(10));
    }
    world.settle(ms(10_000));
    assert!(world.all_acked());
    let counters = world.dispatcher.counters();
    assert_eq!((counters.connection_failures, counters.retries), (0, 0));
    world.check(true);
}

/// All acked in order through four restarts.
#[test]
fn n9_a_rolling_restart_under_load_is_seen_by_nobody() {
    let mut world = World::warm(Setup::new(3), 6);
    for node in [1, 2, 3, 1] {
        for round in 0..40 {
            for lane in 0..6 {
                world.append(lane, 100);
            }
            world.run_for(ms(10));
            if round == 10 {
                world.stop_node(node);
                world.broker.set_node_up(node, false);
                for partition in 0..6 {
                    if world.broker.leader("t", partition) == Some(node) {
                        world.broker.move_leader("t", partition, node % 3 + 1);
                    }
                }
            }
            if round == 25 {
                world.broker.set_node_up(node, true);
                world.start_node(node);
            }
        }
    }
    world.settle(ms(20_000));
    assert!(world.all_acked());
    world.check(true);
}

/// Records are acked by brokers of every version; one that hangs up gets one second, lower try.
#[test]
fn w8_a_broker_that_knows_only_old_versions_of_apiversions_or_hangs_up_on_ours() {
    for newest in 0..4 {
        let setup = Setup::new(1).broker(|b| {
            b.versions = b.versions.clone().with(ApiKey::ApiVersions, 0, newest);
        });
        let world = World::warm(setup, 1);
        assert!(world.all_acked());
    }
    let mut world = World::with_topic(Setup::new(1), "t", 1);
    let hang_up = Some(RequestFault::CloseBefore);
    world
        .broker
        .faults()
        .next_request(ApiKey::ApiVersions, hang_up);
    world.append(0, 100);
    world.settle(ms(5_000));
    let tries = world.connects.iter().filter(|(_, conn, _)| conn.slot != 0);
    assert_eq!(tries.count(), 2, "one strictly lower retry");
    world.check(true);
}

/// "Not written", unsupported, without an attempt.
#[test]
fn w9_a_broker_without_produce_or_with_too_old_ones_ends_what_waits_for_it() {
    use ringpost_core::outcome::{Cause, Verdict, Why};
    for newest in [None, Some(2)] {
        // The directory finds out first. A lane meets it when the broker behind the address changed.
        let mut world = World::warm(Setup::new(1), 1);
        let mut old = Setup::new(1).broker;
        old.versions = match newest {
            None => old.versions.without(ApiKey::Produce),
            Some(newest) => old.versions.with(ApiKey::Produce, 0, newest),
        };
        world.broker = ringpost_broker::Broker::new(old);
        world.hang_up(1);
        world.run_for(ms(1));
        world.append(0, 100);
        world.run_for(ms(20));
        let Verdict::NotWritten(failure) = &world.outcome(0, 1).verdict else {
            panic!("{:?}", world.outcomes)
        };
        assert_eq!((failure.why, failure.attempts), (Why::Unsupported, 0));
        assert!(
            matches!(failure.last, Some(Cause::Unsupported { .. })),
            "{failure:#}"
        );
    }
}

/// Every connection, the directory's and each new one to a broker, begins with ApiVersions of a
/// version that names our software, in characters brokers take.
#[test]
fn w2_every_connection_begins_with_our_name() {
    let mut world = World::warm(Setup::new(2), 4);
    for round in 0..4 {
        world.hang_up(round % 2 + 1);
        for lane in 0..4 {
            world.append(lane, 100);
        }
        world.settle(ms(5_000));
    }
    assert!(world.connects.len() >= 5, "{:?}", world.connects);
    let mut named = 0;
    for (_, conn, _) in &world.connects {
        let Some(first) = world.first_words.get(conn) else {
            continue;
        };
        named += 1;
        let mut reader = Reader::new(&first[4..]);
        let header = RequestHeader::read(&mut reader).expect("a header");
        assert_eq!(header.api_key, ringpost_codec::kafka::ApiKey::API_VERSIONS);
        assert!(header.version >= 3);
        let request = api_versions::Request::read(header.version, &mut reader).expect("a request");
        assert_eq!(request.client_software_name, "ringpost");
        let version = request.client_software_version;
        assert_eq!(version, api_versions::sanitise(version));
    }
    assert!(named >= 5);
}

/// A broker stands still for twice the delivery timeout while partitions begin to be written to one
/// after the other, so that at any time some partition's oldest records are about to expire. When the
/// broker goes on it is reached again at the first connection, and what is appended from then on is
/// acked.
#[test]
fn n9_a_broker_that_stood_still_for_longer_than_the_deadline_is_reached_again() {
    const LANES: u32 = 40;
    let setup = Setup::new(1)
        .settings(|s| s.delivery_timeout = ms(1_000))
        .network(|n| n.latency = ms(30));
    let mut world = World::warm(setup, LANES);
    let load = |world: &mut World, turns: std::ops::Range<u32>| {
        for turn in turns {
            for lane in (0..LANES).filter(|lane| turn >= 5 * lane && (turn + lane) % 5 == 0) {
                world.append(lane, 100);
            }
            world.run_for(ms(5));
        }
    };
    world.pause_node(1);
    load(&mut world, 0..400);
    world.resume_node(1);
    let failures = world.dispatcher.counters().connection_failures;
    load(&mut world, 400..500);
    let appended: Vec<_> = world.lanes.lanes.iter().map(Lane::appended).collect();
    load(&mut world, 500..800);
    world.settle(ms(1_000));
    let counters = world.dispatcher.counters();
    assert_eq!(
        counters.connection_failures, failures,
        "none is ended again"
    );
    for ((lane, number), outcome) in &world.outcomes {
        if *number >= appended[usize::try_from(*lane).expect("small")] {
            let acked = matches!(outcome.verdict, Verdict::Acked { .. });
            assert!(acked, "record {number} of lane {lane}: {outcome:?}");
        }
    }
    world.check(true);
}

/// Our own process is stopped for five times the delivery timeout, with a batch on the wire, one that
/// waits for a broker without an answer, and one that was appended and never seen by the shard. What was
/// answered meanwhile is acked, as the answer lies there; what nobody answered is Unknown; what was not
/// sent is NotWritten and in no log. What is appended after it is acked, over the connection to the
/// broker that did answer.
#[test]
fn x3_a_process_that_stood_still_past_the_deadline_settles_each_record_once() {
    let setup = Setup::new(2)
        .settings(|s| s.delivery_timeout = ms(1_000))
        .network(|n| n.latency = ms(30));
    let mut world = World::warm(setup, 2);
    world.pause_node(2);
    let lanes = [1, 2].map(|node| {
        let mut lanes = [0_u32, 1].into_iter();
        let led = |lane: &u32| world.broker.leader("t", lane.cast_signed()) == Some(node);
        lanes.find(led).expect("each leads one")
    });
    let [answered, silent] = lanes.map(|lane| world.append(lane, 100));
    world.run_for(ms(20));
    let unseen = world.append(lanes[0], 100);
    let failures = world.dispatcher.counters().connection_failures;

    world.pause(ms(5_000));
    world.resume_node(2);
    // A shard that is stopped waits for its driver, and gets what came when it goes on.
    world.happen();
    world.settle(ms(100));

    let verdict = |world: &World, lane, number| world.outcome(lane, number).verdict.clone();
    assert!(world.is_acked(lanes[0], answered));
    let silent = verdict(&world, lanes[1], silent);
    assert!(matches!(silent, Verdict::Unknown(_)), "{silent:?}");
    let unseen = verdict(&world, lanes[0], unseen);
    assert!(matches!(unseen, Verdict::NotWritten(_)), "{unseen:?}");
    let [first, second] = lanes.map(|lane| world.append(lane, 100));
    world.settle(ms(2_000));
    assert!(world.is_acked(lanes[0], first) && world.is_acked(lanes[1], second));
    let lost = world.dispatcher.counters().connection_failures - failures;
    assert_eq!(lost, 1, "only the one to the broker that was silent");
    world.check(true);
}

/// Answers that take most of the delivery timeout: records are sent all the same, and acked.
#[test]
fn r2_slow_answers_do_not_keep_records_from_being_sent() {
    let setup = Setup::new(1).settings(|s| s.delivery_timeout = ms(1_000));
    let mut world = World::warm(setup, 1);
    world.network.latency = ms(350);
    for _ in 0..5 {
        world.append(0, 100);
        world.settle(ms(2_000));
    }
    assert!(world.all_acked(), "{:?}", world.outcomes);
    world.check(true);
}

/// Three nodes that each have a copy of everything; a batch counts once two have it.
fn copies() -> Setup {
    Setup::new(3).broker(|b| {
        b.replication = Replication {
            factor: 3,
            min_insync: 2,
            ..Replication::default()
        };
    })
}

/// Two of three brokers stand still for 45 s, go on for 20 s, and so on in turn, with a delivery timeout
/// of 30 s: every record has one outcome, within its deadline, and is in the log once if it was acked; all
/// three outcomes came up, so each missing record was reported failed or maybe. After the last pause all
/// partitions take records again, at once.
#[test]
fn i13_two_of_three_brokers_stand_still_longer_than_the_deadline_again_and_again() {
    const LANES: u32 = 6;
    let timeout = ms(30_000);
    let setup = copies().settings(|s| s.delivery_timeout = timeout);
    let mut world = World::warm(setup, LANES);
    let mut appended = BTreeMap::new();
    let mut load = |world: &mut World, time: Duration| {
        let end = world.now + time;
        while world.now < end {
            for lane in 0..LANES {
                let number = world.append(lane, 100);
                appended.insert((lane, number), world.now);
            }
            world.run_for(ms(200));
        }
    };
    for spared in [1, 2, 3, 1] {
        let stopped = (1..=3).filter(|node| *node != spared);
        for node in stopped.clone() {
            world.pause_node(node);
            world.broker.pause_node(node, true);
        }
        load(&mut world, ms(45_000));
        for node in stopped {
            world.broker.pause_node(node, false);
            world.resume_node(node);
        }
        load(&mut world, ms(20_000));
    }
    world.settle(timeout);
    for (record, at) in &appended {
        let took = world.outcomes[record].at.since(*at);
        assert!(took <= timeout + ms(1), "{record:?} took {took:?}");
    }
    let mut ended = [0; 3];
    for outcome in world.outcomes.values() {
        match outcome.verdict {
            Verdict::Acked { .. } => ended[0] += 1,
            Verdict::NotWritten(_) => ended[1] += 1,
            Verdict::Unknown(_) => ended[2] += 1,
            Verdict::Sent => panic!("with acks=all"),
        }
    }
    assert!(ended.iter().all(|count| *count > 0), "{ended:?}");
    world.check(true);

    let numbers: Vec<_> = (0..LANES).map(|lane| world.append(lane, 100)).collect();
    world.settle(ms(1_000));
    for (lane, number) in (0..).zip(numbers) {
        assert!(world.is_acked(lane, number), "lane {lane} is wedged");
    }
    world.check(true);
}

/// The codes that an answer to a Produce request of this version gives.
fn codes_of(answer: &[u8], version: i16) -> Vec<ErrorCode> {
    let mut reader = Reader::new(&answer[4..]);
    header::read_correlation_id(&mut reader).expect("a correlation id");
    let api = ringpost_codec::kafka::ApiKey::PRODUCE;
    header::read_response_rest(&mut reader, api, version).expect("a header");
    let response = produce::decode_response(version, reader.rest()).expect("an answer");
    response.partitions().map(|p| p.error).collect()
}

/// A leader's log directory fails: it answers KAFKA_STORAGE_ERROR until its office is another's. Records
/// go on with the new leader: all are acked, in order, in the log once, the ones that met the error too,
/// and none is sent to the old leader any more.
#[test]
fn n10_records_leave_a_leader_whose_log_directory_failed() {
    for in_flight in [1, 5] {
        let setup = copies().settings(|s| {
            s.linger = Linger::Auto { gap: ms(0) };
            s.in_flight_max = in_flight;
        });
        let mut world = World::warm(setup, 3);
        let lane = (0..3).find(|p| world.broker.leader("t", *p) == Some(1));
        let (partition, mut told) = (lane.expect("each leads one"), 0);
        let lane = partition.cast_unsigned();
        let refused = Rc::new(Cell::new(0));
        let seen = Rc::clone(&refused);
        world.tamper = Tamper::with(move |answer| {
            let codes = codes_of(answer, 13);
            let storage = codes.contains(&ErrorCode::KAFKA_STORAGE_ERROR);
            seen.set(seen.get() + u32::from(storage));
        });
        for round in 0..200 {
            if round == 50 {
                // Who leads now gets about only after a while.
                (1..=3).for_each(|node| world.broker.hold_metadata(node, 150));
                world.broker.set_log_dir(1, false);
            }
            if round == 100 {
                told = world.requests.len();
            }
            for lane in 0..3 {
                world.append(lane, 100);
            }
            world.run_for(ms(5));
        }
        world.settle(ms(5_000));
        assert!(refused.get() > 0, "nobody met the error");
        assert_ne!(world.broker.leader("t", partition), Some(1));
        assert!(world.all_acked());
        let late = world.requests[told..].iter().filter(|r| r.node == 1);
        assert_eq!(late.flat_map(batches_of).count(), 0);
        assert!(world.is_acked(lane, 200));
        world.check(true);
    }
}

/// 100 ms and up to 20 ms more each way, 3,000 kbit/s: what is appended at once is acked at no less than
/// nine tenths of what the link carries, which is several times what fits in flight with one request at a
/// time; so is what comes evenly at that rate, without a backlog. No time-out, no failure, no retry.
#[test]
fn n5_a_long_thin_link_is_filled_and_times_nothing_out() {
    const BYTES_PER_SECOND: usize = 3_000_000 / 8;
    const LANES: u32 = 6;
    let setup = || {
        Setup::new(1).network(|n| {
            n.latency = ms(100);
            n.jitter = ms(20);
            n.fragment = 1_460;
            n.up_bytes_per_second = BYTES_PER_SECOND;
        })
    };
    let untroubled = |world: &World| {
        assert!(world.all_acked());
        let counters = world.dispatcher.counters();
        assert_eq!((counters.connection_failures, counters.retries), (0, 0));
        world.check(true);
    };
    let share =
        |bytes: usize, time: Duration| bytes as f64 / time.as_secs_f64() / BYTES_PER_SECOND as f64;

    let mut world = World::warm(setup(), LANES);
    let start = world.now;
    for number in 0..4_000 {
        world.append(number % LANES, 1_000);
    }
    world.settle(ms(30_000));
    let filled = share(4_000 * 1_000, world.now.since(start));
    assert!((0.9..1.0).contains(&filled), "{filled}");
    untroubled(&world);

    // A record of a kilobyte every 3 ms: nine tenths of the link with what is around it.
    let mut world = World::warm(setup(), LANES);
    let mut acked = [0; 2];
    for number in 0..10_000 {
        if number == 5_000 {
            acked[0] = world.outcomes.len();
        }
        world.append(number % LANES, 1_000);
        world.run_for(ms(3));
    }
    acked[1] = world.outcomes.len();
    let filled = share((acked[1] - acked[0]) * 1_000, ms(15_000));
    assert!((0.85..0.95).contains(&filled), "{filled}");
    // The link's own 250 ms, and as much for a request to be on its way before it.
    assert!(world.unsettled() <= 2 * 250 / 3, "{}", world.unsettled());
    world.settle(ms(1_000));
    untroubled(&world);
}

/// With timeouts of an hour: a reset, an orderly end and a refused connect count as failures in the very step
/// in which they arrive, and the next connect comes a back-off later and no more; the record that was in
/// flight is acked a few round trips after that.
#[test]
fn n2_n11_what_the_network_tells_of_a_dead_peer_is_known_when_it_arrives() {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum End {
        Reset,
        Fin,
        Refused,
    }
    let hour = Duration::from_secs(3600);
    for end in [End::Reset, End::Fin, End::Refused] {
        let setup = Setup::new(1).settings(|s| {
            s.request_timeout = hour;
            s.connect_timeout = hour;
            s.delivery_timeout = 2 * hour;
            s.idle_probe = Duration::ZERO;
        });
        let mut world = World::warm(setup, 1);
        world.append(0, 100);
        world.run_for(us(700));
        assert_eq!((world.requests.len(), world.unsettled()), (1, 1));
        let conn = world.requests[0].conn;
        match end {
            End::Reset => world.reset(conn),
            End::Fin => world.hang_up(1),
            End::Refused => world.stop_node(1),
        }
        world.run_for(Duration::ZERO);
        assert_eq!(
            world.dispatcher.counters().connection_failures,
            1,
            "{end:?}"
        );
        let mut failed_at = world.now;
        if end == End::Refused {
            for failure in 2..6 {
                while world.dispatcher.counters().connection_failures < failure {
                    assert!(world.step(failed_at + ms(1_300)), "{end:?}");
                }
                let (tried, ..) = world.connects[world.connects.len() - 1];
                // The refusal takes a round trip, and nothing else.
                assert_eq!(world.now, tried + ms(1), "{end:?}");
                failed_at = world.now;
            }
            world.start_node(1);
        }
        let tries = world.connects.len();
        while world.connects.len() == tries {
            assert!(world.step(failed_at + ms(1_300)), "{end:?}");
        }
        // The record's own back-off, if that is not over yet.
        world.settle(ms(150));
        assert!(world.all_acked(), "{end:?}");
        assert_eq!(world.broker.report().duplicated, 0);
        world.check(true);
    }
}
