//! Records that were given up, in the dead-letter topic: whole, with where they come from; each once;
//! and what becomes of those that cannot even be written there.

use std::error::Error as _;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ringpost::{
    Builder, DeadLetter, DeadLetterError, DriverChoice, Exhausted, Header, Outcome, Producer,
    Record, Why,
};
use ringpost_broker::{ApiKey, PartitionFault, RequestFault, Server};
use ringpost_codec::kafka::ErrorCode;

use crate::support::*;

const DEAD: &str = "dead";

/// A broker with a topic of one partition that refuses everything, and one for dead letters.
fn refusing(code: ErrorCode) -> Server {
    let server = broker();
    server.with(|broker| {
        broker.create_topic("orders", 1).expect("a new topic");
        broker.create_topic(DEAD, 3).expect("a new topic");
        broker
            .faults()
            .every_batch("orders", 0, PartitionFault::ErrorBefore(code));
    });
    server
}

fn with_letters(server: &Server, driver: DriverChoice) -> Builder {
    builder(server, driver).dead_letter_topic(DEAD)
}

fn headers(record: &Stored) -> impl Iterator<Item = Header<'_>> {
    record.headers.iter().map(|(key, value)| Header {
        key,
        value: value.as_deref(),
    })
}

/// The lost record is in the dead-letter topic with its key, value, timestamp and headers, behind
/// them its topic, partition, attempts, first and last error and both times; its own outcome says
/// that its attempts were used up.
fn r1_an_exhausted_record_becomes_a_dead_letter(driver: DriverChoice) {
    let server = refusing(ErrorCode::NOT_ENOUGH_REPLICAS);
    let producer = with_letters(&server, driver)
        .set("retry_attempts", "2")
        .and_then(|b| b.set("retry_backoff", "1ms"))
        .expect("settings")
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking("orders").expect("it is there");
    let own = [Header {
        key: "trace",
        value: Some(b"7f"),
    }];
    let record = Record::keyed(b"user-7", b"hello")
        .headers(&own)
        .timestamp_ms(1_600_000_000_000);
    match block_on(topic.try_send(record).expect("room")) {
        Outcome::NotWritten(failure) => {
            assert_eq!((failure.why, failure.attempts), (Why::RetriesExhausted, 2));
        }
        other => panic!("{other:?}"),
    }
    producer.flush_blocking(PATIENCE).expect("in time");
    let letters = stored(&server, DEAD);
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = &letters[0];
    assert_eq!(letter.key.as_deref(), Some(&b"user-7"[..]));
    assert_eq!(letter.text(), "hello");
    assert_eq!(letter.timestamp_ms, 1_600_000_000_000);
    assert_eq!(letter.headers[0], ("trace".into(), Some(b"7f".to_vec())));
    let origin = DeadLetter::from_headers(headers(letter)).expect("its headers say so");
    assert_eq!((origin.topic, origin.partition), ("orders", 0));
    assert_eq!((origin.attempts, origin.perhaps_written), (2, false));
    assert_eq!(origin.why, Why::RetriesExhausted.to_string());
    for error in [origin.first_error, origin.last_error] {
        let error = error.expect("it was sent");
        assert!(error.contains("NOT_ENOUGH_REPLICAS"), "{error}");
    }
    assert!(origin.appended_ms <= origin.failed_ms);
    let stats = producer.stats();
    assert_eq!(stats.dead_letters.written, 1);
    assert_eq!(
        (stats.dead_letters.failed, stats.dead_letters.dropped),
        (0, 0)
    );
    assert_eq!(stats.memory_in_use, 0);
    let closed = producer.close(PATIENCE);
    assert_eq!((closed.records_acked, closed.records_not_written), (1, 1));
    assert!(server.shutdown().is_clean());
}

/// Every record of compressed batches that were refused, posted and awaited alike, is a dead letter
/// once and in order, with close as the only wait; the memory never goes beyond its bound.
fn g1_many_dead_letters_stay_within_the_memory(driver: DriverChoice) {
    const RECORDS: usize = 20_000;
    const MEMORY: usize = 2 << 20;
    let server = refusing(ErrorCode::INVALID_RECORD);
    let producer = with_letters(&server, driver)
        .memory(MEMORY)
        .set("compression", "lz4")
        .expect("a setting")
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking("orders").expect("it is there");
    let filler = "x".repeat(150);
    for n in 0..RECORDS {
        let text = format!("{n:06}{filler}");
        let delivery = topic
            .send_blocking(Record::keyed(b"one", text.as_bytes()))
            .expect("memory comes free");
        drop(delivery);
    }
    let closed = producer.close(PATIENCE);
    assert!(closed.in_time);
    let stats = producer.stats();
    let letters = stats.dead_letters;
    assert_eq!(closed.records_not_written, RECORDS as u64);
    assert_eq!(letters.written + letters.dropped, RECORDS as u64);
    assert_eq!((letters.failed, letters.batches_unsettled), (0, 0));
    assert!(stats.memory_high_water <= MEMORY, "{stats:?}");
    assert_eq!(stats.memory_in_use, 0);
    let numbers: Vec<usize> = stored(&server, DEAD)
        .iter()
        .map(|letter| letter.text()[..6].parse().expect("a number"))
        .collect();
    assert_eq!(numbers.len() as u64, letters.written);
    assert!(numbers.is_sorted_by(|a, b| a < b), "each once, in order");
}

type Report = (String, i32, Outcome, Vec<String>, Option<DeadLetterError>);

fn reporting(builder: Builder) -> (Producer, Receiver<Report>) {
    let (report, reported) = channel();
    let producer = builder
        .on_undelivered(move |lost| {
            let mut texts = Vec::new();
            lost.for_each(|record| {
                let value = record.value.expect("a value").to_vec();
                texts.push(String::from_utf8(value).expect("text"));
            });
            let error = lost.dead_letter_error().cloned();
            let report_it = report.send((
                lost.topic().to_owned(),
                lost.partition(),
                lost.outcome(),
                texts,
                error,
            ));
            // The test may have seen enough.
            drop(report_it);
        })
        .build()
        .expect("a producer");
    (producer, reported)
}

/// The dead-letter topic refuses too: the report names the record's own topic and outcome, and its
/// error tells both failures, one as text and one as source; there is no letter of a letter.
fn a7_a_lost_dead_letter_is_reported_with_both_failures(driver: DriverChoice) {
    let server = refusing(ErrorCode::INVALID_RECORD);
    server.with(|broker| {
        for partition in 0..3 {
            let refused = PartitionFault::ErrorBefore(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
            broker.faults().every_batch(DEAD, partition, refused);
        }
    });
    let (producer, reported) = reporting(with_letters(&server, driver));
    let topic = producer.topic_blocking("orders").expect("it is there");
    topic
        .post(Record::keyed(b"k", b"lost twice"))
        .expect("room");
    let (from, partition, outcome, texts, error) = receive(&reported);
    assert_eq!((from.as_str(), partition), ("orders", 0));
    assert_eq!(texts, ["lost twice"]);
    assert!(matches!(outcome, Outcome::NotWritten(failure) if failure.why == Why::Rejected));
    let error = error.expect("a dead letter was to be written");
    assert!(error.to_string().contains("INVALID_RECORD"), "{error}");
    let letter = error.source().expect("the letter's failure");
    let cause = letter.source().expect("what the broker said");
    assert!(
        cause.to_string().contains("TOPIC_AUTHORIZATION_FAILED"),
        "{cause}"
    );
    producer.flush_blocking(PATIENCE).expect("in time");
    let letters = producer.stats().dead_letters;
    assert_eq!((letters.written, letters.failed), (0, 1));
    assert!(producer.close(PATIENCE).in_time);
    assert!(reported.try_recv().is_err(), "no more than that");
}

/// The dead-letter topic does not exist: reported, with the reason, and nothing hangs.
fn m2_a_dead_letter_topic_that_is_not_there_is_told(driver: DriverChoice) {
    let server = broker_with(|broker| broker.auto_create = false);
    server.with(|broker| {
        broker.create_topic("orders", 1).expect("a new topic");
        let refused = PartitionFault::ErrorBefore(ErrorCode::INVALID_RECORD);
        broker.faults().every_batch("orders", 0, refused);
    });
    let settings = with_letters(&server, driver).set("topic_timeout", "50ms");
    let (producer, reported) = reporting(settings.expect("a setting"));
    let topic = producer.topic_blocking("orders").expect("it is there");
    topic.post(Record::value(b"lost")).expect("room");
    let (.., texts, error) = receive(&reported);
    assert_eq!(texts, ["lost"]);
    assert!(
        matches!(error, Some(DeadLetterError::Topic { .. })),
        "{error:?}"
    );
    producer.flush_blocking(PATIENCE).expect("in time");
    assert_eq!(producer.stats().dead_letters.failed, 1);
}

/// Expired records become dead letters only when that is asked for, records of unknown fate
/// likewise; the header says which of them may be in both topics.
fn r2_expired_and_unknown_records_only_when_asked_for(driver: DriverChoice) {
    for (expired, unknown) in [(false, false), (true, false), (true, true)] {
        let server = broker();
        server.with(|broker| {
            broker.create_topic("orders", 2).expect("a new topic");
            broker.create_topic(DEAD, 1).expect("a new topic");
            // One is always told to come again, the other's answers are lost for good.
            let busy = PartitionFault::ErrorBefore(ErrorCode::NOT_ENOUGH_REPLICAS);
            broker.faults().every_batch("orders", 0, busy);
            let lost = PartitionFault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT);
            broker.faults().every_batch("orders", 1, lost);
        });
        let producer = with_letters(&server, driver)
            .idempotent(false)
            .dead_letter_expired(expired)
            .dead_letter_unknown(unknown)
            .delivery_timeout(Duration::from_secs(3))
            .build()
            .expect("a producer");
        let topic = producer.topic_blocking("orders").expect("it is there");
        // So that the time is long enough for an attempt.
        producer.warm_up_blocking(&["orders"]).expect("in time");
        let waiting = [0, 1].map(|partition| {
            let record = Record::value(b"v").partition(partition);
            topic.try_send(record).expect("room")
        });
        let [not_written, perhaps] = waiting.map(block_on);
        assert!(matches!(not_written, Outcome::NotWritten(f) if f.why == Why::Expired));
        assert!(matches!(perhaps, Outcome::Unknown(_)), "{perhaps:?}");
        assert!(producer.close(PATIENCE).in_time);
        let letters = stored(&server, DEAD);
        let mut fates: Vec<_> = letters
            .iter()
            .map(|letter| {
                let origin = DeadLetter::from_headers(headers(letter)).expect("a letter");
                (origin.partition, origin.perhaps_written)
            })
            .collect();
        fates.sort_unstable();
        let mut expected = Vec::new();
        expected.extend(expired.then_some((0, false)));
        expected.extend(unknown.then_some((1, true)));
        assert_eq!(fates, expected);
    }
}

/// `exhausted = callback`: the hook hears of a record somebody waits for, too.
fn a7_the_callback_hears_of_awaited_records(driver: DriverChoice) {
    let server = refusing(ErrorCode::INVALID_RECORD);
    let (producer, reported) = reporting(builder(&server, driver).exhausted(Exhausted::Callback));
    let topic = producer.topic_blocking("orders").expect("it is there");
    let awaited = topic.try_send(Record::value(b"awaited")).expect("room");
    let outcome = block_on(awaited);
    let (.., told, texts, error) = receive(&reported);
    assert_eq!(told, outcome);
    assert_eq!((texts, error), (vec!["awaited".into()], None));
}

/// A close that does not wait: the letter that is in flight, and the record that is about to become
/// one, are reported; nothing hangs.
fn c1_a_close_without_time_reports_letters(driver: DriverChoice) {
    let server = refusing(ErrorCode::INVALID_RECORD);
    let (producer, reported) = reporting(with_letters(&server, driver));
    let topic = producer.topic_blocking("orders").expect("it is there");
    producer
        .warm_up_blocking(&["orders", DEAD])
        .expect("in time");
    server.with(|broker| {
        broker.faults().next_request(ApiKey::Produce, None);
        broker
            .faults()
            .every_request(ApiKey::Produce, Some(RequestFault::Ignore));
    });
    topic.post(Record::value(b"flying")).expect("room");
    until("its letter is in flight", || {
        producer.stats().total().requests == 2
    });
    let closed = in_time({
        let producer = producer.clone();
        move || producer.close(Duration::ZERO)
    });
    assert!(!closed.in_time);
    let (from, _, outcome, texts, error) = receive(&reported);
    assert_eq!((from.as_str(), texts), ("orders", vec!["flying".into()]));
    assert!(matches!(outcome, Outcome::NotWritten(_)), "{outcome:?}");
    assert!(
        matches!(error, Some(DeadLetterError::Unknown { letter, .. }) if letter.why == Why::Closed)
    );
    assert_eq!(producer.stats().memory_in_use, 0);
}

/// The application's thread makes the letters when it turns.
fn dead_letters_in_embedded_mode(driver: DriverChoice) {
    let server = refusing(ErrorCode::INVALID_RECORD);
    let (producer, mut engine) = with_letters(&server, driver)
        .build_embedded()
        .expect("a producer");
    let topic = engine
        .topic(&producer, "orders", PATIENCE)
        .expect("it is there");
    topic.post(Record::value(b"lost")).expect("room");
    let flushed = engine.run_until(producer.flush(), PATIENCE);
    assert!(flushed.is_some(), "its letter is settled");
    assert_eq!(stored(&server, DEAD).len(), 1);
    assert_eq!(producer.stats().dead_letters.written, 1);
}

for_both_drivers!(
    r1_an_exhausted_record_becomes_a_dead_letter,
    g1_many_dead_letters_stay_within_the_memory,
    a7_a_lost_dead_letter_is_reported_with_both_failures,
    m2_a_dead_letter_topic_that_is_not_there_is_told,
    r2_expired_and_unknown_records_only_when_asked_for,
    a7_the_callback_hears_of_awaited_records,
    c1_a_close_without_time_reports_letters,
    dead_letters_in_embedded_mode,
);
