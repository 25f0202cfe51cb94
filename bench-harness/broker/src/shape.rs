//! What small requests look like, walked before they are decoded.
//!
//! The generated decoders of `kafka-protocol` take memory for as many items as the bytes *say*
//! there are. So each request is first walked by its shape: every count and length is checked
//! against the bytes that are really there, tagged fields included, and nothing may be left over.
//! A request that passes cannot make its decoder take more than a small multiple of its own size.

use kafka_protocol::messages::ApiKey;
use ringpost_codec::error::DecodeError;
use ringpost_codec::reader::{Form, Reader};

/// Most tagged fields in one place. Kafka itself uses two.
const TAGS_MAX: u32 = 16;

enum Kind {
    /// So many bytes, whatever they mean.
    Bytes(usize),
    /// A string or null.
    Text,
    /// An array, or null, of structures with tagged fields behind each.
    Structs(&'static [Field]),
    /// An array, or null, of plain items.
    Plain(&'static Kind),
}

/// A field and the versions that have it.
struct Field {
    since: i16,
    until: i16,
    kind: Kind,
}

const fn always(kind: Kind) -> Field {
    Field {
        since: 0,
        until: i16::MAX,
        kind,
    }
}

const fn since(since: i16, kind: Kind) -> Field {
    Field {
        since,
        until: i16::MAX,
        kind,
    }
}

const fn until(until: i16, kind: Kind) -> Field {
    Field {
        since: 0,
        until,
        kind,
    }
}

const fn between(since: i16, until: i16, kind: Kind) -> Field {
    Field { since, until, kind }
}

/// A request: the first version in the compact form, its fields in order.
struct Shape {
    compact_since: i16,
    fields: &'static [Field],
}

const API_VERSIONS: Shape = Shape {
    compact_since: 3,
    fields: &[since(3, Kind::Text), since(3, Kind::Text)],
};

const METADATA: Shape = Shape {
    compact_since: 9,
    fields: &[
        always(Kind::Structs(&[
            since(10, Kind::Bytes(16)),
            always(Kind::Text),
        ])),
        since(4, Kind::Bytes(1)),
        between(8, 10, Kind::Bytes(1)),
        since(8, Kind::Bytes(1)),
    ],
};

const INIT_PRODUCER_ID: Shape = Shape {
    compact_since: 2,
    fields: &[
        always(Kind::Text),
        always(Kind::Bytes(4)),
        since(3, Kind::Bytes(8)),
        since(3, Kind::Bytes(2)),
    ],
};

const FIND_COORDINATOR: Shape = Shape {
    compact_since: 3,
    fields: &[
        until(3, Kind::Text),
        since(1, Kind::Bytes(1)),
        since(4, Kind::Plain(&Kind::Text)),
    ],
};

const LIST_OFFSETS: Shape = Shape {
    compact_since: 6,
    fields: &[
        always(Kind::Bytes(4)),
        since(2, Kind::Bytes(1)),
        always(Kind::Structs(&[
            always(Kind::Text),
            always(Kind::Structs(&[
                always(Kind::Bytes(4)),
                since(4, Kind::Bytes(4)),
                always(Kind::Bytes(8)),
            ])),
        ])),
        since(10, Kind::Bytes(4)),
    ],
};

const FETCH: Shape = Shape {
    compact_since: 12,
    fields: &[
        until(14, Kind::Bytes(4)),    // replica id
        always(Kind::Bytes(4 * 3)),   // max wait, min bytes, max bytes
        always(Kind::Bytes(1)),       // isolation level
        since(7, Kind::Bytes(4 + 4)), // session id and epoch
        always(Kind::Structs(&[
            until(12, Kind::Text),
            since(13, Kind::Bytes(16)),
            always(Kind::Structs(&[
                always(Kind::Bytes(4)),
                since(9, Kind::Bytes(4)),
                always(Kind::Bytes(8)),
                since(12, Kind::Bytes(4)),
                since(5, Kind::Bytes(8)),
                always(Kind::Bytes(4)),
            ])),
        ])),
        since(
            7,
            Kind::Structs(&[
                until(12, Kind::Text),
                since(13, Kind::Bytes(16)),
                always(Kind::Plain(&Kind::Bytes(4))),
            ]),
        ),
        since(11, Kind::Text), // rack
    ],
};

/// Checks the body of a small request. `Ok` means that its decoder may be let at it.
pub(crate) fn check(api: ApiKey, version: i16, body: &[u8]) -> Result<(), DecodeError> {
    let shape = match api {
        ApiKey::ApiVersions => &API_VERSIONS,
        ApiKey::Metadata => &METADATA,
        ApiKey::InitProducerId => &INIT_PRODUCER_ID,
        ApiKey::FindCoordinator => &FIND_COORDINATOR,
        ApiKey::ListOffsets => &LIST_OFFSETS,
        ApiKey::Fetch => &FETCH,
        _ => {
            return Err(DecodeError::Version {
                what: "request",
                version,
            });
        }
    };
    let form = if version >= shape.compact_since {
        Form::Compact
    } else {
        Form::Classic
    };
    let mut reader = Reader::new(body);
    fields(&mut reader, form, version, shape.fields)?;
    reader.finish("request")
}

fn fields(
    reader: &mut Reader<'_>,
    form: Form,
    version: i16,
    shape: &'static [Field],
) -> Result<(), DecodeError> {
    for field in shape
        .iter()
        .filter(|f| (f.since..=f.until).contains(&version))
    {
        value(reader, form, version, &field.kind)?;
    }
    tags(reader, form)
}

fn value(
    reader: &mut Reader<'_>,
    form: Form,
    version: i16,
    kind: &'static Kind,
) -> Result<(), DecodeError> {
    match kind {
        Kind::Bytes(len) => reader.take(*len, "field").map(drop),
        Kind::Text => reader.nullable_string(form, "string").map(drop),
        Kind::Structs(shape) => {
            let least = least_struct(form, version, shape);
            let count = reader
                .nullable_array_len(form, least, "array")?
                .unwrap_or(0);
            (0..count).try_for_each(|_| fields(reader, form, version, shape))
        }
        Kind::Plain(item) => {
            let count = reader.nullable_array_len(form, least(form, item), "array")?;
            (0..count.unwrap_or(0)).try_for_each(|_| value(reader, form, version, item))
        }
    }
}

/// The fewest bytes a value can take.
fn least(form: Form, kind: &Kind) -> usize {
    match (kind, form) {
        (Kind::Bytes(len), _) => *len,
        (Kind::Text, Form::Classic) => 2,
        (Kind::Structs(_) | Kind::Plain(_), Form::Classic) => 4,
        (Kind::Text | Kind::Structs(_) | Kind::Plain(_), Form::Compact) => 1,
    }
}

fn least_struct(form: Form, version: i16, shape: &[Field]) -> usize {
    let fields: usize = shape
        .iter()
        .filter(|f| (f.since..=f.until).contains(&version))
        .map(|f| least(form, &f.kind))
        .sum();
    fields + usize::from(form == Form::Compact)
}

/// Tagged fields a producer or consumer has no use for are skipped; the few that the generated
/// decoders know (replica state and the like, sent between brokers) are refused, because those
/// decoders do not keep to the size a field says it has.
fn tags(reader: &mut Reader<'_>, form: Form) -> Result<(), DecodeError> {
    if form == Form::Classic {
        return Ok(());
    }
    let count = reader.uvarint("tagged fields")?;
    if count > TAGS_MAX {
        let (count, max) = (count as usize, TAGS_MAX as usize);
        return Err(DecodeError::TooMany {
            what: "tagged fields",
            count,
            max,
        });
    }
    for _ in 0..count {
        let tag = reader.uvarint("tag")?;
        if tag < 2 {
            return Err(DecodeError::Value {
                what: "tag",
                value: i64::from(tag),
            });
        }
        let size = reader.uvarint("tagged field size")?;
        let size = reader.check_count(i64::from(size), 1, "tagged field")?;
        reader.take(size, "tagged field")?;
    }
    Ok(())
}
