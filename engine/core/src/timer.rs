//! All the timers of a shard, in one table.
//!
//! A handful of timers per connection and a few of the shard itself: setting one is a store, the
//! next one is found by looking through the table once per turn of the loop.

use alloc::vec::Vec;

use crate::time::Time;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Brokers are to be looked at. Before all others: what they say of silence depends on whether we
    /// slept ourselves.
    Health,
    /// The oldest waiting batch reaches its delivery deadline.
    Expiry,
    /// A lane that rests after a failure may try again.
    Resting,
    /// A timer of the connection with this index.
    Connection(usize, ConnectionTimer),
}

/// The timers each connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionTimer {
    /// Records have gathered long enough: send.
    Gather,
    /// Connecting and negotiating must be done.
    Setup,
    /// The wait after a failed connection is over.
    Reconnect,
    /// The oldest request in flight must have been answered.
    Request,
    /// It was idle for long; or it was asked whether it still works, and must have answered.
    Idle,
}

const SHARD_TIMERS: usize = 3;
const CONNECTION_TIMERS: usize = 5;

impl Timer {
    fn index(self) -> usize {
        match self {
            Self::Health => 0,
            Self::Expiry => 1,
            Self::Resting => 2,
            Self::Connection(connection, timer) => {
                SHARD_TIMERS
                    + connection * CONNECTION_TIMERS
                    + match timer {
                        ConnectionTimer::Gather => 0,
                        ConnectionTimer::Setup => 1,
                        ConnectionTimer::Reconnect => 2,
                        ConnectionTimer::Request => 3,
                        ConnectionTimer::Idle => 4,
                    }
            }
        }
    }

    fn from_index(index: usize) -> Self {
        match index {
            0 => Self::Health,
            1 => Self::Expiry,
            2 => Self::Resting,
            _ => {
                let of_connection = index - SHARD_TIMERS;
                let timer = match of_connection % CONNECTION_TIMERS {
                    0 => ConnectionTimer::Gather,
                    1 => ConnectionTimer::Setup,
                    2 => ConnectionTimer::Reconnect,
                    3 => ConnectionTimer::Request,
                    _ => ConnectionTimer::Idle,
                };
                Self::Connection(of_connection / CONNECTION_TIMERS, timer)
            }
        }
    }
}

/// When each timer is due.
///
/// ```
/// use ringpost_core::time::Time;
/// use ringpost_core::timer::{Timer, TimerTable};
/// let mut timers = TimerTable::default();
/// timers.set(Timer::Expiry, Time(20));
/// assert_eq!(timers.next(), Time(20));
/// assert_eq!(timers.due(Time(19)), None);
/// assert_eq!(timers.due(Time(20)), Some(Timer::Expiry));
/// assert_eq!(timers.next(), Time::NEVER);
/// ```
#[derive(Debug, Clone, Default)]
pub struct TimerTable {
    due: Vec<Time>,
}

impl TimerTable {
    /// Sets a timer, or moves it.
    pub fn set(&mut self, timer: Timer, at: Time) {
        let index = timer.index();
        if index >= self.due.len() {
            self.due.resize(index + 1, Time::NEVER);
        }
        self.due[index] = at;
    }

    /// Sets a timer unless it is due earlier already.
    pub fn set_no_later(&mut self, timer: Timer, at: Time) {
        if at < self.get(timer) {
            self.set(timer, at);
        }
    }

    /// Stops a timer.
    pub fn stop(&mut self, timer: Timer) {
        if let Some(at) = self.due.get_mut(timer.index()) {
            *at = Time::NEVER;
        }
    }

    /// When a timer is due; [`Time::NEVER`] when it is not set.
    #[must_use]
    pub fn get(&self, timer: Timer) -> Time {
        self.due.get(timer.index()).copied().unwrap_or(Time::NEVER)
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next(&self) -> Time {
        self.due.iter().copied().min().unwrap_or(Time::NEVER)
    }

    /// A timer that is due, which is thereby stopped.
    pub fn due(&mut self, now: Time) -> Option<Timer> {
        let index = self.due.iter().position(|at| *at <= now)?;
        self.due[index] = Time::NEVER;
        Some(Timer::from_index(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timer_has_a_place_of_its_own() {
        let mut timers = TimerTable::default();
        let mut all = alloc::vec![Timer::Health, Timer::Expiry, Timer::Resting];
        for connection in 0..3 {
            for timer in [
                ConnectionTimer::Gather,
                ConnectionTimer::Setup,
                ConnectionTimer::Reconnect,
                ConnectionTimer::Request,
                ConnectionTimer::Idle,
            ] {
                all.push(Timer::Connection(connection, timer));
            }
        }
        for (i, timer) in all.iter().enumerate() {
            timers.set(*timer, Time(100 + i as u64));
        }
        for (i, timer) in all.iter().enumerate() {
            assert_eq!(timers.get(*timer), Time(100 + i as u64));
            assert_eq!(timers.due(Time(100 + i as u64)), Some(*timer));
        }
        assert_eq!(timers.due(Time(1000)), None);
    }
}
