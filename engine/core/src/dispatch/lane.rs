//! A lane's batches in order, and its sequence.
//!
//! Batches are numbered when they are drawn. They leave in that order; one that must be tried again
//! goes back to its place, and nothing behind it is sent before everything of the lane that is in
//! flight has come back: a retry never overtakes and is never overtaken.
//!
//! *Sequences.* A batch gets producer id, epoch and sequence when it is first sent and keeps them
//! for every further attempt, so that the broker recognises what it has. When a numbered batch ends
//! without being stored for certain, the numbers after it no longer fit: the lane is *broken*. It
//! then lets everything in flight come back, sends what may be stored again under its old numbers
//! (one at a time; the broker knows them or refuses), and gives what was certainly never stored new
//! numbers from 0 under a new epoch. A broker that has nothing of an identity yet takes whatever comes
//! first for its beginning; so the first batch under an identity goes alone. Other lanes are not touched
//! ([KIP-360](https://cwiki.apache.org/confluence/display/KAFKA/KIP-360%3A+Improve+reliability+of+idempotent+producer)).

use alloc::collections::VecDeque;
use core::cmp::Reverse;

use crate::batch_in_flight::{Batch, Moments, Place};
use crate::buffer::Memory;
use crate::canary::{Canary, planted};
use crate::dispatch::{Action, Backlog, Dispatcher, Supply, Take};
use crate::id::{LaneId, PartitionId, ProducerIdentity, Sequence};
use crate::limits;
use crate::outcome::{Cause, Why};
use crate::retry::Class;
use crate::seal::seal;
use crate::settings::{Acks, Settings};
use crate::time::Time;
use crate::timer::Timer;

/// A lane as its shard's dispatcher sees it.
#[derive(Debug)]
pub(crate) struct Lane<P, T> {
    pub(crate) topic: usize,
    pub(crate) partition: PartitionId,
    /// The connection its batches go to.
    pub(crate) connection: Option<usize>,
    /// The connection they should go to; differs while batches are in flight.
    pub(crate) target: Option<usize>,
    pub(crate) leader_epoch: i32,
    /// On this connection's list of lanes with something to send.
    pub(crate) listed: Option<usize>,
    /// What the appenders' side holds, as it was last seen.
    pub(crate) source: Backlog,
    /// Drawn, not in flight, in order.
    pub(crate) queue: VecDeque<Batch<P, T>>,
    pub(crate) in_flight: usize,
    /// A batch went back while others were in flight: nothing leaves until they are back too.
    pub(crate) muted: bool,
    /// The broker has stored a batch under the present identity. Until then it would take any
    /// sequence for the first, a later batch before an earlier one too, so only one is sent.
    pub(crate) proven: bool,
    /// When it last said that it has stored a batch.
    pub(crate) stored_at: Time,
    /// The sequence has a gap, or may have one.
    pub(crate) broken: bool,
    pub(crate) resting_until: Time,
    /// Failures in a row, for the back-off.
    pub(crate) failures: u32,
    pub(crate) next_ordinal: u64,
    pub(crate) identity: Option<ProducerIdentity>,
    pub(crate) next_sequence: Sequence,
}

impl<P, T> Lane<P, T> {
    pub(crate) fn new(topic: usize, partition: PartitionId) -> Self {
        Self {
            topic,
            partition,
            connection: None,
            target: None,
            leader_epoch: -1,
            listed: None,
            source: Backlog::Empty,
            queue: VecDeque::new(),
            in_flight: 0,
            muted: false,
            proven: false,
            stored_at: Time(0),
            broken: false,
            resting_until: Time(0),
            failures: 0,
            next_ordinal: 0,
            identity: None,
            next_sequence: Sequence(0),
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        self.source != Backlog::Empty || !self.queue.is_empty()
    }

    /// Whether a batch of the lane may leave now.
    pub(crate) fn eligible(&self, now: Time, settings: &Settings) -> bool {
        self.has_work()
            && self.connection.is_some()
            && self.target == self.connection
            && self.resting_until <= now
            && !self.muted
            && self.in_flight < self.window(now, settings)
    }

    /// How many batches may be in flight. Without sequences the broker cannot put back in order
    /// what a retry changed, so only one is; with acks=0 nothing is ever retried.
    fn window(&self, now: Time, settings: &Settings) -> usize {
        // Brokers forget producers that are idle for long.
        let proven = self.proven && now.since(self.stored_at) < limits::PROOF_LASTS;
        match (settings.idempotent, settings.acks) {
            (true, _) if (self.broken || !proven) && !planted(Canary::EpochBumpWithoutDrain) => 1,
            (true, _) if planted(Canary::SixInFlight) => limits::LANE_WINDOW + 1,
            (true, _) => settings.in_flight_max.min(limits::LANE_WINDOW),
            (false, Acks::None) => settings.in_flight_max,
            (false, _) => 1,
        }
    }

    /// Puts a batch back to its place.
    fn put_back(&mut self, batch: Batch<P, T>) {
        let place = self
            .queue
            .partition_point(|other| other.place < batch.place || planted(Canary::RetryOvertakes));
        self.queue.insert(place, batch);
    }

    /// Takes out a waiting batch whose deadline passed. A lane's own batches expire in order, so that
    /// none is given up while an older one is still tried; but a younger batch that came from another
    /// lane keeps none of them past its deadline.
    pub(crate) fn pop_expired(&mut self, now: Time) -> Option<Batch<P, T>> {
        let late = |batch: &Batch<P, T>| batch.deadline <= now;
        self.queue.remove(self.queue.iter().position(late)?)
    }

    /// When [`Lane::pop_expired`] will find something.
    pub(crate) fn next_expiry(&self) -> Time {
        let deadlines = self.queue.iter().map(|batch| batch.deadline);
        deadlines.min().unwrap_or(Time::NEVER)
    }
}

/// When a batch is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// After a rest.
    Rested,
    /// As soon as it can be: another broker will take it.
    AtOnce,
    /// As soon as what is before it is stored. That it failed is not its own fault.
    BehindOthers,
    /// As soon as it can be, in two halves: what was refused is not tried again.
    InHalves,
}

impl Again {
    /// Whether the retry policy does not count the attempt.
    fn is_excused(self) -> bool {
        matches!(self, Self::BehindOthers | Self::InHalves)
    }
}

impl<M: Memory, T> Dispatcher<M, T> {
    /// Takes the next batch from the lane's appenders and seals it.
    pub(super) fn draw<S>(
        &mut self,
        now: Time,
        id: LaneId,
        supply: &mut S,
    ) -> Option<Batch<M::Piece, T>>
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        self.lanes.get(id.index())?.as_ref()?;
        let take = supply.take(id);
        if matches!(take, Take::Empty) {
            self.note_source(id, Backlog::Empty);
        }
        let mut batch = self.sealed(now, id, take, supply)?;
        self.widen_if_due(now, id, supply);
        let lane = self.lanes[id.index()].as_mut()?;
        batch.place.ordinal = lane.next_ordinal;
        lane.next_ordinal += 1;
        Some(batch)
    }

    /// Seals what was taken from a lane's appenders, if that is a batch. It has no place in a lane's
    /// order yet.
    pub(super) fn sealed<S>(
        &mut self,
        now: Time,
        id: LaneId,
        take: Take<M::Buffer, T>,
        supply: &mut S,
    ) -> Option<Batch<M::Piece, T>>
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        match take {
            Take::Busy => {
                self.note_source(id, Backlog::Busy);
                None
            }
            Take::Empty => None,
            Take::Batch {
                cut,
                ticket,
                opened,
                free,
                more,
            } => {
                self.note_source(id, more);
                let pieces = self.spare.pieces.pop().unwrap_or_default();
                let (sealed, parts) = seal(cut, supply.squeeze(), pieces);
                supply.recycle(parts);
                Some(Batch {
                    sealed,
                    ticket,
                    home: None,
                    free,
                    place: Place {
                        ordinal: 0,
                        record: 0,
                    },
                    stamp: None,
                    attempts: 0,
                    excused: 0,
                    too_large: false,
                    split_bytes: 0,
                    maybe_written: false,
                    moments: Moments {
                        opened,
                        sealed: now,
                        on_wire: now,
                    },
                    deadline: opened + self.settings.delivery_timeout,
                    first: None,
                    last: None,
                })
            }
        }
    }

    /// The lane's next batch has this sequence, as if all numbers before it had been used. For tests of
    /// what comes behind the highest: nobody sends two thousand million records first. Only before
    /// anything is sent under the present identity, when the broker takes any sequence for the first.
    #[doc(hidden)]
    pub fn begin_at(&mut self, id: LaneId, sequence: Sequence) {
        if let Some(lane) = self.lanes[id.index()].as_mut() {
            assert!(lane.identity.is_none(), "something was sent already");
            lane.next_sequence = sequence;
        }
    }

    /// Gives the batch its numbers, unless it has them. `false`: there is no producer id yet.
    pub(super) fn stamp(&mut self, id: LaneId, batch: &mut Batch<M::Piece, T>) -> bool {
        if !self.settings.idempotent || batch.stamp.is_some() {
            return true;
        }
        let Some(identity) = self.identity else {
            return false;
        };
        let Some(lane) = self.lanes[id.index()].as_mut() else {
            return false;
        };
        let identity = *lane.identity.get_or_insert(identity);
        batch.stamp = Some((identity, lane.next_sequence));
        lane.next_sequence = lane.next_sequence.after(batch.sealed.records);
        true
    }

    /// A batch came back without being stored for good: it is tried again in its place, or ends.
    pub(super) fn retry(
        &mut self,
        now: Time,
        id: LaneId,
        mut batch: Batch<M::Piece, T>,
        cause: Cause,
        again: Again,
    ) {
        let class = Class::of(&cause);
        let (attempts_max, backoff) = self.settings.retry.for_class(class);
        batch.note(now, cause);
        batch.excused += u32::from(again.is_excused());
        // What may be stored has used up its numbers at the broker, most likely: only trying on tells.
        let may_end = !(batch.maybe_written && self.settings.idempotent);
        if batch.deadline <= now {
            self.fail(now, id, batch, Why::Expired, None);
        } else if may_end && !again.is_excused() && batch.attempts - batch.excused >= attempts_max {
            self.fail(now, id, batch, Why::RetriesExhausted, None);
        } else {
            let Some(lane) = self.lanes[id.index()].as_mut() else {
                return;
            };
            lane.muted = lane.in_flight > 0;
            self.timers.set_no_later(Timer::Expiry, batch.deadline);
            lane.put_back(batch);
            // Several batches that come back from one failure are one failure.
            if again == Again::Rested && lane.resting_until <= now {
                lane.failures = lane.failures.saturating_add(1);
                let rest = backoff.delay(lane.failures, &mut self.random);
                self.rest_lane(id, now + rest);
            }
        }
    }

    /// Nothing of the lane leaves before then.
    pub(super) fn rest_lane(&mut self, id: LaneId, until: Time) {
        let Some(lane) = self.lanes[id.index()].as_mut() else {
            return;
        };
        lane.resting_until = until;
        self.resting.push(Reverse((until, id)));
        self.timers.set_no_later(Timer::Resting, until);
    }

    /// A batch of the lane left the window. Once all are back, what waited for that happens.
    pub(super) fn drained(&mut self, now: Time, id: LaneId) {
        let Some(lane) = self.lanes[id.index()].as_mut() else {
            return;
        };
        let rash = planted(Canary::EpochBumpWithoutDrain) && lane.broken;
        if lane.in_flight == 0 || rash {
            lane.muted = false;
            if lane.target != lane.connection {
                self.move_lane(id);
            }
            self.mend(id);
        }
        self.list(now, id);
    }

    /// Gives a broken lane a new epoch, once nothing of it may still be stored under the old one.
    fn mend(&mut self, id: LaneId) {
        let Some(lane) = self.lanes[id.index()].as_mut() else {
            return;
        };
        let perhaps = lane.queue.front().is_some_and(|batch| batch.maybe_written);
        if !lane.broken || perhaps && !planted(Canary::RestampMaybeWritten) {
            return;
        }
        // The broker refused every attempt of the first batch, and what was sent behind it came to the
        // broker behind it each time: by their numbers those were refused too, heard or unheard.
        lane.broken = false;
        lane.proven = false;
        for batch in &mut lane.queue {
            batch.stamp = None;
            batch.maybe_written = false;
        }
        lane.next_sequence = Sequence(0);
        let Some(old) = lane.identity.take() else {
            return;
        };
        let Some(current) = self.identity else { return };
        if current != old {
            // Another lane moved the shard on already; under that identity this partition is new.
            return;
        }
        self.counters.epoch_bumps += 1;
        match current.epoch.checked_add(1) {
            Some(epoch) if epoch < i16::MAX => {
                self.identity = Some(ProducerIdentity {
                    id: current.id,
                    epoch,
                });
            }
            _ => {
                // Epochs are used up: only another producer id helps.
                self.identity = None;
                self.identity_asked = true;
                self.actions.push_back(Action::Identify);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::{Buffer, Piece};
    use crate::id::TopicId;
    use crate::seal::SealedBatch;

    /// Memory without bytes: numbers are all that is looked at here.
    #[derive(Debug, Clone)]
    struct Nothing;

    impl Buffer for Nothing {
        type Piece = Self;

        fn capacity(&self) -> usize {
            0
        }
        fn filled(&self) -> &[u8] {
            &[]
        }
        fn filled_mut(&mut self) -> &mut [u8] {
            &mut []
        }
        fn spare_mut(&mut self) -> &mut [u8] {
            &mut []
        }
        fn commit(&mut self, _: usize) {}
        fn truncate(&mut self, _: usize) {}
        fn freeze(self) -> Self {
            self
        }
    }

    impl Piece for Nothing {
        fn bytes(&self) -> &[u8] {
            &[]
        }
        fn slice(&self, _: core::ops::Range<usize>) -> Self {
            Self
        }
    }

    impl Memory for Nothing {
        type Buffer = Self;
        type Piece = Self;

        fn take(&mut self, _: usize) -> Option<Self> {
            Some(Self)
        }
    }

    fn batch(ordinal: u64, records: u32) -> Batch<Nothing, ()> {
        let time = Time(0);
        Batch {
            sealed: SealedBatch {
                pieces: alloc::vec::Vec::new(),
                body: ringpost_codec::checksum::BodyDigest::new(),
                attributes: ringpost_codec::record_batch::Attributes::default(),
                records,
                record_bytes: 0,
                base_timestamp_ms: 0,
                max_timestamp_ms: 0,
            },
            ticket: (),
            home: None,
            free: false,
            place: Place { ordinal, record: 0 },
            stamp: None,
            attempts: 0,
            excused: 0,
            too_large: false,
            split_bytes: 0,
            maybe_written: false,
            moments: Moments {
                opened: time,
                sealed: time,
                on_wire: time,
            },
            deadline: Time::NEVER,
            first: None,
            last: None,
        }
    }

    /// A batch that passes 2^31-1 keeps its base sequence, and the next ones begin at 2 and 4.
    #[test]
    fn w11_a_sequence_goes_on_from_0_behind_the_highest() {
        let mut dispatcher: Dispatcher<Nothing, ()> = Dispatcher::new(Settings::default(), 1);
        let id = LaneId(0);
        dispatcher.add_lane(id, &"t".into(), PartitionId(0));
        let identity = ProducerIdentity { id: 5, epoch: 0 };
        dispatcher.identity(identity);
        let lane = dispatcher.lanes[0].as_mut().expect("just added");
        lane.next_sequence = Sequence(i32::MAX - 2);
        let mut numbers = alloc::vec::Vec::new();
        for (ordinal, records) in [(0, 5), (1, 2), (2, 1)] {
            let mut batch = batch(ordinal, records);
            assert!(dispatcher.stamp(id, &mut batch));
            assert!(dispatcher.stamp(id, &mut batch), "it keeps its numbers");
            numbers.push(batch.stamp.expect("stamped"));
        }
        // 2³¹−3, −2, −1, 0, 1; then 2, 3; then 4.
        let expected = [i32::MAX - 2, 2, 4].map(|first| (identity, Sequence(first)));
        assert_eq!(numbers, expected);
        assert_eq!(dispatcher.topics[0].id, TopicId::default());
    }

    /// Batches put back in any order stand in the order they were made in.
    #[test]
    fn a3_what_goes_back_takes_its_old_place() {
        let mut lane = Lane::new(0, PartitionId(0));
        for ordinal in [3, 1, 4, 0, 2] {
            lane.put_back(batch(ordinal, 1));
        }
        assert!(lane.queue.iter().map(|batch| batch.place.ordinal).eq(0..5));
    }
}
