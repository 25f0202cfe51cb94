//! What the fuzz targets do with their input. Each module has a `run`, which panics when something
//! that has to hold does not; `fuzz_targets/` hands libFuzzer's bytes to it. `scripts/fuzz` builds
//! and runs them, with bounds on time and memory that libFuzzer watches.
//!
//! | target | what | compared with |
//! |---|---|---|
//! | [`frames`] | messages cut out of a stream, in any chunks | a splitter that sees all of it at once |
//! | [`varints`] | variable-length integers, tagged fields, any sequence of reads | a second decoder |
//! | [`responses`] | every response in every version, and the first one on a connection | itself, written and read again |
//! | [`messages`] | every message that is written | what `kafka-protocol` writes and reads |
//! | [`batches`] | records through open batch, compressor and batch header | what went in, by two readers |
//! | [`memory`] | any operations on the pool | its model |
//! | [`settings`] | settings, bootstrap addresses, scenario files | itself, written and read again |
//! | [`whole_core`] | dispatcher and directory against a hostile broker, kernel and network | what always holds |
//! | [`swarm`] | the seeded simulator, its seed and knobs | what it looks at itself |

pub mod batches;
pub mod frames;
pub mod memory;
pub mod messages;
pub mod responses;
pub mod settings;
pub mod swarm;
pub mod varints;
pub mod whole_core;
