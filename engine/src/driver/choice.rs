//! Which driver to take, and why: the answer shows in the statistics and in the log.

use std::fmt;
use std::str::FromStr;

use super::ring::{RingRefused, probe_ring};

/// What the configuration asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DriverChoice {
    /// io_uring where the kernel grants it, epoll elsewhere.
    #[default]
    Auto,
    /// io_uring or an error.
    Ring,
    /// epoll.
    Epoll,
}

/// A driver by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverKind {
    /// [`RingDriver`](super::RingDriver).
    Ring,
    /// [`EpollDriver`](super::EpollDriver).
    Epoll,
}

/// The driver taken, and the reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenDriver {
    /// The driver.
    pub kind: DriverKind,
    /// Why this one, for people: "asked for", "io_uring refused: …".
    pub reason: String,
}

impl DriverChoice {
    /// Asks the kernel and decides. Only [`DriverChoice::Ring`] can fail.
    ///
    /// The calling thread's seccomp filter counts, so call it where the driver will live or in a
    /// thread with the same filter.
    pub fn resolve(self) -> Result<ChosenDriver, RingRefused> {
        let chosen = match self {
            Self::Epoll => ChosenDriver::new(DriverKind::Epoll, "asked for"),
            Self::Ring => {
                probe_ring()?;
                ChosenDriver::new(DriverKind::Ring, "asked for")
            }
            Self::Auto => match probe_ring() {
                Ok(()) => ChosenDriver::new(DriverKind::Ring, "io_uring works here"),
                Err(refused) => ChosenDriver::new(DriverKind::Epoll, refused.to_string()),
            },
        };
        Ok(chosen)
    }
}

impl ChosenDriver {
    fn new(kind: DriverKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
        }
    }
}

impl DriverKind {
    /// "ring" or "epoll", as in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Epoll => "epoll",
        }
    }
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ChosenDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind, self.reason)
    }
}

/// The text names no driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no driver: auto, ring or epoll")]
pub struct UnknownDriver {
    /// What was given.
    pub text: String,
}

impl FromStr for DriverChoice {
    type Err = UnknownDriver;

    fn from_str(text: &str) -> Result<Self, UnknownDriver> {
        match text {
            "auto" => Ok(Self::Auto),
            "ring" => Ok(Self::Ring),
            "epoll" => Ok(Self::Epoll),
            _ => Err(UnknownDriver {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for DriverChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Ring => "ring",
            Self::Epoll => "epoll",
        })
    }
}
