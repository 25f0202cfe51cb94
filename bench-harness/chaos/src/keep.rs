//! The process that keeps a history: it outlives the workload, however that ends.
//!
//! It reads the pipe until every writer is gone and appends whole events to a file. What a killed
//! writer left unfinished (less than one event) is dropped: nothing was handed over for it, as a
//! record follows its event and not the other way round.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use crate::history::{EVENT_LEN, Event, HEADER_LEN, Kind, MAGIC};

/// What was kept.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Records handed over.
    pub invoked: u64,
    /// Of these acknowledged.
    pub ok: u64,
    /// Certainly not written.
    pub fail: u64,
    /// Perhaps written.
    pub maybe: u64,
    /// Whether the producer was closed in order.
    pub ended: bool,
    /// Bytes behind the last whole event.
    pub cut_off: usize,
}

impl Kept {
    fn count(&mut self, event: &Event) {
        match event.kind {
            Kind::Started => {}
            Kind::Invoked => self.invoked += 1,
            Kind::Ok => self.ok += 1,
            Kind::Fail => self.fail += 1,
            Kind::Maybe => self.maybe += 1,
            Kind::Ended => self.ended = true,
        }
    }
}

/// Copies the history from `pipe` to `file` until the pipe ends.
///
/// # Errors
/// When either fails, or what comes is no history.
pub fn keep(pipe: &Path, file: &Path) -> io::Result<Kept> {
    let out = BufWriter::new(File::create(file)?);
    copy(File::open(pipe)?, out)
}

fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<Kept> {
    let mut header = [0; HEADER_LEN];
    from.read_exact(&mut header)?;
    if !header.starts_with(MAGIC) {
        return Err(io::Error::other("what came first is no history's header"));
    }
    to.write_all(&header)?;
    let mut kept = Kept::default();
    let mut buffer = vec![0; 1638 * EVENT_LEN]; // about the 64 KiB a pipe holds
    let mut filled = 0;
    loop {
        let read = match from.read(&mut buffer[filled..]) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if read == 0 {
            break;
        }
        filled += read;
        let whole = filled - filled % EVENT_LEN;
        for bytes in buffer[..whole].as_chunks::<EVENT_LEN>().0 {
            let event = Event::read(bytes)
                .ok_or_else(|| io::Error::other(format!("no kind of event is {}", bytes[0])))?;
            kept.count(&event);
        }
        to.write_all(&buffer[..whole])?;
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
    kept.cut_off = filled;
    to.flush()?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, as a pipe may.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let (now, later) = self.0.split_at(self.0.len().min(self.1).min(buffer.len()));
            self.0 = later;
            buffer[..now.len()].copy_from_slice(now);
            Ok(now.len())
        }
    }

    fn history(kinds: &[Kind]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[0; 8]);
        for &kind in kinds {
            let event = Event {
                kind,
                producer: 1,
                stream: 2,
                partition: 3,
                counter: 4,
                value: 5,
                stamp_ns: 6,
            };
            bytes.extend_from_slice(&event.bytes());
        }
        bytes
    }

    /// The acked list survives the producer's death: whole events are kept, the rest is not.
    #[test]
    fn x1_what_a_killed_producer_left_unfinished_is_dropped_and_nothing_else() {
        let whole = history(&[Kind::Started, Kind::Invoked, Kind::Ok, Kind::Invoked]);
        let cut = &history(&[
            Kind::Started,
            Kind::Invoked,
            Kind::Ok,
            Kind::Invoked,
            Kind::Ok,
        ])[..whole.len() + 17];
        for step in [1, 7, 40, 4096] {
            let mut file = Vec::new();
            let kept = copy(Trickle(cut, step), &mut file).unwrap();
            assert_eq!(file, whole);
            assert_eq!((kept.invoked, kept.ok, kept.ended), (2, 1, false));
            assert_eq!(kept.cut_off, 17);
        }
    }

    #[test]
    fn what_is_no_history_is_refused() {
        let mut bytes = history(&[Kind::Invoked]);
        bytes[HEADER_LEN] = b'?';
        assert!(copy(&bytes[..], Vec::new()).is_err());
        assert!(copy(&b"RPHIST02........"[..], Vec::new()).is_err());
    }
}
