//! Sends one record and says where it is.
//!
//! ```text
//! cargo run --release --example send_one -- 127.0.0.1:9092 topic hello
//! ```

use ringpost::{Outcome, Producer, Record};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, value] = &args[..] else {
        return Err("usage: send_one BOOTSTRAP TOPIC VALUE".into());
    };
    let producer = Producer::builder().bootstrap(bootstrap).build()?;
    let topic = producer.topic_blocking(topic)?;
    let Outcome::Acked(ack) = topic.send_blocking(Record::value(value.as_bytes()))?.wait() else {
        return Err("not acknowledged".into());
    };
    println!(
        "partition {} offset {}",
        ack.partition,
        ack.offset.unwrap_or(-1)
    );
    Ok(())
}
