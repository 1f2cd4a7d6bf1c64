//! One process of a container, from its creation to its exit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use tokio::sync::watch;

use crate::error::TaskError;
use crate::stdio::{Paths, Streams};

/// The exit status of a process that was killed together with its VM.
pub const KILLED: u32 = 137;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, or 128 and the number of the signal.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

impl Exit {
    /// An exit now.
    pub fn now(status: u32) -> Self {
        Self { status, at: SystemTime::now() }
    }

    /// When, for containerd.
    pub fn timestamp(&self) -> Timestamp {
        self.at.into()
    }
}

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not started.
    Created,
    /// The start is under way; it may have ended meanwhile.
    Starting(Option<Exit>),
    /// Running.
    Running,
    /// Ended.
    Stopped(Exit),
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting(_) => "starting",
            Self::Running => "running",
            Self::Stopped(_) => "stopped",
        }
    }
}

/// A process.
#[derive(Debug)]
pub struct Process {
    container: String,
    /// Empty for the container's init.
    exec: String,
    paths: Paths,
    phase: Mutex<Phase>,
    exit: watch::Sender<Option<Exit>>,
    streams: Mutex<Option<Streams>>,
    /// Stdin is to have an end. Changes only under the guard of `streams`.
    stdin_closed: AtomicBool,
    /// A terminal's size that was set before there was a process to have it.
    early_size: Mutex<Option<(u32, u32)>>,
}

impl Process {
    /// A process that is not started yet; `exec` is empty for a container's init.
    pub fn new(container: &str, exec: &str, paths: Paths) -> Self {
        Self {
            container: container.into(),
            exec: exec.into(),
            paths,
            phase: Mutex::new(Phase::Created),
            exit: watch::Sender::new(None),
            streams: Mutex::new(None),
            stdin_closed: AtomicBool::new(false),
            early_size: Mutex::new(None),
        }
    }

    /// The container's name.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// The process's name; empty for the container's init.
    pub fn exec(&self) -> &str {
        &self.exec
    }

    /// Where containerd wants its streams.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        *lock(&self.phase)
    }

    /// Whether it runs, or may.
    pub fn is_alive(&self) -> bool {
        matches!(self.phase(), Phase::Running | Phase::Starting(None))
    }

    /// The start begins.
    ///
    /// # Errors
    /// It has begun before.
    pub fn starting(&self) -> Result<(), TaskError> {
        let mut phase = lock(&self.phase);
        match *phase {
            Phase::Created => {
                *phase = Phase::Starting(None);
                Ok(())
            }
            other => Err(self.wrong(other, "start")),
        }
    }

    /// The start is done, and is announced. An exit that came first must be announced now.
    pub fn started(&self) -> Option<Exit> {
        let mut phase = lock(&self.phase);
        let Phase::Starting(exit) = *phase else { return None };
        *phase = exit.map_or(Phase::Running, Phase::Stopped);
        drop(phase);
        exit.inspect(|exit| self.tell(*exit))
    }

    /// The start failed. An exit that came meanwhile must be announced now.
    pub fn start_failed(&self) -> Option<Exit> {
        let mut phase = lock(&self.phase);
        let Phase::Starting(exit) = *phase else { return None };
        *phase = exit.map_or(Phase::Created, Phase::Stopped);
        drop(phase);
        exit.inspect(|exit| self.tell(*exit))
    }

    /// The process has ended. True if that must be announced now: not for a second end, and not before a start that
    /// is under way is announced.
    pub fn finish(&self, exit: Exit) -> bool {
        let mut phase = lock(&self.phase);
        match &mut *phase {
            Phase::Starting(ended) => {
                ended.get_or_insert(exit);
                false
            }
            Phase::Stopped(_) => false,
            Phase::Created | Phase::Running => {
                *phase = Phase::Stopped(exit);
                drop(phase);
                self.tell(exit);
                true
            }
        }
    }

    fn tell(&self, exit: Exit) {
        self.exit.send_replace(Some(exit));
    }

    /// The exit, or the error that it did not happen yet.
    ///
    /// # Errors
    /// The process runs.
    pub fn exited(&self, wanted: &'static str) -> Result<Exit, TaskError> {
        match self.phase() {
            Phase::Stopped(exit) => Ok(exit),
            other => Err(self.wrong(other, wanted)),
        }
    }

    /// Waits for the exit.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let exit = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        // The sender lives as long as `self`.
        exit.unwrap_or_else(|| Exit::now(KILLED))
    }

    /// Takes over the process's streams.
    pub fn set_streams(&self, mut streams: Streams) {
        let mut place = lock(&self.streams);
        if self.stdin_closed.load(Ordering::Relaxed) {
            streams.close_stdin();
        }
        *place = Some(streams);
    }

    /// Waits until all output has reached containerd, at most `limit`.
    pub fn drained(&self, limit: std::time::Duration) -> impl Future<Output = ()> + Send + use<> {
        let drained = lock(&self.streams).as_ref().map(Streams::drained);
        async move {
            if let Some(drained) = drained {
                let _ = tokio::time::timeout(limit, drained).await;
            }
        }
    }

    /// Lets go of streams that stay silent for `patience` although the process has ended.
    pub fn hang_up(&self, patience: std::time::Duration) {
        if let Some(streams) = &*lock(&self.streams) {
            streams.hang_up(patience);
        }
    }

    /// Closes stdin as soon as what is written to it has arrived. A client with little input does so before the
    /// process is started and has streams.
    pub fn close_stdin(&self) {
        let mut streams = lock(&self.streams);
        self.stdin_closed.store(true, Ordering::Relaxed);
        if let Some(streams) = &mut *streams {
            streams.close_stdin();
        }
    }

    /// Ends all streams at once.
    pub fn close_streams(&self) {
        lock(&self.streams).take();
    }

    /// Remembers the size of the terminal for the start.
    pub fn set_early_size(&self, size: (u32, u32)) {
        *lock(&self.early_size) = Some(size);
    }

    /// The size that was set before the start: rows and columns.
    pub fn take_early_size(&self) -> Option<(u32, u32)> {
        lock(&self.early_size).take()
    }

    /// The error for a request at the wrong time.
    pub fn wrong(&self, phase: Phase, wanted: &'static str) -> TaskError {
        let id = if self.exec.is_empty() { &self.container } else { &self.exec };
        TaskError::WrongState { id: id.clone(), is: phase.name(), wanted }
    }
}

/// What a panicking thread left is still whole: each guard covers a single assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Process {
        Process::new("web", "", Paths::default())
    }

    #[tokio::test]
    async fn an_exit_counts_once() {
        let process = process();
        process.starting().unwrap();
        assert_eq!(process.started(), None);
        assert!(process.finish(Exit::now(3)));
        assert!(!process.finish(Exit::now(4)));
        assert_eq!(process.wait().await.status, 3);
    }

    #[test]
    fn an_exit_during_the_start_is_announced_after_the_start() {
        let process = process();
        process.starting().unwrap();
        assert!(!process.finish(Exit::now(3)));
        assert_eq!(process.started().map(|exit| exit.status), Some(3));
        assert!(matches!(process.phase(), Phase::Stopped(_)));
    }

    #[test]
    fn a_failed_start_can_be_tried_again() {
        let process = process();
        process.starting().unwrap();
        assert_eq!(process.start_failed(), None);
        process.starting().unwrap();
        assert!(process.starting().is_err());
    }
}
