//! The scripts of `support::script`, played against the model in pretend time.

use bytes::Bytes;
use ringpost_broker::{
    Broker, BrokerConfig, Closed, Keep, Node, Progress, Replication, Session, TopicSpec,
};

use crate::support::NOW;
use crate::support::script::{A, B, C, Deed, Kafka, Part, Player, World, scripts};

/// The model, and a connection to each node.
struct Model {
    kafka: Kafka,
    broker: Broker,
    sessions: Vec<Session>,
    /// What each node has answered and nobody has read.
    answered: Vec<Vec<u8>>,
    now: i64,
}

fn index(part: Part) -> usize {
    match part {
        A => 0,
        B => 1,
        C => 2,
    }
}

impl Model {
    fn new(version: &str) -> Self {
        let kafka = Kafka::of(version);
        let node = |id| Node {
            id,
            host: format!("10.0.0.{id}"),
            port: 9092,
        };
        // As `tests/scripts_on_kafka.rs` sets real Kafka.
        let mut broker = Broker::new(BrokerConfig {
            nodes: (1..=3).map(node).collect(),
            keep: Keep::Everything,
            auto_create: false,
            producer_expiry_check_ms: 200,
            producer_id_load_ms: 5,
            replication: Replication {
                fetch_delay_ms: 1,
                lag_ms_max: 1_500,
                session_ms: 3_000,
                metadata_delay_ms: 2,
                commits_below_min_insync: kafka.before_37,
                ..Replication::default()
            },
            ..BrokerConfig::default()
        });
        broker.tick(NOW);
        let sessions = (1..=3).map(|id| broker.session(id)).collect();
        Self {
            kafka,
            broker,
            sessions,
            answered: vec![Vec::new(); 3],
            now: NOW,
        }
    }

    /// Lets a node answer what it can now. Says until when it holds the rest back.
    fn advance(&mut self, part: Part) -> Option<i64> {
        let at = index(part);
        let out = &mut self.answered[at];
        match self.sessions[at].advance(&mut self.broker, self.now, out) {
            Ok(Progress::Held { until_ms }) => Some(until_ms),
            Ok(Progress::NeedsBytes) => None,
            Ok(Progress::SendFirst) => unreachable!("answers are small here"),
            Err(Closed::NodeEnded) => None,
            Err(why) => panic!("the model ended a connection: {why}"),
        }
    }
}

impl World for Model {
    fn kafka(&self) -> Kafka {
        self.kafka
    }

    fn now_ms(&self) -> i64 {
        self.now
    }

    fn node_id(&self, part: Part) -> i32 {
        [1, 2, 3][index(part)]
    }

    fn exchange(&mut self, to: Part, frame: &[u8]) -> Bytes {
        self.send(to, frame);
        self.receive(to)
    }

    fn send(&mut self, to: Part, frame: &[u8]) {
        self.sessions[index(to)].receive(frame);
        self.advance(to);
    }

    fn receive(&mut self, from: Part) -> Bytes {
        loop {
            let until = self.advance(from);
            let answered = &mut self.answered[index(from)];
            if let Some(length) = answered.first_chunk() {
                let end = 4 + usize::try_from(i32::from_be_bytes(*length)).unwrap();
                return answered.drain(..end).collect::<Vec<_>>().into();
            }
            self.now = until.expect("an answer comes, or is held back");
        }
    }

    fn create(&mut self, topic: &str, copies: usize, min_insync: i32) {
        let spec = TopicSpec {
            partitions: 1,
            replication: i32::try_from(copies).ok(),
            min_insync: Some(min_insync),
            ..TopicSpec::default()
        };
        self.broker.create_topic_with(topic, &spec).unwrap();
    }

    fn act(&mut self, topic: &str, deed: Deed) {
        self.broker.tick(self.now);
        let id = |part| i32::try_from(index(part) + 1).unwrap();
        match deed {
            Deed::Lead(part) => assert!(self.broker.move_leader(topic, 0, id(part))),
            Deed::Pause(part) => self.broker.pause_node(id(part), true),
            Deed::Resume(part) => self.broker.pause_node(id(part), false),
            Deed::Kill(part) => self.broker.crash_node(id(part)),
            Deed::Start(part) => {
                self.broker.start_node(id(part));
                self.sessions[index(part)] = self.broker.session(id(part));
                self.answered[index(part)].clear();
            }
            Deed::DeleteRecords(before) => {
                let end = self
                    .broker
                    .partition_state(topic, 0)
                    .unwrap()
                    .high_watermark;
                let before = if before < 0 { end } else { before };
                assert!(self.broker.delete_records(topic, 0, before));
            }
            Deed::Recreate => {
                assert!(self.broker.delete_topic(topic));
                self.create(topic, 1, 1);
            }
            Deed::Grow(partitions) => self.broker.grow_topic(topic, partitions).unwrap(),
        }
    }

    fn pass(&mut self) {
        let next = self.broker.next_due_ms().unwrap_or(i64::MAX);
        self.now = next.min(self.now + 10).max(self.now + 1);
        self.broker.tick(self.now);
    }
}

/// Every script gives the answers written in it: the same that real Kafka gives
/// (`tests/scripts_on_kafka.rs`).
#[test]
fn i1_i2_i5_i9_i11_i12_m4_m5_n8_n9_the_model_plays_every_script_as_written() {
    let mut differences = Vec::new();
    for version in ["4.3.1", "3.9.1", "3.6.2"] {
        let mut model = Model::new(version);
        for script in scripts() {
            let mut player = Player::new(&mut model, &script, script.name.to_owned());
            player.play(&script);
            assert!(player.answers > 0);
            let words = |d: &String| format!("{version} {} {d}", script.name);
            differences.extend(player.differences.iter().map(words));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
