//! The `null` client: batches built before the clock starts, sent over a plain blocking socket as
//! fast as the broker takes them. It does no work that a client could be praised for avoiding, so
//! its rate is the limit that broker, kernel and harness set; a real client measured close to it has
//! measured the harness.
//!
//! What is left per batch is the 61-byte header, written anew each time: producer id, sequence and
//! the CRC over them, so the broker verifies these batches like any others.
//!
//! Each application thread has a connection and a producer id of its own, and sends to the
//! partitions of one leader: thread *i* to the *i*-th leader, wrapping around.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ringpost_codec::checksum::BodyDigest;
use ringpost_codec::compress::{Codec, Compressed, Compression, Compressor};
use ringpost_codec::error::DecodeError;
use ringpost_codec::kafka::header::{
    RequestHeader, put_request, read_correlation_id, read_response_rest,
};
use ringpost_codec::kafka::produce::{self, RequestHead, TopicRef};
use ringpost_codec::kafka::{ApiKey, ErrorCode, init_producer_id, metadata};
use ringpost_codec::reader::Reader;
use ringpost_codec::record;
use ringpost_codec::record_batch::{Attributes, BATCH_HEADER_LEN, BatchHeader};

use crate::client::{Client, Counters, Facts};
use crate::clock::wall;
use crate::corpus::Corpus;
use crate::exit::Failure;
use crate::keyring::Keyring;
use crate::number::{count, index};
use crate::plan::{Acks, Plan};
use crate::run::Run;
use crate::sender::Phase;
use crate::stamp::Stamp;

/// Classic form, compression of every kind, reasons of refusals: brokers since 2.4 speak it.
const PRODUCE_VERSION: i16 = 8;
const METADATA_VERSION: i16 = 8;
const INIT_PRODUCER_ID_VERSION: i16 = 1;
const CLIENT_ID: &str = "ringpost-bench-null";
/// As many as a broker keeps in order for one producer id.
const IN_FLIGHT_MAX: usize = 5;
/// Different batches; a request takes the next ones.
const BATCHES: usize = 16;
/// Bytes of batches in one request, unless one batch is larger.
const REQUEST_BYTES: u64 = 1 << 20;
/// Largest answer taken.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How long a broker may take to accept a connection or to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Settings that mean nothing here.
pub const UNUSED: [&str; 6] = ["driver", "wait", "shards", "linger", "memory", "delivery"];
/// Pause between two looks at a topic that is being made.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// One built batch, without its header.
#[derive(Debug)]
struct Built {
    body: Vec<u8>,
    digest: BodyDigest,
    records: u32,
    /// Bytes of its keys and values.
    payload: u64,
    codec: Codec,
}

/// A connected `null` client.
#[derive(Debug)]
pub struct Null {
    topic: String,
    acks: i16,
    idempotent: bool,
    /// Leaders' addresses and the partitions each leads.
    leaders: Vec<(String, Vec<i32>)>,
    batches: Vec<Built>,
    sent_batches: AtomicU64,
    requests: AtomicU64,
    kernel_entries: AtomicU64,
}

impl Null {
    /// Finds the topic's leaders and builds the batches.
    pub fn connect(
        plan: &Plan,
        brokers: &[String],
        corpus: &Corpus,
        keyring: &Keyring,
    ) -> Result<Self, String> {
        let leaders = find_leaders(brokers, &plan.topic)?;
        let batches = build(plan, corpus, keyring)?;
        Ok(Self {
            topic: plan.topic.clone(),
            acks: match plan.acks {
                Acks::None => 0,
                Acks::Leader => 1,
                Acks::All => -1,
            },
            idempotent: plan.idempotent(),
            leaders,
            batches,
            sent_batches: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            kernel_entries: AtomicU64::new(0),
        })
    }

    fn send_until_stopped(&self, run: &Run, phase: &Phase, sender: usize) -> Result<(), Broken> {
        let (address, partitions) = &self.leaders[sender % self.leaders.len()];
        let mut link = Link::connect(address)?;
        let producer_id = if self.idempotent {
            link.producer_id()?
        } else {
            (-1, -1)
        };
        let mut lanes: Vec<Lane> = partitions
            .iter()
            .map(|partition| Lane {
                partition: *partition,
                sequence: 0,
            })
            .collect();
        let per_request = {
            let largest = self
                .batches
                .iter()
                .map(|built| built.body.len())
                .max()
                .unwrap_or(1);
            index(REQUEST_BYTES / count(largest.max(1))).clamp(1, lanes.len())
        };
        let share = phase.share(sender, run.plan.producers);
        let tally = &run.settled[sender];
        let mut in_flight: VecDeque<InFlight> = VecDeque::with_capacity(IN_FLIGHT_MAX);
        let mut request = Request::default();
        let (mut lane, mut batch, mut taken) = (0, sender, 0u64);
        while !phase.stopped() && taken < share {
            let now = run.clock.now();
            let stamp = Stamp::new(now, now);
            let mut chosen = Vec::with_capacity(per_request);
            for _ in 0..per_request {
                chosen.push((lane, batch % self.batches.len()));
                (lane, batch) = ((lane + 1) % lanes.len(), batch + 1);
            }
            let written = request.write(self, &mut link, &mut lanes, &chosen, producer_id)?;
            run.senders[sender].took(written.records, written.payload);
            taken += written.records;
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.sent_batches
                .fetch_add(count(per_request), Ordering::Relaxed);
            if self.acks == 0 {
                tally
                    .at(&run.window, run.clock.now())
                    .sent(stamp, written.records);
                continue;
            }
            let batches = chosen
                .iter()
                .map(|(lane, batch)| (lanes[*lane].partition, *batch))
                .collect();
            in_flight.push_back(InFlight {
                id: written.id,
                stamp,
                batches,
            });
            if in_flight.len() == IN_FLIGHT_MAX {
                self.settle_oldest(run, sender, &mut link, &mut in_flight)?;
            }
            self.kernel_entries
                .fetch_add(std::mem::take(&mut link.entries), Ordering::Relaxed);
        }
        while !in_flight.is_empty() {
            self.settle_oldest(run, sender, &mut link, &mut in_flight)?;
        }
        Ok(())
    }

    fn settle_oldest(
        &self,
        run: &Run,
        sender: usize,
        link: &mut Link,
        in_flight: &mut VecDeque<InFlight>,
    ) -> Result<(), Broken> {
        let Some(oldest) = in_flight.pop_front() else {
            return Ok(());
        };
        let address = link.address.clone();
        let body = link.answer(ApiKey::PRODUCE, PRODUCE_VERSION, oldest.id)?;
        let response = produce::decode_response(PRODUCE_VERSION, body)
            .map_err(|error| Broken(format!("{address}: a broken answer: {error}")))?;
        let mut recording = run.settled[sender].at(&run.window, run.clock.now());
        let mut refused = None;
        for answer in response.partitions() {
            let batch = oldest
                .batches
                .iter()
                .find(|(partition, _)| *partition == answer.partition);
            let Some((partition, batch)) = batch else {
                continue;
            };
            let records = u64::from(self.batches[*batch].records);
            if answer.error.is_ok() {
                recording.acked(oldest.stamp, records);
            } else {
                let why = format!("partition {partition}: {}", said(answer.error));
                for _ in 0..records {
                    recording.not_written(&why);
                }
                refused = Some(why);
            }
        }
        match refused {
            // Nothing is repeated here: the sequence is broken, all that follows would be refused.
            Some(why) => Err(Broken(format!("{address} refused a batch: {why}"))),
            None => Ok(()),
        }
    }
}

impl Client for Null {
    fn facts(&self) -> Facts {
        Facts {
            driver: "socket".into(),
            driver_reason: "prebuilt batches, blocking writev and read".into(),
            shards: Vec::new(),
            differs: vec![format!(
                "{}: engine=null has no use for them",
                UNUSED.join(", ")
            )],
        }
    }

    fn collectors(&self) -> usize {
        0
    }

    fn tallies(&self, producers: usize) -> usize {
        producers // each sees its own
    }

    fn send(&self, run: &Run, phase: &Phase, sender: usize) {
        if let Err(Broken(why)) = self.send_until_stopped(run, phase, sender) {
            run.fail(Failure::connection(why));
        }
    }

    fn collect(&self, _run: &Run, _collector: usize) {}

    fn counters(&self) -> Counters {
        Counters {
            batches: Some(self.sent_batches.load(Ordering::Relaxed)),
            requests: Some(self.requests.load(Ordering::Relaxed)),
            retries: Some(0),
            kernel_entries: Some(self.kernel_entries.load(Ordering::Relaxed)),
            wakes: None,
        }
    }

    /// Senders return only when everything is answered.
    fn flush(&self, _deadline: Duration) {}

    fn close(&self, _deadline: Duration) {}
}

/// Why a sender gave up, with the address in it.
struct Broken(String);

/// A partition's place in the sequence.
#[derive(Debug)]
struct Lane {
    partition: i32,
    sequence: i32,
}

#[derive(Debug)]
struct InFlight {
    id: i32,
    stamp: Stamp,
    /// Partition and batch of each part.
    batches: Vec<(i32, usize)>,
}

/// What a request carried.
struct Written {
    id: i32,
    records: u64,
    payload: u64,
}

/// The bytes of one request that are not batch bodies; kept to be used again.
#[derive(Debug, Default)]
struct Request {
    slab: Vec<u8>,
    /// Where in the slab each body is to be inserted.
    cuts: Vec<usize>,
}

impl Request {
    fn write(
        &mut self,
        null: &Null,
        link: &mut Link,
        lanes: &mut [Lane],
        chosen: &[(usize, usize)],
        (producer_id, producer_epoch): (i64, i16),
    ) -> Result<Written, Broken> {
        self.slab.clear();
        self.cuts.clear();
        link.id = link.id.wrapping_add(1);
        let mut written = Written {
            id: link.id,
            records: 0,
            payload: 0,
        };
        let head = RequestHead {
            version: PRODUCE_VERSION,
            correlation_id: link.id,
            client_id: Some(CLIENT_ID),
            transactional_id: None,
            acks: null.acks,
            timeout_ms: 30_000,
            topic_count: 1,
        };
        let length = produce::put_request_head(&mut self.slab, &head);
        produce::put_topic(
            &mut self.slab,
            PRODUCE_VERSION,
            TopicRef::Name(&null.topic),
            chosen.len(),
        );
        let now_ms = i64::try_from(wall().as_millis()).unwrap_or(0);
        let mut by_reference = 0;
        for (lane, batch) in chosen {
            let (lane, built) = (&mut lanes[*lane], &null.batches[*batch]);
            let records_len = BATCH_HEADER_LEN + built.body.len();
            produce::put_partition(&mut self.slab, PRODUCE_VERSION, lane.partition, records_len);
            let records = i32::try_from(built.records).unwrap_or(i32::MAX);
            let header = BatchHeader {
                attributes: Attributes::new(built.codec),
                last_offset_delta: records - 1,
                base_timestamp: now_ms,
                max_timestamp: now_ms,
                producer_id,
                producer_epoch,
                base_sequence: if producer_id < 0 { -1 } else { lane.sequence },
                record_count: records,
                ..BatchHeader::default()
            };
            let at = self.slab.len();
            self.slab.resize(at + BATCH_HEADER_LEN, 0);
            header.write(&built.digest, &mut self.slab[at..]);
            self.cuts.push(self.slab.len());
            by_reference += built.body.len();
            produce::put_partition_end(&mut self.slab, PRODUCE_VERSION);
            // Sequences start again at 0 after the largest i32.
            lane.sequence = lane.sequence.wrapping_add(records) & i32::MAX;
            written.records += u64::from(built.records);
            written.payload += built.payload;
        }
        produce::put_topic_end(&mut self.slab, PRODUCE_VERSION);
        produce::put_request_end(&mut self.slab, PRODUCE_VERSION);
        length.patch(&mut self.slab, by_reference);

        let mut pieces = Vec::with_capacity(2 * chosen.len() + 1);
        let mut from = 0;
        for (cut, (_, batch)) in self.cuts.iter().zip(chosen) {
            pieces.push(IoSlice::new(&self.slab[from..*cut]));
            pieces.push(IoSlice::new(&null.batches[*batch].body));
            from = *cut;
        }
        pieces.push(IoSlice::new(&self.slab[from..]));
        link.write(&mut pieces)?;
        Ok(written)
    }
}

/// A blocking connection to one broker.
#[derive(Debug)]
struct Link {
    socket: TcpStream,
    address: String,
    id: i32,
    /// Bytes read, of which those before `start` are used.
    buffer: Vec<u8>,
    start: usize,
    /// Calls into the kernel since somebody last took this.
    entries: u64,
}

impl Link {
    fn connect(address: &str) -> Result<Self, Broken> {
        let broken = |error: io::Error| Broken(format!("{address}: {error}"));
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for resolved in address.to_socket_addrs().map_err(broken)? {
            match TcpStream::connect_timeout(&resolved, PATIENCE) {
                Ok(socket) => {
                    socket.set_nodelay(true).map_err(broken)?;
                    socket.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
                    socket.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
                    let (buffer, address) = (Vec::new(), address.to_owned());
                    return Ok(Self {
                        socket,
                        address,
                        id: 0,
                        buffer,
                        start: 0,
                        entries: 0,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(broken(last))
    }

    fn broken(&self, error: &io::Error) -> Broken {
        Broken(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("{}: no answer in {} s", self.address, PATIENCE.as_secs())
            }
            _ => format!("{}: {error}", self.address),
        })
    }

    fn write(&mut self, mut pieces: &mut [IoSlice<'_>]) -> Result<(), Broken> {
        // Pieces that are empty from the start would end the loop below too late.
        IoSlice::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            self.entries += 1;
            match self.socket.write_vectored(pieces) {
                Ok(0) => return Err(self.broken(&ErrorKind::WriteZero.into())),
                Ok(written) => IoSlice::advance_slices(&mut pieces, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
        Ok(())
    }

    /// Reads until `len` unused bytes are there.
    fn fill(&mut self, len: usize) -> Result<(), Broken> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        while self.buffer.len() < len {
            let had = self.buffer.len();
            self.buffer.resize(had + 4096, 0);
            self.entries += 1;
            let read = self.socket.read(&mut self.buffer[had..]);
            self.buffer.truncate(had + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(Broken(format!("{}: closed the connection", self.address))),
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    return Err(self.broken(&error));
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The body of the next answer, which must be the one to `id`.
    fn answer(&mut self, api_key: ApiKey, version: i16, id: i32) -> Result<&[u8], Broken> {
        if self.buffer.len() - self.start < 4 {
            self.fill(4)?;
        }
        let length = &self.buffer[self.start..self.start + 4];
        let length = u32::from_be_bytes(length.try_into().unwrap_or_default());
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > ANSWER_BYTES_MAX {
            let what = format!(
                "{}: not Kafka, or broken: an answer of {length} bytes",
                self.address
            );
            return Err(Broken(what));
        }
        if self.buffer.len() - self.start < 4 + length {
            self.fill(4 + length)?;
        }
        let from = self.start + 4;
        self.start = from + length;
        let mut reader = Reader::new(&self.buffer[from..self.start]);
        let head = |reader: &mut Reader<'_>| -> Result<i32, DecodeError> {
            let id = read_correlation_id(reader)?;
            read_response_rest(reader, api_key, version)?;
            Ok(id)
        };
        let answered = head(&mut reader)
            .map_err(|error| Broken(format!("{}: not Kafka, or broken: {error}", self.address)))?;
        if answered != id {
            let what = format!("{}: answered {answered} where {id} was asked", self.address);
            return Err(Broken(what));
        }
        Ok(reader.rest())
    }

    /// Sends one small request and waits for its answer's body.
    fn ask(
        &mut self,
        api_key: ApiKey,
        version: i16,
        body: impl FnOnce(&mut ringpost_codec::writer::Writer<'_>) -> Result<(), DecodeError>,
    ) -> Result<&[u8], Broken> {
        self.id = self.id.wrapping_add(1);
        let header = RequestHeader {
            api_key,
            version,
            correlation_id: self.id,
            client_id: Some(CLIENT_ID),
        };
        let mut out = Vec::new();
        let mut written = Ok(());
        put_request(&mut out, &header, |writer| written = body(writer));
        written.map_err(|error| Broken(format!("{api_key} v{version}: {error}")))?;
        self.write(&mut [IoSlice::new(&out)])?;
        self.answer(api_key, version, self.id)
    }

    fn producer_id(&mut self) -> Result<(i64, i16), Broken> {
        let request = init_producer_id::Request::default();
        // A broker that has just started may not have its coordinator yet.
        retried(|| {
            let address = self.address.clone();
            let body = self.ask(
                ApiKey::INIT_PRODUCER_ID,
                INIT_PRODUCER_ID_VERSION,
                |writer| request.write(INIT_PRODUCER_ID_VERSION, writer),
            )?;
            let response =
                init_producer_id::Response::read(INIT_PRODUCER_ID_VERSION, &mut Reader::new(body))
                    .map_err(|error| Broken(format!("{address}: a broken answer: {error}")))?;
            Ok(if response.error.is_ok() {
                Ok((response.producer_id, response.producer_epoch))
            } else {
                Err(format!(
                    "{address}: no producer id: {}",
                    said(response.error)
                ))
            })
        })
    }
}

/// An error code's name.
fn said(error: ErrorCode) -> String {
    error
        .name()
        .map_or_else(|| format!("error {}", error.0), str::to_owned)
}

/// Asks again until the answer is good or the patience is at its end.
fn retried<T>(mut ask: impl FnMut() -> Result<Result<T, String>, Broken>) -> Result<T, Broken> {
    let tries = PATIENCE.as_millis() / RETRY_EVERY.as_millis();
    for _ in 1..tries {
        if let Ok(good) = ask()? {
            return Ok(good);
        }
        thread::park_timeout(RETRY_EVERY);
    }
    ask()?.map_err(Broken)
}

/// The leaders of the topic's partitions, by the first broker that answers.
fn find_leaders(brokers: &[String], topic: &str) -> Result<Vec<(String, Vec<i32>)>, String> {
    let mut faults = Vec::new();
    for broker in brokers {
        match leaders_by(broker, topic) {
            Ok(leaders) => return Ok(leaders),
            Err(Broken(fault)) => faults.push(fault),
        }
    }
    Err(faults.join("; "))
}

fn leaders_by(broker: &str, topic: &str) -> Result<Vec<(String, Vec<i32>)>, Broken> {
    let mut link = Link::connect(broker)?;
    let request = metadata::Request {
        topics: Some(&[topic]),
        allow_auto_topic_creation: true,
    };
    retried(|| {
        let body = link.ask(ApiKey::METADATA, METADATA_VERSION, |writer| {
            request.write(METADATA_VERSION, writer)
        })?;
        let response = metadata::Response::read(METADATA_VERSION, &mut Reader::new(body))
            .map_err(|error| Broken(format!("{broker}: not Kafka, or broken: {error}")))?;
        let Some(found) = response.topics.first() else {
            return Ok(Err(format!("{broker}: does not know topic {topic}")));
        };
        if !found.error.is_ok() {
            return Ok(Err(format!(
                "{broker}: topic {topic}: {}",
                said(found.error)
            )));
        }
        let mut leaders: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for partition in &found.partitions {
            if !partition.error.is_ok() || partition.leader < 0 {
                let partition = partition.index;
                return Ok(Err(format!(
                    "{broker}: partition {partition} has no leader"
                )));
            }
            leaders
                .entry(partition.leader)
                .or_default()
                .push(partition.index);
        }
        let named: Option<Vec<_>> = leaders
            .into_iter()
            .map(|(leader, partitions)| {
                let broker = response.brokers.iter().find(|broker| broker.id == leader)?;
                Some((format!("{}:{}", broker.host, broker.port), partitions))
            })
            .collect();
        Ok(match named {
            Some(named) if !named.is_empty() => Ok(named),
            _ => Err(format!(
                "{broker}: topic {topic} has no partition with a known leader"
            )),
        })
    })
}

/// Builds the batches, each as full as the plan's batch size allows.
fn build(plan: &Plan, corpus: &Corpus, keyring: &Keyring) -> Result<Vec<Built>, String> {
    let compression: Compression = plan
        .compression
        .parse()
        .map_err(|error| format!("compression: {error}"))?;
    let room = index(plan.batch).saturating_sub(BATCH_HEADER_LEN);
    let mut compressor = Compressor::new();
    let mut number = 0;
    let mut built = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let (mut body, mut records, mut payload) = (Vec::with_capacity(room), 0u32, 0);
        loop {
            let (key, value) = (keyring.key(number), corpus.value(number % corpus.len()));
            let delta = i32::try_from(records).map_err(|_| "too many records for a batch")?;
            let size = record::record_size(0, delta, key, Some(value.len()), &[]);
            let at = body.len();
            // One record always fits: a batch may be larger than asked for, not empty.
            if at > 0 && at + size.total > room {
                break;
            }
            body.resize(at + size.total, 0);
            record::encode(&mut body[at..], size, 0, delta, key, Some(value), &[]);
            payload += count(key.map_or(0, <[u8]>::len) + value.len());
            records += 1;
            number += 1;
        }
        let mut codec = Codec::None;
        if compression.codec() != Codec::None {
            let mut out = Vec::new();
            let outcome = compressor
                .compress(
                    compression,
                    &mut std::iter::once(&body[..]),
                    &mut out,
                    body.len(),
                )
                .map_err(|error| format!("compression: {error}"))?;
            if let Compressed::Smaller = outcome {
                (body, codec) = (out, compression.codec());
            }
        }
        built.push(Built {
            digest: BodyDigest::of(&body),
            body,
            records,
            payload,
            codec,
        });
    }
    Ok(built)
}
