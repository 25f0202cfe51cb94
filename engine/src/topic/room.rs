//! Waiting for memory, or for room behind brokers that are avoided.

use ringpost_memory::{SegmentMut, TakeError};

use super::Topic;
use super::offer::{NotTaken, delivery};
use crate::bulkhead::Room;
use crate::controller::Request;
use crate::delivery::Delivery;
use crate::driver::clock;
use crate::error::SendError;
use crate::lane::{Appended, Granted, Refused};

impl Topic {
    /// Offers a record until it is taken, with what was waited for from the second time on. A place
    /// in line for room is kept until then.
    pub(super) async fn wait_for_room(
        &self,
        mut offer: impl FnMut(&mut Option<Granted>) -> Result<Appended, NotTaken>,
    ) -> Result<Delivery, SendError> {
        let max_block = self.shared.max_block;
        let mut granted = None;
        let mut deadline = None;
        let mut place: Option<Room> = None;
        loop {
            let refused = match offer(&mut granted) {
                Ok(appended) => {
                    if deadline.is_some() && self.shared.pool.waiting() > 0 {
                        // Others wait still: what was just appended must not linger.
                        self.shared.inbox.put(Request::Look);
                    }
                    return Ok(delivery(appended));
                }
                Err(refused) => refused,
            };
            // Memory that was not used goes to the next.
            drop(granted.take());
            let bytes = match refused {
                NotTaken::Lane(Refused::Memory { bytes }) => bytes,
                NotTaken::Lane(Refused::Avoided { wait: Some(want) }) => {
                    let deadline = *deadline.get_or_insert_with(|| clock::now() + max_block);
                    match &mut place {
                        Some(place) if place.stands() => {
                            self.shared.inbox.put(Request::Look);
                            if !place.await {
                                return Err(SendError::TimedOut { max_block });
                            }
                        }
                        // Looked for once more, now that nobody can make some unnoticed.
                        Some(place) => place.stand_in_line(want),
                        none => *none = Some(self.shared.bulkhead.room(want, deadline)),
                    }
                    granted = given(place.as_ref(), None);
                    continue;
                }
                other => return Err(other.for_good()),
            };
            let deadline = deadline.get_or_insert_with(|| clock::now() + max_block);
            let take = self.shared.pool.take(bytes, deadline.0);
            // Whoever ends the wait at its deadline has to know of it, and what lingers is sent.
            self.shared.inbox.put(Request::Look);
            let memory = take.await.map_err(|error| self.not_granted(error, bytes))?;
            granted = given(place.as_ref(), Some(memory));
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

/// What was waited for so far.
fn given(place: Option<&Room>, memory: Option<SegmentMut>) -> Option<Granted> {
    let room = place.map_or(0, Room::given);
    (room > 0 || memory.is_some()).then_some(Granted {
        memory,
        room,
        set_aside: false,
    })
}
