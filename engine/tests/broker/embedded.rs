//! A producer that the application's own thread drives.

use std::fmt::Write;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringpost::{
    DriverChoice, Embedded, Outcome, Producer, Purge, Record, TopicError, TrySendError,
};
use ringpost_broker::{Server, ServerConfig, numbering};
use tracing::field::Field;
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};

use crate::support::*;

fn it_sends_while_it_is_turned(driver: DriverChoice) {
    let server = broker_with(|broker| broker.numbered = true);
    let (producer, mut engine) = builder(&server, driver)
        .build_embedded()
        .expect("an engine");
    let topic = engine
        .topic(&producer, "own", PATIENCE)
        .expect("it is made");
    let mut value = [0; 64];
    let mut deliveries = Vec::new();
    for number in 0..5000 {
        numbering::stamp(&mut value, 1, number);
        let record = Record::value(&value).partition(0);
        deliveries.push(topic.try_send(record).expect("room"));
        if number % 100 == 0 {
            engine.turn(Duration::ZERO).expect("the kernel works");
        }
    }
    engine
        .run_until(producer.flush(), PATIENCE)
        .expect("in time");
    for (number, delivery) in (0..).zip(deliveries) {
        let ack = acked(delivery.outcome().expect("settled"));
        assert_eq!(ack.offset, Some(number));
    }
    assert_eq!(producer.stats().total().records_acked, 5000);
    let report = server.shutdown();
    assert!(report.is_clean(), "{report:?}");
}

fn other_threads_may_send(driver: DriverChoice) {
    let server = broker();
    let (producer, mut engine) = builder(&server, driver)
        .build_embedded()
        .expect("an engine");
    let topic = engine
        .topic(&producer, "own", PATIENCE)
        .expect("it is made");
    let sender = std::thread::spawn(move || {
        for n in 0..200_u32 {
            acked(
                topic
                    .send_blocking(Record::value(&n.to_be_bytes()))
                    .expect("room")
                    .wait(),
            );
        }
    });
    for _ in 0..10_000_000_u64 {
        if sender.is_finished() {
            break;
        }
        engine
            .turn(Duration::from_millis(1))
            .expect("the kernel works");
    }
    sender.join().expect("no panic");
    assert_eq!(server.report().records, 200);
}

fn nobody_to_talk_to(driver: DriverChoice) {
    let (producer, mut engine) = builder_at(NOBODY, driver)
        .connect_timeout(Duration::from_millis(50))
        .build_embedded()
        .expect("an engine");
    let error = engine
        .topic(&producer, "none", PATIENCE)
        .expect_err("nobody is there");
    assert!(error.to_string().contains(NOBODY), "{error}");
    // Less patience than the settings have.
    let error = engine
        .topic(&producer, "none", Duration::ZERO)
        .expect_err("nobody is there");
    assert!(matches!(error, TopicError::NoBroker { ref attempts, .. } if !attempts.is_empty()));
    let (named, mut engine) = builder_at("localhost:1", driver)
        .connect_timeout(Duration::from_millis(50))
        .build_embedded()
        .expect("an engine");
    let error = engine
        .topic(&named, "none", PATIENCE)
        .expect_err("names are not looked up");
    assert!(
        error.to_string().contains("addresses, not names"),
        "{error}"
    );
}

fn its_end_settles_everything(driver: DriverChoice) {
    let server = broker();
    let (producer, mut engine) = builder(&server, driver)
        .linger(Duration::from_secs(50))
        .build_embedded()
        .expect("an engine");
    let topic = engine
        .topic(&producer, "own", PATIENCE)
        .expect("it is made");
    let first = topic.try_send(Record::value(b"x")).expect("room");
    topic.enqueue(Record::value(b"x"), 5).expect("room");
    // The producer goes first: the next turn ends the engine.
    drop(producer.clone());
    assert!(!engine.has_ended());
    let closed = producer.close(Duration::ZERO);
    assert!(!closed.in_time);
    engine.turn(Duration::ZERO).expect("the kernel works");
    for _ in 0..1000 {
        if engine.has_ended() {
            break;
        }
        engine.turn(Duration::ZERO).expect("the kernel works");
    }
    assert!(engine.has_ended());
    assert!(matches!(first.outcome(), Some(Outcome::NotWritten(_))));
    assert!(matches!(
        drain(&producer, 1)[0].outcome,
        Outcome::NotWritten(_)
    ));
    assert!(matches!(
        topic.post(Record::value(b"x")),
        Err(TrySendError::Closed(_))
    ));

    // The engine goes first, with records in its lanes.
    let (producer, mut engine) = builder(&server, driver)
        .linger(Duration::from_secs(50))
        .build_embedded()
        .expect("an engine");
    let topic = engine
        .topic(&producer, "own", PATIENCE)
        .expect("it is made");
    let delivery = topic.try_send(Record::value(b"x")).expect("room");
    topic.enqueue(Record::value(b"x"), 6).expect("room");
    drop(engine);
    assert!(matches!(delivery.outcome(), Some(Outcome::NotWritten(_))));
    assert_eq!(drain(&producer, 1)[0].tag, 6);
    assert!(matches!(
        topic.post(Record::value(b"x")),
        Err(TrySendError::Closed(_))
    ));
    assert!(producer.flush_blocking(Duration::ZERO).is_ok());
    assert_eq!(producer.stats().total().records_not_written, 2);
    assert_eq!(producer.stats().memory_in_use, 0);
    assert!(producer.warm_up_blocking(&[]).is_err());
}

/// Records that nobody waits for are reported at the end too, however it comes.
fn its_end_reports_what_was_not_sent(driver: DriverChoice) {
    let server = broker();
    // More batches than may wait for the hook at a time.
    const BATCHES: u32 = 400;
    let value = [b'v'; 600];
    for dropped in [false, true] {
        let told = Arc::new(AtomicU32::new(0));
        let (producer, mut engine) = builder(&server, driver)
            .linger(Duration::from_secs(50))
            .batch_bytes(1024)
            .on_undelivered({
                let told = Arc::clone(&told);
                move |batch| {
                    told.fetch_add(batch.len(), Ordering::Relaxed);
                }
            })
            .build_embedded()
            .expect("an engine");
        let topic = engine
            .topic(&producer, "own", PATIENCE)
            .expect("it is made");
        for _ in 0..BATCHES {
            topic
                .post(Record::value(&value).partition(0))
                .expect("room");
        }
        let stats = producer.clone();
        if dropped {
            drop(engine);
        } else {
            producer.close(Duration::ZERO);
            for _ in 0..1000 {
                engine.turn(Duration::ZERO).expect("the kernel works");
            }
            assert!(engine.has_ended());
        }
        assert_eq!(told.load(Ordering::Relaxed), BATCHES, "dropped: {dropped}");
        assert_eq!(stats.stats().undelivered_dropped, 0);
        assert_eq!(stats.stats().memory_in_use, 0);
    }
}

/// Turns without haste until the future is ready: only news ends these turns.
fn turned<F: Future>(engine: &mut Embedded, future: F) -> F::Output {
    const FOR_EVER: Duration = Duration::from_secs(3600);
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        engine.turn(FOR_EVER).expect("the kernel works");
    }
}

/// Nobody sleeps while there is something to be seen.
fn a_turn_with_news_does_not_wait(driver: DriverChoice) {
    let server = broker();
    let builder = builder(&server, driver);
    in_time(move || {
        let (producer, mut engine) = builder.build_embedded().expect("an engine");
        let engine = &mut engine;
        let topic = turned(engine, producer.topic("own")).expect("it is made");
        turned(engine, producer.warm_up(&["own"])).expect("connected");
        for _ in 0..20 {
            let delivery = topic.try_send(Record::value(b"x")).expect("room");
            acked(turned(engine, delivery));
        }
        topic.post(Record::value(b"x")).expect("room");
        turned(engine, producer.flush());
        turned(engine, producer.purge(Purge::Queued));
        assert_eq!(producer.stats().total().records_acked, 21);
    });
}

/// Who waits for room is told in time that there will be none.
fn a_turn_does_not_outlast_the_patience_of_others(driver: DriverChoice) {
    let server = broker();
    server.with(|broker| {
        let silence = ringpost_broker::RequestFault::Silence;
        for _ in 0..100 {
            let faults = broker.faults();
            faults.next_request(ringpost_broker::ApiKey::Produce, Some(silence));
        }
    });
    // Nothing else ends a turn.
    let hours = Duration::from_secs(3600);
    let builder = builder(&server, driver)
        .memory(1 << 20)
        .max_block(Duration::from_millis(50))
        .request_timeout(hours)
        .delivery_timeout(2 * hours)
        .set("health", "off")
        .expect("a setting");
    in_time(move || {
        let (producer, mut engine) = builder.build_embedded().expect("an engine");
        let topic = turned(&mut engine, producer.topic("own")).expect("it is made");
        let value = [b'v'; 1000];
        while topic.post(Record::value(&value)).is_ok() {
            engine.turn(Duration::ZERO).expect("the kernel works");
        }
        let sent = turned(&mut engine, topic.send(Record::value(&value)));
        assert!(sent.is_err(), "{sent:?}");
    });
}

/// The setting `wait` is for shards with a thread of their own.
fn a_turn_waits_as_it_is_told(driver: DriverChoice) {
    let server = broker();
    let (producer, mut engine) = builder(&server, driver)
        .wait(ringpost::WaitPolicy::Spin)
        .build_embedded()
        .expect("an engine");
    engine
        .topic(&producer, "own", PATIENCE)
        .expect("it is made");
    for _ in 0..100 {
        engine.turn(Duration::ZERO).expect("the kernel works");
    }
    let entries = |producer: &Producer| producer.stats().total().kernel_entries;
    let before = entries(&producer);
    for wait_ms in [1, 1, 1, 0] {
        engine
            .turn(Duration::from_millis(wait_ms))
            .expect("the kernel works");
    }
    assert!(entries(&producer) >= before + 3, "it slept in the kernel");
}

/// What was logged, an event a line, each field as whoever prints it gets it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = self.0.lock().expect("no panic");
        event.record(&mut |field: &Field, value: &dyn std::fmt::Debug| {
            write!(text, "{field}={value:?} ").expect("memory");
        });
        text.push('\n');
    }
}

/// Another cluster, whose id has terminal escapes and a line of a log in it: the warning tells of both ids,
/// with that escaped.
fn m16_h5_the_log_tells_of_another_cluster_in_escaped_words(driver: DriverChoice) {
    let server = broker_with(|broker| broker.cluster_id = "the-first".to_owned());
    let address = server.addr();
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        let (producer, mut engine) = builder(&server, driver)
            .build_embedded()
            .expect("an engine");
        engine
            .topic(&producer, "own", PATIENCE)
            .expect("it is made");
        server.shutdown();
        let mut config = ServerConfig::storing();
        config.listen = address;
        config.broker.cluster_id = "evil\x1b[2J\0\nERROR all is lost".to_owned();
        let _server = Server::start(config).expect("the port is ours");
        engine
            .topic(&producer, "another", PATIENCE)
            .expect("it is made");
    });
    let log = log.0.lock().expect("no panic");
    let warnings: Vec<_> = log
        .lines()
        .filter(|l| l.contains("another cluster"))
        .collect();
    let [warning] = warnings[..] else {
        panic!("{log}")
    };
    assert!(!warning.contains(char::is_control), "{warning:?}");
    assert!(warning.contains(r#"from="the-first""#), "{warning}");
    let told = r#"to="evil\u{1b}[2J\0\nERROR all is lost""#;
    assert!(warning.contains(told), "{warning}");
    assert!(!log.lines().any(|line| line.starts_with("ERROR")), "{log}");
}

for_both_drivers!(
    a_turn_with_news_does_not_wait,
    a_turn_does_not_outlast_the_patience_of_others,
    a_turn_waits_as_it_is_told,
    m16_h5_the_log_tells_of_another_cluster_in_escaped_words,
    its_end_reports_what_was_not_sent,
    it_sends_while_it_is_turned,
    other_threads_may_send,
    nobody_to_talk_to,
    its_end_settles_everything,
);
