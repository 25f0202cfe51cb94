//! A client for the model: batches built by the engine's codec, requests by the engine's codec or
//! by `kafka-protocol`, answers read by `kafka-protocol`.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ApiKey, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use ringpost_broker::{Broker, BrokerConfig, Closed, ErrorCode, Progress, Session, TopicId};
use ringpost_codec::checksum::BodyDigest;
use ringpost_codec::compress::{Compressed, Compression, Compressor};
use ringpost_codec::kafka::produce::{self, RequestHead, TopicRef};
use ringpost_codec::record::{Header, encode, record_size};
use ringpost_codec::record_batch::{Attributes, BATCH_HEADER_LEN, BatchHeader};
use uuid::Uuid;

pub(crate) mod script;

/// The pretend wall clock of the tests: some day in 2026.
pub(crate) const NOW: i64 = 1_790_000_000_000;

/// What a test says of a batch.
#[derive(Debug, Clone)]
pub(crate) struct BatchOf {
    pub(crate) values: Vec<Vec<u8>>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) producer: Option<(i64, i16, i32)>,
    pub(crate) compression: Option<Compression>,
    pub(crate) timestamp: i64,
    /// Last changes to the header, before the CRC is computed.
    pub(crate) spoil: fn(&mut BatchHeader),
}

impl Default for BatchOf {
    fn default() -> Self {
        Self {
            values: vec![b"hello".to_vec()],
            key: None,
            headers: Vec::new(),
            producer: None,
            compression: None,
            timestamp: NOW,
            spoil: |_| {},
        }
    }
}

impl BatchOf {
    pub(crate) fn records(count: usize) -> Self {
        Self {
            values: vec![b"value".to_vec(); count],
            ..Self::default()
        }
    }

    pub(crate) fn sequenced(id: i64, epoch: i16, sequence: i32, count: usize) -> Self {
        Self {
            producer: Some((id, epoch, sequence)),
            ..Self::records(count)
        }
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let headers: Vec<Header<'_>> = self
            .headers
            .iter()
            .map(|(key, value)| Header {
                key,
                value: value.as_deref(),
            })
            .collect();
        let mut body = Vec::new();
        for (index, value) in (0..).zip(&self.values) {
            let key = self.key.as_deref();
            let size = record_size(0, index, key, Some(value.len()), &headers);
            let at = body.len();
            body.resize(at + size.total, 0);
            encode(&mut body[at..], size, 0, index, key, Some(value), &headers);
        }
        let mut attributes = Attributes::default();
        if let Some(compression) = self.compression {
            let mut packed = Vec::new();
            let pieces = &mut std::iter::once(&body[..]);
            let outcome = Compressor::new()
                .compress(compression, pieces, &mut packed, 1 << 20)
                .unwrap();
            assert_eq!(outcome, Compressed::Smaller);
            attributes = Attributes::new(compression.codec());
            body = packed;
        }
        let count = i32::try_from(self.values.len()).unwrap();
        let (producer_id, producer_epoch, base_sequence) = self.producer.unwrap_or((-1, -1, -1));
        let mut header = BatchHeader {
            attributes,
            last_offset_delta: count - 1,
            base_timestamp: self.timestamp,
            max_timestamp: self.timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            record_count: count,
            ..BatchHeader::default()
        };
        (self.spoil)(&mut header);
        let mut batch = vec![0; BATCH_HEADER_LEN];
        header.write(&BodyDigest::of(&body), &mut batch);
        batch.extend_from_slice(&body);
        batch
    }
}

/// A Produce request's content.
pub(crate) struct Produce<'a> {
    pub(crate) version: i16,
    pub(crate) acks: i16,
    pub(crate) topic: &'a str,
    pub(crate) topic_id: TopicId,
    pub(crate) batches: Vec<(i32, Vec<u8>)>,
}

impl Produce<'_> {
    /// As the engine writes it.
    pub(crate) fn by_codec(&self, correlation_id: i32) -> Vec<u8> {
        self.by_codec_waiting(correlation_id, 1000)
    }

    /// The same with another timeout.
    pub(crate) fn by_codec_waiting(&self, correlation_id: i32, timeout_ms: i32) -> Vec<u8> {
        let version = self.version;
        let topic = match version {
            13.. => TopicRef::Id(self.topic_id),
            _ => TopicRef::Name(self.topic),
        };
        let mut out = Vec::new();
        let head = RequestHead {
            version,
            correlation_id,
            client_id: Some("codec"),
            transactional_id: None,
            acks: self.acks,
            timeout_ms,
            topic_count: 1,
        };
        let length = produce::put_request_head(&mut out, &head);
        produce::put_topic(&mut out, version, topic, self.batches.len());
        for (partition, batch) in &self.batches {
            produce::put_partition(&mut out, version, *partition, batch.len());
            out.extend_from_slice(batch);
            produce::put_partition_end(&mut out, version);
        }
        produce::put_topic_end(&mut out, version);
        produce::put_request_end(&mut out, version);
        length.patch(&mut out, 0);
        out
    }

    /// As an independent implementation writes it.
    pub(crate) fn by_peer(&self, correlation_id: i32) -> Vec<u8> {
        let partitions = self.batches.iter().map(|(partition, batch)| {
            PartitionProduceData::default()
                .with_index(*partition)
                .with_records(Some(Bytes::copy_from_slice(batch)))
        });
        let mut topic = TopicProduceData::default().with_partition_data(partitions.collect());
        if self.version >= 13 {
            topic.topic_id = Uuid::from_bytes(self.topic_id);
        } else {
            topic.name = topic_name(self.topic);
        }
        let request = ProduceRequest::default()
            .with_acks(self.acks)
            .with_timeout_ms(1000)
            .with_topic_data(vec![topic]);
        frame(correlation_id, self.version, &request)
    }
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// A whole request as `kafka-protocol` writes it.
pub(crate) fn frame<R: Request>(correlation_id: i32, version: i16, request: &R) -> Vec<u8> {
    let mut out = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("peer")));
    header.encode(&mut out, R::header_version(version)).unwrap();
    request.encode(&mut out, version).unwrap();
    let mut frame = i32::try_from(out.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(&out);
    frame
}

/// Takes one answer off the front and reads it with `kafka-protocol`; nothing may be left in it.
pub(crate) fn read_answer<R: Request>(
    bytes: &mut Bytes,
    correlation_id: i32,
    version: i16,
) -> R::Response {
    let len = usize::try_from(bytes.get_i32()).unwrap();
    let mut frame = bytes.split_to(len);
    let header_version = <R::Response as HeaderVersion>::header_version(version);
    let header = ResponseHeader::decode(&mut frame, header_version).unwrap();
    assert_eq!(header.correlation_id, correlation_id);
    let answer = R::Response::decode(&mut frame, version).unwrap();
    assert!(frame.is_empty(), "{} bytes behind the answer", frame.len());
    answer
}

/// A broker with one connection to its node 1.
pub(crate) struct Client {
    pub(crate) broker: Broker,
    pub(crate) session: Session,
    correlation_id: i32,
}

impl Client {
    pub(crate) fn new(config: BrokerConfig) -> Self {
        let broker = Broker::new(config);
        let session = broker.session(1);
        Self {
            broker,
            session,
            correlation_id: 0,
        }
    }

    /// With topic `t` of so many partitions.
    pub(crate) fn with_topic(config: BrokerConfig, partitions: i32) -> Self {
        let mut client = Self::new(config);
        client.broker.create_topic("t", partitions).unwrap();
        client
    }

    pub(crate) fn next_id(&mut self) -> i32 {
        self.correlation_id += 1;
        self.correlation_id
    }

    /// Sends bytes; what comes back, and how it ended.
    pub(crate) fn send(&mut self, bytes: &[u8], now: i64) -> (Bytes, Result<Progress, Closed>) {
        self.session.receive(bytes);
        self.advance(now)
    }

    pub(crate) fn advance(&mut self, now: i64) -> (Bytes, Result<Progress, Closed>) {
        let mut out = Vec::new();
        let progress = self.session.advance(&mut self.broker, now, &mut out);
        (out.into(), progress)
    }

    /// Asks by `kafka-protocol` and reads the one answer.
    pub(crate) fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let id = self.next_id();
        let (mut answer, progress) = self.send(&frame(id, version, request), NOW);
        assert_eq!(progress, Ok(Progress::NeedsBytes));
        let response = read_answer::<R>(&mut answer, id, version);
        assert!(answer.is_empty());
        response
    }

    /// Produces to `t` with acks=all in v9 and gives the partitions' answers.
    pub(crate) fn produce(
        &mut self,
        batches: Vec<(i32, Vec<u8>)>,
    ) -> Vec<PartitionProduceResponse> {
        self.produce_in(9, batches)
    }

    pub(crate) fn produce_in(
        &mut self,
        version: i16,
        batches: Vec<(i32, Vec<u8>)>,
    ) -> Vec<PartitionProduceResponse> {
        let id = self.next_id();
        let topic_id = self.broker.topic_id("t").unwrap_or_default();
        let request = Produce {
            version,
            acks: -1,
            topic: "t",
            topic_id,
            batches,
        };
        let (mut answer, progress) = self.send(&request.by_codec(id), NOW);
        assert_eq!(progress, Ok(Progress::NeedsBytes));
        let mut response: ProduceResponse = read_answer::<ProduceRequest>(&mut answer, id, version);
        assert_eq!(response.responses.len(), 1);
        response.responses.remove(0).partition_responses
    }

    /// Produces one batch to `t`/0: its error and offset.
    pub(crate) fn produce_one(&mut self, batch: &BatchOf) -> (ErrorCode, i64) {
        let answer = self.produce(vec![(0, batch.build())]);
        (ErrorCode(answer[0].error_code), answer[0].base_offset)
    }
}

/// The API keys modelled, with the lowest and highest version served.
pub(crate) const SERVED: [(ApiKey, i16, i16); 7] = [
    (ApiKey::Produce, 3, 13),
    (ApiKey::Fetch, 4, 18),
    (ApiKey::ListOffsets, 1, 10),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::FindCoordinator, 0, 6),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::InitProducerId, 0, 5),
];
