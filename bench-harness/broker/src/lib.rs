//! A Kafka-protocol broker for tests and benchmarks: a model without I/O, and a server around it.
//!
//! The model ([`Broker`] and [`Session`]) takes bytes and gives bytes: no sockets, no clock, no
//! randomness, so a simulation can run it in pretend time. The [`Server`] puts it on TCP ports.
//!
//! It is not a broker to keep data in. It answers as Apache Kafka 4.3 does to what a producer and a
//! consumer with assigned partitions send, checks what it is given more closely than Kafka, counts,
//! and goes wrong on demand ([`Faults`]).
//!
//! # Example
//! Start it, produce one record through a plain socket, look at the report:
//! ```
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//! use ringpost_broker::{Server, ServerConfig};
//! use ringpost_codec::checksum::BodyDigest;
//! use ringpost_codec::kafka::produce::{self, RequestHead, TopicRef};
//! use ringpost_codec::record::{encode, record_size};
//! use ringpost_codec::record_batch::{BATCH_HEADER_LEN, BatchHeader};
//!
//! let server = Server::start(ServerConfig::default())?;
//! server.with(|broker| broker.create_topic("orders", 1)).expect("a fresh broker has no topics");
//!
//! // One record in one batch.
//! let size = record_size(0, 0, None, Some(5), &[]);
//! let mut body = vec![0; size.total];
//! encode(&mut body, size, 0, 0, None, Some(b"hello"), &[]);
//! let mut batch = vec![0; BATCH_HEADER_LEN];
//! BatchHeader { record_count: 1, ..BatchHeader::default() }.write(&BodyDigest::of(&body), &mut batch);
//! batch.extend_from_slice(&body);
//!
//! // The request around it.
//! let mut request = Vec::new();
//! let length = produce::put_request_head(&mut request, &RequestHead {
//!     version: 9, correlation_id: 1, client_id: Some("doc"), transactional_id: None,
//!     acks: -1, timeout_ms: 1000, topic_count: 1,
//! });
//! produce::put_topic(&mut request, 9, TopicRef::Name("orders"), 1);
//! produce::put_partition(&mut request, 9, 0, batch.len());
//! request.extend_from_slice(&batch);
//! produce::put_partition_end(&mut request, 9);
//! produce::put_topic_end(&mut request, 9);
//! produce::put_request_end(&mut request, 9);
//! length.patch(&mut request, 0);
//!
//! let mut stream = TcpStream::connect(server.addr())?;
//! stream.write_all(&request)?;
//! let mut length = [0; 4];
//! stream.read_exact(&mut length)?;
//! let mut answer = vec![0; u32::from_be_bytes(length) as usize];
//! stream.read_exact(&mut answer)?;
//! let response = produce::decode_response(9, &answer[5..])?; // behind correlation id and tags
//! let partition = response.partitions().next().expect("one partition was sent");
//! assert!(partition.error.is_ok());
//! assert_eq!(partition.base_offset, 0);
//!
//! let report = server.shutdown();
//! assert_eq!((report.records, report.is_clean()), (1, true));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The modules, in the order in which a request meets them:
#![forbid(unsafe_code)]

pub mod config;

pub mod server;

pub mod session;

mod clock;

mod shape;

mod small;

pub mod versions;

mod produce;

mod examine;

mod append;

pub mod broker;

mod cluster;

mod nodes;

mod view;

mod agenda;

pub mod faults;

mod topic;

mod replicas;

mod producers;

mod log;

pub mod truth;

pub mod numbering;

pub mod report;

pub use broker::{Broker, Shared, TopicError};
pub use config::{BrokerConfig, Keep, Mode, Node, OldDuplicate, Replication, UnknownProducer};
pub use faults::{Faults, PartitionFault, RequestFault, Throttle};
pub use kafka_protocol::messages::ApiKey;
pub use report::{PartitionReport, Report};
pub use ringpost_codec::kafka::ErrorCode;
pub use server::{Server, ServerConfig};
pub use session::{Closed, Progress, Session};
pub use topic::{TopicId, TopicSpec};
pub use truth::{PartitionState, StoredBatch};
pub use versions::Versions;

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
