//! What a seed decides: the cluster, the client's settings, the load, the network, and which faults
//! there are and how often. Every knob can be off.

use std::fmt;
use std::time::Duration;

use ringpost_broker::{OldDuplicate, UnknownProducer};
use ringpost_codec::compress::Codec;
use ringpost_core::health::HealthSettings;
use ringpost_core::limits;
use ringpost_core::random::Random;
use ringpost_core::retry::{Backoff, Budget, Class, Jitter, RetryPolicy, Rule};
use ringpost_core::settings::{Acks, Linger};

use crate::setup::{ms, us};

/// A kind of fault, or of call that is not sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A connection is reset: what is under way both ways is lost.
    Reset,
    /// A connection is reset behind a byte of a request.
    Cut,
    /// A connection's other end is gone, and nobody says so.
    HalfOpen,
    /// Nothing gets through to a node for a while.
    Deaf,
    /// Nothing comes back from a node for a while.
    Mute,
    /// A bit of a request is flipped where a checksum covers it.
    FlipRequest,
    /// A bit of an answer is flipped where its frame or its number is.
    FlipAnswer,
    /// A batch gets an error code, before or after it is stored, or is left out of the answer.
    BatchError,
    /// A request is not answered, cut off, delayed, or answered with an error.
    RequestError,
    /// A partition gets another leader.
    Leader,
    /// A node crashes and comes back.
    Crash,
    /// A node's machine loses power and comes back.
    Power,
    /// The same, and if it was the last in sync, it loses what was committed and not on its disk yet.
    Unwritten,
    /// A copy that is not in sync becomes leader.
    Unclean,
    /// A node is stopped in good order and comes back.
    Shutdown,
    /// A node does nothing for a while.
    Pause,
    /// Two nodes cannot talk for a while: the in-sync set shrinks.
    Link,
    /// A node and the controller cannot talk for a while.
    Controller,
    /// A node's copies lag.
    Lag,
    /// A node's log directory fails for a while.
    LogDir,
    /// A node answers by old metadata, or by none.
    Stale,
    /// A topic is deleted, and made again with as many partitions, fewer, or more.
    Recreate,
    /// The application's wall clock jumps, ahead or back.
    Clock,
    /// Answers ask for quiet.
    Throttle,
    /// Lanes are locked, or there is no memory for a request's head, when the shard looks.
    Busy,
    /// The application flushes.
    Flush,
    /// The application gives up waiting for memory.
    Cancel,
    /// The application purges what waits.
    Purge,
    /// The application purges what is in flight too.
    PurgeAll,
    /// A batch, or who asks for a producer id, gets a code that says that this is the end, that it is
    /// somebody else's now, or nothing that anybody knows.
    FinalError,
    /// Answers ask for more quiet than can be meant, or for less than none.
    Quiet,
    /// The client's process does nothing for a while.
    Stopped,
    /// One of its shards does nothing for a while.
    Stalled,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 33] = [
        Self::Reset,
        Self::Cut,
        Self::HalfOpen,
        Self::Deaf,
        Self::Mute,
        Self::FlipRequest,
        Self::FlipAnswer,
        Self::BatchError,
        Self::RequestError,
        Self::Leader,
        Self::Crash,
        Self::Power,
        Self::Unwritten,
        Self::Unclean,
        Self::Shutdown,
        Self::Pause,
        Self::Link,
        Self::Controller,
        Self::Lag,
        Self::LogDir,
        Self::Stale,
        Self::Recreate,
        Self::Clock,
        Self::Throttle,
        Self::Busy,
        Self::Flush,
        Self::Cancel,
        Self::Purge,
        Self::PurgeAll,
        Self::FinalError,
        Self::Quiet,
        Self::Stopped,
        Self::Stalled,
    ];

    /// Whether it is the application's doing and no fault of anybody's.
    #[must_use]
    pub fn is_call(self) -> bool {
        matches!(
            self,
            Self::Flush | Self::Cancel | Self::Purge | Self::PurgeAll | Self::Busy
        )
    }

    /// Whether one of them ends much of what is under way. Often, it would leave nothing to look at.
    fn ends_much(self) -> bool {
        matches!(
            self,
            Self::Purge | Self::PurgeAll | Self::FinalError | Self::Quiet
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter();
        known
            .clone()
            .find(|kind| kind.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| {
                let names: Vec<_> = known.map(|kind| kind.to_string()).collect();
                format!(
                    "no kind of fault is called {text:?}; there are {}",
                    names.join(", ")
                )
            })
    }
}

/// Everything a seed decides.
#[derive(Debug, Clone)]
pub struct Knobs {
    /// The seed.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: i32,
    /// Copies of each partition.
    pub copies: i32,
    /// Copies that must be in sync.
    pub min_insync: i32,
    /// From an append until a follower has it.
    pub fetch_delay_ms: i64,
    /// How long a node may be silent before others lead.
    pub session_ms: i64,
    /// How long a copy may lag.
    pub lag_ms_max: i64,
    /// When nodes hear of changes.
    pub metadata_delay_ms: i64,
    /// Partitions of each topic.
    pub topics: Vec<i32>,
    /// Shards of the producer.
    pub shards: usize,
    /// Whether records have sequences.
    pub idempotent: bool,
    /// Whose acknowledgement counts.
    pub acks: Acks,
    /// Requests in flight per connection.
    pub in_flight_max: usize,
    /// When records are sent.
    pub linger: Linger,
    /// For a request.
    pub request_timeout: Duration,
    /// For a connection.
    pub connect_timeout: Duration,
    /// From append to verdict.
    pub delivery_timeout: Duration,
    /// For a record to get memory.
    pub max_block: Duration,
    /// Connections to each broker, per shard.
    pub connections_per_broker: usize,
    /// Largest request.
    pub request_bytes_max: usize,
    /// Attempts, the first included.
    pub attempts_max: Option<u32>,
    /// Waits between attempts, what each class of failures is met with, what retries may take. The
    /// attempts are those above.
    pub retry: RetryPolicy,
    /// Between attempts to connect.
    pub reconnect: Backoff,
    /// When brokers are avoided.
    pub health: HealthSettings,
    /// An idle connection is asked after so long whether it still works; zero never asks.
    pub idle_probe: Duration,
    /// Metadata is asked for after so long, news or not.
    pub metadata_max_age: Duration,
    /// The epoch that a producer id comes with. Near the last one, epochs run out.
    pub first_epoch: i16,
    /// The sequence of each lane's first record; 0, or near the last.
    pub first_sequence: u32,
    /// The newest Produce version of the cluster.
    pub produce_version: i16,
    /// The cluster takes no larger batches; 0 is as Kafka has it, more than there are.
    pub message_bytes_max: usize,
    /// The cluster forgets producers that wrote nothing for so long; 0 remembers them.
    pub producer_expiry: Duration,
    /// What it says to a batch of a producer that it does not know.
    pub unknown_producer: UnknownProducer,
    /// What it says to one that is older than those it remembers.
    pub old_duplicate: OldDuplicate,
    /// All memory for records.
    pub memory_bytes: usize,
    /// All memory for heads of requests.
    pub slab_bytes: usize,
    /// Batches are cut at this size.
    pub batch_bytes: usize,
    /// How bodies are compressed.
    pub codec: Codec,
    /// The largest value.
    pub value_bytes_max: usize,
    /// How many of 100 records wait for memory instead of being refused.
    pub waiting_percent: usize,
    /// How many of 100 records must go to their partition.
    pub bound_percent: usize,
    /// Between two bursts of records, on average.
    pub burst_every: Duration,
    /// Records in a burst, at most.
    pub burst_max: usize,
    /// How long there are faults.
    pub duration: Duration,
    /// Half way the application sends nothing for so long, and nothing goes wrong; 0 goes on.
    pub silence: Duration,
    /// One way.
    pub latency: Duration,
    /// Up to so much more per piece.
    pub jitter: Duration,
    /// Bytes travel in pieces of 1 to so many; 0 leaves them whole.
    pub fragment: usize,
    /// The kernel takes at most so many bytes of a frame at once; 0 takes all there is room for.
    pub take_max: usize,
    /// The kernel's room for bytes that are under way.
    pub send_buffer: usize,
    /// The kernel reads a frame's bytes when they leave, not when they are handed over.
    pub lent: bool,
    /// The kernel lets go of a frame up to so long after its last byte.
    pub release_delay: Duration,
    /// In the end the producer is closed with records under way.
    pub abandon: bool,
    /// It waits for them so long first, with faults; 0 not at all.
    pub close_within: Duration,
    /// How often each kind happens, on average.
    pub faults: Vec<(Kind, Duration)>,
}

impl Knobs {
    /// What a seed decides, but for the kinds in `without`.
    #[must_use]
    pub fn draw(seed: u64, without: &[Kind]) -> Self {
        let mut random = Random::new(seed ^ 0x006b_6e6f_6273);
        let r = &mut random;
        let idempotent = !r.one_in(6);
        let acks = match r.below(4) {
            _ if idempotent => Acks::All,
            0 => Acks::Leader,
            1 => Acks::None,
            _ => Acks::All,
        };
        let nodes = r.pick(&[1, 2, 3, 3, 5]);
        let copies = if acks == Acks::All {
            if nodes >= 3 { r.pick(&[1, 3, 3, 3]) } else { 1 }
        } else {
            // With fewer acknowledgements a crash may lose what was acknowledged.
            1
        };
        let topics = (0..r.pick(&[1, 1, 2, 3]))
            .map(|_| r.pick(&[1, 2, 3, 6]))
            .collect();
        let batch_bytes = r.pick(&[300, 1_000, 4_000, 16_000, 16_000]);
        // In every other run faults are few, and most records are stored: what must hold of many
        // batches in flight is looked at there. In the others everything happens at once.
        let mild = r.one_in(2);
        let delivery = r.pick(&[1_500, 4_000, 20_000, 20_000]);
        let mut knobs = Self {
            seed,
            nodes,
            copies,
            min_insync: if copies == 3 { r.pick(&[2, 2, 1]) } else { 1 },
            fetch_delay_ms: r.pick(&[0, 0, 1, 5, 30]),
            session_ms: r.pick(&[300, 1_000, 3_000]),
            lag_ms_max: r.pick(&[200, 1_000, 3_000]),
            metadata_delay_ms: r.pick(&[0, 0, 10, 200]),
            topics,
            shards: r.pick(&[1, 1, 1, 2, 3]),
            idempotent,
            acks,
            in_flight_max: r.pick(&[1, 2, 5, 5, 5]),
            linger: match r.below(4) {
                0 => Linger::Auto {
                    gap: Duration::ZERO,
                },
                1 => Linger::Fixed(ms(2)),
                2 => Linger::Fixed(ms(40)),
                _ => Linger::Auto { gap: us(500) },
            },
            request_timeout: ms(r.pick(&[300, 1_000, 3_000])),
            connect_timeout: ms(r.pick(&[300, 1_000])),
            delivery_timeout: ms(delivery),
            max_block: ms(r.pick(&[50, 1_000, 10_000])),
            connections_per_broker: r.pick(&[1, 1, 1, 2]),
            request_bytes_max: r.pick(&[20_000, 1 << 20, 1 << 20]),
            attempts_max: r
                .pick(&[None, None, None, Some(1), Some(3)])
                .filter(|most| !mild || *most > 1),
            produce_version: r.pick(&[3, 7, 9, 11, 12, 13, 13, 13]),
            memory_bytes: r.pick(&[64 << 10, 64 << 10, 256 << 10, 4 << 20]),
            slab_bytes: r.pick(&[512 << 10, 2 << 20]),
            batch_bytes,
            codec: r.pick(&[
                Codec::None,
                Codec::None,
                Codec::None,
                Codec::Lz4,
                Codec::Snappy,
                Codec::Gzip,
            ]),
            value_bytes_max: r.pick(&[40, 200, 2_000, 9_000]),
            waiting_percent: r.pick(&[0, 50, 100]),
            bound_percent: r.pick(&[0, 50, 100, 100]),
            burst_every: r.pick(&[us(200), ms(2), ms(20), ms(200)]),
            burst_max: r.pick(&[1, 4, 20]),
            duration: ms(r.pick(&[1_000, 4_000, 15_000])),
            latency: us(r.pick(&[20, 500, 5_000])),
            jitter: us(r.pick(&[0, 100, 3_000])),
            fragment: r.pick(&[0, 0, 0, 1_460, 200]),
            take_max: r.pick(&[0, 0, 0, 1_000, 77]),
            send_buffer: r.pick(&[500, 4_000, 64 << 10, 1 << 20]),
            lent: !r.one_in(4),
            release_delay: us(r.pick(&[0, 0, 100, 20_000])),
            abandon: r.one_in(5),
            retry: RetryPolicy::default(),
            reconnect: Backoff::new(ms(50), ms(1_000)),
            health: HealthSettings::default(),
            idle_probe: ms(30_000),
            metadata_max_age: ms(300_000),
            first_epoch: 0,
            first_sequence: 0,
            message_bytes_max: 0,
            producer_expiry: Duration::ZERO,
            unknown_producer: UnknownProducer::default(),
            old_duplicate: OldDuplicate::default(),
            silence: Duration::ZERO,
            close_within: Duration::ZERO,
            faults: Vec::new(),
        };
        knobs.draw_policies(&mut Random::new(seed ^ 0x0070_6f6c_6963_7973), mild);
        // Long runs of many records take long and show little more.
        if knobs.burst_every < ms(1) {
            knobs.duration = knobs.duration.min(ms(1_000));
        } else if knobs.burst_every < ms(10) {
            knobs.duration = knobs.duration.min(ms(4_000));
        }
        let calm = r.one_in(12);
        for kind in Kind::ALL {
            // Calls that give nothing up do no harm.
            let harms = !matches!(kind, Kind::Cancel | Kind::Flush | Kind::Busy);
            let every = match r.below(if mild && harms { 10 } else { 4 }) {
                // Often, to fall into the moment between being woken and looking.
                0 if kind == Kind::Cancel => knobs.duration / 200,
                0 if !kind.ends_much() => knobs.duration / 20,
                0 | 1 => knobs.duration / 3,
                _ => Duration::ZERO,
            };
            let replicated = matches!(kind, Kind::Link | Kind::Lag | Kind::Controller);
            let possible = match kind {
                Kind::Cancel => knobs.waiting_percent > 0,
                Kind::Power | Kind::Unwritten | Kind::Unclean | Kind::LogDir => knobs.copies > 1,
                Kind::FlipRequest => acks != Acks::None,
                // Stamped a month back, a batch is older than any memory of its producer.
                Kind::Clock => knobs.producer_expiry.is_zero(),
                Kind::Recreate => knobs.old_duplicate == OldDuplicate::OutOfOrder,
                // Little else happens once a minute of quiet began.
                Kind::Quiet => r.one_in(3),
                Kind::Stalled => knobs.shards > 1,
                _ => !replicated || knobs.copies > 1,
            };
            if every > Duration::ZERO && possible && (!calm || kind.is_call()) {
                knobs.faults.push((kind, every));
            }
        }
        knobs.faults.retain(|(kind, _)| !without.contains(kind));
        knobs
    }

    /// What client and cluster go by beyond sizes and times: each as it is by default in every other
    /// run. From numbers of its own, so that a knob more changes no other.
    fn draw_policies(&mut self, r: &mut Random, mild: bool) {
        if r.one_in(2) {
            self.retry = draw_retry(r, mild);
            self.reconnect = draw_backoff(r);
        }
        if r.one_in(2) {
            self.health = draw_health(r);
        }
        self.idle_probe = ms(r.pick(&[30_000, 30_000, 1_000, 0]));
        self.metadata_max_age = ms(r.pick(&[300_000, 300_000, 5_000, 2_000]));
        self.first_epoch = r.pick(&[0, 0, i16::MAX - 1, i16::MAX - 3]);
        self.message_bytes_max = r.pick(&[0, 0, 0, 300, 1_500, 8_000]);
        self.unknown_producer = r.pick(&[UnknownProducer::Accept, UnknownProducer::Refuse]);
        // "I had that" is the truth only of who has all that was ever sent there.
        if self.copies == 1 && r.one_in(2) {
            self.old_duplicate = OldDuplicate::Duplicate;
        }
        // An old broker takes no producer that begins in the middle.
        if self.idempotent && self.unknown_producer == UnknownProducer::Accept && r.one_in(3) {
            self.first_sequence = (1 << 31) - r.pick(&[1, 3, 20, 200]);
        }
        if r.one_in(4) {
            // Kafka demands that it is above the delivery timeout, and a lane is trusted for as long as
            // its proof lasts: a producer that is forgotten earlier cannot be told from a new one.
            self.producer_expiry = self.delivery_timeout + limits::PROOF_LASTS + ms(5_000);
        }
        self.silence = match r.below(4) {
            0 => self.producer_expiry + ms(20_000),
            1 => ms(2_000),
            _ => Duration::ZERO,
        };
        self.close_within = ms(r.pick(&[0, 0, 50, 1_000, 30_000]));
        // Brokers take it from Produce v7 on.
        if r.one_in(6) && self.produce_version >= 7 {
            self.codec = Codec::Zstd;
        }
    }

    /// Whether anything but the application itself can do harm. A kernel with room for a few thousand
    /// bytes can: with a round trip for each it takes less than is sent, and records expire on their way.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        let takes_all = self.send_buffer >= 64 << 10;
        takes_all && self.faults.iter().all(|(kind, _)| kind.is_call())
    }
}

fn draw_backoff(r: &mut Random) -> Backoff {
    Backoff {
        initial: ms(r.pick(&[1, 20, 100])),
        max: ms(r.pick(&[100, 300, 1_000])),
        growth_percent: r.pick(&[100, 150, 200, 1_000]),
        jitter: r.pick(&[Jitter::Kafka, Jitter::Full, Jitter::Equal, Jitter::None]),
    }
}

fn draw_retry(r: &mut Random, mild: bool) -> RetryPolicy {
    let mut policy = RetryPolicy::default().backoff(draw_backoff(r));
    for class in Class::ALL {
        let rule = match r.below(8) {
            0 if !mild => Some(Rule::GiveUp),
            1 => Some(Rule::Retry {
                attempts_max: r.pick(&[None, Some(2), Some(10)]).filter(|_| !mild),
                backoff: Some(draw_backoff(r)),
            }),
            _ => None,
        };
        policy.rules[class as usize] = rule;
    }
    let tight = Budget {
        percent_of_successes: 0,
        per_second: 1,
        burst: 1,
    };
    policy.budget(r.pick(&[None, Some(Budget::default()), Some(tight)]))
}

/// Anything from not at all to at the slightest.
fn draw_health(r: &mut Random) -> HealthSettings {
    HealthSettings {
        on: !r.one_in(4),
        tau: ms(r.pick(&[10, 500, 5_000])),
        tick: ms(r.pick(&[1, 10, 50, 1_000])),
        consecutive_failures: r.pick(&[1, 3, 10]),
        stall: ms(r.pick(&[20, 200, 2_000])),
        slow_ratio: r.pick(&[2, 8]),
        slow_floor: ms(r.pick(&[1, 50, 250])),
        volume_min: r.pick(&[1, 5, 20]),
        window: ms(r.pick(&[100, 1_000, 10_000])),
        eject_base: ms(r.pick(&[10, 500, 3_000])),
        eject_max: ms(r.pick(&[3_000, 30_000])),
        probe_successes: r.pick(&[1, 2, 10]),
        slow_start: ms(r.pick(&[0, 500, 5_000])),
        eject_percent_max: r.pick(&[0, 50, 100]),
        panic_percent: r.pick(&[0, 34, 100]),
    }
}

/// Small conveniences for drawing.
pub(crate) trait Draw {
    /// One of these.
    fn pick<T: Copy>(&mut self, of: &[T]) -> T;
    /// `true` once in so many times.
    fn one_in(&mut self, times: usize) -> bool;
    /// Anything up to twice this: this, on average.
    fn around(&mut self, mean: Duration) -> Duration;
    /// Anything up to this.
    fn up_to(&mut self, most: Duration) -> Duration;
}

impl Draw for Random {
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn around(&mut self, mean: Duration) -> Duration {
        self.up_to(mean * 2)
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let nanos = usize::try_from(most.as_nanos()).unwrap_or(usize::MAX - 1);
        Duration::from_nanos(self.below(nanos + 1) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What says of a run whether a knob is on.
    type IsOn = fn(&Knobs) -> bool;

    /// Each policy is as by default in some seeds, and not in others.
    #[test]
    fn every_policy_is_on_in_some_seeds_and_off_in_others() {
        let policies: [(&str, IsOn); 13] = [
            ("retry rules", |k| k.retry.rules.iter().any(Option::is_some)),
            ("retry budget", |k| {
                k.retry.budget != Some(Budget::default())
            }),
            ("health", |k| k.health != HealthSettings::default()),
            ("idle probe", |k| k.idle_probe == ms(1_000)),
            ("metadata age", |k| k.metadata_max_age < ms(300_000)),
            ("last epochs", |k| k.first_epoch > 0),
            ("last sequences", |k| k.first_sequence > 0),
            ("largest batch", |k| k.message_bytes_max > 0),
            ("expiry", |k| !k.producer_expiry.is_zero()),
            ("old brokers", |k| {
                k.unknown_producer == UnknownProducer::Refuse
            }),
            ("silence", |k| !k.silence.is_zero()),
            ("zstd", |k| k.codec == Codec::Zstd),
            ("patient close", |k| k.abandon && !k.close_within.is_zero()),
        ];
        let runs: Vec<Knobs> = (0..200).map(|seed| Knobs::draw(seed, &[])).collect();
        for (name, is_on) in policies {
            let on = runs.iter().filter(|knobs| is_on(knobs)).count();
            assert!((5..195).contains(&on), "{name} is on in {on} of 200 runs");
        }
        for kind in Kind::ALL {
            let has = |knobs: &&Knobs| knobs.faults.iter().any(|(of, _)| *of == kind);
            let on = runs.iter().filter(has).count();
            assert!((5..195).contains(&on), "{kind} is on in {on} of 200 runs");
        }
    }
}
