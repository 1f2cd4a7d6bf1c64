//! Numbers by which a processor tells confidential guests apart, as the kernel's controller for miscellaneous resources
//! counts them (Linux, Documentation/admin-guide/cgroup-v2.rst, "Misc").

use std::fs;
use std::path::Path;

/// How many there are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// All that the host has.
    pub all: u64,
    /// Those in use.
    pub used: u64,
}

impl Limited {
    /// Those of this name below `root`; `None` if the kernel does not count them.
    pub fn read(root: &Path, name: &str) -> Option<Self> {
        let number =
            |file: &str| value(&fs::read_to_string(root.join("sys/fs/cgroup").join(file)).ok()?, name);
        let all = number("misc.capacity")?;
        Some(Self { all, used: number("misc.current").unwrap_or_default() })
    }

    /// Whether there is one for another guest.
    pub fn has_more(self) -> bool {
        self.used < self.all
    }

    /// In words.
    pub fn text(self) -> String {
        format!("{} of {} free", self.all.saturating_sub(self.used), self.all)
    }
}

/// The number behind a word at the beginning of a line.
fn value(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}
