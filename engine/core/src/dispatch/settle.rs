//! How batches end: acknowledged or not, expired, refused, abandoned.

use ringpost_codec::kafka::ErrorCode;

use crate::batch_in_flight::Batch;
use crate::buffer::Memory;
use crate::id::{BrokerId, LaneId};
use crate::outcome::{Cause, Failure, Verdict, Why};
use crate::time::Time;
use crate::timer::Timer;

use super::action::Settled;
use super::supply::{Backlog, Supply};
use super::{Dispatcher, Spare};

impl<M: Memory, T> Dispatcher<M, T> {
    /// Ends what waited too long without being in flight. What is in flight too long ends with its
    /// connection: see the `Request` timer.
    pub(super) fn expire<S>(&mut self, now: Time, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        let mut next = Time::NEVER;
        for index in 0..self.lanes.len() {
            let id = LaneId(u32::try_from(index).unwrap_or(u32::MAX));
            let Some(lane) = self.lanes[index].as_mut() else {
                continue;
            };
            if !lane.has_work() {
                continue;
            }
            let cause = lane.connection.map_or(Some(Cause::NoLeader), |connection| {
                self.connections[connection].trouble.clone()
            });
            while let Some(batch) = self.lanes[index].as_mut().and_then(|l| l.pop_expired(now)) {
                self.fail(now, id, batch, Why::Expired, None);
                if let Some(lane) = self.lanes[index].as_mut() {
                    // It was this one that the lane rested for: what follows gets its own attempt.
                    lane.resting_until = lane.resting_until.min(now);
                }
            }
            loop {
                // What is known of a lane's oldest record can only be too old.
                let lane = self.lanes[index].as_ref().expect("checked above");
                let Backlog::Waiting { oldest, .. } = lane.source else {
                    break;
                };
                let deadline = oldest + self.settings.delivery_timeout;
                if deadline > now {
                    next = next.min(deadline);
                    break;
                }
                let Some(batch) = self.draw(now, id, supply) else {
                    break;
                };
                self.fail(now, id, batch, Why::Expired, cause.clone());
            }
            if let Some(lane) = self.lanes[index].as_ref() {
                next = next.min(lane.next_expiry());
            }
            self.drained(now, id);
        }
        self.timers.set(Timer::Expiry, next);
    }

    /// Settles a batch that was not acknowledged: `NotWritten`, or `Unknown` when an attempt may
    /// have been stored.
    pub(super) fn fail(
        &mut self,
        now: Time,
        id: LaneId,
        mut batch: Batch<M::Piece, T>,
        why: Why,
        cause: Option<Cause>,
    ) {
        if let Some(cause) = cause {
            batch.note(now, cause);
        }
        #[cfg(feature = "canaries")]
        if why == Why::Expired && crate::canary::planted(crate::canary::Canary::ReleasedAtExpiry) {
            let pieces = &batch.sealed.pieces;
            pieces.iter().for_each(crate::buffer::Piece::let_go);
        }
        let failure = batch.failure(now, why);
        self.settle_failed(id, batch, failure);
    }

    pub(super) fn settle_failed(
        &mut self,
        id: LaneId,
        batch: Batch<M::Piece, T>,
        failure: Failure,
    ) {
        let verdict = if batch.maybe_written || failure.why == Why::SequenceBroken {
            Verdict::Unknown(failure)
        } else {
            Verdict::NotWritten(failure)
        };
        if batch.stamp.is_some()
            && let Some(lane) = self.lanes[id.index()].as_mut()
        {
            // Its numbers are missing now, or may be: what follows needs a sequence of its own.
            lane.broken = true;
        }
        self.settle(id, batch, verdict);
    }

    pub(super) fn settle(&mut self, lane: LaneId, batch: Batch<M::Piece, T>, verdict: Verdict) {
        let Batch {
            sealed,
            ticket,
            moments,
            split_bytes,
            home,
            ..
        } = batch;
        self.split_bytes -= split_bytes;
        let (records, record_bytes) = (sealed.records, sealed.record_bytes);
        let base_timestamp_ms = sealed.base_timestamp_ms;
        let undelivered = match verdict {
            Verdict::Acked { .. } | Verdict::Sent => {
                Spare::<M::Piece, T>::keep(&mut self.spare.pieces, sealed.pieces);
                None
            }
            Verdict::NotWritten(_) | Verdict::Unknown(_) => Some(sealed),
        };
        self.settled.push_back(Settled {
            lane,
            home: home.unwrap_or(lane),
            ticket,
            verdict,
            records,
            record_bytes,
            base_timestamp_ms,
            moments,
            undelivered,
        });
    }

    /// Settles everything, whatever its state, and ends all connections. For the end of a producer.
    pub fn abandon<S>(&mut self, now: Time, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        self.abandon_because(now, Why::Closed, supply);
    }

    /// As [`Dispatcher::abandon`], for another reason than that the producer is closed.
    pub fn abandon_because<S>(&mut self, now: Time, why: Why, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        for index in 0..self.connections.len() {
            self.drop_connection(now, index);
            while let Some(mut flight) = self.connections[index].flights.pop_front() {
                for mut entry in flight.entries.drain(..) {
                    if let Some(lane) = self.lanes[entry.lane.index()].as_mut() {
                        lane.in_flight -= 1;
                    }
                    let Some(mut batch) = entry.batch.take() else {
                        continue;
                    };
                    batch.maybe_written = true;
                    self.fail(now, entry.lane, batch, why, None);
                }
            }
        }
        for index in 0..self.lanes.len() {
            let id = LaneId(u32::try_from(index).unwrap_or(u32::MAX));
            while let Some(batch) = self.lanes[index].as_mut().and_then(|l| l.queue.pop_front()) {
                self.fail(now, id, batch, why, None);
            }
            while let Some(batch) = self.draw(now, id, supply) {
                self.fail(now, id, batch, why, None);
            }
            if let Some(lane) = self.lanes[index].as_mut() {
                // Nothing of it is in flight any more, purged or not.
                lane.muted = false;
            }
            // It has nothing any more: off the list.
            self.list(now, id);
        }
    }

    /// Ends what waits for a producer id that will not come. Later records ask again.
    pub(super) fn refuse_all<S>(&mut self, now: Time, code: ErrorCode, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        self.identity_asked = false;
        for index in 0..self.lanes.len() {
            let id = LaneId(u32::try_from(index).unwrap_or(u32::MAX));
            let broker = self.lanes[index]
                .as_ref()
                .and_then(|lane| lane.connection)
                .map_or(BrokerId(-1), |connection| {
                    self.connections[connection].broker
                });
            let cause = Cause::Broker {
                broker,
                code,
                message: None,
            };
            while let Some(batch) = self.lanes[index].as_mut().and_then(|l| l.queue.pop_front()) {
                self.fail(now, id, batch, Why::Rejected, Some(cause.clone()));
            }
            while let Some(batch) = self.draw(now, id, supply) {
                self.fail(now, id, batch, Why::Rejected, Some(cause.clone()));
            }
            self.drained(now, id);
        }
    }
}
