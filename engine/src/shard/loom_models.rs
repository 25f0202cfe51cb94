//! The real lane with the real ready set, gate and memory, in every order in which one appender and
//! one taker can meet, weak memory included.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p ringpost --release --lib loom_models
//! ```
//!
//! `interleavings` has more of everything, in random schedules and without weak memory; here is as
//! little as there can be, and all of it. The shard does what [`Shard::turn`] does with a lane: drain,
//! take what is there, settle, announce its sleep, look again, sleep until it is woken. One that
//! sleeps through a record never ends, which loom reports as too many branches. The pool's pages have
//! a cell each under loom, so bytes that the shard reads before they were written for it to read are
//! reported too.
//!
//! *One record.* With five preemptions at most that is 83 executions, well under a second. A second record
//! cannot be added as things are: the bell is an eventfd and a plain count, so the wait for it is a loop
//! that yields, and with two records loom gives up on it, after 20,000 branches of one execution too. It does
//! not tell such a loop from one that sleeps for ever. Two and more records are shuttle's.

use loom::thread;

use ringpost_core::outcome::Verdict;

use super::*;
use crate::bulkhead::{Bulkhead, OnLaneUnavailable};
use crate::completions::CompletionQueue;
use crate::driver::EpollDriver;
use crate::lane::{Bound, LaneSettings, Watch};
use crate::record::Record;

struct Model {
    shard: Arc<ShardShared>,
    lane: Lane,
}

impl Model {
    fn new(waker: &Waker) -> Self {
        let shard = Arc::new(ShardShared::for_lanes(0, waker.clone(), 1));
        let settings = Arc::new(LaneSettings {
            batch_bytes: 4_000,
            room_bytes: 1 << 14,
            // A segment for each of two batches.
            pool: Pool::new(2 * 4_096, 4_096).expect("memory"),
            completions: Arc::new(CompletionQueue::new(1)),
            bulkhead: Arc::new(Bulkhead::new(
                1 << 20,
                OnLaneUnavailable::Wait,
                Arc::default(),
            )),
        });
        let lane = Lane::new(LaneId(0), "t".into(), 0, Arc::clone(&shard), settings);
        Self { shard, lane }
    }

    fn append(&self, value: &[u8]) {
        let (record, watch) = (Record::value(value), Watch::Nobody);
        let appended = self.lane.append(&record, Bound::Pinned, watch, &mut None);
        appended.expect("there is memory");
    }

    /// What there is is taken and settled; how many records. `None`: the lane's lock was taken.
    fn serve(&self, value: &[u8]) -> Option<u64> {
        let mut settled = 0;
        loop {
            match self.lane.take(false, u64::MAX) {
                Take::Busy => return None,
                Take::Empty => return Some(settled),
                Take::Batch { cut, ticket, .. } => {
                    settled += u64::from(cut.records);
                    let bytes = cut.parts.iter().map(|part| part.bytes());
                    let holds = |bytes: &[u8]| bytes.windows(value.len()).any(|at| at == value);
                    assert!(bytes.clone().any(holds), "the record is in its batch");
                    let ordinal = ticket.ordinal;
                    let memory = ticket.memory;
                    ticket.settle(self.lane.partition, Verdict::Sent);
                    drop(cut);
                    self.lane.holds_less(memory);
                    self.lane.count_settled(ordinal);
                }
            }
        }
    }

    fn run_shard(&self, records: u64, value: &[u8]) {
        let mut settled = 0;
        let mut ready = false;
        while settled < records {
            self.shard.ready.drain(1, |_| ready = true);
            if mem::take(&mut ready) {
                match self.serve(value) {
                    Some(served) => settled += served,
                    None => {
                        // Looked at again without sleeping for it.
                        ready = true;
                        thread::yield_now();
                        continue;
                    }
                }
            }
            if settled == records {
                break;
            }
            // As the eventfd: a ring from here on ends the wait.
            let rings = self.shard.counters.wakes();
            self.shard.gate.begin_sleep(NEVER_NS);
            if !self.shard.has_work() {
                while self.shard.counters.wakes() == rings {
                    thread::yield_now();
                }
            }
            self.shard.gate.end_sleep();
        }
        assert_eq!(settled, records);
    }
}

/// Explores it with so many preemptions at most, and says how many executions that were.
fn explore(preemptions: usize, records: u64) {
    let waker = EpollDriver::new().expect("epoll").waker();
    let executions = std::sync::Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let model = Arc::new(Model::new(&waker));
        let appender = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                for _ in 0..records {
                    model.append(b"value");
                }
            })
        };
        model.run_shard(records, b"value");
        appender.join().expect("no panic");
        assert_eq!(model.lane.settled(), model.lane.begun());
        assert_eq!(model.lane.backlog(), Backlog::Empty);
    });
    println!("{} executions", executions.load(Ordering::Relaxed));
}

/// A record is taken once, whole, by a shard that may be asleep, whoever comes first.
#[test]
fn a_record_is_taken_whole_and_never_slept_through() {
    explore(5, 1);
}
