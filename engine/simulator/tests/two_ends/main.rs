//! The core and a broker as two real ends in pretend time.
//!
//! Tests are named after the cases of the reliability catalogue they prove. A run is repeated by
//! its seed: `RINGPOST_SEED=n cargo test -p ringpost-simulator --test two_ends random`.

mod avoidance;
mod batching;
mod hostile;
mod idempotence;
mod metadata;
mod moving;
mod network;
mod order;
mod puppet;
mod purge;
mod random;
mod retry;
mod split;
mod steady;
mod versions;
