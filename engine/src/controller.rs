//! The controller: names, metadata, producer ids.
//!
//! One unpinned thread with a connection of its own, so that no shard ever waits for a name or a
//! lookup; in embedded mode it is driven by the application's thread together with the shard. The
//! directory of the core decides; the controller carries out.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ringpost_core::allowed_hosts::AllowedHosts;
use ringpost_core::connection::ConnId;
use ringpost_core::directory::{Directory, DirectorySettings, Task};
use ringpost_core::time::Time;
use ringpost_memory::Piece;

use crate::driver::{Driver, Events, Frame, SocketOptions, Wait, Waker, clock};
use crate::resolver::{Lookup, Resolver};
use crate::shard::Command;
use crate::shared::Shared;

/// What the controller can be asked.
#[derive(Debug)]
pub(crate) enum Request {
    /// This topic is wanted.
    Want(Arc<str>),
    /// What is known proved wrong.
    Refresh,
    /// This shard wants a producer id.
    Identify(usize),
    /// Somebody waits for memory, with a deadline.
    Look,
    /// A name was looked up.
    Resolved {
        host: Arc<str>,
        port: u16,
        result: Result<Vec<SocketAddr>, String>,
    },
    /// End.
    Stop,
}

/// The way to the controller. Bounded: refreshes are one, and so are looks.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Mutex<VecDeque<Request>>,
    waker: Waker,
}

impl Inbox {
    pub(crate) fn new(waker: Waker) -> Self {
        Self {
            queue: Mutex::default(),
            waker,
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Request>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, request: Request) {
        let mut queue = self.queue();
        match request {
            Request::Refresh if queue.iter().any(|r| matches!(r, Request::Refresh)) => return,
            Request::Look if queue.iter().any(|r| matches!(r, Request::Look)) => return,
            request => queue.push_back(request),
        }
        drop(queue);
        self.waker.wake();
    }

    fn take(&self) -> Option<Request> {
        self.queue().pop_front()
    }
}

/// Whether names can be looked up.
#[derive(Debug)]
pub(crate) enum Names {
    /// By the system.
    System(Resolver),
    /// Not at all: addresses only.
    Refused,
}

/// See the module's doc.
pub(crate) struct Controller {
    pub(crate) directory: Directory,
    producer: Arc<Shared>,
    names: Names,
    stopped: bool,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Controller {
    pub(crate) fn new(
        settings: DirectorySettings,
        allowed_hosts: AllowedHosts,
        seed: u64,
        producer: Arc<Shared>,
        names: Names,
    ) -> Self {
        let directory = Directory::new(settings, seed).allow_only(allowed_hosts);
        Self {
            directory,
            producer,
            names,
            stopped: false,
        }
    }

    /// What it shares with the rest of the producer.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.producer)
    }

    /// The loop of a controller that has a thread of its own.
    pub(crate) fn run(mut self, mut driver: impl Driver, socket: &SocketOptions) -> io::Result<()> {
        loop {
            let now = clock::now();
            self.step(now, &mut driver, socket);
            if self.stopped {
                return Ok(());
            }
            let until = self.next_deadline();
            let wait = match until {
                Time::NEVER => Wait::Forever,
                until if until <= now => Wait::No,
                until => Wait::For(until.since(now)),
            };
            driver.turn(wait, &mut DirectoryEvents(&mut self.directory))?;
        }
    }

    /// When [`Controller::step`] must be called again.
    pub(crate) fn next_deadline(&self) -> Time {
        self.directory.next_deadline().min(self.patience_ends())
    }

    /// When the first of those who wait for room has waited long enough.
    pub(crate) fn patience_ends(&self) -> Time {
        let memory = self
            .producer
            .pool
            .next_deadline_ns()
            .map_or(Time::NEVER, Time);
        let room = self.producer.bulkhead.next_deadline();
        memory.min(room)
    }

    /// Takes requests, lets the directory decide, and does what it wants. Whether there was any of
    /// that.
    pub(crate) fn step(
        &mut self,
        now: Time,
        driver: &mut impl Driver,
        socket: &SocketOptions,
    ) -> bool {
        let mut busy = false;
        while let Some(request) = self.producer.inbox.take() {
            busy = true;
            match request {
                Request::Want(topic) => self.directory.want(now, &topic),
                Request::Refresh => self.directory.refresh(),
                Request::Identify(shard) => self.directory.identify(shard),
                Request::Look => self.producer.make_room(),
                Request::Resolved { host, port, result } => {
                    let result = result.as_deref().map_err(String::as_str);
                    self.directory.resolved(now, &host, port, result);
                }
                Request::Stop => self.stopped = true,
            }
        }
        self.producer.pool.expire(now.0);
        self.producer.bulkhead.expire(now);
        self.directory.step(now);
        while let Some(task) = self.directory.poll_task() {
            busy = true;
            self.perform(now, task, driver, socket);
        }
        busy
    }

    fn perform(&mut self, now: Time, task: Task, driver: &mut impl Driver, socket: &SocketOptions) {
        match task {
            Task::Resolve { host, port } => {
                if let Ok(ip) = host.parse() {
                    let address = [SocketAddr::new(ip, port)];
                    self.directory.resolved(now, &host, port, Ok(&address));
                } else if let Names::System(resolver) = &self.names {
                    resolver.ask(Lookup { host, port }, &self.producer);
                } else {
                    let refused = "embedded mode takes addresses, not names";
                    self.directory.resolved(now, &host, port, Err(refused));
                }
            }
            Task::Connect { conn, address } => driver.connect(conn, address, socket),
            Task::Send { conn, frame } => {
                driver.send(conn, vec![Piece::uncharged(Bytes::from(frame))]);
            }
            Task::Close { conn } => driver.close(conn),
            Task::Publish(cluster) => self.producer.publish(cluster),
            Task::Failed { topic, error } => self.producer.topic_failed(&topic, &error),
            Task::Identity { asker, result } => {
                if let Some(shard) = self.producer.shards.get(asker) {
                    shard.command(Command::Identity(result));
                }
            }
            // With `?`, which escapes: the ids are whatever a broker said.
            Task::ClusterChanged { from, to } => tracing::warn!(
                ?from,
                ?to,
                "another cluster answers at the known addresses; records may go where they should not"
            ),
            Task::HostRefused { host } => tracing::warn!(
                ?host,
                "the cluster names a broker at a host that is not among allowed_hosts; it is not connected to"
            ),
        }
    }
}

/// Passes the driver's reports on to the directory.
struct DirectoryEvents<'a>(&'a mut Directory);

impl Events for DirectoryEvents<'_> {
    fn connected(&mut self, conn: ConnId) {
        self.0.connected(conn);
    }

    fn connect_failed(&mut self, conn: ConnId, error: io::Error) {
        self.0
            .connect_failed(clock::now(), conn, &error.to_string());
    }

    fn sent(&mut self, _: ConnId, _: usize) {}

    fn released(&mut self, _: ConnId, _: Frame) {}

    fn received(&mut self, conn: ConnId, bytes: &[u8]) {
        self.0.received(clock::now(), conn, bytes);
    }

    fn closed(&mut self, conn: ConnId, error: Option<io::Error>) {
        let reason = error.map(|error| error.to_string());
        self.0.closed(clock::now(), conn, reason.as_deref());
    }
}
