//! A datagram with a forged source keeps two services busy with each other.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockProtocol, SockType};

use super::{PATIENCE_MS, bound, quietly_recv_from, quietly_send_to, readable};
use crate::lab::kernel::{Protocol, sockets};
use crate::lab::record::Lab;
use crate::lab::{About, Trouble};

pub(super) const ABOUT: About = About {
    name: "udp-loop",
    claim: "One datagram with a forged source makes two naive echo services answer each other \
            without end, or one itself. If an answer is never answered, it ends after one.",
    run,
};

/// How long the services are watched, and how long nothing has to come for it to have ended.
const WATCHED: Duration = Duration::from_millis(100);

/// What "without end" has to come to; on a busy machine they are watched for longer.
const MANY: usize = 100;

/// What becomes of a datagram: what is sent back to whoever it says it is from, if anything.
type Service = fn(&[u8]) -> Option<Vec<u8>>;

/// Sends it back, whatever it is.
fn naive(datagram: &[u8]) -> Option<Vec<u8>> {
    Some(datagram.to_vec())
}

/// Answers a request ("?...") with an answer ("!..."), and an answer with nothing.
fn guarded(datagram: &[u8]) -> Option<Vec<u8>> {
    let asked = datagram.strip_prefix(b"?")?;
    Some([b"!", asked].concat())
}

fn run(lab: &mut Lab) -> Result<(), Trouble> {
    lab.note("Raw sockets, which a forger uses, need a network in which that is allowed.");
    lab.own_network()?;
    let (north, north_addr) = bound(lab, "north")?;
    let (south, south_addr) = bound(lab, "south")?;
    let services = [&north, &south];

    lab.note("To north, as if from south. Both send back whatever comes, to where it came from.");
    forge(lab, south_addr, north_addr)?;
    let sent = serve(lab, services, naive)?;
    lab.expect_that("north's answers", sent[0], "100 or more", sent[0] >= MANY);
    lab.expect_that("south's answers, to north's", sent[1], "100 or more", sent[1] >= MANY);

    lab.note("The services have stopped; the one datagram waits to be answered on and on.");
    readable(&services, PATIENCE_MS)?;
    let now = sockets(Protocol::Udp, &[north_addr.port(), south_addr.port()])?;
    lab.show_sockets("the sockets (sock_diag)", &now);
    let waiting = now.iter().filter(|socket| socket.recv_q > 0).count();
    lab.expect("sockets in which one waits", waiting, 1);
    take_away(services)?;

    lab.note("To north, as if from north: one service is enough.");
    forge(lab, north_addr, north_addr)?;
    let sent = serve(lab, services, naive)?;
    lab.expect_that("north's answers, to itself", sent[0], "100 or more", sent[0] >= MANY);
    lab.expect("south's", sent[1], 0);
    take_away(services)?;

    lab.note(
        "The guard: an answer differs from a request, and is never answered. Neither the forged \
         request nor its answer goes further.",
    );
    forge(lab, south_addr, north_addr)?;
    let sent = serve(lab, services, guarded)?;
    lab.expect("north's answers, with the guard", sent[0], 1);
    lab.expect("south's, with the guard", sent[1], 0);
    Ok(())
}

/// Sends a datagram with a UDP header made by hand: source, destination, length, and no checksum
/// (`raw(7)`, `udp(7)`). The IP header, with the loopback address as the source, is the kernel's.
fn forge(lab: &mut Lab, from: SocketAddr, to: SocketAddr) -> Result<(), Trouble> {
    const REQUEST: &[u8] = b"?anyone";
    let (family, flags) = (AddressFamily::Inet, SockFlag::SOCK_CLOEXEC);
    let raw = socket::socket(family, SockType::Raw, flags, SockProtocol::Udp);
    if let Ok(raw) = &raw {
        lab.name(raw, "forger");
    }
    let raw = match lab.call("socket(AF_INET, SOCK_RAW, IPPROTO_UDP)", raw) {
        Err(Errno::EPERM) => return Err(Trouble::Skipped("needs CAP_NET_RAW".to_owned())),
        raw => raw?,
    };
    let length = 8 + REQUEST.len() as u16;
    let header = [from.port(), to.port(), length, 0].map(u16::to_be_bytes).concat();
    let sent = quietly_send_to(&raw, &[&header, REQUEST].concat(), to);
    let forged = format!("{{udp {} > {}, \"?anyone\"}}", from.port(), to.port());
    let call = format!("sendto({}, {forged})", lab.names.of(&raw));
    lab.call(call, sent)?;
    lab.close(raw);
    Ok(())
}

/// Runs both services for a while, or until nothing comes any more. Returns how many datagrams each
/// has sent.
fn serve(lab: &mut Lab, services: [&OwnedFd; 2], service: Service) -> Result<[usize; 2], Trouble> {
    let (start, mut sent) = (Instant::now(), [0, 0]);
    while start.elapsed() < WATCHED || sent[0] < MANY {
        let ready = readable(&services, WATCHED.as_millis() as i32)?;
        if ready.is_empty() {
            break;
        }
        for i in ready {
            let (datagram, from) = quietly_recv_from(services[i], 64)?;
            if let Some(answer) = service(&datagram) {
                quietly_send_to(services[i], &answer, from)?;
                sent[i] += 1;
            }
        }
    }
    for (service, sent) in services.iter().zip(sent) {
        let call = format!("recvfrom({0}), sendto({0})", lab.names.of(service));
        lab.called(call, format!("x {sent} in {} ms", start.elapsed().as_millis()));
    }
    Ok(sent)
}

/// Takes the datagram away, which ends it.
fn take_away(services: [&OwnedFd; 2]) -> Result<(), Trouble> {
    for i in readable(&services, 0)? {
        quietly_recv_from(services[i], 64)?;
    }
    Ok(())
}
