//! The bench harness: measures a producer the way its users will feel it, and says when a number is
//! not to be trusted. The command is `ringpost-bench`; this library holds its parts so that other
//! clients can be measured by the same loop.
//!
//! A run, in the order things happen:
//!
//! | step | module |
//! |---|---|
//! | the command line and the scenario file become a checked plan | [`cli`], [`command`], [`scenario`], [`setting`], [`plan`], [`units`], [`nearest`] |
//! | client and broker get their CPUs, the broker starts | [`placement`], [`embedded_broker`], [`broker`] |
//! | a rate that is a share of the peak: a run that finds the peak | [`closed_loop`] |
//! | payloads, keys and intended times are made | [`corpus`], [`keyring`], [`arrival`], [`random`] |
//! | threads send, acks are counted and timed | [`sender`], [`client`], [`run`], [`tally`], [`stamp`], [`clock`] |
//! | the window opens, is sampled, closes; what is left drains; the broker's log is compared | [`measure`], [`series`], [`log_end`], [`usage`], [`allocations`], [`progress`], [`interrupt`] |
//! | the host is looked at, before and during the run | [`doctor`] |
//! | results are written, and read again | [`report`], [`recorded`], [`histogram`], [`environment`], [`exit`] |
//! | what a result must keep | [`threshold`] |
//! | results are compared and added up | [`likeness`], [`compare`], [`merge`] |
//! | a result is judged by it | [`gate`] |
//! | the highest rate that holds: probes, and which rate is next | [`search`] |
//! | commands of many runs start each as a process of its own | [`trial`] |
//! | a matrix of runs, and where its results lie | [`sweep`] |
//!
//! What keeps the figures honest: payloads are prebuilt; an open loop counts from the intended time
//! and never sleeps through its debt; only what is acked inside the window counts; the client's CPU
//! is that of its whole process, the harness included, and the broker is another process; every
//! record taken must settle, and the broker's log must agree, or the exit code is not 0.

#[cfg(not(target_os = "linux"))]
compile_error!("ringpost-bench measures on Linux: it needs /proc, CPU affinity and the engine");

pub mod allocations;
pub mod arrival;
pub mod broker;
#[cfg(test)]
mod built_from; // a part of build.rs; here for its tests
pub mod cli;
pub mod client;
pub mod clock;
pub mod closed_loop;
pub mod command;
pub mod compare;
pub mod corpus;
pub mod doctor;
pub mod embedded_broker;
pub mod environment;
pub mod exit;
pub mod gate;
pub mod histogram;
pub mod init;
pub mod interrupt;
pub mod keyring;
pub mod likeness;
pub mod log_end;
pub mod measure;
pub mod merge;
pub mod nearest;
pub mod number;
pub mod placement;
pub mod plan;
pub mod progress;
pub mod random;
pub mod recorded;
pub mod report;
pub mod run;
#[cfg(test)]
mod sample;
pub mod scenario;
pub mod search;
pub mod sender;
pub mod series;
pub mod setting;
pub mod stamp;
pub mod sweep;
pub mod tally;
pub mod threshold;
pub mod trial;
pub mod units;
pub mod usage;
