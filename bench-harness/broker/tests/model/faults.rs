//! The script of faults: each kind does what it says, once, and everything works afterwards.

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{InitProducerIdRequest, MetadataRequest, ProduceRequest};
use ringpost_broker::{
    ApiKey, BrokerConfig, Closed, ErrorCode, Node, PartitionFault, Progress, RequestFault, Throttle,
};

use crate::support::{BatchOf, Client, NOW, Produce, frame, read_answer, topic_name};

fn client() -> Client {
    Client::with_topic(BrokerConfig::default(), 2)
}

fn batch() -> Vec<u8> {
    BatchOf::records(1).build()
}

fn produce_frame(version: i16, id: i32) -> Vec<u8> {
    let batches = vec![(0, batch())];
    Produce {
        version,
        acks: -1,
        topic: "t",
        topic_id: [0; 16],
        batches,
    }
    .by_codec(id)
}

#[test]
fn an_error_before_leaves_nothing_and_one_after_leaves_the_batch() {
    let mut c = client();
    let code = ErrorCode::NOT_ENOUGH_REPLICAS;
    c.broker
        .faults()
        .next_batch("t", 0, PartitionFault::ErrorBefore(code));
    c.broker.faults().next_batch("t", 0, None);
    c.broker
        .faults()
        .next_batch("t", 0, PartitionFault::ErrorAfter(code));
    let answers = c.produce(vec![(0, batch()), (1, batch())]);
    assert_eq!(
        (answers[0].error_code, answers[0].base_offset),
        (code.0, -1)
    );
    assert_eq!(answers[1].error_code, 0, "the neighbour is spared");
    assert_eq!(c.broker.report().next_offset("t", 0), Some(0));
    assert_eq!(c.produce_one(&BatchOf::records(1)), (ErrorCode::NONE, 0));
    assert_eq!(c.produce_one(&BatchOf::records(1)), (code, 1));
    assert_eq!(c.broker.report().next_offset("t", 0), Some(2));
    assert_eq!(c.produce_one(&BatchOf::records(1)), (ErrorCode::NONE, 2));
}

#[test]
fn a_partition_can_be_left_out_of_the_answer() {
    let mut c = client();
    c.broker
        .faults()
        .next_batch("t", 0, PartitionFault::OmitBefore);
    c.broker
        .faults()
        .next_batch("t", 0, PartitionFault::OmitAfter);
    for written in [0, 1] {
        let answers = c.produce(vec![(0, batch()), (1, batch())]);
        assert_eq!(answers.iter().map(|a| a.index).collect::<Vec<_>>(), [1]);
        assert_eq!(c.broker.report().next_offset("t", 0), Some(written));
    }
}

#[test]
fn a_moved_partition_names_its_leader_from_v10_on() {
    let node = |id| Node {
        id,
        host: format!("host{id}"),
        port: 9000,
    };
    for version in 3..=12 {
        let nodes = vec![node(1), node(2)];
        let mut c = Client::with_topic(
            BrokerConfig {
                nodes,
                ..BrokerConfig::default()
            },
            1,
        );
        let moved = PartitionFault::Moved {
            leader_id: 2,
            leader_epoch: 9,
        };
        c.broker.faults().next_batch("t", 0, moved);
        let (mut answer, _) = c.send(&produce_frame(version, 1), NOW);
        let answer = read_answer::<ProduceRequest>(&mut answer, 1, version);
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER.0);
        let leader = (
            partition.current_leader.leader_id.0,
            partition.current_leader.leader_epoch,
        );
        assert_eq!(leader, if version >= 10 { (2, 9) } else { (-1, -1) });
        assert_eq!(answer.node_endpoints.len(), usize::from(version >= 10));
        // The same by really moving it.
        c.broker.move_leader("t", 0, 2);
        assert_eq!(c.broker.leader("t", 0), Some(2));
        let answer = c.produce_in(version, vec![(0, batch())]);
        assert_eq!(answer[0].error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER.0);
        assert_eq!(c.broker.report().records, 0);
    }
}

#[test]
fn a_fault_for_every_batch_lasts_until_healed() {
    let mut c = client();
    let code = ErrorCode::KAFKA_STORAGE_ERROR;
    c.broker
        .faults()
        .every_batch("t", 0, PartitionFault::ErrorBefore(code));
    for _ in 0..3 {
        assert_eq!(c.produce_one(&BatchOf::records(1)).0, code);
    }
    c.broker.faults().heal();
    assert_eq!(c.produce_one(&BatchOf::records(1)).0, ErrorCode::NONE);
}

#[test]
fn connections_end_before_after_and_within_an_answer() {
    for (fault, answered, written) in [
        (RequestFault::CloseBefore, 0, 0),
        (RequestFault::CloseAfter, 0, 1),
        (RequestFault::CutAnswer(7), 7, 1),
        (RequestFault::CutAnswer(10_000), 50, 1),
    ] {
        let mut c = client();
        c.broker.faults().next_request(ApiKey::Produce, Some(fault));
        let (answer, progress) = c.send(&produce_frame(8, 1), NOW);
        assert_eq!(progress, Err(Closed::Scripted));
        assert!(
            answer.len() == answered || answered == 50 && answer.len() > 40,
            "{fault:?}"
        );
        assert_eq!(c.broker.report().records, written, "{fault:?}");
        c.session = c.broker.session(1);
        assert_eq!(c.produce_one(&BatchOf::records(1)).0, ErrorCode::NONE);
    }
}

#[test]
fn answers_can_be_kept_to_oneself() {
    for (fault, written) in [(RequestFault::Ignore, 0), (RequestFault::Silence, 1)] {
        let mut c = client();
        c.broker.faults().next_request(ApiKey::Produce, Some(fault));
        let (answer, progress) = c.send(&produce_frame(9, 1), NOW);
        assert!(answer.is_empty());
        assert_eq!(progress, Ok(Progress::NeedsBytes));
        assert_eq!(c.broker.report().records, written);
        assert_eq!(
            c.produce_one(&BatchOf::records(1)).0,
            ErrorCode::NONE,
            "the next is answered"
        );
    }
}

#[test]
fn a_delayed_answer_holds_back_those_behind_it() {
    let mut c = client();
    c.broker
        .faults()
        .next_request(ApiKey::Produce, Some(RequestFault::Delay(300)));
    let both = [produce_frame(9, 1), produce_frame(9, 2)].concat();
    let (answer, progress) = c.send(&both, NOW);
    assert!(answer.is_empty());
    assert_eq!(
        progress,
        Ok(Progress::Held {
            until_ms: NOW + 300
        })
    );
    assert_eq!(
        c.broker.report().records,
        1,
        "done already, though not answered"
    );
    let (mut answer, progress) = c.advance(NOW + 300);
    assert_eq!(progress, Ok(Progress::NeedsBytes));
    read_answer::<ProduceRequest>(&mut answer, 1, 9);
    read_answer::<ProduceRequest>(&mut answer, 2, 9);
    assert!(answer.is_empty());
}

#[test]
fn an_error_for_a_whole_request_shows_where_the_api_has_room_for_it() {
    let mut c = client();
    let code = ErrorCode::COORDINATOR_LOAD_IN_PROGRESS;
    for api in [ApiKey::InitProducerId, ApiKey::Metadata, ApiKey::Produce] {
        c.broker
            .faults()
            .next_request(api, Some(RequestFault::Error(code)));
    }
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    let answer = c.ask(4, &request);
    assert_eq!((answer.error_code, answer.producer_id.0), (code.0, -1));
    assert_eq!(c.ask(4, &request).error_code, 0);
    let wanted = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    assert_eq!(c.ask(12, &request).topics[0].error_code, code.0);
    assert_eq!(c.ask(12, &request).topics[0].error_code, 0);
    let answers = c.produce(vec![(0, batch()), (1, batch())]);
    assert_eq!(
        answers.iter().map(|a| a.error_code).collect::<Vec<_>>(),
        [code.0, code.0]
    );
    assert_eq!(c.broker.report().records, 0);
}

#[test]
fn throttle_is_told_in_every_answer() {
    let mut c = client();
    c.broker.faults().throttle_ms = 77;
    let (mut answer, _) = c.send(&produce_frame(9, 1), NOW);
    assert_eq!(
        read_answer::<ProduceRequest>(&mut answer, 1, 9).throttle_time_ms,
        77
    );
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    assert_eq!(c.ask(1, &request).throttle_time_ms, 77);
    let request = MetadataRequest::default().with_topics(None);
    assert_eq!(c.ask(3, &request).throttle_time_ms, 77);
}

#[test]
fn entries_are_used_in_order_and_only_for_their_api() {
    let mut c = client();
    c.broker.faults().next_request(ApiKey::Metadata, None);
    c.broker
        .faults()
        .next_request(ApiKey::Metadata, Some(RequestFault::Silence));
    let request = MetadataRequest::default().with_topics(None);
    assert_eq!(c.produce_one(&BatchOf::records(1)).0, ErrorCode::NONE);
    assert_eq!(c.ask(9, &request).topics.len(), 1);
    let (answer, _) = c.send(&frame(5, 9, &request), NOW);
    assert!(answer.is_empty());
    assert_eq!(c.ask(9, &request).topics.len(), 1);
}

/// A slow node takes its time for each request, one after the other; its neighbours are as quick as
/// ever.
#[test]
fn v3_a_slow_node_delays_each_answer() {
    let mut c = client();
    c.broker.faults().slow_node(1, 40);
    c.broker.faults().slow_node(2, 9_999);
    let both = [produce_frame(9, 1), produce_frame(9, 2)].concat();
    let (answer, progress) = c.send(&both, NOW);
    assert!(answer.is_empty());
    let until_ms = NOW + 40;
    assert_eq!(progress, Ok(Progress::Held { until_ms }));
    let (mut answer, progress) = c.advance(NOW + 40);
    read_answer::<ProduceRequest>(&mut answer, 1, 9);
    assert!(answer.is_empty(), "the second takes its own time");
    let until_ms = NOW + 80;
    assert_eq!(progress, Ok(Progress::Held { until_ms }));
    let (mut answer, _) = c.advance(NOW + 80);
    read_answer::<ProduceRequest>(&mut answer, 2, 9);
    c.broker.faults().slow_node(1, 0);
    assert_eq!(c.produce_one(&BatchOf::records(1)), (ErrorCode::NONE, 2));
}

/// A throttled client is told so, and nothing more of it is worked on for that long; others are not
/// throttled.
#[test]
fn r7_a_throttled_client_is_told_and_muted() {
    let mut c = client();
    let throttle = Throttle {
        ms: 300,
        enforced: true,
    };
    c.broker.faults().throttle_client("codec", throttle);
    let both = [produce_frame(9, 1), produce_frame(9, 2)].concat();
    let (mut answer, progress) = c.send(&both, NOW);
    let first = read_answer::<ProduceRequest>(&mut answer, 1, 9);
    assert_eq!(first.throttle_time_ms, 300);
    assert!(answer.is_empty());
    let until_ms = NOW + 300;
    assert_eq!(progress, Ok(Progress::Held { until_ms }));
    assert_eq!(c.broker.report().records, 1);
    let (mut answer, _) = c.advance(NOW + 300);
    read_answer::<ProduceRequest>(&mut answer, 2, 9);
    let mut other = c.broker.session(1);
    other.receive(&frame(9, 9, &MetadataRequest::default().with_topics(None)));
    let mut out = Vec::new();
    let progress = other.advance(&mut c.broker, NOW + 300, &mut out);
    assert_eq!(progress, Ok(Progress::NeedsBytes));
    let answer = read_answer::<MetadataRequest>(&mut out.into(), 9, 9);
    assert_eq!(answer.throttle_time_ms, 0);
}

/// A node told to refuse everything does; a partition's own script goes first.
#[test]
fn n10_every_batch_of_a_node_can_be_refused() {
    let mut c = client();
    let code = ErrorCode::KAFKA_STORAGE_ERROR;
    c.broker
        .faults()
        .every_batch_of_node(1, PartitionFault::ErrorBefore(code));
    let other = ErrorCode::NOT_ENOUGH_REPLICAS;
    c.broker
        .faults()
        .next_batch("t", 0, PartitionFault::ErrorBefore(other));
    assert_eq!(c.produce_one(&BatchOf::records(1)).0, other);
    assert_eq!(c.produce_one(&BatchOf::records(1)).0, code);
    assert!(!c.broker.faults().is_empty());
    c.broker.faults().every_batch_of_node(1, None);
    assert!(c.broker.faults().is_empty());
    assert_eq!(c.produce_one(&BatchOf::records(1)), (ErrorCode::NONE, 0));
}
