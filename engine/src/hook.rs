//! Telling the application what was not delivered, and making dead letters of it.
//!
//! On a thread of its own (in embedded mode: the application's, at the end of each turn), because the
//! application's code may take its time, and may wait for what shards and controller do: send to
//! another topic, ask for one. Nobody waits for this thread but `close`.
//!
//! One thing at a time, in this order: dead letters that failed, because their memory is what other
//! letters wait for; the letters being made, until they have to wait for the topic or for memory;
//! reports. A batch that becomes dead letters is first read into memory of the heap, decompressed at
//! most to the size it had, and its own memory given back: letters never wait for memory that only
//! letters could free.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ringpost_core::directory::TopicError;
use ringpost_core::outcome::Verdict;
use ringpost_core::partition::{Sticky, murmur2_partition};
use ringpost_memory::{Pool, SegmentMut, Take};

use crate::dead_letter::{DeadLetterError, Origin};
use crate::lane::{Lane, Refused};
use crate::panics::goes_well;
use crate::record::{Header, Record, Value};
use crate::reports::{Candidate, FailedLetters, Reports};
use crate::shared::{Shared, TopicFuture, TopicState};
use crate::undelivered::{OnUndelivered, Opened, Undelivered};

/// See the module's doc.
pub(crate) struct Hook {
    call: Option<OnUndelivered>,
    producer: Arc<Shared>,
    letters: Option<LetterWriter>,
}

/// Makes dead letters.
struct LetterWriter {
    topic: Arc<str>,
    /// Memory set aside for them.
    pool: Pool,
    asked: Option<TopicFuture>,
    job: Option<Job>,
    wait: Option<Take>,
    grant: Option<SegmentMut>,
    sticky: Sticky,
    bell: Waker,
}

/// A batch on its way into letters.
struct Job {
    origin: Arc<Origin>,
    batch: Arc<Opened>,
    done: u32,
}

/// How far a job came.
enum Came {
    /// All its letters are made.
    Through,
    /// It waits for the topic or for memory.
    Waits,
    /// These records became none, for this reason; it goes on behind them.
    Failed(std::ops::Range<u32>, Box<DeadLetterError>),
}

impl Hook {
    pub(crate) fn new(call: Option<OnUndelivered>, producer: Arc<Shared>, seed: u64) -> Self {
        let letters = producer
            .letter_pool
            .clone()
            .zip(producer.reports.dead_letter_topic().map(Arc::clone));
        let letters = letters.map(|(pool, topic)| LetterWriter {
            topic,
            pool,
            asked: None,
            job: None,
            wait: None,
            grant: None,
            sticky: Sticky::new(seed),
            bell: Waker::from(Arc::clone(&producer.reports)),
        });
        Self {
            call,
            producer,
            letters,
        }
    }

    /// The loop of its own thread, until nothing more can come.
    pub(crate) fn run(mut self) {
        loop {
            let more = self.reports().wait();
            self.work();
            if !more {
                self.give_up();
                return;
            }
        }
    }

    fn reports(&self) -> &Arc<Reports> {
        &self.producer.reports
    }

    /// Does what can be done now.
    pub(crate) fn work(&mut self) {
        while self.step() {}
    }

    /// Everything has ended: what still waits is reported.
    pub(crate) fn give_up(&mut self) {
        self.work();
        while let Some(job) = self.letters.as_mut().and_then(|letters| letters.job.take()) {
            let rest = job.done..job.batch.records;
            let origin = job.origin.failure.clone();
            self.report_not_made(&job, rest, DeadLetterError::Closed { origin });
            self.settled(job);
            self.work();
        }
    }

    /// One thing. `false`: there is nothing to do, or all of it has to wait.
    fn step(&mut self) -> bool {
        if let Some(failed) = self.reports().take_failed_letters() {
            self.report_failed_letters(failed);
            return true;
        }
        if self.write_letters() {
            return true;
        }
        let Some(report) = self.reports().take_report() else {
            return false;
        };
        self.report(&report);
        true
    }

    fn report(&self, batch: &Undelivered) {
        let Some(call) = &self.call else { return };
        // The application's code: its panic is its own, the producer goes on.
        if !goes_well(|| call(batch)) {
            self.producer.count_panics(1);
        }
    }

    /// Letters of several origins may lie in a batch, and records of the application between them.
    fn report_failed_letters(&self, failed: FailedLetters) {
        let FailedLetters {
            letters,
            unwatched,
            batch,
        } = failed;
        let (letter, unknown) = match batch.verdict() {
            Verdict::NotWritten(failure) => (failure.clone(), false),
            Verdict::Unknown(failure) => (failure.clone(), true),
            Verdict::Acked { .. } | Verdict::Sent => return,
        };
        let Some(opened) = batch.open() else { return };
        let opened = Arc::new(opened);
        let mut reported = 0;
        for run in letters.into_runs() {
            if unwatched && reported < run.records.start {
                self.report(&batch.part(&opened, reported..run.records.start));
            }
            reported = run.records.end;
            let (origin, letter) = (run.origin.failure.clone(), letter.clone());
            let error = if unknown {
                DeadLetterError::Unknown { origin, letter }
            } else {
                DeadLetterError::NotWritten { origin, letter }
            };
            let lost = Undelivered::lost_letters(&run.origin, &opened, run.records, error);
            self.report(&lost);
        }
        if unwatched && reported < opened.records {
            self.report(&batch.part(&opened, reported..opened.records));
        }
        drop(batch);
        self.producer.notify_flushes();
    }

    fn report_not_made(&self, job: &Job, records: std::ops::Range<u32>, error: DeadLetterError) {
        if records.is_empty() {
            return;
        }
        self.reports().letters_not_made(records.len() as u64);
        self.report(&Undelivered::lost_letters(
            &job.origin,
            &job.batch,
            records,
            error,
        ));
    }

    /// Lets go of a job; its letters may be settled already.
    fn settled(&self, job: Job) {
        drop(job);
        self.producer.notify_flushes();
    }

    /// Goes on with the letters under way, or begins others. `false`: there are none, or they wait.
    fn write_letters(&mut self) -> bool {
        let Some(letters) = &mut self.letters else {
            return false;
        };
        let mut job = match letters.job.take() {
            Some(job) => job,
            None => {
                let Some(Candidate { origin, batch, .. }) = self.producer.reports.take_candidate()
                else {
                    return false;
                };
                let Some(opened) = Opened::read(&batch) else {
                    self.producer.reports.letters_not_made(batch.records.into());
                    // Its letters will never be: that settles them.
                    drop((origin, batch));
                    self.producer.notify_flushes();
                    return true;
                };
                // Its memory is free from here on.
                drop(batch);
                Job {
                    origin,
                    batch: Arc::new(opened),
                    done: 0,
                }
            }
        };
        let came = letters.go_on(&mut job, &self.producer);
        match came {
            Came::Through => {
                letters.rest();
                self.settled(job);
                true
            }
            Came::Waits => {
                letters.job = Some(job);
                false
            }
            Came::Failed(records, error) => {
                self.report_not_made(&job, records, *error);
                if job.done == job.batch.records {
                    self.settled(job);
                } else if let Some(letters) = &mut self.letters {
                    letters.job = Some(job);
                }
                true
            }
        }
    }
}

impl LetterWriter {
    /// Between two batches: keeps no memory, and no choice of a partition.
    fn rest(&mut self) {
        self.grant = None;
        self.sticky.release();
    }

    fn go_on(&mut self, job: &mut Job, producer: &Shared) -> Came {
        let origin_failure = || job.origin.failure.clone();
        let topic = match self.find_topic(producer) {
            Poll::Ready(Ok(topic)) => topic,
            Poll::Ready(Err(topic)) => {
                let rest = job.done..job.batch.records;
                let origin = origin_failure();
                job.done = job.batch.records;
                tracing::error!(%topic, "the dead-letter topic cannot be used");
                return Came::Failed(rest, Box::new(DeadLetterError::Topic { origin, topic }));
            }
            Poll::Pending => return Came::Waits,
        };
        let batch = Arc::clone(&job.batch);
        let mut touched: Vec<Arc<Lane>> = Vec::new();
        let came = self.append_all(job, &batch, &topic, &mut touched);
        for lane in touched {
            // Letters do not linger.
            lane.hurry();
        }
        came
    }

    fn append_all(
        &mut self,
        job: &mut Job,
        batch: &Opened,
        topic: &TopicState,
        touched: &mut Vec<Arc<Lane>>,
    ) -> Came {
        let lanes = topic.lanes.load();
        for view in batch.records(job.done..batch.records) {
            let headers: Vec<Header<'_>> = view.headers().chain(job.origin.headers()).collect();
            let record = Record {
                key: view.key,
                value: view.value.map(Value::Copied),
                headers: &headers,
                timestamp_ms: Some(batch.base_timestamp_ms.wrapping_add(view.timestamp_delta)),
                partition: None,
            };
            let count = u32::try_from(lanes.len()).unwrap_or(u32::MAX);
            let chosen = match record.key {
                Some(key) if count > 0 => murmur2_partition(key, count).0.cast_unsigned(),
                _ => self.sticky.choose(&topic.routing.avoidance.routes(&lanes)),
            };
            // A lane whose shard is gone takes nothing; a letter is better elsewhere than nowhere.
            let (before, from) = lanes.split_at((chosen as usize).min(lanes.len()));
            let mut refused = Refused::Closed;
            let taken = from.iter().chain(before).find(|lane| {
                match self.append(lane, &record, &job.origin) {
                    Ok(()) => true,
                    Err(Refused::Closed) => false,
                    Err(other) => {
                        refused = other;
                        true
                    }
                }
            });
            match (taken, &refused) {
                (Some(lane), Refused::Closed) => {
                    if !touched.iter().any(|known| Arc::ptr_eq(known, lane)) {
                        touched.push(Arc::clone(lane));
                    }
                    job.done += 1;
                }
                (Some(_), Refused::Memory { .. }) => return Came::Waits,
                (Some(_), _) => {
                    let only = job.done..job.done + 1;
                    job.done += 1;
                    let origin = job.origin.failure.clone();
                    return Came::Failed(only, Box::new(DeadLetterError::TooLarge { origin }));
                }
                (None, _) => {
                    let rest = job.done..batch.records;
                    job.done = batch.records;
                    let origin = job.origin.failure.clone();
                    return Came::Failed(rest, Box::new(DeadLetterError::Closed { origin }));
                }
            }
        }
        Came::Through
    }

    /// Appends a letter, with memory that was set aside for letters if there is no other.
    fn append(
        &mut self,
        lane: &Lane,
        record: &Record<'_>,
        origin: &Arc<Origin>,
    ) -> Result<(), Refused> {
        loop {
            if let Some(wait) = &mut self.wait {
                let mut cx = Context::from_waker(&self.bell);
                match Pin::new(wait).poll(&mut cx) {
                    Poll::Pending => return Err(Refused::Memory { bytes: 0 }),
                    Poll::Ready(result) => {
                        self.wait = None;
                        self.grant = result.ok();
                    }
                }
            }
            let bytes = match lane.append_letter(record, origin, &mut self.grant) {
                Err(Refused::Memory { bytes }) => bytes,
                done => return done,
            };
            if bytes > self.pool.segment_bytes_max() {
                return Err(too_large(bytes, self.pool.segment_bytes_max()));
            }
            self.grant = None;
            self.wait = Some(self.pool.take(bytes, u64::MAX));
        }
    }

    fn find_topic(&mut self, producer: &Shared) -> Poll<Result<Arc<TopicState>, TopicError>> {
        if let Some(known) = producer.known_topic(&self.topic) {
            return Poll::Ready(Ok(known));
        }
        let asked = self
            .asked
            .get_or_insert_with(|| producer.topic(&self.topic));
        let mut cx = Context::from_waker(&self.bell);
        let found = Pin::new(asked).poll(&mut cx);
        if found.is_ready() {
            self.asked = None;
        }
        found
    }
}

fn too_large(bytes: usize, bytes_max: usize) -> Refused {
    Refused::TooLarge {
        bytes,
        bytes_max,
        setting: "memory",
    }
}
