//! Memory without a bound: buffers that are vectors.

use std::cell::OnceCell;
use std::rc::Rc;

use ringpost_core::buffer::{Buffer, Memory, Piece};

/// A buffer that is a vector.
#[derive(Debug)]
pub struct VecBuffer {
    bytes: Vec<u8>,
    filled: usize,
}

/// A frozen [`VecBuffer`], or a part of it.
#[derive(Debug, Clone)]
pub struct VecPiece {
    frozen: Rc<Frozen>,
    range: std::ops::Range<usize>,
}

#[derive(Debug)]
struct Frozen {
    bytes: Vec<u8>,
    /// What they are since the memory was damaged.
    damaged: OnceCell<Vec<u8>>,
}

impl VecPiece {
    /// Flips a bit near its end, where a batch's last value is, under all who hold it. Once; then it stays
    /// as it is.
    pub fn damage(&self) {
        self.frozen.damaged.get_or_init(|| {
            let mut bytes = self.frozen.bytes.clone();
            bytes[self.range.end - 16] ^= 1;
            bytes
        });
    }
}

/// Memory without a bound.
#[derive(Debug)]
pub struct Heap;

/// A buffer of so many bytes. Memory of the appenders, not of the core: it is not counted when the
/// core's allocations are.
pub fn buffer(bytes: usize) -> VecBuffer {
    let mut buffer = None;
    allocation_counter::opt_out(|| {
        buffer = Some(VecBuffer {
            bytes: vec![0; bytes],
            filled: 0,
        });
    });
    buffer.expect("just made")
}

impl Buffer for VecBuffer {
    type Piece = VecPiece;

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
    fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
    fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.filled]
    }
    fn spare_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }
    fn commit(&mut self, n: usize) {
        assert!(self.filled + n <= self.bytes.len());
        self.filled += n;
    }
    fn truncate(&mut self, len: usize) {
        assert!(len <= self.filled);
        self.filled = len;
    }
    fn freeze(self) -> VecPiece {
        let mut piece = None;
        let range = 0..self.filled;
        allocation_counter::opt_out(|| {
            let frozen = Rc::new(Frozen {
                bytes: self.bytes,
                damaged: OnceCell::new(),
            });
            piece = Some(VecPiece { frozen, range });
        });
        piece.expect("just made")
    }
}

impl Piece for VecPiece {
    fn bytes(&self) -> &[u8] {
        let bytes = self.frozen.damaged.get().unwrap_or(&self.frozen.bytes);
        &bytes[self.range.clone()]
    }
    fn slice(&self, range: std::ops::Range<usize>) -> Self {
        assert!(range.end <= self.range.len());
        Self {
            frozen: Rc::clone(&self.frozen),
            range: self.range.start + range.start..self.range.start + range.end,
        }
    }
}

impl Memory for Heap {
    type Buffer = VecBuffer;
    type Piece = VecPiece;

    fn take(&mut self, at_least: usize) -> Option<VecBuffer> {
        Some(buffer(at_least))
    }
}
