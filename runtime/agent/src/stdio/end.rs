//! The agent's end of a stream: of a pipe or of a terminal.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::terminal::Shared;

/// Where a process's output comes from.
#[derive(Debug)]
pub enum Reader {
    /// The end of a pipe.
    Pipe(pipe::Receiver),
    /// The master of a terminal.
    Terminal(Shared),
}

/// Where a process's input goes.
#[derive(Debug)]
pub enum Writer {
    /// The end of a pipe.
    Pipe(pipe::Sender),
    /// The master of a terminal.
    Terminal(Shared),
}

impl Reader {
    /// Takes the reading end of a pipe.
    pub fn pipe(end: OwnedFd) -> io::Result<Self> {
        pipe::Receiver::from_owned_fd(end).map(Self::Pipe)
    }

    /// Waits for output; 0 when no process can write any more.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.read(buffer).await,
            Self::Terminal(terminal) => terminal.read(buffer).await,
        }
    }
}

impl Writer {
    /// Takes the writing end of a pipe.
    pub fn pipe(end: OwnedFd) -> io::Result<Self> {
        pipe::Sender::from_owned_fd(end).map(Self::Pipe)
    }

    /// Writes all of it, waiting for the process to read.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
            Self::Terminal(terminal) => terminal.write_all(bytes).await,
        }
    }
}
