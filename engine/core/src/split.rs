//! Dividing a sealed batch that the broker finds too large.
//!
//! The records keep their order and their bytes, but for what a batch counts from its first record:
//! offset and timestamp deltas. So the first half is made of the old body's pieces as they are; in the
//! second, each record gets a new head, and what follows is copied, or shared when it is large. A body
//! that was compressed is decompressed before, to the size it is known to have had, and both halves are
//! copied. Pieces are never written: the kernel may still read them.
//!
//! ```text
//!   record   [length][attributes][timestamp delta][offset delta][key][value][headers]
//!            └─────────────── written anew ─────────────────────┘└─ copied or shared ┘
//! ```

use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use ringpost_codec::primitives::{put_varint, put_varlong};
use ringpost_codec::record_batch::Attributes;

use crate::batch::{CutBatch, Part};
use crate::buffer::{Buffer, Piece};
use crate::limits;
use crate::seal::SealedBatch;

/// A body that is to be divided.
#[derive(Debug)]
pub(crate) enum Body<'a, P> {
    /// As it was sealed, uncompressed.
    Pieces(&'a [P]),
    /// Decompressed.
    Flat(&'a [u8]),
}

impl<P: Piece> Body<'_, P> {
    fn chunk(&self, number: usize) -> Option<&[u8]> {
        match self {
            Self::Pieces(pieces) => pieces.get(number).map(Piece::bytes),
            Self::Flat(bytes) => (number == 0).then_some(*bytes),
        }
    }

    fn share(&self, number: usize, range: Range<usize>) -> Option<P> {
        match self {
            Self::Pieces(pieces) => Some(pieces.get(number)?.slice(range)),
            Self::Flat(_) => None,
        }
    }
}

/// Goes through a body, piece by piece. The bytes are our own, but nothing is taken for granted: what
/// does not fit ends the walk.
#[derive(Debug)]
struct Walk<'a, P> {
    body: &'a Body<'a, P>,
    chunk: usize,
    at: usize,
    passed: usize,
}

/// What stands before a record's key.
#[derive(Debug, Clone, Copy)]
struct Head {
    attributes: u8,
    timestamp_delta: i64,
    /// Bytes behind it.
    rest: usize,
}

impl<'a, P: Piece> Walk<'a, P> {
    fn new(body: &'a Body<'a, P>) -> Self {
        Self {
            body,
            chunk: 0,
            at: 0,
            passed: 0,
        }
    }

    fn byte(&mut self) -> Option<u8> {
        loop {
            let chunk = self.body.chunk(self.chunk)?;
            if let Some(byte) = chunk.get(self.at) {
                self.at += 1;
                self.passed += 1;
                return Some(*byte);
            }
            self.chunk += 1;
            self.at = 0;
        }
    }

    /// A zig-zag number.
    fn number(&mut self) -> Option<i64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        None
    }

    fn head(&mut self) -> Option<Head> {
        let len = usize::try_from(self.number()?).ok()?;
        let before = self.passed;
        let attributes = self.byte()?;
        let timestamp_delta = self.number()?;
        let _offset_delta = self.number()?;
        Some(Head {
            attributes,
            timestamp_delta,
            rest: len.checked_sub(self.passed - before)?,
        })
    }

    /// Passes so many bytes, and shows where they lie.
    fn pass(
        &mut self,
        mut len: usize,
        mut each: impl FnMut(usize, Range<usize>) -> Option<()>,
    ) -> Option<()> {
        while len > 0 {
            let there = self.body.chunk(self.chunk)?.len() - self.at;
            let now = there.min(len);
            if now > 0 {
                each(self.chunk, self.at..self.at + now)?;
            }
            self.at += now;
            self.passed += now;
            len -= now;
            if len > 0 {
                self.chunk += 1;
                self.at = 0;
            }
        }
        Some(())
    }
}

/// Where a batch is divided.
#[derive(Debug, Clone, Copy)]
struct Seam {
    /// Records before it.
    records: u32,
    /// Their bytes.
    bytes: usize,
    /// The latest of their timestamps.
    max_delta: i64,
    /// The first and the latest timestamp behind it.
    next_delta: i64,
    next_max_delta: i64,
}

/// A batch that is being divided.
#[derive(Debug)]
pub(crate) struct Division<'a, P> {
    body: Body<'a, P>,
    seam: Seam,
    records: u32,
    base_timestamp_ms: i64,
    /// Bytes of buffers taken for it.
    pub(crate) taken: usize,
}

impl<'a, P: Piece> Division<'a, P> {
    /// Finds the place nearest to the middle. `None`: there is but one record, or the body is not what
    /// the batch says it is.
    pub(crate) fn new(sealed: &SealedBatch<P>, body: Body<'a, P>) -> Option<Self> {
        let mut walk = Walk::new(&body);
        let mut seam = Seam {
            records: 0,
            bytes: 0,
            max_delta: i64::MIN,
            next_delta: 0,
            next_max_delta: i64::MIN,
        };
        for number in 0..sealed.records {
            let head = walk.head()?;
            walk.pass(head.rest, |_, _| Some(()))?;
            let first = number == 0;
            let last = number + 1 == sealed.records;
            let behind = seam.records < number;
            if first || (!behind && !last && walk.passed <= sealed.record_bytes / 2) {
                seam.records = number + 1;
                seam.bytes = walk.passed;
                seam.max_delta = seam.max_delta.max(head.timestamp_delta);
                continue;
            }
            if !behind {
                seam.next_delta = head.timestamp_delta;
            }
            seam.next_max_delta = seam.next_max_delta.max(head.timestamp_delta);
        }
        (sealed.records > 1 && walk.passed == sealed.record_bytes).then_some(Self {
            body,
            seam,
            records: sealed.records,
            base_timestamp_ms: sealed.base_timestamp_ms,
            taken: 0,
        })
    }

    /// Records of the first half.
    pub(crate) fn at(&self) -> u32 {
        self.seam.records
    }

    /// The first half. `None`: there is no memory.
    pub(crate) fn first<B: Buffer<Piece = P>>(
        &mut self,
        take: impl FnMut(usize) -> Option<B>,
    ) -> Option<CutBatch<B>> {
        let mut writer = Writer::new(take, self.seam.bytes);
        let mut walk = Walk::new(&self.body);
        walk.pass(self.seam.bytes, |chunk, range| {
            match self.body.share(chunk, range.clone()) {
                Some(piece) => writer.share(piece),
                None => writer.put(&self.body.chunk(chunk)?[range])?,
            }
            Some(())
        })?;
        self.taken += writer.taken;
        Some(CutBatch {
            body_len: self.seam.bytes,
            parts: writer.finish(),
            records: self.seam.records,
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.base_timestamp_ms.wrapping_add(self.seam.max_delta),
        })
    }

    /// The second half. `None`: there is no memory.
    pub(crate) fn second<B: Buffer<Piece = P>>(
        &mut self,
        take: impl FnMut(usize) -> Option<B>,
        expected: usize,
    ) -> Option<CutBatch<B>> {
        let mut writer = Writer::new(take, expected);
        let mut walk = Walk::new(&self.body);
        walk.pass(self.seam.bytes, |_, _| Some(()))?;
        let records = self.records - self.seam.records;
        for offset_delta in 0..records.cast_signed() {
            let head = walk.head()?;
            let delta = head.timestamp_delta.wrapping_sub(self.seam.next_delta);
            // Attributes, and two numbers of at most ten and five bytes.
            let mut fresh = [0; 16];
            fresh[0] = head.attributes;
            let mut len = 1 + put_varlong(&mut fresh[1..], delta);
            len += put_varint(&mut fresh[len..], offset_delta);
            let mut length = [0; 5];
            let body = i32::try_from(len + head.rest).ok()?;
            let length_len = put_varint(&mut length, body);
            writer.put(&length[..length_len])?;
            writer.put(&fresh[..len])?;
            walk.pass(head.rest, |chunk, range| {
                let large = range.len() >= limits::SHARED_IN_SPLIT_BYTES_MIN;
                match self.body.share(chunk, range.clone()).filter(|_| large) {
                    Some(piece) => writer.share(piece),
                    None => writer.put(&self.body.chunk(chunk)?[range])?,
                }
                Some(())
            })?;
        }
        self.taken += writer.taken;
        let base_timestamp_ms = self.base_timestamp_ms.wrapping_add(self.seam.next_delta);
        Some(CutBatch {
            body_len: writer.len,
            parts: writer.finish(),
            records,
            base_timestamp_ms,
            max_timestamp_ms: self
                .base_timestamp_ms
                .wrapping_add(self.seam.next_max_delta),
        })
    }
}

/// Writes a half's body.
#[derive(Debug)]
struct Writer<B: Buffer, F> {
    take: F,
    parts: Vec<Part<B>>,
    tail: Option<B>,
    len: usize,
    /// How long the body is about to be.
    expected: usize,
    /// How large the next buffer is at most: as in open batches, it doubles.
    next: usize,
    taken: usize,
}

impl<B: Buffer, F: FnMut(usize) -> Option<B>> Writer<B, F> {
    fn new(take: F, expected: usize) -> Self {
        Self {
            take,
            parts: Vec::new(),
            tail: None,
            len: 0,
            expected,
            next: Self::SMALLEST,
            taken: 0,
        }
    }

    const SMALLEST: usize = 1 << 10;

    fn put(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let room = self
                .tail
                .as_ref()
                .map_or(0, |t| t.capacity() - t.filled().len());
            if room == 0 {
                self.close_tail();
                let left = self.expected.saturating_sub(self.len).max(bytes.len());
                let buffer = (self.take)(left.min(self.next))?;
                self.next = (2 * self.next).min(limits::SPLIT_BUFFER_BYTES);
                self.taken += buffer.capacity();
                self.tail = Some(buffer);
                continue;
            }
            let tail = self.tail.as_mut()?;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            tail.spare_mut()[..now.len()].copy_from_slice(now);
            tail.commit(now.len());
            self.len += now.len();
            bytes = later;
        }
        Some(())
    }

    fn share(&mut self, piece: B::Piece) {
        self.close_tail();
        self.next = Self::SMALLEST;
        self.len += piece.bytes().len();
        self.parts.push(Part::Shared(piece));
    }

    fn close_tail(&mut self) {
        if let Some(tail) = self.tail.take()
            && !tail.filled().is_empty()
        {
            self.parts.push(Part::Written(tail));
        }
    }

    fn finish(&mut self) -> Vec<Part<B>> {
        self.close_tail();
        mem::take(&mut self.parts)
    }
}

/// Whether the body is compressed.
pub(crate) fn is_compressed(attributes: Attributes) -> bool {
    attributes
        .codec()
        .is_ok_and(|codec| codec != ringpost_codec::compress::Codec::None)
}

#[cfg(test)]
mod tests {
    use alloc::rc::Rc;
    use alloc::vec;

    use ringpost_codec::record::Header;
    use ringpost_codec::record_batch::Records;

    use super::*;
    use crate::batch::{Fields, Fit, OpenBatch};
    use crate::random::Random;
    use crate::seal::{Plain, seal};

    #[derive(Debug)]
    struct Bytes {
        bytes: Vec<u8>,
        filled: usize,
    }

    #[derive(Debug, Clone)]
    struct Shared(Rc<Vec<u8>>, Range<usize>);

    impl Buffer for Bytes {
        type Piece = Shared;

        fn capacity(&self) -> usize {
            self.bytes.len()
        }
        fn filled(&self) -> &[u8] {
            &self.bytes[..self.filled]
        }
        fn filled_mut(&mut self) -> &mut [u8] {
            &mut self.bytes[..self.filled]
        }
        fn spare_mut(&mut self) -> &mut [u8] {
            &mut self.bytes[self.filled..]
        }
        fn commit(&mut self, n: usize) {
            self.filled += n;
        }
        fn truncate(&mut self, len: usize) {
            self.filled = len;
        }
        fn freeze(self) -> Shared {
            Shared(Rc::new(self.bytes), 0..self.filled)
        }
    }

    impl Piece for Shared {
        fn bytes(&self) -> &[u8] {
            &self.0[self.1.clone()]
        }
        fn slice(&self, range: Range<usize>) -> Self {
            let start = self.1.start;
            Self(Rc::clone(&self.0), start + range.start..start + range.end)
        }
    }

    fn buffer(bytes: usize) -> Bytes {
        Bytes {
            bytes: vec![0; bytes],
            filled: 0,
        }
    }

    /// A record as the application gave it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Given {
        timestamp_ms: i64,
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        header: Option<Vec<u8>>,
    }

    fn given(random: &mut Random) -> Given {
        let mut bytes = |most: usize| {
            let len = random.below(most);
            let byte = u8::try_from(random.below(256)).unwrap();
            (random.below(5) > 0).then(|| vec![byte; len])
        };
        let (key, header) = (bytes(40), bytes(300));
        let most = [10, 100, 20_000][bytes(3).map_or(0, |b| b.len())];
        let value = bytes(most);
        Given {
            timestamp_ms: 1_700_000_000_000 + random.below(100_000) as i64 - 50_000,
            key,
            value,
            header,
        }
    }

    fn sealed(records: &[Given]) -> SealedBatch<Shared> {
        let mut open = OpenBatch::new(records[0].timestamp_ms, Vec::new());
        for record in records {
            let header = record.header.as_ref().map(|value| Header {
                key: "h",
                value: Some(value),
            });
            let fields = Fields {
                timestamp_ms: record.timestamp_ms,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: header.as_slice(),
            };
            let size = open.measure(&fields);
            match &record.value {
                Some(value) if value.len() > 16 << 10 => {
                    let around = OpenBatch::<Bytes>::around_shared(&size, value.len());
                    open.add_buffer(buffer(around));
                    let piece = Shared(Rc::new(value.clone()), 0..value.len());
                    open.append_shared(&fields, &size, piece, buffer(around));
                }
                _ => {
                    if let Fit::NeedsBuffer(at_least) = open.fit(&size, usize::MAX) {
                        open.add_buffer(buffer(open.next_buffer_bytes(at_least)));
                    }
                    open.append(&fields, &size);
                }
            }
        }
        seal(open.cut(), &mut Plain, Vec::new()).0
    }

    fn body(batch: &SealedBatch<Shared>) -> Vec<u8> {
        let bytes: Vec<u8> = batch
            .pieces
            .iter()
            .flat_map(|p| p.bytes().to_vec())
            .collect();
        assert_eq!(bytes.len(), batch.body.len);
        assert_eq!(bytes.len(), batch.record_bytes);
        bytes
    }

    fn read(batch: &SealedBatch<Shared>) -> Vec<Given> {
        let body = body(batch);
        let mut found = Vec::new();
        for record in Records::new(&body, batch.records.cast_signed()) {
            let record = record.unwrap();
            assert_eq!(usize::try_from(record.offset_delta).unwrap(), found.len());
            let header = record.headers().next().and_then(|header| header.value);
            found.push(Given {
                timestamp_ms: batch.base_timestamp_ms + record.timestamp_delta,
                key: record.key.map(Into::into),
                value: record.value.map(Into::into),
                header: header.map(Into::into),
            });
        }
        found
    }

    /// Batches of random records, some with values by reference, divided again and again, from their
    /// pieces and from flat bytes: the same records in the same order, each part with the timestamps of
    /// its own records.
    #[test]
    fn b3_the_halves_are_the_whole() {
        for seed in 0..40 {
            let mut random = Random::new(seed);
            let count = 1 + random.below(if seed % 10 == 0 { 60 } else { 12 });
            let records: Vec<_> = (0..count).map(|_| given(&mut random)).collect();
            let mut parts = vec![sealed(&records)];
            while parts.iter().any(|part| part.records > 1) {
                parts = parts
                    .into_iter()
                    .flat_map(|part| {
                        let flat = body(&part);
                        let from = if random.below(2) == 0 {
                            Body::Pieces(&part.pieces)
                        } else {
                            Body::Flat(&flat)
                        };
                        let Some(mut division) = Division::new(&part, from) else {
                            assert_eq!(part.records, 1);
                            return vec![part];
                        };
                        let take = |bytes| Some(buffer(bytes));
                        let first = division.first(take).unwrap();
                        assert_eq!(first.records, division.at());
                        let left = part.record_bytes - first.body_len;
                        let second = division.second(take, left).unwrap();
                        assert_eq!(first.records + second.records, part.records);
                        let seal = |cut| seal(cut, &mut Plain, Vec::new()).0;
                        vec![seal(first), seal(second)]
                    })
                    .collect();
                let found: Vec<_> = parts.iter().flat_map(read).collect();
                assert_eq!(found, records, "seed {seed}");
                for part in &parts {
                    let times = || read(part).into_iter().map(|record| record.timestamp_ms);
                    assert_eq!(Some(part.base_timestamp_ms), times().next());
                    assert_eq!(Some(part.max_timestamp_ms), times().max());
                }
            }
        }
    }

    /// Large parts of records are not copied, and no memory means no halves.
    #[test]
    fn b3_large_values_are_shared_and_missing_memory_is_said() {
        let large = Given {
            timestamp_ms: 5,
            key: None,
            value: Some(vec![7; 50_000]),
            header: None,
        };
        let whole = sealed(&[large.clone(), large.clone(), large]);
        let mut division = Division::new(&whole, Body::Pieces(&whole.pieces)).unwrap();
        let none = |_| None::<Bytes>;
        assert!(division.first(none).is_some(), "all shared");
        assert!(division.second(none, 1000).is_none());
        division.second(|bytes| Some(buffer(bytes)), 1000).unwrap();
        assert!(division.taken <= 1100, "{}", division.taken);
    }

    /// A body that is not what its batch says is not divided.
    #[test]
    fn b3_a_body_that_makes_no_sense_is_left_whole() {
        let record = Given {
            timestamp_ms: 5,
            key: None,
            value: Some(vec![7; 50]),
            header: None,
        };
        let whole = sealed(&[record.clone(), record]);
        let bytes = body(&whole);
        for len in 0..bytes.len() {
            assert!(Division::new(&whole, Body::Flat(&bytes[..len])).is_none());
        }
        for noise in [0x80_u8, 0xff, 0x01] {
            let noise = vec![noise; bytes.len()];
            assert!(Division::new(&whole, Body::Flat(&noise)).is_none());
        }
    }
}
