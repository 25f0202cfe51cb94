//! A TCP socket before it belongs to a connection: made, configured, its address in the form the
//! kernel reads.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use super::SocketOptions;

/// Whether calls on the socket wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocking {
    /// For io_uring, which does the waiting itself and gives `O_NONBLOCK` a meaning of its own.
    Yes,
    /// For epoll.
    No,
}

/// Makes a socket for `addr` with everything set that must be set before `connect`.
pub(super) fn open(
    addr: &SocketAddr,
    options: &SocketOptions,
    blocking: Blocking,
) -> io::Result<OwnedFd> {
    let family = match addr {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let mut kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    if blocking == Blocking::No {
        kind |= libc::SOCK_NONBLOCK;
    }
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(family, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };

    set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    if options.keepalive > Duration::ZERO {
        let seconds = at_least_one(options.keepalive.as_secs());
        set(&socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        // The kernel's own upper bound for both is 32,767 s.
        let seconds = seconds.min(32_767);
        set(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds)?;
        set(&socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds)?;
    }
    if options.user_timeout > Duration::ZERO {
        let millis = options.user_timeout.as_millis();
        let millis = at_least_one(u64::try_from(millis).unwrap_or(u64::MAX));
        set(&socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, millis)?;
    }
    // Buffers before connect: the window scale is agreed in the handshake. The kernel caps the
    // values by itself (net.core.wmem_max, rmem_max).
    if options.send_buffer_bytes > 0 {
        let bytes = clamp(options.send_buffer_bytes);
        set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)?;
    }
    if options.receive_buffer_bytes > 0 {
        let bytes = clamp(options.receive_buffer_bytes);
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)?;
    }
    Ok(socket)
}

/// Ends both directions: the peer learns of it, and whatever waits in the kernel on this socket
/// comes back. A socket that is not connected any more has nothing to end.
pub(super) fn shut_down(socket: BorrowedFd<'_>) {
    // SAFETY: shutdown(2) takes no pointers; the borrowed descriptor is open.
    let _ = unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// The error a socket holds (`SO_ERROR`), which reading clears.
pub(super) fn take_error(socket: BorrowedFd<'_>) -> Option<io::Error> {
    let mut code: libc::c_int = 0;
    let mut len = socklen::<libc::c_int>();
    // SAFETY: `code` and `len` are live locals, and `len` is the size of `code`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            ptr::from_mut(&mut code).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Some(io::Error::last_os_error());
    }
    (code != 0).then(|| io::Error::from_raw_os_error(code))
}

/// A socket address as the kernel reads it.
pub(super) enum RawAddress {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl RawAddress {
    pub(super) fn new(addr: &SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(v4) => Self::V4(libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => Self::V6(libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }

    /// Pointer and length for `connect`; good as long as `self` stays where it is.
    pub(super) fn as_raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        match self {
            Self::V4(v4) => (ptr::from_ref(v4).cast(), socklen::<libc::sockaddr_in>()),
            Self::V6(v6) => (ptr::from_ref(v6).cast(), socklen::<libc::sockaddr_in6>()),
        }
    }
}

fn set(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer is to a live local of the size told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&value).cast(),
            socklen::<libc::c_int>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn at_least_one(value: u64) -> libc::c_int {
    libc::c_int::try_from(value.max(1)).unwrap_or(libc::c_int::MAX)
}

fn clamp(bytes: usize) -> libc::c_int {
    // The kernel doubles what it is told.
    libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX / 2)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the address families are 2 and 10"
)]
const fn family(family: libc::c_int) -> libc::sa_family_t {
    family as libc::sa_family_t
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "sizes of a few bytes, known at compile time"
)]
const fn socklen<T>() -> libc::socklen_t {
    mem::size_of::<T>() as libc::socklen_t
}
