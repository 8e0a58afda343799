//! `c10k client`, against `c10k serve`.

#![cfg(feature = "cli")]

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::process::{Child, ChildStdout, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use common::server::c10k;
use common::{EPOLL, EVERY_MODEL, Server, each_of};

/// Runs the client with the arguments, and with `input` on its standard input.
fn client(addr: &str, args: &[&str], input: &str) -> Output {
    let args: Vec<_> = args.iter().map(|arg| arg.as_bytes()).collect();
    client_of_bytes(addr, &args, input.as_bytes())
}

fn client_of_bytes(addr: &str, args: &[&[u8]], input: &[u8]) -> Output {
    let mut command = c10k(&["client", addr]);
    command.args(args.iter().map(|arg| OsStr::from_bytes(arg)));
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the program");
    child.stdin.take().unwrap().write_all(input).expect("a client that reads");
    child.wait_with_output().expect("a child of ours")
}

#[track_caller]
fn prints(output: &Output, stdout: &str) {
    let found = String::from_utf8_lossy(&output.stdout);
    assert_eq!(found, stdout, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
}

/// It must end with this status, and say why in one line.
#[track_caller]
fn fails(output: &Output, status: i32, part: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("c10k: ")).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(lines[0].contains(part), "{stderr}");
}

#[test]
fn one_reply_for_each_message() {
    each_of(EVERY_MODEL, |model| {
        let server = Server::start(model, &[]);
        let addr = server.addr().to_string();
        prints(&client(&addr, &["hello", "", "a b"], ""), "hello\n\na b\n");
        assert_eq!(server.stop().summary().requests, 3);
    });
}

#[test]
fn a_prompt_ends_at_eof_or_q() {
    let server = Server::start(&EPOLL, &["--prefix", "got:"]);
    let addr = server.addr().to_string();
    prints(&client(&addr, &[], "one\ntwo"), "got:one\ngot:two\n");
    prints(&client(&addr, &[], "one\nq\nnot asked\n"), "got:one\n");
    assert_eq!(server.stop().summary().requests, 3);
}

#[test]
fn options_are_options_wherever_they_stand() {
    let server = Server::start(&EPOLL, &["--delimiter", "\\t"]);
    let addr = server.addr().to_string();
    prints(&client(&addr, &["aaaa", "--delimiter", "\\t"], ""), "aaaa\n");
    prints(&client(&addr, &["a", "--delimiter=\\t", "b", "--timeout", "9s"], ""), "a\nb\n");
    // Numbers are messages, and so is all that comes after two hyphens.
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    prints(&client(&addr, &["-5", "-0.5", "--timeout", "9s"], ""), "-5\n-0.5\n");
    let hyphens = ["--timeout", "9s", "--", "-x", "--udp", "--"];
    prints(&client(&addr, &hyphens, ""), "-x\n--udp\n--\n");
    fails(&client(&addr, &["hello", "-x"], ""), 2, "after --: -- -x");
}

#[test]
fn messages_and_replies_are_bytes() {
    let server = Server::start(&EPOLL, &[]);
    let addr = server.addr().to_string();
    let bytes = b"ok\n\xff\xfe\n\0\x80\r\nlast";
    let output = client_of_bytes(&addr, &[], bytes);
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(0), &[bytes, &b"\n"[..]].concat()[..])
    );
    let output = client_of_bytes(&addr, &[b"\xff\xfe", b"ok"], b"");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"\xff\xfe\nok\n"[..]));
    // As a terminal or a file of Windows has it.
    prints(&client(&addr, &[], "one\r\nq\r\nnot asked\r\n"), "one\r\n");

    // A path too.
    let mut path = std::env::temp_dir().into_os_string().into_encoded_bytes();
    path.extend(format!("/c10k-{}-\u{e9}", std::process::id()).bytes());
    path.pop();
    let file = OsStr::from_bytes(&path);
    let listener = UnixListener::bind(file).unwrap();
    let echo = thread::spawn(move || {
        let (mut one, _) = listener.accept().unwrap();
        let mut bytes = [0; 6];
        one.read_exact(&mut bytes).unwrap();
        one.write_all(&bytes).unwrap();
    });
    let mut command = c10k(&["client"]);
    command.arg(OsStr::from_bytes(&[b"unix:", &path[..]].concat())).arg("hello");
    let output = command.output().unwrap();
    fs::remove_file(file).unwrap();
    prints(&output, "hello\n");
    echo.join().unwrap();
}

#[test]
fn options_that_would_do_nothing_are_refused() {
    let addr = "127.0.0.1:9";
    for (addr, args, why) in [
        (
            addr,
            &["--protocol", "sum", "--delimiter", "x"][..],
            "--delimiter is for --protocol echo",
        ),
        (addr, &["--udp", "--delimiter", "x"], "--delimiter"),
        (addr, &["--udp", "--connect-timeout", "1s"], "--connect-timeout"),
        (addr, &["--udp", "--keepalive", "1s"], "--keepalive"),
        (addr, &["--reuse-port"], "--source"),
        (addr, &["--timeout", "0s"], "at least 1us"),
        (addr, &["--keepalive", "10h"], "1s to 32767s"),
        ("unix:/nonexistent", &["--source", "127.0.0.1"], "--source is for IP addresses"),
        ("unix:/nonexistent", &["--keepalive", "1s"], "--keepalive is for TCP"),
    ] {
        fails(&client(addr, &[args, &["hello"]].concat(), ""), 2, why);
    }
    let directory = File::open("/").unwrap();
    let server = Server::start(&EPOLL, &[]);
    let output = c10k(&["client", &server.addr().to_string()]).stdin(directory).output().unwrap();
    fails(&output, 2, "cannot read standard input: Is a directory");
}

#[test]
fn delimiters_and_sums() {
    let server = Server::start(&EPOLL, &["--delimiter", "0x1e"]);
    let addr = server.addr().to_string();
    prints(&client(&addr, &["--delimiter", "0x1e", "two\nlines"], ""), "two\nlines\n");
    let two = client(&addr, &["--delimiter", "x", "this is xtwo"], "");
    fails(&two, 2, "delimiter");

    for framing in ["json", "delimiter"] {
        let server = Server::start(&EPOLL, &["--protocol", "sum", "--framing", framing]);
        let addr = server.addr().to_string();
        let sums = ["--protocol", "sum", r#"{"A":7,"B":4}"#, "7 -8"];
        prints(&client(&addr, &sums, ""), "{\"Sum\":11}\n{\"Sum\":-1}\n");
        let output = client(&addr, &["--protocol", "sum", "seven"], "");
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("{\"Error\":"));
    }
}

#[test]
fn a_unix_socket_and_a_name() {
    let path = common::scratch_path("client", &EPOLL);
    let listen = format!("unix:{}", path.display());
    let server = Server::listening(&EPOLL, &[&listen, "localhost:0"], &[]);
    prints(&client(&listen, &["hello"], ""), "hello\n");
    let port = server.addr_at(1).port();
    prints(&client(&format!("localhost:{port}"), &["hello"], ""), "hello\n");
    // In good order, so that the path goes too.
    server.stop();
}

#[test]
fn a_source_port_of_ones_own() {
    let server = Server::listening(&EPOLL, &["127.0.0.1:0", "127.0.0.1:0"], &[]);
    let (one, two) = (server.addr_at(0).to_string(), server.addr_at(1).to_string());
    // A port that is free now, held by a listener that shares it with whoever asks to.
    let source = reusable_listener();
    let source = source.local_addr().unwrap().to_string();
    let why = format!(
        "{source} is already bound: a second socket needs --reuse-port, and both must set it"
    );
    fails(&client(&one, &["--source", &source, "hello"], ""), 2, &why);
    for addr in [one, two] {
        prints(&client(&addr, &["--source", &source, "--reuse-port", "hello"], ""), "hello\n");
    }
    let loopback = server.addr_at(0).to_string();
    prints(&client(&loopback, &["--source", "127.0.0.9", "hello"], ""), "hello\n");
}

/// A client that is at its prompt, as somebody at a terminal would use it.
struct Prompt {
    child: Child,
    replies: BufReader<ChildStdout>,
}

impl Prompt {
    fn start(addr: &str, args: &[&str]) -> Prompt {
        let mut command = c10k(&[&["client", addr], args].concat());
        let mut child = command.stdin(Stdio::piped()).spawn().expect("the program");
        let replies = BufReader::new(child.stdout.take().expect("piped"));
        Prompt { child, replies }
    }

    fn ask(&mut self, message: &str) -> String {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{message}").expect("it reads");
        let mut reply = String::new();
        self.replies.read_line(&mut reply).expect("a line");
        reply
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn one_source_port_to_two_servers_at_the_same_time() {
    for udp in [false, true] {
        let args = if udp { vec!["--udp"] } else { vec![] };
        let first = Server::start(&EPOLL, &[&args[..], &["--prefix", "first:"]].concat());
        let second = Server::start(&EPOLL, &[&args[..], &["--prefix", "second:"]].concat());
        let (first, second) = (first.addr().to_string(), second.addr().to_string());
        // Nobody else's while it is held.
        let held = reusable_listener();
        let source = held.local_addr().unwrap().to_string();
        let args = [&args[..], &["--source", &source, "--reuse-port"]].concat();
        let (mut one, mut two) = (Prompt::start(&first, &args), Prompt::start(&second, &args));
        for round in 0..3 {
            assert_eq!(one.ask("a"), "first:a\n", "round {round}");
            assert_eq!(two.ask("b"), "second:b\n", "round {round}");
        }
        if !udp {
            // A third one to where the first is: there would be two connections with one name.
            let why = format!("there is a connection from {source} to tcp {first} already");
            fails(&client(&first, &[&args[..], &["c"]].concat(), ""), 2, &why);
        }
        // And one that does not say that it shares.
        let alone = [&args[..args.len() - 1], &["d"]].concat();
        fails(&client(&second, &alone, ""), 2, "a second socket needs --reuse-port");
    }
    fails(&client("127.0.0.1:9", &["--source", "192.0.2.1", "e"], ""), 2, "not an address of this");
}

#[test]
fn datagrams_go_and_come_back() {
    let server = Server::start(&EPOLL, &["--udp", "--protocol", "sum"]);
    let addr = server.udp_addr().to_string();
    let sums = ["--udp", "--protocol", "sum", "7 4", r#"{"B":-1}"#];
    prints(&client(&addr, &sums, ""), "{\"Sum\":11}\n{\"Sum\":-1}\n");
    prints(&client(&addr, &["--udp", "--protocol", "sum"], "1 2\nq\n"), "{\"Sum\":3}\n");
    // One that is not answered, and one to nobody.
    let lost = ["--udp", "--timeout", "50ms", r#"{"Sum":1}"#];
    fails(&client(&addr, &lost, ""), 1, "no reply within 50ms");
    server.stop();
    fails(&client(&addr, &["--udp", "hello"], ""), 1, "Connection refused");
    let long = "x".repeat(65_508);
    fails(&client(&addr, &["--udp", &long], ""), 2, "too long for a datagram");
    fails(&client("unix:/tmp/c10k", &["--udp", "hello"], ""), 2, "--udp is for IP addresses");
}

#[test]
fn a_reply_that_comes_twice_is_not_the_next_one() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    let (tell, answered) = mpsc::channel();
    // It ends with the test.
    thread::spawn(move || {
        let mut request = [0; 100];
        loop {
            let (len, from) = socket.recv_from(&mut request).unwrap();
            socket.send_to(&request[..len], from).unwrap();
            socket.send_to(&request[..len], from).unwrap();
            tell.send(()).unwrap();
        }
    });
    let mut client = Prompt::start(&addr, &["--udp"]);
    for message in ["a", "b", "c"] {
        assert_eq!(client.ask(message), format!("{message}\n"));
        answered.recv().unwrap();
    }
}

fn reusable_listener() -> TcpListener {
    let options = c10k::sys::ListenOptions { reuse_port: true, ..Default::default() };
    let any = c10k::Addr::resolve("127.0.0.1:0").unwrap().remove(0);
    TcpListener::from(c10k::sys::listen(&any, &options).unwrap())
}

#[test]
fn what_goes_wrong_is_said_in_a_line() {
    // Nobody listens here any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    fails(&client(&gone, &["hello"], ""), 2, "Connection refused");
    fails(&client("nowhere.invalid:80", &["hello"], ""), 2, "nowhere.invalid");
    fails(&client("unix:/nonexistent/socket", &["hello"], ""), 2, "No such file");
    fails(&client("unix:", &["hello"], ""), 2, "unix:PATH");

    // One that accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    fails(&client(&addr, &["--timeout", "50ms", "hello"], ""), 1, "no reply within 50ms");

    // One that hangs up.
    let server = Server::start(&EPOLL, &["--max-frame", "4"]);
    let addr = server.addr().to_string();
    let output = client(&addr, &["too long", "next"], "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "error: frame too long\n");
    fails(&output, 1, "closed the connection");
}
