//! The cgroup of a container (cgroup v2).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

mod devices;
mod oom;
mod resources;
mod stats;
mod unsafe_bpf;
mod watch;

pub use devices::DeviceAccess;
pub use oom::OomKills;
pub use resources::{fit, update};
pub use stats::stats;

use crate::id::ContainerId;
use crate::signal;
use watch::FileWatch;

/// Where cgroup v2 is mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// The folder of all containers' cgroups, below the root.
pub const PARENT: &str = "nacre";

/// The agent's own cgroup where it needs one, below the root.
const AGENT: &str = "agent";

/// A container's cgroup.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The cgroup of this container, which need not exist.
    pub fn of(id: &ContainerId) -> Self {
        Self { path: Path::new(ROOT).join(PARENT).join(id.as_str()) }
    }

    /// The path that a specification names it by.
    pub fn name(id: &ContainerId) -> PathBuf {
        Path::new("/").join(PARENT).join(id.as_str())
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All its processes.
    pub fn processes(&self) -> io::Result<Vec<Pid>> {
        let mut pids = Vec::new();
        collect_processes(&self.path, &mut pids)?;
        Ok(pids)
    }

    /// Kills all its processes, also those that are being made.
    pub fn kill(&self) -> io::Result<()> {
        ignore_missing(fs::write(self.path.join("cgroup.kill"), "1"))
    }

    /// Sends a signal to all its processes.
    pub fn signal(&self, signal: signal::Number) -> io::Result<()> {
        self.processes()?.into_iter().try_for_each(|pid| signal.send_to(pid))
    }

    /// Stops all its processes or lets them go on; returns when that is so.
    pub async fn freeze(&self, frozen: bool) -> io::Result<()> {
        let wanted = if frozen { "1" } else { "0" };
        fs::write(self.path.join("cgroup.freeze"), wanted)?;
        self.wait_for_event("frozen", wanted).await
    }

    /// Whether its processes are stopped.
    pub fn is_frozen(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
    }

    /// Kills what is left in it and removes it with all cgroups below.
    pub async fn remove(&self) -> io::Result<()> {
        self.kill()?;
        ignore_missing(self.wait_for_event("populated", "0").await)?;
        ignore_missing(remove_tree(&self.path))
    }

    async fn wait_for_event(&self, key: &str, value: &str) -> io::Result<()> {
        let path = self.path.join("cgroup.events");
        let mut watch = FileWatch::new(&path)?;
        loop {
            if field(&fs::read_to_string(&path)?, key) == Some(value) {
                return Ok(());
            }
            watch.changed().await?;
        }
    }
}

/// The value of a key in a file of lines with a key and a value.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(str::trim)
}

fn number(text: &str, key: &str) -> u64 {
    field(text, key).and_then(|value| value.parse().ok()).unwrap_or_default()
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        other => other,
    }
}

fn collect_processes(path: &Path, pids: &mut Vec<Pid>) -> io::Result<()> {
    let text = match fs::read_to_string(path.join("cgroup.procs")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    pids.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).map(Pid::from_raw));
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_processes(&entry.path(), pids)?;
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// Moves this process out of the way of limits, if it is in their way: a cgroup with processes can't have limits for
/// its children, apart from the machine's root.
pub fn step_aside() -> io::Result<()> {
    let root = Path::new(ROOT);
    if !root.join("cgroup.type").exists() {
        return Ok(());
    }
    let own = root.join(AGENT);
    fs::create_dir_all(&own)?;
    fs::write(own.join("cgroup.procs"), "0")
}

/// Gives all controllers to the containers' part of the hierarchy.
pub fn prepare() -> io::Result<()> {
    let root = Path::new(ROOT);
    let parent = root.join(PARENT);
    fs::create_dir_all(&parent)?;
    enable_controllers(root)?;
    enable_controllers(&parent)
}

fn enable_controllers(folder: &Path) -> io::Result<()> {
    let available = fs::read_to_string(folder.join("cgroup.controllers"))?;
    let enable: Vec<String> =
        available.split_whitespace().map(|controller| format!("+{controller}")).collect();
    let control = folder.join("cgroup.subtree_control");
    // Each write makes the kernel wait for all its processors, so one for all; but one controller that can't be
    // enabled must not take the others with it.
    if fs::write(&control, enable.join(" ")).is_err() {
        for controller in enable {
            let _ = fs::write(&control, controller);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_matched_whole() {
        let text = "oom 1\noom_kill 2\noom_group_kill 3\n";
        assert_eq!(number(text, "oom"), 1);
        assert_eq!(number(text, "oom_kill"), 2);
        assert_eq!(number(text, "none"), 0);
    }
}
