//! A pod whose VMM and agent are fakes: the other ends of their sockets.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim_protos::shim::event::Envelope;
use nacre_configuration::Configuration;
use nacre_control::{Channel, Event, Request, StopReason};
use nacre_protocol::agent as wire;
use nacre_protocol::agent_ttrpc::{AgentService, create_agent_service};
use nacre_protocol::nacre::{
    KernelMessage, ListProcessesRequest, ListProcessesResponse, ReadKernelLogRequest, ReadKernelLogResponse,
};
use nacre_protocol::nacre_ttrpc::{Extension, create_extension};
use nacre_protocol::protobuf::well_known_types::empty::Empty;
use slog::{Discard, Logger, o};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use ttrpc::Code;
use ttrpc::asynchronous::transport::Listener;
use ttrpc::asynchronous::{Server, TtrpcContext};
use ttrpc::error::get_rpc_status;

use crate::agent::Agent;
use crate::annotations::Role;
use crate::caller::Caller;
use crate::events::{Publisher, Waiting};
use crate::id::Id;
use crate::machine::Machine;
use crate::pod::{NewContainer, Pod};
use crate::spec;
use crate::state::StateFolder;
use crate::stdio::Paths;
use crate::timeline::Timeline;
use crate::vmm::Vmm;
use crate::volumes::Volumes;

/// The deadline of calls to a fake agent.
const DEADLINE: Duration = Duration::from_millis(200);

/// A pod with a VM that runs.
pub struct World {
    pub pod: Arc<Pod>,
    pub events: Waiting,
    pub agent: Arc<FakeAgent>,
    pub vmm: FakeVmm,
    /// The guest's ends of stdio streams, in the order in which the shim opened them.
    pub streams: mpsc::Receiver<UnixStream>,
    pub folder: TempDir,
    _server: Server,
}

/// The other end of the control socket, and a process to be its VMM.
pub struct FakeVmm {
    pub channel: Option<Channel>,
    process: Child,
}

impl FakeVmm {
    /// The VM ends by itself.
    pub fn stop(&mut self, reason: StopReason) {
        let stopped = Event::Stopped { reason, console_tail: "last words".into() };
        self.channel.take().unwrap().send(&stopped, &[]).unwrap();
        self.process.kill().unwrap();
    }

    /// Waits until the shim asks what the guest printed, and answers.
    pub async fn expect_console_question(&self, text: &str) {
        let channel = self.channel.as_ref().unwrap();
        let channel = channel.as_fd().try_clone_to_owned().unwrap();
        let answer = Event::ConsoleTail { text: text.into() };
        let serve = move || {
            let channel = Channel::from_fd(channel);
            assert_eq!(channel.receive::<Request>().unwrap().0, Request::TellConsole);
            channel.send(&answer, &[]).unwrap();
        };
        tokio::task::spawn_blocking(serve).await.unwrap();
    }

    /// The VMM is killed.
    pub fn die(&mut self) {
        self.channel = None;
        self.process.kill().unwrap();
    }
}

impl Drop for FakeVmm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An agent whose processes end when a test or a signal says so.
#[derive(Default)]
pub struct FakeAgent {
    exits: Mutex<HashMap<String, watch::Sender<Option<i32>>>>,
    /// Messages of the guest's kernel.
    pub kernel: Mutex<Vec<KernelMessage>>,
    /// Calls in their order.
    pub calls: Mutex<Vec<String>>,
    /// Calls that get no answer.
    pub hangs: Mutex<Vec<&'static str>>,
    /// Calls that are refused.
    pub refuses: Mutex<Vec<(&'static str, Code, &'static str)>>,
}

impl FakeAgent {
    /// Ends a process.
    pub fn end(&self, exec: &str, status: i32) {
        self.exit(exec).send_replace(Some(status));
    }

    fn exit(&self, exec: &str) -> watch::Sender<Option<i32>> {
        self.exits.lock().unwrap().entry(exec.into()).or_insert_with(|| watch::Sender::new(None)).clone()
    }

    async fn called(&self, call: &'static str, about: &str) -> ttrpc::Result<Empty> {
        self.calls.lock().unwrap().push(format!("{call} {about}"));
        if self.hangs.lock().unwrap().contains(&call) {
            std::future::pending::<()>().await;
        }
        match self.refuses.lock().unwrap().iter().find(|(refused, ..)| *refused == call) {
            Some((_, code, reason)) => Err(get_rpc_status(*code, *reason)),
            None => Ok(Empty::new()),
        }
    }
}

#[async_trait]
impl AgentService for FakeAgent {
    async fn create_container(
        &self,
        _: &TtrpcContext,
        r: wire::CreateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.called("create", &r.container_id).await
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        r: wire::StartContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.called("start", &r.container_id).await
    }

    async fn exec_process(&self, _: &TtrpcContext, r: wire::ExecProcessRequest) -> ttrpc::Result<Empty> {
        self.called("exec", &r.exec_id).await
    }

    async fn remove_container(
        &self,
        _: &TtrpcContext,
        r: wire::RemoveContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.called("remove", &r.container_id).await
    }

    async fn destroy_sandbox(
        &self,
        _: &TtrpcContext,
        _: wire::DestroySandboxRequest,
    ) -> ttrpc::Result<Empty> {
        self.called("destroy", "").await
    }

    async fn pause_container(
        &self,
        _: &TtrpcContext,
        r: wire::PauseContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.called("pause", &r.container_id).await
    }

    async fn resume_container(
        &self,
        _: &TtrpcContext,
        r: wire::ResumeContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.called("resume", &r.container_id).await
    }

    async fn tty_win_resize(&self, _: &TtrpcContext, r: wire::TtyWinResizeRequest) -> ttrpc::Result<Empty> {
        self.called("resize", &format!("{} {}x{}", r.exec_id, r.row, r.column)).await
    }

    async fn signal_process(&self, _: &TtrpcContext, r: wire::SignalProcessRequest) -> ttrpc::Result<Empty> {
        self.called("signal", &format!("{} {}", r.exec_id, r.signal)).await?;
        let status = 128 + i32::try_from(r.signal).unwrap();
        match r.exec_id.as_str() {
            "" => self.exits.lock().unwrap().values().for_each(|exit| {
                exit.send_replace(Some(status));
            }),
            exec => self.end(exec, status),
        }
        Ok(Empty::new())
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        r: wire::WaitProcessRequest,
    ) -> ttrpc::Result<wire::WaitProcessResponse> {
        let mut exit = self.exit(&r.exec_id).subscribe();
        let status = exit.wait_for(Option::is_some).await.unwrap().unwrap();
        Ok(wire::WaitProcessResponse { status, ..Default::default() })
    }

    async fn get_guest_details(
        &self,
        _: &TtrpcContext,
        _: wire::GuestDetailsRequest,
    ) -> ttrpc::Result<wire::GuestDetailsResponse> {
        self.called("details", "").await?;
        Ok(wire::GuestDetailsResponse::default())
    }

    async fn get_oom_event(
        &self,
        _: &TtrpcContext,
        _: wire::GetOOMEventRequest,
    ) -> ttrpc::Result<wire::OOMEvent> {
        let mut oom = self.exit("oom").subscribe();
        oom.wait_for(Option::is_some).await.unwrap();
        self.exit("oom").send_replace(None);
        Ok(wire::OOMEvent { container_id: "web".into(), ..Default::default() })
    }
}

#[async_trait]
impl Extension for FakeAgent {
    async fn list_processes(
        &self,
        _: &TtrpcContext,
        r: ListProcessesRequest,
    ) -> ttrpc::Result<ListProcessesResponse> {
        self.called("processes", &r.container_id).await?;
        Ok(ListProcessesResponse::default())
    }

    async fn read_kernel_log(
        &self,
        _: &TtrpcContext,
        r: ReadKernelLogRequest,
    ) -> ttrpc::Result<ReadKernelLogResponse> {
        self.called("kernel", "").await?;
        let all = self.kernel.lock().unwrap().clone();
        let next = all.len().try_into().unwrap();
        let messages = all.into_iter().skip(r.from.try_into().unwrap()).collect();
        Ok(ReadKernelLogResponse { messages, next, ..Default::default() })
    }
}

impl World {
    /// A pod whose machine runs, without containers.
    pub async fn new() -> Self {
        let log = Logger::root(Discard, o!());
        let folder = tempfile::tempdir().unwrap();
        let (namespace, sandbox) = (Id::new("default").unwrap(), Id::new("web").unwrap());
        let state = StateFolder::of(folder.path(), &namespace, &sandbox);
        state.create().unwrap();

        let process = Command::new("sleep").arg("600").spawn().unwrap();
        let (ours, theirs) = Channel::pair().unwrap();
        let timeline = Arc::new(Timeline::default());
        let (vmm, _announced) = Vmm::attach(process.id(), ours, None, timeline, log.clone()).unwrap();
        let vmm_end = FakeVmm { channel: Some(theirs), process };

        let agent = Arc::new(FakeAgent::default());
        let (client, server_end) = UnixStream::pair().unwrap();
        let once = futures::stream::iter([Ok(server_end)]);
        let mut server = Server::new()
            .add_listener(Listener::new(futures::StreamExt::chain(once, futures::stream::pending())))
            .register_service(create_agent_service(agent.clone()))
            .register_service(create_extension(agent.clone()));
        server.start().await.unwrap();

        let listener = UnixListener::bind(state.vsock()).unwrap();
        let (sender, streams) = mpsc::channel(16);
        tokio::spawn(async move {
            for port in 5000.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let mut stream = BufReader::with_capacity(13, stream);
                stream.read_line(&mut String::new()).await.unwrap();
                let mut stream = stream.into_inner();
                stream.write_all(format!("OK {port}\n").as_bytes()).await.unwrap();
                sender.send(stream).await.unwrap();
            }
        });

        let (publisher, events) = Publisher::new("default", log.clone());
        let mut configuration = Configuration::default();
        configuration.state.path = serde_json::from_value(serde_json::json!(folder.path())).unwrap();
        configuration.log.timeline_path =
            serde_json::from_value(serde_json::json!(folder.path().join("launches.jsonl"))).unwrap();
        configuration.timeouts.drain_seconds = serde_json::from_value(serde_json::json!(1)).unwrap();
        let pod = Pod::new(namespace, sandbox, "/none".into(), Ok(configuration), publisher, log.clone());
        let pod = Arc::new(pod);
        let agent_client = Agent::new(client, DEADLINE, vmm.watch());
        pod.adopt(Arc::new(Machine::attached(vmm, agent_client, state, log).unwrap()));
        Self { pod, events, agent, vmm: vmm_end, streams, folder, _server: server }
    }

    /// Makes a lone container in the pod, past layers and boot.
    pub async fn container(&self, id: &str, paths: Paths) {
        let spec = serde_json::json!({
            "ociVersion": "1.1.0",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"},
            "root": {"path": "rootfs"},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "mount"}, {"type": "network"}]}
        });
        let id = Id::new(id).unwrap();
        let prepared = spec::prepare(
            serde_json::from_value(spec).unwrap(),
            &id,
            &Role::Lone,
            1,
            &Volumes::new(Logger::root(Discard, o!())),
        )
        .unwrap();
        let (_waiting, caller) = Caller::new();
        let new = NewContainer { id, bundle: "/bundle".into(), rootfs: Vec::new(), paths, caller };
        let machine = self.pod.running_machine();
        let made = self.pod.make(&machine, &new, &Role::Lone, prepared, &[], false).await.unwrap();
        self.pod.enter(new, made).unwrap();
    }

    /// The topics of the next events.
    pub async fn topics(&mut self, count: usize) -> Vec<String> {
        let mut topics = Vec::new();
        for _ in 0..count {
            topics.push(self.event().await.topic);
        }
        topics
    }

    /// The next event.
    pub async fn event(&mut self) -> Envelope {
        tokio::time::timeout(Duration::from_secs(5), self.events.next()).await.expect("no event").unwrap()
    }
}
