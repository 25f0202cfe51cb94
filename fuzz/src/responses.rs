//! Every response in every version, from bytes that a broker could send.
//!
//! ```text
//! message │ version (1 byte each, an index) │ body
//! ```
//! Nothing panics, nothing takes much more memory than its bytes, and what was read and is written
//! again reads the same.

use ringpost_codec::error::DecodeError;
use ringpost_codec::kafka::header;
use ringpost_codec::kafka::{ApiKey, ErrorCode, api_versions, init_producer_id, metadata, produce};
use ringpost_codec::reader::Reader;
use ringpost_codec::writer::Writer;
use ringpost_core::handshake::Handshake;

/// The most memory that so many bytes may take: a partition of some 96 bytes for its 12, kept in a
/// vector that doubles, and what a lying count reserves before it is found out.
fn memory_max(bytes: usize) -> u64 {
    (64 * bytes + (256 << 10)) as u64
}

/// See the module's doc.
pub fn run(data: &[u8]) {
    let Some((&[message, version], body)) = data.split_first_chunk::<2>() else {
        return;
    };
    let info = allocation_counter::measure(|| read(message, version, body));
    assert!(
        info.bytes_max <= memory_max(body.len()),
        "{} bytes of memory for {} bytes",
        info.bytes_max,
        body.len()
    );
}

fn pick(versions: std::ops::RangeInclusive<i16>, index: u8) -> i16 {
    let count = versions.clone().count();
    let index = usize::from(index) % count;
    versions.into_iter().nth(index).expect("below the count")
}

fn read(message: u8, version: u8, body: &[u8]) {
    match message % 5 {
        0 => {
            let version = pick(api_versions::VERSIONS, version);
            // A refusal comes as v0 or as it was asked; it is written as v0, which has no throttle time.
            let read = |reader: &mut Reader<'_>| {
                let mut read = api_versions::Response::read(version, reader)?;
                if read.error == ErrorCode::UNSUPPORTED_VERSION {
                    read.throttle_time_ms = 0;
                }
                Ok(read)
            };
            let _ = again(body, read, |it, out| {
                let refused = it.error == ErrorCode::UNSUPPORTED_VERSION;
                it.write(if refused { 0 } else { version }, out)
            });
        }
        1 => {
            let version = pick(metadata::VERSIONS, version);
            let read = again(
                body,
                |reader| metadata::Response::read(version, reader),
                |it, out| it.write(version, out),
            );
            if let Ok(read) = read {
                assert!(read.brokers.len() <= metadata::BROKERS_MAX);
                assert!(read.topics.len() <= metadata::TOPICS_MAX);
            }
        }
        2 => produce_response(pick(produce::VERSIONS, version), body),
        3 => {
            let version = pick(init_producer_id::VERSIONS, version);
            let _ = again(
                body,
                |reader| init_producer_id::Response::read(version, reader),
                |it, out| it.write(version, out),
            );
        }
        _ => {
            let version = pick(api_versions::VERSIONS, version);
            let answer = Handshake::new(version, 7).answer(body);
            if let Err(text) = answer {
                assert!(!text.is_empty());
            }
            for api in [ApiKey::PRODUCE, ApiKey::API_VERSIONS] {
                let mut reader = Reader::new(body);
                let _ = header::read_correlation_id(&mut reader)
                    .and_then(|_| header::read_response_rest(&mut reader, api, version));
            }
        }
    }
}

/// Reads; if that goes well, writes what was read, and reads it back.
fn again<T: PartialEq + std::fmt::Debug>(
    body: &[u8],
    read: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
    write: impl Fn(&T, &mut Writer<'_>) -> Result<(), DecodeError>,
) -> Result<T, DecodeError> {
    let first = read(&mut Reader::new(body))?;
    let mut out = Vec::new();
    write(&first, &mut Writer::new(&mut out)).expect("a version that was read");
    let mut reader = Reader::new(&out);
    let second = read(&mut reader).expect("what we wrote");
    assert_eq!(first, second);
    assert_eq!(reader.remaining(), 0, "all of what we wrote was read");
    Ok(first)
}

fn produce_response(version: i16, body: &[u8]) {
    let Ok(view) = produce::decode_response(version, body) else {
        return;
    };
    let mut topics: Vec<produce::TopicResult<'_>> = Vec::new();
    for result in view.partitions() {
        let partition = produce::PartitionResult {
            partition: result.partition,
            error: result.error,
            base_offset: result.base_offset,
            log_append_time_ms: result.log_append_time_ms,
            log_start_offset: result.log_start_offset,
            record_errors: result.record_errors.collect(),
            error_message: result.error_message,
            current_leader: result.current_leader,
        };
        match topics.last_mut() {
            Some(last) if last.topic == result.topic => last.partitions.push(partition),
            _ => topics.push(produce::TopicResult {
                topic: result.topic,
                partitions: vec![partition],
            }),
        }
    }
    let response = produce::Response {
        topics,
        throttle_time_ms: view.throttle_time_ms,
        node_endpoints: view.node_endpoints().collect(),
    };
    let mut out = Vec::new();
    response
        .write(version, &mut Writer::new(&mut out))
        .expect("a version that was read");
    let second = produce::decode_response(version, &out).expect("what we wrote");
    let flat = |view: &produce::ResponseView<'_>| {
        let partitions: Vec<_> = view
            .partitions()
            .map(|it| {
                let errors: Vec<_> = it.record_errors.clone().collect();
                format!(
                    "{:?} {} {} {} {} {} {errors:?} {:?} {:?}",
                    it.topic,
                    it.partition,
                    it.error,
                    it.base_offset,
                    it.log_append_time_ms,
                    it.log_start_offset,
                    it.error_message,
                    it.current_leader
                )
            })
            .collect();
        (
            partitions,
            view.throttle_time_ms,
            view.node_endpoints().collect::<Vec<_>>().len(),
        )
    };
    assert_eq!(flat(&view), flat(&second));
}
