//! What all tests here need: a broker, a producer, patience, and reading back what was stored.

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use ringpost::{Ack, Builder, Completion, Delivery, DriverChoice, Outcome, Producer};
use ringpost_broker::{BrokerConfig, Server, ServerConfig};
use ringpost_codec::compress::{Codec, decompress};
use ringpost_codec::reader::Reader;
use ringpost_codec::record_batch::{BatchHeader, BatchView, Records};

/// How long anything may take before its test fails. No measure of time, only the end of a test
/// that would hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where nobody listens: a port that is never given out by itself.
pub(crate) const NOBODY: &str = "127.0.0.1:1";

/// Makes a test of each function for each driver.
macro_rules! for_both_drivers {
    ($($name:ident),* $(,)?) => {
        mod ring {
            $(#[test]
            fn $name() {
                super::$name(ringpost::DriverChoice::Ring);
            })*
        }
        mod epoll {
            $(#[test]
            fn $name() {
                super::$name(ringpost::DriverChoice::Epoll);
            })*
        }
    };
}
pub(crate) use for_both_drivers;

/// A broker that keeps everything.
pub(crate) fn broker() -> Server {
    broker_with(|_| {})
}

/// A broker that keeps everything, otherwise as `change` has it.
pub(crate) fn broker_with(change: impl FnOnce(&mut BrokerConfig)) -> Server {
    let mut config = ServerConfig::storing();
    change(&mut config.broker);
    Server::start(config).expect("a free port")
}

/// A configuration for tests: tests run beside each other, so nothing is pinned.
pub(crate) fn builder(server: &Server, driver: DriverChoice) -> Builder {
    builder_at(server.bootstrap(), driver)
}

pub(crate) fn builder_at(bootstrap: impl Into<String>, driver: DriverChoice) -> Builder {
    Producer::builder()
        .bootstrap(bootstrap)
        .driver(driver)
        .pin(ringpost::Pin::Off)
}

pub(crate) fn producer(server: &Server, driver: DriverChoice) -> Producer {
    builder(server, driver).build().expect("a producer")
}

/// Rung by whoever wakes; remembered until it is waited for.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().expect("no panic") = true;
        self.heard.notify_all();
    }
}

impl Bell {
    pub(crate) fn is_rung(&self) -> bool {
        *self.rung.lock().expect("no panic")
    }

    /// Waits until it is rung, and forgets that; fails when nobody rings it in time.
    pub(crate) fn wait(&self) {
        let rung = self.rung.lock().expect("no panic");
        let (mut rung, late) = self
            .heard
            .wait_timeout_while(rung, PATIENCE, |rung| !*rung)
            .expect("no panic");
        assert!(!late.timed_out(), "a future that nobody woke");
        *rung = false;
    }
}

/// Runs a future to its end on this thread, on an executor that is not the engine's.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        bell.wait();
    }
}

/// Polls a future once.
pub(crate) fn poll<F: Future + Unpin>(future: &mut F, bell: &Arc<Bell>) -> Poll<F::Output> {
    let waker = Waker::from(Arc::clone(bell));
    std::pin::Pin::new(future).poll(&mut Context::from_waker(&waker))
}

/// What comes through a channel, in time.
pub(crate) fn receive<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(PATIENCE).expect("in time")
}

/// Runs `act` in a thread and gives its result, in time.
pub(crate) fn in_time<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = channel();
    let thread = thread::spawn(move || {
        // Whoever waits may have given up.
        let _ = tell.send(act());
    });
    match told.recv_timeout(PATIENCE) {
        Ok(value) => {
            thread.join().expect("no panic");
            value
        }
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it sends before it ends"),
        },
        Err(RecvTimeoutError::Timeout) => panic!("not done within {PATIENCE:?}"),
    }
}

/// Gives the processor away until `done`; fails after so many times that it can only be a hang.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    for look in 0..160_000_u32 {
        if done() {
            return;
        }
        if look < 100_000 {
            thread::yield_now();
        } else {
            thread::park_timeout(Duration::from_millis(1));
        }
    }
    panic!("never: {what}");
}

pub(crate) fn acked(outcome: Outcome) -> Ack {
    match outcome {
        Outcome::Acked(ack) => ack,
        other => panic!("not acknowledged: {other:?}"),
    }
}

pub(crate) fn ack(delivery: Delivery) -> Ack {
    acked(block_on(delivery))
}

/// So many completions.
pub(crate) fn drain(producer: &Producer, count: usize) -> Vec<Completion> {
    let mut completions = Vec::new();
    while completions.len() < count {
        assert!(
            producer.completions().wait(PATIENCE),
            "{} of {count} completions came",
            completions.len()
        );
        producer.completions().drain(&mut completions);
    }
    completions
}

/// A record as a consumer would see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Stored {
    pub(crate) fn text(&self) -> &str {
        self.value
            .as_deref()
            .map_or("", |value| std::str::from_utf8(value).expect("text"))
    }
}

/// What a topic holds: partition by partition, in order.
pub(crate) fn stored(server: &Server, topic: &str) -> Vec<Stored> {
    let report = server.report();
    let partitions = report.partitions.iter().filter(|p| p.topic == topic);
    let mut all = Vec::new();
    for partition in partitions.map(|p| p.partition) {
        let log = server.with(|broker| broker.log(topic, partition));
        let mut reader = Reader::new(&log);
        while reader.remaining() > 0 {
            let batch = BatchView::read(&mut reader).expect("the broker checked it");
            read_batch(partition, &batch, &mut all);
        }
    }
    all
}

fn read_batch(partition: i32, batch: &BatchView<'_>, all: &mut Vec<Stored>) {
    let header = &batch.header;
    let codec = header.attributes.codec().expect("a known codec");
    let body = match codec {
        Codec::None => batch.body().to_vec(),
        codec => decompress(codec, batch.body(), 64 << 20).expect("the broker could too"),
    };
    for record in Records::new(&body, header.record_count) {
        let record = record.expect("the broker checked it");
        all.push(Stored {
            partition,
            offset: header.base_offset + i64::from(record.offset_delta),
            timestamp_ms: header.base_timestamp + record.timestamp_delta,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers()
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect(),
        });
    }
}

/// The header of each batch of a partition.
pub(crate) fn headers(server: &Server, topic: &str, partition: i32) -> Vec<BatchHeader> {
    let log = server.with(|broker| broker.log(topic, partition));
    let mut reader = Reader::new(&log);
    let mut headers = Vec::new();
    while reader.remaining() > 0 {
        let batch = BatchView::read(&mut reader).expect("the broker checked it");
        headers.push(batch.header);
    }
    headers
}

/// The codec of each batch of a partition.
pub(crate) fn codecs(server: &Server, topic: &str, partition: i32) -> Vec<Codec> {
    let headers = headers(server, topic, partition).into_iter();
    headers
        .map(|header| header.attributes.codec().expect("a known codec"))
        .collect()
}
