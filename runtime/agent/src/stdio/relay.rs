//! Carries bytes between a process and a connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Connection, Reader, Writer};

/// As much as a pipe holds: larger buffers are never filled.
const BUFFER: usize = 64 * 1024;

/// From the process to the peer. At the end the peer is told, and the connection is kept until the peer closes it:
/// closing first could take away bytes that are still on their way.
pub async fn output(mut from: Reader, mut to: Connection) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { break };
        let bytes = buffer.get(..length).unwrap_or_default();
        if to.write_all(bytes).await.is_err() {
            // The peer is gone; the process must not notice.
            return discard(from).await;
        }
    }
    if to.shutdown().await.is_ok() {
        while let Ok(1..) = to.read(&mut buffer).await {}
    }
}

/// From the peer to the process; at the peer's end the process's input ends.
pub async fn input(mut from: Connection, mut to: Writer) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let bytes = buffer.get(..length).unwrap_or_default();
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// Reads output that nobody wants.
pub async fn discard(mut from: Reader) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(1..) = from.read(&mut buffer).await {}
}

#[cfg(test)]
mod tests {
    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;
    use tokio::net::UnixStream;

    use super::*;

    fn ends() -> (Reader, Writer) {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        (Reader::pipe(read).unwrap(), Writer::pipe(write).unwrap())
    }

    #[tokio::test]
    async fn output_arrives_whole_and_its_end_is_told() {
        let (reader, mut writer) = ends();
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let relay = tokio::spawn(output(reader, Box::new(ours)));
        let sent: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
        let copy = sent.clone();
        let process = tokio::spawn(async move { writer.write_all(&copy).await });
        let mut received = Vec::new();
        peer.read_to_end(&mut received).await.unwrap();
        assert!(received == sent);
        process.await.unwrap().unwrap();
        drop(peer);
        relay.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_goes_away_does_not_stop_the_process() {
        let (reader, mut writer) = ends();
        let (ours, peer) = UnixStream::pair().unwrap();
        drop(peer);
        let relay = tokio::spawn(output(reader, Box::new(ours)));
        writer.write_all(&vec![1; 1 << 20]).await.unwrap();
        drop(writer);
        relay.await.unwrap();
    }

    #[tokio::test]
    async fn the_end_of_the_peers_input_is_the_end_of_the_processs() {
        let (mut reader, writer) = ends();
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let relay = tokio::spawn(input(Box::new(ours), writer));
        peer.write_all(b"hello").await.unwrap();
        peer.shutdown().await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(reader.read(&mut buffer).await.unwrap(), 5);
        assert_eq!(reader.read(&mut buffer).await.unwrap(), 0);
        relay.await.unwrap();
    }
}
