//! The pod's control group on the host: where its VMM and its shim are counted.
//!
//! The limits of the specification apply inside the guest, not here: a VM needs more than its container, and a limit
//! that the container reaches must not end the VM. The limits that kubelet sets on the groups above do apply.

mod limits;
mod usage;

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

#[cfg(test)]
pub use limits::Limit;
pub use limits::Limits;
pub use usage::usage;

const ROOT: &str = "/sys/fs/cgroup";
const PROCESSES: &str = "cgroup.procs";

/// A group that has this pod's processes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostCgroup {
    /// The group.
    group: PathBuf,
    /// The group, and the groups above it that did not exist before, innermost first.
    made: Vec<PathBuf>,
    /// Where the shim was before.
    home: PathBuf,
}

impl HostCgroup {
    /// Makes the group that a specification names and puts the VMM and this process into it. `None` where there is no
    /// cgroup v2 or no such name.
    ///
    /// # Errors
    /// The group can't be made or joined.
    pub fn join(cgroups_path: Option<&Path>, vmm: u32) -> io::Result<Option<Self>> {
        let root = Path::new(ROOT);
        let Some(group) = cgroups_path.and_then(|path| folder(root, path)) else { return Ok(None) };
        if !root.join("cgroup.controllers").exists() {
            return Ok(None);
        }
        let made = group.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
        let cgroup = Self { group, made, home: own_group(root) };
        let join = || {
            fs::create_dir_all(&cgroup.group)?;
            cgroup.add(vmm)?;
            cgroup.add(std::process::id())
        };
        join().inspect_err(|_| {
            cgroup.leave();
            cgroup.remove();
        })?;
        Ok(Some(cgroup))
    }

    fn add(&self, pid: u32) -> io::Result<()> {
        fs::write(self.group.join(PROCESSES), pid.to_string())
    }

    /// The group's folder.
    pub fn folder(&self) -> &Path {
        &self.group
    }

    /// Takes this process out of the group again, so that it can go.
    pub fn leave(&self) {
        let own = std::process::id().to_string();
        // containerd's own group, where the shim began, may be gone by now.
        if fs::write(self.home.join(PROCESSES), &own).is_err() {
            let _ = fs::write(Path::new(ROOT).join(PROCESSES), &own);
        }
    }

    /// Removes what was made, as far as it is empty: the kernel refuses a group with processes or groups in it.
    pub fn remove(&self) {
        for folder in &self.made {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}

/// The group that counts the memory of this process and of its pod, if the kernel has killed one of it for its memory.
pub fn short_of_memory() -> Option<PathBuf> {
    let own = own_group(Path::new(ROOT));
    let counted =
        |group: &Path| Some((fs::read_to_string(group.join("memory.events")).ok()?, group.to_owned()));
    let (events, group) = own.ancestors().find_map(counted)?;
    let killed = events.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
    (killed != "0").then_some(group)
}

/// The group that this process is in.
fn own_group(root: &Path) -> PathBuf {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    root.join(path)
}

/// The group's folder; `None` for a name that is neither a plain path nor systemd's `slice:prefix:name`.
fn folder(root: &Path, cgroups_path: &Path) -> Option<PathBuf> {
    if let [slice, prefix, name] = cgroups_path.to_str()?.split(':').collect::<Vec<_>>().as_slice() {
        return scope(root, slice, prefix, name);
    }
    let mut folder = root.to_owned();
    for part in cgroups_path.components() {
        match part {
            Component::RootDir => {}
            Component::Normal(part) if !part.to_string_lossy().contains(':') => folder.push(part),
            _ => return None,
        }
    }
    (folder != root).then_some(folder)
}

/// systemd.slice(5): `a-b.slice` lies in `a.slice`. The scope below is made without systemd, which leaves alone what it
/// does not know.
fn scope(root: &Path, slice: &str, prefix: &str, name: &str) -> Option<PathBuf> {
    let mut folder = root.to_owned();
    let parts = slice.strip_suffix(".slice")?;
    let mut slice = String::new();
    for part in parts.split('-').filter(|_| parts != "-") {
        if part.is_empty() || part.contains('/') {
            return None;
        }
        if !slice.is_empty() {
            slice.push('-');
        }
        slice.push_str(part);
        folder.push(format!("{slice}.slice"));
    }
    let plain = |part: &str| !part.is_empty() && !part.contains('/');
    (plain(prefix) && plain(name)).then(|| folder.join(format!("{prefix}-{name}.scope")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/default/web", Some("/r/default/web"))]
    #[case("default/web", Some("/r/default/web"))]
    #[case(
        "kubepods-burstable-pod1_2.slice:cri-containerd:web",
        Some(
            "/r/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-web.scope"
        )
    )]
    #[case("-.slice:cri:web", Some("/r/cri-web.scope"))]
    #[case("a--b.slice:cri:web", None)]
    #[case("../a.slice:cri:web", None)]
    #[case("a.slice:cri:../web", None)]
    #[case("kubepods:cri:web", None)]
    #[case("a:b", None)]
    #[case("/../etc", None)]
    #[case("/", None)]
    fn a_group_is_a_plain_path_below_the_root(#[case] given: &str, #[case] folder: Option<&str>) {
        assert_eq!(super::folder(Path::new("/r"), Path::new(given)).as_deref(), folder.map(Path::new));
    }

    #[test]
    fn what_an_older_version_wrote_is_understood() {
        let old: HostCgroup = serde_json::from_str(r#"{"made":["/a/b","/a"],"later":1}"#).unwrap();
        assert_eq!(old.made, [Path::new("/a/b"), Path::new("/a")]);
    }
}
