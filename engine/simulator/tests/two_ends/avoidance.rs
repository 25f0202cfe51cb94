//! Broker avoidance in pretend time: three brokers, twelve partitions, keyless load from two senders,
//! and one broker that goes bad in every way it can.

use std::time::Duration;

use ringpost_broker::{ErrorCode, PartitionFault, Throttle};
use ringpost_core::health::{Reason, Standing};
use ringpost_core::id::{BrokerId, LaneId};
use ringpost_core::outcome::Verdict;
use ringpost_core::settings::Linger;
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

/// With three brokers alike, each of twelve lanes gets a twelfth of the choices, within 15 %.
#[test]
fn v3_when_all_are_equal_each_lane_gets_its_share() {
    let mut load = Load::new(Load::setup());
    let bytes = |load: &Load| -> Vec<usize> {
        let choices = load.senders.iter().flat_map(|sender| &sender.chosen);
        let mut counts = vec![0; LANES as usize];
        choices.for_each(|lane| counts[lane.index()] += 1);
        counts
    };
    load.run(ms(60_000));
    let counts = bytes(&load);
    let fair = counts.iter().sum::<usize>() / counts.len();
    for count in &counts {
        assert!(
            count * 100 > fair * 85 && count * 100 < fair * 115,
            "{counts:?}"
        );
    }
    assert_eq!(load.ejections(), 0);
    load.all_arrived();
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

/// What was bound to a dead broker's lanes before it was known, and never sent, is moved and stored
/// elsewhere, while the broker is still dead; nothing with a sequence or sent before moves.
#[test]
fn v7_only_what_was_never_sent_leaves_a_dead_broker() {
    let setup = Load::setup().settings(|s| s.request_timeout = ms(60_000));
    let mut load = Load::new(setup);
    load.run(ms(2_000));
    load.world.pause_node(2);
    load.run(ms(5_000));
    let moved = load.world.dispatcher.counters().moved;
    assert!(moved > 0, "batches waited behind it when it was ejected");
    load.run(ms(100));
    load.world.run_for(ms(500));
    // All that is left are requests the stopped broker has.
    let in_flight = load.world.unsettled();
    let asked: usize = load
        .world
        .requests
        .iter()
        .filter(|request| request.node == 2)
        .flat_map(ringpost_simulator::found::batches_of)
        .flat_map(|batch| batch.records)
        .filter(|(lane, number)| {
            let lane = u32::try_from(*lane).expect("few lanes");
            !load.world.outcomes.contains_key(&(lane, *number))
        })
        .count();
    assert!(in_flight > 0);
    assert_eq!(in_flight, asked);
    load.world.resume_node(2);
    load.all_arrived();
    let elsewhere = load.world.outcomes.iter();
    let elsewhere = elsewhere.filter(|((home, _), outcome)| outcome.lane.0 != *home);
    assert!(elsewhere.count() > 0);
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

/// At ten times the others' time a broker is not ejected, but gets under 5 % of the records, and its
/// third again after it is as fast as they are.
#[test]
fn v3_a_broker_ten_times_as_slow_gets_little_and_recovers() {
    let mut load = Load::new(Load::setup().network(|n| n.latency = ms(2)));
    load.run(ms(3_000));
    let slowed = load.world.now;
    load.world.slow.insert(2, ms(36));
    load.run(ms(20_000));
    let share = load.share(2, slowed + ms(1_000), load.world.now);
    assert!(share < 5, "{share} %");
    load.world.slow.clear();
    load.run(ms(20_000));
    assert_eq!(load.ejections(), 0, "it was only slow");
    let share = load.share_now(2, ms(20_000));
    assert!((25..42).contains(&share), "{share} %");
    load.all_arrived();
}

/// A broker that takes a second for each answer while the others take 1 ms is ejected as slow when
/// pinned records keep it busy; those are served all the same.
#[test]
fn v3_a_broker_much_slower_than_the_others_is_ejected_and_still_serves_what_must_go_there() {
    let mut load = Load::new(Load::setup());
    load.run(ms(3_000));
    load.world.slow.insert(2, ms(1_000));
    let lane = (0..LANES)
        .find(|lane| load.leader(LaneId(*lane)) == 2)
        .expect("it leads some");
    let mut ejected = false;
    for _ in 0..200 {
        load.world.append(lane, 100);
        load.run(ms(100));
        ejected |= load.standing(2) == (Standing::Avoided, Some(Reason::Slow));
    }
    assert!(ejected);
    let now = load.world.now;
    let served = load.world.outcomes.range((lane, 0)..(lane + 1, 0));
    let latest = served.map(|(_, outcome)| outcome.at).max().expect("some");
    assert!(latest > now - ms(2_000), "it is still served");
    load.world.slow.clear();
    load.run(ms(40_000));
    assert_eq!(load.standing(2).0, Standing::Good);
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

/// All brokers stop: none is ejected, records are still accepted for all, and everything arrives
/// after they go on.
#[test]
fn v4_when_all_brokers_are_silent_none_is_blamed() {
    let setup = Load::setup().settings(|s| s.request_timeout = ms(60_000));
    let mut load = Load::new(setup);
    load.run(ms(3_000));
    (1..=3).for_each(|node| load.world.pause_node(node));
    load.run(ms(10_000));
    assert_eq!(load.ejections(), 0);
    assert_eq!(load.world.dispatcher.counters().moved, 0);
    (1..=3).for_each(|node| load.world.resume_node(node));
    load.run(ms(1_000));
    load.all_arrived();
}

/// Two of three are silent, as leaders are whose follower is dead with `acks=all`: more than half, so
/// none is blamed.
#[test]
fn v6_a_dead_follower_that_holds_up_all_leaders_gets_nobody_ejected() {
    let setup = Load::setup().settings(|s| s.request_timeout = ms(30_000));
    let mut load = Load::new(setup);
    load.run(ms(3_000));
    load.world.slow.insert(1, ms(25_000));
    load.world.slow.insert(3, ms(25_000));
    load.world.pause_node(2);
    load.run(ms(20_000));
    assert_eq!(load.ejections(), 0);
    load.world.slow.clear();
    load.world.resume_node(2);
    load.run(ms(5_000));
    load.all_arrived();
}

/// The same for longer than a request may take: one leader's request times out before the other's and is
/// sent anew, and still nobody is blamed.
#[test]
fn v6_leaders_that_wait_longer_than_a_request_may_take_are_not_ejected() {
    let setup = Load::setup().settings(|s| s.request_timeout = ms(5_000));
    let mut load = Load::new(setup);
    load.run(ms(3_000));
    load.world.slow.insert(1, ms(60_000));
    load.run(ms(700));
    load.world.slow.insert(3, ms(60_000));
    load.world.pause_node(2);
    load.run(ms(20_000));
    assert_eq!(load.ejections(), 0);
    load.world.slow.clear();
    load.world.resume_node(2);
    load.run(ms(5_000));
    load.all_arrived();
}

/// Two leaders wait for a dead follower; one gives it up four seconds before the other, which is the only
/// silent one then, and is not ejected either.
#[test]
fn v6_leaders_give_up_a_dead_follower_one_after_the_other() {
    let mut setup = Setup::new(2).settings(|s| s.request_timeout = ms(60_000));
    setup.batch_bytes = 2_000;
    let mut load = Load::new(setup);
    load.run(ms(3_000));
    load.world.slow.insert(1, ms(10_000));
    load.world.slow.insert(2, ms(14_000));
    load.run(ms(500));
    load.world.slow.clear();
    load.run(ms(12_500));
    assert_eq!(load.standing(1), (Standing::Good, None));
    assert_eq!(load.ejections(), 0);
    load.run(ms(5_000));
    load.all_arrived();
}

/// The answers that both waited for come late and are many, and they are not held against the one that
/// gave its follower up last.
#[test]
fn v6_answers_that_all_waited_for_make_nobody_slow() {
    let mut setup = Setup::new(2).settings(|s| {
        s.request_timeout = ms(60_000);
        s.connections_per_broker = 4;
    });
    setup.batch_bytes = 2_000;
    let mut load = Load::new(setup);
    load.run(ms(3_000));
    load.world.slow.insert(1, ms(10_000));
    load.world.slow.insert(2, ms(14_000));
    load.run(ms(500));
    load.world.slow.clear();
    load.run(ms(15_000));
    assert_eq!(load.ejections(), 0);
    load.all_arrived();
}

/// A broker that told us to be quiet for five seconds reads nothing meanwhile: that it does not answer what
/// was sent before is no silence. And one that is idle then is not probed.
#[test]
fn v6_a_broker_that_throttles_us_is_neither_silent_nor_probed() {
    let quiet = |ms| Throttle { ms, enforced: true };
    let setup = Load::setup().settings(|s| s.linger = Linger::Auto { gap: us(0) });
    let mut load = Load::new(setup);
    load.run(ms(3_000));
    // Only what is pinned goes to broker 2: two requests, the second behind the first.
    let lane = (0..LANES).find(|lane| load.leader(LaneId(*lane)) == 2);
    let lane = lane.expect("it leads some");
    load.world.settle(ms(1_000));
    load.world
        .broker
        .faults()
        .throttle_client("ringpost", quiet(5_000));
    load.world.append(lane, 100);
    load.world.run_for(us(10));
    load.world.append(lane, 100);
    load.world.run_for(ms(100));
    load.world.broker.faults().heal();
    load.run(ms(4_500));
    assert_eq!(load.standing(2), (Standing::Good, None));
    assert_eq!(load.ejections(), 0);
    load.all_arrived();

    let setup = Setup::new(1).settings(|s| s.idle_probe = ms(2_000));
    let mut world = World::warm(setup, 1);
    let connected = world.connects.len();
    world
        .broker
        .faults()
        .throttle_client("ringpost", quiet(20_000));
    world.append(0, 100);
    world.run_for(ms(60_000));
    assert_eq!(world.connects.len(), connected);
    assert_eq!(world.dispatcher.counters().connection_failures, 0);
    world.check(true);
}

/// One broker only: it is never ejected, and recovery after its absence takes no longer than connecting.
#[test]
fn v4_a_single_broker_is_never_ejected() {
    let mut setup = Load::setup();
    setup.broker.nodes.truncate(1);
    let mut load = Load::new(setup);
    load.world.stop_node(1);
    load.run(ms(5_000));
    assert_eq!(load.ejections(), 0);
    load.world.start_node(1);
    load.world.settle(ms(2_000));
    load.all_arrived();
}

/// All brokers are down and come back: what was parked is stored, and they are not connected to all
/// at the same moment again and again.
#[test]
fn v4_all_down_and_back_parks_records_and_spreads_reconnects() {
    let mut load = Load::new(Load::setup());
    load.run(ms(2_000));
    (1..=3).for_each(|node| load.world.stop_node(node));
    load.world.connects.clear();
    load.run(ms(10_000));
    let connects: Vec<Time> = load.world.connects.iter().map(|c| c.0).collect();
    assert!(connects.len() < 120, "{}", connects.len());
    let mut distinct = connects.clone();
    distinct.dedup();
    assert!(distinct.len() * 2 > connects.len(), "{connects:?}");
    (1..=3).for_each(|node| load.world.start_node(node));
    load.run(ms(2_000));
    load.all_arrived();
}

/// A broker that is there for a second and gone for a second is ejected for longer and longer, so
/// records that could go elsewhere hardly meet it.
#[test]
fn v5_flapping_does_not_oscillate() {
    let mut load = Load::new(Load::setup());
    load.run(ms(2_000));
    let start = load.world.now;
    let mut changes = 0;
    let mut before = load.standing(2).0;
    for _ in 0..15 {
        load.world.stop_node(2);
        for _ in 0..2 {
            load.run(ms(500));
            let after = load.standing(2).0;
            changes += u32::from((after == Standing::Good) != (before == Standing::Good));
            before = after;
        }
        load.world.start_node(2);
        for _ in 0..2 {
            load.run(ms(500));
            let after = load.standing(2).0;
            changes += u32::from((after == Standing::Good) != (before == Standing::Good));
            before = after;
        }
    }
    let share = load.share(2, start + ms(10_000), load.world.now);
    assert!(share < 5, "{share} %");
    assert!(
        changes <= 8,
        "{changes} changes while it came and went 15 times"
    );
    // However long its last ejection is, it ends.
    load.run(ms(31_000));
    assert_eq!(load.standing(2).0, Standing::Good);
    load.all_arrived();
}

/// After an ejection the broker gets one small request first, then one more, and then a tenth of its
/// share: no herd.
#[test]
fn v5_recovery_begins_with_one_request_and_grows() {
    let mut load = Load::new(Load::setup());
    load.run(ms(3_000));
    load.world.stop_node(2);
    load.run(ms(5_000));
    load.world.start_node(2);
    load.world.slow.insert(2, ms(20));
    load.world.requests.clear();
    load.run(ms(3_000));
    let probes: Vec<_> = load
        .world
        .requests
        .iter()
        .filter(|request| request.node == 2)
        .take(2)
        .collect();
    assert!(probes[1].at >= probes[0].at + ms(20), "one at a time");
    for probe in &probes {
        assert_eq!(ringpost_simulator::found::batches_of(probe).len(), 1);
    }
    load.world.slow.clear();
    load.all_arrived();
}

/// Records that a broker refuses, rights that are missing, and throttling get nobody ejected or even
/// suspected.
#[test]
fn v6_poison_records_missing_rights_and_throttles_are_held_against_nobody() {
    for code in [
        ErrorCode::MESSAGE_TOO_LARGE,
        ErrorCode::INVALID_RECORD,
        ErrorCode::TOPIC_AUTHORIZATION_FAILED,
    ] {
        let mut load = Load::new(Load::setup());
        load.run(ms(1_000));
        for partition in 0..12 {
            if load.world.broker.leader("t", partition) == Some(2) {
                let fault = PartitionFault::ErrorBefore(code);
                load.world
                    .broker
                    .faults()
                    .every_batch("t", partition, fault);
            }
        }
        load.run(ms(5_000));
        assert_eq!(load.standing(2), (Standing::Good, None), "{code}");
        assert_eq!(load.ejections(), 0);
    }
    let mut load = Load::new(Load::setup());
    load.world.broker.faults().throttle_ms = 300;
    load.run(ms(10_000));
    assert_eq!(load.ejections(), 0);
    load.world.broker.faults().heal();
    load.all_arrived();
}

/// Our own process does not run for three seconds: nobody is blamed for the answers that lay there.
#[test]
fn v6_nobody_is_blamed_for_our_own_pause() {
    let mut load = Load::new(Load::setup());
    load.run(ms(3_000));
    // The network goes on, and its news wait for us.
    load.world.pause(ms(3_000));
    load.run(ms(100));
    assert_eq!(load.ejections(), 0);
    for broker in 1..=3 {
        assert_eq!(load.standing(broker), (Standing::Good, None));
    }
    load.all_arrived();
}

/// One of a hundred pieces lost, then five: acks of that broker take 200 ms more now and then, and it is
/// never taken for dead; all records arrive, and none of its connections ends.
#[test]
fn v9_a_few_lost_packets_make_a_broker_slower_and_not_dead() {
    let mut calm = 0;
    for percent in [0, 1, 5] {
        let mut load = Load::new(Load::setup());
        load.world.loss.insert(2, percent);
        let connected = load.world.connects.len();
        let mut waiting = 0;
        for _ in 0..50 {
            load.run(ms(100));
            waiting = waiting.max(load.world.unsettled());
            let (standing, reason) = load.standing(2);
            let slow = matches!(reason, None | Some(Reason::Slow));
            assert!(slow, "{percent} %: {standing:?} {reason:?}");
        }
        // Without loss only what came in the last few milliseconds waits.
        match percent {
            0 => calm = waiting,
            _ => assert!(waiting > 2 * calm, "{percent} %: {waiting}, and {calm}"),
        }
        let latest = load.world.outcomes.values().map(|o| o.at).max();
        assert!(latest.is_some_and(|at| load.world.now.since(at) < ms(500)));
        assert_eq!(load.world.connects.len(), connected, "{percent} %");
        load.all_arrived();
    }
}

/// A connection is lost every second, one broker's after the other's: nobody is kept out for that, and
/// everybody keeps a share.
#[test]
fn v9_a_few_lost_connections_do_not_make_a_broker_dead() {
    let mut load = Load::new(Load::setup());
    load.run(ms(2_000));
    let start = load.world.now;
    for n in 0..20 {
        let open = load.world.open_connections();
        let to = open.iter().filter(|conn| conn.slot != 0).nth(n % 3);
        if let Some(conn) = to {
            load.world.reset(*conn);
        }
        load.run(ms(1_000));
    }
    for broker in 1..=3 {
        let share = load.share(broker, start, load.world.now);
        assert!(share > 15, "{share} %");
    }
    load.all_arrived();
}

/// A leader that moves away from an ejected broker takes no mark along, and one that comes back to it
/// is not held up for longer than a probe takes.
#[test]
fn v9_leaders_that_move_leave_no_stale_mark() {
    let mut load = Load::new(Load::setup());
    load.run(ms(2_000));
    load.world.stop_node(2);
    load.run(ms(5_000));
    let moved: Vec<i32> = (0..12)
        .filter(|partition| load.world.broker.leader("t", *partition) == Some(2))
        .collect();
    for partition in &moved {
        load.world.broker.move_leader("t", *partition, 3);
    }
    load.world.directory.refresh();
    load.run(ms(1_500));
    let lanes = load.world.lanes_of("t");
    for partition in &moved {
        let lane = lanes[usize::try_from(*partition).expect("few")];
        let view = load.world.dispatcher.view_of(load.world.now, lane);
        assert_eq!(view.standing(), Standing::Good, "partition {partition}");
    }
    load.world.start_node(2);
    for partition in &moved {
        load.world.broker.move_leader("t", *partition, 2);
    }
    load.world.directory.refresh();
    load.run(ms(500));
    let lane = lanes[usize::try_from(moved[0]).expect("few")];
    let appended = load.world.now;
    let number = load.world.append(lane.0, 100);
    load.run(ms(3_000));
    let outcome = load.world.outcome(lane.0, number);
    assert!(
        outcome.at < appended + ms(2_500),
        "{:?}",
        outcome.at.since(appended)
    );
    load.all_arrived();
}

/// A broker that leaves the cluster is forgotten: its connection ends, and its place is the next one's.
#[test]
fn v9_a_broker_that_left_is_forgotten_and_its_place_used_again() {
    let mut load = Load::new(Load::setup());
    load.run(ms(500));
    let places = load.world.dispatcher.connection_count();
    load.world.stop_node(3);
    load.world.broker.set_node_up(3, false);
    for partition in 0..12 {
        if load.world.broker.leader("t", partition) == Some(3) {
            load.world.broker.move_leader("t", partition, 1);
        }
    }
    load.world.directory.refresh();
    load.run(ms(5_000));
    let known = |load: &Load| -> Vec<i32> {
        let brokers = load.world.dispatcher.health(load.world.now);
        brokers.map(|(id, _)| id.0).collect()
    };
    assert_eq!(known(&load), [1, 2]);
    load.world.broker.set_node_up(3, true);
    load.world.start_node(3);
    load.world.directory.refresh();
    load.run(ms(2_000));
    assert_eq!(known(&load).len(), 3);
    assert_eq!(load.world.dispatcher.connection_count(), places);
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

/// Another shard has all the traffic, and keeps it as long as this one's broker looks bad. One lane of the
/// broker asks for the records to probe it with, one at a time, and then it has its share again.
#[test]
fn v5_a_broker_is_probed_though_its_shard_gets_nothing_by_itself() {
    let setup = Load::setup().settings(|s| s.delivery_timeout = ms(3_000));
    let mut load = Load::new(setup);
    load.run(ms(1_000));
    load.world.stop_node(2);
    load.run(ms(3_000));
    load.world.settle(ms(4_000));
    assert_eq!(load.standing(2).0, Standing::Dead);
    load.world.start_node(2);
    load.world.run_for(ms(40_000));
    assert_eq!(load.standing(2).0, Standing::Suspect, "it is to be probed");
    let asking = |load: &Load| -> Vec<u32> {
        let good = |lane: &u32| {
            let view = load.world.views[*lane as usize];
            load.leader(LaneId(*lane)) == 2 && view.standing() == Standing::Good
        };
        (0..LANES).filter(good).collect()
    };
    for _probe in 0..2 {
        let lanes = asking(&load);
        assert_eq!(lanes.len(), 1, "{lanes:?}");
        let now = load.world.now;
        load.world.append_free(LaneId(lanes[0]), 100);
        load.world.step(now);
        assert_eq!(asking(&load), [], "one is enough");
        load.world.run_for(ms(100));
    }
    let weight = |load: &Load| {
        let views = (0..LANES).filter(|lane| load.leader(LaneId(*lane)) == 2);
        let views = views.map(|lane| load.world.views[lane as usize]);
        views.map(|view| (view.standing(), view.weight())).min()
    };
    let (standing, first) = weight(&load).expect("it leads lanes");
    assert!(standing == Standing::Good && first < 20, "{first} %");
    load.world.run_for(ms(2_500));
    let (_, half) = weight(&load).expect("it leads lanes");
    assert!((45..75).contains(&half), "{half} %");
    load.world.run_for(ms(3_000));
    assert_eq!(weight(&load), Some((Standing::Good, 100)));
    load.world.settle(ms(4_000));
    load.world.check(false);
}

/// A shard with a single broker, which stood still for 20 s and is well again: without any traffic its
/// lanes are told to be as cheap as any within the time an ejection and a slow start may take.
#[test]
fn v5_what_a_broker_did_is_forgotten_without_traffic() {
    let mut world = World::warm(Setup::new(1), 2);
    world.append(0, 100);
    world.run_for(ms(100));
    world.pause_node(1);
    world.append(0, 100);
    world.run_for(ms(20_000));
    assert!(world.views[0].standing() >= Standing::Suspect);
    let stalled = world.views[1].cost();
    assert!(stalled > 10_000_000, "{stalled} µs");
    world.resume_node(1);
    world.run_for(ms(21_000));
    let view = world.views[1];
    assert_eq!((view.standing(), view.weight()), (Standing::Good, 100));
    assert!(view.cost() < 4_000, "{} µs", view.cost());
    world.run_for(ms(10_000));
    assert!(world.dispatcher.next_deadline().since(world.now) > ms(1_000));
    assert!(world.all_acked());
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
