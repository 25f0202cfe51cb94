//! The messages of the Kafka protocol that a producer needs.
//!
//! Each message is written and read for every version named in its module, both ways: the broker
//! model of the test bench uses the other half. Readers borrow, except that of the metadata
//! response, whose result outlives its frame.
//!
//! Modules:
//! - [`api_versions`]: what a broker can do: the first message on a connection
//! - [`error_code`]: error codes
//! - [`header`]: what stands in front of every request and response
//! - [`init_producer_id`]: producer ids, for idempotence and transactions
//! - [`metadata`]: brokers, topics, partitions, leaders
//! - [`produce`]: the message this crate exists for
//!
//! The field lists are those of Kafka's own
//! [message definitions](https://github.com/apache/kafka/tree/trunk/clients/src/main/resources/common/message),
//! and a KIP is one of the
//! [Kafka improvement proposals](https://cwiki.apache.org/confluence/display/KAFKA/Kafka+Improvement+Proposals).
//!
//! ```
//! use ringpost_codec::kafka::ApiKey;
//! use ringpost_codec::reader::Form;
//! assert_eq!(ApiKey::PRODUCE.form(8), Form::Classic);
//! assert_eq!(ApiKey::PRODUCE.form(9), Form::Compact);
//! assert_eq!(ApiKey::PRODUCE.to_string(), "Produce");
//! ```

use core::fmt;

use crate::reader::Form;

pub mod api_versions;
pub mod error_code;
pub mod header;
pub mod init_producer_id;
pub mod metadata;
pub mod produce;

pub use error_code::ErrorCode;

/// Which kind of request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiKey(pub i16);

impl ApiKey {
    /// Records to partitions.
    pub const PRODUCE: Self = Self(0);
    /// Brokers, topics, partitions, leaders.
    pub const METADATA: Self = Self(3);
    /// The beginning of SASL.
    pub const SASL_HANDSHAKE: Self = Self(17);
    /// What a broker can do.
    pub const API_VERSIONS: Self = Self(18);
    /// A producer id.
    pub const INIT_PRODUCER_ID: Self = Self(22);
    /// The rounds of SASL.
    pub const SASL_AUTHENTICATE: Self = Self(36);

    /// Kafka's name for it, if it is one that this crate speaks.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::PRODUCE => Some("Produce"),
            Self::METADATA => Some("Metadata"),
            Self::SASL_HANDSHAKE => Some("SaslHandshake"),
            Self::API_VERSIONS => Some("ApiVersions"),
            Self::INIT_PRODUCER_ID => Some("InitProducerId"),
            Self::SASL_AUTHENTICATE => Some("SaslAuthenticate"),
            _ => None,
        }
    }

    /// In which form a version of it is written. Unknown messages count as classic.
    #[must_use]
    pub const fn form(self, version: i16) -> Form {
        let compact_from = match self {
            Self::PRODUCE | Self::METADATA => 9,
            Self::API_VERSIONS => 3,
            Self::INIT_PRODUCER_ID | Self::SASL_AUTHENTICATE => 2,
            _ => return Form::Classic,
        };
        if version < compact_from {
            Form::Classic
        } else {
            Form::Compact
        }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "request kind {}", self.0),
        }
    }
}

/// The form of a version, if it is one of those spoken here.
fn check_version(
    api_key: ApiKey,
    versions: &core::ops::RangeInclusive<i16>,
    version: i16,
) -> Result<Form, crate::error::DecodeError> {
    if versions.contains(&version) {
        return Ok(api_key.form(version));
    }
    let what = api_key.name().unwrap_or("message");
    Err(crate::error::DecodeError::Version { what, version })
}
