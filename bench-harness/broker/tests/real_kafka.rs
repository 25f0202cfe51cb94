//! One script of Produce requests, sent to a real Apache Kafka and to the model: the answers must be
//! the same. So what the engine learns from the model holds for the real thing.
//!
//! Needs a JDK; Kafka comes from `scripts/kafka`, on ports of its own, and is ended afterwards.

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "the model's tests use the rest of it")]
mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
    ProduceResponse,
};
use kafka_protocol::protocol::Request;
use ringpost_broker::{ErrorCode, Server, ServerConfig, TopicId};
use ringpost_codec::compress::{Codec, Compression};
use ringpost_codec::record_batch::{Attributes, BatchHeader};
use support::{BatchOf, Produce, frame, read_answer, topic_name};

const PARTITIONS: i32 = 3;
const VERSION: &str = "4.3.1";
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a broker that has just started is asked whether it is ready.
const TRIES: u32 = 100_000;
/// A day long gone: both brokers' clocks are ahead of it.
const PAST: i64 = 1_700_000_000_000;
/// The year 2100.
const FUTURE: i64 = 4_102_444_800_000;

/// A real broker, ended when dropped.
struct Kafka {
    dir: String,
    bootstrap: String,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka")
}

fn run(args: &[&str]) -> String {
    let output = Command::new(script())
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{} cannot be run: {e}", script().display()));
    assert!(
        output.status.success(),
        "scripts/kafka {args:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Kafka {
    fn start() -> Self {
        let said = run(&["up", "--version", VERSION]);
        let value = |key: &str| {
            let line = said.lines().find_map(|l| l.strip_prefix(key));
            line.unwrap_or_else(|| panic!("scripts/kafka up said no {key} but {said}"))
                .to_owned()
        };
        let kafka = Self {
            dir: value("dir="),
            bootstrap: value("bootstrap="),
        };
        run(&[
            "topic",
            &kafka.dir,
            "t",
            "--partitions",
            &PARTITIONS.to_string(),
        ]);
        kafka
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let _ = Command::new(script()).args(["down", &self.dir]).output();
    }
}

/// A broker to talk to, real or not.
struct Peer {
    stream: TcpStream,
    topic_id: TopicId,
    correlation_id: i32,
    producer_id: i64,
}

/// What a partition answered, as far as it can be compared: code, first offset, the log's start,
/// whether there is a time of append, the records at fault.
type Answer = (ErrorCode, i64, i64, bool, Vec<i32>);

impl Peer {
    fn to(bootstrap: &str) -> Self {
        let stream = TcpStream::connect(bootstrap).expect("the broker listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a live socket");
        let mut peer = Self {
            stream,
            topic_id: [0; 16],
            correlation_id: 0,
            producer_id: -1,
        };
        let wanted = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![wanted]))
            .with_allow_auto_topic_creation(false);
        peer.topic_id = peer.ask(12, &request).topics[0].topic_id.into_bytes();
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000);
        // A broker that has just started first fetches a block of ids.
        let mut answers = (0..TRIES).map(|_| peer.ask(4, &request));
        let answer = answers
            .find(|a| ErrorCode(a.error_code) != ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)
            .expect("the broker has producer ids at last");
        assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
        peer.producer_id = answer.producer_id.0;
        peer.wait_for_leaders();
        peer
    }

    /// Waits until every partition has its leader at work: a topic is created before that.
    fn wait_for_leaders(&mut self) {
        let partition = |number| {
            ListOffsetsPartition::default()
                .with_partition_index(number)
                .with_timestamp(-1)
        };
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name("t"))
            .with_partitions((0..PARTITIONS).map(partition).collect());
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic]);
        let led = (0..TRIES).any(|_| {
            let answer = self.ask(5, &request);
            answer
                .topics
                .iter()
                .flat_map(|t| &t.partitions)
                .all(|p| p.error_code == 0)
        });
        assert!(led, "the partitions of a new topic have leaders at last");
    }

    fn answer(&mut self) -> Bytes {
        let mut length = [0; 4];
        self.stream
            .read_exact(&mut length)
            .expect("the broker answers");
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream
            .read_exact(&mut frame)
            .expect("the broker answers in full");
        [&length[..], &frame].concat().into()
    }

    fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.correlation_id += 1;
        let bytes = frame(self.correlation_id, version, request);
        self.stream.write_all(&bytes).expect("the broker reads");
        read_answer::<R>(&mut self.answer(), self.correlation_id, version)
    }

    fn produce(&mut self, version: i16, acks: i16, batches: &[(i32, Vec<u8>)]) -> Vec<Answer> {
        self.correlation_id += 1;
        let topic_id = self.topic_id;
        let request = Produce {
            version,
            acks,
            topic: "t",
            topic_id,
            batches: batches.to_vec(),
        };
        let bytes = request.by_codec(self.correlation_id);
        self.stream.write_all(&bytes).expect("the broker reads");
        let answer: ProduceResponse =
            read_answer::<ProduceRequest>(&mut self.answer(), self.correlation_id, version);
        let mut partitions: BTreeMap<i32, Answer> = BTreeMap::new();
        for p in answer.responses.iter().flat_map(|t| &t.partition_responses) {
            let named = p.record_errors.iter().map(|e| e.batch_index).collect();
            let stamped = p.log_append_time_ms >= 0;
            let code = ErrorCode(p.error_code);
            let answer = (code, p.base_offset, p.log_start_offset, stamped, named);
            partitions.insert(p.index, answer);
        }
        partitions.into_values().collect()
    }
}

fn records(count: usize) -> BatchOf {
    BatchOf {
        timestamp: PAST,
        ..BatchOf::records(count)
    }
}

fn spoiled(spoil: fn(&mut BatchHeader)) -> BatchOf {
    BatchOf {
        spoil,
        ..records(3)
    }
}

/// Batches that need no state: a name, and the bytes.
fn stateless() -> Vec<(String, Vec<u8>)> {
    let good = records(3).build();
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let mut all: Vec<(String, Vec<u8>)> = vec![
        ("good".into(), good.clone()),
        ("nothing".into(), Vec::new()),
        ("two batches".into(), [&good[..], &good].concat()),
        (
            "a flipped bit".into(),
            changed(|b| *b.last_mut().expect("it is not empty") ^= 1),
        ),
        ("a flipped CRC".into(), changed(|b| b[17] ^= 1)),
        (
            "count too low".into(),
            spoiled(|h| h.record_count = 2).build(),
        ),
        (
            "delta too high".into(),
            spoiled(|h| h.last_offset_delta = 3).build(),
        ),
        (
            "no records".into(),
            spoiled(|h| (h.record_count, h.last_offset_delta) = (0, -1)).build(),
        ),
        (
            "control".into(),
            spoiled(|h| h.attributes = Attributes(0x20)).build(),
        ),
        (
            "from the future".into(),
            BatchOf {
                timestamp: FUTURE,
                ..records(1)
            }
            .build(),
        ),
        (
            "a compressed batch from the future".into(),
            BatchOf {
                timestamp: FUTURE,
                compression: Compression::new(Codec::Lz4, None).ok(),
                ..records(300)
            }
            .build(),
        ),
        (
            "too large".into(),
            BatchOf {
                values: vec![vec![7; 1_100_000]],
                ..records(1)
            }
            .build(),
        ),
    ];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let compression = Compression::new(codec, None).ok();
        let batch = BatchOf {
            compression,
            ..records(300)
        };
        all.push((format!("{codec:?}"), batch.build()));
    }
    all
}

#[test]
fn the_model_answers_as_kafka_does() {
    let kafka = Kafka::start();
    let server = Server::start(ServerConfig::storing()).expect("a free port");
    server
        .with(|b| b.create_topic("t", PARTITIONS))
        .expect("a fresh broker has no topics");
    let mut real = Peer::to(&kafka.bootstrap);
    let mut model = Peer::to(&server.bootstrap());
    let mut differences = Vec::new();
    let mut compared = 0;
    let mut compare = |what: String, real: Vec<Answer>, model: Vec<Answer>| {
        compared += 1;
        if real != model {
            differences.push(format!(
                "{what}: Kafka {real:.300?}, the model {model:.300?}"
            ));
        }
    };

    for (what, bytes) in stateless() {
        for version in [3, 5, 7, 8, 9, 11, 13] {
            let batches = [(0, bytes.clone())];
            let answers = (
                real.produce(version, -1, &batches),
                model.produce(version, -1, &batches),
            );
            compare(format!("{what} in v{version}"), answers.0, answers.1);
        }
    }
    let good = records(1).build();
    for acks in [-1, 1, 2, -2] {
        let batches = [(1, good.clone())];
        let answers = (
            real.produce(9, acks, &batches),
            model.produce(9, acks, &batches),
        );
        compare(format!("acks {acks}"), answers.0, answers.1);
    }
    let batches = [(0, good.clone()), (7, good.clone()), (1, good)];
    let answers = (
        real.produce(9, -1, &batches),
        model.produce(9, -1, &batches),
    );
    compare("a partition that is not there".into(), answers.0, answers.1);

    // (epoch, sequence, count), on partition 2, in order.
    let sequence = [
        (0, 5, 2), // an unknown producer may begin anywhere
        (0, 7, 3),
        (0, 7, 3), // again
        (0, 10, 1),
        (0, 7, 3),  // again, not the last one
        (0, 7, 2),  // the same start, another count
        (0, 20, 1), // a hole
        (0, 11, 1),
        (0, 12, 1),
        (0, 13, 1),
        (0, 14, 1),
        (0, 5, 2), // older than five batches
        (0, 7, 3),
        (0, 10, 1), // the oldest of the five
        (1, 4, 1),  // a new epoch not at zero
        (1, 0, 1),
        (0, 15, 1), // the old epoch
        (0, 14, 1),
        (1, 0, 1),
        (3, 0, 2), // epochs may jump
        (3, 2, 1),
        (2, 0, 1),
        (4, 0, 1),
        (4, -1, 1), // no sequence
    ];
    for (step, (epoch, sequence, count)) in sequence.into_iter().enumerate() {
        let answer = |peer: &mut Peer| {
            let producer = Some((peer.producer_id, epoch, sequence));
            peer.produce(
                9,
                -1,
                &[(
                    2,
                    BatchOf {
                        producer,
                        ..records(count)
                    }
                    .build(),
                )],
            )
        };
        let answers = (answer(&mut real), answer(&mut model));
        compare(
            format!("step {step}: {epoch}/{sequence} x {count}"),
            answers.0,
            answers.1,
        );
    }
    // Around the largest sequence number, with ids of their own.
    let (mut real, mut model) = (Peer::to(&kafka.bootstrap), Peer::to(&server.bootstrap()));
    for (sequence, count) in [
        (i32::MAX - 2, 2),
        (i32::MAX, 3),
        (i32::MAX, 3),
        (2, 1),
        (0, 1),
    ] {
        let answer = |peer: &mut Peer| {
            let producer = Some((peer.producer_id, 0, sequence));
            peer.produce(
                12,
                -1,
                &[(
                    2,
                    BatchOf {
                        producer,
                        ..records(count)
                    }
                    .build(),
                )],
            )
        };
        let answers = (answer(&mut real), answer(&mut model));
        compare(format!("wrap: {sequence} x {count}"), answers.0, answers.1);
    }

    assert!(
        differences.is_empty(),
        "of {compared}:\n{}",
        differences.join("\n")
    );
}
