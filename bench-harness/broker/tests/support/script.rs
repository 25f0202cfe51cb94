//! Scripts of a producer's dealings with a cluster: what is done, and what is answered. The same
//! scripts are played against the model (`tests/model/scripts.rs`) and against real Kafka
//! (`tests/scripts_on_kafka.rs`); both have to give the answers written here.

use bytes::Bytes;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    BrokerId, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
    ProducerId,
};
use kafka_protocol::protocol::Request;
use ringpost_broker::{ErrorCode, TopicId};

use super::{BatchOf, Produce, frame, read_answer, topic_name};

/// A node by its part in the script: A is the preferred leader of partition 0, B comes next and is
/// never stopped, C is the third.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    A,
    B,
    C,
}

pub(crate) use Part::{A, B, C};

/// What a batch is stamped with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    Now,
    /// Longer ago than any producer is remembered.
    Old,
}

/// One batch for the script's topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) to: Part,
    pub(crate) acks: i16,
    pub(crate) partition: i32,
    /// Which of the script's producers; `None` writes without an identity.
    pub(crate) producer: Option<usize>,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
    pub(crate) records: usize,
    pub(crate) timeout_ms: i32,
    pub(crate) stamp: Stamp,
    /// By the id the topic had when the script began, where ids are spoken.
    pub(crate) by_first_id: bool,
}

/// A batch of the first producer for partition 0, to A, with acks=all and patience.
pub(crate) fn batch(sequence: i32, records: usize) -> Batch {
    Batch {
        to: A,
        acks: -1,
        partition: 0,
        producer: Some(0),
        epoch: 0,
        sequence,
        records,
        timeout_ms: 20_000,
        stamp: Stamp::Now,
        by_first_id: false,
    }
}

impl Batch {
    pub(crate) fn to(self, to: Part) -> Self {
        Self { to, ..self }
    }
    pub(crate) fn acks(self, acks: i16) -> Self {
        Self { acks, ..self }
    }
    pub(crate) fn epoch(self, epoch: i16) -> Self {
        Self { epoch, ..self }
    }
    pub(crate) fn producer(self, which: usize) -> Self {
        Self {
            producer: Some(which),
            ..self
        }
    }
    pub(crate) fn anonymous(self) -> Self {
        Self {
            producer: None,
            ..self
        }
    }
    pub(crate) fn partition(self, partition: i32) -> Self {
        Self { partition, ..self }
    }
    pub(crate) fn timeout_ms(self, timeout_ms: i32) -> Self {
        Self { timeout_ms, ..self }
    }
    pub(crate) fn old(self) -> Self {
        Self {
            stamp: Stamp::Old,
            ..self
        }
    }
    pub(crate) fn by_first_id(self) -> Self {
        Self {
            by_first_id: true,
            ..self
        }
    }
}

/// What a partition answers, field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: ErrorCode,
    pub(crate) base_offset: i64,
    pub(crate) log_start: i64,
    /// Whether the answer carries a time of append.
    pub(crate) stamped: bool,
    /// Who is named as the leader (from Produce v10).
    pub(crate) leader: Option<Part>,
}

pub(crate) fn written(base_offset: i64) -> Answer {
    Answer {
        code: ErrorCode::NONE,
        base_offset,
        log_start: 0,
        stamped: false,
        leader: None,
    }
}

pub(crate) fn refused(code: ErrorCode) -> Answer {
    Answer {
        code,
        base_offset: -1,
        log_start: -1,
        stamped: false,
        leader: None,
    }
}

impl Answer {
    pub(crate) fn log_start(self, log_start: i64) -> Self {
        Self { log_start, ..self }
    }
    pub(crate) fn stamped(self) -> Self {
        Self {
            stamped: true,
            ..self
        }
    }
    pub(crate) fn leader(self, leader: Part) -> Self {
        Self {
            leader: Some(leader),
            ..self
        }
    }
    pub(crate) fn code(self, code: ErrorCode) -> Self {
        Self { code, ..self }
    }
}

/// What is done to the cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed {
    /// Partition 0 is given to another in-sync replica.
    Lead(Part),
    Pause(Part),
    Resume(Part),
    Kill(Part),
    Start(Part),
    DeleteRecords(i64),
    /// The topic is deleted and made anew.
    Recreate,
    /// To so many partitions.
    Grow(i32),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// InitProducerId, with (id of the producer, epoch) if there is something to say.
    Init(Option<(i64, i16)>, ErrorCode),
    Produce(Batch, Answer),
    /// As `Produce`, answered otherwise by Kafka before 3.7.
    ProduceSince37(Batch, Answer, Answer),
    /// Sent now; `End` awaits the answer.
    Begin(Batch),
    /// The answer to what was begun at that node.
    End(Part, Answer),
    /// Sent again and again as long as the code is this one; then the answer.
    Until(Batch, ErrorCode, Answer),
    Do(Deed),
    /// A moment, in which followers come up.
    Pass,
    AwaitLeader(Part),
    AwaitIsr(&'static [Part]),
}

/// One script, on a topic of its own.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) copies: usize,
    pub(crate) min_insync: i32,
    pub(crate) producers: usize,
    pub(crate) steps: Vec<Step>,
}

/// A Kafka, as far as answers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kafka {
    pub(crate) before_37: bool,
    /// The highest version of Produce.
    pub(crate) produce: i16,
}

impl Kafka {
    /// Whether Produce names topics by their ids.
    fn by_id(self) -> bool {
        self.produce >= 13
    }

    pub(crate) fn of(version: &str) -> Self {
        match version {
            v if v.starts_with("3.6") => Self {
                before_37: true,
                produce: 9,
            },
            v if v.starts_with("3.9") => Self {
                before_37: false,
                produce: 11,
            },
            _ => Self {
                before_37: false,
                produce: 13,
            },
        }
    }
}

/// A cluster a script can be played on.
pub(crate) trait World {
    fn kafka(&self) -> Kafka;
    /// The wall clock of the cluster.
    fn now_ms(&self) -> i64;
    fn node_id(&self, part: Part) -> i32;
    /// Sends a frame to a node and takes its next answer.
    fn exchange(&mut self, to: Part, frame: &[u8]) -> Bytes;
    fn send(&mut self, to: Part, frame: &[u8]);
    fn receive(&mut self, from: Part) -> Bytes;
    /// Makes the script's topic: partition 0 on A, B, C.
    fn create(&mut self, topic: &str, copies: usize, min_insync: i32);
    fn act(&mut self, topic: &str, deed: Deed);
    /// Lets a little time pass.
    fn pass(&mut self);
}

/// How often something is looked at before it is given up: far beyond any patience.
const LOOKS: u32 = 3_000;

/// A script being played.
pub(crate) struct Player<'a, W> {
    pub(crate) world: &'a mut W,
    topic: String,
    first_id: TopicId,
    topic_id: TopicId,
    ids: Vec<i64>,
    correlation_id: i32,
    begun: Vec<(Part, i32, i16)>,
    /// What was answered otherwise than written.
    pub(crate) differences: Vec<String>,
    pub(crate) answers: usize,
}

impl<'a, W: World> Player<'a, W> {
    pub(crate) fn new(world: &'a mut W, script: &Script, topic: String) -> Self {
        world.create(&topic, script.copies, script.min_insync);
        let mut player = Self {
            world,
            topic,
            first_id: TopicId::default(),
            topic_id: TopicId::default(),
            ids: Vec::new(),
            correlation_id: 0,
            begun: Vec::new(),
            differences: Vec::new(),
            answers: 0,
        };
        player.await_leader(A);
        let all = [A, B, C];
        player.await_isr(&all[..script.copies]);
        player.first_id = player.topic_id;
        for _ in 0..script.producers {
            let id = player.new_id();
            player.ids.push(id);
        }
        player
    }

    pub(crate) fn play(&mut self, script: &Script) {
        for (number, step) in script.steps.iter().enumerate() {
            let (expected, got) = match *step {
                Step::Init(with, expected) => {
                    let code = self.init(with);
                    if code != expected {
                        let words = format!("{number}: {step:?} got {code:?}");
                        self.differences.push(words);
                    }
                    self.answers += 1;
                    continue;
                }
                Step::Produce(batch, _) if batch.by_first_id && !self.world.kafka().by_id() => {
                    continue;
                }
                Step::Produce(batch, expected) => (expected, self.produce(batch)),
                Step::ProduceSince37(batch, old, new) => {
                    let expected = if self.world.kafka().before_37 {
                        old
                    } else {
                        new
                    };
                    (expected, self.produce(batch))
                }
                Step::Begin(batch) => {
                    self.begin(batch);
                    continue;
                }
                Step::End(from, expected) => (expected, self.end(from)),
                Step::Until(batch, code, expected) => (expected, self.until(batch, code)),
                Step::Do(deed) => {
                    self.world.act(&self.topic, deed);
                    if matches!(deed, Deed::Recreate) {
                        self.await_another_topic();
                    }
                    continue;
                }
                Step::Pass => {
                    self.world.pass();
                    continue;
                }
                Step::AwaitLeader(part) => {
                    self.await_leader(part);
                    continue;
                }
                Step::AwaitIsr(parts) => {
                    self.await_isr(parts);
                    continue;
                }
            };
            self.answers += 1;
            let leader = expected.leader.filter(|_| self.world.kafka().produce >= 10);
            let expected = Answer { leader, ..expected };
            if expected != got {
                let words = format!("{number}: {step:?}\n     got {got:?}");
                self.differences.push(words);
            }
        }
    }

    fn ask<R: Request>(&mut self, to: Part, version: i16, request: &R) -> R::Response {
        self.correlation_id += 1;
        let bytes = frame(self.correlation_id, version, request);
        let mut answer = self.world.exchange(to, &bytes);
        read_answer::<R>(&mut answer, self.correlation_id, version)
    }

    fn init_request(with: Option<(i64, i16)>) -> InitProducerIdRequest {
        let (id, epoch) = with.unwrap_or((-1, -1));
        InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch)
    }

    fn new_id(&mut self) -> i64 {
        for _ in 0..LOOKS {
            let answer = self.ask(B, 4, &Self::init_request(None));
            if answer.error_code == 0 {
                assert_eq!(answer.producer_epoch, 0);
                return answer.producer_id.0;
            }
            let code = ErrorCode(answer.error_code);
            assert_eq!(code, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
            self.world.pass();
        }
        panic!("the broker has no producer ids");
    }

    /// Without a transactional id every InitProducerId gives a new id at epoch 0.
    fn init(&mut self, with: Option<(i64, i16)>) -> ErrorCode {
        let with = with.map(|(id, epoch)| (if id == 0 { self.ids[0] } else { id }, epoch));
        let answer = self.ask(B, 4, &Self::init_request(with));
        let code = ErrorCode(answer.error_code);
        if code.is_ok() {
            assert!(!self.ids.contains(&answer.producer_id.0), "a new id");
            assert_eq!(answer.producer_epoch, 0);
            self.ids.push(answer.producer_id.0);
        }
        code
    }

    fn begin(&mut self, batch: Batch) {
        self.correlation_id += 1;
        let timestamp = match batch.stamp {
            Stamp::Now => self.world.now_ms(),
            Stamp::Old => 1_000_000_000_000,
        };
        let identity = |which: usize| (self.ids[which], batch.epoch, batch.sequence);
        let content = BatchOf {
            producer: batch.producer.map(identity),
            timestamp,
            ..BatchOf::records(batch.records)
        };
        let version = self.world.kafka().produce;
        let version = if batch.by_first_id {
            version
        } else {
            version.min(12)
        };
        let request = Produce {
            version,
            acks: batch.acks,
            topic: &self.topic,
            topic_id: self.first_id,
            batches: vec![(batch.partition, content.build())],
        };
        let bytes = request.by_codec_waiting(self.correlation_id, batch.timeout_ms);
        self.world.send(batch.to, &bytes);
        self.begun.push((batch.to, self.correlation_id, version));
    }

    fn end(&mut self, from: Part) -> Answer {
        let at = self.begun.iter().position(|b| b.0 == from);
        let (_, correlation_id, version) = self.begun.remove(at.expect("something was begun"));
        let mut bytes = self.world.receive(from);
        let answer = read_answer::<ProduceRequest>(&mut bytes, correlation_id, version);
        let partition = &answer.responses[0].partition_responses[0];
        let named = partition.current_leader.leader_id.0;
        let parts = [A, B, C].into_iter();
        Answer {
            code: ErrorCode(partition.error_code),
            base_offset: partition.base_offset,
            log_start: partition.log_start_offset,
            stamped: partition.log_append_time_ms >= 0,
            leader: parts
                .filter(|_| named >= 0)
                .find(|p| self.world.node_id(*p) == named),
        }
    }

    fn produce(&mut self, batch: Batch) -> Answer {
        self.begin(batch);
        self.end(batch.to)
    }

    fn until(&mut self, batch: Batch, code: ErrorCode) -> Answer {
        for _ in 0..LOOKS {
            let answer = self.produce(batch);
            if answer.code != code {
                return answer;
            }
            self.world.pass();
        }
        panic!("{code:?} does not end: {batch:?}");
    }

    fn describe(&mut self) -> Option<MetadataResponseTopic> {
        self.describe_by(B)
    }

    fn describe_by(&mut self, part: Part) -> Option<MetadataResponseTopic> {
        let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(&self.topic)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![wanted]))
            .with_allow_auto_topic_creation(false);
        let topic = self.ask(part, 12, &request).topics.remove(0);
        (topic.error_code == 0 && !topic.partitions.is_empty()).then_some(topic)
    }

    /// Waits until B knows that a node leads partition 0, and that node knows it too.
    fn await_leader(&mut self, part: Part) {
        let wanted = self.world.node_id(part);
        for _ in 0..LOOKS {
            if let Some(topic) = self.describe() {
                let leader = topic.partitions[0].leader_id.0;
                if leader == wanted && self.leads(part) {
                    self.topic_id = topic.topic_id.into_bytes();
                    return;
                }
            }
            self.world.pass();
        }
        panic!("{part:?} does not lead {}", self.topic);
    }

    /// Waits until B and A know that the topic is another one.
    fn await_another_topic(&mut self) {
        for _ in 0..LOOKS {
            let known = [A, B].map(|part| self.describe_by(part).map(|t| t.topic_id.into_bytes()));
            if known
                .iter()
                .all(|id| id.is_some_and(|id| id != self.first_id))
            {
                return self.await_leader(A);
            }
            self.world.pass();
        }
        panic!("{} is still the topic it was", self.topic);
    }

    fn leads(&mut self, part: Part) -> bool {
        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(&self.topic))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic]);
        let answer = self.ask(part, 5, &request);
        answer.topics[0].partitions[0].error_code == 0
    }

    /// Waits until B knows that just these are in sync.
    fn await_isr(&mut self, parts: &[Part]) {
        let mut wanted: Vec<i32> = parts.iter().map(|p| self.world.node_id(*p)).collect();
        wanted.sort_unstable();
        for _ in 0..LOOKS {
            if let Some(topic) = self.describe() {
                let isr = &topic.partitions[0].isr_nodes;
                let mut isr: Vec<i32> = isr.iter().map(|n| n.0).collect();
                isr.sort_unstable();
                if isr == wanted {
                    return;
                }
            }
            self.world.pass();
        }
        panic!("{parts:?} do not get in sync for {}", self.topic);
    }
}

/// Every script.
pub(crate) fn scripts() -> Vec<Script> {
    use ErrorCode as E;
    use Step::{
        AwaitIsr, AwaitLeader, Begin, Do, End, Init, Pass, Produce as P, ProduceSince37, Until,
    };
    let script = |name, copies, min_insync, producers, steps| Script {
        name,
        copies,
        min_insync,
        producers,
        steps,
    };
    vec![
        script(
            "i1_the_last_five_batches",
            1,
            1,
            1,
            vec![
                P(batch(0, 2), written(0)),
                P(batch(2, 1), written(2)),
                P(batch(3, 1), written(3)),
                P(batch(4, 1), written(4)),
                P(batch(5, 1), written(5)),
                P(batch(0, 2), written(0).stamped()),
                P(batch(5, 1), written(5).stamped()),
                P(batch(6, 1), written(6)),
                P(
                    batch(0, 2),
                    refused(E::OUT_OF_ORDER_SEQUENCE_NUMBER).log_start(0),
                ),
                P(batch(2, 1), written(2).stamped()),
                P(batch(2, 1).acks(1), written(2).stamped()),
            ],
        ),
        script(
            "i2_holes_and_epochs",
            1,
            1,
            2,
            vec![
                P(batch(5, 2), written(0)),
                P(
                    batch(9, 1),
                    refused(E::OUT_OF_ORDER_SEQUENCE_NUMBER).log_start(0),
                ),
                P(batch(7, 1), written(2)),
                P(
                    batch(1, 1).epoch(1),
                    refused(E::OUT_OF_ORDER_SEQUENCE_NUMBER).log_start(0),
                ),
                P(batch(0, 1).epoch(1), written(3)),
                P(batch(8, 1), refused(E::INVALID_PRODUCER_EPOCH).log_start(0)),
                P(batch(7, 1), refused(E::INVALID_PRODUCER_EPOCH).log_start(0)),
                P(batch(0, 1).producer(1), written(4)),
                P(batch(-1, 1).anonymous(), written(5)),
            ],
        ),
        script(
            "i11_producer_ids",
            1,
            1,
            1,
            vec![
                Init(None, E::NONE),
                Init(Some((0, 0)), E::NONE),
                Init(Some((0, 7)), E::NONE),
                Init(Some((0, -1)), E::INVALID_REQUEST),
                Init(Some((-1, 0)), E::INVALID_REQUEST),
                Init(Some((1 << 40, 3)), E::NONE),
            ],
        ),
        script(
            "i9_the_log_start_moves_over_a_producer",
            1,
            1,
            2,
            vec![
                P(batch(0, 3), written(0)),
                P(batch(3, 3), written(3)),
                Do(Deed::DeleteRecords(4)),
                P(batch(6, 1), written(6).log_start(4)),
                Do(Deed::DeleteRecords(-1)),
                P(batch(7, 1), written(7).log_start(7)),
                P(batch(6, 1), written(6).log_start(7).stamped()),
                P(batch(0, 3), written(0).log_start(7).stamped()),
                P(
                    batch(9, 1),
                    refused(E::OUT_OF_ORDER_SEQUENCE_NUMBER).log_start(7),
                ),
                P(batch(40, 1).producer(1), written(8).log_start(7)),
            ],
        ),
        script(
            "i9_a_producer_that_is_forgotten",
            1,
            1,
            1,
            vec![
                P(batch(0, 2), written(0)),
                P(
                    batch(10, 1),
                    refused(E::OUT_OF_ORDER_SEQUENCE_NUMBER).log_start(0),
                ),
                P(batch(2, 1).old(), written(2)),
                Until(batch(11, 1), E::OUT_OF_ORDER_SEQUENCE_NUMBER, written(3)),
                P(batch(12, 1), written(4)),
            ],
        ),
        script(
            "m5_a_topic_made_anew",
            1,
            1,
            1,
            vec![
                P(batch(0, 2), written(0)),
                P(batch(2, 2), written(2)),
                P(batch(2, 2).by_first_id(), written(2).stamped()),
                Do(Deed::Recreate),
                P(batch(4, 1).by_first_id(), refused(E::UNKNOWN_TOPIC_ID)),
                P(batch(4, 1), written(0)),
                P(
                    batch(0, 2),
                    refused(E::OUT_OF_ORDER_SEQUENCE_NUMBER).log_start(0),
                ),
            ],
        ),
        script(
            "m4_a_topic_grows",
            3,
            2,
            1,
            vec![
                P(
                    batch(0, 1).partition(1),
                    refused(E::UNKNOWN_TOPIC_OR_PARTITION),
                ),
                Do(Deed::Grow(2)),
                Until(
                    batch(0, 1).partition(1).to(B),
                    E::UNKNOWN_TOPIC_OR_PARTITION,
                    written(0),
                ),
            ],
        ),
        script(
            "n8_a_stopped_follower_holds_up_acks_all",
            3,
            2,
            1,
            vec![
                P(batch(0, 1), written(0)),
                Do(Deed::Pause(C)),
                P(batch(1, 1).acks(1), written(1)),
                Begin(batch(2, 1)),
                AwaitIsr(&[A, B]),
                End(A, written(2)),
                P(batch(3, 1), written(3)),
                Do(Deed::Resume(C)),
                AwaitIsr(&[A, B, C]),
                P(batch(2, 1), written(2).stamped()),
                P(batch(4, 1), written(4)),
            ],
        ),
        script(
            "i5_too_few_in_sync_before_and_after_the_append",
            3,
            3,
            1,
            vec![
                P(batch(0, 1), written(0)),
                Do(Deed::Pause(C)),
                Begin(batch(1, 2).timeout_ms(500)),
                End(A, written(1).code(E::REQUEST_TIMED_OUT)),
                ProduceSince37(
                    batch(1, 2).timeout_ms(20_000),
                    written(1)
                        .code(E::NOT_ENOUGH_REPLICAS_AFTER_APPEND)
                        .stamped(),
                    written(1).code(E::REQUEST_TIMED_OUT).stamped(),
                ),
                AwaitIsr(&[A, B]),
                P(batch(3, 1), refused(E::NOT_ENOUGH_REPLICAS).log_start(0)),
                P(batch(3, 1).acks(1), written(3)),
                P(batch(1, 2), refused(E::NOT_ENOUGH_REPLICAS).log_start(0)),
                Do(Deed::Resume(C)),
                AwaitIsr(&[A, B, C]),
                P(batch(1, 2), written(1).stamped()),
                P(batch(4, 1), written(4)),
            ],
        ),
        script(
            "i12_the_leader_moves_with_acks_all_waiting",
            3,
            2,
            1,
            vec![
                P(batch(0, 1), written(0)),
                P(batch(1, 1), written(1)),
                Do(Deed::Pause(C)),
                Begin(batch(2, 2)),
                Pass,
                Do(Deed::Lead(B)),
                End(A, written(2).code(E::NOT_LEADER_OR_FOLLOWER).leader(B)),
                AwaitLeader(B),
                P(batch(4, 1), refused(E::NOT_LEADER_OR_FOLLOWER).leader(B)),
                AwaitIsr(&[A, B]),
                P(batch(0, 1).to(B), written(0).stamped()),
                P(
                    batch(6, 1).to(B),
                    refused(E::OUT_OF_ORDER_SEQUENCE_NUMBER).log_start(0),
                ),
                P(
                    batch(5, 1).epoch(1).to(B),
                    refused(E::OUT_OF_ORDER_SEQUENCE_NUMBER).log_start(0),
                ),
                P(batch(2, 2).to(B), written(2).stamped()),
                P(batch(4, 1).to(B), written(4)),
                Do(Deed::Resume(C)),
                AwaitIsr(&[A, B, C]),
                Do(Deed::Lead(C)),
                AwaitLeader(C),
                P(batch(4, 1).to(C), written(4).stamped()),
                P(batch(5, 1).to(C), written(5)),
                P(
                    batch(5, 1).to(B),
                    refused(E::NOT_LEADER_OR_FOLLOWER).leader(C),
                ),
            ],
        ),
        script(
            "n9_the_leader_is_killed",
            3,
            2,
            2,
            vec![
                P(batch(0, 2), written(0)),
                P(batch(2, 1), written(2)),
                P(batch(0, 1).producer(1), written(3)),
                Do(Deed::Kill(A)),
                AwaitLeader(B),
                P(batch(0, 2).to(B), written(0).stamped()),
                P(
                    batch(4, 1).to(B),
                    refused(E::OUT_OF_ORDER_SEQUENCE_NUMBER).log_start(0),
                ),
                P(batch(3, 1).to(B), written(4)),
                P(batch(0, 1).epoch(1).to(B), written(5)),
                P(
                    batch(4, 1).to(B),
                    refused(E::INVALID_PRODUCER_EPOCH).log_start(0),
                ),
                Do(Deed::Start(A)),
                AwaitIsr(&[A, B, C]),
                Do(Deed::Lead(A)),
                AwaitLeader(A),
                P(batch(0, 1).epoch(1), written(5).stamped()),
                P(batch(4, 1), refused(E::INVALID_PRODUCER_EPOCH).log_start(0)),
                P(batch(1, 1).epoch(1), written(6)),
                P(batch(0, 1).producer(1), written(3).stamped()),
                P(batch(1, 1).producer(1), written(7)),
            ],
        ),
    ]
}
