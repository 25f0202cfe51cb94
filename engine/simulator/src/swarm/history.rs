//! What became of every record, and whether the logs agree.
//!
//! The checks, numbered as in any proof of a producer: 1 every acknowledged record lies at the offset
//! it was reported at; 2 the logs hold nothing that was not sent; 3 nothing that was reported as not
//! written; 4 nothing twice; 5 in the order of sending; 6 nothing is missing but what was reported;
//! 7 bytes and topic are those that were sent, and the partition too of a record that is bound to one; 9 every record has exactly one outcome.
//! (8 is about transactions, 10 about progress: see [`super::run`].)

use ringpost_codec::compress::decompress;
use ringpost_codec::reader::Reader;
use ringpost_codec::record_batch::BatchView;
use ringpost_core::outcome::Verdict;

use super::payload::Payload;
use super::places::Ticket;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing yet.
    Pending,
    /// Stored in a lane's partition, at this offset if it was told.
    Acked(u32, Option<i64>),
    /// Handed to the kernel, with `acks=0`.
    Sent,
    /// Certainly not stored.
    NotWritten,
    /// Perhaps stored.
    Unknown,
}

/// One lane's records.
#[derive(Debug)]
pub struct LaneHistory {
    /// Its topic's number.
    pub topic: u32,
    /// Its partition.
    pub partition: i32,
    /// By number.
    pub fates: Vec<Fate>,
    /// By number: whether it must go to this partition.
    pub bound: Vec<bool>,
}

/// How records ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Appended.
    pub records: u64,
    /// Stored.
    pub acked: u64,
    /// With `acks=0`.
    pub sent: u64,
    /// Certainly not stored.
    pub not_written: u64,
    /// Perhaps stored.
    pub unknown: u64,
}

/// All records of a run, by lane.
#[derive(Debug)]
pub struct History {
    run: u64,
    /// By the run's lane number.
    pub lanes: Vec<LaneHistory>,
    pending: usize,
}

impl History {
    /// An empty one.
    #[must_use]
    pub fn new(run: u64) -> Self {
        Self {
            run,
            lanes: Vec::new(),
            pending: 0,
        }
    }

    /// Who the next record of a lane is.
    #[must_use]
    pub fn next(&self, lane: u32, bound: bool) -> Payload {
        let of = &self.lanes[lane as usize];
        Payload {
            run: self.run,
            lane,
            partition: bound.then_some(of.partition),
            topic: of.topic,
            number: of.fates.len() as u64,
        }
    }

    /// It was appended.
    pub fn invoked(&mut self, payload: &Payload) {
        let lane = &mut self.lanes[payload.lane as usize];
        lane.fates.push(Fate::Pending);
        lane.bound.push(payload.partition.is_some());
        self.pending += 1;
    }

    /// How many have no outcome.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// A batch has its verdict, in this lane.
    ///
    /// # Errors
    /// When one of its records had one already, or belongs to another partition than this lane's.
    pub fn settled(&mut self, ticket: Ticket, at: u32, verdict: &Verdict) -> Result<(), String> {
        let (home, end) = (&self.lanes[ticket.lane as usize], &self.lanes[at as usize]);
        if home.topic != end.topic {
            return Err(format!(
                "check 7: records of lane {} ended in lane {at}, which is another topic's",
                ticket.lane
            ));
        }
        let lane = &mut self.lanes[ticket.lane as usize];
        for (place, number) in (0i64..).zip(ticket.first..ticket.first + ticket.count) {
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            let fate = match verdict {
                Verdict::Acked { base_offset, .. } => {
                    Fate::Acked(at, base_offset.map(|base| base + place))
                }
                Verdict::Sent => Fate::Sent,
                Verdict::NotWritten(_) => Fate::NotWritten,
                Verdict::Unknown(_) => Fate::Unknown,
            };
            let Some(known) = lane.fates.get_mut(index) else {
                return Err(format!(
                    "check 9: an outcome for record {number} of lane {}, which was never appended",
                    ticket.lane
                ));
            };
            if *known != Fate::Pending {
                return Err(format!(
                    "check 9: record {number} of lane {} ended as {known:?}, and again as {fate:?}",
                    ticket.lane
                ));
            }
            *known = fate;
            self.pending -= 1;
            if at != ticket.lane && lane.bound[index] {
                return Err(format!(
                    "check 7: record {number} of lane {}, which must go to that partition, ended in \
                     lane {at} as {fate:?}",
                    ticket.lane
                ));
            }
        }
        Ok(())
    }

    /// How records ended.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for fate in self.lanes.iter().flat_map(|lane| &lane.fates) {
            counts.records += 1;
            match fate {
                Fate::Pending => {}
                Fate::Acked(..) => counts.acked += 1,
                Fate::Sent => counts.sent += 1,
                Fate::NotWritten => counts.not_written += 1,
                Fate::Unknown => counts.unknown += 1,
            }
        }
        counts
    }

    /// Compares with the logs. `log` gives the committed batches of a lane's partition, one behind
    /// the other. `once`: with idempotence. `moved`: batches went to other lanes than they were
    /// appended to, so that only those records have an order that must go to their partition.
    ///
    /// # Errors
    /// The first check that fails, in words.
    pub fn check(
        &self,
        once: bool,
        moved: bool,
        log: impl Fn(u32, i32) -> Vec<u8>,
    ) -> Result<(), String> {
        // Where each record was found first, by lane and number.
        let mut found: Vec<Vec<Option<(u32, i64)>>> = Vec::new();
        for lane in &self.lanes {
            found.push(vec![None; lane.fates.len()]);
        }
        for (here, lane) in (0u32..).zip(&self.lanes) {
            let bytes = log(lane.topic, lane.partition);
            let mut last = std::collections::BTreeMap::new();
            self.read(&bytes, |offset, value| {
                let Some(payload) = Payload::read(value) else {
                    return Err(format!(
                        "check 7: damaged bytes at offset {offset} of lane {here}: {:02x?}",
                        &value[..value.len().min(32)]
                    ));
                };
                let Payload {
                    run, lane: from, ..
                } = payload;
                let fates = self.lanes.get(from as usize).map(|l| l.fates.len() as u64);
                if run != self.run || fates.is_none_or(|next| payload.number >= next) {
                    return Err(format!("check 2: {payload:?} was never sent"));
                }
                let misplaced = payload.partition.is_some_and(|p| p != lane.partition);
                if payload.topic != lane.topic || misplaced {
                    return Err(format!(
                        "check 7: {payload:?} lies in partition {} of topic {}",
                        lane.partition, lane.topic
                    ));
                }
                let index = usize::try_from(payload.number).unwrap_or(usize::MAX);
                let place = &mut found[from as usize][index];
                if let Some((other, before)) = place {
                    if once {
                        return Err(format!(
                            "check 4: {payload:?} lies at offset {before} of lane {other} and at \
                             {offset} of lane {here}"
                        ));
                    }
                    // A later copy is as good as the first for where it was reported.
                    let acked = self.lanes[from as usize].fates[index];
                    if acked == Fate::Acked(here, Some(offset)) {
                        *place = Some((here, offset));
                    }
                } else {
                    *place = Some((here, offset));
                }
                if once && (!moved || payload.partition.is_some()) {
                    let before = last.insert(from, payload.number);
                    if before.is_some_and(|before| before > payload.number) {
                        return Err(format!(
                            "check 5: {payload:?} lies at offset {offset} behind record {}",
                            before.unwrap_or_default()
                        ));
                    }
                }
                Ok(())
            })?;
        }
        self.compare(&found)
    }

    fn compare(&self, found: &[Vec<Option<(u32, i64)>>]) -> Result<(), String> {
        for (number, lane) in self.lanes.iter().enumerate() {
            for (record, (fate, place)) in lane.fates.iter().zip(&found[number]).enumerate() {
                let what = |check: &str| {
                    Err(format!(
                        "{check}: record {record} of lane {number} is {fate:?} and lies at {place:?}"
                    ))
                };
                match (fate, place) {
                    (Fate::Pending, _) => return what("check 9"),
                    (Fate::Acked(..), None) => return what("check 1"),
                    (Fate::Acked(lane, _), Some((at, _))) if lane != at => {
                        return what("check 1");
                    }
                    (Fate::Acked(_, Some(offset)), Some((_, at))) if offset != at => {
                        return what("check 1");
                    }
                    (Fate::NotWritten, Some(_)) => return what("check 3"),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn read(
        &self,
        bytes: &[u8],
        mut each: impl FnMut(i64, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let text = |what: &dyn std::fmt::Display| format!("check 7: a damaged log: {what}");
        let mut reader = Reader::new(bytes);
        while !reader.rest().is_empty() {
            let view = BatchView::read(&mut reader).map_err(|e| text(&e))?;
            if !view.crc_ok() {
                return Err(text(&"a batch's checksum is wrong"));
            }
            let codec = view.header.attributes.codec().map_err(|e| text(&e))?;
            let body = decompress(codec, view.body(), 64 << 20).map_err(|e| text(&e))?;
            for (offset, record) in (view.header.base_offset..).zip(view.records_in(&body)) {
                let record = record.map_err(|e| text(&e))?;
                each(offset, record.value.unwrap_or_default())?;
            }
        }
        Ok(())
    }
}
