//! A peer that is gone without a word, and who notices.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use c10k::sys;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, sockopt};

use super::{pair, states};
use crate::lab::calls::local;
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};
use crate::proc::counter;

pub(super) const ABOUT: About = About {
    name: "keepalive",
    claim: "A peer that is gone without a word is not noticed by a connection that only waits. \
            With keep-alive it is: ETIMEDOUT after TCP_KEEPIDLE + TCP_KEEPCNT x TCP_KEEPINTVL. \
            TCP_USER_TIMEOUT does the same for data that nobody acknowledges.",
    run,
};

const USER_TIMEOUT_MS: u32 = 500;

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note(
        "Four connections, in a network of their own: there the lab may have packets dropped. Two of \
         them have keep-alive: a probe after 1 s of silence, and the connection is given up if 1 \
         probe goes unanswered for 1 s.",
    );
    lab.own_network()?;
    let (listener, addr) = lab.listener("listener", 8)?;
    let (plain, plain_peer) = pair(lab, &listener, "plain", "plain's peer")?;
    let (eager, eager_peer) = pair(lab, &listener, "eager", "eager's peer")?;
    let (kept, kept_peer) = pair(lab, &listener, "kept", "kept's peer")?;
    let (alive, _alive_peer) = pair(lab, &listener, "alive", "alive's peer")?;
    let silent = Instant::now();
    for fd in [&kept, &alive] {
        lab.set(fd, sockopt::KeepAlive, &true, "SO_KEEPALIVE, 1")?;
        lab.set(fd, sockopt::TcpKeepIdle, &1, "TCP_KEEPIDLE, 1")?;
        lab.set(fd, sockopt::TcpKeepInterval, &1, "TCP_KEEPINTVL, 1")?;
        lab.set(fd, sockopt::TcpKeepCount, &1, "TCP_KEEPCNT, 1")?;
    }
    let user_timeout = format!("TCP_USER_TIMEOUT, {USER_TIMEOUT_MS}");
    lab.set(&eager, sockopt::TcpUserTimeout, &USER_TIMEOUT_MS, &user_timeout)?;

    lab.note("Three of the peers vanish: nothing reaches them any more.");
    let probes = counter("TcpExt:TCPKeepAlive")?;
    for peer in [&plain_peer, &eager_peer, &kept_peer] {
        lab.drop_incoming(peer, true)?;
    }

    lab.note(
        "Data is sent again and again, for a quarter of an hour by default, or as long as \
              TCP_USER_TIMEOUT says.",
    );
    let sent = Instant::now();
    lab.send(&eager, b"hello?")?;
    let result = lab.recv(&eager, 64);
    lab.expect_errno("unacknowledged data, with TCP_USER_TIMEOUT", &result, Some(Errno::ETIMEDOUT));
    took(lab, sent, 0.5);

    lab.note("Without anything to send, only a probe can find out.");
    let result = lab.recv(&kept, 64);
    lab.expect_errno("nothing to send, with keep-alive", &result, Some(Errno::ETIMEDOUT));
    took(lab, silent, 2.0);
    let probes = counter("TcpExt:TCPKeepAlive")? - probes;
    lab.expect_that("probes sent (TCPKeepAlive)", probes, "1 or more", probes >= 1);

    lab.note(
        "A peer that answers the probes is not taken for dead, and without probes a dead one \
              is not either: its connection would stay for ever.",
    );
    for (fd, what) in [(&alive, "probes answered"), (&plain, "no probes, and a dead peer")] {
        let result = glance(lab, fd);
        lab.expect_errno(what, &result, Some(Errno::EAGAIN));
        let seen = states(lab, [local(fd)?, addr], "ESTAB, ESTAB")?;
        lab.expect("its state and its peer's", seen.as_str(), "ESTAB, ESTAB");
    }

    // Mended, so that the peers learn what is left of their connections when all is closed.
    for peer in [&plain_peer, &eager_peer, &kept_peer] {
        sys::drop_incoming(peer.as_fd(), false)?;
    }
    Ok(())
}

/// How long it took. The kernel's timers are coarse, and a busy machine is late.
fn took(lab: &mut Lab, start: Instant, seconds: f64) {
    let seen = start.elapsed().as_secs_f64();
    let holds = seen > 0.8 * seconds && seen < 6.0 * seconds;
    lab.expect_that("noticed after", format!("{seen:.1} s"), &format!("about {seconds} s"), holds);
}

/// `recv(2)` that does not wait.
fn glance(lab: &mut Lab, fd: &OwnedFd) -> nix::Result<usize> {
    let mut buffer = [0; 64];
    let result = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT);
    lab.call(format!("recv({}, 64, MSG_DONTWAIT)", lab.names.of(fd)), result)
}
