//! One partition's log: offsets for everything, bytes for what is kept.
//!
//! Invariants: `start <= next`; the kept batches are contiguous from `start` to `next`; with
//! nothing kept `start == next`.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::examine::BatchFacts;

/// A batch as the client sent it; its offset and leader epoch are written over when it is read.
/// (Both lie outside the CRC.)
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) base_offset: i64,
    pub(crate) leader_epoch: i32,
    /// Tells this append from every other of the cluster: two logs are alike as far as these are.
    pub(crate) serial: u64,
    pub(crate) facts: BatchFacts,
    /// Empty when the bytes are not kept.
    pub(crate) bytes: Bytes,
}

impl Stored {
    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.facts.records) - 1
    }

    /// Appends the batch as it lies in a log: with its offset and leader epoch.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&self.bytes);
        let header = &mut out[at..];
        if header.len() >= LEADER_EPOCH_AT.end {
            header[..8].copy_from_slice(&self.base_offset.to_be_bytes());
            header[LEADER_EPOCH_AT].copy_from_slice(&self.leader_epoch.to_be_bytes());
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    start: i64,
    next: i64,
    batches: VecDeque<Stored>,
}

/// Where a batch's own header has the partition leader epoch.
const LEADER_EPOCH_AT: std::ops::Range<usize> = 12..16;

impl Log {
    /// First offset that can be read.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// The offset the next record gets: also the high watermark.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// Counts records that are not kept. Returns the first one's offset.
    pub(crate) fn count(&mut self, records: i32) -> i64 {
        let base_offset = self.next;
        self.next += i64::from(records);
        self.batches.clear();
        self.start = self.next;
        base_offset
    }

    /// Gives a batch its offsets and keeps it. Returns the first offset.
    pub(crate) fn append(
        &mut self,
        facts: BatchFacts,
        leader_epoch: i32,
        serial: u64,
        bytes: Bytes,
    ) -> i64 {
        let base_offset = self.next;
        self.next += i64::from(facts.records);
        self.batches.push_back(Stored {
            base_offset,
            leader_epoch,
            serial,
            facts,
            bytes,
        });
        base_offset
    }

    /// Takes a batch over from another log, at its offset there.
    pub(crate) fn copy(&mut self, batch: &Stored) {
        self.next = batch.last_offset() + 1;
        self.batches.push_back(batch.clone());
    }

    /// Begins anew, empty, at `offset`.
    pub(crate) fn restart(&mut self, offset: i64) {
        self.batches.clear();
        (self.start, self.next) = (offset, offset);
    }

    /// The batches kept, oldest first.
    pub(crate) fn batches(&self) -> impl DoubleEndedIterator<Item = &Stored> {
        self.batches.iter()
    }

    /// The batches kept that hold `offset` and what is behind it.
    pub(crate) fn from(&self, offset: i64) -> impl Iterator<Item = &Stored> {
        let first = self.batches.partition_point(|b| b.last_offset() < offset);
        self.batches.range(first..)
    }

    /// Where this log and the other cease to be alike: the offset behind the last batch they share.
    pub(crate) fn alike_until(&self, other: &Self) -> i64 {
        for batch in self.batches.iter().rev() {
            let at = other
                .batches
                .partition_point(|b| b.base_offset < batch.base_offset);
            if other
                .batches
                .get(at)
                .is_some_and(|b| b.serial == batch.serial)
            {
                return batch.last_offset() + 1;
            }
        }
        // What is no longer kept here was shared.
        self.start.max(other.start).min(self.next)
    }

    /// Cuts off everything from `offset` on. Returns how many records went.
    pub(crate) fn truncate(&mut self, offset: i64) -> i64 {
        let kept = self.batches.partition_point(|b| b.last_offset() < offset);
        self.batches.truncate(kept);
        let had = self.next;
        self.next = self.next.min(offset).max(self.start);
        had - self.next
    }

    /// Lets the oldest kept batch go.
    pub(crate) fn drop_oldest(&mut self) -> Option<Stored> {
        let oldest = self.batches.pop_front();
        self.start = self.batches.front().map_or(self.next, |b| b.base_offset);
        oldest
    }

    /// Moves the start up to `offset` (DeleteRecords): batches that lie wholly before it go. Returns
    /// them.
    pub(crate) fn delete_before(&mut self, offset: i64) -> Vec<Stored> {
        let gone = self.batches.partition_point(|b| b.last_offset() < offset);
        let gone = self.batches.drain(..gone).collect();
        self.start = self.start.max(offset.min(self.next));
        gone
    }

    /// Whole batches from the one that holds `offset` on, below `until`, up to `bytes_max`, at least
    /// one when `at_least_one`; as Kafka's Fetch, the first may begin before `offset`.
    pub(crate) fn read(
        &self,
        offset: i64,
        until: i64,
        bytes_max: usize,
        at_least_one: bool,
        out: &mut Vec<u8>,
    ) {
        let begin = out.len();
        for batch in self.from(offset).take_while(|b| b.last_offset() < until) {
            let taken = out.len() - begin;
            let fits = taken + batch.bytes.len() <= bytes_max;
            let first_anyway = taken == 0 && at_least_one;
            if !(fits || first_anyway) {
                break;
            }
            batch.write(out);
            if !fits {
                break;
            }
        }
    }

    /// Offset and largest timestamp of the first kept batch with a record stamped `timestamp` or
    /// later. (Real brokers look inside the batch; the model does not.)
    pub(crate) fn at_or_after(&self, timestamp: i64) -> Option<(i64, i64)> {
        let batch = self
            .batches
            .iter()
            .find(|b| b.facts.max_timestamp >= timestamp)?;
        Some((batch.base_offset, batch.facts.max_timestamp))
    }

    /// Offset and timestamp of the latest stamped batch kept.
    pub(crate) fn latest_stamp(&self) -> Option<(i64, i64)> {
        let batch = self.batches.iter().max_by_key(|b| b.facts.max_timestamp)?;
        Some((batch.last_offset(), batch.facts.max_timestamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Log {
        let mut log = Log::default();
        for (records, fill) in [(3, 1u8), (2, 2), (4, 3)] {
            let bytes = Bytes::from(vec![fill; 100]);
            let facts = BatchFacts {
                records,
                max_timestamp: i64::from(fill) * 1000,
                ..BatchFacts::default()
            };
            log.append(facts, 5, u64::from(fill), bytes);
        }
        log
    }

    #[test]
    fn reads_whole_batches_with_their_offsets() {
        let log = filled();
        assert_eq!((log.start(), log.next()), (0, 9));
        let mut out = Vec::new();
        log.read(4, 9, 1000, false, &mut out);
        assert_eq!(
            out.len(),
            200,
            "the batch that holds 4, and the one behind it"
        );
        assert_eq!(out[..8], 3i64.to_be_bytes());
        assert_eq!(out[12..16], 5i32.to_be_bytes());
        assert_eq!(out[100..108], 5i64.to_be_bytes());
        assert_eq!(out[99], 2);
    }

    #[test]
    fn keeps_to_the_limit_but_can_be_told_to_give_one() {
        let log = filled();
        let mut out = Vec::new();
        log.read(0, 9, 250, false, &mut out);
        assert_eq!(out.len(), 200);
        out.clear();
        log.read(0, 9, 50, false, &mut out);
        assert_eq!(out.len(), 0);
        log.read(0, 9, 50, true, &mut out);
        assert_eq!(out.len(), 100);
        out.clear();
        log.read(9, 9, 1000, true, &mut out);
        assert_eq!(out.len(), 0, "nothing at the end");
    }

    #[test]
    fn the_oldest_batch_goes_first_and_the_start_moves() {
        let mut log = filled();
        log.drop_oldest();
        assert_eq!((log.start(), log.next()), (3, 9));
        log.drop_oldest();
        log.drop_oldest();
        log.drop_oldest();
        assert_eq!((log.start(), log.next()), (9, 9));
    }

    #[test]
    fn two_logs_are_alike_up_to_the_last_append_they_share() {
        let leader = filled();
        let mut follower = filled();
        let more = |records| BatchFacts {
            records,
            ..BatchFacts::default()
        };
        assert_eq!(follower.alike_until(&leader), 9);
        follower.append(more(2), 6, 77, Bytes::new());
        follower.append(more(3), 6, 78, Bytes::new());
        assert_eq!(follower.alike_until(&leader), 9);
        assert_eq!(leader.alike_until(&follower), 9);
        assert_eq!(follower.truncate(9), 5);
        assert_eq!(follower.next(), 9);
        follower.truncate(5);
        follower.append(more(4), 6, 79, Bytes::new());
        assert_eq!(
            follower.alike_until(&leader),
            5,
            "the same offsets, another append"
        );
    }

    #[test]
    fn finds_by_timestamp() {
        let log = filled();
        assert_eq!(log.at_or_after(1500), Some((3, 2000)));
        assert_eq!(log.at_or_after(3001), None);
        assert_eq!(log.latest_stamp(), Some((8, 3000)));
    }
}
