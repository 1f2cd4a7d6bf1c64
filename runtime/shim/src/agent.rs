//! The guest's agent: typed calls with deadlines that also end when the VM does.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nacre_operator::CallCount;
use nacre_protocol::agent as wire;
use nacre_protocol::agent_ttrpc::AgentServiceClient;
use nacre_protocol::nacre::{
    AddVolumesRequest, ChangeTreeRequest, GetReportRequest, GetReportResponse, ListProcessesRequest,
    ReadKernelLogRequest, ReadKernelLogResponse,
};
use nacre_protocol::nacre_ttrpc::ExtensionClient;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::Instant;
use ttrpc::asynchronous::Client;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::{Code, context};

use crate::vmm::{Stopped, VmmError, ended};

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The agent said no.
    #[error("{message}")]
    Refused {
        /// The call.
        call: &'static str,
        /// The agent's code.
        code: Code,
        /// The agent's reason.
        message: String,
    },
    /// The agent does not answer.
    #[error("the guest's agent did not answer {call} within {seconds} s")]
    Deadline {
        /// The call.
        call: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// The VM ended.
    #[error(transparent)]
    Gone(#[from] VmmError),
    /// The connection failed while the VM still runs.
    #[error("the connection to the guest's agent failed in {call}")]
    Connection {
        /// The call.
        call: &'static str,
        /// Why.
        #[source]
        source: ttrpc::Error,
    },
}

impl AgentError {
    /// The code that containerd gets.
    pub fn code(&self) -> Code {
        match self {
            // The agent's codes for things that it does not know mean the same to containerd; its own view of what
            // is a valid argument is none of containerd's arguments.
            Self::Refused {
                code: code @ (Code::NOT_FOUND | Code::ALREADY_EXISTS | Code::UNIMPLEMENTED),
                ..
            } => *code,
            Self::Refused { code: code @ (Code::FAILED_PRECONDITION | Code::DEADLINE_EXCEEDED), .. } => *code,
            Self::Refused { .. } => Code::UNKNOWN,
            Self::Deadline { .. } => Code::DEADLINE_EXCEEDED,
            Self::Gone(error) => error.code(),
            Self::Connection { .. } => Code::UNAVAILABLE,
        }
    }

    /// Whether the agent said that it has no such call.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Refused { code: Code::UNIMPLEMENTED, .. })
    }
}

/// A connection to the agent of a VM.
#[derive(Clone)]
pub struct Agent {
    service: AgentServiceClient,
    extension: ExtensionClient,
    deadline: Duration,
    stopped: watch::Receiver<Option<Stopped>>,
    /// Guards the counts of all clones; held for an addition or a copy.
    calls: Arc<Mutex<BTreeMap<&'static str, CallCount>>>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Calls that have a deadline and no answer but success.
macro_rules! plain_calls {
    ($($(#[doc = $about:literal])+ $name:ident($request:ident);)+) => {
        impl Agent {
            $(
                $(#[doc = $about])+
                ///
                /// # Errors
                /// See [`AgentError`].
                pub async fn $name(&self, request: wire::$request) -> Result<(), AgentError> {
                    let call = self.service.$name(context::Context::default(), &request);
                    self.within(stringify!($name), call).await.map(drop)
                }
            )+
        }
    };
}

plain_calls! {
    /// Makes the sandbox.
    create_sandbox(CreateSandboxRequest);
    /// Kills all containers and undoes all that was made for them, so that disks are written out; ends the guest.
    destroy_sandbox(DestroySandboxRequest);
    /// Makes a container up to its init process, which waits.
    create_container(CreateContainerRequest);
    /// Lets a container's init process go.
    start_container(StartContainerRequest);
    /// Undoes a container.
    remove_container(RemoveContainerRequest);
    /// Starts one more process in a container.
    exec_process(ExecProcessRequest);
    /// Sends a signal to a process or to all of a container.
    signal_process(SignalProcessRequest);
    /// Sets the size of a process's terminal.
    tty_win_resize(TtyWinResizeRequest);
    /// Changes a container's limits.
    update_container(UpdateContainerRequest);
    /// Freezes a container.
    pause_container(PauseContainerRequest);
    /// Undoes `pause_container`.
    resume_container(ResumeContainerRequest);
    /// Sets up a network interface.
    update_interface(UpdateInterfaceRequest);
    /// Adds routes.
    update_routes(UpdateRoutesRequest);
    /// Adds permanent neighbours.
    add_arp_neighbors(AddARPNeighborsRequest);
    /// Writes a part of a file.
    copy_file(CopyFileRequest);
}

impl Agent {
    /// Speaks with the agent over `stream`. `stopped` tells when its VM ends.
    pub fn new(stream: UnixStream, deadline: Duration, stopped: watch::Receiver<Option<Stopped>>) -> Self {
        let client = Client::new(Socket::new(stream));
        let (service, extension) = (AgentServiceClient::new(client.clone()), ExtensionClient::new(client));
        Self { service, extension, deadline, stopped, calls: Arc::default() }
    }

    /// The same agent, whose answers may come until `end` even if that is later than they may come otherwise.
    #[must_use]
    pub fn patient_until(&self, end: Instant) -> Self {
        let left = end.saturating_duration_since(Instant::now());
        Self { deadline: self.deadline.max(left), ..self.clone() }
    }

    /// Waits for the end of a process: its exit code, or 128 and the number of the signal.
    ///
    /// # Errors
    /// See [`AgentError`]; there is no deadline.
    pub async fn wait_process(&self, request: wire::WaitProcessRequest) -> Result<i32, AgentError> {
        let call = self.service.wait_process(context::Context::default(), &request);
        Ok(self.unless_gone("wait_process", call).await?.status)
    }

    /// Waits for the next container in which a process was killed for lack of memory.
    ///
    /// # Errors
    /// See [`AgentError`]; there is no deadline.
    pub async fn next_oom(&self) -> Result<String, AgentError> {
        let request = wire::GetOOMEventRequest::default();
        let call = self.service.get_oom_event(context::Context::default(), &request);
        Ok(self.unless_gone("get_oom_event", call).await?.container_id)
    }

    /// Reads a container's counters.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn stats(&self, container: &str) -> Result<wire::StatsContainerResponse, AgentError> {
        let request = wire::StatsContainerRequest { container_id: container.into(), ..Default::default() };
        let call = self.service.stats_container(context::Context::default(), &request);
        self.within("stats_container", call).await
    }

    /// Lists the processes of a container by their numbers in the guest.
    ///
    /// # Errors
    /// See [`AgentError`]; Kata's agent does not have this call.
    pub async fn processes(&self, container: &str) -> Result<Vec<u32>, AgentError> {
        let request = ListProcessesRequest { container_id: container.into(), ..Default::default() };
        let call = self.extension.list_processes(context::Context::default(), &request);
        Ok(self.within("list_processes", call).await?.pids)
    }

    /// Has an attestation report made with these 64 bytes in it.
    ///
    /// # Errors
    /// See [`AgentError`]; Kata's agent does not have this call.
    pub async fn report(&self, data: &[u8]) -> Result<GetReportResponse, AgentError> {
        let request = GetReportRequest { report_data: data.to_vec(), ..Default::default() };
        let call = self.extension.get_report(context::Context::default(), &request);
        self.within("get_report", call).await
    }

    /// Mounts storages for the whole pod.
    ///
    /// # Errors
    /// See [`AgentError`]; Kata's agent does not have this call.
    pub async fn add_volumes(&self, storages: Vec<wire::Storage>) -> Result<(), AgentError> {
        let request = AddVolumesRequest { storages, ..Default::default() };
        let call = self.extension.add_volumes(context::Context::default(), &request);
        self.within("add_volumes", call).await.map(drop)
    }

    /// Changes files below the folder of shared files.
    ///
    /// # Errors
    /// See [`AgentError`]; Kata's agent does not have this call.
    pub async fn change_tree(&self, request: ChangeTreeRequest) -> Result<(), AgentError> {
        let call = self.extension.change_tree(context::Context::default(), &request);
        self.within("change_tree", call).await.map(drop)
    }

    /// The end of what a container wrote into its termination log.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn termination_log(&self, container: &str) -> Result<String, AgentError> {
        let (log_type, container_id) = ("termination_log".into(), container.into());
        let request = wire::GetDiagnosticDataRequest { log_type, container_id, ..Default::default() };
        let call = self.service.get_diagnostic_data(context::Context::default(), &request);
        Ok(self.within("get_diagnostic_data", call).await?.data)
    }

    /// The version of the agent.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn version(&self) -> Result<String, AgentError> {
        let request = wire::GuestDetailsRequest::default();
        let call = self.service.get_guest_details(context::Context::default(), &request);
        let details = self.within("get_guest_details", call).await?;
        Ok(details.agent_details.into_option().unwrap_or_default().version)
    }

    /// The guest's numbers in Prometheus' text format.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn metrics(&self) -> Result<String, AgentError> {
        let request = wire::GetMetricsRequest::default();
        let call = self.service.get_metrics(context::Context::default(), &request);
        Ok(self.within("get_metrics", call).await?.metrics)
    }

    /// Messages of the guest's kernel from a number on. Without one the agent waits for it up to `wait`.
    ///
    /// # Errors
    /// See [`AgentError`]; Kata's agent does not have this call.
    pub async fn kernel_log(&self, from: u64, wait: Duration) -> Result<ReadKernelLogResponse, AgentError> {
        let wait = wait.min(self.deadline / 2);
        let wait_millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = ReadKernelLogRequest { from, wait_millis, ..Default::default() };
        let call = self.extension.read_kernel_log(context::Context::default(), &request);
        let answer = tokio::time::timeout(self.deadline, self.unless_gone("read_kernel_log", call)).await;
        // Not counted: how long it takes says nothing.
        answer.unwrap_or(Err(AgentError::Deadline {
            call: "read_kernel_log",
            seconds: self.deadline.as_secs(),
        }))
    }

    /// How often each call was made.
    pub fn calls(&self) -> BTreeMap<String, CallCount> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    async fn within<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = ttrpc::Result<T>>,
    ) -> Result<T, AgentError> {
        let begun = Instant::now();
        let answer = match tokio::time::timeout(self.deadline, self.unless_gone(call, answer)).await {
            Ok(answer) => answer,
            Err(_) => Err(AgentError::Deadline { call, seconds: self.deadline.as_secs() }),
        };
        self.count(call, begun.elapsed(), answer.is_ok());
        answer
    }

    fn count(&self, call: &'static str, took: Duration, good: bool) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = calls.entry(call).or_default();
        calls.count += 1;
        calls.failed += u64::from(!good);
        calls.seconds += took.as_secs_f64();
    }

    async fn unless_gone<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = ttrpc::Result<T>>,
    ) -> Result<T, AgentError> {
        let answer = tokio::select! {
            answer = answer => answer,
            stopped = ended(self.stopped.clone()) => return Err(VmmError::Stopped(stopped).into()),
        };
        match answer {
            Ok(answer) => Ok(answer),
            Err(ttrpc::Error::RpcStatus(status)) => {
                Err(AgentError::Refused { call, code: status.code(), message: status.message })
            }
            Err(source) => Err(self.lost(call, source).await),
        }
    }

    /// A lost connection is most often the end of the VM, which is seen soon after: on a node with thirty pods at their
    /// start, seconds after.
    async fn lost(&self, call: &'static str, source: ttrpc::Error) -> AgentError {
        const SOON: Duration = Duration::from_secs(5);
        match tokio::time::timeout(SOON, ended(self.stopped.clone())).await {
            Ok(stopped) => VmmError::Stopped(stopped).into(),
            Err(_) => AgentError::Connection { call, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_start_has_its_own_time_and_never_less_than_a_request() {
        let (ours, _silent) = UnixStream::pair().unwrap();
        let (_running, stopped) = watch::channel(None);
        let agent = Agent::new(ours, Duration::from_secs(60), stopped);
        for (left, waited) in [(200, 200), (5, 60)] {
            let patient = agent.patient_until(Instant::now() + Duration::from_secs(left));
            let error = patient.create_sandbox(wire::CreateSandboxRequest::default()).await.unwrap_err();
            let text = format!("the guest's agent did not answer create_sandbox within {waited} s");
            assert_eq!(error.to_string(), text);
        }
    }
}
