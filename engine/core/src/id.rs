//! The numbers that name things, each with a type of its own so that two cannot be swapped.

use core::fmt;

/// A partition of a topic, as Kafka counts them: from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(pub i32);

/// A broker's node id, as the cluster's metadata gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BrokerId(pub i32);

impl BrokerId {
    /// What tells brokers apart where 16 bits must do; two are hardly ever taken for one.
    #[must_use]
    pub fn tag(self) -> u16 {
        let [a, b, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([a, b])
    }
}

/// A lane: the place of one partition in one shard. Counted from 0 in the order of registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub u32);

impl LaneId {
    /// The lane's place in a table.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A topic's id ([KIP-516](https://cwiki.apache.org/confluence/display/KAFKA/KIP-516%3A+Topic+Identifiers)).
/// All zeros means that the broker told none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// Whether the broker told an id at all.
    #[must_use]
    pub fn is_known(self) -> bool {
        self.0 != [0; 16]
    }
}

/// A producer id with its epoch: who the broker takes us for
/// ([KIP-98](https://cwiki.apache.org/confluence/display/KAFKA/KIP-98+-+Exactly+Once+Delivery+and+Transactional+Messaging)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProducerIdentity {
    /// The id the cluster gave.
    pub id: i64,
    /// Counts the fresh starts under this id.
    pub epoch: i16,
}

/// The number of a record in its partition's sequence. Counts from 0 to 2³¹−1, then from 0 again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sequence(pub i32);

impl Sequence {
    /// The sequence `records` later.
    ///
    /// ```
    /// # use ringpost_core::id::Sequence;
    /// assert_eq!(Sequence(i32::MAX).after(1), Sequence(0));
    /// ```
    #[must_use]
    pub fn after(self, records: u32) -> Self {
        let sum = (i64::from(self.0) + i64::from(records)) & i64::from(i32::MAX);
        Self(i32::try_from(sum).unwrap_or(0))
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_wraps_inside_a_batch() {
        assert_eq!(Sequence(i32::MAX - 1).after(5), Sequence(3));
        assert_eq!(Sequence(0).after(0), Sequence(0));
    }
}
