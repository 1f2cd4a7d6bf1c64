//! Asking a pod's shim.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nacre_operator::{Call, Fault, LONGEST_LINE, Reply, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// A shim answers at once; what only its guest can answer may take longer, but a guest that hangs must not hold us up.
const PATIENCE: Duration = Duration::from_secs(5);
/// A report takes a security processor its time, and a guest's kernel asks a busy one again. The shim gives up before this
/// where timeouts.request_seconds is what it is by default.
const REPORT_PATIENCE: Duration = Duration::from_secs(90);

/// Why a shim gave no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// There is no socket.
    #[error("the pod's shim has no socket for operators at {}: it is of an older version, or starts", path.display())]
    NoSocket {
        /// Where it would be.
        path: PathBuf,
    },
    /// There is nobody to ask.
    #[error("the pod's shim no longer runs")]
    Gone,
    /// The socket is there, and nobody serves it.
    #[error("the pod's shim can't be reached at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not root.
    #[error("only root may ask a pod's shim")]
    NotAllowed,
    /// The shim was asked and says nothing.
    #[error("the pod's shim did not answer in time")]
    Silent,
    /// The connection failed on the way.
    #[error("the connection to the pod's shim failed")]
    Io(#[source] io::Error),
    /// The answer is none.
    #[error("the pod's shim gave an answer that can't be read")]
    Unreadable,
    /// The shim said no.
    #[error("{message}")]
    Refused {
        /// What kind of reason.
        fault: Fault,
        /// The reason, made harmless for a terminal.
        message: String,
    },
}

/// A question that has been asked.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<UnixStream>,
}

impl Connection {
    /// Connects and asks.
    ///
    /// # Errors
    /// Nobody is there.
    pub fn open(path: &Path, call: Call) -> Result<Self, AskError> {
        let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => AskError::NoSocket { path: path.into() },
            ErrorKind::PermissionDenied => AskError::NotAllowed,
            _ => AskError::Connect { path: path.into(), source },
        })?;
        let patience = if matches!(call, Call::Report { .. }) { REPORT_PATIENCE } else { PATIENCE };
        stream.set_read_timeout(Some(patience)).map_err(AskError::Io)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(AskError::Io)?;
        (&stream).write_all(Request::new(call).line().as_bytes()).map_err(failed)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Waits for ever from now on.
    ///
    /// # Errors
    /// The socket fails.
    pub fn patient(self) -> Result<Self, AskError> {
        self.reader.get_ref().set_read_timeout(None).map_err(AskError::Io)?;
        Ok(self)
    }

    /// The other direction, for what follows a question.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn writer(&self) -> Result<UnixStream, AskError> {
        self.reader.get_ref().try_clone().map_err(AskError::Io)
    }

    /// The next line; `None` after the last one.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn next<T: Serialize + DeserializeOwned>(&mut self) -> Result<Option<T>, AskError> {
        let mut line = String::new();
        let most = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
        match self.reader.by_ref().take(most).read_line(&mut line).map_err(failed)? {
            0 => Ok(None),
            _ => match Reply::read(&line).map_err(|_| AskError::Unreadable)? {
                Reply::Ok(answer) => Ok(Some(answer)),
                Reply::Error { fault, message } => {
                    Err(AskError::Refused { fault, message: crate::printable::text(&message) })
                }
            },
        }
    }

    /// The only line.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn only<T: Serialize + DeserializeOwned>(mut self) -> Result<T, AskError> {
        self.next()?.ok_or(AskError::Unreadable)
    }
}

fn failed(error: io::Error) -> AskError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => AskError::Silent,
        ErrorKind::InvalidData => AskError::Unreadable,
        _ => AskError::Io(error),
    }
}
