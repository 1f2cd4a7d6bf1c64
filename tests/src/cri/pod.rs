//! Pods: describing, running, looking at and ending them.

use std::time::Duration;

use k8s_cri::v1::{
    ContainerFilter, DnsConfig, LinuxContainerResources, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    ListContainersRequest, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    PodSandboxState, PodSandboxStats, PodSandboxStatsRequest, PodSandboxStatusRequest,
    PodSandboxStatusResponse, PortForwardRequest, PortMapping, RemoveContainerRequest,
    RemovePodSandboxRequest, RunPodSandboxRequest, StopPodSandboxRequest,
};

use super::client::{Cri, LABEL};
use super::container::ContainerBuilder;
use super::forward::Forward;
use crate::failure::{Failure, Outcome, equal, wrong};

/// A pod that is going to be run.
#[derive(Debug, Clone)]
pub struct PodBuilder<'a> {
    cri: &'a Cri,
    config: PodSandboxConfig,
    handler: String,
}

impl Cri {
    /// A pod of this test as kubelet would ask for it.
    pub fn pod(&self, name: &str) -> PodBuilder<'_> {
        let namespaces = NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() };
        let security =
            LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
        let linux = LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() };
        let dns = DnsConfig { servers: vec!["10.0.2.3".into()], ..Default::default() };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("{}-{name}", self.test().replace('/', "-")),
                namespace: "nacre-tests".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            dns_config: Some(dns),
            labels: [(LABEL.to_owned(), self.test().to_owned())].into(),
            linux: Some(linux),
            ..Default::default()
        };
        PodBuilder { cri: self, config, handler: self.handler.clone() }
    }
}

impl<'a> PodBuilder<'a> {
    /// With the configuration that `edit` makes of it.
    pub fn with(mut self, edit: impl FnOnce(&mut PodSandboxConfig)) -> Self {
        edit(&mut self.config);
        self
    }

    /// With the part for Linux that `edit` makes of it.
    pub fn linux(self, edit: impl FnOnce(&mut LinuxPodSandboxConfig)) -> Self {
        self.with(|config| edit(config.linux.get_or_insert_default()))
    }

    /// With the security context that `edit` makes of it.
    pub fn security(self, edit: impl FnOnce(&mut LinuxSandboxSecurityContext)) -> Self {
        self.linux(|linux| edit(linux.security_context.get_or_insert_default()))
    }

    /// With the namespaces that `edit` makes of it.
    pub fn namespaces(self, edit: impl FnOnce(&mut NamespaceOption)) -> Self {
        self.security(|security| edit(security.namespace_options.get_or_insert_default()))
    }

    /// With the sum of its containers' resources.
    pub fn resources(self, edit: impl FnOnce(&mut LinuxContainerResources)) -> Self {
        self.linux(|linux| edit(linux.resources.get_or_insert_default()))
    }

    /// With this port of the node leading to one of the pod.
    pub fn host_port(self, host_port: i32, container_port: i32) -> Self {
        let mapping = PortMapping { container_port, host_port, ..Default::default() };
        self.with(|config| config.port_mappings.push(mapping))
    }

    /// With the handler whose name has this ending.
    pub fn variant(mut self, ending: &str) -> Self {
        self.handler = format!("{}-{ending}", self.cri.handler);
        self
    }

    /// Runs it.
    ///
    /// # Errors
    /// containerd or the runtime refuses it.
    pub fn run(mut self) -> Result<Pod<'a>, Failure> {
        self.complete()?;
        let request =
            RunPodSandboxRequest { config: Some(self.config.clone()), runtime_handler: self.handler };
        let answer =
            self.cri.call("RunPodSandbox", async |mut client| client.run_pod_sandbox(request).await)?;
        let id = answer.pod_sandbox_id;
        self.cri.traces.note(&id)?;
        Ok(Pod { cri: self.cri, id, config: self.config })
    }

    /// Asks for it to be run and does not wait for the answer for longer than this.
    ///
    /// # Errors
    /// Its folders can't be made.
    pub fn abandoned(mut self, after: Duration) -> Outcome {
        self.complete()?;
        let request = RunPodSandboxRequest { config: Some(self.config), runtime_handler: self.handler };
        self.cri.abandon(after, async |mut client| client.run_pod_sandbox(request).await);
        Ok(())
    }

    /// Adds what kubelet makes for each pod.
    fn complete(&mut self) -> Outcome {
        let name = self.config.metadata.as_ref().map(|data| data.name.clone()).unwrap_or_default();
        if self.config.log_directory.is_empty() {
            let folder = self.cri.traces.folder(&format!("logs-{name}"))?;
            self.config.log_directory = folder.display().to_string();
        }
        let linux = self.config.linux.get_or_insert_default();
        if linux.cgroup_parent.is_empty() {
            linux.cgroup_parent = self.cri.traces.cgroup(&name)?;
        }
        Ok(())
    }

    /// Fails if it runs; returns the error's text.
    ///
    /// # Errors
    /// It runs.
    pub fn refused(self) -> Result<String, Failure> {
        match self.run() {
            Ok(pod) => wrong(format!("pod {} runs, but must be refused", pod.id)),
            Err(failure) => failure.refusal(),
        }
    }
}

/// A pod that was run.
#[derive(Debug)]
pub struct Pod<'a> {
    /// Where it runs.
    pub cri: &'a Cri,
    /// containerd's name for it.
    pub id: String,
    /// As it was asked for.
    pub config: PodSandboxConfig,
}

impl<'a> Pod<'a> {
    /// Its cgroup, as kubelet named it.
    pub fn cgroup(&self) -> String {
        self.config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default()
    }

    /// A container of the busybox image in it, to be described further and started.
    pub fn container(&self, name: &str) -> ContainerBuilder<'_, 'a> {
        ContainerBuilder::new(self, name)
    }

    /// What CRI says about it, and about its containers.
    ///
    /// # Errors
    /// containerd does not know it.
    pub fn status(&self) -> Result<PodSandboxStatusResponse, Failure> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: true };
        self.cri.call("PodSandboxStatus", async |mut client| client.pod_sandbox_status(request).await)
    }

    /// Fails unless it is ready, or not, as `wanted`.
    ///
    /// # Errors
    /// It is otherwise.
    pub fn is(&self, wanted: PodSandboxState) -> Outcome {
        let found = self.status()?.status.unwrap_or_default().state();
        equal("state of the pod", found, wanted)
    }

    /// Its first address.
    ///
    /// # Errors
    /// It has none.
    pub fn address(&self) -> Result<String, Failure> {
        let network = self.status()?.status.unwrap_or_default().network.unwrap_or_default();
        if network.ip.is_empty() { wrong("the pod has no address") } else { Ok(network.ip) }
    }

    /// Its statistics.
    ///
    /// # Errors
    /// containerd has none.
    pub fn statistics(&self) -> Result<PodSandboxStats, Failure> {
        let request = PodSandboxStatsRequest { pod_sandbox_id: self.id.clone() };
        let answer =
            self.cri.call("PodSandboxStats", async |mut client| client.pod_sandbox_stats(request).await)?;
        answer.stats.ok_or_else(|| Failure::Wrong("no statistics in the answer".into()))
    }

    /// Stops it with all its containers.
    ///
    /// # Errors
    /// It doesn't stop.
    pub fn stop(&self) -> Outcome {
        let request = StopPodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.cri.call("StopPodSandbox", async |mut client| client.stop_pod_sandbox(request).await)?;
        Ok(())
    }

    /// Removes it with all its containers.
    ///
    /// # Errors
    /// It isn't removed.
    pub fn remove(&self) -> Outcome {
        let request = RemovePodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.cri.call("RemovePodSandbox", async |mut client| client.remove_pod_sandbox(request).await)?;
        Ok(())
    }

    /// Stops and removes it.
    ///
    /// # Errors
    /// One fails.
    pub fn end(&self) -> Outcome {
        self.stop()?;
        self.remove()
    }

    /// Removes all of its containers, also those that nobody was told of.
    ///
    /// # Errors
    /// One can't be removed.
    pub fn remove_containers(&self) -> Outcome {
        let filter = ContainerFilter { pod_sandbox_id: self.id.clone(), ..Default::default() };
        let request = ListContainersRequest { filter: Some(filter) };
        let found =
            self.cri.call("ListContainers", async |mut client| client.list_containers(request).await)?;
        for container in found.containers {
            let request = RemoveContainerRequest { container_id: container.id };
            self.cri.call("RemoveContainer", async |mut client| client.remove_container(request).await)?;
        }
        Ok(())
    }

    /// A connection to a port of the pod's localhost, as `kubectl port-forward` makes it.
    ///
    /// # Errors
    /// containerd refuses it.
    pub fn forward(&self, port: u16) -> Result<Forward, Failure> {
        let request = PortForwardRequest { pod_sandbox_id: self.id.clone(), port: vec![port.into()] };
        let answer = self.cri.call("PortForward", async |mut client| client.port_forward(request).await)?;
        Forward::open(&answer.url, port)
    }
}
