//! After warm-up the engine takes nothing from the heap for a record: counted over a million of
//! them, on all threads (the shard's and the controller's too), with both drivers.
//!
//! The broker runs in a process of its own, this test's own executable, so that what it takes is
//! not counted.

use std::alloc::System;
use std::env;
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::pin::pin;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ringpost::{Delivery, DriverChoice, Outcome, Pin, Producer, Record, Topic, TrySendError};
use ringpost_broker::{Mode, Server, ServerConfig};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One measurement at a time: the counts are the whole process's.
static TURN: Mutex<()> = Mutex::new(());

/// Little, as it is filled in the warm-up.
const MEMORY: usize = 16 << 20;
const RECORDS: u64 = 1_000_000;
const VALUE: [u8; 100] = [b'v'; 100];
const PATIENCE: Duration = Duration::from_secs(60);
const BROKER: &str = "RINGPOST_ALLOCATIONS_BROKER";

/// Not a test of its own: the broker of the others, when they start this executable for it.
#[test]
fn broker_of_the_other_tests() {
    if env::var_os(BROKER).is_none() {
        return;
    }
    let server = Server::start(ServerConfig::with_mode(Mode::Ack)).expect("a free port");
    println!("bootstrap={}", server.bootstrap());
    // Until the test ends, however it ends: then the pipe does.
    for word in std::io::stdin().lines().map_while(Result::ok) {
        if let Some(partitions) = word.strip_prefix("topic ") {
            let partitions = partitions.parse().expect("a number");
            server
                .with(|broker| broker.create_topic(&format!("wide-{partitions}"), partitions))
                .expect("a new topic");
        } else {
            server.pause_node(1, word == "pause");
        }
        println!("done={word}");
    }
}

struct Broker {
    process: Child,
    output: BufReader<ChildStdout>,
    bootstrap: String,
}

impl Broker {
    fn start() -> Self {
        let mut process = Command::new(env::current_exe().expect("it runs"))
            .args(["--exact", "broker_of_the_other_tests", "--nocapture"])
            .env(BROKER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let mut broker = Self {
            process,
            output,
            bootstrap: String::new(),
        };
        broker.bootstrap = broker.hear("bootstrap=");
        broker
    }

    /// What it says after `word`.
    fn hear(&mut self, word: &str) -> String {
        (&mut self.output)
            .lines()
            .find_map(|line| Some(line.ok()?.split_once(word)?.1.to_owned()))
            .expect("it says so")
    }

    /// Has it stand still, or go on.
    fn pause(&mut self, pause: bool) {
        self.tell(if pause { "pause" } else { "go on" });
    }

    fn tell(&mut self, word: &str) {
        let input = self.process.stdin.as_mut().expect("piped");
        writeln!(input, "{word}").expect("it runs");
        assert_eq!(self.hear("done="), word);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// What a run took from the heap.
struct Taken {
    /// New blocks, and old ones that had to grow.
    allocations: usize,
    batches: u64,
}

/// As full as the producer can be, so that all its queues are as long as they ever will be. How long they
/// become while a broker answers depends on what else the machine does.
fn fill(broker: &mut Broker, producer: &Producer, topic: &Topic) {
    broker.pause(true);
    let mut taken = 0;
    while topic.enqueue(Record::value(&VALUE), 0).is_ok() {
        taken += 1;
    }
    broker.pause(false);
    let mut completions = Vec::new();
    while completions.len() < taken {
        assert!(producer.completions().wait(PATIENCE), "nothing comes");
        producer.completions().drain(&mut completions);
    }
    flush(producer);
}

/// Sends in `send` a number of records and waits for them: once to warm up, once to count.
fn measure(
    driver: DriverChoice,
    what: &str,
    records: u64,
    send: impl Fn(&Producer, &Topic, u64),
) -> Taken {
    let _turn = TURN.lock().expect("no panic");
    let mut broker = Broker::start();
    let producer = Producer::builder()
        .bootstrap(&broker.bootstrap)
        .driver(driver)
        .pin(Pin::Off)
        .memory(MEMORY)
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking("counted").expect("it is made");
    producer.warm_up_blocking(&["counted"]).expect("in time");
    fill(&mut broker, &producer, &topic);
    send(&producer, &topic, RECORDS / 4);
    let before = producer.stats().total();
    let region = Region::new(HEAP);
    send(&producer, &topic, records);
    let change = region.change();
    let after = producer.stats().total();
    assert_eq!(after.records_acked - before.records_acked, records);
    let taken = Taken {
        allocations: change.allocations + change.reallocations,
        batches: after.batches - before.batches,
    };
    println!(
        "{what}, {driver}: {} allocations for {records} records in {} batches",
        taken.allocations, taken.batches
    );
    producer.close(PATIENCE);
    taken
}

fn flush(producer: &Producer) {
    producer.flush_blocking(PATIENCE).expect("in time");
}

/// Zero per record: at most fifty over a million records and thousands of batches, for queues that
/// reach a length they did not have in the warm-up (2 to 10 were seen).
const GROWTH: usize = 50;

fn posting(driver: DriverChoice) {
    let taken = measure(driver, "post", RECORDS, |producer, topic, records| {
        for _ in 0..records {
            while let Err(refused) = topic.post(Record::value(&VALUE)) {
                assert!(matches!(refused, TrySendError::Full(_)), "{refused}");
                std::thread::yield_now();
            }
        }
        flush(producer);
    });
    assert!(taken.allocations <= GROWTH, "{}", taken.allocations);
}

fn enqueueing(driver: DriverChoice) {
    let completions = Mutex::new(Vec::with_capacity(1 << 18));
    let taken = measure(
        driver,
        "enqueue and drain",
        RECORDS,
        |producer, topic, records| {
            let mut completions = completions.lock().expect("no panic");
            let mut drained = 0;
            let mut drain = |wait: bool| {
                if wait {
                    assert!(producer.completions().wait(PATIENCE), "nothing comes");
                }
                completions.clear();
                producer.completions().drain(&mut completions);
                drained += completions.len() as u64;
                drained
            };
            for tag in 0..records {
                while let Err(refused) = topic.enqueue(Record::value(&VALUE), tag) {
                    assert!(matches!(refused, TrySendError::Full(_)), "{refused}");
                    drain(true);
                }
                if tag % 1024 == 0 {
                    drain(false);
                }
            }
            while drain(false) < records {
                drain(true);
            }
            flush(producer);
        },
    );
    assert!(taken.allocations <= GROWTH, "{}", taken.allocations);
}

/// The caller's own executor, with one waker for all.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().expect("no panic") = true;
        self.heard.notify_all();
    }
}

fn outcome(delivery: Delivery, bell: &Bell, waker: &Waker) -> Outcome {
    let mut delivery = pin!(delivery);
    loop {
        if let Poll::Ready(outcome) = delivery.as_mut().poll(&mut Context::from_waker(waker)) {
            return outcome;
        }
        let rung = bell.rung.lock().expect("no panic");
        let (mut rung, late) = bell
            .heard
            .wait_timeout_while(rung, PATIENCE, |rung| !*rung)
            .expect("no panic");
        assert!(!late.timed_out(), "nobody rings");
        *rung = false;
    }
}

fn awaiting(driver: DriverChoice) {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let window = Mutex::new(std::collections::VecDeque::with_capacity(10_000));
    let taken = measure(
        driver,
        "await in order",
        RECORDS / 4,
        |_, topic, records| {
            let mut window = window.lock().expect("no panic");
            for _ in 0..records {
                if window.len() == 10_000 {
                    let first = window.pop_front().expect("it is full");
                    assert!(matches!(outcome(first, &bell, &waker), Outcome::Acked(_)));
                }
                window.push_back(topic.try_send(Record::value(&VALUE)).expect("room"));
            }
            for delivery in window.drain(..) {
                assert!(matches!(
                    outcome(delivery, &bell, &waker),
                    Outcome::Acked(_)
                ));
            }
        },
    );
    let batches = usize::try_from(taken.batches).expect("few");
    assert!(
        taken.allocations <= batches + GROWTH,
        "{} for {batches} batches",
        taken.allocations
    );
}

/// What is kept of a partition while it is idle, as long as the producer lives: its lane at both ends, its
/// sequence, its leader. Measured: see the test's output.
const KEPT_BYTES_MAX: usize = 2_560;

/// Of partitions that had records and are idle no buffer is kept and no record's memory, and of the heap less
/// than 2.5 KiB each, as much for a topic of 20,000 as for one of 5,000; more records to the same ones add
/// nothing. So what is kept is bounded by the number of partitions, which has a bound of its own.
fn b8_an_idle_partition_keeps_little_and_no_buffer(driver: DriverChoice) {
    let _turn = TURN.lock().expect("no panic");
    let mut broker = Broker::start();
    let producer = Producer::builder()
        .bootstrap(&broker.bootstrap)
        .driver(driver)
        .pin(Pin::Off)
        .memory(MEMORY)
        .build()
        .expect("a producer");
    let first = producer.topic_blocking("counted").expect("it is made");
    fill(&mut broker, &producer, &first);
    let once_each = |topic: &Topic, partitions: i32| {
        for partition in 0..partitions {
            let record = Record::value(&VALUE).partition(partition);
            drop(topic.send_blocking(record).expect("memory comes free"));
        }
        flush(&producer);
        assert_eq!(producer.stats().memory_in_use, 0);
    };
    for partitions in [5_000, 20_000] {
        broker.tell(&format!("topic {partitions}"));
        let region = Region::new(HEAP);
        let kept = || {
            let change = region.change();
            let all = change
                .bytes_allocated
                .saturating_sub(change.bytes_deallocated);
            all / usize::try_from(partitions).expect("positive")
        };
        let name = format!("wide-{partitions}");
        let topic = producer.topic_blocking(&name).expect("it is there");
        once_each(&topic, partitions);
        let once = kept();
        for _ in 0..2 {
            once_each(&topic, partitions);
        }
        let often = kept();
        println!("{driver}, {partitions} partitions: {once} bytes each, then {often}");
        assert!(once <= KEPT_BYTES_MAX, "{once} bytes");
        // For queues that were never so long before.
        assert!(often <= once + once / 8, "{once} bytes, then {often}");
    }
    producer.close(PATIENCE);
}

macro_rules! for_both_drivers {
    ($($name:ident),* $(,)?) => {
        mod ring { $(#[test] fn $name() { super::$name(ringpost::DriverChoice::Ring); })* }
        mod epoll { $(#[test] fn $name() { super::$name(ringpost::DriverChoice::Epoll); })* }
    };
}

for_both_drivers!(
    posting,
    enqueueing,
    awaiting,
    b8_an_idle_partition_keeps_little_and_no_buffer,
);
