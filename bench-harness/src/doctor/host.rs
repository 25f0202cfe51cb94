//! What the system tells about itself. Every field is `None` where it does not tell; nothing here
//! judges.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use ringpost::{DriverChoice, RingRefused};

use crate::number::float;
use crate::placement::{self, Placement};
use crate::usage::{Machine, Process};

/// The host, as it presents itself to this process.
#[derive(Clone, Debug)]
pub struct Host {
    /// `model name` of the first CPU.
    pub cpu_model: Option<String>,
    /// CPUs of the machine.
    pub cpus: usize,
    /// CPUs this process may use.
    pub allowed: Vec<usize>,
    /// Whether a hypervisor is below.
    pub hypervisor: Option<bool>,
    /// Frequency governors of the CPUs, each once.
    pub governors: Vec<String>,
    /// Whether CPUs may run faster than their nominal frequency for a while.
    pub turbo: Option<bool>,
    /// Where the kernel reads the time.
    pub clocksource: Option<String>,
    /// The chosen word of `transparent_hugepage/enabled`.
    pub transparent_hugepages: Option<String>,
    /// How TCP decides how fast to send.
    pub congestion_control: Option<String>,
    /// Those that could be chosen.
    pub congestion_controls: Option<String>,
    /// Bytes that may be locked.
    pub memlock: Memlock,
    /// Whether the kernel grants io_uring.
    pub io_uring: Result<(), RingRefused>,
    /// CPUs' worth of time that a control group allows.
    pub cpu_quota: Option<f64>,
    /// Whether the broker is on this host too.
    pub broker_here: bool,
    /// Where client and broker of a run would be.
    pub placement: Placement,
    /// CPUs that are two names for one core, one of the client's and one of the broker's each.
    pub shared_cores: Vec<(usize, usize)>,
    /// `debug` or `release`.
    pub build: &'static str,
}

/// A limit on locked memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memlock {
    /// Nobody knows.
    Unknown,
    /// None.
    Unlimited,
    /// So many bytes.
    Bytes(u64),
}

impl Host {
    /// Looks; client and broker are where `placement` says, and the broker on this host or not.
    pub fn look(allowed: &[usize], placement: &Placement, broker_here: bool) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cpu_model: cpuinfo_value(&cpuinfo, "model name"),
            cpus: cpus_of(&cpuinfo),
            allowed: allowed.to_vec(),
            hypervisor: cpuinfo_value(&cpuinfo, "flags")
                .map(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor")),
            governors: governors(),
            turbo: turbo(),
            clocksource: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            transparent_hugepages: read("/sys/kernel/mm/transparent_hugepage/enabled")
                .map(|text| chosen(&text).to_owned()),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control"),
            congestion_controls: read("/proc/sys/net/ipv4/tcp_available_congestion_control"),
            memlock: memlock(),
            io_uring: DriverChoice::probe_ring(),
            cpu_quota: cpu_quota(
                Path::new("/sys/fs/cgroup"),
                &fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
            ),
            broker_here,
            placement: placement.clone(),
            shared_cores: shared_cores(placement, |cpu| {
                read(format!(
                    "/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
                ))
                .and_then(|list| placement::parse(&list))
            }),
            build: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
        }
    }
}

/// What a stretch of time gave to others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// How long it was.
    pub seconds: f64,
    /// Share of it that the host below gave to others, percent.
    pub steal_percent: f64,
    /// CPUs that were busy with something else than we.
    pub others_cpus: f64,
    /// Whether a broker on this host, if there is one, is among the others.
    pub broker_included: bool,
}

/// The start of a stretch.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    machine: Option<Machine>,
    process: Process,
}

impl Watch {
    /// From now on.
    pub fn start() -> Self {
        Self {
            machine: Machine::now(),
            process: Process::now(),
        }
    }

    /// Until now, `seconds` later.
    pub fn end(&self, seconds: f64) -> Option<Stretch> {
        let (busy, steal_percent) = Machine::now()?.since(&self.machine?);
        let own = Process::now().cpu_s() - self.process.cpu_s();
        Some(Stretch {
            seconds,
            steal_percent,
            others_cpus: (busy - own / seconds.max(1e-9)).max(0.0),
            broker_included: true,
        })
    }
}

/// The content of a small file, without the white space around it; `None` when there is none.
pub fn read(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The first value of that name in `/proc/cpuinfo`.
pub fn cpuinfo_value(cpuinfo: &str, wanted: &str) -> Option<String> {
    cpuinfo.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == wanted).then(|| value.trim().to_owned())
    })
}

/// CPUs in `/proc/cpuinfo`, at least 1.
pub fn cpus_of(cpuinfo: &str) -> usize {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count()
        .max(1)
}

/// The word in brackets of `always [madvise] never`.
pub fn chosen(text: &str) -> &str {
    text.split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or(text, |(word, _)| word)
}

/// The limit on locked memory.
pub fn memlock() -> Memlock {
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((RLIM_INFINITY, _)) => Memlock::Unlimited,
        Ok((soft, _)) => Memlock::Bytes(soft),
        Err(_) => Memlock::Unknown,
    }
}

fn governors() -> Vec<String> {
    let mut all: Vec<String> = fs::read_dir("/sys/devices/system/cpu")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|cpu| read(cpu.path().join("cpufreq/scaling_governor")))
        .collect();
    all.sort();
    all.dedup();
    all
}

fn turbo() -> Option<bool> {
    let intel = read("/sys/devices/system/cpu/intel_pstate/no_turbo").map(|off| off == "0");
    intel.or_else(|| read("/sys/devices/system/cpu/cpufreq/boost").map(|on| on == "1"))
}

/// The tightest quota from this process's group up, in CPUs. `groups` is `/proc/self/cgroup`, `root`
/// where the hierarchies are mounted.
fn cpu_quota(root: &Path, groups: &str) -> Option<f64> {
    let mut tightest: Option<f64> = None;
    for line in groups.lines() {
        // cgroups(7): hierarchy-ID:controller-list:path; version 2 has no controllers there.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let second = controllers.is_empty();
        if !second && !controllers.split(',').any(|name| name == "cpu") {
            continue;
        }
        let mount = if second {
            root.to_owned()
        } else {
            root.join("cpu")
        };
        let mut folder = Some(PathBuf::from(path.trim_start_matches('/')));
        while let Some(at) = folder {
            let quota = if second {
                quota_v2(&mount.join(&at))
            } else {
                quota_v1(&mount.join(&at))
            };
            tightest = match (tightest, quota) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            folder = at.parent().map(Path::to_owned);
        }
    }
    tightest
}

fn quota_v2(folder: &Path) -> Option<f64> {
    // `max 100000` or `150000 100000`
    let text = read(folder.join("cpu.max"))?;
    let (quota, period) = text.split_once(' ')?;
    cpus_worth(quota.parse().ok()?, period.parse().ok()?)
}

fn quota_v1(folder: &Path) -> Option<f64> {
    // -1: none, which is no u64
    let quota = read(folder.join("cpu.cfs_quota_us"))?.parse().ok()?;
    cpus_worth(quota, read(folder.join("cpu.cfs_period_us"))?.parse().ok()?)
}

fn cpus_worth(quota: u64, period: u64) -> Option<f64> {
    (period > 0).then(|| float(quota) / float(period))
}

fn shared_cores(
    placement: &Placement,
    siblings: impl Fn(usize) -> Option<Vec<usize>>,
) -> Vec<(usize, usize)> {
    let mut shared = Vec::new();
    for client in &placement.client_cpus {
        let siblings = siblings(*client).unwrap_or_default();
        let of_broker = placement.broker_cpus.iter();
        shared.extend(
            of_broker
                .filter(|broker| siblings.contains(broker))
                .map(|broker| (*client, *broker)),
        );
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen("plain"), "plain");
        let cpuinfo = "processor\t: 0\nmodel name\t: A B\nprocessor\t: 1\nmodel name\t: C\n";
        assert_eq!(cpuinfo_value(cpuinfo, "model name").as_deref(), Some("A B"));
        assert_eq!((cpus_of(cpuinfo), cpus_of("")), (2, 1));
    }

    #[test]
    fn the_tightest_quota_of_either_version_counts() {
        let root = std::env::temp_dir().join(format!("ringpost-quota-{}", std::process::id()));
        let file = |name: &str, text: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        file("a/cpu.max", "150000 100000\n");
        file("a/b/cpu.max", "max 100000\n");
        file("cpu/x/cpu.cfs_quota_us", "-1\n");
        file("cpu/x/cpu.cfs_period_us", "100000\n");
        file("cpu/y/cpu.cfs_quota_us", "50000\n");
        file("cpu/y/cpu.cfs_period_us", "100000\n");
        let quota = |groups| cpu_quota(&root, groups);
        assert_eq!(quota("0::/a/b\n"), Some(1.5), "the parent's");
        assert_eq!(quota("1:cpu,cpuacct:/x\n0::/elsewhere\n"), None);
        assert_eq!(quota("1:cpu:/y\n0::/a\n"), Some(0.5));
        assert_eq!(quota("1:memory:/y\nnonsense\n"), None);
        fs::remove_dir_all(&root).expect("removed");
    }

    #[test]
    fn a_core_with_two_names_is_shared() {
        let placement = Placement::choose(&[0, 1, 2, 3], true);
        // CPU 0 is the broker's.
        let with = |lists: [&[usize]; 4]| {
            shared_cores(&placement, |cpu| lists.get(cpu).map(|list| list.to_vec()))
        };
        assert_eq!(with([&[0, 2], &[1, 3], &[0, 2], &[1, 3]]), [(2, 0)]);
        assert_eq!(with([&[0], &[1], &[2], &[3]]), []);
    }

    #[test]
    fn this_host_can_be_looked_at() {
        let allowed = placement::allowed();
        let host = Host::look(&allowed, &Placement::choose(&allowed, true), true);
        assert!(host.cpus >= host.allowed.len() && !host.allowed.is_empty());
        let stretch = Watch::start().end(1.0).expect("there is a /proc/stat");
        assert!(stretch.others_cpus >= 0.0 && stretch.steal_percent >= 0.0);
    }
}
