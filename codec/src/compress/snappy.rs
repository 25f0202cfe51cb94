//! Snappy in the framing of `snappy-java`, which is what Kafka means by snappy.
//!
//! ```text
//! magic          0x82 'S' 'N' 'A' 'P' 'P' 'Y' 0
//! version        i32   1
//! compatible     i32   1
//! blocks         each: i32 length, raw snappy of up to 32 KiB
//! ```
//! Not the "snappy frame format". Some writers (librdkafka) send one raw snappy block without any
//! framing instead; that is read as well.

use alloc::vec::Vec;

use super::{Codec, CompressError, Compressed, DecompressError};
use crate::reader::Reader;

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const VERSION: i32 = 1;
const COMPATIBLE: i32 = 1;
/// As much as Kafka's own writer puts into a block.
const BLOCK: usize = 32 * 1024;

/// The encoder, a block gathered from pieces, and a block compressed: about 100 KiB.
#[derive(Debug, Default)]
pub(super) struct Snappy {
    encoder: Option<snap::raw::Encoder>,
    block: Vec<u8>,
    compressed: Vec<u8>,
}

impl Snappy {
    pub(super) fn compress(
        &mut self,
        pieces: &mut dyn Iterator<Item = &[u8]>,
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<Compressed, CompressError> {
        let end = out.len().saturating_add(limit);
        if limit < MAGIC.len() + 8 {
            return Ok(Compressed::NotWorthIt);
        }
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&COMPATIBLE.to_be_bytes());
        self.block.clear();
        for mut piece in pieces {
            while !piece.is_empty() {
                let room = BLOCK - self.block.len();
                let (now, later) = piece.split_at(room.min(piece.len()));
                piece = later;
                self.block.extend_from_slice(now);
                if self.block.len() == BLOCK && !self.put_block(out, end)? {
                    return Ok(Compressed::NotWorthIt);
                }
            }
        }
        if !self.block.is_empty() && !self.put_block(out, end)? {
            return Ok(Compressed::NotWorthIt);
        }
        Ok(Compressed::Smaller)
    }

    /// Appends the gathered block; false if it does not fit before `end`.
    fn put_block(&mut self, out: &mut Vec<u8>, end: usize) -> Result<bool, CompressError> {
        self.compressed
            .resize(snap::raw::max_compress_len(BLOCK), 0);
        let len = self
            .encoder
            .get_or_insert_with(snap::raw::Encoder::new)
            .compress(&self.block, &mut self.compressed)
            .map_err(|_| CompressError::Failed {
                codec: Codec::Snappy,
                why: "block too long",
            })?;
        self.block.clear();
        if len + 4 > end - out.len() {
            return Ok(false);
        }
        let len_field = u32::try_from(len).expect("a block of 32 KiB does not grow to 4 GiB");
        out.extend_from_slice(&len_field.to_be_bytes());
        out.extend_from_slice(&self.compressed[..len]);
        Ok(true)
    }
}

pub(super) fn decompress(body: &[u8], max_len: usize) -> Result<Vec<u8>, DecompressError> {
    let malformed = DecompressError::Malformed {
        codec: Codec::Snappy,
    };
    let mut out = Vec::new();
    let Some(framed) = body.strip_prefix(&MAGIC) else {
        put_decompressed(body, &mut out, max_len)?;
        return Ok(out);
    };
    let mut reader = Reader::new(framed);
    let _version = reader.i32("snappy.version").map_err(|_| malformed)?;
    let compatible = reader.i32("snappy.compatible").map_err(|_| malformed)?;
    if compatible > COMPATIBLE {
        return Err(malformed);
    }
    while reader.remaining() > 0 {
        let len = reader.u32("snappy.block").map_err(|_| malformed)?;
        let len = usize::try_from(len).map_err(|_| malformed)?;
        let block = reader.take(len, "snappy.block").map_err(|_| malformed)?;
        put_decompressed(block, &mut out, max_len)?;
    }
    Ok(out)
}

fn put_decompressed(
    block: &[u8],
    out: &mut Vec<u8>,
    max_len: usize,
) -> Result<(), DecompressError> {
    let malformed = DecompressError::Malformed {
        codec: Codec::Snappy,
    };
    let len = snap::raw::decompress_len(block).map_err(|_| malformed)?;
    let start = out.len();
    if len > max_len - start {
        return Err(DecompressError::TooLong { max: max_len });
    }
    // Snappy's best is three bytes for 64; a length beyond that is a lie.
    if len > block.len().saturating_mul(32) {
        return Err(malformed);
    }
    out.resize(start + len, 0);
    let read = snap::raw::Decoder::new().decompress(block, &mut out[start..]);
    if read.map_err(|_| malformed)? != len {
        return Err(malformed);
    }
    Ok(())
}
