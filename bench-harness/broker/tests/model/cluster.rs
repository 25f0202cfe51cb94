//! Several nodes: copies, leaders, in-sync sets, what acks=all waits for, and what nodes believe.

use bytes::Bytes;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{InitProducerIdRequest, MetadataRequest, ProduceRequest};
use ringpost_broker::{
    Broker, BrokerConfig, Closed, ErrorCode, Keep, Node, Progress, Replication, Session, TopicSpec,
    UnknownProducer,
};
use ringpost_codec::reader::Reader;
use ringpost_codec::record_batch::BatchView;

use crate::support::{BatchOf, NOW, Produce, frame, read_answer, topic_name};

/// From an append until a follower has it.
const DELAY: i64 = 10;
const LAG: i64 = 1_000;
const SESSION: i64 = 500;
const TIMEOUT: i64 = 1_000; // of every Produce request, see `support`

fn config(min_insync: i32) -> BrokerConfig {
    let node = |id| Node {
        id,
        host: format!("10.0.0.{id}"),
        port: 9092,
    };
    BrokerConfig {
        nodes: (1..=3).map(node).collect(),
        keep: Keep::Everything,
        auto_create: false,
        replication: Replication {
            factor: 3,
            min_insync,
            fetch_delay_ms: DELAY,
            lag_ms_max: LAG,
            session_ms: SESSION,
            ..Replication::default()
        },
        ..BrokerConfig::default()
    }
}

/// A cluster with topic `t` of one partition, led by node 1, and a connection to each node.
struct Cluster {
    broker: Broker,
    sessions: Vec<Session>,
    now: i64,
    /// Of the latest request to each node.
    correlation_ids: [i32; 3],
}

impl Cluster {
    fn new(config: BrokerConfig) -> Self {
        let mut broker = Broker::new(config);
        broker.tick(NOW);
        broker.create_topic("t", 1).unwrap();
        let sessions = (1..=3).map(|id| broker.session(id)).collect();
        Self {
            broker,
            sessions,
            now: NOW,
            correlation_ids: [0; 3],
        }
    }

    fn reconnect(&mut self, node: usize) {
        self.sessions[node - 1] = self.broker.session(i32::try_from(node).unwrap());
    }

    /// Sends one batch to a node.
    fn send(&mut self, node: usize, acks: i16, batch: &BatchOf) {
        self.correlation_ids[node - 1] += 1;
        let request = Produce {
            version: 10,
            acks,
            topic: "t",
            topic_id: [0; 16],
            batches: vec![(0, batch.build())],
        };
        self.sessions[node - 1].receive(&request.by_codec(self.correlation_ids[node - 1]));
    }

    /// What a node has to say now.
    fn hear(&mut self, node: usize) -> (Bytes, Result<Progress, Closed>) {
        let mut out = Vec::new();
        let session = &mut self.sessions[node - 1];
        let progress = session.advance(&mut self.broker, self.now, &mut out);
        (out.into(), progress)
    }

    fn answer(&mut self, node: usize) -> Option<PartitionProduceResponse> {
        let (mut bytes, progress) = self.hear(node);
        progress.unwrap();
        if bytes.is_empty() {
            return None;
        }
        let mut answer =
            read_answer::<ProduceRequest>(&mut bytes, self.correlation_ids[node - 1], 10);
        assert!(bytes.is_empty());
        Some(answer.responses.remove(0).partition_responses.remove(0))
    }

    /// The answer that is there now: its code and offset.
    fn code(&mut self, node: usize) -> Option<(ErrorCode, i64)> {
        let answer = self.answer(node)?;
        Some((ErrorCode(answer.error_code), answer.base_offset))
    }

    /// Sends with acks=all and lets the followers come up: the answer.
    fn produce(&mut self, node: usize, batch: &BatchOf) -> Option<(ErrorCode, i64)> {
        self.send(node, -1, batch);
        if let Some(answer) = self.code(node) {
            return Some(answer);
        }
        self.wait(DELAY);
        self.code(node)
    }

    fn wait(&mut self, ms: i64) {
        self.now += ms;
        self.broker.tick(self.now);
    }

    fn isr(&self) -> Vec<i32> {
        self.broker.partition_state("t", 0).unwrap().isr
    }

    fn watermark(&self) -> i64 {
        self.broker.partition_state("t", 0).unwrap().high_watermark
    }

    /// Offsets, first sequences and counts of what a node's log holds.
    fn log(&self, node: i32) -> Vec<(i64, i32, i32)> {
        let log = self.broker.replica_log(node, "t", 0).unwrap();
        log.iter()
            .map(|b| (b.base_offset, b.base_sequence, b.records))
            .collect()
    }

    /// The same, of what was committed and is in no log any more.
    fn lost(&self) -> Vec<(i64, i32, i32)> {
        let bytes = self.broker.lost("t", 0);
        let mut reader = Reader::new(&bytes);
        let mut lost = Vec::new();
        while !reader.rest().is_empty() {
            let header = BatchView::read(&mut reader).unwrap().header;
            lost.push((
                header.base_offset,
                header.base_sequence,
                header.record_count,
            ));
        }
        lost
    }

    fn metadata(&mut self, node: usize) -> MetadataResponseTopic {
        let wanted = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
        let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
        self.sessions[node - 1].receive(&frame(77, 9, &request));
        let (mut bytes, progress) = self.hear(node);
        assert_eq!(progress, Ok(Progress::NeedsBytes));
        read_answer::<MetadataRequest>(&mut bytes, 77, 9)
            .topics
            .remove(0)
    }
}

fn batch(sequence: i32, records: usize) -> BatchOf {
    BatchOf::sequenced(7, 0, sequence, records)
}

const OK: ErrorCode = ErrorCode::NONE;

/// acks=0 and 1 are done at the leader; acks=all is answered when the in-sync set has the batch, and
/// only then do readers see it.
#[test]
fn a1_acks_all_is_answered_when_the_followers_have_it() {
    let mut c = Cluster::new(config(2));
    c.send(1, 1, &batch(0, 3));
    assert_eq!(c.code(1), Some((OK, 0)));
    assert_eq!((c.watermark(), c.log(1).len(), c.log(2).len()), (0, 1, 0));
    c.send(1, -1, &batch(3, 2));
    let (nothing, progress) = c.hear(1);
    assert!(nothing.is_empty());
    let until_ms = NOW + DELAY;
    assert_eq!(progress, Ok(Progress::Held { until_ms }));
    assert_eq!(c.broker.next_due_ms(), Some(until_ms));
    assert!(c.broker.committed("t", 0).is_empty());
    c.wait(DELAY);
    assert_eq!(c.code(1), Some((OK, 3)));
    assert_eq!(c.watermark(), 5);
    assert_eq!(c.log(2), c.log(1));
    assert_eq!(c.log(3), [(0, 0, 3), (3, 3, 2)]);
    assert_eq!(c.broker.committed("t", 0).len(), 2);
    c.send(1, 0, &batch(5, 1));
    assert_eq!(c.code(1), None);
    assert_eq!(c.log(1).len(), 3);
}

/// A stopped follower holds acks=all up until it is out of the in-sync set; when it is back, it
/// catches up and is in again.
#[test]
fn n8_a_stopped_follower_stalls_until_the_isr_shrinks_and_comes_back() {
    let mut c = Cluster::new(BrokerConfig {
        replication: Replication {
            session_ms: 1_000_000,
            ..config(2).replication
        },
        ..config(2)
    });
    assert_eq!(c.produce(1, &batch(0, 1)), Some((OK, 0)));
    c.broker.pause_node(3, true);
    c.send(1, -1, &batch(1, 1));
    assert_eq!(c.code(1), None);
    c.wait(LAG - 1);
    assert_eq!((c.code(1), c.isr()), (None, vec![1, 2, 3]));
    c.wait(1);
    assert_eq!((c.isr(), c.code(1)), (vec![1, 2], Some((OK, 1))));
    c.broker.pause_node(3, false);
    c.wait(DELAY);
    assert_eq!((c.isr(), c.log(3)), (vec![1, 2, 3], c.log(1)));
}

/// Fewer in sync than min.insync.replicas: refused before the append; what was appended before
/// times out, and is there when the followers are back.
#[test]
fn n8_too_few_in_sync_refuses_and_what_was_appended_times_out() {
    let mut c = Cluster::new(config(2));
    assert_eq!(c.produce(1, &batch(0, 1)), Some((OK, 0)));
    c.broker.set_link(1, 2, false);
    c.broker.set_link(1, 3, false);
    c.send(1, -1, &batch(1, 1));
    assert_eq!(c.code(1), None);
    c.wait(LAG);
    assert_eq!(c.isr(), [1]);
    assert_eq!(c.code(1).unwrap().0, ErrorCode::REQUEST_TIMED_OUT);
    assert_eq!(
        c.produce(1, &batch(2, 1)),
        Some((ErrorCode::NOT_ENOUGH_REPLICAS, -1))
    );
    assert_eq!((c.log(1).len(), c.watermark()), (2, 1));
    c.send(1, 1, &batch(2, 1));
    assert_eq!(c.code(1), Some((OK, 2)), "acks=1 asks nobody");
    c.broker.set_link(1, 2, true);
    c.broker.set_link(1, 3, true);
    c.wait(DELAY);
    assert_eq!((c.isr(), c.watermark()), (vec![1, 2, 3], 3));
    assert_eq!(
        c.produce(1, &batch(1, 1)),
        Some((OK, 1)),
        "the retry finds it"
    );
}

/// A leader dies while acks=all waits: the connection ends, the successor has what was replicated,
/// knows its producers, and the old leader cuts its tail off when it comes back.
#[test]
fn n9_a_crashed_leader_is_replaced_and_truncates_when_it_returns() {
    let mut c = Cluster::new(config(2));
    assert_eq!(c.produce(1, &batch(0, 2)), Some((OK, 0)));
    c.send(1, -1, &batch(2, 2));
    assert_eq!(c.code(1), None);
    c.broker.crash_node(1);
    assert_eq!(c.hear(1).1, Err(Closed::NodeEnded));
    assert_eq!(
        c.metadata(2).partitions[0].leader_id.0,
        1,
        "nobody knows yet"
    );
    c.wait(SESSION);
    let partition = c.metadata(2).partitions.remove(0);
    assert_eq!((partition.leader_id.0, partition.leader_epoch), (2, 1));
    assert_eq!(
        (c.isr(), c.log(2), c.log(1).len()),
        (vec![2, 3], vec![(0, 0, 2)], 2)
    );
    assert_eq!(
        c.produce(2, &batch(0, 2)),
        Some((OK, 0)),
        "a duplicate, recognised by the new leader"
    );
    assert_eq!(
        c.produce(2, &batch(2, 1)),
        Some((OK, 2)),
        "another batch than the lost one"
    );
    c.broker.start_node(1);
    c.wait(DELAY);
    assert_eq!((c.isr(), c.log(1)), (vec![1, 2, 3], c.log(2)));
    assert_eq!(c.broker.report().truncated, 2);
    assert_eq!(c.broker.report().truncated_committed, 0);
}

/// A leader that is moved while acks=all waits answers NOT_LEADER_OR_FOLLOWER with the new leader,
/// though the batch may be there.
#[test]
fn m10_waiting_answers_of_a_leader_that_was_moved_name_the_new_one() {
    let mut c = Cluster::new(config(2));
    c.send(1, -1, &batch(0, 1));
    assert_eq!(c.code(1), None);
    assert!(c.broker.move_leader("t", 0, 2));
    let answer = c.answer(1).unwrap();
    assert_eq!(answer.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER.0);
    c.send(1, -1, &batch(0, 1));
    let answer = c.answer(1).unwrap();
    assert_eq!(answer.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER.0);
    let leader = (
        answer.current_leader.leader_id.0,
        answer.current_leader.leader_epoch,
    );
    assert_eq!(leader, (2, 1));
    assert!(!c.broker.move_leader("t", 0, 9));
}

/// A node that has not heard that it was replaced takes acks=1 and keeps acks=all waiting; what it
/// took is gone when it has heard.
#[test]
fn i12_a_leader_that_has_not_heard_of_its_successor_loses_what_it_takes() {
    let mut c = Cluster::new(BrokerConfig {
        replication: Replication {
            metadata_delay_ms: 50,
            ..config(2).replication
        },
        ..config(2)
    });
    c.wait(50);
    assert_eq!(c.produce(1, &batch(0, 1)), Some((OK, 0)));
    assert!(c.broker.move_leader("t", 0, 2));
    assert_eq!(c.metadata(3).partitions[0].leader_id.0, 1);
    c.send(1, 1, &batch(1, 1));
    assert_eq!(c.code(1), Some((OK, 1)));
    c.send(1, -1, &batch(2, 1));
    assert_eq!(c.code(1), None);
    c.send(2, 1, &batch(1, 1));
    assert_eq!(
        c.code(2),
        Some((ErrorCode::NOT_LEADER_OR_FOLLOWER, -1)),
        "it has not heard either"
    );
    c.wait(50);
    assert_eq!(c.code(1).unwrap().0, ErrorCode::NOT_LEADER_OR_FOLLOWER);
    assert_eq!(c.produce(2, &batch(1, 4)), Some((OK, 1)));
    assert_eq!((c.log(1), c.log(3)), (c.log(2), c.log(2)));
}

/// A paused node takes bytes into a bounded buffer, answers nothing, and all of it later; it learns
/// then that it leads no longer.
#[test]
fn n9_a_paused_leader_answers_everything_when_it_goes_on() {
    let mut c = Cluster::new(config(2));
    assert_eq!(c.sessions[0].room(), usize::MAX);
    c.broker.pause_node(1, true);
    c.send(1, -1, &batch(0, 1));
    let until_ms = NOW + SESSION;
    assert_eq!(c.hear(1), (Bytes::new(), Ok(Progress::Held { until_ms })));
    let room = c.sessions[0].room();
    assert!((1..config(2).socket_buffer_bytes).contains(&room));
    c.wait(SESSION);
    assert_eq!(c.hear(1).0, Bytes::new());
    assert_eq!(c.metadata(2).partitions[0].leader_id.0, 2);
    c.broker.pause_node(1, false);
    assert_eq!(c.code(1), Some((ErrorCode::NOT_LEADER_OR_FOLLOWER, -1)));
    c.wait(DELAY);
    assert_eq!(c.isr(), [1, 2, 3]);
    // Paused for less than the controller's patience, it answers as if nothing had been.
    c.broker.pause_node(2, true);
    c.send(2, -1, &batch(0, 1));
    assert_eq!(c.hear(2).0, Bytes::new());
    c.wait(SESSION - 1);
    c.broker.pause_node(2, false);
    assert_eq!(c.code(2), None, "acks=all still waits for followers");
    c.wait(DELAY);
    assert_eq!(c.code(2), Some((OK, 0)));
}

/// Clean bounces one after the other lose nothing, and nobody who has the patience sees an error
/// but NOT_LEADER.
#[test]
fn n9_a_rolling_restart_moves_leaders_first() {
    let mut c = Cluster::new(config(2));
    for node in 1..=3 {
        let sequence = node - 1;
        c.broker.shutdown_node(node);
        let leader = c.broker.leader("t", 0).unwrap();
        assert!(leader > 0 && leader != node);
        let at = usize::try_from(leader).unwrap();
        assert_eq!(
            c.produce(at, &batch(sequence, 1)),
            Some((OK, i64::from(sequence)))
        );
        c.broker.start_node(node);
        c.reconnect(usize::try_from(node).unwrap());
        c.wait(DELAY);
        assert_eq!(c.isr(), [1, 2, 3]);
    }
    assert_eq!(c.log(1), [(0, 0, 1), (1, 1, 1), (2, 2, 1)]);
    assert_eq!((c.log(2), c.log(3)), (c.log(1), c.log(1)));
    c.broker.elect_preferred_leaders();
    assert_eq!(c.broker.leader("t", 0), Some(1));
}

/// A failed log directory answers KAFKA_STORAGE_ERROR where nobody else can lead, and moves the
/// leader where one can.
#[test]
fn n10_a_failed_log_dir_answers_storage_errors_or_moves_the_leader() {
    let mut c = Cluster::new(config(1));
    assert_eq!(c.produce(1, &batch(0, 1)), Some((OK, 0)));
    c.broker.hold_metadata(1, 20);
    c.broker.set_log_dir(1, false);
    assert_eq!(
        c.produce(1, &batch(1, 1)),
        Some((ErrorCode::KAFKA_STORAGE_ERROR, -1))
    );
    assert_eq!(c.produce(2, &batch(1, 1)), Some((OK, 1)));
    c.wait(20);
    assert_eq!(
        c.produce(1, &batch(2, 1)),
        Some((ErrorCode::NOT_LEADER_OR_FOLLOWER, -1))
    );
    c.broker.set_log_dir(1, true);
    c.wait(DELAY);
    assert_eq!((c.isr(), c.log(1)), (vec![1, 2, 3], c.log(2)));
    // One copy only: nobody can take over.
    let spec = TopicSpec {
        replication: Some(1),
        ..TopicSpec::default()
    };
    c.broker.delete_topic("t");
    c.broker.create_topic_with("t", &spec).unwrap();
    c.broker.set_log_dir(1, false);
    assert_eq!(
        c.produce(1, &batch(0, 1)),
        Some((ErrorCode::KAFKA_STORAGE_ERROR, -1))
    );
    c.broker.set_log_dir(1, true);
    assert_eq!(c.produce(1, &batch(0, 1)), Some((OK, 0)));
}

/// An unclean leader loses what it has not got, also what was acknowledged; the report says so.
#[test]
fn n9_an_unclean_election_loses_what_was_committed_and_says_so() {
    let mut c = Cluster::new(config(1));
    assert_eq!(c.produce(1, &batch(0, 1)), Some((OK, 0)));
    c.broker.crash_node(3);
    c.wait(SESSION);
    assert_eq!(c.produce(1, &batch(1, 2)), Some((OK, 1)));
    c.broker.crash_node(1);
    c.broker.crash_node(2);
    c.wait(SESSION);
    assert_eq!(c.broker.leader("t", 0), Some(-1));
    c.broker.start_node(3);
    c.reconnect(3);
    let partition = c.metadata(3).partitions.remove(0);
    assert_eq!(partition.leader_id.0, -1, "it was not in sync");
    assert_eq!(partition.error_code, ErrorCode::LEADER_NOT_AVAILABLE.0);
    assert!(c.broker.move_leader_uncleanly("t", 0, 3));
    assert_eq!(c.produce(3, &batch(1, 1)), Some((OK, 1)));
    c.broker.start_node(1);
    c.wait(DELAY);
    assert_eq!(c.log(1), [(0, 0, 1), (1, 1, 1)]);
    let report = c.broker.report();
    assert_eq!((report.truncated, report.truncated_committed), (2, 2));
    assert_eq!(c.lost(), [(1, 1, 2)]);
}

/// An election of a copy with another past loses what the two do not share, though it is no shorter;
/// a clean one loses nothing.
#[test]
fn n9_an_unclean_election_of_a_copy_as_long_loses_what_it_has_not() {
    let mut c = Cluster::new(config(1));
    assert_eq!(c.produce(1, &batch(0, 1)), Some((OK, 0)));
    assert!(c.broker.move_leader("t", 0, 2));
    assert_eq!(c.lost(), []);
    c.broker.crash_node(3);
    c.wait(SESSION);
    assert_eq!(c.produce(2, &batch(1, 2)), Some((OK, 1)));
    c.broker.crash_node(2);
    c.broker.crash_node(1);
    c.broker.start_node(3);
    c.reconnect(3);
    c.wait(SESSION);
    assert!(c.broker.move_leader_uncleanly("t", 0, 3));
    assert_eq!(c.produce(3, &batch(1, 2)), Some((OK, 1)));
    c.broker.crash_node(3);
    c.broker.start_node(2);
    c.wait(SESSION);
    assert!(c.broker.move_leader_uncleanly("t", 0, 2));
    assert_eq!(c.lost(), [(1, 1, 2), (1, 1, 2)]);
    assert_eq!(c.broker.report().truncated_committed, 4);
}

/// The power of the last node in sync fails: what nobody had written to disk is lost though it was
/// committed, and told of; with others in sync nothing is.
#[test]
fn n9_the_last_node_in_sync_loses_what_it_had_not_written() {
    let mut c = Cluster::new(config(1));
    assert_eq!(c.produce(1, &batch(0, 1)), Some((OK, 0)));
    c.broker.cut_power_unwritten(3, 5);
    c.wait(SESSION);
    assert_eq!(c.lost(), []);
    c.broker.crash_node(2);
    c.wait(SESSION);
    assert_eq!(c.isr(), [1]);
    assert_eq!(c.produce(1, &batch(1, 2)), Some((OK, 1)));
    assert_eq!(c.produce(1, &batch(3, 1)), Some((OK, 3)));
    c.broker.cut_power_unwritten(1, 1);
    assert_eq!(c.lost(), [(3, 3, 1)]);
    c.broker.start_node(1);
    c.reconnect(1);
    c.wait(SESSION);
    assert_eq!(c.broker.leader("t", 0), Some(1));
    assert_eq!(c.log(1), [(0, 0, 1), (1, 1, 2)]);
    assert_eq!(c.watermark(), 3);
    assert_eq!(c.produce(1, &batch(3, 1)), Some((OK, 3)));
}

/// What was committed in a topic that is deleted can still be compared with what clients were told.
#[test]
fn m5_the_log_of_a_deleted_topic_is_kept_for_checkers() {
    let mut c = Cluster::new(config(1));
    assert_eq!(c.produce(1, &batch(0, 2)), Some((OK, 0)));
    assert!(c.broker.delete_topic("t"));
    assert_eq!(c.lost(), [(0, 0, 2)]);
    c.broker.create_topic("t", 1).unwrap();
    assert_eq!(c.broker.log("t", 0), []);
    assert_eq!(c.lost(), [(0, 0, 2)]);
}

/// A node that has just started knows of no topic for a while.
#[test]
fn m6_a_restarted_node_knows_no_topics_for_a_while() {
    let mut c = Cluster::new(config(1));
    c.broker.forget_metadata(1, 30);
    let topic = c.metadata(1);
    assert_eq!(topic.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0);
    assert_eq!(
        c.produce(1, &batch(0, 1)),
        Some((ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, -1))
    );
    c.wait(30);
    assert_eq!(c.metadata(1).error_code, 0);
    assert_eq!(c.produce(1, &batch(0, 1)), Some((OK, 0)));
}

/// Power loss takes what was not committed, on the leader too.
#[test]
fn n9_lost_power_takes_only_what_was_not_committed() {
    let mut c = Cluster::new(config(2));
    assert_eq!(c.produce(1, &batch(0, 1)), Some((OK, 0)));
    c.send(1, 1, &batch(1, 3));
    assert_eq!(c.code(1), Some((OK, 1)));
    c.broker.cut_power(1);
    assert_eq!(c.log(1), [(0, 0, 1)]);
    c.wait(SESSION);
    c.broker.start_node(1);
    c.wait(DELAY);
    assert_eq!((c.isr(), c.watermark()), (vec![1, 2, 3], 1));
}

/// The timeout of the request ends the wait of acks=all; the batch stays.
#[test]
fn i5_acks_all_that_waits_too_long_times_out_after_the_append() {
    let mut c = Cluster::new(BrokerConfig {
        replication: Replication {
            lag_ms_max: 2 * TIMEOUT,
            ..config(2).replication
        },
        ..config(2)
    });
    c.broker.set_fetch_delay(3, Some(TIMEOUT + 5));
    c.send(1, -1, &batch(0, 2));
    assert_eq!(c.code(1), None);
    c.wait(TIMEOUT - 1);
    assert_eq!(c.code(1), None);
    c.wait(1);
    assert_eq!(c.code(1).unwrap().0, ErrorCode::REQUEST_TIMED_OUT);
    assert_eq!(c.log(1), [(0, 0, 2)]);
}

/// A node that is asked for its first producer id is loading for a while; so is one that was
/// started again.
#[test]
fn i11_a_node_has_no_producer_ids_at_first() {
    let mut c = Cluster::new(BrokerConfig {
        producer_id_load_ms: 5,
        ..config(1)
    });
    let ask = |c: &mut Cluster| {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        c.sessions[0].receive(&frame(3, 4, &request));
        let (mut bytes, _) = c.hear(1);
        let answer = read_answer::<InitProducerIdRequest>(&mut bytes, 3, 4);
        (ErrorCode(answer.error_code), answer.producer_id.0)
    };
    let loading = (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, -1);
    assert_eq!(ask(&mut c), loading);
    c.wait(4);
    assert_eq!(ask(&mut c), loading);
    c.wait(1);
    let (code, first) = ask(&mut c);
    assert_eq!(code, OK);
    assert_eq!(ask(&mut c), (OK, first + 1));
    c.broker.crash_node(1);
    c.broker.start_node(1);
    c.reconnect(1);
    assert_eq!(ask(&mut c), loading);
}

/// An old broker refuses a producer it does not know, unless it begins at 0; a new one takes it
/// (which the scripts show).
#[test]
fn i9_an_old_broker_refuses_unknown_producers() {
    let mut c = Cluster::new(BrokerConfig {
        unknown_producer: UnknownProducer::Refuse,
        ..config(1)
    });
    let unknown = Some((ErrorCode::UNKNOWN_PRODUCER_ID, -1));
    assert_eq!(c.produce(1, &batch(3, 1)), unknown);
    assert_eq!(c.produce(1, &batch(0, 1)), Some((OK, 0)));
    assert_eq!(c.produce(1, &batch(1, 1)), Some((OK, 1)));
}
