//! The clock, and a timer of it that a poller can wait for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::timerfd::{self, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};

/// What `CLOCK_MONOTONIC` reads, in nanoseconds (`clock_gettime(2)`): the clock of
/// [`Instant`](std::time::Instant), as one number.
#[inline]
#[must_use]
pub fn monotonic_ns() -> u64 {
    // It fails for no clock but one that is not there.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// A descriptor that is readable from a certain time on (`timerfd_create(2)`).
///
/// It need not be read: to set it again makes it unreadable until then.
#[derive(Debug)]
pub struct Timer(TimerFd);

impl Timer {
    /// A timer that is not set, close-on-exec.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> io::Result<Timer> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Timer(TimerFd::new(timerfd::ClockId::CLOCK_MONOTONIC, flags)?))
    }

    /// Is readable from when [`monotonic_ns`] reads `at_ns`, at once if that has passed; with
    /// `None`, never (`timerfd_settime(2)`).
    ///
    /// # Errors
    /// None but for a bug here.
    pub fn set(&self, at_ns: Option<u64>) -> io::Result<()> {
        match at_ns {
            None => self.0.unset()?,
            Some(at_ns) => {
                let at = Expiration::OneShot(Duration::from_nanos(at_ns).into());
                self.0.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            }
        }
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
