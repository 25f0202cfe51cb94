//! A producer that hardly gets a CPU.

use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use ringpost::{DriverChoice, Record, Shards};
use ringpost_broker::numbering;

use crate::support::*;

/// Threads that do nothing but want every CPU, until this is dropped.
struct Hogs {
    enough: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Hogs {
    fn new() -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let cpus = thread::available_parallelism().map_or(2, usize::from);
        let threads = (0..4 * cpus)
            .map(|_| {
                let enough = Arc::clone(&enough);
                thread::spawn(move || {
                    while !enough.load(Ordering::Relaxed) {
                        hint::spin_loop();
                    }
                })
            })
            .collect();
        Self { enough, threads }
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("it only spins");
        }
    }
}

/// Four shards for each CPU, and four others that want it all the time: every record is acked and
/// stored once and in order; none expires, nothing is tried again, no connection is given up.
fn x7_more_shards_than_cpus_and_hardly_a_cpu(driver: DriverChoice) {
    const RECORDS: u64 = 20_000;
    let cpus = thread::available_parallelism().map_or(2, usize::from);
    let shards = (4 * cpus).min(16);
    let server = broker_with(|broker| broker.numbered = true);
    server
        .with(|broker| broker.create_topic("starved", 32))
        .expect("a new topic");
    let producer = builder(&server, driver)
        .shards(Shards::Count(shards))
        .max_block(PATIENCE)
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking("starved").expect("it is there");
    let hogs = Hogs::new();
    let mut value = [0; 100];
    for number in 0..RECORDS {
        numbering::stamp(&mut value, 1, number);
        let partition = i32::try_from(number % 32).expect("small");
        let record = Record::value(&value).partition(partition);
        drop(topic.send_blocking(record).expect("memory comes free"));
    }
    let report = producer.close(PATIENCE);
    drop(hogs);
    assert_eq!(
        (report.in_time, report.records_acked),
        (true, RECORDS),
        "{report:?}"
    );
    let total = producer.stats().total();
    assert_eq!((total.retries, total.connection_failures), (0, 0));
    let report = server.shutdown();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.records, RECORDS);
}

for_both_drivers!(x7_more_shards_than_cpus_and_hardly_a_cpu);
