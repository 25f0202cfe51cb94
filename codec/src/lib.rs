//! Kafka's bytes: records, batches, frames, messages, compression, checksums.
//!
//! Bytes in, bytes out. There is no I/O here, no clock and no unsafe code, and without cargo
//! features nothing but `core` and `alloc`. What writes trusts its caller (the sizes are computed
//! first, by the functions next to it); what reads trusts nobody: every length and count from the
//! network is checked against the bytes that are really there before memory is taken for it, and
//! nothing that can be received makes it panic.
//!
//! | feature | gives |
//! |---|---|
//! | `std` | implied by the compressors |
//! | `lz4`, `zstd`, `snappy`, `gzip` | the compressor of that name; all on by default |
//!
//! The modules, in the order in which a record meets them:
//! - [`primitives`]: variable-length integers
//! - [`record`]: one record, as it lies in a batch
//! - [`record_batch`]: the header in front of a batch's records
//! - [`checksum`]: CRC-32C, computed once over a body and combined with any header
//! - [`compress`]: compression of batch bodies
//! - [`kafka`]: the messages themselves
//! - [`writer`]: writing of messages, with lengths that are patched in afterwards
//! - [`reader`]: checked reading of what the network sent
//! - [`frame`]: messages cut out of a stream of bytes
//! - [`error`]: what can be wrong with received bytes
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]
// Everything Kafka sends is big endian; the few fields of foreign formats say so where they are.
#![deny(clippy::little_endian_bytes, clippy::host_endian_bytes)]

extern crate alloc;

pub mod checksum;
pub mod compress;
pub mod error;
pub mod frame;
pub mod kafka;
pub mod primitives;
pub mod reader;
pub mod record;
pub mod record_batch;
pub mod writer;
