//! What is in a record arrives as it was given, whatever its size and the codec.

use bytes::Bytes;
use ringpost::{Codec, DriverChoice, Header, Record, Value};

use crate::support::*;

const TOPIC: &str = "content";

/// Bytes that do not compress away, different for each seed.
fn noise(len: usize, seed: usize) -> Vec<u8> {
    let mut state = u32::try_from(seed).expect("small") | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

/// Null, empty and repeated parts, and times of the application, are stored exactly as sent.
fn w3_nulls_headers_and_timestamps(driver: DriverChoice) {
    let server = broker();
    let producer = producer(&server, driver);
    let topic = producer.topic_blocking(TOPIC).expect("it is made");
    let headers = [
        Header {
            key: "trace",
            value: Some(b"1"),
        },
        Header {
            key: "trace",
            value: Some(b"2"),
        },
        Header {
            key: "",
            value: None,
        },
        Header {
            key: "empty",
            value: Some(b""),
        },
    ];
    let records = [
        Record::value(b""),
        Record::tombstone(b"gone"),
        Record::keyed(b"", b"an empty key"),
        Record {
            key: None,
            value: None,
            headers: &headers,
            timestamp_ms: None,
            partition: None,
        },
        Record::keyed(b"k", b"v")
            .headers(&headers)
            .timestamp_ms(1_700_000_000_000),
        Record::value(b"from 1970").timestamp_ms(0),
        Record::value(b"later").timestamp_ms(1_700_000_000_500),
    ];
    for record in &records {
        let ack = ack(topic.try_send(record.clone().partition(2)).expect("room"));
        assert_eq!(ack.partition, 2);
        if let Some(timestamp_ms) = record.timestamp_ms {
            assert_eq!(ack.timestamp_ms, timestamp_ms);
        }
    }
    let stored = stored(&server, TOPIC);
    assert_eq!(stored.len(), records.len());
    for (stored, record) in stored.iter().zip(&records) {
        assert_eq!(stored.key.as_deref(), record.key);
        assert_eq!(
            stored.value.as_deref(),
            record.value.as_ref().map(Value::bytes)
        );
        let sent: Vec<_> = record
            .headers
            .iter()
            .map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)))
            .collect();
        assert_eq!(stored.headers, sent);
        if let Some(timestamp_ms) = record.timestamp_ms {
            assert_eq!(stored.timestamp_ms, timestamp_ms);
        }
    }
}

/// Copied, by reference and written in place; several in a batch and alone.
fn any_size_up_to_900_kib(driver: DriverChoice) {
    let server = broker();
    let producer = builder(&server, driver)
        .linger(std::time::Duration::from_millis(2))
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking(TOPIC).expect("it is made");
    let header = [Header {
        key: "after",
        value: Some(b"the value"),
    }];
    let sizes = [
        0, 1, 63, 64, 4000, 4096, 16_383, 16_384, 16_385, 65_000, 65_536, 100_000, 131_072,
        200_000, 500_000, 921_600,
    ];
    let mut sent = Vec::new();
    for (n, &size) in sizes.iter().enumerate() {
        let value = noise(size, n);
        let small = Record::value(b"between").partition(0);
        let shared = Record::shared(Bytes::from(value.clone()))
            .partition(0)
            .headers(&header);
        let copied = Record::value(&value).partition(0);
        for record in [&shared, &small, &copied, &small] {
            drop(block_on(topic.send(record.clone())).expect("room"));
        }
        drop(
            topic
                .append_with(small.clone().headers(&header), size, |room| {
                    room.copy_from_slice(&value)
                })
                .expect("room"),
        );
        let between = b"between".to_vec();
        sent.extend([
            value.clone(),
            between.clone(),
            value.clone(),
            between,
            value,
        ]);
    }
    producer.flush_blocking(PATIENCE).expect("in time");
    let stored = stored(&server, TOPIC);
    assert_eq!(stored.len(), sent.len());
    for (n, (stored, value)) in stored.iter().zip(&sent).enumerate() {
        assert!(
            stored.value.as_ref() == Some(value),
            "record {n} of {} bytes differs",
            value.len()
        );
        assert_eq!(
            stored.headers.len(),
            usize::from(n % 5 == 0 || n % 5 == 4),
            "record {n}"
        );
    }
    assert_eq!(producer.stats().memory_in_use, 0, "all memory is back");
    assert!(server.shutdown().is_clean());
}

fn every_codec(driver: DriverChoice) {
    let settings = [
        ("none", Codec::None),
        ("gzip", Codec::Gzip),
        ("gzip:1", Codec::Gzip),
        ("snappy", Codec::Snappy),
        ("lz4", Codec::Lz4),
        ("zstd", Codec::Zstd),
        ("zstd:1", Codec::Zstd),
    ];
    let server = broker();
    for (setting, codec) in settings {
        let name = format!("in-{}", setting.replace(':', "-"));
        let producer = builder(&server, driver)
            .set("compression", setting)
            // Batches end where they are flushed or full, however slow this thread is.
            .and_then(|b| b.set("linger", "30s"))
            .expect("settings")
            .build()
            .expect("a producer");
        let topic = producer.topic_blocking(&name).expect("it is made");
        let flushed = |record: Record<'_>| {
            let delivery = topic.try_send(record.partition(0)).expect("room");
            producer.flush_blocking(PATIENCE).expect("in time");
            ack(delivery);
        };
        let texts: Vec<String> = (0..2000)
            .map(|n| format!("record number {n} of many alike"))
            .collect();
        for text in &texts {
            topic
                .post(Record::value(text.as_bytes()).partition(0))
                .expect("room");
        }
        producer.flush_blocking(PATIENCE).expect("in time");
        // Alone in its batch, and so dense that no codec makes it smaller: it goes as it is.
        let dense = noise(20_000, 7);
        flushed(Record::value(&dense));
        // By reference, with room for the compressed form or not.
        let shared = Bytes::from(vec![b'a'; 50_000]);
        flushed(Record::shared(shared.clone()));
        let stored = stored(&server, &name);
        assert_eq!(stored.len(), texts.len() + 2, "{setting}");
        for (stored, text) in stored.iter().zip(&texts) {
            assert_eq!(stored.text(), text, "{setting}");
        }
        assert!(
            stored[texts.len()].value.as_deref() == Some(&dense),
            "{setting}"
        );
        assert!(
            stored[texts.len() + 1].value.as_deref() == Some(&shared),
            "{setting}"
        );
        let used = codecs(&server, &name, 0);
        assert_eq!(used[0], codec, "{setting}");
        assert_eq!(used[used.len() - 2], Codec::None, "{setting}: {used:?}");
        assert_eq!(producer.close(PATIENCE).records_acked, 2002);
    }
    assert!(server.shutdown().is_clean());
}

for_both_drivers!(
    w3_nulls_headers_and_timestamps,
    any_size_up_to_900_kib,
    every_codec
);
