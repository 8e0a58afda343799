//! How a program is started: with few descriptors, without those that this process has inherited,
//! with system calls that the kernel refuses.

// What is done between fork and exec has no safe wrapper.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

/// Has a command run with at most this many descriptors, of which it has the standard three.
///
/// What this process has inherited goes no further: the limit is on the numbers, so a command that
/// is to have room for two would have none.
pub(crate) fn limit_descriptors(command: &mut Command, most: u64) -> &mut Command {
    let limit = move || {
        // Closed when the program starts, and not before: one of them is the pipe by which
        // `Command` learns that it did not.
        // SAFETY: close_range(2) takes three integers. Linux has had this flag since 5.11; before,
        // what was inherited stays.
        unsafe {
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
        };
        Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
    };
    // SAFETY: between fork and exec it makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(limit) }
}

/// Has the kernel refuse a system call to a command with an error, as in
/// `(libc::SYS_socket, Some(libc::AF_NETLINK as u32), libc::EPERM)`: if there is a `first`, only
/// calls with that first argument (`seccomp(2)`). May be called again for another call.
pub(crate) fn refuse(
    command: &mut Command,
    call: libc::c_long,
    first: Option<u32>,
    errno: i32,
) -> &mut Command {
    let (nr, argument) = (0, 16); // offsets in `struct seccomp_data`, of a little-endian machine
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let end = (libc::BPF_RET | libc::BPF_K) as u16;
    let instruction = |code, k, jf| libc::sock_filter { code, jt: 0, jf, k };
    let mut filter = [
        instruction(load, nr, 0),
        instruction(equal, call as u32, 3),
        instruction(load, argument, 0),
        instruction(equal, first.unwrap_or_default(), if first.is_some() { 1 } else { 0 }),
        instruction(end, libc::SECCOMP_RET_ERRNO | errno as u32, 0),
        instruction(end, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: prctl(2) with integers, and with a pointer to a program that the kernel copies.
        let results = unsafe {
            [
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
            ]
        };
        for result in results {
            Errno::result(result).map_err(io::Error::from)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(install) }
}

/// Has a command start with the default action of the signals that end a program, whatever the tests
/// were started with: `nohup cargo test` has them ignore SIGHUP.
pub(crate) fn default_signals(command: &mut Command) -> &mut Command {
    let restore = || {
        for ends in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
            // SAFETY: no handler is installed that could run anything.
            unsafe { signal(ends, SigHandler::SigDfl) }?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes four system calls, and allocates nothing.
    unsafe { command.pre_exec(restore) }
}

/// Has a command start with a signal ignored. If that is SIGCHLD, the kernel keeps none of its
/// ended children for it to wait for (`wait(2)`).
pub(crate) fn ignore_signal(command: &mut Command, ignored: Signal) -> &mut Command {
    let ignore = move || {
        // SAFETY: no handler is installed that could run anything.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
        Ok(())
    };
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe { command.pre_exec(ignore) }
}

/// Has a command start with every signal blocked that can be.
pub(crate) fn block_signals(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe { command.pre_exec(|| Ok(SigSet::all().thread_set_mask()?)) }
}

/// Has a command find empty folders at these paths: in a mount namespace of its own, and a user
/// namespace where that takes one. It does not start where neither is allowed.
pub(crate) fn hide<'a>(command: &'a mut Command, paths: &[&str]) -> &'a mut Command {
    let paths: Vec<_> = paths.iter().map(|path| CString::new(*path).expect("a path")).collect();
    let mount = |kind: *const libc::c_char, path: *const libc::c_char, flags| {
        // SAFETY: mount(2) reads strings that end with a zero, and are there or null.
        let result = unsafe { libc::mount(kind, path, kind, flags, ptr::null()) };
        Errno::result(result).map(drop)
    };
    let hide = move || {
        match unshare(CloneFlags::CLONE_NEWNS) {
            Err(Errno::EPERM) => unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?,
            result => result?,
        }
        mount(ptr::null(), c"/".as_ptr(), libc::MS_REC | libc::MS_PRIVATE)?;
        for path in &paths {
            mount(c"tmpfs".as_ptr(), path.as_ptr(), 0)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls, and allocates nothing.
    unsafe { command.pre_exec(hide) }
}
