//! Compressors: what they write is read by others, bounds hold, contexts can be used again.

use bytes::{Buf, Bytes};
use kafka_protocol::compression::{Decompressor, Gzip, Lz4, Snappy, Zstd};
use proptest::prelude::*;
use ringpost_codec::compress::*;

const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn plain(codec: Codec) -> Compression {
    Compression::new(codec, None).unwrap()
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[3]
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}

/// Bytes that compress well.
fn text(len: usize) -> Vec<u8> {
    let words =
        (0..).flat_map(|n: u32| format!("{{\"user\":{},\"ok\":true}},", n % 97).into_bytes());
    words.take(len).collect()
}

/// In pieces of `piece_len`.
fn compress(
    compressor: &mut Compressor,
    compression: Compression,
    body: &[u8],
    piece_len: usize,
    limit: usize,
) -> Option<Vec<u8>> {
    let mut out = b"before".to_vec();
    let result = compressor.compress(compression, &mut body.chunks(piece_len), &mut out, limit);
    assert!(out.starts_with(b"before"));
    match result.unwrap() {
        Compressed::Smaller => {
            assert!(out.len() - 6 <= limit);
            Some(out.split_off(6))
        }
        Compressed::NotWorthIt => {
            assert_eq!(out, b"before");
            None
        }
    }
}

fn their_decompress(codec: Codec, compressed: &[u8]) -> Vec<u8> {
    let mut compressed = Bytes::copy_from_slice(compressed);
    fn all(bytes: &mut impl Buf) -> Vec<u8> {
        bytes.copy_to_bytes(bytes.remaining()).to_vec()
    }
    match codec {
        Codec::None => Ok(compressed.to_vec()),
        Codec::Gzip => Gzip::decompress(&mut compressed, |bytes| Ok(all(bytes))),
        Codec::Snappy => Snappy::decompress(&mut compressed, |bytes| Ok(all(bytes))),
        Codec::Lz4 => Lz4::decompress(&mut compressed, |bytes| Ok(all(bytes))),
        Codec::Zstd => Zstd::decompress(&mut compressed, |bytes| Ok(all(bytes))),
    }
    .unwrap()
}

/// For every codec, sizes of 1 to 200,000 bytes, text and noise, in pieces of any length: our
/// reader and an independent one give the same bytes back, at most 1000 bytes larger.
#[test]
fn w7_any_size_is_read_back_by_us_and_by_others() {
    let sizes = [1, 100, 32_767, 32_768, 32_769, 65_536, 65_537, 200_000];
    for codec in CODECS {
        // One compressor for all, so that each use starts from what the one before left.
        let mut compressor = Compressor::new();
        for (len, body) in sizes
            .into_iter()
            .flat_map(|len| [(len, text(len)), (len, noise(len))])
        {
            for piece_len in [1000, 65_536, 1 << 20] {
                let compression = plain(codec);
                let limit = len + 1000;
                let out = compress(&mut compressor, compression, &body, piece_len, limit)
                    .unwrap_or_else(|| panic!("{codec}: {len} bytes grew by more than 1000"));
                assert_eq!(decompress(codec, &out, len).unwrap(), body, "{codec} {len}");
                assert_eq!(their_decompress(codec, &out), body, "{codec} {len}");
            }
        }
    }
}

/// Noise and single bytes are left as they are; an output as large as its limit is given, a limit
/// one byte less is "not worth it".
#[test]
fn w7_incompressible_and_tiny_bodies_are_not_worth_it_and_the_limit_is_exact() {
    for codec in CODECS {
        let mut compressor = Compressor::new();
        for body in [noise(200_000), noise(1), noise(100)] {
            let len = body.len();
            assert_eq!(
                compress(&mut compressor, plain(codec), &body, 4096, len),
                None,
                "{codec}"
            );
        }
        let body = text(100_000);
        let out = compress(&mut compressor, plain(codec), &body, 4096, body.len()).unwrap();
        assert!(out.len() < body.len() / 2, "{codec}: {}", out.len());
        let again = compress(&mut compressor, plain(codec), &body, 4096, out.len());
        assert_eq!(again.as_ref(), Some(&out), "{codec}");
        for limit in [out.len() - 1, out.len() / 2, 5, 0] {
            let short = compress(&mut compressor, plain(codec), &body, 4096, limit);
            assert_eq!(short, None, "{codec} {limit}");
        }
    }
}

#[test]
fn compressing_again_takes_no_memory() {
    for codec in CODECS {
        let mut compressor = Compressor::new();
        let body = text(150_000);
        for body in [&body, &noise(150_000), &body] {
            compress(&mut compressor, plain(codec), body, 4096, body.len());
        }
        let mut out = Vec::with_capacity(body.len());
        // What zstd's own allocator gives is not seen here.
        let taken = allocation_counter::measure(|| {
            let pieces = &mut body.chunks(4096);
            let result = compressor.compress(plain(codec), pieces, &mut out, body.len());
            assert_eq!(result, Ok(Compressed::Smaller));
        });
        assert_eq!(taken.count_total, 0, "{codec}");
    }
}

#[test]
fn levels_change_the_result_and_may_alternate() {
    let body = text(100_000);
    let mut compressor = Compressor::new();
    for (low, high) in [
        ("zstd:1", "zstd:19"),
        ("zstd:-50", "zstd:22"),
        ("gzip:1", "gzip:9"),
    ] {
        let (low, high): (Compression, Compression) = (low.parse().unwrap(), high.parse().unwrap());
        let first = compress(&mut compressor, low, &body, 9000, body.len()).unwrap();
        let best = compress(&mut compressor, high, &body, 9000, body.len()).unwrap();
        assert!(
            best.len() < first.len(),
            "{low} {high}: {} {}",
            first.len(),
            best.len()
        );
        assert_eq!(
            compress(&mut compressor, low, &body, 9000, body.len()),
            Some(first)
        );
        assert_eq!(decompress(high.codec(), &best, body.len()).unwrap(), body);
    }
}

#[test]
fn no_compression_and_no_bytes_are_never_worth_it() {
    let mut compressor = Compressor::new();
    for codec in CODECS {
        for body in [&b""[..], b"aaaaaaaa", b""] {
            let out = compress(&mut compressor, plain(codec), body, 3, 100);
            assert_eq!(out.is_some(), !body.is_empty(), "{codec}");
        }
    }
    assert_eq!(
        compress(&mut compressor, Compression::NONE, b"aaaa", 1, 100),
        None
    );
    assert_eq!(decompress(Codec::None, b"aaaa", 4).unwrap(), b"aaaa");
    let short = decompress(Codec::None, b"aaaa", 3);
    assert_eq!(short, Err(DecompressError::TooLong { max: 3 }));
}

#[test]
fn lz4_blocks_are_independent_as_javas_reader_demands() {
    let out = compress(
        &mut Compressor::new(),
        plain(Codec::Lz4),
        &text(200_000),
        999,
        200_000,
    )
    .unwrap();
    assert_eq!(out[..4], [0x04, 0x22, 0x4d, 0x18], "magic");
    assert_eq!(
        out[4], 0x60,
        "version 1, independent blocks, no checksums, no content size"
    );
    assert_eq!(out[5], 0x40, "blocks of 64 KiB");
    assert_eq!(out[6], 0x82, "header checksum");
}

#[test]
fn snappy_has_javas_framing() {
    let body = [24, 0, 0, 0, 1, 12, b's', b'd', b'f', b'd', b's', b'f', 0];
    let out = compress(&mut Compressor::new(), plain(Codec::Snappy), &body, 5, 100).unwrap();
    let golden = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x0f\x0d\x30\x18\0\0\0\x01\x0csdfdsf\0";
    assert_eq!(out, golden);
    // What librdkafka sends: raw, without framing.
    assert_eq!(decompress(Codec::Snappy, &golden[20..], 100).unwrap(), body);
}

#[test]
fn decompressing_is_bounded() {
    let zeros = vec![0; 4 << 20];
    for codec in CODECS {
        let bomb = compress(
            &mut Compressor::new(),
            plain(codec),
            &zeros,
            1 << 20,
            1 << 20,
        )
        .unwrap();
        for max in [0, 1, 100_000, zeros.len() - 1] {
            assert_eq!(
                decompress(codec, &bomb, max),
                Err(DecompressError::TooLong { max }),
                "{codec}"
            );
        }
        assert_eq!(
            decompress(codec, &bomb, zeros.len()).unwrap(),
            zeros,
            "{codec}"
        );
        assert_eq!(
            decompress(codec, &bomb[..bomb.len() / 2], zeros.len()),
            Err(DecompressError::Malformed { codec }),
            "{codec}"
        );
    }
}

#[test]
fn compressions_are_read_and_refused_from_text() {
    for text in [
        "none", "lz4", "snappy", "gzip", "gzip:6", "zstd", "zstd:3", "zstd:-7",
    ] {
        let compression: Compression = text.parse().unwrap();
        assert_eq!(compression.to_string(), text);
    }
    let refused = |text: &str| text.parse::<Compression>().unwrap_err();
    assert_eq!(refused("brotli"), CompressionError::UnknownCodec);
    assert_eq!(refused(""), CompressionError::UnknownCodec);
    assert_eq!(refused("zstd:"), CompressionError::LevelNotANumber);
    assert_eq!(
        refused("lz4:3"),
        CompressionError::NoLevels { codec: Codec::Lz4 }
    );
    assert_eq!(
        refused("gzip:10").to_string(),
        "gzip has no level 10; it has 1 to 9"
    );
    let zstd = |level| Compression::new(Codec::Zstd, Some(level));
    assert!(zstd(-131_072).is_ok() && zstd(22).is_ok());
    assert!(zstd(-131_073).is_err() && zstd(23).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any body, cut into any pieces, is what our reader and an independent one get out of it, for
    /// every codec.
    #[test]
    fn w7_any_body_is_read_back(
        body in proptest::collection::vec(0..20_u8, 0..5000), piece_len in 1..6000_usize,
    ) {
        for codec in CODECS {
            let out = compress(&mut Compressor::new(), plain(codec), &body, piece_len, 10_000);
            prop_assert_eq!(out.is_some(), !body.is_empty());
            let Some(out) = out else { continue };
            prop_assert_eq!(&decompress(codec, &out, body.len()).unwrap(), &body);
            prop_assert_eq!(&their_decompress(codec, &out), &body);
        }
    }

    #[test]
    fn any_bytes_decompress_to_an_error_or_within_the_bound(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
        magic in 0..5_usize,
    ) {
        let magics: [&[u8]; 5] = [
            b"", b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01", &[0x1f, 0x8b, 8, 0],
            &[4, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82], &[0x28, 0xb5, 0x2f, 0xfd],
        ];
        bytes.splice(0..0, magics[magic].iter().copied());
        for codec in Codec::ALL {
            if let Ok(body) = decompress(codec, &bytes, 500) {
                prop_assert!(body.len() <= 500);
            }
        }
    }
}
