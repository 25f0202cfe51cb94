//! The appenders' side of one shard: lanes with real open batches, as the engine's are, without locks,
//! over whatever memory a test has.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use ringpost_broker::numbering;
use ringpost_core::batch::{CutBatch, Fields, Fit, OpenBatch, Part};
use ringpost_core::buffer::{Buffer, Memory};
use ringpost_core::dispatch::{Backlog, Supply, Take};
use ringpost_core::id::LaneId;
use ringpost_core::seal::Squeeze;
use ringpost_core::time::Time;

use crate::squeezer::Squeezer;

/// Lists of parts that are kept to be used again.
const SPARE_MAX: usize = 64;

/// The records of a batch: they come back with its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The test's number of the lane they were appended to.
    pub lane: u32,
    /// The number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Ticket {
    /// The records' numbers.
    #[must_use]
    pub fn numbers(&self) -> Range<u64> {
        self.first..self.first + self.count
    }
}

#[derive(Debug)]
struct Open<B: Buffer> {
    batch: OpenBatch<B>,
    ticket: Ticket,
    opened: Time,
    /// All its records may go to any partition.
    free: bool,
}

#[derive(Debug)]
struct Cut<B: Buffer> {
    batch: CutBatch<B>,
    ticket: Ticket,
    opened: Time,
    free: bool,
}

/// The place of one partition.
#[derive(Debug)]
pub struct Lane<B: Buffer> {
    /// The test's number of the lane.
    pub number: u32,
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Batches end here, because larger ones are refused.
    pub narrow: Option<usize>,
    /// Of each record, by its number: whether it may go to any partition.
    free: Vec<bool>,
    open: Option<Open<B>>,
    cut: VecDeque<Cut<B>>,
    bytes: usize,
    hurry: bool,
}

/// A record to append. Its number is that of the records appended to its lane before.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its time, in ms.
    pub timestamp_ms: i64,
    /// Its value; it has no key and no headers.
    pub value: &'a [u8],
    /// It may go to any partition.
    pub free: bool,
}

/// What came of appending a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its number in its lane.
    pub number: u64,
    /// How long it is on the wire.
    pub wire_bytes: usize,
    /// A batch was cut, before it or behind it.
    pub cut: bool,
}

/// There is no memory; a buffer of so many bytes would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full(pub usize);

/// All lanes of a shard.
#[derive(Debug)]
pub struct Lanes<M: Memory> {
    /// By lane id.
    pub lanes: Vec<Lane<M::Buffer>>,
    /// Lanes that got something since the dispatcher last looked.
    pub ready: BTreeSet<u32>,
    /// Batches are cut at this size.
    pub batch_bytes: usize,
    /// So many of the next looks at a lane find its lock taken.
    pub busy: u32,
    /// So many of the next slabs are refused.
    pub no_slab: u32,
    /// What records are written to.
    pub records: M,
    /// What requests' headers and compressed bodies are written to.
    pub slabs: M,
    /// Compresses bodies; not at all, unless a test says how.
    pub squeezer: Squeezer,
    spare: Vec<Vec<Part<M::Buffer>>>,
}

impl<M: Memory> Lanes<M> {
    /// No lanes yet.
    pub fn new(batch_bytes: usize, records: M, slabs: M) -> Self {
        Self {
            lanes: Vec::new(),
            ready: BTreeSet::new(),
            batch_bytes,
            busy: 0,
            no_slab: 0,
            records,
            slabs,
            squeezer: Squeezer::default(),
            spare: Vec::new(),
        }
    }

    /// A lane more; its id is its place. `number` is the test's own for it.
    pub fn add(&mut self, number: u32, topic: &Arc<str>, partition: i32) -> LaneId {
        let id = u32::try_from(self.lanes.len()).expect("few lanes");
        self.lanes.push(Lane {
            number,
            topic: Arc::clone(topic),
            partition,
            narrow: None,
            free: Vec::new(),
            open: None,
            cut: VecDeque::new(),
            bytes: 0,
            hurry: false,
        });
        LaneId(id)
    }

    /// Appends a record, as the engine's lane does. `given` is memory that was waited for, used if it is
    /// needed.
    ///
    /// # Errors
    /// [`Full`], and the record is not appended.
    pub fn append(
        &mut self,
        now: Time,
        id: LaneId,
        entry: Entry<'_>,
        mut given: Option<M::Buffer>,
    ) -> Result<Appended, Full> {
        let lane = &mut self.lanes[id.index()];
        let batch_bytes = lane
            .narrow
            .map_or(self.batch_bytes, |narrow| narrow.min(self.batch_bytes));
        let number = lane.appended();
        let fields = Fields {
            timestamp_ms: entry.timestamp_ms,
            key: None,
            value: Some(entry.value),
            headers: &[],
        };
        let mut cut = false;
        let wire_bytes = loop {
            let open = lane.open.get_or_insert_with(|| Open {
                batch: OpenBatch::new(entry.timestamp_ms, self.spare.pop().unwrap_or_default()),
                ticket: Ticket {
                    lane: lane.number,
                    first: number,
                    count: 0,
                },
                opened: now,
                free: true,
            });
            let size = open.batch.measure(&fields);
            match open.batch.fit(&size, batch_bytes) {
                Fit::NeedsBuffer(at_least) => {
                    let fits = |buffer: &M::Buffer| buffer.capacity() >= at_least;
                    let buffer = given.take().filter(fits).or_else(|| {
                        let grown = open.batch.next_buffer_bytes(at_least);
                        let memory = &mut self.records;
                        memory.take(grown).or_else(|| memory.take(at_least))
                    });
                    let Some(buffer) = buffer else {
                        if open.ticket.count == 0 {
                            lane.open = None;
                        }
                        return Err(Full(at_least));
                    };
                    open.batch.add_buffer(buffer);
                }
                Fit::BatchFull => {
                    lane.cut_open();
                    cut = true;
                }
                Fit::Fits => {
                    open.batch.append(&fields, &size);
                    open.ticket.count += 1;
                    open.free &= entry.free;
                    if open.batch.wire_len() >= batch_bytes {
                        lane.cut_open();
                        cut = true;
                    }
                    break size.total;
                }
            }
        };
        lane.bytes += wire_bytes;
        lane.free.push(entry.free);
        self.ready.insert(id.0);
        Ok(Appended {
            number,
            wire_bytes,
            cut,
        })
    }

    /// Appends a record with a value of `len` bytes that begins with the lane and the record's number.
    ///
    /// # Errors
    /// [`Full`], and the record is not appended.
    pub fn append_stamped(
        &mut self,
        now: Time,
        id: LaneId,
        len: usize,
        free: bool,
    ) -> Result<Appended, Full> {
        let lane = &self.lanes[id.index()];
        let mut value = vec![0xab; len.max(numbering::STAMP_LEN)];
        numbering::stamp(&mut value, u64::from(lane.number), lane.appended());
        let entry = Entry {
            timestamp_ms: i64::try_from(now.0 / 1_000_000).expect("early"),
            value: &value,
            free,
        };
        self.append(now, id, entry, None)
    }

    /// A batch that claims to hold so many records, and has one; no record of anybody's: see the swarm's
    /// `priming`. `false`: there is no memory for it.
    pub(crate) fn prime(&mut self, now: Time, id: LaneId, records: u32) -> bool {
        let fields = Fields {
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: &[],
        };
        let mut batch = OpenBatch::new(0, Vec::new());
        let size = batch.measure(&fields);
        let Some(buffer) = self.records.take(size.total) else {
            return false;
        };
        batch.add_buffer(buffer);
        batch.append(&fields, &size);
        let mut batch = batch.cut();
        batch.records = records;
        let lane = &mut self.lanes[id.index()];
        lane.bytes += batch.body_len;
        lane.cut.push_back(Cut {
            batch,
            ticket: Ticket {
                lane: lane.number,
                first: 0,
                count: 0,
            },
            opened: now,
            free: false,
        });
        self.ready.insert(id.0);
        true
    }

    /// Somebody waits for the lane to be empty.
    pub fn flush(&mut self, id: LaneId) {
        let lane = &mut self.lanes[id.index()];
        lane.hurry = lane.bytes > 0;
        if lane.hurry {
            self.ready.insert(id.0);
        }
    }

    /// Somebody waits for all lanes to be empty, or for memory.
    pub fn flush_all(&mut self) {
        for id in 0..u32::try_from(self.lanes.len()).expect("few lanes") {
            self.flush(LaneId(id));
        }
    }

    fn is_busy(&mut self) -> bool {
        let busy = self.busy > 0;
        self.busy = self.busy.saturating_sub(1);
        busy
    }
}

impl<B: Buffer> Lane<B> {
    /// So many records were appended; the next one's number.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.free.len() as u64
    }

    /// Whether a record may go to any partition.
    #[must_use]
    pub fn is_free(&self, number: u64) -> bool {
        let index = usize::try_from(number).expect("few records");
        self.free[index]
    }

    /// In an appender's time, so its memory is not counted as the core's.
    fn cut_open(&mut self) {
        allocation_counter::opt_out(|| {
            if let Some(open) = self.open.take() {
                self.cut.push_back(Cut {
                    batch: open.batch.cut(),
                    ticket: open.ticket,
                    opened: open.opened,
                    free: open.free,
                });
            }
        });
    }

    fn give(&mut self, cut: Cut<B>) -> Take<B, Ticket> {
        self.bytes -= cut.batch.body_len;
        if self.bytes == 0 {
            self.hurry = false;
        }
        Take::Batch {
            cut: cut.batch,
            ticket: cut.ticket,
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

impl<M: Memory> Supply for Lanes<M> {
    type Memory = M;
    type Ticket = Ticket;

    fn backlog(&mut self, lane: LaneId) -> Backlog {
        if self.is_busy() {
            return Backlog::Busy;
        }
        self.lanes[lane.index()].backlog()
    }

    fn take(&mut self, lane: LaneId) -> Take<M::Buffer, Ticket> {
        if self.is_busy() {
            return Take::Busy;
        }
        let lane = &mut self.lanes[lane.index()];
        if lane.cut.is_empty() {
            lane.cut_open();
        }
        match lane.cut.pop_front() {
            Some(cut) => lane.give(cut),
            None => Take::Empty,
        }
    }

    fn take_free(&mut self, lane: LaneId) -> Take<M::Buffer, Ticket> {
        if self.is_busy() {
            return Take::Busy;
        }
        let lane = &mut self.lanes[lane.index()];
        if !lane.cut.iter().any(|cut| cut.free) && lane.open.as_ref().is_some_and(|o| o.free) {
            lane.cut_open();
        }
        let oldest = lane.cut.iter().position(|cut| cut.free);
        match oldest.and_then(|oldest| lane.cut.remove(oldest)) {
            Some(cut) => lane.give(cut),
            None => Take::Empty,
        }
    }

    fn slab(&mut self, at_least: usize) -> Option<M::Buffer> {
        if self.no_slab > 0 {
            self.no_slab -= 1;
            return None;
        }
        self.slabs.take(at_least)
    }

    fn recycle(&mut self, parts: Vec<Part<M::Buffer>>) {
        if self.spare.len() < SPARE_MAX {
            allocation_counter::opt_out(|| self.spare.push(parts));
        }
    }

    fn narrow(&mut self, lane: LaneId, bytes: Option<usize>) {
        self.lanes[lane.index()].narrow = bytes;
    }

    fn divide(&mut self, ticket: &mut Ticket, at: u32) -> Ticket {
        let behind = Ticket {
            first: ticket.first + u64::from(at),
            count: ticket.count - u64::from(at),
            ..*ticket
        };
        ticket.count = u64::from(at);
        behind
    }

    fn squeeze(&mut self) -> &mut impl Squeeze {
        &mut self.squeezer
    }
}
