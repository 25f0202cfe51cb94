//! A producer engine for Apache Kafka, for services where the producer's own cost and tail latency
//! matter: thread-per-core shards, io_uring connections, records written once into the bytes that
//! go on the wire.
//!
//! ```no_run
//! use ringpost::{Outcome, Producer, Record};
//!
//! let producer = Producer::builder().bootstrap("127.0.0.1:9092").build()?;
//! let topic = producer.topic_blocking("orders")?;
//! match topic.send_blocking(Record::keyed(b"user-7", b"hello"))?.wait() {
//!     Outcome::Acked(ack) => println!("partition {} offset {:?}", ack.partition, ack.offset),
//!     Outcome::Sent => println!("sent"),
//!     Outcome::NotWritten(failure) => println!("not written: {failure:#}"),
//!     Outcome::Unknown(failure) => println!("perhaps written: {failure:#}"),
//! }
//! producer.close(std::time::Duration::from_secs(5));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! *Sending.* [`Topic::try_send`] never blocks and gives a future; [`Topic::send`] waits for memory;
//! [`Topic::post`] is one-way; [`Topic::enqueue`] answers through a queue. *Outcomes.* Exactly one
//! [`Outcome`] per record, and "maybe written" is one of them. *Settings.* See [`config`].
//!
//! *Signals.* The engine handles none. On SIGTERM, stop sending and call [`Producer::close`] with
//! the time you have: see `examples/shutdown.rs`. *Fork.* Make producers after forking.
//! *Versions.* Semantic versioning: before 1.0 a minor version may break the API; the wire formats
//! are Kafka's and do not depend on ours.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "Ringpost runs on Linux only (io_uring and epoll are its two ways to the network). \
     Build it in a Linux container or virtual machine."
);

mod avoidance;
mod broker_stats;
mod bulkhead;
mod completions;
/// What a producer can be told.
pub mod config;
mod controller;
pub mod dead_letter;
mod delivery;
mod driver;
mod embedded;
mod error;
mod flush;
mod hook;
mod lane;
mod outcome;
mod panics;
mod placement;
mod producer;
mod purge;
mod ready;
mod record;
mod reports;
mod resolver;
mod shard;
mod shared;
mod squeeze;
mod stats;
mod sync;
mod topic;
mod undelivered;
mod wake;
mod warm_up;

pub use broker_stats::BrokerStats;
pub use bulkhead::OnLaneUnavailable;
pub use completions::{Completion, CompletionQueue};
pub use config::{Builder, ConfigError, ConfigErrors, Exhausted, Pin, Shards, WaitPolicy};
pub use dead_letter::{DeadLetter, DeadLetterError};
pub use delivery::Delivery;
pub use driver::{DriverChoice, RingRefused};
pub use embedded::Embedded;
pub use error::{FlushTimeout, SendError, StartError, TopicError, TrySendError, WarmUpError};
pub use flush::Flush;
pub use outcome::{Ack, Cause, Failure, Outcome, Why};
pub use producer::{CloseReport, Producer};
pub use purge::{Purge, Purging};
pub use record::{Header, Record, Value};
pub use stats::{DeadLetterStats, Settled, ShardStats, Stages, Stats};
pub use topic::{Extended, LocalTopic, Topic};
pub use undelivered::Undelivered;

pub use ringpost_codec::compress::{Codec, Compression};
pub use ringpost_codec::record::RecordView;
pub use ringpost_core::health::{HealthSettings, Reason, Standing};
pub use ringpost_core::id::PartitionId;
pub use ringpost_core::partition::Partitioner;
pub use ringpost_core::retry::{Backoff, Budget, Class, Jitter, RetryPolicy, Rule};
pub use ringpost_core::settings::Acks;
