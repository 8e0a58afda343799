//! Ending a connection that a thread or a process blocks on, in good order.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

use super::{shutdown_both, shutdown_read, unread};

/// What somebody else may do to a connection that one task blocks on, when the server stops.
///
/// The task cannot be told, since it is blocked; but it can be given an EOF, by shutting down the
/// receiving side. That may not be done to a peer in the middle of a request, or before its first:
/// the rest of it could not be received. So the task says which it is, whenever that changes, and
/// looks whether the server is stopping each time before it blocks. Whoever stops the server says
/// that first, and then calls [`end`](Rest::end).
///
/// ```text
///   task:   set(true), stopping? no: recv        stop:   stopping = true, end()
/// ```
///
/// In this order, which is the same to both (`SeqCst`), one of them sees the other.
#[derive(Debug)]
pub(crate) struct Rest(AtomicU8);

/// In the middle of a request, or before the first: it has time to finish.
const BUSY: u8 = 0;
/// Between two requests.
const AT_REST: u8 = 1;
/// The receiving side was shut down: an EOF is ours and not the peer's.
const ENDED: u8 = 2;

impl Rest {
    /// Of a connection before its first request.
    pub(crate) const fn new() -> Rest {
        Rest(AtomicU8::new(BUSY))
    }

    /// The task is between two requests from here on, or no longer.
    pub(crate) fn set(&self, at_rest: bool) {
        let (from, to) = if at_rest { (BUSY, AT_REST) } else { (AT_REST, BUSY) };
        // If it has been ended, that stays so.
        let _ = self.0.compare_exchange(from, to, SeqCst, SeqCst);
    }

    /// Whether it was ended, so that an EOF is not the peer's.
    pub(crate) fn is_ended(&self) -> bool {
        self.0.load(SeqCst) == ENDED
    }

    /// Has `recv` return an EOF to the task if it is between two requests and nothing has arrived.
    /// If something has, the task is about to receive it, and then looks by itself.
    ///
    /// All that this does may be done by a signal handler (`signal-safety(7)`).
    pub(crate) fn end(&self, fd: BorrowedFd<'_>) {
        let nothing_arrived = || unread(fd).unwrap_or(0) == 0;
        if self.0.load(SeqCst) == AT_REST
            && nothing_arrived()
            && self.0.compare_exchange(AT_REST, ENDED, SeqCst, SeqCst).is_ok()
        {
            // It fails for a connection that has just ended, which is what is wanted.
            let _ = shutdown_read(fd);
        }
    }

    /// Ends it at once, whatever it is doing.
    pub(crate) fn cut_off(&self, fd: BorrowedFd<'_>) {
        self.0.store(ENDED, SeqCst);
        let _ = shutdown_both(fd);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_one_at_rest_with_nothing_to_receive_is_ended() {
        let (mut ours, mut peers) = UnixStream::pair().unwrap();
        let rest = Rest::new();
        rest.end(ours.as_fd());
        assert!(!rest.is_ended(), "before its first request");
        rest.set(true);
        peers.write_all(b"a").unwrap();
        rest.end(ours.as_fd());
        assert!(!rest.is_ended(), "something has arrived");
        let mut byte = [0];
        ours.read_exact(&mut byte).unwrap();
        rest.set(false);
        rest.end(ours.as_fd());
        assert!(!rest.is_ended(), "in the middle of a request");
        // The peer can send the rest of it.
        peers.write_all(b"b").unwrap();
        ours.read_exact(&mut byte).unwrap();
        rest.set(true);
        rest.end(ours.as_fd());
        assert!(rest.is_ended());
        assert_eq!(ours.read(&mut byte).unwrap(), 0);
        rest.set(false);
        assert!(rest.is_ended(), "it stays so");
    }
}
