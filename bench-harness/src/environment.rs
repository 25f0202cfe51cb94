//! What a number depends on besides the code: host, kernel, CPU, settings of the system. Printed
//! with every result; two results compare only when these agree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use serde::{Deserialize, Serialize};

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
    /// `/proc/sys/kernel/io_uring_disabled`, in words.
    pub io_uring: String,
    pub memlock_bytes: Option<u64>,
    /// Share of the window's CPU time that the host gave to others.
    pub steal_percent: Option<f64>,
    /// The commit that was measured, with `-dirty` when files differed from it.
    pub commit: Option<String>,
}

impl Environment {
    /// Now; `steal_percent` is filled in after the window.
    pub fn now(affinity: &[usize]) -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            host: read("/proc/sys/kernel/hostname"),
            kernel: read("/proc/sys/kernel/osrelease"),
            arch: std::env::consts::ARCH.into(),
            cpu_model: cpus.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                (name.trim() == "model name").then(|| value.trim().to_owned())
            }),
            cpus: cpus
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count()
                .max(1),
            affinity: affinity.to_vec(),
            rustc: option_env!("RINGPOST_BENCH_RUSTC").map(Into::into),
            build: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            }
            .into(),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            transparent_hugepages: read("/sys/kernel/mm/transparent_hugepage/enabled")
                .map(|text| chosen(&text).to_owned()),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control"),
            io_uring: io_uring(read("/proc/sys/kernel/io_uring_disabled").as_deref()),
            memlock_bytes: memlock(),
            steal_percent: None,
            commit: commit(),
        }
    }

    /// The affinity as a list.
    pub fn affinity_list(&self) -> String {
        placement::show(&self.affinity)
    }
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The word in brackets of `always [madvise] never`.
fn chosen(text: &str) -> &str {
    text.split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or(text, |(word, _)| word)
}

fn io_uring(setting: Option<&str>) -> String {
    match setting {
        Some("0") => "allowed".into(),
        Some("1") => "allowed to privileged processes and one group only".into(),
        Some("2") => "switched off by kernel.io_uring_disabled".into(),
        Some(other) => format!("kernel.io_uring_disabled is {other}"),
        None => {
            "no kernel.io_uring_disabled: the kernel is older than 6.6 or has no io_uring".into()
        }
    }
}

fn memlock() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

/// The commit of the tree this program was built in, if it still lies there: asked of git from the
/// program's folder, or from the current one.
fn commit() -> Option<String> {
    let of_program = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_owned));
    let current = std::env::current_dir().ok();
    [of_program, current]
        .into_iter()
        .flatten()
        .find_map(|folder| commit_in(&folder))
}

fn commit_in(folder: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(folder)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let root = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    // Some other repository would be worse than none.
    if !root.join("bench-harness/Cargo.toml").is_file() {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if dirty.is_empty() {
        commit
    } else {
        format!("{commit}-dirty")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen("plain"), "plain");
        assert_eq!(io_uring(Some("0")), "allowed");
        assert!(io_uring(Some("2")).contains("off"));
    }

    #[test]
    fn this_machine_has_a_kernel_and_cpus() {
        let environment = Environment::now(&[0]);
        assert!(environment.kernel.is_some() && environment.cpus > 0);
    }
}
