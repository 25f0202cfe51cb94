//! Compression of batch bodies.
//!
//! A batch's records are compressed together, in the formats that Kafka's brokers and consumers
//! read:
//!
//! | codec | format | level |
//! |---|---|---|
//! | gzip | RFC 1952 | 1 to 9, else 6 |
//! | snappy | the framing of `snappy-java`, 32 KiB blocks | none |
//! | lz4 | LZ4 frame, **independent** blocks of 64 KiB (Kafka's Java reader refuses dependent ones) | none |
//! | zstd | RFC 8878, window of at most 1 MiB | −131072 to 22, else 3; needs Produce ≥ v7 |
//!
//! Each is a cargo feature. Asking for one that was not compiled in is an error when the
//! [`Compression`] is made, so a [`Compressor`] is never asked for one.
//!
//! A [`Compressor`] belongs to one shard (or thread) and keeps its contexts, so that compressing
//! does not allocate after the first batch. It reads the body in pieces and stops as soon as the
//! result would pass the limit: a batch that does not shrink is sent as it is.
//!
//! [`decompress`] is for what we (or a bench's clients) compressed ourselves; a producer never
//! decompresses what a broker sent. It is bounded all the same.
//!
//! ```
//! # #[cfg(feature = "lz4")] {
//! use ringpost_codec::compress::{decompress, Codec, Compressed, Compression, Compressor};
//! let body = [b"hello, ".as_slice(), &[b'x'; 500]];
//! let lz4: Compression = "lz4".parse()?;
//!
//! let mut out = Vec::new();
//! let mut compressor = Compressor::new();
//! let result = compressor.compress(lz4, &mut body.into_iter(), &mut out, 507)?;
//! assert_eq!(result, Compressed::Smaller);
//! assert_eq!(decompress(Codec::Lz4, &out, 507)?, body.concat());
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "snappy")]
mod snappy;
#[cfg(feature = "zstd")]
mod zstd;

/// How a batch's records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Its number in a batch's attributes.
    #[must_use]
    pub const fn id(self) -> i8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The codec of that number.
    #[must_use]
    pub const fn from_id(id: i8) -> Option<Self> {
        Some(match id {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return None,
        })
    }

    /// Its name, as Kafka's `compression.type` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Whether it was compiled in.
    #[must_use]
    pub const fn is_compiled_in(self) -> bool {
        match self {
            Self::None => true,
            Self::Gzip => cfg!(feature = "gzip"),
            Self::Snappy => cfg!(feature = "snappy"),
            Self::Lz4 => cfg!(feature = "lz4"),
            Self::Zstd => cfg!(feature = "zstd"),
        }
    }

    /// The levels it has, if it has any.
    const fn levels(self) -> Option<(i32, i32)> {
        match self {
            Self::Gzip => Some((1, 9)),
            Self::Zstd => Some((-131_072, 22)),
            Self::None | Self::Snappy | Self::Lz4 => None,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A codec and a level that it has. Written `none`, `lz4`, `zstd`, `zstd:3`, `gzip:6`, `snappy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Compression {
    codec: Codec,
    level: Option<i32>,
}

/// Why a [`Compression`] cannot be had. The configuration is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// No codec of that name.
    #[error("unknown compression; there are none, gzip, snappy, lz4 and zstd, e.g. `zstd:3`")]
    UnknownCodec,
    /// The cargo feature is off.
    #[error("this build has no {codec}: enable the cargo feature `{codec}`")]
    NotCompiledIn {
        /// The codec.
        codec: Codec,
    },
    /// The level is not a number.
    #[error("the compression level is not a number")]
    LevelNotANumber,
    /// The codec has no levels.
    #[error("{codec} has no levels here; leave the level out")]
    NoLevels {
        /// The codec.
        codec: Codec,
    },
    /// The codec does not have this level.
    #[error("{codec} has no level {level}; it has {min} to {max}")]
    NoSuchLevel {
        /// The codec.
        codec: Codec,
        /// The level asked for.
        level: i32,
        /// The lowest there is.
        min: i32,
        /// The highest there is.
        max: i32,
    },
}

impl Compression {
    /// No compression.
    pub const NONE: Self = Self {
        codec: Codec::None,
        level: None,
    };

    /// A codec, and a level or the codec's default.
    pub const fn new(codec: Codec, level: Option<i32>) -> Result<Self, CompressionError> {
        if !codec.is_compiled_in() {
            return Err(CompressionError::NotCompiledIn { codec });
        }
        match (level, codec.levels()) {
            (Some(_), None) => Err(CompressionError::NoLevels { codec }),
            (Some(level), Some((min, max))) if level < min || level > max => {
                Err(CompressionError::NoSuchLevel {
                    codec,
                    level,
                    min,
                    max,
                })
            }
            _ => Ok(Self { codec, level }),
        }
    }

    /// The codec.
    #[must_use]
    pub const fn codec(self) -> Codec {
        self.codec
    }

    /// The level; null for the codec's default.
    #[must_use]
    pub const fn level(self) -> Option<i32> {
        self.level
    }
}

impl FromStr for Compression {
    type Err = CompressionError;

    fn from_str(text: &str) -> Result<Self, CompressionError> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let codec = Codec::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or(CompressionError::UnknownCodec)?;
        let level = level
            .map(|level| level.parse().map_err(|_| CompressionError::LevelNotANumber))
            .transpose()?;
        Self::new(codec, level)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            None => self.codec.fmt(f),
            Some(level) => write!(f, "{}:{level}", self.codec),
        }
    }
}

/// What came of compressing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Compressed {
    /// The result was appended, and is not longer than the limit.
    Smaller,
    /// The result would pass the limit; nothing was appended. Send the body as it is.
    NotWorthIt,
}

/// Why compressing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompressError {
    /// The codec's library said no: a fault in it, or in its use here. Send the body as it is.
    #[error("{codec} failed to compress: {why}")]
    Failed {
        /// The codec.
        codec: Codec,
        /// What the library said.
        why: &'static str,
    },
}

/// Compresses batch bodies, and keeps what it needs for that.
#[derive(Debug, Default)]
pub struct Compressor {
    #[cfg(feature = "gzip")]
    gzip: gzip::Gzip,
    #[cfg(feature = "snappy")]
    snappy: snappy::Snappy,
    #[cfg(feature = "lz4")]
    lz4: lz4::Lz4,
    #[cfg(feature = "zstd")]
    zstd: zstd::Zstd,
}

impl Compressor {
    /// A compressor without contexts yet: each codec's is made when it is first used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the compressed form of a body that comes in pieces to `out`, if it takes at most
    /// `limit` bytes; else leaves `out` as it was. With `Codec::None`, and of an empty body, that is
    /// always so.
    pub fn compress(
        &mut self,
        compression: Compression,
        pieces: &mut dyn Iterator<Item = &[u8]>,
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<Compressed, CompressError> {
        let start = out.len();
        let level = compression.level;
        // The codecs get a first piece that is not empty: an encoder of lz4_flex that is used again
        // does not write the beginning of an empty frame.
        let mut pieces = pieces.filter(|piece| !piece.is_empty()).peekable();
        if pieces.peek().is_none() {
            return Ok(Compressed::NotWorthIt);
        }
        let pieces: &mut dyn Iterator<Item = &[u8]> = &mut pieces;
        let result = match compression.codec {
            #[cfg(feature = "gzip")]
            Codec::Gzip => self.gzip.compress(level, pieces, out, limit),
            #[cfg(feature = "snappy")]
            Codec::Snappy => self.snappy.compress(pieces, out, limit),
            #[cfg(feature = "lz4")]
            Codec::Lz4 => self.lz4.compress(pieces, out, limit),
            #[cfg(feature = "zstd")]
            Codec::Zstd => self.zstd.compress(level, pieces, out, limit),
            // Not compiled in: `Compression::new` did not let it through.
            _ => {
                let _ = (level, pieces, limit);
                Ok(Compressed::NotWorthIt)
            }
        };
        if result != Ok(Compressed::Smaller) {
            out.truncate(start);
        }
        result
    }
}

/// Why decompressing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// The cargo feature is off.
    #[error("this build has no {codec}: enable the cargo feature `{codec}`")]
    NotCompiledIn {
        /// The codec.
        codec: Codec,
    },
    /// The result would be longer than the bound.
    #[error("the decompressed body is longer than the {max} bytes that are accepted")]
    TooLong {
        /// The bound.
        max: usize,
    },
    /// The bytes are not in the codec's format.
    #[error("the body is not what {codec} makes")]
    Malformed {
        /// The codec.
        codec: Codec,
    },
}

/// Decompresses a body into at most `max_len` bytes. Memory grows with what really comes out.
pub fn decompress(codec: Codec, body: &[u8], max_len: usize) -> Result<Vec<u8>, DecompressError> {
    match codec {
        Codec::None if body.len() > max_len => Err(DecompressError::TooLong { max: max_len }),
        Codec::None => Ok(body.to_vec()),
        #[cfg(feature = "gzip")]
        Codec::Gzip => gzip::decompress(body, max_len),
        #[cfg(feature = "snappy")]
        Codec::Snappy => snappy::decompress(body, max_len),
        #[cfg(feature = "lz4")]
        Codec::Lz4 => lz4::decompress(body, max_len),
        #[cfg(feature = "zstd")]
        Codec::Zstd => zstd::decompress(body, max_len),
        #[cfg(not(all(
            feature = "gzip",
            feature = "snappy",
            feature = "lz4",
            feature = "zstd"
        )))]
        codec => Err(DecompressError::NotCompiledIn { codec }),
    }
}

/// Reads a decompressing stream to its end, or to one byte more than is accepted.
#[cfg(any(feature = "gzip", feature = "lz4", feature = "zstd"))]
fn read_bounded(
    codec: Codec,
    stream: impl std::io::Read,
    max_len: usize,
) -> Result<Vec<u8>, DecompressError> {
    use std::io::Read as _;

    let mut out = Vec::new();
    let bound = u64::try_from(max_len).unwrap_or(u64::MAX).saturating_add(1);
    stream
        .take(bound)
        .read_to_end(&mut out)
        .map_err(|_| DecompressError::Malformed { codec })?;
    if out.len() > max_len {
        return Err(DecompressError::TooLong { max: max_len });
    }
    Ok(out)
}
