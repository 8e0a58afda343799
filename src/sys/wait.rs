//! Waiting: `poll(2)` and `select(2)`, which are told the whole list at each call, `epoll_wait(2)`,
//! and `epoll_pwait2(2)`, which nix does not have.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;

use super::call;

/// How many descriptors a set of `select(2)` has room for: the numbers 0 to 1,023, however many
/// of them are in use. The kernel would take larger sets; the C library's type is what it is.
pub const FD_SETSIZE: usize = libc::FD_SETSIZE;

/// Waits until one of `fds` is ready for what its `events` say, or `timeout_ms` have passed (-1:
/// for ever). Returns how many have `revents` set (`poll(2)`).
///
/// # Errors
/// `EINTR` when a signal came first; `EINVAL` for more descriptors than `RLIMIT_NOFILE` allows.
pub fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one slice, which the kernel writes to only
    // during the call.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
    Ok(Errno::result(ready)? as usize)
}

/// A set of descriptors below [`FD_SETSIZE`], as `select(2)` takes it: a bit for each.
#[derive(Clone, Copy)]
pub struct FdSet(libc::fd_set);

impl FdSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> FdSet {
        // SAFETY: an fd_set is an array of integers, for which all zeroes are a value.
        FdSet(unsafe { std::mem::zeroed() })
    }

    /// Puts a descriptor into the set.
    ///
    /// # Panics
    /// If it is not below [`FD_SETSIZE`]: `FD_SET` would write past the end of the set.
    pub fn insert(&mut self, fd: RawFd) {
        assert!(fits(fd), "descriptor {fd} does not fit an fd_set");
        // SAFETY: the bit is within the set, as was just checked.
        unsafe { libc::FD_SET(fd, &mut self.0) }
    }

    /// Takes a descriptor out of the set.
    ///
    /// # Panics
    /// As [`insert`](FdSet::insert).
    pub fn remove(&mut self, fd: RawFd) {
        assert!(fits(fd), "descriptor {fd} does not fit an fd_set");
        // SAFETY: the bit is within the set, as was just checked.
        unsafe { libc::FD_CLR(fd, &mut self.0) }
    }

    /// Whether a descriptor is in the set. One that does not fit is not.
    #[must_use]
    pub fn contains(&self, fd: RawFd) -> bool {
        // SAFETY: the bit is within the set, as is checked first.
        fits(fd) && unsafe { libc::FD_ISSET(fd, &self.0) }
    }
}

impl Default for FdSet {
    fn default() -> Self {
        FdSet::new()
    }
}

impl fmt::Debug for FdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((0..FD_SETSIZE as RawFd).filter(|&fd| self.contains(fd))).finish()
    }
}

fn fits(fd: RawFd) -> bool {
    usize::try_from(fd).is_ok_and(|fd| fd < FD_SETSIZE)
}

/// Waits until a descriptor below `limit` is ready, or `timeout_ms` have passed (-1: for ever),
/// and leaves in each set those that are: to read, to write, and with out-of-band data. Returns
/// how many bits are left (`select(2)`).
///
/// # Errors
/// `EINTR` when a signal came first; `EBADF` for a descriptor that is not open.
///
/// # Panics
/// If `limit` is above [`FD_SETSIZE`].
pub fn select(
    limit: usize,
    read: &mut FdSet,
    write: &mut FdSet,
    timeout_ms: i32,
) -> io::Result<usize> {
    assert!(limit <= FD_SETSIZE, "an fd_set has {FD_SETSIZE} bits");
    let mut timeout = libc::timeval {
        tv_sec: (timeout_ms / 1000).into(),
        tv_usec: (timeout_ms % 1000 * 1000).into(),
    };
    let timeout = if timeout_ms < 0 { ptr::null_mut() } else { &raw mut timeout };
    // SAFETY: the kernel reads and writes `limit` bits of each set, which has as many, and the
    // time-out, which outlives the call.
    let ready =
        unsafe { libc::select(limit as i32, &mut read.0, &mut write.0, ptr::null_mut(), timeout) };
    Ok(Errno::result(ready)? as usize)
}

/// Waits until a descriptor that `epoll` watches is ready, or `timeout_ms` have passed (-1: for
/// ever). Returns how many of `events` were written (`epoll_wait(2)`).
///
/// # Errors
/// `EINTR` when a signal came first; `EINVAL` if there is no room for an event, or this is no
/// epoll instance.
#[inline(always)] // see sys/call.rs
pub fn epoll_wait(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout_ms: i32,
) -> io::Result<usize> {
    Ok(call::epoll_wait(epoll, events, timeout_ms)?)
}

/// Waits as `epoll_wait` does, for a time that need not be whole milliseconds. Returns how many of
/// `events` were written (`epoll_pwait2`, `epoll_wait(2)`).
///
/// # Errors
/// `ENOSYS` before Linux 5.11; `EINTR` when a signal came first; `EINVAL` if there is no room for
/// an event, or this is no epoll instance.
pub fn epoll_pwait2(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout: Duration,
) -> io::Result<usize> {
    /// The kernel's `__kernel_timespec`, of which a C library may have a smaller idea.
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    let timeout = Timespec {
        seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: timeout.subsec_nanos().into(),
    };
    let most = i32::try_from(events.len()).unwrap_or(i32::MAX);
    // SAFETY: the kernel writes up to `most` events, for which there is room; it reads the
    // time-out, which outlives the call; there is no signal mask, and so its size is not looked at.
    let ready = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            most,
            &raw const timeout,
            ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };
    Ok(Errno::result(ready)? as usize)
}
