//! See `ringpost_fuzz::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringpost_fuzz::frames::run(data));
