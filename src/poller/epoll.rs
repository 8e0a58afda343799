//! The epoll backend: `epoll_create1(2)`, `epoll_ctl(2)`, `epoll_wait(2)`.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags};

use super::{Event, Interest, Poller, Readiness, Token, timeout_ms};
use crate::sys;

/// How many events one wait returns at most.
///
/// Large enough to share the cost of the call among many requests; small enough that the sockets
/// the kernel has just walked over are still in the cache when they are received from: with
/// 1,024 they are not, and a request costs more, not less. Sockets left out are not starved:
/// epoll reports in rotation.
const BATCH: usize = 128;

/// Waits with epoll: the kernel keeps the list of watched descriptors and the list of ready
/// ones, and a wait costs what is ready, not what is watched.
///
/// A descriptor that is closed is no longer watched, unless it was
/// [duplicated](super#a-descriptor-that-is-closed).
///
/// The epoll descriptor is close-on-exec. It must not be shared with a forked child: both would see
/// each other's changes.
pub struct Epoll {
    epoll: epoll::Epoll,
    buffer: Box<[libc::epoll_event]>,
}

impl Epoll {
    /// A poller that returns at most `batch` events from one wait.
    ///
    /// # Errors
    /// As for [`Poller::new`].
    ///
    /// # Panics
    /// If `batch` is 0: nothing would ever be reported.
    pub fn with_batch(batch: usize) -> io::Result<Epoll> {
        assert!(batch > 0, "a batch of no events");
        let epoll = epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Epoll {
            epoll,
            buffer: vec![libc::epoll_event { events: 0, u64: 0 }; batch].into_boxed_slice(),
        })
    }
}

impl fmt::Debug for Epoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoll").field("batch", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl Poller for Epoll {
    const FORGETS_CLOSED: bool = true;

    fn new() -> io::Result<Epoll> {
        Epoll::with_batch(BATCH)
    }

    fn add(&mut self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(flags(interest), token.0))?)
    }

    fn modify(&mut self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut EpollEvent::new(flags(interest), token.0))?)
    }

    fn delete(&mut self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    #[inline(always)] // see sys/call.rs
    fn wait(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        let ready =
            match sys::epoll_wait(self.epoll.0.as_fd(), &mut self.buffer, timeout_ms(timeout)) {
                Ok(ready) => ready,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
        events.extend(self.buffer[..ready].iter().map(|event| Event {
            token: Token(event.u64),
            readiness: Readiness::from_bits(event.events),
        }));
        Ok(())
    }
}

fn flags(interest: Interest) -> EpollFlags {
    let mut flags = EpollFlags::empty();
    if interest.contains(Interest::READ) {
        flags |= EpollFlags::EPOLLIN;
        // Not for an exclusive listener: the kernel refuses it (EINVAL), and it has no peer.
        // Only together with READ: it stays set once the peer is done, and a level-triggered
        // source that is not reading would be woken for it without end.
        if !interest.contains(Interest::EXCLUSIVE) {
            flags |= EpollFlags::EPOLLRDHUP;
        }
    }
    flags.set(EpollFlags::EPOLLOUT, interest.contains(Interest::WRITE));
    flags.set(EpollFlags::EPOLLET, interest.contains(Interest::EDGE));
    flags.set(EpollFlags::EPOLLONESHOT, interest.contains(Interest::ONESHOT));
    flags.set(EpollFlags::EPOLLEXCLUSIVE, interest.contains(Interest::EXCLUSIVE));
    flags
}
