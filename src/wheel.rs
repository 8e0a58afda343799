//! The timing wheel: O(1) to arm, to cancel and to expire.
//!
//! Six wheels of 64 slots. A slot of the first is one tick; of each next one, a whole turn of
//! the one before: 64 ticks, 4,096, and so on up to 2^36. A timer waits in the slot of the
//! coarsest digit in which its tick differs from now, and moves to a finer wheel when time gets
//! there:
//!
//! ```text
//!   now = 0:00:59.050           level 0   |.|.|.|x|.|.|   1 tick a slot
//!   x due in 3 ticks            level 1   |.|y|.|.|.|.|   64 ticks a slot
//!   y due in 100 ticks          level 2   |.|.|.|.|z|.|   4,096 ticks a slot
//!   z due in 17,000 ticks       ...
//! ```
//!
//! Each slot is a doubly linked ring in one arena, its sentinel an entry like the others, so that
//! a timer leaves its ring without knowing which ring it is. See Varghese and Lauck, "Hashed and
//! hierarchical timing wheels", 1987.

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 6;
const SENTINELS: usize = SLOTS * LEVELS;
/// A whole turn of the coarsest wheel: 2.2 years of milliseconds.
const SPAN: u64 = 1 << (BITS * LEVELS as u32);
/// How far ahead a timer is put. One further away waits here, and then is put again. A slot short
/// of the span: the slot of now must never hold what is due a turn later.
const REACH: u64 = SPAN - SPAN / SLOTS as u64;

/// Room for this many entries from the start: enough for the allocator to map pages, which are
/// not resident until used, and which grow without being copied.
const ENTRIES_AT_START: usize = 8192;

/// A timer's place in the arena. It names the timer until it has fired or was cancelled; after
/// that, perhaps another one.
pub(crate) type Key = u32;

#[derive(Debug, Clone, Copy)]
struct Entry<T> {
    tick: u64,
    payload: T,
    prev: Key,
    next: Key,
}

/// Timers that each carry a `T`. Time is counted in ticks, whose length is the owner's affair.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    /// The sentinels of all slots, then the timers, armed or free.
    entries: Vec<Entry<T>>,
    /// The first of the free entries, linked through `next`; 0 (a sentinel) when there is none.
    free: Key,
    armed: usize,
    /// Per level, a bit for each slot that holds a timer.
    occupied: [u64; LEVELS],
    /// Every timer due before this tick has fired.
    now: u64,
    /// Time gets to no slot that holds a timer before this tick. A timer that is cancelled leaves
    /// it as it is.
    next: u64,
}

impl<T: Copy + Default> Wheel<T> {
    pub(crate) fn new() -> Self {
        let sentinel = |key| Entry { tick: 0, payload: T::default(), prev: key, next: key };
        let mut entries = Vec::with_capacity(ENTRIES_AT_START);
        entries.extend((0..SENTINELS as Key).map(sentinel));
        Wheel { entries, free: 0, armed: 0, occupied: [0; LEVELS], now: 0, next: u64::MAX }
    }

    /// How many timers are armed.
    pub(crate) fn len(&self) -> usize {
        self.armed
    }

    /// Arms a timer for `tick`, or for the next tick if that has come already.
    pub(crate) fn insert(&mut self, tick: u64, payload: T) -> Key {
        let tick = tick.max(self.now + 1);
        let entry = Entry { tick, payload, prev: 0, next: 0 };
        let key = if self.free == 0 {
            self.entries.push(entry);
            Key::try_from(self.entries.len() - 1).expect("under 4 billion timers")
        } else {
            let key = self.free;
            self.free = self.entries[key as usize].next;
            self.entries[key as usize] = entry;
            key
        };
        self.armed += 1;
        self.link(key);
        key
    }

    /// The payload of an armed timer.
    pub(crate) fn payload(&self, key: Key) -> Option<T> {
        self.entries.get(key as usize).map(|entry| entry.payload)
    }

    /// Disarms a timer, which must be armed.
    pub(crate) fn remove(&mut self, key: Key) -> T {
        self.unlink(key);
        self.armed -= 1;
        let entry = &mut self.entries[key as usize];
        let payload = std::mem::take(&mut entry.payload);
        entry.next = self.free;
        self.free = key;
        payload
    }

    /// When to look next: no timer is due before that tick. It may be early: when the first timer
    /// was cancelled, or when all there is to do is to move timers to a finer wheel.
    #[inline]
    pub(crate) fn next_tick(&self) -> Option<u64> {
        (self.armed > 0).then_some(self.next)
    }

    /// Takes one timer that is due at `now`, if there is any. To be called until there is none.
    #[inline]
    pub(crate) fn expire(&mut self, now: u64) -> Option<(Key, T)> {
        match now < self.next {
            true => {
                self.now = self.now.max(now);
                None
            }
            false => self.expire_first(now),
        }
    }

    fn expire_first(&mut self, now: u64) -> Option<(Key, T)> {
        while let Some((slot, tick)) = self.next_slot().filter(|&(_, tick)| tick <= now) {
            self.now = self.now.max(tick);
            if slot < SLOTS {
                let key = self.entries[slot].next;
                return Some((key, self.remove(key)));
            }
            // Time has come to a slot of a coarser wheel: all its timers now differ from now in a
            // finer digit only. All, before any fires: the finer slots come first from here on.
            while self.entries[slot].next as usize != slot {
                let key = self.entries[slot].next;
                self.unlink(key);
                self.link(key);
            }
        }
        self.now = self.now.max(now);
        self.next = self.next_slot().map_or(u64::MAX, |(_, tick)| tick);
        None
    }

    /// The first slot that holds a timer, and the tick at which time gets there.
    fn next_slot(&self) -> Option<(usize, u64)> {
        // A finer wheel always comes first: what it holds agrees with now in all coarser digits.
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let shift = BITS * level as u32;
        let here = (self.now >> shift) as u32 % SLOTS as u32;
        let ahead = self.occupied[level].rotate_right(here).trailing_zeros();
        let slot = (here + ahead) as usize % SLOTS;
        let turn = self.now >> shift >> BITS << BITS;
        let mut tick = (turn + slot as u64) << shift;
        if tick < self.now {
            // Only in the coarsest wheel, which has no coarser digit to carry to.
            tick += (SLOTS as u64) << shift;
        }
        Some((level * SLOTS + slot, tick))
    }

    fn link(&mut self, key: Key) {
        let tick = self.entries[key as usize].tick.min(self.now + REACH);
        let differs = (tick ^ self.now) | (SLOTS as u64 - 1);
        let level = ((u64::BITS - 1 - differs.leading_zeros()) / BITS).min(LEVELS as u32 - 1);
        let shift = BITS * level;
        let slot = (tick >> shift) as usize % SLOTS;
        self.occupied[level as usize] |= 1 << slot;
        self.next = self.next.min(tick >> shift << shift);

        // At the end of the ring: timers of one tick fire in the order they were armed.
        let sentinel = (level as usize * SLOTS + slot) as Key;
        let last = self.entries[sentinel as usize].prev;
        self.entries[key as usize].prev = last;
        self.entries[key as usize].next = sentinel;
        self.entries[last as usize].next = key;
        self.entries[sentinel as usize].prev = key;
    }

    fn unlink(&mut self, key: Key) {
        let Entry { prev, next, .. } = self.entries[key as usize];
        debug_assert!(self.entries[prev as usize].next == key, "timer {key} is not armed");
        self.entries[prev as usize].next = next;
        self.entries[next as usize].prev = prev;
        if prev == next {
            // Only the sentinel is left.
            let slot = prev as usize;
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything due up to `now`, in the order it fires.
    fn fired(wheel: &mut Wheel<u64>, now: u64) -> Vec<u64> {
        std::iter::from_fn(|| wheel.expire(now)).map(|(_, id)| id).collect()
    }

    #[test]
    fn fires_at_its_tick_and_not_before() {
        for tick in
            [1, 2, 63, 64, 65, 4_095, 4_096, 4_097, 262_144, 1 << 30, SPAN - 1, SPAN, SPAN + 5]
        {
            for start in [0, 1, 63, 64, 12_345, SPAN - 1] {
                let mut wheel = Wheel::new();
                assert_eq!(wheel.expire(start), None);
                wheel.insert(start + tick, 7);
                assert_eq!(wheel.expire(start + tick - 1), None, "start {start}, tick {tick}");
                assert_eq!(fired(&mut wheel, start + tick), [7], "start {start}, tick {tick}");
                assert_eq!(wheel.next_tick(), None);
                assert_eq!(wheel.len(), 0);
            }
        }
    }

    #[test]
    fn a_tick_that_has_come_fires_at_the_next() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.expire(100), None);
        wheel.insert(100, 1);
        wheel.insert(3, 2);
        assert_eq!(wheel.next_tick(), Some(101));
        assert!(fired(&mut wheel, 100).is_empty());
        assert_eq!(fired(&mut wheel, 101), [1, 2]);
    }

    #[test]
    fn centuries_do_not_overflow() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.expire(999), None);
        wheel.insert(u64::MAX, 1);
        assert!(fired(&mut wheel, 100 * SPAN).is_empty());
        assert!(wheel.next_tick().is_some());
        assert_eq!(wheel.len(), 1);
    }

    #[test]
    fn a_sleeper_is_woken_no_more_often_than_there_are_levels() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.expire(1_000_003), None);
        wheel.insert(1_000_003 + 86_400_000, 1);
        let mut wakes = 0;
        while let Some(tick) = wheel.next_tick() {
            wakes += 1;
            fired(&mut wheel, tick);
        }
        assert!(wakes <= LEVELS, "{wakes} wakes for one timer");
    }

    #[test]
    fn agrees_with_a_sorted_list() {
        // A deterministic mix of arming, cancelling and time passing, against the obvious way.
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut wheel = Wheel::new();
        let mut oracle: Vec<(u64, u64, Key)> = Vec::new();
        let mut now = 0;
        for id in 0..20_000 {
            match next(10) {
                0..6 => {
                    let reach = 1 << next(40);
                    let tick = now + next(reach);
                    let key = wheel.insert(tick, id);
                    oracle.push((tick.max(now + 1), id, key));
                }
                6..8 if !oracle.is_empty() => {
                    let at = next(oracle.len() as u64) as usize;
                    let (_, id, key) = oracle.swap_remove(at);
                    assert_eq!(wheel.remove(key), id);
                }
                _ => {
                    let reach = 1 << next(38);
                    now += next(reach);
                    let mut due: Vec<_> = oracle
                        .iter()
                        .filter(|(tick, ..)| *tick <= now)
                        .map(|(tick, id, _)| (*tick, *id))
                        .collect();
                    oracle.retain(|(tick, ..)| *tick > now);
                    due.sort_unstable();
                    let mut ids = fired(&mut wheel, now);
                    // Those of one tick fire in any order.
                    let ticks: Vec<u64> = due.iter().map(|(tick, _)| *tick).collect();
                    ids.sort_by_key(|id| due.iter().position(|(_, other)| other == id));
                    assert_eq!(ids, due.iter().map(|(_, id)| *id).collect::<Vec<_>>());
                    assert!(ticks.is_sorted());
                    let first = oracle.iter().map(|(tick, ..)| *tick).min();
                    assert!(wheel.next_tick() <= first || first.is_none());
                    assert_eq!(wheel.next_tick().is_some(), first.is_some());
                }
            }
            assert_eq!(wheel.len(), oracle.len());
        }
    }
}
