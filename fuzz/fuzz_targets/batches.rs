//! See `ringpost_fuzz::batches`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringpost_fuzz::batches::run(data));
