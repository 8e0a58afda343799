//! One process's loop: the same reactor and the same connections as the server's.

mod connecting;
mod giving_up;
mod open;
mod peer;
mod phases;
mod sources;
mod window;

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use c10k::connection::{Step, Traffic};
use c10k::poller::{Readiness, Token};
use c10k::{Handler, Reactor, TimerId};
use hdrhistogram::Histogram;

use self::peer::{Peer, Work};
use self::sources::{Source, peer, peer_mut};
use self::window::Window;
use super::arrivals::Arrivals;
use super::checker::{Checker, Phase, Run};
use super::measured::{self, Measured};
use super::plan::{Plan, Share};
use super::progress::{self, Progress, Stage, Watcher};
use super::schedule::Schedule;
use crate::proc;
use crate::protocol::{AnyFraming, FramingKind};
use crate::{Failure, interrupt};

struct Engine<'a> {
    plan: &'a Plan,
    share: Share,
    framing: AnyFraming,
    run: Rc<Run>,
    work: Work,
    traffic: Traffic,
    /// Connections begun so far, and those of them that are not established yet.
    begun: u64,
    connecting: u64,
    peers: Vec<Token>,
    /// When those connections were begun that take the place of others, and how long the ones
    /// before them took.
    reconnecting: HashMap<Token, Instant>,
    reconnects: Histogram<u64>,
    /// In an open loop: when requests are due, on the clock of the run from when it began to
    /// send; and who sends them, in turn.
    arrivals: Option<Arrivals>,
    sending_since: u64,
    /// None is sent that is due then or later.
    due_until: u64,
    ring: Vec<Token>,
    turn: usize,
    /// Wakes the loop to send the next request; and when it was last set for.
    alarm: Option<Token>,
    alarm_at: Option<u64>,
    /// Requests of the measured time that are still to be sent, if an open loop ends with so many.
    quota: Option<u64>,
    /// Ends the phase under way.
    timer: Option<TimerId>,
    /// Wakes the loop to begin the next connection.
    pace: Option<TimerId>,
    /// Wakes it to look for datagrams that were not answered.
    give_up_timer: Option<TimerId>,
    /// Wakes it to tell how far it has got.
    progress_timer: Option<TimerId>,
    progress_due: Instant,
    /// A signal came: nothing more is sent, and what is under way is left alone.
    interrupted: bool,
    began: Instant,
    connected_after: Duration,
    window: Window,
    window_ends: Instant,
    /// How many replies there were when that was last looked at, and when the last of them came.
    last_reply: (u64, u64),
}

/// One process's share of a load. Its connections stay open until it is dropped.
pub(super) struct Load<'a> {
    engine: Engine<'a>,
    reactor: Reactor<Source>,
}

impl<'a> Load<'a> {
    /// Makes the connections, as many of them as can be made.
    pub(super) fn connect(
        plan: &'a Plan,
        share: Share,
        watcher: &mut Watcher<'_>,
    ) -> Result<Load<'a>, Failure> {
        let mut engine = Engine::new(plan, share);
        let mut reactor = Reactor::new()?;
        engine.connect_more(&mut reactor)?;
        while engine.run.phase.get() == Phase::Connecting
            && (engine.under_way() > 0 || engine.begun < engine.total())
        {
            engine.turn(&mut reactor, watcher)?;
            engine.connect_more(&mut reactor)?;
        }
        engine.connected_after = engine.began.elapsed();
        if !engine.peers.is_empty() && !engine.has_ended() {
            watcher(engine.progress(Stage::Connected))?;
        }
        Ok(Load { engine, reactor })
    }

    /// Sends and measures: with a schedule an open loop, otherwise a closed one.
    pub(super) fn exchange(
        &mut self,
        schedule: Option<&Schedule>,
        watcher: &mut Watcher<'_>,
    ) -> Result<Measured, Failure> {
        let Load { engine, reactor } = self;
        // To read this of ten thousand tasks takes a while: not with requests under way.
        let server = engine.plan.server_pid;
        let (before, replied) = (server.map(proc::switches), engine.run.replied.get());
        if engine.plan.churn.is_some() {
            // Others may have taken the places of those that were there at first.
            engine.peers = reactor.tokens().filter(|&it| peer(reactor, it).is_some()).collect();
        }
        engine.interrupted |= interrupt::came().is_some();
        if !engine.peers.is_empty() && !engine.has_ended() {
            engine.start(reactor, schedule)?;
            while engine.run.phase.get() != Phase::Over {
                engine.turn(reactor, watcher)?;
            }
        }
        let kept = engine.finish(reactor);
        watcher(engine.progress(Stage::Exchanging))?;
        let switches = server.map(proc::switches).zip(before);
        Ok(Measured {
            replies: engine.run.replied.get() - replied,
            server_switches: switches.map(|(now, before)| now.saturating_sub(before)),
            ..engine.measured(kept)
        })
    }

    /// Says how many of the connections are to send in the next exchange.
    pub(super) fn set_active(&mut self, active: u64) {
        self.engine.share.active = active;
    }

    /// Closes the connections that have not answered everything: what they were sent was counted
    /// as lost, and must not be answered in the next exchange. A socket of datagrams forgets it.
    pub(super) fn close_unanswered(&mut self) {
        for token in self.reactor.tokens().collect::<Vec<_>>() {
            match peer_mut(&mut self.reactor, token) {
                Some(peer) if self.engine.plan.udp => peer.checker_mut().forget(),
                _ => _ = self.engine.close_unanswered(&mut self.reactor, token),
            }
        }
    }

    /// Makes ready for another exchange. If it has lost connections, it makes all of them again:
    /// exchanges on different numbers of them do not compare.
    pub(super) fn renew(&mut self) -> Result<(), Failure> {
        self.close_unanswered();
        let is_peer = |token: &Token| peer(&self.reactor, *token).is_some();
        let left: Vec<_> = self.reactor.tokens().filter(is_peer).collect();
        if left.len() < self.engine.peers.len() {
            // Their descriptors may be needed for the new ones.
            for token in left {
                self.reactor.close(token);
            }
            let (plan, share) = (self.engine.plan, self.engine.share.clone());
            *self = Load::connect(plan, share, &mut |_| Ok(()))?;
        }
        Ok(())
    }
}

impl<'a> Engine<'a> {
    fn new(plan: &'a Plan, share: Share) -> Engine<'a> {
        let kind = if plan.udp { FramingKind::Chunk } else { plan.dialect.framing() };
        let payload = plan.payload.clone();
        Engine {
            plan,
            share,
            framing: AnyFraming::new(kind, plan.delimiter, u32::MAX),
            run: Rc::new(Run::new(payload, plan)),
            work: Work::new(),
            traffic: Traffic::default(),
            begun: 0,
            connecting: 0,
            peers: Vec::new(),
            reconnecting: HashMap::new(),
            reconnects: measured::histogram(),
            arrivals: None,
            sending_since: 0,
            due_until: u64::MAX,
            ring: Vec::new(),
            turn: 0,
            alarm: None,
            alarm_at: None,
            quota: None,
            timer: None,
            pace: None,
            give_up_timer: None,
            progress_timer: None,
            progress_due: Instant::now(),
            interrupted: false,
            began: Instant::now(),
            connected_after: Duration::ZERO,
            window: Window::default(),
            window_ends: Instant::now(),
            last_reply: (0, 0),
        }
    }
}

impl Engine<'_> {
    /// One turn of the loop; from time to time it tells how far it has got.
    #[inline(always)] // see sys/call.rs
    fn turn(
        &mut self,
        reactor: &mut Reactor<Source>,
        watcher: &mut Watcher<'_>,
    ) -> Result<(), Failure> {
        if self.progress_timer.is_none() {
            self.progress_due = Instant::now() + progress::EVERY;
            self.progress_timer = Some(reactor.set_timer(self.progress_due));
        }
        let timeout_max = self.plan.spin.then_some(Duration::ZERO);
        reactor.turn(self, timeout_max)?;
        if self.progress_timer.is_some() {
            return Ok(());
        }
        if self.window.is_open() {
            self.window.stalled = self.window.stalled.max(self.progress_due.elapsed());
        }
        if interrupt::came().is_some() {
            self.interrupted = true;
            self.run.phase.set(Phase::Over);
        }
        self.all_due_by_now();
        match self.run.phase.get() {
            Phase::Connecting => watcher(self.progress(Stage::Connecting)),
            _ => watcher(self.progress(Stage::Exchanging)),
        }
    }

    fn progress(&self, stage: Stage) -> Progress {
        let failures = self.run.failures.borrow();
        let mut recorder = self.run.recorder.borrow_mut();
        Progress {
            stage,
            connected: self.peers.len() as u64,
            not_connected: failures.not_connected + failures.refused,
            answered: self.run.answered.get(),
            replies: self.run.replied.get(),
            failures: failures.total(),
            latency: recorder.recent(),
            seconds: recorder.take_settled(),
        }
    }

    // ---- Exchanging ----

    /// In a closed loop: sends the first requests of a connection, or one again after a pause.
    fn begin(&mut self, reactor: &mut Reactor<Source>, token: Token) {
        // It may have been closed while we waited.
        let Some(peer) = peer_mut(reactor, token) else { return };
        self.run.read_clock();
        for _ in 0..self.plan.pipeline.unwrap_or(1) {
            if self.run.may_send() && peer.checker().has_more() {
                peer.push(Checker::request);
            }
        }
        // They are sent before anything is received: a reply may be there at once.
        self.run.read_clock();
        self.drive(reactor, token, Readiness::NONE);
    }

    #[inline(always)] // see sys/call.rs
    fn drive(&mut self, reactor: &mut Reactor<Source>, token: Token, readiness: Readiness) {
        let Some(peer) = peer_mut(reactor, token) else { return };
        let replied = self.run.replied.get();
        let driven = peer.drive(readiness, &mut self.work, &self.traffic);
        let idle = self.run.pauses && replied != self.run.replied.get() && unanswered(peer) == 0;
        match driven {
            Ok(step @ (Step::Wait | Step::Again | Step::Linger)) => {
                if step != Step::Wait {
                    reactor.again(token);
                }
                if idle {
                    self.pause(reactor, token);
                }
            }
            Ok(Step::Close) => {
                self.run.fail(|failures| failures.closed_by_server += 1);
                self.lose(reactor, token);
            }
            Err(error) => {
                self.run.fail(|failures| failures.broke(&error));
                self.lose(reactor, token);
            }
        }
    }

    /// The last request under way on a connection was answered or given up, and that did not make
    /// another.
    fn pause(&mut self, reactor: &mut Reactor<Source>, token: Token) {
        let Some(peer) = peer(reactor, token) else { return };
        let sending = self.run.may_send();
        if peer.checker().is_spent() {
            // In an open loop another has taken its place already.
            if sending && !self.run.open.get() {
                self.reconnect(reactor, token);
            }
            if sending || self.run.open.get() {
                reactor.close(token);
            }
        } else if sending && let Some(time) = self.plan.think_time {
            reactor.set_deadline(token, Instant::now() + time);
        }
    }

    /// A connection is over: what it had under way will never be answered.
    fn lose(&mut self, reactor: &mut Reactor<Source>, token: Token) {
        if let Some(peer) = peer(reactor, token) {
            self.run.lost(peer.checker().all_due());
        }
        if !self.close_unanswered(reactor, token) {
            reactor.close(token);
        }
    }

    /// Closes a connection if it has not answered everything.
    fn close_unanswered(&mut self, reactor: &mut Reactor<Source>, token: Token) -> bool {
        let Some(peer) = peer(reactor, token).filter(|peer| unanswered(peer) > 0) else {
            return false;
        };
        let checker = peer.checker();
        let (sent, waiting) = (checker.outstanding() as u64, checker.waiting() as u64);
        self.run.gone.set(self.run.gone.get() + sent);
        self.run.waiting.set(self.run.waiting.get() - waiting);
        reactor.close(token)
    }

    /// Whether a phase was ended early, and no other follows.
    fn has_ended(&self) -> bool {
        self.interrupted || self.run.unasked.get() > 0
    }
}

/// Requests of a connection that have had no reply.
fn unanswered(peer: &Peer) -> u64 {
    let checker = peer.checker();
    (checker.outstanding() + checker.waiting()) as u64
}

impl Handler<Source> for Engine<'_> {
    fn connected(&mut self, reactor: &mut Reactor<Source>, token: Token, result: io::Result<()>) {
        let again = self.reconnecting.contains_key(&token);
        self.connecting -= u64::from(!again);
        match result {
            Ok(()) if again => self.reconnected(reactor, token),
            Ok(()) => {
                self.peers.push(token);
                if self.plan.probe {
                    self.probe(reactor, token);
                }
            }
            Err(error) => {
                self.run.fail(|failures| failures.unconnected(&error));
                self.reconnecting.remove(&token);
                // In an open loop there may be requests that wait for it.
                self.lose(reactor, token);
            }
        }
    }

    #[inline(always)] // see sys/call.rs
    fn ready(&mut self, reactor: &mut Reactor<Source>, token: Token, readiness: Readiness) {
        if self.alarm == Some(token) {
            // What is due is sent when all that is ready was told.
            return;
        }
        self.run.read_clock();
        self.drive(reactor, token, readiness);
        if self.plan.probe && self.run.phase.get() == Phase::Connecting {
            self.probed(reactor, token);
        }
    }

    /// It is time for a connection to send; or, while connecting, its probe was not answered.
    fn deadline(&mut self, reactor: &mut Reactor<Source>, token: Token) {
        if self.run.phase.get() != Phase::Connecting {
            return self.begin(reactor, token);
        }
        let error = io::Error::new(io::ErrorKind::TimedOut, "a probe had no reply");
        self.run.failures.borrow_mut().error(&error);
        self.lose(reactor, token);
    }

    fn timer(&mut self, reactor: &mut Reactor<Source>, timer: TimerId) {
        if self.timer == Some(timer) {
            self.next_phase(reactor);
        } else if self.give_up_timer == Some(timer) {
            self.give_up(reactor);
        } else if self.progress_timer == Some(timer) {
            self.progress_timer = None;
        } else if self.pace == Some(timer) {
            self.pace = None;
        }
    }

    fn turned(&mut self, reactor: &mut Reactor<Source>) {
        self.look_at_phase(reactor);
    }
}
