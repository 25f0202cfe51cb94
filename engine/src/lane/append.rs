//! Appending: a record becomes bytes at the tail of a lane's open batch.

use std::sync::Arc;

use ringpost_core::batch::{CutBatch, Fields, Fit, OpenBatch};
use ringpost_memory::{Charge, Piece, SEGMENT_BYTES_MIN, SegmentMut};

use crate::bulkhead::Want;
use crate::completions::Tagged;
use crate::dead_letter::Origin;
use crate::delivery::{BatchCompletion, Promise};
use crate::driver::clock;
use crate::record::{Record, Value};
use crate::sync::MutexGuard;

use super::{Inner, Lane, Open, SHARED_VALUE_BYTES_MIN, Ticket};
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
    pub(super) fn suffices(&self, at_least: usize) -> bool {
        let memory = self.memory.as_ref();
        memory.is_some_and(|memory| memory.capacity() >= at_least)
    }
}

impl Lane {
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
