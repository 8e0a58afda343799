//! Go's `net`, in a program of its own that `build.rs` builds where Go is installed.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Becomes that program, with the listener as its standard input: it keeps the process with its
/// number, CPU and limits.
pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    Err(Command::new(env!("PEER_GO")).stdin(OwnedFd::from(listener)).exec())
}
