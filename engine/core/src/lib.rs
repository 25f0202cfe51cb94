//! Ringpost's decisions, apart from any doing.
//!
//! This crate decides which batch is sent where and when, what a broker's answer means, and what is
//! tried again. It has no sockets, no clock, no threads, no locks, and no randomness but a seed
//! that is handed in: bytes, events and the time go in, things to do come out. The engine drives
//! it with real connections, the simulator with pretended ones.
//!
//! The modules, in the order of a record's journey:

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

// What a broker's error code means.
pub mod ack;
// Where metadata may send us.
pub mod allowed_hosts;
// A batch while records are appended to it.
pub mod batch;
// A sealed batch on its way.
mod batch_in_flight;
// What the core asks of memory.
pub mod buffer;
// Bugs planted on purpose, for the simulator to find.
#[doc(hidden)]
pub mod canary;
// One connection to one broker.
pub mod connection;
// Topics, leaders, addresses and producer ids: the phone book.
pub mod directory;
// The decisions of a shard.
pub mod dispatch;
// Agreeing on versions.
pub mod handshake;
// Which brokers to avoid.
pub mod health;
// The numbers that name things.
pub mod id;
// Every bound, as a sum.
pub mod limits;
// What is known of the cluster.
pub mod metadata;
// What became of a batch.
pub mod outcome;
// Which partition a record goes to.
pub mod partition;
// Pseudo-random numbers from a seed.
pub mod random;
// When to try again.
pub mod retry;
// From a cut batch to a sealed one.
pub mod seal;
// Dividing a batch that is too large.
mod split;
// What can be told.
pub mod settings;
// Points in time.
pub mod time;
// All timers of a shard.
pub mod timer;
// What strangers say, fit to be printed.
mod words;

pub use batch_in_flight::Moments;
