//! Every Produce version, against a broker that speaks it.

use ringpost::{DriverChoice, Header, Outcome, Record, Why};
use ringpost_broker::{ApiKey, Versions};

use crate::support::*;

fn each_produce_version(driver: DriverChoice) {
    for version in [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13] {
        let server = broker_with(|broker| {
            broker.versions = Versions::default().with(ApiKey::Produce, 0, version);
        });
        let producer = producer(&server, driver);
        let headers = [Header {
            key: "version",
            value: Some(b"x"),
        }];
        let names = ["first", "second"];
        let topics = names.map(|name| producer.topic_blocking(name).expect("it is made"));
        let mut deliveries = Vec::new();
        for n in 0..200_u32 {
            let value = n.to_be_bytes();
            let record = Record::keyed(&value, &value).headers(&headers);
            let topic = &topics[usize::from(n % 3 == 0)];
            deliveries.push(topic.try_send(record).expect("room"));
        }
        for delivery in deliveries {
            let ack = ack(delivery);
            assert!(ack.offset.is_some(), "v{version}");
        }
        let report = producer.close(PATIENCE);
        assert_eq!(
            (report.in_time, report.records_acked),
            (true, 200),
            "v{version}"
        );
        let stored: usize = names.iter().map(|name| stored(&server, name).len()).sum();
        assert_eq!(stored, 200, "v{version}");
        let closings = server.closings();
        assert!(closings.is_empty(), "v{version}: {closings:?}");
        assert!(server.shutdown().is_clean());
    }
}

/// Brokers without flexible versions of the small requests either.
fn brokers_of_long_ago(driver: DriverChoice) {
    let server = broker_with(|broker| {
        broker.versions = Versions::default()
            .with(ApiKey::Produce, 0, 3)
            .with(ApiKey::Metadata, 0, 4)
            .with(ApiKey::ApiVersions, 0, 0)
            .with(ApiKey::InitProducerId, 0, 0);
    });
    let producer = producer(&server, driver);
    let topic = producer.topic_blocking("old").expect("it is made");
    for n in 0..10 {
        let ack = ack(topic
            .try_send(Record::value(b"hello").partition(0))
            .expect("room"));
        assert_eq!(ack.offset, Some(n));
    }
}

/// Before Produce v7 a broker would store zstd as something else: the record ends, with the reason.
fn zstd_is_not_sent_to_who_cannot_read_it(driver: DriverChoice) {
    let server = broker_with(|broker| {
        broker.versions = Versions::default().with(ApiKey::Produce, 0, 6);
    });
    let producer = builder(&server, driver)
        .set("compression", "zstd")
        .expect("a setting")
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking("old").expect("it is made");
    let value = [b'a'; 5000];
    match block_on(topic.try_send(Record::value(&value)).expect("room")) {
        Outcome::NotWritten(failure) => {
            assert_eq!(failure.why, Why::Unsupported);
            assert!(format!("{failure:#}").contains("zstd"), "{failure:#}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.report().records, 0);
}

for_both_drivers!(
    each_produce_version,
    brokers_of_long_ago,
    zstd_is_not_sent_to_who_cannot_read_it,
);
