//! What an application thread does: take the next payload at its intended time and hand it to the
//! client, whatever the client is.
//!
//! *Open loop* (a rate): record *i* is meant for t₀ + i/λ. The thread sleeps only until the next
//! intended time and never through a debt: what is overdue is sent at once, and its response time
//! counts from when it was meant to be sent.
//! *Closed loop* (`rate=max`): a record is meant for the moment the thread gets to it.
//!
//! The cost per record is kept under 5 ns: the clock is read once in [`STAMP_EVERY`] records, the
//! stop flag and counters likewise.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::prctl;

use crate::arrival::Schedule;
use crate::client::{Payload, Refused, Sink};
use crate::exit::Failure;
use crate::number::{count, index};
use crate::run::Run;
use crate::stamp::Stamp;

/// Records between two looks at the clock when there is no reason to wait.
pub const STAMP_EVERY: u64 = 16;

/// The shortest sleep: shorter ones would spend more on waking than on sending, at rates where
/// thousands of records are due in that time. What it delays counts in the response times.
const SLEEP_NS_MIN: u64 = 50_000;

/// How long a record that found no room waits before it is tried again. Answers free a batch every
/// few 100 µs; nothing tells a one-way sender when.
const ROOM_WAIT: Duration = Duration::from_micros(200);

/// Longest sleep without a look at the stop flag.
const SLEEP_NS_MAX: u64 = 20_000_000;

/// One stretch of sending: the warm-up alone, or warm-up and window together.
#[derive(Debug)]
pub struct Phase {
    stop: AtomicBool,
    /// Records to send in all, or as many as there is time for.
    records: Option<u64>,
    /// When the schedule starts.
    start_ns: u64,
}

impl Phase {
    /// A stretch that starts now.
    pub fn new(start_ns: u64, records: Option<u64>) -> Self {
        Self {
            stop: AtomicBool::new(false),
            records,
            start_ns,
        }
    }

    /// Asks its senders to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether they were asked.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// How many records sender `sender` of `senders` sends at most.
    pub fn share(&self, sender: usize, senders: usize) -> u64 {
        self.records.map_or(u64::MAX, |all| {
            let (sender, senders) = (count(sender), count(senders));
            all / senders + u64::from(sender < all % senders)
        })
    }

    /// The intended times of one sender, if the run has a rate.
    pub fn schedule(&self, run: &Run, sender: usize) -> Option<Schedule> {
        let rate = run.plan.records_per_s()?;
        Some(Schedule::new(
            run.plan.arrival,
            rate,
            sender,
            run.plan.producers,
            self.start_ns,
        ))
    }
}

/// Sends until the phase stops, the share is used up, or the client is beyond help.
pub fn send_all(run: &Run, phase: &Phase, sender: usize, sink: &mut impl Sink) {
    // Without this the kernel may wake a sleeper 50 µs late; refused, it just is that.
    let _ = prctl::set_timerslack(1);
    let sink_waits = sink.waits();
    let mut loop_ = Loop {
        run,
        phase,
        sender,
        sink,
        // Senders start apart in the corpus, so that they do not send the same bytes.
        value: run.corpus.len() / run.plan.producers * sender,
        number: 0,
        share: phase.share(sender, run.plan.producers),
        group: if sink_waits { 1 } else { STAMP_EVERY },
    };
    let ended = match phase.schedule(run, sender) {
        None => loop_.closed(),
        Some(schedule) => loop_.open(&schedule),
    };
    if let Err(Stop::Broken(why)) = ended {
        run.fail(why);
    }
    sink.hand_over();
}

/// Why a sender ended before its share.
enum Stop {
    Asked,
    Broken(Failure),
}

struct Loop<'a, S> {
    run: &'a Run,
    phase: &'a Phase,
    sender: usize,
    sink: &'a mut S,
    value: usize,
    number: u64,
    share: u64,
    /// Records to one reading of the clock, at most.
    group: u64,
}

impl<S: Sink> Loop<'_, S> {
    fn closed(&mut self) -> Result<(), Stop> {
        while self.number < self.share {
            if self.phase.stopped() {
                return Err(Stop::Asked);
            }
            let now = self.run.clock.now();
            let group = self.group.min(self.share - self.number);
            self.send_group(group, now, |_| now)?;
        }
        Ok(())
    }

    fn open(&mut self, schedule: &Schedule) -> Result<(), Stop> {
        let mut now = self.run.clock.now();
        while self.number < self.share {
            let intended = schedule.intended_ns(self.number);
            if intended > now {
                now = self.wait_until(intended)?;
            } else if self.phase.stopped() {
                return Err(Stop::Asked);
            }
            // All that is due by now, up to a group; then the clock is read again.
            let most = self.group.min(self.share - self.number);
            let due = (1..most)
                .find(|ahead| schedule.intended_ns(self.number + ahead) > now)
                .unwrap_or(most);
            self.send_group(due, now, |number| schedule.intended_ns(number))?;
            now = self.run.clock.now();
        }
        Ok(())
    }

    /// Sends the next `group` records with one reading of the clock, unless one has to wait.
    #[inline]
    fn send_group(
        &mut self,
        group: u64,
        mut now: u64,
        intended: impl Fn(u64) -> u64,
    ) -> Result<(), Stop> {
        let mut bytes = 0;
        let mut taken = 0;
        let mut ended = Ok(());
        for _ in 0..group {
            let payload = Payload {
                key: self.run.keyring.key(index(self.number)),
                value: self.run.corpus.value(self.value),
            };
            let meant = intended(self.number);
            match self.sink.send(payload, Stamp::new(meant, now)) {
                Ok(()) => {}
                Err(Refused::Broken(why)) => {
                    ended = Err(Stop::Broken(why));
                    break;
                }
                Err(Refused::Full) => match self.wait_for_room(payload, meant) {
                    Ok(later) => now = later,
                    Err(stop) => {
                        ended = Err(stop);
                        break;
                    }
                },
            }
            bytes += payload.len();
            taken += 1;
            self.number += 1;
            self.value += 1;
            if self.value == self.run.corpus.len() {
                self.value = 0;
            }
        }
        self.run.senders[self.sender].took(taken, bytes);
        ended
    }

    /// Tries a record again until it is taken; the time it was.
    #[cold]
    fn wait_for_room(&mut self, payload: Payload<'_>, intended: u64) -> Result<u64, Stop> {
        let since = self.run.clock.now();
        self.sink.hand_over();
        let outcome = loop {
            if self.phase.stopped() {
                break Err(Stop::Asked);
            }
            thread::park_timeout(ROOM_WAIT);
            let now = self.run.clock.now();
            match self.sink.send(payload, Stamp::new(intended, now)) {
                Ok(()) => break Ok(now),
                Err(Refused::Full) => {}
                Err(Refused::Broken(why)) => break Err(Stop::Broken(why)),
            }
        };
        self.run.senders[self.sender].blocked(self.run.clock.now() - since);
        outcome
    }

    /// Sleeps until `intended`, or a little longer; the time it was.
    fn wait_until(&mut self, intended: u64) -> Result<u64, Stop> {
        self.sink.hand_over();
        let mut now = self.run.clock.now();
        let until = intended.max(now + SLEEP_NS_MIN);
        while now < intended {
            if self.phase.stopped() {
                return Err(Stop::Asked);
            }
            let left = until.saturating_sub(now).min(SLEEP_NS_MAX);
            thread::park_timeout(Duration::from_nanos(left));
            now = self.run.clock.now();
        }
        Ok(now)
    }
}
