//! One process of a container, from its making to its exit status.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use nacre_protocol::ttrpc::Code;
use nix::unistd::Pid;
use oci_spec::runtime;
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::sync::{oneshot, watch};

use crate::error::{Doing, Failure, Reply};
use crate::lock::lock;
use crate::reaper::Reaper;
use crate::signal;
use crate::spawner::{Born, Launch, Order, ProgramError, SpawnError, Spawner};
use crate::stdio::{self, Reader, Streams, Terminal, Wanted};

/// At most this much comes back from one reading call: a message has at most 4 MiB.
const MAX_READ: usize = 1 << 20;

/// A process that exists or has existed.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    handle: OwnedFd,
    launch: Mutex<Option<Launch>>,
    terminal: Option<Terminal>,
    streams: Streams,
    status: watch::Sender<Option<i32>>,
}

/// Which output of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Stdout, or what a terminal prints.
    Stdout,
    /// Stderr.
    Stderr,
}

/// A new process, and its exit status when it has one.
pub struct Spawned {
    /// The process.
    pub process: Process,
    /// Its status, for whoever announces it by [`Process::exited`].
    pub status: oneshot::Receiver<i32>,
}

impl Process {
    /// Has a process made.
    pub async fn spawn(
        spawner: &Spawner,
        reaper: &Reaper,
        order: &Order,
        console: Option<&runtime::Box>,
        terminal: bool,
        wanted: Wanted,
        init: Option<&Self>,
    ) -> Reply<Spawned> {
        let (theirs, prepared) = stdio::prepare(terminal, wanted).doing("make the standard streams")?;
        let init = init.map(|process| process.handle.as_fd());
        let born = spawner.spawn(order, theirs, init).await?;
        let pid = born.pid;
        let status = reaper.expect(pid);
        match Self::take_over(born, console) {
            Ok((handle, terminal, launch)) => {
                let streams = prepared.join(terminal.as_ref());
                let process = Self {
                    pid,
                    handle,
                    launch: Mutex::new(Some(launch)),
                    terminal,
                    streams,
                    status: watch::Sender::new(None),
                };
                Ok(Spawned { process, status })
            }
            Err(failure) => {
                // Its helper kills it when it can't be handed over.
                reaper.forget(pid);
                Err(failure)
            }
        }
    }

    fn take_over(
        mut born: Born,
        console: Option<&runtime::Box>,
    ) -> Reply<(OwnedFd, Option<Terminal>, Launch)> {
        let pid = rustix::process::Pid::from_raw(born.pid.as_raw())
            .ok_or_else(|| Failure::new(Code::INTERNAL, "a process without an id"))?;
        let handle =
            pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from).doing("open the process")?;
        let terminal = born.terminal.take().map(Terminal::new).transpose().doing("take the terminal")?;
        // A container's first process has not begun yet; an added one has set the size itself.
        if let (Some(terminal), Some((rows, columns))) = (&terminal, stdio::wanted_size(console)) {
            terminal.resize(rows, columns).doing("set the terminal's size")?;
        }
        Ok((handle, terminal, born.release()?))
    }

    /// Its id in the agent's namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until its program was executed; the reason if it can't be. Tells only the first that asks.
    pub async fn executed(&self) -> Reply<()> {
        let launch = lock(&self.launch).take();
        match launch {
            Some(launch) => Ok(launch.executed().await?),
            None => Ok(()),
        }
    }

    /// Announces its exit status to all that wait.
    pub fn exited(&self, status: i32) {
        self.status.send_replace(Some(status));
    }

    /// Its exit status if it has ended.
    pub fn status(&self) -> Option<i32> {
        *self.status.borrow()
    }

    /// Waits for its exit status.
    pub async fn wait(&self) -> i32 {
        let mut status = self.status.subscribe();
        loop {
            if let Some(status) = *status.borrow_and_update() {
                return status;
            }
            if status.changed().await.is_err() {
                return -1;
            }
        }
    }

    /// Sends it a signal; a process that has ended takes any.
    pub fn signal(&self, signal: signal::Number) -> Reply<()> {
        signal.send(self.handle.as_fd()).doing("send the signal")
    }

    /// Sets the size of its terminal.
    pub fn resize(&self, rows: u32, columns: u32) -> Reply<()> {
        let terminal = self
            .terminal
            .as_ref()
            .ok_or_else(|| Failure::new(Code::UNAVAILABLE, "the process has no terminal"))?;
        let fit = |value: u32| u16::try_from(value).map_err(|_| Failure::invalid("a terminal of that size"));
        terminal.resize(fit(rows)?, fit(columns)?).doing("set the terminal's size")
    }

    /// Waits for output and returns at most `length` bytes of it; empty at its end.
    pub async fn read(&self, output: Output, length: u32) -> Reply<Vec<u8>> {
        let direct =
            self.streams.direct().ok_or_else(|| Failure::precondition("the streams are connections"))?;
        let stream = match output {
            Output::Stdout => &direct.stdout,
            Output::Stderr => &direct.stderr,
        };
        let mut stream = stream.lock().await;
        let Some(reader) = stream.as_mut() else { return Ok(Vec::new()) };
        let length = usize::try_from(length).unwrap_or(MAX_READ).clamp(1, MAX_READ);
        let bytes = read(reader, length).await.doing("read the output")?;
        if bytes.is_empty() {
            *stream = None;
        }
        Ok(bytes)
    }

    /// Waits until connections have taken all of its output.
    pub async fn delivered(&self) {
        self.streams.delivered().await;
    }

    /// Whether all output was read to its end by calls.
    pub fn is_drained(&self) -> bool {
        self.streams.direct().is_none_or(|direct| {
            let ended = |stream: &tokio::sync::Mutex<Option<Reader>>| {
                stream.try_lock().is_ok_and(|stream| stream.is_none())
            };
            ended(&direct.stdout) && ended(&direct.stderr)
        })
    }

    /// Writes input; no bytes close it.
    pub async fn write(&self, bytes: &[u8]) -> Reply<u32> {
        if bytes.is_empty() {
            return self.close_stdin().await.map(|()| 0);
        }
        let direct =
            self.streams.direct().ok_or_else(|| Failure::precondition("the streams are connections"))?;
        let mut stream = direct.stdin.lock().await;
        let writer = stream.as_mut().ok_or_else(|| Failure::precondition("stdin is closed"))?;
        match writer.write_all(bytes).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                *stream = None;
                Err(Failure::precondition("the process reads no more"))
            }
            other => {
                other.doing("write the input")?;
                Ok(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
            }
        }
    }

    /// Ends its input. A terminal has no end: there the process is told by what is typed.
    pub async fn close_stdin(&self) -> Reply<()> {
        let direct =
            self.streams.direct().ok_or_else(|| Failure::precondition("the streams are connections"))?;
        *direct.stdin.lock().await = None;
        Ok(())
    }
}

async fn read(reader: &mut Reader, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    let read = reader.read(&mut buffer).await?;
    buffer.truncate(read);
    Ok(buffer)
}

impl From<SpawnError> for Failure {
    fn from(error: SpawnError) -> Self {
        match &error {
            SpawnError::Program(program) => {
                let code = match program {
                    ProgramError::NotFound { .. } => Code::NOT_FOUND,
                    ProgramError::NotPermitted { .. } => Code::PERMISSION_DENIED,
                    ProgramError::NotRunnable { .. } => Code::FAILED_PRECONDITION,
                    ProgramError::NoProgram => Code::INVALID_ARGUMENT,
                };
                Self::new(code, program.to_string())
            }
            SpawnError::Refused(text) => Self::new(Code::INTERNAL, text.clone()),
            SpawnError::Vanished | SpawnError::Channel(_) => Self::internal("make the process", &error),
        }
    }
}
