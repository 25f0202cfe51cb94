//! A TCP proxy between a client and brokers that knows where Kafka's frames begin and end, and so
//! can cut one at a byte, hold an answer, repeat it, or make a broker ten times slower.
//!
//! Each route has a listening address, which the broker advertises as its own, and the broker's real
//! one; routes count from 1, as nodes do. Faults come as lines of text ([`Proxy::command`]), listed
//! in [`toxics`]. Two threads read and two write per connection: a delay must not keep the other
//! direction, nor what came before, waiting.
//!
//! What it cannot do: lose a part of a TCP stream and go on; `stall` holds it back instead, as
//! retransmissions would. Packets are dropped by nftables, in `scripts/chaos`. Requests with
//! `acks=0` have no answer and would confuse which answer belongs to which request.

mod link;
pub mod toxics;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use link::Link;
use toxics::{Command, CommandError, Effects, Fault, Toxics, Verb};

/// How long reaching a broker, or waking an accepting thread, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where connections come in and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// What the broker advertises.
    pub listen: SocketAddr,
    /// Where it really is.
    pub broker: SocketAddr,
}

impl std::str::FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (listen, broker) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not LISTEN=BROKER"))?;
        let address = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
        Ok(Self {
            listen: address(listen)?,
            broker: address(broker)?,
        })
    }
}

/// One route's state, shared by its threads.
#[derive(Debug)]
struct Node {
    broker: SocketAddr,
    toxics: Mutex<Toxics>,
    /// Toxics changed, a link ended.
    changed: Condvar,
    links: Mutex<Vec<Weak<Link>>>,
    closed: AtomicBool,
}

impl Node {
    fn toxics(&self) -> MutexGuard<'_, Toxics> {
        self.toxics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> Vec<Arc<Link>> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|link| link.strong_count() > 0);
        links.iter().filter_map(Weak::upgrade).collect()
    }

    /// Wakes every thread that waits for a time or a change.
    fn wake(&self) {
        let toxics = self.toxics();
        self.changed.notify_all();
        drop(toxics);
    }
}

/// A running proxy. Dropping it ends all connections and threads.
#[derive(Debug)]
pub struct Proxy {
    nodes: Vec<Arc<Node>>,
    addresses: Vec<SocketAddr>,
    acceptors: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on every route. Port 0 takes a free one; see [`Proxy::addresses`].
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub fn start(routes: &[Route]) -> io::Result<Self> {
        let mut proxy = Self {
            nodes: Vec::new(),
            addresses: Vec::new(),
            acceptors: Vec::new(),
        };
        for route in routes {
            let listener = TcpListener::bind(route.listen)?;
            proxy.addresses.push(listener.local_addr()?);
            let node = Arc::new(Node {
                broker: route.broker,
                toxics: Mutex::default(),
                changed: Condvar::new(),
                links: Mutex::default(),
                closed: AtomicBool::new(false),
            });
            proxy.nodes.push(Arc::clone(&node));
            let accepting = thread::spawn(move || accept(&listener, &node));
            proxy.acceptors.push(accepting);
        }
        Ok(proxy)
    }

    /// Where it listens, route by route.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// How many connections there are through a route, counted from 1.
    #[must_use]
    pub fn connections(&self, node: usize) -> usize {
        self.nodes.get(node - 1).map_or(0, |node| {
            node.links().iter().filter(|link| !link.is_dead()).count()
        })
    }

    /// What faults did to a route so far, counted from 1, without clearing it.
    #[must_use]
    pub fn did(&self, node: usize) -> Effects {
        self.nodes
            .get(node - 1)
            .map(|node| node.toxics().did)
            .unwrap_or_default()
    }

    /// Does what a line says. See [`toxics`]. Of what it cleared it returns what that had done.
    ///
    /// # Errors
    /// When the line is not understood.
    pub fn command(&self, line: &str) -> Result<Option<Effects>, CommandError> {
        let Command { node, verb } = line.parse()?;
        let nodes = match node {
            None => &self.nodes[..],
            Some(number) => number
                .checked_sub(1)
                .and_then(|index| self.nodes.get(index..=index))
                .ok_or(CommandError::NoSuchNode(number))?,
        };
        let mut cleared = None;
        for node in nodes {
            match &verb {
                Verb::Set(set) => node.toxics().set(*set),
                Verb::Trick(trick) => node.toxics().tricks.push(trick.clone()),
                Verb::Clear => {
                    let did = std::mem::take(&mut *node.toxics()).did;
                    *cleared.get_or_insert_default() += did;
                }
                Verb::Break(fault) => {
                    for link in node.links() {
                        node.toxics().did.broken += u64::from(!link.is_dead());
                        match fault {
                            Fault::Reset => link.kill(true),
                            Fault::Close => link.kill(false),
                            Fault::HalfOpen => link.go_deaf(),
                        }
                    }
                }
            }
            node.wake();
        }
        Ok(cleared)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for (node, address) in self.nodes.iter().zip(&self.addresses) {
            node.closed.store(true, Ordering::Release);
            for link in node.links() {
                link.kill(true);
            }
            node.wake();
            // Wakes the accepting thread; if this fails it is not waiting.
            let _ = TcpStream::connect_timeout(address, CONNECT_TIMEOUT);
        }
        for accepting in self.acceptors.drain(..) {
            // A panic of it has been printed.
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, node: &Arc<Node>) {
    let mut number = 0;
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for client in listener.incoming() {
        if node.closed.load(Ordering::Acquire) {
            break;
        }
        let Ok(client) = client else { continue };
        number += 1;
        let node = Arc::clone(node);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread::spawn(move || link::serve(client, &node, number)));
    }
    for link in node.links() {
        link.kill(true);
    }
    node.wake();
    for thread in threads {
        let _ = thread.join();
    }
}
