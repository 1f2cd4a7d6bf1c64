//! Descriptors of our own types in the runtime's event loop.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use nacre_control::Channel;
use nix::sys::inotify::Inotify;
use tokio::io::unix::AsyncFd;

use crate::pidfd::PidFd;

/// A control socket that is waited for. It must be non-blocking.
///
/// # Errors
/// The event loop does not take it.
pub fn channel(channel: Channel) -> io::Result<AsyncFd<Channel>> {
    // SAFETY: a `Channel` owns its socket, and has the same one until it is dropped.
    Ok(unsafe { AsyncFd::register(channel) }?)
}

/// A process whose end is waited for.
///
/// # Errors
/// The event loop does not take it.
pub fn process(process: Arc<PidFd>) -> io::Result<AsyncFd<Arc<PidFd>>> {
    // SAFETY: a `PidFd` owns its descriptor, and has the same one until its last owner drops it.
    Ok(unsafe { AsyncFd::register(process) }?)
}

/// Watches for changes of folders.
#[derive(Debug)]
pub struct Watches(pub Inotify);

impl AsRawFd for Watches {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Watches whose events are waited for. They must be non-blocking.
///
/// # Errors
/// The event loop does not take them.
pub fn watches(watches: Arc<Watches>) -> io::Result<AsyncFd<Arc<Watches>>> {
    // SAFETY: an `Inotify` owns its descriptor, and has the same one until its last owner drops it.
    Ok(unsafe { AsyncFd::register(watches) }?)
}
