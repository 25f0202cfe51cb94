//! See `ringpost_fuzz::whole_core`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringpost_fuzz::whole_core::run(data));
