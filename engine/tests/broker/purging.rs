//! Giving up what was accepted: what waits and what flies end differently, and what is sent later
//! is neither swallowed nor doubled.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use ringpost::{DriverChoice, Outcome, Producer, Purge, Record, Topic, Why};
use ringpost_broker::{ApiKey, RequestFault, Server};

use crate::support::*;

/// A broker that takes requests and is silent, with one record in flight to it.
fn in_flight(driver: DriverChoice) -> (Server, Producer, Topic, ringpost::Delivery) {
    let server = broker();
    let producer = builder(&server, driver)
        .linger(Duration::from_secs(50))
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking("purged").expect("it is made");
    producer.warm_up_blocking(&["purged"]).expect("in time");
    server.with(|broker| {
        broker
            .faults()
            .next_request(ApiKey::Produce, Some(RequestFault::Silence));
    });
    let flying = topic
        .try_send(Record::value(b"flying").partition(0))
        .expect("room");
    drop(producer.flush());
    until("it is stored", || server.report().records == 1);
    (server, producer, topic, flying)
}

fn texts(server: &Server) -> Vec<String> {
    let records = stored(server, "purged").into_iter();
    records.map(|record| record.text().to_owned()).collect()
}

/// Of a record in flight and one that waits, a purge of what waits ends the latter as `NotWritten`
/// with `Purged`, and the first is acknowledged later; the log has it once.
fn c4_purge_of_what_waits_leaves_what_flies(driver: DriverChoice) {
    let (server, producer, topic, flying) = in_flight(driver);
    let waiting = topic
        .try_send(Record::value(b"waiting").partition(0))
        .expect("room");
    let other = producer.topic_blocking("other").expect("it is made");
    let elsewhere = other.try_send(Record::value(b"stays")).expect("room");
    in_time({
        let topic = topic.clone();
        move || topic.purge(Purge::Queued).wait()
    });
    match waiting.outcome() {
        Some(Outcome::NotWritten(failure)) => {
            assert_eq!((failure.why, failure.attempts), (Why::Purged, 0));
        }
        other => panic!("{other:?}"),
    }
    assert!(flying.outcome().is_none(), "it is in flight");
    assert!(elsewhere.outcome().is_none(), "another topic's");
    server.drop_connections(1);
    let next = topic
        .try_send(Record::value(b"next").partition(0))
        .expect("room");
    producer.flush_blocking(PATIENCE).expect("in time");
    acked(flying.outcome().expect("settled"));
    acked(next.outcome().expect("settled"));
    acked(elsewhere.outcome().expect("settled"));
    assert_eq!(texts(&server), ["flying", "next"]);
    assert!(server.shutdown().is_clean());
}

/// A purge of what flies too ends it as `Unknown` with `Purged`; records sent afterwards are
/// stored once each and in order, behind the one that had been stored.
fn c4_i14_purge_of_what_flies_leaves_the_sequence_sound(driver: DriverChoice) {
    let (server, producer, topic, flying) = in_flight(driver);
    let waiting = topic
        .try_send(Record::value(b"waiting").partition(0))
        .expect("room");
    in_time({
        let producer = producer.clone();
        move || producer.purge(Purge::QueuedAndInFlight).wait()
    });
    match flying.outcome() {
        Some(Outcome::Unknown(failure)) => {
            assert_eq!((failure.why, failure.attempts), (Why::Purged, 1));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        waiting.outcome(),
        Some(Outcome::NotWritten(failure)) if failure.why == Why::Purged
    ));
    producer
        .flush_blocking(Duration::ZERO)
        .expect("nothing is unsettled");
    let numbers = ["0", "1", "2", "3", "4"];
    let later = numbers.map(|n| {
        let record = Record::value(n.as_bytes()).partition(0);
        let delivery = topic.try_send(record).expect("room");
        drop(producer.flush());
        delivery
    });
    server.drop_connections(1);
    for delivery in later {
        ack(delivery);
    }
    assert_eq!(texts(&server), ["flying", "0", "1", "2", "3", "4"]);
    let settled = producer.settled();
    assert_eq!(
        (settled.acked, settled.not_written, settled.unknown),
        (5, 1, 1)
    );
    producer.close(PATIENCE);
    assert_eq!(producer.stats().memory_in_use, 0);
    assert!(server.shutdown().is_clean());
}

/// Called by a waker, which runs on the shard, and by `on_undelivered`, while other threads send,
/// flush and purge: every record has one outcome, everything ends.
fn c1_c4_a7_purge_from_callbacks_and_many_threads(driver: DriverChoice) {
    struct PurgeWhenWoken(Producer);
    impl Wake for PurgeWhenWoken {
        fn wake(self: Arc<Self>) {
            drop(self.0.purge(Purge::QueuedAndInFlight));
        }
    }
    let server = broker();
    let place = Arc::new(std::sync::OnceLock::<Producer>::new());
    let from_hook = Arc::clone(&place);
    let producer = builder(&server, driver)
        .on_undelivered(move |_| {
            let producer = from_hook.get().expect("set before the first record");
            producer.purge(Purge::Queued).wait();
        })
        .build()
        .expect("a producer");
    place.set(producer.clone()).expect("once");
    let topic = producer.topic_blocking("purged").expect("it is made");
    let senders: Vec<_> = (0..3)
        .map(|sender: u8| {
            let (producer, topic) = (producer.clone(), topic.clone());
            std::thread::spawn(move || {
                let mut deliveries = Vec::new();
                for n in 0..200_u32 {
                    let mut delivery = Box::pin(topic.try_send(Record::value(b"x")).expect("room"));
                    if n % 50 == 7 {
                        let waker = Waker::from(Arc::new(PurgeWhenWoken(producer.clone())));
                        let mut cx = Context::from_waker(&waker);
                        // Ready at once or woken later: both are fine.
                        let _ = delivery.as_mut().poll(&mut cx);
                    }
                    deliveries.push(delivery);
                    topic.post(Record::keyed(&[sender], b"y")).expect("room");
                    if n % 20 == 0 {
                        drop(producer.purge(Purge::QueuedAndInFlight));
                    }
                }
                producer.flush_blocking(PATIENCE).expect("it ends");
                for delivery in deliveries {
                    delivery.outcome().expect("exactly one outcome");
                }
            })
        })
        .collect();
    for sender in senders {
        in_time(move || sender.join().expect("no panic"));
    }
    let settled = producer.settled();
    assert_eq!(
        settled.acked + settled.not_written + settled.unknown,
        3 * 2 * 200
    );
    place.get().expect("set").close(PATIENCE);
    let stored = server.shutdown().records;
    assert!(stored >= settled.acked && stored <= settled.acked + settled.unknown);
}

for_both_drivers!(
    c4_purge_of_what_waits_leaves_what_flies,
    c4_i14_purge_of_what_flies_leaves_the_sequence_sound,
    c1_c4_a7_purge_from_callbacks_and_many_threads,
);
