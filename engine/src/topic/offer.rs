//! Offering a record to its lane: the one way that all handles and all ways of sending share.

use std::sync::Arc;

use super::Topic;
use super::route::{Choice, route};
use crate::delivery::Delivery;
use crate::error::{SendError, TrySendError};
use crate::lane::{Appended, Bound, Lane, Refused, Watch};
use crate::record::Record;

impl Topic {
    /// Finds a record's lane and has it `append`ed there.
    #[inline]
    pub(super) fn offer_to(
        &self,
        lanes: &[Arc<Lane>],
        record: &Record<'_>,
        watch: Watch,
        choice: &impl Choice,
        append: impl FnOnce(&Lane, Bound) -> Result<Appended, Refused>,
    ) -> Result<Appended, NotTaken> {
        let (lane, bound) = self.lane_of(lanes, record, choice)?;
        let appended = append(lane, bound)
            .or_else(|refused| self.shared.divert(refused, lane, record, watch))
            .map_err(NotTaken::Lane)?;
        if bound == Bound::Free {
            self.went(choice, appended.bytes, appended.cut);
        }
        Ok(appended)
    }

    /// A record's lane, and whether it has to go there.
    #[inline]
    pub(super) fn lane_of<'l>(
        &self,
        lanes: &'l [Arc<Lane>],
        record: &Record<'_>,
        choice: &impl Choice,
    ) -> Result<(&'l Arc<Lane>, Bound), NotTaken> {
        route(&self.state, lanes, record, choice).inspect_err(|_| self.shared.look_for_partitions())
    }

    /// Counts what went where the sticky choice stands.
    #[inline]
    pub(super) fn went(&self, choice: &impl Choice, bytes: usize, cut: bool) {
        let batch_bytes = self.state.routing.batch_bytes;
        choice.with(|sticky| sticky.went(bytes, cut, batch_bytes));
    }
}

/// Of a record whose outcome a future was asked for.
pub(super) fn delivery(appended: Appended) -> Delivery {
    let Appended {
        completion,
        index,
        timestamp_ms,
        ..
    } = appended;
    Delivery::new(
        completion.expect("a future was asked for"),
        index,
        timestamp_ms,
    )
}

/// Why a record was not taken.
#[derive(Debug)]
pub(super) enum NotTaken {
    Lane(Refused),
    NoSuchPartition { partition: i32, count: usize },
}

impl NotTaken {
    #[cold]
    pub(super) fn with(self, record: Record<'_>) -> TrySendError<'_> {
        match self {
            Self::Lane(
                Refused::Memory { .. } | Refused::Queue | Refused::Avoided { wait: Some(_) },
            ) => TrySendError::Full(record),
            Self::Lane(Refused::Avoided { wait: None }) => TrySendError::Avoided(record),
            Self::Lane(Refused::TooLarge {
                bytes,
                bytes_max,
                setting,
            }) => TrySendError::TooLarge {
                record,
                bytes,
                bytes_max,
                setting,
            },
            Self::Lane(Refused::Closed) => TrySendError::Closed(record),
            Self::NoSuchPartition { partition, count } => TrySendError::NoSuchPartition {
                record,
                partition,
                count,
            },
        }
    }

    /// Waiting would not help.
    pub(super) fn for_good(self) -> SendError {
        match self {
            Self::Lane(Refused::TooLarge {
                bytes,
                bytes_max,
                setting,
            }) => SendError::TooLarge {
                bytes,
                bytes_max,
                setting,
            },
            Self::NoSuchPartition { partition, count } => {
                SendError::NoSuchPartition { partition, count }
            }
            Self::Lane(Refused::Avoided { .. }) => SendError::Avoided,
            Self::Lane(Refused::Closed | Refused::Memory { .. } | Refused::Queue) => {
                SendError::Closed
            }
        }
    }
}
