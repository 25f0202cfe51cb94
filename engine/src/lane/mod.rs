//! A partition's place in the producer: where appenders and the shard meet.
//!
//! A lane holds the batch that is being filled and those that are cut and wait for the shard, under
//! one short lock. Under it: bounds, a copy, counters, sometimes memory from the pool. No user
//! code, no system call, no allocation once warm, no clock but the coarse one. The shard only ever
//! *tries* the lock.
//!
//! Lanes are never taken away. One that was closed says so, and its records go nowhere.
//!
//! | file | what it is |
//! |---|---|
//! | `append` | a record becomes bytes of the open batch |
//! | `held` | what the lane holds of the memory, and of the room behind dead brokers |
//! | `ticket` | who waits for a batch |
//! | `spare` | lists that are used again |

mod append;
mod held;
mod spare;
mod ticket;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, TryLockError};

use ringpost_core::batch::{CutBatch, OpenBatch};
use ringpost_core::dispatch::{Backlog, Take};
use ringpost_core::health::View;
use ringpost_core::id::LaneId;
use ringpost_core::time::Time;
use ringpost_memory::{Pool, SegmentMut};

use crate::bulkhead::Bulkhead;
use crate::completions::CompletionQueue;
use crate::shard::ShardShared;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Mutex, MutexGuard};

pub(crate) use append::{Appended, Bound, Granted, Refused, Watch};
pub(crate) use spare::SpareParts;
pub(crate) use ticket::Ticket;

/// What all lanes of a producer have in common.
#[derive(Debug)]
pub(crate) struct LaneSettings {
    pub(crate) batch_bytes: usize,
    /// What a request leaves for its batches, but for the topic's name.
    pub(crate) room_bytes: usize,
    pub(crate) pool: Pool,
    pub(crate) completions: Arc<CompletionQueue>,
    pub(crate) bulkhead: Arc<Bulkhead>,
}

/// Values of this size and more are taken by reference when they are shared.
pub(crate) const SHARED_VALUE_BYTES_MIN: usize = 16 << 10;

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) id: LaneId,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) shard: Arc<ShardShared>,
    settings: Arc<LaneSettings>,
    inner: Mutex<Inner>,
    /// The connection its records go to, plus one; 0 while it has no leader; [`Self::UNTOLD`] before
    /// that is known. Written by the shard.
    connection: AtomicU32,
    /// How it stands, a [`View`]. Written by the shard.
    view: AtomicU64,
    /// Where batches end: as configured, or before, when the topic takes no larger ones.
    batch_bytes: AtomicUsize,
    /// Memory of its batches that have no verdict.
    held: AtomicUsize,
    /// How much of that the bulkhead counts.
    held_back: AtomicUsize,
    /// All batches up to this one have their verdict. Written by the shard.
    settled: AtomicU64,
    /// Of the batches behind it, which have their verdict too. The shard's; nobody else locks it.
    settled_early: std::sync::Mutex<VecDeque<bool>>,
}

#[derive(Debug, Default)]
struct Inner {
    open: Option<Open>,
    cut: VecDeque<Cut>,
    /// Bytes of the records in `open` and `cut`.
    bytes: usize,
    /// Batches begun so far.
    begun: u64,
    /// Somebody waits for the lane to be empty.
    hurry: bool,
    /// It takes nothing from the application.
    closed: bool,
    /// It takes nothing at all, not even dead letters.
    ended: bool,
}

#[derive(Debug)]
struct Open {
    batch: OpenBatch<SegmentMut>,
    ticket: Ticket,
    opened: Time,
    /// All its records may go to any partition.
    free: bool,
    /// Its memory, with what was taken for a record that was refused in the end.
    taken: usize,
}

impl Open {
    fn add_buffer(&mut self, buffer: SegmentMut) {
        self.taken += buffer.capacity();
        self.batch.add_buffer(buffer);
    }
}

#[derive(Debug)]
struct Cut {
    batch: CutBatch<SegmentMut>,
    ticket: Ticket,
    opened: Time,
    free: bool,
}

impl Lane {
    pub(crate) fn new(
        id: LaneId,
        topic: Arc<str>,
        partition: i32,
        shard: Arc<ShardShared>,
        settings: Arc<LaneSettings>,
    ) -> Self {
        let batch_bytes = settings.batch_bytes;
        Self {
            id,
            topic,
            partition,
            shard,
            settings,
            inner: Mutex::default(),
            connection: AtomicU32::new(Self::UNTOLD),
            batch_bytes: AtomicUsize::new(batch_bytes),
            view: AtomicU64::new(View::UNTOLD.to_bits()),
            held: AtomicUsize::new(0),
            held_back: AtomicUsize::new(0),
            settled: AtomicU64::new(0),
            settled_early: std::sync::Mutex::default(),
        }
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Poisoned by a panic under the lock: what a batch counts is what was written whole, so
        // the state is sound and goes on.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Inner>> {
        match self.inner.try_lock() {
            Ok(inner) => Some(inner),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    const UNTOLD: u32 = u32::MAX;

    /// Which connection the lane's records go to, if it has a leader and that is known.
    #[inline]
    pub(crate) fn connection(&self) -> Option<usize> {
        match self.connection.load(Ordering::Relaxed) {
            0 | Self::UNTOLD => None,
            coded => Some(coded as usize - 1),
        }
    }

    /// How it stands for records that may go anywhere. A topic is handed out before its shard has said;
    /// until then a lane is good, so that the first records do not flee from one to the next.
    #[inline]
    pub(crate) fn view(&self) -> View {
        View::from_bits(self.view.load(Ordering::Relaxed))
    }

    #[inline]
    fn batch_bytes(&self) -> usize {
        self.batch_bytes.load(Ordering::Relaxed)
    }

    /// The shard says that batches are to end at so many bytes, or where they are configured to.
    pub(crate) fn narrow(&self, bytes: Option<usize>) {
        let most = self.settings.batch_bytes;
        let bytes = bytes.map_or(most, |bytes| bytes.min(most));
        self.batch_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The shard says how it stands.
    pub(crate) fn set_view(&self, view: View) {
        let was_unavailable = self.is_unavailable();
        self.view.store(view.to_bits(), Ordering::Relaxed);
        match (was_unavailable, self.is_unavailable()) {
            (false, true) => self.hold_back(self.held.load(Ordering::Relaxed)),
            (true, false) => self.release(),
            _ => {}
        }
    }

    /// Its shard is gone: nobody serves it any more, and what the shard took with it holds nothing back.
    /// Returns how it stood before.
    pub(crate) fn forsake(&self) -> View {
        let before = self.view.swap(View::NOBODY.to_bits(), Ordering::Relaxed);
        self.release();
        View::from_bits(before)
    }

    /// The shard found out where the lane's records go.
    pub(crate) fn set_connection(&self, connection: Option<usize>) {
        let coded = connection.and_then(|connection| u32::try_from(connection + 1).ok());
        self.connection.store(coded.unwrap_or(0), Ordering::Relaxed);
    }

    /// What waits, for the shard.
    pub(crate) fn backlog(&self) -> Backlog {
        self.try_lock()
            .map_or(Backlog::Busy, |inner| inner.backlog())
    }

    /// The oldest batch, for the shard, unless it was begun after batch number `upto`. `patient`: wait
    /// for the lock.
    pub(crate) fn take(&self, patient: bool, upto: u64) -> Take<SegmentMut, Ticket> {
        let inner = if patient {
            Some(self.lock())
        } else {
            self.try_lock()
        };
        let Some(mut inner) = inner else {
            return Take::Busy;
        };
        if inner.cut.is_empty() {
            inner.cut_open();
        }
        let due = |cut: &Cut| cut.ticket.ordinal <= upto;
        if !inner.cut.front().is_some_and(due) {
            return Take::Empty;
        }
        match inner.cut.pop_front() {
            Some(cut) => inner.give(cut),
            None => Take::Empty,
        }
    }

    /// The oldest batch of those that may go to any partition, for the shard.
    pub(crate) fn take_free(&self) -> Take<SegmentMut, Ticket> {
        let Some(mut inner) = self.try_lock() else {
            return Take::Busy;
        };
        let place = |inner: &Inner| inner.cut.iter().position(|cut| cut.free);
        if place(&inner).is_none() && inner.open.as_ref().is_some_and(|open| open.free) {
            inner.cut_open();
        }
        match place(&inner).and_then(|place| inner.cut.remove(place)) {
            Some(cut) => inner.give(cut),
            None => Take::Empty,
        }
    }

    /// Asks the shard to send what is there at once, and says which batches those are: the lane is
    /// flushed when all up to this one are settled. `None`: nothing is unsettled.
    pub(crate) fn hurry(&self) -> Option<u64> {
        let mut inner = self.lock();
        let begun = inner.begun;
        let waiting = inner.bytes > 0;
        inner.hurry = waiting;
        drop(inner);
        if waiting {
            self.shard.lane_has_news(self.id, self.connection(), true);
        }
        (self.settled() < begun).then_some(begun)
    }

    /// Refuses the application's records from now on.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    /// Refuses everything from now on.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.ended = true;
    }

    /// Batches begun so far.
    pub(crate) fn begun(&self) -> u64 {
        self.lock().begun
    }

    /// All batches up to this one have their verdict.
    pub(crate) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    /// All that [`Lane::bury`] gave, and all that was with the shard, has its verdict.
    pub(crate) fn buried(&self) {
        self.settled.store(u64::MAX, Ordering::Release);
    }

    /// The lane's shard is gone: what waits here was not written, nothing more will be. Once that has its
    /// verdict, the lane is [`Lane::buried`].
    pub(crate) fn bury(&self) -> Vec<(CutBatch<SegmentMut>, Ticket)> {
        let mut inner = self.lock();
        inner.closed = true;
        inner.ended = true;
        inner.cut_open();
        inner.bytes = 0;
        let cut = std::mem::take(&mut inner.cut);
        drop(inner);
        cut.into_iter().map(|cut| (cut.batch, cut.ticket)).collect()
    }

    /// A batch has its verdict. Not always in order: one that is tried again may be overtaken by
    /// the verdict on a later one, and a flush must not take that for its own.
    pub(crate) fn count_settled(&self, ordinal: u64) {
        // Only the shard writes it.
        let mut settled = self.settled.load(Ordering::Relaxed);
        let ahead = ordinal.saturating_sub(settled).checked_sub(1);
        let Some(ahead) = ahead.and_then(|ahead| usize::try_from(ahead).ok()) else {
            return;
        };
        let mut early = self
            .settled_early
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if early.len() <= ahead {
            early.resize(ahead + 1, false);
        }
        early[ahead] = true;
        while early.front() == Some(&true) {
            early.pop_front();
            settled += 1;
        }
        drop(early);
        self.settled.store(settled, Ordering::Release);
    }
}

impl Inner {
    fn cut_open(&mut self) {
        match self.open.take() {
            Some(open) if open.batch.records() > 0 => {
                let Open {
                    batch,
                    ticket,
                    opened,
                    free,
                    ..
                } = open;
                self.cut.push_back(Cut {
                    batch: batch.cut(),
                    ticket,
                    opened,
                    free,
                });
            }
            other => self.open = other,
        }
    }

    /// Hands a batch to the shard.
    fn give(&mut self, cut: Cut) -> Take<SegmentMut, Ticket> {
        let Cut {
            batch,
            ticket,
            opened,
            free,
        } = cut;
        self.bytes -= batch.body_len;
        if self.bytes == 0 {
            self.hurry = false;
        }
        Take::Batch {
            cut: batch,
            ticket,
            opened,
            free,
            more: self.backlog(),
        }
    }

    fn backlog(&self) -> Backlog {
        if self.bytes == 0 {
            return Backlog::Empty;
        }
        let oldest = self
            .cut
            .front()
            .map(|cut| cut.opened)
            .or_else(|| self.open.as_ref().map(|open| open.opened));
        Backlog::Waiting {
            bytes: self.bytes,
            now: self.hurry || !self.cut.is_empty(),
            oldest: oldest.unwrap_or_default(),
        }
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests;
