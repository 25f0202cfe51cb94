//! The application: sends in bursts, waits for memory or does not, and gives up waiting.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ringpost_core::time::Time;
use ringpost_memory::Take;

use crate::lanes::Entry;
use crate::setup::{ms, us};

use super::knobs::Draw;
use super::payload::LEN_MIN;
use super::run::{Event, Run};
use super::token::TokenBuffer;

/// Records that wait for memory at once, at most.
const WAITING_MAX: usize = 30;

/// Somebody who waits for memory to append a record.
#[derive(Debug)]
pub(super) struct Waiting {
    take: Take,
    lane: u32,
    bound: bool,
    len: usize,
    deadline_ns: u64,
}

/// Somebody who waits for records to be settled.
#[derive(Debug)]
pub(super) struct Flush {
    /// By lane, so many.
    begun: Vec<usize>,
    /// By then they are.
    until: Time,
}

/// A record has its verdict so long after its deadline at the latest: brokers and lanes are looked at in
/// steps.
const FLUSH_SLACK: Duration = ms(10);

/// Wakes one who waits: notes the number.
struct Bell {
    number: u64,
    rung: Arc<Mutex<Vec<u64>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        rung.push(self.number);
    }
}

impl Run {
    pub(super) fn burst(&mut self) {
        let every = self.knobs.burst_every;
        let at = self.now + self.app.around(every).max(us(1));
        self.schedule(at, Event::Burst);
        if self.lanes.is_empty() || self.closing {
            return;
        }
        let mut lane = self.app.below(self.lanes.len());
        for _ in 0..=self.app.below(self.knobs.burst_max) {
            let bound = self.app.below(100) < self.knobs.bound_percent;
            if bound {
                lane = self.app.below(self.lanes.len());
            }
            let spread = self.knobs.value_bytes_max.saturating_sub(LEN_MIN);
            let len = LEN_MIN + self.app.below(spread + 1);
            let waits = self.app.below(100) < self.knobs.waiting_percent;
            self.happened += 1;
            let lane = u32::try_from(lane).expect("few lanes");
            let until = (self.now + self.knobs.max_block).0;
            self.append(lane, bound, len, waits.then_some(until), None);
        }
    }

    /// Appends a record, or waits for memory until then to do it. `given` is what a wait brought.
    pub(super) fn append(
        &mut self,
        lane: u32,
        bound: bool,
        len: usize,
        until_ns: Option<u64>,
        given: Option<TokenBuffer>,
    ) {
        let at = self.lanes[lane as usize];
        let payload = self.history.next(lane, bound);
        let mut value = std::mem::take(&mut self.value);
        payload.write(len, &mut value);
        let stamped_ms = self.now_ms() + self.wall_ms;
        let entry = Entry {
            timestamp_ms: stamped_ms,
            value: &value,
            free: !bound,
        };
        let lanes = &mut self.shards[at.shard].lanes;
        let done = lanes.append(self.now, at.id, entry, given);
        self.value = value;
        match done {
            Ok(appended) => {
                debug_assert_eq!(appended.number, payload.number);
                self.history.invoked(&payload);
            }
            Err(full) => {
                let Some(deadline_ns) = until_ns.filter(|_| self.waiting.len() < WAITING_MAX)
                else {
                    return;
                };
                let waiting = Waiting {
                    take: self.pool.take(full.0, deadline_ns),
                    lane,
                    bound,
                    len,
                    deadline_ns,
                };
                self.asked += 1;
                let number = self.asked;
                self.waiting.insert(number, waiting);
                self.serve(number);
                for shard in &mut self.shards {
                    shard.lanes.flush_all();
                }
            }
        }
    }

    /// Those who were woken look again, soon.
    pub(super) fn serve_waiting(&mut self) {
        loop {
            let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
            let numbers = std::mem::take(&mut *rung);
            drop(rung);
            if numbers.is_empty() {
                return;
            }
            for number in numbers {
                // Whoever is woken does not run at once.
                let at = self.now + self.app.up_to(ms(1));
                self.schedule(at, Event::Serve(number));
            }
        }
    }

    pub(super) fn serve(&mut self, number: u64) {
        let Some(waiting) = self.waiting.get_mut(&number) else {
            return;
        };
        let bell = Arc::new(Bell {
            number,
            rung: Arc::clone(&self.rung),
        });
        let waker = Waker::from(bell);
        let mut context = Context::from_waker(&waker);
        let Poll::Ready(answer) = Pin::new(&mut waiting.take).poll(&mut context) else {
            return;
        };
        let Some(waiting) = self.waiting.remove(&number) else {
            return;
        };
        self.mix(number);
        // A closed lane takes nothing more.
        if let Ok(segment) = answer
            && !self.closing
        {
            let given = self.bank.adopt(segment);
            let until_ns = Some(waiting.deadline_ns);
            self.append(
                waiting.lane,
                waiting.bound,
                waiting.len,
                until_ns,
                Some(given),
            );
        }
    }

    /// The application waits until all that was begun has its verdict.
    pub(super) fn flush(&mut self) {
        for shard in &mut self.shards {
            shard.lanes.flush_all();
        }
        self.flushes.push_back(Flush {
            begun: self.history.begun(),
            until: self.now + self.knobs.delivery_timeout + FLUSH_SLACK,
        });
    }

    /// Flushes that are over, and one that should be. A later one waits for all that an earlier one
    /// waits for.
    pub(super) fn look_at_flushes(&mut self) {
        while let Some(flush) = self.flushes.front() {
            if self.history.are_settled(&flush.begun) {
                self.flushes.pop_front();
                self.flushed += 1;
                continue;
            }
            // Who slept has a moment to look around.
            let awake_from = self.asleep_until() + FLUSH_SLACK;
            if flush.until < self.now && awake_from < self.now {
                let late = self.now.since(flush.until);
                self.is_wrong(format!(
                    "a flush has not ended {late:?} after the last record it waits for should have"
                ));
            }
            return;
        }
    }

    /// Nobody settled anything until then.
    pub(super) fn flushes_wait(&mut self, until: Time) {
        for flush in &mut self.flushes {
            flush.until = flush.until.max(until + FLUSH_SLACK);
        }
    }

    pub(super) fn cancel_one(&mut self) {
        let numbers: Vec<u64> = self.waiting.keys().copied().collect();
        if !numbers.is_empty() {
            let number = numbers[self.chaos.below(numbers.len())];
            self.waiting.remove(&number);
        }
    }
}
