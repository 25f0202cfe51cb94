//! Ends cleanly on SIGTERM (or Ctrl-C): stops sending, closes the producer with a deadline, says
//! what became of everything. The engine itself handles no signals.
//!
//! ```text
//! cargo run --release --example shutdown -- 127.0.0.1:9092 topic
//! ```

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use ringpost::{Producer, Record, TrySendError};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic] = &args[..] else {
        return Err("usage: shutdown BOOTSTRAP TOPIC".into());
    };
    // Kubernetes and systemd send SIGTERM and wait, 30 s as a rule, before they kill.
    let (stop, stopped) = channel();
    ctrlc::set_handler(move || {
        let _ = stop.send(());
    })?;
    let producer = Producer::builder()
        .bootstrap(bootstrap)
        .on_undelivered(|batch| eprintln!("{} records lost: {:?}", batch.len(), batch.outcome()))
        .build()?;
    let topic = producer.topic_blocking(topic)?;
    println!("sending until SIGTERM");

    // One record each millisecond, until the signal.
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_millis(1)) {
        match topic.post(Record::value(b"tick")) {
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(other) => return Err(other.to_string().into()),
        }
    }

    // Less than what the system waits, so that there is time left for the rest.
    let report = producer.close(Duration::from_secs(20));
    println!(
        "{} acknowledged, {} not written, {} unknown, {}",
        report.records_acked,
        report.records_not_written,
        report.records_unknown,
        if report.in_time { "in time" } else { "late" }
    );
    Ok(())
}
