//! The calls of the agent's services.
//!
//! A peer that goes away drops the futures of its calls. What changes the pod therefore runs in a task of its own,
//! which goes on to its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nacre_protocol::agent::*;
use nacre_protocol::agent_ttrpc::{AgentService, create_agent_service};
use nacre_protocol::csi::VolumeStatsResponse;
use nacre_protocol::health::{
    CheckRequest, HealthCheckResponse, VersionCheckResponse, health_check_response,
};
use nacre_protocol::health_ttrpc::{Health, create_health};
use nacre_protocol::nacre::{
    AddVolumesRequest, AddVolumesResponse, ChangeTreeRequest, ChangeTreeResponse, GetReportRequest,
    GetReportResponse, ListProcessesRequest, ListProcessesResponse, ReadKernelLogRequest,
    ReadKernelLogResponse, RemoveVolumesRequest, RemoveVolumesResponse,
};
use nacre_protocol::nacre_ttrpc::{Extension, create_extension};
use nacre_protocol::protobuf::MessageField;
use nacre_protocol::protobuf::well_known_types::empty::Empty;
use nacre_protocol::ttrpc;
use nacre_protocol::ttrpc::Code;
use nacre_protocol::ttrpc::r#async::{Service, TtrpcContext};
use nacre_protocol::types::Interface;
use oci_spec::runtime::LinuxResources;
use slog::warn;

use crate::cgroup;
use crate::error::{Doing, Failure, Reply};
use crate::id::ContainerId;
use crate::process::Output;
use crate::sandbox::Sandbox;
use crate::{clock, copy_file, details, entropy, kernel_log, network, report};

/// The version of the protocol.
const PROTOCOL_VERSION: &str = "0.0.1";

/// All services, for a server.
pub fn services(sandbox: &Arc<Sandbox>) -> HashMap<String, Service> {
    let calls = Calls { sandbox: Arc::clone(sandbox) };
    let mut services = create_agent_service(Arc::new(calls.clone()));
    services.extend(create_health(Arc::new(calls.clone())));
    services.extend(create_extension(Arc::new(calls)));
    services
}

#[derive(Clone)]
struct Calls {
    sandbox: Arc<Sandbox>,
}

impl Calls {
    /// Runs a call that must not be cut short.
    async fn whole<T, F>(&self, name: &'static str, call: F) -> ttrpc::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Reply<T>> + Send + 'static,
    {
        let result = tokio::spawn(call).await.unwrap_or_else(|error| Err(Failure::internal(name, &error)));
        self.told(name, result)
    }

    fn told<T>(&self, name: &'static str, result: Reply<T>) -> ttrpc::Result<T> {
        result.map_err(|failure| {
            warn!(self.sandbox.log(), "call failed"; "call" => name, "error" => failure.text());
            failure.into()
        })
    }
}

/// The answer to a call that this agent does not have.
fn unimplemented<T>(name: &str) -> ttrpc::Result<T> {
    Err(Failure::new(Code::UNIMPLEMENTED, format!("{name} is not implemented")).into())
}

#[async_trait]
impl AgentService for Calls {
    async fn create_sandbox(&self, _: &TtrpcContext, request: CreateSandboxRequest) -> ttrpc::Result<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        self.whole("CreateSandbox", async move { sandbox.create(request).await }).await?;
        Ok(Empty::new())
    }

    async fn destroy_sandbox(&self, _: &TtrpcContext, _: DestroySandboxRequest) -> ttrpc::Result<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        let destroy = async move {
            sandbox.destroy().await;
            Ok(())
        };
        self.whole("DestroySandbox", destroy).await?;
        self.sandbox.ended.notify_one();
        Ok(Empty::new())
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        self.whole("CreateContainer", async move { sandbox.add(request).await }).await?;
        Ok(Empty::new())
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        request: StartContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        self.whole("StartContainer", async move { sandbox.start(&request.container_id).await }).await?;
        Ok(Empty::new())
    }

    async fn exec_process(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        self.whole("ExecProcess", async move { sandbox.exec(request).await }).await?;
        Ok(Empty::new())
    }

    async fn remove_container(
        &self,
        _: &TtrpcContext,
        request: RemoveContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        let id = ContainerId::parse(&request.container_id).map_err(Failure::from)?;
        let remove = async move { sandbox.remove(&id).await };
        let removal = self.whole("RemoveContainer", remove);
        if request.timeout == 0 {
            removal.await?;
        } else {
            let limit = Duration::from_secs(request.timeout.into());
            tokio::time::timeout(limit, removal).await.map_err(|_| {
                Failure::deadline(format!(
                    "container {} is not gone within the timeout",
                    request.container_id
                ))
            })??;
        }
        Ok(Empty::new())
    }

    async fn signal_process(&self, _: &TtrpcContext, request: SignalProcessRequest) -> ttrpc::Result<Empty> {
        let container = self.sandbox.container(&request.container_id)?;
        self.told("SignalProcess", container.signal(&request.exec_id, request.signal))?;
        Ok(Empty::new())
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: WaitProcessRequest,
    ) -> ttrpc::Result<WaitProcessResponse> {
        let container = self.sandbox.container(&request.container_id)?;
        let status = container.wait(&request.exec_id).await?;
        Ok(WaitProcessResponse { status, ..Default::default() })
    }

    async fn read_stdout(
        &self,
        _: &TtrpcContext,
        request: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        self.read(request, Output::Stdout).await
    }

    async fn read_stderr(
        &self,
        _: &TtrpcContext,
        request: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        self.read(request, Output::Stderr).await
    }

    async fn write_stdin(
        &self,
        _: &TtrpcContext,
        request: WriteStreamRequest,
    ) -> ttrpc::Result<WriteStreamResponse> {
        let process = self.sandbox.container(&request.container_id)?.process(&request.exec_id)?;
        let len = process.write(&request.data).await?;
        Ok(WriteStreamResponse { len, ..Default::default() })
    }

    async fn close_stdin(&self, _: &TtrpcContext, request: CloseStdinRequest) -> ttrpc::Result<Empty> {
        let process = self.sandbox.container(&request.container_id)?.process(&request.exec_id)?;
        process.close_stdin().await?;
        Ok(Empty::new())
    }

    async fn tty_win_resize(&self, _: &TtrpcContext, request: TtyWinResizeRequest) -> ttrpc::Result<Empty> {
        let process = self.sandbox.container(&request.container_id)?.process(&request.exec_id)?;
        process.resize(request.row, request.column)?;
        Ok(Empty::new())
    }

    async fn stats_container(
        &self,
        _: &TtrpcContext,
        request: StatsContainerRequest,
    ) -> ttrpc::Result<StatsContainerResponse> {
        let container = self.sandbox.container(&request.container_id)?;
        let stats = cgroup::stats(container.cgroup());
        Ok(StatsContainerResponse { cgroup_stats: MessageField::some(stats), ..Default::default() })
    }

    async fn update_container(
        &self,
        _: &TtrpcContext,
        request: UpdateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.sandbox.container(&request.container_id)?;
        let update = async move {
            let id = ContainerId::parse(&request.container_id)?;
            let resources = request.resources.as_ref().ok_or_else(|| Failure::invalid("no resources"))?;
            let mut resources = LinuxResources::try_from(resources)?;
            cgroup::fit(&mut resources);
            let updated = tokio::task::spawn_blocking(move || cgroup::update(&id, &resources)).await;
            updated
                .map_err(|error| Failure::internal("UpdateContainer", &error))?
                .map_err(|text| Failure::new(Code::INTERNAL, text))
        };
        self.whole("UpdateContainer", update).await?;
        Ok(Empty::new())
    }

    async fn pause_container(
        &self,
        _: &TtrpcContext,
        request: PauseContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.freeze(&request.container_id, true).await
    }

    async fn resume_container(
        &self,
        _: &TtrpcContext,
        request: ResumeContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.freeze(&request.container_id, false).await
    }

    async fn get_oom_event(&self, _: &TtrpcContext, _: GetOOMEventRequest) -> ttrpc::Result<OOMEvent> {
        let next = self.sandbox.oom.next().await;
        let id = next.ok_or_else(|| Failure::new(Code::UNAVAILABLE, "the sandbox has ended"))?;
        Ok(OOMEvent { container_id: id.to_string(), ..Default::default() })
    }

    async fn copy_file(&self, _: &TtrpcContext, request: CopyFileRequest) -> ttrpc::Result<Empty> {
        let copied = tokio::task::spawn_blocking(move || copy_file::copy(&request)).await;
        let copied = copied.unwrap_or_else(|error| Err(Failure::internal("CopyFile", &error)));
        self.told("CopyFile", copied)?;
        Ok(Empty::new())
    }

    async fn update_interface(
        &self,
        _: &TtrpcContext,
        request: UpdateInterfaceRequest,
    ) -> ttrpc::Result<Interface> {
        let update = async move {
            let wanted = request.interface.into_option().ok_or_else(|| Failure::invalid("no interface"))?;
            network::update_interface(wanted).await
        };
        self.whole("UpdateInterface", update).await
    }

    async fn update_routes(&self, _: &TtrpcContext, request: UpdateRoutesRequest) -> ttrpc::Result<Routes> {
        let update = async move {
            let routes = request.routes.into_option().ok_or_else(|| Failure::invalid("no routes"))?;
            network::update_routes(routes).await
        };
        self.whole("UpdateRoutes", update).await
    }

    async fn list_interfaces(&self, _: &TtrpcContext, _: ListInterfacesRequest) -> ttrpc::Result<Interfaces> {
        Ok(network::list_interfaces().await?)
    }

    async fn list_routes(&self, _: &TtrpcContext, _: ListRoutesRequest) -> ttrpc::Result<Routes> {
        Ok(network::list_routes().await?)
    }

    async fn add_arp_neighbors(
        &self,
        _: &TtrpcContext,
        request: AddARPNeighborsRequest,
    ) -> ttrpc::Result<Empty> {
        let add = async move {
            let neighbors =
                request.neighbors.into_option().ok_or_else(|| Failure::invalid("no neighbors"))?;
            network::add_neighbors(neighbors).await
        };
        self.whole("AddARPNeighbors", add).await?;
        Ok(Empty::new())
    }

    async fn get_guest_details(
        &self,
        _: &TtrpcContext,
        request: GuestDetailsRequest,
    ) -> ttrpc::Result<GuestDetailsResponse> {
        Ok(details::guest(&request, self.sandbox.drivers.names()))
    }

    async fn get_metrics(&self, _: &TtrpcContext, _: GetMetricsRequest) -> ttrpc::Result<Metrics> {
        Ok(Metrics { metrics: details::metrics(), ..Default::default() })
    }

    async fn reseed_random_dev(
        &self,
        _: &TtrpcContext,
        request: ReseedRandomDevRequest,
    ) -> ttrpc::Result<Empty> {
        self.told("ReseedRandomDev", entropy::reseed(&request.data))?;
        Ok(Empty::new())
    }

    async fn set_guest_date_time(
        &self,
        _: &TtrpcContext,
        request: SetGuestDateTimeRequest,
    ) -> ttrpc::Result<Empty> {
        self.told("SetGuestDateTime", clock::set(request.Sec, request.Usec))?;
        Ok(Empty::new())
    }

    async fn update_ephemeral_mounts(
        &self,
        _: &TtrpcContext,
        _: UpdateEphemeralMountsRequest,
    ) -> ttrpc::Result<Empty> {
        unimplemented("UpdateEphemeralMounts")
    }

    async fn remove_stale_virtiofs_share_mounts(
        &self,
        _: &TtrpcContext,
        _: RemoveStaleVirtiofsShareMountsRequest,
    ) -> ttrpc::Result<Empty> {
        unimplemented("RemoveStaleVirtiofsShareMounts")
    }

    async fn get_diagnostic_data(
        &self,
        _: &TtrpcContext,
        request: GetDiagnosticDataRequest,
    ) -> ttrpc::Result<GetDiagnosticDataResponse> {
        if request.log_type != "termination_log" {
            let text = format!("{:?} is not a kind of diagnostic data, termination_log is", request.log_type);
            return self.told("GetDiagnosticData", Err(Failure::invalid(text)));
        }
        let container = self.sandbox.container(&request.container_id)?;
        let data = match container.termination_log().cloned() {
            None => String::new(),
            Some(log) => {
                let read = tokio::task::spawn_blocking(move || log.read()).await;
                let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                self.told("GetDiagnosticData", read.doing("read the termination log"))?
            }
        };
        Ok(GetDiagnosticDataResponse { data, ..Default::default() })
    }

    async fn get_ip_tables(
        &self,
        _: &TtrpcContext,
        _: GetIPTablesRequest,
    ) -> ttrpc::Result<GetIPTablesResponse> {
        unimplemented("GetIPTables")
    }

    async fn set_ip_tables(
        &self,
        _: &TtrpcContext,
        _: SetIPTablesRequest,
    ) -> ttrpc::Result<SetIPTablesResponse> {
        unimplemented("SetIPTables")
    }

    async fn mem_agent_memcg_set(&self, _: &TtrpcContext, _: MemAgentMemcgConfig) -> ttrpc::Result<Empty> {
        unimplemented("MemAgentMemcgSet")
    }

    async fn mem_agent_compact_set(
        &self,
        _: &TtrpcContext,
        _: MemAgentCompactConfig,
    ) -> ttrpc::Result<Empty> {
        unimplemented("MemAgentCompactSet")
    }

    async fn online_cpu_mem(&self, _: &TtrpcContext, _: OnlineCPUMemRequest) -> ttrpc::Result<Empty> {
        unimplemented("OnlineCPUMem")
    }

    async fn mem_hotplug_by_probe(
        &self,
        _: &TtrpcContext,
        _: MemHotplugByProbeRequest,
    ) -> ttrpc::Result<Empty> {
        unimplemented("MemHotplugByProbe")
    }

    async fn add_swap(&self, _: &TtrpcContext, _: AddSwapRequest) -> ttrpc::Result<Empty> {
        unimplemented("AddSwap")
    }

    async fn add_swap_path(&self, _: &TtrpcContext, _: AddSwapPathRequest) -> ttrpc::Result<Empty> {
        unimplemented("AddSwapPath")
    }

    async fn get_volume_stats(
        &self,
        _: &TtrpcContext,
        _: VolumeStatsRequest,
    ) -> ttrpc::Result<VolumeStatsResponse> {
        unimplemented("GetVolumeStats")
    }

    async fn resize_volume(&self, _: &TtrpcContext, _: ResizeVolumeRequest) -> ttrpc::Result<Empty> {
        unimplemented("ResizeVolume")
    }

    async fn set_policy(&self, _: &TtrpcContext, _: SetPolicyRequest) -> ttrpc::Result<Empty> {
        unimplemented("SetPolicy")
    }
}

impl Calls {
    async fn read(&self, request: ReadStreamRequest, output: Output) -> ttrpc::Result<ReadStreamResponse> {
        let container = self.sandbox.container(&request.container_id)?;
        let process = container.process(&request.exec_id)?;
        let data = process.read(output, request.len).await?;
        if data.is_empty() {
            container.forget_if_done(&request.exec_id);
        }
        Ok(ReadStreamResponse { data, ..Default::default() })
    }

    async fn freeze(&self, id: &str, frozen: bool) -> ttrpc::Result<Empty> {
        let container = self.sandbox.container(id)?;
        let name = if frozen { "PauseContainer" } else { "ResumeContainer" };
        let freeze = async move {
            let result = container.cgroup().freeze(frozen).await;
            result.map_err(|error| Failure::internal(name, &error))
        };
        self.whole(name, freeze).await?;
        Ok(Empty::new())
    }
}

#[async_trait]
impl Health for Calls {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        let status = health_check_response::ServingStatus::SERVING.into();
        Ok(HealthCheckResponse { status, ..Default::default() })
    }

    async fn version(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<VersionCheckResponse> {
        Ok(VersionCheckResponse {
            grpc_version: PROTOCOL_VERSION.into(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        })
    }
}

#[async_trait]
impl Extension for Calls {
    async fn get_report(
        &self,
        _: &TtrpcContext,
        request: GetReportRequest,
    ) -> ttrpc::Result<GetReportResponse> {
        let reported = async {
            let data = report::report_data(&request.report_data)?;
            report::Source::find().report(data).await
        };
        let report::Report { provider, bytes, certificates } = self.told("GetReport", reported.await)?;
        Ok(GetReportResponse { provider, report: bytes, certificates, ..Default::default() })
    }

    async fn list_processes(
        &self,
        _: &TtrpcContext,
        request: ListProcessesRequest,
    ) -> ttrpc::Result<ListProcessesResponse> {
        let container = self.sandbox.container(&request.container_id)?;
        let processes = container.cgroup().processes().doing("list the processes")?;
        let pids = processes.into_iter().filter_map(|pid| u32::try_from(pid.as_raw()).ok()).collect();
        Ok(ListProcessesResponse { pids, ..Default::default() })
    }

    async fn add_volumes(
        &self,
        _: &TtrpcContext,
        request: AddVolumesRequest,
    ) -> ttrpc::Result<AddVolumesResponse> {
        let sandbox = Arc::clone(&self.sandbox);
        let add = async move { sandbox.volumes.add(&sandbox.drivers, &request.storages).await };
        self.whole("AddVolumes", add).await?;
        Ok(AddVolumesResponse::default())
    }

    async fn remove_volumes(
        &self,
        _: &TtrpcContext,
        request: RemoveVolumesRequest,
    ) -> ttrpc::Result<RemoveVolumesResponse> {
        let sandbox = Arc::clone(&self.sandbox);
        self.whole("RemoveVolumes", async move { sandbox.volumes.remove(&request.mount_points).await })
            .await?;
        Ok(RemoveVolumesResponse::default())
    }

    async fn change_tree(
        &self,
        _: &TtrpcContext,
        request: ChangeTreeRequest,
    ) -> ttrpc::Result<ChangeTreeResponse> {
        let changed = tokio::task::spawn_blocking(move || copy_file::tree::change(&request)).await;
        let changed = changed.unwrap_or_else(|error| Err(Failure::internal("ChangeTree", &error)));
        self.told("ChangeTree", changed)?;
        Ok(ChangeTreeResponse::default())
    }

    async fn read_kernel_log(
        &self,
        _: &TtrpcContext,
        request: ReadKernelLogRequest,
    ) -> ttrpc::Result<ReadKernelLogResponse> {
        let wait = Duration::from_millis(request.wait_millis.into());
        let read = kernel_log::read(request.from, wait).await;
        self.told("ReadKernelLog", read.doing("read the kernel's messages"))
    }
}
