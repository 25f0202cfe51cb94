//! Sending to a topic.
//!
//! A [`Topic`] is resolved once; from then on no send waits for metadata. It can be shared and
//! cloned; its sticky choice for records without a key is per thread, so that threads do not fight
//! over one partition. [`Topic::local`] gives a handle for one thread that keeps the choice and the
//! routing snapshot itself.

#![expect(
    clippy::result_large_err,
    reason = "a refused record comes back whole, into the caller's frame and not by way of the heap"
)]

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use ringpost_core::partition::{Partitioner, Sticky, consistent_partition, murmur2_partition};
use ringpost_memory::{Piece, SegmentMut, TakeError};

use crate::controller::Request;
use crate::delivery::{Delivery, block_on};
use crate::driver::clock;
use crate::error::{SendError, TrySendError};
use crate::lane::{Appended, Bound, Lane, Refused, SHARED_VALUE_BYTES_MIN, Watch};
use crate::purge::{Purge, Purging};
use crate::record::{Record, Value};
use crate::shared::{Shared, TopicState};

/// A topic that can be sent to. `Send + Sync + Clone`.
#[derive(Debug, Clone)]
pub struct Topic {
    state: Arc<TopicState>,
    shared: Arc<Shared>,
}

/// A topic for one thread: `Send`, not `Sync`, a few nanoseconds faster per record.
#[derive(Debug)]
pub struct LocalTopic {
    topic: Topic,
    lanes: RefCell<Cache<Arc<ArcSwap<Lanes>>, Arc<Lanes>>>,
    sticky: RefCell<Sticky>,
    not_sync: PhantomData<Cell<()>>,
}

type Lanes = Vec<Arc<Lane>>;

/// How far [`Topic::extend`] came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extended<'a> {
    /// Records that were taken, from the front.
    pub taken: usize,
    /// The first that was not, and why.
    pub refused: Option<TrySendError<'a>>,
    /// What was taken off the iterator behind that one: at most 32 records, in order. Empty when
    /// none was refused.
    pub rest: Vec<Record<'a>>,
}

impl<'a> Extended<'a> {
    fn new(taken: usize, refused: Option<TrySendError<'a>>) -> Self {
        Self {
            taken,
            refused,
            rest: Vec::new(),
        }
    }
}

impl Topic {
    pub(crate) fn new(state: Arc<TopicState>, shared: Arc<Shared>) -> Self {
        Self { state, shared }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// How many partitions it has, as far as is known.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.state.lanes.load().len()
    }

    /// As [`Producer::purge`](crate::Producer::purge), for the records of this topic.
    pub fn purge(&self, which: Purge) -> Purging {
        self.shared.purge(which, Some(&self.state.name))
    }

    /// A handle for one thread.
    #[must_use]
    pub fn local(&self) -> LocalTopic {
        LocalTopic {
            topic: self.clone(),
            lanes: RefCell::new(Cache::new(Arc::clone(&self.state.lanes))),
            sticky: RefCell::new(Sticky::new(seed())),
            not_sync: PhantomData,
        }
    }

    /// Takes a record, or refuses it at once. Never blocks.
    ///
    /// # Errors
    /// The record comes back with the reason.
    #[inline]
    pub fn try_send<'a>(&self, record: Record<'a>) -> Result<Delivery, TrySendError<'a>> {
        match self.offer(&record, Watch::Future, &mut None) {
            Ok(appended) => Ok(delivery(appended)),
            Err(refused) => Err(refused.with(record)),
        }
    }

    /// Takes a record whose outcome nobody waits for; failures go to `on_undelivered`. Never blocks.
    ///
    /// # Errors
    /// The record comes back with the reason.
    #[inline]
    pub fn post<'a>(&self, record: Record<'a>) -> Result<(), TrySendError<'a>> {
        match self.offer(&record, Watch::Nobody, &mut None) {
            Ok(_) => Ok(()),
            Err(refused) => Err(refused.with(record)),
        }
    }

    /// Takes a record whose outcome goes to the producer's completion queue under `tag`. Never
    /// blocks.
    ///
    /// # Errors
    /// The record comes back with the reason.
    #[inline]
    pub fn enqueue<'a>(&self, record: Record<'a>, tag: u64) -> Result<(), TrySendError<'a>> {
        match self.offer(&record, Watch::Tag(tag), &mut None) {
            Ok(_) => Ok(()),
            Err(refused) => Err(refused.with(record)),
        }
    }

    /// Takes a record, waiting for memory if need be: first come, first served, at most
    /// `max_block`. Dropping the future gives the turn to the next.
    ///
    /// # Errors
    /// When no memory came free in time, or the record can never be sent.
    pub async fn send(&self, record: Record<'_>) -> Result<Delivery, SendError> {
        self.wait_for_room(|grant| self.offer(&record, Watch::Future, grant))
            .await
    }

    /// Offers a record until it is taken, with memory that was waited for from the second time on.
    async fn wait_for_room(
        &self,
        mut offer: impl FnMut(&mut Option<SegmentMut>) -> Result<Appended, NotTaken>,
    ) -> Result<Delivery, SendError> {
        let mut grant = None;
        let mut deadline = None;
        let mut room = None;
        loop {
            let bytes = match offer(&mut grant) {
                Ok(appended) => {
                    if deadline.is_some() && self.shared.pool.waiting() > 0 {
                        // Others wait still: what was just appended must not linger.
                        self.shared.inbox.put(Request::Look);
                    }
                    return Ok(delivery(appended));
                }
                Err(NotTaken::Lane(Refused::Memory { bytes })) => bytes,
                Err(NotTaken::Lane(Refused::Avoided { wait: true })) => {
                    drop(grant.take());
                    let max_block = self.shared.max_block;
                    let deadline = *deadline.get_or_insert_with(|| clock::now() + max_block);
                    let Some(waiting) = room.take() else {
                        // Looked for once more, now that nobody can make some unnoticed.
                        room = Some(self.shared.bulkhead.room(deadline));
                        continue;
                    };
                    self.shared.inbox.put(Request::Look);
                    if !waiting.await {
                        return Err(SendError::TimedOut { max_block });
                    }
                    continue;
                }
                Err(other) => return Err(other.for_good()),
            };
            drop(grant.take());
            let deadline = deadline.get_or_insert_with(|| clock::now() + self.shared.max_block);
            let take = self.shared.pool.take(bytes, deadline.0);
            // Whoever ends the wait at its deadline has to know of it, and what lingers is sent.
            self.shared.inbox.put(Request::Look);
            grant = Some(take.await.map_err(|error| self.not_granted(error, bytes))?);
        }
    }

    /// [`Topic::send`], blocking the thread.
    ///
    /// # Errors
    /// As [`Topic::send`].
    pub fn send_blocking(&self, record: Record<'_>) -> Result<Delivery, SendError> {
        block_on(self.send(record))
    }

    fn not_granted(&self, error: TakeError, bytes: usize) -> SendError {
        match error {
            TakeError::TimedOut => SendError::TimedOut {
                max_block: self.shared.max_block,
            },
            TakeError::Closed => SendError::Closed,
            TakeError::TooLarge { .. } => SendError::TooLarge {
                bytes,
                bytes_max: self.shared.pool.segment_bytes_max(),
                setting: "memory",
            },
        }
    }

    /// Takes a record whose value of `len` bytes `fill` writes in place: into memory of the pool,
    /// outside any lock. From 16 KiB on those bytes go on the wire as they are; fewer are copied
    /// into the batch. `record`'s own value is not used. Never blocks (but for `fill`).
    ///
    /// # Errors
    /// The record comes back with the reason. `fill` may have been called or not.
    pub fn append_with<'a>(
        &self,
        record: Record<'a>,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Delivery, TrySendError<'a>> {
        let pool = &self.shared.pool;
        if len + ringpost_codec::record_batch::BATCH_HEADER_LEN > pool.segment_bytes_max() {
            let bytes_max = pool.segment_bytes_max();
            return Err(TrySendError::TooLarge {
                record,
                bytes: len,
                bytes_max,
                setting: "memory",
            });
        }
        let Some(mut segment) = pool.try_take(len.max(1)) else {
            return Err(TrySendError::Full(record));
        };
        fill(&mut segment.spare_mut()[..len]);
        segment.commit(len);
        let value = Piece::from(segment.freeze());
        let filled = Record {
            value: Some(Value::Copied(value.bytes())),
            ..record.clone()
        };
        let lanes = self.state.lanes.load();
        let bound = bound(&self.state, &record);
        let offered = self.route(&lanes, &filled).and_then(|lane| {
            let appended = if len >= SHARED_VALUE_BYTES_MIN {
                lane.append_filled(&filled, &value, bound, Watch::Future)
            } else {
                lane.append(&filled, bound, Watch::Future, &mut None)
            };
            appended
                .or_else(|refused| self.shared.divert(refused, lane, &filled, Watch::Future))
                .map_err(NotTaken::Lane)
        });
        match offered {
            Ok(appended) => {
                if bound == Bound::Free {
                    self.went(appended.bytes, appended.cut);
                }
                Ok(delivery(appended))
            }
            Err(refused) => Err(refused.with(record)),
        }
    }

    /// Takes records that nobody waits for, as many as fit, taking each partition's lock once per
    /// run of up to 32 records that go there. Never blocks.
    pub fn extend<'a>(&self, records: impl IntoIterator<Item = Record<'a>>) -> Extended<'a> {
        const RUN: usize = 32;
        let lanes = self.state.lanes.load();
        let mut records = records.into_iter();
        // The iterator is the caller's code, and so may be the partitioner: a run is gathered
        // before the lock is taken.
        let mut next = || {
            let record = records.next()?;
            Some(match self.route(&lanes, &record) {
                Ok(lane) => Ok((lane, record)),
                Err(error) => Err(error.with(record)),
            })
        };
        let mut taken = 0;
        let mut ahead = next();
        loop {
            let (lane, first) = match ahead {
                None => return Extended::new(taken, None),
                Some(Err(refused)) => return Extended::new(taken, Some(refused)),
                Some(Ok(routed)) => routed,
            };
            let mut run = [const { None }; RUN];
            run[0] = Some(first);
            ahead = next();
            for place in &mut run[1..] {
                ahead = match ahead {
                    Some(Ok((same, record))) if Arc::ptr_eq(same, lane) => {
                        *place = Some(record);
                        next()
                    }
                    other => {
                        ahead = other;
                        break;
                    }
                };
            }
            let records = run.iter().flatten();
            let bound_of = |record| bound(&self.state, record);
            let extension = lane.extend(records.map(|record| (record, bound_of(record))));
            if run[0]
                .as_ref()
                .is_some_and(|first| bound_of(first) == Bound::Free)
            {
                self.went(extension.bytes, extension.cut);
            }
            taken += extension.taken;
            if let Some(refused) = extension.refused {
                let mut rest = run.into_iter().flatten().skip(extension.taken);
                let first = rest.next();
                let refused = first.map(|record| NotTaken::Lane(refused).with(record));
                let ahead = ahead.map(|routed| match routed {
                    Ok((_, record)) => record,
                    Err(error) => error.into_record(),
                });
                return Extended {
                    taken,
                    refused,
                    rest: rest.chain(ahead).collect(),
                };
            }
        }
    }

    fn went(&self, bytes: usize, cut: bool) {
        with_thread_sticky(self.state.number, |sticky| {
            sticky.went(bytes, cut, self.state.routing.batch_bytes);
        });
    }

    #[inline]
    fn offer(
        &self,
        record: &Record<'_>,
        watch: Watch,
        grant: &mut Option<SegmentMut>,
    ) -> Result<Appended, NotTaken> {
        let lanes = self.state.lanes.load();
        let lane = self.route(&lanes, record)?;
        let bound = bound(&self.state, record);
        let appended = lane
            .append(record, bound, watch, grant)
            .or_else(|refused| self.shared.divert(refused, lane, record, watch))
            .map_err(NotTaken::Lane)?;
        if bound == Bound::Free {
            self.went(appended.bytes, appended.cut);
        }
        Ok(appended)
    }

    #[inline]
    fn route<'l>(
        &self,
        lanes: &'l [Arc<Lane>],
        record: &Record<'_>,
    ) -> Result<&'l Arc<Lane>, NotTaken> {
        route(&self.state, lanes, record, || {
            with_thread_sticky(self.state.number, |sticky| {
                sticky.choose(&self.state.routing.avoidance.routes(lanes))
            })
        })
        .inspect_err(|_| self.shared.look_for_partitions())
    }
}

impl LocalTopic {
    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// As [`Topic::try_send`].
    ///
    /// # Errors
    /// The record comes back with the reason.
    #[inline]
    pub fn try_send<'a>(&self, record: Record<'a>) -> Result<Delivery, TrySendError<'a>> {
        match self.offer(&record, Watch::Future, &mut None) {
            Ok(appended) => Ok(delivery(appended)),
            Err(refused) => Err(refused.with(record)),
        }
    }

    /// As [`Topic::post`].
    ///
    /// # Errors
    /// The record comes back with the reason.
    #[inline]
    pub fn post<'a>(&self, record: Record<'a>) -> Result<(), TrySendError<'a>> {
        match self.offer(&record, Watch::Nobody, &mut None) {
            Ok(_) => Ok(()),
            Err(refused) => Err(refused.with(record)),
        }
    }

    /// As [`Topic::enqueue`].
    ///
    /// # Errors
    /// The record comes back with the reason.
    #[inline]
    pub fn enqueue<'a>(&self, record: Record<'a>, tag: u64) -> Result<(), TrySendError<'a>> {
        match self.offer(&record, Watch::Tag(tag), &mut None) {
            Ok(_) => Ok(()),
            Err(refused) => Err(refused.with(record)),
        }
    }

    /// As [`Topic::send`].
    ///
    /// # Errors
    /// When no memory came free in time, or the record can never be sent.
    pub async fn send(&self, record: Record<'_>) -> Result<Delivery, SendError> {
        self.topic
            .wait_for_room(|grant| self.offer(&record, Watch::Future, grant))
            .await
    }

    /// As [`Topic::send_blocking`].
    ///
    /// # Errors
    /// As [`LocalTopic::send`].
    pub fn send_blocking(&self, record: Record<'_>) -> Result<Delivery, SendError> {
        block_on(self.send(record))
    }

    #[inline]
    fn offer(
        &self,
        record: &Record<'_>,
        watch: Watch,
        grant: &mut Option<SegmentMut>,
    ) -> Result<Appended, NotTaken> {
        let mut cache = self.lanes.borrow_mut();
        if self.topic.state.routing.partition_fn.is_some() {
            // The application's code is about to run, and may come back here.
            let lanes = Arc::clone(cache.load());
            drop(cache);
            return self.offer_to(&lanes, record, watch, grant);
        }
        self.offer_to(cache.load(), record, watch, grant)
    }

    #[inline]
    fn offer_to(
        &self,
        lanes: &[Arc<Lane>],
        record: &Record<'_>,
        watch: Watch,
        grant: &mut Option<SegmentMut>,
    ) -> Result<Appended, NotTaken> {
        let state = &self.topic.state;
        let lane = route(state, lanes, record, || {
            let mut sticky = self.sticky.borrow_mut();
            sticky.choose(&state.routing.avoidance.routes(lanes))
        })
        .inspect_err(|_| self.topic.shared.look_for_partitions())?;
        let bound = bound(state, record);
        let appended = lane
            .append(record, bound, watch, grant)
            .or_else(|refused| self.topic.shared.divert(refused, lane, record, watch))
            .map_err(NotTaken::Lane)?;
        if bound == Bound::Free {
            let mut sticky = self.sticky.borrow_mut();
            sticky.went(appended.bytes, appended.cut, state.routing.batch_bytes);
        }
        Ok(appended)
    }
}

fn delivery(appended: Appended) -> Delivery {
    let Appended {
        completion,
        index,
        timestamp_ms,
        ..
    } = appended;
    Delivery::new(
        completion.expect("a future was asked for"),
        index,
        timestamp_ms,
    )
}

/// Why a record was not taken.
#[derive(Debug)]
enum NotTaken {
    Lane(Refused),
    NoSuchPartition { partition: i32, count: usize },
}

impl NotTaken {
    #[cold]
    fn with(self, record: Record<'_>) -> TrySendError<'_> {
        match self {
            Self::Lane(
                Refused::Memory { .. } | Refused::Queue | Refused::Avoided { wait: true },
            ) => TrySendError::Full(record),
            Self::Lane(Refused::Avoided { wait: false }) => TrySendError::Avoided(record),
            Self::Lane(Refused::TooLarge {
                bytes,
                bytes_max,
                setting,
            }) => TrySendError::TooLarge {
                record,
                bytes,
                bytes_max,
                setting,
            },
            Self::Lane(Refused::Closed) => TrySendError::Closed(record),
            Self::NoSuchPartition { partition, count } => TrySendError::NoSuchPartition {
                record,
                partition,
                count,
            },
        }
    }

    /// Waiting would not help.
    fn for_good(self) -> SendError {
        match self {
            Self::Lane(Refused::TooLarge {
                bytes,
                bytes_max,
                setting,
            }) => SendError::TooLarge {
                bytes,
                bytes_max,
                setting,
            },
            Self::NoSuchPartition { partition, count } => {
                SendError::NoSuchPartition { partition, count }
            }
            Self::Lane(Refused::Avoided { .. }) => SendError::Avoided,
            Self::Lane(Refused::Closed | Refused::Memory { .. } | Refused::Queue) => {
                SendError::Closed
            }
        }
    }
}

/// The lane of a record. `sticky` chooses for records without a key.
#[inline]
fn route<'l>(
    state: &TopicState,
    lanes: &'l [Arc<Lane>],
    record: &Record<'_>,
    sticky: impl FnOnce() -> u32,
) -> Result<&'l Arc<Lane>, NotTaken> {
    // Lanes are numbered by i32, so their count fits.
    let count = u32::try_from(lanes.len()).unwrap_or(u32::MAX);
    let chosen = match (record.partition, &state.routing.partition_fn, record.key) {
        (Some(partition), _, _) => partition,
        (None, Some(choose), key) => choose(key, record.value.as_ref().map(Value::bytes), count).0,
        (None, None, key) => match (state.routing.partitioner, key) {
            (Partitioner::Murmur2, Some(key)) => murmur2_partition(key, count).0,
            (Partitioner::Consistent, Some(key)) => consistent_partition(key, count).0,
            (Partitioner::RoundRobin, _) => state.next_in_turn(count),
            _ => sticky().cast_signed(),
        },
    };
    usize::try_from(chosen)
        .ok()
        .and_then(|chosen| lanes.get(chosen))
        .ok_or(NotTaken::NoSuchPartition {
            partition: chosen,
            count: lanes.len(),
        })
}

/// Whether a record may go to any partition: then [`route`] asked for the sticky choice.
#[inline]
fn bound(state: &TopicState, record: &Record<'_>) -> Bound {
    let by_key = match state.routing.partitioner {
        Partitioner::Murmur2 | Partitioner::Consistent => record.key.is_some(),
        Partitioner::RoundRobin => true,
        Partitioner::Sticky => false,
    };
    if by_key || record.partition.is_some() || state.routing.partition_fn.is_some() {
        Bound::Pinned
    } else {
        Bound::Free
    }
}

/// The calling thread's sticky choice for a topic. Of two topics that share a place the later one
/// has it: a thread that sends to more than 256 topics in turn may choose anew more often.
#[inline]
fn with_thread_sticky<R>(topic: u64, mut f: impl FnMut(&mut Sticky) -> R) -> R {
    const PLACES: u64 = 256;
    thread_local! {
        static STICKY: RefCell<Vec<Option<(u64, Sticky)>>> = const { RefCell::new(Vec::new()) };
    }
    let kept = STICKY.try_with(|known| {
        let mut known = known.borrow_mut();
        let place = usize::try_from(topic % PLACES).unwrap_or(0);
        if known.len() <= place {
            known.resize(place + 1, None);
        }
        let (_, sticky) = match &mut known[place] {
            Some(choice) if choice.0 == topic => choice,
            other => other.insert((topic, Sticky::new(seed()))),
        };
        f(sticky)
    });
    // A thread that ends, and sends from a destructor, has no choice to keep to.
    kept.unwrap_or_else(|_| f(&mut Sticky::new(seed())))
}

/// Seeds that differ from handle to handle, so that they do not march in step.
fn seed() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    clock::now().0.rotate_left(20) ^ COUNT.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
}
