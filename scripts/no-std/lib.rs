//! Links the crates that promise to need no std; see `Cargo.toml`.
#![no_std]
#![forbid(unsafe_code)]

extern crate ringpost_codec as _;
extern crate ringpost_core as _;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
