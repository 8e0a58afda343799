//! What the kernel itself says: of sockets (`sock_diag(7)`), of counters and of descriptors
//! (`proc(5)`).

use std::error::Error;
use std::ffi::c_long;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use c10k::sys;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_packet_sock_diag::{SockDiagMessage, inet::InetResponse};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::errno::Errno;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

use super::Trouble;
use super::record::Lab;
use crate::units::grouped;

/// A socket as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// As `ss(8)` writes it.
    pub(crate) state: &'static str,
    /// Bytes that wait to be received; of a listener, connections that wait to be accepted.
    pub(crate) recv_q: u32,
    /// Bytes sent and not yet acknowledged; of a listener, how many connections may wait.
    pub(crate) send_q: u32,
}

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Lab {
    /// Shows the TCP sockets with one of these ports at either end, and returns them: listeners
    /// first, then by their local and their remote address.
    pub(crate) fn sockets(&mut self, ports: &[u16]) -> Result<Vec<Socket>, Trouble> {
        let found = sockets(Protocol::Tcp, ports)?;
        self.show_sockets("the sockets (sock_diag)", &found);
        Ok(found)
    }

    /// Shows sockets as a table.
    pub(crate) fn show_sockets(&mut self, source: &str, sockets: &[Socket]) {
        let mut lines = vec![format!(
            "{:<11} {:>7} {:>8}  {:<20}  {}",
            "STATE", "RECV-Q", "SEND-Q", "LOCAL", "REMOTE"
        )];
        for Socket { local, remote, state, recv_q, send_q } in sockets {
            let remote = match remote.port() {
                0 => "*".to_owned(),
                _ => remote.to_string(),
            };
            lines.push(format!(
                "{state:<11} {recv_q:>7} {send_q:>8}  {:<20}  {remote}",
                local.to_string()
            ));
        }
        self.kernel(source, lines);
    }

    /// Shows what an epoll instance watches: `/proc/self/fdinfo` (`proc_pid_fdinfo(5)`).
    pub(crate) fn show_watched(&mut self, epoll: impl AsFd) -> Result<Vec<String>, Trouble> {
        let path = format!("/proc/self/fdinfo/{}", epoll.as_fd().as_raw_fd());
        let text = fs::read_to_string(&path)?;
        let watched = text.lines().filter(|line| line.starts_with("tfd:"));
        // "tfd:  4 events:  19 data:  0  pos:0 ino:7 sdev:8": what follows the data varies.
        let watched: Vec<_> = watched
            .map(|line| {
                let words: Vec<_> = line.split_whitespace().take(6).collect();
                words.join(" ")
            })
            .collect();
        let lines = if watched.is_empty() { vec!["(nothing)".to_owned()] } else { watched.clone() };
        self.kernel(&format!("{path}: what is watched"), lines);
        Ok(watched)
    }

    /// A network of this lab's own, with nothing but a loopback interface, which is up: what is
    /// changed in it (`/proc/sys/net`, links) is changed nowhere else, and it is gone when the
    /// process ends. The process must have no other thread.
    pub(crate) fn own_network(&mut self) -> Result<(), Trouble> {
        let result = sys::own_network();
        let shown = match &result {
            Ok(()) => "0".to_owned(),
            Err(error) => format!("-1 ({error})"),
        };
        self.called("unshare(CLONE_NEWNET)".to_owned(), shown);
        result.map_err(|error| {
            Trouble::Skipped(format!("needs a network namespace of its own: {error}"))
        })?;
        sys::set_link_up("lo", true)?;
        self.called("ioctl(SIOCSIFFLAGS, \"lo\", IFF_UP)".to_owned(), "0".to_owned());
        Ok(())
    }

    /// Writes a parameter of the kernel (`/proc/sys`), as in `net/ipv4/tcp_fin_timeout`. Only in
    /// a network of the lab's own.
    pub(crate) fn sysctl(&mut self, name: &str, value: &str) -> Result<(), Trouble> {
        fs::write(format!("/proc/sys/{name}"), value)
            .map_err(|error| Trouble::Skipped(format!("cannot set {name}: {error}")))?;
        self.called(format!("sysctl {}={value}", name.replace('/', ".")), "0".to_owned());
        Ok(())
    }
}

/// What every lab needs: `/proc`, where the kernel says what it has seen, and a few descriptors.
pub(super) fn prepare() -> Result<(), Trouble> {
    if !fs::exists("/proc/self/status").unwrap_or(false) {
        return Err(Trouble::Skipped("needs /proc, which is not mounted".to_owned()));
    }
    needs_descriptors(32)
}

/// Raises the soft limit on descriptors to the hard one, which must allow this many: a lab whose
/// children run out of them would see something else than what it claims.
pub(super) fn needs_descriptors(count: u64) -> Result<(), Trouble> {
    let limit = match sys::raise_fd_limit() {
        Ok(limit) => limit,
        // Some sandboxes refuse it; then the soft limit may do.
        Err(_) => getrlimit(Resource::RLIMIT_NOFILE)?.0,
    };
    if limit < count {
        let [count, limit] = [count, limit].map(|count| grouped(count as f64));
        let why = format!("needs {count} descriptors, and may have {limit} (ulimit -n)");
        return Err(Trouble::Skipped(why));
    }
    Ok(())
}

/// What a call lacked that failed with this error, if it failed for want of something.
pub(super) fn lacks(error: &(dyn Error + 'static)) -> Option<String> {
    let errno = match (error.downcast_ref::<Errno>(), error.downcast_ref::<io::Error>()) {
        (Some(errno), _) => *errno,
        (_, Some(error)) => Errno::from_raw(error.raw_os_error()?),
        _ => return None,
    };
    match errno {
        Errno::EMFILE => {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            Some(format!("more descriptors than {limit} (ulimit -n)"))
        }
        Errno::ENFILE => Some("more open files than the system may have (fs.file-max)".to_owned()),
        Errno::ENOSYS => Some("a system call that this kernel does not have".to_owned()),
        _ => None,
    }
}

/// The pid that `fork` returned. That no process more is allowed says nothing about a claim.
pub(super) fn forked(result: io::Result<u32>) -> Result<u32, Trouble> {
    result.map_err(|error| match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            let limit = sys::task_limit();
            Trouble::Skipped(format!("needs more processes: {error}; the limit: {limit}"))
        }
        _ => error.into(),
    })
}

/// How long the kernel may take for what it does by itself: sending again, mostly, after 200 ms at
/// the earliest, then after 400 ms, and so on.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Has a blocking socket wait no longer than that: a lab ends also where its claim is false.
pub(crate) fn with_patience(fd: &OwnedFd) -> io::Result<()> {
    sys::set_io_timeout(fd.as_fd(), Some(PATIENCE))
}

/// Looks again until something is so, for 5 s at most, and says whether it came to be so: also
/// over the loopback interface a packet arrives some time after the call that sent it.
pub(crate) fn until(mut so: impl FnMut() -> Result<bool, Trouble>) -> Result<bool, Trouble> {
    let end = Instant::now() + PATIENCE;
    while !so()? {
        if Instant::now() > end {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(true)
}

/// The sockets with one of these ports at either end, IPv4 and IPv6.
pub(crate) fn sockets(protocol: Protocol, ports: &[u16]) -> Result<Vec<Socket>, Trouble> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        found.extend(dump(family, protocol)?);
    }
    found.retain(|socket: &Socket| {
        ports.contains(&socket.local.port()) || ports.contains(&socket.remote.port())
    });
    found.sort_by_key(|socket| (socket.remote.port() != 0, socket.local, socket.remote));
    Ok(found)
}

/// All sockets of a family.
fn dump(family: u8, protocol: Protocol) -> Result<Vec<Socket>, Trouble> {
    match ask(family, protocol) {
        // A kernel without IPv6 has no sockets of it, and nobody to ask.
        Err(error) if family == AF_INET6 && error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        // It may be refused, as by some containers, or not be there.
        result => result.map_err(|error| {
            let needs = format!("needs sock_diag(7), to ask the kernel for sockets: {error}");
            Trouble::Skipped(needs)
        }),
    }
}

fn ask(family: u8, protocol: Protocol) -> io::Result<Vec<Socket>> {
    let mut netlink = netlink_sys::Socket::new(NETLINK_SOCK_DIAG)?;
    netlink.bind_auto()?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: match protocol {
            Protocol::Tcp => IPPROTO_TCP,
            Protocol::Udp => IPPROTO_UDP,
        },
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
    });
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    netlink.send(&bytes, 0)?;

    let mut found = Vec::new();
    loop {
        // A whole datagram, whatever its size.
        let (datagram, _) = netlink.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    found.push(socket(&response));
                }
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            // Messages are aligned to four bytes (netlink(7)).
            let length = (message.header.length as usize).next_multiple_of(4).max(4);
            rest = &rest[length.min(rest.len())..];
        }
    }
}

fn socket(response: &InetResponse) -> Socket {
    let header = &response.header;
    let id = &header.socket_id;
    Socket {
        local: SocketAddr::new(id.source_address, id.source_port),
        remote: SocketAddr::new(id.destination_address, id.destination_port),
        state: state(header.state),
        recv_q: header.recv_queue,
        send_q: header.send_queue,
    }
}

/// The name of a TCP state (`include/net/tcp_states.h`), as `ss(8)` writes it.
fn state(number: u8) -> &'static str {
    match number {
        1 => "ESTAB",
        2 => "SYN-SENT",
        3 => "SYN-RECV",
        4 => "FIN-WAIT-1",
        5 => "FIN-WAIT-2",
        6 => "TIME-WAIT",
        7 => "UNCONN",
        8 => "CLOSE-WAIT",
        9 => "LAST-ACK",
        10 => "LISTEN",
        11 => "CLOSING",
        _ => "?",
    }
}

/// How many sockets are in this state.
pub(crate) fn in_state(sockets: &[Socket], state: &str) -> usize {
    sockets.iter().filter(|socket| socket.state == state).count()
}

/// How many connections wait to be accepted, of all listeners on this port together.
pub(crate) fn queued(port: u16) -> Result<u32, Trouble> {
    let sockets = sockets(Protocol::Tcp, &[port])?;
    Ok(sockets
        .iter()
        .filter(|s| s.state == "LISTEN" && s.local.port() == port)
        .map(|s| s.recv_q)
        .sum())
}

/// What this thread has done so far.
pub(crate) struct ThreadTime {
    /// How often it gave up the CPU by itself, to wait for something (`getrusage(2)`, `ru_nvcsw`).
    pub(crate) sleeps: c_long,
    pub(crate) on_cpu: Duration,
    /// How long it was ready to run and had no CPU.
    pub(crate) queued: Duration,
}

/// How long this thread has run, and has waited to (`/proc/thread-self/schedstat`, which is in
/// `Documentation/scheduler/sched-stats.rst`).
pub(crate) fn thread_time() -> Result<ThreadTime, Trouble> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let mut nanos = text.split_whitespace().map_while(|nanos| nanos.parse().ok());
    let (Some(on_cpu), Some(queued)) = (nanos.next(), nanos.next()) else {
        return Err(Trouble::Skipped("needs schedstat (CONFIG_SCHED_INFO)".to_owned()));
    };
    let sleeps = getrusage(UsageWho::RUSAGE_THREAD)?.voluntary_context_switches();
    let (on_cpu, queued) = (Duration::from_nanos(on_cpu), Duration::from_nanos(queued));
    Ok(ThreadTime { sleeps, on_cpu, queued })
}
