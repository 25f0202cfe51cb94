//! From what was seen to findings. Pure: every rule is tested with hosts made up for it.
//!
//! Limits are round numbers from hosts that were measured on: good is what a quiet server of the
//! last ten years does, bad is what makes the engine's own share of a figure invisible.

use std::io;

use crate::doctor::host::{Host, Memlock, Stretch};
use crate::doctor::unit_costs::UnitCosts;
use crate::doctor::{Finding, Verdict};
use crate::number::float;
use crate::placement;
use crate::units::show_bytes;

use Verdict::{Bad, Caution, Good};

/// What a ring of the usual size and its buffers may have to lock on old kernels.
const MEMLOCK_GOOD: u64 = 8 << 20;

fn finding(
    name: &str,
    value: impl Into<String>,
    verdict: Verdict,
    effect: impl Into<String>,
    advice: &str,
) -> Finding {
    Finding {
        name: name.into(),
        value: value.into(),
        verdict,
        effect: effect.into(),
        advice: (!advice.is_empty()).then(|| advice.into()),
    }
}

/// What the system tells.
pub fn of_host(host: &Host) -> Vec<Finding> {
    vec![
        cpu(host),
        build(host),
        cores(host),
        quota(host),
        hypervisor(host),
        governor(host),
        turbo(host),
        clocksource(host),
        io_uring(host),
        memlock(host),
        congestion_control(host),
        hugepages(host),
    ]
}

fn cpu(host: &Host) -> Finding {
    let value = format!(
        "{} × {}, allowed: {}",
        host.cpus,
        host.cpu_model.as_deref().unwrap_or("a model not told"),
        placement::show(&host.allowed)
    );
    let name = "cpu";
    if !host.broker_here && host.allowed.len() > 1 {
        let effect = "the broker is elsewhere: all of these are the client's";
        return finding(name, value, Good, effect, "");
    }
    match host.allowed.len() {
        0 | 1 if !host.broker_here => finding(
            name,
            value,
            Caution,
            "application threads and shards take turns on one CPU",
            "allow two CPUs or more",
        ),
        0 | 1 => finding(
            name,
            value,
            Bad,
            "client and broker take turns on one CPU: rates are those of both together, latencies \
             those of the scheduler",
            "allow two CPUs or more; or run the broker on another host, and --brokers",
        ),
        2 | 3 => finding(
            name,
            value,
            Caution,
            "client and broker have a core or two each: application threads, shards and the kernel's \
             network work share the client's",
            "compare CPU per record here, and rates on a host with four CPUs or more",
        ),
        _ => finding(
            name,
            value,
            Good,
            "client and broker have cores of their own",
            "",
        ),
    }
}

fn build(host: &Host) -> Finding {
    match host.build {
        "release" => finding("build", "release", Good, "as users run it", ""),
        other => finding(
            "build",
            other,
            Bad,
            "without optimisation everything is several times slower, and not evenly so",
            "cargo build --release",
        ),
    }
}

fn cores(host: &Host) -> Finding {
    let placement = &host.placement;
    let value = format!(
        "client on {}, broker on {}",
        placement::show(&placement.client_cpus),
        placement::show(&placement.broker_cpus)
    );
    let name = "core_sharing";
    if !host.broker_here {
        return finding(name, value, Good, "the broker is elsewhere", "");
    }
    if placement.client_cpus.is_empty() || placement.broker_cpus.is_empty() {
        return finding(
            name,
            value,
            Caution,
            "client and broker are not kept apart: the scheduler moves them about, and one \
             waits for the other",
            "allow this process two CPUs or more (taskset, cpuset)",
        );
    }
    match host.shared_cores.first() {
        Some((client, broker)) => finding(
            name,
            format!("{value}; CPUs {client} and {broker} are one core"),
            Caution,
            "two hyper-threads of a core share its caches and units: each slows the other by a third \
             or so",
            "allow CPUs of different cores (taskset -c), or switch hyper-threading off",
        ),
        None => finding(name, value, Good, "no core is shared", ""),
    }
}

fn quota(host: &Host) -> Finding {
    let name = "cpu_quota";
    let Some(cpus) = host.cpu_quota else {
        return finding(
            name,
            "none",
            Good,
            "no control group holds this process back",
            "",
        );
    };
    let value = format!("{cpus:.2} CPUs");
    if cpus >= float(crate::number::count(host.allowed.len())) {
        let effect = "the control group allows as much as there is";
        return finding(name, value, Good, effect, "");
    }
    finding(
        name,
        value,
        Bad,
        "a process that has used up its share stands still for the rest of each 100 ms: latencies \
         jump by tens of ms, rates are the quota's",
        "measure without a CPU limit on the container, and bind it to CPUs instead",
    )
}

fn hypervisor(host: &Host) -> Finding {
    let name = "virtual_machine";
    match host.hypervisor {
        Some(false) => finding(name, "no", Good, "the hardware is this host's own", ""),
        Some(true) => finding(
            name,
            "yes",
            Caution,
            "wakes of an idle CPU and timers go through the hypervisor, and neighbours share caches \
             and memory: tails are longer, and differ from hour to hour",
            "compare pairs of runs in turns (`sweep`, `compare`), not single runs of different days",
        ),
        None => finding(
            name,
            "not told",
            Caution,
            "a hypervisor below would lengthen tails",
            "",
        ),
    }
}

fn governor(host: &Host) -> Finding {
    let name = "governor";
    match host.governors.as_slice() {
        [] => finding(
            name,
            "not told",
            Caution,
            "the frequency is the host's or the firmware's choice (usual in virtual machines): it \
             may change between runs",
            "compare pairs of runs in turns",
        ),
        [one] if one == "performance" => finding(name, one, Good, "CPUs keep their frequency", ""),
        all => finding(
            name,
            all.join(", "),
            Caution,
            "CPUs slow down when they are idle: at low rates CPU per record and latency grow by up to \
             the ratio of frequencies",
            "cpupower frequency-set -g performance",
        ),
    }
}

fn turbo(host: &Host) -> Finding {
    let name = "turbo";
    match host.turbo {
        None => finding(
            name,
            "not told",
            Good,
            "nothing here says that the frequency goes up and down with temperature",
            "",
        ),
        Some(false) => finding(name, "off", Good, "one core is as fast as all of them", ""),
        Some(true) => finding(
            name,
            "on",
            Caution,
            "a cool host with one busy core is faster than a warm one: later runs look slower",
            "switch it off for comparisons (intel_pstate/no_turbo, cpufreq/boost), or interleave runs",
        ),
    }
}

fn clocksource(host: &Host) -> Finding {
    let name = "clocksource";
    match host.clocksource.as_deref() {
        Some(
            source @ ("tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" | "arch_sys_counter"),
        ) => finding(
            name,
            source,
            Good,
            "reading the clock does not enter the kernel",
            "",
        ),
        Some(source) => finding(
            name,
            source,
            Bad,
            "every reading of the clock enters the kernel: harness and engine both get slower",
            "find out why the kernel gave up on the time stamp counter (dmesg | grep -i tsc)",
        ),
        None => finding(
            name,
            "not told",
            Caution,
            "reading the clock may be slow",
            "",
        ),
    }
}

fn io_uring(host: &Host) -> Finding {
    let name = "io_uring";
    let Err(refused) = &host.io_uring else {
        let effect = "driver=auto takes it: one entry into the kernel for all that is to do";
        return finding(name, "works", Good, effect, "");
    };
    // The number too: people look for it.
    let errno = refused.errno.map_or("no errno".into(), |errno| {
        format!("errno {errno}: {}", io::Error::from_raw_os_error(errno))
    });
    let advice = if refused.cause.contains("seccomp") {
        "run the container with a seccomp profile that allows io_uring_setup, io_uring_enter and \
         io_uring_register"
    } else if refused.cause.contains("io_uring_disabled") {
        "sysctl kernel.io_uring_disabled=0 (or kernel.io_uring_group for one group)"
    } else if refused.cause.contains("memory") {
        "raise the limit: ulimit -l, LimitMEMLOCK="
    } else if refused.cause.contains("old") || refused.cause.contains("no io_uring") {
        "Linux 6.1 or newer, outside of sandboxes that have no io_uring"
    } else {
        "driver=epoll says the same without trying"
    };
    finding(
        name,
        format!("refused at {}: {errno}; {}", refused.step, refused.cause),
        Caution,
        "driver=auto takes epoll: more entries into the kernel for each request, so figures are not \
         those of the ring",
        advice,
    )
}

fn memlock(host: &Host) -> Finding {
    let name = "memlock";
    match host.memlock {
        Memlock::Unlimited => finding(name, "unlimited", Good, "no ring is too large", ""),
        Memlock::Bytes(bytes) if bytes >= MEMLOCK_GOOD => {
            let effect = "enough for the rings of some shards";
            finding(name, show_bytes(bytes), Good, effect, "")
        }
        Memlock::Bytes(bytes) => finding(
            name,
            show_bytes(bytes),
            Caution,
            "io_uring may be refused to further shards for want of memory that may be locked (kernels \
             before 5.12 count rings there); they fall back to epoll",
            "ulimit -l unlimited, LimitMEMLOCK=infinity",
        ),
        Memlock::Unknown => finding(name, "not told", Caution, "rings may be refused", ""),
    }
}

fn congestion_control(host: &Host) -> Finding {
    let name = "congestion_control";
    let value = host.congestion_control.as_deref();
    match value {
        Some(other) if !host.broker_here => finding(
            name,
            other,
            Good,
            "the path to the broker is a real one, which it is made for",
            "",
        ),
        Some(bbr) if bbr.starts_with("bbr") => finding(
            name,
            bbr,
            Bad,
            "bbr paces what it sends by timers, after a model of a bottleneck that a loopback does not \
             have: bursts wait for the pacing timer, every 10 s it holds back to measure the round \
             trip, and the timers' work is billed to the sender. Latency tails and rates over loopback \
             are bbr's, not the client's",
            match &host.congestion_controls {
                Some(all) if all.split_whitespace().any(|one| one == "cubic") => {
                    "sysctl -w net.ipv4.tcp_congestion_control=cubic for the time of measuring"
                }
                _ => "sysctl -w net.ipv4.tcp_congestion_control=reno for the time of measuring",
            },
        ),
        Some(other) => finding(
            name,
            other,
            Good,
            "on a loopback without loss the window opens and stays open",
            "",
        ),
        None => finding(name, "not told", Caution, "TCP may pace what it sends", ""),
    }
}

fn hugepages(host: &Host) -> Finding {
    let name = "transparent_hugepages";
    match host.transparent_hugepages.as_deref() {
        Some("always") => finding(
            name,
            "always",
            Caution,
            "the kernel gathers and splits large pages behind the program's back: pauses of up to some \
             ms, and more memory held than asked for",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        Some(other) => finding(
            name,
            other,
            Good,
            "pages are small unless a program asks for large ones",
            "",
        ),
        None => finding(name, "not told", Good, "this kernel has none", ""),
    }
}

/// What others took away.
pub fn of_stretch(stretch: Option<Stretch>) -> Vec<Finding> {
    let Some(stretch) = stretch else {
        return vec![finding(
            "load",
            "not told",
            Caution,
            "whether others were at work is not known: there is no /proc/stat",
            "",
        )];
    };
    vec![steal(&stretch), load(&stretch)]
}

fn steal(stretch: &Stretch) -> Finding {
    let verdict = match stretch.steal_percent {
        percent if percent < 0.5 => Good,
        percent if percent < 5.0 => Caution,
        _ => Bad,
    };
    finding(
        "steal",
        format!("{:.1} % in {:.1} s", stretch.steal_percent, stretch.seconds),
        verdict,
        match verdict {
            Good => "the host below gave this machine its CPUs",
            Caution | Bad => {
                "the host below ran others on our CPUs: rates fall by that share, and tails grow by \
                 whole time slices"
            }
        },
        match verdict {
            Good => "",
            Caution | Bad => "measure at another hour or on another host; compare pairs, not runs",
        },
    )
}

fn load(stretch: &Stretch) -> Finding {
    let verdict = match stretch.others_cpus {
        cpus if cpus < 0.15 => Good,
        // A broker here would be most of it, and rightly so.
        _ if stretch.broker_included && stretch.seconds > 1.0 => Caution,
        cpus if cpus < 0.5 => Caution,
        _ => Bad,
    };
    finding(
        "load",
        format!(
            "{:.2} CPUs busy with others in {:.1} s",
            stretch.others_cpus, stretch.seconds
        ),
        verdict,
        match verdict {
            Good => "nobody else was at work",
            Caution | Bad => {
                "other processes took CPU, cache and memory bandwidth: rates are lower and tails longer \
                 by an amount that no second run repeats"
            }
        },
        match verdict {
            Good => "",
            Caution | Bad => "end what else runs here (top), or measure elsewhere",
        },
    )
}

/// What was measured on the spot.
pub fn of_costs(costs: &UnitCosts) -> Vec<Finding> {
    let mut all = vec![
        cost(
            "syscall",
            costs.syscall_ns,
            "ns",
            (250.0, 1_000.0),
            "what each request pays at least once or twice",
        ),
        cost(
            "clock_read",
            costs.clock_ns,
            "ns",
            (60.0, 200.0),
            "what the harness pays for 16 records, the engine for a turn of its loop",
        ),
        cost(
            "memcpy",
            costs.memcpy_ns_per_byte,
            "ns/byte",
            (0.15, 0.5),
            "what every byte pays when it is appended, and again in the kernel, both ways",
        ),
        cost(
            "crc",
            costs.crc_ns_per_byte,
            "ns/byte",
            (0.15, 0.6),
            "what every byte pays when its batch is closed, and again at the broker",
        ),
    ];
    if let Some(wake) = costs.wake_us {
        all.push(cost(
            "thread_wake",
            wake.p50,
            "µs",
            (25.0, 100.0),
            "what a record pays when it finds its shard asleep, and its sender when the ack comes",
        ));
    }
    if let Some(us) = costs.ping_pong.as_ref().and_then(|trip| trip.us) {
        let mut trip = cost(
            "tcp_ping_pong",
            us.p50,
            "µs",
            (80.0, 300.0),
            "the floor of every latency over loopback: no client can answer sooner",
        );
        trip.value = format!("{}, p99 {:.1} µs", trip.value, us.p99);
        all.push(trip);
    }
    all
}

fn cost(name: &str, value: f64, unit: &str, (good, caution): (f64, f64), effect: &str) -> Finding {
    let verdict = if value <= good {
        Good
    } else if value <= caution {
        Caution
    } else {
        Bad
    };
    let decimals = if value < 1.0 { 4 } else { 1 };
    finding(
        name,
        format!("{value:.decimals$} {unit}"),
        verdict,
        effect,
        match verdict {
            Good => "",
            Caution | Bad => {
                "slow for this unit: look at steal, load, frequency and the kernel's mitigations, then \
                 measure again"
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use ringpost::RingRefused;

    use super::*;
    use crate::doctor::worst;
    use crate::placement::Placement;

    /// A host that nothing is wrong with.
    fn good() -> Host {
        let allowed: Vec<usize> = (0..8).collect();
        Host {
            cpu_model: Some("A fast one".into()),
            cpus: 8,
            placement: Placement::choose(&allowed, true),
            allowed,
            hypervisor: Some(false),
            governors: vec!["performance".into()],
            turbo: Some(false),
            clocksource: Some("tsc".into()),
            transparent_hugepages: Some("madvise".into()),
            congestion_control: Some("cubic".into()),
            congestion_controls: Some("reno cubic".into()),
            memlock: Memlock::Unlimited,
            io_uring: Ok(()),
            cpu_quota: None,
            broker_here: true,
            shared_cores: Vec::new(),
            build: "release",
        }
    }

    fn named(findings: &[Finding], name: &str) -> Finding {
        let found = findings.iter().find(|finding| finding.name == name);
        found
            .cloned()
            .unwrap_or_else(|| panic!("no {name} in {findings:?}"))
    }

    #[test]
    fn a_good_host_is_told_nothing_to_do() {
        let findings = of_host(&good());
        assert_eq!(worst(&findings), Good, "{findings:?}");
        assert!(findings.iter().all(|finding| finding.advice.is_none()));
        assert!(findings.iter().all(|finding| !finding.effect.is_empty()));
    }

    #[test]
    fn each_fault_is_found_and_told_apart_from_the_rest() {
        /// What makes a good host a worse one.
        type Plant = fn(&mut Host);
        let faults: [(&str, Verdict, Plant); 13] = [
            ("cpu", Bad, |host| host.allowed = vec![3]),
            ("cpu", Caution, |host| host.allowed = vec![0, 1]),
            ("build", Bad, |host| host.build = "debug"),
            ("core_sharing", Caution, |host| {
                host.shared_cores = vec![(4, 0)]
            }),
            ("cpu_quota", Bad, |host| host.cpu_quota = Some(1.5)),
            ("virtual_machine", Caution, |host| {
                host.hypervisor = Some(true)
            }),
            ("governor", Caution, |host| {
                host.governors = vec!["powersave".into()]
            }),
            ("governor", Caution, |host| host.governors = Vec::new()),
            ("turbo", Caution, |host| host.turbo = Some(true)),
            ("clocksource", Bad, |host| {
                host.clocksource = Some("hpet".into())
            }),
            ("memlock", Caution, |host| {
                host.memlock = Memlock::Bytes(64 << 10)
            }),
            ("congestion_control", Bad, |host| {
                host.congestion_control = Some("bbr".into());
            }),
            ("transparent_hugepages", Caution, |host| {
                host.transparent_hugepages = Some("always".into());
            }),
        ];
        for (name, verdict, plant) in faults {
            let mut host = good();
            plant(&mut host);
            let findings = of_host(&host);
            let found = named(&findings, name);
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.advice.is_some(), "{found:?}");
            let others = findings.iter().filter(|finding| finding.name != name);
            assert!(others.into_iter().all(|other| other.verdict == Good));
        }
    }

    #[test]
    fn with_the_broker_elsewhere_cores_and_congestion_control_are_another_matter() {
        let host = Host {
            broker_here: false,
            allowed: vec![0, 1],
            placement: Placement::choose(&[0, 1], false),
            congestion_control: Some("bbr".into()),
            ..good()
        };
        assert_eq!(worst(&of_host(&host)), Good, "{:?}", of_host(&host));
        let alone = Host {
            allowed: vec![0],
            ..host
        };
        assert_eq!(named(&of_host(&alone), "cpu").verdict, Caution);
    }

    #[test]
    fn refused_io_uring_names_step_errno_cause_and_the_way_out() {
        for (errno, cause, advice) in [
            (Some(1), "a seccomp profile forbids it", "seccomp profile"),
            (Some(1), "kernel.io_uring_disabled is 2", "sysctl"),
            (Some(12), "not enough memory may be locked", "ulimit"),
            (Some(22), "the kernel is too old, 6.1 is needed", "6.1"),
            (None, "an operation did not come back", "epoll"),
        ] {
            let host = Host {
                io_uring: Err(RingRefused {
                    step: "setup",
                    errno,
                    cause: cause.into(),
                }),
                ..good()
            };
            let found = named(&of_host(&host), "io_uring");
            assert_eq!(found.verdict, Caution);
            assert!(
                found.value.contains(cause) && found.value.contains("setup"),
                "{found:?}"
            );
            let said = errno.map_or("no errno".into(), |errno| format!("errno {errno}:"));
            assert!(found.value.contains(&said), "{found:?}");
            assert!(
                found
                    .advice
                    .as_ref()
                    .is_some_and(|say| say.contains(advice)),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_others_took_is_judged() {
        let judged = |steal_percent, others_cpus| {
            let findings = of_stretch(Some(Stretch {
                seconds: 10.0,
                steal_percent,
                others_cpus,
                broker_included: false,
            }));
            (
                named(&findings, "steal").verdict,
                named(&findings, "load").verdict,
            )
        };
        assert_eq!(judged(0.0, 0.01), (Good, Good));
        assert_eq!(judged(1.0, 0.3), (Caution, Caution));
        assert_eq!(judged(9.0, 1.5), (Bad, Bad));
        assert_eq!(worst(&of_stretch(None)), Caution);
    }

    #[test]
    fn costs_are_judged_by_their_limits() {
        let mut costs = UnitCosts {
            syscall_ns: 100.0,
            clock_ns: 25.0,
            memcpy_ns_per_byte: 0.03,
            crc_ns_per_byte: 0.05,
            wake_us: None,
            ping_pong: None,
            took_ms: 1.0,
        };
        assert_eq!(worst(&of_costs(&costs)), Good);
        costs.syscall_ns = 5_000.0;
        assert_eq!(named(&of_costs(&costs), "syscall").verdict, Bad);
        assert_eq!(named(&of_costs(&costs), "memcpy").value, "0.0300 ns/byte");
    }
}
