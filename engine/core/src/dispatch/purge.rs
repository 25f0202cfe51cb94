//! Giving up what was accepted, at the application's wish.
//!
//! What waits was never stored by its last attempt and ends at once. What is in flight has left: it
//! ends as `Unknown`, but its place in the window and its numbers stay until the broker has answered
//! or the connection is gone. Until then nothing of the lane leaves. An answer that says "stored"
//! leaves the sequence whole; any other leaves a gap, and the lane goes on under a new epoch: so what
//! is sent later is neither swallowed as a duplicate nor doubled.

use alloc::vec::Vec;

use ringpost_codec::kafka::ErrorCode;

use crate::ack;
use crate::batch_in_flight::Batch;
use crate::buffer::Memory;
use crate::id::{BrokerId, LaneId};
use crate::outcome::{Verdict, Why};
use crate::time::Time;

use super::Dispatcher;
use super::supply::{Backlog, Supply};

/// What a purge gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// What waits: with the appenders, to be tried again, or for a producer id.
    Queued,
    /// That, and what is in flight.
    QueuedAndInFlight,
}

impl<M: Memory, T> Dispatcher<M, T> {
    /// Gives up the batches of all lanes: each gets its verdict with [`Why::Purged`], `NotWritten`
    /// when no attempt of it may have been stored, and `Unknown` otherwise. Lanes go on with what is
    /// appended later.
    ///
    /// Returns how many lanes could not be looked at because their lock was taken; what waits with
    /// those is still there.
    pub fn purge<S>(&mut self, now: Time, which: Purge, supply: &mut S) -> usize
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        let mut busy = 0;
        for index in 0..self.lanes.len() {
            let id = LaneId(u32::try_from(index).unwrap_or(u32::MAX));
            busy += usize::from(!self.purge_lane(now, id, which, supply));
        }
        busy
    }

    /// As [`Dispatcher::purge`], one lane. `false`: its lock was taken.
    pub fn purge_lane<S>(&mut self, now: Time, id: LaneId, which: Purge, supply: &mut S) -> bool
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        if self.lanes.get(id.index()).is_none_or(Option::is_none) {
            return true;
        }
        if which == Purge::QueuedAndInFlight {
            self.purge_in_flight(now, id);
        }
        while let Some(batch) = self.pop_queued(id) {
            self.fail(now, id, batch, Why::Purged, None);
        }
        while let Some(batch) = self.draw(now, id, supply) {
            self.fail(now, id, batch, Why::Purged, None);
        }
        self.drained(now, id);
        let lane = self.lanes[id.index()].as_ref();
        lane.is_none_or(|lane| lane.source != Backlog::Busy)
    }

    fn pop_queued(&mut self, id: LaneId) -> Option<Batch<M::Piece, T>> {
        self.lanes[id.index()].as_mut()?.queue.pop_front()
    }

    /// Gives verdicts to what the lane has in flight. The places stay taken.
    fn purge_in_flight(&mut self, now: Time, id: LaneId) {
        let Some(lane) = self.lanes[id.index()].as_mut() else {
            return;
        };
        let Some(connection) = lane.connection.filter(|_| lane.in_flight > 0) else {
            return;
        };
        lane.muted = true;
        let mut purged = Vec::new();
        for entry in self.connections[connection]
            .flights
            .iter_mut()
            .flat_map(|flight| &mut flight.entries)
            .filter(|entry| entry.lane == id)
        {
            if let Some(mut batch) = entry.batch.take() {
                entry.purged = true;
                batch.maybe_written = true;
                purged.push(batch);
            }
        }
        for mut batch in purged {
            // Its numbers are neither used nor free yet: that is the answer's to say.
            let failure = batch.failure(now, Why::Purged);
            self.settle(id, batch, Verdict::Unknown(failure));
        }
    }

    /// The broker answered for a batch that was purged in flight.
    pub(super) fn purged_answered(
        &mut self,
        now: Time,
        id: LaneId,
        asked: usize,
        code: ErrorCode,
        leader: Option<(BrokerId, i32)>,
    ) {
        match ack::action(code) {
            ack::Action::Acked | ack::Action::AckedBefore => {
                self.purged_back(now, id, true);
                return;
            }
            ack::Action::RefreshAndRetry | ack::Action::RefreshMaybeWritten => {
                self.refresh |= !self.follow(now, id, asked, leader);
            }
            _ => {}
        }
        self.purged_back(now, id, false);
    }

    /// The place of a batch that was purged in flight is free again. Unless it is `stored`, its
    /// numbers are missing in the lane's sequence, or may be.
    pub(super) fn purged_back(&mut self, now: Time, id: LaneId, stored: bool) {
        if stored {
            self.progressed(now, id);
        }
        if let Some(lane) = self.lanes[id.index()].as_mut() {
            lane.in_flight -= 1;
            lane.broken |= !stored && self.settings.idempotent;
        }
        self.drained(now, id);
    }
}
