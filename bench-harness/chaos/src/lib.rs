//! What `scripts/chaos` is made of: faults against a real cluster, and the means to prove that
//! nothing was lost, doubled, reordered or damaged by them.
//!
//! A [`load`] writes records that say where they belong ([`payload`]) and tells of each what became
//! of it ([`history`]) to a process that outlives it ([`keep`]). Faults are drawn by a seed
//! ([`plan`]); those of the connection are made by a [`proxy`] that knows Kafka's frames. What the
//! cluster stored in the end is compared with the history by `scripts/verify/ChaosCheck.java`, with
//! Kafka's own consumer: nothing of the engine judges the engine.

pub mod clock;
pub mod history;
pub mod keep;
pub mod load;
pub mod payload;
pub mod plan;
pub mod proxy;
pub mod shares;
