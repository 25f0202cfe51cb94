//! gzip (RFC 1952): a small header, deflate, the CRC-32 and the length of what was compressed.

use alloc::vec::Vec;

use flate2::{Compress, Compression as Level, Crc, FlushCompress, Status};

use super::{Codec, CompressError, Compressed, DecompressError, read_bounded};

/// Magic, deflate, no flags, no time, no extra flags, unknown system: as Java writes it, but for
/// the last byte.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
const TRAILER: usize = 8;
const LEVEL: u32 = 6;

/// The deflate state, about 300 KiB, and the level it was made for.
#[derive(Debug, Default)]
pub(super) struct Gzip {
    context: Option<(u32, Compress)>,
}

impl Gzip {
    pub(super) fn compress(
        &mut self,
        level: Option<i32>,
        pieces: &mut dyn Iterator<Item = &[u8]>,
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<Compressed, CompressError> {
        // Levels are 1 to 9, checked when the `Compression` was made.
        let level = level
            .and_then(|level| u32::try_from(level).ok())
            .unwrap_or(LEVEL);
        let deflate = match &mut self.context {
            Some((at, deflate)) if *at == level => {
                deflate.reset();
                deflate
            }
            context => {
                &mut context
                    .insert((level, Compress::new(Level::new(level), false)))
                    .1
            }
        };
        let Some(room) = limit.checked_sub(HEADER.len() + TRAILER) else {
            return Ok(Compressed::NotWorthIt);
        };
        out.extend_from_slice(&HEADER);
        let start = out.len();
        out.resize(start + room, 0);
        let mut crc = Crc::new();
        let written = deflate_all(deflate, pieces, &mut crc, &mut out[start..])?;
        let Some(written) = written else {
            return Ok(Compressed::NotWorthIt);
        };
        out.truncate(start + written);
        put_trailer(out, &crc);
        Ok(Compressed::Smaller)
    }
}

/// Deflates into `dst`; `None` when it does not fit.
fn deflate_all(
    deflate: &mut Compress,
    pieces: &mut dyn Iterator<Item = &[u8]>,
    crc: &mut Crc,
    dst: &mut [u8],
) -> Result<Option<usize>, CompressError> {
    let failed = |_| CompressError::Failed {
        codec: Codec::Gzip,
        why: "deflate refused",
    };
    let mut written = 0;
    for piece in pieces {
        crc.update(piece);
        let mut left = piece;
        while !left.is_empty() {
            if written == dst.len() {
                return Ok(None);
            }
            let (read, wrote) = step(deflate, left, &mut dst[written..], FlushCompress::None)
                .map_err(failed)
                .map(|(read, wrote, _)| (read, wrote))?;
            if read == 0 && wrote == 0 {
                return Ok(None);
            }
            left = &left[read..];
            written += wrote;
        }
    }
    loop {
        let (_, wrote, status) =
            step(deflate, &[], &mut dst[written..], FlushCompress::Finish).map_err(failed)?;
        written += wrote;
        match status {
            Status::StreamEnd => return Ok(Some(written)),
            _ if written == dst.len() || wrote == 0 => return Ok(None),
            _ => {}
        }
    }
}

/// One call, and how many bytes it read and wrote.
fn step(
    deflate: &mut Compress,
    src: &[u8],
    dst: &mut [u8],
    flush: FlushCompress,
) -> Result<(usize, usize, Status), flate2::CompressError> {
    let before = (deflate.total_in(), deflate.total_out());
    let status = deflate.compress(src, dst, flush)?;
    // Both differences are at most the lengths of the slices.
    let read = usize::try_from(deflate.total_in() - before.0).unwrap_or(src.len());
    let wrote = usize::try_from(deflate.total_out() - before.1).unwrap_or(dst.len());
    Ok((read, wrote, status))
}

#[expect(
    clippy::little_endian_bytes,
    reason = "RFC 1952 has its trailer in little endian"
)]
fn put_trailer(out: &mut Vec<u8>, crc: &Crc) {
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
}

pub(super) fn decompress(body: &[u8], max_len: usize) -> Result<Vec<u8>, DecompressError> {
    read_bounded(
        Codec::Gzip,
        flate2::read::MultiGzDecoder::new(body),
        max_len,
    )
}
