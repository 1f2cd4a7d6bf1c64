//! The pod: its containers and what they share.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use nacre_protocol::agent::{CreateContainerRequest, CreateSandboxRequest, ExecProcessRequest};
use nacre_protocol::ttrpc::Code;
use nix::unistd::sethostname;
use oci_spec::runtime;
use slog::{Logger, info, warn};
use tokio::sync::{Notify, OnceCell};

use crate::cgroup::Cgroup;
use crate::container::{Addition, Container, Parts};
use crate::error::{Doing, Failure, Reply};
use crate::events::OomQueue;
use crate::id::{ContainerId, ExecId};
use crate::lock::lock;
use crate::process::Process;
use crate::reaper::Reaper;
use crate::signal;
use crate::spawner::{CreateOrder, Order, Spawner};
use crate::spec;
use crate::stdio::{Connections, StreamPorts, Wanted};
use crate::storage::{Drivers, device};
use crate::teardown::Teardown;
use crate::termination_log::TerminationLog;
use crate::volumes::Volumes;

mod resolver;

/// Where libcontainer keeps its records.
const STATE: &str = "/run/nacre/state";

/// The pod.
pub struct Sandbox {
    /// Whether this is a VM of the pod's own.
    own_machine: bool,
    log: Logger,
    spawner: Spawner,
    reaper: Arc<Reaper>,
    /// Connections for standard streams.
    pub ports: Arc<StreamPorts>,
    /// Storage drivers.
    pub drivers: Drivers,
    /// Storages that outlive containers.
    pub volumes: Volumes,
    /// Kills for want of memory.
    pub oom: Arc<OomQueue>,
    /// Told when the pod is to end.
    pub ended: Notify,
    containers: Mutex<BTreeMap<ContainerId, Slot>>,
    shared: Mutex<Shared>,
    pid_namespace: OnceCell<Process>,
    cgroups: OnceCell<Result<(), String>>,
}

enum Slot {
    /// Being made or being removed.
    Busy,
    Made(Arc<Container>),
}

#[derive(Default)]
struct Shared {
    created: bool,
    pid_namespace: bool,
    teardown: Teardown,
}

impl Sandbox {
    /// An empty pod; whether the machine is all its own.
    pub fn new(log: Logger, spawner: Spawner, reaper: Arc<Reaper>, own_machine: bool) -> Self {
        Self {
            own_machine,
            log,
            spawner,
            reaper,
            ports: Arc::default(),
            drivers: Drivers::new(),
            volumes: Volumes::default(),
            oom: Arc::default(),
            ended: Notify::new(),
            containers: Mutex::default(),
            shared: Mutex::default(),
            pid_namespace: OnceCell::new(),
            cgroups: OnceCell::new(),
        }
    }

    /// Sets up what the containers share; once.
    pub async fn create(&self, request: CreateSandboxRequest) -> Reply<()> {
        {
            let mut shared = lock(&self.shared);
            if shared.created {
                return Err(Failure::new(Code::ALREADY_EXISTS, "the sandbox was created before"));
            }
            shared.created = true;
            shared.pid_namespace = request.sandbox_pidns;
        }
        let mut teardown = Teardown::default();
        let result = self.set_up(&request, &mut teardown).await;
        if result.is_err() {
            self.undo(teardown).await;
            lock(&self.shared).created = false;
        } else {
            lock(&self.shared).teardown.append(teardown);
        }
        result
    }

    async fn set_up(&self, request: &CreateSandboxRequest, teardown: &mut Teardown) -> Reply<()> {
        if let Some(module) = request.kernel_modules.first() {
            return Err(Failure::invalid(format!(
                "the guest's kernel has no modules, also not {:?}",
                module.name
            )));
        }
        if let Some(name) = host_name(request) {
            sethostname(name).doing("set the host name")?;
        }
        self.drivers.mount(&request.storages, None, teardown).await?;
        resolver::set(&request.dns, teardown)
    }

    /// Kills all containers and undoes all that was done for the pod.
    pub async fn destroy(&self) {
        self.oom.close();
        let ids: Vec<_> = lock(&self.containers).keys().cloned().collect();
        for id in ids {
            if let Err(failure) = self.remove(&id).await {
                warn!(self.log, "container left at the end"; "id" => %id, "error" => failure.text());
            }
        }
        if let Err(failure) = self.volumes.remove_all().await {
            warn!(self.log, "volumes left at the end"; "error" => failure.text());
        }
        let teardown = std::mem::take(&mut lock(&self.shared).teardown);
        self.undo(teardown).await;
        if let Some(holder) = self.pid_namespace.get() {
            let _ = holder.signal(signal::Number::KILL);
        }
    }

    async fn undo(&self, teardown: Teardown) {
        for failed in teardown.run_aside().await {
            warn!(self.log, "could not be undone"; "what" => failed);
        }
    }

    /// Makes a container; its first process then waits to be started.
    pub async fn add(&self, request: CreateContainerRequest) -> Reply<()> {
        let id = ContainerId::parse(&request.container_id)?;
        match lock(&self.containers).entry(id.clone()) {
            std::collections::btree_map::Entry::Occupied(_) => {
                return Err(Failure::new(Code::ALREADY_EXISTS, format!("container {id} exists")));
            }
            std::collections::btree_map::Entry::Vacant(slot) => slot.insert(Slot::Busy),
        };
        let mut teardown = Teardown::default();
        match self.make(&id, request, &mut teardown).await {
            Ok(mut parts) => {
                parts.teardown = teardown;
                let container = Container::new(parts, Arc::clone(&self.oom));
                lock(&self.containers).insert(id, Slot::Made(container));
                Ok(())
            }
            Err(failure) => {
                if let Err(error) = Cgroup::of(&id).remove().await {
                    warn!(self.log, "cgroup left"; "id" => %id, "error" => %error);
                }
                self.undo(teardown).await;
                lock(&self.containers).remove(&id);
                Err(failure)
            }
        }
    }

    async fn make(
        &self,
        id: &ContainerId,
        request: CreateContainerRequest,
        teardown: &mut Teardown,
    ) -> Reply<Parts> {
        let asked = request.OCI.as_ref().ok_or_else(|| Failure::invalid("no specification"))?;
        let mut asked = runtime::Spec::try_from(asked)?;
        let ports = [request.stdin_port, request.stdout_port, request.stderr_port];
        let wanted = self.streams(ports, request.null_streams).await?;
        let share = request.sandbox_pidns || lock(&self.shared).pid_namespace;
        let pid_namespace = if share { Some(self.shared_pid_namespace().await?) } else { None };
        // Before the specification is fitted: what it says of devices has to have the guest's numbers.
        device::add_all(&self.drivers.partitions, &request.devices, &mut asked, teardown).await?;
        let fitted = spec::fit(asked, id, pid_namespace)?;

        self.prepare_cgroups().await?;
        let bundle = id.folder();
        fs::create_dir_all(&bundle).doing("make the container's folder")?;
        teardown.push_remove(&bundle);
        let (shared, own): (Vec<_>, Vec<_>) =
            request.storages.into_iter().partition(|storage| storage.shared);
        self.volumes.add(&self.drivers, &shared).await?;
        self.drivers.mount(&own, Some(id), teardown).await?;
        spec::set_network_parameters(&fitted.network_parameters)?;
        let text = serde_json::to_vec(&fitted.spec)
            .map_err(|error| Failure::internal("write the bundle", &error))?;
        fs::write(bundle.join("config.json"), text).doing("write the bundle")?;

        let process = fitted.spec.process().as_ref();
        let terminal = process.and_then(|process| process.terminal()).unwrap_or_default();
        let console = process.and_then(|process| process.console_size());
        let order = Order::Create(CreateOrder { id: id.to_string(), bundle, state: STATE.into(), terminal });
        teardown.push_remove(&PathBuf::from(STATE).join(id.as_str()));
        let socket = PathBuf::from(STATE).join(format!("{id}.console"));
        teardown.push("remove the console socket", move || match fs::remove_file(socket) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        });
        let init =
            Process::spawn(&self.spawner, &self.reaper, &order, console.as_ref(), terminal, wanted, None)
                .await?;
        // Before any program of the container's runs: its first process waits to be started.
        let limited = fitted.devices.apply(&Cgroup::of(id));
        if let Err(error) = limited {
            // In a VM our own kernel has the filters; elsewhere the agent may not be permitted to use them.
            if self.own_machine {
                return Err(Failure::internal("limit the container's devices", &error));
            }
            warn!(self.log, "devices not limited"; "id" => %id, "error" => %error);
        }
        info!(self.log, "container made"; "id" => %id, "pid" => init.process.pid().as_raw());
        Ok(Parts {
            id: id.clone(),
            init_name: request.exec_id,
            init,
            seccomp: fitted.spec.linux().as_ref().and_then(|linux| linux.seccomp().clone()),
            shares_pid_namespace: share,
            termination_log: TerminationLog::of(&fitted.spec),
            teardown: Teardown::default(),
        })
    }

    /// The streams that a peer wants: connections if it names any port, else calls.
    async fn streams(&self, ports: [u32; 3], null: bool) -> Reply<Wanted> {
        if ports == [0; 3] && !null {
            return Ok(Wanted::Calls);
        }
        let [stdin, stdout, stderr] = ports;
        let (stdin, stdout, stderr) =
            tokio::join!(self.ports.take(stdin), self.ports.take(stdout), self.ports.take(stderr));
        let arrived = |connection: Result<_, crate::stdio::PortError>| {
            connection.map_err(|error| Failure::deadline(error.to_string()))
        };
        Ok(Wanted::Connections(Connections {
            stdin: arrived(stdin)?,
            stdout: arrived(stdout)?,
            stderr: arrived(stderr)?,
        }))
    }

    /// Gives the containers' cgroups their controllers, before the first of them is made.
    pub async fn prepare_cgroups(&self) -> Reply<()> {
        let prepare = async || tokio::task::spawn_blocking(crate::cgroup::prepare).await;
        let prepared = self.cgroups.get_or_init(async || {
            let done = prepare().await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            done.map_err(|error| error.to_string())
        });
        let prepared = prepared.await.clone();
        prepared.map_err(|text| Failure::new(Code::INTERNAL, format!("set up the cgroups: {text}")))
    }

    async fn shared_pid_namespace(&self) -> Reply<PathBuf> {
        let make = async || -> Reply<Process> {
            let wanted = Wanted::Connections(Connections::default());
            let order = Order::HoldPidNamespace;
            let spawned =
                Process::spawn(&self.spawner, &self.reaper, &order, None, false, wanted, None).await?;
            Ok(spawned.process)
        };
        let holder = self.pid_namespace.get_or_try_init(make).await?;
        Ok(format!("/proc/{}/ns/pid", holder.pid()).into())
    }

    /// The container of this id.
    pub fn container(&self, id: &str) -> Reply<Arc<Container>> {
        let id = ContainerId::parse(id)?;
        match lock(&self.containers).get(&id) {
            Some(Slot::Made(container)) => Ok(Arc::clone(container)),
            Some(Slot::Busy) => {
                Err(Failure::precondition(format!("container {id} is being made or removed")))
            }
            None => Err(Failure::not_found(format!("no container {id}"))),
        }
    }

    /// Lets a container run.
    pub async fn start(&self, id: &str) -> Reply<()> {
        self.container(id)?.start(STATE.as_ref()).await
    }

    /// Adds a process to a container.
    pub async fn exec(&self, request: ExecProcessRequest) -> Reply<()> {
        let container = self.container(&request.container_id)?;
        let id = ExecId::parse(&request.exec_id)?;
        let process = request.process.as_ref().ok_or_else(|| Failure::invalid("no process"))?;
        let mut process = runtime::Process::try_from(process)?;
        spec::fit_process(&mut process);
        let ports = [request.stdin_port, request.stdout_port, request.stderr_port];
        let wanted = self.streams(ports, request.null_streams).await?;
        container.exec(&self.spawner, &self.reaper, Addition { id, process, wanted }).await
    }

    /// Removes a container with all it has.
    pub async fn remove(&self, id: &ContainerId) -> Reply<()> {
        let container = self.container(id.as_str())?;
        lock(&self.containers).insert(id.clone(), Slot::Busy);
        let failed = container.remove().await;
        lock(&self.containers).remove(id);
        if failed.is_empty() {
            info!(self.log, "container removed"; "id" => %id);
            Ok(())
        } else {
            Err(Failure::new(Code::INTERNAL, failed.join("; ")))
        }
    }

    /// The log.
    pub fn log(&self) -> &Logger {
        &self.log
    }
}

/// The longest name of a host, `__NEW_UTS_LEN` of the kernel.
const MAX_HOST_NAME: usize = 64;

/// The pod's host name; that of a lone container without one is its id.
fn host_name(request: &CreateSandboxRequest) -> Option<&str> {
    let name = if request.hostname.is_empty() { &request.sandbox_id } else { &request.hostname };
    name.get(..name.len().min(MAX_HOST_NAME)).filter(|name| !name.is_empty())
}
