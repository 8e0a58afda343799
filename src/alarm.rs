//! What wakes a sleeping loop for its first timer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::clock::Clock;

/// A `timerfd(2)` that is readable from a certain time on.
///
/// A time-out would be simpler, but the kernel sets up a timer of its own for each wait that has
/// one, and takes it down again: 0.1 us a wait, and 0.6 us more for one that sleeps. First timers
/// are mostly idle time-outs, and those of many waits the same.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: TimerFd,
    at_ns: u64,
}

impl Alarm {
    /// What an alarm is set to that is not to go off.
    pub(crate) const NEVER: u64 = u64::MAX;

    pub(crate) fn new() -> io::Result<Alarm> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Alarm { timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?, at_ns: Alarm::NEVER })
    }

    /// Has it go off no later than the clock reads `first_ns`, if that is `now_ns` or later. A
    /// system call is made only if it would be later, or has gone off: to set it silences it.
    #[inline]
    pub(crate) fn set(&mut self, clock: &Clock, first_ns: u64, now_ns: u64) -> io::Result<()> {
        if first_ns >= self.at_ns && now_ns < self.at_ns {
            return Ok(());
        }
        self.set_time(clock, first_ns)
    }

    #[cold]
    fn set_time(&mut self, clock: &Clock, at_ns: u64) -> io::Result<()> {
        match at_ns {
            Alarm::NEVER => self.timer.unset()?,
            _ => {
                let at = Duration::from_nanos(clock.monotonic(at_ns)).into();
                self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            }
        }
        self.at_ns = at_ns;
        Ok(())
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
