//! SIGINT, SIGTERM and SIGHUP end a measurement early: the verb prints what it has measured and exits
//! with status 130. A second signal ends the process at once. A SIGHUP that is ignored, as `nohup(1)`
//! has it, stays ignored.
//!
//! The signals are blocked and read from a descriptor. The loops of a load look there ten times a
//! second, when they report progress; whoever blocks in a read waits with [`wait_readable`]. A
//! terminal sends SIGINT to its whole foreground process group: forked workers inherit the blocked
//! signals and end early too, as when their parent sends them SIGTERM. Programs that are started
//! with [`child`](crate::child) have a process group of their own, and their parent ends them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process;
use std::sync::OnceLock;

use c10k::{Signals, sys};
use nix::sys::signal::Signal;

use crate::Failure;

/// What a shell reports for a program that SIGINT has ended: 128 and the signal's number.
pub(crate) const EXIT_STATUS: u8 = 130;

/// The descriptor, and the process that opened it.
static SIGNALS: OnceLock<(Signals, u32)> = OnceLock::new();

/// The first signal that came.
static CAME: OnceLock<&'static str> = OnceLock::new();

/// Blocks the signals. Call it before there is another thread or process, and before files are
/// created that an interruption must not leave empty.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub(crate) fn watch() -> Result<(), Failure> {
    let signals = Signals::new()?;
    SIGNALS.set((signals, process::id())).expect("a verb watches once");
    Ok(())
}

/// The signal that has come, `"SIGINT"`, `"SIGTERM"` or `"SIGHUP"`; the first if there were several.
///
/// Reads the descriptor, until one has come.
pub(crate) fn came() -> Option<&'static str> {
    if let Some(&signal) = CAME.get() {
        return Some(signal);
    }
    let (signals, owner) = SIGNALS.get()?;
    let number = signals.read().ok()??;
    // A worker may receive both its parent's and the terminal's.
    if process::id() == *owner {
        signals.unblock();
    }
    let name = Signal::try_from(number).map_or("a signal", Signal::as_str);
    Some(*CAME.get_or_init(|| name))
}

/// An error if a signal has come.
pub(crate) fn check() -> Result<(), Failure> {
    came().map_or(Ok(()), |signal| Err(Failure::Interrupted(signal)))
}

/// Waits until `fd` can be read without blocking, or is at its end. `false` when a signal comes
/// first, or has come before.
///
/// # Errors
/// Those of `poll(2)`; none in practice.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let entry =
        |fd: BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let signals = SIGNALS.get().map(|(signals, _)| entry(signals.as_fd()));
    while came().is_none() {
        let mut fds: Vec<_> = [entry(fd)].into_iter().chain(signals).collect();
        sys::poll(&mut fds, -1)?;
        if fds[0].revents != 0 {
            return Ok(true);
        }
    }
    Ok(false)
}
