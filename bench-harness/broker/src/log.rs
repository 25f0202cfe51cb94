//! One partition's log: offsets for everything, bytes for what is kept.
//!
//! Invariants: `start <= next`; the kept batches are contiguous from `start` to `next`; with
//! nothing kept `start == next`.

use std::collections::VecDeque;

use bytes::Bytes;

/// A batch as the client sent it; its offset and leader epoch are written over when it is read.
/// (Both lie outside the CRC.)
#[derive(Debug)]
struct Stored {
    base_offset: i64,
    last_offset: i64,
    max_timestamp: i64,
    leader_epoch: i32,
    bytes: Bytes,
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

    /// Gives `records` their offsets; keeps `bytes` if there are any. Returns the first offset.
    pub(crate) fn append(
        &mut self,
        records: i32,
        max_timestamp: i64,
        leader_epoch: i32,
        bytes: Option<Bytes>,
    ) -> i64 {
        let base_offset = self.next;
        self.next += i64::from(records);
        match bytes {
            Some(bytes) => self.batches.push_back(Stored {
                base_offset,
                last_offset: self.next - 1,
                max_timestamp,
                leader_epoch,
                bytes,
            }),
            None => {
                self.batches.clear();
                self.start = self.next;
            }
        }
        base_offset
    }

    /// Lets the oldest kept batch go.
    pub(crate) fn drop_oldest(&mut self) {
        self.batches.pop_front();
        self.start = self.batches.front().map_or(self.next, |b| b.base_offset);
    }

    /// Whole batches from the one that holds `offset` on, up to `bytes_max`, at least one when
    /// `at_least_one`; as Kafka's Fetch, the first may begin before `offset`.
    pub(crate) fn read(
        &self,
        offset: i64,
        bytes_max: usize,
        at_least_one: bool,
        out: &mut Vec<u8>,
    ) {
        let first = self.batches.partition_point(|b| b.last_offset < offset);
        let begin = out.len();
        for batch in self.batches.range(first..) {
            let taken = out.len() - begin;
            let fits = taken + batch.bytes.len() <= bytes_max;
            let first_anyway = taken == 0 && at_least_one;
            if !(fits || first_anyway) {
                break;
            }
            let at = out.len();
            out.extend_from_slice(&batch.bytes);
            let header = &mut out[at..];
            if header.len() >= LEADER_EPOCH_AT.end {
                header[..8].copy_from_slice(&batch.base_offset.to_be_bytes());
                header[LEADER_EPOCH_AT].copy_from_slice(&batch.leader_epoch.to_be_bytes());
            }
            if !fits {
                break;
            }
        }
    }

    /// Offset and largest timestamp of the first kept batch with a record stamped `timestamp` or
    /// later. (Real brokers look inside the batch; the model does not.)
    pub(crate) fn at_or_after(&self, timestamp: i64) -> Option<(i64, i64)> {
        let batch = self.batches.iter().find(|b| b.max_timestamp >= timestamp)?;
        Some((batch.base_offset, batch.max_timestamp))
    }

    /// Offset and timestamp of the latest stamped batch kept.
    pub(crate) fn latest_stamp(&self) -> Option<(i64, i64)> {
        let batch = self.batches.iter().max_by_key(|b| b.max_timestamp)?;
        Some((batch.last_offset, batch.max_timestamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Log {
        let mut log = Log::default();
        for (records, fill) in [(3, 1u8), (2, 2), (4, 3)] {
            let bytes = Bytes::from(vec![fill; 100]);
            log.append(records, i64::from(fill) * 1000, 5, Some(bytes));
        }
        log
    }

    #[test]
    fn reads_whole_batches_with_their_offsets() {
        let log = filled();
        assert_eq!((log.start(), log.next()), (0, 9));
        let mut out = Vec::new();
        log.read(4, 1000, false, &mut out);
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
        log.read(0, 250, false, &mut out);
        assert_eq!(out.len(), 200);
        out.clear();
        log.read(0, 50, false, &mut out);
        assert_eq!(out.len(), 0);
        log.read(0, 50, true, &mut out);
        assert_eq!(out.len(), 100);
        out.clear();
        log.read(9, 1000, true, &mut out);
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
    fn finds_by_timestamp() {
        let log = filled();
        assert_eq!(log.at_or_after(1500), Some((3, 2000)));
        assert_eq!(log.at_or_after(3001), None);
        assert_eq!(log.latest_stamp(), Some((8, 3000)));
    }
}
