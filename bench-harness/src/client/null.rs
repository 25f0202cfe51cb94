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

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ringpost_codec::checksum::BodyDigest;
use ringpost_codec::compress::{Codec, Compressed, Compression, Compressor};
use ringpost_codec::kafka::ApiKey;
use ringpost_codec::kafka::produce::{self, RequestHead, TopicRef};
use ringpost_codec::record;
use ringpost_codec::record_batch::{Attributes, BATCH_HEADER_LEN, BatchHeader};

use crate::client::link::{Broken, Link, find_leaders, said};
use crate::client::{Client, Counters, Facts};
use crate::clock::wall;
use crate::corpus::Corpus;
use crate::exit::Failure;
use crate::keyring::Keyring;
use crate::number::{count, index};
use crate::plan::{Acks, Plan};
use crate::run::Run;
use crate::sender::{Phase, Phases};
use crate::stamp::Stamp;

/// Classic form, compression of every kind, reasons of refusals: brokers since 2.4 speak it.
const PRODUCE_VERSION: i16 = 8;
const CLIENT_ID: &str = "ringpost-bench-null";
/// As many as a broker keeps in order for one producer id.
const IN_FLIGHT_MAX: usize = 5;
/// Different batches; a request takes the next ones.
const BATCHES: usize = 16;
/// Bytes of batches in one request, unless one batch is larger.
const REQUEST_BYTES: u64 = 1 << 20;
/// Settings that mean nothing here.
pub const UNUSED: [&str; 7] = [
    "driver", "embedded", "wait", "shards", "linger", "memory", "delivery",
];

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
                tally.at(run.clock.now()).sent(stamp, written.records);
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
        let mut recording = run.settled[sender].at(run.clock.now());
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

    fn send(&self, run: &Run, phases: &Phases, sender: usize) {
        phases.live(
            self,
            |_, at_most| thread::park_timeout(at_most),
            |_, phase| {
                if let Err(Broken(why)) = self.send_until_stopped(run, phase, sender) {
                    run.fail(Failure::connection(why));
                }
            },
        );
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
