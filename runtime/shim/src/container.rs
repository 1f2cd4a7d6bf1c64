//! One container of a pod and its processes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nacre_protocol::oci;

use crate::annotations::Role;
use crate::error::TaskError;
use crate::id::Id;
use crate::process::Process;
use crate::volumes::{Brought, Lent};

/// A container.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub id: Id,
    /// containerd's folder for it.
    pub bundle: String,
    /// What it is in its pod.
    pub role: Role,
    /// Its first process.
    pub init: Arc<Process>,
    /// Where its layers begin on the layer disk.
    pub sectors: Vec<u64>,
    /// What was brought from the host for it alone.
    pub brought: Brought,
    /// Guards the names of further processes.
    execs: Mutex<BTreeMap<String, Exec>>,
    paused: AtomicBool,
}

/// A further process, with what it needs to start.
#[derive(Debug, Clone)]
pub struct Exec {
    /// The process.
    pub process: Arc<Process>,
    /// How it is to run.
    pub spec: Arc<oci::Process>,
}

impl Container {
    /// A container whose init process is `init`.
    pub fn new(id: Id, bundle: String, role: Role, init: Arc<Process>) -> Self {
        Self {
            id,
            bundle,
            role,
            init,
            sectors: Vec::new(),
            brought: Brought::default(),
            execs: Mutex::default(),
            paused: AtomicBool::new(false),
        }
    }

    /// With what was brought from the host for it alone.
    pub fn with_brought(self, brought: Brought) -> Self {
        Self { brought, ..self }
    }

    /// With its layers, by where they begin on the layer disk, and disks of the host.
    pub fn with_disks(self, sectors: Vec<u64>, disks: Vec<Arc<Lent>>) -> Self {
        Self { sectors, brought: self.brought.with_disks(disks), ..self }
    }

    /// The process with this name; the empty one is init's.
    ///
    /// # Errors
    /// There is none.
    pub fn process(&self, exec: &str) -> Result<Arc<Process>, TaskError> {
        if exec.is_empty() { Ok(self.init.clone()) } else { Ok(self.exec(exec)?.process) }
    }

    /// A further process.
    ///
    /// # Errors
    /// There is none with this name.
    pub fn exec(&self, exec: &str) -> Result<Exec, TaskError> {
        let no_process = || TaskError::NoProcess { container: self.id.to_string(), exec: exec.into() };
        self.lock().get(exec).cloned().ok_or_else(no_process)
    }

    /// Adds a process.
    ///
    /// # Errors
    /// The name is taken.
    pub fn add(&self, exec: Exec) -> Result<(), TaskError> {
        let name = exec.process.exec().to_owned();
        let mut execs = self.lock();
        if execs.contains_key(&name) {
            return Err(TaskError::Exists { what: "process", id: name });
        }
        execs.insert(name, exec);
        Ok(())
    }

    /// Forgets a process.
    pub fn forget(&self, exec: &str) {
        self.lock().remove(exec);
    }

    /// All processes, the first one first.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        let mut all = vec![self.init.clone()];
        all.extend(self.lock().values().map(|exec| exec.process.clone()));
        all
    }

    /// Whether it is frozen.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Remembers whether it is frozen; true if that is a change.
    pub fn set_paused(&self, paused: bool) -> bool {
        self.paused.swap(paused, Ordering::Relaxed) != paused
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Exec>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
