//! The header in front of a batch's records (format v2, "magic 2").
//!
//! ```text
//!  0  base offset              i64   0: the broker sets it
//!  8  batch length             i32   of everything behind this field
//! 12  partition leader epoch   i32   −1: the broker sets it
//! 16  magic                    i8    2
//! 17  crc                      u32   CRC-32C of everything behind this field
//! 21  attributes               i16   codec, timestamp type, transactional, control
//! 23  last offset delta        i32
//! 27  base timestamp           i64   the first record's; deltas are against it
//! 35  max timestamp            i64
//! 43  producer id              i64
//! 51  producer epoch           i16
//! 53  base sequence            i32
//! 57  record count             i32
//! 61  records, compressed as a whole if the attributes say so
//! ```
//! Base offset and leader epoch lie outside the CRC, because the broker fills them in.
//!
//! ```
//! use ringpost_codec::checksum::BodyDigest;
//! use ringpost_codec::record_batch::{BatchHeader, BatchView, BATCH_HEADER_LEN};
//!
//! let body = [14, 0, 0, 0, 1, 2, b'v', 0]; // one record: value "v"
//! let header = BatchHeader { record_count: 1, ..BatchHeader::default() };
//! let mut batch = [0; BATCH_HEADER_LEN + 8];
//! header.write(&BodyDigest::of(&body), &mut batch);
//! batch[BATCH_HEADER_LEN..].copy_from_slice(&body);
//!
//! let view = BatchView::parse(&batch)?;
//! assert_eq!(view.header, header);
//! assert!(view.crc_ok());
//! assert_eq!(view.records().next().unwrap()?.value, Some(&b"v"[..]));
//! # Ok::<(), ringpost_codec::error::DecodeError>(())
//! ```

use crate::checksum::{BodyDigest, crc32c};
use crate::compress::Codec;
use crate::error::DecodeError;
use crate::reader::Reader;
use crate::record::RecordView;

/// The length of a batch header.
pub const BATCH_HEADER_LEN: usize = RECORDS_AT;

// Each offset is chained to the field before.
const BASE_OFFSET_AT: usize = 0;
const BATCH_LENGTH_AT: usize = BASE_OFFSET_AT + 8;
const LEADER_EPOCH_AT: usize = BATCH_LENGTH_AT + 4;
const MAGIC_AT: usize = LEADER_EPOCH_AT + 4;
const CRC_AT: usize = MAGIC_AT + 1;
const ATTRIBUTES_AT: usize = CRC_AT + 4;
const LAST_OFFSET_DELTA_AT: usize = ATTRIBUTES_AT + 2;
const BASE_TIMESTAMP_AT: usize = LAST_OFFSET_DELTA_AT + 4;
const MAX_TIMESTAMP_AT: usize = BASE_TIMESTAMP_AT + 8;
const PRODUCER_ID_AT: usize = MAX_TIMESTAMP_AT + 8;
const PRODUCER_EPOCH_AT: usize = PRODUCER_ID_AT + 8;
const BASE_SEQUENCE_AT: usize = PRODUCER_EPOCH_AT + 2;
const RECORD_COUNT_AT: usize = BASE_SEQUENCE_AT + 4;
const RECORDS_AT: usize = RECORD_COUNT_AT + 4;

/// What the batch length does not count: the base offset and itself.
const BEFORE_LENGTH_END: usize = LEADER_EPOCH_AT;

/// The only format this crate writes and reads.
const MAGIC: i8 = 2;

/// A batch's attribute bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Attributes(pub i16);

impl Attributes {
    const CODEC: i16 = 0b111;
    const LOG_APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;

    /// Of a batch whose records are compressed so, with the time their producer gave them.
    #[must_use]
    pub const fn new(codec: Codec) -> Self {
        Self(codec.id() as i16)
    }

    /// The same, as part of a transaction or not.
    #[must_use]
    pub const fn with_transactional(self, transactional: bool) -> Self {
        Self(
            self.0 & !Self::TRANSACTIONAL
                | if transactional {
                    Self::TRANSACTIONAL
                } else {
                    0
                },
        )
    }

    /// How the records are compressed; an error when the bits name no codec.
    pub fn codec(self) -> Result<Codec, DecodeError> {
        let id = self.0 & Self::CODEC;
        i8::try_from(id)
            .ok()
            .and_then(Codec::from_id)
            .ok_or(DecodeError::Value {
                what: "batch.attributes.codec",
                value: i64::from(id),
            })
    }

    /// Whether the broker replaced the records' time by its own.
    #[must_use]
    pub const fn is_log_append_time(self) -> bool {
        self.0 & Self::LOG_APPEND_TIME != 0
    }

    /// Whether it is part of a transaction.
    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether it is a control batch, which only brokers write.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }
}

/// A batch's header, without the fields that follow from its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Set by the broker; producers send 0.
    pub base_offset: i64,
    /// Set by the broker; producers send −1.
    pub partition_leader_epoch: i32,
    /// Codec and flags.
    pub attributes: Attributes,
    /// `record_count − 1`.
    pub last_offset_delta: i32,
    /// The first record's timestamp, in ms since 1970.
    pub base_timestamp: i64,
    /// The largest of the records' timestamps.
    pub max_timestamp: i64,
    /// −1 without idempotence.
    pub producer_id: i64,
    /// −1 without idempotence.
    pub producer_epoch: i16,
    /// The first record's sequence; −1 without idempotence.
    pub base_sequence: i32,
    /// How many records there are.
    pub record_count: i32,
}

impl Default for BatchHeader {
    /// Of an empty batch without a producer id.
    fn default() -> Self {
        Self {
            base_offset: 0,
            partition_leader_epoch: -1,
            attributes: Attributes::default(),
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 0,
        }
    }
}

impl BatchHeader {
    /// Writes the header of a batch with this body into the first [`BATCH_HEADER_LEN`] bytes of
    /// `dst`. The body is not read again.
    ///
    /// # Panics
    /// When `dst` is shorter, or the body longer than an i32 can say.
    pub fn write(&self, body: &BodyDigest, dst: &mut [u8]) {
        let dst = dst
            .first_chunk_mut::<BATCH_HEADER_LEN>()
            .expect("room for a batch header");
        let batch_length = i32::try_from(BATCH_HEADER_LEN - BEFORE_LENGTH_END + body.len)
            .expect("batches are bounded far below 2 GiB");
        put(dst, BASE_OFFSET_AT, self.base_offset.to_be_bytes());
        put(dst, BATCH_LENGTH_AT, batch_length.to_be_bytes());
        put(
            dst,
            LEADER_EPOCH_AT,
            self.partition_leader_epoch.to_be_bytes(),
        );
        put(dst, MAGIC_AT, MAGIC.to_be_bytes());
        put(dst, ATTRIBUTES_AT, self.attributes.0.to_be_bytes());
        put(
            dst,
            LAST_OFFSET_DELTA_AT,
            self.last_offset_delta.to_be_bytes(),
        );
        put(dst, BASE_TIMESTAMP_AT, self.base_timestamp.to_be_bytes());
        put(dst, MAX_TIMESTAMP_AT, self.max_timestamp.to_be_bytes());
        put(dst, PRODUCER_ID_AT, self.producer_id.to_be_bytes());
        put(dst, PRODUCER_EPOCH_AT, self.producer_epoch.to_be_bytes());
        put(dst, BASE_SEQUENCE_AT, self.base_sequence.to_be_bytes());
        put(dst, RECORD_COUNT_AT, self.record_count.to_be_bytes());
        let crc = body.after(crc32c(&dst[ATTRIBUTES_AT..]));
        put(dst, CRC_AT, crc.to_be_bytes());
    }
}

#[inline(always)]
fn put<const N: usize>(dst: &mut [u8; BATCH_HEADER_LEN], at: usize, bytes: [u8; N]) {
    dst[at..at + N].copy_from_slice(&bytes);
}

/// A received or written batch, borrowing its bytes.
#[derive(Debug, Clone, Copy)]
pub struct BatchView<'a> {
    /// Its header.
    pub header: BatchHeader,
    /// The CRC it claims.
    pub crc: u32,
    checked: &'a [u8],
    body: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Reads the header of exactly one batch. The records are not read, nor the CRC checked.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let batch = Self::read(&mut reader)?;
        reader.finish("batch")?;
        Ok(batch)
    }

    /// Takes one batch off a reader over several.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let base_offset = reader.i64("batch.base_offset")?;
        let batch_length = reader.i32("batch.length")?;
        let len = usize::try_from(batch_length).map_err(|_| DecodeError::Length {
            what: "batch.length",
            len: i64::from(batch_length),
            left: reader.remaining(),
        })?;
        let mut reader = reader.sub(len, "batch")?;
        let partition_leader_epoch = reader.i32("batch.partition_leader_epoch")?;
        let magic = reader.i8("batch.magic")?;
        if magic != MAGIC {
            return Err(DecodeError::Value {
                what: "batch.magic",
                value: i64::from(magic),
            });
        }
        let crc = reader.u32("batch.crc")?;
        let checked = reader.rest();
        let header = BatchHeader {
            base_offset,
            partition_leader_epoch,
            attributes: Attributes(reader.i16("batch.attributes")?),
            last_offset_delta: reader.i32("batch.last_offset_delta")?,
            base_timestamp: reader.i64("batch.base_timestamp")?,
            max_timestamp: reader.i64("batch.max_timestamp")?,
            producer_id: reader.i64("batch.producer_id")?,
            producer_epoch: reader.i16("batch.producer_epoch")?,
            base_sequence: reader.i32("batch.base_sequence")?,
            record_count: reader.i32("batch.record_count")?,
        };
        Ok(Self {
            header,
            crc,
            checked,
            body: reader.rest(),
        })
    }

    /// Whether the CRC is right. Reads all of the batch.
    #[must_use]
    pub fn crc_ok(&self) -> bool {
        crc32c(self.checked) == self.crc
    }

    /// The records' bytes, compressed if the attributes say so.
    #[must_use]
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The records of an uncompressed batch.
    #[must_use]
    pub const fn records(&self) -> Records<'a> {
        Records::new(self.body, self.header.record_count)
    }

    /// The records, from the body decompressed by the caller.
    #[must_use]
    pub const fn records_in<'b>(&self, decompressed: &'b [u8]) -> Records<'b> {
        Records::new(decompressed, self.header.record_count)
    }
}

/// Reads the records of an uncompressed body, and checks that it holds as many as the header says.
///
/// The first error ends it.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    reader: Reader<'a>,
    left: i32,
    ended: bool,
}

impl<'a> Records<'a> {
    /// The `count` records in `body`.
    #[must_use]
    pub const fn new(body: &'a [u8], count: i32) -> Self {
        Self {
            reader: Reader::new(body),
            left: count,
            ended: false,
        }
    }

    fn read(&mut self) -> Option<Result<RecordView<'a>, DecodeError>> {
        if self.left > 0 {
            self.left -= 1;
            return Some(RecordView::read(&mut self.reader));
        }
        let left = self.reader.remaining();
        (left > 0).then_some(Err(DecodeError::Trailing {
            what: "batch.records",
            left,
        }))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.read();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}
