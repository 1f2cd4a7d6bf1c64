//! The pod's control group on the host: where its VMM is counted.
//!
//! The limits of the specification apply inside the guest, not here: a VM needs more than its container, and a limit
//! that the container reaches must not end the VM.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

const ROOT: &str = "/sys/fs/cgroup";

/// A group that this pod made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCgroup {
    /// The group, and the groups above it that did not exist before, innermost first.
    made: Vec<PathBuf>,
}

impl HostCgroup {
    /// Makes the group that a specification names and puts a process into it. `None` where the name is systemd's
    /// (`slice:prefix:name`), which only systemd can make, or where there is no cgroup v2.
    ///
    /// # Errors
    /// The group can't be made or joined.
    pub fn join(cgroups_path: Option<&Path>, pid: u32) -> io::Result<Option<Self>> {
        let root = Path::new(ROOT);
        let Some(group) = cgroups_path.and_then(|path| folder(root, path)) else { return Ok(None) };
        if !root.join("cgroup.controllers").exists() {
            return Ok(None);
        }
        let made = group.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
        let made = Self { made };
        let join = || {
            fs::create_dir_all(&group)?;
            fs::write(group.join("cgroup.procs"), pid.to_string())
        };
        join().inspect_err(|_| made.remove())?;
        Ok(Some(made))
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

/// The group's folder; `None` for a name that is not a plain path.
fn folder(root: &Path, cgroups_path: &Path) -> Option<PathBuf> {
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/default/web", Some("/r/default/web"))]
    #[case("default/web", Some("/r/default/web"))]
    #[case("kubepods.slice:cri-containerd:web", None)]
    #[case("/../etc", None)]
    #[case("/", None)]
    fn a_group_is_a_plain_path_below_the_root(#[case] given: &str, #[case] folder: Option<&str>) {
        assert_eq!(super::folder(Path::new("/r"), Path::new(given)).as_deref(), folder.map(Path::new));
    }
}
