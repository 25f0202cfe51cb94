//! Runs every example against a broker and looks at what it prints.
//!
//! The examples are run as the programs they are, with arguments and signals, instead of being
//! included as modules: so their `main` is tested too. `cargo test` (without `--test`) has built them
//! beside this test's own executable; for this test alone, `cargo build --examples` does.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ringpost_broker::{PartitionFault, Server, ServerConfig};
use ringpost_codec::kafka::ErrorCode;

fn example(name: &str, args: &[&str]) -> Command {
    let own = std::env::current_exe().expect("it runs");
    // target/debug/deps/examples-… → target/debug/examples/name
    let path: PathBuf = own
        .ancestors()
        .nth(2)
        .expect("in deps")
        .join("examples")
        .join(name);
    assert!(
        path.exists(),
        "{} is not there: `cargo test` without a target's name and `cargo build --examples` make it",
        path.display()
    );
    let mut command = Command::new(path);
    command.args(args);
    command
}

/// What an example prints; it must end well.
fn output(name: &str, args: &[&str]) -> String {
    let output = example(name, args).output().expect("it starts");
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{name} {args:?}:\n{text}{errors}");
    text.into_owned()
}

fn broker() -> Server {
    let server = Server::start(ServerConfig::default()).expect("a free port");
    server
        .with(|broker| broker.create_topic("topic", 1))
        .expect("a new topic");
    server
}

#[test]
fn send_one_prints_where_the_record_is() {
    let server = broker();
    let bootstrap = server.bootstrap();
    for offset in 0..2 {
        assert_eq!(
            output("send_one", &[&bootstrap, "topic", "hello"]),
            format!("partition 0 offset {offset}\n")
        );
    }
    assert!(server.shutdown().is_clean());
}

#[test]
fn dead_letters_prints_what_became_of_the_record() {
    let server = broker();
    server.with(|broker| {
        let refused = PartitionFault::ErrorBefore(ErrorCode::INVALID_RECORD);
        broker.faults().next_batch("topic", 0, refused);
    });
    let args = [&*server.bootstrap(), "topic", "topic-dead", "hello"];
    // How long it took is said too.
    let told = output("dead_letters", &args);
    let (why, letters) = told.split_once('\n').expect("two lines");
    assert!(
        why.starts_with("not written: the broker refused it (sent once)")
            && why.contains("broker 1 answered INVALID_RECORD (87)"),
        "{told}"
    );
    assert_eq!(letters, "1 dead letters in topic-dead\n");
    assert_eq!(
        output("dead_letters", &args),
        "acknowledged\n0 dead letters in topic-dead\n"
    );
}

#[test]
fn embedded_prints_where_the_record_is() {
    let server = broker();
    assert_eq!(
        output("embedded", &[&server.bootstrap(), "topic", "hello"]),
        "partition 0 offset 0\n"
    );
}

#[test]
fn pipeline_has_all_acknowledged() {
    let server = broker();
    assert_eq!(
        output("pipeline", &[&server.bootstrap(), "topic", "20000"]),
        "20000 records acknowledged\n"
    );
    assert_eq!(server.shutdown().records, 20_000);
}

#[test]
fn backpressure_accounts_for_every_record() {
    let server = broker();
    let text = output("backpressure", &[&server.bootstrap(), "topic", "20000"]);
    let numbers: Vec<u64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [taken, dropped, acked] = numbers[..] else {
        panic!("{text}")
    };
    assert_eq!(taken + dropped, 20_000);
    assert_eq!(taken, acked);
    assert_eq!(server.shutdown().records, acked);
}

#[test]
fn shutdown_ends_on_sigterm() {
    let server = broker();
    let mut running = example("shutdown", &[&server.bootstrap(), "topic"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(running.stdout.take().expect("piped")).lines();
    let first = lines.next().expect("a line").expect("text");
    assert_eq!(first, "sending until SIGTERM");
    for _ in 0..50_000_000_u64 {
        if server.report().records > 10 {
            break;
        }
        std::thread::yield_now();
    }
    let pid = running.id().to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(killed.expect("kill is there").success());
    let last = lines.next().expect("a line").expect("text");
    assert!(running.wait().expect("it ends").success());
    let records = server.shutdown().records;
    assert!(records > 10);
    assert_eq!(
        last,
        format!("{records} acknowledged, 0 not written, 0 unknown, in time")
    );
}

#[test]
fn wrong_arguments_are_told() {
    for name in [
        "send_one",
        "pipeline",
        "backpressure",
        "embedded",
        "shutdown",
    ] {
        let output = example(name, &[]).output().expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(
            errors.contains(&format!("usage: {name} BOOTSTRAP")),
            "{errors}"
        );
    }
}
