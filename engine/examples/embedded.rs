//! No threads but yours: the application's own loop drives the producer. For services that spin on
//! a core of their own and count every wake-up.
//!
//! ```text
//! cargo run --release --example embedded -- 127.0.0.1:9092 topic hello
//! ```

use std::time::Duration;

use ringpost::{Outcome, Producer, Record};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, value] = &args[..] else {
        return Err("usage: embedded BOOTSTRAP TOPIC VALUE (addresses, not names)".into());
    };
    let (producer, mut engine) = Producer::builder().bootstrap(bootstrap).build_embedded()?;
    let topic = engine.topic(&producer, topic, Duration::from_secs(10))?;

    let record = Record::value(value.as_bytes());
    // A refused record comes back inside the error, which so must not outlive it.
    let delivery = topic
        .try_send(record)
        .map_err(|refused| refused.to_string())?;
    // The service's own loop. Nothing may block on the producer in it, because nothing happens
    // between two turns: look instead of waiting.
    let outcome = loop {
        if let Some(outcome) = delivery.outcome() {
            break outcome;
        }
        // … other work of the service …
        engine.turn(Duration::from_millis(1))?;
    };
    match outcome {
        Outcome::Acked(ack) => println!(
            "partition {} offset {}",
            ack.partition,
            ack.offset.unwrap_or(-1)
        ),
        other => println!("{other:?}"),
    }
    engine.run_until(producer.flush(), Duration::from_secs(5));
    Ok(())
}
