//! These need root and a kernel with BPF, and make network namespaces of their own.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

use nacre_protocol::FORWARD_REFUSED;
use slog::{Discard, o};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixListener;

use super::*;
use crate::network::tests::Namespace;

/// A guest that has a service on port 8080, which answers in capitals, and a VMM in front of it.
async fn guest(listener: UnixListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line, format!("CONNECT {FORWARD_PORT}\n"));
        stream.write_all(b"OK 5000\n").await.unwrap();
        if stream.read_u16().await.unwrap() != 8080 {
            stream.write_u8(FORWARD_REFUSED).await.unwrap();
            continue;
        }
        stream.write_u8(FORWARD_OPEN).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        stream.write_all(said.to_uppercase().as_bytes()).await.unwrap();
    }
}

/// What a client in the namespace gets who says `hello` and closes its half.
async fn ask(namespace: &Namespace, address: &str) -> io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let path = namespace.path();
    let answer = inside(&path, async move || {
        let talk = || {
            let mut stream = std::net::TcpStream::connect(address)?;
            stream.write_all(b"hello")?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        };
        Ok(talk())
    });
    answer.await.unwrap()
}

#[tokio::test]
async fn a_connection_to_localhost_reaches_the_guest_by_both_families_and_a_refusal_comes_back() {
    let namespace = Namespace::new("forward");
    namespace.ip(&["link", "set", "lo", "up"]);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vsock.sock");
    let guest = tokio::spawn(guest(UnixListener::bind(&socket).unwrap()));
    let forwarder = Forwarder::start(&namespace.path(), socket, Logger::root(Discard, o!())).await.unwrap();

    assert_eq!(ask(&namespace, "127.0.0.1:8080").await.unwrap(), "HELLO");
    assert_eq!(ask(&namespace, "[::1]:8080").await.unwrap(), "HELLO");
    let refused = ask(&namespace, "127.0.0.1:8081").await.unwrap_err().kind();
    assert!(matches!(refused, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{refused}");

    drop(forwarder);
    tokio::task::yield_now().await;
    let gone = ask(&namespace, "127.0.0.1:8080").await.unwrap_err().kind();
    // Reset when the client was in the queue of the listening socket that is being closed.
    assert!(matches!(gone, io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset), "{gone}");
    guest.abort();
}
