//! An event loop with nothing but a [`Poller`]: a server that echoes lines, to be read from top
//! to bottom.
//!
//! ```text
//! cargo run --example bare_loop [ADDRESS]       default: 127.0.0.1:7000
//! nc 127.0.0.1 7000                             in as many windows as you like
//! strace -f target/debug/examples/bare_loop     to watch it talk to the kernel
//! ```
//!
//! One thread serves any number of clients, because it never waits for any one of them: it waits
//! for all of them at once, in one place, and each client takes up where it was left. That is all
//! there is to it; the rest of this file is about what "where it was left" means.
//!
//! It does what a server must do to be correct: lines that arrive in pieces, replies that the
//! kernel takes in pieces, clients that say they are done, clients that vanish, clients that never
//! read. Where it takes a short cut it says so. No `unsafe` is needed.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use c10k::poller::{Epoll, Event, Interest, Poller, Readiness, Token};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt,
};

/// The token of the listening socket. Those of the connections count on from here.
const LISTENER: Token = Token(0);

/// How long not to accept after that has failed.
const REST: Duration = Duration::from_millis(100);

/// A client that sends more than this without an end of line is thrown out, or it could make us
/// hold all that it cares to send.
const LINE_MAX: usize = 64 * 1024;

/// With more than this unsent, no more is read from a client until it has read some.
const OUTPUT_MAX: usize = 64 * 1024;

// ---- 1. A socket to listen on ------------------------------------------------------------------
//
// `TcpListener::bind` does all of this in one call. Here are its steps, each of them one system
// call with a man page of its own.

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };

    // socket(2): one end of something that will be a connection, with no address yet. NONBLOCK is
    // what makes it fit for a loop: a call that would have to wait fails with EAGAIN instead.
    // CLOEXEC keeps it from programs that we might start.
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket::socket(family, SockType::Stream, flags, None)?;

    // When a server is restarted, connections of its former life may be in TIME-WAIT for another
    // minute. Without this the port would count as in use for as long (socket(7)).
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;

    // A reply leaves at once, rather than waiting for the last one to be acknowledged (tcp(7)).
    // Set here, it is inherited by each connection, and need not be set on any.
    socket::setsockopt(&fd, sockopt::TcpNoDelay, &true)?;

    // bind(2): its address. Port 0 has the kernel choose a free one.
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;

    // listen(2): from here on the kernel completes handshakes by itself and queues the
    // connections, so many at most, until we accept them. Clients do not notice if we are late.
    socket::listen(&fd, Backlog::MAXCONN)?;

    Ok(TcpListener::from(fd))
}

// ---- 2. The loop -------------------------------------------------------------------------------
//
// Wait until something is ready, deal with everything that is, wait again. The thread sleeps in
// one place only, and so nothing else here may block: not a read, not a write, not a lock, not a
// slow computation. While one client is served all the others wait.
//
// Short cut: Ctrl-C kills it on the spot. There is nothing to save, and the kernel closes the
// sockets; but a client that is waiting for its reply then waits in vain. `c10k::Signals` makes a
// signal one more thing that can be ready, and a server then finishes what it has begun.

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let listener = listen(address.parse().map_err(io::Error::other)?)?;
    println!("listening on tcp {}", listener.local_addr()?);

    // epoll_create1(2), and for each descriptor epoll_ctl(2): the kernel keeps the list of what
    // we are interested in, and of what is ready. A wait costs what is ready, however many
    // descriptors there are; that is what `select` and `poll`, which are told the whole list at
    // each call, cannot do.
    let mut poller = Epoll::new()?;
    poller.add(listener.as_fd(), LISTENER, Interest::READ)?;
    let mut server = Server {
        poller,
        listener,
        connections: HashMap::new(),
        last_token: LISTENER,
        rest_until: None,
    };

    let mut events = Vec::new();
    loop {
        // The only sleep (epoll_wait(2)). Usually there is no reason to wake but an event; see
        // section 3 for the other one.
        server.poller.wait(&mut events, server.time_left_to_rest())?;
        server.end_rest()?;
        for &Event { token, readiness } in &events {
            if token == LISTENER {
                server.accept()?;
            } else {
                server.serve(token, readiness);
            }
        }
    }
}

struct Server {
    poller: Epoll,
    listener: TcpListener,
    connections: HashMap<Token, Connection>,
    last_token: Token,
    /// The listener is not watched until then.
    rest_until: Option<Instant>,
}

// ---- 3. Newcomers ------------------------------------------------------------------------------
//
// A listener is "readable" when its queue holds a connection. We take one. If there are more the
// listener is still ready, and the next wait says so at once: that is level triggering, epoll's
// default. It tells not what *has happened* but what *is so*. (Short cut: one wait for each
// newcomer. A server that expects a flood accepts some sixty in a row.)
//
// A connection is known to epoll by a token, which is ours to choose. Many programs choose the
// number of the descriptor, or an index into a table, and both are reused: close a connection in
// the middle of a batch of events, accept another one, and an event further down that was meant
// for the old one is taken for news of the newcomer. We count, and never use a number twice: such
// an event then finds nobody. (Nothing in this little program can close a connection but its own
// event. The day someone adds a time-out, or a chat room, it still works.)

impl Server {
    fn accept(&mut self) -> io::Result<()> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                if let Err(error) = self.admit(stream) {
                    eprintln!("a connection was refused: {error}");
                }
                Ok(())
            }
            // The client has given up waiting, or nobody was there after all: "ready" was true
            // when the kernel said so, and is no promise.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted || not_now(&error) => Ok(()),
            // Most likely there are no descriptors left (EMFILE). The connection stays in the
            // queue, so the listener stays ready, so the next wait would return at once, and the
            // loop would spin at 100% until somebody leaves. Better to look away for a moment.
            Err(error) => {
                eprintln!("cannot accept: {error}");
                self.rest_until = Some(Instant::now() + REST);
                self.poller.modify(self.listener.as_fd(), LISTENER, Interest::NONE)
            }
        }
    }

    fn admit(&mut self, stream: TcpStream) -> io::Result<()> {
        // NONBLOCK, for one, is not inherited on Linux. (Short cut: accept4(2) can do both in one
        // call.)
        stream.set_nonblocking(true)?;

        self.last_token.0 += 1;
        self.poller.add(stream.as_fd(), self.last_token, Interest::READ)?;
        self.connections.insert(self.last_token, Connection::new(stream));
        Ok(())
    }

    /// For how long the next wait may last.
    fn time_left_to_rest(&self) -> Option<Duration> {
        Some(self.rest_until?.saturating_duration_since(Instant::now()))
    }

    fn end_rest(&mut self) -> io::Result<()> {
        if self.rest_until.is_some_and(|until| until <= Instant::now()) {
            self.rest_until = None;
            self.poller.modify(self.listener.as_fd(), LISTENER, Interest::READ)?;
        }
        Ok(())
    }
}

// ---- 4. Someone is ready -----------------------------------------------------------------------
//
// An error on one connection ends that connection, never the loop. Removing it drops its socket,
// which closes it, and with that epoll forgets it: no call is needed. (True as long as there is
// only one descriptor for the socket. After a `dup` or a `fork` it is not; see epoll(7).)
//
// Short cut: there are no time-outs. A client that connects and says nothing may stay for ever.

impl Server {
    fn serve(&mut self, token: Token, readiness: Readiness) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let keep = connection
            .ready(readiness)
            .and_then(|keep| connection.watch(&mut self.poller, token).map(|()| keep));
        match keep {
            Ok(true) => {}
            Ok(false) => drop(self.connections.remove(&token)),
            Err(error) => {
                eprintln!("a connection is lost: {error}");
                self.connections.remove(&token);
            }
        }
    }
}

/// A client, and where it was left.
struct Connection {
    stream: TcpStream,
    /// The start of a line, the end of which has not arrived.
    input: Vec<u8>,
    /// Replies that the kernel has not taken yet.
    output: Vec<u8>,
    /// It has sent all that it will ever send.
    peer_done: bool,
    /// What epoll watches it for.
    watched: Interest,
}

impl Connection {
    fn new(stream: TcpStream) -> Connection {
        let (input, output) = (Vec::new(), Vec::new());
        Connection { stream, input, output, peer_done: false, watched: Interest::READ }
    }

    /// Does what can be done now. Returns whether there will be more to do.
    ///
    /// What the kernel reports of a socket, and what it means:
    ///
    /// - `IN`: there are bytes to read, or EOF.
    /// - `OUT`: there is room in the send buffer. (Nearly always so: who asks for it without
    ///   having anything to send is woken in each and every wait.)
    /// - `RDHUP`: the peer has shut down its sending side. What it sent before may still be there
    ///   to be read, and it may still be reading. With level triggering it tells us nothing that
    ///   reading does not: EOF comes after the last byte.
    /// - `HUP`: both directions are shut down. Reading gives what is left; writing fails.
    /// - `ERR`: the connection is dead, by a reset for one. The cause waits to be collected.
    ///
    /// `HUP` and `ERR` are reported whether asked for or not, and in each wait. They must lead to
    /// something that ends the connection, or the loop spins.
    fn ready(&mut self, readiness: Readiness) -> io::Result<bool> {
        if readiness.is_error()
            && let Some(cause) = self.stream.take_error()?
        {
            return Err(cause);
        }
        // `is_readable` is true of HUP and ERR too: then there is an end or an error to read.
        if readiness.is_readable() && self.wants_read() {
            self.receive()?;
        }
        // Not only when OUT was reported. There is almost always room, so it is worth a try, and
        // it saves asking epoll to tell us. If HUP is set this is what fails.
        self.send()?;
        Ok(!self.peer_done || !self.output.is_empty())
    }
}

// ---- 5. Receiving ------------------------------------------------------------------------------
//
// A stream has no messages. One read may return a line, half a line, or three and a half; it
// depends on how the sender wrote, on the network, and on how late we come. What is whole is
// answered; the rest is kept until more arrives.
//
// One read for each event, even if there is more: it will be reported again, and in between
// others have their turn. A client that sends as fast as it can does not starve the rest.
//
// A read of 0 bytes is EOF: the peer sends no more. It is not an error, and it does not say that
// the peer is gone: `printf 'a\nb\n' | nc -N 127.0.0.1 7000` shuts down its sending side at once
// and then waits for its replies. So they are sent first. Half a line is no line: it is dropped.
//
// Short cuts: the whole lines are copied twice, where a better server answers them from the
// buffer they were read into; a client that is quiet keeps its (empty) buffers; and one that
// exceeds the limit is thrown out without a word.

impl Connection {
    fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let n = match self.stream.read(&mut buffer) {
            Ok(0) => {
                self.peer_done = true;
                return Ok(());
            }
            Ok(n) => n,
            Err(error) if not_now(&error) => return Ok(()),
            Err(error) => return Err(error),
        };

        let fresh = self.input.len();
        self.input.extend_from_slice(&buffer[..n]);
        // An end of line can only be in what is fresh: the rest was searched when it came.
        if let Some(last) = self.input[fresh..].iter().rposition(|&byte| byte == b'\n') {
            let whole = fresh + last + 1;
            for line in self.input[..whole].split_inclusive(|&byte| byte == b'\n') {
                self.output.extend_from_slice(line); // your protocol goes here
            }
            self.input.drain(..whole);
        }
        if self.input.len() > LINE_MAX {
            return Err(io::Error::other("the line is too long"));
        }
        Ok(())
    }
}

/// Not an error, for a non-blocking socket: there is nothing to read, or no room to write, or a
/// signal came in between. It will be reported again when there is.
fn not_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

// ---- 6. Sending --------------------------------------------------------------------------------
//
// A non-blocking write takes what there is room for, which may be less than it was given, or
// nothing. What is left over must wait until the client has read some; the loop may not.
//
// Short cut: what was sent is cut off the front of a `Vec`, which moves all the rest. To
// remember how much was sent would be better.

impl Connection {
    fn send(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        match self.stream.write(&self.output) {
            Ok(n) => {
                self.output.drain(..n);
                Ok(())
            }
            Err(error) if not_now(&error) => Ok(()),
            // EPIPE, if the peer is gone. (The signal SIGPIPE, which would kill us, is ignored in
            // a Rust program.)
            Err(error) => Err(error),
        }
    }
}

// ---- 7. What to watch for ----------------------------------------------------------------------
//
// With level triggering one must ask for exactly that which one would act upon. To ask for less
// is to hang: nobody tells us. To ask for more is to spin: what is ready and not dealt with is
// reported again at once. So it is worked out anew from the state, in one place, after anything
// that may have changed it, rather than switched on and off all over the program.
//
// A client that sends and never reads would have us hold its replies without limit. Past
// `OUTPUT_MAX` it is no longer read from: the kernel's buffers fill up, TCP tells its kernel to
// send no more, and in the end its own `write` blocks. That is backpressure, and it comes free.

impl Connection {
    fn wants_read(&self) -> bool {
        !self.peer_done && self.output.len() <= OUTPUT_MAX
    }

    fn wants_write(&self) -> bool {
        !self.output.is_empty()
    }

    fn watch(&mut self, poller: &mut Epoll, token: Token) -> io::Result<()> {
        let interest = match (self.wants_read(), self.wants_write()) {
            (true, false) => Interest::READ,
            (true, true) => Interest::READ | Interest::WRITE,
            (false, true) => Interest::WRITE,
            // It has no more to say and nothing to hear: it is about to be closed.
            (false, false) => return Ok(()),
        };
        // Each change is a system call. Most of the time nothing changes.
        if interest != self.watched {
            poller.modify(self.stream.as_fd(), token, interest)?;
            self.watched = interest;
        }
        Ok(())
    }
}

// ---- 8. And with edge triggering? --------------------------------------------------------------
//
// `Interest::EDGE` makes epoll tell of each change once. A connection is then added with
// `READ | WRITE | EDGE` and never modified, which saves section 7 its system calls; with the
// default trigger an idle `OUT` would spin. In exchange this program must remember what the
// kernel will not repeat:
//
// - One read for each event is not enough. Either go on until it fails with EAGAIN, and let
//   nobody else have a turn meanwhile, or keep a list of those who have more and come back to
//   them, without sleeping as long as it is not empty.
// - A read that returns less than it asked for has emptied the socket, so that the one that would
//   fail can be saved, *unless* RDHUP was set: then EOF is behind the data, and nobody will say so.
// - When backpressure ends, what arrived meanwhile was reported long ago. Read without being told.
// - A write that takes all leaves room, and that is not a change: OUT is reported only after a
//   write that did not. Just try.
// - An interrupted call (EINTR) must be tried again at once.
// - The listener must be accepted from until EAGAIN, or stay level-triggered.
//
// All of this is in `src/connection.rs`, some fifty lines, with the same session above it
// for both triggers.
