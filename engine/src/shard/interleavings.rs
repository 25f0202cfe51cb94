//! The real lane, ready set, gate, commands and flush, with three appenders and a shard, in random
//! schedules (shuttle runs one thread at a time and switches at every lock and atomic of theirs).
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test -p ringpost --release --lib interleavings
//! ```
//!
//! The shard here does what [`Shard::turn`] does with lanes: drain, take what is there, settle,
//! announce its sleep, look again, sleep until it is woken. One that sleeps through a record
//! never ends, which shuttle reports with the schedule that repeats it.
//!
//! What the models find was tried by breaking the code, one place at a time:
//! - `Flush::poll` without its second look, `Flushes::register` that counts nobody, a shard that does
//!   not look again once it announced its sleep: each of them hangs;
//! - `try_command` that rings before it sets the flag: both that close hang;
//! - a lane that nobody is told of at its first record: `no_record_is_slept_through` hangs;
//! - `lane_has_news` that rings before it marks: `closing_settles_what_was_taken` hangs;
//! - an append that forgets that the lane is closed: both that close fail;
//! - a lane that notes what is held back before the bulkhead counts it:
//!   `room_behind_a_dead_broker_is_counted_and_given_on` fails;
//! - a lane that wakes nobody when it is well again: `who_waits_for_a_dead_broker_goes_on_with_it`
//!   hangs.
//!
//! They do not see a bulkhead that serves nobody when a wait is dropped (what is settled later does; its
//! own tests see it), a full batch that is not told of (the shard takes what is there when the first
//! record is told of), nor a mark without its look at the summary, nor weak memory: the fences of
//! ready set and gate have loom models, and so has a lane with one appender (`loom_models`).

use std::task::{Context, Poll, Wake};

use ringpost_core::health::{Standing, View};
use ringpost_core::outcome::{Failure, Verdict, Why};
use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, Runner, thread};

use super::*;
use crate::bulkhead::{Bulkhead, OnLaneUnavailable, Room};
use crate::completions::CompletionQueue;
use crate::delivery::{BatchCompletion, Delivery};
use crate::driver::EpollDriver;
use crate::flush::{Flush, Flushes};
use crate::lane::{Bound, Granted, LaneSettings, Refused, Watch};
use crate::purge::Purging;
use crate::record::Record;

const LANES: u32 = 2;
const APPENDERS: u64 = 3;
const RECORDS: u64 = 4;

struct Model {
    shard: Arc<ShardShared>,
    lanes: Vec<Arc<Lane>>,
    completions: Arc<CompletionQueue>,
    flushes: Arc<Flushes>,
}

impl Model {
    fn new(waker: &Waker) -> Self {
        let shard = Arc::new(ShardShared::for_lanes(0, waker.clone(), LANES));
        let completions = Arc::new(CompletionQueue::new(1000));
        let settings = Arc::new(LaneSettings {
            // Two records of ours fill a batch.
            batch_bytes: 61 + 100,
            room_bytes: 1 << 14,
            pool: Pool::new(1 << 20, 1 << 14).expect("memory"),
            completions: Arc::clone(&completions),
            bulkhead: Arc::new(Bulkhead::new(
                1 << 20,
                OnLaneUnavailable::Wait,
                Arc::default(),
            )),
        });
        let lanes = (0..LANES)
            .map(|id| {
                let settings = Arc::clone(&settings);
                let topic = "t".into();
                let partition = id.cast_signed();
                Arc::new(Lane::new(
                    LaneId(id),
                    topic,
                    partition,
                    Arc::clone(&shard),
                    settings,
                ))
            })
            .collect();
        Self {
            shard,
            lanes,
            completions,
            flushes: Arc::default(),
        }
    }

    /// Everything a lane has; whether it has to be looked at again soon.
    fn serve(&self, lane: u32, settled: &mut u64) -> bool {
        let lane = &self.lanes[lane as usize];
        loop {
            match lane.take(false, u64::MAX) {
                Take::Busy => return true,
                Take::Empty => return false,
                Take::Batch { cut, ticket, .. } => {
                    *settled += u64::from(cut.records);
                    let ordinal = ticket.ordinal;
                    ticket.settle(lane.partition, Verdict::Sent);
                    lane.count_settled(ordinal);
                    self.flushes.notify();
                }
            }
        }
    }

    fn run_shard(&self, records: u64) {
        let mut settled = 0;
        let mut busy = [false; LANES as usize];
        while settled < records {
            self.shard
                .ready
                .drain(LANES as usize, |lane| busy[lane as usize] = true);
            for lane in 0..LANES {
                if mem::take(&mut busy[lane as usize]) {
                    busy[lane as usize] = self.serve(lane, &mut settled);
                }
            }
            // A lane whose lock was taken is looked at again without sleeping for it.
            if settled == records || busy.contains(&true) {
                thread::yield_now();
                continue;
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

    fn append(&self, appender: u64, watch: impl Fn(u64) -> Watch) -> Vec<Arc<BatchCompletion>> {
        let (taken, shares) = self.append_until_closed(appender, watch);
        assert_eq!(taken, RECORDS);
        shares
    }

    /// How many records were taken before the lanes were closed, and who watches them.
    fn append_until_closed(
        &self,
        appender: u64,
        watch: impl Fn(u64) -> Watch,
    ) -> (u64, Vec<Arc<BatchCompletion>>) {
        let value = [b'v'; 40];
        let mut shares = Vec::new();
        let mut taken = 0;
        for n in 0..RECORDS {
            let lane = &self.lanes[usize::from((n + appender) % 2 == 0)];
            match lane.append(&Record::value(&value), Bound::Pinned, watch(n), &mut None) {
                Ok(appended) => {
                    taken += 1;
                    shares.extend(appended.completion);
                }
                Err(Refused::Closed) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        (taken, shares)
    }

    /// As [`Model::run_shard`], for as long as nobody says stop; it takes purges, too. How many records
    /// were settled, and how many of those were given up.
    fn run_shard_until_stopped(&self) -> (u64, u64) {
        let (mut settled, mut purged) = (0, 0);
        let mut busy = [false; LANES as usize];
        loop {
            if self.shard.commanded.swap(false, Ordering::AcqRel) {
                let commands = mem::take(&mut self.shard.commands().waiting);
                for command in commands {
                    match command {
                        Command::Purge { duty, .. } => {
                            purged += self.give_up();
                            drop(duty);
                        }
                        Command::Stop => {
                            purged += self.give_up();
                            self.shard.end_commands();
                            return (settled + purged, purged);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            self.shard
                .ready
                .drain(LANES as usize, |lane| busy[lane as usize] = true);
            for lane in 0..LANES {
                if mem::take(&mut busy[lane as usize]) {
                    busy[lane as usize] = self.serve(lane, &mut settled);
                }
            }
            if busy.contains(&true) {
                thread::yield_now();
                continue;
            }
            let rings = self.shard.counters.wakes();
            self.shard.gate.begin_sleep(NEVER_NS);
            if !self.shard.has_work() {
                while self.shard.counters.wakes() == rings {
                    thread::yield_now();
                }
            }
            self.shard.gate.end_sleep();
        }
    }

    /// Settles what the lanes have without sending it, waiting for their locks. How many records.
    fn give_up(&self) -> u64 {
        let mut records = 0;
        for lane in &self.lanes {
            while let Take::Batch { cut, ticket, .. } = lane.take(true, u64::MAX) {
                records += u64::from(cut.records);
                let ordinal = ticket.ordinal;
                ticket.settle(
                    lane.partition,
                    Verdict::NotWritten(Failure {
                        why: Why::Purged,
                        attempts: 0,
                        first: None,
                        first_after_ms: 0,
                        last: None,
                        last_after_ms: 0,
                        after_ms: 0,
                    }),
                );
                lane.count_settled(ordinal);
                self.flushes.notify();
            }
        }
        records
    }

    fn flush(&self) -> Flush {
        Flush::new(Arc::clone(&self.flushes), None, self.lanes.iter().cloned())
    }

    /// The tags that came back, in order.
    fn tags(&self) -> Vec<u64> {
        let mut completions = Vec::new();
        while self.completions.drain(&mut completions) > 0 {}
        let mut tags: Vec<_> = completions.iter().map(|done| done.tag).collect();
        tags.sort_unstable();
        tags
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs a future as an executor would: polled again only when it was woken.
fn run<F: Future + Unpin>(mut future: F) {
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = std::task::Waker::from(Arc::clone(&flag));
    loop {
        if flag.0.swap(false, Ordering::SeqCst)
            && let Poll::Ready(_) =
                std::pin::Pin::new(&mut future).poll(&mut Context::from_waker(&waker))
        {
            return;
        }
        thread::yield_now();
    }
}

fn model(waker: &Waker) {
    let model = Arc::new(Model::new(waker));
    let shard = {
        let model = Arc::clone(&model);
        thread::spawn(move || model.run_shard(APPENDERS * RECORDS))
    };
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|appender| {
            let model = Arc::clone(&model);
            thread::spawn(move || match appender {
                // Whoever posts and flushes finds its records settled.
                0 => {
                    model.append(0, |_| Watch::Nobody);
                    let lanes = model.lanes.iter().cloned();
                    let before: Vec<_> = lanes.clone().map(|lane| lane.begun()).collect();
                    run(Flush::new(Arc::clone(&model.flushes), None, lanes));
                    for (lane, begun) in model.lanes.iter().zip(before) {
                        assert!(lane.settled() >= begun, "flushed too early");
                    }
                }
                1 => drop(model.append(1, Watch::Tag)),
                _ => {
                    let shares = model.append(2, |_| Watch::Future);
                    assert_eq!(shares.len() as u64, RECORDS);
                    for share in shares {
                        run(Delivery::new(share, 0, 0));
                    }
                }
            })
        })
        .collect();
    for appender in appenders {
        appender.join().expect("no panic");
    }
    shard.join().expect("no panic");
    assert_eq!(model.tags(), (0..RECORDS).collect::<Vec<_>>(), "each once");
}

/// Lanes close, are flushed, and the shard is stopped, as `Producer::close` does it, while records
/// still come; with `purging`, somebody gives everything up meanwhile.
fn closing(waker: &Waker, purging: bool) {
    let model = Arc::new(Model::new(waker));
    let shard = {
        let model = Arc::clone(&model);
        thread::spawn(move || model.run_shard_until_stopped())
    };
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|appender| {
            let model = Arc::clone(&model);
            thread::spawn(move || match appender {
                0 => model.append_until_closed(0, |_| Watch::Nobody).0,
                1 => model.append_until_closed(1, Watch::Tag).0,
                _ => {
                    let (taken, shares) = model.append_until_closed(2, |_| Watch::Future);
                    for share in shares {
                        run(Delivery::new(share, 0, 0));
                    }
                    taken
                }
            })
        })
        .collect();
    let purger = purging.then(|| {
        let model = Arc::clone(&model);
        thread::spawn(move || {
            let (purging, mut duties) = Purging::begin(1);
            model.shard.command(Command::Purge {
                which: Purge::Queued,
                topic: None,
                duty: duties.next().expect("one"),
            });
            run(purging);
        })
    });
    for lane in &model.lanes {
        lane.close();
    }
    run(model.flush());
    model.shard.command(Command::Stop);
    let (settled, purged) = shard.join().expect("no panic");
    let taken = appenders
        .into_iter()
        .map(|appender| appender.join().expect("no panic"));
    assert_eq!(
        taken.sum::<u64>(),
        settled,
        "each record that was taken, once"
    );
    if let Some(purger) = purger {
        purger.join().expect("no panic");
    } else {
        assert_eq!(purged, 0, "a flush was waited for");
    }
    let tags = model.tags();
    assert!(tags.is_sorted_by(|a, b| a < b), "{tags:?}: no tag twice");
    // Nothing is left, and nobody waits for what is not there.
    assert_eq!(model.flush().pending(), 0);
    for lane in &model.lanes {
        assert_eq!(lane.backlog(), Backlog::Empty);
        let late = lane.append(
            &Record::value(b"late"),
            Bound::Pinned,
            Watch::Nobody,
            &mut None,
        );
        assert!(matches!(late, Err(Refused::Closed)));
    }
}

/// Runs a model in so many random schedules from each of three seeds. A failing one is printed;
/// `shuttle::replay` repeats it.
fn explore(schedules: usize, model: impl Fn(&Waker) + Clone + Send + Sync + 'static) {
    for seed in [1, 2, 3] {
        let waker = EpollDriver::new().expect("epoll").waker();
        let mut config = Config::new();
        config.max_steps = shuttle::MaxSteps::FailAfter(200_000);
        let scheduler = RandomScheduler::new_from_seed(seed, schedules);
        let model = model.clone();
        Runner::new(scheduler, config).run(move || model(&waker));
    }
}

#[test]
fn no_record_is_slept_through() {
    explore(2000, model);
}

/// What was taken is settled once, the flush ends, the shard hears of its end.
#[test]
fn closing_settles_what_was_taken() {
    explore(1000, |waker| closing(waker, false));
}

/// A purge on top of that is carried out, and changes how records end, not that they do.
#[test]
fn purging_while_closing_settles_what_was_taken() {
    explore(1000, |waker| closing(waker, true));
}

/// What may wait behind dead brokers in the model: one segment more does not fit.
const HELD_BACK_MAX: usize = 2 * 4096;

/// Three send to a lane whose broker comes and goes, and in the end stands like `last`, and wait for
/// room as [`Topic::send`] does; a fourth gives up instead. Meanwhile the shard settles what the lane
/// has.
///
/// [`Topic::send`]: crate::topic::Topic::send
fn holding_back(waker: &Waker, bytes_max: usize, last: Standing) {
    const SENT: usize = 3;
    let shard = Arc::new(ShardShared::for_lanes(0, waker.clone(), 1));
    let policy = OnLaneUnavailable::Wait;
    let bulkhead = Arc::new(Bulkhead::new(bytes_max, policy, Arc::default()));
    let settings = Arc::new(LaneSettings {
        batch_bytes: 1 << 13,
        room_bytes: 1 << 14,
        pool: Pool::new(1 << 20, 1 << 14).expect("memory"),
        completions: Arc::new(CompletionQueue::new(1000)),
        bulkhead: Arc::clone(&bulkhead),
    });
    let lane = Arc::new(Lane::new(LaneId(0), "t".into(), 0, shard, settings));
    lane.set_view(View::new(Standing::Dead, 0, 1, 0));
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (lane, bulkhead) = (Arc::clone(&lane), Arc::clone(&bulkhead));
            thread::spawn(move || {
                // One to a segment.
                let value = [b'v'; 3000];
                let mut sent = 0;
                while sent < SENT {
                    let mut place = None;
                    let mut granted = None;
                    loop {
                        // Each may be counted twice while the standing changes.
                        assert!(bulkhead.held() <= 1 << 20, "less than nothing");
                        let record = Record::value(&value);
                        let want = match lane.append(
                            &record,
                            Bound::Pinned,
                            Watch::Nobody,
                            &mut granted,
                        ) {
                            Ok(_) => break,
                            Err(Refused::Avoided { wait: Some(want) }) => want,
                            Err(other) => panic!("{other:?}"),
                        };
                        match &mut place {
                            Some(_) if sender == 3 => break,
                            Some(room) if Room::stands(room) => run(&mut *room),
                            Some(room) => room.stand_in_line(want),
                            none => *none = Some(bulkhead.room(want, Time::NEVER)),
                        }
                        let room = place.as_ref().map_or(0, Room::given);
                        granted = Some(Granted {
                            memory: None,
                            room,
                            set_aside: false,
                        });
                    }
                    sent += 1;
                }
            })
        })
        .collect();
    let done = Arc::new(AtomicBool::new(false));
    let shard = {
        let (lane, done, bulkhead) = (Arc::clone(&lane), Arc::clone(&done), Arc::clone(&bulkhead));
        thread::spawn(move || {
            let mut standings = [Standing::Good, Standing::Dead].into_iter().cycle();
            let mut turns = 0;
            loop {
                let all_sent = done.load(Ordering::SeqCst);
                assert!(bulkhead.held() <= 1 << 20, "less than nothing");
                if let Take::Batch { ticket, .. } = lane.take(all_sent, u64::MAX) {
                    lane.holds_less(ticket.memory);
                } else if all_sent {
                    return;
                }
                turns += 1;
                let standing = match turns {
                    ..8 => standings.next().expect("without end"),
                    _ => last,
                };
                lane.set_view(View::new(standing, 100, 1, 0));
                thread::yield_now();
            }
        })
    };
    for sender in senders {
        sender.join().expect("no panic");
    }
    done.store(true, Ordering::SeqCst);
    shard.join().expect("no panic");
    assert_eq!(bulkhead.held(), 0);
    assert_eq!(bulkhead.next_deadline(), Time::NEVER);
}

/// What is held back is never less than nothing and nothing in the end, and whoever waits for room
/// gets some, or learns that there is no need to wait.
#[test]
fn room_behind_a_dead_broker_is_counted_and_given_on() {
    explore(1000, |waker| {
        holding_back(waker, HELD_BACK_MAX, Standing::Dead);
    });
}

/// Where nothing may be held back, whoever waits goes on when the lane is well, though no room ever comes
/// free.
#[test]
fn who_waits_for_a_dead_broker_goes_on_with_it() {
    explore(1000, |waker| holding_back(waker, 0, Standing::Good));
}
