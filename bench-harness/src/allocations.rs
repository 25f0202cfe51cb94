//! Counts heap allocations of the whole process, for `allocations_per_record`.
//!
//! The binary installs `stats_alloc` as its allocator (`main.rs`): two atomic additions for each
//! allocation, nothing for a record that does not allocate. A program that links this library with
//! another allocator gets `None` instead of a wrong 0.

use stats_alloc::INSTRUMENTED_SYSTEM;

use crate::number::count;

/// Allocations and reallocations since the process started, if they are counted.
pub fn so_far() -> Option<u64> {
    let stats = INSTRUMENTED_SYSTEM.stats();
    // No Rust program gets here without a single allocation: 0 means that nobody counts.
    (stats.allocations > 0).then(|| count(stats.allocations) + count(stats.reallocations))
}
