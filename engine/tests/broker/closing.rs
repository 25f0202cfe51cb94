//! How a producer ends, and that every record it took has exactly one outcome then.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use ringpost::{
    CloseReport, DriverChoice, Outcome, Producer, Purge, Record, Topic, TopicError, TrySendError,
    WarmUpError, Why,
};
use ringpost_broker::{ApiKey, PartitionFault, RequestFault, Server};
use ringpost_codec::kafka::ErrorCode;

use crate::support::*;

fn topic_of(producer: &Producer) -> Topic {
    producer.topic_blocking("closing").expect("it is made")
}

/// All records acked in time, though they linger for 50 s.
fn c1_close_sends_what_was_accepted(driver: DriverChoice) {
    let server = broker();
    let producer = builder(&server, driver)
        .linger(Duration::from_secs(50))
        .build()
        .expect("a producer");
    let topic = topic_of(&producer);
    let deliveries: Vec<_> = (0..100_u8)
        .map(|n| topic.try_send(Record::keyed(&[n], b"value")).expect("room"))
        .collect();
    let report = producer.close(PATIENCE);
    assert!(report.in_time);
    assert_eq!(
        (
            report.records_acked,
            report.records_not_written,
            report.records_unknown
        ),
        (100, 0, 0)
    );
    for delivery in deliveries {
        acked(delivery.outcome().expect("settled"));
    }
    assert_eq!(server.shutdown().records, 100);
}

/// Every call says Closed, closing again gives the same report, a flush ends at once.
fn c2_a_closed_producer_says_so(driver: DriverChoice) {
    let server = broker();
    let producer = producer(&server, driver);
    let topic = topic_of(&producer);
    let first = producer.close(PATIENCE);
    assert_eq!(
        producer.close(Duration::ZERO),
        first,
        "as often as one likes"
    );
    let record = Record::value(b"late");
    assert!(matches!(
        topic.try_send(record.clone()),
        Err(TrySendError::Closed(_))
    ));
    assert!(matches!(
        topic.post(record.clone()),
        Err(TrySendError::Closed(_))
    ));
    assert!(matches!(
        topic.enqueue(record.clone(), 1),
        Err(TrySendError::Closed(_))
    ));
    assert!(matches!(
        topic.local().post(record.clone()),
        Err(TrySendError::Closed(_))
    ));
    let extended = topic.extend([record.clone()]);
    assert!(matches!(extended.refused, Some(TrySendError::Closed(_))));
    assert!(topic.send_blocking(record).is_err());
    assert_eq!(
        producer.topic_blocking("other").expect_err("closed"),
        TopicError::Closed
    );
    assert_eq!(
        in_time({
            let producer = producer.clone();
            move || producer.warm_up_blocking(&[])
        }),
        Err(WarmUpError::Topic(TopicError::Closed))
    );
    producer
        .flush_blocking(Duration::ZERO)
        .expect("nothing is left");
}

/// Three threads close while three send: every record that was taken is acked and stored once, the
/// others are refused as Closed.
fn c1_c2_many_threads_close_and_send(driver: DriverChoice) {
    let server = broker();
    let producer = producer(&server, driver);
    let topic = topic_of(&producer);
    let senders: Vec<_> = (0..3)
        .map(|_| {
            let topic = topic.clone();
            thread::spawn(move || {
                let mut taken = 0_u64;
                loop {
                    match topic.post(Record::value(b"x")) {
                        Ok(()) => taken += 1,
                        Err(TrySendError::Full(_)) => thread::yield_now(),
                        Err(TrySendError::Closed(_)) => return taken,
                        Err(other) => panic!("{other}"),
                    }
                }
            })
        })
        .collect();
    until("records flow", || {
        producer.stats().total().records_acked > 100
    });
    let closers: Vec<_> = (0..3)
        .map(|_| {
            let producer = producer.clone();
            thread::spawn(move || producer.close(PATIENCE))
        })
        .collect();
    let reports: Vec<_> = closers
        .into_iter()
        .map(|closer| closer.join().expect("no panic"))
        .collect();
    let taken: u64 = senders
        .into_iter()
        .map(|sender| sender.join().expect("no panic"))
        .sum();
    for report in reports {
        assert!(report.in_time);
        assert_eq!(report.records_acked, taken);
    }
    let report = server.shutdown();
    assert_eq!(report.records, taken);
    assert!(report.is_clean());
}

/// Close is back in time, and the thread that waits for a topic gets an error.
fn c1_close_without_a_broker_ends_at_once(driver: DriverChoice) {
    let producer = builder_at(NOBODY, driver).build().expect("a producer");
    let asking = {
        let producer = producer.clone();
        thread::spawn(move || producer.topic_blocking("closing").map(drop))
    };
    until("it was asked", || {
        // Nothing tells from outside that a thread waits; closing twice does no harm.
        thread::yield_now();
        true
    });
    let report = in_time({
        let producer = producer.clone();
        move || producer.close(PATIENCE)
    });
    assert!(report.in_time);
    assert!(asking.join().expect("no panic").is_err());
}

/// Records that wait, in the lane and on the wire, when the broker is gone for good.
fn c1_unsettled_records_end_with_close(driver: DriverChoice) {
    let server = broker();
    let (report, reported) = channel();
    let producer = builder(&server, driver)
        .on_undelivered(move |batch| {
            let mut texts = Vec::new();
            batch.for_each(|record| {
                texts.push(
                    String::from_utf8(record.value.expect("a value").to_vec()).expect("text"),
                );
            });
            assert_eq!(usize::try_from(batch.len()), Ok(texts.len()));
            report
                .send((
                    batch.topic().to_owned(),
                    batch.partition(),
                    batch.outcome(),
                    texts,
                ))
                .expect("the test waits");
        })
        .build()
        .expect("a producer");
    let topic = topic_of(&producer);
    producer.warm_up_blocking(&["closing"]).expect("in time");
    server.with(|broker| {
        broker
            .faults()
            .every_request(ApiKey::Produce, Some(RequestFault::Ignore));
    });
    // One that is on the wire, one that waits for the broker, one that never leaves its lane.
    let sent = topic
        .try_send(Record::value(b"sent").partition(0))
        .expect("room");
    until("it is sent", || producer.stats().total().requests == 1);
    server.stop_node(1);
    until("the connection is lost", || {
        producer.stats().total().connection_failures > 0
    });
    let waiting = topic
        .try_send(Record::value(b"waiting").partition(1))
        .expect("room");
    topic
        .post(Record::value(b"posted").partition(2))
        .expect("room");
    drop(
        topic
            .try_send(Record::value(b"dropped").partition(3))
            .expect("room"),
    );
    topic
        .enqueue(Record::value(b"tagged").partition(4), 44)
        .expect("room");
    let closed = producer.close(Duration::ZERO);
    assert!(!closed.in_time);
    assert_eq!(
        (
            closed.records_acked,
            closed.records_not_written,
            closed.records_unknown
        ),
        (0, 4, 1)
    );
    match sent.outcome() {
        Some(Outcome::Unknown(failure)) => assert_eq!(failure.why, Why::Closed),
        other => panic!("{other:?}"),
    }
    match waiting.outcome() {
        Some(Outcome::NotWritten(failure)) => assert_eq!(failure.why, Why::Closed),
        other => panic!("{other:?}"),
    }
    let completions = drain(&producer, 1);
    assert_eq!(completions[0].tag, 44);
    assert!(matches!(completions[0].outcome, Outcome::NotWritten(_)));
    let undelivered: BTreeSet<_> = (0..2)
        .map(|_| {
            let (topic, partition, outcome, texts) = receive(&reported);
            assert_eq!(topic, "closing");
            assert!(matches!(outcome, Outcome::NotWritten(_)));
            (partition, texts)
        })
        .collect();
    assert_eq!(
        undelivered,
        BTreeSet::from([(2, vec!["posted".into()]), (3, vec!["dropped".into()])])
    );
    assert!(reported.try_recv().is_err(), "who waits is told otherwise");
    assert_eq!(producer.stats().memory_in_use, 0);
}

/// Dropping the last producer never blocks; what was not settled is reported.
fn c7_drop_reports_what_was_not_settled(driver: DriverChoice) {
    let server = broker();
    let (report, reported) = channel();
    let producer = builder(&server, driver)
        .linger(Duration::from_secs(50))
        .on_undelivered(move |batch| {
            report.send(batch.len()).expect("the test waits");
        })
        .build()
        .expect("a producer");
    let topic = topic_of(&producer);
    let other = producer.clone();
    for _ in 0..10 {
        topic.post(Record::value(b"x").partition(0)).expect("room");
    }
    let delivery = topic
        .try_send(Record::value(b"y").partition(1))
        .expect("room");
    drop(producer);
    topic
        .post(Record::value(b"x").partition(0))
        .expect("a clone lives");
    drop(other);
    assert_eq!(receive(&reported), 11);
    match in_time(move || delivery.wait()) {
        Outcome::NotWritten(failure) => assert_eq!(failure.why, Why::Closed),
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(
            topic.post(Record::value(b"late")),
            Err(TrySendError::Closed(_))
        ),
        "a topic outlives its producer, and says so"
    );
    // The hook goes with its thread: the channel ends when all threads are through.
    assert!(reported.recv_timeout(PATIENCE).is_err());
}

fn a_callback_may_close_and_panic(driver: DriverChoice) {
    let server = broker();
    let own: Arc<Mutex<Option<Producer>>> = Arc::default();
    let (report, reported) = channel();
    let producer = builder(&server, driver)
        .set("delivery_timeout", "50ms")
        .expect("a setting")
        .on_undelivered({
            let own = Arc::clone(&own);
            move |_| {
                let producer = own.lock().expect("no panic under it").take();
                if let Some(producer) = producer {
                    producer.close(Duration::ZERO);
                    report.send(()).expect("the test waits");
                }
                panic!("on purpose");
            }
        })
        .build()
        .expect("a producer");
    let topic = topic_of(&producer);
    *own.lock().expect("no panic under it") = Some(producer.clone());
    server.stop_node(1);
    topic.post(Record::value(b"x")).expect("room");
    receive(&reported);
    let closed = in_time({
        let producer = producer.clone();
        move || producer.close(PATIENCE)
    });
    assert_eq!(closed.records_not_written + closed.records_unknown, 1);
    assert_eq!(producer.stats().callback_panics, 1);
}

/// A hook that sends what was not written to another topic, and waits for it.
fn a_callback_may_use_the_producer(driver: DriverChoice) {
    let server = broker();
    let own: Arc<Mutex<Option<Producer>>> = Arc::default();
    let (report, reported) = channel();
    let producer = builder(&server, driver)
        .on_undelivered({
            let own = Arc::clone(&own);
            move |batch| {
                let producer = own.lock().expect("no panic under it").clone();
                let producer = producer.expect("it was put there");
                let letters = producer.topic_blocking("letters").expect("it is made");
                batch.for_each(|record| {
                    let record = Record::value(record.value.expect("a value"));
                    let delivery = letters.send_blocking(record).expect("room");
                    report.send(delivery.wait()).expect("the test waits");
                });
            }
        })
        .build()
        .expect("a producer");
    let topic = topic_of(&producer);
    *own.lock().expect("no panic under it") = Some(producer.clone());
    server.with(|broker| {
        broker.faults().next_batch(
            "closing",
            0,
            PartitionFault::ErrorBefore(ErrorCode::INVALID_RECORD),
        );
    });
    topic
        .post(Record::value(b"refused").partition(0))
        .expect("room");
    acked(receive(&reported));
    assert_eq!(stored(&server, "letters")[0].text(), "refused");
    // The hook holds a clone: it goes with the hook only if nothing keeps the hook alive.
    own.lock().expect("no panic under it").take();
    let closed = in_time(move || producer.close(PATIENCE));
    assert!(closed.in_time);
    assert_eq!((closed.records_acked, closed.records_not_written), (1, 1));
    assert!(reported.try_recv().is_err(), "its thread is gone");
}

struct Bad;

impl Wake for Bad {
    fn wake(self: Arc<Self>) {
        panic!("on purpose");
    }
}

/// Wakers are the application's code, and run on our threads.
fn a_waker_that_panics_takes_nobody_along(driver: DriverChoice) {
    let server = broker();
    let producer = builder(&server, driver)
        .shards(ringpost::Shards::Count(1))
        .build()
        .expect("a producer");
    let topic = topic_of(&producer);
    server.with(|broker| {
        broker
            .faults()
            .every_request(ApiKey::Produce, Some(RequestFault::Ignore));
    });
    let waker = Waker::from(Arc::new(Bad));
    let mut cx = Context::from_waker(&waker);
    let record = Record::value(b"x").partition(0);
    let mut delivery = topic.try_send(record.clone()).expect("room");
    assert!(Pin::new(&mut delivery).poll(&mut cx).is_pending());
    let mut flush = producer.flush();
    assert!(Pin::new(&mut flush).poll(&mut cx).is_pending());
    server.with(|broker| broker.faults().heal());
    // The connection's end brings it all to the broker again.
    server.stop_node(1);
    server.start_node(1).expect("the port is ours");
    ack(topic.try_send(record).expect("room"));
    acked(delivery.outcome().expect("it went before"));
    until("both are caught", || producer.stats().callback_panics == 2);
    assert!(producer.close(PATIENCE).in_time);
}

/// A value whose owner panics when it is let go of, which may be on our threads.
struct Bomb(Vec<u8>);

impl AsRef<[u8]> for Bomb {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

/// Values of one request whose owners panic when they are let go of: all are acknowledged, their memory
/// comes free, and the shard goes on.
fn a_value_whose_owner_panics_takes_nobody_along(driver: DriverChoice) {
    let server = broker();
    let producer = builder(&server, driver)
        .shards(ringpost::Shards::Count(1))
        .linger(Duration::from_secs(50))
        .build()
        .expect("a producer");
    let topic = topic_of(&producer);
    let sent: Vec<_> = (0..2)
        .map(|_| {
            let value = bytes::Bytes::from_owner(Bomb(vec![b'v'; 20_000]));
            let record = Record::shared(value).partition(0);
            topic.try_send(record).expect("room")
        })
        .collect();
    producer.flush_blocking(PATIENCE).expect("in time");
    for delivery in sent {
        ack(delivery);
    }
    until("both are let go of", || {
        producer.stats().callback_panics == 2
    });
    let last = topic.try_send(Record::value(b"x")).expect("room");
    producer.flush_blocking(PATIENCE).expect("in time");
    ack(last);
    let closed = producer.close(PATIENCE);
    assert!(closed.in_time);
    assert_eq!((closed.records_acked, closed.records_unknown), (3, 0));
    assert_eq!(producer.stats().memory_in_use, 0);
}

/// A waker that calls something once.
struct Calls(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        let call = self.0.lock().expect("no panic under it").take();
        if let Some(call) = call {
            call();
        }
    }
}

/// A waker that flushes and closes the producer on the thread that wakes it, and tells of both.
fn closing_waker(producer: &Producer) -> (Waker, Receiver<(bool, CloseReport)>) {
    let (tell, told) = channel();
    let producer = producer.clone();
    let call = move || {
        let flushed = producer.flush_blocking(PATIENCE).is_ok();
        let report = producer.close(PATIENCE);
        tell.send((flushed, report)).expect("the test waits");
    };
    let calls = Calls(Mutex::new(Some(Box::new(call))));
    (Waker::from(Arc::new(calls)), told)
}

/// Flush and close called by a record's waker, on its shard's thread, come back without a panic; each
/// record has its outcome when another close has come back, which finds all threads ended.
fn c1_close_called_by_a_waker_of_a_shard(driver: DriverChoice) {
    let server = broker();
    let producer = builder(&server, driver)
        .shards(ringpost::Shards::Count(2))
        .build()
        .expect("a producer");
    let topic = topic_of(&producer);
    server.with(|broker| {
        let faults = broker.faults();
        faults.every_request(ApiKey::Produce, Some(RequestFault::Ignore));
    });
    let mut delivery = topic
        .try_send(Record::value(b"x").partition(0))
        .expect("room");
    let (waker, told) = closing_waker(&producer);
    let polled = Pin::new(&mut delivery).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let others: Vec<_> = (1..6)
        .map(|n| {
            topic
                .try_send(Record::value(b"y").partition(n))
                .expect("room")
        })
        .collect();
    // Its verdict wakes; records at the other shard may have none by then.
    topic.purge(Purge::QueuedAndInFlight);
    receive(&told);
    let closed = in_time({
        let producer = producer.clone();
        move || producer.close(PATIENCE)
    });
    assert_eq!(closed.records_not_written + closed.records_unknown, 6);
    assert!(delivery.outcome().is_some());
    assert!(others.iter().all(|other| other.outcome().is_some()));
    assert_eq!(producer.stats().callback_panics, 0);
    assert_eq!(producer.stats().memory_in_use, 0);
}

/// Close called by the waker of one who waits for a topic, on the controller's thread, comes back at once
/// without a panic, and another close finds all threads ended.
fn c1_close_called_by_a_waker_of_the_controller(driver: DriverChoice) {
    let server = broker();
    // It answers once the waker is in its place.
    server.pause_node(1, true);
    let producer = producer(&server, driver);
    let (waker, told) = closing_waker(&producer);
    let mut asking = Box::pin(producer.topic("closing"));
    let polled = asking.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending(), "it asks a broker first");
    server.pause_node(1, false);
    let (flushed, _) = receive(&told);
    assert!(flushed, "nothing was sent");
    drop(asking);
    assert!(
        in_time({
            let producer = producer.clone();
            move || producer.close(PATIENCE)
        })
        .in_time
    );
    assert_eq!(producer.stats().callback_panics, 0);
}

/// No broker answers metadata: a flush has nothing to wait for beside those who wait for a topic, and
/// close is back in time, with Closed for each of them, from two threads at once.
fn c1_flush_and_close_while_metadata_is_waited_for(driver: DriverChoice) {
    let server = broker();
    server.with(|broker| {
        let faults = broker.faults();
        faults.every_request(ApiKey::Metadata, Some(RequestFault::Ignore));
    });
    let producer = producer(&server, driver);
    let bell = Arc::new(Bell::default());
    let mut asking: Vec<_> = (0..3)
        .map(|_| Box::pin(producer.topic("closing")))
        .collect();
    for ask in &mut asking {
        assert!(poll(ask, &bell).is_pending());
    }
    producer.flush_blocking(PATIENCE).expect("nothing was sent");
    let closers = [(); 2].map(|()| {
        let producer = producer.clone();
        thread::spawn(move || producer.close(PATIENCE))
    });
    for closer in closers {
        assert!(in_time(move || closer.join().expect("no panic")).in_time);
    }
    for ask in asking {
        assert_eq!(block_on(ask).err(), Some(TopicError::Closed));
    }
}

/// What was reported late is told before `close` returns.
fn close_waits_for_the_callback(driver: DriverChoice) {
    let server = broker();
    let told = Arc::new(AtomicU32::new(0));
    let producer = builder(&server, driver)
        .linger(Duration::from_secs(50))
        .on_undelivered({
            let told = Arc::clone(&told);
            move |batch| {
                told.fetch_add(batch.len(), Ordering::Relaxed);
            }
        })
        .build()
        .expect("a producer");
    let topic = topic_of(&producer);
    server.stop_node(1);
    for n in 0..6 {
        topic.post(Record::value(b"x").partition(n)).expect("room");
    }
    let closed = producer.close(Duration::ZERO);
    assert_eq!(closed.records_not_written, 6);
    assert_eq!(told.load(Ordering::Relaxed), 6);
}

/// All records before it are acked when it returns, also from four threads at a time.
fn c1_flush_waits_for_what_was_before_it(driver: DriverChoice) {
    let server = broker();
    let producer = builder(&server, driver)
        .linger(Duration::from_secs(50))
        .build()
        .expect("a producer");
    let topic = topic_of(&producer);
    producer
        .flush_blocking(Duration::ZERO)
        .expect("nothing to wait for");
    for n in 0..6 {
        topic.post(Record::value(b"x").partition(n)).expect("room");
    }
    let error = producer.flush_blocking(Duration::ZERO);
    if let Err(late) = error {
        assert!(late.lanes > 0 && late.lanes <= 6);
    }
    block_on(producer.flush());
    assert_eq!(producer.stats().total().records_acked, 6);
    // From several threads at a time.
    for n in 0..6 {
        topic.post(Record::value(b"x").partition(n)).expect("room");
    }
    let flushes: Vec<_> = (0..4)
        .map(|_| {
            let producer = producer.clone();
            thread::spawn(move || producer.flush_blocking(PATIENCE))
        })
        .collect();
    for flush in flushes {
        flush.join().expect("no panic").expect("in time");
    }
    assert_eq!(server.report().records, 12);
}

/// Two threads send without a pause, one of them past what memory there is: flushes return all the same,
/// and each record that was before one has its outcome then; the threads go on sending after each.
fn c1_flush_is_not_starved_by_endless_sends(driver: DriverChoice) {
    let server = broker();
    let producer = builder(&server, driver)
        .memory(8 << 20)
        .linger(Duration::from_millis(1))
        .build()
        .expect("a producer");
    let topic = topic_of(&producer);
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        // Also when an assertion ends the test: else the scope waits for them.
        let _stop = Stop(&stop);
        for partition in [0, 1] {
            let (topic, stop, sent) = (topic.clone(), &stop, &sent);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let record = Record::value(&[b'x'; 500]).partition(partition);
                    // The record beside those that are flushed, too: in the same lanes.
                    drop(topic.send_blocking(record).expect("memory comes free"));
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..20 {
            let before = sent.load(Ordering::Relaxed);
            until("they send", || sent.load(Ordering::Relaxed) > before + 100);
            let record = Record::value(b"before it").partition(round % 3);
            let delivery = topic.send_blocking(record).expect("memory comes free");
            producer
                .flush_blocking(PATIENCE)
                .expect("it is not starved");
            acked(delivery.outcome().expect("it was before the flush"));
        }
        assert!(!stop.load(Ordering::Relaxed));
        block_on(producer.flush());
    });
    assert!(producer.close(PATIENCE).in_time);
    assert!(server.shutdown().is_clean());
}

/// Ends a test's threads.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The leader moves while the producer is closing: its last records follow.
fn closing_follows_a_leader(driver: DriverChoice) {
    let server = Server::start(ringpost_broker::ServerConfig {
        nodes: 2,
        ..ringpost_broker::ServerConfig::storing()
    })
    .expect("free ports");
    server.with(|broker| {
        broker.create_topic("closing", 1).expect("a new topic");
        broker.move_leader("closing", 0, 1);
    });
    let producer = builder(&server, driver)
        .linger(Duration::from_secs(50))
        .build()
        .expect("a producer");
    let topic = topic_of(&producer);
    producer.warm_up_blocking(&["closing"]).expect("in time");
    topic.post(Record::value(b"last")).expect("room");
    server.with(|broker| {
        broker.set_node_up(1, false);
        broker.move_leader("closing", 0, 2)
    });
    server.stop_node(1);
    let report = in_time({
        let producer = producer.clone();
        move || producer.close(PATIENCE)
    });
    assert_eq!(
        (report.in_time, report.records_acked),
        (true, 1),
        "{report:?}"
    );
}

for_both_drivers!(
    c1_close_sends_what_was_accepted,
    c2_a_closed_producer_says_so,
    c1_c2_many_threads_close_and_send,
    c1_close_without_a_broker_ends_at_once,
    c1_unsettled_records_end_with_close,
    c7_drop_reports_what_was_not_settled,
    a_callback_may_close_and_panic,
    a_callback_may_use_the_producer,
    close_waits_for_the_callback,
    a_waker_that_panics_takes_nobody_along,
    a_value_whose_owner_panics_takes_nobody_along,
    c1_flush_waits_for_what_was_before_it,
    c1_flush_is_not_starved_by_endless_sends,
    closing_follows_a_leader,
    c1_close_called_by_a_waker_of_a_shard,
    c1_close_called_by_a_waker_of_the_controller,
    c1_flush_and_close_while_metadata_is_waited_for,
);
