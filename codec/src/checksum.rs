//! CRC-32C, computed once over a body and combined with any header.
//!
//! A record batch's CRC covers its header from the attributes on and its body. The header is
//! written for each attempt (the producer epoch and the sequence may change), the body is fixed
//! once. So the body's share is kept as a [`BodyDigest`], and [`BodyDigest::after`] puts another
//! header in front of it without reading the body again.
//!
//! How: a CRC is a remainder of polynomials over GF(2). Appending `n` bytes multiplies what came
//! before by x^(8n), so crc(A‖B) = crc(A)·x^(8·len B) + crc(B), modulo the polynomial. The powers
//! come from a table with one entry for each hexadecimal digit of the length, so a body below
//! 1 MiB costs at most five multiplications of 32 steps. (`crc-fast` can combine as well, but
//! squares its matrices anew each time, which takes longer than reading the body would.)
//!
//! With the feature `std` the bytes are read by `crc-fast`, which uses the CPU's carry-less
//! multiplication. Without it (the core's own build, small targets) a table of 4 KiB does; that is
//! right, but slow, and never what a producer runs with.
//!
//! ```
//! use ringpost_codec::checksum::{crc32c, BodyDigest};
//! let mut body = BodyDigest::new();
//! body.update(b"45");
//! body.update(b"6789");
//! assert_eq!(body.after(crc32c(b"123")), crc32c(b"123456789"));
//! assert_eq!(crc32c(b"123456789"), 0xe306_9283);
//! ```

/// The CRC-32C (Castagnoli) of some bytes.
#[inline]
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    #[cfg(feature = "std")]
    return crc_fast::crc32_iscsi(bytes);
    #[cfg(not(feature = "std"))]
    return table::extend(0, bytes);
}

/// The CRC-32C of bytes whose own is `crc`, followed by `bytes`.
fn extend(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(feature = "std")]
    {
        // The register is the CRC before its last inversion.
        let register = u64::from(!crc);
        let mut digest =
            crc_fast::Digest::new_with_init_state(crc_fast::CrcAlgorithm::Crc32Iscsi, register);
        digest.update(bytes);
        low32(digest.finalize())
    }
    #[cfg(not(feature = "std"))]
    return table::extend(crc, bytes);
}

/// The CRC-32C of a body that comes in pieces, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BodyDigest {
    /// The CRC of the bytes so far.
    pub crc: u32,
    /// How many there were.
    pub len: usize,
}

impl BodyDigest {
    /// Of no bytes.
    #[inline]
    #[must_use]
    pub const fn new() -> Self {
        Self { crc: 0, len: 0 }
    }

    /// Of these bytes.
    #[inline]
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            crc: crc32c(bytes),
            len: bytes.len(),
        }
    }

    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.crc = if self.len == 0 {
            crc32c(bytes)
        } else {
            extend(self.crc, bytes)
        };
        self.len += bytes.len();
    }

    /// The CRC of bytes whose own is `crc`, followed by these.
    #[must_use]
    pub fn after(&self, crc: u32) -> u32 {
        let mut shifted = crc;
        let mut len = self.len;
        let mut digit = 0;
        while len != 0 && shifted != 0 {
            if len & 0xf != 0 {
                shifted = multiply(shifted, POWERS[digit][len & 0xf]);
            }
            len >>= 4;
            digit += 1;
        }
        shifted ^ self.crc
    }
}

/// The polynomial, lowest power in the highest bit (as CRC-32C reflects).
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// One, in that order of bits.
const ONE: u32 = 1 << 31;

/// The product of two polynomials modulo [`POLYNOMIAL`]. Without branches on the operands' bits:
/// they are as good as random.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        let has_power = ((a << bit).cast_signed() >> 31).cast_unsigned();
        product ^= b & has_power;
        // Times x.
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
        bit += 1;
    }
    product
}

/// How many hexadecimal digits a length has.
const DIGITS: usize = (usize::BITS / 4) as usize;

/// `POWERS[k][d]` is x^(8·d·16^k).
static POWERS: [[u32; 16]; DIGITS] = powers();

const fn powers() -> [[u32; 16]; DIGITS] {
    let mut powers = [[ONE; 16]; DIGITS];
    // x^8: one byte.
    let mut step = ONE >> 8;
    let mut digit = 0;
    while digit < DIGITS {
        let mut times = 1;
        while times < 16 {
            powers[digit][times] = multiply(powers[digit][times - 1], step);
            times += 1;
        }
        step = multiply(powers[digit][15], step);
        digit += 1;
    }
    powers
}

#[cfg(feature = "std")]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a 32-bit CRC in a 64-bit register"
)]
const fn low32(crc: u64) -> u32 {
    crc as u32
}

/// Four bytes at a time, by table.
#[cfg(any(not(feature = "std"), test))]
mod table {
    /// `TABLES[k][byte]`: what `byte` becomes with `k` zero bytes behind it.
    static TABLES: [[u32; 256]; 4] = tables();

    const fn tables() -> [[u32; 256]; 4] {
        let mut tables = [[0; 256]; 4];
        let mut byte = 0_u32;
        while byte < 256 {
            let mut crc = byte;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (super::POLYNOMIAL & (crc & 1).wrapping_neg());
                bit += 1;
            }
            tables[0][byte as usize] = crc;
            byte += 1;
        }
        let mut zeros = 1;
        while zeros < 4 {
            let mut byte = 0;
            while byte < 256 {
                let crc = tables[zeros - 1][byte];
                tables[zeros][byte] = (crc >> 8) ^ tables[0][(crc & 0xff) as usize];
                byte += 1;
            }
            zeros += 1;
        }
        tables
    }

    pub(super) fn extend(crc: u32, bytes: &[u8]) -> u32 {
        let mut register = !crc;
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            let [r3, r2, r1, r0] = register.to_be_bytes();
            register = TABLES[3][usize::from(r0 ^ word[0])]
                ^ TABLES[2][usize::from(r1 ^ word[1])]
                ^ TABLES[1][usize::from(r2 ^ word[2])]
                ^ TABLES[0][usize::from(r3 ^ word[3])];
        }
        for byte in rest {
            let [_, _, _, low] = register.to_be_bytes();
            register = (register >> 8) ^ TABLES[0][usize::from(low ^ byte)];
        }
        !register
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::{crc32c, extend, table};

    #[test]
    fn the_table_agrees_with_the_fast_one() {
        let bytes: alloc::vec::Vec<u8> = (0..=255).cycle().take(1000).collect();
        for len in (0..40).chain([255, 256, 999, 1000]) {
            assert_eq!(
                table::extend(0, &bytes[..len]),
                crc32c(&bytes[..len]),
                "{len}"
            );
            assert_eq!(
                table::extend(77, &bytes[..len]),
                extend(77, &bytes[..len]),
                "{len}"
            );
        }
    }
}
