//! The server: real sockets on 127.0.0.1.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiVersionsRequest, FetchRequest, MetadataRequest, ProduceRequest};
use kafka_protocol::protocol::Request;
use ringpost_broker::{
    ApiKey, BrokerConfig, Closed, ErrorCode, Keep, Mode, Replication, Report, RequestFault, Server,
    ServerConfig,
};

use crate::support::{BatchOf, Produce, frame, read_answer, topic_name};

/// A test hangs no longer than this, if the server does not answer.
const PATIENCE: Duration = Duration::from_secs(20);

struct Connection(TcpStream);

impl Connection {
    fn to(addr: impl std::net::ToSocketAddrs) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn answer(&mut self) -> Bytes {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).unwrap();
        [&length[..], &frame].concat().into()
    }

    fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.0.write_all(&frame(5, version, request)).unwrap();
        read_answer::<R>(&mut self.answer(), 5, version)
    }

    fn produce(&mut self, batch: &BatchOf) -> i64 {
        self.0.write_all(&produce(0, batch)).unwrap();
        let answer = read_answer::<ProduceRequest>(&mut self.answer(), 0, 9);
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, 0);
        partition.base_offset
    }

    /// The other side has closed: nothing more can be read.
    fn is_over(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(n) => n == 0,
            Err(e) => e.kind() == ErrorKind::ConnectionReset,
        }
    }
}

fn produce(correlation_id: i32, batch: &BatchOf) -> Vec<u8> {
    let batches = vec![(0, batch.build())];
    Produce {
        version: 9,
        acks: -1,
        topic: "t",
        topic_id: [0; 16],
        batches,
    }
    .by_codec(correlation_id)
}

fn records(count: usize) -> BatchOf {
    // Stamped in the past, whatever the host's clock says.
    BatchOf {
        timestamp: 1_000,
        ..BatchOf::records(count)
    }
}

fn server() -> Server {
    let server = Server::start(ServerConfig::storing()).unwrap();
    server.with(|b| b.create_topic("t", 1)).unwrap();
    server
}

#[test]
fn answers_come_in_order_over_several_connections_at_once() {
    let server = server();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let addr = server.addr();
            std::thread::spawn(move || {
                let mut c = Connection::to(addr);
                let requests: Vec<u8> = (0..50).flat_map(|id| produce(id, &records(3))).collect();
                c.0.write_all(&requests).unwrap();
                let mut last = -1;
                for id in 0..50 {
                    let answer = read_answer::<ProduceRequest>(&mut c.answer(), id, 9);
                    let offset = answer.responses[0].partition_responses[0].base_offset;
                    assert!(offset > last);
                    last = offset;
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let report = server.shutdown();
    assert_eq!((report.records, report.requests), (600, 200));
    assert!(report.is_clean());
}

#[test]
fn large_requests_in_every_mode() {
    for mode in [Mode::Verify, Mode::Ack] {
        let server = Server::start(ServerConfig::with_mode(mode)).unwrap();
        server.with(|b| b.create_topic("t", 1)).unwrap();
        let mut c = Connection::to(server.addr());
        let batch = BatchOf {
            values: vec![vec![1; 1000]; 1000],
            ..records(0)
        };
        for i in 0..20 {
            assert_eq!(c.produce(&batch), i * 1000);
        }
        assert_eq!(server.shutdown().records, 20_000);
    }
}

#[test]
fn a_held_fetch_is_answered_when_records_come() {
    let server = server();
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(topic_name("t"))
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_wait_ms(i32::MAX)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic]);
    // Asks before, during and after: however the threads run, one Fetch sees the record.
    let mut reader = Connection::to(server.addr());
    reader.0.write_all(&frame(5, 11, &request)).unwrap();
    let mut writer = Connection::to(server.addr());
    writer.produce(&records(2));
    loop {
        let answer = read_answer::<FetchRequest>(&mut reader.answer(), 5, 11);
        let data = &answer.responses[0].partitions[0];
        if data.high_watermark == 2 {
            assert!(data.records.as_ref().is_some_and(|r| !r.is_empty()));
            break;
        }
        reader.0.write_all(&frame(5, 11, &request)).unwrap();
    }
}

#[test]
fn shutdown_ends_idle_held_and_half_sent_connections() {
    let server = server();
    let idle = Connection::to(server.addr());
    let mut half = Connection::to(server.addr());
    half.0.write_all(&[0, 0, 1, 0, 0]).unwrap();
    let mut held = Connection::to(server.addr());
    server.with(|b| {
        b.faults()
            .next_request(ApiKey::Metadata, Some(RequestFault::Delay(i64::MAX)));
    });
    held.0
        .write_all(&frame(1, 9, &MetadataRequest::default().with_topics(None)))
        .unwrap();
    // An answer on a connection made later shows that the earlier ones are adopted.
    let mut live = Connection::to(server.addr());
    live.ask(0, &ApiVersionsRequest::default());
    assert_eq!(server.connections(), 4);
    let addr = server.addr();
    let _: Report = server.shutdown();
    for mut c in [idle, half, held, live] {
        assert!(c.is_over());
    }
    assert!(TcpStream::connect(addr).is_err(), "nobody listens");
}

#[test]
fn protocol_errors_end_one_connection_and_are_remembered() {
    let server = server();
    let mut bad = Connection::to(server.addr());
    bad.0.write_all(&[0xff; 8]).unwrap();
    assert!(bad.is_over());
    let mut good = Connection::to(server.addr());
    assert_eq!(good.produce(&records(1)), 0);
    // The reason is noted before the socket is closed.
    let closings = server.closings();
    assert!(
        matches!(closings[..], [Closed::FrameLength { length: -1, .. }]),
        "{closings:?}"
    );
}

#[test]
fn nodes_share_one_cluster_and_can_be_stopped_and_started() {
    let config = ServerConfig {
        nodes: 2,
        ..ServerConfig::storing()
    };
    let server = Server::start(config).unwrap();
    server.with(|b| b.create_topic("t", 2)).unwrap();
    let bootstrap = server.bootstrap();
    let addrs: Vec<&str> = bootstrap.split(',').collect();
    let mut second = Connection::to(addrs[1]);
    let answer = second.ask(12, &MetadataRequest::default().with_topics(None));
    let told: Vec<String> = answer
        .brokers
        .iter()
        .map(|b| format!("{}:{}", &*b.host, b.port))
        .collect();
    assert_eq!(told, addrs);
    let mut first = Connection::to(addrs[0]);
    assert_eq!(first.produce(&records(1)), 0);
    // Partition 0 is led by node 1.
    second.0.write_all(&produce(1, &records(1))).unwrap();
    let answer = read_answer::<ProduceRequest>(&mut second.answer(), 1, 9);
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 6);

    server.stop_node(2);
    assert!(second.is_over());
    assert!(TcpStream::connect(addrs[1]).is_err());
    assert_eq!(first.produce(&records(1)), 1, "the other node goes on");
    server.start_node(2).unwrap();
    let mut second = Connection::to(addrs[1]);
    second.ask(0, &ApiVersionsRequest::default());
    server.drop_connections(1);
    assert!(first.is_over());
    Connection::to(addrs[0]).ask(0, &ApiVersionsRequest::default());
}

#[test]
fn a_paused_node_is_silent_and_goes_on_where_it_was() {
    let server = server();
    let mut c = Connection::to(server.addr());
    assert_eq!(c.produce(&records(1)), 0);
    server.pause_node(1, true);
    c.0.write_all(&produce(7, &records(1))).unwrap();
    // Whatever arrives meanwhile is not worked on: the report does not move.
    assert_eq!(server.report().records, 1);
    server.pause_node(1, false);
    let answer = read_answer::<ProduceRequest>(&mut c.answer(), 7, 9);
    assert_eq!(answer.responses[0].partition_responses[0].base_offset, 1);
    server.pause_node(1, true);
    c.0.write_all(&produce(8, &records(1))).unwrap();
    drop(server); // ends a paused connection too
    assert!(c.is_over());
}

#[test]
fn connections_have_a_bound() {
    let config = ServerConfig {
        connections_max: 1,
        ..ServerConfig::storing()
    };
    let server = Server::start(config).unwrap();
    let mut first = Connection::to(server.addr());
    first.ask(0, &ApiVersionsRequest::default());
    let mut second = Connection::to(server.addr());
    assert!(second.is_over());
    first.ask(0, &ApiVersionsRequest::default());
    first.0.shutdown(Shutdown::Both).unwrap();
}

#[test]
fn a_large_answer_to_a_client_that_does_not_read_does_not_stop_shutdown() {
    let config = ServerConfig {
        broker: BrokerConfig {
            keep: ringpost_broker::Keep::Everything,
            ..BrokerConfig::default()
        },
        ..ServerConfig::default()
    };
    let server = Server::start(config).unwrap();
    server.with(|b| b.create_topic("t", 1)).unwrap();
    let mut writer = Connection::to(server.addr());
    let batch = BatchOf {
        values: vec![vec![1; 1000]; 1000],
        ..records(0)
    };
    for _ in 0..8 {
        writer.produce(&batch);
    }
    let partition = FetchPartition::default().with_partition_max_bytes(i32::MAX);
    let topic = FetchTopic::default()
        .with_topic(topic_name("t"))
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_bytes(i32::MAX)
        .with_topics(vec![topic]);
    let mut deaf = Connection::to(server.addr());
    for _ in 0..8 {
        deaf.0.write_all(&frame(5, 11, &request)).unwrap();
    }
    let mut live = Connection::to(server.addr());
    live.ask(0, &ApiVersionsRequest::default());
    assert_eq!(server.shutdown().records, 8000);
}

/// A connection whose answer is held back ends when it is told to; the next one is served.
#[test]
fn n1_connections_with_a_held_answer_can_be_dropped() {
    let server = server();
    let ask = frame(5, 9, &MetadataRequest::default().with_topics(None));
    server.with(|b| {
        b.faults()
            .next_request(ApiKey::Metadata, Some(RequestFault::Delay(i64::MAX)));
    });
    let mut held = Connection::to(server.addr());
    held.0.write_all(&ask).unwrap();
    // Nobody else asks before its turn in the script has come: else the other would be held.
    while !server.with(|b| b.faults().is_empty()) {
        std::thread::yield_now();
    }
    let mut live = Connection::to(server.addr());
    live.0.write_all(&ask).unwrap();
    read_answer::<MetadataRequest>(&mut live.answer(), 5, 9);
    server.drop_connections(1);
    assert!(held.is_over());
    let mut next = Connection::to(server.addr());
    assert_eq!(next.produce(&records(1)), 0);
}

fn cluster() -> Server {
    let server = Server::start(ServerConfig {
        nodes: 3,
        broker: BrokerConfig {
            keep: Keep::Everything,
            replication: Replication {
                factor: 3,
                min_insync: 2,
                fetch_delay_ms: 1,
                session_ms: 1,
                ..Replication::default()
            },
            ..BrokerConfig::default()
        },
        ..ServerConfig::default()
    })
    .unwrap();
    server.with(|b| b.create_topic("t", 1)).unwrap();
    server
}

/// The address of a node of the cluster.
fn address(server: &Server, node: usize) -> String {
    let all = server.bootstrap();
    all.split(',').nth(node - 1).unwrap().to_owned()
}

/// Waits until somebody else than `node` leads, and says who.
fn successor(server: &Server, node: i32) -> usize {
    loop {
        let leader = server.with(|b| b.leader("t", 0)).unwrap();
        if leader > 0 && leader != node {
            return usize::try_from(leader).unwrap();
        }
    }
}

/// A killed leader ends its connections, another leads with what was acknowledged, and the killed
/// one is in sync again after its start.
#[test]
fn n9_a_killed_node_is_replaced_and_comes_back() {
    let server = cluster();
    let mut first = Connection::to(server.addr());
    assert_eq!(first.produce(&records(3)), 0);
    server.kill_node(1);
    assert!(first.is_over());
    let leader = successor(&server, 1);
    let mut second = Connection::to(address(&server, leader));
    assert_eq!(second.produce(&records(2)), 3);
    server.start_node(1).unwrap();
    while server.with(|b| b.partition_state("t", 0).unwrap().isr.len()) < 3 {}
    let logs = server.with(|b| (b.replica_log(1, "t", 0), b.replica_log(2, "t", 0)));
    assert_eq!(logs.0, logs.1);
    assert_eq!(logs.0.unwrap().len(), 2);
}

/// A paused leader answers nothing while others lead, and everything when it goes on.
#[test]
fn n9_a_paused_node_answers_when_it_goes_on() {
    let server = cluster();
    let mut first = Connection::to(server.addr());
    assert_eq!(first.produce(&records(1)), 0);
    server.pause_node(1, true);
    first.0.write_all(&produce(0, &records(1))).unwrap();
    let leader = successor(&server, 1);
    let mut second = Connection::to(address(&server, leader));
    assert_eq!(second.produce(&records(1)), 1);
    server.pause_node(1, false);
    let answer = read_answer::<ProduceRequest>(&mut first.answer(), 0, 9);
    let code = answer.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ErrorCode::NOT_LEADER_OR_FOLLOWER.0);
}

/// A slow node answers everything, in order, though it holds each answer back (how long is seen in
/// pretend time, in `faults`).
#[test]
fn v3_a_slow_server_answers_everything_in_order() {
    let server = cluster();
    server.slow_node(1, 3);
    let mut slow = Connection::to(server.addr());
    for id in 0..4 {
        slow.0.write_all(&produce(id, &records(1))).unwrap();
    }
    for id in 0..4 {
        let answer = read_answer::<ProduceRequest>(&mut slow.answer(), id, 9);
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(partition.base_offset, i64::from(id));
    }
    server.slow_node(1, 0);
    assert_eq!(slow.produce(&records(1)), 4);
}
