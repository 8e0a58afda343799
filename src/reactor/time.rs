//! Deadlines of sources, and timers that belong to none.

use std::os::fd::AsFd;
use std::time::Instant;

use super::{Handler, NS_PER_MS, Reactor, TimerId};
use crate::poller::{Poller, Token};
use crate::slots::{TIMER_SLOT, Waiting, live};
use crate::wheel;

impl<S: AsFd, P: Poller> Reactor<S, P> {
    /// The time at which this turn began (`CLOCK_MONOTONIC`): read once a turn, so a long turn
    /// lags behind.
    pub fn now(&self) -> Instant {
        self.clock.instant(self.now_ns)
    }

    /// Whole milliseconds from the making of the reactor to [`now`](Reactor::now), wrapping
    /// after 49 days: a time stamp in four bytes, to subtract from another.
    pub fn now_ms(&self) -> u32 {
        self.now_ms as u32
    }

    /// Calls [`Handler::deadline`] for this source at `at`, within a millisecond and never early.
    /// A source has one deadline: this replaces it. Nothing happens if the source is gone.
    pub fn set_deadline(&mut self, token: Token, at: Instant) {
        self.clear_deadline(token);
        let tick = self.ticks_from(at);
        if let Some(slot) = live(&mut self.slots, token) {
            slot.waiting.set_deadline(self.wheel.insert(tick, token));
        }
    }

    /// Unsets the deadline of a source, if it has one.
    pub fn clear_deadline(&mut self, token: Token) {
        if let Some(slot) = live(&mut self.slots, token)
            && let Some(key) = slot.waiting.take_deadline()
        {
            self.wheel.remove(key);
        }
    }

    /// Calls [`Handler::timer`] at `at`, within a millisecond and never early.
    pub fn set_timer(&mut self, at: Instant) -> TimerId {
        let serial = self.timer_serial;
        self.timer_serial = serial.wrapping_add(1);
        let key = self.wheel.insert(self.ticks_from(at), Token::pack(TIMER_SLOT, serial));
        TimerId { key, serial }
    }

    /// Cancels a timer. Returns whether it had yet to expire.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        let token = Token::pack(TIMER_SLOT, timer.serial);
        let armed = self.wheel.payload(timer.key) == Some(token);
        if armed {
            self.wheel.remove(timer.key);
        }
        armed
    }

    /// A timer has fired, and is no longer in the wheel.
    pub(super) fn expire<H: Handler<S, P>>(
        &mut self,
        handler: &mut H,
        key: wheel::Key,
        token: Token,
    ) {
        if token.slot() == TIMER_SLOT {
            handler.timer(self, TimerId { key, serial: token.generation() });
            return;
        }
        let slot = live(&mut self.slots, token).expect("closing a source unsets its deadline");
        slot.waiting.take_deadline();
        match slot.waiting.has(Waiting::CONNECTING) {
            true => self.connect_is_due(handler, token),
            false => handler.deadline(self, token),
        }
    }

    /// The first tick at which `at` has passed.
    fn ticks_from(&self, at: Instant) -> u64 {
        self.clock.at(at).div_ceil(NS_PER_MS)
    }
}
