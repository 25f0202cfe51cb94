//! Outcomes by queue: records go in with a tag, tags come out with outcomes.
//!
//! For services that run a loop of their own: no future, no callback, no allocation per record. The
//! tags lie with the batch; the queue has one entry per batch. Room for that entry is reserved when
//! the first tagged record of a batch is accepted, and a record that finds no room is refused as
//! `Full`: a queue that nobody drains stays bounded and never holds up the network.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringpost_core::outcome::Verdict;

use crate::outcome::{Failure, Outcome, Why};

/// The outcome of a record that was sent with `enqueue`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// As it was given.
    pub tag: u64,
    /// What became of the record.
    pub outcome: Outcome,
}

/// The outcomes of records sent with `enqueue`, in batches, in no order across partitions.
#[derive(Debug)]
pub struct CompletionQueue {
    batches_max: usize,
    reserved: AtomicUsize,
    inner: Mutex<Inner>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    done: VecDeque<Done>,
    spare: Vec<Vec<Tagged>>,
    /// The most tags that a batch had.
    most: usize,
}

#[derive(Debug)]
struct Done {
    partition: i32,
    verdict: Verdict,
    base_timestamp_ms: i64,
    tagged: Vec<Tagged>,
}

/// A tag and its record's place in the batch. Packed, because there is one for each record that waits:
/// 20 bytes instead of 24.
#[derive(Debug, Clone, Copy)]
#[repr(Rust, packed(4))]
pub(crate) struct Tagged {
    pub(crate) tag: u64,
    pub(crate) index: u32,
    /// Milliseconds after the batch's first record; times of the application may lie anywhere.
    pub(crate) timestamp_delta_ms: i64,
}

/// The tags of a batch, and the duty to queue them with its verdict. Dropped undone, because its
/// shard ended by a bug, it says so to those who drain instead of leaving them waiting.
#[derive(Debug)]
pub(crate) struct Tags {
    queue: Arc<CompletionQueue>,
    partition: i32,
    base_timestamp_ms: i64,
    /// Until they are queued.
    tagged: Option<Vec<Tagged>>,
}

impl Tags {
    /// One more record of the batch.
    #[inline]
    pub(crate) fn push(&mut self, tagged: Tagged) {
        if let Some(all) = &mut self.tagged {
            if all.len() == all.capacity() {
                self.queue.widen(all);
            }
            all.push(tagged);
        }
    }

    /// The batch is divided: the tags of its first `at` records stay, the rest is given back. That is
    /// an entry more in the queue than there was room reserved for; the next batch finds less.
    pub(crate) fn divide(&mut self, at: u32) -> Self {
        self.queue.reserved.fetch_add(1, Ordering::Relaxed);
        let rest = self.tagged.as_mut().map(|tagged| {
            let mut rest = tagged.split_off(tagged.partition_point(|one| one.index < at));
            for one in &mut rest {
                one.index -= at;
            }
            rest
        });
        Self {
            queue: Arc::clone(&self.queue),
            partition: self.partition,
            base_timestamp_ms: self.base_timestamp_ms,
            tagged: rest,
        }
    }

    /// The batch has its verdict, and went to this partition.
    pub(crate) fn keep(mut self, partition: i32, verdict: Verdict) {
        self.partition = partition;
        self.finish(verdict);
    }

    fn finish(&mut self, verdict: Verdict) {
        if let Some(tagged) = mem::take(&mut self.tagged) {
            self.queue.push(Done {
                partition: self.partition,
                verdict,
                base_timestamp_ms: self.base_timestamp_ms,
                tagged,
            });
        }
    }
}

impl Drop for Tags {
    fn drop(&mut self) {
        self.finish(Verdict::Unknown(Failure::new(Why::ShardLost)));
    }
}

impl CompletionQueue {
    pub(crate) fn new(batches_max: usize) -> Self {
        Self {
            batches_max,
            reserved: AtomicUsize::new(0),
            inner: Mutex::default(),
            filled: Condvar::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for the tags of one more batch. `None`: nobody drains.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        partition: i32,
        base_timestamp_ms: i64,
    ) -> Option<Tags> {
        let before = self.reserved.fetch_add(1, Ordering::Relaxed);
        if before >= self.batches_max {
            self.reserved.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let tagged = self.inner().spare.pop().unwrap_or_default();
        Some(Tags {
            queue: Arc::clone(self),
            partition,
            base_timestamp_ms,
            tagged: Some(tagged),
        })
    }

    /// Makes room for more tags of a batch: at first for few, as many batches are small, then at once for
    /// as many as any batch had. Doubled each time, a vector took ten pieces of the heap until it was as
    /// long as a batch, and there are as many of them as ever were on the way at once.
    #[cold]
    fn widen(&self, tagged: &mut Vec<Tagged>) {
        const FEW: usize = 64;
        let len = tagged.len();
        let most = if len == 0 { FEW } else { self.inner().most };
        tagged.reserve_exact(most.max(2 * len) - len);
    }

    /// A batch that had room reserved has its verdict.
    fn push(&self, done: Done) {
        self.inner().done.push_back(done);
        self.filled.notify_all();
    }

    /// Appends the outcomes that are there to `completions`, a bounded number at a time, and
    /// returns how many. Call it until it returns 0. Any thread may.
    pub fn drain(&self, completions: &mut Vec<Completion>) -> usize {
        // An outcome that failed tells why and takes some 150 bytes, and a batch may have a thousand of
        // them: the caller's list is memory too.
        const BATCHES_PER_CALL: usize = 8;
        let before = completions.len();
        for _ in 0..BATCHES_PER_CALL {
            let Some(Done {
                partition,
                verdict,
                base_timestamp_ms,
                mut tagged,
            }) = self.inner().done.pop_front()
            else {
                break;
            };
            completions.extend(tagged.iter().map(|record| {
                let timestamp_ms = base_timestamp_ms.wrapping_add(record.timestamp_delta_ms);
                Completion {
                    tag: record.tag,
                    outcome: Outcome::of(&verdict, partition, record.index, timestamp_ms),
                }
            }));
            let count = tagged.len();
            tagged.clear();
            let mut inner = self.inner();
            inner.most = inner.most.max(count);
            inner.spare.push(tagged);
            drop(inner);
            self.reserved.fetch_sub(1, Ordering::Relaxed);
        }
        completions.len() - before
    }

    /// Blocks until there is something to drain, at most for `timeout`. `false`: there is nothing.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let inner = self.inner();
        let (inner, _) = self
            .filled
            .wait_timeout_while(inner, timeout, |inner| inner.done.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        !inner.done.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room is given out again when the queue is drained, not before.
    #[test]
    fn g5_a_queue_nobody_drains_stays_bounded() {
        let queue = Arc::new(CompletionQueue::new(2));
        let mut first = queue.reserve(1, 100).unwrap();
        let second = queue.reserve(1, 100).unwrap();
        assert!(queue.reserve(1, 100).is_none());
        first.push(Tagged {
            tag: 7,
            index: 0,
            timestamp_delta_ms: 5,
        });
        let verdict = Verdict::Acked {
            base_offset: Some(9),
            log_append_time_ms: None,
        };
        first.keep(1, verdict);
        assert!(
            queue.reserve(1, 100).is_none(),
            "room is free when it is drained, not before"
        );
        let mut completions = Vec::new();
        assert!(queue.wait(Duration::ZERO));
        assert_eq!(queue.drain(&mut completions), 1);
        assert_eq!(completions[0].tag, 7);
        let Outcome::Acked(ack) = &completions[0].outcome else {
            panic!("acked")
        };
        assert_eq!((ack.offset, ack.timestamp_ms), (Some(9), 105));
        drop(second);
        assert_eq!(queue.drain(&mut completions), 0, "a batch without tags");
        assert!(queue.reserve(1, 100).is_some());
    }

    /// Each record of a divided batch has the offset its own part was given, and the room of both
    /// parts is free when they are drained.
    #[test]
    fn b3_tags_of_a_divided_batch_have_their_own_parts_offsets() {
        let queue = Arc::new(CompletionQueue::new(1));
        let mut first = queue.reserve(4, 100).unwrap();
        for index in [0, 2, 3, 5] {
            first.push(Tagged {
                tag: u64::from(index),
                index,
                timestamp_delta_ms: i64::from(index),
            });
        }
        let mut second = first.divide(3);
        let third = second.divide(1);
        for (tags, base_offset) in [(third, 70), (first, 50), (second, 60)] {
            let verdict = Verdict::Acked {
                base_offset: Some(base_offset),
                log_append_time_ms: None,
            };
            tags.keep(4, verdict);
        }
        let mut completions = Vec::new();
        assert_eq!(queue.drain(&mut completions), 4);
        completions.sort_by_key(|done| done.tag);
        let found = completions.iter().map(|done| match &done.outcome {
            Outcome::Acked(ack) => (done.tag, ack.offset, ack.timestamp_ms),
            other => panic!("{other:?}"),
        });
        let expected = [
            (0, Some(50), 100),
            (2, Some(52), 102),
            (3, Some(60), 103),
            (5, Some(71), 105),
        ];
        assert!(found.eq(expected), "{completions:?}");
        assert!(queue.reserve(4, 100).is_some());
    }

    /// Once a batch of 1,000 tags was drained, the tags of the next lie in two blocks one after the other,
    /// and those of a batch that uses a block again in no new one.
    #[test]
    fn tags_grow_to_the_length_of_a_batch_at_once() {
        let queue = Arc::new(CompletionQueue::new(4));
        let blocks = |tags: &mut Tags| {
            let mut capacities = Vec::new();
            for index in 0..1_000 {
                tags.push(Tagged {
                    tag: 0,
                    index,
                    timestamp_delta_ms: 0,
                });
                capacities.push(tags.tagged.as_ref().map(Vec::capacity));
            }
            capacities.dedup();
            capacities.len()
        };
        let mut first = queue.reserve(0, 0).unwrap();
        assert!(blocks(&mut first) > 2);
        drop(first);
        let mut completions = Vec::new();
        assert_eq!(queue.drain(&mut completions), 1_000);
        let (mut again, mut new) = (queue.reserve(0, 0).unwrap(), queue.reserve(0, 0).unwrap());
        assert_eq!((blocks(&mut again), blocks(&mut new)), (1, 2));
    }

    #[test]
    fn tags_of_a_lost_shard_come_back() {
        let queue = Arc::new(CompletionQueue::new(1));
        let mut tags = queue.reserve(0, 0).unwrap();
        tags.push(Tagged {
            tag: 7,
            index: 0,
            timestamp_delta_ms: 0,
        });
        drop(tags);
        let mut completions = Vec::new();
        assert_eq!(queue.drain(&mut completions), 1);
        assert!(matches!(&completions[0].outcome, Outcome::Unknown(f) if f.why == Why::ShardLost));
    }
}
