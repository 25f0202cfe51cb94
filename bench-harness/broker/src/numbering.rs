//! Records that carry their own number, so that the *log's content* can be checked: sequence
//! numbers prove what the broker took, numbers in the values prove what the application sent.
//!
//! A numbered value begins with 16 bytes: stream (u64, big endian: say, one per sending thread) and
//! number (u64, big endian: 0, 1, 2 … within the stream, over all partitions). Then
//! - *lost* is a number below the highest seen that no partition holds. A record the client itself
//!   reported as not written counts here too: subtract those;
//! - *duplicated* is a number that was appended again;
//! - *reordered* is a number below one already in the same partition.
//!
//! Memory: one bit per number only where a group of 64 is incomplete.
//!
//! ```
//! let mut value = [0u8; 100];
//! ringpost_broker::numbering::stamp(&mut value, 3, 42);
//! assert_eq!(ringpost_broker::numbering::read(&value), Some((3, 42)));
//! ```

use std::collections::BTreeMap;

/// Bytes at the start of a numbered value.
pub const STAMP_LEN: usize = 16;

/// Most streams told apart; records of further ones count as corrupt.
const STREAMS_MAX: usize = 4096;

/// Furthest a stream may jump ahead (in groups of 64 numbers) before it counts as corrupt: bounds
/// the memory one record can cost.
const JUMP_GROUPS_MAX: u64 = 1 << 16;

/// Writes stream and number over the first [`STAMP_LEN`] bytes of a value; a shorter value is left
/// as it is.
pub fn stamp(value: &mut [u8], stream: u64, number: u64) {
    if let Some(head) = value.first_chunk_mut::<STAMP_LEN>() {
        head[..8].copy_from_slice(&stream.to_be_bytes());
        head[8..].copy_from_slice(&number.to_be_bytes());
    }
}

/// Reads (stream, number) back.
#[must_use]
pub fn read(value: &[u8]) -> Option<(u64, u64)> {
    let (stream, rest) = value.split_first_chunk::<8>()?;
    let (number, _) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*stream), u64::from_be_bytes(*number)))
}

/// What the numbers showed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) corrupt: u64,
}

/// The numbers of one stream seen so far, over all partitions.
#[derive(Debug, Default)]
struct Stream {
    /// Groups of 64 numbers that are not complete, up to the highest group touched.
    open: BTreeMap<u64, u64>,
    /// Groups below this one were touched or opened.
    groups: u64,
    highest: u64,
}

impl Stream {
    /// Marks the numbers of one group; returns how many were there already, `None` if the jump is
    /// absurd.
    fn mark(&mut self, group: u64, bits: u64) -> Option<u64> {
        if group >= self.groups {
            if group - self.groups > JUMP_GROUPS_MAX {
                return None;
            }
            for new in self.groups..=group {
                self.open.insert(new, 0);
            }
            self.groups = group + 1;
        }
        let Some(seen) = self.open.get_mut(&group) else {
            return Some(u64::from(bits.count_ones())); // the group was complete
        };
        let again = u64::from((*seen & bits).count_ones());
        *seen |= bits;
        if *seen == u64::MAX {
            self.open.remove(&group);
        }
        self.highest = self
            .highest
            .max(group * 64 + 63 - u64::from(bits.leading_zeros()));
        Some(again)
    }

    fn lost(&self) -> u64 {
        self.open
            .iter()
            .map(|(&group, &seen)| {
                let expected = (self.highest + 1).saturating_sub(group * 64).min(64);
                expected - u64::from(seen.count_ones()).min(expected)
            })
            .sum()
    }
}

/// The highest number of each stream in one partition.
pub(crate) type PartitionHigh = BTreeMap<u64, u64>;

/// All streams of a broker.
#[derive(Debug, Default)]
pub(crate) struct Numbering(BTreeMap<u64, Stream>);

impl Numbering {
    /// Takes the (stream, number) pairs of one appended batch, in the batch's order.
    pub(crate) fn take(&mut self, high: &mut PartitionHigh, numbers: &[(u64, u64)]) -> Tally {
        let mut tally = Tally::default();
        let mut rest = numbers;
        while let Some(&(stream, _)) = rest.first() {
            let len = rest.iter().take_while(|n| n.0 == stream).count();
            let (run, behind) = rest.split_at(len);
            rest = behind;
            if self.0.len() >= STREAMS_MAX && !self.0.contains_key(&stream) {
                tally.corrupt += u64::try_from(len).unwrap_or(u64::MAX);
                continue;
            }
            let seen = self.0.entry(stream).or_default();
            let mut previous = high.get(&stream).copied();
            let (mut group, mut bits) = (u64::MAX, 0u64);
            for &(_, number) in run {
                if previous.is_some_and(|p| number < p) {
                    tally.reordered += 1;
                } else {
                    previous = Some(number);
                }
                let bit = 1u64 << (number % 64);
                if number / 64 == group && bits & bit == 0 {
                    bits |= bit;
                    continue;
                }
                if bits != 0 {
                    note(seen.mark(group, bits), bits, &mut tally);
                }
                (group, bits) = (number / 64, bit);
            }
            if bits != 0 {
                note(seen.mark(group, bits), bits, &mut tally);
            }
            if let Some(previous) = previous {
                high.insert(stream, previous);
            }
        }
        tally
    }

    /// Numbers below the highest of their stream that no partition holds.
    pub(crate) fn lost(&self) -> u64 {
        self.0.values().map(Stream::lost).sum()
    }
}

fn note(again: Option<u64>, bits: u64, tally: &mut Tally) {
    match again {
        Some(n) => tally.duplicated += n,
        None => tally.corrupt += u64::from(bits.count_ones()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(n: &mut Numbering, high: &mut PartitionHigh, numbers: &[u64]) -> Tally {
        let pairs: Vec<_> = numbers.iter().map(|&x| (1, x)).collect();
        n.take(high, &pairs)
    }

    #[test]
    fn two_partitions_of_one_stream_without_a_fault() {
        let (mut n, mut a, mut b) = Default::default();
        let even: Vec<u64> = (0..10_000).step_by(2).collect();
        let odd: Vec<u64> = (1..10_000).step_by(2).collect();
        for (x, y) in even.chunks(333).zip(odd.chunks(333)) {
            assert_eq!(take(&mut n, &mut a, x), Tally::default());
            assert_eq!(take(&mut n, &mut b, y), Tally::default());
        }
        assert_eq!(n.lost(), 0);
        assert!(n.0[&1].open.len() <= 1, "complete groups take no memory");
    }

    #[test]
    fn each_planted_anomaly_is_found() {
        let (mut n, mut high): (Numbering, PartitionHigh) = Default::default();
        let all: Vec<u64> = (0..1000).filter(|x| *x != 500 && *x != 64).collect();
        assert_eq!(take(&mut n, &mut high, &all), Tally::default());
        assert_eq!(n.lost(), 2, "two are missing");
        let late = take(&mut n, &mut high, &[500]);
        assert_eq!(
            late,
            Tally {
                reordered: 1,
                ..Tally::default()
            }
        );
        assert_eq!(n.lost(), 1);
        let again = take(&mut n, &mut high, &[3, 999, 999]);
        assert_eq!(
            again,
            Tally {
                duplicated: 3,
                reordered: 1,
                corrupt: 0
            }
        );
        let absurd = take(&mut n, &mut high, &[u64::MAX]);
        assert_eq!(absurd.corrupt, 1);
        assert_eq!(n.lost(), 1);
    }
}
