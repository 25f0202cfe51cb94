//! Prints the waits of a retry policy, for a batch that fails every time.
//!
//! ```text
//! cargo run --example retry_schedule -- retry_attempts=8 retry_jitter=equal seed=7
//! cargo run --example retry_schedule -- retry_backoff=50ms retry_backoff_max=5s delivery=30s
//! ```
//!
//! `seed` chooses the jitter, `class` the failures (`connection`, `timeout`, …: those with a rule of
//! their own in `retry_rules`), `delivery` where the delivery timeout ends the list; everything else
//! is a setting of the producer.

use std::error::Error;
use std::time::Duration;

use ringpost::{Class, Producer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut builder = Producer::builder();
    let (mut seed, mut class, mut delivery) = (1, Class::Other, Duration::from_secs(120));
    for argument in std::env::args().skip(1) {
        let (name, text) = argument
            .split_once('=')
            .ok_or("settings have the form NAME=VALUE")?;
        match name {
            "seed" => seed = text.parse()?,
            "class" => {
                let known = Class::ALL.into_iter().find(|class| class.name() == text);
                class =
                    known.ok_or_else(|| format!("classes: {:?}", Class::ALL.map(Class::name)))?;
            }
            "delivery" => {
                let seconds = text
                    .strip_suffix('s')
                    .ok_or("seconds, such as delivery=30s")?;
                delivery = Duration::try_from_secs_f64(seconds.parse()?)?;
            }
            _ => builder = builder.set(name, text)?,
        }
    }
    let policy = builder.retry_policy();
    let mut at = Duration::ZERO;
    println!("attempt 1 at 0 ms");
    for (attempt, wait) in (2..).zip(policy.schedule_for(class, seed)) {
        at += wait;
        let (at_ms, wait_ms) = (at.as_millis(), wait.as_millis());
        if at >= delivery {
            println!(
                "the delivery timeout ends it at {} ms",
                delivery.as_millis()
            );
            return Ok(());
        }
        println!("attempt {attempt} at {at_ms} ms, after {wait_ms} ms");
    }
    println!("no further attempt");
    Ok(())
}
