//! From a cut batch to a sealed one: the body is fixed, compressed or not, and its checksum known.
//!
//! Only the body. The 61 bytes of the batch header are written per attempt (see
//! [`crate::dispatch`]), because producer id, epoch and sequence are bound when the batch is first
//! sent and may be bound anew if it was never written; the body is then shared by count and never
//! touched again, so no attempt can change bytes the kernel still reads for an earlier one.

use alloc::vec::Vec;

use ringpost_codec::checksum::BodyDigest;
use ringpost_codec::record_batch::{Attributes, BATCH_HEADER_LEN, BatchHeader};

use crate::batch::{CutBatch, Part};
use crate::buffer::{Buffer, Piece};
use crate::id::{ProducerIdentity, Sequence};

/// Compresses bodies. The engine's has the codecs; the core only decides whether it paid.
pub trait Squeeze {
    /// The compressed form of the parts, and the attribute bits of its codec; `None` when it would
    /// not be smaller than `limit` bytes or no codec is wanted.
    fn squeeze<B: Buffer>(
        &mut self,
        parts: &[Part<B>],
        limit: usize,
    ) -> Option<(&[u8], Attributes)>;

    /// A body as it was before [`Squeeze::squeeze`], which is no longer than `len_max` bytes. `None`
    /// when it cannot be read back.
    fn unsqueeze(&mut self, body: &[u8], attributes: Attributes, len_max: usize)
    -> Option<Vec<u8>>;
}

/// No compression.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Squeeze for Plain {
    fn squeeze<B: Buffer>(&mut self, _: &[Part<B>], _: usize) -> Option<(&[u8], Attributes)> {
        None
    }

    fn unsqueeze(&mut self, _: &[u8], _: Attributes, _: usize) -> Option<Vec<u8>> {
        None
    }
}

/// A batch whose body will not change.
#[derive(Debug)]
pub struct SealedBatch<P> {
    /// The body as it goes on the wire.
    pub pieces: Vec<P>,
    /// Checksum and length of the body.
    pub body: BodyDigest,
    /// Codec and timestamp type.
    pub attributes: Attributes,
    /// Records in it, at least one.
    pub records: u32,
    /// Bytes of the records before compression.
    pub record_bytes: usize,
    /// Of the first record.
    pub base_timestamp_ms: i64,
    /// The largest of all records.
    pub max_timestamp_ms: i64,
}

impl<P: Piece> SealedBatch<P> {
    /// Bytes on the wire: header and body.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        BATCH_HEADER_LEN + self.body.len
    }

    /// Whether the body still has the checksum that was taken when it was sealed.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        let mut body = BodyDigest::new();
        for piece in &self.pieces {
            body.update(piece.bytes());
        }
        body == self.body
    }

    /// Writes the batch header for one attempt.
    pub fn write_header(&self, stamp: Option<(ProducerIdentity, Sequence)>, out: &mut [u8]) {
        let (producer_id, producer_epoch, base_sequence) = match stamp {
            Some((identity, sequence)) => (identity.id, identity.epoch, sequence.0),
            None => (-1, -1, -1),
        };
        BatchHeader {
            base_offset: 0,
            partition_leader_epoch: -1,
            attributes: self.attributes,
            last_offset_delta: self.records.cast_signed() - 1,
            base_timestamp: self.base_timestamp_ms,
            max_timestamp: self.max_timestamp_ms,
            producer_id,
            producer_epoch,
            base_sequence,
            record_count: self.records.cast_signed(),
        }
        .write(&self.body, out);
    }
}

/// Seals a batch. A compressed body is written back into the batch's own buffers, so sealing needs
/// no memory and cannot fail for want of it; a body that does not shrink, or whose buffers cannot
/// hold the result because its values are taken by reference, goes as it is.
///
/// `pieces` is an empty vector to be used for the result; the emptied vector of parts is handed
/// back for the next open batch. So sealing takes no memory from the heap either.
pub fn seal<B: Buffer>(
    cut: CutBatch<B>,
    squeeze: &mut impl Squeeze,
    mut pieces: Vec<B::Piece>,
) -> (SealedBatch<B::Piece>, Vec<Part<B>>) {
    let CutBatch {
        mut parts,
        body_len,
        records,
        base_timestamp_ms,
        max_timestamp_ms,
    } = cut;
    let mut attributes = Attributes::default();
    if let Some((compressed, codec)) = squeeze.squeeze(&parts, body_len)
        && room_of(&parts) >= compressed.len()
    {
        overwrite(&mut parts, compressed);
        attributes = codec;
    }
    let mut body = BodyDigest::new();
    pieces.reserve(parts.len());
    for part in parts.drain(..) {
        body.update(part.bytes());
        pieces.push(match part {
            Part::Written(buffer) => buffer.freeze(),
            Part::Shared(piece) => piece,
        });
    }
    let sealed = SealedBatch {
        pieces,
        body,
        attributes,
        records,
        record_bytes: body_len,
        base_timestamp_ms,
        max_timestamp_ms,
    };
    (sealed, parts)
}

fn room_of<B: Buffer>(parts: &[Part<B>]) -> usize {
    parts
        .iter()
        .map(|part| match part {
            Part::Written(buffer) => buffer.capacity(),
            Part::Shared(_) => 0,
        })
        .sum()
}

/// Puts `bytes` into the buffers of `parts`, in order, and drops what is not needed.
fn overwrite<B: Buffer>(parts: &mut Vec<Part<B>>, bytes: &[u8]) {
    let mut rest = bytes;
    parts.retain_mut(|part| {
        let Part::Written(buffer) = part else {
            return false;
        };
        if rest.is_empty() {
            return false;
        }
        buffer.truncate(0);
        let (now, later) = rest.split_at(rest.len().min(buffer.capacity()));
        buffer.spare_mut()[..now.len()].copy_from_slice(now);
        buffer.commit(now.len());
        rest = later;
        true
    });
}
