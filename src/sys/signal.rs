//! Signals: what they do to this process, and which of them wait.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{WaitPidFlag, waitpid};

use super::interrupt::cut_recv_timeout;

/// In a child that [`fork`](super::fork) has made: gives a signal (as in `libc::SIGPIPE`) its
/// default action again. A Rust program ignores SIGPIPE from its start, and its children inherit that
/// (`signal(7)`).
///
/// # Errors
/// `EINVAL` if there is no such signal.
pub fn restore_signal(signal: i32) -> io::Result<()> {
    default_action(Signal::try_from(signal)?);
    Ok(())
}

/// Ignores a signal in this process. SIGINT is for whoever watches over it: a terminal sends it to
/// all processes in the foreground (`signal(7)`).
pub(crate) fn ignore(signal: Signal) {
    dispose(signal, SigHandler::SigIgn);
}

/// Gives a signal its default action: whoever started this process may have had it ignore some.
pub(crate) fn default_action(signal: Signal) {
    dispose(signal, SigHandler::SigDfl);
}

/// Has the next of these signals end this process at once, whatever it is doing.
///
/// By its default action, as whoever sends it expects. The first process of a pid namespace is
/// spared that (`pid_namespaces(7)`): a handler ends it, with the status that a shell would give.
pub(crate) fn end_at_next(signal: Signal) {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: _exit(2) is async-signal-safe (signal-safety(7)).
        unsafe { libc::_exit(128 + signal) }
    }
    dispose(
        signal,
        match process::id() {
            1 => SigHandler::Handler(end),
            _ => SigHandler::SigDfl,
        },
    );
}

/// Whether a signal is ignored, as `nohup(1)` has it for SIGHUP.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    // SAFETY: a sigaction is made of integers and pointers that may be null: zeroes are a value.
    let mut now: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: sigaction(2) changes nothing if there is no new action, and writes the old one.
    let result = unsafe { libc::sigaction(signal as libc::c_int, ptr::null(), &mut now) };
    debug_assert_eq!(result, 0);
    now.sa_sigaction == libc::SIG_IGN
}

/// Takes those of a set of blocked signals that have come, so that they do nothing when they are
/// no longer blocked (`sigtimedwait(2)`).
pub(crate) fn take_pending(set: &SigSet) {
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        // SAFETY: the set and the time outlive the call, and nothing is to be written.
        let signal = unsafe { libc::sigtimedwait(set.as_ref(), ptr::null_mut(), &at_once) };
        if matches!(Errno::result(signal), Err(errno) if errno != Errno::EINTR) {
            return;
        }
    }
}

/// At the start of a program: no more than reaps its children. Has the kernel do so with those that
/// will end (`SIGCHLD` ignored, `wait(2)`), and waits for those that have.
///
/// For a program that starts none and waits for none: it has children all the same if a shell
/// started some before it became this program, and the first process of a pid namespace inherits
/// every orphan (`pid_namespaces(7)`).
pub fn reap_children() {
    ignore(Signal::SIGCHLD);
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status.pid().is_some())
    {
    }
}

fn dispose(signal: Signal, how: SigHandler) {
    let action = SigAction::new(how, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed that could run anything. Fails for SIGKILL and SIGSTOP.
    let result = unsafe { sigaction(signal, &action) };
    debug_assert!(result.is_ok());
}

/// The socket of a child that serves one connection, and whether it was told to finish.
static SOCKET: AtomicI32 = AtomicI32::new(-1);
static TOLD: AtomicBool = AtomicBool::new(false);

/// In a child that serves one connection: has SIGTERM tell it to finish, and interrupt a `recv`.
///
/// For one socket in a process, which must stay open from here on.
///
/// # Errors
/// Those of `sigaction(2)`; none in practice.
pub(crate) fn finish_on_sigterm(socket: BorrowedFd<'_>) -> io::Result<()> {
    extern "C" fn tell(_: libc::c_int) {
        TOLD.store(true, SeqCst);
        // SAFETY: there is a socket before there is this handler, and it stays open.
        cut_recv_timeout(unsafe { BorrowedFd::borrow_raw(SOCKET.load(SeqCst)) });
    }
    SOCKET.store(socket.as_raw_fd(), SeqCst);
    let action = SigAction::new(SigHandler::Handler(tell), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing that a signal handler may not do.
    unsafe { sigaction(Signal::SIGTERM, &action)? };
    Ok(())
}

/// Whether SIGTERM has come since [`finish_on_sigterm`].
pub(crate) fn is_told_to_finish() -> bool {
    TOLD.load(SeqCst)
}
