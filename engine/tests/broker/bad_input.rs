//! What bad input gets: an error that names the address and the reason, within the setup timeout.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use ringpost::{DriverChoice, PartitionId, Producer, Record, TopicError, TrySendError};
use ringpost_broker::{ApiKey, ErrorCode, Server, Versions};

use crate::support::*;

const SETUP: Duration = Duration::from_millis(300);

fn impatient(bootstrap: impl Into<String>, driver: DriverChoice) -> Producer {
    builder_at(bootstrap, driver)
        .connect_timeout(SETUP)
        .set("topic_timeout", "100ms")
        .and_then(|b| b.set("retry_backoff", "10ms"))
        .and_then(|b| b.set("reconnect_backoff", "10ms"))
        .and_then(|b| b.set("reconnect_backoff_max", "20ms"))
        .expect("settings")
        .build()
        .expect("a producer")
}

/// The error a topic gets there, in time.
fn refused(bootstrap: impl Into<String>, driver: DriverChoice) -> TopicError {
    let producer = impatient(bootstrap, driver);
    let error = in_time({
        let producer = producer.clone();
        move || producer.topic_blocking("topic").expect_err("there is none")
    });
    in_time(move || producer.close(PATIENCE));
    error
}

/// A server that does `answer` with each connection.
fn server_that(answer: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    address
}

fn nobody_listens(driver: DriverChoice) {
    let address = NOBODY.to_owned();
    let error = refused(&address, driver);
    let text = error.to_string();
    assert!(matches!(error, TopicError::NoBroker { .. }), "{text}");
    assert!(
        text.contains(&address) && text.contains("refused"),
        "{text}"
    );
    assert!(text.contains("\"topic\""), "{text}");
}

fn a_name_that_does_not_resolve(driver: DriverChoice) {
    let error = refused("no-such-host.invalid:9092", driver);
    let text = error.to_string();
    assert!(matches!(error, TopicError::NoBroker { .. }), "{text}");
    assert!(
        text.contains("no-such-host.invalid:9092") && text.contains("name"),
        "{text}"
    );
}

fn every_address_is_named(driver: DriverChoice) {
    let garbage = server_that(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    let closes = server_that(drop);
    let nobody = NOBODY.to_owned();
    let text = refused(format!("{nobody},{garbage},{closes}"), driver).to_string();
    for address in [nobody, garbage, closes] {
        assert!(text.contains(&address), "{address} in {text}");
    }
}

fn who_is_not_kafka(driver: DriverChoice) {
    let http = |mut stream: TcpStream| {
        let mut request = [0; 1];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    };
    let noise = |mut stream: TcpStream| {
        // A short frame of nonsense with a huge count in it.
        let _ = stream.write_all(&[0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 1, 2]);
    };
    // It accepts, reads, and never says a word.
    let silence = |mut stream: TcpStream| {
        thread::spawn(move || {
            let mut bytes = [0; 512];
            while stream.read(&mut bytes).is_ok_and(|n| n > 0) {}
        });
    };
    for (what, address) in [
        ("http", server_that(http)),
        ("noise", server_that(noise)),
        ("silence", server_that(silence)),
        ("closes", server_that(drop)),
    ] {
        let error = refused(&address, driver);
        let text = error.to_string();
        assert!(
            matches!(error, TopicError::NoBroker { .. }),
            "{what}: {text}"
        );
        assert!(text.contains(&address), "{what}: {text}");
        if what != "noise" {
            assert!(text.contains("is this a Kafka broker?"), "{what}: {text}");
        }
    }
}

fn a_broker_too_old(driver: DriverChoice) {
    let server = broker_with(|broker| {
        broker.versions = Versions::default().without(ApiKey::InitProducerId);
    });
    // Not the impatient one: these brokers do answer.
    let too_old = |server: &Server| {
        let producer = producer(server, driver);
        in_time(move || producer.topic_blocking("topic").expect_err("it is too old"))
    };
    let error = too_old(&server);
    let text = error.to_string();
    assert!(matches!(error, TopicError::Unsupported { .. }), "{text}");
    assert!(text.contains(&server.bootstrap()), "{text}");
    // Without idempotence nothing else is missed.
    let producer = builder(&server, driver)
        .idempotent(false)
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking("fine").expect("it is made");
    ack(topic.try_send(Record::value(b"x")).expect("room"));
    let old = broker_with(|broker| {
        broker.versions = Versions::default().with(ApiKey::Produce, 0, 2);
    });
    let text = too_old(&old).to_string();
    assert!(
        text.contains(&old.bootstrap()) && text.contains("Produce"),
        "{text}"
    );
}

/// Unknown, with what to do; found once it is there; not made where we do not want it.
fn m2_a_topic_nobody_knows(driver: DriverChoice) {
    let server = broker_with(|broker| broker.auto_create = false);
    let producer = builder(&server, driver)
        .set("topic_timeout", "100ms")
        .and_then(|b| b.set("retry_backoff", "10ms"))
        .expect("settings")
        .build()
        .expect("a producer");
    let error = producer.topic_blocking("unknown").expect_err("not there");
    let text = error.to_string();
    assert!(matches!(error, TopicError::Unknown { .. }), "{text}");
    assert!(
        text.contains("\"unknown\"") && text.contains("auto.create"),
        "{text}"
    );
    // Once it is there it is found.
    server
        .with(|broker| broker.create_topic("unknown", 1))
        .expect("a new topic");
    until("it is there", || producer.topic_blocking("unknown").is_ok());
    // Ours may be the one that does not want it made.
    let willing = broker();
    let shy = builder(&willing, driver)
        .auto_create_topics(false)
        .set("topic_timeout", "50ms")
        .expect("a setting")
        .build()
        .expect("a producer");
    assert!(shy.topic_blocking("unknown").is_err());
    assert!(willing.report().partitions.is_empty());
}

/// INVALID_TOPIC_EXCEPTION in time for each name, and others are not bothered.
fn m3_a_name_no_topic_can_have(driver: DriverChoice) {
    let server = broker();
    let producer = producer(&server, driver);
    for name in ["no/slash", "..", &"x".repeat(250), "", &"y".repeat(40_000)] {
        let error = in_time({
            let (producer, name) = (producer.clone(), name.to_owned());
            move || producer.topic_blocking(&name).expect_err("no such name")
        });
        match error {
            TopicError::Refused { code, .. } => {
                assert_eq!(code, ErrorCode::INVALID_TOPIC_EXCEPTION);
            }
            other => panic!("{}: {other}", name.len()),
        }
    }
    // Others are not bothered.
    producer.topic_blocking("fine").expect("it is made");
}

/// NoSuchPartition at once, with the record, for numbers given and chosen; the topic goes on.
fn m1_partitions_out_of_range(driver: DriverChoice) {
    let server = broker();
    server
        .with(|broker| broker.create_topic("two", 2))
        .expect("a new topic");
    let producer = builder(&server, driver)
        .partition_with(|_, _, count| PartitionId(count.cast_signed()))
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking("two").expect("it is there");
    for partition in [2, -1, i32::MAX, i32::MIN] {
        let record = Record::value(b"x").partition(partition);
        match topic.try_send(record.clone()) {
            Err(TrySendError::NoSuchPartition {
                record: back,
                partition: asked,
                count,
            }) => {
                assert_eq!((back, asked, count), (record.clone(), partition, 2));
            }
            other => panic!("{other:?}"),
        }
        assert!(topic.send_blocking(record).is_err());
    }
    let chosen = topic
        .try_send(Record::value(b"x"))
        .expect_err("chosen badly");
    assert!(matches!(
        chosen,
        TrySendError::NoSuchPartition { partition: 2, .. }
    ));
    ack(topic
        .try_send(Record::value(b"x").partition(1))
        .expect("room"));
}

for_both_drivers!(
    nobody_listens,
    a_name_that_does_not_resolve,
    every_address_is_named,
    who_is_not_kafka,
    a_broker_too_old,
    m2_a_topic_nobody_knows,
    m3_a_name_no_topic_can_have,
    m1_partitions_out_of_range,
);
