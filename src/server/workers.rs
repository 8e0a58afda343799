//! Several processes that serve, and the one that watches over them.
//!
//! ```text
//!   parent: listeners, signals, counters          no loop, no thread: it can fork at any time
//!     ├─ worker 0: epoll ──┐
//!     ├─ worker 1: epoll ──┼── the same listeners (EPOLLEXCLUSIVE), or one each (SO_REUSEPORT)
//!     └─ worker 2: epoll ──┘
//! ```
//!
//! The parent keeps every listener open. So a worker that dies takes nothing with it but its own
//! connections: who waits in the accept queue waits for the others, or for its successor.

use std::collections::HashSet;
use std::io;
use std::mem;
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::datagrams::Bound;
use super::{Config, Listener, Protocol, Setup, Shared, Sources};
use crate::framing::Framing;
use crate::models::{self, Ready};
use crate::poller::{Interest, Poll, Poller, Token};
use crate::service::Service;
use crate::{Error, Signals, sys};

/// A worker that lived for less than this has failed, as has one that never came to serve.
const LIFE_MIN: Duration = Duration::from_secs(1);

/// How long to wait before a worker is started again that has failed; each time twice as long.
const BACK_OFF: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// If one has failed as often as this in a row, and no other serves, that will not change.
const FAILURES_MAX: u32 = 5;

/// How much longer than their time to drain the workers have to end.
const GRACE: Duration = Duration::from_secs(2);

/// Descriptors that a worker needs besides connections and listeners: the standard three, epoll,
/// eventfd, timerfd, signalfd, the reserve, and some for whatever the service may open.
const FDS_BESIDES: u64 = 32;

/// What the parent knows of a worker.
#[derive(Debug)]
enum Worker {
    Alive {
        pid: Pid,
        since: Instant,
        /// How many before it have failed in a row.
        failures: u32,
    },
    /// To be started at this time.
    Due {
        at: Instant,
        failures: u32,
    },
    Ended,
}

struct Supervisor<F, M> {
    listeners: Vec<Listener>,
    datagrams: Vec<Bound>,
    /// Taken in a child only.
    signals: Option<Signals>,
    shared: Arc<Shared>,
    protocol: Arc<Protocol<F, M>>,
    config: Config,
    workers: Vec<Worker>,
    /// Those that were started before.
    started: HashSet<usize>,
    /// A signal has told it to stop.
    told: bool,
    /// When those that are left will be killed, once it is stopping.
    kill_at: Option<Instant>,
    /// Why it is stopping, unless it was told to.
    failed: Option<Error>,
}

/// Makes all that the parent needs to start the workers, and to keep them alive until stopped.
///
/// What a worker will need is made once and given back: what the kernel refuses here it would
/// refuse to each of them, when clients may be connected already.
pub(super) fn prepare<F, S, M>(setup: Setup<F, M>) -> Result<Ready, Error>
where
    F: Framing + Send + Sync + 'static,
    S: Service + Send + 'static,
    M: Fn() -> S + Send + Sync + 'static,
{
    let Setup { sources, shared, protocol, config } = setup;
    let Sources { listeners, datagrams, signals } = sources;
    let nothing = Sources { listeners: Vec::new(), datagrams: Vec::new(), signals: None };
    drop(models::prepare(Setup {
        sources: nothing,
        shared: Arc::new(shared.of_worker(0)),
        protocol: Arc::clone(&protocol),
        config: config.clone(),
    })?);
    let workers = (0..config.workers).map(|_| Worker::Due { at: Instant::now(), failures: 0 });
    let mut supervisor = Supervisor {
        listeners,
        datagrams,
        signals,
        shared,
        protocol,
        workers: workers.collect(),
        config,
        started: HashSet::new(),
        told: false,
        kill_at: None,
        failed: None,
    };
    Ok(Box::new(move || {
        supervisor.supervise().map_err(Error::system("watch over the workers"))?;
        supervisor.failed.map_or(Ok(()), Err)
    }))
}

impl<F, S, M> Supervisor<F, M>
where
    F: Framing + Send + Sync + 'static,
    S: Service + Send + 'static,
    M: Fn() -> S + Send + Sync + 'static,
{
    fn supervise(&mut self) -> io::Result<()> {
        // Not epoll, which a child would inherit.
        let mut poller = Poll::new()?;
        let mut events = Vec::new();
        let signals = self.signals.as_ref().expect("SIGCHLD at least");
        poller.add(signals, Token(0), Interest::READ)?;
        if self.shared.is_stopping() {
            self.stop();
        }
        loop {
            self.start_due();
            if self.workers.iter().all(|worker| matches!(worker, Worker::Ended)) {
                return Ok(());
            }
            poller.wait(&mut events, self.until_next())?;
            self.read_signals()?;
            self.reap();
            if self.kill_at.is_some_and(|at| at <= Instant::now()) {
                log::warn!("workers that did not end in time are killed");
                self.signal_all(Signal::SIGKILL);
                self.kill_at = None;
            }
        }
    }

    fn read_signals(&mut self) -> io::Result<()> {
        while let Some(signals) = &self.signals
            && let Some(signal) = signals.read()?
        {
            if signal == libc::SIGCHLD {
                continue;
            }
            if mem::replace(&mut self.told, true) {
                self.end_at_once(Signal::try_from(signal)?);
            } else {
                log::info!("received signal {signal}; a second one ends at once");
                self.stop();
            }
        }
        Ok(())
    }

    /// Told a second time. The workers are killed first: one that is stopped, or busy in its
    /// service, would not hear of its parent's end, and go on listening.
    fn end_at_once(&self, signal: Signal) {
        self.signal_all(Signal::SIGKILL);
        self.signals.iter().for_each(Signals::unblock);
        // As whoever started this process expects it to end. Fails for an invalid argument only.
        let result = raise(signal);
        debug_assert!(result.is_ok());
    }

    /// How long there is nothing to do but to wait for a signal.
    fn until_next(&self) -> Option<Duration> {
        let due = self.workers.iter().filter_map(|worker| match worker {
            Worker::Due { at, .. } => Some(*at),
            _ => None,
        });
        let next = due.chain(self.kill_at).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    // ---- Starting ----

    fn start_due(&mut self) {
        let now = Instant::now();
        for number in 0..self.workers.len() {
            if let Worker::Due { at, failures } = self.workers[number]
                && at <= now
            {
                self.start(number, failures);
            }
        }
    }

    fn start(&mut self, number: usize, failures: u32) {
        let parent = process::id();
        match sys::fork(|| self.work(number, parent)) {
            Ok(pid) => {
                log::debug!("worker {number} is process {pid}");
                let pid = Pid::from_raw(pid as i32);
                self.workers[number] = Worker::Alive { pid, since: Instant::now(), failures };
                if !self.started.insert(number) {
                    self.shared.counters.restarts.add(1);
                }
            }
            Err(error) => {
                let limit = match error.raw_os_error() {
                    Some(libc::EAGAIN) => format!(": the limit is {}", sys::task_limit()),
                    _ => String::new(),
                };
                self.try_again(number, failures + 1, format!("cannot fork: {error}{limit}"));
            }
        }
    }

    /// A worker has failed. As long as another serves, it is worth trying: what is lacking may come
    /// back.
    fn try_again(&mut self, number: usize, failures: u32, why: String) {
        if failures >= FAILURES_MAX && !self.is_any_serving() {
            log::error!("worker {number} has failed {failures} times in a row: {why}");
            self.workers[number] = Worker::Ended;
            self.failed.get_or_insert(Error::Workers { last: why });
            self.stop();
            return;
        }
        let back_off = BACK_OFF.saturating_mul(1 << (failures - 1).min(16)).min(BACK_OFF_MAX);
        log::warn!("worker {number}: {why}; the next one starts in {back_off:?}");
        self.workers[number] = Worker::Due { at: Instant::now() + back_off, failures };
    }

    fn is_any_serving(&self) -> bool {
        let is_serving = |(number, worker): (usize, &Worker)| {
            matches!(worker, Worker::Alive { .. }) && self.shared.counters.is_serving(number)
        };
        self.workers.iter().enumerate().any(is_serving)
    }

    /// The life of a worker, from just after the fork. Returns its exit status.
    fn work(&mut self, number: usize, parent: u32) -> i32 {
        match self.serve(number, parent) {
            Ok(()) => 0,
            Err(error) => {
                log::error!("worker {number}: {error}");
                1
            }
        }
    }

    fn serve(&mut self, number: usize, parent: u32) -> Result<(), Error> {
        // A terminal sends these to all; the parent passes them on as SIGTERM.
        [Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(sys::ignore);
        sys::end_with_parent(parent, libc::SIGTERM)
            .map_err(Error::system("end with the parent (prctl)"))?;
        let parents = self.signals.take().expect("the first to take it");
        let signals = parents.in_child(&[Signal::SIGTERM]);
        let signals = Some(signals.map_err(Error::system("receive signals (signalfd4)"))?);
        let mut listeners = mem::take(&mut self.listeners);
        listeners.retain_mut(|listener| listener.is_of_worker(number));
        let mut datagrams = mem::take(&mut self.datagrams);
        datagrams.retain(|socket| socket.is_of_worker(number));
        // At the limit on descriptors too it leaves newcomers to the others, and refuses none.
        let fds = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(fds, _)| fds);
        let sockets = (listeners.len() + datagrams.len()) as u64;
        let room = fds.saturating_sub(FDS_BESIDES + sockets).max(1);
        let connections_max = self.config.connections_max.min(room);
        let run = models::prepare(Setup {
            sources: Sources { listeners, datagrams, signals },
            shared: Arc::new(self.shared.of_worker(number)),
            protocol: Arc::clone(&self.protocol),
            config: Config { connections_max, ..self.config.clone() },
        })?;
        run()
    }

    // ---- Ending ----

    /// Waits for every child that has ended. There may be others than the workers: the first
    /// process of a pid namespace inherits every orphan (`pid_namespaces(7)`).
    fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => return,
                Ok(status) => {
                    let is_it = |worker: &Worker| match worker {
                        Worker::Alive { pid, .. } => status.pid() == Some(*pid),
                        _ => false,
                    };
                    if let Some(number) = self.workers.iter().position(is_it) {
                        self.ended(number, &describe(status));
                    }
                }
                Err(Errno::EINTR) => {}
                // There is no child left. Somebody else has waited for those that should be here.
                Err(errno) => {
                    (0..self.workers.len()).for_each(|number| self.ended(number, errno.desc()));
                    return;
                }
            }
        }
    }

    /// Takes note of the end of a worker, if it was alive.
    fn ended(&mut self, number: usize, how: &str) {
        let Worker::Alive { pid, since, failures } = self.workers[number] else { return };
        if self.is_stopping() {
            self.bury(number, Worker::Ended);
        } else if !self.shared.counters.is_serving(number) || since.elapsed() < LIFE_MIN {
            self.bury(number, Worker::Ended);
            self.try_again(number, failures + 1, how.to_owned());
        } else {
            self.bury(number, Worker::Due { at: Instant::now(), failures: 0 });
            log::warn!("worker {number}, process {pid}: {how}; starting another");
        }
    }

    fn bury(&mut self, number: usize, next: Worker) {
        let stats = self.shared.counters.stats_of_worker(number);
        log::info!(
            "worker {number} has served {} requests on {} connections",
            stats.requests,
            stats.accepted
        );
        let lost = self.shared.counters.bury(number);
        if lost > 0 {
            log::warn!("worker {number}: {lost} connections are lost");
        }
        self.workers[number] = next;
    }

    fn is_stopping(&self) -> bool {
        self.shared.is_stopping()
    }

    /// Starts no more, closes the listeners, and has each worker finish.
    fn stop(&mut self) {
        self.shared.stop();
        self.listeners.clear();
        self.datagrams.clear();
        self.kill_at = Some(Instant::now() + self.config.drain + GRACE);
        for worker in &mut self.workers {
            if let Worker::Due { .. } = worker {
                *worker = Worker::Ended;
            }
        }
        self.signal_all(Signal::SIGTERM);
    }

    fn signal_all(&self, signal: Signal) {
        for worker in &self.workers {
            if let Worker::Alive { pid, .. } = worker {
                // Not waited for yet, so the pid is still its own.
                let _ = kill(*pid, signal);
            }
        }
    }
}

/// How a process ended, in words.
fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit status {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
        other => format!("{other:?}"),
    }
}
