//! What always holds between two calls of a dispatcher; tests look at it after each.

use crate::buffer::Memory;
use crate::connection::State;
use crate::id::LaneId;
use crate::limits;
use crate::time::Time;
use crate::timer::{ConnectionTimer, Timer};

use super::Dispatcher;
use super::supply::Backlog;

impl<M: Memory, T> Dispatcher<M, T> {
    /// What always holds between two calls, looked at by tests after each.
    ///
    /// - A lane that may send is on its connection's list, exactly once, or its lock was taken.
    /// - What a lane counts as in flight is in its connection's flights, and not more than it may.
    /// - Waiting batches are in order, and the connection's count of what is ready is right.
    /// - Whatever waits has a timer that ends the wait.
    ///
    /// # Panics
    /// When something does not hold: a bug of the dispatcher.
    pub fn invariants(&self, now: Time) {
        for (index, lane) in self.lanes.iter().enumerate() {
            let Some(lane) = lane else { continue };
            let is_it = |other: &&LaneId| other.index() == index;
            for (number, connection) in self.connections.iter().enumerate() {
                let listed = connection.ready.iter().filter(is_it).count();
                let expected = usize::from(lane.listed == Some(number));
                assert_eq!(listed, expected, "lane {index} on the list of {number}");
                let flying = connection.flights.iter().flat_map(|f| &f.entries);
                let flying =
                    flying.filter(|e| e.lane.index() == index && (e.batch.is_some() || e.purged));
                let expected = match lane.connection {
                    Some(own) if own == number => lane.in_flight,
                    _ => 0,
                };
                assert_eq!(
                    flying.count(),
                    expected,
                    "lane {index} in flight at {number}"
                );
            }
            if lane.listed.is_some() {
                assert!(lane.listed == lane.connection && lane.has_work());
            }
            assert!(lane.in_flight <= limits::LANE_WINDOW);
            let busy = self.busy.iter().filter(is_it).count();
            assert!(busy <= 1, "lane {index} is asked again {busy} times");
            // A rest that just ended is seen by the next step.
            let rested = self.timers.get(Timer::Resting) > now;
            if rested && lane.eligible(now, &self.settings) {
                assert!(
                    lane.listed.is_some() || busy == 1,
                    "lane {index} is forgotten: {:?}, {} queued, {} in flight",
                    lane.source,
                    lane.queue.len(),
                    lane.in_flight
                );
            }
            assert!(
                !lane.muted || lane.in_flight > 0,
                "lane {index} is muted for ever"
            );
            if lane.has_work() && lane.resting_until > now {
                let at = self.timers.get(Timer::Resting);
                assert!(at <= lane.resting_until, "lane {index} rests for ever");
            }
            assert!(lane.queue.iter().is_sorted_by(|a, b| a.place < b.place));
            let oldest = lane.queue.front().map_or(Time::NEVER, |b| b.deadline);
            let waiting = match lane.source {
                Backlog::Waiting { oldest, .. } => oldest + self.settings.delivery_timeout,
                Backlog::Busy | Backlog::Empty => Time::NEVER,
            };
            let expiry = self.timers.get(Timer::Expiry);
            assert!(
                expiry <= oldest.min(waiting),
                "lane {index} expires at {expiry:?}, too late: {:?}, the oldest until {oldest:?}",
                lane.source
            );
        }
        for (number, connection) in self.connections.iter().enumerate() {
            let bytes = connection.ready.iter().map(|lane| {
                let lane = self.lanes[lane.index()].as_ref();
                lane.map_or(0, |lane| lane.source.bytes())
            });
            assert_eq!(connection.gathered.bytes, bytes.sum::<usize>());
            let timer = |timer| self.timers.get(Timer::Connection(number, timer));
            match connection.state {
                State::Idle => assert!(
                    connection.ready.is_empty(),
                    "lanes wait for connection {number}, which nobody makes"
                ),
                State::Resting => assert_ne!(timer(ConnectionTimer::Reconnect), Time::NEVER),
                State::Connecting { .. } | State::Negotiating { .. } => {
                    assert_ne!(timer(ConnectionTimer::Setup), Time::NEVER);
                }
                State::Ready { .. } => {}
            }
            let ready = matches!(connection.state, State::Ready { .. });
            assert!(ready || connection.flights.is_empty());
            assert!(connection.flights.len() <= self.settings.in_flight_max);
            assert!(timer(ConnectionTimer::Request) <= connection.answer_due());
        }
    }
}
