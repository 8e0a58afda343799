//! What wakes a sleeping loop for its first timer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::clock::Clock;
use crate::sys::Timer;

/// A timer that is set for the loop's first one, or for an earlier time.
///
/// A time-out would be simpler, but the kernel sets up a timer of its own for each wait that has
/// one, and takes it down again: 0.1 us a wait, and 0.6 us more for one that sleeps. First timers
/// are mostly idle time-outs, and those of many waits the same.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: Timer,
    at_ns: u64,
}

impl Alarm {
    /// What an alarm is set to that is not to go off.
    pub(crate) const NEVER: u64 = u64::MAX;

    pub(crate) fn new() -> io::Result<Alarm> {
        Ok(Alarm { timer: Timer::new()?, at_ns: Alarm::NEVER })
    }

    /// Has it go off when the clock reads `first_ns`, or before. A system call is made only if it
    /// would be later, or by `now_ns` has gone off: to set it is what silences it.
    #[inline]
    pub(crate) fn set(&mut self, clock: &Clock, first_ns: u64, now_ns: u64) -> io::Result<()> {
        if first_ns >= self.at_ns && now_ns < self.at_ns {
            return Ok(());
        }
        self.set_time(clock, first_ns)
    }

    #[cold]
    fn set_time(&mut self, clock: &Clock, at_ns: u64) -> io::Result<()> {
        let at = (at_ns != Alarm::NEVER).then(|| clock.monotonic(at_ns));
        self.timer.set(at)?;
        self.at_ns = at_ns;
        Ok(())
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
