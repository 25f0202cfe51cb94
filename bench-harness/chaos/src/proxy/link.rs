//! One connection through the proxy: client and broker sockets, and what passes between them.
//!
//! Each way has a thread that reads frames and says when each may leave, and one that waits for that
//! moment and writes. Both sockets live as long as a thread of theirs: the last one to let go closes
//! them, with RST if the link was reset (`SO_LINGER` 0).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use ringpost_core::random::Random;

use super::toxics::{Does, Way};
use super::{CONNECT_TIMEOUT, Node};
use crate::clock;

/// Frames that wait to be written, per way. A reader that is ahead of that waits too.
const FRAMES_WAITING: usize = 64;
/// The largest frame that is taken: above Kafka's own limit of 100 MiB.
const FRAME_BYTES_MAX: usize = 128 << 20;
/// After so long, a blocked write looks whether its link still lives.
const WRITE_LOOKS: Duration = Duration::from_millis(100);
/// What a broker is taken to need at least for an answer, when it is made slower.
const SERVICE_NS_MIN: u64 = 200_000;

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    client: TcpStream,
    broker: TcpStream,
    dead: AtomicBool,
    deaf: AtomicBool,
    /// Requests the broker has and did not answer: API key, and when it got it.
    asked: Mutex<VecDeque<(i16, u64)>>,
}

impl Link {
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Ends both sides, by RST or FIN. Threads that wait for the node's changes have to be woken.
    pub(super) fn kill(&self, reset: bool) {
        self.dead.store(true, Ordering::Release);
        for socket in [&self.client, &self.broker] {
            if reset {
                let now = libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                // These fail only for sockets that are gone already.
                let _ = setsockopt(socket, sockopt::Linger, &now);
                // Wakes the reader and sends nothing: the RST comes with the last owner's close.
                let _ = socket.shutdown(Shutdown::Read);
            } else {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// Nothing passes any more, and nobody is told.
    pub(super) fn go_deaf(&self) {
        self.deaf.store(true, Ordering::Release);
    }

    fn is_deaf(&self) -> bool {
        self.deaf.load(Ordering::Acquire)
    }

    fn socket(&self, way: Way, from: bool) -> &TcpStream {
        match (way, from) {
            (Way::Up, true) | (Way::Down, false) => &self.client,
            (Way::Up, false) | (Way::Down, true) => &self.broker,
        }
    }
}

/// Bytes with the moment they may leave.
struct Parcel {
    bytes: Vec<u8>,
    leaves_ns: u64,
    /// The connection is reset behind it.
    last: bool,
}

/// Serves one client until either side ends.
pub(super) fn serve(client: TcpStream, node: &Arc<Node>, number: u64) {
    let refused = node.toxics().refuse;
    let broker = if refused {
        Err(io::ErrorKind::ConnectionRefused.into())
    } else {
        TcpStream::connect_timeout(&node.broker, CONNECT_TIMEOUT)
    };
    let Ok(broker) = broker else {
        let now = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        let _ = setsockopt(&client, sockopt::Linger, &now);
        return;
    };
    for socket in [&client, &broker] {
        // Without these it is slower to notice an end, no more.
        let _ = socket.set_nodelay(true);
        let _ = socket.set_write_timeout(Some(WRITE_LOOKS));
    }
    let link = Arc::new(Link {
        client,
        broker,
        dead: AtomicBool::new(false),
        deaf: AtomicBool::new(false),
        asked: Mutex::default(),
    });
    node.links
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Arc::downgrade(&link));
    if node.closed.load(Ordering::Acquire) {
        link.kill(true);
    }
    thread::scope(|scope| {
        for way in [Way::Up, Way::Down] {
            let (send, receive) = sync_channel(FRAMES_WAITING);
            let reader = Arc::clone(&link);
            let seed = number * 2 + u64::from(way == Way::Up);
            scope.spawn(move || Reading::new(way, &reader, node, seed).run(&send));
            let link = &link;
            scope.spawn(move || write(way, link, node, &receive));
        }
    });
}

/// The reading thread's side.
struct Reading<'a> {
    way: Way,
    link: &'a Link,
    node: &'a Node,
    random: Random,
    /// The last parcel's moment: order is kept.
    leaves_ns: u64,
    /// When the last answer came.
    answered_ns: u64,
}

impl<'a> Reading<'a> {
    fn new(way: Way, link: &'a Link, node: &'a Node, seed: u64) -> Self {
        Self {
            way,
            link,
            node,
            random: Random::new(seed),
            leaves_ns: 0,
            answered_ns: 0,
        }
    }

    fn run(mut self, out: &SyncSender<Parcel>) {
        loop {
            let mut frame = Vec::new();
            let whole = read_frame(self.link.socket(self.way, true), &mut frame);
            if self.link.is_dead() {
                return;
            }
            if !whole {
                // What came of it goes on; the writer's channel ends behind it.
                let leaves_ns = self.leaves_ns;
                let _ = out.send(Parcel {
                    bytes: frame,
                    leaves_ns,
                    last: false,
                });
                return;
            }
            if self.link.is_deaf() {
                continue;
            }
            for parcel in self.parcels(frame) {
                if out.send(parcel).is_err() {
                    return;
                }
            }
        }
    }

    /// What becomes of a frame.
    fn parcels(&mut self, mut bytes: Vec<u8>) -> Vec<Parcel> {
        let now = clock::now_ns();
        let (api, service_ns) = self.account(&bytes, now);
        let mut toxics = self.node.toxics();
        let mut delay = u64::try_from(toxics.latency.as_nanos()).unwrap_or(0);
        if !toxics.jitter.is_zero() {
            let jitter = usize::try_from(toxics.jitter.as_nanos()).unwrap_or(0);
            delay += self.random.below(jitter) as u64;
        }
        let slow = u64::from(toxics.slow.max(1)) - 1;
        let tricks = toxics.tricks_for(self.way, api);
        let slowed = slow > 0 && self.way == Way::Down;
        toxics.did.late += u64::from(delay > 0 || slowed);
        for does in &tricks {
            does.count(bytes.len(), &mut toxics.did);
        }
        drop(toxics);
        let mut leaves_ns = self.leaves_ns.max(now + delay);
        if slowed {
            leaves_ns = self.leaves_ns.max(now) + service_ns.max(SERVICE_NS_MIN) * slow;
        }
        let (mut copies, mut last) = (1, false);
        for does in tricks {
            match does {
                Does::Cut { at } => {
                    bytes.truncate(at);
                    last = true;
                }
                Does::Hold(time) => leaves_ns += u64::try_from(time.as_nanos()).unwrap_or(0),
                Does::Drop => copies = 0,
                Does::Repeat => copies = 2,
                Does::Flip { from_end, bit } => {
                    let at = bytes.len().checked_sub(from_end + 1);
                    if let Some(byte) = at.and_then(|at| bytes.get_mut(at)) {
                        *byte ^= 1 << (bit % 8);
                    }
                }
            }
        }
        self.leaves_ns = leaves_ns;
        (0..copies)
            .map(|_| Parcel {
                bytes: bytes.clone(),
                leaves_ns,
                last,
            })
            .collect()
    }

    /// The frame's API key, and for an answer how long the broker worked on it.
    fn account(&mut self, bytes: &[u8], now: u64) -> (i16, u64) {
        let mut asked = self
            .link
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match self.way {
            Way::Up => {
                let api = bytes
                    .get(4..6)
                    .map_or(-1, |key| i16::from_be_bytes([key[0], key[1]]));
                asked.push_back((api, now));
                (api, 0)
            }
            Way::Down => {
                let (api, since) = asked.pop_front().unwrap_or((-1, now));
                // It works on one at a time.
                let service_ns = now.saturating_sub(since.max(self.answered_ns));
                self.answered_ns = now;
                (api, service_ns)
            }
        }
    }
}

/// Reads a frame with its length in front. `false`: the stream ended; what came is in `frame`.
fn read_frame(mut from: &TcpStream, frame: &mut Vec<u8>) -> bool {
    let mut length = [0; 4];
    let mut chunk = [0; 64 << 10];
    let mut wanted = length.len();
    while frame.len() < wanted {
        let most = (wanted - frame.len()).min(chunk.len());
        match from.read(&mut chunk[..most]) {
            Ok(0) => return false,
            Ok(read) => frame.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return false,
        }
        if wanted == length.len() && frame.len() == wanted {
            length.copy_from_slice(&frame[..4]);
            // Memory grows with what comes, not with what is announced.
            match usize::try_from(i32::from_be_bytes(length)) {
                Ok(length) if length <= FRAME_BYTES_MAX => wanted += length,
                _ => return false,
            }
        }
    }
    true
}

fn write(way: Way, link: &Link, node: &Node, parcels: &Receiver<Parcel>) {
    let to = link.socket(way, false);
    for parcel in parcels {
        if !wait_until(way, parcel.leaves_ns, link, node) {
            return;
        }
        if link.is_deaf() {
            continue;
        }
        let (slice, bandwidth) = {
            let mut toxics = node.toxics();
            let sliced = toxics.slice > 0 && parcel.bytes.len() > toxics.slice;
            toxics.did.sliced += u64::from(sliced);
            (toxics.slice, toxics.bandwidth)
        };
        let mut piece = if slice == 0 {
            parcel.bytes.len()
        } else {
            slice
        };
        if bandwidth > 0 {
            // A fiftieth of a second's worth at a time.
            piece = piece.min(usize::try_from(bandwidth / 50).unwrap_or(usize::MAX));
        }
        for piece in parcel.bytes.chunks(piece.max(1)) {
            if !write_all(to, piece, link) {
                node.wake();
                return;
            }
            let takes_ns = (piece.len() as u64 * 1_000_000_000).checked_div(bandwidth);
            if let Some(takes_ns) = takes_ns
                && !wait_until(way, clock::now_ns() + takes_ns, link, node)
            {
                return;
            }
        }
        if parcel.last {
            link.kill(true);
            node.wake();
            return;
        }
    }
    // The other side sends no more: neither do we. A dead link closes by its own ways.
    if !link.is_dead() && !link.is_deaf() {
        let _ = to.shutdown(Shutdown::Write);
        if way == Way::Down {
            // The broker ended: there is nothing to ask any more.
            link.kill(false);
            node.wake();
        }
    }
}

/// Waits for the moment, and while bytes are held back. `false`: the link is dead.
fn wait_until(way: Way, moment_ns: u64, link: &Link, node: &Node) -> bool {
    let mut toxics = node.toxics();
    loop {
        if link.is_dead() {
            return false;
        }
        let now = clock::now_ns();
        toxics = if toxics.stalls(way) {
            node.changed
                .wait(toxics)
                .unwrap_or_else(PoisonError::into_inner)
        } else if now < moment_ns {
            let left = Duration::from_nanos(moment_ns - now);
            node.changed
                .wait_timeout(toxics, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        } else {
            return true;
        };
    }
}

fn write_all(mut to: &TcpStream, mut bytes: &[u8], link: &Link) -> bool {
    while !bytes.is_empty() {
        if link.is_dead() {
            return false;
        }
        match to.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => {
                link.kill(true);
                return false;
            }
        }
    }
    true
}
