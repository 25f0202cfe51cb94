//! What a broker's error code means for a batch: the one map from code to action.
//!
//! Codes and their meaning: <https://kafka.apache.org/protocol#protocol_error_codes>.

use ringpost_codec::kafka::error_code::ErrorCode;

/// What to do with a batch after the broker's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is stored, at the offset the answer gives.
    Acked,
    /// It was stored by an earlier attempt; the answer's offset means nothing.
    AckedBefore,
    /// It is not stored. Try again.
    Retry,
    /// It is not stored, because we asked the wrong broker. Ask for metadata and try again.
    RefreshAndRetry,
    /// We asked the wrong broker. With `acks=all` it may be stored: a leader that appends, waits for
    /// its followers and loses its office meanwhile gives the same code as one that never was
    /// leader. Ask for metadata and try again.
    RefreshMaybeWritten,
    /// It may be stored. Try again with the same sequence, which the broker will recognise.
    RetryMaybeWritten,
    /// It is not stored, because its sequence does not follow the broker's last one.
    OutOfSequence,
    /// It is not stored, because the broker knows a newer epoch or forgot the producer id.
    NewEpoch,
    /// It is not stored and never will be.
    Reject,
    /// A code we do not know: it may be stored, and trying again may be wrong.
    Unknown,
}

/// The action for a code.
#[must_use]
pub fn action(code: ErrorCode) -> Action {
    match code {
        ErrorCode::NONE => Action::Acked,
        ErrorCode::DUPLICATE_SEQUENCE_NUMBER => Action::AckedBefore,

        // Given before anything is appended.
        ErrorCode::UNKNOWN_TOPIC_ID
        | ErrorCode::INCONSISTENT_TOPIC_ID
        | ErrorCode::FENCED_LEADER_EPOCH
        | ErrorCode::UNKNOWN_LEADER_EPOCH => Action::RefreshAndRetry,

        ErrorCode::NOT_LEADER_OR_FOLLOWER
        | ErrorCode::LEADER_NOT_AVAILABLE
        | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::REPLICA_NOT_AVAILABLE
        | ErrorCode::BROKER_NOT_AVAILABLE
        | ErrorCode::KAFKA_STORAGE_ERROR => Action::RefreshMaybeWritten,

        ErrorCode::NOT_ENOUGH_REPLICAS
        | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
        | ErrorCode::CONCURRENT_TRANSACTIONS
        | ErrorCode::THROTTLING_QUOTA_EXCEEDED
        // Bytes can flip on their way; ours are checked before they are sent again.
        | ErrorCode::CORRUPT_MESSAGE => Action::Retry,

        ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
        | ErrorCode::REQUEST_TIMED_OUT
        | ErrorCode::NETWORK_EXCEPTION => Action::RetryMaybeWritten,

        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER => Action::OutOfSequence,
        ErrorCode::UNKNOWN_PRODUCER_ID
        | ErrorCode::INVALID_PRODUCER_EPOCH
        | ErrorCode::INVALID_PRODUCER_ID_MAPPING => Action::NewEpoch,

        ErrorCode::MESSAGE_TOO_LARGE
        | ErrorCode::RECORD_LIST_TOO_LARGE
        | ErrorCode::INVALID_TOPIC_EXCEPTION
        | ErrorCode::INVALID_REQUIRED_ACKS
        | ErrorCode::TOPIC_AUTHORIZATION_FAILED
        | ErrorCode::CLUSTER_AUTHORIZATION_FAILED
        | ErrorCode::INVALID_TIMESTAMP
        | ErrorCode::UNSUPPORTED_VERSION
        | ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT
        | ErrorCode::UNSUPPORTED_COMPRESSION_TYPE
        | ErrorCode::POLICY_VIOLATION
        | ErrorCode::INVALID_REQUEST
        | ErrorCode::INVALID_RECORD
        | ErrorCode::SECURITY_DISABLED
        | ErrorCode::PRODUCER_FENCED
        | ErrorCode::INVALID_TXN_STATE
        | ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        | ErrorCode::TRANSACTION_ABORTABLE => Action::Reject,

        _ => Action::Unknown,
    }
}
