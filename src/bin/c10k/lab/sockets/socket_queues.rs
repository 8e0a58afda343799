//! The two queues of a socket: bytes wait in one, then in the other.

use std::os::fd::{AsFd, OwnedFd};

use c10k::sys::{self, Recv};
use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{SockFlag, sockopt};

use super::ends_once;
use crate::lab::calls::{ANY_PORT, errno, flags};
use crate::lab::kernel::{Socket, with_patience};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "socket-queues",
    claim: "A socket has a send and a receive queue. If the reader does not read, both fill and \
            send gives EAGAIN; EPOLLOUT comes back when about a third of the send buffer is free, \
            not at the first byte.",
    run,
};

/// Twice this is what the kernel gives: the other half is for its own records (socket(7)).
const SEND_BUFFER: usize = 200 * 1024;
const RECEIVE_BUFFER: usize = 16 * 1024;

/// No kernel's queues hold as much, with the buffers above.
const BYTES_MAX: usize = 64 << 20;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note("A network of its own, in which it may drop packets, whoever runs it.");
    lab.own_network()?;

    lab.note(
        "A writer that does not block, and a reader. The buffers are set, or they would grow.",
    );
    let listener = lab.tcp("listener")?;
    // The accepted socket inherits it; after accept it would be too late to be said in the SYN.
    lab.set(&listener, sockopt::RcvBuf, &RECEIVE_BUFFER, "SO_RCVBUF, 16384")?;
    let addr = lab.bind(&listener, ANY_PORT)?;
    lab.listen(&listener, 1)?;
    let writer = lab.tcp_nonblocking("writer")?;
    lab.set(&writer, sockopt::SndBuf, &SEND_BUFFER, "SO_SNDBUF, 204800")?;
    // Without blocking it says EINPROGRESS; once accept returns, it is done.
    let _ = lab.connect(&writer, addr);
    let reader = lab.accept(&listener, SockFlag::empty(), "reader")?;
    with_patience(&reader)?;

    lab.note(
        "send only puts bytes into the writer's send queue. They stay there until the other \
         kernel acknowledges them; here it is kept from seeing them.",
    );
    lab.drop_incoming(&reader, true)?;
    lab.send(&writer, b"hello")?;
    let ends = ends_once(addr.port(), |_, _| true)?;
    lab.show_sockets("both ends (sock_diag)", &ends);
    let queues = |ends: &[Socket; 2]| format!("{} and {}", ends[0].send_q, ends[1].recv_q);
    lab.expect("the writer's Send-Q and the reader's Recv-Q", queues(&ends), "5 and 0".to_owned());

    lab.note("No longer: the kernel sends them again by itself, after some 200 ms.");
    lab.drop_incoming(&reader, false)?;
    let ends = ends_once(addr.port(), |w, r| w.send_q == 0 && r.recv_q == 5)?;
    lab.show_sockets("both ends (sock_diag)", &ends);
    lab.expect("the bytes have moved", queues(&ends), "0 and 5".to_owned());

    lab.note("Nobody reads. The receive queue fills, then the send queue.");
    let (more, last) = fill(lab, &writer, addr.port())?;
    lab.expect_errno("send, with both queues full", &last, Some(Errno::EAGAIN));
    let sent = b"hello".len() + more;
    let full = ends_once(addr.port(), |w, r| (w.send_q + r.recv_q) as usize == sent)?;
    lab.show_sockets("both ends (sock_diag)", &full);
    let queued = (full[0].send_q + full[1].recv_q) as usize;
    lab.expect("bytes in both queues, of all that were sent", queued, sent);

    lab.note("The writer wants to hear when it can go on, and the reader reads one byte.");
    let epoll = lab.epoll("epoll")?;
    lab.epoll_add(&epoll, &writer, EpollFlags::EPOLLOUT, 0)?;
    lab.recv(&reader, 1)?;
    let events = lab.epoll_wait(&epoll, 1, 100)?;
    lab.expect("events, after one byte", events.len(), 0);

    lab.note("It reads on, until epoll reports something.");
    let (mut read, mut calls) = (1, 0);
    let mut buffer = [0; 4096];
    // A moment after each, in which the kernels may talk to each other.
    let moment = EpollTimeout::from(5u8);
    while read < sent && epoll.wait(&mut [EpollEvent::empty()], moment)? == 0 {
        let Recv::Data(n) = sys::recv(reader.as_fd(), &mut buffer)? else { break };
        (read, calls) = (read + n, calls + 1);
    }
    let call = format!("recv({}, 4096) x {calls}", lab.names.of(&reader));
    lab.called(call, format!("{} bytes", read - 1));
    let events = lab.epoll_wait(&epoll, 1, 0)?;
    let reported = events.first().map_or("nothing".to_owned(), |(mask, _)| flags(*mask));
    lab.expect("reported now", reported, "EPOLLOUT".to_owned());
    let ends = ends_once(addr.port(), |_, _| true)?;
    lab.show_sockets("both ends (sock_diag)", &ends);
    let left = 100 * ends[0].send_q / full[0].send_q.max(1);
    lab.expect_that(
        "what is left in the send queue, of what was in it when it was full",
        format!("{left} %"),
        "about two thirds",
        (40..=75).contains(&left),
    );
    Ok(())
}

/// Sends until there is no room, also after the kernels have come to rest. Returns how many bytes,
/// and what the last call said.
fn fill(
    lab: &mut Lab,
    writer: &OwnedFd,
    port: u16,
) -> Result<(usize, nix::Result<usize>), Trouble> {
    let (mut sent, mut calls, mut refused) = (0, 0, false);
    let before = ends_once(port, |_, _| true)?[1].recv_q as usize;
    let last = loop {
        match sys::send(writer.as_fd(), &[b'x'; 4096]) {
            Ok(0) if refused => break Err(Errno::EAGAIN),
            Ok(0) => {
                // What is under way will arrive, and be acknowledged, which makes room again.
                ends_once(port, |w, r| (w.send_q + r.recv_q) as usize == before + sent)?;
                refused = true;
            }
            Ok(n) if sent > BYTES_MAX => break Ok(n),
            Ok(n) => (sent, calls, refused) = (sent + n, calls + 1, false),
            Err(error) => break Err(errno(&error)),
        }
    };
    let call = format!("send({}, \"xxx\"..., 4096) x {calls}", lab.names.of(writer));
    lab.called(call, format!("{sent} bytes"));
    lab.call(format!("send({}, \"xxx\"..., 4096)", lab.names.of(writer)), last).ok();
    Ok((sent, last))
}
