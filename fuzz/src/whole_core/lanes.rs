//! The appenders' side: lanes with real open batches in memory of a real pool.
//!
//! Segments that come back are overwritten (the pool's feature `poison`), so bytes that are read after
//! they should have been let go show themselves.

use std::collections::{BTreeSet, VecDeque};

use ringpost_core::batch::{CutBatch, Fields, Fit, OpenBatch, Part};
use ringpost_core::dispatch::{Backlog, Supply, Take};
use ringpost_core::id::LaneId;
use ringpost_core::seal::{Plain, Squeeze};
use ringpost_core::time::Time;
use ringpost_memory::{Pool, SegmentMut};

/// The numbers of a batch's records, in order: comes back with the verdict.
pub(super) type Ticket = Vec<u64>;

/// A value begins with the lane and the record's number.
pub(super) const STAMP_LEN: usize = 16;

#[derive(Debug)]
struct Open {
    batch: OpenBatch<SegmentMut>,
    records: Ticket,
    opened: Time,
}

#[derive(Debug)]
struct Cut {
    batch: CutBatch<SegmentMut>,
    records: Ticket,
    opened: Time,
}

#[derive(Debug, Default)]
struct Lane {
    open: Option<Open>,
    cut: VecDeque<Cut>,
    bytes: usize,
    hurry: bool,
    next: u64,
}

#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    pub(super) pool: Pool,
    pub(super) slabs: Pool,
    pub(super) batch_bytes: usize,
    /// Lanes that got something since the dispatcher last looked.
    pub(super) ready: BTreeSet<u32>,
    /// So many of the next looks at a lane find its lock taken.
    pub(super) busy: u32,
    /// So many of the next slabs are refused.
    pub(super) no_slab: u32,
    squeezer: Plain,
}

impl Lanes {
    pub(super) fn new(memory: usize, batch_bytes: usize) -> Self {
        let pool = |bytes, largest| Pool::new(bytes, largest).expect("address space");
        Self {
            lanes: Vec::new(),
            pool: pool(memory, 64 << 10),
            slabs: pool(4 << 20, 512 << 10),
            batch_bytes,
            ready: BTreeSet::new(),
            busy: 0,
            no_slab: 0,
            squeezer: Plain,
        }
    }

    pub(super) fn add(&mut self) -> LaneId {
        let id = u32::try_from(self.lanes.len()).expect("few lanes");
        self.lanes.push(Lane::default());
        LaneId(id)
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Appends a record, if there is memory. Its number in the lane.
    pub(super) fn append(&mut self, now: Time, id: LaneId, len: usize) -> Option<u64> {
        let lane = &mut self.lanes[id.index()];
        let number = lane.next;
        let mut value = vec![0xab; len.max(STAMP_LEN)];
        value[..8].copy_from_slice(&u64::from(id.0).to_be_bytes());
        value[8..16].copy_from_slice(&number.to_be_bytes());
        let fields = Fields {
            timestamp_ms: i64::try_from(now.0 / 1_000_000).expect("early"),
            key: None,
            value: Some(&value),
            headers: &[],
        };
        loop {
            let open = lane.open.get_or_insert_with(|| Open {
                batch: OpenBatch::new(fields.timestamp_ms, Vec::new()),
                records: Vec::new(),
                opened: now,
            });
            let size = open.batch.measure(&fields);
            match open.batch.fit(&size, self.batch_bytes) {
                Fit::NeedsBuffer(at_least) => {
                    let wished = open.batch.next_buffer_bytes(at_least);
                    let buffer = self.pool.try_take(wished);
                    let Some(buffer) = buffer.or_else(|| self.pool.try_take(at_least)) else {
                        if open.batch.records() == 0 {
                            lane.open = None;
                        }
                        return None;
                    };
                    open.batch.add_buffer(buffer);
                }
                Fit::BatchFull => lane.cut_open(),
                Fit::Fits => {
                    open.batch.append(&fields, &size);
                    open.records.push(number);
                    lane.bytes += size.total;
                    lane.next += 1;
                    self.ready.insert(id.0);
                    return Some(number);
                }
            }
        }
    }

    /// Somebody waits for the lane to be empty.
    pub(super) fn flush(&mut self, id: LaneId) {
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

impl Lane {
    fn cut_open(&mut self) {
        match self.open.take() {
            Some(open) if open.batch.records() > 0 => self.cut.push_back(Cut {
                batch: open.batch.cut(),
                records: open.records,
                opened: open.opened,
            }),
            other => self.open = other,
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
    type Memory = Pool;
    type Ticket = Ticket;

    fn backlog(&mut self, lane: LaneId) -> Backlog {
        if self.is_busy() {
            return Backlog::Busy;
        }
        self.lanes[lane.index()].backlog()
    }

    fn take(&mut self, lane: LaneId) -> Take<SegmentMut, Ticket> {
        if self.is_busy() {
            return Take::Busy;
        }
        let lane = &mut self.lanes[lane.index()];
        if lane.cut.is_empty() {
            lane.cut_open();
        }
        let Some(cut) = lane.cut.pop_front() else {
            return Take::Empty;
        };
        lane.bytes -= cut.batch.body_len;
        if lane.bytes == 0 {
            lane.hurry = false;
        }
        Take::Batch {
            cut: cut.batch,
            ticket: cut.records,
            opened: cut.opened,
            free: false,
            more: lane.backlog(),
        }
    }

    fn slab(&mut self, at_least: usize) -> Option<SegmentMut> {
        if self.no_slab > 0 {
            self.no_slab -= 1;
            return None;
        }
        self.slabs.try_take(at_least)
    }

    fn recycle(&mut self, _: Vec<Part<SegmentMut>>) {}

    /// What is larger than wished is divided.
    fn narrow(&mut self, _: LaneId, _: Option<usize>) {}

    fn divide(&mut self, ticket: &mut Ticket, at: u32) -> Ticket {
        ticket.split_off(usize::try_from(at).expect("few records"))
    }

    fn squeeze(&mut self) -> &mut impl Squeeze {
        &mut self.squeezer
    }
}
