//! `--source`: addresses to connect from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network may have as many bits of host address as this.
const HOST_BITS_MAX: u32 = 16;

/// One address, or all of a network such as `127.1.0.0/24`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sources(pub(crate) Vec<IpAddr>);

pub(crate) fn sources(text: &str) -> Result<Sources, String> {
    let bad = || format!("'{text}' is neither an address nor a network such as 127.1.0.0/24");
    let (ip, prefix) = match text.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix.parse::<u32>().map_err(|_| bad())?)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().map_err(|_| bad())?;
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let host_bits = bits - prefix.unwrap_or(bits).min(bits);
    if prefix > Some(bits) {
        return Err(bad());
    }
    if host_bits > HOST_BITS_MAX {
        return Err(format!("'{text}' is too large: /{} at least", bits - HOST_BITS_MAX));
    }
    let hosts = 0..1_u32 << host_bits;
    Ok(Sources(match ip {
        IpAddr::V4(ip) => {
            let network = u32::from(ip) >> host_bits << host_bits;
            let addresses = hosts.map(|host| Ipv4Addr::from(network | host));
            // The ends of most networks are the network's own address and broadcast.
            let is_host = |ip: &Ipv4Addr| host_bits < 2 || !matches!(ip.octets()[3], 0 | 255);
            addresses.filter(is_host).map(IpAddr::V4).collect()
        }
        IpAddr::V6(ip) => {
            let network = u128::from(ip) >> host_bits << host_bits;
            hosts.map(|host| Ipv6Addr::from(network | u128::from(host)).into()).collect()
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn ends(text: &str, len: usize, first: &str, last: &str) {
        let Sources(all) = sources(text).unwrap();
        assert_eq!(all.len(), len, "{text}");
        assert_eq!(all[0].to_string(), first);
        assert_eq!(all[len - 1].to_string(), last);
    }

    #[test]
    fn addresses_and_networks() {
        ends("127.0.0.2", 1, "127.0.0.2", "127.0.0.2");
        ends("::1", 1, "::1", "::1");
        ends("127.1.0.0/24", 254, "127.1.0.1", "127.1.0.254");
        ends("127.1.0.77/24", 254, "127.1.0.1", "127.1.0.254");
        ends("127.1.2.3/16", 256 * 254, "127.1.0.1", "127.1.255.254");
        ends("127.1.0.4/30", 4, "127.1.0.4", "127.1.0.7");
        ends("127.1.0.0/31", 2, "127.1.0.0", "127.1.0.1");
        ends("127.1.0.0/32", 1, "127.1.0.0", "127.1.0.0");
        ends("fd00::/120", 256, "fd00::", "fd00::ff");
        for bad in ["", "here", "127.0.0.1/", "127.0.0.1/33", "::1/129", "127.0.0.1:80"] {
            assert!(sources(bad).unwrap_err().contains("neither"), "{bad}");
        }
        for large in ["127.0.0.0/15", "0.0.0.0/0", "fd00::/8"] {
            assert!(sources(large).unwrap_err().contains("too large"), "{large}");
        }
    }
}
