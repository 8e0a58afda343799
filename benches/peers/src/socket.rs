//! What every contender has in common before its first connection: where it runs and listens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{Domain, Socket, Type};

/// As many may wait to be accepted as with `c10k serve`. The standard library's 128 would cost a
/// burst of newcomers whole seconds.
const BACKLOG: i32 = 4096;

/// Pins this process, with all threads that it will have, and raises its limit of descriptors.
pub(crate) fn prepare(cpu: Option<usize>) -> io::Result<()> {
    if let Some(cpu) = cpu {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        sched_setaffinity(None, &cpus)?;
    }
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Listens on any port, and says on which. The listener does not block.
pub(crate) fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Connections inherit it, so that none has to set it.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    println!("listening on tcp {}", listener.local_addr()?);
    Ok(listener)
}
