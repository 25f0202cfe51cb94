//! Reaching a broker: which places are tried in which order, from a name to a connection that can be
//! asked, and what happens when one fails.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::net::SocketAddr;
use core::time::Duration;

use ringpost_codec::frame::{DeframeError, Deframer};
use ringpost_codec::kafka::{ApiKey, init_producer_id, metadata, produce};

use crate::connection::ConnId;
use crate::directory::{Candidate, Directory, Question, State, Task, TopicError};
use crate::handshake::{Answer, Handshake};
use crate::limits;
use crate::time::Time;

impl Directory {
    pub(super) fn alarmed(&mut self, now: Time) {
        let timeout = self.setup_timeout();
        match &self.state {
            State::Resting => self.state = State::Idle,
            State::Resolving { host, port } => {
                let place = format!("{host}:{port}");
                self.failed(
                    now,
                    &place,
                    &format!("the name did not resolve within {timeout:?}"),
                );
            }
            State::Connecting { address } => {
                let place = address.to_string();
                self.close();
                self.failed(now, &place, &format!("no answer within {timeout:?}"));
            }
            State::Negotiating { address, handshake } => {
                let place = address.to_string();
                self.ask_version = handshake.after_hang_up();
                self.close();
                let reason =
                    format!("no answer to ApiVersions within {timeout:?}; is this a Kafka broker?");
                self.failed(now, &place, &reason);
            }
            State::Ready { address, .. } => {
                let place = address.to_string();
                self.close();
                let timeout = self.settings.request_timeout;
                self.failed(
                    now,
                    &place,
                    &format!("no answer to a request within {timeout:?}"),
                );
            }
            State::Idle => {}
        }
    }

    /// Goes on to the next place to try.
    pub(super) fn next_candidate(&mut self, now: Time) {
        if self.candidates.is_empty() {
            self.new_round();
        }
        match self.candidates.pop_front() {
            Some(Candidate::Address(address)) => self.connect(now, address),
            Some(Candidate::Name(host, port)) => {
                self.state = State::Resolving {
                    host: Arc::clone(&host),
                    port,
                };
                self.alarm = now + self.setup_timeout();
                self.tasks.push_back(Task::Resolve { host, port });
            }
            None => {}
        }
    }

    fn new_round(&mut self) {
        for broker in self.cluster.brokers.values() {
            let place = Candidate::new(&broker.host, broker.port);
            self.candidates.push_back(place);
        }
        self.bootstrap_candidates();
    }

    fn bootstrap_candidates(&mut self) {
        for (host, port) in &self.settings.bootstrap {
            self.candidates.push_back(Candidate::new(host, *port));
        }
    }

    /// How long a place may take until it can be asked.
    pub(super) fn setup_timeout(&self) -> Duration {
        let timeout = self.settings.connect_timeout;
        if self.roaming {
            timeout.min(limits::ROAMING_SETUP)
        } else {
            timeout
        }
    }

    /// Leaves a broker whose answers do not help, if there is another to ask: that is asked next, with
    /// the distance in time that refreshes keep. The one that was left comes last.
    pub(super) fn leave(&mut self) {
        self.in_vain = 0;
        let State::Ready { address, .. } = self.state else {
            return;
        };
        let is_here = |host: &str, port| match Candidate::new(host, port) {
            Candidate::Address(other) => other == address,
            Candidate::Name(..) => self.cluster.brokers.values().any(|broker| {
                *broker.host == *host && broker.port == port && broker.addresses.contains(&address)
            }),
        };
        // Those behind this one first: each has its turn.
        let brokers = self.cluster.brokers.values();
        let mut places: Vec<(&str, u16)> = brokers.map(|b| (&*b.host, b.port)).collect();
        let here = places.iter().position(|(host, port)| is_here(host, *port));
        places.rotate_left(here.unwrap_or(0));
        let bootstrap = self.settings.bootstrap.iter();
        let bootstrap = bootstrap.map(|(host, port)| (&**host, *port));
        let known = places.clone();
        places.extend(bootstrap.filter(|place| !known.contains(place)));
        places.retain(|(host, port)| !is_here(host, *port));
        let mut candidates: VecDeque<_> = places
            .into_iter()
            .map(|(host, port)| Candidate::new(host, port))
            .collect();
        if candidates.is_empty() {
            return;
        }
        candidates.push_back(Candidate::Address(address));
        self.close();
        self.candidates = candidates;
        self.state = State::Idle;
        self.alarm = Time::NEVER;
        self.roaming = true;
        self.refresh_asked = true;
    }

    /// The broker says that its cluster is no longer ours: begins again at the bootstrap addresses
    /// ([KIP-1102](https://cwiki.apache.org/confluence/display/KAFKA/KIP-1102%3A+Enable+clients+to+rebootstrap+based+on+timeout+or+error+code)).
    pub(super) fn rebootstrap(&mut self, now: Time) {
        self.close();
        self.state = State::Idle;
        self.alarm = Time::NEVER;
        self.bootstrap_candidates();
        self.refresh_asked = true;
        self.fruitless = self.fruitless.saturating_add(1);
        let delay = self
            .settings
            .refresh
            .delay(self.fruitless, &mut self.random);
        self.refresh_not_before = now + delay;
    }

    fn connect(&mut self, now: Time, address: SocketAddr) {
        self.generation = self.generation.wrapping_add(1);
        self.deframer = Deframer::new(limits::METADATA_BYTES_MAX);
        self.state = State::Connecting { address };
        self.alarm = now + self.setup_timeout();
        self.tasks.push_back(Task::Connect {
            conn: self.conn(),
            address,
        });
    }

    pub(super) fn conn(&self) -> ConnId {
        ConnId {
            slot: Self::SLOT,
            generation: self.generation,
        }
    }

    pub(super) fn close(&mut self) {
        self.tasks.push_back(Task::Close { conn: self.conn() });
        self.generation = self.generation.wrapping_add(1);
    }

    /// A name was resolved, or not.
    pub fn resolved(
        &mut self,
        now: Time,
        host: &str,
        port: u16,
        result: Result<&[SocketAddr], &str>,
    ) {
        // A bootstrap name that is waited for.
        if matches!(&self.state, State::Resolving { host: h, port: p } if **h == *host && *p == port)
        {
            match result {
                Ok(addresses) if !addresses.is_empty() => {
                    for address in addresses.iter().rev() {
                        self.candidates.push_front(Candidate::Address(*address));
                    }
                    self.state = State::Idle;
                    self.alarm = Time::NEVER;
                    self.next_candidate(now);
                }
                Ok(_) => self.failed(now, &format!("{host}:{port}"), "the name has no address"),
                Err(reason) => {
                    let reason = format!("the name does not resolve: {reason}");
                    self.failed(now, &format!("{host}:{port}"), &reason);
                }
            }
        }
        // A broker's name.
        let Ok(addresses) = result else { return };
        let news = self.cluster.brokers.values().any(|broker| {
            *broker.host == *host && broker.port == port && broker.addresses != addresses
        });
        if news {
            let cluster = Arc::make_mut(&mut self.cluster);
            for broker in cluster.brokers.values_mut() {
                if *broker.host == *host && broker.port == port {
                    broker.addresses = addresses.to_vec();
                }
            }
            self.tasks
                .push_back(Task::Publish(Arc::clone(&self.cluster)));
        }
    }

    /// The driver connected.
    pub fn connected(&mut self, conn: ConnId) {
        let State::Connecting { address } = self.state else {
            return;
        };
        if conn != self.conn() {
            return;
        }
        self.negotiate(address, self.ask_version);
    }

    fn negotiate(&mut self, address: SocketAddr, version: i16) {
        let handshake = Handshake::new(version, self.correlation());
        self.state = State::Negotiating { address, handshake };
        let frame = handshake.request(&self.settings.client_id);
        self.tasks.push_back(Task::Send {
            conn: self.conn(),
            frame,
        });
    }

    pub(super) fn correlation(&mut self) -> i32 {
        let id = self.next_correlation;
        self.next_correlation = self.next_correlation.wrapping_add(1) & i32::MAX;
        id
    }

    /// The driver could not connect.
    pub fn connect_failed(&mut self, now: Time, conn: ConnId, reason: &str) {
        let State::Connecting { address } = self.state else {
            return;
        };
        if conn == self.conn() {
            self.failed(now, &address.to_string(), reason);
        }
    }

    /// The peer or the network ended the connection.
    pub fn closed(&mut self, now: Time, conn: ConnId, reason: Option<&str>) {
        if conn != self.conn() {
            return;
        }
        let reason = reason.unwrap_or("the broker closed the connection");
        match &self.state {
            State::Ready { asked: None, .. } => {
                // Idle connections are ended by brokers after a while.
                self.state = State::Idle;
                self.alarm = Time::NEVER;
                self.generation = self.generation.wrapping_add(1);
            }
            State::Ready { address, .. } | State::Connecting { address } => {
                let place = address.to_string();
                self.failed(now, &place, reason);
            }
            State::Negotiating { address, handshake } => {
                let place = address.to_string();
                self.ask_version = handshake.after_hang_up();
                if self.ask_version < Handshake::NEWEST {
                    // It may know an older version: the same address once more.
                    self.candidates.push_front(Candidate::Address(*address));
                }
                let reason =
                    format!("{reason} without answering ApiVersions; is this a Kafka broker?");
                self.failed(now, &place, &reason);
            }
            State::Idle | State::Resting | State::Resolving { .. } => {}
        }
    }

    /// Bytes arrived.
    pub fn received(&mut self, now: Time, conn: ConnId, bytes: &[u8]) {
        if conn != self.conn() {
            return;
        }
        let mut deframer = mem::replace(&mut self.deframer, Deframer::new(0));
        let result = deframer.push(bytes, |frame| {
            if conn == self.conn() {
                self.frame(now, frame)
            } else {
                Ok(())
            }
        });
        if conn != self.conn() {
            return;
        }
        self.deframer = deframer;
        let what = match result {
            Ok(()) => return,
            Err(DeframeError::Refused(what)) => what,
            Err(DeframeError::Frame(error)) => format!("{error}; is this a Kafka broker?"),
        };
        if let State::Negotiating { address, .. } | State::Ready { address, .. } = &self.state {
            let place = address.to_string();
            self.close();
            self.failed(now, &place, &format!("it broke the protocol: {what}"));
        }
    }

    fn frame(&mut self, now: Time, frame: &[u8]) -> Result<(), String> {
        match &mut self.state {
            State::Negotiating { address, handshake } => {
                let (address, handshake) = (*address, *handshake);
                match handshake.answer(frame)? {
                    Answer::AskAgain(version) => self.negotiate(address, version),
                    Answer::Done(offered) => self.ready(now, address, &offered),
                }
                Ok(())
            }
            State::Ready {
                asked,
                metadata,
                init_producer_id,
                ..
            } => {
                let Some(asked) = asked.take() else {
                    return Err("an answer to a question that was not asked".into());
                };
                let versions = (*metadata, init_producer_id.unwrap_or(0));
                self.alarm = Time::NEVER;
                let answered = self.answer(now, &asked, versions, frame);
                if answered.is_err()
                    && let Question::Identity { asker } = asked.question
                {
                    // Whoever asked does not ask again.
                    self.identify(asker);
                }
                answered
            }
            _ => Err("bytes before a question was asked".into()),
        }
    }

    fn ready(&mut self, now: Time, address: SocketAddr, offered: &crate::handshake::Offered) {
        let agreed = offered
            .agree(ApiKey::PRODUCE, produce::VERSIONS)
            .and_then(|_| offered.agree(ApiKey::METADATA, metadata::VERSIONS))
            .and_then(|metadata| {
                let ids = offered.agree(ApiKey::INIT_PRODUCER_ID, init_producer_id::VERSIONS);
                if self.settings.idempotent {
                    Ok((metadata, Some(ids?)))
                } else {
                    Ok((metadata, None))
                }
            });
        match agreed {
            Ok((metadata, init_producer_id)) => {
                self.in_vain = 0;
                self.state = State::Ready {
                    address,
                    metadata,
                    init_producer_id,
                    asked: None,
                };
                self.alarm = Time::NEVER;
            }
            Err(what) => {
                let place: Arc<str> = address.to_string().into();
                self.close();
                self.failed(now, &place, &what);
                let topics: Vec<_> = self
                    .wanted
                    .iter()
                    .filter(|(_, wanted)| !wanted.known)
                    .map(|(topic, _)| Arc::clone(topic))
                    .collect();
                for topic in topics {
                    let error = TopicError::Unsupported {
                        address: Arc::clone(&place),
                        what: Arc::clone(&what),
                    };
                    self.fail_topic(topic, error);
                }
            }
        }
    }

    /// An attempt came to nothing: the next place, or a rest when all were tried.
    pub(super) fn failed(&mut self, now: Time, place: &str, reason: &str) {
        const REMEMBERED: usize = 16;
        self.generation = self.generation.wrapping_add(1);
        if let State::Ready {
            asked: Some(asked), ..
        } = &self.state
            && let Question::Identity { asker } = asked.question
        {
            self.identify(asker);
        }
        if matches!(self.state, State::Ready { .. }) {
            // What was asked was not answered.
            self.refresh_asked = true;
        }
        let remembered = self.troubles.len();
        match self
            .troubles
            .iter_mut()
            .find(|(known, _)| **known == *place)
        {
            Some(trouble) => trouble.1 = reason.into(),
            None if remembered < REMEMBERED => {
                self.troubles.push((place.into(), reason.into()));
            }
            None => {}
        }
        self.state = State::Idle;
        self.alarm = Time::NEVER;
        if self.candidates.is_empty() {
            self.roaming = false;
            self.rounds += 1;
            self.failures = self.failures.saturating_add(1);
            self.state = State::Resting;
            self.alarm = now
                + self
                    .settings
                    .reconnect
                    .delay(self.failures, &mut self.random);
        }
    }
}
