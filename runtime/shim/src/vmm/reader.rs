//! The one who hears what a VMM reports.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use nacre_control::{Channel, ChannelError, Event, StopReason};
use nacre_protocol::AGENT_PORT;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use slog::{Logger, debug};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::{Shared, Stopped};
use crate::pidfd::PidFd;
use crate::timeline::Timeline;
use crate::watched;

/// The VMM's own error output is kept up to this many bytes.
const ERRORS_KEPT: usize = 4096;

/// Reads events until the VMM is gone.
#[derive(Debug)]
pub struct Reader {
    pub pid: u32,
    pub process: Arc<PidFd>,
    pub channel: Arc<AsyncFd<Channel>>,
    pub shared: Arc<Shared>,
    pub timeline: Arc<Timeline>,
    pub errors: Option<OwnedFd>,
    pub log: Logger,
}

impl Reader {
    /// Runs until the process has ended and is reaped, then tells how it ended.
    pub async fn run(mut self, end: watch::Sender<Option<Stopped>>) {
        let errors = self.errors.take();
        let told = async {
            let told = self.events().await;
            self.shared.close();
            // A VMM that closed its channel ends; if it does not, it no longer follows its protocol.
            let _ = self.process.kill();
            told
        };
        let (told, errors) = tokio::join!(told, collect(errors, &self.log));
        if let Ok(process) = watched::process(self.process.clone()) {
            let _ = process.readable().await;
        }
        let status = reap(self.pid);
        let stopped = told.unwrap_or_else(|| Stopped {
            reason: StopReason::Failed(match status {
                Some(WaitStatus::Signaled(_, signal, _)) => format!("the VMM was killed by {signal}"),
                Some(WaitStatus::Exited(_, code)) => format!("the VMM exited with {code}"),
                _ => "the VMM is gone".into(),
            }),
            console_tail: errors,
        });
        end.send_replace(Some(stopped));
    }

    /// Until the channel is closed or its other end breaks the protocol. `Some` if the VMM said how it ended.
    async fn events(&self) -> Option<Stopped> {
        loop {
            match self.receive().await {
                Ok((Event::Stopped { reason, console_tail }, _)) => {
                    return Some(Stopped { reason, console_tail });
                }
                Ok((event, files)) => self.handle(event, files),
                Err(_) => return None,
            }
        }
    }

    async fn receive(&self) -> Result<(Event, Vec<OwnedFd>), ChannelError> {
        loop {
            let mut ready = self.channel.readable().await?;
            let received = ready.try_io(|channel| match channel.get_ref().receive() {
                Err(ChannelError::Io(error)) => Err(error),
                other => Ok(other),
            });
            match received {
                Err(_would_block) => {}
                Ok(received) => return received?,
            }
        }
    }

    fn handle(&self, event: Event, files: Vec<OwnedFd>) {
        match event {
            Event::Started { moments } => moments.into_iter().for_each(|moment| self.timeline.record(moment)),
            Event::Reached(moment) => self.timeline.record(moment),
            Event::GuestConnected { port: AGENT_PORT } => {
                let waiting = self.shared.agent.lock().ok().and_then(|mut agent| agent.take());
                let stream = files.into_iter().next().and_then(|file| stream(file).ok());
                // SECURITY: only the first connection of the guest counts; a later one is closed here.
                if let (Some(waiting), Some(stream)) = (waiting, stream) {
                    let _ = waiting.send(stream);
                }
            }
            Event::DiskGrown { extents, .. } => {
                let waiting = self.shared.grown.lock().ok().and_then(|mut grown| grown.take());
                if let Some(waiting) = waiting {
                    let _ = waiting.send(extents);
                }
            }
            Event::GuestConnected { .. } | Event::Stopped { .. } => {}
        }
    }
}

impl Shared {
    /// Lets go whoever waits.
    fn close(&self) {
        if let Ok(mut grown) = self.grown.lock() {
            grown.take();
        }
        if let Ok(mut agent) = self.agent.lock() {
            agent.take();
        }
    }
}

fn stream(file: OwnedFd) -> io::Result<UnixStream> {
    let stream = StdUnixStream::from(file);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Passes on what the VMM writes to its error output; the result is the end of it.
async fn collect(errors: Option<OwnedFd>, log: &Logger) -> String {
    let Some(mut errors) = errors.and_then(|file| pipe::Receiver::from_owned_fd(file).ok()) else {
        return String::new();
    };
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = errors.read(&mut buffer).await {
        let new = buffer.get(..count).unwrap_or_default();
        debug!(log, "VMM says"; "text" => String::from_utf8_lossy(new).trim_end());
        kept.extend_from_slice(new);
        let excess = kept.len().saturating_sub(ERRORS_KEPT);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Takes an ended child's status; `None` if somebody else did.
pub fn reap(pid: u32) -> Option<WaitStatus> {
    waitpid(Pid::from_raw(i32::try_from(pid).ok()?), None).ok()
}
