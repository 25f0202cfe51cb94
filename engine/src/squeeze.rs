//! Compressing bodies on the shard, with contexts that are made once.

use ringpost_codec::compress::{Codec, Compressed, Compression, Compressor, decompress};
use ringpost_codec::record_batch::Attributes;
use ringpost_core::batch::Part;
use ringpost_core::buffer::Buffer;
use ringpost_core::seal::Squeeze;

/// The compressor of a shard.
pub(crate) struct Squeezer {
    compression: Compression,
    compressor: Compressor,
    out: Vec<u8>,
    resting: bool,
}

impl std::fmt::Debug for Squeezer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Squeezer")
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

impl Squeezer {
    pub(crate) fn new(compression: Compression) -> Self {
        Self {
            compression,
            compressor: Compressor::new(),
            out: Vec::new(),
            resting: false,
        }
    }

    /// Whether it rests: what will not be sent need not be compressed.
    pub(crate) fn rest(&mut self, resting: bool) {
        self.resting = resting;
    }
}

impl Squeeze for Squeezer {
    fn squeeze<B: Buffer>(
        &mut self,
        parts: &[Part<B>],
        limit: usize,
    ) -> Option<(&[u8], Attributes)> {
        if self.resting || self.compression.codec() == Codec::None {
            return None;
        }
        self.out.clear();
        let mut pieces = parts.iter().map(Part::bytes);
        // A compressor that fails, whatever the reason, costs only the compression.
        match self
            .compressor
            .compress(self.compression, &mut pieces, &mut self.out, limit)
        {
            Ok(Compressed::Smaller) => Some((&self.out, Attributes::new(self.compression.codec()))),
            Ok(Compressed::NotWorthIt) | Err(_) => None,
        }
    }

    fn unsqueeze(
        &mut self,
        body: &[u8],
        attributes: Attributes,
        len_max: usize,
    ) -> Option<Vec<u8>> {
        decompress(attributes.codec().ok()?, body, len_max).ok()
    }
}
