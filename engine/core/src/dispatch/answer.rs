//! Reading the answer to a Produce request: each batch's result, leaders that moved, throttling.
//!
//! An answer is read whole before any of it counts, and every result must be for a batch of the
//! very request it answers: nothing is acknowledged that was not asked for, and a batch the broker
//! does not mention may be stored.

use alloc::format;
use alloc::sync::Arc;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use ringpost_codec::kafka::produce::{self, PartitionResponse, ResponseView, TopicRef};
use ringpost_codec::kafka::{ApiKey, ErrorCode, header};
use ringpost_codec::reader::Reader;

use crate::ack;
use crate::batch_in_flight::Batch;
use crate::buffer::Memory;
use crate::canary::{Canary, planted};
use crate::connection::{Entry, Flight};
use crate::dispatch::lane::Again;
use crate::dispatch::{Dispatcher, Spare};
use crate::health::sum_up;
use crate::id::{BrokerId, LaneId};
use crate::limits;
use crate::outcome::{Cause, Verdict, Why};
use crate::settings::Acks;
use crate::time::Time;

/// The result of one batch.
#[derive(Debug, Clone)]
pub(super) struct Row {
    entry: usize,
    /// It tells of a topic that is no longer.
    former: bool,
    code: ErrorCode,
    base_offset: i64,
    log_append_time_ms: i64,
    leader: Option<(BrokerId, i32)>,
    message: Option<Arc<str>>,
}

impl<M: Memory, T> Dispatcher<M, T> {
    /// Takes in an answer on a ready connection. `Err`: it is not what the protocol allows, and
    /// nothing of it counts.
    pub(super) fn answered(
        &mut self,
        now: Time,
        index: usize,
        frame: &[u8],
    ) -> Result<(), Arc<str>> {
        let text = |error: ringpost_codec::error::DecodeError| Arc::<str>::from(format!("{error}"));
        let mut reader = Reader::new(frame);
        let id = header::read_correlation_id(&mut reader).map_err(text)?;
        let Some(flight) = self.connections[index].flights.front() else {
            return Err("an answer to a question that was not asked".into());
        };
        if flight.correlation_id != id {
            return Err(format!(
                "an answer with correlation id {id} instead of {}",
                flight.correlation_id
            )
            .into());
        }
        header::read_response_rest(&mut reader, ApiKey::PRODUCE, flight.version).map_err(text)?;
        let response = produce::decode_response(flight.version, reader.rest()).map_err(text)?;
        let mut rows = core::mem::take(&mut self.spare.rows);
        rows.clear();
        let matched = self.match_rows(flight, &response, &mut rows);
        if matched.is_ok()
            && let Some(flight) = self.connections[index].flights.pop_front()
        {
            let on_wire = flight.on_wire_at.unwrap_or(now);
            self.connections[index].answered(now, on_wire);
            self.connections[index].served = true;
            // What was sent before an earlier answer asked us to be quiet was not read until that was over.
            let begun = flight.on_wire_at.unwrap_or(flight.handed_at);
            let begun = begun.max(self.connections[index].throttled_until);
            self.throttled(now, index, response.throttle_time_ms);
            let took = now
                .since(begun)
                .saturating_sub(throttle(response.throttle_time_ms));
            let says = sum_up(rows.iter().map(|row| row.code));
            self.heard(now, index, flight.handed_at, took, says);
            self.watch_idleness(now, index);
            self.learn_endpoints(now, &response);
            self.apply(now, index, flight, &mut rows);
        }
        rows.clear();
        self.spare.rows = rows;
        matched
    }

    /// Finds the entry of each result. Answers mostly come in the order of the request.
    fn match_rows(
        &self,
        flight: &Flight<M::Piece, T>,
        response: &ResponseView<'_>,
        rows: &mut alloc::vec::Vec<Row>,
    ) -> Result<(), Arc<str>> {
        let count = flight.entries.len();
        let mut expected = 0;
        for result in response.partitions() {
            let place = (expected..count)
                .chain(0..expected)
                .find(|place| self.is_for(&flight.entries[*place], &result));
            let Some(entry) = place else {
                return Err(format!(
                    "a result for partition {} of {:?}, which was not in the request",
                    result.partition, result.topic
                )
                .into());
            };
            if rows.iter().any(|row| row.entry == entry) {
                return Err(format!("two results for partition {}", result.partition).into());
            }
            expected = entry + 1;
            rows.push(Row {
                entry,
                former: self.is_of_former_topic(&flight.entries[entry]),
                code: result.error,
                base_offset: result.base_offset,
                log_append_time_ms: result.log_append_time_ms,
                leader: result
                    .current_leader
                    .filter(|hint| hint.leader_id >= 0)
                    .map(|hint| (BrokerId(hint.leader_id), hint.leader_epoch)),
                message: match result.error {
                    ErrorCode::NONE => None,
                    _ => message_of(&result),
                },
            });
        }
        Ok(())
    }

    fn is_for(&self, entry: &Entry<M::Piece, T>, result: &PartitionResponse<'_>) -> bool {
        let Some(lane) = self.lanes[entry.lane.index()].as_ref() else {
            return false;
        };
        lane.partition.0 == result.partition
            && match result.topic {
                TopicRef::Name(name) => *self.topics[lane.topic].name == *name,
                TopicRef::Id(id) => entry.topic_id.0 == id,
            }
    }

    /// Whether it was sent to a topic that was deleted, and made anew under the same name, meanwhile.
    fn is_of_former_topic(&self, entry: &Entry<M::Piece, T>) -> bool {
        let lane = self.lanes[entry.lane.index()].as_ref();
        let now = lane.map_or(entry.topic_id, |lane| self.topics[lane.topic].id);
        entry.topic_id.is_known() && now.is_known() && entry.topic_id != now
    }

    pub(super) fn throttled(&mut self, now: Time, index: usize, throttle_ms: i32) {
        let throttle = throttle(throttle_ms);
        if !throttle.is_zero() {
            let connection = &mut self.connections[index];
            connection.throttled_until = connection.throttled_until.max(now + throttle);
        }
    }

    /// Brokers named beside leaders that moved (KIP-951). Only plain addresses are taken; names are
    /// the controller's to resolve.
    fn learn_endpoints(&mut self, now: Time, response: &ResponseView<'_>) {
        for endpoint in response.node_endpoints() {
            let (Ok(ip), Ok(port)) = (
                endpoint.host.parse::<IpAddr>(),
                u16::try_from(endpoint.port),
            ) else {
                continue;
            };
            let id = BrokerId(endpoint.node_id);
            if !self.settings.allowed_hosts.allows(endpoint.host) {
                continue;
            }
            if self.place_of_broker(id).is_none()
                && self.brokers.len() < ringpost_codec::kafka::metadata::BROKERS_MAX
            {
                self.update_broker(now, id, &[SocketAddr::new(ip, port)]);
            }
        }
    }

    fn apply(
        &mut self,
        now: Time,
        index: usize,
        mut flight: Flight<M::Piece, T>,
        rows: &mut alloc::vec::Vec<Row>,
    ) {
        let broker = self.connections[index].broker;
        if rows.iter().any(|row| row.code.is_ok()) {
            self.earn_retries(index);
        }
        for mut row in rows.drain(..) {
            let entry = &mut flight.entries[row.entry];
            let lane = entry.lane;
            let was_proven = self.lanes[lane.index()].as_ref().is_some_and(|l| l.proven);
            let former = row.former;
            if former {
                row.leader = None;
            }
            if core::mem::take(&mut entry.purged) {
                self.purged_answered(now, lane, index, row.code, row.leader);
            } else if let Some(mut batch) = entry.batch.take() {
                batch.moments.on_wire = flight.on_wire_at.unwrap_or(now);
                self.came_back(lane);
                self.judge(now, lane, batch, index, row);
                self.drained(now, lane);
            }
            if former && let Some(lane) = self.lanes[lane.index()].as_mut() {
                // The new topic has nothing of us for it.
                lane.proven &= was_proven;
            }
        }
        for mut entry in flight.entries.drain(..) {
            if entry.purged {
                self.purged_back(now, entry.lane, false);
            } else if let Some(mut batch) = entry.batch.take() {
                batch.maybe_written = true;
                self.came_back(entry.lane);
                if planted(Canary::AckOnOmitted) {
                    let (base_offset, log_append_time_ms) = (None, None);
                    let verdict = Verdict::Acked {
                        base_offset,
                        log_append_time_ms,
                    };
                    self.settle(entry.lane, batch, verdict);
                    self.drained(now, entry.lane);
                    continue;
                }
                let what = "its answer leaves out a partition of the request".into();
                let cause = Cause::Protocol { broker, what };
                self.retry(now, entry.lane, batch, cause, Again::Rested);
                self.drained(now, entry.lane);
            }
        }
        Spare::<M::Piece, T>::keep(&mut self.spare.entries, flight.entries);
        self.watch_requests(index);
    }

    fn came_back(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes[id.index()].as_mut() {
            lane.in_flight -= 1;
        }
    }

    /// Does with a batch what the code of the broker that was asked means.
    fn judge(
        &mut self,
        now: Time,
        id: LaneId,
        mut batch: Batch<M::Piece, T>,
        asked: usize,
        row: Row,
    ) {
        let broker = self.connections[asked].broker;
        let cause = Cause::Broker {
            broker,
            code: row.code,
            message: row.message,
        };
        if ack::tells_of_missing_followers(row.code) {
            // Once is no reason: the retry may find them back. But a time-out was a long wait.
            let lane = self.lanes[id.index()].as_ref();
            self.refresh |= row.code == ErrorCode::REQUEST_TIMED_OUT
                || lane.is_some_and(|lane| lane.failures > 0);
        }
        if row.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            && let Some(lane) = self.lanes[id.index()].as_mut()
        {
            // It may be made anew, and then the broker has nothing of us.
            lane.proven = false;
        }
        match ack::action(row.code) {
            ack::Action::Acked => {
                self.progressed(now, id);
                let verdict = Verdict::Acked {
                    base_offset: (row.base_offset >= 0).then_some(row.base_offset),
                    log_append_time_ms: (row.log_append_time_ms >= 0)
                        .then_some(row.log_append_time_ms),
                };
                self.settle(id, batch, verdict);
            }
            ack::Action::AckedBefore => {
                self.progressed(now, id);
                self.settle(
                    id,
                    batch,
                    Verdict::Acked {
                        base_offset: planted(Canary::DuplicateAtZero).then_some(0),
                        log_append_time_ms: None,
                    },
                );
            }
            ack::Action::CheckAndRetry if !batch.sealed.is_intact() => {
                self.fail(now, id, batch, Why::Damaged, Some(cause));
            }
            ack::Action::Retry | ack::Action::CheckAndRetry => {
                self.retry(now, id, batch, cause, Again::Rested);
            }
            action @ (ack::Action::RefreshAndRetry | ack::Action::RefreshMaybeWritten) => {
                // Who waits for no follower loses no office meanwhile; but a disk can fail behind an append.
                let may_be_stored =
                    self.settings.acks == Acks::All || row.code == ErrorCode::KAFKA_STORAGE_ERROR;
                batch.maybe_written |= action == ack::Action::RefreshMaybeWritten && may_be_stored;
                let again = if self.follow(now, id, asked, row.leader) {
                    Again::AtOnce
                } else {
                    self.refresh = true;
                    Again::Rested
                };
                self.retry(now, id, batch, cause, again);
            }
            ack::Action::RetryMaybeWritten => {
                batch.maybe_written = true;
                self.retry(now, id, batch, cause, Again::Rested);
            }
            ack::Action::OutOfSequence | ack::Action::NewEpoch => {
                self.out_of_sequence(now, id, batch, cause);
            }
            ack::Action::Split => self.too_large(now, id, batch, cause),
            ack::Action::Reject => self.fail(now, id, batch, Why::Rejected, Some(cause)),
            ack::Action::Unknown => {
                batch.maybe_written = true;
                self.fail(now, id, batch, Why::Rejected, Some(cause));
            }
        }
    }

    /// Something of the lane was stored: its back-off starts anew.
    pub(super) fn progressed(&mut self, now: Time, id: LaneId) {
        if let Some(lane) = self.lanes[id.index()].as_mut() {
            lane.failures = 0;
            lane.proven = true;
            lane.stored_at = now;
        }
    }

    /// Follows a leader hint, if it is news. `true` when the lane now has another leader than the one
    /// that was asked, to be tried at once; metadata or an earlier answer may have told it before.
    pub(super) fn follow(
        &mut self,
        now: Time,
        id: LaneId,
        asked: usize,
        leader: Option<(BrokerId, i32)>,
    ) -> bool {
        let known = self.lanes[id.index()].as_ref();
        let known = known.map_or(i32::MAX, |lane| lane.leader_epoch);
        if let Some((leader, epoch)) = leader
            && epoch > known
            && self.place_of_broker(leader).is_some()
        {
            self.assign(now, id, Some(leader), epoch);
        }
        let lane = self.lanes[id.index()].as_ref();
        lane.and_then(|lane| lane.target)
            .is_some_and(|target| target != asked)
    }

    /// The broker expects another sequence. Behind a batch that has to be tried again that is no
    /// surprise; at the head of the line the numbers are broken.
    fn out_of_sequence(&mut self, now: Time, id: LaneId, batch: Batch<M::Piece, T>, cause: Cause) {
        let Some(lane) = self.lanes[id.index()].as_mut() else {
            return;
        };
        let behind = lane
            .queue
            .front()
            .is_some_and(|front| front.place < batch.place);
        let was_broken = lane.broken;
        lane.broken |= !behind;
        if lane.broken && batch.maybe_written {
            // An earlier attempt may be stored although this one was refused.
            self.fail(now, id, batch, Why::SequenceBroken, Some(cause));
        } else if behind || was_broken {
            // Something before it failed: nothing speaks against this one under new numbers.
            self.retry(now, id, batch, cause, Again::BehindOthers);
        } else {
            self.retry(now, id, batch, cause, Again::Rested);
        }
    }
}

/// How long the broker asks us to be quiet: no longer than makes sense.
fn throttle(throttle_ms: i32) -> Duration {
    let throttle_ms = u64::try_from(throttle_ms).unwrap_or(0);
    Duration::from_millis(throttle_ms).min(limits::THROTTLE_MAX)
}

/// The broker's words about a partition: its message, or that of the first bad record.
fn message_of(result: &PartitionResponse<'_>) -> Option<Arc<str>> {
    const LONGEST: usize = 500;
    let of_record = || {
        result
            .record_errors
            .clone()
            .find_map(|record| record.message)
    };
    let text = result.error_message.or_else(of_record)?;
    let end = text
        .char_indices()
        .map(|(at, _)| at)
        .take_while(|at| *at <= LONGEST)
        .last()?;
    Some(if text.len() <= LONGEST {
        text.into()
    } else {
        text[..end].into()
    })
}
