//! Kafka bytes.
