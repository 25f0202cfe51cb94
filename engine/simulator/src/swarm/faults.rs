//! How faults strike, and what ends them.

use ringpost_broker::{ApiKey, ErrorCode, PartitionFault, RequestFault, TopicError};
use ringpost_core::dispatch::Purge;
use ringpost_core::id::LaneId;
use ringpost_core::settings::Acks;
use ringpost_core::time::Time;

use crate::setup::{ms, us};

use super::knobs::{Draw, Kind};
use super::run::{Event, Run, tell};

/// What ends a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Undo {
    Start(i32),
    Resume(i32),
    Link(i32, i32),
    Controller(i32),
    LogDir(i32),
    Lag(i32),
    Throttle,
    /// The topic of this number is made again, with so many partitions.
    Create(usize, i32),
    Clock,
}

/// How far the wall clock may be off: a month and an hour back, a second, within the hour ahead that
/// brokers take, and a year ahead, which they do not.
const WALL_MS: [i64; 7] = [
    -2_592_000_000,
    -3_600_000,
    -1_000,
    1_000,
    3_000_000,
    3_000_000,
    31_536_000_000,
];

/// Codes a broker may answer with before it appends.
const BEFORE: [ErrorCode; 10] = [
    ErrorCode::NOT_ENOUGH_REPLICAS,
    ErrorCode::NOT_LEADER_OR_FOLLOWER,
    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode::CORRUPT_MESSAGE,
    ErrorCode::REQUEST_TIMED_OUT,
    ErrorCode::MESSAGE_TOO_LARGE,
    ErrorCode::KAFKA_STORAGE_ERROR,
    ErrorCode::UNKNOWN_PRODUCER_ID,
    ErrorCode::THROTTLING_QUOTA_EXCEEDED,
    ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
];

/// Codes a broker may answer with although it has appended; those in front with any acks, those behind
/// after it waited for followers in vain.
const AFTER: [ErrorCode; 3] = [
    ErrorCode::REQUEST_TIMED_OUT,
    ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ErrorCode::NOT_LEADER_OR_FOLLOWER,
];

/// Codes that say that somebody else has the producer id, or has a newer epoch of it.
const ANOTHERS: [ErrorCode; 3] = [
    ErrorCode::INVALID_PRODUCER_EPOCH,
    ErrorCode::INVALID_PRODUCER_ID_MAPPING,
    ErrorCode::UNKNOWN_PRODUCER_ID,
];

/// Codes after which trying again is of no use.
const FINAL: [ErrorCode; 6] = [
    ErrorCode::PRODUCER_FENCED,
    ErrorCode::TOPIC_AUTHORIZATION_FAILED,
    ErrorCode::INVALID_RECORD,
    ErrorCode::INVALID_TIMESTAMP,
    ErrorCode::POLICY_VIOLATION,
    ErrorCode::RECORD_LIST_TOO_LARGE,
];

/// Codes that no broker gives to a batch, or none gives yet.
const UNHEARD_OF: [ErrorCode; 4] = [
    ErrorCode::UNKNOWN_SERVER_ERROR,
    ErrorCode::NOT_CONTROLLER,
    ErrorCode(4_711),
    ErrorCode(i16::MIN),
];

/// Throttle times that nobody means.
const QUIET_MS: [i32; 4] = [i32::MAX, i32::MAX, -1, i32::MIN];

impl Run {
    /// A fault strikes, and will again.
    pub(super) fn strike(&mut self, number: usize) {
        let (kind, every) = self.knobs.faults[number];
        let at = self.now + self.chaos.around(every).max(us(10));
        self.schedule(at, Event::Strike(number));
        self.strikes += 1;
        tell!(self, "{kind}");
        match kind {
            Kind::Reset => {
                if let Some(number) = self.some_open() {
                    self.reset(number);
                }
            }
            Kind::Cut => self.cut_next = Some(self.chaos.pick(&[1, 3, 30, 200, 1_000, 9_000])),
            Kind::HalfOpen => {
                if let Some(number) = self.some_open() {
                    self.vanish(number);
                }
            }
            Kind::Deaf | Kind::Mute => {
                let node = self.some_node();
                let until = self.now + self.a_while();
                let which = if kind == Kind::Deaf {
                    &mut self.deaf
                } else {
                    &mut self.mute
                };
                which.insert(node, until);
            }
            Kind::FlipRequest => self.flip_next = true,
            Kind::FlipAnswer => self.flip_answer = true,
            Kind::BatchError => self.batch_error(),
            Kind::FinalError => self.final_error(),
            Kind::Stopped => {
                let until = self.now + self.a_while();
                self.stopped_until = self.stopped_until.max(until);
                self.flushes_wait(until);
            }
            Kind::Stalled => {
                let number = self.chaos.below(self.shards.len());
                let until = self.now + self.a_while();
                let shard = &mut self.shards[number];
                shard.stalled_until = shard.stalled_until.max(until);
                self.flushes_wait(until);
            }
            Kind::RequestError => self.request_error(),
            Kind::Busy => {
                let shard = self.chaos.below(self.shards.len());
                let busy = self.chaos.below(6);
                let no_slab = self.chaos.below(3);
                let lanes = &mut self.shards[shard].lanes;
                lanes.busy = u32::try_from(busy).unwrap_or(0);
                lanes.no_slab = u32::try_from(no_slab).unwrap_or(0);
            }
            Kind::Flush => self.flush(),
            Kind::Cancel => self.cancel_one(),
            Kind::Purge | Kind::PurgeAll => self.purge(kind),
            Kind::Clock => {
                self.wall_ms = self.chaos.pick(&WALL_MS);
                let until = self.now + self.a_while();
                self.schedule(until, Event::Undo(Undo::Clock));
            }
            _ => self.cluster_fault(kind),
        }
    }

    fn some_node(&mut self) -> i32 {
        let nodes = usize::try_from(self.knobs.nodes).unwrap_or(1);
        1 + i32::try_from(self.chaos.below(nodes)).unwrap_or(0)
    }

    fn some_partition(&mut self) -> (String, i32) {
        let topic = self.chaos.below(self.knobs.topics.len());
        let partitions = usize::try_from(self.knobs.topics[topic]).unwrap_or(1);
        let partition = i32::try_from(self.chaos.below(partitions)).unwrap_or(0);
        (format!("topic-{topic}"), partition)
    }

    /// Deletes a topic until then; it comes back with other partitions, sometimes.
    fn delete_topic(&mut self, until: Time) {
        let number = self.chaos.below(self.knobs.topics.len());
        let partitions = self.knobs.topics[number];
        let again = match self.chaos.below(4) {
            0 => 1 + partitions / 2,
            1 => partitions + 1,
            _ => partitions,
        };
        if self.broker.delete_topic(&format!("topic-{number}")) {
            self.schedule(until, Event::Undo(Undo::Create(number, again)));
        }
    }

    /// Makes a topic that was deleted, or that has fewer partitions, unless it is there already.
    pub(super) fn create_topic(&mut self, number: usize, partitions: i32) {
        let name = format!("topic-{number}");
        let made = match self.broker.topic_id(&name) {
            None => self.broker.create_topic(&name, partitions).map(drop),
            Some(_) => self.broker.grow_topic(&name, partitions),
        };
        // Whoever has as many partitions cannot grow.
        debug_assert!(matches!(made, Ok(()) | Err(TopicError::Partitions)));
    }

    fn batch_error(&mut self) {
        let fault = match self.chaos.below(6) {
            0 | 1 => PartitionFault::ErrorAfter(self.code_after()),
            2 => PartitionFault::OmitBefore,
            3 => PartitionFault::OmitAfter,
            _ => PartitionFault::ErrorBefore(self.chaos.pick(&BEFORE)),
        };
        let (topic, partition) = self.some_partition();
        for _ in 0..=self.chaos.below(3) {
            self.broker.faults().next_batch(&topic, partition, fault);
        }
    }

    /// What ends a batch, or a producer id.
    fn final_error(&mut self) {
        if self.chaos.one_in(6) {
            let fault = RequestFault::Error(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
            let faults = self.broker.faults();
            return faults.next_request(ApiKey::InitProducerId, Some(fault));
        }
        let fault = match self.chaos.below(5) {
            // What a code means that nobody knows, nobody knows.
            0 => PartitionFault::ErrorAfter(self.chaos.pick(&UNHEARD_OF)),
            1 => PartitionFault::ErrorBefore(self.chaos.pick(&UNHEARD_OF)),
            2 => PartitionFault::ErrorBefore(self.chaos.pick(&ANOTHERS)),
            _ => PartitionFault::ErrorBefore(self.chaos.pick(&FINAL)),
        };
        let (topic, partition) = self.some_partition();
        for _ in 0..=self.chaos.below(3) {
            self.broker.faults().next_batch(&topic, partition, fault);
        }
    }

    fn code_after(&mut self) -> ErrorCode {
        if self.knobs.acks != Acks::All {
            return AFTER[0];
        }
        // "Stored before" is the truth only where what is stored is committed.
        if self.knobs.idempotent && self.knobs.copies == 1 && self.chaos.one_in(2) {
            return ErrorCode::DUPLICATE_SEQUENCE_NUMBER;
        }
        self.chaos.pick(&AFTER)
    }

    fn request_error(&mut self) {
        let api = self.chaos.pick(&[
            ApiKey::Produce,
            ApiKey::Produce,
            ApiKey::Produce,
            ApiKey::Metadata,
            ApiKey::ApiVersions,
            ApiKey::InitProducerId,
        ]);
        let code = self.chaos.pick(&[
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
            ErrorCode::REQUEST_TIMED_OUT,
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ]);
        let fault = match self.chaos.below(7) {
            0 => RequestFault::CloseBefore,
            1 => RequestFault::CloseAfter,
            2 => RequestFault::CutAnswer(self.chaos.below(60)),
            3 => RequestFault::Ignore,
            4 => RequestFault::Silence,
            5 if api != ApiKey::ApiVersions => RequestFault::Error(code),
            _ => RequestFault::Delay(i64::try_from(self.chaos.below(2_000)).unwrap_or(0)),
        };
        self.broker.faults().next_request(api, Some(fault));
    }

    fn purge(&mut self, kind: Kind) {
        let which = if kind == Kind::Purge {
            Purge::Queued
        } else {
            Purge::QueuedAndInFlight
        };
        let number = self.chaos.below(self.shards.len());
        let one = self.chaos.one_in(2);
        let shard = &mut self.shards[number];
        shard.touched = true;
        let lanes = shard.lanes.lanes.len();
        if one && lanes > 0 {
            let lane = LaneId(u32::try_from(self.chaos.below(lanes)).unwrap_or(0));
            let held = &mut shard.lanes;
            shard.dispatcher.purge_lane(self.now, lane, which, held);
        } else {
            shard.dispatcher.purge(self.now, which, &mut shard.lanes);
        }
    }

    fn cluster_fault(&mut self, kind: Kind) {
        self.advance_clock();
        let node = self.some_node();
        let other = 1 + node % self.knobs.nodes;
        let until = self.now + self.a_while();
        let while_ms = i64::try_from(until.since(self.now).as_millis()).unwrap_or(0);
        match kind {
            Kind::Leader => {
                let (topic, partition) = self.some_partition();
                self.broker.move_leader(&topic, partition, node);
            }
            Kind::Crash | Kind::Power | Kind::Unwritten | Kind::Shutdown => {
                if !self.stopped.insert(node) {
                    return;
                }
                match kind {
                    Kind::Crash => self.broker.crash_node(node),
                    Kind::Power => self.broker.cut_power(node),
                    Kind::Unwritten => {
                        let batches = 1 + self.chaos.below(3);
                        self.broker.cut_power_unwritten(node, batches);
                    }
                    _ => self.broker.shutdown_node(node),
                }
                let power = matches!(kind, Kind::Power | Kind::Unwritten);
                let silently = power || self.chaos.one_in(4);
                self.node_ends(node, silently);
                self.schedule(until, Event::Undo(Undo::Start(node)));
            }
            Kind::Unclean => {
                let (topic, partition) = self.some_partition();
                self.broker.move_leader_uncleanly(&topic, partition, node);
            }
            Kind::Recreate => self.delete_topic(until),
            Kind::Pause => {
                self.broker.pause_node(node, true);
                self.schedule(until, Event::Undo(Undo::Resume(node)));
            }
            Kind::Link if other != node => {
                self.broker.set_link(node, other, false);
                self.schedule(until, Event::Undo(Undo::Link(node, other)));
            }
            Kind::Controller => {
                self.broker.set_controller_link(node, false);
                self.schedule(until, Event::Undo(Undo::Controller(node)));
            }
            Kind::LogDir => {
                self.broker.set_log_dir(node, false);
                self.schedule(until, Event::Undo(Undo::LogDir(node)));
            }
            Kind::Lag => {
                let delay = i64::try_from(self.chaos.below(3_000)).unwrap_or(0);
                self.broker.set_fetch_delay(node, Some(delay));
                self.schedule(until, Event::Undo(Undo::Lag(node)));
            }
            Kind::Stale if self.chaos.one_in(3) => self.broker.forget_metadata(node, while_ms),
            Kind::Stale => self.broker.hold_metadata(node, while_ms),
            Kind::Throttle => {
                self.broker.faults().throttle_ms =
                    i32::try_from(self.chaos.below(400)).unwrap_or(0);
                let until = self.now + self.chaos.up_to(ms(1_000));
                self.schedule(until, Event::Undo(Undo::Throttle));
            }
            Kind::Quiet => {
                self.broker.faults().throttle_ms = self.chaos.pick(&QUIET_MS);
                let until = self.now + self.chaos.up_to(ms(20));
                self.schedule(until, Event::Undo(Undo::Throttle));
            }
            _ => {}
        }
        self.wake_held();
    }

    /// A fault is over.
    pub(super) fn undo(&mut self, undo: Undo) {
        tell!(self, "over: {undo:?}");
        self.advance_clock();
        match undo {
            Undo::Start(node) => {
                self.stopped.remove(&node);
                self.broker.start_node(node);
            }
            Undo::Resume(node) => self.broker.pause_node(node, false),
            Undo::Link(one, other) => self.broker.set_link(one, other, true),
            Undo::Controller(node) => self.broker.set_controller_link(node, true),
            Undo::LogDir(node) => self.broker.set_log_dir(node, true),
            Undo::Lag(node) => self.broker.set_fetch_delay(node, None),
            Undo::Throttle => self.broker.faults().throttle_ms = 0,
            Undo::Create(topic, partitions) => self.create_topic(topic, partitions),
            Undo::Clock => self.wall_ms = 0,
        }
        self.wake_held();
    }
}
