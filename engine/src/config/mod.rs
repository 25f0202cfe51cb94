//! What a producer can be told.
//!
//! Every setting has a typed method on [`Builder`] and a name for [`Builder::set`], which takes
//! text: for command lines and configuration files. Texts have units: `B`, `KiB`, `MiB` and `us`,
//! `ms`, `s`, `m`. Nothing is checked until [`Builder::build`]; then every fault is reported at
//! once.
//!
//! | setting | default | allowed | Java | librdkafka |
//! |---|---|---|---|---|
//! | `bootstrap` | none, required | `host:port,…` | `bootstrap.servers` | same |
//! | `allowed_hosts` | all | hosts or `*.domain`, with commas: where brokers may be that metadata names | – | – |
//! | `client_id` | `ringpost` | ≤ 32,767 bytes | `client.id` | same |
//! | `shards` | `auto`: CPUs / 8, 1 to 4 | 1 to 64 | – | – |
//! | `driver` | `auto` | `auto`, `ring`, `epoll` | – | – |
//! | `wait` | `park` | `park`, `spin-then-park`, `spin` | – | – |
//! | `pin` | `true` | `true`, `false`, CPU numbers `2,3` | – | – |
//! | `acks` | `all` | `0`, `1`, `all` | `acks` | same |
//! | `idempotent` | `true`; `false` with `acks` 0 or 1 | `true`, `false` | `enable.idempotence` | same |
//! | `linger` | `auto` | `auto`, 0 to 60 s | `linger.ms` | same |
//! | `gap` | 500 us | 0 to 1 s | – | – |
//! | `batch_bytes` | 128 KiB | 1 KiB to 16 MiB | `batch.size` | same |
//! | `request_bytes_max` | 1 MiB | 16 KiB to 100 MiB | `max.request.size` | `message.max.bytes` |
//! | `memory` | 64 MiB | 1 MiB to 64 GiB | `buffer.memory` | `queue.buffering.max.kbytes` |
//! | `compression` | `none` | `none`, `gzip[:l]`, `snappy`, `lz4`, `zstd[:l]` | `compression.type` | same |
//! | `partitioner` | `murmur2` | `murmur2`, `consistent`, `round-robin`, `sticky` | `partitioner.class` | `partitioner` |
//! | `produce_version_max` | 13 | 3 to 13 | – | `broker.version.fallback` |
//! | `in_flight_max` | 5 | 1 to 5 | `max.in.flight.requests.per.connection` | same |
//! | `delivery_timeout` | 120 s | 1 ms to 1 day | `delivery.timeout.ms` | `message.timeout.ms` |
//! | `request_timeout` | 30 s | 1 ms to 1 hour | `request.timeout.ms` | `socket.timeout.ms` |
//! | `max_block` | 60 s | 0 to 1 day | `max.block.ms` | – |
//! | `connect_timeout` | 10 s | 1 ms to 1 hour | `socket.connection.setup.timeout.ms` | same |
//! | `topic_timeout` | 30 s | 0 to 1 hour | – | `topic.metadata.propagation.max.ms` |
//! | `reconnect_backoff`, `…_max` | 50 ms, 1 s | 1 ms to 1 hour | `reconnect.backoff.ms`, `….max.ms` | same |
//! | `retry_backoff`, `…_max` | 100 ms, 1 s | 1 ms to 1 hour | `retry.backoff.ms`, `….max.ms` | same |
//! | `retry_backoff_growth` | 200 % | 100 to 1000 % | – | – |
//! | `retry_jitter` | `kafka` (±20 %) | `kafka`, `full`, `equal`, `none` | – | – |
//! | `retry_attempts` | `unlimited` | `unlimited`, 1 to 2³², the first counts | `retries` + 1 | same |
//! | `retry_rules` | `none` | `none`, `CLASS=never`, `CLASS=ATTEMPTS[:BACKOFF[:MAX]]`, with commas | – | – |
//! | `retry_budget` | `20%:10:100` | `off`, `PERCENT%[:PER_SECOND[:BURST]]` | – | – |
//! | `metadata_max_age` | 5 m | 1 s to 1 day | `metadata.max.age.ms` | `topic.metadata.refresh.interval.ms` |
//! | `connections_per_broker` | 1 | 1 to 16, per shard | – | – |
//! | `connections` | `lazy` | `lazy`, `eager` | – | `enable.sparse.connections` |
//! | `auto_create_topics` | `true` | `true`, `false` | – | `allow.auto.create.topics` |
//! | `completion_queue` | 1024 batches | 1 to 1,000,000 | – | – |
//! | `keepalive` | 60 s | 0 (off), 1 s to 1 hour | – | `socket.keepalive.enable` |
//! | `user_timeout` | 20 s | 0 (system's), 1 ms to 1 hour | – | – |
//! | `idle_probe` | 30 s | 0 (off), 1 s to 1 hour | – | – |
//! | `health` | `on` | `on`, `off`: whether slow and failing brokers are avoided | `partitioner.adaptive.partitioning.enable` | – |
//! | `health.tau` | 5 s | 10 ms to 1 hour | – | – |
//! | `health.tick` | 50 ms | 1 ms to 1 s | – | – |
//! | `health.cf` | 3 | 1 to 1000 failures in a row | – | – |
//! | `health.stall` | 2 s | 1 ms to 1 hour | `partitioner.availability.timeout.ms` | – |
//! | `health.slow_ratio` | 8 | 2 to 1000 times the median | – | – |
//! | `health.slow_floor` | 250 ms | 1 ms to 1 hour | – | – |
//! | `health.min_volume` | 20 | 1 to 1,000,000 outcomes | – | – |
//! | `health.window` | 10 s | 10 ms to 1 hour | – | – |
//! | `health.eject_base` | 500 ms | 1 ms to 1 hour | – | – |
//! | `health.eject_max` | 30 s | 1 ms to 1 hour | – | – |
//! | `health.probe_successes` | 2 | 1 to 1000 | – | – |
//! | `health.slow_start` | 5 s | 0 to 1 hour | – | – |
//! | `health.max_eject` | 50% | 0% to 100% | – | – |
//! | `health.panic` | 34% | 0% to 100% | – | – |
//! | `bulkhead` | 25% | 0% to 100% of `memory` behind avoided and dead brokers | – | – |
//! | `on_lane_unavailable` | `wait` | `wait`, `fail_fast`, `dead_letter`: beyond that | – | – |
//! | `exhausted` | `dead_letter` with a `dead_letter_topic`, else `error` | `error`, `callback`, `dead_letter` | – | – |
//! | `dead_letter_topic` | none | a topic's name | – | – |
//! | `dead_letter_expired` | `false` | `true`, `false`: records whose `delivery_timeout` passed, too | – | – |
//! | `dead_letter_unknown` | `false` | `true`, `false`: records that may be written, too | – | – |
//! | `send_buffer_bytes` | 0 (system's) | ≤ 64 MiB | `send.buffer.bytes` | `socket.send.buffer.bytes` |
//!
//! *Retries.* A batch that was not acknowledged is tried again after a wait, until it is, or
//! `retry_attempts` are used up, or `delivery_timeout` is over, whichever is first; one that may be
//! stored is tried past `retry_attempts` while the broker can recognise it. `retry_rules` makes
//! exceptions for classes of failures (without MAX, waits do not grow): `connection`, `timeout`, `leadership`, `not-enough-replicas`,
//! `overload`, `corrupt`, `sequence`, `other`; `connection=5:50ms:2s, corrupt=never` gives up damaged
//! batches at once, and those whose connection was lost at the fifth attempt. `retry_budget` bounds
//! what retries may take of a broker's time: so many percent of the acknowledged requests, but so many
//! a second at least and so many at once at most; without budget left they wait. `cargo run --example
//! retry_schedule` prints the waits of a policy.

mod by_name;
mod check;
mod text;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ringpost_codec::compress::Compression;
use ringpost_core::allowed_hosts::AllowedHosts;
use ringpost_core::directory::DirectorySettings;
use ringpost_core::health::HealthSettings;
use ringpost_core::id::PartitionId;
use ringpost_core::partition::Partitioner;
use ringpost_core::retry::{Backoff, RetryPolicy};
use ringpost_core::settings::{Acks, Linger, Settings};

use crate::bulkhead::OnLaneUnavailable;
use crate::driver::{DriverChoice, SocketOptions};
use crate::reports::ReportSettings;
use crate::undelivered::{OnUndelivered, Undelivered};

use text::parse_bootstrap;

/// How a shard waits when it has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitPolicy {
    /// It sleeps at once. A wake costs its sender 1 to 2 µs and the shard tens of µs.
    #[default]
    Park,
    /// It looks around for so long first.
    SpinThenPark(Duration),
    /// It never sleeps. For a CPU of its own; refused when that would take all CPUs.
    Spin,
}

/// Where shards run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Pin {
    /// Each on a CPU of its own, among those the process may use, as far as there are enough.
    #[default]
    Auto,
    /// Wherever the system puts them.
    Off,
    /// On these CPUs, in turn.
    To(Vec<usize>),
}

/// What follows when a record is given up, beside its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exhausted {
    /// Nothing: the outcome says it. Records that nobody waits for go to
    /// [`on_undelivered`](Builder::on_undelivered), if it is set.
    #[default]
    Error,
    /// All records that were given up go to [`on_undelivered`](Builder::on_undelivered), those that
    /// somebody waits for too.
    Callback,
    /// They are produced to the [`dead_letter_topic`](Builder::dead_letter_topic), if they were refused,
    /// or their attempts are used up; with [`dead_letter_expired`](Builder::dead_letter_expired) and
    /// [`dead_letter_unknown`](Builder::dead_letter_unknown) others too. The rest as with `Error`.
    DeadLetter,
}

/// How many shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shards {
    /// An eighth of the CPUs the process may use, at least 1, at most 4. One shard moves millions
    /// of records a second, and every further one makes batches smaller.
    #[default]
    Auto,
    /// So many.
    Count(usize),
}

/// Chooses the partition of a record without an explicit one: from the key, the value, and the
/// number of partitions, at least 1. A result out of range is refused as
/// [`NoSuchPartition`](crate::TrySendError::NoSuchPartition). Called by the sending thread.
pub type PartitionFn = dyn Fn(Option<&[u8]>, Option<&[u8]>, u32) -> PartitionId + Send + Sync;

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such setting.
    #[error("there is no setting {name:?}; the nearest is {nearest:?}")]
    UnknownSetting {
        /// As it was given.
        name: String,
        /// The nearest there is.
        nearest: &'static str,
    },
    /// The value is not allowed.
    #[error("{name} = {value:?} is not allowed: {allowed}")]
    NotAllowed {
        /// The setting.
        name: &'static str,
        /// As it was given.
        value: String,
        /// What is.
        allowed: String,
    },
    /// Two settings contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

/// All that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// A configuration in the making. See the [module](self) for all settings.
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    pub(crate) bootstrap: String,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) client_id: String,
    pub(crate) shards: Shards,
    pub(crate) driver: DriverChoice,
    pub(crate) wait: WaitPolicy,
    pub(crate) pin: Pin,
    pub(crate) acks: Acks,
    pub(crate) idempotent: Option<bool>,
    pub(crate) linger: Option<Duration>,
    pub(crate) gap: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) request_bytes_max: usize,
    pub(crate) memory: usize,
    pub(crate) compression: Compression,
    pub(crate) partitioner: Partitioner,
    pub(crate) partition_fn: Option<Arc<PartitionFn>>,
    pub(crate) produce_version_max: i16,
    pub(crate) in_flight_max: usize,
    pub(crate) delivery_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) max_block: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) topic_timeout: Duration,
    pub(crate) reconnect: Backoff,
    pub(crate) retry: RetryPolicy,
    pub(crate) metadata_max_age: Duration,
    pub(crate) connections_per_broker: usize,
    pub(crate) eager: bool,
    pub(crate) auto_create: bool,
    pub(crate) completion_queue: usize,
    pub(crate) keepalive: Duration,
    pub(crate) user_timeout: Duration,
    pub(crate) send_buffer_bytes: usize,
    pub(crate) idle_probe: Duration,
    pub(crate) health: HealthSettings,
    pub(crate) on_undelivered: Option<OnUndelivered>,
    pub(crate) exhausted: Option<Exhausted>,
    pub(crate) dead_letter_topic: String,
    pub(crate) dead_letter_expired: bool,
    pub(crate) dead_letter_unknown: bool,
    pub(crate) bulkhead_percent: u8,
    pub(crate) on_lane_unavailable: OnLaneUnavailable,
    /// Further shards are refused a ring.
    #[cfg(test)]
    pub(crate) rings_max: Option<usize>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("bootstrap", &self.bootstrap)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        let core = Settings::default();
        Self {
            bootstrap: String::new(),
            allowed_hosts: Vec::new(),
            client_id: core.client_id,
            shards: Shards::Auto,
            driver: DriverChoice::Auto,
            wait: WaitPolicy::Park,
            pin: Pin::Auto,
            acks: Acks::All,
            idempotent: None,
            linger: None,
            gap: Duration::from_micros(500),
            batch_bytes: 128 << 10,
            request_bytes_max: core.request_bytes_max,
            memory: 64 << 20,
            compression: Compression::NONE,
            partitioner: Partitioner::Murmur2,
            partition_fn: None,
            produce_version_max: core.produce_version_max,
            in_flight_max: core.in_flight_max,
            delivery_timeout: core.delivery_timeout,
            request_timeout: core.request_timeout,
            max_block: Duration::from_secs(60),
            connect_timeout: core.connect_timeout,
            topic_timeout: Duration::from_secs(30),
            reconnect: core.reconnect,
            retry: core.retry,
            metadata_max_age: Duration::from_secs(300),
            connections_per_broker: 1,
            eager: false,
            auto_create: true,
            completion_queue: 1024,
            keepalive: Duration::from_secs(60),
            user_timeout: Duration::from_secs(20),
            send_buffer_bytes: 0,
            idle_probe: core.idle_probe,
            health: core.health,
            on_undelivered: None,
            exhausted: None,
            dead_letter_topic: String::new(),
            dead_letter_expired: false,
            dead_letter_unknown: false,
            bulkhead_percent: 25,
            on_lane_unavailable: OnLaneUnavailable::Wait,
            #[cfg(test)]
            rings_max: None,
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $($field:ident).+;)*) => {
        $($(#[$doc])*
        pub fn $name(mut self, value: $type) -> Self {
            self.$($field).+ = value.into();
            self
        })*
    };
}

impl Builder {
    setters! {
        /// Where to find the cluster: `host:port`, several with commas. A name may resolve to
        /// several addresses; all are tried.
        bootstrap: impl Into<String> => bootstrap;
        /// Hosts at which there may be brokers that the cluster's metadata names; `*.example.org` stands for
        /// all below that domain. Others are never connected to, and the log warns of them once. Without
        /// any, all hosts are allowed; those of `bootstrap` always are.
        allowed_hosts: impl Into<Vec<String>> => allowed_hosts;
        /// Names us in the broker's logs and quotas.
        client_id: impl Into<String> => client_id;
        /// How many shards: threads that each own their connections and partitions.
        shards: Shards => shards;
        /// Which way to the kernel.
        driver: DriverChoice => driver;
        /// How shards wait.
        wait: WaitPolicy => wait;
        /// Where shards run.
        pin: Pin => pin;
        /// Whose acknowledgement a record waits for. Less than `All` turns idempotence off.
        acks: Acks => acks;
        /// Whether the broker sorts out duplicates of our retries. Needs `acks=all`.
        idempotent: bool => idempotent;
        /// A fixed wait for more records; the default is `auto`.
        linger: Duration => linger;
        /// With `linger=auto`: the least time between two requests that are not full.
        gap: Duration => gap;
        /// A batch of this many bytes is full. A larger record gets a batch of its own.
        batch_bytes: usize => batch_bytes;
        /// The most a request may take. A record must leave room in it for what is around a batch:
        /// 112 bytes, `client_id` and the topic's name. The broker's `message.max.bytes` must allow
        /// it too.
        request_bytes_max: usize => request_bytes_max;
        /// The most that accepted and unsettled records may take, for the whole producer.
        memory: usize => memory;
        /// How batches are compressed.
        compression: Compression => compression;
        /// How records are spread over partitions.
        partitioner: Partitioner => partitioner;
        /// The newest Produce version to be used: for brokers that offer more than they can do.
        produce_version_max: i16 => produce_version_max;
        /// Requests in flight per connection.
        in_flight_max: usize => in_flight_max;
        /// From the append to the outcome at the latest.
        delivery_timeout: Duration => delivery_timeout;
        /// For one attempt.
        request_timeout: Duration => request_timeout;
        /// How long `send` waits for memory.
        max_block: Duration => max_block;
        /// For a connection to be usable: name, TCP, negotiation.
        connect_timeout: Duration => connect_timeout;
        /// How long a topic the cluster does not know may take to appear.
        topic_timeout: Duration => topic_timeout;
        /// How often and how soon a batch is tried again.
        retry: RetryPolicy => retry;
        /// How soon a broker is connected to again.
        reconnect: Backoff => reconnect;
        /// Metadata older than this is asked for anew.
        metadata_max_age: Duration => metadata_max_age;
        /// Connections to each broker, per shard.
        connections_per_broker: usize => connections_per_broker;
        /// Connect to all leaders of wanted topics at once instead of at the first record.
        eager: bool => eager;
        /// Whether asking for a topic may create it, if the brokers allow that too.
        auto_create_topics: bool => auto_create;
        /// How many batches with tagged records may wait to be sent or drained.
        completion_queue: usize => completion_queue;
        /// TCP keepalive; zero switches it off.
        keepalive: Duration => keepalive;
        /// `TCP_USER_TIMEOUT`: a peer that acknowledges nothing for so long is gone.
        user_timeout: Duration => user_timeout;
        /// `SO_SNDBUF`; zero leaves the system's.
        send_buffer_bytes: usize => send_buffer_bytes;
        /// A connection that was idle for so long is asked whether it still works, so that the next
        /// record does not have to find out; zero never asks.
        idle_probe: Duration => idle_probe;
        /// How much of the memory may wait behind brokers that are avoided or dead, in percent: so
        /// that they cannot stop the records for all others.
        bulkhead: u8 => bulkhead_percent;
        /// What happens to records for such brokers beyond that.
        on_lane_unavailable: OnLaneUnavailable => on_lane_unavailable;
        /// What follows when a record is given up.
        exhausted: Exhausted => exhausted;
        /// Where records go that were refused or whose attempts are used up: see
        /// [`dead_letter`](crate::dead_letter). Asks for [`Exhausted::DeadLetter`], if nothing else is
        /// asked for.
        dead_letter_topic: impl Into<String> => dead_letter_topic;
        /// Records whose `delivery_timeout` passed become dead letters too.
        dead_letter_expired: bool => dead_letter_expired;
        /// Records that may be written become dead letters too: some of them may be in both topics.
        dead_letter_unknown: bool => dead_letter_unknown;
        /// When slow and failing brokers are avoided.
        health: HealthSettings => health;
    }

    /// A partitioner of your own. See [`PartitionFn`].
    pub fn partition_with(
        mut self,
        choose: impl Fn(Option<&[u8]>, Option<&[u8]>, u32) -> PartitionId + Send + Sync + 'static,
    ) -> Self {
        self.partition_fn = Some(Arc::new(choose));
        self
    }

    /// Called for batches with records that nobody waits for (`post`, dropped deliveries) and that
    /// were not, or perhaps not, written. On a thread of its own, so that it may send them elsewhere
    /// and wait for that; in embedded mode on the thread that turns, where it must not wait. Batches
    /// that find 256 others waiting for it, or a quarter of `memory` held by those, are not reported but
    /// counted ([`Stats::undelivered_dropped`](crate::Stats::undelivered_dropped)). A panic in it is caught
    /// and counted.
    pub fn on_undelivered(mut self, hook: impl Fn(&Undelivered) + Send + 'static) -> Self {
        self.on_undelivered = Some(Box::new(hook));
        self
    }

    /// How often and how soon a batch is tried again, as it is set now.
    #[must_use]
    pub fn retry_policy(&self) -> RetryPolicy {
        self.retry
    }

    /// What follows when a record is given up: asked for, or possible.
    fn follows(&self) -> Exhausted {
        self.exhausted
            .unwrap_or(if self.dead_letter_topic.is_empty() {
                Exhausted::Error
            } else {
                Exhausted::DeadLetter
            })
    }

    /// Whether there is anything to do for the hook's thread.
    pub(crate) fn needs_hook(&self) -> bool {
        self.on_undelivered.is_some() || self.follows() == Exhausted::DeadLetter
    }

    /// What of the memory is set aside for dead letters: an eighth, but so much that the largest
    /// record fits, if that is not more than half.
    pub(crate) fn letter_memory(&self) -> Option<usize> {
        let largest = self.request_bytes_max.next_power_of_two();
        let bytes = (self.memory / 8).max(largest.min(self.memory / 2));
        (self.follows() == Exhausted::DeadLetter).then_some(bytes)
    }

    /// What becomes of records that were not delivered.
    pub(crate) fn report_settings(&self, held_bytes_max: usize) -> ReportSettings {
        let dead_letters = self.follows() == Exhausted::DeadLetter;
        ReportSettings {
            hook: self.on_undelivered.is_some(),
            exhausted: self.follows(),
            dead_letter_topic: dead_letters.then(|| self.dead_letter_topic.as_str().into()),
            expired: self.dead_letter_expired,
            unknown: self.dead_letter_unknown,
            held_bytes_max,
        }
    }

    /// Whether the broker sorts out duplicates: asked for, or possible.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.idempotent.unwrap_or(self.acks == Acks::All)
    }

    pub(crate) fn core_settings(&self) -> Settings {
        Settings {
            client_id: self.client_id.clone(),
            acks: self.acks,
            idempotent: self.is_idempotent(),
            linger: self
                .linger
                .map_or(Linger::Auto { gap: self.gap }, Linger::Fixed),
            request_bytes_max: self.request_bytes_max,
            produce_version_max: self.produce_version_max,
            in_flight_max: self.in_flight_max,
            request_timeout: self.request_timeout,
            delivery_timeout: self.delivery_timeout,
            connect_timeout: self.connect_timeout,
            reconnect: self.reconnect,
            retry: self.retry,
            connections_per_broker: self.connections_per_broker,
            eager: self.eager,
            idle_probe: self.idle_probe,
            health: self.health.clone(),
            allowed_hosts: self.hosts(),
        }
    }

    /// Where brokers may be that metadata names.
    pub(crate) fn hosts(&self) -> AllowedHosts {
        let mut hosts = self.allowed_hosts.clone();
        if !hosts.is_empty() {
            // Whoever named those trusts them.
            let bootstrap = parse_bootstrap(&self.bootstrap).unwrap_or_default();
            hosts.extend(bootstrap.into_iter().map(|(host, _)| host));
        }
        AllowedHosts(hosts)
    }

    pub(crate) fn directory_settings(&self) -> DirectorySettings {
        DirectorySettings {
            client_id: self.client_id.clone(),
            bootstrap: parse_bootstrap(&self.bootstrap).unwrap_or_default(),
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            reconnect: self.reconnect,
            refresh: self.retry.backoff,
            metadata_max_age: self.metadata_max_age,
            topic_timeout: self.topic_timeout,
            auto_create: self.auto_create,
            idempotent: self.is_idempotent(),
        }
    }

    pub(crate) fn socket_options(&self) -> SocketOptions {
        SocketOptions {
            user_timeout: self.user_timeout,
            keepalive: self.keepalive,
            send_buffer_bytes: self.send_buffer_bytes,
            receive_buffer_bytes: 0,
        }
    }
}
