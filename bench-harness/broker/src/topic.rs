//! Topics and partitions: names, ids, leaders, logs.

use ringpost_codec::kafka::ErrorCode;

use crate::config::Replication;
use crate::numbering::PartitionHigh;
use crate::replicas::{Replica, Replicas};

/// A topic's id (KIP-516): never all zero.
pub type TopicId = [u8; 16];

/// Kafka's longest topic name.
const NAME_LEN_MAX: usize = 249;

/// Whether Kafka would let a topic be called that.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    (1..=NAME_LEN_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(legal)
}

/// The id of the `count`-th topic of a broker with this seed: spread like random ones, but the same
/// in every run.
pub(crate) fn nth_id(seed: u64, count: u64) -> TopicId {
    let half = |salt: u64| {
        // splitmix64
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ count.rotate_left(17) ^ salt;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let mut id = [0; 16];
    id[..8].copy_from_slice(&half(1).to_be_bytes());
    id[8..].copy_from_slice(&half(2).to_be_bytes());
    id[15] |= 1;
    id
}

/// One partition.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    /// −1 while nobody leads.
    pub(crate) leader: i32,
    pub(crate) leader_epoch: i32,
    /// The leader's copy.
    pub(crate) own: Replica,
    /// The other copies; `None` when there is only one.
    pub(crate) replicas: Option<Box<Replicas>>,
    pub(crate) numbers: PartitionHigh,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// The last Produce request that named it: a request may do so only once.
    pub(crate) named_by: u64,
}

/// What a topic is made from.
///
/// ```
/// use ringpost_broker::{Broker, BrokerConfig, TopicSpec};
/// let mut broker = Broker::new(BrokerConfig::default());
/// let spec = TopicSpec { partitions: 12, replication: Some(3), ..TopicSpec::default() };
/// broker.create_topic_with("orders", &spec)?; // one node: one copy
/// # Ok::<(), ringpost_broker::TopicError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// How many.
    pub partitions: i32,
    /// Copies of each; `None` is the cluster's default. More than there are nodes is as many as
    /// there are nodes.
    pub replication: Option<i32>,
    /// `min.insync.replicas`; `None` is the cluster's default.
    pub min_insync: Option<i32>,
    /// `unclean.leader.election.enable`; `None` is the cluster's default.
    pub unclean_election: Option<bool>,
}

impl Default for TopicSpec {
    fn default() -> Self {
        Self {
            partitions: 1,
            replication: None,
            min_insync: None,
            unclean_election: None,
        }
    }
}

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) spec: TopicSpec,
    pub(crate) partitions: Vec<Partition>,
}

impl Topic {
    /// A new topic, its partitions led by the nodes in turn, the next nodes holding the copies.
    pub(crate) fn new(name: &str, spec: &TopicSpec, usual: &Replication, nodes: &[i32]) -> Self {
        let copies = usize::try_from(spec.replication.unwrap_or(usual.factor)).unwrap_or(1);
        let copies = copies.clamp(1, nodes.len().max(1));
        let min_insync = spec.min_insync.unwrap_or(usual.min_insync);
        let unclean = spec.unclean_election.unwrap_or(usual.unclean_election);
        let places = (0..spec.partitions).zip((0..nodes.len()).cycle());
        let partitions = places
            .map(|(_, first)| {
                let in_turn = nodes.iter().cycle().skip(first).take(copies);
                let replicas = || Replicas::new(in_turn.copied().collect(), min_insync, unclean);
                Partition {
                    leader: nodes[first],
                    replicas: (copies > 1).then(|| Box::new(replicas())),
                    ..Partition::default()
                }
            })
            .collect();
        Self {
            name: name.to_owned(),
            spec: spec.clone(),
            partitions,
        }
    }

    /// The partition of that number.
    pub(crate) fn partition(&mut self, index: i32) -> Result<&mut Partition, ErrorCode> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.partitions.get_mut(index))
            .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legal_as_in_kafka() {
        for good in ["a", "orders.v1", "A_b-9", "...", &"x".repeat(249)] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\0", &"x".repeat(250)] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn ids_differ_and_repeat() {
        assert_eq!(nth_id(1, 1), nth_id(1, 1));
        assert_ne!(nth_id(1, 1), nth_id(1, 2));
        assert_ne!(nth_id(1, 1), nth_id(2, 1));
    }

    #[test]
    fn leaders_take_turns() {
        let spec = |replication| TopicSpec {
            partitions: 5,
            replication: Some(replication),
            ..TopicSpec::default()
        };
        let topic = Topic::new("t", &spec(1), &Replication::default(), &[1, 2]);
        let leaders: Vec<_> = topic.partitions.iter().map(|p| p.leader).collect();
        assert_eq!(leaders, [1, 2, 1, 2, 1]);
        assert!(topic.partitions.iter().all(|p| p.replicas.is_none()));
        let topic = Topic::new("t", &spec(2), &Replication::default(), &[1, 2, 3]);
        let copies: Vec<_> = topic.partitions.iter().flat_map(|p| &p.replicas).collect();
        let assigned: Vec<_> = copies.iter().map(|r| r.assigned.clone()).collect();
        assert_eq!(assigned, [[1, 2], [2, 3], [3, 1], [1, 2], [2, 3]]);
    }
}
