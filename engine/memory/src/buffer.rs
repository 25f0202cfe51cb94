//! Segments as the core knows buffers, pieces as it knows pieces. Nothing happens here but names.

use std::ops::Range;

use ringpost_core::buffer::{Buffer, Memory};

use crate::{Piece, Pool, SegmentMut};

impl Buffer for SegmentMut {
    type Piece = Piece;

    #[inline]
    fn capacity(&self) -> usize {
        Self::capacity(self)
    }

    #[inline]
    fn filled(&self) -> &[u8] {
        Self::filled(self)
    }

    #[inline]
    fn filled_mut(&mut self) -> &mut [u8] {
        Self::filled_mut(self)
    }

    #[inline]
    fn spare_mut(&mut self) -> &mut [u8] {
        Self::spare_mut(self)
    }

    #[inline]
    fn commit(&mut self, n: usize) {
        Self::commit(self, n);
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        Self::truncate(self, len);
    }

    #[inline]
    fn freeze(self) -> Piece {
        Piece::from(Self::freeze(self))
    }
}

impl ringpost_core::buffer::Piece for Piece {
    #[inline]
    fn bytes(&self) -> &[u8] {
        Self::bytes(self)
    }

    #[inline]
    fn slice(&self, range: Range<usize>) -> Self {
        Self::slice(self, range)
    }
}

impl Memory for Pool {
    type Buffer = SegmentMut;
    type Piece = Piece;

    #[inline]
    fn take(&mut self, at_least: usize) -> Option<SegmentMut> {
        self.try_take(at_least)
    }
}
