//! The crate's only clock: the kernel's `CLOCK_MONOTONIC`, whose values two processes of one machine
//! can compare, in whichever network namespace they are. `System.nanoTime` of Java reads the same.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds on the machine's monotonic clock.
#[must_use]
pub fn now_ns() -> u64 {
    // It cannot fail for this clock; a 0 would show as a stamp before all others.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        u64::try_from(Duration::from(time).as_nanos()).unwrap_or(u64::MAX)
    })
}
