//! Produce: records to partitions. v3 to v13.
//!
//! | from | change |
//! |---|---|
//! | v3 | record-batch v2, transactional id: the lowest that is spoken here, and the lowest that brokers from 4.0 on accept |
//! | v5 | log start offset in the response |
//! | v7 | zstd allowed |
//! | v8 | which records were refused, and why (KIP-467) |
//! | v9 | compact form |
//! | v10 | the new leader in the response (KIP-951) |
//! | v11, v12 | the same bytes; other meanings in transactions |
//! | v13 | topics by id (KIP-516) |
//!
//! **The client's request is written by parts**, since the batch bodies go on the wire by reference
//! and are never copied in here. The parts are a few dozen bytes each, appended to a slab:
//!
//! ```text
//! put_request_head  length, header, transactional id, acks, timeout, topic count
//!   put_topic         name or id, partition count
//!     put_partition     index, length of the records
//!                       [61 bytes of batch header: slab] [body: by reference]
//!     put_partition_end
//!   put_topic_end
//! put_request_end, then ReservedLen::patch with the bytes that went by reference
//! ```
//! Each part has a function that says its exact length, for those who fill requests up to a limit.
//!
//! **The client's response is read twice**: [`decode_response`] walks over all of it and refuses it
//! as a whole when anything is wrong; only then are its partitions given out, so no batch is ever
//! completed by half of a broken message. Nothing is allocated.
//!
//! ```
//! use ringpost_codec::kafka::produce::*;
//! use ringpost_codec::kafka::ErrorCode;
//!
//! let mut slab = Vec::new();
//! let head = RequestHead {
//!     version: 9, correlation_id: 1, client_id: Some("me"), transactional_id: None,
//!     acks: -1, timeout_ms: 30_000, topic_count: 1,
//! };
//! let len = put_request_head(&mut slab, &head);
//! put_topic(&mut slab, 9, TopicRef::Name("orders"), 1);
//! put_partition(&mut slab, 9, 0, 61 + 1000);
//! let by_reference = 61 + 1000; // header and body follow here on the wire
//! put_partition_end(&mut slab, 9);
//! put_topic_end(&mut slab, 9);
//! put_request_end(&mut slab, 9);
//! len.patch(&mut slab, by_reference);
//!
//! // An answer to it, as it comes from the broker behind the response header:
//! let answer = b"\x02\x07orders\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\x2a\xff\xff\xff\xff\xff\xff\xff\xff\
//!     \0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0";
//! let response = decode_response(9, answer)?;
//! let partition = response.partitions().next().unwrap();
//! assert_eq!(partition.topic, TopicRef::Name("orders"));
//! assert_eq!((partition.error, partition.base_offset), (ErrorCode::NONE, 42));
//! # Ok::<(), ringpost_codec::error::DecodeError>(())
//! ```

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::error::DecodeError;
use crate::kafka::header::RequestHeader;
use crate::kafka::{ApiKey, ErrorCode, check_version};
use crate::reader::{Form, Reader};
use crate::writer::{
    ReservedLen, Writer, array_len_len, no_tagged_fields_len, nullable_string_len, string_len,
};

/// The versions spoken here.
pub const VERSIONS: RangeInclusive<i16> = 3..=13;

/// The first version in which a batch may be compressed with zstd.
pub const ZSTD_FROM: i16 = 7;

/// The first version that names topics by id.
pub const TOPIC_IDS_FROM: i16 = 13;

fn form(version: i16) -> Form {
    ApiKey::PRODUCE.form(version)
}

/// A topic, as the version has it: by name up to v12, by id from v13 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopicRef<'a> {
    /// Its name.
    Name(&'a str),
    /// Its id.
    Id([u8; 16]),
}

impl<'a> TopicRef<'a> {
    fn len(self, version: i16) -> usize {
        match self {
            TopicRef::Name(name) => string_len(form(version), name),
            TopicRef::Id(id) => id.len(),
        }
    }

    fn write(self, version: i16, writer: &mut Writer<'_>) {
        match self {
            TopicRef::Name(name) if version < TOPIC_IDS_FROM => writer.string(form(version), name),
            TopicRef::Id(id) if version >= TOPIC_IDS_FROM => writer.raw(&id),
            _ => panic!("Produce v{version} names topics the other way than {self:?}"),
        }
    }

    fn read(version: i16, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(if version < TOPIC_IDS_FROM {
            TopicRef::Name(reader.string(form(version), "produce.topic.name")?)
        } else {
            TopicRef::Id(reader.uuid("produce.topic.topic_id")?)
        })
    }

    /// The fewest bytes it takes.
    const fn min_len(version: i16) -> usize {
        match version {
            TOPIC_IDS_FROM.. => 16,
            _ => 1,
        }
    }
}

// ---- The client's request -----------------------------------------------------------------

/// What stands once in a request, in front of its topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The version, one of [`VERSIONS`].
    pub version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// Who asks.
    pub client_id: Option<&'a str>,
    /// Null without transactions.
    pub transactional_id: Option<&'a str>,
    /// How many replicas must have the records before the answer: 0 (no answer at all), 1, or −1
    /// for all that are in sync.
    pub acks: i16,
    /// How long the broker may wait for the replicas.
    pub timeout_ms: i32,
    /// How many topics follow.
    pub topic_count: usize,
}

impl<'a> RequestHead<'a> {
    const fn header(&self) -> RequestHeader<'a> {
        RequestHeader {
            api_key: ApiKey::PRODUCE,
            version: self.version,
            correlation_id: self.correlation_id,
            client_id: self.client_id,
        }
    }
}

/// How many bytes [`put_request_head`] appends, the four of the message's length included.
#[must_use]
pub fn request_head_len(head: &RequestHead<'_>) -> usize {
    let form = form(head.version);
    4 + head.header().encoded_len()
        + nullable_string_len(form, head.transactional_id)
        + 2
        + 4
        + array_len_len(form, head.topic_count)
}

/// Begins a request. The returned length is to be patched at its end.
///
/// # Panics
/// When the version is not one of [`VERSIONS`], or a string is longer than 32,767 bytes.
pub fn put_request_head(out: &mut Vec<u8>, head: &RequestHead<'_>) -> ReservedLen {
    assert!(
        VERSIONS.contains(&head.version),
        "Produce v{} is not spoken",
        head.version
    );
    let form = form(head.version);
    let mut writer = Writer::new(out);
    let len = writer.reserve_len();
    head.header().write(&mut writer);
    writer.nullable_string(form, head.transactional_id);
    writer.i16(head.acks);
    writer.i32(head.timeout_ms);
    writer.array_len(form, head.topic_count);
    len
}

/// How many bytes [`put_topic`] appends.
#[must_use]
pub fn topic_len(version: i16, topic: TopicRef<'_>, partition_count: usize) -> usize {
    topic.len(version) + array_len_len(form(version), partition_count)
}

/// Begins a topic.
///
/// # Panics
/// When the topic is named in the way of other versions.
pub fn put_topic(out: &mut Vec<u8>, version: i16, topic: TopicRef<'_>, partition_count: usize) {
    let mut writer = Writer::new(out);
    topic.write(version, &mut writer);
    writer.array_len(form(version), partition_count);
}

/// How many bytes [`put_partition`] appends; the records come on top.
#[must_use]
pub fn partition_len(version: i16, records_len: usize) -> usize {
    4 + array_len_len(form(version), records_len)
}

/// Begins a partition, whose batch of `records_len` bytes (header and body) follows on the wire.
pub fn put_partition(out: &mut Vec<u8>, version: i16, partition: i32, records_len: usize) {
    let mut writer = Writer::new(out);
    writer.i32(partition);
    writer.bytes_len(form(version), records_len);
}

/// How many bytes [`put_partition_end`] appends.
#[must_use]
pub fn partition_end_len(version: i16) -> usize {
    no_tagged_fields_len(form(version))
}

/// Ends a partition.
pub fn put_partition_end(out: &mut Vec<u8>, version: i16) {
    Writer::new(out).no_tagged_fields(form(version));
}

/// How many bytes [`put_topic_end`] appends.
#[must_use]
pub fn topic_end_len(version: i16) -> usize {
    no_tagged_fields_len(form(version))
}

/// Ends a topic.
pub fn put_topic_end(out: &mut Vec<u8>, version: i16) {
    Writer::new(out).no_tagged_fields(form(version));
}

/// How many bytes [`put_request_end`] appends.
#[must_use]
pub fn request_end_len(version: i16) -> usize {
    no_tagged_fields_len(form(version))
}

/// Ends a request. Its length is still to be patched.
pub fn put_request_end(out: &mut Vec<u8>, version: i16) {
    Writer::new(out).no_tagged_fields(form(version));
}

// ---- The broker's request -----------------------------------------------------------------

/// A request as a broker reads it: read to its end once and found whole.
#[derive(Debug, Clone)]
pub struct RequestView<'a> {
    /// Null without transactions.
    pub transactional_id: Option<&'a str>,
    /// 0, 1, or −1.
    pub acks: i16,
    /// How long the broker may wait for the replicas.
    pub timeout_ms: i32,
    topics: RequestTopics<'a>,
}

impl<'a> RequestView<'a> {
    /// The topics, in order.
    #[must_use]
    pub fn topics(&self) -> RequestTopics<'a> {
        self.topics.clone()
    }
}

/// Reads the body of a request (what follows the request header) in a version of [`VERSIONS`].
pub fn decode_request(version: i16, body: &[u8]) -> Result<RequestView<'_>, DecodeError> {
    let form = check_version(ApiKey::PRODUCE, &VERSIONS, version)?;
    let mut reader = Reader::new(body);
    let transactional_id = reader.nullable_string(form, "produce.transactional_id")?;
    let acks = reader.i16("produce.acks")?;
    let timeout_ms = reader.i32("produce.timeout_ms")?;
    let min_topic_len = TopicRef::min_len(version) + array_len_len(form, 0);
    let left = reader.array_len(form, min_topic_len, "produce.topic_data")?;
    let topics = RequestTopics {
        version,
        left,
        reader,
    };

    let mut walk = topics.clone();
    while walk.read()?.is_some() {}
    let mut reader = walk.reader;
    reader.skip_tagged_fields(form, "produce")?;
    reader.finish("produce")?;
    Ok(RequestView {
        transactional_id,
        acks,
        timeout_ms,
        topics,
    })
}

/// One topic of a request.
#[derive(Debug, Clone)]
pub struct RequestTopic<'a> {
    /// The topic.
    pub topic: TopicRef<'a>,
    /// Its partitions, in order.
    pub partitions: RequestPartitions<'a>,
}

/// One partition of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestPartition<'a> {
    /// The partition.
    pub partition: i32,
    /// Its batch, for [`BatchView`](crate::record_batch::BatchView).
    pub records: Option<&'a [u8]>,
}

/// The topics of a [`RequestView`].
#[derive(Debug, Clone)]
pub struct RequestTopics<'a> {
    version: i16,
    left: usize,
    reader: Reader<'a>,
}

impl<'a> RequestTopics<'a> {
    fn read(&mut self) -> Result<Option<RequestTopic<'a>>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        let form = form(self.version);
        let topic = TopicRef::read(self.version, &mut self.reader)?;
        let min_len = 4 + array_len_len(form, 0);
        let left = self
            .reader
            .array_len(form, min_len, "produce.partition_data")?;
        let partitions = RequestPartitions {
            form,
            left,
            reader: self.reader.clone(),
        };
        let mut walk = partitions.clone();
        while walk.read()?.is_some() {}
        self.reader = walk.reader;
        self.reader.skip_tagged_fields(form, "produce.topic")?;
        Ok(Some(RequestTopic { topic, partitions }))
    }
}

impl<'a> Iterator for RequestTopics<'a> {
    type Item = RequestTopic<'a>;

    fn next(&mut self) -> Option<RequestTopic<'a>> {
        // `decode_request` has read all of it once, so this does not fail.
        self.read().ok().flatten()
    }
}

/// The partitions of a [`RequestTopic`].
#[derive(Debug, Clone)]
pub struct RequestPartitions<'a> {
    form: Form,
    left: usize,
    reader: Reader<'a>,
}

impl<'a> RequestPartitions<'a> {
    /// How many are left.
    #[must_use]
    pub const fn count_left(&self) -> usize {
        self.left
    }

    fn read(&mut self) -> Result<Option<RequestPartition<'a>>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        let partition = self.reader.i32("produce.partition.index")?;
        let records = self
            .reader
            .nullable_bytes(self.form, "produce.partition.records")?;
        self.reader
            .skip_tagged_fields(self.form, "produce.partition")?;
        Ok(Some(RequestPartition { partition, records }))
    }
}

impl<'a> Iterator for RequestPartitions<'a> {
    type Item = RequestPartition<'a>;

    fn next(&mut self) -> Option<RequestPartition<'a>> {
        // Read once before it was given out, so this does not fail.
        self.read().ok().flatten()
    }
}

// ---- The broker's response ----------------------------------------------------------------

/// A response as a broker writes it. Fields that a version does not have are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response<'a> {
    /// What happened, topic by topic.
    pub topics: Vec<TopicResult<'a>>,
    /// How long the client is to leave the broker alone.
    pub throttle_time_ms: i32,
    /// The new leaders' addresses (v10).
    pub node_endpoints: Vec<NodeEndpoint<'a>>,
}

/// One topic of a [`Response`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicResult<'a> {
    /// The topic.
    pub topic: TopicRef<'a>,
    /// What happened, partition by partition.
    pub partitions: Vec<PartitionResult<'a>>,
}

/// One partition of a [`Response`]; the fields are those of [`PartitionResponse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionResult<'a> {
    /// The partition.
    pub partition: i32,
    /// Whether the batch was written, or why not.
    pub error: ErrorCode,
    /// The first record's offset; −1 on error.
    pub base_offset: i64,
    /// The broker's time, where the topic uses it; else −1.
    pub log_append_time_ms: i64,
    /// The partition's first offset (v5).
    pub log_start_offset: i64,
    /// Which records were refused (v8).
    pub record_errors: Vec<RecordError<'a>>,
    /// Why the batch was refused (v8).
    pub error_message: Option<&'a str>,
    /// Who leads the partition now (v10).
    pub current_leader: Option<CurrentLeader>,
}

impl PartitionResult<'_> {
    /// A batch that was written.
    #[must_use]
    pub const fn written(partition: i32, base_offset: i64) -> Self {
        Self {
            partition,
            error: ErrorCode::NONE,
            base_offset,
            log_append_time_ms: -1,
            log_start_offset: 0,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        }
    }

    /// A batch that was refused.
    #[must_use]
    pub fn refused(partition: i32, error: ErrorCode) -> Self {
        Self {
            error,
            log_start_offset: -1,
            ..Self::written(partition, -1)
        }
    }

    fn write(&self, version: i16, writer: &mut Writer<'_>) {
        let form = form(version);
        writer.i32(self.partition);
        writer.i16(self.error.0);
        writer.i64(self.base_offset);
        writer.i64(self.log_append_time_ms);
        if version >= 5 {
            writer.i64(self.log_start_offset);
        }
        if version >= 8 {
            writer.array_len(form, self.record_errors.len());
            for error in &self.record_errors {
                writer.i32(error.batch_index);
                writer.nullable_string(form, error.message);
                writer.no_tagged_fields(form);
            }
            writer.nullable_string(form, self.error_message);
        }
        match self.current_leader {
            Some(leader) if version >= 10 => {
                let mut field = Vec::new();
                let mut field_writer = Writer::new(&mut field);
                field_writer.i32(leader.leader_id);
                field_writer.i32(leader.leader_epoch);
                field_writer.no_tagged_fields(form);
                writer.one_tagged_field(CURRENT_LEADER_TAG, &field);
            }
            _ => writer.no_tagged_fields(form),
        }
    }
}

impl Response<'_> {
    /// Writes the body.
    ///
    /// # Panics
    /// When a topic is named in the way of other versions.
    pub fn write(&self, version: i16, writer: &mut Writer<'_>) -> Result<(), DecodeError> {
        let form = check_version(ApiKey::PRODUCE, &VERSIONS, version)?;
        writer.array_len(form, self.topics.len());
        for topic in &self.topics {
            topic.topic.write(version, writer);
            writer.array_len(form, topic.partitions.len());
            for partition in &topic.partitions {
                partition.write(version, writer);
            }
            writer.no_tagged_fields(form);
        }
        writer.i32(self.throttle_time_ms);
        if version < 10 || self.node_endpoints.is_empty() {
            writer.no_tagged_fields(form);
            return Ok(());
        }
        let mut field = Vec::new();
        let mut field_writer = Writer::new(&mut field);
        field_writer.array_len(form, self.node_endpoints.len());
        for endpoint in &self.node_endpoints {
            field_writer.i32(endpoint.node_id);
            field_writer.string(form, endpoint.host);
            field_writer.i32(endpoint.port);
            field_writer.nullable_string(form, endpoint.rack);
            field_writer.no_tagged_fields(form);
        }
        writer.one_tagged_field(NODE_ENDPOINTS_TAG, &field);
        Ok(())
    }
}

// ---- The client's response ----------------------------------------------------------------

/// What the broker did with one partition's batch.
#[derive(Debug, Clone)]
pub struct PartitionResponse<'a> {
    /// The topic.
    pub topic: TopicRef<'a>,
    /// The partition.
    pub partition: i32,
    /// Whether the batch was written, or why not.
    pub error: ErrorCode,
    /// The first record's offset; −1 on error, and for a duplicate whose place is forgotten.
    pub base_offset: i64,
    /// The broker's time, where the topic uses it; else −1.
    pub log_append_time_ms: i64,
    /// The partition's first offset (v5); −1 when not given.
    pub log_start_offset: i64,
    /// Which records were refused (v8).
    pub record_errors: RecordErrors<'a>,
    /// Why the batch was refused, in words (v8). From the network: escape it before logging.
    pub error_message: Option<&'a str>,
    /// Who leads the partition now (v10).
    pub current_leader: Option<CurrentLeader>,
}

/// Who leads a partition now (KIP-951).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentLeader {
    /// The broker's node id, −1 when unknown.
    pub leader_id: i32,
    /// The leader's epoch, −1 when unknown.
    pub leader_epoch: i32,
}

/// Where a broker listens, sent along with a new leader (v10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeEndpoint<'a> {
    /// The broker's node id.
    pub node_id: i32,
    /// Where it listens. From the network, not checked.
    pub host: &'a str,
    /// Where it listens. From the network, not checked.
    pub port: i32,
    /// Its rack.
    pub rack: Option<&'a str>,
}

/// A record that the broker refused: its index in the batch, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordError<'a> {
    /// The record's index in the batch.
    pub batch_index: i32,
    /// Why. From the network: escape it before logging.
    pub message: Option<&'a str>,
}

/// A response that was read to its end once and found whole.
#[derive(Debug, Clone)]
pub struct ResponseView<'a> {
    partitions: Partitions<'a>,
    /// How long the broker wants to be left alone.
    pub throttle_time_ms: i32,
    node_endpoints: NodeEndpoints<'a>,
}

impl<'a> ResponseView<'a> {
    /// The partitions, in the broker's order. That order, and that each was asked for and comes
    /// once, is for the caller to check.
    #[must_use]
    pub fn partitions(&self) -> Partitions<'a> {
        self.partitions.clone()
    }

    /// The new leaders' addresses (v10).
    #[must_use]
    pub fn node_endpoints(&self) -> NodeEndpoints<'a> {
        self.node_endpoints.clone()
    }
}

/// Reads the body of a response (what follows the response header) in a version of [`VERSIONS`].
/// Bytes behind it are ignored, as are unknown tagged fields.
pub fn decode_response(version: i16, body: &[u8]) -> Result<ResponseView<'_>, DecodeError> {
    let form = check_version(ApiKey::PRODUCE, &VERSIONS, version)?;
    let mut reader = Reader::new(body);
    let min_topic_len = TopicRef::min_len(version) + array_len_len(form, 0);
    let topics_left = reader.array_len(form, min_topic_len, "produce.responses")?;
    let partitions = Partitions {
        version,
        reader,
        topics_left,
        in_topic: None,
    };

    let mut walk = partitions.clone();
    while walk.read()?.is_some() {}
    let mut reader = walk.reader;

    let throttle_time_ms = reader.i32("produce.throttle_time_ms")?;
    let mut node_endpoints = NodeEndpoints {
        left: 0,
        reader: Reader::new(&[]),
    };
    reader.tagged_fields(form, "produce", |tag, mut field| {
        if version >= 10 && tag == NODE_ENDPOINTS_TAG {
            let left = field.array_len(form, 4 + 1 + 4 + 1 + 1, "produce.node_endpoints")?;
            node_endpoints = NodeEndpoints {
                left,
                reader: field,
            };
            let mut walk = node_endpoints.clone();
            while walk.read()?.is_some() {}
        }
        Ok(())
    })?;
    Ok(ResponseView {
        partitions,
        throttle_time_ms,
        node_endpoints,
    })
}

const CURRENT_LEADER_TAG: u32 = 0;
const NODE_ENDPOINTS_TAG: u32 = 0;

/// The partitions of a [`ResponseView`].
#[derive(Debug, Clone)]
pub struct Partitions<'a> {
    version: i16,
    reader: Reader<'a>,
    topics_left: usize,
    /// The topic being read, and how many of its partitions are left.
    in_topic: Option<(TopicRef<'a>, usize)>,
}

impl<'a> Partitions<'a> {
    fn read(&mut self) -> Result<Option<PartitionResponse<'a>>, DecodeError> {
        let form = form(self.version);
        loop {
            match self.in_topic {
                Some((topic, left @ 1..)) => {
                    self.in_topic = Some((topic, left - 1));
                    return PartitionResponse::read(self.version, topic, &mut self.reader)
                        .map(Some);
                }
                Some((_, 0)) => {
                    self.reader.skip_tagged_fields(form, "produce.topic")?;
                    self.in_topic = None;
                }
                None if self.topics_left == 0 => return Ok(None),
                None => {
                    self.topics_left -= 1;
                    let topic = TopicRef::read(self.version, &mut self.reader)?;
                    // Index, error, base offset, log append time.
                    let min_len = 4 + 2 + 8 + 8;
                    let count = self.reader.array_len(form, min_len, "produce.partitions")?;
                    self.in_topic = Some((topic, count));
                }
            }
        }
    }
}

impl<'a> Iterator for Partitions<'a> {
    type Item = PartitionResponse<'a>;

    fn next(&mut self) -> Option<PartitionResponse<'a>> {
        // `decode_response` has read all of it once, so this does not fail.
        self.read().ok().flatten()
    }
}

impl<'a> PartitionResponse<'a> {
    fn read(
        version: i16,
        topic: TopicRef<'a>,
        reader: &mut Reader<'a>,
    ) -> Result<Self, DecodeError> {
        let form = form(version);
        let mut response = Self {
            topic,
            partition: reader.i32("produce.partition.index")?,
            error: ErrorCode(reader.i16("produce.partition.error_code")?),
            base_offset: reader.i64("produce.partition.base_offset")?,
            log_append_time_ms: reader.i64("produce.partition.log_append_time_ms")?,
            log_start_offset: match version {
                5.. => reader.i64("produce.partition.log_start_offset")?,
                _ => -1,
            },
            record_errors: RecordErrors {
                form,
                left: 0,
                reader: Reader::new(&[]),
            },
            error_message: None,
            current_leader: None,
        };
        if version >= 8 {
            let left = reader.array_len(form, 4 + 1, "produce.partition.record_errors")?;
            response.record_errors = RecordErrors {
                form,
                left,
                reader: reader.clone(),
            };
            let mut walk = response.record_errors.clone();
            while walk.read()?.is_some() {}
            *reader = walk.reader;
            response.error_message =
                reader.nullable_string(form, "produce.partition.error_message")?;
        }
        reader.tagged_fields(form, "produce.partition", |tag, mut field| {
            if version >= 10 && tag == CURRENT_LEADER_TAG {
                response.current_leader = Some(CurrentLeader {
                    leader_id: field.i32("produce.current_leader.leader_id")?,
                    leader_epoch: field.i32("produce.current_leader.leader_epoch")?,
                });
                field.skip_tagged_fields(form, "produce.current_leader")?;
            }
            Ok(())
        })?;
        Ok(response)
    }
}

/// The refused records of a [`PartitionResponse`].
#[derive(Debug, Clone)]
pub struct RecordErrors<'a> {
    form: Form,
    left: usize,
    reader: Reader<'a>,
}

impl<'a> RecordErrors<'a> {
    fn read(&mut self) -> Result<Option<RecordError<'a>>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        let batch_index = self.reader.i32("produce.record_error.batch_index")?;
        let message = self
            .reader
            .nullable_string(self.form, "produce.record_error.message")?;
        self.reader
            .skip_tagged_fields(self.form, "produce.record_error")?;
        Ok(Some(RecordError {
            batch_index,
            message,
        }))
    }
}

impl<'a> Iterator for RecordErrors<'a> {
    type Item = RecordError<'a>;

    fn next(&mut self) -> Option<RecordError<'a>> {
        // Read once before it was given out, so this does not fail.
        self.read().ok().flatten()
    }
}

/// The addresses of a [`ResponseView`].
#[derive(Debug, Clone)]
pub struct NodeEndpoints<'a> {
    left: usize,
    reader: Reader<'a>,
}

impl<'a> NodeEndpoints<'a> {
    fn read(&mut self) -> Result<Option<NodeEndpoint<'a>>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        let what = "produce.node_endpoint";
        let node_id = self.reader.i32("produce.node_endpoint.node_id")?;
        let host = self
            .reader
            .string(Form::Compact, "produce.node_endpoint.host")?;
        let port = self.reader.i32("produce.node_endpoint.port")?;
        let rack = self
            .reader
            .nullable_string(Form::Compact, "produce.node_endpoint.rack")?;
        self.reader.skip_tagged_fields(Form::Compact, what)?;
        Ok(Some(NodeEndpoint {
            node_id,
            host,
            port,
            rack,
        }))
    }
}

impl<'a> Iterator for NodeEndpoints<'a> {
    type Item = NodeEndpoint<'a>;

    fn next(&mut self) -> Option<NodeEndpoint<'a>> {
        // Read once before it was given out, so this does not fail.
        self.read().ok().flatten()
    }
}
