//! A file in the runtime's event loop.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A file that is waited for until it can be read. It must be non-blocking.
///
/// # Errors
/// The event loop does not take it.
pub fn readable(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a `File` owns its descriptor and has the same one until it is dropped, here with the `AsyncFd`.
    Ok(unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }?)
}
