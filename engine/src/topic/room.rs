//! Waiting for memory, or for room behind brokers that are avoided.

use ringpost_memory::{SegmentMut, TakeError};

use super::Topic;
use super::offer::{NotTaken, delivery};
use crate::controller::Request;
use crate::delivery::Delivery;
use crate::driver::clock;
use crate::error::SendError;
use crate::lane::{Appended, Refused};

impl Topic {
    /// Offers a record until it is taken, with memory that was waited for from the second time on.
    pub(super) async fn wait_for_room(
        &self,
        mut offer: impl FnMut(&mut Option<SegmentMut>) -> Result<Appended, NotTaken>,
    ) -> Result<Delivery, SendError> {
        let mut grant = None;
        let mut deadline = None;
        let mut room = None;
        loop {
            let bytes = match offer(&mut grant) {
                Ok(appended) => {
                    if deadline.is_some() && self.shared.pool.waiting() > 0 {
                        // Others wait still: what was just appended must not linger.
                        self.shared.inbox.put(Request::Look);
                    }
                    return Ok(delivery(appended));
                }
                Err(NotTaken::Lane(Refused::Memory { bytes })) => bytes,
                Err(NotTaken::Lane(Refused::Avoided { wait: true })) => {
                    drop(grant.take());
                    let max_block = self.shared.max_block;
                    let deadline = *deadline.get_or_insert_with(|| clock::now() + max_block);
                    let Some(waiting) = room.take() else {
                        // Looked for once more, now that nobody can make some unnoticed.
                        room = Some(self.shared.bulkhead.room(deadline));
                        continue;
                    };
                    self.shared.inbox.put(Request::Look);
                    if !waiting.await {
                        return Err(SendError::TimedOut { max_block });
                    }
                    continue;
                }
                Err(other) => return Err(other.for_good()),
            };
            drop(grant.take());
            let deadline = deadline.get_or_insert_with(|| clock::now() + self.shared.max_block);
            let take = self.shared.pool.take(bytes, deadline.0);
            // Whoever ends the wait at its deadline has to know of it, and what lingers is sent.
            self.shared.inbox.put(Request::Look);
            grant = Some(take.await.map_err(|error| self.not_granted(error, bytes))?);
        }
    }

    fn not_granted(&self, error: TakeError, bytes: usize) -> SendError {
        match error {
            TakeError::TimedOut => SendError::TimedOut {
                max_block: self.shared.max_block,
            },
            TakeError::Closed => SendError::Closed,
            TakeError::TooLarge { .. } => SendError::TooLarge {
                bytes,
                bytes_max: self.shared.pool.segment_bytes_max(),
                setting: "memory",
            },
        }
    }
}
