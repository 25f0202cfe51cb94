//! Records into a batch, and out of it again by two readers.
//!
//! The way is the producer's: an open batch in segments of a real pool, values by copy and by
//! reference, cut, sealed with any compressor, a batch header for an attempt. What comes out is read by
//! the codec's reader and, if it is not compressed, by `kafka-protocol`'s, which shares no code with it,
//! and must be what went in. Sizes that were promised beforehand are exact, and no memory is left in
//! the end.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use kafka_protocol::records::RecordBatchDecoder;
use ringpost_codec::compress::{Codec, decompress};
use ringpost_codec::record::Header;
use ringpost_codec::record_batch::{BATCH_HEADER_LEN, BatchView};
use ringpost_core::batch::{Fields, Fit, OpenBatch};
use ringpost_core::id::{ProducerIdentity, Sequence};
use ringpost_core::seal::{SealedBatch, seal};
use ringpost_memory::{Piece, Pool, SegmentMut};
use ringpost_simulator::squeezer::Squeezer;

const MEMORY: usize = 1 << 20;
const RECORDS_MAX: usize = 64;

/// A record of the input.
#[derive(Debug, Clone, PartialEq)]
struct Record {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    by_reference: bool,
}

/// See the module's doc.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let pool = Pool::new(MEMORY, 256 << 10).expect("address space");
    if let Ok((records, Some(sealed))) = fill(&mut input, &pool) {
        check(&mut input, &records, &sealed);
    }
    assert_eq!(pool.in_use(), 0, "memory is left");
}

fn draw(input: &mut Unstructured<'_>) -> Result<Record> {
    let bytes = |input: &mut Unstructured<'_>| -> Result<Option<Vec<u8>>> {
        Ok(match input.int_in_range(0..=9)? {
            0 => None,
            1 => Some(vec![b'z'; input.int_in_range(0..=40_000)?]),
            _ => Some(input.arbitrary::<&[u8]>()?.to_vec()),
        })
    };
    let headers = match input.int_in_range(0..=3)? {
        0 => input.int_in_range(0..=5)?,
        _ => 0,
    };
    Ok(Record {
        timestamp_ms: input.int_in_range(-(1 << 40)..=1 << 41)?,
        key: bytes(input)?,
        value: bytes(input)?,
        headers: (0..headers)
            .map(|_| Ok((input.arbitrary::<&str>()?.to_owned(), bytes(input)?)))
            .collect::<Result<_>>()?,
        by_reference: input.ratio(1, 4)?,
    })
}

type Sealed = SealedBatch<Piece>;

/// Fills a batch until it is full, there is no memory, or there are no more records.
fn fill(input: &mut Unstructured<'_>, pool: &Pool) -> Result<(Vec<Record>, Option<Sealed>)> {
    let batch_bytes = *input.choose(&[500, 4_000, 100_000])?;
    let mut records: Vec<Record> = Vec::new();
    let mut open: Option<OpenBatch<SegmentMut>> = None;
    let mut squeezer = squeezer(input)?;
    while records.len() < RECORDS_MAX && !input.is_empty() {
        let record = draw(input)?;
        let headers: Vec<Header<'_>> = record
            .headers
            .iter()
            .map(|(key, value)| Header {
                key,
                value: value.as_deref(),
            })
            .collect();
        let fields = Fields {
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        let batch = open.get_or_insert_with(|| OpenBatch::new(record.timestamp_ms, Vec::new()));
        let size = batch.measure(&fields);
        if batch.fit(&size, batch_bytes) == Fit::BatchFull {
            assert!(batch.records() > 0 && batch.wire_len() + size.total > batch_bytes);
            break;
        }
        let before = batch.wire_len();
        let taken = match &record.value {
            Some(value) if record.by_reference => by_reference(batch, &fields, value, pool),
            _ => by_copy(batch, &fields, pool),
        };
        if !taken {
            break;
        }
        assert_eq!(
            batch.wire_len(),
            before + size.total,
            "the size was promised"
        );
        records.push(record);
    }
    let open = open.filter(|batch| batch.records() > 0);
    let sealed = open.map(|batch| {
        assert!(pool.in_use() <= MEMORY);
        let len = batch.wire_len();
        let (sealed, parts) = seal(batch.cut(), &mut squeezer, Vec::new());
        assert!(parts.is_empty());
        assert!(sealed.wire_len() <= len, "sealing makes nothing longer");
        sealed
    });
    Ok((records, sealed))
}

fn by_copy(batch: &mut OpenBatch<SegmentMut>, fields: &Fields<'_>, pool: &Pool) -> bool {
    let size = batch.measure(fields);
    if let Fit::NeedsBuffer(at_least) = batch.room_for(size.total) {
        let wished = batch.next_buffer_bytes(at_least);
        let buffer = pool.try_take(wished).or_else(|| pool.try_take(at_least));
        let Some(buffer) = buffer else { return false };
        batch.add_buffer(buffer);
    }
    batch.append(fields, &size);
    true
}

fn by_reference(
    batch: &mut OpenBatch<SegmentMut>,
    fields: &Fields<'_>,
    value: &[u8],
    pool: &Pool,
) -> bool {
    let size = batch.measure(fields);
    let around = OpenBatch::<SegmentMut>::around_shared(&size, value.len());
    let (Some(charge), Some(spare)) = (pool.try_charge(value.len()), pool.try_take(around)) else {
        return false;
    };
    if let Fit::NeedsBuffer(at_least) = batch.room_for(around) {
        let Some(buffer) = pool.try_take(at_least) else {
            return false;
        };
        batch.add_buffer(buffer);
    }
    let value = Piece::shared(Bytes::copy_from_slice(value), charge);
    batch.append_shared(fields, &size, value, spare);
    true
}

fn squeezer(input: &mut Unstructured<'_>) -> Result<Squeezer> {
    let name = *input.choose(&["none", "none", "lz4", "snappy", "gzip:1", "zstd:1"])?;
    let mut squeezer = Squeezer::default();
    squeezer.compression = name.parse().expect("compiled in");
    Ok(squeezer)
}

fn check(input: &mut Unstructured<'_>, records: &[Record], sealed: &Sealed) {
    let identity = ProducerIdentity {
        id: input.arbitrary().unwrap_or(5),
        epoch: input.arbitrary().unwrap_or(0),
    };
    let sequence = Sequence(input.int_in_range(0..=i32::MAX).unwrap_or(0));
    let mut bytes = vec![0; BATCH_HEADER_LEN];
    sealed.write_header(Some((identity, sequence)), &mut bytes);
    for piece in &sealed.pieces {
        bytes.extend_from_slice(piece.bytes());
    }
    assert_eq!(bytes.len(), sealed.wire_len());

    let view = BatchView::parse(&bytes).expect("a batch");
    assert!(view.crc_ok());
    assert_eq!(view.header.producer_id, identity.id);
    assert_eq!(view.header.producer_epoch, identity.epoch);
    assert_eq!(view.header.base_sequence, sequence.0);
    assert_eq!(usize::try_from(view.header.record_count), Ok(records.len()));
    let latest = records.iter().map(|record| record.timestamp_ms).max();
    assert_eq!(Some(view.header.max_timestamp), latest);
    let codec = view.header.attributes.codec().expect("ours");
    let body = match codec {
        Codec::None => view.body().to_vec(),
        codec => decompress(codec, view.body(), sealed.record_bytes).expect("ours"),
    };
    assert_eq!(body.len(), sealed.record_bytes);
    let mut read = view.records_in(&body);
    for (number, record) in (0..).zip(records) {
        let found = read
            .next()
            .expect("as many as there were")
            .expect("a record");
        assert_eq!(found.offset_delta, number);
        let timestamp = view.header.base_timestamp + found.timestamp_delta;
        assert_eq!(timestamp, record.timestamp_ms);
        assert_eq!(found.key, record.key.as_deref());
        assert_eq!(found.value, record.value.as_deref());
        let headers = found.headers().map(|h| (h.key, h.value));
        let expected = record.headers.iter().map(|(k, v)| (&**k, v.as_deref()));
        assert!(headers.eq(expected));
    }
    assert!(read.next().is_none());

    if codec == Codec::None {
        let theirs = RecordBatchDecoder::decode(&mut Bytes::from(bytes)).expect("a batch");
        assert_eq!(theirs.records.len(), records.len());
        for (number, (theirs, record)) in (0..).zip(theirs.records.iter().zip(records)) {
            assert_eq!(theirs.offset, number);
            assert_eq!(theirs.timestamp, record.timestamp_ms);
            assert_eq!(theirs.key.as_deref(), record.key.as_deref());
            assert_eq!(theirs.value.as_deref(), record.value.as_deref());
            // Of headers with one name it keeps the last.
            for (name, value) in &theirs.headers {
                let last = record.headers.iter().rev().find(|(key, _)| **key == **name);
                let last = last.map(|(_, value)| value.as_deref());
                assert_eq!(last, Some(value.as_deref()));
            }
        }
    }
}
