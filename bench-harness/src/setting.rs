//! The table of settings: one entry is a flag of `run`, a key of a scenario, a line of the file
//! `init` writes and a field of the JSON document's `config`, so that the four cannot drift apart.
//!
//! A flag is spelled with hyphens (`--record-size`), a key with underscores (`record_size`); both
//! spellings are taken in both places.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ringpost_codec::compress::Compression;

use crate::plan::{
    Acks, Arrival, Brokers, Delivery, Engine, Format, Keys, Plan, Rate, RecordSource,
};
use crate::threshold::{self, Threshold};
use crate::units::{
    COUNT_EXPECTED, DURATION_EXPECTED, SIZE_EXPECTED, bytes, count, duration, show_bytes,
    show_duration,
};

/// Longest run; stamps hold 19 hours.
pub const DURATION_MAX: Duration = Duration::from_secs(12 * 3600);
/// Application threads.
const PRODUCERS_MAX: u64 = 1024;
/// Distinct keys, each held in memory.
const KEYS_MAX: u64 = 10_000_000;
/// Largest record: Kafka's own limit on a request leaves no room for more.
const RECORD_SIZE_MAX: u64 = 1 << 30;

/// Settings that are tables in a scenario, and flags that may be given several times.
pub const TABLES: [&str; 2] = ["set", "gate"];
/// Flags that need no value: without one they are `true`.
pub const SWITCHES: [&str; 1] = ["embedded"];
/// Slowest embedded broker: clients give up on a request after 30 s.
const BROKER_DELAY_MAX: Duration = Duration::from_secs(20);

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in a scenario, in `config`, and (with hyphens) its flag.
    pub name: &'static str,
    /// What stands for its value in `--help`.
    pub value_name: &'static str,
    /// What it does.
    pub help: &'static str,
    /// What a value must look like; the end of "expected …".
    pub expected: &'static str,
    /// Reads a value into the plan; the error, if not empty, says more than `expected` does.
    pub read: fn(&mut Plan, &str) -> Result<(), String>,
    /// The plan's value as text that `read` takes; `None` when there is none.
    pub show: fn(&Plan) -> Option<String>,
    /// Whether the scenario value is a number or boolean in TOML, not a string.
    pub bare: bool,
}

impl Setting {
    /// The flag's name, without the two hyphens.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Whether `text`, as a value of this setting, is a path.
    pub fn is_path(&self, text: &str) -> bool {
        match self.name {
            "record_size" => bytes(text).is_none(),
            "out" => !text.is_empty(),
            _ => false,
        }
    }

    /// Reads `text` into `plan`, a path in it from `folder`; the error is a whole sentence without the
    /// setting's name.
    pub fn apply(&self, plan: &mut Plan, text: &str, folder: &Path) -> Result<(), String> {
        let path = self.is_path(text).then(|| folder.join(text));
        let path = path.as_ref().map(|path| path.to_string_lossy());
        (self.read)(plan, path.as_deref().unwrap_or(text)).map_err(|more| {
            let more = if more.is_empty() {
                more
            } else {
                format!(" ({more})")
            };
            format!("`{text}` is not allowed{more}; expected {}", self.expected)
        })
    }
}

/// The setting a flag or key names, in either spelling.
pub fn find(name: &str) -> Option<&'static Setting> {
    let name = name.replace('-', "_");
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// No more to say than what is expected.
fn plain<T>(parsed: Option<T>) -> Result<T, String> {
    parsed.ok_or_else(String::new)
}

fn in_range<T: TryFrom<u64>>(parsed: Option<u64>, low: u64, high: u64) -> Result<T, String> {
    let value = plain(parsed)?;
    if value < low || value > high {
        return Err(format!("not between {low} and {high}"));
    }
    plain(T::try_from(value).ok())
}

fn size_in_range(text: &str, low: u64, high: u64) -> Result<u64, String> {
    let size = plain(bytes(text))?;
    if size < low || size > high {
        return Err(format!(
            "not between {} and {}",
            show_bytes(low),
            show_bytes(high)
        ));
    }
    Ok(size)
}

fn truth(text: &str) -> Result<bool, String> {
    plain(text.parse().ok())
}

/// One of the names, kept as text for the engine to take.
fn one_of(text: &str, names: &[&str]) -> Result<String, String> {
    plain(names.contains(&text).then(|| text.to_owned()))
}

/// Every setting, in the order `--help` and `init` show them.
pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "brokers",
        value_name: "WHERE",
        help: "Brokers to send to. `embedded` starts one of our own as a child process, pinned \
               apart from the client, and ends it after the run",
        expected: "`embedded` or host:port, several with commas",
        read: |plan, text| {
            plan.brokers = brokers(text)?;
            Ok(())
        },
        show: |plan| Some(plan.brokers.to_string()),
        bare: false,
    },
    Setting {
        name: "topic",
        value_name: "NAME",
        help: "Topic to send to; the embedded broker creates it, a real one must have it or create \
               topics by itself",
        expected: "1 to 249 letters, digits, `.`, `_` or `-`, not `.` or `..`",
        read: |plan, text| {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            let fits = (1..=249).contains(&text.len()) && text != "." && text != "..";
            plan.topic = plain((fits && text.bytes().all(legal)).then(|| text.to_owned()))?;
            Ok(())
        },
        show: |plan| Some(plan.topic.clone()),
        bare: false,
    },
    Setting {
        name: "partitions",
        value_name: "N",
        help: "Partitions of the topic at the embedded broker; with real brokers the topic has \
               what it has",
        expected: "a number of 1 to 10000",
        read: |plan, text| {
            plan.partitions = in_range(count(text), 1, 10_000)?;
            Ok(())
        },
        show: |plan| Some(plan.partitions.to_string()),
        bare: true,
    },
    Setting {
        name: "broker_delay",
        value_name: "TIME",
        help: "How long the embedded broker takes for every request besides its work, one request \
               of a connection after the other: a slow broker",
        expected: "a duration in whole ms up to 20s, like 20ms",
        read: |plan, text| {
            let delay = plain(duration(text))?;
            let whole_ms = delay.subsec_nanos().is_multiple_of(1_000_000);
            plan.broker_delay = plain((whole_ms && delay <= BROKER_DELAY_MAX).then_some(delay))?;
            Ok(())
        },
        show: |plan| Some(show_duration(plan.broker_delay)),
        bare: false,
    },
    Setting {
        name: "engine",
        value_name: "ENGINE",
        help: "What sends: the engine, or `null`: prebuilt batches over a plain socket, the limit \
               that broker and harness set",
        expected: "`ringpost` or `null`",
        read: |plan, text| {
            plan.engine = plain(match text {
                "ringpost" => Some(Engine::Ringpost),
                "null" => Some(Engine::Null),
                _ => None,
            })?;
            Ok(())
        },
        show: |plan| Some(plan.engine.to_string()),
        bare: false,
    },
    Setting {
        name: "driver",
        value_name: "DRIVER",
        help: "How the engine talks to the kernel; `auto` takes io_uring where it is allowed",
        expected: "`auto`, `ring` or `epoll`",
        read: |plan, text| {
            plan.driver = one_of(text, &["auto", "ring", "epoll"])?;
            Ok(())
        },
        show: |plan| Some(plan.driver.clone()),
        bare: false,
    },
    Setting {
        name: "embedded",
        value_name: "BOOL",
        help: "Whether the application's thread drives the shard itself, between the records it \
               sends and while it waits; the client has no other thread. For producers=1 and \
               brokers that advertise addresses, not names",
        expected: "`true` or `false`; the flag alone is `true`",
        read: |plan, text| {
            plan.embedded = truth(text)?;
            Ok(())
        },
        show: |plan| Some(plan.embedded.to_string()),
        bare: true,
    },
    Setting {
        name: "wait",
        value_name: "POLICY",
        help: "What an idle shard does: sleep, spin for a while first, or only spin. On one CPU only \
               an embedded one may spin",
        expected: "`park`, `spin-then-park` or `spin`",
        read: |plan, text| {
            plan.wait = one_of(text, &["park", "spin-then-park", "spin"])?;
            Ok(())
        },
        show: |plan| Some(plan.wait.clone()),
        bare: false,
    },
    Setting {
        name: "shards",
        value_name: "N",
        help: "Shards (I/O threads) of the engine",
        expected: "`auto` or a number of 1 to 64",
        read: |plan, text| {
            plan.shards = match text {
                "auto" => text.to_owned(),
                _ => in_range::<u64>(count(text), 1, 64)?.to_string(),
            };
            Ok(())
        },
        show: |plan| Some(plan.shards.clone()),
        bare: false,
    },
    Setting {
        name: "record_size",
        value_name: "SIZE|FILE",
        help: "Size of every record's value, or a file with a value on every line (read into a \
               memory map before the run; in a scenario, from its folder)",
        expected: "a size like 100B or 1KiB, or the path of a file",
        read: |plan, text| {
            plan.record_size = record_source(text)?;
            Ok(())
        },
        show: |plan| Some(plan.record_size.to_string()),
        bare: false,
    },
    Setting {
        name: "keys",
        value_name: "KEYS",
        help: "Keys of the records: none, this many equally likely ones, or this many with \
               Zipf's weights",
        expected: "`none`, a number up to 10M, or `zipf:N,s` like zipf:1000,1.1",
        read: |plan, text| {
            plan.keys = keys(text)?;
            Ok(())
        },
        show: |plan| Some(plan.keys.to_string()),
        bare: false,
    },
    Setting {
        name: "compression",
        value_name: "CODEC",
        help: "Codec of the batches, with its level after a colon where it has levels",
        expected: "`none`, `lz4`, `zstd[:level]`, `snappy` or `gzip[:level]`",
        read: |plan, text| {
            let codec: Compression = text.parse().map_err(|error| format!("{error}"))?;
            plan.compression = codec.to_string();
            Ok(())
        },
        show: |plan| Some(plan.compression.clone()),
        bare: false,
    },
    Setting {
        name: "acks",
        value_name: "ACKS",
        help: "Whose answer settles a record",
        expected: "`0`, `1` or `all`",
        read: |plan, text| {
            plan.acks = plain(match text {
                "0" => Some(Acks::None),
                "1" => Some(Acks::Leader),
                "all" | "-1" => Some(Acks::All),
                _ => None,
            })?;
            Ok(())
        },
        show: |plan| Some(plan.acks.to_string()),
        bare: false,
    },
    Setting {
        name: "idempotent",
        value_name: "BOOL",
        help: "Whether the broker refuses duplicates; needs acks=all, and is on with it unless \
               said otherwise",
        expected: "`true` or `false`",
        read: |plan, text| {
            plan.idempotent = Some(truth(text)?);
            Ok(())
        },
        show: |plan| Some(plan.idempotent().to_string()),
        bare: true,
    },
    Setting {
        name: "linger",
        value_name: "TIME",
        help: "How long a batch waits for company; `auto` waits only while requests are on the way",
        expected: "`auto`, `0` or a duration with its unit, like 5ms",
        read: |plan, text| {
            plan.linger = match text {
                "auto" | "0" => text.to_owned(),
                _ => show_duration(plain(duration(text))?),
            };
            Ok(())
        },
        show: |plan| Some(plan.linger.clone()),
        bare: false,
    },
    Setting {
        name: "batch",
        value_name: "SIZE",
        help: "Largest batch, before compression",
        expected: SIZE_EXPECTED,
        read: |plan, text| {
            plan.batch = size_in_range(text, 1 << 10, 16 << 20)?;
            Ok(())
        },
        show: |plan| Some(show_bytes(plan.batch)),
        bare: false,
    },
    Setting {
        name: "memory",
        value_name: "SIZE",
        help: "Memory for buffered records, for the whole producer",
        expected: SIZE_EXPECTED,
        read: |plan, text| {
            plan.memory = size_in_range(text, 1 << 20, 64 << 30)?;
            Ok(())
        },
        show: |plan| Some(show_bytes(plan.memory)),
        bare: false,
    },
    Setting {
        name: "rate",
        value_name: "RATE",
        help: "Records a second over all producers: `max` sends as fast as records are taken; a \
               number is an open loop that keeps its times whatever the answers do; a share of the \
               peak is one too, after a short run at `max` has found the peak",
        expected: "`max`, a number of records a second like 100k or 2.5M, or a share of the peak \
                   like 50%peak",
        read: |plan, text| {
            plan.rate = match (text, text.strip_suffix("%peak")) {
                ("max", _) => Rate::Max,
                (_, Some(percent)) => Rate::OfPeak(in_range(percent.parse().ok(), 1, 1_000)?),
                (_, None) => Rate::PerSecond(in_range(count(text), 1, 100_000_000)?),
            };
            Ok(())
        },
        show: |plan| Some(plan.rate.to_string()),
        bare: false,
    },
    Setting {
        name: "arrival",
        value_name: "HOW",
        help: "How the intended times of an open loop are spaced",
        expected: "`fixed`, `poisson` or `burst:n` like burst:100",
        read: |plan, text| {
            plan.arrival = match text.split_once(':') {
                None if text == "fixed" => Arrival::Fixed,
                None if text == "poisson" => Arrival::Poisson,
                Some(("burst", size)) => Arrival::Burst(in_range(count(size), 1, 1_000_000)?),
                _ => return Err(String::new()),
            };
            Ok(())
        },
        show: |plan| Some(plan.arrival.to_string()),
        bare: false,
    },
    Setting {
        name: "producers",
        value_name: "N",
        help: "Application threads that send",
        expected: "a number of 1 to 1024",
        read: |plan, text| {
            plan.producers = in_range(count(text), 1, PRODUCERS_MAX)?;
            Ok(())
        },
        show: |plan| Some(plan.producers.to_string()),
        bare: true,
    },
    Setting {
        name: "delivery",
        value_name: "HOW",
        help: "How the application learns of its acks: a queue that a second thread drains, a \
               future per record, one awaited record at a time, or not at all (one-way); embedded, \
               the sender drains queue and futures itself",
        expected: "`queue`, `future`, `wait` or `forget`",
        read: |plan, text| {
            plan.delivery = plain(match text {
                "queue" => Some(Delivery::Queue),
                "future" => Some(Delivery::Future),
                "wait" => Some(Delivery::Wait),
                "forget" => Some(Delivery::Forget),
                _ => None,
            })?;
            Ok(())
        },
        show: |plan| Some(plan.delivery.to_string()),
        bare: false,
    },
    Setting {
        name: "duration",
        value_name: "TIME",
        help: "Length of the measured window",
        expected: DURATION_EXPECTED,
        read: |plan, text| {
            plan.duration = plain(duration(text))?;
            if plan.duration.is_zero() || plan.duration > DURATION_MAX {
                return Err("not between 1us and 720m".into());
            }
            Ok(())
        },
        show: |plan| Some(show_duration(plan.duration)),
        bare: false,
    },
    Setting {
        name: "warmup",
        value_name: "TIME",
        help: "Time under load before the measured window; nothing of it is counted",
        expected: DURATION_EXPECTED,
        read: |plan, text| {
            plan.warmup = plain(duration(text))?;
            if plan.warmup > DURATION_MAX {
                return Err("more than 720m".into());
            }
            Ok(())
        },
        show: |plan| Some(show_duration(plan.warmup)),
        bare: false,
    },
    Setting {
        name: "records",
        value_name: "N",
        help: "Measure exactly this many records (the warm-up is drained first) instead of a time; \
               a duration given as well ends the window earlier",
        expected: COUNT_EXPECTED,
        read: |plan, text| {
            plan.records = Some(in_range(count(text), 1, u64::MAX)?);
            Ok(())
        },
        show: |plan| plan.records.map(|records| records.to_string()),
        bare: true,
    },
    Setting {
        name: "verify",
        value_name: "BOOL",
        help: "Whether the embedded broker checks CRC, sequence, count and order of all it gets; \
               `false` is for its highest speed",
        expected: "`true` or `false`",
        read: |plan, text| {
            plan.verify = truth(text)?;
            Ok(())
        },
        show: |plan| Some(plan.verify.to_string()),
        bare: true,
    },
    Setting {
        name: "set",
        value_name: "KEY=VALUE",
        help: "Any other setting of the engine by its name, as often as needed; in a scenario a \
               table: [set]",
        expected: "key=value",
        read: |plan, text| {
            let (key, value) = plain(text.split_once('='))?;
            plain((!key.is_empty()).then_some(()))?;
            plan.set.retain(|(known, _)| known != key);
            plan.set.push((key.to_owned(), value.to_owned()));
            Ok(())
        },
        show: |_| None,
        bare: false,
    },
    Setting {
        name: "gate",
        value_name: "THRESHOLD",
        help: "What the result must keep, as often as needed; in a scenario a list: [gate] \
               thresholds = [\"p99.9 < 2ms\"]. `run` tells whether it does, `gate` ends with 3 if not",
        expected: threshold::EXPECTED,
        read: |plan, text| {
            let threshold = Threshold::parse(text)?;
            plan.gate.retain(|known| !threshold.replaces(known));
            plan.gate.push(threshold);
            Ok(())
        },
        show: |_| None,
        bare: false,
    },
    Setting {
        name: "format",
        value_name: "FORMAT",
        help: "What stdout gets: a report for people, or exactly one JSON document",
        expected: "`text` or `json`",
        read: |plan, text| {
            plan.format = plain(match text {
                "text" => Some(Format::Text),
                "json" => Some(Format::Json),
                _ => None,
            })?;
            Ok(())
        },
        show: |plan| Some(plan.format.to_string()),
        bare: false,
    },
    Setting {
        name: "out",
        value_name: "DIR",
        help: "Folder to write the results to: run.json, histograms, summary.md, the scenario as \
               run, README.md (in a scenario, from its folder)",
        expected: "the path of a folder; it is made if it is not there",
        read: |plan, text| {
            plan.out = Some(PathBuf::from(plain((!text.is_empty()).then_some(text))?));
            Ok(())
        },
        show: |plan| plan.out.as_ref().map(|path| path.display().to_string()),
        bare: false,
    },
];

fn brokers(text: &str) -> Result<Brokers, String> {
    if text == "embedded" {
        return Ok(Brokers::Embedded);
    }
    let addresses: Vec<_> = text
        .split(',')
        .map(|address| address.trim().to_owned())
        .collect();
    for address in &addresses {
        let (host, port) = plain(address.rsplit_once(':'))?;
        if host.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0).eq(&false) {
            return Err(format!("`{address}` is not host:port"));
        }
    }
    Ok(Brokers::At(addresses))
}

fn record_source(text: &str) -> Result<RecordSource, String> {
    if let Some(size) = bytes(text) {
        return in_range(Some(size), 0, RECORD_SIZE_MAX).map(RecordSource::Size);
    }
    let path = Path::new(text);
    if path.is_file() {
        Ok(RecordSource::File(path.to_owned()))
    } else if path.exists() {
        Err("that is not a file".into())
    } else {
        Err("neither a size nor a file that is there".into())
    }
}

fn keys(text: &str) -> Result<Keys, String> {
    if text == "none" {
        return Ok(Keys::None);
    }
    if let Some(zipf) = text.strip_prefix("zipf:") {
        let (keys, exponent) = plain(zipf.split_once(','))?;
        let exponent: f64 = plain(exponent.trim().parse().ok())?;
        if !(exponent > 0.0 && exponent <= 10.0) {
            return Err("s is not above 0 and at most 10".into());
        }
        return Ok(Keys::Zipf(in_range(count(keys), 1, KEYS_MAX)?, exponent));
    }
    in_range(count(text), 1, KEYS_MAX).map(Keys::Uniform)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back_the_same() {
        let plan = Plan::default();
        for setting in SETTINGS {
            let Some(shown) = (setting.show)(&plan) else {
                continue;
            };
            let mut copy = plan.clone();
            setting
                .apply(&mut copy, &shown, Path::new(""))
                .unwrap_or_else(|e| panic!("{}: {e}", setting.name));
            assert_eq!((setting.show)(&copy), Some(shown), "{}", setting.name);
        }
    }

    #[test]
    fn refusals_say_what_was_expected() {
        for (name, bad, said) in [
            ("record-size", "100", "neither a size nor a file"),
            ("rate", "fast", "100k or 2.5M"),
            ("rate", "0%peak", "not between 1 and 1000"),
            ("broker-delay", "500us", "whole ms"),
            ("gate", "p98 < 1ms", "did you mean `p90`"),
            ("duration", "10", "like 500us or 10s"),
            ("partitions", "0", "not between 1 and 10000"),
            ("acks", "2", "`0`, `1` or `all`"),
            ("keys", "zipf:10", "zipf:1000,1.1"),
            ("keys", "zipf:10,0", "s is not above 0"),
            ("brokers", "localhost", "host:port"),
            ("brokers", "localhost:0", "not host:port"),
            ("arrival", "burst", "burst:100"),
            ("topic", "a b", "letters, digits"),
            ("linger", "5", "5ms"),
            ("compression", "brotli", "zstd"),
            ("set", "novalue", "key=value"),
        ] {
            let mut plan = Plan::default();
            let error = find(name)
                .expect(name)
                .apply(&mut plan, bad, Path::new(""))
                .expect_err(bad);
            assert!(error.contains(said), "{name}={bad}: {error}");
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn engine_settings_replace_each_other_by_name() {
        let mut plan = Plan::default();
        for text in ["gap=1ms", "client_id=a=b", "gap=2ms"] {
            find("set")
                .expect("set")
                .apply(&mut plan, text, Path::new(""))
                .expect(text);
        }
        let expected = [("client_id", "a=b"), ("gap", "2ms")].map(|(k, v)| (k.into(), v.into()));
        assert_eq!(plan.set, expected);
    }
}
