//! Taking containers, processes and at last the VM away.

use nacre_protocol::agent::{DestroySandboxRequest, RemoveContainerRequest};
use slog::{info, warn};

use super::{Pod, lock};
use crate::agent::AgentError;
use crate::annotations::Role;
use crate::container::Container;
use crate::error::{TaskError, chain};
use crate::events::TaskDelete;
use crate::machine::Machine;
use crate::process::{Exit, KILLED, Phase};
use crate::vmm::LAYER_DISK;

/// How long the agent may take to undo a container, in seconds.
const REMOVE_SECONDS: u32 = 10;

impl Pod {
    /// Lets the guest write to the host's disks what it holds of them, before its VM ends. A pod without any has
    /// nothing to lose. A guest that doesn't do so in time loses its own data; the pod ends all the same.
    pub(super) async fn write_out(&self, machine: &Machine) {
        let written = async {
            // Attaching a disk waits for the VMM, and this for that.
            if self.volumes.has_disks().await {
                self.ask_to_write_out(machine).await;
            }
        };
        let patience = self.configuration().map(|known| known.timeouts.stop_seconds.duration());
        if tokio::time::timeout(patience.unwrap_or_default(), written).await.is_err() {
            warn!(self.log, "disks not written out in time");
        }
    }

    pub(super) async fn ask_to_write_out(&self, machine: &Machine) {
        if machine.vmm().watch().borrow().is_some() {
            return;
        }
        match machine.agent().destroy_sandbox(DestroySandboxRequest::default()).await {
            // The guest may end before its answer has arrived.
            Ok(()) | Err(AgentError::Gone(_) | AgentError::Connection { .. }) => {}
            Err(error) => warn!(self.log, "disks may not be written out"; "error" => chain(&error)),
        }
    }

    /// Deletes a process that has ended or was never started; with a container's init the whole container, and with
    /// a sandbox's the VM. The result is what containerd takes for its number, and its exit.
    ///
    /// # Errors
    /// It runs.
    pub async fn delete(&self, id: &str, exec: &str) -> Result<(u32, Exit), TaskError> {
        let container = self.container(id)?;
        let process = container.process(exec)?;
        let pid = self.pid();
        if process.phase() == Phase::Created {
            if exec.is_empty() {
                self.killed(&process);
            } else {
                process.finish(Exit::now(KILLED));
            }
        }
        let exit = process.exited("delete")?;
        if !exec.is_empty() {
            process.close_streams();
            container.forget(exec);
            return Ok((pid, exit));
        }
        match container.role {
            Role::Lone | Role::Sandbox => self.tear_down().await,
            Role::Member { .. } => self.remove(&container).await,
        }
        for process in container.processes() {
            process.close_streams();
        }
        lock(&self.containers).remove(id);
        self.events.publish(TaskDelete {
            container_id: id.into(),
            pid,
            exit_status: exit.status,
            exited_at: Some(exit.timestamp()).into(),
            ..Default::default()
        });
        info!(self.log, "container deleted"; "container" => id);
        Ok((pid, exit))
    }

    /// Undoes a container in the guest. A guest that fails to do so keeps it until the pod ends; containerd's
    /// container is gone all the same.
    async fn remove(&self, container: &Container) {
        let Ok(machine) = self.machine() else { return };
        if machine.vmm().watch().borrow().is_some() {
            return;
        }
        let container_id = container.id.to_string();
        let request = RemoveContainerRequest { container_id, timeout: REMOVE_SECONDS, ..Default::default() };
        match machine.agent().remove_container(request).await {
            // Only what the guest no longer has mounted may go.
            Ok(()) => {
                if let Err(error) = container.brought.remove(machine.agent()).await {
                    warn!(self.log, "copied files stay in the guest"; "error" => chain(&error));
                }
                if let Err(error) = self.volumes.give_back(container, machine.vmm()).await {
                    warn!(self.log, "disks not released"; "error" => chain(&error));
                }
                if let Err(error) = machine.vmm().release(LAYER_DISK, container.sectors.clone()).await {
                    warn!(self.log, "layers not released"; "error" => chain(&error));
                }
            }
            Err(error) => warn!(self.log, "container stays in the guest"; "error" => chain(&error)),
        }
    }
}
