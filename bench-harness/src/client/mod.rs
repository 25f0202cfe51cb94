//! The client under measurement, behind one trait: the run does not know which one it is, so every
//! client gets the same payloads, the same schedule and the same clock.
//!
//! ```text
//! run ── sender threads ──► Client::send     takes payloads, counts what it took
//!     ── collector threads ► Client::collect  sees acks, counts and times them
//!     ── sampler ──────────► Client::counters, settled, stages
//! ```

use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::exit::Failure;
use crate::number::count;
use crate::run::Run;
use crate::sender::Phases;
use crate::stamp::Stamp;
use crate::tally::Settled;

pub mod embedded;
pub(crate) mod link;
pub mod null;
pub mod ringpost;

/// One record's bytes, borrowed from corpus and keyring.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// Its key, if the run has keys.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
}

impl Payload<'_> {
    /// Bytes of key and value.
    #[inline]
    pub fn len(&self) -> u64 {
        count(self.key.map_or(0, <[u8]>::len) + self.value.len())
    }

    /// Whether key and value are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a record was not taken.
#[derive(Debug)]
pub enum Refused {
    /// No room now: try it again.
    Full,
    /// This will not get better: the run ends.
    Broken(Failure),
}

/// One application thread's way into a client.
pub trait Sink {
    /// Hands over one record; never blocks, except where blocking is what is measured.
    fn send(&mut self, payload: Payload<'_>, stamp: Stamp) -> Result<(), Refused>;

    /// Called after every few records: a client that lives in this thread does its own work now.
    #[inline]
    fn work(&mut self) {}

    /// Passes time, at most `at_most`, until the thread has something to do.
    fn pause(&mut self, at_most: Duration) {
        thread::park_timeout(at_most);
    }

    /// Called before the thread sleeps and when it ends: what was held back for others goes now.
    fn hand_over(&mut self) {}

    /// Whether [`send`](Self::send) returns only when the record is settled: then every record
    /// needs its own reading of the clock.
    fn waits(&self) -> bool {
        false
    }
}

/// A connected client.
pub trait Client: Sync {
    /// How it talks to the kernel, and where its threads are.
    fn facts(&self) -> Facts;

    /// Threads that [`collect`](Self::collect); the first so many tallies are theirs.
    fn collectors(&self) -> usize;

    /// Threads that see acks, and so need a tally: collectors, or senders that wait themselves.
    fn tallies(&self, producers: usize) -> usize;

    /// Body of application thread `sender`: sends in every phase until the run is over.
    fn send(&self, run: &Run, phases: &Phases, sender: usize);

    /// Body of collector thread `collector`: records acks until [`Run::collecting_ended`].
    fn collect(&self, run: &Run, collector: usize);

    /// Nothing more will be sent: collectors that wait for senders may end.
    fn end_collecting(&self) {}

    /// What the client counted so far.
    fn counters(&self) -> Counters;

    /// How records settled by the client's own count, where no collector sees them (one-way).
    fn settled(&self) -> Option<Settled> {
        None
    }

    /// The client's own histograms so far, in µs.
    fn stages(&self) -> Option<Stages> {
        None
    }

    /// Waits until every record taken so far has settled, or the deadline is over.
    fn flush(&self, deadline: Duration);

    /// Ends the client; what is not settled by the deadline settles as a failure.
    fn close(&self, deadline: Duration);
}

/// What a client says about itself.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its way into the kernel: `ring`, `epoll`, `socket`.
    pub driver: String,
    /// Why that one.
    pub driver_reason: String,
    /// Where its I/O threads run, a line each.
    pub shards: Vec<String>,
    /// Settings it had no use for or read differently, as `name: what is true instead`.
    pub differs: Vec<String>,
}

/// Monotonic counters of a client; `None` where it does not count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Batches settled.
    pub batches: Option<u64>,
    /// Produce requests sent.
    pub requests: Option<u64>,
    /// Batches sent again.
    pub retries: Option<u64>,
    /// Calls into the kernel for I/O.
    pub kernel_entries: Option<u64>,
    /// Times an I/O thread was woken by another.
    pub wakes: Option<u64>,
}

/// Histograms of a record's journey, in µs, weighted by records.
#[derive(Clone, Debug)]
pub struct Stages {
    /// Record appended → its batch closed.
    pub append_to_seal: Histogram<u64>,
    /// Batch closed → the kernel has it.
    pub seal_to_wire: Histogram<u64>,
    /// The kernel has it → answered.
    pub wire_to_ack: Histogram<u64>,
    /// All of it.
    pub append_to_ack: Histogram<u64>,
}

impl Stages {
    /// What was recorded since `earlier`, a snapshot of the same histograms.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        for (now, then) in [
            (&mut self.append_to_seal, &earlier.append_to_seal),
            (&mut self.seal_to_wire, &earlier.seal_to_wire),
            (&mut self.wire_to_ack, &earlier.wire_to_ack),
            (&mut self.append_to_ack, &earlier.append_to_ack),
        ] {
            // Fails only for other bounds or counts that went down: then nothing is subtracted,
            // and the figures are those since the start.
            let _ = now.subtract(then);
        }
        self
    }
}
