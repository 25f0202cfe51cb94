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

/// What a batch gets of whose producer a partition knows nothing, and whose sequence is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownProducer {
    /// It is appended, as Kafka does since 2.5 (KIP-360).
    #[default]
    Accept,
    /// `UNKNOWN_PRODUCER_ID`, as older brokers answer.
    Refuse,
}

/// How copies of partitions are kept, and how the controller watches nodes: Kafka's settings under
/// Kafka's defaults, but for delays, which are 0.
///
/// All times are ms on the clock that is handed to [`crate::Broker::tick`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    /// Copies of each partition of a topic that is made without saying how many
    /// (`default.replication.factor`). More than there are nodes is as many as there are nodes.
    pub factor: i32,
    /// `min.insync.replicas` of a topic that is made without saying so.
    pub min_insync: i32,
    /// Whether a replica that is not in sync may become leader when no other can
    /// (`unclean.leader.election.enable`).
    pub unclean_election: bool,
    /// From an append at the leader until a follower has it and the leader knows.
    pub fetch_delay_ms: i64,
    /// How long a follower may lag before it is put out of the in-sync set
    /// (`replica.lag.time.max.ms`).
    pub lag_ms_max: i64,
    /// How long a node may be silent before the controller fences it (`broker.session.timeout.ms`).
    pub session_ms: i64,
    /// From a change (leaders, in-sync sets, topics) until nodes know of it, and answer by it.
    pub metadata_delay_ms: i64,
    /// Whether the high watermark rises while fewer replicas than `min_insync` are in sync, as in
    /// Kafka before 3.7. Then acks=all that was waiting is answered
    /// `NOT_ENOUGH_REPLICAS_AFTER_APPEND`; since then it times out.
    pub commits_below_min_insync: bool,
}

impl Default for Replication {
    fn default() -> Self {
        Self {
            factor: 1,
            min_insync: 1,
            unclean_election: false,
            fetch_delay_ms: 0,
            lag_ms_max: 30_000,
            session_ms: 9_000,
            metadata_delay_ms: 0,
            commits_below_min_insync: false,
        }
    }
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
    /// What a batch gets of whose producer nothing is known.
    pub unknown_producer: UnknownProducer,
    /// For how long a partition remembers a producer that writes nothing, in ms since the latest
    /// timestamp in its last batch (`producer.id.expiration.ms`).
    pub producer_expiry_ms: i64,
    /// How often partitions look for such producers
    /// (`producer.id.expiration.check.interval.ms`).
    pub producer_expiry_check_ms: i64,
    /// For how long a node that is asked for its first producer id answers
    /// `COORDINATOR_LOAD_IN_PROGRESS`, in ms. Real nodes fetch a block of ids then.
    pub producer_id_load_ms: i64,
    /// Copies, in-sync sets, the controller's patience.
    pub replication: Replication,
    /// How many bytes of requests a session takes in while it works on nothing (its node is paused,
    /// an answer is held back): what [`crate::Session::room`] counts down from.
    pub socket_buffer_bytes: usize,
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
            unknown_producer: UnknownProducer::default(),
            producer_expiry_ms: 86_400_000,
            producer_expiry_check_ms: 600_000,
            producer_id_load_ms: 0,
            replication: Replication::default(),
            socket_buffer_bytes: 256 << 10,
            numbered: false,
            topics_max: 20_000,
            partitions_max: 100_000,
            producers_max: 20_000,
            fetch_wait_ms_max: 5_000,
            seed: 1,
        }
    }
}
