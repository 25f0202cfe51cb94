//! Records through real Apache Kafka and back, read by Kafka's own consumer.
//!
//! Not part of a plain `cargo test`: `scripts/test kafka` starts a broker per version and runs it
//! by name, with where the broker is in `RINGPOST_BOOTSTRAP` and `RINGPOST_KAFKA_VERSION`. Each test
//! writes a history of what it sent and what was reported, and `scripts/verify/readback` compares
//! it with what is there: the same records, each once, in order, at the reported offsets, keys where
//! the Java client puts them.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ringpost::{Delivery, Header, Outcome, Producer, Record, Topic, TopicError};
use ringpost_codec::checksum::crc32c;
use ringpost_core::random::Random;

/// One at a time: the broker and the disk are shared.
static TURN: Mutex<()> = Mutex::new(());

const PARTITIONS: u32 = 6;

fn environment(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run this through `scripts/test kafka`"))
}

/// A topic name nobody used before.
fn fresh(what: &str) -> String {
    format!("{what}-{}", std::process::id())
}

fn create(topic: &str) {
    let dir = environment("RINGPOST_KAFKA_DIR");
    let partitions = PARTITIONS.to_string();
    script(
        "scripts/kafka",
        &["topic", &dir, topic, "--partitions", &partitions],
    );
}

fn script(path: &str, args: &[&str]) {
    print!("{}", script_output(path, args));
}

fn script_output(path: &str, args: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(root.join(path))
        .args(args)
        .output()
        .expect("the script runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{path} {args:?} failed:\n{text}{errors}"
    );
    text.into_owned()
}

/// Kafka's own consumer finds exactly what the history says.
fn read_back(topic: &str, history: &History) {
    let file = history.write(topic);
    let bootstrap = environment("RINGPOST_BOOTSTRAP");
    let version = environment("RINGPOST_KAFKA_VERSION");
    let path = file.to_str().expect("a plain path");
    script(
        "scripts/verify/readback",
        &["--version", &version, &bootstrap, topic, path],
    );
    std::fs::remove_file(file).expect("written above");
}

/// What was sent and what was reported, in the format of `scripts/verify/HistoryCheck.java`.
#[derive(Default)]
struct History {
    lines: String,
    records: usize,
}

struct Content {
    key: Option<u32>,
    value: Option<u32>,
    headers: u32,
}

impl Content {
    fn of(record: &Record<'_>) -> Self {
        let mut bytes = Vec::new();
        for header in record.headers {
            bytes.extend(length(header.key.len()));
            bytes.extend(header.key.as_bytes());
            match header.value {
                None => bytes.push(0),
                Some(value) => {
                    bytes.push(1);
                    bytes.extend(length(value.len()));
                    bytes.extend(value);
                }
            }
        }
        Self {
            key: record.key.map(crc32c),
            value: record.value.as_ref().map(|value| crc32c(value.bytes())),
            headers: if record.headers.is_empty() {
                0
            } else {
                crc32c(&bytes)
            },
        }
    }
}

fn length(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("small").to_be_bytes()
}

impl History {
    /// The record must have been acknowledged: without faults nothing else may happen.
    fn acked(&mut self, content: &Content, outcome: Outcome) {
        let Outcome::Acked(ack) = outcome else {
            panic!("record {}: {outcome:?}", self.records)
        };
        let hash = |hash: Option<u32>| hash.map_or("-".into(), |hash| format!("{hash:08x}"));
        writeln!(
            self.lines,
            "{}\t{}\t{}\t{}\t{}\t{}\t{:08x}",
            self.records,
            ack.partition,
            ack.offset.expect("an offset"),
            ack.timestamp_ms,
            hash(content.key),
            hash(content.value),
            content.headers,
        )
        .expect("memory");
        self.records += 1;
    }

    fn write(&self, name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("{name}.tsv"));
        let mut file = std::fs::File::create(&path).expect("a file in the temporary directory");
        file.write_all(self.lines.as_bytes()).expect("space");
        path
    }
}

/// Text of made-up words: it compresses about as well as logs do, and no two are alike.
fn words(random: &mut Random, len: usize, out: &mut Vec<u8>) {
    const WORDS: [&str; 16] = [
        "order", "user", "status", "paid", "shipped", "region", "north", "item", "count", "total",
        "error", "retry", "queue", "time", "trace", "id",
    ];
    out.clear();
    while out.len() < len {
        let draw = random.draw();
        out.extend_from_slice(WORDS[usize::try_from(draw % 16).expect("small")].as_bytes());
        write!(out, "={:x} ", (draw >> 8) & 0xffff).expect("memory");
    }
    out.truncate(len);
}

/// Between 0 B and 64 KiB, each doubling as likely as the next.
fn log_uniform(random: &mut Random) -> usize {
    let doublings = random.below(17);
    if doublings == 0 {
        return 0;
    }
    let low = 1 << (doublings - 1);
    low + random.below(low)
}

/// Sends records of all kinds and sizes and reads them back.
fn all_kinds(compression: &str, driver: &str) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let topic_name = fresh(&format!("kinds-{compression}-{driver}"));
    create(&topic_name);
    let producer = Producer::builder()
        .bootstrap(environment("RINGPOST_BOOTSTRAP"))
        .set("compression", compression)
        .and_then(|builder| builder.set("driver", driver))
        .expect("known settings")
        .build()
        .expect("a producer");
    let topic = producer
        .topic_blocking(&topic_name)
        .expect("the topic was created");
    assert_eq!(producer.stats().driver, driver);

    let mut history = History::default();
    let mut waiting: VecDeque<(Content, Delivery)> = VecDeque::new();
    let (mut random, mut value, mut key) = (Random::new(3), Vec::new(), Vec::new());
    let mut bytes = 0;
    for number in 0..30_000 {
        let size = log_uniform(&mut random);
        words(&mut random, size, &mut value);
        let size = random.below(40);
        words(&mut random, size, &mut key);
        let tag = random.draw().to_be_bytes();
        let headers = [
            Header {
                key: "tag",
                value: Some(&tag),
            },
            Header {
                key: "tag",
                value: None,
            },
            Header {
                key: "",
                value: Some(b""),
            },
        ];
        let mut record = Record::value(&value).headers(&headers[..random.below(4)]);
        match number % 4 {
            0 => {}
            1 | 2 => record.key = Some(&key),
            _ => {
                // A tombstone now and then, and keys that are empty but not null.
                record.key = Some(&key[..key.len().min(random.below(3))]);
                if random.below(8) == 0 {
                    record.value = None;
                }
            }
        }
        bytes += value.len();
        let content = Content::of(&record);
        let delivery = topic.send_blocking(record).expect("room comes free");
        waiting.push_back((content, delivery));
        while waiting.len() > 5_000 {
            let (content, delivery) = waiting.pop_front().expect("not empty");
            history.acked(&content, delivery.wait());
        }
    }
    assert!(bytes <= 200_000_000, "{bytes}");
    for (content, delivery) in waiting {
        history.acked(&content, delivery.wait());
    }
    let report = producer.close(Duration::from_secs(30));
    assert!(
        report.in_time && report.records_acked == 30_000,
        "{report:?}"
    );
    read_back(&topic_name, &history);
}

macro_rules! kinds {
    ($($name:ident: $compression:literal $driver:literal;)*) => {
        $(#[test]
        fn $name() {
            all_kinds($compression, $driver);
        })*
    };
}

kinds! {
    all_kinds_plain_ring: "none" "ring";
    all_kinds_plain_epoll: "none" "epoll";
    all_kinds_gzip_ring: "gzip" "ring";
    all_kinds_gzip_epoll: "gzip" "epoll";
    all_kinds_snappy_ring: "snappy" "ring";
    all_kinds_snappy_epoll: "snappy" "epoll";
    all_kinds_lz4_ring: "lz4" "ring";
    all_kinds_lz4_epoll: "lz4" "epoll";
    all_kinds_zstd_ring: "zstd" "ring";
    all_kinds_zstd_epoll: "zstd" "epoll";
}

/// Small records of one sort, in order, all outstanding at once as far as memory allows.
fn stream(topic: &Topic, count: usize, size: usize, seed: u64, history: &mut History) {
    let mut waiting: VecDeque<(Content, Delivery)> = VecDeque::new();
    let (mut random, mut value) = (Random::new(seed), Vec::new());
    for number in 0..count {
        words(&mut random, size, &mut value);
        let key = number.to_be_bytes();
        let mut record = Record::value(&value);
        if number % 2 == 0 {
            record.key = Some(&key);
        }
        let content = Content::of(&record);
        waiting.push_back((
            content,
            topic.send_blocking(record).expect("room comes free"),
        ));
        while waiting.len() > 100_000 {
            let (content, delivery) = waiting.pop_front().expect("not empty");
            history.acked(&content, delivery.wait());
        }
    }
    for (content, delivery) in waiting {
        history.acked(&content, delivery.wait());
    }
}

/// Once, on the newest version: a million records of 100 B.
#[test]
fn a5_w5_a_million_records() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let count = if environment("RINGPOST_KAFKA_VERSION").starts_with("4.") {
        1_000_000
    } else {
        100_000
    };
    let topic_name = fresh("million");
    create(&topic_name);
    let producer = Producer::builder()
        .bootstrap(environment("RINGPOST_BOOTSTRAP"))
        .set("compression", "lz4")
        .and_then(|builder| builder.set("driver", "ring"))
        .expect("known settings")
        .build()
        .expect("a producer");
    let topic = producer
        .topic_blocking(&topic_name)
        .expect("the topic was created");
    let mut history = History::default();
    stream(&topic, count, 100, 11, &mut history);
    producer.close(Duration::from_secs(30));
    read_back(&topic_name, &history);
}

/// Batches that a topic takes only in parts: all records acked, each at its own offset, once, in order.
#[test]
fn b3_batches_that_are_too_large_are_divided() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for compression in ["none", "lz4"] {
        let topic_name = fresh(&format!("narrow-{compression}"));
        let dir = environment("RINGPOST_KAFKA_DIR");
        let partitions = PARTITIONS.to_string();
        let narrow = "max.message.bytes=4000";
        script(
            "scripts/kafka",
            &[
                "topic",
                &dir,
                &topic_name,
                "--partitions",
                &partitions,
                "--config",
                narrow,
            ],
        );
        let producer = Producer::builder()
            .bootstrap(environment("RINGPOST_BOOTSTRAP"))
            .set("compression", compression)
            .expect("a known setting")
            .build()
            .expect("a producer");
        let topic = producer
            .topic_blocking(&topic_name)
            .expect("the topic was created");
        let mut history = History::default();
        stream(&topic, 20_000, 100, 5, &mut history);
        producer.close(Duration::from_secs(30));
        read_back(&topic_name, &history);
    }
}

/// Every Produce version that the broker speaks, one after the other into one topic.
#[test]
fn w5_every_produce_version() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let newest = match environment("RINGPOST_KAFKA_VERSION").as_str() {
        version if version.starts_with("3.6") => 9,
        version if version.starts_with("3.9") => 11,
        _ => 13,
    };
    let topic_name = fresh("versions");
    create(&topic_name);
    let mut history = History::default();
    for version in 3..=newest {
        let producer = Producer::builder()
            .bootstrap(environment("RINGPOST_BOOTSTRAP"))
            .produce_version_max(version)
            .set("compression", if version >= 7 { "zstd" } else { "lz4" })
            .expect("known settings")
            .build()
            .expect("a producer");
        let topic = producer
            .topic_blocking(&topic_name)
            .expect("the topic was created");
        stream(
            &topic,
            2_000,
            200,
            u64::from(version.unsigned_abs()),
            &mut history,
        );
        producer.close(Duration::from_secs(30));
    }
    read_back(&topic_name, &history);
}

/// A record the broker refuses for good is in the dead-letter topic with its key, value and headers
/// and with where it comes from, as Kafka's console consumer prints it.
#[test]
fn r1_a_dead_letter_as_another_client_reads_it() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (topic_name, dead_name) = (fresh("refusing"), fresh("dead"));
    let dir = environment("RINGPOST_KAFKA_DIR");
    for (name, config) in [
        (&topic_name, "max.message.bytes=1000"),
        (&dead_name, "max.message.bytes=100000"),
    ] {
        let create = ["topic", &dir, name, "--partitions", "1", "--config", config];
        script("scripts/kafka", &create);
    }
    let producer = Producer::builder()
        .bootstrap(environment("RINGPOST_BOOTSTRAP"))
        .dead_letter_topic(&*dead_name)
        .build()
        .expect("a producer");
    let topic = producer
        .topic_blocking(&topic_name)
        .expect("the topic was created");
    let headers = [Header {
        key: "trace",
        value: Some(b"7f"),
    }];
    let value = "too-large-".repeat(200);
    let record = Record::keyed(b"user-7", value.as_bytes()).headers(&headers);
    let outcome = topic.send_blocking(record).expect("room").wait();
    assert!(matches!(outcome, Outcome::NotWritten(_)), "{outcome:?}");
    let report = producer.close(Duration::from_secs(30));
    assert!(report.in_time && report.records_acked == 1, "{report:?}");
    assert_eq!(producer.stats().dead_letters.written, 1);

    let consumer = match environment("RINGPOST_KAFKA_VERSION") {
        version if version.starts_with("3.6") => "kafka.tools.ConsoleConsumer",
        _ => "org.apache.kafka.tools.consumer.ConsoleConsumer",
    };
    let bootstrap = environment("RINGPOST_BOOTSTRAP");
    let printed = script_output(
        "scripts/kafka",
        &[
            "tool",
            &dir,
            consumer,
            "--bootstrap-server",
            &bootstrap,
            "--topic",
            &dead_name,
            "--from-beginning",
            "--max-messages",
            "1",
            "--timeout-ms",
            "60000",
            "--property",
            "print.headers=true",
            "--property",
            "print.key=true",
        ],
    );
    let line = printed
        .lines()
        .find(|line| line.starts_with("trace:7f,"))
        .unwrap_or_else(|| panic!("no such record in {printed:?}"));
    let mut fields = line.split('\t');
    let headers = fields.next().expect("headers");
    for part in [
        format!("ringpost.dead-letter.topic:{topic_name},"),
        "ringpost.dead-letter.partition:0,".into(),
        "ringpost.dead-letter.outcome:not-written,".into(),
        "ringpost.dead-letter.attempts:1,".into(),
        "MESSAGE_TOO_LARGE".into(),
    ] {
        assert!(headers.contains(&part), "{part} in {headers}");
    }
    assert_eq!(fields.next(), Some("user-7"));
    assert_eq!(fields.next(), Some(value.as_str()));
}

/// What a real broker says to bad input, and how it is told.
#[test]
fn m3_b3_refusals() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let producer = Producer::builder()
        .bootstrap(environment("RINGPOST_BOOTSTRAP"))
        .topic_timeout(Duration::from_millis(500))
        .auto_create_topics(false)
        .build()
        .expect("a producer");
    let error = producer
        .topic_blocking("no such/topic")
        .expect_err("an invalid name");
    assert!(matches!(error, TopicError::Refused { .. }), "{error}");
    let error = producer
        .topic_blocking(&fresh("unknown"))
        .expect_err("nobody made it");
    assert!(matches!(error, TopicError::Unknown { .. }), "{error}");

    // Larger than the topic takes, though not than we do: the broker's refusal is that record's.
    let topic_name = fresh("refusals");
    create(&topic_name);
    let producer = Producer::builder()
        .bootstrap(environment("RINGPOST_BOOTSTRAP"))
        .request_bytes_max(4 << 20)
        .build()
        .expect("a producer");
    let topic = producer
        .topic_blocking(&topic_name)
        .expect("the topic was created");
    let large = vec![b'x'; 2 << 20];
    let mut random = Random::new(1);
    let incompressible: Vec<u8> = large
        .iter()
        .map(|_| u8::try_from(random.below(256)).expect("a byte"))
        .collect();
    let outcome = topic
        .send_blocking(Record::value(&incompressible))
        .expect("it fits us")
        .wait();
    let Outcome::NotWritten(failure) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(
        format!("{failure:#}").contains("MESSAGE_TOO_LARGE"),
        "{failure:#}"
    );
    // What follows is not harmed, though the refused batch had used up sequence numbers.
    let mut history = History::default();
    stream(&topic, 1_000, 100, 5, &mut history);
    producer.close(Duration::from_secs(30));
    read_back(&topic_name, &history);
}
