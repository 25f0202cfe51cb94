//! What a number depends on besides the code: host, kernel, CPU, settings of the system. Printed
//! with every result; two results compare only when these agree.

use serde::{Deserialize, Serialize};

use crate::doctor::Finding;
use crate::doctor::host::{Host, Memlock, read};
use crate::doctor::unit_costs::UnitCosts;
use crate::placement;

/// The surroundings of a run. `None` where the system does not tell.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the names are the documentation of the JSON document"
)]
pub struct Environment {
    pub host: Option<String>,
    pub kernel: Option<String>,
    pub arch: String,
    pub cpu_model: Option<String>,
    pub cpus: usize,
    /// CPUs the process was allowed to use when it started.
    pub affinity: Vec<usize>,
    pub rustc: Option<String>,
    pub build: String,
    pub governor: Option<String>,
    pub transparent_hugepages: Option<String>,
    pub congestion_control: Option<String>,
    /// `works`, or why the kernel refuses it.
    pub io_uring: String,
    pub memlock_bytes: Option<u64>,
    /// Share of the window's CPU time that the host gave to others.
    pub steal_percent: Option<f64>,
    /// The commit that was measured: the one this program was built from, with `-dirty` when its
    /// sources differed from it then.
    pub commit: Option<String>,
    /// What `doctor` would say: of the host before the warm-up, of steal and load in the window.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// What the steps of sending cost here, measured before the warm-up.
    #[serde(default)]
    pub unit_costs: Option<UnitCosts>,
}

impl Environment {
    /// Of this host; steal, findings and costs are filled in as they become known.
    pub fn now(host: &Host) -> Self {
        Self {
            host: read("/proc/sys/kernel/hostname"),
            kernel: read("/proc/sys/kernel/osrelease"),
            arch: std::env::consts::ARCH.into(),
            cpu_model: host.cpu_model.clone(),
            cpus: host.cpus,
            affinity: host.allowed.clone(),
            rustc: option_env!("RINGPOST_BENCH_RUSTC").map(Into::into),
            build: host.build.into(),
            governor: (!host.governors.is_empty()).then(|| host.governors.join(", ")),
            transparent_hugepages: host.transparent_hugepages.clone(),
            congestion_control: host.congestion_control.clone(),
            io_uring: match &host.io_uring {
                Ok(()) => "works".into(),
                Err(refused) => refused.to_string().replace("io_uring ", ""),
            },
            memlock_bytes: match host.memlock {
                Memlock::Bytes(bytes) => Some(bytes),
                Memlock::Unlimited | Memlock::Unknown => None,
            },
            steal_percent: None,
            commit: option_env!("RINGPOST_BENCH_COMMIT").map(Into::into),
            findings: Vec::new(),
            unit_costs: None,
        }
    }

    /// The affinity as a list.
    pub fn affinity_list(&self) -> String {
        placement::show(&self.affinity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Placement;

    #[test]
    fn this_machine_has_a_kernel_and_cpus() {
        let host = Host::look(&[0], &Placement::choose(&[0], true), true);
        let environment = Environment::now(&host);
        assert!(environment.kernel.is_some() && environment.cpus > 0);
        assert_eq!(environment.affinity_list(), "0");
    }
}
