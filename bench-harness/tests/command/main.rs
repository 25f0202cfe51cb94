//! The program as people and scripts use it: real processes, real sockets on 127.0.0.1. A file a
//! command.

mod compare;
mod doctor;
mod exit;
mod gate;
mod keys;
mod merge;
mod report;
mod run;
mod scenarios;
mod search;
mod support;
mod sweep;
