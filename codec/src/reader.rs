//! Checked reading of what the network sent.
//!
//! A [`Reader`] walks over borrowed bytes. It never allocates and never panics: each method checks
//! that its bytes are there and names the field in its error. Counts are checked against the bytes
//! that follow ([`Reader::array_len`]), so that a hostile count cannot take memory.
//!
//! Kafka writes strings, byte fields and arrays in two [`Form`]s. Which one a message uses follows
//! from its version, so the form is an argument and a decoder is written once for both.
//!
//! ```
//! use ringpost_codec::reader::{Form, Reader};
//! let mut reader = Reader::new(&[0, 2, b'h', b'i', 3, b'h', b'i', 7]);
//! assert_eq!(reader.string(Form::Classic, "name")?, "hi");
//! assert_eq!(reader.string(Form::Compact, "name")?, "hi");
//! assert!(reader.finish("message").is_err()); // one byte is left
//! # Ok::<(), ringpost_codec::error::DecodeError>(())
//! ```

use crate::error::DecodeError;
use crate::primitives::{unzigzag32, unzigzag64};

/// The two ways in which Kafka writes strings, byte fields and arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Fixed-size lengths (i16 or i32, −1 for null), no tagged fields.
    Classic,
    /// Unsigned varint of length + 1 (0 for null), tagged fields after each structure: the
    /// "flexible versions" of KIP-482.
    Compact,
}

/// A cursor over received bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    left: &'a [u8],
}

macro_rules! fixed {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $name(&mut self, what: &'static str) -> Result<$type, DecodeError> {
            Ok(<$type>::from_be_bytes(self.take_array(what)?))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A reader at the front of `bytes`.
    #[inline]
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    /// How many bytes are left.
    #[inline]
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.left.len()
    }

    /// The bytes that are left, without taking them.
    #[inline]
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.left
    }

    /// Refuses bytes that are left over.
    ///
    /// For our own formats and for requests. Responses are not finished this way: clients ignore
    /// what a newer or unusual broker puts after the fields they know.
    pub fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        match self.left.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { what, left }),
        }
    }

    /// The next `len` bytes.
    #[inline]
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        match self.left.split_at_checked(len) {
            Some((taken, left)) => {
                self.left = left;
                Ok(taken)
            }
            None => Err(DecodeError::Truncated {
                what,
                needed: len,
                left: self.left.len(),
            }),
        }
    }

    /// The next `N` bytes.
    #[inline]
    pub fn take_array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        match self.left.split_first_chunk::<N>() {
            Some((taken, left)) => {
                self.left = left;
                Ok(*taken)
            }
            None => Err(DecodeError::Truncated {
                what,
                needed: N,
                left: self.left.len(),
            }),
        }
    }

    /// A reader over the next `len` bytes; this one goes on behind them.
    #[inline]
    pub fn sub(&mut self, len: usize, what: &'static str) -> Result<Reader<'a>, DecodeError> {
        Ok(Reader::new(self.take(len, what)?))
    }

    fixed! {
        /// A byte.
        u8: u8;
        /// A signed byte.
        i8: i8;
        /// A big-endian i16.
        i16: i16;
        /// A big-endian u16.
        u16: u16;
        /// A big-endian i32.
        i32: i32;
        /// A big-endian u32.
        u32: u32;
        /// A big-endian i64.
        i64: i64;
    }

    /// A truth value: 0 is false, anything else is true, as Kafka reads it.
    #[inline]
    pub fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        Ok(self.u8(what)? != 0)
    }

    /// A UUID, as its 16 bytes.
    #[inline]
    pub fn uuid(&mut self, what: &'static str) -> Result<[u8; 16], DecodeError> {
        self.take_array(what)
    }

    /// An unsigned varint. Over-long and over-wide encodings are refused.
    #[inline]
    pub fn uvarint(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let value = self.uvarlong(what)?;
        u32::try_from(value).map_err(|_| DecodeError::Varint { what })
    }

    /// An unsigned varlong. Over-long and over-wide encodings are refused.
    #[inline]
    pub fn uvarlong(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        // One byte is by far the most frequent.
        if let Some((&first, left)) = self.left.split_first()
            && first < 0x80
        {
            self.left = left;
            return Ok(u64::from(first));
        }
        self.long_uvarlong(what)
    }

    fn long_uvarlong(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                // A last byte of zero adds nothing: a shorter form was required.
                if byte == 0 && shift > 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(DecodeError::Varint { what })
    }

    /// A zig-zag varint.
    #[inline]
    pub fn varint(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        Ok(unzigzag32(self.uvarint(what)?))
    }

    /// A zig-zag varlong.
    #[inline]
    pub fn varlong(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        Ok(unzigzag64(self.uvarlong(what)?))
    }

    /// A string.
    pub fn string(&mut self, form: Form, what: &'static str) -> Result<&'a str, DecodeError> {
        self.nullable_string(form, what)?
            .ok_or(DecodeError::Length {
                what,
                len: -1,
                left: self.left.len(),
            })
    }

    /// A string or null.
    pub fn nullable_string(
        &mut self,
        form: Form,
        what: &'static str,
    ) -> Result<Option<&'a str>, DecodeError> {
        let len = match form {
            Form::Classic => i64::from(self.i16(what)?),
            Form::Compact => i64::from(self.uvarint(what)?) - 1,
        };
        self.by_length(len, what)?
            .map(|bytes| core::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8 { what }))
            .transpose()
    }

    /// Bytes or null.
    #[inline]
    pub fn nullable_bytes(
        &mut self,
        form: Form,
        what: &'static str,
    ) -> Result<Option<&'a [u8]>, DecodeError> {
        let len = match form {
            Form::Classic => i64::from(self.i32(what)?),
            Form::Compact => i64::from(self.uvarint(what)?) - 1,
        };
        self.by_length(len, what)
    }

    /// The length (zig-zag varint, −1 for null) and the bytes of a key, value or header value
    /// inside a record.
    #[inline]
    pub fn record_bytes(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
        let len = self.varint(what)?;
        self.by_length(i64::from(len), what)
    }

    #[inline]
    fn by_length(&mut self, len: i64, what: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
        if len == -1 {
            return Ok(None);
        }
        match usize::try_from(len) {
            Ok(len) => self.take(len, what).map(Some),
            Err(_) => Err(DecodeError::Length {
                what,
                len,
                left: self.left.len(),
            }),
        }
    }

    /// The count of an array that may not be null, each item of which takes at least
    /// `min_item_len` bytes (≥ 1). A count that the bytes left cannot hold is refused, so the
    /// caller may reserve that many places.
    pub fn array_len(
        &mut self,
        form: Form,
        min_item_len: usize,
        what: &'static str,
    ) -> Result<usize, DecodeError> {
        self.nullable_array_len(form, min_item_len, what)?
            .ok_or(DecodeError::Length {
                what,
                len: -1,
                left: self.left.len(),
            })
    }

    /// The count of an array that may be null; otherwise as [`array_len`](Self::array_len).
    pub fn nullable_array_len(
        &mut self,
        form: Form,
        min_item_len: usize,
        what: &'static str,
    ) -> Result<Option<usize>, DecodeError> {
        let count = match form {
            Form::Classic => i64::from(self.i32(what)?),
            Form::Compact => i64::from(self.uvarint(what)?) - 1,
        };
        if count == -1 {
            return Ok(None);
        }
        self.check_count(count, min_item_len, what).map(Some)
    }

    /// Checks a count that was read some other way against the bytes left.
    pub fn check_count(
        &self,
        count: i64,
        min_item_len: usize,
        what: &'static str,
    ) -> Result<usize, DecodeError> {
        let left = self.left.len();
        match usize::try_from(count) {
            Ok(count)
                if count
                    .checked_mul(min_item_len.max(1))
                    .is_some_and(|sum| sum <= left) =>
            {
                Ok(count)
            }
            _ => Err(DecodeError::Length {
                what,
                len: count,
                left,
            }),
        }
    }

    /// Tagged fields, if the form has them. `on_field` gets each tag with a reader over its bytes
    /// and reads those it knows; the others are skipped. Tags must rise, as KIP-482 demands.
    pub fn tagged_fields(
        &mut self,
        form: Form,
        what: &'static str,
        mut on_field: impl FnMut(u32, Reader<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if form == Form::Classic {
            return Ok(());
        }
        let count = self.uvarint(what)?;
        // A field takes at least its tag and its size.
        let count = self.check_count(i64::from(count), 2, what)?;
        let mut previous = None;
        for _ in 0..count {
            let tag = self.uvarint(what)?;
            if previous.is_some_and(|previous| tag <= previous) {
                return Err(DecodeError::TagOrder { what, tag });
            }
            previous = Some(tag);
            let len = self.uvarint(what)?;
            let len = self.check_count(i64::from(len), 1, what)?;
            on_field(tag, self.sub(len, what)?)?;
        }
        Ok(())
    }

    /// Tagged fields of a structure none of whose tags is known here.
    #[inline]
    pub fn skip_tagged_fields(
        &mut self,
        form: Form,
        what: &'static str,
    ) -> Result<(), DecodeError> {
        self.tagged_fields(form, what, |_, _| Ok(()))
    }
}
