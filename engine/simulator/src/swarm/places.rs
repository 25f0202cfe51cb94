//! The lanes of one shard as its appenders and its dispatcher see them: real open batches over
//! tokens, within the memory bound.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use ringpost_codec::compress::{Codec, Compressed, Compression, Compressor, decompress};
use ringpost_codec::record_batch::Attributes;
use ringpost_core::batch::{CutBatch, Fields, Fit, OpenBatch, Part};
use ringpost_core::buffer::{Buffer, Memory};
use ringpost_core::dispatch::{Backlog, Supply, Take};
use ringpost_core::id::LaneId;
use ringpost_core::seal::Squeeze;
use ringpost_core::time::Time;

use super::token::{Bank, TokenBuffer};

/// The records of a batch: they come back with its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The run's number of the lane they were appended to.
    pub lane: u32,
    /// The number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
}

#[derive(Debug)]
struct Open {
    batch: OpenBatch<TokenBuffer>,
    ticket: Ticket,
    opened: Time,
    /// All its records may go to any partition.
    free: bool,
}

#[derive(Debug)]
struct Cut {
    batch: CutBatch<TokenBuffer>,
    ticket: Ticket,
    opened: Time,
    free: bool,
}

/// One lane.
#[derive(Debug)]
pub struct Place {
    /// The run's number of the lane.
    pub number: u32,
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    open: Option<Open>,
    cut: VecDeque<Cut>,
    bytes: usize,
    hurry: bool,
    /// Batches end here, because larger ones are refused.
    narrow: Option<usize>,
}

/// There is no memory; a buffer of so many bytes would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full(pub usize);

/// All lanes of a shard.
#[derive(Debug)]
pub struct Places {
    /// By the shard's lane id.
    pub places: Vec<Place>,
    /// Lanes that got something since the dispatcher last looked.
    pub ready: BTreeSet<u32>,
    /// So many of the next looks at a lane find its lock taken.
    pub busy: u32,
    /// So many of the next slabs are refused.
    pub no_slab: u32,
    batch_bytes: usize,
    bank: Bank,
    slabs: Bank,
    spare: Vec<Vec<Part<TokenBuffer>>>,
    squeezer: Squeezer,
}

impl Places {
    /// None yet.
    #[must_use]
    pub fn new(batch_bytes: usize, compression: Compression, bank: Bank, slabs: Bank) -> Self {
        Self {
            places: Vec::new(),
            ready: BTreeSet::new(),
            busy: 0,
            no_slab: 0,
            batch_bytes,
            bank,
            slabs,
            spare: Vec::new(),
            squeezer: Squeezer {
                compression,
                compressor: Compressor::new(),
                out: Vec::new(),
            },
        }
    }

    /// A lane more; its id is its place.
    pub fn add(&mut self, number: u32, topic: &Arc<str>, partition: i32) -> LaneId {
        let id = u32::try_from(self.places.len()).expect("few lanes");
        self.places.push(Place {
            number,
            topic: Arc::clone(topic),
            partition,
            open: None,
            cut: VecDeque::new(),
            bytes: 0,
            hurry: false,
            narrow: None,
        });
        LaneId(id)
    }

    /// Appends a record, as the engine's lane does. `now` is the time, and what the wall clock shows in
    /// ms. `bound`: it must go to the lane's partition. `given`
    /// is memory that was waited for, used if it is needed.
    ///
    /// # Errors
    /// [`Full`], and the record is not appended.
    pub fn append(
        &mut self,
        (now, stamped_ms): (Time, i64),
        id: LaneId,
        number: u64,
        bound: bool,
        value: &[u8],
        mut given: Option<TokenBuffer>,
    ) -> Result<(), Full> {
        let place = &mut self.places[id.index()];
        let batch_bytes = place
            .narrow
            .map_or(self.batch_bytes, |narrow| narrow.min(self.batch_bytes));
        let fields = Fields {
            timestamp_ms: stamped_ms,
            key: None,
            value: Some(value),
            headers: &[],
        };
        loop {
            let open = place.open.get_or_insert_with(|| Open {
                batch: OpenBatch::new(fields.timestamp_ms, self.spare.pop().unwrap_or_default()),
                ticket: Ticket {
                    lane: place.number,
                    first: number,
                    count: 0,
                },
                opened: now,
                free: true,
            });
            let size = open.batch.measure(&fields);
            match open.batch.fit(&size, batch_bytes) {
                Fit::NeedsBuffer(at_least) => {
                    let fits = |buffer: &TokenBuffer| buffer.capacity() >= at_least;
                    let buffer = given.take().filter(fits).or_else(|| {
                        let grown = open.batch.next_buffer_bytes(at_least);
                        let bank = &mut self.bank;
                        bank.take(grown).or_else(|| bank.take(at_least))
                    });
                    let Some(buffer) = buffer else {
                        if open.ticket.count == 0 {
                            place.open = None;
                        }
                        return Err(Full(at_least));
                    };
                    open.batch.add_buffer(buffer);
                }
                Fit::BatchFull => place.cut_open(),
                Fit::Fits => {
                    open.batch.append(&fields, &size);
                    open.ticket.count += 1;
                    open.free &= !bound;
                    place.bytes += size.total;
                    if open.batch.wire_len() >= batch_bytes {
                        place.cut_open();
                    }
                    break;
                }
            }
        }
        self.ready.insert(id.0);
        Ok(())
    }

    /// A batch that claims to hold so many records, and has one; no record of anybody's: see `priming`.
    /// `false`: there is no memory for it.
    pub(super) fn prime(&mut self, now: Time, id: LaneId, records: u32) -> bool {
        let number = self.places[id.index()].number;
        let fields = Fields {
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: &[],
        };
        let mut batch = OpenBatch::new(0, Vec::new());
        let size = batch.measure(&fields);
        let Some(buffer) = self.bank.take(size.total) else {
            return false;
        };
        batch.add_buffer(buffer);
        batch.append(&fields, &size);
        let mut batch = batch.cut();
        batch.records = records;
        let place = &mut self.places[id.index()];
        place.bytes += batch.body_len;
        place.cut.push_back(Cut {
            batch,
            ticket: Ticket {
                lane: number,
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
        let place = &mut self.places[id.index()];
        place.hurry = place.bytes > 0;
        if place.hurry {
            self.ready.insert(id.0);
        }
    }

    /// Somebody waits for all lanes to be empty, or for memory.
    pub fn flush_all(&mut self) {
        for id in 0..u32::try_from(self.places.len()).expect("few lanes") {
            self.flush(LaneId(id));
        }
    }

    fn is_busy(&mut self) -> bool {
        let busy = self.busy > 0;
        self.busy = self.busy.saturating_sub(1);
        busy
    }
}

impl Place {
    fn cut_open(&mut self) {
        if let Some(open) = self.open.take() {
            self.cut.push_back(Cut {
                batch: open.batch.cut(),
                ticket: open.ticket,
                opened: open.opened,
                free: open.free,
            });
        }
    }

    fn give(&mut self, cut: Cut) -> Take<TokenBuffer, Ticket> {
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

impl Supply for Places {
    type Memory = Bank;
    type Ticket = Ticket;

    fn backlog(&mut self, lane: LaneId) -> Backlog {
        if self.is_busy() {
            return Backlog::Busy;
        }
        self.places[lane.index()].backlog()
    }

    fn take(&mut self, lane: LaneId) -> Take<TokenBuffer, Ticket> {
        if self.is_busy() {
            return Take::Busy;
        }
        let place = &mut self.places[lane.index()];
        if place.cut.is_empty() {
            place.cut_open();
        }
        match place.cut.pop_front() {
            Some(cut) => place.give(cut),
            None => Take::Empty,
        }
    }

    fn take_free(&mut self, lane: LaneId) -> Take<TokenBuffer, Ticket> {
        if self.is_busy() {
            return Take::Busy;
        }
        let place = &mut self.places[lane.index()];
        if !place.cut.iter().any(|cut| cut.free) && place.open.as_ref().is_some_and(|o| o.free) {
            place.cut_open();
        }
        let oldest = place.cut.iter().position(|cut| cut.free);
        match oldest.and_then(|oldest| place.cut.remove(oldest)) {
            Some(cut) => place.give(cut),
            None => Take::Empty,
        }
    }

    fn slab(&mut self, at_least: usize) -> Option<TokenBuffer> {
        if self.no_slab > 0 {
            self.no_slab -= 1;
            return None;
        }
        self.slabs.take(at_least)
    }

    fn recycle(&mut self, parts: Vec<Part<TokenBuffer>>) {
        if self.spare.len() < 64 {
            self.spare.push(parts);
        }
    }

    fn narrow(&mut self, lane: LaneId, bytes: Option<usize>) {
        self.places[lane.index()].narrow = bytes;
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

/// The compressor of a shard, as the engine's.
struct Squeezer {
    compression: Compression,
    compressor: Compressor,
    out: Vec<u8>,
}

impl std::fmt::Debug for Squeezer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Squeezer").field(&self.compression).finish()
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
        let done = self
            .compressor
            .compress(self.compression, &mut pieces, &mut self.out, limit);
        match done {
            Ok(Compressed::Smaller) => Some((&self.out, Attributes::new(self.compression.codec()))),
            Ok(Compressed::NotWorthIt) | Err(_) => None,
        }
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
