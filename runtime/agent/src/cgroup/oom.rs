//! Processes of a container that the kernel killed for want of memory.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::watch::FileWatch;
use super::{Cgroup, number};

/// Counts the kills in one cgroup.
pub struct OomKills {
    path: PathBuf,
    watch: FileWatch,
    seen: u64,
}

impl OomKills {
    /// Counts from now on; an error without the memory controller.
    pub fn new(cgroup: &Cgroup) -> io::Result<Self> {
        let path = cgroup.path().join("memory.events");
        let watch = FileWatch::new(&path)?;
        Ok(Self { path, watch, seen: 0 })
    }

    /// Whether there were more kills since the last look.
    pub fn more(&mut self) -> bool {
        let count = fs::read_to_string(&self.path).map_or(self.seen, |text| number(&text, "oom_kill"));
        let more = count > self.seen;
        self.seen = count;
        more
    }

    /// Waits for the next kill.
    pub async fn next(&mut self) -> io::Result<()> {
        loop {
            if self.more() {
                return Ok(());
            }
            self.watch.changed().await?;
        }
    }
}
