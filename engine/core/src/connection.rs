//! One connection to one broker: its states, its window of requests in flight, when it is due.
//!
//! ```text
//!           wanted                connected             negotiated
//!   Idle ───────────► Connecting ───────────► Negotiating ─────────► Ready
//!    ▲ ▲                  │ failed                 │ failed            │ closed, timed out
//!    │ └── Resting ◄──────┴────────────────────────┴───────────────────┤ failed
//!    └────────────────────────────── closed while nothing was asked ───┘
//! ```
//!
//! The broker works off one request per connection at a time, in order, so answers come in the
//! order of the requests and the correlation id only has to be checked, not looked up.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use ringpost_codec::frame::Deframer;

use crate::batch_in_flight::Batch;
use crate::canary::{Canary, planted};
use crate::dispatch::Backlog;
use crate::handshake::Handshake;
use crate::id::{BrokerId, LaneId, TopicId};
use crate::limits;
use crate::outcome::Cause;
use crate::settings::{Linger, Settings};
use crate::time::Time;

/// A connection's name towards a driver: a slot, and a generation that tells a slot's present
/// connection from its earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// The place in the owner's table of connections.
    pub slot: u16,
    /// Counts the connections this slot has had.
    pub generation: u32,
}

/// Where a connection stands.
#[derive(Debug)]
pub(crate) enum State {
    /// Nobody needs it.
    Idle,
    /// Waiting after a failure; the `Reconnect` timer ends it.
    Resting,
    /// TCP is being set up.
    Connecting {
        /// To this address.
        address: SocketAddr,
    },
    /// Versions are being agreed on.
    Negotiating {
        /// With this address.
        address: SocketAddr,
        /// The question that was asked.
        handshake: Handshake,
    },
    /// Requests can be sent.
    Ready {
        /// To this address.
        address: SocketAddr,
        /// The Produce version both sides speak.
        produce_version: i16,
    },
}

/// A request that was handed to the driver and is not answered.
#[derive(Debug)]
pub(crate) struct Flight<P, T> {
    pub(crate) correlation_id: i32,
    pub(crate) version: i16,
    /// When it must be answered.
    pub(crate) deadline: Time,
    /// When the driver got it.
    pub(crate) handed_at: Time,
    /// When the kernel had taken its last byte.
    pub(crate) on_wire_at: Option<Time>,
    /// What it carries, in the order of the request.
    pub(crate) entries: Vec<Entry<P, T>>,
}

/// A batch of a request.
#[derive(Debug)]
pub(crate) struct Entry<P, T> {
    pub(crate) lane: LaneId,
    /// The topic's id at the time of sending: topics can be recreated meanwhile.
    pub(crate) topic_id: TopicId,
    /// Taken when it is settled.
    pub(crate) batch: Option<Batch<P, T>>,
    /// The batch has its verdict already, at the application's wish; its place in the window and its
    /// numbers wait for the answer.
    pub(crate) purged: bool,
}

/// One connection to one broker.
#[derive(Debug)]
pub(crate) struct Connection<P, T> {
    pub(crate) broker: BrokerId,
    pub(crate) generation: u32,
    pub(crate) state: State,
    /// Connections that failed since the last that became ready.
    pub(crate) failures: u32,
    /// Which of the broker's addresses is next.
    pub(crate) next_address: usize,
    /// The ApiVersions version to begin with: lower after a broker that hung up on ours.
    pub(crate) ask_version: i16,
    pub(crate) next_correlation: i32,
    pub(crate) flights: VecDeque<Flight<P, T>>,
    /// Bytes of the frame at the driver that the kernel has not taken yet.
    pub(crate) unsent: usize,
    /// The driver holds a frame.
    pub(crate) frame_out: bool,
    pub(crate) deframer: Deframer,
    /// Lanes with something to send, each once.
    pub(crate) ready: VecDeque<LaneId>,
    /// What the lanes in `ready` hold, as far as it was looked at.
    pub(crate) gathered: Gathered,
    pub(crate) last_send: Time,
    /// Something was asked and answered since it was made.
    pub(crate) served: bool,
    pub(crate) last_answer: Time,
    /// How long answers take: a moving average over about eight.
    pub(crate) answer_time: Duration,
    /// Requests in a row that carried a single record.
    pub(crate) lone: u32,
    /// Until then the broker asked us to be quiet.
    pub(crate) throttled_until: Time,
    /// Its address is no longer the broker's: it is left when nothing is in flight.
    pub(crate) stale: bool,
    /// What went wrong last, for the errors of batches that expire waiting for this connection.
    pub(crate) trouble: Option<Cause>,
    /// The broker cannot take what we send: end what waits for it.
    pub(crate) unsupported: bool,
    /// It was idle, and was asked whether it still works.
    pub(crate) probe: Option<Handshake>,
}

/// What is ready for a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gathered {
    pub(crate) bytes: usize,
    /// A batch is full, a lane is flushed, or a batch is tried again.
    pub(crate) now: bool,
    /// When the oldest record was appended.
    pub(crate) oldest: Time,
}

impl Gathered {
    pub(crate) const NOTHING: Self = Self {
        bytes: 0,
        now: false,
        oldest: Time::NEVER,
    };

    /// A lane with this much comes on the list.
    pub(crate) fn add(&mut self, backlog: Backlog) {
        if let Backlog::Waiting { bytes, now, oldest } = backlog {
            self.bytes += bytes;
            self.now |= now;
            self.oldest = self.oldest.min(oldest);
        }
    }

    /// A lane with this much leaves the list. When it was the one in a hurry or the oldest, what is
    /// left is sent a little early.
    pub(crate) fn take_off(&mut self, backlog: Backlog) {
        if let Backlog::Waiting { bytes, .. } = backlog {
            self.bytes -= bytes;
        }
    }

    /// The list is gone through: what stays on it is in no hurry that is known.
    pub(crate) fn calm(&mut self) {
        self.now = false;
        self.oldest = Time::NEVER;
    }
}

impl<P, T> Connection<P, T> {
    pub(crate) fn new(broker: BrokerId) -> Self {
        Self {
            broker,
            generation: 0,
            state: State::Idle,
            failures: 0,
            next_address: 0,
            ask_version: Handshake::NEWEST,
            next_correlation: 0,
            flights: VecDeque::with_capacity(limits::IN_FLIGHT_MAX),
            unsent: 0,
            frame_out: false,
            deframer: Deframer::new(limits::RESPONSE_BYTES_MAX),
            ready: VecDeque::new(),
            gathered: Gathered::NOTHING,
            last_send: Time(0),
            served: false,
            last_answer: Time(0),
            answer_time: Duration::ZERO,
            lone: 0,
            throttled_until: Time(0),
            stale: false,
            trouble: None,
            unsupported: false,
            probe: None,
        }
    }

    /// Its broker is gone: the slot is as new, but for what tells it from before.
    pub(crate) fn retire(&mut self) {
        let generation = self.generation;
        *self = Self::new(self.broker);
        self.generation = generation;
    }

    /// When what is ready should be sent, as far as lingering goes.
    pub(crate) fn due(&self, settings: &Settings) -> Time {
        if self.ready.is_empty() {
            return Time::NEVER;
        }
        let linger = match settings.linger {
            _ if self.gathered.now => Time(0),
            Linger::Auto { .. } if self.gathered.bytes >= limits::GATHERED_ENOUGH_BYTES => Time(0),
            // What came before the last answer was not waiting for it.
            Linger::Auto { gap } if self.gathered.oldest < self.last_answer => self.last_send + gap,
            Linger::Auto { gap } => self.gathers_until(gap),
            Linger::Fixed(linger) => self.gathered.oldest + linger,
        };
        linger.max(self.throttled_until)
    }

    /// With `linger=auto`: until when records that come now are gathered. Until `gap` after the last
    /// request; but not at all while nothing is in flight and gathering has brought nothing: a
    /// caller that awaits each record before it sends the next would only be slowed down.
    pub(crate) fn gathers_until(&self, gap: Duration) -> Time {
        if self.flights.is_empty() && self.lone >= limits::LONE_REQUESTS {
            return Time(0);
        }
        self.last_send + gap
    }

    /// An answer came to a request that was on the wire at `on_wire`.
    pub(crate) fn answered(&mut self, now: Time, on_wire: Time) {
        self.last_answer = now;
        let took = now.since(on_wire);
        self.answer_time = if self.answer_time.is_zero() {
            took
        } else {
            (self.answer_time * 7 + took) / 8
        };
    }

    /// What a request must allow for its answer: twice what answers take, but never more than half of
    /// all the time a record has. Otherwise slow answers would keep every record from being sent, and
    /// nobody would learn that they are fast again.
    pub(crate) fn answer_takes(&self, settings: &Settings) -> Duration {
        (self.answer_time * 2).min(settings.delivery_timeout / 2)
    }

    /// A request with so many records leaves.
    pub(crate) fn sends(&mut self, now: Time, records: u32) {
        self.last_send = now;
        self.lone = if records == 1 {
            self.lone.saturating_add(1)
        } else {
            0
        };
    }

    /// Whether another request may be handed to the driver.
    pub(crate) fn window_open(&self, settings: &Settings) -> bool {
        matches!(self.state, State::Ready { .. })
            && !self.frame_out
            && self.flights.len()
                < settings.in_flight_max + usize::from(planted(Canary::SixInFlight))
    }

    /// When the first answer must be there. A later request can have less time than an earlier one:
    /// its records may be older.
    pub(crate) fn answer_due(&self) -> Time {
        let deadlines = self.flights.iter().map(|flight| flight.deadline);
        deadlines.min().unwrap_or(Time::NEVER)
    }

    pub(crate) fn correlation(&mut self) -> i32 {
        let id = self.next_correlation;
        self.next_correlation = self.next_correlation.wrapping_add(1) & i32::MAX;
        id
    }
}
