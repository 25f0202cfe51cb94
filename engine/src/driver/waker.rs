//! How another thread ends a driver's wait.
//!
//! An eventfd that is written and, in practice, never read. Both drivers watch it edge-triggered
//! (a multishot poll, `EPOLLET`), where every write is an event of its own, so a wake costs the
//! sleeper no extra system call. A write that comes before the wait leaves the event pending, and
//! that is the latch the contract asks for: a wake is never lost, at worst it ends a wait that had
//! something else to report.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Ends a driver's wait from any thread. Clones wake the same driver.
#[derive(Debug, Clone)]
pub(crate) struct Waker {
    eventfd: Arc<File>,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: eventfd(2) takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self {
            eventfd: Arc::new(File::from(fd)),
        })
    }

    /// Ends the driver's present wait, or its next one if it is not waiting. One system call.
    pub(crate) fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        while let Err(error) = (&*self.eventfd).write(&one) {
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                // The count is full, after 2^64 - 2 wakes: start again from zero. The bytes read
                // mean nothing; a failure means another thread has just done the same.
                io::ErrorKind::WouldBlock => {
                    let _ = (&*self.eventfd).read(&mut [0; 8]);
                }
                // An eventfd has no other errors. Nothing a waker could do about one.
                _ => return,
            }
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_count_does_not_lose_the_wake() {
        let waker = Waker::new().expect("eventfd");
        (&*waker.eventfd)
            .write_all(&(u64::MAX - 1).to_ne_bytes())
            .expect("fill the count");
        waker.wake();
        let mut count = [0; 8];
        (&*waker.eventfd).read_exact(&mut count).expect("count");
        assert_eq!(u64::from_ne_bytes(count), 1);
    }
}
