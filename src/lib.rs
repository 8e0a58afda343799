//! A hand-rolled Linux epoll reactor.

#![deny(unsafe_code)]

mod addr;
mod error;
pub mod framing;
pub mod poller;
pub mod reactor;
pub mod service;
pub mod session;
mod signals;
#[cfg(feature = "json")]
mod sum;
pub mod sys;
mod waker;
mod wheel;

pub use addr::Addr;
pub use error::Error;
pub use reactor::{Handler, Reactor, TimerId};
pub use session::Session;
pub use signals::Signals;
pub use waker::Waker;
