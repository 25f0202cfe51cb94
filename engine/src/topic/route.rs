//! Which lane a record goes to, and whether it has to go there.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringpost_core::partition::{Partitioner, Sticky, consistent_partition, murmur2_partition};

use super::offer::NotTaken;
use crate::driver::clock;
use crate::lane::{Bound, Lane};
use crate::record::{Record, Value};
use crate::shared::TopicState;

/// Who keeps the sticky choice for records that may go anywhere.
pub(super) trait Choice {
    /// Looks at it, or changes it. `f` is called once.
    fn with<R>(&self, f: impl FnMut(&mut Sticky) -> R) -> R;
}

/// A handle's own.
impl Choice for RefCell<Sticky> {
    #[inline]
    fn with<R>(&self, mut f: impl FnMut(&mut Sticky) -> R) -> R {
        f(&mut self.borrow_mut())
    }
}

/// The calling thread's for a topic, given by its number. Of two topics that share a place the later
/// one has it: a thread that sends to more than 256 topics in turn may choose anew more often.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfThread(pub(super) u64);

impl Choice for OfThread {
    #[inline]
    fn with<R>(&self, mut f: impl FnMut(&mut Sticky) -> R) -> R {
        const PLACES: u64 = 256;
        thread_local! {
            static STICKY: RefCell<Vec<Option<(u64, Sticky)>>> = const { RefCell::new(Vec::new()) };
        }
        let Self(topic) = *self;
        let kept = STICKY.try_with(|known| {
            let mut known = known.borrow_mut();
            let place = usize::try_from(topic % PLACES).unwrap_or(0);
            if known.len() <= place {
                known.resize(place + 1, None);
            }
            let (_, sticky) = match &mut known[place] {
                Some(choice) if choice.0 == topic => choice,
                other => other.insert((topic, new_sticky())),
            };
            f(sticky)
        });
        // A thread that ends, and sends from a destructor, has no choice to keep to.
        kept.unwrap_or_else(|_| f(&mut new_sticky()))
    }
}

/// No choice yet. Seeds differ from handle to handle, so that they do not march in step.
pub(super) fn new_sticky() -> Sticky {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    Sticky::new(clock::now().0.rotate_left(20) ^ count)
}

/// The lane of a record.
#[inline]
pub(super) fn route<'l>(
    state: &TopicState,
    lanes: &'l [Arc<Lane>],
    record: &Record<'_>,
    choice: &impl Choice,
) -> Result<(&'l Arc<Lane>, Bound), NotTaken> {
    // Lanes are numbered by i32, so their count fits.
    let count = u32::try_from(lanes.len()).unwrap_or(u32::MAX);
    let routing = &state.routing;
    let (chosen, bound) = match (record.partition, &routing.partition_fn, record.key) {
        (Some(partition), _, _) => (partition, Bound::Pinned),
        (None, Some(choose), key) => {
            let value = record.value.as_ref().map(Value::bytes);
            (choose(key, value, count).0, Bound::Pinned)
        }
        (None, None, key) => match (routing.partitioner, key) {
            (Partitioner::Murmur2, Some(key)) => (murmur2_partition(key, count).0, Bound::Pinned),
            (Partitioner::Consistent, Some(key)) => {
                (consistent_partition(key, count).0, Bound::Pinned)
            }
            (Partitioner::RoundRobin, _) => (state.next_in_turn(count), Bound::Pinned),
            _ => {
                let routes = routing.avoidance.routes(lanes);
                let chosen = choice.with(|sticky| sticky.choose(&routes));
                (chosen.cast_signed(), Bound::Free)
            }
        },
    };
    let lane = usize::try_from(chosen)
        .ok()
        .and_then(|chosen| lanes.get(chosen));
    match lane {
        Some(lane) => Ok((lane, bound)),
        None => Err(NotTaken::NoSuchPartition {
            partition: chosen,
            count: lanes.len(),
        }),
    }
}
