//! A thread for each connection: the session of the event loop, driven by blocking calls.
//!
//! ```text
//! cargo run --example thread_per_connection [ADDRESS]     default: 127.0.0.1:7000
//! nc 127.0.0.1 7000
//! ```
//!
//! A [`Session`] does no input and no output. It is given bytes and holds bytes, and says what it
//! wants next; where they come from is not its concern. Here is a second driver for it, in
//! twenty lines of `std::net`: compare with `src/connection.rs`, which never blocks.
//!
//! What this costs, against the loop:
//!
//! - *A stack for each connection.* Of the 2 MiB that Rust reserves only the pages touched take
//!   memory, but that is some 14 KiB here, the kernel's own 16 KiB for the thread come on top,
//!   and an idle connection keeps all of it. In the loop an idle connection has no buffer at all.
//! - *Two context switches for each request*, to this thread and away from it. In the loop one
//!   `epoll_wait` returns a hundred connections, and no switch lies between them.
//! - *The number of threads is limited*, by `kernel.threads-max`, by the pids of the container,
//!   by memory: the C10K wall.
//! - *Nothing can be said to a thread in `read`.* To stop in good order one must keep a list of
//!   the sockets and shut each down, which `Model::Threads` does; here Ctrl-C ends the process in
//!   the middle of whatever it does.
//!
//! And what it gives: a service may take its time, or block, and only its own client waits; all
//! cores are used; and the code below has no states, since the thread *is* the state.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;
use std::{env, thread};

use c10k::Session;
use c10k::framing::Delimiter;
use c10k::service::Echo;

/// How long one read or write may take. Without, a client that vanished without a word, or that
/// does not read its replies, would keep its thread for ever.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> io::Result<()> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("listening on tcp {}", listener.local_addr()?);

    loop {
        let started = listener.accept().and_then(|(stream, _)| {
            // The closure owns the socket: if no thread can be had, it is dropped and closed.
            thread::Builder::new().spawn(move || {
                if let Err(error) = serve(stream) {
                    eprintln!("a connection is lost: {error}");
                }
            })
        });
        if let Err(error) = started {
            // Out of descriptors or threads. The next try would most likely fail in the same way,
            // at once and for ever; this thread has nothing else to do, so it may sleep.
            eprintln!("cannot take a connection: {error}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Serves one connection from here to its end.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    // Replies leave at once, rather than waiting for the peer to acknowledge the last (Nagle).
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;

    let mut session = Session::new(Delimiter::new(b'\n'), Echo);
    let mut buffer = [0; 4096];
    while !session.is_done() {
        // The order matters: what is served is sent before more is received.
        if session.wants_write() {
            // All of it. The loop must be content with what the kernel takes, and come back.
            stream.write_all(session.unsent())?;
            session.advance(session.unsent().len());
        } else if session.wants_resume() {
            session.resume();
        } else if session.wants_shutdown() {
            stream.shutdown(Shutdown::Write)?;
            session.shut_down();
        } else {
            match stream.read(&mut buffer) {
                Ok(0) => session.receive_eof(),
                Ok(n) => session.receive(&buffer[..n]),
                // With a time-out set, even SIGSTOP and SIGCONT do this (`signal(7)`).
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
        }
    }
    Ok(())
}
