//! The producer: started from a configuration, shared by threads, closed with a deadline.

use std::fmt;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use ringpost_memory::Pool;

use crate::avoidance::Avoidance;
use crate::bulkhead::Bulkhead;
use crate::completions::CompletionQueue;
use crate::config::{Builder, ConfigError, ConfigErrors, WaitPolicy};
use crate::controller::{Controller, Inbox, Names};
use crate::delivery::block_on;
use crate::driver::{
    ChosenDriver, Driver, DriverChoice, DriverKind, EpollDriver, RingDriver, SocketOptions, Waker,
    clock,
};
use crate::error::{FlushTimeout, StartError, TopicError, WarmUpError};
use crate::flush::Flush;
use crate::hook::Hook;
use crate::panics::Panics;
use crate::placement::{self, Place};
use crate::purge::{Purge, Purging};
use crate::resolver::Resolver;
use crate::shard::{Command, Shard, ShardSettings, ShardShared};
use crate::shared::{Routing, Shared, SharedParts};
use crate::stats::{Settled, Stats};
use crate::topic::Topic;
use crate::warm_up::{Duty, Warm, WarmUp};

/// A producer. `Send + Sync + Clone`; clones are the same producer.
///
/// ```no_run
/// use ringpost::{Producer, Record};
/// let producer = Producer::builder().bootstrap("127.0.0.1:9092").build()?;
/// let topic = producer.topic_blocking("orders")?;
/// let outcome = topic.send_blocking(Record::value(b"hello"))?.wait();
/// println!("{outcome:?}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Dropping the last clone never blocks: what is not settled then ends as `NotWritten` or
/// `Unknown`, and goes to [`on_undelivered`](Builder::on_undelivered). To wait, call
/// [`Producer::close`].
///
/// *Fork.* A child process of a fork must not use a producer made before it: threads and rings do
/// not survive a fork. It may drop it.
#[derive(Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

/// What lives as long as a clone of the producer.
struct Handle {
    shared: Arc<Shared>,
    driver: ChosenDriver,
    /// Joined from the back: shards, controller, hook.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The shards' threads and the controller's.
    settling: Vec<ThreadId>,
    /// The thread that runs `on_undelivered`, if there is one.
    hook: Option<ThreadId>,
    /// The process that made it: a forked child must leave the parent's descriptors alone.
    process: u32,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("driver", &self.handle.driver.kind)
            .finish_non_exhaustive()
    }
}

/// How a producer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseReport {
    /// Everything was settled before the deadline.
    pub in_time: bool,
    /// Records acknowledged, over the producer's life (sent ones with `acks=0`).
    pub records_acked: u64,
    /// Records certainly not written, over its life.
    pub records_not_written: u64,
    /// Records of unknown fate, over its life.
    pub records_unknown: u64,
}

impl Producer {
    /// A configuration in the making.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A topic, once its partitions are known: the only wait for metadata there is.
    ///
    /// # Errors
    /// When no broker can be asked within `connect_timeout` (up to six times that, while addresses
    /// that stay silent keep others from being tried), the cluster does not know the topic
    /// within `topic_timeout`, or refuses it.
    pub async fn topic(&self, name: &str) -> Result<Topic, TopicError> {
        let state = self.handle.shared.topic(name).await?;
        Ok(Topic::new(state, Arc::clone(&self.handle.shared)))
    }

    /// [`Producer::topic`], blocking the thread.
    ///
    /// # Errors
    /// As [`Producer::topic`].
    pub fn topic_blocking(&self, name: &str) -> Result<Topic, TopicError> {
        block_on(self.topic(name))
    }

    /// Does everything beforehand that a first record would have to wait for: metadata, connections
    /// to all leaders, producer ids.
    ///
    /// # Errors
    /// When a topic cannot be used, or a leader cannot be reached within `connect_timeout`.
    pub async fn warm_up(&self, topics: &[&str]) -> Result<(), WarmUpError> {
        for topic in topics {
            self.topic(topic).await?;
        }
        let shared = &self.handle.shared;
        let deadline = clock::now() + shared.connect_timeout;
        let waits: Vec<_> = shared
            .shards
            .iter()
            .map(|_| WarmUp::new(deadline))
            .collect();
        for (shard, wait) in shared.shards.iter().zip(&waits) {
            shard.command(Command::WarmUp(Duty(Arc::clone(wait))));
        }
        let mut all_warm = true;
        for wait in waits {
            all_warm &= Warm(wait).await;
        }
        if all_warm {
            Ok(())
        } else if shared.is_closed() {
            Err(TopicError::Closed.into())
        } else {
            Err(WarmUpError::TimedOut {
                waited: shared.connect_timeout,
            })
        }
    }

    /// [`Producer::warm_up`], blocking the thread.
    ///
    /// # Errors
    /// As [`Producer::warm_up`].
    pub fn warm_up_blocking(&self, topics: &[&str]) -> Result<(), WarmUpError> {
        block_on(self.warm_up(topics))
    }

    /// The outcomes of records sent with `enqueue`.
    #[must_use]
    pub fn completions(&self) -> &CompletionQueue {
        &self.handle.shared.completions
    }

    /// Waits until all that was accepted before the call is settled. Does not linger. Bounded by
    /// the delivery timeout; records sent meanwhile do not prolong it.
    pub fn flush(&self) -> Flush {
        self.handle.shared.flush()
    }

    /// [`Producer::flush`], blocking the thread for at most `timeout`; not at all when a waker calls
    /// it, which runs on a thread that settles records.
    ///
    /// # Errors
    /// When not everything was settled in time. It goes on all the same.
    pub fn flush_blocking(&self, timeout: Duration) -> Result<(), FlushTimeout> {
        self.handle.flush(timeout)
    }

    /// Gives up records that were accepted before the call and are not settled: those that wait, or
    /// also those in flight. Each ends with [`Why::Purged`](crate::Why::Purged): as `NotWritten`
    /// when it is certain that no broker stored it, else as `Unknown`. The producer goes on; what is
    /// sent later is neither lost nor doubled by it.
    ///
    /// Does not block, so any thread and any callback may call it. The result is ready when the
    /// outcomes are there.
    ///
    /// ```no_run
    /// # use ringpost::{Producer, Purge};
    /// # let producer = Producer::builder().bootstrap("127.0.0.1:9092").build()?;
    /// // The data is stale: whatever waits is not worth sending any more.
    /// producer.purge(Purge::Queued).wait();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn purge(&self, which: Purge) -> Purging {
        self.handle.shared.purge(which, None)
    }

    /// Takes no more records, waits until all is settled, at most for `timeout`, ends what is not
    /// as `NotWritten` or `Unknown`, and ends all threads. Any thread may call it, any number of
    /// times; of several calls at a time the shortest `timeout` counts.
    ///
    /// It also waits until `on_undelivered` was told of everything. Called by that, it cannot wait
    /// for its own thread, which then ends after it. Called by a waker, which runs on a thread that
    /// settles records, it waits for nothing: what is not settled ends, and the threads end, when the
    /// waker returns.
    pub fn close(&self, timeout: Duration) -> CloseReport {
        self.handle.shared.close();
        let in_time = self.handle.flush(timeout).is_ok();
        self.handle.shared.end();
        self.handle.stop_shards();
        self.handle.join();
        let total = self.stats().total();
        CloseReport {
            in_time,
            records_acked: total.records_acked + total.records_sent,
            records_not_written: total.records_not_written,
            records_unknown: total.records_unknown,
        }
    }

    /// A producer whose shard and controller are driven by somebody else.
    pub(crate) fn without_threads(shared: Arc<Shared>, driver: ChosenDriver) -> Self {
        let process = std::process::id();
        let handle = Handle {
            shared,
            driver,
            threads: Mutex::default(),
            settling: Vec::new(),
            hook: None,
            process,
        };
        Self {
            handle: Arc::new(handle),
        }
    }

    /// What its parts share.
    #[cfg(all(test, not(loom), not(shuttle)))]
    pub(crate) fn shared_for_tests(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// How records ended so far: a few loads, where [`Producer::stats`] copies histograms.
    #[must_use]
    pub fn settled(&self) -> Settled {
        let mut sum = Settled::default();
        for shard in &self.handle.shared.shards {
            shard.counters.add_settled(&mut sum);
        }
        sum
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.handle.shared;
        let of_letters = |what: fn(&Pool) -> usize| shared.letter_pool.as_ref().map_or(0, what);
        Stats {
            driver: self.handle.driver.kind.name(),
            driver_reason: self.handle.driver.reason.clone(),
            memory_in_use: shared.pool.in_use() + of_letters(Pool::in_use),
            memory_high_water: shared.pool.high_water() + of_letters(Pool::high_water),
            memory_waiters: shared.pool.waiting(),
            memory_held_back: shared.bulkhead.held(),
            dead_letters: shared.reports.dead_letters(),
            undelivered_dropped: shared.reports.dropped(),
            callback_panics: shared.callback_panics.counted()
                + shared.pool.caught_panics()
                + shared.letter_pool.as_ref().map_or(0, Pool::caught_panics),
            shards: shared
                .shards
                .iter()
                .map(|shard| shard.counters.read())
                .collect(),
        }
    }
}

impl Handle {
    fn flush(&self, timeout: Duration) -> Result<(), FlushTimeout> {
        let waits = !self.is_settling_thread();
        let timeout = if waits { timeout } else { Duration::ZERO };
        let mut flush = self.shared.flush();
        let done = crate::delivery::block_on_for(&mut flush, timeout);
        match done {
            Some(()) => Ok(()),
            None => Err(FlushTimeout {
                lanes: flush.pending(),
                waited: timeout,
            }),
        }
    }

    fn stop_shards(&self) {
        for shard in &self.shared.shards {
            shard.command(Command::Stop);
        }
    }

    /// Whether the caller is a waker on a shard's or the controller's thread: nothing that is waited for
    /// comes while it waits.
    fn is_settling_thread(&self) -> bool {
        self.settling.contains(&thread::current().id())
    }

    fn join(&self) {
        if self.is_settling_thread() {
            return;
        }
        // Held while waiting, so that every call returns when the threads are gone. The hook must
        // not wait for somebody who waits for its thread.
        let on_hook = self.hook == Some(thread::current().id());
        let threads = if on_hook {
            self.threads.try_lock().ok()
        } else {
            Some(self.threads.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let Some(mut threads) = threads else { return };
        // Shards first: the last of them stops the controller, and when none of these can report
        // any more, the hook's thread ends.
        while let Some(thread) = threads.pop() {
            if on_hook && Some(thread.thread().id()) == self.hook {
                threads.push(thread);
                return;
            }
            // Its panic was logged and accounted for where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        self.shared.end();
        self.stop_shards();
        // Nobody waits for the threads; the last shard to end stops the controller, and the hook's
        // thread ends when all was reported.
    }
}

impl Builder {
    /// Starts the producer: its shards and its controller. Connects to nothing yet.
    ///
    /// # Errors
    /// When the configuration cannot be used (every fault is listed), io_uring was demanded and is
    /// refused, or the system refuses memory or threads.
    pub fn build(self) -> Result<Producer, StartError> {
        let shard_count = placement::shard_count(self.shards);
        let mut faults = self.faults();
        if self.wait == WaitPolicy::Spin && shard_count >= placement::cpus() {
            faults.push(ConfigError::Contradiction(format!(
                "wait = spin with {shard_count} shards would take all {} CPUs this process may \
                 use; use park, fewer shards, or embedded mode",
                placement::cpus()
            )));
        }
        if !faults.is_empty() {
            return Err(ConfigErrors(faults).into());
        }
        let driver = self.choose_driver()?;
        let mut begun = Begun::default();
        let (start_controller, waker, controller) =
            begin("ringpost-ctl".into(), "the controller", controller_thread)?;
        begun.controller = Some(start_controller);
        begun.threads.push(controller);
        let inbox = Inbox::new(waker);
        let mut wakers = Vec::new();
        for index in 0..shard_count {
            let rings = self.rings_for(driver.kind, index);
            let place = Place::take(&self.pin, index);
            let (start, waker, thread) = begin(
                format!("ringpost-{index}"),
                "a shard",
                move |send_waker, started| {
                    shard_thread(rings, &place, send_waker, started);
                },
            )?;
            begun.shards.push(start);
            wakers.push(waker);
            begun.threads.push(thread);
        }
        let shared = self.shared(inbox, wakers)?;
        let socket = self.socket_options();
        let directory_settings = self.directory_settings();
        let allowed_hosts = self.hosts();
        let settings: Vec<_> = (0..shard_count)
            .map(|index| self.shard_settings(index))
            .collect::<Result<_, _>>()?;
        let mut hook = None;
        if self.needs_hook() {
            let run = Hook::new(
                self.on_undelivered,
                Arc::clone(&shared),
                seed(usize::MAX - 1),
            );
            let thread = thread::Builder::new()
                .name("ringpost-hook".into())
                .spawn(move || run.run())
                .map_err(|error| system("the hook's thread", error))?;
            hook = Some(thread.thread().id());
            // In front: joined last.
            begun.threads.insert(0, thread);
        }
        for (index, (start, settings)) in begun.shards.drain(..).zip(settings).enumerate() {
            // They listen: each has sent its waker and waits for this.
            let _ = start.send(StartShard {
                index,
                shared: Arc::clone(&shared),
                settings,
            });
        }
        let controller = Controller::new(
            directory_settings,
            allowed_hosts,
            seed(usize::MAX),
            Arc::clone(&shared),
            Names::System(Resolver::default()),
        );
        if let Some(start) = begun.controller.take() {
            let _ = start.send((controller, socket));
        }
        let process = std::process::id();
        let settling = begun.threads.iter().map(|thread| thread.thread().id());
        let settling = settling.filter(|thread| Some(*thread) != hook).collect();
        let handle = Handle {
            shared,
            driver,
            hook,
            settling,
            threads: Mutex::new(mem::take(&mut begun.threads)),
            process,
        };
        Ok(Producer {
            handle: Arc::new(handle),
        })
    }

    /// What the shard with this number is to do about a ring.
    fn rings_for(&self, kind: DriverKind, index: usize) -> Rings {
        match kind {
            DriverKind::Epoll => Rings::Never,
            #[cfg(test)]
            DriverKind::Ring if self.rings_max.is_some_and(|max| index >= max) => Rings::Refused,
            DriverKind::Ring if self.driver == DriverChoice::Auto => {
                // The number only matters to tests.
                let _ = index;
                Rings::IfPossible
            }
            DriverKind::Ring => Rings::Always,
        }
    }

    pub(crate) fn choose_driver(&self) -> Result<ChosenDriver, StartError> {
        let driver = self
            .driver
            .resolve()
            .map_err(|refused| StartError::Driver(refused.to_string()))?;
        tracing::info!(driver = %driver.kind, reason = %driver.reason, "driver chosen");
        Ok(driver)
    }

    /// What the parts share.
    pub(crate) fn shared(
        &self,
        inbox: Inbox,
        wakers: Vec<Waker>,
    ) -> Result<Arc<Shared>, StartError> {
        // One segment must hold the largest record, and one record must not need all the memory.
        let largest = self.request_bytes_max.next_power_of_two().min(self.memory);
        let letters = self.letter_memory();
        let memory = self.memory - letters.unwrap_or(0);
        let pool =
            Pool::new(memory, largest.min(memory)).map_err(|error| system("memory", error))?;
        let letter_pool = letters
            .map(|bytes| Pool::new(bytes, largest.min(bytes)))
            .transpose()
            .map_err(|error| system("memory", error))?;
        let shards = wakers
            .into_iter()
            .enumerate()
            .map(|(index, waker)| Arc::new(ShardShared::new(index, waker)))
            .collect();
        let callback_panics = Arc::<Panics>::default();
        Ok(Shared::new(
            shards,
            SharedParts {
                inbox,
                pool,
                completions: Arc::new(CompletionQueue::new(self.completion_queue)),
                routing: Arc::new(Routing {
                    partitioner: self.partitioner,
                    partition_fn: self.partition_fn.clone(),
                    batch_bytes: self.batch_bytes,
                    avoidance: Avoidance::new(self.health.panic_percent),
                }),
                request_bytes_max: self.request_bytes_max,
                client_id_len: self.client_id.len(),
                max_block: self.max_block,
                connect_timeout: self.connect_timeout,
                reports: self.report_settings(memory / 4),
                letter_pool,
                bulkhead: Arc::new(Bulkhead::new(
                    memory / 100 * usize::from(self.bulkhead_percent),
                    self.on_lane_unavailable,
                    Arc::clone(&callback_panics),
                )),
                callback_panics,
            },
        ))
    }

    pub(crate) fn shard_settings(&self, index: usize) -> Result<ShardSettings, StartError> {
        Ok(ShardSettings {
            core: self.core_settings(),
            socket: self.socket_options(),
            compression: self.compression,
            wait: self.wait,
            seed: seed(index),
            slabs: ShardSettings::slabs(self.client_id.len())
                .map_err(|error| system("memory", error))?,
        })
    }
}

fn system(what: &'static str, error: io::Error) -> StartError {
    StartError::System { what, error }
}

/// Jitter must differ between producers, or they reconnect in step.
pub(crate) fn seed(index: usize) -> u64 {
    clock::now().0 ^ (u64::from(std::process::id()) << 32) ^ (index as u64).rotate_left(48)
}

/// Threads that have begun and wait for the rest. When the rest does not come, because the producer
/// cannot be started, they end with this: it leaves neither threads nor descriptors behind.
#[derive(Default)]
struct Begun {
    controller: Option<SyncSender<(Controller, SocketOptions)>>,
    shards: Vec<SyncSender<StartShard>>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.controller = None;
        self.shards.clear();
        for thread in self.threads.drain(..) {
            // It did nothing yet.
            let _ = thread.join();
        }
    }
}

/// Whether a shard's driver is to be a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rings {
    Never,
    /// Else epoll.
    IfPossible,
    Always,
    /// As `IfPossible`, and the system refuses.
    #[cfg(test)]
    Refused,
}

/// Begins a thread that makes its own driver, sends back how to wake it, and waits for the rest: the
/// rest needs the wakers of all. When the producer cannot be started, the rest never comes and the
/// thread ends.
fn begin<S: Send + 'static>(
    name: String,
    what: &'static str,
    run: impl FnOnce(&SyncSender<io::Result<Waker>>, &Receiver<S>) + Send + 'static,
) -> Result<(SyncSender<S>, Waker, JoinHandle<()>), StartError> {
    let (start, started) = sync_channel(1);
    let (send_waker, waker) = sync_channel(1);
    let thread = thread::Builder::new()
        .name(name)
        .spawn(move || run(&send_waker, &started))
        .map_err(|error| StartError::System { what, error })?;
    let waker = waker
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("its thread ended while starting")));
    match waker {
        Ok(waker) => Ok((start, waker, thread)),
        Err(error) => {
            let _ = thread.join();
            Err(StartError::System { what, error })
        }
    }
}

/// What a shard's thread gets once everything is there.
struct StartShard {
    index: usize,
    shared: Arc<Shared>,
    settings: ShardSettings,
}

fn shard_thread(
    rings: Rings,
    place: &Place,
    send_waker: &SyncSender<io::Result<Waker>>,
    started: &Receiver<StartShard>,
) {
    // Pinned first: the ring belongs to the CPU and thread that make it.
    let placed = place.pin();
    let ring = match rings {
        Rings::Never => None,
        Rings::IfPossible | Rings::Always => Some(RingDriver::new().map_err(|e| e.to_string())),
        #[cfg(test)]
        Rings::Refused => Some(Err("a test refuses it".into())),
    };
    match ring {
        None => start_shard(EpollDriver::new(), placed, None, send_waker, started),
        Some(Ok(driver)) => start_shard(Ok(driver), placed, None, send_waker, started),
        Some(Err(refused)) if rings == Rings::Always => {
            let refused: io::Result<RingDriver> = Err(io::Error::other(refused));
            start_shard(refused, placed, None, send_waker, started);
        }
        // The probe had one, but there is none left: better with epoll than not at all.
        Some(Err(refused)) => {
            tracing::warn!(%refused, "a shard gets no ring and takes epoll");
            let driver = EpollDriver::new();
            start_shard(driver, placed, Some(refused), send_waker, started);
        }
    }
}

fn start_shard<D: Driver>(
    driver: io::Result<D>,
    placed: (Option<usize>, Option<String>),
    ring_refused: Option<String>,
    send_waker: &SyncSender<io::Result<Waker>>,
    started: &Receiver<StartShard>,
) {
    let driver = match driver {
        Ok(driver) => driver,
        Err(error) => {
            let _ = send_waker.send(Err(error));
            return;
        }
    };
    if send_waker.send(Ok(driver.waker())).is_err() {
        return;
    }
    // Nothing comes when the producer could not be started.
    let Ok(StartShard {
        index,
        shared,
        settings,
    }) = started.recv()
    else {
        return;
    };
    let own = Arc::clone(&shared.shards[index]);
    own.counters.placed(placed.0, placed.1);
    own.counters.ring_was_refused(ring_refused);
    let mut shard = Shard::new(driver, own, Arc::clone(&shared), settings);
    match catch_unwind(AssertUnwindSafe(|| shard.run())) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(shard = index, %error, "the kernel failed a shard");
            shard.lose();
        }
        Err(_) => {
            tracing::error!(shard = index, "a shard panicked; this is a bug in ringpost");
            shard.lose();
        }
    }
    // A panic while its connections are let go must not keep the rest from being told.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(shard)));
    shared.shard_is_gone(index);
    shared.shard_ended();
}

fn controller_thread(
    send_waker: &SyncSender<io::Result<Waker>>,
    started: &Receiver<(Controller, SocketOptions)>,
) {
    let driver = match EpollDriver::new() {
        Ok(driver) => driver,
        Err(error) => {
            let _ = send_waker.send(Err(error));
            return;
        }
    };
    if send_waker.send(Ok(driver.waker())).is_err() {
        return;
    }
    let Ok((controller, socket)) = started.recv() else {
        return;
    };
    let shared = controller.shared();
    let result = catch_unwind(AssertUnwindSafe(|| controller.run(driver, &socket)));
    match result {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the kernel failed the controller"),
        Err(_) => tracing::error!("the controller panicked; this is a bug in ringpost"),
    }
    // Whoever still waits for a topic or for memory waits in vain.
    shared.close();
    shared.reports.reporter_ended();
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use ringpost_broker::{Server, ServerConfig};

    use super::*;
    use crate::config::{Pin, Shards};
    use crate::outcome::Outcome;
    use crate::record::Record;

    /// The probe gets a ring, the second shard does not: with `driver=auto` it takes epoll, says so,
    /// and its records are acknowledged; a demanded ring is still a demand.
    #[test]
    fn x6_a_later_shard_without_a_ring_takes_epoll() {
        let server = Server::start(ServerConfig::storing()).expect("a free port");
        let mut builder = Producer::builder()
            .bootstrap(server.bootstrap())
            .shards(Shards::Count(2))
            .pin(Pin::Off);
        builder.rings_max = Some(1);
        let producer = builder.build().expect("it starts");
        server
            .with(|broker| broker.create_topic("t", 16))
            .expect("a new topic");
        let topic = producer.topic_blocking("t").expect("it is there");
        for partition in 0..16 {
            let record = Record::value(b"v").partition(partition);
            let outcome = topic.send_blocking(record).expect("room").wait();
            assert!(matches!(outcome, Outcome::Acked(_)), "{outcome:?}");
        }
        let stats = producer.stats();
        // Both have run by now, and said what they run on.
        if stats.driver == "ring" {
            let refused: Vec<_> = stats
                .shards
                .iter()
                .map(|s| s.ring_refused.as_deref())
                .collect();
            assert_eq!(refused, [None, Some("a test refuses it")]);
        }
        let acked = stats.shards.into_iter().map(|s| s.records_acked);
        assert!(
            acked.clone().all(|acked| acked > 0),
            "{:?}",
            acked.collect::<Vec<_>>()
        );
        producer.close(Duration::from_secs(60));
    }

    /// More shards than CPUs, all with records for a few partitions each: everything is acknowledged
    /// and each partition has its records in order.
    #[test]
    fn x7_more_shards_than_cpus() {
        let server = Server::start(ServerConfig::storing()).expect("a free port");
        server
            .with(|broker| broker.create_topic("t", 32))
            .expect("a new topic");
        let shards = placement::cpus() + 6;
        let producer = Producer::builder()
            .bootstrap(server.bootstrap())
            .shards(Shards::Count(shards))
            .build()
            .expect("it starts");
        let topic = producer.topic_blocking("t").expect("it is there");
        let sent: Vec<_> = (0..3200)
            .map(|n| {
                let record = Record::value(b"v").partition(n % 32);
                topic.send_blocking(record).expect("room")
            })
            .collect();
        let mut next = [0; 32];
        for (delivery, n) in sent.into_iter().zip(0..) {
            let Outcome::Acked(ack) = delivery.wait() else {
                panic!("record {n} was not acknowledged")
            };
            assert_eq!(ack.offset, Some(next[n % 32]), "record {n}");
            next[n % 32] += 1;
        }
        let total = producer.stats().total();
        assert_eq!((total.records_acked, total.retries), (3200, 0));
        producer.close(Duration::from_secs(60));
    }
}
