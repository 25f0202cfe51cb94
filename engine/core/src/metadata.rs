//! What is known of the cluster: brokers, topics, leaders. A snapshot; it never changes, a newer one
//! replaces it.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::id::{BrokerId, TopicId};

/// A snapshot of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// The cluster's own id, if it told one.
    pub cluster_id: Option<Arc<str>>,
    /// Its brokers, by id.
    pub brokers: BTreeMap<BrokerId, Broker>,
    /// The topics that are wanted, as far as the cluster knows them.
    pub topics: BTreeMap<Arc<str>, Arc<Topic>>,
}

/// A broker and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// The host name it advertises.
    pub host: Arc<str>,
    /// Its port.
    pub port: u16,
    /// What the name resolved to; empty while it did not.
    pub addresses: Vec<SocketAddr>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Its id, on brokers that have topic ids.
    pub id: TopicId,
    /// Its partitions, by number.
    pub partitions: Vec<Partition>,
}

/// A partition and who leads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Its leader, unless it has none just now.
    pub leader: Option<BrokerId>,
    /// Counts the changes of leader; −1 when the broker does not tell.
    pub leader_epoch: i32,
}

/// Whether news of epoch `new` should replace what is known at epoch `old`: not when it is older.
/// Brokers learn of changes at different times, and following an old one back and forth would send
/// records to the wrong broker ([KIP-320](https://cwiki.apache.org/confluence/display/KAFKA/KIP-320%3A+Allow+fetchers+to+detect+and+handle+log+truncation)).
#[must_use]
pub fn is_news(new: i32, old: i32) -> bool {
    new < 0 || old < 0 || new >= old
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An older epoch is no news; -1, of a broker that tells none, is.
    #[test]
    fn m9_an_older_leader_epoch_is_ignored() {
        assert!(is_news(5, 5));
        assert!(is_news(6, 5));
        assert!(!is_news(4, 5));
        assert!(is_news(-1, 5), "a broker that tells no epochs is believed");
        assert!(is_news(0, -1));
    }
}
