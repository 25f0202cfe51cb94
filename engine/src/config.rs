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

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ringpost_codec::compress::Compression;
use ringpost_core::directory::DirectorySettings;
use ringpost_core::health::HealthSettings;
use ringpost_core::id::PartitionId;
use ringpost_core::partition::Partitioner;
use ringpost_core::retry::{Backoff, Budget, Class, Jitter, RetryPolicy, Rule};
use ringpost_core::settings::{Acks, Linger, Settings};

use crate::bulkhead::OnLaneUnavailable;
use crate::driver::{DriverChoice, SocketOptions};
use crate::reports::ReportSettings;
use crate::shared::is_topic_name;
use crate::undelivered::{OnUndelivered, Undelivered};

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
    /// that find 256 others waiting for it are not reported but counted
    /// ([`Stats::undelivered_dropped`](crate::Stats::undelivered_dropped)). A panic in it is caught
    /// and counted.
    pub fn on_undelivered(mut self, hook: impl Fn(&Undelivered) + Send + 'static) -> Self {
        self.on_undelivered = Some(Box::new(hook));
        self
    }

    /// Sets a setting by name from text.
    ///
    /// ```
    /// let builder = ringpost::Producer::builder().set("linger", "5ms")?.set("memory", "32MiB")?;
    /// let error = builder.set("lingr", "5ms").unwrap_err();
    /// assert_eq!(error.to_string(), r#"there is no setting "lingr"; the nearest is "linger""#);
    /// # Ok::<(), ringpost::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// When there is no such setting, or the text is not a value of it.
    pub fn set(mut self, name: &str, text: &str) -> Result<Self, ConfigError> {
        let Some((known, put)) = SETTINGS.iter().find(|(known, _)| *known == name) else {
            let nearest = SETTINGS
                .iter()
                .map(|(known, _)| *known)
                .min_by_key(|known| distance(name, known))
                .unwrap_or("bootstrap");
            return Err(ConfigError::UnknownSetting {
                name: name.into(),
                nearest,
            });
        };
        match put(&mut self, text.trim()) {
            Ok(()) => Ok(self),
            Err(allowed) => Err(ConfigError::NotAllowed {
                name: known,
                value: text.into(),
                allowed,
            }),
        }
    }

    /// How often and how soon a batch is tried again, as it is set now.
    #[must_use]
    pub fn retry_policy(&self) -> RetryPolicy {
        self.retry
    }

    /// Changes the waits of all classes.
    fn retry_backoffs(&mut self, change: impl Fn(&mut Backoff)) {
        change(&mut self.retry.backoff);
        for rule in self.retry.rules.iter_mut().flatten() {
            if let Rule::Retry {
                backoff: Some(backoff),
                ..
            } = rule
            {
                change(backoff);
            }
        }
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

    /// The names [`Builder::set`] takes.
    pub fn setting_names() -> impl Iterator<Item = &'static str> {
        SETTINGS.iter().map(|(name, _)| *name)
    }

    /// Whether the broker sorts out duplicates: asked for, or possible.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.idempotent.unwrap_or(self.acks == Acks::All)
    }

    /// Everything that is wrong.
    pub(crate) fn faults(&self) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        if let Err(allowed) = parse_bootstrap(&self.bootstrap) {
            faults.push(ConfigError::NotAllowed {
                name: "bootstrap",
                value: self.bootstrap.clone(),
                allowed,
            });
        }
        let mut check = |name, fine: bool, value: &dyn fmt::Debug, allowed: &str| {
            if !fine {
                let (value, allowed) = (format!("{value:?}"), allowed.into());
                faults.push(ConfigError::NotAllowed {
                    name,
                    value,
                    allowed,
                });
            }
        };
        let hour = Duration::from_secs(3600);
        let day = 24 * hour;
        let ms = Duration::from_millis(1);
        let second = Duration::from_secs(1);
        let between =
            |value: Duration, low: Duration, high: Duration| value >= low && value <= high;

        check(
            "client_id",
            self.client_id.len() <= 32_767,
            &self.client_id.len(),
            "at most 32,767 bytes",
        );
        if let Shards::Count(count) = self.shards {
            check("shards", (1..=64).contains(&count), &count, "1 to 64");
        }
        check(
            "linger",
            self.linger.is_none_or(|l| l <= 60 * second),
            &self.linger,
            "auto, or 0 to 60 s",
        );
        check("gap", self.gap <= second, &self.gap, "0 to 1 s");
        check(
            "batch_bytes",
            (1 << 10..=16 << 20).contains(&self.batch_bytes),
            &self.batch_bytes,
            "1 KiB to 16 MiB",
        );
        check(
            "request_bytes_max",
            (16 << 10..=100 << 20).contains(&self.request_bytes_max),
            &self.request_bytes_max,
            "16 KiB to 100 MiB",
        );
        check(
            "memory",
            (1 << 20..=64 << 30).contains(&self.memory),
            &self.memory,
            "1 MiB to 64 GiB",
        );
        check(
            "produce_version_max",
            (3..=13).contains(&self.produce_version_max),
            &self.produce_version_max,
            "3 to 13",
        );
        check(
            "in_flight_max",
            (1..=5).contains(&self.in_flight_max),
            &self.in_flight_max,
            "1 to 5",
        );
        check(
            "delivery_timeout",
            between(self.delivery_timeout, ms, day),
            &self.delivery_timeout,
            "1 ms to 1 day",
        );
        check(
            "request_timeout",
            between(self.request_timeout, ms, hour),
            &self.request_timeout,
            "1 ms to 1 hour",
        );
        check(
            "max_block",
            self.max_block <= day,
            &self.max_block,
            "0 to 1 day",
        );
        check(
            "connect_timeout",
            between(self.connect_timeout, ms, hour),
            &self.connect_timeout,
            "1 ms to 1 hour",
        );
        check(
            "topic_timeout",
            self.topic_timeout <= hour,
            &self.topic_timeout,
            "0 to 1 hour",
        );
        for (name, backoff) in [
            ("reconnect_backoff", self.reconnect),
            ("retry_backoff", self.retry.backoff),
        ] {
            check(
                name,
                between(backoff.initial, ms, hour) && between(backoff.max, backoff.initial, hour),
                &(backoff.initial, backoff.max),
                "1 ms to 1 hour, and no longer than its maximum",
            );
        }
        check(
            "retry_backoff_growth",
            (100..=1000).contains(&self.retry.backoff.growth_percent),
            &self.retry.backoff.growth_percent,
            "100 to 1000 %",
        );
        check(
            "retry_attempts",
            self.retry.attempts_max != Some(0),
            &self.retry.attempts_max,
            "unlimited, or at least 1 (the first counts)",
        );
        for rule in self.retry.rules.iter().flatten() {
            if let Rule::Retry {
                attempts_max,
                backoff,
            } = rule
            {
                let backoff = backoff.unwrap_or(self.retry.backoff);
                check(
                    "retry_rules",
                    *attempts_max != Some(0)
                        && between(backoff.initial, ms, hour)
                        && between(backoff.max, backoff.initial, hour),
                    &rule,
                    "at least 1 attempt (the first counts), waits of 1 ms to 1 hour and no longer \
                     than their maximum",
                );
            }
        }
        if let Some(budget) = self.retry.budget {
            check(
                "retry_budget",
                budget.percent_of_successes <= 1000
                    && (1..=10_000).contains(&budget.per_second)
                    && (1..=100_000).contains(&budget.burst),
                &budget,
                "off, or at most 1000 % of the successes, 1 to 10000 a second, 1 to 100000 at once",
            );
        }
        check(
            "metadata_max_age",
            between(self.metadata_max_age, second, day),
            &self.metadata_max_age,
            "1 s to 1 day",
        );
        check(
            "connections_per_broker",
            (1..=16).contains(&self.connections_per_broker),
            &self.connections_per_broker,
            "1 to 16",
        );
        check(
            "completion_queue",
            (1..=1_000_000).contains(&self.completion_queue),
            &self.completion_queue,
            "1 to 1,000,000 batches",
        );
        check(
            "keepalive",
            self.keepalive.is_zero() || between(self.keepalive, second, hour),
            &self.keepalive,
            "0 (off), or 1 s to 1 hour",
        );
        check(
            "user_timeout",
            self.user_timeout.is_zero() || between(self.user_timeout, ms, hour),
            &self.user_timeout,
            "0 (the system's), or 1 ms to 1 hour",
        );
        check(
            "send_buffer_bytes",
            self.send_buffer_bytes <= 64 << 20,
            &self.send_buffer_bytes,
            "at most 64 MiB; 0 is the system's",
        );
        check(
            "idle_probe",
            self.idle_probe.is_zero() || between(self.idle_probe, second, hour),
            &self.idle_probe,
            "0 (off), or 1 s to 1 hour",
        );
        let health = &self.health;
        for (name, value) in [
            ("health.stall", health.stall),
            ("health.slow_floor", health.slow_floor),
            ("health.eject_base", health.eject_base),
            ("health.eject_max", health.eject_max),
        ] {
            check(name, between(value, ms, hour), &value, "1 ms to 1 hour");
        }
        for (name, value) in [("health.tau", health.tau), ("health.window", health.window)] {
            check(
                name,
                between(value, 10 * ms, hour),
                &value,
                "10 ms to 1 hour",
            );
        }
        check(
            "health.tick",
            between(health.tick, ms, second),
            &health.tick,
            "1 ms to 1 s",
        );
        check(
            "health.slow_start",
            health.slow_start <= hour,
            &health.slow_start,
            "0 to 1 hour",
        );
        for (name, value, least, most) in [
            ("health.cf", health.consecutive_failures, 1, 1000),
            ("health.slow_ratio", health.slow_ratio, 2, 1000),
            ("health.min_volume", health.volume_min, 1, 1_000_000),
            ("health.probe_successes", health.probe_successes, 1, 1000),
            ("health.max_eject", health.eject_percent_max.into(), 0, 100),
            ("health.panic", health.panic_percent.into(), 0, 100),
        ] {
            let allowed = format!("{least} to {most}");
            check(name, (least..=most).contains(&value), &value, &allowed);
        }
        if let WaitPolicy::SpinThenPark(budget) = self.wait {
            check(
                "wait",
                budget <= second,
                &budget,
                "a spin budget of at most 1 s",
            );
        }

        if self.idempotent == Some(true) && self.acks != Acks::All {
            faults.push(ConfigError::Contradiction(
                "idempotent = true needs acks = all: the broker can only recognise what all \
                 replicas have; leave idempotent unset, or acks at all"
                    .into(),
            ));
        }
        if self.batch_bytes > self.request_bytes_max {
            faults.push(ConfigError::Contradiction(format!(
                "batch_bytes = {} is more than request_bytes_max = {}: no full batch could be sent",
                self.batch_bytes, self.request_bytes_max
            )));
        }
        if self.request_bytes_max < 2 * self.client_id.len() {
            faults.push(ConfigError::Contradiction(format!(
                "request_bytes_max = {} is less than twice the {} bytes of client_id, which every \
                 request carries",
                self.request_bytes_max,
                self.client_id.len()
            )));
        }
        check_exhausted(self, &mut faults);
        if self.bulkhead_percent > 100 {
            faults.push(ConfigError::NotAllowed {
                name: "bulkhead",
                value: format!("{}%", self.bulkhead_percent),
                allowed: "0% to 100%".into(),
            });
        }
        let for_batches = self.memory - self.letter_memory().unwrap_or(0);
        if for_batches < 2 * self.batch_bytes {
            faults.push(ConfigError::Contradiction(format!(
                "memory = {for_batches} is less than two batches of batch_bytes = {}: nothing could be \
                 appended while a batch is sent",
                self.batch_bytes
            )));
        }
        faults
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
        }
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

/// What contradicts each other about records that are given up.
fn check_exhausted(builder: &Builder, faults: &mut Vec<ConfigError>) {
    let topic = &builder.dead_letter_topic;
    match builder.follows() {
        Exhausted::Error => {}
        Exhausted::Callback if builder.on_undelivered.is_some() => {}
        Exhausted::Callback => faults.push(ConfigError::Contradiction(
            "exhausted = callback needs a callback: set it with Builder::on_undelivered".into(),
        )),
        Exhausted::DeadLetter if is_topic_name(topic) => return,
        Exhausted::DeadLetter => faults.push(ConfigError::NotAllowed {
            name: "dead_letter_topic",
            value: topic.clone(),
            allowed: "a topic's name: 1 to 249 letters, digits, dots, dashes and underscores"
                .into(),
        }),
    }
    for (set, name) in [
        (
            builder.on_lane_unavailable == OnLaneUnavailable::DeadLetter,
            "on_lane_unavailable = dead_letter",
        ),
        (builder.dead_letter_expired, "dead_letter_expired"),
        (builder.dead_letter_unknown, "dead_letter_unknown"),
        (
            !topic.is_empty() && builder.follows() != Exhausted::DeadLetter,
            "dead_letter_topic",
        ),
    ] {
        if set && builder.follows() != Exhausted::DeadLetter {
            faults.push(ConfigError::Contradiction(format!(
                "{name} is set, but exhausted is not dead_letter: no dead letters would be written"
            )));
        }
    }
}

type Put = fn(&mut Builder, &str) -> Result<(), String>;

/// Every setting with what takes its text. The error says what is allowed.
const SETTINGS: &[(&str, Put)] = &[
    ("bootstrap", |b, t| {
        parse_bootstrap(t).map(|_| b.bootstrap = t.into())
    }),
    ("client_id", |b, t| {
        b.client_id = t.into();
        Ok(())
    }),
    ("shards", |b, t| {
        b.shards = match t {
            "auto" => Shards::Auto,
            _ => Shards::Count(number(t, "auto, or 1 to 64")?),
        };
        Ok(())
    }),
    ("driver", |b, t| {
        b.driver = t.parse().map_err(|_| String::from("auto, ring or epoll"))?;
        Ok(())
    }),
    ("wait", |b, t| {
        b.wait = match t.split_once(':') {
            None if t == "park" => WaitPolicy::Park,
            None if t == "spin" => WaitPolicy::Spin,
            None if t == "spin-then-park" => WaitPolicy::SpinThenPark(Duration::from_micros(50)),
            Some(("spin-then-park", budget)) => WaitPolicy::SpinThenPark(duration(budget)?),
            _ => return Err("park, spin-then-park, spin-then-park:50us or spin".into()),
        };
        Ok(())
    }),
    ("pin", |b, t| {
        b.pin = match t {
            "true" => Pin::Auto,
            "false" => Pin::Off,
            _ => Pin::To(
                t.split(',')
                    .map(|cpu| number(cpu.trim(), "true, false, or CPU numbers such as 2,3"))
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(())
    }),
    ("acks", |b, t| {
        b.acks = match t {
            "0" => Acks::None,
            "1" => Acks::Leader,
            "all" | "-1" => Acks::All,
            _ => return Err("0, 1 or all".into()),
        };
        Ok(())
    }),
    ("idempotent", |b, t| {
        truth(t).map(|v| b.idempotent = Some(v))
    }),
    ("linger", |b, t| {
        b.linger = if t == "auto" {
            None
        } else {
            Some(duration(t)?)
        };
        Ok(())
    }),
    ("gap", |b, t| duration(t).map(|v| b.gap = v)),
    ("batch_bytes", |b, t| bytes(t).map(|v| b.batch_bytes = v)),
    ("request_bytes_max", |b, t| {
        bytes(t).map(|v| b.request_bytes_max = v)
    }),
    ("memory", |b, t| bytes(t).map(|v| b.memory = v)),
    ("compression", |b, t| {
        b.compression = t.parse().map_err(|error| format!("{error}"))?;
        Ok(())
    }),
    ("partitioner", |b, t| {
        b.partitioner = match t {
            "murmur2" => Partitioner::Murmur2,
            "consistent" => Partitioner::Consistent,
            "round-robin" => Partitioner::RoundRobin,
            "sticky" => Partitioner::Sticky,
            _ => return Err("murmur2, consistent, round-robin or sticky".into()),
        };
        Ok(())
    }),
    ("produce_version_max", |b, t| {
        number(t, "3 to 13").map(|v| b.produce_version_max = v)
    }),
    ("in_flight_max", |b, t| {
        number(t, "1 to 5").map(|v| b.in_flight_max = v)
    }),
    ("delivery_timeout", |b, t| {
        duration(t).map(|v| b.delivery_timeout = v)
    }),
    ("request_timeout", |b, t| {
        duration(t).map(|v| b.request_timeout = v)
    }),
    ("max_block", |b, t| duration(t).map(|v| b.max_block = v)),
    ("connect_timeout", |b, t| {
        duration(t).map(|v| b.connect_timeout = v)
    }),
    ("topic_timeout", |b, t| {
        duration(t).map(|v| b.topic_timeout = v)
    }),
    ("reconnect_backoff", |b, t| {
        duration(t).map(|v| b.reconnect.initial = v)
    }),
    ("reconnect_backoff_max", |b, t| {
        duration(t).map(|v| b.reconnect.max = v)
    }),
    ("retry_backoff", |b, t| {
        duration(t).map(|v| b.retry.backoff.initial = v)
    }),
    ("retry_backoff_max", |b, t| {
        duration(t).map(|v| b.retry.backoff.max = v)
    }),
    ("retry_backoff_growth", |b, t| {
        let percent = t.trim_end_matches('%').trim_end();
        let percent = number(percent, "100 to 1000 %")?;
        b.retry_backoffs(|backoff| backoff.growth_percent = percent);
        Ok(())
    }),
    ("retry_jitter", |b, t| {
        let jitter = match t {
            "kafka" => Jitter::Kafka,
            "full" => Jitter::Full,
            "equal" => Jitter::Equal,
            "none" => Jitter::None,
            _ => return Err("kafka, full, equal or none".into()),
        };
        b.retry_backoffs(|backoff| backoff.jitter = jitter);
        Ok(())
    }),
    ("retry_attempts", |b, t| {
        b.retry.attempts_max = match t {
            "unlimited" => None,
            _ => Some(number(
                t,
                "unlimited, or 1 to 4294967295 (the first counts)",
            )?),
        };
        Ok(())
    }),
    ("retry_rules", |b, t| {
        b.retry.rules = retry_rules(t, b.retry.backoff)?;
        Ok(())
    }),
    ("retry_budget", |b, t| {
        b.retry.budget = retry_budget(t)?;
        Ok(())
    }),
    ("metadata_max_age", |b, t| {
        duration(t).map(|v| b.metadata_max_age = v)
    }),
    ("connections_per_broker", |b, t| {
        number(t, "1 to 16").map(|v| b.connections_per_broker = v)
    }),
    ("connections", |b, t| {
        b.eager = match t {
            "lazy" => false,
            "eager" => true,
            _ => return Err("lazy or eager".into()),
        };
        Ok(())
    }),
    ("auto_create_topics", |b, t| {
        truth(t).map(|v| b.auto_create = v)
    }),
    ("completion_queue", |b, t| {
        number(t, "1 to 1000000 batches").map(|v| b.completion_queue = v)
    }),
    ("keepalive", |b, t| duration(t).map(|v| b.keepalive = v)),
    ("user_timeout", |b, t| {
        duration(t).map(|v| b.user_timeout = v)
    }),
    ("send_buffer_bytes", |b, t| {
        bytes(t).map(|v| b.send_buffer_bytes = v)
    }),
    ("bulkhead", |b, t| {
        percent(t).map(|v| b.bulkhead_percent = v)
    }),
    ("on_lane_unavailable", |b, t| {
        b.on_lane_unavailable = match t {
            "wait" => OnLaneUnavailable::Wait,
            "fail_fast" => OnLaneUnavailable::FailFast,
            "dead_letter" => OnLaneUnavailable::DeadLetter,
            _ => return Err("wait, fail_fast or dead_letter".into()),
        };
        Ok(())
    }),
    ("exhausted", |b, t| {
        b.exhausted = Some(match t {
            "error" => Exhausted::Error,
            "callback" => Exhausted::Callback,
            "dead_letter" => Exhausted::DeadLetter,
            _ => return Err("error, callback or dead_letter".into()),
        });
        Ok(())
    }),
    ("dead_letter_topic", |b, t| {
        if !is_topic_name(t) {
            return Err(
                "a topic's name: 1 to 249 letters, digits, dots, dashes and underscores".into(),
            );
        }
        b.dead_letter_topic = t.into();
        Ok(())
    }),
    ("dead_letter_expired", |b, t| {
        truth(t).map(|v| b.dead_letter_expired = v)
    }),
    ("dead_letter_unknown", |b, t| {
        truth(t).map(|v| b.dead_letter_unknown = v)
    }),
    ("idle_probe", |b, t| duration(t).map(|v| b.idle_probe = v)),
    ("health", |b, t| {
        b.health.on = match t {
            "on" => true,
            "off" => false,
            _ => return Err("on or off".into()),
        };
        Ok(())
    }),
    ("health.tau", |b, t| duration(t).map(|v| b.health.tau = v)),
    ("health.tick", |b, t| duration(t).map(|v| b.health.tick = v)),
    ("health.cf", |b, t| {
        number(t, "1 to 1000").map(|v| b.health.consecutive_failures = v)
    }),
    ("health.stall", |b, t| {
        duration(t).map(|v| b.health.stall = v)
    }),
    ("health.slow_ratio", |b, t| {
        number(t, "2 to 1000").map(|v| b.health.slow_ratio = v)
    }),
    ("health.slow_floor", |b, t| {
        duration(t).map(|v| b.health.slow_floor = v)
    }),
    ("health.min_volume", |b, t| {
        number(t, "1 to 1000000").map(|v| b.health.volume_min = v)
    }),
    ("health.window", |b, t| {
        duration(t).map(|v| b.health.window = v)
    }),
    ("health.eject_base", |b, t| {
        duration(t).map(|v| b.health.eject_base = v)
    }),
    ("health.eject_max", |b, t| {
        duration(t).map(|v| b.health.eject_max = v)
    }),
    ("health.probe_successes", |b, t| {
        number(t, "1 to 1000").map(|v| b.health.probe_successes = v)
    }),
    ("health.slow_start", |b, t| {
        duration(t).map(|v| b.health.slow_start = v)
    }),
    ("health.max_eject", |b, t| {
        percent(t).map(|v| b.health.eject_percent_max = v)
    }),
    ("health.panic", |b, t| {
        percent(t).map(|v| b.health.panic_percent = v)
    }),
];

/// `50%`.
fn percent(text: &str) -> Result<u8, String> {
    const ALLOWED: &str = "0% to 100%";
    number(text.strip_suffix('%').unwrap_or("").trim(), ALLOWED)
}

fn number<N: FromStr>(text: &str, allowed: &str) -> Result<N, String> {
    text.parse().map_err(|_| allowed.into())
}

fn truth(text: &str) -> Result<bool, String> {
    number(text, "true or false")
}

/// `5ms`, `500us` or `500µs`, `1.5s`, `2m`; `0` needs no unit.
fn duration(text: &str) -> Result<Duration, String> {
    const ALLOWED: &str = "a number with us, ms, s or m, such as 5ms";
    let unit_at = text.find(char::is_alphabetic).unwrap_or(text.len());
    let (amount, unit) = text.split_at(unit_at);
    let amount: f64 = number(amount.trim(), ALLOWED)?;
    let seconds = match unit {
        // The micro sign, or the Greek letter that looks like it.
        "us" | "\u{b5}s" | "\u{3bc}s" => amount / 1e6,
        "ms" => amount / 1e3,
        "s" => amount,
        "m" => amount * 60.0,
        "" if amount == 0.0 => 0.0,
        _ => return Err(ALLOWED.into()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| ALLOWED.into())
}

/// `64MiB`, `16KiB`, `100B`; a bare number is bytes.
fn bytes(text: &str) -> Result<usize, String> {
    const ALLOWED: &str = "a number with B, KiB, MiB or GiB, such as 64MiB";
    let unit_at = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (amount, unit) = text.split_at(unit_at);
    let amount: usize = number(amount.trim(), ALLOWED)?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(ALLOWED.into()),
    };
    amount.checked_mul(1 << shift).ok_or_else(|| ALLOWED.into())
}

/// `connection=5:50ms:2s, corrupt=never`; or `none`.
fn retry_rules(text: &str, usual: Backoff) -> Result<[Option<Rule>; Class::ALL.len()], String> {
    let allowed = || {
        let classes = Class::ALL.map(Class::name).join(", ");
        format!(
            "none, or with commas CLASS=never or CLASS=ATTEMPTS[:BACKOFF[:MAX]], such as \
             connection=5:50ms:2s, where ATTEMPTS may be unlimited and CLASS is one of {classes}"
        )
    };
    let mut rules = [None; Class::ALL.len()];
    if text == "none" {
        return Ok(rules);
    }
    for part in text.split(',') {
        let (name, rule) = part.split_once('=').ok_or_else(allowed)?;
        let class = Class::ALL.into_iter().find(|c| c.name() == name.trim());
        let class = class.ok_or_else(allowed)?;
        let mut words = rule.split(':').map(str::trim);
        let rule = match words.next() {
            Some("never") => Rule::GiveUp,
            Some(attempts) => {
                let attempts_max = match attempts {
                    "unlimited" => Some(u32::MAX),
                    _ => Some(attempts.parse().map_err(|_| allowed())?),
                };
                let initial = words.next().map(duration).transpose()?;
                let max = words.next().map(duration).transpose()?;
                let backoff = initial.map(|initial| Backoff {
                    initial,
                    max: max.unwrap_or(initial),
                    ..usual
                });
                Rule::Retry {
                    attempts_max,
                    backoff,
                }
            }
            None => return Err(allowed()),
        };
        if words.next().is_some() || rules[class as usize].replace(rule).is_some() {
            return Err(allowed());
        }
    }
    Ok(rules)
}

/// `20%:10:100`; or `off`.
fn retry_budget(text: &str) -> Result<Option<Budget>, String> {
    const ALLOWED: &str = "off, or PERCENT%[:PER_SECOND[:BURST]], such as 20%:10:100";
    if text == "off" {
        return Ok(None);
    }
    let mut budget = Budget::default();
    let mut words = text.split(':').map(str::trim);
    let percent = words.next().and_then(|word| word.strip_suffix('%'));
    budget.percent_of_successes = number(percent.ok_or(ALLOWED)?.trim_end(), ALLOWED)?;
    for field in [&mut budget.per_second, &mut budget.burst] {
        if let Some(word) = words.next() {
            *field = number(word, ALLOWED)?;
        }
    }
    if words.next().is_some() {
        return Err(ALLOWED.into());
    }
    Ok(Some(budget))
}

/// `host:port` with commas; IPv6 addresses in brackets.
pub(crate) fn parse_bootstrap(text: &str) -> Result<Vec<(String, u16)>, String> {
    let allowed =
        || String::from("host:port, several with commas, such as kafka-1:9092,[::1]:9092");
    text.split(',')
        .map(str::trim)
        .map(|place| {
            let (host, port) = place.rsplit_once(':').ok_or_else(allowed)?;
            let host = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .unwrap_or(host);
            let port: u16 = port.parse().map_err(|_| allowed())?;
            if host.is_empty() || port == 0 || host.contains(char::is_whitespace) {
                return Err(allowed());
            }
            Ok((host.to_owned(), port))
        })
        .collect()
}

/// How many letters have to change to make one word of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_are_told_at_once() {
        let faults = Builder::default()
            .bootstrap("nowhere")
            .linger(Duration::from_secs(61))
            .acks(Acks::Leader)
            .idempotent(true)
            .memory(0)
            .faults();
        let text = ConfigErrors(faults).to_string();
        for part in ["bootstrap", "nowhere", "linger", "idempotent", "memory"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn the_defaults_are_fine_but_for_the_address() {
        assert_eq!(Builder::default().bootstrap("localhost:9092").faults(), []);
        assert_eq!(Builder::default().faults().len(), 1);
    }

    #[test]
    fn every_setting_takes_its_own_default_as_text_and_refuses_nonsense() {
        for name in Builder::setting_names() {
            if name == "client_id" {
                continue;
            }
            let error = Builder::default().set(name, "?!").expect_err(name);
            assert!(matches!(error, ConfigError::NotAllowed { .. }), "{error}");
        }
    }

    #[test]
    fn units() {
        assert_eq!(duration("500us"), Ok(Duration::from_micros(500)));
        assert_eq!(duration("500\u{b5}s"), Ok(Duration::from_micros(500)));
        assert_eq!(duration("2 \u{3bc}s"), Ok(Duration::from_micros(2)));
        assert!(duration("5\u{fc}s").is_err(), "no unit, and no panic");
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert!(duration("5").is_err(), "a bare number could mean anything");
        assert!(duration("-1s").is_err());
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert!(bytes("1kb").is_err());
        assert!(bytes("99999999999999999999GiB").is_err());
    }

    /// What a policy is told by name, and that a fault names the setting and what is allowed.
    #[test]
    fn r1_a_retry_policy_by_name() {
        let set = |settings: &[(&str, &str)]| {
            let mut builder = Builder::default().bootstrap("localhost:9092");
            for (name, text) in settings {
                builder = builder.set(name, text)?;
            }
            Ok::<_, ConfigError>(builder)
        };
        let builder = set(&[
            ("retry_attempts", "7"),
            ("retry_backoff", "20ms"),
            ("retry_backoff_max", "3s"),
            ("retry_backoff_growth", "150%"),
            ("retry_jitter", "equal"),
            (
                "retry_rules",
                "connection=5:50ms:2s, corrupt = never,timeout=unlimited",
            ),
            ("retry_budget", "50%:20:200"),
        ]);
        let builder = builder.unwrap();
        assert_eq!(builder.faults(), []);
        let policy = builder.retry_policy();
        let backoff = Backoff {
            growth_percent: 150,
            jitter: Jitter::Equal,
            ..Backoff::new(Duration::from_millis(20), Duration::from_secs(3))
        };
        assert_eq!((policy.attempts_max, policy.backoff), (Some(7), backoff));
        assert_eq!(policy.for_class(Class::Corrupt).0, 1);
        assert_eq!(policy.for_class(Class::Timeout), (u32::MAX, backoff));
        let (attempts, of_connections) = policy.for_class(Class::Connection);
        assert_eq!(attempts, 5);
        assert_eq!(of_connections.initial, Duration::from_millis(50));
        assert_eq!(of_connections.max, Duration::from_secs(2));
        let budget = policy.budget.unwrap();
        assert_eq!(
            (budget.percent_of_successes, budget.per_second, budget.burst),
            (50, 20, 200)
        );
        let off = set(&[("retry_budget", "off"), ("retry_rules", "none")]).unwrap();
        assert_eq!(off.retry_policy().budget, None);

        for (name, text) in [
            ("retry_attempts", "-1"),
            ("retry_jitter", "some"),
            ("retry_rules", "connection"),
            ("retry_rules", "weather=never"),
            ("retry_rules", "corrupt=never,corrupt=2"),
            ("retry_rules", "corrupt=2:1ms:2ms:3ms"),
            ("retry_budget", "20"),
            ("retry_budget", "20%:1:2:3"),
        ] {
            let error = set(&[(name, text)]).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("allowed:"),
                "{error}"
            );
        }
        for (name, text, range) in [
            ("retry_attempts", "0", "at least 1"),
            ("retry_backoff", "0", "1 ms to 1 hour"),
            ("retry_backoff_growth", "99", "100 to 1000 %"),
            ("retry_rules", "other=0", "at least 1 attempt"),
            ("retry_rules", "other=2:5s:1s", "1 ms to 1 hour"),
            ("retry_budget", "20%:0", "1 to 10000 a second"),
        ] {
            let faults = set(&[(name, text)]).unwrap().faults();
            let [fault] = &faults[..] else {
                panic!("{name}: {faults:?}")
            };
            let fault = fault.to_string();
            assert!(fault.contains(name) && fault.contains(range), "{fault}");
        }
    }

    #[test]
    fn bootstrap_lists() {
        let list = parse_bootstrap("a:1, [::1]:2").unwrap();
        assert_eq!(list, [("a".into(), 1), ("::1".into(), 2)]);
        for bad in ["", "a", "a:", ":1", "a:0", "a:70000", "a:1,,b:2", "a b:1"] {
            assert!(parse_bootstrap(bad).is_err(), "{bad}");
        }
    }
}
