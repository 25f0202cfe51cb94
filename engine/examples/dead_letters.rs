//! Sends a record; if the broker refuses it, it is in the dead-letter topic afterwards, with where it
//! comes from and why in its headers. What could not even be written there is printed.
//!
//! ```text
//! cargo run --release --example dead_letters -- 127.0.0.1:9092 topic topic-dead hello
//! ```

use std::error::Error;
use std::time::Duration;

use ringpost::{Outcome, Producer, Record};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, dead, value] = &args[..] else {
        return Err("usage: dead_letters BOOTSTRAP TOPIC DEAD-LETTER-TOPIC VALUE".into());
    };
    let producer = Producer::builder()
        .bootstrap(bootstrap)
        .dead_letter_topic(dead)
        .dead_letter_expired(true)
        .on_undelivered(|lost| {
            eprint!("{} records for {} are lost", lost.len(), lost.topic());
            let mut error: Option<&dyn Error> = lost.dead_letter_error().map(|error| error as _);
            while let Some(cause) = error {
                eprint!(": {cause}");
                error = cause.source();
            }
            eprintln!();
        })
        .build()?;
    let topic = producer.topic_blocking(topic)?;
    match topic.send_blocking(Record::value(value.as_bytes()))?.wait() {
        Outcome::Acked(_) | Outcome::Sent => println!("acknowledged"),
        Outcome::NotWritten(failure) => println!("not written: {failure:#}"),
        Outcome::Unknown(failure) => println!("perhaps written: {failure:#}"),
    }
    // Waits for dead letters too.
    producer.close(Duration::from_secs(30));
    let letters = producer.stats().dead_letters;
    println!("{} dead letters in {dead}", letters.written);
    Ok(())
}
