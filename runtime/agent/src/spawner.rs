//! Makes the processes of containers.
//!
//! libcontainer forks, and before that changes its own process: OOM score, working directory, dumpable flag.
//! Neither is safe in a process with threads. So the agent forks a spawner before it starts any thread, and the
//! spawner forks a helper for each request. The helper is the parent of the new process until the agent has
//! registered it with its reaper ([`Born::release`]), then ends, and the process becomes the agent's child: no exit
//! status can be missed, however early the process ends.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, send, sendmsg,
    socketpair,
};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;

use crate::lock::lock;
use crate::readiness;

mod executor;
mod fork;
mod helper;
mod order;
mod program;
mod serve;
mod tenant;
mod trace;

pub use fork::fork_child;
pub use order::{CreateOrder, ExecOrder, Order, Stdio};
use order::{Problem, Report};
pub use program::ProgramError;
pub use serve::serve;

/// More reports than this of one process are not read.
const MAX_REPORTS: usize = 64;

/// Reports are short; an error text is cut to fit.
const MAX_REPORT: usize = 8192;

/// Why a process was not made.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program can't be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Something else in the making failed.
    #[error("{0}")]
    Refused(String),
    /// The spawner or its helper ended.
    #[error("the process that makes containers ended early")]
    Vanished,
    /// Talking to the spawner failed.
    #[error("talking to the process that makes containers")]
    Channel(#[from] io::Error),
}

/// The agent's end of the way to the spawner.
#[derive(Debug)]
pub struct Spawner {
    socket: std::sync::Mutex<OwnedFd>,
}

/// A process that exists but is still held by its helper.
#[derive(Debug)]
pub struct Born {
    /// Its process id, in the agent's namespace.
    pub pid: Pid,
    /// The master of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    reports: Reports,
}

/// What the process still has to say: whether its program could be executed.
#[derive(Debug)]
pub struct Launch {
    reports: Reports,
}

#[derive(Debug)]
struct Reports {
    socket: AsyncFd<OwnedFd>,
}

impl Spawner {
    /// Makes the socket pair between the agent and its spawner: the agent's end and the spawner's.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = seqpacket_pair(SockFlag::SOCK_CLOEXEC)?;
        Ok((Self { socket: std::sync::Mutex::new(ours) }, theirs))
    }

    /// Has a process made. It does not run its program before [`Born::release`] and, for a container's first
    /// process, before it is told to start.
    ///
    /// `init` is the process descriptor of the container's first process, for [`Order::Exec`].
    pub async fn spawn(
        &self,
        order: &Order,
        stdio: Stdio,
        init: Option<BorrowedFd<'_>>,
    ) -> Result<Born, SpawnError> {
        let body = order.to_file()?;
        let (ours, theirs) = seqpacket_pair(SockFlag::SOCK_CLOEXEC)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(io::Error::from)?;
        {
            let mut fds: Vec<RawFd> = vec![theirs.as_raw_fd(), body.as_raw_fd()];
            fds.extend(stdio.iter().map(AsRawFd::as_raw_fd));
            fds.extend(init.iter().map(AsRawFd::as_raw_fd));
            let payload = [stdio.kind()];
            let socket = lock(&self.socket);
            sendmsg::<()>(
                socket.as_raw_fd(),
                &[io::IoSlice::new(&payload)],
                &[ControlMessage::ScmRights(&fds)],
                MsgFlags::MSG_NOSIGNAL,
                None,
            )
            .map_err(io::Error::from)?;
        }
        // Only the helper, and later the new process, may hold the other ends: their end is what tells of theirs.
        drop((theirs, stdio));
        let reports = Reports { socket: readiness::watch(ours)? };
        match reports.next().await? {
            Some((Report::Born { pid }, terminal)) => Ok(Born { pid: Pid::from_raw(pid), terminal, reports }),
            Some((Report::Failed(problem), _)) => Err(reports.whole_problem(problem).await),
            None => Err(SpawnError::Vanished),
        }
    }
}

impl Born {
    /// Lets the helper end, so that the process becomes the agent's child. Call it when the reaper knows the pid.
    pub fn release(self) -> Result<Launch, SpawnError> {
        send(self.reports.socket.get_ref().as_raw_fd(), b"go", MsgFlags::MSG_NOSIGNAL)
            .map_err(io::Error::from)?;
        Ok(Launch { reports: self.reports })
    }
}

impl Launch {
    /// Waits until the program was executed, or could not be. Returns at once for a process that is already gone.
    pub async fn executed(&self) -> Result<(), SpawnError> {
        match self.reports.next().await? {
            Some((Report::Failed(problem), _)) => Err(self.reports.whole_problem(problem).await),
            Some((Report::Born { .. }, _)) | None => Ok(()),
        }
    }
}

impl Reports {
    /// The next report, or `None` when nobody can send one any more.
    async fn next(&self) -> Result<Option<(Report, Option<OwnedFd>)>, SpawnError> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| receive(socket.get_ref().as_raw_fd())) {
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some((bytes, mut fds)))) => {
                    let report = serde_json::from_slice(&bytes).map_err(io::Error::from)?;
                    return Ok(Some((report, fds.pop())));
                }
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ECONNRESET) => return Ok(None),
                Ok(Err(error)) => return Err(error.into()),
                Err(_would_block) => {}
            }
        }
    }

    /// The process itself and its helper may both report. The process knows best why its program can't be run; of
    /// other problems the first detail is the nearest to the cause.
    async fn whole_problem(&self, first: Problem) -> SpawnError {
        let mut all = vec![first];
        while all.len() < MAX_REPORTS
            && let Ok(Some((Report::Failed(problem), _))) = self.next().await
        {
            all.push(problem);
        }
        let mut details = Vec::new();
        let mut refused = None;
        for problem in all {
            match problem {
                Problem::Program(error) => return SpawnError::Program(error),
                Problem::Other(text) => refused = refused.or(Some(text)),
                Problem::Detail(text) => details.push(text),
            }
        }
        match (refused, details.into_iter().next()) {
            (Some(text), Some(detail)) if !text.contains(&detail) => {
                SpawnError::Refused(format!("{text}: {detail}"))
            }
            (Some(text), _) | (None, Some(text)) => SpawnError::Refused(text),
            (None, None) => SpawnError::Vanished,
        }
    }
}

fn seqpacket_pair(flags: SockFlag) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    Ok((ours, theirs))
}

/// Receives one message with its descriptors; `None` at the end.
fn receive(socket: RawFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = vec![0u8; MAX_REPORT];
    let mut space = nix::cmsg_space!([RawFd; 8]);
    let mut iov = [io::IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(socket, &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            fds.extend(received.into_iter().map(fork::own));
        }
    }
    let length = message.bytes;
    if length == 0 {
        return Ok(None);
    }
    bytes.truncate(length);
    Ok(Some((bytes, fds)))
}
