//! Connections of the host to TCP services on the pod's localhost: port forwarding.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use nacre_protocol::{FORWARD_OPEN, FORWARD_REFUSED};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_vsock::{VMADDR_CID_HOST, VsockListener};

use crate::stdio::Connection;

/// Connections at the same time; more wait.
const MOST_CONNECTIONS: usize = 128;

/// Takes connections from this listener until it fails for good.
///
/// SECURITY: this lets the host, and nobody else, reach what listens on localhost only. `agent.forward=0` on the
/// command line, which is measured, turns it off.
pub async fn accept(listener: VsockListener) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) if peer.cid() == VMADDR_CID_HOST => {
                connections.spawn(async move {
                    // How a connection ends is its two ends' business.
                    let _ = carry(Box::new(stream)).await;
                    drop(place);
                });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

async fn carry(mut host: Connection) -> io::Result<()> {
    let port = host.read_u16().await?;
    let service = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Err(_) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await,
        connected => connected,
    };
    let Ok(mut service) = service else {
        host.write_u8(FORWARD_REFUSED).await?;
        return host.shutdown().await;
    };
    host.write_u8(FORWARD_OPEN).await?;
    copy_bidirectional(&mut host, &mut service).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::net::{TcpListener, UnixStream};

    use super::*;

    #[rstest]
    #[case("127.0.0.1:0")]
    #[case("[::1]:0")]
    #[tokio::test]
    async fn bytes_and_their_ends_pass_between_host_and_service(#[case] address: &str) {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mut host, ours) = UnixStream::pair().unwrap();
        let carrying = tokio::spawn(carry(Box::new(ours)));

        host.write_u16(port).await.unwrap();
        let (mut service, _) = listener.accept().await.unwrap();
        assert_eq!(host.read_u8().await.unwrap(), FORWARD_OPEN);
        host.write_all(b"question").await.unwrap();
        host.shutdown().await.unwrap();
        let mut said = String::new();
        service.read_to_string(&mut said).await.unwrap();
        service.write_all(b"answer").await.unwrap();
        drop(service);
        let mut answer = String::new();
        host.read_to_string(&mut answer).await.unwrap();

        assert_eq!((said.as_str(), answer.as_str()), ("question", "answer"));
        carrying.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_port_without_a_service_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let (mut host, ours) = UnixStream::pair().unwrap();
        let carrying = tokio::spawn(carry(Box::new(ours)));
        host.write_u16(port).await.unwrap();
        assert_eq!(host.read_u8().await.unwrap(), FORWARD_REFUSED);
        carrying.await.unwrap().unwrap();
    }
}
