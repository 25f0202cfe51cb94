//! Limits of the process that are reached while a producer is built, connects or sends.
//!
//! The test runs itself again as a child, under one limit after the other, so that each of the
//! things it needs is once the first that it does not get. The child says what came of it in words
//! that the parent looks at.

use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringpost::{DriverChoice, Outcome, Pin, Producer, Record, Shards};
use ringpost_broker::{Server, ServerConfig};

/// For the child: the broker's address and the driver.
const CHILD: &str = "RINGPOST_TEST_LIMITS";
const PATIENCE: Duration = Duration::from_secs(60);

/// One record through a producer of its own, and how far it came.
fn send_one(bootstrap: &str, driver: DriverChoice) -> String {
    let builder = Producer::builder()
        .bootstrap(bootstrap)
        .driver(driver)
        .pin(Pin::Off)
        .memory(64 << 20)
        .topic_timeout(Duration::from_millis(300))
        .set("delivery_timeout", "5s")
        .expect("a setting");
    let producer = match builder.build() {
        Ok(producer) => producer,
        Err(error) => return format!("not built: {error}"),
    };
    let came_to = match producer.topic_blocking("limits") {
        Err(error) => format!("no topic: {error}"),
        Ok(topic) => match topic
            .try_send(Record::value(b"x"))
            .map(ringpost::Delivery::wait)
        {
            Err(error) => format!("refused: {error}"),
            Ok(Outcome::Acked(_)) => "acked".to_owned(),
            Ok(Outcome::NotWritten(failure)) => format!("not written: {:?}", failure.last),
            Ok(other) => format!("odd: {other:?}"),
        },
    };
    let report = producer.close(PATIENCE);
    let stats = producer.stats();
    let total = stats.total();
    if !report.in_time || stats.memory_in_use > 0 {
        return format!("odd: {report:?}, {} bytes left", stats.memory_in_use);
    }
    // Turns and tries of some seconds with their back-offs; whoever spins makes a hundred times more.
    if total.turns > 5_000 || total.connection_failures > 100 {
        return format!(
            "busy: {} turns, {} failures",
            total.turns, total.connection_failures
        );
    }
    came_to
}

/// What the process has of what a producer takes: descriptors, threads, locked memory, rings.
fn holdings() -> Vec<String> {
    let mut descriptors: Vec<_> = fs::read_dir("/proc/self/fd")
        .expect("Linux, and a descriptor to read this")
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .filter(|target| !target.starts_with("/proc/"))
        .collect();
    descriptors.sort();
    let threads = fs::read_dir("/proc/self/task").expect("Linux").count();
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let locked = status.lines().find(|line| line.starts_with("VmLck:"));
    let maps = fs::read_to_string("/proc/self/maps").expect("Linux");
    let rings = maps.lines().filter(|line| line.contains("io_uring"));
    let rings = rings.count();
    let rest = format!("{threads} threads, {rings} rings' memory, {locked:?}");
    descriptors.into_iter().chain([rest]).collect()
}

/// Builds a producer of three shards, drops it if that works, and looks at what is left.
fn build_and_drop(driver: DriverChoice) -> String {
    let build = || {
        Producer::builder()
            .bootstrap("127.0.0.1:1")
            .driver(driver)
            .pin(Pin::Off)
            .memory(64 << 20)
            .shards(Shards::Count(3))
            .build()
    };
    let before = holdings();
    let error = match build() {
        Ok(producer) => {
            producer.close(PATIENCE);
            return "built".to_owned();
        }
        Err(error) => error,
    };
    // A thread that was waited for is counted until the kernel is through with it, which nothing tells.
    let mut after = holdings();
    for _ in 0..200_000 {
        if before == after {
            return format!("not built: {error}");
        }
        std::thread::yield_now();
        after = holdings();
    }
    format!("{error}, and left: {after:?} of {before:?}")
}

/// Lets the process have so many more descriptors and no further one, or as many as before.
fn allow_descriptors(more: Option<u64>) {
    let resource = Resource::RLIMIT_NOFILE;
    let (_, most) = getrlimit(resource).expect("it can be asked");
    let limit = more.map_or(most, |more| {
        // The kernel gives the lowest free number, and none from the limit on.
        let is_open = |number: &u64| fs::read_link(format!("/proc/self/fd/{number}")).is_ok();
        let mut free = (0..).filter(|number| !is_open(number));
        free.nth(usize::try_from(more).expect("few"))
            .expect("no end of numbers")
    });
    setrlimit(resource, limit, most).expect("no more than there was");
}

/// Three records to three brokers. The connection to the first, second, third of them is the first that gets
/// no descriptor; once that was seen twice, there are enough again.
fn refuse_in_turn(bootstrap: &str, driver: DriverChoice) -> String {
    for allowed in 0..3 {
        let producer = Producer::builder()
            .bootstrap(bootstrap)
            .driver(driver)
            .pin(Pin::Off)
            .memory(64 << 20)
            .shards(Shards::Count(1))
            // Nobody but the shard asks for a descriptor meanwhile, or lets go of one.
            .set("retry_backoff_max", "30s")
            .and_then(|b| b.set("retry_backoff", "30s"))
            .expect("settings")
            .build()
            .expect("a producer");
        let topic = producer.topic_blocking("limits").expect("it is there");
        allow_descriptors(Some(allowed));
        let deliveries: Vec<_> = (0..3)
            .map(|partition| Record::value(b"x").partition(partition))
            .map(|record| topic.try_send(record).expect("room"))
            .collect();
        let total = loop {
            let total = producer.stats().total();
            if total.connection_failures >= 2 && total.connections >= allowed {
                break total;
            }
            std::thread::yield_now();
        };
        allow_descriptors(None);
        for delivery in deliveries {
            match delivery.wait() {
                Outcome::Acked(_) => {}
                other => return format!("odd: {other:?}"),
            }
        }
        if total.connections != allowed || total.turns > 5_000 {
            return format!("odd: more than {allowed} connected, or busy: {total:?}");
        }
        let report = producer.close(PATIENCE);
        if !report.in_time || report.records_acked != 3 {
            return format!("odd: {report:?}");
        }
    }
    "all acked".to_owned()
}

/// Runs a test of this file again, as a child under a limit (options of the shell's `ulimit`), and
/// returns what it said it came to.
fn under(limit: &str, test: &str, words: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", "ulimit $LIMIT && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", test, "--nocapture"])
        .env("LIMIT", limit)
        .env(CHILD, words)
        .output()
        .expect("run this test again");
    let text = String::from_utf8_lossy(&output.stdout);
    let said = text
        .lines()
        .find_map(|line| line.split_once("child: "))
        .map(|(_, said)| said.to_owned());
    assert!(
        output.status.success() && said.is_some(),
        "{words} under ulimit {limit}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said.expect("just looked")
}

/// In a child: does what it was told to, and says so.
fn is_child() -> bool {
    let Ok(words) = std::env::var(CHILD) else {
        return false;
    };
    let said = match words.split_once(' ') {
        Some(("build", driver)) => build_and_drop(driver.parse().expect("a driver")),
        Some(("refuse", words)) => {
            let (bootstrap, driver) = words.split_once(' ').expect("two words");
            refuse_in_turn(bootstrap, driver.parse().expect("a driver"))
        }
        Some((bootstrap, driver)) => send_one(bootstrap, driver.parse().expect("a driver")),
        // The one that reads the directory is not there before.
        None => (fs::read_dir("/proc/self/fd").expect("Linux").count() - 1).to_string(),
    };
    println!("child: {said}");
    true
}

fn server() -> Server {
    let server = Server::start(ServerConfig::storing()).expect("a free port");
    server
        .with(|broker| broker.create_topic("limits", 1))
        .expect("a new topic");
    server
}

/// The first, second, third descriptor is refused, and so on until all are there: not built, no
/// topic, not written, acked, in this order, each with EMFILE as the cause; never a hang, a panic,
/// memory left behind, or more turns and tries than the back-off allows.
#[test]
fn x4_x5_each_descriptor_in_turn_is_the_first_refused() {
    if is_child() {
        return;
    }
    const TEST: &str = "x4_x5_each_descriptor_in_turn_is_the_first_refused";
    // What the child has before it begins.
    let own: u64 = under("-n 256", TEST, "count").parse().expect("a number");
    let server = server();
    for driver in [DriverChoice::Ring, DriverChoice::Epoll] {
        let words = format!("{} {driver}", server.bootstrap());
        let mut stages = Vec::new();
        for limit in own + 1.. {
            let said = under(&format!("-n {limit}"), TEST, &words);
            let (stage, cause) = said.split_once(':').unwrap_or((&said, ""));
            if stages.last().map(String::as_str) != Some(stage) {
                stages.push(stage.to_owned());
            }
            if stage == "acked" {
                break;
            }
            assert!(
                cause.to_lowercase().contains("too many open files"),
                "{driver} with {limit}: {said}"
            );
            assert!(limit < own + 30, "{driver} with {limit}: {said}");
        }
        assert_eq!(stages, ["not built", "no topic", "not written", "acked"]);
    }
    assert!(server.shutdown().is_clean());
}

/// A running producer gets no descriptor for its first, second, third connection to a broker, for as long as
/// it takes to try twice: as many are connected as could be, in few turns, and once there are descriptors
/// again all three records are acked.
#[test]
fn x4_a_socket_refused_while_running_loses_nothing() {
    if is_child() {
        return;
    }
    const TEST: &str = "x4_a_socket_refused_while_running_loses_nothing";
    let server = Server::start(ServerConfig {
        nodes: 3,
        ..ServerConfig::storing()
    })
    .expect("free ports");
    server
        .with(|broker| broker.create_topic("limits", 3))
        .expect("a new topic");
    for driver in [DriverChoice::Ring, DriverChoice::Epoll] {
        let words = format!("refuse {} {driver}", server.bootstrap());
        assert_eq!(under("-n 256", TEST, &words), "all acked", "{driver}");
    }
    let report = server.shutdown();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.records, 2 * 3 * 3);
}

/// The first, second, third descriptor that three shards need is refused, and so on until all are there:
/// a build that got some of its threads and drivers ends with EMFILE, and leaves no descriptor, no thread,
/// no ring and no locked memory.
#[test]
fn c7_a_build_that_fails_half_way_leaves_nothing() {
    if is_child() {
        return;
    }
    const TEST: &str = "c7_a_build_that_fails_half_way_leaves_nothing";
    let own: u64 = under("-n 256", TEST, "count").parse().expect("a number");
    for driver in [DriverChoice::Ring, DriverChoice::Epoll] {
        let mut refused = 0;
        for limit in own + 1.. {
            let said = under(&format!("-n {limit}"), TEST, &format!("build {driver}"));
            if said == "built" {
                break;
            }
            assert!(
                said.starts_with("not built: ")
                    && said.to_lowercase().contains("too many open files"),
                "{driver} with {limit}: {said}"
            );
            refused += 1;
            assert!(limit < own + 30, "{driver} with {limit}: {said}");
        }
        assert!(
            refused >= 3,
            "{driver}: three shards need more than {refused}"
        );
    }
}

/// Less address space than a producer takes, more and more until it is enough: it is not built, with
/// ENOMEM or EAGAIN as the cause, or it works; never half of it, and never a crash.
#[test]
fn x5_memory_refused_while_building_is_an_error_and_no_half_producer() {
    if is_child() {
        return;
    }
    const TEST: &str = "x5_memory_refused_while_building_is_an_error_and_no_half_producer";
    let server = server();
    for driver in [DriverChoice::Ring, DriverChoice::Epoll] {
        let words = format!("{} {driver}", server.bootstrap());
        let mut refused = 0;
        for mib in (120..400).step_by(20) {
            let said = under(&format!("-v {}", mib << 10), TEST, &words);
            if said.starts_with("not built: the system refused ") {
                refused += 1;
            } else {
                assert_eq!(said, "acked", "{driver} with {mib} MiB");
            }
        }
        assert!(refused > 0, "{driver}: the limits were no limits");
        assert_eq!(under("-v 4194304", TEST, &words), "acked");
    }
    assert!(server.shutdown().is_clean());
}
