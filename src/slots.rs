//! The reactor's slots: what a token stands for.

use slab::Slab;

use crate::poller::Token;
use crate::wheel;

/// Slot numbers that no source can have: tokens of the reactor's own.
pub(crate) const WAKER_SLOT: u32 = u32::MAX;
pub(crate) const ALARM_SLOT: u32 = u32::MAX - 1;
pub(crate) const TIMER_SLOT: u32 = u32::MAX - 2;

impl Token {
    pub(crate) fn pack(slot: u32, generation: u32) -> Token {
        Token(u64::from(generation) << 32 | u64::from(slot))
    }

    pub(crate) fn slot(self) -> u32 {
        self.0 as u32
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A source and what the loop knows of it.
#[derive(Debug)]
pub(crate) struct Slot<S> {
    /// Tells this source from those that had the slot before.
    pub(crate) generation: u32,
    pub(crate) waiting: Waiting,
    pub(crate) source: S,
}

/// What a source waits for besides the kernel, in four bytes, since a million slots are to fit:
/// the key of its deadline in the wheel (0, which is never a timer, for none), and two flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting(u32);

impl Waiting {
    pub(crate) const NOTHING: Waiting = Waiting(0);
    /// It is an outbound connection whose handshake is under way.
    pub(crate) const CONNECTING: Waiting = Waiting(1 << 31);
    /// It is among those to be called again.
    pub(crate) const AGAIN: Waiting = Waiting(1 << 30);
    const FLAGS: Waiting = Waiting(Self::CONNECTING.0 | Self::AGAIN.0);

    #[inline]
    pub(crate) fn has(self, flag: Waiting) -> bool {
        self.0 & flag.0 != 0
    }

    /// Sets a flag, and returns whether it was set already.
    pub(crate) fn set(&mut self, flag: Waiting) -> bool {
        let was = self.has(flag);
        self.0 |= flag.0;
        was
    }

    /// Clears a flag, and returns whether it was set.
    pub(crate) fn clear(&mut self, flag: Waiting) -> bool {
        let was = self.has(flag);
        self.0 &= !flag.0;
        was
    }

    pub(crate) fn set_deadline(&mut self, key: wheel::Key) {
        assert!(key & Self::FLAGS.0 == 0, "a billion timers");
        self.0 = self.0 & Self::FLAGS.0 | key;
    }

    pub(crate) fn take_deadline(&mut self) -> Option<wheel::Key> {
        let key = self.0 & !Self::FLAGS.0;
        self.0 &= Self::FLAGS.0;
        (key != 0).then_some(key)
    }
}

/// The slot of a token, if its source is the one that the token was made for.
pub(crate) fn live<S>(slots: &mut Slab<Slot<S>>, token: Token) -> Option<&mut Slot<S>> {
    slots.get_mut(token.slot() as usize).filter(|slot| slot.generation == token.generation())
}
