//! Variable-length integers: Kafka's unsigned varint, and the zig-zag varint and varlong.
//!
//! Seven bits a byte, the lowest first, the top bit set on all but the last. The signed forms map
//! 0, −1, 1, −2, … to 0, 1, 2, 3, … first, so that small numbers of either sign are short.
//!
//! Everything here writes at the front of a slice and says how many bytes it took. The slice must
//! be long enough ([`varint_len`] and its siblings say how long that is); a slice that is not is a
//! bug of the caller and panics. Reading is in [`Reader`](crate::reader::Reader).
//!
//! ```
//! use ringpost_codec::primitives::{put_varint, varint_len};
//! let mut dst = [0; 5];
//! assert_eq!(put_varint(&mut dst, -65), 2);
//! assert_eq!(dst[..2], [0x81, 0x01]);
//! assert_eq!(varint_len(-65), 2);
//! ```

/// The longest varint, in bytes.
pub const VARINT_MAX: usize = 5;
/// The longest varlong, in bytes.
pub const VARLONG_MAX: usize = 10;

/// Zig-zag: signed to unsigned, small to small.
#[inline]
#[must_use]
pub const fn zigzag32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)).cast_unsigned()
}

/// Zig-zag: signed to unsigned, small to small.
#[inline]
#[must_use]
pub const fn zigzag64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The inverse of [`zigzag32`].
#[inline]
#[must_use]
pub const fn unzigzag32(value: u32) -> i32 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// The inverse of [`zigzag64`].
#[inline]
#[must_use]
pub const fn unzigzag64(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// How many bytes [`put_uvarint`] takes: 1 to 5.
#[inline]
#[must_use]
pub const fn uvarint_len(value: u32) -> usize {
    uvarlong_len(value as u64)
}

/// How many bytes [`put_uvarlong`] takes: 1 to 10.
#[inline]
#[must_use]
pub const fn uvarlong_len(value: u64) -> usize {
    // Nearly every number in a record takes one or two bytes.
    if value < 1 << 14 {
        return 1 + (value >= 1 << 7) as usize;
    }
    // ceil(bits / 7) without a division: right for every bit length from 1 to 64 (tested).
    let bits = 64 - (value | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

/// How many bytes [`put_varint`] takes: 1 to 5.
#[inline]
#[must_use]
pub const fn varint_len(value: i32) -> usize {
    uvarint_len(zigzag32(value))
}

/// How many bytes [`put_varlong`] takes: 1 to 10.
#[inline]
#[must_use]
pub const fn varlong_len(value: i64) -> usize {
    uvarlong_len(zigzag64(value))
}

/// Writes an unsigned varint.
///
/// # Panics
/// When `dst` is shorter than [`uvarint_len`].
#[inline]
pub fn put_uvarint(dst: &mut [u8], value: u32) -> usize {
    put_uvarlong(dst, u64::from(value))
}

/// Writes an unsigned varlong.
///
/// # Panics
/// When `dst` is shorter than [`uvarlong_len`].
#[inline(always)]
pub fn put_uvarlong(dst: &mut [u8], value: u64) -> usize {
    // Nearly every number in a record takes one or two bytes.
    if value < 1 << 7 {
        dst[0] = low7(value);
        1
    } else if value < 1 << 14 {
        dst[0] = low7(value) | 0x80;
        dst[1] = low7(value >> 7);
        2
    } else {
        put_long_uvarlong(dst, value)
    }
}

#[inline(never)]
fn put_long_uvarlong(dst: &mut [u8], mut value: u64) -> usize {
    let mut at = 0;
    while value >= 1 << 7 {
        dst[at] = low7(value) | 0x80;
        value >>= 7;
        at += 1;
    }
    dst[at] = low7(value);
    at + 1
}

/// Writes a zig-zag varint.
///
/// # Panics
/// When `dst` is shorter than [`varint_len`].
#[inline]
pub fn put_varint(dst: &mut [u8], value: i32) -> usize {
    put_uvarint(dst, zigzag32(value))
}

/// Writes a zig-zag varlong.
///
/// # Panics
/// When `dst` is shorter than [`varlong_len`].
#[inline]
pub fn put_varlong(dst: &mut [u8], value: i64) -> usize {
    put_uvarlong(dst, zigzag64(value))
}

#[inline(always)]
const fn low7(value: u64) -> u8 {
    (value & 0x7f) as u8
}
