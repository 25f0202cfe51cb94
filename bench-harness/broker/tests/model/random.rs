//! The model against itself: random faults, a careful producer, and what a cluster without unclean
//! elections owes it.

use std::collections::BTreeMap;

use kafka_protocol::messages::ProduceRequest;
use ringpost_broker::{
    Broker, BrokerConfig, Closed, ErrorCode, Keep, Node, Replication, Session, TopicSpec,
};

use crate::support::{BatchOf, NOW, Produce, read_answer};

const NODES: i32 = 3;
const PARTITIONS: i32 = 2;
const SEEDS: u64 = 40;
const STEPS: usize = 400;

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }

    fn ms(&mut self, n: u64) -> i64 {
        i64::try_from(self.below(n)).unwrap()
    }

    fn node(&mut self) -> i32 {
        i32::try_from(self.below(3)).unwrap() + 1
    }

    fn chance(&mut self, in_a_hundred: u64) -> bool {
        self.below(100) < in_a_hundred
    }
}

/// A batch in flight.
struct Flight {
    node: i32,
    session: Session,
    correlation_id: i32,
    out: Vec<u8>,
}

/// Sends one batch at a time, and again until it is acknowledged.
#[derive(Default)]
struct Producer {
    sequence: i32,
    records: usize,
    flight: Option<Flight>,
    acked: BTreeMap<i64, (i32, usize)>,
    correlation_id: i32,
}

struct World {
    seed: u64,
    random: Random,
    broker: Broker,
    producers: Vec<Producer>,
    now: i64,
    highest: Vec<i64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let node = |id| Node {
            id,
            host: format!("10.0.0.{id}"),
            port: 9092,
        };
        let mut broker = Broker::new(BrokerConfig {
            nodes: (1..=NODES).map(node).collect(),
            keep: Keep::Everything,
            seed,
            replication: Replication {
                factor: 3,
                min_insync: i32::try_from(random.below(3)).unwrap() + 1,
                fetch_delay_ms: random.ms(20),
                lag_ms_max: 50 + random.ms(300),
                session_ms: 20 + random.ms(200),
                metadata_delay_ms: random.ms(3) * random.ms(20),
                commits_below_min_insync: random.chance(30),
                ..Replication::default()
            },
            ..BrokerConfig::default()
        });
        broker.tick(NOW);
        let spec = TopicSpec {
            partitions: PARTITIONS,
            ..TopicSpec::default()
        };
        broker.create_topic_with("t", &spec).unwrap();
        Self {
            seed,
            random,
            broker,
            producers: (0..PARTITIONS).map(|_| Producer::default()).collect(),
            now: NOW,
            highest: vec![0; usize::try_from(PARTITIONS).unwrap()],
        }
    }

    fn send(&mut self, index: usize) {
        let partition = i32::try_from(index).unwrap();
        let leader = self.broker.leader("t", partition).unwrap();
        let producer = &mut self.producers[index];
        let node = match self.random.chance(80) && leader > 0 {
            true => leader,
            false => self.random.node(),
        };
        if producer.records == 0 {
            producer.records = 1 + usize::try_from(self.random.below(3)).unwrap();
        }
        producer.correlation_id += 1;
        let id = i64::from(partition) + 1;
        let batch = BatchOf::sequenced(id, 0, producer.sequence, producer.records);
        let request = Produce {
            version: 10,
            acks: -1,
            topic: "t",
            topic_id: [0; 16],
            batches: vec![(partition, batch.build())],
        };
        let mut session = self.broker.session(node);
        let timeout_ms = 20 + i32::try_from(self.random.below(300)).unwrap();
        session.receive(&request.by_codec_waiting(producer.correlation_id, timeout_ms));
        producer.flight = Some(Flight {
            node,
            session,
            correlation_id: producer.correlation_id,
            out: Vec::new(),
        });
    }

    fn look(&mut self, index: usize) {
        let producer = &mut self.producers[index];
        let Some(flight) = &mut producer.flight else {
            return self.send(index);
        };
        let progress = flight
            .session
            .advance(&mut self.broker, self.now, &mut flight.out);
        if progress == Err(Closed::NodeEnded) {
            producer.flight = None;
            return;
        }
        assert!(progress.is_ok(), "seed {}: {progress:?}", self.seed);
        if flight.out.is_empty() {
            return;
        }
        let mut bytes = std::mem::take(&mut flight.out).into();
        let answer = read_answer::<ProduceRequest>(&mut bytes, flight.correlation_id, 10);
        let node = flight.node;
        producer.flight = None;
        let answer = &answer.responses[0].partition_responses[0];
        match ErrorCode(answer.error_code) {
            ErrorCode::NONE => {
                let batch = (producer.sequence, producer.records);
                let before = producer.acked.insert(answer.base_offset, batch);
                assert_eq!(before, None, "seed {}", self.seed);
                producer.sequence += i32::try_from(producer.records).unwrap();
                producer.records = 0;
            }
            ErrorCode::NOT_LEADER_OR_FOLLOWER
            | ErrorCode::NOT_ENOUGH_REPLICAS
            | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
            | ErrorCode::REQUEST_TIMED_OUT
            | ErrorCode::KAFKA_STORAGE_ERROR
            | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {}
            // A former leader that has not heard of its successor lacks what that one has.
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
                if self.broker.leader("t", i32::try_from(index).unwrap()) != Some(node) => {}
            other => panic!("seed {}: {other:?}", self.seed),
        }
    }

    fn hurt(&mut self) {
        let (node, other) = (self.random.node(), self.random.node());
        let partition = i32::try_from(self.random.below(2)).unwrap();
        let yes = self.random.chance(50);
        match self.random.below(13) {
            0 => self.broker.crash_node(node),
            1 => self.broker.cut_power(node),
            2 => self.broker.shutdown_node(node),
            3 | 4 => self.broker.start_node(node),
            5 => self.broker.pause_node(node, yes),
            6 if node != other => self.broker.set_link(node, other, yes),
            7 => self.broker.set_controller_link(node, yes),
            8 => self.broker.set_log_dir(node, yes),
            9 => {
                let delay = self.random.ms(100);
                self.broker.set_fetch_delay(node, yes.then_some(delay));
            }
            10 => {
                let _ = self.broker.move_leader("t", partition, node);
            }
            11 => {
                let for_ms = self.random.ms(100);
                self.broker.hold_metadata(node, for_ms);
            }
            12 => self.broker.elect_preferred_leaders(),
            _ => {}
        }
    }

    /// What holds at every moment.
    fn check(&mut self) {
        let closely = self.random.chance(10);
        for (partition, highest) in (0..).zip(&mut self.highest) {
            let state = self.broker.partition_state("t", partition).unwrap();
            let seed = self.seed;
            assert!(!state.isr.is_empty(), "seed {seed}: {state:?}");
            assert!(state.isr.iter().all(|n| state.replicas.contains(n)));
            if state.leader > 0 {
                assert!(state.isr.contains(&state.leader), "seed {seed}: {state:?}");
                let end = state.log_ends[&state.leader];
                assert!(state.high_watermark <= end, "seed {seed}: {state:?}");
            }
            assert!(state.high_watermark >= *highest, "seed {seed}: {state:?}");
            *highest = state.high_watermark;
            if closely {
                let committed = self.broker.committed("t", partition);
                for node in &state.isr {
                    let log = self.broker.replica_log(*node, "t", partition).unwrap();
                    let there = log.get(..committed.len());
                    assert_eq!(there, Some(&committed[..]), "seed {seed}: {state:?}");
                }
            }
        }
    }

    fn step(&mut self) {
        self.now += self.random.ms(15);
        self.broker.tick(self.now);
        for index in 0..self.producers.len() {
            if self.random.chance(60) {
                self.look(index);
            }
        }
        self.check();
    }

    /// Everything works again, and everything is settled.
    fn converge(&mut self) {
        self.broker.heal();
        for _ in 0..200 {
            self.step();
        }
        let seed = self.seed;
        for (partition, producer) in (0..).zip(&self.producers) {
            let state = self.broker.partition_state("t", partition).unwrap();
            assert_eq!(state.isr.len(), 3, "seed {seed}: {state:?}");
            assert!(
                producer.acked.len() > 5,
                "seed {seed}: nothing gets through"
            );
            let committed = self.broker.committed("t", partition);
            let found: BTreeMap<i64, (i32, usize)> = committed
                .iter()
                .map(|b| {
                    (
                        b.base_offset,
                        (b.base_sequence, b.records.unsigned_abs() as usize),
                    )
                })
                .collect();
            for (offset, batch) in &producer.acked {
                assert_eq!(found.get(offset), Some(batch), "seed {seed}: acknowledged");
            }
            let mut next = (0, 0);
            for batch in &committed {
                assert_eq!(
                    (batch.base_offset, batch.base_sequence),
                    next,
                    "seed {seed}"
                );
                next.0 += i64::from(batch.records);
                next.1 += batch.records;
            }
            assert_eq!(next.0, state.high_watermark, "seed {seed}");
            for node in 1..=NODES {
                let log = self.broker.replica_log(node, "t", partition).unwrap();
                let shared = log.len().min(committed.len());
                assert_eq!(log[..shared], committed[..shared], "seed {seed}");
            }
        }
        assert_eq!(self.broker.report().truncated_committed, 0, "seed {seed}");
    }
}

/// Whatever happens to nodes and links, with clean elections: what was acknowledged with acks=all is
/// committed at its offset, once, in order; all in sync hold what is committed; the high watermark never falls; healed, all copies are in
/// sync and alike.
#[test]
fn n9_n8_n10_a_cluster_with_clean_elections_keeps_what_it_acknowledged() {
    let mut truncated = 0;
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            if world.random.chance(12) {
                world.hurt();
            }
            world.step();
        }
        world.converge();
        truncated += world.broker.report().truncated;
    }
    assert!(
        truncated > 0,
        "no run cut a tail off: the faults are too tame"
    );
}
