//! ApiVersions: what a broker can do, and who asks. v0 to v4.
//!
//! It is the first message on every connection. A broker that does not know the version it was
//! asked in answers with error 35 in the format of **v0**, usually naming the versions it knows of
//! this one request; [`Response::read`] falls back to that format.
//!
//! From v3 on the request names the client's software. Brokers refuse names outside
//! `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`
//! (KIP-511), so [`sanitise`] makes one.
//!
//! ```
//! use ringpost_codec::kafka::{api_versions::{sanitise, ApiRange, Response}, ApiKey};
//! assert_eq!(sanitise("my service/2 "), "my-service-2");
//!
//! let ranges = vec![ApiRange { api_key: ApiKey::PRODUCE, min: 0, max: 11 }];
//! let response = Response { ranges, ..Response::default() };
//! assert_eq!(response.pick(ApiKey::PRODUCE, 3..=13), Some(11));
//! assert_eq!(response.pick(ApiKey::METADATA, 1..=13), None);
//! ```

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::error::DecodeError;
use crate::kafka::{ApiKey, ErrorCode, check_version};
use crate::reader::{Form, Reader};
use crate::writer::Writer;

/// The versions spoken here.
pub const VERSIONS: RangeInclusive<i16> = 0..=4;

/// How many kinds of requests a broker may list. Kafka 4.4 has about ninety.
pub const RANGES_MAX: usize = 1024;

fn form(version: i16) -> Result<Form, DecodeError> {
    check_version(ApiKey::API_VERSIONS, &VERSIONS, version)
}

/// The nearest text that brokers accept as a software name or version: what is not allowed becomes
/// a hyphen, hyphens and dots at either end go, and nothing left becomes `unknown`.
#[must_use]
pub fn sanitise(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let text = text.trim_matches(['-', '.']);
    String::from(if text.is_empty() { "unknown" } else { text })
}

/// The question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Through [`sanitise`]. Sent from v3 on.
    pub client_software_name: &'a str,
    /// Through [`sanitise`]. Sent from v3 on.
    pub client_software_version: &'a str,
}

impl<'a> Request<'a> {
    /// Writes the body.
    pub fn write(&self, version: i16, writer: &mut Writer<'_>) -> Result<(), DecodeError> {
        let form = form(version)?;
        if version >= 3 {
            writer.string(form, self.client_software_name);
            writer.string(form, self.client_software_version);
        }
        writer.no_tagged_fields(form);
        Ok(())
    }

    /// Reads the body.
    pub fn read(version: i16, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let form = form(version)?;
        let (client_software_name, client_software_version) = if version >= 3 {
            (
                reader.string(form, "api_versions.client_software_name")?,
                reader.string(form, "api_versions.client_software_version")?,
            )
        } else {
            ("", "")
        };
        reader.skip_tagged_fields(form, "api_versions")?;
        Ok(Self {
            client_software_name,
            client_software_version,
        })
    }
}

/// The versions a broker knows of one kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiRange {
    /// The kind.
    pub api_key: ApiKey,
    /// The lowest version.
    pub min: i16,
    /// The highest version.
    pub max: i16,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// `UNSUPPORTED_VERSION` when the broker does not know the version of the question.
    pub error: ErrorCode,
    /// What it can do, in its own order.
    pub ranges: Vec<ApiRange>,
    /// How long the broker wants to be left alone.
    pub throttle_time_ms: i32,
}

impl Response {
    /// The versions the broker knows of a request; null when it does not know the request.
    #[must_use]
    pub fn range(&self, api_key: ApiKey) -> Option<RangeInclusive<i16>> {
        let range = self.ranges.iter().find(|range| range.api_key == api_key)?;
        Some(range.min..=range.max)
    }

    /// The highest version that both sides know.
    ///
    /// Brokers from 4.0 on list Produce from 0 but refuse everything below 3 (KAFKA-18659), so
    /// `ours` has to start at what really works.
    #[must_use]
    pub fn pick(&self, api_key: ApiKey, ours: RangeInclusive<i16>) -> Option<i16> {
        let theirs = self.range(api_key)?;
        let highest = *ours.end().min(theirs.end());
        (ours.contains(&highest) && theirs.contains(&highest)).then_some(highest)
    }

    /// Writes the body.
    pub fn write(&self, version: i16, writer: &mut Writer<'_>) -> Result<(), DecodeError> {
        let form = form(version)?;
        writer.i16(self.error.0);
        writer.array_len(form, self.ranges.len());
        for range in &self.ranges {
            writer.i16(range.api_key.0);
            writer.i16(range.min);
            writer.i16(range.max);
            writer.no_tagged_fields(form);
        }
        if version >= 1 {
            writer.i32(self.throttle_time_ms);
        }
        writer.no_tagged_fields(form);
        Ok(())
    }

    /// Reads the body of an answer to a question in this version. Feature lists (tagged fields)
    /// are skipped. Bytes behind it are left alone.
    pub fn read(version: i16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let form = form(version)?;
        let fallback = Reader::new(reader.rest());
        let asked = Self::read_as(version, form, reader);
        let refused = matches!(
            fallback.clone().i16("api_versions.error_code"),
            Ok(code) if ErrorCode(code) == ErrorCode::UNSUPPORTED_VERSION
        );
        if !refused || version == 0 {
            return asked;
        }
        // KIP-511: such an answer comes as v0. Should it not be readable so, it may have come in
        // the version that was asked for.
        let mut as_v0 = fallback;
        match Self::read_as(0, Form::Classic, &mut as_v0) {
            Ok(response) => {
                *reader = as_v0;
                Ok(response)
            }
            Err(error) => asked.map_err(|_| error),
        }
    }

    fn read_as(version: i16, form: Form, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "api_versions.api_keys";
        let error = ErrorCode(reader.i16("api_versions.error_code")?);
        let count = reader.array_len(form, 6, what)?;
        if count > RANGES_MAX {
            return Err(DecodeError::TooMany {
                what,
                count,
                max: RANGES_MAX,
            });
        }
        let mut ranges = Vec::with_capacity(count);
        for _ in 0..count {
            ranges.push(ApiRange {
                api_key: ApiKey(reader.i16("api_versions.api_key")?),
                min: reader.i16("api_versions.min_version")?,
                max: reader.i16("api_versions.max_version")?,
            });
            reader.skip_tagged_fields(form, what)?;
        }
        let throttle_time_ms = if version >= 1 {
            reader.i32("api_versions.throttle_time_ms")?
        } else {
            0
        };
        reader.skip_tagged_fields(form, "api_versions")?;
        Ok(Self {
            error,
            ranges,
            throttle_time_ms,
        })
    }
}
