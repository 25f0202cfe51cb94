//! Whether the kernel grants us the ring the driver needs, and in words why not.

use std::fmt;
use std::fs;
use std::io;

use io_uring::{Probe, opcode};

use super::buffers::ReceiveBuffers;
use super::queue::{Queue, QueueLengths, Sleep};

/// io_uring cannot be used here. Not an error of the program: containers, hardened hosts and old
/// kernels refuse it, and epoll does the work then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingRefused {
    /// What was being tried.
    pub step: &'static str,
    /// The system's error number, if it gave one.
    pub errno: Option<i32>,
    /// The likely cause, for people.
    pub cause: String,
}

impl std::error::Error for RingRefused {}

impl fmt::Display for RingRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "io_uring refused: {}", self.cause)?;
        match self.errno {
            Some(errno) => write!(
                f,
                " ({}: {})",
                self.step,
                io::Error::from_raw_os_error(errno)
            ),
            None => write!(f, " ({})", self.step),
        }
    }
}

/// Tries everything the ring driver builds on: the setup with its flags (Linux 6.1), the
/// operations, a ring of receive buffers, and one operation there and back.
pub(crate) fn probe_ring() -> Result<(), RingRefused> {
    let mut queue =
        Queue::new(QueueLengths::USUAL).map_err(|error| RingRefused::at("setup", &error))?;

    let params = queue.ring().params();
    if !(params.is_feature_ext_arg()
        && params.is_feature_nodrop()
        && params.is_feature_submit_stable())
    {
        return Err(RingRefused::too_old("features"));
    }
    let mut known = Probe::new();
    queue
        .ring()
        .submitter()
        .register_probe(&mut known)
        .map_err(|error| RingRefused::at("probe", &error))?;
    let needed = [
        opcode::Nop::CODE,
        opcode::Connect::CODE,
        opcode::SendMsg::CODE,
        opcode::Recv::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel2::CODE,
    ];
    if !needed.iter().all(|code| known.is_supported(*code)) {
        return Err(RingRefused::too_old("operations"));
    }
    let buffers = ReceiveBuffers::new(&queue, 8)
        .map_err(|error| RingRefused::at("receive buffers", &error))?;

    let nop = opcode::Nop::new().build();
    // SAFETY: a NOP points to nothing.
    unsafe { queue.push(nop) };
    queue
        .enter(Sleep::Forever)
        .map_err(|error| RingRefused::at("enter", &error))?;
    let answer = queue.next().map(|completion| completion.result());
    drop(queue);
    drop(buffers);
    match answer {
        Some(0) => Ok(()),
        Some(error) => Err(RingRefused::at(
            "first operation",
            &io::Error::from_raw_os_error(error.wrapping_neg()),
        )),
        None => Err(RingRefused {
            step: "first operation",
            errno: None,
            cause: "an operation did not come back".to_owned(),
        }),
    }
}

impl RingRefused {
    /// What the kernel's answer most likely means.
    pub(super) fn at(step: &'static str, error: &io::Error) -> Self {
        let errno = error.raw_os_error();
        let cause = match errno {
            Some(libc::EPERM | libc::EACCES) => match disabled_by_sysctl() {
                Some(level) => format!("kernel.io_uring_disabled is {level}"),
                None => "a seccomp profile forbids it (containers do by default)".to_owned(),
            },
            Some(libc::ENOSYS) => {
                "this kernel, or the sandbox around it, has no io_uring".to_owned()
            }
            Some(libc::EINVAL) => TOO_OLD.to_owned(),
            Some(libc::ENOMEM) => "not enough memory may be locked (RLIMIT_MEMLOCK)".to_owned(),
            Some(libc::EMFILE | libc::ENFILE) => "too many open files".to_owned(),
            _ => error.to_string(),
        };
        Self { step, errno, cause }
    }

    fn too_old(step: &'static str) -> Self {
        Self {
            step,
            errno: None,
            cause: TOO_OLD.to_owned(),
        }
    }
}

const TOO_OLD: &str = "the kernel is too old, 6.1 is needed";

/// The administrator's switch, if it is set: 1 leaves io_uring to one group, 2 to nobody.
fn disabled_by_sysctl() -> Option<u8> {
    let text = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok().filter(|level| *level > 0)
}
