//! A hand-rolled Linux epoll reactor: small, fast, and meant to be read.
//!
//! ```text
//!                     kernel
//!            epoll_wait |  | recv              send ^
//!                       v  v                        |
//!   poller ──> reactor ──> server ──> connection ────────────────────┐
//!   (who is    (one turn   (accept,   │  bytes in          bytes out ^
//!    ready)     in one      pause,    v                              │
//!               function)   drain)   session ──> framing ──> service ┘
//!                                    (no socket)  (cuts)     (yours)
//! ```
//!
//! There are three levels, and each is usable alone. From the bottom:
//!
//! # 1. The poller: who is ready?
//!
//! A [`Poller`](poller::Poller) watches descriptors. It is `epoll_create`, `epoll_ctl` and
//! `epoll_wait`, and nothing else. A server for a single message, without an event loop:
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//! use c10k::poller::{Epoll, Interest, Poller, Token};
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let mut client = TcpStream::connect(listener.local_addr()?)?;
//!
//! let mut poller = Epoll::new()?;
//! let mut events = Vec::new();
//! poller.add(&listener, Token(0), Interest::READ)?;
//! poller.wait(&mut events, None)?; // readable: `accept` will not block
//! let (mut peer, _) = listener.accept()?;
//!
//! poller.add(&peer, Token(1), Interest::READ)?;
//! client.write_all(b"ping")?;
//! poller.wait(&mut events, None)?; // readable: `recv` will not block
//! assert_eq!(events[0].token, Token(1));
//!
//! let mut message = [0; 16];
//! let n = peer.read(&mut message)?;
//! assert_eq!(&message[..n], b"ping");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Level triggering, which this is, tells in every wait that there is something to read, until it
//! has been read. [`Interest::EDGE`](poller::Interest::EDGE) tells once, when it arrives. That
//! saves the kernel work, and the reader must go on until there is no more.
//!
//! # 2. The reactor: a turn of the loop
//!
//! A server has many connections, and must remember which is which, what each is in the middle
//! of, and how long to wait for it. The [`Reactor`] owns *sources* (anything with a descriptor),
//! and tells a [`Handler`] of yours what happens to them. An echo of bytes, with a time-out:
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//! use std::os::fd::{AsFd, BorrowedFd};
//! use std::time::Duration;
//! use c10k::poller::{Interest, Readiness, Token};
//! use c10k::{Handler, Reactor};
//!
//! enum Source {
//!     Listener(TcpListener),
//!     Stream(TcpStream),
//! }
//!
//! impl AsFd for Source {
//!     fn as_fd(&self) -> BorrowedFd<'_> {
//!         match self {
//!             Source::Listener(listener) => listener.as_fd(),
//!             Source::Stream(stream) => stream.as_fd(),
//!         }
//!     }
//! }
//!
//! struct Echo;
//!
//! impl Handler<Source> for Echo {
//!     fn ready(&mut self, reactor: &mut Reactor<Source>, token: Token, _: Readiness) {
//!         let accepted = match reactor.source_mut(token) {
//!             Some(Source::Listener(listener)) => listener.accept(),
//!             Some(Source::Stream(stream)) => {
//!                 let mut buffer = [0; 4096];
//!                 let open = match stream.read(&mut buffer) {
//!                     Ok(0) | Err(_) => false,
//!                     Ok(n) => stream.write_all(&buffer[..n]).is_ok(),
//!                 };
//!                 if !open {
//!                     reactor.close(token); // drops the source, which closes the socket
//!                     reactor.stop(); // this example serves one client
//!                 }
//!                 return;
//!             }
//!             None => return,
//!         };
//!         if let Ok((stream, _)) = accepted {
//!             let token = reactor.add(Source::Stream(stream), Interest::READ).unwrap();
//!             reactor.set_deadline(token, reactor.now() + Duration::from_secs(30));
//!         }
//!     }
//!
//!     fn deadline(&mut self, reactor: &mut Reactor<Source>, token: Token) {
//!         reactor.close(token);
//!     }
//! }
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let addr = listener.local_addr()?;
//! let client = std::thread::spawn(move || -> std::io::Result<[u8; 5]> {
//!     let mut client = TcpStream::connect(addr)?;
//!     client.write_all(b"hello")?;
//!     let mut reply = [0; 5];
//!     client.read_exact(&mut reply)?;
//!     Ok(reply)
//! });
//!
//! let mut reactor = Reactor::new()?;
//! reactor.add(Source::Listener(listener), Interest::READ)?;
//! reactor.run(&mut Echo)?;
//! assert_eq!(&client.join().unwrap()?, b"hello");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! That example cheats twice: `write_all` blocks if the client does not read, and "hello" may
//! arrive in two pieces. A stream has no messages; to cut it into some, to hold what is
//! unfinished, and to hold what cannot be sent yet is the work of a [`Session`], which has no
//! socket and so can be tried without one:
//!
//! ```
//! use c10k::framing::Delimiter;
//! use c10k::service::Echo;
//! use c10k::Session;
//!
//! let mut session = Session::new(Delimiter::new(b'\n'), Echo);
//! session.receive(b"hel");
//! assert!(!session.wants_write());
//! session.receive(b"lo\nwor");
//! assert_eq!(session.unsent(), b"hello\n");
//! ```
//!
//! # 3. The server: write a service
//!
//! [`Server`] puts the three together, with limits on everything a peer can do. What is left to
//! write is a [`Service`](service::Service):
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use std::net::TcpStream;
//! use c10k::framing::Delimiter;
//! use c10k::service::{Outcome, Reply, Service};
//! use c10k::{Addr, Server};
//!
//! /// Counts the requests of its connection.
//! struct Count(u64);
//!
//! impl Service for Count {
//!     fn call(&mut self, request: &[u8], reply: &mut Reply<'_>) -> Outcome {
//!         self.0 += 1;
//!         write!(reply, "{}: {} bytes", self.0, request.len());
//!         Outcome::Reply
//!     }
//! }
//!
//! let server = Server::builder()
//!     .listen("127.0.0.1:0")?
//!     .framing(Delimiter::new(b'\n'))
//!     .service(|| Count(0)) // one for each connection
//!     .max_connections(10_000)
//!     .build()?;
//! let handle = server.handle();
//! let running = std::thread::spawn(move || server.run());
//!
//! let Addr::Tcp(addr) = handle.local_addrs()[0].clone() else { unreachable!() };
//! let mut client = TcpStream::connect(addr)?;
//! client.write_all(b"one\nthree\n")?;
//! let mut lines = BufReader::new(&client).lines();
//! assert_eq!(lines.next().unwrap()?, "1: 3 bytes");
//! assert_eq!(lines.next().unwrap()?, "2: 5 bytes");
//!
//! handle.stop();
//! drop(client);
//! assert_eq!(running.join().unwrap()?.requests, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The same session under a thread per connection is
//! [`.model(Model::Threads)`](server::Builder::model): swap it, load it, and see what changes.
//! `c10k race` does that.
//!
//! One loop uses one CPU, and as many descriptors as one process may have.
//! [`.workers(4)`](server::Builder::workers) makes it four, in processes that share the listeners
//! and are started again when they die. They are forked, which copies one thread: so such a server
//! runs in `main`, before any other thread:
//!
//! ```no_run
//! use c10k::framing::Delimiter;
//! use c10k::service::Echo;
//! use c10k::Server;
//!
//! fn main() -> Result<(), c10k::Error> {
//!     let server = Server::builder()
//!         .listen("127.0.0.1:7000")?
//!         .framing(Delimiter::new(b'\n'))
//!         .service(|| Echo)
//!         .workers(4)
//!         .max_connections(4_000) // for each worker
//!         .stop_on_signals(true)
//!         .build()?;
//!     println!("{}", server.run()?); // what all four have counted
//!     Ok(())
//! }
//! ```
//!
//! # Where to read on
//!
//! [`reactor`] for one whole turn of an event loop, [`session`] for the life of a connection,
//! [`poller`] for the contract with the kernel, [`sys`] for each system call. The examples
//! (`cargo run --example bare_loop`) are explained line by line. The [`guide`] is about the kernel's
//! side: what a socket does, and what the ways to wait for one are, each fact shown by a lab.

#![deny(unsafe_code)]

mod addr;
mod alarm;
mod clock;
pub mod connection;
mod error;
pub mod framing;
pub mod guide;
mod models;
pub mod poller;
pub mod reactor;
mod send_buffer;
pub mod server;
pub mod service;
pub mod session;
mod signals;
mod slots;
#[cfg(feature = "json")]
mod sum;
pub mod sys;
mod waker;
mod wheel;

pub use addr::Addr;
pub use error::Error;
pub use reactor::{Handler, Reactor, TimerId};
pub use server::Server;
pub use session::Session;
pub use signals::Signals;
pub use waker::Waker;
