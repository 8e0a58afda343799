//! A poller that reports what a test says, and a handler that writes down what it is told.

// Each test file that includes this uses another part of it.
#![allow(dead_code)]

use std::cell::{Ref, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;
use std::time::{Duration, Instant};

use c10k::poller::{Event, Interest, Poller, Readiness, Token};
use c10k::{Handler, Reactor, TimerId};

/// What a [`Scripted`] poller will report, and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// One batch for each wait. When there is none left, a wait takes as long as it may.
    pub(crate) batches: VecDeque<Vec<Event>>,
    /// The time-outs of the waits there were.
    pub(crate) timeouts: Vec<Option<Duration>>,
    /// Which of the calls that change what is watched there were.
    pub(crate) calls: Vec<&'static str>,
}

/// Reports what its script says, and nothing that the kernel knows.
#[derive(Debug, Default, Clone)]
pub(crate) struct Scripted(Rc<RefCell<Script>>);

impl Scripted {
    /// What the next wait without a batch of its own reports.
    pub(crate) fn batch(&self, events: &[(Token, Readiness)]) {
        let event = |&(token, readiness)| Event { token, readiness };
        self.0.borrow_mut().batches.push_back(events.iter().map(event).collect());
    }

    pub(crate) fn script(&self) -> Ref<'_, Script> {
        self.0.borrow()
    }
}

impl Poller for Scripted {
    const FORGETS_CLOSED: bool = false;

    fn new() -> io::Result<Scripted> {
        Ok(Scripted::default())
    }

    fn add(&mut self, _: impl AsFd, _: Token, _: Interest) -> io::Result<()> {
        self.0.borrow_mut().calls.push("add");
        Ok(())
    }

    fn modify(&mut self, _: impl AsFd, _: Token, _: Interest) -> io::Result<()> {
        self.0.borrow_mut().calls.push("modify");
        Ok(())
    }

    fn delete(&mut self, _: impl AsFd) -> io::Result<()> {
        self.0.borrow_mut().calls.push("delete");
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        let mut script = self.0.borrow_mut();
        script.timeouts.push(timeout);
        events.clear();
        match script.batches.pop_front() {
            Some(batch) => events.extend(batch),
            None => pass(timeout.expect("something will happen some time")),
        }
        Ok(())
    }
}

/// What a wait is in which nothing happens.
fn pass(time: Duration) {
    let until = Instant::now() + time.min(WATCHDOG);
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// What a handler was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Ready(Token, Readiness),
    Connected(Token, Result<(), io::ErrorKind>),
    Deadline(Token),
    Timer(TimerId),
    Woken,
}

/// Writes down what it is told, and then does what the test wants.
pub(crate) struct Tape<A> {
    pub(crate) told: Vec<Told>,
    act: A,
}

/// A handler that does `act` at everything it is told.
pub(crate) fn tape<S: AsFd, P: Poller, A>(act: A) -> Tape<A>
where
    A: FnMut(&mut Reactor<S, P>, Told),
{
    Tape { told: Vec::new(), act }
}

/// A handler that does nothing.
pub(crate) fn quiet<S: AsFd, P: Poller>() -> Tape<impl FnMut(&mut Reactor<S, P>, Told)> {
    tape(|_: &mut Reactor<S, P>, _| {})
}

impl<A> Tape<A> {
    /// What was told since the last time.
    pub(crate) fn take(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    fn tell<S: AsFd, P: Poller>(&mut self, reactor: &mut Reactor<S, P>, told: Told)
    where
        A: FnMut(&mut Reactor<S, P>, Told),
    {
        self.told.push(told);
        (self.act)(reactor, told);
    }
}

impl<S: AsFd, P: Poller, A: FnMut(&mut Reactor<S, P>, Told)> Handler<S, P> for Tape<A> {
    fn ready(&mut self, reactor: &mut Reactor<S, P>, token: Token, readiness: Readiness) {
        self.tell(reactor, Told::Ready(token, readiness));
    }

    fn connected(&mut self, reactor: &mut Reactor<S, P>, token: Token, result: io::Result<()>) {
        self.tell(reactor, Told::Connected(token, result.map_err(|error| error.kind())));
    }

    fn deadline(&mut self, reactor: &mut Reactor<S, P>, token: Token) {
        self.tell(reactor, Told::Deadline(token));
    }

    fn timer(&mut self, reactor: &mut Reactor<S, P>, timer: TimerId) {
        self.tell(reactor, Told::Timer(timer));
    }

    fn woken(&mut self, reactor: &mut Reactor<S, P>) {
        self.tell(reactor, Told::Woken);
    }
}

/// How long a test waits for what must come, before it fails rather than hang.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Takes turns until the handler was told `n` things since the last `take`.
pub(crate) fn turn_until<S: AsFd, P: Poller, A>(
    reactor: &mut Reactor<S, P>,
    tape: &mut Tape<A>,
    n: usize,
) where
    A: FnMut(&mut Reactor<S, P>, Told),
{
    let start = Instant::now();
    while tape.told.len() < n {
        assert!(start.elapsed() < WATCHDOG, "waited in vain, told only {:?}", tape.told);
        reactor.turn(tape, Some(WATCHDOG)).unwrap();
    }
    assert!(start.elapsed() < WATCHDOG, "told only after all that time");
}

/// One turn that does not wait.
pub(crate) fn poll<S: AsFd, P: Poller, A>(reactor: &mut Reactor<S, P>, tape: &mut Tape<A>)
where
    A: FnMut(&mut Reactor<S, P>, Told),
{
    reactor.turn(tape, Some(Duration::ZERO)).unwrap();
}

/// Something with a descriptor that has nothing to read, and never will.
pub(crate) fn any_fd() -> OwnedFd {
    UnixDatagram::unbound().unwrap().into()
}

/// A loop with a scripted poller, and the script.
pub(crate) fn scripted() -> (Reactor<OwnedFd, Scripted>, Scripted) {
    let script = Scripted::default();
    (Reactor::with_poller(script.clone()).unwrap(), script)
}
