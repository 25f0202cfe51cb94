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
    /// It is not stored, because the bytes that came do not match their checksum. Try again if ours
    /// still do.
    CheckAndRetry,
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
    /// It is not stored because it is too large. In smaller batches its records may be taken: the
    /// broker looks at the size before it looks at the sequence, so its numbers are still free.
    Split,
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
        | ErrorCode::THROTTLING_QUOTA_EXCEEDED => Action::Retry,
        // Bytes can flip on their way, and in our memory.
        ErrorCode::CORRUPT_MESSAGE => Action::CheckAndRetry,

        ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
        | ErrorCode::REQUEST_TIMED_OUT
        | ErrorCode::NETWORK_EXCEPTION => Action::RetryMaybeWritten,

        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER => Action::OutOfSequence,
        ErrorCode::UNKNOWN_PRODUCER_ID
        | ErrorCode::INVALID_PRODUCER_EPOCH
        | ErrorCode::INVALID_PRODUCER_ID_MAPPING => Action::NewEpoch,

        ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => Action::Split,

        ErrorCode::INVALID_TOPIC_EXCEPTION
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

/// Whether a leader that is cut off from its followers answers so. It goes on leading in its own eyes,
/// and never says that another was elected.
#[must_use]
pub fn tells_of_missing_followers(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NOT_ENOUGH_REPLICAS
            | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
            | ErrorCode::REQUEST_TIMED_OUT
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes a broker may answer a Produce request with, and what each means for the batch.
    const OF_PRODUCE: &[(Action, &[&str])] = &[
        (Action::Acked, &["NONE"]),
        (Action::AckedBefore, &["DUPLICATE_SEQUENCE_NUMBER"]),
        (
            Action::RefreshAndRetry,
            &[
                "UNKNOWN_TOPIC_ID",
                "INCONSISTENT_TOPIC_ID",
                "FENCED_LEADER_EPOCH",
                "UNKNOWN_LEADER_EPOCH",
            ],
        ),
        (
            Action::RefreshMaybeWritten,
            &[
                "NOT_LEADER_OR_FOLLOWER",
                "LEADER_NOT_AVAILABLE",
                "UNKNOWN_TOPIC_OR_PARTITION",
                "REPLICA_NOT_AVAILABLE",
                "BROKER_NOT_AVAILABLE",
                "KAFKA_STORAGE_ERROR",
            ],
        ),
        (
            Action::Retry,
            &[
                "NOT_ENOUGH_REPLICAS",
                "COORDINATOR_LOAD_IN_PROGRESS",
                "CONCURRENT_TRANSACTIONS",
                "THROTTLING_QUOTA_EXCEEDED",
            ],
        ),
        (Action::CheckAndRetry, &["CORRUPT_MESSAGE"]),
        (
            Action::RetryMaybeWritten,
            &[
                "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
                "REQUEST_TIMED_OUT",
                "NETWORK_EXCEPTION",
            ],
        ),
        (Action::OutOfSequence, &["OUT_OF_ORDER_SEQUENCE_NUMBER"]),
        (
            Action::NewEpoch,
            &[
                "UNKNOWN_PRODUCER_ID",
                "INVALID_PRODUCER_EPOCH",
                "INVALID_PRODUCER_ID_MAPPING",
            ],
        ),
        (
            Action::Split,
            &["MESSAGE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"],
        ),
        (
            Action::Reject,
            &[
                "INVALID_TOPIC_EXCEPTION",
                "INVALID_REQUIRED_ACKS",
                "TOPIC_AUTHORIZATION_FAILED",
                "CLUSTER_AUTHORIZATION_FAILED",
                "INVALID_TIMESTAMP",
                "UNSUPPORTED_VERSION",
                "UNSUPPORTED_FOR_MESSAGE_FORMAT",
                "UNSUPPORTED_COMPRESSION_TYPE",
                "POLICY_VIOLATION",
                "INVALID_REQUEST",
                "INVALID_RECORD",
                "SECURITY_DISABLED",
                "PRODUCER_FENCED",
                "INVALID_TXN_STATE",
                "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
                "TRANSACTION_ABORTABLE",
            ],
        ),
    ];

    /// Codes that belong to other requests. As an answer to Produce they say nothing about the batch.
    const OF_OTHERS: &[&str] = &[
        "UNKNOWN_SERVER_ERROR",
        "OFFSET_OUT_OF_RANGE",
        "INVALID_FETCH_SIZE",
        "STALE_CONTROLLER_EPOCH",
        "OFFSET_METADATA_TOO_LARGE",
        "COORDINATOR_NOT_AVAILABLE",
        "NOT_COORDINATOR",
        "ILLEGAL_GENERATION",
        "INCONSISTENT_GROUP_PROTOCOL",
        "INVALID_GROUP_ID",
        "UNKNOWN_MEMBER_ID",
        "INVALID_SESSION_TIMEOUT",
        "REBALANCE_IN_PROGRESS",
        "INVALID_COMMIT_OFFSET_SIZE",
        "GROUP_AUTHORIZATION_FAILED",
        "UNSUPPORTED_SASL_MECHANISM",
        "ILLEGAL_SASL_STATE",
        "TOPIC_ALREADY_EXISTS",
        "INVALID_PARTITIONS",
        "INVALID_REPLICATION_FACTOR",
        "INVALID_REPLICA_ASSIGNMENT",
        "INVALID_CONFIG",
        "NOT_CONTROLLER",
        "INVALID_TRANSACTION_TIMEOUT",
        "TRANSACTION_COORDINATOR_FENCED",
        "OPERATION_NOT_ATTEMPTED",
        "LOG_DIR_NOT_FOUND",
        "SASL_AUTHENTICATION_FAILED",
        "REASSIGNMENT_IN_PROGRESS",
        "DELEGATION_TOKEN_AUTH_DISABLED",
        "DELEGATION_TOKEN_NOT_FOUND",
        "DELEGATION_TOKEN_OWNER_MISMATCH",
        "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED",
        "DELEGATION_TOKEN_AUTHORIZATION_FAILED",
        "DELEGATION_TOKEN_EXPIRED",
        "INVALID_PRINCIPAL_TYPE",
        "NON_EMPTY_GROUP",
        "GROUP_ID_NOT_FOUND",
        "FETCH_SESSION_ID_NOT_FOUND",
        "INVALID_FETCH_SESSION_EPOCH",
        "LISTENER_NOT_FOUND",
        "TOPIC_DELETION_DISABLED",
        "STALE_BROKER_EPOCH",
        "OFFSET_NOT_AVAILABLE",
        "MEMBER_ID_REQUIRED",
        "PREFERRED_LEADER_NOT_AVAILABLE",
        "GROUP_MAX_SIZE_REACHED",
        "FENCED_INSTANCE_ID",
        "ELIGIBLE_LEADERS_NOT_AVAILABLE",
        "ELECTION_NOT_NEEDED",
        "NO_REASSIGNMENT_IN_PROGRESS",
        "GROUP_SUBSCRIBED_TO_TOPIC",
        "UNSTABLE_OFFSET_COMMIT",
        "RESOURCE_NOT_FOUND",
        "DUPLICATE_RESOURCE",
        "UNACCEPTABLE_CREDENTIAL",
        "INCONSISTENT_VOTER_SET",
        "INVALID_UPDATE_VERSION",
        "FEATURE_UPDATE_FAILED",
        "PRINCIPAL_DESERIALIZATION_FAILURE",
        "SNAPSHOT_NOT_FOUND",
        "POSITION_OUT_OF_RANGE",
        "DUPLICATE_BROKER_REGISTRATION",
        "BROKER_ID_NOT_REGISTERED",
        "INCONSISTENT_CLUSTER_ID",
        "TRANSACTIONAL_ID_NOT_FOUND",
        "FETCH_SESSION_TOPIC_ID_ERROR",
        "INELIGIBLE_REPLICA",
        "NEW_LEADER_ELECTED",
        "OFFSET_MOVED_TO_TIERED_STORAGE",
        "FENCED_MEMBER_EPOCH",
        "UNRELEASED_INSTANCE_ID",
        "UNSUPPORTED_ASSIGNOR",
        "STALE_MEMBER_EPOCH",
        "MISMATCHED_ENDPOINT_TYPE",
        "UNSUPPORTED_ENDPOINT_TYPE",
        "UNKNOWN_CONTROLLER_ID",
        "UNKNOWN_SUBSCRIPTION_ID",
        "TELEMETRY_TOO_LARGE",
        "INVALID_REGISTRATION",
        "INVALID_RECORD_STATE",
        "SHARE_SESSION_NOT_FOUND",
        "INVALID_SHARE_SESSION_EPOCH",
        "FENCED_STATE_EPOCH",
        "INVALID_VOTER_KEY",
        "DUPLICATE_VOTER",
        "VOTER_NOT_FOUND",
        "INVALID_REGULAR_EXPRESSION",
        "REBOOTSTRAP_REQUIRED",
        "STREAMS_INVALID_TOPOLOGY",
        "STREAMS_INVALID_TOPOLOGY_EPOCH",
        "STREAMS_TOPOLOGY_FENCED",
        "SHARE_SESSION_LIMIT_REACHED",
    ];

    /// Every code of the protocol is named once here, and has the action it is named under. Codes that
    /// do not belong to Produce, and codes that we have never heard of, leave the batch unknown.
    #[test]
    fn r5_every_code_has_exactly_one_action() {
        let named = |code: &ErrorCode| code.name().expect("a code of the table");
        for code in ErrorCode::ALL {
            let groups = OF_PRODUCE
                .iter()
                .filter(|(_, names)| names.contains(&named(code)));
            let mut groups: alloc::vec::Vec<_> = groups.map(|(action, _)| *action).collect();
            let of_others = OF_OTHERS.iter().filter(|name| **name == named(code));
            groups.extend(of_others.map(|_| Action::Unknown));
            assert_eq!(groups, [action(*code)], "{code}");
        }
        let count: usize = OF_PRODUCE.iter().map(|(_, names)| names.len()).sum();
        assert_eq!(count + OF_OTHERS.len(), ErrorCode::ALL.len());
        for unheard_of in [i16::MIN, -2, 134, 5000, i16::MAX] {
            assert_eq!(action(ErrorCode(unheard_of)), Action::Unknown);
        }
    }
}
