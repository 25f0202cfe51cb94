//! Keeps many records on the way at once: the pace is the broker's, not a round trip per record.
//!
//! ```text
//! cargo run --release --example pipeline -- 127.0.0.1:9092 topic 100000
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use ringpost::{Outcome, Producer, Record};

/// How many records may wait for their outcome.
const WINDOW: usize = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, count] = &args[..] else {
        return Err("usage: pipeline BOOTSTRAP TOPIC COUNT".into());
    };
    let producer = Producer::builder().bootstrap(bootstrap).build()?;
    let topic = producer.topic_blocking(topic)?;

    let (mut on_the_way, mut acked) = (VecDeque::with_capacity(WINDOW), 0_u64);
    for number in 0..count.parse::<u64>()? {
        if on_the_way.len() == WINDOW {
            // The oldest first: its batch is the next to be answered.
            acked += is_acked(on_the_way.pop_front());
        }
        // `send` waits for memory if need be; the delivery it gives is the wait for the broker.
        let value = number.to_string();
        on_the_way.push_back(topic.send_blocking(Record::value(value.as_bytes()))?);
    }
    while !on_the_way.is_empty() {
        acked += is_acked(on_the_way.pop_front());
    }
    println!("{acked} records acknowledged");
    producer.close(Duration::from_secs(5));
    Ok(())
}

/// A delivery is also a future: in async code, `delivery.await`.
fn is_acked(delivery: Option<ringpost::Delivery>) -> u64 {
    match delivery.map(ringpost::Delivery::wait) {
        Some(Outcome::Acked(_) | Outcome::Sent) => 1,
        Some(Outcome::NotWritten(failure)) => {
            eprintln!("not written: {failure:#}");
            0
        }
        Some(Outcome::Unknown(failure)) => {
            eprintln!("perhaps written: {failure:#}");
            0
        }
        None => 0,
    }
}
