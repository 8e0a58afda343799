//! Waking a loop that sleeps in the kernel, from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Makes a sleeping [`Reactor`](crate::Reactor) take a turn and call
/// [`Handler::woken`](crate::Handler::woken). Cheap to clone, and good for any thread.
///
/// Behind it is an `eventfd(2)`: a counter in the kernel that can be waited for. Wakes that come
/// before the loop gets to run are one.
#[derive(Debug, Clone)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Waker(Arc::new(EventFd::from_flags(flags)?)))
    }

    /// Wakes the loop. Never blocks; also when the loop is gone, it does no harm.
    pub fn wake(&self) {
        // EAGAIN: the counter stands at its maximum, so the loop has its wake already.
        let result = self.0.write(1);
        debug_assert!(matches!(result, Ok(_) | Err(Errno::EAGAIN | Errno::EINTR)));
    }

    /// Takes the wakes there were, so that the descriptor is no longer ready.
    pub(crate) fn drain(&self) {
        let result = self.0.read();
        debug_assert!(matches!(result, Ok(_) | Err(Errno::EAGAIN | Errno::EINTR)));
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
