//! The engine against a broker model: every way to send, every kind of record, every Produce
//! version, what bad input gets, and how a producer ends. Each test runs with both drivers.
//!
//! Nothing here sleeps or asserts on time: waits end with the event they are for, or fail the test
//! after [`support::PATIENCE`].

mod proxy;
mod routing;
mod support;

mod avoiding;
mod bad_input;
mod bulkhead;
mod closing;
mod content;
mod dead_letters;
mod embedded;
mod memory;
mod network;
mod outages;
mod purging;
mod sending;
mod starved;
mod too_large;
mod versions;
