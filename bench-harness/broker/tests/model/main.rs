//! The model, without a network: every API in every version, produced batches, faults, hostile
//! bytes. Requests are written by two implementations, answers read by the one the model does not
//! use for the engine's side.

#[path = "../support/mod.rs"]
mod support;

mod apis;
mod cluster;
mod faults;
mod hostile;
mod produce;
mod random;
mod reading;
mod scripts;
mod server;
