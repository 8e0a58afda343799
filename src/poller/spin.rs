//! Not waiting at all: the model `spin`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use super::watched::{Watched, level_only};
use super::{Event, Interest, Poller, Readiness, Token};

/// Says of every descriptor that it is ready, without asking the kernel. Whoever believes it finds
/// out by a `recv` that fails with `EAGAIN`: a system call for each connection in each turn, and
/// a CPU that is always busy.
///
/// That is within what a [`Handler`](crate::Handler) must bear, since readiness is a hint; but a
/// connection under way would look established, so it is for servers only, and not public.
#[derive(Debug)]
pub(crate) struct Spin {
    readiness: Vec<Readiness>,
    /// The token of each of them, and where each is.
    watched: Watched,
}

impl Poller for Spin {
    const FORGETS_CLOSED: bool = false;

    fn new() -> io::Result<Spin> {
        Ok(Spin { readiness: Vec::new(), watched: Watched::default() })
    }

    fn add(&mut self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        level_only(interest)?;
        self.watched.insert(fd.as_fd().as_raw_fd(), token)?;
        self.readiness.push(all_of(interest));
        Ok(())
    }

    fn modify(&mut self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        level_only(interest)?;
        let at = self.watched.replace(fd.as_fd().as_raw_fd(), token)?;
        self.readiness[at] = all_of(interest);
        Ok(())
    }

    fn delete(&mut self, fd: impl AsFd) -> io::Result<()> {
        let at = self.watched.remove(fd.as_fd().as_raw_fd())?;
        self.readiness.swap_remove(at);
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<Event>, _: Option<Duration>) -> io::Result<()> {
        events.clear();
        for (at, &readiness) in self.readiness.iter().enumerate() {
            if readiness != Readiness::NONE {
                events.push(Event { token: self.watched.token(at), readiness });
            }
        }
        Ok(())
    }
}

/// Ready for whatever it is watched for.
fn all_of(interest: Interest) -> Readiness {
    let mut bits = 0;
    if interest.contains(Interest::READ) {
        bits |= libc::EPOLLIN as u32;
    }
    if interest.contains(Interest::WRITE) {
        bits |= libc::EPOLLOUT as u32;
    }
    Readiness::from_bits(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_ready_for_what_it_is_watched_for() {
        let (a, b) = (io::pipe().unwrap(), io::pipe().unwrap());
        let mut spin = Spin::new().unwrap();
        spin.add(&a.0, Token(1), Interest::READ).unwrap();
        spin.add(&b.1, Token(2), Interest::READ | Interest::WRITE).unwrap();
        let mut events = Vec::new();
        let mut ready = |spin: &mut Spin| {
            spin.wait(&mut events, None).unwrap();
            let of = |event: &Event| {
                (event.token.0, event.readiness.is_readable(), event.readiness.is_writable())
            };
            events.iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(ready(&mut spin), [(1, true, false), (2, true, true)]);
        spin.modify(&b.1, Token(3), Interest::WRITE).unwrap();
        assert_eq!(ready(&mut spin), [(1, true, false), (3, false, true)]);
        spin.modify(&a.0, Token(1), Interest::NONE).unwrap();
        assert_eq!(ready(&mut spin), [(3, false, true)]);
        spin.delete(&a.0).unwrap();
        spin.delete(&b.1).unwrap();
        assert_eq!(ready(&mut spin), []);
        assert_eq!(spin.delete(&a.0).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }
}
