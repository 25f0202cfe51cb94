//! The directory with a broker that says whatever a test wants.

use ringpost_codec::kafka::ErrorCode;
use ringpost_codec::kafka::metadata::{Broker, Partition, Response, Topic};
use ringpost_core::connection::ConnId;
use ringpost_core::directory::Directory;
use ringpost_core::id::{BrokerId, ProducerIdentity};
use ringpost_simulator::puppet::Puppet;
use ringpost_simulator::setup::ms;
use ringpost_simulator::world::Tamper;

fn broker(id: i32, host: &str, port: i32) -> Broker {
    Broker {
        id,
        host: host.to_owned(),
        port,
        rack: None,
    }
}

fn partitions(numbers: &[i32]) -> Vec<Partition> {
    let one = |index: &i32| Partition {
        index: *index,
        leader: 1,
        ..Partition::default()
    };
    numbers.iter().map(one).collect()
}

fn topic(name: &str, numbers: &[i32]) -> Topic {
    Topic {
        name: Some(name.to_owned()),
        id: [7; 16],
        partitions: partitions(numbers),
        ..Topic::default()
    }
}

fn told(brokers: Vec<Broker>, topics: Vec<Topic>) -> Puppet {
    let mut puppet = Puppet::new(Response {
        brokers,
        topics,
        ..Response::default()
    });
    puppet.run_for(ms(1_000));
    puppet
}

/// The first of two with an id is kept, impossible ones are not.
#[test]
fn h9_broker_ids_twice_negative_or_with_impossible_ports_are_ignored() {
    let brokers = vec![
        broker(1, "10.0.0.1", 9092),
        broker(1, "10.0.0.66", 22),
        broker(-5, "10.0.0.2", 9092),
        broker(2, "10.0.0.3", -1),
        broker(3, "10.0.0.4", 70_000),
    ];
    let puppet = told(brokers, vec![topic("t", &[0])]);
    let cluster = puppet.published.expect("told");
    let ids: Vec<_> = cluster.brokers.keys().copied().collect();
    assert_eq!(ids, [BrokerId(1)]);
    assert_eq!(&*cluster.brokers[&BrokerId(1)].host, "10.0.0.1");
}

/// No topic is published of them.
#[test]
fn h9_partitions_that_are_negative_sparse_or_twice_make_no_topic() {
    for numbers in [
        &[-1, 0][..],
        &[0, 2],
        &[0, 0],
        &[i32::MAX],
        &[i32::MIN],
        &[],
    ] {
        let puppet = told(vec![broker(1, "10.0.0.1", 9092)], vec![topic("t", numbers)]);
        let cluster = puppet.published.expect("told");
        assert!(cluster.topics.is_empty(), "{numbers:?}");
    }
}

/// The answer counts for nothing, the connection ends each time, and the error says what was wrong with it.
#[test]
fn h5_a_host_that_is_no_utf8_is_refused() {
    let mut puppet = Puppet::new(Response {
        brokers: vec![broker(1, "AAAAAAAA", 9092)],
        topics: vec![topic("t", &[0])],
        ..Response::default()
    });
    puppet.tamper = Tamper::with(|answer| {
        let place = answer.windows(8).position(|part| part == b"AAAAAAAA");
        if let Some(at) = place {
            answer[at..at + 4].copy_from_slice(b"\xff\xc0\x80\x1b");
        }
    });
    puppet.run_for(ms(60_000));
    assert!(puppet.published.is_none());
    assert!(puppet.closed > 1);
    let [error] = &puppet.failed[..] else {
        panic!("{:?}", puppet.failed)
    };
    let text = error.to_string();
    assert!(
        text.contains("not UTF-8") && !text.contains(char::is_control),
        "{text:?}"
    );
}

/// The partition is known without a leader.
#[test]
fn h9_a_leader_that_is_not_listed_is_no_leader() {
    let puppet = told(vec![broker(2, "10.0.0.1", 9092)], vec![topic("t", &[0])]);
    let cluster = puppet.published.expect("told");
    assert_eq!(cluster.topics["t"].partitions[0].leader, None);
}

/// Of a million topics only the one that was asked for is kept, and of the memory that reading them took
/// nothing: what stays is no more than a small answer leaves.
#[test]
fn h9_a_million_topics_nobody_asked_for_are_not_kept() {
    let kept_of = |strangers: u32| {
        let mut topics: Vec<_> = (0..strangers)
            .map(|n| topic(&format!("x{n}"), &[]))
            .collect();
        topics.push(topic("t", &[0]));
        topics.push(Topic {
            name: None,
            ..Topic::default()
        });
        let mut puppet = Puppet::new(Response {
            brokers: vec![broker(1, "10.0.0.1", 9092)],
            topics,
            ..Response::default()
        });
        let sizes = std::rc::Rc::new(std::cell::Cell::new(0));
        let answer = std::rc::Rc::clone(&sizes);
        puppet.tamper = Tamper::with(move |bytes| answer.set(bytes.len()));
        let taken = allocation_counter::measure(|| puppet.run_for(ms(1_000)));
        let cluster = puppet.published.as_ref().expect("told");
        assert_eq!(cluster.topics.len(), 1);
        (taken, u64::try_from(sizes.get()).expect("it fits"))
    };
    let (few, _) = kept_of(1);
    let (many, answer) = kept_of(999_998);
    assert!(answer > 20_000_000, "{answer}");
    assert!(
        many.bytes_current <= few.bytes_current + (64 << 10),
        "{} bytes stay, of a small answer {}",
        many.bytes_current,
        few.bytes_current
    );
    // The answer as it was made, as it was received, and its topics as they were read.
    let topics = 1_000_000 * u64::try_from(size_of::<Topic>() + 16).expect("small");
    let most = topics + 6 * answer;
    assert!(many.bytes_max <= most, "{} of {most}", many.bytes_max);
}

/// 5 to 25 connects in 10 s, all to the bootstrap address; what was known stays, and it settles.
#[test]
fn m15_a_broker_that_asks_for_it_sends_us_back_to_the_bootstrap_addresses() {
    let mut puppet = told(vec![broker(1, "10.0.0.7", 9092)], vec![topic("t", &[0])]);
    let good = puppet.metadata.clone();
    puppet.metadata = Response {
        error: ErrorCode::REBOOTSTRAP_REQUIRED,
        ..Response::default()
    };
    puppet.connects.clear();
    puppet.directory.refresh();
    puppet.run_for(ms(10_000));
    assert!(
        (5..25).contains(&puppet.connects.len()),
        "{:?}",
        puppet.connects
    );
    let bootstrap = "10.0.0.1:9092".parse().expect("an address");
    assert!(puppet.connects.iter().all(|to| *to == bootstrap));
    assert_eq!(puppet.published.as_ref().expect("told").topics.len(), 1);
    puppet.metadata = good;
    puppet.run_for(ms(3_000));
    let questions = puppet.questions;
    puppet.run_for(ms(10_000));
    assert_eq!(puppet.questions, questions, "it has settled");
}

/// None is taken, 5 to 20 questions in 5 s, then the good one is.
#[test]
fn i11_ids_that_make_no_sense_are_asked_for_again_and_not_in_a_storm() {
    for (id, epoch) in [(-1, 0), (5, -1), (i64::MIN, i16::MIN)] {
        let mut puppet = told(vec![broker(1, "10.0.0.1", 9092)], vec![topic("t", &[0])]);
        puppet.identity.producer_id = id;
        puppet.identity.producer_epoch = epoch;
        puppet.identity.error = ErrorCode::NONE;
        puppet.directory.identify(0);
        puppet.questions = 0;
        puppet.run_for(ms(5_000));
        assert!(puppet.identities.is_empty());
        assert!((5..20).contains(&puppet.questions), "{}", puppet.questions);
        puppet.identity.producer_id = 5;
        puppet.identity.producer_epoch = 0;
        puppet.run_for(ms(2_000));
        assert_eq!(
            puppet.identities,
            [Ok(ProducerIdentity { id: 5, epoch: 0 })]
        );
    }
}

/// One close, and it connects again.
#[test]
fn h6_an_answer_nobody_asked_the_directory_for_ends_its_connection() {
    let mut puppet = told(vec![broker(1, "10.0.0.1", 9092)], vec![topic("t", &[0])]);
    for generation in 0..5 {
        let conn = ConnId {
            slot: Directory::SLOT,
            generation,
        };
        puppet
            .directory
            .received(puppet.now, conn, &[0, 0, 0, 4, 0, 0, 0, 9]);
    }
    puppet.run_for(ms(1));
    assert_eq!(puppet.closed, 1);
    puppet.directory.refresh();
    puppet.run_for(ms(3_000));
    assert!(puppet.questions >= 3, "connected again");
}

/// Asked for another producer id, a broker that gives the used one again, with whatever epoch, is asked
/// on, with growing waits; the next id that is new is taken.
#[test]
fn i11_a_producer_id_that_is_used_up_is_not_taken_again() {
    for epoch in [0, 3, i16::MAX] {
        let mut puppet = told(vec![broker(1, "10.0.0.1", 9092)], vec![topic("t", &[0])]);
        puppet.identity.producer_id = 5;
        puppet.identity.producer_epoch = 0;
        puppet.identity.error = ErrorCode::NONE;
        puppet.directory.identify(0);
        puppet.run_for(ms(2_000));
        assert_eq!(puppet.identities.len(), 1);
        puppet.identity.producer_epoch = epoch;
        puppet.directory.identify(0);
        puppet.questions = 0;
        puppet.run_for(ms(5_000));
        assert_eq!(puppet.identities.len(), 1, "epoch {epoch}");
        assert!((5..20).contains(&puppet.questions), "{}", puppet.questions);
        puppet.identity.producer_id = 6;
        puppet.run_for(ms(2_000));
        let expected = ProducerIdentity { id: 6, epoch };
        assert_eq!(puppet.identities.last(), Some(&Ok(expected)));
    }
}

/// An answer that cannot be read ends the connection, and whoever waits for an id has it from the next.
#[test]
fn i11_an_answer_that_cannot_be_read_leaves_nobody_without_an_id() {
    let other_question: fn(&mut Vec<u8>) = |answer| answer[7] ^= 1;
    let cut_short: fn(&mut Vec<u8>) = |answer| {
        answer.truncate(answer.len() - 4);
        answer[3] -= 4;
    };
    for spoil in [other_question, cut_short] {
        let mut puppet = told(vec![broker(1, "10.0.0.1", 9092)], vec![topic("t", &[0])]);
        puppet.identity.producer_id = 5;
        puppet.identity.producer_epoch = 0;
        puppet.spoil_identity = Some(spoil);
        puppet.directory.identify(0);
        puppet.run_for(ms(5_000));
        assert!(puppet.spoil_identity.is_none() && puppet.closed > 0);
        let identity = ProducerIdentity { id: 5, epoch: 0 };
        assert_eq!(puppet.identities, [Ok(identity)]);
    }
}

/// Metadata of before version 9 tells epochs that may run backwards: a new leader is followed all the same.
#[test]
fn m9_leader_epochs_of_old_brokers_are_not_believed() {
    for (newest, followed) in [(8, true), (9, false)] {
        let mut before = topic("t", &[0]);
        before.partitions[0].leader_epoch = 7;
        let brokers = vec![broker(1, "10.0.0.1", 9092), broker(2, "10.0.0.2", 9092)];
        let mut puppet = Puppet::new(Response {
            brokers,
            topics: vec![before],
            ..Response::default()
        });
        puppet.metadata_newest = newest;
        puppet.run_for(ms(1_000));
        puppet.metadata.topics[0].partitions[0].leader = 2;
        puppet.metadata.topics[0].partitions[0].leader_epoch = 6;
        puppet.directory.refresh();
        puppet.run_for(ms(1_000));
        let cluster = puppet.published.expect("told");
        let leader = cluster.topics["t"].partitions[0].leader;
        assert_eq!(leader, Some(BrokerId(if followed { 2 } else { 1 })));
    }
}
