//! Ringpost's core, a network and a Kafka cluster as real ends in pretend time.
//!
//! The core is the real one: the same dispatcher, directory and open batches that the engine runs.
//! The cluster is the broker model. Between them is a network made of an ordered list of events.
//! Nothing here reads a clock or draws a number that was not seeded, so a run is its seed.
//!
//! ```
//! use ringpost_simulator::setup::{Setup, ms};
//! use ringpost_simulator::world::World;
//!
//! let mut world = World::with_topic(Setup::new(3), "events", 4);
//! world.append(2, 100);
//! world.settle(ms(1_000));
//! assert!(world.is_acked(2, 0));
//! world.check(true);
//! ```

#![forbid(unsafe_code)]

/// Batches read back from requests and logs.
pub mod found;
/// Memory without a bound.
pub mod heap;
/// A sender of records that may go anywhere.
pub mod keyless;
/// The appenders' side.
pub mod lanes;
/// A directory and a broker that says whatever a test wants.
pub mod puppet;
/// What a world is made from.
pub mod setup;
/// Compresses bodies.
pub mod squeezer;
// Seeded runs of the whole.
pub mod swarm;
/// Both ends, and the time.
pub mod world;
