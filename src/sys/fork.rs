//! `fork(2)`, and what a child and its parent have to do with each other.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::linux::fs::MetadataExt;
use std::panic::{self, AssertUnwindSafe};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{self, ForkResult, Pid};

/// Copies this process. The copy runs `child` and ends with the status that it returns, or 101 if
/// it panics; nothing else of the program runs in it, no destructor included. Returns its pid.
///
/// Only the calling thread is copied: whatever another one was doing stays half done in the child,
/// with its locks held for ever (`fork(2)`, `pthread_atfork(3)`). So this refuses to fork a
/// process that has several.
///
/// The child shares each of the parent's descriptors. An epoll instance among them would be one
/// and the same in both processes, and registrations that the child did not make would wake it
/// (`epoll(7)`, question 6 and the note on closing): fork before there is one.
///
/// # Errors
/// [`Unsupported`](io::ErrorKind::Unsupported) if this process has threads. `EAGAIN` at a limit on
/// processes, which [`task_limit`](super::task_limit) helps to name; `ENOMEM`.
pub fn fork(child: impl FnOnce() -> i32) -> io::Result<u32> {
    check_single_threaded()?;
    // SAFETY: there is no other thread whose state the child could find half changed.
    match unsafe { unistd::fork()? } {
        ForkResult::Parent { child } => Ok(child.as_raw() as u32),
        ForkResult::Child => {
            let status = panic::catch_unwind(AssertUnwindSafe(child)).unwrap_or(101);
            // SAFETY: ends the process at once; whatever destructors would do (remove a unix
            // socket's path, say) is for the parent to do.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Whether this process may [`fork`].
///
/// `/proc/self/task` has a link for each thread, and two of its own. To ask for that is one system
/// call, where reading `/proc/self/status` keeps the kernel busy for much longer. Where there is no
/// `/proc`, `unshare(CLONE_THREAD)` does nothing in a process with one thread, and is refused in any
/// other (`unshare(2)`); it comes second, since some containers refuse it to everybody.
///
/// # Errors
/// [`Unsupported`](io::ErrorKind::Unsupported) if it has several threads, or if neither says.
pub(crate) fn check_single_threaded() -> io::Result<()> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::Unsupported, why));
    let threads = match fs::metadata("/proc/self/task") {
        Ok(folder) => match folder.st_nlink().saturating_sub(2) {
            1 => return Ok(()),
            threads => threads.to_string(),
        },
        Err(no_proc) => match unshare(CloneFlags::CLONE_THREAD) {
            Ok(()) => return Ok(()),
            Err(Errno::EINVAL) => "several".to_owned(),
            Err(errno) => {
                return refused(format!(
                    "a fork copies only one thread, and whether this process has others cannot be \
                     told: /proc/self/task: {no_proc}; unshare(CLONE_THREAD): {}",
                    errno.desc()
                ));
            }
        },
    };
    refused(format!("this process has {threads} threads, and a fork copies only one of them"))
}

/// In a child that serves one connection: closes every descriptor but that one and the standard
/// three.
///
/// Inherited, they are no use to it, and do harm: a listener stays open after its owner has closed
/// it. For a child that will end with no destructor run, as [`fork`]'s does: whatever owns the
/// descriptors that are closed here must not be used again.
pub(crate) fn close_all_but(keep: &OwnedFd) {
    let keep = keep.as_raw_fd() as u32;
    for (from, to) in [(FIRST, keep.saturating_sub(1)), (FIRST.max(keep + 1), u32::MAX)] {
        if from <= to {
            close_range(from, to);
        }
    }
}

/// At the start of a program: closes every descriptor but the standard three, all of which it can
/// only have inherited. The numbers of those that it opens do not depend on its parent then.
///
/// Call it before anything is opened: whatever owns a descriptor that is closed here must not be
/// used again, or it uses another one of the same number.
pub fn close_inherited() {
    close_range(FIRST, u32::MAX);
}

/// The first descriptor behind the standard three.
const FIRST: u32 = libc::STDERR_FILENO as u32 + 1;

/// Closes the descriptors from one number to another, both included (`close_range(2)`, which Linux
/// has since 5.9; where it is missing or refused, one by one, as `/proc/self/fd` lists them).
fn close_range(from: u32, to: u32) {
    // SAFETY: close_range(2) takes three integers. By the contracts above nobody uses the
    // descriptors again.
    if unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } == 0 {
        return;
    }
    let listed = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<u32> =
        listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| (from..=to).contains(number)) {
        // SAFETY: as above. The folder's own descriptor is closed by now, and its number free.
        unsafe { libc::close(number as RawFd) };
    }
}

/// In a child that [`fork`] has made: has the kernel send it `signal` (as in `libc::SIGTERM`) when
/// the thread that forked it ends (`PR_SET_PDEATHSIG`, `prctl(2)`), so that it does not outlive a
/// parent that is killed. `parent` is the parent's pid, taken before the fork.
///
/// # Errors
/// `ESRCH` if the parent has ended already; `EINVAL` if there is no such signal.
pub fn end_with_parent(parent: u32, signal: i32) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::try_from(signal)?)?;
    // The parent may have died before prctl took effect.
    match unistd::getppid() == Pid::from_raw(parent as i32) {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}
