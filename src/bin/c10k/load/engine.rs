//! One process's loop: the same reactor and the same connections as the server's.

use std::io;
use std::process;
use std::rc::Rc;
use std::time::{Duration, Instant};

use c10k::connection::{Connection, Step, Traffic, Workspace};
use c10k::poller::{Interest, Readiness, Token};
use c10k::sys::ConnectOptions;
use c10k::{Handler, Reactor, Session, TimerId};
use nix::time::ClockId;
use nix::unistd::Pid;

use super::arrivals::Arrivals;
use super::checker::{Checker, Phase, Run};
use super::measured::Measured;
use super::payload::Payload;
use super::plan::{Plan, Share};
use super::progress::{self, Progress, Stage, Watcher};
use super::schedule::Schedule;
use crate::Failure;
use crate::proc;
use crate::protocol::AnyFraming;

const INTEREST: Interest = Interest::READ.union(Interest::WRITE).union(Interest::EDGE);

pub(super) type Peer = Connection<AnyFraming, Checker>;

struct Engine<'a> {
    plan: &'a Plan,
    share: Share,
    framing: AnyFraming,
    run: Rc<Run>,
    work: Workspace,
    traffic: Traffic,
    /// Connections begun so far, and those of them that are not established yet.
    begun: u64,
    connecting: u64,
    peers: Vec<Token>,
    /// In an open loop: when requests are due, on the clock of the run from when it began to
    /// send; and who sends them, in turn.
    arrivals: Option<Arrivals>,
    sending_since: u64,
    ring: Vec<Token>,
    turn: usize,
    /// Wakes the loop to send the next request.
    due_timer: Option<TimerId>,
    /// Ends the phase under way.
    timer: Option<TimerId>,
    /// Wakes the loop to begin the next connection.
    pace: Option<TimerId>,
    /// Wakes it to tell how far it has got.
    progress_timer: Option<TimerId>,
    began: Instant,
    connected_after: Duration,
    window: Window,
}

/// Clocks at the start of the measured time, and then what has passed on them.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    start: Option<Instant>,
    wall: Duration,
    load_cpu: Duration,
    /// Of the server and its children. `None` if no server was named, or it is not there.
    server_cpu: Option<Duration>,
    server_switches: Option<u64>,
}

impl Window {
    /// What has passed on each clock from `before` to this.
    fn since(self, before: Window) -> Window {
        let cpu = self.server_cpu.zip(before.server_cpu);
        let switches = self.server_switches.zip(before.server_switches);
        Window {
            load_cpu: self.load_cpu.saturating_sub(before.load_cpu),
            server_cpu: cpu.map(|(now, before)| now.saturating_sub(before)),
            server_switches: switches.map(|(now, before)| now.saturating_sub(before)),
            ..self
        }
    }
}

/// Does one process's share of a load. The connections stay open for as long as the caller keeps
/// the reactor.
pub(super) fn run(
    plan: &Plan,
    share: Share,
    watcher: &mut Watcher<'_>,
) -> Result<(Measured, Reactor<Peer>), Failure> {
    let kind = plan.protocol.usual_framing();
    let payload = Payload::new(plan.protocol, plan.size as usize, plan.delimiter, &plan.prefix);
    let mut engine = Engine {
        plan,
        share,
        framing: AnyFraming::new(kind, plan.delimiter, u32::MAX),
        run: Rc::new(Run::new(payload, plan)),
        work: Workspace::new(),
        traffic: Traffic::default(),
        begun: 0,
        connecting: 0,
        peers: Vec::new(),
        arrivals: None,
        sending_since: 0,
        ring: Vec::new(),
        turn: 0,
        due_timer: None,
        timer: None,
        pace: None,
        progress_timer: None,
        began: Instant::now(),
        connected_after: Duration::ZERO,
        window: Window::default(),
    };
    let mut reactor = Reactor::new()?;
    engine.connect_more(&mut reactor)?;
    while engine.under_way() > 0 || engine.begun < engine.total() {
        engine.turn(&mut reactor, watcher)?;
        engine.connect_more(&mut reactor)?;
    }
    engine.connected_after = engine.began.elapsed();
    if !engine.peers.is_empty() {
        watcher(engine.progress(Stage::Connected))?;
        engine.start(&mut reactor);
        while engine.run.phase.get() != Phase::Over {
            engine.turn(&mut reactor, watcher)?;
        }
        watcher(engine.progress(Stage::Exchanging))?;
    }
    Ok((engine.measured(&reactor), reactor))
}

impl Engine<'_> {
    /// One turn of the loop; from time to time it tells how far it has got.
    fn turn(
        &mut self,
        reactor: &mut Reactor<Peer>,
        watcher: &mut Watcher<'_>,
    ) -> Result<(), Failure> {
        if self.progress_timer.is_none() {
            self.progress_timer = Some(reactor.set_timer(Instant::now() + progress::EVERY));
        }
        reactor.turn(self, None)?;
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
        }
    }

    // ---- Connecting ----

    fn total(&self) -> u64 {
        self.share.connections.end - self.share.connections.start
    }

    /// Connections that are begun, and not as far as they are to be. A connection is established
    /// when the kernel says so, long before a busy server accepts it: those who probe it do not
    /// fill its queue.
    fn under_way(&self) -> u64 {
        self.connecting + self.run.outstanding()
    }

    /// Begins connections, up to as many as may be under way, and no sooner than they are due.
    fn connect_more(&mut self, reactor: &mut Reactor<Peer>) -> Result<(), Failure> {
        while self.begun < self.total() && self.under_way() < self.share.connecting_max {
            let due = due_after(self.share.connect_rate, self.begun);
            if due > self.began.elapsed() {
                if self.pace.is_none() {
                    self.pace = Some(reactor.set_timer(self.began + due));
                }
                return Ok(());
            }
            self.connect_one(reactor)?;
        }
        Ok(())
    }

    fn connect_one(&mut self, reactor: &mut Reactor<Peer>) -> Result<(), Failure> {
        let number = self.share.connections.start + self.begun;
        self.begun += 1;
        // What may be unsent is what was asked for. Were it less, neither side might read.
        let checker = Checker::new(self.run.clone(), number as u32);
        let session = Session::new(self.framing, checker).pending_max(u32::MAX);
        let (source, target) = self.plan.ends_of(number);
        let options = ConnectOptions { source, ..ConnectOptions::default() };
        let begun = reactor.connect(target, &options, self.plan.timeout, INTEREST, |fd| {
            Connection::new(fd, session, INTEREST, 0)
        });
        match begun {
            Ok(_) => self.connecting += 1,
            Err(c10k::Error::Connect { source, .. }) => {
                self.run.failures.borrow_mut().unconnected(&source);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Sends the first request. What is ready is told next, and drives the connection.
    fn probe(&mut self, reactor: &mut Reactor<Peer>, token: Token) {
        let Some(peer) = reactor.source_mut(token) else { return };
        self.run.read_clock();
        peer.session_mut().push(Checker::request);
        reactor.set_deadline(token, Instant::now() + self.plan.timeout);
    }

    /// Unsets the deadline of a connection whose probe was answered.
    fn probed(&mut self, reactor: &mut Reactor<Peer>, token: Token) {
        let answered = |peer: &Peer| peer.session().service().outstanding() == 0;
        if reactor.source(token).is_some_and(answered) {
            reactor.clear_deadline(token);
        }
    }

    // ---- Exchanging ----

    /// The connections that are to send: spread evenly over all.
    fn active(&self) -> Vec<Token> {
        let all = self.peers.len();
        let active = all.min(self.share.active as usize);
        (0..active).map(|at| self.peers[at * all / active]).collect()
    }

    fn start(&mut self, reactor: &mut Reactor<Peer>) {
        self.run.phase.set(Phase::WarmUp);
        if let Some(schedule) = &self.plan.schedule {
            return self.start_open(reactor, schedule);
        }
        let mut requests = self.plan.pipeline.unwrap_or(1);
        if let Some(each) = self.plan.requests_each {
            requests = requests.min(u64::from(each));
            self.next_phase(reactor);
        } else {
            self.timer = Some(reactor.set_timer(Instant::now() + self.plan.warmup));
        }
        for token in self.active() {
            // It may have been closed while we waited.
            let Some(peer) = reactor.source_mut(token) else { continue };
            self.run.read_clock();
            for _ in 0..requests {
                peer.session_mut().push(Checker::request);
            }
            self.drive(reactor, token, Readiness::NONE);
        }
    }

    /// Begins an open loop: from here on the requests are due when they are due.
    fn start_open(&mut self, reactor: &mut Reactor<Peer>, schedule: &Schedule) {
        let Plan { warmup, duration, arrivals, .. } = *self.plan;
        self.ring = self.active();
        let now = Instant::now();
        self.timer = Some(reactor.set_timer(now + warmup));
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.sending_since = nanos(now - self.run.began);
        let from = self.sending_since.saturating_add(nanos(warmup));
        self.run.window.set((from, from.saturating_add(nanos(duration))));
        let part = self.share.part;
        self.arrivals = (part.size > 0.0)
            .then(|| Arrivals::new(schedule.after(Duration::ZERO, warmup), arrivals, part));
        self.send_due(reactor);
    }

    /// Sends all requests that are due by now, each on the next connection in turn, and sees to it
    /// that the loop wakes for the next one.
    fn send_due(&mut self, reactor: &mut Reactor<Peer>) {
        let Some(arrivals) = &mut self.arrivals else { return };
        self.run.read_clock();
        let now = self.run.now.get() - self.sending_since;
        let mut touched = Vec::new();
        while let Some(due) = arrivals.take_due(now) {
            let Some(token) = next_in_turn(&mut self.ring, &mut self.turn, reactor) else { break };
            let session = reactor.source_mut(token).expect("just looked at").session_mut();
            let due = self.sending_since + due;
            if session.service().may_send() {
                session.push(|checker, out| checker.request_due(due, out));
                // With few connections, what is due on one of them is sent at once.
                if touched.last() != Some(&token) {
                    touched.push(token);
                }
            } else {
                session.service_mut().wait(due);
            }
        }
        if self.due_timer.is_none()
            && let Some(due) = arrivals.next_due()
        {
            let at = self.run.began + Duration::from_nanos(self.sending_since + due);
            self.due_timer = Some(reactor.set_timer(at));
        }
        for token in touched {
            self.drive(reactor, token, Readiness::NONE);
        }
    }

    fn drive(&mut self, reactor: &mut Reactor<Peer>, token: Token, readiness: Readiness) {
        let Some(peer) = reactor.source_mut(token) else { return };
        match peer.drive(readiness, 0, &mut self.work, &self.traffic) {
            Ok(Step::Wait) => {}
            Ok(Step::Again | Step::Linger) => reactor.again(token),
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

    /// A connection is over: what it had under way will never be answered.
    fn lose(&mut self, reactor: &mut Reactor<Peer>, token: Token) {
        let Some(peer) = reactor.source(token) else { return };
        let checker = peer.session().service();
        let (sent, waiting) = (checker.outstanding() as u64, checker.waiting() as u64);
        self.run.failures.borrow_mut().lost += sent + waiting;
        self.run.gone.set(self.run.gone.get() + sent);
        self.run.waiting.set(self.run.waiting.get() - waiting);
        reactor.close(token);
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
    fn next_phase(&mut self, reactor: &mut Reactor<Peer>) {
        match self.run.phase.get() {
            Phase::WarmUp => {
                // To read the clocks of ten thousand tasks takes a while, which is not measured.
                self.window = self.clocks();
                let now = Instant::now();
                self.window.start = Some(now);
                self.run.phase.set(Phase::Measuring);
                self.timer = Some(reactor.set_timer(now + self.plan.duration));
                self.run.read_clock();
                let nanos_max = u64::try_from(self.plan.duration.as_nanos()).unwrap_or(u64::MAX);
                let failures = self.run.failures.borrow().total();
                self.run.recorder.borrow_mut().start(self.run.now.get(), nanos_max, failures);
            }
            Phase::Measuring => {
                let wall = self.window.start.expect("measuring").elapsed();
                self.window = Window { wall, ..self.clocks().since(self.window) };
                self.run.read_clock();
                let failures = self.run.failures.borrow().total();
                self.run.recorder.borrow_mut().roll(self.run.now.get(), failures);
                self.run.phase.set(Phase::Draining);
                self.timer = Some(reactor.set_timer(Instant::now() + self.plan.timeout));
            }
            Phase::Connecting | Phase::Draining | Phase::Over => self.run.phase.set(Phase::Over),
        }
    }

    fn clocks(&self) -> Window {
        // One of its children may have ended since they were listed; the server itself has not.
        let server_cpu = self.plan.server_pid.and_then(|pid| {
            let children = proc::family(pid).into_iter().skip(1).filter_map(cpu_time);
            Some(cpu_time(pid)? + children.sum())
        });
        let server_switches = self.plan.server_pid.map(proc::switches);
        let load_cpu = cpu_time(process::id()).unwrap_or_default();
        Window { load_cpu, server_cpu, server_switches, ..Window::default() }
    }

    fn measured(self, reactor: &Reactor<Peer>) -> Measured {
        // Whoever has not answered by now never will.
        let unanswered = reactor.tokens().filter_map(|token| reactor.source(token));
        let unanswered = unanswered.map(|peer| {
            let checker = peer.session().service();
            (checker.outstanding() + checker.waiting()) as u64
        });
        let run = &self.run;
        let mut failures = run.failures.take();
        failures.lost += unanswered.sum::<u64>();
        let (series, service) = run.recorder.borrow_mut().take(failures.total());
        Measured {
            connected: self.peers.len() as u64,
            active: self.active().len() as u64,
            answered: run.answered.get(),
            connecting: self.connected_after,
            measuring: self.window.wall,
            requests: run.measured.get(),
            requests_total: run.replied.get(),
            series,
            service,
            load_cpu: self.window.load_cpu,
            server_cpu: self.window.server_cpu,
            server_switches: self.window.server_switches,
            failures,
        }
    }
}

/// Whose turn it is to send. Connections that are gone lose theirs.
fn next_in_turn(ring: &mut Vec<Token>, turn: &mut usize, reactor: &Reactor<Peer>) -> Option<Token> {
    while !ring.is_empty() {
        *turn %= ring.len();
        let token = ring[*turn];
        if reactor.source(token).is_some() {
            *turn += 1;
            return Some(token);
        }
        ring.remove(*turn);
    }
    None
}

/// How long after the first connection number `number` is to begin, at so many in a second.
fn due_after(rate: Option<f64>, number: u64) -> Duration {
    let seconds = rate.map_or(0.0, |rate| number as f64 / rate);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// The CPU time that a process has used, all threads together (`clock_getcpuclockid(3)`).
fn cpu_time(pid: u32) -> Option<Duration> {
    let pid = Pid::from_raw(pid as i32);
    let clock = ClockId::pid_cpu_clock_id(pid).ok()?;
    Some(Duration::from(clock.now().ok()?))
}

impl Handler<Peer> for Engine<'_> {
    fn connected(&mut self, reactor: &mut Reactor<Peer>, token: Token, result: io::Result<()>) {
        self.connecting -= 1;
        match result {
            Ok(()) => {
                self.peers.push(token);
                if self.plan.probe {
                    self.probe(reactor, token);
                }
            }
            Err(error) => {
                self.run.failures.borrow_mut().unconnected(&error);
                reactor.close(token);
            }
        }
    }

    #[inline]
    fn ready(&mut self, reactor: &mut Reactor<Peer>, token: Token, readiness: Readiness) {
        self.run.read_clock();
        self.drive(reactor, token, readiness);
        if self.plan.probe && self.run.phase.get() == Phase::Connecting {
            self.probed(reactor, token);
        }
    }

    /// A probe was not answered in time.
    fn deadline(&mut self, reactor: &mut Reactor<Peer>, token: Token) {
        let error = io::Error::new(io::ErrorKind::TimedOut, "a probe had no reply");
        self.run.failures.borrow_mut().error(&error);
        self.lose(reactor, token);
    }

    fn timer(&mut self, reactor: &mut Reactor<Peer>, timer: TimerId) {
        if self.timer == Some(timer) {
            self.next_phase(reactor);
        } else if self.progress_timer == Some(timer) {
            self.progress_timer = None;
        } else if self.pace == Some(timer) {
            self.pace = None;
        } else if self.due_timer == Some(timer) {
            self.due_timer = None;
        }
    }

    fn turned(&mut self, reactor: &mut Reactor<Peer>) {
        // With every connection gone, nothing more will happen.
        let alone = reactor.is_empty();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_due_at_their_rate() {
        let second = Duration::from_secs(1);
        assert_eq!(due_after(None, 1_000_000), Duration::ZERO);
        assert_eq!(due_after(Some(500.0), 0), Duration::ZERO);
        assert_eq!(due_after(Some(500.0), 500), second);
        // Never more of them at once than one, whatever the rate.
        let due: Vec<_> = (0..1_000).map(|number| due_after(Some(1_000.0), number)).collect();
        assert!(due.is_sorted_by(|one, next| one < next));
        assert_eq!(due.iter().filter(|due| **due < second).count(), 1_000);
        assert_eq!(due_after(Some(0.2), 1), 5 * second);
        assert_eq!(due_after(Some(1e-300), u64::MAX), Duration::MAX);
    }
}
