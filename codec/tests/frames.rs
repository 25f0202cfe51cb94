//! Cutting a stream into messages: any chunking, and hostile lengths.

use std::convert::Infallible;

use proptest::prelude::*;
use ringpost_codec::frame::{DeframeError, Deframer, FrameError};

const CAP: usize = 100_000;
const SLACK: usize = 64 * 1024;

fn push(deframer: &mut Deframer, bytes: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut frames = Vec::new();
    let result = deframer.push(bytes, |frame| {
        frames.push(frame.to_vec());
        Ok::<(), Infallible>(())
    });
    match result {
        Ok(()) => Ok(frames),
        Err(DeframeError::Frame(error)) => Err(error),
        Err(DeframeError::Refused(never)) => match never {},
    }
}

fn framed(frame: &[u8]) -> Vec<u8> {
    let len = i32::try_from(frame.len()).unwrap();
    [&len.to_be_bytes(), frame].concat()
}

/// Lengths of -1, MIN, 0, 3, cap + 1 and MAX are an error at their fourth byte, without memory, and
/// nothing is read from the stream any more.
#[test]
fn h1_impossible_lengths_are_refused_at_their_fourth_byte() {
    let too_large = |len| FrameError::TooLarge { len, cap: CAP };
    let max = i32::MAX;
    let hostile = [
        (-1, FrameError::Short { len: -1 }),
        (i32::MIN, FrameError::Short { len: i32::MIN }),
        (0, FrameError::Short { len: 0 }),
        (3, FrameError::Short { len: 3 }),
        (100_001, too_large(100_001)),
        (max, too_large(usize::try_from(max).unwrap())),
    ];
    for (len, error) in hostile {
        let bytes = len.to_be_bytes();
        for split in 0..4 {
            let mut deframer = Deframer::new(CAP);
            assert_eq!(push(&mut deframer, &bytes[..split]), Ok(vec![]));
            assert_eq!(
                push(&mut deframer, &bytes[split..]),
                Err(error),
                "{len} at {split}"
            );
            assert_eq!(deframer.memory(), 0);
            // The stream has no boundaries any more: nothing else is read from it.
            assert_eq!(push(&mut deframer, &framed(b"good")), Err(error));
        }
        // Behind a good message in the same bytes.
        let mut deframer = Deframer::new(CAP);
        let mut seen = 0;
        let result = deframer.push(&[framed(b"good"), bytes.to_vec()].concat(), |_| {
            seen += 1;
            Ok::<(), Infallible>(())
        });
        assert_eq!((seen, result), (1, Err(DeframeError::Frame(error))));
    }
}

/// A message that claims 1 GiB holds at most what was received and a quarter, or 64 KiB, more.
#[test]
fn h1_memory_follows_the_bytes_received_not_the_length() {
    let cap = 1 << 30;
    let mut deframer = Deframer::new(cap);
    push(&mut deframer, &i32::try_from(cap).unwrap().to_be_bytes()).unwrap();
    let mut received = 4;
    while received < 2 << 20 {
        assert!(deframer.memory() <= received + (received / 4).max(SLACK));
        push(&mut deframer, &[0; 1460]).unwrap();
        received += 1460;
        assert_eq!(deframer.buffered(), received);
    }
}

#[test]
fn memory_of_a_large_message_is_given_back() {
    let mut deframer = Deframer::new(1 << 20);
    let bytes = framed(&vec![1; 1 << 20]);
    let (head, tail) = bytes.split_at(1000);
    assert_eq!(push(&mut deframer, head).unwrap().len(), 0);
    assert_eq!(push(&mut deframer, tail).unwrap().len(), 1);
    assert_eq!((deframer.memory(), deframer.buffered()), (0, 0));
}

#[test]
fn a_whole_message_is_lent_not_copied() {
    let mut deframer = Deframer::new(CAP);
    let bytes = [framed(&[1; 500]), framed(&[2; 4])].concat();
    let range = bytes.as_ptr_range();
    let result = deframer.push(&bytes, |frame| {
        assert!(range.contains(&frame.as_ptr()));
        Ok::<(), Infallible>(())
    });
    assert_eq!((result, deframer.memory()), (Ok(()), 0));
}

#[test]
fn a_refusal_is_passed_on() {
    let mut deframer = Deframer::new(CAP);
    let bytes = [framed(b"first"), framed(b"second")].concat();
    let mut seen = Vec::new();
    let result = deframer.push(&bytes, |frame| {
        seen.push(frame.to_vec());
        Err("no")
    });
    assert_eq!(result, Err(DeframeError::Refused("no")));
    assert_eq!(seen, [b"first"]);
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_messages(
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 4..300), 0..20),
        chunks in proptest::collection::vec(1..400_usize, 1..50),
    ) {
        let stream: Vec<u8> = frames.iter().flat_map(|frame| framed(frame)).collect();
        let mut deframer = Deframer::new(300);
        let mut got = Vec::new();
        let mut left = &stream[..];
        for len in chunks.iter().cycle() {
            if left.is_empty() {
                break;
            }
            let (chunk, rest) = left.split_at((*len).min(left.len()));
            got.extend(push(&mut deframer, chunk).unwrap());
            left = rest;
        }
        prop_assert_eq!(got, frames);
        prop_assert_eq!(deframer.buffered(), 0);
    }

    /// Any bytes in any chunks: no panic, and memory within what was received and 64 KiB.
    #[test]
    fn h1_any_bytes(bytes in proptest::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..200), chunk in 1..50_usize) {
        let mut deframer = Deframer::new(1000);
        for chunk in bytes.chunks(chunk) {
            let _ = push(&mut deframer, chunk);
        }
        prop_assert!(deframer.memory() <= bytes.len() + SLACK);
    }
}
