//! One awaited record at a time, against its floor: a raw socket that sends the same bytes to the same
//! broker and waits for the same answer, in the same way. In turns, ABBA, so that a host that changes
//! its speed changes both.
//!
//! ```text
//! cargo run --release -p ringpost-bench --example awaited_floor -- 127.0.0.1:9092 topic [rounds] [mode]
//! ```
//!
//! | mode | the engine | both wait |
//! |---|---|---|
//! | `threads` (default) | has a thread of its own | asleep |
//! | `embedded` | is turned by the application's thread | asleep |
//! | `spinning` | is turned by the application's thread | without sleeping |
//!
//! The topic must have its first partition led by the broker at that address.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;
use ringpost::{Builder, Embedded, Outcome, Producer, Record, Topic};
use ringpost_bench::clock::{self, Clock};
use ringpost_codec::checksum::BodyDigest;
use ringpost_codec::kafka::produce::{self, RequestHead, TopicRef};
use ringpost_codec::record;
use ringpost_codec::record_batch::{BATCH_HEADER_LEN, BatchHeader};

const RECORDS_PER_ROUND: u32 = 1_000;
/// Classic encoding, spoken by every broker since Kafka 2.4.
const VERSION: i16 = 8;
const VALUE: [u8; 100] = [b'x'; 100];
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (bootstrap, topic, rounds, mode) = match &args[..] {
        [bootstrap, topic] => (bootstrap, topic, 10, "threads"),
        [bootstrap, topic, rounds] => (bootstrap, topic, rounds.parse()?, "threads"),
        [bootstrap, topic, rounds, mode] => (bootstrap, topic, rounds.parse()?, mode.as_str()),
        _ => return Err("usage: awaited_floor BOOTSTRAP TOPIC [ROUNDS [MODE]]".into()),
    };
    let builder = Producer::builder().bootstrap(bootstrap);
    let mut ringpost = match mode {
        "threads" => Ours::with_threads(builder, topic)?,
        "embedded" => Ours::embedded(builder, topic, PATIENCE)?,
        "spinning" => Ours::embedded(builder, topic, Duration::ZERO)?,
        _ => return Err(format!("{mode}: expected `threads`, `embedded` or `spinning`").into()),
    };
    let mut raw = Raw::connect(bootstrap, topic)?;
    raw.wait_spinning(mode == "spinning")?;

    let clock = Clock::new();
    let (mut ours, mut floor) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
    let mut warm_up = Histogram::new(3)?;
    for round in 0..=rounds {
        for first in [true, false] {
            // A B, then B A.
            let ringpost_now = first == (round % 2 == 0);
            let histogram = match (round, ringpost_now) {
                (0, _) => &mut warm_up,
                (_, true) => &mut ours,
                (_, false) => &mut floor,
            };
            for _ in 0..RECORDS_PER_ROUND {
                let started = clock.now();
                if ringpost_now {
                    let outcome = ringpost.awaited()?;
                    assert!(matches!(outcome, Outcome::Acked(_)), "{outcome:?}");
                } else {
                    raw.ping_pong()?;
                }
                histogram.record(clock.now() - started)?;
            }
        }
    }

    let us = |histogram: &Histogram<u64>, q| histogram.value_at_quantile(q) as f64 / 1000.0;
    println!("{:10} {:>9} {:>9} {:>9}", "us", "p50", "p90", "p99");
    for (name, histogram) in [("ringpost", &ours), ("raw socket", &floor)] {
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| us(histogram, q));
        println!("{name:10} {p50:>9.1} {p90:>9.1} {p99:>9.1}");
    }
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| us(&ours, q) / us(&floor, q));
    println!("{:10} {p50:>9.2} {p90:>9.2} {p99:>9.2}", "ratio");
    println!(
        "{mode}, driver {}, {} records each",
        ringpost.producer.stats().driver,
        ours.len()
    );
    Ok(())
}

/// The engine, and who drives it.
struct Ours {
    producer: Producer,
    topic: Topic,
    /// Turned here, each turn waiting at most so long; a thread of its own without.
    embedded: Option<(Embedded, Duration)>,
}

impl Ours {
    fn with_threads(builder: Builder, topic: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let producer = builder.build()?;
        producer.warm_up_blocking(&[topic])?;
        let topic = producer.topic_blocking(topic)?;
        Ok(Self {
            producer,
            topic,
            embedded: None,
        })
    }

    fn embedded(
        builder: Builder,
        topic: &str,
        at_most: Duration,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let (producer, mut engine) = builder.build_embedded()?;
        let found = engine.topic(&producer, topic, PATIENCE)?;
        engine
            .run_until(producer.warm_up(&[topic]), PATIENCE)
            .ok_or("not connected in time")??;
        Ok(Self {
            producer,
            topic: found,
            embedded: Some((engine, at_most)),
        })
    }

    /// Sends one record and waits for its outcome.
    fn awaited(&mut self) -> Result<Outcome, Box<dyn std::error::Error>> {
        let record = Record::value(&VALUE).partition(0);
        let Some((engine, at_most)) = &mut self.embedded else {
            return Ok(self.topic.send_blocking(record)?.wait());
        };
        let delivery = self.topic.try_send(record)?;
        loop {
            if let Some(outcome) = delivery.outcome() {
                return Ok(outcome);
            }
            engine.turn(*at_most)?;
        }
    }
}

/// A socket and the one request it sends again and again: a batch of one record without a producer
/// id, so that it can be repeated.
struct Raw {
    socket: TcpStream,
    /// It does not sleep while it waits.
    spins: bool,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Raw {
    fn connect(address: &str, topic: &str) -> std::io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let size = record::record_size(0, 0, None, Some(VALUE.len()), &[]);
        let mut body = vec![0; size.total];
        record::encode(&mut body, size, 0, 0, None, Some(&VALUE), &[]);
        let timestamp = i64::try_from(clock::wall().as_millis()).unwrap_or(0);
        let mut header = [0; BATCH_HEADER_LEN];
        BatchHeader {
            record_count: 1,
            base_timestamp: timestamp,
            max_timestamp: timestamp,
            ..BatchHeader::default()
        }
        .write(&BodyDigest::of(&body), &mut header);

        let mut request = Vec::new();
        let length = produce::put_request_head(
            &mut request,
            &RequestHead {
                version: VERSION,
                correlation_id: 7,
                client_id: Some("floor"),
                transactional_id: None,
                acks: -1,
                timeout_ms: 30_000,
                topic_count: 1,
            },
        );
        produce::put_topic(&mut request, VERSION, TopicRef::Name(topic), 1);
        produce::put_partition(&mut request, VERSION, 0, header.len() + body.len());
        request.extend_from_slice(&header);
        request.extend_from_slice(&body);
        produce::put_partition_end(&mut request, VERSION);
        produce::put_topic_end(&mut request, VERSION);
        produce::put_request_end(&mut request, VERSION);
        length.patch(&mut request, 0);
        let mut raw = Self {
            socket,
            spins: false,
            request,
            answer: vec![0; 4096],
        };
        raw.ping_pong()?;
        raw.check()?;
        Ok(raw)
    }

    fn wait_spinning(&mut self, spins: bool) -> std::io::Result<()> {
        self.spins = spins;
        self.socket.set_nonblocking(spins)
    }

    fn ping_pong(&mut self) -> std::io::Result<()> {
        self.socket.write_all(&self.request)?;
        self.read(0..4)?;
        let length = i32::from_be_bytes([0, 1, 2, 3].map(|at| self.answer[at]));
        let length = usize::try_from(length)
            .unwrap_or(0)
            .min(self.answer.len() - 4);
        self.read(4..4 + length)
    }

    /// Fills that part of the answer; spins where the socket does not block.
    fn read(&mut self, mut part: Range<usize>) -> std::io::Result<()> {
        while !part.is_empty() {
            match self.socket.read(&mut self.answer[part.clone()]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => part.start += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.spins => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The last answer must say that the record is stored.
    fn check(&self) -> std::io::Result<()> {
        let refused = |what: String| std::io::Error::other(what);
        let response = produce::decode_response(VERSION, &self.answer[8..])
            .map_err(|error| refused(error.to_string()))?;
        match response.partitions().next() {
            Some(partition) if partition.error.is_ok() => Ok(()),
            other => Err(refused(format!(
                "the broker refused the raw request: {other:?}"
            ))),
        }
    }
}
