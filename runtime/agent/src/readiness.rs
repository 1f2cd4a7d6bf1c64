//! Descriptors that are waited for.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::unix::AsyncFd;

/// Makes a nonblocking descriptor one that can be waited for.
pub fn watch<T: AsFd + AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: each type that this is used with (`OwnedFd`, an inotify instance) owns one descriptor for as long as it
    // lives, and gives the same one each time it is asked.
    unsafe { AsyncFd::register(owner) }.map_err(io::Error::from)
}
