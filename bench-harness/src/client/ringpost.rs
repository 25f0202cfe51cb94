//! The engine under measurement, in each of the ways an application can learn of its acks.
//!
//! | delivery | sends with | acks are seen by |
//! |---|---|---|
//! | `queue` | `enqueue`, the stamp as tag | one thread that drains the completion queue |
//! | `future` | `try_send` | a thread a sender, which takes the deliveries in the order sent; one that is ready early is seen when those before it are |
//! | `wait` | `try_send`, then waits | the sender |
//! | `forget` | `post` | nobody: the engine's own counters and histograms stand in |

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringpost::{
    Builder, ConfigError, LocalTopic, Outcome, Producer, Record, StartError, Topic, TrySendError,
};

use crate::client::{Client, Counters, Facts, Payload, Refused, Sink, Stages};
use crate::exit::Failure;
use crate::number::count;
use crate::plan::{Delivery, Plan};
use crate::run::Run;
use crate::sender::{Phases, send_all};
use crate::stamp::Stamp;
use crate::tally::{Recording, Settled};

/// How long a collector waits at most before it looks whether the run has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Deliveries handed to a collector at a time.
const CHUNK: usize = 64;
/// Deliveries that may wait for a collector, for each sender.
pub(super) const DELIVERIES_MAX: u64 = 65_536;

/// Settings of the engine that have a flag of their own here: `(engine's name, flag)`.
const OWN_FLAGS: [(&str, &str); 10] = [
    ("bootstrap", "brokers"),
    ("driver", "driver"),
    ("wait", "wait"),
    ("shards", "shards"),
    ("compression", "compression"),
    ("acks", "acks"),
    ("idempotent", "idempotent"),
    ("linger", "linger"),
    ("batch_bytes", "batch"),
    ("memory", "memory"),
];

/// A started producer.
#[derive(Debug)]
pub struct Ringpost {
    producer: Producer,
    topic: Topic,
    delivery: Delivery,
    /// One for each sender, with `delivery=future`.
    pipes: Vec<Pipe>,
}

/// Whether the engine takes a setting given with `set`; the refusal otherwise.
pub fn check_setting(name: &str, value: &str) -> Result<(), String> {
    if let Some((_, own)) = OWN_FLAGS.iter().find(|(theirs, _)| *theirs == name) {
        return Err(format!("`{name}` is said with `{own}`"));
    }
    match Producer::builder().set(name, value) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The plan as the engine's configuration.
pub(super) fn configure(plan: &Plan, brokers: &[String]) -> Result<Builder, ConfigError> {
    let mut builder = Producer::builder()
        .set("bootstrap", &brokers.join(","))?
        .set("client_id", "ringpost-bench")?
        .set("driver", &plan.driver)?
        .set("wait", &plan.wait)?
        .set("shards", &plan.shards)?
        .set("compression", &plan.compression)?
        .set("acks", &plan.acks.to_string())?
        .set("linger", &plan.linger)?
        .set("batch_bytes", &format!("{}B", plan.batch))?
        .set("memory", &format!("{}B", plan.memory))?;
    if let Some(idempotent) = plan.idempotent {
        builder = builder.set("idempotent", &idempotent.to_string())?;
    }
    for (name, value) in &plan.set {
        builder = builder.set(name, value)?;
    }
    Ok(builder)
}

impl Ringpost {
    /// Starts the producer and connects it: nothing of that is in the measured window, nor in the
    /// warm-up.
    pub fn connect(plan: &Plan, brokers: &[String]) -> Result<Self, Failure> {
        let builder =
            configure(plan, brokers).map_err(|error| Failure::config(error.to_string()))?;
        let producer = builder.build().map_err(|error| match error {
            StartError::Config(_) | StartError::Driver(_) => Failure::config(error.to_string()),
            StartError::System { .. } => Failure::connection(error.to_string()),
        })?;
        let unreachable = |error: &dyn std::fmt::Display| {
            Failure::connection(format!("{}: {error}", brokers.join(",")))
        };
        let topic = producer
            .topic_blocking(&plan.topic)
            .map_err(|error| unreachable(&error))?;
        producer
            .warm_up_blocking(&[&plan.topic])
            .map_err(|error| unreachable(&error))?;
        let pipes = match plan.delivery {
            Delivery::Future => plan.producers,
            Delivery::Queue | Delivery::Wait | Delivery::Forget => 0,
        };
        let pipes = (0..pipes).map(|_| Pipe::default()).collect();
        Ok(Self {
            producer,
            topic,
            delivery: plan.delivery,
            pipes,
        })
    }

    fn drain_queue(&self, run: &Run) {
        let (queue, tally) = (self.producer.completions(), &run.settled[0]);
        let mut completions = Vec::new();
        loop {
            // In this order: what settles while the run ends is still seen.
            let ended = run.collecting_ended();
            let filled = queue.wait(LOOK_EVERY);
            if !filled && ended {
                return;
            }
            // One reading of the clock for what has come by now.
            while queue.drain(&mut completions) > 0 {
                let mut recording = tally.at(run.clock.now());
                // By reference: moving each one out of the vector would be a copy a record.
                for completion in &completions {
                    let stamp = Stamp::from_tag(completion.tag);
                    record(&mut recording, stamp, &completion.outcome);
                }
                completions.clear();
            }
        }
    }

    fn drain_pipe(&self, run: &Run, sender: usize) {
        let (pipe, tally) = (&self.pipes[sender], &run.settled[sender]);
        while let Some(mut chunk) = pipe.take() {
            let taken = count(chunk.len());
            let mut recording = tally.at(run.clock.now());
            for (stamp, delivery) in chunk.drain(..) {
                let outcome = match delivery.outcome() {
                    Some(outcome) => outcome,
                    None => {
                        drop(recording); // what is done counts now, not after the wait
                        let outcome = delivery.wait();
                        recording = tally.at(run.clock.now());
                        outcome
                    }
                };
                record(&mut recording, stamp, &outcome);
            }
            drop(recording);
            pipe.done(chunk, taken);
        }
    }
}

/// Counts one outcome.
#[inline]
pub(super) fn record(recording: &mut Recording<'_>, stamp: Stamp, outcome: &Outcome) {
    match outcome {
        Outcome::Acked(_) => recording.acked(stamp, 1),
        Outcome::Sent => recording.sent(stamp, 1),
        Outcome::NotWritten(failure) => recording.not_written(failure),
        Outcome::Unknown(failure) => recording.unknown(failure),
    }
}

impl Client for Ringpost {
    fn facts(&self) -> Facts {
        let stats = self.producer.stats();
        let shards = stats.shards.iter().enumerate().map(|(number, shard)| {
            let place = match (shard.cpu, &shard.pin_error) {
                (Some(cpu), _) => format!("pinned to CPU {cpu}"),
                (None, Some(error)) => format!("not pinned: {error}"),
                (None, None) => "not pinned".into(),
            };
            format!("shard {number} {place}")
        });
        Facts {
            driver: stats.driver.into(),
            driver_reason: stats.driver_reason.clone(),
            shards: shards.collect(),
            differs: Vec::new(),
        }
    }

    fn collectors(&self) -> usize {
        match self.delivery {
            Delivery::Queue => 1,
            Delivery::Future => self.pipes.len(),
            Delivery::Wait | Delivery::Forget => 0,
        }
    }

    fn tallies(&self, producers: usize) -> usize {
        match self.delivery {
            Delivery::Wait => producers,
            Delivery::Queue | Delivery::Future | Delivery::Forget => self.collectors(),
        }
    }

    fn send(&self, run: &Run, phases: &Phases, sender: usize) {
        let topic = self.topic.local();
        match self.delivery {
            Delivery::Queue => send_all(run, phases, sender, &mut Queue(topic)),
            Delivery::Forget => send_all(run, phases, sender, &mut Post(topic)),
            Delivery::Wait => send_all(run, phases, sender, &mut Wait { topic, run, sender }),
            Delivery::Future => {
                let pipe = &self.pipes[sender];
                send_all(
                    run,
                    phases,
                    sender,
                    &mut Futures {
                        topic,
                        pipe,
                        chunk: pipe.spare(),
                    },
                );
            }
        }
    }

    fn collect(&self, run: &Run, collector: usize) {
        match self.delivery {
            Delivery::Queue => self.drain_queue(run),
            Delivery::Future => self.drain_pipe(run, collector),
            Delivery::Wait | Delivery::Forget => {}
        }
    }

    fn end_collecting(&self) {
        for pipe in &self.pipes {
            pipe.close();
        }
    }

    fn counters(&self) -> Counters {
        counters(&self.producer)
    }

    fn settled(&self) -> Option<Settled> {
        (self.delivery == Delivery::Forget).then(|| settled(&self.producer))
    }

    fn stages(&self) -> Option<Stages> {
        Some(stages(&self.producer))
    }

    fn flush(&self, deadline: Duration) {
        // What is not settled in time shows in the counts.
        let _ = self.producer.flush_blocking(deadline);
    }

    fn close(&self, deadline: Duration) {
        let _ = self.producer.close(deadline);
    }
}

/// What the engine counted.
pub(super) fn counters(producer: &Producer) -> Counters {
    let total = producer.stats().total();
    Counters {
        batches: Some(total.batches),
        requests: Some(total.requests),
        retries: Some(total.retries),
        kernel_entries: Some(total.kernel_entries),
        wakes: Some(total.wakes),
    }
}

/// How records settled by the engine's own count.
pub(super) fn settled(producer: &Producer) -> Settled {
    let ringpost::Settled {
        acked,
        sent,
        not_written,
        unknown,
    } = producer.settled();
    Settled {
        acked,
        sent,
        not_written,
        unknown,
    }
}

/// The engine's histograms.
pub(super) fn stages(producer: &Producer) -> Stages {
    let stages = producer.stats().total().stages;
    Stages {
        append_to_seal: stages.append_to_seal,
        seal_to_wire: stages.seal_to_wire,
        wire_to_ack: stages.wire_to_ack,
        append_to_ack: stages.append_to_ack,
    }
}

/// The record of a payload.
#[inline]
pub(super) fn record_of<'a>(payload: Payload<'a>) -> Record<'a> {
    match payload.key {
        Some(key) => Record::keyed(key, payload.value),
        None => Record::value(payload.value),
    }
}

#[inline]
pub(super) fn refused(error: TrySendError<'_>) -> Refused {
    match error {
        TrySendError::Full(_) | TrySendError::Avoided(_) => Refused::Full,
        closed @ TrySendError::Closed(_) => {
            Refused::Broken(Failure::connection(closed.to_string()))
        }
        other @ (TrySendError::TooLarge { .. } | TrySendError::NoSuchPartition { .. }) => {
            Refused::Broken(Failure::config(other.to_string()))
        }
    }
}

/// `delivery=forget`.
struct Post(LocalTopic);

impl Sink for Post {
    #[inline]
    fn send(&mut self, payload: Payload<'_>, _stamp: Stamp) -> Result<(), Refused> {
        self.0.post(record_of(payload)).map_err(refused)
    }
}

/// `delivery=queue`.
struct Queue(LocalTopic);

impl Sink for Queue {
    #[inline]
    fn send(&mut self, payload: Payload<'_>, stamp: Stamp) -> Result<(), Refused> {
        self.0
            .enqueue(record_of(payload), stamp.tag())
            .map_err(refused)
    }
}

/// `delivery=wait`.
struct Wait<'a> {
    topic: LocalTopic,
    run: &'a Run,
    sender: usize,
}

impl Sink for Wait<'_> {
    fn send(&mut self, payload: Payload<'_>, stamp: Stamp) -> Result<(), Refused> {
        let outcome = self
            .topic
            .try_send(record_of(payload))
            .map_err(refused)?
            .wait();
        let tally = &self.run.settled[self.sender];
        let mut recording = tally.at(self.run.clock.now());
        record(&mut recording, stamp, &outcome);
        Ok(())
    }

    fn waits(&self) -> bool {
        true
    }
}

/// `delivery=future`.
struct Futures<'a> {
    topic: LocalTopic,
    pipe: &'a Pipe,
    chunk: Chunk,
}

impl Sink for Futures<'_> {
    #[inline]
    fn send(&mut self, payload: Payload<'_>, stamp: Stamp) -> Result<(), Refused> {
        if self.chunk.is_empty() && self.pipe.waiting.load(Ordering::Relaxed) >= DELIVERIES_MAX {
            return Err(Refused::Full);
        }
        let delivery = self.topic.try_send(record_of(payload)).map_err(refused)?;
        self.chunk.push((stamp, delivery));
        if self.chunk.len() == CHUNK {
            self.hand_over();
        }
        Ok(())
    }

    fn hand_over(&mut self) {
        if !self.chunk.is_empty() {
            let empty = self.pipe.spare();
            self.pipe.put(std::mem::replace(&mut self.chunk, empty));
        }
    }
}

type Chunk = Vec<(Stamp, ringpost::Delivery)>;

/// Deliveries on their way from a sender to its collector, in order, a chunk at a time. Chunks go
/// back and forth, so nothing is allocated after the first ones.
#[derive(Debug, Default)]
struct Pipe {
    inner: Mutex<Inner>,
    filled: Condvar,
    /// Deliveries put and not done.
    waiting: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    chunks: VecDeque<Chunk>,
    spare: Vec<Chunk>,
    closed: bool,
}

impl Pipe {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spare(&self) -> Chunk {
        self.inner()
            .spare
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    fn put(&self, chunk: Chunk) {
        self.waiting
            .fetch_add(count(chunk.len()), Ordering::Relaxed);
        self.inner().chunks.push_back(chunk);
        self.filled.notify_one();
    }

    /// The next chunk, when there is one; `None` when there will be none.
    fn take(&self) -> Option<Chunk> {
        let mut inner = self
            .filled
            .wait_while(self.inner(), |inner| {
                inner.chunks.is_empty() && !inner.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        inner.chunks.pop_front()
    }

    fn done(&self, chunk: Chunk, deliveries: u64) {
        self.waiting.fetch_sub(deliveries, Ordering::Relaxed);
        self.inner().spare.push(chunk);
    }

    fn close(&self) {
        self.inner().closed = true;
        self.filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_setting_is_one_of_the_engine() {
        let brokers = ["localhost:9092".to_owned()];
        for idempotent in [None, Some(true), Some(false)] {
            let plan = Plan {
                idempotent,
                ..Plan::default()
            };
            assert_eq!(configure(&plan, &brokers).err(), None);
        }
        for (engine, flag) in OWN_FLAGS {
            assert!(
                crate::setting::find(flag).is_some(),
                "{engine} is said with {flag}"
            );
        }
    }

    #[test]
    fn engine_settings_are_checked_by_the_engine() {
        assert_eq!(check_setting("gap", "1ms"), Ok(()));
        let unknown = check_setting("gapp", "1ms").expect_err("unknown");
        assert!(unknown.contains("gap"), "{unknown}");
        let bad = check_setting("gap", "1").expect_err("no unit");
        assert!(bad.contains("gap"), "{bad}");
        let own = check_setting("batch_bytes", "1KiB").expect_err("has a flag");
        assert!(own.contains("`batch`"), "{own}");
    }
}
