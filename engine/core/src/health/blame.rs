//! Whose fault an answer is: only a node's own faults count against it.

use ringpost_codec::kafka::ErrorCode;

/// What an outcome is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The broker: its disks, its process, its connection.
    Node,
    /// One partition: its leader, its replicas, its sequence.
    Lane,
    /// The records: too large, damaged, not allowed by policy.
    Record,
    /// What we may do.
    Auth,
    /// How fast we may do it.
    Throttle,
}

/// What a broker's error code is about.
#[must_use]
pub fn scope(code: ErrorCode) -> Scope {
    match code {
        // UNKNOWN_SERVER_ERROR: an exception in the broker that it has no word for.
        ErrorCode::UNKNOWN_SERVER_ERROR
        | ErrorCode::KAFKA_STORAGE_ERROR
        | ErrorCode::NETWORK_EXCEPTION
        | ErrorCode::BROKER_NOT_AVAILABLE => Scope::Node,

        ErrorCode::MESSAGE_TOO_LARGE
        | ErrorCode::RECORD_LIST_TOO_LARGE
        | ErrorCode::CORRUPT_MESSAGE
        | ErrorCode::INVALID_RECORD
        | ErrorCode::INVALID_TIMESTAMP
        | ErrorCode::INVALID_TOPIC_EXCEPTION
        | ErrorCode::INVALID_REQUIRED_ACKS
        | ErrorCode::INVALID_REQUEST
        | ErrorCode::POLICY_VIOLATION
        | ErrorCode::UNSUPPORTED_VERSION
        | ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT
        | ErrorCode::UNSUPPORTED_COMPRESSION_TYPE => Scope::Record,

        ErrorCode::TOPIC_AUTHORIZATION_FAILED
        | ErrorCode::CLUSTER_AUTHORIZATION_FAILED
        | ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        | ErrorCode::SECURITY_DISABLED => Scope::Auth,

        ErrorCode::THROTTLING_QUOTA_EXCEEDED => Scope::Throttle,

        // Leaders that moved, replicas that lag (also REQUEST_TIMED_OUT: the followers' doing),
        // sequences that broke. Codes nobody knows yet say nothing of the broker's health.
        _ => Scope::Lane,
    }
}

/// What an answer as a whole says of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    /// It works: something was stored.
    Works,
    /// It does not: nothing was stored, and something for a fault of its own.
    Fails(ErrorCode),
    /// Nothing: what went wrong was not the broker's fault.
    Nothing,
}

/// Sums up the codes of an answer.
pub(crate) fn sum_up(codes: impl Iterator<Item = ErrorCode>) -> Says {
    let mut says = Says::Nothing;
    for code in codes {
        match code {
            ErrorCode::NONE | ErrorCode::DUPLICATE_SEQUENCE_NUMBER => return Says::Works,
            code if scope(code) == Scope::Node => says = Says::Fails(code),
            _ => {}
        }
    }
    says
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One stored batch says that a broker works; topic-level errors say nothing.
    #[test]
    fn v6_only_a_brokers_own_faults_count_against_it() {
        let storage = ErrorCode::KAFKA_STORAGE_ERROR;
        for (codes, says) in [
            (&[storage][..], Says::Fails(storage)),
            (&[storage, ErrorCode::NONE], Says::Works),
            (&[ErrorCode::MESSAGE_TOO_LARGE], Says::Nothing),
            (&[ErrorCode::TOPIC_AUTHORIZATION_FAILED], Says::Nothing),
            (&[ErrorCode::THROTTLING_QUOTA_EXCEEDED], Says::Nothing),
            (&[ErrorCode::NOT_LEADER_OR_FOLLOWER], Says::Nothing),
            (
                &[ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND],
                Says::Nothing,
            ),
            (&[ErrorCode::REQUEST_TIMED_OUT], Says::Nothing),
            (&[], Says::Nothing),
        ] {
            assert_eq!(sum_up(codes.iter().copied()), says, "{codes:?}");
        }
    }
}
