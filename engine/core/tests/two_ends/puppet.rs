//! The directory with a broker that says whatever a test wants.

use std::net::SocketAddr;
use std::sync::Arc;

use ringpost_codec::kafka::api_versions::{self, ApiRange};
use ringpost_codec::kafka::header::{self, RequestHeader};
use ringpost_codec::kafka::metadata::{Broker, Partition, Response, Topic};
use ringpost_codec::kafka::{ApiKey, ErrorCode, init_producer_id};
use ringpost_codec::reader::Reader;
use ringpost_core::connection::ConnId;
use ringpost_core::directory::{Directory, Task};
use ringpost_core::id::{BrokerId, ProducerIdentity};
use ringpost_core::metadata::Cluster;
use ringpost_core::time::Time;

use crate::world::{Setup, ms};

/// A directory, and a broker on strings.
struct Puppet {
    directory: Directory,
    now: Time,
    metadata: Response,
    identity: init_producer_id::Response,
    published: Option<Arc<Cluster>>,
    identities: Vec<Result<ProducerIdentity, ErrorCode>>,
    closed: u32,
    connects: Vec<SocketAddr>,
    questions: u32,
}

impl Puppet {
    fn new(metadata: Response) -> Self {
        let mut directory = Directory::new(Setup::new(1).directory, 1);
        let now = Time(1_000_000);
        directory.want(now, &"t".into());
        Self {
            directory,
            now,
            metadata,
            identity: init_producer_id::Response::default(),
            published: None,
            identities: Vec::new(),
            closed: 0,
            connects: Vec::new(),
            questions: 0,
        }
    }

    fn run_for(&mut self, time: std::time::Duration) {
        let end = self.now + time;
        loop {
            self.directory.step(self.now);
            while let Some(task) = self.directory.poll_task() {
                self.perform(task);
            }
            let next = self.directory.next_deadline();
            if next > end {
                self.now = end;
                return;
            }
            self.now = next.max(self.now + ms(1));
        }
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Connect { conn, address } => {
                self.connects.push(address);
                self.directory.connected(conn);
            }
            Task::Send { conn, frame } => self.answer(conn, &frame),
            Task::Publish(cluster) => self.published = Some(cluster),
            Task::Identity { result, .. } => self.identities.push(result),
            Task::Close { .. } => self.closed += 1,
            Task::Resolve { .. } | Task::Failed { .. } | Task::ClusterChanged { .. } => {}
        }
    }

    fn answer(&mut self, conn: ConnId, frame: &[u8]) {
        self.questions += 1;
        let asked = RequestHeader::read(&mut Reader::new(&frame[4..])).expect("a header");
        let (api, version) = (asked.api_key, asked.version);
        let mut out = Vec::new();
        header::put_response(&mut out, api, version, asked.correlation_id, |writer| {
            match api {
                ApiKey::API_VERSIONS => {
                    let range = |api_key, max| ApiRange {
                        api_key,
                        min: 0,
                        max,
                    };
                    let offered = api_versions::Response {
                        ranges: vec![
                            range(ApiKey::PRODUCE, 13),
                            range(ApiKey::METADATA, 13),
                            range(ApiKey::INIT_PRODUCER_ID, 4),
                        ],
                        ..api_versions::Response::default()
                    };
                    offered.write(version, writer)
                }
                ApiKey::METADATA => self.metadata.write(version, writer),
                _ => self.identity.write(version, writer),
            }
            .expect("an agreed version");
        });
        self.directory.received(self.now, conn, &out);
    }
}

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

/// The partition is known without a leader.
#[test]
fn h9_a_leader_that_is_not_listed_is_no_leader() {
    let puppet = told(vec![broker(2, "10.0.0.1", 9092)], vec![topic("t", &[0])]);
    let cluster = puppet.published.expect("told");
    assert_eq!(cluster.topics["t"].partitions[0].leader, None);
}

/// Only the topic that was asked for is kept, of 100,000.
#[test]
fn h9_a_million_topics_nobody_asked_for_are_not_kept() {
    let mut topics: Vec<_> = (0..100_000).map(|n| topic(&format!("x{n}"), &[])).collect();
    topics.push(topic("t", &[0]));
    topics.push(Topic {
        name: None,
        ..Topic::default()
    });
    let puppet = told(vec![broker(1, "10.0.0.1", 9092)], topics);
    let cluster = puppet.published.expect("told");
    assert_eq!(cluster.topics.len(), 1);
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
