//! The clocks. Read here and nowhere else.
//!
//! Two of them twice: the monotonic clock for deadlines and the wall clock for record timestamps,
//! each precise (about 25 ns on a virtual machine) and coarse (about 6 ns, as old as the kernel's
//! last tick, 1 to 4 ms). The precise ones are read once per batch and per turn of a loop, the
//! coarse wall clock once per record.

use ringpost_core::time::Time;

/// Now, for deadlines: the monotonic clock, which neither jumps nor goes back.
#[inline]
pub(crate) fn now() -> Time {
    let (seconds, nanos) = read(libc::CLOCK_MONOTONIC);
    Time(u64::try_from(seconds).unwrap_or(0) * 1_000_000_000 + u64::try_from(nanos).unwrap_or(0))
}

/// Milliseconds since 1970, precise.
#[inline]
pub(crate) fn wall_ms() -> i64 {
    let (seconds, nanos) = read(libc::CLOCK_REALTIME);
    seconds * 1000 + nanos / 1_000_000
}

/// Milliseconds since 1970, as of the kernel's last tick.
#[inline]
pub(crate) fn wall_ms_coarse() -> i64 {
    let (seconds, nanos) = read(libc::CLOCK_REALTIME_COARSE);
    seconds * 1000 + nanos / 1_000_000
}

#[inline]
fn read(clock: libc::clockid_t) -> (i64, i64) {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec for the call to write, and is not kept by it.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    // It fails for clocks that do not exist; these exist on every Linux.
    debug_assert_eq!(result, 0);
    (time.tv_sec, time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_agree() {
        let before = now();
        assert!(now() >= before);
        // A tick is at most 10 ms on any Linux; allow for a preempted test.
        assert!((wall_ms() - wall_ms_coarse()).abs() < 60_000);
    }
}
