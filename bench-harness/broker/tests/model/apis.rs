//! ApiVersions, Metadata, InitProducerId, FindCoordinator: every version, asked by both
//! implementations.

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, FindCoordinatorRequest, InitProducerIdRequest, MetadataRequest, ProducerId,
};
use kafka_protocol::protocol::StrBytes;
use ringpost_broker::{ApiKey, BrokerConfig, Closed, ErrorCode, Node, Progress, Versions};
use ringpost_codec::error::DecodeError;
use ringpost_codec::kafka::{self, api_versions, header, init_producer_id, metadata};
use ringpost_codec::reader::Reader;
use ringpost_codec::writer::Writer;
use uuid::Uuid;

use crate::support::{Client, NOW, SERVED, frame, topic_name};

/// Asks by the engine's codec; the answer's body.
fn ask_by_codec(
    client: &mut Client,
    api_key: kafka::ApiKey,
    version: i16,
    body: impl FnOnce(&mut Writer<'_>) -> Result<(), DecodeError>,
) -> Vec<u8> {
    let correlation_id = client.next_id();
    let head = header::RequestHeader {
        api_key,
        version,
        correlation_id,
        client_id: None,
    };
    let mut request = Vec::new();
    header::put_request(&mut request, &head, |writer| body(writer).unwrap());
    let (answer, progress) = client.send(&request, NOW);
    assert_eq!(progress, Ok(Progress::NeedsBytes));
    let mut reader = Reader::new(&answer[4..]);
    assert_eq!(header::read_correlation_id(&mut reader), Ok(correlation_id));
    header::read_response_rest(&mut reader, api_key, version).unwrap();
    reader.rest().to_vec()
}

fn two_nodes() -> BrokerConfig {
    let node = |id, port| Node {
        id,
        host: format!("host{id}"),
        port,
    };
    BrokerConfig {
        nodes: vec![node(1, 9001), node(2, 9002)],
        ..BrokerConfig::default()
    }
}

#[test]
fn api_versions_in_every_version_by_both() {
    for version in 0..=4 {
        let mut client = Client::new(BrokerConfig::default());
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request = request
                .with_client_software_name(StrBytes::from_static_str("peer"))
                .with_client_software_version(StrBytes::from_static_str("1.0"));
        }
        let answer = client.ask(version, &request);
        assert_eq!(answer.error_code, 0);
        assert_eq!(answer.api_keys.len(), SERVED.len());
        let body = ask_by_codec(&mut client, kafka::ApiKey::API_VERSIONS, version, |w| {
            let (client_software_name, client_software_version) = ("ringpost", "0.1.0");
            api_versions::Request {
                client_software_name,
                client_software_version,
            }
            .write(version, w)
        });
        let answer = api_versions::Response::read(version, &mut Reader::new(&body)).unwrap();
        assert_eq!(answer.range(kafka::ApiKey::PRODUCE), Some(0..=13));
        assert_eq!(answer.range(kafka::ApiKey::METADATA), Some(0..=13));
    }
}

#[test]
fn api_versions_of_the_future_is_answered_in_v0() {
    let mut client = Client::new(BrokerConfig::default());
    // v5 may look like anything behind the correlation id.
    let request = [0, 0, 0, 13, 0, 18, 0, 5, 0, 0, 0, 9, 1, 2, 3, 4, 5];
    let (answer, progress) = client.send(&request, NOW);
    assert_eq!(progress, Ok(Progress::NeedsBytes));
    assert_eq!(answer[4..8], 9i32.to_be_bytes());
    let body = api_versions::Response::read(0, &mut Reader::new(&answer[8..])).unwrap();
    assert_eq!(body.error, ErrorCode::UNSUPPORTED_VERSION);
    assert_eq!(body.range(kafka::ApiKey::API_VERSIONS), Some(0..=4));
}

#[test]
fn api_versions_refuses_illegal_software_names() {
    for (name, legal) in [
        ("a", true),
        ("rust-kafka.1", true),
        ("-a", false),
        ("a b", false),
    ] {
        let mut client = Client::new(BrokerConfig::default());
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_string(name.to_owned()))
            .with_client_software_version(StrBytes::from_static_str("1"));
        let code = ErrorCode(client.ask(3, &request).error_code);
        assert_eq!(code.is_ok(), legal, "{name}");
    }
}

#[test]
fn an_old_broker_advertises_and_serves_only_its_own() {
    let versions = Versions::default()
        .with(ApiKey::Produce, 0, 7)
        .without(ApiKey::InitProducerId);
    let mut client = Client::new(BrokerConfig {
        versions,
        ..BrokerConfig::default()
    });
    let answer = client.ask(0, &ApiVersionsRequest::default());
    let range = |key: ApiKey| answer.api_keys.iter().find(|a| a.api_key == key as i16);
    assert_eq!(
        range(ApiKey::Produce).map(|a| (a.min_version, a.max_version)),
        Some((0, 7))
    );
    assert!(range(ApiKey::InitProducerId).is_none());
    let request = InitProducerIdRequest::default().with_transaction_timeout_ms(1);
    let (answer, progress) = client.send(&frame(2, 1, &request), NOW);
    assert!(answer.is_empty());
    assert_eq!(
        progress,
        Err(Closed::Version {
            api: 22,
            version: 1
        })
    );
    assert_eq!(client.advance(NOW).1, Err(Closed::Ended));
}

#[test]
fn metadata_in_every_version_makes_the_topic_and_describes_the_cluster() {
    for version in 0..=13 {
        let mut client = Client::new(two_nodes());
        let wanted = MetadataRequestTopic::default().with_name(Some(topic_name("orders")));
        let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
        let answer = client.ask(version, &request);
        assert_eq!(answer.brokers.len(), 2);
        assert_eq!(
            (answer.brokers[1].node_id.0, answer.brokers[1].port),
            (2, 9002)
        );
        assert_eq!(&answer.brokers[1].host[..], "host2");
        assert_eq!(answer.cluster_id.is_some(), version >= 2);
        let topic = &answer.topics[0];
        assert_eq!(topic.error_code, 0, "v{version}");
        assert_eq!(topic.name.as_ref().map(|n| &n[..]), Some("orders"));
        assert_eq!(topic.partitions.len(), 6);
        let leaders: Vec<_> = topic.partitions.iter().map(|p| p.leader_id.0).collect();
        assert_eq!(leaders, [1, 2, 1, 2, 1, 2]);
        let id = client.broker.topic_id("orders").unwrap();
        let expected = if version >= 10 {
            Uuid::from_bytes(id)
        } else {
            Uuid::nil()
        };
        assert_eq!(topic.topic_id, expected);

        if version == 0 {
            continue; // the engine starts at v1
        }
        let body = ask_by_codec(&mut client, kafka::ApiKey::METADATA, version, |w| {
            let topics = Some(&["orders", "no such"][..]);
            metadata::Request {
                topics,
                allow_auto_topic_creation: true,
            }
            .write(version, w)
        });
        let answer = metadata::Response::read(version, &mut Reader::new(&body)).unwrap();
        assert_eq!(answer.topics[0].partitions.len(), 6);
        assert_eq!(answer.topics[0].partitions[1].leader, 2);
        assert_eq!(answer.topics[1].error, ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
}

#[test]
fn metadata_of_all_topics_in_every_version() {
    for version in 0..=13 {
        let mut client = Client::new(BrokerConfig::default());
        client.broker.create_topic("a", 1).unwrap();
        client.broker.create_topic("b", 2).unwrap();
        let all = if version == 0 { Some(Vec::new()) } else { None };
        let answer = client.ask(version, &MetadataRequest::default().with_topics(all));
        assert_eq!(answer.topics.len(), 2);
        let none = MetadataRequest::default().with_topics(Some(Vec::new()));
        let expected = if version == 0 { 2 } else { 0 };
        assert_eq!(client.ask(version, &none).topics.len(), expected);
    }
}

#[test]
fn metadata_by_topic_id() {
    for version in 12..=13 {
        let mut client = Client::new(BrokerConfig::default());
        let id = client.broker.create_topic("a", 1).unwrap();
        let by_id = |id| {
            MetadataRequestTopic::default()
                .with_name(None)
                .with_topic_id(Uuid::from_bytes(id))
        };
        let topics = Some(vec![by_id(id), by_id([9; 16])]);
        let answer = client.ask(version, &MetadataRequest::default().with_topics(topics));
        assert_eq!(answer.topics[0].name.as_ref().map(|n| &n[..]), Some("a"));
        assert_eq!(answer.topics[1].error_code, ErrorCode::UNKNOWN_TOPIC_ID.0);
        assert_eq!(answer.topics[1].topic_id, Uuid::from_bytes([9; 16]));
    }
}

#[test]
fn metadata_makes_no_topic_unless_both_sides_allow_it() {
    for (config, request, made) in [
        (true, true, true),
        (true, false, false),
        (false, true, false),
    ] {
        let mut client = Client::new(BrokerConfig {
            auto_create: config,
            ..BrokerConfig::default()
        });
        let wanted = MetadataRequestTopic::default().with_name(Some(topic_name("x")));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![wanted]))
            .with_allow_auto_topic_creation(request);
        let code = ErrorCode(client.ask(9, &request).topics[0].error_code);
        assert_eq!(code.is_ok(), made);
        assert!(made || code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }
}

#[test]
fn a_topic_made_again_has_another_id_and_no_records() {
    let mut client = Client::with_topic(BrokerConfig::default(), 1);
    let first = client.broker.topic_id("t");
    assert_eq!(
        client.produce_one(&Default::default()),
        (ErrorCode::NONE, 0)
    );
    assert!(client.broker.delete_topic("t"));
    assert!(!client.broker.delete_topic("t"));
    client.broker.create_topic("t", 1).unwrap();
    assert_ne!(client.broker.topic_id("t"), first);
    assert_eq!(
        client.produce_one(&Default::default()),
        (ErrorCode::NONE, 0)
    );
}

#[test]
fn a_node_that_is_down_leads_nothing() {
    for version in 0..=13 {
        let mut client = Client::new(two_nodes());
        client.broker.create_topic("t", 2).unwrap();
        client.broker.set_node_up(2, false);
        let wanted = MetadataRequestTopic::default().with_name(Some(topic_name("t")));
        let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
        let answer = client.ask(version, &request);
        assert_eq!(answer.brokers.len(), 1);
        let partition = &answer.topics[0].partitions[1];
        assert_eq!(partition.error_code, ErrorCode::LEADER_NOT_AVAILABLE.0);
        assert_eq!(partition.leader_id.0, -1);
        client.broker.move_leader("t", 1, 1);
        let answer = client.ask(version, &request);
        assert_eq!(answer.topics[0].partitions[1].leader_id.0, 1);
        let epoch = if version >= 7 { 1 } else { -1 };
        assert_eq!(answer.topics[0].partitions[1].leader_epoch, epoch);
    }
}

#[test]
fn producer_ids_differ_in_every_version_by_both() {
    let mut client = Client::new(BrokerConfig::default());
    let mut ids = Vec::new();
    for version in 0..=5 {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000);
        let answer = client.ask(version, &request);
        assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
        ids.push(answer.producer_id.0);
        let body = ask_by_codec(&mut client, kafka::ApiKey::INIT_PRODUCER_ID, version, |w| {
            init_producer_id::Request::default().write(version, w)
        });
        let answer = init_producer_id::Response::read(version, &mut Reader::new(&body)).unwrap();
        assert_eq!((answer.error, answer.producer_epoch), (ErrorCode::NONE, 0));
        ids.push(answer.producer_id);
    }
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

#[test]
fn producer_ids_for_transactions_or_half_an_identity_are_refused() {
    let mut client = Client::new(BrokerConfig::default());
    let base = InitProducerIdRequest::default().with_transaction_timeout_ms(60_000);
    let id = |text: &str| {
        Some(kafka_protocol::messages::TransactionalId(
            StrBytes::from_string(text.to_owned()),
        ))
    };
    for (request, code) in [
        (
            base.clone().with_transactional_id(id("tx")),
            ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ),
        (
            base.clone().with_transactional_id(id("")),
            ErrorCode::INVALID_REQUEST,
        ),
        (
            base.with_transactional_id(None)
                .with_producer_id(ProducerId(5)),
            ErrorCode::INVALID_REQUEST,
        ),
    ] {
        let answer = client.ask(4, &request);
        assert_eq!(ErrorCode(answer.error_code), code);
        assert_eq!((answer.producer_id.0, answer.producer_epoch), (-1, -1));
    }
}

#[test]
fn there_is_no_coordinator_in_any_version() {
    for version in 0..=6 {
        let mut client = Client::new(BrokerConfig::default());
        let key = StrBytes::from_static_str("group");
        let request = if version >= 4 {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![key])
        } else {
            FindCoordinatorRequest::default().with_key(key)
        };
        let answer = client.ask(version, &request);
        let code = if version >= 4 {
            answer.coordinators[0].error_code
        } else {
            answer.error_code
        };
        assert_eq!(code, ErrorCode::COORDINATOR_NOT_AVAILABLE.0);
    }
}

#[test]
fn topics_have_bounds() {
    let config = BrokerConfig {
        topics_max: 1,
        partitions_max: 5,
        default_partitions: 1,
        ..BrokerConfig::default()
    };
    let mut client = Client::new(config);
    assert_eq!(client.broker.create_topic("a", 6).map_err(|e| e.code()), {
        Err(ErrorCode::INVALID_PARTITIONS)
    });
    client.broker.create_topic("a", 2).unwrap();
    assert!(client.broker.grow_topic("a", 2).is_err());
    client.broker.grow_topic("a", 5).unwrap();
    assert!(client.broker.grow_topic("a", 6).is_err());
    let wanted = MetadataRequestTopic::default().with_name(Some(topic_name("b")));
    let answer = client.ask(
        9,
        &MetadataRequest::default().with_topics(Some(vec![wanted])),
    );
    assert_eq!(answer.topics[0].error_code, ErrorCode::POLICY_VIOLATION.0);
}
