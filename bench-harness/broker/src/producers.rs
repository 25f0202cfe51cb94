//! What a partition remembers of its idempotent producers, and what it says to their next batch.
//!
//! Kafka's truth, as in `ProducerStateManager` and `ProducerAppendInfo`: per producer id one epoch
//! and the last five batches. A batch found among the five is answered with its old offset and not
//! written again; the next in sequence is written; anything else is refused.
//!
//! Sequence numbers count records from 0 to 2^31 - 1 and begin again at 0.

use std::collections::BTreeMap;

use ringpost_codec::kafka::ErrorCode;

use crate::config::{BrokerConfig, OldDuplicate, UnknownProducer};
use crate::examine::BatchFacts;

/// Batches remembered per producer: Kafka's `ProducerStateEntry.NUM_BATCHES_TO_RETAIN`.
const REMEMBERED: usize = 5;

/// The sequence number `by` records after `sequence`.
pub(crate) fn sequence_after(sequence: i32, by: i32) -> i32 {
    sequence.wrapping_add(by) & i32::MAX
}

/// How many records `to` lies after `from`, if it is the nearer way round.
fn distance_ahead(from: i32, to: i32) -> Option<i32> {
    let distance = to.wrapping_sub(from) & i32::MAX;
    (0 < distance && distance < i32::MAX / 2).then_some(distance)
}

/// What becomes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    /// Already there.
    Duplicate(Twin),
    Refuse(ErrorCode),
}

/// Where a batch lies that has come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Twin {
    pub(crate) base_offset: i64,
    /// The latest timestamp in it: Kafka puts it into the answer as the time of append.
    pub(crate) timestamp: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Remembered {
    first: i32,
    last: i32,
    at: Twin,
}

#[derive(Debug, Clone)]
struct Producer {
    epoch: i16,
    /// The latest timestamp in its last batch: what expiry goes by.
    last_timestamp: i64,
    /// Oldest first.
    window: Vec<Remembered>,
    /// The next sequence number in order.
    next: i32,
    /// First sequence of the furthest batch refused because something before it is missing.
    refused_ahead: Option<i32>,
}

/// The producers of one partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Producers(BTreeMap<i64, Producer>);

impl Producers {
    /// Judges a batch; nothing but the trace of a hole is changed.
    pub(crate) fn judge(&mut self, batch: &BatchFacts, config: &BrokerConfig) -> Verdict {
        if batch.producer_id < 0 {
            return Verdict::Append;
        }
        let Some(known) = self.0.get_mut(&batch.producer_id) else {
            return match config.unknown_producer {
                UnknownProducer::Refuse if batch.base_sequence != 0 => {
                    Verdict::Refuse(ErrorCode::UNKNOWN_PRODUCER_ID)
                }
                _ => Verdict::Append,
            };
        };
        if batch.producer_epoch < known.epoch {
            return Verdict::Refuse(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        if batch.producer_epoch > known.epoch {
            return if batch.base_sequence == 0 {
                Verdict::Append
            } else {
                Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)
            };
        }
        let last = sequence_after(batch.base_sequence, batch.records - 1);
        let twin = known
            .window
            .iter()
            .find(|b| b.first == batch.base_sequence && b.last == last);
        if let Some(twin) = twin {
            return Verdict::Duplicate(twin.at);
        }
        if batch.base_sequence == known.next {
            return Verdict::Append;
        }
        if distance_ahead(known.next, batch.base_sequence).is_some() {
            let furthest = known.refused_ahead.unwrap_or(known.next);
            if distance_ahead(furthest, batch.base_sequence).is_some() {
                known.refused_ahead = Some(batch.base_sequence);
            }
        } else if config.old_duplicate == OldDuplicate::Duplicate {
            return Verdict::Refuse(ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
        }
        Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)
    }

    /// Remembers a batch that was judged [`Verdict::Append`] and got `base_offset`.
    pub(crate) fn remember(&mut self, batch: &BatchFacts, base_offset: i64, producers_max: usize) {
        if batch.producer_id < 0 {
            return;
        }
        if self.0.len() >= producers_max && !self.0.contains_key(&batch.producer_id) {
            // Ids rise, so the lowest is the one most likely gone.
            self.0.pop_first();
        }
        let known = self.0.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            last_timestamp: batch.max_timestamp,
            window: Vec::with_capacity(REMEMBERED),
            next: 0,
            refused_ahead: None,
        });
        if known.epoch != batch.producer_epoch {
            known.epoch = batch.producer_epoch;
            known.window.clear();
            known.refused_ahead = None;
        }
        if known.window.len() == REMEMBERED {
            known.window.remove(0);
        }
        let last = sequence_after(batch.base_sequence, batch.records - 1);
        known.window.push(Remembered {
            first: batch.base_sequence,
            last,
            at: Twin {
                base_offset,
                timestamp: batch.max_timestamp,
            },
        });
        known.next = sequence_after(last, 1);
        known.last_timestamp = batch.max_timestamp;
        if known
            .refused_ahead
            .is_some_and(|hole| distance_ahead(known.next, hole).is_none())
        {
            known.refused_ahead = None;
        }
    }

    /// Forgets the producers whose last batch is stamped `expiry_ms` or more before `now_ms`.
    pub(crate) fn expire(&mut self, now_ms: i64, expiry_ms: i64) {
        self.0
            .retain(|_, p| now_ms.saturating_sub(p.last_timestamp) < expiry_ms);
    }

    /// Records that are missing before batches this partition had to refuse, and still are.
    pub(crate) fn missing(&self) -> u64 {
        self.0
            .values()
            .filter_map(|p| distance_ahead(p.next, p.refused_ahead?))
            .map(|n| u64::from(n.unsigned_abs()))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(epoch: i16, base_sequence: i32, records: i32) -> BatchFacts {
        BatchFacts {
            producer_id: 7,
            producer_epoch: epoch,
            base_sequence,
            records,
            ..BatchFacts::default()
        }
    }

    fn duplicate(base_offset: i64) -> Verdict {
        Verdict::Duplicate(Twin {
            base_offset,
            timestamp: 0,
        })
    }

    fn offer(p: &mut Producers, b: &BatchFacts, offset: i64) -> Verdict {
        let verdict = p.judge(b, &BrokerConfig::default());
        if verdict == Verdict::Append {
            p.remember(b, offset, 100);
        }
        verdict
    }

    #[test]
    fn the_last_five_batches_are_known_again_and_older_ones_are_not() {
        let mut p = Producers::default();
        for i in 0..6 {
            assert_eq!(
                offer(&mut p, &batch(0, i * 10, 10), i64::from(i) * 10),
                Verdict::Append
            );
        }
        for i in 1..6 {
            let verdict = offer(&mut p, &batch(0, i * 10, 10), 999);
            assert_eq!(verdict, duplicate(i64::from(i) * 10));
        }
        let old = batch(0, 0, 10);
        let refused = Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(p.judge(&old, &BrokerConfig::default()), refused);
        let refused = Verdict::Refuse(ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
        let old_broker = BrokerConfig {
            old_duplicate: OldDuplicate::Duplicate,
            ..BrokerConfig::default()
        };
        assert_eq!(p.judge(&old, &old_broker), refused);
        // The same start with another count is no duplicate.
        let refused = Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(offer(&mut p, &batch(0, 50, 9), 0), refused);
        assert_eq!(
            p.missing(),
            0,
            "batches behind the next sequence leave no hole"
        );
    }

    #[test]
    fn a_hole_is_missing_until_it_is_filled_or_the_epoch_moves_on() {
        let mut p = Producers::default();
        let refused = Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(offer(&mut p, &batch(0, 0, 10), 0), Verdict::Append);
        assert_eq!(offer(&mut p, &batch(0, 20, 10), 0), refused);
        assert_eq!(p.missing(), 10);
        assert_eq!(offer(&mut p, &batch(0, 30, 10), 0), refused);
        assert_eq!(p.missing(), 20);
        assert_eq!(offer(&mut p, &batch(0, 20, 10), 0), refused);
        assert_eq!(p.missing(), 20);
        assert_eq!(offer(&mut p, &batch(0, 10, 10), 10), Verdict::Append);
        assert_eq!(p.missing(), 10);
        assert_eq!(offer(&mut p, &batch(0, 20, 10), 20), Verdict::Append);
        assert_eq!(p.missing(), 0);
        assert_eq!(offer(&mut p, &batch(0, 40, 10), 0), refused);
        assert_eq!(p.missing(), 10);
        assert_eq!(offer(&mut p, &batch(1, 0, 10), 30), Verdict::Append);
        assert_eq!(p.missing(), 0);
    }

    #[test]
    fn epochs_only_rise_and_begin_at_sequence_zero() {
        let mut p = Producers::default();
        assert_eq!(
            offer(&mut p, &batch(3, 77, 1), 0),
            Verdict::Append,
            "unknown: any sequence"
        );
        let fenced = Verdict::Refuse(ErrorCode::INVALID_PRODUCER_EPOCH);
        assert_eq!(offer(&mut p, &batch(2, 78, 1), 0), fenced);
        let refused = Verdict::Refuse(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(offer(&mut p, &batch(4, 78, 1), 0), refused);
        assert_eq!(offer(&mut p, &batch(4, 0, 1), 1), Verdict::Append);
        assert_eq!(offer(&mut p, &batch(3, 78, 1), 0), fenced);
    }

    #[test]
    fn sequences_wrap_to_zero_after_the_largest_i32() {
        let mut p = Producers::default();
        assert_eq!(
            offer(&mut p, &batch(0, i32::MAX - 4, 3), 0),
            Verdict::Append
        );
        // MAX-1, MAX, 0, 1
        let across = batch(0, i32::MAX - 1, 4);
        assert_eq!(offer(&mut p, &across, 3), Verdict::Append);
        assert_eq!(offer(&mut p, &across, 9), duplicate(3));
        assert_eq!(offer(&mut p, &batch(0, 2, 1), 7), Verdict::Append);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
    }

    #[test]
    fn forgets_the_lowest_producer_id_when_there_are_too_many() {
        let mut p = Producers::default();
        for id in 0..4 {
            let b = BatchFacts {
                producer_id: id,
                ..batch(0, 0, 1)
            };
            p.remember(&b, 0, 3);
        }
        assert_eq!(p.0.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    }
}
