//! Dead letters: records that could not be delivered, produced to a topic of their own, with where
//! they were going and why they did not get there in headers.
//!
//! Set with [`Builder::dead_letter_topic`](crate::Builder::dead_letter_topic). The key, the value, the
//! timestamp and the record's own headers are kept; behind those come the headers named here, in
//! text, so that every tool can read them:
//!
//! | header | value |
//! |---|---|
//! | [`TOPIC`] | the topic it was sent to |
//! | [`PARTITION`] | the partition, in decimal |
//! | [`OUTCOME`] | `not-written`, or `unknown` for a record that may be in its topic too |
//! | [`WHY`] | what ended it |
//! | [`ATTEMPTS`] | how often it was sent, in decimal |
//! | [`FIRST_ERROR`], [`LAST_ERROR`] | what the first and the last failed attempt met; absent when it was never sent |
//! | [`APPENDED_MS`] | when its batch's first record was appended, in milliseconds since 1970 |
//! | [`FAILED_MS`] | when it was given up, likewise |
//!
//! [`DeadLetter::read`] reads them back. A dead letter that cannot be written is no dead letter
//! again: it is reported to [`on_undelivered`](crate::Builder::on_undelivered), with an
//! [error](crate::Undelivered::dead_letter_error) that tells both failures.
//!
//! An eighth of `memory` is set aside for dead letters. At most a quarter of the rest may be held by
//! records that wait to become one; those beyond are counted in
//! [`DeadLetterStats::dropped`](crate::DeadLetterStats::dropped). Flush and close wait for dead
//! letters; [`Stats`](crate::Stats) counts them.
//!
//! ```no_run
//! use ringpost::{Producer, Record};
//! let producer = Producer::builder()
//!     .bootstrap("127.0.0.1:9092")
//!     .dead_letter_topic("orders-dead")
//!     .dead_letter_expired(true)
//!     .build()?;
//! let outcome = producer.topic_blocking("orders")?.send_blocking(Record::value(b"hello"))?.wait();
//! println!("{outcome:?}; what was not written is in orders-dead");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::sync::Arc;

use ringpost_codec::record::RecordView;
use ringpost_core::directory::TopicError;
use ringpost_core::outcome::{Failure, Verdict};

use crate::record::Header;
use crate::reports::Reports;

/// Header: the topic the record was sent to.
pub const TOPIC: &str = "ringpost.dead-letter.topic";
/// Header: the partition it was sent to, in decimal.
pub const PARTITION: &str = "ringpost.dead-letter.partition";
/// Header: `not-written` or `unknown`.
pub const OUTCOME: &str = "ringpost.dead-letter.outcome";
/// Header: what ended it.
pub const WHY: &str = "ringpost.dead-letter.why";
/// Header: how often it was sent, in decimal.
pub const ATTEMPTS: &str = "ringpost.dead-letter.attempts";
/// Header: what the first failed attempt met.
pub const FIRST_ERROR: &str = "ringpost.dead-letter.error.first";
/// Header: what the last failed attempt met.
pub const LAST_ERROR: &str = "ringpost.dead-letter.error.last";
/// Header: when its batch's first record was appended, in milliseconds since 1970.
pub const APPENDED_MS: &str = "ringpost.dead-letter.appended-ms";
/// Header: when it was given up, in milliseconds since 1970.
pub const FAILED_MS: &str = "ringpost.dead-letter.failed-ms";

/// Where a dead letter comes from, as its headers have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// The topic it was sent to.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// It may be in its topic too.
    pub perhaps_written: bool,
    /// What ended it.
    pub why: &'a str,
    /// How often it was sent.
    pub attempts: u32,
    /// What the first failed attempt met.
    pub first_error: Option<&'a str>,
    /// What the last failed attempt met.
    pub last_error: Option<&'a str>,
    /// When its batch's first record was appended, in milliseconds since 1970.
    pub appended_ms: i64,
    /// When it was given up, likewise.
    pub failed_ms: i64,
}

impl<'a> DeadLetter<'a> {
    /// Reads the headers of a record; of names that come twice the last counts. `None`: it is no
    /// dead letter.
    #[must_use]
    pub fn read(record: &RecordView<'a>) -> Option<Self> {
        Self::from_headers(record.headers())
    }

    /// As [`DeadLetter::read`], from headers as another client gives them.
    ///
    /// ```
    /// use ringpost::{Header, dead_letter::{self, DeadLetter}};
    /// let header = |key, value: &'static str| Header { key, value: Some(value.as_bytes()) };
    /// let headers = [
    ///     header("trace", "7f"),
    ///     header(dead_letter::TOPIC, "orders"),
    ///     header(dead_letter::PARTITION, "3"),
    ///     header(dead_letter::OUTCOME, "not-written"),
    ///     header(dead_letter::WHY, "the broker refused it"),
    ///     header(dead_letter::ATTEMPTS, "1"),
    ///     header(dead_letter::APPENDED_MS, "1700000000000"),
    ///     header(dead_letter::FAILED_MS, "1700000000250"),
    /// ];
    /// let letter = DeadLetter::from_headers(headers).expect("a dead letter");
    /// assert_eq!((letter.topic, letter.partition, letter.last_error), ("orders", 3, None));
    /// assert!(DeadLetter::from_headers(headers[..1].iter().copied()).is_none());
    /// ```
    #[must_use]
    pub fn from_headers(headers: impl IntoIterator<Item = Header<'a>>) -> Option<Self> {
        const NAMES: [&str; 9] = [
            TOPIC,
            PARTITION,
            OUTCOME,
            WHY,
            ATTEMPTS,
            FIRST_ERROR,
            LAST_ERROR,
            APPENDED_MS,
            FAILED_MS,
        ];
        let mut found = [None; NAMES.len()];
        for header in headers {
            if let Some(at) = NAMES.iter().position(|name| *name == header.key) {
                found[at] = std::str::from_utf8(header.value?).ok();
            }
        }
        let [
            topic,
            partition,
            outcome,
            why,
            attempts,
            first_error,
            last_error,
            appended,
            failed,
        ] = found;
        Some(Self {
            topic: topic?,
            partition: partition?.parse().ok()?,
            perhaps_written: outcome? == UNKNOWN,
            why: why?,
            attempts: attempts?.parse().ok()?,
            first_error,
            last_error,
            appended_ms: appended?.parse().ok()?,
            failed_ms: failed?.parse().ok()?,
        })
    }
}

const NOT_WRITTEN: &str = "not-written";
const UNKNOWN: &str = "unknown";

/// A record was not delivered, and neither was its dead letter. The text tells the first failure, and
/// the [`source`](std::error::Error::source) the second.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// The dead letter is certainly not written.
    #[error("{origin:#}; and its dead letter was not written")]
    NotWritten {
        /// Why the record was not delivered.
        origin: Failure,
        /// Why the dead letter was not.
        #[source]
        letter: Failure,
    },
    /// The dead letter may or may not be written.
    #[error("{origin:#}; and its dead letter may not be written")]
    Unknown {
        /// Why the record was not delivered.
        origin: Failure,
        /// Why it is not known.
        #[source]
        letter: Failure,
    },
    /// The dead-letter topic cannot be used. Create it, or allow producing to it.
    #[error("{origin:#}; and the dead-letter topic cannot be used")]
    Topic {
        /// Why the record was not delivered.
        origin: Failure,
        /// Why the topic cannot be used.
        #[source]
        topic: TopicError,
    },
    /// With the headers that tell its origin the record is too large. Raise `request_bytes_max`, or
    /// `memory`.
    #[error("{origin:#}; and its dead letter would be too large")]
    TooLarge {
        /// Why the record was not delivered.
        origin: Failure,
    },
    /// The producer was closed before the dead letter could be made.
    #[error("{origin:#}; and the producer was closed before its dead letter could be made")]
    Closed {
        /// Why the record was not delivered.
        origin: Failure,
    },
}

/// A batch whose records become dead letters. As long as it lives one of them is not settled.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) verdict: Verdict,
    pub(crate) failure: Failure,
    headers: Vec<(&'static str, String)>,
    /// Counted by these under this number.
    reports: Arc<Reports>,
    number: u64,
}

impl Origin {
    pub(crate) fn new(
        topic: Arc<str>,
        partition: i32,
        verdict: Verdict,
        failed_ms: i64,
        reports: Arc<Reports>,
        number: u64,
    ) -> Self {
        let (outcome, failure) = match &verdict {
            Verdict::NotWritten(failure) => (NOT_WRITTEN, failure.clone()),
            Verdict::Unknown(failure) => (UNKNOWN, failure.clone()),
            Verdict::Acked { .. } | Verdict::Sent => unreachable!("only failures become letters"),
        };
        let appended_ms = failed_ms - i64::from(failure.after_ms);
        let mut headers = vec![
            (TOPIC, (*topic).to_owned()),
            (PARTITION, partition.to_string()),
            (OUTCOME, outcome.to_owned()),
            (WHY, failure.why.to_string()),
            (ATTEMPTS, failure.attempts.to_string()),
        ];
        let errors = [(FIRST_ERROR, &failure.first), (LAST_ERROR, &failure.last)];
        for (name, cause) in errors {
            headers.extend(
                cause
                    .as_ref()
                    .map(|cause| (name, bounded(&cause.to_string()))),
            );
        }
        headers.push((APPENDED_MS, appended_ms.to_string()));
        headers.push((FAILED_MS, failed_ms.to_string()));
        Self {
            topic,
            partition,
            verdict,
            failure,
            headers,
            reports,
            number,
        }
    }

    /// What is put behind a record's own headers.
    pub(crate) fn headers(&self) -> impl Iterator<Item = Header<'_>> {
        self.headers.iter().map(|(key, value)| Header {
            key,
            value: Some(value.as_bytes()),
        })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.reports.origin_settled(self.number);
    }
}

/// Strangers' words go into every letter: at most 1 KiB of them.
fn bounded(text: &str) -> String {
    const BYTES_MAX: usize = 1 << 10;
    let end = (0..=BYTES_MAX.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}

/// The dead letters in a batch.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    runs: Vec<Run>,
}

/// Neighbouring letters of one origin.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) records: std::ops::Range<u32>,
    pub(crate) origin: Arc<Origin>,
}

impl Letters {
    /// One more, at this place in the batch.
    pub(crate) fn push(&mut self, index: u32, origin: &Arc<Origin>) {
        match self.runs.last_mut() {
            Some(run) if Arc::ptr_eq(&run.origin, origin) && run.records.end == index => {
                run.records.end = index + 1;
            }
            _ => self.runs.push(Run {
                records: index..index + 1,
                origin: Arc::clone(origin),
            }),
        }
    }

    /// The batch is divided: what belongs to its first `at` records stays, the rest is given back.
    pub(crate) fn divide(&mut self, at: u32) -> Self {
        let mut rest = Vec::new();
        self.runs.retain_mut(|run| {
            let cut = run.records.end.min(at).max(run.records.start);
            if cut < run.records.end {
                rest.push(Run {
                    records: cut - at.min(cut)..run.records.end - at,
                    origin: Arc::clone(&run.origin),
                });
            }
            run.records.end = cut;
            !run.records.is_empty()
        });
        Self { runs: rest }
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        let counts = self.runs.iter().map(|run| run.records.len() as u64);
        counts.sum()
    }

    pub(crate) fn into_runs(self) -> Vec<Run> {
        self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_words_are_cut_between_letters() {
        let text = format!("{}ä", "x".repeat(1023));
        assert_eq!(bounded(&text), "x".repeat(1023));
        assert_eq!(bounded("short"), "short");
    }

    #[test]
    fn letters_of_an_origin_beside_each_other_are_one_run() {
        let reports = Arc::new(Reports::for_tests());
        let origin = || {
            let failure = Failure::new(ringpost_core::outcome::Why::Rejected);
            let verdict = Verdict::NotWritten(failure);
            Arc::new(Origin::new(
                "t".into(),
                1,
                verdict,
                5,
                Arc::clone(&reports),
                1,
            ))
        };
        let (a, b) = (origin(), origin());
        let mut letters = Letters::default();
        for (index, origin) in [(0, &a), (1, &a), (3, &a), (4, &b)] {
            letters.push(index, origin);
        }
        assert_eq!(letters.count(), 4);
        let rest = letters.divide(1);
        let ranges = |letters: Letters| -> Vec<_> {
            letters
                .into_runs()
                .into_iter()
                .map(|run| run.records)
                .collect()
        };
        assert_eq!(ranges(rest), [0..1, 2..3, 3..4]);
        assert_eq!(letters.count(), 1);
    }

    #[test]
    fn a_divided_batch_has_each_letter_once() {
        let reports = Arc::new(Reports::for_tests());
        let origin = || {
            let failure = Failure::new(ringpost_core::outcome::Why::Rejected);
            let verdict = Verdict::NotWritten(failure);
            Arc::new(Origin::new(
                "t".into(),
                1,
                verdict,
                5,
                Arc::clone(&reports),
                1,
            ))
        };
        let (a, b) = (origin(), origin());
        let mut letters = Letters::default();
        for (index, origin) in [(0, &a), (1, &a), (3, &a), (4, &b)] {
            letters.push(index, origin);
        }
        let runs: Vec<_> = letters
            .into_runs()
            .into_iter()
            .map(|run| run.records)
            .collect();
        assert_eq!(runs, [0..2, 3..4, 4..5]);
    }
}
