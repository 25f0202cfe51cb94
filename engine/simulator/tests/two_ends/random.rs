//! Seeded runs: random faults, then everything heals, and what was reported is compared with the
//! logs.

use std::time::Duration;

use ringpost_broker::{ApiKey, ErrorCode, PartitionFault, RequestFault};
use ringpost_core::id::LaneId;
use ringpost_core::outcome::Verdict;
use ringpost_core::random::Random;
use ringpost_core::settings::{Acks, Linger};
use ringpost_core::time::Time;

use ringpost_simulator::setup::{Setup, ms, us};
use ringpost_simulator::world::{Tamper, World};

const SEEDS: u64 = 300;

/// The seeds to run: the usual ones, `RINGPOST_SEEDS` many, or `RINGPOST_SEED` alone.
fn seeds() -> Vec<u64> {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    match number("RINGPOST_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("RINGPOST_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

/// Prints the seed when the run panics.
struct Repeat(u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "repeat with: RINGPOST_SEED={} cargo test -p ringpost-simulator --test two_ends random",
                self.0
            );
        }
    }
}

/// How likely each fault is, in 1 of so many steps; 0 is never.
#[derive(Debug)]
struct Swarm {
    reset: usize,
    cut: usize,
    hang_up: usize,
    batch: usize,
    request: usize,
    leader: usize,
    busy: usize,
    mute: usize,
    stop: usize,
    throttle: usize,
    idempotent: bool,
}

impl Swarm {
    fn draw(random: &mut Random) -> Self {
        let mut odds = || match random.below(3) {
            0 => 0,
            1 => 10,
            _ => 60,
        };
        Self {
            reset: odds(),
            cut: odds(),
            hang_up: odds(),
            batch: odds(),
            request: odds(),
            leader: odds(),
            busy: odds(),
            mute: odds() * 3,
            stop: odds() * 3,
            throttle: odds(),
            idempotent: random.below(4) != 0,
        }
    }
}

fn hits(random: &mut Random, odds: usize) -> bool {
    odds > 0 && random.below(odds) == 0
}

fn run(seed: u64) -> World {
    let _repeat = Repeat(seed);
    let mut random = Random::new(seed ^ 0x5eed);
    let swarm = Swarm::draw(&mut random);
    let mut setup = Setup::new(3).settings(|s| {
        s.idempotent = swarm.idempotent;
        s.in_flight_max = 1 + random.below(5);
        s.linger = match random.below(3) {
            0 => Linger::Auto { gap: us(500) },
            1 => Linger::Auto {
                gap: Duration::ZERO,
            },
            _ => Linger::Fixed(ms(2)),
        };
        s.request_timeout = ms(500);
        s.connect_timeout = ms(1_000);
        s.delivery_timeout = ms([2_000, 20_000][random.below(2)]);
        s.connections_per_broker = 1 + random.below(2);
        s.request_bytes_max = [4_000, 1 << 20][random.below(2)];
        if !s.idempotent {
            s.acks = [Acks::All, Acks::Leader, Acks::None][random.below(3)];
        }
        s.retry.attempts_max = [None, None, Some(3)][random.below(3)];
    });
    setup.seed = seed;
    setup.batch_bytes = [300, 3_000][random.below(2)];
    setup.directory.connect_timeout = ms(1_000);
    setup.directory.request_timeout = ms(500);
    setup.network.latency = us([50, 500, 5_000][random.below(3)]);
    setup.network.jitter = us([0, 2_000][random.below(2)]);
    setup.network.fragment = [0, 0, 100][random.below(3)];
    setup.network.send_chunk = [0, 0, 77][random.below(3)];
    let newest = [3, 7, 9, 12, 13, 13][random.below(6)];
    let versions = setup.broker.versions.clone();
    setup.broker.versions = versions.with(ApiKey::Produce, 0, newest);
    let mut world = World::with_topic(setup, "t", 4);
    let steps = 80;
    let mut faults = 0;
    for _ in 0..steps {
        for _ in 0..random.below(4) {
            let lane = u32::try_from(random.below(4)).expect("few");
            world.append(lane, 20 + random.below(200));
        }
        world.run_for(us(random.below(3_000) as u64));
        let before = faults;
        if hits(&mut random, swarm.reset) {
            let open = world.open_connections();
            if !open.is_empty() {
                world.reset(open[random.below(open.len())]);
                faults += 1;
            }
        }
        if hits(&mut random, swarm.cut) {
            world.cut_next_request = Some(random.below(1_000));
            faults += 1;
        }
        if hits(&mut random, swarm.hang_up) {
            world.hang_up(1 + i32::try_from(random.below(3)).expect("few"));
            faults += 1;
        }
        if hits(&mut random, swarm.batch) {
            let codes = [
                ErrorCode::NOT_ENOUGH_REPLICAS,
                ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
                ErrorCode::REQUEST_TIMED_OUT,
                ErrorCode::NOT_LEADER_OR_FOLLOWER,
                ErrorCode::CORRUPT_MESSAGE,
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                ErrorCode::MESSAGE_TOO_LARGE,
                ErrorCode::UNKNOWN_PRODUCER_ID,
            ];
            let code = random.below(codes.len());
            let fault = match random.below(4) {
                // Only these may follow an append.
                0 => PartitionFault::ErrorAfter(codes[1 + random.below(3)]),
                1 => PartitionFault::OmitBefore,
                2 => PartitionFault::OmitAfter,
                _ => PartitionFault::ErrorBefore(codes[code]),
            };
            let partition = i32::try_from(random.below(4)).expect("few");
            world.broker.faults().next_batch("t", partition, fault);
            faults += 1;
        }
        if hits(&mut random, swarm.request) {
            let fault = [
                RequestFault::CloseBefore,
                RequestFault::CloseAfter,
                RequestFault::CutAnswer(random.below(40)),
                RequestFault::Ignore,
                RequestFault::Silence,
                RequestFault::Delay(30),
            ][random.below(6)];
            let api = [ApiKey::Produce, ApiKey::Metadata, ApiKey::ApiVersions][random.below(3)];
            world.broker.faults().next_request(api, Some(fault));
            faults += 1;
        }
        if hits(&mut random, swarm.leader) {
            let partition = i32::try_from(random.below(4)).expect("few");
            let node = 1 + i32::try_from(random.below(3)).expect("few");
            world.broker.move_leader("t", partition, node);
            faults += 1;
        }
        if hits(&mut random, swarm.busy) {
            world.lanes.busy += 1 + u32::try_from(random.below(5)).expect("few");
            world.lanes.no_slab += u32::try_from(random.below(2)).expect("few");
        }
        if hits(&mut random, swarm.busy) {
            let lane = u32::try_from(random.below(4)).expect("few");
            world.lanes.flush(LaneId(lane));
        }
        if hits(&mut random, swarm.throttle) {
            world.broker.faults().throttle_ms = i32::try_from(random.below(30)).expect("few");
        }
        if hits(&mut random, swarm.mute) {
            world
                .mute
                .insert(1 + i32::try_from(random.below(3)).expect("few"));
            world.run_for(ms(700));
            world.mute.clear();
            faults += 1;
        }
        if hits(&mut random, swarm.stop) {
            let node = 1 + i32::try_from(random.below(3)).expect("few");
            world.stop_node(node);
            world.broker.set_node_up(node, false);
            world.run_for(ms(200));
            world.broker.set_node_up(node, true);
            world.start_node(node);
            faults += 1;
        }
        if faults > before && random.below(3) == 0 {
            // A quiet gap, so that the cluster can recover.
            world.run_for(ms(300));
        }
    }
    world.broker.faults().heal();
    world.cut_next_request = None;
    world.settle(ms(60_000));
    world.check(swarm.idempotent);
    let unknown = world.count(|verdict| matches!(verdict, Verdict::Unknown(_)));
    let is_good = |verdict: &Verdict| matches!(verdict, Verdict::Acked { .. } | Verdict::Sent);
    if faults == 0 {
        assert_eq!(world.count(is_good), world.outcomes.len(), "{swarm:?}");
    }
    assert!(unknown <= faults * 60, "{unknown} unknown, {faults} faults");
    // Alive again: what comes now is stored at once.
    world.run_for(ms(3_000));
    let before = world.count(is_good);
    for lane in 0..4 {
        world.append(lane, 50);
    }
    world.settle(ms(500));
    assert_eq!(world.count(is_good), before + 4);
    world.check(swarm.idempotent);
    let largest = world.requests.iter().map(|r| r.bytes.len()).max();
    assert!(largest.unwrap_or(0) <= 1 << 20);
    world
}

#[test]
fn random_faults_then_healing_leave_every_record_settled_once_and_the_logs_as_reported() {
    for seed in seeds() {
        run(seed);
    }
}

#[test]
fn random_damage_to_answers_settles_every_record_and_breaks_nothing() {
    for seed in 0..150 {
        let _repeat = Repeat(seed);
        let setup = Setup::new(2).settings(|s| {
            s.request_timeout = ms(300);
            s.connect_timeout = ms(300);
            s.delivery_timeout = ms(3_000);
        });
        let mut world = World::with_topic(setup, "t", 3);
        let mut random = Random::new(seed);
        let mut dice = Random::new(seed ^ 0xdead);
        world.tamper = Tamper::with(move |answer| {
            let at = dice.below(answer.len());
            let byte = u8::try_from(dice.below(256)).expect("a byte");
            match dice.below(12) {
                0 => answer[at] ^= 1 << (byte % 8),
                1 => answer[at] = byte,
                2 => answer.truncate(at),
                3 => answer.extend_from_within(at..),
                4 => answer.insert(at, byte),
                5 => answer[at..].fill(byte),
                _ => {}
            }
        });
        for _ in 0..60 {
            for lane in 0..3 {
                world.append(lane, 20 + random.below(300));
            }
            world.run_for(us(random.below(20_000) as u64));
            if let Some(conn) = world.open_connections().last() {
                let len = random.below(30);
                let bytes: Vec<u8> = (0..len).map(|_| random.draw().to_le_bytes()[0]).collect();
                if random.below(10) == 0 {
                    world.inject(*conn, &bytes);
                }
            }
        }
        world.tamper = None;
        // What is damaged can make us wait for bytes that do not come, or be quiet for a minute.
        world.settle(ms(10_000));
        world.run_for(ms(70_000));
        for lane in 0..3 {
            world.append(lane, 50);
        }
        world.settle(ms(2_500));
        let alive = (0..3).filter(|lane| {
            let last = world.lanes.lanes[*lane as usize].appended() - 1;
            world.is_acked(*lane, last)
        });
        assert_eq!(alive.count(), 3);
    }
}

#[test]
fn random_runs_with_one_seed_are_the_same() {
    let trace = |seed| {
        let world = run(seed);
        let requests = world.requests.into_iter().map(|r| (r.at, r.conn, r.bytes));
        let ends: Vec<Time> = world.outcomes.values().map(|o| o.at).collect();
        (requests.collect::<Vec<_>>(), ends)
    };
    assert_eq!(trace(7), trace(7));
}
