//! Networks that cut, swallow, hold and change bytes, between real sockets.
//!
//! Every test ends the same way: each record acked, and in the log once and in order, which the
//! broker model tells by the numbers in them.

use ringpost::{DriverChoice, Producer, Record, Topic};
use ringpost_broker::{Server, numbering};

use crate::proxy::{Proxy, Rule};
use crate::support::*;

/// A producer that reaches its broker through a proxy, and soon tries again.
struct Route {
    server: Server,
    proxy: Proxy,
    producer: Producer,
    topic: Topic,
    /// Records posted so far.
    posted: u64,
}

impl Route {
    fn through(
        driver: DriverChoice,
        request_timeout: &str,
        proxy: impl FnOnce(&Server) -> Proxy,
    ) -> Self {
        let server = broker_with(|broker| broker.numbered = true);
        server
            .with(|broker| broker.create_topic("network", 1))
            .expect("a new topic");
        let proxy = proxy(&server);
        let producer = builder(&server, driver)
            .set("retry_backoff", "2ms")
            .and_then(|b| b.set("reconnect_backoff", "2ms"))
            .and_then(|b| b.set("reconnect_backoff_max", "20ms"))
            .and_then(|b| b.set("request_timeout", request_timeout))
            .expect("settings")
            .build()
            .expect("a producer");
        server.with(|broker| broker.set_node_address(1, "127.0.0.1", proxy.port));
        let topic = producer.topic_blocking("network").expect("it is there");
        Self {
            server,
            proxy,
            producer,
            topic,
            posted: 0,
        }
    }

    fn new(driver: DriverChoice, rules: &[Rule]) -> Self {
        Self::through(driver, "30s", |server| Proxy::start(server.addr(), rules))
    }

    fn post(&mut self, count: u64) {
        let mut value = [0; 100];
        for _ in 0..count {
            numbering::stamp(&mut value, 1, self.posted);
            self.posted += 1;
            drop(
                self.topic
                    .send_blocking(Record::value(&value))
                    .expect("room"),
            );
        }
    }

    /// A record after the other, each awaited, until every rule was met, and some more.
    fn meet_all_rules(&mut self) {
        while self.proxy.rules_left() > 0 {
            self.post(3);
            self.producer.flush_blocking(PATIENCE).expect("in time");
        }
        self.post(50);
    }

    /// All that was posted is acked, and stored once and in order; so many batches came damaged.
    fn finish_with(self, damaged: u64) -> ringpost::Stats {
        let report = self.producer.close(PATIENCE);
        assert_eq!(
            (report.in_time, report.records_acked),
            (true, self.posted),
            "{report:?}"
        );
        let stats = self.producer.stats();
        assert_eq!(stats.memory_in_use, 0);
        let mut report = self.server.shutdown();
        assert_eq!(report.corrupt, damaged);
        report.corrupt = 0;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.records, self.posted);
        stats
    }

    fn finish(self) -> ringpost::Stats {
        self.finish_with(0)
    }
}

/// Resets behind the first, fourth, a header's, a middle and the last but one byte: each costs a
/// connection, and every record is acked and stored once, in order.
fn n1_a_reset_within_a_request(driver: DriverChoice) {
    let rules = [0, 1, 4, 12, 60, 150, usize::MAX].map(Rule::ResetBehind);
    let mut route = Route::new(driver, &rules);
    route.meet_all_rules();
    assert!(route.proxy.connections() > rules.len());
    let stats = route.finish();
    assert_eq!(stats.total().connection_failures, rules.len() as u64);
}

/// Ends with the last bytes missing, and with the whole request stored but not answered: each
/// record is stored once, and a stored batch is recognised when it comes again.
fn n1_n2_an_end_at_the_end_of_a_request(driver: DriverChoice) {
    let rules = [0, 1, 2, 30, 0].map(Rule::EndBefore);
    let mut route = Route::new(driver, &rules);
    route.meet_all_rules();
    assert_eq!(route.server.report().retries_recognised, 2);
    let stats = route.finish();
    assert_eq!(stats.total().connection_failures, rules.len() as u64);
}

/// The other half ends with requests in flight: a new connection without waiting for a timeout,
/// and every record stored once.
fn n2_a_half_closed_connection_is_left(driver: DriverChoice) {
    let mut route = Route::new(driver, &[Rule::HalfClosed; 3]);
    route.meet_all_rules();
    let stats = route.finish();
    assert_eq!(stats.total().connection_failures, 3);
}

/// Bytes swallowed on the way there, on the way back, and not even read (the other end of a
/// half-open connection): each costs one request timeout, and every record is stored once.
fn n2_n3_blackholes_cost_a_request_timeout_each(driver: DriverChoice) {
    let rules = [Rule::ToNobody, Rule::FromNobody, Rule::Stuck];
    // So long that nobody on the way is taken for a blackhole because it waits for a processor.
    let mut route = Route::through(driver, "2s", |server| Proxy::start(server.addr(), &rules));
    route.meet_all_rules();
    let stats = route.finish();
    assert_eq!(stats.total().connection_failures, 3);
}

/// Fragments of one byte both ways: 300 records acked over one connection, without a failure.
fn n4_fragments_of_one_byte(driver: DriverChoice) {
    let mut route = Route::through(driver, "30s", |server| Proxy::byte_by_byte(server.addr()));
    route.post(300);
    let stats = route.finish();
    let total = stats.total();
    assert_eq!((total.connection_failures, total.retries), (0, 0));
}

/// A bit of a batch flipped on its way: the broker answers CORRUPT_MESSAGE, the batch is sent again
/// as it was, and every record is stored once.
fn h13_a_flipped_bit_of_a_request_is_sent_again(driver: DriverChoice) {
    // Behind the batch come three empty lists of tagged fields; the batch ends in a numbered value.
    for bit in [24, 31, 100, 333, 800] {
        let mut route = Route::new(driver, &[Rule::Flip(bit)]);
        route.post(1);
        route.meet_all_rules();
        let stats = route.finish_with(1);
        assert_eq!(
            (stats.total().retries, stats.total().connection_failures),
            (1, 0),
            "bit {bit}"
        );
    }
}

/// 20,000 records: each acked, over one connection, without a retry. `scripts/lossy` runs this where
/// packets are lost, doubled and late.
fn n6_a_stream_of_records_over_any_network(driver: DriverChoice) {
    let mut route = Route::new(driver, &[]);
    route.post(20_000);
    let stats = route.finish();
    let total = stats.total();
    assert_eq!((total.connection_failures, total.retries), (0, 0));
}

for_both_drivers!(
    n6_a_stream_of_records_over_any_network,
    n1_a_reset_within_a_request,
    n1_n2_an_end_at_the_end_of_a_request,
    n2_a_half_closed_connection_is_left,
    n2_n3_blackholes_cost_a_request_timeout_each,
    n4_fragments_of_one_byte,
    h13_a_flipped_bit_of_a_request_is_sent_again,
);
