//! What a test's pods are known by on the node: a folder with their logs and volumes, a cgroup, and their identifiers.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};

const FOLDER: &str = "/run/nacre-cri";
const CGROUPS: &str = "/sys/fs/cgroup/nacre-cri";

/// The traces of one test.
#[derive(Debug, Clone)]
pub struct Traces {
    name: String,
}

impl Traces {
    /// Of the test of this name.
    pub fn of(test: &str) -> Self {
        Self { name: format!("{}.", test.replace('/', "-")) }
    }

    /// A folder of the test's own; it is there.
    ///
    /// # Errors
    /// It can't be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.root().join(name);
        fs::create_dir_all(&path).map_err(Failure::io(format!("can't make {}", path.display())))?;
        Ok(path)
    }

    fn root(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// The cgroup for a pod, made as kubelet does; its path below the root of cgroups.
    ///
    /// # Errors
    /// It can't be made.
    pub fn cgroup(&self, pod: &str) -> Result<String, Failure> {
        let name = format!("{}{pod}", self.name);
        let path = Path::new(CGROUPS).join(&name);
        fs::create_dir_all(&path).map_err(Failure::io(format!("can't make {}", path.display())))?;
        for folder in ["/sys/fs/cgroup", CGROUPS] {
            let control = Path::new(folder).join("cgroup.subtree_control");
            for controller in ["+cpu", "+cpuset", "+memory", "+pids"] {
                fs::write(&control, controller)
                    .map_err(Failure::io(format!("can't write {}", control.display())))?;
            }
        }
        Ok(format!("/nacre-cri/{name}"))
    }

    /// The folder of a cgroup that [`Traces::cgroup`] made.
    pub fn cgroup_folder(cgroup: &str) -> PathBuf {
        Path::new("/sys/fs/cgroup").join(cgroup.trim_start_matches('/'))
    }

    /// Notes the identifier of a pod or container.
    ///
    /// # Errors
    /// It can't be written.
    pub fn note(&self, id: &str) -> Outcome {
        let path = self.folder("")?.join("ids");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        // In one write: pods that start at once are noted at once.
        file.and_then(|mut file| file.write_all(format!("{id}\n").as_bytes()))
            .map_err(Failure::io(format!("can't write {}", path.display())))
    }

    /// The identifiers that were noted.
    pub fn ids(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root().join("ids")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What lines of a listing contain that are about this test.
    pub fn parts(&self) -> Vec<String> {
        let mut parts = self.ids();
        // Not its folder, which is the test's own; but what is mounted or open there.
        parts.push(format!("nacre-cri/{}", self.name));
        parts
    }

    /// Removes the pods' cgroups, as kubelet does when a pod is gone. One that is in use stays and is found.
    pub fn remove_cgroups(&self) {
        let entries = fs::read_dir(CGROUPS).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&self.name)) {
            remove_tree(&entry.path());
        }
        // Only the last test's removal works.
        let _ = fs::remove_dir(CGROUPS);
    }

    /// Removes the folder.
    pub fn remove_folder(&self) {
        let _ = fs::remove_dir_all(self.root());
        let _ = fs::remove_dir(FOLDER);
    }
}

fn remove_tree(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}

#[cfg(test)]
mod tests {
    use super::Traces;

    #[test]
    fn one_tests_traces_are_not_anothers() {
        let (short, long) = (Traces::of("pods/run"), Traces::of("pods/run-twice"));
        assert!(!long.parts().concat().contains(&short.parts().concat()));
    }
}
