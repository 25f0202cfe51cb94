//! The workload: records that say where they belong, and a history of what became of each.
//!
//! Two threads beside the engine's: one hands records over, the other drains outcomes. Nothing is
//! remembered per record (the tag has stream and counter), so that the process's peak memory is the
//! engine's. A record's `I` is in the history's pipe before the engine has the record.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ringpost::{
    Cause, Completion, CompletionQueue, Failure, Outcome, Producer, Record, Topic, TrySendError,
};
use ringpost_core::partition::murmur2_partition;

use crate::clock;
use crate::history::{EVENTS_PER_WRITE, Kind, Recorder};
use crate::payload::Payload;

/// How the workload's records find their partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Placement {
    /// The record names it; partitions take turns.
    Explicit,
    /// By key, as Kafka's own client does; keys take turns.
    Keyed,
    /// The producer chooses.
    Keyless,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct LoadOptions {
    /// host:port,... of the cluster
    #[arg(long)]
    pub bootstrap: String,
    /// The topic; it has to exist
    #[arg(long)]
    pub topic: String,
    /// The pipe (or file) that takes the history
    #[arg(long)]
    pub history: PathBuf,
    /// The run's number: records of another run do not count
    #[arg(long)]
    pub run: u64,
    /// This process's number among the run's producers
    #[arg(long)]
    pub producer: u32,
    /// How records find their partitions
    #[arg(long, value_enum, default_value_t = Placement::Explicit)]
    pub placement: Placement,
    /// Keys, with --placement keyed
    #[arg(long, default_value_t = 24)]
    pub keys: u32,
    /// Records per second; 0 sends as fast as the engine takes them
    #[arg(long, default_value_t = 2000)]
    pub rate: u64,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 200)]
    pub record_size: usize,
    /// Most records without an outcome; 0 leaves the bound to the engine's memory
    #[arg(long, default_value_t = 20_000)]
    pub window: usize,
    /// Ends after so many seconds; without it, at SIGTERM
    #[arg(long)]
    pub seconds: Option<u64>,
    /// How long closing may take, in seconds
    #[arg(long, default_value_t = 150)]
    pub close_seconds: u64,
    /// A setting of the producer, name=value; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub settings: Vec<String>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Records handed over.
    pub invoked: u64,
    /// Acknowledged.
    pub ok: u64,
    /// Certainly not written.
    pub fail: u64,
    /// Perhaps written.
    pub maybe: u64,
    /// Without any outcome after closing: a bug.
    pub pending: u64,
    /// How often the engine had no room.
    pub full: u64,
    /// Of those that certainly are not written: refused when they were handed over, as too much waited
    /// for the partition's broker.
    pub refused: u64,
    /// The most ejections of brokers that counted at a time.
    pub ejections: u32,
    /// The most memory the process ever held.
    pub peak_rss_bytes: u64,
    /// The engine's memory in use once all was flushed, before closing.
    pub memory_after_flush: usize,
    /// The engine's memory in use after closing.
    pub memory_in_use: usize,
    /// Its high-water mark.
    pub memory_high_water: usize,
}

/// Why the workload could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The history cannot be written: without it, the run proves nothing.
    #[error("the history cannot be written: {0}")]
    History(#[from] io::Error),
    /// A setting the engine does not take, or text that is no setting.
    #[error("{0}")]
    Setting(String),
    /// The producer could not be started.
    #[error(transparent)]
    Start(#[from] ringpost::StartError),
    /// The topic cannot be used.
    #[error(transparent)]
    Topic(#[from] ringpost::TopicError),
    /// The engine refuses a record for good.
    #[error("the engine refused a record: {0}")]
    Refused(String),
}

/// How many records are out, and whether somebody asked to stop.
#[derive(Debug, Default)]
struct Flow {
    counts: Mutex<Counts>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    invoked: u64,
    ok: u64,
    fail: u64,
    maybe: u64,
}

impl Counts {
    fn outstanding(&self) -> u64 {
        self.invoked - self.ok - self.fail - self.maybe
    }
}

impl Flow {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // Under the lock, so that nobody is between looking and waiting.
        let counts = self.counts();
        self.changed.notify_all();
        drop(counts);
    }

    /// Waits until something changes, at most for `timeout`.
    fn wait(&self, counts: MutexGuard<'_, Counts>, timeout: Duration) {
        if !self.stopped() {
            let _ = self
                .changed
                .wait_timeout(counts, timeout)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A running workload's switch. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Flow>);

impl Stop {
    /// No more records; what is out is waited for.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// Runs the workload until its time is over or `stop` says so.
///
/// # Errors
/// When it cannot start, or its history cannot be written.
pub fn load(options: &LoadOptions, stop: &Stop) -> Result<LoadReport, LoadError> {
    let mut recorder = Recorder::open(&options.history, options.run, options.producer)?;
    let mut builder = Producer::builder().bootstrap(options.bootstrap.as_str());
    for setting in &options.settings {
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| LoadError::Setting(format!("{setting:?} is not name=value")))?;
        builder = builder
            .set(name, value)
            .map_err(|error| LoadError::Setting(error.to_string()))?;
    }
    let producer = builder.build()?;
    let topic = producer.topic_blocking(&options.topic)?;
    let flow = &stop.0;
    let drainer = Drainer {
        recorder: recorder.another()?,
        queue: producer.clone(),
        flow: Arc::clone(flow),
        ejections: 0,
        counted: BTreeMap::new(),
        failures: BTreeMap::new(),
    };
    let closed = Arc::new(AtomicBool::new(false));
    let (drained, report) = thread::scope(|scope| {
        let drained = scope.spawn(|| drainer.run(&closed));
        let mut sender = Sender::new(options, topic, flow);
        let sent = sender.run(&mut recorder);
        let _ = producer.flush_blocking(Duration::from_secs(options.close_seconds));
        let memory_after_flush = producer.stats().memory_in_use;
        producer.close(Duration::from_secs(options.close_seconds));
        // Every outcome is queued by now; the drainer takes what is there and ends.
        closed.store(true, Ordering::Release);
        let drained = drained
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the draining thread panicked")));
        let stats = producer.stats();
        let report = sent.map(|()| LoadReport {
            full: sender.full,
            refused: sender.refused,
            memory_after_flush,
            memory_in_use: stats.memory_in_use,
            memory_high_water: stats.memory_high_water,
            ..LoadReport::default()
        });
        (drained, report)
    });
    let report = report?;
    let ejections = drained?;
    let counts = *flow.counts();
    let pending = counts.outstanding();
    let value = i64::try_from(pending).unwrap_or(i64::MAX);
    recorder.note(Kind::Ended, 0, -1, 0, value)?;
    recorder.flush()?;
    Ok(LoadReport {
        invoked: counts.invoked,
        ok: counts.ok,
        fail: counts.fail,
        maybe: counts.maybe,
        pending,
        ejections,
        peak_rss_bytes: peak_rss_bytes(),
        ..report
    })
}

/// The thread that hands records over.
struct Sender<'a> {
    options: &'a LoadOptions,
    topic: Topic,
    flow: &'a Flow,
    keys: Vec<Vec<u8>>,
    partitions: Vec<i32>,
    counters: Vec<u64>,
    full: u64,
    refused: u64,
}

impl<'a> Sender<'a> {
    fn new(options: &'a LoadOptions, topic: Topic, flow: &'a Flow) -> Self {
        let count = u32::try_from(topic.partitions()).unwrap_or(u32::MAX);
        let keys: Vec<_> = match options.placement {
            Placement::Keyed => (0..options.keys)
                .map(|key| format!("key-{key}").into_bytes())
                .collect(),
            Placement::Explicit | Placement::Keyless => Vec::new(),
        };
        let partitions: Vec<i32> = match options.placement {
            Placement::Explicit => (0..).take(topic.partitions()).collect(),
            Placement::Keyed => keys
                .iter()
                .map(|key| murmur2_partition(key, count).0)
                .collect(),
            Placement::Keyless => vec![-1],
        };
        Self {
            counters: vec![0; partitions.len()],
            options,
            topic,
            flow,
            keys,
            partitions,
            full: 0,
            refused: 0,
        }
    }

    fn run(&mut self, recorder: &mut Recorder) -> Result<(), LoadError> {
        let begun = clock::now_ns();
        let end = self
            .options
            .seconds
            .map(|seconds| begun + seconds * 1_000_000_000);
        let mut next_stream = 0;
        let mut value = Vec::new();
        let mut run: Vec<(usize, u64)> = Vec::with_capacity(EVENTS_PER_WRITE);
        let mut skipped = 0;
        while !self.flow.stopped() {
            let now = clock::now_ns();
            if end.is_some_and(|end| now >= end) {
                break;
            }
            let counts = self.flow.counts();
            let out = usize::try_from(counts.outstanding()).unwrap_or(usize::MAX);
            let room = match self.options.window {
                0 => usize::MAX,
                window => window.saturating_sub(out),
            };
            let due = match self.options.rate {
                0 => u64::MAX,
                rate => {
                    let due = u128::from(now - begun) * u128::from(rate) / 1_000_000_000;
                    let due = u64::try_from(due).unwrap_or(u64::MAX);
                    // What an outage held back is not made up for by a burst of more than a tenth
                    // of a second.
                    let behind = due - (counts.invoked + skipped).min(due);
                    skipped += behind.saturating_sub((rate / 10).max(1));
                    behind.min((rate / 10).max(1))
                }
            };
            let count = usize::try_from(due)
                .unwrap_or(usize::MAX)
                .min(room)
                .min(EVENTS_PER_WRITE);
            if count == 0 {
                self.flow.wait(counts, Duration::from_millis(1));
                continue;
            }
            drop(counts);
            run.clear();
            for _ in 0..count {
                let stream = next_stream;
                next_stream = (next_stream + 1) % self.partitions.len();
                run.push((stream, self.counters[stream]));
                self.counters[stream] += 1;
            }
            for &(stream, counter) in &run {
                let partition = self.partitions[stream];
                recorder.note(Kind::Invoked, stream_number(stream), partition, counter, 0)?;
            }
            recorder.flush()?;
            self.flow.counts().invoked += count as u64;
            for &(stream, counter) in &run {
                if !self.hand_over(stream, counter, &mut value)? {
                    // Never taken, so certainly not written.
                    let partition = self.partitions[stream];
                    recorder.note(Kind::Fail, stream_number(stream), partition, counter, 0)?;
                    self.flow.counts().fail += 1;
                }
            }
            recorder.flush()?;
        }
        Ok(())
    }

    /// `false`: refused, or asked to stop before there was room.
    fn hand_over(
        &mut self,
        stream: usize,
        counter: u64,
        value: &mut Vec<u8>,
    ) -> Result<bool, LoadError> {
        let partition = self.partitions[stream];
        let payload = Payload {
            run: self.options.run,
            producer: self.options.producer,
            stream: stream_number(stream),
            partition,
            counter,
            txn: 0,
            topic: &self.options.topic,
        };
        payload.write(self.options.record_size, value);
        let mut record = Record::value(value);
        match self.options.placement {
            Placement::Explicit => record = record.partition(partition),
            Placement::Keyed => record = record.key(&self.keys[stream]),
            Placement::Keyless => {}
        }
        loop {
            match self.topic.enqueue(record, tag(stream, counter)) {
                Ok(()) => return Ok(true),
                Err(TrySendError::Full(back)) => {
                    if self.flow.stopped() {
                        return Ok(false);
                    }
                    self.full += 1;
                    record = back;
                    self.flow.wait(self.flow.counts(), Duration::from_millis(5));
                }
                Err(TrySendError::Avoided(_)) => {
                    self.refused += 1;
                    return Ok(false);
                }
                Err(error) => return Err(LoadError::Refused(error.to_string())),
            }
        }
    }
}

/// Of outcomes other than an acknowledgement so many that differ are told of.
const FAILURES_MAX: usize = 32;
/// How often the engine's judgement of its brokers is looked at.
const LOOKS_NS: u64 = 100_000_000;

/// The thread that drains outcomes.
struct Drainer {
    recorder: Recorder,
    queue: Producer,
    flow: Arc<Flow>,
    ejections: u32,
    /// Per broker, what counted when it was last looked at.
    counted: BTreeMap<i32, u32>,
    /// Outcomes other than an acknowledgement, by what they say, and how many records had each.
    failures: BTreeMap<String, u64>,
}

impl Drainer {
    /// Returns the most ejections that counted at a time.
    fn run(mut self, closed: &AtomicBool) -> io::Result<u32> {
        let queue = self.queue.clone();
        let queue: &CompletionQueue = queue.completions();
        let mut completions = Vec::new();
        let mut looked_at_ns = 0;
        loop {
            let now = clock::now_ns();
            if now - looked_at_ns >= LOOKS_NS {
                looked_at_ns = now;
                self.count_ejections(now);
            }
            // Looked at first: what was queued before it was set is drained below.
            let last = closed.load(Ordering::Acquire);
            while queue.drain(&mut completions) > 0 {
                self.note(&completions)?;
                completions.clear();
            }
            if last {
                for (words, records) in &self.failures {
                    eprintln!("{records} records: {words}");
                }
                return Ok(self.ejections);
            }
            let _ = queue.wait(Duration::from_millis(50));
        }
    }

    /// They are forgotten after half a minute, so the end is too late to look. Each is told of when it
    /// comes: who, when, and why.
    fn count_ejections(&mut self, now_ns: u64) {
        let brokers = self.queue.stats().total().brokers;
        let ejections = brokers.iter().map(|broker| broker.ejections).sum();
        self.ejections = self.ejections.max(ejections);
        for broker in &brokers {
            let counted = self.counted.entry(broker.broker).or_default();
            if broker.ejections > *counted {
                let since = broker.since.unwrap_or_default();
                eprintln!(
                    "ejected broker={} at_ms={} for_ms={} why={:?} last={} oldest_ms={} p50_us={} p99_us={}",
                    broker.broker,
                    (now_ns / 1_000_000).saturating_sub(millis(since)),
                    millis(since + broker.until.unwrap_or_default()),
                    broker.why,
                    broker
                        .last
                        .as_ref()
                        .map_or_else(|| "-".into(), |cause| format!("{:?}", cause.to_string())),
                    millis(broker.oldest),
                    broker.service_p50.unwrap_or_default().as_micros(),
                    broker.service_p99.unwrap_or_default().as_micros(),
                );
            }
            *counted = broker.ejections;
        }
    }

    fn count_failure(&mut self, outcome: &str, failure: &Failure) {
        let told = |cause: &Option<Cause>| cause.as_ref().map_or("-".into(), Cause::to_string);
        let mut words = format!(
            "{outcome}: {}; sent {} times; first {}; last {}",
            failure.why,
            failure.attempts,
            told(&failure.first),
            told(&failure.last)
        );
        if self.failures.len() >= FAILURES_MAX && !self.failures.contains_key(&words) {
            words = "others".into();
        }
        *self.failures.entry(words).or_default() += 1;
    }

    fn note(&mut self, completions: &[Completion]) -> io::Result<()> {
        let mut settled = Counts::default();
        for completion in completions {
            let (stream, counter) = of_tag(completion.tag);
            let (kind, partition, offset) = match &completion.outcome {
                Outcome::Acked(ack) => {
                    settled.ok += 1;
                    (Kind::Ok, ack.partition, ack.offset.unwrap_or(-1))
                }
                Outcome::NotWritten(failure) => {
                    settled.fail += 1;
                    self.count_failure("not written", failure);
                    (Kind::Fail, -1, 0)
                }
                Outcome::Sent => {
                    settled.maybe += 1;
                    (Kind::Maybe, -1, 0)
                }
                Outcome::Unknown(failure) => {
                    settled.maybe += 1;
                    self.count_failure("unknown", failure);
                    (Kind::Maybe, -1, 0)
                }
            };
            self.recorder
                .note(kind, stream, partition, counter, offset)?;
        }
        self.recorder.flush()?;
        let mut counts = self.flow.counts();
        counts.ok += settled.ok;
        counts.fail += settled.fail;
        counts.maybe += settled.maybe;
        self.flow.changed.notify_all();
        Ok(())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

const COUNTER_BITS: u32 = 44;

fn tag(stream: usize, counter: u64) -> u64 {
    (stream as u64) << COUNTER_BITS | counter
}

fn of_tag(tag: u64) -> (u32, u64) {
    let stream = u32::try_from(tag >> COUNTER_BITS).unwrap_or(u32::MAX);
    (stream, tag & ((1 << COUNTER_BITS) - 1))
}

fn stream_number(stream: usize) -> u32 {
    u32::try_from(stream).unwrap_or(u32::MAX)
}

/// `VmHWM` of proc_pid_status(5): the most memory this process ever held.
fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_gives_stream_and_counter_back() {
        for (stream, counter) in [(0, 0), (11, 1), (999_999, (1 << COUNTER_BITS) - 1)] {
            assert_eq!(
                of_tag(tag(stream, counter)),
                (stream_number(stream), counter)
            );
        }
    }
}
