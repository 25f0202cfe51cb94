//! Records that nobody waits for and that were not, or perhaps not, written.

use ringpost_codec::compress::decompress;
use ringpost_codec::record::RecordView;
use ringpost_codec::record_batch::Records;
use ringpost_core::outcome::Verdict;
use ringpost_core::seal::SealedBatch;
use ringpost_memory::Piece;

use crate::outcome::Outcome;

/// What is called with them.
pub(crate) type OnUndelivered = Box<dyn Fn(&Undelivered) + Send>;

/// A batch that was not, or perhaps not, written. Lent to the hook set with
/// [`Builder::on_undelivered`](crate::Builder::on_undelivered).
#[derive(Debug)]
pub struct Undelivered {
    pub(crate) topic: std::sync::Arc<str>,
    pub(crate) partition: i32,
    pub(crate) verdict: Verdict,
    pub(crate) batch: SealedBatch<Piece>,
}

impl Undelivered {
    /// The topic.
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
        Outcome::of(
            &self.verdict,
            self.partition,
            0,
            self.batch.base_timestamp_ms,
        )
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.batch.records
    }

    /// A batch has at least one record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `visit` with each record. A compressed batch is decompressed, at most to the size it
    /// had.
    pub fn for_each(&self, mut visit: impl FnMut(RecordView<'_>)) {
        let mut body = Vec::with_capacity(self.batch.body.len);
        for piece in &self.batch.pieces {
            body.extend_from_slice(piece.bytes());
        }
        let codec = self.batch.attributes.codec().unwrap_or_default();
        // Our own bytes: they can be read back.
        let Ok(body) = decompress(codec, &body, self.batch.record_bytes) else {
            return;
        };
        for record in Records::new(&body, self.batch.records.cast_signed()).flatten() {
            visit(record);
        }
    }
}
