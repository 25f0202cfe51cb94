//! Variable-length integers against Kafka's rules.

use proptest::prelude::*;
use ringpost_codec::error::DecodeError;
use ringpost_codec::primitives::*;
use ringpost_codec::reader::Reader;

/// 0, the extremes, and 2^k − 1, 2^k, 2^k + 1 for each k, of both signs.
fn corners() -> impl Iterator<Item = i64> {
    let powers = (0..63).map(|k| 1_i64 << k);
    let near = powers.flat_map(|power| [power - 1, power, power + 1]);
    near.flat_map(|value| [value, -value])
        .chain([0, i64::MIN, i64::MAX])
}

/// The plainest way to write one, after `ByteUtils.writeUnsignedVarlong`.
fn reference(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

/// 0, −1, 1, −2, … as 0, 1, 2, 3, …
fn zigzag(value: i64) -> u64 {
    let twice = u64::try_from(i128::from(value).abs() * 2 - i128::from(value < 0));
    twice.unwrap()
}

fn check_varlong(value: i64) {
    let mut ours = [0; VARLONG_MAX];
    let len = put_varlong(&mut ours, value);
    assert_eq!(len, varlong_len(value), "{value}");

    assert_eq!(ours[..len], reference(zigzag(value)), "{value}");

    let mut reader = Reader::new(&ours[..len]);
    assert_eq!(reader.varlong("value"), Ok(value));
    assert_eq!(reader.remaining(), 0);
}

fn check_varint(value: i32) {
    let mut ours = [0; VARINT_MAX];
    let len = put_varint(&mut ours, value);
    assert_eq!(len, varint_len(value), "{value}");

    assert_eq!(ours[..len], reference(zigzag(i64::from(value))), "{value}");

    let mut reader = Reader::new(&ours[..len]);
    assert_eq!(reader.varint("value"), Ok(value));
    assert_eq!(reader.remaining(), 0);
}

fn check_uvarint(value: u32) {
    let mut ours = [0; VARINT_MAX];
    let len = put_uvarint(&mut ours, value);
    assert_eq!(len, uvarint_len(value), "{value}");

    assert_eq!(ours[..len], reference(u64::from(value)), "{value}");
    assert_eq!(Reader::new(&ours[..len]).uvarint("value"), Ok(value));
}

/// At every power of two and beside it, MIN and MAX: the bytes of the plainest writer, the length
/// foretold, read back.
#[test]
fn w4_varint_boundaries() {
    for value in corners() {
        check_varlong(value);
        if let Ok(value) = i32::try_from(value) {
            check_varint(value);
        }
        if let Ok(value) = u32::try_from(value) {
            check_uvarint(value);
        }
    }
    check_varint(i32::MIN);
    check_varint(i32::MAX);
    check_uvarint(u32::MAX);
    assert_eq!(uvarlong_len(u64::MAX), 10);
    for bits in 0..64_u32 {
        let expected = usize::try_from(bits / 7 + 1).unwrap();
        assert_eq!(uvarlong_len(1 << bits), expected, "2^{bits}");
    }
}

/// The vectors of Kafka's ByteUtilsTest, byte for byte.
#[test]
fn w4_java_byteutils_vectors() {
    // From Kafka's ByteUtilsTest.
    let vectors: [(i32, &[u8]); 14] = [
        (0, &[0x00]),
        (-1, &[0x01]),
        (1, &[0x02]),
        (63, &[0x7e]),
        (-64, &[0x7f]),
        (64, &[0x80, 0x01]),
        (-65, &[0x81, 0x01]),
        (8191, &[0xfe, 0x7f]),
        (-8192, &[0xff, 0x7f]),
        (8192, &[0x80, 0x80, 0x01]),
        (-1_048_576, &[0xff, 0xff, 0x7f]),
        (134_217_727, &[0xfe, 0xff, 0xff, 0x7f]),
        (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
        (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
    ];
    for (value, bytes) in vectors {
        let mut ours = [0; VARINT_MAX];
        let len = put_varint(&mut ours, value);
        assert_eq!(&ours[..len], bytes, "{value}");
    }
}

/// Encodings longer or wider than they may be are a varint error, cut ones a truncation.
#[test]
fn w4_over_long_and_over_wide_encodings_are_refused() {
    let malformed = Err(DecodeError::Varint { what: "value" });
    let bad: [&[u8]; 6] = [
        &[0x80, 0x00],
        &[0xff, 0x80, 0x00],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
        &[0xff, 0xff, 0xff, 0xff, 0x10],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        &[0x80; 12],
    ];
    for bytes in bad {
        assert_eq!(Reader::new(bytes).uvarint("value"), malformed, "{bytes:?}");
    }
    let mut wide = [0xff; 10];
    wide[9] = 2;
    assert_eq!(
        Reader::new(&wide).uvarlong("value"),
        Err(DecodeError::Varint { what: "value" })
    );
    wide[9] = 1;
    assert_eq!(Reader::new(&wide).uvarlong("value"), Ok(u64::MAX));
    assert!(matches!(
        Reader::new(&[0x80]).uvarint("value"),
        Err(DecodeError::Truncated { .. })
    ));
}

proptest! {
    /// Any value: the bytes of the plainest writer, read back.
    #[test]
    fn w4_any_value(long: i64, int: i32, unsigned: u32) {
        check_varlong(long);
        check_varint(int);
        check_uvarint(unsigned);
    }

    /// Any bytes that are read as a varint are exactly what writing that value gives.
    #[test]
    fn h4_any_bytes_read_as_what_writes_them(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
        let mut reader = Reader::new(&bytes);
        if let Ok(value) = reader.uvarlong("value") {
            let mut again = [0; VARLONG_MAX];
            let len = put_uvarlong(&mut again, value);
            prop_assert_eq!(&again[..len], &bytes[..bytes.len() - reader.remaining()]);
        }
    }
}
