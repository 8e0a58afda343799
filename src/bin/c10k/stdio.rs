//! Standard output and standard error: the one place from which the program writes to them.
//!
//! A reader that has gone (`c10k load ... | head -1`) is no failure: the work goes on, and the exit
//! status is the one that the work had. `println!` and `eprintln!` would panic.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

static READER_GONE: AtomicBool = AtomicBool::new(false);

/// Standard output. Bytes for a reader that has gone are discarded (`EPIPE`, `write(2)`).
///
/// # Errors
/// Any other error of `write(2)`, such as `ENOSPC`; it names standard output.
pub(crate) fn stdout() -> Stdout {
    Stdout(io::stdout())
}

/// Whether a write to standard output has found that its reader has gone. A loop that has no end of
/// its own ends then.
pub(crate) fn reader_gone() -> bool {
    READER_GONE.load(Ordering::Relaxed)
}

/// Writes a line to standard error. An error is ignored: there is no place left to report it.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[derive(Debug)]
pub(crate) struct Stdout(io::Stdout);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_discarded(self.0.write(bytes), bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        or_discarded(self.0.flush(), ())
    }
}

fn or_discarded<T>(result: io::Result<T>, discarded: T) -> io::Result<T> {
    result.or_else(|error| match error.kind() {
        ErrorKind::BrokenPipe => {
            READER_GONE.store(true, Ordering::Relaxed);
            Ok(discarded)
        }
        // `write_all` tries again.
        ErrorKind::Interrupted => Err(error),
        kind => Err(io::Error::new(kind, format!("cannot write to standard output: {error}"))),
    })
}
