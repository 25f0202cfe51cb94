//! Brokers that stop, start again, lose answers, or answer with what they should not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use ringpost::{Cause, Delivery, DriverChoice, Outcome, Producer, Record, Topic, Why};
use ringpost_broker::numbering;
use ringpost_broker::{ApiKey, ErrorCode, PartitionFault, RequestFault, Server, ServerConfig};

use crate::support::*;

fn patient(server: &Server, driver: DriverChoice) -> Producer {
    builder(server, driver)
        .set("retry_backoff", "5ms")
        .and_then(|b| b.set("reconnect_backoff", "5ms"))
        .and_then(|b| b.set("reconnect_backoff_max", "50ms"))
        .expect("settings")
        .build()
        .expect("a producer")
}

/// The port is closed and opened again while records flow: nothing is lost, doubled or reordered.
fn n9_a_broker_that_restarts_loses_nothing(driver: DriverChoice) {
    let server = broker_with(|broker| broker.numbered = true);
    let producer = patient(&server, driver);
    let topic = producer.topic_blocking("restart").expect("it is made");
    let mut value = [0; 100];
    let mut number = 0;
    for _ in 0..4 {
        let before = server.report().records;
        for _ in 0..2000 {
            numbering::stamp(&mut value, 1, number);
            number += 1;
            drop(
                topic
                    .send_blocking(Record::value(&value).partition(0))
                    .expect("room"),
            );
        }
        until("some arrive", || server.report().records > before);
        server.stop_node(1);
        server.start_node(1).expect("the port is ours");
    }
    let report = producer.close(PATIENCE);
    assert_eq!(
        (report.in_time, report.records_acked),
        (true, number),
        "{report:?}"
    );
    let report = server.shutdown();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.records, number);
}

/// The same with a broker that comes back empty, on the same port.
fn a_broker_that_comes_back_is_found_again(driver: DriverChoice) {
    let server = broker();
    let address = server.addr();
    let producer = patient(&server, driver);
    let topic = producer.topic_blocking("again").expect("it is made");
    ack(topic
        .try_send(Record::value(b"before").partition(0))
        .expect("room"));
    server.shutdown();
    let delivery = topic
        .try_send(Record::value(b"after").partition(0))
        .expect("room");
    until("it is missed", || {
        producer.stats().total().connection_failures > 0
    });
    let mut config = ServerConfig::storing();
    config.listen = address;
    let server = Server::start(config).expect("the port is ours");
    // Who asks for it first makes it just so.
    let _ = server.with(|broker| broker.create_topic("again", 6));
    ack(delivery);
    assert_eq!(stored(&server, "again")[0].text(), "after");
    assert!(producer.close(PATIENCE).in_time);
}

/// 20,000 records acked and stored once, in order, over lost, cut and omitted answers.
fn i1_lost_answers_make_no_duplicates(driver: DriverChoice) {
    let server = broker_with(|broker| broker.numbered = true);
    server.with(|broker| {
        broker.create_topic("answers", 1).expect("a new topic");
        let faults = broker.faults();
        for fault in [
            Some(RequestFault::CloseAfter),
            None,
            Some(RequestFault::CutAnswer(7)),
            Some(RequestFault::CloseBefore),
            None,
            Some(RequestFault::CutAnswer(0)),
        ] {
            faults.next_request(ApiKey::Produce, fault);
        }
        for fault in [
            None,
            Some(PartitionFault::ErrorAfter(ErrorCode::REQUEST_TIMED_OUT)),
            Some(PartitionFault::ErrorBefore(
                ErrorCode::NOT_LEADER_OR_FOLLOWER,
            )),
            Some(PartitionFault::OmitAfter),
        ] {
            faults.next_batch("answers", 0, fault);
        }
    });
    let producer = patient(&server, driver);
    let topic = producer.topic_blocking("answers").expect("it is there");
    let mut value = [0; 50];
    for number in 0..20_000 {
        numbering::stamp(&mut value, 1, number);
        topic
            .send_blocking(Record::value(&value))
            .map(drop)
            .expect("room");
    }
    let report = producer.close(PATIENCE);
    assert_eq!((report.in_time, report.records_acked), (true, 20_000));
    assert!(producer.stats().total().retries > 0);
    let report = server.shutdown();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.records, 20_000);
}

/// A single record the broker finds too large is "not written" with MESSAGE_TOO_LARGE, and the lane
/// goes on.
fn b3_refused_records_say_why(driver: DriverChoice) {
    let server = broker_with(|broker| broker.message_bytes_max = 5000);
    let producer = patient(&server, driver);
    let topic = producer.topic_blocking("strict").expect("it is made");
    let large = [b'x'; 6000];
    match block_on(
        topic
            .try_send(Record::value(&large).partition(0))
            .expect("room"),
    ) {
        Outcome::NotWritten(failure) => {
            assert_eq!(failure.why, Why::Rejected);
            assert!(
                matches!(
                    failure.last,
                    Some(Cause::Broker {
                        code: ErrorCode::MESSAGE_TOO_LARGE,
                        ..
                    })
                ),
                "{failure:#}"
            );
        }
        other => panic!("{other:?}"),
    }
    // The lane goes on.
    ack(topic
        .try_send(Record::value(b"small").partition(0))
        .expect("room"));
    assert!(producer.close(PATIENCE).in_time);
    assert!(server.shutdown().is_clean());
}

/// What is sent instead of an answer; nothing ends the connection.
type Spoil = fn(&[u8]) -> Vec<u8>;

/// What stands between the producer and a real broker, and spoils answers to Produce requests.
struct Spoiler {
    port: u16,
}

impl Spoiler {
    /// `spoil` is given the length and the body of each answer behind the first `good` ones and
    /// returns what is sent instead.
    fn start(server: &Server, good: usize, spoil: Spoil) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let upstream = server.addr();
        thread::spawn(move || {
            for down in listener.incoming() {
                let (Ok(down), Ok(up)) = (down, TcpStream::connect(upstream)) else {
                    return;
                };
                thread::spawn(move || Self::pass(&down, &up, good, spoil));
            }
        });
        Self { port }
    }

    fn pass(down: &TcpStream, up: &TcpStream, good: usize, spoil: Spoil) {
        thread::scope(|scope| {
            scope.spawn(move || {
                let (mut down, mut up) = (down, up);
                let mut bytes = [0; 4096];
                while let Ok(n @ 1..) = down.read(&mut bytes) {
                    if up.write_all(&bytes[..n]).is_err() {
                        break;
                    }
                }
                let _ = up.shutdown(Shutdown::Both);
            });
            let (mut from, mut to) = (up, down);
            for number in 0.. {
                let mut length = [0; 4];
                if from.read_exact(&mut length).is_err() {
                    break;
                }
                let mut answer = length.to_vec();
                let len = usize::try_from(u32::from_be_bytes(length)).expect("64 bits");
                answer.resize(4 + len, 0);
                if from.read_exact(&mut answer[4..]).is_err() {
                    break;
                }
                let sent = if number < good {
                    answer
                } else {
                    spoil(&answer)
                };
                let whole = !sent.is_empty();
                if to.write_all(&sent).is_err() || !whole {
                    break;
                }
            }
            let _ = down.shutdown(Shutdown::Both);
            let _ = up.shutdown(Shutdown::Both);
        });
    }
}

/// Answers that are cut off, too long, for other questions, or noise: the connection ends, nothing
/// is acknowledged that was not, and memory stays bounded.
fn h6_h1_spoiled_answers_acknowledge_nothing(driver: DriverChoice) {
    let spoilers: [Spoil; 8] = [
        |answer| answer[..answer.len() / 2].to_vec(),
        |_| vec![0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1],
        |_| vec![0xff; 64],
        |_| vec![0, 0, 0, 0],
        |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        |answer| {
            let mut other = answer.to_vec();
            other[7] ^= 0x55; // the correlation id
            other
        },
        |answer| {
            let mut shorter = answer[..answer.len() - 3].to_vec();
            let len = u32::try_from(shorter.len() - 4).expect("short");
            shorter[..4].copy_from_slice(&len.to_be_bytes());
            shorter
        },
        |_| Vec::new(),
    ];
    // All at a time: each takes its delivery timeout.
    let sent: Vec<_> = spoilers
        .into_iter()
        .map(|spoil| send_through(spoil, driver))
        .collect();
    for (number, (server, producer, topic, mut delivery)) in sent.into_iter().enumerate() {
        let failure = loop {
            match in_time(move || delivery.wait()) {
                Outcome::Unknown(failure) => break failure,
                // It never left, so nothing was answered.
                Outcome::NotWritten(failure) if failure.attempts == 0 => {
                    delivery = topic.try_send(Record::value(b"x")).expect("room");
                }
                other => panic!("{number}: {other:?}"),
            }
        };
        assert_eq!(failure.why, Why::Expired, "{number}: {failure:#}");
        assert!(producer.close(PATIENCE).in_time);
        assert_eq!(producer.stats().memory_in_use, 0);
        assert!(
            server.shutdown().records <= 1,
            "{number}: a retry is recognised"
        );
    }
}

/// Sends a record on a connection whose answers are spoiled from the first Produce on.
fn send_through(spoil: Spoil, driver: DriverChoice) -> (Server, Producer, Topic, Delivery) {
    let server = broker();
    server
        .with(|broker| broker.create_topic("spoiled", 1))
        .expect("a new topic");
    // The first answer of each connection is the one to ApiVersions.
    let spoiler = Spoiler::start(&server, 1, spoil);
    let producer = builder(&server, driver)
        .set("delivery_timeout", "1s")
        .and_then(|b| b.set("retry_backoff", "5ms"))
        .and_then(|b| b.set("reconnect_backoff", "5ms"))
        .and_then(|b| b.set("request_timeout", "100ms"))
        .expect("settings")
        .build()
        .expect("a producer");
    server.with(|broker| broker.set_node_address(1, "127.0.0.1", spoiler.port));
    let topic = producer.topic_blocking("spoiled").expect("it is there");
    // Otherwise the record may expire before there is a connection to send it on.
    producer.warm_up_blocking(&["spoiled"]).expect("in time");
    let delivery = topic.try_send(Record::value(b"x")).expect("room");
    (server, producer, topic, delivery)
}

/// What a peer answers that is gone, or going, once a request came.
#[derive(Debug, Clone, Copy)]
enum End {
    /// A reset.
    Reset,
    /// An orderly end.
    Fin,
    /// A reset, and nobody listens any more.
    Refused,
}

/// With one attempt, and no timeout of ours that could pass within the test: that a peer is gone is known
/// because the kernel says so. A request in flight ends as Unknown by its connection's end, a connect to
/// where nobody listens as "not written" by the refusal; that the test ends at all shows the rest.
fn n2_n11_what_the_kernel_knows_of_a_dead_peer_needs_no_timeout(driver: DriverChoice) {
    for end in [End::Reset, End::Fin, End::Refused] {
        let server = broker();
        let producer = builder(&server, driver)
            .set("request_timeout", "60m")
            .and_then(|b| b.set("connect_timeout", "60m"))
            .and_then(|b| b.set("delivery_timeout", "120m"))
            .and_then(|b| b.set("user_timeout", "0"))
            .and_then(|b| b.set("keepalive", "0"))
            .and_then(|b| b.set("idle_probe", "0"))
            .and_then(|b| b.set("retry_attempts", "1"))
            .and_then(|b| b.set("idempotent", "false"))
            .expect("settings")
            .build()
            .expect("a producer");
        let topic = producer.topic_blocking("gone").expect("it is made");
        ack(topic.try_send(Record::value(b"before")).expect("room"));
        let fault = match end {
            End::Fin => RequestFault::CloseAfter,
            End::Reset | End::Refused => RequestFault::Ignore,
        };
        let faults = |broker: &mut ringpost_broker::Broker| {
            broker.faults().next_request(ApiKey::Produce, Some(fault));
        };
        server.with(faults);
        let delivery = topic.try_send(Record::value(b"in flight")).expect("room");
        until("the broker has read it", || {
            server.with(|broker| broker.faults().is_empty())
        });
        match end {
            End::Fin => {}
            End::Reset => server.drop_connections(1),
            End::Refused => server.kill_node(1),
        }
        match block_on(delivery) {
            Outcome::Unknown(failure) => {
                let last = failure.last.as_ref();
                assert!(
                    matches!(last, Some(Cause::Disconnected { .. })),
                    "{end:?}: {failure:#}"
                );
            }
            other => panic!("{end:?}: {other:?}"),
        }
        if let End::Refused = end {
            // It waits for a connection, whose refusals are told by the kernel one after the other.
            let delivery = topic.try_send(Record::value(b"refused")).expect("room");
            until("it is refused again and again", || {
                producer.stats().total().connection_failures >= 4
            });
            server.start_node(1).expect("the port is ours");
            ack(delivery);
        } else {
            ack(topic.try_send(Record::value(b"after")).expect("room"));
        }
        assert!(producer.close(PATIENCE).in_time);
    }
}

for_both_drivers!(
    n2_n11_what_the_kernel_knows_of_a_dead_peer_needs_no_timeout,
    n9_a_broker_that_restarts_loses_nothing,
    a_broker_that_comes_back_is_found_again,
    i1_lost_answers_make_no_duplicates,
    b3_refused_records_say_why,
    h6_h1_spoiled_answers_acknowledge_nothing,
);
