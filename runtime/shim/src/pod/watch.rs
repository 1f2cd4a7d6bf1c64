//! What happens by itself: exits, lack of memory, the end of the VM.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nacre_protocol::agent::WaitProcessRequest;
use slog::{info, warn};

use super::{Pod, lock};
use crate::agent::{Agent, AgentError};
use crate::error::{TaskError, chain};
use crate::events::TaskOOM;
use crate::machine::Machine;
use crate::process::{Exit, KILLED, Process};
use crate::vmm;

/// The status of a process whose end the agent can't tell.
const UNKNOWN_STATUS: u32 = 255;

impl Pod {
    /// Takes over a machine that is ready, and watches it.
    pub(crate) fn adopt(self: &Arc<Self>, machine: Arc<Machine>) {
        let stopped = machine.vmm().watch();
        let agent = machine.agent().clone();
        self.pid.store(machine.vmm().pid(), Ordering::Relaxed);
        *lock(&self.machine) = Some(machine);

        let pod = self.clone();
        self.spawn(async move {
            let stopped = vmm::ended(stopped).await;
            info!(pod.log, "VM ended"; "reason" => %stopped.reason);
            pod.all_killed();
        });
        let pod = self.clone();
        self.spawn(async move {
            loop {
                match agent.next_oom().await {
                    Ok(container_id) => {
                        warn!(pod.log, "out of memory"; "container" => &container_id);
                        pod.events.publish(TaskOOM { container_id, ..Default::default() });
                    }
                    Err(AgentError::Gone(_)) => return,
                    Err(error) => {
                        warn!(pod.log, "no more OOM events"; "error" => chain(&error));
                        return;
                    }
                }
            }
        });
    }

    /// All processes ended with their VM.
    pub(super) fn all_killed(&self) {
        let containers: Vec<_> = lock(&self.containers).values().flatten().cloned().collect();
        for process in containers.iter().flat_map(|container| container.processes()) {
            self.killed(&process);
        }
    }

    /// A process ended because it was killed by other means than its own.
    pub(super) fn killed(&self, process: &Process) {
        self.finish(process, Exit::now(KILLED));
    }

    /// Brings what a container wrote into its termination log to the host, where kubelet reads it after the exit. An
    /// agent that does not answer delays the news of the exit by `patience` at the most.
    async fn keep_termination_log(&self, id: &str, agent: &Agent, patience: Duration) {
        let Ok(container) = self.container(id) else { return };
        let Some(file) = container.brought.termination_log() else { return };
        let text = match tokio::time::timeout(patience, agent.termination_log(id)).await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => {
                return warn!(self.log, "termination log lost"; "container" => id, "error" => chain(&error));
            }
            Err(_) => return warn!(self.log, "termination log not told in time"; "container" => id),
        };
        if let Err(error) = file.write(&text) {
            warn!(self.log, "termination log not written"; "container" => id, "error" => %error);
        }
    }

    /// Waits for the end of a process in the guest.
    ///
    /// # Errors
    /// There is no VM.
    pub(super) fn watch_process(self: &Arc<Self>, process: &Arc<Process>) -> Result<(), TaskError> {
        let agent = self.machine()?.agent().clone();
        let (pod, process) = (self.clone(), process.clone());
        self.spawn(async move {
            let request = WaitProcessRequest {
                container_id: process.container().into(),
                exec_id: exec_id(&process).into(),
                ..Default::default()
            };
            let status = match agent.wait_process(request).await {
                Ok(status) => u32::try_from(status).unwrap_or(UNKNOWN_STATUS),
                // The VM's watcher looks after it.
                Err(AgentError::Gone(_)) => return,
                Err(error) => {
                    warn!(pod.log, "exit status lost"; "container" => process.container(),
                          "exec" => process.exec(), "error" => chain(&error));
                    UNKNOWN_STATUS
                }
            };
            let exit = Exit::now(status);
            let drain = pod.configuration.as_ref().map(|configuration| configuration.timeouts.drain_seconds);
            let drain = drain.map(nacre_configuration::values::Seconds::duration).unwrap_or_default();
            process.drained(drain).await;
            if process.exec().is_empty() {
                pod.keep_termination_log(process.container(), &agent, drain).await;
            }
            pod.finish(&process, exit);
            process.hang_up(drain);
        });
        Ok(())
    }
}

/// The agent's name of a process: init has its container's.
pub(super) fn exec_id(process: &Process) -> &str {
    if process.exec().is_empty() { process.container() } else { process.exec() }
}
