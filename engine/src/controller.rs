//! The controller: names, metadata, producer ids.
//!
//! One unpinned thread with a connection of its own, so that no shard ever waits for a name or a
//! lookup; in embedded mode it is driven by the application's thread together with the shard. The
//! directory of the core decides; the controller carries out.

use std::collections::BTreeSet;
use std::io;
use std::mem;
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
    Resolved(Resolved),
    /// End.
    Stop,
}

/// What became of looking a name up.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    pub(crate) result: Result<Vec<SocketAddr>, String>,
}

/// The way to the controller. What is asked again before it was taken is asked once, so it is no longer
/// than there are topics and shards, also when nobody takes from it for long.
#[derive(Debug)]
pub(crate) struct Inbox {
    requests: Mutex<Requests>,
    waker: Waker,
}

/// What was asked.
#[derive(Debug, Default)]
struct Requests {
    wanted: BTreeSet<Arc<str>>,
    refresh: bool,
    identify: BTreeSet<usize>,
    look: bool,
    /// One for each that the directory asked for.
    resolved: Vec<Resolved>,
    stop: bool,
}

impl Requests {
    fn is_empty(&self) -> bool {
        let flags = self.refresh || self.look || self.stop;
        !flags && self.wanted.is_empty() && self.identify.is_empty() && self.resolved.is_empty()
    }
}

impl Inbox {
    pub(crate) fn new(waker: Waker) -> Self {
        Self {
            requests: Mutex::default(),
            waker,
        }
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, request: Request) {
        let mut requests = self.requests();
        let is_new = match request {
            Request::Want(topic) => requests.wanted.insert(topic),
            Request::Refresh => !mem::replace(&mut requests.refresh, true),
            Request::Identify(shard) => requests.identify.insert(shard),
            Request::Look => !mem::replace(&mut requests.look, true),
            Request::Resolved(resolved) => {
                requests.resolved.push(resolved);
                true
            }
            Request::Stop => !mem::replace(&mut requests.stop, true),
        };
        drop(requests);
        if is_new {
            self.waker.wake();
        }
    }

    fn take_all(&self) -> Requests {
        mem::take(&mut self.requests())
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

    /// Takes the requests there are, lets the directory decide, and does what it wants. Whether there was
    /// any of that. What is asked meanwhile is for the next step: who asks again and again must not keep
    /// others' time from ending.
    pub(crate) fn step(
        &mut self,
        now: Time,
        driver: &mut impl Driver,
        socket: &SocketOptions,
    ) -> bool {
        let requests = self.producer.inbox.take_all();
        let mut busy = !requests.is_empty();
        for topic in requests.wanted {
            self.directory.want(now, &topic);
        }
        if requests.refresh {
            self.directory.refresh();
        }
        for shard in requests.identify {
            self.directory.identify(shard);
        }
        for Resolved { host, port, result } in requests.resolved {
            let result = result.as_deref().map_err(String::as_str);
            self.directory.resolved(now, &host, port, result);
        }
        self.stopped |= requests.stop;
        self.producer.pool.expire(now.0);
        self.producer.bulkhead.expire(now);
        if requests.look {
            self.producer.make_room();
        }
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

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use ringpost_core::id::TopicId;
    use ringpost_core::metadata::{Cluster, Partition, Topic};

    use super::*;
    use crate::driver::EpollDriver;
    use crate::producer::Producer;

    fn controller() -> (EpollDriver, Arc<Shared>, Controller) {
        let builder = Producer::builder().bootstrap("127.0.0.1:1");
        let driver = EpollDriver::new().expect("epoll");
        let (inbox, wakers) = (Inbox::new(driver.waker()), vec![driver.waker()]);
        let shared = builder.shared(inbox, wakers).expect("memory");
        let (settings, own) = (builder.directory_settings(), Arc::clone(&shared));
        let controller = Controller::new(settings, AllowedHosts::default(), 1, own, Names::Refused);
        (driver, shared, controller)
    }

    /// A step ends, and with it waits whose time is over, while another thread asks without end.
    #[test]
    fn g2_who_asks_again_and_again_keeps_no_wait_from_ending() {
        const ASKED_MAX: u32 = u32::MAX;
        let (mut driver, shared, mut controller) = controller();
        // What is done for who waits for memory takes its time with so many lanes.
        let topic = Topic {
            name: "t".into(),
            id: TopicId([0; 16]),
            partitions: (0..5000)
                .map(|_| Partition {
                    leader: None,
                    leader_epoch: 0,
                })
                .collect(),
        };
        shared.publish(Arc::new(Cluster {
            topics: [(Arc::clone(&topic.name), Arc::new(topic))].into(),
            ..Cluster::default()
        }));
        let pool = &shared.pool;
        let _all = pool.try_charge(pool.budget()).expect("it is free");
        let _waits = pool.take(1, u64::MAX);
        let socket = Producer::builder().socket_options();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let asker = scope.spawn(|| {
                let asks = (0..ASKED_MAX).take_while(|_| !stop.load(Ordering::Relaxed));
                asks.map(|_| shared.inbox.put(Request::Look)).count()
            });
            while !shared.inbox.requests().look {
                thread::yield_now();
            }
            for _ in 0..10 {
                controller.step(clock::now(), &mut driver, &socket);
            }
            stop.store(true, Ordering::Relaxed);
            let asked = asker.join().expect("no panic");
            assert!(asked < ASKED_MAX as usize, "a step lasted as long as that");
        });
    }

    /// Of a topic that is asked for a thousand times before anybody takes it, one request is there.
    #[test]
    fn what_is_asked_again_is_asked_once() {
        let (_driver, shared, _controller) = controller();
        for n in 0..1000 {
            shared.inbox.put(Request::Want(["a", "b"][n % 2].into()));
            shared.inbox.put(Request::Identify(0));
            shared.inbox.put(Request::Refresh);
        }
        let requests = shared.inbox.take_all();
        assert_eq!((requests.wanted.len(), requests.identify.len()), (2, 1));
        assert!(requests.refresh && !requests.look && !requests.stop);
        assert!(shared.inbox.take_all().wanted.is_empty());
    }
}
