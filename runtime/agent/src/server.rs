//! The ways a peer reaches the agent.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use nacre_protocol::ttrpc::r#async::Server;
use nacre_protocol::ttrpc::r#async::transport::Listener;
use nacre_protocol::{AGENT_PORT, FORWARD_PORT, STDIO_PORT};
use slog::{info, warn};
use tokio::net::UnixListener;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

use crate::error::{Doing, Failure, Reply};
use crate::forward;
use crate::isolation::Bound;
use crate::rpc;
use crate::sandbox::Sandbox;

/// The servers that run.
pub struct Servers {
    running: Vec<Server>,
}

impl Servers {
    /// Serves the address, and the standard streams' port where there is vsock.
    pub async fn start(sandbox: &Arc<Sandbox>, address: &str, bound: Bound) -> Reply<Self> {
        let listener = match bound {
            Bound::Unix(socket) => unix(socket).doing("listen")?,
            Bound::Later => Listener::bind(address).doing(&format!("listen at {address}"))?,
        };
        match VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, STDIO_PORT)) {
            Ok(listener) => {
                let (ports, log) = (Arc::clone(&sandbox.ports), sandbox.log().clone());
                tokio::spawn(async move {
                    if let Err(error) = ports.accept(listener).await {
                        warn!(log, "no more streams are taken"; "error" => %error);
                    }
                });
            }
            // Without vsock there are the reading calls.
            Err(error) => info!(sandbox.log(), "no vsock for streams"; "error" => %error),
        }
        let server = serve(sandbox, listener).await?;
        Ok(Self { running: vec![server] })
    }

    /// Takes the host's connections to services on localhost, where there is vsock.
    pub fn forward(&self, sandbox: &Arc<Sandbox>) {
        let log = sandbox.log().clone();
        match VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, FORWARD_PORT)) {
            Ok(listener) => {
                tokio::spawn(async move {
                    if let Err(error) = forward::accept(listener).await {
                        warn!(log, "no more ports are forwarded"; "error" => %error);
                    }
                });
            }
            Err(error) => info!(log, "no vsock for forwarded ports"; "error" => %error),
        }
    }

    /// Tells the host that the agent is ready by connecting to it, and serves on that very connection. A host that
    /// does not listen will connect by itself.
    pub async fn announce(&mut self, sandbox: &Arc<Sandbox>) -> Reply<()> {
        match VsockStream::connect(VsockAddr::new(VMADDR_CID_HOST, AGENT_PORT)).await {
            Ok(stream) => {
                // The stream of connections does not end after the first: a server whose listener ends stops.
                let connections = stream::iter([Ok(stream)]).chain(stream::pending());
                self.running.push(serve(sandbox, Listener::new(connections)).await?);
                Ok(())
            }
            Err(error) => {
                info!(sandbox.log(), "the host takes no announcement"; "error" => %error);
                Ok(())
            }
        }
    }

    /// Stops, after the calls that run were answered.
    pub async fn stop(mut self) {
        for server in &mut self.running {
            let _ = server.shutdown().await;
        }
    }
}

async fn serve(sandbox: &Arc<Sandbox>, listener: Listener) -> Reply<Server> {
    let mut server = Server::new().add_listener(listener).register_service(rpc::services(sandbox));
    server.start().await.map_err(|error| Failure::internal("serve", &error))?;
    Ok(server)
}

fn unix(socket: OwnedFd) -> io::Result<Listener> {
    let listener = std::os::unix::net::UnixListener::from(socket);
    Ok(Listener::from(UnixListener::from_std(listener)?))
}
