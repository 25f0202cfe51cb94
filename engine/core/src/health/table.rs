//! All brokers of a shard, next to each other: whether one is slow can only be said by comparison,
//! and not all can be bad.
//!
//! The dispatcher tells what it sees of each broker, by its place, and asks how it stands. A tick
//! looks at the ages of what is unanswered, and moves the breakers on. Nobody is blamed for
//!
//! - what happened while this process itself did not run (a tick that came late),
//! - silence, while more than half of the brokers are silent: then they wait for something, as all
//!   leaders do for a dead follower with `acks=all`,
//! - errors that are about a partition, a record, our rights or a quota ([`scope`](super::scope)).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::outcome::Cause;
use crate::random::Random;
use crate::time::Time;

use super::endpoint::{Endpoint, Reason, Slow, State};
use super::settings::HealthSettings;
use super::standing::Standing;

/// What happened to a broker, for the dispatcher to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is ejected, or still is.
    Ejected(usize),
    /// It is to be probed.
    Probing(usize),
    /// It takes records again.
    Back(usize),
}

/// Whether requests may be sent to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// They may.
    Open,
    /// One, while none is in flight.
    One,
    /// None.
    Shut,
}

/// What a tick sees of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Glimpse {
    /// It leads a lane.
    pub(crate) hosts: bool,
    /// Since when the oldest request is unanswered, or a connection that records wait for is being
    /// made.
    pub(crate) oldest: Option<Time>,
    /// Something is with its lanes, in flight or not.
    pub(crate) wanted: bool,
    /// Something waits that must go there, and there is a connection.
    pub(crate) waits: bool,
}

/// Why, since when and until when a broker is avoided, and what was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// How it stands.
    pub standing: Standing,
    /// What is held against it.
    pub why: Option<Reason>,
    /// What it did last that is held against it.
    pub last: Option<Cause>,
    /// When it was ejected or began to come back.
    pub since: Option<Time>,
    /// When it will be probed.
    pub until: Option<Time>,
    /// The share of records it gets of those that may go anywhere, in percent of a healthy broker's.
    pub weight: u8,
    /// How long it takes from the last byte sent to the answer: the moving average with peaks.
    pub service_time: Duration,
    /// Half of its answers take no longer.
    pub service_p50: Option<Duration>,
    /// 99 in 100 take no longer.
    pub service_p99: Option<Duration>,
    /// For how long its oldest request is unanswered.
    pub oldest: Duration,
    /// Failures in a row.
    pub failures: u32,
    /// Ejections that are not forgotten yet.
    pub ejections: u32,
    /// Batches that were moved away from its lanes before they were ever sent.
    pub moved: u64,
}

/// What keeps a broker from being asked is forgotten so many times faster than what it does when asked:
/// nothing else would ever show that it is over.
const FORGET_FASTER: u32 = 4;

/// A shard that asked nothing for so long is one that gets nothing.
const IDLE_FOR: Duration = Duration::from_secs(1);

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct Table {
    settings: HealthSettings,
    request_timeout: Duration,
    endpoints: Vec<Endpoint>,
    /// What was asked before is not judged by the time it takes.
    grace_since: Time,
    /// When the next tick should come; [`Time::NEVER`] while none is armed.
    tick_due: Time,
    slow_limit: Duration,
    stall_limit: Duration,
    /// More than half of the brokers are silent.
    common: bool,
    /// Since when they are.
    common_since: Time,
    /// They were, and not all need to be out of it at once: until then silence counts against nobody.
    common_until: Time,
    /// Since when ticks found that nothing is asked.
    idle_since: Option<Time>,
    turns: VecDeque<Turn>,
    /// One is ejected or half open, perhaps: worth a look.
    any_out: bool,
    scratch: Vec<Duration>,
}

impl Table {
    pub(crate) fn new(settings: HealthSettings, request_timeout: Duration) -> Self {
        Self {
            slow_limit: absolute_limit(&settings),
            stall_limit: settings.stall,
            settings,
            request_timeout,
            endpoints: Vec::new(),
            grace_since: Time(0),
            tick_due: Time::NEVER,
            common: false,
            common_since: Time(0),
            common_until: Time(0),
            idle_since: None,
            turns: VecDeque::new(),
            any_out: false,
            scratch: Vec::new(),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.settings.on
    }

    /// A broker more, at the next place.
    pub(crate) fn add(&mut self, now: Time) {
        self.endpoints.push(Endpoint::new(now));
    }

    /// The broker at this place is gone; another may come there.
    pub(crate) fn reset(&mut self, now: Time, place: usize) {
        self.endpoints[place] = Endpoint::new(now);
        self.turns.retain(|turn| {
            let (Turn::Ejected(of) | Turn::Probing(of) | Turn::Back(of)) = turn;
            *of != place
        });
    }

    /// When the next tick is due.
    pub(crate) fn tick_due(&self) -> Time {
        self.tick_due
    }

    /// Asks for a tick. Returns when.
    pub(crate) fn arm(&mut self, now: Time) -> Time {
        self.tick_due = self.tick_due.min(now + self.settings.tick);
        self.tick_due
    }

    /// Asks for a tick at the next time that changes something though nothing is asked, if no earlier
    /// one is due: an ejection ends, a suspicion, or what is held against a broker is forgotten.
    /// Returns when. Lanes of a shard that gets nothing say so too; else nothing would ever come.
    pub(crate) fn arm_for_change(&mut self, now: Time) -> Time {
        let settings = &self.settings;
        let changes = self.endpoints.iter().map(|e| e.changes_at(now, settings));
        self.tick_due = self.tick_due.min(changes.min().unwrap_or(Time::NEVER));
        self.tick_due
    }

    /// What is to be acted on.
    pub(crate) fn poll_turn(&mut self) -> Option<Turn> {
        self.turns.pop_front()
    }

    /// Whether a broker is ejected or coming back.
    pub(crate) fn is_troubled(&self, now: Time) -> bool {
        let settings = &self.settings;
        self.endpoints
            .iter()
            .any(|endpoint| endpoint.is_troubled(now, settings))
    }

    /// Notices when this process did not run: the tick that should have come did not.
    fn awake(&mut self, now: Time) {
        const LATE: Duration = Duration::from_millis(100);
        let late = LATE.max(self.settings.tick * 4);
        if self.tick_due != Time::NEVER && now > self.tick_due + late {
            self.grace_since = now;
            self.tick_due = now;
        }
    }

    /// A request that began at `begun` was answered and took so long, throttling taken off.
    pub(crate) fn answered(
        &mut self,
        now: Time,
        place: usize,
        begun: Time,
        took: Duration,
        random: &mut Random,
    ) {
        if !self.settings.on {
            return;
        }
        self.awake(now);
        let limit = self.slow_limit;
        let judged = begun >= self.grace_since;
        // What most waited for says as little of who is slow as of who is silent.
        let excused = self.common || begun < self.common_until;
        let endpoint = &mut self.endpoints[place];
        endpoint.succeeded(now, &self.settings);
        if judged {
            endpoint.sample(now, took, limit, excused, self.settings.tau);
        }
        match &mut endpoint.state {
            State::HalfOpen {
                since, successes, ..
            } if begun >= *since && judged => {
                if took > limit && !excused {
                    self.eject(now, place, Reason::Slow, random);
                    return;
                }
                *successes += 1;
                if *successes >= self.settings.probe_successes {
                    endpoint.recover(now, took);
                    self.turns.push_back(Turn::Back(place));
                }
            }
            State::Ejected { .. } => self.shows_life(now, place),
            _ => {}
        }
    }

    /// Something failed that was begun at `begun`, if it was the broker's fault. `timed_out`: it is
    /// held against it that it said nothing.
    pub(crate) fn failed(
        &mut self,
        now: Time,
        place: usize,
        begun: Option<Time>,
        timed_out: bool,
        cause: Cause,
        random: &mut Random,
    ) {
        if !self.settings.on {
            return;
        }
        self.awake(now);
        let common = self.common || now < self.common_until;
        let excused = timed_out && (common || begun.is_some_and(|at| at < self.grace_since));
        let endpoint = &mut self.endpoints[place];
        if excused {
            if let State::HalfOpen { why, .. } = endpoint.state {
                self.eject(now, place, why, random);
            }
            return;
        }
        let hinted = now < endpoint.hinted_until;
        endpoint.failed(now, cause, self.request_timeout, &self.settings);
        let (good, bad) = endpoint.window.totals(now, self.settings.window);
        let total = good.saturating_add(bad);
        match endpoint.state {
            State::Ejected { .. } => {}
            State::HalfOpen { .. } | State::Recovering { .. } => {
                self.eject(now, place, Reason::Failures, random);
            }
            State::Healthy => {
                if hinted || endpoint.failures >= self.settings.consecutive_failures {
                    self.eject(now, place, Reason::Failures, random);
                } else if total >= self.settings.volume_min && good < total.div_ceil(2) {
                    self.eject(now, place, Reason::LowSuccess, random);
                }
            }
        }
    }

    /// A connection is there, or a late answer: what was ejected is worth a probe. What could go
    /// elsewhere comes back soon too, unless it was let down before.
    pub(crate) fn shows_life(&mut self, now: Time, place: usize) {
        let base = self.settings.eject_base;
        let endpoint = &mut self.endpoints[place];
        if let State::Ejected {
            since,
            until,
            free_from,
            ..
        } = &mut endpoint.state
        {
            *until = (*until).min((*since + base).max(now));
            let hold = Time::nanos(base).saturating_mul(1 << endpoint.relapses.min(20));
            let hold = *since + Duration::from_nanos(hold);
            *free_from = (*free_from).min(hold.max(now));
        }
    }

    /// Another shard ejected the broker: one failure more is enough here.
    pub(crate) fn hint(&mut self, now: Time, place: usize) {
        let endpoint = &mut self.endpoints[place];
        if self.settings.on && endpoint.state == State::Healthy {
            endpoint.hinted_until = now + self.settings.stall;
        }
    }

    /// Looks at all brokers.
    pub(crate) fn tick(
        &mut self,
        now: Time,
        random: &mut Random,
        mut look: impl FnMut(usize) -> Glimpse,
    ) {
        self.awake(now);
        self.tick_due = Time::NEVER;
        let mut idle = true;
        for (place, endpoint) in self.endpoints.iter_mut().enumerate() {
            let glimpse = look(place);
            idle &= glimpse.oldest.is_none();
            endpoint.hosts = glimpse.hosts;
            endpoint.age = glimpse.oldest.map_or(Duration::ZERO, |oldest| {
                now.since(oldest.max(self.grace_since))
            });
            if glimpse.oldest.is_some() {
                endpoint.service_time.at_least(now, endpoint.age);
            } else {
                let is_idle = self.idle_since.is_some_and(|at| now.since(at) >= IDLE_FOR);
                let tau = self.settings.tau / if is_idle { FORGET_FASTER } else { 1 };
                endpoint.service_time.forget(now, tau);
            }
            endpoint.is_asked(glimpse.oldest, glimpse.wanted);
            endpoint
                .penalty
                .forget(now, self.settings.tau / FORGET_FASTER);
            if let State::Ejected { since, until, .. } = &mut endpoint.state
                && glimpse.waits
            {
                *until = (*until).min(*since + self.settings.eject_base * 2);
            }
        }
        self.idle_since = idle.then(|| self.idle_since.unwrap_or(now));
        self.measure();
        self.judge_silence(now, random);
        self.judge_slowness(now, random);
        self.move_on(now, random);
        self.any_out = (0..self.endpoints.len()).any(|place| self.is_out(place));
    }

    /// What is slow, and what is silent, compared with the others.
    fn measure(&mut self) {
        let hosting = || self.endpoints.iter().filter(|endpoint| endpoint.hosts);
        self.scratch.clear();
        self.scratch
            .extend(hosting().filter_map(|endpoint| endpoint.histogram.percentile(50)));
        let p50 = median(&mut self.scratch).unwrap_or_default();
        self.stall_limit = self.settings.stall.max(p50 * 20);
        self.scratch.clear();
        let measured = hosting().filter(|endpoint| endpoint.histogram.percentile(50).is_some());
        self.scratch
            .extend(measured.map(|endpoint| endpoint.service_time.get()));
        self.slow_limit = if self.scratch.len() < 3 {
            absolute_limit(&self.settings)
        } else {
            let median = median(&mut self.scratch).unwrap_or_default();
            self.settings
                .slow_floor
                .max(median * self.settings.slow_ratio)
        };
    }

    fn judge_silence(&mut self, now: Time, random: &mut Random) {
        let hosting = || self.endpoints.iter().filter(|endpoint| endpoint.hosts);
        // Half way to the limit is enough to see that it is not one alone.
        let limit = self.stall_limit / 2;
        let silent = hosting().filter(|endpoint| {
            let since = endpoint.silent_since.map(|at| at.max(self.grace_since));
            since.is_some_and(|at| now.since(at) > limit)
        });
        let common = silent.count() * 2 > hosting().count();
        match (self.common, common) {
            (false, true) => self.common_since = now,
            // Leaders that wait for a dead follower give it up one after the other.
            (true, false) => self.common_until = now + now.since(self.common_since) / 2,
            _ => {}
        }
        self.common = common;
        let excused = common || now < self.common_until;
        for place in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[place];
            let stalls = endpoint.hosts && endpoint.age > self.stall_limit;
            match endpoint.state {
                State::Ejected {
                    why: Reason::Stalled,
                    ..
                }
                | State::HalfOpen {
                    why: Reason::Stalled,
                    ..
                } if stalls && self.common => self.release(now, place),
                State::Healthy | State::Recovering { .. } | State::HalfOpen { .. }
                    if stalls && !excused =>
                {
                    self.eject(now, place, Reason::Stalled, random);
                }
                _ => {}
            }
        }
    }

    fn judge_slowness(&mut self, now: Time, random: &mut Random) {
        let limit = self.slow_limit;
        let mut slow = 0;
        for endpoint in &mut self.endpoints {
            if endpoint.service_time.get() <= limit {
                endpoint.slow = None;
            } else {
                endpoint.slow.get_or_insert(Slow {
                    since: now,
                    samples: 0,
                    fast: 0,
                });
                slow += usize::from(endpoint.hosts);
            }
        }
        let hosting = self.endpoints.iter().filter(|endpoint| endpoint.hosts);
        if slow * 2 > hosting.count() {
            return;
        }
        for place in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[place];
            let lasts = endpoint.slow.is_some_and(|slow| {
                slow.samples >= Endpoint::SLOW_SAMPLES
                    && now.since(slow.since) >= Endpoint::SLOW_FOR
            });
            if lasts && matches!(endpoint.state, State::Healthy | State::Recovering { .. }) {
                self.eject(now, place, Reason::Slow, random);
            }
        }
    }

    /// What time alone changes.
    fn move_on(&mut self, now: Time, random: &mut Random) {
        for place in 0..self.endpoints.len() {
            let endpoint = &mut self.endpoints[place];
            match endpoint.state {
                State::Ejected { until, why, .. }
                    if until <= now && endpoint.age > self.stall_limit =>
                {
                    // Still silent: no need to ask.
                    self.eject(now, place, why, random);
                }
                State::Ejected {
                    why,
                    until,
                    free_from,
                    ..
                } if until <= now => {
                    endpoint.state = State::HalfOpen {
                        why,
                        since: now,
                        free_from,
                        successes: 0,
                    };
                    self.turns.push_back(Turn::Probing(place));
                }
                State::Recovering { since } if now >= since + self.settings.slow_start => {
                    endpoint.state = State::Healthy;
                    endpoint.healthy_since = now;
                }
                _ => endpoint.forgive(now),
            }
        }
    }

    /// Keeps records away from a broker for a while, unless too many are ejected already: then those
    /// that answer at all give way first, and then the one that was ejected longest ago.
    fn eject(&mut self, now: Time, place: usize, why: Reason, random: &mut Random) {
        let was_out = self.is_out(place);
        if !was_out && !self.make_way(now, place, why) {
            return;
        }
        let base = self.settings.eject_base;
        let endpoint = &mut self.endpoints[place];
        if let State::Ejected { free_from, .. } | State::HalfOpen { free_from, .. } = endpoint.state
            && free_from > now
        {
            // A probe before the time was over: it is not made longer.
            endpoint.state = State::Ejected {
                why,
                since: now,
                until: free_from.min(now + base * 2),
                free_from,
            };
            self.any_out = true;
            self.turns.push_back(Turn::Ejected(place));
            return;
        }
        let relapsed = match endpoint.state {
            State::Recovering { .. } => true,
            State::Healthy => endpoint.ejections > 0,
            _ => false,
        };
        endpoint.relapses = endpoint.relapses.saturating_add(relapsed.into());
        endpoint.ejections = endpoint.ejections.saturating_add(1);
        let base = Time::nanos(base);
        let most = Time::nanos(self.settings.eject_max);
        let doublings = (endpoint.ejections - 1).min(20);
        let whole = base.saturating_mul(1 << doublings).min(most);
        // Equal jitter: between half and all of it.
        let jitter = random.below(usize::try_from(whole / 2).unwrap_or(usize::MAX));
        let wait = whole - whole / 2 + u64::try_from(jitter).unwrap_or(0);
        let until = now + Duration::from_nanos(wait);
        endpoint.state = State::Ejected {
            why,
            since: now,
            until,
            free_from: until,
        };
        self.any_out = true;
        self.turns.push_back(Turn::Ejected(place));
    }

    fn is_out(&self, place: usize) -> bool {
        let state = self.endpoints[place].state;
        matches!(state, State::Ejected { .. } | State::HalfOpen { .. })
    }

    /// Whether one more may be ejected; another may have to come back for it.
    fn make_way(&mut self, now: Time, place: usize, why: Reason) -> bool {
        // Between two ticks a broker may have got its first lane.
        self.endpoints[place].hosts = true;
        let hosting = self.endpoints.iter().filter(|e| e.hosts).count();
        let percent = usize::from(self.settings.eject_percent_max);
        let allowed = match hosting {
            0 | 1 => 0,
            _ if percent == 0 => 0,
            _ => (hosting * percent / 100).max(1),
        };
        if allowed == 0 {
            return false;
        }
        let out = |endpoint: &Endpoint| match endpoint.state {
            State::Ejected { why, since, .. } | State::HalfOpen { why, since, .. }
                if endpoint.hosts =>
            {
                Some((!why.is_soft(), since))
            }
            _ => None,
        };
        if self.endpoints.iter().filter_map(out).count() < allowed {
            return true;
        }
        let others = self.endpoints.iter().enumerate();
        let first = others
            .filter_map(|(place, endpoint)| Some((out(endpoint)?, place)))
            .min();
        match first {
            // It takes more than slowness to bring back one that is dead.
            Some(((true, _), _)) | None if why.is_soft() => false,
            Some((_, other)) => {
                self.release(now, other);
                true
            }
            None => false,
        }
    }

    /// Lets an ejected broker back, under suspicion.
    fn release(&mut self, now: Time, place: usize) {
        let endpoint = &mut self.endpoints[place];
        endpoint.state = State::Healthy;
        endpoint.healthy_since = now;
        endpoint.hinted_until = now + self.settings.eject_base;
        self.turns.push_back(Turn::Back(place));
    }

    /// Whether requests may be sent. One that answers, if badly, goes on serving what must go there.
    pub(crate) fn gate(&self, place: usize) -> Gate {
        match self.endpoints[place].state {
            State::Ejected { why, .. } if !why.is_soft() => Gate::Shut,
            State::HalfOpen { why, .. } if !why.is_soft() => Gate::One,
            _ => Gate::Open,
        }
    }

    /// Whether a broker waits for a probe and nothing came that could be one, for a while. What could go
    /// elsewhere is to be asked for then, once its time is over.
    pub(crate) fn lacks_a_probe(&self, now: Time, place: usize) -> bool {
        let asked_from = self.endpoints[place].probe_asked_from(&self.settings);
        asked_from.is_some_and(|at| at <= now)
    }

    /// Whether any broker waits for a probe.
    pub(crate) fn has_half_open(&self) -> bool {
        self.any_out && (0..self.endpoints.len()).any(|place| self.is_half_open(place))
    }

    /// Whether a broker waits for a probe.
    pub(crate) fn is_half_open(&self, place: usize) -> bool {
        matches!(self.endpoints[place].state, State::HalfOpen { .. })
    }

    /// How a broker stands. `reachable`: there is a connection, or nothing against making one.
    pub(crate) fn standing(&self, now: Time, place: usize, reachable: bool) -> Standing {
        let endpoint = &self.endpoints[place];
        if !self.settings.on {
            return Standing::Good;
        }
        match endpoint.state {
            State::Ejected { why, .. } if why.is_soft() => Standing::Avoided,
            State::Ejected { .. } => Standing::Dead,
            _ if !reachable => Standing::Dead,
            State::HalfOpen { .. } => Standing::Suspect,
            State::Healthy | State::Recovering { .. } => {
                match endpoint.suspicion(now, &self.settings) {
                    Some(_) => Standing::Suspect,
                    None => Standing::Good,
                }
            }
        }
    }

    pub(crate) fn weight(&self, now: Time, place: usize) -> u8 {
        self.endpoints[place].weight(now, &self.settings)
    }

    pub(crate) fn cost(&self, place: usize) -> Duration {
        self.endpoints[place].cost()
    }

    /// A batch was moved away from it.
    pub(crate) fn moved_away(&mut self, place: usize) {
        self.endpoints[place].moved += 1;
    }

    /// Everything that is known of a broker.
    pub(crate) fn record(&self, now: Time, place: usize, reachable: bool) -> Record {
        let endpoint = &self.endpoints[place];
        let (why, since, until) = match endpoint.state {
            State::Healthy => (endpoint.suspicion(now, &self.settings), None, None),
            State::Ejected {
                why, since, until, ..
            } => (Some(why), Some(since), Some(until)),
            State::HalfOpen { why, since, .. } => (Some(why), Some(since), None),
            State::Recovering { since } => {
                (endpoint.suspicion(now, &self.settings), Some(since), None)
            }
        };
        Record {
            standing: self.standing(now, place, reachable),
            why,
            last: endpoint.last.clone(),
            since,
            until,
            weight: self.weight(now, place),
            service_time: endpoint.service_time.get(),
            service_p50: endpoint.histogram.percentile(50),
            service_p99: endpoint.histogram.percentile(99),
            oldest: endpoint.age,
            failures: endpoint.failures,
            ejections: endpoint.ejections,
            moved: endpoint.moved,
        }
    }
}

/// What is slow when there are too few to compare with: four times the floor, 1 s by default.
fn absolute_limit(settings: &HealthSettings) -> Duration {
    settings.slow_floor * 4
}

/// The lower one of the middle.
fn median(values: &mut [Duration]) -> Option<Duration> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}
