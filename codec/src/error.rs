//! What can be wrong with received bytes.
//!
//! All of these are the peer's fault, or the network's: the bytes do not follow the protocol. None
//! can be repaired by reading on; the usual answer is to close the connection and treat what was
//! in flight on it as unknown. The field's name is Kafka's. (The one exception is
//! [`DecodeError::Version`], which is our own fault when it is about what we wrote or asked for.)
//!
//! ```
//! use ringpost_codec::{error::DecodeError, reader::Reader};
//! let mut reader = Reader::new(&[0, 0]);
//! assert_eq!(
//!     reader.i32("correlation_id"),
//!     Err(DecodeError::Truncated { what: "correlation_id", needed: 4, left: 2 }),
//! );
//! ```

/// Received bytes that do not follow the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("the peer's message ends inside {what}: {needed} bytes needed, {left} left")]
    Truncated {
        /// The field.
        what: &'static str,
        /// How many bytes it needs.
        needed: usize,
        /// How many there are.
        left: usize,
    },
    /// Bytes are left over after the last field.
    #[error("the peer's message has {left} bytes after {what}")]
    Trailing {
        /// What should have ended there.
        what: &'static str,
        /// How many bytes are left.
        left: usize,
    },
    /// A length or count that is negative, or null where there is no null, or larger than the
    /// bytes that follow could hold. Found before any memory was taken for it.
    #[error("the peer's message gives {what} the impossible length {len} ({left} bytes left)")]
    Length {
        /// The field.
        what: &'static str,
        /// The length as it was sent.
        len: i64,
        /// How many bytes are left.
        left: usize,
    },
    /// More of something than this client is willing to keep.
    #[error("the peer's message has {count} {what}, more than the {max} that are accepted")]
    TooMany {
        /// The field.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// A variable-length integer with more bytes than it needs, or more bits than it may have.
    #[error("the peer's message has a malformed variable-length integer in {what}")]
    Varint {
        /// The field.
        what: &'static str,
    },
    /// A string that is not UTF-8.
    #[error("the peer's message has a string that is not UTF-8 in {what}")]
    Utf8 {
        /// The field.
        what: &'static str,
    },
    /// A value outside the field's range.
    #[error("the peer's message has the value {value} in {what}, which is out of range")]
    Value {
        /// The field.
        what: &'static str,
        /// What was sent.
        value: i64,
    },
    /// Tagged fields that do not rise: a tag is out of order or comes twice (KIP-482).
    #[error("the peer's message has tag {tag} out of order in {what}")]
    TagOrder {
        /// The structure the tags belong to.
        what: &'static str,
        /// The offending tag.
        tag: u32,
    },
    /// A version of a message that this crate does not speak.
    #[error("{what} version {version} is not supported")]
    Version {
        /// The message.
        what: &'static str,
        /// The version asked for.
        version: i16,
    },
}
