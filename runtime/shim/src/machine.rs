//! A pod's virtual machine with its agent: launched, ready, and gone without a trace.

mod launch;
mod traces;

use std::sync::Mutex;

use nacre_protocol::agent::{CreateSandboxRequest, StatsContainerResponse, Storage};
use oci_spec::runtime::Spec;
use tokio::time::Instant;

pub use launch::Launched;

use crate::agent::Agent;
use crate::annotations::Role;
use crate::error::TaskError;
use crate::host_cgroup::usage;
use crate::id::Id;
use crate::network::{Forwarder, GuestNetwork};
use crate::size::Size;
use crate::spec::SHM_FOLDER;
use crate::state::StateFolder;
use crate::vmm::Vmm;
use traces::Traces;

/// A VM with its agent.
#[derive(Debug)]
pub struct Machine {
    vmm: Vmm,
    agent: Agent,
    network: GuestNetwork,
    /// Guards its presence; it ends with the VM.
    forwarder: Mutex<Option<Forwarder>>,
    size: Size,
    traces: Traces,
    /// When the time for its start is over.
    start_ends: Instant,
}

impl Machine {
    /// A machine whose VMM and agent are there already.
    #[cfg(test)]
    pub fn attached(
        vmm: Vmm,
        agent: Agent,
        folder: StateFolder,
        log: slog::Logger,
    ) -> Result<Self, TaskError> {
        let (size, network) = (Size { vcpus: 1, memory_mib: 256 }, GuestNetwork::default());
        let (forwarder, traces) = (Mutex::default(), Traces::new(folder, log)?);
        Ok(Self { vmm, agent, network, forwarder, size, traces, start_ends: Instant::now() })
    }

    /// Makes the sandbox in the guest, with the pod's network. It belongs to the machine's start: on a host where many
    /// start at once it has the time that is left of that, not only a request's.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn create_sandbox(&self, sandbox: &Id, role: &Role, spec: &Spec) -> Result<(), TaskError> {
        let request = CreateSandboxRequest {
            hostname: spec
                .hostname()
                .clone()
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| sandbox.to_string()),
            sandbox_id: sandbox.as_str().into(),
            storages: if *role == Role::Sandbox { vec![shared_memory()] } else { Vec::new() },
            ..Default::default()
        };
        let agent = self.agent.patient_until(self.start_ends);
        self.network.send(&agent).await?;
        Ok(agent.create_sandbox(request).await?)
    }

    /// The VMM.
    pub fn vmm(&self) -> &Vmm {
        &self.vmm
    }

    /// The agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The size.
    pub fn size(&self) -> Size {
        self.size
    }

    /// What the pod's processes on the host have used; nothing is known without a control group of its own.
    pub fn usage(&self) -> StatsContainerResponse {
        self.traces.cgroup().map(|cgroup| usage(cgroup.folder())).unwrap_or_default()
    }

    /// The pod's folder.
    pub fn folder(&self) -> &StateFolder {
        self.traces.folder()
    }

    /// Ends the VM and leaves nothing of it on the host.
    pub async fn end(&self) {
        if let Ok(mut forwarder) = self.forwarder.lock() {
            forwarder.take();
        }
        self.vmm.kill();
        self.vmm.ended().await;
        self.traces.remove().await;
    }
}

/// The pod's `/dev/shm`, as Kata's shim has it; limited by the VM's memory.
fn shared_memory() -> Storage {
    Storage {
        driver: "ephemeral".into(),
        source: "shm".into(),
        fstype: "tmpfs".into(),
        mount_point: SHM_FOLDER.into(),
        options: ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"].map(str::to_owned).into(),
        ..Default::default()
    }
}
