//! The lock, the atomics and the cells, real or loom's.
//!
//! Only what decides something goes through here. The pool's counters for display are plain
//! atomics in every build: no decision hangs on them, and loom would explore them for nothing.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, Ordering, fence},
};
