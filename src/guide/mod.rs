//! A guide to what the kernel does: sockets, queues, states, and the ways to wait.
//!
//! Each chapter explains a group of the labs (`c10k lab`), and quotes what they print. A lab is a
//! small program that shows one fact on the kernel it runs on: the system calls in the order they
//! are made, what the kernel reports of its sockets, and whether what was claimed was seen. So
//! everything here can be read without running anything, and run to see that it is true:
//!
//! ```text
//! $ c10k lab --list
//! $ c10k lab handshake
//! $ c10k lab --all
//! ```
//!
//! The numbers in what is quoted (ports, descriptors, times) are those of one run. A test compares
//! the rest with what the labs print now.

pub mod sockets {
    #![doc = include_str!("sockets.md")]
}
pub mod queues {
    #![doc = include_str!("queues.md")]
}
pub mod life {
    #![doc = include_str!("life.md")]
}
pub mod waiting {
    #![doc = include_str!("waiting.md")]
}
pub mod datagrams {
    #![doc = include_str!("datagrams.md")]
}
pub mod limits {
    #![doc = include_str!("limits.md")]
}
