//! The event loop: sources, timers and wakes, one turn at a time.
//!
//! [`Reactor::turn`] is the whole of it. A *source* is anything with a descriptor (`AsFd`): the
//! reactor owns it and hands out a [`Token`] for it. What happens is told to a [`Handler`], which
//! gets the reactor back to look sources up, add some, close some, and set deadlines.
//!
//! ```
//! use std::io::{PipeReader, Read, Write};
//! use std::time::Duration;
//! use c10k::poller::{Interest, Readiness, Token};
//! use c10k::{Handler, Reactor};
//!
//! /// Collects what comes out of a pipe, for as long as it is open.
//! struct Collect(Vec<u8>);
//!
//! impl Handler<PipeReader> for Collect {
//!     fn ready(&mut self, reactor: &mut Reactor<PipeReader>, token: Token, _: Readiness) {
//!         let mut buffer = [0; 64];
//!         let pipe = reactor.source_mut(token).expect("alive, or it would not be ready");
//!         match pipe.read(&mut buffer) {
//!             Ok(0) | Err(_) => reactor.stop(),
//!             Ok(n) => self.0.extend_from_slice(&buffer[..n]),
//!         }
//!     }
//! }
//!
//! let (reader, mut writer) = std::io::pipe()?;
//! let mut reactor = Reactor::new()?;
//! reactor.add(reader, Interest::READ)?;
//!
//! let writing = std::thread::spawn(move || writer.write_all(b"hello"));
//! let mut collect = Collect(Vec::new());
//! reactor.run(&mut collect)?;
//! assert_eq!(collect.0, b"hello");
//! # writing.join().unwrap()?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod connecting;
mod stale;
mod time;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::time::Duration;

use slab::Slab;

use self::connecting::Queued;
use self::stale::StaleOnly;
use crate::Error;
use crate::alarm::Alarm;
use crate::clock::Clock;
use crate::poller::{Epoll, Event, Interest, Poller, Readiness, Token};
use crate::slots::{ALARM_SLOT, Slot, TIMER_SLOT, WAKER_SLOT, Waiting, live};
use crate::waker::Waker;
use crate::wheel::{self, Wheel};

/// What a loop tells its owner. Each call gets the reactor, and names the source by its token.
///
/// A token whose source was closed is never delivered, not even by an event that the kernel had
/// reported before it was closed.
pub trait Handler<S: AsFd, P: Poller = Epoll> {
    /// The source is ready, or has asked to be called [again](Reactor::again) (then the
    /// readiness is [`Readiness::NONE`]).
    fn ready(&mut self, reactor: &mut Reactor<S, P>, token: Token, readiness: Readiness);

    /// An outbound connection ([`Reactor::connect`]) is established, or has failed or timed out.
    /// If it is established, [`ready`](Handler::ready) follows with what it is ready for.
    /// One that failed is still there to be looked at and [closed](Reactor::close).
    fn connected(&mut self, reactor: &mut Reactor<S, P>, token: Token, result: io::Result<()>) {
        if result.is_err() {
            reactor.close(token);
        }
    }

    /// The [deadline](Reactor::set_deadline) of the source has passed. It is now unset.
    fn deadline(&mut self, reactor: &mut Reactor<S, P>, token: Token) {
        let _ = (reactor, token);
    }

    /// A [timer](Reactor::set_timer) has expired.
    fn timer(&mut self, reactor: &mut Reactor<S, P>, timer: TimerId) {
        let _ = (reactor, timer);
    }

    /// The turn is over: everything that was ready has been told.
    fn turned(&mut self, reactor: &mut Reactor<S, P>) {
        let _ = reactor;
    }

    /// A [`Waker`] was used.
    fn woken(&mut self, reactor: &mut Reactor<S, P>) {
        let _ = reactor;
    }
}

/// A timer that belongs to no source. Stays unique for four billion timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId {
    key: wheel::Key,
    serial: u32,
}

/// How often the loop went round, and for what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turns {
    /// Turns of the loop.
    pub turns: u64,
    /// Events that the poller reported.
    pub events: u64,
    /// Events dropped because their source had been closed: earlier in the same turn, or while
    /// somebody held a [duplicate](Reactor#duplicated-descriptors) of its descriptor.
    pub stale: u64,
    /// Turns with no other events than those. There are none unless there are duplicates.
    pub stale_only: u64,
    /// Turns that took more than a tenth of a second.
    pub slow: u64,
}

const NS_PER_MS: u64 = 1_000_000;
/// A turn longer than this is worth a warning: a service that blocks, or a machine that is full.
const SLOW_TURN_NS: u64 = 100 * NS_PER_MS;
/// Time-outs are cut to this: a century, which is as good as for ever, and can be added to any
/// [`Instant`] without overflow.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// Room for this many sources from the start, so that the allocator maps pages for it: such memory
/// is not resident until it is used, and grows by moving pages rather than by copying.
const SLOTS_AT_START: usize = 4096;

/// An event loop over sources of type `S`, waiting with the poller `P`.
///
/// It belongs to one thread; other threads reach it through its [`Waker`]. It must not be carried
/// across a `fork(2)`, since parent and child would share one epoll instance.
///
/// # Duplicated descriptors
///
/// epoll watches the *open file description*, not the descriptor. If somebody holds a duplicate of a
/// source's descriptor (`try_clone`, `dup(2)`, a child that inherited it) when the source is
/// [closed](Reactor::close), epoll goes on reporting it, and can no longer be told to stop (`epoll(7)`,
/// questions and answers, 6). The reactor drops such events, which are [stale](Turns::stale); but
/// with level triggering the loop spins on them for as long as the duplicate is open and ready. It
/// warns once in the log when many [turns held nothing else](Turns::stale_only). Close duplicates
/// first, or take the source out with [`remove`](Reactor::remove), which stops the watching. poll
/// and select watch numbers, and have no such trouble; what they have instead is in
/// [`poller`](crate::poller#a-descriptor-that-is-closed).
pub struct Reactor<S, P: Poller = Epoll> {
    poller: P,
    slots: Slab<Slot<S>>,
    /// The generation of the next source.
    generation: u32,
    /// In whole milliseconds of the clock, rounded up: nothing fires early.
    wheel: Wheel<Token>,
    timer_serial: u32,
    waker: Waker,
    /// Goes off when the first timer is due, or before that.
    alarm: Alarm,
    /// Sources with work left that the kernel will not mention again.
    again: Vec<Token>,
    /// What the last wait returned.
    events: Vec<Event>,
    clock: Clock,
    /// What the clock read after the last wait, and that in ticks of the wheel.
    now_ns: u64,
    now_ms: u64,
    counts: Turns,
    stale_only: StaleOnly,
    /// Outbound connections that wait for room in a listener's queue.
    queued: HashMap<Token, Queued>,
    /// When it last warned of a slow turn.
    warned_ns: Option<u64>,
    stopped: bool,
}

impl<S: AsFd> Reactor<S> {
    /// A loop that waits with epoll.
    ///
    /// # Errors
    /// [`Error::System`], which names the call. It needs three descriptors, of an epoll instance, an
    /// eventfd and a timerfd: `EMFILE`, `ENFILE`, `ENOMEM`; `EPERM` in a sandbox that refuses one.
    pub fn new() -> Result<Self, Error> {
        Self::of_type()
    }
}

impl<S: AsFd, P: Poller> Reactor<S, P> {
    /// A loop that waits with a new poller.
    pub(crate) fn of_type() -> Result<Self, Error> {
        // Of those there are, it is epoll's creation that takes a system call.
        let poller = P::new().map_err(Error::system("create an epoll instance (epoll_create1)"))?;
        Self::with_poller(poller)
    }

    /// A loop that waits with the poller given, which watches nothing yet. It is given a waker
    /// and an alarm to watch, and wakes for timers only if it does.
    ///
    /// # Errors
    /// As for [`Reactor::new`].
    pub fn with_poller(mut poller: P) -> Result<Self, Error> {
        let waker = Waker::new().map_err(Error::system("make a waker for the loop (eventfd2)"))?;
        let alarm =
            Alarm::new().map_err(Error::system("make a timer for the loop (timerfd_create)"))?;
        let waker_token = Token::pack(WAKER_SLOT, 0);
        poller.add(waker.as_fd(), waker_token, Interest::READ).map_err(Error::watch)?;
        let alarm_token = Token::pack(ALARM_SLOT, 0);
        poller.add(alarm.as_fd(), alarm_token, Interest::READ).map_err(Error::watch)?;
        Ok(Reactor {
            poller,
            slots: Slab::with_capacity(SLOTS_AT_START),
            generation: 0,
            wheel: Wheel::new(),
            timer_serial: 0,
            waker,
            alarm,
            again: Vec::new(),
            events: Vec::new(),
            clock: Clock::new(),
            now_ns: 0,
            now_ms: 0,
            counts: Turns::default(),
            stale_only: StaleOnly::default(),
            queued: HashMap::new(),
            warned_ns: None,
            stopped: false,
        })
    }

    /// One whole turn: waits for something to happen, at most `timeout_max`, and tells `handler`,
    /// which must not take a turn itself.
    ///
    /// # Errors
    /// Whatever [`Poller::wait`] and `timerfd_settime(2)` report, which is a bug in the program.
    ///
    /// # Panics
    /// It may, if `handler` takes a turn of the same reactor.
    // Inlined, like all that a request passes through from here on: see sys/call.rs.
    #[inline(always)]
    pub fn turn<H>(&mut self, handler: &mut H, timeout_max: Option<Duration>) -> io::Result<()>
    where
        H: Handler<S, P>,
    {
        // 1. How long to sleep: until the first timer, and not at all with work left over.
        let first =
            self.wheel.next_tick().map_or(Alarm::NEVER, |tick| tick.saturating_mul(NS_PER_MS));
        self.alarm.set(&self.clock, first, self.now_ns)?;
        let timeout = if self.again.is_empty() { timeout_max } else { Some(Duration::ZERO) };

        // 2. Wait. The clock as it is then serves the whole turn.
        self.poller.wait(&mut self.events, timeout)?;
        self.now_ns = self.clock.read();
        self.now_ms = self.now_ns / NS_PER_MS;
        self.counts.turns += 1;
        self.counts.events += self.events.len() as u64;
        // Whoever asks to be called again from here on has its next share in the next turn.
        let again = self.again.len();

        // 3. What the kernel reports. The token names a source by slot and generation: if an
        // earlier event of this batch had that source closed, the event is stale, and must not
        // reach whoever has the slot (or the descriptor) by now.
        for at in 0..self.events.len() {
            let Event { token, readiness } = self.events[at];
            match live(&mut self.slots, token) {
                Some(slot) if slot.waiting.has(Waiting::CONNECTING) => {
                    self.finish_connect(handler, token, readiness);
                }
                Some(_) => handler.ready(self, token, readiness),
                None if token.slot() == WAKER_SLOT => {
                    self.waker.drain();
                    handler.woken(self);
                }
                // It has woken the loop: there are timers to look at below.
                None if token.slot() == ALARM_SLOT => {}
                None => self.drop_stale(),
            }
        }

        // 4. Sources that had more to do than the last turn's share.
        for at in 0..again {
            let token = self.again[at];
            if let Some(slot) = live(&mut self.slots, token) {
                slot.waiting.clear(Waiting::AGAIN);
                // One that is not connected yet has nothing to be called for.
                if !slot.waiting.has(Waiting::CONNECTING) {
                    self.ready(handler, token, Readiness::NONE);
                }
            }
        }
        self.again.drain(..again);

        // 5. Timers.
        while let Some((key, token)) = self.wheel.expire(self.now_ms) {
            self.expire(handler, key, token);
        }
        handler.turned(self);

        let took_ns = self.clock.read() - self.now_ns;
        if took_ns > SLOW_TURN_NS {
            self.was_slow(took_ns);
        }
        Ok(())
    }

    /// Warns of a slow turn, unless one was warned of in the last second.
    #[cold]
    fn was_slow(&mut self, took_ns: u64) {
        self.counts.slow += 1;
        let now_ns = self.now_ns + took_ns;
        if self.warned_ns.is_none_or(|at| now_ns - at >= 1000 * NS_PER_MS) {
            self.warned_ns = Some(now_ns);
            log::warn!(
                "one turn of the loop took {:.1?}: whatever else was ready waited for it \
                 (slow turns so far: {})",
                Duration::from_nanos(took_ns),
                self.counts.slow
            );
        }
    }

    /// Takes turns until [`stop`](Reactor::stop) is called.
    ///
    /// # Errors
    /// As for [`turn`](Reactor::turn).
    pub fn run<H: Handler<S, P>>(&mut self, handler: &mut H) -> io::Result<()> {
        while !mem::take(&mut self.stopped) {
            self.turn(handler, None)?;
        }
        Ok(())
    }

    /// Has [`run`](Reactor::run) return after the turn under way.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    // ---- Sources ----

    /// Takes a source in and starts to watch it.
    ///
    /// # Errors
    /// Those of [`Poller::add`]; the source is dropped, which closes it.
    pub fn add(&mut self, source: S, interest: Interest) -> io::Result<Token> {
        self.insert(source, Some(interest), Waiting::NOTHING)
    }

    /// With no interest, without watching it yet.
    fn insert(
        &mut self,
        source: S,
        interest: Option<Interest>,
        waiting: Waiting,
    ) -> io::Result<Token> {
        let entry = self.slots.vacant_entry();
        let slot = u32::try_from(entry.key()).ok().filter(|&slot| slot < TIMER_SLOT);
        let token = Token::pack(slot.expect("under 4 billion sources"), self.generation);
        if let Some(interest) = interest {
            self.poller.add(source.as_fd(), token, interest)?;
        }
        entry.insert(Slot { generation: self.generation, waiting, source });
        self.generation = self.generation.wrapping_add(1);
        Ok(token)
    }

    /// Changes what a source is watched for.
    ///
    /// # Errors
    /// Those of [`Poller::modify`]; `ENOENT` for a source that is not there.
    pub fn modify(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        match live(&mut self.slots, token) {
            Some(slot) => self.poller.modify(slot.source.as_fd(), token, interest),
            None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    /// Keeps a source but stops watching it, until [`resume`](Reactor::resume). Its deadline
    /// stays, and an event that was reported before is still delivered in this turn.
    ///
    /// # Errors
    /// Those of [`Poller::delete`]; `ENOENT` for a source that is not there.
    pub fn pause(&mut self, token: Token) -> io::Result<()> {
        match live(&mut self.slots, token) {
            Some(slot) => self.poller.delete(slot.source.as_fd()),
            None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    /// Watches a paused source again.
    ///
    /// # Errors
    /// Those of [`Poller::add`]; `ENOENT` for a source that is not there.
    pub fn resume(&mut self, token: Token, interest: Interest) -> io::Result<()> {
        match live(&mut self.slots, token) {
            Some(slot) => self.poller.add(slot.source.as_fd(), token, interest),
            None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    /// Drops a source, which closes its descriptor. Its deadline is unset, and events already
    /// reported for it are not delivered. Returns whether it was there.
    ///
    /// Dropping it must close the descriptor, and nobody may hold a
    /// [duplicate](Reactor#duplicated-descriptors). Take any other source out with
    /// [`remove`](Reactor::remove).
    pub fn close(&mut self, token: Token) -> bool {
        match self.take(token) {
            Some(source) => {
                if !P::FORGETS_CLOSED {
                    let _ = self.poller.delete(source.as_fd());
                }
                true
            }
            None => false,
        }
    }

    /// Stops watching a source and hands it back.
    pub fn remove(&mut self, token: Token) -> Option<S> {
        let source = self.take(token)?;
        // It may be paused, and then it is not watched.
        let _ = self.poller.delete(source.as_fd());
        Some(source)
    }

    fn take(&mut self, token: Token) -> Option<S> {
        self.clear_deadline(token);
        let slot = live(&mut self.slots, token)?;
        if slot.waiting.has(Waiting::CONNECTING) {
            self.queued.remove(&token);
        }
        Some(self.slots.remove(token.slot() as usize).source)
    }

    /// The source of a token, unless it was closed.
    pub fn source(&self, token: Token) -> Option<&S> {
        let slot = self.slots.get(token.slot() as usize)?;
        (slot.generation == token.generation()).then_some(&slot.source)
    }

    /// The source of a token, unless it was closed.
    pub fn source_mut(&mut self, token: Token) -> Option<&mut S> {
        live(&mut self.slots, token).map(|slot| &mut slot.source)
    }

    /// The tokens of all sources there are.
    pub fn tokens(&self) -> impl Iterator<Item = Token> {
        self.slots.iter().map(|(key, slot)| Token::pack(key as u32, slot.generation))
    }

    /// How many sources there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no source.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Has [`Handler::ready`] called for this source in the next turn, whatever the kernel says.
    ///
    /// For a source that stops before all is done so that others get their turn: with edge
    /// triggering the kernel will not mention the rest again. To ask twice is to ask once:
    /// otherwise a source that asks whenever it is called, and of which the kernel has news each
    /// turn, would be called once more in each turn than in the one before.
    pub fn again(&mut self, token: Token) {
        if let Some(slot) = live(&mut self.slots, token)
            && !slot.waiting.set(Waiting::AGAIN)
        {
            self.again.push(token);
        }
    }

    /// For a source that the poller has not just reported. Not part of [`turn`](Reactor::turn), so that
    /// there is one place where all that comes after an event is inlined.
    #[inline(never)]
    fn ready<H: Handler<S, P>>(&mut self, handler: &mut H, token: Token, readiness: Readiness) {
        handler.ready(self, token, readiness);
    }

    // ---- The rest ----

    /// A handle with which any thread can wake this loop.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// How often the loop went round.
    pub fn counts(&self) -> Turns {
        self.counts
    }
}

impl<S, P: Poller> fmt::Debug for Reactor<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("sources", &self.slots.len())
            .field("timers", &self.wheel.len())
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}
