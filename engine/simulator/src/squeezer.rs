//! Compresses bodies, as a shard of the engine does.

use ringpost_codec::compress::{Codec, Compressed, Compression, Compressor, decompress};
use ringpost_codec::record_batch::Attributes;
use ringpost_core::batch::Part;
use ringpost_core::buffer::Buffer;
use ringpost_core::seal::Squeeze;

/// One compressor and its output, used again for each body.
#[derive(Default)]
pub struct Squeezer {
    /// How; `none` unless it is set.
    pub compression: Compression,
    compressor: Compressor,
    out: Vec<u8>,
}

impl std::fmt::Debug for Squeezer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Squeezer")
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

impl Squeeze for Squeezer {
    fn squeeze<B: Buffer>(
        &mut self,
        parts: &[Part<B>],
        limit: usize,
    ) -> Option<(&[u8], Attributes)> {
        if self.compression.codec() == Codec::None {
            return None;
        }
        self.out.clear();
        let mut pieces = parts.iter().map(Part::bytes);
        let compressed = self
            .compressor
            .compress(self.compression, &mut pieces, &mut self.out, limit)
            .expect("compressors work");
        assert!(self.out.len() <= limit || compressed == Compressed::NotWorthIt);
        let attributes = Attributes::new(self.compression.codec());
        (compressed == Compressed::Smaller).then_some((&self.out[..], attributes))
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
