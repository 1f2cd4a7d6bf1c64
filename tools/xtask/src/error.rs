//! Why a task failed.

use std::io;
use std::path::PathBuf;

/// Why a task failed. Each task adds its own cases as [`Error::Task`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be started.
    #[error("{program} can't be started")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program ended badly.
    #[error("{line} ended with {status}; the end of its output ({log}):\n{tail}")]
    Ended {
        /// The command line.
        line: String,
        /// Its exit status.
        status: String,
        /// Where its whole output is.
        log: PathBuf,
        /// The last lines of its output.
        tail: String,
    },
    /// A file operation failed.
    #[error("{what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The test node died, or is not there.
    #[error(transparent)]
    Node(#[from] crate::node::Failure),
    /// Whatever else a task finds wrong, with what to do about it.
    #[error("{0}")]
    Task(String),
}

impl Error {
    /// For `map_err`: says what was done to which file.
    pub fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}

/// Prints an error and what caused it.
pub fn print_chain(error: &Error) {
    eprintln!("error: {}", chain(error));
}

/// An error and what caused it, a line each.
pub fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str("\n  because: ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
