//! What is known of one broker, and the breaker that keeps records away from it.
//!
//! ```text
//!                  ejected                  time is over
//!   Healthy ──────────────────► Ejected ──────────────────► HalfOpen
//!      ▲                          ▲   ▲        failed          │
//!      │ slow start is over       │   └─────────────────────────┤
//!      │               failed     │                             │ probes answered
//!      └──────────── Recovering ──┘◄────────────────────────────┘
//! ```
//!
//! Records that must go to a broker wait while it is ejected. They may probe it sooner than its time is
//! over, so that they do not wait longer than it takes to notice that it is back; what could go
//! elsewhere comes back to it only when the time is over.
//!
//! A healthy broker can be *suspect*: it failed just now, it is slow, or another shard ejected it.
//! Records that may go anywhere avoid it at once then; nothing else changes.

use core::time::Duration;

use crate::outcome::Cause;
use crate::time::Time;

use super::ewma::PeakEwma;
use super::histogram::Histogram;
use super::settings::HealthSettings;
use super::window::SuccessWindow;

/// What is held against a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// Connections that could not be made or were lost, requests that timed out, errors of its own.
    #[error("it failed several times in a row")]
    Failures,
    /// Most of what it was asked failed.
    #[error("most of what it was asked failed")]
    LowSuccess,
    /// A request is unanswered for too long, and others are answered.
    #[error("it does not answer")]
    Stalled,
    /// It takes much longer than the others.
    #[error("it is much slower than the others")]
    Slow,
    /// Another shard ejected it.
    #[error("another shard found it bad")]
    Hinted,
}

impl Reason {
    /// It answers, if badly: such ejections give way to others, and are ignored in panic.
    pub(super) fn is_soft(self) -> bool {
        matches!(self, Self::Slow | Self::LowSuccess)
    }
}

/// See the module's doc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Healthy,
    Ejected {
        why: Reason,
        since: Time,
        /// Then it is probed.
        until: Time,
        /// Not before then does it get records that could go elsewhere.
        free_from: Time,
    },
    HalfOpen {
        why: Reason,
        since: Time,
        free_from: Time,
        successes: u32,
    },
    /// `since` can lie ahead: until then it gets only what must go there.
    Recovering {
        since: Time,
    },
}

/// A stretch of slowness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slow {
    pub(super) since: Time,
    /// Answers that were slow, in it.
    pub(super) samples: u32,
    /// Answers in a row that were not.
    pub(super) fast: u32,
}

/// See the module's doc.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) service_time: PeakEwma,
    /// What failures cost, beside the time that answers take.
    pub(super) penalty: PeakEwma,
    pub(super) histogram: Histogram,
    pub(super) window: SuccessWindow,
    /// Failures in a row.
    pub(super) failures: u32,
    pub(super) failed_at: Time,
    /// Successes since then.
    pub(super) successes: u32,
    pub(super) hinted_until: Time,
    pub(super) slow: Option<Slow>,
    pub(super) state: State,
    /// Ejections that still count; each one makes the next longer.
    pub(super) ejections: u32,
    /// Ejections soon after a recovery.
    pub(super) relapses: u32,
    pub(super) healthy_since: Time,
    pub(super) last: Option<Cause>,
    /// It leads a lane of ours. As of the last tick, as the following.
    pub(super) hosts: bool,
    /// For how long the oldest request is unanswered.
    pub(super) age: Duration,
    /// Since when it is asked in vain: also after what it was asked timed out and it is asked anew.
    pub(super) silent_since: Option<Time>,
    /// Batches that were moved away from it.
    pub(super) moved: u64,
}

impl Endpoint {
    /// Slow answers in a stretch of slowness before it counts; and so many fast ones end it.
    pub(super) const SLOW_SAMPLES: u32 = 8;
    /// How long it must last.
    pub(super) const SLOW_FOR: Duration = Duration::from_secs(2);
    /// So much health takes one ejection off the count.
    const FORGIVEN_AFTER: Duration = Duration::from_secs(30);
    /// The share a broker begins with when it comes back, in percent.
    const FIRST_WEIGHT: u64 = 10;
    /// The share of a broker that comes back is told in so many steps at least.
    const SLOW_START_STEPS: u32 = 20;
    /// While nothing is asked, what it costs is told so many times in tau: about halved each time.
    const FORGET_STEPS: u32 = 5;
    /// What must go to it, or what its shard has, has so many ticks to be the probe.
    const PROBE_TICKS: u32 = 4;
    /// Differences below this are noise, not cost.
    const COST_MIN: Duration = Duration::from_millis(2);

    pub(super) fn new(now: Time) -> Self {
        Self {
            service_time: PeakEwma::default(),
            penalty: PeakEwma::default(),
            histogram: Histogram::new(now),
            window: SuccessWindow::default(),
            failures: 0,
            failed_at: Time(0),
            successes: 0,
            hinted_until: Time(0),
            slow: None,
            state: State::Healthy,
            ejections: 0,
            relapses: 0,
            healthy_since: now,
            last: None,
            hosts: false,
            age: Duration::ZERO,
            silent_since: None,
            moved: 0,
        }
    }

    /// What a healthy broker is suspected of just now.
    pub(super) fn suspicion(&self, now: Time, settings: &HealthSettings) -> Option<Reason> {
        let early = matches!(self.state, State::Recovering { since } if since > now);
        let failed = self.failures > 0 && now < self.failed_at + settings.eject_base;
        if early || failed {
            Some(Reason::Failures)
        } else if self.slow.is_some() {
            Some(Reason::Slow)
        } else if now < self.hinted_until {
            Some(Reason::Hinted)
        } else {
            None
        }
    }

    /// When time next changes something, though it is asked nothing. Lanes are told of a share that
    /// grows and of a cost that falls in steps.
    pub(super) fn changes_at(&self, now: Time, settings: &HealthSettings) -> Time {
        let failed = (self.failures > 0).then(|| self.failed_at + settings.eject_base);
        let breaker = match self.state {
            State::Healthy => None,
            // One that showed life may be over already.
            State::Ejected { until, .. } => Some(until.max(now + settings.tick)),
            State::HalfOpen { .. } => self.probe_asked_from(settings),
            State::Recovering { since } if since > now => Some(since),
            State::Recovering { since } => {
                let step = settings.slow_start / Self::SLOW_START_STEPS;
                Some((now + step).min(since + settings.slow_start))
            }
        };
        let is_dear = self.slow.is_some() || self.cost() > Self::COST_MIN;
        let forgotten = is_dear.then(|| now + settings.tau / Self::FORGET_STEPS);
        let changes = [failed, Some(self.hinted_until), breaker, forgotten];
        let changes = changes.into_iter().flatten().filter(|at| *at > now);
        changes.min().unwrap_or(Time::NEVER)
    }

    /// From when on records are asked for to probe it, if it is to be probed and none came.
    pub(super) fn probe_asked_from(&self, settings: &HealthSettings) -> Option<Time> {
        match self.state {
            State::HalfOpen {
                since, free_from, ..
            } => Some(free_from.max(since + settings.tick * Self::PROBE_TICKS)),
            _ => None,
        }
    }

    /// Not simply healthy: time changes something.
    pub(super) fn is_troubled(&self, now: Time, settings: &HealthSettings) -> bool {
        self.state != State::Healthy || self.suspicion(now, settings).is_some()
    }

    /// Its part of what it would get in full health, in percent.
    pub(super) fn weight(&self, now: Time, settings: &HealthSettings) -> u8 {
        let State::Recovering { since } = self.state else {
            return 100;
        };
        let whole = Time::nanos(settings.slow_start).max(1);
        let passed = Time::nanos(now.since(since)).min(whole);
        let more = u128::from(passed) * u128::from(100 - Self::FIRST_WEIGHT) / u128::from(whole);
        u8::try_from(more + u128::from(Self::FIRST_WEIGHT)).unwrap_or(100)
    }

    /// How long a request is expected to take.
    pub(super) fn cost(&self) -> Duration {
        let cost = self.service_time.get().max(self.penalty.get());
        cost.max(Self::COST_MIN)
    }

    /// A tick sees since when it is asked, if it is, and whether it will be. While something waits to be
    /// sent to it again, a silence goes on; an ejection explains it.
    pub(super) fn is_asked(&mut self, oldest: Option<Time>, wanted: bool) {
        let is_ejected = matches!(self.state, State::Ejected { .. });
        if let Some(oldest) = oldest {
            let since = self.silent_since.unwrap_or(oldest);
            self.silent_since = Some(since.min(oldest));
        } else if is_ejected || !wanted {
            self.silent_since = None;
        }
    }

    /// A request was answered well.
    pub(super) fn succeeded(&mut self, now: Time, settings: &HealthSettings) {
        self.failures = 0;
        self.silent_since = None;
        self.hinted_until = Time(0);
        self.successes = self.successes.saturating_add(1);
        if self.successes >= settings.probe_successes {
            self.penalty.set(now, Duration::ZERO);
        }
        self.window.count(now, settings.window, true);
    }

    /// Notes how long an answer took. `excused`: it is not held against the broker.
    pub(super) fn sample(
        &mut self,
        now: Time,
        took: Duration,
        limit: Duration,
        excused: bool,
        tau: Duration,
    ) {
        self.service_time.sample(now, took, tau);
        self.histogram.record(now, took);
        if let Some(slow) = &mut self.slow {
            if took > limit {
                slow.samples = slow.samples.saturating_add((!excused).into());
                slow.fast = 0;
            } else {
                slow.fast += 1;
                if slow.fast >= Self::SLOW_SAMPLES {
                    // What is left of the peak still costs, but it is over.
                    self.slow = None;
                    self.service_time.set(now, took.max(limit / 2));
                }
            }
        }
    }

    /// Something failed that is its fault.
    pub(super) fn failed(
        &mut self,
        now: Time,
        cause: Cause,
        request_timeout: Duration,
        settings: &HealthSettings,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.failed_at = now;
        self.successes = 0;
        self.last = Some(cause);
        self.window.count(now, settings.window, false);
        let slowest = self.histogram.percentile(99).unwrap_or_default();
        self.penalty.at_least(now, slowest.max(request_timeout / 4));
    }

    /// It is good enough again for a part of the load.
    pub(super) fn recover(&mut self, now: Time, took: Duration) {
        let since = match self.state {
            State::HalfOpen { free_from, .. } => free_from.max(now),
            _ => now,
        };
        self.state = State::Recovering { since };
        self.failures = 0;
        self.slow = None;
        self.hinted_until = Time(0);
        self.window = SuccessWindow::default();
        self.service_time.set(now, took);
        self.penalty.set(now, Duration::ZERO);
    }

    /// Health makes ejections forgotten, one after the other.
    pub(super) fn forgive(&mut self, now: Time) {
        if self.state == State::Healthy
            && self.ejections > 0
            && now.since(self.healthy_since) >= Self::FORGIVEN_AFTER
        {
            self.ejections -= 1;
            self.healthy_since = now;
            if self.ejections == 0 {
                self.relapses = 0;
            }
        }
    }
}
