//! What an operation is called between us and the kernel: the 64 bits that come back with each of
//! its completions.
//!
//! ```text
//!   63     56 55           32 31                  0
//!  ┌─────────┬───────────────┬─────────────────────┐
//!  │  kind   │     place     │     generation      │
//!  └─────────┴───────────────┴─────────────────────┘
//! ```
//!
//! The place is the connection's in the driver's table, not the owner's slot: a slot may have a new
//! connection while the kernel still holds operations of the old one, so both need a place.

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The poll on the waker's eventfd.
    Wake,
    Connect,
    Send,
    Receive,
    /// Cancels everything on a connection's socket.
    Cancel,
}

/// An operation's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) kind: Kind,
    /// Index into the table of connections; 0 for [`Kind::Wake`].
    pub(super) place: u32,
    /// The connection's generation, to prove that the place still has the one that was meant.
    pub(super) generation: u32,
}

const PLACES: u32 = 1 << 24;

impl Tag {
    pub(super) const WAKE: Self = Self {
        kind: Kind::Wake,
        place: 0,
        generation: 0,
    };

    pub(super) fn encode(self) -> u64 {
        assert!(self.place < PLACES, "{} connections at once", self.place);
        let kind: u64 = match self.kind {
            Kind::Wake => 0,
            Kind::Connect => 1,
            Kind::Send => 2,
            Kind::Receive => 3,
            Kind::Cancel => 4,
        };
        kind << 56 | u64::from(self.place) << 32 | u64::from(self.generation)
    }

    /// `None` for something we never wrote.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the three fields are cut out of the word"
    )]
    pub(super) fn decode(user_data: u64) -> Option<Self> {
        let kind = match user_data >> 56 {
            0 => Kind::Wake,
            1 => Kind::Connect,
            2 => Kind::Send,
            3 => Kind::Receive,
            4 => Kind::Cancel,
            _ => return None,
        };
        Some(Self {
            kind,
            place: (user_data >> 32) as u32 & (PLACES - 1),
            generation: user_data as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        for kind in [
            Kind::Wake,
            Kind::Connect,
            Kind::Send,
            Kind::Receive,
            Kind::Cancel,
        ] {
            for place in [0, 1, PLACES - 1] {
                for generation in [0, 1, u32::MAX] {
                    let tag = Tag {
                        kind,
                        place,
                        generation,
                    };
                    assert_eq!(Tag::decode(tag.encode()), Some(tag));
                }
            }
        }
        assert_eq!(Tag::decode(u64::MAX), None);
    }
}
