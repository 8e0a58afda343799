//! What the integration tests share: the program as a child, clients that cannot hang, faults.

// Every test file is a crate of its own, and uses its part of this.
#![allow(dead_code, unused_imports)]

pub(crate) mod client;
pub(crate) mod kernel;
#[cfg(feature = "cli")]
pub(crate) mod lab;
#[cfg(feature = "cli")]
pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod server;
pub(crate) mod start;
pub(crate) mod strace;

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use c10k::server::{Model, Trigger};

pub(crate) use client::{ask, connect, ends, exchange, expect, expect_eof, reset};
pub(crate) use machine::{Need, descriptors, has, skip};
pub(crate) use server::{Local, Outcome, Server};

/// How long anything may take before a test fails. Never how long it should take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// A way to serve, as the command line and as the library name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    pub(crate) args: &'static [&'static str],
    pub(crate) model: Model,
}

pub(crate) const EPOLL: Candidate =
    Candidate { name: "epoll", args: &["--model", "epoll"], model: Model::Epoll(Trigger::Edge) };

pub(crate) const EPOLL_LEVEL: Candidate = Candidate {
    name: "epoll level",
    args: &["--model", "epoll", "--trigger", "level"],
    model: Model::Epoll(Trigger::Level),
};

pub(crate) const POLL: Candidate =
    Candidate { name: "poll", args: &["--model", "poll"], model: Model::Poll };

pub(crate) const SELECT: Candidate =
    Candidate { name: "select", args: &["--model", "select"], model: Model::Select };

pub(crate) const THREADS: Candidate =
    Candidate { name: "threads", args: &["--model", "threads"], model: Model::Threads };

pub(crate) const PROCESSES: Candidate =
    Candidate { name: "processes", args: &["--model", "processes"], model: Model::Processes };

pub(crate) const BLOCKING: Candidate =
    Candidate { name: "blocking", args: &["--model", "blocking"], model: Model::Blocking };

pub(crate) const SPIN: Candidate =
    Candidate { name: "spin", args: &["--model", "spin"], model: Model::Spin };

/// For tests with one client at a time.
pub(crate) const EVERY_MODEL: &[Candidate] =
    &[EPOLL, EPOLL_LEVEL, POLL, SELECT, THREADS, PROCESSES, SPIN, BLOCKING];

/// For tests with several clients at once: all but `blocking`, where the second one waits.
pub(crate) const MODELS: &[Candidate] =
    &[EPOLL, EPOLL_LEVEL, POLL, SELECT, THREADS, PROCESSES, SPIN];

/// Those that wait for all their connections in one call.
pub(crate) const EVENT_LOOPS: &[Candidate] = &[EPOLL, EPOLL_LEVEL, POLL, SELECT];

/// Those that wait while there is nothing to do: all of [`MODELS`] but `spin`. For tests that attach
/// strace to a server with connections, since `spin` makes thousands of calls that come to nothing,
/// each of which would be the one to fail; and for tests that take seconds, to which it would add
/// the most and show the least.
pub(crate) const WAITING: &[Candidate] = &[EPOLL, EPOLL_LEVEL, POLL, SELECT, THREADS, PROCESSES];

/// For tests with a server in a thread of their own ([`Local`]) and several clients: all but
/// `processes`, which does not fork in a process with threads.
pub(crate) const LOCAL: &[Candidate] = &[EPOLL, EPOLL_LEVEL, POLL, SELECT, THREADS, SPIN];

/// Runs a test with several clients against every model that serves several.
pub(crate) fn each_model(test: impl Fn(&Candidate) + Sync) {
    each_of(MODELS, test);
}

/// Runs a test against the models given, all at once: most of a test is waiting. The thread that
/// fails is named for the test and its model.
pub(crate) fn each_of(models: &'static [Candidate], test: impl Fn(&Candidate) + Sync) {
    /// One server that spins at a time: it takes a CPU from all others.
    static SPINNING: Mutex<()> = Mutex::new(());
    let run = &|candidate: &Candidate| {
        let spins = candidate.model == Model::Spin;
        let _alone = spins.then(|| SPINNING.lock().unwrap_or_else(PoisonError::into_inner));
        test(candidate);
    };
    let current = thread::current();
    let test = current.name().unwrap_or("a test");
    let failed: Vec<&str> = thread::scope(|scope| {
        let start = |candidate: &'static Candidate| {
            let builder = thread::Builder::new().name(format!("{test} ({})", candidate.name));
            builder.spawn_scoped(scope, move || run(candidate)).expect("a thread")
        };
        let running: Vec<_> = models.iter().map(|model| (model.name, start(model))).collect();
        let ended = running.into_iter().map(|(name, thread)| (name, thread.join()));
        ended.filter(|(_, result)| result.is_err()).map(|(name, _)| name).collect()
    });
    assert!(failed.is_empty(), "failed with {failed:?}; see above");
}

/// Waits for a condition to become true, and fails if it does not.
#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(comes_true(condition), "waited in vain for this: {what}");
}

/// Whether a condition becomes true in time.
pub(crate) fn comes_true(mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}

/// A path that no other test uses, for a socket: short, since `sun_path` is (`unix(7)`).
pub(crate) fn scratch_path(name: &str, candidate: &Candidate) -> std::path::PathBuf {
    let pid = std::process::id();
    std::env::temp_dir().join(format!("c10k-{pid}-{name}-{}", candidate.name.replace(' ', "-")))
}
