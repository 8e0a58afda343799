//! Small blocking clients. Each read and write ends at the deadline at the latest, so that a
//! server that does not answer fails a test and does not hang it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::DEADLINE;

#[track_caller]
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    try_connect(addr).unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"))
}

pub(crate) fn try_connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[track_caller]
pub(crate) fn connect_unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("a unix socket that listens");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Reads as many bytes as `want` has, which must be those.
#[track_caller]
pub(crate) fn expect(stream: &mut impl Read, want: &[u8]) {
    let mut reply = vec![0; want.len()];
    let mut len = 0;
    while len < reply.len() {
        match stream.read(&mut reply[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error} after {len} of {} bytes", want.len()),
        }
    }
    assert_same(&reply[..len], want);
}

/// Compares, without printing megabytes.
#[track_caller]
pub(crate) fn assert_same(found: &[u8], want: &[u8]) {
    if found == want {
        return;
    }
    let at = found.iter().zip(want).take_while(|(a, b)| a == b).count();
    let near = |bytes: &[u8]| {
        let part = &bytes[at.saturating_sub(20).min(bytes.len())..(at + 40).min(bytes.len())];
        String::from_utf8_lossy(part).into_owned()
    };
    panic!(
        "{} bytes, {} expected; they differ from byte {at} on: ..{:?}.., expected ..{:?}..",
        found.len(),
        want.len(),
        near(found),
        near(want)
    );
}

/// Sends a request and reads the reply.
#[track_caller]
pub(crate) fn ask(stream: &mut (impl Read + Write), request: &[u8], reply: &[u8]) {
    stream.write_all(request).expect("a server that receives");
    expect(stream, reply);
}

#[track_caller]
pub(crate) fn expect_eof(stream: &mut impl Read) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("EOF");
    assert_same(&rest, b"");
}

/// Reads until the connection has ended, in whatever way, and returns what was still to read.
/// A connection that does not end fails the test.
#[track_caller]
pub(crate) fn ends(stream: &mut impl Read) -> Vec<u8> {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert!(is_end(&error), "the connection should have ended: {error}"),
    }
    rest
}

/// Whether an error means that the connection is gone, rather than slow.
pub(crate) fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Sends everything and EOF, while reading everything up to the server's EOF.
#[track_caller]
pub(crate) fn exchange(stream: TcpStream, requests: &[u8]) -> Vec<u8> {
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            (&stream).write_all(requests)?;
            stream.shutdown(Shutdown::Write)
        });
        let mut replies = Vec::new();
        (&stream).read_to_end(&mut replies).expect("replies up to EOF");
        writing.join().unwrap().expect("a server that receives");
        replies
    })
}

/// Closes with a reset instead of a FIN, whatever is in flight.
pub(crate) fn reset(stream: TcpStream) {
    c10k::sys::set_linger(stream.as_fd(), Duration::ZERO).expect("SO_LINGER");
}

/// Writes until the connection is lost, at most `max` bytes, and returns how many it took.
#[track_caller]
pub(crate) fn write_until_lost(stream: &mut impl Write, bytes: &[u8], max: u64) -> u64 {
    let mut sent = 0;
    while sent < max {
        match stream.write(bytes) {
            Ok(n) => sent += n as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                assert!(is_end(&error), "neither taken nor lost: {error}");
                break;
            }
        }
    }
    sent
}
