//! What is wrong with a configuration: every fault at once, before anything is started.

use std::fmt;
use std::time::Duration;

use ringpost_core::retry::Rule;
use ringpost_core::settings::Acks;

use crate::bulkhead::OnLaneUnavailable;
use crate::shared::is_topic_name;

use super::text::{HOSTS, is_host, parse_bootstrap};
use super::{Builder, ConfigError, Exhausted, Shards, WaitPolicy};

impl Builder {
    /// Everything that is wrong.
    pub(crate) fn faults(&self) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        if let Err(allowed) = parse_bootstrap(&self.bootstrap) {
            faults.push(ConfigError::NotAllowed {
                name: "bootstrap",
                value: self.bootstrap.clone(),
                allowed,
            });
        }
        let mut check = |name, fine: bool, value: &dyn fmt::Debug, allowed: &str| {
            if !fine {
                let (value, allowed) = (format!("{value:?}"), allowed.into());
                faults.push(ConfigError::NotAllowed {
                    name,
                    value,
                    allowed,
                });
            }
        };
        let hour = Duration::from_secs(3600);
        let day = 24 * hour;
        let ms = Duration::from_millis(1);
        let second = Duration::from_secs(1);
        let between =
            |value: Duration, low: Duration, high: Duration| value >= low && value <= high;

        check(
            "allowed_hosts",
            self.allowed_hosts.iter().all(|host| is_host(host)),
            &self.allowed_hosts,
            HOSTS,
        );
        check(
            "client_id",
            self.client_id.len() <= 32_767,
            &self.client_id.len(),
            "at most 32,767 bytes",
        );
        if let Shards::Count(count) = self.shards {
            check("shards", (1..=64).contains(&count), &count, "1 to 64");
        }
        check(
            "linger",
            self.linger.is_none_or(|l| l <= 60 * second),
            &self.linger,
            "auto, or 0 to 60 s",
        );
        check("gap", self.gap <= second, &self.gap, "0 to 1 s");
        check(
            "batch_bytes",
            (1 << 10..=16 << 20).contains(&self.batch_bytes),
            &self.batch_bytes,
            "1 KiB to 16 MiB",
        );
        check(
            "request_bytes_max",
            (16 << 10..=100 << 20).contains(&self.request_bytes_max),
            &self.request_bytes_max,
            "16 KiB to 100 MiB",
        );
        check(
            "memory",
            (1 << 20..=64 << 30).contains(&self.memory),
            &self.memory,
            "1 MiB to 64 GiB",
        );
        check(
            "produce_version_max",
            (3..=13).contains(&self.produce_version_max),
            &self.produce_version_max,
            "3 to 13",
        );
        check(
            "in_flight_max",
            (1..=5).contains(&self.in_flight_max),
            &self.in_flight_max,
            "1 to 5",
        );
        check(
            "delivery_timeout",
            between(self.delivery_timeout, ms, day),
            &self.delivery_timeout,
            "1 ms to 1 day",
        );
        check(
            "request_timeout",
            between(self.request_timeout, ms, hour),
            &self.request_timeout,
            "1 ms to 1 hour",
        );
        check(
            "max_block",
            self.max_block <= day,
            &self.max_block,
            "0 to 1 day",
        );
        check(
            "connect_timeout",
            between(self.connect_timeout, ms, hour),
            &self.connect_timeout,
            "1 ms to 1 hour",
        );
        check(
            "topic_timeout",
            self.topic_timeout <= hour,
            &self.topic_timeout,
            "0 to 1 hour",
        );
        for (name, backoff) in [
            ("reconnect_backoff", self.reconnect),
            ("retry_backoff", self.retry.backoff),
        ] {
            check(
                name,
                between(backoff.initial, ms, hour) && between(backoff.max, backoff.initial, hour),
                &(backoff.initial, backoff.max),
                "1 ms to 1 hour, and no longer than its maximum",
            );
        }
        check(
            "retry_backoff_growth",
            (100..=1000).contains(&self.retry.backoff.growth_percent),
            &self.retry.backoff.growth_percent,
            "100 to 1000 %",
        );
        check(
            "retry_attempts",
            self.retry.attempts_max != Some(0),
            &self.retry.attempts_max,
            "unlimited, or at least 1 (the first counts)",
        );
        for rule in self.retry.rules.iter().flatten() {
            if let Rule::Retry {
                attempts_max,
                backoff,
            } = rule
            {
                let backoff = backoff.unwrap_or(self.retry.backoff);
                check(
                    "retry_rules",
                    *attempts_max != Some(0)
                        && between(backoff.initial, ms, hour)
                        && between(backoff.max, backoff.initial, hour),
                    &rule,
                    "at least 1 attempt (the first counts), waits of 1 ms to 1 hour and no longer \
                     than their maximum",
                );
            }
        }
        if let Some(budget) = self.retry.budget {
            check(
                "retry_budget",
                budget.percent_of_successes <= 1000
                    && (1..=10_000).contains(&budget.per_second)
                    && (1..=100_000).contains(&budget.burst),
                &budget,
                "off, or at most 1000 % of the successes, 1 to 10000 a second, 1 to 100000 at once",
            );
        }
        check(
            "metadata_max_age",
            between(self.metadata_max_age, second, day),
            &self.metadata_max_age,
            "1 s to 1 day",
        );
        check(
            "connections_per_broker",
            (1..=16).contains(&self.connections_per_broker),
            &self.connections_per_broker,
            "1 to 16",
        );
        check(
            "completion_queue",
            (1..=1_000_000).contains(&self.completion_queue),
            &self.completion_queue,
            "1 to 1,000,000 batches",
        );
        check(
            "keepalive",
            self.keepalive.is_zero() || between(self.keepalive, second, hour),
            &self.keepalive,
            "0 (off), or 1 s to 1 hour",
        );
        check(
            "user_timeout",
            self.user_timeout.is_zero() || between(self.user_timeout, ms, hour),
            &self.user_timeout,
            "0 (the system's), or 1 ms to 1 hour",
        );
        check(
            "send_buffer_bytes",
            self.send_buffer_bytes <= 64 << 20,
            &self.send_buffer_bytes,
            "at most 64 MiB; 0 is the system's",
        );
        check(
            "idle_probe",
            self.idle_probe.is_zero() || between(self.idle_probe, second, hour),
            &self.idle_probe,
            "0 (off), or 1 s to 1 hour",
        );
        let health = &self.health;
        for (name, value) in [
            ("health.stall", health.stall),
            ("health.slow_floor", health.slow_floor),
            ("health.eject_base", health.eject_base),
            ("health.eject_max", health.eject_max),
        ] {
            check(name, between(value, ms, hour), &value, "1 ms to 1 hour");
        }
        for (name, value) in [("health.tau", health.tau), ("health.window", health.window)] {
            check(
                name,
                between(value, 10 * ms, hour),
                &value,
                "10 ms to 1 hour",
            );
        }
        check(
            "health.tick",
            between(health.tick, ms, second),
            &health.tick,
            "1 ms to 1 s",
        );
        check(
            "health.slow_start",
            health.slow_start <= hour,
            &health.slow_start,
            "0 to 1 hour",
        );
        for (name, value, least, most) in [
            ("health.cf", health.consecutive_failures, 1, 1000),
            ("health.slow_ratio", health.slow_ratio, 2, 1000),
            ("health.min_volume", health.volume_min, 1, 1_000_000),
            ("health.probe_successes", health.probe_successes, 1, 1000),
            ("health.max_eject", health.eject_percent_max.into(), 0, 100),
            ("health.panic", health.panic_percent.into(), 0, 100),
        ] {
            let allowed = format!("{least} to {most}");
            check(name, (least..=most).contains(&value), &value, &allowed);
        }
        if let WaitPolicy::SpinThenPark(budget) = self.wait {
            check(
                "wait",
                budget <= second,
                &budget,
                "a spin budget of at most 1 s",
            );
        }

        if self.idempotent == Some(true) && self.acks != Acks::All {
            faults.push(ConfigError::Contradiction(
                "idempotent = true needs acks = all: the broker can only recognise what all \
                 replicas have; leave idempotent unset, or acks at all"
                    .into(),
            ));
        }
        if self.batch_bytes > self.request_bytes_max {
            faults.push(ConfigError::Contradiction(format!(
                "batch_bytes = {} is more than request_bytes_max = {}: no full batch could be sent",
                self.batch_bytes, self.request_bytes_max
            )));
        }
        if self.request_bytes_max < 2 * self.client_id.len() {
            faults.push(ConfigError::Contradiction(format!(
                "request_bytes_max = {} is less than twice the {} bytes of client_id, which every \
                 request carries",
                self.request_bytes_max,
                self.client_id.len()
            )));
        }
        check_exhausted(self, &mut faults);
        if self.bulkhead_percent > 100 {
            faults.push(ConfigError::NotAllowed {
                name: "bulkhead",
                value: format!("{}%", self.bulkhead_percent),
                allowed: "0% to 100%".into(),
            });
        }
        let for_batches = self.memory - self.letter_memory().unwrap_or(0);
        if for_batches < 2 * self.batch_bytes {
            faults.push(ConfigError::Contradiction(format!(
                "memory = {for_batches} is less than two batches of batch_bytes = {}: nothing could be \
                 appended while a batch is sent",
                self.batch_bytes
            )));
        }
        faults
    }
}

/// What contradicts each other about records that are given up.
fn check_exhausted(builder: &Builder, faults: &mut Vec<ConfigError>) {
    let topic = &builder.dead_letter_topic;
    match builder.follows() {
        Exhausted::Error => {}
        Exhausted::Callback if builder.on_undelivered.is_some() => {}
        Exhausted::Callback => faults.push(ConfigError::Contradiction(
            "exhausted = callback needs a callback: set it with Builder::on_undelivered".into(),
        )),
        Exhausted::DeadLetter if is_topic_name(topic) => return,
        Exhausted::DeadLetter => faults.push(ConfigError::NotAllowed {
            name: "dead_letter_topic",
            value: topic.clone(),
            allowed: "a topic's name: 1 to 249 letters, digits, dots, dashes and underscores"
                .into(),
        }),
    }
    for (set, name) in [
        (
            builder.on_lane_unavailable == OnLaneUnavailable::DeadLetter,
            "on_lane_unavailable = dead_letter",
        ),
        (builder.dead_letter_expired, "dead_letter_expired"),
        (builder.dead_letter_unknown, "dead_letter_unknown"),
        (
            !topic.is_empty() && builder.follows() != Exhausted::DeadLetter,
            "dead_letter_topic",
        ),
    ] {
        if set && builder.follows() != Exhausted::DeadLetter {
            faults.push(ConfigError::Contradiction(format!(
                "{name} is set, but exhausted is not dead_letter: no dead letters would be written"
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::ConfigErrors;

    use super::*;

    #[test]
    fn all_faults_are_told_at_once() {
        let faults = Builder::default()
            .bootstrap("nowhere")
            .linger(Duration::from_secs(61))
            .acks(Acks::Leader)
            .idempotent(true)
            .memory(0)
            .faults();
        let text = ConfigErrors(faults).to_string();
        for part in ["bootstrap", "nowhere", "linger", "idempotent", "memory"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn the_defaults_are_fine_but_for_the_address() {
        assert_eq!(Builder::default().bootstrap("localhost:9092").faults(), []);
        assert_eq!(Builder::default().faults().len(), 1);
    }
}
