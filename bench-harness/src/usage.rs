//! What a process and the machine used: `getrusage` and `/proc/stat`.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};

use crate::number::{float, ratio};

/// This process since it started.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// CPU time outside the kernel, all threads.
    pub user_s: f64,
    /// CPU time inside the kernel, all threads.
    pub system_s: f64,
    /// Times a thread gave up its CPU to wait.
    pub voluntary_switches: u64,
    /// Times a thread was made to.
    pub involuntary_switches: u64,
    /// Most memory it ever held.
    pub peak_rss_bytes: u64,
}

impl Process {
    /// Now.
    pub fn now() -> Self {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
            return Self::default();
        };
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        Self {
            user_s: seconds(usage.user_time()),
            system_s: seconds(usage.system_time()),
            voluntary_switches: count(usage.voluntary_context_switches()),
            involuntary_switches: count(usage.involuntary_context_switches()),
            peak_rss_bytes: count(usage.max_rss()) * 1024,
        }
    }

    /// CPU time, inside and outside the kernel.
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

fn seconds(time: TimeVal) -> f64 {
    let whole = float(u64::try_from(time.tv_sec()).unwrap_or(0));
    whole + float(u64::try_from(time.tv_usec()).unwrap_or(0)) / 1e6
}

/// Memory this process holds now; `None` where there is no `/proc`.
pub fn rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// All CPUs since the machine started, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    busy: u64,
    idle: u64,
    steal: u64,
    cpus: u64,
}

impl Machine {
    /// Now; nothing where there is no `/proc/stat`.
    pub fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // proc_stat(5): cpu user nice system idle iowait irq softirq steal guest guest_nice; guest
        // times are contained in user and nice.
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .map_while(|tick| tick.parse().ok())
            .collect();
        let at = |field: usize| ticks.get(field).copied().unwrap_or(0);
        let cpus = stat
            .lines()
            .filter(|line| {
                line.strip_prefix("cpu")
                    .is_some_and(|rest| !rest.starts_with(' '))
            })
            .count();
        Some(Self {
            busy: at(0) + at(1) + at(2) + at(5) + at(6),
            idle: at(3) + at(4),
            steal: at(7),
            cpus: u64::try_from(cpus).unwrap_or(0),
        })
    }

    /// Since `earlier`: how many CPUs were busy on average, and the share of time stolen by the
    /// host, in percent.
    pub fn since(&self, earlier: &Self) -> (f64, f64) {
        let busy = float(self.busy.saturating_sub(earlier.busy));
        let idle = float(self.idle.saturating_sub(earlier.idle));
        let steal = float(self.steal.saturating_sub(earlier.steal));
        let all = busy + idle + steal;
        (
            ratio(busy, all) * float(self.cpus),
            ratio(steal, all) * 100.0,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_times() {
        let before = "cpu  100 0 100 1000 0 0 0 0 50 0\ncpu0 1 2\ncpu1 1 2\nintr 5\n";
        let after = "cpu  250 0 150 1150 0 0 0 50 90 0\ncpu0 1 2\ncpu1 1 2\nintr 9\n";
        let (before, after) = (Machine::parse(before), Machine::parse(after));
        let (busy_cpus, steal) = after.expect("parsed").since(&before.expect("parsed"));
        assert_eq!((busy_cpus, steal), (1.0, 12.5));
        assert_eq!(Machine::parse("nonsense"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = Process::now();
        assert!(usage.peak_rss_bytes > 0);
        assert!(usage.cpu_s() >= 0.0);
        assert!(rss_bytes().is_some_and(|bytes| bytes > 0));
    }
}
