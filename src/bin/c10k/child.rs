//! This program as a child of itself: a server, or a load generator, in a process of its own.

use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use c10k::sys::die_with_parent;

use crate::interrupt;

/// One of the verbs, on a CPU of its own if one is named. It ends with this process.
///
/// It has a process group of its own: a SIGINT of the terminal is for this process, which has it
/// end when its measurement is complete.
pub(crate) fn c10k(verb: &str, cpu: Option<usize>) -> io::Result<Command> {
    let program = std::env::current_exe().map_err(|error| {
        io::Error::other(format!("this program cannot find itself, to run as a child: {error}"))
    })?;
    let mut command = Command::new(program);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    if let Some(cpu) = cpu {
        command.arg("--cpu").arg(cpu.to_string());
    }
    die_with_parent(&mut command);
    Ok(command)
}

/// Reads a line, which may be empty at the child's end.
///
/// # Errors
/// [`Interrupted`](io::ErrorKind::Interrupted) when a signal comes first: see [`interrupt`].
pub(crate) fn read_line(out: &mut BufReader<ChildStdout>) -> io::Result<String> {
    if out.buffer().is_empty() && !interrupt::wait_readable(out.get_ref().as_fd())? {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let mut line = String::new();
    out.read_line(&mut line)?;
    Ok(line)
}

/// Reads a line and returns what follows `prefix` in it.
pub(crate) fn expect_line(out: &mut BufReader<ChildStdout>, prefix: &str) -> io::Result<String> {
    let line = read_line(out)?;
    line.trim_end().strip_prefix(prefix).map(str::to_owned).ok_or_else(|| {
        io::Error::other(format!("a child should have said '{prefix}' but said {line:?}"))
    })
}

/// For a child that may have ended, and been waited for, already.
pub(crate) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
