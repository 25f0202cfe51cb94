//! Seeded runs of the whole: shards with real dispatchers and one directory, memory with a ledger, a
//! network that tears and delays, a cluster whose nodes crash, and an application that calls at
//! random.
//!
//! A run has two phases. In the first anything happens that its [`Knobs`] allow, and what must hold at
//! every step is looked at after every step. Then all is healed, and the run must come to rest: every
//! record has its outcome, records are stored again, memory is free, nothing is connected that is
//! not needed, nothing ticks. At last the logs are compared with what was reported
//! ([`history`]).

// Sends, waits for memory, gives up.
mod application;
// The buggy variants the simulator must find.
#[cfg(feature = "canaries")]
pub mod canaries;
// Which faults there are, and how they strike.
mod faults;
// What became of every record.
pub mod history;
// What a seed decides.
pub mod knobs;
// The network between core and brokers.
mod network;
// What a record's value holds.
pub mod payload;
// Sequences near their end.
mod priming;
// A run.
pub mod run;
// Many runs.
pub mod session;
// One connection.
pub mod socket;
// Memory with a ledger.
pub mod token;
// What producer and cluster are told.
mod told;
// An onlooker between core and driver.
pub mod watch;

pub use knobs::{Kind, Knobs};
