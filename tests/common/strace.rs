//! Faults in the kernel's name: `strace` attached to a server that runs, which makes some of its
//! system calls fail.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Need, Server, comes_true, has, skip};

/// A running `strace`. It lets go of the server when dropped.
pub(crate) struct Strace {
    child: Child,
    log: PathBuf,
    /// Its own messages, read to the end by a thread.
    messages: Option<JoinHandle<()>>,
}

impl Strace {
    /// Attaches to every thread of the server, and returns once it has. `None`, and the test has
    /// been reported as skipped, where strace is not installed or may not.
    #[track_caller]
    pub(crate) fn attach(server: &Server, expressions: &[&str]) -> Option<Strace> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        if !has(Need::Strace) {
            return None;
        }
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("strace-{}-{serial}", std::process::id());
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let mut command = Command::new("strace");
        c10k::sys::die_with_parent(&mut command);
        command.arg("-f").arg("-o").arg(&log).arg("-p").arg(server.pid().to_string());
        for expression in expressions {
            command.arg("-e").arg(expression);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("strace");
        let mut messages = BufReader::new(child.stderr.take().expect("piped")).lines();
        for line in messages.by_ref() {
            let line = line.expect("text");
            if line.contains("attached") {
                let messages = Some(thread::spawn(move || messages.for_each(drop)));
                return Some(Strace { child, log, messages });
            }
            assert!(line.contains("not permitted"), "strace says: {line}");
        }
        let _ = child.wait();
        skip("strace may not attach to a process");
        None
    }

    /// The system calls seen so far, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// How many calls were made to fail so far.
    pub(crate) fn injected(&self) -> usize {
        self.lines().iter().filter(|line| line.contains("(INJECTED)")).count()
    }

    /// Lets go of the server, which goes on. Returns the system calls seen.
    #[track_caller]
    pub(crate) fn detach(mut self) -> Vec<String> {
        self.end();
        self.lines()
    }

    fn end(&mut self) {
        let Some(messages) = self.messages.take() else { return };
        // Its way to be told to detach. It was not waited for yet, so the pid is its own.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT);
        let ended = comes_true(|| self.child.try_wait().expect("a child of ours").is_some());
        if !ended {
            let _ = self.child.kill();
        }
        let _ = messages.join();
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.end();
        let _ = fs::remove_file(&self.log);
    }
}
