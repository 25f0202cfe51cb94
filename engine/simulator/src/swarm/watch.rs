//! An onlooker between core and driver: counts what is in flight by what was handed over and what
//! came back, without asking the core.

use std::collections::{BTreeMap, VecDeque};

use ringpost_codec::kafka::header::RequestHeader;
use ringpost_codec::kafka::produce::{self, TopicRef};
use ringpost_codec::reader::Reader;
use ringpost_codec::record_batch::BatchView;

/// Most batches of one producer id and partition a broker remembers.
const WINDOW: usize = 5;

/// Who writes to which partition.
type Line = (i64, [u8; 16], i32);

/// What one connection has asked and not been answered.
#[derive(Debug, Default)]
pub struct Asked {
    questions: VecDeque<Vec<Line>>,
    /// Bytes of the answer that is being received which are still to come; the first four are its
    /// length.
    left: usize,
    length: Vec<u8>,
}

/// What is in flight, over all connections.
#[derive(Debug, Default)]
pub struct Watch {
    in_flight: BTreeMap<Line, usize>,
    /// The most there ever were.
    pub most: usize,
}

fn line_of(topic: TopicRef<'_>) -> [u8; 16] {
    match topic {
        TopicRef::Id(id) => id,
        TopicRef::Name(name) => {
            let mut key = [0; 16];
            let len = name.len().min(16);
            key[..len].copy_from_slice(&name.as_bytes()[..len]);
            key
        }
    }
}

impl Watch {
    /// A Produce request was handed to the driver.
    ///
    /// # Errors
    /// When it is not well formed, or a sixth batch of a producer id and partition.
    pub fn sent(&mut self, asked: &mut Asked, frame: &[u8]) -> Result<(), String> {
        let bad = |what: &dyn std::fmt::Display| format!("a malformed request: {what}");
        let mut reader = Reader::new(frame);
        let length = reader.i32("length").map_err(|e| bad(&e))?;
        if usize::try_from(length).ok() != Some(frame.len() - 4) {
            return Err(bad(&"its length is wrong"));
        }
        let head = RequestHeader::read(&mut reader).map_err(|e| bad(&e))?;
        let view = produce::decode_request(head.version, reader.rest()).map_err(|e| bad(&e))?;
        let mut lines = Vec::new();
        for topic in view.topics() {
            let key = line_of(topic.topic);
            for partition in topic.partitions {
                let records = partition.records.ok_or_else(|| bad(&"no records"))?;
                let batch = BatchView::parse(records).map_err(|e| bad(&e))?;
                if batch.header.producer_id < 0 {
                    continue;
                }
                let line = (batch.header.producer_id, key, partition.partition);
                let count = self.in_flight.entry(line).or_default();
                *count += 1;
                self.most = self.most.max(*count);
                if *count > WINDOW {
                    return Err(format!(
                        "{count} batches of producer id {} and partition {} are in flight",
                        line.0, line.2
                    ));
                }
                lines.push(line);
            }
        }
        asked.questions.push_back(lines);
        Ok(())
    }

    /// Another question was asked.
    pub fn asked(&mut self, asked: &mut Asked) {
        asked.questions.push_back(Vec::new());
    }

    /// Bytes of answers reach the core.
    pub fn received(&mut self, asked: &mut Asked, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if asked.left == 0 {
                let wanted = (4 - asked.length.len()).min(bytes.len());
                asked.length.extend_from_slice(&bytes[..wanted]);
                bytes = &bytes[wanted..];
                if let Some(length) = asked.length.first_chunk::<4>() {
                    asked.left = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                    asked.length.clear();
                }
                continue;
            }
            let now = asked.left.min(bytes.len());
            asked.left -= now;
            bytes = &bytes[now..];
            if asked.left == 0 {
                let lines = asked.questions.pop_front().unwrap_or_default();
                self.back(&lines);
            }
        }
    }

    /// The connection is gone.
    pub fn closed(&mut self, asked: &mut Asked) {
        for lines in asked.questions.drain(..) {
            self.back(&lines);
        }
    }

    fn back(&mut self, lines: &[Line]) {
        for line in lines {
            if let Some(count) = self.in_flight.get_mut(line) {
                *count -= 1;
                if *count == 0 {
                    self.in_flight.remove(line);
                }
            }
        }
    }
}
