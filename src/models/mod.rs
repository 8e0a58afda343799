//! The ways to serve: the same sessions, and only the way of waiting differs.

mod blocking;
mod event_loop;
mod processes;
mod threads;

use std::fmt;
use std::io;

use self::event_loop::EventLoop;
use self::processes::Processes;
use self::threads::Threads;
use crate::framing::Framing;
use crate::poller::{Epoll, Poll, Select, Spin};
use crate::server::{Config, Counters, Front, Setup};
use crate::service::Service;
use crate::session::Ended;
use crate::{Addr, Error};

/// How a server waits for its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Model {
    /// One thread and an epoll instance: the reactor.
    Epoll(Trigger),
    /// One thread and `poll(2)`: the same loop, told of every connection at each call.
    Poll,
    /// One thread and `select(2)`: the same loop, for descriptors below 1,024.
    Select,
    /// A thread for each connection, blocked in `recv` most of the time.
    Threads,
    /// A process for each connection, forked when it is accepted, likewise.
    ///
    /// The process must have no other thread when the server is built and
    /// [run](crate::Server::run), which waits for every child that the process has.
    Processes,
    /// One connection at a time, blocked in `recv` most of the time: the next one waits in the
    /// accept queue until it is over.
    Blocking,
    /// One thread that never waits: it tries every connection in turn, for ever.
    Spin,
}

impl Default for Model {
    fn default() -> Self {
        Model::Epoll(Trigger::Edge)
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Model::Epoll(Trigger::Edge) => "epoll",
            Model::Epoll(Trigger::Level) => "epoll (level)",
            Model::Poll => "poll",
            Model::Select => "select",
            Model::Threads => "threads",
            Model::Processes => "processes",
            Model::Blocking => "blocking",
            Model::Spin => "spin",
        })
    }
}

/// When epoll tells of a connection that is ready; see `epoll(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trigger {
    /// Once for each change. Watched for everything once and for all, a connection never needs
    /// another `epoll_ctl`.
    #[default]
    Edge,
    /// In each wait, for as long as it is so. What is watched for changes with what the session
    /// wants.
    Level,
}

/// A server that only has to be run: what can fail was done.
pub(crate) type Ready = Box<dyn FnOnce() -> Result<(), Error> + Send>;

/// Makes all that the model needs to serve until it is stopped.
pub(crate) fn prepare<F, S, M>(setup: Setup<F, M>) -> Result<Ready, Error>
where
    F: Framing + Send + Sync + 'static,
    S: Service + Send + 'static,
    M: Fn() -> S + Send + Sync + 'static,
{
    let Setup { sources, shared, protocol, config } = setup;
    let (counted, idle_timeout) = (shared.clone(), config.idle_timeout);
    let event_loop = |protocol, trigger| EventLoop::new(protocol, counted, trigger, idle_timeout);
    match config.model {
        Model::Epoll(trigger) => {
            let model = event_loop(protocol, trigger);
            Front::prepare::<Epoll>(model, sources, shared, &config)
        }
        Model::Poll => {
            let model = event_loop(protocol, Trigger::Level);
            Front::prepare::<Poll>(model, sources, shared, &config)
        }
        Model::Select => {
            let model = event_loop(protocol, Trigger::Level);
            Front::prepare::<Select>(model, sources, shared, &config)
        }
        Model::Spin => {
            let model = event_loop(protocol, Trigger::Level);
            Front::prepare::<Spin>(model, sources, shared, &config)
        }
        Model::Threads => {
            let model = Threads::new(protocol, shared.clone(), &config);
            Front::prepare::<Epoll>(model, sources, shared, &config)
        }
        Model::Blocking => {
            // In a thread of its own, so that there is one left to hear that it is to stop.
            let config = Config { connections_max: 1, ..config };
            let model = Threads::new(protocol, shared.clone(), &config);
            Front::prepare::<Epoll>(model, sources, shared, &config)
        }
        Model::Processes => {
            // With poll, there is no epoll instance for the children to inherit.
            let model = Processes::new(protocol, shared.clone(), idle_timeout);
            Front::prepare::<Poll>(model, sources, shared, &config)
        }
    }
}

/// Counts why a session stopped serving, and says so in the log.
fn account_for_end(
    ended: Option<Ended>,
    counters: &Counters,
    peer: impl FnOnce() -> io::Result<Addr>,
) {
    let Some(ended) = ended else { return };
    counters.ended(ended);
    // It may be gone already.
    let peer = || peer().map_or_else(|_| "a peer".to_owned(), |addr| addr.to_string());
    match ended {
        Ended::Panicked => log::error!("the service panicked: closing {}", peer()),
        // Not louder: whoever likes could fill the log with it.
        Ended::Refused(why) => log::debug!("closing {}: {why}", peer()),
        Ended::Malformed | Ended::ByService | Ended::ByDriver => {}
    }
}
