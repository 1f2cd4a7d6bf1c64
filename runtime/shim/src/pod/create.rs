//! Making containers, and the VM with the first of them.

use std::path::Path;
use std::sync::Arc;

use containerd_shim_protos::types::mount::Mount;
use nacre_protocol::agent::CreateContainerRequest;
use oci_spec::runtime::Spec;
use slog::info;

use super::attach::Attached;
use super::{Pod, lock};
use crate::annotations::Role;
use crate::caller::Caller;
use crate::container::Container;
use crate::error::TaskError;
use crate::events::{TaskCreate, TaskIO};
use crate::id::Id;
use crate::layers::{self, LayersError};
use crate::machine::{Launched, Machine};
use crate::operator;
use crate::process::Process;
use crate::spec::{self, Prepared};
use crate::state::{ProcessIdentity, State};
use crate::stdio::{Paths, Streams};
use crate::timeline::{self, Timeline};
use crate::vmm::{LAYER_DISK, Sectors};

/// What containerd asks for.
#[derive(Debug)]
pub struct NewContainer {
    /// Its name.
    pub id: Id,
    /// containerd's folder for it.
    pub bundle: String,
    /// Its root file system.
    pub rootfs: Vec<Mount>,
    /// Its streams.
    pub paths: Paths,
    /// Who asks for it.
    pub caller: Caller,
}

/// A name that is taken while its container is made; given back if that fails.
struct Reservation<'a> {
    pod: &'a Pod,
    id: Id,
    kept: bool,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.kept {
            lock(&self.pod.containers).remove(self.id.as_str());
        }
    }
}

impl Pod {
    /// Makes a container as [`Pod::create`] does, and undoes it if nobody waits for it any more. A pod that is empty then ends
    /// its shim: containerd has given that up, too.
    ///
    /// # Errors
    /// Whatever was in the way. Nothing is left then.
    pub async fn create_for_caller(self: Arc<Self>, new: NewContainer) -> Result<u32, TaskError> {
        let (id, caller) = (new.id.to_string(), new.caller.clone());
        let _making = self.making.read().await;
        let made = self.create(new).await;
        if !caller.is_gone() {
            return made;
        }
        info!(self.log, "nobody waits for the container any more"; "container" => &id);
        if made.is_ok() {
            self.delete(&id, "").await?;
        }
        self.shut_down(false);
        Err(TaskError::Abandoned(id))
    }

    /// Makes a container, for a sandbox with its VM; the result is what containerd takes for its process number.
    ///
    /// # Errors
    /// Whatever was in the way. Nothing is left then.
    pub async fn create(self: &Arc<Self>, new: NewContainer) -> Result<u32, TaskError> {
        let t0 = timeline::now();
        let mut reservation = self.reserve(&new.id)?;
        let spec = read_spec(Path::new(&new.bundle))?;
        let role = Role::of(&spec)?;
        let made = match &role {
            Role::Member { .. } => self.create_member(&new, &role, spec).await?,
            Role::Lone => self.with_launch(&new.id, self.create_lone(&new, &role, spec, t0)).await?,
            Role::Sandbox => self.with_launch(&new.id, self.create_sandbox(&new, &role, spec, t0)).await?,
        };
        let pid = self.enter(new, made)?;
        reservation.kept = true;
        Ok(pid)
    }

    /// Making a container whose VM starts with it.
    async fn with_launch(
        &self,
        id: &Id,
        made: impl Future<Output = Result<Container, TaskError>>,
    ) -> Result<Container, TaskError> {
        made.await.inspect_err(|error| self.end_of_launch(id, Some(error)))
    }

    /// Announces a container that was made, and watches it from now on.
    pub(crate) fn enter(self: &Arc<Self>, new: NewContainer, made: Container) -> Result<u32, TaskError> {
        let container = Arc::new(made);
        let pid = self.pid();
        self.events.publish(TaskCreate {
            container_id: new.id.to_string(),
            bundle: new.bundle,
            rootfs: new.rootfs,
            io: Some(task_io(&new.paths)).into(),
            pid,
            ..Default::default()
        });
        info!(self.log, "container made"; "container" => new.id.as_str());
        lock(&self.containers).insert(new.id.to_string(), Some(container.clone()));
        if container.role != Role::Sandbox {
            self.watch_process(&container.init)?;
        }
        // A VM that ended meanwhile has been looked after without this container.
        if self.machine()?.vmm().watch().borrow().is_some() {
            self.all_killed();
        }
        Ok(pid)
    }

    fn reserve(&self, id: &Id) -> Result<Reservation<'_>, TaskError> {
        let mut containers = lock(&self.containers);
        if containers.contains_key(id.as_str()) {
            return Err(TaskError::Exists { what: "container", id: id.to_string() });
        }
        containers.insert(id.to_string(), None);
        Ok(Reservation { pod: self, id: id.clone(), kept: false })
    }

    async fn create_member(
        &self,
        new: &NewContainer,
        role: &Role,
        mut spec: Spec,
    ) -> Result<Container, TaskError> {
        let machine = self.machine()?;
        if let Some(linux) = spec.linux_mut() {
            let mut sysctls = lock(&self.sysctls).clone();
            sysctls.extend(linux.sysctl().clone().unwrap_or_default());
            linux.set_sysctl(Some(sysctls).filter(|sysctls| !sysctls.is_empty()));
        }
        let prepared = spec::prepare(spec, &new.id, role, machine.vmm().pid(), &self.volumes)?;
        let layers = layers::prepare(&new.rootfs, self.configuration()?).await?;
        let files: Vec<_> = layers.images.iter().map(nacre_image::LayerImage::file).collect();
        let sectors = machine.vmm().grow(LAYER_DISK, &files).await?;
        let read_only = layers.read_only;
        let made = self.make(&machine, new, role, prepared, &sectors, read_only).await;
        if made.is_err() {
            // If that fails, too, the VM is gone and the sectors with it.
            let _ = machine.vmm().release(LAYER_DISK, starts(&sectors)).await;
        }
        made
    }

    async fn create_lone(
        self: &Arc<Self>,
        new: &NewContainer,
        role: &Role,
        spec: Spec,
        t0: u64,
    ) -> Result<Container, TaskError> {
        // What can't be honoured is refused before anything is started.
        let prepared = spec::prepare(spec.clone(), &new.id, role, std::process::id(), &self.volumes)?;
        let (machine, sectors, read_only) = self.boot(Some(new), &new.caller, &spec, role, t0).await?;
        match self.make(&machine, new, role, prepared, &sectors, read_only).await {
            Ok(container) => {
                self.adopt(machine);
                Ok(container)
            }
            Err(error) => {
                self.desk.close();
                machine.end().await;
                Err(error)
            }
        }
    }

    async fn create_sandbox(
        self: &Arc<Self>,
        new: &NewContainer,
        role: &Role,
        spec: Spec,
        t0: u64,
    ) -> Result<Container, TaskError> {
        spec::check_sandbox(&spec)?;
        let sysctls = spec.linux().as_ref().and_then(|linux| linux.sysctl().clone());
        *lock(&self.sysctls) = sysctls.unwrap_or_default();
        let (machine, _, _) = self.boot(None, &new.caller, &spec, role, t0).await?;
        self.adopt(machine);
        let init = Arc::new(Process::new(new.id.as_str(), "", new.paths.clone()));
        Ok(Container::new(new.id.clone(), new.bundle.clone(), role.clone(), init))
    }

    /// Starts the VM, and meanwhile gets the first container's layers ready.
    async fn boot(
        self: &Arc<Self>,
        new: Option<&NewContainer>,
        caller: &Caller,
        spec: &Spec,
        role: &Role,
        t0: u64,
    ) -> Result<(Arc<Machine>, Vec<Sectors>, bool), TaskError> {
        let configuration = self.configuration()?;
        let timeline = Arc::new(Timeline::begin(t0));
        *lock(&self.timeline) = timeline.clone();
        let shim = ProcessIdentity::of(std::process::id()).unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION").into();
        let state = State { version, shim, socket: self.socket.clone(), ..Default::default() };
        let folder = self.state_folder(configuration);
        let layers = async {
            match new {
                Some(new) => layers::prepare(&new.rootfs, configuration).await.map(Some),
                None => Ok::<_, LayersError>(None),
            }
        };
        let log = self.log.clone();
        let mut launched =
            Launched::start(spec, configuration, folder.clone(), state, timeline.clone(), log).await?;
        operator::open(self, &folder, operator::about(self, configuration, spec, &launched));

        // Both at once: the guest boots while layers are found or made.
        let (vmm, agent) = launched.parts();
        info!(self.log, "VM started"; "vmm" => vmm.pid());
        let grown = async {
            let Some(layers) = layers.await? else { return Ok((Vec::new(), false)) };
            let files: Vec<_> = layers.images.iter().map(nacre_image::LayerImage::file).collect();
            Ok::<_, TaskError>((vmm.grow(LAYER_DISK, &files).await?, layers.read_only))
        };
        let start = configuration.timeouts.start_seconds.duration();
        let stream = agent.wait(vmm, configuration.guest.announces, start);
        let both = async { tokio::try_join!(grown, stream) };
        let ((sectors, read_only), stream) = match self.unless_abandoned(caller, both).await {
            Ok(both) => both,
            Err(error) => {
                self.desk.close();
                launched.end().await;
                return Err(error);
            }
        };
        timeline.reach(10);
        let machine = Arc::new(launched.ready(stream, configuration));
        let created = machine.create_sandbox(&self.sandbox, role, spec);
        match self.unless_abandoned(caller, created).await {
            Ok(()) => Ok((machine, sectors, read_only)),
            Err(error) => {
                self.desk.close();
                machine.end().await;
                Err(error)
            }
        }
    }

    /// Work for a caller, given up when that is gone or the shim is to end.
    async fn unless_abandoned<T>(
        &self,
        caller: &Caller,
        work: impl Future<Output = Result<T, TaskError>>,
    ) -> Result<T, TaskError> {
        tokio::select! {
            done = work => done,
            () = caller.gone() => Err(TaskError::Abandoned(self.sandbox.to_string())),
            () = self.ended() => Err(TaskError::Abandoned(self.sandbox.to_string())),
        }
    }

    /// Makes the container in the guest.
    pub(crate) async fn make(
        &self,
        machine: &Machine,
        new: &NewContainer,
        role: &Role,
        prepared: Prepared,
        sectors: &[Sectors],
        read_only: bool,
    ) -> Result<Container, TaskError> {
        let attached = self.attach(machine, &prepared.disks, &prepared.needs).await?;
        match self.make_attached(machine, new, role, prepared, (sectors, read_only), &attached).await {
            Ok(container) => {
                let sectors = [starts(sectors), attached.sectors].concat();
                Ok(container.with_disks(sectors, attached.lent))
            }
            Err(error) => {
                self.detach(machine, attached).await;
                Err(error)
            }
        }
    }

    async fn make_attached(
        &self,
        machine: &Machine,
        new: &NewContainer,
        role: &Role,
        prepared: Prepared,
        (sectors, read_only): (&[Sectors], bool),
        attached: &Attached,
    ) -> Result<Container, TaskError> {
        let Prepared { spec, needs, root, read_only: asked, shares_processes, .. } = prepared;
        let brought = self.volumes.bring(&needs.binds, self.configuration()?, machine.agent()).await?;
        let (streams, ports) = Streams::open(&new.paths, role.is_in_pod(), &machine.folder().vsock()).await?;
        let mut storages = vec![layers::storage(sectors, &root, read_only || asked)];
        storages.extend(attached.storages.iter().cloned());
        let request = CreateContainerRequest {
            container_id: new.id.to_string(),
            exec_id: new.id.to_string(),
            devices: attached.devices.clone(),
            storages,
            OCI: Some(spec).into(),
            sandbox_pidns: shares_processes,
            stdin_port: ports.stdin,
            stdout_port: ports.stdout,
            stderr_port: ports.stderr,
            null_streams: true,
            ..Default::default()
        };
        machine.agent().create_container(request).await?;
        let init = Arc::new(Process::new(new.id.as_str(), "", new.paths.clone()));
        init.set_streams(streams);
        let container = Container::new(new.id.clone(), new.bundle.clone(), role.clone(), init);
        Ok(container.with_brought(brought))
    }
}

pub(super) fn starts(sectors: &[Sectors]) -> Vec<u64> {
    sectors.iter().map(|(first, _)| *first).collect()
}

fn read_spec(bundle: &Path) -> Result<Spec, TaskError> {
    let path = bundle.join("config.json");
    Spec::load(&path).map_err(|source| TaskError::BadBundle { path: path.display().to_string(), source })
}

fn task_io(paths: &Paths) -> TaskIO {
    TaskIO {
        stdin: paths.stdin.clone(),
        stdout: paths.stdout.clone(),
        stderr: paths.stderr.clone(),
        terminal: paths.terminal,
        ..Default::default()
    }
}
