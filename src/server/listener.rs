//! A listening socket, and when it is not to be accepted from.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::poller::Interest;
use crate::sys::{self, ConnectOptions, ListenOptions};
use crate::{Addr, Error};

/// A listening socket. A unix one removes its path when dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: OwnedFd,
    addr: Addr,
    /// Which file the path of a unix socket is, so that no other server's is removed.
    file: Option<(u64, u64)>,
    share: Share,
    /// Not accepted from, and not watched, for any of these reasons.
    pub(crate) at_limit: bool,
    /// Out of descriptors: until its deadline.
    pub(crate) backing_off: bool,
}

/// Who accepts from a listener, or receives from a socket of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// This process.
    Nobody,
    /// Every worker.
    Workers,
    /// One worker, whose own it is (`SO_REUSEPORT`).
    Worker(usize),
}

impl Share {
    pub(crate) fn is_of_worker(self, worker: usize) -> bool {
        self == Share::Workers || self == Share::Worker(worker)
    }

    /// What to watch for. Where several processes watch one socket, what arrives is to wake one of
    /// them rather than all (`EPOLLEXCLUSIVE`, `epoll_ctl(2)`).
    pub(crate) fn interest(self) -> Interest {
        match self {
            Share::Workers => Interest::READ | Interest::EXCLUSIVE,
            Share::Nobody | Share::Worker(_) => Interest::READ,
        }
    }
}

impl Listener {
    pub(crate) fn open(
        addr: &Addr,
        options: &ListenOptions,
        share: Share,
    ) -> Result<Listener, Error> {
        let failed = |source| Error::Listen { addr: addr.clone(), source };
        if let Addr::Unix(path) = addr {
            remove_stale(path).map_err(failed)?;
        }
        let fd = sys::listen(addr, options).map_err(failed)?;
        let addr = sys::local_addr(&fd).map_err(failed)?;
        let file = file_of(&addr);
        Ok(Listener { fd, addr, file, share, at_limit: false, backing_off: false })
    }

    /// Where it listens, with the port that the kernel chose.
    pub(crate) fn addr(&self) -> &Addr {
        &self.addr
    }

    /// In a worker: whether it is to accept from this. Its path is the parent's to remove.
    pub(crate) fn is_of_worker(&mut self, worker: usize) -> bool {
        self.file = None;
        self.share.is_of_worker(worker)
    }

    /// What to watch it for.
    pub(crate) fn interest(&self) -> Interest {
        self.share.interest()
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
        if let Addr::Unix(path) = &self.addr
            && self.file.is_some()
            && self.file == file_of(&self.addr)
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// The device and inode of a unix socket's path.
fn file_of(addr: &Addr) -> Option<(u64, u64)> {
    let Addr::Unix(path) = addr else { return None };
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
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
