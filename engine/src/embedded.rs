//! A producer whose shard is driven by the application's own thread: no other thread, no wake-up
//! between threads. For services that spin on a core of their own.

use std::future::Future;
use std::io;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::config::{Builder, ConfigErrors, WaitPolicy};
use crate::controller::{Controller, Inbox, Names};
use crate::driver::{ChosenDriver, Driver, DriverKind, EpollDriver, RingDriver, Wait, clock};
use crate::error::{StartError, TopicError};
use crate::hook::Hook;
use crate::outcome::Why;
use crate::producer::{Producer, seed};
use crate::shard::{Shard, ShardSettings, Turn, shorter};
use crate::shared::Shared;
use crate::topic::Topic;

/// The part of a producer that its application drives: one shard and the controller. Stays in the
/// thread that made it.
///
/// Nothing happens between calls of [`Embedded::turn`]; so nothing may block on the producer in
/// this thread (`wait`, `topic_blocking`, `flush_blocking`): turn until the outcome is there. Nor
/// may `on_undelivered`, which is called in it, by `turn` and at the end.
///
/// ```no_run
/// use std::time::Duration;
/// use ringpost::{Producer, Record};
/// let (producer, mut engine) = Producer::builder().bootstrap("127.0.0.1:9092").build_embedded()?;
/// let topic = engine.topic(&producer, "orders", Duration::from_secs(5))?;
/// let delivery = topic.try_send(Record::value(b"hello"))?;
/// let outcome = loop {
///     if let Some(outcome) = delivery.outcome() { break outcome; }
///     engine.turn(Duration::ZERO)?;
/// };
/// # println!("{outcome:?}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Embedded {
    /// `None` only while it is dropped in another process.
    driven: Option<Driven>,
    shared: Arc<Shared>,
    ended: bool,
    /// The process that made it: a forked child must leave the parent's descriptors alone.
    process: u32,
}

/// What is driven.
struct Driven {
    shard: AnyShard,
    controller: Controller,
    hook: Option<Hook>,
}

/// A ring belongs to one thread, and so does this.
enum AnyShard {
    Ring(Box<Shard<RingDriver>>),
    Epoll(Box<Shard<EpollDriver>>),
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Embedded {
    /// One turn: takes what is ready, sends, receives, settles. Waits at most `at_most` when there is
    /// nothing to do and nothing new, and then for the first event; what that brought is settled by the
    /// next turn, which does not wait. Zero never enters the kernel for nothing.
    ///
    /// # Errors
    /// When the kernel fails the driver. What was under way is then settled as lost.
    pub fn turn(&mut self, at_most: Duration) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        let wait = if at_most.is_zero() {
            Wait::No
        } else {
            Wait::For(at_most)
        };
        let Some(driven) = &mut self.driven else {
            return Ok(());
        };
        let turned = match &mut driven.shard {
            AnyShard::Ring(shard) => turn(shard, &mut driven.controller, wait),
            AnyShard::Epoll(shard) => turn(shard, &mut driven.controller, wait),
        };
        match turned {
            Ok(Turn::Again) => {
                self.report();
                Ok(())
            }
            Ok(Turn::Ended) => {
                self.end(Why::Closed);
                Ok(())
            }
            Err(error) => {
                self.end(Why::ShardLost);
                Err(error)
            }
        }
    }

    fn end(&mut self, why: Why) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.shared.end();
        loop {
            let more = match self.driven.as_mut().map(|driven| &mut driven.shard) {
                Some(AnyShard::Ring(shard)) => shard.give_up(why),
                Some(AnyShard::Epoll(shard)) => shard.give_up(why),
                None => false,
            };
            // Between the rounds: more could not wait at a time.
            self.report();
            if !more {
                break;
            }
        }
        self.shared.shard_is_gone(0);
        if let Some(hook) = self.hook() {
            hook.give_up();
        }
    }

    /// Tells the application what was not delivered.
    fn report(&mut self) {
        if let Some(hook) = self.hook() {
            hook.work();
        }
    }

    fn hook(&mut self) -> Option<&mut Hook> {
        self.driven.as_mut()?.hook.as_mut()
    }

    /// Whether the producer was closed and everything is settled.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// A topic of `producer`, turning until it is known.
    ///
    /// # Errors
    /// As [`Producer::topic`].
    pub fn topic(
        &mut self,
        producer: &Producer,
        name: &str,
        timeout: Duration,
    ) -> Result<Topic, TopicError> {
        self.run_until(producer.topic(name), timeout)
            .unwrap_or_else(|| {
                if self.ended {
                    return Err(TopicError::Closed);
                }
                let reason = format!("no answer within the {timeout:?} that were given");
                Err(TopicError::NoBroker {
                    topic: name.into(),
                    attempts: vec![("all brokers".into(), reason.into())],
                })
            })
    }

    /// Turns until a future of this producer is ready (a flush, a delivery), at most for `timeout`.
    pub fn run_until<F: Future>(&mut self, future: F, timeout: Duration) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        let deadline = clock::now() + timeout;
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return Some(output);
            }
            let now = clock::now();
            if now >= deadline || self.ended {
                return None;
            }
            let at_most = deadline.since(now).min(Duration::from_millis(1));
            if self.turn(at_most).is_err() {
                return None;
            }
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // The parent's connections and its ring: closing them here would end them there.
            mem::forget(self.driven.take());
            return;
        }
        // What the driver holds it waits for; what was not settled ends as lost.
        self.end(Why::Closed);
    }
}

fn turn<D: Driver>(
    shard: &mut Shard<D>,
    controller: &mut Controller,
    wait: Wait,
) -> io::Result<Turn> {
    let now = clock::now();
    let may_wait = wait != Wait::No;
    let over = may_wait && controller.patience_ends() <= now;
    let (driver, socket) = shard.driver_and_socket();
    let busy = controller.step(now, driver, socket);
    let wait = match wait {
        // Whoever turns is to see what came of it before this sleeps.
        _ if busy || over => Wait::No,
        wait if may_wait => shorter(wait, now, controller.next_deadline()),
        wait => wait,
    };
    shard.turn(Some(&mut controller.directory), wait)
}

impl Builder {
    /// Starts a producer without threads. The setting `shards` is not used: there is one; nor are
    /// `wait` and `pin`: those are the application's. `bootstrap` takes addresses, not names.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn build_embedded(self) -> Result<(Producer, Embedded), StartError> {
        let faults = self.faults();
        if !faults.is_empty() {
            return Err(ConfigErrors(faults).into());
        }
        let chosen = self.choose_driver()?;
        match chosen.kind {
            DriverKind::Ring => {
                let driver =
                    RingDriver::new().map_err(|refused| StartError::Driver(refused.to_string()))?;
                self.embed(driver, chosen, |shard| AnyShard::Ring(Box::new(shard)))
            }
            DriverKind::Epoll => {
                let driver = EpollDriver::new().map_err(|error| StartError::System {
                    what: "an epoll descriptor",
                    error,
                })?;
                self.embed(driver, chosen, |shard| AnyShard::Epoll(Box::new(shard)))
            }
        }
    }

    fn embed<D: Driver>(
        self,
        driver: D,
        chosen: ChosenDriver,
        wrap: impl FnOnce(Shard<D>) -> AnyShard,
    ) -> Result<(Producer, Embedded), StartError> {
        let inbox = Inbox::new(driver.waker());
        let shared = self.shared(inbox, vec![driver.waker()])?;
        let own = Arc::clone(&shared.shards[0]);
        let settings = ShardSettings {
            // How long to wait is said with each turn.
            wait: WaitPolicy::Park,
            ..self.shard_settings(0)?
        };
        let shard = Shard::new(driver, own, Arc::clone(&shared), settings);
        let controller = Controller::new(
            self.directory_settings(),
            self.hosts(),
            seed(usize::MAX),
            Arc::clone(&shared),
            Names::Refused,
        );
        let hook = self
            .needs_hook()
            .then(|| Hook::new(self.on_undelivered, Arc::clone(&shared), seed(1)));
        let producer = Producer::without_threads(Arc::clone(&shared), chosen);
        Ok((
            producer,
            Embedded {
                driven: Some(Driven {
                    shard: wrap(shard),
                    controller,
                    hook,
                }),
                shared,
                ended: false,
                process: std::process::id(),
            },
        ))
    }
}
