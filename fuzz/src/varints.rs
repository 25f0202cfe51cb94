//! Variable-length integers, tagged fields, and any sequence of reads, against a second decoder.
//!
//! ```text
//! n │ n kinds of reads (1 byte each) │ the bytes that are read
//! ```
//! The second decoder goes by the protocol's words and not by our code: it keeps a place in the
//! bytes and adds up digits in a u128. Both refuse varints that are not as short as possible: Kafka
//! never writes such.

use ringpost_codec::error::DecodeError;
use ringpost_codec::primitives;
use ringpost_codec::reader::{Form, Reader};

/// See the module's doc.
pub fn run(data: &[u8]) {
    let Some((&count, rest)) = data.split_first() else {
        return;
    };
    let (kinds, bytes) = rest.split_at(usize::from(count).min(rest.len()));
    integers(bytes);
    let mut reader = Reader::new(bytes);
    let mut second = Second { bytes, at: 0 };
    for kind in kinds {
        if !read_one(*kind, &mut reader, &mut second) {
            return;
        }
        assert_eq!(reader.remaining(), bytes.len() - second.at);
        assert_eq!(reader.rest(), &bytes[second.at..]);
    }
    assert_eq!(reader.finish("bytes").is_ok(), second.at == bytes.len());
}

/// The integer at the front, as each of the four kinds.
fn integers(bytes: &[u8]) {
    let front = |read: &dyn Fn(&mut Reader<'_>) -> Option<Vec<u8>>, len: usize| {
        let mut reader = Reader::new(bytes);
        let written = read(&mut reader);
        if let Some(written) = &written {
            let took = bytes.len() - reader.remaining();
            assert_eq!((written.as_slice(), took), (&bytes[..took], len));
        }
        written.is_some()
    };
    let dst = [0; primitives::VARLONG_MAX];
    let (value, len) = Second { bytes, at: 0 }.digits().unwrap_or((0, 0));
    let is = |result: bool| assert_eq!(result, len > 0, "{bytes:?}");
    is(front(
        &|reader| {
            let read = reader.uvarlong("").ok()?;
            assert_eq!(read, value);
            let mut dst = dst;
            let len = primitives::put_uvarlong(&mut dst, read);
            assert_eq!(len, primitives::uvarlong_len(read));
            Some(dst[..len].to_vec())
        },
        len,
    ));
    is(front(
        &|reader| {
            let read = reader.varlong("").ok()?;
            assert_eq!(zigzag(i128::from(read)), u128::from(value));
            let mut dst = dst;
            let len = primitives::put_varlong(&mut dst, read);
            assert_eq!(len, primitives::varlong_len(read));
            Some(dst[..len].to_vec())
        },
        len,
    ));
    let narrow = u32::try_from(value).is_ok();
    let is = |result: bool| assert_eq!(result, len > 0 && narrow, "{bytes:?}");
    is(front(
        &|reader| {
            let read = reader.uvarint("").ok()?;
            assert_eq!(u64::from(read), value);
            let mut dst = dst;
            let len = primitives::put_uvarint(&mut dst, read);
            assert_eq!(len, primitives::uvarint_len(read));
            Some(dst[..len].to_vec())
        },
        len,
    ));
    is(front(
        &|reader| {
            let read = reader.varint("").ok()?;
            assert_eq!(zigzag(i128::from(read)), u128::from(value));
            let mut dst = dst;
            let len = primitives::put_varint(&mut dst, read);
            assert_eq!(len, primitives::varint_len(read));
            Some(dst[..len].to_vec())
        },
        len,
    ));
}

fn zigzag(value: i128) -> u128 {
    if value < 0 {
        (-(value + 1)).cast_unsigned() * 2 + 1
    } else {
        value.cast_unsigned() * 2
    }
}

/// Reads one thing with both; whether it was there.
fn read_one(kind: u8, reader: &mut Reader<'_>, second: &mut Second<'_>) -> bool {
    let form = if kind & 1 == 0 {
        Form::Classic
    } else {
        Form::Compact
    };
    match kind >> 1 & 15 {
        0 => same(
            reader.u8(""),
            second.number(1).and_then(|n| u8::try_from(n).ok()),
        ),
        1 => same(
            reader.i8(""),
            second
                .number(1)
                .and_then(|n| u8::try_from(n).ok())
                .map(u8::cast_signed),
        ),
        2 => same(
            reader.i16(""),
            second
                .number(2)
                .and_then(|n| u16::try_from(n).ok())
                .map(u16::cast_signed),
        ),
        3 => same(
            reader.u32(""),
            second.number(4).and_then(|n| u32::try_from(n).ok()),
        ),
        4 => same(reader.i64(""), second.number(8).map(u64::cast_signed)),
        5 => same(reader.bool(""), second.number(1).map(|n| n != 0)),
        6 => same(
            reader.uuid(""),
            second.take(16).map(|b| b.try_into().expect("16 bytes")),
        ),
        7 => same(reader.uvarint(""), second.uvarint()),
        8 => same(reader.uvarlong(""), second.digits().map(|(value, _)| value)),
        9 => {
            let ours = reader.nullable_string(form, "");
            let theirs = second.sized(form, 2).and_then(|bytes| match bytes {
                None => Some(None),
                Some(bytes) => Some(Some(std::str::from_utf8(bytes).ok()?)),
            });
            same(ours, theirs)
        }
        10 => {
            let ours = reader.string(form, "");
            let theirs = second.sized(form, 2).flatten();
            same(
                ours,
                theirs.and_then(|bytes| std::str::from_utf8(bytes).ok()),
            )
        }
        11 => same(reader.nullable_bytes(form, ""), second.sized(form, 4)),
        12 => same(
            reader.record_bytes(""),
            second.uvarint().and_then(|raw| match (raw & 1, raw >> 1) {
                (1, 0) => Some(None),
                (0, len) => Some(Some(second.take(usize::try_from(len).ok()?)?)),
                _ => None,
            }),
        ),
        13 => same(
            reader.array_len(form, 3, ""),
            second.count(form, 3).flatten(),
        ),
        14 => same(
            reader.nullable_array_len(form, 1, ""),
            second.count(form, 1),
        ),
        _ => {
            let mut ours = Vec::new();
            let read = reader.tagged_fields(form, "", |tag, field| {
                ours.push((tag, field.rest().to_vec()));
                Ok(())
            });
            let theirs = match form {
                Form::Classic => Some(Vec::new()),
                Form::Compact => second.tagged(),
            };
            same(read.map(|()| ours), theirs)
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(ours: Result<T, DecodeError>, theirs: Option<T>) -> bool {
    match (ours, theirs) {
        (Ok(ours), Some(theirs)) => {
            assert_eq!(ours, theirs);
            true
        }
        (Err(_), None) => false,
        (ours, theirs) => panic!("{ours:?} is not {theirs:?}"),
    }
}

/// The second decoder: bytes and a place in them.
#[derive(Clone)]
struct Second<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Second<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn number(&mut self, len: usize) -> Option<u64> {
        let bytes = self.take(len)?;
        Some(
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        )
    }

    /// Groups of seven bits, the lowest first, and how many there are. None when they do not end,
    /// give more than 64 bits, or could have been fewer.
    fn digits(&mut self) -> Option<(u64, usize)> {
        let mut sum = 0u128;
        for place in 0..10 {
            let byte = self.take(1)?[0];
            sum += u128::from(byte % 128) << (7 * place);
            if byte < 128 {
                let shortest = byte != 0 || place == 0;
                let value = u64::try_from(sum).ok().filter(|_| shortest)?;
                return Some((value, place + 1));
            }
        }
        None
    }

    fn uvarint(&mut self) -> Option<u32> {
        u32::try_from(self.digits()?.0).ok()
    }

    /// A length as wide as the form has it; null is −1.
    fn length(&mut self, form: Form, classic: usize) -> Option<i64> {
        Some(match (form, classic) {
            (Form::Compact, _) => i64::from(self.uvarint()?) - 1,
            (Form::Classic, 2) => i64::from(u16::try_from(self.number(2)?).ok()?.cast_signed()),
            (Form::Classic, _) => i64::from(u32::try_from(self.number(4)?).ok()?.cast_signed()),
        })
    }

    fn sized(&mut self, form: Form, classic: usize) -> Option<Option<&'a [u8]>> {
        match self.length(form, classic)? {
            -1 => Some(None),
            len => Some(Some(self.take(usize::try_from(len).ok()?)?)),
        }
    }

    fn count(&mut self, form: Form, min_item_len: usize) -> Option<Option<usize>> {
        match self.length(form, 4)? {
            -1 => Some(None),
            count => {
                let count = usize::try_from(count).ok()?;
                let fits = count * min_item_len <= self.bytes.len() - self.at;
                fits.then_some(Some(count))
            }
        }
    }

    fn tagged(&mut self) -> Option<Vec<(u32, Vec<u8>)>> {
        let count = self.uvarint()?;
        let mut fields: Vec<(u32, Vec<u8>)> = Vec::new();
        // Each takes two bytes, so a count that lies ends here soon.
        if u64::from(count) * 2 > (self.bytes.len() - self.at) as u64 {
            return None;
        }
        for _ in 0..count {
            let tag = self.uvarint()?;
            if fields.last().is_some_and(|(last, _)| *last >= tag) {
                return None;
            }
            let len = usize::try_from(self.uvarint()?).ok()?;
            fields.push((tag, self.take(len)?.to_vec()));
        }
        Some(fields)
    }
}
