//! Settings by name, from text: what [`Builder::set`] knows.

use std::time::Duration;

use ringpost_core::partition::Partitioner;
use ringpost_core::retry::{Backoff, Jitter, Rule};
use ringpost_core::settings::Acks;

use crate::bulkhead::OnLaneUnavailable;
use crate::shared::is_topic_name;

use super::text::{
    HOSTS, bytes, duration, is_host, number, parse_bootstrap, percent, retry_budget, retry_rules,
    truth,
};
use super::{Builder, ConfigError, Exhausted, Pin, Shards, WaitPolicy};

impl Builder {
    /// Sets a setting by name from text.
    ///
    /// ```
    /// let builder = ringpost::Producer::builder().set("linger", "5ms")?.set("memory", "32MiB")?;
    /// let error = builder.set("lingr", "5ms").unwrap_err();
    /// assert_eq!(error.to_string(), r#"there is no setting "lingr"; the nearest is "linger""#);
    /// # Ok::<(), ringpost::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// When there is no such setting, or the text is not a value of it.
    pub fn set(mut self, name: &str, text: &str) -> Result<Self, ConfigError> {
        let Some((known, put)) = SETTINGS.iter().find(|(known, _)| *known == name) else {
            let nearest = SETTINGS
                .iter()
                .map(|(known, _)| *known)
                .min_by_key(|known| distance(name, known))
                .unwrap_or("bootstrap");
            return Err(ConfigError::UnknownSetting {
                name: name.into(),
                nearest,
            });
        };
        match put(&mut self, text.trim()) {
            Ok(()) => Ok(self),
            Err(allowed) => Err(ConfigError::NotAllowed {
                name: known,
                value: text.into(),
                allowed,
            }),
        }
    }

    /// The names [`Builder::set`] takes.
    pub fn setting_names() -> impl Iterator<Item = &'static str> {
        SETTINGS.iter().map(|(name, _)| *name)
    }

    /// Changes the waits of all classes.
    fn retry_backoffs(&mut self, change: impl Fn(&mut Backoff)) {
        change(&mut self.retry.backoff);
        for rule in self.retry.rules.iter_mut().flatten() {
            if let Rule::Retry {
                backoff: Some(backoff),
                ..
            } = rule
            {
                change(backoff);
            }
        }
    }
}

type Put = fn(&mut Builder, &str) -> Result<(), String>;

/// Every setting with what takes its text. The error says what is allowed.
const SETTINGS: &[(&str, Put)] = &[
    ("bootstrap", |b, t| {
        parse_bootstrap(t).map(|_| b.bootstrap = t.into())
    }),
    ("allowed_hosts", |b, t| {
        b.allowed_hosts = match t {
            "all" => Vec::new(),
            _ => t.split(',').map(|host| host.trim().to_owned()).collect(),
        };
        if b.allowed_hosts.iter().all(|host| is_host(host)) {
            Ok(())
        } else {
            Err(HOSTS.into())
        }
    }),
    ("client_id", |b, t| {
        b.client_id = t.into();
        Ok(())
    }),
    ("shards", |b, t| {
        b.shards = match t {
            "auto" => Shards::Auto,
            _ => Shards::Count(number(t, "auto, or 1 to 64")?),
        };
        Ok(())
    }),
    ("driver", |b, t| {
        b.driver = t.parse().map_err(|_| String::from("auto, ring or epoll"))?;
        Ok(())
    }),
    ("wait", |b, t| {
        b.wait = match t.split_once(':') {
            None if t == "park" => WaitPolicy::Park,
            None if t == "spin" => WaitPolicy::Spin,
            None if t == "spin-then-park" => WaitPolicy::SpinThenPark(Duration::from_micros(50)),
            Some(("spin-then-park", budget)) => WaitPolicy::SpinThenPark(duration(budget)?),
            _ => return Err("park, spin-then-park, spin-then-park:50us or spin".into()),
        };
        Ok(())
    }),
    ("pin", |b, t| {
        b.pin = match t {
            "true" => Pin::Auto,
            "false" => Pin::Off,
            _ => Pin::To(
                t.split(',')
                    .map(|cpu| number(cpu.trim(), "true, false, or CPU numbers such as 2,3"))
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(())
    }),
    ("acks", |b, t| {
        b.acks = match t {
            "0" => Acks::None,
            "1" => Acks::Leader,
            "all" | "-1" => Acks::All,
            _ => return Err("0, 1 or all".into()),
        };
        Ok(())
    }),
    ("idempotent", |b, t| {
        truth(t).map(|v| b.idempotent = Some(v))
    }),
    ("linger", |b, t| {
        b.linger = if t == "auto" {
            None
        } else {
            Some(duration(t)?)
        };
        Ok(())
    }),
    ("gap", |b, t| duration(t).map(|v| b.gap = v)),
    ("batch_bytes", |b, t| bytes(t).map(|v| b.batch_bytes = v)),
    ("request_bytes_max", |b, t| {
        bytes(t).map(|v| b.request_bytes_max = v)
    }),
    ("memory", |b, t| bytes(t).map(|v| b.memory = v)),
    ("compression", |b, t| {
        b.compression = t.parse().map_err(|error| format!("{error}"))?;
        Ok(())
    }),
    ("partitioner", |b, t| {
        b.partitioner = match t {
            "murmur2" => Partitioner::Murmur2,
            "consistent" => Partitioner::Consistent,
            "round-robin" => Partitioner::RoundRobin,
            "sticky" => Partitioner::Sticky,
            _ => return Err("murmur2, consistent, round-robin or sticky".into()),
        };
        Ok(())
    }),
    ("produce_version_max", |b, t| {
        number(t, "3 to 13").map(|v| b.produce_version_max = v)
    }),
    ("in_flight_max", |b, t| {
        number(t, "1 to 5").map(|v| b.in_flight_max = v)
    }),
    ("delivery_timeout", |b, t| {
        duration(t).map(|v| b.delivery_timeout = v)
    }),
    ("request_timeout", |b, t| {
        duration(t).map(|v| b.request_timeout = v)
    }),
    ("max_block", |b, t| duration(t).map(|v| b.max_block = v)),
    ("connect_timeout", |b, t| {
        duration(t).map(|v| b.connect_timeout = v)
    }),
    ("topic_timeout", |b, t| {
        duration(t).map(|v| b.topic_timeout = v)
    }),
    ("reconnect_backoff", |b, t| {
        duration(t).map(|v| b.reconnect.initial = v)
    }),
    ("reconnect_backoff_max", |b, t| {
        duration(t).map(|v| b.reconnect.max = v)
    }),
    ("retry_backoff", |b, t| {
        duration(t).map(|v| b.retry.backoff.initial = v)
    }),
    ("retry_backoff_max", |b, t| {
        duration(t).map(|v| b.retry.backoff.max = v)
    }),
    ("retry_backoff_growth", |b, t| {
        let percent = t.trim_end_matches('%').trim_end();
        let percent = number(percent, "100 to 1000 %")?;
        b.retry_backoffs(|backoff| backoff.growth_percent = percent);
        Ok(())
    }),
    ("retry_jitter", |b, t| {
        let jitter = match t {
            "kafka" => Jitter::Kafka,
            "full" => Jitter::Full,
            "equal" => Jitter::Equal,
            "none" => Jitter::None,
            _ => return Err("kafka, full, equal or none".into()),
        };
        b.retry_backoffs(|backoff| backoff.jitter = jitter);
        Ok(())
    }),
    ("retry_attempts", |b, t| {
        b.retry.attempts_max = match t {
            "unlimited" => None,
            _ => Some(number(
                t,
                "unlimited, or 1 to 4294967295 (the first counts)",
            )?),
        };
        Ok(())
    }),
    ("retry_rules", |b, t| {
        b.retry.rules = retry_rules(t, b.retry.backoff)?;
        Ok(())
    }),
    ("retry_budget", |b, t| {
        b.retry.budget = retry_budget(t)?;
        Ok(())
    }),
    ("metadata_max_age", |b, t| {
        duration(t).map(|v| b.metadata_max_age = v)
    }),
    ("connections_per_broker", |b, t| {
        number(t, "1 to 16").map(|v| b.connections_per_broker = v)
    }),
    ("connections", |b, t| {
        b.eager = match t {
            "lazy" => false,
            "eager" => true,
            _ => return Err("lazy or eager".into()),
        };
        Ok(())
    }),
    ("auto_create_topics", |b, t| {
        truth(t).map(|v| b.auto_create = v)
    }),
    ("completion_queue", |b, t| {
        number(t, "1 to 1000000 batches").map(|v| b.completion_queue = v)
    }),
    ("keepalive", |b, t| duration(t).map(|v| b.keepalive = v)),
    ("user_timeout", |b, t| {
        duration(t).map(|v| b.user_timeout = v)
    }),
    ("send_buffer_bytes", |b, t| {
        bytes(t).map(|v| b.send_buffer_bytes = v)
    }),
    ("bulkhead", |b, t| {
        percent(t).map(|v| b.bulkhead_percent = v)
    }),
    ("on_lane_unavailable", |b, t| {
        b.on_lane_unavailable = match t {
            "wait" => OnLaneUnavailable::Wait,
            "fail_fast" => OnLaneUnavailable::FailFast,
            "dead_letter" => OnLaneUnavailable::DeadLetter,
            _ => return Err("wait, fail_fast or dead_letter".into()),
        };
        Ok(())
    }),
    ("exhausted", |b, t| {
        b.exhausted = Some(match t {
            "error" => Exhausted::Error,
            "callback" => Exhausted::Callback,
            "dead_letter" => Exhausted::DeadLetter,
            _ => return Err("error, callback or dead_letter".into()),
        });
        Ok(())
    }),
    ("dead_letter_topic", |b, t| {
        if !is_topic_name(t) {
            return Err(
                "a topic's name: 1 to 249 letters, digits, dots, dashes and underscores".into(),
            );
        }
        b.dead_letter_topic = t.into();
        Ok(())
    }),
    ("dead_letter_expired", |b, t| {
        truth(t).map(|v| b.dead_letter_expired = v)
    }),
    ("dead_letter_unknown", |b, t| {
        truth(t).map(|v| b.dead_letter_unknown = v)
    }),
    ("idle_probe", |b, t| duration(t).map(|v| b.idle_probe = v)),
    ("health", |b, t| {
        b.health.on = match t {
            "on" => true,
            "off" => false,
            _ => return Err("on or off".into()),
        };
        Ok(())
    }),
    ("health.tau", |b, t| duration(t).map(|v| b.health.tau = v)),
    ("health.tick", |b, t| duration(t).map(|v| b.health.tick = v)),
    ("health.cf", |b, t| {
        number(t, "1 to 1000").map(|v| b.health.consecutive_failures = v)
    }),
    ("health.stall", |b, t| {
        duration(t).map(|v| b.health.stall = v)
    }),
    ("health.slow_ratio", |b, t| {
        number(t, "2 to 1000").map(|v| b.health.slow_ratio = v)
    }),
    ("health.slow_floor", |b, t| {
        duration(t).map(|v| b.health.slow_floor = v)
    }),
    ("health.min_volume", |b, t| {
        number(t, "1 to 1000000").map(|v| b.health.volume_min = v)
    }),
    ("health.window", |b, t| {
        duration(t).map(|v| b.health.window = v)
    }),
    ("health.eject_base", |b, t| {
        duration(t).map(|v| b.health.eject_base = v)
    }),
    ("health.eject_max", |b, t| {
        duration(t).map(|v| b.health.eject_max = v)
    }),
    ("health.probe_successes", |b, t| {
        number(t, "1 to 1000").map(|v| b.health.probe_successes = v)
    }),
    ("health.slow_start", |b, t| {
        duration(t).map(|v| b.health.slow_start = v)
    }),
    ("health.max_eject", |b, t| {
        percent(t).map(|v| b.health.eject_percent_max = v)
    }),
    ("health.panic", |b, t| {
        percent(t).map(|v| b.health.panic_percent = v)
    }),
];

/// How many letters have to change to make one word of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use ringpost_core::retry::Class;

    use super::*;

    #[test]
    fn every_setting_takes_its_own_default_as_text_and_refuses_nonsense() {
        for name in Builder::setting_names() {
            if name == "client_id" {
                continue;
            }
            let error = Builder::default().set(name, "?!").expect_err(name);
            assert!(matches!(error, ConfigError::NotAllowed { .. }), "{error}");
        }
    }

    /// A list of hosts is taken as it is written, `all` is none; those of `bootstrap` come with it. What can
    /// be no host is refused, by name and by call, and what is allowed is said.
    #[test]
    fn h10_allowed_hosts_by_name() {
        let builder = Builder::default().bootstrap("boot:1");
        assert!(builder.hosts().allows("anywhere"));
        let builder = builder
            .set("allowed_hosts", "kafka-1, *.b.example")
            .unwrap();
        for (host, fine) in [
            ("kafka-1", true),
            ("a.b.example", true),
            ("boot", true),
            ("x", false),
        ] {
            assert_eq!(builder.hosts().allows(host), fine, "{host}");
        }
        assert_eq!(builder.faults(), []);
        let builder = builder.set("allowed_hosts", "all").unwrap();
        assert!(builder.hosts().allows("anywhere"));
        for bad in ["", "a,", "a b", "*", "*.", "a/b", "http://a"] {
            let error = Builder::default().set("allowed_hosts", bad).unwrap_err();
            assert!(error.to_string().contains("*.kafka.example"), "{error}");
            let called = Builder::default().bootstrap("boot:1");
            let called = called.allowed_hosts([bad.to_owned()]);
            assert_eq!(called.faults().len(), 1, "{bad}");
        }
    }

    /// What a policy is told by name, and that a fault names the setting and what is allowed.
    #[test]
    fn r1_a_retry_policy_by_name() {
        let set = |settings: &[(&str, &str)]| {
            let mut builder = Builder::default().bootstrap("localhost:9092");
            for (name, text) in settings {
                builder = builder.set(name, text)?;
            }
            Ok::<_, ConfigError>(builder)
        };
        let builder = set(&[
            ("retry_attempts", "7"),
            ("retry_backoff", "20ms"),
            ("retry_backoff_max", "3s"),
            ("retry_backoff_growth", "150%"),
            ("retry_jitter", "equal"),
            (
                "retry_rules",
                "connection=5:50ms:2s, corrupt = never,timeout=unlimited",
            ),
            ("retry_budget", "50%:20:200"),
        ]);
        let builder = builder.unwrap();
        assert_eq!(builder.faults(), []);
        let policy = builder.retry_policy();
        let backoff = Backoff {
            growth_percent: 150,
            jitter: Jitter::Equal,
            ..Backoff::new(Duration::from_millis(20), Duration::from_secs(3))
        };
        assert_eq!((policy.attempts_max, policy.backoff), (Some(7), backoff));
        assert_eq!(policy.for_class(Class::Corrupt).0, 1);
        assert_eq!(policy.for_class(Class::Timeout), (u32::MAX, backoff));
        let (attempts, of_connections) = policy.for_class(Class::Connection);
        assert_eq!(attempts, 5);
        assert_eq!(of_connections.initial, Duration::from_millis(50));
        assert_eq!(of_connections.max, Duration::from_secs(2));
        let budget = policy.budget.unwrap();
        assert_eq!(
            (budget.percent_of_successes, budget.per_second, budget.burst),
            (50, 20, 200)
        );
        let off = set(&[("retry_budget", "off"), ("retry_rules", "none")]).unwrap();
        assert_eq!(off.retry_policy().budget, None);

        for (name, text) in [
            ("retry_attempts", "-1"),
            ("retry_jitter", "some"),
            ("retry_rules", "connection"),
            ("retry_rules", "weather=never"),
            ("retry_rules", "corrupt=never,corrupt=2"),
            ("retry_rules", "corrupt=2:1ms:2ms:3ms"),
            ("retry_budget", "20"),
            ("retry_budget", "20%:1:2:3"),
        ] {
            let error = set(&[(name, text)]).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("allowed:"),
                "{error}"
            );
        }
        for (name, text, range) in [
            ("retry_attempts", "0", "at least 1"),
            ("retry_backoff", "0", "1 ms to 1 hour"),
            ("retry_backoff_growth", "99", "100 to 1000 %"),
            ("retry_rules", "other=0", "at least 1 attempt"),
            ("retry_rules", "other=2:5s:1s", "1 ms to 1 hour"),
            ("retry_budget", "20%:0", "1 to 10000 a second"),
        ] {
            let faults = set(&[(name, text)]).unwrap().faults();
            let [fault] = &faults[..] else {
                panic!("{name}: {faults:?}")
            };
            let fault = fault.to_string();
            assert!(fault.contains(name) && fault.contains(range), "{fault}");
        }
    }
}
