//! Sending a batch in halves that a broker finds too large.
//!
//! The broker looks at the size before it looks at the sequence, and stores nothing: the numbers of a
//! refused batch are still free. The halves take them over, the first those of the first records, so
//! that together they fill exactly the place of the whole, and nothing behind them changes its numbers.
//!
//! When an earlier attempt may have been stored all the same, those numbers keep the halves from being
//! stored beside it: a broker that has the whole has no batch with the numbers of a half, and refuses
//! them as out of order. Without sequences nothing would; then such a batch is not divided. The halves
//! can be too large once more; a batch with a single record is refused for good.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::batch_in_flight::Batch;
use crate::buffer::{Memory, Piece};
use crate::id::LaneId;
use crate::limits;
use crate::outcome::{Cause, Why};
use crate::seal::{Squeeze, seal};
use crate::split::{Body, Division, is_compressed};
use crate::time::Time;

use super::lane::Again;
use super::{Dispatcher, Supply};

/// What came of dividing a batch.
#[derive(Debug)]
pub(super) enum Divided<P, T> {
    /// Two, in order.
    Halves(Box<[Batch<P, T>; 2]>),
    /// There is no memory for it just now.
    Later(Batch<P, T>),
    /// It cannot be divided.
    Whole(Batch<P, T>),
}

impl<M: Memory, T> Dispatcher<M, T> {
    /// The broker finds the batch too large.
    pub(super) fn too_large(
        &mut self,
        now: Time,
        id: LaneId,
        mut batch: Batch<M::Piece, T>,
        cause: Cause,
    ) {
        let may_be_doubled = batch.maybe_written && batch.stamp.is_none();
        if batch.sealed.records == 1 || may_be_doubled {
            self.fail(now, id, batch, Why::Rejected, Some(cause));
        } else {
            // It is divided when it is to be sent again: then there is memory to do it in.
            batch.too_large = true;
            self.retry(now, id, batch, cause, Again::InHalves);
        }
    }

    /// Divides a batch that was too large. Its ticket is divided with it.
    pub(super) fn divide<S>(
        &mut self,
        batch: Batch<M::Piece, T>,
        supply: &mut S,
    ) -> Divided<M::Piece, T>
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        // Together they never take the last slab a request needs.
        let wanted = batch.sealed.record_bytes;
        if self.split_bytes > 0 && self.split_bytes + wanted > limits::SPLIT_BYTES_MAX {
            return Divided::Later(batch);
        }
        let flat;
        let body = if is_compressed(batch.sealed.attributes) {
            let mut whole = Vec::with_capacity(batch.sealed.body.len);
            for piece in &batch.sealed.pieces {
                whole.extend_from_slice(piece.bytes());
            }
            let (attributes, len) = (batch.sealed.attributes, batch.sealed.record_bytes);
            match supply.squeeze().unsqueeze(&whole, attributes, len) {
                Some(bytes) => flat = bytes,
                None => return Divided::Whole(batch),
            }
            Body::Flat(&flat)
        } else {
            Body::Pieces(&batch.sealed.pieces)
        };
        let Some(mut division) = Division::new(&batch.sealed, body) else {
            return Divided::Whole(batch);
        };
        let at = division.at();
        let Some(first) = division.first(|bytes| supply.slab(bytes)) else {
            return Divided::Later(batch);
        };
        // Little else comes with the records that are left.
        let expected = wanted - first.body_len;
        let (first, parts) = seal(first, supply.squeeze(), Vec::new());
        supply.recycle(parts);
        let first_taken = core::mem::take(&mut division.taken);
        let Some(second) = division.second(|bytes| supply.slab(bytes), expected) else {
            return Divided::Later(batch);
        };
        let second_taken = division.taken;
        let (second, parts) = seal(second, supply.squeeze(), Vec::new());
        supply.recycle(parts);

        self.split_bytes += first_taken + second_taken;
        self.split_bytes -= batch.split_bytes;
        self.counters.splits += 1;
        let mut ticket = batch.ticket;
        let rest = supply.divide(&mut ticket, at);
        let half = |sealed, ticket, first_record, stamp, split_bytes| Batch {
            sealed,
            ticket,
            home: batch.home,
            free: batch.free,
            place: batch.place.at(first_record),
            stamp,
            attempts: batch.attempts,
            excused: batch.excused,
            too_large: false,
            split_bytes,
            maybe_written: batch.maybe_written,
            moments: batch.moments,
            deadline: batch.deadline,
            first: batch.first.clone(),
            last: batch.last.clone(),
        };
        let behind = batch
            .stamp
            .map(|(identity, sequence)| (identity, sequence.after(at)));
        Divided::Halves(Box::new([
            half(first, ticket, 0, batch.stamp, first_taken),
            half(second, rest, at, behind, second_taken),
        ]))
    }
}
