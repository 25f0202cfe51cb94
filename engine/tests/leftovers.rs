//! A producer that was dropped leaves nothing behind: no thread, no descriptor. One test, because
//! it counts what the whole process has.

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use ringpost::{DriverChoice, Pin, Producer, Record};
use ringpost_broker::{Server, ServerConfig};

const PATIENCE: Duration = Duration::from_secs(60);

/// Our threads that run.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux");
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| name.starts_with("ringpost-"))
        .collect()
}

/// Open descriptors by what they are, but for sockets' and pipes' numbers.
fn descriptors() -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").expect("Linux").flatten() {
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        let kind = target.split(":[").next().unwrap_or_default().to_owned();
        // The directory that is being read.
        if !kind.starts_with("/proc") {
            *counts.entry(kind).or_default() += 1;
        }
    }
    counts
}

/// After closing, dropping with records nobody settles, and with a stopped and a paused broker: no
/// thread of ours, and the descriptors of before.
#[test]
fn c7_a_dropped_producer_leaves_no_thread_and_no_descriptor() {
    let before = {
        // Once, for what the process keeps for good.
        let server = Server::start(ServerConfig::default()).expect("a free port");
        use_and_drop(&server, DriverChoice::Ring, |_| {});
        use_and_drop(&server, DriverChoice::Epoll, |_| {});
        server.shutdown();
        descriptors()
    };
    for driver in [DriverChoice::Ring, DriverChoice::Epoll] {
        let server = Server::start(ServerConfig::default()).expect("a free port");
        for round in 0..5 {
            match round {
                0 => use_and_drop(&server, driver, |producer| {
                    assert!(producer.close(PATIENCE).in_time);
                    assert_no_threads();
                }),
                1 => use_and_drop(&server, driver, |producer| {
                    producer.close(Duration::ZERO);
                }),
                // With records that nobody will ever settle.
                2 => use_and_drop(&server, driver, |_| server.stop_node(1)),
                3 => {
                    server.start_node(1).expect("the port is ours");
                    use_and_drop(&server, driver, |_| {});
                }
                _ => use_and_drop(&server, driver, |_| server.pause_node(1, true)),
            }
        }
        server.shutdown();
        assert_eq!(descriptors(), before, "{driver}");
    }
}

/// Makes a producer, sends, lets `end` at it, drops it, and waits until its threads are gone.
fn use_and_drop(server: &Server, driver: DriverChoice, end: impl FnOnce(&Producer)) {
    // The hook is dropped with its thread, the last to end: that is the event.
    let (alive, gone) = channel::<()>();
    let producer = Producer::builder()
        .bootstrap(server.bootstrap())
        .driver(driver)
        .pin(Pin::Off)
        .shards(ringpost::Shards::Count(2))
        .on_undelivered(move |_| {
            let _ = &alive;
        })
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking("left").expect("it is made");
    producer.warm_up_blocking(&["left"]).expect("in time");
    for n in 0..100_u32 {
        topic.post(Record::value(&n.to_be_bytes())).expect("room");
    }
    end(&producer);
    let _ = topic.post(Record::value(b"more"));
    drop(topic);
    drop(producer);
    assert_eq!(
        gone.recv_timeout(PATIENCE),
        Err(RecvTimeoutError::Disconnected),
        "the hook's thread has not ended"
    );
    assert_no_threads();
}

/// The kernel lists a thread until it is through with it, also one that was waited for, and nothing tells
/// when that is; it is near.
fn assert_no_threads() {
    for _ in 0..1_000_000 {
        if threads().is_empty() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("threads are left: {:?}", threads());
}
