//! Broker avoidance, carried out: what is seen of brokers goes to the table of their health, and what
//! that decides is done here. Who may be sent to, how lanes stand, and what moves to another lane.
//!
//! *Moving.* A batch may go to another partition only if every record in it may, it was never sent,
//! and no sequence is bound to it. Such batches leave lanes whose broker is dead, and lanes without a
//! leader, for a better lane of the same topic in this shard. One goes to each broker that is to be
//! probed and has nothing of its own to be probed with.

use core::mem;

use ringpost_codec::kafka::ErrorCode;

use crate::batch_in_flight::Batch;
use crate::buffer::Memory;
use crate::canary::{Canary, planted};
use crate::connection::State;
use crate::health::{Gate, Glimpse, Record, Routes, Says, Standing, Turn, View, choose};
use crate::id::{BrokerId, LaneId};
use crate::limits;
use crate::outcome::Cause;
use crate::time::Time;
use crate::timer::{ConnectionTimer, Timer};

use super::{Action, Dispatcher, Supply};

impl<M: Memory, T> Dispatcher<M, T> {
    fn place_of(&self, connection: usize) -> usize {
        connection / self.settings.connections_per_broker
    }

    fn connections_of(&self, place: usize) -> core::ops::Range<usize> {
        let per_broker = self.settings.connections_per_broker;
        place * per_broker..(place + 1) * per_broker
    }

    /// Whether a connection is there or can be made now: not after a failure, while it waits to be made
    /// again.
    fn is_reachable(&self, connection: usize) -> bool {
        !matches!(self.connections[connection].state, State::Resting)
    }

    /// Another shard ejected a broker.
    pub fn hint(&mut self, now: Time, broker: BrokerId) {
        if let Some(place) = self.place_of_broker(broker) {
            self.health.hint(now, place);
            self.views_changed = true;
        }
    }

    pub(super) fn place_of_broker(&self, broker: BrokerId) -> Option<usize> {
        self.brokers
            .iter()
            .position(|known| known.id == Some(broker))
    }

    /// What is known of each broker's health, for display.
    pub fn health(&self, now: Time) -> impl Iterator<Item = (BrokerId, Record)> {
        let brokers = self.brokers.iter().enumerate();
        brokers.filter_map(move |(place, broker)| {
            let reachable = self.connections_of(place).any(|c| self.is_reachable(c));
            Some((broker.id?, self.health.record(now, place, reachable)))
        })
    }

    /// How a lane stands for records that may go anywhere.
    #[must_use]
    pub fn view_of(&self, now: Time, id: LaneId) -> View {
        let lane = self.lanes.get(id.index()).and_then(Option::as_ref);
        let Some((lane, connection)) = lane.and_then(|lane| Some((lane, lane.connection?))) else {
            return View::NOBODY;
        };
        let place = self.place_of(connection);
        let tag = self.brokers[place].id.map_or(u16::MAX, BrokerId::tag);
        if !self.health.is_on() {
            return View::new(Standing::Good, 100, tag, 0);
        }
        let reachable = self.is_reachable(connection);
        if self.brokers[place].invites == Some(id) {
            return View::new(Standing::Good, 100, tag, 1);
        }
        let standing = self.health.standing(now, place, reachable);
        // What is wrong with the lane alone.
        let tried_again = lane.failures > 0 && (!lane.queue.is_empty() || lane.in_flight > 0);
        let standing = match standing {
            Standing::Good if tried_again => Standing::Suspect,
            other => other,
        };
        let one = Time::nanos(self.health.cost(place)) / 1000;
        let flying = self.connections[connection].flights.len() as u64;
        let window = self.settings.in_flight_max as u64;
        let waiting = lane.source.bytes() / limits::GATHERED_ENOUGH_BYTES + lane.queue.len();
        let cost = one + one * flying / window + one.saturating_mul(waiting as u64);
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        View::new(standing, self.health.weight(now, place), tag, cost)
    }

    /// Whether [`Dispatcher::view_of`] may say something else of a lane than when this was last asked.
    pub fn views_changed(&mut self) -> bool {
        mem::take(&mut self.views_changed)
    }

    /// A connection was lost, or could not be made.
    pub(super) fn blame(&mut self, now: Time, index: usize) {
        let connection = &self.connections[index];
        let Some(cause) = connection.trouble.clone() else {
            return;
        };
        let (begun, timed_out) = match connection.state {
            State::Connecting { .. } | State::Negotiating { .. } => {
                let setup = Timer::Connection(index, ConnectionTimer::Setup);
                // One that fires is stopped.
                let fired = self.timers.get(setup) == Time::NEVER;
                let due = if fired { now } else { self.timers.get(setup) };
                (Some(due - self.settings.connect_timeout), fired)
            }
            _ => {
                let begun = connection.flights.front().map(|flight| flight.handed_at);
                (begun, matches!(cause, Cause::RequestTimeout { .. }))
            }
        };
        let place = self.place_of(index);
        self.health
            .failed(now, place, begun, timed_out, cause, &mut self.random);
        self.views_changed = true;
    }

    /// A request that was handed over at `handed_at` was answered.
    pub(super) fn heard(
        &mut self,
        now: Time,
        index: usize,
        begun: Time,
        took: core::time::Duration,
        says: Says,
    ) {
        let place = self.place_of(index);
        match says {
            Says::Works => self
                .health
                .answered(now, place, begun, took, &mut self.random),
            Says::Fails(code) => self.node_failed(now, index, begun, code),
            Says::Nothing => {}
        }
    }

    fn node_failed(&mut self, now: Time, index: usize, begun: Time, code: ErrorCode) {
        let broker = self.connections[index].broker;
        let cause = Cause::Broker {
            broker,
            code,
            message: None,
        };
        let place = self.place_of(index);
        self.health
            .failed(now, place, Some(begun), false, cause, &mut self.random);
        self.views_changed = true;
    }

    /// A connection can be used.
    pub(super) fn reached(&mut self, now: Time, index: usize) {
        let place = self.place_of(index);
        self.health.shows_life(now, place);
        self.views_changed = true;
        self.rescue = true;
    }

    /// Whether a request may be sent on a connection, as far as its broker's health goes.
    pub(super) fn gate(&self, index: usize) -> Gate {
        let place = self.place_of(index);
        match self.health.gate(place) {
            Gate::One if self.asks(place) => Gate::Shut,
            gate => gate,
        }
    }

    /// Whether a broker has a request to answer.
    fn asks(&self, place: usize) -> bool {
        let mut connections = self.connections_of(place);
        connections.any(|index| !self.connections[index].flights.is_empty())
    }

    /// The tick: looks at how long what is unanswered is unanswered.
    pub(super) fn look_at_brokers(&mut self, now: Time) {
        for place in 0..self.brokers.len() {
            self.brokers[place].hosts = false;
            self.brokers[place].wanted = false;
        }
        for lane in self.lanes.iter().flatten() {
            if let Some(connection) = lane.connection {
                let place = connection / self.settings.connections_per_broker;
                self.brokers[place].hosts = true;
                self.brokers[place].wanted |= lane.has_work() || lane.in_flight > 0;
            }
        }
        let Self {
            health,
            brokers,
            connections,
            timers,
            settings,
            random,
            ..
        } = self;
        let per_broker = settings.connections_per_broker;
        health.tick(now, random, |place| {
            let own = place * per_broker..(place + 1) * per_broker;
            let oldest = own.filter_map(|index| {
                let connection = &connections[index];
                match connection.state {
                    State::Connecting { .. } | State::Negotiating { .. } => {
                        let due = timers.get(Timer::Connection(index, ConnectionTimer::Setup));
                        Some(due - settings.connect_timeout)
                    }
                    _ => {
                        let flight = connection.flights.front()?;
                        let begun = flight.on_wire_at.unwrap_or(flight.handed_at);
                        // While we are to be quiet it reads nothing, so it owes no answer.
                        Some(begun.max(connection.throttled_until))
                    }
                }
            });
            let mut own = place * per_broker..(place + 1) * per_broker;
            let waits = own.any(|index| {
                let connection = &connections[index];
                matches!(connection.state, State::Ready { .. }) && !connection.ready.is_empty()
            });
            Glimpse {
                hosts: brokers[place].hosts,
                wanted: brokers[place].wanted,
                oldest: oldest.min(),
                waits,
            }
        });
        self.views_changed = true;
        self.rescue = true;
    }

    /// Does what the breakers' changes ask for.
    pub(super) fn turn_breakers(&mut self, now: Time) {
        while let Some(turn) = self.health.poll_turn() {
            self.views_changed = true;
            self.rescue = true;
            match turn {
                Turn::Ejected(place) => {
                    self.refresh = true;
                    if let Some(broker) = self.brokers[place].id {
                        self.actions.push_back(Action::Hint { broker });
                    }
                }
                Turn::Probing(place) => {
                    self.refresh = true;
                    self.reach_for_probe(now, place);
                }
                Turn::Back(_) => {}
            }
        }
    }

    /// A broker that is to be probed needs a connection.
    fn reach_for_probe(&mut self, now: Time, place: usize) {
        let first = self.connections_of(place).start;
        match self.connections[first].state {
            State::Idle => self.want_connection(now, first),
            State::Resting => {
                let timer = Timer::Connection(first, ConnectionTimer::Reconnect);
                self.timers.set_no_later(timer, now);
            }
            _ => {}
        }
    }

    /// Of a broker that is to be probed, and to which nothing comes by itself, one lane looks good until
    /// something is there: this shard may have nothing to divert, and get nothing as long as others are
    /// better.
    pub(super) fn invite(&mut self, now: Time) {
        if !self.health.has_half_open() && !self.inviting {
            return;
        }
        self.inviting = false;
        for place in 0..self.brokers.len() {
            let lacks = self.health.lacks_a_probe(now, place) && !self.asks(place);
            let lane = if lacks {
                self.lane_to_probe(now, place)
            } else {
                None
            };
            self.inviting |= lane.is_some();
            self.views_changed |= self.brokers[place].invites != lane;
            self.brokers[place].invites = lane;
        }
    }

    /// A lane through which a broker can be probed, unless something waits to be sent there already.
    fn lane_to_probe(&mut self, now: Time, place: usize) -> Option<LaneId> {
        let own = self.connections_of(place);
        if own.clone().any(|c| !self.connections[c].ready.is_empty()) {
            return None;
        }
        if matches!(self.connections[own.start].state, State::Idle) {
            // It ended before a probe came.
            self.want_connection(now, own.start);
        }
        let serves = |id: LaneId| {
            let lane = self.lanes.get(id.index())?.as_ref()?;
            let connection = lane.connection.filter(|c| own.contains(c))?;
            let is_ready = matches!(self.connections[connection].state, State::Ready { .. });
            (is_ready && lane.target == lane.connection && !lane.has_work()).then_some(id)
        };
        let invited = self.brokers[place].invites.and_then(serves);
        let mut all = (0u32..).map(LaneId).take(self.lanes.len());
        invited.or_else(|| all.find_map(serves))
    }

    pub(super) fn is_to_be_probed(&self, index: usize) -> bool {
        self.health.is_half_open(self.place_of(index))
    }

    /// Asks for the next tick, if there is anything to look at: something is unanswered, or waits
    /// behind a broker whose health is to change. Otherwise when time alone changes how a broker stands,
    /// which lanes are to say although nothing is sent. Then an idle shard sleeps.
    pub(super) fn arm_tick(&mut self, now: Time) {
        let soon = now + self.settings.health.tick;
        if !self.health.is_on() || self.health.tick_due() <= soon {
            return;
        }
        let unanswered = self.connections.iter().any(|connection| {
            !connection.flights.is_empty()
                || matches!(
                    connection.state,
                    State::Connecting { .. } | State::Negotiating { .. }
                )
        });
        let waits = || self.connections.iter().any(|c| !c.ready.is_empty());
        let due = if unanswered || (self.health.is_troubled(now) && waits()) {
            self.health.arm(now)
        } else {
            self.health.arm_for_change(now)
        };
        // A rescue may go on sooner.
        self.timers.set_no_later(Timer::Health, due);
    }

    /// Whether what is with a lane cannot be sent for now.
    pub(super) fn is_stranded(&self, now: Time, id: LaneId) -> bool {
        let lane = self.lanes.get(id.index()).and_then(Option::as_ref);
        let Some(connection) = lane.and_then(|lane| lane.connection) else {
            return true;
        };
        let reachable = self.is_reachable(connection);
        let place = self.place_of(connection);
        self.health.standing(now, place, reachable) >= Standing::Dead
    }

    /// Moves what may move away from lanes that cannot send it.
    pub(super) fn rescue<S>(&mut self, now: Time, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        if !mem::take(&mut self.rescue) || !self.health.is_on() {
            return;
        }
        let mut left = limits::MOVED_PER_STEP;
        let mut looked_at = None;
        for index in 0..self.lanes.len() {
            let id = LaneId(u32::try_from(index).unwrap_or(u32::MAX));
            let Some(lane) = self.lanes[index].as_ref().filter(|lane| lane.has_work()) else {
                continue;
            };
            let topic = lane.topic;
            if !self.is_stranded(now, id) {
                continue;
            }
            let has_refuge = match looked_at {
                Some((of, has_refuge)) if of == topic => has_refuge,
                _ => self.has_refuge(now, topic),
            };
            looked_at = Some((topic, has_refuge));
            if has_refuge && !self.leave(now, id, &mut left, supply) {
                // The rest at once, but the network first.
                self.rescue = true;
                self.timers.set(Timer::Health, now);
                return;
            }
        }
    }

    /// Moves what may move away from one lane. `false`: that was enough for one step.
    fn leave<S>(&mut self, now: Time, id: LaneId, left: &mut usize, supply: &mut S) -> bool
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        loop {
            let Some(batch) = self.take_movable(now, id, supply) else {
                return true;
            };
            let to = self.refuge(now, id);
            self.move_in(now, batch, id, to.unwrap_or(id));
            if to.is_none() {
                return true;
            }
            *left -= 1;
            if *left == 0 {
                return false;
            }
        }
    }

    fn has_refuge(&self, now: Time, topic: usize) -> bool {
        (0u32..).zip(&self.lanes).any(|(index, lane)| {
            lane.as_ref().is_some_and(|lane| lane.topic == topic)
                && !self.is_stranded(now, LaneId(index))
        })
    }

    /// A better lane of the same topic.
    fn refuge(&mut self, now: Time, id: LaneId) -> Option<LaneId> {
        let topic = self.lanes[id.index()].as_ref()?.topic;
        let mut lanes = mem::take(&mut self.spare_lanes);
        lanes.clear();
        lanes.extend(self.lanes.iter().enumerate().filter_map(|(index, lane)| {
            let is_other = lane.as_ref()?.topic == topic && index != id.index();
            is_other.then_some(LaneId(u32::try_from(index).ok()?))
        }));
        let mut random = self.random.clone();
        let siblings = Siblings {
            dispatcher: self,
            now,
            lanes: &lanes,
        };
        let chosen = lanes
            .get(choose(&mut random, &siblings, None) as usize)
            .copied();
        self.random = random;
        self.spare_lanes = lanes;
        chosen.filter(|chosen| !self.is_stranded(now, *chosen))
    }

    /// The oldest batch of a lane that may go elsewhere. `None`: there is none, or the lane's lock is
    /// taken.
    fn take_movable<S>(
        &mut self,
        now: Time,
        from: LaneId,
        supply: &mut S,
    ) -> Option<Batch<M::Piece, T>>
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        let queue = &mut self.lanes[from.index()].as_mut()?.queue;
        if let Some(place) = queue.iter().position(Batch::may_move) {
            return queue.remove(place);
        }
        // It may say that there is none while others are there: those that may not move.
        let take = if planted(Canary::KeyedRebound) {
            supply.take(from)
        } else {
            supply.take_free(from)
        };
        self.sealed(now, from, take, supply)
    }

    /// Puts a batch behind the others of a lane.
    fn move_in(&mut self, now: Time, mut batch: Batch<M::Piece, T>, from: LaneId, to: LaneId) {
        let Some(lane) = self.lanes[to.index()].as_mut() else {
            return;
        };
        batch.place.ordinal = lane.next_ordinal;
        lane.next_ordinal += 1;
        batch.home = Some(batch.home.unwrap_or(from)).filter(|home| *home != to);
        self.timers.set_no_later(Timer::Expiry, batch.deadline);
        lane.queue.push_back(batch);
        // It has waited long enough.
        if let Some(listed) = lane.listed {
            self.connections[listed].gathered.now = true;
        }
        if from != to {
            self.counters.moved += 1;
            let left = self.lanes[from.index()].as_ref();
            if let Some(connection) = left.and_then(|lane| lane.connection) {
                let place = self.place_of(connection);
                self.health.moved_away(place);
            }
        }
        self.list(now, from);
        self.list(now, to);
    }

    /// Gives a broker that is to be probed, and has nothing of its own, a batch to be probed with.
    pub(super) fn divert<S>(&mut self, now: Time, from: LaneId, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        let Some(topic) = self.lanes[from.index()].as_ref().map(|lane| lane.topic) else {
            return;
        };
        for place in 0..self.brokers.len() {
            if !self.health.is_half_open(place) || self.asks(place) {
                continue;
            }
            let mut own = self.connections_of(place);
            let first = own.start;
            let usable = own.clone().find(|index| {
                let connection = &self.connections[*index];
                matches!(connection.state, State::Ready { .. })
            });
            let busy = own.any(|index| !self.connections[index].ready.is_empty());
            let Some(usable) = usable.filter(|_| !busy) else {
                if matches!(self.connections[first].state, State::Idle) {
                    // It ended before a probe came. There is one now, or the next.
                    self.want_connection(now, first);
                }
                continue;
            };
            let to = self.lanes.iter().position(|lane| {
                lane.as_ref().is_some_and(|lane| {
                    lane.topic == topic && lane.connection == Some(usable) && !lane.has_work()
                })
            });
            if let Some(to) = to.and_then(|to| u32::try_from(to).ok())
                && to != from.0
            {
                if let Some(batch) = self.take_movable(now, from, supply) {
                    self.move_in(now, batch, from, LaneId(to));
                }
                return;
            }
        }
    }

    /// Forgets a broker that left the cluster, once nothing of ours is with it. Its place can be
    /// another's then.
    pub(super) fn forget_broker(&mut self, now: Time, place: usize) {
        let own = self.connections_of(place);
        let needed = |lane: &super::Lane<M::Piece, T>| {
            [lane.connection, lane.target]
                .iter()
                .flatten()
                .any(|connection| own.contains(connection))
        };
        if self.asks(place) || self.lanes.iter().flatten().any(needed) {
            return;
        }
        for index in self.connections_of(place) {
            self.drop_connection(now, index);
            self.connections[index].retire();
        }
        self.brokers[place].id = None;
        self.brokers[place].invites = None;
        self.brokers[place].addresses.clear();
        self.health.reset(now, place);
    }
}

/// Lanes of one topic in one shard, to choose among.
struct Siblings<'a, M: Memory, T> {
    dispatcher: &'a Dispatcher<M, T>,
    now: Time,
    lanes: &'a [LaneId],
}

impl<M: Memory, T> Routes for Siblings<'_, M, T> {
    fn count(&self) -> u32 {
        u32::try_from(self.lanes.len()).unwrap_or(u32::MAX)
    }

    fn view(&self, partition: u32) -> View {
        let lane = self.lanes.get(partition as usize);
        lane.map_or(View::UNTOLD, |lane| {
            self.dispatcher.view_of(self.now, *lane)
        })
    }

    fn is_calm(&self) -> bool {
        false
    }

    fn panic_percent(&self) -> u8 {
        self.dispatcher.settings.health.panic_percent
    }
}
