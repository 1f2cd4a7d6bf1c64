//! What a VM leaves on the host.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use slog::{Logger, warn};

use crate::error::{TaskError, chain};
use crate::host_cgroup::HostCgroup;
use crate::network::{self, PodNetwork};
use crate::state::{JoinedNetwork, State, StateFolder};

/// What was made for a VM, to be taken away with it.
#[derive(Debug)]
pub struct Traces {
    folder: StateFolder,
    cgroup: Option<HostCgroup>,
    joined: Option<JoinedNetwork>,
    removed: AtomicBool,
    log: Logger,
}

impl Traces {
    /// The traces of a VM: its folder, at first.
    ///
    /// # Errors
    /// The folder can't be made.
    pub fn new(folder: StateFolder, log: Logger) -> Result<Self, TaskError> {
        folder.create()?;
        Ok(Self { folder, cgroup: None, joined: None, removed: AtomicBool::new(false), log })
    }

    /// The pod's folder.
    pub fn folder(&self) -> &StateFolder {
        &self.folder
    }

    /// The pod's control group on the host.
    pub fn cgroup(&self) -> Option<&HostCgroup> {
        self.cgroup.as_ref()
    }

    /// For messages about the VM.
    pub fn log(&self) -> &Logger {
        &self.log
    }

    /// Makes taps for the interfaces of a network namespace.
    ///
    /// # Errors
    /// An interface that a VM can't have.
    pub async fn join_network(&mut self, namespace: &Path) -> Result<PodNetwork, TaskError> {
        let network = network::connect(namespace).await?;
        let indexes = network.interfaces.iter().map(|interface| interface.link.index).collect();
        self.joined = Some(JoinedNetwork { namespace: namespace.into(), indexes });
        Ok(network)
    }

    /// Puts the VMM and the shim into the pod's control group. Without one they are counted with containerd.
    pub fn join_cgroup(&mut self, cgroups_path: Option<&Path>, pid: u32) {
        match HostCgroup::join(cgroups_path, pid) {
            Ok(cgroup) => self.cgroup = cgroup,
            Err(error) => warn!(self.log, "VMM and shim stay in containerd's cgroup"; "error" => %error),
        }
    }

    /// Writes down what there is, for a later process that cleans up after us.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn record(&self, state: State) -> Result<(), TaskError> {
        let state = State { cgroup: self.cgroup.clone(), network: self.joined.clone(), ..state };
        Ok(self.folder.write(&state)?)
    }

    /// Removes everything; once only, since the names may be another pod's afterwards.
    pub async fn remove(&self) {
        if self.removed.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(joined) = &self.joined
            && let Err(error) = network::disconnect(&joined.namespace, joined.indexes.clone()).await
        {
            warn!(self.log, "network stays redirected"; "error" => chain(&error));
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.leave();
            cgroup.remove();
        }
        if let Err(error) = self.folder.remove() {
            warn!(self.log, "pod folder stays"; "error" => chain(&error));
        }
    }
}
