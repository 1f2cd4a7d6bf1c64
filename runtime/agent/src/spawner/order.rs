//! What the agent asks of the spawner, and what comes back.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{LinuxSeccomp, Process};
use serde::{Deserialize, Serialize};

use super::program::ProgramError;

/// A process to make.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// A container with its first process.
    Create(CreateOrder),
    /// One more process in a container.
    Exec(Box<ExecOrder>),
    /// A process that does nothing but hold a pid namespace for containers to share.
    HoldPidNamespace,
}

/// A container with its first process.
#[derive(Debug, Serialize, Deserialize)]
pub struct CreateOrder {
    /// Its id.
    pub id: String,
    /// The folder with its `config.json`.
    pub bundle: PathBuf,
    /// The folder for libcontainer's records.
    pub state: PathBuf,
    /// Whether it gets a terminal.
    pub terminal: bool,
}

/// One more process in a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExecOrder {
    /// The container's first process.
    pub init: i32,
    /// The container's cgroup folder.
    pub cgroup: PathBuf,
    /// The process.
    pub process: Process,
    /// The container's system call filter.
    pub seccomp: Option<LinuxSeccomp>,
}

/// The standard streams of a process.
#[derive(Debug)]
pub enum Stdio {
    /// They are a terminal, which the process makes.
    Terminal,
    /// Stdin, stdout and stderr.
    Streams([OwnedFd; 3]),
}

impl Stdio {
    pub(super) fn iter(&self) -> impl Iterator<Item = &OwnedFd> {
        match self {
            Self::Terminal => [].iter(),
            Self::Streams(fds) => fds.iter(),
        }
    }

    /// Marks a message that comes with three streams.
    pub(super) const STREAMS: u8 = b's';

    /// One byte, since a message can't be empty.
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Terminal => b't',
            Self::Streams(_) => Self::STREAMS,
        }
    }
}

/// What a helper, or the process it made, says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    Born { pid: RawFd },
    Failed(Problem),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Problem {
    Program(ProgramError),
    Other(String),
    /// What led to one of the others.
    Detail(String),
}

impl Order {
    /// Puts the order into a file in memory: it may be longer than a message can be.
    pub(super) fn to_file(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(memfd_create(c"order", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&serde_json::to_vec(self)?)?;
        file.rewind()?;
        Ok(file.into())
    }

    pub(super) fn from_file(file: OwnedFd) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

impl Report {
    /// Sends the report, with a descriptor if there is one. A listener that is gone is no problem of the sender.
    pub(super) fn send(&self, socket: RawFd, fd: Option<&OwnedFd>) {
        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
        let Ok(mut bytes) = serde_json::to_vec(self) else { return };
        if bytes.len() > super::MAX_REPORT {
            let short = Self::Failed(Problem::Other("the reason is too long to be told".into()));
            bytes = serde_json::to_vec(&short).unwrap_or_default();
        }
        let fds: Vec<RawFd> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
        let control = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &control[..0] } else { &control[..] };
        let _ = sendmsg::<()>(socket, &[io::IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None);
    }
}
