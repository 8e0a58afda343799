//! Limits and placement of this process.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
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

/// The limit on processes and threads that is in force here, as far as can be told: for whoever has
/// been refused one with `EAGAIN`, which may mean any of four (`fork(2)`, "ERRORS").
#[must_use]
pub fn task_limit() -> String {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    // "0.05 0.02 0.00 2/345 6789": of 345 tasks on the system, 2 want to run (proc(5)).
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let tasks = load.split(['/', ' ']).nth(4).and_then(|tasks| tasks.parse::<u64>().ok());
    let reaches = |max: u64| tasks.is_some_and(|tasks| tasks >= max);

    for folder in cgroups_of_pids() {
        if let Some(max) = number(&format!("{folder}/pids.max"))
            && number(&format!("{folder}/pids.current")).is_some_and(|current| current >= max)
        {
            return format!("pids.max of the control group, {max}");
        }
    }
    for name in ["threads-max", "pid_max"] {
        if let Some(max) = number(&format!("/proc/sys/kernel/{name}")).filter(|&max| reaches(max)) {
            return format!("kernel.{name}, {max}");
        }
    }
    match getrlimit(Resource::RLIMIT_NPROC) {
        Ok((soft, _)) if soft != RLIM_INFINITY => {
            format!("RLIMIT_NPROC, {soft} for this user (ulimit -u)")
        }
        _ => "none of those known (fork(2))".to_owned(),
    }
}

/// The folders of the control groups that may limit this process's pids: of version 2 and of
/// version 1 (`cgroups(7)`).
fn cgroups_of_pids() -> Vec<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let folder = |line: &str| match line.splitn(3, ':').collect::<Vec<_>>()[..] {
        [_, "", path] => Some(format!("/sys/fs/cgroup{path}")),
        [_, controllers, path] if controllers.split(',').any(|name| name == "pids") => {
            Some(format!("/sys/fs/cgroup/pids{path}"))
        }
        _ => None,
    };
    groups.lines().filter_map(folder).collect()
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
/// (`PR_SET_PDEATHSIG`, `prctl(2)`), so that no child outlives a killed parent. The child starts with
/// no signal blocked: it would inherit those that this process reads from a descriptor
/// ([`Signals`](crate::Signals)), and never receive them.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    let parent = std::process::id();
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are
    // allowed: sigprocmask, prctl and getppid are, and nothing here allocates on the path that
    // succeeds.
    unsafe {
        command.pre_exec(move || {
            SigSet::empty().thread_set_mask()?;
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before prctl took effect.
            if nix::unistd::getppid().as_raw() != parent as i32 {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        })
    }
}
