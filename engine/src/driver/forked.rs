//! A process that forks with a producer in it: the child may drop it, and the parent goes on.
//!
//! Here, because only a driver may call what is `unsafe`.

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use ringpost_broker::{Server, ServerConfig};

use crate::{Builder, DriverChoice, Pin, Producer, Record};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `act` in a child process; returns whether it came to its end.
fn in_child(act: impl FnOnce()) -> bool {
    // SAFETY: the child runs `act` and ends by `_exit`; of this process's other threads, which it
    // does not have, it needs nothing but the allocator, which libc keeps sound over a fork.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        // SAFETY: it takes no pointers. It ends a child that hangs.
        unsafe { libc::alarm(30) };
        let result = panic::catch_unwind(AssertUnwindSafe(act));
        // SAFETY: it takes no pointers and does not come back.
        unsafe { libc::_exit(i32::from(result.is_err())) };
    }
    let mut status = 0;
    // SAFETY: the pointer is to a live local.
    let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(ended, child, "waitpid");
    status == 0
}

fn with_server(test: impl Fn(&Server, Builder)) {
    for driver in [DriverChoice::Ring, DriverChoice::Epoll] {
        let server = Server::start(ServerConfig::storing()).expect("a free port");
        server
            .with(|broker| broker.create_topic("forked", 1))
            .expect("a new topic");
        let builder = Producer::builder()
            .bootstrap(server.bootstrap())
            .driver(driver)
            .pin(Pin::Off);
        test(&server, builder);
        let report = server.shutdown();
        assert!(report.is_clean(), "{driver}: {report:?}");
        assert_eq!(report.records, 200, "{driver}");
    }
}

/// The child drops the last handles of its copy without a crash or a hang; the parent's connections
/// stay as they were, and its next records are acked over them.
#[test]
fn c6_a_child_drops_a_producer_and_the_parent_goes_on() {
    with_server(|server, builder| {
        let producer = builder.build().expect("a producer");
        let topic = producer.topic_blocking("forked").expect("it is there");
        let mut held = Some((producer, topic));
        let send = |held: &Option<(Producer, crate::Topic)>| {
            let (producer, topic) = held.as_ref().expect("the parent's");
            for _ in 0..100 {
                topic.post(Record::value(b"x")).expect("room");
            }
            producer.flush_blocking(PATIENCE).expect("in time");
            producer.stats().total()
        };
        send(&held);
        let connections = server.connections();
        assert!(in_child(|| drop(held.take())), "the child crashed or hung");
        let stats = send(&held);
        assert_eq!(server.connections(), connections);
        assert_eq!((stats.records_acked, stats.connection_failures), (200, 0));
    });
}

/// The same with an engine that the application drives: dropping it in the child touches neither
/// the ring nor a socket of the parent's.
#[test]
fn c6_a_child_drops_an_embedded_engine_and_the_parent_goes_on() {
    with_server(|server, builder| {
        let (producer, mut engine) = builder.build_embedded().expect("an engine");
        let topic = engine
            .topic(&producer, "forked", PATIENCE)
            .expect("it is there");
        let mut held = Some((engine, producer, topic));
        let send = |held: &mut Option<(crate::Embedded, Producer, crate::Topic)>| {
            let (engine, producer, topic) = held.as_mut().expect("the parent's");
            for _ in 0..100 {
                topic.post(Record::value(b"x")).expect("room");
            }
            let flush = producer.flush();
            engine.run_until(flush, PATIENCE).expect("in time");
            producer.stats().total()
        };
        send(&mut held);
        let connections = server.connections();
        assert!(in_child(|| drop(held.take())), "the child crashed or hung");
        let stats = send(&mut held);
        assert_eq!(server.connections(), connections);
        assert_eq!((stats.records_acked, stats.connection_failures), (200, 0));
    });
}
