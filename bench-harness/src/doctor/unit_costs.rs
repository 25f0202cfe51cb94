//! What the steps of sending cost on this host, measured on the spot. A record's path is a sum of
//! these: when a figure moves between hosts, the unit that moved with it tells why.
//!
//! Every figure is the median over short stretches, so that one that was preempted does not count.
//! All of it takes [`BUDGET_NS`] at most, and is over before a run's warm-up begins.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use hdrhistogram::Histogram;
use nix::unistd::getppid;
use ringpost_codec::checksum::crc32c;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::doctor::ping_pong::{self, Course, PingPong};
use crate::histogram::{Latency, latencies};
use crate::number::{count, float, milli};
use crate::placement::{self, Placement};

/// The longest that all of it takes, but for the scheduler's delays.
pub const BUDGET_NS: u64 = 4 * LOOP_NS + WAKE_NS + PING_PONG_NS;
const LOOP_NS: u64 = 8_000_000;
const WAKE_NS: u64 = 30_000_000;
const PING_PONG_NS: u64 = 60_000_000;

/// Operations in one stretch of a loop.
const OPERATIONS: u32 = 256;
/// Bytes copied and checked at a time: a batch.
const BLOCK: usize = 128 << 10;
const WAKES_MAX: u64 = 1_000;
/// Bytes of a produce request around its one record: request header, topic, batch header, record.
const AROUND_RECORD: usize = 150;
/// Bytes of the answer to it.
const ANSWER: usize = 60;
/// Largest record that the ping-pong stands for.
const RECORD_MAX: usize = 1 << 20;

/// The costs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnitCosts {
    /// Into the kernel and back, doing next to nothing there (`getppid`).
    pub syscall_ns: f64,
    /// Reading the clock.
    pub clock_ns: f64,
    /// Copying 128 KiB, a byte of it.
    pub memcpy_ns_per_byte: f64,
    /// CRC-32C over 128 KiB, a byte of it.
    pub crc_ns_per_byte: f64,
    /// From `unpark` on one CPU to the parked thread's next instruction on another.
    pub wake_us: Option<Latency>,
    /// A request of one record and its answer over TCP on this host; `None` when that failed.
    pub ping_pong: Option<PingPong>,
    /// How long measuring took.
    pub took_ms: f64,
}

/// Measures with the client's side and the broker's side where a run has them; `record_bytes` is the
/// size of a record, `spin` whether the client's side spins while it waits.
pub fn measure(placement: &Placement, record_bytes: u64, spin: bool) -> UnitCosts {
    let clock = Clock::new();
    // In a thread of its own, because binding is for a thread's life.
    thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            // Refused, the figures are those of wherever it runs.
            let _ = placement::bind(&placement.client_cpus);
            all(&clock, placement, record_bytes, spin)
        });
        match measuring.join() {
            Ok(costs) => costs,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn all(clock: &Clock, placement: &Placement, record_bytes: u64, spin: bool) -> UnitCosts {
    let started = clock.now();
    let from = vec![0x5au8; BLOCK];
    let mut to = vec![0u8; BLOCK];
    let block = float(count(BLOCK));
    let record = usize::try_from(record_bytes)
        .unwrap_or(RECORD_MAX)
        .min(RECORD_MAX);
    let course = Course {
        request_bytes: AROUND_RECORD + record,
        answer_bytes: ANSWER,
        spin,
        answer_cpus: &placement.broker_cpus,
        budget_ns: PING_PONG_NS,
    };
    let mut costs = UnitCosts {
        syscall_ns: milli(median(clock, OPERATIONS, || {
            black_box(getppid());
        })),
        clock_ns: milli(median(clock, OPERATIONS, || {
            black_box(clock.now());
        })),
        memcpy_ns_per_byte: median(clock, 1, || {
            black_box(&mut to).copy_from_slice(black_box(&from));
        }) / block,
        crc_ns_per_byte: median(clock, 1, || {
            black_box(crc32c(black_box(&from)));
        }) / block,
        wake_us: Latency::of(&wakes(clock, &placement.broker_cpus), 1.0),
        ping_pong: ping_pong::measure(clock, &course).ok(),
        took_ms: 0.0,
    };
    costs.memcpy_ns_per_byte = round(costs.memcpy_ns_per_byte);
    costs.crc_ns_per_byte = round(costs.crc_ns_per_byte);
    costs.took_ms = milli(float(clock.now() - started) / 1e6);
    costs
}

fn round(per_byte: f64) -> f64 {
    (per_byte * 10_000.0).round() / 10_000.0
}

/// Nanoseconds an operation: the median over stretches of `operations`.
fn median(clock: &Clock, operations: u32, mut operation: impl FnMut()) -> f64 {
    let mut stretches = latencies_of_stretches();
    let give_up = clock.now() + LOOP_NS;
    loop {
        let started = clock.now();
        for _ in 0..operations {
            operation();
        }
        let now = clock.now();
        stretches.saturating_record(now - started);
        if now >= give_up {
            return float(stretches.value_at_quantile(0.5)) / f64::from(operations);
        }
    }
}

/// From 1 ns: a stretch may be shorter than what runs measure.
fn latencies_of_stretches() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3)
        .expect("constant bounds that the histogram allows")
}

/// How long a parked thread takes to run after it was unparked, both ways between this thread and one
/// on `cpus`.
fn wakes(clock: &Clock, cpus: &[usize]) -> Histogram<u64> {
    /// Nobody's turn, or the time at which it was handed over.
    const TAKEN: u64 = u64::MAX;
    let (there, back) = (AtomicU64::new(TAKEN), AtomicU64::new(TAKEN));
    let over = AtomicBool::new(false);
    let here = thread::current();
    let take = |turn: &AtomicU64| -> Option<u64> {
        loop {
            match turn.swap(TAKEN, Ordering::AcqRel) {
                TAKEN if over.load(Ordering::Acquire) => return None,
                TAKEN => thread::park(),
                handed_ns => return Some(clock.now().saturating_sub(handed_ns)),
            }
        }
    };
    let mut times = latencies();
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            // Refused, it just runs elsewhere.
            let _ = placement::bind(cpus);
            let mut times = latencies();
            while let Some(woken) = take(&there) {
                times.saturating_record(woken);
                back.store(clock.now(), Ordering::Release);
                here.unpark();
            }
            times
        });
        let give_up = clock.now() + WAKE_NS;
        let mut turns = 0;
        while turns == 0 || (turns < WAKES_MAX && clock.now() < give_up) {
            there.store(clock.now(), Ordering::Release);
            other.thread().unpark();
            if let Some(woken) = take(&back) {
                times.saturating_record(woken);
            }
            turns += 1;
        }
        over.store(true, Ordering::Release);
        other.thread().unpark();
        if let Ok(others) = other.join() {
            // Same bounds: adding cannot fail.
            let _ = times.add(&others);
        }
    });
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_costs_something() {
        let placement = Placement::choose(&placement::allowed(), true);
        let costs = measure(&placement, 100, false);
        for (name, cost) in [
            ("syscall", costs.syscall_ns),
            ("clock", costs.clock_ns),
            ("memcpy", costs.memcpy_ns_per_byte),
            ("crc", costs.crc_ns_per_byte),
            ("wake", costs.wake_us.expect("measured").p50),
            ("took", costs.took_ms),
        ] {
            assert!(cost > 0.0, "{name}: {costs:?}");
        }
        let floor = costs.ping_pong.expect("loopback works");
        assert_eq!(floor.request_bytes, 250);
        assert!(floor.us.is_some_and(|us| us.p50 <= us.max));
    }
}
