//! What the core asks of memory, without knowing where it comes from.
//!
//! The engine answers with segments of its pool, the simulator with tokens of its ledger. A
//! [`Buffer`] has one owner and is being written; frozen it becomes a [`Piece`], which is never
//! written again and may have many holders, the kernel among them.

/// Memory with one owner, filled from the front.
pub trait Buffer: Sized + core::fmt::Debug {
    /// What it becomes when nobody writes it any more.
    type Piece: Piece;

    /// How many bytes it can hold.
    fn capacity(&self) -> usize;
    /// The bytes written so far.
    fn filled(&self) -> &[u8];
    /// The bytes written so far, to be changed in place.
    fn filled_mut(&mut self) -> &mut [u8];
    /// The room after the bytes written so far: `capacity() - filled().len()` bytes.
    fn spare_mut(&mut self) -> &mut [u8];
    /// Counts the first `n` bytes of the room as written. Panics when there are fewer.
    fn commit(&mut self, n: usize);
    /// Cuts back to the first `len` written bytes. Panics when fewer are written.
    fn truncate(&mut self, len: usize);
    /// Ends writing.
    fn freeze(self) -> Self::Piece;
}

/// Bytes that never change, with any number of holders.
pub trait Piece: Clone + core::fmt::Debug {
    /// The bytes.
    fn bytes(&self) -> &[u8];
    /// A part of them, held as they are held.
    fn slice(&self, range: core::ops::Range<usize>) -> Self;
    /// Gives the memory back although others hold it: what a planted bug does, and nothing else.
    #[doc(hidden)]
    #[cfg(feature = "canaries")]
    fn let_go(&self) {}
}

/// Gives out buffers within a bound.
pub trait Memory {
    /// Its buffers.
    type Buffer: Buffer<Piece = Self::Piece>;
    /// Its frozen buffers.
    type Piece: Piece;

    /// A buffer of at least `at_least` bytes, or `None` when the bound is reached.
    fn take(&mut self, at_least: usize) -> Option<Self::Buffer>;
}
