//! The tasks that copy.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::ends::Sink;

/// What a stream holds on its way, at most.
const BUFFER: usize = 32 * 1024;

/// Copies containerd's input to the guest, then tells it that there is no more.
pub async fn input(mut from: pipe::Receiver, mut to: UnixStream) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(buffer.get(..count).unwrap_or_default()).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
    // The stream stays open for the guest to close: an early close would look like a broken connection.
    let _ = to.read(&mut buffer).await;
}

/// Copies the guest's output to containerd until its end, or until it is silent for the time in `patience`.
pub async fn output(
    mut from: UnixStream,
    mut to: Sink,
    mut patience: watch::Receiver<Option<Duration>>,
    done: watch::Sender<bool>,
) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = silence(&mut patience) => break,
        };
        let Ok(count @ 1..) = read else { break };
        if to.write_all(buffer.get(..count).unwrap_or_default()).await.is_err() {
            break;
        }
    }
    let _ = to.flush().await;
    drop(to);
    done.send_replace(true);
}

/// Ready after the time in `patience`, once there is one.
async fn silence(patience: &mut watch::Receiver<Option<Duration>>) {
    let time = patience.wait_for(Option::is_some).await.ok().and_then(|patience| *patience);
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
