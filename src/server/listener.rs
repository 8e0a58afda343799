//! A listening socket, and when it is not to be accepted from.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::sys::{self, ConnectOptions, ListenOptions};
use crate::{Addr, Error};

/// A listening socket. A unix one removes its path when dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: OwnedFd,
    addr: Addr,
    /// Not accepted from, and not watched, for any of these reasons.
    pub(crate) at_limit: bool,
    /// Out of descriptors: until its deadline.
    pub(crate) backing_off: bool,
}

impl Listener {
    pub(crate) fn open(addr: &Addr, options: &ListenOptions) -> Result<Listener, Error> {
        let failed = |source| Error::Listen { addr: addr.clone(), source };
        if let Addr::Unix(path) = addr {
            remove_stale(path).map_err(failed)?;
        }
        let fd = sys::listen(addr, options).map_err(failed)?;
        let addr = sys::local_addr(&fd).map_err(failed)?;
        Ok(Listener { fd, addr, at_limit: false, backing_off: false })
    }

    /// Where it listens, with the port that the kernel chose.
    pub(crate) fn addr(&self) -> &Addr {
        &self.addr
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.at_limit || self.backing_off
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Addr::Unix(path) = &self.addr {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes a unix socket that a killed server left behind: one that nobody listens on. Only a
/// socket: `connect(2)` says ECONNREFUSED of a file of any other kind too.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    match is_socket.then(|| sys::connect(&Addr::Unix(path.into()), &ConnectOptions::default())) {
        Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path)
        }
        _ => Ok(()),
    }
}
