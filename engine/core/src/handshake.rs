//! Agreeing on versions: the first exchange on every connection
//! ([KIP-35](https://cwiki.apache.org/confluence/display/KAFKA/KIP-35+-+Retrieving+protocol+version),
//! [KIP-511](https://cwiki.apache.org/confluence/display/KAFKA/KIP-511%3A+Collect+and+Expose+Client%27s+Name+and+Version+in+the+Brokers)).
//!
//! The newest ApiVersions request we know is asked first. A broker that does not know it answers
//! in the oldest form with `UNSUPPORTED_VERSION` and, if it is friendly, with the range it knows:
//! then the highest of that is asked, once. It is an error for the hint not to be lower.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use ringpost_codec::error::DecodeError;
use ringpost_codec::kafka::api_versions::{self, Response};
use ringpost_codec::kafka::header::{self, RequestHeader};
use ringpost_codec::kafka::{ApiKey, ErrorCode};
use ringpost_codec::reader::Reader;

/// The question that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    version: i16,
    correlation_id: i32,
}

/// The versions a broker offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offered(Response);

/// What an answer leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Agreed.
    Done(Offered),
    /// Ask again, with this lower version.
    AskAgain(i16),
}

impl Handshake {
    /// The ApiVersions version that is asked first.
    pub const NEWEST: i16 = 4;

    /// A question in this version.
    #[must_use]
    pub fn new(version: i16, correlation_id: i32) -> Self {
        Self {
            version,
            correlation_id,
        }
    }

    /// The version to try on a new connection after the broker hung up on this one without an
    /// answer, as some do on versions they do not know. After the oldest it is the newest again.
    #[must_use]
    pub fn after_hang_up(self) -> i16 {
        match self.version {
            0 => Self::NEWEST,
            1..=3 => 0,
            _ => 3,
        }
    }

    /// The request, as a whole frame.
    #[must_use]
    pub fn request(self, client_id: &str) -> Vec<u8> {
        let header = RequestHeader {
            api_key: ApiKey::API_VERSIONS,
            version: self.version,
            correlation_id: self.correlation_id,
            client_id: Some(client_id),
        };
        let question = api_versions::Request {
            client_software_name: "ringpost",
            client_software_version: env!("CARGO_PKG_VERSION"),
        };
        let mut out = Vec::with_capacity(64 + client_id.len());
        header::put_request(&mut out, &header, |writer| {
            question
                .write(self.version, writer)
                .expect("we ask in versions we know");
        });
        out
    }

    /// Reads the answer. The error is a text for the operator.
    pub fn answer(self, frame: &[u8]) -> Result<Answer, String> {
        let broken = |error: DecodeError| {
            format!("its answer to ApiVersions cannot be read ({error}); is this a Kafka broker?")
        };
        let mut reader = Reader::new(frame);
        let id = header::read_correlation_id(&mut reader).map_err(broken)?;
        if id != self.correlation_id {
            return Err(format!(
                "its answer to ApiVersions has correlation id {id} instead of {}; is this a Kafka \
                 broker?",
                self.correlation_id
            ));
        }
        header::read_response_rest(&mut reader, ApiKey::API_VERSIONS, self.version)
            .map_err(broken)?;
        let response = Response::read(self.version, &mut reader).map_err(broken)?;
        match response.error {
            ErrorCode::NONE => Ok(Answer::Done(Offered(response))),
            ErrorCode::UNSUPPORTED_VERSION if self.version > 0 => {
                let hint = response
                    .range(ApiKey::API_VERSIONS)
                    .map_or(0, |range| (*range.end()).max(0));
                if hint >= self.version {
                    return Err(format!(
                        "it refuses ApiVersions version {} and at the same time offers it",
                        self.version
                    ));
                }
                Ok(Answer::AskAgain(hint))
            }
            code => Err(format!("it answered ApiVersions with {code}")),
        }
    }
}

impl Offered {
    /// How long the broker wants to be left alone.
    pub(crate) fn throttle_time_ms(&self) -> i32 {
        self.0.throttle_time_ms
    }

    /// The highest version of `api` that both sides speak. The error is a text for the operator.
    pub fn agree(&self, api: ApiKey, ours: RangeInclusive<i16>) -> Result<i16, Arc<str>> {
        if let Some(version) = self.0.pick(api, ours.clone()) {
            return Ok(version);
        }
        Err(match self.0.range(api) {
            None => format!("it does not offer {api}"),
            Some(theirs) => format!(
                "it offers {api} in versions {} to {}, and one of {} to {} is needed",
                theirs.start(),
                theirs.end(),
                ours.start(),
                ours.end()
            ),
        }
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringpost_codec::kafka::api_versions::ApiRange;

    fn frame(version: i16, id: i32, response: &Response) -> Vec<u8> {
        let mut out = Vec::new();
        header::put_response(&mut out, ApiKey::API_VERSIONS, version, id, |writer| {
            response.write(version, writer).unwrap();
        });
        out.split_off(4)
    }

    fn offering(error: ErrorCode, min: i16, max: i16) -> Response {
        Response {
            error,
            ranges: alloc::vec![ApiRange {
                api_key: ApiKey::API_VERSIONS,
                min,
                max
            }],
            throttle_time_ms: 0,
        }
    }

    /// A hint leads to its version, none to 0, one not below ours is an error.
    #[test]
    fn w8_a_refused_version_leads_to_one_strictly_lower_one() {
        let asked = Handshake::new(4, 7);
        let hint = offering(ErrorCode::UNSUPPORTED_VERSION, 0, 2);
        assert_eq!(asked.answer(&frame(0, 7, &hint)), Ok(Answer::AskAgain(2)));
        let none = Response {
            error: ErrorCode::UNSUPPORTED_VERSION,
            ..Response::default()
        };
        assert_eq!(asked.answer(&frame(0, 7, &none)), Ok(Answer::AskAgain(0)));
        let same = offering(ErrorCode::UNSUPPORTED_VERSION, 0, 4);
        assert!(asked.answer(&frame(0, 7, &same)).is_err(), "no loop");
        let oldest = Handshake::new(0, 7);
        assert!(
            oldest.answer(&frame(0, 7, &none)).is_err(),
            "nothing is lower than 0"
        );
    }

    /// The error names the API that is missing, or both ranges.
    #[test]
    fn w9_a_missing_or_too_old_api_is_named() {
        let Ok(Answer::Done(offered)) =
            Handshake::new(3, 1).answer(&frame(3, 1, &offering(ErrorCode::NONE, 0, 2)))
        else {
            panic!("a good answer")
        };
        let missing = offered.agree(ApiKey::PRODUCE, 3..=13).unwrap_err();
        assert_eq!(&*missing, "it does not offer Produce");
        let old = offered.agree(ApiKey::API_VERSIONS, 3..=4).unwrap_err();
        assert!(old.contains("0 to 2") && old.contains("3 to 4"), "{old}");
    }

    /// An answer to ApiVersions with another id, noise or nothing is an error.
    #[test]
    fn h6_a_foreign_correlation_id_and_garbage_are_refused() {
        let good = offering(ErrorCode::NONE, 0, 4);
        assert!(Handshake::new(4, 7).answer(&frame(4, 8, &good)).is_err());
        assert!(
            Handshake::new(4, 7)
                .answer(b"HTTP/1.1 400 Bad Request")
                .is_err()
        );
        assert!(Handshake::new(4, 7).answer(&[]).is_err());
    }
}
