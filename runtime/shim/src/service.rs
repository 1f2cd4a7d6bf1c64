//! containerd's Task service: requests to the pod, answers from it.

use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::ttrpc::r#async::TtrpcContext;
use nacre_protocol::oci;
use serde::de::DeserializeOwned;
use slog::{Logger, debug};
use ttrpc::Result;

use crate::caller::{Caller, to_its_end};
use crate::error::{TaskError, chain};
use crate::id::Id;
use crate::pod::{NewContainer, Pod};
use crate::process::Phase;
use crate::spec::{self, SpecError};
use crate::stats;
use crate::stdio::Paths;

/// The service over a pod.
#[derive(Debug)]
pub struct Service {
    pod: Arc<Pod>,
    log: Logger,
}

impl Service {
    /// Serves a pod.
    pub fn new(pod: Arc<Pod>, log: Logger) -> Self {
        Self { pod, log }
    }

    /// What containerd gets for a request about `id`.
    fn answer<T>(
        &self,
        request: &'static str,
        id: &str,
        answer: std::result::Result<T, TaskError>,
    ) -> Result<T> {
        match answer {
            Ok(answer) => {
                debug!(self.log, "{}", request; "container" => id);
                Ok(answer)
            }
            Err(error) => {
                slog::info!(self.log, "{} failed", request; "container" => id, "error" => chain(&error));
                Err(error.into())
            }
        }
    }
}

#[async_trait]
impl Task for Service {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> Result<api::CreateTaskResponse> {
        let id = request.id.clone();
        let create = async {
            if !request.checkpoint.is_empty() {
                return Err(TaskError::Unsupported("a checkpoint"));
            }
            let paths = Paths {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
            };
            let (id, bundle, rootfs) = (Id::new(&id)?, request.bundle, request.rootfs);
            let (_waiting, caller) = Caller::new();
            let new = NewContainer { id, bundle, rootfs, paths, caller };
            to_its_end(self.pod.clone().create_for_caller(new)).await
        };
        let pid = self.answer("create", &id, create.await)?;
        Ok(api::CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: api::StartRequest) -> Result<api::StartResponse> {
        let pid = self.answer("start", &request.id, self.pod.start(&request.id, &request.exec_id).await)?;
        Ok(api::StartResponse { pid, ..Default::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: api::DeleteRequest) -> Result<api::DeleteResponse> {
        let (pod, id) = (self.pod.clone(), request.id.clone());
        let deleted = to_its_end(async move { pod.delete(&request.id, &request.exec_id).await }).await;
        let (pid, exit) = self.answer("delete", &id, deleted)?;
        let exited_at = Some(exit.timestamp()).into();
        Ok(api::DeleteResponse { pid, exit_status: exit.status, exited_at, ..Default::default() })
    }

    async fn exec(&self, _: &TtrpcContext, request: api::ExecProcessRequest) -> Result<api::Empty> {
        let exec = || {
            let paths = Paths {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                terminal: request.terminal,
            };
            let process = spec::prepare_process(payload("process", request.spec.as_ref())?)?;
            self.pod.exec(&request.id, &request.exec_id, process, paths)
        };
        self.answer("exec", &request.id, exec())?;
        Ok(api::Empty::new())
    }

    async fn state(&self, _: &TtrpcContext, request: api::StateRequest) -> Result<api::StateResponse> {
        let find = || {
            let container = self.pod.container(&request.id)?;
            let process = container.process(&request.exec_id)?;
            Ok((container, process))
        };
        let (container, process) = self.answer("state", &request.id, find())?;
        let (status, exit) = match process.phase() {
            Phase::Created | Phase::Starting(_) => (api::Status::CREATED, None),
            Phase::Running if container.is_paused() => (api::Status::PAUSED, None),
            Phase::Running => (api::Status::RUNNING, None),
            Phase::Stopped(exit) => (api::Status::STOPPED, Some(exit)),
        };
        let paths = process.paths();
        Ok(api::StateResponse {
            id: request.id,
            bundle: container.bundle.clone(),
            pid: self.pod.pid(),
            status: status.into(),
            stdin: paths.stdin.clone(),
            stdout: paths.stdout.clone(),
            stderr: paths.stderr.clone(),
            terminal: paths.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| exit.timestamp()).into(),
            exec_id: request.exec_id,
            ..Default::default()
        })
    }

    async fn wait(&self, _: &TtrpcContext, request: api::WaitRequest) -> Result<api::WaitResponse> {
        let find = || self.pod.container(&request.id)?.process(&request.exec_id);
        let exit = self.answer("wait", &request.id, find())?.wait().await;
        let exited_at = Some(exit.timestamp()).into();
        Ok(api::WaitResponse { exit_status: exit.status, exited_at, ..Default::default() })
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> Result<api::Empty> {
        let killed = self.pod.kill(&request.id, &request.exec_id, request.signal, request.all).await;
        self.answer("kill", &request.id, killed)?;
        Ok(api::Empty::new())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: api::ResizePtyRequest) -> Result<api::Empty> {
        let resized = self.pod.resize(&request.id, &request.exec_id, request.height, request.width).await;
        self.answer("resize", &request.id, resized)?;
        Ok(api::Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: api::CloseIORequest) -> Result<api::Empty> {
        let find = || self.pod.container(&request.id)?.process(&request.exec_id);
        let process = self.answer("close io", &request.id, find())?;
        if request.stdin {
            process.close_stdin();
        }
        Ok(api::Empty::new())
    }

    async fn pids(&self, _: &TtrpcContext, request: api::PidsRequest) -> Result<api::PidsResponse> {
        let pids = self.answer("pids", &request.id, self.pod.pids(&request.id).await)?;
        let processes = pids.into_iter().map(|pid| api::ProcessInfo { pid, ..Default::default() }).collect();
        Ok(api::PidsResponse { processes, ..Default::default() })
    }

    async fn stats(&self, _: &TtrpcContext, request: api::StatsRequest) -> Result<api::StatsResponse> {
        let stats = self.answer("stats", &request.id, self.pod.stats(&request.id).await)?;
        Ok(api::StatsResponse { stats: Some(stats::metrics(&stats)?).into(), ..Default::default() })
    }

    async fn update(&self, _: &TtrpcContext, request: api::UpdateTaskRequest) -> Result<api::Empty> {
        let update = async {
            let resources: oci_spec::runtime::LinuxResources =
                payload("resources", request.resources.as_ref())?;
            let resources = oci::LinuxResources::try_from(&resources).map_err(SpecError::from)?;
            self.pod.update(&request.id, resources).await
        };
        self.answer("update", &request.id, update.await)?;
        Ok(api::Empty::new())
    }

    async fn pause(&self, _: &TtrpcContext, request: api::PauseRequest) -> Result<api::Empty> {
        self.answer("pause", &request.id, self.pod.pause(&request.id).await)?;
        Ok(api::Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: api::ResumeRequest) -> Result<api::Empty> {
        self.answer("resume", &request.id, self.pod.resume(&request.id).await)?;
        Ok(api::Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, request: api::CheckpointTaskRequest) -> Result<api::Empty> {
        self.answer("checkpoint", &request.id, Err(TaskError::Unsupported("a checkpoint")))?;
        Ok(api::Empty::new())
    }

    async fn connect(&self, _: &TtrpcContext, _: api::ConnectRequest) -> Result<api::ConnectResponse> {
        Ok(api::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: self.pod.pid(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, request: api::ShutdownRequest) -> Result<api::Empty> {
        self.pod.shut_down(request.now);
        Ok(api::Empty::new())
    }
}

/// The JSON that containerd packs into a message.
fn payload<T: DeserializeOwned>(what: &'static str, any: Option<&Any>) -> std::result::Result<T, TaskError> {
    let bytes = any.map(|any| any.value.as_slice()).unwrap_or_default();
    serde_json::from_slice(bytes).map_err(|error| TaskError::BadPayload(what, error))
}
