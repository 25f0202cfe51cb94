//! Is this host fit to measure on? What was found, what it does to the figures, what to do about it.
//!
//! ```text
//! host        what the system tells: files of /proc and /sys, the kernel's answer to io_uring
//! unit_costs  what was measured on the spot: system call, clock, copy, CRC, wake, TCP there and back
//! judge       both of them ──► findings, each with a verdict; reads nothing itself
//! ```
//! The command `doctor` prints all of it. Every run keeps its own in `environment` of its document:
//! what is cheap to see before the warm-up, what others took away (steal, load) from the window.

use std::fmt;

use serde::{Deserialize, Serialize};

pub mod host;
pub mod judge;
pub mod ping_pong;
pub mod unit_costs;

/// What a finding means for measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing to do.
    Good,
    /// Figures hold with what is said beside it in mind.
    Caution,
    /// Figures of this kind should not be told to anybody.
    Bad,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Caution => "caution",
            Self::Bad => "bad",
        })
    }
}

/// One thing about this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at; programs may rely on it.
    pub name: String,
    /// What was seen.
    pub value: String,
    /// What that means.
    pub verdict: Verdict,
    /// What it does to figures.
    pub effect: String,
    /// What to do; nothing where nothing is wrong.
    pub advice: Option<String>,
}

/// The worst of them.
pub fn worst(findings: &[Finding]) -> Verdict {
    findings
        .iter()
        .map(|finding| finding.verdict)
        .max()
        .unwrap_or(Verdict::Good)
}
