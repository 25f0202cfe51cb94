//! A sealed batch on its way, from the first attempt to the verdict.

use crate::id::{LaneId, ProducerIdentity, Sequence};
use crate::outcome::{Cause, Failure, Why};
use crate::seal::SealedBatch;
use crate::time::Time;

/// A sealed batch with what is known of its attempts, and the ticket of those who wait for it.
#[derive(Debug)]
pub(crate) struct Batch<P, T> {
    pub(crate) sealed: SealedBatch<P>,
    /// Whoever cut the batch gets this back with the verdict.
    pub(crate) ticket: T,
    /// The lane it was taken from, if that is not the one it is in.
    pub(crate) home: Option<LaneId>,
    /// Every record in it may go to any partition of the topic.
    pub(crate) free: bool,
    /// Its place in the lane's order.
    pub(crate) place: Place,
    /// Who the broker takes us for, and the sequence of its first record. Bound when it is first
    /// sent.
    pub(crate) stamp: Option<(ProducerIdentity, Sequence)>,
    pub(crate) attempts: u32,
    /// Attempts that failed only because of another batch: the retry policy does not count them.
    pub(crate) excused: u32,
    /// The broker said so: it is divided before it is sent again.
    pub(crate) too_large: bool,
    /// Bytes of slabs that its body lies in, when it is a part of another.
    pub(crate) split_bytes: usize,
    /// An attempt ended without the broker saying that it did not store it.
    pub(crate) maybe_written: bool,
    pub(crate) moments: Moments,
    /// When it must be settled.
    pub(crate) deadline: Time,
    pub(crate) first: Option<(Time, Cause)>,
    pub(crate) last: Option<(Time, Cause)>,
}

/// A batch's place in its lane's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Counts the batches that were drawn.
    pub(crate) ordinal: u64,
    /// The number of its first record in the batch that was drawn: more than 0 when that was divided.
    pub(crate) record: u32,
}

impl Place {
    /// The place of a part that begins so many records later.
    pub(crate) fn at(self, records: u32) -> Self {
        Self {
            record: self.record + records,
            ..self
        }
    }
}

/// When what happened to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moments {
    /// Its first record was appended.
    pub opened: Time,
    /// It was cut and sealed.
    pub sealed: Time,
    /// The kernel took the last byte of its last attempt; equal to `sealed` when it was never sent.
    pub on_wire: Time,
}

impl<P, T> Batch<P, T> {
    /// Whether it may go to another partition: all its records may, and no broker and no sequence
    /// knows of it.
    pub(crate) fn may_move(&self) -> bool {
        self.free && self.attempts == 0 && self.stamp.is_none() && !self.maybe_written
    }

    pub(crate) fn note(&mut self, now: Time, cause: Cause) {
        if self.first.is_none() {
            self.first = Some((now, cause.clone()));
        }
        self.last = Some((now, cause));
    }

    pub(crate) fn failure(&mut self, now: Time, why: Why) -> Failure {
        let since_ms = |at: Time| {
            let elapsed = at.since(self.moments.opened);
            u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX)
        };
        let incident = |met: Option<(Time, Cause)>| match met {
            Some((at, cause)) => (since_ms(at), Some(cause)),
            None => (0, None),
        };
        let (first_after_ms, first) = incident(self.first.take());
        let (last_after_ms, last) = incident(self.last.take());
        Failure {
            why,
            attempts: self.attempts,
            first,
            first_after_ms,
            last,
            last_after_ms,
            after_ms: since_ms(now),
        }
    }
}
