//! A stream has no messages: where one ends, the bytes themselves have to say.

use std::os::fd::{AsFd, OwnedFd};

use c10k::framing::{Framing, JsonValue, Scan};
use c10k::sys::{Recv, recv, send};
use nix::sys::socket::{SockFlag, sockopt};

use super::ends_once;
use crate::lab::calls::ANY_PORT;
use crate::lab::kernel::with_patience;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "framing",
    claim: "A stream has no messages: three sends can be one recv, and one send three recvs. A \
            delimiter, a length, or a form that tells its own end copes with both; \"a recv is a \
            message\" with neither.",
    run,
};

/// The first message in what has arrived, and how many bytes it takes up; `None` if it is not
/// there as a whole.
type First = fn(&[u8]) -> Option<(&[u8], usize)>;

const NONE: &str = "a recv is a message";

/// No framing: whatever a `recv` returned.
fn whatever(arrived: &[u8]) -> Option<(&[u8], usize)> {
    (!arrived.is_empty()).then_some((arrived, arrived.len()))
}

/// A message ends at a newline, which cannot be in it.
fn delimiter(arrived: &[u8]) -> Option<(&[u8], usize)> {
    let end = arrived.iter().position(|byte| *byte == b'\n')?;
    Some((&arrived[..end], end + 1))
}

/// A message begins with a byte that says how long it is.
fn length(arrived: &[u8]) -> Option<(&[u8], usize)> {
    let end = 1 + usize::from(*arrived.first()?);
    Some((arrived.get(1..end)?, end))
}

/// A message is a JSON object, which ends where its brackets do.
fn json(arrived: &[u8]) -> Option<(&[u8], usize)> {
    match JsonValue::new().scan(&mut Default::default(), 0, arrived) {
        Scan::Frame { end, .. } => Some((&arrived[..end], end)),
        _ => None,
    }
}

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note("A connection with a small receive buffer at one end, and a large one to send.");
    let listener = lab.tcp("listener")?;
    lab.set(&listener, sockopt::RcvBuf, &8192, "SO_RCVBUF, 8192")?;
    let addr = lab.bind(&listener, ANY_PORT)?;
    lab.listen(&listener, 1)?;
    let writer = lab.tcp("writer")?;
    lab.set(&writer, sockopt::SndBuf, &131_072, "SO_SNDBUF, 131072")?;
    lab.set(&writer, sockopt::TcpNoDelay, &true, "TCP_NODELAY, 1")?;
    lab.connect(&writer, addr)?;
    let reader = lab.accept(&listener, SockFlag::empty(), "reader")?;
    with_patience(&reader)?;

    lab.note("Three sends. The reader looks when all have arrived.");
    for message in ["one", "two", "three"] {
        lab.send(&writer, message.as_bytes())?;
    }
    let ends = ends_once(addr.port(), |_, reader| reader.recv_q == 11)?;
    lab.show_sockets("both ends (sock_diag)", &ends);
    let got = lab.recv(&reader, 64)?;
    lab.expect("three sends, one recv", String::from_utf8_lossy(&got).as_ref(), "onetwothree");

    lab.note("One send, more than the receive queue has room for: recv returns what is there.");
    const LONG: usize = 100_000;
    let sent = lab.send(&writer, &[b'x'; LONG])?;
    let (mut received, mut recvs, mut buffer) = (0, 0, vec![0; LONG]);
    while received < sent {
        let Recv::Data(n) = recv(reader.as_fd(), &mut buffer)? else { break };
        (received, recvs) = (received + n, recvs + 1);
    }
    let call = format!("recv({}, {LONG}) x {recvs}", lab.names.of(&reader));
    lab.called(call, format!("{received} bytes"));
    lab.expect("bytes of one send", sent, LONG);
    lab.expect_that("recvs that it took", recvs, "three or more", recvs >= 3);

    lab.note(
        "Three messages, in one piece and byte by byte, each sent when the reader has the one \
         before. What does it take for messages?",
    );
    let plain = ["one", "two", "three"];
    let objects = ["{\"n\":1}", "{\"n\":{}}", "{\"}\":2}"];
    let ways: [(_, First, _, &[u8]); 4] = [
        (NONE, whatever, plain, b"onetwothree"),
        ("delimiter", delimiter, plain, b"one\ntwo\nthree\n"),
        ("length", length, plain, b"\x03one\x03two\x05three"),
        ("self-delimiting", json, objects, b"{\"n\":1}{\"n\":{}}{\"}\":2}"),
    ];
    for (name, first, messages, stream) in ways {
        for (how, piece) in [("in one piece", stream.len()), ("byte by byte", 1)] {
            let got = messages_of(lab, [&writer, &reader], stream.chunks(piece), first)?;
            let (fact, got, sent) = (format!("{name}, {how}"), got.join(" "), messages.join(" "));
            match name {
                NONE => lab.expect_that(&fact, &got, &format!("not {sent}"), got != sent),
                _ => lab.expect(&fact, got, sent),
            }
        }
    }
    Ok(())
}

/// Sends each piece when the one before it has been received, as slow networks do, and returns the
/// messages that a framing finds in what arrives.
fn messages_of<'a>(
    lab: &mut Lab,
    [writer, reader]: [&OwnedFd; 2],
    pieces: impl Iterator<Item = &'a [u8]>,
    first: First,
) -> Result<Vec<String>, Trouble> {
    let (mut messages, mut arrived, mut buffer) = (Vec::new(), Vec::new(), [0; 64]);
    let (mut times, mut last) = (0, &b""[..]);
    for piece in pieces {
        send(writer.as_fd(), piece)?;
        let Recv::Data(n) = recv(reader.as_fd(), &mut buffer)? else { break };
        arrived.extend_from_slice(&buffer[..n]);
        while let Some((message, used)) = first(&arrived) {
            messages.push(String::from_utf8_lossy(message).into_owned());
            arrived.drain(..used);
        }
        (times, last) = (times + 1, piece);
    }
    let shown = match last.len() {
        1 => "1 byte".to_owned(),
        _ => format!("\"{}\"", last.escape_ascii()),
    };
    let (writer, reader) = (lab.names.of(writer), lab.names.of(reader));
    lab.called(format!("send({writer}, {shown}), recv({reader})"), format!("x {times}"));
    Ok(messages)
}
