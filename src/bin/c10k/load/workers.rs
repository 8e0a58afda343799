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
use std::time::Instant;

use c10k::poller::{Interest, Readiness, Token};
use c10k::sys::{self, SharedMemory};
use c10k::{Handler, Reactor};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::engine::Load;
use super::measured::Measured;
use super::plan::Plan;
use super::progress::{self, Progress, Stage, Watcher};
use super::report::Failures;
use crate::Failure;

/// What a worker tells its parent, as JSON, a line each.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// All its connections are there that will be. It waits for a line before it sends anything.
    Connected,
    Done(Box<Measured>),
    Failed(String),
}

/// Runs a load with its workers. The calling process must have no other thread, and no loop.
pub(super) fn run(plan: &Plan, watcher: &mut Watcher<'_>) -> Result<Measured, Failure> {
    let tallies = SharedMemory::new(plan.processes() as usize * Tally::LEN)?;
    let workers = start_all(plan, &tallies)?;
    let mut crew = Crew {
        plan,
        tallies: &tallies,
        connecting: workers.len(),
        busy: workers.len(),
        finished: Vec::new(),
        measured: Measured::default(),
        told: Instant::now(),
    };
    let mut reactor = Reactor::new()?;
    for worker in workers {
        reactor.add(worker, Interest::READ)?;
    }
    while crew.connecting > 0 {
        crew.turn(&mut reactor, Stage::Connecting, watcher)?;
    }
    if crew.busy > 0 {
        watcher(crew.progress(Stage::Connected))?;
        crew.go(&mut reactor);
        while crew.busy > 0 {
            crew.turn(&mut reactor, Stage::Exchanging, watcher)?;
        }
        watcher(crew.progress(Stage::Exchanging))?;
    }
    // All at once, before the first is waited for: to close many connections takes them a while.
    for worker in &crew.finished {
        worker.process.kill();
    }
    Ok(crew.measured)
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
    let mut say = |what: &Said| {
        let line = serde_json::to_string(what)? + "\n";
        Ok::<_, Failure>(to_parent.write_all(line.as_bytes())?)
    };
    let result = load(plan, number, &mut |progress| {
        tally.store(&progress);
        if progress.stage == Stage::Connected {
            say(&Said::Connected)?;
            from_parent.read_line(&mut String::new())?;
        }
        Ok(())
    });
    match result {
        Ok((measured, _connections)) => {
            say(&Said::Done(Box::new(measured)))?;
            // Its connections stay until everybody has measured: the parent ends it then.
            from_parent.read_line(&mut String::new())?;
            Ok(())
        }
        Err(Failure::Cannot(why) | Failure::Found(why)) => say(&Said::Failed(why)),
    }
}

/// A worker's part of the load. Its connections stay open for as long as it is kept.
fn load<'a>(
    plan: &'a Plan,
    number: u64,
    watcher: &mut Watcher<'_>,
) -> Result<(Measured, Load<'a>), Failure> {
    let mut load = Load::connect(plan, plan.share(number), watcher)?;
    Ok((load.exchange(plan.schedule.as_ref(), watcher)?, load))
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
        }
    }
}

/// A child of this process, which is killed when dropped.
struct Process(Pid);

impl Process {
    fn kill(&self) {
        // Nobody has waited for it, so its pid is still its own.
        let _ = kill(self.0, Signal::SIGKILL);
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
    /// What it has to say, of which there is at least a part; `None` until that is whole.
    ///
    /// # Errors
    /// It has ended.
    fn hear(&mut self) -> io::Result<Option<Said>> {
        let mut bytes = [0; 64 * 1024];
        let n = self.results.read(&mut bytes)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend_from_slice(&bytes[..n]);
        // It says one thing, and the next only after an answer.
        if self.unread.last() != Some(&b'\n') {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&mem::take(&mut self.unread))?))
    }
}

/// The workers and what has come of them. Those that are not finished are in the reactor.
struct Crew<'a> {
    plan: &'a Plan,
    tallies: &'a SharedMemory<AtomicU64>,
    /// Workers that are not connected yet.
    connecting: usize,
    /// Workers that have no result yet.
    busy: usize,
    /// They keep their connections open until dropped.
    finished: Vec<Worker>,
    measured: Measured,
    /// When the watcher was last told.
    told: Instant,
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
        watcher(self.progress(stage))
    }

    /// The counts of all workers together.
    fn progress(&self, stage: Stage) -> Progress {
        let workers = 0..self.plan.processes();
        let each = workers.map(|number| Tally::of(self.tallies, number).load(stage));
        let none = Progress {
            stage,
            connected: 0,
            not_connected: 0,
            answered: 0,
            replies: 0,
            failures: self.measured.failures.dead_workers,
            latency: None,
        };
        each.fold(none, |sum, one| Progress {
            stage,
            connected: sum.connected + one.connected,
            not_connected: sum.not_connected + one.not_connected,
            answered: sum.answered + one.answered,
            replies: sum.replies + one.replies,
            failures: sum.failures + one.failures,
            latency: None,
        })
    }

    fn go(&mut self, reactor: &mut Reactor<Worker>) {
        for token in reactor.tokens().collect::<Vec<_>>() {
            let worker = reactor.source_mut(token).expect("just listed");
            // One that is dead is found to be so in the next turn.
            let _ = worker.go.write_all(b"go\n");
        }
    }

    /// It has no more to say.
    fn finish(&mut self, worker: &Worker, measured: Measured) {
        self.connecting -= usize::from(!worker.connected);
        self.busy -= 1;
        self.measured.add(measured);
    }

    /// A worker died. What it had measured is gone with it; its counts are still there.
    fn bury(&mut self, worker: Worker, why: Option<String>) {
        let share = self.plan.share(worker.number);
        let counts = Tally::of(self.tallies, worker.number).load(Stage::Exchanging);
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
        self.finish(&worker, measured);
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
        let said = match worker.hear() {
            Ok(None) => return,
            Ok(Some(Said::Connected)) => {
                worker.connected = true;
                self.connecting -= 1;
                return;
            }
            said => said,
        };
        let worker = reactor.remove(token).expect("just looked at");
        match said {
            Ok(Some(Said::Done(measured))) => {
                self.finish(&worker, *measured);
                self.finished.push(worker);
            }
            Ok(Some(Said::Failed(why))) => self.bury(worker, Some(why)),
            _ => self.bury(worker, None),
        }
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
        };
        Tally::of(&all, 0).store(&counts(1));
        Tally::of(&all, 1).store(&counts(10));
        assert_eq!(Tally::of(&all, 0).load(stage), counts(1));
        assert_eq!(Tally::of(&all, 1).load(stage), counts(10));
    }
}
