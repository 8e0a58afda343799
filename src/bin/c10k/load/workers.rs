//! A load by several processes: each does its share with a loop of its own. This one forks them,
//! has them start together, and adds up what they have seen.
//!
//! ```text
//!                 ◄── connected, a result ──  worker 0: connections 0..18,000
//!   parent        ── go ──►                   worker 1: connections 18,000..36,000
//!                 ◄── counts so far ────────  ...           (shared memory)
//! ```

use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use c10k::poller::{Interest, Readiness, Token};
use c10k::sys::{self, SharedMemory};
use c10k::{Handler, Reactor};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::engine::Load;
use super::measured::{Measured, Second, Seconds};
use super::plan::Plan;
use super::progress::{self, Progress, Stage, Watcher};
use super::report::Failures;
use super::schedule::Schedule;
use crate::{Failure, interrupt};

/// How much longer than the load itself a worker may take to say what came of it: a machine that is
/// full may have it wait.
const GRACE: Duration = Duration::from_secs(5);

/// What a worker tells its parent, as JSON, a line each.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// All its connections are there that will be. It waits for a line before it sends anything.
    Connected,
    /// A second of the measured time was settled.
    Second(Second),
    Done(Box<Measured>),
    Failed(String),
}

/// The processes of a load, which end when this is dropped.
pub(super) struct Workers<'a> {
    crew: Crew<'a>,
    /// Those that have something to do or to say.
    reactor: Reactor<Worker>,
}

impl<'a> Workers<'a> {
    /// Forks them and has them connect. The calling process must have no other thread, and no
    /// loop.
    pub(super) fn connect(
        plan: &'a Plan,
        watcher: &mut Watcher<'_>,
    ) -> Result<Workers<'a>, Failure> {
        let tallies = SharedMemory::new(plan.processes() as usize * Tally::LEN)?;
        let workers = start_all(plan, &tallies)?;
        let mut crew = Crew {
            plan,
            tallies,
            connecting: workers.len(),
            busy: workers.len(),
            finished: Vec::new(),
            measured: Measured::default(),
            seconds: Seconds::new(workers.len()),
            told: Instant::now(),
            interrupted: false,
        };
        let mut reactor = Reactor::new()?;
        for worker in workers {
            let most = plan.connecting_max(worker.number);
            let token = reactor.add(worker, Interest::READ)?;
            set_limit(&mut reactor, token, most);
        }
        while crew.connecting > 0 {
            crew.turn(&mut reactor, Stage::Connecting, watcher)?;
        }
        if crew.busy > 0 && interrupt::came().is_none() {
            watcher(crew.progress(Stage::Connected))?;
        }
        Ok(Workers { crew, reactor })
    }

    /// Has them all send and measure: what the plan says, or at a rate of their own.
    pub(super) fn exchange(
        &mut self,
        rate: Option<u64>,
        watcher: &mut Watcher<'_>,
    ) -> Result<Measured, Failure> {
        let Workers { crew, reactor } = self;
        // Whoever has measured before measures again; but not those that failed to connect, whose
        // word was that.
        if crew.busy == 0 && rate.is_some() {
            for worker in mem::take(&mut crew.finished) {
                reactor.add(worker, Interest::READ)?;
                crew.busy += 1;
            }
        }
        if crew.busy > 0 {
            crew.seconds = Seconds::new(crew.plan.processes() as usize);
            crew.go(reactor, rate);
            while crew.busy > 0 {
                crew.turn(reactor, Stage::Exchanging, watcher)?;
            }
            watcher(crew.progress(Stage::Exchanging))?;
        }
        Ok(mem::take(&mut crew.measured))
    }
}

impl Drop for Workers<'_> {
    fn drop(&mut self) {
        // All at once, before the first is waited for: to close many connections takes them a
        // while.
        for worker in &self.crew.finished {
            worker.process.kill();
        }
    }
}

fn start_all(plan: &Plan, tallies: &SharedMemory<AtomicU64>) -> Result<Vec<Worker>, Failure> {
    let parent = process::id();
    let (mut processes, mut pipes) = (Vec::new(), Vec::new());
    for number in 0..plan.processes() {
        let (results, to_parent) = io::pipe()?;
        let (from_parent, go) = io::pipe()?;
        pipes.push((results, go));
        let pid = sys::fork(|| {
            // The parent's ends of all pipes so far: where they stay open, no pipe ever ends.
            pipes.clear();
            let worked =
                sys::end_with_parent(parent, libc::SIGKILL).map_err(Failure::from).and_then(|()| {
                    work(plan, number, Tally::of(tallies, number), from_parent, to_parent)
                });
            i32::from(worked.is_err())
        });
        let pid = pid.map_err(|error| {
            let limit = match error.raw_os_error() {
                Some(libc::EAGAIN) => format!("; the limit is {}", sys::task_limit()),
                _ => String::new(),
            };
            Failure::Cannot(format!("cannot start worker {number}: {error}{limit}"))
        })?;
        processes.push(Process(Pid::from_raw(pid as i32)));
    }
    let workers = processes.into_iter().zip(pipes).zip(0..);
    Ok(workers
        .map(|((process, (results, go)), number)| Worker {
            number,
            process,
            results,
            go,
            unread: Vec::new(),
            connected: false,
        })
        .collect())
}

/// The life of a worker.
fn work(
    plan: &Plan,
    number: u64,
    tally: Tally<'_>,
    from_parent: PipeReader,
    mut to_parent: PipeWriter,
) -> Result<(), Failure> {
    let mut from_parent = BufReader::new(from_parent);
    // To write a second may take longer than the loop may take to send what is due, so a thread does.
    let (said, all) = channel::<Said>();
    let teller = thread::Builder::new().spawn(move || {
        all.iter().try_for_each(|what| {
            let line = serde_json::to_string(&what)? + "\n";
            to_parent.write_all(line.as_bytes())
        })
    })?;
    // If nobody listens, that is the result of the thread.
    let mut say = |what| drop(said.send(what));
    match exchanges(plan, number, &tally, &mut from_parent, &mut say) {
        Err(Failure::Cannot(why) | Failure::Found(why)) => say(Said::Failed(why)),
        // Its parent has the signal too, and asks for no more.
        Ok(()) | Err(Failure::Interrupted(_)) => {}
    }
    drop(said);
    Ok(teller.join().expect("it does not panic")?)
}

/// Connects, and then sends and measures whenever the parent says so. The connections stay until
/// everybody has measured: the parent ends it then.
fn exchanges(
    plan: &Plan,
    number: u64,
    tally: &Tally<'_>,
    from_parent: &mut impl BufRead,
    say: &mut impl FnMut(Said),
) -> Result<(), Failure> {
    let mut line = String::new();
    let mut load = Load::connect(plan, plan.share(number), &mut |progress| {
        tally.store(&progress);
        if progress.stage == Stage::Connected {
            say(Said::Connected);
            from_parent.read_line(&mut line)?;
        }
        Ok(())
    })?;
    loop {
        let rate = line.trim().parse().ok();
        let own = rate.map(|rate| Schedule::steady(rate, plan.duration));
        let schedule = own.as_ref().or(plan.schedule.as_ref());
        let measured = load.exchange(schedule, &mut |mut progress| {
            tally.store(&progress);
            mem::take(&mut progress.seconds).into_iter().map(Said::Second).for_each(&mut *say);
            Ok(())
        })?;
        say(Said::Done(Box::new(measured)));
        line.clear();
        if from_parent.read_line(&mut line)? == 0 {
            return Ok(());
        }
        load.renew()?;
    }
}

/// A worker's counts, which its parent sees.
struct Tally<'a>(&'a [AtomicU64]);

impl Tally<'_> {
    /// In counts: a cache line, so that workers do not get in each other's way.
    const LEN: usize = 8;

    fn of(all: &[AtomicU64], number: u64) -> Tally<'_> {
        Tally(&all[number as usize * Tally::LEN..][..Tally::LEN])
    }

    fn store(&self, progress: &Progress) {
        let &Progress { connected, not_connected, answered, replies, failures, .. } = progress;
        let values = [connected, not_connected, answered, replies, failures];
        for (count, value) in self.0.iter().zip(values) {
            count.store(value, Relaxed);
        }
    }

    fn load(&self, stage: Stage) -> Progress {
        let count = |at: usize| self.0[at].load(Relaxed);
        Progress {
            stage,
            connected: count(0),
            not_connected: count(1),
            answered: count(2),
            replies: count(3),
            failures: count(4),
            latency: None,
            seconds: Vec::new(),
        }
    }
}

/// A child of this process, which is killed when dropped.
struct Process(Pid);

impl Process {
    fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        // Nobody has waited for it, so its pid is still its own.
        let _ = kill(self.0, signal);
    }

    /// Waits for its end, and says how it came.
    fn wait(self) -> String {
        let pid = self.0;
        // Its pid may be another process's from then on.
        mem::forget(self);
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => format!("exit status {code}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("killed by {signal}"),
            other => format!("{other:?}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = waitpid(self.0, None);
    }
}

/// A worker as its parent sees it.
struct Worker {
    number: u64,
    process: Process,
    results: PipeReader,
    go: PipeWriter,
    /// The start of a line.
    unread: Vec<u8>,
    /// It has said so.
    connected: bool,
}

impl AsFd for Worker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.results.as_fd()
    }
}

impl Worker {
    /// What it has to say, as far as it has said it.
    ///
    /// # Errors
    /// It has ended.
    fn hear(&mut self) -> io::Result<Vec<Said>> {
        let mut bytes = [0; 64 * 1024];
        let n = self.results.read(&mut bytes)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend_from_slice(&bytes[..n]);
        let is_end = |&byte: &u8| byte == b'\n';
        let Some(end) = self.unread.iter().rposition(is_end) else { return Ok(Vec::new()) };
        let rest = self.unread.split_off(end + 1);
        let lines = mem::replace(&mut self.unread, rest);
        let said = serde_json::Deserializer::from_slice(&lines).into_iter();
        Ok(said.collect::<Result<_, _>>()?)
    }
}

/// The workers and what has come of them. Those that are not finished are in the reactor.
struct Crew<'a> {
    plan: &'a Plan,
    tallies: SharedMemory<AtomicU64>,
    /// Workers that are not connected yet.
    connecting: usize,
    /// Workers that have no result yet.
    busy: usize,
    /// They keep their connections open until dropped.
    finished: Vec<Worker>,
    measured: Measured,
    seconds: Seconds,
    /// When the watcher was last told.
    told: Instant,
    /// They were told to end early.
    interrupted: bool,
}

impl Crew<'_> {
    fn turn(
        &mut self,
        reactor: &mut Reactor<Worker>,
        stage: Stage,
        watcher: &mut Watcher<'_>,
    ) -> Result<(), Failure> {
        reactor.turn(self, Some(progress::EVERY))?;
        if self.told.elapsed() < progress::EVERY {
            return Ok(());
        }
        self.told = Instant::now();
        if !self.interrupted && interrupt::came().is_some() {
            self.interrupted = true;
            self.end_early(reactor);
        }
        watcher(self.progress(stage))
    }

    /// Has them all end early, as a SIGINT of the terminal may have already. One that is stuck
    /// is not waited for.
    fn end_early(&mut self, reactor: &mut Reactor<Worker>) {
        for token in reactor.tokens().collect::<Vec<_>>() {
            reactor.source_mut(token).expect("just listed").process.signal(Signal::SIGTERM);
            set_limit(reactor, token, Duration::ZERO);
        }
    }

    /// The counts of all workers together, and the seconds that all have settled.
    fn progress(&mut self, stage: Stage) -> Progress {
        let workers = 0..self.plan.processes();
        let each = workers.map(|number| Tally::of(&self.tallies, number).load(stage));
        let none = Progress {
            stage,
            connected: 0,
            not_connected: 0,
            answered: 0,
            replies: 0,
            failures: self.measured.failures.dead_workers,
            latency: None,
            seconds: Vec::new(),
        };
        let seconds = self.seconds.take();
        let all = each.fold(none, |sum, one| Progress {
            stage,
            connected: sum.connected + one.connected,
            not_connected: sum.not_connected + one.not_connected,
            answered: sum.answered + one.answered,
            replies: sum.replies + one.replies,
            failures: sum.failures + one.failures,
            ..sum
        });
        Progress { seconds, ..all }
    }

    fn go(&mut self, reactor: &mut Reactor<Worker>, rate: Option<u64>) {
        let line = rate.map_or("go\n".to_owned(), |rate| format!("{rate}\n"));
        for token in reactor.tokens().collect::<Vec<_>>() {
            let worker = reactor.source_mut(token).expect("just listed");
            // One that is dead is found to be so in the next turn.
            let _ = worker.go.write_all(line.as_bytes());
            set_limit(reactor, token, self.plan.exchanging_max());
        }
    }

    /// It has no more to say.
    fn finish(&mut self, worker: &mut Worker, measured: Measured) {
        self.connecting -= usize::from(!mem::replace(&mut worker.connected, true));
        self.busy -= 1;
        self.seconds.end(worker.number);
        self.measured.add(measured);
    }

    /// A worker died. What it had measured is gone with it; its counts are still there.
    fn bury(&mut self, mut worker: Worker, why: Option<String>) {
        let share = self.plan.share(worker.number);
        let counts = Tally::of(&self.tallies, worker.number).load(Stage::Exchanging);
        let all = share.connections.end - share.connections.start;
        let active = share.active.min(counts.connected);
        let (not_connected, lost) = match (worker.connected, self.plan.requests_each) {
            (false, _) => (all - counts.connected, 0),
            (true, Some(each)) => {
                (counts.not_connected, (active * u64::from(each)).saturating_sub(counts.replies))
            }
            // So many are under way at any time; of an open loop nobody knows.
            (true, None) => (counts.not_connected, active * self.plan.pipeline.unwrap_or(0)),
        };
        let measured = Measured {
            connected: counts.connected,
            active,
            answered: counts.answered,
            requests_total: counts.replies,
            ..Measured::default()
        };
        self.finish(&mut worker, measured);
        let (number, why) = (worker.number, why.unwrap_or_else(|| worker.process.wait()));
        self.measured.failures.add(Failures {
            not_connected,
            lost,
            dead_workers: 1,
            errors: [(format!("worker {number}: {why}"), 1)].into(),
            ..Failures::default()
        });
    }
}

impl Handler<Worker> for Crew<'_> {
    fn ready(&mut self, reactor: &mut Reactor<Worker>, token: Token, _: Readiness) {
        let worker = reactor.source_mut(token).expect("alive, or it would not be ready");
        let number = worker.number;
        let Ok(all) = worker.hear() else {
            let worker = reactor.remove(token).expect("just looked at");
            return self.bury(worker, None);
        };
        for said in all {
            match said {
                Said::Connected => {
                    reactor.source_mut(token).expect("just looked at").connected = true;
                    self.connecting -= 1;
                    // It has nothing to say until it is told to go.
                    reactor.clear_deadline(token);
                }
                Said::Second(second) => self.seconds.add(number, second),
                Said::Done(measured) => {
                    let mut worker = reactor.remove(token).expect("just looked at");
                    if measured.unasked > 0 {
                        self.end_early(reactor);
                    }
                    self.finish(&mut worker, *measured);
                    self.finished.push(worker);
                }
                Said::Failed(why) => {
                    let worker = reactor.remove(token).expect("just looked at");
                    self.bury(worker, Some(why));
                }
            }
        }
    }

    /// A worker was stopped, or is stuck: it is killed, as a stopped one still can be.
    fn deadline(&mut self, reactor: &mut Reactor<Worker>, token: Token) {
        let worker = reactor.remove(token).expect("it had a deadline");
        let late = GRACE.as_secs();
        let why = format!("killed, since it had not ended {late} s after the last it could take");
        self.bury(worker, Some(why));
    }
}

/// Has a worker killed that has said nothing when it has taken as long as it can, and some more.
fn set_limit(reactor: &mut Reactor<Worker>, token: Token, most: Duration) {
    if let Some(at) = Instant::now().checked_add(most.saturating_add(GRACE)) {
        reactor.set_deadline(token, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_are_apart() {
        let all = SharedMemory::new(2 * Tally::LEN).unwrap();
        let stage = Stage::Exchanging;
        let counts = |n| Progress {
            stage,
            connected: n,
            not_connected: 2 * n,
            answered: 3 * n,
            replies: 4 * n,
            failures: 5 * n,
            latency: None,
            seconds: Vec::new(),
        };
        Tally::of(&all, 0).store(&counts(1));
        Tally::of(&all, 1).store(&counts(10));
        assert_eq!(Tally::of(&all, 0).load(stage), counts(1));
        assert_eq!(Tally::of(&all, 1).load(stage), counts(10));
    }
}
