//! A thread that sends records which may go to any partition, as the engine's `Topic` does.

use ringpost_core::health::{Routes, View};
use ringpost_core::id::LaneId;
use ringpost_core::partition::Sticky;

use crate::world::World;

/// A sender with a sticky choice of its own.
#[derive(Debug)]
pub struct Keyless {
    sticky: Sticky,
    topic: String,
    /// The lanes it chose, in order.
    pub chosen: Vec<LaneId>,
}

/// The lanes of a topic, as their views were last published.
#[derive(Debug)]
struct Published<'a> {
    views: &'a [View],
    lanes: &'a [LaneId],
    panic_percent: u8,
}

impl Routes for Published<'_> {
    fn count(&self) -> u32 {
        u32::try_from(self.lanes.len()).expect("few lanes")
    }

    fn view(&self, partition: u32) -> View {
        let lane = self.lanes[partition as usize];
        self.views
            .get(lane.index())
            .copied()
            .unwrap_or(View::UNTOLD)
    }

    fn is_calm(&self) -> bool {
        false
    }

    fn panic_percent(&self) -> u8 {
        self.panic_percent
    }
}

impl Keyless {
    /// A sender to a topic.
    #[must_use]
    pub fn new(topic: &str, seed: u64) -> Self {
        Self {
            sticky: Sticky::new(seed),
            topic: topic.to_owned(),
            chosen: Vec::new(),
        }
    }

    /// Sends a record of `len` bytes to wherever is best. Says where.
    pub fn send(&mut self, world: &mut World, len: usize) -> LaneId {
        let lanes = world.lanes_of(&self.topic);
        let routes = Published {
            views: &world.views,
            lanes: &lanes,
            panic_percent: 34,
        };
        let lane = lanes[self.sticky.choose(&routes) as usize];
        let appended = world.append_free(lane, len);
        self.sticky
            .went(appended.wire_bytes, appended.cut, world.lanes.batch_bytes);
        self.chosen.push(lane);
        lane
    }
}
