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
pub(crate) enum DriverKind {
    /// [`RingDriver`](super::RingDriver).
    Ring,
    /// [`EpollDriver`](super::EpollDriver).
    Epoll,
}

/// The driver taken, and the reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChosenDriver {
    /// The driver.
    pub(crate) kind: DriverKind,
    /// Why this one, for people: "asked for", "io_uring refused: …".
    pub(crate) reason: String,
}

impl DriverChoice {
    /// Whether the kernel grants this thread the io_uring that [`Auto`](Self::Auto) prefers: what a
    /// producer asks itself when it starts.
    ///
    /// # Errors
    /// With the step that failed, the error number and its likely cause.
    pub fn probe_ring() -> Result<(), RingRefused> {
        probe_ring()
    }

    /// Asks the kernel and decides. Only [`DriverChoice::Ring`] can fail.
    ///
    /// The calling thread's seccomp filter counts, so call it where the driver will live or in a
    /// thread with the same filter.
    pub(crate) fn resolve(self) -> Result<ChosenDriver, RingRefused> {
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
    pub(crate) const fn name(self) -> &'static str {
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::driver::{EpollDriver, RingDriver};

    /// Makes the kernel refuse `io_uring_setup` to the calling thread and answer with `errno`, as a
    /// container's seccomp profile does. Only this thread is bound, and for good.
    fn refuse_io_uring(errno: i32) {
        let instruction = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
            code: u16::try_from(code).expect("16 bits"),
            jt,
            jf,
            k,
        };
        let setup = u32::try_from(libc::SYS_io_uring_setup).expect("a system call's number");
        let errno = u32::try_from(errno).expect("an error number");
        let mut program = [
            // seccomp_data starts with the system call's number.
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, setup),
            instruction(
                libc::BPF_RET | libc::BPF_K,
                0,
                0,
                libc::SECCOMP_RET_ERRNO | errno,
            ),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog {
            len: 4,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: this prctl takes no pointers.
        let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        assert_eq!(result, 0, "PR_SET_NO_NEW_PRIVS");
        // SAFETY: `filter` names the four instructions of `program`; both are live locals, which
        // the kernel copies.
        let result = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const filter,
            )
        };
        assert_eq!(result, 0, "PR_SET_SECCOMP");
    }

    /// Refused by seccomp, missing, too old or out of lockable memory: epoll, with the reason; the
    /// ring alone is that error.
    #[test]
    fn x6_without_io_uring_auto_is_epoll_and_says_why() {
        for (errno, cause) in [
            (libc::EPERM, "seccomp"),
            (libc::ENOSYS, "has no io_uring"),
            (libc::EINVAL, "6.1 is needed"),
            (libc::ENOMEM, "RLIMIT_MEMLOCK"),
        ] {
            let refused = thread::spawn(move || {
                refuse_io_uring(errno);
                let chosen = DriverChoice::Auto.resolve().expect("auto always finds one");
                assert_eq!(chosen.kind, DriverKind::Epoll);
                assert!(chosen.reason.contains(cause), "{chosen}");
                assert!(EpollDriver::new().is_ok());
                let refused = DriverChoice::Ring.resolve().expect_err("it is refused");
                assert_eq!(refused.errno, Some(errno));
                assert_eq!(refused.to_string(), chosen.reason);
                assert_eq!(RingDriver::new().err(), Some(refused));
            });
            refused.join().expect("the thread without io_uring");
        }
    }

    #[test]
    fn with_io_uring_auto_is_the_ring() {
        let chosen = DriverChoice::Auto.resolve().expect("auto always finds one");
        assert_eq!(chosen.kind, DriverKind::Ring, "{chosen}");
        assert_eq!(
            DriverChoice::Ring.resolve().map(|chosen| chosen.kind),
            Ok(DriverKind::Ring)
        );
    }

    #[test]
    fn epoll_when_asked_for() {
        let chosen = DriverChoice::Epoll.resolve().expect("nothing is asked");
        assert_eq!(chosen.to_string(), "epoll (asked for)");
    }

    #[test]
    fn a_choice_reads_as_it_prints() {
        for choice in [DriverChoice::Auto, DriverChoice::Ring, DriverChoice::Epoll] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        let unknown = "uring".parse::<DriverChoice>().expect_err("unknown");
        assert_eq!(
            unknown.to_string(),
            "\"uring\" is no driver: auto, ring or epoll"
        );
    }
}
