//! What the parts of a producer share: the registry of topics and lanes, the cluster's snapshot,
//! the memory, the way to the controller.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use ringpost_codec::kafka::ErrorCode;
use ringpost_core::batch::CutBatch;
use ringpost_core::directory::TopicError;
use ringpost_core::id::LaneId;
use ringpost_core::limits;
use ringpost_core::metadata::Cluster;
use ringpost_core::outcome::{Failure, Verdict, Why};
use ringpost_core::partition::Partitioner;
use ringpost_core::seal::{Plain, seal};
use ringpost_memory::{Pool, SegmentMut};

use crate::avoidance::{Avoidance, is_troubled};
use crate::bulkhead::{Bulkhead, OnLaneUnavailable};
use crate::completions::CompletionQueue;
use crate::config::PartitionFn;
use crate::controller::{Inbox, Request};
use crate::delivery::wake_all;
use crate::flush::{Flush, Flushes};
use crate::lane::{Appended, Lane, LaneSettings, Refused, Ticket, Watch};
use crate::panics::Panics;
use crate::purge::{Purge, Purging};
use crate::ready::LANES_MAX;
use crate::record::Record;
use crate::reports::{ReportSettings, Reports};
use crate::shard::{Command, ShardShared};

/// See the module's doc.
pub(crate) struct Shared {
    pub(crate) shards: Vec<Arc<ShardShared>>,
    pub(crate) cluster: ArcSwap<Cluster>,
    pub(crate) inbox: Inbox,
    pub(crate) pool: Pool,
    pub(crate) completions: Arc<CompletionQueue>,
    pub(crate) flushes: Arc<Flushes>,
    pub(crate) routing: Arc<Routing>,
    pub(crate) max_block: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) reports: Arc<Reports>,
    /// Memory that is set aside for dead letters.
    pub(crate) letter_pool: Option<Pool>,
    pub(crate) bulkhead: Arc<Bulkhead>,
    /// The dead-letter topic was asked for.
    letters_wanted: AtomicBool,
    pub(crate) callback_panics: Arc<Panics>,
    lane_settings: Arc<LaneSettings>,
    topics: Arc<Mutex<Topics>>,
    closed: AtomicBool,
    /// Shards with a thread that has not ended.
    running: AtomicUsize,
}

/// How records are spread, for all topics.
pub(crate) struct Routing {
    pub(crate) partitioner: Partitioner,
    pub(crate) partition_fn: Option<Arc<PartitionFn>>,
    pub(crate) batch_bytes: usize,
    pub(crate) avoidance: Avoidance,
}

impl std::fmt::Debug for Routing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Routing")
            .field("partitioner", &self.partitioner)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Topics {
    known: BTreeMap<Arc<str>, Arc<TopicState>>,
    waiting: BTreeMap<Arc<str>, Vec<Arc<TopicWait>>>,
    /// Lanes of each shard so far.
    lanes: Vec<u32>,
}

/// A topic that can be sent to: its lanes by partition. Only ever grows.
#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) name: Arc<str>,
    /// Tells the topics of this process apart, faster than names.
    pub(crate) number: u64,
    pub(crate) lanes: Arc<ArcSwap<Vec<Arc<Lane>>>>,
    pub(crate) routing: Arc<Routing>,
    /// For partitions in turn.
    turn: AtomicU32,
}

impl TopicState {
    fn new(name: Arc<str>, routing: Arc<Routing>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self {
            name,
            number: COUNT.fetch_add(1, Ordering::Relaxed),
            lanes: Arc::default(),
            routing,
            turn: AtomicU32::new(0),
        }
    }

    /// The next partition in turn.
    pub(crate) fn next_in_turn(&self, partitions: u32) -> i32 {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        turn.checked_rem(partitions).unwrap_or(0).cast_signed()
    }
}

/// One caller that waits for a topic.
#[derive(Debug, Default)]
pub(crate) struct TopicWait(Mutex<TopicWaitState>);

#[derive(Debug, Default)]
struct TopicWaitState {
    result: Option<Result<Arc<TopicState>, TopicError>>,
    waker: Option<Waker>,
}

impl TopicWait {
    fn state(&self) -> MutexGuard<'_, TopicWaitState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, result: Result<Arc<TopicState>, TopicError>) {
        let mut state = self.state();
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        wake_all(waker);
    }
}

/// The future of a caller that waits for a topic. Dropped, it leaves nothing behind: an application that
/// asks again and again with a timeout of its own must not fill memory.
pub(crate) struct TopicFuture {
    wait: Arc<TopicWait>,
    /// Where it waits, and for what, unless the answer was known at once.
    place: Option<(Arc<Mutex<Topics>>, Arc<str>)>,
}

impl Drop for TopicFuture {
    fn drop(&mut self) {
        let Some((topics, name)) = self.place.take() else {
            return;
        };
        let mut topics = topics.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = topics.waiting.get_mut(&name) else {
            // Whoever waited was told.
            return;
        };
        if let Some(at) = waiting.iter().position(|w| Arc::ptr_eq(w, &self.wait)) {
            waiting.swap_remove(at);
        }
        if waiting.is_empty() {
            topics.waiting.remove(&name);
        }
    }
}

impl Future for TopicFuture {
    type Output = Result<Arc<TopicState>, TopicError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Cloned and dropped without the lock: it is somebody else's code.
        let waker = cx.waker().clone();
        let mut state = self.wait.state();
        if let Some(result) = &state.result {
            return Poll::Ready(result.clone());
        }
        let replaced = state.waker.replace(waker);
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

/// What [`Shared::new`] needs beside the shards.
#[derive(Debug)]
pub(crate) struct SharedParts {
    pub(crate) inbox: Inbox,
    pub(crate) pool: Pool,
    pub(crate) completions: Arc<CompletionQueue>,
    pub(crate) routing: Arc<Routing>,
    pub(crate) request_bytes_max: usize,
    pub(crate) client_id_len: usize,
    pub(crate) max_block: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) reports: ReportSettings,
    pub(crate) letter_pool: Option<Pool>,
    pub(crate) bulkhead: Arc<Bulkhead>,
    pub(crate) callback_panics: Arc<Panics>,
}

impl Shared {
    pub(crate) fn new(shards: Vec<Arc<ShardShared>>, parts: SharedParts) -> Arc<Self> {
        // As the dispatcher counts it.
        let around = limits::REQUEST_HEAD_BYTES_MAX + limits::AROUND_BATCH_BYTES_MAX;
        let room_bytes = parts
            .request_bytes_max
            .saturating_sub(around + parts.client_id_len);
        let lane_settings = Arc::new(LaneSettings {
            batch_bytes: parts
                .routing
                .batch_bytes
                .min(room_bytes.saturating_sub(TOPIC_NAME_BYTES_MAX)),
            room_bytes,
            pool: parts.pool.clone(),
            completions: Arc::clone(&parts.completions),
            bulkhead: Arc::clone(&parts.bulkhead),
        });
        let topics = Topics {
            lanes: vec![0; shards.len()],
            ..Topics::default()
        };
        let running = AtomicUsize::new(shards.len());
        // The controller ends what it cannot hand over.
        let reports = Arc::new(Reports::new(parts.reports, shards.len() + 1));
        Arc::new(Self {
            shards,
            cluster: ArcSwap::default(),
            inbox: parts.inbox,
            pool: parts.pool,
            completions: parts.completions,
            flushes: Arc::default(),
            routing: parts.routing,
            max_block: parts.max_block,
            connect_timeout: parts.connect_timeout,
            reports,
            letter_pool: parts.letter_pool,
            bulkhead: parts.bulkhead,
            letters_wanted: AtomicBool::new(false),
            callback_panics: parts.callback_panics,
            lane_settings,
            topics: Arc::new(Mutex::new(topics)),
            closed: AtomicBool::new(false),
            running,
        })
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A topic whose partitions are known, also when the producer is closed.
    pub(crate) fn known_topic(&self, name: &str) -> Option<Arc<TopicState>> {
        self.topics().known.get(name).map(Arc::clone)
    }

    /// A topic, once its partitions are known.
    pub(crate) fn topic(&self, name: &str) -> TopicFuture {
        let wait = Arc::new(TopicWait::default());
        let mut place = None;
        let mut topics = self.topics();
        if self.is_closed() {
            drop(topics);
            wait.finish(Err(TopicError::Closed));
        } else if !is_topic_name(name) {
            drop(topics);
            wait.finish(Err(TopicError::Refused {
                topic: name.into(),
                code: ErrorCode::INVALID_TOPIC_EXCEPTION,
            }));
        } else if let Some(state) = topics.known.get(name).map(Arc::clone) {
            drop(topics);
            wait.finish(Ok(state));
        } else {
            let name: Arc<str> = name.into();
            topics
                .waiting
                .entry(Arc::clone(&name))
                .or_default()
                .push(Arc::clone(&wait));
            drop(topics);
            place = Some((Arc::clone(&self.topics), Arc::clone(&name)));
            self.inbox.put(Request::Want(name));
            // The first letter should not have to wait for it.
            if let Some(letters) = self.reports.dead_letter_topic()
                && !self.letters_wanted.swap(true, Ordering::Relaxed)
            {
                self.inbox.put(Request::Want(Arc::clone(letters)));
            }
        }
        TopicFuture { wait, place }
    }

    /// A record was for a partition nobody told of: the topic may have grown. The directory spaces
    /// the questions of those who ask again and again.
    #[cold]
    pub(crate) fn look_for_partitions(&self) {
        self.inbox.put(Request::Refresh);
    }

    /// A topic cannot be used.
    pub(crate) fn topic_failed(&self, name: &str, error: &TopicError) {
        let waiting = self.topics().waiting.remove(name).unwrap_or_default();
        for wait in waiting {
            wait.finish(Err(error.clone()));
        }
    }

    /// Takes in a new snapshot: makes the lanes of new topics and partitions, tells the shards, and
    /// then those who wait.
    pub(crate) fn publish(&self, cluster: Arc<Cluster>) {
        self.cluster.store(Arc::clone(&cluster));
        let mut finished = Vec::new();
        let mut new_lanes: Vec<Vec<Arc<Lane>>> = self.shards.iter().map(|_| Vec::new()).collect();
        let mut topics = self.topics();
        let closed = self.is_closed();
        // A closed producer takes nothing new, but what it still has may have to go elsewhere.
        for (name, topic) in cluster.topics.iter().filter(|_| !closed) {
            let Topics {
                known,
                waiting,
                lanes,
            } = &mut *topics;
            let state = known.entry(Arc::clone(name)).or_insert_with(|| {
                Arc::new(TopicState::new(Arc::clone(name), Arc::clone(&self.routing)))
            });
            self.grow(state, topic.partitions.len(), lanes, &mut new_lanes);
            for wait in waiting.remove(name).unwrap_or_default() {
                finished.push((wait, Arc::clone(state)));
            }
        }
        drop(topics);
        for (shard, lanes) in self.shards.iter().zip(new_lanes) {
            let command = if lanes.is_empty() {
                Command::Metadata
            } else {
                Command::Lanes(lanes)
            };
            if let Err(Command::Lanes(lanes)) = shard.try_command(command) {
                // Nobody will ever send for them: they take nothing.
                lanes.iter().for_each(|lane| self.bury_lane(lane));
                self.notify_flushes();
            }
        }
        for (wait, state) in finished {
            wait.finish(Ok(state));
        }
    }

    /// Makes the lanes a topic lacks.
    fn grow(
        &self,
        state: &TopicState,
        partitions: usize,
        counts: &mut [u32],
        new_lanes: &mut [Vec<Arc<Lane>>],
    ) {
        let before = state.lanes.load();
        if before.len() >= partitions {
            return;
        }
        let mut lanes = Vec::clone(&before);
        for partition in before.len()..partitions {
            let Ok(partition) = i32::try_from(partition) else {
                break;
            };
            let shard = shard_of(&state.name, partition, self.shards.len());
            if counts[shard] == LANES_MAX {
                tracing::error!(
                    topic = %state.name,
                    partition,
                    "a shard has {LANES_MAX} partitions and takes no more; use more shards"
                );
                break;
            }
            let id = LaneId(counts[shard]);
            counts[shard] += 1;
            let lane = Arc::new(Lane::new(
                id,
                Arc::clone(&state.name),
                partition,
                Arc::clone(&self.shards[shard]),
                Arc::clone(&self.lane_settings),
            ));
            new_lanes[shard].push(Arc::clone(&lane));
            lanes.push(lane);
        }
        state.lanes.store(Arc::new(lanes));
    }

    /// All lanes there are.
    fn lanes(&self) -> Vec<Arc<Lane>> {
        let topics = self.topics();
        topics
            .known
            .values()
            .flat_map(|topic| topic.lanes.load().to_vec())
            .collect()
    }

    /// Somebody waits for memory: what lingers in the lanes is sent now.
    pub(crate) fn make_room(&self) {
        if self.pool.waiting() > 0 {
            for lane in self.lanes() {
                lane.hurry();
            }
        }
    }

    pub(crate) fn flush(&self) -> Flush {
        let (flushes, reports) = (Arc::clone(&self.flushes), Arc::clone(&self.reports));
        Flush::new(flushes, Some(reports), self.lanes().into_iter())
    }

    /// Tells all shards to give up what their lanes have, or those of one topic.
    pub(crate) fn purge(&self, which: Purge, topic: Option<&Arc<str>>) -> Purging {
        let (purging, duties) = Purging::begin(self.shards.len());
        for (shard, duty) in self.shards.iter().zip(duties) {
            shard.command(Command::Purge {
                which,
                topic: topic.cloned(),
                duty,
            });
        }
        purging
    }

    /// Takes no more records and topics. `false`: it was closed already.
    pub(crate) fn close(&self) -> bool {
        let mut topics = self.topics();
        let first = !self.closed.swap(true, Ordering::SeqCst);
        let waiting = std::mem::take(&mut topics.waiting);
        drop(topics);
        for wait in waiting.into_values().flatten() {
            wait.finish(Err(TopicError::Closed));
        }
        for lane in self.lanes() {
            lane.close();
        }
        self.pool.close();
        self.bulkhead.close();
        if self.running.load(Ordering::SeqCst) == 0 {
            // There is no shard left to say it: see `shard_ended`.
            self.inbox.put(Request::Stop);
        }
        first
    }

    /// Takes nothing at all any more, not even dead letters.
    pub(crate) fn end(&self) {
        self.close();
        for lane in self.lanes() {
            lane.end();
        }
    }

    /// A shard is gone, by a panic or because the kernel failed it: what it had is `Unknown` or
    /// `NotWritten`, nothing waits for it any more, and its lanes take nothing.
    pub(crate) fn shard_is_gone(&self, shard: usize) {
        if let Some(shard) = self.shards.get(shard) {
            shard.end_commands();
        }
        for lane in self.lanes().iter().filter(|lane| lane.shard.index == shard) {
            self.bury_lane(lane);
        }
        self.notify_flushes();
    }

    /// Something was settled.
    pub(crate) fn notify_flushes(&self) {
        self.count_panics(self.flushes.notify());
    }

    /// Code of the application panicked so many times and was caught.
    pub(crate) fn count_panics(&self, panics: u64) {
        self.callback_panics.count(panics);
    }

    /// A record for a lane that takes no more of them because of its broker: with
    /// `on_lane_unavailable = dead_letter` it ends here and becomes a dead letter.
    #[cold]
    pub(crate) fn divert(
        &self,
        refused: Refused,
        lane: &Lane,
        record: &Record<'_>,
        watch: Watch,
    ) -> Result<Appended, Refused> {
        let diverts = self.bulkhead.policy == OnLaneUnavailable::DeadLetter;
        if !diverts || !matches!(refused, Refused::Avoided { .. }) {
            return Err(refused);
        }
        let (cut, mut ticket, appended) = lane.apart(record, watch)?;
        let verdict = Verdict::NotWritten(Failure::new(Why::Avoided));
        lane.shard.counters.diverted();
        let (batch, _) = seal(cut, &mut Plain, Vec::new());
        self.reports.undelivered(lane, &verdict, &mut ticket, batch);
        self.count_panics(ticket.settle(lane.partition, verdict));
        Ok(appended)
    }

    /// Ends a lane whose shard is gone. Records that may go anywhere go elsewhere from now on.
    fn bury_lane(&self, lane: &Lane) {
        for (cut, ticket) in lane.bury() {
            self.bury(lane, cut, ticket);
        }
        // Not before: a flush that looks in between must find them unsettled.
        lane.buried();
        let before = lane.forsake();
        let avoidance = &self.routing.avoidance;
        avoidance.count_troubled(u64::from(is_troubled(before)), 1);
    }

    /// Ends a batch that never left its lane.
    fn bury(&self, lane: &Lane, cut: CutBatch<SegmentMut>, mut ticket: Ticket) {
        let verdict = Verdict::NotWritten(Failure::new(Why::ShardLost));
        lane.shard.counters.not_written(cut.records);
        let (batch, _) = seal(cut, &mut Plain, Vec::new());
        self.reports.undelivered(lane, &verdict, &mut ticket, batch);
        let memory = ticket.memory;
        self.count_panics(ticket.settle(lane.partition, verdict));
        lane.holds_less(memory);
    }
}

impl Shared {
    /// A shard's thread ends. The last one of a closed producer ends the controller too.
    pub(crate) fn shard_ended(&self) {
        self.reports.reporter_ended();
        let last = self.running.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && self.closed.load(Ordering::SeqCst) {
            self.inbox.put(Request::Stop);
        }
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
impl Shared {
    /// A lane that the first shard was not told of.
    pub(crate) fn lane_for_tests(&self) -> Arc<Lane> {
        Arc::new(Lane::new(
            LaneId(0),
            "t".into(),
            0,
            Arc::clone(&self.shards[0]),
            Arc::clone(&self.lane_settings),
        ))
    }
}

/// The longest name Kafka allows.
pub(crate) const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Whether a topic can have this name: Kafka's `Topic.validate`. Asked here, because brokers are
/// asked for all wanted topics at a time, and a name that does not even fit a request must not
/// cost the others theirs.
pub(crate) fn is_topic_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=TOPIC_NAME_BYTES_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(legal)
}

/// The shard of a partition, for life (FNV-1a over topic and partition).
fn shard_of(topic: &str, partition: i32, shards: usize) -> usize {
    let bytes = topic.bytes().chain(partition.to_be_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Fold the well-mixed high bits in; the low ones depend on the last bytes only.
    usize::try_from((hash ^ (hash >> 32)) % shards.max(1) as u64).unwrap_or(0)
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use ringpost_core::metadata::{Partition, Topic};

    use super::*;
    use crate::driver::{Driver, EpollDriver};
    use crate::lane::{Bound, Refused, Watch};
    use crate::producer::Producer;
    use crate::record::Record;

    /// Of a thousand futures for a topic that are dropped before it is known nothing is left; of
    /// three others, one dropped among them, the two that stay are told.
    #[test]
    fn m19_a_dropped_wait_for_a_topic_leaves_nothing_behind() {
        let driver = EpollDriver::new().expect("epoll");
        let shared = Producer::builder()
            .shared(Inbox::new(driver.waker()), vec![driver.waker()])
            .expect("memory");
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..1000 {
            let mut wait = shared.topic("t");
            assert!(Pin::new(&mut wait).poll(&mut cx).is_pending());
        }
        assert!(shared.topics().waiting.is_empty());
        let mut first = shared.topic("t");
        let second = shared.topic("t");
        let mut third = shared.topic("t");
        drop(second);
        assert_eq!(shared.topics().waiting["t"].len(), 2);
        shared.topic_failed("t", &TopicError::Closed);
        for wait in [&mut first, &mut third] {
            let told = Pin::new(wait).poll(&mut cx);
            assert!(matches!(told, Poll::Ready(Err(TopicError::Closed))));
        }
        assert!(shared.topics().waiting.is_empty());
    }

    /// A topic that is found when the shard of its partitions is gone.
    #[test]
    fn a_dead_shards_new_lanes_take_nothing() {
        use ringpost_core::health::{Routes, View};

        let driver = EpollDriver::new().expect("epoll");
        let shared = Producer::builder()
            .shared(Inbox::new(driver.waker()), vec![driver.waker()])
            .expect("memory");
        shared.shard_is_gone(0);
        let name: Arc<str> = "t".into();
        let topic = Topic {
            name: Arc::clone(&name),
            id: ringpost_core::id::TopicId([0; 16]),
            partitions: vec![Partition {
                leader: None,
                leader_epoch: 0,
            }],
        };
        shared.publish(Arc::new(Cluster {
            topics: [(name, Arc::new(topic))].into(),
            ..Cluster::default()
        }));
        let lanes = shared.lanes();
        assert_eq!(lanes.len(), 1);
        let refused = lanes[0].append(
            &Record::value(b"v"),
            Bound::Pinned,
            Watch::Future,
            &mut None,
        );
        assert!(matches!(refused, Err(Refused::Closed)));
        assert_eq!(shared.flush().pending(), 0);
        assert_eq!(lanes[0].view(), View::NOBODY);
        assert!(!shared.routing.avoidance.routes(&lanes).is_calm());
    }
}
