//! Waiting for a cgroup file to change.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use crate::readiness;

/// Tells of changes of one file.
pub struct FileWatch {
    inotify: AsyncFd<Watcher>,
}

struct Watcher(Inotify);

impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl FileWatch {
    /// Watches from now on. Read the file after this, not before.
    pub fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(path, AddWatchFlags::IN_MODIFY)?;
        Ok(Self { inotify: readiness::watch(Watcher(inotify))? })
    }

    /// Waits for the next change. An error when the file is gone.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            match ready.try_io(|watcher| Ok(watcher.get_ref().0.read_events()?)) {
                Ok(Ok(events))
                    if events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_IGNORED)) =>
                {
                    return Err(io::ErrorKind::NotFound.into());
                }
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}
