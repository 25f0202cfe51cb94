//! `run`, `broker` and `init`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringpost_bench::recorded::Recorded;
use ringpost_bench::threshold::Figure;
use ringpost_broker::PartitionFault;
use serde_json::Value;

use crate::support::{
    Folder, Running, SHORT, bench, broker, code, document, is_gone, nobody, number, run, text,
};

#[test]
fn a_run_prints_one_document_with_every_field() {
    let output = run(&[&["run", "--format", "json"], &SHORT[..]].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let document = document(&output);
    for path in [
        "/offered_records",
        "/acked_records",
        "/acked_bytes",
        "/elapsed_s",
        "/records_per_s",
        "/mib_per_s",
        "/cpu_us_per_record",
        "/throughput/p99",
        "/latency_us/response/p50",
        "/latency_us/response/p99_99",
        "/latency_us/service/max",
        "/latency_us/service/mean",
        "/kernel_entries_per_request",
        "/records_per_batch",
        "/batches_per_request",
        "/requests",
        "/peak_rss_bytes",
        "/verified/records",
    ] {
        assert!(number(&document, path) > 0.0, "{path} in {document:#}");
    }
    for path in [
        "/sent_records",
        "/not_written_records",
        "/unknown_records",
        "/retries",
        "/verified/lost",
        "/verified/duplicated",
        "/verified/reordered",
        "/verified/corrupt",
        "/run/unsettled_records",
    ] {
        assert_eq!(number(&document, path), 0.0, "{path} in {document:#}");
    }
    for path in [
        "/cpu_user_s",
        "/cpu_system_s",
        "/broker_cpu_s",
        "/allocations_per_record",
    ] {
        number(&document, path);
    }
    for (path, value) in [
        ("/schema", "ringpost-bench/run/1"),
        ("/engine", "null"),
        ("/driver", "socket"),
        ("/config/record_size", "100B"),
        ("/config/acks", "all"),
    ] {
        assert_eq!(
            document.pointer(path).and_then(Value::as_str),
            Some(value),
            "{path}"
        );
    }
    assert_eq!(document["interrupted"], Value::Bool(false));
    for path in [
        "/driver_reason",
        "/environment/kernel",
        "/environment/io_uring",
    ] {
        assert!(
            document.pointer(path).is_some_and(Value::is_string),
            "{path}"
        );
    }
    assert!(document.pointer("/latency_us/stages").is_some());
    // A limit may be set on every number.
    for (name, value) in document.as_object().expect("an object") {
        let figure = Figure::find(name);
        assert!(!value.is_number() || figure.is_ok(), "{name}: {figure:?}");
    }
    // Every record taken over the whole run is in the broker's log.
    assert_eq!(
        document["verified"]["records"],
        document["run"]["taken_records"]
    );
    assert_eq!(
        number(&document, "/acked_bytes"),
        100.0 * number(&document, "/acked_records"),
        "keys and values only"
    );
}

#[test]
fn a_number_of_records_is_measured_to_the_record_or_batch() {
    let output = run(&[
        "run",
        "--engine",
        "null",
        "--records",
        "50k",
        "--warmup",
        "0s",
        "--batch",
        "4KiB",
        "--partitions",
        "1",
        "--format",
        "json",
    ]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let document = document(&output);
    let acked = number(&document, "/acked_records");
    // `null` sends whole batches, up to a request's worth too many.
    assert!((50_000.0..70_000.0).contains(&acked), "{acked}");
    assert_eq!(document["verified"]["records"], document["acked_records"]);
}

#[test]
fn the_text_report_shows_figures_pictures_and_placement() {
    let output = run(&[&["run"], &SHORT[..]].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let report = text(&output.stdout);
    for said in [
        "Verified: ",
        "CPU per record",
        "records/s acked",
        "driver",
        "placement",
        "Throughput, over intervals of 10 ms",
        "Latency, intended send → ack",
        "█",
        "record_size=100B",
    ] {
        assert!(report.contains(said), "{said} is not in\n{report}");
    }
    plain(&text(&output.stderr));
}

/// Without what only a terminal understands.
fn plain(said: &str) {
    assert!(
        !said.contains(['\u{1b}', '\r']),
        "plain lines where no terminal is: {said:?}"
    );
}

#[test]
fn progress_comes_in_plain_lines_where_no_terminal_is() {
    let mut running = Running::start(&LONG);
    let mut said = running.until(" s left, ");
    kill(running.pid(), Signal::SIGINT).expect("signalled");
    let output = running.wait();
    said.push_str(&text(&output.stderr));
    assert!(
        said.lines()
            .any(|line| line.starts_with("measuring ") && line.contains(" s left, ")),
        "{said}"
    );
    plain(&said);
}

/// People watch a run whose document goes into a file: neither gets what is the other's.
#[test]
fn a_terminal_gets_the_live_line_and_stdout_the_document() {
    let size = Winsize {
        ws_row: 24,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(&size, None).expect("a terminal");
    let mut command = bench(&LONG);
    command.env("TERM", "xterm").stderr(terminal.slave);
    let running = Running(command.spawn().expect("the program starts"));
    // With it goes this side's copy of the terminal: reading ends when the program does.
    drop(command);
    let pid = running.pid();
    let watching = std::thread::spawn(move || {
        let (mut seen, mut screen) = (Vec::new(), fs::File::from(terminal.master));
        let mut shown = false;
        loop {
            let mut piece = [0; 4096];
            match screen.read(&mut piece) {
                Ok(0) => panic!("an end without an error"),
                Ok(read) => seen.extend_from_slice(&piece[..read]),
                // Linux tells a terminal without any user left by an error.
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(nix::libc::EIO));
                    return text(&seen);
                }
            }
            let words = text(&seen);
            if !shown && words.contains("measuring ") && words.contains(" s left, ") {
                shown = true;
                kill(pid, Signal::SIGINT).expect("signalled");
            }
        }
    });
    let output = running.wait();
    let seen = watching.join().expect("watched");
    assert_eq!(document(&output)["interrupted"], Value::Bool(true));
    assert!(
        !output.stdout.contains(&b'\x1b'),
        "{}",
        text(&output.stdout)
    );
    assert!(
        seen.contains("measuring ") && seen.contains(" s left, "),
        "{seen:?}"
    );
    assert!(
        seen.contains("\u{1b}[2K") || seen.contains("\r"),
        "a line that changes: {seen:?}"
    );
    assert!(!seen.contains("\"schema\""), "{seen}");
}

#[test]
fn payloads_of_a_file_with_keys_and_a_codec() {
    let folder = Folder::new("corpus");
    let lines: String = (0..5_000)
        .map(|line| format!("event {line} of a file\n"))
        .collect();
    fs::write(folder.path("events"), lines).expect("written");
    let corpus = folder.path("events");
    for engine in ["null", "ringpost"] {
        let mut arguments = vec!["run", "--record-size", &corpus, "--keys", "zipf:100,1.1"];
        arguments.extend(["--compression", "lz4", "--format", "json"]);
        arguments.extend(SHORT);
        arguments.extend(["--engine", engine]);
        let output = run(&arguments);
        assert_eq!(code(&output), Some(0), "{engine}: {}", text(&output.stderr));
        let document = document(&output);
        let size = number(&document, "/acked_bytes") / number(&document, "/acked_records");
        // A key has 12 bytes, a line 17 to 20.
        assert!(
            (29.0..=32.0).contains(&size),
            "{engine}: {size} bytes a record"
        );
    }
}

#[test]
fn a_results_folder_holds_the_run_and_its_histograms() {
    let folder = Folder::new("out");
    let out = folder.path("deep/result");
    let arguments = [&["run", "--format", "json", "--out", &out], &SHORT[..]].concat();
    let output = run(&arguments);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let printed = document(&output);
    let file = |name: &str| fs::read_to_string(Path::new(&out).join(name)).expect(name);

    let kept: Value = serde_json::from_str(&file("run.json")).expect("JSON");
    assert_eq!(kept["acked_records"], printed["acked_records"]);
    let intervals = kept["intervals"].as_array().expect("a series");
    let sum: f64 = intervals
        .iter()
        .map(|interval| number(interval, "/acked_records"))
        .sum();
    assert_eq!(
        sum,
        number(&printed, "/acked_records"),
        "intervals add up to the window"
    );

    let acked = number(&printed, "/acked_records");
    assert_eq!(
        logged(&file("response.hlog"), &printed, "/latency_us/response"),
        acked
    );
    assert_eq!(
        logged(&file("service.hlog"), &printed, "/latency_us/service"),
        acked
    );
    assert!(file("throughput.hlog").contains("HIST"));
    assert!(file("README.md").contains("--engine null"));
    assert!(file("summary.md").contains("CPU µs/record"));

    let read = Recorded::open(Path::new(&out)).expect("a results folder");
    assert_eq!(read.name, "result");
    assert_eq!(read.response.total.len(), read.document.acked_records);
    assert_eq!(read.series.len(), intervals.len());
    let by_interval: u64 = (read.response.intervals.iter())
        .flat_map(|interval| interval.histogram.buckets())
        .map(|(_, count)| count)
        .sum();
    assert_eq!(by_interval, read.document.acked_records);
    assert!(read.response.started.is_some());
    for (log, figures) in [
        (&read.response, "response_us"),
        (&read.service, "service_us"),
        (&read.throughput, "throughput"),
    ] {
        let known = intervals.iter().filter(|one| !one[figures].is_null());
        let expected: Vec<[f64; 2]> = known
            .map(|one| ["/start_s", "/length_s"].map(|field| number(one, field)))
            .collect();
        assert_eq!(log.intervals.len(), expected.len(), "{figures}");
        for (interval, expected) in log.intervals.iter().zip(expected) {
            for (time, expected) in [interval.start, interval.length].iter().zip(expected) {
                let off = (time.as_secs_f64() - expected).abs();
                assert!(
                    off < 0.002,
                    "{figures}: {interval:?} is not at {expected} s"
                );
            }
        }
    }
    assert_eq!(
        serde_json::to_value(&read.document).expect("JSON"),
        printed,
        "nothing is lost by reading it"
    );

    // The scenario as resolved repeats the run.
    let scenario = Path::new(&out).join("scenario.toml").display().to_string();
    let again = run(&[
        "run",
        &scenario,
        "--duration",
        "1ms",
        "--warmup",
        "0s",
        "--format",
        "json",
    ]);
    let again = document(&again);
    for key in ["engine", "partitions", "record_size", "batch", "acks"] {
        assert_eq!(again["config"][key], printed["config"][key], "{key}");
    }
}

/// How many values an interval log holds, after checking its percentiles against the document's.
fn logged(log: &str, document: &Value, latency: &str) -> f64 {
    let mut all = Histogram::<u64>::new_with_bounds(256, 3_600_000_000_000, 3).expect("bounds");
    for entry in IntervalLogIterator::new(log.as_bytes()) {
        let LogEntry::Interval(interval) = entry.expect("an interval log") else {
            continue;
        };
        use base64::Engine as _;
        let packed = base64::engine::general_purpose::STANDARD
            .decode(interval.encoded_histogram())
            .expect("base64");
        let one: Histogram<u64> = Deserializer::new()
            .deserialize(&mut &packed[..])
            .expect("a V2 deflate histogram");
        all.add(&one).expect("the same bounds");
    }
    let p99 = number(document, &format!("{latency}/p99"));
    let read =
        f64::from(u32::try_from(all.value_at_quantile(0.99) / 1_000).expect("below an hour"));
    assert!(
        (p99 - read).abs() <= p99 / 100.0 + 1.0,
        "{latency}: {p99} in the document, {read} here"
    );
    f64::from(u32::try_from(all.len()).expect("a second's records"))
}

#[test]
fn a_run_tells_whether_its_thresholds_hold_and_leaves_judging_to_gate() {
    let gate = ["--gate", "records_per_s > 1", "--gate", "service p50 < 1us"];
    let baseline = ["--gate", "vs_baseline p99 < 5%"];
    let short = [
        "run",
        "--engine",
        "null",
        "--records",
        "10k",
        "--warmup",
        "0s",
    ];
    let output = run(&[&short[..], &gate, &baseline, &["--format", "json"]].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stderr);
    for said in [
        "holds  records_per_s > 1: ",
        "FAILS  service p50 < 1us: ",
        "?      vs_baseline p99 < 5%: there is no baseline",
    ] {
        assert!(told.contains(said), "{said}\nis not in\n{told}");
    }
    assert_eq!(document(&output)["gate"][1], "service p50 < 1us");
    let output = run(&[&short[..], &gate].concat());
    assert!(text(&output.stdout).contains("\nThresholds\n  holds  records_per_s > 1: "));
}

#[test]
fn init_writes_a_scenario_that_runs() {
    let folder = Folder::new("init");
    let file = folder.path("mine.toml");
    assert_eq!(code(&run(&["init", &file])), Some(0));
    let output = run(&[&["run", &file, "--format", "json"], &SHORT[..]].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    assert_eq!(document(&output)["config"]["record_size"], "1KiB");

    let again = run(&["init", &file]);
    assert_eq!(code(&again), Some(5));
    assert!(
        text(&again.stderr).contains("left as it is"),
        "{}",
        text(&again.stderr)
    );
}

#[test]
fn the_smoke_scenario_runs_with_every_driver() {
    let scenario = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/smoke.toml");
    for driver in ["auto", "epoll"] {
        let output = run(&["run", scenario, "--driver", driver, "--format", "json"]);
        assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
        let document = document(&output);
        assert_eq!(document["config"]["topic"], "smoke");
        assert_eq!(
            document["verified"]["records"],
            document["run"]["acked_records"]
        );
        assert!(number(&document, "/latency_us/stages/wire_to_ack/p50") > 0.0);
        assert!(
            document["shards"]
                .as_array()
                .is_some_and(|shards| !shards.is_empty())
        );
        if driver == "epoll" {
            assert_eq!(document["driver"], "epoll");
        }
    }
}

#[test]
fn each_delivery_settles_every_record() {
    for (delivery, records) in [
        ("queue", 20_000),
        ("future", 20_000),
        ("forget", 20_000),
        ("wait", 100),
    ] {
        let output = run(&[
            "run",
            "--delivery",
            delivery,
            "--records",
            &records.to_string(),
            "--warmup",
            "50ms",
            "--producers",
            "2",
            "--format",
            "json",
        ]);
        assert_eq!(
            code(&output),
            Some(0),
            "{delivery}: {}",
            text(&output.stderr)
        );
        let document = document(&output);
        assert_eq!(document["offered_records"], records, "{delivery}");
        assert_eq!(
            document["acked_records"], records,
            "{delivery}: the warm-up was drained before"
        );
        assert_eq!(
            document["verified"]["records"], document["run"]["taken_records"],
            "{delivery}"
        );
        assert!(
            number(&document, "/latency_us/service/p50") > 0.0,
            "{delivery}"
        );
        // One-way, nobody sees acks one by one.
        assert_eq!(
            document["latency_us"]["response"].is_null(),
            delivery == "forget"
        );
    }
}

/// The application's thread drives the shard; it alone sends and sees acks.
#[test]
fn embedded_each_delivery_settles_every_record() {
    for (delivery, wait, records) in [
        ("forget", "park", 20_000),
        ("queue", "spin", 20_000),
        ("future", "park", 20_000),
        ("wait", "park", 100),
        ("wait", "spin", 100),
    ] {
        let what = format!("{delivery}, {wait}");
        let output = run(&[
            "run",
            "--embedded",
            "--record-size",
            "100B",
            "--delivery",
            delivery,
            "--wait",
            wait,
            "--records",
            &records.to_string(),
            "--warmup",
            "50ms",
            "--format",
            "json",
        ]);
        assert_eq!(code(&output), Some(0), "{what}: {}", text(&output.stderr));
        let document = document(&output);
        assert_eq!(document["config"]["embedded"], Value::Bool(true), "{what}");
        assert_eq!(document["acked_records"], records, "{what}");
        assert_eq!(
            document["verified"]["records"], document["run"]["taken_records"],
            "{what}"
        );
        assert_eq!(number(&document, "/verified/lost"), 0.0, "{what}");
        assert!(number(&document, "/latency_us/service/p50") > 0.0, "{what}");
        let shards = document["shards"].to_string();
        assert!(shards.contains("application's thread"), "{what}: {shards}");
    }
}

#[test]
fn embedded_an_open_loop_keeps_its_rate_and_the_report_says_who_drives() {
    let output = run(&[
        "run",
        "--embedded",
        "--rate",
        "4k",
        "--warmup",
        "100ms",
        "--duration",
        "500ms",
    ]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let report = text(&output.stdout);
    for said in ["driven by the application's thread", "embedded=true"] {
        assert!(report.contains(said), "{said} is not in\n{report}");
    }
}

#[test]
fn what_embedded_cannot_do_is_refused_with_the_reason() {
    for (arguments, said) in [
        (
            ["--producers", "2"],
            "--producers: embedded: the one thread",
        ),
        (["--shards", "2"], "--shards: embedded: the one thread"),
        (["--wait", "spin-then-park"], "expected `park` or `spin`"),
        (["--set", "pin=false"], "no thread to pin"),
        (["--engine", "null"], "--embedded: engine=null"),
        (["--embedded=maybe", "--verify=true"], "`true` or `false`"),
    ] {
        let output = run(&[&["run", "--embedded"], &arguments[..]].concat());
        let told = text(&output.stderr);
        assert_eq!(code(&output), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(said), "{said}\nis not in\n{told}");
    }
}

/// The broker's address as it is printed, once it listens.
fn listening(broker: &mut Running) -> String {
    let mut line = String::new();
    let stdout = broker.0.stdout.as_mut().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("text");
    line.strip_prefix("listening=")
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or_else(|| panic!("`{line}`"))
        .to_owned()
}

/// Names that the user gives are looked up before the run; those that brokers give cannot be.
#[test]
fn embedded_takes_names_from_the_user_but_not_from_the_cluster() {
    let short = ["--topic", "t", "--records", "100", "--warmup", "0s"];
    let mut broker = Running::start(&["broker", "--listen", "127.0.0.1:0"]);
    let named = listening(&mut broker).replace("127.0.0.1", "localhost");
    let output = run(&[&["run", "--embedded", "--brokers", &named], &short[..]].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));

    let listen = ["broker", "--listen", "127.0.0.1:0"];
    let advertise = ["--advertise", "localhost:9092"];
    let mut broker = Running::start(&[&listen[..], &advertise].concat());
    let address = listening(&mut broker);
    let output = run(&[&["run", "--embedded", "--brokers", &address], &short[..]].concat());
    let told = text(&output.stderr);
    assert_eq!(code(&output), Some(2), "{told}");
    assert!(
        told.contains("localhost:9092") && told.contains("advertised.listeners"),
        "{told}"
    );
}

#[test]
fn an_open_loop_offers_what_its_rate_says() {
    for arrival in ["fixed", "poisson", "burst:50"] {
        let output = run(&[
            "run",
            "--rate",
            "4k",
            "--arrival",
            arrival,
            "--warmup",
            "100ms",
            "--duration",
            "1s",
            "--producers",
            "2",
            "--format",
            "json",
        ]);
        assert_eq!(
            code(&output),
            Some(0),
            "{arrival}: {}",
            text(&output.stderr)
        );
        let document = document(&output);
        let due = 4_000.0 * number(&document, "/elapsed_s");
        let offered = number(&document, "/offered_records");
        assert!(
            (offered / due - 1.0).abs() < 0.1,
            "{arrival}: {offered} offered, {due} due"
        );
        let latency = |path: &str| number(&document, &format!("/latency_us/{path}"));
        assert!(
            latency("response/p50") >= latency("service/p50"),
            "{arrival}"
        );
        assert!(
            latency("response/max") >= latency("service/max"),
            "{arrival}"
        );
    }
}

#[test]
fn without_acks_records_count_as_sent() {
    let output = run(&[
        "run",
        "--acks",
        "0",
        "--records",
        "10k",
        "--warmup",
        "0s",
        "--format",
        "json",
    ]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let document = document(&output);
    assert_eq!(document["config"]["idempotent"], Value::Bool(false));
    assert_eq!(
        (
            number(&document, "/sent_records"),
            number(&document, "/acked_records")
        ),
        (10_000.0, 0.0)
    );
    assert_eq!(document["verified"]["records"], 10_000);
}

#[test]
fn a_record_that_can_never_be_sent_ends_the_run() {
    let output = run(&["run", "--record-size", "2MiB", "--format", "json"]);
    assert_eq!(code(&output), Some(2), "{}", text(&output.stderr));
    let document = document(&output);
    assert!(
        document["failure"]
            .as_str()
            .is_some_and(|why| why.contains("2097152") || why.contains("bytes"))
    );
}

#[test]
fn all_faults_of_a_scenario_are_told_at_once() {
    let folder = Folder::new("faults");
    let file = folder.path("bad.toml");
    fs::write(&file, "partition = 3\nrecord_size = \"100\"\nacks = 2\n").expect("written");
    let output = run(&["run", &file, "--rate", "fast"]);
    assert_eq!(code(&output), Some(2));
    let told = text(&output.stderr);
    for said in [
        format!("{file}:1: partition: there is no such key; did you mean `partitions`?"),
        format!("{file}:2: record_size: `100` is not allowed"),
        format!("{file}:3: acks: `2` is not allowed; expected `0`, `1` or `all`"),
        "--rate: `fast` is not allowed; expected `max`, a number".into(),
    ] {
        assert!(told.contains(&said), "{said}\nis not in\n{told}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn an_unknown_flag_names_the_nearest() {
    let output = run(&["run", "--compresion", "lz4"]);
    assert_eq!(code(&output), Some(2));
    assert!(
        text(&output.stderr).contains("--compression"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let (_taken, address) = nobody();
    let output = run(&[&["run", "--brokers", &address], &SHORT[..]].concat());
    assert_eq!(code(&output), Some(4));
    assert!(
        text(&output.stderr).contains(&address),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn records_missing_in_a_log_elsewhere_end_the_run_with_1() {
    let server = broker();
    // What is sent without asking for an answer is not appended, and nobody is told.
    server.with(|broker| {
        let fault = PartitionFault::OmitBefore;
        broker.faults().every_batch("t", 0, fault);
    });
    let address = server.bootstrap();
    let to = ["run", "--brokers", &address, "--topic", "t", "--acks", "0"];
    let small = ["--records", "1k", "--warmup", "0s", "--format", "json"];
    let output = run(&[&to[..], &small].concat());
    assert_eq!(code(&output), Some(1), "{}", text(&output.stderr));
    let document = document(&output);
    assert_eq!(document["good"], Value::Bool(false));
    assert_eq!(document["log_growth"]["missing"], document["sent_records"]);
    let told = text(&output.stderr);
    assert!(
        told.contains("Warning: 1 000 acked records are not"),
        "{told}"
    );
    server.shutdown();
}

#[test]
fn records_too_many_in_a_log_elsewhere_are_warned_about() {
    let server = broker();
    let address = server.bootstrap();
    let to = ["run", "--brokers", &address, "--topic", "t"];
    let small = ["--warmup", "0s", "--format", "json"];
    let mut other = Running::start(&[&to[..], &small, &["--duration", "10m"]].concat());
    other.until("measuring");
    let output = run(&[&to[..], &small, &["--duration", "300ms"]].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stderr);
    assert!(told.contains("Warning: The topic's log grew by"), "{told}");
    assert!(told.contains("idempotence is there to prevent"), "{told}");
    drop(other);
    server.shutdown();
}

const LONG: [&str; 8] = [
    "run",
    "--engine",
    "null",
    "--warmup",
    "0s",
    "--duration",
    "10m",
    "--format=json",
];

#[test]
fn an_interrupt_ends_the_window_and_prints_what_was_measured() {
    let mut running = Running::start(&LONG);
    running.until("measuring");
    let children = running.children();
    assert_eq!(children.len(), 1, "the broker");
    kill(running.pid(), Signal::SIGINT).expect("signalled");
    let output = running.wait();
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let document = document(&output);
    assert_eq!(document["interrupted"], Value::Bool(true));
    assert!(number(&document, "/acked_records") > 0.0);
    assert_eq!(
        document["verified"]["records"],
        document["run"]["taken_records"]
    );
    assert!(is_gone(children[0]), "the broker outlived its run");
}

/// Its end is not that of the warm-up's last record.
#[test]
fn an_interrupt_before_any_counted_record_has_settled_ends_a_window_too() {
    let slow = ["--broker-delay", "1s", "--rate", "20", "--warmup", "1s"];
    let small = ["run", "--records", "500", "--format", "json"];
    let mut running = Running::start(&[&small[..], &slow].concat());
    running.until("measuring");
    kill(running.pid(), Signal::SIGINT).expect("signalled");
    let document = document(&running.wait());
    assert_eq!(document["interrupted"], Value::Bool(true));
    let elapsed_s = number(&document, "/elapsed_s");
    assert!((0.0..3_600.0).contains(&elapsed_s), "{elapsed_s}");
}

#[test]
fn an_interrupt_while_the_peak_is_looked_for_is_one_like_any_other() {
    let folder = Folder::new("interrupted-peak");
    let out = folder.path("out");
    for format in ["json", "text"] {
        let mut running = Running::start(&[
            "run",
            "--rate",
            "120%peak",
            "--duration",
            "10m",
            "--warmup",
            "10m",
            "--format",
            format,
            "--out",
            &out,
        ]);
        running.until("Looking for the peak");
        kill(running.pid(), Signal::SIGINT).expect("signalled");
        let output = running.wait();
        assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
        if format == "text" {
            let told = text(&output.stdout);
            assert!(told.contains("Interrupted while the peak was"), "{told}");
            continue;
        }
        let document = document(&output);
        assert_eq!(document["interrupted"], Value::Bool(true));
        assert!(document["peak_records_per_s"].is_null());
        for nothing in ["/acked_records", "/offered_records", "/run/taken_records"] {
            assert_eq!(number(&document, nothing), 0.0, "{nothing}");
        }
    }
    let kept = Recorded::open(Path::new(&out)).expect("a results folder");
    assert!(kept.document.interrupted);
}

#[test]
fn the_broker_does_not_outlive_a_killed_run() {
    let mut running = Running::start(&LONG);
    running.until("measuring");
    let broker = running.children()[0];
    kill(running.pid(), Signal::SIGKILL).expect("signalled");
    running.wait();
    while !is_gone(broker) {
        std::thread::yield_now();
    }
}

#[test]
fn a_run_whose_broker_dies_says_so() {
    let mut running = Running::start(&LONG);
    running.until("measuring");
    kill(Pid::from_raw(running.children()[0]), Signal::SIGKILL).expect("signalled");
    let output = running.wait();
    assert_eq!(code(&output), Some(4), "{}", text(&output.stderr));
    let document = document(&output);
    assert!(document["failure"].is_string(), "{document:#}");
    assert_eq!(document["good"], Value::Bool(false));
}

#[test]
fn a_broker_in_the_foreground_serves_a_run_and_reports() {
    let mut broker = Running::start(&["broker", "--listen", "127.0.0.1:0", "--partitions", "2"]);
    let mut line = String::new();
    let mut stdout = BufReader::new(broker.0.stdout.take().expect("piped"));
    stdout.read_line(&mut line).expect("text");
    let address = line
        .strip_prefix("listening=")
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or_else(|| panic!("`{line}`"))
        .to_owned();
    let arguments = [
        "run",
        "--brokers",
        &address,
        "--topic",
        "t",
        "--format",
        "json",
    ];
    let output = run(&[&arguments[..], &SHORT[..]].concat());
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    let document = document(&output);
    assert!(number(&document, "/acked_records") > 0.0);
    assert!(
        document["verified"].is_null(),
        "only an embedded broker can be asked"
    );
    let growth = &document["log_growth"];
    assert_eq!(growth["records"], document["run"]["taken_records"]);
    assert_eq!(
        (number(growth, "/missing"), number(growth, "/surplus")),
        (0.0, 0.0)
    );

    kill(broker.pid(), Signal::SIGTERM).expect("signalled");
    let report = std::io::read_to_string(stdout).expect("text");
    assert!(
        report.contains("lost 0, duplicated 0, reordered 0, corrupt 0"),
        "{report}"
    );
    assert!(broker.0.wait().expect("it ends").success());
}

#[test]
fn a_brokers_verdict_is_one_document() {
    for mode in ["verify", "ack"] {
        let to = ["broker", "--listen", "127.0.0.1:0", "--mode", mode];
        let mut broker = Running::start(&[&to[..], &["--format", "json"]].concat());
        let mut line = String::new();
        let mut stderr = BufReader::new(broker.0.stderr.take().expect("piped"));
        stderr.read_line(&mut line).expect("text");
        let address = line
            .strip_prefix("listening=")
            .and_then(|rest| rest.split_whitespace().next())
            .unwrap_or_else(|| panic!("`{line}`"));
        let to = ["run", "--brokers", address, "--topic", "t"];
        let output = run(&[&to[..], &["--format", "json"], &SHORT[..]].concat());
        assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
        kill(broker.pid(), Signal::SIGINT).expect("signalled");
        let stdout = broker.0.stdout.take().expect("piped");
        let verdict = std::io::read_to_string(stdout).expect("text");
        let verdict: Value = serde_json::from_str(&verdict).expect("one document");
        assert!(broker.0.wait().expect("it ends").success());
        assert_eq!(verdict["schema"], "ringpost-bench/broker/1");
        assert_eq!(verdict["mode"], mode);
        let good = match mode {
            "verify" => Value::Bool(true),
            _ => Value::Null,
        };
        assert_eq!(verdict["good"], good, "{verdict:#}");
        let sent = &document(&output)["run"]["taken_records"];
        assert_eq!(verdict["records"], *sent);
        for nothing in ["lost", "duplicated", "reordered", "corrupt"] {
            assert_eq!(verdict[nothing], 0, "{nothing}");
        }
        // By ticks of the clock a short life may be all user's or all the kernel's.
        let cpu_s = number(&verdict, "/process/user_s") + number(&verdict, "/process/system_s");
        assert!(cpu_s > 0.0);
    }
}
