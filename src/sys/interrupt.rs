//! Telling a task something while it blocks in `recv` on a socket.
//!
//! It cannot look while it blocks, so it is interrupted. But it may be about to block, and then the
//! interruption comes too early: so the socket's time-out is cut first, which holds for the next
//! `recv`. What has arrived is not lost by either, and the peer notices nothing.
//!
//! ```text
//!   task:   told? no ─► recv ─► WouldBlock ─► told? yes      other:   tell ─► cut time-out ─► signal
//! ```
//!
//! In whichever order these come, the task looks after it was told, and before it blocks for long.

use std::os::fd::BorrowedFd;
use std::process;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use nix::unistd;

/// By default it does nothing, and hardly anybody has another use for it (`signal(7)`).
const SIGNAL: Signal = Signal::SIGURG;

/// A thread that may be interrupted.
#[derive(Debug)]
pub(crate) struct Interruptible {
    /// Its number, or 0 before it runs.
    tid: AtomicI32,
}

impl Interruptible {
    pub(crate) const fn new() -> Interruptible {
        Interruptible { tid: AtomicI32::new(0) }
    }

    /// It is the calling thread, which must not look whether it was told something before this.
    pub(crate) fn is_this_thread(&self) {
        // Fails for an invalid argument only.
        let result = SigSet::from(SIGNAL).thread_unblock();
        debug_assert!(result.is_ok());
        self.tid.store(unistd::gettid().as_raw(), SeqCst);
    }

    /// Has the thread return from a `recv` on this socket, if it blocks there or is about to.
    ///
    /// The thread must not have ended: somebody else may have its number.
    pub(crate) fn interrupt_recv(&self, fd: BorrowedFd<'_>) {
        cut_recv_timeout(fd);
        let tid = self.tid.load(SeqCst);
        if tid != 0 {
            // SAFETY: tgkill(2) takes three integers.
            let result =
                unsafe { libc::syscall(libc::SYS_tgkill, process::id(), tid, SIGNAL as i32) };
            debug_assert_eq!(result, 0);
        }
    }
}

/// Has the signal interrupt what a thread blocks in, and do nothing else; unless this program has a
/// use for it. Call this before [`interrupt_recv`](Interruptible::interrupt_recv).
pub(crate) fn prepare_to_interrupt() {
    extern "C" fn do_nothing(_: libc::c_int) {}
    // Other calls than a `recv` with a time-out go on by themselves (`signal(7)`).
    let (handler, flags) = (SigHandler::Handler(do_nothing), SaFlags::SA_RESTART);
    // SAFETY: a handler that does nothing may run at any time.
    let before = unsafe { sigaction(SIGNAL, &SigAction::new(handler, flags, SigSet::empty())) };
    if let Ok(before) = before
        && !matches!(before.handler(), SigHandler::SigDfl | SigHandler::SigIgn)
    {
        // SAFETY: it was in force before.
        let result = unsafe { sigaction(SIGNAL, &before) };
        debug_assert!(result.is_ok());
    }
}

/// Has the next `recv` on a blocking socket wait no longer than a millisecond, also one that starts
/// again after a signal. A signal handler may do so (`signal-safety(7)`).
pub(super) fn cut_recv_timeout(fd: BorrowedFd<'_>) {
    let errno = Errno::last_raw();
    // It fails for nothing that is a socket.
    let _ = setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 1_000));
    Errno::set_raw(errno);
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::sys::{self, Recv};

    /// Whether the thread blocks already, or does so a little later.
    #[test]
    fn a_thread_returns_from_recv_and_loses_nothing() {
        for _ in 0..100 {
            let (ours, mut peers) = UnixStream::pair().unwrap();
            let socket = Arc::new((ours, Interruptible::new()));
            let theirs = Arc::clone(&socket);
            let (ready, is_ready) = std::sync::mpsc::channel();
            let thread = thread::spawn(move || {
                let (fd, interruptible) = (theirs.0.as_fd(), &theirs.1);
                interruptible.is_this_thread();
                ready.send(()).unwrap();
                let found = sys::recv(fd, &mut [0; 10]).unwrap();
                sys::set_io_timeout(fd, None).unwrap();
                (found, sys::recv(fd, &mut [0; 10]).unwrap())
            });
            is_ready.recv().unwrap();
            prepare_to_interrupt();
            socket.1.interrupt_recv(socket.0.as_fd());
            // The peer can still send.
            thread::yield_now();
            let told = thread.is_finished();
            peers.write_all(b"abc").unwrap();
            drop(peers);
            let (first, second) = thread.join().unwrap();
            assert!(!told, "it waits for the peer");
            match first {
                Recv::WouldBlock => assert_eq!(second, Recv::Data(3)),
                first => assert_eq!((first, second), (Recv::Data(3), Recv::Eof)),
            }
        }
    }
}
