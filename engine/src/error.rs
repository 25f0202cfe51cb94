//! What a caller can be told at once. Each says whose fault it is and what can be done; a record
//! that was not taken comes back.

use std::time::Duration;

use crate::record::Record;

pub use ringpost_core::directory::TopicError;

/// A record was not taken. It comes back, untouched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<'a> {
    /// The memory, or the completion queue, is full just now. Send slower, drain completions, wait
    /// with `send`, or configure more.
    #[error("full: the configured memory (or completion queue) is used up")]
    Full(Record<'a>),
    /// Its partition's broker is avoided or dead, and as much waits for such brokers as `bulkhead`
    /// allows. Send it elsewhere, or later, or drop it; records for other brokers are taken.
    #[error("the partition's broker is avoided, and as much waits for such brokers as may")]
    Avoided(Record<'a>),
    /// It can never be sent with this configuration.
    #[error(
        "the record takes {bytes} bytes on the wire, and at most {bytes_max} can be sent ({setting})"
    )]
    TooLarge {
        /// The record.
        record: Record<'a>,
        /// What it takes, with its batch's header.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
        /// By which setting.
        setting: &'static str,
    },
    /// The topic has no such partition.
    #[error("the topic has {count} partitions, and partition {partition} was asked for")]
    NoSuchPartition {
        /// The record.
        record: Record<'a>,
        /// What was asked for.
        partition: i32,
        /// How many there are.
        count: usize,
    },
    /// The producer is closed.
    #[error("the producer is closed")]
    Closed(Record<'a>),
}

impl<'a> TrySendError<'a> {
    /// The record.
    #[must_use]
    pub fn into_record(self) -> Record<'a> {
        match self {
            Self::Full(record)
            | Self::Avoided(record)
            | Self::TooLarge { record, .. }
            | Self::NoSuchPartition { record, .. }
            | Self::Closed(record) => record,
        }
    }
}

/// A record was not taken, after waiting for room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No room came free within `max_block`. Send slower, wait longer, or configure more memory.
    #[error("no memory came free within max_block ({max_block:?})")]
    TimedOut {
        /// How long it waited.
        max_block: Duration,
    },
    /// Its partition's broker is avoided or dead, and as much waits for such brokers as `bulkhead`
    /// allows (with `on_lane_unavailable = fail_fast`).
    #[error("the partition's broker is avoided, and as much waits for such brokers as may")]
    Avoided,
    /// It can never be sent with this configuration.
    #[error(
        "the record takes {bytes} bytes on the wire, and at most {bytes_max} can be sent ({setting})"
    )]
    TooLarge {
        /// What it takes, with its batch's header.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
        /// By which setting.
        setting: &'static str,
    },
    /// The topic has no such partition.
    #[error("the topic has {count} partitions, and partition {partition} was asked for")]
    NoSuchPartition {
        /// What was asked for.
        partition: i32,
        /// How many there are.
        count: usize,
    },
    /// The producer is closed.
    #[error("the producer is closed")]
    Closed,
}

/// Not everything was settled in time. Nothing is lost by this: it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{lanes} partitions still had records to settle after {waited:?}")]
pub struct FlushTimeout {
    /// Partitions with unsettled records of before the call.
    pub lanes: usize,
    /// How long it waited.
    pub waited: Duration,
}

/// Connections were not ready in time. Nothing is lost by this: they are made when needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WarmUpError {
    /// A topic cannot be used.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// Not every leader could be connected to.
    #[error("not every partition's leader could be reached within {waited:?}")]
    TimedOut {
        /// How long it waited.
        waited: Duration,
    },
}

/// The producer could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not usable; every fault is listed.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigErrors),
    /// The driver that was asked for cannot be used.
    #[error(
        "io_uring was asked for (driver=ring) and cannot be used: {0}; driver=auto takes epoll then"
    )]
    Driver(String),
    /// The system refused memory, a thread or a descriptor.
    #[error("the system refused {what}: {error}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// Its answer.
        #[source]
        error: std::io::Error,
    },
}
