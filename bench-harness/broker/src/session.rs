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

use crate::append::PartitionAnswer;
use crate::broker::Shared;
use crate::cluster::Gate;
use crate::config::BrokerConfig;
use crate::faults::{RequestFault, Throttle};
use crate::produce::{Produce, Produced};
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
    /// The next answer is held back (a Fetch that found nothing, acks=all that waits for followers,
    /// a scripted delay, a throttled client, a paused node). Call again at `until_ms`, or when
    /// [`crate::Broker::changes`] has changed.
    Held {
        /// On the clock handed to [`Session::advance`]. When the cluster itself does something
        /// before that ([`crate::Broker::next_due_ms`]), it is that time.
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
    /// The connection's node crashed or was shut down.
    #[error("the connection's node has ended")]
    NodeEnded,
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
    /// The Produce at `start` is done, but for the followers.
    Produce(Waiting),
    /// An answer that is ready, but not yet due.
    Answer { until_ms: i64, bytes: Vec<u8> },
    /// The client is throttled: nothing of it is worked on.
    Mute { until_ms: i64 },
}

impl Hold {
    fn until_ms(&self) -> i64 {
        match self {
            Self::Fetch { until_ms } | Self::Answer { until_ms, .. } | Self::Mute { until_ms } => {
                *until_ms
            }
            Self::Produce(waiting) => waiting.until_ms,
        }
    }
}

/// A Produce that waits for followers.
#[derive(Debug)]
struct Waiting {
    until_ms: i64,
    answers: Vec<PartitionAnswer>,
    /// What the script wants done with the answer.
    fault: Option<RequestFault>,
}

/// What is known of a request that is looked at again.
#[derive(Debug, Default)]
struct Again {
    fetch_until_ms: Option<i64>,
    produce: Option<Waiting>,
}

impl Again {
    fn hold(self) -> Option<Hold> {
        let fetch = self.fetch_until_ms.map(|until_ms| Hold::Fetch { until_ms });
        self.produce.map(Hold::Produce).or(fetch)
    }
}

/// One connection to one node of a [`crate::Broker`]. See the module's page for an example.
#[derive(Debug)]
pub struct Session {
    node_id: i32,
    /// Which of the node's lives this connection belongs to.
    life: u64,
    config: Arc<BrokerConfig>,
    inbox: Vec<u8>,
    start: usize,
    end: usize,
    hold: Option<Hold>,
    /// The latest `advance` left requests lying.
    idle_hands: bool,
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
    /// Answered, or silently done: the frame is used up. Nothing more is worked on for `mute_ms`.
    Done { took_records: bool, mute_ms: i64 },
    /// The frame is to be looked at again.
    Again { hold: Hold, took_records: bool },
    /// The answer appended to `out` from here on is held back.
    Later {
        until_ms: i64,
        from: usize,
        took_records: bool,
    },
}

impl Session {
    pub(crate) fn new(node_id: i32, life: u64, config: Arc<BrokerConfig>) -> Self {
        Self {
            node_id,
            life,
            config,
            inbox: Vec::new(),
            start: 0,
            end: 0,
            hold: None,
            idle_hands: false,
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

    /// How many bytes the connection would take now. While requests are worked on there is no limit
    /// here; while nothing is (the node is paused, an answer is held back) it is what is left of
    /// [`BrokerConfig::socket_buffer_bytes`]: beyond that, TCP would make the client wait.
    #[must_use]
    pub fn room(&self) -> usize {
        if !self.idle_hands {
            return usize::MAX;
        }
        let lying = self.end - self.start;
        self.config.socket_buffer_bytes.saturating_sub(lying)
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
        let gate = shared.with(|broker| {
            broker.tick(now_ms);
            broker.gate(self.node_id, self.life)
        });
        let progress = match gate {
            Gate::Open => self.work(shared, now_ms, out),
            Gate::Shut => Ok(Progress::Held { until_ms: i64::MAX }),
            Gate::Gone => Err(Closed::NodeEnded),
        };
        self.ended = progress.is_err();
        self.idle_hands = matches!(progress, Ok(Progress::Held { .. }));
        match progress {
            // What is waited for may be what the cluster does by itself.
            Ok(Progress::Held { until_ms }) => {
                let next_due = shared.with(|broker| broker.next_due_ms());
                Ok(Progress::Held {
                    until_ms: until_ms.min(next_due.unwrap_or(i64::MAX)),
                })
            }
            other => other,
        }
    }

    fn work(
        &mut self,
        shared: &mut impl Shared,
        now_ms: i64,
        out: &mut Vec<u8>,
    ) -> Result<Progress, Closed> {
        loop {
            let mut again = Again::default();
            match self.hold.take() {
                Some(Hold::Answer { until_ms, bytes }) if now_ms < until_ms => {
                    self.hold = Some(Hold::Answer { until_ms, bytes });
                    return Ok(Progress::Held { until_ms });
                }
                Some(Hold::Mute { until_ms }) if now_ms < until_ms => {
                    self.hold = Some(Hold::Mute { until_ms });
                    return Ok(Progress::Held { until_ms });
                }
                Some(Hold::Answer { bytes, .. }) => out.extend_from_slice(&bytes),
                Some(Hold::Fetch { until_ms }) => again.fetch_until_ms = Some(until_ms),
                Some(Hold::Produce(waiting)) => again.produce = Some(waiting),
                Some(Hold::Mute { .. }) | None => {}
            }
            if out.len() > OUT_SOFT_MAX {
                self.hold = again.hold();
                return Ok(Progress::SendFirst);
            }
            let Some(frame) = self.next_frame()? else {
                return Ok(Progress::NeedsBytes);
            };
            let end = frame.end;
            let request = Request {
                config: &self.config,
                node_id: self.node_id,
                now_ms,
                frame: &self.inbox[frame],
            };
            match request.work(again, shared, out)? {
                Step::Done {
                    took_records,
                    mute_ms,
                } => {
                    self.took_records |= took_records;
                    self.start = end;
                    self.hold = (mute_ms > 0).then(|| Hold::Mute {
                        until_ms: now_ms.saturating_add(mute_ms),
                    });
                }
                Step::Again { hold, took_records } => {
                    self.took_records |= took_records;
                    let until_ms = hold.until_ms();
                    self.hold = Some(hold);
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

/// One request at work.
struct Request<'a> {
    config: &'a BrokerConfig,
    node_id: i32,
    now_ms: i64,
    frame: &'a [u8],
}

impl Request<'_> {
    fn work(
        &self,
        again: Again,
        shared: &mut impl Shared,
        out: &mut Vec<u8>,
    ) -> Result<Step, Closed> {
        let mut reader = Reader::new(self.frame);
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
        let fault = match &again {
            Again {
                produce: Some(waiting),
                ..
            } => waiting.fault,
            Again {
                fetch_until_ms: Some(_),
                ..
            } => None,
            _ => shared.with(|broker| broker.faults.take_request(api, self.node_id)),
        };
        if fault == Some(RequestFault::CloseBefore) {
            return Err(Closed::Scripted);
        }
        if fault == Some(RequestFault::Ignore) {
            return Ok(Step::Done {
                took_records: false,
                mute_ms: 0,
            });
        }
        let from = out.len();
        if !self.config.versions.serves(api, head.version) {
            if api != ApiKey::ApiVersions {
                return Err(refused);
            }
            let body = shared.with(|broker| broker.api_versions_refusal())?;
            put_small(out, api, Head { version: 0, ..head }, body);
            return self.finish(fault, (from, false, 0), out);
        }
        let client_id = reader.nullable_string(Form::Classic, "client_id")?;
        if api.request_header_version(head.version) >= 2 {
            reader.skip_tagged_fields(Form::Compact, "request header")?;
        }
        let throttle = shared.with(|broker| broker.faults.throttle_of(client_id));
        let mute_ms = if throttle.enforced { throttle.ms } else { 0 };
        let body = reader.rest();
        let mut took_records = false;
        if api == ApiKey::Produce {
            match self.produce(head, (fault, throttle), again.produce, body, shared, out)? {
                Step::Done {
                    took_records: took, ..
                } => took_records = took,
                waiting => return Ok(waiting),
            }
        } else {
            shape::check(api, head.version, body)?;
            let patience = again.fetch_until_ms;
            let ask = Ask {
                node_id: self.node_id,
                version: head.version,
                forced: forced(fault),
                patience_over: patience.is_some_and(|until| self.now_ms >= until),
                throttle_ms: throttle.ms,
                now_ms: self.now_ms,
            };
            match shared.with(|broker| broker.small(api, &ask, body))? {
                Small::Wait(ms) => {
                    let until_ms = patience.unwrap_or(self.now_ms.saturating_add(ms));
                    return Ok(Step::Again {
                        hold: Hold::Fetch { until_ms },
                        took_records: false,
                    });
                }
                body => put_small(out, api, head, body),
            }
        }
        self.finish(fault, (from, took_records, i64::from(mute_ms)), out)
    }

    fn produce(
        &self,
        head: Head,
        (fault, throttle): (Option<RequestFault>, Throttle),
        waiting: Option<Waiting>,
        body: &[u8],
        shared: &mut impl Shared,
        out: &mut Vec<u8>,
    ) -> Result<Step, Closed> {
        let produce = Produce {
            node_id: self.node_id,
            version: head.version,
            correlation_id: head.correlation_id,
            now_ms: self.now_ms,
            throttle_ms: throttle.ms,
            forced: forced(fault),
        };
        if let Some(mut waiting) = waiting {
            let Waiting {
                until_ms, answers, ..
            } = &mut waiting;
            if produce.look_again(body, *until_ms, answers, shared, out)? {
                return Ok(Step::Done {
                    took_records: false,
                    mute_ms: 0,
                });
            }
            return Ok(Step::Again {
                hold: Hold::Produce(waiting),
                took_records: false,
            });
        }
        Ok(match produce.work(self.config, body, shared, out)? {
            Produced::Answered(took_records) => Step::Done {
                took_records,
                mute_ms: 0,
            },
            Produced::Waiting { until_ms, answers } => Step::Again {
                hold: Hold::Produce(Waiting {
                    until_ms,
                    answers,
                    fault,
                }),
                took_records: true,
            },
        })
    }

    /// The answer lies in `out` from `from` on: what the script of faults wants done with it.
    fn finish(
        &self,
        fault: Option<RequestFault>,
        (from, took_records, mute_ms): (usize, bool, i64),
        out: &mut Vec<u8>,
    ) -> Result<Step, Closed> {
        let done = Step::Done {
            took_records,
            mute_ms,
        };
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
                Ok(done)
            }
            Some(RequestFault::Delay(ms)) => Ok(Step::Later {
                until_ms: self.now_ms.saturating_add(ms),
                from,
                took_records,
            }),
            _ => Ok(done),
        }
    }
}

fn forced(fault: Option<RequestFault>) -> Option<ErrorCode> {
    match fault {
        Some(RequestFault::Error(code)) => Some(code),
        _ => None,
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
