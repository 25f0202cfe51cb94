//! The phone book: which topics there are, who leads their partitions, where brokers are reached,
//! and producer ids.
//!
//! One connection to any broker that answers, one request on it at a time. The order in which
//! brokers are tried: those the cluster named last, then the bootstrap addresses, whose names are
//! resolved anew each time round; so a cluster that moved is found again
//! ([KIP-899](https://cwiki.apache.org/confluence/display/KAFKA/KIP-899%3A+Allow+producer+and+consumer+clients+to+rebootstrap)).
//!
//! A broker that answers is not left for that alone which it answers, but for what it does not: one
//! that is cut off from its peers goes on telling what was true before. After [`limits::FRUITLESS_MAX`]
//! answers in a row that were asked for because something is wrong, and told nothing new, the next
//! broker is asked; after one that is older than what is known already, at once. Questions keep
//! the distance of the back-off throughout, so a cluster that has no news is asked no more often than
//! one broker would be.
//!
//! Like the dispatcher it does nothing by itself: calls tell it what happened,
//! [`Directory::step`] lets it decide, [`Directory::poll_task`] gives what to do. Files: `reach` from a
//! name to a connection; `answers` what is asked and what an answer changes.

mod answers;
mod reach;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use ringpost_codec::frame::Deframer;
use ringpost_codec::kafka::ErrorCode;

use crate::allowed_hosts::AllowedHosts;
use crate::connection::ConnId;
use crate::handshake::Handshake;
use crate::id::ProducerIdentity;
use crate::limits;
use crate::metadata::Cluster;
use crate::random::Random;
use crate::retry::Backoff;
use crate::time::Time;
use crate::words::Words;

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
            let between = if n == 0 { "" } else { ";" };
            // A host is what some broker said.
            write!(f, "{between} {}: {}", Words(address), Words(reason))?;
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
    /// Another cluster answers than before: records may be going where they should not. Told once for
    /// each cluster.
    ClusterChanged {
        /// The id it had.
        from: Arc<str>,
        /// The id it has.
        to: Arc<str>,
    },
    /// The cluster names a broker at a host that is not allowed; it is as if it were not there. Told once
    /// for each host.
    HostRefused {
        /// The host, in the cluster's words.
        host: Arc<str>,
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
    Metadata {
        /// Something is wrong: it is not asked for its age alone.
        needed: bool,
    },
    Identity {
        asker: usize,
    },
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
    /// The producer id each asker was given last: one entry a shard.
    given: BTreeMap<usize, i64>,
    refresh_asked: bool,
    refresh_not_before: Time,
    fruitless: u32,
    /// Answers in a row of the broker that is asked now, which were needed and told nothing new.
    in_vain: u32,
    /// A broker that answers was left for another: those that are silent are not waited for so long.
    roaming: bool,
    stale_at: Time,
    answered_before: bool,
    /// Other clusters that were told of.
    told_of: Vec<Arc<str>>,
    allowed_hosts: AllowedHosts,
    /// Hosts that are not allowed and were told of.
    refused_hosts: Vec<Arc<str>>,
    tasks: VecDeque<Task>,
    random: Random,
}

impl Directory {
    /// The slot of the directory's connection, which the dispatcher's never use.
    pub const SLOT: u16 = 0;

    /// So many other clusters are told of, and so many hosts that are not allowed. More are no news, but
    /// somebody who makes them up.
    pub(super) const TOLD_OF_MAX: usize = 16;

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
            given: BTreeMap::new(),
            refresh_asked: false,
            refresh_not_before: Time(0),
            fruitless: 0,
            in_vain: 0,
            roaming: false,
            stale_at: Time::NEVER,
            answered_before: false,
            told_of: Vec::new(),
            allowed_hosts: AllowedHosts::default(),
            refused_hosts: Vec::new(),
            tasks: VecDeque::new(),
            random: Random::new(seed),
        }
    }

    /// Brokers at other hosts than these are not taken in, whoever names them. The bootstrap addresses
    /// themselves are the application's own, and are asked whatever is allowed.
    #[must_use]
    pub fn allow_only(mut self, hosts: AllowedHosts) -> Self {
        self.allowed_hosts = hosts;
        self
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
        let timeout = self.setup_timeout();
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
}
