//! Metadata: brokers, topics, partitions, leaders. v1 to v13.
//!
//! The response is decoded into owned values, since it outlives its frame. It is the largest thing
//! a broker can make a client keep, so it has caps, besides the check of every count against the
//! bytes that follow: [`BROKERS_MAX`], [`TOPICS_MAX`], [`PARTITIONS_MAX`]. What the values mean
//! together (a leader that is not listed, a partition that comes twice) is judged by the core.
//!
//! ```
//! use ringpost_codec::kafka::metadata::{Broker, Request, Response};
//! use ringpost_codec::{reader::Reader, writer::Writer};
//! let mut out = Vec::new();
//! let request = Request { topics: Some(&["orders"]), allow_auto_topic_creation: false };
//! request.write(12, &mut Writer::new(&mut out))?;
//!
//! let broker = Broker { id: 1, host: "kafka-1".into(), port: 9092, rack: None };
//! let answer = Response { brokers: vec![broker], ..Response::default() };
//! out.clear();
//! answer.write(12, &mut Writer::new(&mut out))?;
//! assert_eq!(Response::read(12, &mut Reader::new(&out))?, answer);
//! # Ok::<(), ringpost_codec::error::DecodeError>(())
//! ```

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::error::DecodeError;
use crate::kafka::{ApiKey, ErrorCode, check_version};
use crate::reader::{Form, Reader};
use crate::writer::Writer;

/// The versions spoken here.
pub const VERSIONS: RangeInclusive<i16> = 1..=13;

/// How many brokers a cluster may have.
pub const BROKERS_MAX: usize = 10_000;
/// How many topics a response may have.
pub const TOPICS_MAX: usize = 1_000_000;
/// How many partitions a topic may have.
pub const PARTITIONS_MAX: usize = 100_000;

/// "Not asked for" in the fields of authorized operations.
const NO_OPERATIONS: i32 = i32::MIN;

/// The topic id that stands for none.
pub const NO_TOPIC_ID: [u8; 16] = [0; 16];

fn form(version: i16) -> Result<Form, DecodeError> {
    check_version(ApiKey::METADATA, &VERSIONS, version)
}

/// The question, about topics by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Which topics; null for all, empty for none (brokers only).
    pub topics: Option<&'a [&'a str]>,
    /// Whether the broker may create topics that it does not know. Sent from v4 on; before, it
    /// always may.
    pub allow_auto_topic_creation: bool,
}

impl Request<'_> {
    /// Writes the body.
    pub fn write(&self, version: i16, writer: &mut Writer<'_>) -> Result<(), DecodeError> {
        let form = form(version)?;
        writer.nullable_array_len(form, self.topics.map(<[&str]>::len));
        for topic in self.topics.unwrap_or_default() {
            if version >= 10 {
                writer.raw(&NO_TOPIC_ID);
            }
            writer.string(form, topic);
            writer.no_tagged_fields(form);
        }
        if version >= 4 {
            writer.bool(self.allow_auto_topic_creation);
        }
        if (8..=10).contains(&version) {
            writer.bool(false); // include cluster authorized operations
        }
        if version >= 8 {
            writer.bool(false); // include topic authorized operations
        }
        writer.no_tagged_fields(form);
        Ok(())
    }
}

/// The question as a broker reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestView<'a> {
    /// Which topics; null for all.
    pub topics: Option<Vec<TopicQuery<'a>>>,
    /// Whether topics may be created.
    pub allow_auto_topic_creation: bool,
}

/// One topic of a question: by name, or (from v12 on) by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicQuery<'a> {
    /// All zeros when asked by name.
    pub id: [u8; 16],
    /// Null when asked by id.
    pub name: Option<&'a str>,
}

impl<'a> RequestView<'a> {
    /// Reads the body.
    pub fn read(version: i16, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let form = form(version)?;
        let what = "metadata.topics";
        let min_topic_len = if version >= 10 { 16 + 1 } else { 1 };
        let count = reader.nullable_array_len(form, min_topic_len, what)?;
        let mut topics = count.map(Vec::with_capacity);
        for _ in 0..count.unwrap_or(0) {
            let id = if version >= 10 {
                reader.uuid("metadata.topic_id")?
            } else {
                NO_TOPIC_ID
            };
            let name = reader.nullable_string(form, "metadata.topic.name")?;
            reader.skip_tagged_fields(form, what)?;
            topics.get_or_insert_default().push(TopicQuery { id, name });
        }
        let allow_auto_topic_creation =
            version < 4 || reader.bool("metadata.allow_auto_topic_creation")?;
        if (8..=10).contains(&version) {
            reader.bool("metadata.include_cluster_authorized_operations")?;
        }
        if version >= 8 {
            reader.bool("metadata.include_topic_authorized_operations")?;
        }
        reader.skip_tagged_fields(form, "metadata")?;
        Ok(Self {
            topics,
            allow_auto_topic_creation,
        })
    }
}

/// One broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its node id.
    pub id: i32,
    /// Where it listens. Not checked: it comes from the network and goes to a resolver or a log.
    pub host: String,
    /// Where it listens. Not checked either: one broker with an impossible port is no reason to
    /// refuse what is said about the others.
    pub port: i32,
    /// Its rack.
    pub rack: Option<String>,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topic {
    /// What is wrong with it.
    pub error: ErrorCode,
    /// Its name; null only in answers to questions by id (v12).
    pub name: Option<String>,
    /// Its id; all zeros before v10.
    pub id: [u8; 16],
    /// Whether it is one of Kafka's own.
    pub is_internal: bool,
    /// Its partitions, in the broker's order.
    pub partitions: Vec<Partition>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partition {
    /// What is wrong with it.
    pub error: ErrorCode,
    /// Its number.
    pub index: i32,
    /// The broker that takes its records; −1 for none.
    pub leader: i32,
    /// Rises with each change of leader; −1 before v7.
    pub leader_epoch: i32,
    /// The brokers that keep it.
    pub replicas: Vec<i32>,
    /// Those of them that are up to date.
    pub in_sync: Vec<i32>,
    /// Those of them that are down (v5).
    pub offline: Vec<i32>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// How long the broker wants to be left alone (v3).
    pub throttle_time_ms: i32,
    /// The brokers that are up.
    pub brokers: Vec<Broker>,
    /// The cluster's id (v2).
    pub cluster_id: Option<String>,
    /// The controller, or a broker that can reach it; −1 for none.
    pub controller_id: i32,
    /// The topics.
    pub topics: Vec<Topic>,
    /// What is wrong with all of it (v13): `REBOOTSTRAP_REQUIRED`.
    pub error: ErrorCode,
}

impl Default for Response {
    /// Nothing.
    fn default() -> Self {
        Self {
            throttle_time_ms: 0,
            brokers: Vec::new(),
            cluster_id: None,
            controller_id: -1,
            topics: Vec::new(),
            error: ErrorCode::NONE,
        }
    }
}

impl Response {
    /// Writes the body.
    pub fn write(&self, version: i16, writer: &mut Writer<'_>) -> Result<(), DecodeError> {
        let form = form(version)?;
        if version >= 3 {
            writer.i32(self.throttle_time_ms);
        }
        writer.array_len(form, self.brokers.len());
        for broker in &self.brokers {
            writer.i32(broker.id);
            writer.string(form, &broker.host);
            writer.i32(broker.port);
            writer.nullable_string(form, broker.rack.as_deref());
            writer.no_tagged_fields(form);
        }
        if version >= 2 {
            writer.nullable_string(form, self.cluster_id.as_deref());
        }
        writer.i32(self.controller_id);
        writer.array_len(form, self.topics.len());
        for topic in &self.topics {
            topic.write(version, form, writer);
        }
        if (8..=10).contains(&version) {
            writer.i32(NO_OPERATIONS);
        }
        if version >= 13 {
            writer.i16(self.error.0);
        }
        writer.no_tagged_fields(form);
        Ok(())
    }

    /// Reads the body. Bytes behind it are left alone.
    pub fn read(version: i16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let form = form(version)?;
        let throttle_time_ms = if version >= 3 {
            reader.i32("metadata.throttle_time_ms")?
        } else {
            0
        };
        let count = bounded_len(reader, form, 10, BROKERS_MAX, "metadata.brokers")?;
        let mut brokers = Vec::with_capacity(count);
        for _ in 0..count {
            brokers.push(Broker::read(form, reader)?);
        }
        let cluster_id = if version >= 2 {
            reader
                .nullable_string(form, "metadata.cluster_id")?
                .map(String::from)
        } else {
            None
        };
        let controller_id = reader.i32("metadata.controller_id")?;
        let count = bounded_len(reader, form, Topic::MIN_LEN, TOPICS_MAX, "metadata.topics")?;
        // A topic takes more memory than bytes, so a lying count is not given all of it at once.
        let mut topics = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            topics.push(Topic::read(version, form, reader)?);
        }
        if (8..=10).contains(&version) {
            reader.i32("metadata.cluster_authorized_operations")?;
        }
        let error = if version >= 13 {
            ErrorCode(reader.i16("metadata.error_code")?)
        } else {
            ErrorCode::NONE
        };
        reader.skip_tagged_fields(form, "metadata")?;
        Ok(Self {
            throttle_time_ms,
            brokers,
            cluster_id,
            controller_id,
            topics,
            error,
        })
    }
}

impl Broker {
    fn read(form: Form, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = reader.i32("metadata.broker.node_id")?;
        let host = String::from(reader.string(form, "metadata.broker.host")?);
        let port = reader.i32("metadata.broker.port")?;
        let rack = reader
            .nullable_string(form, "metadata.broker.rack")?
            .map(String::from);
        reader.skip_tagged_fields(form, "metadata.broker")?;
        Ok(Self {
            id,
            host,
            port,
            rack,
        })
    }
}

impl Topic {
    /// The error, the shortest name, whether internal, the shortest count of partitions.
    const MIN_LEN: usize = 2 + 1 + 1 + 1;

    fn write(&self, version: i16, form: Form, writer: &mut Writer<'_>) {
        writer.i16(self.error.0);
        if version >= 12 {
            writer.nullable_string(form, self.name.as_deref());
        } else {
            writer.string(form, self.name.as_deref().unwrap_or_default());
        }
        if version >= 10 {
            writer.raw(&self.id);
        }
        writer.bool(self.is_internal);
        writer.array_len(form, self.partitions.len());
        for partition in &self.partitions {
            partition.write(version, form, writer);
        }
        if version >= 8 {
            writer.i32(NO_OPERATIONS);
        }
        writer.no_tagged_fields(form);
    }

    fn read(version: i16, form: Form, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let error = ErrorCode(reader.i16("metadata.topic.error_code")?);
        let name = if version >= 12 {
            reader.nullable_string(form, "metadata.topic.name")?
        } else {
            Some(reader.string(form, "metadata.topic.name")?)
        };
        let name = name.map(String::from);
        let id = if version >= 10 {
            reader.uuid("metadata.topic.topic_id")?
        } else {
            NO_TOPIC_ID
        };
        let is_internal = reader.bool("metadata.topic.is_internal")?;
        let what = "metadata.topic.partitions";
        let count = bounded_len(reader, form, Partition::MIN_LEN, PARTITIONS_MAX, what)?;
        let mut partitions = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            partitions.push(Partition::read(version, form, reader)?);
        }
        if version >= 8 {
            reader.i32("metadata.topic.topic_authorized_operations")?;
        }
        reader.skip_tagged_fields(form, "metadata.topic")?;
        Ok(Self {
            error,
            name,
            id,
            is_internal,
            partitions,
        })
    }
}

impl Partition {
    /// The error, the number, the leader, the shortest counts of replicas and in-sync replicas.
    const MIN_LEN: usize = 2 + 4 + 4 + 1 + 1;

    fn write(&self, version: i16, form: Form, writer: &mut Writer<'_>) {
        writer.i16(self.error.0);
        writer.i32(self.index);
        writer.i32(self.leader);
        if version >= 7 {
            writer.i32(self.leader_epoch);
        }
        write_nodes(form, &self.replicas, writer);
        write_nodes(form, &self.in_sync, writer);
        if version >= 5 {
            write_nodes(form, &self.offline, writer);
        }
        writer.no_tagged_fields(form);
    }

    fn read(version: i16, form: Form, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let partition = Self {
            error: ErrorCode(reader.i16("metadata.partition.error_code")?),
            index: reader.i32("metadata.partition.partition_index")?,
            leader: reader.i32("metadata.partition.leader_id")?,
            leader_epoch: match version {
                7.. => reader.i32("metadata.partition.leader_epoch")?,
                _ => -1,
            },
            replicas: read_nodes(form, reader, "metadata.partition.replica_nodes")?,
            in_sync: read_nodes(form, reader, "metadata.partition.isr_nodes")?,
            offline: match version {
                5.. => read_nodes(form, reader, "metadata.partition.offline_replicas")?,
                _ => Vec::new(),
            },
        };
        reader.skip_tagged_fields(form, "metadata.partition")?;
        Ok(partition)
    }
}

fn write_nodes(form: Form, nodes: &[i32], writer: &mut Writer<'_>) {
    writer.array_len(form, nodes.len());
    for node in nodes {
        writer.i32(*node);
    }
}

fn read_nodes(
    form: Form,
    reader: &mut Reader<'_>,
    what: &'static str,
) -> Result<Vec<i32>, DecodeError> {
    // Some brokers send null for no nodes.
    let count = reader.nullable_array_len(form, 4, what)?.unwrap_or(0);
    if count > BROKERS_MAX {
        return Err(DecodeError::TooMany {
            what,
            count,
            max: BROKERS_MAX,
        });
    }
    (0..count).map(|_| reader.i32(what)).collect()
}

fn bounded_len(
    reader: &mut Reader<'_>,
    form: Form,
    min_item_len: usize,
    max: usize,
    what: &'static str,
) -> Result<usize, DecodeError> {
    let count = reader.array_len(form, min_item_len, what)?;
    if count > max {
        return Err(DecodeError::TooMany { what, count, max });
    }
    Ok(count)
}
