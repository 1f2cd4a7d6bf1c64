//! A container: its processes, its cgroup, and what is undone when it goes.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};

use oci_spec::runtime::{self, LinuxSeccomp};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::cgroup::{Cgroup, OomKills};
use crate::error::{Doing, Failure, Reply};
use crate::events::OomQueue;
use crate::id::{ContainerId, ExecId};
use crate::lock::lock;
use crate::process::{Process, Spawned};
use crate::reaper::Reaper;
use crate::signal;
use crate::spawner::{ExecOrder, Order, Spawner};
use crate::stdio::Wanted;
use crate::teardown::Teardown;
use crate::termination_log::TerminationLog;

/// A container whose first process exists.
#[derive(Debug)]
pub struct Container {
    id: ContainerId,
    init: Arc<Process>,
    init_name: String,
    cgroup: Cgroup,
    seccomp: Option<LinuxSeccomp>,
    termination_log: Option<TerminationLog>,
    execs: Mutex<HashMap<ExecId, Exec>>,
    /// Processes that are forgotten but whose output is still on its way.
    delivering: Mutex<JoinSet<()>>,
    phase: Mutex<Phase>,
    teardown: Mutex<Teardown>,
}

#[derive(Debug)]
enum Exec {
    Starting,
    Made { process: Arc<Process>, waited: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    Started,
}

/// What a new container is made of.
pub struct Parts {
    /// Its id.
    pub id: ContainerId,
    /// The name by which calls mean its first process.
    pub init_name: String,
    /// Its first process.
    pub init: Spawned,
    /// The system call filter for processes that join it.
    pub seccomp: Option<LinuxSeccomp>,
    /// Whether its processes can outlive the first one.
    pub shares_pid_namespace: bool,
    /// Where it leaves the reason of its end.
    pub termination_log: Option<TerminationLog>,
    /// What to undo when it goes.
    pub teardown: Teardown,
}

/// A process to add to a container.
pub struct Addition {
    /// Its id.
    pub id: ExecId,
    /// What it is.
    pub process: runtime::Process,
    /// Its streams.
    pub wanted: Wanted,
}

impl Container {
    /// Takes charge of a new container: watches its first process and its memory.
    pub fn new(parts: Parts, oom: Arc<OomQueue>) -> Arc<Self> {
        let init = Arc::new(parts.init.process);
        let cgroup = Cgroup::of(&parts.id);
        let kills = OomKills::new(&cgroup).ok();
        let watch = InitWatch {
            id: parts.id.clone(),
            init: Arc::clone(&init),
            cgroup: cgroup.clone(),
            kill_others: parts.shares_pid_namespace,
        };
        tokio::spawn(watch.run(parts.init.status, kills, oom));
        Arc::new(Self {
            id: parts.id,
            init,
            init_name: parts.init_name,
            cgroup,
            seccomp: parts.seccomp,
            termination_log: parts.termination_log,
            execs: Mutex::default(),
            delivering: Mutex::default(),
            phase: Mutex::new(Phase::Created),
            teardown: Mutex::new(parts.teardown),
        })
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Where it leaves the reason of its end.
    pub fn termination_log(&self) -> Option<&TerminationLog> {
        self.termination_log.as_ref()
    }

    /// Lets the first process run its program; the reason if that can't be executed.
    pub async fn start(&self, state: &Path) -> Reply<()> {
        {
            let mut phase = lock(&self.phase);
            if *phase != Phase::Created {
                return Err(Failure::precondition(format!("container {} was started before", self.id)));
            }
            *phase = Phase::Started;
        }
        // libcontainer waits on this socket; its file name keeps the path within a socket's 108 bytes for any id.
        let folder =
            std::fs::File::open(state.join(self.id.as_str())).doing("open the container's records")?;
        let path = format!("/proc/self/fd/{}/notify.sock", std::os::fd::AsRawFd::as_raw_fd(&folder));
        let mut socket = UnixStream::connect(path).doing("reach the container's first process")?;
        socket.write_all(b"start container").doing("start the container's first process")?;
        drop(socket);
        self.init.executed().await
    }

    /// Adds a process; returns when its program runs or can't.
    pub async fn exec(&self, spawner: &Spawner, reaper: &Reaper, addition: Addition) -> Reply<()> {
        self.check_running()?;
        let Addition { id, process, wanted } = addition;
        self.reserve(&id)?;
        let made = self.spawn_exec(spawner, reaper, process, wanted).await;
        let mut execs = lock(&self.execs);
        match made {
            Ok(process) => {
                execs.insert(id, Exec::Made { process, waited: false });
                Ok(())
            }
            Err(failure) => {
                execs.remove(&id);
                Err(failure)
            }
        }
    }

    fn check_running(&self) -> Reply<()> {
        if self.init.status().is_some() || *lock(&self.phase) != Phase::Started {
            return Err(Failure::precondition(format!("container {} does not run", self.id)));
        }
        if self.cgroup.is_frozen() {
            return Err(Failure::precondition(format!("container {} is paused", self.id)));
        }
        Ok(())
    }

    fn reserve(&self, id: &ExecId) -> Reply<()> {
        let mut execs = lock(&self.execs);
        let taken = match execs.get(id) {
            None => false,
            Some(Exec::Starting) => true,
            Some(Exec::Made { process, waited }) => process.status().is_none() || !waited,
        };
        if taken {
            let text = format!("container {} has a process {id} already", self.id);
            return Err(Failure::new(nacre_protocol::ttrpc::Code::ALREADY_EXISTS, text));
        }
        execs.insert(id.clone(), Exec::Starting);
        Ok(())
    }

    async fn spawn_exec(
        &self,
        spawner: &Spawner,
        reaper: &Reaper,
        process: runtime::Process,
        wanted: Wanted,
    ) -> Reply<Arc<Process>> {
        let terminal = process.terminal().unwrap_or_default();
        let console = process.console_size();
        let order = Order::Exec(Box::new(ExecOrder {
            init: self.init.pid().as_raw(),
            cgroup: self.cgroup.path().to_owned(),
            process,
            seccomp: self.seccomp.clone(),
        }));
        let Spawned { process, status } =
            Process::spawn(spawner, reaper, &order, console.as_ref(), terminal, wanted, Some(&self.init))
                .await?;
        let process = Arc::new(process);
        tokio::spawn(watch_exec(Arc::clone(&process), status));
        process.executed().await?;
        Ok(process)
    }

    /// The process that a call means: the first one by no name or its own.
    pub fn process(&self, exec: &str) -> Reply<Arc<Process>> {
        if self.means_init(exec) {
            return Ok(Arc::clone(&self.init));
        }
        let id = ExecId::parse(exec)?;
        match lock(&self.execs).get(&id) {
            Some(Exec::Made { process, .. }) => Ok(Arc::clone(process)),
            _ => Err(Failure::not_found(format!("container {} has no process {id}", self.id))),
        }
    }

    fn means_init(&self, exec: &str) -> bool {
        exec.is_empty() || exec == self.init_name || exec == self.id.as_str()
    }

    /// Waits for a process to end. A process that was added is forgotten then, once its output was read.
    pub async fn wait(&self, exec: &str) -> Reply<i32> {
        let process = self.process(exec)?;
        let status = process.wait().await;
        if !self.means_init(exec) {
            self.deliver(Arc::clone(&process));
            let id = ExecId::parse(exec)?;
            let mut execs = lock(&self.execs);
            if process.is_drained() {
                execs.remove(&id);
            } else if let Some(Exec::Made { waited, .. }) = execs.get_mut(&id) {
                *waited = true;
            }
        }
        Ok(status)
    }

    /// Keeps the process until its output was delivered, whatever becomes of its name.
    fn deliver(&self, process: Arc<Process>) {
        let mut delivering = lock(&self.delivering);
        while delivering.try_join_next().is_some() {}
        delivering.spawn(async move { process.delivered().await });
    }

    /// Forgets an added process that has ended, was waited for and has no more output.
    pub fn forget_if_done(&self, exec: &str) {
        let Ok(id) = ExecId::parse(exec) else { return };
        let mut execs = lock(&self.execs);
        if matches!(execs.get(&id), Some(Exec::Made { process, waited: true }) if process.is_drained()) {
            execs.remove(&id);
        }
    }

    /// Sends a signal: to all processes without a name, else to the one named.
    pub fn signal(&self, exec: &str, number: u32) -> Reply<()> {
        let signal = signal::Number::parse(number)?;
        if !exec.is_empty() {
            return self.process(exec)?.signal(signal);
        }
        if signal == signal::Number::KILL {
            return self.cgroup.kill().doing("kill the container's processes");
        }
        self.cgroup.signal(signal).doing("send the signal to the container's processes")
    }

    /// Kills what runs and undoes all that was done for the container. Returns what could not be undone.
    pub async fn remove(&self) -> Vec<String> {
        let mut failed = Vec::new();
        if let Err(error) = self.cgroup.kill() {
            failed.push(format!("kill the container's processes: {error}"));
        }
        // A process that the container's first one has not left waits for it.
        self.init.wait().await;
        let added: Vec<_> = lock(&self.execs)
            .drain()
            .filter_map(|(_, exec)| match exec {
                Exec::Made { process, .. } => Some(process),
                Exec::Starting => None,
            })
            .collect();
        for process in added {
            process.wait().await;
        }
        if let Err(error) = self.cgroup.remove().await {
            failed.push(format!("remove the cgroup: {error}"));
        }
        let teardown = std::mem::take(&mut *lock(&self.teardown));
        failed.extend(teardown.run_aside().await);
        failed
    }
}

/// Looks after a container's first process.
struct InitWatch {
    id: ContainerId,
    init: Arc<Process>,
    cgroup: Cgroup,
    kill_others: bool,
}

impl InitWatch {
    async fn run(self, status: oneshot::Receiver<i32>, kills: Option<OomKills>, oom: Arc<OomQueue>) {
        let mut status = status;
        let mut kills = kills;
        let status = loop {
            let Some(watch) = kills.as_mut() else { break (&mut status).await };
            tokio::select! {
                status = &mut status => break status,
                more = watch.next() => match more {
                    Ok(()) => oom.add(&self.id),
                    Err(_) => kills = None,
                },
            }
        };
        // Whoever learns of the end must be able to learn why.
        if kills.as_mut().is_some_and(OomKills::more) {
            oom.add(&self.id);
        }
        if self.kill_others {
            let _ = self.cgroup.kill();
        }
        self.init.exited(status.unwrap_or(-1));
        // Other processes may still be killed for want of memory, but the container has ended.
    }
}

async fn watch_exec(process: Arc<Process>, status: oneshot::Receiver<i32>) {
    process.exited(status.await.unwrap_or(-1));
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)
    }
}
