//! Reading batches back, from a request or from a log.

use ringpost_broker::numbering;
use ringpost_codec::compress::decompress;
use ringpost_codec::kafka::produce;
use ringpost_codec::kafka::{ApiKey, header};
use ringpost_codec::reader::Reader;
use ringpost_codec::record_batch::{BatchHeader, BatchView};

use crate::world::Request;

/// A batch found in a request or in a log, with its records' (lane, number).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundBatch {
    /// Its topic; for ids their debug form.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its header.
    pub header: BatchHeader,
    /// All of it.
    pub bytes: Vec<u8>,
    /// What its records are stamped with.
    pub records: Vec<(u64, u64)>,
}

/// The batches in a Produce request.
pub fn batches_of(request: &Request) -> Vec<FoundBatch> {
    let mut reader = Reader::new(&request.bytes[4..]);
    let head = header::RequestHeader::read(&mut reader).expect("a header");
    assert_eq!(head.api_key, ApiKey::PRODUCE);
    assert_eq!(
        i32::from_be_bytes(request.bytes[..4].try_into().expect("four bytes")),
        i32::try_from(request.bytes.len() - 4).expect("small")
    );
    let view = produce::decode_request(head.version, reader.rest()).expect("a request");
    let mut found = Vec::new();
    for topic in view.topics() {
        let name = match topic.topic {
            produce::TopicRef::Name(name) => name.to_owned(),
            produce::TopicRef::Id(id) => format!("{id:?}"),
        };
        for partition in topic.partitions {
            let records = partition.records.expect("records");
            found.extend(batches(&name, partition.partition, records));
        }
    }
    found
}

/// The version of a Produce request.
pub fn version_of(request: &Request) -> i16 {
    i16::from_be_bytes(request.bytes[6..8].try_into().expect("two bytes"))
}

/// No batch of a test is larger.
const LARGE: usize = 64 << 20;

/// The batches that lie in a row in `bytes`. Panics when one is damaged.
pub fn batches(topic: &str, partition: i32, bytes: &[u8]) -> Vec<FoundBatch> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    while !reader.rest().is_empty() {
        let before = reader.rest();
        let view = BatchView::read(&mut reader).expect("a batch");
        assert!(view.crc_ok());
        let mut records = Vec::new();
        let codec = view.header.attributes.codec().expect("a codec");
        let body = decompress(codec, view.body(), LARGE).expect("what the codec made");
        for (number, record) in (0..).zip(view.records_in(&body)) {
            let record = record.expect("a record");
            assert_eq!(record.offset_delta, number);
            records.push(numbering::read(record.value.expect("a value")).expect("a number"));
        }
        found.push(FoundBatch {
            topic: topic.to_owned(),
            partition,
            header: view.header,
            bytes: before[..before.len() - reader.rest().len()].to_vec(),
            records,
        });
    }
    found
}
