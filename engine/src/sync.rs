//! The locks and atomics between appenders and a shard, real or shuttle's.
//!
//! Only what decides something goes through here: the lane, the
//! waiting for it, and (in their own files, because they
//! know loom too) the ready set and the sleep gate. Counters for display are plain atomics in every
//! build.

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize},
};
#[cfg(not(shuttle))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize},
};
