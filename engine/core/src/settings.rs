//! What the core can be told, already validated.

use alloc::string::String;
use core::time::Duration;

use crate::allowed_hosts::AllowedHosts;
use crate::health::HealthSettings;
use crate::retry::{Backoff, RetryPolicy};

/// Whose acknowledgement a record waits for. Kafka: `acks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// Nobody's: the outcome is `Sent` once the kernel has the bytes.
    None,
    /// The leader's: lost if the leader dies before a follower has copied it.
    Leader,
    /// All in-sync replicas'.
    #[default]
    All,
}

impl Acks {
    /// As the protocol counts: 0, 1, −1.
    #[must_use]
    pub fn wire(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// When records that are ready are sent. Kafka: `linger.ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linger {
    /// At once when the connection has been quiet for `gap`; else gathered until the gap is over,
    /// a batch is full, or 64 KiB are ready.
    Auto {
        /// The least time between two requests that are not full.
        gap: Duration,
    },
    /// So long after the first record, unless a batch is full.
    Fixed(Duration),
}

impl Default for Linger {
    fn default() -> Self {
        Self::Auto {
            gap: Duration::from_micros(500),
        }
    }
}

/// What the core can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Names us in the broker's logs and quotas. Kafka: `client.id`.
    pub client_id: String,
    /// Kafka: `acks`.
    pub acks: Acks,
    /// Kafka: `enable.idempotence`.
    pub idempotent: bool,
    /// Kafka: `linger.ms`.
    pub linger: Linger,
    /// Kafka: `max.request.size`.
    pub request_bytes_max: usize,
    /// Requests in flight per connection, 1 to 5. Kafka: `max.in.flight.requests.per.connection`.
    pub in_flight_max: usize,
    /// Kafka: `request.timeout.ms`.
    pub request_timeout: Duration,
    /// From the append to the last word. Kafka: `delivery.timeout.ms`.
    pub delivery_timeout: Duration,
    /// For a connection to be usable: TCP and negotiation. Kafka:
    /// `socket.connection.setup.timeout.ms`.
    pub connect_timeout: Duration,
    /// Kafka: `reconnect.backoff.ms`, `reconnect.backoff.max.ms`.
    pub reconnect: Backoff,
    /// Kafka: `retries`, `retry.backoff.ms`, `retry.backoff.max.ms`.
    pub retry: RetryPolicy,
    /// The newest Produce version to be used, 3 to 13: for brokers that offer more than they can do.
    pub produce_version_max: i16,
    /// Connections to each broker, per shard.
    pub connections_per_broker: usize,
    /// Connect to the brokers of all wanted topics at once instead of at the first record.
    pub eager: bool,
    /// A connection that was idle for so long is asked whether it still works; zero never asks.
    pub idle_probe: Duration,
    /// When brokers are avoided.
    pub health: HealthSettings,
    /// The hosts brokers may have that the cluster names.
    pub allowed_hosts: AllowedHosts,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            client_id: String::from("ringpost"),
            acks: Acks::All,
            idempotent: true,
            linger: Linger::default(),
            request_bytes_max: 1 << 20,
            in_flight_max: crate::limits::IN_FLIGHT_MAX,
            request_timeout: Duration::from_secs(30),
            delivery_timeout: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(10),
            reconnect: Backoff::new(Duration::from_millis(50), Duration::from_millis(1000)),
            retry: RetryPolicy::default(),
            produce_version_max: 13,
            connections_per_broker: 1,
            eager: false,
            idle_probe: Duration::from_secs(30),
            health: HealthSettings::default(),
            allowed_hosts: AllowedHosts::default(),
        }
    }
}
