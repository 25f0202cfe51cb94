//! A record as the application hands it over: borrowed, so that nothing is copied before it is
//! written into its batch.

use bytes::Bytes;

pub use ringpost_codec::record::Header;

/// A record to be sent.
///
/// ```
/// use ringpost::{Header, Record};
/// let headers = [Header { key: "trace", value: Some(b"1") }];
/// let record = Record::keyed(b"user-7", b"{}").headers(&headers).timestamp_ms(1_700_000_000_000);
/// assert_eq!(record.key, Some(&b"user-7"[..]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Chooses the partition and is stored with the record.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone, which deletes the key from a compacted topic.
    pub value: Option<Value<'a>>,
    /// Headers in order. Names may repeat, values may be null.
    pub headers: &'a [Header<'a>],
    /// Milliseconds since 1970; `None` takes the time of the append. Topics with
    /// `message.timestamp.type=LogAppendTime` store the broker's instead.
    pub timestamp_ms: Option<i64>,
    /// The partition, from 0; `None` leaves the choice to the partitioner.
    pub partition: Option<i32>,
}

/// A value: copied into the batch, or taken by reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// Copied once, into the bytes that go on the wire.
    Copied(&'a [u8]),
    /// Taken by reference from 16 KiB on: the bytes must stay as they are, which [`Bytes`]
    /// guarantees. Smaller ones are copied; that is cheaper.
    Shared(Bytes),
}

impl Value<'_> {
    /// The bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl<'a> Record<'a> {
    /// A record with a value and no key.
    #[inline]
    #[must_use]
    pub fn value(value: &'a [u8]) -> Self {
        Self {
            key: None,
            value: Some(Value::Copied(value)),
            headers: &[],
            timestamp_ms: None,
            partition: None,
        }
    }

    /// A record with a key and a value.
    #[inline]
    #[must_use]
    pub fn keyed(key: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            key: Some(key),
            ..Self::value(value)
        }
    }

    /// A record whose value is taken by reference, if it is 16 KiB or more.
    #[must_use]
    pub fn shared(value: Bytes) -> Self {
        Self {
            value: Some(Value::Shared(value)),
            ..Self::value(&[])
        }
    }

    /// A record with a key and a null value.
    #[must_use]
    pub fn tombstone(key: &'a [u8]) -> Self {
        Self {
            key: Some(key),
            value: None,
            ..Self::value(&[])
        }
    }

    /// With this key.
    #[must_use]
    pub fn key(mut self, key: &'a [u8]) -> Self {
        self.key = Some(key);
        self
    }

    /// With these headers.
    #[must_use]
    pub fn headers(mut self, headers: &'a [Header<'a>]) -> Self {
        self.headers = headers;
        self
    }

    /// With this timestamp, in milliseconds since 1970.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// To this partition, counted from 0.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
}
