//! What one run does: every setting, parsed and checked. Made from the defaults, then a scenario
//! file, then flags ([`setting`](crate::setting) has the table); trusted by everything after.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::number::{float, whole};
use crate::threshold::Threshold;
use crate::units::{show_bytes, show_count, show_duration};

/// Where the records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brokers {
    /// A broker of our own: this binary as a child process, ended after the run.
    Embedded,
    /// `host:port` of brokers that run already.
    At(Vec<String>),
}

/// What sends the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The engine under measurement.
    Ringpost,
    /// Prebuilt batches over a plain socket: the limit of broker and harness.
    Null,
}

/// Where payloads come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordSource {
    /// Pseudo-random text, every record of this many bytes.
    Size(u64),
    /// A file, a record a line.
    File(PathBuf),
}

/// Which keys records have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keys {
    /// No key: the client chooses partitions.
    None,
    /// This many keys, equally likely.
    Uniform(u64),
    /// This many keys, the i-th with a weight of 1 / i^s.
    Zipf(u64, f64),
}

/// Whose word an ack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Nobody's: a record counts as *sent* when the kernel has it.
    None,
    /// The leader's.
    Leader,
    /// All in-sync replicas'.
    All,
}

/// How many records a second are meant to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// As many as are taken: a closed loop.
    Max,
    /// This many, whatever the answers do: an open loop.
    PerSecond(u64),
    /// This many percent of what a closed loop manages, which a run before the run finds out: an
    /// open loop.
    OfPeak(u64),
}

/// How intended times are spaced at a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Evenly.
    Fixed,
    /// With exponential gaps, as independent requests arrive.
    Poisson,
    /// This many at once, the groups evenly.
    Burst(u64),
}

/// How the application learns what became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A future per record, awaited in order by a second thread.
    Future,
    /// One record at a time: sent, then awaited.
    Wait,
    /// It does not: one-way.
    Forget,
    /// A queue of completions, drained by a second thread.
    Queue,
}

/// What the result is printed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON document on stdout.
    Json,
}

/// A checked run. See [`setting::SETTINGS`](crate::setting::SETTINGS) for each one's meaning.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the setting of the same name documents each field"
)]
pub struct Plan {
    pub brokers: Brokers,
    pub topic: String,
    pub partitions: u32,
    pub broker_delay: Duration,
    pub engine: Engine,
    pub driver: String,
    pub embedded: bool,
    pub wait: String,
    pub shards: String,
    pub record_size: RecordSource,
    pub keys: Keys,
    pub compression: String,
    pub acks: Acks,
    /// `None`: not said; then on exactly when `acks` is `all`.
    pub idempotent: Option<bool>,
    pub linger: String,
    pub batch: u64,
    pub memory: u64,
    pub rate: Rate,
    pub arrival: Arrival,
    pub producers: usize,
    pub delivery: Delivery,
    pub duration: Duration,
    pub warmup: Duration,
    pub records: Option<u64>,
    pub verify: bool,
    /// Engine settings by name, in the order given.
    pub set: Vec<(String, String)>,
    /// What the result must keep, in the order given.
    pub gate: Vec<Threshold>,
    pub format: Format,
    pub out: Option<PathBuf>,
    /// Records a second of the closed loop before the run, once it is known; no setting.
    pub peak: Option<f64>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            brokers: Brokers::Embedded,
            topic: "ringpost-bench".into(),
            partitions: 6,
            broker_delay: Duration::ZERO,
            engine: Engine::Ringpost,
            driver: "auto".into(),
            embedded: false,
            wait: "park".into(),
            shards: "auto".into(),
            record_size: RecordSource::Size(100),
            keys: Keys::None,
            compression: "none".into(),
            acks: Acks::All,
            idempotent: None,
            linger: "auto".into(),
            batch: 128 << 10,
            memory: 64 << 20,
            rate: Rate::Max,
            arrival: Arrival::Fixed,
            producers: 1,
            delivery: Delivery::Queue,
            duration: Duration::from_secs(10),
            warmup: Duration::from_secs(2),
            records: None,
            verify: true,
            set: Vec::new(),
            gate: Vec::new(),
            format: Format::Text,
            out: None,
            peak: None,
        }
    }
}

impl Plan {
    /// Whether records are idempotent once `acks` has had its say.
    pub fn idempotent(&self) -> bool {
        self.idempotent.unwrap_or(self.acks == Acks::All)
    }

    /// Whether intended times come from a schedule (and not from the answers).
    pub fn open_loop(&self) -> bool {
        self.rate != Rate::Max
    }

    /// Records a second of an open loop; `None` for a closed one, and while the peak is not known.
    pub fn records_per_s(&self) -> Option<u64> {
        match self.rate {
            Rate::Max => None,
            Rate::PerSecond(records) => Some(records),
            Rate::OfPeak(percent) => self
                .peak
                .map(|peak| whole(peak * float(percent) / 100.0).max(1)),
        }
    }
}

impl Brokers {
    /// Whether all of them are reached over the loopback.
    pub fn on_this_host(&self) -> bool {
        let here = |address: &String| {
            ["127.", "localhost:", "[::1]:"]
                .iter()
                .any(|start| address.starts_with(start))
        };
        match self {
            Self::Embedded => true,
            Self::At(addresses) => addresses.iter().all(here),
        }
    }
}

impl fmt::Display for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Brokers::Embedded => f.write_str("embedded"),
            Brokers::At(addresses) => f.write_str(&addresses.join(",")),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Ringpost => "ringpost",
            Engine::Null => "null",
        })
    }
}

impl fmt::Display for RecordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordSource::Size(bytes) => f.write_str(&show_bytes(*bytes)),
            RecordSource::File(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Keys::None => f.write_str("none"),
            Keys::Uniform(keys) => keys.fmt(f),
            Keys::Zipf(keys, exponent) => write!(f, "zipf:{keys},{exponent}"),
        }
    }
}

impl fmt::Display for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Acks::None => "0",
            Acks::Leader => "1",
            Acks::All => "all",
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Max => f.write_str("max"),
            Rate::PerSecond(records) => records.fmt(f),
            Rate::OfPeak(percent) => write!(f, "{percent}%peak"),
        }
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arrival::Fixed => f.write_str("fixed"),
            Arrival::Poisson => f.write_str("poisson"),
            Arrival::Burst(records) => write!(f, "burst:{records}"),
        }
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Delivery::Future => "future",
            Delivery::Wait => "wait",
            Delivery::Forget => "forget",
            Delivery::Queue => "queue",
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Text => "text",
            Format::Json => "json",
        })
    }
}

/// One line saying what the run does, for the head of a report.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} → {}, {} records, {} partitions, acks={}, {}, ",
            self.engine,
            match &self.brokers {
                Brokers::Embedded => "embedded broker".to_owned(),
                Brokers::At(addresses) => addresses.join(","),
            },
            self.record_size,
            self.partitions,
            self.acks,
            if self.idempotent() {
                "idempotent"
            } else {
                "not idempotent"
            },
        )?;
        match self.rate {
            Rate::Max => f.write_str("as fast as it goes")?,
            rate @ (Rate::PerSecond(_) | Rate::OfPeak(_)) => match self.records_per_s() {
                Some(records) => write!(f, "{} records/s {}", show_count(records), self.arrival)?,
                None => write!(f, "{rate} {}", self.arrival)?,
            },
        }
        write!(
            f,
            ", {} after {} warm-up",
            self.length(),
            show_duration(self.warmup)
        )
    }
}

impl Plan {
    /// How long the measured window is, in words.
    pub fn length(&self) -> String {
        match self.records {
            Some(records) => format!("{} records", show_count(records)),
            None => show_duration(self.duration),
        }
    }
}
