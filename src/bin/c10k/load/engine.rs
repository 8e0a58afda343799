//! One process's loop: the same reactor and the same connections as the server's.

mod connecting;
mod giving_up;
mod open;
mod peer;
mod sources;
mod window;

use std::collections::HashMap;
use std::io;
use std::mem;
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
use super::checker::{Checker, Phase, Run, nanos};
use super::measured::{self, Measured};
use super::plan::{Plan, Share};
use super::progress::{self, Progress, Stage, Watcher};
use super::schedule::Schedule;
use crate::Failure;
use crate::proc;
use crate::protocol::{AnyFraming, FramingKind};

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
    ring: Vec<Token>,
    turn: usize,
    /// Wakes the loop to send the next request; and when it was last set for.
    alarm: Option<Token>,
    alarm_at: Option<u64>,
    /// Ends the phase under way.
    timer: Option<TimerId>,
    /// Wakes the loop to begin the next connection.
    pace: Option<TimerId>,
    /// Wakes it to look for datagrams that were not answered.
    give_up_timer: Option<TimerId>,
    /// Wakes it to tell how far it has got.
    progress_timer: Option<TimerId>,
    began: Instant,
    connected_after: Duration,
    window: Window,
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
        while engine.under_way() > 0 || engine.begun < engine.total() {
            engine.turn(&mut reactor, watcher)?;
            engine.connect_more(&mut reactor)?;
        }
        engine.connected_after = engine.began.elapsed();
        if !engine.peers.is_empty() {
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
        let (before, replied) = (server.and_then(proc::switches), engine.run.replied.get());
        if engine.plan.churn.is_some() {
            // Others may have taken the places of those that were there at first.
            engine.peers = reactor.tokens().filter(|&it| peer(reactor, it).is_some()).collect();
        }
        if !engine.peers.is_empty() {
            engine.start(reactor, schedule)?;
            while engine.run.phase.get() != Phase::Over {
                engine.turn(reactor, watcher)?;
            }
            watcher(engine.progress(Stage::Exchanging))?;
        }
        let switches = server.and_then(proc::switches).zip(before);
        Ok(Measured {
            replies: engine.run.replied.get() - replied,
            server_switches: switches.map(|(now, before)| now.saturating_sub(before)),
            ..engine.measured(reactor)
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
            ring: Vec::new(),
            turn: 0,
            alarm: None,
            alarm_at: None,
            timer: None,
            pace: None,
            give_up_timer: None,
            progress_timer: None,
            began: Instant::now(),
            connected_after: Duration::ZERO,
            window: Window::default(),
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
            self.progress_timer = Some(reactor.set_timer(Instant::now() + progress::EVERY));
        }
        let timeout_max = self.plan.spin.then_some(Duration::ZERO);
        reactor.turn(self, timeout_max)?;
        match (self.progress_timer, self.run.phase.get()) {
            (Some(_), _) => Ok(()),
            (None, Phase::Connecting) => watcher(self.progress(Stage::Connecting)),
            (None, _) => watcher(self.progress(Stage::Exchanging)),
        }
    }

    fn progress(&self, stage: Stage) -> Progress {
        let failures = self.run.failures.borrow();
        Progress {
            stage,
            connected: self.peers.len() as u64,
            not_connected: failures.not_connected + failures.refused,
            answered: self.run.answered.get(),
            replies: self.run.replied.get(),
            failures: failures.total(),
            latency: self.run.recorder.borrow().recent(),
        }
    }

    // ---- Exchanging ----

    /// The connections that are to send: spread evenly over all.
    fn active(&self) -> Vec<Token> {
        let all = self.peers.len();
        let active = all.min(self.share.active as usize);
        (0..active).map(|at| self.peers[at * all / active]).collect()
    }

    fn start(
        &mut self,
        reactor: &mut Reactor<Source>,
        schedule: Option<&Schedule>,
    ) -> io::Result<()> {
        self.run.phase.set(Phase::WarmUp);
        self.run.open.set(schedule.is_some());
        self.arrivals = None;
        self.give_up_later(reactor);
        if let Some(schedule) = schedule {
            return self.start_open(reactor, schedule);
        }
        let Plan { ramp, warmup, .. } = *self.plan;
        let now = Instant::now();
        match self.plan.requests_each {
            Some(_) => self.next_phase(reactor),
            None => self.timer = Some(reactor.set_timer(now + ramp + warmup)),
        }
        let active = self.active();
        for (at, &token) in active.iter().enumerate() {
            match ramp.is_zero() {
                true => self.begin(reactor, token),
                false => {
                    let after = ramp.mul_f64(at as f64 / active.len() as f64);
                    reactor.set_deadline(token, now + after);
                }
            }
        }
        Ok(())
    }

    /// In a closed loop: sends the first requests of a connection, or one again after a pause.
    fn begin(&mut self, reactor: &mut Reactor<Source>, token: Token) {
        if !matches!(self.run.phase.get(), Phase::WarmUp | Phase::Measuring) {
            return;
        }
        // It may have been closed while we waited.
        let Some(peer) = peer_mut(reactor, token) else { return };
        self.run.read_clock();
        for _ in 0..self.plan.pipeline.unwrap_or(1) {
            if peer.checker().has_more() {
                peer.push(Checker::request);
            }
        }
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
                self.run.failures.borrow_mut().closed_by_server += 1;
                self.lose(reactor, token);
            }
            Err(error) => {
                self.run.failures.borrow_mut().broke(&error);
                self.lose(reactor, token);
            }
        }
    }

    /// The last request under way on a connection was answered or given up, and that did not make
    /// another.
    fn pause(&mut self, reactor: &mut Reactor<Source>, token: Token) {
        let Some(peer) = peer(reactor, token) else { return };
        let sending = matches!(self.run.phase.get(), Phase::WarmUp | Phase::Measuring);
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
        let unanswered = peer(reactor, token).map_or(0, unanswered);
        self.run.failures.borrow_mut().lost += unanswered;
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

    /// Whether all the replies that were asked for have come.
    fn has_enough(&self) -> bool {
        match (self.share.requests, self.plan.requests_each) {
            (Some(requests), _) => self.run.measured.get() >= requests,
            // Whoever has more to send has a request under way.
            (None, Some(_)) => self.run.outstanding() == 0,
            (None, None) => false,
        }
    }

    /// Ends the phase under way and begins the next.
    fn next_phase(&mut self, reactor: &mut Reactor<Source>) {
        match self.run.phase.get() {
            Phase::WarmUp => {
                // To read the clocks of ten thousand tasks takes a while, which is not measured.
                self.window = Window::read(self.plan.server_pid);
                let now = Instant::now();
                self.window.start = Some(now);
                self.run.phase.set(Phase::Measuring);
                self.timer = Some(reactor.set_timer(now + self.plan.duration));
                self.run.read_clock();
                self.run.in_flight_time.set(0);
                let failures = self.run.failures.borrow().total();
                let most = nanos(self.plan.duration);
                self.run.recorder.borrow_mut().start(self.run.now.get(), most, failures);
            }
            Phase::Measuring => {
                let wall = self.window.start.expect("measuring").elapsed();
                let now = Window::read(self.plan.server_pid);
                self.window = Window { wall, ..now.since(self.window) };
                self.run.read_clock();
                let in_flight = Duration::from_nanos(self.run.in_flight_time.get());
                self.window.in_flight_mean = in_flight.div_duration_f64(self.window.wall);
                self.window.backlog_end = self.run.outstanding();
                let failures = self.run.failures.borrow().total();
                self.run.recorder.borrow_mut().roll(self.run.now.get(), failures);
                self.run.phase.set(Phase::Draining);
                self.timer = Some(reactor.set_timer(Instant::now() + self.plan.timeout));
            }
            Phase::Connecting | Phase::Draining | Phase::Over => {
                self.count_unsent();
                self.run.phase.set(Phase::Over);
            }
        }
    }

    /// What was seen since this was last asked.
    fn measured(&mut self, reactor: &Reactor<Source>) -> Measured {
        // Whoever has not answered by now never will.
        let sources = reactor.tokens().filter_map(|token| peer(reactor, token));
        let run = &self.run;
        let mut failures = run.failures.take();
        failures.lost += sources.map(unanswered).sum::<u64>();
        let (series, service, steps) = run.recorder.borrow_mut().take(failures.total());
        let window = mem::take(&mut self.window);
        Measured {
            connected: self.peers.len() as u64,
            active: self.active().len() as u64,
            answered: run.answered.get(),
            connecting: self.connected_after,
            reordered: run.reordered.take(),
            measuring: window.wall,
            requests: run.measured.take(),
            requests_total: run.replied.get(),
            due: run.due.take(),
            in_flight_mean: window.in_flight_mean,
            backlog_first_half: run.backlog_first_half.take(),
            backlog_end: window.backlog_end,
            reconnects: measured::buckets(&mem::replace(
                &mut self.reconnects,
                measured::histogram(),
            )),
            series,
            service,
            steps,
            load_cpu: window.load_cpu,
            server_cpu: window.server_cpu,
            failures,
            ..Measured::default()
        }
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
                self.run.failures.borrow_mut().unconnected(&error);
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
        // With every connection gone, nothing more will happen.
        let alone = reactor.len() == usize::from(self.alarm.is_some());
        if self.run.phase.get() == Phase::Measuring && (alone || self.has_enough()) {
            self.arrivals = None;
            self.next_phase(reactor);
        }
        self.send_due(reactor);
        let more = self.arrivals.as_ref().is_some_and(|arrivals| arrivals.next_due().is_some());
        let answered = self.run.outstanding() == 0 && !more;
        match self.run.phase.get() {
            Phase::Draining if answered => self.run.phase.set(Phase::Over),
            Phase::WarmUp | Phase::Draining if alone => self.run.phase.set(Phase::Over),
            _ => {}
        }
    }
}
