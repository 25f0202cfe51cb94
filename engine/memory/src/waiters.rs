//! Who waits for memory, in the order they came.
//!
//! Owned by the pool's state, under its lock. A slot belongs to one [`Take`](crate::Take) from its
//! creation to its end, so its number needs no generation. Slots of those still waiting form a
//! list, which makes leaving the queue cheap wherever one stands in it; finished slots are reused.
//!
//! A grant is stored in the slot: from that moment the memory is the waiter's, woken or not.

use std::task::Waker;

use crate::pool::{Grant, Want};
use crate::take::TakeError;

/// Slot numbers in links are number + 1.
const NONE: usize = 0;

/// One waiter.
#[derive(Debug)]
enum Slot {
    /// Nobody's; the next vacant one.
    Vacant { next: usize },
    /// In the queue.
    Waiting {
        want: Want,
        deadline_ns: u64,
        waker: Option<Waker>,
        prev: usize,
        next: usize,
    },
    /// Out of the queue, served or failed, not yet looked at.
    Settled(Result<Grant, TakeError>),
}

/// The queue. See the module's doc.
#[derive(Debug)]
pub(crate) struct Waiters {
    slots: Vec<Slot>,
    vacant: usize,
    first: usize,
    last: usize,
    len: usize,
    /// Not later than the earliest deadline of those who wait.
    earliest_ns: u64,
}

impl Waiters {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            vacant: NONE,
            first: NONE,
            last: NONE,
            len: 0,
            earliest_ns: u64::MAX,
        }
    }

    /// Checks the lists. For tests; returns how many slots exist and how many are in use.
    #[cfg(all(any(test, feature = "model"), not(loom)))]
    pub(crate) fn invariants(&self) -> (usize, usize) {
        let (mut link, mut before, mut waiting) = (self.first, NONE, 0);
        while link != NONE {
            let Slot::Waiting {
                prev,
                next,
                deadline_ns,
                ..
            } = &self.slots[link - 1]
            else {
                panic!("slot {link} is in the queue and does not wait");
            };
            assert_eq!(*prev, before);
            assert!(*deadline_ns >= self.earliest_ns);
            before = link;
            link = *next;
            waiting += 1;
        }
        assert_eq!(before, self.last);
        assert_eq!(waiting, self.len);
        let (mut link, mut vacant) = (self.vacant, 0);
        while link != NONE {
            let Slot::Vacant { next } = &self.slots[link - 1] else {
                panic!("slot {link} is listed as vacant and is not");
            };
            link = *next;
            vacant += 1;
        }
        let settled = self
            .slots
            .iter()
            .filter(|slot| matches!(slot, Slot::Settled(_)))
            .count();
        assert_eq!(waiting + vacant + settled, self.slots.len());
        (self.slots.len(), waiting + settled)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Not later than the earliest deadline; `u64::MAX` when nobody has one.
    pub(crate) fn earliest_ns(&self) -> u64 {
        self.earliest_ns
    }

    /// Joins the end of the queue. Returns the slot's number.
    pub(crate) fn push(&mut self, want: Want, deadline_ns: u64) -> usize {
        let slot = Slot::Waiting {
            want,
            deadline_ns,
            waker: None,
            prev: self.last,
            next: NONE,
        };
        let number = match self.vacant {
            NONE => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
            link => {
                let Slot::Vacant { next } = self.slots[link - 1] else {
                    unreachable!("the vacant list holds vacant slots");
                };
                self.vacant = next;
                self.slots[link - 1] = slot;
                link - 1
            }
        };
        match self.last {
            NONE => self.first = number + 1,
            last => *self.links(last).1 = number + 1,
        }
        self.last = number + 1;
        self.len += 1;
        self.earliest_ns = self.earliest_ns.min(deadline_ns);
        number
    }

    /// What the first in the queue wants.
    pub(crate) fn first_want(&self) -> Option<Want> {
        match self.slots.get(self.first.checked_sub(1)?) {
            Some(Slot::Waiting { want, .. }) => Some(*want),
            _ => unreachable!("the queue holds waiting slots"),
        }
    }

    /// Settles the first in the queue. Returns its waker, to be called without the lock.
    pub(crate) fn settle_first(&mut self, result: Result<Grant, TakeError>) -> Option<Waker> {
        self.settle(self.first - 1, result)
    }

    /// Fails everybody whose deadline is not after `now_ns` and collects their wakers. Looks at
    /// the queue only when somebody may be due.
    pub(crate) fn expire(&mut self, now_ns: u64, wakers: &mut Vec<Waker>) -> usize {
        if now_ns < self.earliest_ns {
            return 0;
        }
        let mut expired = 0;
        let mut earliest_ns = u64::MAX;
        let mut link = self.first;
        while link != NONE {
            let Slot::Waiting {
                deadline_ns, next, ..
            } = &self.slots[link - 1]
            else {
                unreachable!("the queue holds waiting slots");
            };
            let (deadline_ns, next) = (*deadline_ns, *next);
            if deadline_ns <= now_ns {
                wakers.extend(self.settle(link - 1, Err(TakeError::TimedOut)));
                expired += 1;
            } else {
                earliest_ns = earliest_ns.min(deadline_ns);
            }
            link = next;
        }
        self.earliest_ns = earliest_ns;
        expired
    }

    /// Looks at a slot: the result when it is settled (the slot is then vacant), or `None` and
    /// `waker` stored. Either way `waker` holds what the caller drops after the lock.
    pub(crate) fn poll(
        &mut self,
        number: usize,
        waker: &mut Option<Waker>,
    ) -> Option<Result<Grant, TakeError>> {
        if let Slot::Waiting { waker: stored, .. } = &mut self.slots[number] {
            std::mem::swap(stored, waker);
            return None;
        }
        match self.vacate(number) {
            Slot::Settled(result) => Some(result),
            _ => unreachable!("a slot is polled by its owner only"),
        }
    }

    /// Leaves, wherever the slot stands: a grant not yet collected, and the waker to be dropped
    /// after the lock.
    pub(crate) fn leave(&mut self, number: usize) -> (Option<Grant>, Option<Waker>) {
        let waker = match &self.slots[number] {
            Slot::Waiting { .. } => self.settle(number, Err(TakeError::TimedOut)),
            _ => None,
        };
        match self.vacate(number) {
            Slot::Settled(result) => (result.ok(), waker),
            _ => unreachable!("a slot is left by its owner only"),
        }
    }

    /// Takes a waiting slot out of the queue.
    fn settle(&mut self, number: usize, result: Result<Grant, TakeError>) -> Option<Waker> {
        let slot = std::mem::replace(&mut self.slots[number], Slot::Settled(result));
        let Slot::Waiting {
            waker, prev, next, ..
        } = slot
        else {
            unreachable!("only waiting slots are settled");
        };
        match prev {
            NONE => self.first = next,
            prev => *self.links(prev).1 = next,
        }
        match next {
            NONE => self.last = prev,
            next => *self.links(next).0 = prev,
        }
        self.len -= 1;
        if self.len == 0 {
            self.earliest_ns = u64::MAX;
        }
        waker
    }

    fn vacate(&mut self, number: usize) -> Slot {
        let slot = std::mem::replace(&mut self.slots[number], Slot::Vacant { next: self.vacant });
        self.vacant = number + 1;
        slot
    }

    /// The links of a waiting slot: before, after.
    fn links(&mut self, link: usize) -> (&mut usize, &mut usize) {
        match &mut self.slots[link - 1] {
            Slot::Waiting { prev, next, .. } => (prev, next),
            _ => unreachable!("links lead to waiting slots"),
        }
    }
}
