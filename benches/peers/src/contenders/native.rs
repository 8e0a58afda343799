//! The contenders in C and C++, which `build.rs` compiles where their headers are installed.

use std::ffi::c_int;
use std::io;
use std::net::TcpListener;
use std::os::fd::IntoRawFd;

unsafe extern "C" {
    #[cfg(has_libevent)]
    safe fn serve_libevent(listener: c_int) -> c_int;
    #[cfg(has_libuv)]
    safe fn serve_libuv(listener: c_int) -> c_int;
    #[cfg(has_asio)]
    safe fn serve_asio(listener: c_int) -> c_int;
}

#[cfg(has_libevent)]
pub(super) fn libevent(listener: TcpListener) -> io::Result<()> {
    run(serve_libevent, listener)
}

#[cfg(has_libuv)]
pub(super) fn libuv(listener: TcpListener) -> io::Result<()> {
    run(serve_libuv, listener)
}

#[cfg(has_asio)]
pub(super) fn asio(listener: TcpListener) -> io::Result<()> {
    run(serve_asio, listener)
}

/// They return only if they fail.
fn run(serve: extern "C" fn(c_int) -> c_int, listener: TcpListener) -> io::Result<()> {
    let status = serve(listener.into_raw_fd());
    Err(io::Error::other(format!("it ended with {status}")))
}
