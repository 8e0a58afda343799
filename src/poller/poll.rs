//! The poll backend: `poll(2)`.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use super::watched::{Watched, level_only};
use super::{Event, Interest, Poller, Readiness, Token, timeout_ms};
use crate::sys;

/// Waits with `poll`: each call hands the kernel the whole array, and the kernel looks at every
/// descriptor in it. There is no limit to the array but time: a wait costs what is watched,
/// ready or not.
///
/// Level-triggered only. A descriptor that was closed while watched is reported in each wait
/// ([`Readiness::NVAL`]).
pub struct Poll {
    /// What the kernel is shown.
    fds: Vec<libc::pollfd>,
    /// The token of each of them, and where each is.
    watched: Watched,
}

impl fmt::Debug for Poll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poll").field("watched", &self.fds.len()).finish_non_exhaustive()
    }
}

impl Poller for Poll {
    const FORGETS_CLOSED: bool = false;

    fn new() -> io::Result<Poll> {
        Ok(Poll { fds: Vec::new(), watched: Watched::default() })
    }

    fn add(&mut self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        level_only(interest)?;
        let fd = fd.as_fd().as_raw_fd();
        self.watched.insert(fd, token)?;
        self.fds.push(libc::pollfd { fd, events: events(interest), revents: 0 });
        Ok(())
    }

    fn modify(&mut self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        level_only(interest)?;
        let at = self.watched.replace(fd.as_fd().as_raw_fd(), token)?;
        self.fds[at].events = events(interest);
        Ok(())
    }

    fn delete(&mut self, fd: impl AsFd) -> io::Result<()> {
        let at = self.watched.remove(fd.as_fd().as_raw_fd())?;
        self.fds.swap_remove(at);
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        let mut left = match sys::poll(&mut self.fds, timeout_ms(timeout)) {
            Ok(ready) => ready,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        };
        for (at, fd) in self.fds.iter().enumerate() {
            if left == 0 {
                break;
            }
            if fd.revents != 0 {
                left -= 1;
                events.push(Event {
                    token: self.watched.token(at),
                    readiness: Readiness::from_bits(fd.revents as u16 as u32),
                });
            }
        }
        Ok(())
    }
}

fn events(interest: Interest) -> i16 {
    let mut events = 0;
    if interest.contains(Interest::READ) {
        events |= libc::POLLIN | libc::POLLRDHUP;
    }
    if interest.contains(Interest::WRITE) {
        events |= libc::POLLOUT;
    }
    events
}
