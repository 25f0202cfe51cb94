//! Topics, leaders and addresses that change: directory and dispatcher together.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use ringpost_broker::{ApiKey, Broker, ErrorCode, PartitionFault, Replication, RequestFault};
use ringpost_core::allowed_hosts::AllowedHosts;
use ringpost_core::directory::TopicError;
use ringpost_core::id::{BrokerId, LaneId};
use ringpost_core::outcome::{Cause, Verdict, Why};
use ringpost_core::time::Time;

use ringpost_simulator::setup::{Setup, address, ms, us};
use ringpost_simulator::world::World;

fn asked_at(world: &World) -> Vec<Time> {
    let is_metadata = |frame: &[u8]| frame[4..6] == [0, 3];
    let questions = world.questions.iter();
    let metadata = questions.filter(|(_, frame)| is_metadata(frame));
    metadata.map(|(at, _)| *at).collect()
}

/// The error comes at 30 s of pretend time, and nothing before.
#[test]
fn m2_an_unknown_topic_fails_after_the_propagation_window_and_not_before() {
    let mut world = World::new(Setup::new(1));
    let start = world.now;
    world.want("t");
    world.run_for(ms(20_000));
    assert!(world.failed_topics.is_empty());
    // Others who want it too do not keep it waiting.
    world.want("t");
    world.run_for(ms(20_000));
    let [(at, _, TopicError::Unknown { .. })] = &world.failed_topics[..] else {
        panic!("{:?}", world.failed_topics)
    };
    assert!(
        at.since(start) >= ms(30_000) && at.since(start) < ms(30_100),
        "{:?}",
        at.since(start)
    );
}

/// A broker refuses a topic in use once, as while its rights are loaded. When its leader moves later, the
/// topic is still asked for, and the record acked.
#[test]
fn m3_a_topic_in_use_that_is_refused_once_is_asked_for_again() {
    for code in [
        ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        ErrorCode::INVALID_TOPIC_EXCEPTION,
    ] {
        let mut world = World::warm(Setup::new(2), 1);
        let denied = Some(RequestFault::Error(code));
        world.broker.faults().next_request(ApiKey::Metadata, denied);
        world.directory.refresh();
        world.run_for(ms(1_000));
        assert!(world.broker.faults().is_empty() && world.failed_topics.is_empty());
        world.stop_node(1);
        world.broker.set_node_up(1, false);
        world.broker.move_leader("t", 0, 2);
        world.append(0, 100);
        world.settle(ms(20_000));
        assert!(world.is_acked(0, 1), "{code}");
        world.check(true);
    }
}

/// Its record is acked.
#[test]
fn m2_a_topic_made_within_the_window_is_found() {
    let mut world = World::new(Setup::new(1));
    world.want("t");
    world.run_for(ms(20_000));
    world.broker.create_topic("t", 2).expect("fresh");
    world.run_for(ms(2_000));
    assert_eq!(world.lanes_of("t").len(), 2);
    world.append(1, 100);
    world.settle(ms(100));
    world.check(true);
}

/// Each has its broker's code within 200 ms.
#[test]
fn m3_invalid_names_and_denied_topics_fail_at_once() {
    let mut world = World::new(Setup::new(1));
    let start = world.now;
    world.want("not a name");
    world.run_for(ms(100));
    let code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    let denied = Some(RequestFault::Error(code));
    world.broker.faults().next_request(ApiKey::Metadata, denied);
    world.want("t");
    world.run_for(ms(100));
    let codes: Vec<_> = world
        .failed_topics
        .iter()
        .map(|(at, _, error)| match error {
            TopicError::Refused { code, .. } => (*code, at.since(start) < ms(200)),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(
        codes,
        [(ErrorCode::INVALID_TOPIC_EXCEPTION, true), (code, true)]
    );
}

/// A topic that is known, with five batches in flight and more behind them, is denied by Produce and by
/// Metadata: each record is "not written" with the broker's code, within 20 ms and after one attempt, no
/// record of another topic is touched, and what is appended after the right came back is acked.
#[test]
fn m3_a_known_topic_with_records_that_becomes_denied_ends_them_at_once() {
    let setup = Setup::new(1).settings(|s| {
        s.linger = ringpost_core::settings::Linger::Auto { gap: ms(0) };
    });
    let mut world = World::warm(setup, 1);
    world.broker.create_topic("other", 1).expect("fresh");
    world.want("other");
    world.run_for(ms(100));
    let code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    let faults = world.broker.faults();
    faults.every_batch("t", 0, PartitionFault::ErrorBefore(code));
    let denied = Some(RequestFault::Error(code));
    faults.every_request(ApiKey::Metadata, denied);
    world.directory.refresh();
    for _ in 0..8 {
        world.append(0, 100);
        world.append(1, 100);
        world.run_for(us(10));
    }
    assert!(world.unsettled() >= 16, "in flight and behind");
    let start = world.now;
    world.settle(ms(20));
    for number in 1..9 {
        let Verdict::NotWritten(failure) = &world.outcome(0, number).verdict else {
            panic!("{:?}", world.outcome(0, number))
        };
        assert_eq!((failure.why, failure.attempts), (Why::Rejected, 1));
        let last = failure.last.as_ref();
        assert!(
            matches!(last, Some(Cause::Broker { code: c, .. }) if *c == code),
            "{failure:#}"
        );
        assert!(world.is_acked(1, number - 1));
    }
    assert!(world.now.since(start) < ms(20));
    world.broker.faults().heal();
    world.append(0, 100);
    world.settle(ms(100));
    assert!(world.is_acked(0, 9));
    world.check(true);
}

/// Five lanes where there were two, every record acked, in order.
#[test]
fn m4_new_partitions_are_used_and_nothing_is_lost() {
    let setup = Setup::new(2).directory(|d| d.metadata_max_age = ms(500));
    let mut world = World::warm(setup, 2);
    for round in 0..100 {
        if round == 30 {
            world.broker.grow_topic("t", 5).expect("it grows");
        }
        for lane in world.lanes_of("t") {
            world.append(lane.0, 100);
        }
        world.run_for(ms(20));
    }
    world.settle(ms(5_000));
    assert_eq!(world.lanes_of("t").len(), 5);
    assert!(world.all_acked());
    world.check(true);
}

/// All records acked once it is back, without a new epoch.
#[test]
fn m6_a_topic_that_is_denied_for_a_while_keeps_its_queues_and_sequences() {
    let mut world = World::warm(Setup::new(1), 2);
    let code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    let faults = world.broker.faults();
    faults.every_request(ApiKey::Metadata, Some(RequestFault::Error(code)));
    faults.every_batch("t", 0, PartitionFault::ErrorBefore(code));
    faults.every_batch("t", 1, PartitionFault::ErrorBefore(code));
    for _ in 0..20 {
        world.append(0, 100);
        world.append(1, 100);
        world.run_for(ms(100));
    }
    assert_eq!(world.lanes_of("t").len(), 2);
    world.broker.faults().heal();
    world.settle(ms(5_000));
    assert!(world.all_acked());
    assert_eq!(world.dispatcher.counters().epoch_bumps, 0);
    world.check(true);
}

/// Nothing is settled for 20 s, and all is acked once there are leaders.
#[test]
fn m8_records_for_a_partition_without_a_leader_wait_for_one() {
    let mut world = World::warm(Setup::new(2), 2);
    for node in [1, 2] {
        world.stop_node(node);
        world.broker.set_node_up(node, false);
    }
    // One broker is left to tell of it.
    world.start_node(1);
    world.directory.refresh();
    world.run_for(ms(1_000));
    world.append(0, 100);
    world.append(1, 100);
    world.run_for(ms(20_000));
    assert_eq!(world.unsettled(), 2);
    for node in [1, 2] {
        world.start_node(node);
        world.broker.set_node_up(node, true);
    }
    world.settle(ms(5_000));
    assert!(world.all_acked());
    world.check(true);
}

/// The record goes to the newer leader.
#[test]
fn m9_an_older_leader_epoch_is_not_followed() {
    let mut world = World::warm(Setup::new(2), 1);
    let old = Arc::clone(&world.cluster);
    world.broker.move_leader("t", 0, 2);
    world.directory.refresh();
    world.run_for(ms(200));
    let to_two = world.dispatcher.connection_of(LaneId(0));
    let now = world.now;
    world.dispatcher.metadata(now, &old);
    assert_eq!(world.dispatcher.connection_of(LaneId(0)), to_two);
    world.append(0, 100);
    world.settle(ms(100));
    assert_eq!(world.requests.last().expect("sent").node, 2);
    world.check(true);
}

/// With a hint: acked within 8 ms and no metadata asked; of an old broker without hints: asked
/// once.
#[test]
fn m10_a_leader_hint_is_followed_without_asking_for_metadata() {
    for in_flight in [1, 4] {
        let setup = Setup::new(2).settings(|s| {
            s.linger = ringpost_core::settings::Linger::Auto { gap: ms(0) };
        });
        let mut world = World::warm(setup, 1);
        world.broker.move_leader("t", 0, 2);
        let start = world.now;
        for _ in 0..in_flight {
            world.append(0, 100);
            world.run_for(ms(0));
        }
        world.settle(ms(1_000));
        assert!(
            world.now.since(start) <= ms(8),
            "{:?}",
            world.now.since(start)
        );
        assert_eq!(asked_at(&world), [], "no metadata");
        world.check(true);
    }
    // A broker too old for hints.
    let setup = Setup::new(2).broker(|b| {
        b.versions = b.versions.clone().with(ApiKey::Produce, 0, 9);
    });
    let mut world = World::warm(setup, 1);
    world.broker.move_leader("t", 0, 2);
    world.append(0, 100);
    world.settle(ms(1_000));
    assert_eq!(asked_at(&world).len(), 1);
    world.check(true);
}

/// 20 to 45 questions in 30 s, the last ones 800 ms apart and more; acked after healing.
#[test]
fn m11_not_leader_for_ever_asks_for_metadata_ever_more_rarely() {
    let mut world = World::warm(Setup::new(1), 1);
    let fault = PartitionFault::ErrorBefore(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    world.broker.faults().every_batch("t", 0, fault);
    world.append(0, 100);
    world.run_for(ms(30_000));
    let asked = asked_at(&world);
    assert!((20..45).contains(&asked.len()), "{}", asked.len());
    let last = asked[asked.len() - 1].since(asked[asked.len() - 2]);
    assert!(last >= ms(800), "{last:?}");
    world.broker.faults().heal();
    world.settle(ms(5_000));
    assert!(world.all_acked());
    world.check(true);
}

/// One answer says that the topic is not there, has no leader yet, or cannot be told: what was known of it
/// stays published as it was, a record appended meanwhile goes to its leader at once and is acked a round
/// trip later, and one more question settles it.
#[test]
fn m11_one_passing_topic_error_keeps_what_is_known() {
    for code in [
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::LEADER_NOT_AVAILABLE,
        ErrorCode::REQUEST_TIMED_OUT,
    ] {
        let mut world = World::warm(Setup::new(2), 2);
        let known = Arc::clone(&world.cluster.topics["t"]);
        let fault = Some(RequestFault::Error(code));
        world.broker.faults().next_request(ApiKey::Metadata, fault);
        world.directory.refresh();
        world.run_for(ms(10));
        assert_eq!(asked_at(&world).len(), 1);
        assert_eq!(world.cluster.topics["t"], known);
        let start = world.now;
        for lane in [0, 1] {
            world.append(lane, 100);
        }
        world.settle(ms(100));
        assert!(world.now.since(start) <= ms(2), "{code}");
        assert!(world.all_acked() && world.failed_topics.is_empty());
        world.run_for(ms(10_000));
        // The second of them may find nothing new, as it should.
        let asked = asked_at(&world).len();
        assert!((2..=3).contains(&asked), "{code}: {asked}");
        assert_eq!(world.cluster.topics["t"], known);
        world.check(true);
    }
}

/// The only new connection is to the new address.
#[test]
fn m12_a_broker_that_moved_is_left_for_its_new_address() {
    let mut world = World::warm(Setup::new(2), 1);
    let there = address(9);
    world.listening.insert(there, 1);
    world.broker.set_node_address(1, "10.0.0.9", 9092);
    world.directory.refresh();
    world.run_for(ms(200));
    world.append(0, 100);
    world.settle(ms(1_000));
    let to: Vec<_> = world
        .connects
        .iter()
        .filter(|c| c.1.slot != 0)
        .map(|c| c.2)
        .collect();
    assert_eq!(to, [there]);
    world.check(true);
}

/// Two connections, each in a slot of its own.
#[test]
fn m12_two_ids_at_one_address_are_two_brokers() {
    let setup = Setup::new(2).broker(|b| b.nodes[1].host = "10.0.0.1".to_owned());
    let mut world = World::with_topic(setup, "t", 2);
    let now = world.now;
    world.dispatcher.warm_up(now);
    world.run_for(ms(10));
    assert_eq!(world.dispatcher.connection_count(), 2);
    let slots: BTreeSet<_> = world
        .connects
        .iter()
        .map(|(_, conn, _)| conn.slot)
        .collect();
    assert_eq!(slots.len(), 3, "two and the directory's");
    assert!(world.dispatcher.is_warm());
}

/// The topic is found behind refusing, silent and late addresses, with 4 to 12 look-ups.
#[test]
fn m13_every_address_of_a_name_is_tried_and_names_are_resolved_anew() {
    for dark in [false, true] {
        let setup = Setup::new(1).directory(|d| {
            d.bootstrap = vec![("nowhere".to_owned(), 1), ("kafka".to_owned(), 9092)];
        });
        let mut world = World::new(setup);
        let addresses = vec![address(7), address(8), address(1)];
        world.names.insert("kafka".to_owned(), Ok(addresses));
        if dark {
            world.dark.insert(address(7));
        }
        world.broker.create_topic("t", 1).expect("fresh");
        world.want("t");
        world.run_for(ms(15_000));
        assert_eq!(
            world.lanes_of("t").len(),
            1,
            "{dark}: {:?}",
            world.failed_topics
        );
    }
    // The name is not known at first.
    let setup = Setup::new(1).directory(|d| d.bootstrap = vec![("kafka".to_owned(), 9092)]);
    let mut world = World::new(setup);
    world.broker.create_topic("t", 1).expect("fresh");
    world.want("t");
    world.run_for(ms(3_000));
    world.names.insert("kafka".to_owned(), Ok(vec![address(1)]));
    world.run_for(ms(3_000));
    assert_eq!(world.lanes_of("t").len(), 1);
    assert!((4..=12).contains(&world.resolved), "{}", world.resolved);
}

/// Connected within 10 ms of knowing where; all acked after it moved.
#[test]
fn m13_a_broker_whose_name_resolves_late_or_elsewhere_is_reached() {
    let setup = Setup::new(1).broker(|b| b.nodes[0].host = "broker".to_owned());
    let mut world = World::with_topic(setup, "t", 1);
    world.append(0, 100);
    world.run_for(ms(2_000));
    assert_eq!(world.unsettled(), 1);
    world
        .names
        .insert("broker".to_owned(), Ok(vec![address(1)]));
    world.settle(ms(5_000));
    let asked = *asked_at(&world).last().expect("asked again");
    assert!(
        world.now.since(asked) <= ms(10),
        "connected as soon as it was known where"
    );
    // It moves: a refused connection makes the directory look again.
    world.stop_node(1);
    world.listening.insert(address(5), 1);
    world
        .names
        .insert("broker".to_owned(), Ok(vec![address(5)]));
    world.append(0, 100);
    world.settle(ms(10_000));
    assert!(world.all_acked());
    world.check(true);
}

/// All acked at the new addresses, with fewer than 30 connects.
#[test]
fn m15_a_cluster_that_moved_altogether_is_found_again_at_the_bootstrap_names() {
    let setup = Setup::new(2).directory(|d| d.bootstrap = vec![("kafka".to_owned(), 9092)]);
    let mut world = World::new(setup);
    world.names.insert("kafka".to_owned(), Ok(vec![address(1)]));
    world.broker.create_topic("t", 2).expect("fresh");
    world.want("t");
    world.run_for(ms(100));
    world.append(0, 100);
    world.append(1, 100);
    world.settle(ms(1_000));
    for (node, elsewhere) in [(1, 11), (2, 12)] {
        world.stop_node(node);
        world.listening.insert(address(elsewhere), node);
        let host = address(elsewhere).ip().to_string();
        world.broker.set_node_address(node, &host, 9092);
    }
    world
        .names
        .insert("kafka".to_owned(), Ok(vec![address(11)]));
    world.connects.clear();
    world.append(0, 100);
    world.append(1, 100);
    world.settle(ms(20_000));
    assert!(world.all_acked());
    assert!(world.connects.len() < 30, "{}", world.connects.len());
    world.check(true);
}

/// The change is told once for each cluster, also when two take turns, and only what the one that
/// answers has is known: its brokers, topics and partitions; records go on to those.
#[test]
fn m16_another_cluster_at_the_same_address_is_told_and_not_mixed_in() {
    let mut world = World::warm(Setup::new(2), 3);
    world.broker.create_topic("old", 2).expect("fresh");
    world.directory.want(world.now, &"old".into());
    world.run_for(ms(1_000));
    assert!(world.cluster.topics.contains_key("old"));
    assert_eq!(world.cluster_changes, 0);
    let mut other = Setup::new(1).broker;
    other.auto_create = false;
    other.cluster_id = "another".to_owned();
    other.seed = 99;
    let mut away = Broker::new(other);
    away.create_topic("t", 1).expect("fresh");
    for (turn, told) in [1, 2, 2, 2].into_iter().enumerate() {
        core::mem::swap(&mut world.broker, &mut away);
        world.hang_up(1);
        world.hang_up(2);
        world.directory.refresh();
        world.run_for(ms(2_000));
        assert_eq!(world.cluster_changes, told, "turn {turn}");
        let (brokers, partitions) = if turn % 2 == 0 { (1, 1) } else { (2, 3) };
        assert_eq!(world.cluster.brokers.len(), brokers, "turn {turn}");
        assert_eq!(world.cluster.topics["t"].partitions.len(), partitions);
        assert_eq!(world.cluster.topics.contains_key("old"), turn % 2 == 1);
        world.append(0, 100);
        world.settle(ms(20_000));
        assert!(world.all_acked(), "turn {turn}");
    }
}

/// Ids of producers are unique within a cluster only: what goes to another has an id that it gave.
#[test]
fn m16_another_cluster_is_sent_nothing_under_an_id_it_did_not_give() {
    let mut world = World::warm(Setup::new(1), 2);
    world.append(0, 100);
    world.settle(ms(1_000));
    let ours = world.log("t", 0)[0].header.producer_id;
    let mut other = Setup::new(1).broker;
    other.auto_create = false;
    other.cluster_id = "another".to_owned();
    let mut away = Broker::new(other);
    away.create_topic("t", 2).expect("fresh");
    core::mem::swap(&mut world.broker, &mut away);
    world.hang_up(1);
    world.directory.refresh();
    world.run_for(ms(2_000));
    let identities = |world: &World| {
        let is_identity = |frame: &[u8]| frame[4..6] == [0, 22];
        let questions = world.questions.iter();
        questions.filter(|(_, frame)| is_identity(frame)).count()
    };
    let before = identities(&world);
    // One lane has numbers of the old cluster, the other has none yet.
    for lane in 0..2 {
        world.append(lane, 100);
    }
    world.settle(ms(20_000));
    assert!(world.all_acked());
    assert_eq!(
        identities(&world),
        before + 1,
        "asked of the new cluster, once"
    );
    for partition in 0..2 {
        let log = world.log("t", partition);
        let header = &log[0].header;
        assert_eq!((header.base_sequence, log.len()), (0, 1));
        assert_eq!(header.producer_epoch, 0, "no epoch is left of {ours}");
    }
}

/// A name tells another of its two addresses each time it is resolved, under load: nothing in flight is
/// cut off for that, so nothing is sent twice, and it makes no storm of connects.
#[test]
fn m13_a_name_with_changing_addresses_cuts_nothing_off() {
    let setup = Setup::new(1)
        .broker(|b| b.nodes[0].host = "broker".to_owned())
        .directory(|d| d.metadata_max_age = ms(1_000));
    let mut world = World::new(setup);
    world.listening.insert(address(5), 1);
    let turns = [address(1), address(5)];
    world.names.insert("broker".to_owned(), Ok(vec![turns[0]]));
    world.broker.create_topic("t", 1).expect("fresh");
    world.want("t");
    world.run_for(ms(500));
    for turn in 0..40 {
        let there = turns[turn % 2];
        world.names.insert("broker".to_owned(), Ok(vec![there]));
        for _ in 0..26 {
            world.append(0, 100);
            world.run_for(ms(10));
        }
    }
    world.settle(ms(5_000));
    assert!(world.all_acked());
    assert_eq!(world.dispatcher.counters().retries, 0);
    assert_eq!(world.dispatcher.counters().connection_failures, 0);
    // Ten seconds, and metadata once a second.
    let connects = world.connects.iter().filter(|c| c.1.slot != 0).count();
    assert!((2..=12).contains(&connects), "{connects}");
    world.check(true);
}

/// All records acked, those during the outage too.
#[test]
fn m17_an_outage_of_metadata_longer_than_its_age_stops_no_record() {
    let setup = Setup::new(1).directory(|d| {
        d.metadata_max_age = ms(300);
        d.request_timeout = ms(500);
    });
    let mut world = World::warm(setup, 2);
    let faults = world.broker.faults();
    faults.every_request(ApiKey::Metadata, Some(RequestFault::Ignore));
    for _ in 0..100 {
        world.append(0, 100);
        world.append(1, 100);
        world.run_for(ms(50));
    }
    world.broker.faults().heal();
    world.settle(ms(5_000));
    assert!(world.all_acked());
    world.run_for(ms(5_000));
    world.check(true);
}

/// All topics known in 5 ms, all records acked in 6.
#[test]
fn m18_the_first_records_to_fifty_new_topics_take_round_trips_and_no_scans() {
    let mut world = World::new(Setup::new(3));
    let names: Vec<_> = (0..50).map(|n| format!("topic-{n}")).collect();
    for name in &names {
        world.broker.create_topic(name, 1).expect("fresh");
    }
    let start = world.now;
    // One after the other, as threads come: each while another is being asked for.
    for name in &names {
        world.want(name);
        world.run_for(us(50));
    }
    world.run_for(ms(5));
    for name in &names {
        assert_eq!(
            world.lanes_of(name).len(),
            1,
            "{name} after {:?}",
            world.now.since(start)
        );
    }
    let start = world.now;
    for lane in 0..50 {
        world.append(lane, 100);
    }
    world.settle(ms(100));
    assert!(
        world.now.since(start) <= ms(6),
        "{:?}",
        world.now.since(start)
    );
    world.check(true);
}

#[test]
fn m_a_broker_that_hangs_up_on_every_question_fails_the_topic_in_time_and_is_not_stormed() {
    for fault in [RequestFault::CloseBefore, RequestFault::CutAnswer(5)] {
        let mut world = World::new(Setup::new(1));
        world.broker.create_topic("t", 1).expect("fresh");
        let faults = world.broker.faults();
        faults.every_request(ApiKey::Metadata, Some(fault));
        world.want("t");
        world.run_for(ms(60_000));
        let [(_, _, TopicError::NoBroker { attempts, .. })] = &world.failed_topics[..] else {
            panic!("{:?}", world.failed_topics)
        };
        assert!(!attempts.is_empty());
        assert!(world.connects.len() < 100, "{}", world.connects.len());
    }
}

/// With 70,000 brokers, and leaders nobody lists: connections stay bounded, records are acked.
#[test]
fn h9_absurd_metadata_is_bounded_and_ignored() {
    // What the cluster says of leaders it does not list is no leader.
    let mut world = World::warm(Setup::new(2), 2);
    let mut cluster = (*world.cluster).clone();
    cluster.brokers.remove(&BrokerId(2));
    let now = world.now;
    world.dispatcher.metadata(now, &cluster);
    for id in 0..70_000 {
        let broker = cluster.brokers[&BrokerId(1)].clone();
        cluster.brokers.insert(BrokerId(id), broker);
    }
    world.dispatcher.metadata(now, &cluster);
    assert!(world.dispatcher.connection_count() <= usize::from(u16::MAX));
    world.append(0, 100);
    world.append(1, 100);
    world.settle(ms(1_000));
    world.check(true);
}

/// With hang-ups, cut answers, other errors and a broker that is gone for a while in between: the
/// error comes at 30 s of pretend time and the patience of one question, and it is "unknown".
#[test]
fn r8_an_unknown_topic_fails_in_time_whatever_else_goes_wrong() {
    let setup = Setup::new(1).directory(|d| d.request_timeout = ms(1_000));
    let mut world = World::new(setup);
    let start = world.now;
    world.want("t");
    let errors = [
        RequestFault::CloseBefore,
        RequestFault::Error(ErrorCode::LEADER_NOT_AVAILABLE),
        RequestFault::CutAnswer(9),
        RequestFault::Error(ErrorCode::REQUEST_TIMED_OUT),
        RequestFault::Ignore,
    ];
    for round in 0..29 {
        // Every other answer is the broker's own: it does not know the topic.
        let fault = errors[round % errors.len()];
        for fault in [None, Some(fault)] {
            world.broker.faults().next_request(ApiKey::Metadata, fault);
        }
        if round == 13 {
            world.stop_node(1);
        }
        if round == 16 {
            world.start_node(1);
        }
        assert!(world.failed_topics.is_empty(), "{:?}", world.failed_topics);
        world.run_for(ms(1_000));
    }
    world.broker.faults().heal();
    world.run_for(ms(5_000));
    let [(at, _, TopicError::Unknown { .. })] = &world.failed_topics[..] else {
        panic!("{:?}", world.failed_topics)
    };
    let after = at.since(start);
    assert!(after >= ms(30_000) && after <= ms(31_100), "{after:?}");
}

/// Three nodes that each have a copy of everything and lead one partition; the first is asked.
fn copies() -> Setup {
    Setup::new(3)
        .broker(|b| {
            b.replication = Replication {
                factor: 3,
                min_insync: 2,
                ..Replication::default()
            };
        })
        .settings(|s| s.request_timeout = ms(2_000))
}

/// Nobody but clients hears node 1 any more, or it is heard again.
fn cut_first_node_off(world: &mut World, off: bool) {
    for other in [2, 3] {
        world.broker.set_link(1, other, !off);
    }
    world.broker.set_controller_link(1, !off);
}

/// The directory's stays with brokers: where, and how many metadata questions each was asked.
fn stays(world: &World) -> Vec<(SocketAddr, usize)> {
    let connects = world.connects.iter().filter(|c| c.1.slot == 0);
    let starts: Vec<_> = connects.map(|(at, _, to)| (*at, *to)).collect();
    let ends = starts.iter().skip(1).map(|(at, _)| *at);
    let ends: Vec<_> = ends.chain([Time::NEVER]).collect();
    let asked = asked_at(world);
    let during = |from, to| asked.iter().filter(|at| (from..to).contains(*at)).count();
    let stays = starts.iter().zip(ends);
    stays
        .map(|((at, to), end)| (*to, during(*at, end)))
        .collect()
}

/// The controller elects others after 9 s; every record of the cut-off node's partition is acked
/// within 6 s of that, while the cut lasts, and once in the log after it.
#[test]
fn n8_m9_a_broker_cut_off_from_its_peers_is_left_for_one_that_knows_the_new_leaders() {
    let mut world = World::warm(copies(), 3);
    let leads = |world: &World| world.cluster.topics["t"].partitions[0].leader;
    assert_eq!(leads(&world), Some(BrokerId(1)));
    cut_first_node_off(&mut world, true);
    for _ in 0..150 {
        world.append(0, 100);
        world.run_for(ms(100));
    }
    assert_ne!(leads(&world), Some(BrokerId(1)));
    world.settle(ms(1_000));
    assert!(world.all_acked());
    // It is not followed back, however often something is wrong elsewhere.
    let fault = PartitionFault::ErrorBefore(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    world.broker.faults().every_batch("t", 1, fault);
    world.connects.clear();
    world.append(1, 100);
    for _ in 0..300 {
        world.append(0, 100);
        world.run_for(ms(100));
        assert_ne!(leads(&world), Some(BrokerId(1)));
    }
    let stays = stays(&world);
    assert!((6..=20).contains(&stays.len()), "{stays:?}");
    for (to, asked) in &stays[..stays.len() - 1] {
        let most = if *to == address(1) { 1 } else { 2 };
        assert!(*asked <= most, "{stays:?}");
    }
    world.broker.faults().heal();
    cut_first_node_off(&mut world, false);
    world.settle(ms(5_000));
    assert!(world.all_acked());
    world.check(true);
}

/// With a healthy cluster that has no news, and one place that answers nothing: the others are asked
/// in turn, no two questions more than 2.5 s apart, and fewer than two a second.
#[test]
fn n8_a_silent_broker_does_not_keep_the_others_from_being_asked() {
    let mut world = World::warm(copies(), 3);
    let fault = PartitionFault::ErrorBefore(ErrorCode::NOT_LEADER_OR_FOLLOWER);
    world.broker.faults().every_batch("t", 0, fault);
    world.dark.insert(address(2));
    world.append(0, 100);
    world.run_for(ms(60_000));
    let asked = asked_at(&world);
    assert!((30..120).contains(&asked.len()), "{}", asked.len());
    for pair in asked.windows(2) {
        assert!(pair[1].since(pair[0]) <= ms(2_500), "{asked:?}");
    }
    let answering = stays(&world).into_iter().filter(|(_, asked)| *asked > 0);
    let answering: BTreeSet<_> = answering.map(|(to, _)| to).collect();
    assert_eq!(answering, BTreeSet::from([address(1), address(3)]));
    world.broker.faults().heal();
    world.dark.clear();
    world.settle(ms(5_000));
    world.check(true);
}

/// A minute without followers, one broker: metadata is asked at most every 0.8 s in the end, and
/// over the connection there was; acked after healing.
#[test]
fn n8_a_leader_without_followers_is_asked_ever_more_rarely_and_a_single_broker_is_never_left() {
    let mut world = World::warm(Setup::new(1), 1);
    let fault = PartitionFault::ErrorBefore(ErrorCode::NOT_ENOUGH_REPLICAS);
    world.broker.faults().every_batch("t", 0, fault);
    world.append(0, 100);
    world.run_for(ms(60_000));
    let asked = asked_at(&world);
    assert!((10..80).contains(&asked.len()), "{}", asked.len());
    let last = asked[asked.len() - 1].since(asked[asked.len() - 2]);
    assert!(last >= ms(800), "{last:?}");
    assert_eq!(stays(&world), []);
    world.broker.faults().heal();
    world.settle(ms(5_000));
    assert!(world.all_acked());
    world.check(true);
}

/// Of three brokers one is at a host that is not allowed, and so is the one that a leader hint names later:
/// neither is ever connected to, by the directory or by a lane; the refusal is told once however often
/// metadata comes. Records for its partition wait for a leader, and are acked when another leads; all others
/// are acked as ever.
#[test]
fn h10_hosts_that_are_not_allowed_are_never_connected_to() {
    let allowed = AllowedHosts(vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()]);
    let setup = Setup::new(3)
        .settings(|s| s.allowed_hosts = allowed.clone())
        .directory(|d| d.metadata_max_age = ms(1_000));
    let mut world = World::new(setup);
    world.directory = world.directory.allow_only(allowed);
    world.broker.create_topic("t", 3).expect("fresh");
    world.want("t");
    world.run_for(ms(100));
    let led = |world: &World, node| {
        let lane = (0..3).find(|p| world.broker.leader("t", *p) == Some(node));
        lane.expect("each leads one").cast_unsigned()
    };
    let barred = led(&world, 3);
    for _ in 0..50 {
        (0..3).for_each(|lane| _ = world.append(lane, 100));
        world.run_for(ms(100));
    }
    assert_eq!(world.unsettled(), 50, "those of one partition");
    assert!(world.outcomes.keys().all(|(lane, _)| *lane != barred));
    // The hint comes with the address, and with an epoch that is news.
    let lane = led(&world, 1);
    world.broker.move_leader("t", lane.cast_signed(), 3);
    world.append(lane, 100);
    world.run_for(ms(5_000));
    assert_eq!(world.unsettled(), 51);
    assert!(world.connects.iter().all(|(_, _, to)| *to != address(3)));
    assert_eq!(world.refused_hosts, ["10.0.0.3".into()]);
    for lane in [lane, barred] {
        world.broker.move_leader("t", lane.cast_signed(), 2);
    }
    world.settle(ms(5_000));
    assert!(world.all_acked());
    assert!(world.connects.iter().all(|(_, _, to)| *to != address(3)));
    world.check(true);
}
