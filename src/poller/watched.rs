//! What poll and select keep for themselves, and epoll has the kernel keep: which descriptors are
//! watched, under which token.

use std::io;
use std::os::fd::RawFd;

use super::{Interest, Token};

/// The watched descriptors, in an order that their poller's arrays share.
#[derive(Debug, Default)]
pub(super) struct Watched {
    tokens: Vec<(RawFd, Token)>,
    /// By descriptor, its place in `tokens` plus one; 0 for one that is not watched.
    places: Vec<u32>,
}

impl Watched {
    /// Adds a descriptor behind all others.
    pub(super) fn insert(&mut self, fd: RawFd, token: Token) -> io::Result<()> {
        if self.place(fd).is_ok() {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        if self.places.len() <= fd as usize {
            self.places.resize(fd as usize + 1, 0);
        }
        self.tokens.push((fd, token));
        self.places[fd as usize] = self.tokens.len() as u32;
        Ok(())
    }

    /// Replaces the token of a descriptor, and returns its place.
    pub(super) fn replace(&mut self, fd: RawFd, token: Token) -> io::Result<usize> {
        let at = self.place(fd)?;
        self.tokens[at].1 = token;
        Ok(at)
    }

    /// Removes a descriptor and returns its place, which the last one now has (`swap_remove`).
    pub(super) fn remove(&mut self, fd: RawFd) -> io::Result<usize> {
        let at = self.place(fd)?;
        self.places[fd as usize] = 0;
        self.tokens.swap_remove(at);
        if let Some(&(moved, _)) = self.tokens.get(at) {
            self.places[moved as usize] = at as u32 + 1;
        }
        Ok(at)
    }

    pub(super) fn token(&self, at: usize) -> Token {
        self.tokens[at].1
    }

    fn place(&self, fd: RawFd) -> io::Result<usize> {
        let place = self.places.get(fd as usize).and_then(|&place| place.checked_sub(1));
        place.map(|at| at as usize).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }
}

/// Refuses what only epoll can do.
pub(super) fn level_only(interest: Interest) -> io::Result<()> {
    let beyond = [Interest::EDGE, Interest::ONESHOT, Interest::EXCLUSIVE];
    if beyond.iter().any(|&bit| interest.contains(bit)) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(())
}
