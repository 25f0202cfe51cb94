//! What a [`World`](crate::world::World) is made from.

use std::net::SocketAddr;
use std::time::Duration;

use ringpost_broker::{BrokerConfig, Keep, Node};
use ringpost_core::directory::DirectorySettings;
use ringpost_core::retry::Backoff;
use ringpost_core::settings::{Linger, Settings};

/// Milliseconds.
pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Microseconds.
pub const fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

/// Where node `id` listens unless a test moves it.
pub fn address(id: i32) -> SocketAddr {
    format!("10.0.0.{id}:9092").parse().expect("an address")
}

/// How the network behaves.
#[derive(Debug, Clone)]
pub struct Network {
    /// One way.
    pub latency: Duration,
    /// Up to so much more, drawn for each fragment; the order within a connection is kept.
    pub jitter: Duration,
    /// Bytes travel in fragments of 1 to so many bytes; 0 leaves them whole.
    pub fragment: usize,
    /// Between two fragments of an answer at least.
    pub pace: Duration,
    /// The way to the broker carries so many bytes a second on each connection; 0 carries all at once.
    pub up_bytes_per_second: usize,
    /// The kernel takes so many bytes of a frame at once; 0 takes all.
    pub send_chunk: usize,
}

/// What a world is made from.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What is drawn is drawn from this.
    pub seed: u64,
    /// Of the dispatcher.
    pub settings: Settings,
    /// Of the directory.
    pub directory: DirectorySettings,
    /// Of the cluster.
    pub broker: BrokerConfig,
    /// Between the two.
    pub network: Network,
    /// Batches are cut at this size.
    pub batch_bytes: usize,
}

impl Setup {
    /// So many nodes, half a millisecond away.
    pub fn new(nodes: i32) -> Self {
        let backoff = Backoff::new(ms(50), ms(1000));
        Self {
            seed: 1,
            settings: Settings {
                linger: Linger::Auto { gap: us(500) },
                ..Settings::default()
            },
            directory: DirectorySettings {
                client_id: "test".to_owned(),
                bootstrap: vec![("10.0.0.1".to_owned(), 9092)],
                connect_timeout: ms(10_000),
                request_timeout: ms(30_000),
                reconnect: backoff,
                refresh: Backoff::default(),
                metadata_max_age: ms(300_000),
                topic_timeout: ms(30_000),
                auto_create: false,
                idempotent: true,
            },
            broker: BrokerConfig {
                nodes: (1..=nodes)
                    .map(|id| Node {
                        id,
                        host: address(id).ip().to_string(),
                        port: 9092,
                    })
                    .collect(),
                keep: Keep::Everything,
                auto_create: false,
                numbered: true,
                ..BrokerConfig::default()
            },
            network: Network {
                latency: us(500),
                jitter: Duration::ZERO,
                fragment: 0,
                pace: Duration::ZERO,
                up_bytes_per_second: 0,
                send_chunk: 0,
            },
            batch_bytes: 16 << 10,
        }
    }

    /// Changes the dispatcher's settings; the directory follows.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self.directory.idempotent = self.settings.idempotent;
        self
    }

    /// Changes the directory's settings.
    pub fn directory(mut self, change: impl FnOnce(&mut DirectorySettings)) -> Self {
        change(&mut self.directory);
        self
    }

    /// Changes the cluster.
    pub fn broker(mut self, change: impl FnOnce(&mut BrokerConfig)) -> Self {
        change(&mut self.broker);
        self
    }

    /// Changes the network.
    pub fn network(mut self, change: impl FnOnce(&mut Network)) -> Self {
        change(&mut self.network);
        self
    }
}
