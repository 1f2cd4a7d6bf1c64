//! What containerd does with containers that exist.

use std::sync::Arc;
use std::time::Duration;

use nacre_protocol::agent as wire;
use nacre_protocol::oci;
use slog::{info, warn};

use super::watch::exec_id;
use super::{Pod, lock};
use crate::agent::{Agent, AgentError};
use crate::annotations::Role;
use crate::container::{Container, Exec};
use crate::error::{TaskError, chain};
use crate::events::{TaskExecAdded, TaskExecStarted, TaskPaused, TaskResumed, TaskStart};
use crate::id::Id;
use crate::machine::Machine;
use crate::process::{Exit, Phase, Process};
use crate::stdio::{Paths, Streams};

/// How long the guest may take for a signal. A pod whose guest hangs can be stopped all the same.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(20);

impl Pod {
    /// Starts a process; the result is what containerd takes for its number.
    ///
    /// # Errors
    /// It has been started before, or can't be.
    pub async fn start(self: &Arc<Self>, id: &str, exec: &str) -> Result<u32, TaskError> {
        let container = self.container(id)?;
        let pid = self.pid();
        let process = container.process(exec)?;
        process.starting()?;
        let started = if exec.is_empty() {
            self.start_init(&container).await
        } else {
            self.start_exec(&container.exec(exec)?, container.role.is_in_pod()).await
        };
        if let Err(error) = started {
            if let Some(exit) = process.start_failed() {
                self.announce_exit(&process, exit);
            }
            if exec.is_empty() {
                self.end_of_launch(&container.id, Some(&error));
            }
            return Err(error);
        }
        if exec.is_empty() {
            self.events.publish(TaskStart { container_id: id.into(), pid, ..Default::default() });
            self.end_of_launch(&container.id, None);
        } else {
            let (container_id, exec_id) = (id.into(), exec.into());
            self.events.publish(TaskExecStarted { container_id, exec_id, pid, ..Default::default() });
            self.watch_process(&process)?;
        }
        // Only now: an exit is announced after its start.
        if let Some(exit) = process.started() {
            self.announce_exit(&process, exit);
        }
        Ok(pid)
    }

    async fn start_init(&self, container: &Container) -> Result<(), TaskError> {
        // The process of a sandbox is the VM.
        if container.role != Role::Sandbox {
            let container_id = container.id.to_string();
            let request = wire::StartContainerRequest { container_id, ..Default::default() };
            self.machine()?.agent().start_container(request).await?;
        }
        lock(&self.timeline).reach(11);
        Ok(())
    }

    async fn start_exec(&self, exec: &Exec, in_pod: bool) -> Result<(), TaskError> {
        let (process, machine) = (&exec.process, self.machine()?);
        let (streams, ports) = Streams::open(process.paths(), in_pod, &machine.folder().vsock()).await?;
        let request = wire::ExecProcessRequest {
            container_id: process.container().into(),
            exec_id: process.exec().into(),
            process: Some(oci::Process::clone(&exec.spec)).into(),
            stdin_port: ports.stdin,
            stdout_port: ports.stdout,
            stderr_port: ports.stderr,
            null_streams: true,
            ..Default::default()
        };
        machine.agent().exec_process(request).await?;
        process.set_streams(streams);
        if let Some((rows, columns)) = process.take_early_size() {
            self.send_size(machine.agent(), process, rows, columns).await?;
        }
        Ok(())
    }

    /// Writes the launch's timeline after the first container's start, or when the VM could not be had.
    pub(super) fn end_of_launch(&self, id: &Id, failed: Option<&TaskError>) {
        let timeline = lock(&self.timeline).clone();
        if failed.is_none() {
            timeline.reach(12);
        }
        let (machine, Ok(configuration)) = (self.machine().ok(), self.configuration()) else { return };
        let size = machine.as_ref().map(|machine| machine.size());
        let error = failed.map(|error| chain(error));
        let Some(launch) = timeline.finish(id.as_str(), self.namespace.as_str(), size, error) else { return };
        let of_pod =
            |machine: &Machine| std::fs::write(machine.folder().file("timeline.json"), launch.line()?);
        let written = launch
            .append(&configuration.log.timeline_path)
            .and_then(|()| machine.as_deref().map_or(Ok(()), of_pod));
        if let Err(error) = written {
            warn!(self.log, "timeline not written"; "error" => %error);
        }
        info!(self.log, "launch"; "timeline" => launch.line().unwrap_or_default().trim_end());
    }

    /// Adds a process to a container; it does not start yet.
    ///
    /// # Errors
    /// The name is taken, or the container does not run.
    pub fn exec(&self, id: &str, exec: &str, spec: oci::Process, paths: Paths) -> Result<(), TaskError> {
        let container = self.container(id)?;
        Id::new(exec)?;
        if container.role == Role::Sandbox {
            return Err(TaskError::Unsupported("a process in the sandbox itself"));
        }
        if !container.init.is_alive() {
            return Err(container.init.wrong(container.init.phase(), "start a process in"));
        }
        let process = Arc::new(Process::new(id, exec, paths));
        container.add(Exec { process, spec: Arc::new(spec) })?;
        self.events.publish(TaskExecAdded {
            container_id: id.into(),
            exec_id: exec.into(),
            ..Default::default()
        });
        Ok(())
    }

    /// Sends a signal to a process, or to all processes of a container.
    ///
    /// # Errors
    /// The process has ended, or the agent refuses.
    pub async fn kill(&self, id: &str, exec: &str, signal: u32, all: bool) -> Result<(), TaskError> {
        let container = self.container(id)?;
        let process = container.process(exec)?;
        match process.phase() {
            Phase::Stopped(_) => return Err(TaskError::Finished(exec_id(&process).into())),
            phase @ Phase::Created if !exec.is_empty() => return Err(process.wrong(phase, "kill")),
            _ => {}
        }
        if container.role == Role::Sandbox {
            return self.kill_sandbox(&process, signal).await;
        }
        let request = wire::SignalProcessRequest {
            container_id: id.into(),
            exec_id: if all { String::new() } else { exec_id(&process).into() },
            signal,
            ..Default::default()
        };
        let machine = self.machine()?;
        match tokio::time::timeout(SIGNAL_PATIENCE, machine.agent().signal_process(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if !matches!(error, AgentError::Deadline { .. }) => Err(error.into()),
            // A guest that can't even kill is of no use, and the pod could never end.
            _ if signal == libc::SIGKILL.unsigned_abs() => {
                warn!(self.log, "agent hangs, VM killed"; "container" => id);
                machine.vmm().kill();
                machine.vmm().ended().await;
                self.all_killed();
                Ok(())
            }
            // Like a process that does not get to its signal. An error would keep containerd from its next step, which
            // is SIGKILL after the grace period.
            _ => {
                warn!(self.log, "agent hangs, signal not delivered"; "container" => id, "signal" => signal);
                Ok(())
            }
        }
    }

    /// The process of a sandbox is the VM: signals that end a process by default end it.
    async fn kill_sandbox(&self, process: &Process, signal: u32) -> Result<(), TaskError> {
        let ends = [libc::SIGKILL, libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];
        if ends.iter().any(|end| end.unsigned_abs() == signal) {
            let machine = self.machine()?;
            // Before the exit is known: containerd deletes the sandbox as soon as it is.
            self.write_out(&machine).await;
            self.finish(process, Exit::now(128 + signal));
            machine.vmm().kill();
            machine.vmm().ended().await;
            self.all_killed();
        }
        Ok(())
    }

    /// Sets the size of a process's terminal.
    ///
    /// # Errors
    /// It has ended or has no terminal.
    pub async fn resize(&self, id: &str, exec: &str, rows: u32, columns: u32) -> Result<(), TaskError> {
        let process = self.container(id)?.process(exec)?;
        match process.phase() {
            Phase::Stopped(_) => Err(TaskError::Finished(exec_id(&process).into())),
            Phase::Created if !exec.is_empty() => {
                process.set_early_size((rows, columns));
                Ok(())
            }
            _ => self.send_size(self.machine()?.agent(), &process, rows, columns).await,
        }
    }

    async fn send_size(
        &self,
        agent: &Agent,
        process: &Process,
        row: u32,
        column: u32,
    ) -> Result<(), TaskError> {
        let (container_id, exec_id) = (process.container().into(), exec_id(process).into());
        let request = wire::TtyWinResizeRequest { container_id, exec_id, row, column, ..Default::default() };
        Ok(agent.tty_win_resize(request).await?)
    }

    /// Freezes a container.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn pause(&self, id: &str) -> Result<(), TaskError> {
        let container = self.running(id, "pause")?;
        let request = wire::PauseContainerRequest { container_id: id.into(), ..Default::default() };
        self.machine()?.agent().pause_container(request).await?;
        if container.set_paused(true) {
            self.events.publish(TaskPaused { container_id: id.into(), ..Default::default() });
        }
        Ok(())
    }

    /// Undoes [`Pod::pause`].
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn resume(&self, id: &str) -> Result<(), TaskError> {
        let container = self.running(id, "resume")?;
        let request = wire::ResumeContainerRequest { container_id: id.into(), ..Default::default() };
        self.machine()?.agent().resume_container(request).await?;
        if container.set_paused(false) {
            self.events.publish(TaskResumed { container_id: id.into(), ..Default::default() });
        }
        Ok(())
    }

    /// Changes a container's limits.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn update(&self, id: &str, resources: oci::LinuxResources) -> Result<(), TaskError> {
        let container = self.container(id)?;
        if container.role == Role::Sandbox {
            // The VM's size is fixed; limits of containers are theirs.
            return Ok(());
        }
        let resources = Some(resources).into();
        let request =
            wire::UpdateContainerRequest { container_id: id.into(), resources, ..Default::default() };
        Ok(self.machine()?.agent().update_container(request).await?)
    }

    /// The counters of a container; of a sandbox, whose process is the VM, those of its processes on the host.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn stats(&self, id: &str) -> Result<wire::StatsContainerResponse, TaskError> {
        if self.container(id)?.role == Role::Sandbox {
            return Ok(self.machine()?.usage());
        }
        Ok(self.machine()?.agent().stats(id).await?)
    }

    /// The numbers that a container's processes have in the guest; of a sandbox, its VMM's on the host.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn pids(&self, id: &str) -> Result<Vec<u32>, TaskError> {
        let container = self.container(id)?;
        if !container.init.is_alive() {
            return Ok(Vec::new());
        }
        if container.role == Role::Sandbox {
            // A containerd that starts again takes a shim without processes for a leaked one, and ends it.
            return Ok(vec![self.pid()]);
        }
        match self.machine()?.agent().processes(id).await {
            Err(error) if error.is_unimplemented() => {
                warn!(self.log, "agent does not list processes"; "error" => chain(&error));
                Err(TaskError::Unsupported("a list of processes by the guest's agent"))
            }
            other => Ok(other?),
        }
    }

    fn running(&self, id: &str, wanted: &'static str) -> Result<Arc<Container>, TaskError> {
        let container = self.container(id)?;
        if container.role == Role::Sandbox {
            return Err(TaskError::Unsupported("freezing a sandbox"));
        }
        match container.init.phase() {
            Phase::Running => Ok(container),
            phase => Err(container.init.wrong(phase, wanted)),
        }
    }
}
