//! Limits and placement of this process.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Raises the soft limit on open descriptors (`RLIMIT_NOFILE`) to the hard one and returns it.
///
/// The soft limit is usually 1,024, for the sake of programs that use `select(2)`; a server has
/// no such reason. The hard limit is the administrator's word and is left alone. See
/// `getrlimit(2)`.
///
/// # Errors
/// Whatever `getrlimit` or `setrlimit` report; neither fails in practice.
pub fn raise_fd_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Binds the calling thread, and the threads it will start, to one CPU (`sched_setaffinity(2)`).
///
/// # Errors
/// `EINVAL` where there is no such CPU, or this process may not use it.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Has the kernel kill the child that `command` will start when the thread that starts it dies
/// (`PR_SET_PDEATHSIG`, `prctl(2)`), so that no child outlives a killed parent.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    let parent = std::process::id();
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are
    // allowed: prctl and getppid are, and nothing here allocates on the path that succeeds.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before prctl took effect.
            if nix::unistd::getppid().as_raw() != parent as i32 {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        })
    }
}
