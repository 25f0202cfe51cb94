use std::future::Future;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Wake, Waker};

use ringpost_core::health::Standing;
use ringpost_core::id::TopicId;
use ringpost_core::metadata::{Cluster, Partition, Topic as Known};

use super::*;
use crate::config::Builder;
use crate::controller::Inbox;
use crate::driver::{Driver, EpollDriver};
use crate::error::SendError;
use crate::flush::Flush;
use crate::producer::Producer;
use crate::record::Record;
use crate::shared::Shared;
use crate::topic::Topic;

const VALUE: [u8; 2000] = [b'v'; 2000];

fn dead() -> View {
    View::new(Standing::Dead, 0, 1, 0)
}

fn good() -> View {
    View::new(Standing::Good, 100, 1, 0)
}

/// A producer without threads, that knows a topic of one partition.
fn producer(builder: &Builder) -> (EpollDriver, Arc<Shared>, Topic, Arc<Lane>) {
    let driver = EpollDriver::new().expect("epoll");
    let (inbox, wakers) = (Inbox::new(driver.waker()), vec![driver.waker()]);
    let shared = builder.shared(inbox, wakers).expect("memory");
    let known = Known {
        name: "t".into(),
        id: TopicId([0; 16]),
        partitions: vec![Partition {
            leader: None,
            leader_epoch: 0,
        }],
    };
    shared.publish(Arc::new(Cluster {
        topics: [(Arc::clone(&known.name), Arc::new(known))].into(),
        ..Cluster::default()
    }));
    let state = shared.known_topic("t").expect("it was just told");
    let lane = Arc::clone(&state.lanes.load()[0]);
    let topic = Topic::new(state, Arc::clone(&shared));
    (driver, shared, topic, lane)
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Whoever waits behind a dead broker goes on when it is back, and ends when its shard is gone: also
/// when nothing was held back there, so that no room comes free by that.
#[test]
fn g2_a_send_that_waits_for_a_lane_is_woken_with_it() {
    let builder = Producer::builder().bootstrap("127.0.0.1:1").bulkhead(0);
    for lost in [false, true] {
        let (_driver, shared, topic, lane) = producer(&builder);
        lane.set_view(dead());
        let woken = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut sent = pin!(topic.send(Record::value(&VALUE).partition(0)));
        assert!(sent.as_mut().poll(&mut cx).is_pending());
        assert!(!woken.0.load(Ordering::SeqCst));
        if lost {
            shared.shard_is_gone(0);
        } else {
            lane.set_view(good());
        }
        assert!(woken.0.load(Ordering::SeqCst));
        let ended = sent.as_mut().poll(&mut cx);
        if lost {
            assert!(matches!(ended, Poll::Ready(Err(SendError::Closed))));
        } else {
            assert!(matches!(ended, Poll::Ready(Ok(_))));
        }
        assert_eq!(shared.bulkhead.next_deadline(), Time::NEVER);
    }
}

/// A `send` that waits comes before a `try_send` that comes later, and holds no more than its room.
#[test]
fn g2_who_waits_comes_first() {
    let builder = Producer::builder().bootstrap("127.0.0.1:1").memory(2 << 20);
    let (_driver, shared, topic, lane) = producer(&builder);
    lane.set_view(dead());
    let record = || Record::value(&VALUE).partition(0);
    while topic.post(record()).is_ok() {}
    let most = (2 << 20) / 100 * 25;
    assert!(shared.bulkhead.held() <= most);
    let mut cx = Context::from_waker(Waker::noop());
    let mut sent = pin!(topic.send(record()));
    assert!(sent.as_mut().poll(&mut cx).is_pending());
    let Take::Batch { ticket, .. } = lane.take(true, u64::MAX) else {
        panic!("there is a batch");
    };
    lane.holds_less(ticket.memory);
    while topic.post(record()).is_ok() {}
    let Poll::Ready(Ok(delivery)) = sent.as_mut().poll(&mut cx) else {
        panic!("its room was kept for it");
    };
    assert!(shared.bulkhead.held() <= most);
    drop(delivery);
    lane.set_view(good());
    assert_eq!(shared.bulkhead.held(), 0);
}

/// Values that were filled in place count for the bulkhead with all that their segments hold.
#[test]
fn g1_values_filled_in_place_are_held_back_with_their_segments() {
    const MEMORY: usize = 8 << 20;
    let builder = Producer::builder().bootstrap("127.0.0.1:1").memory(MEMORY);
    let (_driver, shared, topic, lane) = producer(&builder);
    lane.set_view(dead());
    // Just more than half of a segment.
    let append = || {
        let record = Record::value(b"").partition(0);
        let appended = topic.append_with(record, 33 << 10, |value| value.fill(1));
        appended.ok()
    };
    let taken = std::iter::from_fn(append).count();
    assert!(taken > 0);
    assert!(
        shared.pool.in_use() <= MEMORY / 100 * 25,
        "{taken} were taken"
    );
    assert_eq!(shared.pool.in_use(), shared.bulkhead.held());
}

/// Whoever learns that a record was lost with its shard, and looks at a flush, finds it not over before
/// all have their outcome.
#[test]
fn a_flush_is_not_over_before_what_is_buried_has_its_outcome() {
    struct Looks(std::sync::Mutex<(Flush, usize)>);
    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            let mut looks = self.0.lock().expect("no panic");
            looks.1 = looks.0.pending();
        }
    }
    let builder = Producer::builder().bootstrap("127.0.0.1:1");
    let (_driver, shared, topic, _lane) = producer(&builder);
    let mut delivery = topic
        .try_send(Record::value(&VALUE).partition(0))
        .expect("room");
    let looks = Arc::new(Looks(std::sync::Mutex::new((shared.flush(), 0))));
    let waker = Waker::from(Arc::clone(&looks));
    let polled = pin!(&mut delivery).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    shared.shard_is_gone(0);
    assert!(delivery.outcome().is_some());
    let mut looks = looks.0.lock().expect("no panic");
    assert_eq!((looks.1, looks.0.pending()), (1, 0));
}
