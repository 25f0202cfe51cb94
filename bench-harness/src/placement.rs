//! Which CPUs the client and the embedded broker run on.
//!
//! They are kept apart, so that the broker's work cannot be taken for the client's, and so that a
//! scheduler that moves them about does not add to the spread between runs. The whole client process
//! is bound before it starts a thread; threads it starts, the engine's shards included, choose among
//! those CPUs.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// Who runs where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Placement {
    /// CPUs of the client process; empty: left to the scheduler.
    pub client_cpus: Vec<usize>,
    /// CPUs of the embedded broker; empty: left to the scheduler, or there is none.
    pub broker_cpus: Vec<usize>,
    /// Why.
    pub reason: String,
}

impl Placement {
    /// For a run with an embedded broker or without one, on the CPUs this process may use.
    pub fn choose(allowed: &[usize], embedded: bool) -> Self {
        if !embedded {
            return Self {
                client_cpus: Vec::new(),
                broker_cpus: Vec::new(),
                reason: "brokers run elsewhere; the client uses the CPUs it was given".into(),
            };
        }
        if allowed.len() < 2 {
            return Self {
                client_cpus: Vec::new(),
                broker_cpus: Vec::new(),
                reason: "one CPU: client and broker share it, figures are those of a crowd".into(),
            };
        }
        // A broker that checks everything moves more than a client core: a quarter is plenty.
        let (broker, client) = allowed.split_at((allowed.len() / 4).max(1));
        Self {
            client_cpus: client.to_vec(),
            broker_cpus: broker.to_vec(),
            reason: "broker and client are kept apart".into(),
        }
    }
}

/// CPUs this process may use, in order.
pub fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect()
}

/// Binds this thread, and all it starts from now on, to `cpus`; nothing when there are none.
pub fn bind(cpus: &[usize]) -> Result<(), String> {
    if cpus.is_empty() {
        return Ok(());
    }
    let refused = |error| format!("cannot run on CPU {}: {error}", show(cpus));
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu).map_err(refused)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).map_err(refused)
}

/// `0,2-3` as CPU numbers.
pub fn parse(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CpuSet::count() {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// CPU numbers as `0,2,3`; `any` when there are none.
pub fn show(cpus: &[usize]) -> String {
    if cpus.is_empty() {
        return "any".into();
    }
    cpus.iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_and_broker_never_share_when_there_are_two() {
        for cpus in 2..40 {
            let allowed: Vec<usize> = (3..3 + cpus).collect();
            let placement = Placement::choose(&allowed, true);
            assert!(!placement.client_cpus.is_empty() && !placement.broker_cpus.is_empty());
            assert_eq!(
                [placement.broker_cpus, placement.client_cpus].concat(),
                allowed
            );
        }
        assert_eq!(Placement::choose(&[0, 1], true).broker_cpus, [0]);
    }

    #[test]
    fn lists() {
        assert_eq!(parse("0"), Some(vec![0]));
        assert_eq!(parse("0,2-4"), Some(vec![0, 2, 3, 4]));
        for bad in ["", "a", "3-1", "0,", "99999"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(show(&[0, 2]), "0,2");
    }
}
