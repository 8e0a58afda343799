//! Where a socket is bound or connects to.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::net::if_::if_nametoindex;

use crate::Error;

/// The address of a socket, and what it speaks.
///
/// ```
/// use c10k::Addr;
///
/// let addrs = Addr::resolve("127.0.0.1:7000")?;
/// assert_eq!(addrs[0].to_string(), "tcp 127.0.0.1:7000");
/// assert_eq!(Addr::resolve("unix:/tmp/c10k.sock")?[0].to_string(), "unix /tmp/c10k.sock");
/// assert_eq!(Addr::resolve("unix:@c10k")?[0].to_string(), "unix @c10k");
/// # Ok::<(), c10k::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Addr {
    /// An IPv4 or IPv6 address and port, for streams.
    Tcp(SocketAddr),
    /// The same for datagrams.
    Udp(SocketAddr),
    /// A path in the file system, for streams. If its first byte is 0, as in the kernel's own
    /// form, the rest is a name in the abstract namespace, which is no file, and is free again when
    /// its last socket is closed. See `unix(7)`.
    Unix(PathBuf),
}

/// How many bytes a unix path or abstract name may have (`unix(7)`).
const UNIX_LEN_MAX: usize = 107;

impl Addr {
    /// Reads the address of a stream socket.
    ///
    /// | written | means |
    /// |---|---|
    /// | `127.0.0.1:7000` | IPv4 |
    /// | `[::1]:7000`, `[fe80::1%eth0]:7000` | IPv6; a link-local address with its interface |
    /// | `localhost:7000` | a name, which may stand for several addresses (`localhost` for one of IPv4 and one of IPv6): all are returned, in the resolver's order |
    /// | `unix:/tmp/c10k.sock` | a path |
    /// | `unix:@c10k` | an abstract name; a file that begins with an @ is `unix:./@c10k` |
    ///
    /// An IPv4 address in the form of IPv6 (`[::ffff:127.0.0.1]:7000`) is taken for what it is.
    ///
    /// # Errors
    /// [`Error::Resolve`] if it is not of these forms, with what to write instead, or if there is
    /// no such host or interface.
    pub fn resolve(address: &str) -> Result<Vec<Addr>, Error> {
        let failed = |source| Error::Resolve { address: address.to_owned(), source };
        if let Some(path) = address.strip_prefix("unix:") {
            return Ok(vec![Addr::Unix(unix(path).map_err(failed)?)]);
        }
        let mut addrs = Vec::new();
        for addr in sockets(address).map_err(failed)? {
            // A socket of IPv6 here takes IPv6 only, and refuses an address that is not.
            let addr = Addr::Tcp(match addr.ip().to_canonical() {
                IpAddr::V4(ip) => SocketAddr::from((ip, addr.port())),
                IpAddr::V6(_) => addr,
            });
            if !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        if addrs.is_empty() {
            return Err(failed(io::Error::new(io::ErrorKind::NotFound, "no address")));
        }
        Ok(addrs)
    }

    /// The same host and port for datagrams. `None` for a path, which is for streams only.
    #[must_use]
    pub fn udp(&self) -> Option<Addr> {
        match self {
            Addr::Tcp(addr) | Addr::Udp(addr) => Some(Addr::Udp(*addr)),
            Addr::Unix(_) => None,
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Tcp(addr) => write!(f, "tcp {addr}"),
            Addr::Udp(addr) => write!(f, "udp {addr}"),
            Addr::Unix(path) => match path.as_os_str().as_bytes() {
                [] => write!(f, "unix (unnamed)"),
                [0, name @ ..] => {
                    write!(f, "unix @{}", Path::new(OsStr::from_bytes(name)).display())
                }
                _ => write!(f, "unix {}", path.display()),
            },
        }
    }
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Addr {
        Addr::Tcp(addr)
    }
}

/// An address that is none: what to write instead.
fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.into())
}

/// What is behind `unix:`.
fn unix(path: &str) -> io::Result<PathBuf> {
    let (name, path) = match path.strip_prefix('@') {
        Some(name) => (name, format!("\0{name}")),
        None => (path, path.to_owned()),
    };
    match name.len() {
        0 => Err(wrong("write unix:PATH, or unix:@NAME for an abstract socket")),
        1..=UNIX_LEN_MAX => Ok(PathBuf::from(path)),
        len => {
            Err(wrong(format!("a unix address has at most {UNIX_LEN_MAX} bytes, and not {len}")))
        }
    }
}

/// The addresses of `HOST:PORT`.
fn sockets(address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Some(better) = in_our_form(address) {
        return Err(wrong(format!("write {better}")));
    }
    if let Some(rest) = address.strip_prefix('[') {
        let (ip, port) = rest.split_once(']').ok_or_else(|| wrong("there is no ']'"))?;
        let port = port.strip_prefix(':').ok_or_else(|| no_port(address))?;
        return Ok(vec![ipv6(ip, port)?.into()]);
    }
    let (host, port) = match address.rsplit_once(':') {
        Some(both) => both,
        None if address.parse::<u16>().is_ok() => ("", address),
        None => return Err(no_port(address)),
    };
    if host.contains(':') {
        return Err(wrong("an IPv6 address is written in brackets: [::1]:7000"));
    }
    let port = number(port, host)?;
    if matches!(host, "" | "*") {
        return Err(wrong(format!(
            "write 127.0.0.1:{port} for this machine only, 0.0.0.0:{port} or [::]:{port} for every \
             address of it"
        )));
    }
    Ok((host, port).to_socket_addrs()?.collect())
}

/// What is meant by some forms that other programs take, or that this one prints.
fn in_our_form(address: &str) -> Option<String> {
    if let Some((scheme, rest)) = address.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next()?;
        let host = authority.rsplit('@').next()?;
        let port = match scheme {
            _ if host.rsplit(']').next()?.contains(':') => "",
            "https" => ":443",
            "redis" => ":6379",
            _ => ":80",
        };
        return Some(format!("{host}{port}, which is not a URL"));
    }
    let printed = |kind, prefix: &str| {
        address.strip_prefix(kind).map(|rest| format!("{prefix}{}", rest.trim()))
    };
    printed("tcp ", "")
        .or_else(|| printed("udp ", ""))
        .or_else(|| printed("unix ", "unix:"))
        .or_else(|| match address {
            _ if address.trim() != address => Some(format!("{}, without space", address.trim())),
            _ if address.contains('/') || address.starts_with('@') => {
                Some(format!("unix:{address}"))
            }
            _ => None,
        })
}

fn ipv6(ip: &str, port: &str) -> io::Result<SocketAddrV6> {
    let port = number(port, &format!("[{ip}]"))?;
    let (ip, zone) = ip.split_once('%').map_or((ip, None), |(ip, zone)| (ip, Some(zone)));
    let ip: Ipv6Addr = ip.parse().map_err(|_| match ip {
        "" | "*" => wrong(format!("write [::]:{port} for every IPv6 address of this machine")),
        _ => wrong(format!("'{ip}' is not an IPv6 address, and only those are in brackets")),
    })?;
    let zone = match zone {
        // The kernel would say EINVAL, and not what of.
        None if ip.is_unicast_link_local() => {
            let example = format!("[{ip}%eth0]:{port}");
            return Err(wrong(format!("a link-local address needs its interface: {example}")));
        }
        None => 0,
        Some(zone) => zone.parse().or_else(|_| interface(zone))?,
    };
    Ok(SocketAddrV6::new(ip, port, 0, zone))
}

/// The number of an interface (`if_nametoindex(3)`).
fn interface(name: &str) -> io::Result<u32> {
    if_nametoindex(name).map_err(|_| {
        let what = format!("there is no interface '{name}'");
        io::Error::new(io::ErrorKind::NotFound, what)
    })
}

fn number(port: &str, host: &str) -> io::Result<u16> {
    if port.is_empty() {
        return Err(no_port(host));
    }
    // `parse` would take a plus sign.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port.parse().ok().filter(|_| digits);
    number.ok_or_else(|| wrong(format!("a port is a number up to 65535, and not '{port}'")))
}

fn no_port(host: &str) -> io::Error {
    match host {
        "" => wrong("write HOST:PORT, such as 127.0.0.1:7000, or unix:PATH"),
        _ => wrong(format!("there is no port: write {host}:7000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(address: &str) -> Vec<String> {
        match Addr::resolve(address) {
            Ok(addrs) => addrs.iter().map(Addr::to_string).collect(),
            Err(error) => vec![error.to_string()],
        }
    }

    #[test]
    fn what_is_an_address() {
        let lo = if_nametoindex("lo").expect("every network has it");
        for (written, means) in [
            ("127.0.0.1:0", "tcp 127.0.0.1:0".to_owned()),
            ("0.0.0.0:65535", "tcp 0.0.0.0:65535".to_owned()),
            ("[::]:80", "tcp [::]:80".to_owned()),
            ("[fe80::1%lo]:7", format!("tcp [fe80::1%{lo}]:7")),
            ("[fe80::1%7]:7", "tcp [fe80::1%7]:7".to_owned()),
            ("[::ffff:127.0.0.1]:80", "tcp 127.0.0.1:80".to_owned()),
            ("unix:/tmp/c10k.sock", "unix /tmp/c10k.sock".to_owned()),
            ("unix:@c10k", "unix @c10k".to_owned()),
            ("unix:./@c10k", "unix ./@c10k".to_owned()),
        ] {
            assert_eq!(resolved(written), [means.as_str()], "{written}");
            // What is printed is read again, but for the word before it.
            let printed = means.replace("unix ", "unix:").replace("tcp ", "");
            assert_eq!(resolved(&printed), [means], "{written}");
        }
        let path = |len: usize| format!("unix:{}", "x".repeat(len));
        assert_eq!(resolved(&path(107)), [path(107).replace(':', " ")]);
        assert!(resolved(&path(108))[0].contains("at most 107 bytes, and not 108"));
        let abstract_name = Addr::resolve("unix:@c10k").unwrap().remove(0);
        assert_eq!(abstract_name, Addr::Unix("\0c10k".into()));
        assert_eq!(Addr::Unix(PathBuf::new()).to_string(), "unix (unnamed)");
    }

    #[test]
    fn what_is_none_says_what_to_write() {
        for (written, says) in [
            ("", "'' is not an address: write HOST:PORT, such as 127.0.0.1:7000, or unix:PATH"),
            (":8080", "write 127.0.0.1:8080 for this machine only, 0.0.0.0:8080 or [::]:8080 for"),
            ("*:8080", "write 127.0.0.1:8080 for this machine only, 0.0.0.0:8080 or [::]:8080 for"),
            ("8080", "write 127.0.0.1:8080 for"),
            ("localhost", "there is no port: write localhost:7000"),
            ("localhost:", "there is no port: write localhost:7000"),
            ("[::1]", "there is no port: write [::1]:7000"),
            ("[::1]:", "there is no port: write [::1]:7000"),
            ("localhost:http", "a port is a number up to 65535, and not 'http'"),
            ("127.0.0.1:65536", "a port is a number up to 65535, and not '65536'"),
            ("127.0.0.1:-1", "a port is a number up to 65535, and not '-1'"),
            ("127.0.0.1:+1", "a port is a number up to 65535, and not '+1'"),
            ("::1:7000", "an IPv6 address is written in brackets: [::1]:7000"),
            ("fe80::1", "an IPv6 address is written in brackets"),
            ("[::1", "there is no ']'"),
            ("[localhost]:80", "'localhost' is not an IPv6 address, and only those are in"),
            ("[*]:80", "write [::]:80 for every IPv6 address of this machine"),
            ("[fe80::1]:7", "a link-local address needs its interface: [fe80::1%eth0]:7"),
            ("[fe80::1%nosuch]:7", "cannot resolve '[fe80::1%nosuch]:7': there is no interface"),
            ("http://host:80/", "write host:80, which is not a URL"),
            ("http://host/path", "write host:80, which is not a URL"),
            ("https://me:pw@[::1]/?q", "write [::1]:443, which is not a URL"),
            ("tcp://[::1]:7", "write [::1]:7, which is not a URL"),
            ("tcp 127.0.0.1:7", "write 127.0.0.1:7"),
            ("unix /tmp/c10k.sock", "write unix:/tmp/c10k.sock"),
            (" 127.0.0.1:7", "write 127.0.0.1:7, without space"),
            ("/tmp/c10k.sock", "write unix:/tmp/c10k.sock"),
            ("@c10k", "write unix:@c10k"),
            ("unix:", "write unix:PATH, or unix:@NAME for an abstract socket"),
            ("unix:@", "write unix:PATH, or unix:@NAME for an abstract socket"),
        ] {
            let error = Addr::resolve(written).expect_err(written).to_string();
            assert!(error.contains(says), "{written}: {error}");
            assert!(!error.contains('\n') && error.contains(&format!("'{written}'")), "{error}");
        }
    }
}
