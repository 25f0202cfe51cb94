//! InitProducerId: a producer id and epoch, for idempotence and transactions. v0 to v5.
//!
//! Without a transactional id any broker answers and every call gives a new id. From v3 on the
//! request may carry the id and epoch at hand, and the broker raises the epoch
//! (KIP-360).
//!
//! ```
//! use ringpost_codec::kafka::{init_producer_id::{Request, Response}, ErrorCode};
//! use ringpost_codec::{reader::Reader, writer::Writer};
//! let mut out = Vec::new();
//! Request::default().write(4, &mut Writer::new(&mut out))?;
//!
//! let answer = Response { producer_id: 4711, producer_epoch: 0, ..Response::default() };
//! out.clear();
//! answer.write(4, &mut Writer::new(&mut out))?;
//! assert_eq!(Response::read(4, &mut Reader::new(&out))?, answer);
//! # Ok::<(), ringpost_codec::error::DecodeError>(())
//! ```

use core::ops::RangeInclusive;

use crate::error::DecodeError;
use crate::kafka::{ApiKey, ErrorCode, check_version};
use crate::reader::{Form, Reader};
use crate::writer::Writer;

/// The versions spoken here.
pub const VERSIONS: RangeInclusive<i16> = 0..=5;

fn form(version: i16) -> Result<Form, DecodeError> {
    check_version(ApiKey::INIT_PRODUCER_ID, &VERSIONS, version)
}

/// The question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Null without transactions.
    pub transactional_id: Option<&'a str>,
    /// How long a transaction may take; of no effect without transactions.
    pub transaction_timeout_ms: i32,
    /// The id at hand, or −1. Sent from v3 on.
    pub producer_id: i64,
    /// The epoch at hand, or −1. Sent from v3 on.
    pub producer_epoch: i16,
}

impl Default for Request<'_> {
    /// A new id, without transactions.
    fn default() -> Self {
        Self {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            producer_id: -1,
            producer_epoch: -1,
        }
    }
}

impl<'a> Request<'a> {
    /// Writes the body.
    pub fn write(&self, version: i16, writer: &mut Writer<'_>) -> Result<(), DecodeError> {
        let form = form(version)?;
        writer.nullable_string(form, self.transactional_id);
        writer.i32(self.transaction_timeout_ms);
        if version >= 3 {
            writer.i64(self.producer_id);
            writer.i16(self.producer_epoch);
        }
        writer.no_tagged_fields(form);
        Ok(())
    }

    /// Reads the body.
    pub fn read(version: i16, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let form = form(version)?;
        let transactional_id = reader.nullable_string(form, "init_producer_id.transactional_id")?;
        let transaction_timeout_ms = reader.i32("init_producer_id.transaction_timeout_ms")?;
        let (producer_id, producer_epoch) = if version >= 3 {
            (
                reader.i64("init_producer_id.producer_id")?,
                reader.i16("init_producer_id.producer_epoch")?,
            )
        } else {
            (-1, -1)
        };
        reader.skip_tagged_fields(form, "init_producer_id")?;
        Ok(Self {
            transactional_id,
            transaction_timeout_ms,
            producer_id,
            producer_epoch,
        })
    }
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// How long the broker wants to be left alone.
    pub throttle_time_ms: i32,
    /// Whether there is an id.
    pub error: ErrorCode,
    /// The id, −1 on error.
    pub producer_id: i64,
    /// The epoch, −1 on error.
    pub producer_epoch: i16,
}

impl Default for Response {
    /// No error, and no id.
    fn default() -> Self {
        Self {
            throttle_time_ms: 0,
            error: ErrorCode::NONE,
            producer_id: -1,
            producer_epoch: -1,
        }
    }
}

impl Response {
    /// Writes the body.
    pub fn write(&self, version: i16, writer: &mut Writer<'_>) -> Result<(), DecodeError> {
        let form = form(version)?;
        writer.i32(self.throttle_time_ms);
        writer.i16(self.error.0);
        writer.i64(self.producer_id);
        writer.i16(self.producer_epoch);
        writer.no_tagged_fields(form);
        Ok(())
    }

    /// Reads the body. Bytes behind it are left alone.
    pub fn read(version: i16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let form = form(version)?;
        let response = Self {
            throttle_time_ms: reader.i32("init_producer_id.throttle_time_ms")?,
            error: ErrorCode(reader.i16("init_producer_id.error_code")?),
            producer_id: reader.i64("init_producer_id.producer_id")?,
            producer_epoch: reader.i16("init_producer_id.producer_epoch")?,
        };
        reader.skip_tagged_fields(form, "init_producer_id")?;
        Ok(response)
    }
}
