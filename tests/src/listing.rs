//! What a container could leave on a node: processes, mounts, network devices, cgroups, sockets and files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::options::{NACRE, Options};

/// Folders whose files are listed. The layer cache is meant to stay.
const FOLDERS: [&str; 2] = ["/run/nacre", "/var/lib/nacre"];
/// Characters of a command line that are enough to know a process by.
const LINE: usize = 300;
const CACHE: &str = "/var/lib/nacre/layers";

/// Everything at one moment, as lines that say what they are; each with its number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing(BTreeMap<String, usize>);

impl Listing {
    /// Of now.
    pub fn now(options: &Options) -> Self {
        let mut this = Self::default();
        this.add("process", processes());
        this.add("mount", mounts());
        this.add("network device", names(Path::new("/sys/class/net")));
        this.add("cgroup", folders(Path::new("/sys/fs/cgroup")));
        this.add("socket", sockets());
        for folder in FOLDERS {
            this.add("file", files(Path::new(folder)));
        }
        // What containerd keeps for each running container.
        let state = &options.containerd_state;
        for folder in ["io.containerd.runtime.v2.task", "fifo"] {
            this.add("file", files(&state.join(folder)));
        }
        // The sockets of shims. runc's leaves its own when it is killed.
        let shims = state.join("s");
        this.add("file", files(&shims));
        if options.runtime != NACRE {
            let shims = shims.display().to_string();
            this.0.retain(|line, _| !line.contains(&shims));
        }
        this
    }

    fn add(&mut self, kind: &str, lines: impl IntoIterator<Item = String>) {
        for line in lines {
            *self.0.entry(format!("{kind} {line}")).or_default() += 1;
        }
    }

    /// The lines that have one of these parts.
    pub fn matching(&self, parts: &[String]) -> Vec<String> {
        let lines = self.0.keys().filter(|line| parts.iter().any(|part| line.contains(part.as_str())));
        lines.cloned().collect()
    }

    /// What is more or less than before, a line each.
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let keys: BTreeSet<&String> = self.0.keys().chain(before.0.keys()).collect();
        let count = |listing: &Self, key: &String| listing.0.get(key).copied().unwrap_or(0);
        keys.into_iter()
            .filter(|key| count(self, key) != count(before, key))
            .map(|key| format!("{key}: {} before, {} now", count(before, key), count(self, key)))
            .collect()
    }
}

/// The command lines of all processes except the kernel's, and except this one with its parents and children.
fn processes() -> Vec<String> {
    let parents: BTreeMap<u32, u32> = names(Path::new("/proc"))
        .iter()
        .filter_map(|name| name.parse().ok())
        .map(|pid| (pid, parent(pid)))
        .collect();
    let line = |pid: u32| -> BTreeSet<u32> {
        std::iter::successors(Some(pid), |pid| parents.get(pid).copied().filter(|parent| *parent != 0))
            .collect()
    };
    let ours = std::process::id();
    let above = line(ours);
    let others = parents.keys().filter(|pid| !above.contains(pid) && !line(**pid).contains(&ours));
    others.filter_map(|pid| command_line(*pid)).collect()
}

/// The program and arguments of a process; none for the kernel's threads and for what has just ended.
pub fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|bytes| !bytes.is_empty())?;
    let line = String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ");
    Some(line.chars().take(LINE).collect())
}

/// The parent of a process; zero when it has none.
pub fn parent(pid: u32) -> u32 {
    status(pid, "PPid").and_then(|number| number.try_into().ok()).unwrap_or(0)
}

/// A number of a process's status, without its unit.
pub fn status(pid: u32, key: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

/// All processes.
pub fn pids() -> Vec<u32> {
    names(Path::new("/proc")).iter().filter_map(|name| name.parse().ok()).collect()
}

fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (place, file_system) = line.split_once(" - ")?;
            Some(format!("{} of type {}", place.split(' ').nth(4)?, file_system.split(' ').next()?))
        })
        .collect()
}

fn sockets() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    text.lines().filter_map(|line| line.split_whitespace().nth(7)).map(str::to_owned).collect()
}

fn folders(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in names(root) {
        let path = root.join(name);
        if path.is_dir() && !path.is_symlink() {
            found.push(path.display().to_string());
            found.extend(folders(&path));
        }
    }
    found
}

fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in names(root) {
        let path: PathBuf = root.join(name);
        if path == Path::new(CACHE) {
            continue;
        }
        found.push(path.display().to_string());
        // What is mounted on a container's folder is listed as a mount; its files are not ours.
        if path.is_dir() && !path.is_symlink() && !path.ends_with("rootfs") {
            found.extend(files(&path));
        }
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_named_with_their_numbers() {
        let mut before = Listing::default();
        before.add("mount", ["a".to_owned(), "a".to_owned(), "b".to_owned()]);
        let mut now = Listing::default();
        now.add("mount", ["a".to_owned(), "b".to_owned()]);
        now.add("file", ["c".to_owned()]);
        assert_eq!(now.changes_since(&before), ["file c: 0 before, 1 now", "mount a: 2 before, 1 now"]);
        assert!(before.changes_since(&before).is_empty());
    }

    #[test]
    fn this_process_and_its_children_are_not_listed() {
        let mut child = std::process::Command::new("sleep").arg("4711").spawn().unwrap();
        let found = processes().iter().any(|line| line.contains("4711"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!found);
    }
}
