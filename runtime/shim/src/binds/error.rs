//! What can't be copied.

use std::io;
use std::path::PathBuf;

use ttrpc::Code;

/// Why a bind mount can't be copied into the guest.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It can't be read.
    #[error("bind mount source {} can't be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A device, socket or fifo.
    #[error("bind mount source {} is a {kind}, which can't be given to a VM", path.display())]
    Kind {
        /// Which.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A file over the limit.
    #[error("bind mount source {} has {bytes} bytes, and binds.max_file_kib allows {most}", path.display())]
    FileTooLarge {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// A folder over a limit.
    #[error("bind mount source {} has more than {most} {unit}, the limit of {key}", path.display())]
    FolderTooLarge {
        /// Which.
        path: PathBuf,
        /// The limit.
        most: u64,
        /// Of what.
        unit: &'static str,
        /// The configuration's key.
        key: &'static str,
    },
    /// The thread that reads is gone.
    #[error("reading a bind mount's source was cut short")]
    Cut,
}

impl BindError {
    /// The code that containerd gets.
    pub fn code(&self) -> Code {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Code::NOT_FOUND,
            Self::Read { .. } | Self::Cut => Code::INTERNAL,
            Self::Kind { .. } => Code::UNIMPLEMENTED,
            Self::FileTooLarge { .. } | Self::FolderTooLarge { .. } => Code::FAILED_PRECONDITION,
        }
    }
}
