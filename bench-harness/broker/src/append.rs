//! Appending: what the state says to each batch of a Produce request, and what acks=all waits for.
//!
//! In Kafka's words: `ReplicaManager.appendRecords` and `DelayedProduce`.

use bytes::Bytes;
use ringpost_codec::kafka::ErrorCode;
use ringpost_codec::kafka::produce::TopicRef;

use crate::broker::{Broker, len_u64};
use crate::examine::{BatchFacts, Refusal};
use crate::faults::PartitionFault;
use crate::producers::Verdict;
use crate::replicas::Place;
use crate::session::Closed;
use crate::topic::{Partition, TopicId, is_valid_name};

/// One partition of a Produce request, examined.
pub(crate) struct Offer<'a> {
    pub(crate) topic: TopicRef<'a>,
    pub(crate) partition: i32,
    pub(crate) batch: Result<BatchFacts, Refusal>,
    /// A copy to keep.
    pub(crate) bytes: Option<Bytes>,
}

/// What acks=all waits for in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Awaited {
    place: Place,
    /// The high watermark has to come up to here.
    offset: i64,
    /// Under whom it was appended.
    reign: u64,
}

/// What a partition answers.
#[derive(Debug, Clone)]
pub(crate) struct PartitionAnswer {
    pub(crate) error: ErrorCode,
    pub(crate) base_offset: i64,
    pub(crate) log_start_offset: i64,
    /// −1 unless the batch has come again: then the latest timestamp in it, as in Kafka.
    pub(crate) log_append_time_ms: i64,
    /// The records at fault, by their places in the batch.
    pub(crate) records: Vec<i32>,
    pub(crate) message: Option<&'static str>,
    /// The leader to go to instead, and its epoch.
    pub(crate) leader: Option<(i32, i32)>,
    /// Left out of the answer.
    pub(crate) omitted: bool,
    /// Not decided yet.
    pub(crate) awaited: Option<Awaited>,
    /// The code to give instead, when it is decided.
    pretended: Option<ErrorCode>,
}

impl PartitionAnswer {
    fn error(error: ErrorCode) -> Self {
        Self {
            error,
            base_offset: -1,
            log_start_offset: -1,
            log_append_time_ms: -1,
            records: Vec::new(),
            message: None,
            leader: None,
            omitted: false,
            awaited: None,
            pretended: None,
        }
    }

    /// The whole request is refused.
    pub(crate) fn refused(error: ErrorCode) -> Self {
        Self::error(error)
    }

    fn not_leader(leader: i32, leader_epoch: i32) -> Self {
        Self {
            leader: Some((leader, leader_epoch)),
            ..Self::error(ErrorCode::NOT_LEADER_OR_FOLLOWER)
        }
    }

    /// Refused by the log, whose start is told.
    fn refused_by_log(error: ErrorCode, log_start_offset: i64) -> Self {
        Self {
            log_start_offset,
            ..Self::error(error)
        }
    }

    fn refusal(refusal: Refusal, log_start_offset: i64) -> Self {
        Self {
            log_start_offset: if refusal.by_log { log_start_offset } else { -1 },
            records: refusal.records,
            message: Some(refusal.message),
            ..Self::error(refusal.code)
        }
    }

    fn written(base_offset: i64, log_start_offset: i64) -> Self {
        Self {
            base_offset,
            log_start_offset,
            ..Self::error(ErrorCode::NONE)
        }
    }
}

/// Who takes a batch for a partition on the node that was asked.
enum Role {
    /// The leader, as everyone knows.
    Leader,
    /// One that has not heard that it no longer leads.
    Former { leader_epoch: i32, isr: Vec<i32> },
    /// Neither: this answer is given.
    Other(PartitionAnswer),
}

impl Broker {
    /// Works on the partitions of one Produce request, in order.
    pub(crate) fn produce(
        &mut self,
        node_id: i32,
        acks: i16,
        offers: Vec<Offer<'_>>,
    ) -> Result<Vec<PartitionAnswer>, Closed> {
        self.counters.requests += 1;
        let mut answers = Vec::with_capacity(offers.len());
        for offer in offers {
            let answer = self.append(node_id, acks, offer)?;
            if answer.awaited.is_none() {
                self.counters.refused += u64::from(!answer.error.is_ok());
            }
            answers.push(answer);
        }
        self.let_go();
        Ok(answers)
    }

    /// Looks whether what acks=all waits for has come, or never will. Says whether everything is
    /// decided. With `time_over`, everything is.
    pub(crate) fn settle(
        &mut self,
        node_id: i32,
        answers: &mut [PartitionAnswer],
        time_over: bool,
    ) -> bool {
        let mut all = true;
        for answer in answers {
            let Some(awaited) = answer.awaited else {
                continue;
            };
            let decided = self.decide(node_id, awaited);
            let late = || time_over.then_some(ErrorCode::REQUEST_TIMED_OUT);
            let Some(error) = decided.or_else(late) else {
                all = false;
                continue;
            };
            answer.awaited = None;
            answer.error = answer.pretended.unwrap_or(error);
            if answer.error == ErrorCode::NOT_LEADER_OR_FOLLOWER {
                answer.leader = self.leader_known_to(node_id, awaited.place);
            }
            self.counters.refused += u64::from(!answer.error.is_ok());
        }
        all
    }

    /// `DelayedProduce.tryComplete` and `Partition.checkEnoughReplicasReachOffset`.
    fn decide(&self, node_id: i32, awaited: Awaited) -> Option<ErrorCode> {
        let Some(partition) = self.partition(awaited.place) else {
            return Some(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        };
        let Some(replicas) = &partition.replicas else {
            return Some(ErrorCode::NONE);
        };
        if partition.leader != node_id || replicas.reign != awaited.reign {
            let view = self.views.get(&node_id);
            let (id, index) = awaited.place;
            let seen = view.and_then(|view| view.partition(id, index));
            return match seen {
                // It waits for followers that have left it.
                Some(seen) if seen.leader == node_id => None,
                _ => Some(ErrorCode::NOT_LEADER_OR_FOLLOWER),
            };
        }
        if replicas.high_watermark < awaited.offset {
            return None;
        }
        Some(if replicas.enough(replicas.isr.len()) {
            ErrorCode::NONE
        } else {
            ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
        })
    }

    /// Who leads a partition, and since which epoch, as far as a node knows.
    fn leader_known_to(&self, node_id: i32, place: Place) -> Option<(i32, i32)> {
        let view = self.views.get(&node_id);
        match view.and_then(|view| view.partition(place.0, place.1)) {
            Some(seen) => Some((seen.leader, seen.leader_epoch)),
            None => self.partition(place).map(|p| (p.leader, p.leader_epoch)),
        }
    }

    fn append(
        &mut self,
        node_id: i32,
        acks: i16,
        offer: Offer<'_>,
    ) -> Result<PartitionAnswer, Closed> {
        let place = match self.find(node_id, &offer) {
            Ok(place) => place,
            Err(code) => return Ok(PartitionAnswer::error(code)),
        };
        let request = self.counters.requests;
        let Some(topic) = self.topics.get_mut(&place.0) else {
            // Deleted, though the node has not heard of it.
            return Ok(PartitionAnswer::error(unknown(&offer)));
        };
        let fault = self.faults.take_batch(&topic.name, offer.partition);
        let fault = fault.or_else(|| self.faults.of_node(node_id));
        let partition = match topic.partition(offer.partition) {
            Ok(partition) => partition,
            Err(code) => return Ok(PartitionAnswer::error(code)),
        };
        if partition.named_by == request {
            return Err(Closed::PartitionTwice(offer.partition));
        }
        partition.named_by = request;
        match fault {
            Some(PartitionFault::ErrorBefore(code)) => return Ok(PartitionAnswer::error(code)),
            Some(PartitionFault::OmitBefore) => {
                return Ok(PartitionAnswer {
                    omitted: true,
                    ..PartitionAnswer::error(ErrorCode::NONE)
                });
            }
            Some(PartitionFault::Moved {
                leader_id,
                leader_epoch,
            }) => return Ok(PartitionAnswer::not_leader(leader_id, leader_epoch)),
            Some(PartitionFault::ErrorAfter(_) | PartitionFault::OmitAfter) | None => {}
        }
        let answer = match self.role(node_id, place) {
            Role::Leader => self.append_as_leader(place, acks, offer),
            Role::Former { leader_epoch, isr } => {
                self.append_as_former(node_id, place, (leader_epoch, &isr), acks, offer)
            }
            Role::Other(answer) => return Ok(answer),
        };
        if answer.base_offset < 0 {
            return Ok(answer); // refused
        }
        // As in Kafka, an error after the append carries the offset all the same.
        Ok(match fault {
            Some(PartitionFault::ErrorAfter(code)) if answer.awaited.is_some() => PartitionAnswer {
                pretended: Some(code),
                ..answer
            },
            Some(PartitionFault::ErrorAfter(error)) => PartitionAnswer { error, ..answer },
            Some(PartitionFault::OmitAfter) => PartitionAnswer {
                omitted: true,
                ..answer
            },
            _ => answer,
        })
    }

    /// Where the partition named is, as far as the node asked knows.
    fn find(&self, node_id: i32, offer: &Offer<'_>) -> Result<Place, ErrorCode> {
        let view = self.views.get(&node_id);
        let names = view.map_or(&self.names, |view| &view.names);
        let known = |id: &TopicId| match view {
            Some(view) => view.topics.contains_key(id),
            None => self.topics.contains_key(id),
        };
        let id = match offer.topic {
            TopicRef::Name(name) => names.get(name).copied(),
            TopicRef::Id(id) => Some(id),
        };
        let id = id.filter(known).ok_or_else(|| unknown(offer))?;
        let index =
            usize::try_from(offer.partition).map_err(|_| ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        if view.is_some_and(|view| view.partition(id, index).is_none()) {
            return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        }
        Ok((id, index))
    }

    fn role(&self, node_id: i32, place: Place) -> Role {
        let Some(partition) = self.partition(place) else {
            return Role::Other(PartitionAnswer::error(
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            ));
        };
        let view = self.views.get(&node_id);
        let seen = view.and_then(|view| view.partition(place.0, place.1));
        let (leader, leader_epoch) = match seen {
            Some(seen) => (seen.leader, seen.leader_epoch),
            None => (partition.leader, partition.leader_epoch),
        };
        if leader != node_id {
            return Role::Other(PartitionAnswer::not_leader(leader, leader_epoch));
        }
        let condition = self.members.conditions.get(&node_id);
        if condition.is_some_and(|c| c.dir_failed) {
            return Role::Other(PartitionAnswer::error(ErrorCode::KAFKA_STORAGE_ERROR));
        }
        match seen {
            Some(seen) if partition.leader != node_id => {
                if partition.replicas.is_none() {
                    // There is one copy, and it has gone to the other node.
                    let (leader, epoch) = (partition.leader, partition.leader_epoch);
                    return Role::Other(PartitionAnswer::not_leader(leader, epoch));
                }
                Role::Former {
                    leader_epoch: seen.leader_epoch,
                    isr: seen.isr.clone(),
                }
            }
            _ => Role::Leader,
        }
    }

    fn append_as_leader(&mut self, place: Place, acks: i16, offer: Offer<'_>) -> PartitionAnswer {
        let (config, counters) = (&self.config, &mut self.counters);
        let topic = self.topics.get_mut(&place.0);
        let Some(partition) = topic.and_then(|t| t.partitions.get_mut(place.1)) else {
            return PartitionAnswer::error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        };
        if let Some(replicas) = &partition.replicas
            && acks == -1
            && !replicas.enough(replicas.isr.len())
        {
            let log_start = partition.own.log.start();
            return PartitionAnswer::refused_by_log(ErrorCode::NOT_ENOUGH_REPLICAS, log_start);
        }
        let mut batch = match offer.batch {
            Ok(batch) => batch,
            Err(refusal) => {
                counters.corrupt += u64::from(refusal.corrupt);
                return PartitionAnswer::refusal(refusal, partition.own.log.start());
            }
        };
        let records = batch.records;
        let base_offset = match partition.own.producers.judge(&batch, config) {
            Verdict::Refuse(code) => {
                counters.out_of_sequence += 1;
                return PartitionAnswer::refused_by_log(code, partition.own.log.start());
            }
            Verdict::Duplicate(twin) => {
                counters.retries_recognised += 1;
                let end = twin.base_offset + i64::from(records);
                return PartitionAnswer {
                    log_append_time_ms: twin.timestamp,
                    ..answer_at(partition, place, acks, (twin.base_offset, end))
                };
            }
            Verdict::Append => {
                counters.batches += 1;
                counters.records += u64::from(records.unsigned_abs());
                counters.bytes += len_u64(batch.len);
                partition.records += u64::from(records.unsigned_abs());
                partition.bytes += len_u64(batch.len);
                if offer.bytes.is_some() {
                    self.kept.push_back((place.0, place.1, batch.len));
                    self.kept_bytes += batch.len;
                }
                self.appends += 1;
                if partition.replicas.is_some() {
                    return self.append_replicated(place, acks, batch, offer.bytes);
                }
                if !batch.numbers.is_empty() {
                    let numbers = std::mem::take(&mut batch.numbers);
                    self.tallies.take(&mut partition.numbers, &numbers);
                }
                let (epoch, serial) = (partition.leader_epoch, self.appends);
                partition
                    .own
                    .append(batch, epoch, serial, offer.bytes, config.producers_max)
            }
        };
        let end = base_offset + i64::from(records);
        answer_at(partition, place, acks, (base_offset, end))
    }

    /// The batch is good, and has to get to the followers.
    fn append_replicated(
        &mut self,
        place: Place,
        acks: i16,
        batch: BatchFacts,
        bytes: Option<Bytes>,
    ) -> PartitionAnswer {
        let serial = self.appends;
        let mut answer = PartitionAnswer::error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        self.changes += 1;
        self.at(place, |partition, place, around| {
            partition.note_caught_up(around);
            let (epoch, most) = (partition.leader_epoch, around.config.producers_max);
            let bytes = Some(bytes.unwrap_or_default());
            let records = i64::from(batch.records);
            let base_offset = partition.own.append(batch, epoch, serial, bytes, most);
            partition.arm(place, around);
            answer = answer_at(partition, place, acks, (base_offset, base_offset + records));
        });
        answer
    }

    /// A node that does not know that it leads no longer writes to its own log; what it writes is
    /// cut off when it knows.
    fn append_as_former(
        &mut self,
        node_id: i32,
        place: Place,
        (leader_epoch, isr): (i32, &[i32]),
        acks: i16,
        offer: Offer<'_>,
    ) -> PartitionAnswer {
        let batch = match offer.batch {
            Ok(batch) => batch,
            Err(refusal) => return PartitionAnswer::refusal(refusal, -1),
        };
        self.appends += 1;
        let serial = self.appends;
        let mut answer = PartitionAnswer::error(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        self.at(place, |partition, place, around| {
            let Some(replicas) = &mut partition.replicas else {
                return;
            };
            if acks == -1 && !replicas.enough(isr.len()) {
                let log_start = partition.own.log.start();
                let code = ErrorCode::NOT_ENOUGH_REPLICAS;
                answer = PartitionAnswer::refused_by_log(code, log_start);
                return;
            }
            let own = if replicas.home == node_id {
                &mut partition.own
            } else if let Some(follower) = replicas.followers.get_mut(&node_id) {
                &mut follower.replica
            } else {
                return;
            };
            let records = i64::from(batch.records);
            let mut log_append_time_ms = -1;
            let base_offset = match own.producers.judge(&batch, around.config) {
                Verdict::Refuse(code) => {
                    answer = PartitionAnswer::refused_by_log(code, own.log.start());
                    return;
                }
                Verdict::Duplicate(twin) => {
                    log_append_time_ms = twin.timestamp;
                    twin.base_offset
                }
                Verdict::Append => {
                    let most = around.config.producers_max;
                    let bytes = Some(offer.bytes.unwrap_or_default());
                    own.append(batch, leader_epoch, serial, bytes, most)
                }
            };
            answer = PartitionAnswer {
                log_append_time_ms,
                ..PartitionAnswer::written(base_offset, own.log.start())
            };
            // Nobody fetches from it any more, so it waits in vain.
            if acks == -1 {
                answer.awaited = Some(Awaited {
                    place,
                    offset: base_offset + records,
                    reign: u64::MAX,
                });
            }
        });
        answer
    }
}

/// What is said of a topic that is not known.
fn unknown(offer: &Offer<'_>) -> ErrorCode {
    match offer.topic {
        TopicRef::Name(name) if !is_valid_name(name) => ErrorCode::INVALID_TOPIC_EXCEPTION,
        TopicRef::Name(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        TopicRef::Id(_) => ErrorCode::UNKNOWN_TOPIC_ID,
    }
}

/// The answer to a batch that lies at (first offset, offset behind it).
fn answer_at(
    partition: &Partition,
    place: Place,
    acks: i16,
    (base_offset, end): (i64, i64),
) -> PartitionAnswer {
    let mut answer = PartitionAnswer::written(base_offset, partition.own.log.start());
    if let Some(replicas) = &partition.replicas
        && acks == -1
        && replicas.high_watermark < end
    {
        answer.awaited = Some(Awaited {
            place,
            offset: end,
            reign: replicas.reign,
        });
    }
    answer
}
