//! An agent on this machine, and containers out of busybox.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nacre_protocol::agent::*;
use nacre_protocol::agent_ttrpc::AgentServiceClient;
use nacre_protocol::health_ttrpc::HealthClient;
use nacre_protocol::nacre_ttrpc::ExtensionClient;
use nacre_protocol::oci;
use nacre_protocol::protobuf::MessageField;
use nacre_protocol::ttrpc;
use nacre_protocol::ttrpc::r#async::Client;
use nacre_protocol::ttrpc::context::Context;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

pub struct Agent {
    pub folder: TempDir,
    pub calls: AgentServiceClient,
    pub health: HealthClient,
    pub extension: ExtensionClient,
    process: Child,
    log: Lines<BufReader<ChildStderr>>,
}

/// What a process printed and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn context() -> Context {
    ttrpc::context::with_timeout(60_000_000_000)
}

/// Says that the running test can't run on this machine, past the test runner's capture; `cargo xtask test` counts
/// such a test as skipped.
pub fn not_run_here(why: &str) {
    let test = std::thread::current();
    let _ = writeln!(std::io::stderr(), "NOT RUN HERE {}: {why}", test.name().unwrap_or("?"));
}

/// Whether this machine lets the agent make its namespaces.
pub fn possible() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let busybox = Path::new("/bin/busybox").exists();
    if !root || !busybox {
        not_run_here("needs root and /bin/busybox");
    }
    root && busybox
}

impl Agent {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let address = format!("unix://{}", socket.display());
        let mut process = Command::new(env!("CARGO_BIN_EXE_nacre-agent"))
            .env("KATA_AGENT_SERVER_ADDR", &address)
            .env("KATA_AGENT_LOG_LEVEL", "debug")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        loop {
            let line = log.next_line().await.unwrap().expect("the agent ended before it served");
            if line.contains("\"msg\":\"serving\"") {
                break;
            }
            eprintln!("{line}");
        }
        let client = Client::connect(&address).await.unwrap();
        let agent = Self {
            calls: AgentServiceClient::new(client.clone()),
            extension: ExtensionClient::new(client.clone()),
            health: HealthClient::new(client),
            folder,
            process,
            log,
        };
        let sandbox = CreateSandboxRequest { hostname: "pod".into(), ..Default::default() };
        agent.calls.create_sandbox(context(), &sandbox).await.unwrap();
        agent
    }

    /// Ends the agent; its log and its exit code.
    pub async fn stop(mut self) -> (Vec<String>, i32) {
        self.calls.destroy_sandbox(context(), &DestroySandboxRequest::new()).await.unwrap();
        let mut lines = Vec::new();
        while let Ok(Some(line)) = self.log.next_line().await {
            lines.push(line);
        }
        (lines, self.process.wait().await.unwrap().code().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// A root file system of its own for each container.
    pub fn root(&self, id: &str) -> PathBuf {
        let root = self.folder.path().join(id);
        for folder in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "run", "work"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for name in [
            "sh", "cat", "echo", "sleep", "id", "env", "stty", "true", "ls", "mount", "grep", "dd",
            "hostname", "pwd", "sync", "stat",
        ] {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
            .unwrap();
        root
    }

    pub async fn create(&self, id: &str, spec: oci::Spec) -> ttrpc::Result<()> {
        self.calls.create_container(context(), &self.request(id, spec)).await.map(drop)
    }

    /// The request to create a container.
    pub fn request(&self, id: &str, spec: oci::Spec) -> CreateContainerRequest {
        CreateContainerRequest {
            container_id: id.into(),
            OCI: MessageField::some(spec),
            ..Default::default()
        }
    }

    pub async fn start_container(&self, id: &str) -> ttrpc::Result<()> {
        let request = StartContainerRequest { container_id: id.into(), ..Default::default() };
        self.calls.start_container(context(), &request).await.map(drop)
    }

    pub async fn run(&self, id: &str, script: &str) {
        self.create(id, spec(&self.root(id), &["/bin/sh", "-c", script])).await.unwrap();
        self.start_container(id).await.unwrap();
    }

    pub async fn exec(&self, id: &str, exec: &str, process: oci::Process) -> ttrpc::Result<()> {
        let request = ExecProcessRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            process: MessageField::some(process),
            ..Default::default()
        };
        self.calls.exec_process(context(), &request).await.map(drop)
    }

    pub async fn outcome(&self, id: &str, exec: &str) -> Outcome {
        let (stdout, stderr) = tokio::join!(self.read(id, exec, false), self.read(id, exec, true));
        Outcome { status: self.wait(id, exec).await.unwrap(), stdout, stderr }
    }

    async fn read(&self, id: &str, exec: &str, stderr: bool) -> String {
        let request = ReadStreamRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            len: 65536,
            ..Default::default()
        };
        let mut all = Vec::new();
        loop {
            let read = match stderr {
                false => self.calls.read_stdout(context(), &request).await,
                true => self.calls.read_stderr(context(), &request).await,
            };
            let data = read.unwrap().data;
            if data.is_empty() {
                return String::from_utf8(all).unwrap();
            }
            all.extend(data);
        }
    }

    /// Reads until the output contains the text.
    pub async fn read_until(&self, id: &str, exec: &str, text: &str) -> String {
        let request = ReadStreamRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            len: 4096,
            ..Default::default()
        };
        let mut all = String::new();
        while !all.contains(text) {
            let data = self.calls.read_stdout(context(), &request).await.unwrap().data;
            assert!(!data.is_empty(), "output ended with {all:?}");
            all.push_str(std::str::from_utf8(&data).unwrap());
        }
        all
    }

    pub async fn write(&self, id: &str, exec: &str, data: &[u8]) {
        let request = WriteStreamRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            data: data.to_vec(),
            ..Default::default()
        };
        self.calls.write_stdin(context(), &request).await.unwrap();
    }

    pub async fn wait(&self, id: &str, exec: &str) -> ttrpc::Result<i32> {
        let request =
            WaitProcessRequest { container_id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.calls.wait_process(context(), &request).await.map(|reply| reply.status)
    }

    pub async fn signal(&self, id: &str, exec: &str, signal: u32) -> ttrpc::Result<()> {
        let request = SignalProcessRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            signal,
            ..Default::default()
        };
        self.calls.signal_process(context(), &request).await.map(drop)
    }

    pub async fn remove(&self, id: &str) -> ttrpc::Result<()> {
        let request = RemoveContainerRequest { container_id: id.into(), ..Default::default() };
        self.calls.remove_container(context(), &request).await.map(drop)
    }
}

/// The code of a failed call.
pub fn code<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (ttrpc::Code, String) {
    match result.expect_err("the call should fail") {
        ttrpc::Error::RpcStatus(status) => (status.code(), status.message().to_owned()),
        other => panic!("{other}"),
    }
}

pub fn process(args: &[&str]) -> oci::Process {
    let capabilities: Vec<String> =
        ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"].map(String::from).into();
    oci::Process {
        Args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        Env: vec!["PATH=/bin".into()],
        Cwd: "/".into(),
        User: MessageField::some(oci::User::default()),
        Capabilities: MessageField::some(oci::LinuxCapabilities {
            Bounding: capabilities.clone(),
            Effective: capabilities.clone(),
            Permitted: capabilities,
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn mount(destination: &str, kind: &str, options: &[&str]) -> oci::Mount {
    oci::Mount {
        destination: destination.into(),
        source: kind.into(),
        type_: kind.into(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Default::default()
    }
}

/// Much like what containerd makes.
pub fn spec(root: &Path, args: &[&str]) -> oci::Spec {
    let namespaces = ["pid", "ipc", "uts", "mount", "network", "cgroup"];
    oci::Spec {
        Version: "1.1.0".into(),
        Process: MessageField::some(process(args)),
        Root: MessageField::some(oci::Root { Path: root.display().to_string(), ..Default::default() }),
        Mounts: vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=64k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
            mount("/run", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ],
        Linux: MessageField::some(oci::Linux {
            CgroupsPath: "/default/x".into(),
            Namespaces: namespaces
                .map(|kind| oci::LinuxNamespace { Type: kind.into(), ..Default::default() })
                .into(),
            MaskedPaths: vec!["/proc/kcore".into(), "/proc/timer_list".into()],
            ReadonlyPaths: vec!["/proc/sys".into()],
            ..Default::default()
        }),
        ..Default::default()
    }
}

impl Agent {
    /// Waits until the agent's view is as before: what was killed takes a moment to be gone.
    pub async fn settles_to(&self, before: &[String]) {
        for _ in 0..100 {
            if self.inside() == before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.inside(), before);
    }

    /// What the agent's own view holds: mounts, files, cgroups and processes.
    pub fn inside(&self) -> Vec<String> {
        let inner = children(self.pid()).pop().expect("the inner process");
        let mut all = Vec::new();
        let mounts = fs::read_to_string(format!("/proc/{inner}/mountinfo")).unwrap();
        all.extend(
            mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|place| format!("mount {place}")),
        );
        let root = PathBuf::from(format!("/proc/{inner}/root"));
        for folder in ["run", "sys/fs/cgroup"] {
            list(&root, &root.join(folder), &mut all);
        }
        all.extend(children(inner).into_iter().filter(|pid| lives(*pid)).map(|pid| format!("process {pid}")));
        all.sort();
        all
    }
}

impl Drop for Agent {
    /// Asks the agent to end, so that it removes its cgroup; the runtime collects it.
    fn drop(&mut self) {
        if let Some(pid) = self.process.id().and_then(|pid| pid.try_into().ok()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = nix::sys::wait::waitpid(pid, None);
        }
    }
}

impl Agent {
    /// The agent's cgroup as the machine sees it.
    pub fn cgroup(&self) -> PathBuf {
        let unified = Path::new("/sys/fs/cgroup/unified");
        let root = if unified.exists() { unified } else { Path::new("/sys/fs/cgroup") };
        let text = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        root.join(own).join(format!("nacre-agent-{}", self.pid()))
    }

    /// Whether the machine gives the agent's cgroup the memory controller.
    pub fn limits_memory(&self) -> bool {
        fs::read_to_string(self.cgroup().join("cgroup.controllers")).is_ok_and(|text| text.contains("memory"))
    }

    /// Runs a command in the agent's network; whether it succeeded.
    pub fn run_inside(&self, command: &[&str]) -> bool {
        let inner = children(self.pid()).pop().expect("the inner process").to_string();
        let status = std::process::Command::new("nsenter").args(["-t", &inner, "-n"]).args(command).status();
        status.is_ok_and(|status| status.success())
    }
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Whether a process has not ended; one that has is collected in a moment.
fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

/// Folders and files, without the many that the kernel keeps in each cgroup.
fn list(root: &Path, folder: &Path, all: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let is_folder = entry.file_type().unwrap().is_dir();
        // Made once, with the first container.
        let lasting = ["run/nacre", "run/kata-containers", "sys/fs/cgroup/nacre"]
            .iter()
            .any(|prefix| name == *prefix || name == format!("{prefix}/state"));
        if (is_folder || name.starts_with("run")) && !lasting {
            all.push(name);
        }
        if is_folder {
            list(root, &path, all);
        }
    }
}

/// What of the machine an agent could change: mounts, name, links.
pub fn machine() -> Vec<String> {
    let mut all = vec![fs::read_to_string("/proc/sys/kernel/hostname").unwrap()];
    all.push(fs::read_to_string("/proc/self/mountinfo").unwrap());
    all.push(fs::read_to_string("/proc/net/dev").unwrap().lines().count().to_string());
    all
}
