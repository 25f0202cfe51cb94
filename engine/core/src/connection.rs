//! Connections.

/// A connection's name towards a driver: a slot, and a generation that tells a slot's present
/// connection from its earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// The place in the owner's table of connections.
    pub slot: u16,
    /// Counts the connections this slot has had.
    pub generation: u32,
}
