//! Datagrams to many are answered from an address of one.

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

use c10k::Addr;
use c10k::sys::{self, Datagrams};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};

/// Runs a command in the network of this thread. Returns whether it succeeded.
fn ip(args: &str) -> bool {
    let status = Command::new("ip").args(args.split(' ')).status();
    status.is_ok_and(|status| status.success())
}

/// A datagram to each address is answered from an address of ours: of IPv6 the multicast address was
/// given as the source, which is EINVAL.
#[test]
fn a_reply_comes_from_an_address_that_is_ours() {
    // In a network of the thread's own: nothing of this leaves the machine.
    let outcome = thread::spawn(|| {
        if let Err(error) = sys::own_network() {
            return Err(format!("no network of its own: {error}"));
        }
        sys::set_link_up("lo", true).map_err(|error| error.to_string())?;
        for command in [
            "link add veth0 type veth peer name veth1",
            "link set veth1 up",
            "link set veth0 up",
            "address add fe80::5/64 dev veth0 nodad",
            "address add 10.9.9.1/24 broadcast 10.9.9.255 dev veth0",
            "route add 224.0.0.0/4 dev veth0",
        ] {
            if !ip(command) {
                return Err(format!("ip {command}"));
            }
        }
        let scope = if_nametoindex("veth0").unwrap();
        let ours = ["fe80::5".parse::<IpAddr>().unwrap(), "10.9.9.1".parse().unwrap()];
        for (bind, to) in [
            ("[::]:0", format!("[ff02::1%{scope}]:0")),
            ("[::]:0", format!("[ff01::1%{scope}]:0")),
            ("0.0.0.0:0", "224.0.0.1:0".to_owned()),
            ("0.0.0.0:0", "10.9.9.255:0".to_owned()),
        ] {
            let bind: SocketAddr = bind.parse().unwrap();
            let (server, bound) = sys::bind_datagram(&Addr::Udp(bind), false).unwrap();
            let client = UdpSocket::bind(bind).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            setsockopt(&client, sockopt::Broadcast, &true).unwrap();
            let mut to: SocketAddr = to.parse().unwrap();
            to.set_port(bound.port());
            client.send_to(b"hello", to).unwrap();
            let mut fds = [nix::poll::PollFd::new(server.as_fd(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).unwrap();
            let mut datagrams = Datagrams::new(100);
            // Of some there are two, one by way of the other end.
            assert_ne!(datagrams.recv(server.as_fd()).unwrap(), 0);
            assert_eq!(datagrams.reply(server.as_fd(), b"reply", &[(0, 0..5)]).unwrap(), 1);
            let (_, from) = client.recv_from(&mut [0; 100]).unwrap();
            // The kernel gives the interface a link-local address of its own, too.
            let is_link_local = matches!(from.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
            assert!(ours.contains(&from.ip()) || is_link_local, "{to}: from {from}");
            assert_eq!(from.port(), bound.port());
        }
        Ok(())
    });
    if let Err(why) = outcome.join().unwrap() {
        common::skip(&why);
    }
}
