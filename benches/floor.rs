//! `c10k serve` beside the floor: a bare edge-triggered epoll loop that sends back whatever it
//! receives, with no framing, no buffers, no limits and no time-outs. Nothing that uses epoll is
//! faster, so the ratio says what all the rest costs.
//!
//! `cargo bench --bench floor`, or with fewer rounds, and some numbers of connections only:
//! `cargo bench --bench floor -- 3 10000`
//!
//! Both are loaded by `c10k load`, in turn, round after round, the server on CPU 0 and the load
//! on CPU 1. What is compared is requests per CPU second of the server, which stays true when the
//! load generator is the slower of the two; the rate is shown beside it.

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    Backlog, MsgFlags, SockFlag, accept4, listen, recv, send, setsockopt, sockopt,
};

const C10K: &str = env!("CARGO_BIN_EXE_c10k");
const CONNECTIONS: [u32; 2] = [100, 10_000];
const PIPELINES: [u32; 2] = [1, 32];
const ROUNDS: u32 = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.first().is_some_and(|arg| arg == "serve") {
        return Ok(floor()?);
    }
    let mut numbers = args.iter().map(|arg| arg.parse::<u32>());
    let rounds = numbers.next().unwrap_or(Ok(ROUNDS))?;
    let mut connections = numbers.collect::<Result<Vec<_>, _>>()?;
    if connections.is_empty() {
        connections.extend(CONNECTIONS);
    }
    println!("requests per server CPU second and rate, against the floor; {rounds} rounds\n");
    for connections in connections {
        for pipeline in PIPELINES {
            compare(rounds, connections, pipeline)?;
        }
    }
    Ok(())
}

// ---- The floor ----

/// Accepts and echoes until killed. Errors end a connection, or the program.
fn floor() -> io::Result<()> {
    c10k::sys::raise_fd_limit()?;
    c10k::sys::pin_to_cpu(0)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    // std listens with a backlog of 128; accepted sockets inherit TCP_NODELAY.
    listen(&listener, Backlog::MAXCONN)?;
    setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
    println!("listening on tcp {}", listener.local_addr()?);

    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let number = |fd: &dyn AsRawFd| fd.as_raw_fd() as u64;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, number(&listener)))?;
    // A connection's descriptor is its index: no look-up could be cheaper.
    let mut connections: Vec<Option<OwnedFd>> = Vec::new();
    let mut events = [EpollEvent::empty(); 128];
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            ready => ready?,
        };
        for event in &events[..ready] {
            if event.data() == number(&listener) {
                let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
                while let Ok(fd) = accept4(listener.as_raw_fd(), flags) {
                    // SAFETY: accept4 returned this descriptor just now, and nobody else has it.
                    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                    let mask = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
                    epoll.add(fd.as_fd(), EpollEvent::new(mask, number(&fd)))?;
                    let index = fd.as_raw_fd() as usize;
                    if connections.len() <= index {
                        connections.resize_with(index + 1, || None);
                    }
                    connections[index] = Some(fd);
                }
                continue;
            }
            let fd = event.data() as i32;
            // Until it would block, as edge triggering asks; a short read says as much.
            loop {
                let n = match recv(fd, &mut buffer, MsgFlags::empty()) {
                    Ok(n) if n > 0 => n,
                    Err(Errno::EINTR) => continue,
                    Err(Errno::EAGAIN) => break,
                    _ => {
                        connections[fd as usize] = None;
                        break;
                    }
                };
                // The client reads all that it has asked for, so the send buffer has room.
                if send(fd, &buffer[..n], MsgFlags::MSG_NOSIGNAL) != Ok(n) {
                    connections[fd as usize] = None;
                    break;
                }
                if n < buffer.len() {
                    break;
                }
            }
        }
    }
}

// ---- The comparison ----

/// What one run of one server came to.
struct Run {
    per_cpu_second: f64,
    per_second: f64,
}

fn compare(rounds: u32, connections: u32, pipeline: u32) -> Result<(), Box<dyn Error>> {
    let (mut cpu_ratios, mut rate_ratios) = (Vec::new(), Vec::new());
    let (mut ours_rates, mut floor_rates) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // In turn who goes first, so that a drift of the machine favours neither.
        let ours_first = round % 2 == 0;
        let run = |ours| run(ours, connections, pipeline);
        let first = run(ours_first)?;
        let second = run(!ours_first)?;
        let (ours, floor) = if ours_first { (first, second) } else { (second, first) };
        cpu_ratios.push(ours.per_cpu_second / floor.per_cpu_second);
        rate_ratios.push(ours.per_second / floor.per_second);
        ours_rates.push(ours.per_second);
        floor_rates.push(floor.per_second);
    }
    println!(
        "{connections:>6} connections, {pipeline:>2} under way: per CPU second {}, rate {} \
         ({:.0} against {:.0} requests/s)",
        spread(&mut cpu_ratios),
        spread(&mut rate_ratios),
        median(&mut ours_rates),
        median(&mut floor_rates),
    );
    Ok(())
}

fn run(ours: bool, connections: u32, pipeline: u32) -> Result<Run, Box<dyn Error>> {
    let mut command =
        if ours { Command::new(C10K) } else { Command::new(std::env::current_exe()?) };
    command.arg("serve");
    if ours {
        command.args(["--listen", "127.0.0.1:0", "--cpu", "0"]).env("RUST_LOG", "error");
    }
    c10k::sys::die_with_parent(&mut command);
    let server = Killed(command.stdout(Stdio::piped()).spawn()?);
    let (server, addr) = server.address()?;

    let mut load = Command::new(C10K);
    load.env("RUST_LOG", "error")
        .args(["load", &addr, "--json", "--cpu", "1", "--duration", "1500ms"])
        .args(["--connections", &connections.to_string()])
        .args(["--pipeline", &pipeline.to_string()])
        .args(["--server-pid", &server.0.id().to_string()]);
    let output = load.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("the load failed: {}", output.status).into());
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let number = |name: &str| report[name].as_f64().ok_or(format!("no {name} in the report"));
    Ok(Run {
        per_cpu_second: 1e6 / number("server_cpu_us_per_request")?,
        per_second: number("requests_per_s")?,
    })
}

/// A child that does not outlive this.
struct Killed(Child);

impl Killed {
    /// Reads the line in which the server says where it listens.
    fn address(mut self) -> io::Result<(Killed, String)> {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().expect("piped")).read_line(&mut line)?;
        let addr = line.trim_end().strip_prefix("listening on tcp ").map(str::to_owned);
        Ok((self, addr.ok_or_else(|| io::Error::other(line))?))
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spread(ratios: &mut [f64]) -> String {
    let median = median(ratios);
    format!("{median:.3} [{:.3}, {:.3}]", ratios[0], ratios[ratios.len() - 1])
}
