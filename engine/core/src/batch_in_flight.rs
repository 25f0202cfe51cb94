//! A sealed batch on its way, from the first attempt to the verdict.

use crate::id::{ProducerIdentity, Sequence};
use crate::outcome::{Cause, Failure, Why};
use crate::seal::SealedBatch;
use crate::time::Time;

/// A sealed batch with what is known of its attempts, and the ticket of those who wait for it.
#[derive(Debug)]
pub(crate) struct Batch<P, T> {
    pub(crate) sealed: SealedBatch<P>,
    /// Whoever cut the batch gets this back with the verdict.
    pub(crate) ticket: T,
    /// Its place in the lane's order.
    pub(crate) ordinal: u64,
    /// Who the broker takes us for, and the sequence of its first record. Bound when it is first
    /// sent.
    pub(crate) stamp: Option<(ProducerIdentity, Sequence)>,
    pub(crate) attempts: u32,
    /// An attempt ended without the broker saying that it did not store it.
    pub(crate) maybe_written: bool,
    pub(crate) moments: Moments,
    /// When it must be settled.
    pub(crate) deadline: Time,
    pub(crate) first: Option<Cause>,
    pub(crate) last: Option<Cause>,
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
    pub(crate) fn note(&mut self, cause: Cause) {
        if self.first.is_none() {
            self.first = Some(cause.clone());
        }
        self.last = Some(cause);
    }

    pub(crate) fn failure(&mut self, why: Why) -> Failure {
        Failure {
            why,
            attempts: self.attempts,
            first: self.first.take(),
            last: self.last.take(),
        }
    }
}
