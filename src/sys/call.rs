//! System calls without the C library's functions around them: the three that every request makes.
//!
//! On many processors of AMD (where `/sys/devices/system/cpu/vulnerabilities/spec_rstack_overflow`
//! says "Safe RET") the first return, after a system call, from a function that was called before it
//! is very slow: 0.4 us on the machine of the published figures, of the 5 that a request takes. It
//! seems that what the kernel does against SRSO leaves the prediction of returns without any. A
//! function that is both called and left between two system calls costs nothing.
//!
//! So the path of a request has no such return: from `Reactor::run` down to these, its functions
//! are `#[inline(always)]`, and the C library's, which could not be, are left out. `strace` sees the
//! calls as ever; `ltrace`, and whatever takes the place of the C library's functions
//! (`LD_PRELOAD`), does not.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
use nix::sys::socket::{self, MsgFlags};

/// `recv(2)`.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline(always)]
pub(super) fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> nix::Result<usize> {
    let args = [fd.as_raw_fd() as usize, buf.as_mut_ptr() as usize, buf.len(), 0, 0, 0];
    // SAFETY: the kernel writes no more than the length to the buffer, and no sender's address.
    unsafe { system_call(libc::SYS_recvfrom, args) }
}

/// `send(2)`, of which a connection that is gone is an error and never a signal.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline(always)]
pub(super) fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> nix::Result<usize> {
    let flags = libc::MSG_NOSIGNAL as usize;
    let args = [fd.as_raw_fd() as usize, buf.as_ptr() as usize, buf.len(), flags, 0, 0];
    // SAFETY: the kernel reads no more than the length from the buffer, and no receiver's address.
    unsafe { system_call(libc::SYS_sendto, args) }
}

/// `epoll_wait(2)`.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline(always)]
pub(super) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout_ms: i32,
) -> nix::Result<usize> {
    let (most, timeout) = (events.len().min(i32::MAX as usize), timeout_ms as usize);
    let args = [epoll.as_raw_fd() as usize, events.as_mut_ptr() as usize, most, timeout, 0, 0];
    // SAFETY: the kernel writes as many events at most as there is room for.
    unsafe { system_call(libc::SYS_epoll_wait, args) }
}

/// # Safety
/// The call reads and writes no memory but what it may.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline(always)]
unsafe fn system_call(number: libc::c_long, args: [usize; 6]) -> nix::Result<usize> {
    let result: isize;
    // SAFETY: these are the registers that the kernel takes and those that it changes
    // (`syscall(2)`, "Architecture calling conventions"); for memory the caller vouches.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    match result {
        // Errors are the negative numbers down to this, and nothing else is (`intro(2)`).
        -4095..0 => Err(Errno::from_raw(-result as i32)),
        _ => Ok(result as usize),
    }
}

/// `recv(2)`.
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
pub(super) fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> nix::Result<usize> {
    socket::recv(fd.as_raw_fd(), buf, MsgFlags::empty())
}

/// `send(2)`, of which a connection that is gone is an error and never a signal.
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
pub(super) fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> nix::Result<usize> {
    socket::send(fd.as_raw_fd(), buf, MsgFlags::MSG_NOSIGNAL)
}

/// `epoll_wait(2)`.
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
pub(super) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout_ms: i32,
) -> nix::Result<usize> {
    let most = i32::try_from(events.len()).unwrap_or(i32::MAX);
    // SAFETY: the kernel writes as many events at most as there is room for.
    let ready =
        unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), most, timeout_ms) };
    Ok(Errno::result(ready)? as usize)
}
