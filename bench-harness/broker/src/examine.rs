//! Whether a produced batch is sound, without looking at any state: so a server does it outside
//! its lock.
//!
//! The checks and their codes are those of Kafka's `ProduceRequest.validateRecords`,
//! `UnifiedLog.analyzeAndValidateRecords` and `LogValidator`. Stricter than Kafka in one thing:
//! offset deltas must count 0, 1, 2 … in uncompressed batches too.

use ringpost_codec::compress::{self, Codec};
use ringpost_codec::kafka::ErrorCode;
use ringpost_codec::reader::Reader;
use ringpost_codec::record::RecordView;
use ringpost_codec::record_batch::{BATCH_HEADER_LEN, BatchHeader, BatchView};

use crate::config::{BrokerConfig, Mode};
use crate::numbering;

/// What the broker's state has to know of a sound batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct BatchFacts {
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    /// At least 1.
    pub(crate) records: i32,
    pub(crate) max_timestamp: i64,
    pub(crate) len: usize,
    /// (stream, number) of each record, when the broker is told to look for them.
    pub(crate) numbers: Vec<(u64, u64)>,
}

/// Why a batch is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: &'static str,
    /// The records at fault, by their places in the batch.
    pub(crate) records: Vec<i32>,
    /// Whether the bytes are damaged (and not merely unwelcome).
    pub(crate) corrupt: bool,
    /// Whether Kafka's log refuses it: then the answer tells where the log starts.
    pub(crate) by_log: bool,
}

impl Refusal {
    fn unwelcome(code: ErrorCode, message: &'static str) -> Self {
        Self {
            code,
            message,
            records: Vec::new(),
            corrupt: false,
            by_log: false,
        }
    }

    fn corrupt(code: ErrorCode, message: &'static str) -> Self {
        Self {
            corrupt: true,
            ..Self::unwelcome(code, message)
        }
    }

    fn invalid(message: &'static str) -> Self {
        Self {
            by_log: true,
            ..Self::corrupt(ErrorCode::INVALID_RECORD, message)
        }
    }
}

const LENGTH_AT: usize = 8;
/// What the batch length does not count: the base offset and itself.
const LENGTH_FROM: usize = 12;
const MAGIC_AT: usize = 16;
/// The first Produce version that may carry zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;

const TOO_LATE: Refusal = Refusal {
    code: ErrorCode::INVALID_TIMESTAMP,
    message: "a record is stamped too far ahead of the broker's clock",
    records: Vec::new(),
    corrupt: false,
    by_log: true,
};

/// Looks at the records field of one partition in a Produce request.
pub(crate) fn examine(
    config: &BrokerConfig,
    version: i16,
    now_ms: i64,
    records: Option<&[u8]>,
) -> Result<BatchFacts, Refusal> {
    let bytes = records.unwrap_or_default();
    let header = exactly_one_batch(bytes)?;
    let codec =
        header.header.attributes.codec().map_err(|_| {
            Refusal::corrupt(ErrorCode::CORRUPT_MESSAGE, "no such compression codec")
        })?;
    if codec == Codec::Zstd && version < ZSTD_SINCE {
        return Err(Refusal::unwelcome(
            ErrorCode::UNSUPPORTED_COMPRESSION_TYPE,
            "zstd needs Produce v7",
        ));
    }
    if bytes.len() > config.message_bytes_max {
        return Err(Refusal::unwelcome(
            ErrorCode::MESSAGE_TOO_LARGE,
            "the batch is larger than message.max.bytes",
        ));
    }
    if config.mode == Mode::Verify && !header.crc_ok() {
        return Err(Refusal::corrupt(
            ErrorCode::CORRUPT_MESSAGE,
            "the CRC does not match",
        ));
    }
    check_header(&header.header)?;
    let latest_ms = config
        .timestamp_ahead_ms_max
        .map_or(i64::MAX, |ms| now_ms.saturating_add(ms));
    let mut numbers = Vec::new();
    if config.mode == Mode::Verify {
        let unpacked;
        let body = if codec == Codec::None {
            header.body()
        } else {
            unpacked = compress::decompress(codec, header.body(), config.decompressed_bytes_max)
                .map_err(|_| {
                    Refusal::corrupt(ErrorCode::CORRUPT_MESSAGE, "the records do not decompress")
                })?;
            &unpacked
        };
        walk(config, body, header.header.record_count, &mut numbers)?;
        if header.header.max_timestamp > latest_ms {
            let base = header.header.base_timestamp;
            let late = |r: &RecordView<'_>| base.saturating_add(r.timestamp_delta) > latest_ms;
            let all = header.records_in(body).flatten();
            let records = all.filter(late).map(|r| r.offset_delta).collect();
            return Err(Refusal {
                records,
                ..TOO_LATE
            });
        }
    } else if header.header.max_timestamp > latest_ms {
        return Err(TOO_LATE);
    }
    let header = &header.header;
    Ok(BatchFacts {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        records: header.record_count,
        max_timestamp: header.max_timestamp,
        len: bytes.len(),
        numbers,
    })
}

fn exactly_one_batch(bytes: &[u8]) -> Result<BatchView<'_>, Refusal> {
    let invalid = |message| Refusal::corrupt(ErrorCode::INVALID_RECORD, message);
    let corrupt = |message| Refusal::corrupt(ErrorCode::CORRUPT_MESSAGE, message);
    if bytes.is_empty() {
        return Err(invalid("a partition without a record batch"));
    }
    if bytes.get(MAGIC_AT).is_some_and(|magic| *magic != 2) {
        return Err(invalid("the record batch format is not v2"));
    }
    if bytes.len() < BATCH_HEADER_LEN {
        return Err(corrupt("the record batch is shorter than its header"));
    }
    let length = bytes[LENGTH_AT..]
        .first_chunk()
        .map_or(0, |b| i32::from_be_bytes(*b));
    let length = usize::try_from(length).unwrap_or(0) + LENGTH_FROM;
    if (BATCH_HEADER_LEN..bytes.len()).contains(&length) {
        return Err(invalid("more than one record batch for a partition"));
    }
    BatchView::parse(bytes).map_err(|_| corrupt("the record batch's length is wrong"))
}

fn check_header(header: &BatchHeader) -> Result<(), Refusal> {
    let invalid = |message| Err(Refusal::invalid(message));
    if header.record_count < 1 || header.last_offset_delta != header.record_count - 1 {
        return invalid("record count and last offset delta do not agree");
    }
    if header.base_offset != 0 {
        return invalid("a producer's base offset is 0");
    }
    if header.attributes.is_control() {
        return invalid("clients do not write control batches");
    }
    if header.attributes.is_transactional() {
        return Err(Refusal::unwelcome(
            ErrorCode::INVALID_TXN_STATE,
            "this broker has no transactions",
        ));
    }
    if header.producer_id >= 0 && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return invalid("a producer id without a sequence or an epoch");
    }
    Ok(())
}

/// Checks every record of an uncompressed body.
///
/// Almost every record is of the plainest kind; those are walked by [`plain`], at a quarter of the
/// cost of reading them in full. What it does not take is read in full, errors included.
fn walk(
    config: &BrokerConfig,
    body: &[u8],
    count: i32,
    numbers: &mut Vec<(u64, u64)>,
) -> Result<(), Refusal> {
    let at = |record, message| Refusal {
        records: vec![record],
        ..Refusal::invalid(message)
    };
    let mut rest = body;
    for index in 0..count {
        let record = match plain(rest) {
            Some(record) => record,
            None => {
                let mut reader = Reader::new(rest);
                let record = RecordView::read(&mut reader)
                    .map_err(|_| at(index, "a record is malformed or missing"))?;
                let RecordView {
                    offset_delta,
                    value,
                    ..
                } = record;
                Walked {
                    offset_delta,
                    value,
                    behind: reader.rest(),
                }
            }
        };
        if record.offset_delta != index {
            return Err(at(index, "offset deltas do not count 0, 1, 2"));
        }
        if config.numbered {
            let number = record.value.and_then(numbering::read);
            numbers.push(number.ok_or_else(|| at(index, "a value without its number"))?);
        }
        rest = record.behind;
    }
    if !rest.is_empty() {
        return Err(at(count, "there are more records than the header says"));
    }
    Ok(())
}

/// What the walk needs of a record.
struct Walked<'a> {
    offset_delta: i32,
    value: Option<&'a [u8]>,
    /// The bytes behind the record.
    behind: &'a [u8],
}

/// The record in front, if it has a value and no headers, and everything fits. `None` says nothing.
#[inline]
fn plain(bytes: &[u8]) -> Option<Walked<'_>> {
    let (len, bytes) = small_varint(bytes)?;
    let (record, behind) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    let (_attributes, record) = record.split_first()?;
    let (_timestamp_delta, record) = small_varint(record)?;
    let (offset_delta, record) = small_varint(record)?;
    let (key_len, record) = small_varint(record)?;
    let record = match usize::try_from(key_len) {
        Ok(len) => record.get(len..)?,
        Err(_) if key_len == -1 => record,
        Err(_) => return None,
    };
    let (value_len, record) = small_varint(record)?;
    let (value, header_count) = record.split_at_checked(usize::try_from(value_len).ok()?)?;
    let value = Some(value);
    (header_count == [0]).then_some(Walked {
        offset_delta,
        value,
        behind,
    })
}

/// A zig-zag varint of up to three bytes.
#[inline]
fn small_varint(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let zigzag = |n: u32| (n >> 1).cast_signed() ^ -(n & 1).cast_signed();
    match *bytes {
        [a, ref rest @ ..] if a < 0x80 => Some((zigzag(u32::from(a)), rest)),
        [a, b, ref rest @ ..] if b < 0x80 => {
            Some((zigzag(u32::from(a & 0x7f) | u32::from(b) << 7), rest))
        }
        [a, b, c, ref rest @ ..] if c < 0x80 => {
            let n = u32::from(a & 0x7f) | u32::from(b & 0x7f) << 7 | u32::from(c) << 14;
            Some((zigzag(n), rest))
        }
        _ => None,
    }
}
