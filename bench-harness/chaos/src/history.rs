//! The history: what a producer was asked to write and what it said became of it.
//!
//! A file is a header, "RPHIST01" and the run's number (8 bytes), then events of 40 bytes, big
//! endian:
//!
//! ```text
//! 0      1   4          8        12          16        24      32         40
//! │ kind │ 0 │ producer │ stream │ partition │ counter │ value │ stamp ns │
//! ```
//!
//! | kind | of | value |
//! |---|---|---|
//! | `S` | the producer started | 0 |
//! | `I` | a record is about to be handed over | its transaction, or 0 |
//! | `O` | it was acknowledged, in `partition` | its offset, or -1 where the ack did not say |
//! | `F` | it is certainly not written | 0 |
//! | `M` | it may be written | 0 |
//! | `E` | the producer was closed in order; no more comes | records that had no outcome |
//!
//! Events go to a pipe that another process keeps ([`keep`](crate::keep)), so that a kill of the
//! producer loses none: a record's `I` is in the pipe before the producer has it. A write of at most
//! 4096 bytes to a pipe is atomic (pipe(7)), which is why any thread may write without a lock.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use crate::clock;

/// The first bytes of a history.
pub const MAGIC: &[u8; 8] = b"RPHIST01";
/// Bytes of the header.
pub const HEADER_LEN: usize = 16;
/// Bytes of an event.
pub const EVENT_LEN: usize = 40;
/// Events that are written at once: at most 4096 bytes.
pub const EVENTS_PER_WRITE: usize = 4096 / EVENT_LEN;

/// What an event is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The producer started.
    Started,
    /// A record is about to be handed over.
    Invoked,
    /// It was acknowledged.
    Ok,
    /// It is certainly not written.
    Fail,
    /// It may be written.
    Maybe,
    /// The producer was closed in order.
    Ended,
}

impl Kind {
    const ALL: [(Self, u8); 6] = [
        (Self::Started, b'S'),
        (Self::Invoked, b'I'),
        (Self::Ok, b'O'),
        (Self::Fail, b'F'),
        (Self::Maybe, b'M'),
        (Self::Ended, b'E'),
    ];

    fn byte(self) -> u8 {
        Self::ALL
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or(0, |(_, byte)| *byte)
    }

    fn of(byte: u8) -> Option<Self> {
        let (kind, _) = Self::ALL.iter().find(|(_, known)| *known == byte)?;
        Some(*kind)
    }
}

/// One line of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What of.
    pub kind: Kind,
    /// The producer process.
    pub producer: u32,
    /// The record's stream.
    pub stream: u32,
    /// Where it belongs, or was acknowledged; -1 for "open".
    pub partition: i32,
    /// The record's counter.
    pub counter: u64,
    /// See the module's table.
    pub value: i64,
    /// On the machine's monotonic clock.
    pub stamp_ns: u64,
}

impl Event {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; EVENT_LEN] {
        let mut bytes = [0; EVENT_LEN];
        bytes[0] = self.kind.byte();
        bytes[4..8].copy_from_slice(&self.producer.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.stream.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.partition.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.counter.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.value.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.stamp_ns.to_be_bytes());
        bytes
    }

    /// An event from its bytes; `None` for a kind that does not exist.
    #[must_use]
    pub fn read(bytes: &[u8; EVENT_LEN]) -> Option<Self> {
        fn field<const N: usize>(bytes: &[u8; EVENT_LEN], at: usize) -> [u8; N] {
            let mut field = [0; N];
            field.copy_from_slice(&bytes[at..at + N]);
            field
        }
        Some(Self {
            kind: Kind::of(bytes[0])?,
            producer: u32::from_be_bytes(field(bytes, 4)),
            stream: u32::from_be_bytes(field(bytes, 8)),
            partition: i32::from_be_bytes(field(bytes, 12)),
            counter: u64::from_be_bytes(field(bytes, 16)),
            value: i64::from_be_bytes(field(bytes, 24)),
            stamp_ns: u64::from_be_bytes(field(bytes, 32)),
        })
    }
}

/// The events of a kept history.
///
/// # Errors
/// When it cannot be opened, or is none.
pub fn events(path: &Path) -> io::Result<impl Iterator<Item = Event>> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut header = [0; HEADER_LEN];
    file.read_exact(&mut header)?;
    if !header.starts_with(MAGIC) {
        return Err(io::Error::other("it does not begin as a history does"));
    }
    Ok(std::iter::from_fn(move || {
        let mut bytes = [0; EVENT_LEN];
        file.read_exact(&mut bytes).ok()?;
        Event::read(&bytes)
    }))
}

/// The writing end, one per thread.
#[derive(Debug)]
pub struct Recorder {
    pipe: File,
    producer: u32,
    waiting: Vec<u8>,
}

impl Recorder {
    /// Opens `path`, a pipe that is kept, or a file.
    ///
    /// # Errors
    /// As opening does.
    pub fn open(path: &Path, run: u64, producer: u32) -> io::Result<Self> {
        let mut pipe = OpenOptions::new().append(true).create(true).open(path)?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&run.to_be_bytes());
        pipe.write_all(&header)?;
        let mut recorder = Self::over(pipe, producer);
        recorder.note(Kind::Started, 0, -1, 0, 0)?;
        recorder.flush()?;
        Ok(recorder)
    }

    fn over(pipe: File, producer: u32) -> Self {
        Self {
            pipe,
            producer,
            waiting: Vec::with_capacity(EVENTS_PER_WRITE * EVENT_LEN),
        }
    }

    /// One for another thread.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn another(&self) -> io::Result<Self> {
        Ok(Self::over(self.pipe.try_clone()?, self.producer))
    }

    /// Notes an event, stamped now; it is in the pipe after [`Recorder::flush`].
    ///
    /// # Errors
    /// When whoever keeps the history is gone: then the run proves nothing and has to end.
    pub fn note(
        &mut self,
        kind: Kind,
        stream: u32,
        partition: i32,
        counter: u64,
        value: i64,
    ) -> io::Result<()> {
        let event = Event {
            kind,
            producer: self.producer,
            stream,
            partition,
            counter,
            value,
            stamp_ns: clock::now_ns(),
        };
        self.waiting.extend_from_slice(&event.bytes());
        if self.waiting.len() == EVENTS_PER_WRITE * EVENT_LEN {
            self.flush()?;
        }
        Ok(())
    }

    /// Everything noted is in the pipe.
    ///
    /// # Errors
    /// As [`Recorder::note`].
    pub fn flush(&mut self) -> io::Result<()> {
        let written = self.pipe.write_all(&self.waiting);
        self.waiting.clear();
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_its_bytes() {
        for (kind, _) in Kind::ALL {
            let event = Event {
                kind,
                producer: 1,
                stream: u32::MAX,
                partition: -1,
                counter: u64::MAX,
                value: -1,
                stamp_ns: 7,
            };
            assert_eq!(Event::read(&event.bytes()), Some(event));
        }
        assert_eq!(Event::read(&[b'?'; EVENT_LEN]), None);
    }
}
