//! Which shard runs on which CPU.
//!
//! One allocator for the whole process, so that two producers do not pin the same CPU. CPUs come
//! from the affinity the process was started with; a CPU is given back when its shard ends.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use core_affinity::CoreId;

use crate::config::{Pin, Shards};

static TAKEN: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// The CPUs the process may use. Asked once, before any thread is pinned.
fn allowed() -> &'static [usize] {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    ALLOWED.get_or_init(|| {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        cores.into_iter().map(|core| core.id).collect()
    })
}

/// How many CPUs the process may use.
pub(crate) fn cpus() -> usize {
    allowed().len().max(1)
}

/// How many shards the setting means on this host.
pub(crate) fn shard_count(shards: Shards) -> usize {
    match shards {
        Shards::Auto => (cpus() / 8).clamp(1, 4),
        Shards::Count(count) => count,
    }
}

/// Where a shard runs, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    cpu: Option<usize>,
    /// It is counted as taken. CPUs the application named are its own affair.
    counted: bool,
}

impl Place {
    /// A place for the shard with this number, as the setting has it.
    pub(crate) fn take(pin: &Pin, shard: usize) -> Self {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let (cpu, counted) = match pin {
            Pin::Off => (None, false),
            Pin::To(cpus) => (cpus.get(shard % cpus.len().max(1)).copied(), false),
            // From the last CPU down: the first ones are where interrupts and others crowd. With
            // one CPU, or when all are taken, pinning would only get in the way.
            Pin::Auto if cpus() == 1 => (None, false),
            Pin::Auto => {
                let free = allowed()
                    .iter()
                    .rev()
                    .find(|cpu| !taken.contains(cpu))
                    .copied();
                taken.extend(free);
                (free, true)
            }
        };
        Self { cpu, counted }
    }

    /// Pins the calling thread. The CPU, and why it was refused if it was.
    pub(crate) fn pin(&self) -> (Option<usize>, Option<String>) {
        match self.cpu {
            None => (None, None),
            Some(cpu) if core_affinity::set_for_current(CoreId { id: cpu }) => (Some(cpu), None),
            Some(cpu) => (
                None,
                Some(format!("the system refused to pin the shard to CPU {cpu}")),
            ),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(cpu) = self.cpu.filter(|_| self.counted) {
            TAKEN
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&cpu);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_shards_never_get_the_same_cpu_while_there_are_others() {
        let first = Place::take(&Pin::Auto, 0);
        let second = Place::take(&Pin::Auto, 1);
        // Other tests of this process may have them all.
        if cpus() > 2 && first.cpu.is_some() {
            assert_ne!(first.cpu, second.cpu);
        }
        assert_eq!(Place::take(&Pin::Off, 0).cpu, None);
        let to_first = Pin::To(first.cpu.into_iter().collect());
        drop(Place::take(&to_first, 5));
        if let Some(cpu) = first.cpu {
            let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(taken.contains(&cpu), "it is not given back by another");
        }
    }
}
