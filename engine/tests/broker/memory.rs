//! Bounds: what happens when the memory or the completion queue is used up.

use std::io::Read;
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use ringpost::{Builder, DriverChoice, Outcome, Producer, Record, SendError, Topic, TrySendError};
use ringpost_broker::{ApiKey, RequestFault, Server, ServerConfig};

use crate::support::*;

const MEMORY: usize = 1 << 20;
/// Hard to place beside others: a batch of its own.
static VALUE: [u8; 60_000] = [b'v'; 60_000];

/// A broker that takes requests and answers none until it is healed, and a producer with little
/// memory that has a connection to it.
fn stuck(
    driver: DriverChoice,
    change: impl FnOnce(Builder) -> Builder,
) -> (Server, Producer, Topic) {
    let server = broker();
    server.with(|broker| {
        broker.create_topic("stuck", 1).expect("a new topic");
        broker
            .faults()
            .every_request(ApiKey::Produce, Some(RequestFault::Ignore));
    });
    let producer = change(builder(&server, driver).memory(MEMORY))
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking("stuck").expect("it is there");
    producer.warm_up_blocking(&["stuck"]).expect("in time");
    (server, producer, topic)
}

/// Posts until there is no more room; returns how many were taken.
fn fill(topic: &Topic) -> u64 {
    for taken in 0..10_000 {
        match topic.post(Record::value(&VALUE)) {
            Ok(()) => {}
            Err(TrySendError::Full(record)) => {
                assert_eq!(record, Record::value(&VALUE), "it comes back");
                return taken;
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("memory has no bound");
}

/// Every way to send says Full and gives the record back; memory in use never exceeds the setting,
/// and is 0 after close.
fn g1_full_is_an_answer_at_once(driver: DriverChoice) {
    let (_server, producer, topic) = stuck(driver, |b| b);
    let taken = fill(&topic);
    assert!(taken >= 8, "{taken}");
    assert!(producer.stats().memory_in_use <= MEMORY);
    assert!(matches!(
        topic.try_send(Record::value(&VALUE)),
        Err(TrySendError::Full(_))
    ));
    assert!(matches!(
        topic.enqueue(Record::value(&VALUE), 1),
        Err(TrySendError::Full(_))
    ));
    assert!(matches!(
        topic.append_with(Record::value(b""), VALUE.len(), |_| {}),
        Err(TrySendError::Full(_))
    ));
    let extended = topic.extend([
        Record::value(b"fits perhaps"),
        Record::value(&VALUE),
        Record::value(b"behind"),
    ]);
    assert!(matches!(extended.refused, Some(TrySendError::Full(_))));
    assert_eq!(extended.taken + 1 + extended.rest.len(), 3);
    let report = producer.close(Duration::ZERO);
    assert!(!report.in_time);
    assert_eq!(
        report.records_unknown + report.records_not_written,
        taken + extended.taken as u64
    );
    assert_eq!(producer.stats().memory_in_use, 0);
}

/// The waiter is served once memory comes free, nobody overtakes it, and each record is stored
/// once.
fn g1_g2_a_sender_waits_until_memory_comes_free(driver: DriverChoice) {
    let (server, producer, topic) = stuck(driver, |b| b);
    let taken = fill(&topic);
    let waiting = {
        let topic = topic.clone();
        thread::spawn(move || ack(topic.send_blocking(Record::value(&VALUE)).expect("room")))
    };
    until("it waits", || producer.stats().memory_waiters == 1);
    // Whoever does not wait does not overtake.
    assert!(matches!(
        topic.try_send(Record::value(&VALUE)),
        Err(TrySendError::Full(_))
    ));
    server.with(|broker| broker.faults().heal());
    // What was asked before the healing is never answered: those connections must go.
    server.drop_connections(1);
    let ack = waiting.join().expect("no panic");
    assert_eq!(ack.partition, 0);
    producer.flush_blocking(PATIENCE).expect("in time");
    assert_eq!(producer.stats().total().records_acked, taken + 1);
    let stored = stored(&server, "stuck");
    assert_eq!(stored.len() as u64, taken + 1, "each once");
}

/// TimedOut with the setting, no waiter left behind.
fn g1_max_block_ends_the_wait(driver: DriverChoice) {
    let max_block = Duration::from_millis(30);
    let (_server, producer, topic) = stuck(driver, |b| b.max_block(max_block));
    fill(&topic);
    let error = topic
        .send_blocking(Record::value(&VALUE))
        .expect_err("no room");
    assert_eq!(error, SendError::TimedOut { max_block });
    assert_eq!(producer.stats().memory_waiters, 0);
    // Nothing of it is left behind.
    let error = block_on(topic.send(Record::value(&VALUE))).expect_err("no room");
    assert_eq!(error, SendError::TimedOut { max_block });
    producer.close(Duration::ZERO);
    let error = topic.send_blocking(Record::value(b"")).expect_err("closed");
    assert_eq!(error, SendError::Closed);
}

/// The one behind a dropped waiter is woken and served; the dropped one's waker is not called.
fn g2_a_cancelled_waiter_passes_its_turn_on(driver: DriverChoice) {
    let (server, producer, topic) = stuck(driver, |b| b);
    fill(&topic);
    let bells = [(); 2].map(|()| Arc::new(Bell::default()));
    let mut first = Box::pin(topic.send(Record::value(&VALUE)));
    let mut second = Box::pin(topic.send(Record::value(&VALUE)));
    assert!(poll(&mut first, &bells[0]).is_pending());
    assert!(poll(&mut second, &bells[1]).is_pending());
    assert_eq!(producer.stats().memory_waiters, 2);
    drop(first);
    assert_eq!(producer.stats().memory_waiters, 1);
    server.with(|broker| broker.faults().heal());
    server.drop_connections(1);
    // What came free first may be too little for it: it is woken again then.
    let delivery = loop {
        bells[1].wait();
        if let Poll::Ready(sent) = poll(&mut second, &bells[1]) {
            break sent.expect("room");
        }
    };
    ack(delivery);
    assert!(!bells[0].is_rung(), "nobody wakes who has gone");
}

/// A sender that waits for memory gets Closed.
fn g2_c1_closing_ends_the_wait(driver: DriverChoice) {
    let (_server, producer, topic) = stuck(driver, |b| b);
    fill(&topic);
    let waiting = thread::spawn(move || topic.send_blocking(Record::value(&VALUE)).map(drop));
    until("it waits", || producer.stats().memory_waiters == 1);
    producer.close(Duration::ZERO);
    assert_eq!(waiting.join().expect("no panic"), Err(SendError::Closed));
}

/// Memory that lies in batches that linger is sent as soon as somebody waits for it.
fn g2_waiting_for_memory_does_not_wait_for_linger(driver: DriverChoice) {
    let server = broker();
    server
        .with(|broker| broker.create_topic("slow", 64))
        .expect("a new topic");
    let producer = builder(&server, driver)
        .memory(MEMORY)
        .linger(Duration::from_secs(50))
        .max_block(PATIENCE)
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking("slow").expect("it is there");
    let value = [b'v'; 10_000];
    // In every partition a batch that is not full: together more than the memory.
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let topic = topic.clone();
            thread::spawn(move || {
                for n in 0..128 {
                    let record = Record::value(&value).partition((n * 4 + sender) % 64);
                    drop(topic.send_blocking(record).expect("memory comes free"));
                }
            })
        })
        .collect();
    for sender in senders {
        sender.join().expect("no panic");
    }
    assert!(producer.close(PATIENCE).in_time);
    assert_eq!(server.shutdown().records, 512);
}

/// The third tag is refused, records without tags go on, and draining makes room again.
fn g5_a_queue_nobody_drains_is_full(driver: DriverChoice) {
    let server = broker();
    let producer = builder(&server, driver)
        .completion_queue(2)
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking("queue").expect("it is made");
    let mut taken = 0;
    // Each flush ends a batch.
    while topic
        .enqueue(Record::value(b"x").partition(0), taken)
        .is_ok()
    {
        taken += 1;
        producer.flush_blocking(PATIENCE).expect("in time");
        assert!(taken < 10, "the queue has no bound");
    }
    assert_eq!(taken, 2);
    // Records that are not for the queue go on.
    ack(topic.try_send(Record::value(b"y")).expect("room"));
    let tags: Vec<u64> = drain(&producer, 2).iter().map(|c| c.tag).collect();
    assert_eq!(tags, [0, 1]);
    topic
        .enqueue(Record::value(b"x").partition(0), 9)
        .expect("room again");
    assert_eq!(drain(&producer, 1)[0].tag, 9);
}

/// TooLarge with size and setting, counting key and framing; the largest that fits is acked, one
/// byte more is refused.
fn g4_b2_what_never_fits_is_refused_at_once(driver: DriverChoice) {
    // The broker takes no more than the producer may send.
    let server = broker_with(|broker| broker.request_bytes_max = 200_000);
    // What is around a batch in a request.
    let room = 200_000 - (64 + 48 + "ringpost".len() + "large".len());
    let producer = builder(&server, driver)
        .memory(MEMORY)
        .request_bytes_max(200_000)
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking("large").expect("it is made");
    let large = vec![b'x'; 250_000];
    match topic.try_send(Record::value(&large)) {
        Err(TrySendError::TooLarge {
            record,
            bytes,
            bytes_max,
            setting,
        }) => {
            assert_eq!(record, Record::value(&large));
            assert!(bytes > 250_000 && bytes < 250_100, "{bytes}");
            assert_eq!((bytes_max, setting), (room, "request_bytes_max"));
        }
        other => panic!("{other:?}"),
    }
    for shared in [
        Record::shared(large.clone().into()),
        Record::shared(vec![0; 2 << 20].into()),
    ] {
        let error = topic.try_send(shared.clone()).expect_err("too large");
        assert!(matches!(error, TrySendError::TooLarge { .. }), "{error}");
        let error = topic.send_blocking(shared).expect_err("too large");
        assert!(matches!(error, SendError::TooLarge { .. }), "{error}");
    }
    for len in [250_000, 2 << 20] {
        let error = topic
            .append_with(Record::value(b""), len, |_| {})
            .expect_err("too large");
        assert!(matches!(error, TrySendError::TooLarge { .. }), "{error}");
    }
    // The largest there can be goes through, and one byte more does not.
    let around = 250_000 + 61;
    let Err(TrySendError::TooLarge { bytes, .. }) = topic.try_send(Record::value(&large)) else {
        panic!("too large")
    };
    let overhead = bytes - around;
    let largest = vec![b'x'; room - 61 - overhead];
    ack(topic
        .send_blocking(Record::value(&largest))
        .expect("it fits"));
    ack(topic
        .send_blocking(Record::shared(largest.clone().into()))
        .expect("it fits"));
    let more = vec![b'x'; largest.len() + 1];
    assert!(matches!(
        topic.try_send(Record::value(&more)),
        Err(TrySendError::TooLarge { .. })
    ));
    assert_eq!(producer.close(PATIENCE).records_acked, 2);
}

/// A broker that accepts connections and reads, and says nothing at all, ever.
fn g3_a_silent_broker_holds_no_more_than_the_memory(driver: DriverChoice) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent = listener.local_addr().expect("bound");
    let readers = thread::spawn(move || {
        // The last connection is the test's own, and says so.
        let mut readers = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepted");
            let mut first = [0; 1];
            if stream
                .read(&mut first)
                .is_ok_and(|n| n == 1 && first[0] == b'!')
            {
                break;
            }
            readers.push(thread::spawn(move || {
                let mut bytes = [0; 4096];
                while stream.read(&mut bytes).is_ok_and(|n| n > 0) {}
            }));
        }
        for reader in readers {
            reader.join().expect("no panic");
        }
    });
    let server = broker();
    let producer = builder(&server, driver)
        .memory(MEMORY)
        .set("delivery_timeout", "200ms")
        .expect("a setting")
        .build()
        .expect("a producer");
    server
        .with(|broker| broker.create_topic("silent", 1))
        .expect("a new topic");
    server.with(|broker| broker.set_node_address(1, "127.0.0.1", silent.port()));
    let topic = producer.topic_blocking("silent").expect("it is there");
    let delivery = topic.try_send(Record::value(b"first")).expect("room");
    let taken = fill(&topic);
    match block_on(delivery) {
        Outcome::NotWritten(failure) => {
            assert_eq!(failure.why, ringpost::Why::Expired, "{failure:#}");
        }
        other => panic!("it was never sent: {other:?}"),
    }
    producer.flush_blocking(PATIENCE).expect("all expire");
    assert_eq!(producer.stats().total().records_not_written, taken + 1);
    assert_eq!(producer.stats().memory_in_use, 0);
    producer.close(Duration::ZERO);
    let mut end = std::net::TcpStream::connect(silent).expect("it listens");
    std::io::Write::write_all(&mut end, b"!").expect("it reads");
    readers.join().expect("no panic");
}

/// A broker stands still until memory is full, twice: no look finds more in use than the setting. What its
/// deadline ends while it is silent leaves nothing behind; what still waits when it goes on is acked, and
/// none of the memory is in use then, though every connection of before has ended meanwhile.
fn g3_a_silent_broker_that_goes_on_leaves_all_memory_free(driver: DriverChoice) {
    for (timeout, is_patient) in [("200ms", false), ("120s", true)] {
        let server = broker();
        server
            .with(|broker| broker.create_topic("silent", 3))
            .expect("a new topic");
        let producer = builder(&server, driver)
            .memory(MEMORY)
            .set("delivery_timeout", timeout)
            .and_then(|b| b.set("request_timeout", "100ms"))
            .and_then(|b| b.set("connect_timeout", "100ms"))
            .and_then(|b| b.set("reconnect_backoff", "5ms"))
            .and_then(|b| b.set("reconnect_backoff_max", "20ms"))
            .expect("settings")
            .build()
            .expect("a producer");
        // With timeouts as short as these a first try may be in vain.
        let mut topic = None;
        until("it is there", || {
            topic = producer.topic_blocking("silent").ok();
            topic.is_some()
        });
        let topic = topic.expect("just seen");
        until("it is warm", || {
            producer.warm_up_blocking(&["silent"]).is_ok()
        });
        server.pause_node(1, true);
        let failures = || producer.stats().total().connection_failures;
        let before = failures();
        let mut taken = fill(&topic);
        assert!(producer.stats().memory_in_use <= MEMORY);
        if is_patient {
            until("connections are given up", || failures() >= before + 3);
        } else {
            producer.flush_blocking(PATIENCE).expect("all expire");
            assert_eq!(producer.stats().memory_in_use, 0);
            taken += fill(&topic);
        }
        assert!(producer.stats().memory_in_use <= MEMORY);
        server.pause_node(1, false);
        producer.flush_blocking(PATIENCE).expect("it goes on");
        assert_eq!(producer.stats().memory_in_use, 0);
        // What comes then is acked: with the short deadline the first ones may still meet a rest.
        until("it is reached again", || {
            taken += 1;
            let delivery = topic.try_send(Record::value(b"x")).expect("room");
            matches!(block_on(delivery), Outcome::Acked(_))
        });
        let report = producer.close(PATIENCE);
        assert!(report.in_time, "{report:?}");
        let settled = report.records_acked + report.records_not_written + report.records_unknown;
        assert_eq!(settled, taken);
        if is_patient {
            assert_eq!(report.records_acked, taken, "{report:?}");
        }
        assert_eq!(producer.stats().memory_in_use, 0);
        let report = server.shutdown();
        assert_eq!((report.duplicated, report.reordered), (0, 0));
    }
}

/// All memory was in records for a broker that died, and they expire: a callback that is told of the
/// first and sends to another broker gets memory, though nobody but its own thread takes the reports.
fn g2_a_callback_gets_memory_while_reports_wait(driver: DriverChoice) {
    let mut config = ServerConfig::storing();
    config.nodes = 2;
    let server = Server::start(config).expect("free ports");
    server.with(|broker| broker.create_topic("t", 2).expect("a new topic"));
    // Not the one that the controller asks.
    let led_by = |node: i32| {
        let leads = |p: &i32| server.with(|broker| broker.leader("t", *p)) == Some(node);
        (0..2).find(leads).expect("each leads one")
    };
    let (alive, dead) = (led_by(1), led_by(2));
    let own: Arc<Mutex<Option<Topic>>> = Arc::default();
    let (report, reported) = channel();
    let producer = builder(&server, driver)
        .memory(MEMORY)
        .bulkhead(100)
        .set("batch_bytes", "16KiB")
        .expect("a setting")
        .set("delivery_timeout", "5s")
        .expect("a setting")
        .max_block(PATIENCE)
        .on_undelivered({
            let own = Arc::clone(&own);
            move |_| {
                let topic = own.lock().expect("no panic").take();
                if let Some(topic) = topic {
                    let record = Record::value(&VALUE).partition(alive);
                    let sent = topic.send_blocking(record).map(drop);
                    report.send(sent).expect("the test waits");
                }
            }
        })
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking("t").expect("it is there");
    producer.warm_up_blocking(&["t"]).expect("in time");
    *own.lock().expect("no panic") = Some(topic.clone());
    server.stop_node(2);
    let small = [b'v'; 1000];
    while topic.post(Record::value(&small).partition(dead)).is_ok() {}
    assert_eq!(receive(&reported), Ok(()));
    producer.flush_blocking(PATIENCE).expect("in time");
    assert_eq!(producer.settled().acked, 1);
}

for_both_drivers!(
    g1_full_is_an_answer_at_once,
    g1_g2_a_sender_waits_until_memory_comes_free,
    g1_max_block_ends_the_wait,
    g2_a_callback_gets_memory_while_reports_wait,
    g2_a_cancelled_waiter_passes_its_turn_on,
    g2_c1_closing_ends_the_wait,
    g2_waiting_for_memory_does_not_wait_for_linger,
    g5_a_queue_nobody_drains_is_full,
    g4_b2_what_never_fits_is_refused_at_once,
    g3_a_silent_broker_holds_no_more_than_the_memory,
    g3_a_silent_broker_that_goes_on_leaves_all_memory_free,
);
