//! Lists of a batch's parts that are used again.

use std::sync::PoisonError;

use ringpost_core::batch::Part;
use ringpost_memory::SegmentMut;

use crate::sync::{Mutex, MutexGuard};
/// Emptied vectors for the parts of next batches. One stock for all lanes of a shard: a lane may
/// fill many batches while the shard empties another's.
#[derive(Debug, Default)]
pub(crate) struct SpareParts(Mutex<Vec<Vec<Part<SegmentMut>>>>);

impl SpareParts {
    /// More are simply dropped. Together at most 300 KiB.
    const KEPT: usize = 1024;
    /// Buffers of 4, 8, 16, 32 and 64 KiB, and one more: a batch of the default size.
    const PARTS: usize = 6;

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<Part<SegmentMut>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self) -> Vec<Part<SegmentMut>> {
        let spare = self.lock().pop();
        spare.unwrap_or_else(|| Vec::with_capacity(Self::PARTS))
    }

    pub(crate) fn keep(&self, mut parts: Vec<Part<SegmentMut>>) {
        parts.clear();
        let mut spare = self.lock();
        if spare.len() < Self::KEPT {
            spare.push(parts);
        }
    }
}
