//! See `ringpost_fuzz::varints`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringpost_fuzz::varints::run(data));
