//! ListOffsets and Fetch: every version; what is kept, what is let go, how a Fetch waits.

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, ListOffsetsRequest};
use ringpost_broker::{BrokerConfig, ErrorCode, Keep, Node, Progress, TopicId};
use ringpost_codec::reader::Reader;
use ringpost_codec::record_batch::BatchView;
use uuid::Uuid;

use crate::support::{BatchOf, Client, NOW, frame, read_answer, topic_name};

fn storing() -> BrokerConfig {
    BrokerConfig {
        keep: Keep::Everything,
        ..BrokerConfig::default()
    }
}

struct From {
    version: i16,
    id: TopicId,
    partition: i32,
    offset: i64,
    bytes_max: i32,
    wait_ms: i32,
}

impl From {
    fn start(client: &Client, version: i16) -> Self {
        let id = client.broker.topic_id("t").unwrap();
        Self {
            version,
            id,
            partition: 0,
            offset: 0,
            bytes_max: 1 << 20,
            wait_ms: 0,
        }
    }

    fn request(&self) -> FetchRequest {
        let partition = FetchPartition::default()
            .with_partition(self.partition)
            .with_fetch_offset(self.offset)
            .with_partition_max_bytes(self.bytes_max);
        let mut topic = FetchTopic::default().with_partitions(vec![partition]);
        if self.version >= 13 {
            topic.topic_id = Uuid::from_bytes(self.id);
        } else {
            topic.topic = topic_name("t");
        }
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(self.wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(50 << 20)
            .with_session_epoch(if self.version >= 7 { 0 } else { -1 })
            .with_topics(vec![topic])
    }

    fn fetch(&self, client: &mut Client) -> PartitionData {
        let mut answer = client.ask(self.version, &self.request());
        assert_eq!((answer.error_code, answer.session_id), (0, 0));
        answer.responses.remove(0).partitions.remove(0)
    }
}

/// Base offset, leader epoch and record count of each batch; every CRC is right.
fn batches(data: &PartitionData) -> Vec<(i64, i32, i32)> {
    let bytes = data.records.clone().unwrap_or_default();
    let mut reader = Reader::new(&bytes);
    let mut found = Vec::new();
    while reader.remaining() > 0 {
        let batch = BatchView::read(&mut reader).unwrap();
        assert!(batch.crc_ok());
        let h = batch.header;
        found.push((h.base_offset, h.partition_leader_epoch, h.record_count));
    }
    found
}

#[test]
fn fetch_in_every_version_gives_what_was_produced() {
    for version in 4..=18 {
        let mut client = Client::with_topic(storing(), 1);
        client.produce(vec![(0, BatchOf::records(3).build())]);
        client.produce(vec![(0, BatchOf::records(2).build())]);
        let from = From::start(&client, version);
        let data = from.fetch(&mut client);
        assert_eq!((data.error_code, data.high_watermark), (0, 5), "v{version}");
        assert_eq!(batches(&data), [(0, 0, 3), (3, 0, 2)]);
        let data = From {
            offset: 4,
            ..From::start(&client, version)
        }
        .fetch(&mut client);
        assert_eq!(batches(&data), [(3, 0, 2)], "whole batches only");
        let data = From {
            bytes_max: 1,
            ..From::start(&client, version)
        }
        .fetch(&mut client);
        assert_eq!(
            batches(&data),
            [(0, 0, 3)],
            "one batch however small the limit"
        );
        for offset in [-1, 6] {
            let data = From {
                offset,
                ..From::start(&client, version)
            }
            .fetch(&mut client);
            assert_eq!(data.error_code, ErrorCode::OFFSET_OUT_OF_RANGE.0);
        }
        let data = From {
            partition: 1,
            ..From::start(&client, version)
        }
        .fetch(&mut client);
        assert_eq!(data.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0);
        if version >= 13 {
            let data = From {
                id: [9; 16],
                ..From::start(&client, version)
            }
            .fetch(&mut client);
            assert_eq!(data.error_code, ErrorCode::UNKNOWN_TOPIC_ID.0);
        }
    }
}

#[test]
fn fetch_from_a_node_that_does_not_lead_names_the_leader() {
    let node = |id| Node {
        id,
        host: format!("host{id}"),
        port: 9000,
    };
    for version in 4..=18 {
        let config = BrokerConfig {
            nodes: vec![node(1), node(2)],
            ..storing()
        };
        let mut client = Client::with_topic(config, 2);
        let from = From {
            partition: 1,
            ..From::start(&client, version)
        };
        let answer = client.ask(version, &from.request());
        let data = &answer.responses[0].partitions[0];
        assert_eq!(data.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER.0);
        if version >= 12 {
            assert_eq!(data.current_leader.leader_id.0, 2);
        }
        assert_eq!(answer.node_endpoints.len(), usize::from(version >= 16));
    }
}

#[test]
fn list_offsets_in_every_version() {
    for version in 1..=10 {
        let mut client = Client::with_topic(storing(), 2);
        client.produce(vec![(0, BatchOf::records(3).build())]);
        let late = BatchOf {
            timestamp: NOW + 10,
            ..BatchOf::records(2)
        };
        client.produce(vec![(0, late.build())]);
        let mut ask = |partition, timestamp| {
            let partition = ListOffsetsPartition::default()
                .with_partition_index(partition)
                .with_timestamp(timestamp);
            let topic = ListOffsetsTopic::default()
                .with_name(topic_name("t"))
                .with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_topics(vec![topic]);
            let answer = client.ask(version, &request);
            let p = &answer.topics[0].partitions[0];
            (ErrorCode(p.error_code), p.offset, p.timestamp)
        };
        assert_eq!(ask(0, -1), (ErrorCode::NONE, 5, -1));
        assert_eq!(ask(0, -2), (ErrorCode::NONE, 0, -1));
        assert_eq!(ask(0, -3), (ErrorCode::NONE, 4, NOW + 10));
        assert_eq!(ask(0, NOW + 5), (ErrorCode::NONE, 3, NOW + 10));
        assert_eq!(ask(0, NOW + 11), (ErrorCode::NONE, -1, -1));
        assert_eq!(ask(1, -1), (ErrorCode::NONE, 0, -1));
        assert_eq!(ask(2, -1), (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, -1, -1));
    }
}

#[test]
fn the_ring_keeps_the_latest_over_all_partitions() {
    let batch = BatchOf::records(1).build();
    let keep = Keep::Recent(batch.len() * 3);
    let mut client = Client::with_topic(
        BrokerConfig {
            keep,
            ..BrokerConfig::default()
        },
        2,
    );
    for _ in 0..4 {
        client.produce(vec![(0, batch.clone()), (1, batch.clone())]);
    }
    // Eight batches came; the latest three are 1/2, 0/3 and 1/3.
    let data = From {
        offset: 3,
        ..From::start(&client, 12)
    }
    .fetch(&mut client);
    assert_eq!(batches(&data), [(3, 0, 1)]);
    assert_eq!(data.log_start_offset, 3);
    let data = From {
        offset: 2,
        partition: 1,
        ..From::start(&client, 12)
    }
    .fetch(&mut client);
    assert_eq!(batches(&data), [(2, 0, 1), (3, 0, 1)]);
    let data = From {
        offset: 0,
        ..From::start(&client, 12)
    }
    .fetch(&mut client);
    assert_eq!(data.error_code, ErrorCode::OFFSET_OUT_OF_RANGE.0);
    assert_eq!(client.broker.log("t", 1).len(), batch.len() * 2);
    // A deleted topic's batches leave the ring too.
    client.broker.delete_topic("t");
    client.broker.create_topic("t", 1).unwrap();
    for _ in 0..4 {
        client.produce(vec![(0, batch.clone())]);
    }
    assert_eq!(client.broker.log("t", 0).len(), batch.len() * 3);
}

#[test]
fn with_nothing_kept_the_log_looks_empty_but_offsets_count() {
    let keep = Keep::Nothing;
    let mut client = Client::with_topic(
        BrokerConfig {
            keep,
            ..BrokerConfig::default()
        },
        1,
    );
    client.produce(vec![(0, BatchOf::records(3).build())]);
    let data = From {
        offset: 3,
        ..From::start(&client, 12)
    }
    .fetch(&mut client);
    assert_eq!(
        (data.error_code, data.high_watermark, data.log_start_offset),
        (0, 3, 3)
    );
}

#[test]
fn a_moved_partition_stamps_the_new_leader_epoch() {
    let mut client = Client::with_topic(storing(), 1);
    client.produce(vec![(0, BatchOf::records(1).build())]);
    client.broker.move_leader("t", 0, 1);
    client.produce(vec![(0, BatchOf::records(1).build())]);
    let data = From::start(&client, 12).fetch(&mut client);
    assert_eq!(batches(&data), [(0, 0, 1), (1, 1, 1)]);
}

#[test]
fn a_fetch_that_finds_nothing_is_held_until_time_or_records() {
    let mut client = Client::with_topic(storing(), 1);
    let patient = From {
        wait_ms: 500,
        ..From::start(&client, 12)
    };
    let bytes = frame(1, 12, &patient.request());
    let held = Ok(Progress::Held {
        until_ms: NOW + 500,
    });
    let (answer, progress) = client.send(&bytes, NOW);
    assert!(answer.is_empty());
    assert_eq!(progress, held);
    assert_eq!(
        client.advance(NOW + 499).1,
        held,
        "the same time, not a new one"
    );
    let (mut answer, progress) = client.advance(NOW + 500);
    assert_eq!(progress, Ok(Progress::NeedsBytes));
    let empty = read_answer::<FetchRequest>(&mut answer, 1, 12);
    assert!(batches(&empty.responses[0].partitions[0]).is_empty());

    // Again; this time another connection brings records.
    assert_eq!(client.send(&bytes, NOW).1, held);
    let mut other = client.broker.session(1);
    std::mem::swap(&mut other, &mut client.session);
    client.produce(vec![(0, BatchOf::records(2).build())]);
    assert!(client.session.took_records());
    assert!(!client.session.took_records());
    std::mem::swap(&mut other, &mut client.session);
    let (mut answer, progress) = client.advance(NOW + 1);
    assert_eq!(progress, Ok(Progress::NeedsBytes));
    let found = read_answer::<FetchRequest>(&mut answer, 1, 12);
    assert_eq!(batches(&found.responses[0].partitions[0]), [(0, 0, 2)]);
}
