//! The standard streams of the containers' processes.
//!
//! A peer either gives vsock ports, and each stream is joined to a connection of its own ([`relay`]), or it gives
//! none and uses the calls ReadStdout, ReadStderr and WriteStdin ([`Direct`]).

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

mod end;
mod ports;
mod relay;
mod terminal;

pub use end::{Reader, Writer};
pub use ports::{Connection, PortError, StreamPorts};
pub use terminal::{Terminal, set_size, wanted_size};

use crate::spawner::Stdio;

/// The connections that a peer has made for the streams of one process.
#[derive(Default)]
pub struct Connections {
    /// For stdin.
    pub stdin: Option<Connection>,
    /// For stdout, or for what a terminal prints.
    pub stdout: Option<Connection>,
    /// For stderr.
    pub stderr: Option<Connection>,
}

/// How a process's streams are used.
pub enum Wanted {
    /// By the reading and writing calls.
    Calls,
    /// By these connections; a stream without one is `/dev/null`.
    Connections(Connections),
}

/// The agent's side of a process's streams.
pub enum Streams {
    /// For the reading and writing calls.
    Direct(Box<Direct>),
    /// Joined to connections; the tasks end with this.
    Relayed(Relayed),
}

/// Streams for the reading and writing calls. Each has its own lock, held while the call waits for that stream.
#[derive(Default)]
pub struct Direct {
    /// Where WriteStdin writes, until it is closed.
    pub stdin: Mutex<Option<Writer>>,
    /// Where ReadStdout reads.
    pub stdout: Mutex<Option<Reader>>,
    /// Where ReadStderr reads.
    pub stderr: Mutex<Option<Reader>>,
}

/// Tasks that carry streams to and from connections. They end with this.
pub struct Relayed {
    outputs: Mutex<JoinSet<()>>,
    /// Goes on as long as the peer has input, which can be longer than anybody reads it.
    _input: JoinSet<()>,
}

/// Streams whose process does not exist yet.
pub struct Prepared {
    ours: Ours,
    wanted: Wanted,
}

enum Ours {
    Terminal,
    Pipes { stdin: Option<Writer>, stdout: Option<Reader>, stderr: Option<Reader> },
}

/// Makes the streams of a process: its side for the spawner, the agent's for later.
pub fn prepare(terminal: bool, wanted: Wanted) -> io::Result<(Stdio, Prepared)> {
    if terminal {
        return Ok((Stdio::Terminal, Prepared { ours: Ours::Terminal, wanted }));
    }
    let used = |connection: fn(&Connections) -> bool| match &wanted {
        Wanted::Calls => true,
        Wanted::Connections(connections) => connection(connections),
    };
    let (stdin_theirs, stdin) = if used(|all| all.stdin.is_some()) {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        (read, Some(Writer::pipe(write)?))
    } else {
        (null(true)?, None)
    };
    let output = |wanted: bool| -> io::Result<(OwnedFd, Option<Reader>)> {
        if !wanted {
            return Ok((null(false)?, None));
        }
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        Ok((write, Some(Reader::pipe(read)?)))
    };
    let (stdout_theirs, stdout) = output(used(|all| all.stdout.is_some()))?;
    let (stderr_theirs, stderr) = output(used(|all| all.stderr.is_some()))?;
    let ours = Ours::Pipes { stdin, stdout, stderr };
    Ok((Stdio::Streams([stdin_theirs, stdout_theirs, stderr_theirs]), Prepared { ours, wanted }))
}

impl Prepared {
    /// Joins the streams, now that the process exists.
    pub fn join(self, terminal: Option<&Terminal>) -> Streams {
        let (stdin, stdout, stderr) = match (self.ours, terminal) {
            (Ours::Pipes { stdin, stdout, stderr }, _) => (stdin, stdout, stderr),
            (Ours::Terminal, Some(terminal)) => (Some(terminal.writer()), Some(terminal.reader()), None),
            (Ours::Terminal, None) => (None, None, None),
        };
        match self.wanted {
            Wanted::Calls => Streams::Direct(Box::new(Direct {
                stdin: Mutex::new(stdin),
                stdout: Mutex::new(stdout),
                stderr: Mutex::new(stderr),
            })),
            Wanted::Connections(connections) => {
                let (mut outputs, mut input) = (JoinSet::new(), JoinSet::new());
                if let (Some(connection), Some(writer)) = (connections.stdin, stdin) {
                    input.spawn(relay::input(connection, writer));
                }
                for (connection, reader) in [(connections.stdout, stdout), (connections.stderr, stderr)] {
                    match (connection, reader) {
                        (Some(connection), Some(reader)) => {
                            outputs.spawn(relay::output(reader, connection));
                        }
                        // A terminal that nobody reads would stop its process when its buffer is full.
                        (None, Some(reader)) => {
                            outputs.spawn(relay::discard(reader));
                        }
                        (_, None) => {}
                    }
                }
                Streams::Relayed(Relayed { outputs: Mutex::new(outputs), _input: input })
            }
        }
    }
}

impl Streams {
    /// The streams for the calls; `None` when they are joined to connections.
    pub fn direct(&self) -> Option<&Direct> {
        match self {
            Self::Direct(direct) => Some(direct),
            Self::Relayed(_) => None,
        }
    }

    /// Waits until connections have taken all output. Output for calls is not waited for.
    pub async fn delivered(&self) {
        if let Self::Relayed(relayed) = self {
            let mut outputs = relayed.outputs.lock().await;
            while outputs.join_next().await.is_some() {}
        }
    }
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Direct(_) => f.write_str("Direct"),
            Self::Relayed(_) => f.write_str("Relayed"),
        }
    }
}

fn null(read: bool) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(read).write(!read).open("/dev/null")?.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn delivery_lasts_until_the_peer_has_all_output() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let wanted = Connections { stdout: Some(Box::new(ours)), ..Default::default() };
        let (theirs, prepared) = prepare(false, Wanted::Connections(wanted)).unwrap();
        let streams = prepared.join(None);
        let Stdio::Streams([_, stdout, _]) = theirs else { panic!("no streams") };
        // More than the pipe and the socket hold, so that the process would block without the relay.
        let process =
            tokio::task::spawn_blocking(move || std::fs::File::from(stdout).write_all(&vec![7; 4 << 20]));
        let delivery = tokio::spawn(async move { streams.delivered().await });
        let mut received = Vec::new();
        peer.read_to_end(&mut received).await.unwrap();
        assert_eq!(received.len(), 4 << 20);
        process.await.unwrap().unwrap();
        assert!(!delivery.is_finished());
        drop(peer);
        delivery.await.unwrap();
    }
}
