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

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use ringpost_core::partition::Sticky;
use ringpost_memory::Piece;

pub use self::extend::Extended;
use self::offer::{NotTaken, delivery};
use self::route::{OfThread, new_sticky};
use crate::delivery::{Delivery, block_on};
use crate::error::{SendError, TrySendError};
use crate::lane::{Appended, Granted, Lane, SHARED_VALUE_BYTES_MIN, Watch};
use crate::purge::{Purge, Purging};
use crate::record::{Record, Value};
use crate::shared::{Shared, TopicState};

mod extend;
mod offer;
mod room;
mod route;

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
            sticky: RefCell::new(new_sticky()),
            not_sync: PhantomData,
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
        let capacity = segment.capacity();
        let value = Piece::from(segment.freeze());
        let filled = Record {
            value: Some(Value::Copied(value.bytes())),
            ..record.clone()
        };
        let lanes = self.state.lanes.load();
        let (choice, watch) = (OfThread(self.state.number), Watch::Future);
        let offered = self.offer_to(&lanes, &filled, watch, &choice, |lane, bound| {
            if len >= SHARED_VALUE_BYTES_MIN {
                lane.append_filled(&filled, (&value, capacity), bound, watch)
            } else {
                lane.append(&filled, bound, watch, &mut None)
            }
        });
        match offered {
            Ok(appended) => Ok(delivery(appended)),
            Err(refused) => Err(refused.with(record)),
        }
    }

    #[inline]
    fn offer(
        &self,
        record: &Record<'_>,
        watch: Watch,
        granted: &mut Option<Granted>,
    ) -> Result<Appended, NotTaken> {
        let lanes = self.state.lanes.load();
        let choice = OfThread(self.state.number);
        self.offer_to(&lanes, record, watch, &choice, |lane, bound| {
            lane.append(record, bound, watch, granted)
        })
    }

    /// As [`LocalTopic::topic`].
    fn topic(&self) -> &Self {
        self
    }
}

impl LocalTopic {
    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    #[inline]
    fn offer(
        &self,
        record: &Record<'_>,
        watch: Watch,
        granted: &mut Option<Granted>,
    ) -> Result<Appended, NotTaken> {
        let topic = &self.topic;
        let mut cache = self.lanes.borrow_mut();
        let kept;
        let lanes = if topic.state.routing.partition_fn.is_some() {
            // The application's code is about to run, and may come back here.
            kept = Arc::clone(cache.load());
            drop(cache);
            &kept
        } else {
            cache.load()
        };
        topic.offer_to(lanes, record, watch, &self.sticky, |lane, bound| {
            lane.append(record, bound, watch, granted)
        })
    }
}

/// The ways of sending one record, which all handles have: each comes down to the handle's `offer`.
macro_rules! sends {
    ($handle:ident) => {
        impl $handle {
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
            pub fn enqueue<'a>(
                &self,
                record: Record<'a>,
                tag: u64,
            ) -> Result<(), TrySendError<'a>> {
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
                let topic = self.topic();
                topic
                    .wait_for_room(|granted| self.offer(&record, Watch::Future, granted))
                    .await
            }

            /// [`send`](Self::send), blocking the thread.
            ///
            /// # Errors
            /// As [`send`](Self::send).
            pub fn send_blocking(&self, record: Record<'_>) -> Result<Delivery, SendError> {
                block_on(self.send(record))
            }
        }
    };
}

sends!(Topic);
sends!(LocalTopic);
