//! This program as a child of itself: a server, or a load generator, in a process of its own.

use std::io::{self, BufRead};
use std::process::{Child, Command, Stdio};

use c10k::sys::die_with_parent;

/// One of the verbs, on a CPU of its own if one is named. It ends with this process.
pub(crate) fn c10k(verb: &str, cpu: Option<usize>) -> io::Result<Command> {
    let program = std::env::current_exe().map_err(|error| {
        io::Error::other(format!("this program cannot find itself, to run as a child: {error}"))
    })?;
    let mut command = Command::new(program);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Some(cpu) = cpu {
        command.arg("--cpu").arg(cpu.to_string());
    }
    die_with_parent(&mut command);
    Ok(command)
}

/// Reads one line and returns what follows `prefix` in it.
pub(crate) fn expect_line(out: &mut impl BufRead, prefix: &str) -> io::Result<String> {
    let mut line = String::new();
    out.read_line(&mut line)?;
    line.trim_end().strip_prefix(prefix).map(str::to_owned).ok_or_else(|| {
        io::Error::other(format!("a child should have said '{prefix}' but said {line:?}"))
    })
}

/// For a child that may have ended, and been waited for, already.
pub(crate) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
