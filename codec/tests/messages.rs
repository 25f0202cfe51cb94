//! Every message in every version, byte for byte against the `kafka-protocol` crate, both ways.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::{TopicName, TransactionalId};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use ringpost_codec::error::DecodeError;
use ringpost_codec::kafka::header::{self, RequestHeader};
use ringpost_codec::kafka::{ApiKey, ErrorCode, api_versions, init_producer_id, metadata, produce};
use ringpost_codec::reader::{Form, Reader};
use ringpost_codec::writer::Writer;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn encode(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).unwrap();
    out.to_vec()
}

fn decode<M: Decodable>(bytes: &[u8], version: i16) -> M {
    let mut bytes = Bytes::copy_from_slice(bytes);
    let message = M::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty(), "they leave {} bytes", bytes.len());
    message
}

fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out));
    out
}

fn read<'a, T>(bytes: &'a [u8], read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>) -> T {
    let mut reader = Reader::new(bytes);
    let message = read(&mut reader).unwrap();
    assert_eq!(reader.remaining(), 0);
    message
}

// ---- Headers ------------------------------------------------------------------------------

/// Headers with client ids of 0, 127, 128, 271 and 32,767 bytes, classic and flexible, are byte for
/// byte the kafka-protocol crate's, and are read back.
#[test]
fn w1_request_headers_with_client_ids_of_any_length() {
    let ids = [
        None,
        Some(0),
        Some(1),
        Some(127),
        Some(128),
        Some(271),
        Some(32_767),
    ];
    for client_id in ids.map(|len| len.map(|len| "c".repeat(len))) {
        for (api_key, version) in [
            (ApiKey::PRODUCE, 8),
            (ApiKey::PRODUCE, 9),
            (ApiKey::METADATA, 8),
            (ApiKey::METADATA, 12),
            (ApiKey::API_VERSIONS, 2),
            (ApiKey::API_VERSIONS, 4),
            (ApiKey::INIT_PRODUCER_ID, 1),
            (ApiKey::INIT_PRODUCER_ID, 2),
        ] {
            let ours = RequestHeader {
                api_key,
                version,
                correlation_id: -7,
                client_id: client_id.as_deref(),
            };
            let key = theirs::ApiKey::try_from(api_key.0).unwrap();
            let same = theirs::RequestHeader::default()
                .with_request_api_key(api_key.0)
                .with_request_api_version(version)
                .with_correlation_id(-7)
                .with_client_id(client_id.as_deref().map(text));
            let bytes = encode(&same, key.request_header_version(version));
            assert_eq!(
                written(|out| ours.write(out)),
                bytes,
                "{api_key} v{version}"
            );
            assert_eq!(ours.encoded_len(), bytes.len());
            assert_eq!(read(&bytes, RequestHeader::read), ours);

            let same = theirs::ResponseHeader::default().with_correlation_id(5);
            let bytes = encode(&same, key.response_header_version(version));
            let mut frame = Vec::new();
            header::put_response(&mut frame, api_key, version, 5, |_| ());
            assert_eq!(frame[4..], bytes, "{api_key} v{version}");
            read(&bytes, |reader| {
                assert_eq!(header::read_correlation_id(reader)?, 5);
                header::read_response_rest(reader, api_key, version)
            });
        }
    }
}

#[test]
fn forms_are_kafkas_flexible_versions() {
    for api_key in (0..100)
        .map(ApiKey)
        .filter(|api_key| api_key.name().is_some())
    {
        let key = theirs::ApiKey::try_from(api_key.0).unwrap();
        for version in key.valid_versions().min..=key.valid_versions().max {
            let compact = key.request_header_version(version) == 2;
            let form = if compact {
                Form::Compact
            } else {
                Form::Classic
            };
            assert_eq!(api_key.form(version), form, "{api_key} v{version}");
        }
    }
}

#[test]
fn error_codes_are_kafkas() {
    assert_eq!(ErrorCode::ALL.len(), 135);
    let codes: Vec<i16> = ErrorCode::ALL.iter().map(|code| code.0).collect();
    assert_eq!(codes, (-1..=133).collect::<Vec<i16>>());
    for code in ErrorCode::ALL.iter().filter(|code| !code.is_ok()) {
        let theirs = kafka_protocol::ResponseError::try_from_code(code.0).unwrap();
        let flat = code.name().unwrap().replace('_', "");
        assert_eq!(flat, theirs.to_string().to_uppercase());
    }
    assert_eq!(ErrorCode(134).name(), None);
    assert_eq!(ErrorCode(-2).to_string(), "unknown error (-2)");
}

#[test]
fn other_versions_are_refused_not_guessed() {
    for version in [-1, 0, 2, 14, i16::MAX] {
        assert!(produce::decode_response(version, &[0; 100]).is_err());
        assert!(produce::decode_request(version, &[0; 100]).is_err());
    }
    let mut reader = Reader::new(&[0; 100]);
    let refused = DecodeError::Version {
        what: "Metadata",
        version: 14,
    };
    assert_eq!(metadata::Response::read(14, &mut reader), Err(refused));
    assert_eq!(metadata::RequestView::read(14, &mut reader), Err(refused));
    assert!(init_producer_id::Response::read(6, &mut reader).is_err());
    assert!(api_versions::Response::read(5, &mut reader).is_err());
}

// ---- ApiVersions --------------------------------------------------------------------------

#[test]
fn api_versions_requests() {
    for version in api_versions::VERSIONS {
        let ours = api_versions::Request {
            client_software_name: "ringpost",
            client_software_version: "0.1.0",
        };
        let same = theirs::ApiVersionsRequest::default()
            .with_client_software_name(text("ringpost"))
            .with_client_software_version(text("0.1.0"));
        let bytes = encode(&same, version);
        assert_eq!(
            written(|out| ours.write(version, out).unwrap()),
            bytes,
            "v{version}"
        );
        let back = read(&bytes, |reader| {
            api_versions::Request::read(version, reader)
        });
        assert_eq!(
            back.client_software_name,
            if version >= 3 { "ringpost" } else { "" }
        );
    }
}

fn ranges() -> Vec<api_versions::ApiRange> {
    (0..90)
        .map(|key| api_versions::ApiRange {
            api_key: ApiKey(key),
            min: key % 3,
            max: key % 3 + key,
        })
        .collect()
}

fn their_ranges() -> Vec<ApiVersion> {
    let ranges = ranges().into_iter();
    ranges
        .map(|range| {
            ApiVersion::default()
                .with_api_key(range.api_key.0)
                .with_min_version(range.min)
                .with_max_version(range.max)
        })
        .collect()
}

#[test]
fn api_versions_responses() {
    for version in api_versions::VERSIONS {
        let ours = api_versions::Response {
            error: ErrorCode::NONE,
            ranges: ranges(),
            throttle_time_ms: if version >= 1 { 77 } else { 0 },
        };
        let mut same = theirs::ApiVersionsResponse::default()
            .with_api_keys(their_ranges())
            .with_throttle_time_ms(ours.throttle_time_ms);
        let bytes = encode(&same, version);
        assert_eq!(
            written(|out| ours.write(version, out).unwrap()),
            bytes,
            "v{version}"
        );
        assert_eq!(
            read(&bytes, |reader| api_versions::Response::read(
                version, reader
            )),
            ours
        );

        if version >= 3 {
            let feature = FinalizedFeatureKey::default().with_name(text("transaction.version"));
            same = same
                .with_finalized_features_epoch(4)
                .with_finalized_features(vec![feature]);
            let bytes = encode(&same, version);
            assert_eq!(
                read(&bytes, |reader| api_versions::Response::read(
                    version, reader
                )),
                ours
            );
        }
    }
}

/// A refusal in the format of v0 is read whatever version was asked, with its hint; without a hint
/// there is none.
#[test]
fn w8_a_refusal_comes_in_the_format_of_v0() {
    let hint = ApiVersion::default().with_api_key(18).with_max_version(3);
    let same = theirs::ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UNSUPPORTED_VERSION.0)
        .with_api_keys(vec![hint]);
    for format in [0, 4] {
        let bytes = encode(&same, format);
        for asked in [1, 3, 4] {
            if format != 0 && format != asked {
                continue;
            }
            let refusal = read(&bytes, |reader| api_versions::Response::read(asked, reader));
            assert_eq!(refusal.error, ErrorCode::UNSUPPORTED_VERSION);
            assert_eq!(refusal.range(ApiKey::API_VERSIONS), Some(0..=3));
            assert_eq!(
                refusal.pick(ApiKey::API_VERSIONS, 0..=asked),
                Some(asked.min(3))
            );
        }
    }
    // Old brokers give no hint.
    let bytes = [0, 35, 0, 0, 0, 0];
    let refusal = read(&bytes, |reader| api_versions::Response::read(4, reader));
    assert_eq!(refusal.range(ApiKey::API_VERSIONS), None);
}

/// The newest version both sides know is picked; ranges that do not meet, and missing APIs, give
/// none.
#[test]
fn w9_versions_are_picked_from_what_both_know() {
    let response = |min, max| api_versions::Response {
        ranges: vec![api_versions::ApiRange {
            api_key: ApiKey::PRODUCE,
            min,
            max,
        }],
        ..api_versions::Response::default()
    };
    for (min, max, picked) in [
        (0, 13, Some(13)),
        (0, 20, Some(13)),
        (0, 7, Some(7)),
        (3, 3, Some(3)),
        (0, 2, None),
        (14, 20, None),
        (5, 4, None),
        (i16::MIN, i16::MAX, Some(13)),
    ] {
        assert_eq!(
            response(min, max).pick(ApiKey::PRODUCE, 3..=13),
            picked,
            "{min}..={max}"
        );
        assert_eq!(response(min, max).pick(ApiKey::METADATA, 1..=13), None);
    }
}

/// Whatever the name, what is sent matches the broker's pattern; good names stay as they are.
#[test]
fn w2_software_names_are_sanitised_to_the_brokers_pattern() {
    let good = |text: &str| {
        let inner = text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
        inner && !text.is_empty() && !text.starts_with(['-', '.']) && !text.ends_with(['-', '.'])
    };
    for name in [
        "",
        "-",
        "...",
        "a",
        "-a.",
        "a b",
        "naïve",
        "a\0b",
        "日本語",
        " x ",
        "a_b/c",
        "1.0+x",
    ] {
        assert!(good(&api_versions::sanitise(name)), "{name}");
    }
    assert_eq!(api_versions::sanitise("ringpost"), "ringpost");
    assert_eq!(api_versions::sanitise("1.0-rc.1"), "1.0-rc.1");
    assert_eq!(api_versions::sanitise("日本語"), "unknown");
}

// ---- Metadata -----------------------------------------------------------------------------

#[test]
fn metadata_requests() {
    for version in metadata::VERSIONS {
        let cases: [Option<&[&str]>; 4] = [None, Some(&[]), Some(&["a"]), Some(&["orders", "x.y"])];
        for (topics, allow) in cases
            .into_iter()
            .flat_map(|case| [(case, true), (case, false)])
        {
            let allow = allow || version < 4;
            let ours = metadata::Request {
                topics,
                allow_auto_topic_creation: allow,
            };
            let topic = |name: &&str| {
                MetadataRequestTopic::default().with_name(Some(TopicName(text(name))))
            };
            let same = theirs::MetadataRequest::default()
                .with_topics(topics.map(|topics| topics.iter().map(topic).collect()))
                .with_allow_auto_topic_creation(allow);
            let bytes = encode(&same, version);
            assert_eq!(
                written(|out| ours.write(version, out).unwrap()),
                bytes,
                "v{version}"
            );

            let back = read(&bytes, |reader| {
                metadata::RequestView::read(version, reader)
            });
            assert_eq!(back.allow_auto_topic_creation, allow);
            let names = back.topics.map(|topics| {
                topics
                    .into_iter()
                    .map(|topic| topic.name.unwrap())
                    .collect::<Vec<_>>()
            });
            assert_eq!(names.as_deref(), topics);
        }
    }
}

fn metadata_response(version: i16) -> metadata::Response {
    let broker = |id, rack: Option<&str>| metadata::Broker {
        id,
        host: format!("kafka-{id}.example"),
        port: 9092 + id,
        rack: rack.map(str::to_owned),
    };
    let partition = |index| metadata::Partition {
        error: if index == 2 {
            ErrorCode::LEADER_NOT_AVAILABLE
        } else {
            ErrorCode::NONE
        },
        index,
        leader: if index == 2 { -1 } else { index },
        leader_epoch: if version >= 7 { 40 + index } else { -1 },
        replicas: vec![0, 1, 2],
        in_sync: vec![index],
        offline: if version >= 5 { vec![2] } else { vec![] },
    };
    let topic = |name: &str, id, partitions| metadata::Topic {
        error: ErrorCode::NONE,
        name: Some(name.to_owned()),
        id: [if version >= 10 { id } else { 0 }; 16],
        is_internal: name.starts_with('_'),
        partitions,
    };
    metadata::Response {
        throttle_time_ms: if version >= 3 { 12 } else { 0 },
        brokers: vec![broker(0, None), broker(1, Some("r1")), broker(2, Some(""))],
        cluster_id: (version >= 2).then(|| "cluster".to_owned()),
        controller_id: 1,
        topics: vec![
            topic("orders", 7, (0..3).map(partition).collect()),
            topic("__internal", 8, vec![]),
        ],
        error: if version >= 13 {
            ErrorCode::REBOOTSTRAP_REQUIRED
        } else {
            ErrorCode::NONE
        },
    }
}

fn their_metadata(ours: &metadata::Response) -> theirs::MetadataResponse {
    let nodes = |nodes: &[i32]| nodes.iter().copied().map(Into::into).collect::<Vec<_>>();
    let broker = |broker: &metadata::Broker| {
        MetadataResponseBroker::default()
            .with_node_id(broker.id.into())
            .with_host(text(&broker.host))
            .with_port(broker.port)
            .with_rack(broker.rack.as_deref().map(text))
    };
    let partition = |partition: &metadata::Partition| {
        MetadataResponsePartition::default()
            .with_error_code(partition.error.0)
            .with_partition_index(partition.index)
            .with_leader_id(partition.leader.into())
            .with_leader_epoch(partition.leader_epoch)
            .with_replica_nodes(nodes(&partition.replicas))
            .with_isr_nodes(nodes(&partition.in_sync))
            .with_offline_replicas(nodes(&partition.offline))
    };
    let topic = |topic: &metadata::Topic| {
        MetadataResponseTopic::default()
            .with_error_code(topic.error.0)
            .with_name(topic.name.as_deref().map(|name| TopicName(text(name))))
            .with_topic_id(kafka_protocol_uuid(topic.id))
            .with_is_internal(topic.is_internal)
            .with_partitions(topic.partitions.iter().map(partition).collect())
    };
    theirs::MetadataResponse::default()
        .with_throttle_time_ms(ours.throttle_time_ms)
        .with_brokers(ours.brokers.iter().map(broker).collect())
        .with_cluster_id(ours.cluster_id.as_deref().map(text))
        .with_controller_id(ours.controller_id.into())
        .with_topics(ours.topics.iter().map(topic).collect())
        .with_error_code(ours.error.0)
}

/// A value of the UUID type of `kafka-protocol`, whose crate is not a dependency here.
fn kafka_protocol_uuid<U: TryFrom<Vec<u8>, Error: std::fmt::Debug>>(id: [u8; 16]) -> U {
    U::try_from(id.to_vec()).unwrap()
}

#[test]
fn metadata_responses() {
    for version in metadata::VERSIONS {
        let ours = metadata_response(version);
        let bytes = encode(&their_metadata(&ours), version);
        assert_eq!(
            written(|out| ours.write(version, out).unwrap()),
            bytes,
            "v{version}"
        );
        assert_eq!(
            read(&bytes, |reader| metadata::Response::read(version, reader)),
            ours
        );
    }
    // A topic asked for by id that is not there has no name.
    let mut ours = metadata_response(12);
    ours.topics[1].name = None;
    ours.topics[1].error = ErrorCode::UNKNOWN_TOPIC_ID;
    let bytes = written(|out| ours.write(12, out).unwrap());
    assert_eq!(
        read(&bytes, |reader| metadata::Response::read(12, reader)),
        ours
    );
}

// ---- InitProducerId -----------------------------------------------------------------------

#[test]
fn init_producer_ids() {
    for version in init_producer_id::VERSIONS {
        for transactional_id in [None, Some(""), Some("tx-1")] {
            let carries = version >= 3;
            let ours = init_producer_id::Request {
                transactional_id,
                transaction_timeout_ms: 60_000,
                producer_id: if carries { 4711 } else { -1 },
                producer_epoch: if carries { 3 } else { -1 },
            };
            let same = theirs::InitProducerIdRequest::default()
                .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
                .with_transaction_timeout_ms(60_000)
                .with_producer_id(ours.producer_id.into())
                .with_producer_epoch(ours.producer_epoch);
            let bytes = encode(&same, version);
            assert_eq!(
                written(|out| ours.write(version, out).unwrap()),
                bytes,
                "v{version}"
            );
            let back = read(&bytes, |reader| {
                init_producer_id::Request::read(version, reader)
            });
            assert_eq!(back, ours);
        }
        let ours = init_producer_id::Response {
            throttle_time_ms: 5,
            error: ErrorCode::PRODUCER_FENCED,
            producer_id: i64::MAX,
            producer_epoch: i16::MAX,
        };
        let same = theirs::InitProducerIdResponse::default()
            .with_throttle_time_ms(5)
            .with_error_code(ours.error.0)
            .with_producer_id(i64::MAX.into())
            .with_producer_epoch(i16::MAX);
        let bytes = encode(&same, version);
        assert_eq!(
            written(|out| ours.write(version, out).unwrap()),
            bytes,
            "v{version}"
        );
        let back = read(&bytes, |reader| {
            init_producer_id::Response::read(version, reader)
        });
        assert_eq!(back, ours);
    }
}

// ---- Produce ------------------------------------------------------------------------------

/// Topics, each with its partitions, each with its batch.
type Topics<'a> = [Topic<'a>];
type Topic<'a> = (&'a str, Vec<(i32, Vec<u8>)>);

fn topic_ref(version: i16, name: &str) -> produce::TopicRef<'_> {
    if version >= produce::TOPIC_IDS_FROM {
        produce::TopicRef::Id(topic_id(name))
    } else {
        produce::TopicRef::Name(name)
    }
}

fn topic_id(name: &str) -> [u8; 16] {
    std::array::from_fn(|at| name.as_bytes()[at % name.len()])
}

fn our_request(head: &produce::RequestHead<'_>, topics: &Topics<'_>) -> Vec<u8> {
    let version = head.version;
    let mut out = Vec::new();
    let mut expected = 0;
    let mut by_reference = 0;
    let mut wire = Vec::new();
    let len = produce::put_request_head(&mut out, head);
    expected += produce::request_head_len(head);
    for (name, partitions) in topics {
        let topic = topic_ref(version, name);
        produce::put_topic(&mut out, version, topic, partitions.len());
        expected += produce::topic_len(version, topic, partitions.len());
        for (partition, records) in partitions {
            produce::put_partition(&mut out, version, *partition, records.len());
            expected += produce::partition_len(version, records.len());
            assert_eq!(out.len(), expected);
            // The batch goes on the wire from elsewhere.
            wire.push((out.len(), records.clone()));
            by_reference += records.len();
            produce::put_partition_end(&mut out, version);
            expected += produce::partition_end_len(version);
        }
        produce::put_topic_end(&mut out, version);
        expected += produce::topic_end_len(version);
    }
    produce::put_request_end(&mut out, version);
    expected += produce::request_end_len(version);
    assert_eq!(out.len(), expected);
    len.patch(&mut out, by_reference);
    for (at, records) in wire.into_iter().rev() {
        out.splice(at..at, records);
    }
    out
}

fn their_request(head: &produce::RequestHead<'_>, topics: &Topics<'_>) -> Vec<u8> {
    let by_id = head.version >= produce::TOPIC_IDS_FROM;
    let topic = |(name, partitions): &Topic<'_>| {
        let partition = |(index, records): &(i32, Vec<u8>)| {
            PartitionProduceData::default()
                .with_index(*index)
                .with_records(Some(Bytes::copy_from_slice(records)))
        };
        let data = TopicProduceData::default()
            .with_partition_data(partitions.iter().map(partition).collect());
        if by_id {
            data.with_topic_id(kafka_protocol_uuid(topic_id(name)))
        } else {
            data.with_name(TopicName(text(name)))
        }
    };
    let header = theirs::RequestHeader::default()
        .with_request_api_key(0)
        .with_request_api_version(head.version)
        .with_correlation_id(head.correlation_id)
        .with_client_id(head.client_id.map(text));
    let request = theirs::ProduceRequest::default()
        .with_transactional_id(head.transactional_id.map(|id| TransactionalId(text(id))))
        .with_acks(head.acks)
        .with_timeout_ms(head.timeout_ms)
        .with_topic_data(topics.iter().map(topic).collect());
    let header_version = theirs::ProduceRequest::header_version(head.version);
    let message = [
        encode(&header, header_version),
        encode(&request, head.version),
    ]
    .concat();
    [
        &i32::try_from(message.len()).unwrap().to_be_bytes()[..],
        &message,
    ]
    .concat()
}

#[test]
fn produce_requests() {
    let many = (0..200).map(|partition| (partition, vec![7; 61])).collect();
    let cases: [Vec<Topic<'_>>; 4] = [
        vec![],
        vec![("orders", vec![(3, vec![1; 200])])],
        vec![
            ("a", vec![(0, vec![]), (1, vec![2; 127])]),
            ("b", vec![(-1, vec![3; 70_000])]),
        ],
        vec![("many", many)],
    ];
    for version in produce::VERSIONS {
        for topics in &cases {
            for (client_id, transactional_id) in [(None, None), (Some("me"), Some("tx"))] {
                let head = produce::RequestHead {
                    version,
                    correlation_id: 99,
                    client_id,
                    transactional_id,
                    acks: -1,
                    timeout_ms: 30_000,
                    topic_count: topics.len(),
                };
                let bytes = our_request(&head, topics);
                assert_eq!(bytes, their_request(&head, topics), "v{version}");

                let mut reader = Reader::new(&bytes[4..]);
                let header = RequestHeader::read(&mut reader).unwrap();
                assert_eq!((header.version, header.client_id), (version, client_id));
                let view = produce::decode_request(version, reader.rest()).unwrap();
                assert_eq!(view.transactional_id, transactional_id);
                assert_eq!((view.acks, view.timeout_ms), (-1, 30_000));
                let mut read_topics = view.topics();
                for (name, partitions) in topics {
                    let topic = read_topics.next().unwrap();
                    assert_eq!(topic.topic, topic_ref(version, name));
                    let read = topic
                        .partitions
                        .map(|p| (p.partition, p.records.unwrap().to_vec()));
                    assert_eq!(&read.collect::<Vec<_>>(), partitions);
                }
                assert!(read_topics.next().is_none());
            }
        }
    }
}

/// A response with something in every field that the version has.
fn produce_response(version: i16) -> produce::Response<'static> {
    let refused = produce::PartitionResult {
        record_errors: if version >= 8 {
            vec![
                produce::RecordError {
                    batch_index: 0,
                    message: Some("too old"),
                },
                produce::RecordError {
                    batch_index: 7,
                    message: None,
                },
            ]
        } else {
            vec![]
        },
        error_message: (version >= 8).then_some("some records are too old"),
        ..produce::PartitionResult::refused(1, ErrorCode::INVALID_TIMESTAMP)
    };
    let moved = produce::PartitionResult {
        current_leader: (version >= 10).then_some(produce::CurrentLeader {
            leader_id: 3,
            leader_epoch: 41,
        }),
        ..produce::PartitionResult::refused(2, ErrorCode::NOT_LEADER_OR_FOLLOWER)
    };
    let mut stamped = produce::PartitionResult::written(0, 1 << 40);
    stamped.log_append_time_ms = 1_700_000_000_000;
    stamped.log_start_offset = if version >= 5 { 12 } else { -1 };
    let endpoint = |node_id, rack| produce::NodeEndpoint {
        node_id,
        host: "b3",
        port: 9093,
        rack,
    };
    produce::Response {
        topics: vec![
            produce::TopicResult {
                topic: topic_ref(version, "orders"),
                partitions: vec![stamped, refused, moved],
            },
            produce::TopicResult {
                topic: topic_ref(version, "none"),
                partitions: vec![],
            },
        ],
        throttle_time_ms: 1234,
        node_endpoints: if version >= 10 {
            vec![endpoint(3, None), endpoint(4, Some("r"))]
        } else {
            vec![]
        },
    }
}

fn their_response(ours: &produce::Response<'_>) -> theirs::ProduceResponse {
    let partition = |partition: &produce::PartitionResult<'_>| {
        let errors = partition.record_errors.iter().map(|error| {
            BatchIndexAndErrorMessage::default()
                .with_batch_index(error.batch_index)
                .with_batch_index_error_message(error.message.map(text))
        });
        let mut response = PartitionProduceResponse::default()
            .with_index(partition.partition)
            .with_error_code(partition.error.0)
            .with_base_offset(partition.base_offset)
            .with_log_append_time_ms(partition.log_append_time_ms)
            .with_log_start_offset(partition.log_start_offset)
            .with_record_errors(errors.collect())
            .with_error_message(partition.error_message.map(text));
        if let Some(leader) = partition.current_leader {
            response = response.with_current_leader(
                LeaderIdAndEpoch::default()
                    .with_leader_id(leader.leader_id.into())
                    .with_leader_epoch(leader.leader_epoch),
            );
        }
        response
    };
    let topic = |topic: &produce::TopicResult<'_>| {
        let response = TopicProduceResponse::default()
            .with_partition_responses(topic.partitions.iter().map(partition).collect());
        match topic.topic {
            produce::TopicRef::Name(name) => response.with_name(TopicName(text(name))),
            produce::TopicRef::Id(id) => response.with_topic_id(kafka_protocol_uuid(id)),
        }
    };
    let endpoint = |endpoint: &produce::NodeEndpoint<'_>| {
        NodeEndpoint::default()
            .with_node_id(endpoint.node_id.into())
            .with_host(text(endpoint.host))
            .with_port(endpoint.port)
            .with_rack(endpoint.rack.map(text))
    };
    theirs::ProduceResponse::default()
        .with_responses(ours.topics.iter().map(topic).collect())
        .with_throttle_time_ms(ours.throttle_time_ms)
        .with_node_endpoints(ours.node_endpoints.iter().map(endpoint).collect())
}

fn assert_same(view: &produce::ResponseView<'_>, ours: &produce::Response<'_>) {
    let mut partitions = view.partitions();
    for topic in &ours.topics {
        for expected in &topic.partitions {
            let got = partitions.next().unwrap();
            assert_eq!(got.topic, topic.topic);
            let got = produce::PartitionResult {
                partition: got.partition,
                error: got.error,
                base_offset: got.base_offset,
                log_append_time_ms: got.log_append_time_ms,
                log_start_offset: got.log_start_offset,
                record_errors: got.record_errors.collect(),
                error_message: got.error_message,
                current_leader: got.current_leader,
            };
            assert_eq!(&got, expected);
        }
    }
    assert!(partitions.next().is_none());
    assert_eq!(view.throttle_time_ms, ours.throttle_time_ms);
    assert!(
        view.node_endpoints()
            .eq(ours.node_endpoints.iter().copied())
    );
}

#[test]
fn produce_responses() {
    for version in produce::VERSIONS {
        let ours = produce_response(version);
        let bytes = written(|out| ours.write(version, out).unwrap());
        assert_eq!(bytes, encode(&their_response(&ours), version), "v{version}");
        assert_same(&produce::decode_response(version, &bytes).unwrap(), &ours);
        let _: theirs::ProduceResponse = decode(&bytes, version);
    }
}

#[test]
fn reading_a_produce_response_takes_no_memory() {
    for version in produce::VERSIONS {
        let bytes = written(|out| produce_response(version).write(version, out).unwrap());
        let taken = allocation_counter::measure(|| {
            let view = produce::decode_response(version, &bytes).unwrap();
            let errors = view
                .partitions()
                .map(|partition| partition.record_errors.count());
            assert_eq!(errors.sum::<usize>(), if version >= 8 { 2 } else { 0 });
            assert_eq!(
                view.node_endpoints().count(),
                if version >= 10 { 2 } else { 0 }
            );
        });
        assert_eq!(taken.count_total, 0, "v{version}");
    }
}

// ---- What newer brokers add ---------------------------------------------------------------

/// Unknown tagged fields at every level, and bytes behind the end, change nothing of what is read.
#[test]
fn w10_unknown_tagged_fields_and_trailing_bytes_are_skipped() {
    let junk = || Bytes::from_static(b"from the future");
    for version in produce::VERSIONS.filter(|version| *version >= 9) {
        let ours = produce_response(version);
        let mut same = their_response(&ours).with_unknown_tagged_field(9, junk());
        let topic = &mut same.responses[0];
        topic.unknown_tagged_fields.insert(5, junk());
        for partition in &mut topic.partition_responses {
            partition.unknown_tagged_fields.insert(77, junk());
            for error in &mut partition.record_errors {
                error.unknown_tagged_fields.insert(1 << 20, junk());
            }
        }
        for endpoint in &mut same.node_endpoints {
            endpoint.unknown_tagged_fields.insert(0, junk());
        }
        let mut bytes = encode(&same, version);
        bytes.extend_from_slice(b"trailing");
        assert_same(&produce::decode_response(version, &bytes).unwrap(), &ours);
    }
    for version in metadata::VERSIONS.filter(|version| *version >= 9) {
        let ours = metadata_response(version);
        let mut same = their_metadata(&ours).with_unknown_tagged_field(3, junk());
        same.brokers[0].unknown_tagged_fields.insert(4, junk());
        same.topics[0].unknown_tagged_fields.insert(5, junk());
        same.topics[0].partitions[0]
            .unknown_tagged_fields
            .insert(6, junk());
        let mut bytes = encode(&same, version);
        bytes.extend_from_slice(b"trailing");
        let mut reader = Reader::new(&bytes);
        assert_eq!(metadata::Response::read(version, &mut reader), Ok(ours));
        assert_eq!(reader.rest(), b"trailing");
    }
    // A header with a tagged field, as of response header v1.
    let mut reader = Reader::new(&[0, 0, 0, 5, 1, 3, 2, 9, 9, 42]);
    assert_eq!(header::read_correlation_id(&mut reader), Ok(5));
    assert_eq!(
        header::read_response_rest(&mut reader, ApiKey::PRODUCE, 9),
        Ok(())
    );
    assert_eq!(reader.rest(), [42]);
}
