//! Connections to ports of the guest through the VMM's listening socket.

use std::io;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// "OK ", a number of 32 bits and a line end.
const LONGEST_ANSWER: usize = 16;

/// A stream to a port of the guest, and the host's port that the guest sees as its peer.
///
/// # Errors
/// The VMM is gone, or nobody in the guest listens on the port.
pub async fn connect(socket: &Path, port: u32) -> io::Result<(UnixStream, u32)> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut line = Vec::with_capacity(LONGEST_ANSWER);
    loop {
        // Byte by byte: what follows the line end belongs to the stream.
        match stream.read_u8().await? {
            b'\n' => break,
            byte if line.len() < LONGEST_ANSWER => line.push(byte),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    let answer = std::str::from_utf8(&line).ok().and_then(|line| line.strip_prefix("OK "));
    let host_port = answer.and_then(|number| number.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((stream, host_port))
}
