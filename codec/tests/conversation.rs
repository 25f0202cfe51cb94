//! A recorded conversation with Kafka 4.3.1 (`golden/conversation.txt`, made by
//! `fuzz/examples/record.rs`): every message in every version, as a real broker answers it.
//!
//! A line: name of the message, version, request, answer; the last two whole, with their lengths.

use ringpost_codec::error::DecodeError;
use ringpost_codec::frame::{DeframeError, Deframer};
use ringpost_codec::kafka::header::{self, RequestHeader};
use ringpost_codec::kafka::{ApiKey, ErrorCode, api_versions, init_producer_id, metadata, produce};
use ringpost_codec::reader::Reader;
use ringpost_codec::record_batch::BatchView;

struct Exchange {
    api_key: ApiKey,
    version: i16,
    request: Vec<u8>,
    answer: Vec<u8>,
}

fn unhex(digits: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a digit");
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).expect("a byte"))
        .collect()
}

fn conversation() -> Vec<Exchange> {
    include_str!("golden/conversation.txt")
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let api_key = match words[0] {
                "ApiVersions" => ApiKey::API_VERSIONS,
                "Metadata" => ApiKey::METADATA,
                "InitProducerId" => ApiKey::INIT_PRODUCER_ID,
                "Produce" => ApiKey::PRODUCE,
                other => panic!("{other}"),
            };
            Exchange {
                api_key,
                version: words[1].parse().expect("a version"),
                request: unhex(words[2]),
                answer: unhex(words[3]),
            }
        })
        .collect()
}

/// What an answer says that a client can compare with what it asked for.
#[derive(Debug, PartialEq)]
enum Answer {
    Versions(api_versions::Response),
    Metadata(metadata::Response),
    ProducerId(init_producer_id::Response),
    /// Topic, partition, code.
    Produce(Vec<(String, i32, ErrorCode)>),
}

/// Reads an answer as the client does: the frame, the correlation id, the header, the body.
fn read(exchange: &Exchange, answer: &[u8]) -> Result<Answer, String> {
    let text = |error: DecodeError| error.to_string();
    let mut frames = Vec::new();
    let cut = Deframer::new(1 << 20).push(answer, |frame| {
        frames.push(frame.to_vec());
        Ok::<(), String>(())
    });
    cut.map_err(|error| match error {
        DeframeError::Frame(error) => error.to_string(),
        DeframeError::Refused(what) => what,
    })?;
    let [frame] = &frames[..] else {
        return Err(format!("{} frames", frames.len()));
    };
    let mut reader = Reader::new(frame);
    let asked = Reader::new(&exchange.request[8..])
        .i32("id")
        .map_err(text)?;
    if header::read_correlation_id(&mut reader).map_err(text)? != asked {
        return Err("another correlation id".into());
    }
    let version = exchange.version;
    header::read_response_rest(&mut reader, exchange.api_key, version).map_err(text)?;
    Ok(match exchange.api_key {
        ApiKey::API_VERSIONS => {
            // Nine was asked to be refused: that is read as an answer to the newest we know.
            let version = version.min(*api_versions::VERSIONS.end());
            Answer::Versions(api_versions::Response::read(version, &mut reader).map_err(text)?)
        }
        ApiKey::METADATA => {
            Answer::Metadata(metadata::Response::read(version, &mut reader).map_err(text)?)
        }
        ApiKey::INIT_PRODUCER_ID => {
            let read = init_producer_id::Response::read(version, &mut reader);
            Answer::ProducerId(read.map_err(text)?)
        }
        _ => {
            let view = produce::decode_response(version, reader.rest()).map_err(text)?;
            let row = |it: produce::PartitionResponse<'_>| {
                (format!("{:?}", it.topic), it.partition, it.error)
            };
            Answer::Produce(view.partitions().map(row).collect())
        }
    })
}

/// Every message in every version is in it, and is read as Kafka meant it.
#[test]
fn w10_what_kafka_says_is_read() {
    let mut seen = Vec::new();
    for exchange in conversation() {
        let (api_key, version) = (exchange.api_key, exchange.version);
        let what = format!("{api_key} v{version}");
        match read(&exchange, &exchange.answer).expect(&what) {
            Answer::Versions(it) if version == 9 => {
                assert_eq!(it.error, ErrorCode::UNSUPPORTED_VERSION);
                assert_eq!(it.range(ApiKey::API_VERSIONS), Some(0..=4));
            }
            Answer::Versions(it) => {
                assert!(it.error.is_ok(), "{what}");
                assert_eq!(it.pick(ApiKey::PRODUCE, produce::VERSIONS), Some(13));
            }
            Answer::Metadata(it) => {
                assert_eq!(it.brokers.len(), 1, "{what}");
                for topic in &it.topics {
                    let code = match topic.name.as_deref() {
                        Some("recorded") => ErrorCode::NONE,
                        // Up to v3 a question makes it, whether one wants that or not.
                        Some("absent") => continue,
                        _ => ErrorCode::INVALID_TOPIC_EXCEPTION,
                    };
                    assert_eq!(topic.error, code, "{what}");
                    let partitions = if code.is_ok() { 3 } else { 0 };
                    assert_eq!(topic.partitions.len(), partitions, "{what}");
                }
            }
            Answer::ProducerId(it) => {
                assert!(it.error.is_ok() && it.producer_id >= 0 && it.producer_epoch == 0);
            }
            Answer::Produce(rows) => {
                let codes: Vec<_> = rows.iter().map(|(_, at, code)| (*at, *code)).collect();
                if codes.len() > 1 {
                    assert_eq!(codes[2], (2, ErrorCode::CORRUPT_MESSAGE), "{what}");
                    assert_eq!(
                        codes[3],
                        (9, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
                        "{what}"
                    );
                }
                assert!(codes[0].1.is_ok() || codes.len() > 1, "{what}: {codes:?}");
            }
        }
        seen.push((api_key, version));
    }
    for (api_key, versions) in [
        (ApiKey::API_VERSIONS, api_versions::VERSIONS),
        (ApiKey::METADATA, metadata::VERSIONS),
        (ApiKey::INIT_PRODUCER_ID, init_producer_id::VERSIONS),
        (ApiKey::PRODUCE, produce::VERSIONS),
    ] {
        for version in versions {
            assert!(seen.contains(&(api_key, version)), "{api_key} v{version}");
        }
    }
}

/// A recorded answer that ends early is never read as a whole one, wherever it ends.
#[test]
fn h2_a_recorded_answer_cut_anywhere_is_not_an_answer() {
    for exchange in conversation() {
        for len in 0..exchange.answer.len() {
            // As it comes from the network, and with a length that fits what is left.
            let mut short = exchange.answer[..len].to_vec();
            assert!(read(&exchange, &short).is_err());
            if let Some(rest) = len.checked_sub(4) {
                let rest = i32::try_from(rest).expect("short");
                short[..4].copy_from_slice(&rest.to_be_bytes());
                let (api_key, version) = (exchange.api_key, exchange.version);
                assert!(
                    read(&exchange, &short).is_err(),
                    "{api_key} v{version} cut at {len}"
                );
            }
        }
    }
}

/// No single flipped bit of a recorded answer panics, and one in its length or its correlation id is
/// seen.
#[test]
fn h12_every_flipped_bit_of_a_recorded_answer_is_read_or_refused() {
    let mut read_on = 0;
    for exchange in conversation() {
        for bit in 0..exchange.answer.len() * 8 {
            let mut answer = exchange.answer.clone();
            answer[bit / 8] ^= 1 << (bit % 8);
            let changed = read(&exchange, &answer);
            if bit < 8 * 8 {
                assert!(
                    changed.is_err(),
                    "bit {bit}: length and correlation id are compared"
                );
            }
            read_on += usize::from(changed.is_ok());
        }
    }
    assert!(read_on > 0, "most bits are content that nobody can check");
}

/// A single flipped bit of a recorded Produce request is seen by who checks what the protocol lets him
/// check, wherever records lie; it is never read as other records.
#[test]
fn h13_every_flipped_bit_of_recorded_records_is_found_by_the_checksum() {
    // Offset and length of a batch and the leader's epoch lie before what the checksum covers.
    const COVERED_FROM: usize = 8 + 4 + 4;
    let mut found = 0;
    for exchange in conversation() {
        if exchange.api_key != ApiKey::PRODUCE {
            continue;
        }
        let mut reader = Reader::new(&exchange.request[4..]);
        RequestHeader::read(&mut reader).expect("a header");
        let view = produce::decode_request(exchange.version, reader.rest()).expect("a request");
        for partition in view.topics().flat_map(|topic| topic.partitions) {
            let records = partition.records.expect("records");
            // The third was recorded damaged.
            if !BatchView::parse(records).expect("a batch").crc_ok() {
                assert_eq!(partition.partition, 2);
                continue;
            }
            for bit in COVERED_FROM * 8..records.len() * 8 {
                let mut records = records.to_vec();
                records[bit / 8] ^= 1 << (bit % 8);
                let sound = BatchView::parse(&records).is_ok_and(|batch| batch.crc_ok());
                assert!(!sound, "bit {bit}");
                found += 1;
            }
        }
    }
    assert!(found > 10_000, "only {found} bits were looked at");
}
