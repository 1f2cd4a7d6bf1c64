//! Containers of a pod.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_cri::v1::{
    AttachRequest, Capability, ContainerConfig, ContainerMetadata, ContainerState, ContainerStats,
    ContainerStatsRequest, ContainerStatus, ContainerStatusRequest, CreateContainerRequest, ExecRequest,
    ExecSyncRequest, ImageSpec, KeyValue, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, Mount, NamespaceMode, NamespaceOption, RemoveContainerRequest,
    ReopenContainerLogRequest, StartContainerRequest, StopContainerRequest, UpdateContainerResourcesRequest,
};

use super::client::Cri;
use super::logs::{self, Line};
use super::pod::Pod;
use super::stream::Stream;
use crate::failure::{Failure, Outcome, check, contains, equal, wrong};
use crate::launch::BUSYBOX;
use crate::wait::{SECONDS, eventually};

/// A container that is going to be created.
#[derive(Debug, Clone)]
pub struct ContainerBuilder<'p, 'a> {
    pod: &'p Pod<'a>,
    config: ContainerConfig,
}

impl<'p, 'a> ContainerBuilder<'p, 'a> {
    /// Of the busybox image, sleeping, as kubelet would ask for it.
    pub(super) fn new(pod: &'p Pod<'a>, name: &str) -> Self {
        let namespaces = NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() };
        let shared = pod.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let security = LinuxContainerSecurityContext {
            capabilities: Some(Capability::default()),
            namespace_options: shared.and_then(|it| it.namespace_options.clone()).or(Some(namespaces)),
            ..Default::default()
        };
        let linux = LinuxContainerConfig {
            security_context: Some(security),
            resources: Some(LinuxContainerResources::default()),
        };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: BUSYBOX.to_owned(), ..Default::default() }),
            command: vec!["sleep".into(), "3600".into()],
            labels: pod.config.labels.clone(),
            log_path: format!("{name}.log"),
            linux: Some(linux),
            ..Default::default()
        };
        Self { pod, config }
    }

    /// With the configuration that `edit` makes of it.
    pub fn with(mut self, edit: impl FnOnce(&mut ContainerConfig)) -> Self {
        edit(&mut self.config);
        self
    }

    /// Of this image, with the command that the image says.
    pub fn image(self, image: &str) -> Self {
        self.with(|config| {
            config.image = Some(ImageSpec { image: image.to_owned(), ..Default::default() });
            config.command.clear();
        })
    }

    /// The `attempt`th of its name.
    pub fn attempt(self, attempt: u32) -> Self {
        self.with(|config| {
            config.metadata.get_or_insert_default().attempt = attempt;
            config.log_path = config.log_path.replace(".log", &format!("-{attempt}.log"));
        })
    }

    /// With this program and its arguments.
    pub fn command(self, words: &[&str]) -> Self {
        self.with(|config| config.command = words.iter().map(|word| (*word).to_owned()).collect())
    }

    /// With a shell that runs this script.
    pub fn script(self, script: &str) -> Self {
        self.command(&["sh", "-c", script])
    }

    /// With this variable.
    pub fn env(self, key: &str, value: &str) -> Self {
        self.with(|config| config.envs.push(KeyValue { key: key.to_owned(), value: value.to_owned() }))
    }

    /// With a file or folder of the node at this path.
    pub fn mount(self, host: &Path, inside: &str) -> Self {
        self.mount_with(host, inside, |_| ())
    }

    /// With a file or folder of the node, as `edit` says.
    pub fn mount_with(self, host: &Path, inside: &str, edit: impl FnOnce(&mut Mount)) -> Self {
        let mut mount = Mount {
            container_path: inside.to_owned(),
            host_path: host.display().to_string(),
            ..Default::default()
        };
        edit(&mut mount);
        self.with(|config| config.mounts.push(mount))
    }

    /// With the security context that `edit` makes of it.
    pub fn security(self, edit: impl FnOnce(&mut LinuxContainerSecurityContext)) -> Self {
        self.with(|config| {
            edit(config.linux.get_or_insert_default().security_context.get_or_insert_default());
        })
    }

    /// With the resources that `edit` makes of it.
    pub fn resources(self, edit: impl FnOnce(&mut LinuxContainerResources)) -> Self {
        self.with(|config| edit(config.linux.get_or_insert_default().resources.get_or_insert_default()))
    }

    fn request(&self) -> CreateContainerRequest {
        CreateContainerRequest {
            pod_sandbox_id: self.pod.id.clone(),
            config: Some(self.config.clone()),
            sandbox_config: Some(self.pod.config.clone()),
        }
    }

    /// Creates it.
    ///
    /// # Errors
    /// containerd or the runtime refuses it.
    pub fn create(self) -> Result<Container<'a>, Failure> {
        let log = Path::new(&self.pod.config.log_directory).join(&self.config.log_path);
        let request = self.request();
        let cri = self.pod.cri;
        let answer =
            cri.call("CreateContainer", async |mut client| client.create_container(request).await)?;
        let id = answer.container_id;
        cri.traces.note(&id)?;
        Ok(Container { cri, id, log })
    }

    /// Asks for it to be created and does not wait for the answer for longer than this.
    pub fn abandoned(self, after: Duration) {
        let request = self.request();
        self.pod.cri.abandon(after, async |mut client| client.create_container(request).await);
    }

    /// Creates and starts it.
    ///
    /// # Errors
    /// containerd or the runtime refuses it.
    pub fn start(self) -> Result<Container<'a>, Failure> {
        let container = self.create()?;
        container.start()?;
        Ok(container)
    }

    /// Runs it to its end and returns its output. It must exit with zero.
    ///
    /// # Errors
    /// It doesn't start, doesn't end or exits otherwise.
    pub fn run(self) -> Result<String, Failure> {
        let container = self.start()?;
        container.exited(0)?;
        container.output()
    }

    /// Fails if it starts; returns the error's text.
    ///
    /// # Errors
    /// It starts.
    pub fn refused(self) -> Result<String, Failure> {
        match self.start() {
            Ok(container) => wrong(format!("container {} starts, but must be refused", container.id)),
            Err(failure) => failure.refusal(),
        }
    }
}

/// A container that was created.
#[derive(Debug)]
pub struct Container<'a> {
    /// Where it runs.
    pub cri: &'a Cri,
    /// containerd's name for it.
    pub id: String,
    /// The file of its log.
    pub log: PathBuf,
}

/// What a program that was run in a container did.
#[derive(Debug)]
pub struct Executed {
    /// Its exit status.
    pub code: i32,
    /// What it wrote.
    pub stdout: String,
    /// What it wrote as errors.
    pub stderr: String,
}

impl Container<'_> {
    /// The node, as its pod's default route names it.
    ///
    /// # Errors
    /// It can't be asked.
    pub fn gateway(&self) -> Result<String, Failure> {
        let shown = self.shell("ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'")?;
        Ok(shown.trim().to_owned())
    }

    /// Starts it.
    ///
    /// # Errors
    /// It doesn't start.
    pub fn start(&self) -> Outcome {
        let request = StartContainerRequest { container_id: self.id.clone() };
        self.cri.call("StartContainer", async |mut client| client.start_container(request).await)?;
        Ok(())
    }

    /// Stops it; kills it after so many seconds.
    ///
    /// # Errors
    /// It doesn't stop.
    pub fn stop(&self, timeout: i64) -> Outcome {
        let request = StopContainerRequest { container_id: self.id.clone(), timeout };
        self.cri.call("StopContainer", async |mut client| client.stop_container(request).await)?;
        Ok(())
    }

    /// Removes it.
    ///
    /// # Errors
    /// It isn't removed.
    pub fn remove(&self) -> Outcome {
        let request = RemoveContainerRequest { container_id: self.id.clone() };
        self.cri.call("RemoveContainer", async |mut client| client.remove_container(request).await)?;
        Ok(())
    }

    /// What CRI says about it.
    ///
    /// # Errors
    /// containerd does not know it.
    pub fn status(&self) -> Result<ContainerStatus, Failure> {
        let request = ContainerStatusRequest { container_id: self.id.clone(), verbose: false };
        let answer =
            self.cri.call("ContainerStatus", async |mut client| client.container_status(request).await)?;
        answer.status.ok_or_else(|| Failure::Wrong("no status in the answer".into()))
    }

    /// Fails unless it is in this state.
    ///
    /// # Errors
    /// It is in another one.
    pub fn is(&self, wanted: ContainerState) -> Outcome {
        equal("state of the container", self.status()?.state(), wanted)
    }

    /// Waits until it has exited.
    ///
    /// # Errors
    /// It doesn't exit within seconds.
    pub fn wait(&self) -> Result<ContainerStatus, Failure> {
        eventually(SECONDS, || {
            let status = self.status()?;
            match status.state() {
                ContainerState::ContainerExited => Ok(status),
                other => wrong(format!("the container has not exited, it is {}", other.as_str_name())),
            }
        })
    }

    /// Waits until it has exited with this status.
    ///
    /// # Errors
    /// It doesn't, or with another one.
    pub fn exited(&self, code: i32) -> Result<ContainerStatus, Failure> {
        let status = self.wait()?;
        let output = || format!("{:?}", self.output().unwrap_or_default());
        let ContainerStatus { exit_code, reason, message, .. } = &status;
        check(*exit_code == code, || {
            format!("exit status {exit_code}, wanted {code}: {reason} {message} {}", output())
        })?;
        Ok(status)
    }

    /// Runs a program in it to its end.
    ///
    /// # Errors
    /// It can't be run.
    pub fn exec(&self, words: &[&str]) -> Result<Executed, Failure> {
        self.exec_within(words, Duration::ZERO)
    }

    /// As [`Container::exec`], killed when the time is over; zero is without limit.
    ///
    /// # Errors
    /// It can't be run, or the time is over.
    pub fn exec_within(&self, words: &[&str], limit: Duration) -> Result<Executed, Failure> {
        let request = ExecSyncRequest {
            container_id: self.id.clone(),
            cmd: words.iter().map(|word| (*word).to_owned()).collect(),
            timeout: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        };
        let answer = self.cri.call("ExecSync", async |mut client| client.exec_sync(request).await)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Executed { code: answer.exit_code, stdout: text(&answer.stdout), stderr: text(&answer.stderr) })
    }

    /// Runs a script in it and returns what it wrote. It must exit with zero.
    ///
    /// # Errors
    /// It can't be run, or exits otherwise.
    pub fn shell(&self, script: &str) -> Result<String, Failure> {
        let Executed { code, stdout, stderr } = self.exec(&["sh", "-c", script])?;
        check(code == 0, || format!("{script}: exit status {code}\nstdout: {stdout}\nstderr: {stderr}"))?;
        Ok(stdout)
    }

    /// Runs a program in it with streams.
    ///
    /// # Errors
    /// containerd refuses it.
    pub fn exec_stream(&self, words: &[&str], tty: bool) -> Result<Stream, Failure> {
        let request = ExecRequest {
            container_id: self.id.clone(),
            cmd: words.iter().map(|word| (*word).to_owned()).collect(),
            tty,
            stdin: true,
            stdout: true,
            stderr: !tty,
        };
        let answer = self.cri.call("Exec", async |mut client| client.exec(request).await)?;
        Stream::open(&answer.url)
    }

    /// Joins its main process's streams.
    ///
    /// # Errors
    /// containerd refuses it.
    pub fn attach(&self, stdin: bool, tty: bool) -> Result<Stream, Failure> {
        let request = AttachRequest { container_id: self.id.clone(), stdin, tty, stdout: true, stderr: !tty };
        let answer = self.cri.call("Attach", async |mut client| client.attach(request).await)?;
        Stream::open(&answer.url)
    }

    /// Changes its resources.
    ///
    /// # Errors
    /// containerd or the runtime refuses it.
    pub fn update(&self, resources: LinuxContainerResources) -> Outcome {
        let request = UpdateContainerResourcesRequest {
            container_id: self.id.clone(),
            linux: Some(resources),
            ..Default::default()
        };
        let update =
            async |mut client: super::client::Client| client.update_container_resources(request).await;
        self.cri.call("UpdateContainerResources", update)?;
        Ok(())
    }

    /// Its statistics.
    ///
    /// # Errors
    /// containerd has none.
    pub fn statistics(&self) -> Result<ContainerStats, Failure> {
        let request = ContainerStatsRequest { container_id: self.id.clone() };
        let answer =
            self.cri.call("ContainerStats", async |mut client| client.container_stats(request).await)?;
        answer.stats.ok_or_else(|| Failure::Wrong("no statistics in the answer".into()))
    }

    /// Has containerd open its log again, as kubelet does after it moved the file away.
    ///
    /// # Errors
    /// containerd can't.
    pub fn reopen_log(&self) -> Outcome {
        let request = ReopenContainerLogRequest { container_id: self.id.clone() };
        self.cri.call("ReopenContainerLog", async |mut client| client.reopen_container_log(request).await)?;
        Ok(())
    }

    /// The lines of its log so far.
    ///
    /// # Errors
    /// It can't be read or has a line that is not in CRI's form.
    pub fn lines(&self) -> Result<Vec<Line>, Failure> {
        logs::read(&self.log)
    }

    /// All that it wrote to standard output so far.
    ///
    /// # Errors
    /// Those of [`Container::lines`].
    pub fn output(&self) -> Result<String, Failure> {
        Ok(logs::join(&self.lines()?, "stdout"))
    }

    /// Waits until its log has this part.
    ///
    /// # Errors
    /// It hasn't within seconds.
    pub fn wait_for(&self, part: &str) -> Outcome {
        eventually(SECONDS, || contains("the log", &self.output()?, part))
    }
}
