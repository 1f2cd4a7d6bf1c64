//! Keeping copies as the host's folders are.
//!
//! The kernel tells when a folder changes (inotify(7)); then the folder is read again and what differs is sent.
//! Nothing is looked at again and again. One instance of inotify serves all folders of a pod: a node has 128 of them
//! for all of root's processes (`fs.inotify.max_user_instances`) unless it is told otherwise.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use slog::{Logger, debug, warn};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::changes::Manifest;
use super::error::VolumeError;
use super::origin::SWITCH;
use super::send::{self, Put};
use super::walk::{self, Entry, Limits};
use super::{Kind, Volume};
use crate::agent::{Agent, AgentError};
use crate::error::{TaskError, chain};
use crate::watched::{self, Watches};

/// The least time between two looks at folders: a program of the host that writes without end must not keep the pod
/// busy with it.
const PAUSE: Duration = Duration::from_millis(50);
/// So often a folder that is switched while it is read is read again at once; then its next change is waited for.
const TRIES: usize = 10;

/// What matters about a folder.
fn wanted() -> AddWatchFlags {
    AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_ONLYDIR
}

/// A pod's task that follows folders. It ends with this handle and with the VM.
#[derive(Debug)]
pub struct Follower {
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
struct Order {
    volume: Arc<Volume>,
    /// Told when the first copy is there.
    done: oneshot::Sender<Result<(), TaskError>>,
}

impl Follower {
    /// Starts the task.
    ///
    /// # Errors
    /// The kernel has no more instances of inotify.
    pub fn start(agent: Agent, limits: Limits, log: Logger) -> Result<Self, TaskError> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(io::Error::from)
            .and_then(|inotify| watched::watches(Arc::new(Watches(inotify))))
            .map_err(VolumeError::Watch)?;
        let (orders, receiver) = mpsc::unbounded_channel();
        let task = Task { inotify, folders: Vec::new(), agent, limits, log };
        tokio::spawn(task.run(receiver));
        Ok(Self { orders })
    }

    /// Copies a volume and keeps the copy up to date.
    ///
    /// # Errors
    /// The first copy failed.
    pub async fn follow(&self, volume: Arc<Volume>) -> Result<(), TaskError> {
        let (done, first) = oneshot::channel();
        // A task that is gone drops the order, which tells.
        let _ = self.orders.send(Order { volume, done });
        first.await.unwrap_or_else(|_| Err(VolumeError::Cut.into()))
    }
}

struct Task {
    inotify: AsyncFd<Arc<Watches>>,
    folders: Vec<Followed>,
    agent: Agent,
    limits: Limits,
    log: Logger,
}

/// A folder and what its copy holds.
struct Followed {
    volume: Arc<Volume>,
    manifest: Manifest,
    watches: BTreeSet<i32>,
    is_changed: bool,
    /// It was told that the copy can't be kept up.
    is_behind: bool,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some(order) = order else { return };
                    self.add(order).await;
                }
                events = events(&self.inotify) => match events {
                    Ok(events) => self.mark(&events),
                    Err(error) => {
                        warn!(self.log, "volumes are not followed any more"; "error" => %error);
                        return;
                    }
                }
            }
            if self.folders.iter().any(|folder| folder.is_changed) {
                if self.look().await.is_err() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn add(&mut self, order: Order) {
        let mut folder = Followed {
            volume: order.volume,
            manifest: Manifest::default(),
            watches: BTreeSet::new(),
            is_changed: false,
            is_behind: false,
        };
        let first = folder.pass(self.inotify.get_ref(), self.limits, &self.agent).await;
        if first.is_ok() {
            self.folders.push(folder);
        }
        let _ = order.done.send(first.map(drop));
    }

    /// Notes which folders have changed; events that were lost may have been any's.
    fn mark(&mut self, events: &[Option<i32>]) {
        for folder in &mut self.folders {
            let is_its = |watch: &Option<i32>| watch.is_none_or(|watch| folder.watches.contains(&watch));
            if events.iter().any(is_its) {
                folder.is_changed = true;
            }
        }
    }

    /// Brings all folders that have changed up to date. An error is the end of the VM.
    async fn look(&mut self) -> Result<(), AgentError> {
        for folder in self.folders.iter_mut().filter(|folder| folder.is_changed) {
            folder.is_changed = false;
            let root = folder.volume.root.clone();
            match folder.pass(self.inotify.get_ref(), self.limits, &self.agent).await {
                Ok(changed) => {
                    folder.is_behind = false;
                    if changed {
                        debug!(self.log, "volume updated"; "source" => root.display());
                    }
                }
                Err(TaskError::Agent(error @ AgentError::Gone(_))) => return Err(error),
                Err(error) => {
                    if !std::mem::replace(&mut folder.is_behind, true) {
                        warn!(self.log, "volume is behind the host"; "source" => root.display(),
                              "error" => chain(&error));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Followed {
    /// Reads the folder and sends what differs; true if anything did.
    async fn pass(
        &mut self,
        inotify: &Arc<Watches>,
        limits: Limits,
        agent: &Agent,
    ) -> Result<bool, TaskError> {
        if !self.volume.follows() {
            return Ok(false);
        }
        let (root, inotify) = (self.volume.root.clone(), inotify.clone());
        let switched = self.volume.kind == Kind::Switched;
        let read = move || {
            let mut watches = BTreeSet::new();
            let entries = snapshot(&root, switched, limits, &mut |folder| {
                watches.insert(inotify.0.add_watch(folder, wanted())?.as_raw());
                Ok(())
            })?;
            Ok::<_, VolumeError>((entries, watches))
        };
        let (entries, watches) = tokio::task::spawn_blocking(read).await.map_err(|_| VolumeError::Cut)??;
        self.watches = watches;
        let (manifest, changes) = self.manifest.change_to(entries);
        if changes.is_empty() {
            return Ok(false);
        }
        // If this fails halfway, all is sent again with the next change.
        self.manifest = Manifest::default();
        send::changes(&self.volume.top, changes, Put::Always, agent).await?;
        self.manifest = manifest;
        Ok(true)
    }
}

/// Reads a folder as it was at one moment: one that kubelet switches is complete as soon as its link leads to it, and
/// stays as it is until the link leads elsewhere.
fn snapshot(
    root: &Path,
    switched: bool,
    limits: Limits,
    watch: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> Result<Vec<Entry>, VolumeError> {
    let link = || std::fs::read_link(root.join(SWITCH)).ok();
    let mut tries = 0;
    loop {
        let before = link();
        let entries = walk::read(root, limits, watch);
        tries += 1;
        if !switched || before == link() || tries == TRIES {
            return entries;
        }
    }
}

/// The next events: watches whose folders have changed; `None` where events were lost.
async fn events(inotify: &AsyncFd<Arc<Watches>>) -> io::Result<Vec<Option<i32>>> {
    let events = inotify
        .async_io(Interest::READABLE, |inotify| match inotify.0.read_events() {
            Err(Errno::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
            other => Ok(other?),
        })
        .await?;
    let of = |watch: WatchDescriptor| Some(watch.as_raw()).filter(|watch| *watch >= 0);
    Ok(events.into_iter().map(|event| of(event.wd)).collect())
}
