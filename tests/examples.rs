//! Runs the examples and talks to them: what the documentation tells people to run must work.

#[path = "common/start.rs"]
#[allow(dead_code)]
mod start;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
use nix::unistd::Pid;
use start::limit_descriptors;

/// How long anything may take before the test gives up. Nothing is expected to take it.
const PATIENCE: Duration = Duration::from_secs(60);

// ---- A running example -------------------------------------------------------------------------

/// A running example. Killed when dropped.
struct Example {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
}

impl Example {
    fn start(name: &'static str, args: &[&str]) -> Example {
        let mut command = Command::new(path(name));
        command.args(args);
        Example::spawn(name, command)
    }

    fn spawn(name: &'static str, mut command: Command) -> Example {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The thread of this test is the parent: nothing it started outlives it.
        let mut child = c10k::sys::die_with_parent(&mut command).spawn().expect(name);

        // A pipe has no time-out, but a channel does.
        let (lines, stdout) = mpsc::channel();
        let pipe = BufReader::new(child.stdout.take().expect("it is piped"));
        thread::spawn(move || {
            pipe.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        // What it complains of is shown with a test that fails.
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| eprintln!("{name}: {line}"))
        });
        let stdin = child.stdin.take();
        Example { name, child, stdin, stdout }
    }

    /// Starts one that listens on a port of the kernel's choice.
    fn serve(name: &'static str) -> Example {
        Example::start(name, &["127.0.0.1:0"])
    }

    /// The next line that it prints, or `None` when there will be no more.
    fn line(&self) -> Option<String> {
        match self.stdout.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("{} prints nothing", self.name),
        }
    }

    /// The address that it says it listens on.
    fn addr(&self) -> String {
        let line = self.line().expect("a line");
        line.strip_prefix("listening on tcp ").expect(&line).to_owned()
    }

    /// Waits for it to end. Returns what else it printed, and how it ended.
    fn end(mut self) -> (Vec<String>, ExitStatus) {
        let rest = std::iter::from_fn(|| self.line()).collect();
        (rest, self.child.wait().expect("a child"))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it is running");
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until it sleeps. A loop that spins never does, but before it has got to what makes it
/// spin: so this wants to see it many times in a row. (Of several threads it sees the first.)
fn sleeps(example: &Example) {
    let stat = format!("/proc/{}/stat", example.child.id());
    let start = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 1_000 {
        let stat = fs::read_to_string(&stat).unwrap();
        let state = stat.rsplit(')').next().unwrap().trim_start();
        in_a_row = if state.starts_with('S') { in_a_row + 1 } else { 0 };
        assert!(start.elapsed() < PATIENCE, "{} spins", example.name);
    }
}

/// The program of an example. Cargo puts it beside the directory of the tests, if it builds it:
/// `cargo test` does, but neither `cargo test --test examples` nor `--all-targets`. So this sees to
/// it that all are there and up to date, which most of the time they are.
fn path(name: &str) -> PathBuf {
    static EXAMPLES: OnceLock<PathBuf> = OnceLock::new();
    let examples = EXAMPLES.get_or_init(|| {
        let test = std::env::current_exe().expect("a path");
        let dir = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/test");
        if let Some(cargo) = std::env::var_os("CARGO") {
            let profile = match dir.file_name().and_then(OsStr::to_str) {
                Some("debug") => "dev",
                other => other.expect("the name of a profile"),
            };
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--examples", "--profile", profile, "--target-dir"]);
            build.arg(dir.parent().expect("the target directory"));
            build.args(["--no-default-features", "--features"]);
            build.arg(match (cfg!(feature = "cli"), cfg!(feature = "json")) {
                (true, _) => "cli,json",
                (false, true) => "json",
                (false, false) => "",
            });
            build.current_dir(env!("CARGO_MANIFEST_DIR"));
            assert!(build.status().expect("cargo").success(), "the examples do not build");
        }
        dir.join("examples")
    });
    let path = examples.join(name);
    assert!(path.exists(), "no {}: build it (cargo build --examples)", path.display());
    path
}

// ---- A client ----------------------------------------------------------------------------------

fn connect(addr: &str) -> TcpStream {
    with_patience(TcpStream::connect(addr).expect(addr))
}

fn with_patience(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A client that takes little at a time, so that a server soon has replies that it cannot send:
/// over the loopback device, with its huge segments, the kernel would take megabytes of them.
fn connect_narrow(addr: &str) -> TcpStream {
    let addr: SocketAddr = addr.parse().unwrap();
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    socket::setsockopt(&fd, sockopt::RcvBuf, &4096).unwrap();
    socket::setsockopt(&fd, sockopt::TcpMaxSeg, &1000).unwrap();
    socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(addr)).unwrap();
    with_patience(TcpStream::from(fd))
}

/// Asserts that exactly this comes next.
fn expect(mut stream: &TcpStream, want: &str) {
    let mut got = vec![0; want.len()];
    stream.read_exact(&mut got).unwrap_or_else(|error| panic!("no {want:?}: {error}"));
    assert_eq!(String::from_utf8_lossy(&got), want);
}

/// Asserts that exactly this comes next, and then EOF.
fn expect_last(mut stream: &TcpStream, want: &str) {
    let mut got = String::new();
    stream.read_to_string(&mut got).unwrap_or_else(|error| panic!("no {want:?}: {error}"));
    assert_eq!(got, want);
}

fn send(mut stream: &TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

fn ask(stream: &TcpStream, request: &str, reply: &str) {
    send(stream, request);
    expect(stream, reply);
}

// ---- Servers that echo lines -------------------------------------------------------------------

/// What every line echo must get right, however it is made.
fn echoes_lines(addr: &str) {
    let client = connect(addr);
    ask(&client, "hello\n", "hello\n");
    ask(&client, "several\nat\n\nonce\n", "several\nat\n\nonce\n");

    // In pieces. Once others have been served, the server has had a look at the first piece.
    let other = connect(addr);
    send(&client, "spl");
    ask(&other, "other\n", "other\n");
    send(&client, "it\nand");
    expect(&client, "split\n");
    ask(&other, "other\n", "other\n");
    ask(&client, " more\n", "and more\n");

    // A half-close: all replies, then EOF, and nothing for what is no line.
    send(&client, "one\ntwo\nunfinished");
    client.shutdown(Shutdown::Write).unwrap();
    expect_last(&client, "one\ntwo\n");

    // All of it in one go.
    let client = connect(addr);
    send(&client, "one\ntwo\n");
    client.shutdown(Shutdown::Write).unwrap();
    expect_last(&client, "one\ntwo\n");

    // Nothing at all.
    let client = connect(addr);
    client.shutdown(Shutdown::Write).unwrap();
    expect_last(&client, "");
    ask(&other, "still here\n", "still here\n");
}

/// Many clients at once, who leave in another order than they came.
fn serves_many(addr: &str) {
    let mut clients: Vec<_> = (0..100).map(|_| connect(addr)).collect();
    for round in 0..3 {
        for (i, client) in clients.iter().enumerate() {
            send(client, &format!("{i} of round {round}\n"));
        }
        for (i, client) in clients.iter().enumerate().rev() {
            expect(client, &format!("{i} of round {round}\n"));
        }
        let mut i = 0;
        clients.retain(|_| {
            i += 1;
            i % 3 != 0
        });
        clients.extend((0..10).map(|_| connect(addr)));
    }
}

/// A client that writes far more than fits all buffers on the way before it reads: the server must
/// hold what it can, stop reading, and take up again in the right place.
fn survives_a_slow_reader(example: &Example, addr: &str) {
    const LINES: usize = 250_000;
    let line = |i: usize| format!("this is line {i} of a great many\n");

    let client = connect_narrow(addr);
    client.set_nonblocking(true).unwrap();
    let text: String = (0..LINES).map(line).collect();
    let mut rest = text.as_bytes();
    // Until the server has come to rest and nothing more goes in.
    while !rest.is_empty() {
        sleeps(example);
        match (&client).write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(!rest.is_empty(), "it took everything, and must be holding it");
    client.set_nonblocking(false).unwrap();
    // It has not taken the server away from the others.
    let other = connect(addr);
    ask(&other, "other\n", "other\n");

    thread::scope(|scope| {
        scope.spawn(|| {
            (&client).write_all(rest).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        let mut lines = BufReader::with_capacity(1000, &client).lines();
        for i in 0..LINES {
            let got = lines.next().expect("another line").unwrap();
            assert_eq!(got, line(i).trim_end());
        }
        assert!(lines.next().is_none());
    });
}

/// Clients that send, and read only later. As they send more and more, the server is in turn done
/// with them; has replies unsent; and has requests that it does not read for all those replies.
/// Every other client has shut down its sending side, so that EOF is behind all this. The server
/// must forget none of it, and sleep meanwhile.
fn survives_late_readers(example: &Example, addr: &str) {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..64)
            .map(|i| {
                let client = Arc::new(connect_narrow(addr));
                let text = format!("line of client {i}\n").repeat(i * 400);
                let (sender, sent) = (client.clone(), text.clone());
                scope.spawn(move || {
                    send(&sender, &sent);
                    if i % 2 == 0 {
                        sender.shutdown(Shutdown::Write).unwrap();
                    }
                });
                (client, text)
            })
            .collect();
        sleeps(example);
        for (i, (client, text)) in clients.into_iter().enumerate() {
            if i % 2 == 1 {
                expect(&client, &text);
                client.shutdown(Shutdown::Write).unwrap();
                expect_last(&client, "");
            } else {
                expect_last(&client, &text);
            }
        }
    });
}

/// Clients that go away without reading: the server gets resets and broken pipes.
fn survives_resets(addr: &str) {
    for _ in 0..20 {
        let client = connect(addr);
        send(&client, &"never read\n".repeat(10_000));
        // Closing with replies unread, or yet to come, sends a reset.
        drop(client);
    }
    ask(&connect(addr), "still here\n", "still here\n");
}

fn is_a_good_line_echo(example: &Example) -> String {
    let addr = &example.addr();
    echoes_lines(addr);
    serves_many(addr);
    survives_a_slow_reader(example, addr);
    survives_late_readers(example, addr);
    survives_resets(addr);
    sleeps(example);
    addr.clone()
}

#[test]
fn echo_server() {
    let example = Example::serve("echo_server");
    let addr = is_a_good_line_echo(&example);

    // What was sent before the signal is answered after it.
    let client = connect(&addr);
    ask(&client, "before\n", "before\n");
    send(&client, "last\n");
    example.signal(Signal::SIGTERM);
    expect_last(&client, "last\n");
    drop(client);
    let (rest, status) = example.end();
    assert!(status.success(), "{status}");
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert!(rest[0].starts_with("served ") && rest[0].contains(" requests on "), "{rest:?}");
}

#[test]
fn echo_server_stops_on_ctrl_c() {
    let example = Example::serve("echo_server");
    ask(&connect(&example.addr()), "one\ntwo\n", "one\ntwo\n");
    example.signal(Signal::SIGINT);
    let (rest, status) = example.end();
    assert!(status.success(), "{status}");
    assert_eq!(rest, ["served 2 requests on 1 connections, peak 1, refused 0, errors 0"]);
}

#[test]
fn echo_server_says_why_it_cannot_start() {
    let first = Example::serve("echo_server");
    let second = Example::start("echo_server", &[&first.addr()]);
    let (rest, status) = second.end();
    assert_eq!((rest.len(), status.code()), (0, Some(1)));
}

#[test]
fn thread_per_connection() {
    let example = Example::serve("thread_per_connection");
    is_a_good_line_echo(&example);

    example.signal(Signal::SIGTERM);
    let (rest, status) = example.end();
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(status.signal(), Some(Signal::SIGTERM as i32), "it says that it just dies");
}

// ---- The bare loop -----------------------------------------------------------------------------

#[test]
fn bare_loop() {
    let example = Example::serve("bare_loop");
    is_a_good_line_echo(&example);

    example.signal(Signal::SIGTERM);
    let (rest, status) = example.end();
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(status.signal(), Some(Signal::SIGTERM as i32), "it says that it just dies");
}

#[test]
fn bare_loop_bounds_a_line() {
    let example = Example::serve("bare_loop");
    let addr = example.addr();
    let client = connect(&addr);
    let line = "x".repeat(60_000) + "\n";
    ask(&client, &line, &line);

    // It is thrown out: with or without a reset, depending on what it had sent by then.
    let _ = (&client).write_all("x".repeat(200_000).as_bytes());
    match (&client).read(&mut [0; 1]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
    ask(&connect(&addr), "still here\n", "still here\n");
}

/// Whatever its clients are in the middle of, it sleeps when there is nothing to do.
#[test]
fn bare_loop_does_not_spin() {
    let example = Example::serve("bare_loop");
    let addr = example.addr();

    let idle = connect(&addr);
    let unfinished = connect(&addr);
    send(&unfinished, "unfinished");
    let reset = connect(&addr);
    send(&reset, &"never read\n".repeat(1_000));
    drop(reset);

    ask(&idle, "hello\n", "hello\n");
    sleeps(&example);
    // None of the others was forgotten.
    ask(&unfinished, "\n", "unfinished\n");
}

/// Out of descriptors, it goes on with the clients that it has, and takes others when some leave.
#[test]
fn bare_loop_runs_out_of_descriptors() {
    let mut command = Command::new(path("bare_loop"));
    limit_descriptors(command.arg("127.0.0.1:0"), 20);
    let example = Example::spawn("bare_loop", command);
    let addr = example.addr();

    let mut clients: Vec<_> = (0..30).map(|_| connect(&addr)).collect();
    for client in &clients {
        send(client, "hello\n");
    }
    for _ in 0..2 {
        // Those who came first are in.
        for client in &clients[..10] {
            expect(client, "hello\n");
            send(client, "hello\n");
        }
    }
    for client in &clients[..10] {
        expect(client, "hello\n");
    }
    sleeps(&example);
    // They leave, and the others get in.
    for client in clients.drain(..10) {
        drop(client);
    }
    while !clients.is_empty() {
        expect(&clients[0], "hello\n");
        clients.remove(0);
    }
}

// ---- Services ----------------------------------------------------------------------------------

#[cfg(feature = "json")]
#[test]
fn sum_server() {
    let example = Example::serve("sum_server");
    let addr = example.addr();
    let client = connect(&addr);
    let other = connect(&addr);
    ask(&client, r#"{"A":7,"B":4}"#, r#"{"Sum":11}"#);
    ask(&client, r#"{"A":1}{"b":2} {}"#, r#"{"Sum":1}{"Sum":2}{"Sum":0}"#);
    send(&client, r#"{"A":4"#);
    ask(&other, "{}", r#"{"Sum":0}"#);
    ask(&client, r#"0,"B":2}"#, r#"{"Sum":42}"#);

    send(&client, r#"{"A":1}{"B":"#);
    client.shutdown(Shutdown::Write).unwrap();
    expect_last(&client, r#"{"Sum":1}"#);

    // After what makes no sense there is no finding the next request: an error, then EOF.
    send(&other, r#"{"A":"x"}{}"#);
    let mut reply = String::new();
    (&other).read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with(r#"{"Error":""#) && reply.ends_with(r#""}"#), "{reply}");

    // The same for a request that is no sum.
    let long = connect(&addr);
    send(&long, &format!(r#"{{"A":{}"#, " ".repeat(2_000)));
    expect_last(&long, r#"{"Error":"frame too long"}"#);

    drop((client, other, long));
    example.signal(Signal::SIGTERM);
    let (rest, status) = example.end();
    assert!(status.success(), "{status}");
    assert_eq!(rest, ["served 8 requests on 3 connections, peak 2, refused 1, errors 0"]);
}

#[test]
fn custom_service() {
    let example = Example::serve("custom_service");
    let addr = example.addr();
    let (one, two) = (connect(&addr), connect(&addr));
    ask(&one, "GET colour\n", "NONE\n");
    ask(&one, "SET colour dark green\nGET colour\n", "OK\nVALUE dark green\n");
    // What one sets the other gets.
    ask(&two, "GET colour\nSET colour \n", "VALUE dark green\nOK\n");
    ask(&one, "GET colour\n", "VALUE \n");
    // A request that makes no sense is answered, and so is the next.
    let error = "ERROR not GET key, SET key value or QUIT\n";
    ask(&one, "get colour\nGET a b\n\nGET colour\n", &format!("{error}{error}{error}VALUE \n"));
    // The count is each connection's own. What follows QUIT is dropped.
    send(&two, "QUIT\nGET colour\n");
    expect_last(&two, "BYE after 3 requests\n");

    send(&one, "SET half-closed yes\nGET half-closed\nGET unfin");
    one.shutdown(Shutdown::Write).unwrap();
    expect_last(&one, "OK\nVALUE yes\n");

    drop((one, two));
    example.signal(Signal::SIGTERM);
    let (rest, status) = example.end();
    assert!(status.success(), "{status}");
    assert_eq!(rest, ["served 13 requests on 2 connections, peak 2, refused 0, errors 0"]);
}

// ---- Descriptors of one's own ------------------------------------------------------------------

#[test]
fn own_fd() {
    let mut example = Example::start("own_fd", &[]);
    let mut stdin = example.stdin.take().expect("it is piped");

    // Everything that it waits for comes, in whatever order.
    let mut lines = Vec::new();
    let mut read_until = |wanted: &[&str]| {
        while !wanted
            .iter()
            .all(|&wanted| lines.iter().any(|line: &String| line.starts_with(wanted)))
        {
            lines.push(example.line().expect("it waits for more"));
        }
    };
    stdin.write_all(b"one\ntw").unwrap();
    let timer = "timer: one second has passed";
    read_until(&["input: one", "tick: ", "thread: the sum is 500000500000", timer]);
    stdin.write_all(b"o\nthree\nunfini").unwrap();
    stdin.write_all(b"shed").unwrap();
    read_until(&["input: three"]);
    drop(stdin);

    let (rest, status) = example.end();
    assert!(status.success(), "{status}");
    lines.extend(rest);
    let input: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("input: ")).collect();
    assert_eq!(input, ["one", "two", "three", "10 bytes and no end of line"]);
    assert_eq!(lines.iter().filter(|&line| line == timer).count(), 1);
}

#[test]
fn own_fd_says_what_cannot_be_waited_for() {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" <\"$0\" 2>&1"]).arg(path("own_fd"));
    let (rest, status) = Example::spawn("own_fd", command).end();
    assert_eq!(status.code(), Some(1));
    assert!(rest[0].contains("standard input cannot be waited for"), "{rest:?}");
}
