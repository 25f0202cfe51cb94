//! Where records go that may go anywhere: what shards publish of their lanes, and how appenders read
//! it. The core decides (`core/src/health/`): a shard's dispatcher how its lanes stand, `choose` which
//! lane is next.
//!
//! Each lane has one word for appenders, which its shard alone writes: when something changes, and
//! with each tick while requests are in flight. An appender reads its lane's word for every record,
//! as it has to know at once that the lane lost its leader; the others only when it chooses anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringpost_core::health::{Routes, Standing, View};

use crate::lane::Lane;

/// What a producer's shards and appenders share to avoid brokers.
#[derive(Debug)]
pub(crate) struct Avoidance {
    /// Lanes that are not in full health, of all shards.
    troubled: AtomicU64,
    panic_percent: u8,
}

impl Avoidance {
    pub(crate) fn new(panic_percent: u8) -> Self {
        Self {
            troubled: AtomicU64::new(0),
            panic_percent,
        }
    }

    /// A shard counts anew how many of its lanes are not in full health; `before` is what it
    /// counted last.
    pub(crate) fn count_troubled(&self, before: u64, now: u64) {
        // Differences, because other shards count too. They wrap around and back.
        let difference = now.wrapping_sub(before);
        self.troubled.fetch_add(difference, Ordering::Relaxed);
    }

    /// A topic's lanes, to choose among.
    #[inline]
    pub(crate) fn routes<'a>(&'a self, lanes: &'a [Arc<Lane>]) -> LaneRoutes<'a> {
        LaneRoutes {
            avoidance: self,
            lanes,
        }
    }
}

/// Whether a lane is to be counted as troubled.
pub(crate) fn is_troubled(view: View) -> bool {
    view.standing() != Standing::Good || view.weight() < 100
}

/// See [`Avoidance::routes`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneRoutes<'a> {
    avoidance: &'a Avoidance,
    lanes: &'a [Arc<Lane>],
}

impl Routes for LaneRoutes<'_> {
    #[inline]
    fn count(&self) -> u32 {
        // Lanes are numbered by i32, so their count fits.
        u32::try_from(self.lanes.len()).unwrap_or(u32::MAX)
    }

    #[inline]
    fn view(&self, partition: u32) -> View {
        self.lanes
            .get(partition as usize)
            .map_or(View::UNTOLD, |lane| lane.view())
    }

    fn is_calm(&self) -> bool {
        self.avoidance.troubled.load(Ordering::Relaxed) == 0
    }

    fn panic_percent(&self) -> u8 {
        self.avoidance.panic_percent
    }
}
