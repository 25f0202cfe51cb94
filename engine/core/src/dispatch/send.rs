//! Putting a request together: every ready partition of the broker in one, each once.
//!
//! ```text
//!   slab    [head][topic][partition][batch header]      [end][partition][header][small body][ends]
//!   frame   └───────────── piece ────────────────┘ body └─────────────── piece ─────────────────┘
//! ```
//!
//! The head, the topics and partitions, the batch headers and bodies under 1 KiB are written into a
//! slab of the request's own; larger bodies go by reference between its slices. So a retry writes
//! fresh heads and shares the bodies, which nobody writes.

use core::mem;

use ringpost_codec::kafka::produce::{self, RequestHead, TopicRef};
use ringpost_codec::record_batch::BATCH_HEADER_LEN;

use crate::batch_in_flight::Batch;
use crate::buffer::{Buffer, Memory, Piece};
use crate::connection::{Entry, Flight, State};
use crate::dispatch::split::Divided;
use crate::dispatch::{Action, Dispatcher, Spare, Supply};
use crate::health::Gate;
use crate::id::LaneId;
use crate::limits;
use crate::outcome::{Cause, Why};
use crate::time::Time;
use crate::timer::{ConnectionTimer, Timer};

/// A place in the slab where a body goes by reference: the entry's number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    at: usize,
    entry: usize,
}

/// Whether a batch is tried again for its own sake: not because of another, nor because it was divided.
fn is_retry<P, T>(batch: &Batch<P, T>) -> bool {
    batch.attempts > batch.excused
}

/// Whether the request costs something of the budget for retries.
fn has_retry<P, T>(entries: &[Entry<P, T>]) -> bool {
    let mut batches = entries.iter().filter_map(|entry| entry.batch.as_ref());
    batches.any(is_retry)
}

impl<M: Memory, T> Dispatcher<M, T> {
    /// Sends a request on a connection, if it is time and the connection can take one.
    pub(super) fn send_if_due<S>(&mut self, now: Time, index: usize, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        let timer = Timer::Connection(index, ConnectionTimer::Gather);
        if self.leave_if_stale(now, index) {
            self.timers.stop(timer);
            return;
        }
        let connection = &self.connections[index];
        let gate = self.gate(index);
        if connection.ready.is_empty()
            || !connection.window_open(&self.settings)
            || gate == Gate::Shut
        {
            self.timers.stop(timer);
            return;
        }
        let due = connection.due(&self.settings);
        if due > now {
            self.timers.set(timer, due);
            return;
        }
        self.timers.stop(timer);
        if self.settings.idempotent && self.identity.is_none() {
            self.ask_identity();
            return;
        }
        let State::Ready {
            produce_version, ..
        } = self.connections[index].state
        else {
            return;
        };
        let entries = self.collect(now, index, produce_version, gate, supply);
        if self.settings.idempotent && self.identity.is_none() {
            // An expired batch used up the last epoch meanwhile: back to their places.
            self.take_back(now, index, entries);
            self.ask_identity();
            return;
        }
        if entries.is_empty() {
            Spare::<M::Piece, T>::keep(&mut self.spare.entries, entries);
            return;
        }
        self.send(now, index, produce_version, entries, supply);
    }

    /// Draws a batch from each ready lane, as many as one request takes.
    fn collect<S>(
        &mut self,
        now: Time,
        index: usize,
        version: i16,
        gate: Gate,
        supply: &mut S,
    ) -> alloc::vec::Vec<Entry<M::Piece, T>>
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        let mut entries = self.spare.entries.pop().unwrap_or_default();
        let mut bytes = limits::REQUEST_HEAD_BYTES_MAX + self.settings.client_id.len();
        let mut slab = limits::REQUEST_HEAD_BYTES_MAX + self.settings.client_id.len();
        self.connections[index].gathered.calm();
        // What is tried again in one request is one retry.
        let mut paid = false;
        for _ in 0..self.connections[index].ready.len() {
            if gate == Gate::One && !entries.is_empty() {
                // The others have waited as long; they go when the gate is open.
                self.connections[index].gathered.now = true;
                break;
            }
            let Some(id) = self.connections[index].ready.pop_front() else {
                break;
            };
            self.unlist(id);
            let Some(lane) = self.lanes[id.index()].as_mut() else {
                continue;
            };
            if !lane.eligible(now, &self.settings) {
                continue;
            }
            let again = lane.queue.front().is_some_and(is_retry);
            if again && !paid {
                if let Err(until) = self.pay_for_retry(now, index) {
                    self.counters.budget_waits += 1;
                    self.rest_lane(id, until);
                    continue;
                }
                paid = true;
            }
            let lane = self.lanes[id.index()].as_mut().expect("looked at above");
            let batch = match lane.queue.pop_front() {
                Some(batch) => batch,
                None => match self.draw(now, id, supply) {
                    Some(batch) => batch,
                    // Its lock is taken, or it has nothing.
                    None => continue,
                },
            };
            if batch.deadline <= now + self.connections[index].answer_takes(&self.settings) {
                // Too late for an answer. Sent all the same it would miss its deadline in flight, which
                // ends the connection and with it the chances of all others.
                self.fail(now, id, batch, Why::Expired, None);
                self.drained(now, id);
                continue;
            }
            let batch = if batch.too_large {
                match self.divide(batch, supply) {
                    Divided::Halves(halves) => {
                        let [first, second] = *halves;
                        let whole = first.sealed.record_bytes + second.sealed.record_bytes;
                        self.narrow(now, id, whole, supply);
                        let lane = self.lanes[id.index()].as_mut().expect("drawn from");
                        lane.queue.push_front(second);
                        first
                    }
                    Divided::Later(batch) => {
                        let lane = self.lanes[id.index()].as_mut().expect("drawn from");
                        lane.queue.push_front(batch);
                        self.rest_lane(id, now + self.settings.retry.backoff.initial);
                        continue;
                    }
                    Divided::Whole(batch) => {
                        self.fail(now, id, batch, Why::Rejected, None);
                        self.drained(now, id);
                        continue;
                    }
                }
            } else {
                batch
            };
            let topic = self.lanes[id.index()].as_ref().map_or(0, |l| l.topic);
            let around = limits::AROUND_BATCH_BYTES_MAX + self.topics[topic].name.len();
            let wire = batch.sealed.wire_len() + around;
            slab += limits::SLAB_BYTES_PER_PARTITION_MAX;
            let full =
                bytes + wire > self.settings.request_bytes_max || slab > limits::SLAB_BYTES_MAX;
            if full && !entries.is_empty() {
                self.lanes[id.index()]
                    .as_mut()
                    .expect("drawn from")
                    .queue
                    .push_front(batch);
                self.list(now, id);
                break;
            }
            let Some(batch) = self.acceptable(now, id, batch, version) else {
                self.drained(now, id);
                continue;
            };
            bytes += wire;
            let lane = self.lanes[id.index()].as_mut().expect("drawn from");
            lane.in_flight += 1;
            let topic_id = self.topics[lane.topic].id;
            entries.push(Entry {
                lane: id,
                topic_id,
                batch: Some(batch),
                purged: false,
            });
            self.list(now, id);
        }
        if paid && !has_retry(&entries) {
            // It expired instead, or found no room.
            self.give_retry_back(index);
        }
        entries
    }

    /// Takes what a request with retries costs from the broker's budget, or says when there will be
    /// enough.
    fn pay_for_retry(&mut self, now: Time, index: usize) -> Result<(), Time> {
        let Some(budget) = self.settings.retry.budget else {
            return Ok(());
        };
        let broker = index / self.settings.connections_per_broker;
        self.brokers[broker].tokens.take(now, &budget)
    }

    /// What was paid for is not sent after all.
    fn give_retry_back(&mut self, index: usize) {
        let broker = index / self.settings.connections_per_broker;
        self.brokers[broker].tokens.give_back();
    }

    /// A request was acknowledged: that counts for the broker's retries.
    pub(super) fn earn_retries(&mut self, index: usize) {
        if let Some(budget) = self.settings.retry.budget {
            let broker = index / self.settings.connections_per_broker;
            self.brokers[broker].tokens.earn(&budget);
        }
    }

    /// Puts batches that were drawn for a request back to their places.
    fn take_back(
        &mut self,
        now: Time,
        index: usize,
        mut entries: alloc::vec::Vec<Entry<M::Piece, T>>,
    ) {
        if has_retry(&entries) {
            self.give_retry_back(index);
        }
        for mut entry in entries.drain(..) {
            let (Some(batch), Some(lane)) =
                (entry.batch.take(), self.lanes[entry.lane.index()].as_mut())
            else {
                continue;
            };
            lane.in_flight -= 1;
            lane.queue.push_front(batch);
            self.list(now, entry.lane);
        }
        Spare::<M::Piece, T>::keep(&mut self.spare.entries, entries);
    }

    /// Ends a batch that this broker would misread.
    fn acceptable(
        &mut self,
        now: Time,
        id: LaneId,
        batch: Batch<M::Piece, T>,
        version: i16,
    ) -> Option<Batch<M::Piece, T>> {
        use ringpost_codec::compress::Codec;
        let zstd = matches!(batch.sealed.attributes.codec(), Ok(Codec::Zstd));
        if zstd && version < produce::ZSTD_FROM {
            let connection = self.lanes[id.index()].as_ref()?.connection?;
            let broker = self.connections[connection].broker;
            let what = "it is too old for zstd (Kafka 2.1 is the first to read it)".into();
            self.fail(
                now,
                id,
                batch,
                Why::Unsupported,
                Some(Cause::Unsupported { broker, what }),
            );
            return None;
        }
        Some(batch)
    }

    fn send<S>(
        &mut self,
        now: Time,
        index: usize,
        version: i16,
        mut entries: alloc::vec::Vec<Entry<M::Piece, T>>,
        supply: &mut S,
    ) where
        S: Supply<Memory = M, Ticket = T>,
    {
        for entry in &mut entries {
            let Some(mut batch) = entry.batch.take() else {
                continue;
            };
            // There is an identity: the caller looked.
            let stamped = self.stamp(entry.lane, &mut batch);
            debug_assert!(stamped);
            entry.batch = Some(batch);
        }
        // Topics must stand together. Lanes of one topic mostly come in order already.
        let topic = |lanes: &[Option<super::Lane<M::Piece, T>>], entry: &Entry<M::Piece, T>| {
            lanes[entry.lane.index()]
                .as_ref()
                .map_or(0, |lane| lane.topic)
        };
        entries.sort_unstable_by_key(|entry| (topic(&self.lanes, entry), entry.lane));

        let known = entries.iter().all(|entry| entry.topic_id.is_known());
        let version = if known {
            version
        } else {
            version.min(produce::TOPIC_IDS_FROM - 1)
        };
        let correlation_id = self.connections[index].correlation();
        let frame = match self.assemble(version, correlation_id, &entries, supply) {
            Some(frame) => frame,
            None => {
                // No slab: everything back to its place, until a frame is released.
                self.take_back(now, index, entries);
                self.connections[index].gathered.now = true;
                self.short_of_slabs = true;
                return;
            }
        };
        let bytes = frame.iter().map(|piece| piece.bytes().len()).sum();
        let mut deadline = now + self.settings.request_timeout;
        let mut records: u32 = 0;
        for entry in &mut entries {
            let Some(batch) = entry.batch.as_mut() else {
                continue;
            };
            deadline = deadline.min(batch.deadline.max(now));
            if batch.attempts > 0 {
                self.counters.retries += 1;
            }
            batch.attempts += 1;
            records = records.saturating_add(batch.sealed.records);
            self.counters.batches += 1;
        }
        self.counters.requests += 1;
        self.counters.request_bytes += bytes as u64;
        let connection = &mut self.connections[index];
        connection.sends(now, records);
        connection.frame_out = true;
        connection.unsent = bytes;
        connection.flights.push_back(Flight {
            correlation_id,
            version,
            deadline,
            handed_at: now,
            on_wire_at: None,
            entries,
        });
        let conn = self.conn_id(index);
        self.actions.push_back(Action::Send { conn, frame });
        self.watch_requests(index);
    }

    fn assemble<S>(
        &mut self,
        version: i16,
        correlation_id: i32,
        entries: &[Entry<M::Piece, T>],
        supply: &mut S,
    ) -> Option<alloc::vec::Vec<M::Piece>>
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        let mut head = mem::take(&mut self.spare.head);
        let mut cuts = mem::take(&mut self.spare.cuts);
        head.clear();
        cuts.clear();
        let by_reference =
            self.write_request(version, correlation_id, entries, &mut head, &mut cuts);
        let slab = supply.slab(head.len()).map(|mut slab| {
            slab.spare_mut()[..head.len()].copy_from_slice(&head);
            slab.commit(head.len());
            slab.freeze()
        });
        let frame = slab.map(|slab| {
            let mut frame = self.spare.frames.pop().unwrap_or_default();
            let mut from = 0;
            for cut in &cuts {
                frame.push(slab.slice(from..cut.at));
                from = cut.at;
                if let Some(batch) = &entries[cut.entry].batch {
                    frame.extend(batch.sealed.pieces.iter().cloned());
                }
            }
            if from < head.len() {
                frame.push(slab.slice(from..head.len()));
            }
            debug_assert_eq!(
                frame.iter().map(|piece| piece.bytes().len()).sum::<usize>(),
                head.len() + by_reference
            );
            frame
        });
        self.spare.head = head;
        self.spare.cuts = cuts;
        frame
    }

    /// Writes all of a request but the large bodies, and notes where those belong. Returns their
    /// length.
    fn write_request(
        &self,
        version: i16,
        correlation_id: i32,
        entries: &[Entry<M::Piece, T>],
        head: &mut alloc::vec::Vec<u8>,
        cuts: &mut alloc::vec::Vec<Cut>,
    ) -> usize {
        let topic_of = |entry: &Entry<M::Piece, T>| {
            self.lanes[entry.lane.index()]
                .as_ref()
                .map_or(0, |lane| lane.topic)
        };
        let by_topic = || entries.chunk_by(|a, b| topic_of(a) == topic_of(b));
        let timeout_ms = i32::try_from(self.settings.request_timeout.as_millis());
        let length = produce::put_request_head(
            head,
            &RequestHead {
                version,
                correlation_id,
                client_id: Some(&self.settings.client_id),
                transactional_id: None,
                acks: self.settings.acks.wire(),
                timeout_ms: timeout_ms.unwrap_or(i32::MAX),
                topic_count: by_topic().count(),
            },
        );
        let mut by_reference = 0;
        let mut number = 0;
        for group in by_topic() {
            let topic = if version >= produce::TOPIC_IDS_FROM {
                TopicRef::Id(group[0].topic_id.0)
            } else {
                TopicRef::Name(&self.topics[topic_of(&group[0])].name)
            };
            produce::put_topic(head, version, topic, group.len());
            for entry in group {
                if let (Some(batch), Some(lane)) =
                    (&entry.batch, self.lanes[entry.lane.index()].as_ref())
                {
                    let sealed = &batch.sealed;
                    produce::put_partition(head, version, lane.partition.0, sealed.wire_len());
                    let at = head.len();
                    head.resize(at + BATCH_HEADER_LEN, 0);
                    sealed.write_header(batch.stamp, &mut head[at..]);
                    if sealed.body.len < limits::COPIED_BODY_BYTES_MAX {
                        for piece in &sealed.pieces {
                            head.extend_from_slice(piece.bytes());
                        }
                    } else {
                        cuts.push(Cut {
                            at: head.len(),
                            entry: number,
                        });
                        by_reference += sealed.body.len;
                    }
                    produce::put_partition_end(head, version);
                }
                number += 1;
            }
            produce::put_topic_end(head, version);
        }
        produce::put_request_end(head, version);
        length.patch(head, by_reference);
        by_reference
    }
}
