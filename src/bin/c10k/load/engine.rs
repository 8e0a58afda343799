//! The load generator's loop: the same reactor and the same connections as the server's.

use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use c10k::connection::{Connection, Step, Traffic, Workspace};
use c10k::poller::{Interest, Readiness, Token};
use c10k::sys::ConnectOptions;
use c10k::{Addr, Handler, Reactor, Session, TimerId};
use nix::time::ClockId;
use nix::unistd::Pid;

use super::Args;
use super::checker::{Checker, Phase, Run};
use super::payload::Payload;
use super::report::{Failures, Latency, Report};
use crate::Failure;
use crate::protocol::AnyFraming;

/// Handshakes under way at once: more than one, so that they overlap, and fewer than fit the
/// server's accept queue, which would drop the rest and cost a second for each.
const CONNECTING_MAX: u64 = 256;

const INTEREST: Interest = Interest::READ.union(Interest::WRITE).union(Interest::EDGE);

type Peer = Connection<AnyFraming, Checker>;

struct Engine<'a> {
    args: &'a Args,
    addr: Addr,
    framing: AnyFraming,
    run: Rc<Run>,
    work: Workspace,
    traffic: Traffic,
    /// Connections begun so far, and those of them that are not established yet.
    begun: u64,
    connecting: u64,
    peers: Vec<Token>,
    failures: Failures,
    /// Ends the phase under way.
    timer: Option<TimerId>,
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
    /// `None` if no server was named, or it is not there.
    server_cpu: Option<Duration>,
}

pub(super) fn run(args: &Args) -> Result<Report, Failure> {
    let addr = Addr::resolve(&args.addr)?.swap_remove(0);
    let kind = args.protocol.usual_framing();
    let payload = Payload::new(args.protocol, args.size as usize, args.delimiter, &args.prefix);
    let mut engine = Engine {
        args,
        addr,
        framing: AnyFraming::new(kind, args.delimiter, u32::MAX),
        run: Rc::new(Run::new(payload)),
        work: Workspace::new(),
        traffic: Traffic::default(),
        begun: 0,
        connecting: 0,
        peers: Vec::new(),
        failures: Failures::default(),
        timer: None,
        began: Instant::now(),
        connected_after: Duration::ZERO,
        window: Window::default(),
    };
    let mut reactor = Reactor::new()?;
    engine.connect_more(&mut reactor)?;
    while engine.connecting > 0 {
        reactor.turn(&mut engine, None)?;
        engine.connect_more(&mut reactor)?;
    }
    engine.connected_after = engine.began.elapsed();
    if engine.peers.is_empty() {
        let why = engine.failures.errors.keys().next().cloned().unwrap_or_default();
        return Err(Failure::Cannot(format!("cannot connect to {}: {why}", engine.addr)));
    }
    if args.wait {
        wait_for_go(engine.peers.len())?;
    }
    engine.start(&mut reactor);
    reactor.run(&mut engine)?;
    Ok(engine.report(&mut reactor))
}

/// Says that the connections are there, and waits for somebody to have looked at them.
fn wait_for_go(connected: usize) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "connected {connected}")?;
    stdout.flush()?;
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

impl Engine<'_> {
    /// Begins connections, up to as many as may be under way.
    fn connect_more(&mut self, reactor: &mut Reactor<Peer>) -> Result<(), Failure> {
        while self.begun < self.args.connections && self.connecting < CONNECTING_MAX {
            let number = self.begun as u32;
            self.begun += 1;
            // What may be unsent is what was asked for. Were it less, neither side might read.
            let session = Session::new(self.framing, Checker::new(self.run.clone(), number))
                .pending_max(u32::MAX);
            let options = ConnectOptions::default();
            let begun = reactor.connect(&self.addr, &options, self.args.timeout, INTEREST, |fd| {
                Connection::new(fd, session, INTEREST, 0)
            });
            match begun {
                Ok(_) => self.connecting += 1,
                Err(c10k::Error::Connect { source, .. }) => {
                    self.failures.not_connected += 1;
                    self.failures.error(&source);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The connections that are to send: spread evenly over all.
    fn active(&self) -> Vec<Token> {
        let all = self.peers.len();
        let active = self.args.active.map_or(all, |active| all.min(active as usize));
        (0..active).map(|at| self.peers[at * all / active]).collect()
    }

    fn start(&mut self, reactor: &mut Reactor<Peer>) {
        self.run.phase.set(Phase::WarmUp);
        self.timer = Some(reactor.set_timer(Instant::now() + self.args.warmup));
        for token in self.active() {
            // It may have been closed while we waited.
            let Some(peer) = reactor.source_mut(token) else { continue };
            self.run.read_clock();
            for _ in 0..self.args.pipeline {
                peer.session_mut().push(Checker::request);
            }
            self.drive(reactor, token, Readiness::NONE);
        }
    }

    fn drive(&mut self, reactor: &mut Reactor<Peer>, token: Token, readiness: Readiness) {
        let Some(peer) = reactor.source_mut(token) else { return };
        match peer.drive(readiness, 0, &mut self.work, &self.traffic) {
            Ok(Step::Wait) => {}
            Ok(Step::Again | Step::Linger) => reactor.again(token),
            Ok(Step::Close) => {
                self.failures.closed_by_server += 1;
                self.lose(reactor, token);
            }
            Err(error) => {
                self.failures.broken += 1;
                self.failures.error(&error);
                self.lose(reactor, token);
            }
        }
    }

    /// A connection is over: what it had under way will never be answered.
    fn lose(&mut self, reactor: &mut Reactor<Peer>, token: Token) {
        let Some(peer) = reactor.source(token) else { return };
        let lost = peer.session().service().outstanding() as u64;
        self.failures.lost += lost;
        self.run.replied.set(self.run.replied.get() + lost);
        reactor.close(token);
    }

    /// Ends the phase under way and begins the next.
    fn next_phase(&mut self, reactor: &mut Reactor<Peer>) {
        let now = Instant::now();
        match self.run.phase.get() {
            Phase::WarmUp => {
                self.run.phase.set(Phase::Measuring);
                self.timer = Some(reactor.set_timer(now + self.args.duration));
                self.window = Window { start: Some(now), ..self.clocks() };
            }
            Phase::Measuring => {
                let clocks = self.clocks();
                self.window.wall = now - self.window.start.expect("measuring");
                self.window.load_cpu = clocks.load_cpu - self.window.load_cpu;
                self.window.server_cpu = (clocks.server_cpu.zip(self.window.server_cpu))
                    .map(|(after, before)| after.saturating_sub(before));
                self.run.phase.set(Phase::Draining);
                self.timer = Some(reactor.set_timer(now + self.args.timeout));
            }
            Phase::Connecting | Phase::Draining => reactor.stop(),
        }
    }

    fn clocks(&self) -> Window {
        let server_cpu = self.args.server_pid.and_then(|pid| cpu_time(Some(pid)));
        Window { load_cpu: cpu_time(None).unwrap_or_default(), server_cpu, ..Window::default() }
    }

    fn report(mut self, reactor: &mut Reactor<Peer>) -> Report {
        for token in reactor.tokens().collect::<Vec<_>>() {
            // Whoever has not answered by now never will.
            self.lose(reactor, token);
        }
        let requests = self.run.measured.get();
        let wall = self.window.wall.as_secs_f64();
        let per_request = |time: Duration| time.as_secs_f64() * 1e6 / requests.max(1) as f64;
        Report {
            connections: self.args.connections,
            connected: self.peers.len() as u64,
            active: self.active().len() as u64,
            pipeline: self.args.pipeline,
            message_bytes: self.args.size,
            connect_s: self.connected_after.as_secs_f64(),
            measured_s: wall,
            requests,
            requests_total: self.run.replied.get() - self.failures.lost,
            requests_per_s: if wall > 0.0 { requests as f64 / wall } else { 0.0 },
            latency_us: Latency::of(&self.run.latency.borrow()),
            load_cpu_us_per_request: per_request(self.window.load_cpu),
            server_cpu_us_per_request: self.window.server_cpu.map(per_request),
            failures: Failures {
                mismatched: self.run.mismatched.get(),
                first_mismatch: self.run.first_mismatch.take(),
                ..self.failures
            },
        }
    }
}

/// The CPU time that a process (this one, if none is named) has used, all threads together.
fn cpu_time(pid: Option<u32>) -> Option<Duration> {
    let pid = Pid::from_raw(pid.unwrap_or(0) as i32);
    let clock = ClockId::pid_cpu_clock_id(pid).ok()?;
    Some(Duration::from(clock.now().ok()?))
}

impl Handler<Peer> for Engine<'_> {
    fn connected(&mut self, reactor: &mut Reactor<Peer>, token: Token, result: io::Result<()>) {
        self.connecting -= 1;
        match result {
            Ok(()) => self.peers.push(token),
            Err(error) => {
                self.failures.not_connected += 1;
                self.failures.error(&error);
                reactor.close(token);
            }
        }
    }

    #[inline]
    fn ready(&mut self, reactor: &mut Reactor<Peer>, token: Token, readiness: Readiness) {
        self.run.read_clock();
        self.drive(reactor, token, readiness);
    }

    fn timer(&mut self, reactor: &mut Reactor<Peer>, timer: TimerId) {
        if self.timer == Some(timer) {
            self.next_phase(reactor);
        }
    }

    fn turned(&mut self, reactor: &mut Reactor<Peer>) {
        match self.run.phase.get() {
            Phase::Connecting => {}
            Phase::Measuring
                if self.args.requests.is_some_and(|n| self.run.measured.get() >= n) =>
            {
                self.next_phase(reactor);
            }
            Phase::Draining if self.run.outstanding() == 0 => reactor.stop(),
            // Every connection is gone: nothing more will happen.
            _ if reactor.is_empty() => {
                if self.run.phase.get() == Phase::Measuring {
                    self.next_phase(reactor);
                }
                reactor.stop();
            }
            _ => {}
        }
    }
}
