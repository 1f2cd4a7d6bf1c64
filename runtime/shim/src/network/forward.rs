//! Port forwarding: connections to localhost inside the pod's network namespace reach services on the pod's localhost
//! in the guest.
//!
//! containerd forwards a port by dialling localhost in the namespace on the host, where nothing of the pod listens. One
//! socket of the shim takes all these connections, whatever their port; each goes on over vsock to the agent, which
//! dials its own localhost. Nothing else connects inside that namespace: frames from outside pass to the tap before
//! the host's network stack sees them.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener as StdTcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nacre_protocol::{FORWARD_OPEN, FORWARD_PORT};
use slog::{Logger, debug};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::unsafe_bpf::take_all_connections;
use super::{NetworkError, inside};
use crate::vsock;

/// Connections at the same time; more wait.
const MOST_CONNECTIONS: usize = 128;
/// For the guest to say whether anybody listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// Forwards connections until it is dropped.
#[derive(Debug)]
pub struct Forwarder {
    /// The kernel sends connections here as long as this is open.
    _link: OwnedFd,
    task: JoinHandle<()>,
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Forwarder {
    /// Takes the connections inside the namespace at `path`, for the guest behind the VMM's `socket`.
    ///
    /// # Errors
    /// The namespace can't be entered, or the kernel can't do it.
    pub async fn start(path: &Path, socket: PathBuf, log: Logger) -> Result<Self, NetworkError> {
        let namespace = path.to_owned();
        let (listener, link) =
            inside(path, async move || listen(&namespace).map_err(NetworkError::Forward)).await?;
        let listener = TcpListener::from_std(listener).map_err(NetworkError::Forward)?;
        Ok(Self { _link: link, task: tokio::spawn(serve(listener, socket, log)) })
    }
}

/// To be called in the namespace: that is where the socket is made.
fn listen(namespace: &Path) -> io::Result<(StdTcpListener, OwnedFd)> {
    // One socket for both families, or for the only one that there is.
    let listener = StdTcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))
        .or_else(|_| StdTcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    listener.set_nonblocking(true)?;
    let link = take_all_connections(File::open(namespace)?.as_fd(), listener.as_fd())?;
    Ok((listener, link))
}

async fn serve(listener: TcpListener, socket: PathBuf, log: Logger) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    while let Ok(place) = places.clone().acquire_owned().await {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // The peer gave up; all else is the end of this socket.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return debug!(log, "no more ports are forwarded"; "error" => %error),
        };
        let (socket, log) = (socket.clone(), log.clone());
        connections.spawn(async move {
            if let Err(error) = carry(stream, &socket).await {
                debug!(log, "forwarded connection failed"; "error" => %error);
            }
            drop(place);
        });
    }
}

async fn carry(mut client: TcpStream, socket: &Path) -> io::Result<()> {
    // The destination that the client dialled.
    let port = client.local_addr()?.port();
    let forwarded = async {
        let guest = tokio::time::timeout(PATIENCE, open(socket, port)).await;
        let mut guest = guest.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        copy_bidirectional(&mut client, &mut guest).await
    };
    match forwarded.await {
        Ok(_) => Ok(()),
        Err(error) => {
            // As if refused: the kernel has accepted before the guest was asked.
            client.set_zero_linger()?;
            Err(error)
        }
    }
}

/// A stream to the service on this port of the guest.
async fn open(socket: &Path, port: u16) -> io::Result<UnixStream> {
    let (mut stream, _) = vsock::connect(socket, FORWARD_PORT).await?;
    stream.write_all(&port.to_be_bytes()).await?;
    match stream.read_u8().await? {
        FORWARD_OPEN => Ok(stream),
        _ => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

#[cfg(test)]
mod tests;
