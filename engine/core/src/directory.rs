//! The phone book: which topics there are, who leads their partitions, where brokers are reached,
//! and producer ids.
//!
//! One connection to any broker that answers, one request on it at a time. The order in which
//! brokers are tried: those the cluster named last, then the bootstrap addresses, whose names are
//! resolved anew each time round; so a cluster that moved is found again
//! ([KIP-899](https://cwiki.apache.org/confluence/display/KAFKA/KIP-899%3A+Allow+producer+and+consumer+clients+to+rebootstrap)).
//!
//! Like the dispatcher it does nothing by itself: calls tell it what happened,
//! [`Directory::step`] lets it decide, [`Directory::poll_task`] gives what to do.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use ringpost_codec::error::DecodeError;
use ringpost_codec::frame::{DeframeError, Deframer};
use ringpost_codec::kafka::header::{self, RequestHeader};
use ringpost_codec::kafka::{ApiKey, ErrorCode, init_producer_id, metadata, produce};
use ringpost_codec::reader::Reader;

use crate::connection::ConnId;
use crate::handshake::{Answer, Handshake};
use crate::id::{BrokerId, ProducerIdentity, TopicId};
use crate::limits;
use crate::metadata::{Broker, Cluster, Partition, Topic, is_news};
use crate::random::Random;
use crate::retry::Backoff;
use crate::time::Time;

/// What the directory can be told, already validated.
#[derive(Debug, Clone)]
pub struct DirectorySettings {
    /// Kafka: `client.id`.
    pub client_id: String,
    /// Kafka: `bootstrap.servers`.
    pub bootstrap: Vec<(String, u16)>,
    /// For a connection to be usable: name, TCP, negotiation.
    pub connect_timeout: Duration,
    /// For an answer.
    pub request_timeout: Duration,
    /// Kafka: `reconnect.backoff.ms`, `reconnect.backoff.max.ms`.
    pub reconnect: Backoff,
    /// Between refreshes that bring nothing new. Kafka: `retry.backoff.ms`.
    pub refresh: Backoff,
    /// Kafka: `metadata.max.age.ms`.
    pub metadata_max_age: Duration,
    /// How long a topic the cluster does not know may take to appear. librdkafka:
    /// `topic.metadata.propagation.max.ms`.
    pub topic_timeout: Duration,
    /// Whether asking for a topic may create it, if the brokers allow that too.
    pub auto_create: bool,
    /// Whether producer ids will be asked for.
    pub idempotent: bool,
}

/// Why a topic cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// No broker could be asked.
    #[error("no broker could be asked about topic {topic:?}; check `bootstrap` and the network:{}", Listed(.attempts))]
    NoBroker {
        /// The topic.
        topic: Arc<str>,
        /// What was tried: address and reason.
        attempts: Vec<(Arc<str>, Arc<str>)>,
    },
    /// The cluster does not know it.
    #[error(
        "the cluster does not know topic {topic:?} after {waited:?}: create it, or let brokers create topics (auto.create.topics.enable)"
    )]
    Unknown {
        /// The topic.
        topic: Arc<str>,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The cluster refuses it.
    #[error("the cluster refuses topic {topic:?}: {code}")]
    Refused {
        /// The topic.
        topic: Arc<str>,
        /// Its answer.
        code: ErrorCode,
    },
    /// The broker is too old, or is something else.
    #[error("the broker at {address} cannot be used: {what}")]
    Unsupported {
        /// Where.
        address: Arc<str>,
        /// What is missing.
        what: Arc<str>,
    },
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
}

struct Listed<'a>(&'a [(Arc<str>, Arc<str>)]);

impl core::fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (n, (address, reason)) in self.0.iter().enumerate() {
            write!(f, "{} {address}: {reason}", if n == 0 { "" } else { ";" })?;
        }
        Ok(())
    }
}

/// What the directory wants done.
#[derive(Debug)]
pub enum Task {
    /// Resolve a name. Answer with [`Directory::resolved`].
    Resolve {
        /// The name.
        host: Arc<str>,
        /// For this port.
        port: u16,
    },
    /// Open a connection.
    Connect {
        /// Its name from now on.
        conn: ConnId,
        /// Where to.
        address: SocketAddr,
    },
    /// Send a whole frame.
    Send {
        /// On this connection.
        conn: ConnId,
        /// The frame.
        frame: Vec<u8>,
    },
    /// End a connection.
    Close {
        /// This one.
        conn: ConnId,
    },
    /// The cluster is known anew.
    Publish(Arc<Cluster>),
    /// A topic cannot be used; it is no longer wanted.
    Failed {
        /// The topic.
        topic: Arc<str>,
        /// Why.
        error: TopicError,
    },
    /// A producer id for whoever asked with this number.
    Identity {
        /// The number.
        asker: usize,
        /// The id, or the code with which the cluster refuses to give one.
        result: Result<ProducerIdentity, ErrorCode>,
    },
    /// Another cluster answers than before: records may be going where they should not.
    ClusterChanged {
        /// The id it had.
        from: Arc<str>,
        /// The id it has.
        to: Arc<str>,
    },
}

#[derive(Debug)]
enum State {
    Idle,
    /// Waiting after a failed round.
    Resting,
    Resolving {
        host: Arc<str>,
        port: u16,
    },
    Connecting {
        address: SocketAddr,
    },
    Negotiating {
        address: SocketAddr,
        handshake: Handshake,
    },
    Ready {
        address: SocketAddr,
        metadata: i16,
        init_producer_id: Option<i16>,
        asked: Option<Asked>,
    },
}

#[derive(Debug)]
struct Asked {
    correlation_id: i32,
    question: Question,
}

#[derive(Debug, Clone, Copy)]
enum Question {
    Metadata,
    Identity { asker: usize },
}

/// A topic that somebody wants.
#[derive(Debug)]
struct Wanted {
    since: Time,
    /// The round of candidates that was under way then.
    round: u64,
    /// It was in a question already.
    asked: bool,
    /// When the cluster first answered for it: from then on it is the cluster's turn to make it.
    answered: Option<Time>,
    known: bool,
}

/// A place to try: an address, or a name that has to be resolved first.
#[derive(Debug, Clone)]
enum Candidate {
    Address(SocketAddr),
    Name(Arc<str>, u16),
}

impl Candidate {
    fn new(host: &str, port: u16) -> Self {
        match host.parse::<IpAddr>() {
            Ok(ip) => Self::Address(SocketAddr::new(ip, port)),
            Err(_) => Self::Name(host.into(), port),
        }
    }
}

/// See the module's doc.
#[derive(Debug)]
pub struct Directory {
    settings: DirectorySettings,
    state: State,
    generation: u32,
    deframer: Deframer,
    next_correlation: i32,
    /// Left to try in this round.
    candidates: VecDeque<Candidate>,
    ask_version: i16,
    /// Rounds in which nobody answered, in a row.
    failures: u32,
    /// Rounds that are over.
    rounds: u64,
    /// What happened at each address since somebody last answered.
    troubles: Vec<(Arc<str>, Arc<str>)>,
    /// Setup or request deadline, or the end of a rest.
    alarm: Time,
    cluster: Arc<Cluster>,
    wanted: BTreeMap<Arc<str>, Wanted>,
    identities: VecDeque<usize>,
    identity_not_before: Time,
    identity_failures: u32,
    refresh_asked: bool,
    refresh_not_before: Time,
    fruitless: u32,
    stale_at: Time,
    answered_before: bool,
    tasks: VecDeque<Task>,
    random: Random,
}

impl Directory {
    /// The slot of the directory's connection, which the dispatcher's never use.
    pub const SLOT: u16 = 0;

    /// A directory that knows nothing yet.
    #[must_use]
    pub fn new(settings: DirectorySettings, seed: u64) -> Self {
        Self {
            settings,
            state: State::Idle,
            generation: 0,
            deframer: Deframer::new(limits::METADATA_BYTES_MAX),
            next_correlation: 0,
            candidates: VecDeque::new(),
            ask_version: Handshake::NEWEST,
            failures: 0,
            rounds: 0,
            troubles: Vec::new(),
            alarm: Time::NEVER,
            cluster: Arc::default(),
            wanted: BTreeMap::new(),
            identities: VecDeque::new(),
            identity_not_before: Time(0),
            identity_failures: 0,
            refresh_asked: false,
            refresh_not_before: Time(0),
            fruitless: 0,
            stale_at: Time::NEVER,
            answered_before: false,
            tasks: VecDeque::new(),
            random: Random::new(seed),
        }
    }

    /// Wants a topic. It is published, or it fails.
    pub fn want(&mut self, now: Time, topic: &Arc<str>) {
        match self.wanted.get(topic) {
            Some(wanted) if wanted.known => {
                self.tasks
                    .push_back(Task::Publish(Arc::clone(&self.cluster)));
            }
            // It is being found out; who comes later does not make the others wait longer.
            Some(_) => {}
            None => {
                let wanted = Wanted {
                    since: now,
                    round: self.rounds,
                    asked: false,
                    answered: None,
                    known: false,
                };
                self.wanted.insert(Arc::clone(topic), wanted);
                self.refresh_asked = true;
                self.refresh_not_before = now;
            }
        }
    }

    /// What is known proved wrong, or a broker cannot be reached.
    pub fn refresh(&mut self) {
        self.refresh_asked = true;
    }

    /// Wants a producer id.
    pub fn identify(&mut self, asker: usize) {
        if self.settings.idempotent && !self.identities.contains(&asker) {
            self.identities.push_back(asker);
        }
    }

    /// The next thing to do.
    pub fn poll_task(&mut self) -> Option<Task> {
        self.tasks.pop_front()
    }

    /// When [`Directory::step`] must be called again, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        let topics = self
            .wanted
            .values()
            .filter(|wanted| !wanted.known)
            .map(|wanted| self.patience_ends(wanted))
            .min()
            .unwrap_or(Time::NEVER);
        let work = match &self.state {
            State::Ready { asked: None, .. } | State::Idle => self.work_at(),
            _ => Time::NEVER,
        };
        self.alarm.min(topics).min(work)
    }

    /// When there is something to ask.
    fn work_at(&self) -> Time {
        let refresh = if self.refresh_asked {
            self.refresh_not_before
        } else {
            self.stale_at
        };
        let identity = if self.identities.is_empty() {
            Time::NEVER
        } else {
            self.identity_not_before
        };
        refresh.min(identity)
    }

    /// Until when an unknown topic is waited for: for the cluster to make it, once a broker answered;
    /// before, for a broker to answer. As long as not all places were tried a little longer: the
    /// first may be one that takes the whole time and says nothing.
    fn patience_ends(&self, wanted: &Wanted) -> Time {
        const PLACES: u32 = 6;
        let timeout = self.settings.connect_timeout;
        match wanted.answered {
            Some(at) => at + self.settings.topic_timeout,
            None if self.rounds > wanted.round => wanted.since + timeout,
            None => wanted.since + timeout * PLACES,
        }
    }

    /// Decides. Call it after the events of a turn.
    pub fn step(&mut self, now: Time) {
        if self.alarm <= now {
            self.alarm = Time::NEVER;
            self.alarmed(now);
        }
        self.give_up_topics(now);
        if self.work_at() > now {
            return;
        }
        match &self.state {
            State::Idle => self.next_candidate(now),
            State::Ready { asked: None, .. } => self.ask(now),
            _ => {}
        }
    }

    fn alarmed(&mut self, now: Time) {
        let timeout = self.settings.connect_timeout;
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

    fn give_up_topics(&mut self, now: Time) {
        let late: Vec<(Arc<str>, bool)> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| !wanted.known && self.patience_ends(wanted) <= now)
            .map(|(topic, wanted)| (Arc::clone(topic), wanted.answered.is_some()))
            .collect();
        for (topic, answered) in late {
            let error = if answered {
                TopicError::Unknown {
                    topic: Arc::clone(&topic),
                    waited: self.settings.topic_timeout,
                }
            } else {
                TopicError::NoBroker {
                    topic: Arc::clone(&topic),
                    attempts: self.attempts(now),
                }
            };
            self.fail_topic(topic, error);
        }
    }

    /// What was tried, and what is being tried just now.
    fn attempts(&self, _now: Time) -> Vec<(Arc<str>, Arc<str>)> {
        let mut attempts = self.troubles.clone();
        let timeout = self.settings.connect_timeout;
        let current = match &self.state {
            State::Resolving { host, port } => Some((format!("{host}:{port}"), "the name")),
            State::Connecting { address } => Some((address.to_string(), "the connection")),
            State::Negotiating { address, .. } => {
                Some((address.to_string(), "ApiVersions (is this a Kafka broker?)"))
            }
            _ => None,
        };
        if let Some((place, what)) = current
            && !attempts.iter().any(|(known, _)| **known == *place)
        {
            let reason = format!("no answer for {what} within {timeout:?}");
            attempts.push((place.into(), reason.into()));
        }
        attempts
    }

    fn fail_topic(&mut self, topic: Arc<str>, error: TopicError) {
        self.wanted.remove(&topic);
        self.tasks.push_back(Task::Failed { topic, error });
    }

    /// Goes on to the next place to try.
    fn next_candidate(&mut self, now: Time) {
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
                self.alarm = now + self.settings.connect_timeout;
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

    /// The broker says that its cluster is no longer ours: begins again at the bootstrap addresses
    /// ([KIP-1102](https://cwiki.apache.org/confluence/display/KAFKA/KIP-1102%3A+Enable+clients+to+rebootstrap+based+on+timeout+or+error+code)).
    fn rebootstrap(&mut self, now: Time) {
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
        self.alarm = now + self.settings.connect_timeout;
        self.tasks.push_back(Task::Connect {
            conn: self.conn(),
            address,
        });
    }

    fn conn(&self) -> ConnId {
        ConnId {
            slot: Self::SLOT,
            generation: self.generation,
        }
    }

    fn close(&mut self) {
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

    fn correlation(&mut self) -> i32 {
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
                self.answer(now, &asked, versions, frame)
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
    fn failed(&mut self, now: Time, place: &str, reason: &str) {
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

    fn ask(&mut self, now: Time) {
        let State::Ready {
            metadata,
            init_producer_id,
            ..
        } = self.state
        else {
            return;
        };
        let correlation_id = self.correlation();
        let client_id = self.settings.client_id.clone();
        let identity_due = !self.identities.is_empty() && self.identity_not_before <= now;
        let mut frame = Vec::new();
        let question = if identity_due && let Some(version) = init_producer_id {
            let Some(asker) = self.identities.pop_front() else {
                return;
            };
            let header = RequestHeader {
                api_key: ApiKey::INIT_PRODUCER_ID,
                version,
                correlation_id,
                client_id: Some(&client_id),
            };
            let request = init_producer_id::Request {
                transactional_id: None,
                // Without transactions the broker does not look at it.
                transaction_timeout_ms: i32::MAX,
                producer_id: -1,
                producer_epoch: -1,
            };
            header::put_request(&mut frame, &header, |writer| {
                request.write(version, writer).expect("an agreed version");
            });
            Question::Identity { asker }
        } else {
            self.refresh_asked = false;
            for wanted in self.wanted.values_mut() {
                wanted.asked = true;
            }
            let header = RequestHeader {
                api_key: ApiKey::METADATA,
                version: metadata,
                correlation_id,
                client_id: Some(&client_id),
            };
            let topics: Vec<&str> = self.wanted.keys().map(|topic| &**topic).collect();
            let request = metadata::Request {
                topics: Some(&topics),
                allow_auto_topic_creation: self.settings.auto_create,
            };
            header::put_request(&mut frame, &header, |writer| {
                request.write(metadata, writer).expect("an agreed version");
            });
            Question::Metadata
        };
        if let State::Ready { asked, .. } = &mut self.state {
            *asked = Some(Asked {
                correlation_id,
                question,
            });
        }
        self.alarm = now + self.settings.request_timeout;
        self.tasks.push_back(Task::Send {
            conn: self.conn(),
            frame,
        });
    }

    fn answer(
        &mut self,
        now: Time,
        asked: &Asked,
        (metadata_version, identity_version): (i16, i16),
        frame: &[u8],
    ) -> Result<(), String> {
        let text = |error: DecodeError| error.to_string();
        let mut reader = Reader::new(frame);
        let id = header::read_correlation_id(&mut reader).map_err(text)?;
        if id != asked.correlation_id {
            return Err(format!(
                "an answer with correlation id {id}, not {}",
                asked.correlation_id
            ));
        }
        let mut rebootstrap = false;
        match asked.question {
            Question::Metadata => {
                header::read_response_rest(&mut reader, ApiKey::METADATA, metadata_version)
                    .map_err(text)?;
                let response =
                    metadata::Response::read(metadata_version, &mut reader).map_err(text)?;
                rebootstrap = response.error == ErrorCode::REBOOTSTRAP_REQUIRED;
                if !rebootstrap {
                    self.learn(now, response);
                }
            }
            Question::Identity { asker } => {
                header::read_response_rest(&mut reader, ApiKey::INIT_PRODUCER_ID, identity_version)
                    .map_err(text)?;
                let response = init_producer_id::Response::read(identity_version, &mut reader)
                    .map_err(text)?;
                self.identified(now, asker, &response);
            }
        }
        // Only now is it clear that this place is a good one: others are not tried in this round.
        self.failures = 0;
        self.troubles.clear();
        self.candidates.clear();
        if rebootstrap {
            self.rebootstrap(now);
        }
        Ok(())
    }

    fn identified(&mut self, now: Time, asker: usize, response: &init_producer_id::Response) {
        let usable = response.producer_id >= 0 && response.producer_epoch >= 0;
        match response.error {
            ErrorCode::NONE if usable => {
                self.identity_failures = 0;
                let identity = ProducerIdentity {
                    id: response.producer_id,
                    epoch: response.producer_epoch,
                };
                self.tasks.push_back(Task::Identity {
                    asker,
                    result: Ok(identity),
                });
            }
            code @ (ErrorCode::CLUSTER_AUTHORIZATION_FAILED
            | ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
            | ErrorCode::INVALID_REQUEST
            | ErrorCode::UNSUPPORTED_VERSION) => {
                self.tasks.push_back(Task::Identity {
                    asker,
                    result: Err(code),
                });
            }
            // Loading, not available, timed out, or nonsense: ask again.
            _ => {
                self.identity_failures = self.identity_failures.saturating_add(1);
                let delay = self
                    .settings
                    .refresh
                    .delay(self.identity_failures, &mut self.random);
                self.identity_not_before = now + delay;
                self.identify(asker);
            }
        }
    }

    /// Takes in what a broker knows.
    fn learn(&mut self, now: Time, response: metadata::Response) {
        let before = Arc::clone(&self.cluster);
        let cluster = Arc::make_mut(&mut self.cluster);
        let mut refused = Vec::new();
        let mut again = response.error != ErrorCode::NONE;
        if let Some(to) = response.cluster_id {
            if let Some(from) = &cluster.cluster_id
                && **from != *to
            {
                let (from, to) = (Arc::clone(from), to.as_str().into());
                self.tasks.push_back(Task::ClusterChanged { from, to });
            }
            cluster.cluster_id = Some(to.into());
        }
        if !response.brokers.is_empty() {
            learn_brokers(cluster, &response.brokers);
        }
        for topic in response.topics {
            let Some((name, wanted)) = topic
                .name
                .as_deref()
                .and_then(|name| self.wanted.get_key_value(name))
                .map(|(name, _)| Arc::clone(name))
                .and_then(|name| {
                    let wanted = self.wanted.get_mut(&name)?;
                    Some((name, wanted))
                })
            else {
                // Not asked for.
                continue;
            };
            match topic.error {
                ErrorCode::NONE => match learn_topic(cluster, &name, &topic) {
                    Learned::Nothing => again = true,
                    Learned::Leaderless => {
                        wanted.known = true;
                        again = true;
                    }
                    Learned::All => wanted.known = true,
                },
                code @ (ErrorCode::INVALID_TOPIC_EXCEPTION
                | ErrorCode::TOPIC_AUTHORIZATION_FAILED) => refused.push((name, code)),
                // Being created, being elected, or not there (yet).
                _ => again = true,
            }
        }
        for (topic, code) in refused {
            let error = TopicError::Refused {
                topic: Arc::clone(&topic),
                code,
            };
            self.fail_topic(topic, error);
        }
        let mut new = false;
        for wanted in self.wanted.values_mut().filter(|wanted| !wanted.known) {
            again = true;
            if wanted.asked {
                wanted.answered.get_or_insert(now);
            } else {
                new = true;
            }
        }
        let news = !self.answered_before
            || before.brokers != self.cluster.brokers
            || before.topics != self.cluster.topics;
        self.answered_before = true;
        self.fruitless = if news {
            0
        } else {
            self.fruitless.saturating_add(1)
        };
        self.refresh_asked |= again;
        self.refresh_not_before = now
            + self
                .settings
                .refresh
                .delay(self.fruitless.saturating_add(1), &mut self.random);
        if new {
            // It came while the others were asked for.
            self.refresh_not_before = now;
        }
        self.stale_at = now + self.settings.metadata_max_age;
        for (host, port) in self.unresolved() {
            self.tasks.push_back(Task::Resolve { host, port });
        }
        self.tasks
            .push_back(Task::Publish(Arc::clone(&self.cluster)));
    }

    /// Names of brokers, all of them: what they resolve to may have changed.
    fn unresolved(&self) -> Vec<(Arc<str>, u16)> {
        self.cluster
            .brokers
            .values()
            .filter(|broker| broker.host.parse::<IpAddr>().is_err())
            .map(|broker| (Arc::clone(&broker.host), broker.port))
            .collect()
    }
}

enum Learned {
    Nothing,
    Leaderless,
    All,
}

fn learn_brokers(cluster: &mut Cluster, told: &[metadata::Broker]) {
    let mut brokers = BTreeMap::new();
    for broker in told {
        let (Ok(port), true) = (u16::try_from(broker.port), broker.id >= 0) else {
            continue;
        };
        let id = BrokerId(broker.id);
        let addresses = match broker.host.parse::<IpAddr>() {
            Ok(ip) => alloc::vec![SocketAddr::new(ip, port)],
            Err(_) => cluster
                .brokers
                .get(&id)
                .filter(|known| *known.host == *broker.host && known.port == port)
                .map(|known| known.addresses.clone())
                .unwrap_or_default(),
        };
        // Of two entries with one id the first counts.
        brokers.entry(id).or_insert(Broker {
            host: broker.host.as_str().into(),
            port,
            addresses,
        });
    }
    cluster.brokers = brokers;
}

/// Takes in a topic. Partitions must be numbered from 0 without gaps; what is not is ignored.
fn learn_topic(cluster: &mut Cluster, name: &Arc<str>, told: &metadata::Topic) -> Learned {
    let known = cluster.topics.get(name);
    let same = |topic: &Topic| topic.id == TopicId(told.id);
    let mut partitions = alloc::vec![None; told.partitions.len()];
    for partition in &told.partitions {
        let Some(place) = usize::try_from(partition.index)
            .ok()
            .and_then(|index| partitions.get_mut(index))
        else {
            return Learned::Nothing;
        };
        let leader =
            Some(BrokerId(partition.leader)).filter(|leader| cluster.brokers.contains_key(leader));
        *place = Some(Partition {
            leader,
            leader_epoch: partition.leader_epoch,
        });
    }
    let Some(mut partitions) = partitions.into_iter().collect::<Option<Vec<_>>>() else {
        return Learned::Nothing;
    };
    if partitions.is_empty() {
        return Learned::Nothing;
    }
    if let Some(known) = known.filter(|known| same(known)) {
        for (new, old) in partitions.iter_mut().zip(&known.partitions) {
            if !is_news(new.leader_epoch, old.leader_epoch) {
                *new = *old;
            }
        }
        // Partitions are never taken away from a topic; a broker that tells fewer is behind.
        if let Some(more) = known.partitions.get(partitions.len()..) {
            partitions.extend_from_slice(more);
        }
    }
    let leaderless = partitions
        .iter()
        .any(|partition| partition.leader.is_none());
    cluster.topics.insert(
        Arc::clone(name),
        Arc::new(Topic {
            name: Arc::clone(name),
            id: TopicId(told.id),
            partitions,
        }),
    );
    if leaderless {
        Learned::Leaderless
    } else {
        Learned::All
    }
}
