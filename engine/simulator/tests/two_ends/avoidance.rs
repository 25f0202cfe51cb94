//! Broker avoidance in pretend time: three brokers, twelve partitions, keyless load from two senders,
//! and one broker that goes bad in every way it can.

use std::time::Duration;

use ringpost_broker::{ErrorCode, PartitionFault};
use ringpost_core::health::{Reason, Standing};
use ringpost_core::id::{BrokerId, LaneId};
use ringpost_core::outcome::Verdict;
use ringpost_core::time::Time;
use ringpost_simulator::keyless::Keyless;
use ringpost_simulator::setup::{Setup, address, ms, us};
use ringpost_simulator::world::World;

const LANES: u32 = 12;

/// Two keyless senders, and what they sent.
struct Load {
    world: World,
    senders: Vec<Keyless>,
    /// When each record was appended, and to which broker's lane.
    sent: Vec<(Time, i32)>,
}

impl Load {
    fn new(setup: Setup) -> Self {
        Self::on(World::warm(setup, LANES))
    }

    fn on(world: World) -> Self {
        Self {
            world,
            senders: vec![Keyless::new("t", 1), Keyless::new("t", 2)],
            sent: Vec::new(),
        }
    }

    fn setup() -> Setup {
        let mut setup = Setup::new(3);
        setup.batch_bytes = 2_000;
        setup
    }

    /// The broker that leads a lane.
    fn leader(&self, lane: LaneId) -> i32 {
        let partition = self.world.lanes.lanes[lane.index()].partition;
        self.world.broker.leader("t", partition).unwrap_or(-1)
    }

    /// 2,000 records of 100 bytes a second.
    fn run(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            for sender in 0..self.senders.len() {
                let lane = self.senders[sender].send(&mut self.world, 100);
                let leader = self.leader(lane);
                self.sent.push((self.world.now, leader));
            }
            self.world.run_for(ms(1));
        }
    }

    /// The share of records appended within a time that were bound to a broker, in percent.
    fn share(&self, broker: i32, from: Time, to: Time) -> usize {
        let within = || {
            let sent = self.sent.iter();
            sent.filter(move |(at, _)| *at >= from && *at < to)
        };
        assert!(within().count() > 100, "enough to tell");
        let bound = within().filter(|(_, to)| *to == broker).count();
        bound * 100 / within().count()
    }

    fn share_now(&mut self, broker: i32, time: Duration) -> usize {
        let from = self.world.now;
        self.run(time);
        self.share(broker, from, self.world.now)
    }

    fn standing(&self, broker: i32) -> (Standing, Option<Reason>) {
        let now = self.world.now;
        let mut brokers = self.world.dispatcher.health(now);
        let record = brokers.find(|(id, _)| *id == BrokerId(broker));
        record.map_or((Standing::Dead, None), |(_, record)| {
            (record.standing, record.why)
        })
    }

    fn ejections(&self) -> u32 {
        let brokers = self.world.dispatcher.health(self.world.now);
        brokers.map(|(_, record)| record.ejections).sum()
    }

    /// Every record that was appended is acknowledged, where the logs say; pinned ones where they
    /// belong.
    fn all_arrived(&mut self) {
        self.world.settle(ms(40_000));
        assert!(self.world.all_acked());
        self.world.check(true);
    }
}

/// A broker that is stopped, and accepts connections and bytes all the same: under 5 % of the records
/// are bound to it after a second, it is ejected as stalled, and after it goes on its third comes back.
#[test]
fn v2_a_broker_that_is_silent_is_found_by_the_age_of_its_oldest_request() {
    let mut load = Load::new(Load::setup());
    load.run(ms(5_000));
    let stopped = load.world.now;
    load.world.pause_node(2);
    load.run(ms(20_000));
    let share = load.share(2, stopped + ms(1_000), load.world.now);
    assert!(share < 5, "{share} %");
    assert_eq!(load.standing(2), (Standing::Dead, Some(Reason::Stalled)));
    // The others had all the rest, and were quick about it.
    for outcome in load.world.outcomes.values() {
        let Verdict::Acked { .. } = outcome.verdict else {
            panic!("{:?}", outcome.verdict)
        };
    }
    load.world.resume_node(2);
    // Ejection and slow start.
    load.run(ms(12_000));
    assert_eq!(load.standing(2).0, Standing::Good);
    let share = load.share_now(2, ms(10_000));
    assert!((25..42).contains(&share), "{share} %");
    load.all_arrived();
}

/// A broker whose process is gone refuses connections: keyless records leave it at once and are moved;
/// pinned ones wait for it and are stored where they belong when it is back.
#[test]
fn v1_a_broker_that_refuses_is_left_and_pinned_records_wait_for_it() {
    let mut load = Load::new(Load::setup());
    load.run(ms(3_000));
    let gone = load.world.now;
    load.world.stop_node(2);
    let pinned: Vec<u32> = (0..LANES)
        .filter(|lane| load.leader(LaneId(*lane)) == 2)
        .collect();
    let numbers: Vec<u64> = pinned.iter().map(|l| load.world.append(*l, 100)).collect();
    load.run(ms(10_000));
    let share = load.share(2, gone + ms(1_000), load.world.now);
    assert!(share < 5, "{share} %");
    assert_eq!(load.standing(2), (Standing::Dead, Some(Reason::Failures)));
    for (lane, number) in pinned.iter().zip(&numbers) {
        assert!(!load.world.outcomes.contains_key(&(*lane, *number)));
    }
    load.world.start_node(2);
    let back = load.world.now;
    load.run(ms(3_000));
    for (lane, number) in pinned.iter().zip(&numbers) {
        let outcome = load.world.outcome(*lane, *number);
        assert!(
            outcome.at < back + ms(2_500),
            "{:?}",
            outcome.at.since(back)
        );
        assert_eq!(outcome.lane.0, *lane);
    }
    load.all_arrived();
}

/// A broker that was never reached and swallows the first packet: it is suspect within half a second,
/// long before the connection is given up.
#[test]
fn v2_a_broker_that_swallows_connections_is_left_before_the_timeout() {
    let mut world = World::with_topic(Load::setup(), "t", LANES as i32);
    world.dark.insert(address(2));
    let mut load = Load::on(world);
    let start = load.world.now;
    load.run(ms(10_000));
    let share = load.share(2, start + ms(1_500), load.world.now);
    assert!(share < 5, "{share} %");
    load.world.dark.clear();
    load.run(ms(15_000));
    let share = load.share_now(2, ms(10_000));
    assert!((25..42).contains(&share), "{share} %");
    load.all_arrived();
}

/// A broker that answers every batch at once with an error of its own does not attract records by
/// being quick.
#[test]
fn v2_a_broker_that_fails_fast_attracts_nothing() {
    let mut load = Load::new(Load::setup());
    load.run(ms(3_000));
    let broken = load.world.now;
    let lanes: Vec<i32> = (0..12)
        .filter(|partition| load.world.broker.leader("t", *partition) == Some(2))
        .collect();
    for partition in &lanes {
        let fault = PartitionFault::ErrorBefore(ErrorCode::KAFKA_STORAGE_ERROR);
        load.world
            .broker
            .faults()
            .every_batch("t", *partition, fault);
    }
    load.run(ms(10_000));
    let share = load.share(2, broken + ms(1_000), load.world.now);
    assert!(share < 5, "{share} %");
    load.world.broker.faults().heal();
    load.run(ms(30_000));
    let share = load.share_now(2, ms(10_000));
    assert!((25..42).contains(&share), "{share} %");
    load.all_arrived();
}

/// Another shard's hint: suspect at once, ejected by a single failure, and forgotten by a success.
#[test]
fn v1_a_hint_makes_a_broker_suspect_and_one_failure_ejects_it() {
    let mut load = Load::new(Load::setup());
    load.run(ms(1_000));
    let now = load.world.now;
    load.world.dispatcher.hint(now, BrokerId(2));
    assert_eq!(load.standing(2), (Standing::Suspect, Some(Reason::Hinted)));
    let lane = (0..LANES)
        .find(|lane| load.leader(LaneId(*lane)) == 2)
        .expect("it leads some");
    load.world.append(lane, 100);
    load.world.run_for(ms(20));
    assert_eq!(load.standing(2), (Standing::Good, None), "it answered");
    let now = load.world.now;
    load.world.dispatcher.hint(now, BrokerId(2));
    load.world.stop_node(2);
    load.world.append(lane, 100);
    load.world.run_for(ms(5));
    assert_eq!(load.standing(2), (Standing::Dead, Some(Reason::Failures)));
    assert!(
        load.world
            .hints
            .iter()
            .any(|(_, broker)| *broker == BrokerId(2))
    );
    load.world.start_node(2);
    load.all_arrived();
}

/// Switched off: no broker is avoided, and nothing moves.
#[test]
fn v1_without_avoidance_records_wait_where_they_are() {
    let setup = Load::setup().settings(|s| s.health.on = false);
    let mut load = Load::new(setup);
    load.run(ms(1_000));
    load.world.pause_node(2);
    let share = load.share_now(2, ms(5_000));
    assert!((25..42).contains(&share), "{share} %");
    assert_eq!(load.world.dispatcher.counters().moved, 0);
    assert_eq!(load.ejections(), 0);
    load.world.resume_node(2);
    load.all_arrived();
}

/// An idle connection is asked after 30 s whether it still works; one that does not answer is closed
/// within 5 s, and the next record does not find out.
#[test]
fn n11_an_idle_connection_is_probed_and_a_silent_one_closed_before_it_is_needed() {
    let mut world = World::warm(Setup::new(1), 1);
    world.run_for(ms(60_000));
    assert_eq!(world.dispatcher.counters().connection_failures, 0);
    let conns = world.open_connections();
    world.deaf.insert(1);
    world.run_for(ms(40_000));
    assert_eq!(world.dispatcher.counters().connection_failures, 1);
    assert!(
        conns
            .iter()
            .any(|conn| !world.open_connections().contains(conn))
    );
    world.deaf.clear();
    world.run_for(ms(5_000));
    let appended = world.now;
    let number = world.append(0, 100);
    world.settle(ms(100));
    assert!(world.outcome(0, number).at <= appended + ms(10));
    // A record that comes while the question is open is answered behind it.
    world.run_for(ms(30_000) - us(100));
    world.append(0, 100);
    world.settle(ms(100));
    assert!(world.all_acked());
    world.check(true);
}
