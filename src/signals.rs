//! Signals as something the loop waits for, instead of something that interrupts it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::sys;

/// The signals that ask a program to end, received through a descriptor (`signalfd(2)`): SIGINT,
/// SIGTERM, and SIGHUP, but for one that is ignored, as `nohup(1)` has it.
///
/// A handler runs between any two instructions and may touch next to nothing; a descriptor is
/// read by the loop when the loop is ready for it. For that the signals are blocked: in the thread
/// that calls [`Signals::new`], and in those it starts later. Call it before starting any. A program
/// that another one executes from there starts with them blocked too, unless it is started by
/// [`std::process::Command`].
///
/// Dropping it unblocks those again that were not blocked before. One that has come, and was not
/// read, is taken first: the program is ending already.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    /// Those that it reports.
    set: SigSet,
    /// Those of them that are blocked for its sake.
    blocked: SigSet,
}

/// The signals that ask a program to end.
pub(crate) fn ending() -> impl Iterator<Item = Signal> {
    let hangup = (!sys::is_ignored(Signal::SIGHUP)).then_some(Signal::SIGHUP);
    [Signal::SIGINT, Signal::SIGTERM].into_iter().chain(hangup)
}

impl Signals {
    /// Blocks the signals and opens the descriptor that reports them.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Signals> {
        Signals::of(ending())
    }

    /// The same for other signals.
    pub(crate) fn of(signals: impl IntoIterator<Item = Signal>) -> io::Result<Signals> {
        let set = SigSet::from_iter(signals);
        let fd = open(&set)?;
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let blocked = set.iter().filter(|&signal| !before.contains(signal)).collect();
        Ok(Signals { fd, set, blocked })
    }

    /// In a child, which is not to read from its parent's descriptor, and receives other signals:
    /// opens its own, for these, and unblocks the rest of its parent's.
    pub(crate) fn in_child(self, signals: &[Signal]) -> io::Result<Signals> {
        let set = SigSet::from_iter(signals.iter().copied());
        let fd = open(&set)?;
        // The parent may have no use for them, and have left them unblocked.
        set.thread_block()?;
        let rest: SigSet = self.set.iter().filter(|&signal| !set.contains(signal)).collect();
        rest.thread_unblock()?;
        // One that came while it was blocked waits in this process, and comes through here.
        let mut parents = self;
        parents.blocked = SigSet::empty();
        Ok(Signals { fd, set, blocked: set })
    }

    /// The next signal that has come, as `signal(7)` numbers it, if any.
    ///
    /// # Errors
    /// None in practice.
    pub fn read(&self) -> io::Result<Option<i32>> {
        Ok(self.fd.read_signal()?.map(|info| info.ssi_signo as i32))
    }

    /// Has the next of the signals end the process at once, even if the loop is stuck: unblocks
    /// them, whoever has blocked them, and gives them their default action.
    pub fn unblock(&self) {
        let ends = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
        let set: SigSet = self.set.iter().filter(|signal| ends.contains(signal)).collect();
        set.iter().for_each(sys::end_at_next);
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
        sys::take_pending(&self.blocked);
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
        let parents = Signals::of([Signal::SIGCHLD]).unwrap();
        let childs = parents.in_child(&[Signal::SIGTERM]).unwrap();
        let mask = SigSet::thread_get_mask().unwrap();
        assert!(mask.contains(Signal::SIGTERM), "it would end the child");
        assert!(!mask.contains(Signal::SIGCHLD));
        drop(childs);
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
    }

    #[test]
    fn one_that_was_not_read_is_gone_with_it() {
        let signals = Signals::new().unwrap();
        // To this thread alone; blocked here, it waits.
        nix::sys::signal::raise(Signal::SIGTERM).unwrap();
        // Unblocked and pending it would end all tests.
        drop(signals);
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
    }

    #[test]
    fn the_second_one_ends_also_what_was_blocked_before() {
        let set = SigSet::from(Signal::SIGHUP);
        set.thread_block().unwrap();
        let signals = Signals::of([Signal::SIGHUP]).unwrap();
        signals.unblock();
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGHUP));
    }
}
