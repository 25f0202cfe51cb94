//! What all threads of one run share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::clock::Clock;
use crate::corpus::Corpus;
use crate::exit::Failure;
use crate::keyring::Keyring;
use crate::plan::Plan;
use crate::tally::{SenderTally, Settled, SettledTally, Taken};

/// A run: its plan, its payloads, its counters. Read by every thread, each of which writes only
/// counters of its own.
#[derive(Debug)]
pub struct Run {
    /// What to do.
    pub plan: Plan,
    /// The time.
    pub clock: Clock,
    /// The values.
    pub corpus: Corpus,
    /// The keys.
    pub keyring: Keyring,
    /// One for each application thread.
    pub senders: Vec<SenderTally>,
    /// One for each thread that sees acks.
    pub settled: Vec<SettledTally>,
    collected: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

impl Run {
    /// A run of `plan` with `tallies` threads that see acks.
    pub fn new(plan: Plan, clock: Clock, corpus: Corpus, keyring: Keyring, tallies: usize) -> Self {
        Self {
            senders: (0..plan.producers)
                .map(|_| SenderTally::default())
                .collect(),
            settled: (0..tallies).map(|_| SettledTally::default()).collect(),
            plan,
            clock,
            corpus,
            keyring,
            collected: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// What was taken so far.
    pub fn taken(&self) -> Taken {
        Taken::of(&self.senders)
    }

    /// The measured window begins or ends. Returns what was seen to settle until then.
    pub fn turn(&self, in_window: bool) -> Settled {
        self.settled.iter().map(|tally| tally.turn(in_window)).sum()
    }

    /// What was seen to settle so far.
    pub fn settled(&self) -> Settled {
        Settled::of(&self.settled)
    }

    /// Tells collectors that nothing more will come.
    pub fn end_collecting(&self) {
        self.collected.store(true, Ordering::Release);
    }

    /// Whether nothing more will come.
    pub fn collecting_ended(&self) -> bool {
        self.collected.load(Ordering::Acquire)
    }

    /// Reports that the run cannot go on; the first report stands.
    pub fn fail(&self, failure: Failure) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(failure);
    }

    /// Why the run cannot go on, if so.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
