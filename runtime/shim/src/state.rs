//! A pod's folder, and in it what a later process needs to clean up after a shim that was killed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host_cgroup::HostCgroup;
use crate::id::Id;
use crate::pidfd::PidFd;

const STATE_FILE: &str = "state.json";
/// A unix socket's path has 107 bytes; the longest names leave room below a state folder of this length.
const VSOCK_FILE: &str = "vsock.sock";

/// Why a pod's folder does not work.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {} failed", path.display())]
pub struct StateError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A process that is known again: numbers are reused, but not with the same start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Its number.
    pub pid: u32,
    /// In clock ticks since the boot.
    pub started: u64,
}

/// What is written. Another version of this program may read it: fields are added, none changes its meaning, and what
/// is missing or unknown is no error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The version of the program that wrote it.
    pub version: String,
    /// The shim.
    pub shim: ProcessIdentity,
    /// The VMM, as soon as there is one.
    pub vmm: Option<ProcessIdentity>,
    /// The shim's socket for containerd.
    pub socket: PathBuf,
    /// The pod's control group on the host, if the shim made it.
    pub cgroup: Option<HostCgroup>,
    /// The interfaces that lead to the VM.
    pub network: Option<JoinedNetwork>,
}

/// Interfaces of a pod's network namespace that were joined to taps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedNetwork {
    /// The namespace.
    pub namespace: PathBuf,
    /// The interfaces' indexes in it.
    pub indexes: Vec<u32>,
}

/// `<state.path>/<namespace>/<sandbox>`.
#[derive(Debug, Clone)]
pub struct StateFolder(PathBuf);

impl StateFolder {
    /// The folder of a sandbox, which need not exist.
    pub fn of(root: &Path, namespace: &Id, sandbox: &Id) -> Self {
        Self(root.join(namespace.as_str()).join(sandbox.as_str()))
    }

    /// Makes the folder if it is not there.
    ///
    /// # Errors
    /// It can't be made.
    pub fn create(&self) -> Result<(), StateError> {
        fs::create_dir_all(&self.0).map_err(self.failed("making"))
    }

    /// Removes the folder and, if it is the last one, its namespace's.
    ///
    /// # Errors
    /// It can't be removed.
    pub fn remove(&self) -> Result<(), StateError> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.failed("removing")(error));
            }
            _ => {}
        }
        if let Some(namespace) = self.0.parent() {
            // Not empty: another pod lives there.
            let _ = fs::remove_dir(namespace);
        }
        Ok(())
    }

    /// The VMM's socket for connections into the guest.
    pub fn vsock(&self) -> PathBuf {
        self.0.join(VSOCK_FILE)
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes the state, whole or not at all.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, state: &State) -> Result<(), StateError> {
        let new = self.0.join("state.json.new");
        let write = || -> io::Result<()> {
            fs::write(&new, serde_json::to_vec(state)?)?;
            fs::rename(&new, self.0.join(STATE_FILE))
        };
        write().map_err(self.failed("writing the state in"))
    }

    /// Reads the state; `None` if there is none or it can't be read.
    pub fn read(&self) -> Option<State> {
        serde_json::from_slice(&fs::read(self.0.join(STATE_FILE)).ok()?).ok()
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> StateError {
        let path = self.0.clone();
        move |source| StateError { doing, path, source }
    }
}

impl ProcessIdentity {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // proc(5): the 22nd field; the second is in parentheses and may hold anything.
        let (_, fields) = stat.rsplit_once(") ")?;
        let started = fields.split(' ').nth(19)?.parse().ok()?;
        Some(Self { pid, started })
    }

    /// The process, if it still runs.
    pub fn open(self) -> Option<PidFd> {
        let process = PidFd::open(self.pid).ok()?;
        // In this order: what the descriptor means can no longer change.
        (Self::of(self.pid) == Some(self)).then_some(process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = ProcessIdentity::of(std::process::id()).unwrap();
        assert!(own.open().is_some());
        assert!(ProcessIdentity { started: own.started + 1, ..own }.open().is_none());
    }

    #[test]
    fn a_folder_leaves_nothing_and_can_be_removed_twice() {
        let root = tempfile::tempdir().unwrap();
        let folder = StateFolder::of(root.path(), &Id::new("default").unwrap(), &Id::new("web").unwrap());
        folder.create().unwrap();
        let shim = ProcessIdentity { pid: 1, started: 2 };
        let state = State { shim, socket: "/s".into(), ..Default::default() };
        folder.write(&state).unwrap();
        assert_eq!(folder.read(), Some(state));
        folder.remove().unwrap();
        folder.remove().unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_other_versions_wrote_is_understood() {
        let root = tempfile::tempdir().unwrap();
        let folder = StateFolder::of(root.path(), &Id::new("default").unwrap(), &Id::new("web").unwrap());
        folder.create().unwrap();
        let shim = ProcessIdentity { pid: 1, started: 2 };
        let known = State { shim, vmm: Some(shim), socket: "/s".into(), ..Default::default() };
        for text in [
            r#"{"shim":{"pid":1,"started":2},"vmm":{"pid":1,"started":2},"socket":"/s","cgroup":null,"network":null}"#,
            r#"{"shim":{"pid":1,"started":2,"x":3},"vmm":{"pid":1,"started":2},"socket":"/s","volumes":[{}]}"#,
        ] {
            fs::write(folder.file(STATE_FILE), text).unwrap();
            assert_eq!(folder.read(), Some(known.clone()));
        }
    }
}
