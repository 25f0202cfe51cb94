//! A partition's place in the producer: where appenders and the shard meet.
//!
//! A lane holds the batch that is being filled and those that are cut and wait for the shard, under
//! one short lock. Under it: bounds, a copy, counters, sometimes memory from the pool. No user
//! code, no system call, no allocation once warm, no clock but the coarse one. The shard only ever
//! *tries* the lock.
//!
//! Lanes are never taken away. One that was closed says so, and its records go nowhere.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, TryLockError};

use ringpost_core::batch::{CutBatch, Fields, Fit, OpenBatch, Part};
use ringpost_core::dispatch::{Backlog, Take};
use ringpost_core::health::{Standing, View};
use ringpost_core::id::LaneId;
use ringpost_core::outcome::Verdict;
use ringpost_core::time::Time;
use ringpost_memory::{Charge, Piece, Pool, SEGMENT_BYTES_MIN, SegmentMut};

use crate::bulkhead::{Bulkhead, LaneKey, OnLaneUnavailable, Want};
use crate::completions::{CompletionQueue, Tagged, Tags};
use crate::dead_letter::{Letters, Origin};
use crate::delivery::{BatchCompletion, Promise};
use crate::driver::clock;
use crate::record::{Record, Value};
use crate::shard::ShardShared;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Mutex, MutexGuard};

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

/// Who waits for a batch.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    pub(crate) completion: Option<Promise>,
    pub(crate) tagged: Option<Tags>,
    /// Records nobody waits for.
    pub(crate) posted: u32,
    /// Which of the records are dead letters.
    pub(crate) letters: Option<Box<Letters>>,
    /// What the batch holds of the producer's memory.
    pub(crate) memory: usize,
    /// The batch's number in its lane, from 1.
    pub(crate) ordinal: u64,
    /// Held by all parts of a batch that was divided.
    pub(crate) divided: Option<Arc<()>>,
}

impl Ticket {
    /// Whether there are records nobody waits for: posted, or their delivery was dropped.
    pub(crate) fn is_unwatched(&self) -> bool {
        let dropped = |completion: &Promise| completion.has_dropped_shares();
        self.posted > 0 || self.completion.as_ref().is_some_and(dropped)
    }

    /// The batch is divided: what belongs to its first `at` records stays, the rest is given back.
    pub(crate) fn divide(&mut self, at: u32) -> Self {
        // What each holds is not known exactly; together they hold what they held.
        let memory = self.memory / 2;
        self.memory -= memory;
        Self {
            memory,
            letters: self
                .letters
                .as_mut()
                .map(|letters| Box::new(letters.divide(at))),
            completion: self.completion.as_mut().map(|promise| promise.divide(at)),
            tagged: self.tagged.as_mut().map(|tags| tags.divide(at)),
            // Which of them were posted is not known: each part may have some.
            posted: self.posted,
            ordinal: self.ordinal,
            divided: Some(Arc::clone(self.divided.get_or_insert_default())),
        }
    }

    /// Whether all other parts of its batch have their verdict, and so the batch with this one. To be
    /// asked once.
    pub(crate) fn is_last_part(&mut self) -> bool {
        let divided = self.divided.take();
        divided.is_none_or(|parts| Arc::into_inner(parts).is_some())
    }

    /// Tells all who wait. Returns how many of their wakers panicked.
    /// `partition` is where the batch went, which may not be where its records were appended.
    pub(crate) fn settle(self, partition: i32, verdict: Verdict) -> u64 {
        if let Some(tagged) = self.tagged {
            tagged.keep(partition, verdict.clone());
        }
        let completion = self.completion;
        completion.map_or(0, |completion| completion.keep(partition, verdict))
    }
}

/// Who will want to know what becomes of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Watch {
    /// Nobody.
    Nobody,
    /// A future.
    Future,
    /// The queue, under this tag.
    Tag(u64),
    /// Those who wait for dead letters: see [`Lane::append_letter`].
    Letter,
}

/// Whether a record has to go to its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Any partition of the topic will do.
    Free,
    /// Its key, the caller or the partitioner says so.
    Pinned,
}

/// Where a record's value comes from.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    /// It is copied.
    Copied,
    /// It is taken by reference, and counted against the memory.
    Shared(&'a bytes::Bytes),
    /// It is taken by reference, and lies in the memory already, in a segment of this size.
    Filled(&'a Piece, usize),
}

/// A record that was taken.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) index: u32,
    pub(crate) timestamp_ms: i64,
    /// With [`Watch::Future`].
    pub(crate) completion: Option<Arc<BatchCompletion>>,
    /// What it takes on the wire.
    pub(crate) bytes: usize,
    /// A batch was cut by it.
    pub(crate) cut: bool,
}

/// How far a run of records came.
#[derive(Debug, Default)]
pub(crate) struct Extension {
    pub(crate) taken: usize,
    /// What those take on the wire.
    pub(crate) bytes: usize,
    /// A batch was cut by them.
    pub(crate) cut: bool,
    /// Why the next was not taken.
    pub(crate) refused: Option<Refused>,
}

/// Why a record was not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// There is no memory; this much would do.
    Memory { bytes: usize },
    /// The completion queue has no room.
    Queue,
    /// Its broker is avoided or dead, and as much waits for such brokers as may.
    Avoided {
        /// What to wait for, if that is to be waited for.
        wait: Option<Want>,
    },
    /// It never fits.
    TooLarge {
        bytes: usize,
        bytes_max: usize,
        setting: &'static str,
    },
    /// The lane is closed.
    Closed,
}

/// What whoever waited was given.
#[derive(Debug)]
pub(crate) struct Granted {
    /// Used if it is needed.
    pub(crate) memory: Option<SegmentMut>,
    /// So much may wait behind brokers that are avoided.
    pub(crate) room: usize,
    /// The memory was set aside for dead letters, and is not counted with the rest.
    pub(crate) set_aside: bool,
}

impl Granted {
    fn suffices(&self, at_least: usize) -> bool {
        let memory = self.memory.as_ref();
        memory.is_some_and(|memory| memory.capacity() >= at_least)
    }
}

/// What a refused record leaves over. Let go without the lock: memory that comes free wakes who
/// waits for it, and a waker is somebody else's code.
#[derive(Debug, Default)]
struct Leftovers {
    /// A batch that got no record.
    open: Option<Open>,
    charge: Option<Charge>,
    spare: Option<SegmentMut>,
    shared: Option<(Piece, SegmentMut)>,
}

/// What the shard has to be told after an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// Nothing: it knows of the lane.
    None,
    /// The lane was empty.
    First,
    /// A batch is full.
    Full,
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

    /// Appends a record and tells the shard if it has to know. `granted` is what the caller waited
    /// for.
    #[inline]
    pub(crate) fn append(
        &self,
        record: &Record<'_>,
        bound: Bound,
        watch: Watch,
        granted: &mut Option<Granted>,
    ) -> Result<Appended, Refused> {
        let mut inner = self.lock();
        if let Some(appended) = self.append_at_once(&mut inner, record, bound, watch) {
            return Ok(appended);
        }
        self.append_at_length(inner, record, bound, watch, granted)
    }

    /// [`Lane::append`], when a copy is not all. Apart from it, or registers would be saved for this
    /// with every record.
    #[cold]
    #[inline(never)]
    fn append_at_length(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        record: &Record<'_>,
        bound: Bound,
        watch: Watch,
        granted: &mut Option<Granted>,
    ) -> Result<Appended, Refused> {
        let mut leftovers = Leftovers::default();
        let waited_for_memory = granted.as_ref().is_some_and(|g| g.memory.is_some());
        let value = match &record.value {
            Some(Value::Shared(value)) if value.len() >= SHARED_VALUE_BYTES_MIN => {
                if waited_for_memory {
                    Source::Copied
                } else {
                    Source::Shared(value)
                }
            }
            _ => Source::Copied,
        };
        let (result, news) = self.append_locked(
            &mut inner,
            record,
            value,
            (bound, watch),
            granted,
            &mut leftovers,
        );
        drop(inner);
        self.clear_away(leftovers);
        self.tell(news);
        result
    }

    /// Appends a record whose value lies in memory of the pool already, in a segment of this capacity;
    /// `record` has the same value.
    pub(crate) fn append_filled(
        &self,
        record: &Record<'_>,
        (value, capacity): (&Piece, usize),
        bound: Bound,
        watch: Watch,
    ) -> Result<Appended, Refused> {
        let mut leftovers = Leftovers::default();
        let mut inner = self.lock();
        let value = Source::Filled(value, capacity);
        let (result, news) = self.append_locked(
            &mut inner,
            record,
            value,
            (bound, watch),
            &mut None,
            &mut leftovers,
        );
        drop(inner);
        self.clear_away(leftovers);
        self.tell(news);
        result
    }

    /// A batch of its own for a record that will not wait here.
    #[cold]
    pub(crate) fn apart(
        &self,
        record: &Record<'_>,
        watch: Watch,
    ) -> Result<(CutBatch<SegmentMut>, Ticket, Appended), Refused> {
        let base = record.timestamp_ms.unwrap_or_else(clock::wall_ms);
        let mut open = Open {
            batch: OpenBatch::new(base, Vec::new()),
            ticket: Ticket::default(),
            opened: clock::now(),
            free: false,
            taken: 0,
        };
        let fields = fields_of(record, &open.batch);
        let size = open.batch.measure(&fields);
        self.check_size(size.total)?;
        if let Fit::NeedsBuffer(at_least) = open.batch.room_for(size.total) {
            let buffer = self.settings.pool.try_take(at_least);
            open.add_buffer(buffer.ok_or(Refused::Avoided { wait: None })?);
        }
        if matches!(watch, Watch::Tag(_)) {
            let tags = self.settings.completions.reserve(self.partition, base);
            open.ticket.tagged = Some(tags.ok_or(Refused::Queue)?);
        }
        let index = open.batch.append(&fields, &size);
        let completion = self.note(&mut open, watch, index, fields.timestamp_ms);
        open.ticket.memory = open.taken;
        let appended = Appended {
            index,
            timestamp_ms: fields.timestamp_ms,
            completion,
            bytes: size.total,
            cut: true,
        };
        Ok((open.batch.cut(), open.ticket, appended))
    }

    /// Appends a dead letter, also when the lane is closed to the application. A shared value is
    /// copied. `grant` is memory set aside for letters; where as much waits as may behind brokers that are
    /// avoided, a letter gets no other.
    pub(crate) fn append_letter(
        &self,
        record: &Record<'_>,
        origin: &Arc<Origin>,
        grant: &mut Option<SegmentMut>,
    ) -> Result<(), Refused> {
        let mut leftovers = Leftovers::default();
        let memory = grant.take();
        let mut granted = memory.is_some().then_some(Granted {
            memory,
            room: 0,
            set_aside: true,
        });
        let mut inner = self.lock();
        let (value, watch) = (Source::Copied, (Bound::Pinned, Watch::Letter));
        let (result, news) = self.append_locked(
            &mut inner,
            record,
            value,
            watch,
            &mut granted,
            &mut leftovers,
        );
        *grant = granted.and_then(|granted| granted.memory);
        if let (Ok(appended), Some(open)) = (&result, &mut inner.open) {
            let letters = open.ticket.letters.get_or_insert_default();
            letters.push(appended.index, origin);
        }
        drop(inner);
        self.clear_away(leftovers);
        self.tell(news);
        result.map(drop)
    }

    /// Appends records of this partition as long as they fit, under one lock.
    pub(crate) fn extend<'r>(
        &self,
        records: impl Iterator<Item = (&'r Record<'r>, Bound)>,
    ) -> Extension {
        let mut extension = Extension::default();
        let mut news = News::None;
        let mut leftovers = Leftovers::default();
        let mut inner = self.lock();
        for (record, bound) in records {
            let at_once = self.append_at_once(&mut inner, record, bound, Watch::Nobody);
            let result = at_once.map(Ok).unwrap_or_else(|| {
                let (watch, value) = (Watch::Nobody, Source::Copied);
                let (result, more) = self.append_locked(
                    &mut inner,
                    record,
                    value,
                    (bound, watch),
                    &mut None,
                    &mut leftovers,
                );
                news = news.or(more);
                result
            });
            match result {
                Ok(appended) => {
                    extension.taken += 1;
                    extension.bytes += appended.bytes;
                    extension.cut |= appended.cut;
                }
                Err(why) => {
                    extension.refused = Some(why);
                    break;
                }
            }
        }
        drop(inner);
        self.clear_away(leftovers);
        self.tell(news);
        extension
    }

    /// After the lock.
    #[inline]
    fn clear_away(&self, leftovers: Leftovers) {
        if let Some(open) = leftovers.open {
            self.shard.spare_parts.keep(open.batch.cut().parts);
        }
    }

    /// The common case, which needs nothing but a copy: the open batch has a record and room for
    /// another, so the shard knows of the lane. `None`: not so, or it has to be looked at closer.
    ///
    /// Apart from the rest for the sake of its result: one that shares its bytes with an error is put
    /// together in memory and read back at once, which costs as much as the copy.
    #[inline]
    fn append_at_once(
        &self,
        inner: &mut Inner,
        record: &Record<'_>,
        bound: Bound,
        watch: Watch,
    ) -> Option<Appended> {
        let open = inner
            .open
            .as_mut()
            .filter(|open| open.batch.records() > 0)?;
        let by_reference = matches!(&record.value, Some(Value::Shared(_)));
        let untagged = matches!(watch, Watch::Tag(_)) && open.ticket.tagged.is_none();
        if inner.closed || by_reference || untagged {
            return None;
        }
        let fields = fields_of(record, &open.batch);
        let size = open.batch.measure(&fields);
        if open.batch.fit(&size, self.batch_bytes()) != Fit::Fits {
            return None;
        }
        let index = open.batch.append(&fields, &size);
        open.free &= bound == Bound::Free;
        inner.bytes += size.total;
        Some(Appended {
            index,
            timestamp_ms: fields.timestamp_ms,
            completion: self.note(open, watch, index, fields.timestamp_ms),
            bytes: size.total,
            cut: false,
        })
    }

    /// Notes with the batch who wants to know what becomes of a record.
    #[inline]
    fn note(
        &self,
        open: &mut Open,
        watch: Watch,
        index: u32,
        timestamp_ms: i64,
    ) -> Option<Arc<BatchCompletion>> {
        match watch {
            Watch::Nobody => {
                open.ticket.posted += 1;
                None
            }
            // Noted by who appends them.
            Watch::Letter => None,
            Watch::Future => {
                let new = || Promise::new(self.partition);
                Some(open.ticket.completion.get_or_insert_with(new).share())
            }
            Watch::Tag(tag) => {
                let timestamp_delta_ms = timestamp_ms.wrapping_sub(open.batch.base_timestamp_ms());
                if let Some(tagged) = &mut open.ticket.tagged {
                    tagged.push(Tagged {
                        tag,
                        index,
                        timestamp_delta_ms,
                    });
                }
                None
            }
        }
    }

    /// Every case.
    #[cold]
    #[inline(never)]
    fn append_locked(
        &self,
        inner: &mut Inner,
        record: &Record<'_>,
        source: Source<'_>,
        (bound, watch): (Bound, Watch),
        granted: &mut Option<Granted>,
        leftovers: &mut Leftovers,
    ) -> (Result<Appended, Refused>, News) {
        if inner.ended || (inner.closed && !matches!(watch, Watch::Letter)) {
            return (Err(Refused::Closed), News::None);
        }
        let was_empty = inner.bytes == 0;
        let mut cut = false;
        loop {
            let open = match &mut inner.open {
                Some(open) => open,
                none => {
                    let parts = self.shard.spare_parts.take();
                    let base = record.timestamp_ms.unwrap_or_else(clock::wall_ms);
                    none.insert(Open {
                        batch: OpenBatch::new(base, parts),
                        ticket: Ticket::default(),
                        opened: clock::now(),
                        free: true,
                        taken: 0,
                    })
                }
            };
            let fields = fields_of(record, &open.batch);
            let size = open.batch.measure(&fields);
            let fit = open.batch.fit(&size, self.batch_bytes());
            if fit == Fit::BatchFull {
                inner.cut_open();
                cut = true;
                continue;
            }
            let needed = needed(open, size.total, source, fit);
            let ready = match self.may_hold_more(needed, fit, granted.as_ref(), (bound, watch)) {
                Ok(()) => self.make_room(open, source, size.total, fit, granted, leftovers),
                Err(refused) => Err(refused),
            };
            let ready = ready.and_then(|shared| {
                if matches!(watch, Watch::Tag(_)) && open.ticket.tagged.is_none() {
                    let base_timestamp_ms = open.batch.base_timestamp_ms();
                    let queue = &self.settings.completions;
                    open.ticket.tagged = queue.reserve(self.partition, base_timestamp_ms);
                    if open.ticket.tagged.is_none() {
                        leftovers.shared = shared;
                        return Err(Refused::Queue);
                    }
                }
                Ok(shared)
            });
            let shared = match ready {
                Ok(shared) => shared,
                Err(refused) => {
                    if open.batch.records() == 0 {
                        // It got no record.
                        leftovers.open = inner.open.take();
                    }
                    // The lane may have had a batch cut for a record that did not come in.
                    let news = if cut { News::Full } else { News::None };
                    return (Err(refused), news);
                }
            };
            let index = match shared {
                None => open.batch.append(&fields, &size),
                Some((value, spare)) => {
                    let value_memory = match source {
                        Source::Filled(_, capacity) => capacity,
                        _ => value.len(),
                    };
                    open.taken += value_memory + spare.capacity();
                    open.batch.append_shared(&fields, &size, value, spare)
                }
            };
            // At once: what the batch has and what is counted must not be told apart by a panic.
            inner.bytes += size.total;
            if index == 0 {
                inner.begun += 1;
                open.ticket.ordinal = inner.begun;
            }
            let completion = self.note(open, watch, index, fields.timestamp_ms);
            open.free &= bound == Bound::Free;
            self.holds_more(open.taken - open.ticket.memory);
            open.ticket.memory = open.taken;
            let news = match (cut, was_empty) {
                (true, _) => News::Full,
                (false, true) => News::First,
                (false, false) => News::None,
            };
            let appended = Appended {
                index,
                timestamp_ms: fields.timestamp_ms,
                completion,
                bytes: size.total,
                cut,
            };
            return (Ok(appended), news);
        }
    }

    /// Whether the bulkhead lets the lane have more memory, if the record needs any.
    fn may_hold_more(
        &self,
        needed: usize,
        fit: Fit,
        granted: Option<&Granted>,
        (bound, watch): (Bound, Watch),
    ) -> Result<(), Refused> {
        let room = granted.map_or(0, |granted| granted.room);
        if needed <= room || !self.is_unavailable() {
            return Ok(());
        }
        let bulkhead = &self.settings.bulkhead;
        if !bulkhead.is_full_for(needed) {
            return Ok(());
        }
        if let (Watch::Letter, Fit::NeedsBuffer(bytes)) = (watch, fit) {
            return match granted {
                Some(granted) if granted.suffices(bytes) => Ok(()),
                _ => Err(Refused::Memory { bytes }),
            };
        }
        let waits = bulkhead.policy == OnLaneUnavailable::Wait;
        let want = Want {
            bytes: needed,
            lane: (bound == Bound::Pinned).then(|| self.key()),
        };
        let wait = waits.then_some(want);
        Err(Refused::Avoided { wait })
    }

    /// Which it is, of all lanes.
    fn key(&self) -> LaneKey {
        (self.shard.index, self.id)
    }

    /// Whether its records can only wait.
    fn is_unavailable(&self) -> bool {
        self.view().standing() >= Standing::Avoided
    }

    /// It took memory for a record.
    #[inline]
    fn holds_more(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.held.fetch_add(bytes, Ordering::Relaxed);
        if self.is_unavailable() {
            self.hold_back(bytes);
        }
    }

    /// The bulkhead counts so much of it. There first: what is noted here may be taken off there at
    /// once.
    fn hold_back(&self, bytes: usize) {
        self.settings.bulkhead.add(bytes);
        self.held_back.fetch_add(bytes, Ordering::Release);
    }

    /// A batch has its verdict.
    pub(crate) fn holds_less(&self, bytes: usize) {
        let is_empty = self.held.fetch_sub(bytes, Ordering::Relaxed) == bytes;
        let bytes = if is_empty { usize::MAX } else { bytes };
        self.release_held_back(bytes);
    }

    /// Of what the bulkhead counts of it, at most so much is counted no more.
    fn release_held_back(&self, bytes: usize) {
        let less = |held_back: usize| Some(held_back - held_back.min(bytes));
        let (order, on_failure) = (Ordering::AcqRel, Ordering::Acquire);
        let before = self.held_back.fetch_update(order, on_failure, less);
        let before = before.unwrap_or_else(|same| same);
        self.settings.bulkhead.take_off(before.min(bytes));
    }

    /// Sees to it that the batch has room for a record. For a value taken by reference: gives the
    /// value's piece and the buffer that goes on behind it.
    #[inline]
    fn make_room(
        &self,
        open: &mut Open,
        source: Source<'_>,
        bytes: usize,
        fit: Fit,
        granted: &mut Option<Granted>,
        leftovers: &mut Leftovers,
    ) -> Result<Option<(Piece, SegmentMut)>, Refused> {
        match source {
            Source::Copied => {}
            Source::Shared(value) => {
                self.check_size(bytes)?;
                // Whoever waits for memory instead gets a buffer for all of it, and a copy.
                let charge = self.settings.pool.try_charge(value.len());
                let charge = charge.ok_or(Refused::Memory { bytes })?;
                return match self.room_around(open, value.len(), bytes, leftovers) {
                    Ok(spare) => Ok(Some((Piece::shared(value.clone(), charge), spare))),
                    Err(refused) => {
                        leftovers.charge = Some(charge);
                        Err(refused)
                    }
                };
            }
            Source::Filled(piece, _) => {
                self.check_size(bytes)?;
                let spare = self.room_around(open, piece.len(), bytes, leftovers)?;
                return Ok(Some((piece.clone(), spare)));
            }
        }
        let Fit::NeedsBuffer(at_least) = fit else {
            return Ok(None);
        };
        self.check_size(bytes)?;
        let granted = granted
            .as_mut()
            .filter(|granted| granted.suffices(at_least));
        if let Some(granted) = granted
            && let Some(memory) = granted.memory.take()
        {
            if granted.set_aside {
                open.batch.add_buffer(memory);
            } else {
                open.add_buffer(memory);
            }
            return Ok(None);
        }
        let pool = &self.settings.pool;
        let wished = open.batch.next_buffer_bytes(at_least);
        // Near the bound a smaller buffer is better than none.
        let buffer = pool.try_take(wished).or_else(|| pool.try_take(at_least));
        open.add_buffer(buffer.ok_or(Refused::Memory { bytes: at_least })?);
        Ok(None)
    }

    /// Room in front of a value that is taken by reference, and the buffer for what is behind it.
    #[cold]
    fn room_around(
        &self,
        open: &mut Open,
        value_len: usize,
        bytes: usize,
        leftovers: &mut Leftovers,
    ) -> Result<SegmentMut, Refused> {
        let pool = &self.settings.pool;
        let around = bytes - value_len;
        let full = || Refused::Memory { bytes };
        let spare = pool.try_take(around).ok_or_else(full)?;
        if let Fit::NeedsBuffer(_) = open.batch.room_for(around) {
            let Some(before) = pool.try_take(around) else {
                leftovers.spare = Some(spare);
                return Err(full());
            };
            open.add_buffer(before);
        }
        Ok(spare)
    }

    fn check_size(&self, record_bytes: usize) -> Result<(), Refused> {
        let bytes = record_bytes + ringpost_codec::record_batch::BATCH_HEADER_LEN;
        let settings = &self.settings;
        let (bytes_max, setting) = [
            (
                settings.room_bytes.saturating_sub(self.topic.len()),
                "request_bytes_max",
            ),
            (settings.pool.segment_bytes_max(), "memory"),
        ]
        .into_iter()
        .min()
        .unwrap_or_default();
        if bytes > bytes_max {
            return Err(Refused::TooLarge {
                bytes,
                bytes_max,
                setting,
            });
        }
        Ok(())
    }

    #[inline]
    fn tell(&self, news: News) {
        if news != News::None {
            self.shard
                .lane_has_news(self.id, self.connection(), news == News::Full);
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

    /// Nothing of it is held back, and those who wait for it need not.
    fn release(&self) {
        self.release_held_back(usize::MAX);
        self.settings.bulkhead.lane_is_released(self.key());
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

/// Emptied vectors for the parts of next batches. One stock for all lanes of a shard: a lane may
/// fill many batches while the shard empties another's.
#[derive(Debug, Default)]
pub(crate) struct SpareParts(Mutex<Vec<Vec<Part<SegmentMut>>>>);

impl SpareParts {
    /// More are simply dropped. Together at most 300 KiB.
    const KEPT: usize = 1024;
    /// Buffers of 4, 8, 16, 32 and 64 KiB, and one more: a batch of the default size.
    const PARTS: usize = 6;

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<Part<SegmentMut>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Part<SegmentMut>> {
        let spare = self.lock().pop();
        spare.unwrap_or_else(|| Vec::with_capacity(Self::PARTS))
    }

    pub(crate) fn keep(&self, mut parts: Vec<Part<SegmentMut>>) {
        parts.clear();
        let mut spare = self.lock();
        if spare.len() < Self::KEPT {
            spare.push(parts);
        }
    }
}

impl News {
    /// What has to be told of two appends.
    fn or(self, later: Self) -> Self {
        match (self, later) {
            (Self::Full, _) | (_, Self::None) => self,
            _ => later,
        }
    }
}

/// What memory a record needs beside what its batch has, at the most: as `make_room` takes it.
fn needed(open: &Open, bytes: usize, source: Source<'_>, fit: Fit) -> usize {
    let segment = |bytes: usize| bytes.next_power_of_two().max(SEGMENT_BYTES_MIN);
    match (source, fit) {
        (Source::Copied, Fit::NeedsBuffer(at_least)) => {
            segment(open.batch.next_buffer_bytes(at_least))
        }
        (Source::Copied, _) => 0,
        (Source::Shared(value), _) => value.len() + 2 * segment(bytes - value.len()),
        (Source::Filled(value, capacity), _) => capacity + 2 * segment(bytes - value.len()),
    }
}

/// What is appended to a batch of a record.
#[inline]
fn fields_of<'r>(record: &'r Record<'r>, batch: &OpenBatch<SegmentMut>) -> Fields<'r> {
    let timestamp_ms = record
        .timestamp_ms
        // Coarse clocks lag behind; a batch does not begin in the future.
        .unwrap_or_else(|| clock::wall_ms_coarse().max(batch.base_timestamp_ms()));
    Fields {
        timestamp_ms,
        key: record.key,
        value: record.value.as_ref().map(Value::bytes),
        headers: record.headers,
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
