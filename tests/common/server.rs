//! The server under test: the program as a child process, or the library in a thread.

use std::io::{self, BufRead, BufReader, Lines, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use c10k::Addr;
use c10k::server::{Handle, Stats};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Candidate, client, comes_true, kernel, start};

/// A `c10k serve` that listens. It is killed when dropped, and when the test dies.
pub(crate) struct Server {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    /// Read by a thread, so that a server that logs a lot does not wait for us.
    stderr: Option<JoinHandle<String>>,
    /// The sockets it had before anybody could have been accepted.
    listeners: usize,
    /// What it says it listens on, as in `tcp 127.0.0.1:7000`.
    pub(crate) addrs: Vec<String>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    /// Standard output after the addresses.
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: String,
}

/// The one line at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) requests: u64,
    pub(crate) connections: u64,
    pub(crate) peak: u64,
    pub(crate) refused: u64,
    pub(crate) errors: u64,
}

/// The program, with the arguments.
pub(crate) fn c10k(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_c10k"));
    c10k::sys::die_with_parent(&mut command);
    start::default_signals(&mut command);
    // At this level it prints everything it has counted when it ends.
    command.args(args).env("RUST_LOG", "c10k=debug").env("RUST_LOG_STYLE", "never");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Server {
    /// Listens on one port of 127.0.0.1.
    #[track_caller]
    pub(crate) fn start(candidate: &Candidate, args: &[&str]) -> Server {
        Server::listening(candidate, &["127.0.0.1:0"], args)
    }

    #[track_caller]
    pub(crate) fn listening(candidate: &Candidate, listen: &[&str], args: &[&str]) -> Server {
        Server::in_environment(candidate, listen, args, &[])
    }

    /// With environment variables of its own.
    #[track_caller]
    pub(crate) fn in_environment(
        candidate: &Candidate,
        listen: &[&str],
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Server {
        let mut all = vec!["serve"];
        for addr in listen {
            all.extend(["--listen", addr]);
        }
        all.extend(candidate.args);
        all.extend(args);
        let mut command = c10k(&all);
        command.envs(environment.iter().copied());
        let each = if args.contains(&"--udp") { 2 } else { 1 };
        Server::spawn(command, listen.len() * each).expect("the program")
    }

    /// A command that makes it listen at so many addresses.
    ///
    /// # Errors
    /// The command cannot be run.
    #[track_caller]
    pub(crate) fn spawn(mut command: Command, addrs_len: usize) -> io::Result<Server> {
        let mut child = command.spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut stderr = child.stderr.take().expect("piped");
        let stderr = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut addrs = Vec::new();
        for _ in 0..addrs_len {
            let Some(Ok(line)) = stdout.next() else {
                let _ = child.kill();
                panic!("it does not listen: {}", stderr.join().unwrap());
            };
            let addr = line.strip_prefix("listening on ").expect("nothing but its addresses");
            addrs.push(addr.to_owned());
        }
        let listeners = kernel::socket_count(child.id());
        Ok(Server { child, stdout, stderr: Some(stderr), listeners, addrs })
    }

    /// The TCP address that was asked for first, or second, ...
    pub(crate) fn addr_at(&self, index: usize) -> SocketAddr {
        let addr = self.addrs[index].strip_prefix("tcp ").expect("a TCP address");
        addr.parse().expect("an address")
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr_at(0)
    }

    /// The UDP address of one that was told `--udp`.
    #[track_caller]
    pub(crate) fn udp_addr(&self) -> SocketAddr {
        let addr = self.addrs.iter().find_map(|addr| addr.strip_prefix("udp "));
        addr.expect("a UDP address").parse().expect("an address")
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> TcpStream {
        client::connect(self.addr())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Those of its children count too.
    pub(crate) fn fds(&self) -> usize {
        kernel::fd_count(self.pid())
    }

    /// The connections that it has open. A child has its parent's sockets too until it has closed
    /// them, so with processes this is exact only when all connections have been answered.
    pub(crate) fn connections(&self) -> usize {
        kernel::socket_count(self.pid()) - self.listeners
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // Not waited for yet, its pid cannot be another process's.
        kill(Pid::from_raw(self.pid() as i32), signal).expect("a child of ours");
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Outcome {
        assert!(comes_true(|| !self.is_running()), "the server does not end");
        let status = self.child.wait().expect("a child of ours");
        let stdout = self.stdout.by_ref().map(|line| line.expect("text")).collect();
        let stderr = self.stderr.take().expect("only taken here").join().unwrap();
        Outcome { status, stdout, stderr }
    }

    /// Tells it to stop. It must do so well.
    #[track_caller]
    pub(crate) fn stop(self) -> Outcome {
        self.signal(Signal::SIGTERM);
        let outcome = self.wait();
        assert!(outcome.status.success(), "{:?}\n{}", outcome.status, outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        outcome
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Outcome {
    /// The summary, which must be all that it printed.
    #[track_caller]
    pub(crate) fn summary(&self) -> Summary {
        let [line] = self.stdout.as_slice() else { panic!("not one line: {:?}", self.stdout) };
        let numbers: Vec<u64> = line
            .split(|c: char| !c.is_ascii_digit())
            .filter(|digits| !digits.is_empty())
            .map(|digits| digits.parse().expect("a number"))
            .collect();
        let [requests, connections, peak, refused, errors] = numbers[..] else {
            panic!("not five numbers: {line}")
        };
        let text = format!(
            "served {requests} requests on {connections} connections, peak {peak}, \
             refused {refused}, errors {errors}"
        );
        assert_eq!(line, &text);
        Summary { requests, connections, peak, refused, errors }
    }

    /// One of the counts of [`Stats`], which are in the log.
    #[track_caller]
    pub(crate) fn count(&self, name: &str) -> u64 {
        let field = format!("{name}: ");
        let line = self.stderr.lines().find_map(|line| line.trim_start().strip_prefix(&field));
        let number = line.unwrap_or_else(|| panic!("no {name} in: {}", self.stderr));
        number.trim_end_matches(',').parse().expect("a number")
    }

    /// How many errors of this kind it counted.
    pub(crate) fn errors(&self, errno: i32) -> u64 {
        let field = format!("{errno}: ");
        let line = self.stderr.lines().find_map(|line| line.trim_start().strip_prefix(&field));
        line.map_or(0, |number| number.trim_end_matches(',').parse().expect("a number"))
    }
}

/// A server of the library, in a thread of this process. It is stopped when dropped.
pub(crate) struct Local {
    pub(crate) handle: Handle,
    running: Option<JoinHandle<Stats>>,
}

impl Local {
    pub(crate) fn start(server: c10k::Server) -> Local {
        let handle = server.handle();
        let running = Some(thread::spawn(move || server.run().expect("a loop")));
        Local { handle, running }
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> TcpStream {
        let Addr::Tcp(addr) = self.handle.local_addrs()[0] else { panic!("not TCP") };
        client::connect(addr)
    }

    pub(crate) fn stop(mut self) -> Stats {
        self.handle.stop();
        self.running.take().expect("stopped once").join().unwrap()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.handle.stop();
    }
}
