//! How long a topic's log is, by its leaders' own word: how a run against brokers that are not its
//! children checks its count.
//!
//! The sum of the latest offsets of all partitions is asked before the first record and after the last
//! has settled. What the log grew by is compared with what was acked: fewer means that acked records
//! are missing, for certain. More means duplicates *or* another writer, which nobody can tell apart
//! from offsets. Order and content are not looked at: `ringpost-bench broker` does that for all its
//! clients together, and prints it when it ends.

use ringpost_codec::error::DecodeError;
use ringpost_codec::kafka::{ApiKey, ErrorCode};
use ringpost_codec::reader::{Form, Reader};
use serde::{Deserialize, Serialize};

use crate::client::link::{Broken, Link, find_leaders, retried, said};

/// ListOffsets, <https://kafka.apache.org/protocol.html#The_Messages_ListOffsets>. Version 1 is the
/// oldest that brokers still speak; the codec has no need of it.
const LIST_OFFSETS: ApiKey = ApiKey(2);
const LIST_OFFSETS_VERSION: i16 = 1;
/// The timestamp that stands for the end.
const LATEST: i64 = -1;

/// What the log of the topic says about the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogGrowth {
    /// Records by which the log became longer between start and end of the run.
    pub records: u64,
    /// Acked, and not in the log: lost, or the log was cut.
    pub missing: u64,
    /// In the log, and neither acked nor of unknown fate: duplicates, or another writer's.
    pub surplus: u64,
}

impl LogGrowth {
    /// Of a log that was `before` and is `after`, when `good` records were acked (or sent) and
    /// `unknown` more may be there.
    pub fn of(before: u64, after: u64, good: u64, unknown: u64) -> Self {
        let records = after.saturating_sub(before);
        Self {
            records,
            missing: good.saturating_sub(records),
            surplus: records.saturating_sub(good + unknown),
        }
    }
}

/// The sum of the latest offsets of all partitions of `topic`.
pub fn log_end(brokers: &[String], topic: &str) -> Result<u64, String> {
    let leaders = find_leaders(brokers, topic)?;
    let mut sum = 0;
    for (leader, partitions) in leaders {
        sum += end_at(&leader, topic, &partitions).map_err(|Broken(why)| why)?;
    }
    Ok(sum)
}

fn end_at(leader: &str, topic: &str, partitions: &[i32]) -> Result<u64, Broken> {
    let mut link = Link::connect(leader)?;
    // A leader that was just elected may not have its log open yet.
    retried(|| {
        let body = link.ask(LIST_OFFSETS, LIST_OFFSETS_VERSION, |writer| {
            writer.i32(-1); // no replica: a client
            writer.array_len(Form::Classic, 1);
            writer.string(Form::Classic, topic);
            writer.array_len(Form::Classic, partitions.len());
            for partition in partitions {
                writer.i32(*partition);
                writer.i64(LATEST);
            }
            Ok(())
        })?;
        let answers = read(&mut Reader::new(body))
            .map_err(|error| Broken(format!("{leader}: a broken answer: {error}")))?;
        Ok(sum(leader, partitions, &answers))
    })
}

/// One partition's answer: its index, what went wrong, the offset.
type End = (i32, ErrorCode, i64);

fn read(reader: &mut Reader<'_>) -> Result<Vec<End>, DecodeError> {
    let mut ends = Vec::new();
    let topics = reader.array_len(Form::Classic, 6, "list_offsets.topics")?;
    for _ in 0..topics {
        reader.string(Form::Classic, "list_offsets.topics.name")?;
        let partitions = reader.array_len(Form::Classic, 22, "list_offsets.topics.partitions")?;
        for _ in 0..partitions {
            let index = reader.i32("list_offsets.partition_index")?;
            let error = ErrorCode(reader.i16("list_offsets.error_code")?);
            reader.i64("list_offsets.timestamp")?;
            ends.push((index, error, reader.i64("list_offsets.offset")?));
        }
    }
    Ok(ends)
}

fn sum(leader: &str, asked: &[i32], answers: &[End]) -> Result<u64, String> {
    let mut sum = 0;
    for partition in asked {
        let found = answers.iter().find(|(index, ..)| index == partition);
        let (_, error, offset) =
            found.ok_or_else(|| format!("{leader}: says nothing of partition {partition}"))?;
        if !error.is_ok() {
            return Err(format!("{leader}: partition {partition}: {}", said(*error)));
        }
        let offset = u64::try_from(*offset);
        sum += offset.map_err(|_| format!("{leader}: partition {partition} has no end"))?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use ringpost_broker::{Server, ServerConfig};

    use super::*;

    #[test]
    fn a_log_that_grew_by_something_else_is_told() {
        let growth = |before, after, good, unknown| {
            let LogGrowth {
                records,
                missing,
                surplus,
            } = LogGrowth::of(before, after, good, unknown);
            (records, missing, surplus)
        };
        assert_eq!(growth(10, 110, 100, 0), (100, 0, 0));
        assert_eq!(growth(10, 109, 100, 0), (99, 1, 0));
        assert_eq!(
            growth(10, 105, 90, 10),
            (95, 0, 0),
            "some of the unknown are there"
        );
        assert_eq!(growth(10, 112, 90, 10), (102, 0, 2));
        assert_eq!(growth(10, 5, 3, 0), (0, 3, 0), "the log was made anew");
    }

    #[test]
    fn the_ends_of_a_new_topics_log_are_at_zero() {
        let server = Server::start(ServerConfig::default()).expect("a port");
        let brokers = [server.bootstrap()];
        assert_eq!(log_end(&brokers, "t"), Ok(0));
        server.shutdown();
        let gone = log_end(&brokers, "t").expect_err("it has ended");
        assert!(gone.contains(&brokers[0]), "{gone}");
    }

    #[test]
    fn answers_that_are_cut_off_or_name_others_are_refused() {
        let mut answer = Vec::new();
        let mut writer = ringpost_codec::writer::Writer::new(&mut answer);
        writer.array_len(Form::Classic, 1);
        writer.string(Form::Classic, "t");
        writer.array_len(Form::Classic, 1);
        writer.i32(3);
        writer.i16(0);
        writer.i64(-1);
        writer.i64(77);
        let ends = read(&mut Reader::new(&answer)).expect("whole");
        assert_eq!(sum("b", &[3], &ends), Ok(77));
        assert!(sum("b", &[2], &ends).is_err());
        for len in 0..answer.len() {
            assert!(read(&mut Reader::new(&answer[..len])).is_err(), "{len}");
        }
        let failed = [(3, ErrorCode(6), -1)];
        let why = sum("b", &[3], &failed).expect_err("not the leader");
        assert!(why.contains("NOT_LEADER"), "{why}");
    }
}
