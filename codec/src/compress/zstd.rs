//! Zstandard.

use alloc::vec::Vec;

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective::{ZSTD_e_continue, ZSTD_e_end};
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

use super::{Codec, CompressError, Compressed, DecompressError, read_bounded};

/// zstd's own default.
const LEVEL: i32 = 3;
/// 1 MiB: no batch that a broker takes by default is longer, and without a bound the higher levels
/// keep tens of megabytes per shard.
const WINDOW_LOG: u32 = 20;
/// 8 MiB: what the usual levels of other writers need at most.
const READ_WINDOW_LOG: u32 = 23;

/// The context (1 to 10 MiB, by level), and the level it is set to.
#[derive(Default)]
pub(super) struct Zstd {
    context: Option<(i32, CCtx<'static>)>,
}

impl core::fmt::Debug for Zstd {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let level = self.context.as_ref().map(|(level, _)| level);
        f.debug_struct("Zstd").field("level", &level).finish()
    }
}

fn failed(code: usize) -> CompressError {
    CompressError::Failed {
        codec: Codec::Zstd,
        why: get_error_name(code),
    }
}

impl Zstd {
    pub(super) fn compress(
        &mut self,
        level: Option<i32>,
        pieces: &mut dyn Iterator<Item = &[u8]>,
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<Compressed, CompressError> {
        let context = self.context(level.unwrap_or(LEVEL))?;
        let start = out.len();
        out.resize(start.saturating_add(limit), 0);
        let mut dst = OutBuffer::around(&mut out[start..]);
        let mut result = Self::feed(context, pieces, &mut dst);
        let written = dst.pos();
        if result != Ok(Compressed::Smaller) {
            // The frame was left open.
            if let Err(code) = context.reset(ResetDirective::SessionOnly) {
                result = Err(failed(code));
            }
        }
        if result.is_err() {
            self.context = None;
        }
        out.truncate(start + written);
        result
    }

    fn context(&mut self, level: i32) -> Result<&mut CCtx<'static>, CompressError> {
        let (set, context) = match self.context.take() {
            Some(context) => self.context.insert(context),
            None => {
                let mut context = CCtx::try_create().ok_or(CompressError::Failed {
                    codec: Codec::Zstd,
                    why: "no memory for a context",
                })?;
                context
                    .set_parameter(CParameter::WindowLog(WINDOW_LOG))
                    .map_err(failed)?;
                context
                    .set_parameter(CParameter::CompressionLevel(level))
                    .map_err(failed)?;
                self.context.insert((level, context))
            }
        };
        if *set != level {
            context
                .set_parameter(CParameter::CompressionLevel(level))
                .map_err(failed)?;
            *set = level;
        }
        Ok(context)
    }

    fn feed(
        context: &mut CCtx<'static>,
        pieces: &mut dyn Iterator<Item = &[u8]>,
        dst: &mut OutBuffer<'_, [u8]>,
    ) -> Result<Compressed, CompressError> {
        let mut next = pieces.next();
        loop {
            let piece = next.unwrap_or_default();
            next = pieces.next();
            // The last piece is given together with the end: zstd sizes its tables by that.
            let is_last = next.is_none();
            let directive = if is_last { ZSTD_e_end } else { ZSTD_e_continue };
            let mut src = InBuffer::around(piece);
            loop {
                let before = (src.pos, dst.pos());
                let left = context
                    .compress_stream2(dst, &mut src, directive)
                    .map_err(failed)?;
                let done = if is_last {
                    left == 0
                } else {
                    src.pos == piece.len()
                };
                if done {
                    break;
                }
                if dst.pos() == dst.capacity() || before == (src.pos, dst.pos()) {
                    return Ok(Compressed::NotWorthIt);
                }
            }
            if is_last {
                return Ok(Compressed::Smaller);
            }
        }
    }
}

pub(super) fn decompress(body: &[u8], max_len: usize) -> Result<Vec<u8>, DecompressError> {
    let malformed = DecompressError::Malformed { codec: Codec::Zstd };
    let mut stream = zstd::stream::read::Decoder::with_buffer(body).map_err(|_| malformed)?;
    stream
        .window_log_max(READ_WINDOW_LOG)
        .map_err(|_| malformed)?;
    read_bounded(Codec::Zstd, stream, max_len)
}
