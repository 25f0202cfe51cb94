//! Messages cut out of a stream of bytes, however it is chunked.
//!
//! ```text
//! cap (1 byte: an index into CAPS) │ n │ n chunk lengths (1 byte each, used in turn) │ stream
//! ```
//! The same stream is split by a few lines that see all of it at once. Both must find the same
//! messages and the same fault, and the [`Deframer`] must not hold more than it may on the way.

use std::convert::Infallible;

use ringpost_codec::frame::{DeframeError, Deframer, FrameError};

const CAPS: [usize; 8] = [0, 4, 5, 100, 4096, 65_535, 4 << 20, 64 << 20];

/// What the deframer may hold beyond what came.
const SLACK: usize = 64 * 1024;

/// See the module's doc.
pub fn run(data: &[u8]) {
    let Some((&[cap, chunks], rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let cap = CAPS[usize::from(cap) % CAPS.len()];
    let (chunks, stream) = rest.split_at(usize::from(chunks).min(rest.len()));
    let (expected, fault) = split(stream, cap);

    let mut deframer = Deframer::new(cap);
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut left = stream;
    let mut received = 0;
    let mut chunks = chunks.iter().cycle();
    let found = loop {
        if left.is_empty() {
            break None;
        }
        let chunk = chunks.next().map_or(left.len(), |byte| chunk_len(*byte));
        let (chunk, rest) = left.split_at(chunk.min(left.len()));
        left = rest;
        received += chunk.len();
        let result = push(&mut deframer, chunk, &mut frames);
        assert!(deframer.memory() <= received + (received / 4).max(SLACK));
        assert!(deframer.buffered() <= received);
        if let Err(error) = result {
            assert_eq!(deframer.memory(), 0, "a broken stream holds nothing");
            let again = push(&mut deframer, &[0, 0, 0, 4, 1, 2, 3, 4], &mut frames);
            assert_eq!(again, Err(error), "a broken stream stays broken");
            break Some(error);
        }
    };
    assert_eq!(found, fault);
    assert_eq!(frames, expected);
}

/// 1 to 128 bytes, or up to 32 KiB.
fn chunk_len(byte: u8) -> usize {
    match byte {
        0..128 => usize::from(byte) + 1,
        _ => (usize::from(byte) - 127) * 256,
    }
}

fn push(
    deframer: &mut Deframer,
    bytes: &[u8],
    frames: &mut Vec<Vec<u8>>,
) -> Result<(), FrameError> {
    let result = deframer.push(bytes, |frame| {
        frames.push(frame.to_vec());
        Ok::<(), Infallible>(())
    });
    match result {
        Ok(()) => Ok(()),
        Err(DeframeError::Frame(error)) => Err(error),
        Err(DeframeError::Refused(never)) => match never {},
    }
}

/// The whole messages of a stream, and the fault that ends it.
fn split(mut stream: &[u8], cap: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut frames = Vec::new();
    while stream.len() >= 4 {
        let claimed = i32::from_be_bytes([stream[0], stream[1], stream[2], stream[3]]);
        let len = match usize::try_from(claimed) {
            Ok(len) if len > cap => return (frames, Some(FrameError::TooLarge { len, cap })),
            Ok(len) if len >= 4 => len,
            _ => return (frames, Some(FrameError::Short { len: claimed })),
        };
        if stream.len() - 4 < len {
            break;
        }
        frames.push(stream[4..4 + len].to_vec());
        stream = &stream[4 + len..];
    }
    (frames, None)
}
