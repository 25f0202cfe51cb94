//! What the statistics say of brokers that are avoided.

use ringpost::{BrokerStats, Cause, DriverChoice, Producer, Reason, Record, Standing};
use ringpost_broker::{Server, ServerConfig};

use crate::support::*;

const NODES: u16 = 3;

/// A cluster whose nodes fail without the others noticing, and keyless records that never end.
struct Cluster {
    server: Server,
    producer: Producer,
    topic: ringpost::Topic,
}

impl Cluster {
    /// `stall`: who has not answered for so long is dead.
    fn start(driver: DriverChoice, stall: &str) -> Self {
        let mut config = ServerConfig {
            nodes: NODES,
            ..ServerConfig::storing()
        };
        config.broker.replication.session_ms = i64::MAX;
        let server = Server::start(config).expect("free ports");
        server
            .with(|broker| broker.create_topic("avoiding", 6))
            .expect("a new topic");
        let producer = builder(&server, driver)
            .set("health.stall", stall)
            // Whoever is kept waiting by a busy machine is not slow.
            .and_then(|b| b.set("health.slow_floor", "60m"))
            .and_then(|b| b.set("health.slow_start", "50ms"))
            .and_then(|b| b.set("health.eject_base", "50ms"))
            .and_then(|b| b.set("health.eject_max", "200ms"))
            .and_then(|b| b.set("reconnect_backoff", "5ms"))
            .and_then(|b| b.set("reconnect_backoff_max", "50ms"))
            .expect("settings")
            .build()
            .expect("a producer");
        let topic = producer.topic_blocking("avoiding").expect("it is there");
        producer.warm_up_blocking(&["avoiding"]).expect("in time");
        Self {
            server,
            producer,
            topic,
        }
    }

    /// Sends until a broker is seen as it should be.
    fn send_until(
        &self,
        what: &str,
        broker: i32,
        seen: impl Fn(&BrokerStats) -> bool,
    ) -> BrokerStats {
        let mut found = None;
        until(what, || {
            // Enough that lanes are chosen all the time. Full is no news here.
            for _ in 0..200 {
                let _ = self.topic.post(Record::value(&[b'v'; 2_000]));
            }
            let brokers = self.producer.stats().total().brokers;
            found = brokers.into_iter().find(|b| b.broker == broker);
            found.as_ref().is_some_and(&seen)
        });
        found.expect("it was seen")
    }

    /// Everybody has answered and is in full health; then nothing is held against anybody.
    fn all_well(&self) {
        for broker in 1..=3 {
            let well = self.send_until("all are well", broker, |b| {
                b.standing == Standing::Good
                    && b.why.is_none()
                    && b.weight == 100
                    && b.service_p50.is_some()
            });
            assert_eq!((well.until, well.failures), (None, 0));
            assert!(well.service_p50 <= well.service_p99, "{well:?}");
        }
    }

    fn others_are_well(&self, broker: i32) {
        let brokers = self.producer.stats().total().brokers;
        assert_eq!(brokers.len(), usize::from(NODES));
        for other in brokers.iter().filter(|b| b.broker != broker) {
            assert_eq!((other.standing, other.why), (Standing::Good, None));
        }
    }
}

/// A node that stands still is shown as dead because it does not answer, with its ejection and the
/// time until it is probed; the others as good. After it goes on, nothing is held against it.
fn v2_statistics_say_which_broker_does_not_answer(driver: DriverChoice) {
    let cluster = Cluster::start(driver, "2s");
    cluster.all_well();
    cluster.server.pause_node(2, true);
    let seen = cluster.send_until("it is ejected", 2, |b| {
        b.standing == Standing::Dead && b.until.is_some()
    });
    assert_eq!(seen.why, Some(Reason::Stalled), "{seen:?}");
    assert!(seen.ejections > 0 && seen.since.is_some(), "{seen:?}");
    cluster.others_are_well(2);
    cluster.server.pause_node(2, false);
    cluster.all_well();
    let report = cluster.producer.close(PATIENCE);
    assert!(report.in_time, "{report:?}");
    assert_eq!(cluster.server.shutdown().records, report.records_acked);
}

/// A node whose process is gone is shown as dead because it failed several times in a row, the refused
/// connection last; after its return nothing is held against it.
fn v1_statistics_say_which_broker_is_gone(driver: DriverChoice) {
    let cluster = Cluster::start(driver, "60s");
    cluster.all_well();
    cluster.server.stop_node(3);
    let seen = cluster.send_until("it is ejected", 3, |b| {
        b.why == Some(Reason::Failures) && b.until.is_some() && b.failures > 2
    });
    assert_eq!(seen.standing, Standing::Dead);
    assert!(
        matches!(&seen.last, Some(Cause::ConnectFailed { broker, .. }) if broker.0 == 3),
        "{seen:?}"
    );
    cluster.others_are_well(3);
    cluster.server.start_node(3).expect("its port is free");
    cluster.all_well();
    let total = cluster.producer.stats().total();
    let moved: u64 = total.brokers.iter().map(|broker| broker.moved).sum();
    assert_eq!(moved, total.moved);
    assert!(cluster.producer.close(PATIENCE).in_time);
}

for_both_drivers!(
    v2_statistics_say_which_broker_does_not_answer,
    v1_statistics_say_which_broker_is_gone,
);
