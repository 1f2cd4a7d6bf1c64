//! What can go wrong with a VMM.

use std::io;
use std::path::PathBuf;

use nacre_control::ChannelError;
use ttrpc::Code;

use super::Stopped;
use crate::annotations::HOST_DATA;

/// Why there is no VM, or no more.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// A file that a VM needs.
    #[error("{what} {} can't be opened", path.display())]
    Open {
        /// What it is for.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One half of an ID block.
    #[error("confidential.id_block and confidential.id_auth are needed together: set both or none")]
    IdBlockIncomplete,
    /// The annotation is none.
    #[error("the annotation {HOST_DATA} must be 64 hexadecimal digits")]
    HostData,
    /// The VMM's program does not start.
    #[error("the VMM {} can't be started", path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The VMM ended.
    #[error("the virtual machine ended: {}{}", .0.reason, tail(&.0.console_tail))]
    Stopped(Stopped),
    /// The agent did not come up in time.
    #[error("the guest's agent was not ready after {seconds} s{}", tail(console_tail))]
    NotReady {
        /// How long was waited.
        seconds: u64,
        /// The last lines of the guest's console.
        console_tail: String,
    },
    /// A disk could not grow.
    #[error("the VMM could not add image layers: {0}")]
    Grow(String),
    /// The control socket failed.
    #[error("the VMM can't be reached")]
    Channel(#[from] ChannelError),
    /// The system failed.
    #[error("the VMM can't be watched")]
    Io(#[from] io::Error),
}

fn tail(console: &str) -> String {
    match console.trim_end() {
        "" => String::new(),
        text => format!("; the guest's last lines:\n{text}"),
    }
}

impl VmmError {
    /// The code that containerd gets.
    pub fn code(&self) -> Code {
        match self {
            Self::Open { .. } | Self::Spawn { .. } | Self::IdBlockIncomplete => Code::FAILED_PRECONDITION,
            Self::HostData => Code::INVALID_ARGUMENT,
            Self::NotReady { .. } => Code::DEADLINE_EXCEEDED,
            Self::Stopped(_) | Self::Channel(_) => Code::UNAVAILABLE,
            Self::Grow(_) | Self::Io(_) => Code::INTERNAL,
        }
    }
}
