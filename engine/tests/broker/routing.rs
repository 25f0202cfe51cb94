//! What is known of topics and brokers: when it is stale, wrong, shared, or very much.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use ringpost::{Cause, DriverChoice, Outcome, Producer, Record, Topic, TrySendError, Why};
use ringpost_codec::kafka::ApiKey;

use crate::support::*;

/// Refused at once while nobody told of the partition, and asking for it makes it known: no other
/// call and no passing of time brings the news. Each refusal gives its record back.
fn m1_a_partition_that_is_new_is_looked_for(driver: DriverChoice) {
    let server = broker();
    server
        .with(|broker| broker.create_topic("grows", 1))
        .expect("a new topic");
    let producer = producer(&server, driver);
    let topic = producer.topic_blocking("grows").expect("it is there");
    let local = topic.local();
    for (partition, is_local) in [(1, false), (2, true)] {
        server
            .with(|broker| broker.grow_topic("grows", partition + 1))
            .expect("it grows");
        let record = Record::value(b"x").partition(partition);
        let mut delivery = None;
        until("the partition is known", || {
            let offered = if is_local {
                local.try_send(record.clone())
            } else {
                topic.try_send(record.clone())
            };
            match offered {
                Ok(taken) => delivery = Some(taken),
                Err(TrySendError::NoSuchPartition { record: back, .. }) => {
                    assert_eq!(back, record);
                }
                Err(other) => panic!("{other}"),
            }
            delivery.is_some()
        });
        assert_eq!(ack(delivery.expect("just seen")).partition, partition);
    }
    assert!(producer.close(PATIENCE).in_time);
    assert_eq!(server.shutdown().records, 2);
}

/// Two ask for one topic, the first gives up: the other gets it, and the broker is asked for it
/// no more often.
fn m19_a_cancelled_question_leaves_the_others_waiting(driver: DriverChoice) {
    let server = broker();
    let producer = producer(&server, driver);
    producer.topic_blocking("before").expect("it is made");
    server.pause_node(1, true);
    let bells = [(); 3].map(|()| Arc::new(Bell::default()));
    let mut first = Box::pin(producer.topic("shared"));
    let mut second = Box::pin(producer.topic("shared"));
    let mut other = Box::pin(producer.topic("another"));
    assert!(poll(&mut first, &bells[0]).is_pending());
    assert!(poll(&mut second, &bells[1]).is_pending());
    assert!(poll(&mut other, &bells[2]).is_pending());
    drop(first);
    server.pause_node(1, false);
    for (future, bell, name) in [
        (&mut second, &bells[1], "shared"),
        (&mut other, &bells[2], "another"),
    ] {
        until("it is told", || bell.is_rung());
        let Poll::Ready(Ok(topic)) = poll(future, bell) else {
            panic!("it was woken for nothing")
        };
        assert_eq!(topic.name(), name);
        ack(topic.try_send(Record::value(b"x")).expect("room"));
    }
    assert!(producer.close(PATIENCE).in_time);
}

/// Sends a record, and waits until a connection failed for it: one that comes then ends with a cause, even
/// if its deadline is over before anybody looks at it.
fn once_tried(producer: &Producer, topic: &Topic, value: &[u8]) {
    drop(topic.try_send(Record::value(value)).expect("room"));
    until("it was tried", || {
        producer.stats().total().connection_failures > 0
    });
}

/// Metadata names a stranger as the broker: all it ever hears is the question which versions it
/// speaks, no byte of a record; the record is "not written", and says that it was no Kafka.
fn h10_a_stranger_that_metadata_names_hears_no_record(driver: DriverChoice) {
    const SECRET: &[u8] = b"for the broker's eyes only";
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let stranger = listener.local_addr().expect("bound");
    let listening = thread::spawn(move || {
        let mut heard = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepted");
            let mut bytes = vec![0; 4096];
            // One that was given up before its question left says nothing.
            let Ok(len @ 1..) = stream.read(&mut bytes) else {
                continue;
            };
            // The last connection is the test's own, and says so.
            if bytes[..len] == *b"!" {
                break;
            }
            bytes.truncate(len);
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n");
            let _ = stream.read_to_end(&mut bytes);
            heard.push(bytes);
        }
        heard
    });
    let server = broker();
    server
        .with(|broker| broker.create_topic("astray", 1))
        .expect("a new topic");
    let producer = builder(&server, driver)
        .set("delivery_timeout", "300ms")
        .and_then(|b| b.set("reconnect_backoff", "20ms"))
        .expect("settings")
        .build()
        .expect("a producer");
    server.with(|broker| broker.set_node_address(1, "127.0.0.1", stranger.port()));
    let topic = producer.topic_blocking("astray").expect("it is there");
    once_tried(&producer, &topic, SECRET);
    match block_on(topic.try_send(Record::value(SECRET)).expect("room")) {
        Outcome::NotWritten(failure) => {
            assert_eq!((failure.why, failure.attempts), (Why::Expired, 0));
            assert!(
                matches!(
                    failure.last,
                    Some(Cause::Protocol { .. } | Cause::Disconnected { .. })
                ),
                "{failure:#}"
            );
        }
        other => panic!("{other:?}"),
    }
    producer.close(PATIENCE);
    let mut end = std::net::TcpStream::connect(stranger).expect("it listens");
    end.write_all(b"!").expect("it reads");
    let heard = listening.join().expect("no panic");
    assert!(!heard.is_empty());
    for bytes in heard {
        let api_key = i16::from_be_bytes([bytes[4], bytes[5]]);
        assert_eq!(ApiKey(api_key), ApiKey::API_VERSIONS);
        let len = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        assert_eq!(
            usize::try_from(len),
            Ok(bytes.len() - 4),
            "and nothing more"
        );
        assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET));
    }
}

/// With `allowed_hosts`, metadata names a broker at a host that is not among them: nothing ever connects
/// there, and a record for it ends at its deadline, as one whose partition has no leader. Once the broker is
/// at the host of the bootstrap address again, which is always allowed, records are acked.
fn h10_a_host_that_is_not_allowed_is_not_connected_to(driver: DriverChoice) {
    let listener = TcpListener::bind("127.0.0.2:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let stranger = listener.local_addr().expect("bound");
    let server = broker();
    server
        .with(|broker| broker.create_topic("astray", 1))
        .expect("a new topic");
    let producer = builder(&server, driver)
        .set("allowed_hosts", "*.kafka.example, 10.9.9.9")
        .and_then(|b| b.set("delivery_timeout", "300ms"))
        .expect("settings")
        .build()
        .expect("a producer");
    let address = server.addr();
    server.with(|broker| broker.set_node_address(1, "127.0.0.2", stranger.port()));
    let topic = producer.topic_blocking("astray").expect("it is there");
    match block_on(topic.try_send(Record::value(b"not for you")).expect("room")) {
        Outcome::NotWritten(failure) => {
            assert_eq!((failure.why, failure.attempts), (Why::Expired, 0));
            assert_eq!(failure.last, Some(Cause::NoLeader), "{failure:#}");
        }
        other => panic!("{other:?}"),
    }
    server.with(|broker| broker.set_node_address(1, "127.0.0.1", address.port()));
    // Each of these may still end before the news is there.
    until("the broker is found", || {
        let delivery = topic.try_send(Record::value(b"for you")).expect("room");
        matches!(block_on(delivery), Outcome::Acked(_))
    });
    assert!(producer.close(PATIENCE).in_time);
    let nobody = listener.accept().expect_err("nobody came");
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

/// A broker at an address there is no way to: the kernel's words are the cause, the record is "not
/// written"; the next one is acked once the broker is somewhere else, and a bootstrap address of
/// that kind is passed over.
fn n11_an_unreachable_address_is_told_and_left(driver: DriverChoice) {
    // TCP to a multicast address fails in the kernel: nothing leaves this machine.
    const NOWHERE: &str = "224.0.0.1";
    let server = broker();
    server
        .with(|broker| broker.create_topic("unreachable", 1))
        .expect("a new topic");
    let bootstrap = format!("{NOWHERE}:9092,{}", server.bootstrap());
    let producer = builder_at(bootstrap, driver)
        .set("delivery_timeout", "300ms")
        .and_then(|b| b.set("reconnect_backoff", "20ms"))
        .expect("settings")
        .build()
        .expect("a producer");
    let address = server.addr();
    server.with(|broker| broker.set_node_address(1, NOWHERE, 9092));
    let topic = producer.topic_blocking("unreachable").expect("it is there");
    once_tried(&producer, &topic, b"before");
    match block_on(topic.try_send(Record::value(b"lost")).expect("room")) {
        Outcome::NotWritten(failure) => {
            assert_eq!((failure.why, failure.attempts), (Why::Expired, 0));
            let cause = failure.last.expect("a cause");
            let text = cause.to_string();
            assert!(
                matches!(cause, Cause::ConnectFailed { .. })
                    && text.contains(NOWHERE)
                    && text.contains("unreachable"),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
    server.with(|broker| broker.set_node_address(1, "127.0.0.1", address.port()));
    // Each of these may still meet the old address, and says so.
    until("the broker is found", || {
        let delivery = topic.try_send(Record::value(b"found")).expect("room");
        matches!(block_on(delivery), Outcome::Acked(_))
    });
    assert!(producer.close(PATIENCE).in_time);
}

/// In a network of its own, whose routes the test makes: hosts that are unreachable (EHOSTUNREACH), networks
/// without a route (ENETUNREACH) and such as are forbidden (EACCES). The kernel's words are the cause of a
/// record that is "not written" at its deadline, with few tries because of the back-off; one that waits
/// while the way is found is acked.
fn n11_no_route_to_a_host_is_told_and_waited_out(driver: DriverChoice) {
    const CHILD: &str = "RINGPOST_TEST_OWN_NETWORK";
    const ROUTES: &str = "ip link set lo up && ip route add unreachable 198.51.100.0/25 \
        && ip route add prohibit 198.51.100.128/25";
    if std::env::var_os(CHILD).is_none() {
        let own_network = |command: &[&str]| {
            let mut unshare = Command::new("unshare");
            unshare.args(["--user", "--map-root-user", "--net", "sh", "-c"]);
            unshare.arg(format!("{ROUTES} && exec \"$@\"")).arg("sh");
            unshare.args(command).env(CHILD, "1").output()
        };
        if !own_network(&["true"]).is_ok_and(|output| output.status.success()) {
            println!(
                "not looked at: a network of one's own needs unshare, ip, and the right to use them"
            );
            return;
        }
        let name = "n11_no_route_to_a_host_is_told_and_waited_out";
        let test = format!("routing::{driver}::{name}");
        let this = std::env::current_exe().expect("this test");
        let this = this.to_str().expect("a path of letters");
        let output = own_network(&[this, "--exact", &test, "--nocapture"]).expect("it just worked");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    for (nowhere, words) in [
        ("198.51.100.1", "No route to host (os error 113)"),
        ("203.0.113.1", "Network is unreachable (os error 101)"),
        ("198.51.100.200", "Permission denied (os error 13)"),
    ] {
        let server = broker();
        server
            .with(|broker| broker.create_topic("unreachable", 1))
            .expect("a new topic");
        let patience = |delivery_timeout| {
            builder(&server, driver)
                .set("delivery_timeout", delivery_timeout)
                .and_then(|b| b.set("reconnect_backoff", "50ms"))
                .expect("settings")
                .build()
                .expect("a producer")
        };
        let (hasty, patient) = (patience("300ms"), patience("120s"));
        let address = server.addr();
        server.with(|broker| broker.set_node_address(1, nowhere, 9092));
        let topic = hasty.topic_blocking("unreachable").expect("it is there");
        once_tried(&hasty, &topic, b"before");
        match block_on(topic.try_send(Record::value(b"lost")).expect("room")) {
            Outcome::NotWritten(failure) => {
                assert_eq!((failure.why, failure.attempts), (Why::Expired, 0));
                let cause = failure.last.expect("a cause");
                let text = cause.to_string();
                assert!(
                    matches!(cause, Cause::ConnectFailed { .. })
                        && text.contains(nowhere)
                        && text.contains(words),
                    "{text}"
                );
            }
            other => panic!("{other:?}"),
        }
        // After 0, 50, 150 ms and so on.
        let tries = hasty.stats().total().connection_failures;
        assert!((1..=8).contains(&tries), "{tries}");
        let topic = patient.topic_blocking("unreachable").expect("it is there");
        let delivery = topic.try_send(Record::value(b"waits")).expect("room");
        until("it was tried", || {
            patient.stats().total().connection_failures > 0
        });
        server.with(|broker| broker.set_node_address(1, "127.0.0.1", address.port()));
        ack(delivery);
        assert!(hasty.close(PATIENCE).in_time && patient.close(PATIENCE).in_time);
    }
}

/// A million keys in one topic: at no look is more memory in use than the setting, and none is left
/// behind; nor by 2000 partitions that each had one record.
fn b8_many_keys_and_partitions_leave_no_memory_taken(driver: DriverChoice) {
    const MEMORY: usize = 8 << 20;
    let server = broker_with(|broker| broker.keep = ringpost_broker::Keep::Nothing);
    server.with(|broker| {
        broker.create_topic("keys", 12).expect("a new topic");
        broker.create_topic("wide", 2_000).expect("a new topic");
    });
    let producer = builder(&server, driver)
        .memory(MEMORY)
        .max_block(PATIENCE)
        .build()
        .expect("a producer");
    let keys = producer.topic_blocking("keys").expect("it is there");
    for key in 0..1_000_000_u32 {
        let key = key.to_be_bytes();
        let record = Record::keyed(&key, b"");
        match keys.post(record.clone()) {
            Ok(()) => {}
            Err(TrySendError::Full(record)) => {
                assert!(producer.stats().memory_in_use <= MEMORY);
                drop(keys.send_blocking(record).expect("memory comes free"));
            }
            Err(other) => panic!("{other}"),
        }
    }
    producer.flush_blocking(PATIENCE).expect("in time");
    assert_eq!(producer.stats().memory_in_use, 0);
    let wide = producer.topic_blocking("wide").expect("it is there");
    for partition in 0..2_000 {
        let record = Record::value(b"one").partition(partition);
        drop(wide.send_blocking(record).expect("memory comes free"));
    }
    producer.flush_blocking(PATIENCE).expect("in time");
    assert_eq!(producer.stats().memory_in_use, 0);
    let report = producer.close(PATIENCE);
    assert_eq!((report.in_time, report.records_acked), (true, 1_002_000));
}

for_both_drivers!(
    m1_a_partition_that_is_new_is_looked_for,
    m19_a_cancelled_question_leaves_the_others_waiting,
    h10_a_stranger_that_metadata_names_hears_no_record,
    h10_a_host_that_is_not_allowed_is_not_connected_to,
    n11_an_unreachable_address_is_told_and_left,
    n11_no_route_to_a_host_is_told_and_waited_out,
    b8_many_keys_and_partitions_leave_no_memory_taken,
);
