//! A hand-rolled Linux epoll reactor.

#![deny(unsafe_code)]
