//! What a run's producer and its cluster are told, by the knobs.

use std::time::Duration;

use ringpost_broker::{ApiKey, BrokerConfig, Keep, Node, Replication};
use ringpost_core::directory::DirectorySettings;
use ringpost_core::retry::Backoff;
use ringpost_core::settings::Settings;

use crate::setup::{address, ms};

use super::knobs::Knobs;

/// How often brokers look for producers to forget.
const EXPIRY_CHECK: Duration = ms(5_000);

pub(super) fn settings(knobs: &Knobs) -> Settings {
    let mut settings = Settings {
        client_id: "simulated".to_owned(),
        acks: knobs.acks,
        idempotent: knobs.idempotent,
        linger: knobs.linger,
        in_flight_max: knobs.in_flight_max,
        request_timeout: knobs.request_timeout,
        connect_timeout: knobs.connect_timeout,
        delivery_timeout: knobs.delivery_timeout,
        connections_per_broker: knobs.connections_per_broker,
        request_bytes_max: knobs.request_bytes_max,
        reconnect: knobs.reconnect,
        retry: knobs.retry,
        idle_probe: knobs.idle_probe,
        health: knobs.health.clone(),
        ..Settings::default()
    };
    settings.retry.attempts_max = knobs.attempts_max;
    settings
}

pub(super) fn directory(knobs: &Knobs, settings: &Settings) -> DirectorySettings {
    DirectorySettings {
        client_id: settings.client_id.clone(),
        bootstrap: (1..=knobs.nodes)
            .map(|id| (address(id).ip().to_string(), address(id).port()))
            .collect(),
        connect_timeout: settings.connect_timeout,
        request_timeout: settings.request_timeout,
        reconnect: settings.reconnect,
        refresh: Backoff::default(),
        metadata_max_age: knobs.metadata_max_age,
        topic_timeout: ms(30_000),
        auto_create: false,
        idempotent: settings.idempotent,
    }
}

pub(super) fn cluster(knobs: &Knobs) -> BrokerConfig {
    let config = BrokerConfig::default();
    let in_ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    // A broker forgets producers by what their batches are stamped with, so one whose clock is a month
    // behind is forgotten with each look, and then nobody can tell its retries. Kafka looks every ten
    // minutes: not within a run.
    let (producer_expiry_ms, producer_expiry_check_ms) = match knobs.producer_expiry {
        Duration::ZERO => (config.producer_expiry_ms, config.producer_expiry_check_ms),
        expiry => (in_ms(expiry), in_ms(EXPIRY_CHECK)),
    };
    BrokerConfig {
        nodes: (1..=knobs.nodes)
            .map(|id| Node {
                id,
                host: address(id).ip().to_string(),
                port: address(id).port(),
            })
            .collect(),
        keep: Keep::Everything,
        auto_create: false,
        versions: config
            .versions
            .clone()
            .with(ApiKey::Produce, 0, knobs.produce_version),
        message_bytes_max: match knobs.message_bytes_max {
            0 => config.message_bytes_max,
            most => most,
        },
        old_duplicate: knobs.old_duplicate,
        unknown_producer: knobs.unknown_producer,
        producer_expiry_ms,
        producer_expiry_check_ms,
        replication: Replication {
            factor: knobs.copies,
            min_insync: knobs.min_insync,
            fetch_delay_ms: knobs.fetch_delay_ms,
            lag_ms_max: knobs.lag_ms_max,
            session_ms: knobs.session_ms,
            metadata_delay_ms: knobs.metadata_delay_ms,
            ..Replication::default()
        },
        seed: knobs.seed,
        ..config
    }
}
