//! The memory of a run that goes on and on: what the recording and the series hold does not grow, and
//! neighbours are merged as often as it takes.
//!
//! Bounded by records, in pretend time: with the shortest intervals it takes 150 s to fill the series
//! once. A program of its own, for all of its allocations are counted.

use std::time::Duration;

use ringpost_bench::client::{Client, Counters, Facts};
use ringpost_bench::clock::Clock;
use ringpost_bench::corpus::Corpus;
use ringpost_bench::keyring::Keyring;
use ringpost_bench::plan::{Keys, Plan};
use ringpost_bench::random::Random;
use ringpost_bench::run::Run;
use ringpost_bench::sender::Phases;
use ringpost_bench::series::{Series, TICK_NS};
use ringpost_bench::stamp::Stamp;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// One that does nothing: the test settles the records itself.
struct Nobody;

impl Client for Nobody {
    fn facts(&self) -> Facts {
        Facts::default()
    }

    fn collectors(&self) -> usize {
        1
    }

    fn tallies(&self, _producers: usize) -> usize {
        1
    }

    fn send(&self, _run: &Run, _phases: &Phases, _sender: usize) {}

    fn collect(&self, _run: &Run, _collector: usize) {}

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn flush(&self, _deadline: Duration) {}

    fn close(&self, _deadline: Duration) {}
}

/// Bytes on the heap.
fn live() -> i128 {
    let stats = INSTRUMENTED_SYSTEM.stats();
    let bytes = |count: usize| i128::try_from(count).expect("a number of bytes");
    bytes(stats.bytes_allocated) - bytes(stats.bytes_deallocated)
}

#[test]
fn series_of_any_length_take_no_memory_after_the_start() {
    const RECORDS: u64 = 2_000_000;
    const BATCH: u64 = 10;
    let plan = Plan {
        records: Some(RECORDS),
        duration: Duration::from_secs(12 * 3600),
        ..Plan::default()
    };
    let corpus = Corpus::text(100, 1_000).expect("payloads");
    let run = Run::new(plan, Clock::new(), corpus, Keyring::new(Keys::None), 1);
    let mut random = Random::new(11);
    // An hour after the clock's start, so that no record was sent before it.
    let start_ns = 3_600_000_000_000;
    run.turn(true);
    let mut series = Series::new(&run.plan, start_ns, run.settled(), 0.0, None);
    let (at_start, mut most) = (live(), i128::MIN);
    let (mut now_ns, mut settled) = (start_ns, 0);
    while settled < RECORDS {
        // A batch a tick, of records that took 0.2 to 3 ms, and one in a hundred up to 50 ms.
        now_ns += TICK_NS;
        let mut recording = run.settled[0].at(now_ns);
        for _ in 0..BATCH {
            let slow = random.below(100) == 0;
            let took_ns = 200_000 + random.below(if slow { 50_000_000 } else { 2_800_000 });
            let sent_ns = now_ns - took_ns * 9 / 10;
            recording.acked(Stamp::new(now_ns - took_ns, sent_ns), 1);
        }
        drop(recording);
        settled += BATCH;
        series.tick(&run, &Nobody, now_ns, settled, settled == RECORDS);
        most = most.max(live());
    }
    assert!(
        most <= at_start,
        "{} bytes more than when the window opened",
        most - at_start
    );

    let recorded = series.end();
    // 2,000 s in intervals of a second that doubled each time the 150 were there.
    let lengths: Vec<u64> = recorded
        .intervals
        .iter()
        .map(|one| one.length.as_secs())
        .collect();
    assert!((75..150).contains(&lengths.len()), "{lengths:?}");
    assert!(
        lengths.iter().max().is_some_and(|longest| *longest >= 16),
        "{lengths:?}"
    );
    let passed: Duration = recorded.intervals.iter().map(|one| one.length).sum();
    assert_eq!(passed, Duration::from_nanos(now_ns - start_ns));
    let acked: u64 = recorded.intervals.iter().map(|one| one.acked).sum();
    assert_eq!(
        (acked, recorded.latencies.response.len()),
        (RECORDS, RECORDS)
    );
}
