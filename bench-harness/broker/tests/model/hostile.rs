//! Hostile clients: nothing they send makes the model panic or take memory without bound.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, FetchRequest, FindCoordinatorRequest, InitProducerIdRequest,
    ListOffsetsRequest, MetadataRequest,
};
use kafka_protocol::protocol::StrBytes;
use proptest::prelude::*;
use ringpost_broker::{BrokerConfig, Closed, ErrorCode, Keep, Progress};

use crate::support::{BatchOf, Client, NOW, Produce, SERVED, frame, topic_name};

fn client() -> Client {
    Client::with_topic(
        BrokerConfig {
            keep: Keep::Everything,
            ..BrokerConfig::default()
        },
        2,
    )
}

/// One good request of every API in every version.
fn recorded() -> Vec<Vec<u8>> {
    let client = client();
    let topic_id = client.broker.topic_id("t").unwrap();
    let uuid = uuid::Uuid::from_bytes(topic_id);
    let mut all = Vec::new();
    for v in 3..=13 {
        let batches = vec![(0, BatchOf::sequenced(1, 0, 0, 2).build())];
        all.push(
            Produce {
                version: v,
                acks: -1,
                topic: "t",
                topic_id,
                batches,
            }
            .by_peer(1),
        );
    }
    for v in 0..=4 {
        let mut request = ApiVersionsRequest::default();
        if v >= 3 {
            request.client_software_name = StrBytes::from_static_str("x");
            request.client_software_version = StrBytes::from_static_str("1");
        }
        all.push(frame(1, v, &request));
    }
    for v in 0..=13 {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
        all.push(frame(
            1,
            v,
            &MetadataRequest::default().with_topics(Some(vec![topic])),
        ));
    }
    for v in 0..=5 {
        all.push(frame(
            1,
            v,
            &InitProducerIdRequest::default().with_transactional_id(None),
        ));
    }
    for v in 0..=6 {
        let key = StrBytes::from_static_str("g");
        let request = FindCoordinatorRequest::default();
        let request = match v {
            4.. => request.with_coordinator_keys(vec![key]),
            _ => request.with_key(key),
        };
        all.push(frame(1, v, &request));
    }
    for v in 1..=10 {
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![ListOffsetsPartition::default().with_timestamp(-1)]);
        all.push(frame(
            1,
            v,
            &ListOffsetsRequest::default().with_topics(vec![topic]),
        ));
    }
    for v in 4..=18 {
        let partition = FetchPartition::default().with_partition_max_bytes(1000);
        let mut topic = FetchTopic::default().with_partitions(vec![partition]);
        if v >= 13 {
            topic.topic_id = uuid;
        } else {
            topic.topic = topic_name("t");
        }
        all.push(frame(
            1,
            v,
            &FetchRequest::default().with_topics(vec![topic]),
        ));
    }
    let versions: i16 = SERVED.iter().map(|(_, low, high)| high - low + 1).sum();
    assert_eq!(
        all.len(),
        usize::from(versions.unsigned_abs()),
        "every API and version is there"
    );
    all
}

fn with_length(body: &[u8]) -> Vec<u8> {
    [&i32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

#[test]
fn every_recorded_request_is_answered() {
    for request in recorded() {
        let (answer, progress) = client().send(&request, NOW);
        assert_eq!(progress, Ok(Progress::NeedsBytes));
        assert_eq!(answer[4..8], 1i32.to_be_bytes());
    }
}

#[test]
fn a_stream_cut_anywhere_waits_and_gives_the_same_answer() {
    for request in recorded() {
        let expected = client().send(&request, NOW).0;
        let mut client = client();
        for byte in &request[..request.len() - 1] {
            let (answer, progress) = client.send(&[*byte], NOW);
            assert!(answer.is_empty());
            assert_eq!(progress, Ok(Progress::NeedsBytes));
        }
        let (answer, _) = client.send(&request[request.len() - 1..], NOW);
        assert_eq!(answer, expected);
    }
}

#[test]
fn a_request_cut_short_with_a_matching_length_ends_the_connection() {
    for request in recorded() {
        for len in 0..request.len() - 4 {
            let (answer, progress) = client().send(&with_length(&request[4..4 + len]), NOW);
            assert!(answer.is_empty(), "{len} of {request:?}");
            assert!(progress.is_err());
        }
    }
}

#[test]
fn bytes_behind_a_request_end_the_connection() {
    for request in recorded() {
        let longer = with_length(&[&request[4..], &[0]].concat());
        let (answer, progress) = client().send(&longer, NOW);
        assert!(answer.is_empty());
        assert!(
            matches!(progress, Err(Closed::Malformed(_))),
            "{progress:?}"
        );
    }
}

#[test]
fn every_flipped_byte_ends_in_an_answer_or_an_end() {
    for request in recorded() {
        for at in 4..request.len() {
            for bits in [0x01, 0x80, 0xff] {
                let mut flipped = request.clone();
                flipped[at] ^= bits;
                let mut client = client();
                let (answer, progress) = client.send(&flipped, NOW);
                match progress {
                    Ok(Progress::NeedsBytes) => {
                        // acks=0 is the one request without an answer.
                        let produce = flipped[4..6] == [0, 0];
                        assert!(!answer.is_empty() || produce);
                    }
                    Ok(Progress::Held { .. }) => {}
                    other => assert!(other.is_err()),
                }
            }
        }
    }
}

#[test]
fn a_length_is_judged_before_the_bytes_come() {
    let small = BrokerConfig::default().small_request_bytes_max;
    for (length, api, ok) in [
        (-1, 0u8, false),
        (0, 0, false),
        (7, 0, false),
        (8, 0, true),
        (i32::MAX, 0, false),
        (100 << 20, 0, true),
        ((100 << 20) + 1, 0, false),
        (i32::try_from(small).unwrap(), 3, true),
        (i32::try_from(small + 1).unwrap(), 3, false),
    ] {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0, api]);
        let mut client = client();
        let (_, progress) = client.send(&bytes, NOW);
        assert_eq!(progress.is_ok(), ok, "{length} for API {api}: {progress:?}");
        // A length alone takes no memory: the room offered stays a chunk.
        if ok {
            assert!(client.session.space().len() <= 64 << 10);
        }
    }
}

#[test]
fn counts_beyond_the_bytes_are_refused_before_memory_is_taken() {
    let head = |api: u8, version: u8, tags: &[u8]| {
        [&[0, api, 0, version, 0, 0, 0, 1, 0xff, 0xff][..], tags].concat()
    };
    let huge = [0x7f, 0xff, 0xff, 0xff];
    let huge_compact = [0xff, 0xff, 0xff, 0xff, 0x0f];
    for body in [
        [head(3, 1, &[]), huge.to_vec()].concat(),
        [head(3, 12, &[0]), huge_compact.to_vec()].concat(),
        [
            head(0, 8, &[]),
            vec![0xff, 0xff, 0, 1, 0, 0, 0, 1],
            huge.to_vec(),
        ]
        .concat(),
        [head(2, 1, &[]), vec![0; 4], huge.to_vec()].concat(),
        [head(1, 4, &[]), vec![0; 17], huge.to_vec()].concat(),
        [head(10, 4, &[0]), vec![0], huge_compact.to_vec()].concat(),
        // Tagged fields: too many, and one that only brokers send.
        [
            head(18, 3, &[0]),
            vec![2, b'x', 2, b'1'],
            huge_compact.to_vec(),
        ]
        .concat(),
        [head(18, 3, &[0]), vec![2, b'x', 2, b'1', 1, 0, 0]].concat(),
    ] {
        let (answer, progress) = client().send(&with_length(&body), NOW);
        assert!(answer.is_empty());
        assert!(
            matches!(progress, Err(Closed::Malformed(_))),
            "{body:?}: {progress:?}"
        );
    }
}

#[test]
fn a_client_that_only_sends_is_bounded() {
    let config = BrokerConfig {
        request_bytes_max: 100_000,
        ..BrokerConfig::default()
    };
    let mut client = Client::new(config);
    for _ in 0..100 {
        client.session.receive(&[0; 10_000]);
    }
    assert_eq!(client.advance(NOW).1, Err(Closed::Ended));
}

#[test]
fn many_answers_are_sent_in_between() {
    let mut client = client();
    for _ in 0..4 {
        client.produce(vec![(
            0,
            BatchOf {
                values: vec![vec![7; 500_000]],
                ..Default::default()
            }
            .build(),
        )]);
    }
    let partition = FetchPartition::default().with_partition_max_bytes(10 << 20);
    let topic = FetchTopic::default()
        .with_topic(topic_name("t"))
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_bytes(10 << 20)
        .with_topics(vec![topic]);
    let one = frame(1, 11, &request);
    let (first, progress) = client.send(&[&one[..], &one, &one].concat(), NOW);
    assert_eq!(progress, Ok(Progress::SendFirst));
    let (second, progress) = client.advance(NOW);
    assert_eq!(progress, Ok(Progress::SendFirst));
    let (third, _) = client.advance(NOW);
    assert_eq!((first.len(), second.len()), (third.len(), third.len()));
    assert_eq!(
        client.advance(NOW),
        (Bytes::new(), Ok(Progress::NeedsBytes))
    );
}

/// What a random client does next.
#[derive(Debug, Clone)]
enum Act {
    /// The next batch in sequence, of so many records.
    Next(u8),
    /// One of the latest batches again: the n-th from the end.
    Again(u8),
    /// A batch that skips so many sequence numbers.
    Skip(u8),
    /// A new epoch.
    Bump,
    /// A request with some bytes changed.
    Garbled(usize, u16, u8),
    /// Any bytes as a request.
    Noise(Vec<u8>),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => (1u8..20).prop_map(Act::Next),
        4 => (0u8..8).prop_map(Act::Again),
        2 => (1u8..50).prop_map(Act::Skip),
        1 => Just(Act::Bump),
        2 => (any::<usize>(), any::<u16>(), any::<u8>()).prop_map(|(r, at, b)| Act::Garbled(r, at, b)),
        1 => proptest::collection::vec(any::<u8>(), 0..64).prop_map(Act::Noise),
    ];
    proptest::collection::vec(act, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Against a three-line oracle of Kafka's rules: what is written is exactly the batches in
    /// sequence, each once, whatever else the client does.
    #[test]
    fn a_random_idempotent_client_gets_kafkas_answers(acts in acts()) {
        let recorded = recorded();
        let mut client = client();
        let (mut epoch, mut next, mut offset) = (0, 0, 0i64);
        let mut written: Vec<(i32, usize, i64)> = Vec::new();
        let mut hole = 0;
        for act in acts {
            match act {
                Act::Next(count) => {
                    let count = usize::from(count);
                    let answer = client.produce_one(&BatchOf::sequenced(1 << 40, epoch, next, count));
                    prop_assert_eq!(answer, (ErrorCode::NONE, offset));
                    written.push((next, count, offset));
                    next += i32::try_from(count).unwrap();
                    offset += i64::try_from(count).unwrap();
                    hole = 0.max(hole - i32::try_from(count).unwrap());
                }
                Act::Again(back) => {
                    let back = usize::from(back);
                    let Some(&(sequence, count, at)) = written.iter().rev().nth(back) else { continue };
                    let answer = client.produce_one(&BatchOf::sequenced(1 << 40, epoch, sequence, count));
                    let expected = match back {
                        0..5 => (ErrorCode::NONE, at),
                        _ => (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1),
                    };
                    prop_assert_eq!(answer, expected);
                }
                Act::Skip(by) => {
                    if written.is_empty() { continue }
                    let ahead = BatchOf::sequenced(1 << 40, epoch, next + i32::from(by), 1);
                    let answer = client.produce_one(&ahead);
                    prop_assert_eq!(answer, (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1));
                    hole = hole.max(i32::from(by));
                }
                Act::Bump => {
                    if written.is_empty() { continue }
                    epoch += 1;
                    next = 0;
                    written.clear();
                    let answer = client.produce_one(&BatchOf::sequenced(1 << 40, epoch, 0, 1));
                    prop_assert_eq!(answer, (ErrorCode::NONE, offset));
                    written.push((0, 1, offset));
                    next += 1;
                    offset += 1;
                    hole = 0;
                }
                Act::Garbled(which, at, bits) => {
                    // On a connection and a broker of its own: it may well be a sound request.
                    let mut bytes = recorded[which % recorded.len()].clone();
                    let at = 4 + usize::from(at) % (bytes.len() - 4);
                    bytes[at] = bits;
                    let _ = self::client().send(&bytes, NOW);
                }
                Act::Noise(bytes) => {
                    let _ = self::client().send(&with_length(&bytes), NOW);
                    let _ = self::client().send(&bytes, NOW);
                }
            }
            let report = client.broker.report();
            prop_assert_eq!(report.next_offset("t", 0), Some(offset));
            prop_assert_eq!(report.lost, u64::try_from(hole).unwrap());
        }
    }
}
