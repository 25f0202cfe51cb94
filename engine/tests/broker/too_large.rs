//! Batches that the broker finds too large, and those who wait for their records.

use ringpost::{Compression, DriverChoice, Outcome, Record};

use crate::support::*;

const TOPIC: &str = "orders";

/// Hundreds of records in one batch that the broker takes only in parts: each that is waited for, has
/// a tag or is merely posted is stored once, and whoever asks is told its very own offset.
fn b3_every_record_of_a_divided_batch_is_told_its_own_offset(driver: DriverChoice) {
    for compression in ["none", "lz4"] {
        let server = broker_with(|config| config.message_bytes_max = 2_000);
        server
            .with(|broker| broker.create_topic(TOPIC, 1))
            .expect("a new topic");
        let producer = builder(&server, driver)
            .compression(compression.parse::<Compression>().expect("a codec"))
            .linger(std::time::Duration::from_millis(5))
            .build()
            .expect("a producer");
        let topic = producer.topic_blocking(TOPIC).expect("it is there");
        let texts: Vec<String> = (0..300_u64)
            .map(|n| format!("{n} {:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        let mut deliveries = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            let record = Record::value(text.as_bytes());
            match n % 3 {
                0 => topic.post(record).expect("room"),
                1 => deliveries.push((n, topic.try_send(record).expect("room"))),
                _ => topic.enqueue(record, n as u64).expect("room"),
            }
        }
        producer.flush_blocking(PATIENCE).expect("flushed");
        let stored = stored(&server, TOPIC);
        let found: Vec<_> = stored.iter().map(|record| record.text()).collect();
        assert_eq!(found, texts, "each once, in order");
        let at = |n: usize| Some(stored[n].offset);
        for (n, delivery) in deliveries {
            assert_eq!(acked(delivery.wait()).offset, at(n));
        }
        for completion in drain(&producer, 100) {
            let n = usize::try_from(completion.tag).expect("small");
            let Outcome::Acked(ack) = completion.outcome else {
                panic!("{completion:?}")
            };
            assert_eq!(
                (ack.offset, ack.timestamp_ms),
                (at(n), stored[n].timestamp_ms)
            );
        }
        assert!(producer.close(PATIENCE).in_time);
        let report = server.shutdown();
        assert!(report.is_clean(), "{report:?}");
    }
}

for_both_drivers!(b3_every_record_of_a_divided_batch_is_told_its_own_offset);
