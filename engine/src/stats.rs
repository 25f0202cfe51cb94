//! What a producer has done so far. Readable at any time, from any thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use ringpost_core::Moments;
use ringpost_core::dispatch::Counters;
use ringpost_core::health::Record;
use ringpost_core::id::BrokerId;
use ringpost_core::outcome::Verdict;
use ringpost_core::time::Time;

use crate::broker_stats::BrokerStats;
use crate::driver::{DriverCounters, clock};

/// What a producer has done so far.
#[derive(Debug, Clone)]
pub struct Stats {
    /// The driver in use: "ring" or "epoll".
    pub driver: &'static str,
    /// Why this one.
    pub driver_reason: String,
    /// Bytes of memory held by accepted and unsettled records, now.
    pub memory_in_use: usize,
    /// The most it ever was.
    pub memory_high_water: usize,
    /// Bytes of it that wait behind brokers that are avoided or dead, now.
    pub memory_held_back: usize,
    /// Senders that wait for memory, now.
    pub memory_waiters: usize,
    /// Dead letters.
    pub dead_letters: DeadLetterStats,
    /// Batches whose loss could not be reported to `on_undelivered`, because its queue was full.
    pub undelivered_dropped: u64,
    /// Panics of the application's code that were caught: of `on_undelivered`, of wakers, and of
    /// destructors of values that were [shared](crate::Value::Shared).
    pub callback_panics: u64,
    /// Shard by shard.
    pub shards: Vec<ShardStats>,
}

/// What became of dead letters. See [`dead_letter`](crate::dead_letter).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeadLetterStats {
    /// Dead letters that were written. They count as acknowledged records too.
    pub written: u64,
    /// Dead letters that were not, or perhaps not, written: reported to `on_undelivered`.
    pub failed: u64,
    /// Records that became none, because too much memory was held by others that were to.
    pub dropped: u64,
    /// Batches of failed records whose dead letters are not settled, now.
    pub batches_unsettled: usize,
}

/// How records ended so far: [`Stats`] without the histograms, cheap enough to look every few
/// milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Records with outcome `Acked`.
    pub acked: u64,
    /// Records with outcome `Sent`.
    pub sent: u64,
    /// Records with outcome `NotWritten`.
    pub not_written: u64,
    /// Records with outcome `Unknown`.
    pub unknown: u64,
}

/// What a shard has done so far.
#[derive(Debug, Clone)]
pub struct ShardStats {
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
    /// Why it is not pinned although it should be.
    pub pin_error: Option<String>,
    /// Why it runs on epoll although others have a ring.
    pub ring_refused: Option<String>,
    /// Records with outcome `Acked`.
    pub records_acked: u64,
    /// Records with outcome `Sent`.
    pub records_sent: u64,
    /// Records with outcome `NotWritten`.
    pub records_not_written: u64,
    /// Records with outcome `Unknown`.
    pub records_unknown: u64,
    /// Bytes of acknowledged records, uncompressed, as in their batches.
    pub bytes_acked: u64,
    /// Batches sent, retries included.
    pub batches: u64,
    /// Produce requests sent.
    pub requests: u64,
    /// Bytes of those requests.
    pub request_bytes: u64,
    /// Batches sent again.
    pub retries: u64,
    /// Times a retry waited because the retry budget of its broker was used up.
    pub budget_waits: u64,
    /// Batches that were divided because a broker found them too large.
    pub splits: u64,
    /// Batches that were moved to another partition, away from a broker that is avoided, before they
    /// were ever sent.
    pub moved: u64,
    /// Connections that became ready.
    pub connections: u64,
    /// Connections that failed or were lost with requests in flight.
    pub connection_failures: u64,
    /// Kernel entries of the loop.
    pub kernel_entries: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Wake-ups by appenders and others.
    pub wakes: u64,
    /// How long records took, stage by stage.
    pub stages: Stages,
    /// What it thinks of the brokers it knows: which are avoided, and why.
    pub brokers: Vec<BrokerStats>,
}

/// How long records took, in microseconds, each batch weighted by its records.
#[derive(Debug, Clone)]
pub struct Stages {
    /// From the batch's first append to its sealing: lingering and waiting for the window.
    pub append_to_seal: Histogram<u64>,
    /// From sealing to the last byte taken by the kernel.
    pub seal_to_wire: Histogram<u64>,
    /// From there to the verdict.
    pub wire_to_ack: Histogram<u64>,
    /// All of it.
    pub append_to_ack: Histogram<u64>,
}

impl Stages {
    fn new() -> Self {
        // 1 µs to 1 hour, 3 digits: 185 KiB each at the most.
        let histogram = || {
            let mut histogram = Histogram::new_with_max(3_600_000_000, 3).expect("fixed bounds");
            histogram.auto(true);
            histogram
        };
        Self {
            append_to_seal: histogram(),
            seal_to_wire: histogram(),
            wire_to_ack: histogram(),
            append_to_ack: histogram(),
        }
    }

    fn record(&mut self, moments: Moments, now: Time, records: u32) {
        let count = u64::from(records);
        let us = |from: Time, to: Time| {
            u64::try_from(Duration::as_micros(&to.since(from))).unwrap_or(u64::MAX)
        };
        self.append_to_seal
            .saturating_record_n(us(moments.opened, moments.sealed), count);
        self.seal_to_wire
            .saturating_record_n(us(moments.sealed, moments.on_wire), count);
        self.wire_to_ack
            .saturating_record_n(us(moments.on_wire, now), count);
        self.append_to_ack
            .saturating_record_n(us(moments.opened, now), count);
    }

    fn add(&mut self, other: &Self) {
        // Equal bounds, so nothing can be out of range.
        let _ = self.append_to_seal.add(&other.append_to_seal);
        let _ = self.seal_to_wire.add(&other.seal_to_wire);
        let _ = self.wire_to_ack.add(&other.wire_to_ack);
        let _ = self.append_to_ack.add(&other.append_to_ack);
    }
}

impl Stats {
    /// All shards together. The CPU is that of the first; of each broker it says what the shard thinks
    /// that thinks the worst of it.
    #[must_use]
    pub fn total(&self) -> ShardStats {
        let mut shards = self.shards.iter();
        let mut total = shards
            .next()
            .cloned()
            .unwrap_or_else(|| ShardCounters::new().read());
        for shard in shards {
            total.records_acked += shard.records_acked;
            total.records_sent += shard.records_sent;
            total.records_not_written += shard.records_not_written;
            total.records_unknown += shard.records_unknown;
            total.bytes_acked += shard.bytes_acked;
            total.batches += shard.batches;
            total.requests += shard.requests;
            total.request_bytes += shard.request_bytes;
            total.retries += shard.retries;
            total.budget_waits += shard.budget_waits;
            total.splits += shard.splits;
            total.moved += shard.moved;
            total.connections += shard.connections;
            total.connection_failures += shard.connection_failures;
            total.kernel_entries += shard.kernel_entries;
            total.turns += shard.turns;
            total.wakes += shard.wakes;
            total.stages.add(&shard.stages);
            BrokerStats::add(&mut total.brokers, &shard.brokers);
        }
        total
    }
}

/// A shard's counters: written by it alone, read by anybody.
#[derive(Debug)]
pub(crate) struct ShardCounters {
    cpu: Mutex<(Option<usize>, Option<String>)>,
    ring_refused: OnceLock<String>,
    acked: AtomicU64,
    sent: AtomicU64,
    not_written: AtomicU64,
    /// Not written either, but counted by those who sent them.
    diverted: AtomicU64,
    unknown: AtomicU64,
    bytes_acked: AtomicU64,
    turns: AtomicU64,
    wakes: AtomicU64,
    core: Mutex<(Counters, DriverCounters)>,
    stages: Mutex<Stages>,
    brokers: Mutex<Vec<(BrokerId, Record)>>,
}

fn add(counter: &AtomicU64, n: u64) {
    // One writer: no need for an atomic addition.
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

impl ShardCounters {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            cpu: Mutex::default(),
            ring_refused: OnceLock::new(),
            acked: zero(),
            sent: zero(),
            not_written: zero(),
            diverted: zero(),
            unknown: zero(),
            bytes_acked: zero(),
            turns: zero(),
            wakes: zero(),
            core: Mutex::default(),
            stages: Mutex::new(Stages::new()),
            brokers: Mutex::default(),
        }
    }

    pub(crate) fn placed(&self, cpu: Option<usize>, error: Option<String>) {
        *self.cpu.lock().unwrap_or_else(PoisonError::into_inner) = (cpu, error);
    }

    pub(crate) fn ring_was_refused(&self, reason: Option<String>) {
        if let Some(reason) = reason {
            // Said once, when it starts.
            let _ = self.ring_refused.set(reason);
        }
    }

    pub(crate) fn settled(
        &self,
        verdict: &Verdict,
        records: u32,
        bytes: usize,
        moments: Moments,
        now: Time,
    ) {
        let count = u64::from(records);
        match verdict {
            Verdict::Acked { .. } => {
                add(&self.acked, count);
                add(&self.bytes_acked, bytes as u64);
            }
            Verdict::Sent => add(&self.sent, count),
            Verdict::NotWritten(_) => return add(&self.not_written, count),
            Verdict::Unknown(_) => return add(&self.unknown, count),
        }
        self.stages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .record(moments, now, records);
    }

    /// Records that their shard never saw. Called when it is gone.
    pub(crate) fn not_written(&self, records: u32) {
        add(&self.not_written, u64::from(records));
    }

    /// A record that was not let into its lane and becomes a dead letter.
    pub(crate) fn diverted(&self) {
        self.diverted.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that were lost with their shard.
    pub(crate) fn unknown(&self, records: u64) {
        add(&self.unknown, records);
    }

    pub(crate) fn turned(&self, counters: Counters, driver: DriverCounters) {
        add(&self.turns, 1);
        *self.core.lock().unwrap_or_else(PoisonError::into_inner) = (counters, driver);
    }

    /// The shard looked at its brokers. Takes no memory but for brokers it had not met.
    pub(crate) fn looked(&self, brokers: impl Iterator<Item = (BrokerId, Record)>) {
        let mut known = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
        known.extend(brokers);
    }

    /// Called by whoever woke the shard.
    pub(crate) fn woken(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds how its records ended to `sum`.
    pub(crate) fn add_settled(&self, sum: &mut Settled) {
        sum.acked += self.acked.load(Ordering::Relaxed);
        sum.sent += self.sent.load(Ordering::Relaxed);
        sum.not_written += self.not_written.load(Ordering::Relaxed);
        sum.not_written += self.diverted.load(Ordering::Relaxed);
        sum.unknown += self.unknown.load(Ordering::Relaxed);
    }

    /// How often it was woken.
    #[cfg(all(test, any(loom, shuttle)))]
    pub(crate) fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    pub(crate) fn read(&self) -> ShardStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (cpu, pin_error) = self
            .cpu
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (core, driver) = *self.core.lock().unwrap_or_else(PoisonError::into_inner);
        ShardStats {
            cpu,
            pin_error,
            ring_refused: self.ring_refused.get().cloned(),
            records_acked: get(&self.acked),
            records_sent: get(&self.sent),
            records_not_written: get(&self.not_written) + get(&self.diverted),
            records_unknown: get(&self.unknown),
            bytes_acked: get(&self.bytes_acked),
            batches: core.batches,
            requests: core.requests,
            request_bytes: core.request_bytes,
            retries: core.retries,
            budget_waits: core.budget_waits,
            splits: core.splits,
            moved: core.moved,
            connections: core.connections,
            connection_failures: core.connection_failures,
            kernel_entries: driver.kernel_entries,
            turns: get(&self.turns),
            wakes: get(&self.wakes),
            stages: self
                .stages
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            brokers: self.read_brokers(),
        }
    }

    fn read_brokers(&self) -> Vec<BrokerStats> {
        let now = clock::now();
        let brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |(broker, record): &(BrokerId, Record)| BrokerStats::new(*broker, record, now);
        brokers.iter().map(read).collect()
    }
}
