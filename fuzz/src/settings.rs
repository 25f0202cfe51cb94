//! Settings as text: of the producer, of its bootstrap addresses, of a bench scenario.
//!
//! The input is text. Each line `name = value` is a setting of the producer; the whole is a scenario
//! of the bench. Nothing panics; every refusal can be shown; a scenario that is taken gives the same
//! plan again when it is written and read back.

use ringpost::Producer;
use ringpost_bench::scenario::{Draft, to_toml};
use ringpost_bench::units;

/// See the module's doc.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    producer(text);
    scenario(text);
    for word in text.split_whitespace().take(16) {
        if let Some(bytes) = units::bytes(word) {
            assert!(!units::show_bytes(bytes).is_empty());
        }
        if let Some(duration) = units::duration(word) {
            let shown = units::show_duration(duration);
            assert!(
                units::duration(&shown).is_some(),
                "{shown:?} is not read back"
            );
        }
        if let Some(count) = units::count(word) {
            assert!(!units::show_count(count).is_empty());
        }
    }
}

fn producer(text: &str) {
    let mut taken = Vec::new();
    for line in text.lines().take(64) {
        let (name, value) = line.split_once('=').unwrap_or(("bootstrap", line));
        match Producer::builder().set(name.trim(), value) {
            Ok(_) => taken.push((name.trim(), value)),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    // What was taken one by one is taken together; then everything is checked at once. There is one
    // fault at least, so nothing is started.
    let mut builder = Producer::builder();
    for (name, value) in taken {
        builder = builder.set(name, value).expect("it was taken before");
    }
    let builder = builder.set("in_flight_max", "0").expect("a number");
    let refused = match builder.build() {
        Ok(_) => panic!("no requests in flight are none"),
        Err(refused) => refused,
    };
    assert!(refused.to_string().contains("in_flight_max"), "{refused}");
}

fn scenario(text: &str) {
    let read = |text: &str| {
        let mut draft = Draft::default();
        draft.read_text("it", text);
        draft.finish()
    };
    match read(text) {
        Err(faults) => {
            assert!(!faults.0.is_empty());
            assert!(!faults.to_string().is_empty());
        }
        Ok(plan) => {
            let written = to_toml(&plan);
            let again = read(&written).unwrap_or_else(|faults| panic!("{written}\n{faults}"));
            assert_eq!(written, to_toml(&again));
        }
    }
}
