//! Whose a results folder is while it is written: two runs that write one folder would leave a
//! mixture. The lock is on the folder itself, so nothing is left behind, and ends with its process.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Claims the folder until the lock is dropped.
///
/// # Errors
/// When somebody else has it, or it is not there.
pub fn lock(folder: &Path) -> io::Result<File> {
    let lock = File::open(folder)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another process is writing to it")),
        // A file system without locks is no reason not to write.
        Err(TryLockError::Error(_)) => Ok(lock),
    }
}

/// Claims the folder for the program that is started while the lock is held: that inherits it, and holds
/// it until it ends, whatever becomes of this process by then.
///
/// # Errors
/// As [`lock`].
pub fn lend(folder: &Path) -> io::Result<File> {
    let lock = lock(folder)?;
    fcntl(&lock, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(lock)
}

/// Waits until nobody writes to the folder; at once when it is not there.
pub fn wait_unlocked(folder: &Path) {
    // Without a lock there is nothing to wait for.
    let _ = File::open(folder).and_then(|lock| lock.lock());
}
