//! What became of a record.

use ringpost_core::outcome::Verdict;

pub use ringpost_core::outcome::{Cause, Failure, Why};

/// What became of a record: exactly one of these, for every record that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The broker stored it, as far as the `acks` setting asks.
    Acked(Ack),
    /// With `acks=0`: the kernel took the bytes, and nobody will say more.
    Sent,
    /// It is certain that the broker did not store it. Sending it again makes no duplicate.
    NotWritten(Failure),
    /// The broker may or may not have stored it. Sending it again may make a duplicate.
    Unknown(Failure),
}

/// Where a record is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Its partition.
    pub partition: i32,
    /// Its offset. `None` when the broker answered that it had the batch already, from an attempt
    /// whose answer was lost, and no longer knows where.
    pub offset: Option<i64>,
    /// The timestamp it is stored with, in milliseconds since 1970: its own, or the broker's on
    /// topics with `message.timestamp.type=LogAppendTime`.
    pub timestamp_ms: i64,
}

impl Outcome {
    /// The acknowledgement, or the failure as an error. `Sent` counts as acknowledged by nobody:
    /// `Ok(None)`.
    ///
    /// # Errors
    /// The failure of a record that was not, or perhaps not, written.
    #[expect(
        clippy::result_large_err,
        reason = "a failure tells its first and last cause; it is rare, and moved once"
    )]
    pub fn into_result(self) -> Result<Option<Ack>, Failure> {
        match self {
            Self::Acked(ack) => Ok(Some(ack)),
            Self::Sent => Ok(None),
            Self::NotWritten(failure) | Self::Unknown(failure) => Err(failure),
        }
    }

    /// The outcome of one record of a batch.
    pub(crate) fn of(verdict: &Verdict, partition: i32, index: u32, timestamp_ms: i64) -> Self {
        match verdict {
            Verdict::Acked {
                base_offset,
                log_append_time_ms,
            } => Self::Acked(Ack {
                partition,
                offset: base_offset.map(|base| base + i64::from(index)),
                timestamp_ms: log_append_time_ms.unwrap_or(timestamp_ms),
            }),
            Verdict::Sent => Self::Sent,
            Verdict::NotWritten(failure) => Self::NotWritten(failure.clone()),
            Verdict::Unknown(failure) => Self::Unknown(failure.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of all verdicts only an acknowledgement leads to a place, and only one with an offset to an
    /// offset: never 0, or a record's place in its batch, for "unknown".
    #[test]
    fn a6_a5_only_what_is_acked_has_a_place() {
        let failure = || Failure::new(Why::Expired);
        for (verdict, place) in [
            (Verdict::NotWritten(failure()), Err(failure())),
            (Verdict::Unknown(failure()), Err(failure())),
            (Verdict::Sent, Ok(None)),
        ] {
            assert_eq!(Outcome::of(&verdict, 3, 7, 99).into_result(), place);
        }
        for (base_offset, log_append_time_ms, offset, timestamp_ms) in [
            (Some(40), None, Some(47), 99),
            (Some(0), Some(5), Some(7), 5),
            (None, None, None, 99),
            (None, Some(5), None, 5),
        ] {
            let verdict = Verdict::Acked {
                base_offset,
                log_append_time_ms,
            };
            let ack = Ack {
                partition: 3,
                offset,
                timestamp_ms,
            };
            assert_eq!(Outcome::of(&verdict, 3, 7, 99), Outcome::Acked(ack));
        }
    }

    /// From a failure to its last cause by `source`; `{:#}` tells the first one too.
    #[test]
    fn r2_errors_lead_to_their_causes() {
        use std::error::Error as _;

        use ringpost_core::id::BrokerId;

        let cause = |reason: &str| {
            Some(Cause::Disconnected {
                broker: BrokerId(3),
                reason: reason.into(),
            })
        };
        let failure = Failure {
            attempts: 2,
            first: cause("reset"),
            last: cause("timed out"),
            ..Failure::new(Why::Expired)
        };
        let source = failure.source().expect("a cause");
        assert!(source.to_string().contains("timed out") && source.source().is_none());
        assert!(format!("{failure:#}").contains("reset"));
        assert!(Failure::new(Why::Closed).source().is_none());

        let error = std::io::Error::other("no more");
        let what = "threads";
        let start = crate::error::StartError::System { what, error };
        assert_eq!(start.source().expect("the system's").to_string(), "no more");
    }
}
