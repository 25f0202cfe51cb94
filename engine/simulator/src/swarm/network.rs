//! The network between core and brokers: connecting, what the kernel takes and when it lets go, bytes
//! on their way, ends in good order and others.

use std::net::SocketAddr;
use std::time::Duration;

use ringpost_broker::{Closed, Progress};
use ringpost_codec::kafka::header::RequestHeader;
use ringpost_codec::kafka::produce;
use ringpost_codec::reader::Reader;
use ringpost_core::connection::ConnId;
use ringpost_core::time::Time;

use crate::setup::{address, ms, us};

use super::knobs::Draw;
use super::run::{Event, Run, is_answered, tell};
use super::socket::{Frame, Owner, Piece, Socket};
use super::token::{self, TokenPiece};

/// A batch's checksum covers it from here, the checksum included.
const CHECKED_FROM: usize = 17;

impl Run {
    // ---- connecting -------------------------------------------------------------------------

    pub(super) fn connect(&mut self, owner: Owner, conn: ConnId, to: SocketAddr) {
        tell!(self, "{owner:?} {conn:?} connects to {to}");
        self.mix(u64::from(conn.generation) << 16 | u64::from(conn.slot));
        let number = self.sockets.len();
        let slot_taken = self
            .by_conn
            .keys()
            .any(|(other, known)| *other == owner && known.slot == conn.slot && *known != conn);
        if slot_taken {
            self.is_wrong(format!(
                "two connections in slot {} of {owner:?}",
                conn.slot
            ));
        }
        let listening = (1..=self.knobs.nodes).find(|node| address(*node) == to);
        let node = listening.filter(|node| !self.stopped.contains(node));
        let trip = self.knobs.latency * 2;
        let mut at = self.now + trip + self.net.up_to(self.knobs.jitter);
        let Some(node) = node else {
            self.by_conn.insert((owner, conn), number);
            let socket = Socket::new(self.now, owner, conn, listening.unwrap_or(-1), None);
            self.sockets.push(socket);
            self.schedule(at, Event::Refused(number));
            return;
        };
        for lost in [self.deaf.get(&node), self.mute.get(&node)] {
            // The first SYN is lost; it comes again a second later.
            if lost.is_some_and(|until| *until > self.now) {
                at = at + ms(1_000);
            }
        }
        self.advance_clock();
        let session = self.broker.session(node);
        self.by_conn.insert((owner, conn), number);
        self.sockets
            .push(Socket::new(self.now, owner, conn, node, Some(session)));
        self.schedule(at, Event::Connected(number));
    }

    pub(super) fn connected(&mut self, number: usize) {
        let socket = &self.sockets[number];
        let (owner, conn) = (socket.owner, socket.conn);
        if !socket.open || socket.vanished || socket.session.is_none() {
            return;
        }
        match owner {
            Owner::Directory => self.directory.connected(conn),
            Owner::Shard(shard) => {
                let shard = &mut self.shards[shard];
                shard.touched = true;
                shard.dispatcher.connected(self.now, conn);
            }
        }
    }

    pub(super) fn refused(&mut self, number: usize) {
        if !self.gone(number) {
            return;
        }
        let socket = &self.sockets[number];
        let (owner, conn) = (socket.owner, socket.conn);
        let reason = "connection refused";
        match owner {
            Owner::Directory => self.directory.connect_failed(self.now, conn, reason),
            Owner::Shard(shard) => {
                let shard = &mut self.shards[shard];
                shard.touched = true;
                shard.dispatcher.connect_failed(self.now, conn, reason);
            }
        }
    }

    /// The core's end is closed. `false`: it was before.
    fn gone(&mut self, number: usize) -> bool {
        let socket = &mut self.sockets[number];
        let was = std::mem::take(&mut socket.open);
        if was {
            self.by_conn.remove(&(socket.owner, socket.conn));
            self.watch.closed(&mut socket.asked);
        }
        was
    }

    // ---- sending ----------------------------------------------------------------------------

    /// A Produce request of a shard.
    pub(super) fn send_request(&mut self, shard: usize, conn: ConnId, pieces: Vec<TokenPiece>) {
        token::lend(&pieces);
        let len = pieces.iter().map(len_of).sum();
        let Some(number) = self.by_conn.get(&(Owner::Shard(shard), conn)).copied() else {
            // The connection ended in the same turn.
            token::returned(&pieces);
            self.shards[shard].dispatcher.released(conn, pieces);
            return;
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        token::read(&pieces, 0..len, &mut scratch);
        self.mix_bytes(&scratch);
        tell!(self, "shard {shard} {conn:?} sends {len} bytes");
        let socket = &mut self.sockets[number];
        if is_answered(self.knobs.acks)
            && let Err(wrong) = self.watch.sent(&mut socket.asked, &scratch)
        {
            self.is_wrong(wrong);
        }
        if std::mem::take(&mut self.flip_next)
            && let Some((at, bit)) = self.flippable(&scratch)
        {
            self.flips += 1;
            tell!(self, "a bit of byte {at} will be flipped");
            let socket = &mut self.sockets[number];
            socket.flip = Some((socket.taken + at, bit));
        }
        if let Some(cut) = self.cut_next.take() {
            self.sockets[number].cut = Some(cut);
        }
        self.scratch = scratch;
        self.hand_over(
            number,
            Frame {
                pieces,
                bytes: Vec::new(),
                len,
                taken: 0,
                returning: false,
            },
        );
    }

    /// A bit in a request that a batch's checksum covers.
    fn flippable(&mut self, frame: &[u8]) -> Option<(usize, u8)> {
        let mut reader = Reader::new(&frame[4..]);
        let head = RequestHeader::read(&mut reader).ok()?;
        let view = produce::decode_request(head.version, reader.rest()).ok()?;
        let partitions = view.topics().flat_map(|topic| topic.partitions);
        let batches: Vec<&[u8]> = partitions.filter_map(|p| p.records).collect();
        let batch = batches[self.net.below(batches.len())];
        let start = batch.as_ptr().addr() - frame.as_ptr().addr();
        let at = start + CHECKED_FROM + self.net.below(batch.len() - CHECKED_FROM);
        Some((at, u8::try_from(self.net.below(8)).unwrap_or(0)))
    }

    /// Something small.
    pub(super) fn send(&mut self, owner: Owner, conn: ConnId, bytes: Vec<u8>) {
        let Some(number) = self.by_conn.get(&(owner, conn)).copied() else {
            if let Owner::Shard(shard) = owner {
                self.shards[shard].dispatcher.released(conn, Vec::new());
            }
            return;
        };
        self.mix_bytes(&bytes);
        self.watch.asked(&mut self.sockets[number].asked);
        let len = bytes.len();
        self.hand_over(
            number,
            Frame {
                pieces: Vec::new(),
                bytes,
                len,
                taken: 0,
                returning: false,
            },
        );
    }

    fn hand_over(&mut self, number: usize, frame: Frame) {
        if self.sockets[number].frame.is_some() {
            self.is_wrong("two frames of a connection are with the driver");
        }
        let socket = &mut self.sockets[number];
        socket.frame = Some(frame);
        if !std::mem::replace(&mut socket.taking, true) {
            self.schedule(self.now, Event::Takes(number));
        }
    }

    fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    pub(super) fn takes(&mut self, number: usize) {
        self.sockets[number].taking = false;
        let socket = &mut self.sockets[number];
        let Some(frame) = &mut socket.frame else {
            return;
        };
        if !socket.open {
            self.let_go(number);
            return;
        }
        let left = frame.len - frame.taken;
        let room = self.knobs.send_buffer.saturating_sub(socket.under_way);
        let mut now = left.min(room);
        if self.knobs.take_max > 0 && now > 0 {
            now = now.min(1 + self.net.below(self.knobs.take_max));
        }
        if now == 0 {
            // Goes on when something under way arrives.
            return;
        }
        let range = frame.taken..frame.taken + now;
        frame.taken += now;
        let whole = frame.taken == frame.len;
        let lent = self.knobs.lent && !frame.pieces.is_empty();
        let mut from = range.start;
        let mut arrivals = Vec::new();
        while from < range.end {
            let most = match self.knobs.fragment {
                0 => range.end - from,
                most => 1 + self.net.below(most.min(range.end - from)),
            };
            let part = from..from + most;
            from += most;
            let piece = if lent {
                Piece::Lent(part)
            } else {
                let mut bytes = Vec::with_capacity(part.len());
                frame.read(part, &mut bytes);
                Piece::Copied(bytes)
            };
            socket.up.push_back(piece);
            let jitter = self.net.up_to(self.knobs.jitter);
            socket.last_up = socket.last_up.max(self.now + self.knobs.latency + jitter);
            arrivals.push(socket.last_up);
        }
        for at in arrivals {
            self.schedule(at, Event::Up(number));
        }
        let socket = &mut self.sockets[number];
        socket.taken += now;
        socket.under_way += now;
        let (owner, conn) = (socket.owner, socket.conn);
        if !whole {
            socket.taking = true;
            self.schedule(self.now + us(1), Event::Takes(number));
        } else if !lent {
            self.let_go(number);
        }
        if let Owner::Shard(shard) = owner {
            let shard = &mut self.shards[shard];
            shard.touched = true;
            shard.dispatcher.sent(self.now, conn, now);
        }
    }

    /// The kernel is done with the frame, a little later.
    fn let_go(&mut self, number: usize) {
        let socket = &mut self.sockets[number];
        if socket.has_lent() {
            return;
        }
        let Some(frame) = &mut socket.frame else {
            return;
        };
        if !std::mem::replace(&mut frame.returning, true) {
            // What is not made of pieces was copied: the kernel lets go of it with its last byte.
            let late = match frame.pieces.is_empty() {
                true => Duration::ZERO,
                false => self.net.up_to(self.knobs.release_delay),
            };
            self.schedule(self.now + late, Event::Released(number));
        }
    }

    pub(super) fn released(&mut self, number: usize) {
        let socket = &mut self.sockets[number];
        let Some(frame) = socket.frame.take() else {
            return;
        };
        token::returned(&frame.pieces);
        if let Owner::Shard(shard) = socket.owner {
            let conn = socket.conn;
            let shard = &mut self.shards[shard];
            shard.touched = true;
            shard.dispatcher.released(conn, frame.pieces);
        }
    }

    // ---- arriving ---------------------------------------------------------------------------

    pub(super) fn reaches_broker(&mut self, number: usize) {
        let socket = &mut self.sockets[number];
        if socket.up.is_empty() {
            return;
        }
        let deaf = self.deaf.get(&socket.node).copied().unwrap_or(Time(0));
        let until = deaf.max(socket.held_until);
        if until > self.now {
            socket.stuck.up += 1;
            self.flows_at(number, until);
            return;
        }
        if socket.vanished {
            // Sent again and again, never acknowledged: the kernel's room stays taken, until
            // somebody is there again who knows nothing of the connection.
            if self.healed {
                self.reset(number);
            }
            return;
        }
        let full = socket.session.as_ref().is_some_and(|s| s.room() == 0);
        if full {
            self.schedule(self.now + ms(20), Event::Up(number));
            return;
        }
        let Some(mut bytes) = socket.arrive() else {
            return;
        };
        let mut reset = false;
        if let Some(cut) = socket.cut {
            reset = bytes.len() >= cut;
            bytes.truncate(cut);
            socket.cut = (!reset).then(|| cut - bytes.len());
        }
        if let Some(session) = socket.session.as_mut() {
            session.receive(&bytes);
        }
        let frame = socket.frame.as_ref();
        let (done, open) = (frame.is_some_and(|f| f.taken == f.len), socket.open);
        if frame.is_some() && (done || !open) {
            self.let_go(number);
        } else if frame.is_some() && !socket.taking {
            socket.taking = true;
            self.schedule(self.now, Event::Takes(number));
        }
        self.work(number);
        if reset {
            self.reset(number);
        }
    }

    /// What is held up on a connection goes on then.
    fn flows_at(&mut self, number: usize, at: Time) {
        let socket = &mut self.sockets[number];
        if at < socket.stuck.until {
            socket.stuck.until = at;
            self.schedule(at, Event::Flows(number));
        }
    }

    /// What was held up on a connection goes on, or is held up again.
    pub(super) fn flows(&mut self, number: usize) {
        let stuck = std::mem::take(&mut self.sockets[number].stuck);
        for _ in 0..stuck.up {
            self.schedule(self.now, Event::Up(number));
        }
        for _ in 0..stuck.down {
            self.schedule(self.now, Event::Down(number));
        }
    }

    /// The broker works on what came.
    pub(super) fn work(&mut self, number: usize) {
        let now_ms = self.now_ms();
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let socket = &mut self.sockets[number];
        let Some(session) = socket.session.as_mut() else {
            self.out = out;
            self.held.remove(&number);
            return;
        };
        let progress = loop {
            match session.advance(&mut self.broker, now_ms, &mut out) {
                Ok(Progress::SendFirst) => {}
                other => break other,
            }
        };
        if self.flip_answer && out.len() >= 8 && socket.owner != Owner::Directory {
            // Its length or its number: fields that are checked.
            self.flip_answer = false;
            let bit = self.net.below(64);
            out[bit / 8] ^= 1 << (bit % 8);
            tell!(
                self,
                "bit {bit} of an answer on connection {number} is flipped"
            );
        }
        let mut rest = &out[..];
        while !rest.is_empty() && !self.sockets[number].vanished {
            let most = match self.knobs.fragment {
                0 => rest.len(),
                most => 1 + self.net.below(most.min(rest.len())),
            };
            let jitter = self.net.up_to(self.knobs.jitter);
            let socket = &mut self.sockets[number];
            socket.down.push_back(rest[..most].to_vec());
            socket.last_down = socket.last_down.max(self.now + self.knobs.latency + jitter);
            rest = &rest[most..];
            let at = socket.last_down;
            self.schedule(at, Event::Down(number));
        }
        self.out = out;
        match progress {
            Ok(Progress::Held { until_ms }) => {
                self.held.insert(number);
                let until_ms = u64::try_from(until_ms).unwrap_or(0);
                let at = Time(until_ms.saturating_mul(1_000_000)).max(self.now + us(1));
                self.work_again(number, at);
            }
            Ok(_) => {
                self.held.remove(&number);
            }
            Err(closed) => {
                self.held.remove(&number);
                tell!(self, "the broker closes connection {number}: {closed}");
                let socket = &mut self.sockets[number];
                socket.session = None;
                let at = socket.last_down.max(self.now + self.knobs.latency);
                let expected = matches!(
                    closed,
                    Closed::Scripted
                        | Closed::Unacknowledged(_)
                        | Closed::NodeEnded
                        | Closed::Ended
                );
                if !expected {
                    self.is_wrong(format!("the broker complains: {closed}"));
                }
                let ended = Event::Ended {
                    socket: number,
                    reset: false,
                };
                self.schedule(at, ended);
            }
        }
        self.wake_held();
    }

    fn work_again(&mut self, number: usize, at: Time) {
        let socket = &mut self.sockets[number];
        if at < socket.work_at && at < Time(u64::MAX / 2) {
            socket.work_at = at;
            self.schedule(at, Event::Work(number));
        }
    }

    /// Something changed at the cluster: answers that are held back may be due.
    pub(super) fn wake_held(&mut self) {
        if self.broker.changes() == self.changes {
            return;
        }
        self.changes = self.broker.changes();
        for number in self.held.clone() {
            self.work_again(number, self.now + us(1));
        }
    }

    pub(super) fn reaches_core(&mut self, number: usize) {
        let socket = &mut self.sockets[number];
        if socket.down.is_empty() {
            return;
        }
        let mute = self.mute.get(&socket.node).copied().unwrap_or(Time(0));
        if mute > self.now {
            socket.stuck.down += 1;
            self.flows_at(number, mute);
            return;
        }
        let Some(bytes) = socket.down.pop_front().filter(|_| socket.open) else {
            return;
        };
        let (owner, conn) = (socket.owner, socket.conn);
        self.watch.received(&mut socket.asked, &bytes);
        match owner {
            Owner::Directory => self.directory.received(self.now, conn, &bytes),
            Owner::Shard(shard) => {
                let shard = &mut self.shards[shard];
                shard.touched = true;
                shard.dispatcher.received(self.now, conn, &bytes);
            }
        }
    }

    // ---- ending -----------------------------------------------------------------------------

    /// The core closes a connection.
    pub(super) fn close_connection(&mut self, owner: Owner, conn: ConnId) {
        let Some(number) = self.by_conn.get(&(owner, conn)).copied() else {
            return;
        };
        tell!(self, "{owner:?} {conn:?} is closed");
        self.mix(number as u64);
        self.gone(number);
        let resets = self.net.one_in(2);
        let socket = &mut self.sockets[number];
        socket.down.clear();
        if resets || socket.vanished {
            socket.lose_all();
        } else if self.net.one_in(3) && !self.healed {
            // What was taken already is slow, and comes when nobody waits for it any more.
            socket.held_until = self.now + self.net.up_to(ms(4_000));
        }
        self.let_go(number);
    }

    /// Nothing under way arrives any more, and both ends are told.
    pub(super) fn reset(&mut self, number: usize) {
        tell!(self, "connection {number} is reset");
        self.sockets[number].lose_all();
        self.held.remove(&number);
        let ended = Event::Ended {
            socket: number,
            reset: true,
        };
        self.schedule(self.now, ended);
    }

    /// The core hears of an end.
    pub(super) fn ended(&mut self, number: usize, reset: bool) {
        if !self.gone(number) {
            self.let_go(number);
            return;
        }
        let socket = &mut self.sockets[number];
        socket.lose_all();
        let (owner, conn) = (socket.owner, socket.conn);
        self.let_go(number);
        let reason = reset.then_some("connection reset by peer");
        match owner {
            Owner::Directory => self.directory.closed(self.now, conn, reason),
            Owner::Shard(shard) => {
                let shard = &mut self.shards[shard];
                shard.touched = true;
                shard.dispatcher.closed(self.now, conn, reason);
            }
        }
    }

    /// All connections of a node end with it, some without a word.
    pub(super) fn node_ends(&mut self, node: i32, silently: bool) {
        for number in 0..self.sockets.len() {
            let socket = &self.sockets[number];
            if socket.node != node || !(socket.open || socket.session.is_some()) {
                continue;
            }
            if silently {
                self.vanish(number);
            } else {
                self.reset(number);
            }
        }
    }

    /// The other end is gone, and nobody says so.
    pub(super) fn vanish(&mut self, number: usize) {
        let socket = &mut self.sockets[number];
        socket.vanished = true;
        socket.session = None;
        socket.down.clear();
        self.held.remove(&number);
        if !self.sockets[number].open {
            self.sockets[number].lose_all();
            self.let_go(number);
        }
    }

    /// A connection that is open just now.
    pub(super) fn some_open(&mut self) -> Option<usize> {
        let open: Vec<usize> = self.by_conn.values().copied().collect();
        (!open.is_empty()).then(|| open[self.chaos.below(open.len())])
    }

    /// A while that is sometimes longer than any timeout.
    pub(super) fn a_while(&mut self) -> Duration {
        let usual = self.knobs.request_timeout;
        match self.chaos.below(3) {
            0 => self.chaos.up_to(usual / 4),
            1 => self.chaos.up_to(usual * 2),
            _ => self
                .chaos
                .up_to((self.knobs.delivery_timeout * 2).min(ms(6_000))),
        }
    }
}

fn len_of(piece: &TokenPiece) -> usize {
    ringpost_core::buffer::Piece::bytes(piece).len()
}
