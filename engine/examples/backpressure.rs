//! What to do when the memory is full: `Full` is an answer at once, and the record comes back. This
//! service would rather drop old news than wait; outcomes come by queue, under tags of its own.
//!
//! ```text
//! cargo run --release --example backpressure -- 127.0.0.1:9092 topic 100000
//! ```

use std::time::Duration;

use ringpost::{Outcome, Producer, Record, TrySendError};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, count] = &args[..] else {
        return Err("usage: backpressure BOOTSTRAP TOPIC COUNT".into());
    };
    // All that is accepted and not yet settled lies in here: this is the whole bound.
    let producer = Producer::builder()
        .bootstrap(bootstrap)
        .memory(1 << 20)
        .build()?;
    let topic = producer.topic_blocking(topic)?;

    let (mut taken, mut dropped, mut acked) = (0_u64, 0_u64, 0_u64);
    let mut completions = Vec::new();
    for tag in 0..count.parse::<u64>()? {
        let value = [b'x'; 1000];
        match topic.enqueue(Record::value(&value), tag) {
            Ok(()) => taken += 1,
            // Here one could also wait: `producer.completions().wait(...)`, or send it with `send`.
            Err(TrySendError::Full(_)) => dropped += 1,
            Err(other) => return Err(other.to_string().into()),
        }
        // Drained now and then, so that the queue has room again.
        if producer.completions().drain(&mut completions) > 0 {
            acked += count_acked(&mut completions);
        }
    }
    // Every record that was taken has exactly one outcome, also after close.
    producer.close(Duration::from_secs(5));
    while producer.completions().drain(&mut completions) > 0 {
        acked += count_acked(&mut completions);
    }
    println!("{taken} taken, {dropped} dropped, {acked} acknowledged");
    Ok(())
}

fn count_acked(completions: &mut Vec<ringpost::Completion>) -> u64 {
    completions
        .drain(..)
        .map(|completion| u64::from(matches!(completion.outcome, Outcome::Acked(_))))
        .sum()
}
