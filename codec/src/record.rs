//! One record, as it lies in a batch (record-batch v2).
//!
//! ```text
//! length            varint    of everything that follows
//! attributes        i8        0
//! timestamp delta   varlong   against the batch's base timestamp; may be negative
//! offset delta      varint    0, 1, 2, … within the batch
//! key               varint length (−1: null), bytes
//! value             varint length (−1: null), bytes
//! headers           varint count, then each: varint length, key; varint length (−1: null), value
//! ```
//! Headers keep their order; a key may come twice or be empty, a value may be null. Null is not
//! empty: a null value is what Kafka calls a tombstone.
//!
//! [`encode`] is the hottest function of the producer: it runs once per record under the lane's
//! lock. So the size is computed first, outside, by [`record_size`]; the destination is checked
//! once against it; and the varints, nearly all of one or two bytes, take a short path.
//!
//! ```
//! use ringpost_codec::record::{encode, record_size, Header, RecordView};
//! use ringpost_codec::reader::Reader;
//!
//! let headers = [Header { key: "trace", value: Some(b"7f") }];
//! let size = record_size(-3, 0, None, Some(5), &headers);
//! let mut batch = [0; 64];
//! let written = encode(&mut batch, size, -3, 0, None, Some(b"hello"), &headers);
//! assert_eq!(written, size.total);
//!
//! let record = RecordView::read(&mut Reader::new(&batch[..written]))?;
//! assert_eq!((record.timestamp_delta, record.value), (-3, Some(&b"hello"[..])));
//! assert!(record.headers().eq(headers));
//! # Ok::<(), ringpost_codec::error::DecodeError>(())
//! ```

use crate::error::DecodeError;
use crate::primitives::{put_uvarlong, uvarlong_len, varint_len, varlong_len, zigzag32, zigzag64};
use crate::reader::Reader;

/// The largest [`RecordSize::body`] that the format can carry. Larger records must be refused
/// before they are encoded.
pub const RECORD_BODY_MAX: usize = i32::MAX as usize;

/// The most a record without headers takes besides the bytes of its key and its value: length,
/// attributes, the two deltas, the two lengths, the count of headers.
pub const RECORD_OVERHEAD_MAX: usize = 5 + 1 + 10 + 5 + 5 + 5 + 1;

/// A record header: a name and a value, either of which may be empty, and the value null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name. Names may repeat.
    pub key: &'a str,
    /// The value.
    pub value: Option<&'a [u8]>,
}

/// What a record takes in a batch, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSize {
    /// What its length field says: everything behind that field.
    pub body: usize,
    /// All of it, the length field included.
    pub total: usize,
}

/// The zig-zag form of a length (null is −1), as wide as a length in memory can be.
#[inline(always)]
const fn zigzag_len(len: Option<usize>) -> u64 {
    match len {
        None => 1,
        Some(len) => (len as u64) << 1,
    }
}

/// What a length and its bytes take.
#[inline(always)]
const fn bytes_size(len: Option<usize>) -> usize {
    uvarlong_len(zigzag_len(len))
        + match len {
            None => 0,
            Some(len) => len,
        }
}

/// The exact size of a record.
///
/// A `body` larger than [`RECORD_BODY_MAX`] cannot be encoded; the caller refuses such a record.
#[inline]
#[must_use]
pub fn record_size(
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value_len: Option<usize>,
    headers: &[Header<'_>],
) -> RecordSize {
    let body = 1
        + varlong_len(timestamp_delta)
        + varint_len(offset_delta)
        + bytes_size(key.map(<[u8]>::len))
        + bytes_size(value_len)
        + headers_size(headers);
    RecordSize {
        body,
        total: uvarlong_len(zigzag_len(Some(body))) + body,
    }
}

#[inline(always)]
fn headers_size(headers: &[Header<'_>]) -> usize {
    if headers.is_empty() {
        1
    } else {
        some_headers_size(headers)
    }
}

#[inline(never)]
fn some_headers_size(headers: &[Header<'_>]) -> usize {
    let sizes = headers.iter().map(|header| {
        bytes_size(Some(header.key.len())) + bytes_size(header.value.map(<[u8]>::len))
    });
    uvarlong_len(zigzag_len(Some(headers.len()))) + sizes.sum::<usize>()
}

/// Writes a record at the front of `dst` and says how many bytes it took: `size.total`.
///
/// `size` is what [`record_size`] said for the same arguments.
///
/// # Panics
/// When `dst` is shorter than `size.total`, or `size` belongs to other arguments: a bug of the
/// caller.
#[inline(always)]
pub fn encode(
    dst: &mut [u8],
    size: RecordSize,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[Header<'_>],
) -> usize {
    let dst = &mut dst[..size.total];
    let value_len = value.map(<[u8]>::len);
    let mut at = encode_head(dst, size, timestamp_delta, offset_delta, key, value_len);
    if let Some(value) = value {
        at = put_bytes(dst, at, value);
    }
    at += encode_tail(&mut dst[at..], headers);
    debug_assert_eq!(at, size.total, "the size of another record");
    at
}

/// Writes what stands before the value's bytes, its length included, and says how many bytes that
/// took. For values that go on the wire by reference, or that are serialised in place.
///
/// # Panics
/// When `dst` is too short.
#[inline(always)]
pub fn encode_head(
    dst: &mut [u8],
    size: RecordSize,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value_len: Option<usize>,
) -> usize {
    let mut at = put_uvarlong(dst, zigzag_len(Some(size.body)));
    dst[at] = 0; // attributes: none are defined
    at += 1;
    at += put_uvarlong(&mut dst[at..], zigzag64(timestamp_delta));
    at += put_uvarlong(&mut dst[at..], u64::from(zigzag32(offset_delta)));
    at += put_uvarlong(&mut dst[at..], zigzag_len(key.map(<[u8]>::len)));
    if let Some(key) = key {
        at = put_bytes(dst, at, key);
    }
    at + put_uvarlong(&mut dst[at..], zigzag_len(value_len))
}

/// Writes what stands behind the value's bytes, the headers, and says how many bytes that took.
///
/// # Panics
/// When `dst` is too short.
#[inline]
pub fn encode_tail(dst: &mut [u8], headers: &[Header<'_>]) -> usize {
    if headers.is_empty() {
        dst[0] = 0;
        1
    } else {
        encode_headers(dst, headers)
    }
}

#[inline(never)]
fn encode_headers(dst: &mut [u8], headers: &[Header<'_>]) -> usize {
    let mut at = put_uvarlong(dst, zigzag_len(Some(headers.len())));
    for header in headers {
        at += put_uvarlong(&mut dst[at..], zigzag_len(Some(header.key.len())));
        at = put_bytes(dst, at, header.key.as_bytes());
        at += put_uvarlong(&mut dst[at..], zigzag_len(header.value.map(<[u8]>::len)));
        if let Some(value) = header.value {
            at = put_bytes(dst, at, value);
        }
    }
    at
}

#[inline(always)]
fn put_bytes(dst: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let end = at + bytes.len();
    dst[at..end].copy_from_slice(bytes);
    end
}

/// A record read back, borrowing its bytes.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// Against the batch's base timestamp, in ms.
    pub timestamp_delta: i64,
    /// Against the batch's base offset.
    pub offset_delta: i32,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; null is a tombstone.
    pub value: Option<&'a [u8]>,
    header_count: usize,
    header_bytes: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Takes one record off the reader and checks all of it, the headers too.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let left = reader.remaining();
        let len = reader.varint("record.length")?;
        let len = usize::try_from(len).map_err(|_| DecodeError::Length {
            what: "record.length",
            len: i64::from(len),
            left,
        })?;
        let mut body = reader.sub(len, "record")?;
        let _attributes = body.i8("record.attributes")?;
        let timestamp_delta = body.varlong("record.timestamp_delta")?;
        let offset_delta = body.varint("record.offset_delta")?;
        let key = body.record_bytes("record.key")?;
        let value = body.record_bytes("record.value")?;
        let header_count = body.varint("record.headers")?;
        // A header takes at least its two lengths.
        let header_count = body.check_count(i64::from(header_count), 2, "record.headers")?;
        let header_bytes = body.rest();
        for _ in 0..header_count {
            read_header(&mut body)?;
        }
        body.finish("record")?;
        Ok(Self {
            timestamp_delta,
            offset_delta,
            key,
            value,
            header_count,
            header_bytes,
        })
    }

    /// How many headers there are.
    #[must_use]
    pub const fn header_count(&self) -> usize {
        self.header_count
    }

    /// The headers, in order.
    #[must_use]
    pub const fn headers(&self) -> Headers<'a> {
        Headers {
            left: self.header_count,
            reader: Reader::new(self.header_bytes),
        }
    }
}

fn read_header<'a>(reader: &mut Reader<'a>) -> Result<Header<'a>, DecodeError> {
    let what = "record.header.key";
    let left = reader.remaining();
    let key = reader.record_bytes(what)?.ok_or(DecodeError::Length {
        what,
        len: -1,
        left,
    })?;
    let key = core::str::from_utf8(key).map_err(|_| DecodeError::Utf8 { what })?;
    Ok(Header {
        key,
        value: reader.record_bytes("record.header.value")?,
    })
}

/// The headers of a [`RecordView`].
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    left: usize,
    reader: Reader<'a>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        // `RecordView::read` has read all of them once, so this does not fail.
        read_header(&mut self.reader).ok()
    }
}
