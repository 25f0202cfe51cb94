//! What the Java client makes of it: it reads everything back from the server, and compares CRCs,
//! keys, values, headers, timestamps and offsets. So the model's Fetch is not only right by its own
//! word.
//!
//! Needs a JDK and Kafka's jars: from the folder `RINGPOST_KAFKA_LIB`, else fetched once by
//! `scripts/kafka jars`.

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "the model's tests use the rest of it")]
mod support;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use kafka_protocol::messages::ProduceRequest;
use ringpost_broker::{ApiKey, BrokerConfig, Server, ServerConfig, Versions};
use ringpost_codec::compress::{Codec, Compression};
use support::{BatchOf, Produce, read_answer};

const PARTITIONS: i32 = 3;
/// After so long the Java program gives up, and the test fails with what it said.
const SECONDS: &str = "60";

fn kafka_lib() -> PathBuf {
    if let Some(dir) = std::env::var_os("RINGPOST_KAFKA_LIB") {
        return dir.into();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka");
    let output = Command::new(&script)
        .args(["jars", "--version", "4.3.1"])
        .output()
        .unwrap_or_else(|e| panic!("{} cannot be run: {e}", script.display()));
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(
        output.status.success(),
        "{} jars failed: {said}{}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    said.into()
}

/// What the Java consumer reads, one line per record, sorted.
fn read_back(bootstrap: &str, records: usize) -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/ReadBack.java");
    let output = Command::new("java")
        .args([
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        ])
        .arg("-cp")
        .arg(kafka_lib().join("*"))
        .arg(source)
        .args([bootstrap, "t", &records.to_string(), SECONDS])
        .output()
        .expect("java runs (Debian: apt-get install openjdk-17-jdk-headless)");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "the Java consumer read {} of {records} records; it says: {}",
        said.lines().count(),
        String::from_utf8_lossy(&output.stderr)
    );
    let mut lines: Vec<String> = said.lines().map(|l| l.trim_end().to_owned()).collect();
    lines.sort();
    lines
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("x".to_owned(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// Produces batches of every kind to every partition; the lines the consumer should print, sorted.
fn fill(server: &Server) -> Vec<String> {
    let mut expected = Vec::new();
    let mut offsets = [0i64; PARTITIONS as usize];
    let mut streams: Vec<TcpStream> = server
        .bootstrap()
        .split(',')
        .map(|addr| TcpStream::connect(addr).expect("the server listens"))
        .collect();
    let codecs = [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ];
    for (round, codec) in (0..).zip(codecs) {
        for (partition, offset) in (0..PARTITIONS).zip(&mut offsets) {
            let batch = BatchOf {
                values: (0..50)
                    .map(|i| format!("{round}/{partition}/{i}").repeat(i + 1).into())
                    .collect(),
                key: (partition > 0).then(|| vec![round, 0xff]),
                headers: match partition {
                    2 => vec![("a".into(), Some(b"1".to_vec())), ("a".into(), None)],
                    _ => Vec::new(),
                },
                timestamp: 1_700_000_000_000 + i64::from(round),
                compression: Compression::new(codec, None)
                    .ok()
                    .filter(|c| c.codec() != Codec::None),
                ..BatchOf::default()
            };
            for value in &batch.values {
                let key = batch.key.as_ref().map_or("null".to_owned(), |k| hex(k));
                let headers: String = batch
                    .headers
                    .iter()
                    .map(|(k, v)| format!("{k}={};", v.as_ref().map_or("null".into(), |v| hex(v))))
                    .collect();
                let line = format!(
                    "{partition} {offset} {} {key} {} {headers}",
                    batch.timestamp,
                    hex(value)
                );
                expected.push(line.trim_end().to_owned());
                *offset += 1;
            }
            let topic_id = server.with(|b| b.topic_id("t")).expect("it was made");
            let leader = server
                .with(|b| b.leader("t", partition))
                .expect("it has one");
            let batches = vec![(partition, batch.build())];
            let version = [7, 9, 13][usize::from(round) % 3];
            let request = Produce {
                version,
                acks: -1,
                topic: "t",
                topic_id,
                batches,
            };
            let stream = &mut streams[usize::try_from(leader).expect("node ids begin at 1") - 1];
            stream
                .write_all(&request.by_codec(1))
                .expect("the server reads");
            let mut answer = vec![0; 4];
            stream.read_exact(&mut answer).expect("the server answers");
            let len = u32::from_be_bytes([answer[0], answer[1], answer[2], answer[3]]) as usize;
            answer.resize(4 + len, 0);
            stream
                .read_exact(&mut answer[4..])
                .expect("the server answers");
            let answer = read_answer::<ProduceRequest>(&mut answer.into(), 1, version);
            assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        }
    }
    expected.sort();
    expected
}

#[test]
fn the_java_consumer_reads_everything_back() {
    let old = Versions::default()
        .with(ApiKey::Fetch, 4, 11)
        .with(ApiKey::Metadata, 0, 8)
        .with(ApiKey::ListOffsets, 1, 5)
        .with(ApiKey::ApiVersions, 0, 2);
    for (what, nodes, versions) in [
        ("today", 1, Versions::default()),
        ("an old cluster", 2, old),
    ] {
        let storing = ServerConfig::storing();
        let broker = BrokerConfig {
            versions,
            ..storing.broker
        };
        let server = Server::start(ServerConfig {
            nodes,
            broker,
            ..storing
        })
        .expect("a free port");
        server
            .with(|b| b.create_topic("t", PARTITIONS))
            .expect("a fresh broker has no topics");
        let expected = fill(&server);
        let read = read_back(&server.bootstrap(), expected.len());
        assert_eq!(read, expected, "{what}");
        assert_eq!(server.closings(), [], "{what}: the Java client is content");
        assert!(server.shutdown().is_clean());
    }
}
