//! The select backend: `select(2)`.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use super::watched::{Watched, level_only};
use super::{Event, Interest, Poller, Readiness, Token, timeout_ms};
use crate::sys::{self, FD_SETSIZE, FdSet};

/// Waits with `select`: two sets of bits, copied in and out at each call, in which the kernel
/// looks at every bit up to the highest descriptor.
///
/// A descriptor of 1,024 or more does not fit the set and is refused by
/// [`add`](Poller::add). In C, `FD_SET` would write past the end of it.
///
/// Level-triggered only. A set has no room for what kind of event it is: a half-close, a reset
/// and data are all [`Readiness::IN`], and `recv` tells. Where a descriptor was closed while watched
/// ([`Readiness::NVAL`]), the kernel only says that there is one, and each wait asks poll as well.
pub struct Select {
    read: FdSet,
    write: FdSet,
    /// Of each watched, its number; the order is that of `watched`.
    fds: Vec<RawFd>,
    watched: Watched,
}

impl Select {
    fn set(&mut self, fd: RawFd, interest: Interest) {
        let sets = [(&mut self.read, Interest::READ), (&mut self.write, Interest::WRITE)];
        for (set, bit) in sets {
            if interest.contains(bit) {
                set.insert(fd);
            } else {
                set.remove(fd);
            }
        }
    }

    /// A descriptor is not open (`EBADF`). select does not say which, and says nothing of the
    /// others either; poll does.
    #[cold]
    fn ask_poll(&self, events: &mut Vec<Event>) -> io::Result<()> {
        let asked = |fd| {
            let read = if self.read.contains(fd) { libc::POLLIN } else { 0 };
            let write = if self.write.contains(fd) { libc::POLLOUT } else { 0 };
            libc::pollfd { fd, events: read | write, revents: 0 }
        };
        let mut fds: Vec<_> = self.fds.iter().map(|&fd| asked(fd)).collect();
        sys::poll(&mut fds, 0)?;
        for (at, fd) in fds.iter().enumerate().filter(|(_, fd)| fd.revents != 0) {
            let readiness = Readiness::from_bits(fd.revents as u16 as u32);
            events.push(Event { token: self.watched.token(at), readiness });
        }
        Ok(())
    }
}

impl fmt::Debug for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select").field("watched", &self.fds.len()).finish_non_exhaustive()
    }
}

impl Poller for Select {
    const FORGETS_CLOSED: bool = false;

    fn new() -> io::Result<Select> {
        Ok(Select {
            read: FdSet::new(),
            write: FdSet::new(),
            fds: Vec::new(),
            watched: Watched::default(),
        })
    }

    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput), with a text that says so, for a descriptor
    /// that does not fit; else as [`Poller::add`].
    fn add(&mut self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        level_only(interest)?;
        let fd = fd.as_fd().as_raw_fd();
        if fd as usize >= FD_SETSIZE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("select has room for descriptors below {FD_SETSIZE}, and this is {fd}"),
            ));
        }
        self.watched.insert(fd, token)?;
        self.fds.push(fd);
        self.set(fd, interest);
        Ok(())
    }

    fn modify(&mut self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        level_only(interest)?;
        let fd = fd.as_fd().as_raw_fd();
        self.watched.replace(fd, token)?;
        self.set(fd, interest);
        Ok(())
    }

    fn delete(&mut self, fd: impl AsFd) -> io::Result<()> {
        let fd = fd.as_fd().as_raw_fd();
        let at = self.watched.remove(fd)?;
        self.fds.swap_remove(at);
        self.set(fd, Interest::NONE);
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        // The kernel writes its answer over the question.
        let (mut read, mut write) = (self.read, self.write);
        let limit = self.fds.iter().max().map_or(0, |&fd| fd as usize + 1);
        let mut left = match sys::select(limit, &mut read, &mut write, timeout_ms(timeout)) {
            Ok(ready) => ready,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
                return self.ask_poll(events);
            }
            Err(error) => return Err(error),
        };
        for (at, &fd) in self.fds.iter().enumerate() {
            if left == 0 {
                break;
            }
            let mut readiness = Readiness::NONE;
            for (set, bit) in [(&read, Readiness::IN), (&write, Readiness::OUT)] {
                if set.contains(fd) {
                    left -= 1;
                    readiness = readiness | bit;
                }
            }
            if readiness != Readiness::NONE {
                events.push(Event { token: self.watched.token(at), readiness });
            }
        }
        Ok(())
    }
}
