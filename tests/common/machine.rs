//! What a machine may lack, and what a test does then: say so, and pass.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Condvar, LazyLock, Mutex, OnceLock, PoisonError};
use std::{io, thread};

/// Reports in one line that the running test, or a part of it, was skipped: `skipped: TEST: WHY`.
///
/// The line goes to descriptor 2 itself, because libtest does not show what a passing test prints
/// with `eprintln!`; and to the file `target/tmp/skipped`, which CI reads. The same line is written
/// once for each test program.
pub(crate) fn skip(why: &str) {
    static WRITTEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let thread = thread::current();
    // libtest names the thread of a test for it; `each_of` adds the model in parentheses.
    let test = thread.name().unwrap_or("a thread without a name").split(" (").next().unwrap_or("");
    let line = format!("{}::{test}: {why}\n", env!("CARGO_CRATE_NAME"));
    if WRITTEN.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
        let _ = io::stderr().write_all(format!("skipped: {line}").as_bytes());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// What a test may need beyond a kernel, a loopback interface and the Rust toolchain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// `strace(1)`, and permission to trace.
    Strace,
    /// The address `::1`.
    Ipv6,
    /// Another implementation of HdrHistogram: Python's `hdrh`.
    Hdrh,
    /// A browser that prints the document it has made of a page.
    Chromium,
}

/// The command by which Chromium is installed, if it is.
pub(crate) fn chromium() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| runs(name, &["--version"]))
}

/// Whether the machine has what a test needs. If not, the test has been reported as skipped, and
/// returns.
#[must_use]
pub(crate) fn has(need: Need) -> bool {
    let missing = match need {
        Need::Strace => missing_strace(),
        Need::Ipv6 => TcpListener::bind("[::1]:0").err().map(|_| "there is no IPv6"),
        Need::Hdrh => (!runs("python3", &["-c", "import hdrh"]))
            .then_some("python3 has no module hdrh (pip install hdrhistogram)"),
        Need::Chromium => chromium().is_none().then_some("Chromium is not installed"),
    };
    if let Some(why) = missing {
        skip(why);
    }
    missing.is_none()
}

fn missing_strace() -> Option<&'static str> {
    static MISSING: OnceLock<Option<&str>> = OnceLock::new();
    *MISSING.get_or_init(|| {
        // strace runs itself: it is the one program that is there for certain.
        let tracing = ["-o", "/dev/null", "-e", "trace=none", "/proc/self/exe", "-V"];
        match (runs("strace", &["-V"]), runs("strace", &tracing)) {
            (true, true) => None,
            (true, false) => Some("strace may not trace"),
            (false, _) => Some("strace is not installed"),
        }
    })
}

/// Whether a program can be run, and succeeds.
fn runs(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Descriptors that a test has set aside for itself; they are given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Descriptors(u64);

/// Descriptors for what no test sets any aside for: servers' pipes, a few clients each, what the
/// process has inherited.
const UNCOUNTED: u64 = 256;

static FREE: LazyLock<Mutex<u64>> = LazyLock::new(|| {
    let limit = c10k::sys::raise_fd_limit().expect("a limit on descriptors");
    Mutex::new(limit.saturating_sub(UNCOUNTED))
});
static GIVEN_BACK: Condvar = Condvar::new();

/// Sets descriptors aside for a test that opens hundreds: raises the soft limit to the hard one,
/// and waits while the tests that run beside this one leave too few. `None`, and the test has been
/// reported as skipped, where the hard limit is too low for this test alone.
///
/// A thread that holds some must not ask for more: two such threads would wait for each other.
#[must_use]
pub(crate) fn descriptors(count: usize) -> Option<Descriptors> {
    let limit = c10k::sys::raise_fd_limit().expect("a limit on descriptors");
    let count = count as u64;
    if count + UNCOUNTED > limit {
        skip(&format!("it needs {} descriptors, and the hard limit is {limit}", count + UNCOUNTED));
        return None;
    }
    let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    let enough = GIVEN_BACK.wait_while(free, |free| *free < count);
    *enough.unwrap_or_else(PoisonError::into_inner) -= count;
    Some(Descriptors(count))
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += self.0;
        GIVEN_BACK.notify_all();
    }
}
