//! A TCP server around a [`Broker`]: one thread per connection, blocking reads into the session's
//! own inbox, one lock around the broker's state.
//!
//! Why threads: a benchmark has a handful of connections, and a blocking read is the shortest way
//! from the wire to the session (no readiness call in between). Batches are examined and copied
//! outside the lock, so connections disturb each other for the bookkeeping of a request only.
//!
//! Ending: [`Server::shutdown`] (and dropping it) closes every socket, which ends every thread, and
//! joins them. No thread waits for anything else than its socket or the condition variable that
//! shutdown signals; one that is to end is told so by its own flag, whatever it holds back.
//!
//! A server may have several nodes, each with its own port: one cluster, one state. Nodes can be
//! killed, paused, made slow and started again; the controller's clock is the wall clock.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::broker::{Broker, Shared};
use crate::clock;
use crate::config::{BrokerConfig, Keep, Mode, Node};
use crate::report::Report;
use crate::session::{Closed, Progress, Session};

/// Reasons of ended connections that are remembered.
const CLOSINGS_MAX: usize = 64;
/// An answer buffer larger than this is not kept between requests.
const OUT_KEPT_MAX: usize = 4 << 20;
/// `accept` may fail so often in a row before a node gives up listening.
const ACCEPT_ERRORS_MAX: u32 = 1000;
/// How long waking an accepting thread may take at shutdown. Locally it takes microseconds.
const WAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where and how a [`Server`] listens.
///
/// ```
/// use ringpost_broker::{BrokerConfig, Keep, Server, ServerConfig};
/// let server = Server::start(ServerConfig {
///     nodes: 3,
///     broker: BrokerConfig { keep: Keep::Everything, ..BrokerConfig::default() },
///     ..ServerConfig::default()
/// })?;
/// assert_eq!(server.bootstrap().split(',').count(), 3);
/// server.shutdown();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The first node's address; port 0 takes a free one. Further nodes take the ports behind it,
    /// or free ones.
    pub listen: SocketAddr,
    /// The host that clients are told to connect to; without it the one listened on, which other
    /// machines cannot use if it is `0.0.0.0`.
    pub advertise: Option<String>,
    /// How many nodes, with ids from 1.
    pub nodes: u16,
    /// The CPU every thread is pinned to.
    pub pin_cpu: Option<usize>,
    /// Most connections at a time; a further one is closed at once.
    pub connections_max: usize,
    /// Everything else; its `nodes` are set by the server.
    pub broker: BrokerConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            advertise: None,
            nodes: 1,
            pin_cpu: None,
            connections_max: 1024,
            broker: BrokerConfig::default(),
        }
    }
}

impl ServerConfig {
    /// The default with another mode.
    #[must_use]
    pub fn with_mode(mode: Mode) -> Self {
        let keep = if mode == Mode::Ack {
            Keep::Nothing
        } else {
            Keep::default()
        };
        Self {
            broker: BrokerConfig {
                mode,
                keep,
                ..BrokerConfig::default()
            },
            ..Self::default()
        }
    }

    /// The default, but everything is kept, so that it can be read back from offset 0.
    #[must_use]
    pub fn storing() -> Self {
        let broker = BrokerConfig {
            keep: Keep::Everything,
            ..BrokerConfig::default()
        };
        Self {
            broker,
            ..Self::default()
        }
    }
}

/// One connection, as the server sees it.
#[derive(Debug)]
struct Connection {
    node: usize,
    stream: TcpStream,
    /// Its thread is to end.
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct NodeState {
    id: i32,
    addr: SocketAddr,
    stopped: AtomicBool,
    paused: AtomicBool,
}

/// What all threads share.
#[derive(Debug)]
struct Inner {
    broker: Mutex<Broker>,
    nodes: Vec<NodeState>,
    stop: AtomicBool,
    /// Counts appends and state changes, so that a held Fetch misses none.
    changes: AtomicU64,
    /// Threads at the condition variable.
    waiting: AtomicUsize,
    gate: Mutex<()>,
    changed: Condvar,
    connections: Mutex<BTreeMap<u64, Connection>>,
    connections_max: usize,
    next_connection: AtomicU64,
    closings: Mutex<VecDeque<Closed>>,
    pin_cpu: Option<usize>,
    pin_failed: AtomicBool,
}

/// A broker that listens. See [`ServerConfig`] for an example.
#[derive(Debug)]
pub struct Server {
    inner: Arc<Inner>,
    acceptors: Mutex<Vec<Option<JoinHandle<()>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A connection's thread that panicked has ended its connection; the others go on.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Listens and answers until it is shut down or dropped.
    ///
    /// # Errors
    /// When an address cannot be listened on or a thread not started.
    pub fn start(config: ServerConfig) -> io::Result<Self> {
        let ServerConfig {
            listen,
            advertise,
            nodes,
            pin_cpu,
            connections_max,
            mut broker,
        } = config;
        let mut listeners = Vec::new();
        for offset in 0..nodes.max(1) {
            let port = match listen.port() {
                0 => 0,
                port => port.checked_add(offset).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidInput, "no port left for a node")
                })?,
            };
            listeners.push(TcpListener::bind(SocketAddr::new(listen.ip(), port))?);
        }
        broker.nodes.clear();
        let mut states = Vec::new();
        for (id, listener) in (1..).zip(&listeners) {
            let addr = listener.local_addr()?;
            let told = reachable(addr);
            broker.nodes.push(Node {
                id,
                host: advertise.clone().unwrap_or_else(|| told.ip().to_string()),
                port: told.port(),
            });
            states.push(NodeState {
                id,
                addr,
                stopped: AtomicBool::new(false),
                paused: AtomicBool::new(false),
            });
        }
        let inner = Arc::new(Inner {
            broker: Mutex::new(Broker::new(broker)),
            nodes: states,
            stop: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            gate: Mutex::new(()),
            changed: Condvar::new(),
            connections: Mutex::new(BTreeMap::new()),
            connections_max,
            next_connection: AtomicU64::new(0),
            closings: Mutex::new(VecDeque::new()),
            pin_cpu,
            pin_failed: AtomicBool::new(false),
        });
        let server = Self {
            inner,
            acceptors: Mutex::new(Vec::new()),
        };
        for (node, listener) in listeners.into_iter().enumerate() {
            let thread = spawn_acceptor(&server.inner, node, listener)?;
            lock(&server.acceptors).push(Some(thread));
        }
        Ok(server)
    }

    /// The first node's address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.inner.nodes[0].addr
    }

    /// Every node's address, as clients want it: `host:port,host:port`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let nodes: Vec<String> = self
            .inner
            .nodes
            .iter()
            .map(|n| reachable(n.addr).to_string())
            .collect();
        nodes.join(",")
    }

    /// What came in so far.
    #[must_use]
    pub fn report(&self) -> Report {
        lock(&self.inner.broker).report()
    }

    /// Lets `act` at the broker's state: topics, leaders, the script of faults. Every connection
    /// waits meanwhile.
    pub fn with<R>(&self, act: impl FnOnce(&mut Broker) -> R) -> R {
        let result = (&self.inner.broker).with(|broker| {
            broker.tick(clock::now_ms());
            act(broker)
        });
        self.inner.announce();
        result
    }

    /// Why connections were ended by the broker, the latest 64, oldest first.
    #[must_use]
    pub fn closings(&self) -> Vec<Closed> {
        lock(&self.inner.closings).iter().cloned().collect()
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        let connections = lock(&self.inner.connections);
        let alive = |c: &&Connection| c.thread.as_ref().is_none_or(|t| !t.is_finished());
        connections.values().filter(alive).count()
    }

    /// Whether every thread started so far runs on the CPU it was told to.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.inner.pin_cpu.is_some() && !self.inner.pin_failed.load(Ordering::Relaxed)
    }

    /// Stops a node as if it had been killed: its port is closed, its connections end. The others
    /// do not know until [`Broker::set_node_up`] and [`Broker::move_leader`] tell them.
    pub fn stop_node(&self, node_id: i32) {
        let Some(node) = self.node(node_id) else {
            return;
        };
        self.inner.nodes[node].stopped.store(true, Ordering::SeqCst);
        self.inner.announce();
        self.end_acceptor(node);
        self.inner.end_connections(|c| c.node == node);
    }

    /// Kills a node: as [`Server::stop_node`], and the controller notices after
    /// `session_ms` ([`Broker::crash_node`]): then others lead.
    pub fn kill_node(&self, node_id: i32) {
        self.with(|broker| broker.crash_node(node_id));
        self.stop_node(node_id);
    }

    /// Ends a node in good order: others lead before its port is closed
    /// ([`Broker::shutdown_node`]).
    pub fn shutdown_node(&self, node_id: i32) {
        self.with(|broker| broker.shutdown_node(node_id));
        self.stop_node(node_id);
    }

    /// Makes a node take so many ms for each request, one after the other per connection; 0 ends
    /// that.
    pub fn slow_node(&self, node_id: i32, delay_ms: i64) {
        self.with(|broker| broker.faults().slow_node(node_id, delay_ms));
    }

    /// Starts a stopped node again, on its old port.
    ///
    /// # Errors
    /// When somebody has taken the port meanwhile.
    pub fn start_node(&self, node_id: i32) -> io::Result<()> {
        let Some(node) = self.node(node_id) else {
            return Ok(());
        };
        let state = &self.inner.nodes[node];
        if !state.stopped.load(Ordering::SeqCst) {
            return Ok(());
        }
        let listener = TcpListener::bind(state.addr)?;
        self.with(|broker| broker.restart_ended(node_id));
        state.stopped.store(false, Ordering::SeqCst);
        let thread = spawn_acceptor(&self.inner, node, listener)?;
        lock(&self.acceptors)[node] = Some(thread);
        Ok(())
    }

    /// Lets a node fall silent (its sockets stay open, nothing is read or answered), as after
    /// SIGSTOP, or speak again. The controller notices after `session_ms`
    /// ([`Broker::pause_node`]).
    pub fn pause_node(&self, node_id: i32, paused: bool) {
        let Some(node) = self.node(node_id) else {
            return;
        };
        self.inner.nodes[node]
            .paused
            .store(paused, Ordering::SeqCst);
        self.with(|broker| broker.pause_node(node_id, paused));
    }

    /// Ends every connection to a node; it goes on listening.
    pub fn drop_connections(&self, node_id: i32) {
        let Some(node) = self.node(node_id) else {
            return;
        };
        self.inner.end_connections(|c| c.node == node);
    }

    /// Ends every thread and returns the final report. Dropping the server does the same.
    pub fn shutdown(self) -> Report {
        self.end();
        self.report()
    }

    fn node(&self, node_id: i32) -> Option<usize> {
        self.inner.nodes.iter().position(|n| n.id == node_id)
    }

    fn end(&self) {
        self.inner.stop.store(true, Ordering::SeqCst);
        self.inner.announce();
        for node in 0..self.inner.nodes.len() {
            self.end_acceptor(node);
        }
        self.inner.end_connections(|_| true);
    }

    fn end_acceptor(&self, node: usize) {
        let thread = lock(&self.acceptors).get_mut(node).and_then(Option::take);
        if let Some(thread) = thread {
            // `accept` returns for this connection, or for one queued before it; either way the
            // thread then sees the flag. A network that loses packets can lose this one.
            let addr = reachable(self.inner.nodes[node].addr);
            while !thread.is_finished() && TcpStream::connect_timeout(&addr, WAKE_TIMEOUT).is_err()
            {
            }
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// An address to connect to for one that is listened on.
fn reachable(addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        return SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), addr.port());
    }
    addr
}

fn spawn_acceptor(
    inner: &Arc<Inner>,
    node: usize,
    listener: TcpListener,
) -> io::Result<JoinHandle<()>> {
    let inner = Arc::clone(inner);
    let name = format!("broker-{}-accept", inner.nodes[node].id);
    thread::Builder::new()
        .name(name)
        .spawn(move || accept(&inner, node, &listener))
}

fn accept(inner: &Arc<Inner>, node: usize, listener: &TcpListener) {
    inner.pin();
    let mut errors = 0;
    while errors < ACCEPT_ERRORS_MAX {
        let accepted = listener.accept();
        if inner.is_stopped(node) {
            return;
        }
        match accepted.and_then(|(stream, _)| inner.adopt(node, stream)) {
            Ok(()) => errors = 0,
            Err(_) => errors += 1,
        }
    }
}

impl Inner {
    fn pin(&self) {
        let Some(id) = self.pin_cpu else { return };
        if !core_affinity::set_for_current(core_affinity::CoreId { id }) {
            self.pin_failed.store(true, Ordering::Relaxed);
        }
    }

    fn is_stopped(&self, node: usize) -> bool {
        self.stop.load(Ordering::SeqCst) || self.nodes[node].stopped.load(Ordering::SeqCst)
    }

    /// Gives a connection its thread.
    fn adopt(self: &Arc<Self>, node: usize, stream: TcpStream) -> io::Result<()> {
        let mut connections = lock(&self.connections);
        let ended: Vec<u64> = connections
            .iter()
            .filter(|(_, c)| c.thread.as_ref().is_some_and(JoinHandle::is_finished))
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            if let Some(thread) = connections.remove(&id).and_then(|c| c.thread) {
                let _ = thread.join();
            }
        }
        if connections.len() >= self.connections_max {
            return stream.shutdown(Shutdown::Both);
        }
        stream.set_nodelay(true)?;
        let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let inner = Arc::clone(self);
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let own = stream.try_clone()?;
        let name = format!("broker-{}-{id}", self.nodes[node].id);
        let thread = thread::Builder::new().name(name).spawn(move || {
            inner.pin();
            if let Err(Ended::ByBroker(why)) = inner.serve(node, &told, &own) {
                let mut closings = lock(&inner.closings);
                if closings.len() == CLOSINGS_MAX {
                    closings.pop_front();
                }
                closings.push_back(why);
            }
            // The registry holds a second handle: closing this one alone would not tell the client.
            let _ = own.shutdown(Shutdown::Both);
        })?;
        connections.insert(
            id,
            Connection {
                node,
                stream,
                over,
                thread: Some(thread),
            },
        );
        Ok(())
    }

    fn end_connections(&self, which: impl Fn(&Connection) -> bool) {
        let mut ended = Vec::new();
        {
            let mut connections = lock(&self.connections);
            for connection in connections.values_mut().filter(|c| which(c)) {
                connection.over.store(true, Ordering::SeqCst);
                let _ = connection.stream.shutdown(Shutdown::Both);
                ended.extend(connection.thread.take());
            }
            connections.retain(|_, c| c.thread.is_some());
        }
        self.announce();
        for thread in ended {
            let _ = thread.join();
        }
    }

    /// Tells threads that wait to look again.
    fn announce(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.gate));
            self.changed.notify_all();
        }
    }

    /// Waits until something changed since `seen`, or `until_ms`.
    fn wait(&self, seen: u64, until_ms: Option<i64>) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut gate = lock(&self.gate);
        while self.changes.load(Ordering::SeqCst) == seen && !self.stop.load(Ordering::SeqCst) {
            let Some(until_ms) = until_ms else {
                gate = self
                    .changed
                    .wait(gate)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = u64::try_from(until_ms - clock::now_ms()).unwrap_or(0);
            if left == 0 {
                break;
            }
            let waited = self.changed.wait_timeout(gate, Duration::from_millis(left));
            gate = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(gate);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// While its node is paused, a connection does nothing.
    fn wait_while_paused(&self, node: usize, over: &AtomicBool) {
        loop {
            let seen = self.changes.load(Ordering::SeqCst);
            let ends = self.is_stopped(node) || over.load(Ordering::SeqCst);
            if !self.nodes[node].paused.load(Ordering::SeqCst) || ends {
                return;
            }
            self.wait(seen, None);
        }
    }

    fn serve(&self, node: usize, over: &AtomicBool, mut stream: &TcpStream) -> Result<(), Ended> {
        let mut session: Session = lock(&self.broker).session(self.nodes[node].id);
        let mut out = Vec::new();
        loop {
            let n = match stream.read(session.space()) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(Ended::ByNetwork),
            };
            session.filled(n);
            loop {
                self.wait_while_paused(node, over);
                // Before the flags are looked at: what is announced after them is not missed.
                let seen = self.changes.load(Ordering::SeqCst);
                if self.is_stopped(node) || over.load(Ordering::SeqCst) {
                    return Ok(());
                }
                let progress = session.advance(&mut &self.broker, clock::now_ms(), &mut out);
                if session.took_records() {
                    self.announce();
                }
                if !out.is_empty() {
                    stream.write_all(&out).map_err(|_| Ended::ByNetwork)?;
                    out.clear();
                    out.shrink_to(OUT_KEPT_MAX);
                }
                match progress.map_err(Ended::ByBroker)? {
                    Progress::NeedsBytes => break,
                    Progress::SendFirst => {}
                    Progress::Held { until_ms } => self.wait(seen, Some(until_ms)),
                }
            }
        }
    }
}

/// How a connection ended, other than by the client closing it.
enum Ended {
    ByNetwork,
    ByBroker(Closed),
}
