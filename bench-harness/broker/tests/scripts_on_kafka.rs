//! The scripts of `support::script`, played against a real Kafka of three nodes: it has to give the
//! answers written in them, which are those the model gives (`tests/model/scripts.rs`).
//!
//! Not part of a plain `cargo test`: `scripts/test broker-model` starts the cluster and runs this by name,
//! with where it is in `RINGPOST_BOOTSTRAP`, `RINGPOST_KAFKA_DIR` and `RINGPOST_KAFKA_VERSION`. The
//! cluster needs the settings that `scripts/test` gives it.

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "the model's tests use the rest of it")]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeQuorumRequest, ElectLeadersRequest,
    FetchRequest,
};
use kafka_protocol::protocol::{Request, StrBytes};
use support::script::{A, B, C, Deed, Kafka, Part, Player, World, scripts};
use support::{frame, read_answer, topic_name};

/// Far beyond anything that is waited for here.
const PATIENCE: Duration = Duration::from_secs(60);
/// Its end is waited at when a little time shall pass.
const CLOCK: &str = "clock";
const CLOCK_MS: i32 = 20;
/// What admin requests may take, in ms.
const ADMIN_MS: i32 = 30_000;

fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run this through `scripts/test broker-model`")
    })
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A real cluster, and a connection to each node.
struct Cluster {
    kafka: Kafka,
    dir: String,
    addresses: Vec<String>,
    /// The node ids that play A, B and C.
    parts: [i32; 3],
    streams: [Option<TcpStream>; 3],
}

impl Cluster {
    fn find() -> Self {
        let bootstrap = environment("RINGPOST_BOOTSTRAP");
        let mut cluster = Self {
            kafka: Kafka::of(&environment("RINGPOST_KAFKA_VERSION")),
            dir: environment("RINGPOST_KAFKA_DIR"),
            addresses: bootstrap.split(',').map(str::to_owned).collect(),
            parts: [1, 2, 3],
            streams: [None, None, None],
        };
        assert_eq!(cluster.addresses.len(), 3, "three nodes are needed");
        // B is never stopped: the node that leads the controllers, so that they always have one.
        let partition = PartitionData::default().with_partition_index(0);
        let topic = TopicData::default()
            .with_topic_name(topic_name("__cluster_metadata"))
            .with_partitions(vec![partition]);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        let answer = cluster.ask(B, 1, &request);
        let controller = answer.topics[0].partitions[0].leader_id.0;
        let mut others = [1, 2, 3].into_iter().filter(|id| *id != controller);
        let mut other = || others.next().expect("two others");
        cluster.parts = [other(), controller, other()];
        cluster.streams = [None, None, None];
        cluster.create_on(CLOCK, &[B], 1);
        cluster
    }

    fn index(part: Part) -> usize {
        match part {
            A => 0,
            B => 1,
            C => 2,
        }
    }

    fn stream(&mut self, part: Part) -> &mut TcpStream {
        let id = self.node_id(part);
        let address = &self.addresses[usize::try_from(id - 1).expect("ids count from 1")];
        self.streams[Self::index(part)].get_or_insert_with(|| {
            let stream = TcpStream::connect(address).expect("the node listens");
            stream
                .set_read_timeout(Some(PATIENCE))
                .expect("a live socket");
            stream
        })
    }

    fn ask<R: Request>(&mut self, to: Part, version: i16, request: &R) -> R::Response {
        let mut answer = self.exchange(to, &frame(99, version, request));
        read_answer::<R>(&mut answer, 99, version)
    }

    fn script(&self, command: &str, part: Part, rest: &[&str]) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka");
        let node = self.node_id(part).to_string();
        let output = Command::new(path)
            .args([command, &self.dir, &node])
            .args(rest)
            .output()
            .expect("scripts/kafka runs");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "scripts/kafka {command}: {words}");
    }

    fn create_on(&mut self, topic: &str, parts: &[Part], min_insync: i32) {
        let brokers = parts.iter().map(|p| BrokerId(self.node_id(*p)));
        let assignment = CreatableReplicaAssignment::default()
            .with_partition_index(0)
            .with_broker_ids(brokers.collect());
        let config = CreatableTopicConfig::default()
            .with_name(text("min.insync.replicas"))
            .with_value(Some(text(&min_insync.to_string())));
        let topic = CreatableTopic::default()
            .with_name(topic_name(topic))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(vec![assignment])
            .with_configs(vec![config]);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(ADMIN_MS);
        let answer = self.ask(B, 7, &request);
        let made = &answer.topics[0];
        assert_eq!(made.error_code, 0, "{:?}", made.error_message);
    }

    fn lead(&mut self, topic: &str, part: Part) {
        let mut order = vec![BrokerId(self.node_id(part))];
        let others = [A, B, C].map(|p| BrokerId(self.node_id(p)));
        order.extend(
            others
                .into_iter()
                .filter(|id| *id != order[0])
                .collect::<Vec<_>>(),
        );
        let partition = ReassignablePartition::default().with_replicas(Some(order));
        let reassigned = ReassignableTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default()
            .with_timeout_ms(ADMIN_MS)
            .with_topics(vec![reassigned]);
        let answer = self.ask(B, 0, &request);
        assert_eq!(answer.error_code, 0);
        assert_eq!(answer.responses[0].partitions[0].error_code, 0);
        let partitions = TopicPartitions::default()
            .with_topic(topic_name(topic))
            .with_partitions(vec![0]);
        let request = ElectLeadersRequest::default()
            .with_election_type(0) // the preferred replica
            .with_topic_partitions(Some(vec![partitions]))
            .with_timeout_ms(ADMIN_MS);
        let answer = self.ask(B, 2, &request);
        assert_eq!(answer.error_code, 0);
        let result = &answer.replica_election_results[0].partition_result[0];
        assert_eq!(result.error_code, 0, "{:?}", result.error_message);
    }
}

impl World for Cluster {
    fn kafka(&self) -> Kafka {
        self.kafka
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "real brokers judge producers' ages by the wall clock"
    )]
    fn now_ms(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        i64::try_from(now.expect("after 1970").as_millis()).expect("before the end")
    }

    fn node_id(&self, part: Part) -> i32 {
        self.parts[Self::index(part)]
    }

    fn exchange(&mut self, to: Part, frame: &[u8]) -> Bytes {
        self.send(to, frame);
        self.receive(to)
    }

    fn send(&mut self, to: Part, frame: &[u8]) {
        self.stream(to).write_all(frame).expect("the node reads");
    }

    fn receive(&mut self, from: Part) -> Bytes {
        let mut length = [0; 4];
        let stream = self.stream(from);
        stream.read_exact(&mut length).expect("the node answers");
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream
            .read_exact(&mut frame)
            .expect("the node answers in full");
        [&length[..], &frame].concat().into()
    }

    fn create(&mut self, topic: &str, copies: usize, min_insync: i32) {
        self.create_on(topic, &[A, B, C][..copies], min_insync);
    }

    fn act(&mut self, topic: &str, deed: Deed) {
        match deed {
            Deed::Lead(part) => self.lead(topic, part),
            Deed::Pause(part) => self.script("signal", part, &["STOP"]),
            Deed::Resume(part) => self.script("signal", part, &["CONT"]),
            Deed::Kill(part) => {
                self.script("signal", part, &["KILL"]);
                self.streams[Self::index(part)] = None;
            }
            Deed::Start(part) => self.script("start", part, &[]),
            Deed::DeleteRecords(before) => {
                let partition = DeleteRecordsPartition::default().with_offset(before);
                let topic = DeleteRecordsTopic::default()
                    .with_name(topic_name(topic))
                    .with_partitions(vec![partition]);
                let request = DeleteRecordsRequest::default()
                    .with_topics(vec![topic])
                    .with_timeout_ms(ADMIN_MS);
                let answer = self.ask(A, 2, &request);
                assert_eq!(answer.topics[0].partitions[0].error_code, 0);
            }
            Deed::Recreate => {
                let request = DeleteTopicsRequest::default()
                    .with_topic_names(vec![topic_name(topic)])
                    .with_timeout_ms(ADMIN_MS);
                let answer = self.ask(B, 5, &request);
                assert_eq!(answer.responses[0].error_code, 0);
                self.create(topic, 1, 1);
            }
            Deed::Grow(count) => {
                let brokers = [B, C, A].map(|p| BrokerId(self.node_id(p)));
                let assignment =
                    CreatePartitionsAssignment::default().with_broker_ids(brokers.to_vec());
                let topic = CreatePartitionsTopic::default()
                    .with_name(topic_name(topic))
                    .with_count(count)
                    .with_assignments(Some(vec![assignment]));
                let request = CreatePartitionsRequest::default()
                    .with_topics(vec![topic])
                    .with_timeout_ms(ADMIN_MS);
                let answer = self.ask(B, 3, &request);
                assert_eq!(answer.results[0].error_code, 0);
            }
        }
    }

    /// Nothing is ever written to the topic, so the broker answers when the time is over.
    fn pass(&mut self) {
        let partition = FetchPartition::default().with_partition_max_bytes(1);
        let topic = FetchTopic::default()
            .with_topic(topic_name(CLOCK))
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(CLOCK_MS)
            .with_min_bytes(1)
            .with_max_bytes(1)
            .with_topics(vec![topic]);
        self.ask(B, 11, &request);
    }
}

/// Real Kafka gives the answers written in every script.
#[test]
fn i1_i2_i5_i9_i11_i12_m4_m5_n8_n9_kafka_plays_every_script_as_written() {
    let mut cluster = Cluster::find();
    let mut differences = Vec::new();
    let mut answers = 0;
    for script in scripts() {
        let began = cluster.now_ms();
        let mut player = Player::new(&mut cluster, &script, script.name.to_owned());
        player.play(&script);
        answers += player.answers;
        let words = |d: &String| format!("{} {d}", script.name);
        differences.extend(player.differences.iter().map(words));
        println!("{}: {} ms", script.name, cluster.now_ms() - began);
    }
    println!("{answers} answers compared, {} differ", differences.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
