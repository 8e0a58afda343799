//! Every contender that was built serves the protocol exactly: the floors too, as an echo is the
//! same with no framing, but for what has no delimiter.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

const PEERS: &str = env!("CARGO_BIN_EXE_c10k-peers");

struct Server {
    name: String,
    child: Child,
    addr: String,
}

impl Server {
    fn start(name: &str) -> Server {
        let mut command = Command::new(PEERS);
        let mut child = command.args(["serve", name]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim_end().strip_prefix("listening on tcp ").expect(name).to_owned();
        Server { name: name.to_owned(), child, addr }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.addr).unwrap();
        stream.set_nodelay(true).unwrap();
        // Not a measure of time: only so that a server that is silent fails the test.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names of all that take part here, or only of those that know frames.
fn contenders(framed: bool) -> Vec<String> {
    let list = Command::new(PEERS).arg("--list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let here = list.lines().filter(|line| !line.contains("left out"));
    let names: Vec<String> =
        here.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
    assert!(names.len() >= 9, "{names:?}");
    names.into_iter().filter(|name| !framed || !name.starts_with("floor")).collect()
}

fn each(framed: bool, check: impl Fn(&Server) + Sync) {
    thread::scope(|scope| {
        for name in contenders(framed) {
            let check = &check;
            scope.spawn(move || check(&Server::start(&name)));
        }
    });
}

/// Reads to the end, as some close with a reset what they have not read.
fn rest(mut stream: &TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    rest
}

#[test]
fn one_byte_at_a_time_has_the_same_replies() {
    each(false, |server| {
        let mut client = server.connect();
        let input = b"one\n\ntwo and more\r\n\0\n";
        let mut replies = vec![0; input.len()];
        for byte in input {
            client.write_all(&[*byte]).unwrap();
        }
        client.read_exact(&mut replies).unwrap();
        assert_eq!(replies, input, "{}", server.name);
    });
}

#[test]
fn a_frame_is_answered_when_it_is_complete() {
    each(true, |server| {
        let mut client = server.connect();
        client.write_all(b"first\nsec").unwrap();
        let mut reply = [0; 6];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"first\n", "{}", server.name);
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(client.read(&mut reply).is_err(), "{}: answered half a frame", server.name);
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(b"ond\n").unwrap();
        let mut reply = [0; 7];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"second\n", "{}", server.name);
    });
}

/// More than all buffers on the way hold, from a client that reads only when it has sent all that
/// it can; then a half-close, before which everything is answered.
#[test]
fn a_train_of_requests_is_answered_before_the_end() {
    each(false, |server| {
        let mut client = server.connect();
        let frame = |n: usize| [vec![b'a' + (n % 26) as u8; n * 37 % 3_000], vec![b'\n']].concat();
        let input: Vec<u8> = (0..8_000).flat_map(frame).collect();
        let sender = client.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                (&sender).write_all(&input).unwrap();
                sender.shutdown(Shutdown::Write).unwrap();
            });
            // So that replies pile up in the server first.
            thread::sleep(Duration::from_millis(200));
            let mut replies = Vec::new();
            client.read_to_end(&mut replies).unwrap();
            assert_eq!(replies.len(), input.len(), "{}", server.name);
            assert!(replies == input, "{}: other bytes", server.name);
        });
    });
}

#[test]
fn what_is_not_a_frame_at_the_end_is_not_answered() {
    each(true, |server| {
        let mut client = server.connect();
        client.write_all(b"whole\nhalf").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&client), b"whole\n", "{}", server.name);
    });
}

#[test]
fn the_longest_frame_is_answered_and_a_longer_one_is_not() {
    const FRAME_SIZE_MAX: usize = 64 * 1024;
    each(true, |server| {
        let mut client = server.connect();
        let longest = [vec![b'x'; FRAME_SIZE_MAX], vec![b'\n']].concat();
        client.write_all(&longest).unwrap();
        let mut reply = vec![0; longest.len()];
        client.read_exact(&mut reply).unwrap();
        assert!(reply == longest, "{}", server.name);

        let longer = [vec![b'x'; FRAME_SIZE_MAX + 1], vec![b'\n']].concat();
        // It may be closed before all of it is sent.
        let _ = client.write_all(&longer);
        assert_eq!(rest(&client), b"", "{}", server.name);
    });
}

/// A client that does not read must not hold up the others. The floors keep nothing, and wait.
#[test]
fn a_client_that_does_not_read_holds_up_nobody_else() {
    each(true, |server| {
        let greedy = server.connect();
        greedy.set_nonblocking(true).unwrap();
        let requests = b"0123456789\n".repeat(10_000);
        // Until the server has stopped to read, and the buffers in between are full.
        while (&greedy).write(&requests).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        let mut other = server.connect();
        other.write_all(b"hello\n").unwrap();
        let mut reply = [0; 6];
        other.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"hello\n", "{}", server.name);
    });
}
