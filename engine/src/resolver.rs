//! Looking up names, which the system may take seconds for, beside the controller: that goes on
//! with timeouts, addresses and closing meanwhile.
//!
//! A few threads that live as long as there are names to look up. An answer that comes after its
//! question was given up is dropped by the directory.

use std::collections::VecDeque;
use std::net::ToSocketAddrs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::controller::{Request, Resolved};
use crate::shared::Shared;

/// Lookups at a time: one that hangs, and a few that do not wait for it.
const THREADS_MAX: usize = 4;

/// A question.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
}

/// See the module's doc. Bounded: the directory asks for one bootstrap name at a time and for the
/// brokers of one answer.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    lookups: VecDeque<Lookup>,
    threads: usize,
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Resolver {
    /// Looks a name up; the answer comes as [`Request::Resolved`].
    pub(crate) fn ask(&self, lookup: Lookup, producer: &Arc<Shared>) {
        let mut queue = lock(&self.queue);
        let asked_already = |other: &Lookup| other.host == lookup.host && other.port == lookup.port;
        if queue.lookups.iter().any(asked_already) {
            return;
        }
        queue.lookups.push_back(lookup);
        if queue.threads == THREADS_MAX {
            return;
        }
        queue.threads += 1;
        drop(queue);
        let (own, for_thread) = (Arc::clone(&self.queue), Arc::clone(producer));
        let spawned = thread::Builder::new()
            .name("ringpost-dns".into())
            .spawn(move || work(&own, &for_thread));
        if spawned.is_err() {
            // No thread to be had: better late than never.
            work(&self.queue, producer);
        }
    }
}

fn work(queue: &Mutex<Queue>, producer: &Shared) {
    loop {
        let mut locked = lock(queue);
        let Some(Lookup { host, port }) = locked.lookups.pop_front() else {
            locked.threads -= 1;
            return;
        };
        drop(locked);
        let result = (&*host, port)
            .to_socket_addrs()
            .map(Iterator::collect)
            .map_err(|error| error.to_string());
        producer
            .inbox
            .put(Request::Resolved(Resolved { host, port, result }));
    }
}
