//! See `ringpost_fuzz::swarm`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringpost_fuzz::swarm::run(data));
