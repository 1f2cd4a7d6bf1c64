//! Connections that a peer makes for the streams of processes, found again by the peer's port.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_vsock::VsockListener;

use crate::lock::lock;

/// A connection for one stream.
pub type Connection = Box<dyn Stream>;

/// Both directions of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// A connection and the call that names it come by different ways; the later of them is waited for this long.
const ARRIVAL: Duration = Duration::from_secs(10);

/// More unclaimed connections than any number of starting processes has.
const MAX_UNCLAIMED: usize = 4096;

/// A connection that did not come.
#[derive(Debug, thiserror::Error)]
#[error("no connection came from stream port {port} within {} s", ARRIVAL.as_secs())]
pub struct PortError {
    port: u32,
}

/// Connections that nobody has claimed yet.
#[derive(Default)]
pub struct StreamPorts {
    unclaimed: Mutex<BTreeMap<u32, Connection>>,
    arrived: Notify,
}

impl StreamPorts {
    /// Takes connections from this listener until it fails for good.
    pub async fn accept(&self, listener: VsockListener) -> io::Result<()> {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.add(peer.port(), Box::new(stream)),
                // The peer gave up before its connection was taken.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps a connection until it is claimed.
    pub fn add(&self, port: u32, connection: Connection) {
        let mut unclaimed = lock(&self.unclaimed);
        if unclaimed.len() < MAX_UNCLAIMED {
            unclaimed.insert(port, connection);
        }
        drop(unclaimed);
        self.arrived.notify_waiters();
    }

    /// The connection from this port, which may still be on its way; none for port 0.
    pub async fn take(&self, port: u32) -> Result<Option<Connection>, PortError> {
        if port == 0 {
            return Ok(None);
        }
        timeout(ARRIVAL, self.wait(port)).await.map(Some).map_err(|_| PortError { port })
    }

    async fn wait(&self, port: u32) -> Connection {
        loop {
            let arrived = self.arrived.notified();
            if let Some(connection) = lock(&self.unclaimed).remove(&port) {
                return connection;
            }
            arrived.await;
        }
    }
}

impl std::fmt::Debug for StreamPorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(lock(&self.unclaimed).keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_found_whether_it_or_the_call_comes_first() {
        let ports = Arc::new(StreamPorts::default());
        ports.add(7, Box::new(UnixStream::pair().unwrap().0));
        assert!(ports.take(7).await.unwrap().is_some());
        let waiting = tokio::spawn({
            let ports = Arc::clone(&ports);
            async move { ports.take(8).await }
        });
        tokio::task::yield_now().await;
        ports.add(8, Box::new(UnixStream::pair().unwrap().0));
        assert!(waiting.await.unwrap().unwrap().is_some());
        assert!(ports.take(0).await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_never_comes_is_an_error_that_names_its_port() {
        let refused = StreamPorts::default().take(9).await.err().map(|error| error.to_string());
        assert_eq!(refused.as_deref(), Some("no connection came from stream port 9 within 10 s"));
    }
}
