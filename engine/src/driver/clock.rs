//! The clocks. Read here and nowhere else.
//!
//! Two of them twice: the monotonic clock for deadlines and the wall clock for record timestamps,
//! each precise (about 25 ns on a virtual machine) and coarse (about 6 ns, as old as the kernel's
//! last tick, 1 to 4 ms). The precise ones are read once per batch and per turn of a loop, the
//! coarse wall clock once per record.

use ringpost_core::time::Time;

/// Now, for deadlines: the monotonic clock, which neither jumps nor goes back.
#[inline]
pub(crate) fn now() -> Time {
    let (seconds, nanos) = read(libc::CLOCK_MONOTONIC);
    Time(u64::try_from(seconds).unwrap_or(0) * 1_000_000_000 + u64::try_from(nanos).unwrap_or(0))
}

/// Milliseconds since 1970, precise.
#[inline]
pub(crate) fn wall_ms() -> i64 {
    let (seconds, nanos) = read(libc::CLOCK_REALTIME);
    shifted(seconds * 1000 + nanos / 1_000_000)
}

/// Milliseconds since 1970, as of the kernel's last tick.
#[inline]
pub(crate) fn wall_ms_coarse() -> i64 {
    let (seconds, nanos) = read(libc::CLOCK_REALTIME_COARSE);
    shifted(seconds * 1000 + nanos / 1_000_000)
}

/// Tests set the wall clock, for their own thread: appending reads it, and nothing else does.
#[cfg(not(test))]
#[inline]
fn shifted(wall_ms: i64) -> i64 {
    wall_ms
}

#[cfg(test)]
use tests::shifted;

#[inline]
fn read(clock: libc::clockid_t) -> (i64, i64) {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec for the call to write, and is not kept by it.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    // It fails for clocks that do not exist; these exist on every Linux.
    debug_assert_eq!(result, 0);
    (time.tv_sec, time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use ringpost_broker::{Server, ServerConfig};

    use super::*;
    use crate::{DriverChoice, Outcome, Pin, Producer, Record};

    thread_local! {
        static SHIFT_MS: Cell<i64> = const { Cell::new(0) };
    }

    pub(super) fn shifted(wall_ms: i64) -> i64 {
        wall_ms + SHIFT_MS.get()
    }

    #[test]
    fn clocks_agree() {
        let before = now();
        assert!(now() >= before);
        // A tick is at most 10 ms on any Linux; allow for a preempted test.
        assert!((wall_ms() - wall_ms_coarse()).abs() < 60_000);
    }

    const HOUR_MS: i64 = 3_600_000;
    const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

    /// The wall clock jumps by an hour and a year, forth and back, between batches and within one:
    /// every record is acked in order, long before a deadline a jump could have passed; a batch's
    /// first record bears the time of its append, those behind it that time or a later one.
    #[test]
    fn x3_a_wall_clock_that_jumps_moves_timestamps_and_nothing_else() {
        const PATIENCE: Duration = Duration::from_secs(60);
        let mut config = ServerConfig::storing();
        // Otherwise it refuses what is more than an hour ahead, as Kafka does.
        config.broker.timestamp_ahead_ms_max = None;
        let server = Server::start(config).expect("a free port");
        server
            .with(|broker| broker.create_topic("clock", 1))
            .expect("a new topic");
        let jumps = [0, HOUR_MS, -HOUR_MS, YEAR_MS, -YEAR_MS, 0];
        for linger in [Duration::ZERO, Duration::from_secs(50)] {
            let producer = Producer::builder()
                .bootstrap(server.bootstrap())
                .driver(DriverChoice::Epoll)
                .pin(Pin::Off)
                .linger(linger)
                .build()
                .expect("a producer");
            let topic = producer.topic_blocking("clock").expect("it is there");
            let mut deliveries = Vec::new();
            for jump in jumps {
                SHIFT_MS.set(jump);
                deliveries.push(topic.try_send(Record::value(b"x")).expect("room"));
                if linger.is_zero() {
                    producer.flush_blocking(PATIENCE).expect("in time");
                }
            }
            SHIFT_MS.set(0);
            producer.flush_blocking(PATIENCE).expect("in time");
            let mut last = None;
            let mut first_ms = None;
            for (delivery, jump) in deliveries.into_iter().zip(jumps) {
                let ack = match delivery.outcome() {
                    Some(Outcome::Acked(ack)) => ack,
                    other => panic!("{other:?}"),
                };
                assert!(ack.offset > last, "{:?} behind {last:?}", ack.offset);
                last = ack.offset;
                // In one batch none is before the first, which was appended without a jump.
                let jump = if linger.is_zero() { jump } else { jump.max(0) };
                let off = ack.timestamp_ms - (wall_ms() + jump);
                assert!(off.abs() < HOUR_MS / 2, "{off} ms off at a jump of {jump}");
                let first_ms = *first_ms.get_or_insert(ack.timestamp_ms);
                assert!(linger.is_zero() || ack.timestamp_ms >= first_ms);
            }
            let total = producer.stats().total();
            assert_eq!((total.retries, total.connection_failures), (0, 0));
            assert!(producer.close(PATIENCE).in_time);
        }
        assert!(server.shutdown().is_clean());
    }

    /// A reading for deadlines lies between two of the monotonic clock, which no jump of the wall
    /// clock moves, and which stands still while the machine is suspended.
    #[test]
    fn x3_deadlines_are_of_the_monotonic_clock() {
        let nanos = |clock| {
            let (seconds, nanos) = read(clock);
            i128::from(seconds) * 1_000_000_000 + i128::from(nanos)
        };
        let before = nanos(libc::CLOCK_MONOTONIC);
        let read = i128::from(now().0);
        let after = nanos(libc::CLOCK_MONOTONIC);
        assert!((before..=after).contains(&read), "{before} {read} {after}");
    }
}
