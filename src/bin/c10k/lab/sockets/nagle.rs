//! Two small writes and a read: Nagle's algorithm waits for a delayed acknowledgement.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use c10k::sys::{self, Recv};
use nix::errno::Errno;
use nix::sys::socket::sockopt;

use crate::lab::kernel::with_patience;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "nagle",
    claim: "A request sent in two small writes takes about 40 ms: Nagle's algorithm keeps the \
            second back until the first is acknowledged, which the receiver puts off. With \
            TCP_NODELAY, or in one write, it does not.",
    run,
};

const ROUNDS: usize = 11;

/// Before the receiver puts off its acknowledgements, it has to see that its user answers.
const WARM_UP: usize = 4;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note("A client and a server that answers each request with a byte.");
    let (listener, _) = lab.listener("listener", 1)?;
    let (client, server) = lab.pair(&listener, "client", "server")?;
    with_patience(&client)?;
    with_patience(&server)?;
    for _ in 0..WARM_UP {
        exchange(&client, &server, &["ab"])?;
    }
    lab.called("an exchange, to warm up".to_owned(), format!("x {WARM_UP}"));

    lab.note(
        "Each request is sent in two writes. The first byte goes at once. The second would be \
         another small packet while one is not acknowledged: Nagle's algorithm keeps it. The \
         server's kernel waits with the acknowledgement, in the hope of an answer to send \
         along: for 40 ms, on Linux.",
    );
    let two = exchanges(lab, &client, &server, &["a", "b"])?;
    lab.expect_that(
        "requests whose second byte came late",
        format!("{} of {ROUNDS}", two.in_pieces),
        "most",
        two.in_pieces * 2 > ROUNDS,
    );
    lab.expect_that(
        "an exchange, median",
        milliseconds(two.median),
        "about 40 ms",
        (20..=200).contains(&two.median.as_millis()),
    );

    lab.note("The same in one write: there is nothing to keep back.");
    let one = exchanges(lab, &client, &server, &["ab"])?;
    lab.expect("requests in pieces", one.in_pieces, 0);
    faster(lab, one.median, two.median);

    lab.note("Two writes again, and no Nagle. There are more packets, but none waits.");
    lab.set(&client, sockopt::TcpNoDelay, &true, "TCP_NODELAY, 1")?;
    let nodelay = exchanges(lab, &client, &server, &["a", "b"])?;
    lab.expect_that(
        "requests whose second byte came late",
        format!("{} of {ROUNDS}", nodelay.in_pieces),
        "few",
        nodelay.in_pieces * 2 < ROUNDS,
    );
    faster(lab, nodelay.median, two.median);
    Ok(())
}

fn faster(lab: &mut Lab, seen: Duration, slow: Duration) {
    let holds = seen * 4 < slow;
    lab.expect_that("an exchange, median", milliseconds(seen), "a quarter of that, or less", holds);
}

struct Exchanges {
    median: Duration,
    /// How many requests did not arrive in one `recv`.
    in_pieces: usize,
}

fn exchanges(
    lab: &mut Lab,
    client: &OwnedFd,
    server: &OwnedFd,
    writes: &[&str],
) -> Result<Exchanges, Trouble> {
    let (mut times, mut in_pieces) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        if exchange(client, server, writes)? > 1 {
            in_pieces += 1;
        }
        times.push(start.elapsed());
    }
    let (client, server) = (lab.names.of(client), lab.names.of(server));
    for write in writes {
        lab.called(format!("send({client}, {write:?}, {})", write.len()), format!("x {ROUNDS}"));
    }
    let whole = format!("2: x {}", ROUNDS - in_pieces);
    lab.called(format!("recv({server}, 2)"), format!("1, then 1: x {in_pieces}; {whole}"));
    lab.called(format!("send({server}, \"!\", 1)"), format!("x {ROUNDS}"));
    lab.called(format!("recv({client}, 1)"), format!("x {ROUNDS}"));
    times.sort_unstable();
    Ok(Exchanges { median: times[ROUNDS / 2], in_pieces })
}

/// A request of two bytes, and the answer. Returns in how many pieces the request arrived.
fn exchange(client: &OwnedFd, server: &OwnedFd, writes: &[&str]) -> Result<usize, Trouble> {
    for write in writes {
        sys::send(client.as_fd(), write.as_bytes())?;
    }
    let (mut arrived, mut pieces) = (0, 0);
    while arrived < 2 {
        arrived += recv(server)?;
        pieces += 1;
    }
    sys::send(server.as_fd(), b"!")?;
    recv(client)?;
    Ok(pieces)
}

fn recv(fd: &OwnedFd) -> nix::Result<usize> {
    match sys::recv(fd.as_fd(), &mut [0; 2]) {
        Ok(Recv::Data(n)) => Ok(n),
        _ => Err(Errno::ECONNABORTED),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}
