//! Which partition a record goes to.
//!
//! A record with an explicit partition goes there. A record with a key goes where the key's hash
//! says: by default murmur2 exactly as Kafka's Java client hashes, so that a key written by either
//! lands in the same partition. A record without a key goes where the sticky choice stands: one
//! partition for about a batch's worth of bytes, then another
//! ([KIP-794](https://cwiki.apache.org/confluence/display/KAFKA/KIP-794%3A+Strictly+Uniform+Sticky+Partitioner)).
//!
//! ```
//! use ringpost_core::partition::{murmur2_partition, consistent_partition};
//! use ringpost_core::id::PartitionId;
//! // What the Java client and librdkafka give for these keys.
//! assert_eq!(murmur2_partition(b"abc", 100), PartitionId(7));
//! assert_eq!(consistent_partition(b"123456789", 1000), PartitionId(262));
//! ```

use crate::health::{Routes, Standing, View, cheaper_elsewhere, choose};
use crate::id::PartitionId;
use crate::random::Random;

/// How records without an explicit partition are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Partitioner {
    /// Keys by murmur2 as Kafka's Java client, records without a key sticky. Java: the default
    /// partitioner; librdkafka: `murmur2_random`.
    #[default]
    Murmur2,
    /// Keys by CRC-32, records without a key sticky. librdkafka: `consistent_random`, its default.
    Consistent,
    /// Keys ignored; partitions in turn, one record each. Java: `RoundRobinPartitioner`.
    RoundRobin,
    /// Keys ignored; sticky. Java: `partitioner.ignore.keys=true`.
    Sticky,
}

/// 32-bit murmur2 with the seed Kafka uses, over the whole key.
#[must_use]
pub fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Java's int length; keys of 2 GiB and more cannot be sent anyway.
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut h = SEED ^ length;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The partition Kafka's Java client chooses for a key: `toPositive(murmur2(key)) % partitions`.
#[must_use]
pub fn murmur2_partition(key: &[u8], partitions: u32) -> PartitionId {
    remainder(murmur2(key) & 0x7fff_ffff, partitions)
}

/// The partition librdkafka's `consistent` partitioner chooses for a key: `crc32(key) % partitions`.
#[must_use]
pub fn consistent_partition(key: &[u8], partitions: u32) -> PartitionId {
    remainder(crc32fast::hash(key), partitions)
}

fn remainder(hash: u32, partitions: u32) -> PartitionId {
    let partition = hash.checked_rem(partitions).unwrap_or(0);
    PartitionId(i32::try_from(partition).unwrap_or(0))
}

/// The sticky choice of one sending handle or thread.
#[derive(Debug, Clone)]
pub struct Sticky {
    /// [`Self::NONE`], or one that is spent, is above all there are.
    partition: u32,
    /// How it stood when it was last looked at: as long as that is the same there is nothing to
    /// compare.
    seen: View,
    /// How it stood when it was chosen.
    standing: Standing,
    bytes_since_switch: usize,
    random: Random,
}

impl Sticky {
    /// No choice yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            partition: Self::NONE,
            seen: View::UNTOLD,
            standing: Standing::Good,
            bytes_since_switch: 0,
            random: Random::new(seed),
        }
    }

    /// The partition for the next record without a key: where the choice stands, or a new one when
    /// there is none, or when it stands worse than when it was chosen or another is far cheaper.
    #[inline]
    pub fn choose(&mut self, routes: &impl Routes) -> u32 {
        let partition = self.partition;
        if partition < routes.count() {
            let view = routes.view(partition);
            if view == self.seen || self.is_still_good(routes, partition, view) {
                return partition;
            }
        }
        self.choose_anew(routes)
    }

    /// Apart, because it is only asked when something changed: every tick at most, as what the choice
    /// costs is measured anew. [`Sticky::choose`] is for every record.
    #[cold]
    fn is_still_good(&mut self, routes: &impl Routes, partition: u32, view: View) -> bool {
        self.seen = view;
        view.standing() <= self.standing
            && !cheaper_elsewhere(&mut self.random, routes, partition, Self::DEARER)
    }

    #[cold]
    fn choose_anew(&mut self, routes: &impl Routes) -> u32 {
        let left = (self.partition != Self::NONE).then_some(self.partition & !Self::SPENT);
        let chosen = choose(&mut self.random, routes, left);
        let view = routes.view(chosen);
        self.partition = chosen;
        self.seen = view;
        self.standing = view.standing();
        self.bytes_since_switch = 0;
        chosen
    }

    /// Counts a record that went there. The choice ends when a batch's worth of bytes went there
    /// and the batch was cut, and at twice that regardless.
    #[inline]
    pub fn went(&mut self, bytes: usize, batch_was_cut: bool, batch_bytes_max: usize) {
        self.bytes_since_switch += bytes;
        if self.bytes_since_switch >= batch_bytes_max
            && (batch_was_cut || self.bytes_since_switch >= 2 * batch_bytes_max)
        {
            self.release();
        }
    }

    /// Ends the choice; the next record chooses anew, elsewhere if there is an elsewhere.
    pub fn release(&mut self) {
        if self.partition != Self::NONE {
            // Kept as the place not to choose: an out-of-range wish forces a new draw.
            self.bytes_since_switch = 0;
            self.partition |= Self::SPENT;
        }
    }

    /// No choice.
    const NONE: u32 = u32::MAX;

    /// Set when the choice is over. Partitions are numbered by `i32`, so none has it, and one that is
    /// spent is not [`Self::NONE`].
    const SPENT: u32 = 1 << 31;

    /// A choice is left at so many times the cost of another. A choice adds two batches at most to what a
    /// lane has waiting, each as dear as the first, so more than that is the broker's doing.
    const DEARER: u32 = 4;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `org.apache.kafka.common.utils.Utils.murmur2`, from Kafka's own unit test.
    #[test]
    fn b7_murmur2_golden_values() {
        let golden: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in golden {
            assert_eq!(murmur2(key).cast_signed(), hash, "key {key:?}");
        }
    }

    /// The check value of CRC-32, and the partition librdkafka's "consistent" makes of it.
    #[test]
    fn b7_crc32_golden_value() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(consistent_partition(b"123456789", 1000), PartitionId(262));
    }

    /// Two lanes at two brokers, and what they cost.
    struct Costs([u32; 2]);

    impl Routes for Costs {
        fn count(&self) -> u32 {
            2
        }
        fn view(&self, partition: u32) -> View {
            let broker = u16::try_from(partition).expect("small");
            View::new(Standing::Good, 100, broker, self.0[partition as usize])
        }
        fn is_calm(&self) -> bool {
            true
        }
        fn panic_percent(&self) -> u8 {
            34
        }
    }

    /// A choice is left once it costs over four times as much as another, and not before; and not when
    /// all became dear.
    #[test]
    fn v3_a_choice_that_became_dear_is_left() {
        let mut sticky = Sticky::new(5);
        let chosen = sticky.choose(&Costs([2_000; 2]));
        let mut costs = [2_000; 2];
        costs[chosen as usize] = 8_000;
        assert_eq!(sticky.choose(&Costs(costs)), chosen);
        assert_eq!(sticky.choose(&Costs([20_000; 2])), chosen);
        costs[chosen as usize] = 8_001;
        assert_eq!(sticky.choose(&Costs(costs)), 1 - chosen);
    }

    /// So many lanes, and those of them that have no leader.
    struct Lanes<'a>(u32, &'a [u32]);

    impl Routes for Lanes<'_> {
        fn count(&self) -> u32 {
            self.0
        }
        fn view(&self, partition: u32) -> View {
            let standing = match self.1.contains(&partition) {
                true => Standing::NoLeader,
                false => Standing::Good,
            };
            View::new(standing, 100, 0, 0)
        }
        fn is_calm(&self) -> bool {
            self.1.is_empty()
        }
        fn panic_percent(&self) -> u8 {
            34
        }
    }

    /// The same partition until a batch's bytes went there and the batch was cut, then another.
    #[test]
    fn b7_sticky_stays_for_a_batch_and_then_moves() {
        let mut sticky = Sticky::new(1);
        let first = sticky.choose(&Lanes(6, &[]));
        for _ in 0..10 {
            assert_eq!(sticky.choose(&Lanes(6, &[])), first);
            sticky.went(10, false, 100);
        }
        // 100 bytes went there, but the batch is still open.
        assert_eq!(sticky.choose(&Lanes(6, &[])), first);
        sticky.went(10, true, 100);
        assert_ne!(sticky.choose(&Lanes(6, &[])), first);
    }

    /// At twice a batch's bytes another partition, and not a byte before.
    #[test]
    fn b7_sticky_leaves_at_twice_the_batch_even_if_never_cut() {
        let mut sticky = Sticky::new(1);
        let first = sticky.choose(&Lanes(2, &[]));
        sticky.went(199, false, 100);
        assert_eq!(sticky.choose(&Lanes(2, &[])), first);
        sticky.went(1, false, 100);
        assert_ne!(sticky.choose(&Lanes(2, &[])), first);
    }

    /// An unusable partition is left at once; when none is usable any is taken.
    #[test]
    fn b7_sticky_leaves_an_unusable_partition_at_once_and_takes_any_when_all_are() {
        let mut sticky = Sticky::new(7);
        let first = sticky.choose(&Lanes(3, &[]));
        let second = sticky.choose(&Lanes(3, &[first]));
        assert_ne!(first, second);
        assert!(sticky.choose(&Lanes(3, &[0, 1, 2])) < 3);
        assert_eq!(Sticky::new(3).choose(&Lanes(1, &[])), 0);
    }

    /// Pearson's χ² over 6 partitions, 6,000 choices: 20.5 is the 0.1 % point of 5 degrees of
    /// freedom; the seed is fixed, so the test is too.
    #[test]
    fn b7_sticky_spreads_evenly() {
        let mut sticky = Sticky::new(42);
        let mut counts = [0_u32; 6];
        for _ in 0..6000 {
            counts[sticky.choose(&Lanes(6, &[])) as usize] += 1;
            sticky.went(100, true, 100);
        }
        let chi: f64 = counts
            .iter()
            .map(|c| (f64::from(*c) - 1000.0).powi(2) / 1000.0)
            .sum();
        assert!(chi < 20.5, "{counts:?}: chi square {chi}");
    }
}
