//! Every way to send a record, and where records go.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use ringpost::{
    DriverChoice, LocalTopic, Outcome, PartitionId, Partitioner, Producer, Record, Topic,
    TrySendError,
};
use ringpost_core::partition::{consistent_partition, murmur2_partition};

use crate::support::*;

const TOPIC: &str = "orders";

fn with_topic(driver: DriverChoice, partitions: i32) -> (ringpost_broker::Server, Producer, Topic) {
    let server = broker();
    server
        .with(|broker| broker.create_topic(TOPIC, partitions))
        .expect("a new topic");
    let producer = producer(&server, driver);
    let topic = producer.topic_blocking(TOPIC).expect("it is there");
    (server, producer, topic)
}

/// Offset and partition of an outcome are where the broker has the record.
fn a5_each_way_to_wait_gives_the_place_of_the_record(driver: DriverChoice) {
    let (server, producer, topic) = with_topic(driver, 3);
    let local = topic.local();
    let texts: Vec<String> = (0..60).map(|n| format!("record {n}")).collect();
    let mut acks = Vec::new();
    for (n, text) in texts.iter().enumerate() {
        let record = Record::value(text.as_bytes());
        let delivery = match n % 7 {
            5 => block_on(local.send(record)).expect("room"),
            6 => local.send_blocking(record).expect("room"),
            0 => topic.try_send(record).expect("room"),
            1 => block_on(topic.send(record)).expect("room"),
            2 => topic.send_blocking(record).expect("room"),
            3 => local.try_send(record).expect("room"),
            _ => topic
                .append_with(Record::value(b""), text.len(), |room| {
                    room.copy_from_slice(text.as_bytes());
                })
                .expect("room"),
        };
        acks.push(if n % 2 == 0 {
            ack(delivery)
        } else {
            acked(delivery.wait())
        });
    }
    let stored = stored(&server, TOPIC);
    assert_eq!(stored.len(), texts.len());
    for (text, ack) in texts.iter().zip(&acks) {
        let record = stored
            .iter()
            .find(|s| s.partition == ack.partition && Some(s.offset) == ack.offset)
            .expect("at the reported place");
        assert_eq!(record.text(), text);
        assert_eq!(record.timestamp_ms, ack.timestamp_ms);
    }
    assert!(producer.close(PATIENCE).in_time);
    let report = server.shutdown();
    assert!(report.is_clean(), "{report:?}");
}

/// Executors with many threads want futures that can move between them.
#[test]
fn futures_can_move_to_another_thread() {
    fn can_move<T: Send>(_: impl FnOnce(&Producer, &'static Topic) -> T) {}
    can_move(|_, topic| topic.send(Record::value(b"x")));
    can_move(|_, topic| topic.try_send(Record::value(b"x")).map_err(drop));
    can_move(|producer, _| producer.flush());
    fn shared<T: Send + Sync>() {}
    shared::<Producer>();
    shared::<Topic>();
    fn sent<T: Send>() {}
    sent::<ringpost::LocalTopic>();
}

fn all_of_a_batch_can_be_waited_for_at_once(driver: DriverChoice) {
    let (_server, _producer, topic) = with_topic(driver, 1);
    let deliveries: Vec<_> = (0..500)
        .map(|n: u32| {
            topic
                .try_send(Record::value(&n.to_be_bytes()))
                .expect("room")
        })
        .collect();
    // From the last to the first, so that many are registered before the verdict comes.
    let waiters: Vec<_> = deliveries
        .into_iter()
        .rev()
        .map(|delivery| std::thread::spawn(move || block_on(delivery)))
        .collect();
    let offsets: BTreeSet<_> = waiters
        .into_iter()
        .map(|waiter| acked(waiter.join().expect("no panic")).offset)
        .collect();
    assert_eq!(offsets, (0..500).map(Some).collect());
}

fn posted_records_arrive_in_order_and_are_counted(driver: DriverChoice) {
    let (server, producer, topic) = with_topic(driver, 1);
    let local = topic.local();
    for n in 0..1000_u32 {
        let text = n.to_string();
        let record = Record::value(text.as_bytes());
        if n % 2 == 0 {
            topic.post(record).expect("room");
        } else {
            local.post(record).expect("room");
        }
    }
    producer.flush_blocking(PATIENCE).expect("in time");
    let texts: Vec<_> = stored(&server, TOPIC)
        .iter()
        .map(|s| s.text().to_owned())
        .collect();
    assert_eq!(texts, (0..1000).map(|n| n.to_string()).collect::<Vec<_>>());
    let stats = producer.stats();
    let total = stats.total();
    assert_eq!(total.records_acked, 1000);
    assert_eq!(total.stages.append_to_ack.len(), 1000);
    assert_eq!(stats.memory_in_use, 0);
    assert!(stats.memory_high_water > 0);
    assert_eq!(stats.driver, driver.to_string());
    assert!(total.kernel_entries > 0 && total.turns > 0 && total.requests > 0);
}

fn tags_come_back_with_their_outcomes_each_once(driver: DriverChoice) {
    let (server, producer, topic) = with_topic(driver, 4);
    let local = topic.local();
    for tag in 0..2000_u64 {
        let text = tag.to_string();
        let record = Record::value(text.as_bytes());
        let result = if tag % 2 == 0 {
            topic.enqueue(record, tag)
        } else {
            local.enqueue(record, tag)
        };
        result.expect("room");
    }
    let completions = drain(&producer, 2000);
    assert_eq!(completions.len(), 2000);
    let stored = stored(&server, TOPIC);
    let mut tags = BTreeSet::new();
    for completion in completions {
        let ack = acked(completion.outcome);
        let record = stored
            .iter()
            .find(|s| s.partition == ack.partition && Some(s.offset) == ack.offset)
            .expect("at the reported place");
        assert_eq!(record.text(), completion.tag.to_string());
        assert_eq!(record.timestamp_ms, ack.timestamp_ms);
        assert!(tags.insert(completion.tag), "twice");
    }
    assert_eq!(producer.completions().drain(&mut Vec::new()), 0);
}

thread_local! {
    static OWN: RefCell<Option<LocalTopic>> = const { RefCell::new(None) };
    static EARLIER: RefCell<Option<Parting>> = const { RefCell::new(None) };
    static LATER: RefCell<Option<Parting>> = const { RefCell::new(None) };
}

/// A partitioner is the application's code, and may send with the very handle it is called for.
fn a_partitioner_may_send(driver: DriverChoice) {
    let server = broker();
    let producer = builder(&server, driver)
        .partition_with(|_, _, _| {
            OWN.with_borrow(|own| {
                let own = own.as_ref().expect("it was put there");
                let record = Record::value(b"from within").partition(1);
                own.post(record).expect("room");
            });
            PartitionId(0)
        })
        .build()
        .expect("a producer");
    let local = producer.topic_blocking(TOPIC).expect("it is made").local();
    OWN.set(Some(local));
    OWN.with_borrow(|own| {
        let own = own.as_ref().expect("just put there");
        own.post(Record::value(b"from without")).expect("room");
    });
    OWN.take();
    producer.flush_blocking(PATIENCE).expect("in time");
    assert_eq!(server.report().records, 2);
}

/// Sends when its thread ends.
struct Parting(Topic);

impl Drop for Parting {
    fn drop(&mut self) {
        self.0.post(Record::value(b"posted")).expect("room");
        let delivery = self.0.send_blocking(Record::value(b"sent")).expect("room");
        acked(delivery.wait());
    }
}

fn a_thread_that_ends_may_send(driver: DriverChoice) {
    let (server, producer, topic) = with_topic(driver, 3);
    let thread = std::thread::spawn(move || {
        // Whichever of the thread's things goes first.
        EARLIER.set(Some(Parting(topic.clone())));
        acked(
            topic
                .send_blocking(Record::value(b"x"))
                .expect("room")
                .wait(),
        );
        LATER.set(Some(Parting(topic)));
    });
    thread.join().expect("no panic");
    producer.flush_blocking(PATIENCE).expect("in time");
    assert_eq!(server.report().records, 5);
}

/// Times of the application may lie far apart, in either order.
fn tagged_records_keep_their_times(driver: DriverChoice) {
    let (server, producer, topic) = with_topic(driver, 1);
    let times = [1_600_000_000_000, 0, 1_700_000_000_000, 1_600_000_000_001];
    for (tag, time) in (0..).zip(times) {
        let record = Record::value(b"x").partition(0).timestamp_ms(time);
        topic.enqueue(record, tag).expect("room");
    }
    for completion in drain(&producer, times.len()) {
        let tag = usize::try_from(completion.tag).expect("ours");
        assert_eq!(acked(completion.outcome).timestamp_ms, times[tag]);
    }
    let stored: Vec<_> = stored(&server, TOPIC)
        .iter()
        .map(|record| record.timestamp_ms)
        .collect();
    assert_eq!(stored, times);
}

fn extend_takes_many_and_says_where_it_stopped(driver: DriverChoice) {
    let (server, producer, topic) = with_topic(driver, 2);
    let texts: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let records = texts
        .iter()
        .zip(0..)
        .map(|(text, n)| Record::value(text.as_bytes()).partition(n / 50 % 2));
    let extended = topic.extend(records);
    assert_eq!((extended.taken, extended.refused), (300, None));
    let bad = [
        Record::value(b"fine"),
        Record::value(b"nowhere").partition(7),
        Record::value(b"never looked at"),
    ];
    let extended = topic.extend(bad);
    assert_eq!(extended.taken, 1);
    assert!(matches!(
        extended.refused,
        Some(TrySendError::NoSuchPartition { partition: 7, count: 2, ref record })
            if *record == Record::value(b"nowhere").partition(7)
    ));
    producer.flush_blocking(PATIENCE).expect("in time");
    let stored = stored(&server, TOPIC);
    assert_eq!(stored.len(), 301);
    for partition in 0..2 {
        let numbers: Vec<u32> = stored
            .iter()
            .filter(|s| s.partition == partition && s.text() != "fine")
            .map(|s| s.text().parse().expect("a number"))
            .collect();
        assert!(numbers.is_sorted());
        assert_eq!(numbers.len(), 150);
    }
}

/// Keyless records of `extend` move on after a batch's worth of bytes, like all others.
fn extend_does_not_stick_to_one_partition(driver: DriverChoice) {
    let server = broker();
    server
        .with(|broker| broker.create_topic(TOPIC, 6))
        .expect("a new topic");
    let producer = builder(&server, driver)
        .batch_bytes(1 << 10)
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking(TOPIC).expect("it is there");
    let value = [b'x'; 100];
    let extended = topic.extend((0..1000).map(|_| Record::value(&value)));
    assert_eq!((extended.taken, extended.refused), (1000, None));
    for _ in 0..1000 {
        let delivery = topic.append_with(Record::value(b""), 100, |room| room.fill(b'y'));
        drop(delivery.expect("room"));
    }
    producer.flush_blocking(PATIENCE).expect("in time");
    for letter in [b'x', b'y'] {
        let used: BTreeSet<_> = stored(&server, TOPIC)
            .iter()
            .filter(|s| s.value.as_ref().is_some_and(|v| v[0] == letter))
            .map(|s| s.partition)
            .collect();
        assert_eq!(used.len(), 6, "{letter}: {used:?}");
    }
}

/// Each of 200 keys is in the partition murmur2 gives it.
fn b7_keys_go_where_the_java_client_puts_them(driver: DriverChoice) {
    let (server, producer, topic) = with_topic(driver, 7);
    let keys: Vec<String> = (0..200).map(|n| format!("user-{n}")).collect();
    for key in &keys {
        topic
            .post(Record::keyed(key.as_bytes(), b""))
            .expect("room");
    }
    producer.flush_blocking(PATIENCE).expect("in time");
    let stored = stored(&server, TOPIC);
    assert_eq!(stored.len(), keys.len());
    for record in stored {
        let key = record.key.expect("a key");
        assert_eq!(
            PartitionId(record.partition),
            murmur2_partition(&key, 7),
            "{key:?}"
        );
    }
}

/// Where records with and without keys go, in sending order.
fn spread(
    driver: DriverChoice,
    change: impl FnOnce(ringpost::Builder) -> ringpost::Builder,
) -> Vec<Stored> {
    let server = broker();
    server
        .with(|broker| broker.create_topic(TOPIC, 5))
        .expect("a new topic");
    let producer = change(builder(&server, driver))
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking(TOPIC).expect("it is there");
    for n in 0..50_u8 {
        let key = [n, 1, 2];
        topic.post(Record::keyed(&key, &[n])).expect("room");
    }
    producer.flush_blocking(PATIENCE).expect("in time");
    let mut stored = stored(&server, TOPIC);
    stored.sort_by_key(|s| s.value.clone());
    assert_eq!(stored.len(), 50);
    stored
}

/// Round robin, CRC-32 and given partitions: records are stored where each says.
fn b7_the_other_partitioners_do_as_they_say(driver: DriverChoice) {
    for record in spread(driver, |b| b.partitioner(Partitioner::Consistent)) {
        let key = record.key.expect("a key");
        assert_eq!(PartitionId(record.partition), consistent_partition(&key, 5));
    }
    let partitions: Vec<i32> = spread(driver, |b| b.partitioner(Partitioner::RoundRobin))
        .iter()
        .map(|s| s.partition)
        .collect();
    assert_eq!(partitions, (0..50).map(|n| n % 5).collect::<Vec<_>>());
    let sticky: BTreeSet<i32> = spread(driver, |b| b.partitioner(Partitioner::Sticky))
        .iter()
        .map(|s| s.partition)
        .collect();
    assert_eq!(sticky.len(), 1, "few bytes stay in one partition");
    let own = spread(driver, |b| {
        b.partition_with(|key, value, count| {
            assert_eq!((key.map(<[u8]>::len), count), (Some(3), 5));
            PartitionId(i32::from(value.expect("a value")[0]) % 3)
        })
    });
    for record in own {
        assert_eq!(
            record.partition,
            i32::from(record.value.expect("a value")[0]) % 3
        );
    }
}

/// Both shards have records acked, 6000 in all, and in each partition each sender's are in order. In the
/// log each partition's batches carry one producer id, their sequences without a gap, and of the two ids
/// each is another shard's: no partition has two owners.
fn i15_two_shards_share_the_partitions(driver: DriverChoice) {
    let server = broker();
    server
        .with(|broker| broker.create_topic(TOPIC, 8))
        .expect("a new topic");
    let producer = builder(&server, driver)
        .shards(ringpost::Shards::Count(2))
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking(TOPIC).expect("it is there");
    let senders: Vec<_> = (0..3_u32)
        .map(|sender| {
            let topic = topic.clone();
            std::thread::spawn(move || {
                for n in 0..2000_u32 {
                    let text = format!("{sender} {n}");
                    let partition = i32::try_from(n % 8).expect("small");
                    topic
                        .post(Record::value(text.as_bytes()).partition(partition))
                        .expect("room");
                }
            })
        })
        .collect();
    for sender in senders {
        sender.join().expect("no panic");
    }
    let report = producer.close(PATIENCE);
    assert!(report.in_time);
    assert_eq!(report.records_acked, 6000);
    let stats = producer.stats();
    assert_eq!(stats.shards.len(), 2);
    for shard in &stats.shards {
        assert!(shard.records_acked > 0, "a shard without work");
    }
    assert_eq!(stats.total().records_acked, 6000);
    // Each sender's records are in order in each partition.
    let stored = stored(&server, TOPIC);
    assert_eq!(stored.len(), 6000);
    for partition in 0..8 {
        let mut last = [None; 3];
        for record in stored.iter().filter(|s| s.partition == partition) {
            let (sender, n) = record.text().split_once(' ').expect("two numbers");
            let (sender, n): (usize, u32) = (
                sender.parse().expect("a number"),
                n.parse().expect("a number"),
            );
            assert!(last[sender] < Some(n), "out of order");
            last[sender] = Some(n);
        }
    }
    let mut acked_by_id = BTreeMap::new();
    for partition in 0..8 {
        let headers = headers(&server, TOPIC, partition);
        let (id, mut sequence) = (headers[0].producer_id, 0);
        assert!(id >= 0, "without idempotence");
        for header in headers {
            let stamp = (
                header.producer_id,
                header.producer_epoch,
                header.base_sequence,
            );
            assert_eq!(stamp, (id, 0, sequence), "partition {partition}");
            sequence += header.record_count;
        }
        *acked_by_id.entry(id).or_insert(0) += u64::try_from(sequence).expect("counted up");
    }
    let by_id: BTreeSet<u64> = acked_by_id.values().copied().collect();
    let by_shard = stats.shards.iter().map(|shard| shard.records_acked);
    assert_eq!(acked_by_id.len(), 2, "one id a shard");
    assert_eq!(by_id, by_shard.collect());
    assert!(server.shutdown().is_clean());
}

fn warm_up_connects_before_the_first_record(driver: DriverChoice) {
    let (server, producer, _topic) = with_topic(driver, 3);
    producer.warm_up_blocking(&[TOPIC]).expect("in time");
    assert_eq!(producer.stats().total().connections, 1);
    assert_eq!(server.connections(), 2, "a shard's and the controller's");
    block_on(producer.warm_up(&[TOPIC])).expect("it is warm");
    assert_eq!(producer.stats().total().connections, 1);
}

/// acks=0 ends as Sent, 1 and all as Acked; the broker has all 300 records of each.
fn a1_acks_zero_and_one(driver: DriverChoice) {
    let server = broker();
    for acks in ["0", "1", "all"] {
        let producer = builder(&server, driver)
            .set("acks", acks)
            .and_then(|b| b.set("idempotent", if acks == "all" { "true" } else { "false" }))
            .expect("settings")
            .build()
            .expect("a producer");
        let name = format!("acks-{acks}");
        let topic = producer.topic_blocking(&name).expect("it is made");
        for n in 0..300_u32 {
            let outcome = topic
                .try_send(Record::value(&n.to_be_bytes()).partition(0))
                .expect("room");
            if n % 50 == 0 {
                match (acks, block_on(outcome)) {
                    ("0", Outcome::Sent) | ("1" | "all", Outcome::Acked(_)) => {}
                    (_, other) => panic!("acks={acks}: {other:?}"),
                }
            }
        }
        let report = producer.close(PATIENCE);
        assert_eq!((report.in_time, report.records_acked), (true, 300));
        until("all arrived", || {
            server.report().next_offset(&name, 0) == Some(300)
        });
    }
    assert!(server.shutdown().is_clean());
}

/// All three partitions of a topic that had one get records.
fn m4_a_topic_that_grows_is_used_in_full(driver: DriverChoice) {
    let server = broker();
    server
        .with(|broker| broker.create_topic(TOPIC, 1))
        .expect("a new topic");
    let producer = builder(&server, driver)
        .partitioner(Partitioner::RoundRobin)
        .build()
        .expect("a producer");
    let topic = producer.topic_blocking(TOPIC).expect("it is there");
    let local = topic.local();
    assert_eq!((topic.name(), topic.partitions()), (TOPIC, 1));
    server
        .with(|broker| broker.grow_topic(TOPIC, 3))
        .expect("it grows");
    // Any other topic brings news of all.
    producer.topic_blocking("another").expect("it is made");
    until("the partitions are known", || topic.partitions() == 3);
    let partitions: BTreeSet<i32> = (0..6)
        .map(|n| {
            let record = Record::value(b"x");
            let delivery = if n < 3 {
                topic.try_send(record)
            } else {
                local.try_send(record)
            };
            ack(delivery.expect("room")).partition
        })
        .collect();
    assert_eq!(partitions.len(), 3);
}

for_both_drivers!(
    a5_each_way_to_wait_gives_the_place_of_the_record,
    all_of_a_batch_can_be_waited_for_at_once,
    posted_records_arrive_in_order_and_are_counted,
    tags_come_back_with_their_outcomes_each_once,
    a_partitioner_may_send,
    a_thread_that_ends_may_send,
    tagged_records_keep_their_times,
    extend_takes_many_and_says_where_it_stopped,
    extend_does_not_stick_to_one_partition,
    b7_keys_go_where_the_java_client_puts_them,
    b7_the_other_partitioners_do_as_they_say,
    i15_two_shards_share_the_partitions,
    warm_up_connects_before_the_first_record,
    a1_acks_zero_and_one,
    m4_a_topic_that_grows_is_used_in_full,
);
