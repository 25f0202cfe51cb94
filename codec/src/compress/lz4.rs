//! LZ4 frames with independent blocks.

use alloc::vec::Vec;
use std::io::{self, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::{Codec, CompressError, Compressed, DecompressError, read_bounded};

/// The encoder with its table and its two block buffers, about 150 KiB.
#[derive(Default)]
pub(super) struct Lz4 {
    encoder: Option<FrameEncoder<Bounded>>,
}

impl core::fmt::Debug for Lz4 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Lz4")
            .field("in_use", &self.encoder.is_some())
            .finish()
    }
}

/// The output. What would pass the end is dropped, and noted: so a frame that is not worth it can
/// still be closed, and the encoder used again.
#[derive(Default)]
struct Bounded {
    out: Vec<u8>,
    end: usize,
    passed: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.passed || bytes.len() > self.end - self.out.len() {
            self.passed = true;
        } else {
            self.out.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lz4 {
    pub(super) fn compress(
        &mut self,
        pieces: &mut dyn Iterator<Item = &[u8]>,
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<Compressed, CompressError> {
        let encoder = self.encoder.get_or_insert_with(|| {
            let info = FrameInfo::new()
                .block_size(BlockSize::Max64KB)
                .block_mode(BlockMode::Independent);
            FrameEncoder::with_frame_info(info, Bounded::default())
        });
        let end = out.len().saturating_add(limit);
        *encoder.get_mut() = Bounded {
            out: core::mem::take(out),
            end,
            passed: false,
        };
        let result = Self::feed(encoder, pieces);
        let bounded = core::mem::take(encoder.get_mut());
        *out = bounded.out;
        if result.is_err() {
            self.encoder = None;
            return Err(CompressError::Failed {
                codec: Codec::Lz4,
                why: "the encoder refused",
            });
        }
        Ok(if bounded.passed {
            Compressed::NotWorthIt
        } else {
            Compressed::Smaller
        })
    }

    fn feed(
        encoder: &mut FrameEncoder<Bounded>,
        pieces: &mut dyn Iterator<Item = &[u8]>,
    ) -> io::Result<()> {
        for piece in pieces {
            encoder.write_all(piece)?;
            if encoder.get_ref().passed {
                break;
            }
        }
        encoder.try_finish().map_err(io::Error::from)
    }
}

pub(super) fn decompress(body: &[u8], max_len: usize) -> Result<Vec<u8>, DecompressError> {
    read_bounded(Codec::Lz4, FrameDecoder::new(body), max_len)
}
