//! What stands in front of every request and response.
//!
//! | | classic | compact |
//! |---|---|---|
//! | request | v1: api key, version, correlation id, client id | v2: the same, then tagged fields |
//! | response | v0: correlation id | v1: the same, then tagged fields |
//!
//! Two exceptions: the client id is a classic string even in v2, and the response header of
//! ApiVersions is always v0, since a client must be able to read it before it knows the broker
//! (KIP-511).
//!
//! ```
//! use ringpost_codec::kafka::{header::{self, RequestHeader}, ApiKey};
//! let request = RequestHeader {
//!     api_key: ApiKey::METADATA, version: 4, correlation_id: 7, client_id: Some("me"),
//! };
//! let mut out = Vec::new();
//! header::put_request(&mut out, &request, |body| body.bool(true));
//! assert_eq!(out, [0, 0, 0, 13, 0, 3, 0, 4, 0, 0, 0, 7, 0, 2, b'm', b'e', 1]);
//! ```

use alloc::vec::Vec;

use crate::error::DecodeError;
use crate::kafka::ApiKey;
use crate::reader::{Form, Reader};
use crate::writer::{Writer, no_tagged_fields_len, nullable_string_len};

/// A request's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// Which request it is.
    pub api_key: ApiKey,
    /// Its version.
    pub version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// Who asks, for the broker's logs and quotas. At most 32,767 bytes.
    pub client_id: Option<&'a str>,
}

impl<'a> RequestHeader<'a> {
    /// How many bytes [`write`](Self::write) takes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        2 + 2
            + 4
            + nullable_string_len(Form::Classic, self.client_id)
            + no_tagged_fields_len(self.api_key.form(self.version))
    }

    /// Writes it.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.i16(self.api_key.0);
        writer.i16(self.version);
        writer.i32(self.correlation_id);
        writer.nullable_string(Form::Classic, self.client_id);
        writer.no_tagged_fields(self.api_key.form(self.version));
    }

    /// Reads it (as a broker does).
    ///
    /// Of a request kind or version unknown here only the first four fields are sure; what follows
    /// the client id is then left unread.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let header = Self {
            api_key: ApiKey(reader.i16("request_header.api_key")?),
            version: reader.i16("request_header.api_version")?,
            correlation_id: reader.i32("request_header.correlation_id")?,
            client_id: reader.nullable_string(Form::Classic, "request_header.client_id")?,
        };
        reader.skip_tagged_fields(header.api_key.form(header.version), "request_header")?;
        Ok(header)
    }
}

/// Appends a whole request: length, header, and the body that `body` writes.
pub fn put_request(
    out: &mut Vec<u8>,
    header: &RequestHeader<'_>,
    body: impl FnOnce(&mut Writer<'_>),
) {
    let mut writer = Writer::new(out);
    let len = writer.reserve_len();
    header.write(&mut writer);
    body(&mut writer);
    writer.patch(len);
}

/// Appends a whole response (as a broker does): length, header, and the body that `body` writes.
pub fn put_response(
    out: &mut Vec<u8>,
    api_key: ApiKey,
    version: i16,
    correlation_id: i32,
    body: impl FnOnce(&mut Writer<'_>),
) {
    let mut writer = Writer::new(out);
    let len = writer.reserve_len();
    writer.i32(correlation_id);
    writer.no_tagged_fields(response_form(api_key, version));
    body(&mut writer);
    writer.patch(len);
}

/// The correlation id of a response, which says to which request, hence to which version, the rest
/// of the header belongs. Follow with [`read_response_rest`].
pub fn read_correlation_id(reader: &mut Reader<'_>) -> Result<i32, DecodeError> {
    reader.i32("response_header.correlation_id")
}

/// The rest of a response's header, behind the correlation id.
pub fn read_response_rest(
    reader: &mut Reader<'_>,
    api_key: ApiKey,
    version: i16,
) -> Result<(), DecodeError> {
    reader.skip_tagged_fields(response_form(api_key, version), "response_header")
}

fn response_form(api_key: ApiKey, version: i16) -> Form {
    if api_key == ApiKey::API_VERSIONS {
        Form::Classic
    } else {
        api_key.form(version)
    }
}
