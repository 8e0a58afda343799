//! Memory that a process shares with the children it forks.

use std::fmt;
use std::io;
use std::mem;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::server::Counters;

/// A type of which all bytes zero are a value, and which processes may share: atomics, and
/// nothing that points anywhere or needs to be dropped.
///
/// # Safety
/// Whoever implements it vouches for that.
pub unsafe trait Shareable: Sync {}

// SAFETY: an atomic integer.
unsafe impl Shareable for AtomicU64 {}
// SAFETY: a struct of atomic integers only.
unsafe impl Shareable for Counters {}

/// An array that stays shared across `fork(2)`: what a child writes its parent reads, also after
/// the child was killed (`MAP_SHARED | MAP_ANONYMOUS`, `mmap(2)`).
pub struct SharedMemory<T> {
    first: NonNull<T>,
    len: usize,
}

// SAFETY: it owns its memory, and gives out shared references to values that are Sync.
unsafe impl<T: Shareable> Send for SharedMemory<T> {}
// SAFETY: as above.
unsafe impl<T: Shareable> Sync for SharedMemory<T> {}

impl<T: Shareable> SharedMemory<T> {
    /// An array of zeroes. Only pages that are written to take memory.
    ///
    /// # Errors
    /// `ENOMEM`.
    ///
    /// # Panics
    /// If it would be empty, or larger than the address space, or a `T` is aligned to more than a
    /// page of 4 KiB.
    pub fn new(len: usize) -> io::Result<SharedMemory<T>> {
        assert!(mem::align_of::<T>() <= 4096, "mmap aligns to pages");
        let (protection, flags) =
            (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: new memory at an address that the kernel chooses touches nothing that is there.
        let first = unsafe { mmap_anonymous(None, Self::bytes(len), protection, flags)? };
        Ok(SharedMemory { first: first.cast(), len })
    }

    fn bytes(len: usize) -> NonZeroUsize {
        let bytes = len.checked_mul(mem::size_of::<T>()).and_then(NonZeroUsize::new);
        bytes.expect("neither nothing nor more than there is")
    }
}

impl<T> Deref for SharedMemory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping has room for as many, is aligned to a page, lives as long as self,
        // and all zeroes are a value (`Shareable`). Whoever writes to it does so atomically.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T> Drop for SharedMemory<T> {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and no reference to it outlives self.
        let result = unsafe { munmap(self.first.cast(), self.len * mem::size_of::<T>()) };
        debug_assert!(result.is_ok());
    }
}

impl<T> fmt::Debug for SharedMemory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory").field("len", &self.len).finish_non_exhaustive()
    }
}
