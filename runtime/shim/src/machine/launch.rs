//! Starting a VM, up to the agent's first word.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nacre_configuration::Configuration;
use nacre_operator::Device;
use nacre_protocol::AGENT_PORT;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use slog::{Logger, warn};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Machine, Traces};
use crate::agent::Agent;
use crate::error::{TaskError, chain};
use crate::network::{Forwarder, GuestNetwork, PodNetwork};
use crate::operator;
use crate::size::Size;
use crate::state::{ProcessIdentity, State, StateFolder};
use crate::timeline::Timeline;
use crate::vmm::{self, Plan, Stopped, Tee, Vmm, VmmError};
use crate::vsock;

/// The guest's console in the pod's folder.
const CONSOLE_FILE: &str = "console.log";
/// Between two tries to reach an agent that only listens.
const DIAL_PAUSE: Duration = Duration::from_millis(20);

/// A VM that has been started, and whose agent is not there yet. It must be made [`Launched::ready`] or
/// [`Launched::end`]ed.
#[derive(Debug)]
pub struct Launched {
    vmm: Vmm,
    coming: ComingAgent,
    network: GuestNetwork,
    forwarder: Option<Forwarder>,
    size: Size,
    traces: Traces,
    devices: Vec<Device>,
}

/// The agent of a guest that boots.
#[derive(Debug)]
pub struct ComingAgent {
    announced: oneshot::Receiver<UnixStream>,
    deadline: Instant,
    socket: PathBuf,
}

impl Launched {
    /// Starts the VM for a sandbox with this specification.
    ///
    /// # Errors
    /// A missing file, a VMM that does not start, or a sandbox that is too large. Nothing is left then.
    pub async fn start(
        spec: &Spec,
        configuration: &Configuration,
        folder: StateFolder,
        state: State,
        timeline: Arc<Timeline>,
        log: Logger,
    ) -> Result<Self, TaskError> {
        let size = Size::of(spec, configuration)?;
        let mut traces = Traces::new(folder, log)?;
        match launch(spec, configuration, size, &mut traces, state, timeline).await {
            Ok((vmm, coming, network, devices)) => {
                let forwarder = forwarder(spec, &traces).await;
                Ok(Self { vmm, coming, network, forwarder, size, traces, devices })
            }
            Err(error) => {
                traces.remove().await;
                Err(error)
            }
        }
    }

    /// The VMM, for layers to be added while the guest boots, and the agent to come.
    pub fn parts(&mut self) -> (&Vmm, &mut ComingAgent) {
        (&self.vmm, &mut self.coming)
    }

    /// The size.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The VMM's process.
    pub fn vmm_pid(&self) -> u32 {
        self.vmm.pid()
    }

    /// What the VM has, for operators.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The machine, with the agent's stream.
    pub fn ready(self, stream: UnixStream, configuration: &Configuration) -> Machine {
        let Self { vmm, coming, network, forwarder, size, traces, .. } = self;
        let forwarder = Mutex::new(forwarder);
        let agent = Agent::new(stream, configuration.timeouts.request_seconds.duration(), vmm.watch());
        Machine { vmm, agent, network, forwarder, size, traces, start_ends: coming.deadline }
    }

    /// Ends a VM that did not get ready, and leaves nothing of it on the host.
    pub async fn end(self) {
        self.vmm.kill();
        self.vmm.ended().await;
        self.traces.remove().await;
    }
}

/// Starts the VMM with everything that the machine is made of.
async fn launch(
    spec: &Spec,
    configuration: &Configuration,
    size: Size,
    traces: &mut Traces,
    state: State,
    timeline: Arc<Timeline>,
) -> Result<(Vmm, ComingAgent, GuestNetwork, Vec<Device>), TaskError> {
    let network = match network_namespace(spec) {
        Some(namespace) => traces.join_network(namespace).await?,
        None => PodNetwork::default(),
    };
    let socket = traces.folder().vsock();
    let console = configuration.log.console.then(|| traces.folder().file(CONSOLE_FILE));
    let tee = Tee::new(configuration, spec.annotations().as_ref())?;
    let plan = Plan::new(configuration, size, &socket, console.as_deref(), &network.interfaces, tee)?;

    timeline.reach(1);
    let (pid, channel, errors) = vmm::spawn(&configuration.vmm.path)?;
    let (vmm, announced) =
        Vmm::attach(pid, channel, Some(errors), timeline, traces.log().clone()).map_err(VmmError::Io)?;
    traces.join_cgroup(spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref()), pid);
    // Not containerd's own score, which the shim inherits: a VM is as dear to the node as what runs in it.
    let score = spec.process().as_ref().and_then(|process| process.oom_score_adj()).unwrap_or(0);
    if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        warn!(traces.log(), "OOM score of the VMM not set"; "error" => %error);
    }
    traces.record(State { vmm: ProcessIdentity::of(pid), ..state })?;

    let (request, files) = plan.request();
    let devices = operator::devices(&request);
    vmm.send(&request, &files).await?;
    let deadline = Instant::now() + configuration.timeouts.start_seconds.duration();
    // Here our taps are closed: the VMM has them, and a tap goes with its last descriptor.
    Ok((vmm, ComingAgent { announced, deadline, socket }, GuestNetwork::from(network), devices))
}

impl ComingAgent {
    /// Waits for the agent's stream.
    ///
    /// # Errors
    /// The VM ended, or the agent is not there within `timeout` of the launch.
    pub async fn wait(
        &mut self,
        vmm: &Vmm,
        announces: bool,
        timeout: Duration,
    ) -> Result<UnixStream, TaskError> {
        let stream = async {
            if announces {
                // The sender goes when the VMM does, which the other branch tells.
                match (&mut self.announced).await {
                    Ok(stream) => stream,
                    Err(_) => std::future::pending().await,
                }
            } else {
                loop {
                    match vsock::connect(&self.socket, AGENT_PORT).await {
                        Ok((stream, _)) => break stream,
                        Err(_) => tokio::time::sleep(DIAL_PAUSE).await,
                    }
                }
            }
        };
        tokio::select! {
            stream = stream => Ok(stream),
            stopped = vmm.ended() => Err(VmmError::Stopped(stopped).into()),
            () = tokio::time::sleep_until(self.deadline) => {
                let Stopped { console_tail, .. } = vmm.stop().await;
                Err(VmmError::NotReady { seconds: timeout.as_secs(), console_tail }.into())
            }
        }
    }
}

/// Port forwarding for a pod that has a network. Without it all else works.
async fn forwarder(spec: &Spec, traces: &Traces) -> Option<Forwarder> {
    let (log, socket) = (traces.log().clone(), traces.folder().vsock());
    match Forwarder::start(network_namespace(spec)?, socket, log).await {
        Ok(forwarder) => Some(forwarder),
        Err(error) => {
            warn!(traces.log(), "no port forwarding to localhost"; "error" => chain(&error));
            None
        }
    }
}

/// The namespace whose interfaces the pod has; none without a path, where CNI had nowhere to make any.
fn network_namespace(spec: &Spec) -> Option<&Path> {
    let namespaces = spec.linux().as_ref()?.namespaces().as_ref()?;
    let network = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::Network)?;
    network.path().as_deref()
}
