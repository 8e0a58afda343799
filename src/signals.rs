//! Signals as something the loop waits for, instead of something that interrupts it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGINT and SIGTERM, received through a descriptor (`signalfd(2)`).
///
/// A handler runs between any two instructions and may touch next to nothing; a descriptor is
/// read by the loop when the loop is ready for it. For that the signals are blocked: in the thread
/// that calls [`Signals::new`], and in those it starts later. Call it before starting any.
///
/// Dropping it unblocks them again.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    blocked: SigSet,
}

impl Signals {
    /// Blocks SIGINT and SIGTERM and opens the descriptor that reports them.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Signals> {
        let set = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        set.thread_block()?;
        Ok(Signals { fd, blocked: set })
    }

    /// The next signal that has come, as `signal(7)` numbers it, if any.
    ///
    /// # Errors
    /// None in practice.
    pub fn read(&self) -> io::Result<Option<i32>> {
        Ok(self.fd.read_signal()?.map(|info| info.ssi_signo as i32))
    }

    /// Gives the signals their default action back: the next one ends the process at once, even
    /// if the loop is stuck.
    pub fn unblock(&self) {
        // Fails for an invalid argument only.
        let result = self.blocked.thread_unblock();
        debug_assert!(result.is_ok());
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.unblock();
    }
}
