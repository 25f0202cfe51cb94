//! Records and record batches against Kafka's Java client and the `kafka-protocol` crate.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as theirs;
use proptest::prelude::*;
use ringpost_codec::checksum::{BodyDigest, crc32c};
use ringpost_codec::compress::{Codec, Compressed, Compression, Compressor, decompress};
use ringpost_codec::error::DecodeError;
use ringpost_codec::reader::Reader;
use ringpost_codec::record::*;
use ringpost_codec::record_batch::*;

/// A record that owns its parts.
#[derive(Debug, Clone, PartialEq, Default)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Owned {
    fn headers(&self) -> Vec<Header<'_>> {
        let headers = self.headers.iter();
        headers
            .map(|(key, value)| Header {
                key,
                value: value.as_deref(),
            })
            .collect()
    }

    fn encode(&self, base_timestamp: i64, offset_delta: i32, body: &mut Vec<u8>) {
        let delta = self.timestamp.wrapping_sub(base_timestamp);
        let (key, value, headers) = (self.key.as_deref(), self.value.as_deref(), self.headers());
        let size = record_size(delta, offset_delta, key, value.map(<[u8]>::len), &headers);
        let start = body.len();
        // One byte more than needed: it must not be touched.
        body.resize(start + size.total + 1, 0xdd);
        let written = encode(
            &mut body[start..],
            size,
            delta,
            offset_delta,
            key,
            value,
            &headers,
        );
        assert_eq!(written, size.total);
        assert_eq!(body.pop(), Some(0xdd));

        // The parts give the same bytes as the whole.
        let mut parts = vec![0; size.total];
        let value_len = value.map(<[u8]>::len);
        let mut at = encode_head(&mut parts, size, delta, offset_delta, key, value_len);
        parts[at..at + value_len.unwrap_or(0)].copy_from_slice(value.unwrap_or_default());
        at += value_len.unwrap_or(0);
        at += encode_tail(&mut parts[at..], &headers);
        assert_eq!(at, size.total);
        assert_eq!(parts, body[start..]);
    }

    fn of(view: &RecordView<'_>, base_timestamp: i64) -> Self {
        let headers = view
            .headers()
            .map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)));
        Self {
            timestamp: base_timestamp.wrapping_add(view.timestamp_delta),
            key: view.key.map(<[u8]>::to_vec),
            value: view.value.map(<[u8]>::to_vec),
            headers: headers.collect(),
        }
    }
}

fn batch(header: &BatchHeader, records: &[Owned]) -> Vec<u8> {
    let mut body = Vec::new();
    for (delta, record) in (0..).zip(records) {
        record.encode(header.base_timestamp, delta, &mut body);
    }
    let mut bytes = vec![0; BATCH_HEADER_LEN];
    header.write(&BodyDigest::of(&body), &mut bytes);
    bytes.extend(body);
    bytes
}

fn read_back(bytes: &[u8]) -> Vec<Owned> {
    let view = BatchView::parse(bytes).unwrap();
    assert!(view.crc_ok());
    let base = view.header.base_timestamp;
    view.records()
        .map(|record| Owned::of(&record.unwrap(), base))
        .collect()
}

const BASE: i64 = 1_700_000_000_000;

/// The records of `golden/Batches.java`.
fn golden_records() -> Vec<Owned> {
    vec![
        Owned {
            timestamp: BASE,
            key: Some(b"k1".to_vec()),
            value: Some(b"v1".to_vec()),
            headers: vec![
                ("h".into(), Some(b"1".to_vec())),
                ("h".into(), None),
                (String::new(), Some(Vec::new())),
            ],
        },
        Owned {
            timestamp: BASE - 5,
            value: Some(Vec::new()),
            ..Owned::default()
        },
        Owned {
            timestamp: BASE + 86_400_000,
            key: Some(Vec::new()),
            ..Owned::default()
        },
        Owned {
            timestamp: BASE + 1,
            value: Some(vec![b'x'; 300]),
            ..Owned::default()
        },
    ]
}

fn golden_header(attributes: Attributes) -> BatchHeader {
    BatchHeader {
        attributes,
        last_offset_delta: 3,
        base_timestamp: BASE,
        max_timestamp: BASE + 86_400_000,
        producer_id: 4711,
        producer_epoch: 3,
        base_sequence: 17,
        record_count: 4,
        ..BatchHeader::default()
    }
}

/// Batches written by Kafka 4.3.1's Java client, by codec.
fn golden_batches() -> Vec<(Codec, Vec<u8>)> {
    let lines = include_str!("golden/batches.txt").lines();
    lines
        .map(|line| {
            let (name, hex) = line.split_once(' ').unwrap();
            let codec = Codec::ALL
                .into_iter()
                .find(|codec| codec.name() == name)
                .unwrap();
            let bytes = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]);
            (
                codec,
                bytes
                    .map(|byte| u8::from_str_radix(byte, 16).unwrap())
                    .collect(),
            )
        })
        .collect()
}

/// A batch is byte for byte the one Kafka's Java client wrote of the same records.
#[test]
fn w5_golden_batch_is_java_byte_for_byte() {
    let (codec, java) = golden_batches().remove(0);
    assert_eq!(codec, Codec::None);
    assert_eq!(
        batch(&golden_header(Attributes::default()), &golden_records()),
        java
    );
}

/// Java's batches of all five codecs: the CRC holds, header and records are as written.
#[test]
fn w5_golden_batches_of_every_codec_are_read() {
    let golden = golden_batches();
    assert_eq!(golden.len(), 5);
    for (codec, java) in golden {
        let view = BatchView::parse(&java).unwrap();
        assert!(view.crc_ok(), "{codec}");
        assert_eq!(
            view.header,
            golden_header(Attributes::new(codec)),
            "{codec}"
        );
        let body = decompress(codec, view.body(), 1000).unwrap();
        let records = view
            .records_in(&body)
            .map(|record| Owned::of(&record.unwrap(), BASE));
        assert_eq!(records.collect::<Vec<_>>(), golden_records(), "{codec}");
    }
}

/// The same records through `kafka-protocol`. It cannot say everything: of headers with the same
/// key it keeps the last, and it takes the smallest timestamp as the base, not the first.
fn their_batch(header: &BatchHeader, records: &[Owned]) -> Bytes {
    let records: Vec<_> = (0..)
        .zip(records)
        .map(|(delta, record)| theirs::Record {
            transactional: header.attributes.is_transactional(),
            control: false,
            delete_horizon: false,
            partition_leader_epoch: header.partition_leader_epoch,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            timestamp_type: theirs::TimestampType::Creation,
            offset: i64::from(delta),
            sequence: header.base_sequence.wrapping_add(delta),
            timestamp: record.timestamp,
            key: record.key.clone().map(Bytes::from),
            value: record.value.clone().map(Bytes::from),
            headers: record
                .headers
                .iter()
                .map(|(k, v)| (StrBytes::from_string(k.clone()), v.clone().map(Bytes::from)))
                .collect(),
        })
        .collect();
    let options = theirs::RecordEncodeOptions {
        version: 2,
        compression: theirs::Compression::None,
    };
    let mut out = BytesMut::new();
    theirs::RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
    out.freeze()
}

fn any_record(max_len: usize) -> impl Strategy<Value = Owned> {
    let bytes = move || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..max_len));
    let headers = proptest::collection::vec((".{0,20}", bytes()), 0..5);
    // Within what a broker would take; the extremes have their own test.
    (BASE..BASE + (1 << 40), bytes(), bytes(), headers).prop_map(
        |(timestamp, key, value, headers)| Owned {
            timestamp,
            key,
            value,
            headers,
        },
    )
}

proptest! {
    /// Any records, with null and empty parts and any headers, are read back as they were.
    #[test]
    fn w3_any_records_are_read_back(records in proptest::collection::vec(any_record(200), 1..20)) {
        let header = BatchHeader {
            base_timestamp: BASE + 77,
            record_count: i32::try_from(records.len()).unwrap(),
            ..BatchHeader::default()
        };
        prop_assert_eq!(read_back(&batch(&header, &records)), records);
    }

    /// Any batch is byte for byte the kafka-protocol crate's.
    #[test]
    fn w5_any_batch_equals_kafka_protocol(
        mut records in proptest::collection::vec(any_record(100), 1..20),
        producer_id: i64, producer_epoch: i16, transactional: bool, base_sequence in 0..i32::MAX - 20,
    ) {
        for record in &mut records {
            // Theirs keeps one of each key.
            let mut seen = std::collections::HashSet::new();
            record.headers.retain(|(key, _)| seen.insert(key.clone()));
        }
        records.sort_by_key(|record| record.timestamp);
        let count = i32::try_from(records.len()).unwrap();
        let header = BatchHeader {
            attributes: Attributes::default().with_transactional(transactional),
            last_offset_delta: count - 1,
            base_timestamp: records[0].timestamp,
            max_timestamp: records[records.len() - 1].timestamp,
            producer_id, producer_epoch, base_sequence,
            record_count: count,
            ..BatchHeader::default()
        };
        prop_assert_eq!(&batch(&header, &records)[..], &their_batch(&header, &records)[..]);
    }

    /// The size foretold for any record is the size written.
    #[test]
    fn w6_size_is_exact(record in any_record(2_000), delta: i64, offset: i32) {
        let (key, value, headers) =
            (record.key.as_deref(), record.value.as_deref(), record.headers());
        let size = record_size(delta, offset, key, value.map(<[u8]>::len), &headers);
        let mut exact = vec![0; size.total];
        prop_assert_eq!(encode(&mut exact, size, delta, offset, key, value, &headers), size.total);
        let mut reader = Reader::new(&exact);
        let view = RecordView::read(&mut reader).unwrap();
        prop_assert_eq!(reader.remaining(), 0);
        prop_assert_eq!((view.timestamp_delta, view.offset_delta), (delta, offset));
    }

    /// Batches with a byte changed and cut anywhere: no panic.
    #[test]
    fn h2_changed_batches_do_not_panic(
        records in proptest::collection::vec(any_record(50), 1..5),
        at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
    ) {
        let header = BatchHeader { record_count: 2, ..BatchHeader::default() };
        let mut bytes = batch(&header, &records);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Ok(view) = BatchView::parse(&bytes) {
            let _ = view.crc_ok();
            view.records().for_each(drop);
        }
    }

    #[test]
    fn combined_crc_is_the_crc_of_the_whole(
        head in proptest::collection::vec(any::<u8>(), 0..100),
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..6),
    ) {
        let mut body = BodyDigest::new();
        pieces.iter().for_each(|piece| body.update(piece));
        prop_assert_eq!(body, BodyDigest::of(&pieces.concat()));
        prop_assert_eq!(body.after(crc32c(&head)), crc32c(&[head, pieces.concat()].concat()));
    }
}

/// 1000 headers with empty and repeated names, null and empty values, and null against empty keys
/// and values are read back in order.
#[test]
fn w3_null_is_not_empty_and_headers_keep_order_and_duplicates() {
    let headers = (0..1000).map(|n| match n % 3 {
        0 => (String::new(), None),
        1 => ("same".to_owned(), Some(Vec::new())),
        _ => (format!("h{n}"), Some(n.to_string().into_bytes())),
    });
    let records = [
        Owned {
            value: Some(Vec::new()),
            headers: headers.collect(),
            ..Owned::default()
        },
        Owned {
            key: Some(Vec::new()),
            ..Owned::default()
        },
        Owned::default(),
    ];
    let header = BatchHeader {
        record_count: 3,
        ..BatchHeader::default()
    };
    assert_eq!(read_back(&batch(&header, &records)), records);
}

/// Around every length at which a length field grows by a byte, the size foretold is the size
/// written.
#[test]
fn w6_sizes_step_where_the_length_fields_grow() {
    // The length field grows at bodies of 64 and 8192 bytes, the value's at values of as many.
    for value_len in (0..200).chain(8_000..8_400).chain([1 << 20, (1 << 20) + 1]) {
        let value = vec![7; value_len];
        for key in [None, Some(&b"key"[..])] {
            let size = record_size(0, 0, key, Some(value_len), &[]);
            let mut dst = vec![0; size.total];
            assert_eq!(
                encode(&mut dst, size, 0, 0, key, Some(&value), &[]),
                size.total
            );
            assert_eq!(
                RecordView::read(&mut Reader::new(&dst)).unwrap().value,
                Some(&value[..])
            );
        }
    }
}

/// Numbers of one, two and more bytes are written in different ways: every mixture of them is read
/// back, with the byte behind the record untouched.
#[test]
fn w3_w6_every_mixture_of_short_and_long_numbers_is_read_back() {
    let lens = [None, Some(0), Some(63), Some(64), Some(8_191), Some(8_192)];
    for delta in [0, -1, 63, 64, -64, -65, 8_191, 8_192, i64::MIN] {
        for offset in [0, 63, 64, 8_191, 8_192] {
            for (key_len, value_len) in lens.iter().flat_map(|key| lens.map(|value| (*key, value)))
            {
                let record = Owned {
                    timestamp: delta,
                    key: key_len.map(|len| vec![b'k'; len]),
                    value: value_len.map(|len| vec![b'v'; len]),
                    headers: Vec::new(),
                };
                let mut bytes = Vec::new();
                record.encode(0, offset, &mut bytes);
                let mut reader = Reader::new(&bytes);
                let view = RecordView::read(&mut reader).unwrap();
                assert_eq!((reader.remaining(), view.offset_delta), (0, offset));
                assert_eq!(Owned::of(&view, 0), record);
            }
        }
    }
}

/// Timestamps before, a day from and the whole range from the first are read back.
#[test]
fn w12_timestamp_deltas_of_any_sign_and_size() {
    let day = 86_400_000;
    let times = [
        BASE,
        BASE - 1,
        BASE + day,
        BASE - day,
        0,
        -1,
        BASE.wrapping_add(i64::MAX),
    ];
    let records = times.map(|timestamp| Owned {
        timestamp,
        ..Owned::default()
    });
    let header = BatchHeader {
        base_timestamp: BASE,
        record_count: 7,
        ..BatchHeader::default()
    };
    assert_eq!(read_back(&batch(&header, &records)), records);
}

/// Leaves a file of batches that `golden/Batches.java` can check, and reads it back itself.
#[test]
fn w5_batches_of_every_codec_in_one_file() {
    let text: Vec<u8> = (0..)
        .flat_map(|n: u32| (n % 1000).to_string().into_bytes())
        .take(1000)
        .collect();
    let records: Vec<Owned> = (0..300)
        .map(|n| Owned {
            timestamp: BASE + i64::from(n % 7) - 3,
            key: (n % 2 == 0).then(|| n.to_string().into_bytes()),
            value: (n % 5 != 0).then(|| text.clone()),
            headers: vec![("n".into(), (n % 3 == 0).then(|| vec![1, 2])); usize::from(n % 4 == 0)],
        })
        .collect();
    let mut file = Vec::new();
    let mut body = Vec::new();
    for (delta, record) in (0..).zip(&records) {
        record.encode(BASE, delta, &mut body);
    }
    for codec in Codec::ALL {
        let mut packed = Vec::new();
        let compression = Compression::new(codec, None).unwrap();
        let pieces = &mut body.chunks(4096);
        let result = Compressor::new().compress(compression, pieces, &mut packed, body.len());
        if result.unwrap() == Compressed::NotWorthIt {
            packed.clone_from(&body);
        }
        let header = BatchHeader {
            attributes: Attributes::new(codec),
            last_offset_delta: 299,
            record_count: 300,
            base_timestamp: BASE,
            max_timestamp: BASE + 3,
            ..BatchHeader::default()
        };
        let at = file.len();
        file.resize(at + BATCH_HEADER_LEN, 0);
        header.write(&BodyDigest::of(&packed), &mut file[at..]);
        file.extend(packed);
    }
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/batches.bin"), &file).unwrap();

    let mut reader = Reader::new(&file);
    for codec in Codec::ALL {
        let batch = BatchView::read(&mut reader).unwrap();
        assert!(batch.crc_ok());
        assert_eq!(batch.header.attributes.codec(), Ok(codec));
        let body = decompress(codec, batch.body(), body.len()).unwrap();
        let read = batch
            .records_in(&body)
            .map(|record| Owned::of(&record.unwrap(), BASE));
        assert_eq!(read.collect::<Vec<_>>(), records, "{codec}");
    }
    assert_eq!(reader.remaining(), 0);
}

#[test]
fn the_header_alone_changes_between_attempts() {
    let records = golden_records();
    let first = golden_header(Attributes::default());
    let second = BatchHeader {
        producer_epoch: 4,
        base_sequence: 0,
        ..first
    };
    let (first, second) = (batch(&first, &records), batch(&second, &records));
    assert_eq!(first[BATCH_HEADER_LEN..], second[BATCH_HEADER_LEN..]);
    assert!(BatchView::parse(&second).unwrap().crc_ok());
    assert_ne!(first[17..21], second[17..21]);
}

#[test]
fn combining_agrees_with_reading_for_lengths_with_every_digit() {
    let bytes: Vec<u8> = (0..0x12_3456_u32)
        .map(|n| n.to_be_bytes()[3] ^ 0x5a)
        .collect();
    for len in [
        0, 1, 15, 16, 17, 0xff, 0x100, 0xf0f, 0x1_0000, 0xf_ffff, 0x10_0000, 0x12_3400,
    ] {
        let (head, body) = bytes.split_at(bytes.len() - len);
        assert_eq!(
            BodyDigest::of(body).after(crc32c(head)),
            crc32c(&bytes),
            "{len:#x}"
        );
    }
}

/// A batch cut at any byte is an error, and so is one byte too many.
#[test]
fn h2_a_batch_cut_anywhere_is_refused() {
    let bytes = batch(&golden_header(Attributes::default()), &golden_records());
    for len in 0..bytes.len() {
        assert!(BatchView::parse(&bytes[..len]).is_err(), "{len}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(
        BatchView::parse(&longer).unwrap_err(),
        DecodeError::Trailing {
            what: "batch",
            left: 1
        }
    );
}

/// More or fewer records than counted, impossible lengths and header counts are errors, and the
/// first error ends the reading.
#[test]
fn h3_records_with_impossible_counts_are_refused() {
    fn body(bytes: &[u8], count: i32) -> Result<RecordView<'_>, DecodeError> {
        Records::new(bytes, count).last().unwrap()
    }
    // One record, "v", but the header counts two, or none.
    let one = [14, 0, 0, 0, 1, 2, b'v', 0];
    assert!(body(&one, 1).is_ok());
    assert!(matches!(body(&one, 2), Err(DecodeError::Truncated { .. })));
    assert!(matches!(
        body(&one, 0),
        Err(DecodeError::Trailing { left: 8, .. })
    ));
    // A length of −1, of more than there is; 2^30 headers; a key of −2 bytes.
    for bytes in [
        &[1_u8][..],
        &[200, 1, 0][..],
        &[22, 0, 0, 0, 1, 1, 0x80, 0x80, 0x80, 0x80, 0x08, 0][..],
        &[12, 0, 0, 0, 3, 1, 0][..],
    ] {
        assert!(body(bytes, 1).is_err(), "{bytes:?}");
    }
    assert_eq!(
        Records::new(&[1, 1, 1], 3).count(),
        1,
        "the first error ends it"
    );
}

/// Other formats than v2 and codecs from 5 on are refused.
#[test]
fn h3_old_formats_and_unknown_codecs_are_refused() {
    let mut bytes = batch(&golden_header(Attributes::default()), &golden_records());
    bytes[16] = 1;
    assert!(matches!(
        BatchView::parse(&bytes),
        Err(DecodeError::Value {
            what: "batch.magic",
            value: 1
        })
    ));
    for id in 5..8 {
        assert!(Attributes(id).codec().is_err());
    }
    let all = Attributes::new(Codec::Zstd).with_transactional(true);
    assert_eq!(
        (all.codec(), all.is_transactional(), all.0),
        (Ok(Codec::Zstd), true, 0x14)
    );
    assert!(!all.is_control() && !all.is_log_append_time());
}
