//! What became of a batch, and why.
//!
//! Every batch gets exactly one [`Verdict`]. "Maybe written" is a verdict of its own: a timeout
//! says nothing about what the broker stored.

use alloc::sync::Arc;
use core::net::SocketAddr;

use ringpost_codec::kafka::error_code::ErrorCode;

use crate::id::BrokerId;

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The broker stored it, as far as the `acks` setting asks.
    Acked {
        /// The offset of the first record. `None` when the broker answered that it had the batch
        /// already and no longer knows where.
        base_offset: Option<i64>,
        /// The broker's time, on topics with `message.timestamp.type=LogAppendTime`.
        log_append_time_ms: Option<i64>,
    },
    /// `acks=0`: the kernel took the bytes; nobody will say more.
    Sent,
    /// It is certain that the broker did not store it.
    NotWritten(Failure),
    /// The broker may or may not have stored it.
    Unknown(Failure),
}

/// Why a batch was not acknowledged. Its [`source`](core::error::Error::source) is the last cause;
/// `{:#}` prints all there is in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What ended it.
    pub why: Why,
    /// How often it was sent.
    pub attempts: u32,
    /// What the first attempt that failed met.
    pub first: Option<Cause>,
    /// When that was, in milliseconds after the batch's first record was appended.
    pub first_after_ms: u32,
    /// What the last attempt met.
    pub last: Option<Cause>,
    /// When that was, in milliseconds after the batch's first record was appended.
    pub last_after_ms: u32,
    /// When it was given up, in milliseconds after the batch's first record was appended.
    pub after_ms: u32,
}

impl Failure {
    /// The end of a batch of which nothing else is known.
    #[must_use]
    pub fn new(why: Why) -> Self {
        Self {
            why,
            attempts: 0,
            first: None,
            first_after_ms: 0,
            last: None,
            last_after_ms: 0,
            after_ms: 0,
        }
    }
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}{}", self.why, Attempts(self.attempts))?;
        if !f.alternate() {
            return Ok(());
        }
        if let Some(first) = self.first.as_ref().filter(|_| self.first != self.last) {
            write!(f, "; first, after {} ms: {first}", self.first_after_ms)?;
        }
        if let Some(last) = &self.last {
            write!(f, "; last, after {} ms: {last}", self.last_after_ms)?;
        }
        write!(f, "; given up after {} ms", self.after_ms)
    }
}

impl core::error::Error for Failure {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        self.last.as_ref().map(|cause| cause as _)
    }
}

struct Attempts(u32);

impl core::fmt::Display for Attempts {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            0 => f.write_str(" (never sent)"),
            1 => f.write_str(" (sent once)"),
            n => write!(f, " (sent {n} times)"),
        }
    }
}

/// What ended a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// `delivery_timeout` passed.
    #[error("the delivery timeout passed")]
    Expired,
    /// The broker refused it for good.
    #[error("the broker refused it")]
    Rejected,
    /// As many attempts as the retry policy allows.
    #[error("the retry policy allows no further attempt")]
    RetriesExhausted,
    /// The broker refused it for its checksum, and it is ours that is wrong: something changed the bytes
    /// in this process after they were sealed. A broken memory module does that, and so does other
    /// code of the process that writes where it should not. What is read back of such records may be wrong.
    #[error("our own memory was damaged: records in this batch no longer match their checksum")]
    Damaged,
    /// The broker cannot take what the configuration asks for.
    #[error("the broker does not support it")]
    Unsupported,
    /// The partition's sequence was broken, and whether this batch was stored cannot be told.
    #[error("the partition's sequence was broken by a failure before it")]
    SequenceBroken,
    /// The shard that had it ended by a panic or because the kernel failed it. The log says more.
    #[error("the shard that had it is gone; the log says why")]
    ShardLost,
    /// The producer was closed before it was acknowledged.
    #[error("the producer was closed")]
    Closed,
    /// Its broker is avoided or dead, and as much waits for such brokers as may.
    #[error("its broker is avoided, and as much waits for such brokers as may")]
    Avoided,
    /// The application gave it up.
    #[error("it was purged")]
    Purged,
}

/// What an attempt met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The broker answered with an error code.
    #[error("broker {broker} answered {code}{}", Quoted(.message.as_deref()))]
    Broker {
        /// Which broker.
        broker: BrokerId,
        /// Its code.
        code: ErrorCode,
        /// Its words, if it gave any.
        message: Option<Arc<str>>,
    },
    /// The connection ended before the answer.
    #[error("the connection to broker {broker} ended: {reason}")]
    Disconnected {
        /// Which broker.
        broker: BrokerId,
        /// What the network or the peer did.
        reason: Arc<str>,
    },
    /// No connection could be made.
    #[error("cannot connect to broker {broker} at {address}: {reason}")]
    ConnectFailed {
        /// Which broker.
        broker: BrokerId,
        /// Where.
        address: SocketAddr,
        /// What the network said.
        reason: Arc<str>,
    },
    /// `request_timeout` passed without an answer.
    #[error("broker {broker} did not answer within the request timeout")]
    RequestTimeout {
        /// Which broker.
        broker: BrokerId,
    },
    /// The answer was not what the protocol allows.
    #[error("broker {broker} broke the protocol: {what}")]
    Protocol {
        /// Which broker.
        broker: BrokerId,
        /// How.
        what: Arc<str>,
    },
    /// The broker is too old, or too new.
    #[error("broker {broker} cannot be used: {what}")]
    Unsupported {
        /// Which broker.
        broker: BrokerId,
        /// What is missing.
        what: Arc<str>,
    },
    /// The partition had no leader.
    #[error("the partition has no leader")]
    NoLeader,
}

struct Quoted<'a>(Option<&'a str>);

impl core::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Escaped: these are a stranger's words, and they end up in logs.
        self.0
            .map_or(Ok(()), |text| write!(f, " (\"{}\")", text.escape_debug()))
    }
}
