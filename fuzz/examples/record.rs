//! Records what a real Kafka answers to every message in every version, and makes of it the inputs that
//! the fuzz targets begin with.
//!
//! ```text
//! eval "$(scripts/kafka up)"; scripts/kafka topic "$dir" recorded --partitions 3
//! cp Cargo.lock fuzz/ && cd fuzz
//! cargo run --example record -- conversation "$bootstrap" >../codec/tests/golden/conversation.txt
//! cargo run --example record -- inputs ../codec/tests/golden/conversation.txt corpus
//! ```
//! A line of the conversation: name of the message, version, request, answer; the last two whole, with
//! their lengths, in hexadecimal digits.

use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use ringpost_codec::checksum::BodyDigest;
use ringpost_codec::kafka::header::{self, RequestHeader};
use ringpost_codec::kafka::{ApiKey, ErrorCode, api_versions, init_producer_id, metadata, produce};
use ringpost_codec::reader::Reader;
use ringpost_codec::record::{Header, encode, record_size};
use ringpost_codec::record_batch::{BATCH_HEADER_LEN, BatchHeader};
use ringpost_codec::writer::Writer;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TOPIC: &str = "recorded";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["conversation", bootstrap] => conversation(bootstrap),
        ["inputs", recorded, to] => inputs(&fs::read_to_string(recorded)?, Path::new(to)),
        _ => Err("record conversation BOOTSTRAP | record inputs CONVERSATION CORPUS".into()),
    }
}

// ---- talking to Kafka -------------------------------------------------------------------------

struct Talk {
    stream: TcpStream,
    correlation_id: i32,
}

impl Talk {
    /// Asks, prints the line, and gives the answer's body.
    fn ask(
        &mut self,
        api_key: ApiKey,
        version: i16,
        body: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Vec<u8>> {
        self.correlation_id += 1;
        let header = RequestHeader {
            api_key,
            version,
            correlation_id: self.correlation_id,
            client_id: Some("recorder"),
        };
        let mut request = Vec::new();
        header::put_request(&mut request, &header, body);
        self.exchange(api_key, version, &request)
    }

    fn exchange(&mut self, api_key: ApiKey, version: i16, request: &[u8]) -> Result<Vec<u8>> {
        let mut len = [0; 4];
        let mut tries = 0;
        let (answer, body) = loop {
            self.stream.write_all(request)?;
            self.stream.read_exact(&mut len)?;
            let mut answer = vec![0; usize::try_from(i32::from_be_bytes(len))?];
            self.stream.read_exact(&mut answer)?;
            let mut reader = Reader::new(&answer);
            header::read_correlation_id(&mut reader)?;
            header::read_response_rest(&mut reader, api_key, version)?;
            let body = reader.rest().to_vec();
            // A broker that was just started has no producer ids yet.
            let loading = ErrorCode::COORDINATOR_LOAD_IN_PROGRESS.0.to_be_bytes();
            tries += 1;
            if api_key != ApiKey::INIT_PRODUCER_ID || body[4..6] != loading || tries > 10_000 {
                break (answer, body);
            }
        };
        println!(
            "{api_key} {version} {} {}{}",
            hex(request),
            hex(&len),
            hex(&answer)
        );
        Ok(body)
    }
}

fn conversation(bootstrap: &str) -> Result<()> {
    let stream = TcpStream::connect(bootstrap)?;
    stream.set_nodelay(true)?;
    let mut talk = Talk {
        stream,
        correlation_id: 0,
    };
    for version in api_versions::VERSIONS {
        let request = api_versions::Request {
            client_software_name: "ringpost",
            client_software_version: "0.1.0",
        };
        talk.ask(ApiKey::API_VERSIONS, version, |out| {
            request.write(version, out).expect("spoken");
        })?;
    }
    // A version from the future: the refusal comes as v0.
    talk.ask(ApiKey::API_VERSIONS, 9, |out| {
        out.raw(b"\x09ringpost\x061.0.0\0");
    })?;
    let mut topic_id = metadata::NO_TOPIC_ID;
    for version in metadata::VERSIONS {
        for topics in [&[TOPIC][..], &["absent", TOPIC, "not a name"], &[]] {
            let request = metadata::Request {
                topics: Some(topics),
                allow_auto_topic_creation: false,
            };
            let body = talk.ask(ApiKey::METADATA, version, |out| {
                request.write(version, out).expect("spoken");
            })?;
            let answer = metadata::Response::read(version, &mut Reader::new(&body))?;
            for topic in &answer.topics {
                if topic.name.as_deref() == Some(TOPIC) && topic.id != metadata::NO_TOPIC_ID {
                    topic_id = topic.id;
                }
            }
        }
    }
    let mut identity = (-1, -1);
    for version in init_producer_id::VERSIONS {
        let body = talk.ask(ApiKey::INIT_PRODUCER_ID, version, |out| {
            init_producer_id::Request::default()
                .write(version, out)
                .expect("spoken");
        })?;
        let answer = init_producer_id::Response::read(version, &mut Reader::new(&body))?;
        identity = (answer.producer_id, answer.producer_epoch);
    }
    let mut sequence = 0;
    for version in produce::VERSIONS {
        let topic = if version >= produce::TOPIC_IDS_FROM {
            produce::TopicRef::Id(topic_id)
        } else {
            produce::TopicRef::Name(TOPIC)
        };
        let good = batch(identity, sequence);
        sequence += 2;
        let mut damaged = batch((-1, -1), -1);
        *damaged.last_mut().ok_or("a batch")? ^= 1;
        // Stored; out of order; damaged; a partition that is not there.
        let batches = [good, batch(identity, 7), damaged, batch((-1, -1), -1)];
        for partitions in [&[0][..], &[0, 1, 2, 9]] {
            talk.correlation_id += 1;
            let request = request(talk.correlation_id, version, topic, partitions, &batches);
            let body = talk.exchange(ApiKey::PRODUCE, version, &request)?;
            produce::decode_response(version, &body)?;
        }
    }
    Ok(())
}

fn request(
    correlation_id: i32,
    version: i16,
    topic: produce::TopicRef<'_>,
    partitions: &[i32],
    batches: &[Vec<u8>; 4],
) -> Vec<u8> {
    let mut out = Vec::new();
    let head = produce::RequestHead {
        version,
        correlation_id,
        client_id: Some("recorder"),
        transactional_id: None,
        acks: -1,
        timeout_ms: 10_000,
        topic_count: 1,
    };
    let len = produce::put_request_head(&mut out, &head);
    produce::put_topic(&mut out, version, topic, partitions.len());
    for (partition, batch) in partitions.iter().zip(batches) {
        produce::put_partition(&mut out, version, *partition, batch.len());
        out.extend_from_slice(batch);
        produce::put_partition_end(&mut out, version);
    }
    produce::put_topic_end(&mut out, version);
    produce::put_request_end(&mut out, version);
    len.patch(&mut out, 0);
    out
}

/// Two records, one with a key and a header.
fn batch((producer_id, producer_epoch): (i64, i16), base_sequence: i32) -> Vec<u8> {
    let headers = [Header {
        key: "trace",
        value: Some(b"7f"),
    }];
    let mut body = Vec::new();
    for (delta, key, headers) in [(0, Some(&b"key"[..]), &headers[..]), (1, None, &[])] {
        let value = b"recorded";
        let size = record_size(0, delta, key, Some(value.len()), headers);
        let at = body.len();
        body.resize(at + size.total, 0);
        encode(&mut body[at..], size, 0, delta, key, Some(value), headers);
    }
    let header = BatchHeader {
        last_offset_delta: 1,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_000,
        producer_id,
        producer_epoch,
        base_sequence,
        record_count: 2,
        ..BatchHeader::default()
    };
    let mut batch = vec![0; BATCH_HEADER_LEN];
    header.write(&BodyDigest::of(&body), &mut batch);
    batch.extend_from_slice(&body);
    batch
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Result<Vec<u8>> {
    (0..digits.len())
        .step_by(2)
        .map(|at| {
            Ok(u8::from_str_radix(
                digits.get(at..at + 2).ok_or("odd")?,
                16,
            )?)
        })
        .collect()
}

// ---- inputs -----------------------------------------------------------------------------------

/// The targets' modules say what an input of theirs looks like.
fn inputs(recorded: &str, to: &Path) -> Result<()> {
    let keep = |target: &str, name: &str, bytes: &[&[u8]]| -> Result<()> {
        fs::create_dir_all(to.join(target))?;
        Ok(fs::write(to.join(target).join(name), bytes.concat())?)
    };
    let mut answers = Vec::new();
    for (number, line) in recorded.lines().enumerate() {
        let [name, version, _, answer] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("line {number} has not four words").into());
        };
        let answer = unhex(answer)?;
        let (message, api_key, oldest) = match name {
            "ApiVersions" => (0, ApiKey::API_VERSIONS, *api_versions::VERSIONS.start()),
            "Metadata" => (1, ApiKey::METADATA, *metadata::VERSIONS.start()),
            "Produce" => (2, ApiKey::PRODUCE, *produce::VERSIONS.start()),
            _ => (
                3,
                ApiKey::INIT_PRODUCER_ID,
                *init_producer_id::VERSIONS.start(),
            ),
        };
        let mut reader = Reader::new(&answer[4..]);
        header::read_correlation_id(&mut reader)?;
        let asked: i16 = version.parse()?;
        header::read_response_rest(&mut reader, api_key, asked)?;
        let body = reader.rest();
        let refused = body.starts_with(&ErrorCode::UNSUPPORTED_VERSION.0.to_be_bytes());
        // As an answer to the newest we know, when it is the refusal of a newer one.
        let version = if refused { 4 } else { asked };
        let index = u8::try_from(version - oldest)?;
        let file = format!("kafka-{name}-{asked}-{number}");
        keep("responses", &file, &[&[message, index], body])?;
        if message == 0 {
            let id = 7_i32.to_be_bytes();
            keep(
                "responses",
                &format!("{file}-first"),
                &[&[4, index], &id, body],
            )?;
        }
        keep(
            "varints",
            &file,
            &[&[8, 30, 31, 14, 15, 29, 31, 18, 19], body],
        )?;
        answers.extend_from_slice(&answer);
    }
    let (some, _) = answers.split_at(answers.len().min(8_000));
    keep("frames", "kafka-whole", &[&[6, 0], some])?;
    keep("frames", "kafka-in-pieces", &[&[6, 3, 0, 2, 200], some])?;
    keep("frames", "kafka-byte-by-byte", &[&[6, 1, 0], some])?;
    for (name, text) in SETTINGS {
        keep("settings", name, &[text.as_bytes()])?;
    }
    Ok(())
}

const SETTINGS: [(&str, &str); 3] = [
    (
        "producer",
        "bootstrap=kafka-1:9092,[::1]:9092\nlinger=5ms\nmemory=64MiB\nacks=all\n\
         compression=zstd:3\npin=2,3\nwait=spin-then-park\npartitioner=consistent\n",
    ),
    (
        "addresses",
        "a:1,b:65535\n[fe80::1]:9092\nhost:0\n:9092\nx:\n",
    ),
    (
        "scenario",
        include_str!("../../bench-harness/scenarios/smoke.toml"),
    ),
];
