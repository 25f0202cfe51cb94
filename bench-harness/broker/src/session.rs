//! One client connection: bytes in, requests worked on in order, answers out.
//!
//! The owner reads from the network straight into [`Session::space`], says how much came
//! ([`Session::filled`]) and calls [`Session::advance`] until it needs more bytes:
//!
//! ```text
//!   space() → read → filled(n) → advance(broker, now, out) → write out ─┐
//!     ▲                             │ Held{until}: call again then,      │
//!     └── NeedsBytes ───────────────┘ or when something was appended ◄───┘
//! ```
//! ```
//! use ringpost_broker::{Broker, BrokerConfig, Progress};
//! let mut broker = Broker::new(BrokerConfig::default());
//! let mut session = broker.session(1);
//! // ApiVersions v0, correlation id 7, no client id
//! session.receive(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff]);
//! let mut out = Vec::new();
//! assert_eq!(session.advance(&mut broker, 0, &mut out)?, Progress::NeedsBytes);
//! assert_eq!(out[4..8], [0, 0, 0, 7]); // behind the length: the correlation id
//! # Ok::<(), ringpost_broker::Closed>(())
//! ```
//!
//! Memory: the inbox grows as bytes come, never from a length alone, and not beyond one largest
//! request. Invariant: `start <= end <= inbox.len()`; a frame being received begins at `start`.

use std::sync::Arc;

use kafka_protocol::messages::ApiKey;
use ringpost_codec::error::DecodeError;
use ringpost_codec::kafka::ErrorCode;
use ringpost_codec::reader::{Form, Reader};

use crate::broker::Shared;
use crate::config::BrokerConfig;
use crate::faults::RequestFault;
use crate::produce::Produce;
use crate::shape;
use crate::small::{Ask, Small};

/// What is offered to a read when nothing is known of the next frame.
const CHUNK: usize = 64 << 10;
/// The length in front of a frame.
const LENGTH_LEN: usize = 4;
/// API key, version and correlation id: what can be read of any request.
const FIXED_HEADER_LEN: usize = 8;
/// Answers waiting in `out` beyond this are sent before more requests are worked on.
const OUT_SOFT_MAX: usize = 1 << 20;

/// What a session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Every complete request is answered.
    NeedsBytes,
    /// There is more to do as soon as the answers so far are sent: call again.
    SendFirst,
    /// The next answer is held back (a Fetch that found nothing, a scripted delay). Call again at
    /// `until_ms`, or when something was appended.
    Held {
        /// On the clock handed to [`Session::advance`].
        until_ms: i64,
    },
}

/// Why the broker ends a connection. What is in `out` by then is still to be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The client sent a length that is negative, too small for a header, or beyond the bound.
    #[error("the client announced a request of {length} bytes; {max} are allowed here")]
    FrameLength {
        /// As it was sent.
        length: i32,
        /// `request_bytes_max` or `small_request_bytes_max`.
        max: usize,
    },
    /// The client's bytes do not follow the protocol.
    #[error("the client's request is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// The client's bytes passed the first look but not the decoder.
    #[error("the client's request cannot be decoded: {0}")]
    Undecodable(String),
    /// The client uses an API or version that was not advertised (or, for Produce below v3, that no
    /// broker serves).
    #[error("the client sent API {api} version {version}, which this broker does not serve")]
    Version {
        /// The API key.
        api: i16,
        /// The version.
        version: i16,
    },
    /// The client named a partition twice in one Produce request.
    #[error("the client named partition {0} of a topic twice in one Produce request")]
    PartitionTwice(i32),
    /// A Produce request with acks=0 failed: as in Kafka the only way to say so.
    #[error("a Produce request with acks=0 failed with {0:?}")]
    Unacknowledged(ErrorCode),
    /// The script of faults wanted it.
    #[error("the connection is closed because the fault script says so")]
    Scripted,
    /// An answer could not be written: a bug of this crate.
    #[error("the broker could not write its answer, a bug in it: {0}")]
    Unanswerable(String),
    /// The session had ended before.
    #[error("the connection has ended already")]
    Ended,
}

#[derive(Debug)]
enum Hold {
    /// The Fetch at `start` found nothing; it is looked at again.
    Fetch { until_ms: i64 },
    /// An answer that is ready, but not yet due.
    Answer { until_ms: i64, bytes: Vec<u8> },
}

/// One connection to one node of a [`crate::Broker`]. See the module's page for an example.
#[derive(Debug)]
pub struct Session {
    node_id: i32,
    config: Arc<BrokerConfig>,
    inbox: Vec<u8>,
    start: usize,
    end: usize,
    hold: Option<Hold>,
    took_records: bool,
    ended: bool,
}

/// What can be read of any request.
#[derive(Debug, Clone, Copy)]
struct Head {
    api: i16,
    version: i16,
    correlation_id: i32,
}

/// How one request ended.
enum Step {
    /// Answered, or silently done: the frame is used up.
    Done { took_records: bool },
    /// Nothing was found: the frame is to be looked at again.
    Again { until_ms: i64 },
    /// The answer appended to `out` from here on is held back.
    Later {
        until_ms: i64,
        from: usize,
        took_records: bool,
    },
}

impl Session {
    pub(crate) fn new(node_id: i32, config: Arc<BrokerConfig>) -> Self {
        Self {
            node_id,
            config,
            inbox: Vec::new(),
            start: 0,
            end: 0,
            hold: None,
            took_records: false,
            ended: false,
        }
    }

    /// Where the next bytes from the client go. Never empty.
    ///
    /// Of a large request not more than the rest of it is offered, so that it is never moved.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let have = self.end - self.start;
        let whole = self.announced().map_or(LENGTH_LEN, |len| len + LENGTH_LEN);
        let missing = whole.saturating_sub(have);
        let room = self.inbox.len() - self.end;
        if self.start > 0 && (room == 0 || room < missing) {
            // What is here of this request came with the end of the one before: at most a chunk.
            self.inbox.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, have);
        }
        if self.end == self.inbox.len() {
            // Twice what has come, but not more than the request at hand needs.
            let grown = (self.inbox.len() * 2)
                .min(whole)
                .max(CHUNK)
                .max(self.end + CHUNK);
            self.inbox.resize(grown, 0);
        }
        let until = self.inbox.len().min(self.end + missing.max(CHUNK));
        &mut self.inbox[self.end..until]
    }

    /// `n` bytes were read into [`Session::space`].
    ///
    /// # Panics
    /// When that is more than there was room for: a bug of the caller.
    pub fn filled(&mut self, n: usize) {
        assert!(
            n <= self.inbox.len() - self.end,
            "more bytes than there was room for"
        );
        self.end += n;
    }

    /// Takes bytes that lie elsewhere.
    pub fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.space();
            let n = space.len().min(bytes.len());
            space[..n].copy_from_slice(&bytes[..n]);
            self.filled(n);
            bytes = &bytes[n..];
            // A session that only gets bytes and never advances would grow without bound otherwise.
            if self.end - self.start > self.config.request_bytes_max + LENGTH_LEN + CHUNK {
                self.ended = true;
                return;
            }
        }
    }

    /// Whether Produce requests were worked on since this was last asked: Fetches that are held on
    /// other connections may find something now.
    pub fn took_records(&mut self) -> bool {
        std::mem::take(&mut self.took_records)
    }

    /// Works on every complete request and appends the answers to `out`.
    ///
    /// `now_ms` is the broker's wall clock, ms since 1970 (or the simulation's idea of it).
    ///
    /// # Errors
    /// [`Closed`]: send what is in `out`, then close the connection.
    pub fn advance(
        &mut self,
        shared: &mut impl Shared,
        now_ms: i64,
        out: &mut Vec<u8>,
    ) -> Result<Progress, Closed> {
        if self.ended {
            return Err(Closed::Ended);
        }
        let progress = self.work(shared, now_ms, out);
        self.ended = progress.is_err();
        progress
    }

    fn work(
        &mut self,
        shared: &mut impl Shared,
        now_ms: i64,
        out: &mut Vec<u8>,
    ) -> Result<Progress, Closed> {
        loop {
            let mut patience_over = false;
            let mut looked_before = false;
            match self.hold.take() {
                Some(Hold::Answer { until_ms, bytes }) if now_ms < until_ms => {
                    self.hold = Some(Hold::Answer { until_ms, bytes });
                    return Ok(Progress::Held { until_ms });
                }
                Some(Hold::Answer { bytes, .. }) => out.extend_from_slice(&bytes),
                Some(Hold::Fetch { until_ms }) => {
                    looked_before = true;
                    patience_over = now_ms >= until_ms;
                    self.hold = Some(Hold::Fetch { until_ms });
                }
                None => {}
            }
            if out.len() > OUT_SOFT_MAX {
                return Ok(Progress::SendFirst);
            }
            let Some(frame) = self.next_frame()? else {
                return Ok(Progress::NeedsBytes);
            };
            let end = frame.end;
            let step = handle(
                &self.config,
                self.node_id,
                &self.inbox[frame],
                shared,
                (now_ms, patience_over, looked_before),
                out,
            )?;
            match step {
                Step::Done { took_records } => {
                    self.took_records |= took_records;
                    self.hold = None;
                    self.start = end;
                }
                Step::Again { until_ms } => {
                    let until_ms = match self.hold {
                        Some(Hold::Fetch { until_ms }) => until_ms,
                        _ => until_ms,
                    };
                    self.hold = Some(Hold::Fetch { until_ms });
                    return Ok(Progress::Held { until_ms });
                }
                Step::Later {
                    until_ms,
                    from,
                    took_records,
                } => {
                    self.took_records |= took_records;
                    self.hold = Some(Hold::Answer {
                        until_ms,
                        bytes: out.split_off(from),
                    });
                    self.start = end;
                }
            }
        }
    }

    /// What the frame at `start` says of its length, if that much has come.
    fn announced(&self) -> Option<usize> {
        let length = self.inbox[self.start..self.end].first_chunk::<LENGTH_LEN>()?;
        usize::try_from(i32::from_be_bytes(*length)).ok()
    }

    /// The complete frame at `start`, without its length. Judges the length as soon as it is there.
    fn next_frame(&self) -> Result<Option<std::ops::Range<usize>>, Closed> {
        let here = &self.inbox[self.start..self.end];
        let Some(length) = here.first_chunk::<LENGTH_LEN>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        let max = match here.get(LENGTH_LEN..LENGTH_LEN + 2) {
            Some(api) if api != (ApiKey::Produce as i16).to_be_bytes() => {
                self.config.small_request_bytes_max
            }
            _ => self.config.request_bytes_max,
        };
        let len = usize::try_from(length).unwrap_or(0);
        if len < FIXED_HEADER_LEN || len > max {
            return Err(Closed::FrameLength { length, max });
        }
        let begin = self.start + LENGTH_LEN;
        Ok((here.len() >= LENGTH_LEN + len).then_some(begin..begin + len))
    }
}

/// Works on one request.
fn handle(
    config: &BrokerConfig,
    node_id: i32,
    frame: &[u8],
    shared: &mut impl Shared,
    (now_ms, patience_over, looked_before): (i64, bool, bool),
    out: &mut Vec<u8>,
) -> Result<Step, Closed> {
    let mut reader = Reader::new(frame);
    let head = Head {
        api: reader.i16("api_key")?,
        version: reader.i16("api_version")?,
        correlation_id: reader.i32("correlation_id")?,
    };
    let refused = Closed::Version {
        api: head.api,
        version: head.version,
    };
    let Ok(api) = ApiKey::try_from(head.api) else {
        return Err(refused);
    };
    let fault = match looked_before {
        false => shared.with(|broker| broker.faults.take_request(api)),
        true => None,
    };
    if fault == Some(RequestFault::CloseBefore) {
        return Err(Closed::Scripted);
    }
    if fault == Some(RequestFault::Ignore) {
        return Ok(Step::Done {
            took_records: false,
        });
    }
    let from = out.len();
    let mut took_records = false;
    if !config.versions.serves(api, head.version) {
        if api != ApiKey::ApiVersions {
            return Err(refused);
        }
        let body = shared.with(|broker| broker.api_versions_refusal())?;
        put_small(out, api, Head { version: 0, ..head }, body);
    } else {
        reader.nullable_string(Form::Classic, "client_id")?;
        if api.request_header_version(head.version) >= 2 {
            reader.skip_tagged_fields(Form::Compact, "request header")?;
        }
        let forced = match fault {
            Some(RequestFault::Error(code)) => Some(code),
            _ => None,
        };
        if api == ApiKey::Produce {
            let produce = Produce {
                node_id,
                version: head.version,
                correlation_id: head.correlation_id,
                now_ms,
                forced,
            };
            took_records |= produce.work(config, reader.rest(), shared, out)?;
        } else {
            shape::check(api, head.version, reader.rest())?;
            let ask = Ask {
                node_id,
                version: head.version,
                forced,
                patience_over,
            };
            match shared.with(|broker| broker.small(api, &ask, reader.rest()))? {
                Small::Wait(ms) => {
                    return Ok(Step::Again {
                        until_ms: now_ms.saturating_add(ms),
                    });
                }
                body => put_small(out, api, head, body),
            }
        }
    }
    match fault {
        Some(RequestFault::CloseAfter) => {
            out.truncate(from);
            Err(Closed::Scripted)
        }
        Some(RequestFault::CutAnswer(len)) => {
            out.truncate(out.len().min(from.saturating_add(len)));
            Err(Closed::Scripted)
        }
        Some(RequestFault::Silence) => {
            out.truncate(from);
            Ok(Step::Done { took_records })
        }
        Some(RequestFault::Delay(ms)) => Ok(Step::Later {
            until_ms: now_ms.saturating_add(ms),
            from,
            took_records,
        }),
        _ => Ok(Step::Done { took_records }),
    }
}

fn put_small(out: &mut Vec<u8>, api: ApiKey, head: Head, body: Small) {
    let Small::Answer(body) = body else { return };
    let tagged = api.response_header_version(head.version) >= 1;
    let len = 4 + usize::from(tagged) + body.len();
    out.extend_from_slice(&i32::try_from(len).unwrap_or(i32::MAX).to_be_bytes());
    out.extend_from_slice(&head.correlation_id.to_be_bytes());
    if tagged {
        out.push(0);
    }
    out.extend_from_slice(&body);
}
