//! Hostile bytes: every response in every version cut at every offset, and changed at every one.
//!
//! An allocator that counts stands under all of it: a few bytes must never take much memory.

use proptest::prelude::*;
use ringpost_codec::error::DecodeError;
use ringpost_codec::kafka::header::{self, RequestHeader};
use ringpost_codec::kafka::{ApiKey, ErrorCode, api_versions, init_producer_id, metadata, produce};
use ringpost_codec::reader::{Form, Reader};
use ringpost_codec::writer::Writer;

fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out));
    out
}

/// What `work` gives, and how many bytes of memory it held at its highest.
fn counting<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let mut result = None;
    let info = allocation_counter::measure(|| result = Some(work()));
    (result.unwrap(), info.bytes_max)
}

/// Reads bytes as one message in one version, to its end, and says whether that went well.
type ReadAll = Box<dyn Fn(&[u8]) -> Result<(), DecodeError>>;

/// A message: its name and version, an example of it, and its reader.
struct Message {
    name: String,
    example: Vec<u8>,
    read: ReadAll,
}

fn message(
    name: &str,
    version: i16,
    example: Vec<u8>,
    read: impl Fn(&[u8]) -> Result<(), DecodeError> + 'static,
) -> Message {
    Message {
        name: format!("{name} v{version}"),
        example,
        read: Box::new(read),
    }
}

fn topic(version: i16) -> produce::TopicRef<'static> {
    if version >= produce::TOPIC_IDS_FROM {
        produce::TopicRef::Id([9; 16])
    } else {
        produce::TopicRef::Name("orders")
    }
}

fn produce_response(version: i16) -> Vec<u8> {
    let mut refused = produce::PartitionResult::refused(1, ErrorCode::NOT_LEADER_OR_FOLLOWER);
    refused.record_errors = vec![produce::RecordError {
        batch_index: 3,
        message: Some("bad"),
    }];
    refused.error_message = Some("why");
    refused.current_leader = Some(produce::CurrentLeader {
        leader_id: 2,
        leader_epoch: 5,
    });
    let written_one = produce::PartitionResult::written(0, 42);
    let endpoint = produce::NodeEndpoint {
        node_id: 2,
        host: "b",
        port: 9092,
        rack: Some("r"),
    };
    let response = produce::Response {
        topics: vec![produce::TopicResult {
            topic: topic(version),
            partitions: vec![written_one, refused],
        }],
        throttle_time_ms: 7,
        node_endpoints: vec![endpoint],
    };
    written(|out| response.write(version, out).unwrap())
}

fn produce_request(version: i16) -> Vec<u8> {
    let mut out = Vec::new();
    let head = produce::RequestHead {
        version,
        correlation_id: 1,
        client_id: None,
        transactional_id: Some("tx"),
        acks: -1,
        timeout_ms: 1000,
        topic_count: 1,
    };
    let len = produce::put_request_head(&mut out, &head);
    produce::put_topic(&mut out, version, topic(version), 1);
    produce::put_partition(&mut out, version, 4, 3);
    out.extend_from_slice(b"bat");
    produce::put_partition_end(&mut out, version);
    produce::put_topic_end(&mut out, version);
    produce::put_request_end(&mut out, version);
    len.patch(&mut out, 0);
    let mut reader = Reader::new(&out[4..]);
    RequestHeader::read(&mut reader).unwrap();
    reader.rest().to_vec()
}

fn metadata_response(version: i16) -> Vec<u8> {
    let partition = metadata::Partition {
        replicas: vec![1, 2],
        in_sync: vec![1],
        offline: vec![2],
        ..metadata::Partition::default()
    };
    let response = metadata::Response {
        brokers: vec![metadata::Broker {
            id: 1,
            host: "kafka".into(),
            port: 9092,
            rack: Some("r".into()),
        }],
        cluster_id: Some("c".into()),
        topics: vec![metadata::Topic {
            name: Some("orders".into()),
            partitions: vec![partition],
            ..metadata::Topic::default()
        }],
        ..metadata::Response::default()
    };
    written(|out| response.write(version, out).unwrap())
}

fn messages() -> Vec<Message> {
    let mut all = Vec::new();
    for version in produce::VERSIONS {
        let read = move |bytes: &[u8]| {
            let view = produce::decode_response(version, bytes)?;
            // What was found whole is given out whole.
            let partitions = view
                .partitions()
                .map(|p| p.record_errors.count() + 1)
                .sum::<usize>();
            assert!(partitions + view.node_endpoints().count() <= bytes.len());
            Ok(())
        };
        all.push(message(
            "Produce response",
            version,
            produce_response(version),
            read,
        ));
        let read = move |bytes: &[u8]| {
            let view = produce::decode_request(version, bytes)?;
            view.topics()
                .flat_map(|topic| topic.partitions)
                .for_each(drop);
            Ok(())
        };
        all.push(message(
            "Produce request",
            version,
            produce_request(version),
            read,
        ));
    }
    for version in metadata::VERSIONS {
        let read = move |bytes: &[u8]| {
            metadata::Response::read(version, &mut Reader::new(bytes)).map(drop)
        };
        all.push(message(
            "Metadata response",
            version,
            metadata_response(version),
            read,
        ));
        let request = metadata::Request {
            topics: Some(&["a", "b"]),
            allow_auto_topic_creation: true,
        };
        let example = written(|out| request.write(version, out).unwrap());
        let read = move |bytes: &[u8]| {
            metadata::RequestView::read(version, &mut Reader::new(bytes)).map(drop)
        };
        all.push(message("Metadata request", version, example, read));
    }
    for version in api_versions::VERSIONS {
        let range = |key| api_versions::ApiRange {
            api_key: ApiKey(key),
            min: 0,
            max: 9,
        };
        let response = api_versions::Response {
            ranges: (0..5).map(range).collect(),
            ..api_versions::Response::default()
        };
        let example = written(|out| response.write(version, out).unwrap());
        let read = move |bytes: &[u8]| {
            api_versions::Response::read(version, &mut Reader::new(bytes)).map(drop)
        };
        all.push(message("ApiVersions response", version, example, read));
        let request = api_versions::Request {
            client_software_name: "ringpost",
            client_software_version: "1",
        };
        let example = written(|out| request.write(version, out).unwrap());
        let read = move |bytes: &[u8]| {
            api_versions::Request::read(version, &mut Reader::new(bytes)).map(drop)
        };
        all.push(message("ApiVersions request", version, example, read));
    }
    for version in init_producer_id::VERSIONS {
        let response = init_producer_id::Response::default();
        let example = written(|out| response.write(version, out).unwrap());
        let read = move |bytes: &[u8]| {
            init_producer_id::Response::read(version, &mut Reader::new(bytes)).map(drop)
        };
        all.push(message("InitProducerId response", version, example, read));
        let request = init_producer_id::Request {
            transactional_id: Some("tx"),
            ..init_producer_id::Request::default()
        };
        let example = written(|out| request.write(version, out).unwrap());
        let read = move |bytes: &[u8]| {
            init_producer_id::Request::read(version, &mut Reader::new(bytes)).map(drop)
        };
        all.push(message("InitProducerId request", version, example, read));
    }
    all
}

/// Every message in every version, cut at every byte, is an error.
#[test]
fn h2_a_message_cut_anywhere_is_a_clean_error() {
    for Message {
        name,
        example,
        read,
    } in messages()
    {
        assert_eq!(read(&example), Ok(()), "{name}");
        for len in 0..example.len() {
            assert!(
                read(&example[..len]).is_err(),
                "{name} cut at {len} of {}",
                example.len()
            );
        }
    }
}

/// Hostile counts and lengths put in at every offset of every message take less than 16 KiB
/// (counting allocator).
#[test]
fn h3_hostile_numbers_at_any_offset_take_no_memory() {
    let mut hostile: Vec<Vec<u8>> = Vec::new();
    for number in [-1, -2, i32::MIN, i32::MAX, 1 << 20, 1 << 28] {
        hostile.push(number.to_be_bytes().to_vec());
    }
    for number in [-1, i16::MIN, i16::MAX] {
        hostile.push(number.to_be_bytes().to_vec());
    }
    // Compact: null, 2^31 − 1, 2^32 − 1, and more bits than there may be.
    hostile.push(vec![0]);
    hostile.push(vec![0xff, 0xff, 0xff, 0xff, 0x07]);
    hostile.push(vec![0xff, 0xff, 0xff, 0xff, 0x0f]);
    hostile.push(vec![0xff; 11]);
    for Message {
        name,
        example,
        read,
    } in messages()
    {
        for at in 0..example.len() {
            for number in &hostile {
                for insert in [false, true] {
                    let mut bytes = example.clone();
                    let end = if insert {
                        at
                    } else {
                        (at + number.len()).min(bytes.len())
                    };
                    bytes.splice(at..end, number.iter().copied());
                    let (_, taken) = counting(|| read(&bytes));
                    // The places that a count reserves are no more than the bytes that follow.
                    assert!(taken < 16 * 1024, "{name} at {at}: {taken} bytes");
                }
            }
        }
    }
}

/// Negative, null and too large counts of arrays and strings, classic and compact, are errors where
/// they may not be.
#[test]
fn h3_counts_are_checked_before_memory_is_taken() {
    let lengths = [
        (-1, true),
        (-2, false),
        (i32::MIN, false),
        (i32::MAX, false),
        (3, false),
    ];
    for (len, is_null) in lengths {
        let bytes = [&len.to_be_bytes()[..], &[0; 5]].concat();
        let array = |min| Reader::new(&bytes).nullable_array_len(Form::Classic, min, "array");
        if is_null {
            assert_eq!(array(1), Ok(None));
        } else {
            assert!(matches!(array(2), Err(DecodeError::Length { .. })), "{len}");
        }
        assert!(
            Reader::new(&bytes)
                .array_len(Form::Classic, 2, "array")
                .is_err(),
            "{len}"
        );
    }
    // Two items of two bytes fit into five, three do not.
    let bytes = [0, 0, 0, 2, 0, 0, 0, 0, 0];
    assert_eq!(
        Reader::new(&bytes).array_len(Form::Classic, 2, "array"),
        Ok(2)
    );
    // Compact: zero is null, and null is not allowed here.
    assert!(
        Reader::new(&[0, 0])
            .array_len(Form::Compact, 1, "array")
            .is_err()
    );
    assert!(Reader::new(&[0, 0]).string(Form::Compact, "text").is_err());
    assert_eq!(
        Reader::new(&[0]).nullable_string(Form::Compact, "text"),
        Ok(None)
    );
    for bytes in [&[0xff, 0xfe][..], &[0x80, 0x00], &[0x7f, 0xff, b'a']] {
        assert!(
            Reader::new(bytes)
                .nullable_string(Form::Classic, "text")
                .is_err()
        );
    }
    assert!(matches!(
        Reader::new(&[0, 2, 0xc3, 0x28]).string(Form::Classic, "text"),
        Err(DecodeError::Utf8 { what: "text" })
    ));
}

/// 10,001 brokers and 100,001 partitions are refused though all their bytes were sent.
#[test]
fn h3_caps_hold_even_when_the_bytes_are_there() {
    // 10,001 brokers, all of them really sent.
    let mut response = metadata::Response::default();
    let broker = metadata::Broker {
        id: 1,
        host: "h".into(),
        port: 1,
        rack: None,
    };
    response.brokers = vec![broker; metadata::BROKERS_MAX + 1];
    let bytes = written(|out| response.write(9, out).unwrap());
    let refused = metadata::Response::read(9, &mut Reader::new(&bytes));
    let what = "metadata.brokers";
    let (count, max) = (metadata::BROKERS_MAX + 1, metadata::BROKERS_MAX);
    assert_eq!(refused, Err(DecodeError::TooMany { what, count, max }));

    // 100,001 partitions.
    let mut response = metadata::Response::default();
    response.topics.push(metadata::Topic {
        name: Some("t".into()),
        partitions: vec![metadata::Partition::default(); metadata::PARTITIONS_MAX + 1],
        ..metadata::Topic::default()
    });
    let bytes = written(|out| response.write(9, out).unwrap());
    let refused = metadata::Response::read(9, &mut Reader::new(&bytes));
    assert!(matches!(
        refused,
        Err(DecodeError::TooMany {
            max: metadata::PARTITIONS_MAX,
            ..
        })
    ));
}

/// Tags unsorted, twice, 2^32-1 of them, longer than what is left, or over-long are each their own
/// error.
#[test]
fn h4_tagged_fields_are_bounded_and_rise() {
    let read = |bytes: &[u8]| {
        let mut seen = Vec::new();
        Reader::new(bytes)
            .tagged_fields(Form::Compact, "fields", |tag, field| {
                seen.push((tag, field.rest().to_vec()));
                Ok(())
            })
            .map(|()| seen)
    };
    assert_eq!(read(&[0]), Ok(vec![]));
    assert_eq!(
        read(&[2, 1, 0, 9, 2, 5, 6]),
        Ok(vec![(1, vec![]), (9, vec![5, 6])])
    );
    let unsorted = DecodeError::TagOrder {
        what: "fields",
        tag: 1,
    };
    assert_eq!(read(&[2, 4, 0, 1, 0]), Err(unsorted));
    assert_eq!(read(&[2, 1, 0, 1, 0]), Err(unsorted), "twice");
    // 2^32 − 1 fields; a field longer than what is left; a tag that overruns.
    assert!(matches!(
        read(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 0]),
        Err(DecodeError::Length { .. })
    ));
    assert!(matches!(
        read(&[1, 1, 5, 0]),
        Err(DecodeError::Length { .. })
    ));
    assert!(matches!(
        read(&[1, 0xff, 0xff]),
        Err(DecodeError::Truncated { .. })
    ));
    assert!(matches!(
        read(&[1, 0x80, 0x00, 0]),
        Err(DecodeError::Varint { .. })
    ));
}

/// Every bit of every message flipped, one at a time: no panic.
#[test]
fn h12_every_single_bit_flip_is_read_or_refused() {
    for Message { example, read, .. } in messages() {
        for bit in 0..example.len() * 8 {
            let mut bytes = example.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = read(&bytes);
        }
    }
}

proptest! {
    /// Any bytes read as any message: no panic, less than 16 KiB of memory.
    #[test]
    fn h2_any_bytes_are_read_or_refused(bytes in proptest::collection::vec(
        prop_oneof![Just(0_u8), Just(1), Just(2), any::<u8>()], 0..200,
    )) {
        for Message { name, read, .. } in messages() {
            let (_, taken) = counting(|| read(&bytes));
            prop_assert!(taken < 16 * 1024, "{}: {} bytes", name, taken);
        }
        let mut reader = Reader::new(&bytes);
        let _ = RequestHeader::read(&mut reader);
        let mut reader = Reader::new(&bytes);
        let _ = header::read_response_rest(&mut reader, ApiKey::PRODUCE, 9);
    }
}
