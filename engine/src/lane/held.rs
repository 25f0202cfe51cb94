//! What a lane holds of the memory, and of the room behind brokers that are avoided or dead.

use std::sync::atomic::Ordering;

use ringpost_core::batch::Fit;
use ringpost_core::health::Standing;

use crate::bulkhead::{LaneKey, OnLaneUnavailable, Want};

use super::{Bound, Granted, Lane, Refused, Watch};
impl Lane {
    /// Whether the bulkhead lets the lane have more memory, if the record needs any.
    pub(super) fn may_hold_more(
        &self,
        needed: usize,
        fit: Fit,
        granted: Option<&Granted>,
        (bound, watch): (Bound, Watch),
    ) -> Result<(), Refused> {
        let room = granted.map_or(0, |granted| granted.room);
        if needed <= room || !self.is_unavailable() {
            return Ok(());
        }
        let bulkhead = &self.settings.bulkhead;
        if !bulkhead.is_full_for(needed) {
            return Ok(());
        }
        if let (Watch::Letter, Fit::NeedsBuffer(bytes)) = (watch, fit) {
            return match granted {
                Some(granted) if granted.suffices(bytes) => Ok(()),
                _ => Err(Refused::Memory { bytes }),
            };
        }
        let waits = bulkhead.policy == OnLaneUnavailable::Wait;
        let want = Want {
            bytes: needed,
            lane: (bound == Bound::Pinned).then(|| self.key()),
        };
        let wait = waits.then_some(want);
        Err(Refused::Avoided { wait })
    }

    /// Which it is, of all lanes.
    fn key(&self) -> LaneKey {
        (self.shard.index, self.id)
    }

    /// Whether its records can only wait.
    pub(super) fn is_unavailable(&self) -> bool {
        self.view().standing() >= Standing::Avoided
    }

    /// It took memory for a record.
    #[inline]
    pub(super) fn holds_more(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.held.fetch_add(bytes, Ordering::Relaxed);
        if self.is_unavailable() {
            self.hold_back(bytes);
        }
    }

    /// The bulkhead counts so much of it. There first: what is noted here may be taken off there at
    /// once.
    pub(super) fn hold_back(&self, bytes: usize) {
        self.settings.bulkhead.add(bytes);
        self.held_back.fetch_add(bytes, Ordering::Release);
    }

    /// A batch has its verdict.
    pub(crate) fn holds_less(&self, bytes: usize) {
        let is_empty = self.held.fetch_sub(bytes, Ordering::Relaxed) == bytes;
        let bytes = if is_empty { usize::MAX } else { bytes };
        self.release_held_back(bytes);
    }

    /// Of what the bulkhead counts of it, at most so much is counted no more.
    fn release_held_back(&self, bytes: usize) {
        let less = |held_back: usize| Some(held_back - held_back.min(bytes));
        let (order, on_failure) = (Ordering::AcqRel, Ordering::Acquire);
        let before = self.held_back.fetch_update(order, on_failure, less);
        let before = before.unwrap_or_else(|same| same);
        self.settings.bulkhead.take_off(before.min(bytes));
    }

    /// Nothing of it is held back, and those who wait for it need not.
    pub(super) fn release(&self) {
        self.release_held_back(usize::MAX);
        self.settings.bulkhead.lane_is_released(self.key());
    }
}
