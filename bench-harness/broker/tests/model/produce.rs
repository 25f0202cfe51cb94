//! Produce: every version by both implementations, and what a broker refuses.

use kafka_protocol::messages::ProduceRequest;
use ringpost_broker::{
    ApiKey, BrokerConfig, Closed, ErrorCode, Keep, Mode, OldDuplicate, Progress, numbering,
};
use ringpost_codec::compress::{Codec, Compression};
use ringpost_codec::record_batch::Attributes;

use crate::support::{BatchOf, Client, NOW, Produce, read_answer};

#[test]
fn every_version_by_both_implementations() {
    for mode in [Mode::Verify, Mode::Ack] {
        for version in 3..=13 {
            let mut client = Client::with_topic(
                BrokerConfig {
                    mode,
                    ..BrokerConfig::default()
                },
                3,
            );
            let topic_id = client.broker.topic_id("t").unwrap();
            let batches: Vec<_> = (0..3)
                .map(|p| (p, BatchOf::records(p as usize + 1).build()))
                .collect();
            let request = Produce {
                version,
                acks: -1,
                topic: "t",
                topic_id,
                batches,
            };
            let (codec, peer) = (request.by_codec(1), request.by_peer(2));
            for (round, bytes) in [(0, codec), (1, peer)] {
                let (mut answer, progress) = client.send(&bytes, NOW);
                assert_eq!(progress, Ok(Progress::NeedsBytes));
                let id = round + 1;
                let response = read_answer::<ProduceRequest>(&mut answer, id, version);
                let topic = &response.responses[0];
                if version >= 13 {
                    assert_eq!(topic.topic_id.into_bytes(), topic_id);
                } else {
                    assert_eq!(&topic.name[..], "t");
                }
                for (count, p) in (1..).zip(&topic.partition_responses) {
                    assert_eq!((p.error_code, p.index), (0, count - 1));
                    assert_eq!(p.base_offset, i64::from(round * count));
                    assert_eq!(p.log_append_time_ms, -1);
                }
            }
            let report = client.broker.report();
            assert_eq!(
                (report.records, report.batches, report.requests),
                (12, 6, 2)
            );
            assert_eq!(report.next_offset("t", 2), Some(6));
            assert!(report.is_clean());
        }
    }
}

#[test]
fn the_two_implementations_write_the_same_request_body() {
    for version in 3..=13 {
        let batches = vec![
            (0, BatchOf::records(2).build()),
            (5, BatchOf::records(1).build()),
        ];
        let request = Produce {
            version,
            acks: 1,
            topic: "t",
            topic_id: [7; 16],
            batches,
        };
        let (codec, peer) = (request.by_codec(3), request.by_peer(3));
        // Length, header with another client id, then the body.
        assert_eq!(codec[4 + 8 + 2 + 5..], peer[4 + 8 + 2 + 4..], "v{version}");
    }
}

#[test]
fn produce_below_v3_is_advertised_but_ends_the_connection() {
    let mut client = Client::new(BrokerConfig::default());
    let request = [0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff];
    let (answer, progress) = client.send(&request, NOW);
    assert!(answer.is_empty());
    assert_eq!(
        progress,
        Err(Closed::Version {
            api: ApiKey::Produce as i16,
            version: 2
        })
    );
}

#[test]
fn acks_zero_is_not_answered_and_fails_by_closing() {
    let mut client = Client::with_topic(BrokerConfig::default(), 1);
    let request = |partition| Produce {
        version: 9,
        acks: 0,
        topic: "t",
        topic_id: [0; 16],
        batches: vec![(partition, BatchOf::records(1).build())],
    };
    let (answer, progress) = client.send(&request(0).by_codec(1), NOW);
    assert!(answer.is_empty());
    assert_eq!(progress, Ok(Progress::NeedsBytes));
    assert_eq!(client.broker.report().records, 1);
    let (answer, progress) = client.send(&request(1).by_codec(2), NOW);
    assert!(answer.is_empty());
    let why = Closed::Unacknowledged(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(progress, Err(why));
}

#[test]
fn other_acks_are_refused_whole() {
    let mut client = Client::with_topic(BrokerConfig::default(), 1);
    let request = Produce {
        version: 8,
        acks: 2,
        topic: "t",
        topic_id: [0; 16],
        batches: vec![(0, BatchOf::records(1).build())],
    };
    let (mut answer, _) = client.send(&request.by_codec(1), NOW);
    let response = read_answer::<ProduceRequest>(&mut answer, 1, 8);
    let code = response.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ErrorCode::INVALID_REQUIRED_ACKS.0);
    assert_eq!(client.broker.report().records, 0);
}

#[test]
fn unknown_topics_ids_and_partitions() {
    for (version, topic, id, partition, code) in [
        (9, "no", [0; 16], 0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        (9, "n o", [0; 16], 0, ErrorCode::INVALID_TOPIC_EXCEPTION),
        (9, "t", [0; 16], 1, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        (9, "t", [0; 16], -1, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        (13, "", [9; 16], 0, ErrorCode::UNKNOWN_TOPIC_ID),
    ] {
        let mut client = Client::with_topic(BrokerConfig::default(), 1);
        let batches = vec![(partition, BatchOf::records(1).build())];
        let request = Produce {
            version,
            acks: 1,
            topic,
            topic_id: id,
            batches,
        };
        let (mut answer, _) = client.send(&request.by_codec(1), NOW);
        let response = read_answer::<ProduceRequest>(&mut answer, 1, version);
        assert_eq!(
            response.responses[0].partition_responses[0].error_code,
            code.0
        );
    }
}

#[test]
fn what_a_broker_refuses_of_a_batch() {
    let sequenced = |id, epoch, sequence| BatchOf::sequenced(id, epoch, sequence, 1);
    let spoiled = |spoil| BatchOf {
        spoil,
        ..BatchOf::records(3)
    };
    let cases: Vec<(&str, BatchOf, ErrorCode, bool)> = vec![
        (
            "count",
            spoiled(|h| h.record_count = 2),
            ErrorCode::INVALID_RECORD,
            true,
        ),
        (
            "delta",
            spoiled(|h| h.last_offset_delta = 3),
            ErrorCode::INVALID_RECORD,
            true,
        ),
        (
            "too few records",
            spoiled(|h| (h.record_count, h.last_offset_delta) = (4, 3)),
            ErrorCode::INVALID_RECORD,
            true,
        ),
        (
            "too many records",
            spoiled(|h| (h.record_count, h.last_offset_delta) = (2, 1)),
            ErrorCode::INVALID_RECORD,
            true,
        ),
        (
            "no records",
            spoiled(|h| (h.record_count, h.last_offset_delta) = (0, -1)),
            ErrorCode::INVALID_RECORD,
            true,
        ),
        (
            "base offset",
            spoiled(|h| h.base_offset = 5),
            ErrorCode::INVALID_RECORD,
            true,
        ),
        (
            "control",
            spoiled(|h| h.attributes = Attributes(0x20)),
            ErrorCode::INVALID_RECORD,
            true,
        ),
        (
            "transactional",
            spoiled(|h| h.attributes = Attributes(0x10)),
            ErrorCode::INVALID_TXN_STATE,
            false,
        ),
        (
            "codec",
            spoiled(|h| h.attributes = Attributes(7)),
            ErrorCode::CORRUPT_MESSAGE,
            true,
        ),
        (
            "not lz4",
            spoiled(|h| h.attributes = Attributes::new(Codec::Lz4)),
            ErrorCode::CORRUPT_MESSAGE,
            true,
        ),
        (
            "no sequence",
            sequenced(1, 0, -1),
            ErrorCode::INVALID_RECORD,
            true,
        ),
        (
            "no epoch",
            sequenced(1, -1, 0),
            ErrorCode::INVALID_RECORD,
            true,
        ),
        (
            "future",
            BatchOf {
                timestamp: NOW + 3_600_001,
                ..BatchOf::default()
            },
            ErrorCode::INVALID_TIMESTAMP,
            false,
        ),
    ];
    for (what, batch, code, corrupt) in cases {
        let mut client = Client::with_topic(BrokerConfig::default(), 1);
        assert_eq!(client.produce_one(&batch), (code, -1), "{what}");
        let report = client.broker.report();
        assert_eq!((report.records, report.refused), (0, 1), "{what}");
        assert_eq!(report.corrupt, u64::from(corrupt), "{what}");
    }
}

#[test]
fn damaged_bytes_are_found() {
    let batch = BatchOf::records(3).build();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = batch.clone();
        change(&mut bytes);
        bytes
    };
    let last = batch.len() - 1;
    let cases: Vec<(&str, Vec<u8>, ErrorCode)> = vec![
        (
            "a flipped bit",
            with(&|b| b[last] ^= 1),
            ErrorCode::CORRUPT_MESSAGE,
        ),
        ("format v1", with(&|b| b[16] = 1), ErrorCode::INVALID_RECORD),
        ("nothing", Vec::new(), ErrorCode::INVALID_RECORD),
        (
            "half a header",
            batch[..40].to_vec(),
            ErrorCode::CORRUPT_MESSAGE,
        ),
        (
            "cut short",
            batch[..last].to_vec(),
            ErrorCode::CORRUPT_MESSAGE,
        ),
        (
            "two batches",
            [&batch[..], &batch[..]].concat(),
            ErrorCode::INVALID_RECORD,
        ),
        (
            "negative length",
            with(&|b| b[8] = 0xff),
            ErrorCode::CORRUPT_MESSAGE,
        ),
    ];
    for (what, bytes, code) in cases {
        let mut client = Client::with_topic(BrokerConfig::default(), 1);
        let answer = client.produce(vec![(0, bytes)]);
        assert_eq!(ErrorCode(answer[0].error_code), code, "{what}");
        assert_eq!(client.broker.report().corrupt, 1, "{what}");
    }
}

#[test]
fn the_record_at_fault_is_named_from_v8_on() {
    for version in 3..=13 {
        let mut client = Client::with_topic(BrokerConfig::default(), 1);
        let spoil = |h: &mut ringpost_codec::record_batch::BatchHeader| {
            (h.record_count, h.last_offset_delta) = (4, 3);
        };
        let batch = BatchOf {
            spoil,
            ..BatchOf::records(3)
        }
        .build();
        let answer = client.produce_in(version, vec![(0, batch)]);
        assert_eq!(ErrorCode(answer[0].error_code), ErrorCode::INVALID_RECORD);
        let named: Vec<i32> = answer[0]
            .record_errors
            .iter()
            .map(|e| e.batch_index)
            .collect();
        let expected: &[i32] = if version >= 8 { &[3] } else { &[] };
        assert_eq!(named, expected, "v{version}");
        assert_eq!(answer[0].error_message.is_some(), version >= 8);
    }
}

#[test]
fn one_bad_partition_does_not_hurt_its_neighbours() {
    let mut client = Client::with_topic(BrokerConfig::default(), 3);
    let mut bad = BatchOf::records(1).build();
    bad[20] ^= 1;
    let good = BatchOf::records(2).build();
    let answer = client.produce(vec![(0, good.clone()), (1, bad), (2, good)]);
    let codes: Vec<i16> = answer.iter().map(|p| p.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::CORRUPT_MESSAGE.0, 0]);
    assert_eq!(client.broker.report().records, 4);
}

#[test]
fn a_partition_named_twice_ends_the_connection() {
    let mut client = Client::with_topic(BrokerConfig::default(), 1);
    let batch = BatchOf::records(1).build();
    let batches = vec![(0, batch.clone()), (0, batch)];
    let request = Produce {
        version: 9,
        acks: 1,
        topic: "t",
        topic_id: [0; 16],
        batches,
    };
    let (_, progress) = client.send(&request.by_codec(1), NOW);
    assert_eq!(progress, Err(Closed::PartitionTwice(0)));
}

#[test]
fn the_largest_batch_is_taken_and_one_byte_more_is_not() {
    let batch = BatchOf::records(10);
    let len = batch.build().len();
    for (max, code) in [
        (len, ErrorCode::NONE),
        (len - 1, ErrorCode::MESSAGE_TOO_LARGE),
    ] {
        let config = BrokerConfig {
            message_bytes_max: max,
            ..BrokerConfig::default()
        };
        let mut client = Client::with_topic(config, 1);
        assert_eq!(client.produce_one(&batch).0, code);
    }
}

#[test]
fn compressed_batches_are_looked_into() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let compression = Compression::new(codec, None).ok();
        let batch = BatchOf {
            compression,
            ..BatchOf::records(500)
        };
        let mut client = Client::with_topic(BrokerConfig::default(), 1);
        assert_eq!(
            client.produce_one(&batch),
            (ErrorCode::NONE, 0),
            "{codec:?}"
        );
        let spoil = |h: &mut ringpost_codec::record_batch::BatchHeader| {
            (h.record_count, h.last_offset_delta) = (499, 498);
        };
        let spoiled = BatchOf {
            spoil,
            ..batch.clone()
        };
        assert_eq!(client.produce_one(&spoiled).0, ErrorCode::INVALID_RECORD);
        assert_eq!(client.broker.report().records, 500);
        let config = BrokerConfig {
            decompressed_bytes_max: 1000,
            ..BrokerConfig::default()
        };
        let mut narrow = Client::with_topic(config, 1);
        assert_eq!(
            narrow.produce_one(&batch).0,
            ErrorCode::CORRUPT_MESSAGE,
            "a bomb"
        );
    }
}

#[test]
fn zstd_needs_v7() {
    let compression = Compression::new(Codec::Zstd, None).ok();
    let batch = BatchOf {
        compression,
        ..BatchOf::records(500)
    }
    .build();
    for version in 3..=13 {
        let mut client = Client::with_topic(BrokerConfig::default(), 1);
        let answer = client.produce_in(version, vec![(0, batch.clone())]);
        let expected = if version < 7 {
            ErrorCode::UNSUPPORTED_COMPRESSION_TYPE
        } else {
            ErrorCode::NONE
        };
        assert_eq!(ErrorCode(answer[0].error_code), expected, "v{version}");
    }
}

#[test]
fn a_retry_is_answered_with_its_first_offset_and_not_written_again() {
    let mut client = Client::with_topic(BrokerConfig::default(), 1);
    for i in 0..6 {
        let batch = BatchOf::sequenced(7, 0, i * 10, 10);
        assert_eq!(
            client.produce_one(&batch),
            (ErrorCode::NONE, i64::from(i) * 10)
        );
    }
    assert_eq!(
        client.produce_one(&BatchOf::sequenced(7, 0, 30, 10)),
        (ErrorCode::NONE, 30)
    );
    let old = BatchOf::sequenced(7, 0, 0, 10);
    assert_eq!(
        client.produce_one(&old),
        (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
    );
    let report = client.broker.report();
    assert_eq!(
        (
            report.records,
            report.retries_recognised,
            report.out_of_sequence
        ),
        (60, 1, 1)
    );
    assert!(report.is_clean());
}

#[test]
fn an_older_broker_calls_an_old_batch_a_duplicate() {
    let old_duplicate = OldDuplicate::Duplicate;
    let mut client = Client::with_topic(
        BrokerConfig {
            old_duplicate,
            ..BrokerConfig::default()
        },
        1,
    );
    for i in 0..6 {
        client.produce_one(&BatchOf::sequenced(7, 0, i, 1));
    }
    let answer = client.produce_one(&BatchOf::sequenced(7, 0, 0, 1));
    assert_eq!(answer, (ErrorCode::DUPLICATE_SEQUENCE_NUMBER, -1));
}

#[test]
fn a_hole_in_the_sequence_counts_as_lost_until_it_is_filled() {
    let mut client = Client::with_topic(BrokerConfig::default(), 1);
    let at = |sequence| BatchOf::sequenced(7, 0, sequence, 10);
    assert_eq!(client.produce_one(&at(0)), (ErrorCode::NONE, 0));
    let refused = (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
    assert_eq!(client.produce_one(&at(20)), refused);
    assert_eq!(client.broker.report().lost, 10);
    assert!(!client.broker.report().is_clean());
    assert_eq!(client.produce_one(&at(10)), (ErrorCode::NONE, 10));
    assert_eq!(client.produce_one(&at(20)), (ErrorCode::NONE, 20));
    assert!(client.broker.report().is_clean());
}

#[test]
fn sequences_are_kept_per_partition_and_wrap() {
    let mut client = Client::with_topic(BrokerConfig::default(), 2);
    let start = i32::MAX - 1;
    let batch = BatchOf::sequenced(7, 0, start, 3).build(); // MAX-1, MAX, 0
    let answer = client.produce(vec![(0, batch.clone()), (1, batch)]);
    assert_eq!(
        answer.iter().map(|p| p.error_code).collect::<Vec<_>>(),
        [0, 0]
    );
    assert_eq!(
        client.produce_one(&BatchOf::sequenced(7, 0, 1, 1)),
        (ErrorCode::NONE, 3)
    );
    let fenced = client.produce_one(&BatchOf::sequenced(7, -1, 2, 1));
    assert_eq!(fenced.0, ErrorCode::INVALID_RECORD);
}

#[test]
fn an_older_epoch_is_fenced_and_a_newer_one_begins_at_zero() {
    let mut client = Client::with_topic(BrokerConfig::default(), 1);
    assert_eq!(
        client.produce_one(&BatchOf::sequenced(7, 3, 0, 1)),
        (ErrorCode::NONE, 0)
    );
    let old = client.produce_one(&BatchOf::sequenced(7, 2, 1, 1));
    assert_eq!(old.0, ErrorCode::INVALID_PRODUCER_EPOCH);
    let new = client.produce_one(&BatchOf::sequenced(7, 4, 1, 1));
    assert_eq!(new.0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_eq!(
        client.produce_one(&BatchOf::sequenced(7, 4, 0, 1)),
        (ErrorCode::NONE, 1)
    );
}

#[test]
fn ack_mode_still_knows_sequences_but_not_damage() {
    let config = BrokerConfig {
        mode: Mode::Ack,
        keep: Keep::Nothing,
        ..BrokerConfig::default()
    };
    let mut client = Client::with_topic(config, 1);
    let mut damaged = BatchOf::records(1).build();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert_eq!(client.produce(vec![(0, damaged)])[0].error_code, 0);
    assert_eq!(
        client.produce_one(&BatchOf::sequenced(7, 0, 0, 4)),
        (ErrorCode::NONE, 1)
    );
    assert_eq!(
        client.produce_one(&BatchOf::sequenced(7, 0, 0, 4)),
        (ErrorCode::NONE, 1)
    );
    let refused = client.produce_one(&BatchOf::sequenced(7, 0, 9, 1));
    assert_eq!(refused.0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
}

#[test]
fn numbered_records_show_what_sequences_cannot() {
    let config = BrokerConfig {
        numbered: true,
        ..BrokerConfig::default()
    };
    let mut client = Client::with_topic(config, 2);
    let batch = |numbers: &[u64]| {
        let value = |n: &u64| {
            let mut value = vec![0; 20];
            numbering::stamp(&mut value, 1, *n);
            value
        };
        BatchOf {
            values: numbers.iter().map(value).collect(),
            ..BatchOf::default()
        }
        .build()
    };
    client.produce(vec![(0, batch(&[0, 2, 4])), (1, batch(&[1, 3, 5]))]);
    assert!(client.broker.report().is_clean());
    // 7 is missing, 4 comes again (and so out of order), 6 comes behind 8.
    client.produce(vec![(0, batch(&[8, 6])), (1, batch(&[4]))]);
    let report = client.broker.report();
    assert_eq!(
        (report.lost, report.duplicated, report.reordered),
        (1, 1, 2)
    );
    let plain = client.produce_one(&BatchOf::records(1));
    assert_eq!(
        plain.0,
        ErrorCode::INVALID_RECORD,
        "a value without its number"
    );
}

#[test]
fn headers_keys_and_nulls_are_sound() {
    let mut client = Client::with_topic(BrokerConfig::default(), 1);
    let batch = BatchOf {
        values: vec![Vec::new(), vec![1; 20_000], vec![2; 300_000]],
        key: Some(b"key".to_vec()),
        headers: vec![("h".into(), None), ("h".into(), Some(b"v".to_vec()))],
        ..BatchOf::default()
    };
    assert_eq!(client.produce_one(&batch), (ErrorCode::NONE, 0));
    assert_eq!(client.broker.report().records, 3);
}
