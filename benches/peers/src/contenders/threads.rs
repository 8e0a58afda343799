//! A thread for each connection, which blocks in its calls.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crate::session::Framer;

/// Pages of a stack that are never touched are never there, but its address space is.
const STACK_SIZE: usize = 128 * 1024;

/// The same goes for this.
const INPUT_SIZE: usize = 64 * 1024;

pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(false)?;
    loop {
        let (stream, _) = listener.accept()?;
        let thread = thread::Builder::new().stack_size(STACK_SIZE);
        thread.spawn(move || connection(&stream))?;
    }
}

fn connection(mut stream: &TcpStream) -> io::Result<()> {
    let mut framer = Framer::default();
    let mut input = vec![0; INPUT_SIZE];
    let mut replies = Vec::new();
    loop {
        let n = match stream.read(&mut input) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            n => n?,
        };
        replies.clear();
        framer.serve(&input[..n], &mut replies)?;
        stream.write_all(&replies)?;
    }
}
