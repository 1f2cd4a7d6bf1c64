//! The one who hears what a VMM reports.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use nacre_control::{Channel, ChannelError, Event, StopReason};
use nacre_protocol::AGENT_PORT;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use slog::{Logger, debug};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::{Shared, Stopped};
use crate::host_cgroup;
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
        let mut errors = Errors::new(self.errors.take());
        let told = tokio::select! {
            told = self.events() => told,
            // The end of the process counts, even if somebody else has its end of the channel open.
            () = self.gone() => None,
            never = errors.pass_on(&self.log) => match never {},
        };
        // A socket whose other end was closed with a request of ours unread tells that first, and once; what the VMM
        // had sent before is still there.
        let told = told.or_else(|| self.last_events());
        self.shared.close();
        // A VMM that closed its channel ends; if it does not, it no longer follows its protocol.
        let _ = self.process.kill();
        self.gone().await;
        let status = reap(self.pid);
        let stopped = told.unwrap_or_else(|| Stopped {
            reason: StopReason::Failed(in_words(status)),
            console_tail: errors.finish(),
        });
        end.send_replace(Some(stopped));
    }

    async fn gone(&self) {
        if let Ok(process) = watched::process(self.process.clone()) {
            let _ = process.readable().await;
        }
    }

    /// What a process that is gone has sent.
    fn last_events(&self) -> Option<Stopped> {
        // One failure may be that of the request that it did not read.
        let mut failures = 0;
        while failures < 2 {
            match self.channel.get_ref().receive() {
                Ok((Event::Stopped { reason, console_tail }, _)) => {
                    return Some(Stopped { reason, console_tail });
                }
                Ok((event, files)) => self.handle(event, files),
                Err(_) => failures += 1,
            }
        }
        None
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
            Event::ConsoleTail { text } => {
                let waiting = self.shared.console.lock().map(|mut console| std::mem::take(&mut *console));
                for waiting in waiting.into_iter().flatten() {
                    let _ = waiting.send(text.clone());
                }
            }
            Event::GuestConnected { .. } | Event::Stage0Did { .. } | Event::Stopped { .. } => {}
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
        if let Ok(mut console) = self.console.lock() {
            console.clear();
        }
    }
}

fn stream(file: OwnedFd) -> io::Result<UnixStream> {
    let stream = StdUnixStream::from(file);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// What the VMM writes to its error output.
struct Errors {
    pipe: Option<pipe::Receiver>,
    /// The end of it.
    kept: Vec<u8>,
}

impl Errors {
    fn new(pipe: Option<OwnedFd>) -> Self {
        Self { pipe: pipe.and_then(|file| pipe::Receiver::from_owned_fd(file).ok()), kept: Vec::new() }
    }

    /// Passes it on to the log, for ever.
    async fn pass_on(&mut self, log: &Logger) -> Infallible {
        let mut buffer = [0; 1024];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer).await {
                Ok(count @ 1..) => {
                    let new = buffer.get(..count).unwrap_or_default();
                    debug!(log, "VMM says"; "text" => String::from_utf8_lossy(new).trim_end());
                    self.keep(new);
                }
                _ => self.pipe = None,
            }
        }
        std::future::pending().await
    }

    /// The end of all that a VMM, which is gone, has written.
    fn finish(mut self) -> String {
        let mut buffer = [0; 1024];
        while let Some(Ok(count @ 1..)) = self.pipe.as_ref().map(|pipe| pipe.try_read(&mut buffer)) {
            self.keep(buffer.get(..count).unwrap_or_default());
        }
        String::from_utf8_lossy(&self.kept).into_owned()
    }

    fn keep(&mut self, new: &[u8]) {
        self.kept.extend_from_slice(new);
        let excess = self.kept.len().saturating_sub(ERRORS_KEPT);
        self.kept.drain(..excess);
    }
}

/// How a VMM ended that said nothing.
fn in_words(status: Option<WaitStatus>) -> String {
    match status {
        Some(WaitStatus::Signaled(_, signal, _)) => {
            let short = if signal == Signal::SIGKILL { host_cgroup::short_of_memory() } else { None };
            short.map_or_else(
                || format!("the VMM was killed by {signal}"),
                |group| {
                    let group = group.display();
                    format!(
                        "the VMM was killed: no memory is left, on the host or within the limits of {group}"
                    )
                },
            )
        }
        Some(WaitStatus::Exited(_, code)) => format!("the VMM exited with {code}"),
        _ => "the VMM is gone".into(),
    }
}

/// Takes an ended child's status; `None` if somebody else did.
pub fn reap(pid: u32) -> Option<WaitStatus> {
    waitpid(Pid::from_raw(i32::try_from(pid).ok()?), None).ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nacre_control::Request;
    use slog::{Discard, o};

    use super::*;

    /// The VMM ended before it read a request: its socket tells that first, whoever asks.
    #[tokio::test]
    async fn a_reason_is_heard_behind_the_news_of_an_unread_request() {
        let (ours, theirs) = Channel::pair().unwrap();
        super::super::set_nonblocking(&ours).unwrap();
        ours.send(&Request::TellConsole, &[]).unwrap();
        let reason = StopReason::Failed("no kernel".into());
        theirs.send(&Event::Stopped { reason: reason.clone(), console_tail: String::new() }, &[]).unwrap();
        drop(theirs);
        let mut child = Command::new("true").spawn().unwrap();
        let reader = Reader {
            pid: child.id(),
            process: Arc::new(PidFd::open(child.id()).unwrap()),
            channel: Arc::new(watched::channel(ours).unwrap()),
            shared: Arc::default(),
            timeline: Arc::default(),
            errors: None,
            log: Logger::root(Discard, o!()),
        };
        assert_eq!(reader.last_events().unwrap().reason, reason);
        assert!(child.wait().unwrap().success());
    }
}
