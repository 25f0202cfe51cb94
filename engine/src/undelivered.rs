//! Records that nobody waits for and that were not, or perhaps not, written, and how the
//! application is told.
//!
//! The application's hook has a thread of its own (in embedded mode: the application's), because it
//! may take its time, and may wait for what shards and controller do: send to another topic, ask for
//! one. Whoever reports never waits for it; the queue between them is bounded.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ringpost_codec::compress::decompress;
use ringpost_codec::record::RecordView;
use ringpost_codec::record_batch::Records;
use ringpost_core::outcome::Verdict;
use ringpost_core::seal::SealedBatch;
use ringpost_memory::Piece;

use crate::outcome::Outcome;
use crate::shared::Shared;

/// What is called with them.
pub(crate) type OnUndelivered = Box<dyn Fn(&Undelivered) + Send>;

/// What waits for the hook.
#[derive(Debug)]
pub(crate) struct Reports {
    /// Whether there is a hook.
    wanted: bool,
    queue: Mutex<Queue>,
    /// Something was put in, or the last reporter is gone.
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Undelivered>,
    /// Threads that may report and have not ended.
    reporters: usize,
}

impl Reports {
    /// Batches that may wait for the hook. Their memory is the producer's own until then.
    const WAITING_MAX: usize = 256;

    pub(crate) fn new(wanted: bool, reporters: usize) -> Self {
        Self {
            wanted,
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                reporters,
            }),
            changed: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody wants to know.
    pub(crate) fn are_wanted(&self) -> bool {
        self.wanted
    }

    /// Reports a batch. Never waits.
    pub(crate) fn put(&self, batch: Undelivered) {
        let mut queue = self.queue();
        if queue.waiting.len() >= Self::WAITING_MAX || queue.reporters == 0 {
            drop(queue);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.waiting.push_back(batch);
        drop(queue);
        self.changed.notify_one();
    }

    /// A thread that may have reported ends.
    pub(crate) fn reporter_ended(&self) {
        let mut queue = self.queue();
        queue.reporters = queue.reporters.saturating_sub(1);
        drop(queue);
        self.changed.notify_one();
    }

    /// The oldest.
    fn take(&self) -> Option<Undelivered> {
        self.queue().waiting.pop_front()
    }

    /// The oldest, when there is one. `None`: there will be no more.
    fn wait(&self) -> Option<Undelivered> {
        let queue = self.queue();
        let more = |queue: &mut Queue| queue.waiting.is_empty() && queue.reporters > 0;
        let queue = self.changed.wait_while(queue, more);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.waiting.pop_front()
    }

    /// Batches that could not be reported.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The application's hook, and what it is called with.
pub(crate) struct Hook {
    call: OnUndelivered,
    producer: Arc<Shared>,
}

impl Hook {
    pub(crate) fn new(call: OnUndelivered, producer: Arc<Shared>) -> Self {
        Self { call, producer }
    }

    /// The loop of its own thread, until nothing more can be reported.
    pub(crate) fn run(self) {
        while let Some(batch) = self.producer.reports.wait() {
            self.report(&batch);
        }
    }

    /// Reports what waits, on the calling thread.
    pub(crate) fn report_waiting(&self) {
        while let Some(batch) = self.producer.reports.take() {
            self.report(&batch);
        }
    }

    fn report(&self, batch: &Undelivered) {
        // The application's code: its panic is its own, the producer goes on.
        if catch_unwind(AssertUnwindSafe(|| (self.call)(batch))).is_err() {
            self.producer.count_panics(1);
        }
    }
}

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
