//! Known bugs, planted on purpose, so that the simulator can prove that it would find them.
//!
//! Only with the feature `canaries`, which nothing but the simulator's own test uses; without it
//! [`planted`] is a constant `false` and nothing of this is left in the program. One bug is planted
//! at a time, for the whole process.

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Canary {
    /// A batch that expires lets go of its memory although the kernel may still read it.
    ReleasedAtExpiry = 1,
    /// A lane gets a new epoch while batches of it are in flight under the old one.
    EpochBumpWithoutDrain,
    /// A topic that metadata does not mention loses its lanes' sequences.
    SequenceStateDropped,
    /// A batch the broker's answer leaves out counts as stored.
    AckOnOmitted,
    /// What is tried again goes behind what waits.
    RetryOvertakes,
    /// Six batches of a partition in flight.
    SixInFlight,
    /// A batch that was lost with its connection keeps its place in the window.
    WindowLeak,
    /// A batch that may be stored gets new numbers.
    RestampMaybeWritten,
    /// A waiter is granted memory and not woken.
    WakeLost,
    /// A waiter that leaves keeps what it was granted.
    BudgetLeak,
    /// "Stored before" is reported as offset 0.
    DuplicateAtZero,
    /// Records with a key move to another partition when their broker is dead.
    KeyedRebound,
}

#[cfg(feature = "canaries")]
static PLANTED: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(0);

/// Plants a bug, or removes what is planted.
#[cfg(feature = "canaries")]
pub fn plant(canary: Option<Canary>) {
    let number = canary.map_or(0, |canary| canary as u8);
    PLANTED.store(number, core::sync::atomic::Ordering::Relaxed);
}

/// Whether this bug is planted.
#[cfg(feature = "canaries")]
#[inline]
#[must_use]
pub fn planted(canary: Canary) -> bool {
    PLANTED.load(core::sync::atomic::Ordering::Relaxed) == canary as u8
}

/// Whether this bug is planted: it is not.
#[cfg(not(feature = "canaries"))]
#[inline]
#[must_use]
pub const fn planted(_: Canary) -> bool {
    false
}
