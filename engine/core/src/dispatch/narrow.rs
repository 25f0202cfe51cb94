//! How large a topic's batches may be, as far as its brokers let us know: a topic can be configured to
//! take smaller ones than we make (`max.message.bytes`), and says so only by refusing them.
//!
//! Once a batch had to be divided, those who fill batches are told to end them at half its size; otherwise
//! every batch would make its way twice. What was refused was above the topic's limit, so this is never
//! below half of it. Sizes are those before compression, by which batches are ended; how well the next
//! records can be compressed nobody knows.
//!
//! A topic can be configured anew, and records become more compressible. So after
//! [`limits::NARROW_FOR`] twice as much is tried, and so on until nothing is narrowed any more; what is
//! refused then is divided and narrows it again.

use ringpost_codec::record_batch::BATCH_HEADER_LEN;

use crate::buffer::Memory;
use crate::id::LaneId;
use crate::limits;
use crate::time::Time;

use super::{Dispatcher, Supply};

/// What is known of a topic's limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Narrow {
    /// Batches end here.
    bytes: usize,
    /// The largest that was refused.
    refused: usize,
    /// Then more is tried.
    widens_at: Time,
}

impl Narrow {
    /// What was known is of another topic, or another cluster: with the next batch it is forgotten.
    pub(super) fn forget(&mut self) {
        self.bytes = self.refused;
        self.widens_at = Time(0);
    }
}

impl<M: Memory, T> Dispatcher<M, T> {
    /// A batch of a lane with so many bytes of records was divided.
    pub(super) fn narrow<S>(&mut self, now: Time, id: LaneId, record_bytes: usize, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        let Some(topic) = self.lanes[id.index()].as_ref().map(|lane| lane.topic) else {
            return;
        };
        let refused = BATCH_HEADER_LEN + record_bytes;
        let before = self.topics[topic].narrow;
        let bytes = before.map_or(refused / 2, |before| before.bytes.min(refused / 2));
        let was_narrower = before.is_some_and(|before| before.bytes == bytes);
        self.topics[topic].narrow = Some(Narrow {
            bytes,
            refused: before.map_or(refused, |before| before.refused.max(refused)),
            // One that was made before it was known says nothing new.
            widens_at: match before {
                Some(before) if was_narrower => before.widens_at,
                _ => now + limits::NARROW_FOR,
            },
        });
        self.tell_of_narrow(topic, supply);
    }

    /// Tries more again, if it is time to. Asked for each batch.
    pub(super) fn widen_if_due<S>(&mut self, now: Time, id: LaneId, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        let Some(lane) = self.lanes[id.index()].as_ref() else {
            return;
        };
        let topic = lane.topic;
        match self.topics[topic].narrow {
            Some(narrow) if narrow.widens_at <= now => {
                let bytes = narrow.bytes.saturating_mul(2);
                self.topics[topic].narrow = (bytes < narrow.refused).then_some(Narrow {
                    bytes,
                    widens_at: now + limits::NARROW_FOR,
                    ..narrow
                });
                self.tell_of_narrow(topic, supply);
            }
            _ => {}
        }
    }

    fn tell_of_narrow<S>(&self, topic: usize, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        let bytes = self.topics[topic].narrow.map(|narrow| narrow.bytes);
        for (index, lane) in (0u32..).zip(&self.lanes) {
            if lane.as_ref().is_some_and(|lane| lane.topic == topic) {
                supply.narrow(LaneId(index), bytes);
            }
        }
    }
}
