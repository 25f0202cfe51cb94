//! Asking, and taking in what a broker answers: brokers, topics, leaders, producer ids.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use ringpost_codec::error::DecodeError;
use ringpost_codec::kafka::header::{self, RequestHeader};
use ringpost_codec::kafka::{ApiKey, ErrorCode, init_producer_id, metadata};
use ringpost_codec::reader::Reader;

use crate::canary::{Canary, planted};
use crate::directory::{Asked, Directory, Question, State, Task, TopicError};
use crate::id::{BrokerId, ProducerIdentity, TopicId};
use crate::limits;
use crate::metadata::{Broker, Cluster, Partition, Topic, is_news};
use crate::time::Time;

impl Directory {
    /// Before this version of Metadata leader epochs can run backwards while a partition is reassigned,
    /// and say nothing of what is newer
    /// ([KAFKA-9212](https://issues.apache.org/jira/browse/KAFKA-9212)).
    const RELIABLE_EPOCHS_FROM: i16 = 9;

    pub(super) fn ask(&mut self, now: Time) {
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
            let needed = core::mem::take(&mut self.refresh_asked);
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
            Question::Metadata { needed }
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

    pub(super) fn answer(
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
        let mut behind = false;
        match asked.question {
            Question::Metadata { needed } => {
                header::read_response_rest(&mut reader, ApiKey::METADATA, metadata_version)
                    .map_err(text)?;
                let mut response =
                    metadata::Response::read(metadata_version, &mut reader).map_err(text)?;
                if metadata_version < Self::RELIABLE_EPOCHS_FROM {
                    forget_epochs(&mut response);
                }
                rebootstrap = response.error == ErrorCode::REBOOTSTRAP_REQUIRED;
                if !rebootstrap {
                    behind = is_behind(&self.cluster, &response);
                    let news = self.learn(now, response, behind);
                    self.in_vain = match (news, needed) {
                        (true, _) => 0,
                        (false, true) => self.in_vain + 1,
                        (false, false) => self.in_vain,
                    };
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
        self.roaming = false;
        if rebootstrap {
            self.rebootstrap(now);
        } else if behind || self.in_vain >= limits::FRUITLESS_MAX {
            self.leave();
        }
        Ok(())
    }

    fn identified(&mut self, now: Time, asker: usize, response: &init_producer_id::Response) {
        // Whoever asks once more has used up what it was given: the same id again is no answer.
        let given = self.given.get(&asker);
        let usable = response.producer_id >= 0
            && response.producer_epoch >= 0
            && given != Some(&response.producer_id);
        match response.error {
            ErrorCode::NONE if usable => {
                self.identity_failures = 0;
                self.in_vain = 0;
                self.given.insert(asker, response.producer_id);
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
            // Loading, not available, timed out, or nonsense: ask again. One that does not hear the
            // controller never has any.
            _ => {
                self.in_vain += 1;
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

    /// Takes in what a broker knows; of one that is `behind` what is known, not its list of brokers.
    /// Says whether it is news.
    fn learn(&mut self, now: Time, response: metadata::Response, behind: bool) -> bool {
        let before = Arc::clone(&self.cluster);
        let cluster = Arc::make_mut(&mut self.cluster);
        let mut refused = Vec::new();
        let mut again = response.error != ErrorCode::NONE;
        if let Some(to) = response.cluster_id {
            let to: Arc<str> = to.into();
            let from = cluster.cluster_id.replace(Arc::clone(&to));
            if let Some(from) = from.filter(|from| *from != to) {
                // Nothing of one cluster is true of another: its topics and leaders go with it, and a
                // producer id it gave may be given by the other for the first time.
                self.given.clear();
                *cluster = Cluster {
                    cluster_id: Some(Arc::clone(&to)),
                    ..Cluster::default()
                };
                if !self.told_of.contains(&to) && self.told_of.len() < Self::TOLD_OF_MAX {
                    self.told_of.push(Arc::clone(&to));
                    self.tasks.push_back(Task::ClusterChanged { from, to });
                }
            }
        }
        if !response.brokers.is_empty() && !behind {
            let is_allowed = |broker: &&metadata::Broker| self.allowed_hosts.allows(&broker.host);
            let brokers = response.brokers.iter();
            learn_brokers(cluster, brokers.clone().filter(is_allowed));
            for broker in brokers.filter(|broker| !is_allowed(broker)) {
                let told = &mut self.refused_hosts;
                if told.len() < Self::TOLD_OF_MAX && told.iter().all(|h| **h != *broker.host) {
                    let host: Arc<str> = broker.host.as_str().into();
                    told.push(Arc::clone(&host));
                    self.tasks.push_back(Task::HostRefused { host });
                }
            }
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
                | ErrorCode::TOPIC_AUTHORIZATION_FAILED)
                    if !wanted.known =>
                {
                    refused.push((name, code));
                }
                // Being created, being elected, or not there (yet). Or refused although it is in use:
                // rights may come back, and nobody would ask for it again.
                _ => {
                    again = true;
                    if planted(Canary::SequenceStateDropped) {
                        cluster.topics.remove(&name);
                    }
                }
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
        news
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

/// Whether a broker tells an older leader epoch than is known: it has not heard of what happened
/// since. A topic without an id may have been made anew, and its epochs count from the start.
fn is_behind(cluster: &Cluster, response: &metadata::Response) -> bool {
    response.topics.iter().any(|told| {
        let known = told.name.as_deref().and_then(|n| cluster.topics.get(n));
        let known = known.filter(|known| told.id != [0; 16] && known.id == TopicId(told.id));
        let older = |partition: &metadata::Partition| {
            let known = usize::try_from(partition.index)
                .ok()
                .and_then(|index| known?.partitions.get(index));
            known.is_some_and(|known| !is_news(partition.leader_epoch, known.leader_epoch))
        };
        told.partitions.iter().any(older)
    })
}

fn forget_epochs(response: &mut metadata::Response) {
    let topics = response.topics.iter_mut();
    for partition in topics.flat_map(|topic| &mut topic.partitions) {
        partition.leader_epoch = -1;
    }
}

enum Learned {
    Nothing,
    Leaderless,
    All,
}

fn learn_brokers<'a>(cluster: &mut Cluster, told: impl Iterator<Item = &'a metadata::Broker>) {
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
