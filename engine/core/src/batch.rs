//! A batch while records are appended to it, and after it was cut.
//!
//! An [`OpenBatch`] belongs to a lane and is only touched under the lane's lock. Records are
//! written once, in the form they have on the wire (record batch v2,
//! <https://kafka.apache.org/documentation/#recordbatch>), into a chain of buffers; a record never
//! straddles two. Cutting it gives a [`CutBatch`], which nobody appends to any more.
//!
//! ```text
//!   parts (full)              tail (being filled)
//!   ┌────────┐ ┌───────────┐ ┌──────────────┬─ ─ ─ ─ ┐
//!   │ 4 KiB  │→│ 8 KiB     │→│ record record│  room
//!   └────────┘ └───────────┘ └──────────────┴─ ─ ─ ─ ┘
//! ```
//!
//! The size of a record is known exactly before it is written, so whether it fits is decided
//! beforehand and writing cannot fail half way. Counters move after the bytes: a batch always is
//! what its counters say.

use alloc::vec::Vec;

use ringpost_codec::record::{self, Header, RecordSize};
use ringpost_codec::record_batch::BATCH_HEADER_LEN;

use crate::buffer::Buffer;

/// A record as it is appended.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Chooses the partition, and is stored with the record.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in order; names may repeat.
    pub headers: &'a [Header<'a>],
}

/// Part of a batch's body.
#[derive(Debug)]
pub enum Part<B: Buffer> {
    /// Written by us, one owner.
    Written(B),
    /// A value taken by reference.
    Shared(B::Piece),
}

impl<B: Buffer> Part<B> {
    /// The bytes of the part.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Written(buffer) => buffer.filled(),
            Self::Shared(piece) => crate::buffer::Piece::bytes(piece),
        }
    }
}

/// Whether a record fits a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It does.
    Fits,
    /// It does once the batch has a buffer with this many bytes of room.
    NeedsBuffer(usize),
    /// The batch is full: cut it, and append to the next.
    BatchFull,
}

/// A batch that records are appended to.
#[derive(Debug)]
pub struct OpenBatch<B: Buffer> {
    parts: Vec<Part<B>>,
    tail: Option<B>,
    body_len: usize,
    records: u32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

impl<B: Buffer> OpenBatch<B> {
    /// An empty batch whose first record has this timestamp. `parts` is an empty vector, perhaps
    /// with room from earlier use.
    #[must_use]
    pub fn new(base_timestamp_ms: i64, parts: Vec<Part<B>>) -> Self {
        debug_assert!(parts.is_empty());
        Self {
            parts,
            tail: None,
            body_len: 0,
            records: 0,
            base_timestamp_ms,
            max_timestamp_ms: base_timestamp_ms,
        }
    }

    /// Records in it.
    #[must_use]
    pub fn records(&self) -> u32 {
        self.records
    }

    /// What it takes on the wire, uncompressed: the batch header and the records.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        BATCH_HEADER_LEN + self.body_len
    }

    /// The timestamp of the first record, in milliseconds since 1970.
    #[must_use]
    pub fn base_timestamp_ms(&self) -> i64 {
        self.base_timestamp_ms
    }

    /// The exact size the record would have as the next one of this batch.
    #[inline]
    #[must_use]
    pub fn measure(&self, fields: &Fields<'_>) -> RecordSize {
        record::record_size(
            fields.timestamp_ms.wrapping_sub(self.base_timestamp_ms),
            self.next_offset_delta(),
            fields.key,
            fields.value.map(<[u8]>::len),
            fields.headers,
        )
    }

    /// Whether a record of this size fits a batch of at most `batch_bytes_max` on the wire. A first
    /// record always does, whatever its size: a record larger than a batch gets one of its own.
    #[inline]
    #[must_use]
    pub fn fit(&self, size: &RecordSize, batch_bytes_max: usize) -> Fit {
        if self.records > 0
            && (self.wire_len() + size.total > batch_bytes_max || self.records == Self::RECORDS_MAX)
        {
            return Fit::BatchFull;
        }
        self.room_for(size.total)
    }

    /// Whether the last buffer has so much room.
    #[inline]
    #[must_use]
    pub fn room_for(&self, bytes: usize) -> Fit {
        match &self.tail {
            Some(tail) if tail.capacity() - tail.filled().len() >= bytes => Fit::Fits,
            _ => Fit::NeedsBuffer(bytes),
        }
    }

    /// The capacity a next buffer should have: twice the last one's, from 4 to 64 KiB, so that few
    /// records hold little memory and many do not pay for many buffers.
    #[must_use]
    pub fn next_buffer_bytes(&self, at_least: usize) -> usize {
        const SMALLEST: usize = 4 << 10;
        const LARGEST: usize = 64 << 10;
        let last = self.tail.as_ref().map_or(0, Buffer::capacity);
        (2 * last).clamp(SMALLEST, LARGEST).max(at_least)
    }

    /// Adds a buffer; what is left of the last one stays unused.
    pub fn add_buffer(&mut self, buffer: B) {
        self.close_tail();
        self.tail = Some(buffer);
    }

    fn close_tail(&mut self) {
        if let Some(tail) = self.tail.take()
            && !tail.filled().is_empty()
        {
            self.parts.push(Part::Written(tail));
        }
    }

    /// Appends a record that [`OpenBatch::fit`] found to fit, and gives its number in the batch.
    ///
    /// # Panics
    /// When there is no room: a bug of the caller.
    #[inline]
    pub fn append(&mut self, fields: &Fields<'_>, size: &RecordSize) -> u32 {
        let delta = fields.timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        let offset_delta = self.next_offset_delta();
        let tail = self
            .tail
            .as_mut()
            .expect("a batch is given a buffer before a record");
        let written = record::encode(
            tail.spare_mut(),
            *size,
            delta,
            offset_delta,
            fields.key,
            fields.value,
            fields.headers,
        );
        tail.commit(written);
        self.count(written, fields.timestamp_ms)
    }

    /// Room that [`OpenBatch::append_shared`] needs beside the value.
    #[must_use]
    pub fn around_shared(size: &RecordSize, value_len: usize) -> usize {
        size.total - value_len
    }

    /// Appends a record whose value is taken by reference: a part of its own between two that we
    /// write. The batch must have [`OpenBatch::around_shared`] bytes of room, and `spare` is the
    /// buffer in which it goes on behind the value.
    ///
    /// # Panics
    /// When there is no room: a bug of the caller.
    pub fn append_shared(
        &mut self,
        fields: &Fields<'_>,
        size: &RecordSize,
        value: B::Piece,
        mut spare: B,
    ) -> u32 {
        use crate::buffer::Piece as _;
        let delta = fields.timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        let offset_delta = self.next_offset_delta();
        let value_len = value.bytes().len();
        let tail = self
            .tail
            .as_mut()
            .expect("a batch is given a buffer before a record");
        let head = record::encode_head(
            tail.spare_mut(),
            *size,
            delta,
            offset_delta,
            fields.key,
            Some(value_len),
        );
        tail.commit(head);
        self.close_tail();
        self.parts.push(Part::Shared(value));
        let behind = record::encode_tail(spare.spare_mut(), fields.headers);
        spare.commit(behind);
        self.tail = Some(spare);
        debug_assert_eq!(head + value_len + behind, size.total);
        self.count(size.total, fields.timestamp_ms)
    }

    #[inline]
    fn count(&mut self, bytes: usize, timestamp_ms: i64) -> u32 {
        let index = self.records;
        self.body_len += bytes;
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        self.records += 1;
        index
    }

    #[inline]
    fn next_offset_delta(&self) -> i32 {
        // `fit` stops at RECORDS_MAX, far below the limit of an i32.
        self.records.cast_signed()
    }

    /// A batch may hold that many records: the count is an `i32` on the wire, and a bound keeps
    /// what hangs on a batch (tags, outcomes) bounded too.
    pub const RECORDS_MAX: u32 = 1 << 20;

    /// Ends appending.
    #[must_use]
    pub fn cut(mut self) -> CutBatch<B> {
        self.close_tail();
        CutBatch {
            parts: self.parts,
            body_len: self.body_len,
            records: self.records,
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
        }
    }
}

/// A batch nobody appends to any more, not yet compressed.
#[derive(Debug)]
pub struct CutBatch<B: Buffer> {
    /// The body, part by part.
    pub parts: Vec<Part<B>>,
    /// Bytes of all parts.
    pub body_len: usize,
    /// Records in it, at least one.
    pub records: u32,
    /// Of the first record.
    pub base_timestamp_ms: i64,
    /// The largest of all records.
    pub max_timestamp_ms: i64,
}
