//! What we write, read by `kafka-protocol`: requests as a broker gets them, and the broker's half.
//!
//! A message with content of the input's choice is written in a version of its choice. The other crate
//! must read it to its end, find the fields that were written, and write the same bytes again; then our
//! own reader must give back what was written.

use arbitrary::{Result, Unstructured};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::{TopicName, TransactionalId};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use ringpost_codec::kafka::header::RequestHeader;
use ringpost_codec::kafka::{ApiKey, ErrorCode, api_versions, init_producer_id, metadata, produce};
use ringpost_codec::reader::Reader;
use ringpost_codec::writer::Writer;

/// See the module's doc.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let _ = one(&mut input);
}

fn one(input: &mut Unstructured<'_>) -> Result<()> {
    match input.int_in_range(0..=7)? {
        0 => produce_request(input),
        1 => produce_response(input),
        2 => metadata_request(input),
        3 => metadata_response(input),
        4 => producer_id_request(input),
        5 => producer_id_response(input),
        6 => versions_request(input),
        _ => versions_response(input),
    }
}

/// What we wrote is what they write of the same content, and they read it to its end.
fn same<M: Decodable + Encodable + PartialEq + std::fmt::Debug>(
    ours: &[u8],
    content: &M,
    version: i16,
) {
    let mut out = BytesMut::new();
    content.encode(&mut out, version).expect("they write it");
    assert_eq!(out, ours, "v{version} of {content:?}");
    let mut left = Bytes::copy_from_slice(ours);
    let read = M::decode(&mut left, version).expect("they read it");
    assert!(left.is_empty(), "they leave {} bytes", left.len());
    assert_eq!(read, *content);
}

fn written(
    write: impl FnOnce(&mut Writer<'_>) -> std::result::Result<(), ringpost_codec::error::DecodeError>,
) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out)).expect("a version of ours");
    out
}

fn read_all<'a, T>(
    bytes: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> std::result::Result<T, ringpost_codec::error::DecodeError>,
) -> T {
    let mut reader = Reader::new(bytes);
    let message = read(&mut reader).expect("what we wrote");
    assert_eq!(reader.remaining(), 0);
    message
}

fn their_text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn some<'a, T>(
    input: &mut Unstructured<'a>,
    most: usize,
    mut one: impl FnMut(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    (0..input.int_in_range(0..=most)?)
        .map(|_| one(input))
        .collect()
}

fn version(input: &mut Unstructured<'_>, versions: std::ops::RangeInclusive<i16>) -> Result<i16> {
    input.int_in_range(versions)
}

// ---- Produce ----------------------------------------------------------------------------------

/// A topic as a version names it: by name, or by an id made of the name.
fn topic_ref(version: i16, name: &str) -> produce::TopicRef<'_> {
    if version >= produce::TOPIC_IDS_FROM {
        produce::TopicRef::Id(id_of(name))
    } else {
        produce::TopicRef::Name(name)
    }
}

fn id_of(name: &str) -> [u8; 16] {
    std::array::from_fn(|at| name.as_bytes().get(at).copied().unwrap_or(7))
}

/// A value of the UUID type of `kafka-protocol`, whose crate is not a dependency here.
fn their_id<U: TryFrom<Vec<u8>, Error: std::fmt::Debug>>(id: [u8; 16]) -> U {
    U::try_from(id.to_vec()).expect("16 bytes")
}

fn produce_request(input: &mut Unstructured<'_>) -> Result<()> {
    let version = version(input, produce::VERSIONS)?;
    type Topic<'a> = (&'a str, Vec<(i32, &'a [u8])>);
    let topics: Vec<Topic<'_>> = some(input, 5, |input| {
        let name = input.arbitrary()?;
        let partitions = some(input, 5, |input| {
            Ok((input.arbitrary()?, input.arbitrary()?))
        })?;
        Ok((name, partitions))
    })?;
    let head = produce::RequestHead {
        version,
        correlation_id: input.arbitrary()?,
        client_id: input.arbitrary()?,
        transactional_id: input.arbitrary()?,
        acks: input.arbitrary()?,
        timeout_ms: input.arbitrary()?,
        topic_count: topics.len(),
    };
    let mut out = Vec::new();
    let mut promised = produce::request_head_len(&head);
    let len = produce::put_request_head(&mut out, &head);
    for (name, partitions) in &topics {
        let topic = topic_ref(version, name);
        produce::put_topic(&mut out, version, topic, partitions.len());
        promised += produce::topic_len(version, topic, partitions.len());
        for (partition, records) in partitions {
            produce::put_partition(&mut out, version, *partition, records.len());
            promised += produce::partition_len(version, records.len());
            out.extend_from_slice(records);
            produce::put_partition_end(&mut out, version);
            promised += records.len() + produce::partition_end_len(version);
        }
        produce::put_topic_end(&mut out, version);
        promised += produce::topic_end_len(version);
    }
    produce::put_request_end(&mut out, version);
    len.patch(&mut out, 0);
    assert_eq!(out.len(), promised + produce::request_end_len(version));

    let mut reader = Reader::new(&out[4..]);
    let header = RequestHeader::read(&mut reader).expect("what we wrote");
    assert_eq!(header.client_id, head.client_id);
    let body = reader.rest();
    let their_header = theirs::RequestHeader::default()
        .with_request_api_key(ApiKey::PRODUCE.0)
        .with_request_api_version(version)
        .with_correlation_id(head.correlation_id)
        .with_client_id(head.client_id.map(their_text));
    let header_bytes = &out[4..out.len() - body.len()];
    same(
        header_bytes,
        &their_header,
        if version >= 9 { 2 } else { 1 },
    );
    let topic = |(name, partitions): &Topic<'_>| {
        let partitions = partitions.iter().map(|(index, records)| {
            PartitionProduceData::default()
                .with_index(*index)
                .with_records(Some(Bytes::copy_from_slice(records)))
        });
        let data = TopicProduceData::default().with_partition_data(partitions.collect());
        match topic_ref(version, name) {
            produce::TopicRef::Name(name) => data.with_name(TopicName(their_text(name))),
            produce::TopicRef::Id(id) => data.with_topic_id(their_id(id)),
        }
    };
    let content = theirs::ProduceRequest::default()
        .with_transactional_id(
            head.transactional_id
                .map(|id| TransactionalId(their_text(id))),
        )
        .with_acks(head.acks)
        .with_timeout_ms(head.timeout_ms)
        .with_topic_data(topics.iter().map(topic).collect());
    same(body, &content, version);

    let view = produce::decode_request(version, body).expect("what we wrote");
    assert_eq!((view.acks, view.timeout_ms), (head.acks, head.timeout_ms));
    let read = view.topics().map(|topic| {
        let partitions = topic.partitions;
        (
            topic.topic,
            partitions
                .map(|p| (p.partition, p.records))
                .collect::<Vec<_>>(),
        )
    });
    let expected = topics.iter().map(|(name, partitions)| {
        let partitions = partitions
            .iter()
            .map(|(index, records)| (*index, Some(*records)));
        (topic_ref(version, name), partitions.collect::<Vec<_>>())
    });
    assert!(read.eq(expected));
    Ok(())
}

fn produce_response(input: &mut Unstructured<'_>) -> Result<()> {
    let version = version(input, produce::VERSIONS)?;
    let partition = |input: &mut Unstructured<'_>| {
        Ok(produce::PartitionResult {
            partition: input.arbitrary()?,
            error: ErrorCode(input.arbitrary()?),
            base_offset: input.arbitrary()?,
            log_append_time_ms: input.arbitrary()?,
            log_start_offset: if version >= 5 { input.arbitrary()? } else { -1 },
            record_errors: Vec::new(),
            error_message: None,
            current_leader: if version >= 10 && input.arbitrary()? {
                Some(produce::CurrentLeader {
                    leader_id: input.int_in_range(0..=1000)?,
                    leader_epoch: input.arbitrary()?,
                })
            } else {
                None
            },
        })
    };
    let topics = some(input, 4, |input| {
        let name: &str = input.arbitrary()?;
        let mut partitions = some(input, 4, partition)?;
        if version >= 8 {
            for partition in &mut partitions {
                partition.error_message = input.arbitrary()?;
                partition.record_errors = some(input, 2, |input| {
                    Ok(produce::RecordError {
                        batch_index: input.arbitrary()?,
                        message: input.arbitrary()?,
                    })
                })?;
            }
        }
        let topic = topic_ref(version, name);
        Ok(produce::TopicResult { topic, partitions })
    })?;
    let node_endpoints = if version >= 10 {
        some(input, 3, |input| {
            Ok(produce::NodeEndpoint {
                node_id: input.arbitrary()?,
                host: input.arbitrary()?,
                port: input.arbitrary()?,
                rack: input.arbitrary()?,
            })
        })?
    } else {
        Vec::new()
    };
    let ours = produce::Response {
        topics,
        throttle_time_ms: input.arbitrary()?,
        node_endpoints,
    };
    let bytes = written(|out| ours.write(version, out));

    let partition = |it: &produce::PartitionResult<'_>| {
        let errors = it.record_errors.iter().map(|error| {
            BatchIndexAndErrorMessage::default()
                .with_batch_index(error.batch_index)
                .with_batch_index_error_message(error.message.map(their_text))
        });
        let mut response = PartitionProduceResponse::default()
            .with_index(it.partition)
            .with_error_code(it.error.0)
            .with_base_offset(it.base_offset)
            .with_log_append_time_ms(it.log_append_time_ms)
            .with_log_start_offset(it.log_start_offset)
            .with_record_errors(errors.collect())
            .with_error_message(it.error_message.map(their_text));
        if let Some(leader) = it.current_leader {
            response = response.with_current_leader(
                LeaderIdAndEpoch::default()
                    .with_leader_id(leader.leader_id.into())
                    .with_leader_epoch(leader.leader_epoch),
            );
        }
        response
    };
    let topic = |it: &produce::TopicResult<'_>| {
        let response = TopicProduceResponse::default()
            .with_partition_responses(it.partitions.iter().map(partition).collect());
        match it.topic {
            produce::TopicRef::Name(name) => response.with_name(TopicName(their_text(name))),
            produce::TopicRef::Id(id) => response.with_topic_id(their_id(id)),
        }
    };
    let endpoint = |it: &produce::NodeEndpoint<'_>| {
        NodeEndpoint::default()
            .with_node_id(it.node_id.into())
            .with_host(their_text(it.host))
            .with_port(it.port)
            .with_rack(it.rack.map(their_text))
    };
    let content = theirs::ProduceResponse::default()
        .with_responses(ours.topics.iter().map(topic).collect())
        .with_throttle_time_ms(ours.throttle_time_ms)
        .with_node_endpoints(ours.node_endpoints.iter().map(endpoint).collect());
    same(&bytes, &content, version);

    let view = produce::decode_response(version, &bytes).expect("what we wrote");
    let mut read = view.partitions();
    for topic in &ours.topics {
        for expected in &topic.partitions {
            let it = read.next().expect("as many as were written");
            assert_eq!(it.topic, topic.topic);
            let it = produce::PartitionResult {
                partition: it.partition,
                error: it.error,
                base_offset: it.base_offset,
                log_append_time_ms: it.log_append_time_ms,
                log_start_offset: it.log_start_offset,
                record_errors: it.record_errors.collect(),
                error_message: it.error_message,
                current_leader: it.current_leader,
            };
            assert_eq!(it, *expected);
        }
    }
    assert!(read.next().is_none());
    assert!(
        view.node_endpoints()
            .eq(ours.node_endpoints.iter().copied())
    );
    Ok(())
}

// ---- Metadata ---------------------------------------------------------------------------------

fn metadata_request(input: &mut Unstructured<'_>) -> Result<()> {
    let version = version(input, metadata::VERSIONS)?;
    let topics: Option<Vec<&str>> = match input.arbitrary()? {
        true => Some(some(input, 6, |input| input.arbitrary())?),
        false => None,
    };
    let ours = metadata::Request {
        topics: topics.as_deref(),
        allow_auto_topic_creation: version < 4 || input.arbitrary()?,
    };
    let bytes = written(|out| ours.write(version, out));
    let topic = |name: &&str| {
        theirs::metadata_request::MetadataRequestTopic::default()
            .with_name(Some(TopicName(their_text(name))))
    };
    let content = theirs::MetadataRequest::default()
        .with_topics(
            topics
                .as_ref()
                .map(|names| names.iter().map(topic).collect()),
        )
        .with_allow_auto_topic_creation(ours.allow_auto_topic_creation);
    same(&bytes, &content, version);
    let read = read_all(&bytes, |reader| {
        metadata::RequestView::read(version, reader)
    });
    assert_eq!(
        read.allow_auto_topic_creation,
        ours.allow_auto_topic_creation
    );
    let names = read
        .topics
        .map(|topics| topics.iter().filter_map(|it| it.name).collect::<Vec<_>>());
    assert_eq!(names, topics);
    Ok(())
}

fn metadata_response(input: &mut Unstructured<'_>) -> Result<()> {
    let version = version(input, metadata::VERSIONS)?;
    let nodes = |input: &mut Unstructured<'_>| some(input, 3, |input| input.arbitrary());
    let partition = |input: &mut Unstructured<'_>| {
        Ok(metadata::Partition {
            error: ErrorCode(input.arbitrary()?),
            index: input.arbitrary()?,
            leader: input.arbitrary()?,
            leader_epoch: if version >= 7 { input.arbitrary()? } else { -1 },
            replicas: nodes(input)?,
            in_sync: nodes(input)?,
            offline: if version >= 5 {
                nodes(input)?
            } else {
                Vec::new()
            },
        })
    };
    let ours = metadata::Response {
        throttle_time_ms: if version >= 3 { input.arbitrary()? } else { 0 },
        brokers: some(input, 3, |input| {
            Ok(metadata::Broker {
                id: input.arbitrary()?,
                host: input.arbitrary()?,
                port: input.arbitrary()?,
                rack: input.arbitrary()?,
            })
        })?,
        cluster_id: if version >= 2 {
            input.arbitrary()?
        } else {
            None
        },
        controller_id: input.arbitrary()?,
        topics: some(input, 4, |input| {
            Ok(metadata::Topic {
                error: ErrorCode(input.arbitrary()?),
                name: Some(input.arbitrary()?),
                id: if version >= 10 {
                    input.arbitrary()?
                } else {
                    [0; 16]
                },
                is_internal: input.arbitrary()?,
                partitions: some(input, 4, partition)?,
            })
        })?,
        error: ErrorCode(if version >= 13 { input.arbitrary()? } else { 0 }),
    };
    let bytes = written(|out| ours.write(version, out));
    let ids = |nodes: &[i32]| nodes.iter().copied().map(Into::into).collect::<Vec<_>>();
    let broker = |it: &metadata::Broker| {
        MetadataResponseBroker::default()
            .with_node_id(it.id.into())
            .with_host(their_text(&it.host))
            .with_port(it.port)
            .with_rack(it.rack.as_deref().map(their_text))
    };
    let partition = |it: &metadata::Partition| {
        MetadataResponsePartition::default()
            .with_error_code(it.error.0)
            .with_partition_index(it.index)
            .with_leader_id(it.leader.into())
            .with_leader_epoch(it.leader_epoch)
            .with_replica_nodes(ids(&it.replicas))
            .with_isr_nodes(ids(&it.in_sync))
            .with_offline_replicas(ids(&it.offline))
    };
    let topic = |it: &metadata::Topic| {
        MetadataResponseTopic::default()
            .with_error_code(it.error.0)
            .with_name(it.name.as_deref().map(|name| TopicName(their_text(name))))
            .with_topic_id(their_id(it.id))
            .with_is_internal(it.is_internal)
            .with_partitions(it.partitions.iter().map(partition).collect())
    };
    let content = theirs::MetadataResponse::default()
        .with_throttle_time_ms(ours.throttle_time_ms)
        .with_brokers(ours.brokers.iter().map(broker).collect())
        .with_cluster_id(ours.cluster_id.as_deref().map(their_text))
        .with_controller_id(ours.controller_id.into())
        .with_topics(ours.topics.iter().map(topic).collect())
        .with_error_code(ours.error.0);
    same(&bytes, &content, version);
    assert_eq!(
        read_all(&bytes, |reader| metadata::Response::read(version, reader)),
        ours
    );
    Ok(())
}

// ---- Producer ids and versions ----------------------------------------------------------------

fn producer_id_request(input: &mut Unstructured<'_>) -> Result<()> {
    let version = version(input, init_producer_id::VERSIONS)?;
    let ours = init_producer_id::Request {
        transactional_id: input.arbitrary()?,
        transaction_timeout_ms: input.arbitrary()?,
        producer_id: if version >= 3 { input.arbitrary()? } else { -1 },
        producer_epoch: if version >= 3 { input.arbitrary()? } else { -1 },
    };
    let bytes = written(|out| ours.write(version, out));
    let content = theirs::InitProducerIdRequest::default()
        .with_transactional_id(
            ours.transactional_id
                .map(|id| TransactionalId(their_text(id))),
        )
        .with_transaction_timeout_ms(ours.transaction_timeout_ms)
        .with_producer_id(ours.producer_id.into())
        .with_producer_epoch(ours.producer_epoch);
    same(&bytes, &content, version);
    assert_eq!(
        read_all(&bytes, |reader| init_producer_id::Request::read(
            version, reader
        )),
        ours
    );
    Ok(())
}

fn producer_id_response(input: &mut Unstructured<'_>) -> Result<()> {
    let version = version(input, init_producer_id::VERSIONS)?;
    let ours = init_producer_id::Response {
        throttle_time_ms: input.arbitrary()?,
        error: ErrorCode(input.arbitrary()?),
        producer_id: input.arbitrary()?,
        producer_epoch: input.arbitrary()?,
    };
    let bytes = written(|out| ours.write(version, out));
    let content = theirs::InitProducerIdResponse::default()
        .with_throttle_time_ms(ours.throttle_time_ms)
        .with_error_code(ours.error.0)
        .with_producer_id(ours.producer_id.into())
        .with_producer_epoch(ours.producer_epoch);
    same(&bytes, &content, version);
    assert_eq!(
        read_all(&bytes, |reader| init_producer_id::Response::read(
            version, reader
        )),
        ours
    );
    Ok(())
}

fn versions_request(input: &mut Unstructured<'_>) -> Result<()> {
    let version = version(input, api_versions::VERSIONS)?;
    let name = api_versions::sanitise(input.arbitrary()?);
    let number = api_versions::sanitise(input.arbitrary()?);
    for text in [&name, &number] {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        assert!(!text.is_empty() && text.chars().all(allowed));
        assert!(!text.starts_with(['.', '-']) && !text.ends_with(['.', '-']));
    }
    let sent = version >= 3;
    let ours = api_versions::Request {
        client_software_name: if sent { &name } else { "" },
        client_software_version: if sent { &number } else { "" },
    };
    let bytes = written(|out| ours.write(version, out));
    let content = theirs::ApiVersionsRequest::default()
        .with_client_software_name(their_text(ours.client_software_name))
        .with_client_software_version(their_text(ours.client_software_version));
    same(&bytes, &content, version);
    assert_eq!(
        read_all(&bytes, |reader| api_versions::Request::read(
            version, reader
        )),
        ours
    );
    Ok(())
}

fn versions_response(input: &mut Unstructured<'_>) -> Result<()> {
    let version = version(input, api_versions::VERSIONS)?;
    let mut ours = api_versions::Response {
        error: ErrorCode(input.arbitrary()?),
        ranges: some(input, 20, |input| {
            Ok(api_versions::ApiRange {
                api_key: ApiKey(input.arbitrary()?),
                min: input.arbitrary()?,
                max: input.arbitrary()?,
            })
        })?,
        throttle_time_ms: if version >= 1 { input.arbitrary()? } else { 0 },
    };
    let bytes = written(|out| ours.write(version, out));
    let range = |it: &api_versions::ApiRange| {
        theirs::api_versions_response::ApiVersion::default()
            .with_api_key(it.api_key.0)
            .with_min_version(it.min)
            .with_max_version(it.max)
    };
    let content = theirs::ApiVersionsResponse::default()
        .with_error_code(ours.error.0)
        .with_api_keys(ours.ranges.iter().map(range).collect())
        .with_throttle_time_ms(ours.throttle_time_ms);
    same(&bytes, &content, version);
    if ours.error != ErrorCode::UNSUPPORTED_VERSION {
        // A refusal is read as v0, whatever was asked.
        assert_eq!(
            read_all(&bytes, |reader| api_versions::Response::read(
                version, reader
            )),
            ours
        );
    }
    ours.ranges.truncate(1);
    if let Some(range) = ours.ranges.first() {
        let picked = ours.pick(range.api_key, 0..=9);
        assert!(
            picked.is_none_or(|it| (0..=9).contains(&it) && it <= range.max && it >= range.min)
        );
    }
    Ok(())
}
