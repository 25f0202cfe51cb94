//! The engine driven by the application's own thread: the one sender makes it, sends, turns its shard
//! between records and while it waits, and sees the acks itself. The client has no other thread.
//!
//! | delivery | acks are seen |
//! |---|---|
//! | `queue` | in the completion queue, after each turn |
//! | `future` | in the deliveries, in the order sent, after each turn |
//! | `wait` | by turning until the one record is settled |
//! | `forget` | not at all: the engine's own counters and histograms stand in |
//!
//! With `wait=park` a turn with nothing to do sleeps in the kernel; with `wait=spin` none does.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use ringpost::{Completion, LocalTopic, Producer, StartError};

use crate::client::link::find_leaders;
use crate::client::ringpost::{
    DELIVERIES_MAX, configure, counters, record, record_of, refused, settled, stages,
};
use crate::client::{Client, Counters, Facts, Payload, Refused, Sink, Stages};
use crate::exit::Failure;
use crate::number::index;
use crate::plan::{Delivery, Plan};
use crate::run::Run;
use crate::sender::{Phases, send_all};
use crate::stamp::Stamp;
use crate::tally::Settled;

/// How long the cluster may take to tell of the topic, and to be connected to.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest turn while one record is awaited: its answer ends it.
const ANSWER_LOOK: Duration = Duration::from_millis(20);

/// A producer whose shard lives in the sender's thread.
#[derive(Debug)]
pub struct Embedded {
    plan: Plan,
    /// Addresses, no names: nobody could look those up without waiting.
    brokers: Vec<String>,
    /// Made by the sender, whose thread alone may turn the engine.
    producer: OnceLock<Producer>,
}

impl Embedded {
    /// Looks up the brokers' names and asks for the topic. The producer itself is made, and
    /// connected, by the sender before the first phase.
    pub fn connect(plan: &Plan, brokers: &[String]) -> Result<Self, Failure> {
        let addresses = addresses(brokers)?;
        let leaders = find_leaders(&addresses, &plan.topic).map_err(Failure::connection)?;
        for (leader, _) in leaders {
            let host = leader.rsplit_once(':').map_or(&*leader, |(host, _)| host);
            if host.parse::<IpAddr>().is_err() {
                return Err(Failure::config(format!(
                    "embedded: the cluster calls a broker {leader}, and a shard in the application's \
                     thread cannot wait for a name to be looked up; let brokers advertise addresses \
                     (advertised.listeners), or leave out --embedded"
                )));
            }
        }
        Ok(Self {
            plan: plan.clone(),
            brokers: addresses,
            producer: OnceLock::new(),
        })
    }

    /// Makes and connects the producer, in the thread that will drive it.
    fn start<'a>(&'a self, run: &'a Run) -> Result<(&'a Producer, Shard<'a>, LocalTopic), Failure> {
        let wrong = |error: &dyn std::fmt::Display| Failure::config(error.to_string());
        let unreachable = |error: &dyn std::fmt::Display| {
            Failure::connection(format!("{}: {error}", self.brokers.join(",")))
        };
        let spins = self.plan.wait == "spin";
        let plan = Plan {
            // How it waits is how it is turned.
            wait: "park".into(),
            ..self.plan.clone()
        };
        let builder = configure(&plan, &self.brokers).map_err(|error| wrong(&error))?;
        let (producer, mut engine) = builder.build_embedded().map_err(|error| match error {
            StartError::Config(_) | StartError::Driver(_) => wrong(&error),
            StartError::System { .. } => unreachable(&error),
        })?;
        let topic = engine
            .topic(&producer, &plan.topic, PATIENCE)
            .map_err(|error| unreachable(&error))?;
        engine
            .run_until(producer.warm_up(&[&plan.topic]), PATIENCE)
            .ok_or_else(|| unreachable(&format!("not connected in {} s", PATIENCE.as_secs())))?
            .map_err(|error| unreachable(&error))?;
        let shard = Shard { engine, run, spins };
        Ok((self.producer.get_or_init(|| producer), shard, topic.local()))
    }
}

/// What `host:port` stands for.
fn addresses(brokers: &[String]) -> Result<Vec<String>, Failure> {
    let mut addresses = Vec::new();
    for broker in brokers {
        let unknown = |error| Failure::connection(format!("{broker}: {error}"));
        let found = broker.to_socket_addrs().map_err(unknown)?;
        addresses.extend(found.map(|address: SocketAddr| address.to_string()));
    }
    Ok(addresses)
}

impl Client for Embedded {
    fn facts(&self) -> Facts {
        let stats = self.producer.get().map(Producer::stats);
        let idle = match self.plan.wait.as_str() {
            "spin" => "spins",
            _ => "sleeps",
        };
        Facts {
            driver: stats.as_ref().map_or("none", |stats| stats.driver).into(),
            driver_reason: match stats {
                Some(stats) => stats.driver_reason,
                None => "the producer did not start".into(),
            },
            shards: vec![format!(
                "shard 0 driven by the application's thread, which {idle} when it has nothing to do"
            )],
            differs: Vec::new(),
        }
    }

    fn collectors(&self) -> usize {
        0
    }

    fn tallies(&self, producers: usize) -> usize {
        match self.plan.delivery {
            Delivery::Forget => 0,
            Delivery::Queue | Delivery::Future | Delivery::Wait => producers,
        }
    }

    fn send(&self, run: &Run, phases: &Phases, sender: usize) {
        let (producer, shard, topic) = match self.start(run) {
            Ok(started) => started,
            Err(failure) => return run.fail(failure),
        };
        let to = To { run, topic, sender };
        match self.plan.delivery {
            Delivery::Forget => drive(phases, shard, to, OneWay),
            Delivery::Queue => {
                let completions = Vec::new();
                drive(
                    phases,
                    shard,
                    to,
                    Tagged {
                        producer,
                        completions,
                    },
                );
            }
            Delivery::Future => drive(phases, shard, to, Held(VecDeque::new())),
            Delivery::Wait => send_all(run, phases, sender, &mut Wait { shard, to }),
        }
    }

    fn collect(&self, _run: &Run, _collector: usize) {}

    fn counters(&self) -> Counters {
        self.producer.get().map(counters).unwrap_or_default()
    }

    fn settled(&self) -> Option<Settled> {
        let none = Settled::default;
        (self.plan.delivery == Delivery::Forget)
            .then(|| self.producer.get().map_or_else(none, settled))
    }

    fn stages(&self) -> Option<Stages> {
        self.producer.get().map(stages)
    }

    /// The sender turns meanwhile.
    fn flush(&self, deadline: Duration) {
        if let Some(producer) = self.producer.get() {
            // What is not settled in time shows in the counts.
            let _ = producer.flush_blocking(deadline);
        }
    }

    fn close(&self, deadline: Duration) {
        if let Some(producer) = self.producer.get() {
            let _ = producer.close(deadline);
        }
    }
}

/// The engine in the sender's thread. Dropped, it settles what it still has.
struct Shard<'a> {
    engine: ringpost::Embedded,
    run: &'a Run,
    /// Never sleeps.
    spins: bool,
}

impl Shard<'_> {
    /// One turn, which waits at most so long, if it waits at all.
    fn turn(&mut self, at_most: Duration) {
        if self.engine.has_ended() {
            return thread::park_timeout(at_most);
        }
        let at_most = if self.spins { Duration::ZERO } else { at_most };
        if let Err(error) = self.engine.turn(at_most) {
            let what = format!("the kernel failed the engine's driver: {error}");
            self.run.fail(Failure::connection(what));
        }
    }
}

/// Where a sender's records go, and who counts them.
struct To<'a> {
    run: &'a Run,
    topic: LocalTopic,
    sender: usize,
}

/// How a sender that turns the shard itself learns what became of its records.
trait Acks {
    /// Hands one record over.
    fn send(&mut self, to: &mut To<'_>, payload: Payload<'_>, stamp: Stamp) -> Result<(), Refused>;

    /// Counts what has settled.
    fn look(&mut self, to: &To<'_>);
}

/// Sends, turns and looks, until the run is over; then once more, when all has settled.
fn drive(phases: &Phases, shard: Shard<'_>, to: To<'_>, acks: impl Acks) {
    let (run, sender) = (to.run, to.sender);
    let mut driven = Driven { shard, to, acks };
    send_all(run, phases, sender, &mut driven);
    let Driven {
        shard,
        to,
        mut acks,
    } = driven;
    drop(shard);
    acks.look(&to);
}

struct Driven<'a, A> {
    shard: Shard<'a>,
    to: To<'a>,
    acks: A,
}

impl<A: Acks> Sink for Driven<'_, A> {
    #[inline]
    fn send(&mut self, payload: Payload<'_>, stamp: Stamp) -> Result<(), Refused> {
        self.acks.send(&mut self.to, payload, stamp)
    }

    #[inline]
    fn work(&mut self) {
        self.pause(Duration::ZERO);
    }

    fn pause(&mut self, at_most: Duration) {
        self.shard.turn(at_most);
        self.acks.look(&self.to);
    }
}

/// `delivery=forget`.
struct OneWay;

impl Acks for OneWay {
    #[inline]
    fn send(&mut self, to: &mut To<'_>, payload: Payload<'_>, _: Stamp) -> Result<(), Refused> {
        to.topic.post(record_of(payload)).map_err(refused)
    }

    fn look(&mut self, _: &To<'_>) {}
}

/// `delivery=queue`.
struct Tagged<'a> {
    producer: &'a Producer,
    completions: Vec<Completion>,
}

impl Acks for Tagged<'_> {
    #[inline]
    fn send(&mut self, to: &mut To<'_>, payload: Payload<'_>, stamp: Stamp) -> Result<(), Refused> {
        to.topic
            .enqueue(record_of(payload), stamp.tag())
            .map_err(refused)
    }

    fn look(&mut self, to: &To<'_>) {
        let queue = self.producer.completions();
        while queue.drain(&mut self.completions) > 0 {
            let tally = &to.run.settled[to.sender];
            let mut recording = tally.at(to.run.clock.now());
            for completion in &self.completions {
                let stamp = Stamp::from_tag(completion.tag);
                record(&mut recording, stamp, &completion.outcome);
            }
            self.completions.clear();
        }
    }
}

/// `delivery=future`: what is not settled, in the order sent.
struct Held(VecDeque<(Stamp, ringpost::Delivery)>);

impl Acks for Held {
    #[inline]
    fn send(&mut self, to: &mut To<'_>, payload: Payload<'_>, stamp: Stamp) -> Result<(), Refused> {
        if self.0.len() >= index(DELIVERIES_MAX) {
            return Err(Refused::Full);
        }
        let delivery = to.topic.try_send(record_of(payload)).map_err(refused)?;
        self.0.push_back((stamp, delivery));
        Ok(())
    }

    fn look(&mut self, to: &To<'_>) {
        let mut recording = None;
        while let Some((stamp, delivery)) = self.0.front()
            && let Some(outcome) = delivery.outcome()
        {
            let tally = &to.run.settled[to.sender];
            let recording = recording.get_or_insert_with(|| tally.at(to.run.clock.now()));
            record(recording, *stamp, &outcome);
            self.0.pop_front();
        }
    }
}

/// `delivery=wait`.
struct Wait<'a> {
    shard: Shard<'a>,
    to: To<'a>,
}

impl Sink for Wait<'_> {
    fn send(&mut self, payload: Payload<'_>, stamp: Stamp) -> Result<(), Refused> {
        let delivery = self
            .to
            .topic
            .try_send(record_of(payload))
            .map_err(refused)?;
        let outcome = loop {
            if let Some(outcome) = delivery.outcome() {
                break outcome;
            }
            self.shard.turn(ANSWER_LOOK);
        };
        let run = self.to.run;
        let mut recording = run.settled[self.to.sender].at(run.clock.now());
        record(&mut recording, stamp, &outcome);
        Ok(())
    }

    fn pause(&mut self, at_most: Duration) {
        self.shard.turn(at_most);
    }

    fn waits(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_and_addresses_stay() {
        let brokers = ["127.0.0.1:9092", "[::1]:9093"].map(str::to_owned);
        assert_eq!(addresses(&brokers).expect("addresses"), brokers);
        let named = addresses(&["localhost:9094".into()]).expect("every host has that name");
        assert!(!named.is_empty());
        for address in named {
            assert!(address.parse::<SocketAddr>().is_ok(), "{address}");
        }
        let unknown = addresses(&["no such host:1".into()]).expect_err("no name");
        assert!(unknown.to_string().contains("no such host:1"), "{unknown}");
    }
}
