//! What can go wrong with a stream.

use std::io;

use ttrpc::Code;

/// Why a process's streams can't be joined.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// Not a fifo and not a file.
    #[error("stdio of the kind {0}:// is not supported")]
    Scheme(String),
    /// containerd's end.
    #[error("stdio {path} can't be opened")]
    Open {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The guest's end.
    #[error("the guest does not take stdio streams")]
    Guest(#[source] io::Error),
}

impl StdioError {
    /// The code that containerd gets.
    pub fn code(&self) -> Code {
        match self {
            Self::Scheme(_) => Code::UNIMPLEMENTED,
            Self::Open { .. } => Code::INVALID_ARGUMENT,
            Self::Guest(_) => Code::UNAVAILABLE,
        }
    }
}
