//! The seam to the kernel: the only home of `unsafe` and of raw file descriptors.
//!
//! Each function here is one system call (or one option of one) with the accidents of C taken
//! off: descriptors are [`OwnedFd`](std::os::fd::OwnedFd) and
//! [`BorrowedFd`](std::os::fd::BorrowedFd), `EINTR` is retried, `EAGAIN` is an outcome rather
//! than an error, and every descriptor is close-on-exec. What a call means is in its man page,
//! which its documentation names.

// The one module that may: each block says why it is sound.
#![allow(unsafe_code)]

mod call;
mod datagram;
mod fork;
mod interrupt;
mod network;
mod process;
mod shared;
mod signal;
mod socket;
mod time;
mod wait;

pub use datagram::{DATAGRAM_LEN_MAX, Datagram, Datagrams, bind_datagram, recv_datagram};
pub(crate) use fork::{check_single_threaded, close_all_but};
pub use fork::{close_inherited, end_with_parent, fork};
pub(crate) use interrupt::{Interruptible, prepare_to_interrupt};
pub use network::{drop_incoming, own_network, reject_route, set_link_up};
pub use process::{die_with_parent, pin_to_cpu, raise_fd_limit, task_limit};
pub use shared::{Shareable, SharedMemory};
pub(crate) use signal::{
    default_action, end_at_next, finish_on_sigterm, ignore, is_ignored, is_told_to_finish,
    take_pending,
};
pub use signal::{reap_children, restore_signal};
pub(crate) use socket::recv_at_once;
pub use socket::{
    ConnectOptions, Connecting, ListenOptions, Recv, accept, connect, connect_again, listen,
    local_addr, peer_addr, recv, send, set_io_timeout, set_linger, shutdown_both, shutdown_read,
    shutdown_write, take_error, unacknowledged,
};
pub use time::{Timer, monotonic_ns};
pub use wait::{FD_SETSIZE, FdSet, epoll_pwait2, epoll_wait, poll, select};
