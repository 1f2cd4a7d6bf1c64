//! A pod: one virtual machine, its containers, and what happens to them.

mod attach;
mod create;
mod delete;
mod run;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nacre_configuration::Configuration;
use slog::{Logger, debug};
use tokio::sync::{RwLock, watch as signal};
use tokio::task::{AbortHandle, JoinSet};

pub use create::NewContainer;

use crate::container::Container;
use crate::error::TaskError;
use crate::events::{Publisher, TaskExit};
use crate::id::Id;
use crate::machine::Machine;
use crate::operator::Desk;
use crate::process::{Exit, Process};
use crate::recent::Recent;
use crate::state::StateFolder;
use crate::timeline::Timeline;
use crate::volumes::Volumes;

/// A pod, from the start of its shim on.
#[derive(Debug)]
pub struct Pod {
    namespace: Id,
    sandbox: Id,
    socket: PathBuf,
    /// What is wrong with the configuration is told to the first request that needs it.
    configuration: Result<Configuration, String>,
    events: Publisher,
    /// What its containers mount from the host.
    volumes: Volumes,
    log: Logger,
    /// Guards the names: `None` is a container that is being made.
    containers: Mutex<BTreeMap<String, Option<Arc<Container>>>>,
    /// The VMM's number, also after its end.
    pid: AtomicU32,
    /// Guards the kernel parameters that the sandbox asks for. It has no process of its own that could set them, so each
    /// container does.
    sysctls: Mutex<HashMap<String, String>>,
    /// Guards the VM's presence.
    machine: Mutex<Option<Arc<Machine>>>,
    /// The launch of the VM, from the sandbox's Create on.
    timeline: Mutex<Arc<Timeline>>,
    /// Guards the tasks that watch processes; they end with the pod.
    tasks: Mutex<JoinSet<()>>,
    /// Where operators ask.
    desk: Desk,
    /// Held by each container that is being made; guards nothing but their end.
    making: RwLock<()>,
    end: signal::Sender<bool>,
}

impl Pod {
    /// A pod without containers. `socket` is where containerd reaches its shim.
    pub fn new(
        namespace: Id,
        sandbox: Id,
        socket: PathBuf,
        configuration: Result<Configuration, String>,
        events: Publisher,
        log: Logger,
    ) -> Self {
        Self {
            namespace,
            sandbox,
            socket,
            configuration,
            events,
            volumes: Volumes::new(log.clone()),
            log,
            containers: Mutex::default(),
            pid: AtomicU32::new(0),
            sysctls: Mutex::default(),
            machine: Mutex::default(),
            timeline: Mutex::default(),
            tasks: Mutex::default(),
            desk: Desk::default(),
            making: RwLock::default(),
            end: signal::Sender::new(false),
        }
    }

    /// With the log's last messages, for operators.
    pub fn remembering(mut self, recent: Recent) -> Self {
        self.desk = Desk::new(recent);
        self
    }

    /// The container with this name.
    ///
    /// # Errors
    /// There is none.
    pub fn container(&self, id: &str) -> Result<Arc<Container>, TaskError> {
        lock(&self.containers).get(id).cloned().flatten().ok_or_else(|| TaskError::NoContainer(id.into()))
    }

    /// What containerd takes for the number of the pod's processes: the VMM's.
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// Asks the shim to end, unless containers are left and it need not be now.
    pub fn shut_down(&self, now: bool) {
        if now || lock(&self.containers).is_empty() {
            self.end.send_replace(true);
        }
    }

    /// Returns when the shim is to end.
    pub async fn ended(&self) {
        let _ = self.end.subscribe().wait_for(|end| *end).await;
    }

    /// Ends the pod with the shim: also the VM of a container that is still being made.
    pub async fn end(&self) {
        // What a container in the making waits for fails then, and it undoes what it has.
        self.tear_down().await;
        let _made = self.making.write().await;
        self.tear_down().await;
    }

    /// Ends the VM, announces what ended with it, and leaves nothing on the host.
    pub async fn tear_down(&self) {
        self.desk.close();
        let machine = lock(&self.machine).take();
        if let Some(machine) = machine {
            self.write_out(&machine).await;
            machine.end().await;
            self.all_killed();
        }
    }

    /// Where operators ask.
    pub(crate) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// The log.
    pub(crate) fn log(&self) -> &Logger {
        &self.log
    }

    /// containerd's namespace.
    pub(crate) fn namespace(&self) -> &Id {
        &self.namespace
    }

    /// The sandbox's name.
    pub(crate) fn sandbox(&self) -> &Id {
        &self.sandbox
    }

    /// All containers that are made.
    pub(crate) fn all_containers(&self) -> Vec<Arc<Container>> {
        lock(&self.containers).values().flatten().cloned().collect()
    }

    /// The moments of the launch that are reached.
    pub(crate) fn moments(&self) -> BTreeMap<String, u64> {
        lock(&self.timeline).so_far()
    }

    fn configuration(&self) -> Result<&Configuration, TaskError> {
        self.configuration.as_ref().map_err(|message| TaskError::Configuration(message.clone()))
    }

    /// The VM with its agent.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn machine(&self) -> Result<Arc<Machine>, TaskError> {
        lock(&self.machine).clone().ok_or_else(|| TaskError::NoMachine(self.sandbox.to_string()))
    }

    /// The machine, which a test knows to be there.
    #[cfg(test)]
    pub fn running_machine(&self) -> Arc<Machine> {
        self.machine().unwrap()
    }

    fn state_folder(&self, configuration: &Configuration) -> StateFolder {
        StateFolder::of(&configuration.state.path, &self.namespace, &self.sandbox)
    }

    /// Records a process's end and announces it, once.
    fn finish(&self, process: &Process, exit: Exit) {
        if process.finish(exit) {
            self.announce_exit(process, exit);
        }
    }

    fn announce_exit(&self, process: &Process, exit: Exit) {
        debug!(self.log, "process ended"; "container" => process.container(), "exec" => process.exec(),
               "status" => exit.status);
        let id = if process.exec().is_empty() { process.container() } else { process.exec() };
        self.events.publish(TaskExit {
            container_id: process.container().into(),
            id: id.into(),
            pid: self.pid(),
            exit_status: exit.status,
            exited_at: Some(exit.timestamp()).into(),
            ..Default::default()
        });
    }

    /// Runs a task that ends with the pod at the latest.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task)
    }
}

/// What a panicking thread left is still whole: each guard covers a single change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
