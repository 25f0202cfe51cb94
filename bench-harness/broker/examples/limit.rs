//! How fast the broker itself is: one connection sends prebuilt Produce requests, five in flight.
//!
//! `cargo run --release -p ringpost-broker --example limit -- [verify|ack] [none|recent|all]
//!  [record_bytes] [batch_bytes] [partitions] [seconds] [tcp|memory]`
//!
//! With `tcp` the server's threads run on CPU 0 and the client on CPU 1; `memory` hands the bytes to
//! a session directly. Batches carry no producer id, so the same bytes can be sent again and again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringpost_broker::{Broker, BrokerConfig, Keep, Mode, Server, ServerConfig};
use ringpost_codec::checksum::BodyDigest;
use ringpost_codec::kafka::produce::{self, RequestHead, TopicRef};
use ringpost_codec::record::{encode, record_size};
use ringpost_codec::record_batch::{BATCH_HEADER_LEN, BatchHeader};

const IN_FLIGHT: usize = 5;

fn batch(record_bytes: usize, batch_bytes: usize) -> (Vec<u8>, u64) {
    let value: Vec<u8> = (0u8..=255).cycle().take(record_bytes).collect();
    let (mut body, mut count) = (Vec::new(), 0);
    loop {
        let size = record_size(0, count, None, Some(value.len()), &[]);
        let at = body.len();
        if count > 0 && BATCH_HEADER_LEN + at + size.total > batch_bytes {
            break;
        }
        body.resize(at + size.total, 0);
        encode(&mut body[at..], size, 0, count, None, Some(&value), &[]);
        count += 1;
    }
    let header = BatchHeader {
        record_count: count,
        last_offset_delta: count - 1,
        ..BatchHeader::default()
    };
    let mut batch = vec![0; BATCH_HEADER_LEN];
    header.write(&BodyDigest::of(&body), &mut batch);
    batch.extend_from_slice(&body);
    (batch, u64::from(count.unsigned_abs()))
}

fn request(batch: &[u8], partitions: i32) -> Vec<u8> {
    let mut out = Vec::new();
    let head = RequestHead {
        version: 9,
        correlation_id: 1,
        client_id: Some("limit"),
        transactional_id: None,
        acks: -1,
        timeout_ms: 1000,
        topic_count: 1,
    };
    let length = produce::put_request_head(&mut out, &head);
    produce::put_topic(
        &mut out,
        9,
        TopicRef::Name("t"),
        partitions.unsigned_abs() as usize,
    );
    for partition in 0..partitions {
        produce::put_partition(&mut out, 9, partition, batch.len());
        out.extend_from_slice(batch);
        produce::put_partition_end(&mut out, 9);
    }
    produce::put_topic_end(&mut out, 9);
    produce::put_request_end(&mut out, 9);
    length.patch(&mut out, 0);
    out
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a measurement needs a clock")]
    Instant::now()
}

/// CPU seconds (user and system) of this process's threads with such a name: what the broker cost,
/// however busy the host is with other things.
fn cpu_seconds(thread_name: &str) -> std::io::Result<f64> {
    let mut ticks = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        let Some((name, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        if name.contains(thread_name) {
            let field = |at| {
                rest.split_whitespace()
                    .nth(at)
                    .and_then(|f| f.parse::<f64>().ok())
            };
            // proc(5): utime and stime are fields 14 and 15; the name is field 2.
            ticks += field(11).unwrap_or(0.0) + field(12).unwrap_or(0.0);
        }
    }
    Ok(ticks / 100.0) // USER_HZ
}

/// What a run gave: requests answered, seconds they took, CPU seconds of the broker's side.
struct Run {
    requests: u64,
    seconds: f64,
    cpu_seconds: f64,
}

/// Sends for that long through a socket.
fn over_tcp(config: BrokerConfig, request: &[u8], duration: Duration) -> std::io::Result<Run> {
    let config = ServerConfig {
        pin_cpu: Some(0),
        broker: config,
        ..ServerConfig::default()
    };
    let server = Server::start(config)?;
    server
        .with(|broker| broker.create_topic("t", 64))
        .expect("a fresh broker has no topics");
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    let mut stream = TcpStream::connect(server.addr())?;
    stream.set_nodelay(true)?;
    let mut answer = vec![0; 64 << 10];
    let mut take = |stream: &mut TcpStream| -> std::io::Result<()> {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        stream.read_exact(&mut answer[..u32::from_be_bytes(length) as usize])
    };
    let start = now();
    let (mut sent, mut answered) = (0, 0);
    while now().duration_since(start) < duration {
        stream.write_all(request)?;
        sent += 1;
        if sent - answered >= IN_FLIGHT as u64 {
            take(&mut stream)?;
            answered += 1;
        }
    }
    while answered < sent {
        take(&mut stream)?;
        answered += 1;
    }
    let seconds = now().duration_since(start).as_secs_f64();
    let cpu_seconds = cpu_seconds("broker-1-0")?;
    let report = server.shutdown();
    assert_eq!(report.refused, 0, "every batch is sound");
    Ok(Run {
        requests: answered,
        seconds,
        cpu_seconds,
    })
}

/// The same without a network.
fn in_memory(config: BrokerConfig, request: &[u8], duration: Duration) -> std::io::Result<Run> {
    core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
    let mut broker = Broker::new(config);
    broker
        .create_topic("t", 64)
        .expect("a fresh broker has no topics");
    let mut session = broker.session(1);
    let mut out = Vec::new();
    let start = now();
    let mut answered = 0;
    while now().duration_since(start) < duration {
        session.receive(request);
        session
            .advance(&mut broker, 0, &mut out)
            .expect("every request is sound");
        out.clear();
        answered += 1;
    }
    let seconds = now().duration_since(start).as_secs_f64();
    Ok(Run {
        requests: answered,
        seconds,
        cpu_seconds: cpu_seconds("limit")?,
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let text = |at: usize, default: &str| args.get(at).map_or(default, String::as_str).to_owned();
    let number = |at: usize, default: &str| text(at, default).parse::<usize>();
    let mode = if text(0, "verify") == "ack" {
        Mode::Ack
    } else {
        Mode::Verify
    };
    let keep = match text(1, "recent").as_str() {
        "none" => Keep::Nothing,
        "all" => Keep::Everything,
        _ => Keep::default(),
    };
    let (record_bytes, batch_bytes) = (number(2, "100")?, number(3, "131072")?);
    let partitions = i32::try_from(number(4, "6")?)?;
    let duration = Duration::from_secs(number(5, "3")? as u64);
    let (batch, records) = batch(record_bytes, batch_bytes);
    let request = request(&batch, partitions);
    let config = BrokerConfig {
        mode,
        keep,
        ..BrokerConfig::default()
    };
    let way = text(6, "tcp");
    let run = match way.as_str() {
        "memory" => in_memory(config, &request, duration)?,
        _ => over_tcp(config, &request, duration)?,
    };
    let all = (run.requests * records * u64::from(partitions.unsigned_abs())) as f64;
    println!(
        "{way} {mode:?} keep {keep:?}, {record_bytes} B records, {batch_bytes} B batches x {partitions}: \
         {:.2} M records/s; broker CPU {:.1} ns/record = {:.2} M records per CPU second; {:.2} GB/s, \
         {} requests in {:.2} s",
        all / run.seconds / 1e6,
        1e9 * run.cpu_seconds / all,
        all / run.cpu_seconds / 1e6,
        run.requests as f64 * request.len() as f64 / run.seconds / 1e9,
        run.requests,
        run.seconds,
    );
    Ok(())
}
