//! One dead broker of three: what waits for it takes its share of the memory and no more, and the
//! records for the others go on.

use std::thread;
use std::time::Duration;

use ringpost::{
    Builder, DeadLetter, Delivery, DriverChoice, Header, OnLaneUnavailable, Outcome, PartitionId,
    Producer, Record, SendError, Topic, TrySendError, Why,
};
use ringpost_broker::{Server, ServerConfig};
use ringpost_core::partition::murmur2_partition;

use crate::support::*;

const MEMORY: usize = 2 << 20;
const VALUE: [u8; 2000] = [b'v'; 2000];

/// Three nodes, one of which is dead, and its first partition's records known to wait.
struct Cluster {
    server: Server,
    producer: Producer,
    topic: Topic,
    dead: i32,
    dead_partition: i32,
    first: Delivery,
}

fn with_a_dead_broker(driver: DriverChoice, change: impl FnOnce(Builder) -> Builder) -> Cluster {
    let server = Server::start(ServerConfig {
        nodes: 3,
        ..ServerConfig::storing()
    })
    .expect("free ports");
    server.with(|broker| {
        broker.create_topic("walled", 6).expect("a new topic");
        broker.create_topic("dead", 6).expect("a new topic");
    });
    let settings = builder(&server, driver)
        .memory(MEMORY)
        .set("metadata_max_age", "1s")
        // Whoever is kept waiting by a busy machine is neither dead nor slow.
        .and_then(|b| b.set("health.stall", "60s"))
        .and_then(|b| b.set("health.slow_floor", "60s"))
        // While the dead one is tried again it is not known to be dead.
        .and_then(|b| b.set("reconnect_backoff_max", "2s"))
        .and_then(|b| b.set("reconnect_backoff", "2s"))
        .expect("settings");
    let producer = change(settings).build().expect("a producer");
    let topic = producer.topic_blocking("walled").expect("it is there");
    producer.warm_up_blocking(&["walled"]).expect("in time");
    // Not the one that the controller asks.
    let (dead, dead_partition) = server.with(|broker| {
        let mut led = (0..6).map(|p| (broker.leader("walled", p).expect("a leader"), p));
        led.find(|(leader, _)| *leader == 3)
            .expect("each leads some")
    });
    server.stop_node(dead);
    server.with(|broker| broker.set_node_up(dead, false));
    let first = topic
        .try_send(Record::value(&VALUE).partition(dead_partition))
        .expect("room");
    until("it is known that it waits", || {
        producer.stats().memory_held_back > 0
    });
    Cluster {
        server,
        producer,
        topic,
        dead,
        dead_partition,
        first,
    }
}

/// The first failure ejects for longer than the test: while a broker is tried again its lanes are not held
/// back.
fn ejected_for_long(builder: Builder) -> Builder {
    let settings = [
        ("health.cf", "1"),
        ("health.eject_base", "60s"),
        ("health.eject_max", "60s"),
    ];
    settings.into_iter().fold(builder, |builder, (name, text)| {
        builder.set(name, text).expect("a setting")
    })
}

/// Sends until a wait is in vain: when the broker is about to be tried again a record is taken.
fn refusal(topic: &Topic, record: &Record<'_>) -> SendError {
    loop {
        match topic.send_blocking(record.clone()) {
            Ok(delivery) => drop(delivery),
            Err(error) => return error,
        }
    }
}

impl Cluster {
    fn for_the_dead(&self) -> Record<'static> {
        Record::value(&VALUE).partition(self.dead_partition)
    }

    /// Posts for the dead broker until that is refused; says how many were taken, and the refusal.
    fn fill(&self) -> (u64, TrySendError<'static>) {
        let mut taken = 0;
        loop {
            match self.topic.post(self.for_the_dead()) {
                Ok(()) => taken += 1,
                Err(refused) => return (taken, refused),
            }
        }
    }

    fn bring_back(&self) {
        self.server.start_node(self.dead).expect("its port is free");
        self.server
            .with(|broker| broker.set_node_up(self.dead, true));
    }
}

/// With records for a dead broker refused as avoided at a quarter of the memory, ten times the memory
/// goes through the other two meanwhile; after the heal everything that was taken is stored once.
fn v1_g1_one_dead_broker_does_not_stop_the_others(driver: DriverChoice) {
    let cluster = with_a_dead_broker(driver, |b| {
        b.on_lane_unavailable(OnLaneUnavailable::FailFast)
    });
    let (taken, refused) = cluster.fill();
    assert!(matches!(refused, TrySendError::Avoided(_)), "{refused}");
    let held = cluster.producer.stats().memory_held_back;
    assert!(taken > 0 && held <= MEMORY / 4, "{held}");
    let error = cluster.topic.send_blocking(cluster.for_the_dead());
    assert!(matches!(error, Err(SendError::Avoided)));
    let alive: Vec<i32> = cluster.server.with(|broker| {
        let leads = |p: &i32| broker.leader("walled", *p).is_some_and(|l| l > 0 && l != 3);
        (0..6).filter(leads).collect()
    });
    assert_eq!(alive.len(), 4);
    let records = 10 * MEMORY / VALUE.len();
    for n in 0..records {
        let record = Record::value(&VALUE).partition(alive[n % alive.len()]);
        drop(
            cluster
                .topic
                .send_blocking(record)
                .expect("memory comes free"),
        );
    }
    until("all of those are acknowledged", || {
        cluster.producer.settled().acked == records as u64
    });
    assert!(cluster.first.outcome().is_none(), "its broker is dead");
    cluster.bring_back();
    cluster.producer.flush_blocking(PATIENCE).expect("in time");
    ack(cluster.first);
    assert_eq!(cluster.producer.stats().memory_held_back, 0);
    let report = cluster.producer.close(PATIENCE);
    assert_eq!(report.records_acked, records as u64 + taken + 1);
    let report = cluster.server.shutdown();
    assert_eq!(report.records, records as u64 + taken + 1);
}

/// With `wait`, `try_send` says full, `send` waits until the broker is back or `max_block` is over,
/// and a sender for another broker does not wait behind it.
fn g2_waiting_for_a_dead_broker_holds_up_nobody_else(driver: DriverChoice) {
    let cluster = with_a_dead_broker(driver, |b| b.max_block(PATIENCE));
    let (taken, refused) = cluster.fill();
    assert!(matches!(refused, TrySendError::Full(_)), "{refused}");
    let waiting = {
        let (topic, record) = (cluster.topic.clone(), cluster.for_the_dead());
        thread::spawn(move || topic.send_blocking(record).map(block_on))
    };
    let alive = cluster.server.with(|broker| {
        let leads = |p: &i32| broker.leader("walled", *p).is_some_and(|l| l > 0 && l != 3);
        (0..6).find(leads).expect("two are alive")
    });
    for _ in 0..2 * MEMORY / VALUE.len() {
        let record = Record::value(&VALUE).partition(alive);
        drop(
            cluster
                .topic
                .send_blocking(record)
                .expect("memory comes free"),
        );
    }
    cluster.bring_back();
    let outcome = in_time(move || waiting.join().expect("no panic"));
    acked(outcome.expect("there is room again"));
    cluster.producer.flush_blocking(PATIENCE).expect("in time");
    let sent = 2 * MEMORY as u64 / VALUE.len() as u64;
    assert_eq!(cluster.producer.settled().acked, taken + 2 + sent);
}

/// Behind a dead broker that nothing may wait for, a sender goes on when it is back.
fn g2_a_sender_for_a_dead_broker_goes_on_when_it_is_back(driver: DriverChoice) {
    let cluster = with_a_dead_broker(driver, |b| b.bulkhead(0).max_block(PATIENCE));
    let (taken, refused) = cluster.fill();
    assert!(matches!(refused, TrySendError::Full(_)), "{refused}");
    let waiting = {
        let (topic, record) = (cluster.topic.clone(), cluster.for_the_dead());
        thread::spawn(move || topic.send_blocking(record).map(block_on))
    };
    cluster.bring_back();
    let outcome = in_time(move || waiting.join().expect("no panic"));
    acked(outcome.expect("it need not wait any more"));
    cluster.producer.flush_blocking(PATIENCE).expect("in time");
    assert_eq!(cluster.producer.settled().acked, taken + 2);
}

/// A sender that waits for a dead broker gives up after `max_block`, or at once when the producer is
/// closed.
fn g2_c1_a_wait_for_a_dead_broker_ends(driver: DriverChoice) {
    let max_block = Duration::from_millis(20);
    let cluster = with_a_dead_broker(driver, |b| ejected_for_long(b).max_block(max_block));
    cluster.fill();
    let topic = cluster.topic.clone();
    let record = cluster.for_the_dead();
    let ended = in_time(move || refusal(&topic, &record));
    assert!(matches!(ended, SendError::TimedOut { .. }), "{ended:?}");

    let cluster = with_a_dead_broker(driver, |b| ejected_for_long(b).max_block(PATIENCE));
    cluster.fill();
    let waiting = {
        let (topic, record) = (cluster.topic.clone(), cluster.for_the_dead());
        thread::spawn(move || refusal(&topic, &record))
    };
    cluster.producer.close(Duration::ZERO);
    let ended = in_time(move || waiting.join().expect("no panic"));
    assert_eq!(ended, SendError::Closed);
}

/// With `dead_letter`, what the dead broker's share cannot hold is a dead letter at once, and its
/// outcome says why.
fn v1_records_for_a_dead_broker_become_dead_letters(driver: DriverChoice) {
    let cluster = with_a_dead_broker(driver, |b| {
        b.dead_letter_topic("dead")
            .on_lane_unavailable(OnLaneUnavailable::DeadLetter)
            .bulkhead(1)
    });
    let outcome = loop {
        let delivery = cluster
            .topic
            .try_send(cluster.for_the_dead())
            .expect("it is taken");
        if let Some(outcome) = delivery.outcome() {
            break outcome;
        }
    };
    assert!(matches!(outcome, Outcome::NotWritten(f) if f.why == Why::Avoided));
    cluster.bring_back();
    cluster.producer.flush_blocking(PATIENCE).expect("in time");
    let letters = stored(&cluster.server, "dead");
    assert_eq!(letters.len(), 1);
    let headers = letters[0].headers.iter().map(|(key, value)| Header {
        key,
        value: value.as_deref(),
    });
    let letter = DeadLetter::from_headers(headers).expect("a dead letter");
    assert_eq!(
        (letter.topic, letter.partition, letter.attempts),
        ("walled", cluster.dead_partition, 0)
    );
    assert_eq!(cluster.producer.settled().not_written, 1);
}

/// Dead letters whose own broker is the dead one: they have the memory set aside for them and their share
/// of the rest, and records for the others go on.
fn v1_dead_letters_for_a_dead_broker_stop_nobody(driver: DriverChoice) {
    let cluster = with_a_dead_broker(driver, |b| {
        ejected_for_long(b)
            .dead_letter_topic("dead")
            .on_lane_unavailable(OnLaneUnavailable::DeadLetter)
            .set("request_bytes_max", "256KiB")
            .expect("a setting")
    });
    // Letters go where their key says.
    let is_led = |topic: &str, partition: i32| {
        let leader = cluster
            .server
            .with(|broker| broker.leader(topic, partition));
        leader.is_some_and(|leader| leader > 0 && leader != cluster.dead)
    };
    let key = (0..100_u32).map(u32::to_be_bytes).find(|key| {
        let PartitionId(partition) = murmur2_partition(key, 6);
        !is_led("dead", partition)
    });
    let key = key.expect("one of a hundred");
    let alive = (0..6)
        .find(|p| is_led("walled", *p))
        .expect("two are alive");
    let mut taken = 0;
    for n in 0..4 * MEMORY / VALUE.len() {
        let record = Record::keyed(&key, &VALUE).partition(cluster.dead_partition);
        taken += usize::from(cluster.topic.post(record).is_ok());
        if n % 16 == 0 {
            let record = Record::value(&VALUE).partition(alive);
            ack(cluster.topic.try_send(record).expect("there is memory"));
        }
    }
    assert!(taken > MEMORY / 4 / VALUE.len(), "{taken}");
}

for_both_drivers!(
    v1_g1_one_dead_broker_does_not_stop_the_others,
    g2_waiting_for_a_dead_broker_holds_up_nobody_else,
    g2_a_sender_for_a_dead_broker_goes_on_when_it_is_back,
    g2_c1_a_wait_for_a_dead_broker_ends,
    v1_records_for_a_dead_broker_become_dead_letters,
    v1_dead_letters_for_a_dead_broker_stop_nobody,
);
