//! Records that were not, or perhaps not, written, as the application is told of them.

use std::ops::Range;
use std::sync::Arc;

use ringpost_codec::compress::decompress;
use ringpost_codec::record::RecordView;
use ringpost_codec::record_batch::Records;
use ringpost_core::outcome::Verdict;
use ringpost_core::seal::SealedBatch;
use ringpost_memory::Piece;

use crate::dead_letter::{DeadLetterError, Origin};
use crate::lane::Lane;
use crate::outcome::Outcome;

/// What is called with them.
pub(crate) type OnUndelivered = Box<dyn Fn(&Undelivered) + Send>;

/// A batch, or a part of one, that was not, or perhaps not, written. Lent to the hook set with
/// [`Builder::on_undelivered`](crate::Builder::on_undelivered).
#[derive(Debug)]
pub struct Undelivered {
    topic: Arc<str>,
    partition: i32,
    verdict: Verdict,
    content: Content,
    dead_letter: Option<DeadLetterError>,
}

#[derive(Debug)]
enum Content {
    Sealed(SealedBatch<Piece>),
    Part(Arc<Opened>, Range<u32>),
}

/// A batch read back: its records as they were before compression.
#[derive(Debug)]
pub(crate) struct Opened {
    body: Vec<u8>,
    pub(crate) records: u32,
    pub(crate) base_timestamp_ms: i64,
}

impl Opened {
    /// Reads a batch of ours back. It is decompressed at most to the size it had.
    pub(crate) fn read(batch: &SealedBatch<Piece>) -> Option<Self> {
        let mut body = Vec::with_capacity(batch.body.len);
        for piece in &batch.pieces {
            body.extend_from_slice(piece.bytes());
        }
        let codec = batch.attributes.codec().unwrap_or_default();
        // Our own bytes: they can be read back.
        let body = decompress(codec, &body, batch.record_bytes).ok()?;
        Some(Self {
            body,
            records: batch.records,
            base_timestamp_ms: batch.base_timestamp_ms,
        })
    }

    pub(crate) fn records(&self, which: Range<u32>) -> impl Iterator<Item = RecordView<'_>> {
        Records::new(&self.body, self.records.cast_signed())
            .flatten()
            .skip(which.start as usize)
            .take(which.len())
    }
}

impl Undelivered {
    pub(crate) fn new(lane: &Lane, verdict: Verdict, batch: SealedBatch<Piece>) -> Self {
        Self {
            topic: Arc::clone(&lane.topic),
            partition: lane.partition,
            verdict,
            content: Content::Sealed(batch),
            dead_letter: None,
        }
    }

    /// Records whose dead letters were not written either.
    pub(crate) fn lost_letters(
        origin: &Origin,
        batch: &Arc<Opened>,
        records: Range<u32>,
        error: DeadLetterError,
    ) -> Self {
        Self {
            topic: Arc::clone(&origin.topic),
            partition: origin.partition,
            verdict: origin.verdict.clone(),
            content: Content::Part(Arc::clone(batch), records),
            dead_letter: Some(error),
        }
    }

    /// Some of the records of this.
    pub(crate) fn part(&self, batch: &Arc<Opened>, records: Range<u32>) -> Self {
        Self {
            topic: Arc::clone(&self.topic),
            partition: self.partition,
            verdict: self.verdict.clone(),
            content: Content::Part(Arc::clone(batch), records),
            dead_letter: None,
        }
    }

    pub(crate) fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Reads a whole batch back.
    pub(crate) fn open(&self) -> Option<Opened> {
        match &self.content {
            Content::Sealed(batch) => Opened::read(batch),
            Content::Part(..) => None,
        }
    }

    /// The topic it was sent to.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// What became of each of its records: [`Outcome::NotWritten`] or [`Outcome::Unknown`].
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let base_timestamp_ms = match &self.content {
            Content::Sealed(batch) => batch.base_timestamp_ms,
            Content::Part(batch, _) => batch.base_timestamp_ms,
        };
        Outcome::of(&self.verdict, self.partition, 0, base_timestamp_ms)
    }

    /// Why the dead letters of these records were not, or perhaps not, written. `None`: none were to
    /// be.
    #[must_use]
    pub fn dead_letter_error(&self) -> Option<&DeadLetterError> {
        self.dead_letter.as_ref()
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        match &self.content {
            Content::Sealed(batch) => batch.records,
            Content::Part(_, records) => records.end - records.start,
        }
    }

    /// A batch has at least one record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `visit` with each record. A compressed batch is decompressed, at most to the size it
    /// had. Records whose dead letters were sent in vain may have the headers of those.
    pub fn for_each(&self, mut visit: impl FnMut(RecordView<'_>)) {
        match &self.content {
            Content::Sealed(batch) => {
                if let Some(opened) = Opened::read(batch) {
                    opened.records(0..batch.records).for_each(visit);
                }
            }
            Content::Part(batch, records) => {
                batch.records(records.clone()).for_each(&mut visit);
            }
        }
    }
}
