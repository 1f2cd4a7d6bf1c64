//! The pods of this node: what their folders, their processes and their shims say.

mod arguments;
mod ask;
mod find;
mod memory;
mod processes;

use std::path::{Path, PathBuf};

use nacre_operator::{ABOUT_FILE, About, Call, Phase, SOCKET_FILE, Status};

pub use arguments::{EXIT_CODES, Place, PodError, Wanted};
pub use ask::{AskError, Connection};
pub use find::{FindError, one};
pub use memory::Memory;
use processes::Processes;

/// A pod's folder, and what is known of it.
#[derive(Debug)]
pub struct Pod {
    /// containerd's namespace.
    pub namespace: String,
    /// The sandbox's id.
    pub id: String,
    /// The pod's folder.
    pub folder: PathBuf,
    /// What its shim wrote down.
    pub about: Option<About>,
    /// Shim and VMM.
    pub processes: Processes,
}

/// How a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The VM boots.
    Starting,
    /// The VM runs.
    Running,
    /// The VM ended, the pod is not deleted yet.
    Stopped,
    /// The shim runs and can't be asked: it is of a version without a socket for that, or has none yet.
    NotAsked,
    /// The shim runs and does not answer.
    Silent,
    /// The shim is gone and its VMM still runs.
    Orphaned,
    /// Neither shim nor VMM are left, only files.
    Leftover,
}

impl Condition {
    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::NotAsked => "runs, can't be asked",
            Self::Silent => "BROKEN: shim does not answer",
            Self::Orphaned => "BROKEN: shim is gone, VMM runs",
            Self::Leftover => "LEFTOVER: no process",
        }
    }
}

impl Pod {
    fn read(namespace: &str, id: &str, folder: PathBuf) -> Self {
        let about = std::fs::read(folder.join(ABOUT_FILE)).ok();
        Self {
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            about: about.and_then(|json| serde_json::from_slice(&json).ok()),
            processes: Processes::read(&folder),
            folder,
        }
    }

    /// What to call it: its name in Kubernetes, or containerd's names.
    pub fn name(&self) -> String {
        match self.about.as_ref().and_then(|about| about.kubernetes.as_ref()) {
            Some(name) => format!("{}/{}", name.namespace, name.name),
            None => format!("{}/{}", self.namespace, self.id),
        }
    }

    /// Asks its shim.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ask(&self, call: Call) -> Result<Connection, AskError> {
        // Without a state file nothing is known of it: the socket tells.
        if self.processes.shim_is_gone() {
            return Err(AskError::Gone);
        }
        Connection::open(&self.folder.join(SOCKET_FILE), call)
    }

    /// Its shim's view.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn status(&self) -> Result<Status, AskError> {
        self.ask(Call::Status)?.only()
    }

    /// How it is, given its shim's answer.
    pub fn condition(&self, status: &Result<Status, AskError>) -> Condition {
        match (status, self.processes.shim_runs(), self.processes.vmm_runs()) {
            (Ok(status), ..) => match status.phase {
                Phase::Starting => Condition::Starting,
                Phase::Running => Condition::Running,
                Phase::Stopped => Condition::Stopped,
                Phase::Unknown => Condition::NotAsked,
            },
            (Err(AskError::NoSocket { .. } | AskError::Refused { .. }), true, _) => Condition::NotAsked,
            (Err(_), true, _) => Condition::Silent,
            (Err(_), false, true) => Condition::Orphaned,
            (Err(_), false, false) => Condition::Leftover,
        }
    }

    /// What it takes of the node's memory.
    pub fn memory(&self) -> Memory {
        let guest_mib = self.about.as_ref().map_or(0, |about| about.size.memory_mib);
        let shim = self.processes.shim().map(|pid| Memory::of(pid, None));
        let vmm = self.processes.vmm().map(|pid| Memory::of(pid, Some(u64::from(guest_mib) * 1024)));
        [shim, vmm].into_iter().flatten().flatten().sum()
    }
}

/// All pods below the state folder, in the order of their names.
pub fn all(root: &Path) -> Vec<Pod> {
    let mut pods = Vec::new();
    for (namespace, folder) in folders(root) {
        for (id, folder) in folders(&folder) {
            pods.push(Pod::read(&namespace, &id, folder));
        }
    }
    pods.sort_by_key(|pod| (pod.name(), pod.id.clone()));
    pods
}

/// The folders in a folder; one that can't be read has none.
fn folders(parent: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect()
}

#[cfg(test)]
pub mod tests;
