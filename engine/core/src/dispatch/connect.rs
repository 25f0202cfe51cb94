//! A connection's way from wanted to ready, and what happens when it is lost.

use alloc::format;
use alloc::sync::Arc;
use core::mem;

use ringpost_codec::frame::{DeframeError, Deframer};
use ringpost_codec::kafka::{ApiKey, produce};

use crate::buffer::Memory;
use crate::canary::{Canary, planted};
use crate::connection::{ConnId, State};
use crate::directory::Directory;
use crate::dispatch::lane::Again;
use crate::dispatch::{Action, Dispatcher, Spare, Supply};
use crate::handshake::{Answer, Handshake};
use crate::health::Says;
use crate::id::LaneId;
use crate::limits;
use crate::outcome::{Cause, Verdict, Why};
use crate::settings::Acks;
use crate::time::Time;
use crate::timer::{ConnectionTimer, Timer};

/// Slot 0 is the directory's, so that both can share a driver.
const FIRST_SLOT: u16 = Directory::SLOT + 1;

impl<M: Memory, T> Dispatcher<M, T> {
    fn index_of(&self, conn: ConnId) -> Option<usize> {
        let index = usize::from(conn.slot).checked_sub(usize::from(FIRST_SLOT))?;
        let connection = self.connections.get(index)?;
        (connection.generation == conn.generation).then_some(index)
    }

    pub(super) fn conn_id(&self, index: usize) -> ConnId {
        let slot = u16::try_from(index)
            .ok()
            .and_then(|index| index.checked_add(FIRST_SLOT));
        ConnId {
            slot: slot.expect("connections are bounded: see `update_broker`"),
            generation: self.connections[index].generation,
        }
    }

    /// Connects, unless that is done, under way, or has to wait.
    pub(super) fn want_connection(&mut self, now: Time, index: usize) {
        if !matches!(self.connections[index].state, State::Idle) {
            return;
        }
        let per_broker = self.settings.connections_per_broker;
        let addresses = &self.brokers[index / per_broker].addresses;
        let connection = &mut self.connections[index];
        let Some(address) = addresses
            .get(connection.next_address % addresses.len().max(1))
            .copied()
        else {
            // Its name does not resolve yet: that is the controller's to find out.
            self.refresh = true;
            self.rest(now, index);
            return;
        };
        connection.generation = connection.generation.wrapping_add(1);
        connection.state = State::Connecting { address };
        connection.served = false;
        connection.deframer = Deframer::new(limits::RESPONSE_BYTES_MAX);
        let deadline = now + self.settings.connect_timeout;
        self.timers
            .set(Timer::Connection(index, ConnectionTimer::Setup), deadline);
        self.actions.push_back(Action::Connect {
            conn: self.conn_id(index),
            address,
        });
    }

    /// The driver connected.
    pub fn connected(&mut self, _now: Time, conn: ConnId) {
        let Some(index) = self.index_of(conn) else {
            return;
        };
        let connection = &mut self.connections[index];
        let State::Connecting { address } = connection.state else {
            return;
        };
        let handshake = Handshake::new(connection.ask_version, connection.correlation());
        connection.state = State::Negotiating { address, handshake };
        self.send_bytes(index, handshake.request(&self.settings.client_id.clone()));
    }

    fn send_bytes(&mut self, index: usize, frame: alloc::vec::Vec<u8>) {
        let connection = &mut self.connections[index];
        connection.frame_out = true;
        connection.unsent = frame.len();
        self.actions.push_back(Action::SendBytes {
            conn: self.conn_id(index),
            frame,
        });
    }

    /// The driver could not connect.
    pub fn connect_failed(&mut self, now: Time, conn: ConnId, reason: &str) {
        let Some(index) = self.index_of(conn) else {
            return;
        };
        let State::Connecting { address } = self.connections[index].state else {
            return;
        };
        let broker = self.connections[index].broker;
        self.trouble(
            index,
            Cause::ConnectFailed {
                broker,
                address,
                reason: reason.into(),
            },
        );
        self.failed(now, index);
    }

    /// The kernel took bytes of the frame.
    pub fn sent(&mut self, now: Time, conn: ConnId, bytes: usize) {
        let Some(index) = self.index_of(conn) else {
            return;
        };
        let connection = &mut self.connections[index];
        connection.unsent = connection.unsent.saturating_sub(bytes);
        if connection.unsent > 0 || !matches!(connection.state, State::Ready { .. }) {
            return;
        }
        if self.settings.acks == Acks::None {
            // There will be no answer: this was all there is to know.
            self.connections[index].served = true;
            if let Some(mut flight) = self.connections[index].flights.pop_back() {
                let took = now.since(flight.handed_at);
                self.heard(now, index, flight.handed_at, took, Says::Works);
                self.watch_idleness(now, index);
                for mut entry in flight.entries.drain(..) {
                    if entry.purged {
                        self.purged_back(now, entry.lane, true);
                        continue;
                    }
                    let Some(mut batch) = entry.batch.take() else {
                        continue;
                    };
                    batch.moments.on_wire = now;
                    if let Some(lane) = self.lanes[entry.lane.index()].as_mut() {
                        lane.in_flight -= 1;
                    }
                    self.settle(entry.lane, batch, Verdict::Sent);
                    self.drained(now, entry.lane);
                }
                Spare::<M::Piece, T>::keep(&mut self.spare.entries, flight.entries);
                self.watch_requests(index);
            }
        } else if let Some(flight) = self.connections[index].flights.back_mut() {
            flight.on_wire_at.get_or_insert(now);
        }
    }

    /// The driver is done with a frame.
    pub fn released(&mut self, conn: ConnId, frame: alloc::vec::Vec<M::Piece>) {
        Spare::<M::Piece, T>::keep(&mut self.spare.frames, frame);
        if let Some(index) = self.index_of(conn) {
            self.connections[index].frame_out = false;
        }
    }

    /// Bytes arrived.
    pub fn received(&mut self, now: Time, conn: ConnId, bytes: &[u8]) {
        let Some(index) = self.index_of(conn) else {
            return;
        };
        // Out of the table while it lends frames; a connection that ends meanwhile gets a new one.
        let mut deframer = mem::replace(&mut self.connections[index].deframer, Deframer::new(0));
        let result = deframer.push(bytes, |frame| self.frame(now, conn, frame));
        let Some(index) = self.index_of(conn) else {
            return;
        };
        match result {
            Ok(()) => self.connections[index].deframer = deframer,
            Err(DeframeError::Refused(what)) => self.broke_protocol(now, index, what),
            Err(DeframeError::Frame(error)) => {
                let hint = match self.connections[index].state {
                    State::Negotiating { .. } => "; is this a Kafka broker?",
                    _ => "",
                };
                self.broke_protocol(now, index, format!("{error}{hint}").into());
            }
        }
    }

    /// One answer. `Err` when it is not what the protocol allows.
    fn frame(&mut self, now: Time, conn: ConnId, frame: &[u8]) -> Result<(), Arc<str>> {
        let Some(index) = self.index_of(conn) else {
            return Ok(());
        };
        match self.connections[index].state {
            State::Negotiating { handshake, .. } => self.negotiated(now, index, handshake, frame),
            State::Ready { .. } => match self.connections[index].probe.take() {
                Some(probe) => self.probe_answered(now, index, probe, frame),
                None => self.answered(now, index, frame),
            },
            _ => Err("bytes before a question was asked".into()),
        }
    }

    fn negotiated(
        &mut self,
        now: Time,
        index: usize,
        handshake: Handshake,
        frame: &[u8],
    ) -> Result<(), Arc<str>> {
        let State::Negotiating { address, .. } = self.connections[index].state else {
            return Ok(());
        };
        let offered = match handshake.answer(frame)? {
            Answer::AskAgain(version) => {
                let connection = &mut self.connections[index];
                connection.ask_version = version;
                let handshake = Handshake::new(version, connection.correlation());
                connection.state = State::Negotiating { address, handshake };
                let request = handshake.request(&self.settings.client_id.clone());
                self.send_bytes(index, request);
                return Ok(());
            }
            Answer::Done(offered) => offered,
        };
        let ours = *produce::VERSIONS.start()..=self.settings.produce_version_max;
        match offered.agree(ApiKey::PRODUCE, ours) {
            Ok(produce_version) => {
                let connection = &mut self.connections[index];
                connection.state = State::Ready {
                    address,
                    produce_version,
                };
                connection.failures = 0;
                connection.trouble = None;
                self.counters.connections += 1;
                self.timers
                    .stop(Timer::Connection(index, ConnectionTimer::Setup));
                self.reached(now, index);
                self.watch_idleness(now, index);
                Ok(())
            }
            Err(what) => {
                let broker = self.connections[index].broker;
                self.trouble(index, Cause::Unsupported { broker, what });
                self.connections[index].unsupported = true;
                self.close(index);
                self.lost(now, index);
                Ok(())
            }
        }
    }

    fn broke_protocol(&mut self, now: Time, index: usize, what: Arc<str>) {
        let broker = self.connections[index].broker;
        self.trouble(index, Cause::Protocol { broker, what });
        self.close(index);
        self.failed(now, index);
    }

    /// The peer or the network ended the connection.
    pub fn closed(&mut self, now: Time, conn: ConnId, reason: Option<&str>) {
        let Some(index) = self.index_of(conn) else {
            return;
        };
        let connection = &mut self.connections[index];
        let idle = connection.flights.is_empty() && !connection.frame_out;
        match connection.state {
            State::Ready { .. }
                if idle
                    && reason.is_none()
                    && (connection.served || connection.ready.is_empty()) =>
            {
                // Brokers end connections that are idle for long; nothing was asked, nothing is lost.
                // One that ends before it was of any use would be made anew without end.
                connection.state = State::Idle;
                self.next_generation(index);
                if !self.connections[index].ready.is_empty() {
                    self.want_connection(now, index);
                }
                return;
            }
            State::Negotiating { handshake, .. } => {
                connection.ask_version = handshake.after_hang_up();
            }
            _ => {}
        }
        let broker = connection.broker;
        let reason = reason.unwrap_or("the broker closed it").into();
        self.trouble(index, Cause::Disconnected { broker, reason });
        self.failed(now, index);
    }

    fn trouble(&mut self, index: usize, cause: Cause) {
        self.connections[index].trouble = Some(cause);
    }

    fn close(&mut self, index: usize) {
        self.actions.push_back(Action::Close {
            conn: self.conn_id(index),
        });
    }

    /// Later events of the connection that just ended are no longer ours.
    fn next_generation(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.generation = connection.generation.wrapping_add(1);
        connection.frame_out = false;
        connection.unsent = 0;
        connection.probe = None;
        connection.stale = false;
    }

    /// A connection was lost, or could not be made, and its broker is to blame.
    fn failed(&mut self, now: Time, index: usize) {
        self.blame(now, index);
        self.lost(now, index);
    }

    /// A connection was lost, or could not be made: what was in flight may be stored; try again
    /// later, elsewhere if the leaders moved.
    fn lost(&mut self, now: Time, index: usize) {
        self.timers
            .stop(Timer::Connection(index, ConnectionTimer::Setup));
        self.timers
            .stop(Timer::Connection(index, ConnectionTimer::Request));
        self.counters.connection_failures += 1;
        self.next_generation(index);
        self.connections[index].next_address += 1;
        self.rest(now, index);
        self.refresh = true;
        let cause = self.connections[index].trouble.clone();
        let cause = cause.unwrap_or(Cause::NoLeader);
        while let Some(mut flight) = self.connections[index].flights.pop_front() {
            for mut entry in flight.entries.drain(..) {
                if entry.purged {
                    self.purged_back(now, entry.lane, false);
                    continue;
                }
                let Some(mut batch) = entry.batch.take() else {
                    continue;
                };
                // The kernel had it, or part of it: only the broker knows whether it got through.
                batch.maybe_written = true;
                if let Some(lane) = self.lanes[entry.lane.index()].as_mut() {
                    lane.in_flight -= usize::from(!planted(Canary::WindowLeak));
                }
                self.retry(now, entry.lane, batch, cause.clone(), Again::Rested);
                self.drained(now, entry.lane);
            }
            Spare::<M::Piece, T>::keep(&mut self.spare.entries, flight.entries);
        }
    }

    fn rest(&mut self, now: Time, index: usize) {
        let connection = &mut self.connections[index];
        connection.state = State::Resting;
        connection.failures = connection.failures.saturating_add(1);
        let delay = self
            .settings
            .reconnect
            .delay(connection.failures, &mut self.random);
        self.timers.set(
            Timer::Connection(index, ConnectionTimer::Reconnect),
            now + delay,
        );
        self.views_changed = true;
        self.rescue = true;
    }

    pub(super) fn rested(&mut self, now: Time, index: usize) {
        let connection = &mut self.connections[index];
        if !matches!(connection.state, State::Resting) {
            return;
        }
        connection.state = State::Idle;
        self.views_changed = true;
        if !self.connections[index].ready.is_empty() || self.is_to_be_probed(index) {
            self.want_connection(now, index);
        }
    }

    pub(super) fn setup_timed_out(&mut self, now: Time, index: usize) {
        let broker = self.connections[index].broker;
        let timeout = self.settings.connect_timeout;
        let cause = match self.connections[index].state {
            State::Connecting { address } => Cause::ConnectFailed {
                broker,
                address,
                reason: format!("no answer within {timeout:?}").into(),
            },
            State::Negotiating { address, handshake } => {
                self.connections[index].ask_version = handshake.after_hang_up();
                Cause::ConnectFailed {
                    broker,
                    address,
                    reason: format!("no answer to ApiVersions within {timeout:?}").into(),
                }
            }
            _ => return,
        };
        self.trouble(index, cause);
        self.close(index);
        self.failed(now, index);
    }

    pub(super) fn request_timed_out(&mut self, now: Time, index: usize) {
        let due = self.connections[index].answer_due();
        if due > now {
            self.watch_requests(index);
            return;
        }
        let broker = self.connections[index].broker;
        self.trouble(index, Cause::RequestTimeout { broker });
        // A late answer must never meet another request, and half a frame must not be followed by
        // the next: the connection ends.
        self.close(index);
        self.failed(now, index);
    }

    /// Sets the timer of the request in flight that must be answered first.
    pub(super) fn watch_requests(&mut self, index: usize) {
        let due = self.connections[index].answer_due();
        self.timers
            .set(Timer::Connection(index, ConnectionTimer::Request), due);
    }

    /// A broker that moved is left, unless its old address is still one of its own. What is in flight is
    /// waited for: a name with several addresses may tell another one each time, and where it led before
    /// is as good as ever.
    pub(super) fn leave_stale_address(&mut self, now: Time, index: usize) {
        let broker = index / self.settings.connections_per_broker;
        let (State::Connecting { address }
        | State::Negotiating { address, .. }
        | State::Ready { address, .. }) = self.connections[index].state
        else {
            return;
        };
        let connection = &mut self.connections[index];
        connection.stale = !self.brokers[broker].addresses.contains(&address);
        if !connection.stale {
            return;
        }
        if matches!(connection.state, State::Ready { .. }) {
            self.leave_if_stale(now, index);
            return;
        }
        let reason = format!("its address {address} is no longer the broker's").into();
        let broker = self.connections[index].broker;
        self.trouble(index, Cause::Disconnected { broker, reason });
        self.close(index);
        self.lost(now, index);
        self.connections[index].next_address = 0;
    }

    /// Leaves an address that is no longer the broker's, once nothing is in flight. Nobody is to blame,
    /// and nothing has to be found out. Returns whether the connection is not to be used.
    pub(super) fn leave_if_stale(&mut self, now: Time, index: usize) -> bool {
        let connection = &mut self.connections[index];
        if !connection.stale || !matches!(connection.state, State::Ready { .. }) {
            return false;
        }
        if connection.flights.is_empty() && !connection.frame_out {
            connection.next_address = 0;
            self.close(index);
            self.next_generation(index);
            self.connections[index].state = State::Idle;
            self.views_changed = true;
            if !self.connections[index].ready.is_empty() {
                self.want_connection(now, index);
            }
        }
        true
    }

    /// Ends what waits for a broker that cannot take it.
    pub(super) fn refuse_unsupported<S>(&mut self, now: Time, index: usize, supply: &mut S)
    where
        S: Supply<Memory = M, Ticket = T>,
    {
        if !mem::take(&mut self.connections[index].unsupported) {
            return;
        }
        let cause = self.connections[index].trouble.clone();
        for lane in 0..self.lanes.len() {
            let id = LaneId(u32::try_from(lane).unwrap_or(u32::MAX));
            if self.lanes[lane]
                .as_ref()
                .is_none_or(|lane| lane.connection != Some(index))
            {
                continue;
            }
            while let Some(batch) = self.lanes[lane].as_mut().and_then(|l| l.queue.pop_front()) {
                self.fail(now, id, batch, Why::Unsupported, cause.clone());
            }
            while let Some(batch) = self.draw(now, id, supply) {
                self.fail(now, id, batch, Why::Unsupported, cause.clone());
            }
            self.drained(now, id);
        }
    }

    /// Ends a connection without a further attempt.
    pub(super) fn drop_connection(&mut self, _now: Time, index: usize) {
        if !matches!(self.connections[index].state, State::Idle | State::Resting) {
            self.close(index);
        }
        self.next_generation(index);
        self.connections[index].state = State::Idle;
        for timer in [
            ConnectionTimer::Setup,
            ConnectionTimer::Request,
            ConnectionTimer::Reconnect,
            ConnectionTimer::Gather,
            ConnectionTimer::Idle,
        ] {
            self.timers.stop(Timer::Connection(index, timer));
        }
    }

    /// From now on the connection is idle, unless something is sent on it.
    pub(super) fn watch_idleness(&mut self, now: Time, index: usize) {
        let after = self.settings.idle_probe;
        if !after.is_zero() && self.connections[index].flights.is_empty() {
            let timer = Timer::Connection(index, ConnectionTimer::Idle);
            self.timers.set(timer, now + after);
        }
    }

    /// A connection was idle for long: asks the broker anything, so that one that is gone without a
    /// word is noticed now and not by the next record. Or that was asked, and not answered.
    pub(super) fn idled(&mut self, now: Time, index: usize) {
        let timer = Timer::Connection(index, ConnectionTimer::Idle);
        let connection = &mut self.connections[index];
        if !matches!(connection.state, State::Ready { .. }) {
            return;
        }
        if connection.probe.is_some() {
            let broker = connection.broker;
            self.trouble(index, Cause::RequestTimeout { broker });
            self.close(index);
            self.failed(now, index);
            return;
        }
        if !connection.flights.is_empty() || connection.frame_out {
            // Whoever answers that sets the timer again.
            return;
        }
        if connection.throttled_until > now {
            // A broker that told us to be quiet does not read what we ask meanwhile (KIP-219).
            let quiet_until = connection.throttled_until;
            self.timers
                .set(timer, quiet_until + self.settings.idle_probe);
            return;
        }
        let probe = Handshake::new(connection.ask_version, connection.correlation());
        connection.probe = Some(probe);
        let answer = limits::PROBE_ANSWER.min(self.settings.request_timeout);
        self.timers.set(timer, now + answer);
        let request = probe.request(&self.settings.client_id.clone());
        self.send_bytes(index, request);
    }

    fn probe_answered(
        &mut self,
        now: Time,
        index: usize,
        probe: Handshake,
        frame: &[u8],
    ) -> Result<(), Arc<str>> {
        // What it offers was agreed on before; that it speaks is enough.
        if let Answer::Done(offered) = probe.answer(frame)? {
            self.throttled(now, index, offered.throttle_time_ms());
        }
        self.watch_idleness(now, index);
        Ok(())
    }
}
