//! How many connections a server can have.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use c10k::sys::{self, Recv};
use nix::errno::Errno;
use nix::libc::{POLLIN, pollfd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect as connect_to, socket,
};

use super::measure::{ROUNDS_MAX, descriptors, weigh};
use crate::lab::calls::{ANY_PORT, errno};
use crate::lab::kernel::{self, Protocol, in_state, needs_descriptors};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};
use crate::proc::{Memory, available_memory};

pub(super) const ABOUT: About = About {
    name: "server-limit",
    claim: "What bounds the connections of a server is descriptors first (EMFILE), then memory, \
            and not ports: all its sockets have the same one. Those it has are not affected.",
    run,
};

const CLIENTS: usize = 100;

/// How many more connections are made at a time, to see what memory they take.
const MORE: u64 = 400;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    needs_descriptors(400)?;
    lab.note("A hundred clients connect, and wait in the accept queue.");
    let listener = lab.tcp_nonblocking("listener")?;
    let addr = lab.bind(&listener, ANY_PORT)?;
    lab.listen(&listener, CLIENTS as i32)?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(connect(addr)?);
    }
    lab.called(format!("(socket, connect) x {CLIENTS}"), "0".to_owned());
    let mut accepted = out_of_descriptors(lab, &listener, addr, &clients)?;

    lab.note(
        "With descriptors enough it is memory. These sockets are idle, their buffers empty: it is \
         what the kernel needs to know of them.",
    );
    let limit = sys::raise_fd_limit()?;
    lab.called("setrlimit(RLIMIT_NOFILE, {the hard limit})".to_owned(), "0".to_owned());
    while let Some(fd) = sys::accept(listener.as_fd(), false)? {
        accepted.push(fd);
    }
    let object = tcp_object()?;
    // Each has two descriptors here, its client's and the server's.
    let more = MORE.min(limit.saturating_sub(300) / (2 * ROUNDS_MAX)).max(1);
    let mut rounds = 0;
    let bytes = weigh(object..=i64::MAX, || {
        rounds += 1;
        let before = Memory::now(std::process::id());
        for _ in 0..more {
            clients.push(connect(addr)?);
            accepted.push(accept(&listener)?);
        }
        Ok(Memory::now(std::process::id()).since(before).slab / (2 * more as i64))
    })?;
    lab.called(format!("(socket, connect, accept4) x {more}, {rounds} times"), "0".to_owned());
    let all = match bytes {
        Some(bytes) => format!("Slab: +{bytes} bytes for each socket, with its file and inode"),
        None => "Slab: others take or give back too much just now".to_owned(),
    };
    let available = available_memory().unwrap_or(0);
    let room = available as f64 / bytes.unwrap_or(2 * object) as f64 / 1e6;
    let room = format!("MemAvailable: {} MiB, room for {room:.1} million", available >> 20);
    lab.kernel("/proc/meminfo", vec![all, room]);
    let fact = "bytes of a TCP socket by itself (/proc/net/protocols)";
    lab.expect_that(fact, object, "1,000 to 10,000", (1_000..=10_000).contains(&object));

    lab.note("And ports? The server needs one.");
    let mut sockets = kernel::sockets(Protocol::Tcp, &[addr.port()])?;
    sockets.retain(|socket| socket.local == addr);
    let connected = in_state(&sockets, "ESTAB");
    lab.expect("connected sockets of the server, all at this port", connected, accepted.len());
    Ok(())
}

/// Lets the server accept until it cannot; returns what it has accepted.
fn out_of_descriptors(
    lab: &mut Lab,
    listener: &OwnedFd,
    addr: SocketAddr,
    clients: &[OwnedFd],
) -> Result<Vec<OwnedFd>, Trouble> {
    lab.note("The server may have 40 descriptors more than now, and accepts until it cannot.");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let open = descriptors()?;
    // The limit is on the numbers, of which those that are free are given out from the lowest.
    let limit = (0..).find(|number| !open.contains(number)).unwrap_or(0) + 40;
    let free = (0..limit).filter(|number| !open.contains(number)).count();
    let lowered = setrlimit(Resource::RLIMIT_NOFILE, limit, hard);
    lab.call(format!("setrlimit(RLIMIT_NOFILE, {limit})"), lowered)?;
    let mut accepted = Vec::new();
    let refused = loop {
        match accept(listener) {
            Ok(fd) => accepted.push(fd),
            Err(errno) => break Err(errno),
        }
        if accepted.len() == CLIENTS {
            break Ok(());
        }
    };
    let call = format!("accept4({}, 0)", lab.names.of(listener));
    lab.called(format!("{call} x {}", accepted.len()), "a descriptor each".to_owned());
    let refused = lab.call(call, refused);
    lab.expect_errno("accept, with no descriptor left", &refused, Some(Errno::EMFILE));
    lab.expect("accepted, as many as the limit leaves", accepted.len(), free);
    let echoed = clients.iter().zip(&accepted).filter(|(c, s)| echo(c, s).is_ok()).count();
    lab.expect("of these, they that still get an answer", echoed, accepted.len());

    lab.note("The others still wait. For each one that is closed, one can be accepted.");
    let count = accepted.len();
    if let Some(last) = accepted.pop() {
        lab.name(&last, "last");
        lab.close(last);
    }
    let next = lab.accept(listener, SockFlag::empty(), "next");
    lab.expect_errno("accept, after one was closed", &next, None);
    accepted.extend(next);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    let mut queue = kernel::sockets(Protocol::Tcp, &[addr.port()])?;
    queue.retain(|socket| socket.state == "LISTEN");
    lab.show_sockets("the listener (sock_diag)", &queue);
    let waiting = queue.first().map_or(0, |listener| listener.recv_q as usize);
    lab.expect(
        "in the accept queue, of a hundred (Recv-Q)",
        waiting,
        CLIENTS.saturating_sub(count + 1),
    );
    Ok(accepted)
}

/// A client, which will close with a reset, so that nothing of it is left in TIME-WAIT.
fn connect(addr: SocketAddr) -> Result<OwnedFd, Trouble> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    connect_to(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    sys::set_linger(fd.as_fd(), Duration::ZERO)?;
    sys::set_io_timeout(fd.as_fd(), Some(Duration::from_secs(5)))?;
    Ok(fd)
}

/// Accepts a connection; one that is on its way is waited for.
fn accept(listener: &OwnedFd) -> nix::Result<OwnedFd> {
    let fd = listener.as_raw_fd();
    let waiting = sys::poll(&mut [pollfd { fd, events: POLLIN, revents: 0 }], 5000);
    let accepted = waiting.and_then(|_| sys::accept(listener.as_fd(), false));
    accepted.map_err(|error| errno(&error))?.ok_or(Errno::EAGAIN)
}

/// The size of what the kernel keeps of a TCP socket, whatever its state.
fn tcp_object() -> Result<i64, Trouble> {
    let text = fs::read_to_string("/proc/net/protocols")?;
    let line = text.lines().find_map(|line| line.strip_prefix("TCP "));
    let size = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    size.ok_or_else(|| Trouble::Skipped("needs TCP in /proc/net/protocols".to_owned()))
}

/// A byte there and back.
fn echo(client: &OwnedFd, server: &OwnedFd) -> Result<(), Trouble> {
    let mut byte = [0];
    for (from, to) in [(client, server), (server, client)] {
        sys::send(from.as_fd(), b"x")?;
        if sys::recv(to.as_fd(), &mut byte)? != Recv::Data(1) {
            return Err(Trouble::Failed("no answer".to_owned()));
        }
    }
    Ok(())
}
