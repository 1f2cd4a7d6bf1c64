//! Joining a process's streams to what containerd wants at their other ends.
//!
//! Each stream is a task of its own with one bounded buffer, so that a reader that stops reading stalls its own
//! stream and nothing else.

mod copy;
mod ends;
mod error;

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use nacre_protocol::STDIO_PORT;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use error::StdioError;

use crate::vsock;
use ends::{Sink, Source};

/// Where containerd wants a process's streams; empty where it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// Its input.
    pub stdin: String,
    /// Its output; with a terminal all of it.
    pub stdout: String,
    /// Its error output.
    pub stderr: String,
    /// One terminal instead of three pipes.
    pub terminal: bool,
}

/// The host's ports of a process's streams, as the agent sees them; 0 where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ports {
    /// Its input.
    pub stdin: u32,
    /// Its output.
    pub stdout: u32,
    /// Its error output.
    pub stderr: u32,
}

/// The streams of a process. Dropping them ends them.
#[derive(Debug)]
pub struct Streams {
    tasks: Vec<Task>,
    outputs: Vec<watch::Receiver<bool>>,
    /// Keeps stdin open while no client has it open. Clients of a pod may come back (containerd restarts, another one
    /// attaches). `ctr`, which has lone containers, forgets to ask for the end of an input that it has read before the
    /// container is there, and only closes the fifo.
    stdin: Option<pipe::Sender>,
    patience: watch::Sender<Option<Duration>>,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Streams {
    /// Opens containerd's ends and streams to the guest behind the VMM's socket, and starts to copy. `clients_come_back`
    /// says whether stdin outlives a client that leaves.
    ///
    /// # Errors
    /// An end that can't be opened, by name.
    pub async fn open(
        paths: &Paths,
        clients_come_back: bool,
        socket: &Path,
    ) -> Result<(Self, Ports), StdioError> {
        let stdin = Source::open(&paths.stdin)?;
        let stdout = Sink::open(&paths.stdout).await?;
        // A terminal has one output.
        let stderr = if paths.terminal { None } else { Sink::open(&paths.stderr).await? };

        let mut ports = Ports::default();
        let (patience, patient) = watch::channel(None);
        let mut streams = Self { tasks: Vec::new(), outputs: Vec::new(), stdin: None, patience };
        if let Some(source) = stdin {
            let (guest, port) = connect(socket).await?;
            ports.stdin = port;
            streams.stdin = clients_come_back.then_some(source.keeper);
            streams.tasks.push(Task(tokio::spawn(copy::input(source.receiver, guest))));
        }
        for (sink, port) in [(stdout, &mut ports.stdout), (stderr, &mut ports.stderr)] {
            let Some(sink) = sink else { continue };
            let (guest, host_port) = connect(socket).await?;
            *port = host_port;
            let (done, drained) = watch::channel(false);
            streams.outputs.push(drained);
            streams.tasks.push(Task(tokio::spawn(copy::output(guest, sink, patient.clone(), done))));
        }
        Ok((streams, ports))
    }

    /// Becomes ready when all output has reached containerd's ends.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + use<> {
        let outputs = self.outputs.clone();
        async move {
            for mut output in outputs {
                // An error means that the task is gone, and no more output comes.
                let _ = output.wait_for(|done| *done).await;
            }
        }
    }

    /// Ends each output as soon as nothing came for `patience`; a backlog is copied whole.
    pub fn hang_up(&self, patience: Duration) {
        self.patience.send_replace(Some(patience));
    }

    /// Stdin ends when all clients have closed it, too.
    pub fn close_stdin(&mut self) {
        self.stdin.take();
    }
}

async fn connect(socket: &Path) -> Result<(tokio::net::UnixStream, u32), StdioError> {
    vsock::connect(socket, STDIO_PORT).await.map_err(|error: io::Error| StdioError::Guest(error))
}

#[cfg(test)]
mod tests;
