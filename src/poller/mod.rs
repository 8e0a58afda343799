//! Waiting: one small contract, [`Poller`], and the mechanisms behind it.
//!
//! A poller watches descriptors and says which are ready. It knows nothing of sockets, timers or
//! protocols. Everything above it works with any backend, so that swapping the mechanism changes
//! nothing else.
//!
//! ```
//! use std::io::Write;
//! use std::time::Duration;
//! use c10k::poller::{Epoll, Interest, Poller, Token};
//!
//! let (reader, mut writer) = std::io::pipe()?;
//! let mut poller = Epoll::new()?;
//! let mut events = Vec::new();
//!
//! // The token is yours: the poller hands it back with each event.
//! poller.add(&reader, Token(7), Interest::READ)?;
//! poller.wait(&mut events, Some(Duration::ZERO))?;
//! assert!(events.is_empty(), "nothing was written yet");
//!
//! writer.write_all(b"x")?;
//! poller.wait(&mut events, None)?;
//! assert_eq!(events[0].token, Token(7));
//! assert!(events[0].readiness.is_readable());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # A descriptor that is closed
//!
//! Stop watching a descriptor ([`Poller::delete`]) before it is closed. What happens otherwise
//! differs:
//!
//! | closed while watched | epoll | poll, select |
//! |---|---|---|
//! | it was the only descriptor of the file | it is no longer watched ([`Poller::FORGETS_CLOSED`]) | each wait reports [`Readiness::NVAL`], an error, until it is deleted |
//! | a duplicate is open (`try_clone`, `dup(2)`, a child) | the file is still watched: events go on under the old token, and `delete` says `EBADF` (`epoll(7)`, questions and answers, 6) | as above: they watch the number |
//! | its number is in use again | the newcomer is not watched | the newcomer is watched, under the old token |
//!
//! For a duplicate that nobody reads from, epoll with level triggering returns at once, for ever:
//! close the duplicate, or delete before closing.

mod epoll;
mod poll;
mod select;
mod spin;
mod watched;

use std::fmt;
use std::io;
use std::ops::{BitOr, BitOrAssign};
use std::os::fd::AsFd;
use std::time::Duration;

pub use epoll::Epoll;
pub use poll::Poll;
pub use select::Select;
pub(crate) use spin::Spin;

/// The contract between the event loop and the kernel's ways of waiting.
pub trait Poller: Sized {
    /// Whether closing a descriptor also stops its being watched, so that [`delete`] need not be
    /// called first. True of epoll, if the descriptor was never duplicated: the kernel watches
    /// the open file description, not the number ([more](self#a-descriptor-that-is-closed)).
    ///
    /// [`delete`]: Poller::delete
    const FORGETS_CLOSED: bool;

    /// A poller that watches nothing yet.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE` and `ENOMEM` where the backend needs a descriptor.
    fn new() -> io::Result<Self>;

    /// Starts to watch `fd`. If it is ready already, the next [`wait`](Poller::wait) says so.
    ///
    /// # Errors
    /// `EEXIST` if it is watched already; `EPERM` for what cannot be waited for (a regular
    /// file); `EINVAL` for an interest that this backend does not know; `ENOSPC` and `ENOMEM`.
    fn add(&mut self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()>;

    /// Replaces the token and the interest of a watched `fd`.
    ///
    /// # Errors
    /// `ENOENT` if it is not watched; `EINVAL` and `ENOMEM` as for [`add`](Poller::add).
    fn modify(&mut self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()>;

    /// Stops watching `fd`.
    ///
    /// # Errors
    /// `ENOENT` if it is not watched.
    fn delete(&mut self, fd: impl AsFd) -> io::Result<()>;

    /// Replaces the content of `events` by what is ready, waiting until there is something or
    /// `timeout` has passed; `None` waits for ever.
    ///
    /// A signal ends the wait early with no events, just as a time-out would: the caller is a
    /// loop, which waits again.
    ///
    /// # Errors
    /// None but for a bug in the caller (`EINVAL`), or where the kernel is out of memory (`ENOMEM`).
    fn wait(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()>;
}

/// What an event is called by. With a bare [`Poller`] its meaning is the caller's; the
/// [`Reactor`](crate::Reactor) packs the slot of a source and the slot's generation into it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// One descriptor is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The token it was added with.
    pub token: Token,
    /// What it is ready for.
    pub readiness: Readiness,
}

/// What to watch a descriptor for, and how to be told.
///
/// Errors and hang-ups are reported whatever the interest (`epoll_ctl(2)`).
///
/// ```
/// use c10k::poller::Interest;
///
/// let interest = Interest::READ | Interest::WRITE | Interest::EDGE;
/// assert!(interest.contains(Interest::READ));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Interest(u8);

impl Interest {
    /// Nothing but errors and hang-ups.
    pub const NONE: Interest = Interest(0);
    /// Data, EOF or a connection to accept; also that the peer has shut down its sending side.
    pub const READ: Interest = Interest(1);
    /// Room in the send buffer, or the end of a non-blocking connect.
    pub const WRITE: Interest = Interest(2);
    /// Tell once for each change rather than for as long as it is so (`EPOLLET`, `epoll(7)`). The
    /// reader must go on until there is no more. epoll only.
    pub const EDGE: Interest = Interest(4);
    /// Tell once, then not again until modified (`EPOLLONESHOT`). epoll only.
    pub const ONESHOT: Interest = Interest(8);
    /// Of several pollers that watch one listener wake one, not all (`EPOLLEXCLUSIVE`). It can
    /// be added and deleted but not modified. epoll only.
    pub const EXCLUSIVE: Interest = Interest(16);

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn contains(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both, as `|` does, and also in a constant.
    #[must_use]
    pub const fn union(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

impl BitOr for Interest {
    type Output = Interest;
    fn bitor(self, other: Interest) -> Interest {
        self.union(other)
    }
}

impl BitOrAssign for Interest {
    fn bitor_assign(&mut self, other: Interest) {
        *self = self.union(other);
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Interest::READ, "READ"),
            (Interest::WRITE, "WRITE"),
            (Interest::EDGE, "EDGE"),
            (Interest::ONESHOT, "ONESHOT"),
            (Interest::EXCLUSIVE, "EXCLUSIVE"),
        ];
        let set = names.iter().filter(|(bit, _)| self.contains(*bit)).map(|(_, name)| *name);
        f.write_str("Interest(")?;
        f.write_str(&set.collect::<Vec<_>>().join(" | "))?;
        f.write_str(")")
    }
}

/// What the kernel said of a descriptor: the bits of `epoll_ctl(2)`, which on Linux are those of
/// `poll(2)` too.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness(u32);

impl Readiness {
    /// No bit: the source asked to be called again and the kernel has nothing new to say.
    pub const NONE: Readiness = Readiness(0);
    /// `EPOLLIN`
    pub const IN: Readiness = Readiness(libc::EPOLLIN as u32);
    /// `EPOLLOUT`
    pub const OUT: Readiness = Readiness(libc::EPOLLOUT as u32);
    /// `EPOLLRDHUP`
    pub const RDHUP: Readiness = Readiness(libc::EPOLLRDHUP as u32);
    /// `EPOLLHUP`
    pub const HUP: Readiness = Readiness(libc::EPOLLHUP as u32);
    /// `EPOLLERR`
    pub const ERR: Readiness = Readiness(libc::EPOLLERR as u32);
    /// `POLLNVAL`: the descriptor is not open. From poll and select; epoll forgets it.
    pub const NVAL: Readiness = Readiness(libc::POLLNVAL as u32);

    const ANY_ERR: Readiness = Readiness(Self::ERR.0 | Self::NVAL.0);

    /// From the kernel's bits.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Readiness {
        Readiness(bits)
    }

    const fn any_of(self, other: Readiness) -> bool {
        self.0 & other.0 != 0
    }

    /// A `recv` or `accept` will not block: there is data, an EOF, an error or a connection.
    #[must_use]
    pub const fn is_readable(self) -> bool {
        self.any_of(Readiness(Self::IN.0 | Self::RDHUP.0 | Self::HUP.0 | Self::ANY_ERR.0))
    }

    /// A `send` will not block: there is room, or it will fail.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.any_of(Readiness(Self::OUT.0 | Self::HUP.0 | Self::ANY_ERR.0))
    }

    /// The peer will send no more. Data may still be waiting, and the peer may still be sent to
    /// (a half-close): with edge triggering this is the only hint that an EOF follows the data.
    #[must_use]
    pub const fn is_read_closed(self) -> bool {
        self.any_of(Readiness(Self::RDHUP.0 | Self::HUP.0 | Self::ANY_ERR.0))
    }

    /// Both directions are shut down. A socket that never was connected says so too.
    #[must_use]
    pub const fn is_hangup(self) -> bool {
        self.any_of(Self::HUP)
    }

    /// An error is pending ([`take_error`](crate::sys::take_error)), for one a reset: nothing
    /// sent will arrive any more. Or the descriptor is [not open](Readiness::NVAL).
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.any_of(Self::ANY_ERR)
    }
}

impl BitOr for Readiness {
    type Output = Readiness;
    fn bitor(self, other: Readiness) -> Readiness {
        Readiness(self.0 | other.0)
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::IN, "IN"),
            (Self::OUT, "OUT"),
            (Self::RDHUP, "RDHUP"),
            (Self::HUP, "HUP"),
            (Self::ERR, "ERR"),
            (Self::NVAL, "NVAL"),
        ];
        let set = names.iter().filter(|(bit, _)| self.any_of(*bit)).map(|(_, name)| *name);
        f.write_str("Readiness(")?;
        f.write_str(&set.collect::<Vec<_>>().join(" | "))?;
        f.write_str(")")
    }
}

/// A time-out as the kernel counts it: milliseconds, -1 for ever.
///
/// Rounded *up*: a wait that ends a fraction early would find its timer not yet due, wait zero,
/// and spin until it is. Longer than 24 days is 24 days; the loop waits again.
pub(crate) fn timeout_ms(timeout: Option<Duration>) -> i32 {
    match timeout {
        None => -1,
        Some(timeout) => {
            let ms = u64::from(timeout.subsec_nanos().div_ceil(1_000_000));
            i32::try_from(timeout.as_secs().saturating_mul(1000).saturating_add(ms))
                .unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_round_up_and_saturate() {
        assert_eq!(timeout_ms(None), -1);
        assert_eq!(timeout_ms(Some(Duration::ZERO)), 0);
        assert_eq!(timeout_ms(Some(Duration::from_nanos(1))), 1);
        assert_eq!(timeout_ms(Some(Duration::from_micros(1_001))), 2);
        assert_eq!(timeout_ms(Some(Duration::from_millis(7))), 7);
        assert_eq!(timeout_ms(Some(Duration::MAX)), i32::MAX);
    }

    #[test]
    fn debug_names_the_bits() {
        let interest = Interest::READ | Interest::EDGE;
        assert_eq!(format!("{interest:?}"), "Interest(READ | EDGE)");
        assert_eq!(format!("{:?}", Readiness::IN | Readiness::RDHUP), "Readiness(IN | RDHUP)");
    }

    #[test]
    fn what_each_mask_means() {
        // The masks that Linux really reports for a TCP socket.
        let half_closed = Readiness::IN | Readiness::RDHUP;
        assert!(half_closed.is_readable() && half_closed.is_read_closed());
        assert!(!half_closed.is_writable() && !half_closed.is_hangup());

        let both_closed = half_closed | Readiness::HUP;
        assert!(both_closed.is_readable() && both_closed.is_writable());
        assert!(both_closed.is_hangup() && !both_closed.is_error());

        let reset = both_closed | Readiness::OUT | Readiness::ERR;
        assert!(reset.is_error() && reset.is_readable() && reset.is_writable());

        let closed = Readiness::NVAL;
        assert!(closed.is_error() && closed.is_readable() && closed.is_writable());

        assert!(!Readiness::NONE.is_readable() && !Readiness::NONE.is_writable());
    }
}
