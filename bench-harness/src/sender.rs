//! What an application thread does: take the next payload at its intended time and hand it to the
//! client, whatever the client is.
//!
//! *Open loop* (a rate): record *i* is meant for t₀ + i/λ. The thread sleeps only until the next
//! intended time and never through a debt: what is overdue is sent at once, and its response time
//! counts from when it was meant to be sent.
//! *Closed loop* (`rate=max`): a record is meant for the moment the thread gets to it.
//!
//! Threads that send are there for the whole run, through all of its phases: a client may live in one
//! of them, and then works where others sleep.
//!
//! The cost per record is kept under 5 ns: the clock is read once in [`STAMP_EVERY`] records, the
//! stop flag and counters likewise.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// Longest pause of a sender between two phases: not every client's can be woken for the next one.
const PHASE_LOOK: Duration = Duration::from_micros(200);

/// One stretch of sending: the warm-up alone, or warm-up and window together.
#[derive(Debug)]
pub struct Phase {
    stop: AtomicBool,
    /// Records to send in all, or as many as there is time for.
    records: Option<u64>,
    /// When the schedule starts.
    start_ns: u64,
    /// Senders that are through with it.
    done: AtomicUsize,
}

impl Phase {
    /// A stretch that starts now.
    pub fn new(start_ns: u64, records: Option<u64>) -> Self {
        Self {
            stop: AtomicBool::new(false),
            records,
            start_ns,
            done: AtomicUsize::new(0),
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

    /// Senders that are through with it.
    pub fn done(&self) -> usize {
        self.done.load(Ordering::Acquire)
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

/// The phases of a run, in the order they begin. Senders live through all of them.
#[derive(Debug)]
pub struct Phases {
    begun: Vec<OnceLock<Phase>>,
    /// Senders that can send.
    ready: AtomicUsize,
    /// There will be no more.
    over: AtomicBool,
}

/// A sender's part in a phase, which ends with it, also in a panic.
#[derive(Debug)]
struct Part<'a>(&'a Phase);

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.0.done.fetch_add(1, Ordering::Release);
    }
}

impl Phases {
    /// So many, none of which has begun.
    pub fn new(phases: usize) -> Self {
        Self {
            begun: (0..phases).map(|_| OnceLock::new()).collect(),
            ready: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// Begins phase `number`, unless it has begun; the phase.
    pub fn begin(&self, number: usize, phase: Phase) -> &Phase {
        self.begun[number].get_or_init(|| phase)
    }

    /// Stops all of them: senders end.
    pub fn end(&self) {
        for phase in self.begun.iter().filter_map(OnceLock::get) {
            phase.stop();
        }
        self.over.store(true, Ordering::Release);
    }

    /// Senders that can send.
    pub fn ready(&self) -> usize {
        self.ready.load(Ordering::Acquire)
    }

    /// A sender's life: `send` in each phase once it has begun, `pause` until then. `pause` gets
    /// the longest time that it may take.
    pub fn live<S>(
        &self,
        mut sender: S,
        mut pause: impl FnMut(&mut S, Duration),
        mut send: impl FnMut(&mut S, &Phase),
    ) {
        self.ready.fetch_add(1, Ordering::Release);
        for place in &self.begun {
            let phase = loop {
                if let Some(phase) = place.get() {
                    break phase;
                }
                if self.over.load(Ordering::Acquire) {
                    return;
                }
                pause(&mut sender, PHASE_LOOK);
            };
            let _part = Part(phase);
            send(&mut sender, phase);
        }
        while !self.over.load(Ordering::Acquire) {
            pause(&mut sender, Duration::from_nanos(SLEEP_NS_MAX));
        }
    }
}

/// Sends in every phase of the run.
pub fn send_all(run: &Run, phases: &Phases, sender: usize, sink: &mut impl Sink) {
    // Without this the kernel may wake a sleeper 50 µs late; refused, it just is that.
    let _ = prctl::set_timerslack(1);
    phases.live(
        sink,
        |sink, at_most| sink.pause(at_most),
        |sink, phase| send_phase(run, phase, sender, *sink),
    );
}

/// Sends until the phase stops, the share is used up, or the client is beyond help.
fn send_phase(run: &Run, phase: &Phase, sender: usize, sink: &mut impl Sink) {
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
        self.sink.work();
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
            self.sink.pause(ROOM_WAIT);
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
            self.sink.pause(Duration::from_nanos(left));
            now = self.run.clock.now();
        }
        Ok(now)
    }
}
