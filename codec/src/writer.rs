//! Writing of messages, with lengths that are patched in afterwards.
//!
//! A [`Writer`] appends to a `Vec` that the caller owns and reuses. Where a length stands in front
//! of what it counts, [`Writer::reserve_len`] leaves four bytes and [`ReservedLen::patch`] fills
//! them when the rest is written.
//!
//! What is written comes from our own configuration and state, which are checked where they enter;
//! a string that does not fit its length field is therefore a bug, and panics.
//!
//! ```
//! use ringpost_codec::{reader::Form, writer::Writer};
//! let mut out = Vec::new();
//! let mut writer = Writer::new(&mut out);
//! let frame = writer.reserve_len();
//! writer.string(Form::Classic, "hi");
//! frame.patch(&mut out, 0);
//! assert_eq!(out, [0, 0, 0, 4, 0, 2, b'h', b'i']);
//! ```

use alloc::vec::Vec;

use crate::primitives::{VARINT_MAX, VARLONG_MAX, put_uvarint, put_uvarlong, uvarint_len};
use crate::reader::Form;

/// The longest string that Kafka's classic form can carry, in bytes.
pub const STRING_MAX: usize = i16::MAX as usize;

/// Appends fields to a `Vec`.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

/// Four bytes left free for a length, to be patched.
#[derive(Debug)]
#[must_use = "the length is zero until it is patched"]
pub struct ReservedLen {
    at: usize,
}

impl ReservedLen {
    /// Writes the number of bytes that follow the reserved place: those in `out`, and
    /// `by_reference` more that go on the wire between them but were not copied here.
    ///
    /// # Panics
    /// When that is more than an i32 can say, or `out` was cut back meanwhile.
    pub fn patch(self, out: &mut [u8], by_reference: usize) {
        let after = self.at + 4;
        let len = out.len() - after + by_reference;
        let len = i32::try_from(len).expect("a message is bounded far below 2 GiB");
        out[self.at..after].copy_from_slice(&len.to_be_bytes());
    }
}

/// A length or count plus one, as the compact form has it.
fn plus_one(len: usize) -> u32 {
    u32::try_from(len)
        .ok()
        .and_then(|len| len.checked_add(1))
        .expect("lengths are below 4 GiB")
}

/// How many bytes [`Writer::string`] takes.
#[must_use]
pub fn string_len(form: Form, string: &str) -> usize {
    nullable_string_len(form, Some(string))
}

/// How many bytes [`Writer::nullable_string`] takes.
#[must_use]
pub fn nullable_string_len(form: Form, string: Option<&str>) -> usize {
    let len = string.map_or(0, str::len);
    match (form, string) {
        (Form::Classic, _) => 2 + len,
        (Form::Compact, None) => 1,
        (Form::Compact, Some(_)) => uvarint_len(plus_one(len)) + len,
    }
}

/// How many bytes [`Writer::array_len`], or the length in front of a byte field, takes.
#[must_use]
pub fn array_len_len(form: Form, count: usize) -> usize {
    match form {
        Form::Classic => 4,
        Form::Compact => uvarint_len(plus_one(count)),
    }
}

/// How many bytes [`Writer::no_tagged_fields`] takes.
#[must_use]
pub const fn no_tagged_fields_len(form: Form) -> usize {
    match form {
        Form::Classic => 0,
        Form::Compact => 1,
    }
}

impl<'a> Writer<'a> {
    /// A writer at the end of `out`.
    #[inline]
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// How many bytes `out` has.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether `out` is empty.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Leaves room for a length of what follows.
    pub fn reserve_len(&mut self) -> ReservedLen {
        let at = self.out.len();
        self.i32(0);
        ReservedLen { at }
    }

    /// Patches a length reserved by this writer. See [`ReservedLen::patch`].
    pub fn patch(&mut self, len: ReservedLen) {
        len.patch(self.out, 0);
    }

    /// Bytes as they are, without a length.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A byte.
    #[inline]
    pub fn i8(&mut self, value: i8) {
        self.raw(&value.to_be_bytes());
    }

    /// A big-endian i16.
    #[inline]
    pub fn i16(&mut self, value: i16) {
        self.raw(&value.to_be_bytes());
    }

    /// A big-endian i32.
    #[inline]
    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    /// A big-endian i64.
    #[inline]
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    /// A truth value.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.i8(i8::from(value));
    }

    /// An unsigned varint.
    #[inline]
    pub fn uvarint(&mut self, value: u32) {
        let mut bytes = [0; VARINT_MAX];
        let len = put_uvarint(&mut bytes, value);
        self.raw(&bytes[..len]);
    }

    /// An unsigned varlong.
    #[inline]
    pub fn uvarlong(&mut self, value: u64) {
        let mut bytes = [0; VARLONG_MAX];
        let len = put_uvarlong(&mut bytes, value);
        self.raw(&bytes[..len]);
    }

    /// A string.
    ///
    /// # Panics
    /// When it is longer than [`STRING_MAX`].
    pub fn string(&mut self, form: Form, string: &str) {
        self.nullable_string(form, Some(string));
    }

    /// A string or null.
    ///
    /// # Panics
    /// When it is longer than [`STRING_MAX`].
    pub fn nullable_string(&mut self, form: Form, string: Option<&str>) {
        let len = string.map(|string| {
            i16::try_from(string.len()).expect("strings are checked where they enter")
        });
        match (form, len) {
            (Form::Classic, len) => self.i16(len.unwrap_or(-1)),
            (Form::Compact, None) => self.uvarint(0),
            (Form::Compact, Some(len)) => self.uvarint(u32::from(len.unsigned_abs()) + 1),
        }
        self.raw(string.unwrap_or_default().as_bytes());
    }

    /// The length in front of a byte field whose `len` bytes follow by other means.
    ///
    /// # Panics
    /// When that is more than an i32 can say.
    pub fn bytes_len(&mut self, form: Form, len: usize) {
        self.array_len(form, len);
    }

    /// Bytes or null, with their length.
    ///
    /// # Panics
    /// When there are more than an i32 can count.
    pub fn nullable_bytes(&mut self, form: Form, bytes: Option<&[u8]>) {
        self.nullable_array_len(form, bytes.map(<[u8]>::len));
        self.raw(bytes.unwrap_or_default());
    }

    /// The count of an array.
    ///
    /// # Panics
    /// When there are more than an i32 can count.
    pub fn array_len(&mut self, form: Form, count: usize) {
        self.nullable_array_len(form, Some(count));
    }

    /// The count of an array, or null.
    ///
    /// # Panics
    /// When there are more than an i32 can count.
    pub fn nullable_array_len(&mut self, form: Form, count: Option<usize>) {
        match (form, count) {
            (Form::Classic, None) => self.i32(-1),
            (Form::Compact, None) => self.uvarint(0),
            (Form::Classic, Some(count)) => {
                self.i32(i32::try_from(count).expect("counts are below 2^31"));
            }
            (Form::Compact, Some(count)) => self.uvarint(plus_one(count)),
        }
    }

    /// The end of a structure without tagged fields: one byte in the compact form, none in the
    /// classic one.
    #[inline]
    pub fn no_tagged_fields(&mut self, form: Form) {
        if form == Form::Compact {
            self.uvarint(0);
        }
    }
    /// The end of a structure with one tagged field. Only the compact form has them.
    ///
    /// # Panics
    /// When the field is longer than 4 GiB.
    pub fn one_tagged_field(&mut self, tag: u32, field: &[u8]) {
        self.uvarint(1);
        self.uvarint(tag);
        self.uvarint(u32::try_from(field.len()).expect("a field is far below 4 GiB"));
        self.raw(field);
    }
}
