//! Every bound of the core, as a sum of what needs it.

use core::time::Duration;

/// Requests a connection may have in flight. Kafka keeps the last five batches of each producer id
/// and partition, so five is as far as a retry can be recognised
/// ([KIP-98](https://cwiki.apache.org/confluence/display/KAFKA/KIP-98+-+Exactly+Once+Delivery+and+Transactional+Messaging)).
pub const IN_FLIGHT_MAX: usize = 5;

/// Batches of one partition in flight under one producer id; the same five.
pub const LANE_WINDOW: usize = 5;

/// After so long without an acknowledgement a lane's next batch goes alone, as its first did. A broker
/// forgets producers that were idle for `producer.id.expiration.ms` (a day, unless configured), and
/// then takes any sequence for a beginning; so of several batches in flight a later one could be
/// stored before an earlier one that was refused.
pub const PROOF_LASTS: Duration = Duration::from_secs(30);

/// With `linger=auto`: as soon as this much is ready for a connection it is sent.
pub const GATHERED_ENOUGH_BYTES: usize = 64 << 10;

/// With `linger=auto`: after so many requests in a row with a single record, the next one on a
/// connection with nothing in flight does not wait for company. A request with more than one record
/// brings the gap back.
pub const LONE_REQUESTS: u32 = 2;

/// Bodies below this are copied behind their header instead of being pieces of their own: a piece
/// costs the kernel about as much as copying that many bytes.
pub const COPIED_BODY_BYTES_MAX: usize = 1 << 10;

/// Bytes of a request that we write for it: heads and copied bodies. A request is closed when the
/// next partition might not fit.
///
/// ```text
///   request head     2 + 2 + 4 + client id ≤ 32,767 …… ≤ 33 KiB
///   per partition    topic ≤ 255 + 32, head ≤ 16, batch header 61, copied body < 1 KiB
/// ```
pub const SLAB_BYTES_MAX: usize = 256 << 10;

/// What a request has around its topics, but for the client id: length, header, acks, timeout, counts.
pub const REQUEST_HEAD_BYTES_MAX: usize = 64;

/// What a request has around one batch, but for the topic's name: counts, lengths, index, tags.
pub const AROUND_BATCH_BYTES_MAX: usize = 32 + 16;

/// The most one more partition adds to the slab: see [`SLAB_BYTES_MAX`].
pub const SLAB_BYTES_PER_PARTITION_MAX: usize =
    255 + AROUND_BATCH_BYTES_MAX + 61 + COPIED_BODY_BYTES_MAX;

/// A part of a record that is at least so long is shared when its batch is divided, not copied.
pub const SHARED_IN_SPLIT_BYTES_MIN: usize = 4 << 10;

/// Buffers for the records of divided batches are at most so large: a slab's size.
pub const SPLIT_BUFFER_BYTES: usize = 64 << 10;

/// Slabs that hold parts of divided batches, together, unless a single batch needs more. A quarter of
/// the slabs' memory: the rest is for the heads of requests.
pub const SPLIT_BYTES_MAX: usize = 4 << 20;

/// What a response may take. A Produce answer has about 60 bytes per partition and error texts; the
/// cap leaves room for thousands of partitions and long texts.
pub const RESPONSE_BYTES_MAX: usize = 4 << 20;

/// What a metadata response may take: some 60 bytes per partition, for 10⁶ partitions.
pub const METADATA_BYTES_MAX: usize = 64 << 20;

/// A throttle time longer than this is taken for a mistake.
pub const THROTTLE_MAX: Duration = Duration::from_secs(60);

/// How long a broker that is asked whether it still is there may take for its answer, which costs it
/// nothing.
pub const PROBE_ANSWER: Duration = Duration::from_secs(5);

/// After so many answers in a row that were needed and told nothing new the directory asks another
/// broker. The first may have come before there was news.
pub const FRUITLESS_MAX: u32 = 2;

/// How long a broker may take until it can be asked when the directory left another for it, which
/// answers: one that is silent must not keep the others from being asked.
pub const ROAMING_SETUP: Duration = Duration::from_secs(1);

/// Batches that leave a lane for another in one step: sealing them takes time, and the network does
/// not wait.
pub const MOVED_PER_STEP: usize = 64;

/// Records settled per turn of the loop: more wait for the next turn, so that the network is never
/// kept waiting by completions. Counted in batches.
pub const SETTLED_PER_TURN: usize = 256;

/// How long batches of a topic that refused one as too large end at half its size; then twice as much is
/// tried.
pub const NARROW_FOR: Duration = Duration::from_secs(600);

/// Connections of a shard: a slot is 16 bits, and the first is the directory's.
pub const CONNECTIONS_MAX: usize = (1 << 16) - 1;
