//! Segments as the core knows buffers, pieces as it knows pieces. Nothing happens here but names.

use std::ops::Range;

use ringpost_core::buffer::{Buffer, Memory};

use crate::{Piece, Pool, SegmentMut};

impl Buffer for SegmentMut {
    type Piece = Piece;

    fn capacity(&self) -> usize {
        Self::capacity(self)
    }

    fn filled(&self) -> &[u8] {
        Self::filled(self)
    }

    fn filled_mut(&mut self) -> &mut [u8] {
        Self::filled_mut(self)
    }

    fn spare_mut(&mut self) -> &mut [u8] {
        Self::spare_mut(self)
    }

    fn commit(&mut self, n: usize) {
        Self::commit(self, n);
    }

    fn truncate(&mut self, len: usize) {
        Self::truncate(self, len);
    }

    fn freeze(self) -> Piece {
        Piece::from(Self::freeze(self))
    }
}

impl ringpost_core::buffer::Piece for Piece {
    fn bytes(&self) -> &[u8] {
        Self::bytes(self)
    }

    fn slice(&self, range: Range<usize>) -> Self {
        Self::slice(self, range)
    }
}

impl Memory for Pool {
    type Buffer = SegmentMut;
    type Piece = Piece;

    fn take(&mut self, at_least: usize) -> Option<SegmentMut> {
        self.try_take(at_least)
    }
}
