//! The pod's VMM: starting it, speaking with it, and noticing its end.

mod error;
mod reader;
mod start;
mod tee;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nacre_control::{Channel, ChannelError, Extent, FileIndex, Request, StopReason};
use slog::Logger;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub use error::VmmError;
pub use start::{Plan, spawn};
pub use tee::Tee;

use crate::pidfd::PidFd;
use crate::timeline::Timeline;
use crate::watched;

/// The disk that carries the containers' layers: the guest's `/dev/vda`.
pub const LAYER_DISK: u8 = 0;
/// The disk that carries block volumes: the guest's `/dev/vdb`.
pub const VOLUME_DISK: u8 = 1;
/// Files in one [`Request::GrowDisk`].
const GROW_BATCH: usize = 200;
/// How long a VMM may take to end after it was told to, before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// How a VMM ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Why.
    pub reason: StopReason,
    /// The last lines of the guest's console, or of the VMM's own error output.
    pub console_tail: String,
}

/// First sector and number of sectors of a part of the layer disk.
pub type Sectors = (u64, u64);

/// The answer to a [`Request::GrowDisk`].
type Grown = Result<Vec<Sectors>, String>;

/// A running VMM. Dropping it kills it.
#[derive(Debug)]
pub struct Vmm {
    pid: u32,
    process: Arc<PidFd>,
    channel: Arc<AsyncFd<Channel>>,
    shared: Arc<Shared>,
    stopped: watch::Receiver<Option<Stopped>>,
    /// Keeps the order of [`Request::GrowDisk`] and of their answers.
    growing: tokio::sync::Mutex<()>,
    reader: JoinHandle<()>,
}

/// What the reader of events hands over.
#[derive(Debug, Default)]
struct Shared {
    /// Who waits for the answer to a [`Request::GrowDisk`].
    grown: Mutex<Option<oneshot::Sender<Grown>>>,
    /// Who waits for the agent.
    agent: Mutex<Option<oneshot::Sender<UnixStream>>>,
    /// Who waits for what the guest printed last.
    console: Mutex<Vec<oneshot::Sender<String>>>,
}

impl Vmm {
    /// Takes over a process that has the other end of `channel`. The receiver gets the stream on which the guest's
    /// agent announces itself.
    ///
    /// # Errors
    /// The channel or the process can't be watched.
    pub fn attach(
        pid: u32,
        channel: Channel,
        errors: Option<OwnedFd>,
        timeline: Arc<Timeline>,
        log: Logger,
    ) -> io::Result<(Self, oneshot::Receiver<UnixStream>)> {
        set_nonblocking(&channel)?;
        let process = Arc::new(PidFd::open(pid)?);
        let channel = Arc::new(watched::channel(channel)?);
        let (agent, announced) = oneshot::channel();
        let shared = Arc::new(Shared { agent: Mutex::new(Some(agent)), ..Default::default() });
        let (end, stopped) = watch::channel(None);
        let reader = reader::Reader {
            pid,
            process: process.clone(),
            channel: channel.clone(),
            shared: shared.clone(),
            timeline,
            errors,
            log,
        };
        let reader = tokio::spawn(reader.run(end));
        let growing = tokio::sync::Mutex::new(());
        Ok((Self { pid, process, channel, shared, stopped, growing, reader }, announced))
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Becomes `Some` when the VMM has ended and is reaped.
    pub fn watch(&self) -> watch::Receiver<Option<Stopped>> {
        self.stopped.clone()
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The VMM is gone.
    pub async fn send(&self, request: &Request, files: &[BorrowedFd<'_>]) -> Result<(), VmmError> {
        loop {
            let mut ready = self.channel.writable().await?;
            let sent = ready.try_io(|channel| match channel.get_ref().send(request, files) {
                Err(ChannelError::Io(error)) => Err(error),
                other => Ok(other),
            });
            match sent {
                Err(_would_block) => {}
                // It ended, which has a reason: its last message, or else the process's exit.
                Ok(Ok(Err(ChannelError::Closed))) => return Err(VmmError::Stopped(self.ended().await)),
                Ok(sent) => return Ok(sent??),
            }
        }
    }

    /// Appends files to a disk; the result has one entry for each.
    ///
    /// # Errors
    /// The VMM refused or is gone.
    pub async fn grow(&self, disk: u8, files: &[impl AsFd]) -> Result<Vec<Sectors>, VmmError> {
        let _turn = self.growing.lock().await;
        let mut sectors = Vec::with_capacity(files.len());
        for batch in files.chunks(GROW_BATCH) {
            let (sender, answer) = oneshot::channel();
            if let Ok(mut grown) = self.shared.grown.lock() {
                *grown = Some(sender);
            }
            let indexes = (0..batch.len()).filter_map(|index| u8::try_from(index).ok());
            let extents = indexes.map(|index| Extent { file: FileIndex(index) }).collect();
            let files: Vec<BorrowedFd<'_>> = batch.iter().map(AsFd::as_fd).collect();
            self.send(&Request::GrowDisk { disk, extents }, &files).await?;
            let grown = tokio::select! {
                Ok(grown) = answer => grown.map_err(VmmError::Grow)?,
                stopped = self.ended() => return Err(VmmError::Stopped(stopped)),
            };
            if grown.len() != batch.len() {
                return Err(VmmError::Grow(format!("{} files gave {} extents", batch.len(), grown.len())));
            }
            sectors.extend(grown);
        }
        Ok(sectors)
    }

    /// Gives parts of a disk back.
    ///
    /// # Errors
    /// The VMM is gone.
    pub async fn release(&self, disk: u8, starts: Vec<u64>) -> Result<(), VmmError> {
        if starts.is_empty() {
            return Ok(());
        }
        self.send(&Request::ReleaseExtents { disk, starts }, &[]).await
    }

    /// What the guest printed last.
    ///
    /// # Errors
    /// The VMM is gone.
    pub async fn console_tail(&self) -> Result<String, VmmError> {
        let (sender, answer) = oneshot::channel();
        if let Ok(mut console) = self.shared.console.lock() {
            console.push(sender);
        }
        self.send(&Request::TellConsole, &[]).await?;
        tokio::select! {
            Ok(text) = answer => Ok(text),
            stopped = self.ended() => Err(VmmError::Stopped(stopped)),
        }
    }

    /// Returns when the VMM has ended.
    pub async fn ended(&self) -> Stopped {
        ended(self.stopped.clone()).await
    }

    /// Ends the VMM: asks first, for the sake of the console's last lines, then kills.
    pub async fn stop(&self) -> Stopped {
        if self.send(&Request::Stop, &[]).await.is_err() {
            self.kill();
        }
        match tokio::time::timeout(STOP_GRACE, self.ended()).await {
            Ok(stopped) => stopped,
            Err(_) => {
                self.kill();
                self.ended().await
            }
        }
    }

    /// Ends the VMM at once.
    pub fn kill(&self) {
        // The only failure is a process that is not ours, which a child always is.
        let _ = self.process.kill();
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        self.reader.abort();
        if self.stopped.borrow().is_none() {
            self.kill();
            // A child that nobody waits for stays as a zombie; after SIGKILL this takes no longer than its exit.
            reader::reap(self.pid);
        }
    }
}

/// Returns when a VMM has ended.
pub async fn ended(mut stopped: watch::Receiver<Option<Stopped>>) -> Stopped {
    match stopped.wait_for(Option::is_some).await.ok().and_then(|stopped| stopped.clone()) {
        Some(stopped) => stopped,
        None => {
            Stopped { reason: StopReason::Requested { by: "the shim".into() }, console_tail: String::new() }
        }
    }
}

fn set_nonblocking(channel: &Channel) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_truncate(fcntl(channel, FcntlArg::F_GETFL)?);
    fcntl(channel, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
