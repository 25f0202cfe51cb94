//! What a broker is told once, when it is made: its cluster, its nodes, what it checks, what it
//! keeps, and every bound.
//!
//! Invariant: a [`BrokerConfig`] never changes while sessions use it; what a test changes along the
//! way (errors, leaders, topics) is in [`crate::Faults`] and in the methods of [`crate::Broker`].

use crate::versions::Versions;

/// One address of the cluster: what Metadata tells clients to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The node's id, as in Kafka's `node.id`.
    pub id: i32,
    /// The host name clients are told.
    pub host: String,
    /// The TCP port clients are told.
    pub port: u16,
}

/// How closely produced batches are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// What a real broker checks, and every record's structure: CRC, count, offsets in the batch,
    /// sequence numbers. Compressed batches are decompressed.
    #[default]
    Verify,
    /// Pure speed: the batch header is read and its sequence checked, the records are not touched.
    Ack,
}

/// What is kept of the batches, for Fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: offsets are counted, Fetch finds an empty log.
    Nothing,
    /// The last so many bytes of batches over all partitions; the oldest go first.
    Recent(usize),
    /// Everything, until memory ends: Fetch from offset 0 works.
    Everything,
}

impl Default for Keep {
    /// 64 MiB of recent batches.
    fn default() -> Self {
        Self::Recent(64 << 20)
    }
}

/// What a batch gets whose sequence numbers lie before the five remembered ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OldDuplicate {
    /// `OUT_OF_ORDER_SEQUENCE_NUMBER`, as Kafka 4.3 answers (`ProducerAppendInfo.java`).
    #[default]
    OutOfOrder,
    /// `DUPLICATE_SEQUENCE_NUMBER`: a client must take it as written, at an offset nobody knows.
    Duplicate,
}

/// Everything a [`crate::Broker`] is made from.
///
/// ```
/// use ringpost_broker::{Broker, BrokerConfig, Keep};
/// let broker = Broker::new(BrokerConfig { keep: Keep::Everything, ..BrokerConfig::default() });
/// assert_eq!(broker.report().records, 0);
/// ```
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Told to clients by Metadata from v2.
    pub cluster_id: String,
    /// The nodes of the cluster; the first is the controller. At least one.
    pub nodes: Vec<Node>,
    /// How closely batches are looked at.
    pub mode: Mode,
    /// What is kept for Fetch.
    pub keep: Keep,
    /// Partitions of a topic that is made because a client named it.
    pub default_partitions: i32,
    /// Whether naming an unknown topic in Metadata makes it (when the request allows it too).
    pub auto_create: bool,
    /// Which versions of which API are served. Narrow it to play an old broker.
    pub versions: Versions,
    /// Largest batch taken, as Kafka's `message.max.bytes`.
    pub message_bytes_max: usize,
    /// Largest request taken, as Kafka's `socket.request.max.bytes`; a longer one ends the connection.
    pub request_bytes_max: usize,
    /// Largest request that is not Produce.
    pub small_request_bytes_max: usize,
    /// Largest sum of uncompressed bytes of one compressed batch.
    pub decompressed_bytes_max: usize,
    /// How far ahead of the broker's clock a record may be stamped before it is refused with
    /// `INVALID_TIMESTAMP`, in ms; `None` takes all. Kafka's default is an hour.
    pub timestamp_ahead_ms_max: Option<i64>,
    /// What a batch gets whose sequence is older than the five remembered.
    pub old_duplicate: OldDuplicate,
    /// Every value begins with a stream and a number (see [`crate::numbering`]): lost, duplicated
    /// and reordered records are then counted from what is in the log. Needs [`Mode::Verify`].
    pub numbered: bool,
    /// Most topics; a client cannot make more.
    pub topics_max: usize,
    /// Most partitions of one topic.
    pub partitions_max: i32,
    /// Most producer ids remembered in one partition; the lowest id is forgotten first.
    pub producers_max: usize,
    /// Longest time a Fetch without data is held, in ms.
    pub fetch_wait_ms_max: i64,
    /// Where topic ids and producer ids start, so that two brokers can be told apart.
    pub seed: u64,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            cluster_id: "ringpost-broker".to_owned(),
            nodes: vec![Node {
                id: 1,
                host: "127.0.0.1".to_owned(),
                port: 9092,
            }],
            mode: Mode::default(),
            keep: Keep::default(),
            default_partitions: 6,
            auto_create: true,
            versions: Versions::default(),
            message_bytes_max: 1_048_588,
            request_bytes_max: 100 << 20,
            small_request_bytes_max: 1 << 20,
            decompressed_bytes_max: 64 << 20,
            timestamp_ahead_ms_max: Some(3_600_000),
            old_duplicate: OldDuplicate::default(),
            numbered: false,
            topics_max: 20_000,
            partitions_max: 100_000,
            producers_max: 20_000,
            fetch_wait_ms_max: 5_000,
            seed: 1,
        }
    }
}
