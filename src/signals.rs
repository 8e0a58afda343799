//! Signals as something the loop waits for, instead of something that interrupts it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::sys;

/// SIGINT and SIGTERM, received through a descriptor (`signalfd(2)`).
///
/// A handler runs between any two instructions and may touch next to nothing; a descriptor is
/// read by the loop when the loop is ready for it. For that the signals are blocked: in the thread
/// that calls [`Signals::new`], and in those it starts later. Call it before starting any.
///
/// Dropping it unblocks those again that were not blocked before.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    /// Those that are blocked for its sake.
    blocked: SigSet,
}

impl Signals {
    /// Blocks SIGINT and SIGTERM and opens the descriptor that reports them.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Signals> {
        Signals::of(&[Signal::SIGINT, Signal::SIGTERM])
    }

    /// The same for other signals.
    pub(crate) fn of(signals: &[Signal]) -> io::Result<Signals> {
        let set = SigSet::from_iter(signals.iter().copied());
        let fd = open(&set)?;
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let blocked = set.iter().filter(|&signal| !before.contains(signal)).collect();
        Ok(Signals { fd, blocked })
    }

    /// In a child, which is not to read from its parent's descriptor, and receives other signals:
    /// opens its own, for these, and unblocks the rest of its parent's.
    pub(crate) fn in_child(self, signals: &[Signal]) -> io::Result<Signals> {
        let set = SigSet::from_iter(signals.iter().copied());
        let fd = open(&set)?;
        // The parent may have no use for them, and have left them unblocked.
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let ours = |signal| self.blocked.contains(signal) || !before.contains(signal);
        let blocked = set.iter().filter(|&signal| ours(signal)).collect();
        let rest: SigSet = self.blocked.iter().filter(|&signal| !set.contains(signal)).collect();
        rest.thread_unblock()?;
        // One that came while it was blocked waits in this process, and comes through here.
        let mut parents = self;
        parents.blocked = SigSet::empty();
        Ok(Signals { fd, blocked })
    }

    /// The next signal that has come, as `signal(7)` numbers it, if any.
    ///
    /// # Errors
    /// None in practice.
    pub fn read(&self) -> io::Result<Option<i32>> {
        Ok(self.fd.read_signal()?.map(|info| info.ssi_signo as i32))
    }

    /// Gives SIGINT and SIGTERM their default action back: the next one ends the process at once,
    /// even if the loop is stuck.
    pub fn unblock(&self) {
        let ends = [Signal::SIGINT, Signal::SIGTERM];
        let set: SigSet = self.blocked.iter().filter(|signal| ends.contains(signal)).collect();
        set.iter().for_each(sys::default_action);
        // Fails for an invalid argument only.
        let result = set.thread_unblock();
        debug_assert!(result.is_ok());
    }
}

/// A descriptor that reports these signals, which must be blocked.
fn open(set: &SigSet) -> io::Result<SignalFd> {
    Ok(SignalFd::with_flags(set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let result = self.blocked.thread_unblock();
        debug_assert!(result.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parent that is stopped by a handle alone receives SIGCHLD only, and its workers SIGTERM
    /// all the same.
    #[test]
    fn a_child_receives_what_its_parent_did_not() {
        // The mask is of this thread, which does not fork: no other test sees it.
        let parents = Signals::of(&[Signal::SIGCHLD]).unwrap();
        let childs = parents.in_child(&[Signal::SIGTERM]).unwrap();
        let mask = SigSet::thread_get_mask().unwrap();
        assert!(mask.contains(Signal::SIGTERM), "it would end the child");
        assert!(!mask.contains(Signal::SIGCHLD));
        drop(childs);
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
    }
}
