//! A hand-rolled Linux epoll reactor.

#![deny(unsafe_code)]

mod addr;
mod error;
pub mod poller;
pub mod reactor;
mod signals;
pub mod sys;
mod waker;
mod wheel;

pub use addr::Addr;
pub use error::Error;
pub use reactor::{Handler, Reactor, TimerId};
pub use signals::Signals;
pub use waker::Waker;
