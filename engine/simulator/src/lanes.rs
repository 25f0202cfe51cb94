//! The appenders' side: lanes with real open batches over plain vectors, as the engine's lanes are,
//! without locks and without a bound on memory.

use std::cell::OnceCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use ringpost_broker::numbering;
use ringpost_codec::compress::{Codec, Compressed, Compression, Compressor, decompress};
use ringpost_codec::record_batch::Attributes;
use ringpost_core::batch::{CutBatch, Fields, Fit, OpenBatch, Part};
use ringpost_core::buffer::{Buffer, Memory, Piece};
use ringpost_core::dispatch::{Backlog, Supply, Take};
use ringpost_core::id::LaneId;
use ringpost_core::seal::Squeeze;
use ringpost_core::time::Time;

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

/// Compresses bodies, as the engine's does.
#[derive(Default)]
pub struct Squeezer {
    /// How.
    pub compression: Compression,
    compressor: Compressor,
    out: Vec<u8>,
}

impl std::fmt::Debug for Squeezer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Squeezer")
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

impl Squeeze for Squeezer {
    fn squeeze<B: Buffer>(
        &mut self,
        parts: &[Part<B>],
        limit: usize,
    ) -> Option<(&[u8], Attributes)> {
        if self.compression.codec() == Codec::None {
            return None;
        }
        self.out.clear();
        let mut pieces = parts.iter().map(Part::bytes);
        let compressed = self
            .compressor
            .compress(self.compression, &mut pieces, &mut self.out, limit)
            .expect("compressors work");
        let attributes = Attributes::new(self.compression.codec());
        (compressed == Compressed::Smaller).then_some((&self.out[..], attributes))
    }

    fn unsqueeze(
        &mut self,
        body: &[u8],
        attributes: Attributes,
        len_max: usize,
    ) -> Option<Vec<u8>> {
        decompress(attributes.codec().ok()?, body, len_max).ok()
    }
}

/// The numbers of a batch's records, in order: comes back with the verdict.
pub type Ticket = Vec<u64>;

#[derive(Debug)]
struct Open {
    batch: OpenBatch<VecBuffer>,
    records: Ticket,
    opened: Time,
    /// All its records may go to any partition.
    free: bool,
}

#[derive(Debug)]
struct Cut {
    batch: CutBatch<VecBuffer>,
    records: Ticket,
    opened: Time,
    free: bool,
}

/// The place of one partition.
#[derive(Debug)]
pub struct TestLane {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// The next record's number.
    pub next: u64,
    /// Those of its records that may go to any partition.
    pub free: BTreeSet<u64>,
    open: Option<Open>,
    cut: VecDeque<Cut>,
    bytes: usize,
    hurry: bool,
    /// Batches end here, because larger ones are refused.
    pub narrow: Option<usize>,
}

/// All lanes, and how many of the next looks find the lock taken or no slab.
#[derive(Debug, Default)]
pub struct Lanes {
    /// By lane id.
    pub lanes: Vec<TestLane>,
    /// Lanes that got something since the dispatcher last looked.
    pub ready: BTreeSet<u32>,
    /// Batches are cut at this size.
    pub batch_bytes: usize,
    /// So many of the next looks at a lane find its lock taken.
    pub busy: u32,
    /// So many of the next slabs are refused.
    pub no_slab: u32,
    spare: Vec<Vec<Part<VecBuffer>>>,
    /// Compresses bodies; not at all, unless a test says how.
    pub squeezer: Squeezer,
}

impl Lanes {
    /// No lanes yet.
    pub fn new(batch_bytes: usize) -> Self {
        Self {
            batch_bytes,
            ..Self::default()
        }
    }

    /// A lane more; its id is its place.
    pub fn add(&mut self, topic: &str, partition: i32) -> LaneId {
        let id = u32::try_from(self.lanes.len()).expect("few lanes");
        self.lanes.push(TestLane {
            topic: topic.to_owned(),
            partition,
            next: 0,
            free: BTreeSet::new(),
            open: None,
            cut: VecDeque::new(),
            bytes: 0,
            hurry: false,
            narrow: None,
        });
        LaneId(id)
    }

    /// Appends a record with a value of `len` bytes that begins with the lane and the record's
    /// number, as the engine's lane would. Returns the number.
    pub fn append(&mut self, now: Time, id: LaneId, len: usize) -> u64 {
        self.append_bound(now, id, len, false).0
    }

    /// As [`Lanes::append`], a record that may go to any partition. Also says whether a batch was cut,
    /// and how long the record is on the wire.
    pub fn append_free(&mut self, now: Time, id: LaneId, len: usize) -> (u64, bool, usize) {
        self.append_bound(now, id, len, true)
    }

    fn append_bound(
        &mut self,
        now: Time,
        id: LaneId,
        len: usize,
        free: bool,
    ) -> (u64, bool, usize) {
        let lane = &mut self.lanes[id.index()];
        let batch_bytes = lane
            .narrow
            .map_or(self.batch_bytes, |narrow| narrow.min(self.batch_bytes));
        let number = lane.next;
        lane.next += 1;
        if free {
            lane.free.insert(number);
        }
        let (mut cut, bytes) = (false, lane.bytes);
        let mut value = vec![0xab; len.max(numbering::STAMP_LEN)];
        numbering::stamp(&mut value, u64::from(id.0), number);
        let fields = Fields {
            timestamp_ms: i64::try_from(now.0 / 1_000_000).expect("early"),
            key: None,
            value: Some(&value),
            headers: &[],
        };
        loop {
            let open = lane.open.get_or_insert_with(|| Open {
                batch: OpenBatch::new(fields.timestamp_ms, self.spare.pop().unwrap_or_default()),
                records: Vec::new(),
                opened: now,
                free: true,
            });
            let size = open.batch.measure(&fields);
            match open.batch.fit(&size, batch_bytes) {
                Fit::NeedsBuffer(at_least) => {
                    let bytes = open.batch.next_buffer_bytes(at_least);
                    open.batch.add_buffer(buffer(bytes));
                }
                Fit::BatchFull => {
                    lane.cut_open();
                    cut = true;
                }
                Fit::Fits => {
                    open.batch.append(&fields, &size);
                    open.records.push(number);
                    open.free &= free;
                    lane.bytes += size.total;
                    if open.batch.wire_len() >= batch_bytes {
                        lane.cut_open();
                        cut = true;
                    }
                    break;
                }
            }
        }
        let bytes = lane.bytes - bytes;
        self.ready.insert(id.0);
        (number, cut, bytes)
    }

    /// Somebody waits for the lane to be empty.
    pub fn flush(&mut self, id: LaneId) {
        let lane = &mut self.lanes[id.index()];
        lane.hurry = lane.bytes > 0;
        self.ready.insert(id.0);
    }

    fn is_busy(&mut self) -> bool {
        let busy = self.busy > 0;
        self.busy = self.busy.saturating_sub(1);
        busy
    }
}

impl TestLane {
    fn cut_open(&mut self) {
        if let Some(open) = self.open.take() {
            self.cut.push_back(Cut {
                batch: open.batch.cut(),
                records: open.records,
                opened: open.opened,
                free: open.free,
            });
        }
    }

    fn give(&mut self, cut: Cut) -> Take<VecBuffer, Ticket> {
        self.bytes -= cut.batch.body_len;
        if self.bytes == 0 {
            self.hurry = false;
        }
        Take::Batch {
            cut: cut.batch,
            ticket: cut.records,
            opened: cut.opened,
            free: cut.free,
            more: self.backlog(),
        }
    }

    fn backlog(&self) -> Backlog {
        if self.bytes == 0 {
            return Backlog::Empty;
        }
        let oldest = self.cut.front().map(|cut| cut.opened);
        let oldest = oldest.or_else(|| self.open.as_ref().map(|open| open.opened));
        Backlog::Waiting {
            bytes: self.bytes,
            now: self.hurry || !self.cut.is_empty(),
            oldest: oldest.expect("there are bytes"),
        }
    }
}

impl Supply for Lanes {
    type Memory = Heap;
    type Ticket = Ticket;

    fn backlog(&mut self, lane: LaneId) -> Backlog {
        if self.is_busy() {
            return Backlog::Busy;
        }
        self.lanes[lane.index()].backlog()
    }

    fn take(&mut self, lane: LaneId) -> Take<VecBuffer, Ticket> {
        if self.is_busy() {
            return Take::Busy;
        }
        let lane = &mut self.lanes[lane.index()];
        if lane.cut.is_empty() {
            allocation_counter::opt_out(|| lane.cut_open());
        }
        match lane.cut.pop_front() {
            Some(cut) => lane.give(cut),
            None => Take::Empty,
        }
    }

    fn take_free(&mut self, lane: LaneId) -> Take<VecBuffer, Ticket> {
        if self.is_busy() {
            return Take::Busy;
        }
        let lane = &mut self.lanes[lane.index()];
        if !lane.cut.iter().any(|cut| cut.free) && lane.open.as_ref().is_some_and(|o| o.free) {
            lane.cut_open();
        }
        let place = lane.cut.iter().position(|cut| cut.free);
        match place.and_then(|place| lane.cut.remove(place)) {
            Some(cut) => lane.give(cut),
            None => Take::Empty,
        }
    }

    fn slab(&mut self, at_least: usize) -> Option<VecBuffer> {
        if self.no_slab > 0 {
            self.no_slab -= 1;
            return None;
        }
        Some(buffer(at_least))
    }

    fn recycle(&mut self, parts: Vec<Part<VecBuffer>>) {
        allocation_counter::opt_out(|| self.spare.push(parts));
    }

    fn narrow(&mut self, lane: LaneId, bytes: Option<usize>) {
        self.lanes[lane.index()].narrow = bytes;
    }

    fn divide(&mut self, ticket: &mut Ticket, at: u32) -> Ticket {
        ticket.split_off(usize::try_from(at).expect("few records"))
    }

    fn squeeze(&mut self) -> &mut impl Squeeze {
        &mut self.squeezer
    }
}
